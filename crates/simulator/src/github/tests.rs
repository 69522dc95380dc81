//! What the state does, without any network and at times of the test's choosing.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::answer::Answer;
use super::api::Call;
use super::app::{AppState, Caller};
use super::faults::Endpoint;
use super::jobs::{ControlError, JobSpec};
use super::model::{Action, Conclusion, JobState, Ms, Scope};
use super::payload::Site;
use super::sessions::{Order, Polled, Refusal, Watched};
use super::settings::{PayloadStyle, Pick, Settings};
use super::state::Server;
use crate::jit::JitConfig;

mod answers;
mod assignment;
mod callers;
mod runners;

struct World {
    server: Server,
    site: Site,
    now: Ms,
}

fn world_of(settings: Settings) -> World {
    World {
        site: Site::new("http://ghes.test", &settings),
        server: Server::new(settings),
        now: 1_795_340_580_000,
    }
}

fn world() -> World {
    world_of(Settings {
        pick: Pick::Oldest,
        ..Settings::default()
    })
}

impl World {
    fn jobs(&mut self, spec: Value) -> Vec<u64> {
        let spec: JobSpec = serde_json::from_value(spec).unwrap();
        self.server.create_jobs(&spec, self.now).unwrap()
    }

    fn job(&mut self, labels: &[&str]) -> u64 {
        self.jobs(json!({ "org": "org-0001", "repo": "app", "labels": labels, "duration_ms": 1000 }))[0]
    }

    fn rest(
        &mut self,
        endpoint: Endpoint,
        scope: Scope,
        id: Option<u64>,
        body: Value,
        query: &[(&str, &str)],
    ) -> Answer {
        let query: HashMap<String, String> = query
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect();
        let call = Call {
            endpoint,
            caller: Caller::default(),
            scope: Some(scope),
            id,
            path: "/api/v3/x".into(),
            query,
            body: body.to_string().into(),
        };
        self.server.rest(&call, &self.site, None, self.now)
    }

    fn register(&mut self, scope: Scope, name: &str, labels: &[&str]) -> Answer {
        self.rest(
            Endpoint::GenerateJitconfig,
            scope,
            None,
            json!({ "name": name, "runner_group_id": 1, "labels": labels }),
            &[],
        )
    }

    /// Registers a runner in org-0001 and connects it; returns its id and session.
    fn runner(&mut self, name: &str, labels: &[&str]) -> (u64, String) {
        let jit = jit(&self.register(org(), name, labels));
        let welcome = self.server.connect(&jit, self.now).unwrap();
        (jit.runner_id, welcome.session)
    }

    fn poll(&mut self, session: &str) -> Option<u64> {
        match self.server.poll(session, self.now) {
            Polled::Job(Order { job_id, .. }) => Some(job_id),
            Polled::Nothing | Polled::Gone => None,
        }
    }

    fn state(&self, job: u64) -> JobState {
        self.server.job(job).unwrap().state
    }

    fn actions(&mut self) -> Vec<Action> {
        self.server
            .take_outbox()
            .iter()
            .map(|delivery| delivery.action)
            .collect()
    }

    fn pass(&mut self, ms: Ms) {
        self.now += ms;
        self.server.tick(self.now);
    }
}

fn org() -> Scope {
    Scope::Organization("org-0001".into())
}

fn jit(answer: &Answer) -> JitConfig {
    assert_eq!(answer.status, 201, "{answer:?}");
    JitConfig::decode(answer.body.as_ref().unwrap()["encoded_jit_config"].as_str().unwrap()).unwrap()
}
