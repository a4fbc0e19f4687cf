//! A stack's alarms, minute by minute: states, and what is told to people when they change.

use crate::data::{Data, Minute, Value};
use crate::decide::{Judgement, Missing, Point, State};
use crate::math::{MathError, Range};
use crate::plan::{Alarms, MetricAlarm, Query};
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

/// What alarms read, as far back as any reading looks: the same for all readings of one evaluation.
#[derive(Debug)]
pub struct Looked {
    now: Minute,
    rows: Vec<Rows>,
}

/// For each query of an alarm a row of values, the oldest first.
type Rows = Vec<Vec<Option<Value>>>;

impl Looked {
    /// What has been published by the end of the minute before `now`.
    #[must_use]
    pub fn at(now: Minute, alarms: &Alarms, data: &Data) -> Self {
        let rows = alarms.metric.iter().map(|alarm| rows(alarm, now, data, Reading::lookback_max(alarm.n)));
        Self { now, rows: rows.collect() }
    }
}

fn starts(alarm: &MetricAlarm, now: Minute, lookback: u32) -> Vec<Minute> {
    let length = i64::from(alarm.n) + i64::from(lookback);
    (1..=length).rev().map(|back| now - back * alarm.period).collect()
}

fn rows(alarm: &MetricAlarm, now: Minute, data: &Data, lookback: u32) -> Rows {
    let starts = starts(alarm, now, lookback);
    let row = |query: &Query| {
        let published = data.published(&query.metric);
        let value = |start: &Minute| published?.statistic(*start, *start + alarm.period, query.statistic);
        starts.iter().map(value).collect()
    };
    alarm.queries.iter().map(row).collect()
}

/// The alarms of a stack under one reading.
#[derive(Debug, Clone)]
pub struct Watch<'a> {
    alarms: &'a Alarms,
    readings: Vec<Option<(Reading, bool)>>,
    states: Vec<State>,
    composites: Vec<State>,
}

impl<'a> Watch<'a> {
    /// New alarms: none has been evaluated.
    #[must_use]
    pub fn new(alarms: &'a Alarms, readings: Readings) -> Self {
        Self {
            alarms,
            readings: alarms.metric.iter().map(|alarm| readings.of(alarm)).collect(),
            states: vec![State::InsufficientData; alarms.metric.len()],
            composites: vec![State::InsufficientData; alarms.composite.len()],
        }
    }

    /// What the alarm says now; `None`: there is no such alarm.
    #[must_use]
    pub fn state(&self, alarm: &str) -> Option<State> {
        let metric = self.alarms.metric.iter().map(|alarm| &alarm.name).zip(&self.states);
        let composite = self.alarms.composite.iter().map(|alarm| &alarm.name).zip(&self.composites);
        metric.chain(composite).find(|(name, _)| *name == alarm).map(|(_, state)| *state)
    }

    /// Evaluates all alarms over what was looked at; behind the watch of the place before, which has said already what reads
    /// alike.
    ///
    /// # Errors
    /// When an expression cannot be computed.
    pub fn evaluate(&mut self, looked: &Looked, before: Option<&Self>) -> Result<Vec<Change>, MathError> {
        let alarms = self.alarms;
        let mut changes = Vec::new();
        let change = |from, to, alarm: &str, acts| Change {
            minute: looked.now,
            alarm: alarm.to_owned(),
            from,
            to,
            acts,
        };
        let states = self.states.iter_mut().zip(&self.readings);
        for (place, (alarm, (state, reading))) in alarms.metric.iter().zip(states).enumerate() {
            let (Some((reading, repeats)), Some(rows)) = (reading, looked.rows.get(place)) else { continue };
            let said = before.filter(|_| *repeats).and_then(|before| before.states.get(place)).copied();
            let to = said.map_or_else(|| judge(alarm, looked.now, rows, *reading, *state), Ok)?;
            let from = std::mem::replace(state, to);
            changes.extend((from != to).then(|| change(from, to, &alarm.name, alarm.acts)));
        }
        for (place, alarm) in alarms.composite.iter().enumerate() {
            let holds = alarm.rule.holds(&|name| self.state(name)).unwrap_or_default();
            let to = if holds { State::Alarm } else { State::Ok };
            let Some(state) = self.composites.get_mut(place) else { continue };
            let from = std::mem::replace(state, to);
            changes.extend((from != to).then(|| change(from, to, &alarm.name, alarm.acts)));
        }
        Ok(changes)
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
    judge(alarm, now, &rows(alarm, now, data, reading.lookback), reading, current)
}

fn judge(
    alarm: &MetricAlarm,
    now: Minute,
    rows: &Rows,
    reading: Reading,
    current: State,
) -> Result<State, MathError> {
    let starts = starts(alarm, now, reading.lookback);
    // The newest of a row that may be longer.
    let newest = |row: &Vec<Option<Value>>| -> Vec<Option<f64>> {
        row.iter().skip(row.len().saturating_sub(starts.len())).map(|value| Some((*value)?.value)).collect()
    };
    let values = match (&alarm.expression, rows.as_slice()) {
        (Some(expression), rows) => {
            let series = |id: &str| {
                let place = alarm.queries.iter().position(|query| query.id == id)?;
                rows.get(place).map(newest)
            };
            expression.series(&Range { series: &series, starts: &starts, reading })?
        }
        (None, [row]) => {
            if alarm.ignores_low_samples
                && let Some(least) = alarm.queries.first().and_then(|query| query.statistic.samples_least())
                && row.iter().rev().take(alarm.n as usize).flatten().any(|value| value.samples < least)
            {
                return Ok(current);
            }
            newest(row)
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
