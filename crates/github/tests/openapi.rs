//! The client against GitHub's own description, for each version at hand: every request that it makes is one that
//! GitHub describes, and GitHub's own examples are read.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Mock, Reply, TOKEN};
use jit_github::openapi::{Version, examples, validate_request, validate_response};
use jit_github::{Asked, Deletion, Error, HookAddress, JitRequest, JobStatus, Lookup, RunStatus, RunnerStatus, Scope};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

fn scopes() -> [Scope; 3] {
    ["orgs/acme", "repos/octo-user/hello.world", "enterprises/big-co"].map(|scope| scope.parse().unwrap())
}

fn request() -> JitRequest {
    JitRequest {
        name: "jit-runner-1-1".into(),
        runner_group_id: 1,
        labels: vec!["self-hosted".into(), "code-linux".into()],
        work_folder: Some("_work".into()),
    }
}

/// GitHub's examples of jobs lack `created_at`, which its schema requires.
fn complete(mut example: Value) -> Value {
    let jobs = example.get_mut("jobs").and_then(Value::as_array_mut).map(|jobs| {
        jobs.iter_mut()
            .for_each(|job| job["created_at"] = json!("2020-01-20T17:42:00Z"))
    });
    if jobs.is_none() && example.get("run_id").is_some() {
        example["created_at"] = json!("2020-01-20T17:42:00Z");
    }
    example
}

/// A server that answers with GitHub's examples, and notes what GitHub does not describe, on either side.
async fn github(version: Version, status: Option<u16>) -> (Mock, Arc<Mutex<Vec<String>>>) {
    let wrong = Arc::<Mutex<Vec<String>>>::default();
    let notes = wrong.clone();
    let mock = Mock::start(move |request| {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let mut notes = notes.lock().unwrap();
        if let Err(why) = validate_request(version, method, path, request.query.as_deref(), request.body.as_ref()) {
            notes.push(why);
        }
        for (name, value) in [
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", "2022-11-28"),
            ("authorization", &format!("Bearer {TOKEN}")),
        ] {
            if request.header(name) != Some(value) {
                notes.push(format!("{method} {path}: {name}: {:?}", request.header(name)));
            }
        }
        let status = status.unwrap_or(match method {
            "POST" if path.ends_with("/attempts") => 202,
            "POST" => 201,
            "DELETE" => 204,
            _ => 200,
        });
        let example = examples(version, method, path, status)
            .unwrap_or_default()
            .into_iter()
            .next()
            .filter(|example| !example.is_null())
            .map(complete);
        let refusal = json!({"message": "What it says", "documentation_url": "https://docs.github.com/rest"});
        let body = if status >= 400 {
            Some(refusal)
        } else {
            example.or((status == 202).then(|| json!({})))
        };
        if let Err(why) = validate_response(version, method, path, status, body.as_ref()) {
            notes.push(why);
        }
        body.map_or_else(|| Reply::empty(status), |body| Reply::json(status, &body))
    })
    .await;
    (mock, wrong)
}

