//! Anthropic's Messages API.
//!
//! Sources: "Create a Message", "Structured outputs", "Stop reasons and fallback", "Errors", "Rate limits" (Claude API
//! docs).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::model::{
    Answer, ModelFailure, ModelReply, ModelRequest, ReportedUsage, TokenLimit, Turn,
};
use nightshift_ports::{Model, ModelKey};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::error_words::is_filtered;
use crate::http::{BuildError, Http, checked_model_id, endpoint};
use crate::lower_schema::{LoweredSchemas, Target};
use crate::model_id::{LeastThinking, least_thinking, without_date};
use crate::reply::{
    Counts, Parsed, Unread, conclude, key, may_blame_the_key, optional_text, read, secret_header, sum,
    text_answer, unsendable,
};
use crate::{Provider, StructuredOutput, mask};

/// Where Anthropic is.
pub const BASE_URL: &str = "https://api.anthropic.com";
/// The version of the protocol that this adapter speaks.
const VERSION: &str = "2023-06-01";

/// What an Anthropic adapter needs to know.
#[derive(Debug, Clone)]
pub struct AnthropicSettings {
    /// The model id, such as `claude-haiku-5-5`.
    pub model: String,
    /// [`BASE_URL`], or where something stands that speaks the same; without `/v1`.
    pub base_url: String,
    /// How the schema is sent.
    pub structured_output: StructuredOutput,
}

/// The adapter.
pub struct Anthropic {
    http: Http,
    keys: Arc<dyn ModelKey>,
    url: Url,
    model: String,
    thinking: LeastThinking,
    schemas: LoweredSchemas,
    structured_output: StructuredOutput,
}

impl Anthropic {
    /// Builds the adapter; opens no connection and reads no key.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(
        settings: &AnthropicSettings,
        http: Http,
        keys: Arc<dyn ModelKey>,
    ) -> Result<Self, BuildError> {
        let model = checked_model_id(&settings.model)?;
        Ok(Self {
            http,
            keys,
            url: endpoint(&settings.base_url, "/v1/messages")?,
            thinking: least_thinking(without_date(&model)),
            model,
            schemas: LoweredSchemas::new(Target::Anthropic),
            structured_output: settings.structured_output,
        })
    }
}

#[async_trait]
impl Model for Anthropic {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let schema = match self.structured_output {
            StructuredOutput::TextFormat | StructuredOutput::Tool => self.schemas.of(request),
            StructuredOutput::None => None,
        };
        let body = body(request, &self.model, self.thinking, schema.as_deref(), self.structured_output)?;
        let key = key(&self.keys, deadline).await?;
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert("x-api-key", secret_header("", &key)?);
        headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let reply = self.http.post(Provider::Anthropic, self.url.clone(), headers, body, deadline).await?;
        let result = conclude(Provider::Anthropic, &reply, Some(key.expose_secret().trim()), parse);
        if may_blame_the_key(&result) {
            // The next call reads the store again; this one is reported as it is.
            self.keys.forget();
        }
        result
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    system: &'a str,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
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
struct OutputConfig<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<Format<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effort: Option<&'static str>,
}

#[derive(Serialize)]
struct Format<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'a Value,
}

/// The request. No sampling parameters: the current models refuse them. No cache marks: jobs share a prompt that is
/// shorter than what is worth caching, and writing the cache costs more than reading it once saves.
fn body(
    request: &ModelRequest,
    model: &str,
    thinking: LeastThinking,
    schema: Option<&Value>,
    by: StructuredOutput,
) -> Result<Vec<u8>, ModelFailure> {
    let tool = schema.filter(|_| by == StructuredOutput::Tool);
    let format =
        schema.filter(|_| by != StructuredOutput::Tool).map(|schema| Format { kind: "json_schema", schema });
    let effort = (thinking == LeastThinking::LowEffort).then_some("low");
    let body = Body {
        model,
        max_tokens: request.output_tokens_max,
        system: &request.system,
        messages: request
            .turns
            .iter()
            .map(|turn| match turn {
                Turn::User(content) => Message { role: "user", content },
                Turn::Assistant(content) => Message { role: "assistant", content },
            })
            .collect(),
        thinking: match thinking {
            LeastThinking::Type(kind) => Some(json!({"type": kind})),
            LeastThinking::Unsaid | LeastThinking::LowEffort => None,
        },
        output_config: (format.is_some() || effort.is_some()).then_some(OutputConfig { format, effort }),
        tools: tool.map(|schema| [json!({"name": request.schema_name, "input_schema": schema})]),
        tool_choice: tool.map(|_| json!({"type": "any"})),
    };
    serde_json::to_vec(&body).map_err(|_| unsendable("the request could not be written as JSON"))
}

#[derive(Deserialize)]
struct Message200<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    content: Vec<Block>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(borrow, default)]
    stop_details: Option<&'a RawValue>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    input: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct StopDetails {
    #[serde(default)]
    category: Option<String>,
}

