//! What all records of one invocation share: its end, its numbers, its money.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nightshift_core::metric::{InvocationMetrics, Metric, NO_TASK};
use nightshift_core::next_step::TimeLeft;
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::spend::{CallPrice, UtcDay};
use tokio::time::Instant;

use crate::book::Book;
use crate::paid_call::Reservation;
use crate::worker::Worker;

/// Whatever is not settled this long before the function's timeout is reported as it is; half of the deadline's margin
/// where that is shorter.
const REPORT_MARGIN_MS_MAX: u64 = 2_000;

/// What all records of one invocation share.
pub(crate) struct Invocation<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) id: &'a str,
    /// When it began, by the worker's clock.
    pub(crate) began_ms: u64,
    began: Instant,
    /// Lambda kills the function this long after it began.
    time_left_ms: u64,
    pub(crate) lease_until_ms: u64,
    numbers: Mutex<InvocationMetrics>,
    book: Mutex<Book>,
}

impl<'a> Invocation<'a> {
    /// Begins an invocation with so many records; `time_left_ms` is the time until Lambda kills the function.
    pub(crate) fn begin(worker: &'a Worker, id: &'a str, time_left_ms: u64, records: usize) -> Self {
        let (now, now_ms) = (Instant::now(), worker.ports.clock.now_ms());
        worker.wake(now, now_ms);
        Self {
            worker,
            id,
            began_ms: now_ms,
            began: now,
            time_left_ms,
            lease_until_ms: now_ms
                .saturating_add(time_left_ms)
                .saturating_add(worker.deployment.limits.lease_margin_ms),
            numbers: Mutex::new(InvocationMetrics::new(records)),
            book: Mutex::new(Book::new(UtcDay::of(now_ms))),
        }
    }

    /// No call is open later.
    pub(crate) fn deadline(&self) -> Instant {
        self.before_the_kill(self.worker.deployment.limits.deadline_margin_ms)
    }

    /// What is not settled then comes back as it is.
    pub(crate) fn report_at(&self) -> Instant {
        self.before_the_kill(self.report_margin_ms())
    }

    /// The numbers are published by then.
    pub(crate) fn publish_until(&self) -> Instant {
        self.before_the_kill(self.report_margin_ms() / 2)
    }

    /// Lambda is answered then, whatever is still on its way.
    pub(crate) fn answer_at(&self) -> Instant {
        self.before_the_kill(self.report_margin_ms() / 4)
    }

    fn report_margin_ms(&self) -> u64 {
        REPORT_MARGIN_MS_MAX.min(self.worker.deployment.limits.deadline_margin_ms / 2)
    }

    fn before_the_kill(&self, margin_ms: u64) -> Instant {
        self.began + Duration::from_millis(self.time_left_ms.saturating_sub(margin_ms))
    }

    pub(crate) fn time_left(&self) -> TimeLeft {
        let left = self.deadline().saturating_duration_since(Instant::now());
        TimeLeft {
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            usual_call_ms: self.worker.flow.usual_call_ms(),
        }
    }

    pub(crate) fn numbers<T>(&self, change: impl FnOnce(&mut InvocationMetrics) -> T) -> T {
        change(&mut self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts an error of the ledger, under a task or under `NO_TASK`.
    pub(crate) fn count_ledger_error(&self, task: &'static str, kind: PortErrorKind) {
        self.numbers(|n| {
            n.add(task, Metric::LedgerErrors, 1.0);
            if kind == PortErrorKind::Unreadable {
                n.add(task, Metric::RecordsUnreadable, 1.0);
            }
        });
    }

    /// Tells the sentinel of this environment's calls, where there is something to tell. Lost, an outage is seen a little later.
    pub(crate) async fn tell_calls(&self) {
        let now_ms = self.worker.ports.clock.now_ms();
        let Some((minute, calls)) =
            self.worker.heard(|heard| heard.to_tell(now_ms, self.worker.flow.is_idle()))
        else {
            return;
        };
        if let Err(error) = self.worker.ports.ledger.tell_calls(minute, &calls).await {
            self.count_ledger_error(NO_TASK, error.kind);
            tracing::warn!(request_id = self.id, %error, "the calls of this minute could not be told");
        }
    }

    pub(crate) fn book<T>(&self, change: impl FnOnce(&mut Book) -> T) -> T {
        change(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The reservation of a call that its book has just counted.
    pub(crate) fn reservation(&self, price: CallPrice) -> Reservation<'_> {
        Reservation::of_book(&self.book, price)
    }

    /// Its numbers and its money, when nothing is worked on any more.
    pub(crate) fn end(self) -> (InvocationMetrics, Book) {
        (
            self.numbers.into_inner().unwrap_or_else(PoisonError::into_inner),
            self.book.into_inner().unwrap_or_else(PoisonError::into_inner),
        )
    }
}
