//! The manifest of a runner's pod, which waits for its Secret. A pure function of what it is given.
//!
//! What holds for every pod made here:
//!
//! * The JIT configuration is in no manifest but the Secret's. The pod names that Secret as a volume, so it may be
//!   created first; the container's start command reads the file into the variable that the runner takes it from (and
//!   clears).
//! * All of the [`RunnerSpec`] is in the annotations, exactly; the labels are for people and selectors, and hold what a
//!   label can hold.
//! * The Docker daemon listens on a socket in a volume that only this pod has, never on TCP.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, ExecAction, LocalObjectReference, Pod, PodSecurityContext,
    PodSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{annotations, labels};
use super::profile::{Mode, Profile};
use super::secret::KEY;
use crate::{RunnerSpec, TELLS_TOO_OLD};

/// Name of the container that runs the runner.
pub const RUNNER: &str = "runner";
/// Name of the container that runs the Docker daemon.
pub const DIND: &str = "dind";
/// Time that a pod is given between TERM and KILL, in seconds: Kubernetes' own default, written down so that it has a
/// bound.
pub const GRACE_SECONDS: u32 = 30;

/// Where the Secret is mounted: not below `/var/run`, which the runner shares with `dind`.
const SECRET_DIR: &str = "/etc/jit-runner";
const SOCKET: &str = "unix:///var/run/docker.sock";
const WORK: &str = "/home/runner/_work";
const EXTERNALS: &str = "/home/runner/externals";
const EXTERNALS_COPY: &str = "/opt/jit-runner/externals";

/// Reads the configuration and becomes the runner (`exec`: it gets the signals, and its exit code is the container's).
/// Kubernetes looks for `$(NAME)` in commands, and leaves alone what names no variable.
const START: &str = r#"ACTIONS_RUNNER_INPUT_JITCONFIG=$(cat /etc/jit-runner/jitconfig)
export ACTIONS_RUNNER_INPUT_JITCONFIG
exec "$@""#;

/// The same with Docker: for a `container:` job the runner has the daemon mount `externals` (its Node.js) by the path
/// that it has in the runner's image, so the daemon's container needs a copy there. ARC copies in an init container;
/// here it is the first thing that the runner's container does, which takes as long and saves a container, its start
/// and its share of a quota.
fn start_dind() -> String {
    let copy = format!("cp -r {EXTERNALS}/. {EXTERNALS_COPY}/");
    format!("if [ -d {EXTERNALS} ]; then {copy}; fi\n{START}")
}

