//! SQS: the state of the queues, with the time as an argument.
//!
//! **Why our own:** the in-process crate that we looked at first (winterbaume-sqs 0.2) reads a queue from its front for every receive and every delete (quadratic over a run), takes a visibility timeout of 0 for "not given", lets a stale receipt handle delete a message that somebody else holds, computes no digest of message attributes, and drops a message whose dead-letter queue does not exist.
//! Each of these is something that the worker's promises depend on.
//!
//! Behaviour follows the Amazon SQS Developer Guide and API Reference; where they are silent, the line says what was seen.
//! Standard queues only: no ordering is promised, messages come roughly in the order in which they became visible.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use md5::{Digest, Md5};

/// The longest that a message can stay invisible, counted from its receipt (API Reference, "ChangeMessageVisibility").
const VISIBILITY_MS_MAX: i64 = 12 * 60 * 60 * 1000;
/// A message with its attributes (Developer Guide, "Amazon SQS message quotas").
const MESSAGE_BYTES_MAX: usize = 1_048_576;
const ATTRIBUTES_MAX: usize = 10;
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

/// A message attribute as the sender gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageAttribute {
    /// `String`, `Number` or `Binary`, with an optional suffix after a dot.
    pub data_type: String,
    /// The value.
    pub value: AttributeValue,
}

/// The value of a message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// For the types `String` and `Number`.
    Text(String),
    /// For the type `Binary`.
    Binary(Vec<u8>),
}

/// The attributes of a message, by name.
pub type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// A message that was handed to a receiver.
#[derive(Debug, Clone)]
pub(super) struct Received {
    pub(super) message_id: String,
    pub(super) receipt_handle: String,
    pub(super) body: String,
    pub(super) body_md5: String,
    pub(super) attributes: MessageAttributes,
    pub(super) sent_ms: i64,
    pub(super) first_received_ms: i64,
    pub(super) receive_count: u32,
    pub(super) dead_letter_source: Option<String>,
}

/// What a queue does with a message that was received too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redrive {
    pub(super) target_arn: String,
    pub(super) max_receive_count: u32,
}

