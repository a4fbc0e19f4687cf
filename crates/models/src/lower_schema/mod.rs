//! Lowers a JSON Schema to what a provider takes as structured output.
//!
//! Providers compile the schema to a grammar and refuse, with a 400 for every job, what they cannot compile. So only
//! what a provider documents passes, and the rest (ranges, lengths, patterns, numbers of items) is said in the
//! description, where the model reads it; the validator enforces all of it either way. Members keep their order, which
//! is the order in which the model writes them.
//!
//! | | Anthropic | Bedrock | OpenAI strict | a server of one's own | another endpoint | Bedrock tool |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | objects | closed | closed | closed | closed | closed | closed, but not at the top |
//! | optional members | optional | optional | required, and `null` allowed | as OpenAI | as OpenAI | optional |
//! | `$ref`, `$defs` | kept, no recursion | as Anthropic | kept | kept | kept | put in place, no recursion |
//! | `minItems`, `maxItems` | `minItems` 0 and 1 | as Anthropic | sent | sent | described | described |
//! | `minLength`, `maxLength` | described | described | described | sent | described | described |
//! | ranges | described | described | sent | sent for integers | described | described |
//! | `pattern` | sent where plain | described | sent where plain | sent where plain | described | described |
//! | formats | the documented ones | as Anthropic | the documented ones | those of dates, and `uuid` | as OpenAI | described |
//! | the top | anything | an object | an object | anything | an object | `type`, `properties`, `required` only |
//!
//! *A server of one's own* is llama.cpp, Ollama, LM Studio or vLLM, told by an address that the public network has no
//! name for. *Another endpoint* speaks like OpenAI under a public name: which keywords it refuses is its own affair and
//! changes without notice, a refused schema holds up every job, and a bound that is only described costs a re-ask. So it
//! is sent the least that all of them take.
//!
//! **Invariant:** what the schema accepts, the lowered one accepts, but for two things. An optional member may have to be
//! given as `null`. And objects are closed: members that the type would ignore are not written. A form that cannot be
//! lowered so is refused, with what to write instead.
//!
//! Sources: "Structured outputs" (Claude API docs), JSON Schema limitations; "Structured model outputs" (OpenAI API
//! docs), supported schemas, and those of fine-tuned models; "Get validated JSON results from models" (Amazon Bedrock
//! User Guide), supported JSON Schema features; "Troubleshooting tool calls" (Amazon Nova User Guide) for the top of a
//! tool's schema; "GBNF Guide" (llama.cpp), JSON Schemas → GBNF, known limitations; `backend_xgrammar.py` (vLLM) for
//! lengths beside a pattern.

mod lowered;
mod target;
mod words;

use serde_json::{Map, Value, json};

use crate::meet_schemas::{Met, annotates};
use words::describe;

pub(crate) use lowered::LoweredSchemas;
pub use target::Target;

/// Why a schema cannot be said to a provider: the path, as a JSON pointer, what is there, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {path:?}: {what}")]
pub struct NotLowerable {
    /// Where.
    pub path: String,
    /// What stands there that a lowered schema could not say without being narrower than the type.
    pub what: &'static str,
}

/// Deeper nesting is taken for a mistake: OpenAI stops at 10 levels, ours need 3.
const DEPTH_MAX: usize = 32;
/// More variants than this, after all choices of a place are multiplied, make a grammar that no provider compiles soon.
const VARIANTS_MAX: usize = 64;
const FREE_KEYS: &str = "an object with free keys: use a list of objects with a key and a value";
const ANY_VALUE: &str = "a value of any type: give it one";
const TOP_NOT_OBJECT: &str =
    "the top of the schema is not one object: give a choice or a list a member of its own";
const NOT_A_SCHEMA: &str = "not a schema";
const TOO_DEEP: &str = "nested too deeply: flatten the type";
const RECURSIVE: &str = "a recursive type: bound its depth with a type for each level";
const UNKNOWN_REFERENCE: &str = "a reference out of the document: put the definition into it";

