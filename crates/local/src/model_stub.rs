//! A stand-in for the model: Anthropic's Messages API over HTTP, with faults that a seed decides.
//!
//! What happens to a call depends on the seed, on the request's identity (the model and the first user message, so that a re-ask belongs to the request that it repeats) and on how many calls that identity has had, and on nothing else.
//! A run is therefore reproducible whatever the order in which its calls arrive.
//!
//! A valid answer is the one that stands ready for the request, if there is one; else it is made from the JSON Schema that comes with the request and from words of the customer's text.
//! Requests are checked as the API checks them ("Create a Message", "Structured outputs", "Errors", Claude API docs): key, version, content type, the shape of the body, and the schema keywords that structured output refuses.

mod answer;
mod dice;
mod faults;
mod schema_check;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::dice::Dice;
pub use self::faults::Faults;
use self::faults::{Fault, RetryAfter};
use crate::clock::now_ms;
use crate::http::{Answer, HttpRequest, HttpResponse, Server};

/// The protocol version that the stub speaks.
const VERSION: &str = "2023-06-01";
/// The beta that the older name of structured output belongs to.
const STRUCTURED_OUTPUT_BETA: &str = "structured-outputs-2025-11-13";
/// Characters per token, roughly, in English text.
const CHARS_PER_TOKEN: usize = 4;
/// How a re-ask begins that stands behind the prompt, in the first turn.
const REASK: &str = "\n\nYour answer was not accepted, for these reasons:\n";
/// A slow answer takes this many times the drawn latency.
const SLOW_FACTOR: u32 = 20;
/// What the rate limit headers announce; far more than a run on one machine needs, so that they slow nothing down.
const REQUESTS_PER_MINUTE: u64 = 1_000_000;
const TOKENS_PER_MINUTE: u64 = 1_000_000_000;

/// How the stub behaves.
#[derive(Debug, Clone)]
pub struct StubSettings {
    /// Decides faults, latencies and answers.
    pub seed: u64,
    /// How many calls fail, and how.
    pub faults: Faults,
    /// The time that an answer takes, in milliseconds, drawn evenly from this range.
    pub latency_ms: RangeInclusive<u64>,
    /// How long a call hangs before its connection is reset, if the caller does not give up sooner.
    pub hang: Duration,
    /// Answers that stand ready, by the system prompt and the first user message of the request.
    pub answers: BTreeMap<(String, String), Value>,
    /// The only key that is accepted; without one, any key.
    pub key: Option<String>,
    /// The port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
}

impl Default for StubSettings {
    fn default() -> Self {
        StubSettings {
            seed: 0,
            faults: Faults::None,
            latency_ms: 20..=60,
            hang: Duration::from_secs(30),
            answers: BTreeMap::new(),
            key: None,
            port: 0,
        }
    }
}

/// A running stub; it stops when it is dropped.
#[derive(Debug)]
pub struct ModelStub {
    server: Server,
    stub: Arc<Stub>,
}

/// Counts since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StubStats {
    /// Requests that reached the model, that is, passed the checks.
    pub calls: u64,
    /// Requests that the checks refused.
    pub refused: u64,
    /// Distinct requests among the calls.
    pub identities: u64,
    /// Calls under way.
    pub open: u64,
    /// Most calls under way at one time.
    pub open_max: u64,
    /// Calls whose caller went away before the answer.
    pub abandoned: u64,
    /// Answers with status 200, whatever they say.
    pub answers: u64,
    /// Calls by what happened to them.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Tokens of all answers' requests, estimated from their length.
    pub input_tokens: u64,
    /// Tokens of all answers, likewise.
    pub output_tokens: u64,
}

/// What was seen of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SeenRequest {
    /// The first user message, as it was received.
    pub text: String,
    /// Calls begun.
    pub calls: u64,
    /// Answers with status 200.
    pub answers: u64,
    /// Answers with status 200 that were what was asked for.
    pub valid_answers: u64,
    /// Calls whose caller went away before the answer.
    pub abandoned: u64,
    /// Calls under way.
    pub open: u64,
}

