//! What must hold whatever happens to a job, in whatever order: a record is driven through random deliveries.

use nightshift_core::failure::FailureReason;
use nightshift_core::limits::{Limits, VISIBILITY_MS_MAX};
use nightshift_core::message::Delivery;
use nightshift_core::metric::HandBackCause;
use nightshift_core::model::{Answer, FailureClass, RetryAdvice, TokenLimit, Turn};
use nightshift_core::next_step::{
    AfterCall, BeforeCall, ClaimStep, HandBack, JobRun, PanicStep, Panicked, RECEIVES_KEPT, TimeLeft,
    hand_back,
};
use nightshift_core::record::{Budget, Record, RecordWrite, State};
use nightshift_core::retry::advised_wait_ms;
use proptest::prelude::*;
use serde_json::json;

use crate::support::*;

/// What happens next to the job, or to the worker that has it.
#[derive(Debug, Clone)]
enum Event {
    Failed {
        class: FailureClass,
        retry_after_s: Option<u32>,
        should_retry: Option<bool>,
    },
    Answered(Answer),
    /// Killed in mid-call.
    Killed,
    Panicked,
    /// Another worker claims, if it may: it believes that this much time has passed.
    Delivered {
        later_ms: u64,
        alone: bool,
        another_message: bool,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let class = prop_oneof![
        4 => Just(FailureClass::Capacity),
        4 => Just(FailureClass::Transient),
        1 => Just(FailureClass::Account),
        1 => Just(FailureClass::Rejected),
        1 => Just(FailureClass::Refused),
        2 => Just(FailureClass::Unclear),
    ];
    let answer = prop_oneof![
        2 => Just(text("{\"n\":7}")),
        6 => Just(text("{\"n\":12}")),
        2 => Just(text("")),
        1 => Just(Answer::Refused { why: "refusal".to_owned(), text: String::new() }),
        1 => Just(Answer::Truncated { text: "{".to_owned(), by: TokenLimit::Answer }),
        2 => Just(Answer::Unusable { why: "no text".to_owned() }),
    ];
    prop_oneof![
        6 => (class, proptest::option::of(0_u32..600), proptest::option::of(any::<bool>()))
            .prop_map(|(class, retry_after_s, should_retry)| Event::Failed { class, retry_after_s, should_retry }),
        6 => answer.prop_map(Event::Answered),
        2 => Just(Event::Killed),
        1 => Just(Event::Panicked),
        6 => (prop_oneof![Just(0_u64), Just(400_000)], any::<bool>(), any::<bool>())
            .prop_map(|(later_ms, alone, another_message)| Event::Delivered { later_ms, alone, another_message }),
    ]
}

/// The ledger's one record, whoever works on it, and what the provider may have billed since the last fresh start.
struct World {
    limits: Limits,
    now_ms: u64,
    standing: Option<Record>,
    run: Option<JobRun>,
    /// Claims that were lost or left: their writes must never take effect again.
    gone: Vec<JobRun>,
    paid: u32,
    claims: u32,
}

impl World {
    fn write(&mut self, write: &RecordWrite) -> Result<(), TestCaseError> {
        prop_assert!(write.allowed(self.standing.as_ref()), "{write:?} over {:?}", self.standing);
        if let Some(standing) = &self.standing {
            prop_assert_eq!(write.record.version, standing.version + 1, "each write raises the version");
        }
        prop_assert!(write.took_effect(&write.record));
        prop_assert!(!write.allowed(Some(&write.record)), "a repeat is seen as one");
        prop_assert!(
            write.record.budget.calls <= self.limits.paid_call_limit,
            "{} calls counted",
            write.record.budget.calls
        );
        prop_assert!(write.record.budget.calls >= self.paid, "the ledger knows of every paid call");
        prop_assert!(write.record.budget.reasks <= self.limits.reask_limit);
        prop_assert!(write.record.expires_at_ms > self.now_ms);
        self.standing = Some(write.record.clone());
        for gone in &self.gone {
            prop_assert!(!gone.release().allowed(self.standing.as_ref()), "a lost claim can still write");
        }
        Ok(())
    }

