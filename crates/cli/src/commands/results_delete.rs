//! `results delete`: what is known of a person's jobs, wherever a command reaches it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use nightshift_aws::{DynamoLedger, OsEntropy};
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Erasure, State};
use nightshift_ports::{LedgerReader as _, PortErrorKind, erase};
use serde::Serialize;

use crate::Context;
use crate::clock::Clock;
use crate::confirm::{self, Consent};
use crate::error::{self, Failure};
use crate::interrupt::Interrupt;
use crate::letters::{self, Erased};
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::text::{agreeing, counted};
use crate::{ledger, times, trace};

/// Whose data.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["keys", "job", "reference"]))]
pub struct Arguments {
    /// Keys of records: input hashes.
    #[arg(value_parser = ledger::key)]
    keys: Vec<InputHash>,
    /// The job as it was sent, in a file or on standard input (-): also where no worker has received it yet.
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// The reference of the first job with that input.
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Serialize)]
struct Deleted {
    key: InputHash,
    erased_at: String,
    messages_deleted: u64,
}

impl Row for Deleted {
    const COLUMNS: &'static [&'static str] = &["KEY", "ERASED AT", "MESSAGES DELETED"];

    fn cells(&self) -> Vec<Cell> {
        vec![Cell::ours(&self.key), Cell::ours(&self.erased_at), Cell::ours(self.messages_deleted)]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let reader = ledger::of(&stack);
    let (keys, before) = match (&arguments.job, &arguments.reference) {
        (Some(file), _) => {
            let body_bytes_max = stack.worker()?.limits.body_bytes_max;
            (super::jobs::keys_of_job(file, body_bytes_max)?, Erased::new())
        }
        (_, Some(reference)) => of_reference(&reader, reference).await?,
        _ => (arguments.keys.clone(), Erased::new()),
    };
    // SQS says when a message was sent, so that its clock says what was sent before.
    let clock = Clock::of_aws(&stack).await?;
    let Consent { yes, reason } = &arguments.consent;
    let queues = [stack.dead_letters_url.clone(), stack.crashed_url()];
    let mut messages = 0;
    for queue in &queues {
        let look = letters::look(&stack, queue).await?;
        letters::fits(look.messages)?;
        messages += look.messages;
    }
    confirm::ask(
        *yes,
        &format!(
            "Erases for ever {} of {}: record, result, failure and the message of a review; earlier messages of it are then acknowledged unread. Receives all messages of the queues dead-letters and crashed (about {messages}), which hides them meanwhile, and deletes those of what is erased. Logs hold no data; backups of the ledger, consumers of its stream, and files that were exported or received are not reached.",
            named(&keys),
            stack.named()
        ),
    )
    .await?;
    context.interrupt.handle("some of it may be erased, so run the same command again");
    let trace = trace::begin(&stack, &format!("results delete {}", named(&keys)), reason).await?;
    let mut erased = before;
    let ended = everywhere((&stack, &reader), &keys, &queues, clock, &context.interrupt, &mut erased).await;
    let outcome = match &ended {
        Ok((0, _)) => Ok(format!("{} erased", keys.len())),
        Ok((unseen, _)) => Ok(format!("{} erased, {unseen} messages not seen", keys.len())),
        Err(failure) => Err(Failure::failed(failure.sentence().unwrap_or("ended early"))),
    };
    trace.end(&outcome).await;
    let (unseen, unknown) = ended?;
    // Of what was erased before, those of which something was still there.
    erased.retain(|key, (_, messages)| *messages > 0 || keys.contains(key));
    let deleted = erased.into_iter().map(|(key, (erasure, messages_deleted))| Deleted {
        key,
        erased_at: times::shown(erasure.at_ms),
        messages_deleted,
    });
    context.out.before_verdict().all(deleted).map_err(|e| e.although("what was named is erased"))?;
    // Of the two keys that a job can have, one has no record.
    if !unknown.is_empty() && (arguments.job.is_none() || unknown.len() == keys.len()) {
        let unknown = unknown.iter().map(InputHash::as_str).collect::<Vec<_>>().join(", ");
        say(&format!(
            "No record stood under {unknown}: check that this is what was meant. A tombstone stands there all the same, so that no message from before is worked on."
        ));
    }
    if unseen > 0 {
        return Err(Failure::no(format!(
            "{} {} hidden or taken by somebody else, say a redrive, and not looked at: when that is over, run {}.",
            counted(unseen, "message"),
            agreeing(unseen, "was", "were"),
            // By reference, what a redrive has sent since would not be found again.
            if arguments.reference.is_some() && !keys.is_empty() {
                "the command again with the keys above"
            } else {
                "the same command again"
            }
        )));
    }
    say(
        "A worker that had failed one of them just now may still send its dead letter: run the same command once more in ten minutes, and it deletes that too.",
    );
    Ok(())
}

