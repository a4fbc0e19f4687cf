//! What the words of each provider mean, kind by kind, over HTTP through the real adapter. More of each kind than was
//! reported: other providers, other statuses, other places in the body.
//!
//! Where the words come from stands in `src/error_words.rs`.

use std::sync::atomic::Ordering;

use nightshift_core::model::{Answer, FailureClass};
use serde_json::{Value, json};

use crate::support::{Keys, Server, Step, adapter, request, response, word};

/// What a reply came to, in one word.
async fn meaning(provider: &str, status: u16, body: &Value) -> (&'static str, usize) {
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    let server = Server::start(vec![vec![Step::Send(response(status, &[], text.as_bytes()))]]).await;
    let keys = Keys::working();
    let result = adapter(provider, &server.url(), keys.clone()).call(&request(5_000)).await;
    let meant = match &result {
        Ok(reply) => match &reply.answer {
            Answer::Text(_) => "answer",
            Answer::Refused { .. } => "refused",
            Answer::Truncated { .. } => "truncated",
            Answer::Unusable { .. } => "unusable",
        },
        Err(failure) => word(failure.class),
    };
    (meant, keys.forgotten.load(Ordering::SeqCst))
}

async fn check(expected: &str, rows: Vec<(&str, u16, Value)>) {
    for (provider, status, body) in rows {
        assert_eq!(meaning(provider, status, &body).await.0, expected, "{provider} {status} {body}");
    }
}

fn openai(message: &str, kind: &str, param: Value, code: Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}

fn said(message: &str) -> Value {
    openai(message, "invalid_request_error", Value::Null, Value::Null)
}

fn anthropic(message: &str) -> Value {
    json!({"type": "error", "error": {"type": "invalid_request_error", "message": message}})
}

fn finished(finish_reason: Value, message: Value) -> Value {
    json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 0}})
}

