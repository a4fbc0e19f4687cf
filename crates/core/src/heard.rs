//! What one environment tells of its calls, so that the sentinel sees an outage and a cap that leaves no room: nothing
//! while all is well.

use crate::model::ModelFailure;
use crate::retry::advised_wait_ms;
use crate::sentinel::Calls;

/// One environment tells no more often: a thousand of them write a hundred times a second, a tenth of what one key takes.
const TOLD_EVERY_MS: u64 = 10_000;
/// So many failures are told at once: calls that were opened together time out together.
const TOLD_AT_ONCE: u64 = 5;
/// So often within that time are failures told because no other call is open, and no later one may end within the minute.
const TOLD_LAST_MAX: u32 = 3;
/// Who is told to come back after so long does not call until then. Who is told an earlier time is seen to fail again, or to
/// be answered, while the sentinel still counts what was told before.
const LONG_WAIT_MS: u64 = 100_000;
const MINUTE_MS: u64 = 60_000;

/// The calls of one environment since it last told of them.
#[derive(Debug, Default)]
pub struct Heard {
    calls: Calls,
    minute: u64,
    told_ms: Option<u64>,
    /// How often something was told since then.
    told: u32,
    /// The last minute in which a call failed.
    failed_in: Option<u64>,
}

impl Heard {
    /// A call was answered. Only what is answered after failures is counted, in their minute and the next, which the sentinel
    /// reads together: what went before says nothing of them, and some answers take longer than a refusal.
    pub fn answered(&mut self, now_ms: u64) {
        self.at(now_ms);
        let after_failures = self.failed_in.is_some_and(|minute| self.minute <= minute.saturating_add(1));
        self.calls.answered += u64::from(after_failures);
    }

    /// A call that began then was not answered.
    pub fn failed(&mut self, failure: &ModelFailure, began_ms: u64, now_ms: u64) {
        self.at(now_ms);
        if !failure.is_sign_of_outage() {
            return;
        }
        self.calls.failed += 1;
        let first_ms = self.calls.failing_since_ms.map_or(began_ms, |since_ms| since_ms.min(began_ms));
        self.calls.failing_since_ms = Some(first_ms);
        let waits_ms = advised_wait_ms(&failure.advice, now_ms).filter(|ms| *ms >= LONG_WAIT_MS);
        let until_ms = now_ms.saturating_add(waits_ms.unwrap_or_default());
        self.calls.failing_until_ms = self.calls.failing_until_ms.max(Some(until_ms));
        self.failed_in = Some(self.minute);
    }

    /// The cap left no room for a call of this price.
    pub fn refused_by_cap(&mut self, micro_usd: u64, now_ms: u64) {
        self.at(now_ms);
        let cheapest = self.calls.refused_micro_usd.map_or(micro_usd, |other| other.min(micro_usd));
        self.calls.refused_micro_usd = Some(cheapest);
    }

    /// What is to be told now, and of which minute since 1970; it is told once. `is_last`: no other call is open.
    pub fn to_tell(&mut self, now_ms: u64, is_last: bool) -> Option<(u64, Calls)> {
        self.at(now_ms);
        let too_soon = self.told_ms.is_some_and(|at_ms| now_ms < at_ms.saturating_add(TOLD_EVERY_MS));
        if !too_soon {
            self.told = 0;
        }
        let is_well = self.calls == Calls::default();
        let ends_here = is_last && self.calls.failed > 0 && self.told < TOLD_LAST_MAX;
        let is_held = too_soon && self.calls.failed < TOLD_AT_ONCE && !ends_here;
        if is_well || is_held {
            return None;
        }
        if !too_soon {
            self.told_ms = Some(now_ms);
        }
        self.told += 1;
        Some((self.minute, std::mem::take(&mut self.calls)))
    }

