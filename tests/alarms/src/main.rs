//! `planned-alarms PLAN.json`: shows that each planned alarm is understood, and what it says while nothing happens.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command

use std::process::ExitCode;

use nightshift_alarms::data::Data;
use nightshift_alarms::decide::{Missing, State};
use nightshift_alarms::plan::Alarms;
use nightshift_alarms::watch::{Looked, Readings, Watch};

/// The first evaluation decides; the second one shows that it stays.
const EVALUATIONS: i64 = 2;

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!(
            "planned-alarms: name the plan as JSON, as scripts/check-terraform leaves it in target/terraform"
        );
        return ExitCode::from(2);
    };
    match run(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("planned-alarms: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let alarms = Alarms::of_plan(&std::fs::read_to_string(path)?)?;
    if alarms.metric.is_empty() {
        return Err("the plan has no alarm".into());
    }
    let mut raised = Vec::new();
    let readings = Readings::all(&alarms);
    for reading in &readings {
        let mut watch = Watch::new(&alarms, *reading);
        for minute in 0..EVALUATIONS {
            let looked = Looked::at(minute, &alarms, &Data::default());
            for change in watch.evaluate(&looked, None)? {
                if change.to == State::Alarm && !raised.contains(&change.alarm) {
                    raised.push(change.alarm);
                }
            }
        }
    }
    // No data at all is a stack without its sentinel; what says so takes missing data for breaching.
    let of_silence = |name: &&String| {
        alarms.metric.iter().any(|alarm| alarm.name == **name && alarm.missing == Missing::Breaching)
    };
    let (silent, others): (Vec<_>, Vec<_>) = raised.iter().partition(of_silence);
    if !others.is_empty() {
        return Err(format!("raised while nothing has happened: {others:?}").into());
    }
    if silent.is_empty() {
        return Err("no alarm says that nothing is heard of the stack any more".into());
    }
    println!(
        "{} alarms over metrics and {} over alarms are understood, under {} readings of the rules",
        alarms.metric.len(),
        alarms.composite.len(),
        readings.len()
    );
    Ok(())
}
