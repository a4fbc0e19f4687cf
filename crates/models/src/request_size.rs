//! How large a request was and how large it may be, as providers say it in their refusals.
//!
//! Most say it in prose only, so each form has a row. What no row fits is `None`: the dead letter then says that the
//! provider does not name the sizes, and quotes its message.
//!
//! Sources: "server: add exceed_context_size_error type" (llama.cpp, pull request 15780); "Errors" (Claude API docs);
//! "Error codes" (OpenAI API docs); `vllm/renderers/params.py` (vLLM); `router/src/validation.rs` (text-generation-
//! inference); "Troubleshoot error codes" (Gemini API docs, Model Studio docs); and what users quoted of each.

use nightshift_core::model::{Oversize, SizeUnit};

use crate::error_body::ErrorBody;

/// A form in lower case; `{requested}` and `{limit}` are numbers, and what is requested in parts adds up.
struct Form(SizeUnit, &'static str);

use SizeUnit::{Characters, Tokens};

/// The more telling ones first.
const FORMS: [Form; 24] = [
    // Anthropic, and Bedrock and Vertex behind it
    Form(Tokens, "prompt is too long: {requested} tokens > {limit} maximum"),
    Form(Tokens, "exceed context limit: {requested} + {requested} > {limit}"),
    // OpenAI, Azure, DeepSeek, OpenRouter, and vLLM, whose parts come first: they begin alike
    Form(
        Tokens,
        "maximum context length is {limit} tokens. however, you requested {requested} output tokens and your prompt contains {requested} input tokens",
    ),
    Form(
        Tokens,
        "maximum context length is {limit} tokens. however, you requested {requested} output tokens and your prompt contains at least {requested} input tokens",
    ),
    Form(
        Tokens,
        "is too large: {requested}. this model's maximum context length is {limit} tokens and your request has {requested} input tokens",
    ),
    Form(
        Tokens,
        "you passed {requested} input tokens and requested {requested} output tokens. however, the model's context length is only {limit} tokens",
    ),
    Form(Tokens, "maximum context length is {limit} tokens. however, you requested {requested} tokens"),
    Form(Tokens, "maximum context length is {limit} tokens, however you requested {requested} tokens"),
    Form(Tokens, "maximum context length is {limit} tokens. however, you requested about {requested} tokens"),
    Form(
        Tokens,
        "maximum context length is {limit} tokens. however, your messages resulted in {requested} tokens",
    ),
    Form(
        Tokens,
        "exceed the configured limit of {limit} tokens. your messages resulted in {requested} tokens",
    ),
    Form(Tokens, "limit {limit}, requested {requested}"),
    Form(
        Characters,
        "expected a string with maximum length {limit}, but got a string with length {requested}",
    ),
    // llama.cpp, Ollama over it, llama-cpp-python
    Form(Tokens, "request ({requested} tokens) exceeds the available context size ({limit} tokens)"),
    Form(Tokens, "requested tokens ({requested}) exceed context window of {limit}"),
    // LM Studio, SGLang and Together, text-generation-inference
    Form(Tokens, "model is loaded with context length of only {limit} tokens"),
    Form(Tokens, "the input ({requested} tokens) is longer than the model's context length ({limit} tokens)"),
    Form(Tokens, "must be <= {limit}. given: {requested} `inputs` tokens and {requested} `max_new_tokens`"),
    // Google, xAI, Titan and Nova, DashScope
    Form(Tokens, "input token count ({requested}) exceeds the maximum number of tokens allowed ({limit})"),
    Form(Tokens, "maximum prompt length is {limit} but the request contains {requested} tokens"),
    Form(Tokens, "max input tokens: {limit}, request input token count: {requested}"),
    Form(Characters, "expected maxlength: {limit}, actual: {requested}"),
    Form(Tokens, "range of input length should be [1, {limit}]"),
    // The limit alone, as all who speak like OpenAI begin
    Form(Tokens, "maximum context length is {limit} tokens"),
];

/// The sizes that the body of a refusal names.
#[must_use]
pub fn read(body: &ErrorBody) -> Oversize {
    if let Some((requested, limit)) = body.context_tokens {
        return Oversize { unit: Tokens, requested: Some(requested), limit: Some(limit) };
    }
    let text = &body.lower_messages;
    let found = FORMS.iter().find_map(|form| form.read(text));
    found.unwrap_or(Oversize { unit: Tokens, requested: None, limit: None })
}

impl Form {
    /// The sizes in the first place where the text has this form.
    fn read(&self, text: &str) -> Option<Oversize> {
        let Self(unit, form) = self;
        let (before, _) = form.split_once('{')?;
        let starts = std::iter::successors(Some(text), |rest| Some(rest.split_once(before)?.1));
        starts.skip(1).find_map(|rest| {
            let (requested, limit) = read_from(form.strip_prefix(before)?, rest)?;
            // What fits is not too large: then the text is about something else.
            let fits = requested.zip(limit).is_some_and(|(requested, limit)| requested <= limit);
            (!fits).then_some(Oversize { unit: *unit, requested, limit })
        })
    }
}

/// Reads the rest of a form, from a placeholder on, at the beginning of a text.
fn read_from(mut form: &str, mut text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (mut requested, mut limit) = (None::<u64>, None);
    while let Some(after) = form.strip_prefix('{') {
        let (name, after) = after.split_once('}')?;
        let (number, rest) = number(text)?;
        match name {
            "limit" => limit = Some(number),
            _ => requested = Some(requested.unwrap_or(0).saturating_add(number)),
        }
        let words = after.split('{').next()?;
        text = rest.strip_prefix(words)?;
        form = after.strip_prefix(words)?;
    }
    Some((requested, limit))
}

/// The number at the beginning of a text, with or without commas, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let is_part = |c: char| c.is_ascii_digit() || c == ',';
    let digits = text.split(|c: char| !is_part(c)).next()?.trim_end_matches(',');
    let number = digits.replace(',', "").parse().ok()?;
    Some((number, text.strip_prefix(digits)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(message: &str) -> (Option<u64>, Option<u64>, SizeUnit) {
        let body = ErrorBody { lower_messages: message.to_lowercase(), ..ErrorBody::default() };
        let Oversize { unit, requested, limit } = read(&body);
        (requested, limit, unit)
    }

    #[test]
    fn both_sizes_are_read_in_each_providers_words() {
        for (message, requested, limit, unit) in [
            // As their users quoted them.
            ("prompt is too long: 214850 tokens > 200000 maximum", 214_850, 200_000, Tokens),
            (
                "The model returned the following errors: prompt is too long: 210,432 tokens > 200,000 maximum",
                210_432,
                200_000,
                Tokens,
            ),
            (
                "input length and `max_tokens` exceed context limit: 188240 + 32000 > 200000, decrease input length or `max_tokens` and try again",
                220_240,
                200_000,
                Tokens,
            ),
            (
                "This model's maximum context length is 4097 tokens, however you requested 4231 tokens (3975 in your prompt; 256 for the completion). Please reduce your prompt; or completion length.",
                4_231,
                4_097,
                Tokens,
            ),
            (
                "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in the messages, 10000 in the completion). Please reduce the length of the messages or completion.",
                122_946,
                16_384,
                Tokens,
            ),
            (
                "This model's maximum context length is 8192 tokens. However, your messages resulted in 8545 tokens. Please reduce the length of the messages.",
                8_545,
                8_192,
                Tokens,
            ),
            (
                "This endpoint's maximum context length is 8192 tokens. However, you requested about 9000 tokens (8500 of text input, 500 in the output).",
                9_000,
                8_192,
                Tokens,
            ),
            (
                "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 4169357 tokens. Please reduce the length of the messages.",
                4_169_357,
                272_000,
                Tokens,
            ),
            (
                "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 342389. The input or output tokens must be reduced in order to run successfully.",
                342_389,
                30_000,
                Tokens,
            ),
            (
                "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576, but got a string with length 2000000 instead.",
                2_000_000,
                1_048_576,
                Characters,
            ),
            // vLLM
            (
                "This model's maximum context length is 8192 tokens. However, you requested 64 output tokens and your prompt contains 10000 input tokens, for a total of 10064 tokens. Please reduce the length of the input prompt or the number of requested output tokens.",
                10_064,
                8_192,
                Tokens,
            ),
            (
                "This model's maximum context length is 8192 tokens. However, you requested 4096 output tokens and your prompt contains at least 4097 input tokens, for a total of at least 8193 tokens.",
                8_193,
                8_192,
                Tokens,
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 4096 tokens and your request has 2104 input tokens (2000 > 4096 - 2104).",
                4_104,
                4_096,
                Tokens,
            ),
            (
                "You passed 98305 input tokens and requested 32768 output tokens. However, the model's context length is only 131072 tokens, resulting in a maximum input length of 98304 tokens.",
                131_073,
                131_072,
                Tokens,
            ),
            // llama.cpp and those who are built on it
            (
                "request (66202 tokens) exceeds the available context size (65536 tokens), try increasing it",
                66_202,
                65_536,
                Tokens,
            ),
            ("Requested tokens (2285) exceed context window of 2048", 2_285, 2_048, Tokens),
            (
                "The input (250000 tokens) is longer than the model's context length (200000 tokens).",
                250_000,
                200_000,
                Tokens,
            ),
            (
                "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4031 `inputs` tokens and 200 `max_new_tokens`",
                4_231,
                4_096,
                Tokens,
            ),
            (
                "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)",
                1_196_265,
                1_048_575,
                Tokens,
            ),
            (
                "This model's maximum prompt length is 131072 but the request contains 537812 tokens",
                537_812,
                131_072,
                Tokens,
            ),
            (
                "Too many input tokens. Max input tokens: 8192, request input token count: 9279 ",
                9_279,
                8_192,
                Tokens,
            ),
            (
                "Malformed input request: expected maxLength: 50000, actual: 52611, please reformat your input and try again.",
                52_611,
                50_000,
                Characters,
            ),
        ] {
            assert_eq!(sizes(message), (Some(requested), Some(limit), unit), "{message}");
        }
    }

    #[test]
    fn where_a_size_is_not_said_none_is_made_up() {
        for (message, requested, limit) in [
            ("This model's maximum context length is 4096 tokens", None, Some(4_096)),
            (
                "This model's maximum context length is 8192 tokens. However, you requested 64 output tokens and your prompt contains 40000 characters",
                None,
                Some(8_192),
            ),
            (
                "Trying to keep the first 4000 tokens when context overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough.",
                None,
                Some(4_096),
            ),
            ("Range of input length should be [1, 30720]", None, Some(30_720)),
            ("Input is too long for requested model.", None, None),
            ("the input length exceeds the context length", None, None),
            ("Please reduce the length of the messages or completion.", None, None),
            // What fits is about something else.
            ("prompt is too long: 10 tokens > 200000 maximum", None, None),
            ("prompt is too long: many tokens > 200000 maximum", None, None),
            ("prompt is too long: 99999999999999999999999999 tokens > 1 maximum", None, None),
            ("", None, None),
        ] {
            assert_eq!(sizes(message), (requested, limit, Tokens), "{message}");
        }
    }

    #[test]
    fn a_number_in_a_member_of_its_own_is_taken_first() {
        let body = ErrorBody { context_tokens: Some((1_407, 256)), ..ErrorBody::default() };
        assert_eq!(read(&body), Oversize { unit: Tokens, requested: Some(1_407), limit: Some(256) });
    }
}
