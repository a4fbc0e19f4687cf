//! What is read of the stack in one look, and what follows from it whoever asks.
//!
//! Reads of the ledger are bounded ([`ENTRIES_MAX`], [`BEGUN_MAX`]), whatever it holds. What that means is said at each
//! field of [`Snapshot`].

use crate::control::Control;
use crate::listing::Entry;
use crate::record::{Record, State};
use crate::redrive::Depth;
use crate::spend::Spent;

use super::deaths::{DeadClaims, INDEX_LAG_MS, Watch};

/// Entries of the sparse index that are read for each word. A page of 1,000 is some 200 KB.
pub const ENTRIES_MAX: u32 = 1_000;
/// Open and claimed records that are read whole, of each of the two, and again of those that were received first while SQS can
/// have the message: the index does not say when it was sent. One request holds 100 keys.
pub const BEGUN_MAX: u32 = 25;

/// What was read of the stack; `None`: it could not be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// When, by the sentinel's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// The queue `jobs`.
    pub jobs: Option<Depth>,
    /// The queue `dead-letters`.
    pub dead_letters: Option<Depth>,
    /// The queue `crashed`.
    pub crashed: Option<Depth>,
    /// The control record.
    pub control: Option<Control>,
    /// What the day's record says.
    pub spent: Option<Spent>,
    /// What environments told of their calls in this minute and the last.
    pub calls: Option<Calls>,
    /// The event source mapping.
    pub switch: Option<Switch>,
    /// The version of the worker's function that the alias `live` points to.
    pub live_version: Option<u64>,
    /// The redrives that are not known to be over.
    pub redrives: Option<Vec<String>>,
    /// The [`ENTRIES_MAX`] claims whose jobs were received first. Where more stand, at work or dead, those of younger jobs are
    /// left out.
    pub claimed: Option<Vec<Entry>>,
    /// How long the version that is live has been looked at, this look included.
    pub watch: Option<Watch>,
    /// Whether the last look is remembered, and not long ago.
    pub remembers: bool,
    /// The [`ENTRIES_MAX`] claims whose jobs were received first since claims count against that version: of a large stack,
    /// those above are all older. None are read that cannot have died yet.
    pub counted: Option<Vec<Entry>>,
    /// The [`ENTRIES_MAX`] oldest results that wait for a person: the gauge ends at this number.
    pub reviews: Option<Vec<Entry>>,
    /// The [`BEGUN_MAX`] open and as many claimed records whose jobs were received first, and as many again of each of those
    /// that were received since SQS can still have their message. The oldest message is missed only while that many jobs of
    /// its kind were received before its own, failed, and were sent again later.
    pub begun: Option<Vec<Record>>,
    /// The [`BEGUN_MAX`] failed records that were received first of those whose dead letter SQS can still have. A job that
    /// was received before that, and failed again since, is not among them.
    pub failed: Option<Vec<Entry>>,
}

/// What the gauges are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StackLimits {
    /// How long SQS keeps a job, in milliseconds.
    pub retention_ms: u64,
    /// How long SQS keeps a dead letter, in milliseconds.
    pub letter_retention_ms: u64,
    /// The most that a UTC day may cost, in millionths of a dollar.
    pub spend_cap_micro_usd: u64,
    /// The longest that a lease can last: the worker function's timeout and the margin, in milliseconds.
    pub lease_ms_max: u64,
}

/// The calls of this minute and the last, of all environments, as far as they were told of. A refusal for a rate limit is neither: the pace adapts to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Answered, whatever they said.
    pub answered: u64,
    /// Not answered: errors, timeouts, broken connections, overload.
    pub failed: u64,
    /// When the first of the failed ones began that was told of, in milliseconds since 1970; `None`: none failed, or only
    /// releases told of it that do not say so.
    pub failing_since_ms: Option<u64>,
    /// When the last of the failed ones ended that was told of, or will be tried again where the provider said when; `None`
    /// as there.
    pub failing_until_ms: Option<u64>,
    /// The cheapest that the cap has refused, in millionths of a dollar.
    pub refused_micro_usd: Option<u64>,
}

impl Calls {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered.saturating_add(other.answered),
            failed: self.failed.saturating_add(other.failed),
            failing_since_ms: [self.failing_since_ms, other.failing_since_ms].into_iter().flatten().min(),
            failing_until_ms: self.failing_until_ms.max(other.failing_until_ms),
            refused_micro_usd: [self.refused_micro_usd, other.refused_micro_usd].into_iter().flatten().min(),
        }
    }
}

