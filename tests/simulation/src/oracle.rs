//! The promises, checked at each event and at the end.
//!
//! The oracle knows what was injected and what took effect; it uses none of the worker's decisions. A file per concern.

mod blame;
mod calls;
mod causes;
mod erased;
mod history;
mod invocations;
mod ledger;
mod letters;
mod money;
mod numbers;
mod pace;
mod pauses;
mod prompt;
mod queue;
mod reasons;
mod records;
mod redrive;
mod reviews;

use std::fmt;

use crate::plan::Plan;

pub use blame::Heard;
pub use history::{Call, CallEnd, Epoch};
pub use ledger::Asked;
pub use letters::ArrivedLetter;
pub use numbers::Seen;
pub use pauses::{Pauses, Writer};

/// What is promised, in the words of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Each accepted message ends as a result or a dead letter, and is acknowledged only then.
    NothingLost,
    /// No call without need.
    NotPaidTwice,
    /// Nothing invalid is stored.
    OnlyValidated,
    /// Each dead letter has the reason that the injected history gives it.
    Explained,
    /// Each record of an invocation is counted once, as what it was.
    Conserved,
    /// Calls, re-asks, money, and what is open at once.
    Budgets,
    /// Who lost its claim changes nothing, and nobody loses it while it lives.
    Fenced,
    /// A message sent after a settlement is work; one sent before it is not.
    RedriveOrDuplicate,
    /// What a person erased is not worked on again, and nothing of it comes back.
    Erased,
    /// A result that waits for review has the message that it was made for.
    Reviewable,
    /// A redrive sends what was asked for, as it was, and no more; what it leaves behind is soon visible again.
    Redriven,
    /// The provider's word is kept, and waits are spread.
    Paced,
    /// A failure of one record is that record's alone.
    Isolated,
    /// An invocation ends by itself before its timeout.
    InTime,
    /// When faults stop, the queue drains.
    Progress,
    /// Each pause has a cause, and its owner begins and ends it; jobs wait in the queue meanwhile.
    Paused,
    /// What could work ends up working, and begins with little.
    Reopens,
    /// What could go on does: a batch side by side, a message that is handed back, a provider that has room.
    Prompt,
}

impl Promise {
    pub const ALL: [Self; 18] = [
        Self::NothingLost,
        Self::NotPaidTwice,
        Self::OnlyValidated,
        Self::Explained,
        Self::Conserved,
        Self::Budgets,
        Self::Fenced,
        Self::RedriveOrDuplicate,
        Self::Erased,
        Self::Reviewable,
        Self::Redriven,
        Self::Paced,
        Self::Isolated,
        Self::InTime,
        Self::Progress,
        Self::Paused,
        Self::Reopens,
        Self::Prompt,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingLost => "nothing is lost",
            Self::NotPaidTwice => "nothing is paid twice without need",
            Self::OnlyValidated => "nothing unvalidated is stored",
            Self::Explained => "each dead letter is explained",
            Self::Conserved => "records and metrics add up",
            Self::Budgets => "budgets are kept",
            Self::Fenced => "only the claim's holder changes the record",
            Self::RedriveOrDuplicate => "a redrive is work and a duplicate is not",
            Self::Erased => "what was erased stays erased",
            Self::Reviewable => "a result that waits for review has its message",
            Self::Redriven => "a redrive does what was asked for",
            Self::Paced => "the provider is not hammered",
            Self::Isolated => "a bad record fails alone",
            Self::InTime => "no invocation reaches its timeout",
            Self::Progress => "when faults stop, the queue drains",
            Self::Paused => "a pause has its cause and its owner",
            Self::Reopens => "a pause ends, and the way back is gentle",
            Self::Prompt => "nothing waits without need",
        })
    }
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub promise: Promise,
    pub input: Option<u32>,
    /// Virtual time.
    pub at_ms: u64,
    pub what: String,
}

/// Two clocks differ by at most twice the skew, and timers by a few milliseconds.
fn tolerance_ms(plan: &Plan) -> u64 {
    2 * plan.faults.skew_ms + 50
}
