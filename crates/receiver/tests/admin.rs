//! The admin API: who may, what is answered, and that a wrong value changes nothing.

use axum::http::{HeaderValue, Method};
use jit_core::{
    config::{Problems, Secret},
    event::JobId,
    ledger::Observation,
};
use jit_receiver::{config::AdminAccess, limits_file};
use serde_json::{Value, json};

use jit_testing::{RedisServer, eventually};

mod support;
use support::{ADMIN_KEY, Answer, Receiver, request};

const ROUTES: [(Method, &str); 18] = [
    (Method::GET, "/admin/org-limits"),
    (Method::PUT, "/admin/org-limits"),
    (Method::GET, "/admin/org-limits/acme"),
    (Method::PUT, "/admin/org-limits/acme"),
    (Method::DELETE, "/admin/org-limits/acme"),
    (Method::POST, "/admin/org-limits/reload?force=true"),
    (Method::PUT, "/admin/org-limits/octocat/app"),
    (Method::POST, "/admin/orgs/acme/pause"),
    (Method::POST, "/admin/orgs/acme/resume"),
    (Method::GET, "/admin/jobs"),
    (Method::POST, "/admin/jobs/4711/retry"),
    (Method::GET, "/admin/runners"),
    (Method::DELETE, "/admin/runners/jit-runner-1-a"),
    (Method::GET, "/admin/dead-letters"),
    (Method::GET, "/admin/dead-letters/1-1"),
    (Method::DELETE, "/admin/dead-letters/1-1"),
    (Method::POST, "/admin/dead-letters/1-1/requeue"),
    (Method::POST, "/admin/reconcile"),
];

async fn with_key(receiver: &Receiver, method: Method, path: &str, key: &[u8]) -> Answer {
    let mut request = request(
        method,
        path,
        &[],
        json!({ "limit": 5, "limits": { "acme": 5 }, "reason": "r" }).to_string(),
    );
    request.headers_mut().insert(
        "x-admin-key",
        HeaderValue::from_bytes(key).expect("bytes that a header may have"),
    );
    receiver.send(request).await
}

#[tokio::test]
async fn nobody_without_the_key_changes_or_sees_anything() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    for (method, path) in ROUTES {
        let body = json!({ "limit": 5, "limits": { "acme": 5 }, "reason": "r" }).to_string();
        receiver
            .send(request(method.clone(), path, &[], body))
            .await
            .refused(401);
        for key in [&b"wrong"[..], b"", b"k3y ey", b"K3Y", b"k3", "ключ".as_bytes(), b"\xff"] {
            assert!(
                with_key(&receiver, method.clone(), path, key)
                    .await
                    .refused(403)
                    .contains("wrong")
            );
        }
    }
    let mut twice = request(Method::GET, "/admin/org-limits", &[("x-admin-key", "wrong")], "");
    twice
        .headers_mut()
        .append("x-admin-key", ADMIN_KEY.parse().expect("a header"));
    receiver.send(twice).await.refused(403);
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn without_a_key_it_is_off_and_says_how_to_turn_it_on() {
    let receiver = Receiver::with(&[], |settings| settings.admin = AdminAccess::Disabled).await;
    for (method, path) in ROUTES {
        assert!(
            receiver
                .send(request(method.clone(), path, &[], ""))
                .await
                .refused(403)
                .contains("ADMIN_API_KEY")
        );
        assert!(
            with_key(&receiver, method, path, b"")
                .await
                .refused(403)
                .contains("ADMIN_API_KEY")
        );
    }
    let open = Receiver::with(&[], |settings| settings.admin = AdminAccess::Open).await;
    open.send(request(Method::GET, "/admin/org-limits", &[], "")).await.ok();
}

#[tokio::test]
async fn wrong_keys_wait_and_right_ones_do_not_wait_for_them() {
    let receiver = Receiver::with(&[], |settings| {
        settings.timeouts.wrong_key = std::time::Duration::from_secs(600)
    })
    .await;
    let wrong = async {
        let tries = (0..20).map(|_| with_key(&receiver, Method::GET, "/admin/org-limits", b"wrong"));
        futures::future::join_all(tries).await
    };
    let right = async {
        eventually("as many are being answered as may be", async || {
            receiver.app.wrong_keys.available_permits() == 0
        })
        .await;
        for _ in 0..20 {
            receiver.admin(Method::GET, "/admin/org-limits", "").await.ok();
        }
    };
    tokio::select! {
        _ = wrong => panic!("answered at once"),
        () = right => {}
    }
}

