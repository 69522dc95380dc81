//! What can happen, as data: small, so that a failing sequence reads well, and picked by index, so that it shrinks.

use std::time::Duration;

use jit_core::{
    event::Action,
    ledger::{AnswerStatus, BackOff, Deregistration, Growth, Hold, Needs, Observation, Registration, Silence, Subject},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Organizations of the world, one of them a user's repository.
pub const ORGS: [&str; 4] = ["Acme", "globex", "Initech", "Octo-Cat/hello"];
/// Jobs of the world; the last two do not fit into a Lua number.
pub const JOBS: [u64; 9] = [1, 2, 3, 4, 5, 6, 7, 9_007_199_254_740_993, 9_223_372_036_854_775_807];
/// This one's labels are other runners'.
pub const FOREIGN: u8 = 6;
/// Classes of each organization: two profiles, two groups, and one that registers with the enterprise.
pub const CLASSES: u8 = 4;

/// What passes at once: exactly to the delays and deadlines of the default configuration, and a little beyond.
const TIMES: [i64; 13] = [
    0, 1, 500, 5000, 60_000, 60_000, 61_000, 120_000, 300_000, 600_000, 601_000, 3_600_000, 21_600_000,
];

/// A runner, by its place among those it is picked from.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// Any live one.
    Live(u8),
    /// A live one that is being made.
    Reserved(u8),
    /// A live one of the job's organization.
    Fitting(u8),
    /// One that is gone.
    Gone(u8),
    /// One that the ledger has forgotten with its data, or never knew.
    Stranger(u8),
}

/// A login as it is written: as GitHub does, in upper or in lower case.
#[derive(Clone, Copy, Debug)]
pub struct Spelt {
    pub org: u8,
    pub case: u8,
}

/// The id of a runner in an event.
#[derive(Clone, Copy, Debug)]
pub enum GithubId {
    Right,
    Wrong,
    None,
}

/// A runner in the backend's list.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub who: Who,
    pub ended: bool,
    pub rejected: bool,
    pub running: bool,
    pub terminating: bool,
    pub spec: bool,
}

#[derive(Clone, Debug)]
pub enum Step {
    Event {
        job: u8,
        action: Action,
        runner: Option<Who>,
        id: GithubId,
        case: u8,
        elsewhere: bool,
        foreign: bool,
        attempt: Option<u32>,
        accepted_ago: i64,
        succeeds: bool,
    },
    Admit {
        after: i64,
    },
    /// A job is queued, and a runner for whichever job comes first gets as far as to wait for work.
    Serve {
        job: u8,
    },
    /// All steps of making a runner, one after the other, until its program runs.
    BringUp(Who),
    Claim {
        who: Who,
        stale: bool,
        /// The one before once more: its answer was lost.
        again: bool,
    },
    Registered {
        who: Who,
        stale: bool,
    },
    Created {
        who: Who,
        stale: bool,
    },
    Fail {
        who: Who,
        stale: bool,
        made: bool,
        registration: Registration,
        back_off: Option<BackOff>,
    },
    Observe {
        what: Observation,
        who: Who,
        gone: Option<Deregistration>,
    },
    Due {
        after: i64,
    },
    /// What a worker does with all that is due: every job in question gets this answer, of every runner to remove this
    /// is seen.
    Upkeep {
        after: i64,
        times: u8,
        status: AnswerStatus,
        what: Observation,
    },
    /// One of the questions that were asked so far, the last one first, answered for the first time or again.
    Answer {
        question: u8,
        status: AnswerStatus,
        runner: Option<Who>,
        id: GithubId,
        succeeds: bool,
    },
    /// One of these questions gets no answer; or, as in `Upkeep`, none does that is due.
    NoAnswer {
        question: u8,
        silence: Silence,
    },
    Silence {
        after: i64,
        times: u8,
        silence: Silence,
    },
    Settle {
        doubt: u8,
    },
    Limits {
        limits: Vec<(Spelt, Option<u64>)>,
        replace: bool,
    },
    Pause {
        org: Spelt,
        minutes: Option<i64>,
    },
    Resume {
        org: Spelt,
    },
    Retry {
        job: u8,
    },
    Configure {
        max_total: u64,
        max_per_org: u64,
    },
    /// The runners named, and all other live ones too where `complete`.
    Reconcile {
        ago: i64,
        seen: Vec<Seen>,
        complete: bool,
    },
    Pass {
        ms: i64,
    },
    /// Redis comes up empty.
    Flush,
    /// Only the epoch is lost.
    LoseEpoch,
    /// A copy of the data is made; and Redis comes up with the last one.
    Save,
    RollBack {
        in_place: bool,
    },
}