/// Erases these in the ledger, and deletes what is of before from the queues; returns about how many messages were not seen,
/// and under which keys nothing stood.
async fn everywhere(
    (stack, reader): (&Stack, &DynamoLedger),
    keys: &[InputHash],
    queues: &[String],
    clock: Clock,
    interrupt: &Interrupt,
    erased: &mut Erased,
) -> Result<(u64, Vec<InputHash>), Failure> {
    let mut unknown = Vec::new();
    for key in keys {
        let erasure = put_tombstone(reader, key, clock).await?;
        if erasure.is_of_nothing() {
            unknown.push(key.clone());
        }
        erased.insert(key.clone(), (erasure, 0));
    }
    // The tombstones first: what is deleted before may be written again by a worker.
    let mut unseen = 0;
    for queue in queues {
        unseen += letters::delete(stack, queue, interrupt, erased).await?;
    }
    // What a redrive held meanwhile, and sent as a new message, is from before this.
    for key in keys {
        let erasure = put_tombstone(reader, key, clock).await?;
        erased.entry(key.clone()).and_modify(|(standing, _)| *standing = erasure);
    }
    Ok((unseen, unknown))
}

fn named(keys: &[InputHash]) -> String {
    match keys {
        [] => "what was erased before".to_owned(),
        [one] => one.to_string(),
        several => {
            format!("{} records, from {}", several.len(), several.first().map_or("", InputHash::as_str))
        }
    }
}

async fn put_tombstone(ledger: &DynamoLedger, key: &InputHash, clock: Clock) -> Result<Erasure, Failure> {
    erase(ledger, key, &clock, &OsEntropy).await.map_err(|error| match error.kind {
        PortErrorKind::Unreadable => Failure::failed(format!(
            "The record {key} cannot be read by this build, so a newer one wrote it ({}): erase with that one.",
            error.message
        )),
        _ => error::of_port(&error),
    })
}

/// The records with this reference, and what was erased before: a tombstone has no reference any more, and a letter of it may
/// have come since.
async fn of_reference(reader: &DynamoLedger, reference: &str) -> Result<(Vec<InputHash>, Erased), Failure> {
    let size = reader.size().await.map_err(|e| error::of_port(&e))?;
    say(&ledger::scan_cost(&size));
    let (mut keys, mut before, mut after) = (Vec::new(), Erased::new(), None);
    loop {
        let page = reader.scan_for_erasure(reference, after.as_ref()).await;
        let page = page.map_err(|e| error::of_port(&e))?;
        for (key, lookup) in page.found {
            let tombstone = lookup.record().filter(|record| record.state == State::Erased);
            match tombstone.and_then(|record| record.erased) {
                Some(erasure) => drop(before.insert(key, (erasure, 0))),
                None => keys.push(key),
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if keys.is_empty() && before.is_empty() {
        return Err(Failure::not_found(
            "No record has this reference; a record keeps the reference of the first job with its input alone: name the others by key or --job.",
        ));
    }
    if keys.is_empty() {
        say(
            "No record has this reference (any more), so only messages of what was erased before are looked for; a record keeps the reference of the first job with its input alone: name the others by key or --job.",
        );
    }
    Ok((keys, before))
}
