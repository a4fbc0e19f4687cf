//! The jobs of a run: the built-in set, or the user's own lines.

use std::path::Path;

use anyhow::Context;
use nightshift_core::job;
use nightshift_core::limits::Limits;

/// The built-in set: one message body a line, some of them broken on purpose.
const BUILT_IN: &str = include_str!("../jobs.jsonl");

/// What will be put on the queue, and what will not.
pub struct Jobs {
    /// Message bodies, in order.
    pub bodies: Vec<String>,
    /// Lines of the user's file that are not jobs: number from 1, and what to change.
    pub bad_lines: Vec<(usize, String)>,
}

/// The built-in jobs, all of them: the broken ones show what becomes of broken messages.
pub fn built_in() -> Jobs {
    Jobs { bodies: BUILT_IN.lines().map(str::to_owned).collect(), bad_lines: Vec::new() }
}

/// The jobs of a JSONL file. A line that is no job is reported and left out; the rest goes on.
pub fn from_file(path: &Path) -> anyhow::Result<Jobs> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read {}: give --jobs a file with one job a line", path.display()))?;
    let mut jobs = Jobs { bodies: Vec::new(), bad_lines: Vec::new() };
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match std::str::from_utf8(line) {
            Err(_) => jobs.bad_lines.push((index + 1, "The line is not UTF-8.".to_owned())),
            Ok(line) => match job::parse(line, Limits::default().body_bytes_max) {
                Ok(_) => jobs.bodies.push(line.to_owned()),
                Err(rejection) => jobs.bad_lines.push((index + 1, rejection.detail)),
            },
        }
    }
    anyhow::ensure!(
        !jobs.bodies.is_empty(),
        "{} holds no job; a line looks like this: {}",
        path.display(),
        BUILT_IN.lines().next().unwrap_or_default()
    );
    Ok(jobs)
}
