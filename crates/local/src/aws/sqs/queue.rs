//! One queue: what lies in it, and when it can be seen.

use std::collections::{BTreeSet, HashMap};

use super::message::MessageAttributes;
use super::random;
use super::settings::Settings;

/// A message that was handed to a receiver.
#[derive(Debug, Clone)]
pub(in crate::aws) struct Received {
    pub(in crate::aws) message_id: String,
    pub(in crate::aws) receipt_handle: String,
    pub(in crate::aws) body: String,
    pub(in crate::aws) body_md5: String,
    pub(in crate::aws) attributes: MessageAttributes,
    pub(in crate::aws) sent_ms: i64,
    pub(in crate::aws) first_received_ms: i64,
    pub(in crate::aws) receive_count: u32,
    pub(in crate::aws) dead_letter_source: Option<String>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) message_id: String,
    pub(super) body: String,
    pub(super) body_md5: String,
    pub(super) attributes: MessageAttributes,
    pub(super) sent_ms: i64,
    pub(super) first_received_ms: Option<i64>,
    /// What the receiver is told: goes on counting in the dead-letter queue, as recorded events of dead-letter queues show.
    pub(super) receive_count: u32,
    /// What `maxReceiveCount` is compared with: receives from this queue.
    pub(super) receives_here: u32,
    /// The receive whose handle is valid; none before the first.
    pub(super) receipt: Option<Receipt>,
    pub(super) visible_ms: i64,
    pub(super) dead_letter_source: Option<String>,
}

#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) secret: u64,
    pub(super) received_ms: i64,
}

/// A queue's messages, each in two orders: by when it is visible and by when it expires.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) arn: String,
    pub(super) settings: Settings,
    pub(super) created_s: i64,
    pub(super) messages: HashMap<u64, Message>,
    /// A message is visible when its time in here has come.
    pub(super) by_visible_ms: BTreeSet<(i64, u64)>,
    pub(super) by_sent_ms: BTreeSet<(i64, u64)>,
}

/// How many messages a queue holds, by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Can be received now.
    pub visible: usize,
    /// Received and neither deleted nor visible again.
    pub in_flight: usize,
    /// Sent with a delay that is not over.
    pub delayed: usize,
}

impl Depth {
    /// All messages of the queue.
    pub fn total(&self) -> usize {
        self.visible + self.in_flight + self.delayed
    }
}

impl Queue {
    pub(super) fn insert(&mut self, sequence: u64, message: Message) {
        self.by_visible_ms.insert((message.visible_ms, sequence));
        self.by_sent_ms.insert((message.sent_ms, sequence));
        self.messages.insert(sequence, message);
    }

    pub(super) fn remove(&mut self, sequence: u64) -> Option<Message> {
        let message = self.messages.remove(&sequence)?;
        self.by_visible_ms.remove(&(message.visible_ms, sequence));
        self.by_sent_ms.remove(&(message.sent_ms, sequence));
        Some(message)
    }

    /// Makes a message visible at a time; the two orders stay in step.
    pub(super) fn reschedule(&mut self, sequence: u64, visible_ms: i64) {
        if let Some(message) = self.messages.get_mut(&sequence) {
            self.by_visible_ms.remove(&(message.visible_ms, sequence));
            message.visible_ms = visible_ms;
            self.by_visible_ms.insert((visible_ms, sequence));
        }
    }

    pub(super) fn expire(&mut self, now_ms: i64) {
        let retention_ms = i64::from(self.settings.retention_s) * 1000;
        while let Some(&(sent_ms, sequence)) = self.by_sent_ms.first() {
            if sent_ms + retention_ms > now_ms {
                break;
            }
            self.remove(sequence);
        }
    }

    pub(super) fn depth(&self, now_ms: i64) -> Depth {
        let mut depth = Depth::default();
        for message in self.messages.values() {
            if message.visible_ms <= now_ms {
                depth.visible += 1;
            } else if message.receive_count > 0 {
                depth.in_flight += 1;
            } else {
                depth.delayed += 1;
            }
        }
        depth
    }
}

impl Message {
    pub(super) fn hand_out(&mut self, sequence: u64, now_ms: i64) -> Received {
        let secret = random() as u64;
        self.receipt = Some(Receipt { secret, received_ms: now_ms });
        self.receive_count += 1;
        self.receives_here += 1;
        Received {
            message_id: self.message_id.clone(),
            receipt_handle: format!("{sequence:016x}-{secret:016x}"),
            body: self.body.clone(),
            body_md5: self.body_md5.clone(),
            attributes: self.attributes.clone(),
            sent_ms: self.sent_ms,
            first_received_ms: *self.first_received_ms.get_or_insert(now_ms),
            receive_count: self.receive_count,
            dead_letter_source: self.dead_letter_source.clone(),
        }
    }
}
