//! What an error of a provider means for the job that met it.
//!
//! Six classes, because the worker does six different things: it waits without counting (*capacity*), counts and tries
//! again (*transient*), hands back and raises an alarm (*account*), writes a dead letter (*rejected*, *refused*), or
//! looks at what becomes of other jobs (*unclear*).
//!
//! The costly mistakes are unequal. To take an account failure for a rejected request empties the queue into dead
//! letters; to take a rejected request for an account failure holds up one job and wakes somebody. So what depends on
//! the deployment alone (key, credit, model, address, a member that we send with every job) is an account failure, only
//! a request that is said to be longer than a limit is rejected, and all other refusals are unclear.
//!
//! [`crate::error_body`] reads the forms, [`crate::error_words`] has the words and their sources.

use nightshift_core::model::{FailureClass, ModelFailure, RetryAdvice};
use reqwest::header::HeaderMap;

use crate::error_body::ErrorBody;
use crate::error_words as words;
use crate::mask::{self, MESSAGE_CHARS_MAX};
use crate::{Provider, headroom, request_size};

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
    failure(provider, status, headers, &ErrorBody::read(provider, headers, body), key)
}

/// The same for a body that was read before.
pub(crate) fn failure(
    provider: Provider,
    status: u16,
    headers: &HeaderMap,
    body: &ErrorBody,
    key: Option<&str>,
) -> ModelFailure {
    let name = body.name.clone().unwrap_or_else(|| format!("http_{status}"));
    let error_type = match &body.member {
        Some(member) => format!("{name}:{member}"),
        None => name,
    };
    let mut advice = advice(headers);
    if advice.retry_after_ms.is_none() && advice.retry_after.is_none() {
        advice.retry_after = body.retry_after_s.as_deref().and_then(short);
    }
    let class = class(provider, status, body);
    let is_oversize = class == FailureClass::Rejected;
    ModelFailure {
        class,
        status: Some(status),
        error_type: mask::name(&error_type, key),
        message: mask::masked(&body.message, key, MESSAGE_CHARS_MAX),
        request_id: request_id(headers)
            .or_else(|| body.request_id.as_deref().and_then(short))
            .map(|id| mask::masked(&id, key, HEADER_CHARS_MAX)),
        advice,
        headroom: headroom::read(provider, headers),
        // Only what is said to be larger than a limit is rejected here.
        oversize: is_oversize.then(|| request_size::read(body)),
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
        oversize: None,
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

fn class(provider: Provider, status: u16, body: &ErrorBody) -> FailureClass {
    use FailureClass::{Account, Capacity, Refused, Rejected, Transient};
    match status {
        // Credit that is held for calls under way, and comes back with them.
        402 if body.is_named(&words::IN_FLIGHT_NAMES) => return Capacity,
        401 | 402 | 407 => return Account,
        // Redirects are not followed, and the method and the path are ours: the base URL is wrong.
        300..=399 | 405 | 501 => return Account,
        _ => {}
    }
    let is_4xx = (400..500).contains(&status);
    // It calls this what it calls a key that may not do something.
    if is_4xx && body.says(&words::INJECTION_PHRASES) {
        return Refused;
    }
    if body.is_named(&words::ACCOUNT_NAMES) || (is_4xx && body.says(&words::SHUT_OUT_PHRASES)) {
        return Account;
    }
    let by_status = by_status(status);
    let is_refusal =
        body.is_named(&words::REFUSAL_NAMES) || (by_status != Capacity && body.says(&words::REFUSAL_PHRASES));
    // Before what else a 403 may mean: xAI calls a filtered text `permission-denied`, too.
    if is_refusal {
        return Refused;
    }
    if is_4xx {
        if is_spent(provider, status, body) {
            return Account;
        }
        // A wait makes no room for what is larger than the whole limit. Who is forbidden may still be the account, in
        // whatever words of a firewall: what becomes of other jobs tells.
        let is_larger = body.asks_for_more_than_the_limit() || is_too_large(status, body);
        if is_larger && status != 403 {
            return Rejected;
        }
    }
    // A name is more specific than a status: gateways and Bedrock return the same meaning under several, and llama.cpp
    // refused a long prompt with a 500 for a while.
    if status >= 500 && (body.is_named(&words::TOO_LARGE_NAMES) || body.says(&words::TOO_LARGE_BROKE_PHRASES))
    {
        return Rejected;
    }
    let broke_off = by_status == Transient && body.is_named(&words::BROKE_OFF_NAMES);
    if body.is_named_like(&words::CAPACITY_NAME_PARTS) && !broke_off {
        return Capacity;
    }
    if body.is_named(&words::MODEL_FAILED_NAMES) || status == 424 {
        // Bedrock passes on what the model answered; 424 alone says neither whose fault it was nor that it lasts.
        return body.original_status.map_or(Transient, |original| match original {
            // The key, or the address, of the model behind the provider: no job's doing.
            401..=404 | 407 => Account,
            _ => self::by_status(original),
        });
    }
    match by_status {
        // "Unavailable" is waited for, whatever else the body calls it.
        Capacity => Capacity,
        // Ollama calls nearly all of its refusals `api_error`; an exception of AWS has its name whatever the status is.
        _ if body.is_named(&words::TRANSIENT_NAMES) && (provider == Provider::Bedrock || !is_4xx) => {
            Transient
        }
        FailureClass::Unclear if is_deployment(status, body) => Account,
        class => class,
    }
}

/// The status of an error within a success that has none of its own: what a 4xx would make of its words, or the
/// provider's failure.
pub(crate) fn status_by_words(provider: Provider, body: &ErrorBody) -> u16 {
    let refused = body.is_named(&words::INVALID_REQUEST_NAMES);
    if body.says(&words::CAPACITY_PHRASES) {
        429
    } else if refused || class(provider, 400, body) != FailureClass::Unclear {
        400
    } else {
        500
    }
}

/// Whether the key, the account or its money is the cause, by the words alone.
fn is_spent(provider: Provider, status: u16, body: &ErrorBody) -> bool {
    let is_throttled = status == 429 || body.is_named_like(&["throttl"]);
    if provider == Provider::Bedrock && is_throttled && body.says(&["per day"]) {
        return true;
    }
    // Google says of each limit that the quota is exceeded: of a minute's, a day's, and of one that is 0.
    let lasts = body.is_named_like(&["perday"]) || body.says(&["limit: 0,", "limit: 0\n"]);
    let passes = body.retry_after_s.is_some() || body.says(&["please retry in "]);
    if body.says(&words::QUOTA_PHRASES) && passes && !lasts {
        return false;
    }
    body.says(&words::ACCOUNT_PHRASES) || (status == 429 && body.is_named(&words::SPENT_CODES))
}

/// Whether the request is said to be longer than a limit. A 413 says so by itself.
fn is_too_large(status: u16, body: &ErrorBody) -> bool {
    // A rate limit speaks of tokens and sizes, too; it passes, unless more was requested than there can be.
    let by_words =
        status != 429 && (body.is_named(&words::TOO_LARGE_NAMES) || body.says(&words::TOO_LARGE_PHRASES));
    by_words || status == 413
}

/// Whether the deployment's model, address, settings or schema are the cause. No job can be at fault for those.
fn is_deployment(status: u16, body: &ErrorBody) -> bool {
    let ours = body.member.as_deref().is_some_and(|member| words::OUR_MEMBERS.contains(&member));
    if ours || body.says(&words::DEPLOYMENT_PHRASES) || body.says(&words::OUR_MEMBER_PHRASES) {
        return true;
    }
    // The path holds the model, or nothing of the job; a body that speaks of something else is about the job.
    matches!(status, 404 | 410)
        && (!body.is_json
            || body.message.is_empty()
            || body.is_named(&words::NOT_FOUND_NAMES)
            || body.says(&words::NOT_FOUND_PHRASES))
}

/// What a status says by itself.
fn by_status(status: u16) -> FailureClass {
    match status {
        // Nothing was done, so nothing was billed: throttled, unavailable, overloaded, Groq's "flex tier capacity
        // exceeded" (498), and Cloudflare's ways to say that it never reached the provider ("Cloudflare 5xx errors": 521
        // to 523, 525, 526, 530).
        429 | 498 | 503 | 529 | 521..=523 | 525 | 526 | 530 => FailureClass::Capacity,
        // The provider may have done the work before it failed. A 502 is a broken connection behind a gateway.
        408 | 409 | 425 | 499 | 500..=599 => FailureClass::Transient,
        _ => FailureClass::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use FailureClass::{Account, Capacity, Rejected, Transient, Unclear};
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
            (400, "invalid_request_error", "max_tokens: must be at least 1", Account),
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
            (422, "invalid_request_error", "x", Unclear),
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
            assert_eq!(failure.status, Some(status));
            assert_eq!(failure.error_type.split(':').next(), Some(kind));
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
            (404, r#"{"error":"unknown path /chat/completions"}"#.to_owned(), Account),
            (404, r#"{"detail":"Not Found"}"#.to_owned(), Account),
            (404, openai("invalid_request_error", None, "No such File object: file-1"), Unclear),
            (429, openai("insufficient_quota", Some("insufficient_quota"), "You exceeded your current quota"), Account),
            (429, openai("requests", Some("rate_limit_exceeded"), "Rate limit reached; try again in 20ms"), Capacity),
            (429, r#"{"error":"you (x) have reached your weekly usage limit, upgrade for higher limits: https://ollama.com/upgrade"}"#.to_owned(), Account),
            (429, r#"{"error":"you've reached your hourly usage limit, please wait or upgrade to continue"}"#.to_owned(), Account),
            (429, openai("tokens", Some("rate_limit_exceeded"), "Limit 200 requests per day. Try again in 7m"), Capacity),
            (500, openai("server_error", None, "x"), Transient),
            (503, openai("service_unavailable_error", Some("server_is_overloaded"), "x"), Capacity),
            // vLLM, old and new
            (400, r#"{"object":"error","message":"This model's maximum context length is 4096 tokens","type":"BadRequestError","code":400}"#.to_owned(), Rejected),
            (404, r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}"#.to_owned(), Account),
            (422, r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#.to_owned(), Unclear),
        ] {
            assert_eq!(with(&[], OpenAi, status, &body).class, class, "{status} {body}");
        }
    }

    #[test]
    fn bedrock_exceptions_go_by_name() {
        for (status, exception, body, class) in [
            (400, "ValidationException", r#"{"message":"The model returned: messages.0 is empty"}"#, Unclear),
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
            (424, "ModelErrorException", r#"{"originalStatusCode":400,"message":"bad input"}"#, Unclear),
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
            (400, Unclear),
            (403, Unclear),
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
    fn what_is_forbidden_is_never_a_jobs_fault_by_its_words_alone() {
        for message in ["Request body too large", "prompt is too long: 3 tokens > 2 maximum"] {
            let said = |status| with(&[], Anthropic, status, &anthropic("error", message)).class;
            assert_eq!((said(403), said(400)), (Unclear, Rejected), "{message}");
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
