//! `scripts/drill`: every alarm of the plan, and the fault that raises it.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a command

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;

use nightshift_alarms::plan::Alarms;
use nightshift_drills::{dashboard, defects, drills, report, run};

const STACK: &str = "nightshift";
/// What the dashboard showed when somebody last looked at it.
const LOOKED_AT: &str = include_str!("dashboard.txt");

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
    let file = arguments.next().ok_or("name the plan as JSON, as scripts/drill does")?;
    let mut only: Vec<String> = arguments.collect();
    let plan = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let alarms = Alarms::of_plan(&plan)?;
    let graphs = dashboard::of_plan(&plan)?;
    let pages = report::pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runbook"))?;
    let all = drills::all();
    let without = report::without_drill(&alarms, STACK, &all);
    if let Some(page) = without.first() {
        return Err(format!("{page} has no drill: add one to tests/drills/src/drills.rs").into());
    }
    let mut wrong: Vec<String> = Vec::new();
    if only.iter().any(|argument| argument == "--defects") {
        return defects(&alarms, &all, &pages);
    }
    let picture = only.iter().position(|argument| argument == "--dashboard").map(|at| {
        let file = only.drain(at..(at + 2).min(only.len())).next_back();
        file.unwrap_or_default()
    });
    let known = |page: &str| page == "none" || all.iter().any(|drill| drill.page == Some(page));
    if let Some(page) = only.iter().find(|page| !known(page)) {
        return Err(format!("no drill is of {page}: name the page of an alarm, or none").into());
    }
    let chosen =
        |drill: &run::Drill| only.is_empty() || only.iter().any(|page| page == drill.page.unwrap_or("none"));
    let chosen: Vec<&run::Drill> = all.iter().filter(|drill| chosen(drill)).collect();
    if let Some(file) = picture {
        let data =
            chosen.iter().map(|drill| (drill.fault.to_owned(), run::data(drill, STACK), drill.minutes));
        std::fs::write(file, dashboard::page(&graphs, &data.collect::<Vec<_>>()))?;
        return Ok(true);
    }
    println!("| alarm | fault | minutes to alarm | to OK | others that fired |");
    println!("| --- | --- | --- | --- | --- |");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md"))?;
    let mut emitted = BTreeSet::new();
    let mut all_seen = Vec::new();
    run::run_all(
        &chosen,
        |drill| run::run(drill, &alarms, STACK),
        |drill, seen| {
            let row = report::row(drill, seen);
            println!("{row}");
            if !readme.contains(&format!("\n{row}\n")) {
                wrong.push(format!("README.md has no such row: {row}"));
            }
            emitted.extend(seen.metrics.iter().cloned());
            let named = format!("{}, {}", drill.page.unwrap_or("none"), drill.fault);
            wrong.extend(report::wrong(drill, seen, &pages).into_iter().map(|why| format!("{named}: {why}")));
            all_seen.push((*drill, seen.clone()));
        },
    );
    // Only all drills together show all that it names, and how long a page has to say that it may take.
    if only.is_empty() {
        let shown = dashboard::contents(&plan)?;
        if shown != LOOKED_AT {
            let drawn = Path::new(&file).with_file_name("dashboard.txt");
            std::fs::write(&drawn, shown)?;
            wrong.push(format!(
                "the dashboard shows something else than tests/drills/tests/dashboard.txt: look at each line of {} and at the picture (--dashboard FILE), then copy it there",
                drawn.display()
            ));
        }
        wrong.extend(report::too_long(&all_seen, &pages));
        let unseen = dashboard::unseen(&graphs, &emitted);
        wrong.extend(unseen.map(|metric| format!("the dashboard names {metric}, which no drill emitted")));
    }
    wrong.iter().for_each(|why| println!("FAILED  {why}"));
    Ok(wrong.is_empty())
}

/// Each deliberate defect must fail the drill that it names.
fn defects(
    alarms: &Alarms,
    all: &[run::Drill],
    pages: &BTreeMap<String, report::Page>,
) -> Result<bool, Box<dyn std::error::Error>> {
    let of = |defect: &defects::Defect| {
        let drill =
            |drill: &&run::Drill| drill.page.unwrap_or("none") == defect.page && drill.fault == defect.fault;
        all.iter().find(drill).ok_or(format!("there is no drill {}: {}", defect.page, defect.fault))
    };
    let defects = defects::all();
    let defects: Vec<(&defects::Defect, &run::Drill)> =
        defects.iter().map(|defect| Ok((defect, of(defect)?))).collect::<Result<_, String>>()?;
    let mut seen_all = true;
    run::run_all(
        &defects,
        |(defect, drill)| {
            let mut mutant = alarms.clone();
            (defect.make)(&mut mutant);
            run::run(drill, &mutant, STACK)
        },
        |(defect, drill), seen| {
            let why = report::wrong(drill, seen, pages);
            seen_all &= !why.is_empty();
            let word = if why.is_empty() { "MISSED" } else { "caught" };
            println!("{word}  {}: {} ({})", defect.page, defect.what, why.join("; "));
        },
    );
    Ok(seen_all)
}
