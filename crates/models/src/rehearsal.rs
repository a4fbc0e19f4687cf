//! A model inside the worker that costs nothing: latency, errors and outputs of a distribution of its own.
//!
//! A deployed stack can be load-tested and drilled with it: every alarm about the model can be raised by a spec, and no
//! call leaves the function. The outputs are generated from the task's schema, and drawn again until the task accepts
//! them where the rehearsal is told how to ask ([`Rehearsal::checked_by`]): rules between members are not in a schema.
//!
//! # The spec
//! What stands where the model id would: `rehearsal`, or members `name=value` with commas between them.
//!
//! | member | default | what |
//! | --- | --- | --- |
//! | `seed` | 0 | another seed, other draws |
//! | `latency_ms` | `400..2500` | uniform on a logarithmic scale between the two, or always the one |
//! | `throttled` | 0 | share of calls answered with 429 |
//! | `overloaded` | 0 | 529 |
//! | `unavailable` | 0 | no connection |
//! | `error` | 0 | 500, after the latency |
//! | `reset` | 0 | the connection breaks, after the latency |
//! | `hang` | 0 | no answer until the time limit |
//! | `account` | 0 | 401 |
//! | `rejected` | 0 | 400 |
//! | `refused` | 0 | the model declines |
//! | `truncated` | 0 | cut off by the token limit |
//! | `prose` | 0 | a valid value with words around it |
//! | `invalid_json` | 0 | not JSON |
//! | `invalid` | 0 | JSON that is not of the schema |
//! | `retry_after_ms` | none | what 429 and 529 tell to wait |
//!
//! `seed=7,latency_ms=50..200,throttled=0.05,retry_after_ms=1500,error=0.01` is a busy day.
//! The shares add up to at most 1; the rest of the calls succeed.
//!
//! A draw depends on the seed, on the request and on how often this environment has been sent it, and on nothing else:
//! the same jobs meet the same faults in every run, and a repeated call meets a new one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, RetryAdvice, TokenLimit, Usage,
};
use nightshift_core::split_mix::SplitMix64;
use nightshift_ports::Model;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// How many requests are remembered for their number of calls; beyond it the count starts again.
const REQUESTS_REMEMBERED_MAX: usize = 100_000;
/// Deeper than this a schema is answered with its simplest values.
const DEPTH_MAX: usize = 16;
/// How often an output is drawn again that its task does not accept: a rule that half of the outputs break is met.
const DRAWS_MAX: u32 = 40;
/// Bytes per token, roughly, of English text.
const BYTES_PER_TOKEN: usize = 4;

/// What can happen to a call, in the words of the spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Throttled,
    Overloaded,
    Unavailable,
    Error,
    Reset,
    Hang,
    Account,
    Rejected,
    Refused,
    Truncated,
    Prose,
    InvalidJson,
    Invalid,
    Success,
}

const FATES: [(&str, Fate); 13] = [
    ("throttled", Fate::Throttled),
    ("overloaded", Fate::Overloaded),
    ("unavailable", Fate::Unavailable),
    ("error", Fate::Error),
    ("reset", Fate::Reset),
    ("hang", Fate::Hang),
    ("account", Fate::Account),
    ("rejected", Fate::Rejected),
    ("refused", Fate::Refused),
    ("truncated", Fate::Truncated),
    ("prose", Fate::Prose),
    ("invalid_json", Fate::InvalidJson),
    ("invalid", Fate::Invalid),
];

/// A parsed spec; see the module.
#[derive(Debug, Clone, PartialEq)]
pub struct RehearsalSpec {
    seed: u64,
    latency_ms: (u64, u64),
    shares: Vec<(Fate, f64)>,
    retry_after_ms: Option<u64>,
}

/// What is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rehearsal's spec: {0}")]
pub struct SpecError(String);

