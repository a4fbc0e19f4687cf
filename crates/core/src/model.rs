//! What is asked of a model and what may come back, in no provider's words.

use std::sync::Arc;

use serde_json::Value;

/// The two halves of a prompt: what we say, and the customer's text as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Our instructions; never contains customer text.
    pub system: String,
    /// The customer's text in delimited blocks.
    pub user: String,
}

/// One turn of the conversation that a request carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// What we send.
    User(String),
    /// What the model answered before; present only when it is asked again.
    Assistant(String),
}

impl Turn {
    /// What is said, by whomever.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::User(text) | Self::Assistant(text)) = self;
        text
    }
}

/// One call, ready to be sent.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Our instructions.
    pub system: String,
    /// The conversation, oldest first; starts and ends with a user turn.
    pub turns: Vec<Turn>,
    /// The name under which the provider is given the schema; `[a-z_]{1,64}`. It always stands for the same schema.
    pub schema_name: String,
    /// JSON Schema of the output, as derived from the task's output type; an adapter lowers it.
    pub schema: Arc<Value>,
    /// Upper bound of the answer, in tokens.
    pub output_tokens_max: u32,
    /// The whole call, connection included, ends within this time.
    pub timeout_ms: u64,
}

impl ModelRequest {
    /// Bytes of what the model is given to read, without the schema, which not every provider shows it.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let turns: usize = self.turns.iter().map(|turn| turn.text().len()).sum();
        turns.saturating_add(self.system.len())
    }
}

/// Tokens of one call, or of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
}

impl Usage {
    /// Tokens both ways.
    #[must_use]
    pub fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
    }
}

/// What a provider says of the tokens of one call: `None` where it says nothing, or something that is no count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    /// Tokens read, cached ones included.
    pub input_tokens: Option<u64>,
    /// Tokens written, thoughts included.
    pub output_tokens: Option<u64>,
}

impl From<Usage> for ReportedUsage {
    fn from(usage: Usage) -> Self {
        Self { input_tokens: Some(usage.input_tokens), output_tokens: Some(usage.output_tokens) }
    }
}

/// What the provider marked as its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Finished text; still to be validated.
    Text(String),
    /// The provider or the model declined. Never parsed as a result.
    Refused {
        /// The provider's category or stop reason, without customer text.
        why: String,
        /// What was said, if anything.
        text: String,
    },
    /// Cut off by a token limit. Never parsed as a result.
    Truncated {
        /// What was said until then.
        text: String,
        /// Which limit, in the provider's words.
        by: TokenLimit,
    },
    /// Answered, but with nothing that could be an answer (no text, a foreign shape).
    Unusable {
        /// What is wrong with it, without its text.
        why: String,
    },
}

/// The limit that cut an answer off, as a provider names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLimit {
    /// The most tokens that the request allows. Servers of one's own say so of a full context, too: `length` stands for
    /// both.
    Answer,
    /// The model's context, which prompt and answer share.
    Context,
}

/// An answered call.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReply {
    /// What was answered.
    pub answer: Answer,
    /// What the provider says that it consumed; `spend::CallPrice::count` says what that counts as.
    pub usage: ReportedUsage,
    /// The provider's id of the call, for its support.
    pub request_id: Option<String>,
    /// What the provider says is left of its limits.
    pub headroom: Headroom,
}

/// One of the provider's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Window {
    /// The whole of it.
    pub limit: Option<u64>,
    /// What is left now.
    pub remaining: Option<u64>,
    /// The time until it is full again.
    pub reset_ms: Option<u64>,
}

/// What the provider's headers say is left; all empty where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Headroom {
    /// Calls, whatever their size.
    pub requests: Window,
    /// Tokens: the tightest of input, output and total where the provider names several.
    pub tokens: Window,
}

/// What a call that was not answered means for its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// Throttled, overloaded, unavailable, or never connected: nobody was billed, so waiting spends no attempt.
    Capacity,
    /// The provider or the network failed in a way that may have been billed (500, a timeout, a reset, an answer that
    /// broke off).
    Transient,
    /// Key, credit, spend limit, model access, or a setting that is sent with every job: nobody's job is at fault.
    Account,
    /// This request can never work, and the provider says what about it: it is longer than a limit.
    Rejected,
    /// The request is refused, and the words leave open whose fault it is; `blame` decides by what became of others.
    Unclear,
    /// The provider declined what was asked, or filtered what was answered.
    Refused,
}

