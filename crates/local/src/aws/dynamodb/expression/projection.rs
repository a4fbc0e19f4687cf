//! Projections: the part of an item that is asked for.

use super::super::value::{Item, Value};
use super::parser::{Parser, Token};
use super::{Path, Placeholders, Step};

/// The paths of a projection expression.
#[derive(Debug, Clone)]
pub(in crate::aws::dynamodb) struct Projection {
    paths: Vec<Path>,
}

impl Projection {
    pub(in crate::aws::dynamodb) fn parse(
        text: &str,
        placeholders: &Placeholders,
    ) -> Result<Projection, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let mut paths = vec![parser.path()?];
        while parser.take(&Token::Comma) {
            paths.push(parser.path()?);
        }
        parser.end()?;
        Ok(Projection { paths })
    }

    pub(in crate::aws::dynamodb) fn apply(&self, item: &Item) -> Item {
        let mut projected = Item::new();
        for path in &self.paths {
            let Some(value) = path.get(item) else { continue };
            // From the inside out: the value, wrapped in the containers that lead to it.
            let wrapped = path.steps.iter().rev().fold(value.clone(), |inner, step| match step {
                Step::Member(name) => Value::M(Item::from([(name.clone(), inner)])),
                Step::Element(_) => Value::L(vec![inner]),
            });
            match projected.get_mut(&path.root) {
                Some(present) => merge(present, wrapped),
                None => {
                    projected.insert(path.root.clone(), wrapped);
                }
            }
        }
        projected
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::M(into), Value::M(from)) => {
            for (name, value) in from {
                match into.get_mut(&name) {
                    Some(present) => merge(present, value),
                    None => {
                        into.insert(name, value);
                    }
                }
            }
        }
        (Value::L(into), Value::L(from)) => into.extend(from),
        _ => {}
    }
}
