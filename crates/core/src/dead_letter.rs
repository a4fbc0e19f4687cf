//! A job that cannot succeed, with its failure on it.
//!
//! The body is the original, byte for byte, so that a native redrive works as it is; the failure is in message attributes.

use serde::{Deserialize, Serialize};

use crate::failure::{FailureReason, Stage};
use crate::input_hash::InputHash;
use crate::message::{ATTRIBUTES_MAX, Attribute, AttributeValue, MESSAGE_BYTES_MAX, Original};
use crate::record::{Failed, Record, State};
use crate::text::ascii_json;

/// Longest excerpt of an answer, in characters.
pub const EXCERPT_CHARS_MAX: usize = 2_000;
/// Longest detail, in characters.
pub const DETAIL_CHARS_MAX: usize = 2_000;

/// The three attributes that are ours.
pub const REASON_ATTRIBUTE: &str = "FailureReason";
/// The key of the record.
pub const HASH_ATTRIBUTE: &str = "InputHash";
/// Everything else, as JSON.
pub const CONTEXT_ATTRIBUTE: &str = "FailureContext";

/// The message for the `dead-letters` queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The original body.
    pub body: String,
    /// The sender's attributes and ours, in order.
    pub attributes: Vec<(String, Attribute)>,
    /// The sender's `MessageGroupId`: whose turn it is in a fair queue, after a redrive too.
    pub group: Option<String>,
}

impl DeadLetter {
    /// What SQS counts against `MESSAGE_BYTES_MAX`.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.body.len() + self.attributes.iter().map(|(name, attribute)| attribute.bytes(name)).sum::<usize>()
    }
}

/// What a redrive must find again: the part of the context that is never left out for want of room.
#[derive(Serialize)]
struct Essence<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<FailureReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_version: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    attributes_left_out: usize,
}

#[derive(Serialize)]
struct Context<'a> {
    #[serde(flatten)]
    essence: Essence<'a>,
    stage: Stage,
    detail: &'a str,
    attempts: u32,
    model_calls: u32,
    crashes: u32,
    cost_usd: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_request_id: Option<&'a str>,
    task: Option<&'a str>,
    task_revision: &'a str,
    source_message_id: &'a str,
    first_received_ms: u64,
    failed_at_ms: u64,
    redrives: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    excerpt: Option<&'a str>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The dead letter of a failed record, for the message that brought the job (or brought it again).
///
/// The sender's attributes are kept. Where they leave no room for three of ours, `FailureContext` carries everything;
/// where they leave none at all, the sender's last is left out and the context says so. What does not fit into the
/// message goes in this order: the excerpt, the rest of the context but for the record's version, the hash, the sender's
/// attributes from the last, the version, the reason; the ledger always has it all.
///
/// Returns `None` when the record has not failed.
#[must_use]
pub fn dead_letter(record: &Record, original: Original<'_>) -> Option<DeadLetter> {
    letter(record, Some(record.version), original)
}

/// The dead letter of a message whose record could not be written: `record` is what would have been.
///
/// It says no version of its own, because none stands; one that the message came with still says what it came from.
#[must_use]
pub fn letter_without_record(
    record: &Record,
    redrive_of: Option<u64>,
    original: Original<'_>,
) -> Option<DeadLetter> {
    letter(record, redrive_of, original)
}

fn letter(record: &Record, record_version: Option<u64>, original: Original<'_>) -> Option<DeadLetter> {
    let State::Failed(failed) = &record.state else { return None };
    let mut attributes: Vec<_> =
        original.attributes.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    let attributes_left_out = (attributes.len() + 1).saturating_sub(ATTRIBUTES_MAX);
    attributes.truncate(ATTRIBUTES_MAX - 1);
    let alone = attributes.len() + 3 > ATTRIBUTES_MAX;
    if !alone {
        attributes.push((REASON_ATTRIBUTE.to_owned(), Attribute::text(failed.reason.to_string())));
        attributes.push((HASH_ATTRIBUTE.to_owned(), Attribute::text(record.key.to_string())));
    }
    let group = original.group.map(str::to_owned);
    let mut letter = DeadLetter { body: original.body.to_owned(), attributes, group };
    let room = MESSAGE_BYTES_MAX.saturating_sub(letter.bytes() + CONTEXT_ATTRIBUTE.len() + "String".len());
    let essence = || Essence {
        reason: alone.then_some(failed.reason),
        input_hash: alone.then_some(record.key.as_str()),
        record_version,
        attributes_left_out,
    };
    let context = [failed.excerpt.as_deref(), None]
        .into_iter()
        .map(|excerpt| context(record, failed, original.message_id, essence(), excerpt))
        .find(|context| context.len() <= room)
        .or_else(|| (alone || record_version.is_some()).then(|| json(&essence())));
    if let Some(context) = context {
        letter.attributes.push((CONTEXT_ATTRIBUTE.to_owned(), Attribute::text(context)));
    }
    // A body may be as long as SQS allows.
    while letter.bytes() > MESSAGE_BYTES_MAX
        && let Some(index) = least_needed(&letter.attributes)
    {
        letter.attributes.remove(index);
    }
    Some(letter)
}

