//! Whether a message is one of those that were asked for.

use serde::Deserialize;

use super::request::Request;
use crate::dead_letter::{CONTEXT_ATTRIBUTE, REASON_ATTRIBUTE, redrive_of};
use crate::input_hash::InputHash;
use crate::job;
use crate::message::{Attribute, AttributeValue};
use crate::record::{Record, State};

/// What is known of a job that waits in `dead-letters` or `crashed`, from its message or from its record.
///
/// Whoever sends a message may write anything into it: what is not as we write it says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The key under which the worker will look for its record.
    pub key: InputHash,
    /// The task, where it is a job.
    pub task: Option<String>,
    /// The sender's reference.
    pub reference: Option<String>,
    /// The word for why it failed, of whichever release.
    pub reason: Option<String>,
    /// When it failed, in milliseconds since 1970; of a message that does not say so, when it was sent.
    pub failed_at_ms: u64,
    /// The version of the failed record that it tells of.
    pub version: Option<u64>,
}

/// What becomes of a message that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// It is sent.
    Chosen,
    /// It is not one of those that were asked for.
    NotChosen,
    /// It came after the redrive began: what was sent and failed again is no part of it, or it would never end.
    Newer,
}

impl Letter {
    /// What a message of one of the two queues says. The body decides on key, task and reference, as it does for the
    /// worker; `body_bytes_max` is the worker's own limit.
    #[must_use]
    pub fn of_message(
        body: &str,
        attributes: &[(String, Attribute)],
        sent_at_ms: u64,
        body_bytes_max: usize,
    ) -> Self {
        #[derive(Deserialize)]
        struct Said {
            reason: Option<String>,
            failed_at_ms: Option<u64>,
        }
        let said = text(attributes, CONTEXT_ATTRIBUTE).and_then(|it| serde_json::from_str::<Said>(it).ok());
        let (reason, failed_at_ms) = said.map_or((None, None), |said| (said.reason, said.failed_at_ms));
        let (key, task, reference) = match job::parse(body, body_bytes_max) {
            Ok(job) => (InputHash::of_job(&job.task, &job.input), Some(job.task), job.reference),
            Err(_) => (InputHash::of_body(body), None, None),
        };
        Self {
            version: redrive_of(attributes, &key),
            key,
            task,
            reference,
            reason: text(attributes, REASON_ATTRIBUTE).map(str::to_owned).or(reason),
            failed_at_ms: failed_at_ms.unwrap_or(sent_at_ms),
        }
    }

    /// What a failed record says; `None` for any other.
    #[must_use]
    pub fn of_record(record: &Record) -> Option<Self> {
        let State::Failed(failed) = &record.state else { return None };
        Some(Self {
            key: record.key.clone(),
            task: record.task.clone(),
            reference: record.reference.clone(),
            reason: Some(failed.reason.to_string()),
            failed_at_ms: failed.failed_at_ms,
            version: Some(record.version),
        })
    }
}

impl Request {
    /// Whether a job is one of those that are asked for.
    #[must_use]
    pub fn matches(&self, letter: &Letter) -> bool {
        let any = |list: &[String], word: Option<&String>| {
            list.is_empty() || word.is_some_and(|word| list.contains(word))
        };
        let reasons = self.reasons.is_empty()
            || letter
                .reason
                .as_deref()
                .is_some_and(|word| self.reasons.iter().any(|reason| reason.as_str() == word));
        reasons
            && any(&self.tasks, letter.task.as_ref())
            && any(&self.references, letter.reference.as_ref())
            && (self.keys.is_empty() || self.keys.contains(&letter.key))
            && self.failed_after_ms.is_none_or(|after_ms| letter.failed_at_ms >= after_ms)
            && self.failed_before_ms.is_none_or(|before_ms| letter.failed_at_ms < before_ms)
    }

