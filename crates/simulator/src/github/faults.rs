//! Faults: what an operator of the simulator asks to go wrong.
//!
//! Each has a kind and filters: owner, repository, endpoint, action. Draws come from the server's seeded generator.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::model::{Action, Ms, Scope};
use crate::faults::{FaultList, Tallied, Tally};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The webhook is never sent.
    WebhookDrop,
    /// It is sent twice, with one delivery id.
    WebhookDouble,
    /// It is sent `delay_ms` late.
    WebhookDelay,
    /// It is sent after a random part of `delay_ms`, so that webhooks overtake each other.
    WebhookShuffle,
    /// The REST call is answered with `status`, and not carried out unless `performed`.
    RestStatus,
    /// It is answered `delay_ms` late.
    RestSlow,
    /// It is carried out, and the connection is cut before the answer.
    RestCut,
    /// It is carried out, and the answer is no JSON.
    RestGarbage,
    /// The runners' list is read while runners come and go: a page after the first begins one runner too late.
    RunnersShift,
    /// A runner never gets a session, however often it tries.
    RunnerNeverConnects,
    /// A runner's listener ends with `exit_code` (7: too old for GitHub) and the words `message` each time that it
    /// wants a session.
    RunnerEnds,
    /// A runner dies in the middle of its job.
    RunnerDies,
}

/// A REST call of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// POST …/actions/runners/generate-jitconfig
    GenerateJitconfig,
    /// GET …/actions/runners
    ListRunners,
    /// GET …/actions/runners/{id}
    GetRunner,
    /// DELETE …/actions/runners/{id}
    DeleteRunner,
    /// GET …/actions/runner-groups
    ListGroups,
    /// GET …/actions/jobs/{id}
    GetJob,
    /// GET …/actions/runs
    ListRuns,
    /// GET …/actions/runs/{id}/jobs
    ListRunJobs,
    /// GET …/hooks
    ListHooks,
    /// GET /app/hook/config
    AppHook,
    /// GET …/hooks/{id}/deliveries
    ListDeliveries,
    /// POST …/deliveries/{id}/attempts
    Redeliver,
    /// GET /organizations
    ListOrganizations,
    /// GET /orgs/{org}/repos
    ListRepositories,
    /// GET /app/installations
    Installations,
    /// GET /orgs/{org}/installation
    OrgInstallation,
    /// GET /users/{user}/installation
    UserInstallation,
    /// POST /app/installations/{id}/access_tokens
    AccessTokens,
    /// GET /installation/repositories
    InstallationRepositories,
    /// GET /meta
    Meta,
    /// GET /rate_limit
    RateLimit,
}

impl Endpoint {
    /// Its name in faults and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::GenerateJitconfig => "generate_jitconfig",
            Self::ListRunners => "list_runners",
            Self::GetRunner => "get_runner",
            Self::DeleteRunner => "delete_runner",
            Self::ListGroups => "list_groups",
            Self::GetJob => "get_job",
            Self::ListRuns => "list_runs",
            Self::ListRunJobs => "list_run_jobs",
            Self::ListHooks => "list_hooks",
            Self::AppHook => "app_hook",
            Self::ListDeliveries => "list_deliveries",
            Self::Redeliver => "redeliver",
            Self::ListOrganizations => "list_organizations",
            Self::ListRepositories => "list_repositories",
            Self::Installations => "installations",
            Self::OrgInstallation => "org_installation",
            Self::UserInstallation => "user_installation",
            Self::AccessTokens => "access_tokens",
            Self::InstallationRepositories => "installation_repositories",
            Self::Meta => "meta",
            Self::RateLimit => "rate_limit",
        }
    }
}

