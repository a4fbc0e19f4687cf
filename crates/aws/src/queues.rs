//! The queues on SQS, as a redrive sees them: in batches of up to ten.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, Message,
    MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry,
};
use nightshift_core::message::{Attribute, AttributeValue, MESSAGE_BYTES_MAX};
use nightshift_core::redrive::Depth;
use nightshift_core::text::cut;
use nightshift_ports::{JobsQueue, Letter, PortError, PortErrorKind, QueueDepth, Waiting, WaitingQueue};

use crate::clients::SdkConfig;
use crate::dead_letters::sqs_attribute;
use crate::error::{port_error, service_kind};

const SERVICE: &str = "SQS";
const DEPTH: &str = "GetQueueAttributes";
const RECEIVE: &str = "ReceiveMessage";
const HIDE: &str = "ChangeMessageVisibilityBatch";
const DELETE: &str = "DeleteMessageBatch";
const SEND: &str = "SendMessageBatch";

/// One attempt at a batch: up to 1 MiB each way, where the other clients send a few kilobytes.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// All attempts of one operation. A page is several of them, and must end before what it holds is visible again.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(12);
/// Longest message of an entry's error, in characters: it may quote what it refuses.
const MESSAGE_CHARS_MAX: usize = 300;

/// A queue on SQS.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    queue_url: String,
}

impl SqsQueue {
    /// The queue at this address.
    #[must_use]
    pub fn new(sdk: &SdkConfig, queue_url: impl Into<String>) -> Self {
        let config = aws_sdk_sqs::config::Builder::from(sdk).timeout_config(timeouts(Duration::ZERO)).build();
        Self { client: Client::from_conf(config), queue_url: queue_url.into() }
    }
}

/// Timeouts of an operation that the service answers only after a wait.
fn timeouts(wait: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(crate::clients::CONNECT_TIMEOUT)
        .operation_attempt_timeout(wait + ATTEMPT_TIMEOUT)
        .operation_timeout(wait + OPERATION_TIMEOUT)
        .build()
}

#[async_trait]
impl QueueDepth for SqsQueue {
    async fn depth(&self) -> Result<Depth, PortError> {
        let (visible, hidden) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let asked = self
            .client
            .get_queue_attributes()
            .queue_url(&self.queue_url)
            .attribute_names(visible.clone())
            .attribute_names(hidden.clone())
            .send()
            .await
            .map_err(|e| port_error(SERVICE, DEPTH, &e))?;
        let count = |name| {
            let text = asked.attributes().and_then(|attributes| attributes.get(&name));
            text.and_then(|text| text.parse().ok()).ok_or_else(|| missing(DEPTH, name.as_str()))
        };
        Ok(Depth { visible: count(visible)?, hidden: count(hidden)? })
    }
}

#[async_trait]
impl WaitingQueue for SqsQueue {
    async fn receive(
        &self,
        messages_max: u32,
        wait_s: u32,
        hidden_s: u32,
    ) -> Result<Vec<Waiting>, PortError> {
        let wait = timeouts(Duration::from_secs(u64::from(wait_s)));
        let received = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .max_number_of_messages(whole(messages_max))
            .wait_time_seconds(whole(wait_s))
            .visibility_timeout(whole(hidden_s))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId)
            .customize()
            .config_override(aws_sdk_sqs::config::Config::builder().timeout_config(wait))
            .send()
            .await
            .map_err(|e| port_error(SERVICE, RECEIVE, &e))?;
        received.messages.unwrap_or_default().into_iter().map(waiting).collect()
    }

    async fn hide(&self, handles: &[(String, u32)]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let entry = |(index, (handle, hide_s)): (usize, &(String, u32))| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle)
                .visibility_timeout(whole(*hide_s))
                .build()
        };
        let entries: Result<Vec<_>, _> = handles.iter().enumerate().map(entry).collect();
        let changed = self
            .client
            .change_message_visibility_batch()
            .queue_url(&self.queue_url)
            .set_entries(Some(entries.map_err(|e| missing(HIDE, &e.to_string()))?))
            .send()
            .await
            .map_err(|e| port_error(SERVICE, HIDE, &e))?;
        let done = changed.successful.iter().map(|entry| (entry.id.as_str(), ()));
        Ok(answers(HIDE, handles.len(), done, &changed.failed))
    }

    async fn delete(&self, handles: &[String]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let entry = |(index, handle): (usize, &String)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(handle).build()
        };
        let entries: Result<Vec<_>, _> = handles.iter().enumerate().map(entry).collect();
        let deleted = self
            .client
            .delete_message_batch()
            .queue_url(&self.queue_url)
            .set_entries(Some(entries.map_err(|e| missing(DELETE, &e.to_string()))?))
            .send()
            .await
            .map_err(|e| port_error(SERVICE, DELETE, &e))?;
        let done = deleted.successful.iter().map(|entry| (entry.id.as_str(), ()));
        Ok(answers(DELETE, handles.len(), done, &deleted.failed))
    }
}

