//! What comes before a message from `crashed` is sent: its record's budgets start afresh, or `poison` or spent calls
//! would bury the job again at once.
//!
//! **Invariant:** a record is touched only under the version that was read, and only when nobody has it.

use crate::record::{Budget, Expect, Record, RecordWrite, State};

/// The word in a record's history for a message that SQS gave up on.
const CRASHED: &str = "crashed";
/// How long after a lease another clock may still be within it, in milliseconds: the worker's own margin again.
const LEASE_MARGIN_MS: u64 = 10_000;

/// What to do with a message from `crashed` before it is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeSending {
    /// Nothing.
    Send,
    /// First write this; when that is refused, read again and decide again.
    Reset(Box<RecordWrite>),
    /// A worker has its job: leave it hidden until then.
    Wait {
        /// By the worker's clock.
        until_ms: u64,
    },
    /// Delete it: it is an earlier message of a job that has its result, of one that was erased, or of one that has failed
    /// and whose dead letter is sent. A worker would find the same, but of a copy that has a new id and a new time.
    Settled,
}

/// What is known of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// When it was first sent, which SQS keeps when it moves one; in milliseconds since 1970.
    pub sent_at_ms: u64,
    /// The version in the `FailureContext` of the dead letter that it is, if it is one.
    pub redrive_of: Option<u64>,
}

