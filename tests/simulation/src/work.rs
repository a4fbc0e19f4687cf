//! The work that is simulated: what an input does to its model and its worker, and the tasks that the worker is given.

use std::sync::Arc;

use nightshift_core::model::{Oversize, Prompt, SizeUnit};
use nightshift_core::task::{Task, Tasks, Violations};
use serde_json::{Value, json};

use crate::world::World;

/// What is special about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing: the model answers well.
    Good,
    /// The model never obeys the schema, and the task has a fallback.
    Guarded,
    /// The model obeys the schema only when it is told what was wrong with its last answer.
    Stubborn,
    /// The body is cut off.
    NoJob,
    /// The body is over the limit.
    Oversized,
    /// Nobody knows the task.
    UnknownTask,
    /// The input breaks its rules.
    InvalidInput,
    /// The model declines.
    Refuses,
    /// The answer is cut off.
    Truncates,
    /// The model never obeys the schema.
    NeverValid,
    /// The output is valid and too large to be stored.
    TooLarge,
    /// The provider says that the request can never work.
    Rejected,
    /// A firewall in front of the provider forbids this text.
    Forbidden,
    /// The worker dies during the call.
    Poison,
    /// The task's code panics before the claim.
    PanicsInPrompt,
    /// The task's code panics over the answer.
    PanicsInAccept,
}

impl Kind {
    /// The task that its body names.
    #[must_use]
    pub fn task(self) -> &'static str {
        match self {
            Self::Guarded => "guarded",
            Self::UnknownTask => "nobody",
            _ => "plain",
        }
    }

    /// The body of a message with this input.
    #[must_use]
    pub fn body(self, n: u32, reference: u32) -> String {
        let task = self.task();
        match self {
            Self::NoJob => format!("{{\"task\":\"{task}\",\"input\":{{\"n\":{n}}}"),
            Self::InvalidInput => {
                format!(
                    "{{\"task\":\"{task}\",\"input\":{{\"n\":{n},\"more\":1}},\"reference\":\"r{reference}\"}}"
                )
            }
            // A body that cannot be read is its own key, so that it must not vary.
            Self::Oversized => {
                format!("{{\"task\":\"{task}\",\"input\":{{\"n\":{n},\"pad\":\"{}\"}}}}", "x".repeat(9_000))
            }
            // White space around it is the sender's, and a dead letter keeps it.
            _ => {
                let end = if n.is_multiple_of(5) { "\r\n" } else { "" };
                format!(
                    "{{\"input\": {{\"n\": {n}}}, \"task\":\"{task}\",\"reference\":\"r{reference}\"}}{end}"
                )
            }
        }
    }
}

/// The most that a model writes at once.
pub const OUTPUT_TOKENS_MAX: u32 = 500;
/// What goes with each request beside the body, in bytes. A token is at least one of them.
pub const OVERHEAD_BYTES: usize = 1_000;
/// What is wrong with an answer whose member `check` is.
pub const CHECK_IS_WRONG: &str = "The member check is wrong.";

/// What cuts off the answers about an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// The task's limit.
    Limit,
    /// The model's context is full, and the provider says so.
    Context,
    /// The same, and the provider calls it the limit of the answer.
    ContextUnsaid,
}

/// What cuts off the answers about `n`, if anything does.
#[must_use]
pub fn cut_off(n: u32) -> CutOff {
    [CutOff::Limit, CutOff::Context, CutOff::ContextUnsaid][n as usize % 3]
}

/// What the provider says of a request about `n`, if that is too large.
#[must_use]
pub fn oversize(n: u32) -> Oversize {
    let size = |tokens: u64| Some(tokens + u64::from(n)).filter(|_| n.is_multiple_of(2));
    Oversize { unit: SizeUnit::Tokens, requested: size(2_000_000), limit: size(1_000_000) }
}

