//! One invocation: the records of a batch, side by side, each settled for itself.
//!
//! **Invariant:** a record is acknowledged only when it is settled: whatever is not, because it failed, panicked or ran
//! out of time, is reported in `batchItemFailures` and comes back.
//! **Invariant:** no future outlives its invocation; everything runs inside the one that `process_batch` returns.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nightshift_core::blame::Evidence;
use nightshift_core::control::Control;
use nightshift_core::cost::Price;
use nightshift_core::dead_letter::redrive_of;
use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::input_hash::InputHash;
use nightshift_core::job::{self, Job};
use nightshift_core::limits::Limits;
use nightshift_core::message::{Attribute, Delivery};
use nightshift_core::metric::{HandBackCause, InvocationMetrics, Latency, Metric, NO_TASK, Outcome};
use nightshift_core::record::Revision;
use nightshift_core::spend::{CallPrice, UtcDay};
use nightshift_core::task::{Tasks, revision_hash};
use tokio::time::Instant;

use crate::flow_control::FlowControl;
use crate::paid_call::{PaidModel, Reservation};
use crate::spend::{Book, FirstCall};
use nightshift_ports::{Clock, DeadLetters, Entropy, Ledger, Metrics, PortErrorKind, Visibility};

/// How long a control record is believed before it is read again.
const CONTROL_CACHE: Duration = Duration::from_secs(5);
/// Whatever is not settled this long before the function's timeout is reported as it is; half of the deadline's margin
/// where that is shorter.
const REPORT_MARGIN_MS_MAX: u64 = 2_000;

/// The world, as the worker sees it.
#[derive(Clone)]
#[allow(missing_docs)] // each port is documented where it is defined
pub struct Ports {
    pub ledger: Arc<dyn Ledger>,
    pub dead_letters: Arc<dyn DeadLetters>,
    pub visibility: Arc<dyn Visibility>,
    pub model: PaidModel,
    pub metrics: Arc<dyn Metrics>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// What is deployed.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The stack's name, the dimension `Stack`.
    pub stack: String,
    /// The model's name.
    pub model: String,
    /// Its price.
    pub price: Price,
    /// The limits.
    pub limits: Limits,
    /// When the worker was built, in milliseconds since 1970.
    pub built_at_ms: u64,
    /// The function's version; 0 outside Lambda.
    pub function_version: u64,
}

/// The worker of one environment; lives as long as the environment.
pub struct Worker {
    pub(crate) ports: Ports,
    pub(crate) tasks: Box<dyn Tasks>,
    pub(crate) deployment: Deployment,
    pub(crate) flow: FlowControl,
    /// What became of the calls of this environment's jobs: whose fault a refusal is.
    pub(crate) evidence: Mutex<Evidence>,
    revisions: HashMap<&'static str, Revision>,
    control: Mutex<Option<(Instant, Control)>>,
    /// Errors after the numbers of their invocation were on their way.
    pub(crate) late_ledger_errors: AtomicU32,
    /// When the last invocation ended, by both clocks.
    last_ended: Mutex<Option<(Instant, u64)>>,
}

/// One record of a batch, as SQS delivered it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// SQS's id.
    pub message_id: String,
    /// The handle of this delivery.
    pub receipt_handle: String,
    /// The body.
    pub body: String,
    /// `SentTimestamp`, in milliseconds since 1970.
    pub sent_at_ms: u64,
    /// `ApproximateReceiveCount`, from 1.
    pub receive_count: u32,
    /// The sender's attributes.
    pub attributes: Vec<(String, Attribute)>,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReport {
    /// `batchItemFailures`: the ids of the messages that must come back, each once.
    pub failed_message_ids: Vec<String>,
    /// How each message ended, in the order of the batch.
    pub outcomes: Vec<Outcome>,
}

/// A message, read.
pub(crate) struct Item {
    pub(crate) message: Message,
    pub(crate) delivery: Delivery,
    pub(crate) key: InputHash,
    pub(crate) job: Result<Job, Rejection>,
    /// The name of the deployed task, or `NO_TASK`: a sender's own word is no dimension of a metric.
    task: &'static str,
}

impl Item {
    pub(crate) fn task_name(&self) -> &'static str {
        self.task
    }
}

