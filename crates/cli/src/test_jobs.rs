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
use nightshift_core::load_test::{Empty, EmptyLooks, REFERENCE_PREFIX, may_be_of_a_test};
use tokio::time::Instant;

use crate::again::again;
use crate::error::{self, Failure};
use crate::letters;
use crate::render::say;
use crate::stack::Stack;
use crate::test_lease::Lease;
use crate::text;
use crate::times;
use crate::trace;

/// How long messages are waited for that workers have, at least: a hand-back may hide one for 15 minutes (README, "Limits"),
/// and an invocation lasts for five.
const WAIT_FOR_HIDDEN_MIN: Duration = Duration::from_secs(20 * 60);
/// Between two words on what is waited for, where its number stays the same.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How long they are waited for where nothing says that one of them is a test's: they are other people's jobs then.
const WAIT_FOR_UNKNOWN: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a message is hidden that is received here, in seconds: what is not a test's is given back before, or then.
const HIDDEN_S: i32 = 30;
/// The same for one that was seen before and is not a test's, so that of the hundred receives that a job has, a clean-up
/// takes two, and one more for each quarter of an hour.
const HIDDEN_AGAIN_S: i32 = 900;
/// Messages of one receive.
const RECEIVED_AT_A_TIME: i32 = 10;
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
            // Where no test was, a clean-up would only be in the way of other people's jobs. One page tells enough.
            let advice = match records(stack, Whose::Tests, 1, 1).await?.pop() {
                Some(_) => format!("; {} removes those that are a test's", clean_up_command(stack)),
                None => ", and nothing says that a load test left one".to_owned(),
            };
            return Err(others(stack, &format!("{} holds {held}{advice}", name(&url))));
        }
    }
    match records(stack, Whose::Others, 1, usize::MAX).await?.pop() {
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
    format!("`nightshift --prefix {} load-test --clean-up`", stack.prefix)
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
/// `known`: a test is known to have left something, so that what cannot be seen may be its.
///
/// # Errors
/// When messages that may be a test's stay hidden for too long; the lease then stands, and the next test goes on.
pub async fn remove(stack: &Stack, lease: &Lease, known: bool) -> Result<Removed, Failure> {
    // In the order in which a message may go from one to the next.
    let mut queues = queues(stack).map(|url| (url, Theirs::default()));
    let emptied = empty(stack, lease, known, &mut queues).await;
    let others = queues.iter().any(|(_, theirs)| !theirs.0.is_empty());
    let mut given_back = Ok(());
    for (url, theirs) in queues {
        given_back = given_back.and(theirs.give_back(stack, &url).await);
    }
    let Emptied { taken, left, known } = emptied?;
    given_back?;
    // Where nothing is left, nothing could write another one; else what has ended is not written again.
    let whose = if left == 0 { Whose::Tests } else { Whose::EndedTests };
    let keys = records(stack, whose, usize::MAX, usize::MAX).await?;
    let removed = Removed { messages: taken, records: keys.len() as u64 };
    let client = aws_sdk_dynamodb::Client::new(&stack.sdk);
    let parts = kept_of(stack, &keys).await?;
    let keys: Vec<_> = parts.into_iter().chain(keys).collect();
    for keys in keys.chunks(DELETES_AT_A_TIME) {
        delete(&client, &stack.ledger_table, lease, keys).await?;
    }
    if left == 0 {
        return Ok(removed);
    }
    let unknown = format!(
        "{} in the queues, with workers or come since, {} not known to be a test's",
        text::counted(left, "message"),
        text::agreeing(left, "is", "are")
    );
    let open = !records(stack, Whose::OpenTests, 1, usize::MAX).await?.is_empty();
    if may_be_of_a_test(known, others, open) {
        return Err(Failure::failed(format!(
            "{unknown}: run {} later, which removes those that are. {}",
            clean_up_command(stack),
            removed.words()
        )));
    }
    say(&format!("{unknown}: other people's jobs stay."));
    Ok(removed)
}

/// How long messages are waited for that workers have. One whose worker died is hidden for the queue's whole visibility
/// timeout, which is six times an invocation's or more.
fn wait_for_hidden(visibility_timeout_s: u64) -> Duration {
    Duration::from_secs(visibility_timeout_s).max(WAIT_FOR_HIDDEN_MIN)
}

/// How far queues could be emptied of tests' messages.
struct Emptied {
    /// Messages of tests that were removed.
    taken: u64,
    /// Messages that were not seen, whose ever they are.
    left: u64,
    /// Whether a test is known to have left something.
    known: bool,
}

/// Takes the messages of tests out of the queues until none is left, or what is left has been waited for long enough.
async fn empty(
    stack: &Stack,
    lease: &Lease,
    known: bool,
    queues: &mut [(String, Theirs)],
) -> Result<Emptied, Failure> {
    let began = Instant::now();
    let until = began + wait_for_hidden(letters::look(stack, &stack.jobs_url).await?.visibility_timeout_s);
    // A job that has not ended has a message.
    let mut known = known || !records(stack, Whose::OpenTests, 1, usize::MAX).await?.is_empty();
    let mut looks = EmptyLooks::new(!stack.is_aws());
    let (mut taken_of_all, mut told) = (0, false);
    let mut waits_for = None;
    loop {
        let (mut taken, mut left) = (0, 0);
        for (url, theirs) in queues.iter_mut() {
            taken += again(async || take_out(stack, lease, url, theirs, until).await).await?;
            let messages = again(async || letters::look(stack, url).await).await?.messages;
            left += messages.saturating_sub(theirs.hidden(times::now_ms()));
        }
        taken_of_all += taken;
        known |= taken > 0;
        let long_enough = if known { until } else { began + WAIT_FOR_UNKNOWN };
        // What was there a moment ago tells a count that is behind.
        let found = if stack.is_aws() { left + taken } else { left };
        match looks.look(Some(found), times::now_ms()) {
            Empty::Surely => return Ok(Emptied { taken: taken_of_all, left: 0, known }),
            Empty::Perhaps if !told => {
                say("Looks for what may be left for two minutes: SQS counts approximately.");
                told = true;
            }
            Empty::No if left > 0 && Instant::now() > long_enough => {
                return Ok(Emptied { taken: taken_of_all, left, known });
            }
            Empty::No if left > 0 && known => {
                let is_said = |(of, at): (u64, Instant)| of == left && at.elapsed() < SAY_EVERY;
                if !waits_for.is_some_and(is_said) {
                    let now = Instant::now();
                    waits_for = Some((left, now));
                    let most = until.saturating_duration_since(now).as_millis();
                    say(&format!(
                        "Waits for {} that workers have or handed back, {} at most (Ctrl-C: the next load test removes what is left).",
                        text::counted(left, "message"),
                        times::length(u64::try_from(most).unwrap_or(u64::MAX))
                    ));
                }
            }
            Empty::Perhaps | Empty::No => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A message that is not a test's, as it was received last.
struct Their {
    handle: String,
    /// When that was asked for.
    asked_ms: u64,
    hidden_s: i32,
}

impl Their {
    /// Whether it is hidden because it was received here.
    fn is_hidden(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.asked_ms) < u64::from(self.hidden_s.unsigned_abs()) * 1_000
    }
}

/// Messages of a queue that are not a test's, by id.
#[derive(Default)]
struct Theirs(HashMap<String, Their>);

impl Theirs {
    /// One was received; for how long it should be hidden, in seconds, and whether it is new.
    fn received(&mut self, id: &str, handle: &str, asked_ms: u64) -> (i32, bool) {
        let new = !self.0.contains_key(id);
        let hidden_s = if new { HIDDEN_S } else { HIDDEN_AGAIN_S };
        self.0.insert(id.to_owned(), Their { handle: handle.to_owned(), asked_ms, hidden_s });
        (hidden_s, new)
    }

    /// How many of them are hidden because they were received here. All others are in the count like anybody's.
    fn hidden(&self, now_ms: u64) -> u64 {
        self.0.values().filter(|their| their.is_hidden(now_ms)).count() as u64
    }

    /// They are visible again at once, and somebody hears of them. What is visible by now may be with a worker.
    async fn give_back(self, stack: &Stack, url: &str) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let client = aws_sdk_sqs::Client::new(&stack.sdk);
        let (count, now_ms) = (self.0.len() as u64, times::now_ms());
        let hidden = self.0.into_values().filter(|their| their.is_hidden(now_ms));
        letters::give_back(&client, url, hidden.map(|their| their.handle).collect()).await?;
        say(&format!(
            "{} of {} {} not a test's, and {}.",
            text::counted(count, "message"),
            name(url),
            text::agreeing(count, "is", "are"),
            text::agreeing(count, "stays", "stay")
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

/// Takes the messages of tests out of a queue, as far as they can be seen; how many. It receives no more than the queue
/// holds at its beginning: what comes meanwhile is seen by the next look, or never.
async fn take_out(
    stack: &Stack,
    lease: &Lease,
    url: &str,
    theirs: &mut Theirs,
    until: Instant,
) -> Result<u64, Failure> {
    let client = aws_sdk_sqs::Client::new(&stack.sdk);
    // A count that is behind says too little.
    let mut unseen =
        letters::look(stack, url).await?.messages.max(u64::from(RECEIVED_AT_A_TIME.unsigned_abs()));
    let mut taken = 0;
    loop {
        let asked_ms = times::now_ms();
        let received = client
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(RECEIVED_AT_A_TIME)
            .wait_time_seconds(1)
            .visibility_timeout(HIDDEN_S)
            .send()
            .await;
        let messages =
            received.map_err(|e| error::of_aws("sqs:ReceiveMessage", &e))?.messages.unwrap_or_default();
        unseen = unseen.saturating_sub(messages.len() as u64);
        // What is seen again is not a test's, and all that it stood among has been seen, too.
        let (mut new, mut again) = (false, Vec::new());
        for message in messages {
            let handle = message.receipt_handle.as_deref().unwrap_or_default();
            if is_of_a_test(&message) {
                lease.held()?;
                let deleted = client.delete_message().queue_url(url).receipt_handle(handle).send().await;
                deleted.map_err(|e| error::of_aws("sqs:DeleteMessage", &e))?;
                taken += 1;
                new = true;
            } else {
                let id = message.message_id.as_deref().unwrap_or_default();
                let (hidden_s, is_new) = theirs.received(id, handle, asked_ms);
                if hidden_s > HIDDEN_S {
                    again.push(handle.to_owned());
                }
                new |= is_new;
            }
        }
        letters::hide(&client, url, again, HIDDEN_AGAIN_S).await?;
        if !new || unseen == 0 || Instant::now() > until {
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
    /// Of jobs of tests that have a result or failed.
    EndedTests,
    /// Of the others.
    OpenTests,
    Others,
}

/// The keys of records, at most so many. Looks through the table until it has them, or through so many pages of it.
async fn records(stack: &Stack, whose: Whose, most: usize, pages: usize) -> Result<Vec<String>, Failure> {
    // What has no reference begins with nothing, and is somebody's.
    let filter = match whose {
        Whose::Tests => "begins_with(#reference, :prefix)",
        Whose::EndedTests => "begins_with(#reference, :prefix) AND (#state = :done OR #state = :failed)",
        Whose::OpenTests => "begins_with(#reference, :prefix) AND #state <> :done AND #state <> :failed",
        Whose::Others => "attribute_exists(#state) AND NOT begins_with(#reference, :prefix)",
    };
    let mut scan = aws_sdk_dynamodb::Client::new(&stack.sdk)
        .scan()
        .table_name(&stack.ledger_table)
        .consistent_read(true)
        .projection_expression("id")
        .filter_expression(filter)
        .expression_attribute_names("#reference", "reference")
        .expression_attribute_values(":prefix", trace::text(REFERENCE_PREFIX));
    // DynamoDB refuses what an expression does not name.
    if whose != Whose::Tests {
        scan = scan.expression_attribute_names("#state", "state");
    }
    if [Whose::EndedTests, Whose::OpenTests].contains(&whose) {
        for state in ["done", "failed"] {
            scan = scan.expression_attribute_values(format!(":{state}"), trace::text(state));
        }
    }
    let mut scanned = scan.into_paginator().send();
    let (mut keys, mut read) = (Vec::new(), 0);
    while keys.len() < most
        && read < pages
        && let Some(page) = scanned.next().await
    {
        let page = page.map_err(|e| error::of_aws("dynamodb:Scan", &e))?;
        let ids = page.items().iter().filter_map(|item| item.get("id")?.as_s().ok().cloned());
        keys.extend(ids.filter(|id| id.len() == KEY_CHARS));
        read += 1;
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
        let mut theirs = Theirs::default();
        assert_eq!(theirs.received("old", "h", 0), (HIDDEN_S, true));
        assert_eq!(theirs.received("new", "h", 20_000), (HIDDEN_S, true));
        for (now_ms, hidden) in [(20_000, 2), (29_999, 2), (30_000, 1), (49_999, 1), (50_000, 0)] {
            assert_eq!(theirs.hidden(now_ms), hidden, "{now_ms}");
        }
        assert_eq!(theirs.received("old", "h", 50_000), (HIDDEN_AGAIN_S, false));
        assert_eq!((theirs.hidden(949_999), theirs.hidden(950_000)), (1, 0));
    }

    #[test]
    fn what_died_with_its_worker_is_waited_for_and_a_message_of_somebody_else_is_received_a_few_times() {
        for (visibility_timeout_s, waited_s, received) in
            [(60, 1_200, 3), (1_800, 1_800, 3), (5_400, 5_400, 7)]
        {
            let waited = wait_for_hidden(visibility_timeout_s);
            assert_eq!(waited.as_secs(), waited_s);
            let until_ms = (waited + LOOK_EVERY).as_millis() as u64;
            let (mut theirs, mut visible_ms, mut receives) = (Theirs::default(), 0, 0);
            while visible_ms <= until_ms {
                visible_ms += u64::from(theirs.received("id", "h", visible_ms).0.unsigned_abs()) * 1_000;
                receives += 1;
            }
            assert_eq!(receives, received, "{visibility_timeout_s}");
        }
    }
}
