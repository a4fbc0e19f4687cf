//! A stand-in for Lambda: its SQS poller and its Runtime API.
//!
//! [`Lambda::start`] polls a queue (ours or any other server's) and runs the real function binary, one process per environment, as Lambda does: an environment takes one invocation at a time, is kept warm, is killed at the function's timeout and replaced after a crash.
//!
//! What is like Lambda (Developer Guide, "Using Lambda with Amazon SQS"):
//! - at most `maximum_concurrency` environments; no message is received before one of them is free;
//! - a batch is what one poll returned, or what came in within the window; over ten needs a window;
//! - an answer with `batchItemFailures` deletes the other messages; a failed, timed-out or crashed invocation, or an answer that makes no sense, deletes none, and the messages come back when their visibility ends.
//!
//! What is not: Lambda starts with five pollers and adds more over minutes, here one poller is as fast as the environments are; there are no asynchronous invocations, extensions, or SnapStart; memory and CPU are not limited.

mod environment;
mod event;
mod runtime_api;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{
    DeleteMessageBatchRequestEntry, Message, MessageSystemAttributeName, QueueAttributeName,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

pub use self::environment::{Ended, LogLine, Stream};
use self::environment::{Environment, Outcome};

/// Batch size without a window, and with one (Developer Guide, "Creating and configuring an Amazon SQS event source mapping").
const BATCH_WITHOUT_WINDOW_MAX: u32 = 10;
const BATCH_MAX: u32 = 10_000;
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// `ScalingConfig.MaximumConcurrency`; Lambda's least is 2, here a single environment is allowed too, for tests that need one.
const CONCURRENCY_MAX: usize = 1000;
/// The payload of one synchronous invocation (Developer Guide, "Lambda quotas": 6 MB).
const PAYLOAD_BYTES_MAX: usize = 6 * 1024 * 1024;
const TIMEOUT_MAX: Duration = Duration::from_secs(900);
/// Messages per request, for receiving and deleting.
const SQS_BATCH_MAX: i32 = 10;
const POLL_S: i32 = 20;
/// Events that wait for a reader; what does not fit is dropped and counted, so that an unread channel never stops a function.
const EVENTS_MAX: usize = 65_536;
/// Pause after a poll that failed, or a process that did not start, so that neither becomes a busy loop.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The function: what to run, and how.
#[derive(Debug, Clone)]
pub struct Function {
    /// The binary, as it would be the `bootstrap` of the zip.
    pub program: PathBuf,
    /// Arguments of the binary; Lambda gives none.
    pub arguments: Vec<OsString>,
    /// The function's name.
    pub name: String,
    /// What the function is told about its memory, in MB; not enforced.
    pub memory_mb: u32,
    /// An invocation that takes longer is killed; at most 900 s.
    pub timeout: Duration,
    /// The function's environment variables; they win over what this stand-in sets.
    ///
    /// The process inherits nothing but `PATH`: what is not in here, it would not have in Lambda either.
    pub environment: BTreeMap<String, String>,
    /// Whether an idle process is stopped until its next invocation, as Lambda freezes environments.
    pub freeze: bool,
}

impl Function {
    /// A function with Lambda-like settings: 256 MB, 300 s, not frozen.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Function {
            program: program.into(),
            arguments: Vec::new(),
            name: name.to_owned(),
            memory_mb: 256,
            timeout: Duration::from_secs(300),
            environment: BTreeMap::new(),
            freeze: false,
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }
}

/// The event source mapping: which queue, and how it is polled.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// The SQS server.
    pub endpoint_url: String,
    /// The region that requests are signed for and that the function is told.
    pub region: String,
    /// The queue.
    pub queue_url: String,
    /// Most messages of one invocation.
    pub batch_size: u32,
    /// How long to wait for a full batch, counted from its first message; whole seconds, as in Lambda.
    pub window: Duration,
    /// Most environments at work at one time.
    pub maximum_concurrency: usize,
}

/// Why Lambda did not start.
#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    /// A batch over ten without a window.
    #[error(
        "a batch size of {batch_size} needs a batching window of at least 1 s; without one, at most {BATCH_WITHOUT_WINDOW_MAX}"
    )]
    BatchNeedsWindow {
        /// The batch size that was asked for.
        batch_size: u32,
    },
    /// A setting out of its range.
    #[error("{setting} must be between {least} and {most}, not {given}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// The least allowed value.
        least: u64,
        /// The greatest allowed value.
        most: u64,
        /// The value that was given.
        given: u64,
    },
    /// Lambda refuses a mapping whose messages would come back while they are still being worked on.
    #[error(
        "queue visibility timeout: {visibility_s} seconds is less than function timeout: {timeout_s} seconds"
    )]
    VisibilityTooShort {
        /// Of the queue.
        visibility_s: u64,
        /// Of the function.
        timeout_s: u64,
    },
    /// The program is not there.
    #[error("there is no program {}", .0.display())]
    NoProgram(PathBuf),
    /// The queue cannot be read.
    #[error("cannot read the attributes of the queue {queue_url}: {reason}")]
    Queue {
        /// The queue that was asked for.
        queue_url: String,
        /// What SQS or the connection said.
        reason: String,
    },
}

