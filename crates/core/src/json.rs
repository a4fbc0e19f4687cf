//! Strict JSON: one value, no duplicate members, bounded depth, and no number that would lose digits.
//!
//! serde_json does the grammar. What it lets pass (a member given twice, an id rounded to a double) is refused here.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is accepted. Jobs are flat; 64 leaves room and stays below the 128 at which serde_json itself stops.
pub const DEPTH_MAX: u8 = 64;

/// The largest integer that every JSON implementation carries exactly, 2^53 − 1 (RFC 8259, section 6).
pub const EXACT_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why a text is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not JSON at all, or cut off.
    #[error("it is not valid JSON at {}: {what}", place(*line, *column))]
    Syntax {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// The parser's words, which name no content.
        what: String,
    },
    /// A member name appears twice in one object.
    #[error(
        "the member \"{name}\" appears twice in one object: which one counts would be a guess, so remove one"
    )]
    DuplicateMember {
        /// The name, as [`quotable`] shows it.
        name: String,
    },
    /// Nested deeper than `DEPTH_MAX`.
    #[error("it is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Something follows the value.
    #[error("there is more text after the JSON value, at {}", place(*line, *column))]
    TrailingData {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// A number that a double cannot carry exactly.
    #[error(
        "the number that starts with {start} is beyond ±(2^53 − 1) and would lose digits: send it as a string"
    )]
    InexactNumber {
        /// Its first characters, at most 24.
        start: String,
    },
}

thread_local! {
    /// Which of our own refusals the visitor met; serde's error type carries only text.
    static REFUSAL: Cell<Option<JsonFault>> = const { Cell::new(None) };
}

/// Parses one strict JSON value that is the whole text.
///
/// # Errors
/// Any `JsonFault` but `InexactNumber`, which [`exact_numbers`] finds.
pub fn parse(text: &str) -> Result<Value, JsonFault> {
    let (value, end) = parse_prefix(text)?;
    let rest = text.get(end..).unwrap_or_default();
    match rest.find(|c: char| !matches!(c, ' ' | '\t' | '\r' | '\n')) {
        None => Ok(value),
        Some(offset) => {
            let before = text.get(..end + offset).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
            Err(JsonFault::TrailingData { line, column })
        }
    }
}

/// Parses the strict JSON value at the start of the text; also returns the byte at which it ends.
///
/// # Errors
/// As [`parse`], less `TrailingData`.
pub fn parse_prefix(text: &str) -> Result<(Value, usize), JsonFault> {
    REFUSAL.set(None);
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<StrictValue>();
    match values.next() {
        Some(Ok(StrictValue(value))) => Ok((value, values.byte_offset())),
        Some(Err(error)) => Err(REFUSAL.take().unwrap_or_else(|| JsonFault::Syntax {
            line: error.line(),
            column: error.column(),
            what: describe(&error),
        })),
        None => {
            Err(JsonFault::Syntax { line: 1, column: 0, what: "there is nothing but white space".to_owned() })
        }
    }
}

struct StrictValue(Value);

impl<'de> serde::Deserialize<'de> for StrictValue {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        (Strict { depth: 0 }).deserialize(from).map(StrictValue)
    }
}

/// Longest quotation of a member's name, in characters: enough to find it by, and a line stays a line.
pub const QUOTABLE_CHARS_MAX: usize = 64;

/// The start of a member's name, for a sentence: at most `QUOTABLE_CHARS_MAX` characters, on one line, with nothing
/// invisible in it. An escape is whole or left out.
#[must_use]
pub fn quotable(name: &str) -> String {
    let mut room = QUOTABLE_CHARS_MAX;
    let fits = name.chars().map(char::escape_debug).take_while(|escaped| {
        let rest = room.checked_sub(escaped.len());
        room = rest.unwrap_or(0);
        rest.is_some()
    });
    fits.flatten().collect()
}

/// A file of jobs has one a line, and whoever reads of a fault knows that line by its number in the file.
fn place(line: usize, column: usize) -> String {
    if line == 1 { format!("column {column}") } else { format!("line {line}, column {column}") }
}

fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ").and_then(|at| text.get(..at)).unwrap_or(&text) {
        "expected ident" => "a text stands in quotes, and only true, false and null need none".to_owned(),
        what => what.to_owned(),
    }
}

struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Strict, E> {
        if self.depth >= DEPTH_MAX {
            REFUSAL.set(Some(JsonFault::TooDeep));
            return Err(E::custom("too deep"));
        }
        Ok(Strict { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        self.deeper::<A::Error>()?;
        while let Some(item) = seq.next_element_seed(self.deeper()?)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        self.deeper::<A::Error>()?;
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                let name = quotable(&name);
                REFUSAL.set(Some(JsonFault::DuplicateMember { name }));
                return Err(A::Error::custom("duplicate member"));
            }
            let value = map.next_value_seed(self.deeper()?)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

/// Refuses numbers that a double cannot tell from their neighbours, so that two ids never become one.
///
/// `text` must already have been accepted by [`parse`]. An integer literal is exact up to ±(2^53 − 1);
/// beyond that a number with a fraction or an exponent passes only with 15 significant digits or fewer,
/// which a double always tells apart (IEEE 754 binary64: 15.95 decimal digits).
///
/// # Errors
/// `InexactNumber` for the first such number.
pub fn exact_numbers(text: &str) -> Result<(), JsonFault> {
    number_literals(text).try_for_each(exact_number)
}

/// Refuses integers that [`parse`] would round, those beyond 64 bits.
///
/// # Errors
/// `InexactNumber` for the first such number.
pub fn exact_integers(text: &str) -> Result<(), JsonFault> {
    number_literals(text).try_for_each(|literal| {
        let kept = literal.contains(['.', 'e', 'E'])
            || literal.parse::<u64>().is_ok()
            || literal.parse::<i64>().is_ok();
        if kept { Ok(()) } else { Err(inexact(literal)) }
    })
}

/// The number literals of a valid JSON text, in order.
fn number_literals(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find(|c: char| c == '"' || c == '-' || c.is_ascii_digit())?;
            let found = rest.get(start..)?;
            if let Some(string) = found.strip_prefix('"') {
                rest = string.get(string_end(string)?..)?;
            } else {
                let end = found
                    .find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'))
                    .unwrap_or(found.len());
                rest = found.get(end..)?;
                return found.get(..end);
            }
        }
    })
}

/// Where the string that starts at `text` ends: after its closing quote.
fn string_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    let quote = text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some(quote + 1)
}

fn inexact(literal: &str) -> JsonFault {
    JsonFault::InexactNumber { start: literal.chars().take(24).collect() }
}

fn exact_number(literal: &str) -> Result<(), JsonFault> {
    let magnitude = literal.parse::<f64>().map_err(|_| inexact(literal))?.abs();
    if magnitude <= EXACT_INTEGER_MAX as f64 {
        return Ok(());
    }
    let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
    let integer_literal = !literal.contains(['.', 'e', 'E']);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if integer_literal || digits.trim_matches('0').len() > 15 { Err(inexact(literal)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_own_message() {
        for (text, expected) in [
            ("", "it is not valid JSON at column 0: there is nothing but white space"),
            ("{\"a\":1,}", "it is not valid JSON at column 8: trailing comma"),
            ("{\"a\":1} x", "there is more text after the JSON value, at column 9"),
            ("{\"a\":1}\n{}", "there is more text after the JSON value, at line 2, column 1"),
            (
                "{\"a\":1,\"\\u0061\":2}",
                "the member \"a\" appears twice in one object: which one counts would be a guess, so remove one",
            ),
            ("{\"a\":\"\\ud800\"}", "it is not valid JSON at column 13: unexpected end of hex escape"),
            (
                r#"{"l\nine":1,"l\nine":2}"#,
                r#"the member "l\nine" appears twice in one object: which one counts would be a guess, so remove one"#,
            ),
            ("[NaN]", "it is not valid JSON at column 2: expected value"),
            (
                "not a job",
                "it is not valid JSON at column 2: a text stands in quotes, and only true, false and null need none",
            ),
            ("1e999", "it is not valid JSON at column 5: number out of range"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&deep(64)).is_ok());
        assert_eq!(parse(&deep(65)), Err(JsonFault::TooDeep));
        assert_eq!(parse(&"[".repeat(100_000)), Err(JsonFault::TooDeep));
    }

    #[test]
    fn a_quoted_name_is_short_whatever_it_holds() {
        for (name, quoted) in [
            ("n".repeat(65), "n".repeat(64)),
            ("é".repeat(65), "é".repeat(64)),
            // Each is an escape of nine characters, and none is cut through.
            ("\u{e0001}".repeat(65), r"\u{e0001}".repeat(7)),
            (format!("{}\n", "n".repeat(63)), "n".repeat(63)),
        ] {
            assert_eq!(quotable(&name), quoted);
        }
    }

    #[test]
    fn numbers_that_would_lose_digits_are_refused() {
        for (text, exact) in [
            ("9007199254740991", true),
            ("-9007199254740991", true),
            ("9007199254740992", false),
            ("[1,-9007199254740993]", false),
            ("{\"id\":123456789012345678901234567890}", false),
            ("\"9007199254740993\"", true),
            ("{\"9007199254740993\":\"\\\"12345678901234567890\"}", true),
            ("1e30", true),
            ("1E+30", true),
            ("9007199254740993.0", false),
            ("9.007199254740993e15", false),
            ("123456789012345e3", true),
            ("1234567890123456e3", false),
            ("0.1000000000000000055511151231257827", true),
            ("333333333.33333329", true),
            ("-0", true),
        ] {
            assert_eq!(exact_numbers(text).is_ok(), exact, "{text}");
        }
    }

    #[test]
    fn each_value_is_kept_as_it_was_written() {
        let text = r#"{"a":[-5,5,-0.5,1e3,18446744073709551615,-9223372036854775808],"b":{"c":null,"d":true,"e":false},"f":"\u00e4\n"}"#;
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse("[-5,null,true]").unwrap(), serde_json::json!([-5, null, true]));
    }

    #[test]
    fn integers_of_64_bits_are_kept_and_longer_ones_refused() {
        for (text, kept) in [
            ("[18446744073709551615,-9223372036854775808]", true),
            ("18446744073709551616", false),
            ("[1,-9223372036854775809]", false),
            ("[1e30,-123456789012345678901234.5]", true),
            (r#"{"a\"":"12345678901234567890123"}"#, true),
        ] {
            assert_eq!(exact_integers(text).is_ok(), kept, "{text}");
        }
    }
}
