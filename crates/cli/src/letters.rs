//! A look into the queue of dead letters itself: it receives every message, which counts and hides it, and gives all back.

use std::collections::HashMap;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{ChangeMessageVisibilityBatchRequestEntry, Message, QueueAttributeName};
use nightshift_core::input_hash::InputHash;
use nightshift_core::job;

use nightshift_aws::SqsQueue;
use nightshift_core::dead_letter::redrive_of;
use nightshift_core::record::Erasure;
use nightshift_ports::{QueueDepth as _, WaitingQueue as _};

use crate::error::{self, Failure};
use crate::interrupt::Interrupt;
use crate::stack::Stack;

/// SQS delivers nothing once 120,000 messages are in flight, and says nothing of it (Amazon SQS message quotas); half of
/// that leaves room for whoever else looks.
const MESSAGES_MAX: u64 = 60_000;
/// How long a message stays hidden, unless it is given back before: receiving all takes a fraction of it.
const HIDDEN_S: i32 = 900;
/// What a Ctrl-C leaves that nobody waits for.
pub const LEFT: &str = "messages that it had received are visible again within 15 minutes";
/// An empty answer may come from servers that hold nothing, so that one alone says little ("Amazon SQS short and long
/// polling").
const EMPTY_ANSWERS: u32 = 3;
/// Seconds that SQS waits for a message.
const WAIT_S: i32 = 2;

/// A queue, as SQS describes it.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// About how many messages it holds.
    pub messages: u64,
    /// How long it keeps each.
    pub retention_ms: u64,
    /// How long one stays hidden that a worker received and neither deleted nor handed back, in seconds.
    pub visibility_timeout_s: u64,
}

/// Asks SQS for a queue's numbers; no message is received.
pub async fn look(stack: &Stack, queue_url: &str) -> Result<Look, Failure> {
    use QueueAttributeName::{
        ApproximateNumberOfMessages, ApproximateNumberOfMessagesDelayed,
        ApproximateNumberOfMessagesNotVisible, MessageRetentionPeriod, VisibilityTimeout,
    };
    let counts = [
        ApproximateNumberOfMessages,
        ApproximateNumberOfMessagesDelayed,
        ApproximateNumberOfMessagesNotVisible,
    ];
    let names = counts.iter().cloned().chain([MessageRetentionPeriod, VisibilityTimeout]).collect();
    let client = Client::new(&stack.sdk);
    let asked =
        client.get_queue_attributes().queue_url(queue_url).set_attribute_names(Some(names)).send().await;
    let attributes =
        asked.map_err(|e| error::of_aws("sqs:GetQueueAttributes", &e))?.attributes.unwrap_or_default();
    let number =
        |name: &QueueAttributeName| attributes.get(name).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    Ok(Look {
        messages: counts.iter().map(number).sum(),
        retention_ms: number(&MessageRetentionPeriod).saturating_mul(1_000),
        visibility_timeout_s: number(&VisibilityTimeout),
    })
}

/// The key of the record that a letter belongs to, from its body, as a worker with this limit made it, in bytes.
pub fn key(message: &Message, body_bytes_max: usize) -> InputHash {
    let body = message.body().unwrap_or_default();
    match job::parse(body, body_bytes_max) {
        Ok(job) => InputHash::of_job(&job.task, &job.input),
        Err(_) => InputHash::of_body(body),
    }
}

/// Each key that the record of a body can have: a worker takes one that is larger than its limit for no job.
pub fn keys_of_body(body: &str) -> Vec<InputHash> {
    let of_job = job::parse(body, usize::MAX).ok().map(|job| InputHash::of_job(&job.task, &job.input));
    of_job.into_iter().chain([InputHash::of_body(body)]).collect()
}

/// Refuses what cannot be hidden at once.
pub fn fits(messages: u64) -> Result<(), Failure> {
    if messages <= MESSAGES_MAX {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "The queue holds {messages} messages, and at most {MESSAGES_MAX} can be hidden for a look: `nightshift dead-letters list` reads the ledger instead."
    )))
}

/// Shows each message of a queue to `visit`, once, and gives all of them back at the end, however it ends.
pub async fn walk(
    stack: &Stack,
    queue_url: &str,
    interrupt: &Interrupt,
    mut visit: impl FnMut(&Message),
) -> Result<(), Failure> {
    let client = Client::new(&stack.sdk);
    let mut handles: HashMap<String, String> = HashMap::new();
    let ended = receive_all(&client, queue_url, interrupt, &mut handles, &mut visit).await;
    let given_back = give_back(&client, queue_url, handles.into_values().collect()).await;
    ended.and(given_back)
}

/// What was erased, and how many messages of it were deleted.
pub type Erased = HashMap<InputHash, (Erasure, u64)>;