#[async_trait]
impl JobsQueue for SqsQueue {
    async fn send(&self, letters: &[&Letter]) -> Result<Vec<Result<String, PortError>>, PortError> {
        let mut sent = Vec::with_capacity(letters.len());
        for batch in batches(letters) {
            match send_batch(self, batch).await {
                Ok(answers) => sent.extend(answers),
                // One of them is at fault, and SQS does not say which.
                Err(error) if error.kind == PortErrorKind::Refused && batch.len() > 1 => {
                    for one in batch.chunks(1) {
                        sent.extend(send_batch(self, one).await.unwrap_or_else(|error| vec![Err(error)]));
                    }
                }
                // What was sent before must be known.
                Err(error) => sent.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        Ok(sent)
    }
}

async fn send_batch(
    queue: &SqsQueue,
    letters: &[&Letter],
) -> Result<Vec<Result<String, PortError>>, PortError> {
    let mut entries = Vec::with_capacity(letters.len());
    for (index, letter) in letters.iter().enumerate() {
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(index.to_string())
            .message_body(&letter.body)
            .set_message_group_id(letter.group.clone());
        for (name, attribute) in &letter.attributes {
            let value = sqs_attribute(attribute).map_err(|e| missing(SEND, &e.to_string()))?;
            entry = entry.message_attributes(name, value);
        }
        entries.push(entry.build().map_err(|e| missing(SEND, &e.to_string()))?);
    }
    let sent = queue
        .client
        .send_message_batch()
        .queue_url(&queue.queue_url)
        .set_entries(Some(entries))
        .send()
        .await
        .map_err(|e| port_error(SERVICE, SEND, &e))?;
    let done = sent.successful.iter().map(|entry| (entry.id.as_str(), entry.message_id.clone()));
    Ok(answers(SEND, letters.len(), done, &sent.failed))
}

/// As many letters at a time as fit into one request (Amazon SQS message quotas: 1 MiB for a batch, too).
fn batches<'a, 'b>(letters: &'a [&'b Letter]) -> Vec<&'a [&'b Letter]> {
    let mut batches = Vec::new();
    let mut rest = letters;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|letter| {
            bytes += letter.bytes();
            bytes <= MESSAGE_BYTES_MAX
        });
        // What is too large by itself is for SQS to refuse.
        let (batch, others) = rest.split_at(fit.count().max(1));
        batches.push(batch);
        rest = others;
    }
    batches
}

fn waiting(message: Message) -> Result<Waiting, PortError> {
    let system = |name| message.attributes.as_ref().and_then(|attributes| attributes.get(&name)).cloned();
    let sent_at_ms = system(MessageSystemAttributeName::SentTimestamp).and_then(|text| text.parse().ok());
    let group = system(MessageSystemAttributeName::MessageGroupId);
    let mut attributes = Vec::new();
    for (name, value) in message.message_attributes.unwrap_or_default() {
        let data_type = value.data_type;
        let value = match (value.string_value, value.binary_value) {
            (Some(text), _) => AttributeValue::Text(text),
            (None, Some(bytes)) => AttributeValue::Bytes(bytes.into_inner()),
            (None, None) => return Err(missing(RECEIVE, "an attribute's value")),
        };
        attributes.push((name, Attribute { data_type, value }));
    }
    attributes.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Waiting {
        receipt_handle: message.receipt_handle.ok_or_else(|| missing(RECEIVE, "a receipt handle"))?,
        sent_at_ms: sent_at_ms.ok_or_else(|| missing(RECEIVE, "a SentTimestamp"))?,
        letter: Letter { body: message.body.ok_or_else(|| missing(RECEIVE, "a body"))?, attributes, group },
    })
}

