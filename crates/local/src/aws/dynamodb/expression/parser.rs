//! From the text of an expression to what it says.

use std::collections::HashSet;

use super::super::reserved::is_reserved;
use super::super::value::Value;
use super::condition::{Comparator, Condition, Test, TestKind};
use super::update::{Action, SetValue};
use super::{Operand, Path, Placeholders, Step};

/// Longest expression (Developer Guide, "Quotas": 4 KB).
const EXPRESSION_BYTES_MAX: usize = 4096;

/// Deepest nesting of parentheses and functions; a limit so that no expression exhausts the stack.
const DEPTH_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
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

pub(super) struct Parser<'request> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    placeholders: &'request Placeholders,
    depth: usize,
}

impl<'request> Parser<'request> {
    pub(super) fn new(text: &str, placeholders: &'request Placeholders) -> Result<Self, String> {
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

    pub(super) fn take(&mut self, token: &Token) -> bool {
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

    pub(super) fn end(&mut self) -> Result<(), String> {
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

    pub(super) fn or(&mut self) -> Result<Condition, String> {
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

    pub(super) fn path(&mut self) -> Result<Path, String> {
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

    pub(super) fn update(&mut self) -> Result<Vec<Action>, String> {
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
