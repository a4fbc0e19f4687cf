//! The members of a task's input, by its schema, and which columns can become them.

use std::collections::BTreeMap;

use nightshift_tasks::Registry;
use serde_json::Value;

use crate::error::Failure;

/// What the schema of an input says of a member. A text stays one, whatever it looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// The cell is the text.
    Text,
    /// The cell is JSON: a number, a flag, an array or an object.
    Json,
}

/// The members of a task's input. A schema that names none says nothing of any.
pub struct Members {
    task: String,
    pub(super) types: BTreeMap<String, Type>,
    pub(super) required: Vec<String>,
}

impl Members {
    /// What the input schema of this task asks for; nothing where it is not deployed.
    pub fn of(task: &str, tasks: &Registry) -> Self {
        let schema = tasks.describe(task).map(|description| description.input_schema).unwrap_or_default();
        let required = schema.get("required").and_then(Value::as_array);
        Self {
            task: task.to_owned(),
            types: types(&schema),
            required: required.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
        }
    }

    /// Whether there is such a member.
    pub fn has(&self, member: &str) -> bool {
        self.types.contains_key(member)
    }

    /// Text, where nothing else is known.
    pub fn type_of(&self, member: &str) -> Type {
        self.types.get(member).copied().unwrap_or(Type::Text)
    }

    /// # Errors
    /// Where columns are no members: once for the file, since each of its lines would be refused for the same column.
    pub fn refuse_unknown<'a>(&self, columns: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let columns: Vec<_> = columns.map(|column| format!("{column:?}")).collect();
        if columns.is_empty() || self.types.is_empty() {
            return Ok(());
        }
        let (is, no_members) = if columns.len() == 1 {
            ("The column", "is no member")
        } else {
            ("The columns", "are no members")
        };
        Err(Failure::usage(format!(
            "{is} {} {no_members} of the input of {}, which has: {}. Say with --map MEMBER=COLUMN which columns are wanted.",
            columns.join(", "),
            self.task,
            self.listed()
        )))
    }

    /// # Errors
    /// Where what a column is mapped to is no member.
    pub fn refuse_unmapped(&self, maps: &[(String, String)]) -> Result<(), Failure> {
        let unknown = maps.iter().find(|(member, _)| !self.types.is_empty() && !self.has(member));
        let Some((member, _)) = unknown else { return Ok(()) };
        Err(Failure::usage(format!(
            "--map: {member:?} is no member of the input of {}, which has: {}.",
            self.task,
            self.listed()
        )))
    }

    /// # Errors
    /// Where a member that each input must have is none of those that are taken from these columns.
    pub fn refuse_lacking<'a>(
        &self,
        taken: impl Iterator<Item = &'a str> + Clone,
        columns: &[&str],
    ) -> Result<(), Failure> {
        let lacks = |member: &&String| !taken.clone().any(|has| has == *member);
        let Some(member) = self.required.iter().find(lacks) else { return Ok(()) };
        Err(Failure::usage(format!(
            "No column is the member {member:?}, which an input of {} must have; the columns are: {}. Say with --map {member}=COLUMN which one it is.",
            self.task,
            columns.join(", ")
        )))
    }

    fn listed(&self) -> String {
        self.types.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

fn types(schema: &Value) -> BTreeMap<String, Type> {
    let members = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let is_text = |member: &Value| match member.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        // A reference to a definition: texts with a name of their own, such as a language code, are strings there.
        _ => member
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|path| schema.pointer(path.trim_start_matches('#')))
            .is_some_and(|definition| definition.get("type").is_some_and(|of| of == "string")),
    };
    members
        .iter()
        .map(|(name, member)| (name.clone(), if is_text(member) { Type::Text } else { Type::Json }))
        .collect()
}