/// The event source mapping, through which jobs reach the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Jobs reach it.
    On,
    /// They wait in the queue.
    Off,
    /// Lambda is about to change it, and refuses further changes meanwhile.
    Turning,
}

impl Switch {
    /// How it is to be turned; `None`: it stands as wanted, or the next run will see.
    #[must_use]
    pub fn turned(self, on: bool) -> Option<bool> {
        match (self, on) {
            (Self::On, false) | (Self::Off, true) => Some(on),
            (Self::On | Self::Off | Self::Turning, _) => None,
        }
    }
}

impl Snapshot {
    /// How long ago the oldest message of a job that was begun was sent: what SQS deletes it by.
    pub(super) fn oldest_job_ms(&self, limits: &StackLimits) -> Option<u64> {
        let unsettled = |record: &&Record| matches!(record.state, State::Open | State::Claimed { .. });
        let ages = self.begun.as_ref()?.iter().filter(unsettled).filter_map(|record| {
            let age_ms = self.at_ms.saturating_sub(record.sent_at_ms);
            // What is older has no message any more: it was purged, or deleted by hand.
            (age_ms < limits.retention_ms && self.at_ms < record.expires_at_ms).then_some(age_ms)
        });
        Some(ages.max().unwrap_or(0))
    }

    /// From when claims count that [`Self::counted`] are to be read of, where any can have died since.
    #[must_use]
    pub fn claims_to_count_since_ms(&self, limits: &StackLimits) -> Option<u64> {
        let (control, watch, spent) = (self.control.as_ref()?, self.watch?, self.spent?);
        let since_ms = control.claims_count_since_ms(&watch, spent.answered_at_ms.max(spent.called_at_ms));
        (since_ms.saturating_add(limits.lease_ms_max).saturating_add(INDEX_LAG_MS) < self.at_ms)
            .then_some(since_ms)
    }

    /// Whether all was read that a version is judged by.
    #[must_use]
    pub fn dead_are_known(&self) -> bool {
        self.claimed.is_some() && self.counted.is_some() && self.spent.is_some() && self.control.is_some()
    }

    /// Claims whose lease has ended, and whose worker has neither settled nor released them.
    pub(super) fn dead_claims(&self, limits: &StackLimits) -> Option<DeadClaims> {
        let claimed = self.claimed.as_ref()?;
        let is_other = |entry: &&Entry| !claimed.iter().any(|known| known.key == entry.key);
        let counted: Vec<Entry> = self.counted.as_ref()?.iter().filter(is_other).cloned().collect();
        let ended_ms = self.ended(claimed).chain(self.ended(&counted)).collect();
        let are_all = claimed.len() < ENTRIES_MAX as usize;
        Some(DeadClaims { ended_ms, since_ms: 0, lease_ms_max: limits.lease_ms_max, are_all })
    }

    pub(super) fn ended<'a>(&'a self, claims: &'a [Entry]) -> impl Iterator<Item = u64> + 'a {
        let has_died = |until_ms: &u64| until_ms.saturating_add(INDEX_LAG_MS) < self.at_ms;
        claims.iter().filter_map(|entry| entry.lease_until_ms).filter(has_died)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_judged_only_by_all_that_counts() {
        let read = Snapshot {
            claimed: Some(Vec::new()),
            counted: Some(Vec::new()),
            spent: Some(Spent::default()),
            control: Some(Control::default()),
            ..Snapshot::default()
        };
        assert!(read.dead_are_known());
        for unread in [
            Snapshot { claimed: None, ..read.clone() },
            Snapshot { counted: None, ..read.clone() },
            Snapshot { spent: None, ..read.clone() },
            Snapshot { control: None, ..read },
        ] {
            assert!(!unread.dead_are_known(), "{unread:?}");
        }
    }

    #[test]
    fn what_two_tell_of_their_calls_is_told_together() {
        let one = Calls {
            answered: 3,
            failed: 20,
            failing_since_ms: Some(5),
            failing_until_ms: Some(70),
            refused_micro_usd: Some(9),
        };
        let other = Calls {
            answered: 1,
            failed: 2,
            failing_since_ms: Some(4),
            failing_until_ms: Some(60),
            refused_micro_usd: Some(8),
        };
        let both = Calls {
            answered: 4,
            failed: 22,
            failing_since_ms: Some(4),
            failing_until_ms: Some(70),
            refused_micro_usd: Some(8),
        };
        assert_eq!((one.and(other), other.and(one)), (both, both));
        // Who says nothing takes nothing away.
        let silent = Calls::default();
        assert_eq!((one.and(silent), silent.and(one)), (one, one));
    }
}
