//! Before a call, after one that failed, and after one that was answered.

use serde_json::Value;

use crate::blame::{Blame, Evidence, Refusal};
use crate::conversation::{AskedAgain, Conversation};
use crate::dead_letter::EXCERPT_CHARS_MAX;
use crate::failure::{FailureReason, Rejection};
use crate::limits::Limits;
use crate::metric::{HandBackCause, Outcome};
use crate::model::{Answer, FailureClass, ModelFailure, ModelReply, Prompt, Turn};
use crate::next_step::failed;
use crate::next_step::why::{why_rejected, why_truncated};
use crate::output_validation::{reask_text, validate};
use crate::record::{Budget, Done, Expect, Record, RecordWrite, Revision, State};
use crate::retry::{advised_wait_ms, full_jitter_ms};
use crate::spend::CallPrice;
use crate::task::{Task, Violations};
use crate::text::cut;

/// The last call that a job may pay for waits this long after the one before, if hand-backs may take as long: without, an
/// outage that fails fast would use up its calls within half a minute, before the sentinel has seen it and paused.
const LAST_CALL_WAIT_MS: u64 = 150_000;
/// A job that is handed back comes by a few times as late as it may, where others wait, too. One that comes later than that
/// on average waited for something else.
const HAND_BACKS_MISSED_MAX: u64 = 4;

/// What is fixed for a job while it is worked on.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Prompt, schema and rules of what is asked for.
    pub task: &'a dyn Task,
    /// What the sender wrote, as the task accepted it.
    pub input: &'a Value,
    /// How many calls, tokens and bytes it may have.
    pub limits: &'a Limits,
    /// What one call may take and cost.
    pub price: CallPrice,
    /// The model's name.
    pub model: &'a str,
    /// What is deployed.
    pub revision: &'a Revision,
    /// When a pause last gave way, in milliseconds since 1970; 0: none did. Nobody has waited for capacity before that.
    pub opened_at_ms: u64,
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
    /// The answer passed, or a fallback stands in for it.
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

    /// Of a failed call: how long the jobs beside this one are to wait too. Of a job that is given up, what the provider
    /// asked for still holds for its neighbours.
    #[must_use]
    pub fn others_wait_ms(&self, failure: &ModelFailure, now_ms: u64) -> u64 {
        match self {
            Self::CallAgain { delay_ms } => *delay_ms,
            Self::HandBack { at_least_ms, .. } => *at_least_ms,
            Self::Store { .. } | Self::Fail(_) => advised_wait_ms(&failure.advice, now_ms).unwrap_or(0),
        }
    }
}

/// Whether the provider says that it has no capacity for longer than a job may wait for it: a plan that is used up for the day
/// or the week, which every job would be given up for.
fn outlasts_the_wait_for_capacity(failure: &ModelFailure, limits: &Limits, now_ms: u64) -> bool {
    failure.class == FailureClass::Capacity
        && advised_wait_ms(&failure.advice, now_ms)
            .is_some_and(|wait_ms| wait_ms > limits.capacity_wait_ms_max)
}

