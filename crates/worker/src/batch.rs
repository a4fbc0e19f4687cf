//! One invocation: the records of a batch, side by side, each settled for itself.
//!
//! **Invariant:** a record is acknowledged only when it is settled: whatever is not, because it failed, panicked or ran
//! out of time, is reported in `batchItemFailures` and comes back.
//! **Invariant:** no future outlives its invocation; everything runs inside the one that `process_batch` returns.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use nightshift_core::control::{Admits, Control};
use nightshift_core::input_hash::InputHash;
use nightshift_core::metric::{HandBackCause, Latency, Metric, NO_TASK, Outcome};
use nightshift_core::next_step::admits_work;
use nightshift_ports::PortError;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::invocation::Invocation;
use crate::job::Job;
use crate::message::{Item, Message};
use crate::paid_call::Reservation;
use crate::record::Ended;
use crate::spend::FirstCall;
use crate::worker::Worker;

/// So often an environment that keeps to a width, or that waits where nobody may call, reads it again, and draws whether a part of a call is its own. Longer than
/// most calls, so that few are still open when the next environment draws one; three times between two runs of the sentinel.
const WIDTH_READ_EVERY: Duration = Duration::from_secs(20);

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReport {
    /// `batchItemFailures`: the ids of the messages that must come back, each once.
    pub failed_message_ids: Vec<String>,
    /// How each message ended, in the order of the batch.
    pub outcomes: Vec<Outcome>,
}

/// A record of the batch, and where it stands.
struct Slot<'a> {
    item: Arc<Item>,
    /// Its log lines are in here, and need not name it.
    span: Span,
    /// What its first turn begins with, until then.
    first_call: Option<FirstCall<'a>>,
    ended: Option<Ended>,
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

impl Worker {
    /// Works on a batch and says which messages must come back.
    ///
    /// `time_left_ms` is the time until Lambda kills the function. Dropping the future is the same as being killed.
    pub async fn process_batch(
        &self,
        invocation_id: &str,
        time_left_ms: u64,
        messages: Vec<Message>,
    ) -> BatchReport {
        let invocation = Invocation::begin(self, invocation_id, time_left_ms, messages.len());
        let items: Vec<Arc<Item>> = messages
            .into_iter()
            .map(|message| Arc::new(Item::read(self, message, invocation.began_ms)))
            .collect();
        invocation.count_received(&items);
        let ended = {
            let mut slots: Vec<Slot<'_>> = items.iter().map(|item| Slot::new(&invocation, item)).collect();
            // What is still running then is dropped, and reported below.
            let _ = tokio::time::timeout_at(invocation.report_at(), invocation.settle_all(&mut slots)).await;
            slots.iter().map(|slot| slot.outcome(&invocation)).collect::<Vec<Outcome>>()
        };
        invocation.publish().await;
        self.rest();
        // SQS may deliver a message twice in one batch; Lambda is told of each id once.
        let mut failed_message_ids: Vec<String> = Vec::new();
        for (item, outcome) in items.iter().zip(&ended) {
            let id = &item.message.message_id;
            if matches!(outcome, Outcome::HandedBack(_)) && !failed_message_ids.contains(id) {
                failed_message_ids.push(id.clone());
            }
        }
        BatchReport { failed_message_ids, outcomes: ended }
    }
}

impl<'a> Slot<'a> {
    fn new(invocation: &Invocation<'_>, item: &Arc<Item>) -> Self {
        let span = tracing::info_span!(
            "record", request_id = invocation.id, input_hash = %item.key, task = item.task,
            message_id = item.message.message_id, receive_count = item.message.receive_count
        );
        Self { item: Arc::clone(item), span, first_call: None, ended: None }
    }

