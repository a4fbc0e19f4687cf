//! Lowers a JSON Schema to what a provider takes as structured output.
//!
//! Providers compile the schema to a grammar and refuse, with a 400 for every job, what they cannot compile. So only
//! known keywords pass. What cannot be said in the grammar (ranges, lengths, patterns, numbers of items) is said in the
//! description instead, where the model reads it; the validator enforces all of it either way.
//!
//! | | Anthropic, Bedrock | OpenAI strict | Bedrock tool |
//! | --- | --- | --- | --- |
//! | objects | `additionalProperties: false` | the same | the same, but not at the top |
//! | optional members | optional | required, and `null` allowed | optional |
//! | `$ref`, `$defs` | kept, no recursion | kept | put in place, no recursion |
//! | `minItems` | 0 and 1 | described | described |
//! | formats | the documented ones | the documented ones | described |
//! | the top | anything | an object | an object of `type`, `properties`, `required` only |
//!
//! Sources: "Structured outputs" (Claude API docs), JSON Schema limitations; "Structured model outputs" (OpenAI API
//! docs), supported schemas; "Get validated JSON results from models" (Amazon Bedrock User Guide), supported JSON Schema
//! features; "Troubleshooting tool calls" (Amazon Nova User Guide) for the top of a tool's schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nightshift_core::model::ModelRequest;
use serde_json::{Map, Value, json};

/// Whose rules to lower to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Anthropic's `output_config.format`, and Bedrock's `outputConfig.textFormat`, which has the same rules.
    Anthropic,
    /// OpenAI's `response_format` with `strict`.
    OpenAiStrict,
    /// The input schema of a tool that the model is made to use, for models without structured output.
    BedrockTool,
}

/// Why a schema cannot be said to a provider: the path, as a JSON pointer, and what is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {path:?}: {what}")]
pub struct NotLowerable {
    /// Where.
    pub path: String,
    /// What.
    pub what: &'static str,
}

/// Deeper nesting is taken for a mistake: OpenAI stops at 10 levels, ours need 3.
const DEPTH_MAX: usize = 32;

/// String formats that the providers compile; the same in all their lists.
const FORMATS: [&str; 9] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];

/// Lowers `schema`.
///
/// # Errors
/// When the schema has a form that has no equivalent: a map with free keys, a tuple, recursion (where it is not
/// supported), a reference out of the document.
pub fn lower(schema: &Value, target: Target) -> Result<Value, NotLowerable> {
    let mut lowering = Lowering { root: schema, target, open_refs: Vec::new(), kept_defs: Map::new() };
    let mut lowered = lowering.node(schema, &mut String::new(), 0, true)?;
    if !lowering.kept_defs.is_empty()
        && let Value::Object(top) = &mut lowered
    {
        top.insert("$defs".to_owned(), Value::Object(lowering.kept_defs));
    }
    let is_object = lowered.get("type").is_some_and(|kind| kind == "object");
    if target != Target::Anthropic && !is_object {
        return Err(NotLowerable { path: String::new(), what: "the top of the schema is not an object" });
    }
    if target == Target::BedrockTool
        && let Value::Object(top) = &mut lowered
    {
        top.retain(|key, _| matches!(key.as_str(), "type" | "properties" | "required"));
    }
    Ok(lowered)
}

/// The schemas of the tasks as one target takes them, each lowered when it is first needed.
pub(crate) struct LoweredSchemas {
    target: Target,
    by_name: Mutex<HashMap<String, Option<Arc<Value>>>>,
}

impl LoweredSchemas {
    pub(crate) fn new(target: Target) -> Self {
        Self { target, by_name: Mutex::default() }
    }

    /// `None`, said once per task, where the schema has a form that the target does not take. The validator enforces it
    /// either way, and the prompt describes it.
    pub(crate) fn of(&self, request: &ModelRequest) -> Option<Arc<Value>> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name.get(&request.schema_name) {
            return known.clone();
        }
        let lowered = lower(&request.schema, self.target)
            .inspect_err(|error| {
                tracing::warn!(
                    task = %request.schema_name,
                    %error,
                    "the output schema cannot be sent as structured output; answers are only validated"
                );
            })
            .ok()
            .map(Arc::new);
        by_name.insert(request.schema_name.clone(), lowered.clone());
        lowered
    }
}