    fn claim(&mut self, alone: bool, another_message: bool) -> Result<(), TestCaseError> {
        self.claims += 1;
        let (key, revision, limits) = (key(), deployed(), self.limits.clone());
        let mut delivery = delivery();
        if another_message {
            delivery.message_id = format!("m-{}", self.claims + 1);
            delivery.sent_at_ms = self.now_ms;
        }
        let token = format!("token-{}", self.claims);
        let mut ask = ask(&key, &delivery, &revision, &limits);
        ask.token = &token;
        ask.now_ms = self.now_ms;
        ask.lease_until_ms = self.now_ms + 310 * SECOND;
        ask.alone = alone;
        let write = match &self.standing {
            None => ask.first(),
            Some(standing) => match ask.refused_by(standing) {
                ClaimStep::TakeOver(write) => {
                    if is_settled(standing) {
                        prop_assert!(another_message, "a redelivery never starts afresh");
                        self.paid = 0;
                    } else {
                        prop_assert!(
                            keeps(&standing.budget, &write.record.budget),
                            "a takeover loses budget"
                        );
                    }
                    *write
                }
                ClaimStep::Fail(write) => {
                    prop_assert!(!is_settled(standing), "only what was begun can fail at its claim");
                    self.drop_run();
                    return self.write(&write);
                }
                ClaimStep::HeldByOther { until_ms } => {
                    prop_assert!(until_ms > self.now_ms);
                    return Ok(());
                }
                ClaimStep::RunAlone => {
                    prop_assert!(!alone, "a suspect that is alone runs");
                    return Ok(());
                }
                ClaimStep::AlreadyDone { .. } | ClaimStep::AlreadyFailed(_) | ClaimStep::AlreadyRedriven => {
                    return Ok(());
                }
                ClaimStep::AlreadyErased => return Err(TestCaseError::fail("nobody erased it")),
                ClaimStep::Held(_) => return Err(TestCaseError::fail("a fresh token holds nothing")),
            },
        };
        self.drop_run();
        self.write(&write)?;
        self.run = Some(JobRun::new(write.record, &prompt()));
        Ok(())
    }

    fn drop_run(&mut self) {
        self.gone.extend(self.run.take());
    }

    fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        self.now_ms += SECOND;
        if let Event::Delivered { later_ms, alone, another_message } = event {
            self.now_ms += later_ms;
            return self.claim(alone, another_message);
        }
        let Some(mut run) = self.run.take() else { return Ok(()) };
        let (task, input, revision, limits) =
            (Digit::new(None), json!("seven"), deployed(), self.limits.clone());
        let work = work(&task, &input, &limits, &revision);
        let time = TimeLeft { left_ms: 200 * SECOND, usual_call_ms: 10 * SECOND };
        if let Event::Panicked = event {
            let (key, delivery) = (key(), delivery());
            let mut ask = ask(&key, &delivery, &revision, &limits);
            (ask.now_ms, ask.token) = (self.now_ms, "token-of-the-count");
            let panicked = Panicked { ask, claim_token: &run.record().token };
            let PanicStep::Count(write) = panicked.refused_by(Some(run.record())) else {
                return Err(TestCaseError::fail("a panic under a claim was not counted"));
            };
            self.gone.push(run);
            return self.write(&write);
        }
        match run.before_call(work, time) {
            BeforeCall::Call { timeout_ms, count_first } => {
                prop_assert!(timeout_ms <= time.left_ms && timeout_ms <= limits.call_timeout_ms);
                if let Some(write) = count_first {
                    self.write(&write)?;
                    run.written(write.record);
                }
            }
            BeforeCall::HandBack { .. } => return Err(TestCaseError::fail("there was time")),
            BeforeCall::Fail(_) => return Err(TestCaseError::fail("the claim should have failed it")),
        }
        prop_assert!(self.paid < limits.paid_call_limit, "a call beyond the paid ones");
        let before = *run.budget();
        let after = match event {
            Event::Delivered { .. } | Event::Panicked => return Ok(()),
            Event::Killed => {
                self.paid += 1;
                self.gone.push(run);
                return Ok(());
            }
            Event::Failed { class, retry_after_s, should_retry } => {
                let mut failure = failure(class);
                failure.advice = RetryAdvice {
                    retry_after: retry_after_s.map(|s| s.to_string()),
                    should_retry,
                    ..RetryAdvice::default()
                };
                if matches!(class, FailureClass::Transient | FailureClass::Rejected | FailureClass::Refused)
                    || (class == FailureClass::Unclear && should_retry == Some(true))
                {
                    self.paid += 1;
                }
                let after = run.after_failure(work, &failure, self.now_ms, time, 0.5);
                let advised_ms = advised_wait_ms(&failure.advice, self.now_ms).unwrap_or(0);
                match &after {
                    AfterCall::CallAgain { delay_ms } => {
                        prop_assert!(*delay_ms >= advised_ms, "the provider's word was shortened");
                        prop_assert!(delay_ms + time.usual_call_ms <= time.left_ms, "it cannot finish");
                        prop_assert!(should_retry != Some(false));
                        let told = should_retry == Some(true);
                        let allowed = match class {
                            FailureClass::Capacity | FailureClass::Transient => true,
                            FailureClass::Rejected | FailureClass::Unclear => told,
                            FailureClass::Account | FailureClass::Refused => false,
                        };
                        prop_assert!(allowed, "{class:?} was called again");
                    }
                    AfterCall::HandBack { at_least_ms, .. } => {
                        // The last call waits until an outage would have been seen.
                        let floor_ms = advised_ms.max(150_000);
                        prop_assert!(*at_least_ms == advised_ms || *at_least_ms == floor_ms);
                    }
                    AfterCall::Fail(_) => {
                        prop_assert_ne!(class, FailureClass::Account, "an account failure is no job's fault");
                    }
                    AfterCall::Store { .. } => return Err(TestCaseError::fail("nothing was answered")),
                }
                after
            }
            Event::Answered(answer) => {
                self.paid += 1;
                let is_result = answer == text("{\"n\":7}");
                let after = run.after_reply(work, &reply(answer));
                prop_assert_eq!(matches!(after, AfterCall::Store { .. }), is_result);
                after
            }
        };
        prop_assert!(keeps(&before, run.budget()), "a call loses budget: {before:?} {:?}", run.budget());
        let turns = run.turns();
        prop_assert!(
            matches!(turns.first(), Some(Turn::User(_))) && matches!(turns.last(), Some(Turn::User(_)))
        );
        prop_assert!(turns.len() == 1 || turns.len() == 3, "the conversation does not grow");
        match after {
            AfterCall::CallAgain { .. } => self.run = Some(run),
            AfterCall::HandBack { .. } => {
                let release = run.release();
                prop_assert_eq!(&release.record.budget, run.budget(), "a release keeps the budget");
                self.write(&release)?;
                self.gone.push(run);
            }
            AfterCall::Store { output, needs_review } => {
                let write = run.store(work, output, needs_review, self.now_ms);
                self.write(&write.map_err(|r| TestCaseError::fail(r.to_string()))?)?;
                self.gone.push(run);
            }
            AfterCall::Fail(rejection) => {
                self.write(&run.fail(&rejection, self.now_ms, &revision, &limits))?;
                self.gone.push(run);
            }
        }
        Ok(())
    }
}

fn is_settled(record: &Record) -> bool {
    matches!(record.state, State::Done(_) | State::Failed(_))
}

