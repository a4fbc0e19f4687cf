//! What happened to an input since it last started afresh.

use crate::work::Kind;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallEnd {
    Open,
    /// Its worker died, or cut it off.
    Dropped,
    /// The worker has a valid answer.
    Valid,
    /// The worker has an answer that its task does not accept.
    Invalid,
    /// The worker has a refusal.
    Refused,
    /// The worker has a cut-off answer.
    Truncated,
    /// The worker was told of a failure that may have been billed.
    Transient,
    /// The worker was told that there is no capacity.
    Capacity,
    /// The worker was told that the account is the cause.
    Account,
    /// The worker was told that the request can never work.
    Rejected,
    /// The worker was told no, in words that leave open whose fault it is.
    Unclear,
    /// The same, as forbidden.
    Forbidden,
}

/// One call of the present epoch.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub id: u32,
    pub invocation: u64,
    pub began_ms: u64,
    pub end: CallEnd,
    /// Whatever it answered could not be kept, because of a kill or a fault of the ledger.
    pub excused: bool,
    /// A fault made the model break its schema.
    pub lied: bool,
    /// What its worker can make of the answer, in millionths of a dollar.
    pub told_micro_usd: u64,
    /// What was asked, and what was answered to it, each as a number that stands for its words.
    pub asked: u64,
    pub answered: Option<u64>,
    /// What its text says, where there is any.
    pub said: Option<u64>,
    /// The provider has given it an id, which the worker knows.
    pub is_named: bool,
}

impl Call {
    /// What the provider calls it.
    #[must_use]
    pub fn request_id(&self) -> String {
        format!("req-{}", self.id)
    }

    pub(super) fn is_answered(&self) -> bool {
        matches!(self.end, CallEnd::Valid | CallEnd::Invalid | CallEnd::Refused | CallEnd::Truncated)
    }
}

/// What happened to an input since it last started afresh.
#[derive(Debug, Default)]
pub struct Epoch {
    pub calls: Vec<Call>,
    pub calls_in_claim: u32,
    /// What the record said to be spent when the present claim took effect, in millionths of a dollar.
    pub cost_before_micro_usd: u64,
    /// When the claim with which it began was asked for.
    pub first_received_ms: u64,
    pub reasks: u32,
    /// Since when every call met missing capacity.
    pub capacity_since_ms: Option<u64>,
    pub panics: u32,
    /// Panics while the record was neither done nor failed.
    pub panics_unsettled: u32,
    /// Workers that died with it.
    pub deaths: u32,
    /// Workers that died with nothing else, and claims that ended just as if they had.
    pub deaths_alone: u32,
    /// The worker of the present claim ended it without a word, and lived.
    pub unreleased: bool,
    /// Claims that stood until their lease ended, because their release was prevented by a fault.
    pub abandoned: u32,
    /// Attempts at the ledger that a fault met.
    pub ledger_faults: u32,
    /// Those that met a write which counts a crash: the SDK repeats it, and when another worker has counted one in
    /// between, nobody can tell that the first attempt took effect, so that one crash counts twice.
    pub unsure_crashes: u32,
    /// Claims that took effect.
    pub claims: u32,
    /// The token of a claim that was told not to try again.
    pub no_retry: Option<String>,
    /// When a transient failure without advice was received, and how many there were in a row.
    pub failed_at: Option<(u64, u32)>,
    /// Refusals since the last answer, when the first of them was heard, and whether it may be given up for them.
    pub refusals: u32,
    pub refused_since_ms: Option<u64>,
    /// The same since it was last taken for blameless, perhaps: then its worker counts afresh.
    pub counted_since_ms: Option<u64>,
    pub may_be_rejected: bool,
}

impl Epoch {
    /// The calls that may have been billed.
    pub(super) fn paid(&self) -> impl Iterator<Item = &Call> {
        let unpaid =
            [CallEnd::Capacity, CallEnd::Account, CallEnd::Rejected, CallEnd::Unclear, CallEnd::Forbidden];
        self.calls.iter().filter(move |call| !unpaid.contains(&call.end))
    }

    /// The last first.
    pub(super) fn answers(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().rev().filter(|call| call.is_answered())
    }

    /// The calls of the present claim, the last first.
    pub(super) fn calls_of_claim(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().rev().take(self.calls_in_claim as usize)
    }

    /// The model said the same before in this claim, so that there may be no other way to ask.
    pub(super) fn last_answer_was_given_before(&self) -> bool {
        let mut answers = self.calls_of_claim().filter_map(|call| call.answered);
        answers.next().is_some_and(|last| answers.any(|before| before == last))
    }

    pub(super) fn last_answer(&self) -> Option<CallEnd> {
        self.answers().next().map(|call| call.end)
    }

    /// The last answer was not the first of its conversation, and no fault spoiled it.
    pub(super) fn last_answer_was_free(&self) -> bool {
        let mut answers = self.answers();
        let last = answers.next();
        last.is_some_and(|last| !last.lied && answers.any(|other| other.invocation == last.invocation))
    }
}

impl crate::world::Input {
    /// What it is now that it may have been mended.
    #[must_use]
    pub fn effective_kind(&self) -> Kind {
        if self.fixed { Kind::Good } else { self.kind }
    }
}
