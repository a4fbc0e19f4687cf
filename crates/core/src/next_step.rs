//! What to do next with a job: at its claim, before and after each model call, and when it is handed back.
//!
//! The worker performs these answers and adds none of its own.

use serde_json::Value;

use crate::blame::{Blame, Evidence, Refusal};
use crate::conversation::{AskedAgain, Conversation};
use crate::dead_letter::{DETAIL_CHARS_MAX, EXCERPT_CHARS_MAX, cut};
use crate::failure::{FailureReason, Rejection};
use crate::input_hash::InputHash;
use crate::limits::{Limits, VISIBILITY_MS_MAX};
use crate::metric::HandBackCause;
use crate::model::{
    Answer, FailureClass, ModelFailure, ModelReply, Oversize, Prompt, SizeUnit, TokenLimit, Turn,
};
use crate::output_validation::{reask_text, validate};
use crate::record::{
    Budget, Done, Expect, Failed, HISTORY_MAX, PastFailure, Record, RecordWrite, Revision, State,
};
use crate::retry::{advised_wait_ms, equal_jitter_ms, full_jitter_ms};
use crate::spend::CallPrice;
use crate::task::{Task, Violations};

/// What SQS says of one delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// SQS's id of the message; a redrive gives a new one, a redelivery does not.
    pub message_id: String,
    /// `SentTimestamp`, by SQS's clock.
    pub sent_at_ms: u64,
    /// `ApproximateReceiveCount`, from 1.
    pub receive_count: u32,
    /// When this delivery was received, by the worker's clock.
    pub received_at_ms: u64,
    /// The version of the failed record whose dead letter this message was (`dead_letter::redrive_of`).
    pub redrive_of: Option<u64>,
}

// ---------------------------------------------------------------------------------------------------------------
// The claim

/// Everything that a claim is decided by, but the record that already stands.
#[derive(Debug, Clone)]
pub struct ClaimAsk<'a> {
    /// The key.
    pub key: &'a InputHash,
    /// `None` when the body could not be parsed.
    pub task: Option<&'a str>,
    /// The sender's reference.
    pub reference: Option<&'a str>,
    /// The message.
    pub delivery: &'a Delivery,
    /// The fresh fencing token of this claim.
    pub token: &'a str,
    /// The worker's clock.
    pub now_ms: u64,
    /// The end of this invocation plus the lease margin.
    pub lease_until_ms: u64,
    /// Nothing else is open in this worker.
    pub alone: bool,
    /// What is deployed.
    pub revision: &'a Revision,
    /// The limits.
    pub limits: &'a Limits,
}

/// What a refused claim means.
#[derive(Debug, Clone, PartialEq)]
pub enum ClaimStep {
    /// It is ours: the reply to our own write was lost.
    Held(Box<Record>),
    /// Write this; it is a claim if granted.
    TakeOver(Box<RecordWrite>),
    /// Write this failure, then send its dead letter.
    Fail(Box<RecordWrite>),
    /// Its last worker died: ask again when nothing else is open.
    RunAlone,
    /// Acknowledge.
    AlreadyDone {
        /// The message is not the one that the result was made for: count it.
        another_message: bool,
    },
    /// Send its dead letter, then acknowledge.
    AlreadyFailed(Box<Record>),
    /// Acknowledge: a dead letter that was sent back twice, and what the other copy came to has a letter of its own.
    AlreadyRedriven,
    /// Hand back until then.
    HeldByOther {
        /// By the other worker's clock.
        until_ms: u64,
    },
}

