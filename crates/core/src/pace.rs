//! How many calls one environment has open, and how fast it opens them.
//!
//! Three brakes, each for what a provider lets us see. One that refuses: a shared wait, a number of open calls that
//! adapts by additive increase and multiplicative decrease, and a pace that its own headers steer. One that queues, as
//! model servers of one's own do, says nothing: there, what is open falls with each call that times out, and grows the
//! less the longer calls take.
//!
//! A wait in a server's queue costs nothing, and a wait in SQS is no shorter, until a call times out in it. So calls are
//! not compared with the shortest of the last minutes, as the limits for interactive services do (TCP Vegas; "Performance
//! Under Load", Netflix): a long output beside short ones would look like a queue, and a provider that is slow for an
//! hour like one that is full. They are compared with the time that they have.
//!
//! Moments are durations since any one moment, on a clock that never goes back.

use std::collections::VecDeque;
use std::time::Duration;

use crate::control::Admits;
use crate::limits::Limits;
use crate::metric::HandBackCause;
use crate::model::{FailureClass, Headroom, ModelFailure, Window};

/// What a call is taken to last before one was seen: a quarter of its timeout.
const USUAL_SHARE_OF_TIMEOUT: u64 = 4;
/// Weight of the newest call in the running means.
const NEWEST_WEIGHT: f64 = 0.2;
/// The same where few calls are open.
const NEWEST_WEIGHT_OF_FEW: f64 = 0.5;
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
/// A freeze, or a time with no call open, that is longer than this is taken for a time without work.
const IDLE: Duration = Duration::from_secs(1);
/// Answers over which an environment's own rate is measured.
const ANSWERS_KEPT: usize = 32;
/// Calls that one environment opens at once, at most, however long a batch is: each has a socket, and a Lambda function
/// has 1,024 file descriptors ("Lambda quotas").
const OPEN_CALLS_MAX: u32 = 256;
/// The most that one answer adds to what is open.
const STEP_MAX: f64 = 0.25;
/// Less than one call open: one that is followed by a pause. Many environments can share a server with one slot then.
const OPEN_LIMIT_MIN: f64 = 0.125;
/// No pause is longer than this many timeouts of a call, so that the end of an outage is noticed, and a batch waits for
/// it instead of being handed back.
const PAUSE_TIMEOUTS_MAX: f64 = 2.0;
/// A start comes this share of an interval early or late. On the dot, an environment can meet the moment in which another
/// one has just taken what was free, each time again (Floyd and Jacobson, "On Traffic Phase Effects in Packet-Switched
/// Gateways").
const SPREAD: f64 = 0.1;
/// Limits are taken to be of a minute unless they take this much longer than one to be full again.
const LONG_WINDOW: f64 = 1.5;

/// The pace of one environment, across its invocations.
#[derive(Debug)]
pub struct Pace {
    open: usize,
    open_limit: f64,
    open_limit_max: f64,
    call_timeout_ms: f64,
    last_decrease: Option<Duration>,
    hold_until: Option<Duration>,
    /// What may be done here on the way back from a pause; its width is this environment's share.
    way: Admits,
    last_start: Option<Duration>,
    /// The share of an interval after which the next call may start.
    spread: f64,
    /// When the last calls were answered.
    answers: VecDeque<Duration>,
    rate: Rate,
    mean_ms: f64,
    deviation_ms: f64,
    seen_call: bool,
    /// What the last calls took, those that timed out included.
    recent_ms: f64,
}

/// How many calls one of so many environments may have open, where all of them together may have `width`: nobody knows how
/// many work now, so each takes its share, and of a part of a call as often as that part says. `fraction` in [0, 1).
#[must_use]
pub fn share_of_width(width: u32, environments: u32, fraction: f64) -> u32 {
    let environments = environments.max(1);
    let part = f64::from(width % environments) / f64::from(environments);
    width / environments + u32::from(fraction < part)
}

