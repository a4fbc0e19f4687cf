//! What an error of a provider means for the job that met it.
//!
//! Four classes, because the worker does four different things: it waits without counting (*capacity*), counts and tries
//! again (*transient*), hands back and raises an alarm (*account*), or writes a dead letter (*rejected*).
//!
//! The costly mistakes are unequal. To take an account failure for a rejected request empties the queue into dead
//! letters; to take a rejected request for an account failure holds up one job and wakes somebody. So what depends on
//! the deployment alone (key, credit, model, address) is an account failure, and only what depends on the job's own
//! request is rejected.
//!
//! Sources: "Errors" (Claude API docs); "Error codes" (OpenAI API docs); "Converse", errors (Amazon Bedrock API
//! Reference).

use nightshift_core::model::{FailureClass, ModelFailure, RetryAdvice};
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::mask::{self, MESSAGE_CHARS_MAX};
use crate::{Provider, headroom};

/// A header or an id of a provider that is longer is not one.
const HEADER_CHARS_MAX: usize = 200;

/// The names under which providers return the id of a call, most specific first.
const REQUEST_ID_HEADERS: [&str; 4] = ["request-id", "x-request-id", "x-amzn-requestid", "cf-ray"];

/// Says what a response that is not an answer means. `key` is the key that was sent; it is masked wherever it appears.
#[must_use]
pub fn classify(
    provider: Provider,
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    key: Option<&str>,
) -> ModelFailure {
    let said = Said::read(provider, status, headers, body);
    ModelFailure {
        class: said.class(provider, status),
        status: Some(status),
        error_type: mask::name(&said.error_type, key),
        message: mask::masked(&said.message, key, MESSAGE_CHARS_MAX),
        request_id: request_id(headers)
            .or_else(|| said.request_id.clone().and_then(|id| short(&id)))
            .map(|id| mask::masked(&id, key, HEADER_CHARS_MAX)),
        advice: advice(headers),
        headroom: headroom::read(provider, headers),
    }
}

/// A failure without a response: what happened on our side of the wire, in one word and one sentence.
#[must_use]
pub fn no_response(class: FailureClass, error_type: &str, message: &str) -> ModelFailure {
    ModelFailure {
        class,
        status: None,
        error_type: error_type.to_owned(),
        message: mask::masked(message, None, MESSAGE_CHARS_MAX),
        request_id: None,
        advice: RetryAdvice::default(),
        headroom: nightshift_core::model::Headroom::default(),
    }
}

/// The provider's id of the call, from its headers.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> Option<String> {
    REQUEST_ID_HEADERS
        .iter()
        .find_map(|name| headers.get(*name).and_then(|value| value.to_str().ok()).and_then(short))
}

/// The retry headers, as they are; see [`RetryAdvice`].
#[must_use]
pub fn advice(headers: &HeaderMap) -> RetryAdvice {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).and_then(short);
    RetryAdvice {
        retry_after_ms: text("retry-after-ms"),
        retry_after: text("retry-after"),
        should_retry: match text("x-should-retry").as_deref() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ => None,
        },
    }
}

/// A header's value or an id, if it is of a size that one can have.
fn short(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= HEADER_CHARS_MAX).then(|| text.to_owned())
}

/// What an error body says, in whichever of the providers' forms.
struct Said {
    /// The provider's name for the error: the exception, the code or the type, the most specific that there is.
    error_type: String,
    /// Every name that the body gives to the error, in lower case.
    names: Vec<String>,
    /// The message.
    message: String,
    /// The message in lower case, for what providers say only in prose.
    lower_message: String,
    /// Bedrock: what the model itself answered to Bedrock.
    original_status: Option<u16>,
    /// The id of the call, where the body has it.
    request_id: Option<String>,
    /// Whether the body is a JSON object at all; a proxy's or a load balancer's page is not.
    is_json: bool,
}

