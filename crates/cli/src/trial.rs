//! Inputs against a model, here and now: the worker's own conversation, validation and adapter, without its ledger and
//! queue. Nothing is stored.
//!
//! **Invariant:** the calls of a trial never cost more than its cap: each reserves the most that it can cost before it is
//! made.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use nightshift_aws::OsEntropy;
use nightshift_aws::clients::SdkConfig;
use nightshift_core::blame::Evidence;
use nightshift_core::cost::usd;
use nightshift_core::input_hash::InputHash;
use nightshift_core::job::Job;
use nightshift_core::message::Delivery;
use nightshift_core::model::{Answer, ModelRequest};
use nightshift_core::next_step::{AfterCall, BeforeCall, ClaimAsk, JobRun, TimeLeft, Work};
use nightshift_core::output_validation::validate;
use nightshift_core::ready::Ready;
use nightshift_core::record::{Record, Revision};
use nightshift_ports::{Entropy as _, Model};
use nightshift_shell::model::connect;
use nightshift_shell::settings::StackSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::error::Failure;
use crate::stack::Worker;
use crate::times;

/// What became of one input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tried {
    /// The line of the file.
    pub line: u64,
    /// `passed`, `needs_review`, a reason of a dead letter, `handed_back`, or `over_cap`.
    pub outcome: String,
    /// Why, where it did not pass.
    pub detail: Option<String>,
    /// The validated output.
    pub output: Option<Value>,
    /// Instructions and input, as the model is given them first.
    pub prompt: String,
    /// What the model said, each time.
    pub answers: Vec<String>,
    /// What was wrong with these.
    pub violations: Vec<String>,
    /// Calls that were made.
    pub calls: u32,
    /// Tokens read.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Dollars.
    pub cost_usd: f64,
    /// Until it was settled, waits included.
    pub took_ms: u64,
}

/// A model, and what it is told.
pub struct Trial {
    /// As the worker would be.
    pub worker: Worker,
    model: Arc<dyn Model>,
    cap_micro_usd: u64,
    spent_micro_usd: Cell<u64>,
    /// Somebody was told that calls are repeated, and why.
    is_repeating_told: Cell<bool>,
    unsaid: Cell<Option<String>>,
}

impl Trial {
    /// Connects to the model that the settings name. `sdk` is for a key that is stored, and for Bedrock.
    ///
    /// # Errors
    /// When the settings name no model that can be called.
    pub fn new(
        settings: &HashMap<String, String>,
        region: &str,
        sdk: &SdkConfig,
        cap_micro_usd: u64,
    ) -> Result<Self, Failure> {
        let worker = Worker::read(settings)
            .map_err(|fault| Failure::usage(format!("There is no model to try: {fault}")))?;
        let place = StackSettings {
            name: settings.get("NIGHTSHIFT_STACK").cloned().unwrap_or_default(),
            region: region.to_owned(),
        };
        let (model, _) =
            connect(worker.model.clone(), &place, sdk, my_tasks::registry()).map_err(|error| {
                Failure::failed(format!("The model cannot be called with these settings: {error}."))
            })?;
        Ok(Self {
            worker,
            model,
            cap_micro_usd,
            spent_micro_usd: Cell::new(0),
            is_repeating_told: Cell::new(false),
            unsaid: Cell::new(None),
        })
    }

    /// The most that one job can cost, in millionths of a dollar: every call that its budgets allow.
    pub fn most_micro_usd(&self, ready: &Ready<'_>) -> u64 {
        let limits = &self.worker.limits;
        let calls = u64::from(limits.call_limit.min(limits.paid_call_limit));
        ready.price.most_micro_usd().saturating_mul(calls)
    }

    /// What was spent until now, in dollars.
    pub fn spent_usd(&self) -> f64 {
        usd(self.spent_micro_usd.get())
    }

