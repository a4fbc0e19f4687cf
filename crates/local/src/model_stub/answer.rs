//! A value that fits a JSON Schema, made of words of the customer's text.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// Longest made-up text: short enough for every limit that a schema no longer shows.
const TEXT_CHARS_MAX: usize = 60;
const ELEMENTS_MAX: u64 = 3;
const DEPTH_MAX: usize = 16;
const NO_TEXT: &str = "There is no text";

/// A value that fits `schema`; its texts are taken from `text`.
pub(super) fn generate(schema: &Value, text: &str, dice: &mut Dice) -> Value {
    let data = data(text);
    let mut generator = Generator {
        root: schema,
        words: words(&data),
        language: language(&data),
        drawn: BTreeSet::new(),
        dice,
    };
    generator.value(schema, "", 0)
}

/// The beginning of the customer's text.
pub(super) fn phrase(text: &str) -> String {
    joined(&words(&data(text)), 0)
}

/// The text between tags that stand alone on their lines, the longest such block first; all of it when there is none.
fn data(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let mut blocks = Vec::new();
    let mut index = 0;
    while let Some(line) = lines.get(index) {
        let tag = line
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'))
            .filter(|tag| !tag.starts_with('/'));
        let end = tag.and_then(|tag| {
            let closing = format!("</{tag}>");
            lines.iter().skip(index + 1).position(|line| *line == closing)
        });
        match end {
            Some(length) => {
                let inside: Vec<&str> = lines.iter().skip(index + 1).take(length).copied().collect();
                blocks.push(inside.join("\n"));
                index += length + 2;
            }
            None => index += 1,
        }
    }
    if blocks.is_empty() {
        return text.to_owned();
    }
    blocks.sort_by_key(|block| std::cmp::Reverse(block.len()));
    blocks.join("\n")
}

/// Words with something to read in them, without control characters and quotation.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace()
        .map(|word| word.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect::<String>())
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .collect()
}

fn joined(words: &[String], start: usize) -> String {
    let mut text = String::new();
    let mut chars = 0;
    for word in words.iter().skip(start) {
        let more = word.chars().count() + usize::from(!text.is_empty());
        if chars + more > TEXT_CHARS_MAX {
            break;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
        chars += more;
    }
    if text.is_empty() { NO_TEXT.to_owned() } else { text }
}

/// The language of a text by its script and its small words; a guess, as good as a demo needs.
fn language(text: &str) -> &'static str {
    let any = |low: char, high: char| text.chars().any(|c| (low..=high).contains(&c));
    if any('\u{3040}', '\u{30ff}') {
        return "ja";
    }
    for (low, high, code) in [
        ('\u{ac00}', '\u{d7a3}', "ko"),
        ('\u{4e00}', '\u{9fff}', "zh"),
        ('\u{0590}', '\u{05ff}', "he"),
        ('\u{0600}', '\u{06ff}', "ar"),
        ('\u{0400}', '\u{04ff}', "ru"),
        ('\u{0370}', '\u{03ff}', "el"),
        ('\u{0900}', '\u{097f}', "hi"),
    ] {
        if any(low, high) {
            return code;
        }
    }
    if !text.chars().any(char::is_alphabetic) {
        return "und";
    }
    let lower = text.to_lowercase();
    let small_words: [(&str, &[&str]); 8] = [
        ("en", &["the", "and", "is", "my", "to", "you", "of", "i"]),
        ("de", &["der", "die", "und", "ich", "nicht", "wir", "ist", "bitte"]),
        ("fr", &["le", "les", "et", "je", "nous", "est", "pas", "bonjour"]),
        ("es", &["el", "los", "y", "que", "por", "mi", "no", "hola"]),
        ("it", &["il", "che", "di", "non", "per", "sono", "buongiorno", "è"]),
        ("pt", &["o", "que", "não", "para", "uma", "olá", "você", "é"]),
        ("nl", &["de", "het", "een", "ik", "niet", "wij", "van", "goedemorgen"]),
        ("pl", &["i", "nie", "jest", "się", "proszę", "na", "w", "dzień"]),
    ];
    let hits = |marks: &[&str]| {
        lower.split(|c: char| !c.is_alphabetic()).filter(|word| marks.contains(word)).count()
    };
    let mut best = ("en", 0);
    for (code, marks) in small_words {
        let count = hits(marks);
        if count > best.1 {
            best = (code, count);
        }
    }
    best.0
}

