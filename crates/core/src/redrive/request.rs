//! What somebody asks for: the same struct for JSON and for the command line.

use serde::{Deserialize, Serialize};

use crate::failure::FailureReason;
use crate::input_hash::InputHash;
use crate::job::{REFERENCE_BYTES_MAX, TASK_BYTES_MAX};

/// The slowest rate, in messages a second: one in ten seconds.
pub const RATE_MIN: f64 = 0.1;
/// The fastest rate, in messages a second: SQS's own for a move task (StartMessageMoveTask,
/// `MaxNumberOfMessagesPerSecond`).
pub const RATE_MAX: f64 = 500.0;
/// Keys, references or tasks in one request: what is more is a filter of another kind, and the record must stay small.
pub const LIST_MAX: usize = 500;
/// The longest `reason` and `caller`, in characters.
pub const WORDS_MAX: usize = 500;
/// The most messages of a canary: more say nothing more, and each is read from the ledger.
pub const CANARY_MAX: u32 = 200;
/// The longest wait for a canary, in seconds: what was looked at stays hidden meanwhile, and SQS hides for 12 hours.
pub const CANARY_WAIT_S_MAX: u64 = 6 * 3_600;

/// Where the messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The worker put them there and says why.
    DeadLetters,
    /// SQS put them there, and nobody knows why.
    Crashed,
}

impl Source {
    /// The word in a request, which is also the queue's name after its prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead-letters",
            Self::Crashed => "crashed",
        }
    }
}

/// A redrive, as it is asked for. Filters of different kinds must all hold; within one, any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Where the messages are.
    pub source: Source,
    /// Only those that failed for one of these. Not from `crashed`, which knows none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<FailureReason>,
    /// Only those of one of these tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Only those that failed at or after this time, in milliseconds since 1970. Not from `crashed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_after_ms: Option<u64>,
    /// Only those that failed before this time, in milliseconds since 1970. Not from `crashed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_before_ms: Option<u64>,
    /// Only those with one of these keys (input hashes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<InputHash>,
    /// Only those with one of these references.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
    /// At most so many. A step that is killed may send up to ten more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Messages a second, on average; they are sent up to ten at a time.
    #[serde(default = "default_rate")]
    pub rate: f64,
    /// What to try first, and what it must come to before the rest follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Only count, and say what it would cost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Why, for whoever reads the record later.
    pub reason: String,
    /// Who.
    pub caller: String,
}

/// The first messages of a redrive, which decide on the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// So many; or else `percent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u32>,
    /// This share of what matches; or else `messages`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// The share of them that must succeed.
    #[serde(default = "default_success_percent")]
    pub success_percent: u32,
    /// How long to wait for them, in seconds after the last one was sent.
    #[serde(default = "default_canary_wait_s")]
    pub wait_s: u64,
}

/// As slow as the runbook's move task: slow enough to watch.
fn default_rate() -> f64 {
    5.0
}

fn default_success_percent() -> u32 {
    90
}

/// Two of the longest invocations.
fn default_canary_wait_s() -> u64 {
    600
}

impl Canary {
    /// How many messages, of so many that match.
    #[must_use]
    pub fn count(&self, matching: u64) -> u32 {
        let count = match (self.messages, self.percent) {
            (Some(messages), _) => u64::from(messages),
            (None, Some(percent)) => matching.saturating_mul(u64::from(percent)).div_ceil(100),
            (None, None) => 1,
        };
        u32::try_from(count).unwrap_or(CANARY_MAX).clamp(1, CANARY_MAX)
    }
}

impl Request {
    /// Everything of a source, at the default rate.
    #[must_use]
    pub fn all(source: Source, reason: impl Into<String>, caller: impl Into<String>) -> Self {
        Self {
            source,
            reasons: Vec::new(),
            tasks: Vec::new(),
            failed_after_ms: None,
            failed_before_ms: None,
            keys: Vec::new(),
            references: Vec::new(),
            limit: None,
            rate: default_rate(),
            canary: None,
            dry_run: false,
            reason: reason.into(),
            caller: caller.into(),
        }
    }