impl ClaimAsk<'_> {
    /// The claim of an input that nobody has seen: the one write with which a job begins.
    /// It counts the first call, which is about to be made.
    #[must_use]
    pub fn first(&self) -> RecordWrite {
        RecordWrite { record: self.fresh(0, Vec::new(), 0), expect: Expect::Absent }
    }

    /// Turns a claim into the failure of a job that is refused before any work: one write instead of two.
    #[must_use]
    pub fn refuse(&self, mut claim: RecordWrite, rejection: &Rejection) -> RecordWrite {
        claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
        claim.record = failed(claim.record, rejection, self.now_ms, self.revision, self.limits, None, None);
        claim
    }

    /// Gives a claim back of which nobody knows whether it was written: without the call that it announces.
    #[must_use]
    pub fn take_back(&self, claim: RecordWrite) -> RecordWrite {
        let mut record = claim.record;
        record.version += 1;
        record.budget.calls = record.budget.calls.saturating_sub(1);
        record.state = State::Open;
        RecordWrite { record, expect: Expect::Fence }
    }

    /// What to do about the record that stands.
    #[must_use]
    pub fn refused_by(&self, standing: &Record) -> ClaimStep {
        if standing.token == self.token {
            return ClaimStep::Held(Box::new(standing.clone()));
        }
        if standing.expires_at_ms <= self.now_ms {
            return self.take_over(standing, self.fresh(standing.version, Vec::new(), 0));
        }
        match &standing.state {
            State::Done(done) => {
                // A redrive asks for an end to a failure, and there is one.
                let asked_again =
                    self.delivery.redrive_of.is_none() && self.sent_after(standing, done.finished_at_ms);
                if asked_again && !done.reviewed && done.revision.is_older_than(self.revision) {
                    let mut record =
                        self.fresh(standing.version, standing.history.clone(), standing.redrives);
                    record.previous = Some(done.to_json());
                    record.expires_at_ms = record.expires_at_ms.max(standing.expires_at_ms);
                    self.take_over(standing, record)
                } else {
                    ClaimStep::AlreadyDone {
                        another_message: self.delivery.message_id != standing.message_id,
                    }
                }
            }
            State::Failed(failed) => match self.delivery.redrive_of {
                // Its own failure, whose letter may be unsent, comes before anything that the message says of another.
                Some(version) if self.delivery.message_id != standing.message_id => {
                    if version == standing.version {
                        self.begin_afresh(standing, failed)
                    } else if standing.letter_is_sent() {
                        ClaimStep::AlreadyRedriven
                    } else {
                        // SQS gives a message from `crashed` a new id: this may be the last that can send the letter.
                        ClaimStep::AlreadyFailed(Box::new(standing.clone()))
                    }
                }
                None if self.sent_after(standing, failed.failed_at_ms) => self.begin_afresh(standing, failed),
                _ => ClaimStep::AlreadyFailed(Box::new(standing.clone())),
            },
            State::Open => self.go_on(standing, false, 0),
            State::Claimed { lease_until_ms, .. } if *lease_until_ms > self.now_ms => {
                ClaimStep::HeldByOther { until_ms: *lease_until_ms }
            }
            State::Claimed { lease_until_ms, .. } if self.was_handed_back(standing, *lease_until_ms) => {
                self.go_on(standing, false, 0)
            }
            State::Claimed { alone, .. } => self.go_on(standing, true, u32::from(*alone)),
        }
    }

    fn begin_afresh(&self, standing: &Record, failed: &Failed) -> ClaimStep {
        let history = remember(standing, failed);
        let mut record = self.fresh(standing.version, history, standing.redrives + 1);
        keep_previous(&mut record, standing);
        self.take_over(standing, record)
    }

    /// A redelivery has its first id; a new request has a new one and a later time.
    fn sent_after(&self, standing: &Record, settled_at_ms: u64) -> bool {
        self.delivery.message_id != standing.message_id && self.delivery.sent_at_ms > settled_at_ms
    }

    /// Whether the worker of an ended claim lived, and only its release did not reach the ledger.
    ///
    /// SQS keeps what a dead worker had for a whole visibility timeout, so a message that is back earlier was handed back.
    /// Lambda may have held it for a while before it started the function; twice the function's timeout is left for that.
    fn was_handed_back(&self, standing: &Record, lease_until_ms: u64) -> bool {
        let limits = self.limits;
        let begun_ms = lease_until_ms.saturating_sub(limits.function_timeout_ms + limits.lease_margin_ms);
        let kept_ms = limits.visibility_timeout_ms.saturating_sub(2 * limits.function_timeout_ms);
        standing.message_id == self.delivery.message_id && self.now_ms < begun_ms.saturating_add(kept_ms)
    }

    /// Goes on with a job that another worker began, and of which it may have died.
    fn go_on(&self, standing: &Record, died: bool, new_crashes: u32) -> ClaimStep {
        let crashes = standing.budget.crashes + new_crashes;
        let mut record = self.claimed(standing.version);
        record.task = standing.task.clone();
        record.reference = standing.reference.clone();
        record.first_received_ms = standing.first_received_ms;
        record.redrives = standing.redrives;
        keep_previous(&mut record, standing);
        record.history = standing.history.clone();
        record.budget = Budget { claims: standing.budget.claims + 1, crashes, ..standing.budget };
        let failure = if crashes >= self.limits.crash_limit {
            Some(Rejection::new(
                FailureReason::Poison,
                format!(
                    "{crashes} workers died while this job was the only one they had: look for what in its input kills them."
                ),
            ))
        } else if standing.budget.calls >= self.limits.paid_call_limit {
            Some(Rejection::new(
                FailureReason::AttemptsExhausted,
                format!(
                    "{} calls were made or may have been billed, the limit of a job, and no worker lived to store an answer: look for what ended them in the log.",
                    standing.budget.calls
                ),
            ))
        } else {
            None
        };
        if let Some(rejection) = failure {
            let record = failed(record, &rejection, self.now_ms, self.revision, self.limits, None, None);
            return ClaimStep::Fail(Box::new(RecordWrite {
                record,
                expect: Expect::Version(standing.version),
            }));
        }
        if (died || crashes > 0) && !self.alone {
            return ClaimStep::RunAlone;
        }
        record.budget.calls += 1;
        self.take_over(standing, record)
    }

    fn take_over(&self, standing: &Record, record: Record) -> ClaimStep {
        ClaimStep::TakeOver(Box::new(RecordWrite { record, expect: Expect::Version(standing.version) }))
    }

    fn fresh(&self, standing_version: u64, history: Vec<PastFailure>, redrives: u32) -> Record {
        let mut record = self.claimed(standing_version);
        record.budget = Budget { claims: 1, calls: 1, ..Budget::default() };
        record.history = history;
        record.redrives = redrives;
        record
    }

    fn claimed(&self, standing_version: u64) -> Record {
        Record {
            key: self.key.clone(),
            task: self.task.map(str::to_owned),
            reference: self.reference.map(str::to_owned),
            version: standing_version + 1,
            token: self.token.to_owned(),
            state: State::Claimed { lease_until_ms: self.lease_until_ms, alone: self.alone },
            previous: None,
            message_id: self.delivery.message_id.clone(),
            sent_at_ms: self.delivery.sent_at_ms,
            first_received_ms: self.now_ms,
            last_claimed_ms: self.now_ms,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            expires_at_ms: self.now_ms + self.limits.failure_expiry_ms,
        }
    }
}

