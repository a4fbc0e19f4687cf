//! SQS: the JSON protocol (AWS JSON 1.0) over the queues' state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::sqs::{
    AttributeValue, BATCH_MAX, Depth, MessageAttribute, MessageAttributes, Outgoing, Queues, RECEIVE_MAX,
    Received, Sent, SqsError, attributes_md5, message_bytes,
};
use crate::clock::now_ms;
use crate::http::HttpResponse;

/// The sum over the messages of one batch (Developer Guide, "Amazon SQS message quotas").
const BATCH_BYTES_MAX: usize = 1_048_576;
/// The longest long poll.
const WAIT_S_MAX: u32 = 20;
const SENDER_ID: &str = "AIDANIGHTSHIFTLOCAL00";

/// SQS as one account sees it in one region.
#[derive(Debug, Clone)]
pub(super) struct Sqs {
    queues: Arc<Mutex<Queues>>,
    /// Wakes long polls when messages arrived or became visible sooner than planned.
    changed: Arc<Notify>,
}

impl Sqs {
    pub(super) fn new(region: &str, account: &str) -> Self {
        Sqs { queues: Arc::new(Mutex::new(Queues::new(region, account))), changed: Arc::new(Notify::new()) }
    }

    /// Runs `work` on the queues, alone.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Queues) -> T) -> T {
        // A panic in here would be a bug of ours; the state is still whole, each step being one insert or remove.
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut queues)
    }

    /// Answers one action; `endpoint` is what queue URLs begin with.
    pub(super) async fn handle(
        &self,
        action: &str,
        body: &[u8],
        endpoint: &str,
        account: &str,
    ) -> HttpResponse {
        let url = |name: &str| format!("{endpoint}/{account}/{name}");
        let answer = match action {
            "ReceiveMessage" => self.receive(body).await,
            _ => self.handle_at_once(action, body, &url),
        };
        match answer {
            Ok(value) => HttpResponse::new(200, CONTENT_TYPE, value.to_string()),
            Err(error) => error_response(&error),
        }
    }

    fn handle_at_once(
        &self,
        action: &str,
        body: &[u8],
        url: &dyn Fn(&str) -> String,
    ) -> Result<Value, SqsError> {
        let now_ms = now_ms();
        match action {
            "CreateQueue" => {
                let input: CreateQueue = parse(body)?;
                self.with(|queues| queues.create(&input.queue_name, &input.attributes, now_ms))?;
                Ok(json!({ "QueueUrl": url(&input.queue_name) }))
            }
            "GetQueueUrl" => {
                let input: QueueName = parse(body)?;
                self.with(|queues| queues.exists(&input.queue_name))?;
                Ok(json!({ "QueueUrl": url(&input.queue_name) }))
            }
            "ListQueues" => {
                let input: ListQueues = parse(body)?;
                let urls: Vec<String> = self.with(|queues| {
                    let listed = queues.names().filter(|name| name.starts_with(&input.queue_name_prefix));
                    listed.map(url).collect()
                });
                Ok(json!({ "QueueUrls": urls }))
            }
            "ListDeadLetterSourceQueues" => {
                let input: QueueUrl = parse(body)?;
                let urls: Vec<String> = self.with(|queues| {
                    let sources = queues.sources_of(name_of(&input.queue_url))?;
                    Ok::<_, SqsError>(sources.into_iter().map(url).collect())
                })?;
                // The one member of this protocol that begins with a small letter.
                Ok(json!({ "queueUrls": urls }))
            }
            "DeleteQueue" => {
                let input: QueueUrl = parse(body)?;
                self.with(|queues| queues.delete_queue(name_of(&input.queue_url)))?;
                Ok(json!({}))
            }
            "PurgeQueue" => {
                let input: QueueUrl = parse(body)?;
                self.with(|queues| queues.purge(name_of(&input.queue_url)))?;
                Ok(json!({}))
            }
            "SetQueueAttributes" => {
                let input: SetQueueAttributes = parse(body)?;
                self.with(|queues| queues.configure(name_of(&input.queue_url), &input.attributes))?;
                self.changed.notify_waiters();
                Ok(json!({}))
            }
            "GetQueueAttributes" => {
                let input: GetQueueAttributes = parse(body)?;
                let all = self.with(|queues| queues.attributes(name_of(&input.queue_url), now_ms))?;
                let wanted =
                    |name: &str| input.attribute_names.iter().any(|wanted| wanted == "All" || wanted == name);
                let attributes: BTreeMap<_, _> = all.into_iter().filter(|(name, _)| wanted(name)).collect();
                Ok(json!({ "Attributes": attributes }))
            }
            "SendMessage" => {
                let input: SendMessage = parse(body)?;
                let name = name_of(&input.queue_url).to_owned();
                let outgoing = input.message.into_outgoing()?;
                let sent = self.with(|queues| queues.send(&name, outgoing, now_ms))?;
                self.changed.notify_waiters();
                Ok(sent_fields(&sent).into())
            }
            "SendMessageBatch" => self.send_batch(&parse(body)?, now_ms),
            "DeleteMessage" => {
                let input: Receipt = parse(body)?;
                self.with(|queues| queues.delete(name_of(&input.queue_url), &input.receipt_handle))?;
                Ok(json!({}))
            }
            "DeleteMessageBatch" => {
                let input: Batch<DeleteEntry> = parse(body)?;
                self.batch(&input, |queues, name, entry| {
                    queues.delete(name, &entry.receipt_handle)?;
                    Ok(Map::new())
                })
            }
            "ChangeMessageVisibility" => {
                let input: ChangeVisibility = parse(body)?;
                let visibility_s = check_visibility(input.visibility_timeout)?;
                self.with(|queues| {
                    queues.change_visibility(
                        name_of(&input.queue_url),
                        &input.receipt_handle,
                        visibility_s,
                        now_ms,
                    )
                })?;
                self.changed.notify_waiters();
                Ok(json!({}))
            }
            "ChangeMessageVisibilityBatch" => {
                let input: Batch<VisibilityEntry> = parse(body)?;
                self.batch(&input, |queues, name, entry| {
                    let visibility_s = check_visibility(entry.visibility_timeout)?;
                    queues.change_visibility(name, &entry.receipt_handle, visibility_s, now_ms)?;
                    Ok(Map::new())
                })
            }
            _ => Err(SqsError::new(
                "UnsupportedOperation",
                format!("{action} is not part of this stand-in for SQS"),
            )),
        }
    }

    async fn receive(&self, body: &[u8]) -> Result<Value, SqsError> {
        let input: ReceiveMessage = parse(body)?;
        let name = name_of(&input.queue_url);
        let limit = input.max_number_of_messages.unwrap_or(1);
        if !(1..=RECEIVE_MAX as i64).contains(&limit) {
            return Err(SqsError::invalid(format!(
                "Value {limit} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided."
            )));
        }
        let visibility_s = input.visibility_timeout.map(check_visibility).transpose()?;
        let wait_s = match input.wait_time_seconds {
            Some(wait_s) => wait_s,
            None => self.with(|queues| queues.settings(name).map(|settings| settings.receive_wait_s))?,
        };
        if wait_s > WAIT_S_MAX {
            return Err(SqsError::invalid(format!(
                "Value {wait_s} for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided."
            )));
        }
        let deadline = Instant::now() + Duration::from_secs(u64::from(wait_s));
        let limit = usize::try_from(limit).unwrap_or(RECEIVE_MAX);
        loop {
            // Registered before the look, so that a message sent in between is not missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now_ms = now_ms();
            let (received, next_ms) = self.with(|queues| {
                let received = queues.receive(name, limit, visibility_s, now_ms)?;
                Ok::<_, SqsError>((received, queues.next_visible_ms(name)))
            })?;
            if !received.is_empty() || Instant::now() >= deadline {
                let messages: Vec<Value> = received.iter().map(|message| input.show(message)).collect();
                return Ok(if messages.is_empty() { json!({}) } else { json!({ "Messages": messages }) });
            }
            let due = next_ms.map_or(deadline, |next_ms| {
                let in_ms = u64::try_from(next_ms - now_ms).unwrap_or(0).max(1);
                Instant::now() + Duration::from_millis(in_ms)
            });
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(due.min(deadline)) => {}
            }
        }
    }

    fn send_batch(&self, input: &Batch<SendEntry>, now_ms: i64) -> Result<Value, SqsError> {
        let bytes: usize = input
            .entries
            .iter()
            .filter_map(|entry| entry.message.clone().into_outgoing().ok())
            .map(|outgoing| message_bytes(&outgoing))
            .sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(SqsError::new(
                "BatchRequestTooLong",
                format!(
                    "Batch requests cannot be longer than {BATCH_BYTES_MAX} bytes. You have sent {bytes} bytes."
                ),
            ));
        }
        self.batch(input, |queues, name, entry| {
            let outgoing = entry.message.clone().into_outgoing()?;
            Ok(sent_fields(&queues.send(name, outgoing, now_ms)?))
        })
    }

    /// Does something for each entry; an entry that is refused fails alone.
    fn batch<E: Entry>(
        &self,
        input: &Batch<E>,
        mut each: impl FnMut(&mut Queues, &str, &E) -> Result<Map<String, Value>, SqsError>,
    ) -> Result<Value, SqsError> {
        check_batch(input)?;
        let name = name_of(&input.queue_url);
        let mut successful = Vec::new();
        let mut failed = Vec::new();
        self.with(|queues| {
            queues.exists(name)?;
            for entry in &input.entries {
                match each(queues, name, entry) {
                    Ok(mut fields) => {
                        fields.insert("Id".to_owned(), entry.id().into());
                        successful.push(Value::from(fields));
                    }
                    Err(error) => failed.push(json!({
                        "Id": entry.id(),
                        "Code": error.code,
                        "Message": error.message,
                        "SenderFault": true,
                    })),
                }
            }
            Ok::<_, SqsError>(())
        })?;
        self.changed.notify_waiters();
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    /// How full a queue is; nothing when there is no such queue.
    pub(super) fn depth(&self, name: &str) -> Option<Depth> {
        self.with(|queues| queues.depth(name, now_ms()).ok())
    }
}

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