    /// Whether it takes some of the messages and leaves others.
    #[must_use]
    pub fn chooses(&self) -> bool {
        !(self.reasons.is_empty()
            && self.tasks.is_empty()
            && self.keys.is_empty()
            && self.references.is_empty()
            && self.failed_after_ms.is_none()
            && self.failed_before_ms.is_none())
    }

    /// What is wrong with it; empty when nothing is. Each entry says what to change.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = Vec::new();
        let mut fault = |is_one: bool, says: String| {
            if is_one {
                faults.push(says);
            }
        };
        let crashed = self.source == Source::Crashed;
        fault(
            crashed && !self.reasons.is_empty(),
            "reasons: messages in crashed have none, because SQS moved them there without one; leave reasons out.".to_owned(),
        );
        fault(
            crashed && (self.failed_after_ms.is_some() || self.failed_before_ms.is_some()),
            "failed_after_ms, failed_before_ms: SQS does not say when it moved a message to crashed; leave them out.".to_owned(),
        );
        fault(
            matches!((self.failed_after_ms, self.failed_before_ms), (Some(after), Some(before)) if after >= before),
            "failed_after_ms must be earlier than failed_before_ms: between them is nothing.".to_owned(),
        );
        for (name, count) in
            [("tasks", self.tasks.len()), ("keys", self.keys.len()), ("references", self.references.len())]
        {
            fault(
                count > LIST_MAX,
                format!("{name} has {count} entries and may have {LIST_MAX}: split the request."),
            );
        }
        fault(
            self.tasks.iter().any(|task| task.is_empty() || task.len() > TASK_BYTES_MAX),
            format!("tasks: a name has 1 to {TASK_BYTES_MAX} bytes."),
        );
        fault(
            self.keys.iter().any(|key| !is_key(key.as_str())),
            "keys: a key is the input hash, 64 lower-case hex characters; a name of your own belongs into references.".to_owned(),
        );
        fault(
            self.references.iter().any(|reference| reference.len() > REFERENCE_BYTES_MAX),
            format!("references: none is longer than {REFERENCE_BYTES_MAX} bytes."),
        );
        fault(self.limit == Some(0), "limit must be at least 1; to send nothing, use dry_run.".to_owned());
        fault(
            !(RATE_MIN..=RATE_MAX).contains(&self.rate),
            format!("rate must be from {RATE_MIN} to {RATE_MAX} messages a second."),
        );
        for (name, words) in [("reason", &self.reason), ("caller", &self.caller)] {
            fault(
                words.trim().is_empty(),
                format!("{name} is empty: say {name} for whoever reads it later."),
            );
            fault(
                words.chars().count() > WORDS_MAX || words.chars().any(char::is_control),
                format!("{name} has at most {WORDS_MAX} characters, and no line break or control character."),
            );
        }
        if let Some(canary) = &self.canary {
            fault(
                canary.messages.is_some() == canary.percent.is_some(),
                "canary: give either messages or percent.".to_owned(),
            );
            fault(
                canary.messages.is_some_and(|messages| !(1..=CANARY_MAX).contains(&messages)),
                format!("canary.messages must be from 1 to {CANARY_MAX}: more say nothing more."),
            );
            for (name, percent) in
                [("percent", canary.percent), ("success_percent", Some(canary.success_percent))]
            {
                fault(
                    percent.is_some_and(|percent| !(1..=100).contains(&percent)),
                    format!("canary.{name} must be from 1 to 100."),
                );
            }
            fault(
                !(1..=CANARY_WAIT_S_MAX).contains(&canary.wait_s),
                format!("canary.wait_s must be from 1 to {CANARY_WAIT_S_MAX}."),
            );
        }
        faults
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn all() -> Request {
        Request::all(Source::DeadLetters, "the prompt is mended", "ops")
    }

