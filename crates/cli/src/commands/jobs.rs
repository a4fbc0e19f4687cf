//! `jobs show`: one job by key, by its input, by a line of a receipt, or by its reference.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use nightshift_aws::DynamoLedger;
use nightshift_core::cost::usd;
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::listing::{Lookup, Standing};
use nightshift_core::message::MESSAGE_BYTES_MAX;
use nightshift_core::record::{PastFailure, State};
use nightshift_ports::LedgerReader;
use serde::Serialize;

use crate::Context;
use crate::commands::job_logs;
use crate::confirm;
use crate::error::{self, Failure};
use crate::files;
use crate::ledger;
use crate::letters;
use crate::receipt::{self, Entry};
use crate::render::{Cell, Row, say};
use crate::times;

/// Single jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything that the ledger knows of one job, but for its input and its answer.
    #[command(after_help = "\
By reference the whole table is looked through, since it has no index of them; what that costs is said before.

Examples:
  nightshift jobs show 3ed7af6e0c5f…
  nightshift jobs show --job ticket.json
  nightshift jobs show --receipt jobs.jsonl.receipt --line 17
  nightshift jobs show --reference ticket-4711 --yes")]
    Show(ShowArguments),
    /// What the worker's log says of one job, a line each.
    #[command(after_help = "\
The log holds no input and no answer. It is looked through by key, which takes longer the more it holds.

Examples:
  nightshift jobs logs 3ed7af6e0c5f…
  nightshift jobs logs 3ed7af6e0c5f… --since 2h --output json | jq .said")]
    Logs(job_logs::Arguments),
}

/// Which job.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["key", "job", "receipt", "reference"]))]
pub struct ShowArguments {
    /// The key of its record: the input hash.
    #[arg(value_parser = ledger::key)]
    key: Option<InputHash>,
    /// A file with the job as it was sent; - is standard input.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// The receipt of an `enqueue`, with --line.
    #[arg(long, value_name = "FILE", requires = "line")]
    receipt: Option<PathBuf>,
    /// The line of the file that was sent.
    #[arg(long, value_name = "N", requires = "receipt")]
    line: Option<u64>,
    /// The reference of the first job with that input.
    #[arg(long)]
    reference: Option<String>,
    /// Do not ask before the whole table is looked through.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Shown {
    key: InputHash,
    state: &'static str,
    task: Option<String>,
    reference: Option<String>,
    first_received_at: String,
    last_claimed_at: String,
    settled_at: Option<String>,
    reason: Option<String>,
    detail: Option<String>,
    needs_review: Option<bool>,
    reviewed: Option<bool>,
    model: Option<String>,
    revision: Option<String>,
    lease_until: Option<String>,
    claims: u32,
    model_calls: u32,
    reasks: u32,
    crashes: u32,
    input_tokens: u64,
    output_tokens: u64,
    cost_usd: f64,
    duplicates: u64,
    redrives: u32,
    earlier_failures: Vec<PastFailure>,
    message_id: String,
    expires_at: String,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &[
        "KEY",
        "STATE",
        "TASK",
        "REFERENCE",
        "FIRST RECEIVED",
        "LAST CLAIMED",
        "SETTLED",
        "REASON",
        "DETAIL",
        "NEEDS REVIEW",
        "REVIEWED",
        "MODEL",
        "REVISION",
        "LEASE UNTIL",
        "CLAIMS",
        "MODEL CALLS",
        "RE-ASKS",
        "CRASHES",
        "INPUT TOKENS",
        "OUTPUT TOKENS",
        "COST USD",
        "DUPLICATES",
        "REDRIVES",
        "EARLIER FAILURES",
        "MESSAGE",
        "EXPIRES",
    ];

    fn cells(&self) -> Vec<Cell> {
        let earlier: Vec<_> = self
            .earlier_failures
            .iter()
            .map(|past| format!("{} at {}", past.reason, times::shown(past.failed_at_ms)))
            .collect();
        vec![
            Cell::ours(&self.key),
            Cell::ours(self.state),
            Cell::maybe_said(self.task.as_deref()),
            Cell::maybe_said(self.reference.as_deref()),
            Cell::ours(&self.first_received_at),
            Cell::ours(&self.last_claimed_at),
            Cell::maybe(self.settled_at.as_ref()),
            Cell::maybe(self.reason.as_ref()),
            Cell::maybe_said(self.detail.as_deref()),
            Cell::maybe(self.needs_review),
            Cell::maybe(self.reviewed),
            Cell::maybe_said(self.model.as_deref()),
            Cell::maybe_said(self.revision.as_deref()),
            Cell::maybe(self.lease_until.as_ref()),
            Cell::ours(self.claims),
            Cell::ours(self.model_calls),
            Cell::ours(self.reasks),
            Cell::ours(self.crashes),
            Cell::ours(self.input_tokens),
            Cell::ours(self.output_tokens),
            Cell::ours(format!("{:.6}", self.cost_usd)),
            Cell::ours(self.duplicates),
            Cell::ours(self.redrives),
            if earlier.is_empty() { Cell::Nothing } else { Cell::said(earlier.join(", ")) },
            Cell::said(&*self.message_id),
            Cell::ours(&self.expires_at),
        ]
    }
}

