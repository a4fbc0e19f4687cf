//! The record of a redrive: its request, its lock, how far it has come, who did what, and how it ended.
//!
//! It is kept as JSON in the ledger, and lives longer than a deploy: what is added is optional; a member that is not
//! known is carried on; but a filter or a word that is not known makes the record unreadable, because whoever goes on
//! without it would send what nobody asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canary::CanaryRun;
use super::request::Request;
use super::{KEPT_MS, LEASE_MS};
use crate::text;

/// How many events a record keeps.
const HISTORY_MAX: usize = 40;
/// How much of a failure is kept: what AWS says of a denial names identity, action and resource in about 300.
const FAILURE_CHARS_MAX: usize = 600;

/// What was asked for, how far it is, and how it ended: all that one step knows of the steps before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Redrive {
    /// Its name: when it began, and something random.
    pub id: String,
    /// Grows with every write, each of which expects the one before.
    pub version: u64,
    /// What was asked for.
    pub request: Request,
    /// When, in milliseconds since 1970. What failed later is no part of it.
    pub began_ms: u64,
    /// How many messages were thought to match then.
    #[serde(default)]
    pub matching: u64,
    /// Who works on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// Somebody wants it to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// What is tried first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryRun>,
    /// The walk through the queue that is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Scan>,
    /// What was done.
    #[serde(default)]
    pub progress: Progress,
    /// Until then, an earlier redrive of the same source keeps hidden what it did not choose.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier_until_ms: u64,
    /// Nothing is sent before then.
    #[serde(default)]
    pub next_send_ms: u64,
    /// What happened, oldest first, in sentences.
    #[serde(default)]
    pub history: Vec<Event>,
    /// Why a step last failed, for whoever wonders that nothing moves; a later step may have worked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<Event>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// What another release says of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// How many messages a queue holds, by its own approximate counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Depth {
    /// Those that a receive can bring.
    pub visible: u64,
    /// Those that somebody has received and not deleted.
    pub hidden: u64,
}

impl Depth {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.visible.saturating_add(self.hidden)
    }
}

/// A walk through the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scan {
    /// Which one of this redrive, from 1.
    pub number: u32,
    /// Its planned end: until then what was not chosen stays hidden.
    pub ends_ms: u64,
    /// How many messages it has hidden until then.
    pub hidden: u64,
    /// Those of them that match and could not be sent.
    pub left: Left,
    /// How many it has sent.
    pub sent: u64,
    /// Empty long polls since the last message.
    pub empty_polls: u32,
    /// Nothing is received before then.
    pub rest_until_ms: u64,
    /// Scans in a row, up to the one before, that sent nothing.
    pub idle_before: u32,
}

/// How many messages that match a scan had to leave where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Their records could not be read or reset.
    pub unreadable: u64,
    /// SQS would not take them back.
    pub refused: u64,
}

impl Left {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.unreadable.saturating_add(self.refused)
    }
}

/// The right to work on a redrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Of the step that has it.
    pub token: String,
    /// Until then nobody else may.
    pub until_ms: u64,
}

/// The wish that it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Who.
    pub caller: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at_ms: u64,
}

/// What was done so far. A step that is killed may have done up to one page more than stands here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Messages looked at; one that comes back is looked at again.
    pub looked_at: u64,
    /// Sent to the jobs queue.
    pub sent: u64,
    /// Deleted from the source.
    pub deleted: u64,
    /// Not one of those that were asked for.
    pub not_chosen: u64,
    /// Came after the redrive began.
    pub newer: u64,
    /// From `crashed`: settled already, by a result, an erasure or a dead letter that was sent; deleted without being sent.
    pub settled: u64,
    /// From `crashed`: a worker had their job, so that they were left for later.
    pub waited: u64,
    /// Their record could not be read or reset, so that they were left where they are; one that comes back counts again.
    pub unreadable: u64,
    /// SQS would not take them back; they stay where they are, and one that comes back counts again.
    pub refused: u64,
    /// What another release counts.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: u64,
    /// A sentence.
    pub what: String,
}

/// How a redrive ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at_ms: u64,
    /// The word.
    pub how: Ended,
    /// A sentence that says what to do next, where there is anything to do.
    pub detail: String,
}

