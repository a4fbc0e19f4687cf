//! How many calls this environment has open, and how fast it opens them.
//!
//! Three brakes, each for what the provider lets us see: a shared wait after a refusal, a concurrency limit that adapts
//! by additive increase and multiplicative decrease, and a pace that the provider's own headers steer.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nightshift_core::limits::Limits;
use nightshift_core::model::{FailureClass, Headroom, Window};
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a call is taken to last before one was seen: a quarter of its timeout.
const USUAL_SHARE_OF_TIMEOUT: u64 = 4;
/// Weight of the newest call in the running means.
const NEWEST_WEIGHT: f64 = 0.2;
/// A refusal takes this share of the pace away, where no header steers it.
const PACE_AFTER_REFUSAL: f64 = 0.7;
/// A success adds this share of the fair pace, until the first refusal has shown where the limit is ...
const PACE_STEP: f64 = 0.02;
/// ... and this much afterwards: with the share above, two or three calls in a hundred probe for more.
const PACE_STEP_AFTER_REFUSAL: f64 = 0.005;
/// How far from its fair share the headers can steer a pace, beyond what the number of sharers asks for: an environment
/// that works alone makes up for the pauses between its batches.
const STEER_MARGIN: f64 = 4.0;

/// Refusals take the pace down to this share of a limit that was only guessed.
const LEAST_OF_A_GUESS: f64 = 0.01;
/// A freeze longer than this is taken for a time without work.
const IDLE: Duration = Duration::from_secs(1);
/// Answers over which an environment's own rate is measured.
const ANSWERS_KEPT: usize = 32;
/// Calls that one environment opens at once, at most, however long a batch is: each has a socket, and a Lambda function
/// has 1,024 file descriptors ("Lambda quotas").
const OPEN_CALLS_MAX: u32 = 256;
/// Limits are taken to be of a minute unless they take this much longer than one to be full again.
const LONG_WINDOW: f64 = 1.5;

/// Shared by all records of an environment, across invocations.
#[derive(Debug)]
pub struct FlowControl {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    open: usize,
    open_limit: f64,
    open_limit_max: f64,
    last_decrease: Option<Instant>,
    hold_until: Option<Instant>,
    last_start: Option<Instant>,
    /// When the last calls were answered.
    answers: VecDeque<Instant>,
    pace: Pace,
    mean_ms: f64,
    deviation_ms: f64,
    seen_call: bool,
}

/// Calls per minute, as a share of the provider's limit.
#[derive(Debug)]
struct Pace {
    /// Environments that share the limit.
    sharers: f64,
    requests_per_minute: f64,
    tokens_per_minute: f64,
    mean_tokens: f64,
    /// This environment's pace in fair shares.
    factor: f64,
    steered: bool,
    was_refused: bool,
    /// Nobody told the limit: it is what was answered until the first refusal.
    learned: bool,
}

/// The answer to: may I call?
#[derive(Debug)]
pub enum Admission<'a> {
    /// Now; the call counts as open until the permit is dropped.
    Granted(Permit<'a>),
    /// Not early enough to finish before the deadline.
    NotInTime {
        /// When it could have been.
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
        let mut state = self.flow.lock();
        state.open = state.open.saturating_sub(1);
        drop(state);
        self.flow.changed.notify_waiters();
    }
}