impl Said {
    fn read(provider: Provider, status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let parsed: Option<Value> = serde_json::from_slice(body).ok().filter(Value::is_object);
        let Some(body_value) = parsed else {
            let kind = headers
                .get("content-type")
                .and_then(|value| value.to_str().ok())
                .unwrap_or("no content type");
            let message = format!("the response is not a JSON object ({kind}, {} bytes)", body.len());
            let amzn = amzn_error_type(headers);
            return Self {
                error_type: amzn.clone().unwrap_or_else(|| format!("http_{status}")),
                names: amzn.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
                lower_message: String::new(),
                message,
                original_status: None,
                request_id: None,
                is_json: false,
            };
        };
        // `{"error": {...}}`, `{"error": "..."}` (Ollama), or the members at the top (Bedrock, vLLM).
        let error = body_value.get("error").unwrap_or(&body_value);
        let member = |value: &Value, name: &str| match value.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        };
        let message = error
            .as_str()
            .map(str::to_owned)
            .or_else(|| {
                ["message", "Message", "detail", "errorMessage"].iter().find_map(|name| member(error, name))
            })
            .unwrap_or_default();
        let exception = amzn_error_type(headers).or_else(|| {
            // AWS repeats the exception in the body, under a name that depends on the protocol.
            let typed = member(error, "__type")
                .or_else(|| member(error, "code").filter(|_| provider == Provider::Bedrock));
            typed.map(|name| bare_exception(&name))
        });
        let code = error.get("details").and_then(|details| member(details, "error_code")).or_else(|| {
            // A number under `code` is the status again (vLLM, OpenRouter).
            member(error, "code").filter(|code| code.parse::<u64>().is_err())
        });
        let kind = member(error, "type").filter(|kind| kind != "error");
        let names: Vec<String> =
            [&exception, &code, &kind].into_iter().flatten().map(|name| name.to_ascii_lowercase()).collect();
        Self {
            error_type: exception.or(code).or(kind).unwrap_or_else(|| format!("http_{status}")),
            names,
            lower_message: message.to_lowercase(),
            message,
            original_status: error
                .get("originalStatusCode")
                .and_then(Value::as_u64)
                .and_then(|status| u16::try_from(status).ok()),
            request_id: member(&body_value, "request_id").or_else(|| member(error, "request_id")),
            is_json: true,
        }
    }

    fn is_named(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.names.iter().any(|said| said == name))
    }

    fn says(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.lower_message.contains(phrase))
    }

    fn class(&self, provider: Provider, status: u16) -> FailureClass {
        use FailureClass::{Account, Capacity, Rejected, Transient};
        if self.is_account(provider, status) {
            return Account;
        }
        // A name is more specific than a status: gateways and Bedrock return the same meaning under several.
        if self.is_named(&CAPACITY_NAMES) {
            return Capacity;
        }
        if self.is_named(&MODEL_FAILED_NAMES) || status == 424 {
            // Bedrock passes on what the model answered; 424 alone says neither whose fault it was nor that it lasts.
            return self.original_status.map_or(Transient, |original| match by_status(original) {
                // The key, or the address, of the model behind the provider: no job's doing.
                Rejected if matches!(original, 401..=404 | 407) => Account,
                class => class,
            });
        }
        match by_status(status) {
            // "Unavailable" is waited for, whatever else the body calls it.
            Capacity => Capacity,
            _ if self.is_named(&TRANSIENT_NAMES) => Transient,
            class => class,
        }
    }

    /// Whether the deployment is the cause: its key, credit, limits, model or address. No job can be at fault for those.
    fn is_account(&self, provider: Provider, status: u16) -> bool {
        if self.is_named(&ACCOUNT_NAMES) {
            return true;
        }
        match status {
            401 | 402 | 403 | 407 => true,
            // Redirects are not followed, and the method and the path are ours: the base URL is wrong.
            300..=399 | 405 => true,
            // The path holds the model, or nothing of the job; a body that speaks of something else is about the job.
            404 => {
                !self.is_json
                    || self.message.is_empty()
                    || self.is_named(&NOT_FOUND_NAMES)
                    || self.says(&NOT_FOUND_PHRASES)
            }
            429 => self.says(&SPENT_PHRASES) || (provider == Provider::Bedrock && self.says(&["per day"])),
            400..=499 => self.says(&SPENT_PHRASES) || self.says(&DEPLOYMENT_PHRASES),
            _ => false,
        }
    }
}

/// What a status says by itself.
fn by_status(status: u16) -> FailureClass {
    match status {
        // Nothing was done, so nothing was billed: throttled, unavailable, overloaded, and Cloudflare's ways to say
        // that it never reached the provider ("Cloudflare 5xx errors": 521 to 523, 525, 526).
        429 | 503 | 529 | 521..=523 | 525 | 526 => FailureClass::Capacity,
        // The provider may have done the work before it failed. A 502 is a broken connection behind a gateway.
        408 | 409 | 500..=599 => FailureClass::Transient,
        _ => FailureClass::Rejected,
    }
}

