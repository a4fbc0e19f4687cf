//! `results delete`: what is known of a person's jobs, wherever a command reaches it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use nightshift_aws::{DynamoLedger, OsEntropy};
use nightshift_core::erase::tombstone;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::erased_parts;
use nightshift_core::listing::Lookup;
use nightshift_core::record::{Erasure, State, WriteAnswer};
use nightshift_ports::{Entropy as _, Ledger as _, LedgerReader as _};
use serde::Serialize;

use crate::Context;
use crate::clock::Clock;
use crate::confirm::{self, Consent};
use crate::error::{self, Failure};
use crate::letters::{self, Erased};
use crate::render::{Cell, Row, say};
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
    let ended = async {
        for key in &keys {
            erased.insert(key.clone(), (put_tombstone(&reader, key, clock).await?, 0));
        }
        // The tombstones first: what is deleted before may be written again by a worker.
        let mut hidden = 0;
        for queue in &queues {
            hidden += letters::delete(&stack, queue, &context.interrupt, &mut erased).await?;
        }
        Ok::<u64, Failure>(hidden)
    }
    .await;
    let outcome = match &ended {
        Ok(0) => Ok(format!("{} erased", keys.len())),
        Ok(hidden) => Ok(format!("{} erased, {hidden} messages not seen", keys.len())),
        Err(failure) => Err(Failure::failed(failure.sentence().unwrap_or("ended early"))),
    };
    trace.end(&outcome).await;
    let hidden = ended?;
    // Of what was erased before, those of which something was still there.
    erased.retain(|key, (_, messages)| *messages > 0 || keys.contains(key));
    let deleted = erased.into_iter().map(|(key, (erasure, messages_deleted))| Deleted {
        key,
        erased_at: times::shown(erasure.at_ms),
        messages_deleted,
    });
    context.out.before_verdict().all(deleted).map_err(|e| e.although("what was named is erased"))?;
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
        [] => "what was erased before".to_owned(),
        [one] => one.to_string(),
        several => {
            format!("{} records, from {}", several.len(), several.first().map_or("", InputHash::as_str))
        }
    }
}

async fn put_tombstone(ledger: &DynamoLedger, key: &InputHash, clock: Clock) -> Result<Erasure, Failure> {
    for _ in 0..ROUNDS_MAX {
        let standing = ledger.get(key).await.map_err(|e| error::of_port(&e))?;
        if let Lookup::Unreadable(why) = standing {
            return Err(Failure::failed(format!(
                "The record {key} cannot be read by this build, so a newer one wrote it ({why}): erase with that one."
            )));
        }
        let write = tombstone(key, standing.record(), &OsEntropy.token(), clock.now_ms());
        let answer = ledger.write(&write).await.map_err(|e| error::of_port(&e))?;
        if let (WriteAnswer::Written, Some(erasure)) = (answer, write.record.erased) {
            for part in erased_parts(&write.record) {
                // Refused, a later request has written it.
                ledger.keep(&part, clock.now_ms()).await.map_err(|e| error::of_port(&e))?;
            }
            return Ok(erasure);
        }
    }
    Err(Failure::failed(format!("The record {key} changes all the time: run the same command again.")))
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
