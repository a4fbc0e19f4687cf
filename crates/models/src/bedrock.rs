//! Amazon Bedrock's Converse API, over plain HTTP with a SigV4 signature or a Bedrock API key.
//!
//! **Absent on purpose:** the SDK's client for Bedrock. It would add megabytes to the zip for one operation, and brings
//! retries of its own.
//!
//! Sources: "Converse", "OutputFormat", "ToolChoice" (Amazon Bedrock API Reference); "Get validated JSON results from
//! models", "Supported models and model features" (Amazon Bedrock User Guide).

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use nightshift_core::model::{
    Answer, FailureClass, ModelFailure, ModelReply, ModelRequest, ReportedUsage, TokenLimit, Turn,
};
use nightshift_ports::{Clock, Model, ModelKey};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::classify::no_response;
use crate::error_words::is_filtered;
use crate::http::{BuildError, Http, checked_model_id, endpoint};
use crate::lower_schema::{LoweredSchemas, Target};
use crate::model_id::{self, LeastThinking, least_thinking};
use crate::reply::{
    Counts, Parsed, Unread, conclude, key, may_blame_the_key, read, secret_header, sum, text_answer,
    unsendable,
};
use crate::{Provider, StructuredOutput, mask};

/// The name under which requests are signed.
const SERVICE: &str = "bedrock";

impl StructuredOutput {
    /// What this model takes. Models that we do not know are sent nothing that they could refuse.
    #[must_use]
    pub fn of_model(model: &str) -> Self {
        let Some(id) = model_id::bedrock(model) else { return Self::None };
        let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| id.model.starts_with(prefix));
        match id.vendor {
            // Since 4.5; the current ones refuse to be made to use a tool.
            "anthropic" if starts(&["claude-instant", "claude-v2", "claude-2"]) => Self::None,
            "anthropic"
                if starts(&["claude-3", "claude-opus-4-1", "claude-opus-4-0", "claude-sonnet-4-0"]) =>
            {
                Self::Tool
            }
            "anthropic" if matches!(id.model, "claude-opus-4" | "claude-sonnet-4") => Self::Tool,
            "anthropic" => Self::TextFormat,
            "amazon" if starts(&["nova"]) => Self::Tool,
            "qwen" | "minimax" | "moonshot" | "moonshotai" | "nvidia" | "google" => Self::TextFormat,
            "openai" if starts(&["gpt-oss"]) => Self::TextFormat,
            "deepseek" if starts(&["v3"]) => Self::TextFormat,
            "mistral" if starts(&["mistral-large-3", "ministral", "magistral"]) => Self::TextFormat,
            "mistral" if starts(&["mistral-large", "pixtral-large"]) => Self::Tool,
            _ => Self::None,
        }
    }
}

/// What a Bedrock adapter needs to know.
#[derive(Debug, Clone)]
pub struct BedrockSettings {
    /// The model id, the id of an inference profile (`global.anthropic.claude-haiku-5-5`), or the ARN of either.
    pub model: String,
    /// The region whose endpoint is called, and which requests are signed for.
    pub region: String,
    /// `None`: the region's own endpoint. Otherwise where something stands that speaks the same.
    pub base_url: Option<String>,
    /// `None`: by the model's id, see [`StructuredOutput::of_model`].
    pub structured_output: Option<StructuredOutput>,
}

/// Who calls.
pub enum BedrockAuth {
    /// The function's role, or whatever the provider of credentials finds; signed by this clock.
    Credentials {
        /// Where credentials come from; expected to cache.
        provider: SharedCredentialsProvider,
        /// The time that is signed; AWS refuses one that is more than five minutes off.
        clock: Arc<dyn Clock>,
    },
    /// A Bedrock API key.
    Key(Arc<dyn ModelKey>),
}

/// The adapter.
pub struct Bedrock {
    http: Http,
    auth: BedrockAuth,
    url: Url,
    region: String,
    structured_output: StructuredOutput,
    schemas: LoweredSchemas,
    thinking: Option<&'static str>,
}