fn least_needed(attributes: &[(String, Attribute)]) -> Option<usize> {
    let hash = attributes.iter().position(|(name, _)| name == HASH_ATTRIBUTE);
    hash.or_else(|| attributes.iter().rposition(|(name, _)| !is_ours(name)))
        .or_else(|| attributes.len().checked_sub(1))
}

/// The version of the failed record whose dead letter a message was, if it was one of this input.
///
/// Whoever sends a message may give it any attribute: what is not as we write it says nothing, nor does the letter of
/// another input (a body that was mended and sent with the letter's attributes).
#[must_use]
pub fn redrive_of(attributes: &[(String, Attribute)], key: &InputHash) -> Option<u64> {
    #[derive(Deserialize)]
    struct Said {
        record_version: Option<u64>,
        input_hash: Option<String>,
    }
    let text = |wanted: &str| {
        let (_, attribute) = attributes.iter().find(|(name, _)| name == wanted)?;
        match &attribute.value {
            AttributeValue::Text(text) => Some(text.as_str()),
            AttributeValue::Bytes(_) => None,
        }
    };
    let said: Said = serde_json::from_str(text(CONTEXT_ATTRIBUTE)?).ok()?;
    let of = text(HASH_ATTRIBUTE).or(said.input_hash.as_deref());
    said.record_version.filter(|_| of.is_none_or(|hash| hash == key.as_str()))
}

/// Whether an attribute is one that a dead letter of ours carries; a redriven message still has them.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    matches!(name, REASON_ATTRIBUTE | HASH_ATTRIBUTE | CONTEXT_ATTRIBUTE)
}

fn context(
    record: &Record,
    failed: &Failed,
    message_id: &str,
    essence: Essence<'_>,
    excerpt: Option<&str>,
) -> String {
    let context = Context {
        essence,
        stage: failed.stage(),
        detail: &failed.detail,
        attempts: record.budget.claims,
        model_calls: record.budget.calls,
        crashes: record.budget.crashes,
        cost_usd: crate::cost::usd(record.budget.cost_micro_usd),
        provider_request_id: failed.request_id.as_deref(),
        task: record.task.as_deref(),
        task_revision: &failed.revision.hash,
        source_message_id: message_id,
        first_received_ms: record.first_received_ms,
        failed_at_ms: failed.failed_at_ms,
        redrives: record.redrives,
        excerpt,
    };
    json(&context)
}