/// One random world and what happens in it.
#[derive(Clone, Debug)]
pub struct Case {
    pub max_total: u64,
    pub max_per_org: u64,
    /// Organization and class of each job.
    pub homes: Vec<(u8, u8)>,
    /// A reconcile has run before the first step.
    pub open: bool,
    pub steps: Vec<Step>,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "{} in all, {} each, open {}, homes {:?}",
            self.max_total, self.max_per_org, self.open, self.homes
        )?;
        self.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![8 => any::<u8>().prop_map(Who::Live), 1 => any::<u8>().prop_map(Who::Gone),
        1 => (0..3_u8).prop_map(Who::Stranger)]
}

fn runner() -> impl Strategy<Value = Option<Who>> {
    prop_oneof![
        6 => any::<u8>().prop_map(|n| Some(Who::Fitting(n))),
        1 => who().prop_map(Some),
        1 => any::<u8>().prop_map(|n| Some(Who::Gone(n))),
        1 => Just(None),
    ]
}

fn github_id() -> impl Strategy<Value = GithubId> {
    prop_oneof![6 => Just(GithubId::Right), 1 => Just(GithubId::Wrong), 1 => Just(GithubId::None)]
}

fn spelt() -> impl Strategy<Value = Spelt> {
    (0..4_u8, 0..3_u8).prop_map(|(org, case)| Spelt { org, case })
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.08)
}

fn event(action: Action, runner: impl Strategy<Value = Option<Who>>) -> impl Strategy<Value = Step> {
    let attempt = prop_oneof![10 => Just(Some(1)), 2 => Just(Some(2)), 1 => Just(None)];
    let accepted = select(vec![0_i64, 0, 1, 700, 90_000]);
    (
        job(),
        runner,
        github_id(),
        0..3_u8,
        (rarely(), rarely()),
        attempt,
        accepted,
        any::<bool>(),
    )
        .prop_map(
            move |(job, runner, id, case, (elsewhere, foreign), attempt, accepted_ago, succeeds)| Step::Event {
                job,
                action,
                runner,
                id,
                case,
                elsewhere,
                foreign: foreign != (job == FOREIGN),
                attempt,
                accepted_ago,
                succeeds,
            },
        )
}

/// One job has more of everything, so that long stories happen.
fn job() -> impl Strategy<Value = u8> {
    prop_oneof![2 => Just(0_u8), 5 => 0..9_u8]
}

fn no_runner() -> impl Strategy<Value = Option<Who>> {
    prop_oneof![15 => Just(None), 1 => runner()]
}

fn registration() -> impl Strategy<Value = Registration> {
    select(vec![Registration::None, Registration::Uncertain, Registration::Known])
}

fn seen() -> impl Strategy<Value = Seen> {
    (
        who(),
        prop::bool::weighted(0.3),
        any::<bool>(),
        any::<bool>(),
        prop::bool::weighted(0.25),
        prop::bool::weighted(0.8),
    )
        .prop_map(|(who, ended, rejected, running, terminating, spec)| Seen {
            who,
            ended,
            rejected: ended && rejected,
            running,
            terminating,
            spec,
        })
}

fn maker() -> impl Strategy<Value = Who> {
    prop_oneof![6 => any::<u8>().prop_map(Who::Reserved), 3 => who()]
}

fn back_off() -> impl Strategy<Value = BackOff> {
    use Subject::{Class, Credential, Global, Org, Profile, Scope};
    const CHAINS: [&[Subject]; 7] = [
        &[Class, Org],
        &[Class, Org, Profile],
        &[Scope, Org],
        &[Org, Global],
        &[Org, Credential],
        &[Credential],
        &[Global],
    ];
    let growth = select(vec![
        Growth::Doubles,
        Growth::Patient,
        Growth::Patient,
        Growth::Again,
        Growth::Named,
    ]);
    let needs = select(vec![Needs::Made, Needs::Made, Needs::Started, Needs::Work]);
    let hold = (select(CHAINS.to_vec()), needs, select(vec![1_u64, 30, 600]), growth).prop_map(
        |(chain, needs, first, growth)| {
            let (first, most) = (Duration::from_secs(first), Duration::from_secs(first.max(300)));
            BackOff::Hold(Hold {
                chain,
                needs,
                first,
                most,
                growth,
            })
        },
    );
    prop_oneof![1 => Just(BackOff::Quota), 9 => hold]
}

fn making() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => maker().prop_map(Step::BringUp),
        3 => (maker(), rarely(), prop::bool::weighted(0.4)).prop_map(|(who, stale, again)| Step::Claim { who, stale,
            again }),
        2 => (maker(), rarely()).prop_map(|(who, stale)| Step::Registered { who, stale }),
        2 => (maker(), rarely()).prop_map(|(who, stale)| Step::Created { who, stale }),
        4 => (maker(), rarely(), any::<bool>(), registration(), option::weighted(0.7, back_off()))
            .prop_map(|(who, stale, made, registration, back_off)| Step::Fail { who, stale, made, registration,
                back_off }),
    ]
}

