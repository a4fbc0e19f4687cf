//! The ledger: one record per input hash, and the only ways in which it may change.
//!
//! Each write is a whole record under a condition, so that it can be repeated: a refusal that finds our own token at
//! our own version (or later) is our own write whose reply was lost.
//!
//! **A record lives longer than a deploy.** Older and newer workers meet each other's records, so:
//! what is added is optional; a word that is not known here makes the record unreadable, and its message is handed back;
//! what a release does not know, it leaves as it is, in the item and within what it carries on (`previous`, `history`).
//! Since it leaves it also on a record whose state it changes, what is added to a state says which `version` it is of,
//! and counts at no other (`letter_version`). A release that reads a new form comes before the one that writes it.
//!
//! **Invariant:** whoever does not hold the last claim's token cannot change the record, except by taking it over
//! under exactly the version and token that were read.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::blame::Refusals;
use crate::failure::{FailureReason, Stage};
use crate::input_hash::InputHash;
use crate::model::Usage;

/// How many earlier failures a record keeps.
pub const HISTORY_MAX: usize = 10;

/// Everything known of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The hash of the input, or of a body that is no job.
    pub key: InputHash,
    /// The task; `None` when the body could not be parsed.
    pub task: Option<String>,
    /// The first sender's reference.
    pub reference: Option<String>,
    /// Grows with every write.
    pub version: u64,
    /// The fencing token of the last claim.
    pub token: String,
    /// Where the job stands.
    pub state: State,
    /// The result that stands while it is made again for another revision, so that it is never gone: the JSON of a
    /// [`Done`], of whichever release; carried on as it is, and read by people.
    pub previous: Option<String>,
    /// The message that was last worked on.
    pub message_id: String,
    /// When that message was sent, by SQS's clock.
    pub sent_at_ms: u64,
    /// When a worker first received this input.
    pub first_received_ms: u64,
    /// When a worker last claimed it.
    pub last_claimed_ms: u64,
    /// What was spent since the job last started afresh.
    pub budget: Budget,
    /// How often it was started afresh after a failure.
    pub redrives: u32,
    /// Earlier failures, oldest first, at most `HISTORY_MAX`.
    pub history: Vec<PastFailure>,
    /// At which version the dead letter of this record is known to be sent; says nothing of any other version.
    pub letter_version: Option<u64>,
    /// Which messages are never worked on, because a person erased this input's data; kept by whatever comes after.
    pub erased: Option<Erasure>,
    /// Where the message of a result that waits for review is kept; says nothing of any other version.
    pub kept: Option<Kept>,
    /// What a person decided on the result; says nothing of any other version.
    pub reviewed: Option<Reviewed>,
    /// When the record counts as gone, in milliseconds; compared in code, because DynamoDB deletes late.
    pub expires_at_ms: u64,
}

/// Where a record says that its message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version of the record that this is said of, and of no other.
    pub version: u64,
    /// The claim under which the parts were written: the version of the record at which its owner stood.
    pub claim_version: u64,
    /// How many there are, from 1 to `PARTS_MAX`.
    pub parts: u32,
}

impl Record {
    /// Whether the dead letter of the failure that stands is known to be sent: its message, or a copy of it, may go.
    #[must_use]
    pub fn letter_is_sent(&self) -> bool {
        self.letter_version == Some(self.version)
    }

    /// Where the message of this record is kept, if it is.
    #[must_use]
    pub fn kept_message(&self) -> Option<Kept> {
        self.kept.filter(|kept| kept.version == self.version)
    }

    /// Who decided on this record, and how, if anybody did.
    #[must_use]
    pub fn review(&self) -> Option<&Reviewed> {
        self.reviewed.as_ref().filter(|reviewed| reviewed.version == self.version)
    }

    /// The history with one more failure, which is over: the last ones, oldest first.
    pub(crate) fn history_with(&self, reason: &str, failed_at_ms: u64) -> Vec<PastFailure> {
        let mut history = self.history.clone();
        history.push(PastFailure {
            reason: reason.to_owned(),
            failed_at_ms,
            calls: self.budget.calls,
            message_id: self.message_id.clone(),
            more: Map::new(),
        });
        let surplus = history.len().saturating_sub(HISTORY_MAX);
        history.drain(..surplus);
        history
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Handed back; a delivery will come.
    Open,
    /// A worker has it.
    Claimed {
        /// Until then nobody else may.
        lease_until_ms: u64,
        /// Its worker had nothing else open.
        alone: bool,
    },
    /// A result is stored.
    Done(Box<Done>),
    /// It cannot succeed.
    Failed(Box<Failed>),
    /// A tombstone: a person erased what stood here, `Record::erased` says when, and no new request has come since.
    Erased,
}

impl State {
    /// The word that stands in the table.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Claimed { .. } => "claimed",
            Self::Done(_) => "done",
            Self::Failed(_) => "failed",
            Self::Erased => "erased",
        }
    }
}

