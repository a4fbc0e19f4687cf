//! Attribute values, their wire form, their order and their size.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bigdecimal::BigDecimal;
use serde_json::{Map, Value as Json, json};

/// DynamoDB's numbers have at most 38 significant digits (Developer Guide, "Naming rules and data types").
const DIGITS_MAX: u64 = 38;

/// An item: attribute values by name.
pub type Item = BTreeMap<String, Value>;

/// An attribute value, in DynamoDB's type system.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text in UTF-8, which is also what its size is counted in.
    S(String),
    /// A number; exact, at most 38 digits.
    N(BigDecimal),
    /// Bytes.
    B(Vec<u8>),
    /// A boolean.
    Bool(bool),
    /// The value of a type of its own, not the absence of an attribute.
    Null,
    /// A map.
    M(Item),
    /// A list.
    L(Vec<Value>),
    /// A set of strings; never empty.
    Ss(BTreeSet<String>),
    /// A set of numbers; never empty.
    Ns(BTreeSet<BigDecimal>),
    /// A set of bytes; never empty.
    Bs(BTreeSet<Vec<u8>>),
}

impl Value {
    /// The text of a string, or nothing for any other type.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::S(text) => Some(text),
            _ => None,
        }
    }

    /// A number as DynamoDB writes it, or nothing for any other type.
    pub fn as_number(&self) -> Option<String> {
        match self {
            Value::N(number) => Some(number_text(number)),
            _ => None,
        }
    }

    /// The name of the type, as `attribute_type` and the wire have it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::S(_) => "S",
            Value::N(_) => "N",
            Value::B(_) => "B",
            Value::Bool(_) => "BOOL",
            Value::Null => "NULL",
            Value::M(_) => "M",
            Value::L(_) => "L",
            Value::Ss(_) => "SS",
            Value::Ns(_) => "NS",
            Value::Bs(_) => "BS",
        }
    }

    /// Order within one of the three ordered types; nothing across types.
    pub(super) fn compare(&self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Value::S(a), Value::S(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            (Value::N(a), Value::N(b)) => Some(a.cmp(b)),
            (Value::B(a), Value::B(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// What `size()` says; nothing for numbers, booleans and null.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            // Characters, where the item's size counts bytes.
            Value::S(text) => Some(text.chars().count()),
            Value::B(bytes) => Some(bytes.len()),
            Value::M(members) => Some(members.len()),
            Value::L(elements) => Some(elements.len()),
            Value::Ss(set) => Some(set.len()),
            Value::Ns(set) => Some(set.len()),
            Value::Bs(set) => Some(set.len()),
            Value::N(_) | Value::Bool(_) | Value::Null => None,
        }
    }

    /// The bytes that count towards the item size limit (Developer Guide, "DynamoDB item sizes and formats").
    pub(super) fn bytes(&self) -> usize {
        match self {
            Value::S(text) => text.len(),
            Value::N(number) => number_bytes(number),
            Value::B(bytes) => bytes.len(),
            Value::Bool(_) | Value::Null => 1,
            Value::M(members) => {
                3 + members.iter().map(|(name, value)| name.len() + value.bytes() + 1).sum::<usize>()
            }
            Value::L(elements) => 3 + elements.iter().map(|value| value.bytes() + 1).sum::<usize>(),
            Value::Ss(set) => set.iter().map(String::len).sum(),
            Value::Ns(set) => set.iter().map(number_bytes).sum(),
            Value::Bs(set) => set.iter().map(Vec::len).sum(),
        }
    }

    pub(super) fn from_json(json: &Json) -> Result<Value, String> {
        let members = json.as_object().filter(|members| members.len() == 1);
        let Some((kind, value)) = members.and_then(|members| members.iter().next()) else {
            return Err(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
                    .to_owned(),
            );
        };
        let wrong = || format!("a value of type {kind} has the wrong form");
        let text = || value.as_str().ok_or_else(wrong);
        let list = || value.as_array().ok_or_else(wrong);
        match kind.as_str() {
            "S" => Ok(Value::S(text()?.to_owned())),
            "N" => Ok(Value::N(parse_number(text()?)?)),
            "B" => Ok(Value::B(parse_bytes(text()?)?)),
            "BOOL" => Ok(Value::Bool(value.as_bool().ok_or_else(wrong)?)),
            "NULL" => Ok(Value::Null),
            "M" => Ok(Value::M(item_from_json(value)?)),
            "L" => Ok(Value::L(list()?.iter().map(Value::from_json).collect::<Result<_, _>>()?)),
            "SS" => set(list()?, |text| Ok(text.to_owned())).map(Value::Ss),
            "NS" => set(list()?, parse_number).map(Value::Ns),
            "BS" => set(list()?, parse_bytes).map(Value::Bs),
            _ => Err(format!("{kind} is not a type of attribute value")),
        }
    }

    /// The value in the form of the wire.
    pub fn to_json(&self) -> Json {
        let value = match self {
            Value::S(text) => json!(text),
            Value::N(number) => json!(number_text(number)),
            Value::B(bytes) => json!(BASE64.encode(bytes)),
            Value::Bool(value) => json!(value),
            Value::Null => json!(true),
            Value::M(members) => item_to_json(members),
            Value::L(elements) => elements.iter().map(Value::to_json).collect(),
            Value::Ss(set) => json!(set),
            Value::Ns(set) => set.iter().map(number_text).collect(),
            Value::Bs(set) => set.iter().map(|bytes| BASE64.encode(bytes)).collect(),
        };
        json!({ self.type_name(): value })
    }
}

/// An item in the form of the wire.
pub fn item_to_json(item: &Item) -> Json {
    let members: Map<String, Json> =
        item.iter().map(|(name, value)| (name.clone(), value.to_json())).collect();
    members.into()
}

pub(super) fn item_from_json(json: &Json) -> Result<Item, String> {
    let members = json.as_object().ok_or("an item must be a map of attribute values")?;
    members.iter().map(|(name, value)| Ok((name.clone(), Value::from_json(value)?))).collect()
}

/// The size of an item: names and values.
pub(super) fn item_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.bytes()).sum()
}

