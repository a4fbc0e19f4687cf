//! From what a model said to a value that may be stored, or to the list of what is wrong with it.
//!
//! **Invariant:** nothing is repaired. A text that needs repair is a rejection, because a guess that happens to parse
//! would be stored as if the model had said it.

use serde_json::Value;

use crate::conversation::SEPARATOR;
use crate::json;
use crate::task::{Task, VIOLATIONS_LISTED_MAX, Violations};
use crate::text::cut;
use crate::thinking::without_thinking;

/// The output of the task, if the answer holds exactly one that its type and all its rules accept, and that is not the
/// example of the prompt again.
///
/// # Errors
/// What is wrong, in sentences that the model can act on.
pub fn validate(task: &dyn Task, input: &Value, answer: &str) -> Result<Value, Violations> {
    let output = task.accept(extract(answer).map_err(|what| Violations(vec![what]))?)?;
    let copied = task.example().map(|example| example.copied_by(input, &output)).unwrap_or_default();
    if copied.is_empty() { Ok(output) } else { Err(Violations(copied)) }
}

/// The one JSON object of an answer: bare, in a fence, or with prose or thinking around it.
///
/// Thinking is taken off first, and what is in it is never the answer.
/// The first bracket of the text must open it, and no bracket may follow it: two candidates, a list, leftovers of a
/// damaged object or a cut-off one are all refused. So is anything but the end of a fence on the line on which it ends
/// (a comment, a comma, a second value): prose stands on lines of its own.
///
/// # Errors
/// One sentence that says what is wrong; it quotes nothing but a doubled member's name.
pub fn extract(answer: &str) -> Result<Value, String> {
    let answer = without_thinking(answer)?;
    let start = answer.find(['{', '[', '}', ']']).ok_or("The answer holds no JSON object.")?;
    let candidate = answer.get(start..).unwrap_or_default();
    if !candidate.starts_with('{') {
        return Err("The answer is not one JSON object: it starts with a list or a stray bracket.".to_owned());
    }
    let (value, length) = json::parse_prefix(candidate)
        .map_err(|fault| format!("The answer is not one JSON object: {fault}."))?;
    let (object, rest) = candidate.split_at_checked(length).unwrap_or((candidate, ""));
    json::exact_integers(object).map_err(|fault| format!("The answer is not one JSON object: {fault}."))?;
    if rest.contains(['{', '[', '}', ']']) {
        return Err(
            "The answer holds more than one JSON value, or remains of one: answer with one object only."
                .to_owned(),
        );
    }
    let rest_of_line = rest.lines().next().unwrap_or_default();
    if rest_of_line.contains(|c: char| c != '`' && !c.is_whitespace()) {
        return Err("The answer goes on after its JSON object: answer with one object only.".to_owned());
    }
    Ok(value)
}

/// Longest text with which a model is asked again, in bytes, what separates it from the prompt included. It is paid for,
/// and its cost is reserved.
pub const REASK_BYTES_MAX: usize = 4 * 1_024;
/// Longest violation in it, in characters.
const VIOLATION_CHARS_MAX: usize = 400;

