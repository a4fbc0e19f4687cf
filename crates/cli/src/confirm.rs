//! What changes something says first what it will do, and asks.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use crate::error::Failure;
use crate::render::say;
use crate::text;

/// For every command that changes something.
#[derive(Debug, Clone, Args)]
pub struct Consent {
    /// Do not ask; without a terminal nothing is changed unless this is given.
    #[arg(long)]
    pub yes: bool,
    /// Why, for whoever reads the trace: a ticket, an incident, a sentence.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,
}

/// The longest reason, in characters: a sentence or two.
const REASON_CHARS_MAX: usize = 500;

/// A reason, as somebody typed it.
pub fn reason(given: &str) -> Result<String, String> {
    let given = text::shown(given.trim());
    match given.chars().count() {
        0 => Err("say why, in a few words".to_owned()),
        1..=REASON_CHARS_MAX => Ok(given),
        _ => Err(format!("at most {REASON_CHARS_MAX} characters: name the ticket that says more")),
    }
}

/// Says what will be done and asks for a yes.
///
/// # Errors
/// Without a terminal and without `--yes`, or when the answer is not yes: nothing was changed.
pub async fn ask(yes: bool, what: &str) -> Result<(), Failure> {
    say(what);
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::usage(
            "There is no terminal to ask on, and nothing was changed: add --yes if this is meant.",
        ));
    }
    let mut err = io::stderr().lock();
    let _ = write!(err, "Go on? [y/N] ").and_then(|()| err.flush());
    drop(err);
    match line().await.map(|answer| answer.trim().to_lowercase()).as_deref() {
        Some("y" | "yes") => Ok(()),
        _ => Err(Failure::failed("Nothing was changed.")),
    }
}

/// A line from the terminal. Whoever reads it on this thread would hear no Ctrl-C.
pub async fn line() -> Option<String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    read.await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_a_short_text_that_obeys_nobody() {
        assert_eq!(reason(" INC-42 \u{1b}[0m").as_deref(), Ok("INC-42 [0m"));
        assert!(reason("  ").is_err() && reason(&"x".repeat(501)).is_err());
    }
}
