//! A load test: when each job is sent, what was measured, and whether that is good enough.
//!
//! The schedule is open: it does not wait for the stack, and a job's latency counts from when it was to be sent, so that a
//! stall of the stack, or of the test itself, is in the numbers.

mod alarms;
mod empty;
mod headroom;
mod limit;
mod measure;
mod steps;
mod strain;
mod verdict;

use std::fmt::Display;

use serde::Serialize;

pub use alarms::{ALARMS_AFTER_MS, AlarmLooks};
pub use empty::{Empty, EmptyLooks, may_be_of_a_test};
pub use headroom::{First, Headroom, How};
pub use limit::{Limit, Limited};
pub use measure::{Alarms, Cost, Measured, Observed, Outcomes, Percentiles, Point, Sample, measure};
pub use steps::{Above, Ended, Gave, Step, next, next_minute_ms};
pub use strain::{Finding, Holds, Thresholds};
pub use verdict::{Verdict, judge};

/// How every reference of a test's job begins: what has another one is somebody's.
pub const REFERENCE_PREFIX: &str = "nightshift-load-test/";

/// Groups of arrivals in a second, at most: a request for each job would be dear at high rates, and one for ten at low
/// rates would let the first of them wait for the last.
const GROUPS_PER_SECOND: f64 = 4.0;
/// Entries of one `SendMessageBatch` (Amazon SQS message quotas).
const GROUP_MAX: u64 = 10;
/// The most jobs of one test: its records are read one by one at its end.
pub const JOBS_MAX: u64 = 2_000_000;

/// What is sent, and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Jobs an hour that the stack is built for.
    pub expected_per_hour: u64,
    /// How many times that is sent.
    pub factor: f64,
    /// How long, in minutes, after the warm-up.
    pub minutes: f64,
    /// Before that, in seconds: sent at the same rate, and left out of latency and success.
    pub warm_up_s: u64,
}

impl Plan {
    /// Jobs an hour that are sent.
    #[must_use]
    pub fn per_hour(&self) -> f64 {
        self.expected_per_hour as f64 * self.factor
    }

    /// Jobs a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.per_hour() / 3_600.0
    }

    /// Jobs that arrive at the same moment, in one request.
    #[must_use]
    pub fn group(&self) -> u64 {
        ((self.per_second() / GROUPS_PER_SECOND) as u64).clamp(1, GROUP_MAX)
    }

    /// How many jobs in all, the warm-up's included.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        ((self.warm_up_s as f64 + self.minutes * 60.0) * self.per_second()).round() as u64
    }

    /// When this job (from 0) is to be sent, in milliseconds after the start.
    #[must_use]
    pub fn scheduled_ms(&self, job: u64) -> u64 {
        let group = self.group();
        ((job / group * group) as f64 / self.per_second() * 1_000.0) as u64
    }

    /// How many jobs are due so long after the start.
    #[must_use]
    pub fn due(&self, after_ms: u64) -> u64 {
        let about = (after_ms as f64 / 1_000.0 * self.per_second()) as u64 + self.group();
        (0..about.min(self.jobs()))
            .rev()
            .find(|job| self.scheduled_ms(*job) <= after_ms)
            .map_or(0, |job| job + 1)
    }

    /// Whether it is to be sent before the measurement begins.
    #[must_use]
    pub fn is_warm_up(&self, job: u64) -> bool {
        self.scheduled_ms(job) < self.warm_up_s * 1_000
    }

    /// How long all of it is sent, in milliseconds.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        self.warm_up_s * 1_000 + (self.minutes * 60_000.0) as u64
    }

    /// Why it cannot be meant; `None`: it can.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        match self.jobs() {
            0 => Some(
                "Not a single job would be sent: raise --expected-per-hour, --factor or --minutes."
                    .to_owned(),
            ),
            1..=JOBS_MAX => None,
            jobs => Some(format!(
                "{} jobs are more than a test sends ({}): lower --expected-per-hour, --factor or --minutes.",
                grouped(jobs),
                grouped(JOBS_MAX)
            )),
        }
    }
}

/// The reference of a job of a test.
#[must_use]
pub fn reference(run: &str, job: u64) -> String {
    format!("{REFERENCE_PREFIX}{run}/{job}")
}

