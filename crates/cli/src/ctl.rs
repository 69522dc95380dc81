//! What every command works with: the ledger, and how it answers.

use std::io::Write;

use clap::ValueEnum;
use jit_core::{ledger::Ledger, store::RedisSettings, stream};

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// What every command works with.
pub(crate) struct Ctl<'a> {
    pub(crate) out: &'a mut dyn Write,
    pub(crate) ledger: Ledger,
    pub(crate) redis: RedisSettings,
    pub(crate) output: Output,
    /// Redis's time, ms since 1970.
    pub(crate) now: i64,
}

impl Ctl<'_> {
    pub(crate) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    pub(crate) fn json(&mut self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{}", serde_json::to_string_pretty(value)?)?)
    }

    /// JSON for scripts, a sentence for people.
    pub(crate) fn say(&mut self, json: &impl serde::Serialize, sentence: &str) -> anyhow::Result<()> {
        if self.is_json() {
            return self.json(json);
        }
        Ok(writeln!(self.out, "{sentence}")?)
    }

    /// Makes the workers act on what was changed, at once. Beat does so anyway in a while, so it stands also when this
    /// fails.
    pub(crate) async fn tick(&self, kind: &str) -> anyhow::Result<()> {
        let mut connection = self.ledger.pool().get().await?;
        Ok(stream::tick_now(&mut connection, kind).await?)
    }

    pub(crate) async fn act_at_once(&self) {
        if let Err(error) = self.tick("dispatch").await {
            note(&format!(
                "it is done, and workers act on it at beat's next tick, not at once: {error}"
            ));
        }
    }

    /// The spelling of an organization that is known here.
    pub(crate) async fn known(&self, org: &str) -> anyhow::Result<String> {
        let (org, known) = self.ledger.spelling(org).await?;
        anyhow::ensure!(
            known,
            "{org} is not known here: no job of it came yet, and it has neither a limit of its own nor a pause (jitctl \
             status shows who has)"
        );
        Ok(org)
    }

    /// The spelling of an organization, which may be one that is still to come.
    pub(crate) async fn named(&self, org: &str) -> anyhow::Result<String> {
        let (org, known) = self.ledger.spelling(org).await?;
        if !known {
            note(&format!(
                "{org} is not known here yet: no job of it came. It is done all the same; is the name right?"
            ));
        }
        Ok(org)
    }
}

/// A word beside the answer, which scripts read from standard output.
pub(crate) fn note(text: &str) {
    eprintln!("jitctl: {text}");
}