/// The pod of a runner. `native_sidecars`: the server is 1.29 or later and ends a sidecar with the main container;
/// without, the Docker daemon is an ordinary second container, and whoever sees the runner's container end has to
/// delete the pod.
pub fn pod(spec: &RunnerSpec, profile: &Profile, native_sidecars: bool) -> Pod {
    let mut volumes = vec![Volume {
        name: KEY.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(spec.name.clone()),
            ..Default::default()
        }),
        ..Default::default()
    }];
    let mut containers = vec![runner(profile)];
    let mut init_containers = None;
    if profile.mode == Mode::Dind {
        // A profile's own volume of one of these names takes its place: a disk for `work`, say.
        let ours = ["work", "socket", "externals", "docker"]
            .into_iter()
            .filter(|name| profile.volumes.iter().all(|volume| volume.name != *name));
        volumes.extend(ours.map(empty_dir));
        if native_sidecars {
            init_containers = Some(vec![Container {
                restart_policy: Some("Always".into()),
                startup_probe: Some(docker_answers()),
                ..dind(profile)
            }]);
        } else {
            containers.push(dind(profile));
        }
    }
    volumes.extend(profile.volumes.iter().cloned());

    Pod {
        metadata: ObjectMeta {
            name: Some(spec.name.clone()),
            labels: Some(with(&profile.labels, labels(spec))),
            annotations: Some(with(&profile.annotations, annotations(spec))),
            ..Default::default()
        },
        spec: Some(PodSpec {
            containers,
            init_containers,
            volumes: Some(volumes),
            restart_policy: Some("Never".into()),
            termination_grace_period_seconds: Some(GRACE_SECONDS.into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: profile.service_account.clone(),
            image_pull_secrets: some(
                profile
                    .image_pull_secrets
                    .iter()
                    .map(|name| LocalObjectReference { name: name.clone() })
                    .collect(),
            ),
            // Privileged containers are exempt from it, as Kubernetes has it. No `runAsNonRoot`: the runner image names
            // its user instead of numbering it, and the kubelet refuses what it cannot check.
            security_context: Some(PodSecurityContext {
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..Default::default()
                }),
                fs_group: profile.fs_group,
                ..Default::default()
            }),
            node_selector: Some(profile.node_selector.clone()).filter(|selector| !selector.is_empty()),
            affinity: profile.affinity.clone(),
            tolerations: some(profile.tolerations.clone()),
            runtime_class_name: profile.runtime_class.clone(),
            priority_class_name: profile.priority_class.clone(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn runner(profile: &Profile) -> Container {
    // The image of GitHub has the first one set, others may not: TERM reaches the runner, and its exit code becomes the
    // container's.
    let mut env = vec![
        env_var("RUNNER_MANUALLY_TRAP_SIG", "1"),
        env_var(TELLS_TOO_OLD.0, TELLS_TOO_OLD.1),
    ];
    let mut mounts = vec![VolumeMount {
        read_only: Some(true),
        ..mount(KEY, SECRET_DIR)
    }];
    let mut start = START.to_owned();
    if profile.mode == Mode::Dind {
        start = start_dind();
        env.push(env_var("DOCKER_HOST", SOCKET));
        // Where no start-up probe holds the runner back, its own script waits for the daemon for so long.
        env.push(env_var("RUNNER_WAIT_FOR_DOCKER_IN_SECONDS", "120"));
        mounts.extend([
            mount("work", WORK),
            mount("socket", "/var/run"),
            mount("externals", EXTERNALS_COPY),
        ]);
    }
    let theirs: Vec<_> = profile
        .env
        .iter()
        .filter(|theirs| env.iter().all(|ours| ours.name != theirs.name))
        .cloned()
        .collect();
    env.extend(theirs);
    mounts.extend(profile.mounts.iter().cloned());
    Container {
        name: RUNNER.into(),
        image: Some(profile.image.clone()),
        image_pull_policy: profile.image_pull_policy.clone(),
        command: Some(["/bin/sh", "-euc", &start, RUNNER].map(str::to_owned).to_vec()),
        args: Some(profile.command.clone()),
        env: Some(env),
        volume_mounts: Some(mounts),
        // The pod's status holds the program's last words where it ends with an error. Its log holds no output of jobs.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        resources: Some(profile.resources.clone()),
        // Jobs install packages with sudo, which the runner image allows without a password. Forbidding privilege
        // escalation (no_new_privs) ends sudo, and so does dropping the capabilities that it and apt need (SETUID,
        // CHOWN, DAC_OVERRIDE …). So these stay as the container runtime has them, but for raw sockets, with which a
        // job could forge its neighbours' packets.
        security_context: Some(SecurityContext {
            privileged: Some(false),
            allow_privilege_escalation: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["NET_RAW".into()]),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn dind(profile: &Profile) -> Container {
    // With `dockerd` as its first argument the image's entry point adds no listener of its own, which would be TCP.
    let mut args = vec![
        "dockerd".to_owned(),
        format!("--host={SOCKET}"),
        format!("--group={}", profile.dind_group),
    ];
    args.extend(profile.dind_args.iter().cloned());
    // The image's layers must not lie on the container's own overlay: on some runtimes that makes Docker fall back to
    // copying them.
    let mut mounts = vec![
        mount("work", WORK),
        mount("socket", "/var/run"),
        mount("externals", EXTERNALS),
        mount("docker", "/var/lib/docker"),
    ];
    mounts.extend(profile.dind_mounts.iter().cloned());
    Container {
        name: DIND.into(),
        image: Some(profile.dind_image.clone()),
        image_pull_policy: profile.image_pull_policy.clone(),
        args: Some(args),
        volume_mounts: Some(mounts),
        resources: Some(profile.dind_resources.clone()),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Holds the runner back until the daemon answers on its socket: asked every second, for two minutes.
fn docker_answers() -> Probe {
    let command = ["docker".to_owned(), format!("--host={SOCKET}"), "version".to_owned()];
    Probe {
        exec: Some(ExecAction {
            command: Some(command.to_vec()),
        }),
        period_seconds: Some(1),
        timeout_seconds: Some(5),
        failure_threshold: Some(120),
        ..Default::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..Default::default()
    }
}

fn empty_dir(name: &str) -> Volume {
    Volume {
        name: name.into(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    }
}

fn env_var(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..Default::default()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|list| !list.is_empty())
}

fn with(theirs: &BTreeMap<String, String>, ours: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all = theirs.clone();
    all.extend(ours);
    all
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use secrecy::SecretString;
    use serde_json::json;

    use super::super::secret::secret;
    use super::*;

    fn spec() -> RunnerSpec {
        RunnerSpec {
            name: "jit-runner-4711-1".into(),
            org: "acme/site".into(),
            scope: "repos/acme/site".into(),
            group: "Default".into(),
            profile: "default".into(),
            labels: vec!["code-linux".into(), "x64".into()],
            job: 4711,
        }
    }

    #[test]
    fn standard() {
        insta::assert_yaml_snapshot!(pod(
            &spec(),
            &Profile {
                mode: Mode::Standard,
                ..Profile::default()
            },
            true
        ));
    }

    #[test]
    fn dind_as_a_native_sidecar() {
        insta::assert_yaml_snapshot!(pod(&spec(), &Profile::default(), true));
    }

    #[test]
    fn dind_on_an_old_server() {
        insta::assert_yaml_snapshot!(pod(&spec(), &Profile::default(), false));
    }

    #[test]
    fn everything_that_a_profile_can_say() {
        let profile: Profile = serde_json::from_value(json!({
            "name": "default", "image": "registry.example.com/runner:1", "command": ["/opt/runner/start", "--once"],
            "fsGroup": 1001,
            "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
            "dindResources": {"requests": {"cpu": "1"}},
            "env": [
                {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
                {"name": "DOCKER_HOST", "value": "tcp://0.0.0.0:2375"},
            ],
            "dindImage": "docker:29-dind", "dindArgs": ["--mtu=1400"], "dindGroup": 1001,
            "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "work", "emptyDir": {"sizeLimit": "20Gi"}}],
            "mounts": [{"name": "tmp", "mountPath": "/tmp"}], "dindMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "serviceAccount": "deployer", "imagePullPolicy": "IfNotPresent", "imagePullSecrets": ["registry"],
            "nodeSelector": {"pool": "ci"}, "runtimeClass": "kata",
            "priorityClass": "low", "tolerations": [{"key": "ci", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname"},
            ]}},
            "labels": {"team": "infra", "app": "stolen"},
            "annotations": {"note": "x", "jit-runner-manager/org": "other"},
        }))
        .unwrap();
        insta::assert_yaml_snapshot!(pod(&spec(), &profile, true));
    }

    #[test]
    fn the_secret_belongs_to_its_pod_and_the_pod_does_not_hold_it() {
        let config = SecretString::from("ENCODED-CONFIG");
        insta::assert_yaml_snapshot!(secret(&spec(), "7b0b2d1e-0000-4000-8000-000000000001", &config));
        for native in [true, false] {
            assert!(
                !serde_json::to_string(&pod(&spec(), &Profile::default(), native))
                    .unwrap()
                    .contains("ENCODED-CONFIG")
            );
        }
    }

    #[test]
    fn the_daemon_never_listens_on_tcp() {
        for native in [true, false] {
            let manifest = serde_json::to_string(&pod(&spec(), &Profile::default(), native)).unwrap();
            assert!(!manifest.contains("tcp://") && manifest.contains("--host=unix:///var/run/docker.sock"));
        }
    }

    /// The start command itself, with a shell: the variable is set, the runner takes the shell's place, a missing file
    /// stops it.
    #[test]
    fn the_start_command_reads_the_file_into_the_environment() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(KEY), "config value").unwrap();
        let script = START.replace(SECRET_DIR, dir.path().to_str().unwrap());
        let run = |script: &str| {
            let show = r#"echo "$ACTIONS_RUNNER_INPUT_JITCONFIG|$$"; exit 7"#;
            let mut shell = std::process::Command::new("/bin/sh");
            let shell = shell
                .args(["-euc", script, RUNNER, "/bin/sh", "-c", show])
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let child = shell.spawn().unwrap();
            let pid = child.id();
            (pid, child.wait_with_output().unwrap())
        };
        let (pid, output) = run(&script);
        assert_eq!(
            (String::from_utf8(output.stdout).unwrap(), output.status.code()),
            (format!("config value|{pid}\n"), Some(7))
        );
        assert!(START.contains(SECRET_DIR));
        std::fs::remove_file(dir.path().join(KEY)).unwrap();
        let (_, output) = run(&script);
        assert!(!output.status.success() && output.stdout.is_empty());
    }
}