struct Generator<'call> {
    root: &'call Value,
    words: Vec<String>,
    language: &'static str,
    /// Values of enumerations that were chosen; descriptions of booleans refer to them.
    drawn: BTreeSet<String>,
    dice: &'call mut Dice,
}

impl Generator<'_> {
    fn value(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        if let Some(constant) = schema.get("const") {
            return constant.clone();
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            let value = self.dice.pick(values).cloned().unwrap_or_default();
            self.drawn.extend(value.as_str().map(str::to_owned));
            return value;
        }
        let referred = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| self.root.pointer(pointer));
        if let Some(referred) = referred {
            return self.value(referred, name, depth + 1);
        }
        for keyword in ["anyOf", "oneOf", "allOf"] {
            if let Some(options) = schema.get(keyword).and_then(Value::as_array) {
                return self.one_of(options, name, depth);
            }
        }
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if schema.get("properties").is_some() => vec!["object"],
            _ => vec!["string"],
        };
        if kinds.contains(&"null") && (kinds.len() == 1 || self.dice.chance(500)) {
            return Value::Null;
        }
        match kinds.into_iter().find(|kind| *kind != "null") {
            Some("object") => self.object(schema, depth),
            Some("array") => self.array(schema, name, depth),
            Some("integer") => self.integer(schema),
            Some("number") => number(schema),
            Some("boolean") => self.boolean(schema).into(),
            _ => self.text(schema, name).into(),
        }
    }

    fn one_of(&mut self, options: &[Value], name: &str, depth: usize) -> Value {
        let is_null = |option: &Value| option.get("type").is_some_and(|kind| kind == "null");
        let others: Vec<&Value> = options.iter().filter(|option| !is_null(option)).collect();
        if others.len() < options.len() && self.dice.chance(500) {
            return Value::Null;
        }
        match self.dice.pick(&others).copied() {
            Some(option) => self.value(option, name, depth + 1),
            None => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let mut properties: Vec<(&String, &Value)> =
            schema.get("properties").and_then(Value::as_object).into_iter().flatten().collect();
        // Booleans last: whether one is true may depend on what was chosen for the others.
        properties.sort_by_key(|(_, property)| property.get("type").is_some_and(|kind| kind == "boolean"));
        let mut members = Map::new();
        for (name, property) in properties {
            if required.contains(&name.as_str()) || self.dice.chance(600) {
                let value = self.value(property, name, depth + 1);
                members.insert(name.clone(), value);
            }
        }
        members.into()
    }

    fn array(&mut self, schema: &Value, name: &str, depth: usize) -> Value {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_u64);
        let least = bound("minItems").unwrap_or(0);
        let most = bound("maxItems").unwrap_or(ELEMENTS_MAX).max(least);
        // Of no text there is nothing to list.
        let wanted = if self.words.is_empty() { 0 } else { 1 + self.dice.below(ELEMENTS_MAX) };
        let items = schema.get("items").cloned().unwrap_or_else(|| json!({ "type": "string" }));
        (0..wanted.clamp(least, most)).map(|_| self.value(&items, name, depth + 1)).collect()
    }

    fn integer(&mut self, schema: &Value) -> Value {
        let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_i64);
        let drawn = 1 + i64::try_from(self.dice.below(3)).unwrap_or(0);
        let drawn = bound("minimum").map_or(drawn, |least| drawn.max(least));
        bound("maximum").map_or(drawn, |most| drawn.min(most)).into()
    }

    /// True only if the description says so of a value that was chosen, as in "True when priority is `urgent`".
    fn boolean(&self, schema: &Value) -> bool {
        let description = schema.get("description").and_then(Value::as_str).unwrap_or_default();
        description.starts_with("True")
            && self.drawn.iter().any(|value| description.contains(&format!("`{value}`")))
    }

    fn text(&mut self, schema: &Value, name: &str) -> String {
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let fixed = match format {
            "date" => "2026-11-23",
            "date-time" => "2026-11-23T09:30:00Z",
            "time" => "09:30:00Z",
            "email" => "someone@example.com",
            "uri" => "https://example.com/",
            "uuid" => "00000000-0000-4000-8000-000000000000",
            _ if name == "language" => self.language,
            _ => "",
        };
        if !fixed.is_empty() {
            return fixed.to_owned();
        }
        // What sums up a text begins where it begins; everything else may quote any part.
        let start = match name {
            "summary" | "headline" | "title" | "reason" => 0,
            _ => self.dice.below(self.words.len() as u64),
        };
        let text = joined(&self.words, usize::try_from(start).unwrap_or(0));
        let bound =
            |keyword: &str| schema.get(keyword).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let least = bound("minLength").unwrap_or(0);
        let most = bound("maxLength").unwrap_or(usize::MAX).max(least);
        let mut fitted: String = text.chars().take(most).collect();
        while fitted.chars().count() < least {
            fitted.push('.');
        }
        fitted
    }
}

