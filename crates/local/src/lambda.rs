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
mod poller;
mod report;
mod runtime_api;
mod settings;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::environment::Environment;

use self::poller::dispatch;
pub use self::report::{
    Ended, EnvironmentStatus, InvocationReport, InvocationResult, LambdaEvent, LambdaStats, LogLine, Stream,
};
pub use self::settings::{EventSource, Function, LambdaError};
use self::settings::{check, check_queue, sqs_client};

/// Events that wait for a reader; what does not fit is dropped and counted, so that an unread channel never stops a function.
const EVENTS_MAX: usize = 65_536;

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
}

/// A poisoned lock means that a bug of ours panicked; the data behind each of these is whole between its uses.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
