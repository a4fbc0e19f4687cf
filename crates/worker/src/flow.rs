//! Admits calls at the pace of `core::pace`: what is pure is there, and here are the clock, the lock and the waiting.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nightshift_core::control::Admits;
use nightshift_core::limits::Limits;
use nightshift_core::metric::HandBackCause;
use nightshift_core::model::{Headroom, ModelFailure};
use nightshift_core::pace::{Pace, Start};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by all records of an environment, across invocations.
#[derive(Debug)]
pub struct FlowControl {
    began: Instant,
    pace: Mutex<Pace>,
    changed: Notify,
}

/// The answer to: may I call?
#[derive(Debug)]
pub enum Admission<'a> {
    /// Now; the call counts as open until the permit is dropped.
    Granted(Permit<'a>),
    /// Not early enough to finish before the deadline.
    NotInTime {
        /// As what the job is handed back.
        cause: HandBackCause,
        /// When it could have been; 0 where it is not for the provider's capacity.
        at_least_ms: u64,
    },
}

/// One open call.
#[derive(Debug)]
pub struct Permit<'a> {
    flow: &'a FlowControl,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.flow.lock().ended();
        self.flow.changed.notify_waiters();
    }
}

impl FlowControl {
    /// The flow control of a fresh environment.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        Self { began: Instant::now(), pace: Mutex::new(Pace::new(limits)), changed: Notify::new() }
    }

    /// What a call usually takes here: the mean and twice the mean deviation of the last ones.
    #[must_use]
    pub fn usual_call_ms(&self) -> u64 {
        self.lock().usual_call_ms()
    }

    /// Waits until a call may start, if it can then still end before the deadline. `fraction` is drawn from
    /// [0, 1) where a limit is known, and spreads the starts.
    pub async fn admit(&self, deadline: Instant, fraction: impl Fn() -> f64) -> Admission<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is read, so that no change in between is missed.
            changed.as_mut().enable();
            let until = {
                let now = self.now();
                let mut pace = self.lock();
                match pace.may_start(now, self.moment(deadline)) {
                    Start::Now => {
                        pace.started(now, &fraction);
                        return Admission::Granted(Permit { flow: self });
                    }
                    Start::NotInTime { cause, at_least_ms } => {
                        return Admission::NotInTime { cause, at_least_ms };
                    }
                    Start::Wait { until } => until,
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.began + until) => {}
                () = changed => {}
            }
        }
    }

    /// What may be done here; of a width, this environment's share.
    pub fn narrow(&self, way: Admits) {
        self.lock().narrow(way);
        self.changed.notify_waiters();
    }

    /// A call was answered.
    pub fn answered(&self, took_ms: u64, tokens: u64, headroom: &Headroom) {
        self.lock().answered(self.now(), took_ms, tokens, headroom);
        self.changed.notify_waiters();
    }

    /// A call was not answered, and its job waits for `wait_ms`: after a refusal, so do all others.
    pub fn failed(&self, failure: &ModelFailure, took_ms: u64, wait_ms: u64) {
        self.lock().failed(self.now(), failure, took_ms, wait_ms);
    }

    /// Whether no call is open.
    pub fn is_idle(&self) -> bool {
        self.lock().is_idle()
    }

    /// Lambda froze the process for this long, which its monotonic clock has not seen.
    pub fn skip(&self, frozen: Duration) {
        self.lock().skip(frozen);
    }

    fn now(&self) -> Duration {
        self.moment(Instant::now())
    }

    fn moment(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began)
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use nightshift_core::model::{FailureClass, RetryAdvice, Window};

    use super::*;

    fn limits(batch_size: u32, requests_per_minute: u64) -> Limits {
        Limits {
            batch_size,
            requests_per_minute,
            concurrency_max: 1,
            call_timeout_ms: 4_000,
            ..Limits::default()
        }
    }

    fn failure(class: FailureClass) -> ModelFailure {
        ModelFailure {
            class,
            status: None,
            error_type: "scripted".to_owned(),
            message: String::new(),
            request_id: None,
            advice: RetryAdvice::default(),
            headroom: Headroom::default(),
            oversize: None,
        }
    }

    fn ms(later: Instant, earlier: Instant) -> u64 {
        u64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap()
    }

    async fn admitted(flow: &FlowControl, deadline: Instant) -> Permit<'_> {
        match flow.admit(deadline, || 0.5).await {
            Admission::Granted(permit) => permit,
            Admission::NotInTime { at_least_ms, .. } => panic!("not in time: {at_least_ms}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_makes_every_neighbour_wait_and_halves_what_is_open() {
        let flow = FlowControl::new(&limits(4, 0));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        let first = admitted(&flow, deadline).await;
        flow.failed(&failure(FailureClass::Capacity), 50, 5_000);
        drop(first);
        let _a = admitted(&flow, deadline).await;
        assert_eq!(ms(Instant::now(), start), 5_000);
        let _b = admitted(&flow, deadline).await;
        assert_eq!(ms(Instant::now(), start), 5_000);
        assert!(matches!(
            flow.admit(start + Duration::from_secs(20), || 0.5).await,
            Admission::NotInTime { .. }
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_narrow_way_lets_no_more_through_than_its_width_and_who_waits_is_told_when_it_widens() {
        let flow = FlowControl::new(&limits(4, 0));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        flow.narrow(Admits::Width(1, HandBackCause::Outage));
        let first = admitted(&flow, deadline).await;
        let widens = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            flow.narrow(Admits::Width(2, HandBackCause::Outage));
        };
        let (second, ()) = tokio::join!(admitted(&flow, deadline), widens);
        assert_eq!(ms(Instant::now(), start), 20_000);
        drop((first, second));
        let in_vain = async |way| {
            flow.narrow(way);
            match flow.admit(deadline, || 0.5).await {
                Admission::NotInTime { cause, at_least_ms } => {
                    (cause, at_least_ms, ms(Instant::now(), start))
                }
                Admission::Granted(_) => panic!("granted"),
            }
        };
        let account = HandBackCause::Account;
        assert_eq!(in_vain(Admits::Nothing(account)).await, (account, 0, 20_000), "nobody may call");
        let (cause, _, ended_ms) = in_vain(Admits::Width(0, account)).await;
        assert_eq!(cause, account);
        assert!(ended_ms > 90_000, "the next share may be its own: until the deadline, {ended_ms}");
        flow.narrow(Admits::All);
        let _all = (
            admitted(&flow, deadline + Duration::from_secs(100)).await,
            admitted(&flow, deadline + Duration::from_secs(100)).await,
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_deadline_is_told_at_once() {
        let flow = FlowControl::new(&limits(4, 0));
        let start = Instant::now();
        flow.failed(&failure(FailureClass::Capacity), 50, 60_000);
        match flow.admit(start + Duration::from_secs(30), || 0.5).await {
            Admission::NotInTime { at_least_ms, .. } => assert_eq!(at_least_ms, 60_000),
            Admission::Granted(_) => panic!("granted"),
        }
        assert_eq!(Instant::now(), start);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_start_at_the_pace_of_the_limit() {
        let flow = FlowControl::new(&limits(10, 60));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        for _ in 0..5 {
            drop(admitted(&flow, deadline).await);
        }
        assert_eq!(ms(Instant::now(), start), 4_000);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_are_not_about_capacity_hold_nobody_up() {
        let flow = FlowControl::new(&limits(2, 0));
        let start = Instant::now();
        for class in [FailureClass::Transient, FailureClass::Account, FailureClass::Rejected] {
            flow.failed(&failure(class), 50, 5_000);
        }
        let _permit = admitted(&flow, start + Duration::from_secs(100)).await;
        assert_eq!(Instant::now(), start);
    }

    fn left(remaining: u64) -> Headroom {
        let requests = Window { limit: Some(60), remaining: Some(remaining), reset_ms: None };
        Headroom { requests, tokens: Window::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_provider_says_counts_at_once_for_a_call_that_waits() {
        // Alone at 60 calls a minute: one a second when half of the limit is left, four when all of it is, and one in
        // four seconds when nothing is.
        for (remaining, started_after_ms) in [(30, 1_000), (60, 250), (0, 4_000)] {
            let flow = FlowControl::new(&limits(10, 60));
            let start = Instant::now();
            let deadline = start + Duration::from_secs(100);
            drop(admitted(&flow, deadline).await);
            let answered = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                flow.answered(100, 1, &left(remaining));
            };
            let waiting = async {
                drop(admitted(&flow, deadline).await);
                ms(Instant::now(), start)
            };
            let (waited_ms, ()) = tokio::join!(waiting, answered);
            assert_eq!(waited_ms, started_after_ms, "{remaining} of 60 left");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_goes_on_while_the_process_is_frozen() {
        let flow = FlowControl::new(&limits(4, 1));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        drop(admitted(&flow, deadline).await);
        flow.failed(&failure(FailureClass::Capacity), 50, 600_000);
        assert!(matches!(
            flow.admit(deadline, || 0.5).await,
            Admission::NotInTime { at_least_ms: 600_000, .. }
        ));
        flow.skip(Duration::from_secs(590));
        drop(admitted(&flow, deadline).await);
        assert_eq!(ms(Instant::now(), start), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_batch_does_not_open_a_socket_for_each_record() {
        let flow = FlowControl::new(&limits(10_000, 0));
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut permits = Vec::new();
        while let Admission::Granted(permit) = flow.admit(deadline, || 0.5).await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), 256);
    }
}