/// Errors that say by their name that nothing was done and that waiting helps.
const CAPACITY_NAMES: [&str; 14] = [
    // Anthropic
    "rate_limit_error",
    "overloaded_error",
    // OpenAI and those who speak like it
    "rate_limit_exceeded",
    "slow_down",
    "server_is_overloaded",
    "service_unavailable_error",
    "model_overloaded",
    "engine_overloaded",
    // Bedrock
    "throttlingexception",
    "toomanyrequestsexception",
    "serviceunavailableexception",
    "modelnotreadyexception",
    "servicequotaexceededexception",
    "provisionedthroughputexceededexception",
];

/// Errors in which the model behind the provider failed, and the body says how.
const MODEL_FAILED_NAMES: [&str; 2] = ["modelerrorexception", "modelstreamerrorexception"];

/// Errors that say by their name that the provider failed, and may have done the work.
const TRANSIENT_NAMES: [&str; 8] = [
    "api_error",
    "timeout_error",
    "server_error",
    "internal_error",
    "internalserverexception",
    "internalserverfault",
    "modeltimeoutexception",
    "conflictexception",
];

/// Errors that say by their name that the account is the cause.
const ACCOUNT_NAMES: [&str; 28] = [
    // Anthropic
    "authentication_error",
    "billing_error",
    "permission_error",
    "enforced_spend_limit_reached",
    // OpenAI
    "invalid_api_key",
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "model_not_found",
    "unsupported_country_region_territory",
    "request_forbidden",
    "insufficient_permissions",
    "deploymentnotfound",
    // Bedrock and AWS's own
    "accessdeniedexception",
    "accessdenied",
    "unrecognizedclientexception",
    "invalidclienttokenid",
    "invalidsignatureexception",
    "signaturedoesnotmatch",
    "incompletesignature",
    "incompletesignatureexception",
    "missingauthenticationtokenexception",
    "expiredtokenexception",
    "expiredtoken",
    "optinrequired",
    "resourcenotfoundexception",
];

/// Names under which a 404 is about the model or the address.
const NOT_FOUND_NAMES: [&str; 2] = ["not_found_error", "notfounderror"];
/// What a 404 says of the model or the address.
const NOT_FOUND_PHRASES: [&str; 7] =
    ["model", "deployment", "endpoint", "url", "route", "page not found", "not found"];

/// What providers say when the money or a limit on it is used up, under a status that says something else.
/// Whole phrases: a message may quote the customer, and customers write about billing.
const SPENT_PHRASES: [&str; 9] = [
    "credit balance is too low",
    "api usage limits",
    "monthly usage limit",
    "exceeded your current quota",
    "spend limit",
    "spending limit",
    "no credits left",
    "organization has been disabled",
    "account is not active",
];

/// What providers say when the deployment's model, settings or schema are not to be had, under a 400.
const DEPLOYMENT_PHRASES: [&str; 18] = [
    "don't have access to the model",
    "do not have access to the model",
    "not have access to this model",
    "model identifier is invalid",
    "invalid model",
    "model not found",
    "model does not exist",
    "unknown model",
    "on-demand throughput",
    "inference profile",
    "reached the end of its life",
    "not supported for this model",
    "not supported with this model",
    "model does not support",
    // A schema is the task's, the same for every job: refused once, it is refused for all of them.
    "invalid schema for response_format",
    "output_config.format",
    "output_format.schema",
    "toolspec.inputschema",
];

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

#[cfg(test)]
mod tests {
    use FailureClass::{Account, Capacity, Rejected, Transient};
    use Provider::{Anthropic, Bedrock, OpenAi};
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn with(headers: &[(&str, &str)], provider: Provider, status: u16, body: &str) -> ModelFailure {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        classify(provider, status, &map, body.as_bytes(), None)
    }

    fn anthropic(kind: &str, message: &str) -> String {
        serde_json::json!({"type": "error", "error": {"type": kind, "message": message}}).to_string()
    }

    fn openai(kind: &str, code: Option<&str>, message: &str) -> String {
        serde_json::json!({"error": {"type": kind, "code": code, "message": message, "param": null}})
            .to_string()
    }