fn error_response(error: &SqsError) -> HttpResponse {
    // SQS once spoke another protocol; this header carries the codes of that time, and the SDK prefers them.
    let query_code = match error.code {
        "QueueDoesNotExist" => "AWS.SimpleQueueService.NonExistentQueue",
        "QueueNameExists" => "QueueAlreadyExists",
        "UnsupportedOperation" => "AWS.SimpleQueueService.UnsupportedOperation",
        "EmptyBatchRequest" => "AWS.SimpleQueueService.EmptyBatchRequest",
        "TooManyEntriesInBatchRequest" => "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        "BatchEntryIdsNotDistinct" => "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
        "BatchRequestTooLong" => "AWS.SimpleQueueService.BatchRequestTooLong",
        other => other,
    };
    let body = json!({
        "__type": format!("com.amazonaws.sqs#{}", error.code),
        "message": error.message,
    });
    HttpResponse::new(400, CONTENT_TYPE, body.to_string())
        .with_header("x-amzn-query-error", format!("{query_code};Sender"))
}

fn sent_fields(sent: &Sent) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("MessageId".to_owned(), sent.message_id.clone().into());
    fields.insert("MD5OfMessageBody".to_owned(), sent.body_md5.clone().into());
    if let Some(md5) = &sent.attributes_md5 {
        fields.insert("MD5OfMessageAttributes".to_owned(), md5.clone().into());
    }
    fields
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body).map_err(|error| SqsError::new("MissingParameter", error.to_string()))
}