fn observing() -> impl Strategy<Value = Step> {
    let what = select(vec![
        Observation::Started,
        Observation::Note,
        Observation::Outdated,
        Observation::Release,
        Observation::Release,
        Observation::Rejected,
        Observation::Busy,
        Observation::Remove,
        Observation::Force,
        Observation::Postpone,
        Observation::Absent,
    ]);
    let gone = select(vec![
        None,
        None,
        Some(Deregistration::Deleted),
        Some(Deregistration::Absent),
    ]);
    (what, who(), gone).prop_map(|(what, who, gone)| Step::Observe { what, who, gone })
}

fn status() -> impl Strategy<Value = AnswerStatus> {
    use AnswerStatus::{Completed, InProgress, Missing, Queued, Waiting};
    select(vec![Queued, Waiting, InProgress, Completed, Missing, Missing])
}

fn silence() -> impl Strategy<Value = Silence> {
    select(vec![Silence::Unreadable, Silence::Unanswered])
}

fn asking() -> impl Strategy<Value = Step> {
    let removal = select(vec![
        Observation::Busy,
        Observation::Absent,
        Observation::Absent,
        Observation::Postpone,
    ]);
    prop_oneof![
        3 => select(TIMES.to_vec()).prop_map(|after| Step::Due { after }),
        3 => (select(TIMES.to_vec()), 1..5_u8, status(), removal).prop_map(|(after, times, status,
            what)| Step::Upkeep { after, times, status, what }),
        4 => (0..6_u8, status(), runner(), github_id(), any::<bool>())
            .prop_map(|(question, status, runner, id, succeeds)| Step::Answer { question, status, runner, id,
                succeeds }),
        1 => (0..6_u8, silence()).prop_map(|(question, silence)| Step::NoAnswer { question, silence }),
        2 => (select(TIMES.to_vec()), 1..10_u8, silence()).prop_map(|(after, times, silence)| Step::Silence { after,
            times, silence }),
        1 => any::<u8>().prop_map(|doubt| Step::Settle { doubt }),
    ]
}

fn operating() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (vec((spelt(), option::weighted(0.8, 0..4_u64)), 0..3),
            rarely()).prop_map(|(limits, replace)| Step::Limits { limits, replace }),
        2 => (spelt(), option::of(select(vec![0_i64, 1, 60, 360]))).prop_map(|(org, minutes)| Step::Pause { org,
            minutes }),
        2 => spelt().prop_map(|org| Step::Resume { org }),
        3 => job().prop_map(|job| Step::Retry { job }),
        1 => (2..7_u64, 1..4_u64).prop_map(|(max_total, max_per_org)| Step::Configure { max_total, max_per_org }),
    ]
}

fn reconciling() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (select(vec![0_i64, 1, 3000, 700_000]), vec(seen(), 0..4), prop::bool::weighted(0.6))
            .prop_map(|(ago, seen, complete)| Step::Reconcile { ago, seen, complete }),
        1 => Just(Step::Flush),
        1 => Just(Step::LoseEpoch),
        1 => Just(Step::Save),
        1 => any::<bool>().prop_map(|in_place| Step::RollBack { in_place }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => event(Action::Queued, no_runner()),
        2 => event(Action::Waiting, no_runner()),
        5 => event(Action::InProgress, runner()),
        3 => event(Action::Completed, runner()),
        2 => event(Action::Completed, no_runner()), // cancelled before it began
        8 => select(vec![0, 0, 0, 60_000, 120_000]).prop_map(|after| Step::Admit { after }),
        4 => job().prop_map(|job| Step::Serve { job }),
        9 => making(),
        5 => observing(),
        8 => asking(),
        4 => operating(),
        4 => reconciling(),
        5 => select(TIMES.to_vec()).prop_map(|ms| Step::Pass { ms }),
    ]
}

pub fn case() -> impl Strategy<Value = Case> {
    // Half of the jobs are of one organization, so that its limit is met.
    let home = (prop_oneof![Just(0_u8), 0..4_u8], prop_oneof![Just(0_u8), 0..CLASSES]);
    (
        3..7_u64,
        1..4_u64,
        vec(home, 9),
        prop::bool::weighted(0.9),
        vec(step(), 1..50),
    )
        .prop_map(|(max_total, max_per_org, homes, open, steps)| Case {
            max_total,
            max_per_org,
            homes,
            open,
            steps,
        })
}
