//! DynamoDB's expressions: conditions, updates and projections.
//!
//! The grammar is that of the Developer Guide ("Expressions in DynamoDB"), with its refusals: reserved words as bare names, placeholders that are not defined or not used, overlapping paths, wrong operand types.
//! They matter here, because an expression that only a lenient stand-in accepts fails in the account.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use bigdecimal::BigDecimal;

use super::reserved::is_reserved;
use super::value::{Item, Value, check_number};

/// Longest expression (Developer Guide, "Quotas": 4 KB).
const EXPRESSION_BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses and functions; a limit so that no expression exhausts the stack.
const DEPTH_MAX: usize = 64;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A condition, filter or key condition.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
    Not(Box<Condition>),
    Test(Test),
}

/// One test within a condition.
#[derive(Debug, Clone)]
pub(super) struct Test(TestKind);

#[derive(Debug, Clone)]
enum TestKind {
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
    pub(super) fn parse(text: &str, placeholders: &Placeholders) -> Result<Condition, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let condition = parser.or()?;
        parser.end()?;
        Ok(condition)
    }

    /// Whether the item (empty if there is none) fulfils the condition.
    pub(super) fn holds(&self, item: &Item) -> bool {
        match self {
            Condition::And(a, b) => a.holds(item) && b.holds(item),
            Condition::Or(a, b) => a.holds(item) || b.holds(item),
            Condition::Not(inner) => !inner.holds(item),
            Condition::Test(test) => test.holds(item),
        }
    }

    /// For a key condition: the value that it demands of `attribute`, if it is joined by AND alone.
    pub(super) fn equality(&self, attribute: &str) -> Option<&Value> {
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
    pub(super) fn attributes(&self) -> BTreeSet<&str> {
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

#[derive(Debug, Clone)]
enum SetValue {
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
enum Action {
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
pub(super) struct Update {
    actions: Vec<Action>,
}

impl Update {
    pub(super) fn parse(text: &str, placeholders: &Placeholders) -> Result<Update, String> {
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
    pub(super) fn attributes(&self) -> impl Iterator<Item = &str> {
        self.actions.iter().map(|action| action.path().root.as_str())
    }

    /// The item after the update; every value is computed from the item before it.
    pub(super) fn apply(&self, before: &Item) -> Result<Item, String> {
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

/// The paths of a projection expression.
#[derive(Debug, Clone)]
pub(super) struct Projection {
    paths: Vec<Path>,
}

impl Projection {
    pub(super) fn parse(text: &str, placeholders: &Placeholders) -> Result<Projection, String> {
        let mut parser = Parser::new(text, placeholders)?;
        let mut paths = vec![parser.path()?];
        while parser.take(&Token::Comma) {
            paths.push(parser.path()?);
        }
        parser.end()?;
        Ok(Projection { paths })
    }

    pub(super) fn apply(&self, item: &Item) -> Item {
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

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Value(String),
    Number(usize),
    Open,
    Close,
    OpenIndex,
    CloseIndex,
    Comma,
    Dot,
    Plus,
    Minus,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(&c) = chars.peek() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if c.is_whitespace() {
            chars.next();
            continue;
        }
        if is_word(c) || c == '#' || c == ':' {
            let mut word = String::from(c);
            chars.next();
            while let Some(c) = chars.next_if(|c| is_word(*c)) {
                word.push(c);
            }
            tokens.push(match c {
                '#' => Token::Name(word),
                ':' => Token::Value(word),
                _ if c.is_ascii_digit() => {
                    Token::Number(word.parse().map_err(|_| format!("Syntax error; token: \"{word}\""))?)
                }
                _ => Token::Word(word),
            });
            continue;
        }
        chars.next();
        tokens.push(match c {
            '(' => Token::Open,
            ')' => Token::Close,
            '[' => Token::OpenIndex,
            ']' => Token::CloseIndex,
            ',' => Token::Comma,
            '.' => Token::Dot,
            '+' => Token::Plus,
            '-' => Token::Minus,
            '=' => Token::Equal,
            '<' if chars.next_if_eq(&'>').is_some() => Token::Unequal,
            '<' if chars.next_if_eq(&'=').is_some() => Token::LessOrEqual,
            '<' => Token::Less,
            '>' if chars.next_if_eq(&'=').is_some() => Token::GreaterOrEqual,
            '>' => Token::Greater,
            _ => return Err(format!("Syntax error; token: \"{c}\"")),
        });
    }
    Ok(tokens)
}

struct Parser<'request> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    placeholders: &'request Placeholders,
    depth: usize,
}

impl<'request> Parser<'request> {
    fn new(text: &str, placeholders: &'request Placeholders) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!(
                "Expression size has exceeded the maximum allowed size; expression size: {}",
                text.len()
            ));
        }
        if text.trim().is_empty() {
            return Err("The expression can not be empty;".to_owned());
        }
        Ok(Parser { tokens: tokens(text)?.into_iter().peekable(), placeholders, depth: 0 })
    }

    fn take(&mut self, token: &Token) -> bool {
        self.tokens.next_if_eq(token).is_some()
    }

    fn expect(&mut self, token: &Token) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    fn unexpected(&mut self) -> String {
        match self.tokens.peek() {
            Some(token) => format!("Syntax error; token: {token:?}"),
            None => "Syntax error; token: \"<EOF>\"".to_owned(),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        match self.tokens.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected()),
        }
    }

    /// Takes a keyword, whatever its case.
    fn take_word(&mut self, word: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word)))
            .is_some()
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("The expression is nested too deeply".to_owned());
        }
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

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

    fn operand(&mut self) -> Result<Operand, String> {
        if let Some(Token::Value(placeholder)) = self.tokens.peek().cloned() {
            self.tokens.next();
            return Ok(Operand::Value(self.placeholders.value(&placeholder)?));
        }
        if self.tokens.peek() == Some(&Token::Word("size".to_owned())) {
            self.tokens.next();
            self.expect(&Token::Open)?;
            let path = self.path()?;
            self.expect(&Token::Close)?;
            return Ok(Operand::Size(path));
        }
        Ok(Operand::Path(self.path()?))
    }

    fn path(&mut self) -> Result<Path, String> {
        let root = self.attribute_name()?;
        let mut steps = Vec::new();
        loop {
            if self.take(&Token::Dot) {
                steps.push(Step::Member(self.attribute_name()?));
            } else if self.take(&Token::OpenIndex) {
                let Some(Token::Number(index)) = self.tokens.next() else {
                    return Err("Syntax error; an index must be a number".to_owned());
                };
                steps.push(Step::Element(index));
                self.expect(&Token::CloseIndex)?;
            } else {
                return Ok(Path { root, steps });
            }
        }
    }

    fn attribute_name(&mut self) -> Result<String, String> {
        match self.tokens.peek().cloned() {
            Some(Token::Name(placeholder)) => {
                self.tokens.next();
                self.placeholders.name(&placeholder)
            }
            Some(Token::Word(word)) if is_reserved(&word) => {
                Err(format!("Attribute name is a reserved keyword; reserved keyword: {word}"))
            }
            Some(Token::Word(word)) => {
                self.tokens.next();
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::super::value::{item_from_json, item_to_json};
    use super::*;
    use serde_json::{Value as Json, json};

    fn placeholders() -> Placeholders {
        let names = [("#state", "state"), ("#name", "a.b")];
        let values = json!({
            ":open": {"S": "open"}, ":one": {"N": "1"}, ":five": {"N": "5"}, ":nine": {"N": "9"},
            ":pre": {"S": "op"}, ":set": {"SS": ["x"]}, ":list": {"L": [{"N": "7"}]}, ":string": {"S": "S"},
        });
        Placeholders::new(
            names.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect(),
            item_from_json(&values).unwrap(),
        )
    }

    fn item() -> Item {
        item_from_json(&json!({
            "id": {"S": "1"}, "state": {"S": "open"}, "n": {"N": "5"}, "tags": {"SS": ["x", "y"]},
            "steps": {"L": [{"S": "first"}, {"S": "second"}]}, "deep": {"M": {"inside": {"N": "2"}}}, "a.b": {"BOOL": true},
        }))
        .unwrap()
    }

    #[test]
    fn conditions_hold_as_documented() {
        for (condition, expected) in [
            ("#state = :open", true),
            ("#state <> :open", false),
            ("absent = :open", false),
            ("absent <> :open", true),
            ("absent < :one", false),
            ("#state < :one", false),
            ("n >= :five AND n <= :five", true),
            ("n BETWEEN :one AND :nine", true),
            ("n IN (:one, :nine)", false),
            ("NOT n IN (:one, :nine)", true),
            ("attribute_not_exists(id) OR n = :five", true),
            ("attribute_not_exists(id) OR n = :one AND n = :five", false),
            ("(attribute_exists(id) OR n = :one) AND n = :one", false),
            ("attribute_exists(deep.inside) and attribute_not_exists(deep.outside)", true),
            ("attribute_type(#state, :string)", true),
            ("begins_with(#state, :pre)", true),
            ("contains(tags, :open)", false),
            ("contains(#state, :pre)", true),
            ("size(steps) > :one", true),
            ("steps[1] = steps[1]", true),
            ("attribute_exists(#name)", true),
            ("attribute_exists(a.b)", false),
        ] {
            let placeholders = placeholders();
            let parsed = Condition::parse(condition, &placeholders)
                .unwrap_or_else(|error| panic!("{condition}: {error}"));
            assert_eq!(parsed.holds(&item()), expected, "{condition}");
        }
    }

    #[test]
    fn updates_change_what_they_say_from_the_values_before() {
        for (update, path, expected) in [
            ("SET n = n + :one", "n", json!({"N": "6"})),
            ("SET n = :nine - n", "n", json!({"N": "4"})),
            ("SET n = if_not_exists(absent, :one) + :one", "n", json!({"N": "2"})),
            ("SET n = if_not_exists(n, :one)", "n", json!({"N": "5"})),
            ("set fresh = n, n = :one", "fresh", json!({"N": "5"})),
            ("ADD n :nine", "n", json!({"N": "14"})),
            ("ADD fresh :nine", "fresh", json!({"N": "9"})),
            ("DELETE tags :set", "tags", json!({"SS": ["y"]})),
            ("ADD fresh :set", "fresh", json!({"SS": ["x"]})),
            (
                "SET steps = list_append(steps, :list)",
                "steps",
                json!({"L": [{"S": "first"}, {"S": "second"}, {"N": "7"}]}),
            ),
            ("SET steps[0] = :one REMOVE n", "steps", json!({"L": [{"N": "1"}, {"S": "second"}]})),
            ("REMOVE steps[0]", "steps", json!({"L": [{"S": "second"}]})),
            ("SET deep.outside = :one", "deep", json!({"M": {"inside": {"N": "2"}, "outside": {"N": "1"}}})),
            ("REMOVE #state", "state", Json::Null),
        ] {
            let placeholders = placeholders();
            let parsed =
                Update::parse(update, &placeholders).unwrap_or_else(|error| panic!("{update}: {error}"));
            let after = item_to_json(&parsed.apply(&item()).unwrap());
            assert_eq!(after.get(path).cloned().unwrap_or_default(), expected, "{update}");
        }
    }

    #[test]
    fn what_dynamodb_refuses_is_refused() {
        for condition in [
            "state = :open",
            "n = :absent",
            "#absent = :one",
            "n =",
            "n = :one AND",
            "(n = :one",
            "n : :one",
            "",
            "n",
            "attribute_type(n, n)",
            "begins_with(n)",
        ] {
            assert!(Condition::parse(condition, &placeholders()).is_err(), "{condition}");
        }
        for update in [
            "SET n = :one SET steps = :list",
            "SET n = :one, n = :nine",
            "SET deep = :one, deep.inside = :one",
            "ADD n :open",
            "DELETE tags :one",
            "SET n = size(steps)",
            "n = :one",
            "SET status = :one",
            "REMOVE",
            "SET n = n + n + n",
        ] {
            assert!(Update::parse(update, &placeholders()).is_err(), "{update}");
        }
        for update in ["SET n = absent", "SET n = n + #state", "SET absent.x = :one", "ADD #state :one"] {
            let placeholders = placeholders();
            let parsed = Update::parse(update, &placeholders).unwrap();
            assert!(parsed.apply(&item()).is_err(), "{update}");
        }
        let nested = format!("{}n = :one{}", "(".repeat(1000), ")".repeat(1000));
        assert!(Condition::parse(&nested, &placeholders()).is_err());
    }

    #[test]
    fn placeholders_that_nothing_uses_are_refused() {
        let values = item_from_json(&json!({":one": {"N": "1"}, ":two": {"N": "2"}})).unwrap();
        let placeholders = Placeholders::new(BTreeMap::new(), values);
        Condition::parse("n = :one", &placeholders).unwrap();
        assert!(placeholders.check_all_used().unwrap_err().contains(":two"));
        Condition::parse("n = :two", &placeholders).unwrap();
        placeholders.check_all_used().unwrap();
    }

    #[test]
    fn a_projection_keeps_the_paths_and_their_containers() {
        let placeholders = placeholders();
        let projection = Projection::parse("id, deep.inside, steps[1], absent", &placeholders).unwrap();
        assert_eq!(
            item_to_json(&projection.apply(&item())),
            json!({"id": {"S": "1"}, "deep": {"M": {"inside": {"N": "2"}}}, "steps": {"L": [{"S": "second"}]}})
        );
    }
}
