//! The words by which providers, and the gateways in front of them, say what an error is.
//!
//! Names are compared in lower case with `_` for white space and hyphens. Phrases are looked for in a message in lower
//! case, and are whole phrases: a message may quote the customer, and customers write about billing.
//!
//! A list of words is never complete. What none of them fits is `FailureClass::Unclear`, and is told apart by what becomes
//! of other jobs.
//!
//! Sources, by page title: "Errors" (Claude API docs); "Error codes" (OpenAI API docs); "Content filtering" (Azure OpenAI
//! in Foundry Models); "Converse", errors (Amazon Bedrock API Reference); "Troubleshooting guide" and "Rate limits"
//! (Gemini API docs); "Error codes" (Groq, DeepSeek, Together and Moonshot docs); "Errors and debugging" (OpenRouter
//! docs); "Exception mapping" (LiteLLM docs); and what users reported of each against other clients.

/// Errors that say by their name that the account, its credit or the model is the cause.
pub const ACCOUNT_NAMES: [&str; 45] = [
    // Anthropic
    "authentication_error",
    "billing_error",
    "permission_error",
    "enforced_spend_limit_reached",
    // OpenAI and those who speak like it
    "invalid_api_key",
    "insufficient_quota",
    "credit_balance_exhausted",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "access_terminated",
    "user_blocked",
    "model_not_found",
    "model_decommissioned",
    "unsupported_country_region_territory",
    "request_forbidden",
    "insufficient_permissions",
    "deploymentnotfound",
    // LiteLLM, Moonshot, DashScope, Groq, Together
    "budget_exceeded",
    "exceeded_current_quota_error",
    "arrearage",
    "invalid_authentication_error",
    "incorrect_api_key_error",
    "organization_restricted",
    "model_not_available",
    // Google
    "api_key_invalid",
    "api_key_service_blocked",
    "unauthenticated",
    "billing_disabled",
    "service_disabled",
    "consumer_suspended",
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
    "missingauthenticationtoken",
    "expiredtokenexception",
    "expiredtoken",
    "optinrequired",
    "resourcenotfoundexception",
];

/// What is said when the key, the account or its money is the cause, under a status that says something else.
pub const ACCOUNT_PHRASES: [&str; 49] = [
    // Money
    "credit balance is too low",
    "api usage limits",
    "monthly usage limit",
    "weekly usage limit",
    "session usage limit",
    "hourly usage limit",
    "upgrade for higher limits",
    "monthly limit exhausted",
    "usage limit reached for",
    "daily free allocation",
    "free-models-per-day",
    "credits are depleted",
    "monthly spending cap",
    "set inference limit",
    "api calls / month",
    "exceeded your current quota",
    "check your plan and billing",
    "spend limit",
    "spending limit",
    "no credits left",
    "insufficient credits",
    "insufficient balance",
    "insufficient_quota",
    "budget has been exceeded",
    "doesn't have any credits",
    "requires a subscription",
    // The account
    "organization has been disabled",
    "account is not active",
    "account is suspended",
    "account has been suspended",
    "account has been deactivated",
    "organization must be verified",
    "operation not allowed",
    "not authorized to invoke this api",
    "user location is not supported",
    "not available in your country",
    "unsupported countries",
    // The key
    "api key not valid",
    "api key is not valid",
    "invalid api key",
    "invalid api-key",
    "api key is invalid",
    "incorrect api key",
    "api key expired",
    "api key has expired",
    "token has expired",
    "token is expired",
    "reported as leaked",
    "authentication fails",
];

/// Zhipu's codes for a plan that is used up for hours, a week or a month, or has ended ("Error Codes", Z.ai docs); it answers
/// with a 429 and words in the account's language.
pub const SPENT_CODES: [&str; 5] = ["1113", "1304", "1308", "1309", "1310"];

/// OpenRouter: money that is held for calls under way ("Limits", OpenRouter docs).
pub const IN_FLIGHT_NAMES: [&str; 1] = ["in_flight_budget_exhausted"];

/// OpenRouter: the provider failed while it answered ("Errors and debugging", OpenRouter docs).
pub const BROKE_OFF_NAMES: [&str; 1] = ["provider_unavailable"];

/// What is said when the account was shut out for what it had sent before. It speaks of policies like a refusal, and is
/// none: every job meets it.
pub const SHUT_OUT_PHRASES: [&str; 4] = [
    "resource has been temporarily blocked",
    "access was terminated",
    "access has been restricted",
    "organization has been restricted",
];

/// A quota that is used up, rather than the money: a wait helps where the error says how long it is.
pub const QUOTA_PHRASES: [&str; 2] = ["exceeded your current quota", "check your plan and billing"];

/// The member of the request that an error blames, where it is one that we choose: no job's doing.
pub const OUR_MEMBERS: [&str; 22] = [
    "model",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "temperature",
    "reasoning_effort",
    "reasoning",
    "response_format",
    "json_schema",
    "output_config",
    "output_format",
    "thinking",
    "tools",
    "tool_choice",
    "toolconfig",
    "inferenceconfig",
    "outputconfig",
    "additionalmodelrequestfields",
    "generation_config",
    "anthropic_version",
    "anthropic-version",
    "stream",
];