    /// Works on a job as a worker would. The first call that is repeated is told.
    pub async fn run(&self, line: u64, job: &Job, ready: &Ready<'_>, tell: &dyn Fn(&str)) -> Tried {
        let began = Instant::now();
        let revision = Revision::default();
        let limits = &self.worker.limits;
        let now_ms = times::now_ms();
        let work = Work {
            task: ready.task,
            input: &job.input,
            limits,
            price: ready.price,
            model: &self.worker.model.id,
            revision: &revision,
            opened_at_ms: 0,
        };
        let mut run = JobRun::new(self.claimed(job, &revision, now_ms), &ready.prompt);
        let mut tried = Tried {
            line,
            outcome: String::new(),
            detail: None,
            output: None,
            prompt: format!("{}\n\n{}", ready.prompt.system, ready.prompt.user),
            answers: Vec::new(),
            violations: Vec::new(),
            calls: 0,
            input_tokens: 0,
            output_tokens: 0,
            cost_usd: 0.0,
            took_ms: 0,
        };
        let mut evidence = Evidence::default();
        let outcome = loop {
            let deadline_ms = limits.function_timeout_ms.saturating_sub(limits.deadline_margin_ms);
            let left_ms = deadline_ms.saturating_sub(millis(began));
            let time = TimeLeft { left_ms, usual_call_ms: 1 };
            let next = self.call(work, &mut run, ready, time, &mut evidence, &mut tried).await;
            match next {
                Some(AfterCall::CallAgain { delay_ms }) => {
                    if let Some(unsaid) = self.unsaid.take() {
                        tell(&unsaid);
                    }
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await
                }
                Some(AfterCall::Store { output, needs_review }) => {
                    match run.store(work, output.clone(), needs_review, now_ms) {
                        Ok(_) => {
                            tried.output = Some(output);
                            break if needs_review { "needs_review" } else { "passed" }.to_owned();
                        }
                        Err(rejection) => {
                            tried.detail = Some(rejection.detail);
                            break rejection.reason.to_string();
                        }
                    }
                }
                Some(AfterCall::HandBack { cause, .. }) => {
                    let why =
                        format!("A worker would hand it back and try again later ({}).", cause.as_str());
                    tried.detail.get_or_insert(why);
                    break "handed_back".to_owned();
                }
                Some(AfterCall::Fail(rejection)) => {
                    tried.detail = Some(rejection.detail);
                    break rejection.reason.to_string();
                }
                None => {
                    tried.detail =
                        Some("The next call could cost more than --cap leaves: raise it.".to_owned());
                    break "over_cap".to_owned();
                }
            }
        };
        let budget = run.budget();
        tried.outcome = outcome;
        tried.input_tokens = budget.usage.input_tokens;
        tried.output_tokens = budget.usage.output_tokens;
        tried.cost_usd = usd(budget.cost_micro_usd);
        tried.took_ms = millis(began);
        tried
    }

    /// The record that a worker would begin with.
    fn claimed(&self, job: &Job, revision: &Revision, now_ms: u64) -> Record {
        let delivery = Delivery {
            message_id: String::new(),
            sent_at_ms: now_ms,
            receive_count: 1,
            received_at_ms: now_ms,
            redrive_of: None,
        };
        let ask = ClaimAsk {
            key: &InputHash::of_job(&job.task, &job.input),
            task: Some(&job.task),
            reference: None,
            delivery: &delivery,
            token: "",
            now_ms,
            lease_until_ms: u64::MAX,
            alone: false,
            revision,
            limits: &self.worker.limits,
        };
        ask.first().record
    }

    /// One call; `None`: it could cost more than is left of the cap.
    async fn call(
        &self,
        work: Work<'_>,
        run: &mut JobRun,
        ready: &Ready<'_>,
        time: TimeLeft,
        evidence: &mut Evidence,
        tried: &mut Tried,
    ) -> Option<AfterCall> {
        let timeout_ms = match run.before_call(work, time) {
            BeforeCall::Call { timeout_ms, count_first } => {
                if let Some(write) = count_first {
                    run.written(write.record);
                }
                timeout_ms
            }
            BeforeCall::HandBack { cause, at_least_ms } => {
                return Some(AfterCall::HandBack { cause, at_least_ms });
            }
            BeforeCall::Fail(rejection) => return Some(AfterCall::Fail(rejection)),
        };
        let most = work.price.most_micro_usd();
        let reserved = self.spent_micro_usd.get().saturating_add(most);
        if reserved > self.cap_micro_usd {
            return None;
        }
        self.spent_micro_usd.set(reserved);
        let cost_instead = |micro_usd: u64| {
            self.spent_micro_usd
                .set(self.spent_micro_usd.get().saturating_sub(most).saturating_add(micro_usd));
        };
        let request = ModelRequest {
            system: ready.prompt.system.clone(),
            turns: run.turns(),
            schema_name: work.task.name().to_owned(),
            schema: Arc::clone(work.task.schema()),
            output_tokens_max: work.task.output_tokens_max(),
            timeout_ms,
        };
        tried.calls += 1;
        match self.model.call(&request).await {
            Ok(reply) => {
                cost_instead(work.price.count(&reply).micro_usd);
                if let Answer::Text(text) | Answer::Refused { text, .. } | Answer::Truncated { text, .. } =
                    &reply.answer
                {
                    tried.answers.push(text.clone());
                }
                if let Answer::Text(text) = &reply.answer
                    && let Err(violations) = validate(work.task, work.input, text)
                {
                    tried.violations.extend(violations.0);
                }
                Some(run.after_reply(work, &reply))
            }
            Err(failure) => {
                if !failure.may_be_billed() {
                    cost_instead(0);
                }
                let now_ms = times::now_ms();
                let failure = run.judged(work, failure, evidence, (now_ms, 0));
                let next = run.after_failure(work, &failure, now_ms, time, OsEntropy.fraction());
                if matches!(next, AfterCall::CallAgain { .. }) && !self.is_repeating_told.replace(true) {
                    self.unsaid.set(Some(format!(
                        "Line {}: {failure}. Such calls are repeated as a worker repeats them, for up to {} an input.",
                        tried.line,
                        times::length(work.limits.function_timeout_ms)
                    )));
                }
                if matches!(next, AfterCall::HandBack { .. }) {
                    tried.detail =
                        Some(format!("A worker would hand it back and try again later: {failure}."));
                }
                Some(next)
            }
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