    #[test]
    fn a_request_needs_little_and_its_json_is_what_it_was_read_from() {
        let short = json!({"source": "dead-letters", "reason": "the prompt is mended", "caller": "ops"});
        let read: Request = serde_json::from_value(short).unwrap();
        assert_eq!(read, all());
        assert_eq!(read.faults(), Vec::<String>::new());
        assert!(!read.chooses());
        let long = json!({
            "source": "dead-letters", "reasons": ["refused", "invalid_output"], "tasks": ["categorize_ticket"],
            "failed_after_ms": 1, "failed_before_ms": 2, "keys": ["a".repeat(64)], "references": ["ticket-1"],
            "limit": 10, "rate": 0.5, "canary": {"percent": 5, "success_percent": 80, "wait_s": 60},
            "dry_run": true, "reason": "r", "caller": "c",
        });
        let read: Request = serde_json::from_value(long.clone()).unwrap();
        assert_eq!(read.faults(), Vec::<String>::new());
        assert!(read.chooses());
        assert_eq!(serde_json::to_value(&read).unwrap(), long);
    }

    #[test]
    fn what_is_not_known_is_refused_and_never_left_out() {
        for (change, says) in [
            (json!({"reasons": ["refusd"]}), "unknown variant `refusd`"),
            (json!({"source": "jobs"}), "unknown variant `jobs`, expected `dead-letters` or `crashed`"),
            (json!({"task": "t"}), "unknown field `task`"),
            (json!({"canary": {"share": 5}}), "unknown field `share`"),
            (json!({"limit": -1}), "invalid value"),
            (json!({"rate": "fast"}), "invalid type"),
            (json!({"reason": null}), "invalid type: null"),
        ] {
            let mut request = json!({"source": "dead-letters", "reason": "r", "caller": "c"});
            for (name, value) in change.as_object().unwrap() {
                request[name] = value.clone();
            }
            let error = serde_json::from_value::<Request>(request).unwrap_err().to_string();
            assert!(error.contains(says), "{change}: {error}");
        }
        for missing in ["source", "reason", "caller"] {
            let mut request = json!({"source": "crashed", "reason": "r", "caller": "c"});
            request.as_object_mut().unwrap().remove(missing);
            let error = serde_json::from_value::<Request>(request).unwrap_err().to_string();
            assert!(error.contains(&format!("missing field `{missing}`")), "{error}");
        }
    }

    #[test]
    fn each_fault_says_what_to_change() {
        let canary = |change: fn(&mut Canary)| {
            move |request: &mut Request| {
                let mut canary = Canary { messages: Some(5), percent: None, success_percent: 90, wait_s: 60 };
                change(&mut canary);
                request.canary = Some(canary);
            }
        };
        type Change = Box<dyn Fn(&mut Request)>;
        let crashed = |request: &mut Request| request.source = Source::Crashed;
        let cases: Vec<(Change, &str)> = vec![
            (
                Box::new(move |r| {
                    crashed(r);
                    r.reasons = vec![FailureReason::Poison];
                }),
                "reasons: messages in crashed have none",
            ),
            (
                Box::new(move |r| {
                    crashed(r);
                    r.failed_before_ms = Some(1);
                }),
                "does not say when it moved",
            ),
            (
                Box::new(|r| (r.failed_after_ms, r.failed_before_ms) = (Some(5), Some(5))),
                "between them is nothing",
            ),
            (Box::new(|r| r.tasks = vec!["t".to_owned(); 501]), "tasks has 501 entries and may have 500"),
            (Box::new(|r| r.tasks = vec![String::new()]), "a name has 1 to 64 bytes"),
            (Box::new(|r| r.tasks = vec!["t".repeat(65)]), "a name has 1 to 64 bytes"),
            (Box::new(|r| r.keys = vec![InputHash::from_stored("ticket-1")]), "64 lower-case hex"),
            (Box::new(|r| r.keys = vec![InputHash::from_stored("A".repeat(64))]), "64 lower-case hex"),
            (Box::new(|r| r.references = vec!["r".repeat(1_025)]), "none is longer than 1024"),
            (Box::new(|r| r.limit = Some(0)), "use dry_run"),
            (Box::new(|r| r.rate = 0.0), "rate must be from 0.1 to 500"),
            (Box::new(|r| r.rate = 501.0), "rate must be from 0.1 to 500"),
            (Box::new(|r| r.rate = f64::NAN), "rate must be from 0.1 to 500"),
            (Box::new(|r| r.reason = " ".to_owned()), "reason is empty"),
            (Box::new(|r| r.caller = String::new()), "caller is empty"),
            (Box::new(|r| r.reason = "\u{1b}[2J".to_owned()), "no line break or control character"),
            (Box::new(|r| r.caller = "c".repeat(501)), "at most 500 characters"),
            (Box::new(canary(|c| c.messages = None)), "either messages or percent"),
            (Box::new(canary(|c| c.percent = Some(5))), "either messages or percent"),
            (Box::new(canary(|c| c.messages = Some(0))), "canary.messages must be from 1 to 200"),
            (Box::new(canary(|c| c.messages = Some(201))), "canary.messages must be from 1 to 200"),
            (Box::new(canary(|c| (c.messages, c.percent) = (None, Some(101)))), "canary.percent must be"),
            (Box::new(canary(|c| c.success_percent = 0)), "canary.success_percent must be from 1 to 100"),
            (Box::new(canary(|c| c.wait_s = 0)), "canary.wait_s must be from 1 to 21600"),
        ];
        for (change, says) in cases {
            let mut request = all();
            change(&mut request);
            let faults = request.faults();
            assert!(faults.len() == 1 && faults[0].contains(says), "{says}: {faults:?}");
        }
    }