/// A result that is being made again stands as long as it would have.
fn keep_previous(record: &mut Record, standing: &Record) {
    record.previous = standing.previous.clone();
    if record.previous.is_some() {
        record.expires_at_ms = record.expires_at_ms.max(standing.expires_at_ms);
    }
}

fn remember(standing: &Record, failed: &Failed) -> Vec<PastFailure> {
    remember_as(standing, failed.reason.as_str(), failed.failed_at_ms)
}

/// The history of a record that starts afresh after it ended as `reason`.
pub(crate) fn remember_as(standing: &Record, reason: &str, failed_at_ms: u64) -> Vec<PastFailure> {
    let mut history = standing.history.clone();
    history.push(PastFailure {
        reason: reason.to_owned(),
        failed_at_ms,
        calls: standing.budget.calls,
        message_id: standing.message_id.clone(),
        more: serde_json::Map::new(),
    });
    let surplus = history.len().saturating_sub(HISTORY_MAX);
    history.drain(..surplus);
    history
}

fn failed(
    mut record: Record,
    rejection: &Rejection,
    now_ms: u64,
    revision: &Revision,
    limits: &Limits,
    request_id: Option<String>,
    excerpt: Option<String>,
) -> Record {
    record.state = State::Failed(Box::new(Failed {
        reason: rejection.reason,
        detail: cut(&rejection.detail, DETAIL_CHARS_MAX),
        failed_at_ms: now_ms,
        request_id,
        excerpt,
        revision: revision.clone(),
    }));
    // Later only where a result of before stands on it.
    record.expires_at_ms = record.expires_at_ms.max(now_ms + limits.failure_expiry_ms);
    record
}

// ---------------------------------------------------------------------------------------------------------------
// The calls

/// What is fixed for a job while it is worked on.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Its task.
    pub task: &'a dyn Task,
    /// Its input.
    pub input: &'a Value,
    /// The limits.
    pub limits: &'a Limits,
    /// What one call may take and cost.
    pub price: CallPrice,
    /// The model's name.
    pub model: &'a str,
    /// What is deployed.
    pub revision: &'a Revision,
}