impl From<Standing> for Shown {
    fn from(Standing { record, duplicates }: Standing) -> Self {
        let mut shown = Self {
            state: record.state.as_str(),
            first_received_at: times::shown(record.first_received_ms),
            last_claimed_at: times::shown(record.last_claimed_ms),
            settled_at: None,
            reason: None,
            detail: None,
            needs_review: None,
            reviewed: None,
            model: None,
            revision: None,
            lease_until: None,
            claims: record.budget.claims,
            model_calls: record.budget.calls,
            reasks: record.budget.reasks,
            crashes: record.budget.crashes,
            input_tokens: record.budget.usage.input_tokens,
            output_tokens: record.budget.usage.output_tokens,
            cost_usd: usd(record.budget.cost_micro_usd),
            duplicates,
            redrives: record.redrives,
            expires_at: times::shown(record.expires_at_ms),
            key: record.key,
            task: record.task,
            reference: record.reference,
            earlier_failures: record.history,
            message_id: record.message_id,
        };
        match record.state {
            State::Open => {}
            State::Erased => {
                shown.settled_at = record.erased.map(|erasure| times::shown(erasure.at_ms));
            }
            State::Claimed { lease_until_ms, .. } => shown.lease_until = Some(times::shown(lease_until_ms)),
            State::Done(done) => {
                shown.settled_at = Some(times::shown(done.finished_at_ms));
                shown.needs_review = Some(done.needs_review);
                shown.reviewed = Some(done.reviewed);
                shown.model = Some(done.model);
                shown.revision = Some(done.revision.hash);
            }
            State::Failed(failed) => {
                shown.settled_at = Some(times::shown(failed.failed_at_ms));
                shown.reason = Some(failed.reason.to_string());
                shown.detail = Some(failed.detail);
                shown.revision = Some(failed.revision.hash);
            }
        }
        shown
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    let arguments = match command {
        Command::Show(arguments) => arguments,
        Command::Logs(arguments) => return job_logs::run(&arguments, context).await,
    };
    let stack = context.stack().await?;
    let key = match (&arguments.key, &arguments.job, &arguments.receipt, &arguments.line) {
        (Some(key), ..) => Some(key.clone()),
        (_, Some(file), ..) => keys_of_job(file, stack.worker()?.limits.body_bytes_max)?.into_iter().next(),
        (_, _, Some(file), Some(line)) => Some(key_of_line(file, *line)?),
        _ => None,
    };
    let reader = ledger::of(&stack);
    match (key, &arguments.reference) {
        (Some(key), _) => match reader.get(&key).await.map_err(|e| error::of_port(&e))? {
            Lookup::Found(standing) => context.out.one(&Shown::from(*standing)),
            Lookup::Absent => Err(Failure::not_found(format!(
                "The ledger knows nothing of {key}: no worker has received it yet, or its record has expired."
            ))),
            Lookup::Unreadable(why) => Err(ledger::unreadable(&why)),
        },
        (None, Some(reference)) => by_reference(&reader, reference, arguments.yes, context).await,
        (None, None) => {
            Err(Failure::usage("Say which job: a key, --job, --receipt with --line, or --reference."))
        }
    }
}

/// The keys that the record of a job in a file can have, first that which a worker with this limit gives it, in bytes: what
/// is no job to it, or larger, it keys by the body.
pub(super) fn keys_of_job(file: &Path, body_bytes_max: usize) -> Result<Vec<InputHash>, Failure> {
    let mut body = String::new();
    let read: Box<dyn Read> =
        if file.as_os_str() == "-" { Box::new(std::io::stdin()) } else { Box::new(files::open(file)?) };
    let read = read.take(MESSAGE_BYTES_MAX as u64 + 1).read_to_string(&mut body);
    read.map_err(|error| Failure::of_path(file, "read", &error))?;
    let body = body.trim_end_matches('\n');
    let mut keys = letters::keys_of_body(body);
    match job::parse(body, body_bytes_max) {
        Ok(_) => keys.truncate(1),
        Err(rejection) => {
            say(&format!("This is no job ({rejection}), so it is looked for by its body."));
            keys.reverse();
        }
    }
    Ok(keys)
}

fn key_of_line(file: &Path, wanted: u64) -> Result<InputHash, Failure> {
    let mut entries = receipt::read(file)?;
    let mut found = None;
    while let Some(entry) = entries.next()? {
        match entry {
            Entry::Sent { line, key, .. } if line == wanted => found = Some(InputHash::from_stored(key)),
            Entry::Bad { line, not_sent } if line == wanted => {
                return Err(Failure::not_found(format!("Line {wanted} was not sent: {not_sent}.")));
            }
            _ => {}
        }
    }
    found.ok_or_else(|| Failure::not_found(format!("{} has no line {wanted} that was sent.", file.display())))
}

async fn by_reference(
    reader: &DynamoLedger,
    reference: &str,
    yes: bool,
    context: &Context,
) -> Result<(), Failure> {
    let size = reader.size().await.map_err(|e| error::of_port(&e))?;
    confirm::ask(yes, &ledger::scan_cost(&size)).await?;
    let mut rows = context.out.rows::<Shown>();
    let (mut after, mut found) = (None, 0_u64);
    loop {
        let page =
            reader.scan_for_reference(reference, after.as_ref()).await.map_err(|e| error::of_port(&e))?;
        for (key, lookup) in page.found {
            found += 1;
            match lookup {
                Lookup::Found(standing) => rows.write(&Shown::from(*standing))?,
                Lookup::Unreadable(why) => say(&format!("{key} cannot be read by this build: {why}.")),
                Lookup::Absent => {}
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if found == 0 {
        return Err(Failure::not_found(
            "No record has this reference; a record keeps the reference of the first job with its input alone.",
        ));
    }
    rows.end()
}
