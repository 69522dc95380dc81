//! What leaves the simulated GitHub: webhooks, answers, refusals.

use super::*;

#[test]
fn payloads_look_like_githubs() {
    let mut world = world();
    let job = world.jobs(json!({ "org": "org-0001", "repo": "app", "labels": ["x"], "deployment": true }))[0];
    let snapshot = |world: &World| world.server.job(job).unwrap().clone();
    let organization = world.site.organization(&world.server.owners["org-0001"]).unwrap();
    let queued = world
        .site
        .webhook(Action::Queued, &snapshot(&world), Some(&organization));
    assert!(
        (13_000..15_000).contains(&queued.len()),
        "{} bytes with a deployment",
        queued.len()
    );
    let other = world.job(&["x"]);
    let plain = world
        .site
        .webhook(Action::Queued, world.server.job(other).unwrap(), Some(&organization));
    assert!((11_500..12_500).contains(&plain.len()), "{} bytes", plain.len());
    let queued: Value = serde_json::from_str(&queued).unwrap();
    assert_eq!(
        (
            &queued["action"],
            &queued["workflow_job"]["status"],
            &queued["workflow_job"]["runner_id"]
        ),
        (&json!("queued"), &json!("queued"), &Value::Null)
    );
    assert_eq!(
        (&queued["repository"]["full_name"], &queued["organization"]["login"]),
        (&json!("org-0001/app"), &json!("org-0001"))
    );
    assert_eq!(
        (&queued["enterprise"]["slug"], &queued["deployment"]["environment"]),
        (&json!("simulated"), &json!("production"))
    );
    let (_, session) = world.runner("r-1", &["x"]);
    world.poll(&session);
    let running: Value =
        serde_json::from_str(&world.site.webhook(Action::InProgress, &snapshot(&world), None)).unwrap();
    assert_eq!(
        (
            &running["workflow_job"]["runner_name"],
            &running["workflow_job"]["runner_group_name"]
        ),
        (&json!("r-1"), &json!("Default"))
    );
    assert!(running.get("organization").is_none());
    world.server.done(&session, world.now);
    let completed = world.site.job(&snapshot(&world));
    assert_eq!(
        (&completed["conclusion"], completed["steps"].as_array().unwrap().len()),
        (&json!("success"), 8)
    );

    let mut old = world_of(Settings {
        payload: PayloadStyle::Legacy,
        ..Settings::default()
    });
    let job = old.job(&["x"]);
    old.server.cancel(job, old.now).unwrap();
    let cancelled: Value =
        serde_json::from_str(&old.site.webhook(Action::Completed, old.server.job(job).unwrap(), None)).unwrap();
    let job = &cancelled["workflow_job"];
    assert_eq!(
        (&job["runner_id"], &job["runner_name"], &job["conclusion"]),
        (&json!(0), &json!(""), &json!("cancelled"))
    );
    assert!(job.get("run_attempt").is_none() && job.get("workflow_name").is_none());
}

#[test]
fn runs_and_jobs_can_be_looked_up() {
    let mut world = world();
    let jobs = world.jobs(json!({ "org": "org-0001", "repo": "app", "labels": ["x"], "count": 3, "jobs_per_run": 2 }));
    let repo = || Scope::Repository("org-0001".into(), "app".into());
    let runs = world
        .rest(Endpoint::ListRuns, repo(), None, Value::Null, &[("status", "queued")])
        .body
        .unwrap();
    assert_eq!(runs["total_count"], 2);
    let run = runs["workflow_runs"][1]["id"].as_u64().unwrap();
    let of_run = world
        .rest(Endpoint::ListRunJobs, repo(), Some(run), Value::Null, &[])
        .body
        .unwrap();
    assert_eq!(
        (&of_run["total_count"], &of_run["jobs"][0]["id"]),
        (&json!(2), &json!(jobs[0]))
    );
    world.server.cancel(jobs[2], world.now).unwrap();
    let done = world
        .rest(
            Endpoint::ListRuns,
            repo(),
            None,
            Value::Null,
            &[("status", "completed")],
        )
        .body
        .unwrap();
    assert_eq!(
        (&done["total_count"], &done["workflow_runs"][0]["conclusion"]),
        (&json!(1), &json!("cancelled"))
    );
    assert_eq!(
        world
            .rest(Endpoint::GetJob, repo(), Some(jobs[2]), Value::Null, &[])
            .body
            .unwrap()["status"],
        "completed"
    );
    assert_eq!(
        world.rest(Endpoint::GetJob, repo(), Some(1), Value::Null, &[]).status,
        404
    );
}