#[derive(Debug)]
struct Stub {
    settings: StubSettings,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    stats: StubStats,
    requests: BTreeMap<String, SeenRequest>,
}

impl ModelStub {
    /// Starts on 127.0.0.1.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub async fn start(settings: StubSettings) -> io::Result<ModelStub> {
        let port = settings.port;
        let stub = Arc::new(Stub { settings, seen: Mutex::default() });
        let handler = Arc::clone(&stub);
        let server = Server::start(port, move |request| {
            let stub = Arc::clone(&handler);
            async move { stub.handle(&request).await }
        })
        .await?;
        Ok(ModelStub { server, stub })
    }

    /// What stands before `/v1/messages`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// The counts until now.
    pub fn stats(&self) -> StubStats {
        self.stub.with(|seen| seen.stats.clone())
    }

    /// Every request that reached the model, once each, in no particular order.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.stub.with(|seen| seen.requests.values().cloned().collect())
    }

    /// Stops the server; calls under way are cut off.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// A call under way: counted as abandoned if it is dropped before its end, which happens when its caller goes away.
struct OpenCall<'stub> {
    stub: &'stub Stub,
    identity: String,
    ended: bool,
}

impl OpenCall<'_> {
    fn end(mut self, outcome: &'static str, answer: Option<&Answered>) {
        self.ended = true;
        self.stub.with(|seen| {
            *seen.stats.outcomes.entry(outcome).or_default() += 1;
            let request = seen.requests.entry(self.identity.clone()).or_default();
            if let Some(answer) = answer {
                seen.stats.answers += 1;
                seen.stats.input_tokens += answer.input_tokens;
                seen.stats.output_tokens += answer.output_tokens;
                request.answers += 1;
                request.valid_answers += u64::from(answer.valid);
            }
        });
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.stub.with(|seen| {
            seen.stats.open -= 1;
            let abandoned = u64::from(!self.ended);
            seen.stats.abandoned += abandoned;
            let request = seen.requests.entry(self.identity.clone()).or_default();
            request.open -= 1;
            request.abandoned += abandoned;
        });
    }
}

/// An answer with status 200.
struct Answered {
    text: String,
    stop_reason: &'static str,
    valid: bool,
    input_tokens: u64,
    output_tokens: u64,
}

impl Stub {
    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn handle(&self, request: &HttpRequest) -> Answer {
        match (&request.method, request.path.as_str()) {
            (&Method::POST, "/v1/messages") => self.messages(request).await,
            (&Method::GET, "/_stub/stats") => {
                Answer::Respond(HttpResponse::json(200, &self.with(|seen| json!(seen.stats))))
            }
            (&Method::GET, "/_stub/texts") => {
                let requests = self.with(|seen| json!(seen.requests.values().collect::<Vec<_>>()));
                Answer::Respond(HttpResponse::json(200, &requests))
            }
            _ => Answer::Respond(error(404, "not_found_error", "Not found", "req_none")),
        }
    }

    async fn messages(&self, request: &HttpRequest) -> Answer {
        let message = match check(request, self.settings.key.as_deref()) {
            Ok(message) => message,
            Err((status, kind, reason)) => {
                self.with(|seen| seen.stats.refused += 1);
                return Answer::Respond(error(status, kind, &reason, "req_refused"));
            }
        };
        let identity = message.identity();
        let number = self.with(|seen| {
            seen.stats.calls += 1;
            seen.stats.open += 1;
            seen.stats.open_max = seen.stats.open_max.max(seen.stats.open);
            let entry = seen
                .requests
                .entry(identity.clone())
                .or_insert_with(|| SeenRequest { text: message.prompt(), ..SeenRequest::default() });
            entry.calls += 1;
            entry.open += 1;
            let number = entry.calls;
            seen.stats.identities = seen.requests.len() as u64;
            number
        });
        let call = OpenCall { stub: self, identity: identity.clone(), ended: false };
        let seed = self.settings.seed;
        let fault = self.settings.faults.fault(seed, &identity, number);
        let mut dice = Dice::new(seed, &identity, number, "call");
        let request_id = format!("req_{:016x}", dice.next());
        tokio::time::sleep(self.latency(fault, &mut dice)).await;
        self.answer(&message, fault, &mut dice, &request_id, call)
    }

