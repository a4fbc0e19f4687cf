//! The jobs of load tests on a stack: told from other people's by their reference, and removed.
//!
//! Nothing is removed whose reference is not a test's, so a job that somebody sends meanwhile is safe. Whoever removes
//! holds the lease, so that no running test loses its jobs.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use aws_sdk_dynamodb::types::{DeleteRequest, WriteRequest};
use aws_sdk_sqs::types::Message;
use nightshift_core::job;
use nightshift_core::kept::{self, PART_PREFIX};
use nightshift_core::load_test::{Empty, EmptyLooks, REFERENCE_PREFIX};

use crate::again::again;
use crate::error::{self, Failure};
use crate::letters;
use crate::render::say;
use crate::stack::Stack;
use crate::test_lease::Lease;
use crate::text;
use crate::times;
use crate::trace;

/// How long messages are waited for that workers have: a hand-back may hide one for 15 minutes (README, "Limits"), and an
/// invocation lasts for five.
const WAIT_FOR_HIDDEN: Duration = Duration::from_secs(20 * 60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a message is hidden that is received here, in seconds: what is not a test's is given back before, or then.
const HIDDEN_S: i32 = 30;
/// Requests of one `BatchWriteItem` (DynamoDB API Reference).
const DELETES_AT_A_TIME: usize = 25;
/// Characters of the key of a record: SHA-256 in hexadecimal digits. The other items of the table have other keys.
const KEY_CHARS: usize = 64;

/// Refuses a stack that holds what is not a test's: a record, or a message.
pub async fn refuse_others(stack: &Stack) -> Result<(), Failure> {
    for url in queues(stack) {
        let messages = letters::look(stack, &url).await?.messages;
        if messages > 0 {
            let held = text::counted(messages, "message");
            let what = format!(
                "{} holds {held}; {} removes those that are a test's",
                name(&url),
                clean_up_command(stack)
            );
            return Err(others(stack, &what));
        }
    }
    match records(stack, Whose::Others, 1).await?.pop() {
        None => Ok(()),
        Some(key) => Err(others(stack, &format!("its ledger has the record {key}"))),
    }
}

fn others(stack: &Stack, what: &str) -> Failure {
    Failure::failed(format!(
        "{} holds other people's jobs ({what}), and a load test would mix with their numbers, alarms and spend: test a stack of its own (runbook/procedures/load-test.md).",
        stack.named()
    ))
}

/// What a person runs to remove what is left, of this stack and no other.
pub fn clean_up_command(stack: &Stack) -> String {
    format!("nightshift --prefix {} load-test --clean-up", stack.prefix)
}

/// How much was removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Removed {
    messages: u64,
    records: u64,
}

impl Removed {
    /// In a sentence.
    pub fn words(self) -> String {
        if self.messages + self.records == 0 {
            return "Nothing of a load test was left.".to_owned();
        }
        let (messages, records) =
            (text::counted(self.messages, "message"), text::counted(self.records, "record"));
        format!("Removed {messages} and {records} of load tests.")
    }
}

