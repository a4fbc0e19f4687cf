//! A job as it will be sent, and what of a line becomes which part of it.

use nightshift_core::json::{self, JsonFault};
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest `MessageGroupId` (SendMessage, "MessageGroupId").
const GROUP_CHARS_MAX: usize = 128;

/// One job, as it will be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// As it will be sent, which is as it was written where it is JSON.
    pub body: String,
    /// The `MessageGroupId`, which SQS shares its queue fairly by; none where no column names one.
    pub group: Option<String>,
}

/// A line, by its number from 1, and the job that it holds, or why it holds none.
pub type Line = (u64, Result<Draft, String>);

/// The body of a job.
pub fn job(task: &str, input: &Value, reference: Option<String>) -> String {
    match reference {
        Some(reference) => serde_json::json!({"task": task, "input": input, "reference": reference}),
        None => serde_json::json!({"task": task, "input": input}),
    }
    .to_string()
}

/// The text of a text, a number or a flag, and none of null. A number stays as it was written: `1.10` names something else
/// than `1.1`.
pub fn scalar(written: &RawValue) -> Result<Option<String>, &'static str> {
    match serde_json::from_str(written.get()) {
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Null) => Ok(None),
        Ok(Value::Array(_)) => Err("an array"),
        Ok(Value::Object(_)) => Err("an object"),
        _ => Ok(Some(written.get().to_owned())),
    }
}

/// The group that a text names, or why SQS takes none of that name.
pub fn group(value: &str, name: &str) -> Result<String, String> {
    let fits = (1..=GROUP_CHARS_MAX).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic());
    if fits {
        Ok(value.to_owned())
    } else {
        Err(format!(
            "The group in {name:?} must have 1 to {GROUP_CHARS_MAX} visible ASCII characters, as SQS wants of a MessageGroupId."
        ))
    }
}

/// SQS refuses U+FFFE and U+FFFF (SendMessage, "Message Body"); as JSON escapes they say the same. They can only stand in
/// strings of a JSON text, so a body that is none is left to the worker's parser to refuse.
pub fn sendable(body: String) -> String {
    if body.contains(['\u{fffe}', '\u{ffff}']) {
        body.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
    } else {
        body
    }
}

/// As strictly as the worker reads a body, because what is written anew no longer shows what was wrong with it.
pub fn strict(text: &str) -> Result<Value, JsonFault> {
    let value = json::parse(text)?;
    json::exact_numbers(text)?;
    Ok(value)
}