/// What a right answer says of `n`.
#[must_use]
pub fn check_of(n: u64) -> u64 {
    n.wrapping_mul(7_919).wrapping_add(13) % 1_000_003
}

/// Whether this may stand in the ledger as the result of `n`; knows nothing of the worker's own validation.
#[must_use]
pub fn is_right(kind: Kind, n: u32, output: &Value, needs_review: bool) -> bool {
    let Value::Object(members) = output else { return false };
    let of_n = members.get("n").and_then(Value::as_u64) == Some(u64::from(n));
    let only_known = members.keys().all(|name| ["n", "check", "pad"].contains(&name.as_str()));
    let check = members.get("check").and_then(Value::as_u64);
    let checked = if needs_review {
        kind == Kind::Guarded && check.is_none()
    } else {
        check == Some(check_of(n.into()))
    };
    of_n && only_known && checked
}

/// What a revision changes of the work, in turn: the model, the prompt, nothing.
fn prompt_of(revision: u32) -> u32 {
    revision / 3
}

/// The name of the model that a revision calls.
#[must_use]
pub fn model_of(revision: u32) -> String {
    format!("model-{}", (revision + 1) / 3)
}

/// Grows with each revision whose results differ from those of the one before.
#[must_use]
pub fn work_of(revision: u32) -> u32 {
    prompt_of(revision) + (revision + 1) / 3
}

/// The registry that a worker is given.
pub struct TestTasks {
    tasks: [TestTask; 2],
}

struct TestTask {
    name: &'static str,
    fingerprint: String,
    schema: Arc<Value>,
    world: Arc<World>,
}

impl TestTasks {
    /// The tasks as this revision has them.
    #[must_use]
    pub fn new(world: &Arc<World>, revision: u32) -> Self {
        Self {
            tasks: ["guarded", "plain"].map(|name| TestTask {
                name,
                fingerprint: format!("{name} with prompt {}", prompt_of(revision)),
                schema: Arc::new(json!({"type": "object"})),
                world: Arc::clone(world),
            }),
        }
    }
}

impl Tasks for TestTasks {
    fn find(&self, name: &str) -> Option<&dyn Task> {
        self.tasks.iter().find(|task| task.name == name).map(|task| task as &dyn Task)
    }

    fn names(&self) -> Vec<&'static str> {
        self.tasks.iter().map(|task| task.name).collect()
    }
}

impl Task for TestTask {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prompt(&self, input: &Value) -> Result<Prompt, Violations> {
        let n = input.get("n").and_then(Value::as_u64);
        match (n, input.as_object().map(serde_json::Map::len)) {
            (Some(n), Some(1)) => {
                self.world.task_code_runs(n, Kind::PanicsInPrompt);
                Ok(Prompt { system: "Answer.".to_owned(), user: format!("n={n}") })
            }
            _ => Err(Violations(vec!["The input must have the member n and no other.".to_owned()])),
        }
    }

    fn schema(&self) -> &Arc<Value> {
        &self.schema
    }

    fn accept(&self, answer: Value) -> Result<Value, Violations> {
        let violation = |what: &str| Err(Violations(vec![what.to_owned()]));
        let Some(n) = answer.get("n").and_then(Value::as_u64) else {
            return violation("The member n is missing.");
        };
        self.world.task_code_runs(n, Kind::PanicsInAccept);
        let members = answer.as_object().map_or(0, serde_json::Map::len);
        match answer.get("check") {
            None if self.name == "guarded" && members == 1 => Ok(answer),
            Some(check) if check.as_u64() == Some(check_of(n)) => Ok(answer),
            _ => violation(CHECK_IS_WRONG),
        }
    }

    fn fallback(&self, input: &Value) -> Option<Value> {
        (self.name == "guarded").then(|| json!({"n": input.get("n")}))
    }

    fn output_tokens_max(&self) -> u32 {
        OUTPUT_TOKENS_MAX
    }

    fn overhead_bytes(&self) -> usize {
        OVERHEAD_BYTES
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
