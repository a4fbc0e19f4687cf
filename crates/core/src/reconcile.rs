//! What became of a job that was sent: seen from its record, and from whether its queue still holds anything.

use crate::failure::FailureReason;
use crate::record::{Record, State};

/// A job as its sender knows it.
#[derive(Debug, Clone, Copy)]
pub struct SentJob<'a> {
    /// SQS's id of the message.
    pub message_id: &'a str,
    /// When it was sent, by the sender's clock, in milliseconds since 1970.
    pub sent_ms: u64,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its input has a result.
    Result,
    /// Its input has a result that a person should look at.
    Review,
    /// It cannot succeed.
    DeadLetter(FailureReason),
    /// It is worked on, or lies in the queue.
    Waiting,
    /// A person erased its data.
    Erased,
    /// There is no trace of it: no result, no failure, and no message that could still become one.
    Missing,
}

impl Fate {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Review => "review",
            Self::DeadLetter(_) => "dead_letter",
            Self::Erased => "erased",
            Self::Waiting => "waiting",
            Self::Missing => "missing",
        }
    }

    /// Whether nothing more will happen to it by itself.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Result | Self::Review | Self::DeadLetter(_) | Self::Erased)
    }
}

/// What became of a job. `queued`: the jobs queue, or `crashed`, holds messages, in flight and delayed ones included.
///
/// The same input may have been sent before: a result that stands is this job's too. A failure is so only where nothing
/// is queued, or it is younger than this message, or it is this message's own; else this message asks for a new attempt.
#[must_use]
pub fn fate(record: Option<&Record>, sent: SentJob<'_>, queued: bool, now_ms: u64) -> Fate {
    let otherwise = if queued { Fate::Waiting } else { Fate::Missing };
    let Some(record) = record else { return otherwise };
    if record.erased.is_some_and(|erasure| erasure.covers(sent.sent_ms)) {
        return Fate::Erased;
    }
    match &record.state {
        State::Erased => otherwise,
        State::Done(done) if done.needs_review && !done.reviewed => Fate::Review,
        State::Done(_) => Fate::Result,
        State::Failed(failed) => {
            let is_its_own = record.message_id == sent.message_id || failed.failed_at_ms >= sent.sent_ms;
            if is_its_own || !queued { Fate::DeadLetter(failed.reason) } else { Fate::Waiting }
        }
        State::Claimed { lease_until_ms, .. } if *lease_until_ms > now_ms => Fate::Waiting,
        State::Claimed { .. } | State::Open => match (queued, &record.previous) {
            // It was to be made again, and the old result still stands.
            (false, Some(_)) => Fate::Result,
            _ => otherwise,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_hash::InputHash;
    use crate::record::{Budget, Done, Erasure, Failed, Revision};
    use serde_json::Value;

    fn record(state: State, previous: bool) -> Record {
        Record {
            key: InputHash::of_body("x"),
            task: None,
            reference: None,
            version: 1,
            token: String::new(),
            state,
            previous: previous.then(String::new),
            message_id: "theirs".to_owned(),
            sent_at_ms: 0,
            first_received_ms: 0,
            last_claimed_ms: 0,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 0,
        }
    }

    fn done(needs_review: bool, reviewed: bool) -> State {
        State::Done(Box::new(Done {
            output: Value::Null,
            needs_review,
            reviewed,
            revision: Revision::default(),
            model: String::new(),
            finished_at_ms: 0,
        }))
    }

    fn failed(failed_at_ms: u64) -> State {
        State::Failed(Box::new(Failed {
            reason: FailureReason::Refused,
            detail: String::new(),
            failed_at_ms,
            request_id: None,
            excerpt: None,
            revision: Revision::default(),
        }))
    }

    #[test]
    fn each_job_has_one_fate() {
        const SENT_MS: u64 = 1_000;
        let letter = Fate::DeadLetter(FailureReason::Refused);
        let claimed = |lease_until_ms| State::Claimed { lease_until_ms, alone: false };
        for (state, previous, message_id, queued, empty) in [
            (None, false, "mine", Fate::Waiting, Fate::Missing),
            (Some(done(false, false)), false, "mine", Fate::Result, Fate::Result),
            (Some(done(true, false)), false, "mine", Fate::Review, Fate::Review),
            (Some(done(true, true)), false, "mine", Fate::Result, Fate::Result),
            // Failed before this message was sent: it asks for a new attempt as long as it may still lie in the queue.
            (Some(failed(SENT_MS - 1)), false, "mine", Fate::Waiting, letter),
            (Some(failed(SENT_MS)), false, "mine", letter, letter),
            (Some(failed(SENT_MS - 1)), false, "theirs", letter, letter),
            (Some(State::Open), false, "mine", Fate::Waiting, Fate::Missing),
            // A tombstone over an earlier message: this one is a new request.
            (Some(State::Erased), false, "mine", Fate::Waiting, Fate::Missing),
            (Some(State::Open), true, "mine", Fate::Waiting, Fate::Result),
            (Some(claimed(2_001)), false, "mine", Fate::Waiting, Fate::Waiting),
            (Some(claimed(2_000)), false, "mine", Fate::Waiting, Fate::Missing),
        ] {
            let record = state.map(|state| record(state, previous));
            let of =
                |in_queue| fate(record.as_ref(), SentJob { message_id, sent_ms: SENT_MS }, in_queue, 2_000);
            assert_eq!((of(true), of(false)), (queued, empty), "{record:?}");
        }
        let erasure = Erasure { at_ms: SENT_MS, version: 2, until_ms: 9_000 };
        let record = Record { erased: Some(erasure), ..record(State::Erased, false) };
        let sent = |sent_ms| SentJob { message_id: "mine", sent_ms };
        assert_eq!(fate(Some(&record), sent(SENT_MS), true, 2_000), Fate::Erased);
        assert_eq!(fate(Some(&record), sent(SENT_MS + 1), true, 2_000), Fate::Waiting);
    }

    #[test]
    fn programs_know_a_fate_by_its_word() {
        for (fate, word) in [
            (Fate::Result, "result"),
            (Fate::Review, "review"),
            (Fate::DeadLetter(FailureReason::Refused), "dead_letter"),
            (Fate::Erased, "erased"),
            (Fate::Waiting, "waiting"),
            (Fate::Missing, "missing"),
        ] {
            assert_eq!(fate.as_str(), word);
            assert_eq!(fate.is_settled(), !matches!(word, "waiting" | "missing"), "{word}");
        }
    }
}
