//! The calls of a claimed job: until there is an answer to store, a reason to fail, or no sense in going on now.
//!
//! Every decision is the core's (`JobRun`); here it is performed.

use std::borrow::Cow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nightshift_core::control::Control;
use nightshift_core::cost::usd;
use nightshift_core::metric::{HandBackCause, Latency, Metric, Outcome};
use nightshift_core::model::{FailureClass, ModelFailure, ModelReply, ModelRequest, Prompt};
use nightshift_core::next_step::{AfterCall, BeforeCall, JobRun, Work, after_own_write};
use nightshift_core::record::Record;
use nightshift_core::spend::{Counted, was_cut};
use tokio::time::Instant;

use crate::flow::{Admission, Permit};
use crate::invocation::Invocation;
use crate::job::Job;
use crate::paid_call::{Called, Reservation};

/// An adapter that does not keep its timeout is cut off this much later.
const TIMEOUT_GRACE_MS: u64 = 500;
/// A provider's name for a refusal is shorter; what an operator reads has to fit on a line.
const WHY_CHARS_MAX: usize = 80;

impl<'a> Job<'a> {
    /// Calls the model and settles the record.
    pub(crate) async fn work_on(
        &self,
        work: Work<'_>,
        record: Record,
        prompt: &Prompt,
        mut first_or_unused: Option<Reservation<'a>>,
    ) -> Outcome {
        let mut run = JobRun::new(record, prompt);
        let last = loop {
            let next = self.call_once(work, &mut run, prompt, &mut first_or_unused).await;
            match next.unwrap_or_else(|instead| instead) {
                AfterCall::CallAgain { delay_ms } => {
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                }
                last => break last,
            }
        };
        let outcome = self.settle(work, &run, last).await;
        self.add(Metric::WastedCostUsd, usd(run.wasted_micro_usd(outcome)));
        outcome
    }

    /// One call with all that comes before and after it; `Err` is what follows instead where there was none.
    async fn call_once(
        &self,
        work: Work<'_>,
        run: &mut JobRun,
        prompt: &Prompt,
        first_or_unused: &mut Option<Reservation<'a>>,
    ) -> Result<AfterCall, AfterCall> {
        let reservation = match first_or_unused.take() {
            Some(reservation) => reservation,
            None => self.invocation.reserve_call(work.price).await.map_err(hand_back)?,
        };
        // Counted before it is admitted: the provider may tell this environment to wait while the count is written.
        self.ready_to_call(work, run).await?;
        let permit = self.admit().await?;
        // The admission took time: ask again how much is left.
        let timeout_ms = self.ready_to_call(work, run).await?;
        let request = ModelRequest {
            system: prompt.system.clone(),
            turns: run.turns(),
            schema_name: work.task.name().to_owned(),
            schema: Arc::clone(work.task.schema()),
            output_tokens_max: work.task.output_tokens_max(),
            timeout_ms,
        };
        let (Called { result, unused }, took_ms) = self.call(reservation, &request).await;
        *first_or_unused = unused;
        let (next, why) = match self.judged(work, run, result, took_ms) {
            Ok(answer) => {
                (self.answered(work, run, &request, &answer, took_ms), Cow::from("answer not accepted"))
            }
            Err(failure) => (self.failed(work, run, &failure, took_ms), Cow::from(failure.error_type)),
        };
        drop(permit);
        self.invocation.tell_calls().await;
        if run.account_is_refused() {
            self.pause_for_the_account(took_ms, &why).await;
        }
        if let AfterCall::CallAgain { delay_ms } = next {
            let budget = run.budget();
            tracing::info!(
                attempt = budget.claims,
                calls = budget.calls,
                delay_ms,
                why = &*why,
                "calling again"
            );
        }
        Ok(next)
    }

    /// Counts the next call in the ledger where it must be counted first, and says how long it may take; or what follows
    /// without it.
    async fn ready_to_call(&self, work: Work<'_>, run: &mut JobRun) -> Result<u64, AfterCall> {
        loop {
            let write = match run.before_call(work, self.invocation.time_left()) {
                BeforeCall::Call { timeout_ms, count_first: None } => return Ok(timeout_ms),
                BeforeCall::Call { count_first: Some(write), .. } => write,
                BeforeCall::HandBack { cause, at_least_ms } => {
                    return Err(AfterCall::HandBack { cause, at_least_ms });
                }
                BeforeCall::Fail(rejection) => return Err(AfterCall::Fail(rejection)),
            };
            let answer = self.write(&write).await;
            let is_lost = after_own_write(&answer);
            if answer.is_err() || is_lost.is_ok() {
                // After an error it may have taken effect: the release must have a version beyond it to be allowed either way.
                run.written(write.record);
            }
            // The write took time: ask again how much is left.
            is_lost.map_err(hand_back)?;
        }
    }