/// Calls per minute, as a share of the provider's limit.
#[derive(Debug)]
struct Rate {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There is room; it counts once it is said to have started.
    Now,
    /// Ask again then, or as soon as a call has ended.
    Wait {
        /// The moment.
        until: Duration,
    },
    /// Not early enough to finish before the deadline.
    NotInTime {
        /// As what the job is handed back.
        cause: HandBackCause,
        /// When it could have been, at which the provider has capacity; 0 where it is not for that.
        at_least_ms: u64,
    },
}

/// Others wait no longer than this for what one was told; then one of them asks. A provider may say a day where a minute is
/// meant ("Please retry after 86400 seconds", reported against Azure OpenAI's client for Java).
const HOLD_MS_MAX: u64 = 15 * 60_000;

impl Pace {
    /// The pace of a fresh environment.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let open_limit_max = f64::from(limits.batch_size.clamp(1, OPEN_CALLS_MAX));
        let usual_ms = (limits.call_timeout_ms / USUAL_SHARE_OF_TIMEOUT) as f64;
        Self {
            open: 0,
            open_limit: open_limit_max,
            open_limit_max,
            call_timeout_ms: limits.call_timeout_ms.max(1) as f64,
            last_decrease: None,
            hold_until: None,
            way: Admits::All,
            last_start: None,
            spread: 1.0,
            answers: VecDeque::new(),
            rate: Rate {
                sharers: f64::from(limits.concurrency_max.max(1)),
                requests_per_minute: limits.requests_per_minute as f64,
                tokens_per_minute: limits.tokens_per_minute as f64,
                mean_tokens: 0.0,
                factor: 1.0,
                steered: false,
                was_refused: false,
                learned: false,
            },
            mean_ms: usual_ms,
            deviation_ms: 0.0,
            seen_call: false,
            recent_ms: usual_ms,
        }
    }

    /// What a call usually takes here: the mean and twice the mean deviation of the last ones.
    #[must_use]
    pub fn usual_call_ms(&self) -> u64 {
        (self.mean_ms + 2.0 * self.deviation_ms) as u64
    }

    /// Whether a call may start now, if it can then still end before the deadline.
    #[must_use]
    pub fn may_start(&self, now: Duration, deadline: Duration) -> Start {
        let out_of_turn = match self.way {
            // Whoever waited for a turn would wait in vain.
            Admits::Nothing(cause) => return Start::NotInTime { cause, at_least_ms: 0 },
            Admits::Width(_, cause) => cause,
            Admits::All => HandBackCause::Deadline,
        };
        let left_ms = ms(deadline.saturating_sub(now));
        let latest = deadline.saturating_sub(Duration::from_millis(self.usual_call_ms().min(left_ms)));
        let told = self.start_at(now);
        // A pause is waited for even where it is too long: handed back at once, a whole queue would be received in vain.
        let own = told.map(|at| at.max(self.pause_ends(now)));
        match (told, own) {
            (Some(told), _) if told > latest => {
                let at_least_ms = ms(told.saturating_sub(now));
                let cause = if at_least_ms > 0 { HandBackCause::Capacity } else { out_of_turn };
                Start::NotInTime { cause, at_least_ms }
            }
            (_, Some(at)) if at <= now => Start::Now,
            (_, Some(at)) if at <= latest => Start::Wait { until: at },
            _ if now < latest => Start::Wait { until: latest },
            _ => Start::NotInTime { cause: out_of_turn, at_least_ms: 0 },
        }
    }

    /// A call starts. `fraction`, drawn from [0, 1) where a limit is known, says when the next one may.
    pub fn started(&mut self, now: Duration, fraction: impl FnOnce() -> f64) {
        // Lambda does not freeze between two batches everywhere, and what was little asked for is no limit.
        if self.open == 0 && self.answers.front().is_some_and(|last| now.saturating_sub(*last) > IDLE) {
            self.answers.clear();
        }
        self.open += 1;
        self.last_start = Some(now);
        if self.rate.interval().is_some() {
            self.spread = 1.0 + SPREAD * (2.0 * fraction() - 1.0);
        }
    }

    /// Whether no call is open.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// A call has ended, however.
    pub fn ended(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// A call was answered.
    pub fn answered(&mut self, now: Duration, took_ms: u64, tokens: u64, headroom: &Headroom) {
        self.took(took_ms as f64);
        self.answers.truncate(ANSWERS_KEPT - 1);
        self.answers.push_front(now);
        // One more for each round of calls; a quarter of one for each call where few are open, since one more of two
        // makes a queue half as long again; and below a quarter, twice as much.
        let step = (1.0 / self.open_limit).min(STEP_MAX).min(self.open_limit);
        self.open_limit = (self.open_limit + self.growth() * step).min(self.open_limit_max);
        self.rate.answered(tokens);
        self.rate.steer(headroom);
    }

    /// A call was not answered, and its job waits for `wait_ms`.
    pub fn failed(&mut self, now: Duration, failure: &ModelFailure, took_ms: u64, wait_ms: u64) {
        if failure.is_timeout() {
            self.took_in_vain(took_ms as f64);
        }
        if failure.class == FailureClass::Capacity {
            self.refused(now, wait_ms, &failure.headroom);
        }
    }

    /// What may be done, whatever else allows more; of a width, this environment's share.
    pub fn narrow(&mut self, way: Admits) {
        self.way = way;
    }

    /// Lambda froze the process for this long, which its monotonic clock has not seen.
    pub fn skip(&mut self, frozen: Duration) {
        let Self { hold_until, last_start, last_decrease, .. } = self;
        for moment in [hold_until, last_start, last_decrease] {
            *moment = moment.and_then(|moment| moment.checked_sub(frozen));
        }
        // A rate is of the time in which there was work; what is shorter is between two batches.
        if frozen > IDLE {
            self.answers.clear();
        }
    }

    /// All others wait too.
    fn refused(&mut self, now: Duration, wait_ms: u64, headroom: &Headroom) {
        let hold_until = now.saturating_add(Duration::from_millis(wait_ms.min(HOLD_MS_MAX)));
        self.hold_until = Some(self.hold_until.map_or(hold_until, |until| until.max(hold_until)));
        // Calls that were opened together are refused together: that is one signal.
        let one_call = Duration::from_millis(self.usual_call_ms());
        if self.last_decrease.is_none_or(|at| now.saturating_sub(at) >= one_call) {
            self.last_decrease = Some(now);
            // Below one is for servers that queue: one that refuses says itself how long to wait.
            self.open_limit = (self.open_limit / 2.0).max(self.open_limit.min(1.0));
            let own_per_minute = self.own_per_minute(now);
            self.rate.refused(own_per_minute);
        }
        self.rate.steer(headroom);
    }

    /// What timed out should not have been open: it was one too many, or half of one.
    fn took_in_vain(&mut self, took_ms: f64) {
        self.recent_ms += self.newest_weight() * (took_ms - self.recent_ms);
        self.open_limit = (self.open_limit - 1.0).max(self.open_limit / 2.0).max(OPEN_LIMIT_MIN);
    }

    /// The share of a full step by which what is open grows: all while calls take less than half of their time, and less
    /// and less towards the end of it. A single call that timed out is then made up for at once where calls are short,
    /// and is a warning where they are not.
    fn growth(&self) -> f64 {
        (2.0 - 2.0 * self.recent_ms / self.call_timeout_ms).clamp(0.0, 1.0).powi(3)
    }

    /// What was a round of calls ago is old: where few are open, the last two or three answers are what is known.
    fn newest_weight(&self) -> f64 {
        (1.0 / self.open_limit).clamp(NEWEST_WEIGHT, NEWEST_WEIGHT_OF_FEW)
    }

    /// When the next call may start; `None`: when an open one has ended.
    fn start_at(&self, now: Duration) -> Option<Duration> {
        let in_width = match self.way {
            Admits::All => true,
            Admits::Width(share, _) => self.open < share as usize,
            Admits::Nothing(_) => false,
        };
        let free = in_width && (self.open as f64) + 1.0 <= self.open_limit.max(1.0);
        // By the pace of now, not of when the last call started: what is said meanwhile counts at once.
        let next_start = self
            .last_start
            .zip(self.rate.interval())
            .map(|(last, interval)| last + interval.mul_f64(self.spread));
        free.then(|| [self.hold_until, next_start].into_iter().flatten().fold(now, Duration::max))
    }

    /// Until when nothing starts where not even one call may always be open.
    fn pause_ends(&self, now: Duration) -> Duration {
        let pause_ms = (self.recent_ms / self.open_limit).min(PAUSE_TIMEOUTS_MAX * self.call_timeout_ms);
        match self.last_start {
            Some(last) if self.open_limit < 1.0 => last + Duration::from_millis(pause_ms as u64),
            _ => now,
        }
    }

    /// The rate at which this environment's last calls were answered.
    fn own_per_minute(&self, now: Duration) -> Option<f64> {
        let seconds = now.saturating_sub(*self.answers.back()?).as_secs_f64();
        (seconds > 0.0).then(|| self.answers.len() as f64 * 60.0 / seconds)
    }

    fn took(&mut self, took_ms: f64) {
        if self.seen_call {
            let error = (took_ms - self.mean_ms).abs();
            self.deviation_ms += NEWEST_WEIGHT * (error - self.deviation_ms);
            self.mean_ms += NEWEST_WEIGHT * (took_ms - self.mean_ms);
        } else {
            self.seen_call = true;
            self.mean_ms = took_ms;
            self.deviation_ms = took_ms / 2.0;
        }
        self.recent_ms += self.newest_weight() * (took_ms - self.recent_ms);
    }
}

