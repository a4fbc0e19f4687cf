//! The documented rules and examples of alarm evaluation: small tables of our own, and those of the cases folder.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs
)] // a test

use nightshift_alarms::composite::{Rule, Suppression};
use nightshift_alarms::data::{Data, MetricKey, Statistic};
use nightshift_alarms::decide::{Judgement, Missing, Point, State};
use nightshift_alarms::math::{Expr, MathError, Range, Series};
use nightshift_alarms::plan::{Comparison, MetricAlarm, Query};
use nightshift_alarms::readings::{Absent, FillOfNothing, Premature, Reading};
use nightshift_alarms::watch::evaluate;
use serde_json::Value;

const EACH: [(Missing, &str); 4] = [
    (Missing::Missing, "missing"),
    (Missing::Ignore, "ignore"),
    (Missing::Breaching, "breaching"),
    (Missing::NotBreaching, "notBreaching"),
];

fn points(text: &str) -> Vec<Point> {
    let point = |c| match c {
        '0' => Point::Within,
        'X' => Point::Breaching,
        '-' => Point::Absent,
        other => panic!("{other} is no point"),
    };
    text.chars().map(point).collect()
}

fn judge(n: usize, m: usize, missing: Missing, premature: Premature, text: &str, current: State) -> State {
    Judgement { n, m, missing, premature }.of(&points(text), current)
}

/// The state by its documented word; `RETAIN` is whatever it was.
fn state(word: &str, current: State) -> State {
    match word {
        "OK" => State::Ok,
        "ALARM" => State::Alarm,
        "INSUFFICIENT_DATA" => State::InsufficientData,
        "RETAIN" => current,
        other => panic!("{other} is no state"),
    }
}

#[test]
fn the_newest_n_real_points_decide_and_gaps_are_filled_as_seldom_as_possible() {
    for (n, m, text, expected) in [
        (3, 3, "00XXX", ["ALARM"; 4]),
        (3, 3, "0XXX0", ["OK"; 4]),
        (3, 2, "0XX0X", ["ALARM"; 4]),
        (2, 2, "X-X--", ["ALARM"; 4]),
        (3, 3, "X-X--", ["ALARM", "RETAIN", "ALARM", "OK"]),
        (1, 1, "--0-", ["OK"; 4]),
        (1, 1, "----", ["INSUFFICIENT_DATA", "RETAIN", "ALARM", "OK"]),
        (2, 1, "---0", ["OK", "OK", "ALARM", "OK"]),
    ] {
        for current in [State::Ok, State::Alarm] {
            for ((missing, name), word) in EACH.into_iter().zip(expected) {
                let found = judge(n, m, missing, Premature::OldestBreaching, text, current);
                assert_eq!(found, state(word, current), "{m} of {n}, {text}, {name}, was {current:?}");
            }
        }
    }
}

#[test]
fn a_state_is_kept_only_as_long_as_its_points_are_seen() {
    let series = "00XXX000X";
    let states: Vec<State> = (3..=series.len())
        .map(|end| {
            judge(3, 3, Missing::Missing, Premature::OldestBreaching, &series[end - 3..end], State::Ok)
        })
        .collect();
    assert_eq!(states, [State::Ok, State::Ok, State::Alarm, State::Ok, State::Ok, State::Ok, State::Ok]);
}

#[test]
fn the_documented_tables_of_missing_data_hold() {
    let Some(blocks) = cases() else { return };
    let tables = rows(&blocks, "filled");
    assert_eq!(tables.len(), 10);
    for row in tables {
        let (n, m, text) = (number(row, "n") as usize, number(row, "m") as usize, word(row, "points"));
        assert_eq!(text.len(), number(row, "range") as usize);
        for (missing, name) in EACH {
            for current in [State::Ok, State::Alarm, State::InsufficientData] {
                let found = judge(n, m, missing, Premature::OldestBreaching, text, current);
                assert_eq!(found, state(word(row, name), current), "{row}: {name}, was {current:?}");
            }
        }
    }
    let premature: Vec<&Value> = blocks
        .iter()
        .filter(|row| row.get("missing").is_some() && row.get("n").is_none() && row.get("points").is_some())
        .collect();
    assert_eq!(premature.len(), 5);
    for row in premature {
        let found = judge(
            3,
            number(row, "m") as usize,
            Missing::Missing,
            Premature::OldestBreaching,
            word(row, "points"),
            State::Ok,
        );
        match word(row, "missing") {
            "ALARM" => assert_eq!(found, State::Alarm, "{row}"),
            "not ALARM" => assert_ne!(found, State::Alarm, "{row}"),
            other => panic!("{other} is no expectation"),
        }
    }
}

