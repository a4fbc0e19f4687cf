//! `review`: what waits for a person, and what they decide on it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nightshift_aws::{DynamoLedger, OsEntropy, SqsDeadLetters};
use nightshift_core::dead_letter::dead_letter;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{self, KeptMessage};
use nightshift_core::limits::Limits;
use nightshift_core::listing::{Entry, Order, Selection, Unsettled};
use nightshift_core::record::{Record, RecordWrite, State, WriteAnswer};
use nightshift_core::review::{Edited, NotWaiting, Rejecting, Reviewer, edited, waiting};
use nightshift_core::task::Tasks as _;
use nightshift_ports::{DeadLetters as _, Entropy as _, Ledger as _, LedgerReader as _};
use serde::Serialize;
use serde_json::Value;

use crate::Context;
use crate::clock::Clock;
use crate::confirm::{self, Consent};
use crate::editor;
use crate::error::{self, Failure};
use crate::files;
use crate::ledger::{self, Entries};
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::trace::{self, Trace};
use crate::{text, times};

/// The longest output that is read, in bytes: more than any that can be stored.
const OUTPUT_BYTES_MAX: u64 = 1_048_576;

/// The name of an editor's copy, by whose end it knows what it is.
const EDITED: &str = "output.json";

/// What a Ctrl-C leaves that nobody waits for.
const LEFT: &str = "`nightshift jobs show` says whether the decision stands, and a rejection that is repeated sends the dead letter that it lacks";

/// Results that wait for a person's decision.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What waits, oldest first.
    #[command(after_help = "\
Examples:
  nightshift review list
  nightshift review list --task weekly_report --output json | jq -r .key")]
    List(ListArguments),
    /// One result, and the job that it was made for.
    #[command(after_help = "\
It shows the body of the job and the output. The version that it names is what --version takes.

Examples:
  nightshift review show 3ed7af6e0c5f…
  nightshift review show 3ed7af6e0c5f… --output json | jq .output")]
    Show(ShowArguments),
    /// Lets the result stand as it is, for good.
    #[command(after_help = "\
Examples:
  nightshift review accept 3ed7af6e0c5f… --reason 'read it, it is right'
  nightshift review accept 3ed7af6e0c5f… --version 3 --yes --reason 'read it'")]
    Accept(DecisionArguments),
    /// Puts an output of yours in its place, which the task has to accept like any other.
    #[command(after_help = "\
The output is opened in VISUAL or EDITOR, as a private copy that is removed afterwards. What you wrote and is not stored, \
because you said no or somebody was faster, is kept in a private file that is named.

Examples:
  nightshift review edit 3ed7af6e0c5f… --reason 'wrote the headline'
  nightshift review edit 3ed7af6e0c5f… --from report.json --yes --reason 'wrote it by hand'")]
    Edit(EditArguments),
    /// Makes a dead letter of it, with the original body and attributes.
    #[command(after_help = "\
Repeat it where it was stopped: the dead letter is sent unless it is known to be.

Examples:
  nightshift review reject 3ed7af6e0c5f… --reason 'the notes are of another team'")]
    Reject(DecisionArguments),
}

/// Which results.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Of this task; may be given more than once.
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u64,
}

/// Which one.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// The key of its record: the input hash.
    #[arg(value_parser = ledger::key)]
    key: InputHash,
}

/// On which one, and why.
#[derive(Debug, Args)]
pub struct DecisionArguments {
    /// The key of its record: the input hash.
    #[arg(value_parser = ledger::key)]
    key: InputHash,
    /// Only while it is the version that `review show` named.
    #[arg(long = "version", value_name = "N")]
    seen: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

/// On which one, why, and what instead.
#[derive(Debug, Args)]
pub struct EditArguments {
    #[command(flatten)]
    decision: DecisionArguments,
    /// The output, in a file or on standard input (-), instead of an editor.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Listed {
    key: InputHash,
    task: Option<String>,
    first_received_at: String,
    finished_at: Option<String>,
}

impl Row for Listed {
    const COLUMNS: &'static [&'static str] = &["KEY", "TASK", "FIRST RECEIVED", "FINISHED AT"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.key),
            Cell::maybe_said(self.task.as_deref()),
            Cell::ours(&self.first_received_at),
            Cell::maybe(self.finished_at.as_ref()),
        ]
    }
}

