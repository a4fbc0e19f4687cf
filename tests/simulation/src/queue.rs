//! SQS in memory: at least once, in no certain order, with visibility, receive counts, a backstop and an end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::message::{ATTRIBUTES_MAX, Attribute, AttributeValue, MESSAGE_BYTES_MAX};

use crate::rng::Rng;

/// How far from its place in the order a message may be taken.
const REORDERED_BY: u64 = 64;

/// A message of the jobs queue. Its id is its place in the list of all messages.
#[derive(Debug, Clone)]
pub struct Queued {
    pub input: u32,
    /// The sender's reference, which is in the body.
    pub reference: u32,
    /// By SQS's clock.
    pub sent_at_ms: u64,
    /// Receives so far.
    pub receive_count: u32,
    /// When the last delivery was received.
    pub received_at_ms: u64,
    /// Attributes; most messages have none.
    pub attributes: Vec<(String, Attribute)>,
    /// `MessageGroupId`.
    pub group: Option<String>,
    /// It is a dead letter that was moved back: the version of the failed record that it tells of; for the oracle.
    pub redrive_of: Option<u64>,
    /// In flight until then, or visible since then.
    pub visible_at_ms: u64,
    /// Grows with each change of visibility, so that old entries of the heap are known as such.
    generation: u32,
    pub place: Place,
    /// The provider told this message's worker to wait until then; for the oracle.
    pub not_before_ms: u64,
    /// SQS delivered it again while it was in flight; for the oracle.
    pub delivered_twice: bool,
    /// Deliveries that a kill or a fault of the dead-letter queue kept from settling it; for the oracle.
    pub prevented: u32,
    /// Whether a dead letter of it has arrived, its sender told so or not.
    pub told: bool,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Waiting or in flight.
    InQueue,
    /// Acknowledged.
    Deleted,
    /// Moved by SQS after too many receives.
    Crashed,
    /// Deleted by SQS for its age.
    Expired,
}

#[derive(Debug, Default)]
pub struct Queue {
    /// All messages that were ever sent.
    pub messages: Vec<Queued>,
    waiting: BinaryHeap<Reverse<(u64, u32, u32)>>,
    ready: VecDeque<(u32, u32)>,
    oldest: u32,
    /// Messages that are neither deleted nor crashed nor expired.
    pub live: usize,
}

/// What a change of visibility or a deletion met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleAnswer {
    /// Done.
    Ok,
    /// The handle is not the one of the last delivery, or the message is gone or not in flight.
    Stale,
    /// More than twelve hours after the receive.
    TooLong,
}

impl Queue {
    /// Sends a message and returns its id.
    pub fn send(
        &mut self,
        input: u32,
        reference: u32,
        now_ms: u64,
        attributes: Vec<(String, Attribute)>,
        group: Option<String>,
    ) -> u32 {
        let id = self.messages.len() as u32;
        self.messages.push(Queued {
            input,
            reference,
            sent_at_ms: now_ms,
            receive_count: 0,
            received_at_ms: 0,
            attributes,
            group,
            redrive_of: None,
            visible_at_ms: now_ms,
            generation: 0,
            place: Place::InQueue,
            not_before_ms: 0,
            delivered_twice: false,
            prevented: 0,
            told: false,
        });
        self.live += 1;
        self.waiting.push(Reverse((now_ms, id, 0)));
        id
    }

    /// When the next message becomes visible.
    pub fn next_visible_ms(&mut self) -> Option<u64> {
        loop {
            let Reverse((at_ms, id, generation)) = *self.waiting.peek()?;
            let message = &self.messages[id as usize];
            if message.place == Place::InQueue && message.generation == generation {
                return Some(at_ms);
            }
            self.waiting.pop();
        }
    }

    /// Makes visible what is due, and says whether anything is there to be received.
    pub fn has_ready(&mut self, now_ms: u64) -> bool {
        while let Some(at_ms) = self.next_visible_ms() {
            if at_ms > now_ms {
                break;
            }
            if let Some(Reverse((_, id, generation))) = self.waiting.pop() {
                self.ready.push_back((id, generation));
            }
        }
        while let Some((id, generation)) = self.ready.front() {
            let message = &self.messages[*id as usize];
            if message.place == Place::InQueue && message.generation == *generation {
                return true;
            }
            self.ready.pop_front();
        }
        false
    }

