//! Each command from the outside: what it changes, what it says, and how it ends when something is wrong.

use jit_testing::queued;
use serde_json::json;

mod support;
use support::Store;

const NONE: [String; 0] = [];

#[tokio::test]
async fn limits_are_seen_and_changed() {
    let store = Store::open().await;
    assert_eq!(store.ctl(&["limits"]).ok(), "default  10\n");
    assert_eq!(
        store.json(&["limits"]),
        json!({ "default_limit": 10, "custom_limits": {}, "total_custom_orgs": 0 })
    );
    store.queue(1, "Acme").await;
    assert_eq!(
        store.json(&["limits", "get", "ACME"]),
        json!({ "organization": "Acme", "limit": 10, "is_custom": false, "current_running": 1, "available": 9 })
    );
    assert_eq!(
        store.ctl(&["limits", "set", "acme", "25"]).ok(),
        "Acme: 25, it was 10\n"
    );
    assert_eq!(store.ticks().await, ["dispatch"], "it takes effect at once");
    assert_eq!(
        store.ctl(&["limits", "get", "acme"]).ok(),
        "Acme: 25 (its own), 1 running, 24 available\n"
    );
    assert_eq!(
        store.json(&["limits", "set", "acme", "7"]),
        json!({ "organization": "Acme", "limit": 7, "previous_limit": 25, "is_custom": true })
    );
    assert!(store.ctl(&["limits"]).ok().contains("Acme          7"));
    assert_eq!(
        store.json(&["limits", "unset", "acme"]),
        json!({ "organization": "Acme", "limit": 10, "previous_limit": 7, "is_custom": false })
    );
    assert_eq!(
        store.ctl(&["limits", "unset", "acme"]).ok(),
        "Acme: had none of its own; the default is 10\n"
    );
    store.ticks().await;

    // One that is still to come is taken, with a word; a repository too.
    let said = store.ctl(&["limits", "set", "octocat/app", "3"]);
    assert!(said.err.contains("not known here yet"), "{said:?}");
    assert_eq!(said.ok(), "octocat: 3, it was 10\n");
    assert_eq!(
        store.ctl(&["limits", "set", "OctoCat/App", "4"]).ok(),
        "octocat: 4, it was 3\n"
    );
    store.ticks().await;

    for (command, code, said) in [
        (&["limits", "get", "nobody"][..], 1, "nobody is not known here"),
        (&["limits", "unset", "nobody"], 1, "nobody is not known here"),
        (&["limits", "set", "acme", "0"], 2, "1 to 1000"),
        (&["limits", "set", "acme", "1001"], 2, "1 to 1000"),
        (&["limits", "set", "acme", "many"], 2, "1 to 1000"),
        (&["limits", "set", "acme", "--", "-1"], 2, "1 to 1000"),
        (&["limits", "set", "a:b", "5"], 2, "not an organization's name"),
        (&["limits", "set", "acme"], 2, "<LIMIT>"),
        (&["limits", "load", "/none.yaml"], 1, "no such file"),
    ] {
        assert!(store.ctl(command).refused(code).contains(said), "{command:?}");
    }
    assert_eq!(
        (store.ticks().await, store.json(&["limits"])["custom_limits"].clone()),
        (NONE.into(), json!({ "octocat": 4 }))
    );
}

#[tokio::test]
async fn a_file_of_limits_is_loaded_where_there_are_none_or_by_force() {
    let store = Store::open().await;
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("limits.yaml");
    let file = path.to_str().expect("text");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write("org_limits: {platform-team: 25}");
    assert_eq!(store.json(&["limits", "load", file]), json!({ "loaded": 1 }));
    assert_eq!(store.ticks().await, ["dispatch"]);
    write("org_limits: {other: 5}");
    assert!(store.ctl(&["limits", "load", file]).ok().contains("--force"));
    assert_eq!(store.ticks().await, NONE);
    assert_eq!(
        store.ctl(&["limits", "load", file, "--force"]).ok(),
        "limits of 1 organizations were loaded\n"
    );
    for text in ["org_limits: {other: 0}", "org_limits: {\"a:b\": 5}", "org_limits: ["] {
        write(text);
        assert!(
            store
                .ctl(&["limits", "load", file, "--force"])
                .refused(1)
                .contains("limits.yaml"),
            "{text}"
        );
    }
    assert_eq!(store.json(&["limits"])["custom_limits"], json!({ "other": 5 }));
}

