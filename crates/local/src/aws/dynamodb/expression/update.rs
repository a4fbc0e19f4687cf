//! Updates, and what becomes of an item.

use std::collections::HashSet;

use bigdecimal::BigDecimal;

use super::super::value::{Item, Value, check_number};
use super::parser::{Parser, Token};
use super::{Operand, Path, Placeholders, Step};

#[derive(Debug, Clone)]
pub(super) enum SetValue {
    Operand(Operand),
    IfNotExists(Path, Box<SetValue>),
    ListAppend(Box<SetValue>, Box<SetValue>),
    Sum(Box<SetValue>, Box<SetValue>),
    Difference(Box<SetValue>, Box<SetValue>),
}

impl SetValue {
    fn get(&self, item: &Item) -> Result<Value, String> {
        match self {
            SetValue::Operand(operand) => operand.get(item).ok_or_else(|| {
                "The provided expression refers to an attribute that does not exist in the item".to_owned()
            }),
            SetValue::IfNotExists(path, default) => {
                path.get(item).cloned().map_or_else(|| default.get(item), Ok)
            }
            SetValue::ListAppend(a, b) => match (a.get(item)?, b.get(item)?) {
                (Value::L(mut a), Value::L(b)) => {
                    a.extend(b);
                    Ok(Value::L(a))
                }
                _ => Err(WRONG_OPERAND.to_owned()),
            },
            SetValue::Sum(a, b) => arithmetic(&a.get(item)?, &b.get(item)?, |a, b| a + b),
            SetValue::Difference(a, b) => arithmetic(&a.get(item)?, &b.get(item)?, |a, b| a - b),
        }
    }
}

const WRONG_OPERAND: &str = "An operand in the update expression has an incorrect data type";

const WRONG_PATH: &str = "The document path provided in the update expression is invalid for update";

fn arithmetic(
    a: &Value,
    b: &Value,
    combine: impl Fn(&BigDecimal, &BigDecimal) -> BigDecimal,
) -> Result<Value, String> {
    match (a, b) {
        (Value::N(a), Value::N(b)) => Ok(Value::N(check_number(combine(a, b))?)),
        _ => Err(WRONG_OPERAND.to_owned()),
    }
}

#[derive(Debug, Clone)]
pub(super) enum Action {
    Set(Path, SetValue),
    Remove(Path),
    Add(Path, Value),
    Delete(Path, Value),
}

impl Action {
    fn path(&self) -> &Path {
        match self {
            Action::Set(path, _) | Action::Remove(path) | Action::Add(path, _) | Action::Delete(path, _) => {
                path
            }
        }
    }
}

/// A parsed update expression.
#[derive(Debug, Clone, Default)]
pub(in crate::aws::dynamodb) struct Update {
    actions: Vec<Action>,
}

impl Update {
    pub(in crate::aws::dynamodb) fn parse(text: &str, placeholders: &Placeholders) -> Result<Update, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let update = Update { actions: parser.update()? };
        parser.end()?;
        for (index, action) in update.actions.iter().enumerate() {
            let others = update.actions.iter().skip(index + 1);
            if let Some(other) = others.map(Action::path).find(|other| other.overlaps(action.path())) {
                return Err(format!(
                    "Invalid UpdateExpression: Two document paths overlap with each other; must remove or rewrite one of these paths; path one: [{}], path two: [{}]",
                    action.path().root,
                    other.root
                ));
            }
        }
        Ok(update)
    }

    /// The names of the attributes that the update touches.
    pub(in crate::aws::dynamodb) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().map(|action| action.path().root.as_str())
    }

    /// The item after the update; every value is computed from the item before it.
    pub(in crate::aws::dynamodb) fn apply(&self, before: &Item) -> Result<Item, String> {
        let mut after = before.clone();
        for action in &self.actions {
            match action {
                Action::Set(path, value) => put(&mut after, path, value.get(before)?)?,
                Action::Remove(path) => remove(&mut after, path)?,
                Action::Add(path, value) => {
                    let sum = add(path.get(before), value)?;
                    put(&mut after, path, sum)?;
                }
                Action::Delete(path, value) => {
                    if let Some(set) = path.get(before) {
                        match subtract(set, value)? {
                            Some(rest) => put(&mut after, path, rest)?,
                            None => remove(&mut after, path)?,
                        }
                    }
                }
            }
        }
        Ok(after)
    }
}

fn add(current: Option<&Value>, value: &Value) -> Result<Value, String> {
    match (current, value) {
        (None, Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) => Ok(value.clone()),
        (Some(current @ Value::N(_)), Value::N(_)) => arithmetic(current, value, |a, b| a + b),
        (Some(Value::Ss(a)), Value::Ss(b)) => Ok(Value::Ss(a | b)),
        (Some(Value::Ns(a)), Value::Ns(b)) => Ok(Value::Ns(a | b)),
        (Some(Value::Bs(a)), Value::Bs(b)) => Ok(Value::Bs(a | b)),
        _ => Err(WRONG_OPERAND.to_owned()),
    }
}

/// A set less another; nothing when no element is left, because sets are never empty.
fn subtract(set: &Value, value: &Value) -> Result<Option<Value>, String> {
    Ok(match (set, value) {
        (Value::Ss(a), Value::Ss(b)) => Some(a - b).filter(|rest| !rest.is_empty()).map(Value::Ss),
        (Value::Ns(a), Value::Ns(b)) => Some(a - b).filter(|rest| !rest.is_empty()).map(Value::Ns),
        (Value::Bs(a), Value::Bs(b)) => Some(a - b).filter(|rest| !rest.is_empty()).map(Value::Bs),
        _ => return Err(WRONG_OPERAND.to_owned()),
    })
}

