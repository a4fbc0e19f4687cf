//! Chat completions, as OpenAI defined them and Ollama, vLLM and many others speak them.
//!
//! Members that OpenAI always sends may be absent here: local servers leave out what they do not know.
//!
//! Sources: "Chat Completions", "Structured model outputs", "Error codes", "Rate limits" (OpenAI API docs); "OpenAI
//! compatibility" (Ollama docs); "OpenAI-Compatible Server" (vLLM docs).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::model::{
    Answer, ModelFailure, ModelReply, ModelRequest, ReportedUsage, TokenLimit, Turn,
};
use nightshift_ports::{Model, ModelKey};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error_words::{BREAKDOWNS, is_filtered};
use crate::http::{BuildError, Http, checked_model_id, endpoint};
use crate::lower_schema::{LoweredSchemas, Target};
use crate::model_id::{least_reasoning, without_date};
use crate::reply::{
    Counts, Parsed, Unread, conclude, key, may_blame_the_key, no_answer, optional_text, read, secret_header,
    text_answer, unsendable,
};
use crate::{Provider, StructuredOutput, mask};

/// Where OpenAI is; with the version, as OpenAI's own clients have it.
pub const BASE_URL: &str = "https://api.openai.com/v1";

/// How the hosts of OpenAI end, Azure's among them ("Azure OpenAI in Foundry Models", endpoints).
const OPENAI_HOSTS: [&str; 4] =
    [".openai.com", ".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];

/// What an OpenAI adapter needs to know.
#[derive(Debug, Clone)]
pub struct OpenAiSettings {
    /// The model id, such as `gpt-6-luna`, or what a local server calls its model.
    pub model: String,
    /// [`BASE_URL`], or where something stands that speaks the same, with `/v1` if that is part of its path.
    pub base_url: String,
    /// How the schema is sent. Servers that do not know `response_format` refuse it or ignore it; some know tools.
    pub structured_output: StructuredOutput,
}

/// The adapter.
pub struct OpenAi {
    http: Http,
    keys: Option<Arc<dyn ModelKey>>,
    url: Url,
    model: String,
    limit: LimitMember,
    schemas: LoweredSchemas,
    structured_output: StructuredOutput,
}

/// Under which name the output limit is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LimitMember {
    /// OpenAI's: its reasoning models refuse the old one.
    MaxCompletionTokens,
    /// Everybody else's: some ignore the new one, and an ignored limit is none.
    MaxTokens,
}

impl OpenAi {
    /// Builds the adapter; opens no connection and reads no key. Without `keys` no key is sent, as to a local server.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(
        settings: &OpenAiSettings,
        http: Http,
        keys: Option<Arc<dyn ModelKey>>,
    ) -> Result<Self, BuildError> {
        let url = endpoint(&settings.base_url, "/chat/completions")?;
        Ok(Self {
            http,
            keys,
            limit: limit_member(&url),
            model: checked_model_id(&settings.model)?,
            schemas: LoweredSchemas::new(target(&url, &settings.model)),
            structured_output: settings.structured_output,
            url,
        })
    }
}

fn is_openai(url: &Url) -> bool {
    url.host_str().is_some_and(|host| OPENAI_HOSTS.iter().any(|end| host.ends_with(end)))
}

/// How much of a schema is sent; see [`lower_schema`](crate::lower_schema).
fn target(url: &Url, model: &str) -> Target {
    if is_openai(url) {
        // Fine-tuned models take fewer keywords; Azure's deployments have names of their own, and OpenAI's say so.
        return if model.starts_with("ft:") { Target::OpenAiCompatible } else { Target::OpenAiStrict };
    }
    if is_own(url) { Target::OwnServer } else { Target::OpenAiCompatible }
}

/// Whether the address is of this machine or of a private network, where people run a model server of their own.
fn is_own(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        Err(_) => {
            // One word (`localhost`, the name of a container), and the ends that are reserved for private use.
            !host.contains('.') || [".local", ".internal", ".localhost"].iter().any(|end| host.ends_with(end))
        }
    }
}

fn limit_member(url: &Url) -> LimitMember {
    if is_openai(url) { LimitMember::MaxCompletionTokens } else { LimitMember::MaxTokens }
}

