//! One invocation: read what is asked, do one bounded thing, answer.

use lambda_runtime::Diagnostic;
use nightshift_core::redrive::{Redrive, Report, Request};
use nightshift_ports::Clock;
use nightshift_redrive::{Entry, Error, Redriver, Stepped};
use nightshift_shell::runtime::Handler;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Before Lambda kills the function, so long is kept for the piece of work that is under way: a page with all timeouts of
/// its requests is rarely longer, and when it is, nothing is lost.
const DEADLINE_MARGIN_MS: u64 = 20_000;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Begin a redrive, or say what it would do (`dry_run`). Nothing is sent before the first step.
    Start(Box<Request>),
    /// Go on with it.
    Step {
        /// Its name.
        id: String,
    },
    /// End it.
    Stop {
        /// Its name.
        id: String,
        /// Who wants it.
        caller: String,
        /// Why.
        reason: String,
    },
    /// Its record.
    Show {
        /// Its name.
        id: String,
    },
    /// Those that are not over.
    List {
        /// Those that are over, too.
        #[serde(default)]
        all: bool,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To `start` with `dry_run`.
    Report(Box<Report>),
    /// To `start`, `stop` and `show`.
    Redrive(Box<Redrive>),
    /// To `step`.
    Stepped(Stepped),
    /// To `list`.
    Redrives(Vec<Entry>),
    /// What was asked cannot be done; a sentence that says what to ask instead. No failure of the function, and no alarm.
    Refused(String),
}

/// Why an invocation fails, so that somebody is told.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvocationError(Error);

impl From<InvocationError> for Diagnostic {
    fn from(error: InvocationError) -> Self {
        let error_type = match error.0 {
            Error::Port(_) => "Aws",
            Error::Unreadable(_) => "Unreadable",
            _ => "Redrive",
        };
        Self { error_type: error_type.to_owned(), error_message: error.to_string() }
    }
}

impl Ask {
    /// What an event asks.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn read(event: &str) -> Result<Self, String> {
        serde_json::from_str(event).map_err(|error| {
            format!("The event asks nothing that is known ({error}): send start, step, stop, show or list.")
        })
    }
}

/// Answers one event at a time.
pub struct AskHandler {
    redriver: Redriver,
    clock: Arc<dyn Clock>,
}

impl AskHandler {
    /// A handler around the redrives of a stack.
    #[must_use]
    pub fn new(redriver: Redriver, clock: Arc<dyn Clock>) -> Self {
        Self { redriver, clock }
    }

    async fn answer(&self, ask: Ask, deadline_ms: u64) -> Result<Answer, Error> {
        let redriver = &self.redriver;
        Ok(match ask {
            Ask::Start(request) if request.dry_run => {
                Answer::Report(Box::new(redriver.dry_run(&request).await?))
            }
            Ask::Start(request) => Answer::Redrive(Box::new(redriver.start(*request).await?)),
            Ask::Step { id } => {
                let left_ms = deadline_ms.saturating_sub(self.clock.now_ms());
                Answer::Stepped(redriver.step(&id, left_ms.saturating_sub(DEADLINE_MARGIN_MS)).await?)
            }
            Ask::Stop { id, caller, reason } => {
                Answer::Redrive(Box::new(redriver.stop(&id, &caller, &reason).await?))
            }
            Ask::Show { id } => Answer::Redrive(Box::new(redriver.show(&id).await?)),
            Ask::List { all } => Answer::Redrives(redriver.list(all).await?),
        })
    }
}

impl Handler for AskHandler {
    type Answer = Answer;
    type Error = InvocationError;

    async fn handle(&self, _: &str, deadline_ms: u64, event: &str) -> Result<Answer, InvocationError> {
        let ask = match Ask::read(event) {
            Ok(ask) => ask,
            Err(refused) => return Ok(Answer::Refused(refused)),
        };
        match self.answer(ask, deadline_ms).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_the_askers() => Ok(Answer::Refused(error.to_string())),
            Err(error) => Err(InvocationError(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_core::redrive::Source;

    #[test]
    fn an_event_asks_one_thing_and_what_is_not_known_is_told() {
        let id = || "r".to_owned();
        let words = || ("c".to_owned(), "r".to_owned());
        let (caller, reason) = words();
        for (event, ask) in [
            (
                r#"{"start":{"source":"crashed","reason":"r","caller":"c"}}"#,
                Ask::Start(Box::new(Request::all(Source::Crashed, "r", "c"))),
            ),
            (r#"{"step":{"id":"r"}}"#, Ask::Step { id: id() }),
            (r#"{"stop":{"id":"r","caller":"c","reason":"r"}}"#, Ask::Stop { id: id(), caller, reason }),
            (r#"{"show":{"id":"r"}}"#, Ask::Show { id: id() }),
            (r#"{"list":{}}"#, Ask::List { all: false }),
            (r#"{"list":{"all":true}}"#, Ask::List { all: true }),
        ] {
            assert_eq!(Ask::read(event), Ok(ask), "{event}");
        }
        for (event, says) in [
            ("", "EOF"),
            ("{}", "expected value"),
            (r#"{"strat":{}}"#, "unknown variant `strat`, expected one of `start`"),
            (r#"{"step":{}}"#, "missing field `id`"),
            (r#"{"step":{"id":"r","force":true}}"#, "unknown field `force`"),
            (
                r#"{"start":{"source":"dead-letters","reason":"r","caller":"c","task":"t"}}"#,
                "unknown field `task`",
            ),
        ] {
            let refused = Ask::read(event).unwrap_err();
            assert!(refused.contains(says) && refused.ends_with("show or list."), "{event}: {refused}");
        }
    }
}