impl Bedrock {
    /// Builds the adapter; opens no connection and reads no credentials.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(settings: &BedrockSettings, http: Http, auth: BedrockAuth) -> Result<Self, BuildError> {
        let model = checked_model_id(&settings.model)?;
        let region = settings.region.trim().to_owned();
        let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_region {
            return Err(BuildError::BaseUrl);
        }
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let own = format!("https://bedrock-runtime.{region}.{suffix}");
        let base_url = settings.base_url.as_deref().unwrap_or(&own);
        let structured_output =
            settings.structured_output.unwrap_or_else(|| StructuredOutput::of_model(&model));
        Ok(Self {
            http,
            auth,
            url: endpoint(base_url, &format!("/model/{}/converse", path_segment(&model)))?,
            region,
            structured_output,
            schemas: LoweredSchemas::new(match structured_output {
                StructuredOutput::Tool => Target::BedrockTool,
                StructuredOutput::TextFormat | StructuredOutput::None => Target::Bedrock,
            }),
            thinking: match model_id::bedrock(&model).map(|id| least_thinking(id.model)) {
                Some(LeastThinking::Type(kind)) => Some(kind),
                _ => None,
            },
        })
    }

    async fn authorized(
        &self,
        body: &[u8],
        deadline: Instant,
    ) -> Result<(HeaderMap, Option<String>), ModelFailure> {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match &self.auth {
            BedrockAuth::Key(keys) => {
                let key = key(keys, deadline).await?;
                headers.insert(AUTHORIZATION, secret_header("Bearer ", &key)?);
                Ok((headers, Some(key.expose_secret().trim().to_owned())))
            }
            BedrockAuth::Credentials { provider, clock } => {
                let failed = |class, message: &str| no_response(class, "credentials_unavailable", message);
                let credentials = match tokio::time::timeout_at(deadline, provider.provide_credentials())
                    .await
                {
                    Ok(Ok(credentials)) => credentials,
                    Ok(Err(error)) => {
                        let class = match &error {
                            CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                                FailureClass::Capacity
                            }
                            _ => FailureClass::Account,
                        };
                        return Err(failed(class, &error.to_string()));
                    }
                    Err(_elapsed) => return Err(failed(FailureClass::Capacity, "no credentials in time")),
                };
                self.sign(&mut headers, body, credentials, clock.now_ms())
                    .ok_or_else(|| failed(FailureClass::Account, "the request could not be signed"))?;
                Ok((headers, None))
            }
        }
    }

    fn sign(
        &self,
        headers: &mut HeaderMap,
        body: &[u8],
        credentials: aws_credential_types::Credentials,
        now_ms: u64,
    ) -> Option<()> {
        let identity = credentials.into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(UNIX_EPOCH + Duration::from_millis(now_ms))
            .settings(SigningSettings::default())
            .build()
            .ok()?
            .into();
        let signed = [("content-type", "application/json")].into_iter();
        let request =
            SignableRequest::new("POST", self.url.as_str(), signed, SignableBody::Bytes(body)).ok()?;
        let (instructions, _signature) = sign(request, &params).ok()?.into_parts();
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        Some(())
    }
}

#[async_trait]
impl Model for Bedrock {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
        let schema = match self.structured_output {
            StructuredOutput::TextFormat | StructuredOutput::Tool => self.schemas.of(request),
            StructuredOutput::None => None,
        };
        let by = if schema.is_some() { self.structured_output } else { StructuredOutput::None };
        let body = body(request, by, schema.as_deref(), self.thinking)?;
        let (headers, key) = self.authorized(&body, deadline).await?;
        let reply = self.http.post(Provider::Bedrock, self.url.clone(), headers, body, deadline).await?;
        let result = conclude(Provider::Bedrock, &reply, key.as_deref(), |body| parse(body, by));
        if let BedrockAuth::Key(keys) = &self.auth
            && may_blame_the_key(&result)
        {
            keys.forget();
        }
        result
    }
}