#[tokio::test]
async fn a_key_in_a_file_is_rotated_without_a_restart() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "old\n").expect("written");
    let key = Secret::resolve("NO_SUCH_VARIABLE", Some(file.path()), &mut Problems::default()).expect("a key");
    let receiver = Receiver::with(&[], |settings| settings.admin = AdminAccess::Key(key.into())).await;
    with_key(&receiver, Method::GET, "/admin/org-limits", b"old").await.ok();
    std::fs::write(file.path(), "new\n").expect("written");
    eventually("the new key", async || {
        with_key(&receiver, Method::GET, "/admin/org-limits", b"new")
            .await
            .status
            == 200
    })
    .await;
    with_key(&receiver, Method::GET, "/admin/org-limits", b"old")
        .await
        .refused(403);
}

#[tokio::test]
async fn the_life_of_a_limit() {
    let receiver = Receiver::start().await;
    assert_eq!(
        receiver.admin(Method::GET, "/admin/org-limits", "").await.ok(),
        json!({ "default_limit": 10, "custom_limits": {}, "total_custom_orgs": 0 })
    );
    let one = "/admin/org-limits/platform-team";
    assert_eq!(
        receiver.admin(Method::GET, one, "").await.ok(),
        json!({ "organization": "platform-team", "limit": 10, "is_custom": false, "current_running": 0,
            "available": 10 })
    );
    assert_eq!(
        receiver.admin(Method::PUT, one, json!({ "limit": 25 })).await.ok(),
        json!({ "organization": "platform-team", "limit": 25, "previous_limit": 10, "is_custom": true, "message": "the \
         limit is now 25" })
    );
    assert_eq!(receiver.ticks().await, ["dispatch"], "it takes effect at once");
    assert_eq!(
        receiver.admin(Method::PUT, one, json!({ "limit": 30 })).await.ok()["previous_limit"],
        25
    );
    assert_eq!(
        receiver.admin(Method::GET, one, "").await.ok(),
        json!({ "organization": "platform-team", "limit": 30, "is_custom": true, "current_running": 0,
            "available": 30 })
    );
    let many = receiver
        .admin(
            Method::PUT,
            "/admin/org-limits",
            json!({ "limits": { "org-a": 25, "org-b": 5, "octocat/app": 1000 } }),
        )
        .await
        .ok();
    assert_eq!(
        many,
        json!({ "updated": 3, "limits": { "org-a": 25, "org-b": 5, "octocat": 1000 }, "message": "limits of 3 \
         organizations were set" })
    );
    assert_eq!(
        receiver.admin(Method::GET, "/admin/org-limits", "").await.ok(),
        json!({ "default_limit": 10, "custom_limits": { "octocat": 1000, "org-a": 25, "org-b": 5, "platform-team": 30 },
            "total_custom_orgs": 4 })
    );
    assert_eq!(
        receiver
            .admin(Method::GET, "/admin/org-limits/octocat/app", "")
            .await
            .ok()["limit"],
        1000
    );
    assert_eq!(
        receiver.admin(Method::DELETE, one, "").await.ok(),
        json!({ "organization": "platform-team", "limit": 10, "previous_limit": 30, "is_custom": false,
            "message": "the limit is the default again: 10" })
    );
    let again = receiver.admin(Method::DELETE, one, "").await.ok();
    assert_eq!(
        (&again["previous_limit"], &again["limit"], &again["is_custom"]),
        (&json!(10), &json!(10), &json!(false))
    );
    // The operators' own command shows the same.
    assert_eq!(receiver.redis::<String>(&["HGET", "org_limits", "org-a"]).await, "25");
}

#[tokio::test]
async fn the_messages_are_those_that_operators_know_in_korean() {
    let receiver = Receiver::start().await;
    let message = async |method, path: &str, body: Value| {
        let headers = [("x-admin-key", ADMIN_KEY), ("accept-language", "ko-KR,ko;q=0.9")];
        receiver
            .send(request(method, path, &headers, body.to_string()))
            .await
            .ok()["message"]
            .clone()
    };
    assert_eq!(
        message(Method::PUT, "/admin/org-limits/a", json!({ "limit": 25 })).await,
        "커스텀 제한이 설정되었습니다: 25"
    );
    assert_eq!(
        message(
            Method::PUT,
            "/admin/org-limits",
            json!({ "limits": { "a": 1, "b": 2, "c": 3 } })
        )
        .await,
        "3개 Organization의 제한이 설정되었습니다."
    );
    assert_eq!(
        message(Method::DELETE, "/admin/org-limits/a", Value::Null).await,
        "커스텀 제한이 삭제되었습니다. 기본값(10) 사용"
    );
}