/// Deletes from a queue what is of before an erasure, and gives the rest back; returns about how many messages this look did
/// not see, because somebody else had hidden them before it, or took them meanwhile.
pub async fn delete(
    stack: &Stack,
    queue_url: &str,
    interrupt: &Interrupt,
    erased: &mut Erased,
) -> Result<u64, Failure> {
    let queue = SqsQueue::new(&stack.sdk, queue_url);
    let depth = queue.depth().await.map_err(|e| error::of_port(&e))?;
    let mut kept = Vec::new();
    let ended = delete_all(&queue, interrupt, erased, &mut kept).await;
    let seen = kept.len() as u64;
    for handles in kept.chunks(10) {
        // What is not given back comes back by itself, after `HIDDEN_S`.
        queue.hide(handles).await.map_err(|e| error::of_port(&e))?;
    }
    ended.map(|deleted| depth.hidden.max(depth.total().saturating_sub(seen + deleted)))
}

async fn delete_all(
    queue: &SqsQueue,
    interrupt: &Interrupt,
    erased: &mut Erased,
    kept: &mut Vec<(String, u32)>,
) -> Result<u64, Failure> {
    let (mut empty, mut deleted) = (0, 0);
    while empty < EMPTY_ANSWERS {
        if interrupt.is_asked() {
            return Err(Failure::interrupted(
                "Interrupted; what was received and not deleted is visible again: run the same command again.",
            ));
        }
        let received = queue.receive(10, WAIT_S.unsigned_abs(), HIDDEN_S.unsigned_abs()).await;
        let received = received.map_err(|e| error::of_port(&e))?;
        empty = if received.is_empty() { empty + 1 } else { 0 };
        let mut handles = Vec::new();
        for message in received {
            let of = keys_of_body(&message.letter.body).into_iter().find(|key| {
                let told = redrive_of(&message.letter.attributes, key);
                let erasure = erased.get(key).map(|(erasure, _)| erasure);
                erasure.is_some_and(|erasure| erasure.covers_letter(told, message.sent_at_ms))
            });
            match of.and_then(|key| erased.get_mut(&key)) {
                Some((_, of_key)) => {
                    (*of_key, deleted) = (*of_key + 1, deleted + 1);
                    handles.push(message.receipt_handle);
                }
                None => kept.push((message.receipt_handle, 0)),
            }
        }
        if !handles.is_empty() {
            let answers = queue.delete(&handles).await.map_err(|e| error::of_port(&e))?;
            let failed = answers.into_iter().find_map(Result::err);
            if let Some(failed) = failed {
                return Err(error::of_port(&failed));
            }
        }
    }
    Ok(deleted)
}

async fn receive_all(
    client: &Client,
    queue_url: &str,
    interrupt: &Interrupt,
    handles: &mut HashMap<String, String>,
    visit: &mut impl FnMut(&Message),
) -> Result<(), Failure> {
    let mut empty = 0;
    while empty < EMPTY_ANSWERS {
        if interrupt.is_asked() {
            return Err(Failure::interrupted("Interrupted; what was received is visible again."));
        }
        let received = client
            .receive_message()
            .queue_url(queue_url)
            .max_number_of_messages(10)
            .visibility_timeout(HIDDEN_S)
            .wait_time_seconds(WAIT_S)
            .message_attribute_names("All")
            .send()
            .await;
        let messages =
            received.map_err(|e| error::of_aws("sqs:ReceiveMessage", &e))?.messages.unwrap_or_default();
        empty = if messages.is_empty() { empty + 1 } else { 0 };
        for message in messages {
            let (Some(id), Some(handle)) = (message.message_id(), message.receipt_handle()) else { continue };
            if handles.insert(id.to_owned(), handle.to_owned()).is_none() {
                visit(&message);
            }
        }
    }
    Ok(())
}

/// Messages that were received are visible again at once.
pub async fn give_back(client: &Client, queue_url: &str, handles: Vec<String>) -> Result<(), Failure> {
    hide(client, queue_url, handles, 0).await
}

/// Messages that were received stay hidden for so many seconds from now on.
pub async fn hide(
    client: &Client,
    queue_url: &str,
    handles: Vec<String>,
    hidden_s: i32,
) -> Result<(), Failure> {
    const ACTION: &str = "sqs:ChangeMessageVisibility";
    for handles in handles.chunks(10) {
        let mut request = client.change_message_visibility_batch().queue_url(queue_url);
        for (index, handle) in handles.iter().enumerate() {
            let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(handle)
                .visibility_timeout(hidden_s)
                .build()
                .map_err(|error| Failure::failed(format!("A message cannot be given back: {error}.")))?;
            request = request.entries(entry);
        }
        // What is not given back comes back by itself, after `HIDDEN_S`.
        request.send().await.map_err(|e| error::of_aws(ACTION, &e))?;
    }
    Ok(())
}