#[async_trait]
impl Model for OpenAi {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let schema = match self.structured_output {
            StructuredOutput::TextFormat | StructuredOutput::Tool => self.schemas.of(request),
            StructuredOutput::None => None,
        };
        let body = body(request, &self.model, self.limit, schema.as_deref(), self.structured_output)?;
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let key = match &self.keys {
            Some(keys) => Some(key(keys, deadline).await?),
            None => None,
        };
        if let Some(key) = &key {
            headers.insert(AUTHORIZATION, secret_header("Bearer ", key)?);
        }
        let reply = self.http.post(Provider::OpenAi, self.url.clone(), headers, body, deadline).await?;
        let key = key.as_ref().map(|key| key.expose_secret().trim());
        let result = conclude(Provider::OpenAi, &reply, key, parse);
        if let Some(keys) = &self.keys
            && may_blame_the_key(&result)
        {
            keys.forget();
        }
        result
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<[Value; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Value>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct ResponseFormat<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    json_schema: NamedSchema<'a>,
}

#[derive(Serialize)]
struct NamedSchema<'a> {
    name: &'a str,
    strict: bool,
    schema: &'a Value,
}

fn body(
    request: &ModelRequest,
    model: &str,
    limit: LimitMember,
    schema: Option<&Value>,
    by: StructuredOutput,
) -> Result<Vec<u8>, ModelFailure> {
    let mut messages = Vec::with_capacity(request.turns.len() + 1);
    messages.push(Message { role: "system", content: &request.system });
    messages.extend(request.turns.iter().map(|turn| match turn {
        Turn::User(content) => Message { role: "user", content },
        Turn::Assistant(content) => Message { role: "assistant", content },
    }));
    let tokens = Some(request.output_tokens_max);
    let tool = schema.filter(|_| by == StructuredOutput::Tool);
    let body = Body {
        model,
        messages,
        max_completion_tokens: tokens.filter(|_| limit == LimitMember::MaxCompletionTokens),
        max_tokens: tokens.filter(|_| limit == LimitMember::MaxTokens),
        reasoning_effort: least_reasoning(without_date(model)),
        response_format: schema.filter(|_| by != StructuredOutput::Tool).map(|schema| ResponseFormat {
            kind: "json_schema",
            json_schema: NamedSchema { name: &request.schema_name, strict: true, schema },
        }),
        tools: tool.map(|schema| {
            [json!({
                "type": "function",
                "function": {"name": request.schema_name, "strict": true, "parameters": schema},
            })]
        }),
        // Of one tool, any is that one; llama.cpp's server and others know no tool by its name.
        tool_choice: tool.map(|_| json!("required")),
    };
    serde_json::to_vec(&body).map_err(|_| unsendable("the request could not be written as JSON"))
}

#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

/// What those who speak this protocol write in other types is read where it stands: beside it may be an answer that was
/// paid for.
#[derive(Deserialize)]
struct Choice<'a> {
    /// `null` beside some reasons to stop.
    #[serde(borrow, default)]
    message: Option<Said<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct Said<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
}

#[derive(Deserialize)]
struct ToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<CalledFunction<'a>>,
}

#[derive(Deserialize)]
struct CalledFunction<'a> {
    /// JSON within a string, and the JSON itself in some releases of llama.cpp's server.
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

fn parse(body: &[u8]) -> Result<Parsed, Unread> {
    let completion = match read::<Completion<'_>>(body)? {
        Ok(completion) => completion,
        Err(foreign) => return Ok(foreign),
    };
    let answer = match completion.choices.into_iter().next() {
        Some(choice) => answer(choice)?,
        None => no_answer(body, "the response has no choice")?,
    };
    let usage = usage(&Counts::of(completion.usage));
    Ok(Parsed { answer, usage, id: optional_text(completion.id) })
}

/// OpenAI counts thoughts among the tokens of the completion. Others count them apart, and they are in the total only
/// (Gemini), in the details and the total (xAI: "Consumption and rate limits"), or in the details only.
fn usage(counts: &Counts<'_>) -> ReportedUsage {
    let input_tokens = counts.needed("prompt_tokens");
    let thoughts = counts.within("completion_tokens_details").extra("reasoning_tokens");
    let total = counts.extra("total_tokens");
    let output_tokens =
        counts.needed("completion_tokens").zip(thoughts).zip(total).map(|((completion, thoughts), total)| {
            let are_apart = thoughts > completion || !counts.has("total_tokens");
            let written = completion.saturating_add(if are_apart { thoughts } else { 0 });
            written.max(total.saturating_sub(input_tokens.unwrap_or(0)))
        });
    ReportedUsage { input_tokens, output_tokens }
}

