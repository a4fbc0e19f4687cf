//! `results get` and `results export`: the answers, which only these commands show; `results delete` has a file of its own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use nightshift_aws::DynamoLedger;
use nightshift_core::cost::usd;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Lookup, ResultSelection, Review};
use nightshift_core::record::{Done, Record, State};
use nightshift_ports::LedgerReader as _;
use serde::Serialize;
use serde_json::Value;

use super::results_delete;
use crate::Context;
use crate::error::{self, Failure};
use crate::export::{self, Written};
use crate::ledger;
use crate::render::{Cell, Row, Rows, say};
use crate::times;

/// The answers.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The results under these keys.
    #[command(after_help = "\
`nightshift jobs show --reference TEXT` says the key of a job whose reference you know.

Examples:
  nightshift results get 3ed7af6e0c5f…
  nightshift results get 3ed7af6e0c5f… --output json | jq .output")]
    Get(GetArguments),
    /// All results that are asked for, one line each, on standard output or into a private file.
    #[command(after_help = "\
The whole table is read, since it has no index of results; what that costs is said before. Rows come in no order.
CSV is safe for spreadsheets: what they would run as a formula has a ' before it, unless --exact is given. \
It is UTF-8: import it as that (Data, From Text/CSV), since a double click may garble letters beyond ASCII.

Examples:
  nightshift results export --task categorize_ticket --since yesterday --output json > results.jsonl
  nightshift results export --review needed --output csv --to to-review.csv")]
    Export(ExportArguments),
    /// Erases what is known of these jobs: record, result, kept message, dead letters, crashed messages.
    #[command(after_help = "\
A tombstone stands in the record's place for 29 days: no worker in flight writes it again, and no message from before is \
worked on; a new message with the same input is a new request. Repeat the command as often as you like.

Examples:
  nightshift results delete 3ed7af6e0c5f… --reason 'request 12 of the data protection officer'
  nightshift results delete --job job.json --reason 'request 12'
  nightshift results delete --reference ticket-4711 --reason 'request 12'")]
    Delete(results_delete::Arguments),
}

/// Which keys.
#[derive(Debug, Args)]
pub struct GetArguments {
    /// Keys of records: input hashes.
    #[arg(required = true, value_parser = ledger::key)]
    keys: Vec<InputHash>,
}

/// Which results, and where to.
#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Of this task; may be given more than once.
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Finished at this time or later.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    since: Option<u64>,
    /// Finished before this time.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    until: Option<u64>,
    /// Made by this revision: the hash of prompt, schema and model settings.
    #[arg(long, value_name = "HASH")]
    revision: Option<String>,
    /// What has still to be reviewed, what was, or what need not be.
    #[arg(long, value_enum)]
    review: Option<ReviewWord>,
    /// Into this new file, which only you may read.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// How a result stands with reviewers.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ReviewWord {
    /// A person should look at it.
    Needed,
    /// A person has.
    Done,
    /// Nobody need.
    None,
}

#[derive(Debug, Serialize)]
struct Shown {
    key: InputHash,
    task: Option<String>,
    reference: Option<String>,
    output: Value,
    needs_review: bool,
    reviewed: bool,
    model: String,
    revision: String,
    finished_at: String,
    model_calls: u32,
    cost_usd: f64,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &[
        "KEY",
        "TASK",
        "REFERENCE",
        "OUTPUT",
        "NEEDS REVIEW",
        "REVIEWED",
        "MODEL",
        "REVISION",
        "FINISHED AT",
        "MODEL CALLS",
        "COST USD",
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.key),
            Cell::maybe_said(self.task.as_deref()),
            Cell::maybe_said(self.reference.as_deref()),
            Cell::said(self.output.to_string()),
            Cell::ours(self.needs_review),
            Cell::ours(self.reviewed),
            Cell::said(&*self.model),
            Cell::said(&*self.revision),
            Cell::ours(&self.finished_at),
            Cell::ours(self.model_calls),
            Cell::ours(format!("{:.6}", self.cost_usd)),
        ]
    }
}

impl Shown {
    fn of(record: Record, done: Done) -> Self {
        Self {
            key: record.key,
            task: record.task,
            reference: record.reference,
            output: done.output,
            needs_review: done.needs_review,
            reviewed: done.reviewed,
            model: done.model,
            revision: done.revision.hash,
            finished_at: times::shown(done.finished_at_ms),
            model_calls: record.budget.calls,
            cost_usd: usd(record.budget.cost_micro_usd),
        }
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Get(arguments) => get(&arguments, context).await,
        Command::Export(arguments) => export(&arguments, context).await,
        Command::Delete(arguments) => results_delete::run(&arguments, context).await,
    }
}

async fn get(arguments: &GetArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    ledger::read_each(&ledger::of(&stack), &arguments.keys, |key, lookup| {
        match result(lookup) {
            Ok(Some(shown)) => found.push(shown),
            Ok(None) => missing.push(key.to_string()),
            Err(why) => missing.push(format!("{key} ({why})")),
        }
        Ok(())
    })
    .await?;
    match &*found {
        [one] if arguments.keys.len() == 1 => context.out.one(one)?,
        _ => context.out.all(found)?,
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Failure::not_found(format!(
            "There is no result under {}: `nightshift jobs show` says how it stands.",
            missing.join(", ")
        )))
    }
}

/// The result in what was found, unless it is one no more.
fn result(lookup: Lookup) -> Result<Option<Shown>, String> {
    match lookup {
        Lookup::Found(standing) => {
            let mut record = standing.record;
            // DynamoDB deletes late; what has expired counts as gone.
            if record.expires_at_ms <= times::now_ms() {
                return Ok(None);
            }
            match std::mem::replace(&mut record.state, State::Open) {
                State::Done(done) => Ok(Some(Shown::of(record, *done))),
                _ => Ok(None),
            }
        }
        Lookup::Absent => Ok(None),
        Lookup::Unreadable(why) => Err(why),
    }
}

async fn export(arguments: &ExportArguments, context: &Context) -> Result<(), Failure> {
    let selection = ResultSelection {
        tasks: arguments.tasks.clone(),
        finished_after_ms: arguments.since,
        finished_before_ms: arguments.until,
        revision: arguments.revision.clone(),
        review: arguments.review.map(|word| match word {
            ReviewWord::Needed => Review::Needed,
            ReviewWord::Done => Review::Done,
            ReviewWord::None => Review::None,
        }),
    };
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let size = reader.size().await.map_err(|e| error::of_port(&e))?;
    say(&ledger::scan_cost(&size));
    let mut rows = export::begin(arguments.to.as_ref(), context)?;
    let written = write_results(&reader, &selection, &mut rows).await;
    export::end(rows, written, arguments.to.as_ref(), "result")
}

/// All of them.
async fn write_results(
    reader: &DynamoLedger,
    selection: &ResultSelection,
    rows: &mut Rows<Shown>,
) -> Result<Written, Failure> {
    let (mut exported, mut unreadable, mut after) = (0_u64, 0_u64, None);
    loop {
        let page =
            reader.scan_for_results(selection, after.as_ref()).await.map_err(|e| error::of_port(&e))?;
        for (_, lookup) in page.found {
            match result(lookup) {
                Ok(Some(shown)) => {
                    exported += 1;
                    rows.write(&shown)?;
                }
                Ok(None) => {}
                Err(_) => unreadable += 1,
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(Written { exported, unreadable });
        }
    }
}
