//! What providers and those who speak like them were seen to reply, by their documentation and by reports of users: one
//! reply a row, and what it must mean.

use nightshift_core::model::{Answer, TokenLimit};
use serde_json::{Value, json};

use crate::support::{Keys, Server, Step, adapter, request, response, word};

type Row = (&'static str, &'static str, u16, Value);

async fn meaning(provider: &str, status: u16, body: &Value) -> &'static str {
    let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
    let server = Server::start(vec![vec![Step::Send(response(status, &[], text.as_bytes()))]]).await;
    match adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await {
        Ok(reply) => match reply.answer {
            Answer::Text(text) if text == "{}" || text == r#"{"a":1}"# => "answer",
            Answer::Text(_) => "another answer",
            Answer::Refused { .. } => "refused",
            Answer::Truncated { by: TokenLimit::Answer, .. } => "cut off by the answer's limit",
            Answer::Truncated { by: TokenLimit::Context, .. } => "cut off by the context",
            Answer::Unusable { .. } => "unusable",
        },
        Err(failure) => word(failure.class),
    }
}

async fn check(expected: &str, rows: Vec<Row>) {
    for (name, provider, status, body) in rows {
        assert_eq!(meaning(provider, status, &body).await, expected, "{name}: {body}");
    }
}

fn fin(reason: Value, message: Value) -> Value {
    json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})
}

const SUBSCRIPTION: &str =
    "this model requires a subscription, upgrade for access: https://ollama.com/upgrade (ref: x)";
const BLOCKED: &str = "Your resource has been temporarily blocked because we detected behavior that may violate our content policy. For more details on Azure OpenAI service content policy, please visit https://aka.ms/aoaicodeofconduct";

