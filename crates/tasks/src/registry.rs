//! The list of tasks.

use nightshift_core::task::{Task, Tasks};
use serde_json::{Value, json};

use crate::definition::{Defined, TaskDefinition};
use crate::schema;

/// The tasks that a build knows, by name.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

struct Entry {
    task: Box<dyn Task>,
    /// Made when asked for: a cold start does not pay for documentation.
    describe: fn() -> Description,
}

/// What a sender and a reader of results need to know about a task.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// JSON Schema of the member `input` of a job.
    pub input_schema: Value,
    /// A plausible job.
    pub example_job: Value,
    /// A good result of that job.
    pub example_output: Value,
}

impl Registry {
    /// The same with one more task. A second task of the same name is never found; `tests/registered` refuses it.
    #[must_use]
    pub fn with<D: TaskDefinition>(mut self) -> Self {
        self.entries.push(Entry { task: Box::new(Defined::<D>::new()), describe: describe::<D> });
        self.entries.sort_by_key(|entry| entry.task.name());
        self
    }

    /// What there is to know about the task of this name.
    #[must_use]
    pub fn describe(&self, name: &str) -> Option<Description> {
        self.entry(name).map(|entry| (entry.describe)())
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.task.name() == name)
    }
}

impl Tasks for Registry {
    fn find(&self, name: &str) -> Option<&dyn Task> {
        self.entry(name).map(|entry| entry.task.as_ref())
    }

    fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|entry| entry.task.name()).collect()
    }
}

fn describe<D: TaskDefinition>() -> Description {
    let example = D::example();
    // Only a map with keys that are no strings cannot be written; the tests of the registry would find its null.
    let input = serde_json::to_value(&example.input).unwrap_or_default();
    Description {
        input_schema: schema::of::<D::Input>(),
        example_job: json!({"task": D::NAME, "input": input}),
        example_output: serde_json::to_value(&example.output).unwrap_or_default(),
    }
}