/// The id as one segment of a path: the colons of versions and ARNs and the slashes of ARNs are escaped.
fn path_segment(id: &str) -> String {
    let mut segment = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

fn body(
    request: &ModelRequest,
    by: StructuredOutput,
    schema: Option<&Value>,
    thinking: Option<&str>,
) -> Result<Vec<u8>, ModelFailure> {
    let messages: Vec<Value> = request
        .turns
        .iter()
        .map(|turn| match turn {
            Turn::User(text) => json!({"role": "user", "content": [{"text": text}]}),
            Turn::Assistant(text) => json!({"role": "assistant", "content": [{"text": text}]}),
        })
        .collect();
    let mut body = json!({
        "system": [{"text": request.system}],
        "messages": messages,
        "inferenceConfig": {"maxTokens": request.output_tokens_max},
    });
    let mut set = |name: &str, value: Value| {
        if let Value::Object(members) = &mut body {
            members.insert(name.to_owned(), value);
        }
    };
    match (by, schema) {
        (StructuredOutput::TextFormat, Some(schema)) => {
            // The schema is text within the JSON.
            let json_schema = json!({"name": request.schema_name, "schema": schema.to_string()});
            set(
                "outputConfig",
                json!({"textFormat": {"type": "json_schema", "structure": {"jsonSchema": json_schema}}}),
            );
        }
        (StructuredOutput::Tool, Some(schema)) => {
            let tool = json!({
                "name": request.schema_name,
                "description": "Takes the answer. Use it exactly once.",
                "inputSchema": {"json": schema},
            });
            // Any of one is that one. A tool by its name would be refused by Mistral's models.
            set("toolConfig", json!({"tools": [{"toolSpec": tool}], "toolChoice": {"any": {}}}));
        }
        _ => {}
    }
    if let Some(kind) = thinking {
        set("additionalModelRequestFields", json!({"thinking": {"type": kind}}));
    }
    serde_json::to_vec(&body).map_err(|_| unsendable("the request could not be written as JSON"))
}

#[derive(Deserialize)]
struct Conversed<'a> {
    #[serde(borrow)]
    output: Output<'a>,
    #[serde(rename = "stopReason", default)]
    stop_reason: Option<String>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output<'a> {
    #[serde(borrow)]
    message: Said<'a>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    content: Vec<Block<'a>>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(default)]
    text: Option<String>,
    #[serde(rename = "toolUse", borrow, default)]
    tool_use: Option<ToolUse<'a>>,
}

#[derive(Deserialize)]
struct ToolUse<'a> {
    /// As it was written: duplicate members and long numbers are for the validator to judge.
    #[serde(borrow)]
    input: &'a RawValue,
}

fn parse(body: &[u8], by: StructuredOutput) -> Result<Parsed, Unread> {
    let conversed = match read::<Conversed<'_>>(body)? {
        Ok(conversed) => conversed,
        Err(foreign) => return Ok(foreign),
    };
    let blocks = &conversed.output.message.content;
    let text: String = blocks.iter().filter_map(|block| block.text.as_deref()).collect();
    let stop_reason = conversed.stop_reason.as_deref().unwrap_or("none");
    let tool_input = || {
        let mut uses = blocks.iter().filter_map(|block| block.tool_use.as_ref());
        // Two answers are none.
        uses.next().filter(|_| uses.next().is_none()).map(|tool| tool.input.get().to_owned())
    };
    let answer = match stop_reason {
        // Nova ends with `tool_use` after the tool that it was made to use, some versions of Claude with `end_turn`.
        "tool_use" | "end_turn" | "stop_sequence" if by == StructuredOutput::Tool => match tool_input() {
            Some(input) => Answer::Text(input),
            None if stop_reason == "tool_use" => {
                Answer::Unusable { why: "the tool was not used exactly once".to_owned() }
            }
            None => text_answer(text, stop_reason),
        },
        "end_turn" | "stop_sequence" => text_answer(text, stop_reason),
        "max_tokens" => Answer::Truncated { text: tool_input().unwrap_or(text), by: TokenLimit::Answer },
        "model_context_window_exceeded" => {
            Answer::Truncated { text: tool_input().unwrap_or(text), by: TokenLimit::Context }
        }
        reason if is_filtered(reason) => Answer::Refused { why: mask::name(reason, None), text },
        // Among them `malformed_model_output` and `malformed_tool_use`: Bedrock could not read the model either.
        other => Answer::Unusable { why: format!("stopped for the reason {}", mask::name(other, None)) },
    };
    Ok(Parsed { answer, usage: usage(&Counts::of(conversed.usage)), id: None })
}

