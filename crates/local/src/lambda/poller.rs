//! The poller: receives batches, hands each to an environment, and deletes what the answer does not report.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::environment::{Environment, Outcome};
use super::{InvocationReport, InvocationResult, LambdaEvent, Shared, event, lock};

/// The payload of one synchronous invocation (Developer Guide, "Lambda quotas": 6 MB).
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Messages per request, for receiving and deleting.
const SQS_BATCH_MAX: i32 = 10;
const POLL_S: i32 = 20;
/// Pause after a poll that failed, or a process that did not start, so that neither becomes a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Receives batches and hands each to an environment, until it is told to stop.
pub(super) async fn dispatch(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(shared.source.maximum_concurrency));
    let mut invocations = JoinSet::new();
    loop {
        // Ended invocations are taken out, so that the set does not grow with the run.
        while invocations.try_join_next().is_some() {}
        let batch = async {
            // First a free environment, then messages: a message must not spend its visibility in a waiting room.
            let permit = Arc::clone(&free).acquire_owned().await.ok()?;
            let batch = shared.receive_batch().await;
            Some((permit, batch))
        };
        let batch = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            batch = batch => batch,
        };
        match batch {
            Some((permit, Ok(batch))) if !batch.is_empty() => {
                invocations.spawn(work(Arc::clone(&shared), batch, permit));
            }
            Some((_, Ok(_))) => {}
            Some((_, Err(reason))) => {
                shared.tell(LambdaEvent::Trouble(reason));
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
            None => break,
        }
    }
    while invocations.join_next().await.is_some() {}
}

/// Invokes the function with a batch and settles it; the permit is given back when the environment is free again.
async fn work(shared: Arc<Shared>, batch: Vec<Message>, permit: OwnedSemaphorePermit) {
    for batch in by_payload(batch) {
        shared.invoke(&batch).await;
    }
    drop(permit);
}

/// Splits a batch where it would exceed the payload of one invocation.
fn by_payload(batch: Vec<Message>) -> Vec<Vec<Message>> {
    let mut batches: Vec<Vec<Message>> = Vec::new();
    let mut bytes = PAYLOAD_BYTES_MAX;
    for message in batch {
        let more = event::record_bytes(&message);
        match batches.last_mut() {
            Some(last) if bytes + more <= PAYLOAD_BYTES_MAX => last.push(message),
            _ => {
                batches.push(vec![message]);
                bytes = 0;
            }
        }
        bytes += more;
    }
    batches
}

impl Shared {
    async fn receive_batch(&self) -> Result<Vec<Message>, String> {
        let size = usize::try_from(self.source.batch_size).unwrap_or(usize::MAX);
        let mut batch = self.receive(size, POLL_S).await?;
        let window_ends = Instant::now() + self.source.window;
        while !batch.is_empty() && batch.len() < size {
            let left_s = window_ends.saturating_duration_since(Instant::now()).as_secs();
            if left_s == 0 {
                break;
            }
            let wait_s = i32::try_from(left_s).unwrap_or(POLL_S).min(POLL_S);
            match self.receive(size - batch.len(), wait_s).await {
                Ok(more) => batch.extend(more),
                // What is there must be worked on all the same.
                Err(reason) => {
                    self.tell(LambdaEvent::Trouble(reason));
                    break;
                }
            }
        }
        Ok(batch)
    }

    async fn receive(&self, at_most: usize, wait_s: i32) -> Result<Vec<Message>, String> {
        let at_most = i32::try_from(at_most).unwrap_or(SQS_BATCH_MAX).min(SQS_BATCH_MAX);
        let answer = self
            .sqs
            .receive_message()
            .queue_url(&self.source.queue_url)
            .max_number_of_messages(at_most)
            .wait_time_seconds(wait_s)
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All")
            .send()
            .await
            .map_err(|error| format!("poll of {}: {}", self.source.queue_url, DisplayErrorContext(error)))?;
        Ok(answer.messages.unwrap_or_default())
    }

