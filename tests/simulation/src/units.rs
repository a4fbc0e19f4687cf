//! What DynamoDB lets through of one key: 1,000 write units a second, and 3,000 read units ("Best practices for designing and using partition keys
//! effectively in DynamoDB"). Without its bursts, and without what it moves to a partition of its own after minutes. Where a
//! key of an index takes no more, the table takes no write that would reach it.

use std::collections::HashMap;

use nightshift_core::listing::Unsettled;
use nightshift_core::record::RecordWrite;
use nightshift_core::spend::SpendKey;

use crate::world::State;

/// A key that many write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hot {
    /// Of the sparse index.
    Index(&'static str, u32),
    /// Of a day's spend.
    Spend(SpendKey),
    /// Of a day's spend, where it is only read.
    SpendReads,
    /// What environments tell of their calls.
    Calls,
}

impl Hot {
    /// Units a second.
    #[must_use]
    pub fn limit(self) -> u32 {
        if self == Self::SpendReads { 3_000 } else { 1_000 }
    }
}

/// Units by key.
#[derive(Debug, Default)]
pub struct Units {
    this_second: HashMap<Hot, (u64, u32)>,
    /// The most that one key was asked for in a second, refused or not.
    pub hottest: HashMap<Hot, u32>,
    /// Requests that were refused.
    pub refused: u64,
}

impl Units {
    /// Takes these units, all or none.
    pub fn take(&mut self, now_ms: u64, keys: &[(Hot, u32)]) -> bool {
        let second = now_ms / 1_000;
        let mut are_free = true;
        for (key, units) in keys {
            let (of, taken) = self.this_second.entry(*key).or_default();
            if *of != second {
                (*of, *taken) = (second, 0);
            }
            *taken += units;
            let hottest = self.hottest.entry(*key).or_default();
            *hottest = (*hottest).max(*taken);
            are_free &= *taken <= key.limit();
        }
        self.refused += u64::from(!are_free);
        are_free
    }
}

impl State {
    /// Which keys of the index a write reaches.
    #[must_use]
    pub fn index_units(&self, write: &RecordWrite, index_keys: u32) -> Vec<(Hot, u32)> {
        let standing =
            self.by_key.get(&write.record.key).and_then(|n| self.inputs[*n as usize].record.as_deref());
        let word = |state| Unsettled::of(state).map(Unsettled::as_str);
        let (before, after) = (standing.and_then(|record| word(&record.state)), word(&write.record.state));
        if before == after {
            return Vec::new();
        }
        let shard = write.record.key.shard(index_keys);
        [before, after].into_iter().flatten().map(|word| (Hot::Index(word, shard), 1)).collect()
    }
}
