//! SQS: the state of the queues, with the time as an argument.
//!
//! **Why our own:** the in-process crate that we looked at first (winterbaume-sqs 0.2) reads a queue from its front for every receive and every delete (quadratic over a run), takes a visibility timeout of 0 for "not given", lets a stale receipt handle delete a message that somebody else holds, computes no digest of message attributes, and drops a message whose dead-letter queue does not exist.
//! Each of these is something that the worker's promises depend on.
//!
//! Behaviour follows the Amazon SQS Developer Guide and API Reference; where they are silent, the line says what was seen.
//! Standard queues only: no ordering is promised, messages come roughly in the order in which they became visible.

mod message;
mod queue;
mod settings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use md5::{Digest, Md5};

pub use self::message::{AttributeValue, MessageAttribute, MessageAttributes};
pub(super) use self::message::{Outgoing, attributes_md5, message_bytes};
use self::message::{check_message, hex};
pub use self::queue::Depth;
pub(super) use self::queue::Received;
use self::queue::{Message, Queue};
use self::settings::{Redrive, Settings};

/// The longest that a message can stay invisible, counted from its receipt (API Reference, "ChangeMessageVisibility").
const VISIBILITY_MS_MAX: i64 = 12 * 60 * 60 * 1000;

/// Messages in flight in a standard queue; a receive beyond it fails with `OverLimit`.
const IN_FLIGHT_MAX: usize = 120_000;

/// Messages of one receive.
pub(super) const RECEIVE_MAX: usize = 10;

/// Entries of one batch.
pub(super) const BATCH_MAX: usize = 10;

/// A refusal, with the code that the SDK sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqsError {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl SqsError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        SqsError { code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        SqsError::new("InvalidParameterValue", message)
    }

    fn no_such_queue() -> Self {
        SqsError::new("QueueDoesNotExist", "The specified queue does not exist.")
    }
}

impl fmt::Display for SqsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// What the sender of a message is told.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) message_id: String,
    pub(super) body_md5: String,
    pub(super) attributes_md5: Option<String>,
}

/// All queues of one account in one region.
#[derive(Debug)]
pub(super) struct Queues {
    region: String,
    account: String,
    queues: BTreeMap<String, Queue>,
    /// Numbers messages over all queues, so that a handle of one queue never fits a message of another.
    sequence: u64,
}

