//! What one invocation has written into the day's spend records, and what of it its calls have cost.

use nightshift_core::spend::{SpendKey, UtcDay};

/// The spend of one invocation.
#[derive(Debug)]
pub(crate) struct Book {
    /// The day on which it began.
    pub(crate) day: UtcDay,
    /// The record from which it took its money; the day's own, where any of it came from there.
    pub(crate) taken_from: Option<SpendKey>,
    /// What stands in the day's records for this invocation.
    pub(crate) reserved_micro_usd: u64,
    /// What its calls cost, or may still cost.
    pub(crate) counted_micro_usd: u64,
    /// When its last call was answered that was.
    pub(crate) answered_at_ms: Option<u64>,
    /// When its last call was over, answered or not.
    pub(crate) called_at_ms: Option<u64>,
}

impl Book {
    pub(crate) fn new(day: UtcDay) -> Self {
        Self {
            day,
            taken_from: None,
            reserved_micro_usd: 0,
            counted_micro_usd: 0,
            answered_at_ms: None,
            called_at_ms: None,
        }
    }

    /// More was taken.
    pub(crate) fn take(&mut self, micro_usd: u64, from: SpendKey) {
        if self.taken_from != Some(SpendKey::Day) {
            self.taken_from = Some(from);
        }
        self.reserved_micro_usd = self.reserved_micro_usd.saturating_add(micro_usd);
        self.counted_micro_usd = self.counted_micro_usd.saturating_add(micro_usd);
    }

    /// A call's worst case becomes what it cost.
    pub(crate) fn count_instead(&mut self, most_micro_usd: u64, micro_usd: u64) {
        let others_micro_usd = self.counted_micro_usd.saturating_sub(most_micro_usd);
        self.counted_micro_usd = others_micro_usd.saturating_add(micro_usd);
    }

    /// Counts a call if what earlier ones left pays for it.
    pub(crate) fn take_left(&mut self, micro_usd: u64) -> bool {
        let left_micro_usd = self.reserved_micro_usd.saturating_sub(self.counted_micro_usd);
        let is_enough = micro_usd <= left_micro_usd;
        if is_enough {
            self.counted_micro_usd = self.counted_micro_usd.saturating_add(micro_usd);
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_any_of_it_came_from_the_day_for_goes_back_there() {
        let (day, one, two) = (SpendKey::Day, SpendKey::Shard(1), SpendKey::Shard(2));
        for (taken, from) in [
            (vec![], None),
            (vec![one], Some(one)),
            (vec![one, two], Some(two)),
            (vec![one, day], Some(day)),
            (vec![day, one], Some(day)),
        ] {
            let mut book = Book::new(UtcDay::of(0));
            taken.iter().for_each(|key| book.take(5, *key));
            assert_eq!(book.taken_from, from, "{taken:?}");
            assert_eq!(book.reserved_micro_usd, 5 * taken.len() as u64);
        }
    }

    #[test]
    fn what_calls_left_pays_for_as_much_and_no_more() {
        let mut book = Book::new(UtcDay::of(0));
        book.take(10, SpendKey::Day);
        book.count_instead(10, 3);
        assert!(book.take_left(7));
        assert!(!book.take_left(1));
    }
}
