//! Metric math, as far as alarms here use it. ("Use metric math")
//!
//! Functions that give one number over the whole range (`AVG(m)`, `SUM(m)`, …) are errors: an alarm fetches more points
//! than N, so that their value changes with what the documentation does not say.

use crate::readings::{Absent, FillOfNothing, Reading};

/// A parsed expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A literal, the same for each period.
    Number(f64),
    /// The id of another metric of the alarm.
    Id(String),
    /// `-x`.
    Negated(Box<Expr>),
    /// Two operands.
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// `IF(condition, then[, otherwise])`.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
    /// `FILL(x, number)`.
    Fill(Box<Expr>, f64),
    /// `DIFF(x)`: each value less the one before it.
    Diff(Box<Expr>),
    /// `MAX([…])` and its like, over the values of one moment.
    Array(Over, Vec<Expr>),
    /// `HOUR(x)`, `DAY(x)`: of each point's time, whether there is a point or not.
    Clock(Clock, Box<Expr>),
}

/// An operator between two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

/// A function over the values of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // They are what they are called.
pub enum Over {
    Max,
    Min,
    Sum,
    Average,
}

/// A function of a point's time, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// 0 … 23.
    Hour,
    /// 1 (Monday) … 7 (Sunday).
    Day,
}

/// Why an expression is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MathError {
    /// It does not parse.
    #[error("the expression is not understood at `{0}`")]
    Syntax(String),
    /// A function that the evaluator does not know: teach it, with its rules for missing data.
    #[error("the function {0} is unknown to the evaluator, or gives one number over the whole range")]
    UnknownFunction(String),
    /// An id that no metric of the alarm has.
    #[error("no metric has the id {0}")]
    UnknownId(String),
}

/// One value for each moment of the range, the oldest first.
pub type Series = Vec<Option<f64>>;

/// What an expression is computed over.
pub struct Range<'a> {
    /// The series of an id.
    pub series: &'a dyn Fn(&str) -> Option<Series>,
    /// The beginning of each period, in minutes since a Monday 00:00 UTC.
    pub starts: &'a [i64],
    /// How open questions are read.
    pub reading: Reading,
}

enum Computed {
    Number(f64),
    Series(Series),
}

impl Expr {
    /// Parses an expression.
    ///
    /// # Errors
    /// When it is no expression, or has a function that the evaluator does not know.
    pub fn parse(text: &str) -> Result<Self, MathError> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens, at: 0 };
        let expr = parser.or()?;
        match parser.peek() {
            None => Ok(expr),
            Some(token) => Err(MathError::Syntax(token.to_owned())),
        }
    }

    /// The ids that it names.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        match self {
            Self::Number(_) => Vec::new(),
            Self::Id(id) => vec![id],
            Self::Negated(x) | Self::Fill(x, _) | Self::Diff(x) | Self::Clock(_, x) => x.ids(),
            Self::Binary(_, a, b) => [a.ids(), b.ids()].concat(),
            Self::If(c, a, b) => [c.ids(), a.ids(), b.as_ref().map_or(Vec::new(), |b| b.ids())].concat(),
            Self::Array(_, all) => all.iter().flat_map(Self::ids).collect(),
        }
    }

    /// One value for each moment of the range.
    ///
    /// # Errors
    /// When an id is unknown.
    pub fn series(&self, range: &Range<'_>) -> Result<Series, MathError> {
        Ok(match self.compute(range)? {
            Computed::Series(series) => series,
            Computed::Number(number) => vec![Some(number); range.starts.len()],
        })
    }

    fn compute(&self, range: &Range<'_>) -> Result<Computed, MathError> {
        Ok(match self {
            Self::Number(number) => Computed::Number(*number),
            Self::Id(id) => {
                Computed::Series((range.series)(id).ok_or_else(|| MathError::UnknownId(id.clone()))?)
            }
            Self::Negated(x) => {
                Self::Binary(Operator::Subtract, Box::new(Self::Number(0.0)), x.clone()).compute(range)?
            }
            Self::Binary(operator, a, b) => binary(*operator, a.compute(range)?, b.compute(range)?, range),
            Self::If(condition, then, otherwise) => {
                let condition = condition.series(range)?;
                let then = then.series(range)?;
                let otherwise = otherwise.as_ref().map(|x| x.series(range)).transpose()?;
                let chosen = condition.iter().enumerate().map(|(at, condition)| match condition {
                    None => None,
                    Some(0.0) => otherwise.as_ref().and_then(|otherwise| at_or_none(otherwise, at)),
                    Some(_) => Some(at_or_none(&then, at).unwrap_or(0.0)),
                });
                Computed::Series(chosen.collect())
            }
            Self::Fill(x, value) => {
                let series = x.series(range)?;
                let empty = series.iter().all(Option::is_none);
                if empty && range.reading.fill_of_nothing == FillOfNothing::Nothing {
                    Computed::Series(series)
                } else {
                    Computed::Series(series.into_iter().map(|point| point.or(Some(*value))).collect())
                }
            }
            Self::Diff(x) => {
                let mut before = None;
                let differences = x.series(range)?.into_iter().map(|point| {
                    let difference = point.zip(before).map(|(now, before)| now - before);
                    before = point.or(before);
                    difference
                });
                Computed::Series(differences.collect())
            }
            Self::Array(over, all) => {
                let all = all.iter().map(|x| x.series(range)).collect::<Result<Vec<_>, _>>()?;
                let values = (0..range.starts.len()).map(|at| {
                    let present: Vec<f64> = all.iter().filter_map(|series| at_or_none(series, at)).collect();
                    let most = present.iter().copied().reduce(f64::max)?;
                    Some(match over {
                        Over::Max => most,
                        Over::Min => present.iter().copied().fold(most, f64::min),
                        Over::Sum => present.iter().sum(),
                        Over::Average => present.iter().sum::<f64>() / all.len() as f64,
                    })
                });
                Computed::Series(values.collect())
            }
            Self::Clock(clock, x) => {
                x.series(range)?;
                let times = range.starts.iter().map(|minute| {
                    let hours = minute.div_euclid(60);
                    Some(match clock {
                        Clock::Hour => hours.rem_euclid(24) as f64,
                        Clock::Day => (hours.div_euclid(24).rem_euclid(7) + 1) as f64,
                    })
                });
                Computed::Series(times.collect())
            }
        })
    }
}

