//! What went wrong, as the ledger needs to know it: what backs off, for how long, and whether GitHub may have done it.
//!
//! Invariants: the list is closed, so a caller matches it whole; no variant holds a token, a JIT config or the body of
//! a successful answer; texts of GitHub's are short and without control characters (see `answer`).

use std::time::Duration;

/// Why a call failed. `what` names the call and its target; `said` is GitHub's message and documentation address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 422 or 400: GitHub understood and will not: labels, a name or a group that it does not take. Also a name that no
    /// URL can hold.
    #[error("{what}: refused as invalid: {said}")]
    Invalid {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// The runner group takes jobs of public repositories, or may, and the options allow none that does.
    #[error("{}", public_group(.scope, .group, *.known))]
    PublicGroup {
        /// Where.
        scope: String,
        /// The group's name, as configured.
        group: String,
        /// Whether GitHub says so; else it does not show the group.
        known: bool,
    },
    /// The scope lists no runner group of this name.
    #[error("{scope} has no runner group named {group:?} that this credential can see")]
    NoSuchGroup {
        /// The scope that was asked.
        scope: String,
        /// The name that was looked for.
        group: String,
    },
    /// The GitHub App is not installed at this owner: nothing was sent.
    #[error(
        "{what}: the GitHub App is not installed at {owner}: install it there (the App's page, Install App), or name \
         {owner} among the owners of another credential"
    )]
    NotInstalled {
        /// The call and its target.
        what: String,
        /// Login of an organization or user, or slug of an enterprise.
        owner: String,
    },
    /// The GitHub App's installation at this owner is suspended.
    #[error("{what}: the GitHub App is suspended at {owner}: unsuspend it there (the owner's settings, GitHub Apps)")]
    Suspended {
        /// The call and its target.
        what: String,
        /// Login of an organization or user, or slug of an enterprise.
        owner: String,
    },
    /// The GitHub App got no token for this call: it was not sent.
    #[error("{what}: no token of the GitHub App for it: {cause}")]
    NoToken {
        /// The call and its target.
        what: String,
        /// Why.
        cause: Box<Error>,
    },
    /// A limit, or a refusal of the credential, that GitHub told of before still holds, or it is not this call's turn:
    /// nothing was sent.
    #[error("{what}: not sent: {why}")]
    Held {
        /// The call and its target.
        what: String,
        /// What was said then.
        why: String,
        /// Until it may be sent.
        retry_after: Duration,
    },
    /// No credential serves this owner: nothing was sent.
    #[error("no credential serves {owner}: name it among the owners of one in {source_of_credentials}")]
    NotServed {
        /// Login of an organization or user, or slug of an enterprise.
        owner: String,
        /// Where the credentials are configured.
        source_of_credentials: String,
    },
    /// 409 to a JIT config: a runner of this name is registered. As names are never used again, an earlier call whose
    /// answer was lost made it.
    #[error("{what}: a runner of this name exists: {said}")]
    NameTaken {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// 403 that is no limit: the credential has no right to this, or the organization forbids it.
    #[error("{what}: forbidden: {said}")]
    Forbidden {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// 404: not there, or hidden from this credential (App not installed, no right, no such group).
    #[error("{what}: not found, or not visible to this credential: {said}")]
    NotFound {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// Any other 4xx.
    #[error("{what}: GitHub answered {status}: {said}")]
    Refused {
        /// The call and its target.
        what: String,
        /// The HTTP status.
        status: u16,
        /// GitHub's words.
        said: String,
    },
    /// 401, or 403 because of too many wrong logins; or there is no token that could be sent.
    #[error("{what}: the credential is not accepted: {said}")]
    Unauthorized {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// The credential has used up its calls of this hour.
    #[error("{what}: rate limit used up, {} s to go: {said}", .retry_after.as_secs())]
    PrimaryLimit {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
        /// Until the limit is reset; a minute where GitHub does not say; an hour at most.
        retry_after: Duration,
    },
    /// The scope has used up its registrations of 5 minutes.
    #[error("{what}: registrations of 5 minutes used up, {} s to go: {said}", .retry_after.as_secs())]
    RegistrationLimit {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
        /// Until the limit is reset; a minute where GitHub does not say.
        retry_after: Duration,
    },
    /// Too many calls at once, or too fast.
    #[error("{what}: secondary rate limit, {} s to go: {said}", .retry_after.as_secs())]
    SecondaryLimit {
        /// The call and its target.
        what: String,
        /// GitHub's words.
        said: String,
        /// As GitHub says it; a minute where it does not; an hour at most.
        retry_after: Duration,
    },
    /// No connection: name, network, proxy, TLS. GitHub has not seen the request.
    #[error("{what}: GitHub cannot be reached: {why}")]
    Unreachable {
        /// The call and its target.
        what: String,
        /// Of the network or TLS library.
        why: String,
    },
    /// The request went out, and the whole answer did not come in time.
    #[error("{what}: no answer within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The call and its target.
        what: String,
        /// The time-out that ran out.
        after: Duration,
    },
    /// The request went out, and the connection ended before the answer was complete.
    #[error("{what}: the connection ended before the answer was complete: {why}")]
    Interrupted {
        /// The call and its target.
        what: String,
        /// Of the network library.
        why: String,
    },
    /// 5xx, and 407 and 408, which a proxy or load balancer on the way answers.
    #[error("{what}: GitHub answered {status}: {said}")]
    Server {
        /// The call and its target.
        what: String,
        /// The HTTP status.
        status: u16,
        /// GitHub's words.
        said: String,
        /// `retry-after`, where it was given; an hour at most.
        retry_after: Option<Duration>,
    },
    /// A success whose content is not what it should be, or too large.
    #[error("{what}: GitHub answered {status}, and the answer cannot be read: {why}")]
    Unreadable {
        /// The call and its target.
        what: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with it; never its content where that is a JIT config.
        why: String,
    },
    /// A redirect that is not followed, as the token would go to another server: most often the API's URL is wrong
    /// (http for https, say).
    #[error("{what}: GitHub answered {status}, a redirect to {to}, where the token is not sent; check the API's URL")]
    Redirected {
        /// The call and its target.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Origin it points to.
        to: String,
    },
}

fn public_group(scope: &str, group: &str, known: bool) -> String {
    if known {
        return format!(
            "the runner group {group:?} of {scope} allows public repositories, so GitHub may give its runners to their \
             jobs, which anybody can \
             write: forbid that in the group's settings at GitHub, or set PUBLIC_REPOSITORIES=allow"
        );
    }
    format!(
        "GitHub does not show this credential the runner group {group:?} of {scope}, so whether it allows public \
         repositories is not known: let it \
         read the runner groups, or set PUBLIC_REPOSITORIES=allow"
    )
}

/// What an error says about other calls: how much backs off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackOff {
    /// The class: the same labels, group and scope will be refused again; others not.
    Class,
    /// The organization (or repository, or enterprise): everything in it will be refused.
    Organization,
    /// Everything that this credential serves.
    Credential,
    /// The whole server: it is down, overloaded, or not the server that was meant.
    All,
}

impl Error {
    /// What backs off because of this.
    #[must_use]
    pub fn backs_off(&self) -> BackOff {
        match self {
            Self::Invalid { .. } | Self::NoSuchGroup { .. } | Self::PublicGroup { .. } | Self::NameTaken { .. } => {
                BackOff::Class
            }
            Self::NotServed { .. }
            | Self::NotInstalled { .. }
            | Self::Suspended { .. }
            | Self::RegistrationLimit { .. }
            | Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::Refused { .. } => BackOff::Organization,
            // What GitHub does not take of a request for a token, no class can mend.
            Self::NoToken { cause, .. } => cause.backs_off().max(BackOff::Organization),
            Self::Unauthorized { .. } | Self::PrimaryLimit { .. } | Self::SecondaryLimit { .. } | Self::Held { .. } => {
                BackOff::Credential
            }
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Interrupted { .. }
            | Self::Server { .. }
            | Self::Unreadable { .. }
            | Self::Redirected { .. } => BackOff::All,
        }
    }

    /// How long to wait at least, where GitHub or its rules say: always for limits, sometimes for 5xx. An hour at most.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::PrimaryLimit { retry_after, .. }
            | Self::SecondaryLimit { retry_after, .. }
            | Self::RegistrationLimit { retry_after, .. }
            | Self::Held { retry_after, .. } => Some(*retry_after),
            Self::NoToken { cause, .. } => cause.retry_after(),
            Self::Server { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the call itself went out to GitHub: else it counts nowhere.
    #[must_use]
    pub fn sent(&self) -> bool {
        !matches!(
            self,
            Self::NotServed { .. }
                | Self::NotInstalled { .. }
                | Self::NoToken { .. }
                | Self::Unreachable { .. }
                | Self::NoSuchGroup { .. }
                | Self::PublicGroup { .. }
                | Self::Held { .. }
        )
    }

    /// Whether GitHub may have done what was asked: what a call registered under a name has then to be looked up and
    /// deleted.
    ///
    /// [`NameTaken`](Self::NameTaken) is uncertain too: the runner that holds the name is one whose answer was lost.
    #[must_use]
    pub fn uncertain(&self) -> bool {
        matches!(
            self,
            Self::TimedOut { .. }
                | Self::Interrupted { .. }
                | Self::Server { .. }
                | Self::Unreadable { .. }
                | Self::NameTaken { .. }
        )
    }
}