/// The time that is left for calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    /// Until the deadline.
    pub left_ms: u64,
    /// What a call usually takes here.
    pub usual_call_ms: u64,
}

impl TimeLeft {
    fn fits(self, wait_ms: u64) -> bool {
        wait_ms.saturating_add(self.usual_call_ms.max(1)) <= self.left_ms
    }
}

/// The answer to: may a call be made now?
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeCall {
    /// Make it.
    Call {
        /// It ends within this time.
        timeout_ms: u64,
        /// First write this: the ledger must know of the call before it is made.
        count_first: Option<Box<RecordWrite>>,
    },
    /// Not in this invocation.
    HandBack {
        /// Why.
        cause: HandBackCause,
        /// The message stays away at least as long.
        at_least_ms: u64,
    },
    /// Never.
    Fail(Rejection),
}

/// The answer to: what follows from this call?
#[derive(Debug, Clone, PartialEq)]
pub enum AfterCall {
    /// Store it.
    Store {
        /// The validated output.
        output: Value,
        /// It is the task's fallback.
        needs_review: bool,
    },
    /// Call again, after this time.
    CallAgain {
        /// The wait.
        delay_ms: u64,
    },
    /// Not in this invocation.
    HandBack {
        /// Why.
        cause: HandBackCause,
        /// The message stays away at least as long.
        at_least_ms: u64,
    },
    /// Never.
    Fail(Rejection),
}

impl AfterCall {
    /// Of an answered call: whether its task did not accept the answer. Refusals and truncations are not that.
    #[must_use]
    pub fn rejects_output(&self) -> bool {
        match self {
            Self::Store { needs_review, .. } => *needs_review,
            Self::CallAgain { .. } => true,
            Self::HandBack { .. } => false,
            Self::Fail(rejection) => rejection.reason == FailureReason::InvalidOutput,
        }
    }
}

/// How the detail of a job begins that was given up with no evidence of whose fault it is; the runbook looks for it.
pub const UNSURE_WHOSE_FAULT: &str = "Perhaps not this job's fault.";

/// One claimed job while it is worked on.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// As it stands in the ledger.
    record: Record,
    /// As it is: without the call that the ledger counts in advance.
    budget: Budget,
    cost_before_micro_usd: u64,
    calls_in_claim: u32,
    failures_in_row: u32,
    conversation: Conversation,
    request_id: Option<String>,
    excerpt: Option<String>,
    last_failure: Option<String>,
    blame: Blame,
}

impl JobRun {
    /// A job whose claim was granted.
    #[must_use]
    pub fn new(record: Record, prompt: &Prompt) -> Self {
        let budget = Budget { calls: record.budget.calls.saturating_sub(1), ..record.budget };
        Self {
            record,
            budget,
            cost_before_micro_usd: budget.cost_micro_usd,
            calls_in_claim: 0,
            failures_in_row: 0,
            conversation: Conversation::new(prompt),
            request_id: None,
            excerpt: None,
            last_failure: None,
            blame: Blame::AsSaid,
        }
    }