    #[test]
    fn anthropic_errors() {
        for (status, kind, message, class) in [
            (400, "invalid_request_error", "max_tokens: must be at least 1", Rejected),
            (400, "invalid_request_error", "prompt is too long: 1200000 tokens > 1000000 maximum", Rejected),
            (
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the Anthropic API.",
                Account,
            ),
            (400, "invalid_request_error", "You have reached your specified API usage limits.", Account),
            (
                400,
                "invalid_request_error",
                "\"thinking.type.disabled\" is not supported for this model.",
                Account,
            ),
            (400, "billing_error", "x", Account),
            (401, "authentication_error", "invalid x-api-key", Account),
            (402, "billing_error", "x", Account),
            (403, "permission_error", "x", Account),
            (404, "not_found_error", "model: claude-nonesuch", Account),
            (409, "conflict_error", "Conflict", Transient),
            (413, "request_too_large", "Request exceeds the maximum size", Rejected),
            (422, "invalid_request_error", "x", Rejected),
            (429, "rate_limit_error", "This request would exceed your rate limit", Capacity),
            (429, "rate_limit_error", "Your organization has reached its monthly usage limit.", Account),
            (500, "api_error", "Internal server error", Transient),
            (500, "overloaded_error", "Overloaded", Capacity),
            (503, "api_error", "x", Capacity),
            (
                400,
                "invalid_request_error",
                "output_config.format.schema: minItems above 1 is not supported",
                Account,
            ),
            (504, "timeout_error", "x", Transient),
            (529, "overloaded_error", "Overloaded", Capacity),
        ] {
            let failure = with(&[], Anthropic, status, &anthropic(kind, message));
            assert_eq!(failure.class, class, "{status} {kind} {message}");
            assert_eq!((failure.status, failure.error_type.as_str()), (Some(status), kind));
        }
    }

    #[test]
    fn a_spend_limit_is_told_from_a_rate_limit_by_its_code() {
        let body = r#"{"type":"error","error":{"type":"rate_limit_error","message":"Too many.","details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        let failure = with(&[], Anthropic, 429, body);
        assert_eq!((failure.class, failure.error_type.as_str()), (Account, "enforced_spend_limit_reached"));
    }