impl RehearsalSpec {
    /// Reads a spec.
    ///
    /// # Errors
    /// When a member is unknown, given twice, or not of its form, or the shares add up to more than 1.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut spec = Self { seed: 0, latency_ms: (400, 2_500), shares: Vec::new(), retry_after_ms: None };
        let mut seen = Vec::new();
        for member in
            text.split(',').map(str::trim).filter(|member| !member.is_empty() && *member != "rehearsal")
        {
            let Some((name, value)) = member.split_once('=').map(|(name, value)| (name.trim(), value.trim()))
            else {
                return Err(SpecError(format!("{member:?} is not of the form name=value")));
            };
            if seen.contains(&name) {
                return Err(SpecError(format!("{name} is given twice")));
            }
            seen.push(name);
            let whole = |value: &str| {
                value.parse::<u64>().map_err(|_| SpecError(format!("{name}={value}: not a whole number")))
            };
            match name {
                "seed" => spec.seed = whole(value)?,
                "retry_after_ms" => spec.retry_after_ms = Some(whole(value)?),
                "latency_ms" => {
                    let (from, to) = value.split_once("..").unwrap_or((value, value));
                    spec.latency_ms = (whole(from)?, whole(to)?);
                    if spec.latency_ms.0 > spec.latency_ms.1 {
                        return Err(SpecError(format!(
                            "latency_ms={value}: the first is more than the second"
                        )));
                    }
                }
                _ => {
                    let fate = FATES.iter().find(|(known, _)| *known == name).map(|(_, fate)| *fate);
                    let fate = fate.ok_or_else(|| SpecError(format!("{name} is not one of its members")))?;
                    let share = value.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
                    let share = share
                        .ok_or_else(|| SpecError(format!("{name}={value}: not a share between 0 and 1")))?;
                    spec.shares.push((fate, share));
                }
            }
        }
        // A little more than 1 is rounding: ten tenths are not exactly one.
        if spec.shares.iter().map(|(_, share)| share).sum::<f64>() > 1.0 + 1e-9 {
            return Err(SpecError("the shares add up to more than 1".to_owned()));
        }
        // The order of the members makes no difference.
        spec.shares.sort_by_key(|(fate, _)| FATES.iter().position(|(_, known)| known == fate));
        Ok(spec)
    }
}

/// Whether the task behind a schema's name accepts a value.
type Accepts = Box<dyn Fn(&str, &Value) -> bool + Send + Sync>;

/// The model.
pub struct Rehearsal {
    spec: RehearsalSpec,
    accepts: Accepts,
    calls: Mutex<HashMap<u64, u64>>,
}

impl Rehearsal {
    /// Builds the model.
    #[must_use]
    pub fn new(spec: RehearsalSpec) -> Self {
        Self { spec, accepts: Box::new(|_, _| true), calls: Mutex::new(HashMap::new()) }
    }

    /// The same, with outputs that `accepts` takes, which is asked with the request's `schema_name` and an output.
    #[must_use]
    pub fn checked_by(mut self, accepts: impl Fn(&str, &Value) -> bool + Send + Sync + 'static) -> Self {
        self.accepts = Box::new(accepts);
        self
    }

    /// The seed of what is drawn for a call.
    fn seed(&self, request: &ModelRequest) -> u64 {
        let mut hash = Fnv::new();
        hash.add(request.system.as_bytes());
        for turn in &request.turns {
            hash.add(turn.text().as_bytes());
        }
        let request_hash = hash.0;
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if calls.len() >= REQUESTS_REMEMBERED_MAX && !calls.contains_key(&request_hash) {
            calls.clear();
        }
        let count = calls.entry(request_hash).or_insert(0);
        *count += 1;
        hash.add(&count.to_le_bytes());
        hash.add(&self.spec.seed.to_le_bytes());
        hash.0
    }
}

#[async_trait]
impl Model for Rehearsal {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let seed = self.seed(request);
        let mut draws = Draws(SplitMix64::new(seed));
        let id = format!("rehearsal_{seed:016x}");
        let fate = draws.fate(&self.spec.shares);
        let latency_ms = match fate {
            // Refusals of the provider come at once, as they do in life.
            Fate::Throttled | Fate::Overloaded | Fate::Unavailable | Fate::Account | Fate::Rejected => 5,
            Fate::Hang => u64::MAX,
            _ => draws.latency_ms(self.spec.latency_ms),
        };
        if latency_ms >= request.timeout_ms {
            tokio::time::sleep_until(deadline).await;
            return Err(self.failure(
                FailureClass::Transient,
                None,
                "timeout",
                "the rehearsal did not answer in time",
                &id,
            ));
        }
        tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        self.outcome(fate, request, draws, &id)
    }
}

