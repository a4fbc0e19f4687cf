//! What the documentation leaves open, so that each answer can be tried.

/// One way to read what the documentation leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Points that are looked at beyond N: the *evaluation range* is larger than N, by an undocumented number.
    pub lookback: u32,
    /// A missing point beside a number (`m > 0`, `m + 1`). Between two series it counts as 0 ("Use metric math").
    pub beside_a_number: Absent,
    /// `FILL` of a series that has no point in the whole range.
    pub fill_of_nothing: FillOfNothing,
    /// When breaching points among missing ones raise an alarm by themselves.
    pub premature: Premature,
}

/// What a missing operand does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// It counts as 0.
    Zero,
    /// There is no result.
    Dropped,
}

/// What `FILL` makes of a series without any point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOfNothing {
    /// As of any other: all points are filled.
    Filled,
    /// It stays empty.
    Nothing,
}

/// The rule against premature transitions, which applies to missing data that is `missing` or `ignore` alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Premature {
    /// The oldest breaching point is at least M old, all newer ones breach or are missing, and none is within the
    /// threshold.
    OldestBreaching,
    /// Besides, all that is older than M is missing: only one evaluation after the other can raise it.
    NothingOlder,
}

impl Reading {
    /// The furthest that any reading looks back beyond N.
    #[must_use]
    pub fn lookback_max(n: u32) -> u32 {
        n.max(2)
    }

    /// All of them for an alarm of N periods.
    ///
    /// The lookbacks are 0, 2, a third of N and N: N = 3 is documented to look at 5 points, and a user saw 3 to 4 for
    /// N = 1.
    #[must_use]
    pub fn all(n: u32) -> Vec<Self> {
        let mut lookbacks = vec![0, 2, n / 3, n];
        lookbacks.sort_unstable();
        lookbacks.dedup();
        let mut all = Vec::new();
        for lookback in lookbacks {
            for beside_a_number in [Absent::Zero, Absent::Dropped] {
                for fill_of_nothing in [FillOfNothing::Filled, FillOfNothing::Nothing] {
                    for premature in [Premature::OldestBreaching, Premature::NothingOlder] {
                        all.push(Self { lookback, beside_a_number, fill_of_nothing, premature });
                    }
                }
            }
        }
        all
    }
}