/// What all records of one invocation share.
pub(crate) struct Invocation<'a> {
    pub(crate) id: &'a str,
    /// No call is open later.
    pub(crate) deadline: Instant,
    pub(crate) lease_until_ms: u64,
    numbers: Mutex<InvocationMetrics>,
    book: Mutex<Book>,
}

impl Invocation<'_> {
    pub(crate) fn numbers<T>(&self, change: impl FnOnce(&mut InvocationMetrics) -> T) -> T {
        change(&mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The reservation of a call that its book has just counted.
    pub(crate) fn reservation(&self, price: CallPrice) -> Reservation<'_> {
        Reservation::of_book(&self.book, price)
    }
}

/// What is to be done about a record.
enum Turn<'a> {
    Work {
        /// Nothing else is open.
        alone: bool,
        /// For its first call.
        reservation: Option<Reservation<'a>>,
    },
    HandBack(HandBackCause),
}

/// How a record left `process_job`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is settled, or handed back.
    With(Outcome),
    /// It is a suspect, and waits until nothing else is open.
    AsSuspect,
}

impl Worker {
    /// A worker with everything that it needs.
    #[must_use]
    pub fn new(ports: Ports, tasks: Box<dyn Tasks>, deployment: Deployment) -> Self {
        let revisions = tasks
            .names()
            .into_iter()
            .filter_map(|name| {
                let task = tasks.find(name)?;
                Some((name, revision(&deployment, &revision_hash(task, &deployment.model))))
            })
            .collect();
        let flow = FlowControl::new(&deployment.limits);
        Self {
            ports,
            tasks,
            deployment,
            flow,
            evidence: Mutex::new(Evidence::default()),
            revisions,
            control: Mutex::new(None),
            late_ledger_errors: AtomicU32::new(0),
            last_ended: Mutex::new(None),
        }
    }

    /// What is deployed for a task; of an unknown one, only when.
    pub(crate) fn revision(&self, task: &str) -> Revision {
        self.revisions.get(task).cloned().unwrap_or_else(|| revision(&self.deployment, ""))
    }

