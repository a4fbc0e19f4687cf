//! What an error body says, in whichever form it comes.
//!
//! The forms differ in where the error stands (at the top, under `error` or `errors`, in a list, within the first choice,
//! as JSON within a string) and in what its members are called; so names, messages and blamed members are collected from
//! wherever they stand, to a bounded depth, and only those members are skipped that quote what was asked or answered.

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};

use crate::Provider;
use crate::error_words::{JOB_MEMBERS, OUR_MEMBERS, status_of_minimax};

/// Errors nest at most so deep: LiteLLM wraps a provider's error, which wraps its model's.
const DEPTH_MAX: usize = 6;
/// What is collected of one body; a broken one may repeat itself.
const COLLECTED_MAX: usize = 32;

/// Members that hold a name of the error, the most specific first.
const NAME_MEMBERS: [&str; 9] =
    ["__type", "error_code", "reason", "code", "type", "error_type", "status", "quotaId", "blockReason"];
/// Members that hold sentences, the best first.
const MESSAGE_MEMBERS: [&str; 11] = [
    "message",
    "Message",
    "errorMessage",
    "error_message",
    "detail",
    "msg",
    "error_msg",
    "status_msg",
    "error",
    "title",
    "raw",
];
/// Members that quote what was asked or answered, or say nothing of the error.
const SKIPPED_MEMBERS: [&str; 7] =
    ["failed_generation", "flagged_input", "input", "ctx", "url", "loc", "usage"];
/// Members that hold a status.
const STATUS_MEMBERS: [&str; 3] = ["code", "status", "status_code"];
/// Members that hold an answer, one for each protocol.
const ANSWER_MEMBERS: [&str; 3] = ["choices", "content", "output"];

/// An error body, read.
#[derive(Debug, Default)]
pub struct ErrorBody {
    /// The provider's name for the error: the most specific that there is.
    pub name: Option<String>,
    /// Every name that the body gives to the error, in lower case, with `_` for white space and hyphens.
    pub names: Vec<String>,
    pub message: String,
    /// All messages in lower case, for what providers say only in prose.
    pub lower_messages: String,
    /// The first segment of the request's member that is blamed, in lower case.
    pub member: Option<String>,
    /// The status that the body itself names.
    pub status: Option<u16>,
    /// Bedrock: what the model itself answered to Bedrock.
    pub original_status: Option<u16>,
    /// The id of the call, where the body has it.
    pub request_id: Option<String>,
    /// Google: how long to wait, in seconds.
    pub retry_after_s: Option<String>,
    /// Groq: what the model wrote and the provider's grammar did not accept.
    pub failed_generation: Option<String>,
    /// llama.cpp: how many tokens the prompt has, and how many the context.
    pub context_tokens: Option<(u64, u64)>,
    /// Whether the body is JSON; a proxy's or a load balancer's page is not.
    pub is_json: bool,
}

impl ErrorBody {
    /// Reads the body of a response that is no answer.
    #[must_use]
    pub fn read(provider: Provider, headers: &HeaderMap, body: &[u8]) -> Self {
        let value: Option<Value> = serde_json::from_slice(body).ok();
        let value = value.as_ref().and_then(first_object);
        let mut read = match value {
            Some(object) => Self::of(provider, object),
            None => {
                let kind = headers
                    .get("content-type")
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or("no content type");
                let message = format!("the response is not a JSON object ({kind}, {} bytes)", body.len());
                Self { message, ..Self::default() }
            }
        };
        if let Some(exception) = amzn_error_type(headers) {
            read.names.push(normal(&exception));
            read.name = Some(exception);
        }
        read
    }

