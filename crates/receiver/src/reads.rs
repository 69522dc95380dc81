//! What anybody may read costs little, however often it is asked for: one answer serves all who ask within a second,
//! and each sender has a rate.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

/// For so long an answer serves all who ask.
pub const SHARED_FOR: Duration = Duration::from_secs(1);
/// Reads of one sender in a second.
const RATE: u32 = 50;
/// Answers, and senders, that are remembered at once. Those of the last second are a few.
const REMEMBERED: usize = 1000;

/// Answers of the last second, and who asked.
#[derive(Debug, Default)]
pub struct Reads {
    answers: Mutex<HashMap<String, (Instant, Value)>>,
    senders: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl Reads {
    /// Whether this sender may read now: it has not asked too often within the second.
    pub fn allows(&self, sender: IpAddr) -> bool {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut senders, |(since, _)| since.elapsed() < SHARED_FOR);
        let (since, count) = senders.entry(sender).or_insert_with(|| (Instant::now(), 0));
        if since.elapsed() >= SHARED_FOR {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        *count <= RATE
    }

    /// The answer to the same question, where it is not older than a second.
    pub fn answered(&self, question: &str) -> Option<Value> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers
            .get(question)
            .filter(|(at, _)| at.elapsed() < SHARED_FOR)
            .map(|(_, answer)| answer.clone())
    }

    /// Keeps an answer for whoever asks next.
    pub fn keep(&self, question: String, answer: Value) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        make_room(&mut answers, |(at, _)| at.elapsed() < SHARED_FOR);
        answers.insert(question, (Instant::now(), answer));
    }
}

/// Forgets what is over, and where that is not enough, all.
fn make_room<K, V>(map: &mut HashMap<K, V>, fresh: impl Fn(&V) -> bool) {
    if map.len() >= REMEMBERED {
        map.retain(|_, value| fresh(value));
    }
    if map.len() >= REMEMBERED {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_sender_has_a_rate_of_its_own() {
        let (reads, a, b) = (
            Reads::default(),
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([10, 0, 0, 2]),
        );
        assert!((0..RATE).all(|_| reads.allows(a)) && !reads.allows(a) && reads.allows(b));
        tokio::time::advance(SHARED_FOR).await;
        assert!(reads.allows(a));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_shared_for_a_second_and_few_are_kept() {
        let reads = Reads::default();
        reads.keep("Acme".into(), 5.into());
        assert_eq!(
            (reads.answered("Acme"), reads.answered("other")),
            (Some(5.into()), None)
        );
        tokio::time::advance(SHARED_FOR).await;
        assert_eq!(reads.answered("Acme"), None);
        for number in 0..3 * REMEMBERED {
            reads.keep(number.to_string(), number.into());
        }
        assert!(reads.answers.lock().expect("no panic").len() <= REMEMBERED);
    }
}