    async fn admit(&self) -> Result<Permit<'a>, AfterCall> {
        let fraction = || self.ports().entropy.fraction();
        match self.worker().flow.admit(self.invocation.deadline(), fraction).await {
            Admission::Granted(permit) => Ok(permit),
            Admission::NotInTime { cause, at_least_ms } => Err(AfterCall::HandBack { cause, at_least_ms }),
        }
    }

    /// One call, cut off if the adapter does not keep its timeout; and how long it took.
    async fn call(&self, reservation: Reservation<'a>, request: &ModelRequest) -> (Called<'a>, u64) {
        let started = Instant::now();
        let limit = Duration::from_millis(request.timeout_ms + TIMEOUT_GRACE_MS);
        let call = self.ports().model.call(reservation, request);
        let called = tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Called {
            result: Err(ModelFailure {
                class: FailureClass::Transient,
                status: None,
                error_type: "timeout".to_owned(),
                message: format!("no answer within {} ms", request.timeout_ms),
                request_id: None,
                advice: Default::default(),
                headroom: Default::default(),
                oversize: None,
            }),
            unused: None,
        });
        (called, u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// An answer is evidence for others, and a refusal is judged by what became of them.
    fn judged(
        &self,
        work: Work<'_>,
        run: &mut JobRun,
        result: Result<(ModelReply, Counted), ModelFailure>,
        took_ms: u64,
    ) -> Result<(ModelReply, Counted), ModelFailure> {
        let now_ms = self.now_ms();
        let mut evidence = self.worker().evidence.lock().unwrap_or_else(PoisonError::into_inner);
        self.invocation.book(|book| book.called_at_ms = Some(now_ms));
        match result {
            Ok((reply, counted)) => {
                let tokens = if counted.as_reported { counted.usage.input_tokens } else { 0 };
                evidence.answered(self.item.task, now_ms.saturating_sub(took_ms), tokens);
                self.invocation.book(|book| book.answered_at_ms = Some(now_ms));
                self.worker().heard(|heard| heard.answered(now_ms));
                Ok((reply, counted))
            }
            Err(failure) => Err(run.judged(work, failure, &mut evidence, (now_ms, took_ms))),
        }
    }

    fn answered(
        &self,
        work: Work<'_>,
        run: &mut JobRun,
        request: &ModelRequest,
        answer: &(ModelReply, Counted),
        took_ms: u64,
    ) -> AfterCall {
        let (reply, counted) = answer;
        self.count_reply(counted, took_ms);
        warn_of_odd_count(work, request, answer);
        self.worker().flow.answered(took_ms, counted.usage.total(), &reply.headroom);
        let next = run.after_reply(work, reply);
        if next.rejects_output() {
            self.add(Metric::OutputRejections, 1.0);
        }
        next
    }

    fn failed(&self, work: Work<'_>, run: &mut JobRun, failure: &ModelFailure, took_ms: u64) -> AfterCall {
        self.invocation.count_failure(self.item.task, failure);
        let (now_ms, fraction) = (self.now_ms(), self.ports().entropy.fraction());
        self.worker().heard(|heard| heard.failed(failure, now_ms.saturating_sub(took_ms), now_ms));
        let next = run.after_failure(work, failure, now_ms, self.invocation.time_left(), fraction);
        self.worker().flow.failed(failure, took_ms, next.others_wait_ms(failure, now_ms));
        if let AfterCall::CallAgain { .. } = next {
            self.add(Metric::ModelRetries, 1.0);
        }
        next
    }

    /// Pauses the stack, since everybody is refused for the account. Not written, the next jobs that are refused write it.
    async fn pause_for_the_account(&self, took_ms: u64, why: &str) {
        let (now_ms, why) = (self.now_ms(), why.chars().take(WHY_CHARS_MAX).collect::<String>());
        let began_ms = now_ms.saturating_sub(took_ms);
        let change = |control: &Control| control.account_refused(self.item.task, began_ms, &why, now_ms);
        match self.ports().ledger.change_control(&change).await {
            Ok(stands) => {
                let paused = stands.is_shut();
                tracing::warn!(why, paused, "different jobs in a row were refused for the account");
                self.worker().knows(&stands);
            }
            Err(error) => _ = self.ledger_error(&error),
        }
    }

    fn count_reply(&self, counted: &Counted, took_ms: u64) {
        self.invocation.numbers(|n| {
            n.add(self.item.task, Metric::ModelCalls, 1.0);
            n.sample_ms(self.item.task, Latency::ModelLatency, took_ms);
            n.usage(self.item.task, counted.usage, counted.micro_usd);
        });
    }
}

fn warn_of_odd_count(work: Work<'_>, request: &ModelRequest, (reply, counted): &(ModelReply, Counted)) {
    let reserved_micro_usd = work.price.most_micro_usd();
    let text_bytes = request.text_bytes();
    let odd = if !counted.as_reported {
        "the provider's count of tokens is missing or cannot be right: it counts as the most that it can be"
    } else if counted.micro_usd > reserved_micro_usd {
        "the provider counted more than a call can take by what was sent and allowed: it counts as billed"
    } else if was_cut(text_bytes, reply.usage.input_tokens) {
        "the provider counted few tokens for what was sent: it may have read only a part; give its server a longer context"
    } else {
        return;
    };
    tracing::warn!(
        provider_request_id = reply.request_id,
        reported_input_tokens = reply.usage.input_tokens,
        reported_output_tokens = reply.usage.output_tokens,
        input_tokens = counted.usage.input_tokens,
        output_tokens = counted.usage.output_tokens,
        cost_micro_usd = counted.micro_usd,
        reserved_micro_usd,
        text_bytes,
        "{odd}"
    );
}

impl Invocation<'_> {
    /// Counts and logs a call that was not answered.
    pub(crate) fn count_failure(&self, task: &'static str, failure: &ModelFailure) {
        let kind = match failure.class {
            FailureClass::Capacity => Metric::ModelThrottled,
            FailureClass::Account => Metric::AccountFailures,
            FailureClass::Transient
            | FailureClass::Rejected
            | FailureClass::Unclear
            | FailureClass::Refused => Metric::ModelErrors,
        };
        self.numbers(|n| {
            n.add(task, Metric::ModelCalls, 1.0);
            n.add(task, kind, 1.0);
        });
        tracing::warn!(
            class = ?failure.class, status = failure.status, error_type = failure.error_type,
            provider_request_id = failure.request_id, "model call failed"
        );
    }
}

fn hand_back(cause: HandBackCause) -> AfterCall {
    AfterCall::HandBack { cause, at_least_ms: 0 }
}
