//! Lists in pages of 100.
//!
//! A list that changes while it is read may show an item twice or not at all. Items seen twice are counted once, and
//! what was read says whether it is as many as GitHub counts: else being on no page is no proof of anything.

use std::collections::HashSet;
use std::ops::ControlFlow;

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::answer::Answer;
use crate::client::Client;
use crate::error::Error;
use crate::scope::Scope;
use crate::transport::Call;
use crate::types::Runner;

/// The most that GitHub gives.
pub(crate) const PER_PAGE: usize = 100;
/// Where a list that does not end is given up: 100 000 items, ten times what GitHub allows in a runner group.
const PAGES: usize = 1000;

/// One page as GitHub writes it: `{"total_count": n, "runners": [...]}`.
pub(crate) trait Page: DeserializeOwned {
    type Item;
    fn into_parts(self) -> (u64, Vec<Self::Item>);
    fn id(item: &Self::Item) -> u64;
}

/// A page of runners.
#[derive(Deserialize)]
pub(crate) struct Runners {
    total_count: u64,
    runners: Vec<Runner>,
}

impl Page for Runners {
    type Item = Runner;

    fn into_parts(self) -> (u64, Vec<Runner>) {
        (self.total_count, self.runners)
    }

    fn id(item: &Runner) -> u64 {
        item.id
    }
}

/// What was read of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Calls that it took. A page that holds all of it is one moment of the list; several are several.
    pub(crate) pages: usize,
    /// As many items were seen as each page counted. Where some went and others came between two pages, one may still
    /// have been passed over.
    pub(crate) complete: bool,
}

impl Client {
    /// Shows every item of the list at `{scope}/actions/{list}` to `look`, once, until it breaks.
    pub(crate) async fn each<P: Page>(
        &self,
        endpoint: &'static str,
        what: &str,
        scope: &Scope,
        list: &str,
        query: &[(&str, &str)],
        mut look: impl FnMut(P::Item) -> ControlFlow<()>,
    ) -> Result<Reading, Error> {
        let (mut seen, mut most) = (HashSet::new(), 0);
        for page in 1..=PAGES {
            let mut call = self.call(endpoint, Method::GET, scope, &["actions", list], what.to_owned())?;
            call.url
                .query_pairs_mut()
                .extend_pairs(query)
                .append_pair("per_page", &PER_PAGE.to_string())
                .append_pair("page", &page.to_string());
            let answer = self.send(call).await?;
            let linked = answer.next.is_some();
            let (total, items) = answer.json::<P>()?.into_parts();
            let count = items.len();
            most = total.max(most);
            for item in items {
                if seen.insert(P::id(&item)) && look(item).is_break() {
                    return Ok(Reading {
                        pages: page,
                        complete: false,
                    });
                }
            }
            // GitHub links the next page; a proxy may have dropped that header, and then the count tells.
            let more = linked || (count >= PER_PAGE && (seen.len() as u64) < total);
            if count == 0 || !more {
                return Ok(Reading {
                    pages: page,
                    complete: seen.len() as u64 >= most,
                });
            }
        }
        Err(Error::Unreadable {
            what: what.to_owned(),
            status: 200,
            why: format!("the list does not end within {PAGES} pages"),
        })
    }
}

/// One page of a list, for callers who count each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// There is another after it.
    pub more: bool,
}

/// An answer to a question whose last answer is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<T> {
    /// It is the same (304): GitHub does not count the call.
    Same,
    /// It is another.
    News {
        /// What it is.
        answer: T,
        /// GitHub's mark of it, to be shown with the next question. A token that is renewed makes it another.
        etag: Option<String>,
        /// Whether the server counts calls: most GHES have no limits.
        counted: bool,
    },
}

impl Answer {
    /// Whether it is the one that is known, or what it holds.
    pub(crate) fn asked<T>(self, read: impl FnOnce(Self) -> Result<T, Error>) -> Result<Asked<T>, Error> {
        if self.status == 304 {
            return Ok(Asked::Same);
        }
        let (etag, counted) = (self.etag.clone(), self.rate.limit.is_some());
        Ok(Asked::News {
            answer: read(self)?,
            etag,
            counted,
        })
    }
}

/// How a page that is asked for by its number is read: an array of `T`, or an object that holds one.
pub(crate) trait OnePage<T>: DeserializeOwned {
    fn items(self) -> Vec<T>;
}

impl<T: DeserializeOwned> OnePage<T> for Vec<T> {
    fn items(self) -> Vec<T> {
        self
    }
}

impl OnePage<Runner> for Runners {
    fn items(self) -> Vec<Runner> {
        self.runners
    }
}

impl Client {
    /// Page `page` (from 1) of the list that `call` asks for.
    pub(crate) async fn page<T, P: OnePage<T>>(&self, mut call: Call, page: u32) -> Result<Listed<T>, Error> {
        call.url
            .query_pairs_mut()
            .append_pair("per_page", &PER_PAGE.to_string())
            .append_pair("page", &page.to_string());
        let answer = self.send(call).await?;
        let linked = answer.next.is_some();
        let items = answer.json::<P>()?.items();
        // GitHub links the next page; a proxy may have dropped that header, and then a full page tells that there may
        // be another.
        let more = linked || items.len() >= PER_PAGE;
        Ok(Listed { items, more })
    }

    /// One page (from 1) of the runners registered at this scope itself: `GET {scope}/actions/runners`.
    ///
    /// # Errors
    /// As any call.
    pub async fn runners_page(&self, scope: &Scope, page: u32) -> Result<Listed<Runner>, Error> {
        let call = self.call(
            "runners",
            Method::GET,
            scope,
            &["actions", "runners"],
            format!("runners of {scope}"),
        )?;
        self.page::<_, Runners>(call, page).await
    }
}
