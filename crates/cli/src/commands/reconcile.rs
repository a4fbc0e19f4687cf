//! `reconcile`: what became of each line that was enqueued.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Lookup;
use nightshift_core::reconcile::{Fate, SentJob, fate};
use nightshift_core::record::Record;
use nightshift_ports::LedgerReader;
use serde::Serialize;

use crate::Context;
use crate::error::{self, Failure};
use crate::ledger;
use crate::letters;
use crate::receipt::{self, Entry};
use crate::render::{Cell, Row, Rows, say};
use crate::stack::Stack;
use crate::text::{agreeing, counted};
use crate::times;

/// Records that are asked for in one request.
const LINES_AT_A_TIME: usize = 25;
/// `enqueue` tells of a line when its batch has come back, and of a bad one at once: so many lines may stand before it.
const LINES_OUT_OF_ORDER: usize = 2_000;

/// Says what became of each line.
#[derive(Debug, Args)]
#[command(after_help = "\
A line has a result, is a dead letter, waits for a review, waits in the queue, was erased, was not sent, or is missing: no \
record, and no message left that could become one. The exit code is 0 when each line is settled, and 3 otherwise, lines that \
were not sent included.
Lists what is not a result, or all with --all.

Examples:
  nightshift reconcile jobs.jsonl.receipt
  nightshift reconcile jobs.jsonl.receipt --all --output csv > fates.csv")]
pub struct Arguments {
    /// The receipt that `enqueue` wrote.
    receipt: PathBuf,
    /// List every line, results too.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    line: u64,
    fate: &'static str,
    reason: Option<String>,
    key: Option<InputHash>,
}

impl Row for Line {
    const COLUMNS: &'static [&'static str] = &["LINE", "FATE", "REASON", "KEY"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(self.line),
            Cell::ours(self.fate),
            Cell::maybe_said(self.reason.as_deref()),
            Cell::maybe(self.key.as_ref()),
        ]
    }
}

/// How many of each.
#[derive(Debug, Default)]
struct Counts {
    results: u64,
    dead_letters: u64,
    reviews: u64,
    waiting: u64,
    erased: u64,
    missing: u64,
    unreadable: u64,
    not_sent: u64,
}

impl Counts {
    fn add(&mut self, fate: Fate) {
        *match fate {
            Fate::Result => &mut self.results,
            Fate::Review => &mut self.reviews,
            Fate::DeadLetter(_) => &mut self.dead_letters,
            Fate::Waiting => &mut self.waiting,
            Fate::Erased => &mut self.erased,
            Fate::Missing => &mut self.missing,
        } += 1;
    }

    fn sentence(&self) -> String {
        format!(
            "{}, {}, {} to review, {} waiting, {} missing, {} not sent{}{}",
            counted(self.results, "result"),
            counted(self.dead_letters, "dead letter"),
            self.reviews,
            self.waiting,
            self.missing,
            self.not_sent,
            if self.erased == 0 { String::new() } else { format!(", {} erased", self.erased) },
            if self.unreadable == 0 {
                String::new()
            } else {
                format!(", {} that this build cannot read", self.unreadable)
            }
        )
    }

    fn is_complete(&self) -> bool {
        self.waiting + self.missing + self.unreadable + self.not_sent == 0
    }
}