#[tokio::test]
async fn a_job_that_waits_is_tried_again() {
    let store = Store::open().await;
    store.queue(1, "Acme").await;
    assert_eq!(store.json(&["retry", "1"]), json!({ "job_id": 1, "retried": [] }));
    assert_eq!(store.ticks().await, NONE);
    assert!(store.ctl(&["retry", "1"]).ok().contains("jitctl why 1"));
    let now: i64 = store.ledger.now().await.expect("a time");
    store
        .redis::<u64>(&["ZADD", "backoffs", &(now + 600_000).to_string(), "org:Acme"])
        .await;
    store
        .redis::<u64>(&[
            "HSET",
            "org:Acme:backoff",
            "failures",
            "1",
            "reason",
            "no right",
            "since",
            "1",
            "needs",
            "made",
        ])
        .await;
    assert!(store.ctl(&["retry", "1"]).ok().contains("org:Acme"));
    assert_eq!(store.ticks().await, ["dispatch"]);
    assert!(store.ctl(&["retry", "2"]).refused(1).contains("not known here"));
    store.ctl(&["retry", "x"]).refused(2);
}

#[tokio::test]
async fn what_is_wrong_around_the_processes_is_told_by_status_and_doctor() {
    let store = Store::open().await;
    assert_eq!(store.json(&["status"])["conditions"], json!([]));
    let condition = json!({ "process": "receiver a-1", "text": "the file of WEBHOOK_SECRET_FILE is gone" });
    let (now, mut connection) = (
        store.ledger.now().await.unwrap(),
        store.ledger.pool().get().await.unwrap(),
    );
    redis::cmd("ZADD")
        .arg("conditions")
        .arg(now)
        .arg(condition.to_string())
        .exec_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(store.json(&["status"])["conditions"], json!([condition]));
    assert!(
        store
            .ctl(&["status"])
            .ok()
            .contains("condition   receiver a-1: the file of WEBHOOK_SECRET_FILE is gone")
    );
    let doctor = store.ctl(&["doctor"]);
    assert!(
        doctor.code == 1
            && doctor
                .out
                .contains("receiver a-1: the file of WEBHOOK_SECRET_FILE is gone"),
        "{doctor:?}"
    );
}

#[tokio::test]
async fn an_organization_is_paused_and_resumed() {
    let store = Store::open().await;
    let paused = store.json(&[
        "pause",
        "acme",
        "--reason",
        " cluster upgrade ",
        "--until",
        "2100-01-01T00:00:00Z",
    ]);
    assert_eq!(
        paused,
        json!({ "organization": "acme", "paused": true, "reason": "cluster upgrade", "until": "2100-01-01T00:00:00Z" })
    );
    store.queue(1, "Acme").await;
    assert!(store.ctl(&["why", "1"]).ok().contains("cluster upgrade"));
    assert_eq!(store.json(&["status", "acme"])["running"], 0);
    assert!(
        store
            .ctl(&["pause", "acme", "--reason", "longer"])
            .ok()
            .contains("until `jitctl resume Acme`")
    );
    store.ticks().await;
    assert_eq!(
        store.json(&["resume", "ACME"]),
        json!({ "organization": "Acme", "paused": false })
    );
    assert_eq!(store.ticks().await, ["dispatch"]);
    while store.ledger.admit().await.expect("admitted").more {}
    assert_eq!(store.json(&["status", "acme"])["running"], 1);
    store.ctl(&["resume", "acme"]).ok();
    for (command, code, said) in [
        (&["resume", "nobody"][..], 1, "not known here"),
        (&["pause", "acme"], 2, "--reason"),
        (&["pause", "acme", "--reason", " "], 2, "say why"),
        (
            &["pause", "acme", "--reason", "r", "--until", "soon"],
            1,
            "--until soon: give a time",
        ),
        (
            &["pause", "acme", "--reason", "r", "--until", "2020-01-01T00:00:00Z"],
            1,
            "over already",
        ),
        (&["pause", "a b", "--reason", "r"], 2, "not an organization's name"),
    ] {
        assert!(store.ctl(command).refused(code).contains(said), "{command:?}");
    }
    assert_eq!(store.redis::<u64>(&["HLEN", "orgs:paused"]).await, 0);
}

