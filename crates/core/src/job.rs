//! The message that asks for work: `{"task": "...", "input": {...}, "reference": "..."}`.

use serde_json::Value;

use crate::failure::{FailureReason, Rejection};
use crate::json;

/// The longest `reference`, in bytes: room for a URL or a ticket number, too little for a document.
pub const REFERENCE_BYTES_MAX: usize = 1_024;
/// The longest task name, in bytes.
pub const TASK_BYTES_MAX: usize = 64;

/// One job, as its sender wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Which kind of work.
    pub task: String,
    /// What to work on; checked by the task's input type later.
    pub input: Value,
    /// The sender's own name for it; not part of the key.
    pub reference: Option<String>,
}

/// Parses a message body.
///
/// # Errors
/// `invalid_message`, with a detail that tells the sender what to change.
pub fn parse(body: &str, body_bytes_max: usize) -> Result<Job, Rejection> {
    let invalid = |detail: String| Rejection::new(FailureReason::InvalidMessage, detail);
    if body.len() > body_bytes_max {
        return Err(invalid(format!(
            "The body has {} bytes and the limit is {body_bytes_max}: send less text, or a reference to it.",
            body.len()
        )));
    }
    let value = json::parse(body).map_err(|fault| invalid(format!("The body cannot be read: {fault}.")))?;
    json::exact_numbers(body).map_err(|fault| invalid(format!("The body cannot be read: {fault}.")))?;
    let Value::Object(mut members) = value else {
        return Err(invalid(format!("The body is {}, not an object with task and input.", kind(&value))));
    };
    let task = match members.remove("task") {
        Some(Value::String(task)) if !task.is_empty() && task.len() <= TASK_BYTES_MAX => task,
        Some(Value::String(_)) => {
            return Err(invalid(format!("The member task must have 1 to {TASK_BYTES_MAX} bytes.")));
        }
        Some(other) => return Err(invalid(format!("The member task is {}, not a string.", kind(&other)))),
        None => return Err(invalid("The member task is missing: name the task to run.".to_owned())),
    };
    let input = members.remove("input").ok_or_else(|| {
        invalid("The member input is missing: give the task something to work on.".to_owned())
    })?;
    let reference = match members.remove("reference") {
        None | Some(Value::Null) => None,
        Some(Value::String(reference)) if reference.len() <= REFERENCE_BYTES_MAX => Some(reference),
        Some(Value::String(_)) => {
            return Err(invalid(format!("The member reference is longer than {REFERENCE_BYTES_MAX} bytes.")));
        }
        Some(other) => {
            return Err(invalid(format!("The member reference is {}, not a string.", kind(&other))));
        }
    };
    if let Some(name) = members.keys().next() {
        let name = json::quotable(name);
        return Err(invalid(format!(
            "The member \"{name}\" is unknown: a job has task, input and, if wanted, reference."
        )));
    }
    Ok(Job { task, input, reference })
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_task_input_and_perhaps_a_reference() {
        let job = parse(r#"{"task":"t","input":{"a":1},"reference":"r"}"#, 100).unwrap();
        assert_eq!((job.task.as_str(), job.reference.as_deref()), ("t", Some("r")));
        assert_eq!(parse(r#"{"input":[],"task":"t"}"#, 100).unwrap().reference, None);
    }

    #[test]
    fn every_other_body_is_refused_with_its_own_message() {
        for (body, expected) in [
            ("[]", "The body is an array, not an object with task and input."),
            ("hello", "The body cannot be read: it is not valid JSON at column 1: expected value."),
            ("{}", "The member task is missing: name the task to run."),
            (r#"{"task":1,"input":{}}"#, "The member task is a number, not a string."),
            (r#"{"task":{},"input":{}}"#, "The member task is an object, not a string."),
            (r#"{"task":null,"input":{}}"#, "The member task is null, not a string."),
            (r#"{"task":true,"input":{}}"#, "The member task is a boolean, not a string."),
            (r#""task""#, "The body is a string, not an object with task and input."),
            (r#"{"task":"","input":{}}"#, "The member task must have 1 to 64 bytes."),
            (r#"{"task":"t"}"#, "The member input is missing: give the task something to work on."),
            (
                r#"{"task":"t","input":{},"priority":1}"#,
                "The member \"priority\" is unknown: a job has task, input and, if wanted, reference.",
            ),
            (r#"{"task":"t","input":{},"reference":7}"#, "The member reference is a number, not a string."),
            (
                r#"{"task":"t","task":"t","input":{}}"#,
                "The body cannot be read: the member \"task\" appears twice in one object: which one counts would be a guess, so remove one.",
            ),
            (
                r#"{"task":"t","input":{"id":9007199254740993}}"#,
                "The body cannot be read: the number that starts with 9007199254740993 is beyond ±(2^53 − 1) and would lose digits: send it as a string.",
            ),
        ] {
            let rejection = parse(body, 100).unwrap_err();
            assert_eq!(rejection.reason, FailureReason::InvalidMessage);
            assert_eq!(rejection.detail, expected, "{body}");
        }
        let long = format!(r#"{{"task":"t","input":"{}"}}"#, "x".repeat(100));
        assert_eq!(
            parse(&long, 100).unwrap_err().detail,
            "The body has 123 bytes and the limit is 100: send less text, or a reference to it."
        );
    }

    #[test]
    fn the_longest_body_and_names_that_are_allowed_are() {
        let body = |task: usize, reference: usize| {
            format!(r#"{{"task":"{}","input":1,"reference":"{}"}}"#, "t".repeat(task), "r".repeat(reference))
        };
        let longest = body(TASK_BYTES_MAX, REFERENCE_BYTES_MAX);
        assert!(parse(&longest, longest.len()).is_ok());
        for (body, bytes_max, said) in [
            (longest.clone(), longest.len() - 1, "the limit is"),
            (body(TASK_BYTES_MAX + 1, 1), 10_000, "1 to 64 bytes"),
            (body(1, REFERENCE_BYTES_MAX + 1), 10_000, "longer than 1024 bytes"),
        ] {
            let detail = parse(&body, bytes_max).unwrap_err().detail;
            assert!(detail.contains(said), "{detail}");
        }
        assert_eq!(parse(r#"{"task":"t","input":null,"reference":null}"#, 100).unwrap().reference, None);
    }
}
