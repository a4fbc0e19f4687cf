//! `dead-letters list`, `show`, `export`: what failed, from the ledger. No message is received, hidden or counted.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use nightshift_aws::DynamoLedger;
use nightshift_core::cost::usd;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Lookup, Order, Selection, Unsettled};
use nightshift_core::record::{Failed, PastFailure, Record, State};
use serde::Serialize;

use crate::Context;
use crate::confirm;
use crate::error::Failure;
use crate::export::{self, Written};
use crate::ledger::{self, Entries};
use crate::letters::{self, Look};
use crate::render::{Cell, Row, Rows, say};
use crate::stack::Stack;
use crate::text::{agreeing, counted};
use crate::times;

/// What failed for good.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How many failed, by reason, task and hour; or each of them.
    #[command(after_help = "\
It reads the ledger, which knows of a failure for as long as `ledger.failure_expiry_days` says; what SQS gave up on by \
itself lies in the queue `crashed`, of which the ledger may know nothing.

Examples:
  nightshift dead-letters list
  nightshift dead-letters list --reason invalid_output --since yesterday
  nightshift dead-letters list --task weekly_report --each --output json | jq -r .key")]
    List(ListArguments),
    /// Everything that is known of one failure.
    #[command(after_help = "\
Examples:
  nightshift dead-letters show 3ed7af6e0c5f…
  nightshift dead-letters show 3ed7af6e0c5f… --excerpt
  nightshift dead-letters show 3ed7af6e0c5f… --body --yes")]
    Show(ShowArguments),
    /// Everything that is known of each failure, one line each, on standard output or into a private file.
    #[command(after_help = "\
Examples:
  nightshift dead-letters export --since 2d > failed.jsonl
  nightshift dead-letters export --reason refused --output csv --to refused.csv")]
    Export(ExportArguments),
    /// Compares ledger and queue. It receives every message, which hides it for a while and counts as a receive.
    #[command(after_help = "\
Lists what stands in one of the two alone, and what is in the queue more than once; the exit code is 3 where a failure has \
no letter, or a letter no failure. What is redriven or fails meanwhile may be listed: ask again.

Examples:
  nightshift dead-letters audit
  nightshift dead-letters audit --yes --output json")]
    Audit(AuditArguments),
}

/// Which failures.
#[derive(Debug, Clone, Args)]
pub struct Filter {
    /// Of this reason; may be given more than once.
    #[arg(long = "reason", visible_alias = "failure", value_name = "REASON", value_parser = reason)]
    reasons: Vec<FailureReason>,
    /// Of this task; may be given more than once.
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Failed at this time or later.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    since: Option<u64>,
    /// Failed before this time.
    #[arg(long, value_name = "TIME", value_parser = times::argument)]
    until: Option<u64>,
}

/// A reason, as somebody typed it.
pub fn reason(word: &str) -> Result<FailureReason, String> {
    FailureReason::ALL.iter().copied().find(|reason| reason.as_str() == word).ok_or_else(|| {
        let known: Vec<_> = FailureReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("there are: {}", known.join(", "))
    })
}

impl Filter {
    fn selection(&self) -> Selection {
        Selection {
            reasons: self.reasons.clone(),
            tasks: self.tasks.clone(),
            failed_after_ms: self.since,
            failed_before_ms: self.until,
            ..Selection::all(Unsettled::Failed)
        }
    }
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    filter: Filter,
    /// Each failure by itself, newest first, instead of counts.
    #[arg(long)]
    each: bool,
    /// At most so many of --each.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
}

/// Which one.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The key of its record: the input hash.
    #[arg(value_parser = ledger::key)]
    key: InputHash,
    /// Also what the model said last, cut.
    #[arg(long)]
    excerpt: bool,
    /// Also the body of its message. Unless the ledger keeps that, the dead-letters queue is received for it, which hides
    /// every message for a while and counts as a receive.
    #[arg(long)]
    body: bool,
    /// Do not ask; without a terminal nothing is received unless this is given.
    #[arg(long)]
    yes: bool,
}