    /// The turns of the next request.
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        self.conversation.turns()
    }

    /// What has been spent since the job last started afresh.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The record as it stands in the ledger.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether a call may be made now.
    #[must_use]
    pub fn before_call(&self, work: Work<'_>, time: TimeLeft) -> BeforeCall {
        if self.budget.calls >= work.limits.paid_call_limit {
            return BeforeCall::Fail(self.exhausted(work));
        }
        if !time.fits(0) {
            return BeforeCall::HandBack { cause: HandBackCause::Deadline, at_least_ms: 0 };
        }
        let count_first = (self.budget.calls + 1 > self.record.budget.calls).then(|| {
            let mut record = self.next_record();
            record.budget.calls = self.budget.calls + 1;
            Box::new(RecordWrite { record, expect: Expect::Fence })
        });
        BeforeCall::Call { timeout_ms: work.limits.call_timeout_ms.min(time.left_ms), count_first }
    }

    /// The ledger has this record now.
    pub fn written(&mut self, record: Record) {
        self.record = record;
    }

    /// Says of a call that was not answered what it means to this job, by what became of others.
    #[must_use]
    pub fn judged(
        &mut self,
        failure: ModelFailure,
        task: &str,
        evidence: &mut Evidence,
        now_ms: u64,
    ) -> ModelFailure {
        let refusal =
            Refusal { failure: &failure, key: &self.record.key, task, before: self.budget.refusals, now_ms };
        self.blame = evidence.judge(&refusal);
        let (class, refusals) = refusal.settled(self.blame);
        self.budget.refusals = refusals;
        ModelFailure { class, ..failure }
    }

    /// What follows from a call that was not answered, and was judged.
    pub fn after_failure(
        &mut self,
        work: Work<'_>,
        failure: &ModelFailure,
        now_ms: u64,
        time: TimeLeft,
        fraction: f64,
    ) -> AfterCall {
        self.calls_in_claim += 1;
        self.request_id = failure.request_id.clone().or(self.request_id.take());
        self.last_failure = Some(failure.to_string());
        let advised_ms = advised_wait_ms(&failure.advice, now_ms);
        let at_least_ms = advised_ms.unwrap_or(0);
        let class = match (failure.class, failure.advice.should_retry) {
            (FailureClass::Rejected | FailureClass::Unclear, Some(true)) => FailureClass::Transient,
            (class, _) => class,
        };
        // A no to this very request is an answer, though nobody pays for it: a last one, or one that is to be repeated.
        let is_no = class == FailureClass::Rejected || class != failure.class;
        if failure.may_be_billed() || is_no {
            self.budget.calls += 1;
        }
        let cause = match class {
            FailureClass::Refused => {
                return AfterCall::Fail(Rejection::new(
                    FailureReason::Refused,
                    format!(
                        "The provider declined: {failure}. Read the input: the same text is likely to be declined again."
                    ),
                ));
            }
            FailureClass::Rejected => {
                return AfterCall::Fail(Rejection::new(
                    FailureReason::RequestRejected,
                    format!("{} {failure}", self.why_rejected(failure)),
                ));
            }
            FailureClass::Unclear => {
                return AfterCall::HandBack { cause: HandBackCause::CallFailed, at_least_ms };
            }
            FailureClass::Account => {
                return AfterCall::HandBack { cause: HandBackCause::Account, at_least_ms };
            }
            FailureClass::Capacity => {
                let since_ms = *self.budget.waiting_since_ms.get_or_insert(now_ms);
                // A redriven message has not waited before it was sent.
                let waited_ms = now_ms.saturating_sub(since_ms.max(self.record.sent_at_ms));
                if waited_ms > work.limits.capacity_wait_ms_max {
                    return AfterCall::Fail(Rejection::new(
                        FailureReason::CapacityTimeout,
                        format!(
                            "The provider had no capacity for {} minutes; send the job again when it has, or raise the provider's limits; last: {failure}",
                            waited_ms / 60_000
                        ),
                    ));
                }
                HandBackCause::Capacity
            }
            FailureClass::Transient => {
                if self.budget.calls >= work.limits.paid_call_limit {
                    return AfterCall::Fail(self.exhausted(work));
                }
                HandBackCause::CallFailed
            }
        };
        let delay_ms = full_jitter_ms(
            work.limits.backoff_base_ms,
            work.limits.backoff_ms_max,
            self.failures_in_row,
            fraction,
        )
        .max(at_least_ms);
        self.failures_in_row += 1;
        let may_call_again =
            self.calls_in_claim < work.limits.call_limit && failure.advice.should_retry != Some(false);
        if may_call_again && time.fits(delay_ms) {
            AfterCall::CallAgain { delay_ms }
        } else {
            AfterCall::HandBack { cause, at_least_ms }
        }
    }

    /// What follows from an answered call.
    pub fn after_reply(&mut self, work: Work<'_>, reply: &ModelReply) -> AfterCall {
        self.calls_in_claim += 1;
        self.failures_in_row = 0;
        self.budget.calls += 1;
        self.budget.waiting_since_ms = None;
        self.budget.refusals = None;
        let counted = work.price.count(reply);
        self.budget.usage += counted.usage;
        self.budget.cost_micro_usd = self.budget.cost_micro_usd.saturating_add(counted.micro_usd);
        self.request_id.clone_from(&reply.request_id);
        let (said, violations) = match &reply.answer {
            Answer::Refused { why, text } => {
                self.said(text);
                return AfterCall::Fail(Rejection::new(
                    FailureReason::Refused,
                    format!(
                        "The model declined: {why}. Read the input: the same text is likely to be declined again."
                    ),
                ));
            }
            Answer::Truncated { text, by } => {
                self.said(text);
                return AfterCall::Fail(Rejection::new(
                    FailureReason::Truncated,
                    why_truncated(*by, text, reply.usage.output_tokens, work.task.output_tokens_max()),
                ));
            }
            Answer::Unusable { why } => {
                ("", Violations(vec![format!("The answer could not be used: {why}.")]))
            }
            Answer::Text(text) => match validate(work.task, work.input, text) {
                Ok(output) => return AfterCall::Store { output, needs_review: false },
                Err(violations) => (text.as_str(), violations),
            },
        };
        self.said(said);
        let may_ask_again = self.budget.reasks < work.limits.reask_limit
            && self.budget.calls < work.limits.paid_call_limit
            && self.calls_in_claim < work.limits.call_limit;
        let asked_again = may_ask_again.then(|| self.conversation.ask_again(said, &reask_text(&violations)));
        if asked_again == Some(AskedAgain::Differently) {
            self.budget.reasks += 1;
            return AfterCall::CallAgain { delay_ms: 0 };
        }
        match work.task.fallback(work.input).map(|output| work.task.accept(output)) {
            Some(Ok(output)) => AfterCall::Store { output, needs_review: true },
            _ => AfterCall::Fail(Rejection::new(
                FailureReason::InvalidOutput,
                format!(
                    "The last of {} answers was not accepted: {}{}",
                    self.budget.calls,
                    violations.0.join(" "),
                    match asked_again {
                        Some(AskedAgain::NothingNew) =>
                            " The model said the same before, and was told so: asking again would repeat a request. Change the task's prompt or output type, or the model.",
                        _ => "",
                    }
                ),
            )),
        }
    }

    fn why_rejected(&self, failure: &ModelFailure) -> String {
        if let Some(oversize) = failure.oversize {
            return why_too_large(oversize);
        }
        let times = self.budget.refusals.map_or(0, |refusals| refusals.times);
        match self.blame {
            Blame::JobBesideAnswers => format!(
                "Refused {times} times, while other jobs of its task were answered: look for what in its input is refused. Last:"
            ),
            Blame::JobAlone => format!(
                "{UNSURE_WHOSE_FAULT} It was refused {times} times in words that do not say why, and nothing was heard of other jobs meanwhile: if they are refused as well, mend the deployment, else the input; then send it again. Last:"
            ),
            _ => "The provider says that this request can never work:".to_owned(),
        }
    }

    fn said(&mut self, text: &str) {
        self.excerpt = (!text.is_empty()).then(|| cut(text, EXCERPT_CHARS_MAX));
    }

    fn exhausted(&self, work: Work<'_>) -> Rejection {
        let last = self.last_failure.as_deref().unwrap_or("earlier deliveries made all of them");
        Rejection::new(
            FailureReason::AttemptsExhausted,
            format!(
                "{} calls were answered or may have been billed, and the limit is {}; last: {last}",
                self.budget.calls, work.limits.paid_call_limit
            ),
        )
    }

    /// The write that stores a result.
    ///
    /// # Errors
    /// `result_too_large`, to be written with [`JobRun::fail`].
    pub fn store(
        &self,
        work: Work<'_>,
        output: Value,
        needs_review: bool,
        now_ms: u64,
    ) -> Result<RecordWrite, Rejection> {
        let bytes = output.to_string().len();
        if bytes > work.limits.output_bytes_max {
            return Err(Rejection::new(
                FailureReason::ResultTooLarge,
                format!(
                    "The output has {bytes} bytes and the limit is {}: bound its members in the task's output type.",
                    work.limits.output_bytes_max
                ),
            ));
        }
        let mut record = self.next_record();
        record.state = State::Done(Box::new(Done {
            output,
            needs_review,
            reviewed: false,
            revision: work.revision.clone(),
            model: work.model.to_owned(),
            finished_at_ms: now_ms,
        }));
        record.previous = None;
        record.expires_at_ms = now_ms + work.limits.result_expiry_ms;
        Ok(RecordWrite { record, expect: Expect::Fence })
    }

    /// The write that ends the job as failed.
    #[must_use]
    pub fn fail(
        &self,
        rejection: &Rejection,
        now_ms: u64,
        revision: &Revision,
        limits: &Limits,
    ) -> RecordWrite {
        let record = failed(
            self.next_record(),
            rejection,
            now_ms,
            revision,
            limits,
            self.request_id.clone(),
            self.excerpt.clone(),
        );
        RecordWrite { record, expect: Expect::Fence }
    }

    /// The write that gives the claim back, with the budgets as they are.
    #[must_use]
    pub fn release(&self) -> RecordWrite {
        let mut record = self.next_record();
        record.state = State::Open;
        RecordWrite { record, expect: Expect::Fence }
    }

    fn next_record(&self) -> Record {
        Record { version: self.record.version + 1, budget: self.budget, ..self.record.clone() }
    }

    /// What the calls of this claim cost.
    #[must_use]
    pub fn claim_cost_micro_usd(&self) -> u64 {
        self.budget.cost_micro_usd.saturating_sub(self.cost_before_micro_usd)
    }
}