/// What happened, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum LambdaEvent {
    /// A process was started.
    Started {
        /// Number of the environment, counted from 1.
        environment: u64,
        /// Its process.
        pid: u32,
    },
    /// The function wrote a line.
    Log(LogLine),
    /// An invocation ended.
    Invocation(InvocationReport),
    /// A process ended.
    Ended {
        /// Number of the environment.
        environment: u64,
        /// Its process.
        pid: u32,
        /// Why.
        cause: Ended,
    },
    /// Something of Lambda's own did not work (a poll, a delete, a process that did not start); it goes on.
    Trouble(String),
}

/// How an invocation went.
#[derive(Debug, Clone)]
pub struct InvocationReport {
    /// The request id, which the function knows too.
    pub request_id: String,
    /// Number of the environment.
    pub environment: u64,
    /// Messages of the batch.
    pub records: usize,
    /// Messages that were deleted.
    pub deleted: usize,
    /// How it ended.
    pub result: InvocationResult,
    /// From the hand-over to the end.
    pub duration: Duration,
}

/// The end of an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvocationResult {
    /// The function answered, with this many failed records.
    Answered {
        /// Number of `batchItemFailures`.
        failures: usize,
    },
    /// The function answered something that Lambda takes for a complete failure.
    InvalidAnswer(String),
    /// The handler returned an error.
    FunctionError(String),
    /// Killed at the function's timeout.
    TimedOut,
    /// The process ended in mid-invocation.
    Crashed,
    /// The process ended, or said so, before it asked for its first invocation.
    InitFailed(String),
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LambdaStats {
    /// Environments started.
    pub environments: u64,
    /// Invocations begun.
    pub invocations: u64,
    /// Invocations that were answered in a way that Lambda understands.
    pub answered: u64,
    /// Invocations that ended with an error of the handler or an invalid answer.
    pub errors: u64,
    /// Invocations killed at the timeout.
    pub timeouts: u64,
    /// Invocations whose process ended.
    pub crashes: u64,
    /// Environments that failed before their first invocation.
    pub init_failures: u64,
    /// Messages handed to the function, repeats included.
    pub records: u64,
    /// Messages deleted after an answer.
    pub deleted: u64,
    /// Messages reported as failed.
    pub reported: u64,
    /// Messages whose delete failed; they come back.
    pub delete_failures: u64,
    /// Events that nobody read in time.
    pub events_dropped: u64,
}

/// An environment as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvironmentStatus {
    /// Number of the environment, counted from 1.
    pub environment: u64,
    /// Its process.
    pub pid: u32,
    /// Whether it has an invocation.
    pub busy: bool,
}

/// A running stand-in for Lambda.
///
/// Dropping it kills the processes; [`Lambda::stop`] ends them in good order.
#[derive(Debug)]
pub struct Lambda {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    dispatcher: Option<JoinHandle<()>>,
}

/// What the dispatcher and its invocations share.
#[derive(Debug)]
struct Shared {
    function: Function,
    source: EventSource,
    queue_arn: String,
    sqs: aws_sdk_sqs::Client,
    /// Warm environments without an invocation; the last one used is the next one used.
    idle: Mutex<Vec<Environment>>,
    /// All environments that live, for status and kill.
    living: Mutex<BTreeMap<u64, environment::Handle>>,
    stats: Mutex<LambdaStats>,
    events: mpsc::Sender<LambdaEvent>,
}

impl Lambda {
    /// Checks the settings as Lambda does and begins to poll.
    ///
    /// The receiver is told everything that happens; when it is not read (or dropped), events are lost and counted.
    ///
    /// # Errors
    /// When Lambda would refuse the mapping, the program is missing, or the queue cannot be read.
    pub async fn start(
        function: Function,
        source: EventSource,
    ) -> Result<(Lambda, mpsc::Receiver<LambdaEvent>), LambdaError> {
        check(&function, &source)?;
        let sqs = sqs_client(&source);
        let queue_arn = check_queue(&sqs, &function, &source).await?;
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let shared = Arc::new(Shared {
            function,
            source,
            queue_arn,
            sqs,
            idle: Mutex::default(),
            living: Mutex::default(),
            stats: Mutex::default(),
            events,
        });
        let (stop, stopped) = watch::channel(false);
        let dispatcher = Some(tokio::spawn(dispatch(Arc::clone(&shared), stopped)));
        let lambda = Lambda { shared, stop, dispatcher };
        Ok((lambda, received))
    }