    async fn invoke(self: &Arc<Self>, batch: &[Message]) {
        let environment = match self.environment().await {
            Ok(environment) => environment,
            Err(error) => {
                self.tell(LambdaEvent::Trouble(format!(
                    "start of {}: {error}",
                    self.function.program.display()
                )));
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                return;
            }
        };
        {
            let mut stats = self.stats();
            stats.invocations += 1;
            stats.records += batch.len() as u64;
        }
        let request_id = crate::aws::uuid();
        let payload = event::sqs_event(batch, &self.queue_arn, &self.source.region);
        let started = Instant::now();
        let (id, outcome) = (environment.id(), environment.invoke(&request_id, payload).await);
        let duration = started.elapsed();
        // Free for the next batch only when it lives on.
        if outcome.lives_on() {
            lock(&self.idle).push(environment);
        } else {
            environment.shut_down().await;
        }
        let result = self.judge(outcome, batch);
        let deleted = match &result {
            Ok(failures) => self.delete_others(batch, failures).await,
            Err(_) => 0,
        };
        let result = match result {
            Ok(failures) => InvocationResult::Answered { failures: failures.len() },
            Err(result) => result,
        };
        if matches!(result, InvocationResult::InitFailed(_)) {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
        }
        self.tell(LambdaEvent::Invocation(InvocationReport {
            request_id,
            environment: id,
            records: batch.len(),
            deleted,
            result,
            duration,
        }));
    }

    /// A warm environment, or a new one.
    async fn environment(self: &Arc<Self>) -> std::io::Result<Environment> {
        loop {
            let Some(environment) = lock(&self.idle).pop() else {
                return Environment::start(Arc::clone(self)).await;
            };
            if environment.is_alive() {
                return Ok(environment);
            }
            environment.shut_down().await;
        }
    }

    /// The ids of the failed records, or why the invocation failed as a whole; counts either.
    fn judge(&self, outcome: Outcome, batch: &[Message]) -> Result<Vec<String>, InvocationResult> {
        let mut stats = self.stats();
        match outcome {
            Outcome::Answered(body) => match event::failures(&body, batch) {
                Ok(failures) => {
                    stats.answered += 1;
                    stats.reported += failures.len() as u64;
                    Ok(failures)
                }
                Err(reason) => {
                    stats.errors += 1;
                    Err(InvocationResult::InvalidAnswer(reason))
                }
            },
            Outcome::FunctionError(error) => {
                stats.errors += 1;
                Err(InvocationResult::FunctionError(error))
            }
            Outcome::TimedOut => {
                stats.timeouts += 1;
                Err(InvocationResult::TimedOut)
            }
            Outcome::Crashed => {
                stats.crashes += 1;
                Err(InvocationResult::Crashed)
            }
            Outcome::InitFailed(reason) => {
                stats.init_failures += 1;
                Err(InvocationResult::InitFailed(reason))
            }
        }
    }

    /// Deletes the messages that are not among the failures; returns how many are gone.
    async fn delete_others(&self, batch: &[Message], failures: &[String]) -> usize {
        let done: Vec<&str> = batch
            .iter()
            .filter(|message| !failures.iter().any(|id| Some(id.as_str()) == message.message_id()))
            .filter_map(Message::receipt_handle)
            .collect();
        let mut deleted = 0;
        for handles in done.chunks(10) {
            let entries = handles.iter().enumerate().filter_map(|(number, handle)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(number.to_string())
                    .receipt_handle(*handle)
                    .build()
                    .ok()
            });
            let answer = self
                .sqs
                .delete_message_batch()
                .queue_url(&self.source.queue_url)
                .set_entries(Some(entries.collect()))
                .send()
                .await;
            match answer {
                Ok(answer) => deleted += answer.successful().len(),
                Err(error) => {
                    let reason = DisplayErrorContext(error);
                    self.tell(LambdaEvent::Trouble(format!(
                        "delete from {}: {reason}",
                        self.source.queue_url
                    )));
                }
            }
        }
        let mut stats = self.stats();
        stats.deleted += deleted as u64;
        stats.delete_failures += (done.len() - deleted) as u64;
        deleted
    }
}
