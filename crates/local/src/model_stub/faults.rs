//! What goes wrong with a call, and what a disfigured answer looks like.

use std::str::FromStr;

use serde_json::{Value, json};

use super::dice::Dice;

/// How many calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// None: every call gets a valid answer.
    None,
    /// A provider on a bad day: about one first call in seven, and one request in sixty that can never succeed.
    Some,
    /// Most first calls fail, a third of the second ones, few later ones; one request in twenty-five can never succeed.
    Storm,
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Faults::None),
            "some" => Ok(Faults::Some),
            "storm" => Ok(Faults::Storm),
            _ => Err(format!("'{text}' is not one of none, some, storm")),
        }
    }
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Nothing,
    RateLimited(RetryAfter),
    ServerError,
    Overloaded,
    Slow,
    Hang,
    ResetBeforeHeaders,
    ResetInBody,
    Prose,
    Fence,
    InvalidJson,
    SchemaViolation,
    Refusal,
    Truncation,
    Rejected,
}

/// The wait that a rate limit asks for, in each form that occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    Absent,
    Seconds(u64),
    Milliseconds(u64),
    /// A date, this many seconds from now.
    Date(u64),
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Nothing => "valid",
            Fault::RateLimited(RetryAfter::Absent) => "rate_limited",
            Fault::RateLimited(_) => "rate_limited_with_retry_after",
            Fault::ServerError => "server_error",
            Fault::Overloaded => "overloaded",
            Fault::Slow => "slow",
            Fault::Hang => "hang",
            Fault::ResetBeforeHeaders => "reset_before_headers",
            Fault::ResetInBody => "reset_in_body",
            Fault::Prose => "prose",
            Fault::Fence => "fence",
            Fault::InvalidJson => "invalid_json",
            Fault::SchemaViolation => "schema_violation",
            Fault::Refusal => "refusal",
            Fault::Truncation => "truncation",
            Fault::Rejected => "rejected",
        }
    }
}

/// Probabilities in thousandths.
struct Weather {
    /// That the first, second, third and each later call fails.
    by_call: [u64; 4],
    /// That a request is always refused, always answered with nonsense, always cut off, always rejected.
    always: [u64; 4],
}

impl Faults {
    fn weather(self) -> Weather {
        match self {
            Faults::None => Weather { by_call: [0; 4], always: [0; 4] },
            Faults::Some => Weather { by_call: [150, 50, 20, 10], always: [6, 6, 3, 2] },
            Faults::Storm => Weather { by_call: [650, 330, 120, 30], always: [12, 14, 8, 6] },
        }
    }

    /// What happens to the `number`-th call (from 1) of a request.
    pub(super) fn fault(self, seed: u64, identity: &str, number: u64) -> Fault {
        let weather = self.weather();
        // Drawn for the request, not for the call: what cannot succeed never does.
        let mut fate = Dice::new(seed, identity, 0, "fate").below(1000);
        let [refused, nonsense, cut_off, rejected] = weather.always;
        for (share, fault) in [
            (refused, Fault::Refusal),
            (nonsense, if number % 2 == 1 { Fault::InvalidJson } else { Fault::SchemaViolation }),
            (cut_off, Fault::Truncation),
            (rejected, Fault::Rejected),
        ] {
            if fate < share {
                return fault;
            }
            fate -= share;
        }
        let mut dice = Dice::new(seed, identity, number, "fault");
        let [first, second, third, later] = weather.by_call;
        let chance = match number {
            1 => first,
            2 => second,
            3 => third,
            _ => later,
        };
        if dice.chance(chance) { passing(&mut dice) } else { Fault::Nothing }
    }
}

/// One of the faults that pass, by their share.
fn passing(dice: &mut Dice) -> Fault {
    let mut drawn = dice.below(100);
    let retry_after = match dice.below(4) {
        0 => RetryAfter::Seconds(1),
        1 => RetryAfter::Date(1),
        _ => RetryAfter::Milliseconds(100 + dice.below(300)),
    };
    for (share, fault) in [
        (8, Fault::RateLimited(retry_after)),
        (14, Fault::RateLimited(RetryAfter::Absent)),
        (11, Fault::ServerError),
        (14, Fault::Overloaded),
        (9, Fault::Slow),
        (2, Fault::Hang),
        (7, Fault::ResetBeforeHeaders),
        (5, Fault::ResetInBody),
        (7, Fault::Prose),
        (8, Fault::Fence),
        (8, Fault::InvalidJson),
    ] {
        if drawn < share {
            return fault;
        }
        drawn -= share;
    }
    Fault::SchemaViolation
}

/// The text of an answer under a fault, its stop reason, and whether it still is a valid answer.
pub(super) fn disfigure(valid: &Value, fault: Fault, dice: &mut Dice) -> (String, &'static str, bool) {
    let text = match valid {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match fault {
        Fault::Prose if dice.chance(500) => (
            format!("Here is the JSON you asked for:\n\n{text}\n\nLet me know if you need anything else!"),
            "end_turn",
            false,
        ),
        Fault::Prose => (format!("Sure! Here is the result:\n\n{text}"), "end_turn", true),
        Fault::Fence => (format!("```json\n{text}\n```"), "end_turn", true),
        Fault::InvalidJson => (break_syntax(&text, dice), "end_turn", false),
        Fault::SchemaViolation => (break_schema(valid, dice).to_string(), "end_turn", false),
        Fault::Refusal => (String::new(), "refusal", false),
        Fault::Truncation => (cut(&text), "max_tokens", false),
        Fault::ResetInBody => (text, "end_turn", false),
        _ => (text, "end_turn", true),
    }
}

/// The first part of a text.
fn cut(text: &str) -> String {
    text.chars().take(text.chars().count() * 2 / 3).collect()
}

fn break_syntax(text: &str, dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => cut(text),
        1 => match text.strip_suffix('}') {
            Some(open) => format!("{open},}}"),
            None => cut(text),
        },
        2 => text.replace('"', "'"),
        _ => format!("{text},"),
    }
}

/// A value that breaks the schema in one place: a member missing, of another type, or one too many.
fn break_schema(valid: &Value, dice: &mut Dice) -> Value {
    let Value::Object(members) = valid else {
        return json!({ "unexpected": valid });
    };
    let mut broken = members.clone();
    let names: Vec<String> = members.keys().cloned().collect();
    let Some(name) = dice.pick(&names) else {
        return json!({ "unexpected": true });
    };
    match dice.below(3) {
        0 => {
            broken.remove(name);
        }
        1 => {
            broken.insert("confidence_note".to_owned(), "as asked".into());
        }
        _ => {
            // An object where none is expected, and something else where one is.
            let other = if members.get(name).is_some_and(Value::is_object) {
                json!(17)
            } else {
                json!({ "value": 17 })
            };
            broken.insert(name.clone(), other);
        }
    }
    broken.into()
}
