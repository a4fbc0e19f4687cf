//! Reads a JSON value into a type, strictly, with a path for whatever does not fit.
//!
//! serde_json's own reader is close, and wrong for us in three ways. Its messages quote the value, and values are
//! customers' text. It takes `["a", "b"]` for a struct and `{"word": null}` for a word, which no schema of ours admits.
//! And it refuses `1.0` for an integer, although `1` and `1.0` are one number and so share one input hash.

use std::fmt;

use nightshift_core::json::EXACT_INTEGER_MAX;
use nightshift_core::task::Violations;
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use crate::violations::{ROOT, member, quoted, sentence};

/// The value as a `T`.
///
/// # Errors
/// The first thing that does not fit: one sentence with its path, without the value.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, Violations> {
    T::deserialize(Strict(value)).map_err(|mismatch| {
        let steps: String = mismatch.steps.iter().rev().map(String::as_str).collect();
        Violations(vec![sentence(&format!("{ROOT}{steps}"), &mismatch.what)])
    })
}

/// What does not fit, and where.
#[derive(Debug)]
struct Mismatch {
    /// The innermost first: each level adds its own on the way out.
    steps: Vec<String>,
    /// The rest of the sentence "The value at $.member …".
    what: String,
}

impl Mismatch {
    fn new(what: String) -> Self {
        Self { steps: Vec::new(), what }
    }