impl BeforeSending {
    /// By the record that stands. `kept_ms`: how long a failure is kept, in milliseconds.
    #[must_use]
    pub fn of(
        standing: Option<&Record>,
        Received { sent_at_ms, redrive_of }: Received,
        token: &str,
        now_ms: u64,
        kept_ms: u64,
    ) -> Self {
        let Some(standing) = standing.filter(|record| record.expires_at_ms > now_ms) else {
            return Self::Send;
        };
        match &standing.state {
            _ if standing.erased.is_some_and(|erasure| erasure.covers(sent_at_ms)) => Self::Settled,
            State::Done(done) if redrive_of.is_some() || sent_at_ms <= done.finished_at_ms => Self::Settled,
            // Where the letter may be unsent, this may be the last message that can send it.
            State::Failed(failed)
                if standing.letter_is_sent()
                    && redrive_of
                        .map_or(sent_at_ms <= failed.failed_at_ms, |version| version < standing.version) =>
            {
                Self::Settled
            }
            // The worker starts a failed job afresh by itself, or sends the letter that its record lacks.
            State::Done(_) | State::Failed(_) | State::Erased => Self::Send,
            State::Open if standing.budget == Budget::default() => Self::Send,
            State::Claimed { lease_until_ms, .. } if *lease_until_ms + LEASE_MARGIN_MS > now_ms => {
                Self::Wait { until_ms: *lease_until_ms + LEASE_MARGIN_MS }
            }
            State::Open | State::Claimed { .. } => {
                let mut record = standing.clone();
                record.history = standing.history_with(CRASHED, standing.last_claimed_ms);
                record.redrives += 1;
                record.budget = Budget::default();
                record.state = State::Open;
                record.token = token.to_owned();
                record.version += 1;
                record.expires_at_ms = record.expires_at_ms.max(now_ms + kept_ms);
                Self::Reset(Box::new(RecordWrite { record, expect: Expect::exactly(standing) }))
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::failure::FailureReason;
    use crate::input_hash::InputHash;
    use crate::record::{Done, Erasure, Failed, HISTORY_MAX, Revision};

    /// A record in some state, at version 4, last claimed at 1,000 and kept until 1,000,000.
    pub(in crate::redrive) fn record(state: State) -> Record {
        Record {
            key: InputHash::of_body("x"),
            task: Some("t".to_owned()),
            reference: None,
            version: 4,
            token: "theirs".to_owned(),
            state,
            previous: Some("a result".to_owned()),
            message_id: "m-0".to_owned(),
            sent_at_ms: 500,
            first_received_ms: 600,
            last_claimed_ms: 1_000,
            budget: Budget {
                claims: 7,
                calls: 5,
                crashes: 2,
                waiting_since_ms: Some(700),
                ..Budget::default()
            },
            redrives: 1,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 1_000_000,
        }
    }

    pub(in crate::redrive) fn open() -> Record {
        record(State::Open)
    }

    pub(in crate::redrive) fn done() -> Record {
        record(State::Done(Box::new(Done {
            output: serde_json::Value::Null,
            needs_review: false,
            reviewed: false,
            revision: Revision::default(),
            model: "m".to_owned(),
            finished_at_ms: 2_000,
        })))
    }

    pub(in crate::redrive) fn failed(reason: FailureReason) -> Record {
        record(State::Failed(Box::new(Failed {
            reason,
            detail: "detail".to_owned(),
            failed_at_ms: 2_000,
            request_id: None,
            excerpt: None,
            revision: Revision::default(),
        })))
    }

    fn before(standing: Option<&Record>, sent_at_ms: u64, redrive_of: Option<u64>) -> BeforeSending {
        let received = Received { sent_at_ms, redrive_of };
        BeforeSending::of(standing, received, "ours", 50_000, 30_000)
    }

    #[test]
    fn only_what_is_begun_and_nobodys_is_reset() {
        let claimed = |lease_until_ms| record(State::Claimed { lease_until_ms, alone: true });
        let mut expired = open();
        expired.expires_at_ms = 50_000;
        let mut fresh = open();
        fresh.budget = Budget::default();
        for (standing, sent_at_ms, redrive_of, expected) in [
            (None, 500, None, BeforeSending::Send),
            (Some(expired), 500, None, BeforeSending::Send),
            (Some(fresh), 500, None, BeforeSending::Send),
            (Some(failed(FailureReason::Poison)), 500, None, BeforeSending::Send),
            (Some(done()), 2_000, None, BeforeSending::Settled),
            (Some(done()), 2_001, None, BeforeSending::Send),
            (Some(done()), 2_001, Some(1), BeforeSending::Settled),
            (Some(claimed(40_001)), 500, None, BeforeSending::Wait { until_ms: 50_001 }),
        ] {
            assert_eq!(before(standing.as_ref(), sent_at_ms, redrive_of), expected, "{standing:?}");
        }
        for standing in [open(), claimed(40_000)] {
            let BeforeSending::Reset(write) = before(Some(&standing), 500, None) else {
                panic!("{standing:?}")
            };
            assert_eq!(write.expect, Expect::exactly(&standing));
            let reset = &write.record;
            assert_eq!((reset.version, reset.token.as_str(), &reset.state), (5, "ours", &State::Open));
            assert_eq!((reset.budget, reset.redrives), (Budget::default(), 2));
            assert_eq!((reset.previous.as_deref(), reset.expires_at_ms), (Some("a result"), 1_000_000));
            let past = &reset.history[0];
            assert_eq!((past.reason.as_str(), past.failed_at_ms, past.calls), ("crashed", 1_000, 5));
            assert_eq!(before(Some(reset), 500, None), BeforeSending::Send, "a second time changes nothing");
        }
    }

    #[test]
    fn a_message_of_a_job_that_has_failed_is_settled_once_its_letter_is_sent() {
        use BeforeSending::{Send, Settled};
        // The failure is of 2,000, under version 4.
        for (letter_version, sent_at_ms, redrive_of, expected) in [
            (Some(4), 500, None, Settled),
            (Some(4), 2_000, None, Settled),
            // Asked for anew, after the failure.
            (Some(4), 2_001, None, Send),
            // A letter of an earlier failure, whenever it was sent back; and the one of this, which is asked to be mended.
            (Some(4), 500, Some(2), Settled),
            (Some(4), 2_001, Some(2), Settled),
            (Some(4), 2_001, Some(4), Send),
            // A letter that is newer than the record: the ledger was restored.
            (Some(4), 500, Some(6), Send),
            // The letter may be unsent, or is one of an earlier failure: this may be the last message that can send it.
            (None, 500, None, Send),
            (Some(3), 500, None, Send),
            (None, 500, Some(2), Send),
        ] {
            let mut standing = failed(FailureReason::Refused);
            standing.letter_version = letter_version;
            let found = before(Some(&standing), sent_at_ms, redrive_of);
            assert_eq!(found, expected, "{letter_version:?} {sent_at_ms} {redrive_of:?}");
        }
    }

    #[test]
    fn the_record_outlives_what_is_sent_and_its_history_stays_short() {
        let mut standing = open();
        standing.expires_at_ms = 60_000;
        for _ in 0..2 * HISTORY_MAX {
            let BeforeSending::Reset(write) = before(Some(&standing), 500, None) else { panic!() };
            standing = write.record;
            standing.budget.calls = 1;
        }
        assert_eq!((standing.expires_at_ms, standing.history.len()), (80_000, HISTORY_MAX));
    }

    #[test]
    fn a_message_from_before_an_erasure_is_never_sent() {
        let erased = |state| {
            let erased = Some(Erasure { at_ms: 2_000, version: 3, until_ms: 900_000 });
            Record { erased, ..record(state) }
        };
        // The tombstone, and a job of the same input that came later and crashed, too.
        for standing in [erased(State::Erased), erased(State::Open)] {
            assert_eq!(before(Some(&standing), 2_000, None), BeforeSending::Settled, "{standing:?}");
            assert_ne!(before(Some(&standing), 2_001, None), BeforeSending::Settled, "{standing:?}");
        }
    }
}
