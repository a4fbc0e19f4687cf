//! The path of one job: refuse or claim, call, validate, store, settle.
//!
//! Every decision is the core's (`next_step`); here it is performed, in this order: the ledger, then the queue, then
//! the acknowledgement.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nightshift_core::cost::usd;
use nightshift_core::dead_letter::{Original, dead_letter, letter_without_record};
use nightshift_core::failure::Rejection;
use nightshift_core::job::Job;
use nightshift_core::metric::{HandBackCause, Latency, Metric, Outcome};
use nightshift_core::model::{FailureClass, ModelFailure, ModelReply, ModelRequest, Prompt};
use nightshift_core::next_step::{
    AfterCall, BeforeCall, ClaimAsk, ClaimStep, HandBack, JobRun, TimeLeft, Work, after_panic,
    after_panic_unclaimed, hand_back,
};
use nightshift_core::ready::{Ready, ready};
use nightshift_core::record::{Record, RecordWrite, Revision, State};
use nightshift_core::retry::advised_wait_ms;
use nightshift_core::spend::Counted;
use tokio::time::Instant;

use crate::flow_control::Admission;
use crate::paid_call::{Called, Reservation};
use crate::process_batch::{Ended, Invocation, Item, Worker};
use nightshift_ports::{PortError, PortErrorKind, WriteAnswer};

/// How often a claim is decided anew because the record changed in between.
const CLAIM_ROUNDS_MAX: u32 = 3;
/// An adapter that does not keep its timeout is cut off this much later.
const TIMEOUT_GRACE_MS: u64 = 500;

/// What a claim led to.
enum Claim {
    /// Ours.
    Granted(Box<Record>),
    /// Settled, or not for us.
    Ended(Ended),
}