/// A number as people read it, without what is below one: `1,800,000`.
#[must_use]
pub fn grouped(number: impl Display) -> String {
    with_groups(&format!("{number:.0}"))
}

/// The same with so many decimals: `1,000,000.00`.
#[must_use]
pub fn grouped_to(number: f64, decimals: usize) -> String {
    with_groups(&format!("{number:.decimals$}"))
}

fn with_groups(number: &str) -> String {
    let whole = number.find('.').unwrap_or(number.len());
    let mut text = String::new();
    for (index, digit) in number.chars().enumerate() {
        if index > 0 && index < whole && (whole - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(expected_per_hour: u64, factor: f64, minutes: f64, warm_up_s: u64) -> Plan {
        Plan { expected_per_hour, factor, minutes, warm_up_s }
    }

    #[test]
    fn jobs_arrive_evenly_and_in_groups_only_where_they_are_many() {
        for (plan, jobs, group, times) in [
            (plan(3_600, 1.0, 1.0, 0), 60, 1, [0, 1_000, 2_000]),
            (plan(5_000, 2.0, 10.0, 60), 1_833, 1, [0, 360, 720]),
            (plan(36_000, 1.0, 1.0, 0), 600, 2, [0, 0, 200]),
            (plan(1_000_000, 2.0, 1.0, 0), 33_333, 10, [0, 0, 0]),
        ] {
            let scheduled = [plan.scheduled_ms(0), plan.scheduled_ms(1), plan.scheduled_ms(2)];
            assert_eq!((plan.jobs(), plan.group(), scheduled), (jobs, group, times), "{plan:?}");
            assert!(plan.scheduled_ms(plan.jobs() - 1) < plan.duration_ms(), "{plan:?}");
        }
    }

    #[test]
    fn large_numbers_are_grouped() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (1_800_000.0, "1,800,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((grouped(0_u64).as_str(), grouped(61_000_u64).as_str()), ("0", "61,000"));
        for (number, decimals, text) in [
            (0.5, 2, "0.50"),
            (999.0, 4, "999.0000"),
            (1_234.5, 1, "1,234.5"),
            (1_000_000.0, 2, "1,000,000.00"),
        ] {
            assert_eq!(grouped_to(number, decimals), text);
        }
    }

    #[test]
    fn what_is_due_is_what_should_have_been_sent() {
        for (plan, after_ms, due) in [
            (plan(3_600, 1.0, 1.0, 0), 0, 1),
            (plan(3_600, 1.0, 1.0, 0), 999, 1),
            (plan(3_600, 1.0, 1.0, 0), 1_000, 2),
            (plan(36_000, 1.0, 1.0, 0), 199, 2),
            (plan(3_600, 1.0, 1.0, 0), 600_000, 60),
            (plan(1_000_000, 2.0, 1.0, 0), 30_000, 16_670),
        ] {
            assert_eq!(plan.due(after_ms), due, "{plan:?} after {after_ms} ms");
        }
    }

    #[test]
    fn the_warm_up_comes_first() {
        let plan = plan(3_600, 1.0, 1.0, 10);
        let warm_up = (0..plan.jobs()).filter(|job| plan.is_warm_up(*job)).count();
        assert_eq!((plan.jobs(), warm_up, plan.is_warm_up(9), plan.is_warm_up(10)), (70, 10, true, false));
    }

    #[test]
    fn a_test_of_nothing_and_one_without_end_are_refused() {
        assert!(plan(1, 1.0, 1.0, 0).refused().is_some_and(|why| why.contains("raise")));
        assert!(plan(10_000_000, 2.0, 60.0, 0).refused().is_some_and(|why| why.contains("lower")));
        assert_eq!(plan(5_000, 2.0, 10.0, 60).refused(), None);
    }

    #[test]
    fn a_tests_jobs_are_known_by_their_references() {
        let references = [reference("r1", 0), reference("r1", 1), reference("r2", 0)];
        assert!(references.iter().all(|reference| reference.starts_with(REFERENCE_PREFIX)), "{references:?}");
        let different: std::collections::BTreeSet<_> = references.iter().collect();
        assert_eq!(different.len(), references.len());
    }
}
