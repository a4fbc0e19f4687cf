//! The state of one alarm from one row of points. ("Using Amazon CloudWatch alarms", its sections on evaluation and on
//! missing data)

use crate::readings::Premature;

/// What an alarm says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Within the threshold.
    Ok,
    /// M of N points breach it.
    Alarm,
    /// Nothing to judge by; also what a new alarm begins with.
    InsufficientData,
}

/// `treat_missing_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Without any point the state is `INSUFFICIENT_DATA`.
    Missing,
    /// The state is kept.
    Ignore,
    /// As bad as a breaching point.
    Breaching,
    /// As good as one within the threshold.
    NotBreaching,
}

/// One point of the evaluation range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Within the threshold.
    Within,
    /// Beyond it.
    Breaching,
    /// There is none.
    Absent,
}

/// How an alarm judges its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// `EvaluationPeriods`.
    pub n: usize,
    /// `DatapointsToAlarm`.
    pub m: usize,
    /// `TreatMissingData`.
    pub missing: Missing,
    /// How the rule against premature transitions is read.
    pub premature: Premature,
}

impl Judgement {
    /// The state after one evaluation of `range`, the oldest point first; N points or more.
    #[must_use]
    pub fn of(&self, range: &[Point], current: State) -> State {
        let real: Vec<Point> = range.iter().copied().filter(|point| *point != Point::Absent).collect();
        if real.is_empty() {
            return match self.missing {
                Missing::Missing => State::InsufficientData,
                Missing::Ignore => current,
                Missing::Breaching => State::Alarm,
                Missing::NotBreaching => State::Ok,
            };
        }
        let newest: Vec<Point> = real.iter().rev().take(self.n).copied().collect();
        let gaps = self.n.saturating_sub(newest.len());
        if gaps > 0 && self.is_premature(range) {
            match self.missing {
                Missing::Missing => return State::Alarm,
                Missing::Ignore => return current,
                Missing::Breaching | Missing::NotBreaching => {}
            }
        }
        let filled = if self.missing == Missing::Breaching { gaps } else { 0 };
        let breaching = newest.iter().filter(|point| **point == Point::Breaching).count() + filled;
        if breaching >= self.m { State::Alarm } else { State::Ok }
    }

    fn is_premature(&self, range: &[Point]) -> bool {
        let Some(oldest) = range.iter().position(|point| *point == Point::Breaching) else { return false };
        let age = range.len() - oldest;
        let nothing_within = !range.contains(&Point::Within);
        let nothing_older = match self.premature {
            Premature::OldestBreaching => true,
            Premature::NothingOlder => age == self.m,
        };
        age >= self.m && nothing_within && nothing_older
    }
}