fn reading() -> Reading {
    Reading {
        lookback: 0,
        beside_a_number: Absent::Dropped,
        fill_of_nothing: FillOfNothing::Filled,
        premature: Premature::OldestBreaching,
    }
}

fn compute(expression: &str, known: &[(&str, Series)], reading: Reading) -> Series {
    let expression = Expr::parse(expression).unwrap();
    let length = known.first().map_or(1, |(_, series)| series.len());
    let starts: Vec<i64> = (0..length).map(|at| i64::try_from(at).unwrap() * 60).collect();
    let series = |id: &str| known.iter().find(|(name, _)| *name == id).map(|(_, series)| series.clone());
    expression.series(&Range { series: &series, starts: &starts, reading }).unwrap()
}

#[test]
fn math_keeps_to_its_rules_about_missing_points() {
    let known = [
        ("a", vec![Some(4.0), Some(2.0), None, None]),
        ("b", vec![Some(2.0), None, Some(3.0), None]),
        ("z", vec![Some(0.0), Some(1.0), Some(0.0), None]),
        ("nothing", vec![None; 4]),
    ];
    for (expression, expected) in [
        ("a + b", [Some(6.0), Some(2.0), Some(3.0), None]),
        ("a - b * 2", [Some(0.0), Some(2.0), Some(-6.0), None]),
        ("-a", [Some(-4.0), Some(-2.0), None, None]),
        ("(a - b) * 2", [Some(4.0), Some(4.0), Some(-6.0), None]),
        ("a / z", [None, Some(2.0), None, None]),
        ("FILL(a, 7)", [Some(4.0), Some(2.0), Some(7.0), Some(7.0)]),
        ("DIFF(a)", [None, Some(-2.0), None, None]),
        ("DIFF(b)", [None, None, Some(1.0), None]),
        ("MAX([a, b])", [Some(4.0), Some(2.0), Some(3.0), None]),
        ("MIN([a, b])", [Some(2.0), Some(2.0), Some(3.0), None]),
        ("SUM([a, b])", [Some(6.0), Some(2.0), Some(3.0), None]),
        ("AVG([a, b])", [Some(3.0), Some(1.0), Some(1.5), None]),
        ("a > 1 OR b > 1 AND b > 100", [Some(1.0), Some(1.0), Some(0.0), None]),
        ("IF(a == 4, b, 9)", [Some(2.0), Some(9.0), None, None]),
        ("HOUR(nothing)", [Some(0.0), Some(1.0), Some(2.0), Some(3.0)]),
        ("DAY(nothing)", [Some(1.0); 4]),
        ("5", [Some(5.0); 4]),
    ] {
        assert_eq!(compute(expression, &known, reading()), expected, "{expression}");
    }
}

#[test]
fn open_questions_have_both_answers() {
    let known = [("a", vec![Some(1.0), None]), ("nothing", vec![None; 2])];
    let zero = Reading { beside_a_number: Absent::Zero, ..reading() };
    assert_eq!(compute("a >= 0", &known, reading()), [Some(1.0), None]);
    assert_eq!(compute("a >= 0", &known, zero), [Some(1.0), Some(1.0)]);
    let nothing = Reading { fill_of_nothing: FillOfNothing::Nothing, ..reading() };
    assert_eq!(compute("FILL(nothing, 0)", &known, reading()), [Some(0.0); 2]);
    assert_eq!(compute("FILL(nothing, 0)", &known, nothing), [None; 2]);
    for n in [1, 2, 3, 5, 15, 60] {
        let lookbacks: Vec<u32> = Reading::all(n).iter().map(|reading| reading.lookback).collect();
        for lookback in [0, 2, n / 3, n] {
            assert!(lookbacks.contains(&lookback), "{n}: {lookback}");
        }
    }
}