/// Members that hold what the job brings, beside our instructions.
pub const JOB_MEMBERS: [&str; 5] = ["messages", "system", "contents", "prompt", "input"];

/// Our members in prose: names that stand in no customer's text by chance.
pub const OUR_MEMBER_PHRASES: [&str; 18] = [
    "max_tokens",
    "max_completion_tokens",
    "maxtokens",
    "reasoning_effort",
    "response_format",
    "response format",
    "json_schema",
    "json schema",
    "output_config",
    "output_format",
    "thinking.type",
    "tool_choice",
    "toolchoice",
    "toolconfig",
    "toolspec",
    "inferenceconfig",
    "outputconfig",
    "additionalmodelrequestfields",
];

/// What is said when the deployment's model, settings or schema are not to be had.
pub const DEPLOYMENT_PHRASES: [&str; 45] = [
    "don't have access to the model",
    "do not have access to the model",
    "not have access to this model",
    "does not have access to model",
    "model identifier is invalid",
    "is not a valid model id",
    "no models loaded",
    "model is not loaded",
    "invalid model",
    "model not found",
    "model does not exist",
    "model is no longer available",
    "model not exist",
    "unknown model",
    "no endpoints found",
    "model has been decommissioned",
    "has been deprecated",
    "reached the end of its life",
    "on-demand throughput",
    "inference profile",
    "api version not supported",
    "unsupported parameter",
    "unsupported value",
    "unknown parameter",
    "unrecognized request argument",
    "unknown name \"",
    "not supported for this model",
    "not supported with this model",
    "not supported with the '",
    "not supported by this model",
    "not supported by the model",
    "model does not support",
    "model doesn't support",
    "does not support tools",
    "--enable-auto-tool-choice",
    "action doesn't support the model",
    "maximum tokens you requested exceeds",
    // LM Studio, under a 200, to an address without its `/v1`.
    "unexpected endpoint or method",
    // A schema is the task's, the same for every job: refused once, it is refused for all of them.
    "invalid schema",
    "compiled grammar is too large",
    "grammar compilation",
    "grammar error",
    "failed to parse grammar",
    "schemas contains too many",
    "schema contains features not supported",
];

/// Names under which a 404 is about the model or the address.
pub const NOT_FOUND_NAMES: [&str; 3] = ["not_found_error", "notfounderror", "not_found"];
/// What a 404 says of the model or the address.
pub const NOT_FOUND_PHRASES: [&str; 8] =
    ["model", "deployment", "endpoint", "url", "route", "path", "page not found", "not found"];

/// Errors that say by their name that what was asked or answered was filtered.
pub const REFUSAL_NAMES: [&str; 21] = [
    "content_filter",
    "content_filter_error",
    "content_filtered",
    "content_policy_violation",
    "content_policy_violation_error",
    "contentpolicyviolationerror",
    "responsibleaipolicyviolation",
    "moderation_blocked",
    "moderation_error",
    "data_inspection_failed",
    "datainspectionfailed",
    "prohibited_content",
    "safety",
    "recitation",
    "blocklist",
    "guardrail_intervened",
    "safety_error",
    "image_safety",
    "bio_policy",
    "cyber_policy",
    "cyber_policy_violation",
];

/// OpenRouter: its guardrail blocked a text ("Errors and debugging", OpenRouter docs).
pub const INJECTION_PHRASES: [&str; 1] = ["prompt injection patterns detected"];

/// What is said when what was asked or answered was filtered.
pub const REFUSAL_PHRASES: [&str; 24] = [
    "content filtering policy",
    "content management policy",
    "content filter",
    "contentpolicyviolationerror",
    "content policy",
    "content exists risk",
    "content violates",
    "new_sensitive",
    "violates usage guidelines",
    "violates our usage policies",
    "violating our usage policy",
    "response was filtered",
    "prompt was filtered",
    "rejected as a result of our safety system",
    "limited access to this content for safety reasons",
    "input was flagged",
    "prompt was flagged",
    "flagged as potentially violating",
    "considered high risk",
    "inappropriate content",
    "potentially unsafe or sensitive content",
    "blocked by guardrail",
    "blocked by the guardrail",
    "blocked due to safety",
];

/// Words in a reason to stop that say that the answer was filtered or declined.
const FILTER_WORDS: [&str; 13] = [
    "filter",
    "safety",
    "recitation",
    "prohibited",
    "blocklist",
    "blocked",
    "spii",
    "sensitive",
    "guardrail",
    "refus",
    "moderation",
    "policy",
    "inspection",
];

/// Google: a call of a tool that could not be read. Its filter for calls is named with it, and filtered nothing.
const BROKEN_CALLS: [&str; 2] = ["malformed_function_call", "unexpected_tool_call"];

