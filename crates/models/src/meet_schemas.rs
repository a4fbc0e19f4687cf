//! Several schemas that hold at once, as one: what stands beside a `$ref`, an `allOf` or a choice, as flattened and
//! tagged types have it. No provider takes these as they are, and to drop one side would ask for another type.

use serde_json::{Map, Number, Value, json};

/// Keywords that say something to a reader and nothing about a value.
const ANNOTATIONS: [&str; 12] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
];

/// Whether the keyword says nothing about a value.
pub(crate) fn annotates(keyword: &str) -> bool {
    ANNOTATIONS.contains(&keyword)
}

/// What a value must be to satisfy all that was added.
#[derive(Default)]
pub(crate) struct Met {
    /// Without `$ref`, `allOf`, `oneOf` and `anyOf`.
    pub(crate) plain: Map<String, Value>,
    /// One of each.
    pub(crate) choices: Vec<Vec<Value>>,
    /// No value satisfies all of them.
    pub(crate) never: bool,
}

impl Met {
    /// Whether the choices are all that is said about a value.
    pub(crate) fn only_chooses(&self) -> bool {
        self.plain.keys().all(|keyword| annotates(keyword))
    }

    /// Adds the keywords of one schema; references and `allOf` are the caller's.
    pub(crate) fn add(&mut self, schema: &Map<String, Value>) {
        self.add_members(schema);
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("$ref" | "allOf" | "properties" | "additionalProperties", _) => {}
                ("oneOf" | "anyOf", Value::Array(variants)) => self.choices.push(variants.clone()),
                ("const", value) => self.add_values(vec![value.clone()]),
                ("enum", Value::Array(values)) => self.add_values(values.clone()),
                ("type", kinds) => self.add_kinds(kinds),
                ("required", Value::Array(names)) => match self.plain.get_mut("required") {
                    Some(Value::Array(have)) => {
                        have.extend(names.iter().cloned());
                    }
                    _ => {
                        self.plain.insert("required".to_owned(), value.clone());
                    }
                },
                ("items", more) => {
                    let both = match self.plain.get("items") {
                        Some(have) if have != more => json!({"allOf": [have, more]}),
                        _ => more.clone(),
                    };
                    self.plain.insert("items".to_owned(), both);
                }
                (
                    "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties",
                    Value::Number(n),
                ) => {
                    self.add_bound(keyword, n, |new, old| new > old);
                }
                (
                    "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties",
                    Value::Number(n),
                ) => {
                    self.add_bound(keyword, n, |new, old| new < old);
                }
                // The first one stays, which is the outermost. Of two patterns or formats the validator enforces the
                // other.
                _ => {
                    self.plain.entry(keyword.clone()).or_insert_with(|| value.clone());
                }
            }
        }
    }

    fn add_bound(&mut self, keyword: &str, number: &Number, is_tighter: fn(f64, f64) -> bool) {
        let of = |number: &Number| number.as_f64().unwrap_or(0.0);
        let have = self.plain.get(keyword).and_then(Value::as_number);
        if have.is_none_or(|have| is_tighter(of(number), of(have))) {
            self.plain.insert(keyword.to_owned(), Value::Number(number.clone()));
        }
    }

    fn add_kinds(&mut self, kinds: &Value) {
        let list = |kinds: &Value| match kinds {
            Value::Array(kinds) => kinds.clone(),
            one => vec![one.clone()],
        };
        let more = list(kinds);
        let both = match self.plain.get("type").map(list) {
            None => more,
            Some(have) => {
                let has = |kinds: &[Value], kind: &str| kinds.iter().any(|one| one == kind);
                let mut both: Vec<Value> = have.iter().filter(|kind| more.contains(kind)).cloned().collect();
                // Each integer is a number.
                let one_is_wider = (has(&have, "integer") && has(&more, "number"))
                    || (has(&have, "number") && has(&more, "integer"));
                if one_is_wider && !has(&both, "integer") && !has(&both, "number") {
                    both.push(json!("integer"));
                }
                both
            }
        };
        self.never |= both.is_empty();
        let kinds = match both.as_slice() {
            [one] => one.clone(),
            _ => Value::Array(both),
        };
        self.plain.insert("type".to_owned(), kinds);
    }

    fn add_values(&mut self, values: Vec<Value>) {
        let both = match self.plain.get("enum") {
            Some(Value::Array(have)) => {
                have.iter().filter(|value| values.iter().any(|other| same(value, other))).cloned().collect()
            }
            _ => values,
        };
        self.never |= both.is_empty();
        self.plain.insert("enum".to_owned(), Value::Array(both));
    }

    /// Members, and whether there may be others. A side that is closed forbids what only the other one has.
    fn add_members(&mut self, schema: &Map<String, Value>) {
        let is_closed =
            |schema: &Map<String, Value>| schema.get("additionalProperties") == Some(&Value::Bool(false));
        let members = |schema: &Map<String, Value>| match schema.get("properties") {
            Some(Value::Object(members)) => members.clone(),
            _ => Map::new(),
        };
        let (have_closed, more_closed) = (is_closed(&self.plain), is_closed(schema));
        let (mut have, more) = (members(&self.plain), members(schema));
        if more_closed {
            have.retain(|name, _| more.contains_key(name));
        }
        for (name, member) in more {
            match have.get_mut(&name) {
                Some(both) if *both != member => *both = json!({"allOf": [both.take(), member]}),
                Some(_) => {}
                None if have_closed => {}
                None => {
                    have.insert(name, member);
                }
            }
        }
        if schema.contains_key("properties") || self.plain.contains_key("properties") {
            self.plain.insert("properties".to_owned(), Value::Object(have));
        }
        if let Some(others) = schema.get("additionalProperties")
            && !have_closed
        {
            let free = self.plain.get("additionalProperties").filter(|_| !more_closed).cloned();
            self.plain.insert("additionalProperties".to_owned(), free.unwrap_or_else(|| others.clone()));
        }
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}
