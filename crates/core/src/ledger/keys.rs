//! The keys of the ledger and of its streams, each with its type and its content. Rust names no key outside this file,
//! and the scripts name none that is not declared here: `tests/keys.rs` reads both.
//!
//! Times are ms since 1970 by Redis's clock. Logins stand in keys as GitHub writes them. A mirror is for people:
//! admission never reads it. A `subject` is what can back off: [`of_class`], [`of_scope`], [`of_org`], [`of_profile`],
//! [`of_credential`] and [`GLOBAL`].

use std::fmt::Display;

/// Declares each key: a constant, or a function of its parts; and all of them as [`PATTERNS`].
macro_rules! keys {
    ($($(#[$doc:meta])+ $name:ident $(($($part:ident),+))? = $pattern:literal;)+) => {
        $(key! { $(#[$doc])+ $name $(($($part),+))? $pattern })+

        /// All keys, with `{…}` in the place of each part.
        pub const PATTERNS: &[&str] = &[$($pattern),+];
    };
}

macro_rules! key {
    ($(#[$doc:meta])+ $name:ident $pattern:literal) => {
        #[doc = concat!("`", $pattern, "`: ")]
        $(#[$doc])+
        pub const $name: &str = $pattern;
    };
    ($(#[$doc:meta])+ $name:ident ($($part:ident),+) $pattern:literal) => {
        #[doc = concat!("`", $pattern, "`: ")]
        $(#[$doc])+
        #[must_use]
        pub fn $name($($part: impl Display),+) -> String {
            format!($pattern)
        }
    };
}

keys! {
    /// HASH, organization → limit. Operators write it, too.
    ORG_LIMITS = "org_limits";
    /// STRING, live runners of the organization; a mirror.
    org_running(org) = "org:{org}:running";
    /// STRING, live runners in all; a mirror.
    TOTAL_RUNNING = "global:total_running";
    /// HASH, organization → live runners, of those that have any; a mirror.
    ORGS_RUNNING = "orgs:running";
    /// HASH, organization → queued jobs, of those that have any; a mirror.
    ORGS_PENDING = "orgs:pending";
    /// ZSET, queued job → time queued.
    org_pending(org) = "org:{org}:pending";
    /// SET, live runners of the organization. Its size is what admission trusts.
    org_runners(org) = "org:{org}:runners";
    /// ZSET, class → time of its oldest job without a runner; only classes with unmet demand that do not back off.
    org_classes(org) = "org:{org}:classes";
    /// SET, names of a user's repositories, where its runners register.
    org_repos(org) = "org:{org}:repos";

    /// HASH, org, scope, group, profile, labels; `misfit` while the class gets one runner at a time; `parked`, the
    /// subject that it is put aside for.
    class_info(id) = "class:{id}:info";
    /// ZSET, job → time queued.
    class_queued(id) = "class:{id}:queued";
    /// SET, runners that are reserved, starting or idle.
    class_idle(id) = "class:{id}:idle";
    /// ZSET, class with more idle runners than queued jobs → since.
    CLASSES_SURPLUS = "classes:surplus";

    /// ZSET, organization → fairness score; those with unmet demand and room, no back-off and no pause.
    ORGS_READY = "orgs:ready";
    /// HASH, organization → number of the admission at which it was last served.
    ORGS_SERVED = "orgs:served";
    /// HASH, login in lower case → login as GitHub writes it.
    ORGS_KNOWN = "orgs:known";
    /// HASH, organization → `{reason, until_ms, since}` of its pause, JSON.
    ORGS_PAUSED = "orgs:paused";
    /// HASH, organization → the credential that alone serves it, as its last runner's maker knew it.
    ORGS_CREDENTIAL = "orgs:credential";
    /// HASH, organization → the subject that it is put aside for.
    ORGS_PARKED = "orgs:parked";

    /// HASH, GitHub's id of an owner → its login, as it stands in keys.
    OWNERS_LOGINS = "owners:logins";
    /// HASH, login in lower case → GitHub's id of the owner.
    OWNERS_IDS = "owners:ids";
    /// HASH, GitHub's id → when it first told the login of now.
    OWNERS_TOLD = "owners:told";
    /// HASH, login of before → GitHub's id of the owner.
    OWNERS_WERE = "owners:were";
    /// HASH, GitHub's id → cursor, while records of its jobs move to the login of now.
    OWNERS_MOVING = "owners:moving";
    /// ZSET, login → when a new job last came; 30 days.
    OWNERS_HEARD = "owners:heard";

    /// ZSET, subject (and `pause:{org}`) → until when it backs off.
    BACKOFFS = "backoffs";
    /// ZSET, subject that backs off no more, and has something put aside → since.
    BACKOFFS_WAKING = "backoffs:waking";
    /// HASH, reason, since, until, failures in a row, first, needs, timed, probe.
    backoff(subject) = "{subject}:backoff";
    /// ZSET, members of the subject that failed since something of it succeeded → when.
    failing(subject, needs) = "{subject}:failing:{needs}";
    /// ZSET, organizations or classes that are put aside while the subject backs off.
    parked(subject) = "{subject}:parked";
    /// HASH, how many runners the namespace's quota let in when it last refused one, since, reason.
    QUOTA_CEILING = "quota:ceiling";

    /// ZSET, job → when to ask GitHub about it.
    JOBS_QUESTIONS = "jobs:questions";
    /// HASH of a job, see [`JobRecord`](super::JobRecord); expires after the end.
    job_info(job) = "job:{job}:info";
    /// SET, every live runner.
    RUNNERS_LIVE = "runners:live";
    /// ZSET, runner → when it must have moved on.
    RUNNERS_DEADLINES = "runners:deadlines";
    /// HASH of a runner, see [`RunnerRecord`](super::RunnerRecord); expires a day after the end.
    runner_info(runner) = "runner:{runner}:info";
    /// ZSET, runner → when to look its registration up at GitHub and delete it.
    REGISTRATIONS_UNCERTAIN = "registrations:uncertain";

    /// ZSET, `owner/repo` → last seen; 30 days. The sweep visits these.
    REPOS_ACTIVE = "repos:active";
    /// ZSET, `owner/repo` whose jobs the credential may not read → when GitHub last said so; for people.
    REPOS_UNREADABLE = "repos:unreadable";
    /// SET, active repositories that are in no account's queue yet.
    REPOS_NEW = "repos:new";
    /// HASH, `owner/repo` → what is known of its runs: GitHub's ETag, the id below which all were over, JSON.
    REPOS_RUNS = "repos:runs";

    /// HASH, the epoch that was searched, the walk through known owners, the longest times between two looks, counts.
    RECOVERY = "recovery";
    /// ZSET, account (whatever GitHub counts calls of) → when its turn may come next.
    RECOVERY_ACCOUNTS = "recovery:accounts";
    /// ZSET, account → last visit of the repository that has waited longest.
    RECOVERY_OLDEST = "recovery:oldest";
    /// ZSET, account → time until those are visited that never were.
    RECOVERY_UNVISITED = "recovery:unvisited";
    /// HASH, the epoch that the account's lists are of, its pace.
    recover(account) = "recover:{account}";
    /// ZSET, of the rounds `repos`, `hooks`, `rereads` what → when it was last looked at; of `lists`, `scopes` what →
    /// when it is due.
    recover_round(account, round) = "recover:{account}:{round}";

    /// HASH, webhook of ours → where its deliveries were read to, JSON.
    HOOKS_KNOWN = "hooks:known";
    /// SET, owners, and `app:NAME`, with a webhook of ours for all of their repositories.
    HOOKS_OWNERS = "hooks:owners";
    /// ZSET, guid of a delivery to repeat → its time (queued ones first).
    hook_failed(hook) = "hook:{hook}:failed";
    /// ZSET, guid of a delivery that failed again → when to repeat it.
    hook_later(hook) = "hook:{hook}:later";
    /// ZSET, guids of both, of all hooks → noted.
    DELIVERIES_OPEN = "deliveries:open";
    /// HASH, id of the last try, action, time, tries, whether it is settled; 7 days.
    delivery(guid) = "delivery:{guid}";
    /// ZSET, registration that is offline and unknown here → first seen.
    STRAYS_SEEN = "strays:seen";

    /// SET, organizations that a credential serves.
    credential_orgs(credential) = "credential:{credential}:orgs";
    /// HASH, what GitHub last said of the hour's calls: limit, remaining, reset; and what was spent since.
    credential_rate(credential) = "credential:{credential}:rate";
    /// HASH of an account (a credential, or `{credential}/{owner}` for an App's installation): until when GitHub holds
    /// its calls, why, and whether for every owner.
    credential_limited(account) = "credential:{account}:limited";
    /// SET, accounts of a credential that were held.
    credential_held(credential) = "credential:{credential}:held";
    /// ZSET, call that is under way → when it is over at the latest.
    credential_calls(credential) = "credential:{credential}:calls";
    /// HASH, second → points of calls, of the last minute.
    credential_endpoint(account, endpoint) = "credential:{account}:points:{endpoint}";
    /// ZSET, runner → when its registration was asked for, of the last minute.
    credential_points(credential) = "credential:{credential}:points";
    /// HASH, minute → optional calls, of the last hour, but those answered with 304.
    credential_spare(credential) = "credential:{credential}:spare";
    /// HASH, this minute, and all optional calls of it.
    credential_asked(credential) = "credential:{credential}:asked";
    /// STRING, the server told of no limit; an hour.
    credential_unlimited(credential) = "credential:{credential}:unlimited";
    /// ZSET, runner → when it was registered, of the last five minutes.
    scope_registrations(scope) = "scope:{scope}:registrations";

    /// ZSET, what is wrong around a process, as it says, JSON → last told.
    CONDITIONS = "conditions";
    /// ZSET, where runners run → when a worker last listed what is there.
    PLACES = "places";
    /// ZSET, worker → last heartbeat.
    WORKERS_ALIVE = "workers:alive";
    /// STRING, a tick of this kind was emitted; expires.
    tick(kind) = "tick:{kind}";
    /// STRING, a tick of this kind is being worked on; expires.
    tick_work(kind) = "tick:{kind}:work";
    /// HASH, schema, epoch, run of Redis, sequence, effective configuration and its generation.
    META = "ledger:meta";

    /// STREAM, job events, from the receiver to intake.
    JIT_EVENTS = "jit:events";
    /// STREAM, reservations, from admission to provision.
    JIT_PROVISION = "jit:provision";
    /// STREAM, ticks, from beat to maintenance.
    JIT_TICKS = "jit:ticks";
    /// STREAM, entries that could not be read or applied.
    JIT_DEAD = "jit:dead";
    /// HASH, entry of the stream → workers that died over it.
    deaths(stream) = "{stream}:deaths";
}

/// Everything, as a subject.
pub const GLOBAL: &str = "global";

/// A class, as a subject.
#[must_use]
pub fn of_class(id: &str) -> String {
    format!("class:{id}")
}

/// What registers at a scope, as a subject.
#[must_use]
pub fn of_scope(scope: &str) -> String {
    format!("scope:{scope}")
}

/// An organization, as a subject.
#[must_use]
pub fn of_org(org: &str) -> String {
    format!("org:{org}")
}

/// A profile, as a subject.
#[must_use]
pub fn of_profile(name: &str) -> String {
    format!("profile:{name}")
}

/// A credential, as a subject.
#[must_use]
pub fn of_credential(name: &str) -> String {
    format!("credential:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_pattern_with_its_parts() {
        assert_eq!(org_runners("Acme"), "org:Acme:runners");
        assert_eq!(credential_endpoint("a/acme", "jobs"), "credential:a/acme:points:jobs");
        assert_eq!(backoff(of_class("c1")), "class:c1:backoff");
        assert!(PATTERNS.contains(&"org:{org}:runners") && PATTERNS.contains(&META));
    }
}