impl From<Entry> for Listed {
    fn from(entry: Entry) -> Self {
        Self {
            key: entry.key,
            task: entry.task,
            first_received_at: times::shown(entry.first_received_ms),
            finished_at: entry.settled_at_ms.map(times::shown),
        }
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    key: InputHash,
    task: Option<String>,
    reference: Option<String>,
    version: u64,
    output: Value,
    body: Option<String>,
    model: String,
    finished_at: String,
    expires_at: String,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] =
        &["KEY", "TASK", "REFERENCE", "VERSION", "OUTPUT", "BODY", "MODEL", "FINISHED AT", "EXPIRES AT"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.key),
            Cell::maybe_said(self.task.as_deref()),
            Cell::maybe_said(self.reference.as_deref()),
            Cell::ours(self.version),
            Cell::said(self.output.to_string()),
            Cell::maybe_said(self.body.as_deref()),
            Cell::said(&*self.model),
            Cell::ours(&self.finished_at),
            Cell::ours(&self.expires_at),
        ]
    }
}

#[derive(Debug, Serialize)]
struct Decided {
    key: InputHash,
    decision: String,
    by: String,
    version: u64,
}

impl Row for Decided {
    const COLUMNS: &'static [&'static str] = &["KEY", "DECISION", "BY", "VERSION"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::ours(&self.key),
            Cell::ours(&self.decision),
            Cell::said(&*self.by),
            Cell::ours(self.version),
        ]
    }
}

impl Decided {
    fn of(record: &Record) -> Self {
        let review = record.review();
        Self {
            key: record.key.clone(),
            decision: review.map(|review| review.decision.clone()).unwrap_or_default(),
            by: review.map(|review| review.by.clone()).unwrap_or_default(),
            version: record.version,
        }
    }
}

pub async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::List(arguments) => list(arguments, context).await,
        Command::Show(arguments) => show(&arguments, context).await,
        Command::Accept(arguments) => accept(&arguments, context).await,
        Command::Edit(arguments) => edit(&arguments, context).await,
        Command::Reject(arguments) => reject(&arguments, context).await,
    }
}

async fn list(arguments: ListArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let selection = Selection { tasks: arguments.tasks, ..Selection::all(Unsettled::NeedsReview) };
    let entries = Entries::new(&reader, selection, Order::OldestFirst);
    entries.show::<Listed>(arguments.limit, "--task", context).await
}

async fn show(arguments: &ShowArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let ledger = ledger::of(&stack);
    let record = ledger::record(&ledger, &stack, &arguments.key).await?;
    let done = waiting(&record, None, times::now_ms()).map_err(refused)?;
    let body = message(&ledger, &record).await?.map(|message| message.body);
    if body.is_none() {
        say("The body of its job is not kept: a release that kept none made it.");
    }
    context.out.one(&Shown {
        key: record.key.clone(),
        task: record.task.clone(),
        reference: record.reference.clone(),
        version: record.version,
        output: done.output.clone(),
        body,
        model: done.model.clone(),
        finished_at: times::shown(done.finished_at_ms),
        expires_at: times::shown(record.expires_at_ms),
    })
}

async fn accept(arguments: &DecisionArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let ledger = ledger::of(&stack);
    let record = ledger::record(&ledger, &stack, &arguments.key).await?;
    let clock = Clock::of_aws(&stack).await?;
    let done = waiting(&record, arguments.seen, clock.now_ms()).map_err(refused)?;
    ask(arguments, &stack, "Accepts as it is", &done.output).await?;
    context.interrupt.handle(LEFT);
    let trace = begin(&stack, "accept", arguments).await?;
    let by = trace.caller.arn.clone();
    let token = OsEntropy.token();
    let written = put(&ledger, reviewer(arguments, clock, &by, &token).accept(&record, arguments.seen)).await;
    end(trace, written, context).await
}

async fn edit(arguments: &EditArguments, context: &Context) -> Result<(), Failure> {
    let EditArguments { decision, from } = arguments;
    let stack = context.stack().await?;
    let ledger = ledger::of(&stack);
    let record = ledger::record(&ledger, &stack, &decision.key).await?;
    let clock = Clock::of_aws(&stack).await?;
    let done = waiting(&record, decision.seen, clock.now_ms()).map_err(refused)?;
    let message = message(&ledger, &record).await?;
    let limits = stack.worker()?.limits;
    let (edited, typed) = match from {
        Some(file) => {
            let edited = accepted(&record, &read(file)?, message.as_ref(), &limits)?.map_err(|why| {
                Failure::no(format!("The output is not accepted, and nothing was changed: {why}"))
            });
            (edited?, None)
        }
        None => {
            let (edited, text) = in_editor(&record, &done.output, message.as_ref(), &limits, context).await?;
            (edited, Some(text))
        }
    };
    let not_stored = |failure: Failure| match &typed {
        Some(text) => kept_aside(failure, text),
        None => failure,
    };
    if *edited.output() == done.output {
        return Err(Failure::failed(
            "The output is what it was, and nothing was changed: `nightshift review accept` lets it stand.",
        ));
    }
    ask(decision, &stack, "Stores this output instead", edited.output()).await.map_err(not_stored)?;
    context.interrupt.handle(LEFT);
    let trace = begin(&stack, "edit", decision).await.map_err(not_stored)?;
    let by = trace.caller.arn.clone();
    let token = OsEntropy.token();
    let written =
        put(&ledger, reviewer(decision, clock, &by, &token).edit(&record, decision.seen, edited)).await;
    let is_stored = written.is_ok();
    let ended = end(trace, written, context).await;
    if is_stored { ended } else { ended.map_err(not_stored) }
}