fn parse(body: &[u8]) -> Result<Parsed, Unread> {
    let message = match read::<Message200<'_>>(body)? {
        Ok(message) => message,
        Err(foreign) => return Ok(foreign),
    };
    // The answer is in the text blocks; thinking is not part of it.
    let text: String = message
        .content
        .iter()
        .filter(|block| block.kind == "text")
        .filter_map(|block| block.text.as_deref())
        .collect();
    let stop_reason = message.stop_reason.as_deref().unwrap_or("none");
    // Only the one tool that we offered can have been used, and its input is the answer.
    let mut uses = message.content.iter().filter(|block| block.kind == "tool_use");
    let tool_input = uses.next().filter(|_| uses.next().is_none()).and_then(|block| block.input.as_deref());
    let answer = match stop_reason {
        "tool_use" | "end_turn" | "stop_sequence" if tool_input.is_some() => {
            text_answer(tool_input.map(RawValue::get).unwrap_or_default().to_owned(), stop_reason)
        }
        "end_turn" | "stop_sequence" => text_answer(text, stop_reason),
        "max_tokens" => Answer::Truncated { text, by: TokenLimit::Answer },
        "model_context_window_exceeded" => Answer::Truncated { text, by: TokenLimit::Context },
        "refusal" => {
            let details = message.stop_details.and_then(|details| serde_json::from_str(details.get()).ok());
            let category = details.and_then(|details: StopDetails| details.category);
            let why = category
                .map_or_else(|| "refusal".to_owned(), |c| format!("refusal: {}", mask::name(&c, None)));
            Answer::Refused { why, text }
        }
        // Gateways in front of other models use those models' words.
        reason if is_filtered(reason) => Answer::Refused { why: mask::name(reason, None), text },
        // `pause_turn` waits for something that we never offered; a reason that we do not know may mean
        // that the text is not all there.
        other => Answer::Unusable { why: format!("stopped for the reason {}", mask::name(other, None)) },
    };
    Ok(Parsed { answer, usage: usage(&Counts::of(message.usage)), id: optional_text(message.id) })
}

/// Tokens of the cache are counted apart from the others. No request asks for it, so that nothing is written there at
/// its higher price.
fn usage(counts: &Counts<'_>) -> ReportedUsage {
    ReportedUsage {
        input_tokens: sum([
            counts.needed("input_tokens"),
            counts.extra("cache_creation_input_tokens"),
            counts.extra("cache_read_input_tokens"),
        ]),
        output_tokens: counts.needed("output_tokens"),
    }
}

#[cfg(test)]
mod tests {
    use nightshift_core::model::Usage;

    use super::*;
    use crate::lower_schema::lower;

