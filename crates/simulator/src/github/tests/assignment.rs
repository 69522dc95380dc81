//! Which runner gets which job, and what becomes of both.

use super::*;

#[test]
fn a_job_goes_to_a_runner_that_has_all_of_its_labels() {
    let mut world = world();
    let job = world.job(&["self-hosted", "GPU"]);
    let (_, plain) = world.runner("plain", &["self-hosted", "linux"]);
    assert_eq!(world.poll(&plain), None);
    let (_, gpu) = world.runner("gpu", &["Self-Hosted", "gpu", "extra"]);
    assert_eq!(world.poll(&gpu), Some(job));
    assert_eq!(world.state(job), JobState::InProgress);
    assert_eq!(world.actions(), [Action::Queued, Action::InProgress]);
}

#[test]
fn no_runner_belongs_to_a_job() {
    let mut world = world();
    let (first, second) = (world.job(&["x"]), world.job(&["x"]));
    let (_, for_second) = world.runner("made-for-second", &["x"]);
    let (_, for_first) = world.runner("made-for-first", &["x"]);
    assert_eq!(
        (world.poll(&for_second), world.poll(&for_first)),
        (Some(first), Some(second))
    );
}

#[test]
fn an_ephemeral_runner_is_gone_after_its_job() {
    let mut world = world();
    let job = world.job(&["x"]);
    let (id, session) = world.runner("a", &["x"]);
    assert_eq!(world.poll(&session), Some(job));
    assert_eq!(world.poll(&session), Some(job), "asked again, the same answer");
    world.now += 1000;
    assert!(world.server.done(&session, world.now));
    assert!(!world.server.done(&session, world.now));
    assert_eq!(world.server.job(job).unwrap().conclusion, Some(Conclusion::Success));
    assert_eq!(
        world
            .rest(Endpoint::GetRunner, org(), Some(id), Value::Null, &[])
            .status,
        404
    );
    assert_eq!(world.server.poll(&session, world.now), Polled::Gone);
    assert_eq!(world.register(org(), "a", &["x"]).status, 201, "the name is free again");
    let summary = world.server.summary();
    assert_eq!(
        (summary.jobs.run, summary.jobs.run_twice, summary.jobs.success),
        (1, 0, 1)
    );
    assert_eq!(
        (
            summary.leftovers.runners,
            summary.leftovers.in_progress,
            summary.total.max_running
        ),
        (1, 0, 1)
    );
}

#[test]
fn an_offline_runner_gets_nothing_and_a_lost_one_fails_its_job() {
    let mut world = world();
    world.register(org(), "offline", &["x"]);
    let job = world.job(&["x"]);
    assert_eq!(world.state(job), JobState::Queued);
    let (id, session) = world.runner("online", &["x"]);
    assert_eq!(world.poll(&session), Some(job));
    world.pass(9_999);
    assert_eq!(world.state(job), JobState::InProgress);
    world.pass(1);
    assert_eq!(world.server.job(job).unwrap().conclusion, Some(Conclusion::Failure));
    let runner = world
        .rest(Endpoint::GetRunner, org(), Some(id), Value::Null, &[])
        .body
        .unwrap();
    assert_eq!(
        (&runner["status"], &runner["busy"]),
        (&json!("offline"), &json!(false)),
        "still registered"
    );
    world.pass(86_400_000);
    assert_eq!(world.server.summary().leftovers.runners, 0, "until a day has passed");
}

#[test]
fn an_open_poll_keeps_a_runner_alive() {
    let mut world = world();
    let (_, session) = world.runner("a", &["x"]);
    world.server.open(&session).unwrap();
    world.pass(3_600_000);
    assert_eq!(world.server.summary().leftovers.runners_online, 1);
    world.server.close(&session, world.now);
    world.pass(10_000);
    assert_eq!(world.server.summary().leftovers.runners_online, 0);
}

#[test]
fn an_assignment_that_is_not_taken_is_queued_again() {
    let mut world = world();
    let job = world.job(&["x"]);
    let (_, lazy) = world.runner("lazy", &["x"]);
    world.server.open(&lazy).unwrap();
    assert!(world.server.job(job).unwrap().assigned.is_some());
    let (_, other) = world.runner("other", &["x"]);
    world.server.open(&other).unwrap();
    assert_eq!(world.poll(&other), None);
    world.pass(60_000);
    assert_eq!(world.poll(&other), Some(job));
    assert_eq!(world.poll(&lazy), None);
    let jobs = world.server.summary().jobs;
    assert_eq!((jobs.requeued, jobs.run_twice), (1, 0));
}

#[test]
fn deleting_an_assigned_runner_gives_its_job_to_another() {
    let mut world = world();
    let job = world.job(&["x"]);
    let (first, _) = world.runner("first", &["x"]);
    let (_, second) = world.runner("second", &["x"]);
    assert_eq!(
        world
            .rest(Endpoint::DeleteRunner, org(), Some(first), Value::Null, &[])
            .status,
        204
    );
    assert_eq!(world.poll(&second), Some(job));
}