    /// Works on a batch and says which messages must come back.
    ///
    /// `time_left_ms` is the time until Lambda kills the function. Dropping the future is the same as being killed.
    pub async fn process_batch(
        &self,
        invocation_id: &str,
        time_left_ms: u64,
        messages: Vec<Message>,
    ) -> BatchReport {
        let limits = &self.deployment.limits;
        let started = Instant::now();
        let now_ms = self.ports.clock.now_ms();
        self.wake(started, now_ms);
        let until = |margin_ms: u64| started + Duration::from_millis(time_left_ms.saturating_sub(margin_ms));
        let report_margin_ms = REPORT_MARGIN_MS_MAX.min(limits.deadline_margin_ms / 2);
        let invocation = Invocation {
            id: invocation_id,
            deadline: until(limits.deadline_margin_ms),
            lease_until_ms: now_ms.saturating_add(time_left_ms).saturating_add(limits.lease_margin_ms),
            numbers: Mutex::new(InvocationMetrics::new(messages.len())),
            book: Mutex::new(Book::new(UtcDay::of(now_ms))),
        };
        let items: Vec<Item> = messages.into_iter().map(|message| self.read(message, now_ms)).collect();
        for item in &items {
            let waited_ms = now_ms.saturating_sub(item.message.sent_at_ms);
            invocation.numbers(|n| n.sample_ms(item.task_name(), Latency::QueueWait, waited_ms));
        }
        let late_errors = self.late_ledger_errors.swap(0, Ordering::Relaxed);
        if late_errors > 0 {
            invocation.numbers(|n| n.add(NO_TASK, Metric::LedgerErrors, f64::from(late_errors)));
        }
        let mut ended: Vec<Option<Ended>> = vec![None; items.len()];
        // What is still running then is dropped, and reported below.
        let _ = tokio::time::timeout_at(
            until(report_margin_ms),
            self.settle_all(&invocation, &items, &mut ended),
        )
        .await;
        let outcomes: Vec<Outcome> = ended
            .into_iter()
            .map(|ended| match ended {
                Some(Ended::With(outcome)) => outcome,
                Some(Ended::AsSuspect) => Outcome::HandedBack(HandBackCause::Suspect),
                None => Outcome::HandedBack(HandBackCause::Deadline),
            })
            .collect();
        for (item, outcome) in items.iter().zip(&outcomes) {
            invocation.numbers(|n| n.settle(item.task_name(), *outcome));
            tracing::info!(
                request_id = invocation.id, input_hash = %item.key, task = item.task_name(),
                message_id = item.message.message_id, receive_count = item.message.receive_count,
                outcome = ?outcome, "record ended"
            );
        }
        let numbers = invocation.numbers.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = numbers.conserved() {
            tracing::error!(request_id = invocation_id, %error, "the records do not add up");
            debug_assert!(false, "{error}");
        }
        let batch = numbers.into_batch(&self.deployment.stack, self.ports.clock.now_ms());
        let book = invocation.book.into_inner().unwrap_or_else(PoisonError::into_inner);
        let settle = self.settle_spend(invocation_id, book);
        let publish_within = until(report_margin_ms / 2).saturating_duration_since(Instant::now());
        let publish = self.ports.metrics.publish(&batch, publish_within);
        let _ =
            tokio::time::timeout_at(until(report_margin_ms / 4), futures_util::future::join(settle, publish))
                .await;
        *self.last_ended.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), self.ports.clock.now_ms()));
        // SQS may deliver a message twice in one batch; Lambda is told of each id once.
        let mut failed_message_ids: Vec<String> = Vec::new();
        for (item, outcome) in items.iter().zip(&outcomes) {
            let id = &item.message.message_id;
            if matches!(outcome, Outcome::HandedBack(_)) && !failed_message_ids.contains(id) {
                failed_message_ids.push(id.clone());
            }
        }
        BatchReport { failed_message_ids, outcomes }
    }

    /// Between two invocations Lambda freezes the process, and monotonic time stands still: whatever waits for it is
    /// told how long that was by the wall clock.
    fn wake(&self, now: Instant, now_ms: u64) {
        let last_ended = self.last_ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((ended, ended_ms)) = last_ended else { return };
        let passed = Duration::from_millis(now_ms.saturating_sub(ended_ms));
        let frozen = passed.saturating_sub(now.saturating_duration_since(ended));
        self.flow.skip(frozen);
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        *control =
            control.take().and_then(|(read_at, control)| Some((read_at.checked_sub(frozen)?, control)));
    }

    async fn settle_all(&self, invocation: &Invocation<'_>, items: &[Item], ended: &mut [Option<Ended>]) {
        let first_calls = match self.control().await {
            Ok(Control { paused: Some(pause) }) => {
                tracing::info!(request_id = invocation.id, reason = pause.reason, "paused: handing back");
                items.iter().map(|_| FirstCall::HandBack(HandBackCause::Paused)).collect()
            }
            Ok(_) => self.reserve_first_calls(invocation, items).await,
            Err(error) if error.kind == PortErrorKind::Unreadable => {
                tracing::warn!(request_id = invocation.id, %error, "the control record is in words of another release: handing back");
                invocation.numbers(|n| {
                    n.add(NO_TASK, Metric::LedgerErrors, 1.0);
                    n.add(NO_TASK, Metric::RecordsUnreadable, 1.0);
                });
                items.iter().map(|_| FirstCall::HandBack(HandBackCause::Unreadable)).collect()
            }
            Err(error) => {
                // Not being able to read the pause is no pause: the claims will tell whether the ledger works.
                tracing::warn!(request_id = invocation.id, %error, "the control record could not be read");
                invocation.numbers(|n| n.add(NO_TASK, Metric::LedgerErrors, 1.0));
                self.reserve_first_calls(invocation, items).await
            }
        };
        self.work_on_all(invocation, items, first_calls, ended).await;
    }

    /// Distinct inputs side by side; equal ones after each other, so that they make one call; suspects last and alone.
    async fn work_on_all<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        items: &[Item],
        first_calls: Vec<FirstCall<'a>>,
        ended: &mut [Option<Ended>],
    ) {
        let mut queues: HashMap<&InputHash, VecDeque<usize>> = HashMap::new();
        let mut leaders = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let queue = queues.entry(&item.key).or_default();
            if queue.is_empty() {
                leaders.push(index);
            }
            queue.push_back(index);
        }
        let alone = leaders.len() == 1;
        let mut running = FuturesUnordered::new();
        let mut suspects = VecDeque::new();
        let start = |index: usize, turn: Turn<'a>| async move {
            let end = match (items.get(index), turn) {
                (Some(item), Turn::Work { alone, reservation }) => {
                    self.process_caught(invocation, item, alone, reservation).await
                }
                (Some(item), Turn::HandBack(cause)) => {
                    Ended::With(self.return_unclaimed(invocation, item, cause, 0).await)
                }
                (None, _) => Ended::AsSuspect,
            };
            (index, end)
        };
        let mut first_calls: Vec<Option<FirstCall<'a>>> = first_calls.into_iter().map(Some).collect();
        let mut first_turn = |index: usize, alone: bool| match first_calls.get_mut(index).map(Option::take) {
            Some(Some(FirstCall::HandBack(cause))) => Turn::HandBack(cause),
            Some(Some(FirstCall::Reserved(reservation))) => Turn::Work { alone, reservation },
            _ => Turn::Work { alone, reservation: None },
        };
        running.extend(leaders.into_iter().map(|index| start(index, first_turn(index, alone))));
        while let Some((index, end)) = running.next().await {
            set(ended, index, end);
            let Some(item) = items.get(index) else { continue };
            let followers = queues.entry(&item.key).or_default();
            if followers.front() == Some(&index) {
                followers.pop_front();
            }
            match end {
                // The next of the same input will find the record settled, and settles for itself.
                Ended::With(Outcome::HandedBack(cause)) => {
                    let followers = std::mem::take(followers);
                    running.extend(followers.into_iter().map(|index| start(index, Turn::HandBack(cause))));
                }
                Ended::With(_) => {
                    if let Some(follower) = followers.front() {
                        running.push(start(*follower, first_turn(*follower, false)));
                    }
                }
                Ended::AsSuspect => {
                    followers.push_front(index);
                    suspects.push_back(index);
                }
            }
            if running.is_empty()
                && let Some(suspect) = suspects.pop_front()
            {
                running.push(start(suspect, first_turn(suspect, true)));
            }
        }
    }

    /// A panic fails its record alone.
    async fn process_caught<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        item: &Item,
        alone: bool,
        reservation: Option<Reservation<'a>>,
    ) -> Ended {
        let token = self.ports.entropy.token();
        let process = self.process_job(invocation, item, &token, alone, reservation);
        match AssertUnwindSafe(process).catch_unwind().await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::error!(request_id = invocation.id, input_hash = %item.key, task = item.task_name(), "panicked");
                Ended::With(self.settle_panic(invocation, item, &token).await)
            }
        }
    }

    fn read(&self, message: Message, now_ms: u64) -> Item {
        let read = AssertUnwindSafe(|| {
            let job = job::parse(&message.body, self.deployment.limits.body_bytes_max)?;
            let key = InputHash::of_job(&job.task, &job.input);
            let task = self.tasks.find(&job.task).map_or(NO_TASK, |task| task.name());
            Ok((job, key, task))
        });
        let read = std::panic::catch_unwind(read).unwrap_or_else(|_| {
            Err(Rejection::new(
                FailureReason::Internal,
                "The worker panicked when it read the message: look for `panicked` in its log.",
            ))
        });
        let (job, key, task) = match read {
            Ok((job, key, task)) => (Ok(job), key, task),
            Err(rejection) => (Err(rejection), InputHash::of_body(&message.body), NO_TASK),
        };
        let delivery = Delivery {
            message_id: message.message_id.clone(),
            sent_at_ms: message.sent_at_ms,
            receive_count: message.receive_count,
            received_at_ms: now_ms,
            redrive_of: redrive_of(&message.attributes, &key),
        };
        Item { message, delivery, key, job, task }
    }

    async fn control(&self) -> Result<Control, nightshift_ports::PortError> {
        let cached = self.control.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((read_at, control)) = cached
            && read_at.elapsed() < CONTROL_CACHE
        {
            return Ok(control);
        }
        let control = self.ports.ledger.control().await?;
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), control.clone()));
        Ok(control)
    }
}

fn revision(deployment: &Deployment, hash: &str) -> Revision {
    Revision {
        hash: hash.to_owned(),
        built_at_ms: deployment.built_at_ms,
        function_version: deployment.function_version,
    }
}

fn set(ended: &mut [Option<Ended>], index: usize, end: Ended) {
    if let Some(slot) = ended.get_mut(index) {
        *slot = Some(end);
    }
}