fn number(schema: &Value) -> Value {
    let bound = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let number = bound("minimum").map_or(0.5, |least| least.max(0.5));
    bound("maximum").map_or(number, |most| number.min(most)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dice(number: u64) -> Dice {
        Dice::new(7, "identity", number, "test")
    }

    #[test]
    fn the_words_come_from_the_blocks_of_the_message() {
        let message = "The data is in blocks.\n\n<subject-1f>\nHi\n</subject-1f>\n\n<body-1f>\nUnsere Lieferung ist \u{7}beschädigt, und wir </fake> warten.\n</body-1f>\n\nAnswer now.";
        assert_eq!(data(message), "Unsere Lieferung ist \u{7}beschädigt, und wir </fake> warten.\nHi");
        assert_eq!(phrase(message), "Unsere Lieferung ist beschädigt, und wir </fake> warten. Hi");
        assert_eq!(phrase("just words"), "just words");
        assert_eq!(phrase("<a>\n\n</a>"), NO_TEXT);
    }

    #[test]
    fn languages_are_told_apart() {
        for (text, code) in [
            ("Where is my card? I need it.", "en"),
            ("Bitte senden Sie die Rechnung, ich warte und warte.", "de"),
            ("Bonjour, je ne trouve pas le colis.", "fr"),
            ("こんにちは、請求書の件です", "ja"),
            ("Здравствуйте", "ru"),
            ("1234 !!", "und"),
        ] {
            assert_eq!(language(text), code, "{text}");
        }
    }

    #[test]
    fn every_value_fits_its_schema() {
        let schema = json!({
            "type": "object",
            "required": ["kind", "level", "n", "x", "tags", "owner", "inner", "human", "short"],
            "additionalProperties": false,
            "properties": {
                "kind": { "enum": ["a", "b"] },
                "level": { "$ref": "#/$defs/level" },
                "n": { "type": "integer", "minimum": 2, "maximum": 2 },
                "x": { "type": "number", "maximum": 0.25 },
                "tags": { "type": "array", "items": { "type": "string" }, "minItems": 1 },
                "owner": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
                "inner": { "type": "object", "required": ["when"], "properties": { "when": { "type": "string", "format": "date" } } },
                "human": { "type": "boolean", "description": "True when the level is `high`." },
                "short": { "type": "string", "minLength": 3, "maxLength": 5 },
                "maybe": { "type": ["integer", "null"] },
            },
            "$defs": { "level": { "enum": ["low", "high"] } },
        });
        let mut seen = BTreeSet::new();
        for number in 0..200 {
            let value = generate(&schema, "some words of a customer", &mut dice(number));
            assert!(["a", "b"].contains(&value["kind"].as_str().unwrap()));
            assert_eq!(value["human"], json!(value["level"] == "high"));
            assert_eq!((&value["n"], &value["x"]), (&json!(2), &json!(0.25)));
            assert!((1..=3).contains(&value["tags"].as_array().unwrap().len()));
            assert!(value["owner"].is_null() || value["owner"].is_string());
            assert_eq!(value["inner"]["when"], "2026-11-23");
            assert!((3..=5).contains(&value["short"].as_str().unwrap().chars().count()));
            assert!(value.get("maybe").is_none_or(|maybe| maybe.is_null() || maybe.is_i64()));
            seen.insert(value.to_string());
        }
        assert!(seen.len() > 20, "only {} different values", seen.len());
        let again = generate(&schema, "some words of a customer", &mut dice(3));
        assert_eq!(generate(&schema, "some words of a customer", &mut dice(3)), again);
    }
}
