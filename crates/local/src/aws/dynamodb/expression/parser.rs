//! The text of an expression, token by token; the grammar of each kind stands beside what it makes.

use super::super::reserved::is_reserved;
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
    pub(super) tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
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

    pub(super) fn expect(&mut self, token: &Token) -> Result<(), String> {
        if self.take(token) {
            return Ok(());
        }
        Err(self.unexpected())
    }

    pub(super) fn unexpected(&mut self) -> String {
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
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        self.tokens
            .next_if(|token| matches!(token, Token::Word(text) if text.eq_ignore_ascii_case(word)))
            .is_some()
    }

    pub(super) fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("The expression is nested too deeply".to_owned());
        }
        let parsed = parse(self)?;
        self.depth -= 1;
        Ok(parsed)
    }

    pub(super) fn operand(&mut self) -> Result<Operand, String> {
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
}