impl FlowControl {
    /// The flow control of a fresh environment.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let open_limit_max = f64::from(limits.batch_size.clamp(1, OPEN_CALLS_MAX));
        Self {
            state: Mutex::new(State {
                open: 0,
                open_limit: open_limit_max,
                open_limit_max,
                last_decrease: None,
                hold_until: None,
                last_start: None,
                answers: VecDeque::new(),
                pace: Pace {
                    sharers: f64::from(limits.concurrency_max.max(1)),
                    requests_per_minute: limits.requests_per_minute as f64,
                    tokens_per_minute: limits.tokens_per_minute as f64,
                    mean_tokens: 0.0,
                    factor: 1.0,
                    steered: false,
                    was_refused: false,
                    learned: false,
                },
                mean_ms: (limits.call_timeout_ms / USUAL_SHARE_OF_TIMEOUT) as f64,
                deviation_ms: 0.0,
                seen_call: false,
            }),
            changed: Notify::new(),
        }
    }

    /// What a call usually takes here: the mean and twice the mean deviation of the last ones.
    #[must_use]
    pub fn usual_call_ms(&self) -> u64 {
        self.lock().usual_ms()
    }

    /// Waits until a call may start, if it can then still end before the deadline.
    pub async fn admit(&self, deadline: Instant) -> Admission<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before the state is read, so that no change in between is missed.
            changed.as_mut().enable();
            let now = Instant::now();
            let wait_until = {
                let mut state = self.lock();
                let latest = deadline - Duration::from_millis(state.usual_ms().min(ms(deadline, now)));
                match state.start_at(now) {
                    Some(at) if at <= now => {
                        state.open += 1;
                        state.last_start = Some(now);
                        return Admission::Granted(Permit { flow: self });
                    }
                    Some(at) if at > latest => return Admission::NotInTime { at_least_ms: ms(at, now) },
                    Some(at) => at,
                    None if now >= latest => return Admission::NotInTime { at_least_ms: 0 },
                    None => latest,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(wait_until) => {}
                () = changed => {}
            }
        }
    }

    /// A call was answered.
    pub fn answered(&self, took_ms: u64, tokens: u64, headroom: &Headroom) {
        let mut state = self.lock();
        state.took(took_ms);
        state.answers.truncate(ANSWERS_KEPT - 1);
        state.answers.push_front(Instant::now());
        state.open_limit = (state.open_limit + 1.0 / state.open_limit).min(state.open_limit_max);
        state.pace.answered(tokens);
        state.pace.steer(headroom);
        drop(state);
        self.changed.notify_waiters();
    }

    /// A call was not answered, and its job waits for `wait_ms`: so do all others.
    pub fn failed(&self, class: FailureClass, wait_ms: u64, headroom: &Headroom) {
        if class != FailureClass::Capacity {
            return;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let hold_until = now + Duration::from_millis(wait_ms);
        state.hold_until = Some(state.hold_until.map_or(hold_until, |until| until.max(hold_until)));
        // Calls that were opened together are refused together: that is one signal.
        let one_call = Duration::from_millis(state.usual_ms());
        if state.last_decrease.is_none_or(|at| now.duration_since(at) >= one_call) {
            state.last_decrease = Some(now);
            state.open_limit = (state.open_limit / 2.0).max(1.0);
            let own_per_minute = state.own_per_minute(now);
            state.pace.refused(own_per_minute);
        }
        state.pace.steer(headroom);
    }

    /// Lambda froze the process for this long, which its monotonic clock has not seen.
    pub fn skip(&self, frozen: Duration) {
        let mut state = self.lock();
        let State { hold_until, last_start, last_decrease, .. } = &mut *state;
        for moment in [hold_until, last_start, last_decrease] {
            *moment = moment.and_then(|moment| moment.checked_sub(frozen));
        }
        // A rate is of the time in which there was work; what is shorter is between two batches.
        if frozen > IDLE {
            state.answers.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When the next call may start; `None`: when an open one has ended.
    fn start_at(&self, now: Instant) -> Option<Instant> {
        let free = (self.open as f64) + 1.0 <= self.open_limit;
        // By the pace of now, not of when the last call started: what is said meanwhile counts at once.
        let next_start = self.last_start.zip(self.pace.interval()).map(|(last, interval)| last + interval);
        free.then(|| [self.hold_until, next_start].into_iter().flatten().fold(now, Instant::max))
    }

    /// The rate at which this environment's last calls were answered.
    fn own_per_minute(&self, now: Instant) -> Option<f64> {
        let seconds = now.saturating_duration_since(*self.answers.back()?).as_secs_f64();
        (seconds > 0.0).then(|| self.answers.len() as f64 * 60.0 / seconds)
    }

    fn usual_ms(&self) -> u64 {
        (self.mean_ms + 2.0 * self.deviation_ms) as u64
    }

    fn took(&mut self, took_ms: u64) {
        let took_ms = took_ms as f64;
        if self.seen_call {
            let error = (took_ms - self.mean_ms).abs();
            self.deviation_ms += NEWEST_WEIGHT * (error - self.deviation_ms);
            self.mean_ms += NEWEST_WEIGHT * (took_ms - self.mean_ms);
        } else {
            self.seen_call = true;
            self.mean_ms = took_ms;
            self.deviation_ms = took_ms / 2.0;
        }
    }
}

impl Pace {
    /// Between two starts; `None`: no limit is known.
    fn interval(&self) -> Option<Duration> {
        let by_requests = (self.requests_per_minute > 0.0).then_some(self.requests_per_minute);
        let by_tokens = (self.tokens_per_minute > 0.0 && self.mean_tokens > 0.0)
            .then(|| self.tokens_per_minute / self.mean_tokens);
        let limit = match (by_requests, by_tokens) {
            (Some(a), Some(b)) => a.min(b),
            (a, b) => a.or(b)?,
        };
        let per_minute = limit / self.sharers * self.factor;
        Some(Duration::from_secs_f64((60.0 / per_minute).min(60.0)))
    }

    fn answered(&mut self, tokens: u64) {
        let tokens = tokens as f64;
        self.mean_tokens = if self.mean_tokens == 0.0 {
            tokens
        } else {
            self.mean_tokens + NEWEST_WEIGHT * (tokens - self.mean_tokens)
        };
        if !self.steered {
            let step = if self.was_refused { PACE_STEP_AFTER_REFUSAL } else { PACE_STEP };
            self.factor = (self.factor + step).min(self.sharers);
        }
    }

    /// A refusal shows where the limit is: where nobody told it, at the rate that had been answered until then.
    fn refused(&mut self, own_per_minute: Option<f64>) {
        if let (None, Some(own)) = (self.interval(), own_per_minute) {
            self.requests_per_minute = own * self.sharers;
            self.factor = 1.0;
            self.learned = true;
        }
        self.was_refused = true;
        if !self.steered {
            // What was learned is a guess, and may be far too high.
            let least = if self.learned { LEAST_OF_A_GUESS } else { 1.0 / self.sharers };
            self.factor = (self.factor * PACE_AFTER_REFUSAL).max(least);
        }
    }

    /// All environments see the same remainder, so it can steer them together: at half of the limit each takes its fair
    /// share, at a full one each takes everything (it must be alone), at an empty one next to nothing. In between the
    /// pace is exponential, so that any number of environments settles where their sum is the limit.
    fn steer(&mut self, headroom: &Headroom) {
        let share = |window: &Window| match (window.remaining, window.limit) {
            (Some(remaining), Some(limit)) if limit > 0 => Some(remaining as f64 / limit as f64),
            _ => None,
        };
        if let Some(limit) = per_minute(&headroom.requests) {
            self.requests_per_minute = limit;
            self.learned = false;
        }
        if let Some(limit) = per_minute(&headroom.tokens) {
            self.tokens_per_minute = limit;
        }
        let tightest =
            [share(&headroom.requests), share(&headroom.tokens)].into_iter().flatten().reduce(f64::min);
        if let Some(left) = tightest {
            self.steered = true;
            self.factor = (STEER_MARGIN * self.sharers).powf(2.0 * left.clamp(0.0, 1.0) - 1.0);
        }
    }
}

/// What a limit allows in a minute. One of an hour or a day shows by how long it takes to be full again.
fn per_minute(window: &Window) -> Option<f64> {
    let limit = window.limit? as f64;
    let minutes = match (window.remaining, window.reset_ms) {
        (Some(remaining), Some(reset_ms)) if (remaining as f64) < limit => {
            reset_ms as f64 / 60_000.0 * limit / (limit - remaining as f64)
        }
        _ => 1.0,
    };
    // Resets are rounded to seconds, so that little used windows of a minute look longer than they are.
    let is_long = window.reset_ms.is_some_and(|ms| ms as f64 > LONG_WINDOW * 60_000.0);
    Some(if is_long { limit / minutes } else { limit })
}

fn ms(later: Instant, earlier: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
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

    async fn admitted(flow: &FlowControl, deadline: Instant) -> Permit<'_> {
        match flow.admit(deadline).await {
            Admission::Granted(permit) => permit,
            Admission::NotInTime { at_least_ms } => panic!("not in time: {at_least_ms}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_refusal_makes_every_neighbour_wait_and_halves_what_is_open() {
        let flow = FlowControl::new(&limits(4, 0));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        let first = admitted(&flow, deadline).await;
        flow.failed(FailureClass::Capacity, 5_000, &Headroom::default());
        drop(first);
        let _a = admitted(&flow, deadline).await;
        assert_eq!(ms(Instant::now(), start), 5_000);
        let _b = admitted(&flow, deadline).await;
        assert_eq!(ms(Instant::now(), start), 5_000);
        assert!(matches!(flow.admit(start + Duration::from_secs(20)).await, Admission::NotInTime { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_deadline_is_told_at_once() {
        let flow = FlowControl::new(&limits(4, 0));
        let start = Instant::now();
        flow.failed(FailureClass::Capacity, 60_000, &Headroom::default());
        match flow.admit(start + Duration::from_secs(30)).await {
            Admission::NotInTime { at_least_ms } => assert_eq!(at_least_ms, 60_000),
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
            flow.failed(class, 5_000, &Headroom::default());
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
    async fn where_no_limit_is_known_the_first_refusal_shows_it() {
        let flow = FlowControl::new(&Limits { concurrency_max: 10, ..limits(10, 0) });
        let interval_ms = || flow.lock().pace.interval().map(|interval| interval.as_millis());
        for _ in 0..12 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            flow.answered(500, 1, &Headroom::default());
        }
        assert_eq!(interval_ms(), None, "nobody has refused yet");
        tokio::time::sleep(Duration::from_millis(500)).await;
        flow.failed(FailureClass::Capacity, 0, &Headroom::default());
        assert_eq!(interval_ms(), Some(714), "seven tenths of two a second");
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            flow.failed(FailureClass::Capacity, 0, &Headroom::default());
        }
        assert_eq!(interval_ms(), Some(50_000), "a hundredth of two a second");
        // What the provider says later counts more.
        flow.answered(500, 1, &left(30));
        assert_eq!(interval_ms(), Some(10_000), "a tenth of one a second");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_of_the_time_in_which_there_was_work() {
        for (frozen_ms, expected_ms) in [(10, Some(714)), (600_000, None)] {
            let flow = FlowControl::new(&limits(10, 0));
            for _ in 0..12 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                flow.answered(500, 1, &Headroom::default());
            }
            flow.skip(Duration::from_millis(frozen_ms));
            tokio::time::sleep(Duration::from_millis(500)).await;
            flow.failed(FailureClass::Capacity, 0, &Headroom::default());
            let interval_ms = flow.lock().pace.interval().map(|interval| interval.as_millis());
            assert_eq!(interval_ms, expected_ms, "frozen for {frozen_ms} ms");
        }
    }

    #[test]
    fn a_limit_of_a_day_is_paced_as_one() {
        let day_ms = 24 * 3_600_000;
        for (limit, remaining, reset_ms, minute) in [
            (1_440, Some(0), Some(day_ms), 1.0),
            (1_440, Some(720), Some(day_ms / 2), 1.0),
            (600, Some(300), Some(30 * 60_000), 10.0),
            (600, Some(0), Some(60_000), 600.0),
            (600, Some(599), Some(1_000), 600.0),
            (600, Some(600), Some(day_ms), 600.0),
            (600, Some(300), None, 600.0),
            (600, None, Some(day_ms), 600.0),
        ] {
            let window = Window { limit: Some(limit), remaining, reset_ms };
            let found = per_minute(&window).unwrap();
            assert!((found - minute).abs() < 1e-9, "{window:?}: {found}");
        }
        assert_eq!(per_minute(&Window::default()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_goes_on_while_the_process_is_frozen() {
        let flow = FlowControl::new(&limits(4, 1));
        let start = Instant::now();
        let deadline = start + Duration::from_secs(100);
        drop(admitted(&flow, deadline).await);
        flow.failed(FailureClass::Capacity, 600_000, &Headroom::default());
        assert!(matches!(flow.admit(deadline).await, Admission::NotInTime { at_least_ms: 600_000 }));
        flow.skip(Duration::from_secs(590));
        drop(admitted(&flow, deadline).await);
        assert_eq!(ms(Instant::now(), start), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_batch_does_not_open_a_socket_for_each_record() {
        let flow = FlowControl::new(&limits(10_000, 0));
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut permits = Vec::new();
        while let Admission::Granted(permit) = flow.admit(deadline).await {
            permits.push(permit);
        }
        assert_eq!(permits.len(), OPEN_CALLS_MAX as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn without_headers_the_pace_probes_less_once_it_was_refused() {
        let flow = FlowControl::new(&Limits { concurrency_max: 10, ..limits(10, 600) });
        let factor = || flow.lock().pace.factor;
        flow.answered(100, 1, &Headroom::default());
        assert!((factor() - 1.02).abs() < 1e-9);
        flow.failed(FailureClass::Capacity, 0, &Headroom::default());
        assert!((factor() - 0.714).abs() < 1e-9);
        flow.answered(100, 1, &Headroom::default());
        assert!((factor() - 0.719).abs() < 1e-9);
    }
}