    /// Receives one message: its id, or nothing. A second delivery leaves it visible for another poller.
    pub fn receive(
        &mut self,
        now_ms: u64,
        visibility_ms: u64,
        receive_count_max: u32,
        twice: f64,
        rng: &mut Rng,
    ) -> Option<Received> {
        loop {
            if !self.has_ready(now_ms) {
                return None;
            }
            let place = rng.range(0, REORDERED_BY.min(self.ready.len() as u64) - 1) as usize;
            let (id, generation) = self.ready.swap_remove_front(place)?;
            let message = &mut self.messages[id as usize];
            if message.place != Place::InQueue || message.generation != generation {
                continue;
            }
            message.receive_count += 1;
            if message.receive_count > receive_count_max {
                message.place = Place::Crashed;
                self.live -= 1;
                return Some(Received::Crashed(id));
            }
            message.received_at_ms = now_ms;
            message.generation += 1;
            let again = rng.chance(twice);
            message.delivered_twice |= again;
            let again_ms = if again { rng.range(0, 20_000) } else { visibility_ms };
            message.visible_at_ms = now_ms + again_ms;
            self.waiting.push(Reverse((message.visible_at_ms, id, message.generation)));
            return Some(Received::Message(id));
        }
    }

    /// Messages that can be received, and those that are hidden, about.
    #[must_use]
    pub fn depth(&mut self, now_ms: u64) -> (usize, usize) {
        let visible = if self.has_ready(now_ms) { self.ready.len().min(self.live) } else { 0 };
        (visible, self.live - visible)
    }

    /// When the oldest message that is left was sent.
    #[must_use]
    pub fn oldest_sent_ms(&self) -> Option<u64> {
        let rest = self.messages.get(self.oldest as usize..)?;
        rest.iter().find(|message| message.place == Place::InQueue).map(|message| message.sent_at_ms)
    }

    /// The handle of the last delivery.
    #[must_use]
    pub fn handle(&self, id: u32) -> String {
        format!("{id}/{}", self.messages[id as usize].receive_count)
    }

    fn of_handle(&mut self, handle: &str) -> Option<(u32, &mut Queued)> {
        let (id, receive) = handle.split_once('/')?;
        let (id, receive) = (id.parse::<u32>().ok()?, receive.parse::<u32>().ok()?);
        let message = &mut self.messages[id as usize];
        (message.receive_count == receive && message.place == Place::InQueue).then_some((id, message))
    }

    /// `ChangeMessageVisibility`.
    pub fn change_visibility(&mut self, handle: &str, delay_ms: u64, now_ms: u64) -> HandleAnswer {
        let Some((id, message)) = self.of_handle(handle) else { return HandleAnswer::Stale };
        if message.visible_at_ms <= now_ms {
            return HandleAnswer::Stale;
        }
        if now_ms + delay_ms > message.received_at_ms + nightshift_core::limits::VISIBILITY_MS_MAX {
            return HandleAnswer::TooLong;
        }
        message.generation += 1;
        message.visible_at_ms = now_ms + delay_ms;
        let entry = Reverse((message.visible_at_ms, id, message.generation));
        self.waiting.push(entry);
        HandleAnswer::Ok
    }

    /// `DeleteMessage`: a stale handle is accepted and deletes nothing.
    pub fn delete(&mut self, handle: &str) -> bool {
        let Some((_, message)) = self.of_handle(handle) else { return false };
        message.place = Place::Deleted;
        message.attributes = Vec::new();
        self.live -= 1;
        true
    }

    /// Deletes what is too old, in the order of sending; returns what was deleted.
    pub fn expire(&mut self, now_ms: u64, retention_ms: u64) -> Vec<u32> {
        let mut gone = Vec::new();
        while let Some(message) = self.messages.get_mut(self.oldest as usize) {
            if message.place == Place::InQueue {
                if message.sent_at_ms + retention_ms > now_ms {
                    break;
                }
                message.place = Place::Expired;
                self.live -= 1;
                gone.push(self.oldest);
            }
            self.oldest += 1;
        }
        gone
    }
}

/// The sender's `MessageGroupId`, as in a fair queue.
#[must_use]
pub fn group_of(input: u32) -> Option<String> {
    input.is_multiple_of(3).then(|| format!("tenant-{}", input % 7))
}

/// Why SQS does not take a message; `None`: it does.
#[must_use]
pub fn why_refused(letter: &DeadLetter) -> Option<&'static str> {
    // The characters of XML 1.0.
    let sendable = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    let mut bytes = letter.body.len();
    for (name, attribute) in &letter.attributes {
        let value = match &attribute.value {
            AttributeValue::Text(text) if !text.chars().all(sendable) => return Some("characters"),
            AttributeValue::Text(text) => text.as_bytes(),
            AttributeValue::Bytes(bytes) => bytes,
        };
        if value.is_empty() {
            return Some("an attribute without a value");
        }
        bytes += name.len() + attribute.data_type.len() + value.len();
    }
    let rules = [
        (letter.body.is_empty(), "an empty body"),
        (!letter.body.chars().all(sendable), "characters"),
        (letter.attributes.len() > ATTRIBUTES_MAX, "more than ten attributes"),
        (bytes > MESSAGE_BYTES_MAX, "its size"),
    ];
    rules.into_iter().find_map(|(broken, why)| broken.then_some(why))
}

/// What a receive brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A message to work on.
    Message(u32),
    /// SQS moved it away instead.
    Crashed(u32),
}
