//! What the redrive function is asked and answers, the same for whoever asks: the command, a schedule, a person by hand.

use serde::{Deserialize, Serialize};

use super::record::Redrive;
use super::report::Report;
use super::request::{Request, Source};

/// The type of the function's error where AWS refuses it for good: no repetition helps before somebody changes what it may do.
pub const DENIED: &str = "AwsDenied";

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// There is no redrive of that name; a sentence that says how to find one.
    NotFound(String),
    /// What was asked cannot be done; a sentence that says what to ask instead. No failure of the function, and no alarm.
    Refused(String),
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stepped {
    /// Nothing is left to do; the record says why it ended.
    Over(Box<Redrive>),
    /// It is not; there is something to do at this time, in milliseconds since 1970.
    Again {
        /// When.
        at_ms: u64,
        /// How far it is.
        redrive: Box<Redrive>,
    },
    /// Another step is under way, until then at most.
    Busy {
        /// When its lock ends, in milliseconds since 1970.
        until_ms: u64,
    },
}

/// A redrive in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: String,
    /// The queue that it takes from.
    pub source: Source,
    /// Its record, where this release can read it.
    pub redrive: Option<Redrive>,
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(Ask::read(event).as_ref(), Ok(&ask), "{event}");
            assert_eq!(Ask::read(&serde_json::to_string(&ask).unwrap()), Ok(ask), "{event}: as it is asked");
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