/// One claimed job while it is worked on.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// As it stands in the ledger.
    record: Record,
    /// As it is: without the call that the ledger counts in advance.
    budget: Budget,
    cost_before_micro_usd: u64,
    last_cost_micro_usd: u64,
    calls_in_claim: u32,
    failures_in_row: u32,
    conversation: Conversation,
    request_id: Option<String>,
    excerpt: Option<String>,
    last_failure: Option<String>,
    blame: Blame,
    account_is_refused: bool,
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
            last_cost_micro_usd: 0,
            calls_in_claim: 0,
            failures_in_row: 0,
            conversation: Conversation::new(prompt),
            request_id: None,
            excerpt: None,
            last_failure: None,
            blame: Blame::AsSaid,
            account_is_refused: false,
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

    /// Says of a call that was not answered, and took so long, what it means to this job, by what became of others.
    #[must_use]
    pub fn judged(
        &mut self,
        work: Work<'_>,
        failure: ModelFailure,
        evidence: &mut Evidence,
        (now_ms, took_ms): (u64, u64),
    ) -> ModelFailure {
        let failure = if outlasts_the_wait_for_capacity(&failure, work.limits, now_ms) {
            ModelFailure { class: FailureClass::Account, ..failure }
        } else {
            failure
        };
        let (task, before) = (work.task.name(), self.budget.refusals);
        let refusal = Refusal { failure: &failure, key: &self.record.key, task, before, now_ms };
        self.blame = evidence.judge(&refusal);
        let (class, refusals) = refusal.settled(self.blame);
        self.budget.refusals = refusals;
        let began_ms = now_ms.saturating_sub(took_ms);
        self.account_is_refused =
            class == FailureClass::Account && evidence.account_refused(&self.record.key, began_ms, now_ms);
        ModelFailure { class, ..failure }
    }

    /// Whether the last call showed that everybody is refused for the account, so that the stack is to pause.
    #[must_use]
    pub fn account_is_refused(&self) -> bool {
        self.account_is_refused
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
                    why_rejected(failure, self.blame, self.budget.refusals),
                ));
            }
            FailureClass::Unclear => {
                return AfterCall::HandBack { cause: HandBackCause::CallFailed, at_least_ms };
            }
            FailureClass::Account => {
                // What it waits for now is not capacity.
                self.budget.waiting_since_ms = None;
                return AfterCall::HandBack { cause: HandBackCause::Account, at_least_ms };
            }
            FailureClass::Capacity => {
                let since_ms = *self.budget.waiting_since_ms.get_or_insert(now_ms);
                // A redriven message has not waited before it was sent, and what was paused waited for that.
                let from_ms = since_ms.max(self.record.sent_at_ms).max(work.opened_at_ms);
                let waited_ms = now_ms.saturating_sub(from_ms);
                let was_refused_all_along = self.hand_backs_fill(waited_ms, at_least_ms, work.limits);
                if waited_ms > work.limits.capacity_wait_ms_max && was_refused_all_along {
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
                if self.budget.calls + 1 == work.limits.paid_call_limit {
                    let at_least_ms = at_least_ms.max(LAST_CALL_WAIT_MS.min(work.limits.hand_back_ms_max));
                    return AfterCall::HandBack { cause: HandBackCause::CallFailed, at_least_ms };
                }
                HandBackCause::CallFailed
            }
        };
        self.again_or_back(work, failure, cause, at_least_ms, time, fraction)
    }

    /// Whether a job was worked on so often that it can have been refused for all of that time. For want of money, or of its
    /// turn in a long queue, it waits without being worked on.
    fn hand_backs_fill(&self, waited_ms: u64, at_least_ms: u64, limits: &Limits) -> bool {
        let longest_ms = limits.hand_back_ms_max.saturating_mul(HAND_BACKS_MISSED_MAX).max(at_least_ms);
        u64::from(self.budget.claims).saturating_mul(longest_ms) >= waited_ms
    }

    /// A call that may be repeated: in this invocation, where it still fits, or in a later one.
    fn again_or_back(
        &mut self,
        work: Work<'_>,
        failure: &ModelFailure,
        cause: HandBackCause,
        at_least_ms: u64,
        time: TimeLeft,
        fraction: f64,
    ) -> AfterCall {
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
        self.count(work, reply);
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
        self.ask_again_or_end(work, said, &violations)
    }

    fn count(&mut self, work: Work<'_>, reply: &ModelReply) {
        self.calls_in_claim += 1;
        self.failures_in_row = 0;
        self.budget.calls += 1;
        self.budget.waiting_since_ms = None;
        self.budget.refusals = None;
        let counted = work.price.count(reply);
        self.budget.usage += counted.usage;
        self.budget.cost_micro_usd = self.budget.cost_micro_usd.saturating_add(counted.micro_usd);
        self.last_cost_micro_usd = counted.micro_usd;
        self.request_id.clone_from(&reply.request_id);
    }

    /// An answer that was not accepted is asked again within the budgets, and with something new to say.
    fn ask_again_or_end(&mut self, work: Work<'_>, said: &str, violations: &Violations) -> AfterCall {
        let may_ask_again = self.budget.reasks < work.limits.reask_limit
            && self.budget.calls < work.limits.paid_call_limit
            && self.calls_in_claim < work.limits.call_limit;
        let asked_again = may_ask_again.then(|| self.conversation.ask_again(said, &reask_text(violations)));
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
        let erased_until_ms = record.erased.map_or(0, |erasure| erasure.until_ms);
        record.expires_at_ms = erased_until_ms.max(now_ms + work.limits.result_expiry_ms);
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

    /// What the calls of this claim cost for nothing: all of it but the call whose answer was stored as a result.
    #[must_use]
    pub fn wasted_micro_usd(&self, outcome: Outcome) -> u64 {
        let useful_micro_usd = if outcome == Outcome::Succeeded { self.last_cost_micro_usd } else { 0 };
        let cost_micro_usd = self.budget.cost_micro_usd.saturating_sub(self.cost_before_micro_usd);
        cost_micro_usd.saturating_sub(useful_micro_usd)
    }
}
