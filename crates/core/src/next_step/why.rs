//! What a dead letter says of calls: what happened, and what helps.

use crate::blame::{Blame, Refusals};
use crate::model::{ModelFailure, Oversize, SizeUnit, TokenLimit};

/// How the detail of a job begins that was given up with no evidence of whose fault it is; the runbook looks for it.
pub const UNSURE_WHOSE_FAULT: &str = "Perhaps not this job's fault.";

/// What a dead letter says of a request that was refused for good.
pub(super) fn why_rejected(failure: &ModelFailure, blame: Blame, refusals: Option<Refusals>) -> String {
    let times = refusals.map_or(0, |refusals| refusals.times);
    let why = match (failure.oversize, blame) {
        (Some(oversize), _) => why_too_large(oversize),
        (None, Blame::JobBesideAnswers) => format!(
            "Refused {times} times, while other jobs of its task were answered: look for what in its input is refused. Last:"
        ),
        (None, Blame::JobAlone) => format!(
            "{UNSURE_WHOSE_FAULT} It was refused {times} times in words that do not say why, and nothing was heard of other jobs meanwhile: if they are refused as well, mend the deployment, else the input; then send it again. Last:"
        ),
        (None, _) => "The provider says that this request can never work:".to_owned(),
    };
    format!("{why} {failure}")
}

/// What a dead letter says of an answer that was cut off. What a provider calls its limit of the answer is believed only
/// if that many tokens were written: where prompt and answer share a full context, a higher limit would be of no use.
pub(super) fn why_truncated(by: TokenLimit, text: &str, written: Option<u64>, allowed: u32) -> String {
    // Servers that do not count say 0; with nothing said, it is a count.
    let written = written.filter(|tokens| *tokens > 0 || text.is_empty());
    let allowed = u64::from(allowed);
    let full = "Prompt and answer fill the model's context: shorten the input, or use a model or a server with a larger context";
    match (by, written) {
        (TokenLimit::Context, None) => {
            format!("{full}. A higher OUTPUT_TOKENS_MAX of the task makes no room.")
        }
        (TokenLimit::Context, Some(written)) => format!(
            "{full}. The answer was cut off after {written} tokens; a higher OUTPUT_TOKENS_MAX of the task makes no room."
        ),
        (TokenLimit::Answer, Some(written)) if written < allowed => format!(
            "{full}. The answer was cut off after {written} of the {allowed} tokens that the task allows; a higher OUTPUT_TOKENS_MAX makes no room."
        ),
        (TokenLimit::Answer, Some(_)) => format!(
            "The answer was cut off by the task's limit of {allowed} tokens (OUTPUT_TOKENS_MAX): raise it, or shorten the input."
        ),
        (TokenLimit::Answer, None) => format!(
            "The answer was cut off, and the provider does not count its tokens: if it is about as long as the task's limit of {allowed} tokens (OUTPUT_TOKENS_MAX), raise that; else the model's context is full, and only a shorter input or a larger context makes room."
        ),
    }
}

/// What a dead letter says of a request that is larger than a limit.
fn why_too_large(oversize: Oversize) -> String {
    let unit = match oversize.unit {
        SizeUnit::Tokens => "tokens",
        SizeUnit::Characters => "characters",
    };
    let size = match (oversize.requested, oversize.limit) {
        (Some(requested), Some(limit)) => {
            format!("{requested} {unit} were requested, and the limit is {limit}")
        }
        (None, Some(limit)) => {
            format!("the limit is {limit} {unit}, and the provider does not say how many were requested")
        }
        (Some(requested), None) => {
            format!("{requested} {unit} were requested, and the provider does not name the limit")
        }
        (None, None) => "the provider names neither its size nor the limit".to_owned(),
    };
    format!(
        "The request is too large: {size}. Shorten the input, lower the task's OUTPUT_TOKENS_MAX, or use a model, a server or an account with a larger limit:"
    )
}