fn answer(choice: Choice<'_>) -> Result<Answer, Unread> {
    let Said { content, refusal, tool_calls } = choice.message.unwrap_or_default();
    // Only the one tool that we offered can have been used, and its input is the answer.
    let mut inputs = tool_calls.unwrap_or_default().into_iter().map(|call| call.function?.arguments);
    let tool_input = inputs.next().flatten().filter(|_| inputs.next().is_none());
    let (text, refused_part) = match content.and_then(|content| serde_json::from_str(content.get()).ok()) {
        _ if tool_input.is_some() => (tool_input.map(written).unwrap_or_default(), None),
        Some(Content::Text(text)) => (text, None),
        Some(Content::Parts(parts)) => (
            parts.iter().filter(|part| part.is_said()).filter_map(|part| part.text.as_deref()).collect(),
            parts.into_iter().find_map(|part| part.refusal),
        ),
        None => (String::new(), None),
    };
    // A refusal under structured output finishes with `stop` and says so in a member of its own.
    if let Some(said) = optional_text(refusal).or(refused_part).filter(|said| !said.is_empty()) {
        return Ok(Answer::Refused { why: "refusal".to_owned(), text: said });
    }
    let reason = optional_text(choice.finish_reason).unwrap_or_default();
    Ok(match reason.to_ascii_lowercase().as_str() {
        "length" | "max_tokens" => Answer::Truncated { text, by: TokenLimit::Answer },
        // Gateways pass on what the model behind them said.
        "model_context_window_exceeded" | "model_length" => {
            Answer::Truncated { text, by: TokenLimit::Context }
        }
        "tool_calls" if tool_input.is_some() => text_answer(text, "tool_calls"),
        "stop" | "eos" | "eos_token" | "end_turn" | "stop_sequence" => text_answer(text, &reason),
        // Some local servers say nothing about why they stopped; what they said is validated like any other answer.
        "" => text_answer(text, "none"),
        broken if BREAKDOWNS.contains(&broken) => {
            return Err(Unread::BrokeOff { reason: mask::name(&reason, None) });
        }
        filtered if is_filtered(filtered) => Answer::Refused { why: mask::name(&reason, None), text },
        _ => Answer::Unusable { why: format!("stopped for the reason {}", mask::name(&reason, None)) },
    })
}

impl Part {
    /// Thoughts stand in parts of other kinds, with a text as well.
    fn is_said(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| matches!(kind, "text" | "output_text"))
    }
}

/// The JSON that a tool was called with.
fn written(arguments: &RawValue) -> String {
    serde_json::from_str(arguments.get()).unwrap_or_else(|_| arguments.get().to_owned())
}

#[cfg(test)]
mod tests {
    use nightshift_core::model::Usage;

    use super::*;

    fn request() -> ModelRequest {
        ModelRequest {
            system: "S".to_owned(),
            turns: vec![Turn::User("u\u{0}".to_owned())],
            schema_name: "out".to_owned(),
            schema: Arc::new(json!({"type": "object", "properties": {"a": {"type": "string"}}})),
            output_tokens_max: 10,
            timeout_ms: 1_000,
        }
    }

    #[test]
    fn the_request_has_the_strict_schema_and_the_limit_under_the_servers_name() {
        let schema = json!({"type": "object"});
        let value = |model: &str, limit| -> Value {
            let body = body(&request(), model, limit, Some(&schema), StructuredOutput::TextFormat).unwrap();
            serde_json::from_slice(&body).unwrap()
        };
        assert_eq!(
            value("gpt-5-mini-2025-08-07", LimitMember::MaxCompletionTokens),
            json!({
                "model": "gpt-5-mini-2025-08-07", "max_completion_tokens": 10, "reasoning_effort": "minimal",
                "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "u\u{0}"}],
                "response_format": {"type": "json_schema", "json_schema": {"name": "out", "strict": true, "schema": schema}}
            })
        );
        let local = value("qwen3:8b", LimitMember::MaxTokens);
        assert_eq!((&local["max_tokens"], local.get("reasoning_effort")), (&json!(10), None));
    }