/// The settings of a queue, in SQS's own units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) visibility_timeout_s: u32,
    pub(super) delay_s: u32,
    pub(super) retention_s: u32,
    pub(super) message_bytes_max: usize,
    pub(super) receive_wait_s: u32,
    pub(super) redrive: Option<Redrive>,
    /// Attributes that are kept and given back but change nothing here (policies, encryption).
    pub(super) others: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            visibility_timeout_s: 30,
            delay_s: 0,
            retention_s: 4 * 24 * 60 * 60,
            message_bytes_max: MESSAGE_BYTES_MAX,
            receive_wait_s: 0,
            redrive: None,
            others: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Takes over the attributes of `CreateQueue` or `SetQueueAttributes`, or refuses them all.
    pub(super) fn apply(&mut self, attributes: &BTreeMap<String, String>) -> Result<(), SqsError> {
        for (name, value) in attributes {
            match name.as_str() {
                "VisibilityTimeout" => self.visibility_timeout_s = seconds(name, value, 0..=43_200)?,
                "DelaySeconds" => self.delay_s = seconds(name, value, 0..=900)?,
                "MessageRetentionPeriod" => self.retention_s = seconds(name, value, 60..=1_209_600)?,
                "ReceiveMessageWaitTimeSeconds" => self.receive_wait_s = seconds(name, value, 0..=20)?,
                "MaximumMessageSize" => {
                    self.message_bytes_max = seconds(name, value, 1_024..=1_048_576)? as usize;
                }
                "RedrivePolicy" => self.redrive = redrive(value)?,
                "FifoQueue" if value == "true" => {
                    return Err(SqsError::new(
                        "UnsupportedOperation",
                        "FIFO queues are not part of this stand-in",
                    ));
                }
                _ => {
                    self.others.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(())
    }
}

fn seconds(name: &str, value: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, SqsError> {
    value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        SqsError::new("InvalidAttributeValue", format!("Invalid value for the parameter {name}."))
    })
}

fn redrive(policy: &str) -> Result<Option<Redrive>, SqsError> {
    if policy.is_empty() {
        return Ok(None);
    }
    let invalid = || SqsError::new("InvalidAttributeValue", "Invalid value for the parameter RedrivePolicy.");
    let policy: serde_json::Value = serde_json::from_str(policy).map_err(|_| invalid())?;
    let target_arn =
        policy.get("deadLetterTargetArn").and_then(serde_json::Value::as_str).ok_or_else(invalid)?;
    // Both spellings occur: a number, and a number in a string.
    let count = policy.get("maxReceiveCount").ok_or_else(invalid)?;
    let max_receive_count = count
        .as_u64()
        .or_else(|| count.as_str().and_then(|count| count.parse().ok()))
        .and_then(|count| u32::try_from(count).ok())
        .filter(|count| (1..=1000).contains(count))
        .ok_or_else(invalid)?;
    Ok(Some(Redrive { target_arn: target_arn.to_owned(), max_receive_count }))
}

#[derive(Debug)]
struct Message {
    message_id: String,
    body: String,
    body_md5: String,
    attributes: MessageAttributes,
    sent_ms: i64,
    first_received_ms: Option<i64>,
    /// What the receiver is told: goes on counting in the dead-letter queue, as recorded events of dead-letter queues show.
    receive_count: u32,
    /// What `maxReceiveCount` is compared with: receives from this queue.
    receives_here: u32,
    /// The receive whose handle is valid; none before the first.
    receipt: Option<Receipt>,
    visible_ms: i64,
    dead_letter_source: Option<String>,
}

#[derive(Debug)]
struct Receipt {
    secret: u64,
    received_ms: i64,
}

/// A queue's messages, each in two orders: by when it is visible and by when it expires.
#[derive(Debug)]
struct Queue {
    arn: String,
    settings: Settings,
    created_s: i64,
    messages: HashMap<u64, Message>,
    /// A message is visible when its time in here has come.
    by_visible_ms: BTreeSet<(i64, u64)>,
    by_sent_ms: BTreeSet<(i64, u64)>,
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
    fn insert(&mut self, sequence: u64, message: Message) {
        self.by_visible_ms.insert((message.visible_ms, sequence));
        self.by_sent_ms.insert((message.sent_ms, sequence));
        self.messages.insert(sequence, message);
    }

    fn remove(&mut self, sequence: u64) -> Option<Message> {
        let message = self.messages.remove(&sequence)?;
        self.by_visible_ms.remove(&(message.visible_ms, sequence));
        self.by_sent_ms.remove(&(message.sent_ms, sequence));
        Some(message)
    }

    /// Makes a message visible at a time; the two orders stay in step.
    fn reschedule(&mut self, sequence: u64, visible_ms: i64) {
        if let Some(message) = self.messages.get_mut(&sequence) {
            self.by_visible_ms.remove(&(message.visible_ms, sequence));
            message.visible_ms = visible_ms;
            self.by_visible_ms.insert((visible_ms, sequence));
        }
    }

    fn expire(&mut self, now_ms: i64) {
        let retention_ms = i64::from(self.settings.retention_s) * 1000;
        while let Some(&(sent_ms, sequence)) = self.by_sent_ms.first() {
            if sent_ms + retention_ms > now_ms {
                break;
            }
            self.remove(sequence);
        }
    }

    fn depth(&self, now_ms: i64) -> Depth {
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

/// A message to send, already checked.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) body: String,
    pub(super) delay_s: Option<u32>,
    pub(super) attributes: MessageAttributes,
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

impl Message {
    fn hand_out(&mut self, sequence: u64, now_ms: i64) -> Received {
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

fn check_message(outgoing: &Outgoing, bytes_max: usize) -> Result<(), SqsError> {
    if outgoing.body.is_empty() {
        return Err(SqsError::new("MissingParameter", "The request must contain the parameter MessageBody."));
    }
    if outgoing.delay_s.is_some_and(|delay_s| delay_s > 900) {
        return Err(SqsError::invalid(
            "Value for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
        ));
    }
    if outgoing.attributes.len() > ATTRIBUTES_MAX {
        return Err(SqsError::invalid(format!(
            "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
            outgoing.attributes.len()
        )));
    }
    let texts = outgoing
        .attributes
        .values()
        .filter_map(|attribute| match &attribute.value {
            AttributeValue::Text(text) => Some(text.as_str()),
            AttributeValue::Binary(_) => None,
        })
        .chain([outgoing.body.as_str()]);
    if let Some(refused) = texts.flat_map(str::chars).find(|c| !is_allowed(*c)) {
        return Err(SqsError::new(
            "InvalidMessageContents",
            format!("Invalid binary character '#x{:X}' was found in the message.", u32::from(refused)),
        ));
    }
    for (name, attribute) in &outgoing.attributes {
        check_attribute(name, attribute)?;
    }
    if message_bytes(outgoing) > bytes_max {
        return Err(SqsError::invalid(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {bytes_max} bytes."
        )));
    }
    Ok(())
}

/// The characters that a message may hold (API Reference, "SendMessage").
fn is_allowed(c: char) -> bool {
    matches!(c, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

fn check_attribute(name: &str, attribute: &MessageAttribute) -> Result<(), SqsError> {
    let name_valid = (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !name_valid {
        return Err(SqsError::invalid(format!("Message attribute name '{name}' is invalid.")));
    }
    let kind = attribute.data_type.split('.').next().unwrap_or_default();
    let valid = match (kind, &attribute.value) {
        ("String", AttributeValue::Text(text)) => !text.is_empty(),
        ("Number", AttributeValue::Text(text)) => text.parse::<f64>().is_ok(),
        ("Binary", AttributeValue::Binary(bytes)) => !bytes.is_empty(),
        _ => false,
    };
    if valid {
        Ok(())
    } else {
        Err(SqsError::invalid(format!(
            "The message attribute '{name}' must contain a non-empty value that fits its type '{}'.",
            attribute.data_type
        )))
    }
}

/// The size that SQS counts: the body, and each attribute's name, type and value.
pub(super) fn message_bytes(outgoing: &Outgoing) -> usize {
    let attributes = outgoing.attributes.iter().map(|(name, attribute)| {
        let value = match &attribute.value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Binary(bytes) => bytes.len(),
        };
        name.len() + attribute.data_type.len() + value
    });
    outgoing.body.len() + attributes.sum::<usize>()
}

/// The digest of message attributes (Developer Guide, "Calculating the MD5 message digest for message attributes").
pub(super) fn attributes_md5(attributes: &MessageAttributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut digest = Md5::new();
    let part = |digest: &mut Md5, bytes: &[u8]| {
        digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(bytes);
    };
    // A map in the order of its names, which is the order that the digest wants.
    for (name, attribute) in attributes {
        part(&mut digest, name.as_bytes());
        part(&mut digest, attribute.data_type.as_bytes());
        match &attribute.value {
            AttributeValue::Text(text) => {
                digest.update([1]);
                part(&mut digest, text.as_bytes());
            }
            AttributeValue::Binary(bytes) => {
                digest.update([2]);
                part(&mut digest, bytes);
            }
        }
    }
    Some(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
mod tests {
    use super::*;

    const SECOND: i64 = 1000;

    fn queues(settings: &[(&str, &str)]) -> Queues {
        let mut queues = Queues::new("eu-central-1", "000000000000");
        queues.create("dead", &BTreeMap::new(), 0).unwrap();
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        queues.create("jobs", &settings, 0).unwrap();
        queues
    }

    fn text(body: &str) -> Outgoing {
        Outgoing { body: body.to_owned(), delay_s: None, attributes: BTreeMap::new() }
    }

    fn bodies(received: &[Received]) -> Vec<&str> {
        received.iter().map(|message| message.body.as_str()).collect()
    }

    #[test]
    fn a_received_message_is_hidden_until_its_timeout_and_then_counted_again() {
        let mut queues = queues(&[("VisibilityTimeout", "5")]);
        queues.send("jobs", text("a"), 0).unwrap();

        let first = queues.receive("jobs", 10, None, 10).unwrap();
        assert_eq!((first[0].receive_count, first[0].first_received_ms), (1, 10));
        assert!(queues.receive("jobs", 10, None, 10 + 5 * SECOND - 1).unwrap().is_empty());

        let second = queues.receive("jobs", 10, None, 10 + 5 * SECOND).unwrap();
        assert_eq!((second[0].receive_count, second[0].first_received_ms), (2, 10));
        assert_ne!(first[0].receipt_handle, second[0].receipt_handle);
        assert_eq!(first[0].message_id, second[0].message_id);
    }

    #[test]
    fn a_stale_handle_deletes_nothing_and_changes_nothing() {
        let mut queues = queues(&[("VisibilityTimeout", "1")]);
        queues.send("jobs", text("a"), 0).unwrap();
        let stale = queues.receive("jobs", 1, None, 0).unwrap().remove(0);
        let current = queues.receive("jobs", 1, None, SECOND).unwrap().remove(0);

        queues.delete("jobs", &stale.receipt_handle).unwrap();
        let error = queues.change_visibility("jobs", &stale.receipt_handle, 0, SECOND).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue");
        assert_eq!(queues.depth("jobs", SECOND).unwrap().in_flight, 1);

        queues.delete("jobs", &current.receipt_handle).unwrap();
        assert_eq!(queues.depth("jobs", SECOND).unwrap().total(), 0);
        queues.delete("jobs", &current.receipt_handle).unwrap();
    }

    #[test]
    fn a_handle_whose_timeout_ran_out_still_deletes_if_nobody_received_since() {
        let mut queues = queues(&[("VisibilityTimeout", "1")]);
        queues.send("jobs", text("a"), 0).unwrap();
        let handle = queues.receive("jobs", 1, None, 0).unwrap().remove(0).receipt_handle;
        assert!(queues.change_visibility("jobs", &handle, 10, 2 * SECOND).is_err());
        queues.delete("jobs", &handle).unwrap();
        assert!(queues.receive("jobs", 1, None, 2 * SECOND).unwrap().is_empty());
    }

    #[test]
    fn visibility_can_be_changed_to_now_and_up_to_twelve_hours_from_the_receipt() {
        let mut queues = queues(&[]);
        queues.send("jobs", text("a"), 0).unwrap();
        let handle = queues.receive("jobs", 1, None, 0).unwrap().remove(0).receipt_handle;
        assert!(queues.change_visibility("jobs", &handle, 43_200, SECOND).is_err());
        queues.change_visibility("jobs", &handle, 43_199, SECOND).unwrap();
        queues.change_visibility("jobs", &handle, 0, SECOND).unwrap();
        assert_eq!(queues.receive("jobs", 1, None, SECOND).unwrap().len(), 1);
    }

    #[test]
    fn a_visibility_of_zero_returns_each_message_once_per_receive() {
        let mut queues = queues(&[]);
        queues.send("jobs", text("a"), 0).unwrap();
        queues.send("jobs", text("b"), 0).unwrap();
        assert_eq!(bodies(&queues.receive("jobs", 10, Some(0), 0).unwrap()), ["a", "b"]);
        assert_eq!(queues.depth("jobs", 0).unwrap().visible, 2);
    }

    #[test]
    fn after_the_last_allowed_receive_a_message_moves_to_the_dead_letter_queue() {
        let policy =
            r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:000000000000:dead","maxReceiveCount":"2"}"#;
        let mut queues = queues(&[("RedrivePolicy", policy), ("VisibilityTimeout", "1")]);
        let sent = queues.send("jobs", text("a"), 7).unwrap();
        assert_eq!(queues.receive("jobs", 1, None, SECOND).unwrap().len(), 1);
        assert_eq!(queues.receive("jobs", 1, None, 2 * SECOND).unwrap().len(), 1);
        assert!(queues.receive("jobs", 1, None, 3 * SECOND).unwrap().is_empty());

        let dead = queues.receive("dead", 1, None, 3 * SECOND).unwrap().remove(0);
        assert_eq!(dead.message_id, sent.message_id);
        assert_eq!((dead.sent_ms, dead.first_received_ms, dead.receive_count), (7, SECOND, 3));
        assert_eq!(dead.dead_letter_source.as_deref(), Some("arn:aws:sqs:eu-central-1:000000000000:jobs"));
        assert_eq!(queues.depth("jobs", 3 * SECOND).unwrap().total(), 0);
        assert_eq!(queues.sources_of("dead").unwrap(), ["jobs"]);
    }

    #[test]
    fn a_message_stays_when_its_dead_letter_queue_is_gone() {
        let policy =
            r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:000000000000:dead","maxReceiveCount":1}"#;
        let mut queues = queues(&[("RedrivePolicy", policy), ("VisibilityTimeout", "0")]);
        queues.send("jobs", text("a"), 0).unwrap();
        queues.delete_queue("dead").unwrap();
        queues.receive("jobs", 1, None, 0).unwrap();
        queues.receive("jobs", 1, None, 0).unwrap();
        assert_eq!(queues.depth("jobs", 0).unwrap().total(), 1);
    }

    #[test]
    fn delayed_messages_wait_and_old_messages_expire_even_when_in_flight() {
        let mut queues = queues(&[("MessageRetentionPeriod", "60")]);
        let mut delayed = text("later");
        delayed.delay_s = Some(30);
        queues.send("jobs", delayed, 0).unwrap();
        queues.send("jobs", text("now"), 0).unwrap();
        assert_eq!(bodies(&queues.receive("jobs", 10, Some(600), 0).unwrap()), ["now"]);
        let depth = Depth { visible: 0, in_flight: 1, delayed: 1 };
        assert_eq!(queues.depth("jobs", SECOND).unwrap(), depth);
        assert_eq!(queues.depth("jobs", 60 * SECOND).unwrap().total(), 0);
    }

    #[test]
    fn settings_and_messages_outside_of_the_limits_are_refused() {
        let refused = |attributes: &[(&str, &str)]| {
            let attributes =
                attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            queues(&[]).create("other", &attributes, 0).unwrap_err().code
        };
        assert_eq!(refused(&[("VisibilityTimeout", "43201")]), "InvalidAttributeValue");
        assert_eq!(refused(&[("RedrivePolicy", r#"{"maxReceiveCount":3}"#)]), "InvalidAttributeValue");
        assert_eq!(
            refused(&[(
                "RedrivePolicy",
                r#"{"deadLetterTargetArn":"arn:aws:sqs:x:y:z","maxReceiveCount":3}"#
            )]),
            "InvalidParameterValue"
        );

        let mut queues = queues(&[]);
        assert_eq!(queues.send("jobs", text(""), 0).unwrap_err().code, "MissingParameter");
        assert_eq!(queues.send("jobs", text("a\u{1}"), 0).unwrap_err().code, "InvalidMessageContents");
        assert!(queues.send("jobs", text(&"x".repeat(MESSAGE_BYTES_MAX)), 0).is_ok());
        assert_eq!(
            queues.send("jobs", text(&"x".repeat(MESSAGE_BYTES_MAX + 1)), 0).unwrap_err().code,
            "InvalidParameterValue"
        );
        assert_eq!(queues.send("absent", text("a"), 0).unwrap_err().code, "QueueDoesNotExist");
        assert_eq!(queues.delete("jobs", "nonsense").unwrap_err().code, "ReceiptHandleIsInvalid");
    }

    #[test]
    fn the_digest_of_attributes_is_that_of_aws() {
        // Attributes and digest as AWS answered them, kept in the tests of another SQS server (moto, "test_send_message_with_attributes").
        let attributes = MessageAttributes::from([(
            "timestamp".to_owned(),
            MessageAttribute {
                data_type: "Number".to_owned(),
                value: AttributeValue::Text("1493147359900".to_owned()),
            },
        )]);
        assert_eq!(attributes_md5(&attributes).as_deref(), Some("235c5c510d26fb653d073faed50ae77c"));
        assert_eq!(attributes_md5(&MessageAttributes::new()), None);
    }
}