struct Lowering<'a> {
    root: &'a Value,
    target: Target,
    /// The references that are being followed, outermost first.
    open_refs: Vec<String>,
    /// Definitions that something still refers to, lowered.
    kept_defs: Map<String, Value>,
}

impl<'a> Lowering<'a> {
    fn node(
        &mut self,
        node: &Value,
        path: &mut String,
        depth: usize,
        is_top: bool,
    ) -> Result<Value, NotLowerable> {
        if depth > DEPTH_MAX {
            return Err(at(path, "nested too deeply"));
        }
        let node = match node {
            Value::Object(node) => node,
            Value::Bool(true) => return Err(at(path, "a value of any type")),
            _ => return Err(at(path, "not a schema")),
        };
        if let Some(reference) = node.get("$ref") {
            return self.reference(node, reference, path, depth, is_top);
        }
        if let Some(all) = node.get("allOf") {
            let merged = self.merged(node, all, path, depth)?;
            return self.node(&merged, path, depth + 1, is_top);
        }
        if let Some(choice) = node.get("oneOf").or_else(|| node.get("anyOf")) {
            return self.choice(node, choice, path, depth);
        }
        let mut out = Map::new();
        let mut notes = Vec::new();
        self.kind_and_values(node, &mut out, path)?;
        self.constraints(node, &mut out, &mut notes);
        if node.contains_key("properties") || has_type(node, "object") {
            self.object(node, &mut out, path, depth)?;
        }
        if node.contains_key("items") || node.contains_key("prefixItems") || has_type(node, "array") {
            self.array(node, &mut out, path, depth)?;
        }
        if out.is_empty() {
            return Err(at(path, "a value of any type"));
        }
        describe(node, notes, &mut out);
        Ok(Value::Object(out))
    }

    /// A reference stays one where it can; it is put in place where it has siblings, which OpenAI refuses and of which
    /// the description is worth keeping, and where definitions have no place.
    fn reference(
        &mut self,
        node: &Map<String, Value>,
        reference: &Value,
        path: &mut String,
        depth: usize,
        is_top: bool,
    ) -> Result<Value, NotLowerable> {
        let reference = reference.as_str().ok_or_else(|| at(path, "not a schema"))?;
        let (name, target) =
            self.resolve(reference).ok_or_else(|| at(path, "a reference out of the document"))?;
        let is_open = self.open_refs.iter().any(|open| open == reference);
        if is_open && self.target != Target::OpenAiStrict {
            return Err(at(path, "a recursive type"));
        }
        let has_siblings = node.keys().any(|key| key != "$ref");
        let in_place = is_top || has_siblings || self.target == Target::BedrockTool;
        if in_place && !is_open {
            let mut merged = target.as_object().cloned().ok_or_else(|| at(path, "not a schema"))?;
            for (key, value) in node.iter().filter(|(key, _)| *key != "$ref") {
                merged.insert(key.clone(), value.clone());
            }
            self.open_refs.push(reference.to_owned());
            let lowered = self.node(&Value::Object(merged), path, depth + 1, is_top);
            self.open_refs.pop();
            return lowered;
        }
        if !is_open && !self.kept_defs.contains_key(&name) {
            let target = target.clone();
            self.open_refs.push(reference.to_owned());
            let lowered = self.node(&target, &mut format!("/$defs/{name}"), depth + 1, false);
            self.open_refs.pop();
            self.kept_defs.insert(name.clone(), lowered?);
        }
        Ok(json!({"$ref": format!("#/$defs/{name}")}))
    }

    fn resolve(&self, reference: &str) -> Option<(String, &'a Value)> {
        if reference == "#" {
            return None;
        }
        let pointer = reference.strip_prefix('#')?;
        let name = pointer.strip_prefix("/$defs/").or_else(|| pointer.strip_prefix("/definitions/"))?;
        Some((name.replace(['/', '~'], "_"), self.root.pointer(pointer)?))
    }