#[tokio::test]
async fn every_call_is_described_and_every_example_is_read() {
    for version in Version::ALL {
        let (mock, wrong) = github(version, None).await;
        let client = mock.client();
        for scope in scopes() {
            let runner = client
                .generate_jit_config(&scope, &request(), Duration::from_secs(10))
                .await
                .unwrap();
            assert_eq!((runner.id, runner.encoded_jit_config.expose_secret()), (23, "abc123"));

            let runners = client.list_runners(&scope).await.unwrap();
            assert_eq!(runners.iter().map(|r| r.id).collect::<Vec<_>>(), [23, 24]);
            assert_eq!(
                (runners[0].name.as_str(), &runners[0].status, runners[0].busy),
                ("linux_runner", &RunnerStatus::Online, true)
            );
            assert_eq!(runners[1].status, RunnerStatus::Offline);
            assert!(runners[0].labels.contains(&"self-hosted".to_owned()));

            let found = client.find_runner(&scope, "MAC_runner").await.unwrap();
            assert!(matches!(&found, Lookup::Found(runner) if runner.id == 24), "{found:?}");
            assert_eq!(client.find_runner(&scope, "another").await.unwrap(), Lookup::Absent);
            assert_eq!(client.delete_runner(&scope, 23).await.unwrap(), Deletion::Deleted);
            assert_eq!(client.runner_group_id(&scope, "default").await.unwrap(), 1);
        }
        assert_eq!(
            client.runner_group_id(&scopes()[0], "OCTO-runner-group").await.unwrap(),
            2
        );

        let job = client
            .job("octo-user", "hello.world", 399444496)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (job.id, job.run_id, job.status),
            (399444496, 29679449, JobStatus::Completed)
        );
        assert_eq!(
            (job.conclusion.as_deref(), job.runner_id, job.runner_name.as_deref()),
            (Some("success"), Some(1), Some("my runner"))
        );
        assert_eq!(job.completed_at.unwrap().to_string(), "2020-01-20T17:44:39Z");
        assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn what_finds_lost_jobs_is_described_and_every_example_is_read() {
    for version in Version::ALL {
        let (mock, wrong) = github(version, None).await;
        let client = mock.client();
        let [org, repo, _] = scopes();
        for scope in [&org, &repo] {
            let hooks = client.hooks(scope, 1).await.unwrap();
            assert!(
                !hooks.more && hooks.items.len() == 1 && hooks.items[0].active,
                "{hooks:?}"
            );
            assert!(
                hooks.items[0].url.as_deref().unwrap().starts_with("http")
                    && hooks.items[0].events.contains(&"push".to_owned()),
                "{hooks:?}"
            );
        }
        assert!(client.app_hook_url().await.unwrap().unwrap().starts_with("http"));
        for hook in [
            HookAddress::Of(org.clone(), 1),
            HookAddress::Of(repo, 1),
            HookAddress::App,
        ] {
            let deliveries = client.deliveries(&hook, Some("v1_1"), None).await.unwrap();
            let Asked::News { answer: deliveries, .. } = deliveries else {
                panic!("{deliveries:?}")
            };
            assert_eq!(
                (
                    deliveries.items[0].id,
                    deliveries.items[0].succeeded(),
                    deliveries.items[0].redelivery
                ),
                (12345678, true, false)
            );
            assert_eq!(
                (
                    deliveries.items[0].event.as_str(),
                    deliveries.items[0].action.as_deref(),
                    &deliveries.cursor
                ),
                ("issues", Some("opened"), &None)
            );
            assert!(deliveries.items[1].redelivery && deliveries.items[1].guid == deliveries.items[0].guid);
            assert!(client.redeliver(&hook, 12345678).await.unwrap());
        }
        for status in RunStatus::ALL {
            assert!(client.may_read_runs("octo-user", "hello.world").await.unwrap());
            let runs = client.runs("octo-user", "hello.world", status, 1).await.unwrap();
            assert_eq!(
                (runs.items[0].id, runs.items[0].repository.full_name.as_str()),
                (30433642, "octocat/Hello-World")
            );
        }
        let jobs = client.run_jobs("octo-user", "hello.world", 29679449, 1).await.unwrap();
        assert_eq!((jobs.items[0].id, jobs.items[0].run_id), (399444496, 29679449));
        assert_eq!(client.organizations(0).await.unwrap().items[0].login, "github");
        let repositories = client.org_repositories("acme", 1).await.unwrap();
        assert_eq!(
            (repositories.items[0].full_name.as_str(), repositories.items[0].public),
            ("octocat/Hello-World", true)
        );
        assert!(repositories.items[0].pushed_at.is_some() && !repositories.items[0].asleep);
        assert_eq!(
            client.installation_repositories("github", 1).await.unwrap().items.len(),
            1
        );
        assert_eq!(client.runners_page(&org, 1).await.unwrap().items.len(), 2);
        assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn refusals_of_githubs_shape_are_read() {
    for version in Version::ALL {
        for (status, is) in [
            (404, (|e| matches!(e, Error::NotFound { .. })) as fn(&Error) -> bool),
            (409, |e| matches!(e, Error::NameTaken { .. })),
            (422, |e| matches!(e, Error::Invalid { .. })),
        ] {
            let (mock, wrong) = github(version, Some(status)).await;
            let client = mock.client();
            for scope in scopes() {
                let error = client
                    .generate_jit_config(&scope, &request(), Duration::from_secs(10))
                    .await
                    .unwrap_err();
                assert!(is(&error), "{error:?}");
                assert!(
                    error
                        .to_string()
                        .ends_with("What it says (https://docs.github.com/rest)"),
                    "{error}"
                );
            }
            if status == 404 {
                assert_eq!(client.delete_runner(&scopes()[0], 1).await.unwrap(), Deletion::NotFound);
                assert_eq!(client.job("o", "r", 1).await.unwrap(), None);
            }
            if status == 422 {
                assert_eq!(client.delete_runner(&scopes()[0], 1).await.unwrap(), Deletion::Busy);
            }
            assert_eq!(*wrong.lock().unwrap(), Vec::<String>::new());
        }
    }
}

const JIT: &str = "/orgs/acme/actions/runners/generate-jitconfig";

#[test]
fn githubs_examples_are_valid() {
    for version in Version::ALL {
        for (method, path, status) in [
            ("POST", JIT, 201),
            ("GET", "/repos/o/r/actions/runners", 200),
            ("GET", "/orgs/o/actions/runner-groups", 200),
            ("GET", "/enterprises/e/actions/runner-groups", 200),
            ("GET", "/repos/o/r/actions/jobs/1", 200),
        ] {
            let examples = examples(version, method, path, status).unwrap();
            assert_eq!(examples.len(), 1, "{method} {path}");
            validate_response(version, method, path, status, Some(&complete(examples[0].clone()))).unwrap();
        }
    }
}

#[test]
fn requests_that_github_would_refuse_or_ignore_are_errors() {
    let good = serde_json::to_value(request()).unwrap();
    for version in Version::ALL {
        let post = |path: &str, query, body: Option<&Value>| validate_request(version, "POST", path, query, body);
        post(JIT, None, Some(&good)).unwrap();
        post(&format!("/api/v3{JIT}"), None, Some(&good)).unwrap();
        for (key, value) in [
            ("labels", json!([])),
            ("labels", json!("x")),
            ("runner_group_id", json!("1")),
            ("group", json!(1)),
            ("name", json!(null)),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            assert!(post(JIT, None, Some(&bad)).is_err(), "{bad}");
        }
        assert!(post(JIT, None, None).is_err());
        assert!(post(JIT, Some("dry=1"), Some(&good)).is_err());
        assert!(post("/orgs/acme/actions/nothing", None, None).is_err());
        assert!(validate_request(version, "PUT", JIT, None, Some(&good)).is_err());
        let runners = "/enterprises/e/actions/runners";
        validate_request(version, "GET", runners, Some("name=a%20b&per_page=100&page=1"), None).unwrap();
        assert!(validate_request(version, "GET", runners, Some("page=one"), None).is_err());
        assert!(validate_request(version, "GET", runners, None, Some(&json!({}))).is_err());
        assert!(validate_request(version, "DELETE", &format!("{runners}/seven"), None, None).is_err());
    }
}

#[test]
fn answers_that_github_would_not_give_are_errors() {
    for version in Version::ALL {
        let path = "/repos/o/r/actions/jobs/1";
        let mut job = complete(examples(version, "GET", path, 200).unwrap().remove(0));
        job["runner_id"] = Value::Null;
        job["conclusion"] = Value::Null;
        validate_response(version, "GET", path, 200, Some(&job)).unwrap();
        for (key, value) in [
            ("status", json!("done")),
            ("created_at", json!("yesterday")),
            ("id", Value::Null),
        ] {
            let mut bad = job.clone();
            bad[key] = value;
            assert!(
                validate_response(version, "GET", path, 200, Some(&bad)).is_err(),
                "{key}"
            );
        }
        let delete = |status, body: Option<Value>| {
            validate_response(version, "DELETE", "/orgs/o/actions/runners/1", status, body.as_ref())
        };
        delete(204, None).unwrap();
        delete(404, Some(json!({"message": "Not Found"}))).unwrap();
        assert!(delete(204, Some(json!({}))).is_err());
        assert!(delete(200, Some(json!({}))).is_err());
        assert!(delete(404, Some(json!({"message": 1}))).is_err());
        assert!(delete(404, Some(json!("Not Found"))).is_err());
        assert!(delete(404, None).is_err());
    }
}
