//! Conditions, and whether they hold.

use std::collections::BTreeSet;

use super::super::value::{Item, Value};
use super::parser::{Parser, Token};
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

impl Parser<'_> {
    fn or(&mut self) -> Result<Condition, String> {
        let mut condition = self.and()?;
        while self.take_word("OR") {
            condition = Condition::Or(Box::new(condition), Box::new(self.and()?));
        }
        Ok(condition)
    }

    fn and(&mut self) -> Result<Condition, String> {
        let mut condition = self.not()?;
        while self.take_word("AND") {
            condition = Condition::And(Box::new(condition), Box::new(self.not()?));
        }
        Ok(condition)
    }

    fn not(&mut self) -> Result<Condition, String> {
        if self.take_word("NOT") {
            return self.deeper(|parser| Ok(Condition::Not(Box::new(parser.not()?))));
        }
        if self.take(&Token::Open) {
            let condition = self.deeper(Self::or)?;
            self.expect(&Token::Close)?;
            return Ok(condition);
        }
        Ok(Condition::Test(Test(self.test()?)))
    }

    fn test(&mut self) -> Result<TestKind, String> {
        if let Some(Token::Word(word)) = self.tokens.peek().cloned() {
            let function = match word.as_str() {
                "attribute_exists"
                | "attribute_not_exists"
                | "attribute_type"
                | "begins_with"
                | "contains" => word,
                _ => String::new(),
            };
            if !function.is_empty() {
                self.tokens.next();
                self.expect(&Token::Open)?;
                let test = self.function(&function)?;
                self.expect(&Token::Close)?;
                return Ok(test);
            }
        }
        let operand = self.operand()?;
        if self.take_word("BETWEEN") {
            let low = self.operand()?;
            if !self.take_word("AND") {
                return Err(self.unexpected());
            }
            return Ok(TestKind::Between(operand, low, self.operand()?));
        }
        if self.take_word("IN") {
            self.expect(&Token::Open)?;
            let mut options = vec![self.operand()?];
            while self.take(&Token::Comma) {
                options.push(self.operand()?);
            }
            self.expect(&Token::Close)?;
            return Ok(TestKind::In(operand, options));
        }
        let comparator = match self.tokens.peek() {
            Some(Token::Equal) => Comparator::Equal,
            Some(Token::Unequal) => Comparator::Unequal,
            Some(Token::Less) => Comparator::Less,
            Some(Token::LessOrEqual) => Comparator::LessOrEqual,
            Some(Token::Greater) => Comparator::Greater,
            Some(Token::GreaterOrEqual) => Comparator::GreaterOrEqual,
            _ => return Err(self.unexpected()),
        };
        self.tokens.next();
        Ok(TestKind::Compare(comparator, operand, self.operand()?))
    }

    fn function(&mut self, function: &str) -> Result<TestKind, String> {
        match function {
            "attribute_exists" => Ok(TestKind::Exists(self.path()?)),
            "attribute_not_exists" => Ok(TestKind::NotExists(self.path()?)),
            "attribute_type" => {
                let path = self.path()?;
                self.expect(&Token::Comma)?;
                match self.operand()? {
                    Operand::Value(kind @ Value::S(_)) => Ok(TestKind::Type(path, kind)),
                    _ => Err("Incorrect operand type for operator or function; operator or function: attribute_type".to_owned()),
                }
            }
            _ => {
                let value = self.operand()?;
                self.expect(&Token::Comma)?;
                let part = self.operand()?;
                Ok(if function == "contains" {
                    TestKind::Contains(value, part)
                } else {
                    TestKind::BeginsWith(value, part)
                })
            }
        }
    }
}
