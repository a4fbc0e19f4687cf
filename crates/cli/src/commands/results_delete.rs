//! `results delete`: what is known of a person's jobs, wherever a command reaches it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use nightshift_aws::{DynamoLedger, OsEntropy};
use nightshift_core::erase::tombstone;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::erased_parts;
use nightshift_core::listing::Lookup;
use nightshift_core::record::{Erasure, WriteAnswer};
use nightshift_ports::{Entropy as _, Ledger as _, LedgerReader as _};
use serde::Serialize;

use crate::Context;
use crate::confirm::{self, Consent};
use crate::error::{self, Failure};
use crate::letters::{self, Erased};
use crate::render::{Cell, Row, say};
use crate::stack::Stack;
use crate::{ledger, times, trace};

/// How often a record may change while a tombstone is put over it.
const ROUNDS_MAX: u32 = 8;

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
    let keys = match (&arguments.job, &arguments.reference) {
        (Some(file), _) => vec![super::jobs::key_of_job(file)?],
        (_, Some(reference)) => of_reference(&reader, reference).await?,
        _ => arguments.keys.clone(),
    };
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
            "Erases for ever {} of {}: record, result, failure and the message of a review; earlier messages of it are then acknowledged unread. Receives all messages of the queues dead-letters and crashed (about {messages}), which hides them meanwhile, and deletes those of it. Logs hold no data; backups of the ledger, consumers of its stream, and files that were exported or received are not reached.",
            named(&keys),
            stack.named()
        ),
    )
    .await?;
    context.interrupt.handle("some of it may be erased, so run the same command again");
    let trace = trace::begin(&stack, &format!("results delete {}", named(&keys)), reason).await?;
    let ended = erase(&stack, &reader, &keys, &queues, context).await;
    let outcome = match &ended {
        Ok((_, 0)) => Ok(format!("{} erased", keys.len())),
        Ok((_, hidden)) => Ok(format!("{} erased, {hidden} messages not seen", keys.len())),
        Err(failure) => Err(Failure::failed(failure.sentence().unwrap_or("ended early"))),
    };
    trace.end(&outcome).await;
    let (deleted, hidden) = ended?;
    context.out.all(deleted).map_err(|e| e.although("what was named is erased"))?;
    if hidden > 0 {
        return Err(Failure::no(format!(
            "{hidden} messages were hidden by somebody else, say a redrive, and not looked at: run the same command again when that is over."
        )));
    }
    say(
        "A worker that had failed one of them just now may still send its dead letter: run the same command once more in ten minutes, and it deletes that too.",
    );
    Ok(())
}

fn named(keys: &[InputHash]) -> String {
    match keys {
        [one] => one.to_string(),
        several => {
            format!("{} records, from {}", several.len(), several.first().map_or("", InputHash::as_str))
        }
    }
}

/// The tombstones first: what is deleted before may be written again by a worker.
async fn erase(
    stack: &Stack,
    reader: &DynamoLedger,
    keys: &[InputHash],
    queues: &[String; 2],
    context: &Context,
) -> Result<(Vec<Deleted>, u64), Failure> {
    let mut erased = Erased::new();
    for key in keys {
        erased.insert(key.clone(), (put_tombstone(reader, key).await?, 0));
    }
    let mut hidden = 0;
    for queue in queues {
        hidden += letters::delete(stack, queue, &context.interrupt, &mut erased).await?;
    }
    let deleted = erased.into_iter().map(|(key, (erasure, messages_deleted))| Deleted {
        key,
        erased_at: times::shown(erasure.at_ms),
        messages_deleted,
    });
    Ok((deleted.collect(), hidden))
}

async fn put_tombstone(ledger: &DynamoLedger, key: &InputHash) -> Result<Erasure, Failure> {
    for _ in 0..ROUNDS_MAX {
        let standing = ledger.get(key).await.map_err(|e| error::of_port(&e))?;
        if let Lookup::Unreadable(why) = standing {
            return Err(Failure::failed(format!(
                "The record {key} cannot be read by this build, so a newer one wrote it ({why}): erase with that one."
            )));
        }
        let write = tombstone(key, standing.record(), &OsEntropy.token(), times::now_ms());
        let answer = ledger.write(&write).await.map_err(|e| error::of_port(&e))?;
        if let (WriteAnswer::Written, Some(erasure)) = (answer, write.record.erased) {
            for part in erased_parts(&write.record) {
                // Refused, a later request has written it.
                ledger.keep(&part, times::now_ms()).await.map_err(|e| error::of_port(&e))?;
            }
            return Ok(erasure);
        }
    }
    Err(Failure::failed(format!("The record {key} changes all the time: run the same command again.")))
}

async fn of_reference(reader: &DynamoLedger, reference: &str) -> Result<Vec<InputHash>, Failure> {
    let size = reader.size().await.map_err(|e| error::of_port(&e))?;
    say(&ledger::scan_cost(&size));
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let page = reader.scan_for_reference(reference, after.as_ref()).await;
        let page = page.map_err(|e| error::of_port(&e))?;
        keys.extend(page.found.into_iter().map(|(key, _)| key));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if keys.is_empty() {
        return Err(Failure::not_found(
            "No record has this reference; a record keeps the reference of the first job with its input alone: name the others by key or --job.",
        ));
    }
    Ok(keys)
}