/// What one job has used of its limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// How often a worker took it on, the present claim included.
    pub claims: u32,
    /// Calls that were answered or may have been billed, and the one that an open claim is about to make.
    pub calls: u32,
    /// Answers that were not accepted and asked for again.
    pub reasks: u32,
    /// Workers that died with only this job.
    pub crashes: u32,
    /// Since when it waits for capacity without an answer.
    pub waiting_since_ms: Option<u64>,
    /// How often in a row it was refused, and nobody could tell whose fault that was.
    pub refusals: Option<Refusals>,
    /// Tokens of all answered calls.
    pub usage: Usage,
    /// Their cost.
    pub cost_micro_usd: u64,
}

/// A result.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Done {
    /// The validated output.
    pub output: Value,
    /// It is a fallback that a person should look at.
    pub needs_review: bool,
    /// A person has looked at it; never overwritten by a model.
    pub reviewed: bool,
    /// What made it.
    pub revision: Revision,
    /// The model that made it.
    pub model: String,
    /// When, by the worker's clock.
    pub finished_at_ms: u64,
}

impl Done {
    /// What `Record::previous` holds of it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Values and plain structs with string keys always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A failure.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// Why it cannot succeed.
    pub reason: FailureReason,
    /// Sentences for a person.
    pub detail: String,
    /// When, by the worker's clock.
    pub failed_at_ms: u64,
    /// The provider's id of the last call.
    pub request_id: Option<String>,
    /// What the model said last, cut.
    pub excerpt: Option<String>,
    /// What was deployed then.
    pub revision: Revision,
}

impl Failed {
    /// Where it failed.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.reason.stage()
    }
}

/// An erasure: no message from before it is worked on, nor a dead letter of a failure before it, whenever that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Erasure {
    /// When, by the clock of whoever erased, in milliseconds since 1970.
    pub at_ms: u64,
    /// The version of the tombstone.
    pub version: u64,
    /// Until when a message from before may be in some queue.
    pub until_ms: u64,
}

impl Erasure {
    /// Whether a message that was sent then is from before it.
    #[must_use]
    pub fn covers(&self, sent_at_ms: u64) -> bool {
        sent_at_ms <= self.at_ms
    }

    /// Whether nothing stood where its tombstone was put.
    #[must_use]
    pub fn is_of_nothing(&self) -> bool {
        self.version == 1
    }

    /// Whether a dead letter or crashed message is from before it. A letter is as old as the failure that it tells of,
    /// which it names by the record's version; where it names none, its own time says.
    #[must_use]
    pub fn covers_letter(&self, told_version: Option<u64>, sent_at_ms: u64) -> bool {
        told_version.map_or(self.covers(sent_at_ms), |told| told < self.version)
    }
}

/// A person's decision on a result.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Reviewed {
    /// The version of the record that it made, and is said of.
    pub version: u64,
    /// Who, as AWS names them.
    pub by: String,
    /// When, by their clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// What, in the word of whichever release.
    pub decision: String,
    /// Why, as they said it.
    pub reason: String,
}

/// A failure before the last fresh start.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PastFailure {
    /// Why it failed, in the word of whichever release.
    pub reason: String,
    /// When, by the clock of its worker.
    pub failed_at_ms: u64,
    /// Calls made then.
    pub calls: u32,
    /// The message that was worked on then.
    pub message_id: String,
    /// What else another release says of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Which prompt, schema and model settings made a result, and how new they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Revision {
    /// Hash over prompt, schema and model settings.
    pub hash: String,
    /// When the worker was built, in milliseconds since 1970.
    pub built_at_ms: u64,
    /// The function's version: Lambda counts it up with every change of code or settings. 0 outside Lambda.
    pub function_version: u64,
}

impl Revision {
    /// Whether a result of `self` should be made again by `deployed`.
    /// Of two that were built at the same time, neither is known to be older, so a difference is enough.
    #[must_use]
    pub fn is_older_than(&self, deployed: &Self) -> bool {
        let age = |r: &Self| (r.built_at_ms, r.function_version);
        self.hash != deployed.hash && age(self) <= age(deployed)
    }
}

/// A whole record and the condition under which it may be written.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordWrite {
    /// What shall stand.
    pub record: Record,
    /// What must stand before.
    pub expect: Expect,
}