    /// What becomes of a message that was sent to its queue at `sent_at_ms`, in a redrive that began at `began_ms`.
    #[must_use]
    pub fn choose(&self, letter: &Letter, sent_at_ms: u64, began_ms: u64) -> Choice {
        if !self.matches(letter) {
            Choice::NotChosen
        } else if sent_at_ms >= began_ms {
            Choice::Newer
        } else {
            Choice::Chosen
        }
    }
}

fn text<'a>(attributes: &'a [(String, Attribute)], wanted: &str) -> Option<&'a str> {
    let (_, attribute) = attributes.iter().find(|(name, _)| name == wanted)?;
    match &attribute.value {
        AttributeValue::Text(text) => Some(text.as_str()),
        AttributeValue::Bytes(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::HASH_ATTRIBUTE;
    use crate::failure::FailureReason;
    use crate::redrive::Source;
    use proptest::prelude::*;
    use serde_json::json;

    const BODY: &str = r#"{"task":"t","input":{"n":1},"reference":"r-1"}"#;

    fn key() -> InputHash {
        InputHash::of_job("t", &json!({"n": 1}))
    }

    fn string(value: &str) -> Attribute {
        Attribute { data_type: "String".to_owned(), value: AttributeValue::Text(value.to_owned()) }
    }

    fn attributes(said: &[(&str, &str)]) -> Vec<(String, Attribute)> {
        said.iter().map(|(name, value)| ((*name).to_owned(), string(value))).collect()
    }

    fn letter(body: &str, said: &[(&str, &str)]) -> Letter {
        Letter::of_message(body, &attributes(said), 5_000, 1_000)
    }

    fn request(change: impl FnOnce(&mut Request)) -> Request {
        let mut request = Request::all(Source::DeadLetters, "r", "c");
        change(&mut request);
        request
    }

    #[test]
    fn a_message_says_what_its_body_and_our_attributes_say() {
        let key = key();
        let context = format!(r#"{{"failed_at_ms":4000,"record_version":7,"input_hash":"{key}"}}"#);
        let found = letter(
            BODY,
            &[
                (REASON_ATTRIBUTE, "refused"),
                (HASH_ATTRIBUTE, key.as_str()),
                (CONTEXT_ATTRIBUTE, &context),
                ("own", "x"),
            ],
        );
        assert_eq!(
            found,
            Letter {
                key,
                task: Some("t".to_owned()),
                reference: Some("r-1".to_owned()),
                reason: Some("refused".to_owned()),
                failed_at_ms: 4_000,
                version: Some(7),
            }
        );
        // One attribute that carries everything.
        let alone = letter(BODY, &[(CONTEXT_ATTRIBUTE, r#"{"reason":"refused","failed_at_ms":1}"#)]);
        assert_eq!((alone.reason.as_deref(), alone.failed_at_ms), (Some("refused"), 1));
    }

    #[test]
    fn what_is_not_ours_says_nothing() {
        for said in [
            "",
            "no JSON",
            "7",
            "[7]",
            "null",
            r#"{"reason":7}"#,
            r#"{"failed_at_ms":-1}"#,
            r#"{"failed_at_ms":1e300}"#,
            r#"{"failed_at_ms":18446744073709551616}"#,
            r#"{"failed_at_ms":"yesterday"}"#,
            r#"{"failed_at_ms":1,"failed_at_ms":2}"#,
        ] {
            let found = letter(BODY, &[(CONTEXT_ATTRIBUTE, said)]);
            assert_eq!((found.reason, found.failed_at_ms, found.version), (None, 5_000, None), "{said}");
        }
        let deep = "[".repeat(10_000);
        let found = letter(&deep, &[(CONTEXT_ATTRIBUTE, &deep)]);
        assert_eq!((found.key, found.task), (InputHash::of_body(&deep), None));
        let bytes = Attribute { data_type: "Binary".to_owned(), value: AttributeValue::Bytes(vec![1]) };
        let binary = [(REASON_ATTRIBUTE.to_owned(), bytes.clone()), (CONTEXT_ATTRIBUTE.to_owned(), bytes)];
        assert_eq!(Letter::of_message(BODY, &binary, 1, 1_000).reason, None);
    }

    #[test]
    fn a_body_over_the_workers_limit_has_the_workers_key() {
        let long = format!(r#"{{"task":"t","input":"{}"}}"#, "x".repeat(1_000));
        assert_eq!(letter(&long, &[]).key, InputHash::of_body(&long));
    }

    #[test]
    fn every_filter_must_hold_and_within_one_any() {
        let said = [(REASON_ATTRIBUTE, "refused"), (CONTEXT_ATTRIBUTE, r#"{"failed_at_ms":4000}"#)];
        let found = letter(BODY, &said);
        let strings = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        type Change = Box<dyn FnOnce(&mut Request)>;
        let cases: Vec<(Change, bool)> = vec![
            (Box::new(|_| ()), true),
            (Box::new(|r| r.reasons = vec![FailureReason::Refused]), true),
            (Box::new(|r| r.reasons = vec![FailureReason::Poison, FailureReason::Refused]), true),
            (Box::new(|r| r.reasons = vec![FailureReason::Poison]), false),
            (Box::new(move |r| r.tasks = strings(&["other", "t"])), true),
            (Box::new(move |r| r.tasks = strings(&["other"])), false),
            (Box::new(move |r| r.references = strings(&["r-1"])), true),
            (Box::new(move |r| r.references = strings(&["r-"])), false),
            (Box::new(|r| r.keys = vec![key()]), true),
            (Box::new(|r| r.keys = vec![InputHash::of_body(BODY)]), false),
            (Box::new(|r| r.failed_after_ms = Some(4_000)), true),
            (Box::new(|r| r.failed_after_ms = Some(4_001)), false),
            (Box::new(|r| r.failed_before_ms = Some(4_001)), true),
            (Box::new(|r| r.failed_before_ms = Some(4_000)), false),
            (
                Box::new(move |r| {
                    r.reasons = vec![FailureReason::Refused];
                    r.tasks = strings(&["other"]);
                }),
                false,
            ),
        ];
        for (change, matches) in cases {
            let request = request(change);
            assert_eq!(request.matches(&found), matches, "{request:?}");
        }
    }

    #[test]
    fn what_says_nothing_is_chosen_only_where_nothing_is_asked() {
        let stranger = letter("hello", &[]);
        assert!(request(|_| ()).matches(&stranger));
        for asks in [
            request(|r| r.reasons = FailureReason::ALL.to_vec()),
            request(|r| r.tasks = vec!["t".to_owned()]),
            request(|r| r.references = vec![String::new()]),
        ] {
            assert!(!asks.matches(&stranger), "{asks:?}");
        }
        // A word of a newer release is none that can be asked for.
        let newer = letter(BODY, &[(REASON_ATTRIBUTE, "bored")]);
        assert!(!request(|r| r.reasons = FailureReason::ALL.to_vec()).matches(&newer));
    }

    #[test]
    fn what_came_after_the_beginning_is_left_for_another_redrive() {
        let found = letter(BODY, &[]);
        let all = request(|_| ());
        assert_eq!(all.choose(&found, 4_999, 5_000), Choice::Chosen);
        assert_eq!(all.choose(&found, 5_000, 5_000), Choice::Newer);
        let none = request(|r| r.tasks = vec!["other".to_owned()]);
        assert_eq!(none.choose(&found, 4_999, 5_000), Choice::NotChosen);
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange_to_be_looked_at(
            body in ".*", reason in ".*", context in ".*", sent_at_ms: u64,
        ) {
            let said = attributes(&[(REASON_ATTRIBUTE, &reason), (CONTEXT_ATTRIBUTE, &context)]);
            let found = Letter::of_message(&body, &said, sent_at_ms, 1_000);
            prop_assert_eq!(found.reason, Some(reason));
            prop_assert!(request(|_| ()).matches(&Letter::of_message(&body, &said, sent_at_ms, 1_000)));
        }
    }
}
