//! A stack's alarms, minute by minute: states, and what is told to people when they change.

use std::collections::BTreeMap;

use crate::data::{Data, Minute};
use crate::decide::{Judgement, Missing, Point, State};
use crate::math::{MathError, Range};
use crate::plan::{Alarms, MetricAlarm};
use crate::readings::{Absent, FillOfNothing, Premature, Reading};

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When it was evaluated.
    pub minute: Minute,
    /// The alarm's name.
    pub alarm: String,
    /// What it was.
    pub from: State,
    /// What it is.
    pub to: State,
    /// Somebody is told.
    pub acts: bool,
}

/// How open questions are read, for each alarm.
///
/// The lookback depends on N, so a reading is chosen by its place in [`Reading::all`]; alarms with fewer take their last.
#[derive(Debug, Clone, Copy)]
pub struct Readings(pub usize);

impl Readings {
    /// Every choice that differs for at least one of these alarms.
    #[must_use]
    pub fn all(alarms: &Alarms) -> Vec<Self> {
        let most = alarms.metric.iter().map(|alarm| those_that_matter(alarm).len()).max().unwrap_or_default();
        (0..most).map(Self).collect()
    }

    /// The reading, and whether the place before this one has the same.
    fn of(self, alarm: &MetricAlarm) -> Option<(Reading, bool)> {
        let all = those_that_matter(alarm);
        let last = (*all.last()?, true);
        Some(all.get(self.0).map_or(last, |reading| (*reading, false)))
    }
}

/// The readings that can differ for an alarm: without an expression there is no operand, and only what keeps its state or
/// has none can be raised too early.
fn those_that_matter(alarm: &MetricAlarm) -> Vec<Reading> {
    let mut all = Reading::all(alarm.n);
    if alarm.expression.is_none() {
        all.retain(|one| one.beside_a_number == Absent::Zero && one.fill_of_nothing == FillOfNothing::Filled);
    }
    if matches!(alarm.missing, Missing::Breaching | Missing::NotBreaching) {
        all.retain(|one| one.premature == Premature::OldestBreaching);
    }
    all
}

/// The alarms of a stack under one reading.
#[derive(Debug, Clone)]
pub struct Watch<'a> {
    alarms: &'a Alarms,
    readings: Vec<Option<(Reading, bool)>>,
    states: BTreeMap<&'a str, State>,
}

impl<'a> Watch<'a> {
    /// New alarms: none has been evaluated.
    #[must_use]
    pub fn new(alarms: &'a Alarms, readings: Readings) -> Self {
        let names = alarms.metric.iter().map(|alarm| alarm.name.as_str());
        let names = names.chain(alarms.composite.iter().map(|alarm| alarm.name.as_str()));
        let readings = alarms.metric.iter().map(|alarm| readings.of(alarm)).collect();
        Self { alarms, readings, states: names.map(|name| (name, State::InsufficientData)).collect() }
    }

    /// What the alarm says now; `None`: there is no such alarm.
    #[must_use]
    pub fn state(&self, alarm: &str) -> Option<State> {
        self.states.get(alarm).copied()
    }

    /// Evaluates all alarms at the end of the minute before `now`, over what has been published by then.
    ///
    /// # Errors
    /// When an expression cannot be computed.
    pub fn evaluate(&mut self, now: Minute, data: &Data) -> Result<Vec<Change>, MathError> {
        self.evaluate_after(now, data, None)
    }

    /// The same, behind the watch of the place before, which has said already what reads alike.
    ///
    /// # Errors
    /// When an expression cannot be computed.
    pub fn evaluate_after(
        &mut self,
        now: Minute,
        data: &Data,
        before: Option<&Self>,
    ) -> Result<Vec<Change>, MathError> {
        let mut changes = Vec::new();
        let alarms = self.alarms;
        for (place, alarm) in alarms.metric.iter().enumerate() {
            let Some((reading, repeats)) = self.readings.get(place).copied().flatten() else { continue };
            let current = self.state(&alarm.name).unwrap_or(State::InsufficientData);
            let said = before.filter(|_| repeats).and_then(|before| before.state(&alarm.name));
            let state = said.map_or_else(|| evaluate(alarm, now, data, reading, current), Ok)?;
            self.set(now, &alarm.name, state, alarm.acts, &mut changes);
        }
        for alarm in &alarms.composite {
            let holds = alarm.rule.holds(&|name| self.state(name)).unwrap_or_default();
            let state = if holds { State::Alarm } else { State::Ok };
            self.set(now, &alarm.name, state, alarm.acts, &mut changes);
        }
        Ok(changes)
    }

    fn set(&mut self, now: Minute, name: &'a str, to: State, acts: bool, changes: &mut Vec<Change>) {
        if let Some(from) = self.states.insert(name, to)
            && from != to
        {
            changes.push(Change { minute: now, alarm: name.to_owned(), from, to, acts });
        }
    }
}

/// The state of one alarm after the evaluation at `now`.
///
/// # Errors
/// When its expression cannot be computed.
pub fn evaluate(
    alarm: &MetricAlarm,
    now: Minute,
    data: &Data,
    reading: Reading,
    current: State,
) -> Result<State, MathError> {
    let length = i64::from(alarm.n) + i64::from(reading.lookback);
    let starts: Vec<Minute> = (1..=length).rev().map(|back| now - back * alarm.period).collect();
    let read = |query: &crate::plan::Query| {
        let published = data.published(&query.metric);
        starts
            .iter()
            .map(|start| published?.statistic(*start, *start + alarm.period, query.statistic))
            .collect::<Vec<_>>()
    };
    let values = match (&alarm.expression, alarm.queries.as_slice()) {
        (Some(expression), queries) => {
            let series = |id: &str| {
                let query = queries.iter().find(|query| query.id == id)?;
                Some(read(query).into_iter().map(|value| Some(value?.value)).collect())
            };
            expression.series(&Range { series: &series, starts: &starts, reading })?
        }
        (None, [query]) => {
            let values = read(query);
            if alarm.ignores_low_samples
                && let Some(least) = query.statistic.samples_least()
                && values.iter().rev().take(alarm.n as usize).flatten().any(|value| value.samples < least)
            {
                return Ok(current);
            }
            values.into_iter().map(|value| Some(value?.value)).collect()
        }
        (None, _) => Vec::new(),
    };
    let points: Vec<Point> = values
        .into_iter()
        .map(|value| match value {
            None => Point::Absent,
            Some(value) if alarm.comparison.breaches(value, alarm.threshold) => Point::Breaching,
            Some(_) => Point::Within,
        })
        .collect();
    let judgement = Judgement {
        n: alarm.n as usize,
        m: alarm.m as usize,
        missing: alarm.missing,
        premature: reading.premature,
    };
    Ok(judgement.of(&points, current))
}
