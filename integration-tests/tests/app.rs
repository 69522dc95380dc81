//! As a GitHub App, with several credentials, and within GitHub's limits. Runners are processes here: what they run on
//! does not matter to this.

#![allow(clippy::unwrap_used, missing_docs)]

use integration_tests::{assert_sound, brisk, number, until};
use jit_harness::stack::{Backend, Options, Stack};
use serde_json::{Value, json};

fn options(orgs: usize, workers: usize, env: &[(&str, &str)], github: &[&str]) -> Options {
    let env = brisk()
        .into_iter()
        .chain(
            env.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
        .collect();
    Options {
        orgs,
        workers,
        backend: Backend::Process,
        env,
        github_args: github.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Options::default()
    }
}

fn key(name: &str) -> String {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/github/tests/common")
        .join(name)
        .display()
        .to_string()
}

async fn control(stack: &Stack, path: &str, body: &Value) {
    stack
        .post(&format!("{}/_control/{path}", stack.github_url), body)
        .await
        .unwrap();
}

async fn jobs(stack: &Stack, org: &str, count: usize) -> Vec<u64> {
    stack
        .create_jobs(&json!({ "org": org, "labels": ["code-linux"], "duration_ms": 50, "count": count }))
        .await
        .unwrap()
}

async fn succeeded(stack: &Stack) -> u64 {
    number(&stack.summary().await.unwrap(), "/jobs/success")
}

async fn why(stack: &Stack, job: u64) -> Value {
    stack.jitctl(&["why", &job.to_string()]).await.unwrap_or_default()
}

async fn waits_because(stack: &Stack, job: u64, words: &str) -> Value {
    until(words, async || {
        why(stack, job).await["why"]
            .as_str()
            .unwrap_or_default()
            .contains(words)
    })
    .await;
    why(stack, job).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_github_app_whose_tokens_expire_all_the_time() {
    let (private, public) = (key("app-pkcs1.pem"), key("app-public.pem"));
    let env = [
        ("GITHUB_APP_ID", "4711"),
        ("GITHUB_APP_PRIVATE_KEY_FILE", private.as_str()),
        ("ORGANIZATION_BACKOFF", "2s"),
    ];
    let mut options = options(
        4,
        2,
        &env,
        &[
            "--app-id",
            "4711",
            "--app-public-key-file",
            &public,
            "--app-token-ms",
            "2500",
        ],
    );
    // Five minutes ahead: GitHub takes no JWT that is signed by this clock.
    options.clocks = vec![300, 0];
    let stack = Stack::start(&options).await.unwrap();
    for org in ["org-0001", "org-0002", "org-0003"] {
        control(&stack, "app", &json!({ "account": org, "state": "installed" })).await;
    }
    let stranger = jobs(&stack, "org-0004", 1).await[0];
    let mut sent = 0;
    // Two workers and three organizations: four tokens of each.
    while number(&stack.summary().await.unwrap(), "/runners/app_tokens") < 24 {
        for org in ["org-0001", "org-0002", "org-0003"] {
            sent += jobs(&stack, org, 2).await.len() as u64;
        }
        until("the App's jobs are over", async || succeeded(&stack).await == sent).await;
    }
    let explained = waits_because(&stack, stranger, "the GitHub App is not installed at org-0004").await;
    assert!(
        explained["next"].as_i64().is_some(),
        "when it is tried next: {explained}"
    );
    control(&stack, "app", &json!({ "account": "org-0004", "state": "installed" })).await;
    until("the job runs where the App is installed now", async || {
        succeeded(&stack).await == sent + 1
    })
    .await;
    let summary = stack.summary().await.unwrap();
    assert_eq!(
        (number(&summary, "/jobs/run"), number(&summary, "/jobs/run_twice")),
        (sent + 1, 0),
        "{summary:#}"
    );
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_is_used_up_costs_the_owners_of_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("credentials.yaml"), dir.path().join("plenty"));
    std::fs::write(&token, "plenty").unwrap();
    std::fs::write(
        &file,
        "credentials:\n- {name: poor, owners: [ORG-0001], token: poor}\n- {name: rich, owners: \
     [org-0002], token_file: plenty}\n",
    )
    .unwrap();
    let path = file.display().to_string();
    let stack = Stack::start(&options(
        3,
        2,
        &[
            ("GITHUB_CREDENTIALS_FILE", path.as_str()),
            ("ORGANIZATION_BACKOFF", "10m"),
        ],
        &[],
    ))
    .await
    .unwrap();
    control(&stack, "tokens", &json!({ "token": "poor", "rate_limit": 10 })).await;
    control(&stack, "tokens", &json!({ "token": "plenty" })).await;
    let poor = jobs(&stack, "org-0001", 40).await;
    let rich = jobs(&stack, "org-0002", 40).await.len() as u64;
    let of_rich = async || number(&stack.summary().await.unwrap(), "/orgs/org-0002/jobs");
    assert_eq!(of_rich().await, rich);
    let last = *poor.last().unwrap();
    let explained = waits_because(&stack, last, "credential poor").await;
    assert!(explained["next"].as_i64().is_some(), "{explained}");
    let stranger = jobs(&stack, "org-0003", 1).await[0];
    waits_because(&stack, stranger, "no credential").await;
    let left = async |org: &str| {
        let url = format!("{}/_control/jobs?org={org}&state=queued", stack.github_url);
        number(&stack.get(&url).await.unwrap(), "/total_count")
    };
    until("the other credential's jobs run", async || left("org-0002").await == 0).await;
    assert!(left("org-0001").await > 25, "10 calls make 10 runners at most");

    // Another token for it, in the file: the credential's clients are made anew, and GitHub counts an hour of its own
    // for them.
    control(&stack, "tokens", &json!({ "token": "new", "rate_limit": 10_000 })).await;
    let rich = "{name: rich, owners: [org-0002], token_file: plenty}";
    std::fs::write(
        &file,
        format!("credentials:\n- {{name: renewed, owners: [ORG-0001], token: new}}\n- {rich}\n"),
    )
    .unwrap();
    until("the jobs run with the new credential", async || {
        left("org-0001").await == 0
    })
    .await;

    // And one more, for an owner that nobody served: it need not wait until it is tried again.
    let late = "{name: late, owners: [org-0003], token: new}";
    std::fs::write(
        &file,
        format!("credentials:\n- {{name: renewed, owners: [ORG-0001], token: new}}\n- {rich}\n- {late}\n"),
    )
    .unwrap();
    until("the stranger's job runs", async || left("org-0003").await == 0).await;
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_several_credentials_goes_on_with_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials.yaml");
    let write = |names: &[&str]| {
        let entries: String = names
            .iter()
            .map(|name| format!("- {{name: {name}, owners: [org-0001], token: {name}}}\n"))
            .collect();
        std::fs::write(
            &file,
            format!("credentials:\n{entries}- {{name: rest, owners: ['*'], token: large}}\n"),
        )
        .unwrap();
    };
    write(&["small", "large"]);
    let path = file.display().to_string();
    let stack = Stack::start(&options(
        2,
        2,
        &[
            ("GITHUB_CREDENTIALS_FILE", path.as_str()),
            ("ORGANIZATION_BACKOFF", "10m"),
        ],
        &[],
    ))
    .await
    .unwrap();
    for (token, rate_limit) in [("small", 30), ("large", 5000), ("third", 5000)] {
        control(&stack, "tokens", &json!({ "token": token, "rate_limit": rate_limit })).await;
    }
    // More than the first may do in an hour.
    let mut sent = jobs(&stack, "org-0001", 40).await.len() as u64;
    until("the second one goes on", async || succeeded(&stack).await == sent).await;

    // The second one loses the owner, which says nothing of others that it serves.
    control(
        &stack,
        "rights",
        &json!({ "token": "large", "owner": "org-0001", "without": ["owner"] }),
    )
    .await;
    let left = jobs(&stack, "org-0001", 40).await;
    sent += jobs(&stack, "org-0002", 3).await.len() as u64;
    waits_because(&stack, *left.last().unwrap(), "organization org-0001").await;
    until("its other owner's jobs run", async || succeeded(&stack).await >= sent).await;

    write(&["small", "large", "third"]);
    sent += left.len() as u64;
    until("the third one goes on", async || succeeded(&stack).await == sent).await;
    assert_sound(&stack).await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_keep_within_their_window_before_github_has_to_say_so() {
    let env = [("GITHUB_REGISTRATION_LIMIT", "20"), ("MAX_RUNNERS_PER_ORG", "50")];
    let stack = Stack::start(&options(
        2,
        2,
        &env,
        &["--registration-limit", "20", "--rate-limit", "100000"],
    ))
    .await
    .unwrap();
    let many = jobs(&stack, "org-0001", 30).await;
    let few = jobs(&stack, "org-0002", 5).await.len() as u64;
    until("as many as are allowed have run", async || {
        succeeded(&stack).await == 20 + few
    })
    .await;
    let queued = stack
        .get(&format!("{}/_control/jobs?org=org-0001&state=queued", stack.github_url))
        .await
        .unwrap();
    let waiting = queued["jobs"][0]["id"].as_u64().unwrap();
    assert!(many.contains(&waiting));
    let explained = waits_because(
        &stack,
        waiting,
        "orgs/org-0001 has had its 20 registrations of 5 minutes",
    )
    .await;
    assert!(explained["next"].as_i64().is_some(), "{explained}");
    let summary = stack.summary().await.unwrap();
    assert_eq!(
        number(&summary, "/runners/rest_limited"),
        0,
        "GitHub had to refuse: {summary:#}"
    );
    assert_eq!(number(&summary, "/runners/jit_requests"), 20 + few, "{summary:#}");
    stack.stop().await;
}