    #[test]
    fn a_canary_is_a_number_or_a_share_and_never_nothing() {
        let of = |messages, percent| Canary { messages, percent, success_percent: 90, wait_s: 60 };
        for (canary, matching, count) in [
            (of(Some(7), None), 1_000, 7),
            (of(None, Some(5)), 1_000, 50),
            (of(None, Some(5)), 1_001, 51),
            (of(None, Some(5)), 3, 1),
            (of(None, Some(5)), 0, 1),
            (of(None, Some(100)), 150, 150),
            (of(None, Some(100)), u64::MAX, CANARY_MAX),
        ] {
            assert_eq!(canary.count(matching), count, "{canary:?} of {matching}");
        }
    }

    #[test]
    fn a_source_is_called_as_its_queue_is() {
        for source in [Source::DeadLetters, Source::Crashed] {
            assert_eq!(serde_json::to_value(source).unwrap(), Value::from(source.as_str()));
        }
    }

    #[test]
    fn what_just_fits_is_no_fault() {
        let mut largest = all();
        largest.tasks = vec!["t".repeat(64); 500];
        largest.keys = vec![InputHash::from_stored("f".repeat(64)); 500];
        largest.references = vec!["r".repeat(1_024); 500];
        (largest.reason, largest.caller) = ("é".repeat(500), "c".repeat(500));
        (largest.failed_after_ms, largest.failed_before_ms) = (Some(4), Some(5));
        (largest.limit, largest.rate) = (Some(u64::MAX), 500.0);
        largest.canary =
            Some(Canary { messages: Some(200), percent: None, success_percent: 100, wait_s: 6 * 3_600 });
        let mut least = Request { limit: Some(1), rate: 0.1, ..all() };
        least.canary = Some(Canary { messages: Some(1), percent: None, success_percent: 1, wait_s: 1 });
        let share = |percent| {
            let canary = Canary { messages: None, percent: Some(percent), success_percent: 90, wait_s: 60 };
            Request { canary: Some(canary), ..all() }
        };
        for request in [largest, least, share(1), share(100)] {
            assert_eq!(request.faults(), Vec::<String>::new(), "{request:?}");
        }
    }

    #[test]
    fn a_canary_of_which_nobody_said_more_must_nearly_all_succeed_within_ten_minutes() {
        let request = json!({"source": "crashed", "reason": "r", "caller": "c", "canary": {"messages": 5}});
        let request: Request = serde_json::from_value(request).unwrap();
        let expected = Canary { messages: Some(5), percent: None, success_percent: 90, wait_s: 600 };
        assert_eq!(request.canary, Some(expected));
    }

    #[test]
    fn each_filter_alone_chooses() {
        let filters: [fn(&mut Request); 6] = [
            |r| r.reasons = vec![FailureReason::Poison],
            |r| r.tasks = vec!["t".to_owned()],
            |r| r.keys = vec![InputHash::of_body("x")],
            |r| r.references = vec!["ticket-1".to_owned()],
            |r| r.failed_after_ms = Some(1),
            |r| r.failed_before_ms = Some(1),
        ];
        for filter in filters {
            let mut request = all();
            filter(&mut request);
            assert!(request.chooses(), "{request:?}");
        }
    }
}
