//! Whatever refuses for ever: every step at which the worker asks GitHub or the backend, times every answer that can
//! repeat, for ten minutes.
//!
//! The table is made from the worker's source: a step that is new has to say what leads to it. Each cell has a sick
//! organization and a healthy one, the
//! worker's own loops, and the ledger's clock in the test's hand. What is refused costs little, says so, holds back
//! nobody else, and is over soon
//! after its cause. `CELL=provision.` plays only those whose name begins so, and prints them.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use futures::{FutureExt as _, StreamExt as _};
use jit_backend::RunnerSpec;
use jit_simulator::github::faults::Endpoint;
use serde_json::json;

mod cells;
mod rig;
mod yard;

use cells::{Answer, Cell, Side, Way};
use rig::{Rig, TIMEOUT};
use yard::{Asked, End, Refusal, WORDS};

/// Cells that are played at once: those that wait for a time-out most of the time, and the others.
const AT_ONCE: [usize; 2] = [24, 4];

/// What a cell came to.
struct Outcome {
    refused: u64,
    pods: u64,
    registrations: u64,
    why: String,
    /// Seconds from the end of the cause until a runner of the sick organization runs.
    recovered: Option<u64>,
    broken: Vec<String>,
}

/// Has the cell's answer begin.
fn begin(rig: &Rig, cell: &Cell) {
    let (endpoint, asked) = match cell.side {
        Side::GitHub(endpoint) => (Some(endpoint), None),
        Side::Backend(asked) => (None, Some(asked)),
        Side::Runner => (None, None),
    };
    // What no organization is named in is asked for all of them.
    let nameless = [
        Endpoint::AccessTokens,
        Endpoint::AppHook,
        Endpoint::ListOrganizations,
        Endpoint::Installations,
    ];
    let org = endpoint.filter(|endpoint| !nameless.contains(endpoint)).map(|_| "sick");
    match cell.answer {
        Answer::Status(status) => rig.fault(json!({ "fault": "rest_status", "org": org, "endpoint": endpoint,
            "status": status, "message": WORDS })),
        Answer::Limit => {
            rig.fault(
                json!({ "fault": "rest_status", "org": org, "endpoint": endpoint, "status": 403,
                "rate_limit": true, "retry_after": 30 }),
            );
        }
        Answer::Slow => rig.fault(json!({ "fault": "rest_slow", "org": org, "endpoint": endpoint,
            "delay_ms": 4 * TIMEOUT.as_millis() as u64 })),
        Answer::Cut => rig.fault(json!({ "fault": "rest_cut", "org": org, "endpoint": endpoint })),
        Answer::Garbage => rig.fault(json!({ "fault": "rest_garbage", "org": org, "endpoint": endpoint })),
        Answer::Backend(refusal) => rig.yard.refuse(
            asked.unwrap(),
            refusal,
            if asked == Some(Asked::List) { "" } else { "sick" },
            u64::MAX,
        ),
        Answer::Ends(end) => rig.yard.end(end, "sick", u64::MAX),
    }
}

/// Prepares what leads to the cell's step.
async fn prepare(rig: &Rig, cell: &Cell) {
    match cell.way {
        Way::Lost => {
            rig.fault(json!({ "fault": "rest_cut", "org": "sick", "endpoint": "generate_jitconfig", "count": 1 }))
        }
        Way::Gone => rig.yard.refuse(Asked::Deliver, Refusal::Gone, "sick", 1),
        Way::Ended => rig.yard.end(End::Exit(1), "sick", 1),
        Way::EndedUnseen => {
            rig.yard.end(End::Exit(1), "sick", 1);
            rig.fault(
                json!({ "fault": "rest_status", "org": "sick", "endpoint": "get_job", "status": 404,
                "count": 1_000_000 }),
            );
        }
        Way::Late => {
            let (ledger, clock) = (rig.worker.ledger.clone(), rig.clock());
            let late = move || {
                async move {
                    clock.fetch_add(15 * 60_000, Ordering::Relaxed);
                    ledger.due(64, Duration::from_secs(60)).await.unwrap();
                }
                .boxed()
            };
            rig.yard.delay_next_delivery(late);
        }
        Way::Planted => {
            let labels = vec!["code-linux".to_owned()];
            let spec = RunnerSpec {
                name: "jit-7-1".into(),
                org: "sick".into(),
                scope: "orgs/sick".into(),
                group: "default".into(),
                profile: "default".into(),
                labels,
                job: 7,
            };
            rig.yard.plant(spec);
        }
        Way::Job | Way::Group | Way::App | Way::Recovery { .. } => {}
        Way::Stray => rig.stray("sick").await,
    }
}

