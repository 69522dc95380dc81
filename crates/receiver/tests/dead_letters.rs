//! Dead letters by the admin API: listed, put back, thrown away, each once.

use axum::http::Method;
use jit_core::stream::{Entry, dead_letters};
use serde_json::{Value, json};

mod support;
use support::{Receiver, fixture, request};

/// Lets all events that wait die.
async fn bury_all(receiver: &Receiver, reason: &str) {
    let found: Vec<(String, std::collections::HashMap<String, String>)> =
        receiver.redis(&["XRANGE", "jit:events", "-", "+"]).await;
    for (id, fields) in found {
        dead_letters::bury(receiver.ledger().pool(), "jit:events", &Entry { id, fields }, reason)
            .await
            .expect("buried");
    }
}

#[tokio::test]
async fn a_letter_is_listed_put_back_and_thrown_away() {
    let receiver = Receiver::start().await;
    for job in [1, 2, 3] {
        let mut payload = fixture("queued");
        payload["workflow_job"]["id"] = job.into();
        receiver.webhook(payload.to_string()).await.ok();
    }
    bury_all(&receiver, "the ledger cannot apply this").await;
    let list = async |query: &str| {
        receiver
            .admin(Method::GET, &format!("/admin/dead-letters{query}"), "")
            .await
            .ok()
    };
    let jobs = |page: &Value| {
        page["dead_letters"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|letter| letter["job_id"].as_u64().expect("an id"))
            .collect::<Vec<_>>()
    };
    assert_eq!(jobs(&list("").await), [3, 2, 1]);
    let first = list("?order=oldest&limit=2").await;
    assert_eq!(jobs(&first), [1, 2]);
    let next = first["next_cursor"].as_str().expect("a cursor");
    assert_eq!(jobs(&list(&format!("?order=oldest&limit=2&cursor={next}")).await), [3]);
    let letter = &first["dead_letters"][0];
    assert_eq!(
        (&letter["reason"], &letter["stream"], &letter["action"]),
        (
            &json!("the ledger cannot apply this"),
            &json!("jit:events"),
            &json!("queued")
        )
    );
    assert!(
        letter["died_at"].as_str().is_some_and(|time| time.ends_with('Z')) && letter["entry"]["event"].is_string(),
        "{letter}"
    );
    let id = letter["id"].as_str().expect("an id").to_owned();
    assert_eq!(
        &receiver
            .admin(Method::GET, &format!("/admin/dead-letters/{id}"), "")
            .await
            .ok(),
        letter
    );

    let requeue = async |id: &str| {
        receiver
            .admin(Method::POST, &format!("/admin/dead-letters/{id}/requeue"), "")
            .await
    };
    let back = requeue(&id).await.ok();
    assert_eq!(
        (&back["id"], &back["requeued"], &back["stream"]),
        (&json!(id), &json!(true), &json!("jit:events"))
    );
    assert_eq!(
        receiver
            .events()
            .await
            .iter()
            .map(|(event, _)| event.job.get())
            .collect::<Vec<_>>(),
        [1]
    );
    requeue(&id).await.refused(404);
    assert_eq!(receiver.events().await.len(), 1, "asked twice, put back once");
    receiver.work().await;
    assert_eq!(
        receiver.get("/orgs/Acme-Corp/status").await.ok()["running"],
        1,
        "and it is applied"
    );

    let id = list("").await["dead_letters"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/admin/dead-letters/{id}");
    assert!(receiver.admin(Method::DELETE, &path, "").await.ok()["message"].is_string());
    receiver.admin(Method::DELETE, &path, "").await.refused(404);
    receiver.admin(Method::GET, &path, "").await.refused(404);
    assert_eq!(jobs(&list("").await), [2]);
}

#[tokio::test]
async fn what_is_wrong_is_told_and_korean_where_it_is_preferred() {
    let receiver = Receiver::start().await;
    for wrong in ["5", "x", "5-1-1", "%2B", "5-18446744073709551616", "5%2F1-1"] {
        receiver
            .admin(Method::GET, &format!("/admin/dead-letters/{wrong}"), "")
            .await
            .refused(400);
        receiver
            .admin(Method::DELETE, &format!("/admin/dead-letters/{wrong}"), "")
            .await
            .refused(400);
        receiver
            .admin(Method::POST, &format!("/admin/dead-letters/{wrong}/requeue"), "")
            .await
            .refused(400);
    }
    for query in ["?order=random", "?cursor=x", "?limit=0", "?limit=1001"] {
        receiver
            .admin(Method::GET, &format!("/admin/dead-letters{query}"), "")
            .await
            .refused(422);
    }
    // A reservation is dropped, and a letter of no stream stays.
    let id: String = receiver
        .redis(&[
            "XADD",
            "jit:dead",
            "*",
            "stream",
            "jit:provision",
            "id",
            "5-1",
            "reason",
            "r",
            "entry.v",
            "9",
        ])
        .await;
    let headers = [("x-admin-key", support::ADMIN_KEY), ("accept-language", "ko-KR")];
    let dropped = receiver
        .send(request(
            Method::POST,
            &format!("/admin/dead-letters/{id}/requeue"),
            &headers,
            "",
        ))
        .await
        .ok();
    assert_eq!(dropped["requeued"], false);
    assert!(
        dropped["message"]
            .as_str()
            .is_some_and(|message| message.contains("예약")),
        "{dropped}"
    );
    let id: String = receiver.redis(&["XADD", "jit:dead", "*", "some", "thing"]).await;
    receiver
        .admin(Method::POST, &format!("/admin/dead-letters/{id}/requeue"), "")
        .await
        .refused(409);
    assert_eq!(
        receiver
            .admin(Method::GET, &format!("/admin/dead-letters/{id}"), "")
            .await
            .ok()["entry"],
        json!({})
    );
}