/// What the model is told after an answer that was not accepted.
#[must_use]
pub fn reask_text(violations: &Violations) -> String {
    let before = "Your answer was not accepted, for these reasons:\n";
    let after = "Answer again: the whole JSON object, corrected, and nothing before or after it.";
    let mut text = before.to_owned();
    for violation in violations.0.iter().take(VIOLATIONS_LISTED_MAX) {
        let line = format!("- {}\n", cut(violation, VIOLATION_CHARS_MAX));
        if text.len() + line.len() + after.len() + SEPARATOR.len() <= REASK_BYTES_MAX {
            text.push_str(&line);
        }
    }
    text.push_str(after);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn one_object_is_found_wherever_it_stands() {
        for text in [
            r#"{"a":"b"}"#,
            "\n {\"a\":\"b\"}\n",
            "```json\n{\"a\":\"b\"}\n```",
            "```{\"a\":\"b\"}```",
            "Here it is (as asked):\n\n```\n{\"a\":\"b\"}\n```\nAnything else?",
            "- {\"a\":\"b\"}",
            "```json\n{\"a\":\"b\"}\n",
        ] {
            assert_eq!(extract(text), Ok(json!({"a": "b"})), "{text}");
        }
        assert_eq!(extract("```json\n{\"a\":\"```b]}```\"}\n```"), Ok(json!({"a": "```b]}```"})));
        assert_eq!(
            extract(r#"{"a":"{\"b\":1}"}"#),
            Ok(json!({"a": "{\"b\":1}"})),
            "nested JSON stays a string"
        );
        assert_eq!(
            extract(r#"{"n":12345678901234567890}"#),
            Ok(json!({"n": 12_345_678_901_234_567_890_u64}))
        );
    }

    #[test]
    fn a_model_is_told_what_is_wrong_within_what_was_reserved_for_it() {
        for (count, length, told) in [(1, 10, 1), (3, 80, 3), (30, 80, 10), (1, 100_000, 1), (10, 100_000, 4)]
        {
            let text = reask_text(&Violations(vec!["é".repeat(length); count]));
            assert_eq!(
                text.lines().filter(|line| line.starts_with("- é")).count(),
                told,
                "{count} of {length}"
            );
            assert!(text.len() <= REASK_BYTES_MAX, "{} bytes", text.len());
            assert!(text.ends_with("nothing before or after it."));
        }
    }

    #[test]
    fn what_was_reserved_is_used_to_the_last_byte_and_no_further() {
        let frame = reask_text(&Violations(vec![])).len() + SEPARATOR.len();
        let line = |bytes: usize| format!("{}{}", "é".repeat(bytes / 2), "x".repeat(bytes % 2));
        for (more, told) in [(0, 5), (1, 4)] {
            let mut violations = vec![line(800); 4];
            let left = REASK_BYTES_MAX - frame - 4 * "- \n".len() - 4 * 800;
            violations.push(line(left - "- \n".len() + more));
            let text = reask_text(&Violations(violations));
            assert_eq!(text.lines().filter(|line| line.starts_with("- ")).count(), told);
            assert_eq!(text.len() + SEPARATOR.len() == REASK_BYTES_MAX, more == 0);
        }
    }

    #[test]
    fn anything_that_needs_repair_or_a_guess_is_refused() {
        for (text, expected) in [
            ("", "The answer holds no JSON object."),
            ("I cannot do that.", "The answer holds no JSON object."),
            ("null", "The answer holds no JSON object."),
            ("[1,2]", "The answer is not one JSON object: it starts with a list or a stray bracket."),
            ("[]{}", "The answer is not one JSON object: it starts with a list or a stray bracket."),
            (
                "{\"a\":1",
                "The answer is not one JSON object: it is not valid JSON at column 6: EOF while parsing an object.",
            ),
            (
                "{\"a\":1,}",
                "The answer is not one JSON object: it is not valid JSON at column 8: trailing comma.",
            ),
            (
                "{'a':1}",
                "The answer is not one JSON object: it is not valid JSON at column 2: key must be a string.",
            ),
            (
                "{\"a\":1} {\"a\":2}",
                "The answer holds more than one JSON value, or remains of one: answer with one object only.",
            ),
            (
                "{\"a\":1}, \"b\":2}",
                "The answer holds more than one JSON value, or remains of one: answer with one object only.",
            ),
            ("{\"a\":1},", "The answer goes on after its JSON object: answer with one object only."),
            ("{\"a\":1} // done", "The answer goes on after its JSON object: answer with one object only."),
            ("f({\"a\":1});", "The answer goes on after its JSON object: answer with one object only."),
            ("{\"a\":1} \"x\"", "The answer goes on after its JSON object: answer with one object only."),
            (
                "{\"a\":1,\"a\":1}",
                "The answer is not one JSON object: the member \"a\" appears twice in one object: which one counts would be a guess, so remove one.",
            ),
            (
                "{\"a\":123123123123123123123123123123}",
                "The answer is not one JSON object: the number that starts with 123123123123123123123123 is beyond ±(2^53 − 1) and would lose digits: send it as a string.",
            ),
        ] {
            assert_eq!(extract(text), Err(expected.to_owned()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}\":,a-z0-9\\\\ \\n`]{0,80}") {
            if let Ok(value) = extract(&text) {
                prop_assert!(value.is_object());
            }
        }
    }
}