/// Nothing of what was used is forgotten. Calls are compared as they are known: the ledger counts one in advance.
fn keeps(before: &Budget, after: &Budget) -> bool {
    after.claims >= before.claims
        && after.calls >= before.calls
        && after.reasks >= before.reasks
        && after.crashes >= before.crashes
        && after.usage.input_tokens >= before.usage.input_tokens
        && after.usage.output_tokens >= before.usage.output_tokens
        && after.cost_micro_usd >= before.cost_micro_usd
}

fn cause() -> impl Strategy<Value = HandBackCause> {
    use HandBackCause::*;
    prop_oneof![
        Just(Capacity),
        Just(CallFailed),
        Just(Account),
        Just(Paused),
        Just(SpendCap),
        Just(HeldByOther),
        Just(Deadline),
        Just(Suspect),
        Just(Ledger),
        Just(Unreadable),
        Just(DeadLetterUnsent),
        Just(LostClaim),
        Just(Panic),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn budgets_fences_and_versions_hold_whatever_happens(
        events in proptest::collection::vec(event(), 1..60),
        paid_call_limit in 3_u32..8,
        call_limit in 1_u32..6,
    ) {
        let limits = Limits { paid_call_limit, call_limit, ..Limits::default() };
        let mut world = World {
            limits,
            now_ms: NOW,
            standing: None,
            run: None,
            gone: Vec::new(),
            paid: 0,
            claims: 0,
        };
        world.claim(true, false)?;
        for event in events {
            world.step(event)?;
        }
        // When nothing goes wrong any more, the job ends.
        world.now_ms += HOUR;
        world.claim(true, false)?;
        if world.run.is_some() {
            world.step(Event::Answered(text("{\"n\":7}")))?;
        }
        let ended = world.standing.map(|record| record.state);
        prop_assert!(matches!(ended, Some(State::Done(_) | State::Failed(_))), "{ended:?}");
    }

    #[test]
    fn a_message_is_never_hidden_beyond_what_sqs_allows(
        cause in cause(),
        at_least_ms in prop_oneof![Just(0_u64), any::<u64>(), 0_u64..100_000_000],
        receive_count in 0_u32..150,
        sent_ago_ms in 0_u64..(8 * DAY),
        held_ms in 0_u64..(13 * HOUR),
        fraction in 0.0_f64..1.0,
    ) {
        let limits = Limits::default();
        let delivery = Delivery {
            message_id: "m-1".to_owned(),
            sent_at_ms: NOW - sent_ago_ms,
            receive_count,
            received_at_ms: NOW - held_ms,
            redrive_of: None,
        };
        match hand_back(cause, at_least_ms, &delivery, NOW, fraction, &limits) {
            HandBack::Return { delay_s } => {
                let delay_ms = u64::from(delay_s) * SECOND;
                prop_assert!(delay_s <= 43_200);
                prop_assert!(delay_ms + held_ms <= VISIBILITY_MS_MAX.max(held_ms), "SQS counts from the receive");
                prop_assert!(receive_count + 1 < limits.receive_count_max, "SQS would move it away");
                prop_assert!(sent_ago_ms + delay_ms < limits.retention_ms, "SQS would delete it");
                let floor_ms = at_least_ms.min((VISIBILITY_MS_MAX - 60 * SECOND).saturating_sub(held_ms));
                prop_assert!(delay_ms >= floor_ms, "sooner than the provider asked");
            }
            HandBack::GiveUp(rejection) => {
                let nobodys_fault = matches!(
                    cause,
                    HandBackCause::Capacity | HandBackCause::Account | HandBackCause::Paused | HandBackCause::SpendCap
                );
                prop_assert_eq!(nobodys_fault, rejection.reason == FailureReason::CapacityTimeout);
                let soon_moved = receive_count + RECEIVES_KEPT >= limits.receive_count_max;
                let soon_deleted = sent_ago_ms + VISIBILITY_MS_MAX + 2 * limits.visibility_timeout_ms
                    >= limits.retention_ms;
                prop_assert!(soon_moved || soon_deleted, "given up with time to spare");
            }
        }
    }
}