/// Whether a reason to stop says that the answer was filtered or declined, in whatever words and case.
#[must_use]
pub fn is_filtered(stop_reason: &str) -> bool {
    let reason = stop_reason.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    has(&FILTER_WORDS) && !has(&BROKEN_CALLS)
}

/// Reasons to stop that say that the provider broke down, in lower case: DeepSeek's, Zhipu's, vLLM's, and what Mistral,
/// Cohere and OpenRouter call them.
pub const BREAKDOWNS: [&str; 6] =
    ["error", "network_error", "server_error", "abort", "aborted", "insufficient_system_resource"];

/// Errors that say by their name that the request is not accepted, for whatever reason.
pub const INVALID_REQUEST_NAMES: [&str; 4] =
    ["invalid_request_error", "badrequesterror", "bad_request", "validation_error"];

/// The status that a code of MiniMax stands for ("Error Codes", MiniMax API docs); it answers with a 200 in any case.
#[must_use]
pub fn status_of_minimax(code: u64) -> Option<u16> {
    Some(match code {
        1004 | 2049 => 401,
        1008 => 402,
        // Requests or tokens a minute, connections, growth; 2056 is a window of five hours.
        1002 | 1039 | 1041 | 2045 | 2056 => 429,
        1026 | 1027 | 1042 | 2013 => 400,
        _ => return None,
    })
}

/// Errors that say by their name that the request is longer than a limit.
pub const TOO_LARGE_NAMES: [&str; 10] = [
    "context_length_exceeded",
    "contextwindowexceedederror",
    "exceed_context_size_error",
    "context_window_exceeded",
    "request_too_large",
    "string_above_max_length",
    "string_too_long",
    "payloadtoolargeerror",
    "payload_too_large",
    "input_too_long",
];

/// What is said when the request is longer than a limit.
pub const TOO_LARGE_PHRASES: [&str; 32] = [
    "prompt is too long",
    "prompt too long",
    "input is too long",
    "input too long",
    "too many input tokens",
    "context length",
    "context window",
    "context size",
    "context limit",
    "maximum context",
    "exceeds the maximum number of tokens",
    "maximum number of input tokens",
    "input tokens exceed",
    "input token count",
    "reduce the length",
    "reduce your message size",
    "max_new_tokens` must be",
    "range of input length",
    "expected maxlength: ",
    "maximum prompt length",
    "longer than the maximum model length",
    "`inputs` must have less than",
    "exceeded model token limit",
    "exceeds max length",
    "maximum allowed length",
    "exceeds maximum length",
    "string too long",
    "request too large",
    "request is too large",
    "request exceeds the maximum size",
    "payload too large",
    "body too large",
];

/// The same in words of a server that fails over it with a 500 (Xinference).
pub const TOO_LARGE_BROKE_PHRASES: [&str; 1] = ["longer than the maximum model length"];

/// Parts of names that say that nothing was done and that waiting helps.
pub const CAPACITY_NAME_PARTS: [&str; 14] = [
    "rate_limit",
    "ratelimit",
    "throttl",
    "overload",
    "too_many_requests",
    "toomanyrequests",
    "slow_down",
    "unavailable",
    "notready",
    "not_ready",
    "capacity_exceeded",
    "resource_exhausted",
    "quotaexceeded",
    "throughputexceeded",
];

/// What is said of missing capacity where there is no status of its own.
pub const CAPACITY_PHRASES: [&str; 6] =
    ["rate limit", "too many requests", "overloaded", "try again later", "throttl", "at capacity"];

/// Errors in which the model behind the provider failed, and the body says how.
pub const MODEL_FAILED_NAMES: [&str; 2] = ["modelerrorexception", "modelstreamerrorexception"];

/// Errors that say by their name that the provider failed, and may have done the work.
pub const TRANSIENT_NAMES: [&str; 9] = [
    "api_error",
    "timeout_error",
    "server_error",
    "internal_error",
    "internal_server_error",
    "internalserverexception",
    "internalserverfault",
    "modeltimeoutexception",
    "conflictexception",
];

/// Errors under which a provider's own grammar did not accept what its model wrote (Groq docs, "Structured outputs",
/// "Tool use").
pub const ANSWER_REJECTED_NAMES: [&str; 3] =
    ["json_validate_failed", "tool_use_failed", "output_parse_failed"];

/// The same in words: llama.cpp's parser, under a 500.
pub const ANSWER_REJECTED_PHRASES: [&str; 1] = ["produced output that does not match the expected"];

/// What is said in an error's place when the model wrote, or thought, until the answer's token limit: OpenAI's models that
/// think, Groq under a schema, and LiteLLM. It was generated, and it is billed.
pub const CUT_OFF_PHRASES: [&str; 3] = [
    "model output limit was reached",
    "max completion tokens reached",
    "unable to complete request: max_output_tokens",
];

/// OpenRouter's name for the same ("Errors and debugging", OpenRouter docs).
pub const CUT_OFF_NAMES: [&str; 1] = ["max_tokens_exceeded"];
