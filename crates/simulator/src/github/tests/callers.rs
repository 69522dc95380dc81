//! What a caller may do, as GitHub answers it.

use super::*;

#[test]
fn limits_on_calls_and_registrations() {
    let mut world = world_of(Settings {
        rate_limit: Some(3),
        registration_limit: Some(1),
        ..Settings::default()
    });
    assert_eq!(world.register(org(), "a", &["x"]).status, 201);
    let refused = world.register(org(), "b", &["x"]);
    assert!(
        refused.status == 403
            && refused
                .headers
                .contains(&("x-ratelimit-resource", "actions_runner_registration".into())),
        "{refused:?}"
    );
    assert_eq!(
        world.rest(Endpoint::ListRunners, org(), None, Value::Null, &[]).status,
        200
    );
    let spent = world.rest(Endpoint::ListRunners, org(), None, Value::Null, &[]);
    assert!(
        spent.status == 403 && spent.headers.contains(&("x-ratelimit-remaining", "0".into())),
        "{spent:?}"
    );
    world.now += 3_600_000;
    assert_eq!(world.register(org(), "b", &["x"]).status, 201);
}

#[test]
fn an_apps_answers_are_as_github_describes_them() {
    use jit_github::openapi::{Version, validate_response};

    let mut world = world();
    world.jobs(json!({ "user": "alice", "repo": "dots", "labels": ["x"] }));
    for account in ["org-0001", "alice", "simulated"] {
        world
            .server
            .set_installation(account, AppState::Installed, world.now)
            .unwrap();
    }
    world
        .server
        .set_installation("alice", AppState::Suspended, world.now)
        .unwrap();
    let mut ask = |caller: Caller, endpoint, account: Option<&str>, id: Option<u64>| {
        let scope = account.map(|account| Scope::Organization(account.into()));
        let call = Call {
            endpoint,
            caller,
            scope,
            id,
            path: "/api/v3/x".into(),
            query: HashMap::new(),
            body: Vec::new().into(),
        };
        world.server.rest(&call, &world.site, None, world.now)
    };
    let installed = ask(Caller::App, Endpoint::OrgInstallation, Some("org-0001"), None);
    let id = installed.body.as_ref().unwrap()["id"].as_u64();
    let all = ask(Caller::App, Endpoint::Installations, None, None);
    let alice = all.body.as_ref().unwrap()[1]["id"].as_u64();
    let of_installation = Caller::Installation(id.unwrap());
    for (method, path, answer, status) in [
        ("GET", "/app/installations", all, 200),
        ("GET", "/orgs/org-0001/installation", installed, 200),
        (
            "GET",
            "/users/alice/installation",
            ask(Caller::App, Endpoint::UserInstallation, Some("alice"), None),
            200,
        ),
        (
            "POST",
            "/app/installations/1/access_tokens",
            ask(Caller::App, Endpoint::AccessTokens, None, id),
            201,
        ),
        (
            "POST",
            "/app/installations/1/access_tokens",
            ask(Caller::App, Endpoint::AccessTokens, None, alice),
            403,
        ),
        (
            "POST",
            "/app/installations/1/access_tokens",
            ask(Caller::App, Endpoint::AccessTokens, None, Some(1)),
            404,
        ),
        (
            "POST",
            "/app/installations/1/access_tokens",
            ask(Caller::Anybody, Endpoint::AccessTokens, None, id),
            401,
        ),
        (
            "GET",
            "/orgs/nobody/installation",
            ask(Caller::App, Endpoint::OrgInstallation, Some("nobody"), None),
            404,
        ),
        (
            "GET",
            "/orgs/org-0001/actions/runners",
            ask(of_installation.clone(), Endpoint::ListRunners, Some("org-0001"), None),
            200,
        ),
        (
            "GET",
            "/orgs/org-0001/actions/runners",
            ask(
                Caller::Installation(alice.unwrap()),
                Endpoint::ListRunners,
                Some("org-0001"),
                None,
            ),
            403,
        ),
        (
            "GET",
            "/orgs/org-0001/actions/runners",
            ask(Caller::App, Endpoint::ListRunners, Some("org-0001"), None),
            401,
        ),
        (
            "GET",
            "/installation/repositories",
            ask(of_installation, Endpoint::InstallationRepositories, None, None),
            200,
        ),
        (
            "GET",
            "/installation/repositories",
            ask(Caller::Anybody, Endpoint::InstallationRepositories, None, None),
            403,
        ),
    ] {
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        for version in Version::ALL {
            validate_response(version, method, path, status, answer.body.as_ref()).unwrap();
        }
    }
}