    fn latency(&self, fault: Fault, dice: &mut Dice) -> Duration {
        let (low, high) = (*self.settings.latency_ms.start(), *self.settings.latency_ms.end());
        let drawn = Duration::from_millis(low + dice.below(high.saturating_sub(low) + 1));
        match fault {
            Fault::Hang => self.settings.hang,
            Fault::Slow => drawn * SLOW_FACTOR,
            // Refused at the door, before any work.
            Fault::RateLimited(_) | Fault::Overloaded | Fault::Rejected => Duration::from_millis(low / 4),
            _ => drawn,
        }
    }

    fn answer(
        &self,
        message: &Message,
        fault: Fault,
        dice: &mut Dice,
        request_id: &str,
        call: OpenCall<'_>,
    ) -> Answer {
        let name = fault.name();
        let failed = |status, kind, reason| error(status, kind, reason, request_id);
        let response = match fault {
            Fault::Hang | Fault::ResetBeforeHeaders => {
                call.end(name, None);
                return Answer::ResetBeforeHeaders;
            }
            Fault::RateLimited(retry_after) => {
                let refused = failed(
                    429,
                    "rate_limit_error",
                    "This request would exceed your organization's rate limit",
                );
                with_retry_after(refused, retry_after)
            }
            Fault::Overloaded => failed(529, "overloaded_error", "Overloaded"),
            Fault::ServerError => {
                failed(500, "api_error", "Internal server error").with_header("x-should-retry", "true")
            }
            Fault::Rejected => failed(400, "invalid_request_error", "messages: the text cannot be processed"),
            _ => {
                let answered = message.answer(&self.settings.answers, fault, dice);
                let response = success(message, &answered, request_id);
                call.end(name, Some(&answered));
                return if fault == Fault::ResetInBody {
                    Answer::ResetInBody(response)
                } else {
                    Answer::Respond(response)
                };
            }
        };
        call.end(name, None);
        Answer::Respond(response)
    }
}

fn with_retry_after(response: HttpResponse, retry_after: RetryAfter) -> HttpResponse {
    match retry_after {
        RetryAfter::Absent => response,
        RetryAfter::Seconds(seconds) => response.with_header("retry-after", seconds.to_string()),
        RetryAfter::Milliseconds(ms) => response.with_header("retry-after-ms", ms.to_string()),
        RetryAfter::Date(seconds) => {
            let at_ms = u64::try_from(now_ms()).unwrap_or(0) + seconds * 1000;
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at_ms);
            response.with_header("retry-after", httpdate::fmt_http_date(at))
        }
    }
}

fn error(status: u16, kind: &str, reason: &str, request_id: &str) -> HttpResponse {
    let body = json!({
        "type": "error",
        "error": { "type": kind, "message": reason },
        "request_id": request_id,
    });
    HttpResponse::json(status, &body).with_header("request-id", request_id)
}

fn success(message: &Message, answered: &Answered, request_id: &str) -> HttpResponse {
    let content =
        if answered.text.is_empty() { json!([]) } else { json!([{ "type": "text", "text": answered.text }]) };
    let body = json!({
        "id": request_id.replace("req_", "msg_"),
        "type": "message",
        "role": "assistant",
        "model": message.model,
        "content": content,
        "stop_reason": answered.stop_reason,
        "stop_sequence": null,
        "usage": {
            "input_tokens": answered.input_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": answered.output_tokens,
        },
    });
    let resets = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms()).unwrap_or(0));
    let resets = rfc_3339(resets);
    HttpResponse::json(200, &body)
        .with_header("request-id", request_id)
        .with_header("anthropic-ratelimit-requests-limit", REQUESTS_PER_MINUTE.to_string())
        .with_header("anthropic-ratelimit-requests-remaining", (REQUESTS_PER_MINUTE - 1).to_string())
        .with_header("anthropic-ratelimit-requests-reset", resets.clone())
        .with_header("anthropic-ratelimit-tokens-limit", TOKENS_PER_MINUTE.to_string())
        .with_header("anthropic-ratelimit-tokens-remaining", (TOKENS_PER_MINUTE - 1).to_string())
        .with_header("anthropic-ratelimit-tokens-reset", resets)
}

