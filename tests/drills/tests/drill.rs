//! `scripts/drill`: every alarm of the plan, and the fault that raises it.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use nightshift_alarms::plan::Alarms;
use nightshift_drills::{defects, drills, report, run};

const STACK: &str = "nightshift";

fn main() -> ExitCode {
    match drill() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drill: {error}");
            ExitCode::from(2)
        }
    }
}

fn drill() -> Result<bool, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let plan = arguments.next().ok_or("name the plan as JSON, as scripts/drill does")?;
    let only: Vec<String> = arguments.collect();
    let alarms = Alarms::of_plan(&std::fs::read_to_string(plan)?)?;
    let pages = report::pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runbook"))?;
    let all = drills::all();
    let without = report::without_drill(&alarms, STACK, &all);
    let unknown = without.iter().filter(|page| !drills::UNSEEN.contains(&page.as_str()));
    let mut wrong: Vec<String> =
        unknown.map(|page| format!("{page} has no drill: add one to tests/drills/src/drills.rs")).collect();
    let stale = drills::UNSEEN.iter().filter(|page| without.iter().all(|other| other != *page));
    wrong.extend(
        stale.map(|page| format!("{page} has a drill, or is not planned: take it off drills::UNSEEN")),
    );
    if only.iter().any(|argument| argument == "--defects") {
        return defects(&alarms, &all, &pages);
    }
    let known = |page: &str| page == "none" || all.iter().any(|drill| drill.page == Some(page));
    if let Some(page) = only.iter().find(|page| !known(page)) {
        return Err(format!("no drill is of {page}: name the page of an alarm, or none").into());
    }
    println!("| alarm | fault | minutes to alarm | minutes to OK | others that fired |");
    println!("| --- | --- | --- | --- | --- |");
    let chosen =
        |drill: &run::Drill| only.is_empty() || only.iter().any(|page| page == drill.page.unwrap_or("none"));
    for drill in all.iter().filter(|drill| chosen(drill)) {
        let seen = run::run(drill, &alarms, STACK);
        println!("{}", report::row(drill, &seen));
        wrong.extend(
            report::wrong(drill, &seen, &pages).into_iter().map(|why| format!("{}: {why}", drill.fault)),
        );
    }
    println!("no drill yet: {}", drills::UNSEEN.join(", "));
    wrong.iter().for_each(|why| println!("FAILED  {why}"));
    Ok(wrong.is_empty())
}

/// Each deliberate defect must fail the drill that it names.
fn defects(
    alarms: &Alarms,
    all: &[run::Drill],
    pages: &BTreeMap<String, report::Page>,
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut seen_all = true;
    for defect in defects::all() {
        let drill = all
            .iter()
            .find(|drill| drill.page == Some(defect.page) && drill.fault == defect.fault)
            .ok_or_else(|| format!("there is no drill {}: {}", defect.page, defect.fault))?;
        let mut mutant = alarms.clone();
        (defect.make)(&mut mutant);
        let why = report::wrong(drill, &run::run(drill, &mutant, STACK), pages);
        seen_all &= !why.is_empty();
        let word = if why.is_empty() { "MISSED" } else { "caught" };
        println!("{word}  {}: {} ({})", defect.page, defect.what, why.join("; "));
    }
    Ok(seen_all)
}