/// Lowers `schema`.
///
/// # Errors
/// When the schema has a form that has no equivalent: a map with free keys, a tuple, recursion (where it is not
/// supported), a reference out of the document, a choice at the top where there must be one object.
pub fn lower(schema: &Value, target: Target) -> Result<Value, NotLowerable> {
    let mut lowering = Lowering {
        root: schema,
        target,
        open_refs: Vec::new(),
        met_refs: Vec::new(),
        defining: Vec::new(),
        kept_defs: Map::new(),
    };
    let mut lowered = lowering
        .node(schema, &mut String::new(), 0, true)?
        .ok_or_else(|| at("", "no value satisfies it: look for members that contradict each other"))?;
    if !lowering.kept_defs.is_empty()
        && let Value::Object(top) = &mut lowered
    {
        top.insert("$defs".to_owned(), Value::Object(lowering.kept_defs));
    }
    let is_object = lowered.get("type").is_some_and(|kind| kind == "object");
    if !target.takes_any_top() && !is_object {
        return Err(at("", TOP_NOT_OBJECT));
    }
    if target == Target::BedrockTool
        && let Value::Object(top) = &mut lowered
    {
        top.retain(|key, _| matches!(key.as_str(), "type" | "properties" | "required"));
    }
    Ok(lowered)
}

struct Lowering<'a> {
    root: &'a Value,
    target: Target,
    /// The references that are being followed, outermost first.
    open_refs: Vec<String>,
    /// Those that were merged with what stands beside them, around here.
    met_refs: Vec<String>,
    /// Definitions that are being lowered.
    defining: Vec<String>,
    /// Definitions that something still refers to, lowered.
    kept_defs: Map<String, Value>,
}

impl<'a> Lowering<'a> {
    /// The lowered schema; `None` where no value satisfies it, as in a variant that its neighbours exclude.
    fn node(
        &mut self,
        node: &Value,
        path: &mut String,
        depth: usize,
        is_top: bool,
    ) -> Result<Option<Value>, NotLowerable> {
        if depth > DEPTH_MAX {
            return Err(at(path, TOO_DEEP));
        }
        let node = match node {
            Value::Object(node) => node,
            Value::Bool(true) => return Err(at(path, ANY_VALUE)),
            Value::Bool(false) => return Ok(None),
            _ => return Err(at(path, NOT_A_SCHEMA)),
        };
        if let Some(reference) = node.get("$ref")
            && node.keys().all(|key| key == "$ref" || annotates(key))
        {
            return self.reference(node, reference, path, depth, is_top);
        }
        let mut met = Met::default();
        let followed = self.met_refs.len();
        self.meet(&mut met, node, path, depth)?;
        let lowered = self.met(&met, path, depth);
        self.met_refs.truncate(followed);
        lowered
    }

    /// Adds a schema, what it refers to and what it is made of.
    fn meet(
        &mut self,
        met: &mut Met,
        node: &Map<String, Value>,
        path: &str,
        depth: usize,
    ) -> Result<(), NotLowerable> {
        if depth > DEPTH_MAX {
            return Err(at(path, TOO_DEEP));
        }
        met.add(node);
        let mut parts: Vec<&Value> = Vec::new();
        if let Some(reference) = node.get("$ref") {
            let reference = reference.as_str().ok_or_else(|| at(path, NOT_A_SCHEMA))?;
            if self.met_refs.iter().any(|met| met == reference) {
                return Err(at(path, RECURSIVE));
            }
            parts.push(self.resolve(reference).ok_or_else(|| at(path, UNKNOWN_REFERENCE))?.1);
            self.met_refs.push(reference.to_owned());
        }
        if let Some(all) = node.get("allOf") {
            parts.extend(all.as_array().ok_or_else(|| at(path, NOT_A_SCHEMA))?);
        }
        for part in parts {
            match part {
                Value::Object(part) => self.meet(met, part, path, depth + 1)?,
                Value::Bool(true) => {}
                Value::Bool(false) => met.never = true,
                _ => return Err(at(path, NOT_A_SCHEMA)),
            }
        }
        Ok(())
    }