/// The word for how a redrive ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Nothing that matches is left.
    Finished,
    /// As many were sent as were asked for.
    LimitReached,
    /// Somebody stopped it.
    Stopped,
    /// Fewer of its canary succeeded than were asked for.
    CanaryFailed,
    /// The queue is too large to choose from, or it would take too long.
    TooLarge,
    /// Somebody else holds what is left.
    GaveUp,
    /// What is left could not be sent: its records are in words of a newer release, or SQS would not take it back.
    Incomplete,
    /// A word of another release.
    #[serde(untagged)]
    Other(String),
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What stands in the ledger is not as this release writes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record of the redrive cannot be read ({0}): a newer release wrote it, so let that one go on with it, or stop it there"
)]
pub struct Unreadable(String);

impl Unreadable {
    pub(super) fn because(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

impl Redrive {
    /// One of which nothing is done, without a canary.
    pub(super) fn new(id: String, request: Request, matching: u64, now_ms: u64) -> Self {
        Self {
            id,
            version: 1,
            request,
            began_ms: now_ms,
            matching,
            lock: None,
            stop: None,
            canary: None,
            scan: None,
            progress: Progress::default(),
            earlier_until_ms: 0,
            next_send_ms: now_ms,
            history: Vec::new(),
            last_failure: None,
            end: None,
            more: Map::new(),
        }
    }

    /// What an earlier redrive of the same source looked at and did not choose is not back yet: this one waits for it.
    pub fn comes_after(&mut self, earlier: &Self, now_ms: u64) {
        let hides_until_ms = earlier.scan.as_ref().map_or(0, |scan| scan.ends_ms);
        let until_ms = hides_until_ms.max(earlier.earlier_until_ms);
        if until_ms > now_ms {
            self.earlier_until_ms = until_ms;
            let what = format!(
                "The redrive {} keeps hidden what it did not choose, for {} more seconds at most; this one waits for it.",
                earlier.id,
                (until_ms - now_ms).div_ceil(1_000)
            );
            self.note(now_ms, what);
        }
    }

    /// The record in the form in which it is kept.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Plain structs with string keys always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The record that stands.
    ///
    /// # Errors
    /// When it holds what this release does not know and must not leave out.
    pub fn from_json(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(Unreadable::because)
    }

    /// When the record is deleted, in milliseconds since 1970.
    #[must_use]
    pub fn expires_at_ms(&self) -> u64 {
        self.began_ms.saturating_add(KEPT_MS)
    }

    /// Takes the lock, or says until when another step has it.
    ///
    /// # Errors
    /// The end of the other's lease.
    pub fn take_lock(&mut self, token: &str, now_ms: u64) -> Result<(), u64> {
        match &self.lock {
            Some(lock) if lock.until_ms > now_ms && lock.token != token => Err(lock.until_ms),
            _ => {
                self.lock = Some(Lock { token: token.to_owned(), until_ms: now_ms.saturating_add(LEASE_MS) });
                Ok(())
            }
        }
    }

    /// Keeps the lock for as long again; called before each write of a step that goes on.
    pub fn keep_lock(&mut self, now_ms: u64) {
        if let Some(lock) = &mut self.lock {
            lock.until_ms = now_ms.saturating_add(LEASE_MS);
        }
    }

    /// Whether a write of this record that was refused because of `standing` may be made again over it: the lock is still
    /// the writer's, so that nobody but a person who stops it, or the writer's own write whose reply was lost, came between.
    /// Takes over what that person wants.
    #[must_use]
    pub fn gives_way_to(&mut self, standing: &Self, token: &str) -> bool {
        let ours = standing.lock.as_ref().is_some_and(|lock| lock.token == token);
        if ours {
            self.version = standing.version;
            self.stop = standing.stop.clone().or(self.stop.take());
            for event in &standing.history {
                if !self.history.contains(event) {
                    self.history.push(event.clone());
                }
            }
        }
        ours
    }

    /// Whether a step may still send: its lock is good for longer than sending takes. A process that stood still finds it
    /// too old.
    #[must_use]
    pub fn may_send(&self, token: &str, now_ms: u64) -> bool {
        self.lock
            .as_ref()
            .is_some_and(|lock| lock.token == token && lock.until_ms > now_ms.saturating_add(LEASE_MS / 4))
    }

    /// A step failed. It is no line of the history, from which one a minute would push everything else.
    pub fn step_failed(&mut self, why: &str, now_ms: u64) {
        self.last_failure = Some(Event { at_ms: now_ms, what: text::cut(why, FAILURE_CHARS_MAX) });
    }

    /// Somebody wants it to end. The step that is under way, or the next one, ends it.
    pub fn ask_to_stop(&mut self, stop: Stop) {
        if self.end.is_none() && self.stop.is_none() {
            self.note(stop.at_ms, format!("{} stopped it: {}", stop.caller, stop.reason));
            self.stop = Some(stop);
        }
    }

    /// It is over.
    pub fn end(&mut self, how: Ended, detail: String, now_ms: u64) {
        self.note(now_ms, detail.clone());
        self.end = Some(End { at_ms: now_ms, how, detail });
    }

    /// A line in its history.
    pub fn note(&mut self, at_ms: u64, what: String) {
        self.history.push(Event { at_ms, what });
        // The first line says who began it.
        while self.history.len() > HISTORY_MAX {
            self.history.remove(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redrive::Source;
    use serde_json::json;

    fn redrive() -> Redrive {
        let request = Request::all(Source::DeadLetters, "the prompt is mended", "ops");
        Redrive::begin("r-1".to_owned(), request, 5, Depth { visible: 5, hidden: 0 }, 1_000).unwrap()
    }

    fn stop() -> Stop {
        Stop { caller: "boss".to_owned(), reason: "enough".to_owned(), at_ms: 2_000 }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut full = redrive();
        full.take_lock("a", 1_000).unwrap();
        full.ask_to_stop(stop());
        full.step_failed("SQS did not carry out ReceiveMessage", 2_500);
        full.canary = Some(CanaryRun { count: 3, ..CanaryRun::default() });
        (full.earlier_until_ms, full.next_send_ms) = (9_000, 2_700);
        full.end(Ended::Stopped, "Stopped.".to_owned(), 3_000);
        for record in [redrive(), full] {
            assert_eq!(Redrive::from_json(&record.to_json()).unwrap(), record);
        }
    }

    #[test]
    fn what_another_release_added_is_kept_and_what_it_left_out_has_its_default() {
        let mut newer: Value = serde_json::from_str(&redrive().to_json()).unwrap();
        newer["ticket"] = json!({"url": "https://example.com"});
        newer["progress"]["skipped"] = json!(7);
        newer["end"] = json!({"at_ms": 1, "how": "eaten", "detail": "The dog."});
        let read = Redrive::from_json(&newer.to_string()).unwrap();
        assert_eq!(read.end.as_ref().map(|end| &end.how), Some(&Ended::Other("eaten".to_owned())));
        let back: Value = serde_json::from_str(&read.to_json()).unwrap();
        for kept in ["/ticket/url", "/progress/skipped", "/end/how"] {
            assert_eq!(back.pointer(kept), newer.pointer(kept), "{kept}");
        }
        let least = json!({"id": "r", "version": 1, "began_ms": 1,
            "request": {"source": "crashed", "reason": "r", "caller": "c"}});
        assert_eq!(Redrive::from_json(&least.to_string()).unwrap().progress, Progress::default());
    }

    #[test]
    fn a_filter_that_is_not_known_is_never_left_out() {
        for (member, value) in [
            ("tenants", json!(["one"])),
            ("reasons", json!(["bored"])),
            ("source", json!("limbo")),
            ("canary", json!({"messages": 5, "region": "eu"})),
        ] {
            let mut newer: Value = serde_json::from_str(&redrive().to_json()).unwrap();
            newer["request"][member] = value;
            let error = Redrive::from_json(&newer.to_string()).unwrap_err().to_string();
            assert!(error.contains("a newer release wrote it"), "{error}");
        }
    }

    #[test]
    fn a_lock_keeps_others_out_until_its_lease_ends() {
        let mut redrive = redrive();
        assert_eq!(redrive.take_lock("a", 1_000), Ok(()));
        assert_eq!(redrive.take_lock("b", 1_000 + LEASE_MS - 1), Err(1_000 + LEASE_MS));
        assert_eq!(redrive.take_lock("a", 2_000), Ok(()), "its own");
        redrive.keep_lock(5_000);
        assert_eq!(redrive.take_lock("b", 4_999 + LEASE_MS), Err(5_000 + LEASE_MS));
        assert_eq!(redrive.take_lock("b", 5_000 + LEASE_MS), Ok(()));
        redrive.lock = None;
        assert_eq!(redrive.take_lock("c", 0), Ok(()));
    }

    #[test]
    fn a_step_that_stood_still_sends_nothing() {
        let mut redrive = redrive();
        redrive.take_lock("a", 1_000).unwrap();
        let latest_ms = 1_000 + LEASE_MS - LEASE_MS / 4;
        assert!(redrive.may_send("a", latest_ms - 1));
        assert!(!redrive.may_send("a", latest_ms));
        assert!(!redrive.may_send("b", 1_000));
        redrive.lock = None;
        assert!(!redrive.may_send("a", 1_000));
    }

    #[test]
    fn a_stop_that_comes_between_is_obeyed_and_another_step_is_not_overwritten() {
        let mut ours = redrive();
        ours.take_lock("a", 1_000).unwrap();
        let mut stopped = ours.clone();
        stopped.version += 1;
        stopped.ask_to_stop(stop());
        ours.progress.sent = 9;
        assert!(ours.gives_way_to(&stopped, "a"));
        assert_eq!((ours.version, ours.progress.sent, ours.stop.is_some()), (2, 9, true));
        assert_eq!(ours.history.len(), 2, "{:?}", ours.history);
        // Our own write, whose reply was lost.
        let lost = ours.clone();
        assert!(ours.gives_way_to(&lost, "a"));
        assert_eq!(ours, lost);
        let mut theirs = redrive();
        theirs.take_lock("b", 1_000).unwrap();
        assert!(!ours.gives_way_to(&theirs, "a"));
        assert!(!ours.gives_way_to(&redrive(), "a"), "nobody's is not ours");
    }

    #[test]
    fn the_first_stop_counts_and_none_after_the_end() {
        let mut redrive = redrive();
        redrive.ask_to_stop(stop());
        redrive.ask_to_stop(Stop { caller: "second".to_owned(), ..stop() });
        assert_eq!(redrive.stop, Some(stop()));
        let mut over = super::tests::redrive();
        over.end(Ended::Finished, "Done.".to_owned(), 1);
        over.ask_to_stop(stop());
        assert_eq!(over.stop, None);
    }

    #[test]
    fn a_history_keeps_who_began_it_and_what_came_last() {
        let mut redrive = redrive();
        for n in 0..100 {
            redrive.note(n, format!("event {n}"));
        }
        assert_eq!(redrive.history.len(), HISTORY_MAX);
        assert_eq!(redrive.history[0].what, "ops began it: the prompt is mended");
        assert_eq!(redrive.history[HISTORY_MAX - 1].what, "event 99");
    }

    #[test]
    fn a_record_is_kept_for_ninety_days_from_its_beginning() {
        let mut redrive = redrive();
        redrive.end(Ended::Finished, "Done.".to_owned(), 9_000);
        assert_eq!(redrive.expires_at_ms(), 1_000 + 90 * 86_400_000);
    }

    #[test]
    fn why_a_step_last_failed_is_told_beside_the_history_and_is_never_long() {
        let mut redrive = redrive();
        let before = redrive.history.clone();
        redrive.step_failed("SQS did not carry out ReceiveMessage", 2_000);
        redrive.step_failed(&"é".repeat(FAILURE_CHARS_MAX + 1), 2_500);
        let failure = redrive.last_failure.unwrap();
        assert_eq!((failure.at_ms, redrive.history), (2_500, before));
        assert!(failure.what.starts_with("éé"), "{}", failure.what);
        assert!(failure.what.chars().count() <= FAILURE_CHARS_MAX, "{}", failure.what);
    }
}