#[test]
fn what_a_caller_may_not_do_is_answered_as_github_does() {
    use jit_github::openapi::{Version, validate_response};

    use crate::github::rights::Right;

    let mut world = world();
    let job = world.job(&["x"]);
    world
        .server
        .set_installation("org-0001", AppState::Installed, world.now)
        .unwrap();
    let installed = world.server.rest(
        &Call {
            endpoint: Endpoint::OrgInstallation,
            caller: Caller::App,
            scope: Some(org()),
            id: None,
            path: String::new(),
            query: HashMap::new(),
            body: Vec::new().into(),
        },
        &world.site,
        None,
        world.now,
    );
    let installation = Caller::Installation(installed.body.unwrap()["id"].as_u64().unwrap());
    let repo = || Scope::Repository("org-0001".into(), "app".into());
    let mut ask = |without: &[Right], caller: &Caller, endpoint, scope: Scope, id| {
        world.server.set_rights(
            Some(caller.clone()),
            Some("Org-0001"),
            without.iter().copied().collect(),
        );
        let body = json!({ "name": "r", "runner_group_id": 1, "labels": ["x"] })
            .to_string()
            .into();
        let call = Call {
            endpoint,
            caller: caller.clone(),
            scope: Some(scope),
            id,
            path: "/api/v3/x".into(),
            query: HashMap::new(),
            body,
        };
        world.server.rest(&call, &world.site, None, world.now)
    };
    let (token, org_runs, repo_job) = (
        Caller::Anybody,
        "/orgs/org-0001/actions/runners",
        "/repos/org-0001/app/actions/jobs/1",
    );
    for (without, caller, endpoint, scope, path, status, words) in [
        (
            &[Right::Actions][..],
            &token,
            Endpoint::GetJob,
            repo(),
            repo_job,
            403,
            "Resource not accessible by personal access token",
        ),
        (
            &[Right::Actions],
            &installation,
            Endpoint::GetJob,
            repo(),
            repo_job,
            403,
            "Resource not accessible by integration",
        ),
        (
            &[Right::Repositories],
            &token,
            Endpoint::GetJob,
            repo(),
            repo_job,
            404,
            "Not Found",
        ),
        (
            &[Right::Repositories],
            &token,
            Endpoint::ListRuns,
            repo(),
            "/repos/org-0001/app/actions/runs",
            404,
            "Not Found",
        ),
        (
            &[Right::Repositories],
            &token,
            Endpoint::GenerateJitconfig,
            repo(),
            "/repos/org-0001/app/actions/runners/generate-jitconfig",
            404,
            "Not Found",
        ),
        (
            &[Right::Runners],
            &token,
            Endpoint::ListRunners,
            org(),
            org_runs,
            403,
            "Resource not accessible by personal access token",
        ),
        (
            &[Right::Hooks],
            &token,
            Endpoint::ListHooks,
            org(),
            "/orgs/org-0001/hooks",
            403,
            "Resource not accessible by personal access token",
        ),
        (
            &[Right::Owner],
            &token,
            Endpoint::ListRunners,
            org(),
            org_runs,
            404,
            "Not Found",
        ),
    ] {
        let answer = ask(without, caller, endpoint, scope, Some(job));
        assert_eq!(
            (answer.status, &answer.body.as_ref().unwrap()["message"]),
            (status, &json!(words)),
            "{without:?} {path}"
        );
        for version in Version::ALL {
            let method = if endpoint == Endpoint::GenerateJitconfig {
                "POST"
            } else {
                "GET"
            };
            validate_response(version, method, path, status, answer.body.as_ref()).unwrap();
        }
    }
    // A token that may register runners and not read the repository.
    assert_eq!(
        ask(&[Right::Repositories], &token, Endpoint::GenerateJitconfig, org(), None).status,
        201
    );
    assert_eq!(
        ask(&[Right::Repositories], &token, Endpoint::ListRepositories, org(), None).body,
        Some(json!([]))
    );
    assert_eq!(
        ask(&[], &token, Endpoint::GetJob, repo(), Some(job)).status,
        200,
        "given back"
    );
}