    /// Several schemas at once, as one: no provider takes `allOf` with references, and OpenAI none at all.
    fn merged(
        &self,
        node: &Map<String, Value>,
        all: &Value,
        path: &str,
        depth: usize,
    ) -> Result<Value, NotLowerable> {
        let parts = all.as_array().ok_or_else(|| at(path, "not a schema"))?;
        let mut merged = Map::new();
        let own: Map<String, Value> =
            node.iter().filter(|(key, _)| *key != "allOf").map(|(k, v)| (k.clone(), v.clone())).collect();
        let own = Value::Object(own);
        for part in parts.iter().chain([&own]) {
            let mut part = part;
            let mut followed = depth;
            while let Some(reference) = part.get("$ref").and_then(Value::as_str) {
                followed += 1;
                if followed > DEPTH_MAX {
                    return Err(at(path, "nested too deeply"));
                }
                part = self.resolve(reference).ok_or_else(|| at(path, "a reference out of the document"))?.1;
            }
            let part = part.as_object().ok_or_else(|| at(path, "not a schema"))?;
            for (key, value) in part {
                match (merged.get_mut(key), value) {
                    (Some(Value::Object(have)), Value::Object(more)) if key == "properties" => {
                        have.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
                    }
                    (Some(Value::Array(have)), Value::Array(more)) if key == "required" => {
                        have.extend(more.iter().cloned());
                    }
                    _ => {
                        merged.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        Ok(Value::Object(merged))
    }

    fn choice(
        &mut self,
        node: &Map<String, Value>,
        choice: &Value,
        path: &mut String,
        depth: usize,
    ) -> Result<Value, NotLowerable> {
        let variants = choice.as_array().filter(|v| !v.is_empty()).ok_or_else(|| at(path, "not a schema"))?;
        let mut out = Map::new();
        // An enum whose values have descriptions arrives as a choice of constants. As an enum it costs no union, of
        // which Anthropic takes 16 per request.
        if let Some((values, meanings)) = constants(variants) {
            out.insert("type".to_owned(), json!("string"));
            out.insert("enum".to_owned(), Value::Array(values));
            describe(node, meanings, &mut out);
            return Ok(Value::Object(out));
        }
        let mut lowered = Vec::new();
        for (index, variant) in variants.iter().enumerate() {
            let variant =
                within(path, &format!("anyOf/{index}"), |path| self.node(variant, path, depth + 1, false))?;
            if !lowered.contains(&variant) {
                lowered.push(variant);
            }
        }
        out.insert("anyOf".to_owned(), Value::Array(lowered));
        describe(node, Vec::new(), &mut out);
        Ok(Value::Object(out))
    }

    fn kind_and_values(
        &self,
        node: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &str,
    ) -> Result<(), NotLowerable> {
        if let Some(kind) = node.get("type") {
            out.insert("type".to_owned(), kind.clone());
        }
        let values = match (node.get("enum"), node.get("const")) {
            (Some(Value::Array(values)), _) => values.clone(),
            (_, Some(value)) => vec![value.clone()],
            _ => return Ok(()),
        };
        if values.iter().any(|value| value.is_array() || value.is_object()) {
            return Err(at(path, "an enum of arrays or objects"));
        }
        if !out.contains_key("type")
            && let Some(kind) = common_type(&values)
        {
            out.insert("type".to_owned(), kind);
        }
        out.insert("enum".to_owned(), Value::Array(values));
        Ok(())
    }

    /// What the grammar takes stays; what it does not take becomes a note.
    fn constraints(&self, node: &Map<String, Value>, out: &mut Map<String, Value>, notes: &mut Vec<String>) {
        if let Some(format) = node.get("format").and_then(Value::as_str) {
            let is_known = FORMATS.contains(&format) || (format == "uri" && self.target == Target::Anthropic);
            if is_known && self.target != Target::BedrockTool {
                out.insert("format".to_owned(), json!(format));
            } else if has_type(node, "string") {
                notes.push(format!("format {format}"));
            }
        }
        for (key, words) in [
            ("minimum", "at least"),
            ("exclusiveMinimum", "more than"),
            ("maximum", "at most"),
            ("exclusiveMaximum", "less than"),
            ("multipleOf", "a multiple of"),
        ] {
            if let Some(number) = node.get(key).filter(|value| value.is_number()) {
                notes.push(format!("{words} {number}"));
            }
        }
        for (min_key, max_key, unit) in [
            ("minLength", "maxLength", "characters"),
            ("minItems", "maxItems", "items"),
            ("minProperties", "maxProperties", "members"),
        ] {
            let bound = |key: &str| node.get(key).and_then(Value::as_u64);
            let mut min = bound(min_key).filter(|min| *min > 0);
            if min_key == "minItems" && self.target == Target::Anthropic && min.is_some() {
                out.insert(min_key.to_owned(), json!(1));
                min = min.filter(|min| *min > 1);
            }
            match (min, bound(max_key)) {
                (Some(min), Some(max)) if min == max => notes.push(format!("exactly {min} {unit}")),
                (Some(min), Some(max)) => notes.push(format!("{min} to {max} {unit}")),
                (Some(min), None) => notes.push(format!("at least {min} {unit}")),
                (None, Some(max)) => notes.push(format!("at most {max} {unit}")),
                (None, None) => {}
            }
        }
        if let Some(pattern) = node.get("pattern").and_then(Value::as_str) {
            notes.push(format!("matching the regular expression {pattern}"));
        }
        if node.get("uniqueItems").is_some_and(|unique| unique == true) {
            notes.push("no item twice".to_owned());
        }
    }

    fn object(
        &mut self,
        node: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) -> Result<(), NotLowerable> {
        let empty = Map::new();
        let properties = node.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let is_map = node.get("patternProperties").is_some()
            || node
                .get("additionalProperties")
                .is_some_and(|more| *more != Value::Bool(false) && properties.is_empty());
        if is_map {
            return Err(at(path, "an object with free keys"));
        }
        let required: Vec<&str> = node
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut lowered = Map::new();
        for (name, property) in properties {
            let mut value = within(path, &format!("properties/{name}"), |path| {
                self.node(property, path, depth + 1, false)
            })?;
            let is_optional = !required.contains(&name.as_str());
            // Strict means that every member is there. One with a default needs no way out: any value of its type will
            // do, and its type may not take null. The others are options, for which null says "absent".
            if self.target == Target::OpenAiStrict
                && is_optional
                && property.get("default").is_none_or(Value::is_null)
            {
                value = nullable(value);
            }
            lowered.insert(name.clone(), value);
        }
        let required: Vec<Value> = lowered
            .keys()
            .filter(|name| self.target == Target::OpenAiStrict || required.contains(&name.as_str()))
            .map(|name| json!(name))
            .collect();
        out.entry("type").or_insert_with(|| json!("object"));
        out.insert("properties".to_owned(), Value::Object(lowered));
        out.insert("required".to_owned(), Value::Array(required));
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
        Ok(())
    }

    fn array(
        &mut self,
        node: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) -> Result<(), NotLowerable> {
        if node.contains_key("prefixItems") || node.get("items").is_some_and(Value::is_array) {
            return Err(at(path, "a tuple"));
        }
        let items = node.get("items").ok_or_else(|| at(path, "an array of anything"))?;
        let items = within(path, "items", |path| self.node(items, path, depth + 1, false))?;
        out.entry("type").or_insert_with(|| json!("array"));
        out.insert("items".to_owned(), items);
        Ok(())
    }
}

/// The description, followed by what could not be said otherwise.
fn describe(node: &Map<String, Value>, notes: Vec<String>, out: &mut Map<String, Value>) {
    let said = node.get("description").and_then(Value::as_str).unwrap_or_default().trim();
    let notes = notes.join("; ");
    let description = match (said.is_empty(), notes.is_empty()) {
        (true, true) => return,
        (false, true) => said.to_owned(),
        (true, false) => capitalised(&notes),
        (false, false) => format!("{} {}.", ended(said), capitalised(&notes)),
    };
    out.insert("description".to_owned(), Value::String(description));
}

fn ended(sentence: &str) -> String {
    if sentence.ends_with(['.', '!', '?', ':']) { sentence.to_owned() } else { format!("{sentence}.") }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The values and meanings of a choice that is between string constants only.
fn constants(variants: &[Value]) -> Option<(Vec<Value>, Vec<String>)> {
    let mut values = Vec::new();
    let mut meanings = Vec::new();
    for variant in variants {
        let constants: Vec<&Value> = match (variant.get("const"), variant.get("enum")) {
            (Some(constant), _) => vec![constant],
            (_, Some(Value::Array(constants))) => constants.iter().collect(),
            _ => return None,
        };
        let described = variant.get("description").and_then(Value::as_str);
        for constant in constants {
            let text = constant.as_str()?;
            if let Some(meaning) = described {
                meanings.push(format!("`{text}`: {}", meaning.trim().trim_end_matches('.')));
            }
            values.push(constant.clone());
        }
    }
    Some((values, meanings))
}

fn has_type(node: &Map<String, Value>, kind: &str) -> bool {
    match node.get("type") {
        Some(Value::String(one)) => one == kind,
        Some(Value::Array(many)) => many.iter().any(|one| one == kind),
        _ => false,
    }
}

fn common_type(values: &[Value]) -> Option<Value> {
    let kind = |value: &Value| match value {
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
        Value::Array(_) | Value::Object(_) => "object",
    };
    let first = kind(values.first()?);
    values.iter().all(|value| kind(value) == first).then(|| json!(first))
}

/// The same schema with `null` allowed.
fn nullable(mut schema: Value) -> Value {
    if schema.get("$ref").is_some() {
        return json!({"anyOf": [schema, {"type": "null"}]});
    }
    if let Some(Value::Array(variants)) = schema.get_mut("anyOf") {
        let null = json!({"type": "null"});
        if !variants.contains(&null) {
            variants.push(null);
        }
        return schema;
    }
    if let Some(kind) = schema.get_mut("type") {
        let mut kinds = match kind.take() {
            Value::Array(kinds) => kinds,
            one => vec![one],
        };
        if !kinds.iter().any(|one| one == "null") {
            kinds.push(json!("null"));
        }
        *kind = Value::Array(kinds);
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    schema
}

fn at(path: &str, what: &'static str) -> NotLowerable {
    NotLowerable { path: path.to_owned(), what }
}

fn within<T>(path: &mut String, step: &str, run: impl FnOnce(&mut String) -> T) -> T {
    let length = path.len();
    path.push('/');
    path.push_str(step);
    let result = run(path);
    path.truncate(length);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each target makes of a schema: Anthropic, OpenAI strict, Bedrock tool.
    fn check(schema: Value, anthropic: Value, openai: Value, tool: Value) {
        assert_eq!(lower(&schema, Target::Anthropic).unwrap(), anthropic, "Anthropic");
        assert_eq!(lower(&schema, Target::OpenAiStrict).unwrap(), openai, "OpenAI");
        assert_eq!(lower(&schema, Target::BedrockTool).unwrap(), tool, "Bedrock tool");
    }

    fn object(properties: Value, required: Value) -> Value {
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
    }

    fn tool(properties: Value, required: Value) -> Value {
        json!({"type": "object", "properties": properties, "required": required})
    }

    #[test]
    fn ranges_and_lengths_move_into_the_description() {
        let s = json!({"type": "string", "description": "A short summary. At most 200 characters."});
        let n = json!({"type": "integer", "description": "At least 0; at most 5"});
        let properties = json!({"s": s, "n": n});
        check(
            json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Out", "type": "object",
                "properties": {
                    "s": {"type": "string", "description": "A short summary", "maxLength": 200, "title": "S"},
                    "n": {"type": "integer", "format": "uint8", "minimum": 0, "maximum": 5}
                },
                "required": ["s", "n"]
            }),
            object(properties.clone(), json!(["n", "s"])),
            object(properties.clone(), json!(["n", "s"])),
            tool(properties, json!(["n", "s"])),
        );
    }

    #[test]
    fn optional_members_stay_optional_or_become_nullable() {
        check(
            json!({"type": "object", "properties": {
                "a": {"type": "string"},
                "b": {"type": ["string", "null"]},
                "c": {"type": "array", "items": {"type": "string"}, "default": []},
                "d": {"type": "string", "enum": ["x"]},
                "e": {"type": "integer", "default": null}
            }, "required": []}),
            object(
                json!({
                    "a": {"type": "string"}, "b": {"type": ["string", "null"]},
                    "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "string", "enum": ["x"]},
                    "e": {"type": "integer"}
                }),
                json!([]),
            ),
            object(
                json!({
                    "a": {"type": ["string", "null"]}, "b": {"type": ["string", "null"]},
                    "c": {"type": "array", "items": {"type": "string"}},
                    "d": {"type": ["string", "null"], "enum": ["x", null]}, "e": {"type": ["integer", "null"]}
                }),
                json!(["a", "b", "c", "d", "e"]),
            ),
            tool(
                json!({
                    "a": {"type": "string"}, "b": {"type": ["string", "null"]},
                    "c": {"type": "array", "items": {"type": "string"}}, "d": {"type": "string", "enum": ["x"]},
                    "e": {"type": "integer"}
                }),
                json!([]),
            ),
        );
    }

    #[test]
    fn numbers_of_items_and_formats() {
        let described = |description: &str| json!({"type": "array", "items": {"type": "string"}, "description": description});
        check(
            json!({"type": "object", "properties": {
                "l": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 5},
                "m": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "d": {"type": "string", "format": "date"},
                "u": {"type": "string", "format": "uri"},
                "p": {"type": "string", "pattern": "^[a-z]+$"}
            }, "required": ["l", "m", "d", "u", "p"]}),
            object(
                json!({
                    "l": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "At most 5 items"},
                    "m": {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": "At least 2 items"},
                    "d": {"type": "string", "format": "date"},
                    "u": {"type": "string", "format": "uri"},
                    "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
                }),
                json!(["d", "l", "m", "p", "u"]),
            ),
            object(
                json!({
                    "l": described("1 to 5 items"), "m": described("At least 2 items"),
                    "d": {"type": "string", "format": "date"},
                    "u": {"type": "string", "description": "Format uri"},
                    "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
                }),
                json!(["d", "l", "m", "p", "u"]),
            ),
            tool(
                json!({
                    "l": described("1 to 5 items"), "m": described("At least 2 items"),
                    "d": {"type": "string", "description": "Format date"},
                    "u": {"type": "string", "description": "Format uri"},
                    "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
                }),
                json!(["d", "l", "m", "p", "u"]),
            ),
        );
    }

    #[test]
    fn references_are_kept_where_they_can_be() {
        let item = object(json!({"t": {"type": "string"}}), json!(["t"]));
        let kept = |required: Value, properties: Value| {
            let mut top = object(properties, required);
            top["$defs"] = json!({"Item": item});
            top
        };
        let mut with_description = item.clone();
        with_description["description"] = json!("The first");
        check(
            json!({
                "type": "object",
                "properties": {
                    "all": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
                    "first": {"$ref": "#/$defs/Item", "description": "The first"}
                },
                "required": ["all", "first"],
                "$defs": {
                    "Item": {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]},
                    "Unused": {"type": "object", "additionalProperties": {"type": "string"}}
                }
            }),
            kept(
                json!(["all", "first"]),
                json!({"all": {"type": "array", "items": {"$ref": "#/$defs/Item"}}, "first": with_description}),
            ),
            kept(
                json!(["all", "first"]),
                json!({"all": {"type": "array", "items": {"$ref": "#/$defs/Item"}}, "first": with_description}),
            ),
            tool(
                json!({"all": {"type": "array", "items": item}, "first": with_description}),
                json!(["all", "first"]),
            ),
        );
    }

    #[test]
    fn choices_of_constants_become_enums_with_their_meanings() {
        let lowered = json!({
            "type": "string", "enum": ["low", "high"],
            "description": "How urgent. `low`: can wait; `high`: cannot."
        });
        check(
            json!({"type": "object", "required": ["u"], "properties": {"u": {"description": "How urgent", "oneOf": [
                {"const": "low", "type": "string", "description": "can wait."},
                {"const": "high", "type": "string", "description": "cannot"}
            ]}}}),
            object(json!({"u": lowered}), json!(["u"])),
            object(json!({"u": lowered}), json!(["u"])),
            tool(json!({"u": lowered}), json!(["u"])),
        );
    }

    #[test]
    fn other_choices_become_any_of_and_all_of_is_merged() {
        let schema = json!({"type": "object", "required": ["v"], "properties": {
            "v": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
            "w": {"allOf": [{"$ref": "#/$defs/W"}], "description": "own"}
        }, "$defs": {"W": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}}});
        let w = json!({"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"],
            "additionalProperties": false, "description": "own"});
        let mut nullable_w = w.clone();
        nullable_w["type"] = json!(["object", "null"]);
        let v =
            json!({"anyOf": [{"type": "string", "description": "At most 3 characters"}, {"type": "null"}]});
        check(
            schema,
            object(json!({"v": v, "w": w}), json!(["v"])),
            object(json!({"v": v, "w": nullable_w}), json!(["v", "w"])),
            tool(json!({"v": v, "w": w}), json!(["v"])),
        );
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_its_place() {
        for (schema, target, path, what) in [
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                Target::Anthropic,
                "",
                "an object with free keys",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}]}}}),
                Target::OpenAiStrict,
                "/properties/a",
                "a tuple",
            ),
            (
                json!({"type": "object", "properties": {"a": true}}),
                Target::Anthropic,
                "/properties/a",
                "a value of any type",
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                Target::Anthropic,
                "/properties/a",
                "a value of any type",
            ),
            (
                json!({"$ref": "https://x.example/s"}),
                Target::Anthropic,
                "",
                "a reference out of the document",
            ),
            (
                json!({"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs":
                    {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}}),
                Target::Anthropic,
                "/$defs/N/properties/n",
                "a recursive type",
            ),
            (json!({"type": "string"}), Target::OpenAiStrict, "", "the top of the schema is not an object"),
            (
                json!({"type": "object", "properties": {"a": {"enum": [[1]]}}}),
                Target::Anthropic,
                "/properties/a",
                "an enum of arrays or objects",
            ),
        ] {
            assert_eq!(lower(&schema, target), Err(NotLowerable { path: path.to_owned(), what }), "{schema}");
        }
    }

    #[test]
    fn openai_takes_recursion() {
        let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/N"}}, "$defs":
            {"N": {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}}}});
        let lowered = lower(&schema, Target::OpenAiStrict).unwrap();
        assert_eq!(
            lowered["$defs"]["N"],
            object(json!({"n": {"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]}}), json!(["n"])),
        );
    }

    #[test]
    fn no_keyword_that_a_provider_refuses_survives_anywhere() {
        let schema = json!({
            "$schema": "s", "$id": "i", "type": "object", "minProperties": 1, "unevaluatedProperties": false,
            "properties": {"a": {"type": "array", "uniqueItems": true, "contains": {"type": "string"}, "items":
                {"type": "object", "examples": [1], "if": {}, "then": {}, "not": {}, "dependentRequired": {}, "properties":
                    {"x": {"type": "number", "exclusiveMinimum": 0.5, "multipleOf": 0.5, "deprecated": true}}}}},
            "required": ["a", "ghost"]
        });
        fn keys(value: &Value, in_properties: bool, found: &mut Vec<String>) {
            if let Value::Object(map) = value {
                for (key, value) in map {
                    if !in_properties {
                        found.push(key.clone());
                    }
                    keys(value, !in_properties && matches!(key.as_str(), "properties" | "$defs"), found);
                }
            }
        }
        for target in [Target::Anthropic, Target::OpenAiStrict, Target::BedrockTool] {
            let lowered = lower(&schema, target).unwrap();
            let mut found = Vec::new();
            keys(&lowered, false, &mut found);
            for key in found {
                assert!(
                    [
                        "type",
                        "properties",
                        "required",
                        "additionalProperties",
                        "items",
                        "description",
                        "enum",
                        "anyOf",
                        "$ref",
                        "$defs",
                        "format",
                        "minItems"
                    ]
                    .contains(&key.as_str()),
                    "{target:?} kept {key}"
                );
            }
            assert_eq!(lowered["required"], json!(["a"]));
        }
    }
}