#[tokio::test]
async fn no_name_of_an_organization_collides_with_a_route() {
    let receiver = Receiver::start().await;
    for (named, org, limit) in [
        ("reload", "reload", 3),
        ("limit", "limit", 4),
        ("octocat/limit", "octocat", 5),
        ("octocat/pause", "octocat", 6),
    ] {
        let path = format!("/admin/orgs/{named}/limit");
        assert_eq!(
            receiver.admin(Method::PUT, &path, json!({ "limit": limit })).await.ok()["organization"],
            org
        );
        let told = receiver.admin(Method::GET, &path, "").await.ok();
        assert_eq!(
            (&told["organization"], &told["limit"], &told["is_custom"]),
            (&json!(org), &json!(limit), &json!(true))
        );
    }
    let all = receiver.admin(Method::GET, "/admin/org-limits", "").await.ok();
    assert_eq!(all["custom_limits"], json!({ "limit": 4, "octocat": 6, "reload": 3 }));
    receiver
        .admin(Method::DELETE, "/admin/orgs/reload/limit", "")
        .await
        .ok();
    receiver
        .admin(Method::POST, "/admin/orgs/limit/pause", json!({ "reason": "r" }))
        .await
        .ok();
    assert_eq!(
        receiver.redis::<Vec<String>>(&["HKEYS", "orgs:paused"]).await,
        ["limit"]
    );
}

#[tokio::test]
async fn wrong_limits_and_names_change_nothing() {
    let receiver = Receiver::start().await;
    let empty = receiver.store().await;
    for limit in [
        json!(0),
        json!(1001),
        json!(-1),
        json!(2.5),
        json!(25.5),
        json!("25"),
        json!(true),
        Value::Null,
        json!([1]),
        json!({}),
        json!(1e30),
    ] {
        let one = receiver
            .admin(Method::PUT, "/admin/org-limits/acme", json!({ "limit": limit }))
            .await
            .refused(422);
        assert!(one.starts_with("limit: "), "{one}");
        let many = receiver
            .admin(
                Method::PUT,
                "/admin/org-limits",
                json!({ "limits": { "good": 5, "bad-one": limit } }),
            )
            .await
            .refused(422);
        assert!(many.starts_with("limits.bad-one: "), "{many}");
    }
    for body in [
        json!({}),
        json!([]),
        json!(5),
        json!({ "limits": [] }),
        json!({ "limits": null }),
        json!({ "Limit": 5 }),
        Value::Null,
    ] {
        receiver
            .admin(Method::PUT, "/admin/org-limits", &body)
            .await
            .refused(422);
        receiver
            .admin(Method::PUT, "/admin/org-limits/acme", &body)
            .await
            .refused(422);
    }
    for body in ["{", "{\"limit\": 5", "limit=5", "\u{0}", &"[".repeat(100_000)] {
        receiver
            .admin(Method::PUT, "/admin/org-limits/acme", body)
            .await
            .refused(400);
        receiver
            .admin(Method::PUT, "/admin/org-limits", body)
            .await
            .refused(400);
    }
    receiver
        .admin(
            Method::PUT,
            "/admin/org-limits",
            format!("{{\"limits\": {{\"{}\": 5}}}}", "a".repeat(2_000_000)),
        )
        .await
        .refused(413);
    let long = "a".repeat(300);
    for name in ["a:b", "{a}", "a\nb", "a b", &long, "", "a/b/c", "a/..", "ä"] {
        let detail = receiver
            .admin(
                Method::PUT,
                "/admin/org-limits",
                json!({ "limits": { "good": 5, name: 5 } }),
            )
            .await
            .refused(422);
        assert!(detail.starts_with("limits."), "{detail}");
    }
    let twice = receiver
        .admin(
            Method::PUT,
            "/admin/org-limits",
            json!({ "limits": { "Acme": 5, "acme": 6 } }),
        )
        .await
        .refused(422);
    assert!(twice.contains("two spellings"), "{twice}");
    for path in [
        "a:b", "%7Ba%7D", "a%0Ab", "a%20b", "a%2Fb", "a%00", "%FF", "%C3%A4", &long, "a%2Fb/c", "a/b%2Fc", "a/..%2F",
        "a/%2E%2E",
    ] {
        for method in [Method::GET, Method::PUT, Method::DELETE] {
            receiver
                .admin(method, &format!("/admin/org-limits/{path}"), json!({ "limit": 5 }))
                .await
                .refused(400);
        }
        receiver
            .admin(
                Method::POST,
                &format!("/admin/orgs/{path}/pause"),
                json!({ "reason": "r" }),
            )
            .await
            .refused(400);
        receiver.get(&format!("/orgs/{path}/status")).await.refused(400);
    }
    receiver
        .admin(Method::POST, "/admin/org-limits/reload?force=perhaps", "")
        .await
        .refused(422);
    assert_eq!(receiver.store().await, empty);
}

