//! Sends jobs in batches, several at a time, at a rate; what SQS does not take of a batch is sent again.
//!
//! **Invariant:** memory holds the batches that are open and no more.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nightshift_aws::queues::entry_kind;
use nightshift_ports::PortErrorKind::{Misconfigured, Refused};
use tokio::time::Instant;

use crate::batches::{Batch, Weighed};
use crate::error::{self, Failure};
use crate::interrupt::Interrupt;
use crate::jobs_file::Draft;
use crate::receipt::{Entry, Receipt};

/// What IAM calls it.
const ACTION: &str = "sqs:SendMessage";
/// Batches that are open at once: at 20 ms each, four thousand messages a second.
const OPEN_MAX: usize = 8;
/// How often a message is given to SQS before the command gives up: within some eight seconds, as the SDK would.
const ATTEMPTS_MAX: u32 = 5;
/// First wait before a message is given to SQS again; doubled each time.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The longest: what comes back after a minute is not left waiting for another one.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(5);

/// A job on its way out.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub line: u64,
    /// The key of its record.
    pub key: String,
    /// What is sent.
    pub draft: Draft,
    /// How often it was given to SQS.
    pub tried: Tried,
}

/// What a message has behind it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    times: u32,
    /// `None`: not yet.
    since: Option<Instant>,
    /// SQS may have taken it without our hearing of it.
    perhaps_taken: bool,
}

impl Tried {
    /// Before the first attempt of this run; SQS may have taken it in one of before.
    pub fn not_yet(perhaps_taken: bool) -> Self {
        Self { perhaps_taken, ..Self::default() }
    }

    /// After one more attempt, which began then.
    fn once_more(self, began: Instant) -> Self {
        Self { times: self.times + 1, since: self.since.or(Some(began)), ..self }
    }

    /// SQS may have taken it: 1 where that was not known before.
    fn now_perhaps_taken(&mut self) -> u64 {
        u64::from(!std::mem::replace(&mut self.perhaps_taken, true))
    }

    /// Whether it is tried again; `out_of_reach_max`: SQS was out of reach, and may be for so long.
    fn goes_on(self, out_of_reach_max: Option<Duration>, now: Instant) -> bool {
        let is_borne =
            |longest| self.since.is_none_or(|since| now.saturating_duration_since(since) < longest);
        self.times < ATTEMPTS_MAX || out_of_reach_max.is_some_and(is_borne)
    }

    fn waits(self) -> Duration {
        match self.times.checked_sub(1) {
            None => Duration::ZERO,
            Some(doubled) => AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(doubled)).min(AGAIN_AFTER_MAX),
        }
    }
}

impl Weighed for Outgoing {
    fn bytes(&self) -> usize {
        self.draft.body.len() + self.draft.group.as_ref().map_or(0, String::len)
    }
}

/// What became of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// SQS took them.
    pub sent: u64,
    /// Of these, those of which the receipt does not say so, because it could not be written.
    pub unnoted: u64,
    /// SQS refused them for what they are.
    pub refused: u64,
    /// Nothing was heard of them, and they were sent again.
    pub perhaps_twice: u64,
}

/// How fast jobs are sent.
#[derive(Debug, Clone, Copy)]
pub enum Rate {
    /// As fast as SQS takes them.
    Any,
    /// So many messages a second, at most: what is late makes all that follows late.
    AtMost(f64),
    /// On a schedule that waits for nobody: what is late is made up for.
    Open {
        /// Messages a second.
        per_second: f64,
        /// Messages that are due at the same moment: 1 to 10.
        together: usize,
    },
}

/// Where jobs are sent, and how.
pub struct Sender<'a> {
    pub client: &'a Client,
    /// The jobs queue.
    pub queue_url: &'a str,
    /// What is written before and after each batch.
    pub receipt: &'a mut Receipt,
    /// How fast.
    pub rate: Rate,
    /// For how long SQS may be out of reach before the command gives up, if that is longer than five attempts take.
    pub out_of_reach_max: Duration,
    /// The time, in milliseconds since 1970, that dates what SQS took.
    pub now_ms: &'a dyn Fn() -> u64,
    /// Whether to stop.
    pub interrupt: &'a Interrupt,
    /// Asked before each batch: what it fails with ends the sending.
    pub may_send: &'a dyn Fn() -> Result<(), Failure>,
}