impl Rehearsal {
    fn outcome(
        &self,
        fate: Fate,
        request: &ModelRequest,
        mut draws: Draws,
        id: &str,
    ) -> Result<ModelReply, ModelFailure> {
        let failure = |class, status, error_type| self.failure(class, status, error_type, "rehearsed", id);
        let mut value = draws.value(&request.schema, &request.schema, 0);
        for _ in 1..DRAWS_MAX {
            if (self.accepts)(&request.schema_name, &value) {
                break;
            }
            value = draws.value(&request.schema, &request.schema, 0);
        }
        let text = value.to_string();
        let answer = match fate {
            Fate::Throttled => return Err(failure(FailureClass::Capacity, Some(429), "rate_limit_error")),
            Fate::Overloaded => return Err(failure(FailureClass::Capacity, Some(529), "overloaded_error")),
            Fate::Unavailable => return Err(failure(FailureClass::Capacity, None, "connect")),
            Fate::Error => return Err(failure(FailureClass::Transient, Some(500), "api_error")),
            Fate::Reset | Fate::Hang => return Err(failure(FailureClass::Transient, None, "reset")),
            Fate::Account => return Err(failure(FailureClass::Account, Some(401), "authentication_error")),
            Fate::Rejected => {
                return Err(failure(FailureClass::Rejected, Some(400), "invalid_request_error"));
            }
            Fate::Refused => {
                Answer::Refused { why: "refusal".to_owned(), text: "I can't help with that.".to_owned() }
            }
            Fate::Truncated => Answer::Truncated {
                text: text.chars().take(text.chars().count() / 2).collect(),
                by: TokenLimit::Answer,
            },
            Fate::Prose => Answer::Text(format!("Here is the answer:\n\n```json\n{text}\n```\n")),
            Fate::InvalidJson => {
                Answer::Text(text.chars().take(text.chars().count().saturating_sub(1)).collect())
            }
            Fate::Invalid => Answer::Text(json!({"rehearsal": "not of the schema"}).to_string()),
            Fate::Success => Answer::Text(text),
        };
        let said = match &answer {
            Answer::Text(text) | Answer::Refused { text, .. } | Answer::Truncated { text, .. } => text.len(),
            Answer::Unusable { .. } => 0,
        };
        let tokens = |bytes: usize| u64::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u64::MAX);
        let allowed = u64::from(request.output_tokens_max);
        let usage = Usage {
            input_tokens: tokens(request.text_bytes()),
            // What is cut off by the limit has as many tokens as the limit.
            output_tokens: if fate == Fate::Truncated { allowed } else { tokens(said).min(allowed) },
        };
        Ok(ModelReply {
            answer,
            usage: usage.into(),
            request_id: Some(id.to_owned()),
            headroom: Headroom::default(),
        })
    }

    fn failure(
        &self,
        class: FailureClass,
        status: Option<u16>,
        error_type: &str,
        message: &str,
        id: &str,
    ) -> ModelFailure {
        let advises = matches!(status, Some(429 | 529));
        ModelFailure {
            class,
            status,
            error_type: error_type.to_owned(),
            message: message.to_owned(),
            request_id: Some(id.to_owned()),
            advice: RetryAdvice {
                retry_after_ms: self.spec.retry_after_ms.filter(|_| advises).map(|ms| ms.to_string()),
                ..RetryAdvice::default()
            },
            headroom: Headroom::default(),
            oversize: None,
        }
    }
}