impl Rate {
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

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RetryAdvice, TIMEOUT};
    use crate::split_mix::SplitMix64;

    fn limits(batch_size: u32, requests_per_minute: u64) -> Limits {
        Limits {
            batch_size,
            requests_per_minute,
            concurrency_max: 1,
            call_timeout_ms: 4_000,
            ..Limits::default()
        }
    }

    fn failure(class: FailureClass, error_type: &str, status: Option<u16>) -> ModelFailure {
        ModelFailure {
            class,
            status,
            error_type: error_type.to_owned(),
            message: String::new(),
            request_id: None,
            advice: RetryAdvice::default(),
            headroom: Headroom::default(),
            oversize: None,
        }
    }

    fn refusal() -> ModelFailure {
        failure(FailureClass::Capacity, "rate_limit_error", Some(429))
    }

    fn timeout() -> ModelFailure {
        failure(FailureClass::Transient, TIMEOUT, None)
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn left(remaining: u64) -> Headroom {
        let requests = Window { limit: Some(60), remaining: Some(remaining), reset_ms: None };
        Headroom { requests, tokens: Window::default() }
    }

    fn interval_ms(pace: &Pace) -> Option<u128> {
        pace.rate.interval().map(|interval| interval.as_millis())
    }

    /// Starts what may start now; returns how many.
    fn start_all(pace: &mut Pace, now: Duration) -> usize {
        let mut started = 0;
        while pace.may_start(now, now + at(1_000_000)) == Start::Now {
            pace.started(now, || 0.5);
            started += 1;
        }
        started
    }

    #[test]
    fn what_timed_out_is_not_opened_again_and_below_one_there_are_pauses() {
        for (timeouts, open, pause_ms) in [
            (0, 10, None),
            (1, 9, None),
            (7, 3, None),
            (9, 1, None),
            (10, 1, Some(5_868)),
            // Never longer than twice the timeout.
            (11, 1, Some(8_000)),
            (1_000, 1, Some(8_000)),
        ] {
            let mut pace = Pace::new(&limits(10, 0));
            for _ in 0..timeouts {
                pace.failed(at(0), &timeout(), 3_000, 0);
            }
            assert_eq!(start_all(&mut pace, at(0)), open, "{timeouts} timeouts");
            pace.ended();
            let next = pace.may_start(at(0), at(1_000_000));
            let expected = pause_ms.map_or(Start::Now, |ms| Start::Wait { until: at(ms) });
            assert_eq!(next, expected, "{timeouts} timeouts");
        }
    }

    #[test]
    fn the_longest_wait_that_was_told_holds_and_what_cannot_end_in_time_after_it_is_not_begun() {
        let mut pace = Pace::new(&limits(10, 0));
        pace.failed(at(0), &refusal(), 100, 8_000);
        pace.failed(at(10), &refusal(), 100, 500);
        let usual_ms = pace.usual_call_ms();
        for (deadline_ms, expected) in [
            (1_000_000, Start::Wait { until: at(8_000) }),
            (8_000 + usual_ms, Start::Wait { until: at(8_000) }),
            (7_999 + usual_ms, Start::NotInTime { cause: HandBackCause::Capacity, at_least_ms: 7_980 }),
        ] {
            assert_eq!(pace.may_start(at(20), at(deadline_ms)), expected, "until {deadline_ms}");
        }
    }

    #[test]
    fn what_one_was_told_holds_all_others_for_a_quarter_of_an_hour_at_most() {
        let quarter_ms = 15 * 60_000;
        for (told_ms, held_ms) in
            [(quarter_ms - 1, quarter_ms - 1), (quarter_ms, quarter_ms), (86_400_000, quarter_ms)]
        {
            let mut pace = Pace::new(&limits(10, 0));
            pace.failed(at(0), &refusal(), 100, told_ms);
            assert_eq!(
                pace.may_start(at(20), at(100_000_000)),
                Start::Wait { until: at(held_ms) },
                "{told_ms}"
            );
        }
    }

    #[test]
    fn where_all_is_open_it_is_waited_until_a_call_could_not_end_in_time_any_more() {
        let mut pace = Pace::new(&limits(10, 0));
        assert_eq!(start_all(&mut pace, at(20)), 10);
        let latest_ms = 20 + pace.usual_call_ms();
        for (deadline_ms, expected) in [
            (latest_ms + 5, Start::Wait { until: at(25) }),
            (latest_ms, Start::NotInTime { cause: HandBackCause::Deadline, at_least_ms: 0 }),
        ] {
            assert_eq!(pace.may_start(at(20), at(deadline_ms)), expected, "until {deadline_ms}");
        }
    }

    #[test]
    fn on_a_narrow_way_no_more_calls_are_open_than_its_share() {
        for (way, open) in [
            (Admits::All, 10),
            (Admits::Width(2, HandBackCause::Account), 2),
            (Admits::Width(0, HandBackCause::Account), 0),
            (Admits::Nothing(HandBackCause::Account), 0),
        ] {
            let mut pace = Pace::new(&limits(10, 0));
            pace.narrow(way);
            assert_eq!(start_all(&mut pace, at(0)), open, "{way:?}");
        }
    }

    #[test]
    fn what_a_call_usually_takes_follows_the_last_ones_and_how_they_differ() {
        for (calls, usual_ms) in [
            (&[1_000][..], 2_000),
            (&[1_000, 1_000], 1_800),
            (&[1_000, 2_000], 2_400),
            (&[1_000, 500], 1_900),
        ] {
            let mut pace = Pace::new(&limits(10, 0));
            for took_ms in calls {
                pace.answered(at(0), *took_ms, 1, &Headroom::default());
            }
            assert_eq!(pace.usual_call_ms(), usual_ms, "{calls:?}");
        }
    }

    #[test]
    fn of_a_width_each_environment_takes_its_share_and_a_part_of_a_call_as_often_as_it_says() {
        for (width, environments, fraction, share) in [
            (0, 10, 0.0, 0),
            (3, 10, 0.29, 1),
            (3, 10, 0.3, 0),
            (10, 10, 0.0, 1),
            (25, 10, 0.49, 3),
            (25, 10, 0.5, 2),
            (7, 1, 0.0, 7),
            (7, 0, 0.99, 7),
        ] {
            assert_eq!(
                share_of_width(width, environments, fraction),
                share,
                "{width} {environments} {fraction}"
            );
        }
    }

    #[test]
    fn what_is_open_grows_by_one_a_round_and_the_less_the_longer_calls_take() {
        for (took_ms, rounds, open) in [
            (100, 12, 8),
            (100, 100, 10),
            (2_000, 12, 8),
            // Three quarters of the time: an eighth of a call a round.
            (3_000, 36, 2),
            // Nothing grows where the next call would time out.
            (4_000, 100, 1),
        ] {
            let mut pace = Pace::new(&limits(10, 0));
            pace.open_limit = 1.0;
            pace.recent_ms = took_ms as f64;
            for _ in 0..rounds {
                let open = start_all(&mut pace, at(0));
                for _ in 0..open {
                    pace.ended();
                    pace.answered(at(0), took_ms, 1, &Headroom::default());
                }
            }
            assert_eq!(start_all(&mut pace, at(0)), open, "{rounds} rounds of {took_ms} ms");
        }
    }

    #[test]
    fn after_an_outage_without_a_word_all_calls_are_open_again_within_minutes() {
        let mut pace = Pace::new(&Limits::default());
        for _ in 0..100 {
            pace.failed(at(0), &timeout(), 120_000, 0);
        }
        let mut now = at(0);
        for _ in 0..60 {
            if let Start::Wait { until } = pace.may_start(now, now + at(1_000_000)) {
                now = until;
            }
            start_all(&mut pace, now);
            now += at(5_000);
            while pace.open > 0 {
                pace.ended();
                pace.answered(now, 5_000, 1, &Headroom::default());
            }
        }
        assert_eq!(start_all(&mut pace, now), 10);
        assert!(now < at(30 * 60_000), "{now:?}");
    }

    #[test]
    fn only_what_nobody_answered_in_time_is_a_timeout() {
        for (error_type, status, expected) in [
            (TIMEOUT, None, true),
            (TIMEOUT, Some(200), true),
            ("request_timeout", Some(408), true),
            ("api_error", Some(504), true),
            ("api_error", Some(524), true),
            ("api_error", Some(500), false),
            ("reset", None, false),
            ("connect_timeout", None, false),
        ] {
            let failure = failure(FailureClass::Transient, error_type, status);
            assert_eq!(failure.is_timeout(), expected, "{failure}");
            let mut pace = Pace::new(&limits(10, 0));
            pace.failed(at(0), &failure, 3_000, 0);
            assert_eq!(start_all(&mut pace, at(0)), if expected { 9 } else { 10 }, "{failure}");
        }
    }

    #[test]
    fn refusals_take_what_is_open_down_to_one_and_no_further() {
        let mut pace = Pace::new(&limits(10, 0));
        pace.answered(at(0), 10, 1, &Headroom::default());
        for n in 1..20 {
            pace.failed(at(n * 1_000), &refusal(), 50, 0);
        }
        assert!((pace.open_limit - 1.0).abs() < 1e-9);
        for _ in 0..10 {
            pace.failed(at(30_000), &timeout(), 3_000, 0);
        }
        let after_timeouts = pace.open_limit;
        assert!(after_timeouts < 1.0);
        // A refusal does not give back what timeouts have taken.
        pace.failed(at(60_000), &refusal(), 50, 0);
        assert!((pace.open_limit - after_timeouts).abs() < 1e-9);
    }

    #[test]
    fn what_was_opened_together_and_refused_together_is_one_signal() {
        let mut pace = Pace::new(&limits(16, 0));
        pace.answered(at(0), 100, 1, &Headroom::default());
        let one_call_ms = pace.usual_call_ms();
        for (now_ms, open) in
            [(0, 8.0), (0, 8.0), (one_call_ms - 1, 8.0), (one_call_ms, 4.0), (one_call_ms + 1, 4.0)]
        {
            pace.failed(at(1_000 + now_ms), &refusal(), 50, 0);
            assert!((pace.open_limit - open).abs() < 1e-9, "{} at {now_ms} ms", pace.open_limit);
        }
    }

    /// One environment that takes all of a limit, and one that is refused and asks a quarter as often: how often the second
    /// is answered in twenty minutes.
    fn answered_beside_a_greedy_neighbour(mut fraction: impl FnMut() -> f64) -> usize {
        let told = Limits { concurrency_max: 2, ..limits(10, 30) };
        let (mut greedy, mut modest) = (Pace::new(&told), Pace::new(&told));
        (greedy.rate.factor, modest.rate.factor) = (2.0, 0.5);
        let (mut free, mut answered) = (1.0_f64, 0);
        for ms in (0..1_200_000).step_by(20) {
            free = (free + 20.0 * 30.0 / 60_000.0).min(30.0);
            for (pace, is_modest) in [(&mut greedy, false), (&mut modest, true)] {
                if pace.may_start(at(ms), at(ms + 60_000)) != Start::Now {
                    continue;
                }
                pace.started(at(ms), &mut fraction);
                pace.ended();
                if free < 1.0 - 1e-6 {
                    pace.failed(at(ms), &refusal(), 50, 1_000);
                    continue;
                }
                free -= 1.0;
                pace.answered(at(ms), 50, 1, &Headroom::default());
                answered += usize::from(is_modest);
            }
        }
        answered
    }

    #[test]
    fn an_environment_is_not_shut_out_by_another_ones_rhythm() {
        let mut random = SplitMix64::new(1);
        let spread = answered_beside_a_greedy_neighbour(|| random.fraction());
        let on_the_dot = answered_beside_a_greedy_neighbour(|| 0.5);
        assert!(on_the_dot < 10, "on the dot {on_the_dot}, or there is nothing to spread for");
        assert!(spread > 100, "of about 600 answers the second got {spread}");
    }

    #[test]
    fn a_refusal_where_little_was_asked_for_shows_no_limit() {
        for (apart_ms, expected) in [(500, Some(714)), (1_500, Some(2_142)), (1_501, None), (30_000, None)] {
            let mut pace = Pace::new(&Limits { concurrency_max: 10, ..limits(10, 0) });
            let mut now = at(0);
            for _ in 0..20 {
                pace.started(now, || 0.5);
                pace.ended();
                pace.answered(now + at(500), 500, 1, &Headroom::default());
                now += at(apart_ms);
            }
            pace.started(now, || 0.5);
            pace.ended();
            pace.failed(now + at(500), &refusal(), 50, 0);
            assert_eq!(interval_ms(&pace), expected, "one job each {apart_ms} ms");
        }
    }

    #[test]
    fn where_no_limit_is_known_the_first_refusal_shows_it() {
        let mut pace = Pace::new(&Limits { concurrency_max: 10, ..limits(10, 0) });
        for n in 1..=12 {
            pace.answered(at(n * 500), 500, 1, &Headroom::default());
        }
        assert_eq!(interval_ms(&pace), None, "nobody has refused yet");
        pace.failed(at(6_500), &refusal(), 50, 0);
        assert_eq!(interval_ms(&pace), Some(714), "seven tenths of two a second");
        for n in 1..=20 {
            pace.failed(at(6_500 + n * 1_000), &refusal(), 50, 0);
        }
        assert_eq!(interval_ms(&pace), Some(50_000), "a hundredth of two a second");
        // What the provider says later counts more.
        pace.answered(at(27_000), 500, 1, &left(30));
        assert_eq!(interval_ms(&pace), Some(10_000), "a tenth of one a second");
    }

    #[test]
    fn a_rate_is_of_the_time_in_which_there_was_work() {
        for (frozen_ms, expected_ms) in [(10, Some(714)), (600_000, None)] {
            let mut pace = Pace::new(&limits(10, 0));
            for n in 1..=12 {
                pace.answered(at(n * 500), 500, 1, &Headroom::default());
            }
            pace.skip(at(frozen_ms));
            pace.failed(at(6_500), &refusal(), 50, 0);
            assert_eq!(interval_ms(&pace), expected_ms, "frozen for {frozen_ms} ms");
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
            // A minute that is rounded up to half a minute more.
            (600, Some(0), Some(90_000), 600.0),
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

    #[test]
    fn a_limit_of_tokens_is_paced_by_what_the_last_calls_took_and_the_tighter_limit_counts() {
        for (requests_per_minute, tokens_per_minute, calls, interval) in [
            (0, 60_000, &[][..], None),
            (0, 60_000, &[1_000], Some(1_000)),
            (0, 60_000, &[1_000, 2_000], Some(1_200)),
            (0, 0, &[1_000], None),
            (30, 60_000, &[1_000], Some(2_000)),
            (600, 60_000, &[1_000], Some(1_000)),
        ] {
            let mut pace = Pace::new(&Limits { tokens_per_minute, ..limits(10, requests_per_minute) });
            for tokens in calls {
                pace.answered(at(0), 100, *tokens, &Headroom::default());
            }
            assert_eq!(interval_ms(&pace), interval, "{requests_per_minute} {tokens_per_minute} {calls:?}");
        }
    }

    #[test]
    fn without_headers_the_pace_probes_less_once_it_was_refused() {
        let mut pace = Pace::new(&Limits { concurrency_max: 10, ..limits(10, 600) });
        let is = |pace: &Pace, factor: f64| assert!((pace.rate.factor - factor).abs() < 1e-9);
        pace.answered(at(0), 100, 1, &Headroom::default());
        is(&pace, 1.02);
        pace.failed(at(0), &refusal(), 50, 0);
        is(&pace, 0.714);
        pace.answered(at(0), 100, 1, &Headroom::default());
        is(&pace, 0.719);
    }

    #[test]
    fn what_no_call_fits_before_is_not_held_against_the_provider() {
        let pace = Pace::new(&limits(10, 0));
        let expected = Start::NotInTime { cause: HandBackCause::Deadline, at_least_ms: 0 };
        assert_eq!(pace.may_start(at(20), at(10)), expected, "the deadline is over");
    }

    #[test]
    fn a_pause_that_is_too_long_is_waited_for_only_until_a_call_could_not_end_in_time() {
        let mut pace = Pace::new(&limits(10, 0));
        for _ in 0..1_000 {
            pace.failed(at(0), &timeout(), 3_000, 0);
        }
        assert_eq!(start_all(&mut pace, at(0)), 1);
        pace.ended();
        let latest_ms = 1_000;
        let deadline = at(latest_ms + pace.usual_call_ms());
        assert_eq!(pace.may_start(at(0), deadline), Start::Wait { until: at(latest_ms) });
    }

    #[test]
    fn an_environment_is_idle_while_no_call_is_open() {
        let mut pace = Pace::new(&limits(10, 0));
        assert!(pace.is_idle());
        pace.started(at(0), || 0.5);
        assert!(!pace.is_idle());
        pace.ended();
        assert!(pace.is_idle());
    }

    #[test]
    fn an_answer_at_the_moment_of_the_refusal_shows_no_limit() {
        let mut pace = Pace::new(&limits(10, 0));
        pace.answered(at(5), 100, 1, &Headroom::default());
        pace.failed(at(5), &refusal(), 50, 0);
        assert_eq!(interval_ms(&pace), None);
    }

    #[test]
    fn environments_share_by_what_is_left_of_the_limit() {
        for (limit, remaining, factor) in [
            (60, 30, Some(1.0)),
            (60, 60, Some(STEER_MARGIN * 10.0)),
            (60, 0, Some(1.0 / (STEER_MARGIN * 10.0))),
            (60, 15, Some((STEER_MARGIN * 10.0).powf(-0.5))),
            (0, 0, None),
        ] {
            let mut pace = Pace::new(&Limits { concurrency_max: 10, ..limits(10, 600) });
            let before = pace.rate.factor;
            let requests = Window { limit: Some(limit), remaining: Some(remaining), reset_ms: None };
            pace.rate.steer(&Headroom { requests, tokens: Window::default() });
            let (found, expected) = (pace.rate.factor, factor.unwrap_or(before));
            assert!((found - expected).abs() < 1e-9, "{remaining} of {limit}: {found}, not {expected}");
        }
    }
}