/// Where to.
#[derive(Debug, Args)]
pub struct ExportArguments {
    #[command(flatten)]
    filter: Filter,
    /// Also what the model said last, cut.
    #[arg(long)]
    excerpt: bool,
    /// Into this new file, which only you may read.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Whether to ask.
#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Do not ask; without a terminal nothing is received unless this is given.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Serialize)]
struct Difference {
    key: InputHash,
    found: String,
}

/// Where a failed job stands.
enum Found {
    OnlyInTheLedger,
    OnlyInTheQueue,
    Times(u64),
}

impl Found {
    /// More than one letter of a job is no fault.
    fn is_one_sided(&self) -> bool {
        !matches!(self, Self::Times(_))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyInTheLedger => f.write_str("only in the ledger"),
            Self::OnlyInTheQueue => f.write_str("only in the queue"),
            Self::Times(copies) => write!(f, "{copies} times in the queue"),
        }
    }
}

impl Row for Difference {
    const COLUMNS: &'static [&'static str] = &["KEY", "FOUND"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::ours(&self.key), Cell::ours(&self.found)]
    }
}

#[derive(Debug, Serialize)]
struct Group {
    reason: String,
    task: Option<String>,
    hour: String,
    count: u64,
}

impl Row for Group {
    const COLUMNS: &'static [&'static str] = &["REASON", "TASK", "HOUR", "COUNT"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::said(&*self.reason),
            Cell::maybe_said(self.task.as_deref()),
            Cell::ours(&self.hour),
            Cell::ours(self.count),
        ]
    }
}

#[derive(Debug, Serialize)]
struct Listed {
    key: InputHash,
    reason: Option<String>,
    task: Option<String>,
    failed_at: Option<String>,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["KEY", "REASON", "TASK", "FAILED AT"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.key),
            Cell::maybe_said(self.reason.as_deref()),
            Cell::maybe_said(self.task.as_deref()),
            Cell::maybe(self.failed_at.as_ref()),
        ]
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self {
            key: entry.key,
            reason: entry.reason,
            task: entry.task,
            failed_at: entry.settled_at_ms.map(times::shown),
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    key: InputHash,
    task: Option<String>,
    reference: Option<String>,
    reason: FailureReason,
    detail: String,
    failed_at: String,
    first_received_at: String,
    claims: u32,
    model_calls: u32,
    reasks: u32,
    crashes: u32,
    cost_usd: f64,
    redrives: u32,
    message_id: String,
    provider_request_id: Option<String>,
    revision: String,
    earlier_failures: Vec<PastFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excerpt: Option<String>,
    /// There is one that a person is to be told of.
    #[serde(skip)]
    hides_excerpt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &[
        "KEY",
        "TASK",
        "REFERENCE",
        "REASON",
        "DETAIL",
        "FAILED AT",
        "FIRST RECEIVED",
        "CLAIMS",
        "MODEL CALLS",
        "RE-ASKS",
        "CRASHES",
        "COST USD",
        "REDRIVES",
        "MESSAGE",
        "PROVIDER REQUEST",
        "REVISION",
        "EARLIER FAILURES",
        "EXCERPT",
        "BODY",
    ];

    fn cells(&self) -> Vec<Cell> {
        let earlier = self
            .earlier_failures
            .iter()
            .map(|past| format!("{} at {}", past.reason, times::shown(past.failed_at_ms)));
        vec![
            Cell::ours(&self.key),
            Cell::maybe_said(self.task.as_deref()),
            Cell::maybe_said(self.reference.as_deref()),
            Cell::ours(self.reason),
            Cell::said(&*self.detail),
            Cell::ours(&self.failed_at),
            Cell::ours(&self.first_received_at),
            Cell::ours(self.claims),
            Cell::ours(self.model_calls),
            Cell::ours(self.reasks),
            Cell::ours(self.crashes),
            Cell::ours(format!("{:.6}", self.cost_usd)),
            Cell::ours(self.redrives),
            Cell::said(&*self.message_id),
            Cell::maybe_said(self.provider_request_id.as_deref()),
            Cell::ours(&self.revision),
            Cell::said(earlier.collect::<Vec<_>>().join(", ")),
            match &self.excerpt {
                Some(excerpt) => Cell::said(excerpt),
                None if self.hides_excerpt => Cell::ours("kept: --excerpt shows it"),
                None => Cell::Nothing,
            },
            Cell::maybe_said(self.body.as_deref()),
        ]
    }
}