    fn inside(mut self, step: String) -> Self {
        self.steps.push(step);
        self
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl de::Error for Mismatch {
    fn custom<T: fmt::Display>(_message: T) -> Self {
        // The words of a type's own reader may quote the value, so they stay here.
        Self::new("is refused by the reader of its type".to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("is {} and must be {}", kind_found(found), kind_expected(expected)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!(
            "is {} that does not fit and must be {}{}",
            kind_found(found),
            kind_expected(expected),
            range_expected(expected)
        ))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("has {} and must be {}", counted(length), kind_expected(expected)))
    }

    fn unknown_variant(_variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("must be one of {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let name = quoted(field);
        if expected.is_empty() {
            return Self::new(format!("has the unknown member {name} and must have none"));
        }
        Self::new(format!("has the unknown member {name}; it may have {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("lacks the member {field}"))
    }
}

fn kind_found(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a number",
        Unexpected::Float(_) => "a number with a fraction",
        Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::Bytes(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "a value",
    }
}

fn counted(count: usize) -> String {
    format!("{count} item{}", if count == 1 { "" } else { "s" })
}

/// serde's words for what a type expects are those of Rust; a sender and a model know those of JSON.
fn kind_expected(expected: &dyn Expected) -> String {
    let words = expected.to_string();
    match words.as_str() {
        "f32" | "f64" => "a number".to_owned(),
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "a whole number".to_owned()
        }
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        _ if words.starts_with("struct ") => "an object".to_owned(),
        _ => words,
    }
}

/// What a whole number's type holds; with a larger one, a number would lose digits before it is read.
fn range_expected(expected: &dyn Expected) -> String {
    let (least, most) = match expected.to_string().as_str() {
        "u8" => (0, i64::from(u8::MAX)),
        "u16" => (0, i64::from(u16::MAX)),
        "u32" => (0, i64::from(u32::MAX)),
        "u64" | "usize" => (0, EXACT_INTEGER_MAX as i64),
        "i8" => (i64::from(i8::MIN), i64::from(i8::MAX)),
        "i16" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "i32" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        "i64" | "isize" => (-(EXACT_INTEGER_MAX as i64), EXACT_INTEGER_MAX as i64),
        _ => return String::new(),
    };
    format!(" from {least} to {most}")
}

fn kind_of(value: &Value) -> Unexpected<'_> {
    match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(flag) => Unexpected::Bool(*flag),
        // Whether it has a fraction matters to nobody who needs no number at all.
        Value::Number(_) => Unexpected::Signed(0),
        Value::String(text) => Unexpected::Str(text),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    }
}

/// A value that is read without any reinterpretation.
struct Strict<'de>(&'de Value);

impl<'de> Deserializer<'de> for Strict<'de> {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Number(number) => {
                if let Some(whole) = number.as_u64() {
                    return visitor.visit_u64(whole);
                }
                if let Some(whole) = number.as_i64() {
                    return visitor.visit_i64(whole);
                }
                let double = number.as_f64().unwrap_or(f64::NAN);
                // Without a fraction and within ±(2^53 − 1), both exact in a double, the conversion loses nothing.
                if double.fract() == 0.0 && double.abs() <= EXACT_INTEGER_MAX as f64 {
                    return visitor.visit_i64(double as i64);
                }
                visitor.visit_f64(double)
            }
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => {
                let mut rest = Items { items: items.iter(), index: 0 };
                let read = visitor.visit_seq(&mut rest)?;
                match rest.items.len() {
                    0 => Ok(read),
                    left => Err(Mismatch::new(format!("has {} too many", counted(left)))),
                }
            }
            Value::Object(members) => visitor.visit_map(Members { members: members.iter(), value: None }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        if self.0.is_object() {
            return self.deserialize_any(visitor);
        }
        let found = kind_found(kind_of(self.0));
        Err(Mismatch::new(format!("is {found} and must be an object with the members {}", fields.join(", "))))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(Variant { word, content: None }),
            Value::Object(members) if members.len() == 1 => match members.iter().next() {
                Some((word, content)) => visitor.visit_enum(Variant { word, content: Some(content) }),
                None => Err(Mismatch::new(format!("must be one of {}", variants.join(", ")))),
            },
            other => {
                let found = kind_found(kind_of(other));
                Err(Mismatch::new(format!("is {found} and must be one of {}", variants.join(", "))))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    items: std::slice::Iter<'de, Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for &mut Items<'de> {
    type Error = Mismatch;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Strict(item)).map(Some).map_err(|mismatch| mismatch.inside(format!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'de> {
    members: serde_json::map::Iter<'de>,
    value: Option<(&'de String, &'de Value)>,
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Mismatch;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Mismatch> {
        self.value = self.members.next();
        match self.value {
            None => Ok(None),
            Some((name, _)) => seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mismatch> {
        match self.value.take() {
            Some((name, value)) => {
                seed.deserialize(Strict(value)).map_err(|mismatch| mismatch.inside(member(name)))
            }
            None => Err(de::Error::custom("a value was asked for before its name")),
        }
    }
}

/// A word, or a word with content as `{"word": content}`.
struct Variant<'de> {
    word: &'de str,
    content: Option<&'de Value>,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Mismatch;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Mismatch> {
        Ok((seed.deserialize(StrDeserializer::<Mismatch>::new(self.word))?, self))
    }
}

impl<'de> Variant<'de> {
    fn content(&self) -> Result<&'de Value, Mismatch> {
        self.content
            .ok_or_else(|| Mismatch::new("is a word that needs content and must be an object".to_owned()))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Mismatch;

    fn unit_variant(self) -> Result<(), Mismatch> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Mismatch::new("is an object and must be a string".to_owned())),
        }
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Mismatch> {
        let content = self.content()?;
        seed.deserialize(Strict(content)).map_err(|mismatch| mismatch.inside(member(self.word)))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _length: usize, visitor: V) -> Result<V::Value, Mismatch> {
        let content = self.content()?;
        Strict(content).deserialize_any(visitor).map_err(|mismatch| mismatch.inside(member(self.word)))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        let content = self.content()?;
        Strict(content)
            .deserialize_struct("", fields, visitor)
            .map_err(|mismatch| mismatch.inside(member(self.word)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Everything {
        text: String,
        flag: bool,
        count: u8,
        signed: i64,
        share: f64,
        maybe: Option<String>,
        list: Vec<Inner>,
        pair: (u8, u8),
        word: Word,
        by_name: BTreeMap<String, u8>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        id: u32,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Plain,
        Number(u8),
        Both { a: u8 },
    }

    fn sound() -> Value {
        json!({
            "text": "t", "flag": false, "count": 0, "signed": -1, "share": 0, "maybe": null, "list": [], "pair": [1, 2],
            "word": "plain", "by_name": {},
        })
    }

    #[track_caller]
    fn refuse(member: &str, value: Value, expected: &str) {
        let mut whole = sound();
        whole.as_object_mut().unwrap().insert(member.to_owned(), value);
        assert_eq!(read::<Everything>(&whole).unwrap_err().0, [expected]);
    }

    #[test]
    fn what_fits_is_read_as_serde_json_reads_it() {
        for (member, value) in [
            ("text", json!("\u{0}é")),
            ("maybe", json!("")),
            ("count", json!(255)),
            ("signed", json!(i64::MIN)),
            ("share", json!(0.25)),
            ("share", json!(1e300)),
            ("list", json!([{"id": 1}, {"id": 2}])),
            ("word", json!({"number": 3})),
            ("word", json!({"both": {"a": 3}})),
            ("by_name", json!({"": 1, "b c": 2})),
        ] {
            let mut whole = sound();
            whole.as_object_mut().unwrap().insert(member.to_owned(), value);
            let ours: Everything = read(&whole).unwrap();
            assert_eq!(ours, serde_json::from_value(whole).unwrap());
        }
    }

    #[test]
    fn equal_numbers_are_read_alike() {
        for (written, count) in [("1", 1), ("1.0", 1), ("1e2", 100), ("-0.0", 0), ("0", 0)] {
            let value: Value = serde_json::from_str(written).unwrap();
            assert_eq!(read::<u8>(&value).unwrap(), count, "{written}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named_by_path_and_kind_and_never_quoted() {
        refuse("text", json!(0), "The value at $.text is a number and must be a string.");
        refuse("text", json!(null), "The value at $.text is null and must be a string.");
        refuse("text", json!(["secret"]), "The value at $.text is an array and must be a string.");
        refuse("flag", json!("secret"), "The value at $.flag is a string and must be a boolean.");
        refuse("flag", json!(0), "The value at $.flag is a number and must be a boolean.");
        refuse(
            "count",
            json!(1.5),
            "The value at $.count is a number with a fraction and must be a whole number.",
        );
        refuse(
            "count",
            json!(256),
            "The value at $.count is a number that does not fit and must be a whole number from 0 to 255.",
        );
        refuse(
            "count",
            json!(-1),
            "The value at $.count is a number that does not fit and must be a whole number from 0 to 255.",
        );
        refuse("share", json!("0.5"), "The value at $.share is a string and must be a number.");
        refuse("maybe", json!(false), "The value at $.maybe is a boolean and must be a string.");
        refuse("list", json!({}), "The value at $.list is an object and must be an array.");
        refuse("list", json!([{"id": 1}, {}]), "The value at $.list[1] lacks the member id.");
        refuse(
            "list",
            json!([[7]]),
            "The value at $.list[0] is an array and must be an object with the members id.",
        );
        refuse(
            "list",
            json!([{"id": "secret"}]),
            "The value at $.list[0].id is a string and must be a whole number.",
        );
        refuse(
            "list",
            json!([{"id": 1, "extra\n": "secret"}]),
            "The value at $.list[0] has the unknown member \"extra\\n\"; it may have id.",
        );
        refuse("pair", json!([1, 2, 3]), "The value at $.pair has 1 item too many.");
        refuse("pair", json!([1]), "The value at $.pair has 1 item and must be a tuple of size 2.");
        refuse("word", json!("secret"), "The value at $.word must be one of plain, number, both.");
        refuse("word", json!(7), "The value at $.word is a number and must be one of plain, number, both.");
        refuse("word", json!({"plain": null}), "The value at $.word is an object and must be a string.");
        refuse(
            "word",
            json!("number"),
            "The value at $.word is a word that needs content and must be an object.",
        );
        refuse(
            "word",
            json!({"number": "secret"}),
            "The value at $.word.number is a string and must be a whole number.",
        );
        refuse(
            "by_name",
            json!({"b c": "x"}),
            "The value at $.by_name[\"b c\"] is a string and must be a whole number.",
        );
    }

    #[test]
    fn an_array_is_not_a_struct() {
        let positional = json!(["t", false, 0, -1, 0, null, [], [1, 2], "plain", {}]);
        assert!(serde_json::from_value::<Everything>(positional.clone()).is_ok(), "serde_json takes it");
        assert!(
            read::<Everything>(&positional).unwrap_err().0[0]
                .starts_with("The value at $ is an array and must be")
        );
    }

    #[test]
    fn a_readers_own_words_are_kept_back() {
        #[derive(Debug, Deserialize)]
        #[serde(try_from = "String")]
        struct Picky;
        impl TryFrom<String> for Picky {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                Err(format!("do not like {text}"))
            }
        }
        assert_eq!(
            read::<Vec<Picky>>(&json!(["secret"])).unwrap_err().0,
            ["The value at $[0] is refused by the reader of its type."]
        );
    }
}
