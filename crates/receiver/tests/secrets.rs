//! Secrets that are emptied, removed and replaced under traffic: what a file does not hold any more is accepted no
//! more, within seconds.

use axum::http::Method;
use jit_core::{
    config::{Door, Secret},
    ledger::conditions,
};
use jit_receiver::config::{AdminAccess, Settings};
use jit_testing::eventually;

mod support;
use support::{Answer, Receiver, SECRET, fixture, request, signature, signed};

/// A file of a secret, as a deployment mounts it: a link into a directory that another takes the place of.
struct Mounted {
    dir: tempfile::TempDir,
    versions: std::cell::Cell<u32>,
}

impl Mounted {
    fn new(text: &str) -> Self {
        let mounted = Self {
            dir: tempfile::tempdir().expect("a directory"),
            versions: std::cell::Cell::new(0),
        };
        mounted.swap(text);
        mounted
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("secret")
    }

    fn door(&self) -> Door {
        Secret::file(&self.path()).expect("a secret").into()
    }

    /// Replaces it by a link to another file, at once.
    fn swap(&self, text: &str) {
        self.versions.set(self.versions.get() + 1);
        let version = self.dir.path().join(self.versions.get().to_string());
        std::fs::write(&version, text).expect("written");
        std::os::unix::fs::symlink(&version, self.dir.path().join("link")).expect("a link");
        std::fs::rename(self.dir.path().join("link"), self.path()).expect("in its place");
    }

    /// Writes into the file that is there, and keeps the time of its last change.
    fn overwrite(&self, text: &str) {
        let modified = std::fs::metadata(self.path())
            .and_then(|meta| meta.modified())
            .expect("a time");
        std::fs::write(self.path(), text).expect("written");
        let file = std::fs::File::options()
            .write(true)
            .open(self.path())
            .expect("the file");
        file.set_modified(modified).expect("its time");
    }

    fn remove(&self) {
        std::fs::remove_file(self.path()).expect("removed");
    }
}

async fn webhook(receiver: &Receiver, secret: &str) -> Answer {
    let body = fixture("queued").to_string();
    let mut request = signed("workflow_job", body.as_bytes());
    request.headers_mut().insert(
        "x-hub-signature-256",
        signature(secret, body.as_bytes()).parse().expect("a header"),
    );
    receiver.send(request).await
}

#[tokio::test]
async fn a_previous_secret_that_is_taken_away_is_accepted_no_more() {
    let take_away: [fn(&Mounted); 3] = [|file| file.overwrite(""), |file| file.swap("\n"), Mounted::remove];
    for take in take_away {
        let previous = Mounted::new("old");
        let receiver = Receiver::with(&[], |settings: &mut Settings| {
            settings.webhook_secrets.push(previous.door())
        })
        .await;
        webhook(&receiver, "old").await.ok();
        take(&previous);
        eventually("the old secret is refused", async || {
            webhook(&receiver, "old").await.status == 401
        })
        .await;
        webhook(&receiver, SECRET).await.ok();
    }
}

#[tokio::test]
async fn without_the_current_secret_nobody_is_believed_and_it_is_told() {
    let current = Mounted::new("new");
    let doors = |settings: &mut Settings| settings.webhook_secrets = vec![current.door(), Door::new("old")];
    let receiver = Receiver::with(&[], doors).await;
    let told = {
        let (ledger, stop) = (receiver.ledger().clone(), receiver.app.stop.clone());
        tokio::spawn(async move { conditions::watch(&ledger, "receiver 1", &stop).await })
    };
    for secret in ["new", "old"] {
        webhook(&receiver, secret).await.ok();
    }
    current.remove();
    for secret in ["new", "old"] {
        eventually("all are refused", async || {
            webhook(&receiver, secret).await.status == 503
        })
        .await;
    }
    assert!(
        webhook(&receiver, "new")
            .await
            .refused(503)
            .contains("WEBHOOK_SECRET is empty or gone")
    );
    let path = current.path().display().to_string();
    let told_of = async || {
        receiver
            .ledger()
            .conditions()
            .await
            .expect("conditions")
            .iter()
            .any(|told| told.text.contains(&path))
    };
    eventually("it is told", told_of).await;
    current.swap("newer");
    eventually("the new secret", async || {
        webhook(&receiver, "newer").await.status == 200
    })
    .await;
    webhook(&receiver, "old").await.ok();
    webhook(&receiver, "new").await.refused(401);
    eventually("it is over", async || !told_of().await).await;
    told.abort();
}

#[tokio::test]
async fn a_secret_is_replaced_in_place_and_by_a_link_without_a_refusal_of_the_right_one() {
    let current = Mounted::new("first");
    let receiver = Receiver::with(&[], |settings: &mut Settings| {
        settings.webhook_secrets = vec![current.door()]
    })
    .await;
    let replace: [fn(&Mounted, &str); 2] = [Mounted::overwrite, Mounted::swap];
    for (number, replace) in replace.into_iter().enumerate() {
        let (old, new) = (format!("secret {number}"), format!("secret {}", number + 1));
        current.swap(&old);
        eventually("the one before", async || webhook(&receiver, &old).await.status == 200).await;
        replace(&current, &new);
        // Each is answered by either secret's rule, never as if there were none.
        eventually("the new one", async || {
            let status = webhook(&receiver, &new).await.status;
            assert!(status == 200 || status == 401, "{status}");
            status == 200
        })
        .await;
        webhook(&receiver, &old).await.refused(401);
    }
}

#[tokio::test]
async fn an_admin_key_that_is_taken_away_lets_nobody_in() {
    let key = Mounted::new("k");
    let receiver = Receiver::with(&[], |settings: &mut Settings| {
        settings.admin = AdminAccess::Key(key.door())
    })
    .await;
    let admin = async || {
        receiver
            .send(request(Method::GET, "/admin/org-limits", &[("x-admin-key", "k")], ""))
            .await
    };
    admin().await.ok();
    key.overwrite("");
    eventually("nobody is let in", async || admin().await.status == 503).await;
    assert!(admin().await.refused(503).contains("ADMIN_API_KEY is empty or gone"));
    key.overwrite("k");
    eventually("it is back", async || admin().await.status == 200).await;
}