#[tokio::test]
async fn what_shuts_the_account_out_is_the_accounts_whoever_says_it() {
    let rows = vec![
        (
            "ollama 403 /v1",
            "openai",
            403,
            json!({"error": {"message": SUBSCRIPTION, "type": "api_error", "param": null, "code": null}}),
        ),
        (
            "ollama 410 /v1",
            "openai",
            410,
            json!({"error": {"message": "model is no longer available", "type": "api_error", "param": null, "code": null}}),
        ),
        ("ollama 200 error", "openai", 200, json!({"error": SUBSCRIPTION})),
        (
            "minimax 1008",
            "openai",
            200,
            json!({"id": "x", "choices": null, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        ),
        (
            "minimax 1004",
            "openai",
            200,
            json!({"id": "x", "choices": null, "base_resp": {"status_code": 1004, "status_msg": "login fail: Please carry the API secret key in the 'Authorization' field of the request header"}}),
        ),
        (
            "minimax 2049",
            "openai",
            200,
            json!({"id": "x", "choices": null, "base_resp": {"status_code": 2049, "status_msg": "invalid api key"}}),
        ),
        (
            "200 error credit",
            "openai",
            200,
            json!({"error": {"message": "Insufficient credits. Add more.", "type": "x"}}),
        ),
        (
            "200 error key",
            "openai",
            200,
            json!({"error": {"message": "API key not valid. Please pass a valid API key.", "type": "invalid_request_error"}}),
        ),
        (
            "200 error model",
            "openai",
            200,
            json!({"error": {"message": "model not found", "type": "invalid_request_error"}}),
        ),
        (
            "llama 501",
            "openai",
            501,
            json!({"error": {"code": 501, "message": "This server does not support chat completions.", "type": "not_supported_error"}}),
        ),
        (
            "openai 400 unsupported value reasoning",
            "openai",
            400,
            json!({"error": {"message": "Unsupported value: 'reasoning_effort' does not support 'minimal' with this model.", "type": "invalid_request_error", "param": "reasoning_effort", "code": "unsupported_value"}}),
        ),
        (
            "anthropic 400 workspace spend",
            "anthropic",
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "You have reached your specified workspace API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."}}),
        ),
        (
            "bedrock 400 tpd",
            "bedrock",
            400,
            json!({"__type": "ThrottlingException", "message": "Too many tokens per day, please wait before trying again."}),
        ),
        (
            "gemini 429 perday",
            "openai",
            429,
            json!([{"error": {"code": 429, "message": "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_content_free_tier_requests, limit: 20, model: gemini-2.5-flash Please retry in 33.1s.", "status": "RESOURCE_EXHAUSTED", "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaMetric": "m", "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "20"}]}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "33s"}]}}]),
        ),
        (
            "gemini 403 leaked",
            "openai",
            403,
            json!([{"error": {"code": 403, "message": "Your API key was reported as leaked. Please use another API key.", "status": "PERMISSION_DENIED"}}]),
        ),
        (
            "gemini 403 suspended",
            "openai",
            403,
            json!([{"error": {"code": 403, "message": "Permission denied: Consumer 'api_key:x' has been suspended.", "status": "PERMISSION_DENIED", "details": [{"reason": "CONSUMER_SUSPENDED"}]}}]),
        ),
        (
            "hf 402",
            "openai",
            402,
            json!({"error": "You have exceeded your monthly included credits for Inference Providers."}),
        ),
        (
            "together 400 model",
            "openai",
            400,
            json!({"error": {"message": "Unable to access non-serverless model x. Please visit y to create and start a new dedicated endpoint for the model.", "type": "invalid_request_error", "param": null, "code": "model_not_available"}}),
        ),
        (
            "xai 403 team credits",
            "openai",
            403,
            json!({"code": "The caller does not have permission to execute the specified operation", "error": "Your newly created team doesn't have any credits or licenses yet. You can purchase those on https://console.x.ai"}),
        ),
        (
            "xai 429 spend",
            "openai",
            429,
            json!({"code": "Some resource has been exhausted", "error": "Your team x has either used all available credits or reached its monthly spending limit. To continue making API requests, please purchase more credits or raise your spending limit."}),
        ),
        (
            "zhipu 429 1113",
            "openai",
            429,
            json!({"error": {"code": "1113", "message": "Insufficient balance or no resource package. Please recharge."}}),
        ),
        (
            "fireworks 412 suspended",
            "openai",
            412,
            json!({"error": {"object": "error", "type": "invalid_request_error", "code": "PRECONDITION_FAILED", "message": "Account x is suspended, possibly due to reaching the monthly spending limit or failure to pay past invoices."}}),
        ),
        (
            "vllm 400 structured",
            "openai",
            400,
            json!({"error": {"message": "Grammar error: Unimplemented keys: [\"format\"]", "type": "BadRequestError", "param": null, "code": 400}}),
        ),
        (
            "llama.cpp 400 tool param json",
            "openai",
            400,
            json!({"error": {"code": 400, "message": "JSON schema conversion failed:\nUnrecognized schema: {\"x\":1}", "type": "invalid_request_error"}}),
        ),
        (
            "vllm tool-choice",
            "openai",
            400,
            json!({"object": "error", "message": "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set", "type": "BadRequestError", "param": null, "code": 400}),
        ),
        ("azure 403 blocked", "openai", 403, json!({"error": {"message": BLOCKED}})),
        (
            "azure 403 blocked, code",
            "openai",
            403,
            json!({"error": {"code": "Forbidden", "message": BLOCKED}}),
        ),
        (
            "azure 403 unusual",
            "openai",
            403,
            json!({"error": {"code": "Forbidden", "message": "Your resource has been temporarily blocked because we detected unusual behavior."}}),
        ),
        (
            "openai 429 access_terminated",
            "openai",
            429,
            json!({"error": {"message": "Your access was terminated due to violation of our policies, please check your email for more information. If you believe this is in error and would like to appeal, please contact support@openai.com.", "type": "access_terminated", "param": null, "code": null}}),
        ),
        (
            "openrouter azure 403",
            "openai",
            403,
            json!({"error": {"message": "Provider returned error", "code": 403, "metadata": {"raw": json!({"error": {"code": "Forbidden", "message": BLOCKED}}).to_string(), "provider_name": "Azure"}}}),
        ),
        (
            "openai org banned",
            "openai",
            400,
            json!({"error": {"message": "Your organization has been restricted for violating our usage policy. Contact support.", "type": "invalid_request_error", "code": "organization_restricted"}}),
        ),
        (
            "user_blocked",
            "openai",
            403,
            json!({"error": {"message": "Your access has been restricted due to repeated policy violations.", "type": "user_blocked"}}),
        ),
    ];
    check("account", rows).await;
}

#[tokio::test]
async fn what_was_filtered_is_refused_by_whatever_name() {
    let rows = vec![
        (
            "minimax 1026",
            "openai",
            200,
            json!({"id": "x", "choices": null, "input_sensitive": true, "base_resp": {"status_code": 1026, "status_msg": "input new_sensitive"}}),
        ),
        (
            "minimax 1027",
            "openai",
            200,
            json!({"id": "x", "choices": null, "output_sensitive": true, "base_resp": {"status_code": 1027, "status_msg": "output new_sensitive"}}),
        ),
        (
            "openai 400 invalid_prompt",
            "openai",
            400,
            json!({"error": {"message": "Invalid prompt: we've limited access to this content for safety reasons.", "type": "invalid_request_error", "param": null, "code": "invalid_prompt"}}),
        ),
        (
            "openai 400 cyber",
            "openai",
            400,
            json!({"error": {"message": "This content was flagged for possible cybersecurity risk.", "type": "invalid_request_error", "param": null, "code": "cyber_policy_violation"}}),
        ),
        (
            "anthropic stop_details string",
            "anthropic",
            200,
            json!({"id": "m", "content": [], "stop_reason": "refusal", "stop_details": "x", "usage": {"input_tokens": 1, "output_tokens": 2}}),
        ),
        (
            "anthropic refusal empty",
            "anthropic",
            200,
            json!({"id": "m", "content": [], "stop_reason": "refusal", "stop_details": {"type": "refusal", "category": null}, "usage": {"input_tokens": 1, "output_tokens": 0}}),
        ),
        (
            "zhipu 400 1301",
            "openai",
            400,
            json!({"error": {"code": "1301", "message": "System detected potentially unsafe or sensitive content in input or generation."}}),
        ),
        (
            "openai bio_policy",
            "openai",
            400,
            json!({"error": {"message": "This content was flagged for possible biological risk.", "type": "invalid_request_error", "param": null, "code": "bio_policy"}}),
        ),
        (
            "openai cyber_policy",
            "openai",
            400,
            json!({"error": {"message": "This content was flagged for possible cybersecurity risk.", "type": "invalid_request_error", "param": null, "code": "cyber_policy"}}),
        ),
        (
            "openai invalid_prompt",
            "openai",
            400,
            json!({"error": {"message": "Invalid prompt: we've limited access to this content for safety reasons. This type of information may be used to benefit or to harm people.", "type": "invalid_request_error", "param": null, "code": "invalid_prompt"}}),
        ),
        (
            "gemini MODEL_ARMOR",
            "openai",
            200,
            fin(json!("content_filter: MODEL_ARMOR"), json!({"role": "assistant"})),
        ),
    ];
    check("refused", rows).await;
}

#[tokio::test]
async fn what_is_too_long_is_the_jobs() {
    let rows = vec![
        (
            "200 error too long",
            "openai",
            200,
            json!({"error": {"message": "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens", "type": "invalid_request_error"}}),
        ),
        (
            "hf tgi 422",
            "openai",
            422,
            json!({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 3000 `inputs` tokens and 500 `max_new_tokens`", "error_type": "validation"}),
        ),
        (
            "sglang 400 len",
            "openai",
            400,
            json!({"object": "error", "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).", "type": "BadRequestError", "param": null, "code": 400}),
        ),
    ];
    check("rejected", rows).await;
}

#[tokio::test]
async fn what_waiting_helps_is_waited_for() {
    let rows = vec![
        (
            "minimax 1039",
            "openai",
            200,
            json!({"id": "x", "choices": null, "base_resp": {"status_code": 1039, "status_msg": "token limit"}}),
        ),
        (
            "azure 429",
            "openai",
            429,
            json!({"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 have exceeded token rate limit of your current OpenAI S0 pricing tier. Please retry after 8 seconds. Please contact Azure support service if you would like to further increase the default rate limit."}}),
        ),
        (
            "azure 429 quota",
            "openai",
            429,
            json!({"error": {"code": "RateLimitReached", "message": "Your requests to gpt-4o for gpt-4o in West US have exceeded the token rate limit for your current AIServices S0 pricing tier. This request was for ChatCompletions_Create. Please retry after 60 seconds. To increase your default rate limit, visit x"}}),
        ),
        (
            "openai 429 slow_down 503",
            "openai",
            503,
            json!({"error": {"message": "Slow Down", "type": "x", "code": "slow_down"}}),
        ),
        (
            "anthropic 429 long ctx",
            "anthropic",
            429,
            json!({"type": "error", "error": {"type": "rate_limit_error", "message": "Extra usage is required for long context requests."}}),
        ),
        (
            "bedrock quota exceeded 400",
            "bedrock",
            400,
            json!({"__type": "ServiceQuotaExceededException", "message": "Your account has exceeded the quota"}),
        ),
        ("bedrock 503", "bedrock", 503, json!({"message": "Bedrock is unable to process your request."})),
        ("hf tgi 429", "openai", 429, json!({"error": "Model is overloaded", "error_type": "overloaded"})),
        ("cloudflare 530", "openai", 530, json!("error code: 1033")),
    ];
    check("capacity", rows).await;
}

#[tokio::test]
async fn what_broke_down_may_have_been_billed_and_is_called_again() {
    let rows = vec![
        (
            "deepseek insufficient_system_resource",
            "openai",
            200,
            fin(json!("insufficient_system_resource"), json!({"content": "{\"a\""})),
        ),
        ("mistral error", "openai", 200, fin(json!("error"), json!({"content": ""}))),
        ("zhipu network_error", "openai", 200, fin(json!("network_error"), json!({"content": ""}))),
        ("vllm abort", "openai", 200, fin(json!("abort"), json!({"content": ""}))),
        (
            "azure 408",
            "openai",
            408,
            json!({"error": {"code": "Timeout", "message": "The operation was timeout."}}),
        ),
        ("azure 424", "openai", 424, json!({"error": {"code": "424", "message": "Failed Dependency"}})),
        (
            "openrouter 200 no content 'error' reason",
            "openai",
            200,
            json!({"id": "g", "choices": [{"finish_reason": "error", "native_finish_reason": "MALFORMED_FUNCTION_CALL", "message": {"role": "assistant", "content": ""}}], "usage": {"prompt_tokens": 7, "completion_tokens": 0}}),
        ),
        (
            "hf tgi 500 incomplete",
            "openai",
            500,
            json!({"error": "Incomplete generation", "error_type": "incomplete_generation"}),
        ),
        (
            "hf tgi 424",
            "openai",
            424,
            json!({"error": "Request failed during generation: Server error: CUDA out of memory", "error_type": "generation"}),
        ),
        ("cohere 200 error finish", "openai", 200, fin(json!("ERROR"), json!({"content": ""}))),
        (
            "vllm 500 EngineDead",
            "openai",
            500,
            json!({"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}),
        ),
    ];
    check("transient", rows).await;
}

#[tokio::test]
async fn a_refusal_that_says_nothing_is_left_to_what_becomes_of_others() {
    let rows = vec![
        (
            "gateway 400 server_error",
            "openai",
            400,
            json!({"error": {"message": "Provider said: bad request", "type": "api_error", "code": "provider_response_error"}}),
        ),
        (
            "200 error invalid_request",
            "openai",
            200,
            json!({"error": {"message": "messages[0] is bad", "type": "invalid_request_error"}}),
        ),
        (
            "anthropic 403 api_error",
            "anthropic",
            403,
            json!({"type": "error", "error": {"type": "api_error", "message": "Request not allowed"}}),
        ),
    ];
    check("unclear", rows).await;
}

#[tokio::test]
async fn an_answer_in_another_shape_is_an_answer() {
    let rows = vec![
        (
            "tool args object",
            "openai",
            200,
            fin(
                json!("tool_calls"),
                json!({"content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "out", "arguments": {"a": 1}}}]}),
            ),
        ),
        ("STOP", "openai", 200, fin(json!("STOP"), json!({"content": "{}"}))),
        ("refusal object", "openai", 200, fin(json!("stop"), json!({"content": "{}", "refusal": {}}))),
        ("refusal false", "openai", 200, fin(json!("stop"), json!({"content": "{}", "refusal": false}))),
        ("finish_reason object/int", "openai", 200, fin(json!(0), json!({"content": "{}"}))),
        (
            "error {} beside",
            "openai",
            200,
            json!({"error": {}, "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}),
        ),
        (
            "error false beside",
            "openai",
            200,
            json!({"error": false, "choices": [{"message": {"content": "{}"}, "finish_reason": "stop"}]}),
        ),
        (
            "parts thinking text",
            "openai",
            200,
            fin(
                json!("stop"),
                json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm {\"a\":2}"}]}, {"type": "text", "text": "{\"a\":1}"}]}),
            ),
        ),
        (
            "parts reasoning with text",
            "openai",
            200,
            fin(
                json!("stop"),
                json!({"content": [{"type": "reasoning", "text": "I think {\"a\":2}"}, {"type": "text", "text": "{\"a\":1}"}]}),
            ),
        ),
        (
            "anthropic end_turn+tool_use",
            "anthropic",
            200,
            json!({"id": "m", "content": [{"type": "text", "text": "So:"}, {"type": "tool_use", "id": "t", "name": "out", "input": {"a": 1}}], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 2}}),
        ),
        (
            "bedrock reasoning",
            "bedrock",
            200,
            json!({"output": {"message": {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "x"}}}, {"text": "{}"}]}}, "stopReason": "end_turn", "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}}),
        ),
        (
            "groq 400 tool_use_failed",
            "openai",
            400,
            json!({"error": {"message": "x", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "{\"a\":1}"}}),
        ),
    ];
    check("answer", rows).await;
}

#[tokio::test]
async fn what_the_context_cut_off_says_so() {
    let rows = vec![(
        "mistral model_length",
        "openai",
        200,
        fin(json!("model_length"), json!({"content": "{\"a\""})),
    )];
    check("cut off by the context", rows).await;
}

fn thought_to_the_end(by: &str) -> Value {
    let message = format!(
        "{by}Could not finish the message because max_tokens or model output limit was reached. Please try again with higher max_tokens."
    );
    json!({"error": {"message": message, "type": "invalid_request_error", "param": null, "code": null}})
}

#[tokio::test]
async fn what_the_limit_of_the_answer_cut_off_says_so() {
    let rows = vec![
        (
            "tool args + length",
            "openai",
            200,
            fin(
                json!("length"),
                json!({"content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "out", "arguments": "{\"a\""}}]}),
            ),
        ),
        ("MAX_TOKENS", "openai", 200, fin(json!("MAX_TOKENS"), json!({"content": "{"}))),
        (
            "anthropic max_tokens only thinking",
            "anthropic",
            200,
            json!({"id": "m", "content": [{"type": "thinking", "thinking": "x", "signature": "s"}], "stop_reason": "max_tokens", "usage": {"input_tokens": 1, "output_tokens": 2}}),
        ),
        // It thought until the limit, and said nothing.
        ("openai 400", "openai", 400, thought_to_the_end("")),
        (
            "azure behind a gateway",
            "openai",
            400,
            thought_to_the_end("400 Bad Request: azure-openai error: "),
        ),
        ("the same under a 200", "openai", 200, thought_to_the_end("")),
        (
            "groq 400 json_validate_failed",
            "openai",
            400,
            json!({"error": {"message": "Failed to generate JSON.", "type": "invalid_request_error", "code": "json_validate_failed", "failed_generation": "max completion tokens reached before generating a valid document"}}),
        ),
        (
            "openrouter",
            "openai",
            400,
            json!({"error": {"code": 400, "message": "Provider returned error", "metadata": {"error_type": "max_tokens_exceeded"}}}),
        ),
        (
            "litellm",
            "openai",
            500,
            json!({"error": {"message": "litellm.APIConnectionError: APIConnectionError: OpenAIException - x unable to complete request: max_output_tokens", "type": null, "param": null, "code": "500"}}),
        ),
        (
            "groq, said in the message",
            "openai",
            400,
            json!({"error": {"message": "Failed to generate JSON: max completion tokens reached before generating a valid document.", "type": "invalid_request_error", "code": "json_validate_failed", "failed_generation": ""}}),
        ),
    ];
    check("cut off by the answer's limit", rows).await;
}

#[tokio::test]
async fn what_is_no_answer_is_asked_again() {
    let rows = vec![
        (
            "lone surrogate",
            "openai",
            200,
            Value::from(
                r#"{"choices":[{"message":{"content":"{\"a\":\"\ud83d\"}"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":3}}"#,
            ),
        ),
        (
            "gemini malformed",
            "openai",
            200,
            fin(json!("function_call_filter: MALFORMED_FUNCTION_CALL"), json!({"role": "assistant"})),
        ),
        (
            "gemini unexpected tool call",
            "openai",
            200,
            fin(json!("content_filter: UNEXPECTED_TOOL_CALL"), json!({"role": "assistant"})),
        ),
        ("gemini LANGUAGE", "openai", 200, fin(json!("LANGUAGE"), json!({"role": "assistant"}))),
    ];
    check("unusable", rows).await;
}