impl Queues {
    pub(super) fn new(region: &str, account: &str) -> Self {
        Queues {
            region: region.to_owned(),
            account: account.to_owned(),
            queues: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn create(
        &mut self,
        name: &str,
        attributes: &BTreeMap<String, String>,
        now_ms: i64,
    ) -> Result<(), SqsError> {
        let valid = (1..=80).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !valid {
            return Err(SqsError::invalid(
                "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
            ));
        }
        let mut settings = Settings::default();
        settings.apply(attributes)?;
        self.check_target(&settings)?;
        if let Some(queue) = self.queues.get(name) {
            if queue.settings == settings {
                return Ok(());
            }
            return Err(SqsError::new(
                "QueueNameExists",
                "A queue already exists with the same name and a different value for one or more attributes.",
            ));
        }
        let queue = Queue {
            arn: self.arn(name),
            settings,
            created_s: now_ms / 1000,
            messages: HashMap::new(),
            by_visible_ms: BTreeSet::new(),
            by_sent_ms: BTreeSet::new(),
        };
        self.queues.insert(name.to_owned(), queue);
        Ok(())
    }

    pub(super) fn configure(
        &mut self,
        name: &str,
        attributes: &BTreeMap<String, String>,
    ) -> Result<(), SqsError> {
        let mut settings = self.queue(name)?.settings.clone();
        settings.apply(attributes)?;
        self.check_target(&settings)?;
        self.queue_mut(name)?.settings = settings;
        Ok(())
    }

    pub(super) fn delete_queue(&mut self, name: &str) -> Result<(), SqsError> {
        self.queues.remove(name).map(|_| ()).ok_or_else(SqsError::no_such_queue)
    }

    pub(super) fn purge(&mut self, name: &str) -> Result<(), SqsError> {
        let queue = self.queue_mut(name)?;
        queue.messages.clear();
        queue.by_visible_ms.clear();
        queue.by_sent_ms.clear();
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }

    pub(super) fn exists(&self, name: &str) -> Result<(), SqsError> {
        self.queue(name).map(|_| ())
    }

    pub(super) fn settings(&self, name: &str) -> Result<&Settings, SqsError> {
        Ok(&self.queue(name)?.settings)
    }

    pub(super) fn depth(&mut self, name: &str, now_ms: i64) -> Result<Depth, SqsError> {
        let queue = self.queue_mut(name)?;
        queue.expire(now_ms);
        Ok(queue.depth(now_ms))
    }

    /// The attributes that `GetQueueAttributes` knows, all of them.
    pub(super) fn attributes(
        &mut self,
        name: &str,
        now_ms: i64,
    ) -> Result<BTreeMap<String, String>, SqsError> {
        let depth = self.depth(name, now_ms)?;
        let queue = self.queue(name)?;
        let settings = &queue.settings;
        let mut attributes = settings.others.clone();
        let mut put = |name: &str, value: String| attributes.insert(name.to_owned(), value);
        put("QueueArn", queue.arn.clone());
        put("ApproximateNumberOfMessages", depth.visible.to_string());
        put("ApproximateNumberOfMessagesNotVisible", depth.in_flight.to_string());
        put("ApproximateNumberOfMessagesDelayed", depth.delayed.to_string());
        put("CreatedTimestamp", queue.created_s.to_string());
        put("LastModifiedTimestamp", queue.created_s.to_string());
        put("VisibilityTimeout", settings.visibility_timeout_s.to_string());
        put("DelaySeconds", settings.delay_s.to_string());
        put("MessageRetentionPeriod", settings.retention_s.to_string());
        put("MaximumMessageSize", settings.message_bytes_max.to_string());
        put("ReceiveMessageWaitTimeSeconds", settings.receive_wait_s.to_string());
        if let Some(redrive) = &settings.redrive {
            let policy = serde_json::json!({
                "deadLetterTargetArn": redrive.target_arn,
                "maxReceiveCount": redrive.max_receive_count,
            });
            put("RedrivePolicy", policy.to_string());
        }
        Ok(attributes)
    }

    /// The queues whose dead letters go to `name`.
    pub(super) fn sources_of(&self, name: &str) -> Result<Vec<&str>, SqsError> {
        let arn = &self.queue(name)?.arn;
        let sources = self.queues.iter().filter(|(_, queue)| {
            queue.settings.redrive.as_ref().is_some_and(|redrive| redrive.target_arn == *arn)
        });
        Ok(sources.map(|(name, _)| name.as_str()).collect())
    }

    pub(super) fn send(&mut self, name: &str, outgoing: Outgoing, now_ms: i64) -> Result<Sent, SqsError> {
        let settings = &self.queue(name)?.settings;
        check_message(&outgoing, settings.message_bytes_max)?;
        let delay_s = outgoing.delay_s.unwrap_or(settings.delay_s);
        let message = Message {
            message_id: uuid_from(random()),
            body_md5: hex(&Md5::digest(outgoing.body.as_bytes())),
            body: outgoing.body,
            attributes: outgoing.attributes,
            sent_ms: now_ms,
            first_received_ms: None,
            receive_count: 0,
            receives_here: 0,
            receipt: None,
            visible_ms: now_ms + i64::from(delay_s) * 1000,
            dead_letter_source: None,
        };
        let sent = Sent {
            message_id: message.message_id.clone(),
            body_md5: message.body_md5.clone(),
            attributes_md5: attributes_md5(&message.attributes),
        };
        self.sequence += 1;
        let sequence = self.sequence;
        self.queue_mut(name)?.insert(sequence, message);
        Ok(sent)
    }

    /// Hands out at most `limit` visible messages and hides each for `visibility_s` (default: the queue's).
    ///
    /// A message that was already received `maxReceiveCount` times goes to the dead-letter queue instead.
    pub(super) fn receive(
        &mut self,
        name: &str,
        limit: usize,
        visibility_s: Option<u32>,
        now_ms: i64,
    ) -> Result<Vec<Received>, SqsError> {
        let queue = self.queue_mut(name)?;
        queue.expire(now_ms);
        let visibility_s = visibility_s.unwrap_or(queue.settings.visibility_timeout_s);
        let visible_ms = now_ms + i64::from(visibility_s) * 1000;
        let redrive = queue.settings.redrive.clone();
        // Counting costs a pass over the queue, so it happens only when the limit can be near.
        if queue.messages.len() > IN_FLIGHT_MAX && queue.depth(now_ms).in_flight >= IN_FLIGHT_MAX {
            return Err(SqsError::new("OverLimit", "Too many messages in flight."));
        }
        let mut received = Vec::new();
        let mut worn_out = Vec::new();
        let mut hidden = Vec::new();
        while received.len() < limit {
            let Some(&(due_ms, sequence)) = queue.by_visible_ms.first() else {
                break;
            };
            if due_ms > now_ms {
                break;
            }
            let too_often = |message: &Message| {
                redrive.as_ref().is_some_and(|redrive| message.receives_here >= redrive.max_receive_count)
            };
            if queue.messages.get(&sequence).is_some_and(too_often) {
                worn_out.extend(queue.remove(sequence));
                continue;
            }
            // Taken out of the order until the end: with a visibility of 0 it would be next again.
            queue.by_visible_ms.remove(&(due_ms, sequence));
            hidden.push(sequence);
            if let Some(message) = queue.messages.get_mut(&sequence) {
                received.push(message.hand_out(sequence, now_ms));
            }
        }
        for sequence in hidden {
            queue.reschedule(sequence, visible_ms);
        }
        if let Some(redrive) = redrive {
            let source_arn = queue.arn.clone();
            self.move_to_dead_letters(worn_out, &redrive, &source_arn, name, now_ms);
        }
        Ok(received)
    }

    fn move_to_dead_letters(
        &mut self,
        messages: Vec<Message>,
        redrive: &Redrive,
        source_arn: &str,
        source: &str,
        now_ms: i64,
    ) {
        // A target that was deleted since: the messages stay where they are, nothing may be lost.
        let target = self
            .queues
            .iter()
            .find(|(_, queue)| queue.arn == redrive.target_arn)
            .map_or_else(|| source.to_owned(), |(name, _)| name.clone());
        for mut message in messages {
            if target != source {
                message.receives_here = 0;
                message.dead_letter_source = Some(source_arn.to_owned());
            }
            message.receipt = None;
            message.visible_ms = now_ms;
            self.sequence += 1;
            let sequence = self.sequence;
            if let Some(queue) = self.queues.get_mut(&target) {
                queue.insert(sequence, message);
            }
        }
    }

    /// Deletes the message if the handle is the one of its last receive.
    ///
    /// An older handle succeeds and deletes nothing, a message that is gone succeeds too (API Reference, "DeleteMessage").
    pub(super) fn delete(&mut self, name: &str, handle: &str) -> Result<(), SqsError> {
        let queue = self.queue_mut(name)?;
        let (sequence, secret) = parse_handle(handle)?;
        let current = queue
            .messages
            .get(&sequence)
            .and_then(|message| message.receipt.as_ref())
            .is_some_and(|receipt| receipt.secret == secret);
        if current {
            queue.remove(sequence);
        }
        Ok(())
    }

    pub(super) fn change_visibility(
        &mut self,
        name: &str,
        handle: &str,
        visibility_s: u32,
        now_ms: i64,
    ) -> Result<(), SqsError> {
        let queue = self.queue_mut(name)?;
        let (sequence, secret) = parse_handle(handle)?;
        // SQS answers the same for a message that is gone, visible again, or held by somebody else.
        let unavailable = || {
            SqsError::invalid(format!(
                "Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change."
            ))
        };
        let message = queue.messages.get(&sequence).ok_or_else(unavailable)?;
        let receipt = message
            .receipt
            .as_ref()
            .filter(|receipt| receipt.secret == secret && message.visible_ms > now_ms)
            .ok_or_else(unavailable)?;
        let visible_ms = now_ms + i64::from(visibility_s) * 1000;
        if visible_ms > receipt.received_ms + VISIBILITY_MS_MAX {
            return Err(SqsError::invalid(format!(
                "Value {visibility_s} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [43200 seconds]."
            )));
        }
        queue.reschedule(sequence, visible_ms);
        Ok(())
    }

    /// When the next message of a queue becomes visible, if it has any.
    pub(super) fn next_visible_ms(&self, name: &str) -> Option<i64> {
        let queue = self.queues.get(name)?;
        queue.by_visible_ms.first().map(|(visible_ms, _)| *visible_ms)
    }

    /// All messages of a queue in the order in which they were sent, without receiving them.
    pub(super) fn peek(&self, name: &str) -> Vec<(String, MessageAttributes)> {
        let Some(queue) = self.queues.get(name) else {
            return Vec::new();
        };
        queue
            .by_sent_ms
            .iter()
            .filter_map(|(_, sequence)| queue.messages.get(sequence))
            .map(|message| (message.body.clone(), message.attributes.clone()))
            .collect()
    }

    pub(super) fn arn(&self, name: &str) -> String {
        format!("arn:aws:sqs:{}:{}:{name}", self.region, self.account)
    }

    fn check_target(&self, settings: &Settings) -> Result<(), SqsError> {
        let Some(redrive) = &settings.redrive else {
            return Ok(());
        };
        if self.queues.values().any(|queue| queue.arn == redrive.target_arn) {
            return Ok(());
        }
        Err(SqsError::invalid(format!(
            "Value for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist: {}.",
            redrive.target_arn
        )))
    }

    fn queue(&self, name: &str) -> Result<&Queue, SqsError> {
        self.queues.get(name).ok_or_else(SqsError::no_such_queue)
    }

    fn queue_mut(&mut self, name: &str) -> Result<&mut Queue, SqsError> {
        self.queues.get_mut(name).ok_or_else(SqsError::no_such_queue)
    }
}

fn parse_handle(handle: &str) -> Result<(u64, u64), SqsError> {
    handle
        .split_once('-')
        .and_then(|(sequence, secret)| {
            Some((u64::from_str_radix(sequence, 16).ok()?, u64::from_str_radix(secret, 16).ok()?))
        })
        .ok_or_else(|| {
            SqsError::new(
                "ReceiptHandleIsInvalid",
                format!("The input receipt handle \"{handle}\" is not a valid receipt handle."),
            )
        })
}

/// 128 bits that nobody can guess from the outside and that differ between calls.
pub(super) fn random() -> u128 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds each state anew; message ids need to be distinct, not secret.
    let high = RandomState::new().hash_one(0);
    let low = RandomState::new().hash_one(1);
    (u128::from(high) << 64) | u128::from(low)
}

/// A version 4 UUID in its usual form.
pub(super) fn uuid_from(bits: u128) -> String {
    let bits = (bits & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let mut uuid = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            uuid.push('-');
        }
        uuid.push(digit);
    }
    uuid
}

#[cfg(test)]
mod tests;