    fn met(&mut self, met: &Met, path: &mut String, depth: usize) -> Result<Option<Value>, NotLowerable> {
        if met.never {
            return Ok(None);
        }
        if met.choices.is_empty() {
            return self.plain(&met.plain, path, depth);
        }
        // An enum whose values have descriptions arrives as a choice of constants. As an enum it costs no union, of
        // which Anthropic takes 16 per request.
        if let [variants] = met.choices.as_slice()
            && met.plain.keys().all(|key| annotates(key) || key == "type")
            && met.plain.get("type").is_none_or(|kind| kind == "string")
            && let Some((values, meanings)) = constants(variants)
        {
            let mut out = Map::new();
            out.insert("type".to_owned(), json!("string"));
            out.insert("enum".to_owned(), Value::Array(values));
            describe(&met.plain, meanings, &mut out);
            return Ok(Some(Value::Object(out)));
        }
        let mut lowered: Vec<Value> = Vec::new();
        for (index, variant) in combinations(met)
            .ok_or_else(|| {
                at(path, "too many combinations of choices: give some of them a member of their own")
            })?
            .iter()
            .enumerate()
        {
            let variant =
                within(path, &format!("anyOf/{index}"), |path| self.node(variant, path, depth + 1, false))?;
            lowered.extend(variant.filter(|variant| !lowered.contains(variant)));
        }
        let mut out = match lowered.len() {
            0 => return Ok(None),
            1 => match lowered.pop() {
                Some(Value::Object(only)) => only,
                _ => return Ok(None),
            },
            _ => Map::from_iter([("anyOf".to_owned(), Value::Array(lowered))]),
        };
        describe(&met.plain, Vec::new(), &mut out);
        Ok(Some(Value::Object(out)))
    }

    fn plain(
        &mut self,
        node: &Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) -> Result<Option<Value>, NotLowerable> {
        let mut out = Map::new();
        let mut notes = Vec::new();
        self.kind_and_values(node, &mut out, path)?;
        let kinds = &out.clone();
        if !kinds.contains_key("type") && !kinds.contains_key("enum") {
            return Err(at(path, ANY_VALUE));
        }
        self.constraints(node, kinds, &mut out, &mut notes);
        if has_type(kinds, "object") && !self.object(node, &mut out, path, depth)? {
            return Ok(None);
        }
        if has_type(kinds, "array") {
            self.array(node, &mut out, path, depth)?;
        }
        describe(node, notes, &mut out);
        Ok(Some(Value::Object(out)))
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
    ) -> Result<Option<Value>, NotLowerable> {
        let reference = reference.as_str().ok_or_else(|| at(path, NOT_A_SCHEMA))?;
        let (name, target) = self.resolve(reference).ok_or_else(|| at(path, UNKNOWN_REFERENCE))?;
        let is_open = self.open_refs.iter().any(|open| open == reference);
        if is_open && !self.target.takes_recursion() {
            return Err(at(path, RECURSIVE));
        }
        let in_place = is_top || node.contains_key("description") || self.target == Target::BedrockTool;
        if in_place && !is_open {
            let mut merged = target.as_object().cloned().ok_or_else(|| at(path, NOT_A_SCHEMA))?;
            for (key, value) in node.iter().filter(|(key, _)| *key != "$ref") {
                merged.insert(key.clone(), value.clone());
            }
            self.open_refs.push(reference.to_owned());
            let lowered = self.node(&Value::Object(merged), path, depth + 1, is_top);
            self.open_refs.pop();
            return lowered;
        }
        if !self.defining.contains(&name) && !self.kept_defs.contains_key(&name) {
            self.open_refs.push(reference.to_owned());
            self.defining.push(name.clone());
            let lowered = self.node(target, &mut format!("/$defs/{name}"), depth + 1, false);
            self.defining.pop();
            self.open_refs.pop();
            let Some(lowered) = lowered? else { return Ok(None) };
            self.kept_defs.insert(name.clone(), lowered);
        }
        Ok(Some(json!({"$ref": format!("#/$defs/{name}")})))
    }

