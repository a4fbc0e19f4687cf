//! Composite alarms: the rule over the states of others, and the suppression of their actions. ("Create a composite
//! alarm")

use crate::data::Minute;
use crate::decide::State;

/// A parsed alarm rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `ALARM(x)`, `OK(x)`, `INSUFFICIENT_DATA(x)`.
    Is(State, String),
    /// `TRUE`, `FALSE`.
    Constant(bool),
    /// `NOT x`.
    Not(Box<Rule>),
    /// `x AND y`.
    And(Box<Rule>, Box<Rule>),
    /// `x OR y`.
    Or(Box<Rule>, Box<Rule>),
}

/// Why a rule is not understood: teach it to the evaluator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the alarm rule is not understood at `{0}`")]
pub struct RuleError(String);

impl Rule {
    /// Parses a rule.
    ///
    /// # Errors
    /// When it is none, or has a function that the evaluator does not know.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let mut rest = text;
        let rule = or(&mut rest)?;
        if rest.trim().is_empty() { Ok(rule) } else { Err(RuleError(rest.to_owned())) }
    }

    /// Whether it holds, by the states of the alarms that it names; of an alarm that there is not, `None`.
    #[must_use]
    pub fn holds(&self, state: &dyn Fn(&str) -> Option<State>) -> Option<bool> {
        Some(match self {
            Self::Is(wanted, name) => state(name)? == *wanted,
            Self::Constant(constant) => *constant,
            Self::Not(rule) => !rule.holds(state)?,
            Self::And(a, b) => a.holds(state)? && b.holds(state)?,
            Self::Or(a, b) => a.holds(state)? || b.holds(state)?,
        })
    }

    /// The alarms that it names.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Is(_, name) => vec![name],
            Self::Constant(_) => Vec::new(),
            Self::Not(rule) => rule.names(),
            Self::And(a, b) | Self::Or(a, b) => [a.names(), b.names()].concat(),
        }
    }
}

fn takes(rest: &mut &str, wanted: &str) -> bool {
    let found = rest.trim_start().strip_prefix(wanted);
    if let Some(after) = found {
        *rest = after;
    }
    found.is_some()
}

fn or(rest: &mut &str) -> Result<Rule, RuleError> {
    let mut left = and(rest)?;
    while takes(rest, "OR") {
        left = Rule::Or(Box::new(left), Box::new(and(rest)?));
    }
    Ok(left)
}

fn and(rest: &mut &str) -> Result<Rule, RuleError> {
    let mut left = one(rest)?;
    while takes(rest, "AND") {
        left = Rule::And(Box::new(left), Box::new(one(rest)?));
    }
    Ok(left)
}

fn one(rest: &mut &str) -> Result<Rule, RuleError> {
    if takes(rest, "NOT") {
        return Ok(Rule::Not(Box::new(one(rest)?)));
    }
    if takes(rest, "(") {
        let inner = or(rest)?;
        return if takes(rest, ")") { Ok(inner) } else { Err(RuleError((*rest).to_owned())) };
    }
    for (word, constant) in [("TRUE", true), ("FALSE", false)] {
        if takes(rest, word) {
            return Ok(Rule::Constant(constant));
        }
    }
    let states = [("ALARM", State::Alarm), ("OK", State::Ok), ("INSUFFICIENT_DATA", State::InsufficientData)];
    for (word, state) in states {
        if takes(rest, word) {
            return named(rest, state).ok_or_else(|| RuleError((*rest).to_owned()));
        }
    }
    Err(RuleError((*rest).to_owned()))
}

fn named(rest: &mut &str, state: State) -> Option<Rule> {
    let inner = rest.trim_start().strip_prefix('(')?;
    let (name, after) = inner.split_once(')')?;
    *rest = after;
    Some(Rule::Is(state, name.trim().trim_matches(['"', '\'']).to_owned()))
}

/// The actions of a composite alarm that another alarm can suppress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// How long an action waits for the suppressor to go into alarm.
    pub wait: Minute,
    /// How long actions stay suppressed after the suppressor left it.
    pub extension: Minute,
    suppressor_in_alarm: bool,
    extended_until: Option<Minute>,
    waiting: Option<(State, Minute)>,
    /// What was suppressed, to be made good when the suppression ends.
    held: Option<State>,
}

impl Suppression {
    /// With both periods, before anything has happened.
    #[must_use]
    pub fn new(wait: Minute, extension: Minute) -> Self {
        Self { wait, extension, suppressor_in_alarm: false, extended_until: None, waiting: None, held: None }
    }

    /// The composite alarm changed its state.
    pub fn changed(&mut self, now: Minute, state: State) {
        if self.suppressor_in_alarm {
            self.held = Some(state);
        } else {
            // During an extension too: it gives way to a wait.
            self.extended_until = None;
            self.held = None;
            self.waiting = Some((state, now + self.wait));
        }
    }

    /// The suppressor went into alarm, or left it.
    pub fn suppressor(&mut self, now: Minute, in_alarm: bool) {
        if in_alarm && !self.suppressor_in_alarm {
            self.held = self.waiting.take().map(|(state, _)| state).or(self.held);
            self.extended_until = None;
        } else if !in_alarm && self.suppressor_in_alarm {
            self.extended_until = Some(now + self.extension);
        }
        self.suppressor_in_alarm = in_alarm;
    }

    /// The action that is due now, if one is.
    pub fn due(&mut self, now: Minute) -> Option<State> {
        if self.waiting.is_some_and(|(_, until)| now >= until) {
            return self.waiting.take().map(|(state, _)| state);
        }
        if self.extended_until.is_some_and(|until| now >= until) {
            self.extended_until = None;
            return self.held.take();
        }
        None
    }
}