/// A time as `2026-11-24T07:00:00Z`.
fn rfc_3339(at: SystemTime) -> String {
    // The fixed form of an HTTP date: "Tue, 24 Nov 2026 07:00:00 GMT".
    let http_date = httpdate::fmt_http_date(at);
    let mut parts = http_date.split_whitespace().skip(1);
    let mut next = || parts.next().unwrap_or_default();
    let (day, month, year, time) = (next(), next(), next(), next());
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month).unwrap_or(0) + 1;
    format!("{year}-{month:02}-{day}T{time}Z")
}

/// A request that passed the checks.
struct Message {
    model: String,
    max_tokens: u64,
    system: String,
    turns: Vec<(Role, String)>,
    schema: Option<Value>,
    chars: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
}

impl Message {
    /// The prompt, without what a re-ask says behind it.
    fn prompt(&self) -> String {
        let first = self.turns.iter().find(|(role, _)| *role == Role::User);
        let text = first.map(|(_, text)| text.as_str()).unwrap_or_default();
        text.rsplit_once(REASK).map_or(text, |(prompt, _)| prompt).to_owned()
    }

    /// The same for a request and for the re-asks that follow on it.
    fn identity(&self) -> String {
        let digest = Sha256::new()
            .chain_update((self.model.len() as u64).to_be_bytes())
            .chain_update(self.model.as_bytes())
            .chain_update(self.prompt().as_bytes())
            .finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn answer(&self, ready: &BTreeMap<(String, String), Value>, fault: Fault, dice: &mut Dice) -> Answered {
        let text = self.prompt();
        let asked = (self.system.clone(), text);
        let valid = match (ready.get(&asked), &self.schema) {
            (Some(answer), _) => answer.clone(),
            (None, Some(schema)) => answer::generate(schema, &asked.1, dice),
            (None, None) => Value::String(answer::phrase(&asked.1)),
        };
        let (text, stop_reason, is_valid) = faults::disfigure(&valid, fault, dice);
        let input_tokens = self.chars.div_ceil(CHARS_PER_TOKEN) as u64;
        // What is cut off by the limit has as many tokens as the limit.
        let output_tokens = match stop_reason {
            "max_tokens" => self.max_tokens,
            _ => text.chars().count().div_ceil(CHARS_PER_TOKEN) as u64,
        };
        // What does not fit is cut off, as the real model's answer would be.
        if output_tokens > self.max_tokens {
            let chars =
                usize::try_from(self.max_tokens).unwrap_or(usize::MAX).saturating_mul(CHARS_PER_TOKEN);
            return Answered {
                text: text.chars().take(chars).collect(),
                stop_reason: "max_tokens",
                valid: false,
                input_tokens,
                output_tokens: self.max_tokens,
            };
        }
        Answered { text, stop_reason, valid: is_valid, input_tokens, output_tokens }
    }
}

#[derive(Deserialize)]
struct MessageInput {
    model: String,
    max_tokens: i64,
    messages: Vec<TurnInput>,
    #[serde(default)]
    system: Option<ContentInput>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    output_config: Option<OutputConfig>,
    #[serde(default)]
    output_format: Option<OutputFormat>,
}

#[derive(Deserialize)]
struct TurnInput {
    role: Role,
    content: ContentInput,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ContentInput {
    Text(String),
    Blocks(Vec<BlockInput>),
}

#[derive(Deserialize)]
struct BlockInput {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct OutputConfig {
    #[serde(default)]
    format: Option<OutputFormat>,
}

#[derive(Deserialize)]
struct OutputFormat {
    #[serde(rename = "type")]
    kind: String,
    schema: Value,
}

impl ContentInput {
    fn into_text(self) -> Result<String, Refused> {
        match self {
            ContentInput::Text(text) => Ok(text),
            ContentInput::Blocks(blocks) => {
                if let Some(block) = blocks.iter().find(|block| block.kind != "text") {
                    return Err(invalid(format!(
                        "content blocks of type {} are not part of this stub",
                        block.kind
                    )));
                }
                Ok(blocks.into_iter().map(|block| block.text).collect())
            }
        }
    }
}

/// Status, error type and message of a request that the API would not take.
type Refused = (u16, &'static str, String);

fn invalid(reason: impl Into<String>) -> Refused {
    (400, "invalid_request_error", reason.into())
}

fn check(request: &HttpRequest, key: Option<&str>) -> Result<Message, Refused> {
    let unauthorized = |reason: &str| (401, "authentication_error", reason.to_owned());
    match request.header("x-api-key") {
        None | Some("") => return Err(unauthorized("x-api-key header is required")),
        Some(given) if key.is_some_and(|key| key != given) => return Err(unauthorized("invalid x-api-key")),
        Some(_) => {}
    }
    match request.header("anthropic-version") {
        Some(VERSION) => {}
        Some(other) => return Err(invalid(format!("anthropic-version: \"{other}\" is not a valid version"))),
        None => return Err(invalid("anthropic-version: header is required")),
    }
    if !request
        .header("content-type")
        .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("application/json"))
    {
        return Err(invalid("content-type must be application/json"));
    }
    let input: MessageInput = serde_json::from_slice(&request.body)
        .map_err(|error| invalid(format!("the request body is not valid: {error}")))?;
    if input.model.is_empty() {
        return Err((404, "not_found_error", "model: ".to_owned()));
    }
    let max_tokens = u64::try_from(input.max_tokens)
        .ok()
        .filter(|tokens| *tokens > 0)
        .ok_or_else(|| invalid("max_tokens: must be greater than or equal to 1"))?;
    if input.stream {
        return Err(invalid("stream: not part of this stub"));
    }
    let system = input.system.map(ContentInput::into_text).transpose()?.unwrap_or_default();
    let mut chars = system.chars().count();
    let mut turns = Vec::new();
    for turn in input.messages {
        let text = turn.content.into_text()?;
        if text.trim().is_empty() {
            return Err(invalid("messages: text content blocks must contain non-whitespace text"));
        }
        chars += text.chars().count();
        turns.push((turn.role, text));
    }
    match turns.last() {
        None => return Err(invalid("messages: at least one message is required")),
        Some((Role::Assistant, _)) => {
            return Err(invalid("messages: the conversation must end with a user message"));
        }
        Some((Role::User, _)) => {}
    }
    if turns.first().is_some_and(|(role, _)| *role != Role::User) {
        return Err(invalid("messages: first message must use the \"user\" role"));
    }
    if input.output_format.is_some()
        && !request
            .header("anthropic-beta")
            .is_some_and(|betas| betas.split(',').any(|beta| beta.trim() == STRUCTURED_OUTPUT_BETA))
    {
        return Err(invalid("output_format: Extra inputs are not permitted"));
    }
    let format = input.output_config.and_then(|config| config.format).or(input.output_format);
    if let Some(format) = &format {
        if format.kind != "json_schema" {
            return Err(invalid(format!("output_config.format.type: unknown type {}", format.kind)));
        }
        schema_check::check(&format.schema)
            .map_err(|reason| invalid(format!("output_config.format.schema: {reason}")))?;
    }
    Ok(Message {
        model: input.model,
        max_tokens,
        system,
        turns,
        schema: format.map(|format| format.schema),
        chars,
    })
}

#[cfg(test)]
mod tests;