/// A request that is larger than a limit, as far as the provider says by how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversize {
    /// What both are counted in.
    pub unit: SizeUnit,
    /// What was requested: the prompt, with the room for the answer where the provider counts that in.
    pub requested: Option<u64>,
    /// The most that there can be.
    pub limit: Option<u64>,
}

/// What a provider counts a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeUnit {
    /// Of the model.
    Tokens,
    /// Of the text.
    Characters,
}

/// The retry headers of a response, unparsed: what they mean depends on the time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryAdvice {
    /// `retry-after-ms`: milliseconds; before `retry-after`, where both are valid.
    pub retry_after_ms: Option<String>,
    /// `retry-after`: seconds or an HTTP date.
    pub retry_after: Option<String>,
    /// `x-should-retry`.
    pub should_retry: Option<bool>,
}

/// What an adapter calls the failure of a call that it gave up on, since its time was over.
pub const TIMEOUT: &str = "timeout";

/// What an adapter calls the failure of a call that something else than a model answered: a page, a server's state.
pub const NOT_A_MODEL: &str = "not_a_model";

/// A call that was not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("the model call failed: {error_type}{}: {message}", status.map(|s| format!(" (HTTP {s})")).unwrap_or_default())]
pub struct ModelFailure {
    /// What it means.
    pub class: FailureClass,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// The provider's own name of the error, with the member of the request that it blames after a colon where it names
    /// one (`unsupported_value:reasoning_effort`); or `timeout`, `connect`, `reset`.
    pub error_type: String,
    /// The provider's message, at most 300 characters, keys masked.
    pub message: String,
    /// The provider's id of the call.
    pub request_id: Option<String>,
    /// What it says about retrying.
    pub advice: RetryAdvice,
    /// What it says is left of its limits.
    pub headroom: Headroom,
    /// By how much the request is too large, where that is what it says.
    pub oversize: Option<Oversize>,
}

impl ModelFailure {
    /// Whether nobody answered in time, here or at a gateway in between: of a server that queues, the only sign that
    /// more calls are open than it can answer. 524 is Cloudflare's word for 504 ("Error 524", Cloudflare docs).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.error_type == TIMEOUT || matches!(self.status, Some(408 | 504 | 524))
    }

    /// Whether a provider may charge for it: the request was sent, and did not come back refused before any work. A
    /// status does not tell: an answer breaks off after its 200, a 500 or a 504 may come after the work was done, and what
    /// a filter declined was read, and is charged for by some ("Content filtering", Azure OpenAI docs).
    ///
    /// The one meaning of this: the day's spend and `paid_call_limit` both ask here.
    #[must_use]
    pub fn may_be_billed(&self) -> bool {
        match self.class {
            FailureClass::Transient | FailureClass::Refused => true,
            FailureClass::Capacity
            | FailureClass::Account
            | FailureClass::Rejected
            | FailureClass::Unclear => false,
        }
    }

    /// Whether the provider answers nobody, for all that this call shows. A limit that is merely reached (429) is none: the
    /// pace keeps to it.
    #[must_use]
    pub fn is_sign_of_outage(&self) -> bool {
        match self.class {
            FailureClass::Transient => true,
            FailureClass::Capacity => !matches!(self.status, Some(402 | 429)),
            FailureClass::Account
            | FailureClass::Rejected
            | FailureClass::Unclear
            | FailureClass::Refused => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_refused_before_any_work_is_never_billed() {
        use FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};
        for (class, status, may_be_billed) in [
            (Capacity, Some(529), false),
            (Capacity, None, false),
            // A refusal that came inside a 200.
            (Capacity, Some(200), false),
            (Account, Some(401), false),
            (Rejected, Some(400), false),
            (Unclear, Some(400), false),
            (Refused, Some(400), true),
            (Transient, None, true),
            (Transient, Some(200), true),
            (Transient, Some(408), true),
            (Transient, Some(500), true),
            (Transient, Some(504), true),
        ] {
            let failure = ModelFailure {
                class,
                status,
                error_type: String::new(),
                message: String::new(),
                request_id: None,
                advice: RetryAdvice::default(),
                headroom: Headroom::default(),
                oversize: None,
            };
            assert_eq!(failure.may_be_billed(), may_be_billed, "{class:?} {status:?}");
        }
    }

    #[test]
    fn what_a_call_took_is_what_it_read_and_what_it_wrote() {
        assert_eq!(Usage { input_tokens: 100, output_tokens: 20 }.total(), 120);
        assert_eq!(Usage { input_tokens: u64::MAX, output_tokens: 1 }.total(), u64::MAX);
    }
}
