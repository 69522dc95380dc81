//! What GitHub says of its limits: from each answer to the metrics and, about once a second, to the budget that all
//! workers share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jit_core::ledger::{LedgerError, RateWord};
use jit_github::OnRate;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Worker, metrics::CredentialLabel, step::Step as _};

/// The loop's name.
pub(crate) const NAME: &str = "rates";
/// So often at most, for each account, the ledger is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The last word on each account: a credential, or one owner of an App's.
#[derive(Clone, Default)]
pub struct Rates(Arc<Shared>);

#[derive(Default)]
struct Shared {
    words: Mutex<BTreeMap<Account, Word>>,
    /// Rung when there is something to tell.
    news: Notify,
}

/// Credential and, of an App's installation, its owner.
type Account = (String, Option<String>);

#[derive(Clone)]
struct Word {
    word: RateWord,
    at: Instant,
    told: bool,
}

impl Word {
    /// As it is now; none when GitHub has begun another hour.
    fn now(&self) -> Option<RateWord> {
        let reset_in = self.word.reset_in.checked_sub(self.at.elapsed())?;
        Some(RateWord { reset_in, ..self.word })
    }
}

impl Rates {
    fn words(&self) -> MutexGuard<'_, BTreeMap<Account, Word>> {
        self.0.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a credential's client tells.
    #[must_use]
    pub fn hook(&self, credential: &str) -> OnRate {
        let (rates, credential) = (self.clone(), credential.to_owned());
        Arc::new(move |rate| {
            let word = RateWord {
                limit: rate.limit,
                remaining: rate.remaining,
                reset_in: rate.reset_in,
            };
            rates.words().insert(
                (credential.clone(), rate.owner.clone()),
                Word {
                    word,
                    at: Instant::now(),
                    told: false,
                },
            );
            rates.0.news.notify_one();
        })
    }

    /// What has not been told yet. Words of a past hour are forgotten.
    fn untold(&self) -> Vec<(Account, RateWord)> {
        let mut words = self.words();
        words.retain(|_, word| word.now().is_some());
        words
            .iter_mut()
            .filter_map(|(account, word)| (!std::mem::replace(&mut word.told, true)).then_some((account, word)))
            .filter_map(|(account, word)| Some((account.clone(), word.now()?)))
            .collect()
    }

    /// Calls that a credential has left this hour, of an App's at an owner; nothing where GitHub has not said.
    pub(crate) fn left(&self, credential: &str, owner: Option<&str>) -> Option<u64> {
        Some(
            self.words()
                .get(&(credential.to_owned(), owner.map(str::to_lowercase)))?
                .now()?
                .remaining,
        )
    }

    /// The fewest calls that a credential has left, at any owner.
    fn fewest(&self) -> BTreeMap<String, u64> {
        let mut fewest = BTreeMap::new();
        for ((credential, _), word) in self.words().iter() {
            let least: &mut u64 = fewest.entry(credential.clone()).or_insert(word.word.remaining);
            *least = (*least).min(word.word.remaining);
        }
        fewest
    }
}

/// Passes on what is said, until `stop`.
pub async fn run(worker: &Worker, stop: &CancellationToken) {
    loop {
        // The first word is told at once, the next ones together.
        tokio::select! { () = stop.cancelled() => return, () = worker.rates.0.news.notified() => {} }
        let round = worker.loops.begin(NAME);
        round.end(pass_on(worker).await);
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(TELL_EVERY) => {} }
    }
}

/// Passes on what has not been told; gives the last error.
async fn pass_on(worker: &Worker) -> Result<(), LedgerError> {
    let mut result = Ok(());
    for ((credential, owner), word) in worker.rates.untold() {
        let account = jit_github::Credential::account_named(&credential, owner.as_deref());
        if let Err(error) = worker.ledger.note_rate(&account, &word).await.step("rates.noted") {
            tracing::debug!(%error, account, "what GitHub says of its limits was not noted; it says it again");
            result = Err(error);
        }
    }
    for (credential, remaining) in worker.rates.fewest() {
        worker
            .metrics
            .github_remaining
            .get_or_create(&CredentialLabel { credential })
            .set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(owner: Option<&str>, remaining: u64, seconds: u64) -> jit_github::Rate {
        jit_github::Rate {
            owner: owner.map(str::to_owned),
            limit: 5000,
            remaining,
            reset_in: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn each_word_is_told_once_and_the_lowest_is_shown() {
        let rates = Rates::default();
        let (app, pat) = (rates.hook("app"), rates.hook("pat"));
        app(&rate(Some("acme"), 10, 100));
        app(&rate(Some("acme"), 9, 100));
        app(&rate(Some("other"), 4000, 100));
        pat(&rate(None, 50, 100));
        pat(&rate(None, 7, 0));
        let told: Vec<_> = rates
            .untold()
            .into_iter()
            .map(|(account, word)| (account, word.remaining))
            .collect();
        assert_eq!(
            (
                rates.left("app", Some("Acme")),
                rates.left("pat", None),
                rates.left("app", None)
            ),
            (Some(9), None, None)
        );
        assert_eq!(
            told,
            [
                (("app".into(), Some("acme".into())), 9),
                (("app".into(), Some("other".into())), 4000)
            ],
            "the token's hour is over"
        );
        assert!(rates.untold().is_empty());
        app(&rate(Some("acme"), 8, 100));
        assert_eq!(rates.untold().len(), 1);
        assert_eq!(rates.fewest(), BTreeMap::from([("app".to_owned(), 8)]));
    }
}
