//! One page: received, decided on, sent, deleted, in this order.

use nightshift_core::record::Record;
use nightshift_core::redrive::{
    BeforeSending, CanarySent, Choice, HOLD_S, Left, Letter, POLL_S, Received, Redrive, Source,
};
use nightshift_ports::{PortError, PortErrorKind, Waiting, WriteAnswer};

use crate::{Error, Redriver};

/// How often a record is read again whose reset others forestall, before its message is left for later.
const RESETS_MAX: u32 = 3;

/// A message that was chosen.
struct Chosen {
    message: Waiting,
    letter: Letter,
    /// The record that stands, where it was read.
    standing: Option<Box<Record>>,
}

/// What becomes of a chosen message before it is sent.
enum Readied {
    Send(Option<Box<Record>>),
    /// Hidden until then, and looked at again.
    Wait {
        until_ms: u64,
    },
    /// Deleted without being sent.
    Settled,
    /// Left where it is, and why.
    Unreadable(PortError),
}

/// So many of those that are left are named in the history.
const NAMED_MAX: u64 = 5;

impl Redriver {
    /// Receives a page and does with each message what is decided on it.
    pub(crate) async fn page(
        &self,
        redrive: &mut Redrive,
        token: &str,
        messages_max: u32,
    ) -> Result<(), Error> {
        let source = self.source(redrive.request.source);
        let messages = source.receive(messages_max, POLL_S, HOLD_S).await?;
        redrive.page_was_received(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        let mut allowance = redrive.allowance();
        let (mut chosen, mut hide, mut release) = (Vec::new(), Vec::new(), Vec::new());
        for message in messages {
            let held = &message.letter;
            let letter = Letter::of_message(
                &held.body,
                &held.attributes,
                message.sent_at_ms,
                self.stack.body_bytes_max,
            );
            match redrive.request.choose(&letter, message.sent_at_ms, redrive.began_ms) {
                Choice::Chosen if allowance > 0 => {
                    allowance -= 1;
                    chosen.push(Chosen { message, letter, standing: None });
                }
                Choice::Chosen => release.push((message.receipt_handle, 0)),
                Choice::NotChosen => {
                    redrive.progress.not_chosen += 1;
                    hide.push(message.receipt_handle);
                }
                Choice::Newer => {
                    redrive.progress.newer += 1;
                    hide.push(message.receipt_handle);
                }
            }
        }
        let hidden = self.hide_until_the_end(redrive, hide).await?;
        redrive.were_hidden(hidden);
        if !release.is_empty() {
            // What is not released returns by its timeout.
            source.hide(&release).await?;
        }
        let chosen = self.ready(redrive, chosen).await?;
        if !redrive.may_send(token, self.ports.clock.now_ms()) {
            // This process stood still; whoever has the lock now finds the messages again.
            return Ok(());
        }
        self.send(redrive, chosen).await
    }

    /// Hides what is not sent until the planned end of the scan; returns how many that were.
    async fn hide_until_the_end(&self, redrive: &Redrive, handles: Vec<String>) -> Result<u64, Error> {
        let hide_s = redrive.hide_s(self.ports.clock.now_ms());
        // Closer to the end than the page is held anyway: it returns by its timeout.
        if handles.is_empty() || hide_s <= HOLD_S {
            return Ok(0);
        }
        let handles: Vec<_> = handles.into_iter().map(|handle| (handle, hide_s)).collect();
        let hidden = self.source(redrive.request.source).hide(&handles).await?;
        Ok(hidden.iter().filter(|answer| answer.is_ok()).count() as u64)
    }

    /// What must be done before chosen messages are sent; returns those that are.
    async fn ready(&self, redrive: &mut Redrive, chosen: Vec<Chosen>) -> Result<Vec<Chosen>, Error> {
        let crashed = redrive.request.source == Source::Crashed;
        if !crashed && !redrive.canary_is_open() {
            return Ok(chosen);
        }
        let source = self.source(redrive.request.source);
        let (mut ready, mut wait, mut settled, mut unreadable) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for mut one in chosen {
            let readied = if crashed { self.reset(&one).await? } else { self.look(&one).await? };
            match readied {
                Readied::Send(standing) => {
                    one.standing = standing;
                    ready.push(one);
                }
                Readied::Wait { until_ms } => {
                    redrive.progress.waited += 1;
                    let wait_ms = until_ms.saturating_sub(self.ports.clock.now_ms());
                    let wait_s = u32::try_from(wait_ms.div_ceil(1_000)).unwrap_or(u32::MAX);
                    wait.push((one.message.receipt_handle, wait_s.clamp(1, redrive.hide_s_max())));
                }
                Readied::Settled => settled.push(one.message.receipt_handle),
                Readied::Unreadable(error) => {
                    redrive.progress.unreadable += 1;
                    if redrive.progress.unreadable <= NAMED_MAX {
                        let what = format!("the record of {} is left as it is: {error}", one.letter.key);
                        redrive.note(self.ports.clock.now_ms(), what);
                    }
                    unreadable.push(one.message.receipt_handle);
                }
            }
        }
        if !wait.is_empty() {
            source.hide(&wait).await?;
        }
        if !settled.is_empty() {
            let deleted = source.delete(&settled).await?;
            redrive.progress.settled += deleted.iter().filter(|answer| answer.is_ok()).count() as u64;
        }
        let unreadable = self.hide_until_the_end(redrive, unreadable).await?;
        redrive.were_left(Left { unreadable, ..Left::default() });
        Ok(ready)
    }

    /// The record of a canary's message, by which its outcome is told from what was there before.
    async fn look(&self, one: &Chosen) -> Result<Readied, Error> {
        match self.ports.records.read(&one.letter.key).await {
            Ok(standing) => Ok(Readied::Send(standing.map(Box::new))),
            Err(error) if error.kind == PortErrorKind::Unreadable => Ok(Readied::Unreadable(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets the budgets of a message from `crashed` start afresh, under the version that was read.
    async fn reset(&self, one: &Chosen) -> Result<Readied, Error> {
        let received = Received { sent_at_ms: one.message.sent_at_ms, redrive_of: one.letter.version };
        let mut standing = match self.look(one).await? {
            Readied::Send(standing) => standing,
            other => return Ok(other),
        };
        for _ in 0..RESETS_MAX {
            let now_ms = self.ports.clock.now_ms();
            let write = match BeforeSending::of(
                standing.as_deref(),
                received,
                &self.ports.entropy.token(),
                now_ms,
                self.stack.failure_expiry_ms,
            ) {
                BeforeSending::Send => return Ok(Readied::Send(standing)),
                BeforeSending::Wait { until_ms } => return Ok(Readied::Wait { until_ms }),
                BeforeSending::Settled => return Ok(Readied::Settled),
                BeforeSending::Reset(write) => write,
            };
            standing = match self.ports.ledger.write(&write).await {
                Ok(WriteAnswer::Written) => return Ok(Readied::Send(Some(Box::new(write.record)))),
                Ok(WriteAnswer::Refused(standing)) => standing,
                Err(error) if error.kind == PortErrorKind::Unreadable => {
                    return Ok(Readied::Unreadable(error));
                }
                Err(error) => return Err(error.into()),
            };
        }
        // A worker has it by now.
        Ok(Readied::Wait { until_ms: self.ports.clock.now_ms() + u64::from(HOLD_S) * 1_000 })
    }

    /// Sends, then deletes what was sent.
    async fn send(&self, redrive: &mut Redrive, chosen: Vec<Chosen>) -> Result<(), Error> {
        if chosen.is_empty() {
            return Ok(());
        }
        let letters: Vec<_> = chosen.iter().map(|one| &one.message.letter).collect();
        let answers = self.ports.jobs.send(&letters).await?;
        let now_ms = self.ports.clock.now_ms();
        let (mut sent, mut refused) = (Vec::new(), Vec::new());
        let mut failed: Option<PortError> = None;
        for (one, answer) in chosen.into_iter().zip(answers) {
            match answer {
                Ok(message_id) => {
                    let source = redrive.request.source;
                    redrive.canary_was_sent(
                        CanarySent::of(&one.letter, source, one.standing.as_deref(), message_id, now_ms),
                        now_ms,
                    );
                    sent.push(one.message.receipt_handle);
                }
                Err(error) if error.kind == PortErrorKind::Refused => {
                    redrive.progress.refused += 1;
                    if redrive.progress.refused <= NAMED_MAX {
                        let what = format!("the message of {} was not taken back: {error}", one.letter.key);
                        redrive.note(now_ms, what);
                    }
                    refused.push(one.message.receipt_handle);
                }
                Err(error) => failed = Some(error),
            }
        }
        redrive.were_sent(sent.len() as u64, now_ms);
        if !sent.is_empty() {
            let deleted = self.source(redrive.request.source).delete(&sent).await?;
            redrive.progress.deleted += deleted.iter().filter(|answer| answer.is_ok()).count() as u64;
        }
        let refused = self.hide_until_the_end(redrive, refused).await?;
        redrive.were_left(Left { refused, ..Left::default() });
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