#[tokio::test]
async fn spellings_of_one_organization_are_one() {
    let receiver = Receiver::start().await;
    receiver
        .admin(Method::PUT, "/admin/org-limits/acme-corp", json!({ "limit": 7 }))
        .await
        .ok();
    assert_eq!(
        receiver
            .admin(Method::PUT, "/admin/org-limits/ACME-Corp", json!({ "limit": 8 }))
            .await
            .ok()["previous_limit"],
        7
    );
    assert_eq!(
        receiver.admin(Method::GET, "/admin/org-limits", "").await.ok()["total_custom_orgs"],
        1
    );
    receiver.queue(1, "Acme-Corp", &["code-linux"]).await;
    receiver.work().await;
    let limit = receiver
        .admin(Method::GET, "/admin/org-limits/ACME-CORP", "")
        .await
        .ok();
    assert_eq!(
        (
            &limit["organization"],
            &limit["limit"],
            &limit["current_running"],
            &limit["available"]
        ),
        (&json!("Acme-Corp"), &json!(8), &json!(1), &json!(7))
    );
}

#[tokio::test]
async fn limits_come_from_the_file_where_redis_holds_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("org-limits.yaml");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write("org_limits:\n  platform-team: 25\n  octocat/app: 3\n");
    let mut redis = RedisServer::plain(&[]);
    redis.kill();
    let receiver = Receiver::on(
        &redis.settings(),
        &["--org-limits-file", path.to_str().expect("text")],
        |_| {},
    )
    .await;
    // At start, as soon as Redis is there.
    let loading = tokio::spawn(limits_file::load_at_start(receiver.app.clone()));
    redis.start_again();
    loading.await.expect("loaded");
    let limits = async || receiver.admin(Method::GET, "/admin/org-limits", "").await.ok()["custom_limits"].clone();
    assert_eq!(limits().await, json!({ "octocat": 3, "platform-team": 25 }));
    // What was changed meanwhile does not come back with a restart, nor with a reload that does not insist.
    receiver
        .admin(Method::DELETE, "/admin/org-limits/octocat/app", "")
        .await
        .ok();
    receiver
        .admin(Method::PUT, "/admin/org-limits/other", json!({ "limit": 4 }))
        .await
        .ok();
    limits_file::load_at_start(receiver.app.clone()).await;
    let reload = async |query: &str| {
        receiver
            .admin(Method::POST, &format!("/admin/org-limits/reload{query}"), "")
            .await
    };
    for query in ["", "?force=false", "?other=1"] {
        assert_eq!(reload(query).await.ok()["loaded"], 0);
    }
    assert_eq!(limits().await, json!({ "other": 4, "platform-team": 25 }));
    let forced = reload("?force=true").await.ok();
    assert_eq!((&forced["loaded"], forced["message"].is_string()), (&json!(2), true));
    assert_eq!(limits().await, json!({ "octocat": 3, "platform-team": 25 }));
    for (text, wrong) in [
        ("org_limits: {a: 0}", "org_limits.a"),
        ("org_limits: {\"a:b\": 5}", "a:b"),
        ("org_limits: [", "ORG_LIMITS_FILE"),
    ] {
        write(text);
        assert!(reload("?force=true").await.refused(422).contains(wrong));
    }
    std::fs::remove_file(&path).expect("removed");
    assert!(reload("?force=true").await.refused(422).contains("no such file"));
    assert_eq!(limits().await, json!({ "octocat": 3, "platform-team": 25 }));
}