    fn resolve(&self, reference: &str) -> Option<(String, &'a Value)> {
        if reference == "#" {
            return None;
        }
        let pointer = reference.strip_prefix('#')?;
        let name = pointer.strip_prefix("/$defs/").or_else(|| pointer.strip_prefix("/definitions/"))?;
        Some((name.replace(['/', '~'], "_"), self.root.pointer(pointer)?))
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
        let Some(Value::Array(values)) = node.get("enum") else { return Ok(()) };
        if values.iter().any(|value| value.is_array() || value.is_object()) {
            return Err(at(path, "an enum of arrays or objects: use a choice of types"));
        }
        if !out.contains_key("type")
            && let Some(kind) = common_type(values)
        {
            out.insert("type".to_owned(), kind);
        }
        out.insert("enum".to_owned(), Value::Array(values.clone()));
        Ok(())
    }

    /// What the grammar takes stays; what it does not take becomes a note.
    fn constraints(
        &self,
        node: &Map<String, Value>,
        kinds: &Map<String, Value>,
        out: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) {
        let mut beside_pattern = false;
        if has_type(kinds, "string") {
            if let Some(format) = node.get("format").and_then(Value::as_str) {
                if self.target.takes_format(format) {
                    out.insert("format".to_owned(), json!(format));
                    beside_pattern = true;
                } else {
                    notes.push(format!("format {format}"));
                }
            }
            if let Some(pattern) = node.get("pattern").and_then(Value::as_str) {
                // vLLM takes one of the two.
                if self.target.takes_pattern(pattern) && !(self.target == Target::OwnServer && beside_pattern)
                {
                    out.insert("pattern".to_owned(), json!(pattern));
                    beside_pattern = true;
                } else {
                    notes.push(format!("matching the regular expression {pattern}"));
                }
            }
        }
        if has_type(kinds, "number") || has_type(kinds, "integer") {
            let kind = if has_type(kinds, "number") { "number" } else { "integer" };
            for (key, words) in [
                ("minimum", "at least"),
                ("exclusiveMinimum", "more than"),
                ("maximum", "at most"),
                ("exclusiveMaximum", "less than"),
                ("multipleOf", "a multiple of"),
            ] {
                let Some(number) = node.get(key).filter(|value| value.is_number()) else { continue };
                if self.target.takes_bound(key, number, kind, false) {
                    out.insert(key.to_owned(), number.clone());
                } else {
                    notes.push(format!("{words} {number}"));
                }
            }
        }
        for (kind, min_key, max_key, unit) in [
            ("string", "minLength", "maxLength", "characters"),
            ("array", "minItems", "maxItems", "items"),
            ("object", "minProperties", "maxProperties", "members"),
        ] {
            if !has_type(kinds, kind) {
                continue;
            }
            let mut to_say = |key: &str| {
                let bound = node.get(key).filter(|bound| bound.as_u64().is_some())?;
                if self.target.takes_bound(key, bound, kind, beside_pattern) {
                    out.insert(key.to_owned(), bound.clone());
                    return None;
                }
                // Anthropic takes 0 and 1.
                if key == "minItems" && matches!(self.target, Target::Anthropic | Target::Bedrock) {
                    out.insert(key.to_owned(), json!(1));
                }
                bound.as_u64()
            };
            let (min, max) = (to_say(min_key).filter(|min| *min > 0), to_say(max_key));
            match (min, max) {
                (Some(min), Some(max)) if min == max => notes.push(format!("exactly {min} {unit}")),
                (Some(min), Some(max)) => notes.push(format!("{min} to {max} {unit}")),
                (Some(min), None) => notes.push(format!("at least {min} {unit}")),
                (None, Some(max)) => notes.push(format!("at most {max} {unit}")),
                (None, None) => {}
            }
        }
        if has_type(kinds, "array") && node.get("uniqueItems").is_some_and(|unique| unique == true) {
            notes.push("no item twice".to_owned());
        }
    }