    fn of(provider: Provider, top: &Map<String, Value>) -> Self {
        let error = error_object(top);
        let mut found = Found::default();
        found.collect(error, 0);
        if !std::ptr::eq(error, top) {
            // What stands beside the error: `type` and the id (Anthropic), `code` (gateways).
            found.collect_flat(top);
        }
        found.names.sort_by_key(|(depth, rank, _)| (*rank, *depth));
        // A number under `code` is the status again (vLLM, OpenRouter), and `error` says only that it is one.
        let named = |name: &&(usize, usize, String)| {
            name.2.parse::<u64>().is_err() && name.2 != "error" && !name.2.contains(' ')
        };
        let name = found.names.iter().find(named).map(|(_, rank, name)| {
            // AWS repeats the exception in the body, under a name that depends on the protocol.
            if *rank == 0 || provider == Provider::Bedrock { bare_exception(name) } else { name.clone() }
        });
        let member = found.member.or_else(|| {
            found.messages.iter().find_map(|(_, _, message)| member_of_prose(message)).map(str::to_owned)
        });
        found.messages.sort_by_key(|(depth, rank, _)| (*depth, *rank));
        let message = found.messages.first().map(|(_, _, message)| message.clone()).unwrap_or_default();
        let lower_messages = found
            .messages
            .iter()
            .map(|(_, _, message)| message.to_lowercase())
            .collect::<Vec<_>>()
            .join("\n")
            // A typographic apostrophe is one.
            .replace('’', "'");
        Self {
            name,
            names: found.names.iter().map(|(_, _, name)| normal(&bare_exception(name))).collect(),
            member: member.as_deref().and_then(first_segment),
            status: found
                .status
                .or_else(|| found.messages.iter().find_map(|(_, _, message)| status_of_prose(message))),
            original_status: error
                .get("originalStatusCode")
                .and_then(Value::as_u64)
                .and_then(|status| u16::try_from(status).ok()),
            request_id: [top, error]
                .iter()
                .find_map(|object| object.get("request_id").and_then(Value::as_str))
                .map(str::to_owned),
            retry_after_s: found.retry_after_s,
            failed_generation: error.get("failed_generation").and_then(Value::as_str).map(str::to_owned),
            context_tokens: found.context_tokens,
            is_json: true,
            message,
            lower_messages,
        }
    }

    /// Whether one of these is a name of the error.
    #[must_use]
    pub fn is_named(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.names.iter().any(|said| said == name))
    }

    /// Whether one of these is part of a name of the error.
    #[must_use]
    pub fn is_named_like(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.names.iter().any(|said| said.contains(part)))
    }

    /// Whether one of these phrases stands in a message.
    #[must_use]
    pub fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.lower_messages.contains(phrase))
    }

    /// Whether what stands where the model's own words would begins with one of these phrases: a model may quote them.
    #[must_use]
    pub fn generated(&self, phrases: &[&str]) -> bool {
        let lower = self.failed_generation.as_deref().unwrap_or_default().to_lowercase();
        phrases.iter().any(|phrase| lower.trim_start().starts_with(phrase))
    }

    /// Whether more was requested than the whole limit ("Limit 30000, Requested 342389"): no wait makes room for that.
    #[must_use]
    pub fn asks_for_more_than_the_limit(&self) -> bool {
        let limit = number_after(&self.lower_messages, "limit ");
        let requested = number_after(&self.lower_messages, "requested ");
        limit.zip(requested).is_some_and(|(limit, requested)| requested > limit)
    }
}

/// What a success with no answer in it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    Error,
    /// A place for an answer, and nothing in it, nor any token counted.
    Empty,
    /// The prompt was blocked: Google says so beside an empty answer.
    Blocked,
    /// An answer in a shape that the provider does not document.
    Foreign,
    /// Nothing of an answer, and no token counted: something else than the provider was reached.
    Elsewhere,
}

/// Says what a body is that came with a success and is not the provider's answer.
#[must_use]
pub fn envelope(body: &[u8]) -> Envelope {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return Envelope::Elsewhere };
    if let Value::Array(list) = &value {
        let is_error = list.first().and_then(|first| first.get("error")).is_some_and(is_error);
        return if is_error { Envelope::Error } else { Envelope::Elsewhere };
    }
    let Some(top) = value.as_object() else { return Envelope::Elsewhere };
    let has = |name: &str| top.get(name).is_some_and(is_something);
    if block_reason(top) {
        return Envelope::Blocked;
    }
    let inner = !std::ptr::eq(error_object(top), top);
    if inner || top.get("error").is_some_and(is_error) || top.get("type").is_some_and(|kind| kind == "error")
    {
        return Envelope::Error;
    }
    let answered = ANSWER_MEMBERS.iter().any(|name| has(name));
    let says = MESSAGE_MEMBERS.iter().any(|name| top.get(*name).is_some_and(is_text));
    if !answered && says {
        return Envelope::Error;
    }
    let has_place = ANSWER_MEMBERS.iter().any(|name| top.contains_key(*name));
    match (answered || counted(top), has_place) {
        (true, _) => Envelope::Foreign,
        (false, true) => Envelope::Empty,
        (false, false) => Envelope::Elsewhere,
    }
}