#[tokio::test]
async fn a_pause_holds_an_organization_back_and_is_told_to_who_waits() {
    let receiver = Receiver::start().await;
    receiver.work().await;
    let paused = receiver
        .admin(
            Method::POST,
            "/admin/orgs/acme/pause",
            json!({ "reason": "cluster upgrade", "until": "2100-01-01T00:00:00Z" }),
        )
        .await
        .ok();
    assert_eq!(
        (&paused["organization"], &paused["paused"], &paused["until"]),
        (&json!("acme"), &json!(true), &json!("2100-01-01T00:00:00Z"))
    );
    receiver.queue(1, "Acme", &["code-linux"]).await;
    receiver.work().await;
    let status = receiver.get("/orgs/acme/status").await.ok();
    assert_eq!((&status["running"], &status["pending"]), (&json!(0), &json!(1)));
    assert!(
        status["reasons"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("cluster upgrade")),
        "{status}"
    );
    let retried = receiver.admin(Method::POST, "/admin/jobs/1/retry", "").await.ok();
    assert_eq!(
        (&retried["job_id"], &retried["retried"]),
        (&json!(1), &json!([])),
        "a pause is no back-off"
    );
    assert_eq!(
        receiver.admin(Method::POST, "/admin/jobs/2/retry", "").await.status,
        404
    );
    assert_eq!(
        receiver.admin(Method::POST, "/admin/jobs/none/retry", "").await.status,
        400
    );
    let resumed = receiver.admin(Method::POST, "/admin/orgs/ACME/resume", "").await.ok();
    assert_eq!(
        (&resumed["organization"], &resumed["paused"]),
        (&json!("Acme"), &json!(false))
    );
    assert_eq!(receiver.ticks().await, ["dispatch"]);
    receiver.work().await;
    eventually("the answer of a second ago is over", async || {
        receiver.get("/orgs/acme/status").await.ok()["running"] == 1
    })
    .await;
    receiver
        .admin(Method::POST, "/admin/orgs/octocat/app/pause", json!({ "reason": "r" }))
        .await
        .ok();
    let before = receiver.store().await;
    for body in [
        json!({}),
        json!({ "reason": "" }),
        json!({ "reason": " " }),
        json!({ "reason": 5 }),
        json!({ "reason": "a\nb" }),
        json!({ "reason": "a".repeat(201) }),
        json!({ "reason": "r", "until": "soon" }),
        json!({ "reason": "r", "until": 5 }),
        json!({ "reason": "r", "until": "2020-01-01T00:00:00Z" }),
        Value::Null,
    ] {
        receiver
            .admin(Method::POST, "/admin/orgs/other/pause", body)
            .await
            .refused(422);
    }
    assert_eq!(receiver.store().await, before);
}