/// Tokens of the cache are counted apart from the others; what only the total has was written ("TokenUsage", Amazon
/// Bedrock API Reference).
fn usage(counts: &Counts<'_>) -> ReportedUsage {
    let input_tokens = sum([
        counts.needed("inputTokens"),
        counts.extra("cacheReadInputTokens"),
        counts.extra("cacheWriteInputTokens"),
    ]);
    let said = counts.needed("outputTokens").zip(counts.extra("totalTokens"));
    let output_tokens =
        said.map(|(output, total)| output.max(total.saturating_sub(input_tokens.unwrap_or(0))));
    ReportedUsage { input_tokens, output_tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> ModelRequest {
        ModelRequest {
            system: "S".to_owned(),
            turns: vec![
                Turn::User("u".to_owned()),
                Turn::Assistant("a".to_owned()),
                Turn::User("v".to_owned()),
            ],
            schema_name: "out".to_owned(),
            schema: Arc::new(json!({})),
            output_tokens_max: 10,
            timeout_ms: 1_000,
        }
    }

    #[test]
    fn the_schema_goes_where_the_model_takes_it() {
        let schema = json!({"type": "object"});
        let value = |by, thinking| -> Value {
            serde_json::from_slice(&body(&request(), by, Some(&schema), thinking).unwrap()).unwrap()
        };
        let text_format = value(StructuredOutput::TextFormat, Some("disabled"));
        assert_eq!(
            text_format,
            json!({
                "system": [{"text": "S"}],
                "messages": [
                    {"role": "user", "content": [{"text": "u"}]},
                    {"role": "assistant", "content": [{"text": "a"}]},
                    {"role": "user", "content": [{"text": "v"}]}
                ],
                "inferenceConfig": {"maxTokens": 10},
                "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema":
                    {"name": "out", "schema": "{\"type\":\"object\"}"}}}},
                "additionalModelRequestFields": {"thinking": {"type": "disabled"}}
            })
        );
        let tool = value(StructuredOutput::Tool, None);
        assert_eq!(tool["toolConfig"]["toolChoice"], json!({"any": {}}));
        assert_eq!(tool["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"], json!({"json": schema}));
        assert_eq!(tool.get("outputConfig"), None);
        let none = value(StructuredOutput::None, None);
        assert_eq!((none.get("outputConfig"), none.get("toolConfig")), (None, None));
    }

    #[test]
    fn models_are_asked_in_the_way_that_they_take() {
        for (model, by) in [
            ("global.anthropic.claude-haiku-5-5", StructuredOutput::TextFormat),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", StructuredOutput::TextFormat),
            ("anthropic.claude-sonnet-4-20250514-v1:0", StructuredOutput::Tool),
            ("anthropic.claude-3-5-haiku-20241022-v1:0", StructuredOutput::Tool),
            ("us.amazon.nova-lite-v1:0", StructuredOutput::Tool),
            ("openai.gpt-oss-120b-1:0", StructuredOutput::TextFormat),
            ("qwen.qwen3-32b-v1:0", StructuredOutput::TextFormat),
            ("us.meta.llama3-3-70b-instruct-v1:0", StructuredOutput::None),
            ("deepseek.r1-v1:0", StructuredOutput::None),
            ("mistral.mistral-large-2407-v1:0", StructuredOutput::Tool),
            ("us.mistral.pixtral-large-2502-v1:0", StructuredOutput::Tool),
            ("mistral.mistral-large-3-675b-instruct", StructuredOutput::TextFormat),
            ("mistral.mistral-7b-instruct-v0:2", StructuredOutput::None),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", StructuredOutput::None),
        ] {
            assert_eq!(StructuredOutput::of_model(model), by, "{model}");
        }
    }

    #[test]
    fn ids_are_one_segment_of_the_path() {
        assert_eq!(path_segment("anthropic.claude-v1:0"), "anthropic.claude-v1%3A0");
        assert_eq!(
            path_segment("arn:aws:b:r:1:inference-profile/us.x"),
            "arn%3Aaws%3Ab%3Ar%3A1%3Ainference-profile%2Fus.x"
        );
    }

    #[test]
    fn stop_reasons() {
        use StructuredOutput::{TextFormat, Tool};
        let tool_use =
            |input: &str| format!(r#"{{"toolUse":{{"toolUseId":"t","name":"out","input":{input}}}}}"#);
        let refused = |why: &str| Answer::Refused { why: why.into(), text: "No.".into() };
        let unusable = |why: &str| Answer::Unusable { why: why.into() };
        let cut_off = |text: &str, by| Answer::Truncated { text: text.into(), by };
        for (by, stop_reason, content, answer) in [
            (
                TextFormat,
                "end_turn",
                r#"{"reasoningContent":{"reasoningText":{"text":"t"}}},{"text":"{}"}"#.to_owned(),
                Answer::Text("{}".into()),
            ),
            (TextFormat, "end_turn", String::new(), unusable("no text in the answer (stop reason end_turn)")),
            (TextFormat, "tool_use", tool_use("{}"), unusable("stopped for the reason tool_use")),
            (Tool, "tool_use", tool_use(r#"{"a":1e400,"a":2}"#), Answer::Text(r#"{"a":1e400,"a":2}"#.into())),
            (Tool, "end_turn", tool_use("{}"), Answer::Text("{}".into())),
            (Tool, "end_turn", r#"{"text":"{}"}"#.to_owned(), Answer::Text("{}".into())),
            (
                Tool,
                "tool_use",
                format!("{},{}", tool_use("1"), tool_use("2")),
                unusable("the tool was not used exactly once"),
            ),
            (Tool, "max_tokens", tool_use("{}"), cut_off("{}", TokenLimit::Answer)),
            (TextFormat, "max_tokens", r#"{"text":"{"}"#.to_owned(), cut_off("{", TokenLimit::Answer)),
            (
                TextFormat,
                "model_context_window_exceeded",
                r#"{"text":"{"}"#.to_owned(),
                cut_off("{", TokenLimit::Context),
            ),
            (TextFormat, "content_filtered", r#"{"text":"No."}"#.to_owned(), refused("content_filtered")),
            (Tool, "guardrail_intervened", r#"{"text":"No."}"#.to_owned(), refused("guardrail_intervened")),
            (
                Tool,
                "malformed_tool_use",
                String::new(),
                unusable("stopped for the reason malformed_tool_use"),
            ),
            (
                TextFormat,
                "malformed_model_output",
                String::new(),
                unusable("stopped for the reason malformed_model_output"),
            ),
        ] {
            let body = format!(
                r#"{{"output":{{"message":{{"role":"assistant","content":[{content}]}}}},"stopReason":"{stop_reason}"}}"#
            );
            assert_eq!(parse(body.as_bytes(), by).unwrap().answer, answer, "{body}");
        }
    }

    #[test]
    fn what_is_counted_apart_is_paid_too() {
        for (usage, input, output) in [
            (
                json!({"inputTokens": 1, "cacheReadInputTokens": 10, "cacheWriteInputTokens": 100, "outputTokens": 5, "totalTokens": 116}),
                Some(111),
                Some(5),
            ),
            // The total without the cache takes nothing away; what only the total has was written.
            (
                json!({"inputTokens": 1, "cacheReadInputTokens": 10, "outputTokens": 5, "totalTokens": 6}),
                Some(11),
                Some(5),
            ),
            (json!({"inputTokens": 1, "outputTokens": 5, "totalTokens": 406}), Some(1), Some(405)),
            (json!({"inputTokens": 1, "cacheReadInputTokens": "many", "outputTokens": 5}), None, Some(5)),
        ] {
            let text = usage.to_string();
            let raw: &RawValue = serde_json::from_str(&text).unwrap();
            let read = super::usage(&Counts::of(Some(raw)));
            assert_eq!(read, ReportedUsage { input_tokens: input, output_tokens: output }, "{text}");
        }
    }
}