    fn request() -> ModelRequest {
        ModelRequest {
            system: "Say \"hi\".".to_owned(),
            turns: vec![
                Turn::User("<text>\u{202e}naughty \u{0} \\ 😀</text>".to_owned()),
                Turn::Assistant("{}".to_owned()),
                Turn::User("Again.".to_owned()),
            ],
            schema_name: "greeting".to_owned(),
            schema: Arc::new(
                json!({"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}, "required": ["a"]}),
            ),
            output_tokens_max: 99,
            timeout_ms: 1_000,
        }
    }

    #[test]
    fn a_tool_that_must_be_used_stands_in_for_the_format() {
        let schema = json!({"type": "object"});
        let by = StructuredOutput::Tool;
        let written = body(&request(), "local", LeastThinking::Unsaid, Some(&schema), by).unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(written.get("output_config"), None);
        assert_eq!(written["tool_choice"], json!({"type": "any"}));
        assert_eq!(written["tools"], json!([{"name": "greeting", "input_schema": schema}]));
        let used = br#"{"content":[{"type":"text","text":"So:"},{"type":"tool_use","input":{"a":1.0}}],"stop_reason":"tool_use"}"#;
        assert_eq!(parse(used).unwrap().answer, Answer::Text("{\"a\":1.0}".to_owned()));
    }

    #[test]
    fn the_request_has_the_schema_the_limit_and_the_text_as_it_is() {
        let request = request();
        let schema = lower(&request.schema, Target::Anthropic).unwrap();
        let written = body(
            &request,
            "claude-haiku-4-5",
            LeastThinking::Unsaid,
            Some(&schema),
            StructuredOutput::TextFormat,
        )
        .unwrap();
        let value: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!(
            value,
            json!({
                "model": "claude-haiku-4-5", "max_tokens": 99, "system": "Say \"hi\".",
                "messages": [
                    {"role": "user", "content": "<text>\u{202e}naughty \u{0} \\ 😀</text>"},
                    {"role": "assistant", "content": "{}"},
                    {"role": "user", "content": "Again."}
                ],
                "output_config": {"format": {"type": "json_schema", "schema": {
                    "type": "object", "properties": {"a": {"type": "string", "description": "At most 5 characters"}},
                    "required": ["a"], "additionalProperties": false
                }}}
            })
        );
    }

    #[test]
    fn thinking_is_kept_least_in_the_words_of_each_model() {
        for (model, thinking, effort) in [
            ("claude-sonnet-5-5", json!({"type": "between_tools"}), Value::Null),
            ("claude-haiku-5-5", json!({"type": "disabled"}), Value::Null),
            ("claude-opus-5-5", Value::Null, json!("low")),
            ("claude-haiku-4-5-20251001", Value::Null, Value::Null),
            ("claude-of-tomorrow", Value::Null, Value::Null),
        ] {
            let written =
                body(&request(), model, least_thinking(without_date(model)), None, StructuredOutput::None)
                    .unwrap();
            let value: Value = serde_json::from_slice(&written).unwrap();
            assert_eq!(value["thinking"], thinking, "{model}");
            assert_eq!(value["output_config"]["effort"], effort, "{model}");
        }
    }

    #[test]
    fn stop_reasons() {
        for (stop_reason, content, answer) in [
            (
                "end_turn",
                json!([{"type": "thinking", "thinking": "t", "text": "not this"}, {"type": "text", "text": "{}"}]),
                Answer::Text("{}".into()),
            ),
            (
                "stop_sequence",
                json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
                Answer::Text("ab".into()),
            ),
            (
                "end_turn",
                json!([]),
                Answer::Unusable { why: "no text in the answer (stop reason end_turn)".into() },
            ),
            (
                "end_turn",
                json!([{"type": "text", "text": " \n"}]),
                Answer::Unusable { why: "no text in the answer (stop reason end_turn)".into() },
            ),
            (
                "max_tokens",
                json!([{"type": "text", "text": "{\"a"}]),
                Answer::Truncated { text: "{\"a".into(), by: TokenLimit::Answer },
            ),
            (
                "model_context_window_exceeded",
                json!([]),
                Answer::Truncated { text: String::new(), by: TokenLimit::Context },
            ),
            (
                "refusal",
                json!([{"type": "text", "text": "No."}]),
                Answer::Refused { why: "refusal".into(), text: "No.".into() },
            ),
            (
                "pause_turn",
                json!([{"type": "text", "text": "{}"}]),
                Answer::Unusable { why: "stopped for the reason pause_turn".into() },
            ),
            (
                "tool_use",
                json!([{"type": "tool_use", "id": "t", "name": "n", "input": {}}, {"type": "tool_use", "id": "u", "name": "n", "input": {}}]),
                Answer::Unusable { why: "stopped for the reason tool_use".into() },
            ),
            (
                "content_filtered",
                json!([{"type": "text", "text": "No."}]),
                Answer::Refused { why: "content_filtered".into(), text: "No.".into() },
            ),
            (
                "a_new_reason",
                json!([{"type": "text", "text": "{}"}]),
                Answer::Unusable { why: "stopped for the reason a_new_reason".into() },
            ),
        ] {
            let body = json!({"id": "msg_1", "type": "message", "content": content, "stop_reason": stop_reason, "usage": {}});
            let parsed = parse(body.to_string().as_bytes()).unwrap();
            assert_eq!(parsed.answer, answer, "{stop_reason}");
            assert_eq!(parsed.id.as_deref(), Some("msg_1"));
        }
    }

    #[test]
    fn cached_tokens_are_tokens_read() {
        let body = json!({"content": [{"type": "text", "text": "x"}], "stop_reason": "end_turn", "usage":
            {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 100, "output_tokens": 7}});
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.usage, Usage { input_tokens: 111, output_tokens: 7 }.into());
    }

    #[test]
    fn a_refusal_names_its_category() {
        let body = json!({"content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "category": "cyber"}});
        let parsed = parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.answer, Answer::Refused { why: "refusal: cyber".into(), text: String::new() });
    }

    #[test]
    fn bodies_that_are_no_message() {
        assert_eq!(parse(b"\n<html>").err(), Some(Unread::Elsewhere));
        assert!(matches!(parse(b"Bad Gateway"), Err(Unread::NotJson { .. })));
        assert!(matches!(parse(b""), Err(Unread::NotJson { .. })));
        assert!(matches!(parse(b"{\"content\": [{\"type\": \"te"), Err(Unread::NotJson { .. })));
        assert!(matches!(
            parse(b"{\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}"),
            Err(Unread::Error)
        ));
        assert_eq!(parse(b"{\"id\":null,\"content\":null}").err(), Some(Unread::Empty));
        for elsewhere in ["{}", "[]", "null", "{\"status\":\"ok\"}"] {
            assert_eq!(parse(elsewhere.as_bytes()).err(), Some(Unread::Elsewhere), "{elsewhere}");
        }
        for foreign in [
            "{\"choices\":[{}]}",
            "{\"content\":\"text\"}",
            "{\"text\":\"{}\",\"usage\":{\"output_tokens\":3}}",
        ] {
            let parsed = parse(foreign.as_bytes()).unwrap();
            assert!(matches!(parsed.answer, Answer::Unusable { .. }), "{foreign}");
        }
    }
}