impl Shown {
    fn of(record: &Record, failed: &Failed, excerpt: bool) -> Self {
        Self {
            key: record.key.clone(),
            task: record.task.clone(),
            reference: record.reference.clone(),
            reason: failed.reason,
            detail: failed.detail.clone(),
            failed_at: times::shown(failed.failed_at_ms),
            first_received_at: times::shown(record.first_received_ms),
            claims: record.budget.claims,
            model_calls: record.budget.calls,
            reasks: record.budget.reasks,
            crashes: record.budget.crashes,
            cost_usd: usd(record.budget.cost_micro_usd),
            redrives: record.redrives,
            message_id: record.message_id.clone(),
            provider_request_id: failed.request_id.clone(),
            revision: failed.revision.hash.clone(),
            earlier_failures: record.history.clone(),
            excerpt: failed.excerpt.clone().filter(|_| excerpt),
            hides_excerpt: false,
            body: None,
        }
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(arguments) if arguments.each => each(&arguments, context).await,
        Command::List(arguments) => groups(&arguments, context).await,
        Command::Show(arguments) => show(&arguments, context).await,
        Command::Export(arguments) => export(&arguments, context).await,
        Command::Audit(arguments) => audit(&arguments, context).await,
    }
}

async fn groups(arguments: &ListArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let mut entries = Entries::new(&reader, arguments.filter.selection(), Order::OldestFirst);
    let mut counts: BTreeMap<(String, Option<String>, u64), u64> = BTreeMap::new();
    while let Some(page) = entries.page().await? {
        for entry in page {
            let hour_ms = entry.settled_at_ms.unwrap_or(entry.first_received_ms) / 3_600_000 * 3_600_000;
            let reason = entry.reason.unwrap_or_else(|| "unknown".to_owned());
            *counts.entry((reason, entry.task, hour_ms)).or_default() += 1;
        }
    }
    context.out.all(counts.into_iter().map(|((reason, task, hour_ms), count)| Group {
        reason,
        task,
        hour: times::shown(hour_ms),
        count,
    }))
}

async fn each(arguments: &ListArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let entries = Entries::new(&reader, arguments.filter.selection(), Order::NewestFirst);
    entries.show::<Listed>(arguments.limit, "a narrower filter", context).await
}

async fn show(arguments: &ShowArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let record = ledger::record(&ledger::of(&stack), &stack, &arguments.key).await?;
    match &record.state {
        State::Failed(failed) => {
            let mut shown = Shown::of(&record, failed, arguments.excerpt);
            shown.hides_excerpt =
                context.out.is_for_people() && !arguments.excerpt && failed.excerpt.is_some();
            if arguments.body {
                shown.body = Some(body(&stack, &record, arguments.yes, context).await?);
            }
            context.out.one(&shown)
        }
        other => Err(Failure::not_found(format!(
            "This job has not failed; it is {}: `nightshift jobs show` has its story.",
            other.as_str()
        ))),
    }
}

/// The body of a failed job: of one that a reviewer rejected from the ledger, of every other one from its queue.
async fn body(stack: &Stack, record: &Record, yes: bool, context: &Context) -> Result<String, Failure> {
    if let Some(message) = super::review::message(&ledger::of(stack), record).await? {
        return Ok(message.body);
    }
    receive_from(stack, "to look for its body", yes).await?;
    context.interrupt.handle(letters::LEFT);
    let mut found = None;
    let limit = stack.worker()?.limits.body_bytes_max;
    letters::walk(stack, &stack.dead_letters_url, &context.interrupt, |message| {
        if letters::key(message, limit) == record.key {
            found = message.body.clone();
        }
    })
    .await?;
    found.ok_or_else(|| {
        Failure::not_found(
            "Its message is not in the dead-letters queue, or somebody else hides it just now: `nightshift redrive list` says whether a redrive runs.",
        )
    })
}

/// Says what receiving the whole queue does, and asks; returns how SQS describes the queue.
async fn receive_from(stack: &Stack, why: &str, yes: bool) -> Result<Look, Failure> {
    let queue = letters::look(stack, &stack.dead_letters_url).await?;
    letters::fits(queue.messages)?;
    confirm::ask(
        yes,
        &format!(
            "Receives all messages of {} in the dead-letters queue (about {}) {why}: they are hidden meanwhile, and it counts as a receive. Nothing is taken out.",
            stack.named(),
            queue.messages
        ),
    )
    .await?;
    Ok(queue)
}