    /// What nobody was told of an earlier minute is old.
    fn at(&mut self, now_ms: u64) {
        let minute = now_ms / MINUTE_MS;
        if minute != self.minute {
            (self.minute, self.calls) = (minute, Calls::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FailureClass, Headroom, RetryAdvice};

    fn failure(class: FailureClass, status: u16) -> ModelFailure {
        ModelFailure {
            class,
            status: Some(status),
            error_type: String::new(),
            message: String::new(),
            request_id: None,
            advice: RetryAdvice::default(),
            headroom: Headroom::default(),
            oversize: None,
        }
    }

    #[test]
    fn a_healthy_environment_tells_nothing_and_a_failing_one_every_ten_seconds() {
        let mut heard = Heard::default();
        let down = failure(FailureClass::Transient, 500);
        for ms in 0..30_000 {
            heard.answered(ms);
            assert_eq!(heard.to_tell(ms, false), None);
        }
        let calls = |answered, failed, (since_ms, until_ms)| Calls {
            answered,
            failed,
            failing_since_ms: Some(since_ms),
            failing_until_ms: Some(until_ms),
            refused_micro_usd: None,
        };
        for (seconds, until_ms) in [("99", 30_000), ("100", 130_000), ("300", 330_000)] {
            let advice = RetryAdvice { retry_after: Some(seconds.to_owned()), ..RetryAdvice::default() };
            let mut advised = Heard::default();
            advised.failed(&ModelFailure { advice, ..down.clone() }, 29_000, 30_000);
            assert_eq!(advised.to_tell(30_000, false), Some((0, calls(0, 1, (29_000, until_ms)))));
        }
        heard.failed(&down, 29_000, 30_000);
        assert_eq!(heard.to_tell(30_000, false), Some((0, calls(0, 1, (29_000, 30_000)))));
        for ms in [30_001, 39_998] {
            heard.failed(&down, ms - 5, ms);
            heard.answered(ms);
            assert_eq!(heard.to_tell(ms, false), None);
        }
        assert_eq!(heard.to_tell(40_000, false), Some((0, calls(2, 2, (29_996, 39_998)))));
        // Ten calls time out together: five are told at a time.
        let told = (0..10).filter_map(|_| {
            heard.failed(&down, 40_000, 45_000);
            heard.to_tell(45_000, false)
        });
        assert_eq!(told.map(|(_, calls)| calls.failed).collect::<Vec<_>>(), [5, 5]);
        // What was not told within its minute is told no more.
        heard.failed(&down, 50_000, 59_999);
        assert_eq!(heard.to_tell(60_000, false), None);
        for micro_usd in [7, 5, 6] {
            heard.refused_by_cap(micro_usd, 65_000);
        }
        assert_eq!(
            heard.to_tell(65_000, false),
            Some((1, Calls { refused_micro_usd: Some(5), ..Calls::default() }))
        );
    }

    #[test]
    fn what_fails_together_is_told_whole_and_alone_no_more_than_three_times_in_ten_seconds() {
        let down = failure(FailureClass::Transient, 500);
        let mut heard = Heard::default();
        let told = |heard: &mut Heard, open: u64, now_ms| {
            heard.failed(&down, now_ms, now_ms);
            heard.to_tell(now_ms, open == 0).map_or(0, |(_, calls)| calls.failed)
        };
        // Ten calls time out together after an idle hour.
        let together = (0..10).rev().map(|open| told(&mut heard, open, 3_600_000));
        assert_eq!(together.collect::<Vec<_>>(), [1, 0, 0, 0, 0, 5, 0, 0, 0, 4]);
        // One call at a time, each of which fails at once.
        let alone = (1..13).map(|s| told(&mut heard, 0, 3_600_000 + s * 1_000));
        assert_eq!(alone.collect::<Vec<_>>(), [0, 0, 0, 0, 5, 0, 0, 0, 0, 5, 1, 1]);
    }

    #[test]
    fn answers_that_come_later_than_the_failures_beside_them_are_told_too() {
        let mut heard = Heard::default();
        let down = failure(FailureClass::Transient, 500);
        for _ in 0..3 {
            heard.failed(&down, 0, 1_000);
        }
        assert_eq!(heard.to_tell(1_000, true).map(|(_, calls)| calls.failed), Some(3));
        let mut told = |now_ms| {
            heard.answered(now_ms);
            heard.to_tell(now_ms, true).map(|(minute, calls)| (minute, calls.answered, calls.failed))
        };
        assert_eq!([told(35_000), told(36_000), told(45_000)], [Some((0, 1, 0)), None, Some((0, 2, 0))]);
        // The next minute is read together with theirs, and no other.
        assert_eq!([told(70_000), told(120_000)], [Some((1, 1, 0)), None]);
    }

    #[test]
    fn the_first_refusal_of_a_minute_is_told_and_answers_beside_a_later_failure_are_counted() {
        let mut heard = Heard::default();
        heard.refused_by_cap(5, 60_000);
        assert_eq!(heard.to_tell(60_000, false).map(|(m, c)| (m, c.refused_micro_usd)), Some((1, Some(5))));
        let down = failure(FailureClass::Transient, 500);
        let mut heard = Heard::default();
        for now_ms in [1_000, 130_000] {
            heard.failed(&down, now_ms, now_ms);
            assert!(heard.to_tell(now_ms, true).is_some());
        }
        heard.answered(145_000);
        assert_eq!(heard.to_tell(145_000, true).map(|(m, c)| (m, c.answered)), Some((2, 1)));
    }

    #[test]
    fn a_limit_that_is_reached_and_a_job_that_is_refused_are_no_sign_of_an_outage() {
        use FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};
        for (class, status, expected) in [
            (Transient, 500, true),
            (Transient, 408, true),
            (Capacity, 529, true),
            (Capacity, 503, true),
            (Capacity, 429, false),
            (Account, 401, false),
            (Rejected, 400, false),
            (Unclear, 400, false),
            (Refused, 400, false),
        ] {
            assert_eq!(failure(class, status).is_sign_of_outage(), expected, "{class:?} {status}");
        }
    }
}