/// A fault, as the control API takes and shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub fault: Kind,
    /// Only for this owner (a login or an enterprise's slug).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Only for this repository, by its name without the owner: calls at it, its webhooks, runners registered at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// Only for this REST call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Endpoint>,
    /// Only for webhooks of this action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// From 0 to 1.
    #[serde(default = "crate::faults::always")]
    pub probability: f64,
    /// How many times it may still strike; without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Status of `rest_status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Seconds in the `retry-after` header of `rest_status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// `rest_status` 403 or 429 with `x-ratelimit-remaining: 0` and a reset after `retry_after` (60) seconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rate_limit: bool,
    /// `rest_status` carries the call out all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub performed: bool,
    /// Exit code of `runner_ends`; 7 without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Message of `rest_status` or `runner_ends`, in place of GitHub's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Milliseconds of the delays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<Ms>,
    /// How often it struck; only shown.
    #[serde(default)]
    pub struck: u64,
    /// Its number; only shown.
    #[serde(default)]
    pub id: u64,
}

impl Tallied for Fault {
    fn tally(&mut self) -> Tally<'_> {
        Tally {
            id: &mut self.id,
            struck: &mut self.struck,
            probability: self.probability,
            count: &mut self.count,
        }
    }
}

impl Fault {
    /// Why this fault makes no sense, if it makes none.
    pub fn complaint(&self) -> Option<&'static str> {
        let delayed = matches!(self.fault, Kind::WebhookDelay | Kind::WebhookShuffle | Kind::RestSlow);
        match () {
            () if !(0.0..=1.0).contains(&self.probability) => Some("probability must be from 0 to 1"),
            () if delayed && self.delay_ms.is_none() => Some("delay_ms is missing"),
            () if self.fault == Kind::RestStatus && !self.status.is_some_and(|s| (400..600).contains(&s)) => {
                Some("status must be from 400 to 599")
            }
            () => None,
        }
    }

    fn fits(&self, what: &Occasion<'_>) -> bool {
        self.fault == what.kind
            && self.org.as_ref().is_none_or(|org| org.eq_ignore_ascii_case(what.owner))
            && self
                .repo
                .as_ref()
                .is_none_or(|repo| what.repo.is_some_and(|its| its.eq_ignore_ascii_case(repo)))
            && self.endpoint.is_none_or(|endpoint| what.endpoint == Some(endpoint))
            && self.action.is_none_or(|action| what.action == Some(action))
    }
}

/// An occasion for a fault to strike.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    kind: Kind,
    owner: &'a str,
    repo: Option<&'a str>,
    endpoint: Option<Endpoint>,
    action: Option<Action>,
}

/// What becomes of a webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WebhookFate {
    /// How many times it is sent.
    pub copies: u8,
    /// How late.
    pub delay: Ms,
}

/// What becomes of a REST call.
#[derive(Clone, Debug, Default)]
pub struct RestFate {
    /// How late it is answered.
    pub delay: Ms,
    /// What else happens to it.
    pub outcome: Option<Fault>,
}

/// The list of faults.
pub type Faults = FaultList<Fault>;

impl FaultList<Fault> {
    fn draw(&mut self, rng: &mut Rng, what: &Occasion<'_>) -> Option<Fault> {
        self.strike(rng, |fault| fault.fits(what))
    }

    /// Draws what becomes of a webhook.
    pub fn webhook(&mut self, rng: &mut Rng, owner: &str, repo: &str, action: Action) -> WebhookFate {
        let mut draw = |rng: &mut Rng, kind| {
            self.draw(
                rng,
                &Occasion {
                    kind,
                    owner,
                    repo: Some(repo),
                    endpoint: None,
                    action: Some(action),
                },
            )
        };
        if draw(rng, Kind::WebhookDrop).is_some() {
            return WebhookFate::default();
        }
        let copies = if draw(rng, Kind::WebhookDouble).is_some() { 2 } else { 1 };
        let delay = draw(rng, Kind::WebhookDelay)
            .and_then(|fault| fault.delay_ms)
            .unwrap_or(0);
        let spread = draw(rng, Kind::WebhookShuffle)
            .and_then(|fault| fault.delay_ms)
            .map_or(0, |most| rng.u64(0..=most));
        WebhookFate {
            copies,
            delay: delay + spread,
        }
    }