#[test]
fn what_is_not_understood_is_an_error() {
    for (expression, expected) in [
        ("RATE(a)", MathError::UnknownFunction("RATE".to_owned())),
        ("AVG(a)", MathError::UnknownFunction("AVG of one series".to_owned())),
        ("FILL(a, REPEAT)", MathError::UnknownFunction("FILL(…, REPEAT)".to_owned())),
        ("a +", MathError::Syntax("the end".to_owned())),
        ("a b", MathError::Syntax("b".to_owned())),
        ("a % b", MathError::Syntax("% b".to_owned())),
        ("(a", MathError::Syntax("the end".to_owned())),
    ] {
        assert_eq!(Expr::parse(expression), Err(expected), "{expression}");
    }
    for rule in ["ALARM(x", "AT_LEAST(1, ALARM, (x))", "ALARM(x) ALARM(y)", ""] {
        assert!(Rule::parse(rule).is_err(), "{rule}");
    }
}

#[test]
fn the_documented_examples_of_math_hold() {
    let Some(blocks) = cases() else { return };
    let examples = rows(&blocks, "expr");
    assert_eq!(examples.len(), 6);
    for row in examples {
        let series = |id: &str| -> Option<Series> {
            Some(row.get(id)?.as_array()?.iter().map(Value::as_f64).collect())
        };
        let expression = Expr::parse(word(row, "expr")).unwrap();
        let expected = series("out").unwrap();
        let starts: Vec<i64> = (0..i64::try_from(expected.len()).unwrap()).collect();
        // A comparison of a missing point with a number is open; the examples end in the same under both answers,
        // where a condition is asked of it.
        for beside_a_number in [Absent::Zero, Absent::Dropped] {
            let reading = Reading { beside_a_number, ..reading() };
            let found = expression.series(&Range { series: &series, starts: &starts, reading }).unwrap();
            assert_eq!(found, expected, "{row}, {beside_a_number:?}");
        }
    }
}

#[test]
fn percentiles_need_enough_samples() {
    for (name, least) in [("p50", 20.0), ("p95", 200.0), ("p99.9", 10_000.0), ("p25", 40.0)] {
        assert_eq!(Statistic::of_name(name).unwrap().samples_least(), Some(least), "{name}");
    }
    assert_eq!(Statistic::of_name("Maximum").unwrap().samples_least(), None);
    for unknown in ["p0", "p100", "TM(10%:90%)", "IQM", "sum"] {
        assert_eq!(Statistic::of_name(unknown), None, "{unknown}");
    }
    let Some(blocks) = cases() else { return };
    let documented = rows(&blocks, "least");
    assert_eq!(documented.len(), 7);
    for row in documented {
        let share = row.get("p").and_then(Value::as_f64).unwrap();
        let least = row.get("least").and_then(Value::as_f64);
        assert_eq!(Statistic::Percentile(share).samples_least(), least, "{row}");
    }
}

#[test]
fn few_samples_keep_the_state_where_the_alarm_says_so() {
    let mut alarm = alarm("Latency", "p95", 1, 1, Missing::NotBreaching);
    let mut data = Data::default();
    data.publish(&alarm.queries[0].metric, 9, 5.0, 199.0);
    for (ignores, expected) in [(false, State::Alarm), (true, State::InsufficientData)] {
        alarm.ignores_low_samples = ignores;
        assert_eq!(evaluate(&alarm, 10, &data, reading(), State::InsufficientData), Ok(expected));
    }
    data.publish(&alarm.queries[0].metric, 9, 5.0, 1.0);
    assert_eq!(evaluate(&alarm, 10, &data, reading(), State::Ok), Ok(State::Alarm));
}

