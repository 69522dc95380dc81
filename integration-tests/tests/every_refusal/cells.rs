//! The table: each step at which the worker asks somebody, times each answer that can come for ever.

use integration_tests::source;
use jit_simulator::github::faults::Endpoint;

use crate::yard::{Asked, End, Refusal, WORDS};

/// What comes in place of what was asked for, as long as one looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// GitHub answers with this status.
    Status(u16),
    /// GitHub says that the hour's calls are used up.
    Limit,
    /// It answers when nobody waits any more.
    Slow,
    /// It does what was asked, and cuts the connection.
    Cut,
    /// It does what was asked, and answers what is no JSON.
    Garbage,
    /// The backend refuses.
    Backend(Refusal),
    /// The runner ends before it had work, or never starts.
    Ends(End),
}

/// Who is asked at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    GitHub(Endpoint),
    Backend(Asked),
    /// Nobody is asked: it is seen how a runner ends.
    Runner,
}

/// What brings the worker to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A queued job.
    Job,
    /// A queued job of a runner group with a name.
    Group,
    /// A queued job, with a GitHub App.
    App,
    /// The answer to the first registration is lost, so it is looked up.
    Lost,
    /// The first pod goes before its Secret comes, so its registration is deleted, and what is left of it.
    Gone,
    /// The first runner ends without work, so GitHub is asked about its job.
    Ended,
    /// The same, and GitHub does not show the job.
    EndedUnseen,
    /// The worker wakes up late over its first runner, which was given up meanwhile.
    Late,
    /// A pod that has ended is there, which the ledger does not know.
    Planted,
    /// Recovery, with a GitHub App where so said.
    Recovery { app: bool },
    /// Recovery, with a registration that nobody owns.
    Stray,
}

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    pub step: String,
    pub side: Side,
    pub way: Way,
    pub answer: Answer,
    /// Classes with a job each.
    pub classes: usize,
}

impl Cell {
    pub fn name(&self) -> String {
        format!("{} × {:?} × {}", self.step, self.answer, self.classes)
    }

    /// Whether a runner cannot be made because of it.
    pub fn stops_jobs(&self) -> bool {
        matches!(self.way, Way::Job | Way::Group | Way::App) && self.side != Side::Backend(Asked::List)
    }

    /// What `jitctl why` has to say of a job that waits because of it.
    pub fn said(&self) -> &'static str {
        match self.answer {
            _ if !self.stops_jobs() => "",
            // An installation that gives no token is none.
            Answer::Status(404) if self.side == Side::GitHub(Endpoint::AccessTokens) => "not installed",
            // It is waited for ever longer, and then not slow any more.
            Answer::Slow if self.side == Side::GitHub(Endpoint::GenerateJitconfig) => "",
            Answer::Slow | Answer::Cut | Answer::Garbage => "GitHub",
            Answer::Limit => "limit",
            Answer::Ends(End::Exit(7)) => "too old",
            Answer::Backend(Refusal::Exists) => "exists",
            Answer::Status(_) | Answer::Ends(_) | Answer::Backend(_) => WORDS,
        }
    }

    /// Whether GitHub shows the repository's runs and not the job, so that it is given up: nobody can tell this from
    /// a job that was deleted.
    pub fn gives_up(&self) -> bool {
        (self.side, self.answer) == (Side::GitHub(Endpoint::GetJob), Answer::Status(404))
    }

    /// Whether what is said is true of everybody who is served with the same credential, or in the same namespace.
    pub fn means_everybody(&self) -> bool {
        match self.answer {
            Answer::Status(401 | 429) | Answer::Limit => true,
            Answer::Backend(refusal) => matches!(refusal, Refusal::Quota | Refusal::Unreachable),
            _ => self.side == Side::Backend(Asked::List),
        }
    }

    /// What may be refused, made and registered in ten minutes: an organization that is away alone is tried at least
    /// every 25 s, and of 200 classes as
    /// many at once as it may have runners, until three have spoken for it.
    pub fn most(&self) -> u64 {
        match (self.side, self.answer) {
            // Nobody is reached, so it costs nothing to try; the whole waits, so it is tried every few seconds.
            (Side::Backend(Asked::Start), Answer::Backend(Refusal::Unreachable)) => 150,
            _ if self.classes > 1 => 60,
            _ => 31,
        }
    }

    /// How long it may take until the first job runs after the cause is gone, s.
    pub fn recovers_within(&self) -> u64 {
        match (self.side, self.answer) {
            // The runner's program: a minute, doubling to 16.
            (Side::Runner, _) => 960,
            // A credential that GitHub does not know is tried again after 25 s to 5 min; a new one counts at once.
            (_, Answer::Status(401)) => 300,
            // GitHub has said when; without a word of it, its advice holds (a minute, and more each time).
            (_, Answer::Status(429) | Answer::Limit) => 960,
            // One pod more is tried each QUOTA_INTERVAL.
            (_, Answer::Backend(Refusal::Quota)) => 60,
            _ => 30,
        }
    }
}