    #[test]
    fn a_tool_that_must_be_used_stands_in_for_the_format() {
        let schema = json!({"type": "object"});
        let body =
            body(&request(), "qwen3:8b", LimitMember::MaxTokens, Some(&schema), StructuredOutput::Tool)
                .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.get("response_format"), None);
        assert_eq!(body["tool_choice"], "required");
        assert_eq!(
            body["tools"],
            json!([{"type": "function", "function": {"name": "out", "strict": true, "parameters": schema}}])
        );
    }

    #[test]
    fn only_openai_itself_is_sent_the_new_name_of_the_limit() {
        for (base, member) in [
            (BASE_URL, LimitMember::MaxCompletionTokens),
            ("https://x.openai.azure.com/openai/v1", LimitMember::MaxCompletionTokens),
            ("https://x.services.ai.azure.com/openai/v1", LimitMember::MaxCompletionTokens),
            ("https://x.cognitiveservices.azure.com/openai/v1", LimitMember::MaxCompletionTokens),
            ("https://services.ai.azure.com.example/v1", LimitMember::MaxTokens),
            ("http://127.0.0.1:11434/v1", LimitMember::MaxTokens),
            ("https://openai.com.example/v1", LimitMember::MaxTokens),
        ] {
            assert_eq!(limit_member(&endpoint(base, "/chat/completions").unwrap()), member, "{base}");
        }
    }

    #[test]
    fn a_schema_goes_out_as_whoever_listens_takes_it() {
        for (base, model, expected) in [
            (BASE_URL, "gpt-5-mini", Target::OpenAiStrict),
            (BASE_URL, "ft:gpt-4o-mini:acme::x", Target::OpenAiCompatible),
            ("https://x.openai.azure.com/openai/v1", "mine", Target::OpenAiStrict),
            ("http://127.0.0.1:11434/v1", "qwen3:8b", Target::OwnServer),
            ("http://[::1]:8080/v1", "m", Target::OwnServer),
            ("http://10.0.3.7:8000/v1", "m", Target::OwnServer),
            ("http://[fd00::7]:8000/v1", "m", Target::OwnServer),
            ("http://vllm:8000/v1", "m", Target::OwnServer),
            ("http://models.eu-central-1.internal/v1", "m", Target::OwnServer),
            ("https://openrouter.ai/api/v1", "m", Target::OpenAiCompatible),
            ("http://8.8.8.8/v1", "m", Target::OpenAiCompatible),
            ("https://internal.example/v1", "m", Target::OpenAiCompatible),
        ] {
            assert_eq!(
                target(&endpoint(base, "/chat/completions").unwrap(), model),
                expected,
                "{base} {model}"
            );
        }
    }

    #[test]
    fn finish_reasons() {
        let none = || Answer::Unusable { why: "no text in the answer (stop reason stop)".into() };
        for (message, finish_reason, answer) in [
            (json!({"content": "{}", "refusal": null}), json!("stop"), Answer::Text("{}".into())),
            (json!({"content": "{}"}), Value::Null, Answer::Text("{}".into())),
            (
                json!({"content": [{"type": "text", "text": "{"}, {"type": "text", "text": "}"}]}),
                json!("stop"),
                Answer::Text("{}".into()),
            ),
            (
                json!({"content": null, "refusal": "No."}),
                json!("stop"),
                Answer::Refused { why: "refusal".into(), text: "No.".into() },
            ),
            (
                json!({"content": [{"type": "refusal", "refusal": "No."}]}),
                json!("stop"),
                Answer::Refused { why: "refusal".into(), text: "No.".into() },
            ),
            (
                json!({"content": "{\"a"}),
                json!("length"),
                Answer::Truncated { text: "{\"a".into(), by: TokenLimit::Answer },
            ),
            (
                json!({"content": "x"}),
                json!("content_filter"),
                Answer::Refused { why: "content_filter".into(), text: "x".into() },
            ),
            (json!({"content": null}), json!("stop"), none()),
            (Value::Null, json!("stop"), none()),
            (
                Value::Null,
                json!("content_filter: PROHIBITED_CONTENT"),
                Answer::Refused { why: "content_filter:PROHIBITED_CONTENT".into(), text: String::new() },
            ),
            (json!({"content": "", "reasoning_content": "thought"}), json!("stop"), none()),
            (
                json!({"content": null, "tool_calls": [{"type": "function", "function": {"name": "out", "arguments": "{}"}}]}),
                json!("tool_calls"),
                Answer::Text("{}".into()),
            ),
            (
                json!({"content": "Here.", "tool_calls": [{"function": {"name": "out", "arguments": "{}"}}]}),
                json!("stop"),
                Answer::Text("{}".into()),
            ),
            // Which of two is the answer would be a guess.
            (
                json!({"content": null, "tool_calls": [{"function": {"arguments": "1"}}, {"function": {"arguments": "2"}}]}),
                json!("tool_calls"),
                Answer::Unusable { why: "stopped for the reason tool_calls".into() },
            ),
            (
                json!({"content": null, "tool_calls": []}),
                json!("tool_calls"),
                Answer::Unusable { why: "stopped for the reason tool_calls".into() },
            ),
        ] {
            let body = json!({"choices": [{"message": message, "finish_reason": finish_reason}]}).to_string();
            assert_eq!(parse(body.as_bytes()).unwrap().answer, answer, "{body}");
        }
    }

    #[test]
    fn absent_members_are_tolerated_and_errors_under_200_are_errors() {
        let parsed = parse(br#"{"choices":[{"message":{"content":"x"}}]}"#).unwrap();
        assert_eq!((parsed.usage, parsed.id), (ReportedUsage::default(), None));
        let counted =
            parse(br#"{"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#).unwrap();
        assert_eq!(counted.usage, Usage { input_tokens: 3, output_tokens: 4 }.into());
        assert!(matches!(counted.answer, Answer::Unusable { .. }));
        let unread = |body: &[u8]| parse(body).err();
        assert_eq!(unread(br#"{"error":{"message":"x","code":429}}"#), Some(Unread::Error));
        assert_eq!(unread(br#"{"error":"x"}"#), Some(Unread::Error));
        // OpenRouter sends both when the provider behind it breaks off.
        let both = br#"{"choices":[{"message":{"content":"{"}}],"error":{"message":"x","code":502}}"#;
        assert_eq!(unread(both), Some(Unread::Error));
        let in_choice = br#"{"choices":[{"message":{"content":"{"},"error":{"message":"x","code":502}}]}"#;
        assert_eq!(unread(in_choice), Some(Unread::Error));
        let quoted = br#"{"error":null,"choices":[{"message":{"content":"{\"error\":1}"}}]}"#;
        assert!(matches!(parse(quoted).unwrap().answer, Answer::Text(_)));
        let aborted = br#"{"choices":[{"message":{"content":"{}"},"finish_reason":"Abort"}]}"#;
        assert_eq!(unread(aborted), Some(Unread::BrokeOff { reason: "Abort".to_owned() }));
        // Nothing was said, and nothing was counted.
        assert_eq!(unread(br#"{"error":null,"choices":[]}"#), Some(Unread::Empty));
        assert_eq!(unread(br#"{"id":null,"choices":null,"usage":null}"#), Some(Unread::Empty));
        assert!(matches!(parse(b"Bad Gateway"), Err(Unread::NotJson { .. })));
        for elsewhere in ["{}", "[]", "{\"status\":\"ok\"}", "{\"models\":[]}"] {
            assert_eq!(unread(elsewhere.as_bytes()), Some(Unread::Elsewhere), "{elsewhere}");
        }
        for foreign in
            ["{\"choices\":{}}", "{\"choices\":[{}]}", "{\"choices\":[{\"message\":{\"content\":7}}]}"]
        {
            assert!(
                matches!(parse(foreign.as_bytes()).unwrap().answer, Answer::Unusable { .. }),
                "{foreign}"
            );
        }
    }

    #[test]
    fn thoughts_are_paid_wherever_they_are_counted() {
        let details = |thoughts: Value| json!({"reasoning_tokens": thoughts});
        for (usage, input, output) in [
            // OpenAI: within the completion.
            (
                json!({"prompt_tokens": 10, "completion_tokens": 90, "total_tokens": 100, "completion_tokens_details": details(json!(64))}),
                Some(10),
                Some(90),
            ),
            // Gemini: in the total only.
            (
                json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}),
                Some(20),
                Some(603),
            ),
            (json!({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81}), Some(21), Some(60)),
            // xAI: in the details and the total.
            (
                json!({"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 399, "completion_tokens_details": details(json!(386))}),
                Some(12),
                Some(387),
            ),
            // In the details only; without a total nobody can tell, and the safe side is that they are apart.
            (
                json!({"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14, "completion_tokens_details": details(json!(317))}),
                Some(12),
                Some(319),
            ),
            (
                json!({"prompt_tokens": 12, "completion_tokens": 9, "completion_tokens_details": details(json!(5))}),
                Some(12),
                Some(14),
            ),
            (
                json!({"prompt_tokens": 12, "completion_tokens": 9, "completion_tokens_details": null}),
                Some(12),
                Some(9),
            ),
            // A total that is too small takes nothing away; one that is none leaves the thoughts unknown.
            (json!({"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 3}), Some(12), Some(9)),
            (json!({"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": "21"}), Some(12), None),
            (json!({"completion_tokens": 9, "total_tokens": 30}), None, Some(30)),
        ] {
            let text = usage.to_string();
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            let read = super::usage(&Counts::of(Some(raw)));
            assert_eq!(read, ReportedUsage { input_tokens: input, output_tokens: output }, "{text}");
        }
    }
}