impl Sender<'_> {
    /// Sends what `next` gives until it gives no more (what it leaves out, it writes into the receipt itself);
    /// `progress` hears how many SQS took.
    ///
    /// What was sent comes back in any case, beside the failure that ended it early.
    pub async fn send(
        &mut self,
        mut next: impl FnMut(&mut Receipt) -> Result<Option<Outgoing>, Failure>,
        mut progress: impl FnMut(u64),
    ) -> (Sent, Result<(), Failure>) {
        let mut sent = Sent::default();
        let ended = self.send_all(&mut next, &mut progress, &mut sent).await;
        (sent, ended)
    }

    async fn send_all(
        &mut self,
        next: &mut impl FnMut(&mut Receipt) -> Result<Option<Outgoing>, Failure>,
        progress: &mut impl FnMut(u64),
        sent: &mut Sent,
    ) -> Result<(), Failure> {
        let mut open = FuturesUnordered::new();
        let mut again: Vec<Vec<Outgoing>> = Vec::new();
        let mut batch = match self.rate {
            Rate::Open { together, .. } => Batch::of_at_most(together),
            Rate::Any | Rate::AtMost(_) => Batch::default(),
        };
        let mut pace = Pace { rate: self.rate, next_at: Instant::now() };
        let mut ready: Option<Vec<Outgoing>> = None;
        let mut ended = Ok(());
        loop {
            if ended.is_err() {
                ready = None;
            } else if ready.is_none() && open.len() < OPEN_MAX {
                match again.pop().map_or_else(|| filled(&mut batch, self.receipt, next), Ok) {
                    Ok(messages) => ready = Some(messages).filter(|messages| !messages.is_empty()),
                    Err(failure) => ended = Err(failure),
                }
            }
            if ready.is_none() && open.is_empty() {
                return ended;
            }
            tokio::select! {
                () = self.interrupt.asked(), if ended.is_ok() => ended = Err(Failure::interrupted("Interrupted")),
                Some(answer) = open.next(), if !open.is_empty() => {
                    let written = match answer {
                        Ok(Answer { entries, again: rest, unheard, gave_up }) => {
                            sent.perhaps_twice += unheard;
                            let taken = count(&entries);
                            sent.sent += taken.sent;
                            sent.refused += taken.refused;
                            progress(taken.sent);
                            if !rest.is_empty() {
                                again.push(rest);
                            }
                            let (noted, written) = self.receipt.note(&entries);
                            sent.unnoted += count(entries.get(noted..).unwrap_or_default()).sent;
                            written.and(gave_up)
                        }
                        Err(failure) => Err(failure),
                    };
                    // The first failure is the one that is told.
                    ended = ended.and(written);
                }
                () = pace.ready(), if ready.is_some() => {
                    let messages = ready.take().unwrap_or_default();
                    pace.took(&messages);
                    let sending = messages.iter().map(|message| message.line).collect();
                    match (self.may_send)().and_then(|()| self.receipt.write(&[Entry::Sending { sending }])) {
                        Ok(()) => open.push(send_batch(self.client, self.queue_url, self.now_ms, messages, self.out_of_reach_max)),
                        Err(failure) => ended = Err(failure),
                    }
                }
            }
        }
    }
}

fn count(entries: &[Entry]) -> Sent {
    let sent = entries.iter().filter(|entry| matches!(entry, Entry::Sent { .. })).count();
    Sent { sent: sent as u64, refused: (entries.len() - sent) as u64, ..Sent::default() }
}

/// The next full batch, or what is left.
fn filled(
    batch: &mut Batch<Outgoing>,
    receipt: &mut Receipt,
    next: &mut impl FnMut(&mut Receipt) -> Result<Option<Outgoing>, Failure>,
) -> Result<Vec<Outgoing>, Failure> {
    while let Some(message) = next(receipt)? {
        if let Some(full) = batch.push(message) {
            return Ok(full);
        }
    }
    Ok(batch.take())
}

/// What SQS said to one batch.
struct Answer {
    entries: Vec<Entry>,
    again: Vec<Outgoing>,
    /// How many of those SQS may have taken, each counted once.
    unheard: u64,
    /// An error where it did not take a message for the last time; what it took of the others is noted all the same.
    gave_up: Result<(), Failure>,
}