#[test]
fn hooks_by_the_hundred_have_pages() {
    use super::super::hooks::HookKind;

    let mut world = world();
    let own = world
        .server
        .set_hook("org-0001", None, HookKind::Organization, 249)
        .unwrap();
    let page = |world: &mut World, page: &str| {
        world.rest(
            Endpoint::ListHooks,
            org(),
            None,
            Value::Null,
            &[("per_page", "100"), ("page", page)],
        )
    };
    let (first, last) = (page(&mut world, "1"), page(&mut world, "3"));
    assert_eq!(first.body.unwrap().as_array().unwrap().len(), 100);
    assert!(
        first
            .headers
            .iter()
            .any(|(name, link)| *name == "link" && link.contains("rel=\"next\""))
    );
    let last = last.body.unwrap();
    assert_eq!(
        (last.as_array().unwrap().len(), last[49]["id"].as_u64()),
        (50, Some(own)),
        "one's own is the last"
    );
    assert_eq!(
        last[48]["config"]["url"], "http://127.0.0.1:9/none",
        "the others lead elsewhere"
    );
}

#[test]
fn a_runner_that_is_too_old_gets_no_session_and_keeps_its_registration() {
    use super::super::sessions::Return;

    let mut world = world();
    let fault = |json: Value| serde_json::from_value(json).unwrap();
    world
        .server
        .faults
        .add(fault(json!({ "fault": "runner_ends", "org": "org-0001", "count": 1 })));
    world.server.faults.add(fault(
        json!({ "fault": "runner_ends", "exit_code": 1, "message": "no libicu", "count": 1 }),
    ));
    let jit = jit(&world.register(org(), "old", &["x"]));
    let mut refused = || match world.server.connect(&jit, world.now) {
        Err(Refusal::Ends(Return { code, words })) => (code, words),
        other => panic!("{other:?}"),
    };
    let (code, words) = refused();
    assert!(code == 7 && words.contains("is deprecated"), "{words}");
    assert_eq!(refused(), (1, "no libicu".to_owned()));
    assert!(world.server.connect(&jit, world.now).is_ok(), "the fault is used up");
    let counts = &world.server.summary().orgs["org-0001"];
    assert_eq!((counts.registrations, counts.max_registered), (1, 1));
}

#[test]
fn a_list_of_runners_ignores_the_name_on_an_old_server_and_shifts_while_it_is_read() {
    let mut world = world_of(Settings {
        server_version: "3.10.12".into(),
        ..Settings::default()
    });
    for number in 0..5 {
        world.register(org(), &format!("r-{number}"), &["x"]);
    }
    let mut names = |page: &str| {
        let body = world
            .rest(
                Endpoint::ListRunners,
                org(),
                None,
                Value::Null,
                &[("name", "r-4"), ("per_page", "2"), ("page", page)],
            )
            .body
            .unwrap();
        assert_eq!(body["total_count"], 5);
        body["runners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|runner| runner["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("1"), ["r-0", "r-1"]);
    world
        .server
        .faults
        .add(serde_json::from_value(json!({ "fault": "runners_shift", "count": 1 })).unwrap());
    let mut names = |page: &str| {
        let body = world
            .rest(
                Endpoint::ListRunners,
                org(),
                None,
                Value::Null,
                &[("per_page", "2"), ("page", page)],
            )
            .body
            .unwrap();
        body["runners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|runner| runner["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        [names("1"), names("2"), names("2")],
        [["r-0", "r-1"], ["r-3", "r-4"], ["r-2", "r-3"]]
    );
}
