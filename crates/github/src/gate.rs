//! A gate before the network: each request is announced before it is sent, and its end is told.
//!
//! The client knows one process. GitHub counts the calls of all of them together, and a limit that one has met holds
//! for the others, so who shares such knowledge stands here.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::answer::Answer;
use crate::error::Error;
use crate::login::{Account, Who};
use crate::rate::Limit;

/// What a gate answers with, some time.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Asked before each request, and told of its end. A redirect, and the second try of an App's call with a new token,
/// are part of their request and a request of their own.
pub trait Gate: Send + Sync {
    /// Whether a request may be sent now: the number that its end is told with, or until when not. It may wait a little
    /// for its turn.
    fn enter<'a>(&'a self, request: &'a Outgoing) -> Answering<'a, Result<u64, NotNow>>;

    /// A request is over.
    fn leave<'a>(&'a self, request: &'a Outgoing, number: u64, ending: Ending) -> Answering<'a, ()>;

    /// GitHub does not accept whom a call was made as, also not with a new token or a new JWT; or the App is not
    /// installed there, or suspended.
    fn refused<'a>(&'a self, who: &'a Caller, why: String) -> Answering<'a, ()>;
}

/// As whom a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// A GitHub App, itself or as an installation; else a token.
    pub app: bool,
    /// Of an App's installation, the owner that it is installed at, in lower case.
    pub owner: Option<String>,
    /// The owner is an enterprise.
    pub enterprise: bool,
}

/// A request that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Name of its call.
    pub endpoint: &'static str,
    /// Whether its method is POST, PATCH, PUT or DELETE, which cost more points.
    pub writes: bool,
    /// The longest that it may be under way.
    pub timeout: Duration,
    /// As whom it is sent.
    pub who: Caller,
}

/// Why a request may not be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNow {
    /// So long from now on.
    pub wait: Duration,
    /// For people.
    pub why: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// GitHub answered, and limits nothing.
    Answered,
    /// No answer came.
    Unanswered,
    /// 401: a new token may mend it; what does not is told by [`Gate::refused`].
    Unauthorized,
    /// GitHub wants to be left alone.
    Limited {
        /// For so long.
        wait: Duration,
        /// By everything that the credential serves, also where an App's installation called.
        whole: bool,
        /// GitHub's words.
        why: String,
    },
    /// Too many wrong logins: GitHub refuses right ones too, for a while.
    Refused {
        /// GitHub's words.
        why: String,
    },
}

impl Caller {
    /// As whom a call goes out, where the login is an App's, or a token's.
    pub(crate) fn of(who: &Who, app: bool) -> Self {
        let account = match who {
            Who::Installation(account) if app => Some(account),
            _ => None,
        };
        let enterprise = matches!(account, Some(Account::Enterprise(_)));
        Self {
            app,
            owner: account.map(|account| account.name().to_ascii_lowercase()),
            enterprise,
        }
    }
}

impl Ending {
    pub(crate) fn of(result: &Result<Answer, Error>) -> Self {
        let answer = match result {
            Ok(answer) => answer,
            Err(Error::Unreadable { .. } | Error::Redirected { .. }) => return Self::Answered,
            Err(_) => return Self::Unanswered,
        };
        let (wait, why) = (answer.rate.wait(), answer.words());
        match answer.limit() {
            Some(Limit::Primary) => Self::Limited {
                wait,
                whole: false,
                why,
            },
            Some(Limit::Secondary) => Self::Limited { wait, whole: true, why },
            Some(Limit::Registrations) => Self::Answered,
            None if answer.status == 401 => Self::Unauthorized,
            None if answer.is_locked_out() => Self::Refused { why },
            None => match answer.rate.retry_after {
                Some(wait) if answer.status >= 500 => Self::Limited {
                    wait,
                    whole: false,
                    why,
                },
                _ => Self::Answered,
            },
        }
    }
}