    /// Draws what becomes of a REST call.
    pub fn rest(&mut self, rng: &mut Rng, scope: Option<&Scope>, endpoint: Endpoint) -> RestFate {
        let (owner, repo) = (scope.map_or("", Scope::owner), scope.and_then(Scope::repo));
        let mut draw = |rng: &mut Rng, kind| {
            self.draw(
                rng,
                &Occasion {
                    kind,
                    owner,
                    repo,
                    endpoint: Some(endpoint),
                    action: None,
                },
            )
        };
        let delay = draw(rng, Kind::RestSlow).and_then(|fault| fault.delay_ms).unwrap_or(0);
        let outcome = [Kind::RestStatus, Kind::RestCut, Kind::RestGarbage]
            .into_iter()
            .find_map(|kind| draw(rng, kind));
        RestFate { delay, outcome }
    }

    /// Draws whether this happens to a runner, or to a list of them.
    pub fn runner(&mut self, rng: &mut Rng, scope: &Scope, kind: Kind) -> Option<Fault> {
        self.draw(
            rng,
            &Occasion {
                kind,
                owner: scope.owner(),
                repo: scope.repo(),
                endpoint: None,
                action: None,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn one_seed_one_course() {
        let course = |seed| {
            let (mut faults, mut rng) = (Faults::default(), Rng::with_seed(seed));
            faults.add(fault(r#"{"fault":"webhook_drop","probability":0.3}"#));
            faults.add(fault(r#"{"fault":"webhook_shuffle","delay_ms":500,"probability":0.5}"#));
            (0..200)
                .map(|_| faults.webhook(&mut rng, "acme", "app", Action::Queued))
                .collect::<Vec<_>>()
        };
        assert_eq!(course(1), course(1));
        assert_ne!(course(1), course(2));
        let dropped = course(1).iter().filter(|fate| fate.copies == 0).count();
        assert!((40..80).contains(&dropped), "{dropped} of 200 dropped");
    }

    #[test]
    fn filters_and_counts() {
        let (mut faults, mut rng) = (Faults::default(), Rng::with_seed(1));
        faults.add(fault(
            r#"{"fault":"webhook_drop","org":"Acme","action":"completed","count":1}"#,
        ));
        assert_eq!(faults.webhook(&mut rng, "acme", "app", Action::Queued).copies, 1);
        assert_eq!(faults.webhook(&mut rng, "other", "app", Action::Completed).copies, 1);
        assert_eq!(faults.webhook(&mut rng, "acme", "app", Action::Completed).copies, 0);
        assert_eq!(faults.webhook(&mut rng, "acme", "app", Action::Completed).copies, 1);
        assert_eq!((faults.list()[0].struck, faults.list()[0].count), (1, Some(0)));
        faults.clear(Some(1));
        assert!(faults.list().is_empty());
        faults.add(fault(
            r#"{"fault":"rest_status","status":403,"org":"acme","repo":"Site"}"#,
        ));
        let mut struck = |scope: Option<Scope>| {
            faults
                .rest(&mut rng, scope.as_ref(), Endpoint::GenerateJitconfig)
                .outcome
                .is_some()
        };
        assert!(struck(Some(Scope::Repository("acme".into(), "site".into()))));
        assert!(!struck(Some(Scope::Repository("acme".into(), "app".into()))));
        assert!(!struck(Some(Scope::Organization("acme".into()))) && !struck(None));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(fault(r#"{"fault":"rest_status"}"#).complaint().is_some());
        assert!(fault(r#"{"fault":"rest_slow"}"#).complaint().is_some());
        assert!(fault(r#"{"fault":"rest_cut","probability":2}"#).complaint().is_some());
        assert!(serde_json::from_str::<Fault>(r#"{"fault":"rest_cut","probabilty":1}"#).is_err());
    }
}