#[tokio::test]
async fn jobs_and_runners_are_listed_and_a_runner_is_removed() {
    let store = Store::open().await;
    for job in 1..=12 {
        store.queue(job, if job == 5 { "Other" } else { "Acme" }).await;
    }
    let ids = |value: &serde_json::Value| {
        value["jobs"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|job| job["job_id"].as_u64().expect("an id"))
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&store.json(&["jobs"])), (1..=12).collect::<Vec<_>>());
    assert_eq!(ids(&store.json(&["jobs", "--org", "other", "--state", "queued"])), [5]);
    assert_eq!(ids(&store.json(&["jobs", "--state", "in_progress"])), [0; 0]);
    let page = store.json(&["jobs", "--limit", "4"]);
    assert_eq!((ids(&page), &page["next_cursor"]), (vec![1, 2, 3, 4], &json!("4")));
    assert_eq!(
        ids(&store.json(&["jobs", "--limit", "4", "--cursor", "4"])),
        [5, 6, 7, 8]
    );
    let table = store.ctl(&["jobs", "--limit", "1"]);
    assert!(table.err.contains("--cursor 1"), "{table:?}");
    let table = table.ok();
    assert!(
        table.starts_with("JOB") && table.contains("Acme/app") && table.contains("code-linux"),
        "{table}"
    );
    for (command, code) in [
        (&["jobs", "--org", "nobody"][..], 1),
        (&["jobs", "--state", "over"], 2),
        (&["jobs", "--limit", "0"], 2),
        (&["runners", "--org", "nobody"], 1),
    ] {
        store.ctl(command).refused(code);
    }

    let runners = store.json(&["runners", "--org", "other"]);
    let name = runners
        .as_object()
        .expect("runners")
        .keys()
        .next()
        .expect("one")
        .clone();
    assert_eq!(
        store.json(&["remove", &name]),
        json!({ "name": name, "state": "gone" }),
        "a reservation that nobody took up goes at once"
    );
    assert_eq!(store.ticks().await, ["dispatch"]);
    assert_eq!(store.ctl(&["remove", &name]).ok(), format!("{name} is gone\n"));
    assert_eq!(store.ticks().await, NONE);
    let busy = store
        .json(&["runners", "--org", "acme"])
        .as_object()
        .expect("runners")
        .keys()
        .next()
        .expect("one")
        .clone();
    let fence: String = store.redis(&["HGET", &format!("runner:{busy}:info"), "fence"]).await;
    store
        .ledger
        .claim(
            &busy,
            &fence,
            &jit_core::ledger::Maker {
                worker: "w",
                claim: 1,
                credential: "default",
                alone: true,
                timeout: std::time::Duration::from_secs(20),
                create_timeout: std::time::Duration::from_secs(10),
            },
        )
        .await
        .expect("claimed");
    assert!(store.ctl(&["remove", &busy]).ok().contains("GitHub first"));
    store.ctl(&["remove", "jit-runner-9-none"]).refused(1);
    store.ctl(&["remove", "A:b"]).refused(2);
}