/// What a dead letter says of an answer that was cut off. What a provider calls its limit of the answer is believed only
/// if that many tokens were written: where prompt and answer share a full context, a higher limit would be of no use.
fn why_truncated(by: TokenLimit, text: &str, written: Option<u64>, allowed: u32) -> String {
    // Servers that do not count say 0; with nothing said, it is a count.
    let written = written.filter(|tokens| *tokens > 0 || text.is_empty());
    let allowed = u64::from(allowed);
    let full = "Prompt and answer fill the model's context: shorten the input, or use a model or a server with a larger context";
    match (by, written) {
        (TokenLimit::Context, None) => {
            format!("{full}. A higher OUTPUT_TOKENS_MAX of the task makes no room.")
        }
        (TokenLimit::Context, Some(written)) => format!(
            "{full}. The answer was cut off after {written} tokens; a higher OUTPUT_TOKENS_MAX of the task makes no room."
        ),
        (TokenLimit::Answer, Some(written)) if written < allowed => format!(
            "{full}. The answer was cut off after {written} of the {allowed} tokens that the task allows; a higher OUTPUT_TOKENS_MAX makes no room."
        ),
        (TokenLimit::Answer, Some(_)) => format!(
            "The answer was cut off by the task's limit of {allowed} tokens (OUTPUT_TOKENS_MAX): raise it, or shorten the input."
        ),
        (TokenLimit::Answer, None) => format!(
            "The answer was cut off, and the provider does not count its tokens: if it is about as long as the task's limit of {allowed} tokens (OUTPUT_TOKENS_MAX), raise that; else the model's context is full, and only a shorter input or a larger context makes room."
        ),
    }
}

