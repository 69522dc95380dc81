//! What each misfortune becomes: the variant, what backs off, for how long, and whether GitHub may have done it.
#![allow(clippy::unwrap_used)]

use common::{Mock, Reply};
use jit_github::{Client, Error, JitRequest, JitRunner, Scope};
use serde_json::json;
use std::time::Duration;

mod failures {
    mod answers;
    mod calls;
}
mod common;

const LONG: Duration = Duration::from_secs(10);

fn acme() -> Scope {
    Scope::Organization("acme".into())
}

async fn generate(client: &Client, timeout: Duration) -> Result<JitRunner, Error> {
    let request = JitRequest {
        name: "jit-runner-7-1".into(),
        runner_group_id: 4,
        labels: vec!["x".into()],
        work_folder: None,
    };
    client.generate_jit_config(&acme(), &request, timeout).await
}

async fn error_of(reply: Reply) -> Error {
    generate(&Mock::always(reply).await.client(), LONG).await.unwrap_err()
}

fn message(status: u16, text: &str) -> Reply {
    Reply::json(
        status,
        &json!({"message": text, "documentation_url": "https://docs.github.com/rest"}),
    )
}