fn at_or_none(series: &Series, at: usize) -> Option<f64> {
    series.get(at).copied().flatten()
}

fn binary(operator: Operator, a: Computed, b: Computed, range: &Range<'_>) -> Computed {
    let beside_a_number = |point: Option<f64>| match range.reading.beside_a_number {
        Absent::Zero => Some(point.unwrap_or(0.0)),
        Absent::Dropped => point,
    };
    let series = match (a, b) {
        (Computed::Number(a), Computed::Number(b)) => {
            return apply(operator, a, b).map_or(Computed::Series(Series::new()), Computed::Number);
        }
        (Computed::Series(a), Computed::Number(b)) => {
            a.into_iter().map(|a| apply(operator, beside_a_number(a)?, b)).collect()
        }
        (Computed::Number(a), Computed::Series(b)) => {
            b.into_iter().map(|b| apply(operator, a, beside_a_number(b)?)).collect()
        }
        (Computed::Series(a), Computed::Series(b)) => a
            .into_iter()
            .zip(b)
            .map(|pair| match pair {
                (None, None) => None,
                (a, b) => apply(operator, a.unwrap_or(0.0), b.unwrap_or(0.0)),
            })
            .collect(),
    };
    Computed::Series(series)
}

/// `None` where a value is divided by zero: such a point is dropped.
fn apply(operator: Operator, a: f64, b: f64) -> Option<f64> {
    let truth = |holds: bool| Some(f64::from(u8::from(holds)));
    match operator {
        Operator::Add => Some(a + b),
        Operator::Subtract => Some(a - b),
        Operator::Multiply => Some(a * b),
        Operator::Divide => (b != 0.0).then(|| a / b),
        Operator::Less => truth(a < b),
        Operator::LessOrEqual => truth(a <= b),
        Operator::Greater => truth(a > b),
        Operator::GreaterOrEqual => truth(a >= b),
        Operator::Equal => truth(a.total_cmp(&b).is_eq()),
        Operator::NotEqual => truth(a.total_cmp(&b).is_ne()),
        Operator::And => truth(a != 0.0 && b != 0.0),
        Operator::Or => truth(a != 0.0 || b != 0.0),
    }
}