/// What a dead letter says of a request that is larger than a limit.
fn why_too_large(oversize: Oversize) -> String {
    let unit = match oversize.unit {
        SizeUnit::Tokens => "tokens",
        SizeUnit::Characters => "characters",
    };
    let size = match (oversize.requested, oversize.limit) {
        (Some(requested), Some(limit)) => {
            format!("{requested} {unit} were requested, and the limit is {limit}")
        }
        (None, Some(limit)) => {
            format!("the limit is {limit} {unit}, and the provider does not say how many were requested")
        }
        (Some(requested), None) => {
            format!("{requested} {unit} were requested, and the provider does not name the limit")
        }
        (None, None) => "the provider names neither its size nor the limit".to_owned(),
    };
    format!(
        "The request is too large: {size}. Shorten the input, lower the task's OUTPUT_TOKENS_MAX, or use a model, a server or an account with a larger limit:"
    )
}

/// What follows from a panic while the job was worked on: the claim counts it as a crash, and the job is given up when
/// there were too many.
#[must_use]
pub fn after_panic(standing: &Record, now_ms: u64, revision: &Revision, limits: &Limits) -> RecordWrite {
    let record = Record { version: standing.version + 1, ..standing.clone() };
    crashed(RecordWrite { record, expect: Expect::Fence }, now_ms, revision, limits)
}

/// The same for a panic before the claim: what the claim would have written, without the call that it announces.
#[must_use]
pub fn after_panic_unclaimed(
    mut claim: RecordWrite,
    now_ms: u64,
    revision: &Revision,
    limits: &Limits,
) -> RecordWrite {
    claim.record.budget.calls = claim.record.budget.calls.saturating_sub(1);
    crashed(claim, now_ms, revision, limits)
}