    /// `false` when a member that must be there can have no value.
    fn object(
        &mut self,
        node: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) -> Result<bool, NotLowerable> {
        let empty = Map::new();
        let properties = node.get("properties").and_then(Value::as_object);
        let others = |key: &str| node.get(key).filter(|others| **others != Value::Bool(false));
        let is_closed = node.contains_key("additionalProperties") && others("additionalProperties").is_none();
        let has_others = others("additionalProperties").or(others("unevaluatedProperties")).is_some()
            || node.contains_key("patternProperties");
        if has_others || (properties.is_none() && !is_closed) {
            return Err(at(path, FREE_KEYS));
        }
        let properties = properties.unwrap_or(&empty);
        let required: Vec<&str> = node
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if required.iter().any(|name| !properties.contains_key(*name)) {
            return if is_closed {
                Ok(false)
            } else {
                Err(at(path, "a required member without a schema: describe it under `properties`"))
            };
        }
        let mut lowered = Map::new();
        for (name, property) in properties {
            let is_optional = !required.contains(&name.as_str());
            let value = within(path, &format!("properties/{name}"), |path| {
                self.node(property, path, depth + 1, false)
            })?;
            let Some(mut value) = value else {
                if is_optional {
                    continue;
                }
                return Ok(false);
            };
            // Strict means that every member is there. One with a default needs no way out: any value of its type will
            // do, and its type may not take null. The others are options, for which null says "absent".
            if self.target.requires_all() && is_optional && property.get("default").is_none_or(Value::is_null)
            {
                value = nullable(value);
            }
            lowered.insert(name.clone(), value);
        }
        let required: Vec<Value> = lowered
            .keys()
            .filter(|name| self.target.requires_all() || required.contains(&name.as_str()))
            .map(|name| json!(name))
            .collect();
        out.insert("properties".to_owned(), Value::Object(lowered));
        out.insert("required".to_owned(), Value::Array(required));
        out.insert("additionalProperties".to_owned(), Value::Bool(false));
        Ok(true)
    }

    fn array(
        &mut self,
        node: &Map<String, Value>,
        out: &mut Map<String, Value>,
        path: &mut String,
        depth: usize,
    ) -> Result<(), NotLowerable> {
        if node.contains_key("prefixItems") || node.get("items").is_some_and(Value::is_array) {
            return Err(at(path, "a tuple: use an object with a member for each part"));
        }
        let items =
            node.get("items").ok_or_else(|| at(path, "an array of anything: give its items a type"))?;
        let items = within(path, "items", |path| self.node(items, path, depth + 1, false))?;
        let items = items.ok_or_else(|| at(path, "an array of which no item can exist: leave it out"))?;
        out.insert("items".to_owned(), items);
        Ok(())
    }
}

/// Each way to choose, as one schema with what stands beside the choices; `None` when there are too many.
fn combinations(met: &Met) -> Option<Vec<Value>> {
    if let ([variants], true) = (met.choices.as_slice(), met.only_chooses()) {
        return (variants.len() <= VARIANTS_MAX).then(|| variants.clone());
    }
    // What the choices have in common is described where they are; only what constrains goes into each.
    let beside: Map<String, Value> =
        met.plain.iter().filter(|(key, _)| !annotates(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
    let mut all = vec![vec![Value::Object(beside)]];
    for variants in &met.choices {
        let longer = all.iter().flat_map(|parts| {
            variants.iter().map(|variant| parts.iter().chain([variant]).cloned().collect::<Vec<_>>())
        });
        all = longer.take(VARIANTS_MAX + 1).collect();
        if all.len() > VARIANTS_MAX {
            return None;
        }
    }
    Some(all.into_iter().map(|parts| json!({"allOf": parts})).collect())
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
mod tests;