/// The answer to each entry of a batch, in the order in which they were asked; their ids are their places.
fn answers<'a, T>(
    operation: &'static str,
    count: usize,
    done: impl Iterator<Item = (&'a str, T)>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<T, PortError>> {
    let mut answers: Vec<Result<T, PortError>> =
        (0..count).map(|_| Err(missing(operation, "an entry's answer"))).collect();
    let mut set = |id: &str, answer| {
        if let Some(slot) = id.parse::<usize>().ok().and_then(|place| answers.get_mut(place)) {
            *slot = answer;
        }
    };
    for (id, answer) in done {
        set(id, Ok(answer));
    }
    for entry in failed {
        let kind = entry_kind(entry);
        let said = entry.message.as_deref().unwrap_or("no message");
        let message = cut(&format!("{}: {said}", entry.code), MESSAGE_CHARS_MAX);
        set(&entry.id, Err(PortError { service: SERVICE, operation, kind, message }));
    }
    answers
}

/// What it means that SQS did not do its part for one entry of a batch: its code says so, and where that says nothing to us,
/// whose fault it is.
#[must_use]
pub fn entry_kind(entry: &BatchResultErrorEntry) -> PortErrorKind {
    service_kind(&entry.code, if entry.sender_fault { 400 } else { 500 })
}

fn missing(operation: &'static str, what: &str) -> PortError {
    let message = format!("{what} is missing");
    PortError { service: SERVICE, operation, kind: PortErrorKind::Unavailable, message }
}

fn whole(number: u32) -> i32 {
    // The service refuses what is too much, and says so.
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_no_larger_than_sqs_takes() {
        let letter = |bytes| Letter { body: "x".repeat(bytes), attributes: Vec::new(), group: None };
        for (sizes, expected) in [
            (vec![1, 1, 1], vec![3]),
            (vec![MESSAGE_BYTES_MAX, 1], vec![1, 1]),
            (vec![1, MESSAGE_BYTES_MAX], vec![1, 1]),
            (vec![MESSAGE_BYTES_MAX / 2; 5], vec![2, 2, 1]),
            (vec![MESSAGE_BYTES_MAX + 1, 1], vec![1, 1]),
            (vec![], vec![]),
        ] {
            let letters: Vec<_> = sizes.iter().copied().map(letter).collect();
            let letters: Vec<_> = letters.iter().collect();
            let found: Vec<_> = batches(&letters).iter().map(|batch| batch.len()).collect();
            assert_eq!(found, expected, "{sizes:?}");
        }
        // What is counted of an attribute is its name, its type and its value.
        let value = AttributeValue::Text("x".repeat(MESSAGE_BYTES_MAX / 2));
        let context = Attribute { data_type: "String".to_owned(), value };
        let letter = Letter { attributes: vec![("FailureContext".to_owned(), context)], ..letter(1) };
        assert_eq!(batches(&[&letter, &letter]).len(), 2);
    }

    #[test]
    fn every_entry_has_its_own_answer() {
        let failed = |id: &str, code: &str, sender_fault| {
            let entry = BatchResultErrorEntry::builder().id(id).code(code).sender_fault(sender_fault);
            entry.build().unwrap()
        };
        let failed = [failed("2", "InvalidMessageContents", true), failed("0", "InternalError", false)];
        let found = answers(SEND, 4, [("1", 7)].into_iter(), &failed);
        let kinds: Vec<_> = found.into_iter().map(|answer| answer.map_err(|error| error.kind)).collect();
        let unavailable = PortErrorKind::Unavailable;
        assert_eq!(kinds, [Err(unavailable), Ok(7), Err(PortErrorKind::Refused), Err(unavailable)]);
    }
}