    /// What its first turn is; a later one of the same record has no reservation.
    fn first_turn(&mut self, alone: bool) -> Turn<'a> {
        match self.first_call.take() {
            Some(FirstCall::HandBack(cause)) => Turn::HandBack(cause),
            Some(FirstCall::Reserved(reservation)) => Turn::Work { alone, reservation },
            None => Turn::Work { alone, reservation: None },
        }
    }

    /// How it ended, counted and logged.
    fn outcome(&self, invocation: &Invocation<'_>) -> Outcome {
        let outcome = match self.ended {
            Some(Ended::With(outcome)) => outcome,
            Some(Ended::AsSuspect) => Outcome::HandedBack(HandBackCause::Suspect),
            None => Outcome::HandedBack(HandBackCause::Deadline),
        };
        invocation.numbers(|n| n.settle(self.item.task, outcome));
        self.span.in_scope(|| tracing::info!(outcome = ?outcome, "record ended"));
        outcome
    }
}

impl Invocation<'_> {
    fn count_received(&self, items: &[Arc<Item>]) {
        self.numbers(|n| {
            for item in items {
                let waited_ms = self.began_ms.saturating_sub(item.message.sent_at_ms);
                n.sample_ms(item.task, Latency::QueueWait, waited_ms);
            }
            let late_errors = self.worker.late_ledger_errors.swap(0, Ordering::Relaxed);
            if late_errors > 0 {
                n.add(NO_TASK, Metric::LedgerErrors, f64::from(late_errors));
            }
        });
    }

    /// Publishes the numbers, and settles the spend beside that.
    pub(crate) async fn publish(self) {
        let (worker, id) = (self.worker, self.id);
        let (publish_until, answer_at) = (self.publish_until(), self.answer_at());
        let (numbers, book) = self.end();
        if let Err(error) = numbers.conserved() {
            tracing::error!(request_id = id, %error, "the records do not add up");
            debug_assert!(false, "{error}");
        }
        let batch = numbers.into_batch(&worker.deployment.stack, worker.ports.clock.now_ms());
        let settle = worker.settle_spend(id, book);
        let publish_within = publish_until.saturating_duration_since(Instant::now());
        let publish = worker.ports.metrics.publish(&batch, publish_within);
        let _ = tokio::time::timeout_at(answer_at, futures_util::future::join(settle, publish)).await;
    }

    async fn settle_all<'a>(&'a self, slots: &mut [Slot<'a>]) {
        let mut control = self.control().await;
        let now_ms = self.worker.ports.clock.now_ms();
        if control.as_ref().is_ok_and(|control| control.is_just_shut(now_ms)) {
            tokio::time::sleep(self.wait_where_shut()).await;
            // Where it cannot be read again, what was read holds.
            control = self.control().await.or(control);
        }
        match admits_work(control.as_ref().map_err(|error| error.kind)) {
            Admits::Nothing(cause) => {
                let reason = control.ok().and_then(|control| control.in_old_form()).map(|(reason, _)| reason);
                tracing::info!(request_id = self.id, cause = cause.as_str(), reason, "handing all back");
                for slot in slots.iter_mut() {
                    slot.first_call = Some(FirstCall::HandBack(cause));
                }
            }
            admits => {
                self.worker.narrow(admits);
                let first_calls = self.reserve_first_calls(slots.iter().map(|slot| &*slot.item)).await;
                for (slot, first_call) in slots.iter_mut().zip(first_calls) {
                    slot.first_call = Some(first_call);
                }
                if matches!(admits, Admits::Width(..)) {
                    // What has ended counts before what it may do next, and a seed repeats a run.
                    return tokio::select! {
                        biased;
                        () = self.work_on_all(slots) => {}
                        () = self.follow_width() => {}
                    };
                }
            }
        }
        self.work_on_all(slots).await;
    }

    async fn control(&self) -> Result<Control, PortError> {
        self.worker.control().await.inspect_err(|error| {
            self.count_ledger_error(NO_TASK, error.kind);
            tracing::warn!(request_id = self.id, %error, "the control record could not be read");
        })
    }

    /// Where a pause has just begun, an invocation waits before it hands back: until the event source is off, every message
    /// would be received in vain again and again, and stay away the longer afterwards.
    fn wait_where_shut(&self) -> Duration {
        let left = self.deadline().saturating_duration_since(Instant::now());
        WIDTH_READ_EVERY.min(left / 3)
    }

    /// While the way is narrow, an invocation waits for its turn instead of handing back: handed back at once, a whole queue
    /// would be received in vain, and SQS stops at 120,000 messages in flight. What it may do changes meanwhile.
    async fn follow_width(&self) {
        loop {
            tokio::time::sleep(WIDTH_READ_EVERY).await;
            let control = self.control().await;
            self.worker.narrow(admits_work(control.as_ref().map_err(|error| error.kind)));
        }
    }

    /// Distinct inputs side by side; equal ones after each other, so that they make one call; suspects last and alone.
    async fn work_on_all<'a>(&'a self, slots: &mut [Slot<'a>]) {
        let (mut equal_inputs, first) = by_input(slots);
        let alone = first.len() == 1;
        let mut suspects: VecDeque<usize> = VecDeque::new();
        let mut running = FuturesUnordered::new();
        running.extend(first.into_iter().filter_map(|index| {
            let slot = slots.get_mut(index)?;
            let turn = slot.first_turn(alone);
            Some(self.start(index, slot, turn))
        }));
        while let Some((index, end)) = running.next().await {
            let Some(slot) = slots.get_mut(index) else { continue };
            slot.ended = Some(end);
            let followers = equal_inputs.entry(slot.item.key.clone()).or_default();
            if followers.front() == Some(&index) {
                followers.pop_front();
            }
            let next: Vec<(usize, Option<HandBackCause>)> = match end {
                Ended::With(Outcome::HandedBack(cause)) => {
                    followers.drain(..).map(|index| (index, Some(cause))).collect()
                }
                // The next of the same input will find the record settled, and settles for itself.
                Ended::With(_) => followers.front().map(|index| (*index, None)).into_iter().collect(),
                Ended::AsSuspect => {
                    followers.push_front(index);
                    suspects.push_back(index);
                    Vec::new()
                }
            };
            for (index, hand_back) in next {
                let Some(slot) = slots.get_mut(index) else { continue };
                let turn = hand_back.map_or_else(|| slot.first_turn(false), Turn::HandBack);
                running.push(self.start(index, slot, turn));
            }
            if running.is_empty()
                && let Some(index) = suspects.pop_front()
                && let Some(slot) = slots.get_mut(index)
            {
                let turn = slot.first_turn(true);
                running.push(self.start(index, slot, turn));
            }
        }
    }

    /// A turn of a record, in its span.
    fn start<'a>(
        &'a self,
        index: usize,
        slot: &Slot<'a>,
        turn: Turn<'a>,
    ) -> impl Future<Output = (usize, Ended)> + use<'a> {
        let item = Arc::clone(&slot.item);
        let span = slot.span.clone();
        async move {
            let job = Job { invocation: self, item: &item };
            let end = match turn {
                Turn::Work { alone, reservation } => job.process(alone, reservation).await,
                Turn::HandBack(cause) => Ended::With(job.return_unclaimed(cause, 0).await),
            };
            (index, end)
        }
        .instrument(span)
    }
}

/// The records of each input, in the order of the batch, and the first one of each.
fn by_input(slots: &[Slot<'_>]) -> (HashMap<InputHash, VecDeque<usize>>, Vec<usize>) {
    let mut equal_inputs: HashMap<InputHash, VecDeque<usize>> = HashMap::new();
    let mut first = Vec::new();
    for (index, slot) in slots.iter().enumerate() {
        let queue = equal_inputs.entry(slot.item.key.clone()).or_default();
        if queue.is_empty() {
            first.push(index);
        }
        queue.push_back(index);
    }
    (equal_inputs, first)
}