fn crashed(mut write: RecordWrite, now_ms: u64, revision: &Revision, limits: &Limits) -> RecordWrite {
    write.record.budget.crashes += 1;
    if write.record.budget.crashes >= limits.crash_limit {
        let rejection = Rejection::new(
            FailureReason::Internal,
            format!(
                "The worker panicked {} times over this job: look for `panicked` in its log.",
                write.record.budget.crashes
            ),
        );
        write.record = failed(write.record, &rejection, now_ms, revision, limits, None, None);
    } else {
        write.record.state = State::Open;
    }
    write
}

// ---------------------------------------------------------------------------------------------------------------
// Handing back

/// Receives that are kept for a message's last chance: so many workers in a row must be prevented from sending its dead
/// letter before SQS moves it to `crashed`.
pub const RECEIVES_KEPT: u32 = 3;

/// What to do with a message that is not settled in this invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandBack {
    /// Make it visible again after this time.
    Return {
        /// 0 to 43,200.
        delay_s: u32,
    },
    /// SQS would soon delete it or move it away without a reason: give it a reason while we can.
    GiveUp(Rejection),
}

/// How long a message stays away, or that this is its last chance to be explained.
#[must_use]
pub fn hand_back(
    cause: HandBackCause,
    at_least_ms: u64,
    delivery: &Delivery,
    now_ms: u64,
    fraction: f64,
    limits: &Limits,
) -> HandBack {
    let returns = delivery.receive_count.saturating_sub(1);
    let exponent = match cause {
        // Nothing failed; the message is only early.
        HandBackCause::Deadline | HandBackCause::Suspect | HandBackCause::HeldByOther => 0,
        _ => returns,
    };
    // Many messages meet one floor at one moment; without a spread behind it, they would come back at one moment too.
    let floored_ms = at_least_ms.saturating_add(full_jitter_ms(
        limits.hand_back_base_ms,
        limits.hand_back_ms_max,
        0,
        fraction,
    ));
    let jittered_ms = match cause {
        HandBackCause::HeldByOther => floored_ms,
        _ => {
            let step_ms =
                equal_jitter_ms(limits.hand_back_base_ms, limits.hand_back_ms_max, exponent, fraction);
            if at_least_ms > 0 { step_ms.max(floored_ms) } else { step_ms }
        }
    };
    let gone_at_ms = delivery.sent_at_ms.saturating_add(limits.retention_ms);
    let left_ms = gone_at_ms.saturating_sub(now_ms);
    let receives_left = limits.receive_count_max.saturating_sub(delivery.receive_count);
    // While nobody's job is at fault, the receives that are left must last for the time that is left.
    let patient = matches!(
        cause,
        HandBackCause::Account | HandBackCause::Paused | HandBackCause::SpendCap | HandBackCause::Unreadable
    );
    let stretched_ms = if patient && delivery.receive_count > limits.receive_count_max / 2 {
        left_ms / u64::from(receives_left.max(1))
    } else {
        0
    };
    let held_ms = now_ms.saturating_sub(delivery.received_at_ms);
    let longest_ms = VISIBILITY_MS_MAX.saturating_sub(held_ms).saturating_sub(60_000);
    let delay_ms = jittered_ms.max(stretched_ms).min(longest_ms);
    // Some receives and two visibility timeouts are kept, in case the dead letter cannot be sent or its worker dies.
    let last_chance = receives_left <= RECEIVES_KEPT
        || left_ms <= delay_ms.saturating_add(limits.visibility_timeout_ms.saturating_mul(2));
    if last_chance {
        let reason = match cause {
            HandBackCause::Capacity
            | HandBackCause::Account
            | HandBackCause::Paused
            | HandBackCause::SpendCap => FailureReason::CapacityTimeout,
            HandBackCause::CallFailed => FailureReason::AttemptsExhausted,
            _ => FailureReason::Internal,
        };
        return HandBack::GiveUp(Rejection::new(
            reason,
            format!(
                "SQS would soon delete or move the message without a reason, after {} receives and {} hours of hand-backs; last cause: {}. {}",
                delivery.receive_count,
                now_ms.saturating_sub(delivery.sent_at_ms) / 3_600_000,
                cause.as_str(),
                match cause {
                    HandBackCause::Unreadable =>
                        "The ledger's record of this input is as it was, in words of a newer release: deploy that one, then send the job again.",
                    _ => "When that is over, send the job again.",
                }
            ),
        ));
    }
    HandBack::Return { delay_s: u32::try_from(delay_ms.div_ceil(1_000)).unwrap_or(u32::MAX) }
}
