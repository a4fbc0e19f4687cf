//! How well inputs did against a model, and how that differs from others: what `task try` shows.

use serde::Serialize;
use serde_json::Value;

/// What became of one input, as far as it is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The line of the file.
    pub line: u64,
    /// It ended as a result that nobody need look at; with an expected output: as that.
    pub passed: bool,
    /// The validated output.
    pub output: Option<Value>,
    /// Millionths of a dollar.
    pub cost_micro_usd: u64,
    /// Until it was settled.
    pub took_ms: u64,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub cases: u64,
    /// How many of them passed.
    pub passed: u64,
    /// Millionths of a dollar.
    pub cost_micro_usd: u64,
    /// The middle one, the lower of two.
    pub median_ms: u64,
}

impl Summary {
    /// Of these.
    #[must_use]
    pub fn of(cases: &[Case]) -> Self {
        let mut times: Vec<_> = cases.iter().map(|case| case.took_ms).collect();
        times.sort_unstable();
        Self {
            cases: cases.len() as u64,
            passed: cases.iter().filter(|case| case.passed).count() as u64,
            cost_micro_usd: cases.iter().map(|case| case.cost_micro_usd).sum(),
            median_ms: times.get(times.len().saturating_sub(1) / 2).copied().unwrap_or_default(),
        }
    }

    /// In percent; of no cases none passed.
    #[must_use]
    pub fn pass_percent(&self) -> f64 {
        if self.cases == 0 { 0.0 } else { self.passed as f64 * 100.0 / self.cases as f64 }
    }

    /// Whether at least this share passed, compared exactly where both are whole.
    #[must_use]
    pub fn reaches(&self, least_percent: f64) -> bool {
        self.cases > 0 && self.passed as f64 * 100.0 >= least_percent * self.cases as f64
    }
}

/// The lines whose outputs differ, or which one of the two has alone, in order.
#[must_use]
pub fn differing(ours: &[Case], theirs: &[Case]) -> Vec<u64> {
    let output =
        |cases: &[Case], line| cases.iter().find(|case| case.line == line).map(|case| case.output.clone());
    let mut lines: Vec<_> = ours.iter().chain(theirs).map(|case| case.line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.retain(|line| output(ours, *line) != output(theirs, *line));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn case(line: u64, passed: bool, output: Value, took_ms: u64) -> Case {
        Case { line, passed, output: Some(output), cost_micro_usd: 5, took_ms }
    }

    #[test]
    fn a_threshold_is_reached_by_the_share_that_passed() {
        let of = |passed: u64, cases: u64| Summary { passed, cases, ..Summary::default() };
        for (summary, least, reaches) in [
            (of(19, 20), 95.0, true),
            (of(18, 20), 95.0, false),
            (of(20, 20), 100.0, true),
            (of(999, 1_000), 100.0, false),
            (of(1, 3), 33.4, false),
            (of(0, 20), 0.0, true),
            (of(0, 0), 0.0, false),
        ] {
            assert_eq!(summary.reaches(least), reaches, "{summary:?} {least}");
        }
    }

    #[test]
    fn outputs_are_compared_as_values() {
        let ours = [
            case(1, true, json!({"a": 1, "b": 2}), 30),
            case(2, true, json!(1), 10),
            case(4, false, json!(1), 20),
        ];
        let theirs = [
            case(1, true, json!({"b": 2, "a": 1}), 1),
            case(2, true, json!(2), 1),
            case(3, true, json!(1), 1),
        ];
        assert_eq!(differing(&ours, &theirs), [2, 3, 4]);
        let summary = Summary::of(&ours);
        assert_eq!(
            (summary.cases, summary.passed, summary.cost_micro_usd, summary.median_ms),
            (3, 2, 15, 20)
        );
    }
}