/// FNV-1a: stable between builds and machines, which the standard library's hasher is not.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        // The length keeps the parts apart.
        for byte in bytes.iter().chain(&bytes.len().to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A sequence of numbers from one seed.
struct Draws(SplitMix64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0.bits()
    }

    /// Uniform in [0, 1).
    fn fraction(&mut self) -> f64 {
        self.0.fraction()
    }

    /// Uniform in `from ..= to`.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        let span = to.saturating_sub(from).saturating_add(1);
        from.saturating_add(self.next() % span.max(1))
    }

    fn fate(&mut self, shares: &[(Fate, f64)]) -> Fate {
        let mut at = self.fraction();
        for (fate, share) in shares {
            if at < *share {
                return *fate;
            }
            at -= share;
        }
        Fate::Success
    }

    fn latency_ms(&mut self, (from, to): (u64, u64)) -> u64 {
        let (low, high) = ((from.max(1) as f64).ln(), (to.max(1) as f64).ln());
        let drawn = (low + (high - low) * self.fraction()).exp().round() as u64;
        drawn.clamp(from, to)
    }

    /// A value of the schema: its types, constants, examples, ranges, lengths and formats. Patterns are beyond it.
    fn value(&mut self, root: &Value, node: &Value, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            return Value::Null;
        }
        if let Some(constant) = node.get("const") {
            return constant.clone();
        }
        if let Some(value) = node.get("enum").and_then(Value::as_array).and_then(|values| self.pick(values)) {
            return value.clone();
        }
        // What a pattern wants is shown by its examples, if by anything. The example of a whole output would be refused
        // as a copy.
        if depth > 0
            && let Some(example) =
                node.get("examples").and_then(Value::as_array).and_then(|values| self.pick(values))
        {
            return example.clone();
        }
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return target.map_or(Value::Null, |target| self.value(root, target, depth + 1));
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(variants) = node.get(key).and_then(Value::as_array) {
                return self
                    .pick(variants)
                    .map_or(Value::Null, |variant| self.value(root, variant, depth + 1));
            }
        }
        if let Some(parts) = node.get("allOf").and_then(Value::as_array) {
            let mut merged = Map::new();
            for part in parts {
                if let Value::Object(members) = self.value(root, part, depth + 1) {
                    merged.extend(members);
                }
            }
            return Value::Object(merged);
        }
        let kind = match node.get("type") {
            Some(Value::Array(kinds)) => self.pick(kinds).and_then(Value::as_str),
            Some(Value::String(kind)) => Some(kind.as_str()),
            _ => node.get("properties").map(|_| "object"),
        };
        match kind {
            Some("object") => {
                let properties = node.get("properties").and_then(Value::as_object);
                let members = properties.into_iter().flatten();
                Value::Object(
                    members.map(|(name, node)| (name.clone(), self.value(root, node, depth + 1))).collect(),
                )
            }
            Some("array") => {
                let bound = |key: &str| node.get(key).and_then(Value::as_u64);
                let min = bound("minItems").unwrap_or(0);
                let max = bound("maxItems").unwrap_or(u64::MAX).min(min.max(1).saturating_add(2));
                let items = node.get("items").unwrap_or(&Value::Null);
                Value::Array(
                    (0..self.between(min, max)).map(|_| self.value(root, items, depth + 1)).collect(),
                )
            }
            Some("string") => Value::String(self.text(node)),
            Some("integer") => self.number(node, true),
            Some("number") => self.number(node, false),
            Some("boolean") => Value::Bool(self.next().is_multiple_of(2)),
            _ => Value::Null,
        }
    }

    fn pick<'v>(&mut self, values: &'v [Value]) -> Option<&'v Value> {
        let last = u64::try_from(values.len()).ok()?.checked_sub(1)?;
        values.get(usize::try_from(self.between(0, last)).ok()?)
    }

    fn number(&mut self, node: &Value, is_integer: bool) -> Value {
        let bound = |key: &str| node.get(key).and_then(Value::as_f64);
        let step = if is_integer { 1.0 } else { 0.001 };
        let low = bound("minimum").or(bound("exclusiveMinimum").map(|low| low + step)).unwrap_or(0.0);
        let high =
            bound("maximum").or(bound("exclusiveMaximum").map(|high| high - step)).unwrap_or(low + 100.0);
        let high = high.max(low).min(low + 1_000_000.0);
        if is_integer {
            let (low, high) = (low.ceil() as i64, high.floor() as i64);
            let span = u64::try_from(high.saturating_sub(low)).unwrap_or(0);
            return json!(low.saturating_add(i64::try_from(self.between(0, span)).unwrap_or(0)));
        }
        // Three places: values as people would write them.
        json!((((low + (high - low) * self.fraction()) * 1_000.0).round() / 1_000.0).clamp(low, high))
    }

    fn text(&mut self, node: &Value) -> String {
        let bound = |key: &str| node.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let day = self.between(1, 28);
        match node.get("format").and_then(Value::as_str) {
            Some("date") => return format!("2026-02-{day:02}"),
            Some("date-time") => return format!("2026-02-{day:02}T08:30:00Z"),
            Some("time") => return "08:30:00Z".to_owned(),
            Some("duration") => return format!("P{day}D"),
            Some("email") => return format!("rehearsal{day}@example.com"),
            Some("hostname") => return format!("host{day}.example.com"),
            Some("uri") => return format!("https://example.com/{day}"),
            Some("ipv4") => return format!("192.0.2.{day}"),
            Some("ipv6") => return format!("2001:db8::{day:x}"),
            Some("uuid") => {
                return format!("00000000-0000-4000-8000-{:012x}", self.next() & 0xffff_ffff_ffff);
            }
            _ => {}
        }
        let min = bound("minLength").unwrap_or(1);
        // Short enough for a ledger item however many of them an output has.
        let max = bound("maxLength").unwrap_or(usize::MAX).min(min.max(60));
        let mut text = String::new();
        while text.len() < min.max(20).min(max) {
            let index = usize::try_from(self.between(0, WORDS.len() as u64 - 1)).unwrap_or(0);
            let word = WORDS.get(index).copied().unwrap_or("job");
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        text.truncate(max);
        // An empty end would be trimmed by whoever reads it, and then be too short.
        if text.ends_with(' ') {
            text.pop();
            text.push('s');
        }
        text
    }
}

