//! Erasing what is known of an input: a tombstone stands in its record's place.
//!
//! It has a new token and a higher version, so that no worker that had the job can write it again, and it outlives every
//! message from before, so that none of them is worked on. A release that does not know the state hands such messages
//! back ("A record lives longer than a deploy").

use crate::input_hash::InputHash;
use crate::record::{Budget, Erasure, Expect, Record, RecordWrite, State};

const DAY_MS: u64 = 86_400_000;
/// How long a message from before may still come: SQS keeps none for longer than 14 days (Amazon SQS message quotas), and
/// a dead letter that is sent back on its last day may wait as long again. A day is for clocks that differ.
pub const TOMBSTONE_MS: u64 = 29 * DAY_MS;

/// The write that puts a tombstone over what stands, or where nothing does: over jobs, too, that no worker has seen yet.
/// Repeated after a refusal over what stands then; on a tombstone it moves the time of the erasure to now.
#[must_use]
pub fn tombstone(key: &InputHash, standing: Option<&Record>, token: &str, now_ms: u64) -> RecordWrite {
    let version = standing.map_or(0, |record| record.version) + 1;
    let until_ms = now_ms + TOMBSTONE_MS;
    let record = Record {
        key: key.clone(),
        task: standing.and_then(|record| record.task.clone()),
        // Whose name a reference is, nobody knows.
        reference: None,
        version,
        token: token.to_owned(),
        state: State::Erased,
        previous: None,
        message_id: standing.map_or_else(String::new, |record| record.message_id.clone()),
        sent_at_ms: standing.map_or(0, |record| record.sent_at_ms),
        first_received_ms: standing.map_or(now_ms, |record| record.first_received_ms),
        last_claimed_ms: standing.map_or(now_ms, |record| record.last_claimed_ms),
        budget: Budget::default(),
        redrives: 0,
        history: Vec::new(),
        letter_version: None,
        erased: Some(Erasure { at_ms: now_ms, version, until_ms }),
        kept: None,
        reviewed: None,
        expires_at_ms: until_ms,
    };
    let expect = standing.map_or(Expect::Absent, Expect::exactly);
    RecordWrite { record, expect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_stands_for_29_days() {
        let record = tombstone(&InputHash::of_body("x"), None, "token", 1_000).record;
        let until_ms = 1_000 + 29 * 24 * 3_600_000;
        assert_eq!(record.erased, Some(Erasure { at_ms: 1_000, version: 1, until_ms }));
        assert_eq!((record.expires_at_ms, record.version), (until_ms, 1));
    }

    #[test]
    fn no_write_of_before_takes_effect_over_a_tombstone() {
        let key = InputHash::of_body("x");
        let standing = tombstone(&key, None, "before", 1_000).record;
        let erased = tombstone(&key, Some(&standing), "after", 2_000);
        assert!(erased.allowed(Some(&standing)));
        // Whoever read what stood before, a takeover as well as a second eraser, expects its version.
        assert_eq!(erased.expect, Expect::exactly(&standing));
        assert!(!erased.allowed(Some(&erased.record)));
        // And whoever had the claim has its token.
        assert_ne!(erased.record.token, standing.token);
    }
}
