//! A person's decision on a result that waits for review: as it is, mended, or not at all.
//!
//! It is one write over the exact version that was read, so that two people cannot overwrite each other, and under a token
//! of its own, so that a reply that is lost is known by it. A result that was decided on is final for workers. What is
//! rejected stands failed before its dead letter is sent; whoever comes next sends one that is not known to be sent.

use serde_json::Value;

use crate::dead_letter::{DETAIL_CHARS_MAX, EXCERPT_CHARS_MAX};
use crate::failure::FailureReason;
use crate::job;
use crate::kept::KeptMessage;
use crate::limits::Limits;
use crate::output_validation::validate;
use crate::record::{Done, Expect, Failed, Kept, Record, RecordWrite, Reviewed, State};
use crate::task::{Task, Violations};
use crate::text::cut;

/// Who decides, why and when.
#[derive(Debug, Clone, Copy)]
pub struct Reviewer<'a> {
    /// Who, as AWS names them.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// A fresh token.
    pub token: &'a str,
    /// Their clock.
    pub now_ms: u64,
}

/// Why nothing can be decided on a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotWaiting {
    /// Somebody was first.
    #[error("it was decided on before: {decision} by {by}")]
    Reviewed {
        /// What.
        decision: String,
        /// Who.
        by: String,
    },
    /// It is no result, or one that nobody need look at.
    #[error("it does not wait for review; it is {state}")]
    Other {
        /// What it is.
        state: &'static str,
    },
    /// It counts as gone.
    #[error("it has expired")]
    Expired,
    /// What is to be decided on is not what was seen.
    #[error("it stands at version {standing} by now, and version {seen} was meant")]
    Changed {
        /// What stands.
        standing: u64,
        /// What was seen.
        seen: u64,
    },
}

/// An output that the task accepts, of a size that can be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Edited(Value);

impl Edited {
    /// The output, as it will be stored.
    #[must_use]
    pub fn output(&self) -> &Value {
        &self.0
    }
}

/// Checks an edited output as a model's answer is checked. `message`: what the result was made for, where it is kept.
///
/// # Errors
/// What is wrong with it.
pub fn edited(
    text: &str,
    task: &dyn Task,
    message: Option<&KeptMessage>,
    limits: &Limits,
) -> Result<Edited, Violations> {
    let job = message.and_then(|message| job::parse(&message.body, usize::MAX).ok());
    let input = job.map_or(Value::Null, |job| job.input);
    let output = validate(task, &input, text)?;
    let bytes = output.to_string().len();
    if bytes > limits.output_bytes_max {
        let limit = limits.output_bytes_max;
        return Err(Violations(vec![format!("The output has {bytes} bytes, and the limit is {limit}.")]));
    }
    Ok(Edited(output))
}

/// What a rejection asks for next.
#[derive(Debug, Clone, PartialEq)]
pub enum Rejecting {
    /// Write this, then send the dead letter of what is written.
    Write(Box<RecordWrite>),
    /// It is written; its dead letter is not known to be sent: send it.
    Send(Box<Record>),
    /// All is done.
    IsSent,
}

/// The result on which a person may decide. `seen`: the version that they looked at, where they say it.
///
/// # Errors
/// When there is none.
pub fn waiting(record: &Record, seen: Option<u64>, now_ms: u64) -> Result<&Done, NotWaiting> {
    if record.expires_at_ms <= now_ms {
        return Err(NotWaiting::Expired);
    }
    match &record.state {
        State::Done(done) if done.needs_review && !done.reviewed => match seen {
            Some(seen) if seen != record.version => {
                Err(NotWaiting::Changed { standing: record.version, seen })
            }
            _ => Ok(done),
        },
        state => Err(match record.review() {
            Some(review) => NotWaiting::Reviewed { decision: review.decision.clone(), by: review.by.clone() },
            None => NotWaiting::Other { state: state.as_str() },
        }),
    }
}