#[tokio::test]
async fn a_reconcile_is_asked_for() {
    let store = Store::open().await;
    let said = store.ctl(&["reconcile"]);
    assert!(said.err.contains("no worker is alive"), "{said:?}");
    said.ok();
    store.ledger.heartbeat("w").await.expect("alive");
    let said = store.ctl(&["reconcile", "--output", "json"]);
    assert_eq!(
        (said.err.clone().as_str(), said.json()),
        ("", json!({ "status": "accepted" }))
    );
    assert_eq!(store.ticks().await, ["sync", "sync"]);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_put_back_and_dropped() {
    let store = Store::open().await;
    assert_eq!(
        store.ctl(&["dead", "requeue", "--all"]).ok(),
        "there are no dead letters\n"
    );
    for job in 1..=4 {
        let event = serde_json::to_string(&queued(job, "Acme")).expect("JSON");
        let id = format!("1700000000000-{job}");
        let _: String = store
            .redis(&[
                "XADD",
                "jit:dead",
                &id,
                "v",
                "1",
                "stream",
                "jit:events",
                "id",
                &id,
                "reason",
                "r\n2",
                "entry.v",
                "1",
                "entry.event",
                &event,
            ])
            .await;
    }
    let table = store.ctl(&["dead", "list", "--limit", "2"]);
    assert!(table.err.contains("--cursor 1700000000000-3"), "{table:?}");
    let table = table.ok();
    assert_eq!(
        table
            .lines()
            .map(|line| line.split_whitespace().next().expect("a cell"))
            .collect::<Vec<_>>(),
        ["ID", "1700000000000-4", "1700000000000-3"]
    );
    assert!(table.contains("queued") && table.contains("r 2"), "{table}");
    let page = store.json(&["dead", "list", "--oldest", "--limit", "3"]);
    assert_eq!(
        (&page["dead_letters"][0]["job_id"], &page["next_cursor"]),
        (&json!(1), &json!("1700000000000-3"))
    );
    assert_eq!(
        store.json(&["dead", "list", "--oldest", "--cursor", "1700000000000-3"])["dead_letters"][0]["job_id"],
        4
    );
    assert_eq!(store.json(&["dead", "show", "1700000000000-2"])["entry"]["v"], "1");
    assert!(
        store
            .ctl(&["dead", "show", "1700000000000-2"])
            .ok()
            .contains("entry.event")
    );

    assert!(
        store
            .ctl(&["dead", "requeue", "1700000000000-1"])
            .ok()
            .contains("is back in jit:events")
    );
    assert_eq!(store.redis::<u64>(&["XLEN", "jit:events"]).await, 1);
    let twice = store.ctl(&["dead", "requeue", "1700000000000-1"]);
    assert_eq!(
        (twice.code, twice.out.contains("no such dead letter")),
        (1, true),
        "{twice:?}"
    );
    let result = store.json(&["dead", "drop", "1700000000000-2"]);
    assert_eq!(
        result,
        json!({ "dead_letters": [{ "id": "1700000000000-2", "result": "dropped" }] })
    );
    assert_eq!(store.ctl(&["dead", "drop", "1700000000000-2"]).code, 1);

    let reservation: String = store
        .redis(&[
            "XADD",
            "jit:dead",
            "*",
            "stream",
            "jit:provision",
            "reason",
            "r",
            "entry.v",
            "9",
        ])
        .await;
    let all = store.json(&["dead", "requeue", "--all"]);
    let results: Vec<_> = all["dead_letters"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|letter| letter["result"].as_str().expect("text"))
        .collect();
    assert_eq!(results, ["requeued", "requeued", "dropped"]);
    assert_eq!(all["dead_letters"][2]["id"], json!(reservation));
    assert_eq!(
        (
            store.redis::<u64>(&["XLEN", "jit:events"]).await,
            store.redis::<u64>(&["XLEN", "jit:dead"]).await
        ),
        (3, 0)
    );

    let stuck: String = store.redis(&["XADD", "jit:dead", "*", "some", "thing"]).await;
    let said = store.ctl(&["dead", "requeue", "--all"]);
    assert_eq!(
        (said.code, said.out.contains(&format!("jitctl dead drop {stuck}"))),
        (1, true),
        "{said:?}"
    );
    assert!(store.ctl(&["dead", "drop", "--all"]).ok().ends_with("dropped\n"));
    store.ctl(&["dead", "show", &stuck]).refused(1);
    for wrong in [
        &["dead", "requeue"][..],
        &["dead", "requeue", "--all", "1-1"],
        &["dead", "drop", "x"],
        &["dead", "list", "--cursor", "5"],
    ] {
        store.ctl(wrong).refused(2);
    }
}

#[test]
fn a_redis_that_is_away_is_told_with_its_address_and_without_its_password() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_jitctl"))
        .args(["limits"])
        .env_clear()
        .envs([("REDIS_URL", "redis://:p4ss@127.0.0.1:1/0")])
        .output()
        .expect("ran");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("127.0.0.1:1") && !said.contains("p4ss"), "{said}");
}