impl Worker {
    /// One record from its message to its settlement.
    pub(crate) async fn process_job<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        item: &Item,
        token: &str,
        alone: bool,
        reservation: Option<Reservation<'a>>,
    ) -> Ended {
        let revision = self.revision(item.task_name());
        let ready = self.prepare(item);
        let rejection = ready.as_ref().err();
        let record = match self.claim(invocation, item, token, alone, &revision, rejection).await {
            Claim::Granted(record) => *record,
            Claim::Ended(ended) => return ended,
        };
        // Before any call: if this worker dies of the job, the line says which one it was.
        tracing::info!(
            request_id = invocation.id, input_hash = %item.key, task = item.task_name(),
            attempt = record.budget.claims, crashes = record.budget.crashes, alone, "claimed"
        );
        match ready {
            Ok((job, Ready { task, price, prompt })) => {
                let work = Work {
                    task,
                    input: &job.input,
                    limits: &self.deployment.limits,
                    price,
                    model: &self.deployment.model,
                    revision: &revision,
                };
                Ended::With(self.work_on(invocation, item, work, record, &prompt, reservation).await)
            }
            Err(_) => Ended::With(self.bury(invocation, item, &record).await),
        }
    }

    /// The job with its task and prompt, or why there will be none.
    fn prepare<'a>(&'a self, item: &'a Item) -> Result<(&'a Job, Ready<'a>), Rejection> {
        let job = item.job.as_ref().map_err(Clone::clone)?;
        let ready = ready(
            job,
            item.message.body.len(),
            &*self.tasks,
            self.deployment.price,
            self.deployment.limits.spend_cap_micro_usd,
        )?;
        Ok((job, ready))
    }

    /// Claims the record, or writes the rejection at once; both in one write where nobody has seen the input.
    async fn claim(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        token: &str,
        alone: bool,
        revision: &Revision,
        rejection: Option<&Rejection>,
    ) -> Claim {
        let now_ms = self.ports.clock.now_ms();
        // A job that is refused before any work cannot kill its worker, so it need not wait to be alone.
        let ask = self.claim_ask(
            item,
            token,
            now_ms,
            invocation.lease_until_ms,
            alone || rejection.is_some(),
            revision,
        );
        let mut write = ask.first();
        for _ in 0..CLAIM_ROUNDS_MAX {
            let intended = match rejection {
                Some(rejection) => ask.refuse(write, rejection),
                None => write,
            };
            let standing = match self.ports.ledger.write(&intended).await {
                Ok(WriteAnswer::Written) => return Claim::Granted(Box::new(intended.record)),
                Ok(WriteAnswer::Refused(standing)) => standing,
                Err(error) => {
                    let cause = self.ledger_error(invocation, item, &error);
                    // A claim that nobody knows of would hold the job back until its lease ends, and count a call.
                    // A refusal in its place is found, and sent, by the next delivery.
                    if rejection.is_none()
                        && error.kind.may_have_taken_effect()
                        && let Err(error) = self.ports.ledger.write(&ask.take_back(intended)).await
                    {
                        self.ledger_error(invocation, item, &error);
                    }
                    return self.ended_with_return(invocation, item, cause, 0).await;
                }
            };
            let Some(standing) = standing else {
                // It was deleted between the condition and the read of it.
                write = ask.first();
                continue;
            };
            write = match ask.refused_by(&standing) {
                ClaimStep::Held(record) => return Claim::Granted(record),
                ClaimStep::TakeOver(write) => *write,
                ClaimStep::Fail(write) => return self.claim_to_fail(invocation, item, *write).await,
                ClaimStep::RunAlone => return Claim::Ended(Ended::AsSuspect),
                ClaimStep::AlreadyDone { another_message } => {
                    if another_message
                        && let Err(error) =
                            self.ports.ledger.count_duplicate(&item.key, &item.message.message_id).await
                    {
                        // The count is for people; the result stands.
                        self.ledger_error(invocation, item, &error);
                    }
                    return Claim::Ended(Ended::With(Outcome::Duplicate));
                }
                ClaimStep::AlreadyFailed(record) => {
                    return Claim::Ended(Ended::With(self.bury(invocation, item, &record).await));
                }
                ClaimStep::AlreadyRedriven => return Claim::Ended(Ended::With(Outcome::Duplicate)),
                ClaimStep::HeldByOther { until_ms } => {
                    let at_least_ms = until_ms.saturating_sub(now_ms);
                    return self
                        .ended_with_return(invocation, item, HandBackCause::HeldByOther, at_least_ms)
                        .await;
                }
            };
        }
        self.ended_with_return(invocation, item, HandBackCause::HeldByOther, 0).await
    }

    fn claim_ask<'a>(
        &'a self,
        item: &'a Item,
        token: &'a str,
        now_ms: u64,
        lease_until_ms: u64,
        alone: bool,
        revision: &'a Revision,
    ) -> ClaimAsk<'a> {
        let job = item.job.as_ref().ok();
        ClaimAsk {
            key: &item.key,
            task: job.map(|job| job.task.as_str()),
            reference: job.and_then(|job| job.reference.as_deref()),
            delivery: &item.delivery,
            token,
            now_ms,
            lease_until_ms,
            alone,
            revision,
            limits: &self.deployment.limits,
        }
    }

    async fn claim_to_fail(&self, invocation: &Invocation<'_>, item: &Item, write: RecordWrite) -> Claim {
        let outcome = self.write_failure(invocation, item, write).await;
        Claim::Ended(Ended::With(outcome))
    }

    async fn ended_with_return(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        cause: HandBackCause,
        at_least_ms: u64,
    ) -> Claim {
        Claim::Ended(Ended::With(self.return_unclaimed(invocation, item, cause, at_least_ms).await))
    }

    /// Calls the model until there is an answer to store, a reason to fail, or no sense in going on now.
    async fn work_on<'a>(
        &self,
        invocation: &'a Invocation<'_>,
        item: &Item,
        work: Work<'_>,
        record: Record,
        prompt: &Prompt,
        mut first_or_unused: Option<Reservation<'a>>,
    ) -> Outcome {
        let mut run = JobRun::new(record, prompt);
        let mut last_cost_micro_usd = 0;
        let next = loop {
            let reservation = match first_or_unused.take() {
                Some(reservation) => reservation,
                None => match self.reserve_call(invocation, work.price).await {
                    Ok(reservation) => reservation,
                    Err(cause) => break AfterCall::HandBack { cause, at_least_ms: 0 },
                },
            };
            // Counted before it is admitted: the provider may tell this environment to wait while the count is written.
            if let Err(otherwise) = self.ready_to_call(invocation, item, work, &mut run).await {
                break otherwise;
            }
            let permit = match self.flow.admit(invocation.deadline).await {
                Admission::Granted(permit) => permit,
                Admission::NotInTime { at_least_ms } => {
                    let cause =
                        if at_least_ms > 0 { HandBackCause::Capacity } else { HandBackCause::Deadline };
                    break AfterCall::HandBack { cause, at_least_ms };
                }
            };
            // The admission took time: ask again how much is left.
            let timeout_ms = match self.ready_to_call(invocation, item, work, &mut run).await {
                Ok(timeout_ms) => timeout_ms,
                Err(otherwise) => break otherwise,
            };
            let request = ModelRequest {
                system: prompt.system.clone(),
                turns: run.turns(),
                schema_name: work.task.name().to_owned(),
                schema: Arc::clone(work.task.schema()),
                output_tokens_max: work.task.output_tokens_max(),
                timeout_ms,
            };
            let (Called { result, unused }, took_ms) = self.call(reservation, &request).await;
            first_or_unused = unused;
            let result = self.judged(item, &mut run, result, took_ms);
            let after = match &result {
                Ok((reply, counted)) => {
                    last_cost_micro_usd = counted.micro_usd;
                    self.count_reply(invocation, item, work, (reply, counted), took_ms);
                    self.flow.answered(took_ms, counted.usage.total(), &reply.headroom);
                    let after = run.after_reply(work, reply);
                    if after.rejects_output() {
                        invocation.numbers(|n| n.add(item.task_name(), Metric::OutputRejections, 1.0));
                    }
                    after
                }
                Err(failure) => {
                    self.count_failure(invocation, item, failure);
                    let now_ms = self.ports.clock.now_ms();
                    let fraction = self.ports.entropy.fraction();
                    let after =
                        run.after_failure(work, failure, now_ms, self.time_left(invocation), fraction);
                    let wait_ms = match after {
                        AfterCall::CallAgain { delay_ms } => delay_ms,
                        AfterCall::HandBack { at_least_ms, .. } => at_least_ms,
                        // The job is given up; what the provider asked for still holds for its neighbours.
                        _ => advised_wait_ms(&failure.advice, now_ms).unwrap_or(0),
                    };
                    self.flow.failed(failure, took_ms, wait_ms);
                    after
                }
            };
            drop(permit);
            match after {
                AfterCall::CallAgain { delay_ms } => {
                    if result.is_err() {
                        invocation.numbers(|n| n.add(item.task_name(), Metric::ModelRetries, 1.0));
                    }
                    tracing::info!(
                        request_id = invocation.id, input_hash = %item.key, task = item.task_name(),
                        attempt = run.budget().claims, calls = run.budget().calls, delay_ms,
                        why = result.as_ref().err().map_or("answer not accepted", |f| f.error_type.as_str()),
                        "calling again"
                    );
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                }
                after => break after,
            }
        };
        let outcome = self.settle(invocation, item, work, &run, next).await;
        let useful_micro_usd = match outcome {
            Outcome::Succeeded => last_cost_micro_usd,
            _ => 0,
        };
        let wasted = usd(run.claim_cost_micro_usd().saturating_sub(useful_micro_usd));
        invocation.numbers(|n| n.add(item.task_name(), Metric::WastedCostUsd, wasted));
        outcome
    }

    /// Counts the next call in the ledger where it must be counted first, and says how long it may take; or why there
    /// will be none.
    async fn ready_to_call(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        work: Work<'_>,
        run: &mut JobRun,
    ) -> Result<u64, AfterCall> {
        loop {
            let write = match run.before_call(work, self.time_left(invocation)) {
                BeforeCall::Call { timeout_ms, count_first: None } => return Ok(timeout_ms),
                BeforeCall::Call { count_first: Some(write), .. } => write,
                BeforeCall::HandBack { cause, at_least_ms } => {
                    return Err(AfterCall::HandBack { cause, at_least_ms });
                }
                BeforeCall::Fail(rejection) => return Err(AfterCall::Fail(rejection)),
            };
            match self.ports.ledger.write(&write).await {
                // The write took time: ask again how much is left.
                Ok(WriteAnswer::Written) => run.written(write.record),
                Ok(WriteAnswer::Refused(_)) => return Err(lost_claim()),
                Err(error) => {
                    let cause = self.ledger_error(invocation, item, &error);
                    // It may have taken effect: the release must have a version beyond it to be allowed either way.
                    run.written(write.record);
                    return Err(AfterCall::HandBack { cause, at_least_ms: 0 });
                }
            }
        }
    }

    async fn settle(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        work: Work<'_>,
        run: &JobRun,
        next: AfterCall,
    ) -> Outcome {
        let now_ms = self.ports.clock.now_ms();
        let (cause, at_least_ms) = match next {
            AfterCall::Store { output, needs_review } => {
                match run.store(work, output, needs_review, now_ms) {
                    Ok(write) => match self.ports.ledger.write(&write).await {
                        Ok(WriteAnswer::Written) => {
                            self.measure_stored(invocation, item, run);
                            return if needs_review { Outcome::NeedsReview } else { Outcome::Succeeded };
                        }
                        Ok(WriteAnswer::Refused(_)) => (HandBackCause::LostClaim, 0),
                        Err(error) => {
                            let cause = self.ledger_error(invocation, item, &error);
                            (cause, 0)
                        }
                    },
                    Err(rejection) => {
                        let write = run.fail(&rejection, now_ms, work.revision, work.limits);
                        return self.write_failure(invocation, item, write).await;
                    }
                }
            }
            AfterCall::Fail(rejection) => {
                let write = run.fail(&rejection, now_ms, work.revision, work.limits);
                return self.write_failure(invocation, item, write).await;
            }
            AfterCall::HandBack { cause, at_least_ms } => (cause, at_least_ms),
            AfterCall::CallAgain { delay_ms } => (HandBackCause::CallFailed, delay_ms),
        };
        match self.decide_return(item, cause, at_least_ms) {
            HandBack::GiveUp(rejection) => {
                let write = run.fail(&rejection, now_ms, work.revision, work.limits);
                self.write_failure(invocation, item, write).await
            }
            HandBack::Return { delay_s } => {
                // Unreadable is what another worker wrote since: there is nothing of ours to give back.
                if !matches!(cause, HandBackCause::LostClaim | HandBackCause::Unreadable)
                    && let Err(error) = self.ports.ledger.write(&run.release()).await
                {
                    // The lease will end by itself.
                    self.ledger_error(invocation, item, &error);
                }
                self.make_visible(invocation, item, delay_s).await;
                Outcome::HandedBack(cause)
            }
        }
    }

    /// One call, cut off if the adapter does not keep its timeout; and how long it took.
    async fn call<'a>(&self, reservation: Reservation<'a>, request: &ModelRequest) -> (Called<'a>, u64) {
        let started = Instant::now();
        let limit = Duration::from_millis(request.timeout_ms + TIMEOUT_GRACE_MS);
        let call = self.ports.model.call(reservation, request);
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
    fn judged<T>(
        &self,
        item: &Item,
        run: &mut JobRun,
        result: Result<T, ModelFailure>,
        took_ms: u64,
    ) -> Result<T, ModelFailure> {
        let now_ms = self.ports.clock.now_ms();
        let mut evidence = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(reply) => {
                evidence.answered(item.task_name(), now_ms.saturating_sub(took_ms));
                Ok(reply)
            }
            Err(failure) => Err(run.judged(failure, item.task_name(), &mut evidence, now_ms)),
        }
    }

    fn time_left(&self, invocation: &Invocation<'_>) -> TimeLeft {
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        TimeLeft {
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            usual_call_ms: self.flow.usual_call_ms(),
        }
    }

    /// Writes a failure, then sends its dead letter.
    async fn write_failure(&self, invocation: &Invocation<'_>, item: &Item, write: RecordWrite) -> Outcome {
        match self.ports.ledger.write(&write).await {
            Ok(WriteAnswer::Written) => self.bury(invocation, item, &write.record).await,
            Ok(WriteAnswer::Refused(_)) => {
                self.return_unclaimed(invocation, item, HandBackCause::LostClaim, 0).await
            }
            Err(error) => {
                let cause = self.ledger_error(invocation, item, &error);
                self.return_unclaimed(invocation, item, cause, 0).await
            }
        }
    }

    /// Sends the dead letter of a failed record. If that fails, the redelivery finds the failure and sends it again.
    async fn bury(&self, invocation: &Invocation<'_>, item: &Item, record: &Record) -> Outcome {
        let letter = dead_letter(record, original(item));
        let (Some(letter), State::Failed(failed)) = (letter, &record.state) else {
            return self.return_unclaimed(invocation, item, HandBackCause::LostClaim, 0).await;
        };
        match self.ports.dead_letters.send(&letter).await {
            Ok(()) => {
                if record.notes_its_letter()
                    && let Err(error) = self.ports.ledger.note_letter_sent(&record.key, record.version).await
                {
                    // A copy of the letter that this job was redriven by will then send this one once more.
                    self.ledger_error(invocation, item, &error);
                }
                Outcome::DeadLettered(failed.reason)
            }
            Err(error) => {
                tracing::warn!(request_id = invocation.id, input_hash = %item.key, %error, "the dead letter was not sent");
                match self.decide_return(item, HandBackCause::DeadLetterUnsent, 0) {
                    HandBack::Return { delay_s } => self.make_visible(invocation, item, delay_s).await,
                    // SQS will move it to `crashed` by itself; the reason stands in the ledger.
                    HandBack::GiveUp(_) => {}
                }
                Outcome::HandedBack(HandBackCause::DeadLetterUnsent)
            }
        }
    }

    /// Hands back a message whose record is not ours, or explains it while that is still possible.
    pub(crate) async fn return_unclaimed(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        cause: HandBackCause,
        at_least_ms: u64,
    ) -> Outcome {
        match self.decide_return(item, cause, at_least_ms) {
            HandBack::Return { delay_s } => {
                self.make_visible(invocation, item, delay_s).await;
                Outcome::HandedBack(cause)
            }
            HandBack::GiveUp(rejection) => {
                let revision = self.revision(item.task_name());
                let now_ms = self.ports.clock.now_ms();
                let ask = self.claim_ask(item, "", now_ms, now_ms, false, &revision);
                // Only the message says why: the record belongs to somebody else, or cannot be written.
                let record = ask.refuse(ask.first(), &rejection).record;
                let letter = letter_without_record(&record, item.delivery.redrive_of, original(item));
                let Some(letter) = letter else { return Outcome::HandedBack(cause) };
                match self.ports.dead_letters.send(&letter).await {
                    Ok(()) => Outcome::DeadLettered(rejection.reason),
                    Err(error) => {
                        tracing::warn!(request_id = invocation.id, input_hash = %item.key, %error, "the dead letter was not sent");
                        Outcome::HandedBack(cause)
                    }
                }
            }
        }
    }

    /// After a panic the claim, if there was one, is still ours: count it, and hand the job back or give it up.
    pub(crate) async fn settle_panic(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        token: &str,
    ) -> Outcome {
        let revision = self.revision(item.task_name());
        let now_ms = self.ports.clock.now_ms();
        let limits = &self.deployment.limits;
        // A token of its own: under the claim's, whatever stands would be taken for this very write.
        let own_token = self.ports.entropy.token();
        let lease_until_ms = invocation.lease_until_ms;
        let ask = self.claim_ask(item, &own_token, now_ms, lease_until_ms, true, &revision);
        let unclaimed = |claim| after_panic_unclaimed(claim, now_ms, &revision, limits);
        let first = unclaimed(ask.first());
        let write = match self.ports.ledger.write(&first).await {
            Ok(WriteAnswer::Written) => {
                return self.after_panic_written(invocation, item, &first.record).await;
            }
            Ok(WriteAnswer::Refused(Some(standing))) if standing.token == token => match standing.state {
                State::Claimed { .. } => after_panic(&standing, now_ms, &revision, limits),
                State::Failed(_) => return self.bury(invocation, item, &standing).await,
                State::Open | State::Done(_) => {
                    return self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await;
                }
            },
            Ok(WriteAnswer::Refused(Some(standing))) => match ask.refused_by(&standing) {
                ClaimStep::TakeOver(claim) => unclaimed(*claim),
                ClaimStep::Fail(write) => *write,
                ClaimStep::AlreadyFailed(record) => return self.bury(invocation, item, &record).await,
                ClaimStep::AlreadyDone { .. } | ClaimStep::AlreadyRedriven => return Outcome::Duplicate,
                ClaimStep::HeldByOther { until_ms } => {
                    let at_least_ms = until_ms.saturating_sub(now_ms);
                    let cause = HandBackCause::HeldByOther;
                    return self.return_unclaimed(invocation, item, cause, at_least_ms).await;
                }
                ClaimStep::Held(_) | ClaimStep::RunAlone => {
                    return self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await;
                }
            },
            Ok(WriteAnswer::Refused(None)) => {
                return self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await;
            }
            Err(error) => {
                self.ledger_error(invocation, item, &error);
                return self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await;
            }
        };
        match self.ports.ledger.write(&write).await {
            Ok(WriteAnswer::Written) => self.after_panic_written(invocation, item, &write.record).await,
            Ok(WriteAnswer::Refused(_)) => {
                self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await
            }
            Err(error) => {
                self.ledger_error(invocation, item, &error);
                self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await
            }
        }
    }

    async fn after_panic_written(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        record: &Record,
    ) -> Outcome {
        match record.state {
            State::Failed(_) => self.bury(invocation, item, record).await,
            _ => self.return_unclaimed(invocation, item, HandBackCause::Panic, 0).await,
        }
    }

    fn decide_return(&self, item: &Item, cause: HandBackCause, at_least_ms: u64) -> HandBack {
        let now_ms = self.ports.clock.now_ms();
        let fraction = self.ports.entropy.fraction();
        hand_back(cause, at_least_ms, &item.delivery, now_ms, fraction, &self.deployment.limits)
    }

    /// If this fails, the message comes back after its visibility timeout: later than meant, and nothing else.
    async fn make_visible(&self, invocation: &Invocation<'_>, item: &Item, delay_s: u32) {
        if let Err(error) = self.ports.visibility.change(&item.message.receipt_handle, delay_s).await {
            tracing::warn!(request_id = invocation.id, input_hash = %item.key, %error, "the visibility was not changed");
        }
    }

    /// Counts the error, and says with which cause its message is handed back.
    fn ledger_error(&self, invocation: &Invocation<'_>, item: &Item, error: &PortError) -> HandBackCause {
        let unreadable = error.kind == PortErrorKind::Unreadable;
        invocation.numbers(|n| {
            n.add(item.task_name(), Metric::LedgerErrors, 1.0);
            if unreadable {
                n.add(item.task_name(), Metric::RecordsUnreadable, 1.0);
            }
        });
        tracing::warn!(request_id = invocation.id, input_hash = %item.key, task = item.task_name(), %error, "ledger error");
        if unreadable { HandBackCause::Unreadable } else { HandBackCause::Ledger }
    }

    fn count_reply(
        &self,
        invocation: &Invocation<'_>,
        item: &Item,
        work: Work<'_>,
        (reply, counted): (&ModelReply, &Counted),
        took_ms: u64,
    ) {
        invocation.numbers(|n| {
            n.add(item.task_name(), Metric::ModelCalls, 1.0);
            n.sample_ms(item.task_name(), Latency::ModelLatency, took_ms);
            n.usage(item.task_name(), counted.usage, counted.micro_usd);
        });
        let reserved_micro_usd = work.price.most_micro_usd();
        let odd = if !counted.as_reported {
            "the provider's count of tokens is missing or cannot be right: it counts as the most that it can be"
        } else if counted.micro_usd > reserved_micro_usd {
            "the provider counted more than a call can take by what was sent and allowed: it counts as billed"
        } else {
            return;
        };
        tracing::warn!(
            request_id = invocation.id, input_hash = %item.key, task = item.task_name(),
            provider_request_id = reply.request_id,
            reported_input_tokens = reply.usage.input_tokens, reported_output_tokens = reply.usage.output_tokens,
            input_tokens = counted.usage.input_tokens, output_tokens = counted.usage.output_tokens,
            cost_micro_usd = counted.micro_usd, reserved_micro_usd, "{odd}"
        );
    }

    fn count_failure(&self, invocation: &Invocation<'_>, item: &Item, failure: &ModelFailure) {
        let metric = match failure.class {
            FailureClass::Capacity => Metric::ModelThrottled,
            FailureClass::Account => Metric::AccountFailures,
            FailureClass::Transient
            | FailureClass::Rejected
            | FailureClass::Unclear
            | FailureClass::Refused => Metric::ModelErrors,
        };
        invocation.numbers(|n| {
            n.add(item.task_name(), Metric::ModelCalls, 1.0);
            n.add(item.task_name(), metric, 1.0);
        });
        tracing::warn!(
            request_id = invocation.id, input_hash = %item.key, task = item.task_name(), class = ?failure.class,
            status = failure.status, error_type = failure.error_type, provider_request_id = failure.request_id,
            "model call failed"
        );
    }

    fn measure_stored(&self, invocation: &Invocation<'_>, item: &Item, run: &JobRun) {
        let now_ms = self.ports.clock.now_ms();
        let task = item.task_name();
        invocation.numbers(|n| {
            n.sample_ms(task, Latency::JobLatency, now_ms.saturating_sub(run.record().first_received_ms));
            n.sample_ms(task, Latency::EndToEndLatency, now_ms.saturating_sub(item.message.sent_at_ms));
        });
    }
}

fn original(item: &Item) -> Original<'_> {
    let message = &item.message;
    Original { body: &message.body, message_id: &message.message_id, attributes: &message.attributes }
}

fn lost_claim() -> AfterCall {
    AfterCall::HandBack { cause: HandBackCause::LostClaim, at_least_ms: 0 }
}