async fn play(cell: &Cell) -> Outcome {
    let app = matches!(cell.way, Way::App | Way::Recovery { app: true });
    let rig = Rig::start(app).await;
    let recovery = matches!(cell.way, Way::Recovery { .. } | Way::Stray);
    let mut broken = Vec::new();
    // One of the healthy first: nobody's first call is looked at.
    healthy(&rig, "at first", &mut broken).await;
    prepare(&rig, cell).await;
    begin(&rig, cell);
    let group = if cell.way == Way::Group { "builders" } else { "default" };
    let mut jobs = Vec::new();
    for number in 0..cell.classes {
        jobs.push(
            rig.job("sick", group, (cell.classes > 1).then(|| format!("class-{number}")))
                .await,
        );
    }
    rig.settle().await;
    // Recovery has work each minute, everything else at any time.
    let step = if recovery { 60 } else { 10 };
    let mut why = String::new();
    for second in (step..=600).step_by(step) {
        rig.pass(step as i64).await;
        if second % 60 == 0 {
            // What is under way again just now says so, and not why it failed before.
            for job in [jobs[0], jobs[jobs.len() - 1]] {
                let told = rig.why(job).await.why;
                why = if told.contains(cell.said()) || why.is_empty() {
                    told
                } else {
                    why
                };
            }
            rig.minute(recovery).await;
        }
        if second % 240 == 60 && !cell.means_everybody() {
            healthy(&rig, &format!("after {second} s"), &mut broken).await;
        }
    }
    let (refused, pods, registrations) = (rig.refused(), rig.yard.started("sick"), rig.registrations("sick"));
    // The cause goes away.
    rig.github.with(|server, _| server.faults.clear(None));
    rig.yard.heal();
    let mut recovered = None;
    for second in 0..=cell.recovers_within() {
        if rig.yard.running("sick") > 0 {
            recovered = Some(second);
            break;
        }
        rig.pass(1).await;
    }
    let findings = rig.worker.ledger.doctor().await.unwrap().findings;
    if !findings.is_empty() {
        broken.push(format!("doctor: {findings:?}"));
    }
    Outcome {
        refused,
        pods,
        registrations,
        why,
        recovered,
        broken,
    }
}

/// Another organization's job gets its runner within a second.
async fn healthy(rig: &Rig, when: &str, broken: &mut Vec<String>) {
    let job = rig.job("healthy", "default", None).await;
    rig.settle().await;
    if !rig.yard.was_delivered(job) {
        rig.pass(1).await;
    }
    if !rig.yard.was_delivered(job) {
        broken.push(format!(
            "another organization's job waits {when}: {}",
            rig.why(job).await.why
        ));
    }
}

impl Outcome {
    fn judge(&mut self, cell: &Cell) {
        let most = cell.most();
        for (what, count) in [
            ("refused calls", self.refused),
            ("pods", self.pods),
            ("registrations", self.registrations),
        ] {
            if count > most {
                self.broken.push(format!("{count} {what}, at most {most}"));
            }
        }
        if self.refused == 0 {
            self.broken.push("the step was not reached".into());
        }
        if cell.gives_up() != self.recovered.is_none() {
            self.broken.push(format!(
                "a runner within {} s of the cause's end: {:?}",
                cell.recovers_within(),
                self.recovered
            ));
        }
        if !self.why.contains(cell.said()) {
            self.broken.push(format!("`why` does not say {:?}", cell.said()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_refused_for_ever_costs_little_and_nobody_else() {
    let wanted = std::env::var("CELL").unwrap_or_default();
    let cells: Vec<Cell> = cells::all()
        .into_iter()
        .filter(|cell| cell.name().starts_with(&wanted))
        .collect();
    let (slow, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(|cell| cell.answer == Answer::Slow);
    let play = |cell: Cell| async move {
        let began = std::time::Instant::now();
        let mut outcome = play(&cell).await;
        outcome.judge(&cell);
        (cell, outcome, began.elapsed())
    };
    let [slow, others] = [(slow, AT_ONCE[0]), (others, AT_ONCE[1])]
        .map(|(cells, at_once)| futures::stream::iter(cells).map(play).buffer_unordered(at_once));
    let mut report = String::new();
    let mut failed = 0;
    let mut played = slow.chain(others);
    while let Some((cell, outcome, took)) = played.next().await {
        let Outcome {
            refused,
            pods,
            registrations,
            why,
            recovered,
            broken,
        } = outcome;
        let line = format!(
            "{:<55} refused {refused:>3}, pods {pods:>3}, registrations {registrations:>3}, recovered {recovered:?} \
             ({:.1} s)",
            cell.name(),
            took.as_secs_f64()
        );
        println!(
            "{line}\n      {why}{}",
            broken
                .iter()
                .map(|words| format!("\n      BROKEN: {words}"))
                .collect::<String>()
        );
        if !broken.is_empty() {
            failed += 1;
            write!(report, "\n{line}\n      why: {why}\n      {}", broken.join("\n      ")).unwrap();
        }
    }
    assert!(failed == 0, "{failed} cells:{report}");
}