/// The same failure, and where what a person wrote is, which nobody should have to write twice.
fn kept_aside(failure: Failure, text: &str) -> Failure {
    match editor::keep(text, EDITED) {
        Ok(path) => failure.after(&format!(
            "what you wrote is in {}, which only you may read: give it with --from, or remove it",
            path.display()
        )),
        Err(_) => failure.after("what you wrote could not be kept"),
    }
}

/// Asks until the task accepts what a person wrote, or they give up; returns their text with it.
async fn in_editor(
    record: &Record,
    output: &Value,
    message: Option<&KeptMessage>,
    limits: &Limits,
    context: &Context,
) -> Result<(Edited, String), Failure> {
    // Plain JSON always serialises.
    let mut text = serde_json::to_string_pretty(output).unwrap_or_default() + "\n";
    context.interrupt.listen_for_hangups();
    loop {
        text = context.interrupt.of_another(|| editor::edit(&text, EDITED)).await?;
        match accepted(record, &text, message, limits)? {
            Ok(edited) => return Ok((edited, text)),
            Err(why) => {
                let again = format!("The output is not accepted: {why}\nEdit it again?");
                confirm::ask(false, &again).await.map_err(|failure| kept_aside(failure, &text))?;
            }
        }
    }
}

fn accepted(
    record: &Record,
    text: &str,
    message: Option<&KeptMessage>,
    limits: &Limits,
) -> Result<Result<Edited, String>, Failure> {
    let name = record.task.as_deref().unwrap_or_default();
    let registry = my_tasks::registry();
    let Some(task) = registry.find(name) else {
        return Err(Failure::failed(format!(
            "This build does not know the task {}, so that it cannot check an output of it: edit with the build that is deployed.",
            text::shown(name)
        )));
    };
    Ok(edited(text, task, message, limits).map_err(|violations| violations.0.join(" ")))
}

async fn reject(arguments: &DecisionArguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let ledger = ledger::of(&stack);
    let record = ledger::record(&ledger, &stack, &arguments.key).await?;
    let clock = Clock::of_aws(&stack).await?;
    let limits = stack.worker()?.limits;
    // Who it is, is known once the trace stands; what there is to do does not depend on it.
    let unwritten = reviewer(arguments, clock, "", "");
    match unwritten.reject(&record, arguments.seen, &limits).map_err(refused)? {
        Rejecting::IsSent => {
            say("It was rejected before, and its dead letter is sent.");
            return context.out.one(&Decided::of(&record));
        }
        Rejecting::Send(_) => {
            confirm::ask(
                arguments.consent.yes,
                &format!(
                    "{} of {} was rejected before; sends its dead letter.",
                    arguments.key,
                    stack.named()
                ),
            )
            .await?
        }
        Rejecting::Write(_) => {
            let done = waiting(&record, arguments.seen, clock.now_ms()).map_err(refused)?;
            ask(
                arguments,
                &stack,
                "Makes a dead letter, review_rejected, instead of this result",
                &done.output,
            )
            .await?;
        }
    }
    let Some(message) = message(&ledger, &record).await? else {
        return Err(Failure::failed(
            "The body of its job is not kept, so that no dead letter can be made of it: accept or edit it.",
        ));
    };
    context.interrupt.handle(LEFT);
    let trace = begin(&stack, "reject", arguments).await?;
    let by = trace.caller.arn.clone();
    let token = OsEntropy.token();
    let written = match reviewer(arguments, clock, &by, &token).reject(&record, arguments.seen, &limits) {
        Ok(Rejecting::Write(write)) => put(&ledger, Ok(*write)).await,
        Ok(Rejecting::Send(record)) => Ok(*record),
        Ok(Rejecting::IsSent) => Ok(record),
        Err(not) => Err(refused(not)),
    };
    let sent = match written {
        Ok(record) => send(&stack, &ledger, &record, &message).await.map(|()| record),
        Err(failure) => Err(failure),
    };
    end(trace, sent, context).await
}

