//! Conditions, and whether they hold.

use std::collections::BTreeSet;

use super::super::value::{Item, Value};
use super::parser::Parser;
use super::{Operand, Path, Placeholders};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A condition, filter or key condition.
#[derive(Debug, Clone)]
pub(in crate::aws::dynamodb) enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Test(Test),
}

/// One test within a condition.
#[derive(Debug, Clone)]
pub(in crate::aws::dynamodb) struct Test(pub(super) TestKind);

#[derive(Debug, Clone)]
pub(super) enum TestKind {
    Compare(Comparator, Operand, Operand),
    Between(Operand, Operand, Operand),
    In(Operand, Vec<Operand>),
    Exists(Path),
    NotExists(Path),
    Type(Path, Value),
    BeginsWith(Operand, Operand),
    Contains(Operand, Operand),
}

impl Condition {
    pub(in crate::aws::dynamodb) fn parse(
        text: &str,
        placeholders: &Placeholders,
    ) -> Result<Condition, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let condition = parser.or()?;
        parser.end()?;
        Ok(condition)
    }

    /// Whether the item (empty if there is none) fulfils the condition.
    pub(in crate::aws::dynamodb) fn holds(&self, item: &Item) -> bool {
        match self {
            Condition::And(a, b) => a.holds(item) && b.holds(item),
            Condition::Or(a, b) => a.holds(item) || b.holds(item),
            Condition::Not(inner) => !inner.holds(item),
            Condition::Test(test) => test.holds(item),
        }
    }

    /// For a key condition: the value that it demands of `attribute`, if it is joined by AND alone.
    pub(in crate::aws::dynamodb) fn equality(&self, attribute: &str) -> Option<&Value> {
        match self {
            Condition::And(a, b) => a.equality(attribute).or_else(|| b.equality(attribute)),
            Condition::Test(Test(TestKind::Compare(
                Comparator::Equal,
                Operand::Path(path),
                Operand::Value(value),
            ))) => (path.steps.is_empty() && path.root == attribute).then_some(value),
            _ => None,
        }
    }

    /// The attributes that the condition looks at.
    pub(in crate::aws::dynamodb) fn attributes(&self) -> BTreeSet<&str> {
        match self {
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.attributes().into_iter().chain(b.attributes()).collect()
            }
            Condition::Not(inner) => inner.attributes(),
            Condition::Test(test) => test.attributes(),
        }
    }
}

impl Test {
    fn holds(&self, item: &Item) -> bool {
        match &self.0 {
            TestKind::Compare(comparator, a, b) => compare(*comparator, a.get(item), b.get(item)),
            TestKind::Between(value, low, high) => {
                let value = value.get(item);
                compare(Comparator::GreaterOrEqual, value.clone(), low.get(item))
                    && compare(Comparator::LessOrEqual, value, high.get(item))
            }
            TestKind::In(value, options) => {
                options.iter().any(|option| compare(Comparator::Equal, value.get(item), option.get(item)))
            }
            TestKind::Exists(path) => path.get(item).is_some(),
            TestKind::NotExists(path) => path.get(item).is_none(),
            TestKind::Type(path, kind) => {
                path.get(item).is_some_and(|value| kind.as_text() == Some(value.type_name()))
            }
            TestKind::BeginsWith(value, prefix) => match (value.get(item), prefix.get(item)) {
                (Some(Value::S(value)), Some(Value::S(prefix))) => value.starts_with(&prefix),
                (Some(Value::B(value)), Some(Value::B(prefix))) => value.starts_with(&prefix),
                _ => false,
            },
            TestKind::Contains(value, part) => match (value.get(item), part.get(item)) {
                (Some(Value::S(value)), Some(Value::S(part))) => value.contains(&part),
                (Some(Value::Ss(set)), Some(Value::S(part))) => set.contains(&part),
                (Some(Value::Ns(set)), Some(Value::N(part))) => set.contains(&part),
                (Some(Value::Bs(set)), Some(Value::B(part))) => set.contains(&part),
                (Some(Value::L(elements)), Some(part)) => elements.contains(&part),
                _ => false,
            },
        }
    }

    fn attributes(&self) -> BTreeSet<&str> {
        fn of(operand: &Operand) -> Option<&str> {
            match operand {
                Operand::Path(path) | Operand::Size(path) => Some(&path.root),
                Operand::Value(_) => None,
            }
        }
        match &self.0 {
            TestKind::Compare(_, a, b) | TestKind::BeginsWith(a, b) | TestKind::Contains(a, b) => {
                [of(a), of(b)].into_iter().flatten().collect()
            }
            TestKind::Between(a, b, c) => [of(a), of(b), of(c)].into_iter().flatten().collect(),
            TestKind::In(a, options) => options.iter().chain([a]).filter_map(of).collect(),
            TestKind::Exists(path) | TestKind::NotExists(path) | TestKind::Type(path, _) => {
                BTreeSet::from([path.root.as_str()])
            }
        }
    }
}

/// A missing operand equals nothing and differs from everything; order exists only within a type.
fn compare(comparator: Comparator, a: Option<Value>, b: Option<Value>) -> bool {
    let (Some(a), Some(b)) = (a, b) else {
        return comparator == Comparator::Unequal;
    };
    match comparator {
        Comparator::Equal => a == b,
        Comparator::Unequal => a != b,
        Comparator::Less => a.compare(&b).is_some_and(std::cmp::Ordering::is_lt),
        Comparator::LessOrEqual => a.compare(&b).is_some_and(std::cmp::Ordering::is_le),
        Comparator::Greater => a.compare(&b).is_some_and(std::cmp::Ordering::is_gt),
        Comparator::GreaterOrEqual => a.compare(&b).is_some_and(std::cmp::Ordering::is_ge),
    }
}