#[tokio::test]
async fn runners_are_listed_and_removed_the_one_way() {
    let receiver = Receiver::start().await;
    for job in 1..=3 {
        receiver.queue(job, "acme", &["code-linux"]).await;
    }
    receiver.queue(4, "Other", &["code-linux", "gpu"]).await;
    receiver.work().await;
    let list = async |query: &str| {
        receiver
            .admin(Method::GET, &format!("/admin/runners{query}"), "")
            .await
            .ok()
    };
    let all = list("").await;
    let runners = all["runners"].as_array().expect("a list");
    assert_eq!((runners.len(), &all["next_cursor"]), (4, &Value::Null));
    assert_eq!(list("?org=OTHER").await["runners"].as_array().map(Vec::len), Some(1));
    assert_eq!(list("?org=other&state=busy").await["runners"], json!([]));
    let first = &runners[0];
    assert_eq!(
        (&first["state"], &first["asked_for_by_job"], &first["organization"]),
        (&json!("reserved"), &json!(1), &json!("acme"))
    );
    assert!(
        first["reserved_at"].as_str().is_some_and(|time| time.ends_with('Z')),
        "{first}"
    );
    // In pages.
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(&format!("?limit=3&cursor={cursor}")).await;
        names.extend(
            page["runners"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|runner| runner["name"].clone()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(
        names,
        runners.iter().map(|runner| runner["name"].clone()).collect::<Vec<_>>()
    );
    // A reservation that nobody took up is gone at once; one that is being made goes GitHub first.
    let name = |i: usize| names[i].as_str().expect("a name").to_owned();
    let remove = async |name: String| {
        receiver
            .admin(Method::DELETE, &format!("/admin/runners/{name}"), "")
            .await
    };
    let gone = remove(name(0)).await.ok();
    assert_eq!((&gone["name"], &gone["state"]), (&names[0], &json!("gone")));
    assert_eq!(receiver.ticks().await, ["dispatch"]);
    let fence: String = receiver
        .redis(&["HGET", &format!("runner:{}:info", name(1)), "fence"])
        .await;
    receiver
        .ledger()
        .claim(
            &name(1),
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
    receiver
        .ledger()
        .observe(Observation::Started, &name(1), "")
        .await
        .expect("seen");
    let removing = remove(name(1)).await;
    assert_eq!(
        (removing.status.as_u16(), &removing.json()["state"]),
        (202, &json!("removing"))
    );
    assert_eq!(
        list("?state=removing").await["runners"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(remove(name(1)).await.status, 202, "asked twice");
    remove("jit-runner-9-none".into()).await.refused(404);
    for wrong in ["A", "a%3Ab", "a%2Fb", "%7B%7D", "a%0A", &"a".repeat(64)] {
        remove(wrong.to_owned()).await.refused(400);
    }
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?state=alive", "?org=a:b"] {
        receiver
            .admin(Method::GET, &format!("/admin/runners{query}"), "")
            .await
            .refused(422);
        receiver
            .admin(Method::GET, &format!("/admin/jobs{query}"), "")
            .await
            .refused(422);
    }
}

#[tokio::test]
async fn jobs_are_listed_by_organization_and_state_in_pages() {
    let receiver = Receiver::with(&["--max-runners-per-org", "1"], |_| {}).await;
    for job in 1..=30 {
        receiver
            .queue(job, if job % 3 == 0 { "Other" } else { "acme" }, &["code-linux"])
            .await;
    }
    receiver.work().await;
    let mut event = jit_core::event::JobEvent {
        action: jit_core::event::Action::InProgress,
        job: JobId::new(2).expect("an id"),
        attempt: Some(1),
        org: "acme".into(),
        repo: "acme/app".into(),
        class: None,
        runner: Some("elsewhere".into()),
        runner_id: None,
        conclusion: None,
        identity: jit_core::event::Identity::default(),
    };
    receiver.ledger().apply(&event, None).await.expect("applied");
    event.action = jit_core::event::Action::Completed;
    event.job = JobId::new(1).expect("an id");
    receiver.ledger().apply(&event, None).await.expect("applied");
    let list = async |query: &str| {
        receiver
            .admin(Method::GET, &format!("/admin/jobs{query}"), "")
            .await
            .ok()
    };
    let ids = |page: &Value| {
        page["jobs"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|job| job["job_id"].as_u64().expect("an id"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&list("").await),
        (2..=30).collect::<Vec<_>>(),
        "those that are over are not listed"
    );
    assert_eq!(
        ids(&list("?org=OTHER").await),
        (1..=10).map(|n| n * 3).collect::<Vec<_>>()
    );
    assert_eq!(ids(&list("?state=in_progress").await), [2]);
    assert_eq!(ids(&list("?state=in_progress&org=other").await), [0; 0]);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = list(&format!("?org=acme&state=queued&limit=4&cursor={cursor}")).await;
        seen.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, (3..=30).filter(|job| job % 3 != 0).collect::<Vec<_>>());
    receiver
        .admin(Method::GET, "/admin/jobs?state=completed", "")
        .await
        .refused(422);
    receiver
        .admin(Method::GET, "/admin/jobs?cursor=x", "")
        .await
        .refused(422);
    let job = &list("?org=other&limit=1").await["jobs"][0];
    assert_eq!(
        (&job["state"], &job["organization"], &job["repository"], &job["labels"]),
        (
            &json!("queued"),
            &json!("Other"),
            &json!("Other/app"),
            &json!(["code-linux"])
        )
    );
}

#[tokio::test]
async fn a_reconcile_is_asked_for_whatever_beat_does() {
    let receiver = Receiver::start().await;
    for _ in 0..2 {
        let answer = receiver.admin(Method::POST, "/admin/reconcile", "").await;
        assert_eq!(answer.status, 202);
        assert!(answer.json()["message"].is_string());
    }
    assert_eq!(receiver.ticks().await, ["sync", "sync"]);
}
