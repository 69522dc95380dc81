//! Runners: registered, listed, deleted, kept away.

use super::*;

#[test]
fn a_busy_runner_cannot_be_deleted_and_an_idle_one_can() {
    let mut world = world();
    world.job(&["x"]);
    let (busy, session) = world.runner("busy", &["x"]);
    let (idle, idle_session) = world.runner("idle", &["x"]);
    world.poll(&session);
    let answer = world.rest(Endpoint::DeleteRunner, org(), Some(busy), Value::Null, &[]);
    assert_eq!(answer.status, 422);
    assert_eq!(
        answer.body.unwrap()["message"],
        "Runner \"busy\" is currently running a job and cannot be deleted."
    );
    assert_eq!(
        world
            .rest(Endpoint::DeleteRunner, org(), Some(idle), Value::Null, &[])
            .status,
        204
    );
    assert_eq!(
        world
            .rest(Endpoint::DeleteRunner, org(), Some(idle), Value::Null, &[])
            .status,
        404
    );
    assert_eq!(world.server.poll(&idle_session, world.now), Polled::Gone);
}

#[test]
fn registration_is_checked_as_github_checks_it() {
    let mut world = world();
    assert_eq!(world.register(org(), "a", &["x"]).status, 201);
    let again = world.register(org(), "A", &["x"]);
    assert_eq!(
        (again.status, again.body.unwrap()["message"].as_str().unwrap()),
        (409, "Already exists - A runner with the name A already exists.")
    );
    let bodies = [
        (
            json!({ "name": "b", "labels": ["x"] }),
            "\"runner_group_id\" wasn't supplied.",
        ),
        (json!({}), "\"name\", \"runner_group_id\", \"labels\" weren't supplied."),
        (
            json!({ "name": "b", "runner_group_id": 1, "labels": [] }),
            "only 0 were supplied",
        ),
        (
            json!({ "name": "b", "runner_group_id": 1, "labels": vec!["x"; 101] }),
            "101 were supplied",
        ),
        (
            json!({ "name": "b", "runner_group_id": "1", "labels": ["x"] }),
            "is not an integer",
        ),
    ];
    for (body, says) in bodies {
        let answer = world.rest(Endpoint::GenerateJitconfig, org(), None, body, &[]);
        let message = answer.body.unwrap()["message"].as_str().unwrap().to_owned();
        assert!(
            answer.status == 422 && message.contains(says),
            "{} {message}",
            answer.status
        );
    }
    let group = |id: u64| json!({ "name": "b", "runner_group_id": id, "labels": ["x"] });
    assert_eq!(
        world
            .rest(Endpoint::GenerateJitconfig, org(), None, group(9), &[])
            .status,
        404
    );
    assert_eq!(
        world.register(Scope::Organization("nobody".into()), "b", &["x"]).status,
        404
    );
    assert_eq!(
        world
            .register(Scope::Enterprise("simulated".into()), "a", &["x"])
            .status,
        201,
        "names are unique in their scope only"
    );
}

#[test]
fn runners_are_listed_in_pages_and_by_name() {
    let mut world = world();
    for number in 0..35 {
        world.register(org(), &format!("r-{number}"), &["x"]);
    }
    let page = world.rest(Endpoint::ListRunners, org(), None, Value::Null, &[("page", "2")]);
    let body = page.body.unwrap();
    assert_eq!(
        (body["total_count"].as_u64(), body["runners"].as_array().unwrap().len()),
        (Some(35), 5)
    );
    let first = world.rest(Endpoint::ListRunners, org(), None, Value::Null, &[("per_page", "10")]);
    assert!(
        first.headers[0].1.contains("page=2&per_page=10>; rel=\"next\"") && first.headers[0].1.contains("page=4"),
        "{:?}",
        first.headers
    );
    let named = world
        .rest(Endpoint::ListRunners, org(), None, Value::Null, &[("name", "r-7")])
        .body
        .unwrap();
    assert_eq!(
        (named["total_count"].as_u64(), &named["runners"][0]["name"]),
        (Some(1), &json!("r-7"))
    );
}

#[test]
fn faults_keep_runners_away_and_kill_them() {
    let mut world = world();
    world
        .server
        .faults
        .add(serde_json::from_value(json!({ "fault": "runner_never_connects", "count": 1 })).unwrap());
    world
        .server
        .faults
        .add(serde_json::from_value(json!({ "fault": "runner_dies" })).unwrap());
    let mute = jit(&world.register(org(), "mute", &["x"]));
    assert_eq!(world.server.connect(&mute, world.now).unwrap_err(), Refusal::Mute);
    assert_eq!(world.server.connect(&mute, world.now).unwrap_err(), Refusal::Mute);
    let job = world.job(&["x"]);
    let (_, session) = world.runner("mortal", &["x"]);
    assert_eq!(
        world.server.poll(&session, world.now),
        Polled::Job(Order {
            job_id: job,
            duration_ms: 1000,
            die_after_ms: Some(500)
        })
    );
    let stranger = JitConfig {
        secret: "guess".into(),
        ..mute
    };
    assert_eq!(
        world.server.connect(&stranger, world.now).unwrap_err(),
        Refusal::Unknown
    );
}
