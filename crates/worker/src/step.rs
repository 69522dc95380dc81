//! Steps: every effect of the worker (a transition of the ledger, a word to a stream, a call of GitHub or of the
//! backend) is followed by one, with a name of its own.
//!
//! A debug build that is started with `JIT_KILL_AT=provision.claimed` kills itself with SIGKILL the first time that it
//! passes that step, and with `JIT_KILL_AT=provision.claimed:3` the third time. So a test can make every step the last
//! one. A release build contains nothing of it. `integration-tests/tests/every_step` reads the names from the source:
//! an effect without a step fails there, and so does a step that no scenario reaches.

/// Marks the place behind an effect: `worker.ledger.created(name, fence).await.step("provision.created")`.
pub trait Step: Sized {
    /// The effect has happened, whatever its result.
    #[must_use]
    fn step(self, name: &'static str) -> Self {
        self.step_if(name, |_| true)
    }

    /// The effect has happened if its result says so: a read that brought nothing changed nothing.
    #[must_use]
    #[cfg_attr(not(debug_assertions), allow(unused_variables))]
    fn step_if(self, name: &'static str, happened: impl FnOnce(&Self) -> bool) -> Self {
        #[cfg(debug_assertions)]
        if kill::armed(name) && happened(&self) {
            kill::passed();
        }
        self
    }
}

impl<T> Step for T {}

/// Whether a list came, and not an empty one.
pub fn not_empty<T, E>(result: &Result<Vec<T>, E>) -> bool {
    result.as_ref().is_ok_and(|list| !list.is_empty())
}

#[cfg(debug_assertions)]
mod kill {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    /// The step to die at, and how many passages it is until then.
    static ARMED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("JIT_KILL_AT").ok().filter(|text| !text.is_empty())?;
        let (name, passage) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), AtomicU64::new(passage.parse().unwrap_or(1))))
    });

    pub(super) fn armed(name: &str) -> bool {
        ARMED.as_ref().is_some_and(|(armed, _)| armed == name)
    }

    pub(super) fn passed() {
        let Some((name, left)) = ARMED.as_ref() else { return };
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            eprintln!("killed at {name}");
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            loop {
                std::thread::park(); // the signal is on its way
            }
        }
    }
}
