//! JSONTestSuite as message bodies, as the input of a job, and as what a model said.
//!
//! An SQS body is a string, so that a file that is not UTF-8 cannot arrive as one; all of those are `n_` or `i_`.

use nightshift_core::input_hash::canonical_json;
use nightshift_core::output_validation::extract;
use nightshift_core::{job, json};
use nightshift_tests::cases;
use serde_json::Value;

const BODY_BYTES_MAX: usize = 900 * 1_024;

/// Valid JSON (`y_`) that no job may hold, and the words that its sender reads.
const REFUSED_AS_A_JOB: [(&str, &str); 2] = [
    (
        "y_object_duplicated_key.json",
        "The body cannot be read: the member \"a\" appears twice in one object: which one counts would be a guess, so remove one.",
    ),
    (
        "y_object_duplicated_key_and_value.json",
        "The body cannot be read: the member \"a\" appears twice in one object: which one counts would be a guess, so remove one.",
    ),
];

fn suite(part: &str, count: usize) -> Option<Vec<(String, Option<String>)>> {
    let files = cases::files(&cases::folder("json_test_suite")?.join(part));
    assert_eq!(files.len(), count);
    Some(files.into_iter().map(|(name, bytes)| (name, String::from_utf8(bytes).ok())).collect())
}

fn as_input(text: &str) -> String {
    format!("{{\"task\":\"t\",\"input\":{text}}}")
}

#[test]
fn as_messages_valid_json_is_read_and_invalid_json_is_not() {
    let Some(files) = suite("test_parsing", 318) else { return };
    let (mut read, mut refused) = (0, 0);
    for (name, text) in files {
        let Some(text) = text else {
            assert!(!name.starts_with("y_"), "{name} is not UTF-8");
            continue;
        };
        let parsed = json::parse(&text);
        // None of them is a job: an object without task and input, or no object at all.
        let as_body = job::parse(&text, BODY_BYTES_MAX).unwrap_err();
        assert!(as_body.detail.ends_with('.'), "{name}: a sentence: {}", as_body.detail);
        let as_input = job::parse(&as_input(&text), BODY_BYTES_MAX);
        let refusal = REFUSED_AS_A_JOB.iter().find(|(refused, _)| *refused == name);
        match (name.get(..2).unwrap(), refusal) {
            ("y_", None) => {
                let expected: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(parsed.as_ref(), Ok(&expected), "{name}");
                assert_eq!(as_input.unwrap_or_else(|r| panic!("{name}: {r}")).input, expected, "{name}");
                assert!(!as_body.detail.contains("cannot be read"), "{name}: {}", as_body.detail);
                read += 1;
            }
            ("y_", Some((_, message))) => {
                assert!(serde_json::from_str::<Value>(&text).is_ok(), "{name} is JSON");
                assert_eq!(as_body.detail, *message, "{name}");
                assert_eq!(as_input.unwrap_err().detail, *message, "{name}");
            }
            ("n_", _) => {
                assert!(parsed.is_err(), "{name} was read: {parsed:?}");
                assert!(as_input.is_err(), "{name} was read as an input: {as_input:?}");
                assert!(as_body.detail.contains("cannot be read"), "{name}: {}", as_body.detail);
                refused += 1;
            }
            // Either is fine; what is read must be what serde_json reads.
            ("i_", _) => {
                if let Ok(value) = parsed {
                    assert_eq!(value, serde_json::from_str::<Value>(&text).unwrap(), "{name}");
                }
            }
            (other, _) => panic!("{other}{name}"),
        }
    }
    assert_eq!(read, 93, "all y_ but the two with doubled members");
    assert!(refused > 150, "{refused}");
}

#[test]
fn as_replies_valid_objects_are_taken_as_they_are_and_nothing_invalid_is() {
    let Some(files) = suite("test_parsing", 318) else { return };
    for (name, text) in files {
        let Some(text) = text else { continue };
        let extracted = extract(&text);
        let strict = json::parse(&text).ok().filter(Value::is_object);
        match name.get(..2).unwrap() {
            "y_" => assert_eq!(extracted.ok(), strict, "{name}"),
            "n_" => assert!(extracted.is_err(), "{name}: {extracted:?} was taken for an answer"),
            _ => {
                if let (Ok(value), Some(strict)) = (extracted, strict) {
                    assert_eq!(value, strict, "{name}");
                }
            }
        }
    }
}

/// What becomes of inputs that look alike: the canonical form, or the first words of the refusal.
/// A fraction may have more digits than a double; only integers that would lose some are refused.
const LOOK_ALIKES: [(&str, &str); 19] = [
    ("number_-9223372036854775808.json", "the number that starts with -9223372036854775808"),
    ("number_-9223372036854775809.json", "the number that starts with -9223372036854775809"),
    ("number_1.0.json", "[1]"),
    ("number_1.000000000000000005.json", "[1]"),
    ("number_1000000000000000.json", "[1000000000000000]"),
    ("number_10000000000000000999.json", "the number that starts with 10000000000000000999"),
    ("number_1e-999.json", "[0]"),
    ("number_1e6.json", "[1000000]"),
    ("number_9223372036854775807.json", "the number that starts with 9223372036854775807"),
    ("number_9223372036854775808.json", "the number that starts with 9223372036854775808"),
    ("object_key_nfc_nfd.json", "{\"e\u{301}\":\"NFD\",\"\u{e9}\":\"NFC\"}"),
    ("object_key_nfd_nfc.json", "{\"e\u{301}\":\"NFD\",\"\u{e9}\":\"NFC\"}"),
    ("object_same_key_different_values.json", "the member \"a\" appears twice in one object"),
    ("object_same_key_same_value.json", "the member \"a\" appears twice in one object"),
    ("object_same_key_unclear_values.json", "the member \"a\" appears twice in one object"),
    ("string_1_escaped_invalid_codepoint.json", "it is not valid JSON"),
    ("string_2_escaped_invalid_codepoints.json", "it is not valid JSON"),
    ("string_3_escaped_invalid_codepoints.json", "it is not valid JSON"),
    ("string_with_escaped_NULL.json", "[\"A\\u0000B\"]"),
];

#[test]
fn look_alikes_keep_their_difference_or_are_refused() {
    let Some(files) = suite("test_transform", 22) else { return };
    let mut outcomes = Vec::new();
    for (name, text) in &files {
        let Some(text) = text else { continue };
        let outcome = match job::parse(&as_input(text), BODY_BYTES_MAX) {
            Ok(job) => canonical_json(&job.input),
            Err(rejection) => {
                let why = rejection.detail.strip_prefix("The body cannot be read: ").unwrap();
                let end = [" at ", " is beyond", ":"].iter().filter_map(|end| why.find(end)).min();
                why[..end.unwrap_or(why.len())].to_owned()
            }
        };
        outcomes.push((name.as_str(), outcome));
    }
    let outcomes: Vec<_> = outcomes.iter().map(|(name, outcome)| (*name, outcome.as_str())).collect();
    assert_eq!(outcomes, LOOK_ALIKES);
}