/// What the rehearsal talks about.
const WORDS: [&str; 20] = [
    "the", "customer", "order", "arrived", "late", "and", "asks", "for", "a", "refund", "report", "week",
    "deploy", "finished", "review", "open", "invoice", "login", "works", "again",
];

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nightshift_core::model::Turn;

    use super::*;

    fn request(text: &str) -> ModelRequest {
        ModelRequest {
            system: "S".to_owned(),
            turns: vec![Turn::User(text.to_owned())],
            schema_name: "out".to_owned(),
            schema: Arc::new(schema()),
            output_tokens_max: 500,
            timeout_ms: 10_000,
        }
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "kind": {"$ref": "#/$defs/Kind"},
                "summary": {"type": "string", "minLength": 10, "maxLength": 40},
                "short": {"type": "string", "maxLength": 3},
                "score": {"type": "integer", "minimum": 1, "maximum": 5},
                "share": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                "when": {"type": "string", "format": "date"},
                "steps": {"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "string"}},
                "due": {"type": ["string", "null"], "format": "date-time"}
            },
            "required": ["kind"],
            "$defs": {"Kind": {"oneOf": [{"const": "a"}, {"const": "b"}, {"enum": ["c", "d"]}]}}
        })
    }

    #[test]
    fn specs_are_read_strictly() {
        let spec =
            RehearsalSpec::parse("seed=7, latency_ms=50..200,error=0.01,throttled=0.5,retry_after_ms=1500")
                .unwrap();
        assert_eq!((spec.seed, spec.latency_ms, spec.retry_after_ms), (7, (50, 200), Some(1_500)));
        assert_eq!(spec.shares, [(Fate::Throttled, 0.5), (Fate::Error, 0.01)]);
        assert_eq!(RehearsalSpec::parse("rehearsal"), RehearsalSpec::parse(""));
        assert_eq!(RehearsalSpec::parse("latency_ms=20").unwrap().latency_ms, (20, 20));
        for (text, wrong) in [
            ("sped=7", "sped is not one of its members"),
            ("seed", "\"seed\" is not of the form name=value"),
            ("seed=x", "seed=x: not a whole number"),
            ("seed=1,seed=2", "seed is given twice"),
            ("latency_ms=9..1", "latency_ms=9..1: the first is more than the second"),
            ("error=1.5", "error=1.5: not a share between 0 and 1"),
            ("error=NaN", "error=NaN: not a share between 0 and 1"),
            ("error=0.6,reset=0.6", "the shares add up to more than 1"),
        ] {
            assert_eq!(RehearsalSpec::parse(text), Err(SpecError(wrong.to_owned())), "{text}");
        }
    }

    #[test]
    fn values_are_of_the_schema() {
        let schema = schema();
        for seed in 0..500 {
            let value = Draws(SplitMix64::new(seed)).value(&schema, &schema, 0);
            assert!(["a", "b", "c", "d"].contains(&value["kind"].as_str().unwrap()), "{value}");
            assert!((10..=40).contains(&value["summary"].as_str().unwrap().chars().count()), "{value}");
            assert!((1..=3).contains(&value["short"].as_str().unwrap().len()), "{value}");
            assert!((1..=5).contains(&value["score"].as_i64().unwrap()), "{value}");
            let share = value["share"].as_f64().unwrap();
            assert!(share > 0.0 && share <= 1.0, "{value}");
            assert!(value["when"].as_str().unwrap().starts_with("2026-02-"), "{value}");
            assert!((2..=3).contains(&value["steps"].as_array().unwrap().len()), "{value}");
            assert!(value["due"].is_null() || value["due"].as_str().unwrap().ends_with('Z'), "{value}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_calls_have_the_same_fates_and_repeated_ones_new_ones() {
        let spec = RehearsalSpec::parse("seed=1,throttled=0.3,error=0.3,invalid=0.2").unwrap();
        let run = async || {
            let model = Rehearsal::new(spec.clone());
            let mut seen = Vec::new();
            for job in 0..20 {
                for _ in 0..3 {
                    seen.push(format!("{:?}", model.call(&request(&format!("job {job}"))).await));
                }
            }
            seen
        };
        let first = run().await;
        assert_eq!(first, run().await);
        assert!(first.chunks(3).any(|calls| calls[0] != calls[1]), "a repeated call never met another fate");
    }

    #[tokio::test(start_paused = true)]
    async fn shares_and_latencies_are_kept() {
        let spec = RehearsalSpec::parse("latency_ms=100..1000,throttled=0.2,refused=0.1,retry_after_ms=250")
            .unwrap();
        let model = Rehearsal::new(spec);
        let (mut throttled, mut refused, mut answered) = (0, 0, 0);
        for job in 0..2_000 {
            let begun = Instant::now();
            match model.call(&request(&format!("job {job}"))).await {
                Err(failure) => {
                    assert_eq!((failure.class, failure.status), (FailureClass::Capacity, Some(429)));
                    assert_eq!(failure.advice.retry_after_ms.as_deref(), Some("250"));
                    throttled += 1;
                }
                Ok(reply) => {
                    assert!((100..=1_001).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
                    assert!(reply.usage.input_tokens > Some(0) && reply.usage.output_tokens > Some(0));
                    match reply.answer {
                        Answer::Refused { .. } => refused += 1,
                        Answer::Text(text) => {
                            assert!(serde_json::from_str::<Value>(&text).is_ok());
                            answered += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        assert!((330..=470).contains(&throttled), "{throttled}");
        assert!((150..=250).contains(&refused), "{refused}");
        assert!((1_300..=1_500).contains(&answered), "{answered}");
    }

    #[tokio::test(start_paused = true)]
    async fn every_fate_is_what_it_says() {
        let call =
            async |spec: &str| Rehearsal::new(RehearsalSpec::parse(spec).unwrap()).call(&request("x")).await;
        for (spec, class, status) in [
            ("throttled=1", FailureClass::Capacity, Some(429)),
            ("overloaded=1", FailureClass::Capacity, Some(529)),
            ("unavailable=1", FailureClass::Capacity, None),
            ("error=1", FailureClass::Transient, Some(500)),
            ("reset=1", FailureClass::Transient, None),
            ("hang=1", FailureClass::Transient, None),
            ("latency_ms=20000", FailureClass::Transient, None),
            ("account=1", FailureClass::Account, Some(401)),
            ("rejected=1", FailureClass::Rejected, Some(400)),
        ] {
            let failure = call(spec).await.unwrap_err();
            assert_eq!((failure.class, failure.status), (class, status), "{spec}");
        }
        let begun = Instant::now();
        assert_eq!(call("hang=1").await.unwrap_err().error_type, "timeout");
        assert_eq!(begun.elapsed().as_millis(), 10_000);
        assert!(matches!(call("truncated=1").await.unwrap().answer, Answer::Truncated { .. }));
        for (spec, is_json) in
            [("prose=1", false), ("invalid_json=1", false), ("invalid=1", true), ("", true)]
        {
            let Answer::Text(text) = call(spec).await.unwrap().answer else { panic!("{spec}") };
            assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), is_json, "{spec}: {text}");
        }
    }
}