const STATUSES: [u16; 7] = [401, 403, 404, 409, 422, 429, 502];
const REFUSALS: [Refusal; 6] = [
    Refusal::Quota,
    Refusal::Refused,
    Refusal::Exists,
    Refusal::Gone,
    Refusal::Unreachable,
    Refusal::Unavailable,
];
const ENDS: [End; 5] = [End::Exit(0), End::Exit(1), End::Exit(7), End::Rejected, End::Stuck];

fn answers(side: Side) -> Vec<Answer> {
    match side {
        Side::GitHub(_) => {
            let others = [Answer::Limit, Answer::Slow, Answer::Cut, Answer::Garbage];
            STATUSES.map(Answer::Status).into_iter().chain(others).collect()
        }
        Side::Backend(Asked::Start | Asked::Deliver) => REFUSALS.map(Answer::Backend).into(),
        Side::Backend(_) => [Refusal::Refused, Refusal::Unreachable, Refusal::Unavailable]
            .map(Answer::Backend)
            .into(),
        Side::Runner => ENDS.map(Answer::Ends).into(),
    }
}

/// Who is asked at this step, and what leads there.
fn way_to(step: &str) -> Option<(Side, Way)> {
    use Endpoint::{
        AccessTokens, AppHook, DeleteRunner, GenerateJitconfig, GetJob, Installations, ListDeliveries, ListGroups,
        ListHooks, ListOrganizations, ListRepositories, ListRunJobs, ListRunners, ListRuns, Redeliver,
    };
    let recovery = Way::Recovery { app: false };
    let github = |endpoint, way| Some((Side::GitHub(endpoint), way));
    match step {
        "provision.token_ready" => github(AccessTokens, Way::App),
        "provision.group_found" => github(ListGroups, Way::Group),
        "provision.runner_registered" => github(GenerateJitconfig, Way::Job),
        "provision.pod_created" => Some((Side::Backend(Asked::Start), Way::Job)),
        "provision.configuration_delivered" => Some((Side::Backend(Asked::Deliver), Way::Job)),
        "provision.late_runner_deleted" => github(DeleteRunner, Way::Late),
        "provision.late_pod_stopped" => Some((Side::Backend(Asked::Stop), Way::Late)),
        "upkeep.registration_found" => github(ListRunners, Way::Lost),
        "upkeep.registration_deleted" => github(DeleteRunner, Way::Gone),
        "upkeep.pod_stopped" => Some((Side::Backend(Asked::Stop), Way::Gone)),
        "upkeep.job_asked" => github(GetJob, Way::Ended),
        "upkeep.repository_asked" => github(ListRuns, Way::EndedUnseen),
        "observe.remains_removed" => Some((Side::Backend(Asked::Stop), Way::Ended)),
        "reconcile.listed" => Some((Side::Backend(Asked::List), Way::Job)),
        "reconcile.stopped" => Some((Side::Backend(Asked::Stop), Way::Planted)),
        "recover.newest_runs_listed" => github(ListRuns, recovery),
        "recover.runs_listed" => github(ListRuns, recovery),
        "recover.jobs_listed" => github(ListRunJobs, recovery),
        "recover.repositories_listed" => github(ListRepositories, recovery),
        "recover.hooks_listed" => github(ListHooks, recovery),
        "recover.app_hook_read" => github(AppHook, Way::Recovery { app: true }),
        "recover.organizations_listed" => github(ListOrganizations, recovery),
        "recover.installations_listed" => github(Installations, Way::Recovery { app: true }),
        "recover.runners_listed" => github(ListRunners, recovery),
        "recover.stray_deleted" => github(DeleteRunner, Way::Stray),
        "recover.deliveries_listed" => github(ListDeliveries, recovery),
        "recover.redelivered" => github(Redeliver, recovery),
        _ => None,
    }
}

/// Every step at which GitHub or the backend is asked, times every answer; where a job waits for it, with one class
/// and with 200.
pub fn all() -> Vec<Cell> {
    let outward = |call: &str| call.starts_with("client.") || call.starts_with("backend.");
    let asks = source::effects().into_iter().filter(|effect| outward(&effect.call));
    let mut steps: Vec<String> = asks.filter_map(|effect| effect.step).collect();
    steps.sort();
    let unknown: Vec<_> = steps.iter().filter(|step| way_to(step).is_none()).collect();
    assert!(
        unknown.is_empty(),
        "say in `way_to` what leads to these steps, and who is asked there: {unknown:?}"
    );
    let ends = ("observe.released".to_owned(), (Side::Runner, Way::Job));
    let steps = steps
        .into_iter()
        .filter_map(|step| way_to(&step).map(|way| (step, way)))
        .chain([ends]);
    let mut cells = Vec::new();
    for (step, (side, way)) in steps {
        for answer in answers(side) {
            let cell = Cell {
                step: step.clone(),
                side,
                way,
                answer,
                classes: 1,
            };
            if cell.stops_jobs() {
                cells.push(Cell {
                    classes: 200,
                    ..cell.clone()
                });
            }
            cells.push(cell);
        }
    }
    cells
}