fn json(value: &impl Serialize) -> String {
    // Serialising strings and numbers into memory cannot fail; an empty context would still be a dead letter.
    ascii_json(&serde_json::to_string(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input_hash::InputHash;
    use crate::record::{Budget, Revision};

    fn failed(excerpt: Option<String>) -> Record {
        Record {
            key: InputHash::of_body("x"),
            task: Some("categorize_ticket".to_owned()),
            reference: None,
            version: 2,
            token: "token".to_owned(),
            state: State::Failed(Box::new(Failed {
                reason: FailureReason::InvalidOutput,
                detail: "Ärger".to_owned(),
                failed_at_ms: 2_000,
                request_id: Some("req_1".to_owned()),
                excerpt,
                revision: Revision { hash: "abc".to_owned(), built_at_ms: 1, function_version: 1 },
            })),
            previous: None,
            message_id: "m-1".to_owned(),
            sent_at_ms: 900,
            first_received_ms: 1_000,
            last_claimed_ms: 1_000,
            budget: Budget { claims: 1, calls: 3, cost_micro_usd: 1_500, ..Budget::default() },
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 9_000,
        }
    }

    fn sender(count: usize) -> Vec<(String, Attribute)> {
        (0..count).map(|n| (format!("own-{n}"), Attribute::text("v".to_owned()))).collect()
    }

    fn sent(record: &Record, body: &str, attributes: &[(String, Attribute)]) -> DeadLetter {
        dead_letter(record, Original { body, message_id: "m-1", attributes, group: None }).unwrap()
    }

    fn names(letter: &DeadLetter) -> Vec<&str> {
        letter.attributes.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn the_failure_is_in_three_attributes_and_the_body_is_untouched() {
        let letter = sent(&failed(Some("😀 prose".to_owned())), "bödy\r\n", &sender(1));
        assert_eq!(letter.body, "bödy\r\n");
        let text: Vec<_> = letter
            .attributes
            .iter()
            .map(|(name, attribute)| match &attribute.value {
                AttributeValue::Text(text) => format!("{name}: {text}"),
                AttributeValue::Bytes(_) => name.clone(),
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn the_senders_attributes_are_kept_as_long_as_there_is_room() {
        for (own, expected_own, ours) in [
            (0, 0, vec!["FailureReason", "InputHash", "FailureContext"]),
            (7, 7, vec!["FailureReason", "InputHash", "FailureContext"]),
            (8, 8, vec!["FailureContext"]),
            (9, 9, vec!["FailureContext"]),
            (10, 9, vec!["FailureContext"]),
        ] {
            let letter = sent(&failed(None), "b", &sender(own));
            let (kept, added) = names(&letter)
                .into_iter()
                .map(str::to_owned)
                .partition::<Vec<_>, _>(|n| n.starts_with("own-"));
            assert_eq!(
                (kept.len(), added),
                (expected_own, ours.into_iter().map(str::to_owned).collect()),
                "{own}"
            );
            let context = letter.attributes.iter().find(|(name, _)| name == CONTEXT_ATTRIBUTE);
            let AttributeValue::Text(context) = &context.unwrap().1.value else { panic!("{own}") };
            let context: serde_json::Value = serde_json::from_str(context).unwrap();
            let left_out = (own > expected_own).then(|| (own - expected_own).into());
            assert_eq!(context.get("attributes_left_out"), left_out.as_ref(), "{own}");
        }
    }

    #[test]
    fn a_redriven_letter_that_fails_again_carries_only_the_new_failure() {
        for own in [2, 8, 9, 10] {
            let first = sent(&failed(None), "b", &sender(own));
            let again = Record { version: 5, ..failed(None) };
            let second = sent(&again, "b", &first.attributes);
            assert_eq!(names(&first), names(&second), "{own}");
            let key = again.key.clone();
            assert_eq!(redrive_of(&first.attributes, &key), Some(2), "{own}");
            assert_eq!(redrive_of(&second.attributes, &key), Some(5), "{own}");
        }
    }

    #[test]
    fn what_does_not_fit_goes_excerpt_first() {
        let record = failed(Some("e".repeat(2_000)));
        let body = |room: usize| "b".repeat(MESSAGE_BYTES_MAX - room);
        for (room, has_context, has_excerpt) in
            [(4_000, true, true), (1_500, true, false), (300, true, false)]
        {
            let letter = sent(&record, &body(room), &[]);
            assert_eq!(redrive_of(&letter.attributes, &record.key), Some(2), "{room}");
            assert!(letter.bytes() <= MESSAGE_BYTES_MAX);
            let context = letter.attributes.iter().find(|(name, _)| name == CONTEXT_ATTRIBUTE);
            assert_eq!(context.is_some(), has_context, "{room}");
            let excerpt = context
                .is_some_and(|(_, a)| matches!(&a.value, AttributeValue::Text(t) if t.contains("excerpt")));
            assert_eq!(excerpt, has_excerpt, "{room}");
        }
    }

    #[test]
    fn the_last_byte_of_a_message_is_used() {
        let record = failed(Some("e".repeat(200)));
        let whole = sent(&record, "", &[]);
        let overhead = whole.bytes();
        let fits = sent(&record, &"b".repeat(MESSAGE_BYTES_MAX - overhead), &[]);
        assert_eq!((fits.bytes(), &fits.attributes), (MESSAGE_BYTES_MAX, &whole.attributes));
        let one_more = sent(&record, &"b".repeat(MESSAGE_BYTES_MAX - overhead + 1), &[]);
        assert!(one_more.bytes() < MESSAGE_BYTES_MAX - 200, "the excerpt is gone");
    }

    #[test]
    fn a_body_at_the_limit_of_sqs_can_still_be_buried() {
        let record = failed(None);
        let reason = "FailureReason";
        let context = "FailureContext";
        for (room, kept) in [
            (176, vec!["own-0", "own-1", reason, "InputHash", context]),
            (175, vec!["own-0", "own-1", reason, context]),
            (97, vec!["own-0", "own-1", reason, context]),
            (96, vec!["own-0", reason, context]),
            (85, vec!["own-0", reason, context]),
            (84, vec![reason, context]),
            (73, vec![reason, context]),
            (72, vec![reason]),
            (33, vec![reason]),
            (32, vec![]),
            (0, vec![]),
        ] {
            let letter = sent(&record, &"b".repeat(MESSAGE_BYTES_MAX - room), &sender(2));
            assert_eq!(names(&letter), kept, "{room}");
            assert!(letter.bytes() <= MESSAGE_BYTES_MAX);
            let version = kept.contains(&context).then_some(2);
            assert_eq!(redrive_of(&letter.attributes, &record.key), version, "{room}");
        }
    }

    #[test]
    fn attributes_that_fill_a_message_still_leave_it_its_reason_and_version() {
        let long = |name: &str| (name.to_owned(), Attribute::text("v".repeat(20_000)));
        let own: Vec<_> = (0..9).map(|n| long(&format!("own-{n}"))).collect();
        let sizes: usize = own.iter().map(|(name, attribute)| attribute.bytes(name)).sum();
        let record = failed(None);
        let letter = sent(&record, &"b".repeat(MESSAGE_BYTES_MAX - sizes), &own);
        assert!(letter.bytes() <= MESSAGE_BYTES_MAX);
        assert_eq!(names(&letter).len(), 9, "one of the sender's makes room: {:?}", names(&letter));
        let (_, context) = letter.attributes.last().unwrap();
        let AttributeValue::Text(context) = &context.value else { panic!("{context:?}") };
        assert!(context.contains("\"reason\":\"invalid_output\""), "{context}");
        assert_eq!(redrive_of(&letter.attributes, &record.key), Some(2));
    }

    #[test]
    fn a_letter_of_no_record_says_what_its_message_came_from() {
        let original = Original { body: "b", message_id: "m-1", attributes: &[], group: None };
        for came_from in [None, Some(7)] {
            let letter = letter_without_record(&failed(None), came_from, original).unwrap();
            assert_eq!(redrive_of(&letter.attributes, &failed(None).key), came_from);
        }
    }

    #[test]
    fn a_context_that_is_not_ours_says_nothing() {
        let key = InputHash::of_body("x");
        let said = |attributes: &[(&str, &str)]| {
            let attributes: Vec<_> = attributes
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Attribute::text((*value).to_owned())))
                .collect();
            redrive_of(&attributes, &key)
        };
        let ours = format!("{{\"record_version\":7,\"input_hash\":\"{key}\"}}");
        for (context, version) in [
            (ours.as_str(), Some(7)),
            (r#"{"record_version":7}"#, Some(7)),
            (r#"{"record_version":7,"input_hash":"another"}"#, None),
            // Of a release before the version was said.
            (r#"{"stage":"call","attempts":1}"#, None),
            (r#"{"record_version":null}"#, None),
            (r#"{"record_version":"7"}"#, None),
            (r#"{"record_version":-7}"#, None),
            (r#"{"record_version":7.5}"#, None),
            (r#"{"record_version":18446744073709551616}"#, None),
            (r#"{"record_version":7,"record_version":8}"#, None),
            ("[7]", None),
            ("7", None),
            ("the disk was full", None),
            ("", None),
        ] {
            assert_eq!(said(&[(CONTEXT_ATTRIBUTE, context)]), version, "{context}");
        }
        assert_eq!(said(&[]), None);
        let context = (CONTEXT_ATTRIBUTE, r#"{"record_version":7}"#);
        assert_eq!(said(&[context, (HASH_ATTRIBUTE, key.as_str())]), Some(7));
        assert_eq!(said(&[context, (HASH_ATTRIBUTE, "another")]), None, "a body that was mended");
        let bytes = Attribute { data_type: "Binary".to_owned(), value: AttributeValue::Bytes(vec![b'{']) };
        assert_eq!(redrive_of(&[(CONTEXT_ATTRIBUTE.to_owned(), bytes)], &key), None);
    }

    #[test]
    fn a_letter_stays_in_its_senders_group() {
        for group in [Some("tenant-1"), None] {
            let original = Original { body: "b", message_id: "m-1", attributes: &[], group };
            assert_eq!(dead_letter(&failed(None), original).unwrap().group.as_deref(), group);
            assert_eq!(letter_without_record(&failed(None), None, original).unwrap().group.as_deref(), group);
        }
    }

    #[test]
    fn only_a_failed_record_has_a_dead_letter() {
        let mut record = failed(None);
        record.state = State::Open;
        assert_eq!(
            dead_letter(&record, Original { body: "b", message_id: "m", attributes: &[], group: None }),
            None
        );
    }
}
