//! What the kills explain: which calls were open, and which answers had arrived but were not stored.

use std::collections::{BTreeMap, BTreeSet};

use nightshift_local::model_stub::SeenRequest;
use serde_json::Value;

/// Counts of one input, by prompt or by key.
pub type Counts = BTreeMap<String, u64>;

/// What one stub had seen at one time, by prompt.
pub type Seen = BTreeMap<String, SeenRequest>;

pub fn seen(requests: Vec<SeenRequest>) -> Seen {
    requests.into_iter().map(|request| (request.text.clone(), request)).collect()
}

/// How much a count of each request grew.
pub fn growth(before: &Seen, after: &Seen, count: fn(&SeenRequest) -> u64) -> Counts {
    let grown = after.iter().map(|(prompt, request)| {
        let old = before.get(prompt).map_or(0, count);
        (prompt.clone(), count(request) - old)
    });
    grown.filter(|(_, by)| *by > 0).collect()
}

/// The whole run's account.
#[derive(Debug, Default)]
pub struct Books {
    /// Kills by the schedule, each while the process had calls open.
    pub kills: u64,
    /// Kills by Lambda, at the function's timeout.
    pub timeouts: u64,
    /// Calls that were open when their process was killed, by prompt.
    pub open_at_kills: Counts,
    /// Valid answers that were handed to a process which was killed before the ledger had them, by prompt.
    pub lost_answers: Counts,
    /// Calls that the worker itself gave up waiting for, by key, at most: those that took too long, of which it says so at once,
    /// and one for a record that it hands back or fails after no such call.
    pub given_up: Counts,
    /// Keys whose last call took too long, in the delivery that is worked on.
    took_too_long: BTreeSet<String>,
    /// Of the calls that took too long, the ones after which it called again.
    pub timed_out: Counts,
    /// Lines of the function's log that are not what it should write.
    pub odd_lines: Vec<String>,
    /// Warnings and errors in the log, by what they say.
    pub warnings: Counts,
}

impl Books {
    /// Reads a line of the function's log.
    pub fn log(&mut self, line: &str) {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            self.odd_lines.push(line.to_owned());
            return;
        };
        let fields = entry.get("fields").unwrap_or(&entry);
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let key = || entry.pointer("/span/input_hash").and_then(Value::as_str).unwrap_or_default().to_owned();
        if entry.get("level").and_then(Value::as_str).is_some_and(|level| level != "INFO") {
            add(&mut self.warnings, format!("{} {}", text("message"), text("error")), 1);
        }
        match text("message").as_str() {
            // How a record ended is said only when the whole batch has, which a kill may not let it.
            "claimed" => {
                self.took_too_long.remove(&key());
            }
            "model call failed" if text("error_type") == "timeout" => {
                add(&mut self.given_up, key(), 1);
                self.took_too_long.insert(key());
            }
            "calling again" => {
                if text("why") == "timeout" {
                    add(&mut self.timed_out, key(), 1);
                }
                self.took_too_long.remove(&key());
            }
            "record ended" => {
                let is_counted = self.took_too_long.remove(&key());
                let outcome = text("outcome");
                if !is_counted && !["Succeeded", "NeedsReview", "Duplicate"].contains(&outcome.as_str()) {
                    add(&mut self.given_up, key(), 1);
                }
            }
            _ => {}
        }
    }
}

pub fn add(counts: &mut Counts, name: String, by: u64) {
    *counts.entry(name).or_default() += by;
}

pub fn of(counts: &Counts, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}