#[test]
fn cancel_hold_approve_rerun() {
    let mut world = world();
    let held = world.jobs(json!({ "org": "org-0001", "labels": ["x"], "environment": "production" }))[0];
    assert_eq!(
        (world.state(held), world.actions()),
        (JobState::Waiting, vec![Action::Waiting])
    );
    world.server.approve(held, world.now).unwrap();
    world.server.hold(held, world.now).unwrap();
    assert_eq!(
        world.server.hold(held, world.now),
        Err(ControlError::State(JobState::Waiting))
    );
    let (_, session) = world.runner("a", &["x"]);
    assert_eq!(world.poll(&session), None, "a waiting job is given to nobody");
    world.server.approve(held, world.now).unwrap();
    assert_eq!(world.actions(), [Action::Queued, Action::Waiting, Action::Queued]);
    assert_eq!(world.poll(&session), Some(held));
    assert_eq!(world.server.watch(&session), Watched::Running);
    world.server.cancel(held, world.now).unwrap();
    assert_eq!(world.server.watch(&session), Watched::Cancelled);
    world.server.done(&session, world.now);
    assert_eq!(world.server.job(held).unwrap().conclusion, Some(Conclusion::Cancelled));
    let again = world.server.rerun(held, world.now).unwrap();
    let (old, new) = (world.server.job(held).unwrap(), world.server.job(again).unwrap());
    assert!(again != held && new.run_id == old.run_id && new.run_attempt == 2);
    world.server.cancel(again, world.now).unwrap();
    assert_eq!(
        world.server.cancel(again, world.now),
        Err(ControlError::State(JobState::Completed))
    );
    assert_eq!(world.server.cancel(7, world.now), Err(ControlError::NoJob));
    assert_eq!(world.server.summary().jobs.never_run, 1);
}

#[test]
fn a_job_that_waits_a_day_is_cancelled() {
    let mut world = world();
    let job = world.job(&["x"]);
    world.pass(86_399_999);
    assert_eq!(world.state(job), JobState::Queued);
    world.pass(1);
    assert_eq!(world.server.job(job).unwrap().conclusion, Some(Conclusion::Cancelled));
}

#[test]
fn scopes_and_groups_decide_who_may_run_what() {
    let mut world = world();
    let repo = |name: &str| Scope::Repository("org-0001".into(), name.into());
    let users = world.jobs(json!({ "user": "alice", "repo": "dots", "labels": ["x"] }))[0];
    let private = world.jobs(json!({ "org": "org-0001", "repo": "private", "labels": ["x"] }))[0];
    let public = world.jobs(json!({ "org": "org-0001", "repo": "public", "public": true, "labels": ["x"] }))[0];
    let connect = |world: &mut World, scope: Scope, name: &str, group: u64| {
        let answer = world.rest(
            Endpoint::GenerateJitconfig,
            scope,
            None,
            json!({ "name": name, "runner_group_id": group, "labels": ["x"] }),
            &[],
        );
        world.server.connect(&jit(&answer), world.now).unwrap().session
    };
    let group = world
        .server
        .set_group(Some("org-0001"), "closed", Some(vec!["Public".into()]), false)
        .unwrap();
    let closed = connect(&mut world, org(), "closed", group);
    assert_eq!(
        world.poll(&closed),
        None,
        "private is not selected, public repositories are not allowed"
    );
    let of_repo = connect(&mut world, repo("public"), "of-repo", 1);
    assert_eq!(world.poll(&of_repo), Some(public));
    let of_enterprise = connect(&mut world, Scope::Enterprise("simulated".into()), "of-enterprise", 1);
    assert_eq!(world.poll(&of_enterprise), Some(private));
    let of_user = connect(
        &mut world,
        Scope::Repository("alice".into(), "dots".into()),
        "of-user",
        1,
    );
    assert_eq!(world.poll(&of_user), Some(users));
    assert_eq!(
        world.register(Scope::Organization("alice".into()), "a", &["x"]).status,
        404,
        "a user is no organization"
    );
}

#[test]
fn one_seed_one_course() {
    let course = |seed: u64| {
        let mut world = world_of(Settings {
            seed,
            ..Settings::default()
        });
        let sessions: Vec<String> = (0..20)
            .map(|number| world.runner(&format!("r-{number}"), &["x"]).1)
            .collect();
        let jobs = world.jobs(json!({ "org": "org-0001", "labels": ["x"], "count": 10 }));
        let taken: Vec<Option<u64>> = sessions.iter().map(|session| world.poll(session)).collect();
        assert_eq!(taken.iter().flatten().count(), jobs.len());
        (sessions, taken)
    };
    assert_eq!(course(3), course(3));
    assert_ne!(course(3).1, course(4).1);
}

#[test]
fn requests_are_paired_with_jobs_for_the_latencies() {
    let mut world = world();
    let first = world.job(&["x"]);
    let second = world.job(&["x"]);
    world.now += 40;
    world.register(org(), "a", &["x"]);
    world.register(org(), "unneeded", &["y"]);
    world.server.cancel(second, world.now).unwrap();
    world.register(org(), "too-late", &["x"]);
    let times = |id| world.server.job(id).unwrap().times;
    assert_eq!(
        (times(first).requested, times(second).requested),
        (Some(world.now), None)
    );
    let runners = world.server.summary().runners;
    assert_eq!((runners.registered, runners.unneeded), (3, 2));
}