fn tokens(text: &str) -> Result<Vec<String>, MathError> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let length = if word(first) {
            rest.find(|c| !word(c)).unwrap_or(rest.len())
        } else if ["<=", ">=", "==", "!=", "&&", "||"].iter().any(|two| rest.starts_with(two)) {
            2
        } else if "+-*/<>()[],".contains(first) {
            1
        } else {
            return Err(MathError::Syntax(rest.to_owned()));
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [String],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Result<String, MathError> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token.ok_or_else(|| MathError::Syntax("the end".to_owned()))
    }

    fn expect(&mut self, wanted: &str) -> Result<(), MathError> {
        let token = self.next()?;
        if token == wanted { Ok(()) } else { Err(MathError::Syntax(token)) }
    }

    fn takes(&mut self, wanted: &str) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Operands of the next tighter level, joined by the operators of this one, from the left.
    fn level(
        &mut self,
        operator: fn(&str) -> Option<Operator>,
        operand: fn(&mut Self) -> Result<Expr, MathError>,
    ) -> Result<Expr, MathError> {
        let mut left = operand(self)?;
        while let Some(found) = self.peek().and_then(operator) {
            self.at += 1;
            left = Expr::Binary(found, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn or(&mut self) -> Result<Expr, MathError> {
        self.level(|token| matches!(token, "OR" | "||").then_some(Operator::Or), Self::and)
    }

    fn and(&mut self) -> Result<Expr, MathError> {
        self.level(|token| matches!(token, "AND" | "&&").then_some(Operator::And), Self::comparison)
    }

    fn comparison(&mut self) -> Result<Expr, MathError> {
        let operator = |token: &str| match token {
            "<" => Some(Operator::Less),
            "<=" => Some(Operator::LessOrEqual),
            ">" => Some(Operator::Greater),
            ">=" => Some(Operator::GreaterOrEqual),
            "==" => Some(Operator::Equal),
            "!=" => Some(Operator::NotEqual),
            _ => None,
        };
        self.level(operator, Self::sum)
    }

    fn sum(&mut self) -> Result<Expr, MathError> {
        let operator = |token: &str| match token {
            "+" => Some(Operator::Add),
            "-" => Some(Operator::Subtract),
            _ => None,
        };
        self.level(operator, Self::product)
    }

    fn product(&mut self) -> Result<Expr, MathError> {
        let operator = |token: &str| match token {
            "*" => Some(Operator::Multiply),
            "/" => Some(Operator::Divide),
            _ => None,
        };
        self.level(operator, Self::factor)
    }

    fn factor(&mut self) -> Result<Expr, MathError> {
        if self.takes("-") {
            return Ok(Expr::Negated(Box::new(self.factor()?)));
        }
        if self.takes("(") {
            let inner = self.or()?;
            self.expect(")")?;
            return Ok(inner);
        }
        let token = self.next()?;
        if let Ok(number) = token.parse::<f64>() {
            return Ok(Expr::Number(number));
        }
        if !token.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(MathError::Syntax(token));
        }
        // Ids begin with a lower-case letter ("Use metric math"), functions with an upper-case one.
        if token.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Ok(Expr::Id(token));
        }
        self.expect("(")?;
        let function = self.function(&token)?;
        self.expect(")")?;
        Ok(function)
    }

    fn function(&mut self, name: &str) -> Result<Expr, MathError> {
        let over = match name {
            "IF" => {
                let condition = Box::new(self.or()?);
                self.expect(",")?;
                let then = Box::new(self.or()?);
                let otherwise = if self.takes(",") { Some(Box::new(self.or()?)) } else { None };
                return Ok(Expr::If(condition, then, otherwise));
            }
            "FILL" => {
                let filled = Box::new(self.or()?);
                self.expect(",")?;
                let value = self.next()?;
                let value =
                    value.parse().map_err(|_| MathError::UnknownFunction(format!("FILL(…, {value})")))?;
                return Ok(Expr::Fill(filled, value));
            }
            "DIFF" => return Ok(Expr::Diff(Box::new(self.or()?))),
            "HOUR" => return Ok(Expr::Clock(Clock::Hour, Box::new(self.or()?))),
            "DAY" => return Ok(Expr::Clock(Clock::Day, Box::new(self.or()?))),
            "MAX" => Over::Max,
            "MIN" => Over::Min,
            "SUM" => Over::Sum,
            "AVG" => Over::Average,
            _ => return Err(MathError::UnknownFunction(name.to_owned())),
        };
        if !self.takes("[") {
            return Err(MathError::UnknownFunction(format!("{name} of one series")));
        }
        let mut all = vec![self.or()?];
        while self.takes(",") {
            all.push(self.or()?);
        }
        self.expect("]")?;
        Ok(Expr::Array(over, all))
    }
}