#[test]
fn few_samples_are_those_of_the_newest_periods_however_far_back_an_alarm_looks() {
    let mut alarm = alarm("Latency", "p95", 1, 1, Missing::NotBreaching);
    alarm.ignores_low_samples = true;
    let reading = Reading { lookback: 2, ..reading() };
    for (oldest, newest, expected) in [(1.0, 200.0, State::Alarm), (200.0, 1.0, State::Ok)] {
        let mut data = Data::default();
        for (minute, samples) in [(7, oldest), (9, newest)] {
            data.publish(&alarm.queries[0].metric, minute, 5.0, samples);
        }
        let found = evaluate(&alarm, 10, &data, reading, State::Ok);
        assert_eq!(found, Ok(expected), "{newest} samples, and {oldest} before the evaluated period");
    }
}

#[test]
fn statistics_are_of_the_samples_of_a_period() {
    let metric = MetricKey::new("N", "m", &[("Stack", "s")]);
    let mut data = Data::default();
    for (minute, value, count) in [(0, 1.0, 1.0), (1, 3.0, 2.0), (2, 9.0, 1.0), (5, 100.0, 1.0)] {
        data.publish(&metric, minute, value, count);
    }
    for (name, expected) in [
        ("Sum", 16.0),
        ("Maximum", 9.0),
        ("Minimum", 1.0),
        ("Average", 4.0),
        ("SampleCount", 4.0),
        ("p50", 3.0),
        ("p75", 3.0),
        ("p99", 9.0),
    ] {
        let found = data.statistic(&metric, 0, 5, Statistic::of_name(name).unwrap());
        assert_eq!(found.map(|found| found.value), Some(expected), "{name}");
    }
    assert_eq!(data.statistic(&metric, 3, 5, Statistic::Sum), None);
    let other = MetricKey::new("N", "m", &[]);
    assert_eq!(data.statistic(&other, 0, 5, Statistic::Sum), None, "dimensions make a metric of its own");
}

fn alarm(metric: &str, statistic: &str, n: u32, m: u32, missing: Missing) -> MetricAlarm {
    MetricAlarm {
        name: metric.to_owned(),
        queries: vec![Query {
            id: String::new(),
            metric: MetricKey::new("N", metric, &[]),
            statistic: Statistic::of_name(statistic).unwrap(),
        }],
        expression: None,
        period: 1,
        n,
        m,
        threshold: 1.0,
        comparison: Comparison::GreaterOrEqual,
        missing,
        ignores_low_samples: false,
        acts: true,
    }
}

#[test]
fn periods_slide_with_each_minute() {
    let mut alarm = alarm("Errors", "Sum", 1, 1, Missing::NotBreaching);
    alarm.period = 5;
    let mut data = Data::default();
    data.publish(&alarm.queries[0].metric, 5, 1.0, 1.0);
    let states: Vec<State> =
        (4..13).map(|now| evaluate(&alarm, now, &data, reading(), State::Ok).unwrap()).collect();
    let (ok, raised) = (State::Ok, State::Alarm);
    assert_eq!(states, [ok, ok, raised, raised, raised, raised, raised, ok, ok]);
}

#[test]
fn a_sparse_metric_is_seen_beyond_its_window() {
    let alarm = alarm("Errors", "Sum", 60, 2, Missing::NotBreaching);
    let mut data = Data::default();
    for age in [1, 70] {
        data.publish(&alarm.queries[0].metric, 100 - age, 1.0, 1.0);
    }
    for (lookback, expected) in [(0, State::Ok), (20, State::Alarm)] {
        let reading = Reading { lookback, ..reading() };
        assert_eq!(evaluate(&alarm, 100, &data, reading, State::Ok), Ok(expected), "{lookback}");
    }
}

#[test]
fn a_dead_mans_switch_needs_fewer_points_than_periods() {
    for (m, lookback, minutes) in [(5, 0, 5), (5, 2, 7), (5, 5, 10), (3, 0, 3), (3, 2, 5), (3, 5, 8)] {
        let mut alarm = alarm("Heartbeat", "Sum", 5, m, Missing::Breaching);
        alarm.comparison = Comparison::Less;
        let mut data = Data::default();
        for minute in 0..100 {
            data.publish(&alarm.queries[0].metric, minute, 1.0, 1.0);
        }
        let reading = Reading { lookback, ..reading() };
        let raised = (100..200)
            .find(|now| evaluate(&alarm, *now, &data, reading, State::Ok) == Ok(State::Alarm))
            .unwrap();
        assert_eq!(raised - 100, minutes, "{m} of 5, lookback {lookback}");
    }
}