/// What the receipt says of a line.
enum Told {
    Sent { key: InputHash, message_id: String, sent_ms: u64 },
    NotSent { reason: String },
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let mut entries = receipt::read(&arguments.receipt)?;
    let stack = context.stack().await?;
    if entries.head.queue_url != stack.jobs_url {
        return Err(Failure::usage(format!(
            "{} is the receipt of what was sent to {}: name that stack with --prefix and --region.",
            arguments.receipt.display(),
            entries.head.queue_url
        )));
    }
    let queued = is_queued(&stack).await?;
    let reader = ledger::of(&stack);
    let mut report = Report {
        rows: context.out.before_verdict().streamed(),
        all: arguments.all,
        counts: Counts::default(),
    };
    let mut by_line = BTreeMap::new();
    let mut told = 0_u64;
    while let Some(entry) = entries.next()? {
        let (line, said) = match entry {
            Entry::Sent { line, key, message_id, sent_ms } => {
                (line, Told::Sent { key: InputHash::from_stored(key), message_id, sent_ms })
            }
            Entry::Bad { line, not_sent } => (line, Told::NotSent { reason: not_sent }),
            Entry::Sending { .. } => continue,
        };
        told += 1;
        by_line.insert((line, told), said);
        if by_line.len() >= LINES_OUT_OF_ORDER + LINES_AT_A_TIME {
            report.next(&reader, &mut by_line, queued).await?;
        }
    }
    while !by_line.is_empty() {
        report.next(&reader, &mut by_line, queued).await?;
    }
    let Report { rows, mut counts, .. } = report;
    rows.end()?;
    // Lines that stand in no entry were never reached: the enqueue did not come to its end.
    let unsent = entries.head.lines.saturating_sub(told);
    counts.not_sent += unsent;
    if unsent > 0 {
        say(&format!(
            "{}: run the same `nightshift enqueue` again.",
            unsent_lines(unsent, entries.perhaps.min(unsent))
        ));
    }
    say(&format!("{}.", counts.sentence()));
    if counts.is_complete() { Ok(()) } else { Err(Failure::no("Not every line is settled.")) }
}

/// Of lines of which nothing is told, some may have been sent when the command was stopped.
fn unsent_lines(unsent: u64, perhaps: u64) -> String {
    let never = unsent - perhaps;
    match (never, perhaps) {
        (0, perhaps) => counted(perhaps, "line") + " may have been sent when the enqueue was stopped",
        (never, 0) => counted(never, "line") + agreeing(never, " was", " were") + " not sent yet",
        (never, perhaps) => format!("{}, and {perhaps} may have been", unsent_lines(never, 0)),
    }
}

struct Report {
    rows: Rows<Line>,
    all: bool,
    counts: Counts,
}

impl Report {
    /// Asks for the first lines, and says what became of them.
    async fn next(
        &mut self,
        reader: &dyn LedgerReader,
        by_line: &mut BTreeMap<(u64, u64), Told>,
        queued: bool,
    ) -> Result<(), Failure> {
        let first: Vec<_> = std::iter::from_fn(|| by_line.pop_first()).take(LINES_AT_A_TIME).collect();
        let key = |(_, told): &(_, Told)| match told {
            Told::Sent { key, .. } => Some(key.clone()),
            Told::NotSent { .. } => None,
        };
        let keys: Vec<_> = first.iter().filter_map(key).collect();
        let mut found = reader.get_many(&keys).await.map_err(|e| error::of_port(&e))?.into_iter();
        let now_ms = times::now_ms();
        for ((line, _), told) in first {
            match told {
                Told::NotSent { reason } => {
                    self.counts.not_sent += 1;
                    self.rows.write(&Line { line, fate: "not_sent", reason: Some(reason), key: None })?;
                }
                Told::Sent { key, message_id, sent_ms } => {
                    let lookup = found.next().unwrap_or(Lookup::Absent);
                    let job = SentJob { message_id: &message_id, sent_ms };
                    self.tell(line, key, lookup, |record| fate(record, job, queued, now_ms))?;
                }
            }
        }
        Ok(())
    }

    fn tell(
        &mut self,
        line: u64,
        key: InputHash,
        lookup: Lookup,
        fate: impl FnOnce(Option<&Record>) -> Fate,
    ) -> Result<(), Failure> {
        if let Lookup::Unreadable(why) = lookup {
            self.counts.unreadable += 1;
            return self.rows.write(&Line { line, fate: "unreadable", reason: Some(why), key: Some(key) });
        }
        let fate = fate(lookup.record());
        self.counts.add(fate);
        let reason = match fate {
            Fate::DeadLetter(reason) => Some(reason.to_string()),
            _ => None,
        };
        if !self.all && fate == Fate::Result {
            return Ok(());
        }
        self.rows.write(&Line { line, fate: fate.as_str(), reason, key: Some(key) })
    }
}

/// Whether the jobs queue, or what SQS gave up on, holds anything; SQS counts approximately, so an empty look is repeated.
async fn is_queued(stack: &Stack) -> Result<bool, Failure> {
    for _look in 0..3 {
        for url in [stack.jobs_url.clone(), stack.crashed_url()] {
            if letters::look(stack, &url).await?.messages > 0 {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