async fn export(arguments: &ExportArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let mut entries = Entries::new(&reader, arguments.filter.selection(), Order::OldestFirst);
    let mut rows = export::begin(arguments.to.as_ref(), context)?;
    let written = write_failures(&reader, &mut entries, &mut rows, arguments.excerpt).await;
    export::end(rows, written, arguments.to.as_ref(), "failure")
}

/// All of them.
async fn write_failures(
    reader: &DynamoLedger,
    entries: &mut Entries<'_>,
    rows: &mut Rows<Shown>,
    excerpt: bool,
) -> Result<Written, Failure> {
    let (mut exported, mut unreadable) = (0_u64, 0_u64);
    while let Some(page) = entries.page().await? {
        let keys: Vec<_> = page.into_iter().map(|entry| entry.key).collect();
        ledger::read_each(reader, &keys, |_, lookup| {
            match &lookup {
                Lookup::Found(standing) => {
                    // What was settled between the two reads has not failed any more.
                    if let State::Failed(failed) = &standing.record.state {
                        exported += 1;
                        rows.write(&Shown::of(&standing.record, failed, excerpt))?;
                    }
                }
                Lookup::Unreadable(_) => unreadable += 1,
                Lookup::Absent => {}
            }
            Ok(())
        })
        .await?;
    }
    Ok(Written { exported, unreadable })
}

async fn audit(arguments: &AuditArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let queue = receive_from(&stack, "to compare them with the ledger", arguments.yes).await?;
    context.interrupt.handle(letters::LEFT);
    let (mut differences, mut unseen) = compare(&stack, queue, context).await?;
    if differences.iter().any(|(_, found)| found.is_one_sided()) {
        // A job that failed, or was sent on, after the look into the queue and before that into the ledger.
        let before: HashSet<_> = differences.into_iter().map(|(key, _)| key).collect();
        let queue = letters::look(&stack, &stack.dead_letters_url).await?;
        (differences, unseen) = compare(&stack, queue, context).await?;
        differences.retain(|(key, _)| before.contains(key));
    }
    if unseen > 0 {
        say(&format!(
            "About {} {} not seen, because somebody else held or took {}, say a redrive: what is only in the ledger may be among them.",
            counted(unseen, "message"),
            agreeing(unseen, "was", "were"),
            agreeing(unseen, "it", "them"),
        ));
    }
    let one_sided = differences.iter().filter(|(_, found)| found.is_one_sided()).count();
    let rows = differences.into_iter().map(|(key, found)| Difference { key, found: found.to_string() });
    context.out.before_verdict().all(rows)?;
    match one_sided {
        0 => Ok(()),
        n => Err(Failure::no(format!("Ledger and queue differ in {}.", counted(n as u64, "job")))),
    }
}

/// Looks into the queue and then into the ledger: what differs, and about how many messages it did not see.
async fn compare(
    stack: &Stack,
    queue: Look,
    context: &Context,
) -> Result<(Vec<(InputHash, Found)>, u64), Failure> {
    let mut letters_of: HashMap<InputHash, u64> = HashMap::new();
    let limit = stack.worker()?.limits.body_bytes_max;
    letters::walk(stack, &stack.dead_letters_url, &context.interrupt, |message| {
        *letters_of.entry(letters::key(message, limit)).or_default() += 1;
    })
    .await?;
    let unseen = queue.messages.saturating_sub(letters_of.values().sum());
    // An older letter has left the queue by its retention, which has an alarm of its own.
    let since_ms = times::now_ms().saturating_sub(queue.retention_ms);
    let selection = Selection { failed_after_ms: Some(since_ms), ..Selection::all(Unsettled::Failed) };
    let reader = ledger::of(stack);
    let mut entries = Entries::new(&reader, selection, Order::OldestFirst);
    let mut differences = Vec::new();
    while let Some(page) = entries.page().await? {
        for entry in page {
            match letters_of.remove(&entry.key) {
                Some(1) => {}
                Some(copies) => differences.push((entry.key, Found::Times(copies))),
                None => differences.push((entry.key, Found::OnlyInTheLedger)),
            }
        }
    }
    differences.extend(letters_of.into_keys().map(|key| (key, Found::OnlyInTheQueue)));
    Ok((differences, unseen))
}
