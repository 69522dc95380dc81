//! `dead`: entries that could not be read or applied, or over which workers died. See
//! [`jit_core::stream::dead_letters`].

use std::process::ExitCode;

use clap::{Args, Subcommand};
use jit_core::{
    render,
    stream::dead_letters::{self, DeadLetter, Order, Requeued},
};
use serde_json::{Value, json};

use crate::{
    ctl::{Ctl, note},
    table, time,
};

/// Letters that are read at once.
const PAGE: usize = 500;

/// What to do with dead letters.
#[derive(Subcommand)]
pub enum Command {
    /// The newest first
    List {
        /// The oldest first
        #[arg(long)]
        oldest: bool,
        /// Letters at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only those after this one, which the page before ended with
        #[arg(long, value_parser = letter)]
        cursor: Option<String>,
    },
    /// One of them, with all that it holds
    Show {
        /// Its id
        #[arg(value_parser = letter)]
        id: String,
    },
    /// Puts letters back where they came from; a reservation is dropped, for it is long gone
    Requeue(Which),
    /// Throws letters away
    Drop(Which),
}

/// Which letters.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub struct Which {
    /// Their ids
    #[arg(value_parser = letter)]
    ids: Vec<String>,
    /// All that are there now
    #[arg(long)]
    all: bool,
}

fn letter(text: &str) -> Result<String, String> {
    if dead_letters::is_id(text) {
        Ok(text.to_owned())
    } else {
        Err("not a dead letter's id: two numbers with a - between them, as the list shows them".into())
    }
}

/// `jitctl dead …`.
pub async fn run(ctl: &mut Ctl<'_>, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { oldest, limit, cursor } => {
            let order = if oldest { Order::Oldest } else { Order::Newest };
            list(ctl, order, cursor.as_deref(), limit as usize).await
        }
        Command::Show { id } => show(ctl, &id).await,
        Command::Requeue(which) => each(ctl, which, true).await,
        Command::Drop(which) => each(ctl, which, false).await,
    }
}

async fn list(ctl: &mut Ctl<'_>, order: Order, cursor: Option<&str>, limit: usize) -> anyhow::Result<ExitCode> {
    let page = dead_letters::list(ctl.ledger.pool(), order, cursor, limit).await?;
    if ctl.is_json() {
        let letters: Vec<_> = page.letters.iter().map(render::letter).collect();
        ctl.json(&json!({ "dead_letters": letters, "next_cursor": page.next }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = ctl.now;
    let row = |letter: &DeadLetter| {
        let event = letter.event();
        let job = event.as_ref().map_or_else(|| "-".into(), |event| event.job.to_string());
        let action = event.map_or("-", |event| event.action.as_str()).to_owned();
        let age = letter.died_at().map_or_else(|| "-".into(), |at| time::ago(now - at));
        vec![
            letter.id.clone(),
            age,
            letter.stream.clone(),
            job,
            action,
            letter.reason.replace(char::is_control, " "),
        ]
    };
    table::print(
        ctl.out,
        &["ID", "AGE", "STREAM", "JOB", "ACTION", "REASON"],
        page.letters.iter().map(row).collect(),
    )?;
    if let Some(next) = page.next {
        note(&format!("there are more: --cursor {next}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(ctl: &mut Ctl<'_>, id: &str) -> anyhow::Result<ExitCode> {
    let found = dead_letters::one(ctl.ledger.pool(), id).await?;
    let letter = render::letter(&found.ok_or_else(|| anyhow::anyhow!("{id}: {GONE}"))?);
    if ctl.is_json() {
        ctl.json(&letter)?;
        return Ok(ExitCode::SUCCESS);
    }
    let line = |name: &str, value: &Value| {
        vec![
            name.to_owned(),
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
                .replace(char::is_control, " "),
        ]
    };
    let mut rows: Vec<_> = letter
        .iter()
        .filter(|(name, _)| *name != "entry")
        .map(|(name, value)| line(name, value))
        .collect();
    let fields = letter.get("entry").and_then(Value::as_object).into_iter().flatten();
    rows.extend(fields.map(|(name, value)| line(&format!("entry.{name}"), value)));
    table::print(ctl.out, &["FIELD", "VALUE"], rows)?;
    Ok(ExitCode::SUCCESS)
}

const GONE: &str = "no such dead letter: it was requeued, dropped or pushed out by newer ones";

/// Requeues or drops letters, and tells of each. Exit status 1 when one was not there or stayed where it is.
async fn each(ctl: &mut Ctl<'_>, which: Which, back: bool) -> anyhow::Result<ExitCode> {
    let ids = if which.all { all(ctl).await? } else { which.ids };
    let (mut told, mut failed) = (Vec::new(), false);
    for id in ids {
        let (result, entry, sentence) = if back {
            match dead_letters::requeue(ctl.ledger.pool(), &id).await? {
                Requeued::Back { stream, id: entry } => (
                    "requeued",
                    Some(entry.clone()),
                    format!("is back in {stream} as {entry}"),
                ),
                Requeued::Dropped => (
                    "dropped",
                    None,
                    "held a reservation, which is long gone: dropped".to_owned(),
                ),
                Requeued::Stuck { stream } => (
                    "stuck",
                    None,
                    format!("came from {stream:?}, into which nothing is put back: jitctl dead drop {id}"),
                ),
                Requeued::Unknown => ("unknown", None, GONE.to_owned()),
            }
        } else if dead_letters::remove(ctl.ledger.pool(), &id).await? {
            ("dropped", None, "dropped".to_owned())
        } else {
            ("unknown", None, GONE.to_owned())
        };
        // With --all, one that went meanwhile is what was wanted.
        failed |= result == "stuck" || (result == "unknown" && !which.all);
        if !ctl.is_json() {
            writeln!(ctl.out, "{id} {sentence}")?;
        }
        let mut line = json!({ "id": id, "result": result });
        if let Some(entry) = entry {
            line["entry_id"] = json!(entry);
        }
        told.push(line);
    }
    if ctl.is_json() {
        ctl.json(&json!({ "dead_letters": told }))?;
    } else if told.is_empty() {
        writeln!(ctl.out, "there are no dead letters")?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The ids of all that are there now, the oldest first: not those that die while they are worked on, perhaps over and
/// over.
async fn all(ctl: &Ctl<'_>) -> anyhow::Result<Vec<String>> {
    let (mut ids, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let page = dead_letters::list(ctl.ledger.pool(), Order::Oldest, cursor.as_deref(), PAGE).await?;
        ids.extend(page.letters.into_iter().map(|letter| letter.id));
        match page.next {
            Some(next) => cursor = Some(next),
            None => return Ok(ids),
        }
    }
}
