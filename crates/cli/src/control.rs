//! The control record, as a person sees it.

use nightshift_core::control::{Cause, Control, Entry, Phase};
use serde::Serialize;

use crate::times;

/// One cause that holds work back, or has lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// The word of the cause.
    pub cause: String,
    /// `paused`, `probing`, `reopening`, `open`; `unknown` of a newer release.
    pub phase: &'static str,
    /// How many calls may be open at once while it reopens.
    pub width: Option<u32>,
    pub reason: String,
    /// Who wrote it.
    pub who: String,
    /// Since when, in milliseconds since 1970; 0 where nobody wrote it.
    pub since_ms: u64,
    /// How often it came back within ten minutes.
    pub relapses: u32,
}

/// All causes that hold work back, the operator's first.
pub fn pauses(control: &Control) -> Vec<Pause> {
    let known = control.holding().map(|(cause, entry)| pause(cause, entry));
    let foreign = control.foreign.keys().map(|word| Pause {
        cause: word.clone(),
        phase: "unknown",
        width: None,
        reason: "a newer release wrote it, and only that one knows how it ends".to_owned(),
        who: String::new(),
        since_ms: 0,
        relapses: 0,
    });
    known.chain(foreign).collect()
}

fn pause(cause: Cause, entry: &Entry) -> Pause {
    let (phase, width) = match entry.phase {
        Phase::Paused => ("paused", None),
        Phase::Probing => ("probing", None),
        Phase::Reopening { width } => ("reopening", Some(width)),
        Phase::Open => ("open", None),
    };
    Pause {
        cause: cause.as_str().to_owned(),
        phase,
        width,
        reason: entry.reason.clone(),
        who: entry.who.clone(),
        since_ms: entry.since_ms,
        relapses: entry.relapses,
    }
}

impl Pause {
    /// One line for people.
    pub fn line(&self) -> String {
        let phase = match self.width {
            Some(width) => format!("reopening, {width} calls at a time"),
            None if self.relapses > 0 => format!("{}, relapse {}", self.phase, self.relapses),
            None => self.phase.to_owned(),
        };
        let since = match self.since_ms {
            0 => String::new(),
            since_ms => format!(" since {}", times::shown(since_ms)),
        };
        let who = if self.who.is_empty() { String::new() } else { format!(" (by {})", self.who) };
        format!("{} ({phase}){since}: {}{who}", self.cause, self.reason)
    }
}
