//! The jobs of a run: the built-in set, or the user's own lines.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use nightshift_core::job;
use nightshift_core::limits::Limits;
use nightshift_core::task::Tasks;
use serde::Deserialize;
use serde_json::Value;

use crate::refused::Refused;

/// The built-in set: one message body a line, some of them broken on purpose.
const BUILT_IN: &str = include_str!("../jobs.jsonl");

/// What a model might answer to each of them, by their references: the stub says it, so that the demo looks like work.
const ANSWERS: &str = include_str!("../answers.jsonl");

#[derive(Deserialize)]
struct Written {
    reference: String,
    output: Value,
}

/// The answers to the built-in jobs, by the two halves of the prompt that each job makes.
pub fn answers(tasks: &dyn Tasks) -> BTreeMap<(String, String), Value> {
    let written: HashMap<String, Value> = ANSWERS
        .lines()
        .filter_map(|line| serde_json::from_str::<Written>(line).ok())
        .map(|written| (written.reference, written.output))
        .collect();
    BUILT_IN
        .lines()
        .filter_map(|body| job::parse(body, Limits::default().body_bytes_max).ok())
        .filter_map(|job| {
            let prompt = tasks.find(&job.task)?.prompt(&job.input).ok()?;
            Some(((prompt.system, prompt.user), written.get(&job.reference?)?.clone()))
        })
        .collect()
}

/// What will be put on the queue, and what will not.
pub struct Jobs {
    /// Message bodies, in order.
    pub bodies: Vec<String>,
    /// For each of them its line in the file, from 1.
    pub lines: Vec<usize>,
    /// Lines of the user's file that are not jobs: number from 1, and what to change.
    pub bad_lines: Vec<(usize, String)>,
}

/// The built-in jobs, all of them: the broken ones show what becomes of broken messages.
pub fn built_in() -> Jobs {
    let bodies: Vec<_> = BUILT_IN.lines().map(str::to_owned).collect();
    Jobs { lines: (1..=bodies.len()).collect(), bodies, bad_lines: Vec::new() }
}

/// The jobs of a JSONL file. A line that is no job is reported and left out; the rest goes on.
pub fn from_file(path: &Path) -> anyhow::Result<Jobs> {
    let line = BUILT_IN.lines().next().unwrap_or_default();
    let shown = path.display();
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        anyhow::bail!(Refused::Usage(format!(
            "{shown} is a table: `nightshift enqueue` and `nightshift task try` read those, and the demo takes one job a line, such as {line}"
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| {
        let words = format!("cannot read {shown}: give --jobs a file with one job a line: {error}");
        match error.kind() {
            std::io::ErrorKind::NotFound => Refused::NotFound(words).into(),
            _ => anyhow::anyhow!(words),
        }
    })?;
    let jobs = of_lines(&bytes);
    let why = jobs.bad_lines.first().map(|(line, why)| format!(" (line {line}: {why})")).unwrap_or_default();
    if jobs.bodies.is_empty() {
        anyhow::bail!(Refused::Usage(format!("{shown} holds no job{why}; a line looks like this: {line}")));
    }
    Ok(jobs)
}

fn of_lines(bytes: &[u8]) -> Jobs {
    let mut jobs = Jobs { bodies: Vec::new(), lines: Vec::new(), bad_lines: Vec::new() };
    // Editors on Windows begin a file with it.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match std::str::from_utf8(line) {
            Err(_) => jobs.bad_lines.push((index + 1, "The line is not UTF-8.".to_owned())),
            Ok(line) => match job::parse(line, Limits::default().body_bytes_max) {
                Ok(_) => {
                    jobs.bodies.push(line.to_owned());
                    jobs.lines.push(index + 1);
                }
                Err(rejection) => jobs.bad_lines.push((index + 1, rejection.detail)),
            },
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_built_in_job_that_reaches_a_model_has_an_answer_that_its_task_accepts() {
        let tasks = my_tasks::registry();
        let answers = answers(&tasks);
        let mut answered = BTreeSet::new();
        for body in BUILT_IN.lines() {
            let Ok(job) = job::parse(body, Limits::default().body_bytes_max) else { continue };
            let Some(task) = tasks.find(&job.task) else { continue };
            let Ok(prompt) = task.prompt(&job.input) else { continue };
            let answer = answers.get(&(prompt.system, prompt.user.clone()));
            let answer = answer.unwrap_or_else(|| panic!("no answer to {body}")).clone();
            assert_eq!(task.accept(answer.clone()), Ok(answer), "{body}");
            answered.insert(prompt.user);
        }
        assert_eq!(answered.len(), ANSWERS.lines().count(), "an answer of which nobody knows the job");
    }

    #[test]
    fn a_file_of_an_editor_on_windows_has_jobs() {
        let job = r#"{"task":"categorize_ticket","input":{"text":"x"}}"#;
        let jobs = of_lines(format!("\u{feff}{job}\r\n\r\n{job}\r\n").as_bytes());
        assert_eq!((jobs.bodies, jobs.lines, jobs.bad_lines), (vec![job.to_owned(); 2], vec![1, 3], vec![]));
    }
}
