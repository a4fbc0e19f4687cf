//! What a kind of work is, seen from the worker: typed input in, prompt out; answer in, typed output out.

use std::sync::Arc;

use serde_json::Value;

use crate::copied_example::ExampleOfPrompt;
use crate::input_hash::InputHash;
use crate::model::Prompt;

/// What is wrong with an input or an output: one full sentence each, with the path of the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations(pub Vec<String>);

/// How many violations are listed; more would not help the model or a reader.
pub const VIOLATIONS_LISTED_MAX: usize = 10;

/// One kind of work.
pub trait Task: Send + Sync {
    /// The name in `task`.
    fn name(&self) -> &'static str;
    /// The prompt for this input.
    ///
    /// # Errors
    /// What in the input fails its type or its rules.
    fn prompt(&self, input: &Value) -> Result<Prompt, Violations>;
    /// JSON Schema of the output type; each request shares it.
    fn schema(&self) -> &Arc<Value>;
    /// The value as the output type writes it, when the type and all its rules accept it.
    ///
    /// # Errors
    /// What fails.
    fn accept(&self, answer: Value) -> Result<Value, Violations>;
    /// The example that the model sees in the prompt, where there is one: an answer that repeats it is none.
    fn example(&self) -> Option<&ExampleOfPrompt> {
        None
    }
    /// What to store as `needs_review` when no answer was valid; `None`: a dead letter.
    fn fallback(&self, input: &Value) -> Option<Value>;
    /// Upper bound of the answer, in tokens.
    fn output_tokens_max(&self) -> u32;
    /// What a request carries beside the input, in bytes: instructions, and the schema wherever it is said.
    fn overhead_bytes(&self) -> usize;
    /// Hash over prompt text, schema and limits: changes when results of the same input may.
    fn fingerprint(&self) -> &str;
}

/// Hash over prompt, schema and model settings: that of a [`Revision`](crate::record::Revision).
#[must_use]
pub fn revision_hash(task: &dyn Task, model: &str) -> String {
    let hash = InputHash::of_body(&format!("{}\n{model}", task.fingerprint()));
    hash.as_str().get(..16).unwrap_or(hash.as_str()).to_owned()
}

/// The kinds of work that are deployed.
pub trait Tasks: Send + Sync {
    /// By a job's word, letter for letter; none where no such task is deployed.
    fn find(&self, name: &str) -> Option<&dyn Task>;
    /// All names, sorted.
    fn names(&self) -> Vec<&'static str>;
}