/// A queue's name is the last part of its URL, whatever host and account stand before it.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn check_visibility(seconds: i64) -> Result<u32, SqsError> {
    u32::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= 43_200)
        .ok_or_else(|| {
            SqsError::invalid(format!(
                "Value {seconds} for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer between 0 and 43200."
            ))
        })
}

fn check_batch<E: Entry>(input: &Batch<E>) -> Result<(), SqsError> {
    if input.entries.is_empty() {
        return Err(SqsError::new("EmptyBatchRequest", "There should be at least one entry in the request."));
    }
    if input.entries.len() > BATCH_MAX {
        return Err(SqsError::new(
            "TooManyEntriesInBatchRequest",
            format!("Maximum number of entries per request are 10. You have sent {}.", input.entries.len()),
        ));
    }
    let mut ids: Vec<&str> = input.entries.iter().map(Entry::id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() < input.entries.len() {
        return Err(SqsError::new("BatchEntryIdsNotDistinct", "Two or more batch entries have the same Id."));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateQueue {
    queue_name: String,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueName {
    queue_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListQueues {
    #[serde(default)]
    queue_name_prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct QueueUrl {
    queue_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SetQueueAttributes {
    queue_url: String,
    attributes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetQueueAttributes {
    queue_url: String,
    #[serde(default)]
    attribute_names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendMessage {
    queue_url: String,
    #[serde(flatten)]
    message: OutgoingWire,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OutgoingWire {
    message_body: String,
    delay_seconds: Option<u32>,
    #[serde(default)]
    message_attributes: BTreeMap<String, AttributeWire>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeWire {
    data_type: String,
    string_value: Option<String>,
    binary_value: Option<String>,
}

impl OutgoingWire {
    fn into_outgoing(self) -> Result<Outgoing, SqsError> {
        let mut attributes = MessageAttributes::new();
        for (name, wire) in self.message_attributes {
            let value = match (wire.string_value, wire.binary_value) {
                (Some(text), None) => AttributeValue::Text(text),
                (None, Some(encoded)) => AttributeValue::Binary(BASE64.decode(encoded).map_err(|_| {
                    SqsError::invalid(format!("The value of attribute '{name}' is not Base64."))
                })?),
                _ => {
                    return Err(SqsError::invalid(format!(
                        "The message attribute '{name}' must contain exactly one value."
                    )));
                }
            };
            attributes.insert(name, MessageAttribute { data_type: wire.data_type, value });
        }
        Ok(Outgoing { body: self.message_body, delay_s: self.delay_seconds, attributes })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receipt {
    queue_url: String,
    receipt_handle: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ChangeVisibility {
    queue_url: String,
    receipt_handle: String,
    visibility_timeout: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<E> {
    queue_url: String,
    entries: Vec<E>,
}

trait Entry {
    fn id(&self) -> &str;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEntry {
    id: String,
    #[serde(flatten)]
    message: OutgoingWire,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteEntry {
    id: String,
    receipt_handle: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VisibilityEntry {
    id: String,
    receipt_handle: String,
    visibility_timeout: i64,
}

impl Entry for SendEntry {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for DeleteEntry {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for VisibilityEntry {
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ReceiveMessage {
    queue_url: String,
    max_number_of_messages: Option<i64>,
    visibility_timeout: Option<i64>,
    wait_time_seconds: Option<u32>,
    /// The older name of the next member; both are in use.
    #[serde(default)]
    attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
}

impl ReceiveMessage {
    fn show(&self, message: &Received) -> Value {
        let mut system = BTreeMap::from([
            ("SenderId", SENDER_ID.to_owned()),
            ("SentTimestamp", message.sent_ms.to_string()),
            ("ApproximateReceiveCount", message.receive_count.to_string()),
            ("ApproximateFirstReceiveTimestamp", message.first_received_ms.to_string()),
        ]);
        if let Some(source) = &message.dead_letter_source {
            system.insert("DeadLetterQueueSourceArn", source.clone());
        }
        system.retain(|name, _| {
            let mut wanted = self.attribute_names.iter().chain(&self.message_system_attribute_names);
            wanted.any(|wanted| wanted == "All" || wanted == name)
        });
        let mut attributes = message.attributes.clone();
        attributes.retain(|name, _| self.message_attribute_names.iter().any(|wanted| matches(wanted, name)));

        let mut shown = Map::new();
        shown.insert("MessageId".to_owned(), message.message_id.clone().into());
        shown.insert("ReceiptHandle".to_owned(), message.receipt_handle.clone().into());
        shown.insert("Body".to_owned(), message.body.clone().into());
        shown.insert("MD5OfBody".to_owned(), message.body_md5.clone().into());
        if !system.is_empty() {
            shown.insert("Attributes".to_owned(), json!(system));
        }
        // The digest covers the attributes that are returned, not all that were sent.
        if let Some(md5) = attributes_md5(&attributes) {
            shown.insert("MD5OfMessageAttributes".to_owned(), md5.into());
            let attributes: Map<String, Value> = attributes.iter().map(show_attribute).collect();
            shown.insert("MessageAttributes".to_owned(), attributes.into());
        }
        shown.into()
    }
}

fn matches(wanted: &str, name: &str) -> bool {
    wanted == "All"
        || wanted == name
        || wanted.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix))
}

fn show_attribute((name, attribute): (&String, &MessageAttribute)) -> (String, Value) {
    let value = match &attribute.value {
        AttributeValue::Text(text) => json!({ "DataType": attribute.data_type, "StringValue": text }),
        AttributeValue::Binary(bytes) => {
            json!({ "DataType": attribute.data_type, "BinaryValue": BASE64.encode(bytes) })
        }
    };
    (name.clone(), value)
}
