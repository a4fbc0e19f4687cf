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

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use nightshift_core::model::ModelRequest;
use serde_json::{Map, Value, json};

use crate::meet_schemas::{Met, annotates};

/// Whose rules to lower to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Anthropic's `output_config.format`.
    Anthropic,
    /// Bedrock's `outputConfig.textFormat`: Anthropic's rules, for models of others too.
    Bedrock,
    /// OpenAI's and Azure's `response_format` with `strict`.
    OpenAiStrict,
    /// The same to a model server of one's own.
    OwnServer,
    /// The same to whoever else speaks it, and to OpenAI's fine-tuned models, which take fewer keywords.
    OpenAiCompatible,
    /// The input schema of a tool that the model is made to use, for models without structured output.
    BedrockTool,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Anthropic,
        Self::Bedrock,
        Self::OpenAiStrict,
        Self::OwnServer,
        Self::OpenAiCompatible,
        Self::BedrockTool,
    ];

    /// Whether every member must be required.
    fn requires_all(self) -> bool {
        matches!(self, Self::OpenAiStrict | Self::OwnServer | Self::OpenAiCompatible)
    }

    fn takes_recursion(self) -> bool {
        self.requires_all()
    }

    fn takes_any_top(self) -> bool {
        matches!(self, Self::Anthropic | Self::OwnServer)
    }

    fn takes_format(self, format: &str) -> bool {
        match self {
            Self::Anthropic | Self::Bedrock => FORMATS.contains(&format) || format == "uri",
            Self::OpenAiStrict | Self::OpenAiCompatible => FORMATS.contains(&format),
            Self::OwnServer => OWN_SERVER_FORMATS.contains(&format),
            Self::BedrockTool => false,
        }
    }

    fn takes_pattern(self, pattern: &str) -> bool {
        matches!(self, Self::Anthropic | Self::OpenAiStrict | Self::OwnServer) && is_plain_pattern(pattern)
    }

    /// Whether this bound of a value of this type is sent; `beside_pattern`: a pattern or a format is sent with it.
    fn takes_bound(self, keyword: &str, bound: &Value, kind: &str, beside_pattern: bool) -> bool {
        match (self, keyword) {
            (Self::OpenAiStrict, "minProperties" | "maxProperties" | "minLength" | "maxLength") => false,
            (Self::OpenAiStrict, _) => bound.is_number(),
            (Self::OwnServer, "minLength" | "maxLength") if beside_pattern => false,
            (Self::OwnServer, "minLength" | "maxLength" | "minItems" | "maxItems") => {
                bound.as_u64().is_some_and(|count| count <= REPEATS_MAX)
            }
            (Self::OwnServer, "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum") => {
                kind == "integer" && bound.is_i64()
            }
            (Self::Anthropic | Self::Bedrock, "minItems") => bound.as_u64().is_some_and(|count| count <= 1),
            _ => false,
        }
    }
}

/// Why a schema cannot be said to a provider: the path, as a JSON pointer, what is there, and what to write instead.
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
/// More variants than this, after all choices of a place are multiplied, make a grammar that no provider compiles soon.
const VARIANTS_MAX: usize = 64;
/// llama.cpp refuses a grammar with 2,000 repetitions or more of one thing (`MAX_REPETITION_THRESHOLD`).
const REPEATS_MAX: u64 = 1_500;

/// String formats that the providers compile; the same in all their lists.
const FORMATS: [&str; 9] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];
/// Those of which llama.cpp and vLLM mean the same.
const OWN_SERVER_FORMATS: [&str; 4] = ["date-time", "time", "date", "uuid"];

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