/// The condition of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No record of this key.
    Absent,
    /// Exactly what was read: a takeover. Versions begin anew when a record has expired, so its token is named too:
    /// an attempt that takes effect late finds the next record's version, but never its token.
    Exactly {
        /// Of the record that was read.
        version: u64,
        /// Of its last claim.
        token: String,
    },
    /// The record's token is the write's own, at an earlier version: the owner's write.
    Fence,
}

impl Expect {
    /// That nothing but `read` stands.
    #[must_use]
    pub fn exactly(read: &Record) -> Self {
        Self::Exactly { version: read.version, token: read.token.clone() }
    }
}

/// The answer to a conditional write.
#[derive(Debug, Clone)]
pub enum WriteAnswer {
    /// It took effect.
    Written,
    /// The condition did not hold; this is what stands there, read by the refused write itself.
    /// `None`: there is no record (it expired or was deleted in between).
    Refused(Option<Box<Record>>),
}

impl RecordWrite {
    /// What the table's answer means: a refusal that finds our own write, whose reply was lost, is none.
    #[must_use]
    pub fn answered(&self, by_table: WriteAnswer) -> WriteAnswer {
        match by_table {
            WriteAnswer::Refused(Some(standing)) if self.took_effect(&standing) => WriteAnswer::Written,
            answer => answer,
        }
    }

    /// Whether `standing`, found by a refused write, is what this write wrote before its reply was lost.
    #[must_use]
    pub fn took_effect(&self, standing: &Record) -> bool {
        standing.token == self.record.token && standing.version >= self.record.version
    }

    /// Whether the condition holds; what the table evaluates, for the stores that we hold in memory.
    #[must_use]
    pub fn allowed(&self, standing: Option<&Record>) -> bool {
        match (&self.expect, standing) {
            (Expect::Absent, standing) => standing.is_none(),
            (Expect::Exactly { version, token }, Some(standing)) => {
                standing.version == *version && standing.token == *token
            }
            (Expect::Fence, Some(standing)) => {
                standing.token == self.record.token && standing.version < self.record.version
            }
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_result_is_one_that_the_deployed_worker_would_make_differently() {
        let revision = |hash: &str, built_at_ms, function_version| Revision {
            hash: hash.to_owned(),
            built_at_ms,
            function_version,
        };
        let deployed = revision("b", 100, 7);
        for (stored, older) in [
            (revision("b", 100, 7), false),
            (revision("b", 50, 1), false),
            (revision("a", 50, 1), true),
            (revision("a", 100, 6), true),
            (revision("a", 100, 7), true),
            (revision("a", 100, 8), false),
            (revision("a", 200, 1), false),
        ] {
            assert_eq!(stored.is_older_than(&deployed), older, "{stored:?}");
        }
    }

    #[test]
    fn a_refused_write_that_finds_itself_or_what_came_of_it_took_effect() {
        let standing = |version, token: &str| Record {
            key: InputHash::of_body("x"),
            task: None,
            reference: None,
            version,
            token: token.to_owned(),
            state: State::Open,
            previous: None,
            message_id: "m-1".to_owned(),
            sent_at_ms: 1,
            first_received_ms: 2,
            last_claimed_ms: 3,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 9_000,
        };
        for (version, token, took_effect) in [
            (4, "ours", true),
            (5, "ours", true),
            (3, "ours", false),
            (4, "another's", false),
            (5, "another's", false),
        ] {
            let write = RecordWrite { record: standing(4, "ours"), expect: Expect::Absent };
            let answer = write.answered(WriteAnswer::Refused(Some(Box::new(standing(version, token)))));
            assert_eq!(matches!(answer, WriteAnswer::Written), took_effect, "v{version} {token}");
        }
    }

    #[test]
    fn a_letter_is_as_old_as_the_failure_that_it_names_and_else_as_its_own_time_says() {
        let erasure = Erasure { at_ms: 500, version: 5, until_ms: 900 };
        for (told_version, sent_at_ms, covered) in [
            (Some(4), 501, true),
            (Some(6), 499, false),
            (None, 499, true),
            (None, 500, true),
            (None, 501, false),
        ] {
            assert_eq!(
                erasure.covers_letter(told_version, sent_at_ms),
                covered,
                "{told_version:?} {sent_at_ms}"
            );
        }
    }

    #[test]
    fn an_erasure_is_of_nothing_where_its_tombstone_is_the_first_version() {
        for (version, is_of_nothing) in [(1, true), (2, false), (9, false)] {
            assert_eq!(
                Erasure { at_ms: 5, version, until_ms: 9 }.is_of_nothing(),
                is_of_nothing,
                "v{version}"
            );
        }
    }
}