impl Reviewer<'_> {
    /// Lets the result stand.
    ///
    /// # Errors
    /// When it does not wait for that.
    pub fn accept(&self, record: &Record, seen: Option<u64>) -> Result<RecordWrite, NotWaiting> {
        let done = waiting(record, seen, self.now_ms)?.clone();
        Ok(self.decided(record, "accepted", State::Done(Box::new(Done { reviewed: true, ..done }))))
    }

    /// Puts another output in its place.
    ///
    /// # Errors
    /// When it does not wait for that.
    pub fn edit(
        &self,
        record: &Record,
        seen: Option<u64>,
        edited: Edited,
    ) -> Result<RecordWrite, NotWaiting> {
        let done = Done { output: edited.0, reviewed: true, ..waiting(record, seen, self.now_ms)?.clone() };
        Ok(self.decided(record, "edited", State::Done(Box::new(done))))
    }

    /// Makes a failure of it, or goes on with a rejection that was not finished.
    ///
    /// # Errors
    /// When it does not wait for that.
    pub fn reject(
        &self,
        record: &Record,
        seen: Option<u64>,
        limits: &Limits,
    ) -> Result<Rejecting, NotWaiting> {
        let is_rejected =
            matches!(&record.state, State::Failed(failed) if failed.reason == FailureReason::ReviewRejected);
        if is_rejected && record.review().is_some() && record.expires_at_ms > self.now_ms {
            return Ok(if record.letter_is_sent() {
                Rejecting::IsSent
            } else {
                Rejecting::Send(Box::new(record.clone()))
            });
        }
        let done = waiting(record, seen, self.now_ms)?;
        let detail = format!(
            "{} rejected the result that waited for review: {}. Mend the task or the job, then send it again.",
            self.by,
            self.reason.trim_end_matches('.')
        );
        let state = State::Failed(Box::new(Failed {
            reason: FailureReason::ReviewRejected,
            detail: cut(&detail, DETAIL_CHARS_MAX),
            failed_at_ms: self.now_ms,
            request_id: None,
            excerpt: Some(cut(&done.output.to_string(), EXCERPT_CHARS_MAX)),
            revision: done.revision.clone(),
        }));
        let mut write = self.decided(record, "rejected", state);
        let expires_at_ms = self.now_ms + limits.failure_expiry_ms;
        write.record.expires_at_ms = write.record.expires_at_ms.max(expires_at_ms);
        Ok(Rejecting::Write(Box::new(write)))
    }

    fn decided(&self, record: &Record, decision: &str, state: State) -> RecordWrite {
        let (version, expect) = (record.version + 1, Expect::exactly(record));
        let reviewed = Reviewed {
            version,
            by: self.by.to_owned(),
            at_ms: self.now_ms,
            decision: decision.to_owned(),
            reason: self.reason.to_owned(),
        };
        let record = Record {
            version,
            token: self.token.to_owned(),
            state,
            // The message stays where it is.
            kept: record.kept_message().map(|kept| Kept { version, ..kept }),
            reviewed: Some(reviewed),
            ..record.clone()
        };
        RecordWrite { record, expect }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::tombstone;
    use crate::input_hash::InputHash;
    use crate::kept::keep;
    use crate::message::Original;
    use crate::model::Prompt;
    use crate::record::Revision;
    use serde_json::json;
    use std::sync::Arc;

    const NOW_MS: u64 = 5_000;

    /// Accepts `{"n": 1}` and nothing else.
    struct One(Arc<Value>);

    impl Task for One {
        fn name(&self) -> &'static str {
            "one"
        }
        fn prompt(&self, _: &Value) -> Result<Prompt, Violations> {
            Err(Violations(vec![]))
        }
        fn schema(&self) -> &Arc<Value> {
            &self.0
        }
        fn accept(&self, answer: Value) -> Result<Value, Violations> {
            if answer == json!({"n": 1}) {
                Ok(answer)
            } else {
                Err(Violations(vec!["It is not 1.".to_owned()]))
            }
        }
        fn fallback(&self, _: &Value) -> Option<Value> {
            None
        }
        fn output_tokens_max(&self) -> u32 {
            1
        }
        fn overhead_bytes(&self) -> usize {
            1
        }
        fn fingerprint(&self) -> &'static str {
            "one"
        }
    }

    fn record() -> Record {
        let done = Done {
            output: json!({"n": 0}),
            needs_review: true,
            reviewed: false,
            revision: Revision::default(),
            model: "m".to_owned(),
            finished_at_ms: 1_000,
        };
        let mut record = tombstone(&InputHash::of_body("x"), None, "worker", 1_000).record;
        (record.version, record.erased, record.expires_at_ms) = (3, None, NOW_MS + 10);
        record.state = State::Done(Box::new(done));
        let mut write = RecordWrite { record, expect: Expect::Fence };
        let _ = keep(&mut write, Original { body: "b", message_id: "m", attributes: &[], group: None });
        write.record
    }

    fn ann() -> Reviewer<'static> {
        Reviewer { by: "ann", reason: "Read it.", token: "ann's", now_ms: NOW_MS }
    }

    fn edit() -> Edited {
        edited(r#"{"n":1}"#, &One(Arc::default()), None, &Limits::default()).unwrap()
    }

    fn rejection(record: &Record) -> RecordWrite {
        match ann().reject(record, None, &Limits::default()).unwrap() {
            Rejecting::Write(write) => *write,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_decision_is_one_write_over_what_was_read_and_says_whose_it_is() {
        let standing = record();
        let (accepted, rejected) = (ann().accept(&standing, Some(3)).unwrap(), rejection(&standing));
        let edited = ann().edit(&standing, None, edit()).unwrap();
        for (write, decision, output) in [
            (&accepted, "accepted", Some(json!({"n": 0}))),
            (&edited, "edited", Some(json!({"n": 1}))),
            (&rejected, "rejected", None),
        ] {
            assert!(write.allowed(Some(&standing)), "{decision}");
            let review = write.record.review().unwrap();
            assert_eq!(
                (review.decision.as_str(), review.by.as_str(), review.reason.as_str(), review.at_ms),
                (decision, "ann", "Read it.", NOW_MS)
            );
            assert_eq!((write.record.version, write.record.token.as_str()), (4, "ann's"));
            // Whoever read the same, or had the claim, comes too late.
            for late in [&accepted, &edited, &rejected] {
                assert!(!late.allowed(Some(&write.record)), "{decision}");
            }
            assert!(
                !RecordWrite { record: standing.clone(), expect: Expect::Fence }.allowed(Some(&write.record))
            );
            let kept = write.record.kept_message().unwrap();
            assert_eq!((kept.claim_version, kept.parts), (2, 1), "its message stays");
            match (&write.record.state, output) {
                (State::Done(done), Some(output)) => {
                    assert_eq!((&done.output, done.reviewed), (&output, true))
                }
                (State::Failed(failed), None) => {
                    assert_eq!(failed.reason, FailureReason::ReviewRejected);
                    assert!(failed.detail.starts_with("ann rejected") && failed.detail.contains("Read it."));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(accepted.record.expires_at_ms, standing.expires_at_ms);
        assert_eq!(rejected.record.expires_at_ms, NOW_MS + Limits::default().failure_expiry_ms);
    }

    #[test]
    fn a_rejection_keeps_what_the_record_said_and_what_has_expired_is_not_decided_on() {
        let mut long = record();
        long.expires_at_ms = u64::MAX;
        if let State::Done(done) = &mut long.state {
            done.revision.function_version = 7;
        }
        let rejected = rejection(&long).record;
        assert_eq!(rejected.expires_at_ms, u64::MAX);
        let State::Failed(failed) = &rejected.state else { panic!() };
        assert_eq!((failed.revision.function_version, failed.excerpt.as_deref()), (7, Some(r#"{"n":0}"#)));
        let gone = Record { expires_at_ms: NOW_MS, ..rejected };
        assert!(ann().reject(&gone, None, &Limits::default()).is_err());
    }

    #[test]
    fn nothing_is_decided_on_what_does_not_wait() {
        let accepted = ann().accept(&record(), None).unwrap().record;
        let open = Record { state: State::Open, ..record() };
        let expired = Record { expires_at_ms: NOW_MS, ..record() };
        for (standing, seen, why) in [
            (record(), Some(2), "version 3"),
            (accepted, None, "accepted by ann"),
            (rejection(&record()).record, None, "rejected by ann"),
            (open, None, "it is open"),
            (expired, None, "expired"),
        ] {
            let refused = [
                ann().accept(&standing, seen).err(),
                ann().edit(&standing, seen, edit()).err(),
                waiting(&standing, seen, NOW_MS).err(),
            ];
            for refused in refused {
                assert!(refused.as_ref().unwrap().to_string().contains(why), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_rejection_that_was_not_finished_is_gone_on_with() {
        let rejected = rejection(&record()).record;
        let next = |record: &Record| ann().reject(record, None, &Limits::default());
        assert_eq!(next(&rejected), Ok(Rejecting::Send(Box::new(rejected.clone()))));
        let sent = Record { letter_version: Some(rejected.version), ..rejected.clone() };
        assert_eq!(next(&sent), Ok(Rejecting::IsSent));
        // Of another version, the word says nothing of this failure.
        let later = Record { version: rejected.version + 1, ..rejected };
        assert!(next(&later).is_err());
        assert!(next(&ann().accept(&record(), None).unwrap().record).is_err());
    }

    #[test]
    fn an_edit_is_checked_like_an_answer() {
        let small = Limits { output_bytes_max: 6, ..Limits::default() };
        for (text, limits, said) in [
            (r#"{"n":1}"#, Limits::default(), None),
            (r#"{"n": 1}"#, Limits { output_bytes_max: 7, ..Limits::default() }, None),
            ("```json\n{\"n\": 1}\n```", Limits::default(), None),
            (r#"{"n":2}"#, Limits::default(), Some("It is not 1.")),
            (r#"{"n":1,"n":1}"#, Limits::default(), Some("not one JSON object")),
            ("", Limits::default(), Some("no JSON object")),
            (r#"{"n":1}"#, small, Some("7 bytes")),
        ] {
            let checked = edited(text, &One(Arc::default()), None, &limits);
            match said {
                None => assert_eq!(checked.unwrap().output(), &json!({"n": 1}), "{text}"),
                Some(said) => assert!(checked.unwrap_err().0[0].contains(said), "{text}"),
            }
        }
    }
}