/// Whether all engines read the pattern alike, as one that the whole text must match: anchored at both ends, plain
/// characters, classes without negation, groups and counts. No shorthand, no dot, nothing that looks around.
fn is_plain_pattern(pattern: &str) -> bool {
    let Some(inside) = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix('$')) else {
        return false;
    };
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '_' | ',' | ':' | '/' | '@' | '#' | '%')
    };
    let (mut depth, mut repeats) = (0_u32, 1_u64);
    // Whether a branch has something in it, and whether the last of it may be repeated.
    let (mut has_some, mut is_atom) = (false, false);
    let mut chars = inside.chars().peekable();
    while let Some(c) = chars.next() {
        (has_some, is_atom) = match c {
            '(' if chars.peek() != Some(&'?') => {
                depth += 1;
                (false, false)
            }
            ')' if depth > 0 && has_some => {
                depth -= 1;
                (true, true)
            }
            '|' if depth > 0 && has_some => (false, false),
            '[' => {
                let class: String = chars.by_ref().take_while(|c| *c != ']').collect();
                if class.is_empty() || !class.chars().all(|c| plain(c) || c == '.') {
                    return false;
                }
                (true, true)
            }
            '\\' if chars
                .next_if(|c| matches!(c, '.' | '-' | '/' | '+' | '*' | '?' | '(' | ')'))
                .is_some() =>
            {
                (true, true)
            }
            '?' | '*' | '+' if is_atom => (true, false),
            '{' if is_atom => {
                let count: String = chars.by_ref().take_while(|c| *c != '}').collect();
                let numbers = count.split(',').map(|n| if n.is_empty() { Ok(1) } else { n.parse::<u64>() });
                let Ok(numbers) = numbers.collect::<Result<Vec<_>, _>>() else { return false };
                repeats = repeats.saturating_mul(numbers.into_iter().max().unwrap_or(1).max(1));
                (true, false)
            }
            c if plain(c) => (true, true),
            _ => return false,
        };
    }
    depth == 0 && repeats <= REPEATS_MAX
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

    /// What each target makes of a schema: Bedrock, an endpoint like OpenAI's, Bedrock tool.
    fn check(schema: Value, anthropic: Value, openai: Value, tool: Value) {
        assert_eq!(lower(&schema, Target::Bedrock).unwrap(), anthropic, "Bedrock");
        assert_eq!(lower(&schema, Target::OpenAiCompatible).unwrap(), openai, "like OpenAI");
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
            object(properties.clone(), json!(["s", "n"])),
            object(properties.clone(), json!(["s", "n"])),
            tool(properties, json!(["s", "n"])),
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
                json!(["l", "m", "d", "u", "p"]),
            ),
            object(
                json!({
                    "l": described("1 to 5 items"), "m": described("At least 2 items"),
                    "d": {"type": "string", "format": "date"},
                    "u": {"type": "string", "description": "Format uri"},
                    "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
                }),
                json!(["l", "m", "d", "u", "p"]),
            ),
            tool(
                json!({
                    "l": described("1 to 5 items"), "m": described("At least 2 items"),
                    "d": {"type": "string", "description": "Format date"},
                    "u": {"type": "string", "description": "Format uri"},
                    "p": {"type": "string", "description": "Matching the regular expression ^[a-z]+$"}
                }),
                json!(["l", "m", "d", "u", "p"]),
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
            (json!({"type": "string"}), Target::OpenAiStrict, "", "the top of the schema is not one object"),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
                Target::Anthropic,
                "",
                "an object with free keys",
            ),
            (
                json!({"type": "object", "properties": {}, "required": ["a"]}),
                Target::Anthropic,
                "",
                "a required member",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [
                    {"properties": {"b": {"type": "string"}}}, {"properties": {"c": {"type": "string"}}}]}),
                Target::OpenAiStrict,
                "",
                "the top of the schema is not one object",
            ),
            (
                json!({"type": "object", "properties": {"a": {"enum": [[1]]}}}),
                Target::Anthropic,
                "/properties/a",
                "an enum of arrays or objects",
            ),
        ] {
            let refused = lower(&schema, target).unwrap_err();
            assert_eq!(refused.path, path, "{schema}");
            assert!(refused.what.starts_with(what), "{schema}: {refused}");
        }
    }

    #[test]
    fn bounds_go_to_those_who_take_them() {
        use Target::{Anthropic, Bedrock, BedrockTool, OpenAiCompatible, OpenAiStrict, OwnServer};
        for (member, taken_by) in [
            (json!({"type": "string", "minLength": 1, "maxLength": 300}), vec![OwnServer]),
            (json!({"type": ["string", "null"], "maxLength": 300}), vec![OwnServer]),
            // Too many repetitions for llama.cpp.
            (json!({"type": "string", "maxLength": 2000}), vec![]),
            (json!({"type": "integer", "minimum": 1, "maximum": 5}), vec![OpenAiStrict, OwnServer]),
            (json!({"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.5}), vec![OpenAiStrict]),
            (json!({"type": "integer", "multipleOf": 5}), vec![OpenAiStrict]),
            (
                json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 5}),
                vec![OpenAiStrict, OwnServer],
            ),
            (
                json!({"type": "array", "items": {"type": "boolean"}, "minItems": 1}),
                vec![Anthropic, Bedrock, OpenAiStrict, OwnServer],
            ),
            (
                json!({"type": "string", "pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"}),
                vec![Anthropic, OpenAiStrict, OwnServer],
            ),
            // Engines differ over these.
            (json!({"type": "string", "pattern": "[a-z]"}), vec![]),
            (json!({"type": "string", "pattern": "^a|b$"}), vec![]),
            (json!({"type": "string", "pattern": "^(?=a)\\w+.$"}), vec![]),
            (
                json!({"type": "string", "format": "date"}),
                vec![Anthropic, Bedrock, OpenAiStrict, OwnServer, OpenAiCompatible],
            ),
            (
                json!({"type": "string", "format": "email"}),
                vec![Anthropic, Bedrock, OpenAiStrict, OpenAiCompatible],
            ),
            (
                json!({"type": "boolean"}),
                vec![Anthropic, Bedrock, OpenAiStrict, OwnServer, OpenAiCompatible, BedrockTool],
            ),
        ] {
            for target in Target::ALL {
                let schema = json!({"type": "object", "properties": {"m": member}, "required": ["m"]});
                let lowered = &lower(&schema, target).unwrap()["properties"]["m"];
                assert_eq!(
                    *lowered == member,
                    taken_by.contains(&target),
                    "{target:?}: {member} as {lowered}"
                );
                assert!(
                    *lowered == member || lowered["description"].is_string(),
                    "{target:?}: {lowered} says the rest"
                );
            }
        }
    }

    #[test]
    fn vllm_takes_a_length_or_a_pattern() {
        let schema = json!({"type": "object", "properties": {"m": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9}}});
        let lowered = lower(&schema, Target::OwnServer).unwrap();
        let member = &lowered["properties"]["m"];
        assert_eq!((&member["pattern"], member.get("maxLength")), (&json!("^[a-z]+$"), None));
        assert_eq!(member["description"], "At most 9 characters");
    }

    #[test]
    fn plain_patterns_are_told_from_others() {
        for pattern in [
            "^a$",
            "^[a-z]{2,3}(-[A-Z][a-z]{3})?(-([A-Z]{2}|[0-9]{3}))?$",
            "^[0-9]{4}-W(0[1-9]|[1-4][0-9]|5[0-3])$",
            "^(a?|b+)\\.x$",
        ] {
            assert!(is_plain_pattern(pattern), "{pattern}");
        }
        for pattern in [
            "",
            "^",
            "a",
            "^a",
            "a$",
            "^a|b$",
            "^\\d$",
            "^.$",
            "^[^a]$",
            "^(?:a)$",
            "^(?!a)b$",
            "^a{2}{3}$",
            "^a**$",
            "^(a$",
            "^a)$",
            "^()$",
            "^[]$",
            "^\"$",
            "^é$",
            "^a{2000}$",
            "^((a{40}){40}){2}$",
            "^a\\b$",
            "^a+?$",
            "^a{x}$",
        ] {
            assert!(!is_plain_pattern(pattern), "{pattern}");
        }
    }

    #[test]
    fn members_keep_their_order() {
        let properties =
            json!({"reason": {"type": "string"}, "zeal": {"type": "boolean"}, "about": {"type": "boolean"}});
        for target in Target::ALL {
            let schema =
                json!({"type": "object", "properties": properties, "required": ["about", "zeal", "reason"]});
            let lowered = lower(&schema, target).unwrap();
            let names: Vec<&String> = lowered["properties"].as_object().unwrap().keys().collect();
            assert_eq!(names, ["reason", "zeal", "about"], "{target:?}");
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
            "required": ["a"]
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
        for target in [Target::Bedrock, Target::OpenAiCompatible, Target::BedrockTool] {
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
