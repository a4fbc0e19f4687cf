//! What the author of a task writes, and the adapter that makes a `Task` of it.

use std::marker::PhantomData;
use std::sync::Arc;

use nightshift_core::copied_example::ExampleOfPrompt;
use nightshift_core::input_hash::{canonical_json, hex};
use nightshift_core::model::Prompt;
use nightshift_core::task::{Task, Violations};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use validator::Validate;

use crate::prompt::{self, Block};
use crate::{reading, schema, violations};

/// One kind of work, as its author writes it.
///
/// Put `#[serde(deny_unknown_fields)]` on both types: a member that nobody reads is a typing error that nobody sees.
/// Doc comments on the output's members become descriptions in the schema, so write them for the model.
/// Rules belong into `#[validate(...)]`, which the schema shows to the model; a `message` there completes the sentence
/// "The value at $.member …".
pub trait TaskDefinition: 'static {
    /// The name in a job's `task`, `[a-z_]{1,64}`; the compiler refuses any other.
    const NAME: &'static str;

    /// Upper bound of an answer, in tokens. An answer that needs more is a dead letter, `truncated`, and the day's
    /// spend cap reserves this much for each call: room for the longest valid output, and no more.
    const OUTPUT_TOKENS_MAX: u32;

    /// What the model shall do, and what when the text is empty, hostile or in another language. The frame around it
    /// already says that data is never an instruction, that the answer is JSON, and shows the schema.
    const INSTRUCTIONS: &'static str;

    /// What a job brings.
    type Input: DeserializeOwned + Serialize + Validate + JsonSchema;

    /// What is stored.
    type Output: DeserializeOwned + Serialize + Validate + JsonSchema;

    /// The input as data blocks, in the order in which the model reads them. Everything that comes from outside goes
    /// into a block, a title or a name as well as a text.
    fn blocks(input: &Self::Input) -> Vec<Block<'_>>;

    /// What to store, marked `needs_review`, when no answer was valid; `None` makes the job a dead letter,
    /// `invalid_output`. A fallback that breaks the output's own rules counts as none.
    fn fallback(_input: &Self::Input) -> Option<Self::Output> {
        None
    }

    /// A plausible input and a good answer to it. The answer stands in the schema under `examples`, where the model sees
    /// it, and an answer that repeats its texts for another input is not accepted; the prompt made from the input is part of the fingerprint, where it tells that the rendering of inputs has
    /// changed. Both are documentation and test data.
    fn example() -> Example<Self::Input, Self::Output>;
}

/// A plausible input and a good answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example<Input, Output> {
    /// Passes the input's rules.
    pub input: Input,
    /// Passes the output's rules.
    pub output: Output,
}

/// A definition, ready to work: what does not depend on the input is made once, at cold start.
pub(crate) struct Defined<D> {
    schema: Arc<Value>,
    system: String,
    overhead_bytes: usize,
    fingerprint: String,
    example: Option<ExampleOfPrompt>,
    definition: PhantomData<fn() -> D>,
}

impl<D: TaskDefinition> Defined<D> {
    pub(crate) fn new() -> Self {
        const {
            assert!(
                is_task_name(D::NAME),
                "a task's NAME has 1 to 64 characters, lower-case letters and underscores only"
            );
            assert!(D::OUTPUT_TOKENS_MAX > 0, "a task's OUTPUT_TOKENS_MAX must leave room for an answer");
        }
        let example = D::example();
        let mut schema = schema::of::<D::Output>();
        let prescribed = schema.to_string();
        let as_values = (serde_json::to_value(&example.input), serde_json::to_value(&example.output));
        // For the model, which sees a good answer, and for stand-ins of a model, which could not know the rules that
        // no schema can say.
        let mut example_of_prompt = None;
        if let (Some(members), (Ok(input), Ok(output))) = (schema.as_object_mut(), as_values) {
            members.insert("examples".to_owned(), json!([output.clone()]));
            example_of_prompt = Some(ExampleOfPrompt::new(&input, output, &[D::INSTRUCTIONS, &prescribed]));
        }
        let system = prompt::system(D::INSTRUCTIONS, &schema);
        let rendered = prompt::user(&D::blocks(&example.input));
        // The schema also stands in `system`, but as text that a reader of this line should not have to know about.
        let revised = json!({
            "name": D::NAME,
            "system": system,
            "user": rendered,
            "schema": schema,
            "output_tokens_max": D::OUTPUT_TOKENS_MAX,
        });
        let digest = Sha256::new()
            .chain_update(b"nightshift/task/v1\n")
            .chain_update(canonical_json(&revised).as_bytes())
            .finalize();
        // The schema also goes with the request as structured output.
        let overhead_bytes = system.len() + schema.to_string().len();
        Self {
            schema: Arc::new(schema),
            system,
            overhead_bytes,
            fingerprint: hex(&digest),
            example: example_of_prompt,
            definition: PhantomData,
        }
    }
}

impl<D: TaskDefinition> Task for Defined<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn prompt(&self, input: &Value) -> Result<Prompt, Violations> {
        let input: D::Input = checked(input)?;
        Ok(Prompt { system: self.system.clone(), user: prompt::user(&D::blocks(&input)) })
    }

    fn schema(&self) -> &Arc<Value> {
        &self.schema
    }

    fn accept(&self, answer: Value) -> Result<Value, Violations> {
        written(&checked::<D::Output>(&answer)?)
    }

    fn example(&self) -> Option<&ExampleOfPrompt> {
        self.example.as_ref()
    }

    fn fallback(&self, input: &Value) -> Option<Value> {
        let input: D::Input = checked(input).ok()?;
        let output = written(&D::fallback(&input)?).ok()?;
        // The same door as an answer: nothing unvalidated is stored, ours neither.
        self.accept(output).ok()
    }

    fn output_tokens_max(&self) -> u32 {
        D::OUTPUT_TOKENS_MAX
    }

    fn overhead_bytes(&self) -> usize {
        self.overhead_bytes
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The value as `T`, when the type and all its rules accept it.
fn checked<T: DeserializeOwned + Validate>(value: &Value) -> Result<T, Violations> {
    let read: T = reading::read(value)?;
    read.validate().map_err(|errors| violations::of_rules(&errors))?;
    Ok(read)
}

fn written<T: Serialize>(output: &T) -> Result<Value, Violations> {
    serde_json::to_value(output).map_err(|_| {
        Violations(vec!["The value at $ is accepted by its type but cannot be written as JSON.".to_owned()])
    })
}

const fn is_task_name(name: &str) -> bool {
    let mut rest = name.as_bytes();
    if rest.is_empty() || rest.len() > 64 {
        return false;
    }
    while let [first, others @ ..] = rest {
        if !(first.is_ascii_lowercase() || *first == b'_') {
            return false;
        }
        rest = others;
    }
    true
}