    /// The environments that live now.
    pub fn environments(&self) -> Vec<EnvironmentStatus> {
        self.shared
            .living()
            .iter()
            .map(|(environment, handle)| EnvironmentStatus {
                environment: *environment,
                pid: handle.pid,
                busy: handle.busy,
            })
            .collect()
    }

    /// Kills an environment's process with SIGKILL; `false` if it does not live any more.
    pub fn kill(&self, environment: u64) -> bool {
        let living = self.shared.living();
        let Some(handle) = living.get(&environment) else {
            return false;
        };
        handle.kill.notify_one();
        true
    }

    /// The counts until now.
    pub fn stats(&self) -> LambdaStats {
        *self.shared.stats()
    }

    /// Stops polling, waits for the invocations under way (no longer than the function's timeout), ends all processes.
    pub async fn stop(mut self) -> LambdaStats {
        self.stop.send_replace(true);
        if let Some(dispatcher) = self.dispatcher.take() {
            // The dispatcher can only fail by a panic, which the runtime has reported.
            let _ = dispatcher.await;
        }
        let idle = std::mem::take(&mut *lock(&self.shared.idle));
        for environment in idle {
            environment.shut_down().await;
        }
        *self.shared.stats()
    }
}

impl Drop for Lambda {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for handle in self.shared.living().values() {
            handle.kill.notify_one();
        }
    }
}

fn check(function: &Function, source: &EventSource) -> Result<(), LambdaError> {
    let range = |setting, least: u64, most: u64, given: u64| {
        if (least..=most).contains(&given) {
            return Ok(());
        }
        Err(LambdaError::OutOfRange { setting, least, most, given })
    };
    range("batch size", 1, BATCH_MAX.into(), source.batch_size.into())?;
    range("batching window in seconds", 0, WINDOW_MAX.as_secs(), source.window.as_secs())?;
    range("maximum concurrency", 1, CONCURRENCY_MAX as u64, source.maximum_concurrency as u64)?;
    range("function timeout in seconds", 1, TIMEOUT_MAX.as_secs(), function.timeout.as_secs())?;
    if source.batch_size > BATCH_WITHOUT_WINDOW_MAX && source.window < Duration::from_secs(1) {
        return Err(LambdaError::BatchNeedsWindow { batch_size: source.batch_size });
    }
    if !function.program.is_file() {
        return Err(LambdaError::NoProgram(function.program.clone()));
    }
    Ok(())
}

fn sqs_client(source: &EventSource) -> aws_sdk_sqs::Client {
    use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
    // Plain HTTP to this machine; the credentials only make the requests signed.
    aws_sdk_sqs::Client::from_conf(
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(source.region.clone()))
            .credentials_provider(Credentials::new("local", "local", None, None, "local"))
            .endpoint_url(&source.endpoint_url)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    )
}

async fn check_queue(
    sqs: &aws_sdk_sqs::Client,
    function: &Function,
    source: &EventSource,
) -> Result<String, LambdaError> {
    let failed = |reason: String| LambdaError::Queue { queue_url: source.queue_url.clone(), reason };
    let answer = sqs
        .get_queue_attributes()
        .queue_url(&source.queue_url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await
        .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
    let attribute = |name: QueueAttributeName| {
        answer
            .attributes()
            .and_then(|attributes| attributes.get(&name))
            .ok_or_else(|| failed(format!("the answer has no {name}")))
    };
    let visibility_s: u64 = attribute(QueueAttributeName::VisibilityTimeout)?
        .parse()
        .map_err(|_| failed("the visibility timeout is not a number".to_owned()))?;
    let timeout_s = function.timeout.as_secs();
    if visibility_s < timeout_s {
        return Err(LambdaError::VisibilityTooShort { visibility_s, timeout_s });
    }
    attribute(QueueAttributeName::QueueArn).cloned()
}

/// Receives batches and hands each to an environment, until it is told to stop.
async fn dispatch(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
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
    fn living(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, environment::Handle>> {
        lock(&self.living)
    }

    fn stats(&self) -> std::sync::MutexGuard<'_, LambdaStats> {
        lock(&self.stats)
    }

    fn tell(&self, event: LambdaEvent) {
        if self.events.try_send(event).is_err() {
            self.stats().events_dropped += 1;
        }
    }

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

/// A poisoned lock means that a bug of ours panicked; the data behind each of these is whole between its uses.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