fn parse_number(text: &str) -> Result<BigDecimal, String> {
    let invalid = || format!("The parameter cannot be converted to a numeric value: {text}");
    let number = BigDecimal::from_str(text).map_err(|_| invalid())?.normalized();
    check_number(number)
}

/// Refuses what DynamoDB cannot hold: over 38 digits, or a magnitude beyond 1E-130 … 1E+126.
pub(super) fn check_number(number: BigDecimal) -> Result<BigDecimal, String> {
    let number = number.normalized();
    if number.digits() > DIGITS_MAX {
        return Err("Attempting to store more than 38 significant digits in a Number".to_owned());
    }
    let (_, scale) = number.as_bigint_and_exponent();
    let magnitude = i64::try_from(number.digits()).unwrap_or(i64::MAX) - scale;
    if !(-129..=126).contains(&magnitude) && number != 0 {
        return Err(
            "Number overflow. Attempting to store a number with magnitude larger than supported range"
                .to_owned(),
        );
    }
    Ok(number)
}

fn number_text(number: &BigDecimal) -> String {
    number.normalized().to_plain_string()
}

fn number_bytes(number: &BigDecimal) -> usize {
    usize::try_from(number.digits()).unwrap_or(usize::MAX) / 2 + 2
}

fn parse_bytes(text: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(text).map_err(|_| "a binary value is not Base64".to_owned())
}

fn set<T: Ord>(elements: &[Json], parse: impl Fn(&str) -> Result<T, String>) -> Result<BTreeSet<T>, String> {
    if elements.is_empty() {
        return Err("One or more parameter values were invalid: An set may not be empty".to_owned());
    }
    let parsed: BTreeSet<T> = elements
        .iter()
        .map(|element| element.as_str().ok_or("a set holds strings".to_owned()).and_then(&parse))
        .collect::<Result<_, _>>()?;
    if parsed.len() < elements.len() {
        return Err(
            "One or more parameter values were invalid: Input collection contains duplicates".to_owned()
        );
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_and_written_in_one_way() {
        for (given, written) in [
            ("1.50", "1.5"),
            ("1E2", "100"),
            ("-0.0", "0"),
            ("0.1", "0.1"),
            ("9007199254740993", "9007199254740993"),
            ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ] {
            let value = Value::from_json(&json!({ "N": given })).unwrap();
            assert_eq!(value.as_number().as_deref(), Some(written), "{given}");
        }
        for refused in ["", "x", "NaN", "123456789012345678901234567890123456789", "1E126", "1E-131"] {
            assert!(Value::from_json(&json!({ "N": refused })).is_err(), "{refused}");
        }
    }

    #[test]
    fn every_type_survives_the_wire() {
        let item = json!({
            "s": {"S": ""}, "n": {"N": "-3"}, "b": {"B": "AAE="}, "t": {"BOOL": false}, "0": {"NULL": true},
            "m": {"M": {"a": {"L": [{"S": "x"}, {"N": "1"}]}}},
            "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["1", "2.5"]}, "bs": {"BS": ["AA=="]},
        });
        assert_eq!(item_to_json(&item_from_json(&item).unwrap()), item);
    }

    #[test]
    fn empty_sets_duplicates_and_two_types_in_one_value_are_refused() {
        for refused in [
            json!({"SS": []}),
            json!({"NS": ["1", "1.0"]}),
            json!({"S": "a", "N": "1"}),
            json!({}),
            json!({"S": 1}),
            json!({"X": "1"}),
        ] {
            assert!(Value::from_json(&refused).is_err(), "{refused}");
        }
    }
}
