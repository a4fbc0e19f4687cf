//! The model adapters: one port, three protocols, and a rehearsal; and what their errors mean.
//!
//! For a first reader: [`anthropic`] is the shortest whole path, from a request to an answer or a failure;
//! [`openai`] and [`bedrock`] differ in words only. [`classify`] says what an error means, [`lower_schema`] what of a
//! JSON Schema a provider takes, [`prices`] what a model costs, [`rehearsal`] is the model that costs nothing.
//!
//! **Invariant:** an adapter makes exactly one call and reports; it retries nothing, waits for nothing and reads no
//! environment. What hyper sends again by itself is a request of which no byte had left (see [`http`]).
//!
//! **Invariant:** no body, neither ours nor the provider's, is logged or put into an error; of an error body only the
//! type, the code and the message are kept, bounded, with keys masked.

pub mod anthropic;
pub mod bedrock;
pub mod classify;
mod error_body;
mod error_words;
pub mod headroom;
pub mod http;
pub mod lower_schema;
mod mask;
mod meet_schemas;
pub mod model_id;
pub mod openai;
pub mod prices;
pub mod rehearsal;
mod reply;
mod request_size;

pub use anthropic::{Anthropic, AnthropicSettings};
pub use bedrock::{Bedrock, BedrockAuth, BedrockSettings};
pub use http::{BuildError, Http};
pub use openai::{OpenAi, OpenAiSettings};
pub use prices::price_of;
pub use rehearsal::{Rehearsal, RehearsalSpec};

/// How a model is made to answer with the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StructuredOutput {
    /// The provider's own structured output: the answer is text that fits the schema.
    TextFormat,
    /// One tool, which the model must use: the answer is the tool's input.
    Tool,
    /// Neither; the prompt describes the schema and the validator enforces it.
    None,
}

/// Whose words an answer is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Anthropic's Messages API.
    Anthropic,
    /// Amazon Bedrock's Converse API.
    Bedrock,
    /// Chat completions, as OpenAI, Ollama, vLLM and many others speak them.
    OpenAi,
}

impl Provider {
    /// The name in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::OpenAi => "openai",
        }
    }
}
