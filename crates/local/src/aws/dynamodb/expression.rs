//! DynamoDB's expressions: conditions, updates and projections.
//!
//! The grammar is that of the Developer Guide ("Expressions in DynamoDB"), with its refusals: reserved words as bare names, placeholders that are not defined or not used, overlapping paths, wrong operand types.
//! They matter here, because an expression that only a lenient stand-in accepts fails in the account.

mod condition;
mod parser;
mod projection;
mod update;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use bigdecimal::BigDecimal;

pub(super) use self::condition::Condition;
pub(super) use self::projection::Projection;
pub(super) use self::update::Update;
use super::value::{Item, Value};

/// The placeholders of one request, which remember what was used.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, Value>,
    used: RefCell<HashSet<String>>,
}

impl Placeholders {
    pub(super) fn new(names: BTreeMap<String, String>, values: BTreeMap<String, Value>) -> Self {
        Placeholders { names, values, used: RefCell::default() }
    }

    fn name(&self, placeholder: &str) -> Result<String, String> {
        self.used.borrow_mut().insert(placeholder.to_owned());
        self.names.get(placeholder).cloned().ok_or_else(|| {
            format!("An expression attribute name used in the document path is not defined; attribute name: {placeholder}")
        })
    }

    fn value(&self, placeholder: &str) -> Result<Value, String> {
        self.used.borrow_mut().insert(placeholder.to_owned());
        self.values.get(placeholder).cloned().ok_or_else(|| {
            format!("An expression attribute value used in expression is not defined; attribute value: {placeholder}")
        })
    }

    /// Refuses placeholders that no expression of the request uses.
    pub(super) fn check_all_used(&self) -> Result<(), String> {
        let used = self.used.borrow();
        if let Some(name) = self.names.keys().find(|name| !used.contains(*name)) {
            return Err(format!(
                "Value provided in ExpressionAttributeNames unused in expressions: keys: {{{name}}}"
            ));
        }
        if let Some(name) = self.values.keys().find(|name| !used.contains(*name)) {
            return Err(format!(
                "Value provided in ExpressionAttributeValues unused in expressions: keys: {{{name}}}"
            ));
        }
        Ok(())
    }
}

/// The way to a value within an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Path {
    pub(super) root: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Member(String),
    Element(usize),
}

impl Path {
    fn get<'item>(&self, item: &'item Item) -> Option<&'item Value> {
        let mut value = item.get(&self.root)?;
        for step in &self.steps {
            value = match (step, value) {
                (Step::Member(name), Value::M(members)) => members.get(name)?,
                (Step::Element(index), Value::L(elements)) => elements.get(*index)?,
                _ => return None,
            };
        }
        Some(value)
    }

    fn overlaps(&self, other: &Path) -> bool {
        self.root == other.root && self.steps.iter().zip(&other.steps).all(|(a, b)| a == b)
    }
}

#[derive(Debug, Clone)]
enum Operand {
    Path(Path),
    Value(Value),
    Size(Path),
}

impl Operand {
    fn get(&self, item: &Item) -> Option<Value> {
        match self {
            Operand::Path(path) => path.get(item).cloned(),
            Operand::Value(value) => Some(value.clone()),
            Operand::Size(path) => {
                path.get(item).and_then(Value::size).map(|size| Value::N(BigDecimal::from(size as u64)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