/// The container that holds the last step of a path.
enum Holder<'item> {
    Members(&'item mut Item, String),
    Elements(&'item mut Vec<Value>, usize),
}

fn holder<'item>(item: &'item mut Item, path: &Path) -> Result<Holder<'item>, String> {
    let Some((last, between)) = path.steps.split_last() else {
        return Ok(Holder::Members(item, path.root.clone()));
    };
    let mut value = item.get_mut(&path.root).ok_or(WRONG_PATH)?;
    for step in between {
        value = match (step, value) {
            (Step::Member(name), Value::M(members)) => members.get_mut(name).ok_or(WRONG_PATH)?,
            (Step::Element(index), Value::L(elements)) => elements.get_mut(*index).ok_or(WRONG_PATH)?,
            _ => return Err(WRONG_PATH.to_owned()),
        };
    }
    match (last, value) {
        (Step::Member(name), Value::M(members)) => Ok(Holder::Members(members, name.clone())),
        (Step::Element(index), Value::L(elements)) => Ok(Holder::Elements(elements, *index)),
        _ => Err(WRONG_PATH.to_owned()),
    }
}

fn put(item: &mut Item, path: &Path, value: Value) -> Result<(), String> {
    match holder(item, path)? {
        Holder::Members(members, name) => {
            members.insert(name, value);
        }
        Holder::Elements(elements, index) => match elements.get_mut(index) {
            Some(element) => *element = value,
            // Beyond the end means at the end.
            None => elements.push(value),
        },
    }
    Ok(())
}

fn remove(item: &mut Item, path: &Path) -> Result<(), String> {
    match holder(item, path)? {
        Holder::Members(members, name) => {
            members.remove(&name);
        }
        Holder::Elements(elements, index) => {
            if index < elements.len() {
                elements.remove(index);
            }
        }
    }
    Ok(())
}

impl Parser<'_> {
    fn update(&mut self) -> Result<Vec<Action>, String> {
        let mut actions = Vec::new();
        let mut seen = HashSet::new();
        while let Some(Token::Word(word)) = self.tokens.peek().cloned() {
            let section = word.to_ascii_uppercase();
            self.tokens.next();
            if !seen.insert(section.clone()) {
                return Err(format!(
                    "The \"{section}\" section can only be used once in an update expression;"
                ));
            }
            loop {
                let action = self.action(&section)?;
                actions.push(action);
                if !self.take(&Token::Comma) {
                    break;
                }
            }
        }
        Ok(actions)
    }

    fn action(&mut self, section: &str) -> Result<Action, String> {
        match section {
            "SET" => {
                let path = self.path()?;
                self.expect(&Token::Equal)?;
                Ok(Action::Set(path, self.set_value()?))
            }
            "REMOVE" => Ok(Action::Remove(self.path()?)),
            "ADD" | "DELETE" => {
                let path = self.path()?;
                let Operand::Value(value) = self.operand()? else {
                    return Err(self.unexpected());
                };
                match (section, &value) {
                    ("ADD", Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) => {
                        Ok(Action::Add(path, value))
                    }
                    ("DELETE", Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) => Ok(Action::Delete(path, value)),
                    _ => Err(format!(
                        "Incorrect operand type for operator or function; operator: {section}, operand type: {}",
                        value.type_name()
                    )),
                }
            }
            _ => Err(format!("Syntax error; token: \"{section}\"")),
        }
    }

    fn set_value(&mut self) -> Result<SetValue, String> {
        let first = self.set_operand()?;
        if self.take(&Token::Plus) {
            return Ok(SetValue::Sum(Box::new(first), Box::new(self.set_operand()?)));
        }
        if self.take(&Token::Minus) {
            return Ok(SetValue::Difference(Box::new(first), Box::new(self.set_operand()?)));
        }
        Ok(first)
    }

    fn set_operand(&mut self) -> Result<SetValue, String> {
        if self.take(&Token::Open) {
            let inner = self.deeper(Self::set_value)?;
            self.expect(&Token::Close)?;
            return Ok(inner);
        }
        let function = match self.tokens.peek() {
            Some(Token::Word(word)) if word == "if_not_exists" || word == "list_append" => word.clone(),
            _ => return Ok(SetValue::Operand(self.set_plain()?)),
        };
        self.tokens.next();
        self.expect(&Token::Open)?;
        let value = self.deeper(|parser| {
            if function == "if_not_exists" {
                let path = parser.path()?;
                parser.expect(&Token::Comma)?;
                return Ok(SetValue::IfNotExists(path, Box::new(parser.set_operand()?)));
            }
            let first = parser.set_operand()?;
            parser.expect(&Token::Comma)?;
            Ok(SetValue::ListAppend(Box::new(first), Box::new(parser.set_operand()?)))
        })?;
        self.expect(&Token::Close)?;
        Ok(value)
    }

    /// An operand of SET, where `size()` is not known.
    fn set_plain(&mut self) -> Result<Operand, String> {
        match self.operand()? {
            Operand::Size(_) => {
                Err("The function is not allowed in an update expression; function: size".to_owned())
            }
            operand => Ok(operand),
        }
    }
}