/// Removes every trace of tests: messages, then records. It can be stopped and repeated, by whoever holds the lease.
///
/// # Errors
/// When messages of a test stay hidden for too long; the lease then stands, and the next test goes on.
pub async fn remove(stack: &Stack, lease: &Lease) -> Result<Removed, Failure> {
    let until = tokio::time::Instant::now() + WAIT_FOR_HIDDEN;
    let mut removed = Removed::default();
    // In the order in which a message may go from one to the next.
    let mut queues = queues(stack).map(|url| (url, Theirs::default()));
    let mut looks = EmptyLooks::new(!stack.is_aws());
    let mut told = false;
    loop {
        let (mut taken, mut left) = (0, 0);
        for (url, theirs) in &mut queues {
            taken += again(async || take_out(stack, lease, url, theirs).await).await?;
            let messages = again(async || letters::look(stack, url).await).await?.messages;
            left += messages.saturating_sub(theirs.hidden(times::now_ms()));
        }
        removed.messages += taken;
        // What was there a moment ago tells a count that is behind.
        let found = if stack.is_aws() { left + taken } else { left };
        match looks.look(Some(found), times::now_ms()) {
            Empty::Surely => break,
            Empty::Perhaps if !told => {
                say("Looks for what may be left for two minutes: SQS counts approximately.");
                told = true;
            }
            Empty::No if left > 0 && tokio::time::Instant::now() > until => {
                return Err(Failure::failed(format!(
                    "Of the load test, {} still hidden: run {} later, which removes what is left.",
                    text::counted(left, "message") + text::agreeing(left, " is", " are"),
                    clean_up_command(stack)
                )));
            }
            Empty::No if left > 0 => say(&format!(
                "Waits for {} that workers have or handed back (Ctrl-C: the next load test removes what is left).",
                text::counted(left, "message")
            )),
            Empty::Perhaps | Empty::No => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    for (url, theirs) in queues {
        theirs.give_back(stack, &url).await?;
    }
    // Nothing is left that could write another one.
    let keys = records(stack, Whose::Tests, usize::MAX).await?;
    removed.records = keys.len() as u64;
    let client = aws_sdk_dynamodb::Client::new(&stack.sdk);
    let parts = kept_of(stack, &keys).await?;
    let keys: Vec<_> = parts.into_iter().chain(keys).collect();
    for keys in keys.chunks(DELETES_AT_A_TIME) {
        delete(&client, &stack.ledger_table, lease, keys).await?;
    }
    Ok(removed)
}

/// Messages of a queue that are not a test's, by id: the latest receipt handle, and when it was asked for.
#[derive(Default)]
struct Theirs(HashMap<String, (String, u64)>);

impl Theirs {
    /// How many of them are hidden because they were received here. All others are in the count like anybody's.
    fn hidden(&self, now_ms: u64) -> u64 {
        let hidden_ms = u64::from(HIDDEN_S.unsigned_abs()) * 1_000;
        self.0.values().filter(|(_, asked_ms)| now_ms.saturating_sub(*asked_ms) < hidden_ms).count() as u64
    }

    /// They are visible again at once, and somebody hears of them.
    async fn give_back(self, stack: &Stack, url: &str) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let client = aws_sdk_sqs::Client::new(&stack.sdk);
        let count = self.0.len() as u64;
        let handles = self.0.into_values().map(|(handle, _)| handle).collect();
        letters::give_back(&client, url, handles).await?;
        say(&format!(
            "{} of {} {} not a test's, and stays.",
            text::counted(count, "message"),
            name(url),
            text::agreeing(count, "is", "are")
        ));
        Ok(())
    }
}

/// The name of a queue.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

fn queues(stack: &Stack) -> [String; 3] {
    [stack.jobs_url.clone(), stack.dead_letters_url.clone(), stack.crashed_url()]
}

/// Takes the messages of tests out of a queue, as far as they can be seen; how many.
async fn take_out(stack: &Stack, lease: &Lease, url: &str, theirs: &mut Theirs) -> Result<u64, Failure> {
    let client = aws_sdk_sqs::Client::new(&stack.sdk);
    let mut taken = 0;
    let mut seen = HashSet::new();
    loop {
        let asked_ms = times::now_ms();
        let received =
            client.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(1);
        let received = received.visibility_timeout(HIDDEN_S).send().await;
        let messages =
            received.map_err(|e| error::of_aws("sqs:ReceiveMessage", &e))?.messages.unwrap_or_default();
        // What is seen again is not a test's, and all that it stood among has been seen, too.
        let mut new = false;
        for message in messages {
            let handle = message.receipt_handle.as_deref().unwrap_or_default();
            if is_of_a_test(&message) {
                lease.held()?;
                let deleted = client.delete_message().queue_url(url).receipt_handle(handle).send().await;
                deleted.map_err(|e| error::of_aws("sqs:DeleteMessage", &e))?;
                taken += 1;
                new = true;
            } else {
                let id = message.message_id.as_deref().unwrap_or_default().to_owned();
                theirs.0.insert(id.clone(), (handle.to_owned(), asked_ms));
                new |= seen.insert(id);
            }
        }
        if !new {
            return Ok(taken);
        }
    }
}

fn is_of_a_test(message: &Message) -> bool {
    let job = job::parse(message.body().unwrap_or_default(), usize::MAX);
    job.is_ok_and(|job| job.reference.is_some_and(|reference| reference.starts_with(REFERENCE_PREFIX)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Tests,
    Others,
}

/// The keys of records, at most so many. Looks through the table until it has them.
async fn records(stack: &Stack, whose: Whose, most: usize) -> Result<Vec<String>, Failure> {
    // What has no reference begins with nothing, and is somebody's.
    let filter = match whose {
        Whose::Tests => "begins_with(#reference, :prefix)",
        Whose::Others => "attribute_exists(#state) AND NOT begins_with(#reference, :prefix)",
    };
    let scan = aws_sdk_dynamodb::Client::new(&stack.sdk)
        .scan()
        .table_name(&stack.ledger_table)
        .consistent_read(true)
        .projection_expression("id")
        .filter_expression(filter)
        .expression_attribute_names("#reference", "reference")
        .expression_attribute_values(":prefix", trace::text(REFERENCE_PREFIX));
    let scan = if whose == Whose::Others { scan.expression_attribute_names("#state", "state") } else { scan };
    let mut pages = scan.into_paginator().send();
    let mut keys = Vec::new();
    while keys.len() < most
        && let Some(page) = pages.next().await
    {
        let page = page.map_err(|e| error::of_aws("dynamodb:Scan", &e))?;
        let ids = page.items().iter().filter_map(|item| item.get("id")?.as_s().ok().cloned());
        keys.extend(ids.filter(|id| id.len() == KEY_CHARS));
    }
    Ok(keys)
}

/// The keys of the parts of kept messages beside these records. Looks through the whole table: a worker that lost its claim
/// may have left some beside a record that names none.
async fn kept_of(stack: &Stack, keys: &[String]) -> Result<Vec<String>, Failure> {
    let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let scan = aws_sdk_dynamodb::Client::new(&stack.sdk)
        .scan()
        .table_name(&stack.ledger_table)
        .consistent_read(true)
        .projection_expression("id")
        .filter_expression("begins_with(id, :prefix)")
        .expression_attribute_values(":prefix", trace::text(PART_PREFIX));
    let mut pages = scan.into_paginator().send();
    let mut parts = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|e| error::of_aws("dynamodb:Scan", &e))?;
        let ids = page.items().iter().filter_map(|item| item.get("id")?.as_s().ok().cloned());
        parts.extend(ids.filter(|id| kept::record_of_part(id).is_some_and(|key| keys.contains(key))));
    }
    Ok(parts)
}

async fn delete(
    client: &aws_sdk_dynamodb::Client,
    table: &str,
    lease: &Lease,
    keys: &[String],
) -> Result<(), Failure> {
    let mut left = Vec::with_capacity(keys.len());
    for key in keys {
        let request = DeleteRequest::builder().key("id", trace::text(key)).build();
        let request =
            request.map_err(|error| Failure::failed(format!("A record cannot be removed: {error}.")))?;
        left.push(WriteRequest::builder().delete_request(request).build());
    }
    while !left.is_empty() {
        lease.held()?;
        let written = client.batch_write_item().request_items(table, left).send().await;
        let written = written.map_err(|e| error::of_aws("dynamodb:BatchWriteItem", &e))?;
        left = written.unprocessed_items.and_then(|mut items| items.remove(table)).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_received_longer_ago_than_it_is_hidden_is_in_the_count_like_anybodys() {
        let received = |id: &str, asked_ms| (id.to_owned(), ("handle".to_owned(), asked_ms));
        let theirs = Theirs(HashMap::from([received("old", 0), received("new", 20_000)]));
        for (now_ms, hidden) in [(20_000, 2), (29_999, 2), (30_000, 1), (49_999, 1), (50_000, 0)] {
            assert_eq!(theirs.hidden(now_ms), hidden, "{now_ms}");
        }
    }
}