/// Whether an error came when a part of the answer had been written, which is paid.
#[must_use]
pub fn broke_off(body: &[u8]) -> bool {
    let Ok(Value::Object(top)) = serde_json::from_slice::<Value>(body) else { return false };
    let choice = top.get("choices").and_then(|choices| choices.get(0));
    let written = choice.and_then(|choice| choice.pointer("/message/content")).is_some_and(is_something);
    written || counted(&top)
}

/// Whether any token was counted.
fn counted(top: &Map<String, Value>) -> bool {
    let usage = top.get("usage").and_then(Value::as_object);
    usage.is_some_and(|usage| usage.values().any(|count| count.as_u64().is_some_and(|count| count > 0)))
}

/// Gemini: the prompt itself was blocked ("GenerateContentResponse", PromptFeedback).
fn block_reason(top: &Map<String, Value>) -> bool {
    ["promptFeedback", "prompt_feedback"].iter().any(|name| {
        let feedback = top.get(*name);
        let reason = feedback.and_then(|f| f.get("blockReason").or_else(|| f.get("block_reason")));
        reason.is_some_and(is_something)
    })
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// Whether an `error` member says that there is one: some write `{}`, `false` or a code of 0 beside an answer.
fn is_error(value: &Value) -> bool {
    match value {
        Value::Bool(is_error) => *is_error,
        Value::Number(code) => code.as_u64() != Some(0),
        Value::Object(members) => members.values().any(is_error),
        other => is_something(other),
    }
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

/// The body's object, which may stand in a list (Google's OpenAI-compatible endpoint).
fn first_object(value: &Value) -> Option<&Map<String, Value>> {
    match value {
        Value::Array(list) => list.first().and_then(Value::as_object),
        other => other.as_object(),
    }
}

fn error_object(top: &Map<String, Value>) -> &Map<String, Value> {
    let choice = || {
        top.get("choices").and_then(|choices| choices.get(0)?.get("error")).filter(|error| is_error(error))
    };
    let listed = || top.get("errors").and_then(|errors| errors.get(0));
    // MiniMax says 0 for a success; AWS's gateway puts its errors under `Output`.
    let base = || {
        top.get("base_resp")
            .filter(|base| base.get("status_code").and_then(Value::as_u64).is_some_and(|c| c != 0))
    };
    let output = || top.get("Output").filter(|output| output.get("__type").is_some());
    top.get("error")
        .filter(|error| error.is_object() && is_error(error))
        .or_else(listed)
        .or_else(choice)
        .or_else(base)
        .or_else(output)
        .and_then(Value::as_object)
        .unwrap_or(top)
}

#[derive(Default)]
struct Found {
    /// How deep it stands, how specific its member is, and what it says.
    names: Vec<(usize, usize, String)>,
    messages: Vec<(usize, usize, String)>,
    member: Option<String>,
    status: Option<u16>,
    retry_after_s: Option<String>,
    context_tokens: Option<(u64, u64)>,
}

impl Found {
    fn collect(&mut self, object: &Map<String, Value>, depth: usize) {
        self.take(object, depth);
        if depth >= DEPTH_MAX {
            return;
        }
        for (name, value) in object {
            if SKIPPED_MEMBERS.contains(&name.as_str()) {
                continue;
            }
            match value {
                Value::Object(inner) => self.collect(inner, depth + 1),
                Value::Array(list) => {
                    for inner in list.iter().take(COLLECTED_MAX).filter_map(Value::as_object) {
                        self.collect(inner, depth + 1);
                    }
                }
                // An error of the provider behind a gateway, as the text that it was.
                Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
                    let inner: Option<Value> = serde_json::from_str(text).ok();
                    if let Some(inner) = inner.as_ref().and_then(first_object) {
                        self.collect(inner, depth + 1);
                    }
                }
                _ => {}
            }
        }
    }

    /// Only what stands in the object itself.
    fn collect_flat(&mut self, object: &Map<String, Value>) {
        self.take(object, DEPTH_MAX);
    }

    fn take(&mut self, object: &Map<String, Value>, depth: usize) {
        for (rank, name) in NAME_MEMBERS.iter().enumerate() {
            if let Some(Value::String(text)) = object.get(*name)
                && !text.is_empty()
                && self.names.len() < COLLECTED_MAX
            {
                self.names.push((depth, rank, text.clone()));
            }
        }
        for (rank, name) in MESSAGE_MEMBERS.iter().enumerate() {
            if let Some(Value::String(text)) = object.get(*name)
                && !text.is_empty()
                && self.messages.len() < COLLECTED_MAX
            {
                self.messages.push((depth, rank, text.clone()));
            }
        }
        if self.member.is_none() {
            self.member = object.get("param").and_then(Value::as_str).map(str::to_owned).or_else(|| {
                // FastAPI's path: the first part says that it is of the body.
                let path = object.get("loc")?.as_array()?;
                path.iter().filter_map(Value::as_str).find(|part| *part != "body").map(str::to_owned)
            });
        }
        if self.status.is_none() {
            self.status = STATUS_MEMBERS.iter().find_map(|name| {
                let status = match object.get(*name)? {
                    Value::Number(number) => number.as_u64()?,
                    Value::String(text) => text.parse().ok()?,
                    _ => return None,
                };
                let plain = u16::try_from(status).ok().filter(|status| (400..600).contains(status));
                plain.or_else(|| (*name == "status_code").then(|| status_of_minimax(status)).flatten())
            });
        }
        let count = |name: &str| object.get(name).and_then(Value::as_u64);
        self.context_tokens = self.context_tokens.or(count("n_prompt_tokens").zip(count("n_ctx")));
        if let Some(Value::String(delay)) = object.get("retryDelay") {
            self.retry_after_s = delay.strip_suffix('s').map(str::to_owned);
        }
    }
}

/// In lower case, with `_` for white space and hyphens: gateways write one name in several ways.
fn normal(name: &str) -> String {
    name.trim()
        .chars()
        .map(|c| if c.is_whitespace() || c == '-' { '_' } else { c.to_ascii_lowercase() })
        .collect()
}

/// `output_config.format.schema: ...` or `messages.0.content: ...`, as Anthropic's messages begin.
fn member_of_prose(message: &str) -> Option<&str> {
    let (path, _) = message.split_once(": ")?;
    let first = path.split(['.', '[']).next()?;
    let known = |members: &[&str]| members.iter().any(|member| first.eq_ignore_ascii_case(member));
    (known(&OUR_MEMBERS) || known(&JOB_MEMBERS)).then_some(path)
}

/// The first segment of a path, in lower case, if it is of the length that one can have.
fn first_segment(path: &str) -> Option<String> {
    let segment = path.split(['.', '[']).next()?.trim();
    (!segment.is_empty() && segment.len() <= 40).then(|| segment.to_ascii_lowercase())
}

/// "Error code: 429 - ...", as Python's clients print an error that a gateway passes on.
fn status_of_prose(message: &str) -> Option<u16> {
    let lower = message.to_ascii_lowercase();
    ["error code: ", "status code: ", "status code ", "http "].iter().find_map(|words| {
        let number = number_after(&lower, words)?;
        u16::try_from(number).ok().filter(|status| (400..600).contains(status))
    })
}

/// The number that follows these words, digits with commas in it.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let rest = text.split(words).skip(1).find(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String =
        rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// AWS's error header: the exception, sometimes followed by `:` and an address.
fn amzn_error_type(headers: &HeaderMap) -> Option<String> {
    headers
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok())
        .map(bare_exception)
        .filter(|n| !n.is_empty())
}

/// The exception without its namespace before `#` and without what follows `:`.
fn bare_exception(name: &str) -> String {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().trim().to_owned()
}