#[test]
fn a_rule_combines_states() {
    let states = [("a b", State::Alarm), ("c", State::Ok), ("d", State::InsufficientData)];
    let state = |name: &str| states.iter().find(|(known, _)| *known == name).map(|(_, state)| *state);
    for (rule, expected) in [
        (r#"ALARM("a b")"#, Some(true)),
        (r#"ALARM("a b") AND ALARM("c")"#, Some(false)),
        (r#"ALARM("c") OR OK(c) AND NOT INSUFFICIENT_DATA(c)"#, Some(true)),
        (r#"NOT (ALARM("a b") OR FALSE) OR TRUE"#, Some(true)),
        ("INSUFFICIENT_DATA('d')", Some(true)),
        ("ALARM(unknown)", None),
    ] {
        assert_eq!(Rule::parse(rule).unwrap().holds(&state), expected, "{rule}");
    }
}

#[test]
fn the_documented_examples_of_suppression_hold() {
    let Some(blocks) = cases() else { return };
    let examples = rows(&blocks, "example");
    assert_eq!(examples.len(), 6);
    for row in examples {
        let mut suppression = Suppression::new(2, 3);
        let mut acted = Vec::new();
        for now in 0..20 {
            for event in row.get("events").and_then(Value::as_array).unwrap() {
                let [who, what, when] = event.as_array().unwrap().as_slice() else { panic!("{event}") };
                if when.as_i64() == Some(now) {
                    let to = state(what.as_str().unwrap(), State::Ok);
                    match who.as_str() {
                        Some("c") => suppression.changed(now, to),
                        _ => suppression.suppressor(now, to == State::Alarm),
                    }
                }
            }
            acted.extend(suppression.due(now).map(|to| (now, to)));
        }
        let expected: Vec<(i64, State)> = row
            .get("act")
            .and_then(Value::as_i64)
            .map(|when| (when, state(word(row, "state"), State::Ok)))
            .into_iter()
            .collect();
        assert_eq!(acted, expected, "{row}");
    }
}

#[test]
fn what_was_held_back_stays_so_when_the_suppressor_is_raised_again() {
    let mut suppression = Suppression::new(2, 3);
    let mut acted = Vec::new();
    for now in 0..20 {
        match now {
            0 | 4 => suppression.suppressor(now, true),
            1 => suppression.changed(now, State::Alarm),
            2 | 6 => suppression.suppressor(now, false),
            _ => {}
        }
        acted.extend(suppression.due(now).map(|to| (now, to)));
    }
    assert_eq!(acted, [(9, State::Alarm)], "it acts once, an extension after the suppressor's second end");
}

/// The rows of all JSON blocks of the page; `None`, said once, where there is no folder of cases.
fn cases() -> Option<Vec<Value>> {
    let page = nightshift_tests::cases::folder("cloudwatch")?;
    let page = nightshift_tests::cases::text(&page, "alarm_evaluation.md");
    let mut rows = Vec::new();
    for block in page.split("```json").skip(1) {
        let (json, _) = block.split_once("```").expect("a block ends");
        match serde_json::from_str(json).expect("a block is JSON") {
            Value::Array(all) => rows.extend(all),
            one => rows.push(one),
        }
    }
    Some(rows)
}

fn rows<'a>(all: &'a [Value], member: &str) -> Vec<&'a Value> {
    all.iter().filter(|row| row.get(member).is_some()).collect()
}

fn word<'a>(row: &'a Value, member: &str) -> &'a str {
    row.get(member).and_then(Value::as_str).unwrap_or_else(|| panic!("{row} has no {member}"))
}

fn number(row: &Value, member: &str) -> u64 {
    row.get(member).and_then(Value::as_u64).unwrap_or_else(|| panic!("{row} has no {member}"))
}
