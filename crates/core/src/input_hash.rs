//! The key of everything: SHA-256 over the RFC 8785 canonical form of what is asked.

use std::fmt;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Separates the hash of a job from every other use of SHA-256, and its version from later ones.
const JOB_DOMAIN: &[u8] = b"nightshift/job/v1\n";
/// The hash of a body that could not be parsed lives apart: it must never meet the hash of a job.
const BODY_DOMAIN: &[u8] = b"nightshift/body/v1\n";

/// 64 lower-case hex characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct InputHash(String);

impl InputHash {
    /// The key of a job: its task and its input, and nothing else of its message.
    #[must_use]
    pub fn of_job(task: &str, input: &Value) -> Self {
        Self::of(JOB_DOMAIN, canonical_json(&json!({"task": task, "input": input})).as_bytes())
    }

    /// The key of a body that is not a job.
    #[must_use]
    pub fn of_body(body: &str) -> Self {
        Self::of(BODY_DOMAIN, body.as_bytes())
    }

    /// A key read back from where we stored it; not checked.
    #[must_use]
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn of(domain: &[u8], bytes: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(domain).chain_update(bytes).finalize();
        Self(hex(&digest))
    }

    /// Which of so many shards it falls into; the first, where there is one.
    #[must_use]
    pub fn shard(&self, of: u32) -> u32 {
        let head = self.as_str().get(..8).and_then(|head| u32::from_str_radix(head, 16).ok());
        head.and_then(|head| head.checked_rem(of)).unwrap_or_default()
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InputHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
        text
    })
}

/// The canonical form of RFC 8785 (JSON Canonicalization Scheme): members sorted by UTF-16 code units,
/// numbers as ECMAScript prints them, no white space.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => write_number(out, number),
        Value::Array(items) => write_list(out, ('[', ']'), items, write_value),
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            write_list(out, ('{', '}'), sorted, |out, (name, value)| {
                write_string(out, name);
                out.push(':');
                write_value(out, value);
            });
        }
        Value::String(text) => write_string(out, text),
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
    }
}

fn write_list<T>(
    out: &mut String,
    (open, close): (char, char),
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(close);
}

fn write_number(out: &mut String, number: &serde_json::Number) {
    // ECMAScript has only doubles; integers up to 2^53 − 1 print alike, and larger ones never get here as job input.
    let double = number.as_f64().unwrap_or(f64::NAN);
    if double.is_finite() {
        out.push_str(ryu_js::Buffer::new().format_finite(double));
    } else {
        out.push_str("null");
    }
}

fn write_string(out: &mut String, text: &str) {
    // serde_json escapes exactly what RFC 8785 section 3.2.2.2 asks for, in the same forms.
    out.push_str(&Value::String(text.to_owned()).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(task: &str, input: &str) -> InputHash {
        InputHash::of_job(task, &serde_json::from_str(input).unwrap())
    }

    #[test]
    fn equal_inputs_share_a_key_and_different_ones_do_not() {
        for (a, b, same) in [
            (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, true),
            (r#"{"a":"\u0041\/\u00e9"}"#, r#"{"a":"A/é"}"#, true),
            (r#"{"n":1}"#, r#"{"n":1.0}"#, true),
            (r#"{"n":-0.0}"#, r#"{"n":0}"#, true),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false),
            (r#"{"a":null}"#, "{}", false),
            (r#"{"a":1}"#, r#"{"a":"1"}"#, false),
            ("{\"a\":\"\u{e9}\"}", "{\"a\":\"e\u{301}\"}", false),
            (r#"{"a":"x\r\ny"}"#, r#"{"a":"x\ny"}"#, false),
        ] {
            assert_eq!(key("t", a) == key("t", b), same, "{a} {b}");
        }
        assert_ne!(key("a", "{}"), key("b", "{}"), "the task is part of the key");
    }

    #[test]
    fn a_number_is_read_to_its_last_bit() {
        // Appendix B of RFC 8785; a quicker reader of numbers is off by one in the last place of these.
        for (text, canonical) in [
            ("333333333.33333329", "333333333.3333333"),
            ("-3.3333333333333335e-7", "-3.3333333333333335e-7"),
            ("1424953923781206.25", "1424953923781206.2"),
        ] {
            assert_eq!(canonical_json(&crate::json::parse(text).unwrap()), canonical);
        }
    }

    #[test]
    fn falsy_inputs_have_distinct_keys() {
        let keys: std::collections::BTreeSet<_> =
            ["0", "false", "\"\"", "[]", "{}", "null"].iter().map(|input| key("t", input)).collect();
        assert_eq!(keys.len(), 6);
    }

    #[test]
    fn a_body_never_shares_a_key_with_a_job() {
        let body = r#"{"input":{},"task":"t"}"#;
        assert_eq!(canonical_json(&json!({"task":"t","input":{}})), body);
        assert_ne!(InputHash::of_body(body), key("t", "{}"));
    }

    #[test]
    fn the_key_is_stable_across_releases() {
        assert_eq!(
            key("categorize_ticket", r#"{"text":"Where is my card?"}"#).as_str(),
            "3ed7af6ee9e15974748ee6c2b297270f9a45dba20f2893091378c771c3c8deee",
        );
    }
}