/// Sends the dead letter, then notes that it is sent: a note that is lost costs one letter too many. Who reviews may take
/// nothing out of the queue, so that a letter of what was erased meanwhile is told.
async fn send(
    stack: &Stack,
    ledger: &DynamoLedger,
    record: &Record,
    message: &KeptMessage,
) -> Result<(), Failure> {
    let Some(letter) = dead_letter(record, message.original()) else {
        return Err(Failure::failed("The record is no failure any more: look again."));
    };
    let queue = SqsDeadLetters::new(&stack.sdk, &stack.dead_letters_url);
    queue.send(&letter).await.map_err(|e| {
        error::of_port(&e).after("the result is rejected and its dead letter is not sent: repeat the command")
    })?;
    ledger.note_letter_sent(&record.key, record.version).await.map_err(|e| error::of_port(&e))?;
    // Whoever erases looks through the queue after the record, and so may have looked before this letter was there.
    let standing = ledger.get(&record.key).await.map_err(|e| error::of_port(&e))?;
    let erasure = standing.record().and_then(|standing| standing.erased);
    if erasure.is_some_and(|erasure| erasure.version > record.version) {
        return Err(Failure::failed(format!(
            "It was erased meanwhile, and its dead letter was sent with its body: have that erased too, with `nightshift results delete {}`.",
            record.key
        )));
    }
    Ok(())
}

/// The message that the result was made for, where it is kept.
pub async fn message(ledger: &DynamoLedger, record: &Record) -> Result<Option<KeptMessage>, Failure> {
    let Some(kept) = record.kept_message() else { return Ok(None) };
    let parts = ledger.parts(&record.key).await.map_err(|e| error::of_port(&e))?;
    Ok(kept::message(kept, parts))
}

fn refused(not: NotWaiting) -> Failure {
    let sentence = format!("Nothing was decided: {}.", text::shown(&not.to_string()));
    match not {
        NotWaiting::Other { .. } | NotWaiting::Expired => Failure::not_found(sentence),
        NotWaiting::Reviewed { .. } | NotWaiting::Changed { .. } => Failure::failed(sentence),
    }
}

/// By AWS's clock, as the workers date: a redrive asks when something failed, and a record when it expires.
fn reviewer<'a>(arguments: &'a DecisionArguments, clock: Clock, by: &'a str, token: &'a str) -> Reviewer<'a> {
    Reviewer { by, reason: &arguments.consent.reason, token, now_ms: clock.now_ms() }
}

async fn ask(
    arguments: &DecisionArguments,
    stack: &Stack,
    what: &str,
    output: &Value,
) -> Result<(), Failure> {
    let output = serde_json::to_string_pretty(output).unwrap_or_default();
    let key = &arguments.key;
    let named = stack.named();
    confirm::ask(
        arguments.consent.yes,
        &format!("{what}, for good, {key} of {named}:\n{output}\nNo worker makes it again by itself."),
    )
    .await
}

async fn begin(stack: &Stack, decision: &str, arguments: &DecisionArguments) -> Result<Trace, Failure> {
    trace::begin(stack, &format!("review {decision} {}", arguments.key), &arguments.consent.reason).await
}

async fn put(ledger: &DynamoLedger, write: Result<RecordWrite, NotWaiting>) -> Result<Record, Failure> {
    let write = write.map_err(refused)?;
    match ledger.write(&write).await.map_err(|e| error::of_port(&e))? {
        WriteAnswer::Written => Ok(write.record),
        WriteAnswer::Refused(_) => Err(Failure::failed(
            "Somebody else, or a worker, changed the record meanwhile, and nothing was decided: look at it again with `nightshift review show`.",
        )),
    }
}

async fn end(trace: Trace, decided: Result<Record, Failure>, context: &Context) -> Result<(), Failure> {
    let outcome = match &decided {
        Ok(record) => Ok(format!("version {} is {}", record.version, state(record))),
        Err(failure) => Err(failure.clone()),
    };
    trace.end(&outcome).await;
    let shown = context.out.one(&Decided::of(&decided?));
    shown.map_err(|e| e.although("the decision stands, and `nightshift jobs show` shows it"))
}

fn state(record: &Record) -> &'static str {
    match &record.state {
        State::Failed(failed) => failed.reason.as_str(),
        state => state.as_str(),
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes)
    } else {
        files::open(file)?.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut bytes)
    };
    read.map_err(|error| Failure::of_path(file, "read", &error))?;
    if bytes.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(Failure::no(format!(
            "The output is not accepted, and nothing was changed: it has more than {OUTPUT_BYTES_MAX} bytes, and no record holds so much."
        )));
    }
    std::io::read_to_string(&*bytes).map_err(|error| Failure::of_path(file, "read", &error))
}