    #[test]
    fn openai_errors_and_those_of_local_servers() {
        for (status, body, class) in [
            (400, openai("invalid_request_error", Some("context_length_exceeded"), "too long"), Rejected),
            (400, openai("invalid_request_error", Some("invalid_value"), "Invalid schema for response_format"), Account),
            (401, openai("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided: sk-xxxx."), Account),
            (403, openai("request_forbidden", Some("unsupported_country_region_territory"), "x"), Account),
            (404, openai("invalid_request_error", Some("model_not_found"), "The model `x` does not exist"), Account),
            (404, r#"{"error":"model \"qwen3\" not found, try pulling it first"}"#.to_owned(), Account),
            (404, "404 page not found".to_owned(), Account),
            (404, openai("invalid_request_error", None, "No such File object: file-1"), Rejected),
            (429, openai("insufficient_quota", Some("insufficient_quota"), "You exceeded your current quota"), Account),
            (429, openai("requests", Some("rate_limit_exceeded"), "Rate limit reached; try again in 20ms"), Capacity),
            (429, openai("tokens", Some("rate_limit_exceeded"), "Limit 200 requests per day. Try again in 7m"), Capacity),
            (500, openai("server_error", None, "x"), Transient),
            (503, openai("service_unavailable_error", Some("server_is_overloaded"), "x"), Capacity),
            // vLLM, old and new
            (400, r#"{"object":"error","message":"max length is 4096 tokens","type":"BadRequestError","code":400}"#.to_owned(), Rejected),
            (404, r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}"#.to_owned(), Account),
            (422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#.to_owned(), Rejected),
        ] {
            assert_eq!(with(&[], OpenAi, status, &body).class, class, "{status} {body}");
        }
    }

    #[test]
    fn bedrock_exceptions_go_by_name() {
        for (status, exception, body, class) in [
            (
                400,
                "ValidationException",
                r#"{"message":"The model returned: messages.0 is empty"}"#,
                Rejected,
            ),
            (
                400,
                "ValidationException",
                r#"{"message":"The provided model identifier is invalid."}"#,
                Account,
            ),
            (
                400,
                "ValidationException",
                r#"{"message":"Invocation of model ID x with on-demand throughput isn’t supported. Retry with an inference profile"}"#,
                Account,
            ),
            (400, "ThrottlingException", r#"{"message":"Too many requests"}"#, Capacity),
            (
                429,
                "ThrottlingException",
                r#"{"message":"Too many tokens, please wait before trying again."}"#,
                Capacity,
            ),
            (
                429,
                "ThrottlingException",
                r#"{"message":"Too many tokens per day, please wait before trying again."}"#,
                Account,
            ),
            (429, "ModelNotReadyException", "{}", Capacity),
            (
                403,
                "AccessDeniedException",
                r#"{"Message":"User is not authorized to perform bedrock:InvokeModel"}"#,
                Account,
            ),
            (403, "ExpiredTokenException", "{}", Account),
            (404, "ResourceNotFoundException", "{}", Account),
            (408, "ModelTimeoutException", "{}", Transient),
            (424, "ModelErrorException", r#"{"originalStatusCode":500}"#, Transient),
            (424, "ModelErrorException", r#"{"originalStatusCode":400,"message":"bad input"}"#, Rejected),
            (424, "ModelErrorException", r#"{"originalStatusCode":429}"#, Capacity),
            (424, "ModelErrorException", r#"{"originalStatusCode":408}"#, Transient),
            (424, "ModelErrorException", r#"{"originalStatusCode":403}"#, Account),
            (424, "ModelErrorException", r#"{"originalStatusCode":77777}"#, Transient),
            (424, "", "{}", Transient),
            (
                500,
                "InternalServerException:http://internal.amazon.com/coral/com.amazon.bedrock/",
                "{}",
                Transient,
            ),
            (503, "ServiceUnavailableException", "{}", Capacity),
        ] {
            let failure = with(&[("x-amzn-errortype", exception)], Bedrock, status, body);
            assert_eq!(failure.class, class, "{status} {exception} {body}");
            assert!(!failure.error_type.contains("http:"), "{}", failure.error_type);
        }
        let in_body = with(
            &[],
            Bedrock,
            400,
            r#"{"__type":"com.amazon.coral.service#ThrottlingException","message":"x"}"#,
        );
        assert_eq!((in_body.class, in_body.error_type.as_str()), (Capacity, "ThrottlingException"));
    }

    #[test]
    fn a_page_of_a_proxy_is_classified_by_its_status_and_not_quoted() {
        for (status, class) in [
            (301, Account),
            (400, Rejected),
            (403, Account),
            (404, Account),
            (407, Account),
            (502, Transient),
            (503, Capacity),
            (504, Transient),
            (520, Transient),
            (522, Capacity),
            (524, Transient),
        ] {
            let failure =
                with(&[("content-type", "text/html")], Anthropic, status, "<html>secret text</html>");
            assert_eq!(failure.class, class, "{status}");
            assert_eq!(failure.error_type, format!("http_{status}"));
            assert!(!failure.message.contains("secret"), "{}", failure.message);
        }
    }

    #[test]
    fn retry_headers_are_carried_unparsed() {
        let headers = [
            ("retry-after-ms", "1500"),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT"),
            ("x-should-retry", "false"),
            ("request-id", "req_1"),
        ];
        let failure = with(&headers, Anthropic, 529, &anthropic("overloaded_error", "x"));
        assert_eq!(failure.advice.retry_after_ms.as_deref(), Some("1500"));
        assert_eq!(failure.advice.retry_after.as_deref(), Some("Wed, 21 Oct 2026 07:28:00 GMT"));
        assert_eq!((failure.advice.should_retry, failure.class), (Some(false), Capacity));
        assert_eq!(failure.request_id.as_deref(), Some("req_1"));
    }

    #[test]
    fn the_key_is_masked_wherever_a_provider_repeats_it() {
        const KEY: &str = "sk-ant-api03-Kq8vZ2xT5n";
        let body =
            serde_json::json!({"error": {"type": format!("x{KEY}"), "message": KEY}, "request_id": KEY});
        let failure = classify(OpenAi, 400, &HeaderMap::new(), body.to_string().as_bytes(), Some(KEY));
        assert_eq!((failure.error_type.as_str(), failure.message.as_str()), ("x***", "***"));
        assert_eq!(failure.request_id.as_deref(), Some("***"));
    }

    #[test]
    fn odd_bodies_are_survived() {
        for body in [
            "",
            "null",
            "[]",
            "\"x\"",
            "{\"error\":null}",
            "{\"error\":[]}",
            "{\"error\":{\"message\":{}}}",
            "{\"type\":\"error\"}",
            "\u{0}",
        ] {
            assert_eq!(with(&[], Anthropic, 500, body).class, Transient, "{body}");
            assert_eq!(with(&[], OpenAi, 429, body).class, Capacity, "{body}");
        }
        let long = with(&[], OpenAi, 400, &openai("invalid_request_error", None, &"é".repeat(5_000)));
        assert_eq!(long.message.chars().count(), MESSAGE_CHARS_MAX);
    }
}