async fn send_batch(
    client: &Client,
    queue_url: &str,
    now_ms: &dyn Fn() -> u64,
    mut messages: Vec<Outgoing>,
    out_of_reach_max: Duration,
) -> Result<Answer, Failure> {
    tokio::time::sleep(messages.iter().map(|message| message.tried.waits()).max().unwrap_or_default()).await;
    let began = Instant::now();
    for message in &mut messages {
        message.tried = message.tried.once_more(began);
    }
    let mut request = client.send_message_batch().queue_url(queue_url);
    for (index, message) in messages.iter().enumerate() {
        let entry = SendMessageBatchRequestEntry::builder()
            .id(index.to_string())
            .message_body(&message.draft.body)
            .set_message_group_id(message.draft.group.clone())
            .build()
            .map_err(|error| Failure::failed(format!("Line {} cannot be sent: {error}.", message.line)))?;
        request = request.entries(entry);
    }
    // The SDK would send again by itself what SQS may have taken, and nobody would count it.
    let once = aws_sdk_sqs::config::Builder::default().retry_config(RetryConfig::disabled());
    let answered = request.customize().config_override(once).send().await;
    // What was refused, was not taken; of all else nobody knows.
    let is_unheard =
        matches!(&answered, Err(e) if !e.raw_response().is_some_and(|r| r.status().is_client_error()));
    let is_out_of_reach = matches!(&answered, Err(e) if e.raw_response().is_none());
    let out_of_reach_max = is_out_of_reach.then_some(out_of_reach_max);
    let goes_on = |tried: Tried| tried.goes_on(out_of_reach_max, Instant::now());
    let answer = match answered.map_err(|e| error::of_aws(ACTION, &e)) {
        Ok(answer) => answer,
        Err(failure) if failure.may_pass() && messages.iter().all(|message| goes_on(message.tried)) => {
            let mut unheard = 0;
            for message in messages.iter_mut().filter(|_| is_unheard) {
                unheard += message.tried.now_perhaps_taken();
            }
            return Ok(Answer { entries: Vec::new(), again: messages, unheard, gave_up: Ok(()) });
        }
        Err(failure) => return Err(failure),
    };
    Ok(sorted_out(messages, &answer, now_ms()))
}

/// What becomes of each message of a batch that was answered.
fn sorted_out(messages: Vec<Outgoing>, answer: &SendMessageBatchOutput, sent_ms: u64) -> Answer {
    let mut entries = Vec::with_capacity(messages.len());
    let mut again = Vec::new();
    let mut unheard = 0;
    let mut gave_up = Ok(());
    for (index, mut message) in messages.into_iter().enumerate() {
        let id = index.to_string();
        if let Some(taken) = answer.successful().iter().find(|entry| entry.id() == id) {
            entries.push(Entry::Sent {
                line: message.line,
                key: message.key,
                message_id: taken.message_id().to_owned(),
                sent_ms,
            });
            continue;
        }
        let refused = answer.failed().iter().find(|entry| entry.id() == id);
        let kind = refused.map(entry_kind);
        match refused {
            Some(refused) if kind == Some(Refused) => {
                entries.push(Entry::Bad { line: message.line, not_sent: refused.code().to_owned() });
            }
            // It may pass, or is not even mentioned.
            _ if kind != Some(Misconfigured) && message.tried.goes_on(None, Instant::now()) => {
                if refused.is_none() {
                    unheard += message.tried.now_perhaps_taken();
                }
                again.push(message);
            }
            refused => {
                let code = refused.map_or("no answer", |entry| entry.code());
                let said = format!("SQS did not take line {}", message.line);
                gave_up = gave_up.and(Err(error::of_code(ACTION, code, &said)));
            }
        }
    }
    Answer { entries, again, unheard, gave_up }
}

/// When the next batch may go.
struct Pace {
    rate: Rate,
    next_at: Instant,
}

impl Pace {
    async fn ready(&self) {
        if !matches!(self.rate, Rate::Any) {
            tokio::time::sleep_until(self.next_at).await;
        }
    }

    fn took(&mut self, messages: &[Outgoing]) {
        let took = |rate| Duration::from_secs_f64(messages.len() as f64 / rate);
        match self.rate {
            Rate::Any => {}
            Rate::AtMost(rate) => self.next_at = self.next_at.max(Instant::now()) + took(rate),
            // What is sent again had its place in the schedule already.
            Rate::Open { .. } if messages.iter().any(|message| message.tried.times > 0) => {}
            Rate::Open { per_second, .. } => self.next_at += took(per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_reach_is_tried_for_as_long_as_that_is_borne_and_all_else_five_times() {
        let lease = Some(Duration::from_secs(90));
        for (times, passed_s, out_of_reach_max, goes_on) in [
            (4, 89, None, true),
            (5, 1, None, false),
            (5, 1, Some(Duration::ZERO), false),
            (5, 89, lease, true),
            (500, 89, lease, true),
            (5, 90, lease, false),
            (4, 600, lease, true),
        ] {
            let began = Instant::now();
            let tried = (0..times).fold(Tried::default(), |tried, _| tried.once_more(began));
            let now = began + Duration::from_secs(passed_s);
            let found = tried.goes_on(out_of_reach_max, now);
            assert_eq!(found, goes_on, "{times} times in {passed_s} s, {out_of_reach_max:?}");
        }
        let waits_ms = |times| Tried { times, ..Tried::default() }.waits().as_millis();
        assert_eq!([0, 1, 2, 4, 5, u32::MAX].map(waits_ms), [0, 500, 1_000, 4_000, 5_000, 5_000]);
    }
}
