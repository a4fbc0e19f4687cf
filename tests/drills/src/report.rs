//! What is demanded of a drill, and the table.

use std::collections::BTreeMap;
use std::path::Path;

use nightshift_alarms::plan::Alarms;

use crate::run::{Drill, Seen};

/// What a page promises.
#[derive(Debug, Clone, Default)]
pub struct Page {
    pub is_page: bool,
    pub over_minutes: Option<u64>,
    text: String,
}

impl Page {
    /// Within how many minutes it is raised, where a page says so behind these words.
    #[must_use]
    pub fn raised_minutes(&self, behind: &str) -> Option<u64> {
        minutes(&self.text, behind)
    }
}

/// The promises of all pages of the runbook, by their names.
///
/// # Errors
/// When the folder cannot be read.
pub fn pages(runbook: &Path) -> std::io::Result<BTreeMap<String, Page>> {
    let mut pages = BTreeMap::new();
    for entry in std::fs::read_dir(runbook)? {
        let path = entry?.path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        if path.extension().is_some_and(|extension| extension == "md") {
            let text = std::fs::read_to_string(&path)?;
            let page = Page {
                is_page: text.contains("Severity: page."),
                over_minutes: minutes(&text, "is OK within "),
                text,
            };
            pages.insert(name.to_owned(), page);
        }
    }
    Ok(pages)
}

/// `10 minutes`, `3 hours 40 minutes` behind these words.
fn minutes(text: &str, behind: &str) -> Option<u64> {
    let words: Vec<&str> =
        text.split_once(behind)?.1.split([' ', '.', ',', ';', ':', '\n']).take(4).collect();
    let part = |at: usize| -> Option<u64> {
        let number: u64 = words.get(at)?.parse().ok()?;
        match *words.get(at + 1)? {
            "minute" | "minutes" => Some(number),
            "hour" | "hours" => Some(number * 60),
            "day" | "days" => Some(number * 24 * 60),
            _ => None,
        }
    };
    part(0).map(|first| first + part(2).unwrap_or_default())
}

/// What is wrong with what was seen; empty: nothing.
#[must_use]
pub fn wrong(drill: &Drill, seen: &Seen, pages: &BTreeMap<String, Page>) -> Vec<String> {
    let mut wrong = Vec::new();
    let severe = |page: &String| pages.get(page).is_none_or(|page| page.is_page);
    let unrelated = seen
        .others
        .iter()
        .filter(|page| !drill.beside.contains(&page.as_str()))
        .filter(|page| drill.page.is_none() || severe(page));
    wrong.extend(unrelated.map(|page| format!("{page} was raised")));
    let Some(page) = drill.page else { return wrong };
    let promised = pages.get(page).cloned().unwrap_or_default();
    let raised_minutes = promised.raised_minutes(drill.raised_behind);
    for (what, seen, promised) in
        [("raised", seen.raised, raised_minutes), ("over", seen.over, promised.over_minutes)]
    {
        match (seen, promised) {
            (None, _) => wrong.push(format!("{page} was not {what}")),
            (Some(_), None) => {
                wrong.push(format!("the page of {page} does not say within how many minutes it is {what}"))
            }
            (Some(seen), Some(promised)) if seen > promised => {
                wrong.push(format!("{page} was {what} after {seen} minutes; its page says {promised}"));
            }
            _ => {}
        }
    }
    if let Some(at) = seen.let_go {
        wrong.push(format!("{page} ended {at} minutes after it should have begun, while the fault went on"));
    }
    wrong
}

/// A page that promises far more minutes than its drills take tells its reader to wait for nothing.
#[must_use]
pub fn too_long(seen: &[(&Drill, Seen)], pages: &BTreeMap<String, Page>) -> Vec<String> {
    let mut of: BTreeMap<(&str, &str, &str), (Option<u64>, u64)> = BTreeMap::new();
    for (drill, seen) in seen {
        let (Some(name), Some(page)) = (drill.page, drill.page.and_then(|page| pages.get(page))) else {
            continue;
        };
        for (what, behind, promised, took) in [
            ("raised", drill.raised_behind, page.raised_minutes(drill.raised_behind), seen.raised),
            ("over", "is OK within ", page.over_minutes, seen.over),
        ] {
            let (_, worst) = of.entry((name, what, behind)).or_insert((promised, 0));
            *worst = took.unwrap_or_default().max(*worst);
        }
    }
    of.into_iter()
        .filter_map(|((name, what, _), (promised, worst))| {
            let promised = promised.filter(|promised| *promised > (4 * worst).max(worst + 20))?;
            Some(format!("the page of {name} says {promised} minutes until it is {what}; no drill took more than {worst}"))
        })
        .collect()
}

/// Alarms of the plan that tell somebody and have no drill.
#[must_use]
pub fn without_drill(alarms: &Alarms, stack: &str, drills: &[Drill]) -> Vec<String> {
    let metric = alarms.metric.iter().filter(|alarm| alarm.acts).map(|alarm| &alarm.name);
    let composite = alarms.composite.iter().filter(|alarm| alarm.acts).map(|alarm| &alarm.name);
    metric
        .chain(composite)
        .filter_map(|name| name.strip_prefix(&format!("{stack}-")))
        .filter(|page| drills.iter().all(|drill| drill.page != Some(page)))
        .map(str::to_owned)
        .collect()
}

/// A row of the table, which README has as well.
#[must_use]
pub fn row(drill: &Drill, seen: &Seen) -> String {
    let minutes =
        |minutes: Option<u64>| minutes.map_or_else(|| "never".to_owned(), |minutes| minutes.to_string());
    let others = seen.others.iter().cloned().collect::<Vec<_>>().join(", ");
    match drill.page {
        Some(page) => {
            format!(
                "| `{page}` | {} | {} | {} | {others} |",
                drill.fault,
                minutes(seen.raised),
                minutes(seen.over)
            )
        }
        None => format!("| none | {} |  |  | {others} |", drill.fault),
    }
}