#[tokio::test]
async fn a_request_that_is_too_large_names_both_sizes_where_the_provider_does() {
    let llama = |status: u16, message: &str| {
        json!({"error": {"code": status, "message": message, "type": "exceed_context_size_error",
            "n_prompt_tokens": 1_407, "n_ctx": 256}})
    };
    let old = "the request exceeds the available context size. try increasing the context size or enable context shift";
    for (provider, status, body, requested, limit) in [
        (
            "openai",
            400,
            llama(
                400,
                "request (1407 tokens) exceeds the available context size (256 tokens), try increasing it",
            ),
            Some(1_407),
            Some(256),
        ),
        ("openai", 400, llama(400, old), Some(1_407), Some(256)),
        ("openai", 500, llama(500, old), Some(1_407), Some(256)),
        ("openai", 200, llama(400, old), Some(1_407), Some(256)),
        // Ollama passes it on as a text.
        ("openai", 400, json!({"error": llama(400, old).to_string()}), Some(1_407), Some(256)),
        ("openai", 400, said("the input length exceeds the context length"), None, None),
        (
            "openai",
            400,
            openai(
                "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the messages, 10000 in the completion).",
                "invalid_request_error",
                json!("messages"),
                json!("context_length_exceeded"),
            ),
            Some(122_946),
            Some(16_384),
        ),
        (
            "openai",
            400,
            json!({"object": "error", "message": "This model's maximum context length is 8192 tokens. However, you requested 4096 output tokens and your prompt contains at least 4097 input tokens, for a total of at least 8193 tokens.", "type": "BadRequestError", "code": 400}),
            Some(8_193),
            Some(8_192),
        ),
        (
            "openai",
            429,
            openai(
                "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 342389.",
                "tokens",
                Value::Null,
                json!("rate_limit_exceeded"),
            ),
            Some(342_389),
            Some(30_000),
        ),
        (
            "anthropic",
            400,
            anthropic("prompt is too long: 214850 tokens > 200000 maximum"),
            Some(214_850),
            Some(200_000),
        ),
        (
            "anthropic",
            413,
            json!({"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}}),
            None,
            None,
        ),
        ("bedrock", 400, json!({"message": "Input is too long for requested model."}), None, None),
        (
            "bedrock",
            400,
            json!({"message": "Malformed input request: expected maxLength: 50000, actual: 52611, please reformat your input and try again."}),
            Some(52_611),
            Some(50_000),
        ),
    ] {
        let text = body.to_string();
        let server = Server::start(vec![vec![Step::Send(response(status, &[], text.as_bytes()))]]).await;
        let failure =
            adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await.unwrap_err();
        assert_eq!(failure.class, FailureClass::Rejected, "{provider} {text}");
        let oversize = failure.oversize.unwrap_or_else(|| panic!("{provider} {text}"));
        assert_eq!((oversize.requested, oversize.limit), (requested, limit), "{provider} {text}");
    }
}

#[tokio::test]
async fn only_what_is_too_large_has_a_size() {
    for (provider, status, body) in [
        ("openai", 400, said("Limit 5, Requested 3")),
        ("openai", 401, said("prompt is too long: 214850 tokens > 200000 maximum")),
        (
            "openai",
            429,
            said("This model's maximum context length is 16384 tokens. However, you requested 122946 tokens"),
        ),
        ("anthropic", 500, anthropic("x")),
    ] {
        let text = body.to_string();
        let server = Server::start(vec![vec![Step::Send(response(status, &[], text.as_bytes()))]]).await;
        let failure =
            adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await.unwrap_err();
        assert_eq!(failure.oversize, None, "{provider} {text}: {:?}", failure.class);
    }
}

#[tokio::test]
async fn keys_credit_and_access_under_any_status_are_the_accounts() {
    let google = |code: u16, status: &str, message: &str, reason: &str| {
        json!([{"error": {"code": code, "message": message, "status": status,
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}]}}])
    };
    check(
        "account",
        vec![
            ("openai", 400, google(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", "API_KEY_INVALID")),
            ("openai", 400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", "X")),
            ("openai", 403, google(403, "PERMISSION_DENIED", "Generative Language API has not been used", "SERVICE_DISABLED")),
            ("openai", 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details. limit: 0, model: g. Please retry in 20.04s.", "X")),
            ("openai", 429, json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota. Please retry in 20s.",
                "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}, {"retryDelay": "20s"}]}})),
            ("openai", 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: free_tier_requests, limit: 0\nPlease retry in 37.3s.", "X")),
            ("openai", 429, google(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted. Please go to AI Studio to manage your project and billing.", "X")),
            ("openai", 429, google(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its monthly spending cap.", "X")),
            // Limits of hours, days, weeks or months: Zhipu, in whatever language, Cloudflare, OpenRouter, Ark, Cohere
            ("openai", 429, json!({"error": {"code": "1310", "message": "Weekly/Monthly Limit Exhausted. Your limit will reset at 2026-07-14 07:49:08"}})),
            ("openai", 429, json!({"error": {"code": "1310", "message": "x"}})),
            ("anthropic", 429, json!({"type": "error", "error": {"type": "rate_limit_error", "code": "1310", "message": "[1310][Weekly/Monthly Limit Exhausted.]"}})),
            ("openai", 429, json!({"error": {"code": "1308", "message": "Usage limit reached for 5 hour. Your limit will reset at 2026-09-09 05:38:28"}})),
            ("openai", 429, json!({"errors": [{"message": "AiError: you have used up your daily free allocation of 10,000 neurons", "code": 4006}], "success": false})),
            ("openai", 429, json!({"error": {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day", "code": 429}})),
            ("openai", 429, json!({"error": {"code": "SetLimitExceeded", "message": "Your account [1] has reached the set inference limit for the [x] model, and the model service has been paused.", "type": "TooManyRequests"}})),
            ("openai", 429, json!({"message": "You are using a Trial key, which is limited to 1000 API calls / month."})),
            // LiteLLM's proxy, DashScope, DeepSeek, Moonshot, xAI
            ("openai", 400, openai("Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", "budget_exceeded", Value::Null, json!("400"))),
            ("openai", 400, openai("Access denied, please make sure your account is in good standing.", "Arrearage", Value::Null, json!("Arrearage"))),
            ("openai", 400, json!({"error": "Incorrect API key provided: xa***. You can obtain an API key from the console."})),
            ("openai", 402, said("Insufficient Balance")),
            ("openai", 429, openai("Your account is suspended, please check your plan and billing details", "exceeded_current_quota_error", Value::Null, Value::Null)),
            // OpenRouter and Azure
            ("openai", 402, json!({"error": {"code": 402, "message": "This request requires more credits, or fewer max_tokens."}})),
            ("openai", 401, json!({"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}})),
            ("openai", 200, json!({"error": {"code": "402", "message": "Insufficient credits"}})),
            ("openai", 200, json!({"error": {"message": "No auth credentials found", "code": 401}})),
            ("bedrock", 403, json!({"__type": "com.amazon.coral.service#ExpiredTokenException", "message": "The security token included in the request is expired"})),
            ("bedrock", 403, json!({"message": "Bearer Token has expired"})),
            ("bedrock", 400, json!({"message": "Operation not allowed"})),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_sent_with_every_job_and_refused_is_the_deployments() {
    check(
        "account",
        vec![
            // A member, by the body's own member for it.
            ("openai", 400, openai("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", "invalid_request_error", json!("max_tokens"), json!("unsupported_parameter"))),
            ("openai", 400, openai("max_tokens is too large: 32000. This model supports at most 16384 completion tokens", "invalid_request_error", json!("max_tokens"), json!("invalid_value"))),
            ("openai", 400, openai("No.", "invalid_request_error", json!("response_format"), Value::Null)),
            ("openai", 422, json!({"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "reasoning_effort"], "msg": "Extra inputs are not permitted"}]}, "type": "invalid_request_error"})),
            ("openai", 422, json!({"object": "error", "message": "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\",\"response_format\"],\"msg\":\"Extra inputs are not permitted\"}]}", "code": "1000"})),
            ("anthropic", 400, anthropic("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens")),
            ("anthropic", 400, anthropic("thinking.type: Input tag 'between_tools' found using 'type' does not match")),
            ("anthropic", 422, json!({"detail": [{"loc": ["body", "output_config"], "msg": "extra fields not permitted", "type": "value_error.extra"}]})),
            // In prose.
            ("openai", 400, said("Unrecognized request argument supplied: reasoning_effort")),
            ("openai", 400, said("This model does not support response format `json_schema`. See supported models")),
            ("openai", 400, json!({"error": "registry.ollama.ai/library/x does not support tools"})),
            ("openai", 400, json!([{"error": {"code": 400, "message": "Invalid JSON payload received. Unknown name \"strict\" at 'x': Cannot find field.", "status": "INVALID_ARGUMENT"}}])),
            ("bedrock", 400, json!({"message": "The maximum tokens you requested exceeds the model limit of 4096. Try again with a maximum tokens value that is lower than 4096."})),
            ("bedrock", 400, json!({"message": "The model returned the following errors: output_config.format: Extra inputs are not permitted"})),
            ("bedrock", 400, json!({"message": "This action doesn't support the model that you provided."})),
            ("bedrock", 400, json!({"message": "Invocation of model ID x with on-demand throughput isn’t supported."})),
            // The schema.
            ("openai", 400, openai("Invalid schema for response_format 'out': In context=(), 'additionalProperties' is required", "invalid_request_error", json!("response_format"), Value::Null)),
            ("openai", 400, json!({"error": {"code": 400, "message": "failed to parse grammar", "type": "invalid_request_error"}})),
            ("openai", 400, json!({"object": "error", "message": "The provided JSON schema contains features not supported by xgrammar.", "type": "BadRequestError", "code": 400})),
            ("anthropic", 400, anthropic("Schema is too complex for grammar compilation")),
            // The model.
            ("openai", 400, openai("The model `x` has been decommissioned and is no longer supported.", "invalid_request_error", Value::Null, json!("model_decommissioned"))),
            ("openai", 400, json!({"error": {"message": "litellm.BadRequestError: Invalid model name passed in model=x", "type": "None", "param": "None", "code": "400"}})),
            ("openai", 404, json!({"error": {"message": "No endpoints found that can handle the requested parameters.", "code": 404}})),
            ("openai", 400, said("Model Not Exist")),
            ("openai", 400, json!({"error": {"message": "healer-alpha is not a valid model ID", "code": 400}})),
            ("openai", 400, json!({"error": "No models loaded. Please load a model in the developer page or use the `lms load` command."})),
            ("openai", 400, json!({"error": {"code": 400, "message": "model is not loaded", "type": "invalid_request_error"}})),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_request_that_is_longer_than_a_limit_is_the_jobs() {
    check(
        "rejected",
        vec![
            ("openai", 429, said("Request too large for gpt-4.1 in organization org-x on tokens per min (TPM): Limit 30,000, Requested 34,239.")),
            ("openai", 413, said("Request too large for model on tokens per minute (TPM): Limit 6000, Requested 6843")),
            ("openai", 413, json!("<html>413 Request Entity Too Large</html>")),
            ("openai", 400, openai("Please reduce the length of the messages or completion.", "invalid_request_error", json!("messages"), json!("context_length_exceeded"))),
            ("openai", 400, openai("'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context length is 4096 tokens and your request has 3900 input tokens", "BadRequestError", json!("max_tokens"), json!(400))),
            ("openai", 400, json!({"error": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}})),
            ("openai", 400, json!({"error": {"message": "litellm.ContextWindowExceededError: AnthropicException - prompt is too long: 1200000 tokens > 1000000 maximum", "type": null, "code": "400"}})),
            ("anthropic", 400, anthropic("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000")),
            ("anthropic", 413, json!({"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}})),
            ("bedrock", 400, json!({"message": "Input is too long for requested model."})),
            // Xinference, TGI, Moonshot, Zhipu, OpenRouter
            ("openai", 500, json!({"detail": "[address=0.0.0.0:43769, pid=1065] The decoder prompt (length 66501) is longer than the maximum model length of 65536."})),
            ("openai", 400, json!({"object": "error", "message": "The decoder prompt (length 66501) is longer than the maximum model length of 65536.", "type": "BadRequestError", "code": 400})),
            ("openai", 422, json!({"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 1511", "error_type": "validation"})),
            ("openai", 400, said("Invalid request: Your request exceeded model token limit: 131072")),
            ("openai", 400, json!({"error": {"code": "1261", "message": "Prompt exceeds max length"}})),
            ("openai", 400, json!({"error": {"code": 400, "message": "Provider returned error", "metadata": {"error_type": "string_too_long"}}})),
        ],
    )
    .await;
    check(
        "capacity",
        vec![
            // OpenRouter's credit that comes back with the calls that are open.
            ("openai", 402, json!({"error": {"code": 402, "message": "This request would exceed your available credits given your current in-flight requests.", "metadata": {"reason": "in_flight_budget_exhausted"}}})),
            ("openai", 429, said("Rate limit reached for gpt-4.1 on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 2s.")),
            ("anthropic", 429, json!({"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your organization's rate limit of 40,000 input tokens per minute; reduce the length of the prompt or try again later."}})),
            ("openai", 429, json!([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your current quota, please check your plan and billing details. Please retry in 36.8s.", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"}]}}])),
            ("openai", 498, said("Flex tier capacity exceeded")),
            // Who has no capacity has judged no text, whatever is named.
            ("openai", 503, said("The content filter is overloaded. Try again later.")),
            ("openai", 429, said("Rate limit reached for the content policy check. Please try again in 2s.")),
            ("openai", 503, json!({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}})),
            ("openai", 500, json!({"error": {"message": "{\"error\":{\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\"}}", "code": 429, "status": "Too Many Requests"}})),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_was_filtered_is_refused_in_whatever_status_and_shape() {
    check(
        "refused",
        vec![
            ("openai", 400, openai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "x", json!("prompt"), json!("content_filter"))),
            ("openai", 400, json!({"error": {"message": "x", "type": null, "code": "400", "provider_specific_fields": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}}})),
            ("openai", 400, json!({"error": {"message": "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - x", "code": "400"}})),
            ("openai", 403, json!({"error": {"code": 403, "message": "Request blocked: prompt injection patterns detected", "metadata": {"patterns": ["x"]}}})),
            ("anthropic", 403, json!({"type": "error", "error": {"type": "permission_error", "message": "Request blocked: prompt injection patterns detected"}})),
            ("openai", 400, openai("Content Exists Risk", "invalid_request_error", Value::Null, json!("invalid_request_error"))),
            ("openai", 400, json!({"error": {"code": "data_inspection_failed", "message": "Input data may contain inappropriate content."}})),
            ("openai", 400, openai("The request was rejected because it was considered high risk", "content_filter", Value::Null, Value::Null)),
            ("openai", 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_request_error", Value::Null, json!("invalid_prompt"))),
            ("openai", 403, json!({"error": {"code": 403, "message": "x requires moderation on y. Your input was flagged for \"violence\".", "metadata": {"reasons": ["violence"], "flagged_input": "..."}}})),
            ("openai", 403, json!({"code": "permission-denied", "error": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"})),
            ("openai", 500, json!({"error": {"message": "x", "code": "content_filter"}})),
            ("openai", 200, json!({"error": {"message": "x", "code": "content_policy_violation"}})),
            ("anthropic", 400, anthropic("Output blocked by content filtering policy")),
            ("openai", 200, finished(json!("content_filter"), Value::Null)),
            ("openai", 200, finished(json!("BLOCKLIST"), json!({"content": null}))),
            ("openai", 200, finished(json!("SPII"), json!({"content": ""}))),
            ("openai", 200, finished(json!("IMAGE_SAFETY"), json!({}))),
            ("openai", 200, finished(json!("guardrail_intervened"), json!({"content": "No."}))),
            ("openai", 200, finished(json!("refusal"), json!({"content": "No."}))),
            ("openai", 200, json!({"choices": [], "promptFeedback": {"blockReason": "SAFETY"}})),
            ("openai", 200, json!({"choices": null, "prompt_feedback": {"block_reason": "OTHER"}})),
            ("bedrock", 200, json!({"output": {"message": {"content": [{"text": "No."}]}}, "stopReason": "content_filtered", "usage": {}})),
        ],
    )
    .await;
}

#[tokio::test]
async fn an_error_inside_a_success_is_what_it_says() {
    check(
        "capacity",
        vec![
            ("openai", 200, json!({"error": {"message": "Rate limit exceeded", "code": 429}})),
            ("openai", 200, json!({"error": {"message": "Provider returned error", "code": "429", "metadata": {"raw": "upstream"}}})),
            ("openai", 200, json!([{"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}])),
            ("openai", 200, json!({"error": "Too many requests, please slow down"})),
            ("openai", 200, json!({"message": "You exceeded your current rate limit", "status": "429"})),
            ("openai", 200, json!({"code": 50505, "message": "Model service overloaded. Please try again later.", "data": null})),
            ("openai", 200, json!({"id": "x", "choices": null, "base_resp": {"status_code": 1002, "status_msg": "rate limit"}})),
            ("openai", 200, json!({"choices": [{"message": {"content": ""}, "finish_reason": "error", "error": {"code": 429, "message": "x"}}]})),
            ("openai", 200, json!({"errors": [{"code": 3040, "message": "Capacity temporarily exceeded, rate limit"}], "success": false})),
            ("openai", 200, json!({"id": "", "choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}})),
            ("anthropic", 200, json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
            ("anthropic", 200, json!({"id": null, "content": null, "usage": null})),
            ("bedrock", 200, json!({"__type": "com.amazon.coral.service#ThrottlingException", "message": "Too many requests"})),
        ],
    )
    .await;
    check(
        "transient",
        vec![
            ("openai", 200, json!({"error": {"message": "upstream broke", "code": 502}})),
            ("openai", 200, json!({"detail": "Internal error"})),
            // A part of the answer was written, and is paid.
            ("openai", 200, json!({"choices": [{"message": {"content": "{"}, "finish_reason": "error", "error": {"code": 429, "message": "x"}}]})),
            ("openai", 200, json!({"choices": [{"message": {"content": ""}, "error": {"code": 429, "message": "x"}}], "usage": {"completion_tokens": 500}})),
            ("openai", 200, json!({"choices": [{"message": {"content": "partial"}, "finish_reason": "error", "error": {"code": 502, "message": "Provider disconnected mid-stream", "metadata": {"error_type": "provider_unavailable"}}}]})),
            ("openai", 502, json!({"error": {"code": 502, "message": "Provider returned error", "metadata": {"error_type": "provider_unavailable"}}})),
        ],
    )
    .await;
    // No model is at this address, or a firewall stands before it: what becomes of others tells.
    check(
        "unclear",
        vec![
            ("openai", 200, json!({"status": "ok"})),
            ("openai", 200, json!({"models": []})),
            ("openai", 200, json!("<!DOCTYPE html><title>One API</title>")),
            ("anthropic", 200, json!({"status": "ok"})),
            ("bedrock", 200, json!({})),
        ],
    )
    .await;
    // An address that lacks its `/v1`.
    check(
        "account",
        vec![(
            "openai",
            200,
            json!({"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}),
        )],
    )
    .await;
    // An answer that speaks of errors is an answer, and so is one beside an error that says nothing.
    let beside = |error: Value| json!({"error": error, "choices": [{"message": {"content": "{}"}, "finish_reason": "stop", "error": error}], "usage": {"prompt_tokens": 3, "completion_tokens": 3}});
    check(
        "answer",
        vec![
            ("openai", 200, finished(json!("stop"), json!({"content": "{\"error\":{\"code\":429}}"}))),
            ("openai", 200, beside(json!({}))),
            ("openai", 200, beside(json!(0))),
            ("openai", 200, beside(json!({"code": 0, "message": ""}))),
            ("openai", 200, beside(json!({"code": null, "message": null, "type": null}))),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_the_providers_grammar_did_not_accept_is_an_answer() {
    let failed = |code: &str, text: Value| json!({"error": {"message": "Failed. See 'failed_generation'.", "type": "invalid_request_error", "code": code, "failed_generation": text}});
    check(
        "answer",
        vec![
            ("openai", 400, failed("json_validate_failed", json!("{\"category\": "))),
            ("openai", 400, failed("tool_use_failed", json!("<function=x>{}</function>"))),
            ("openai", 200, failed("json_validate_failed", json!("{"))),
            // A customer's words within the model's.
            (
                "openai",
                400,
                failed(
                    "json_validate_failed",
                    json!("{\"summary\": \"It said: max completion tokens reached\""),
                ),
            ),
        ],
    )
    .await;
    check(
        "unusable",
        vec![
            ("openai", 400, failed("json_validate_failed", json!(""))),
            ("openai", 400, failed("output_parse_failed", Value::Null)),
            ("openai", 500, json!({"error": {"code": 500, "message": "The model produced output that does not match the expected peg-native format", "type": "server_error"}})),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_refusal_in_words_that_nobody_knows_is_left_to_what_becomes_of_others() {
    check(
        "unclear",
        vec![
            ("openai", 400, said("The flux is not compensated.")),
            (
                "openai",
                400,
                openai("Text is empty", "invalid_request_error", json!("messages"), json!("invalid_value")),
            ),
            (
                "openai",
                422,
                json!({"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "invalid"}]}),
            ),
            ("openai", 403, json!({"message": "Forbidden"})),
            ("openai", 403, json!("<html>Access denied</html>")),
            ("anthropic", 403, json!("<!DOCTYPE html><title>Attention Required! | Cloudflare</title>")),
            ("openai", 418, json!({})),
            ("openai", 451, json!("")),
            ("anthropic", 400, anthropic("messages.0.content: at least one is required")),
            ("bedrock", 400, json!({"message": "The model returned the following errors: x"})),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_key_is_read_again_after_whatever_may_be_about_it() {
    for (status, body, reads_again) in [
        (403, json!({"Message": "Bearer Token has expired"}), 1),
        (400, json!({"error": {"message": "API key expired"}}), 1),
        (403, json!({"message": "Forbidden"}), 1),
        (429, said("Rate limit reached"), 0),
        (500, said("x"), 0),
        (400, openai("too long", "x", Value::Null, json!("context_length_exceeded")), 0),
    ] {
        for provider in ["anthropic", "openai", "bedrock"] {
            assert_eq!(meaning(provider, status, &body).await.1, reads_again, "{provider} {status} {body}");
        }
    }
}

#[tokio::test]
async fn an_answer_with_many_headers_is_an_answer() {
    let headers: Vec<(String, String)> =
        (0..300).map(|n| (format!("llm_provider-x-{n}"), "v".repeat(60))).collect();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let body = finished(json!("stop"), json!({"content": "{}"})).to_string();
    let server = Server::start(vec![vec![Step::Send(response(200, &headers, body.as_bytes()))]]).await;
    let reply = adapter("openai", &server.url(), Keys::working()).call(&request(5_000)).await.unwrap();
    assert_eq!(reply.answer, Answer::Text("{}".to_owned()));
}
