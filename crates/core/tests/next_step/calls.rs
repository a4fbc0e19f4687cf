//! Before a call, after one that failed, after one that was answered.

use nightshift_core::blame::{Evidence, Refusals};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{
    Answer, FailureClass, ModelFailure, ModelReply, Oversize, ReportedUsage, RetryAdvice, SizeUnit,
    TokenLimit, Turn,
};
use nightshift_core::next_step::{AfterCall, BeforeCall, JobRun, TimeLeft, UNSURE_WHOSE_FAULT, Work};
use nightshift_core::record::{Budget, Record};
use serde_json::{Value, json};

use crate::support::*;

const PLENTY: TimeLeft = TimeLeft { left_ms: 290_000, usual_call_ms: 10_000 };

fn used(calls: u32, reasks: u32) -> Budget {
    Budget { claims: 1, calls, reasks, ..Budget::default() }
}

// ---------------------------------------------------------------------------------------------------------------
// Before

fn check_before(run: &JobRun, time: TimeLeft, expected: &str) {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    assert_eq!(show_before(&run.before_call(work(&task, &input, &limits, &revision), time)), expected);
}

#[test]
fn a_call_is_begun_only_if_it_can_usually_finish() {
    let run = fresh_run(&Limits::default());
    for (left_ms, usual_call_ms, expected) in [
        (290_000, 10_000, "call within 120000"),
        (120_001, 10_000, "call within 120000"),
        (119_999, 10_000, "call within 119999"),
        (10_000, 10_000, "call within 10000"),
        (9_999, 10_000, "hand back deadline 0"),
        (1, 0, "call within 1"),
        (0, 0, "hand back deadline 0"),
        (0, 10_000, "hand back deadline 0"),
    ] {
        check_before(&run, TimeLeft { left_ms, usual_call_ms }, expected);
    }
}

#[test]
fn every_call_after_the_first_is_counted_in_the_ledger_before_it_is_made() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let mut run = fresh_run(&limits);
    check_before(&run, PLENTY, "call within 120000");
    run.after_failure(work, &failure(FailureClass::Transient), NOW, PLENTY, 0.0);
    check_before(
        &run,
        PLENTY,
        "write claimed v2 if Fence: claims 1 calls 2 reasks 0 crashes 0, call within 120000",
    );
    let BeforeCall::Call { count_first: Some(write), .. } = run.before_call(work, PLENTY) else {
        panic!("not counted")
    };
    run.written(write.record);
    check_before(&run, PLENTY, "call within 120000");
    // What was told to wait was not billed, so that the count in the ledger is still that of the next call.
    run.after_failure(work, &failure(FailureClass::Capacity), NOW, PLENTY, 0.0);
    check_before(&run, PLENTY, "call within 120000");
    run.after_reply(work, &reply(text("no JSON")));
    check_before(
        &run,
        PLENTY,
        "write claimed v3 if Fence: claims 1 calls 3 reasks 1 crashes 0, call within 120000",
    );
}

#[test]
fn no_call_is_made_beyond_the_paid_ones() {
    for (calls, expected) in [
        (0, "call within 120000"),
        (5, "call within 120000"),
        (6, "fail attempts_exhausted"),
        (7, "fail attempts_exhausted"),
    ] {
        check_before(&run_with(&Limits::default(), used(calls, 0)), PLENTY, expected);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// After a call that failed

/// One row of `check_failure`.
struct Failed {
    class: FailureClass,
    used: Budget,
    /// Calls of this claim that failed before, each for want of capacity.
    failed_before: u32,
    advice: RetryAdvice,
    time: TimeLeft,
    fraction: f64,
}

fn after(class: FailureClass) -> Failed {
    Failed {
        class,
        used: used(0, 0),
        failed_before: 0,
        advice: RetryAdvice::default(),
        time: PLENTY,
        fraction: 0.5,
    }
}

fn check_failure(case: Failed, expected: &str) {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let mut run = run_with(&limits, case.used);
    for _ in 0..case.failed_before {
        let step = run.after_failure(work, &failure(FailureClass::Capacity), NOW, PLENTY, 0.0);
        assert!(matches!(step, AfterCall::CallAgain { .. } | AfterCall::HandBack { .. }));
    }
    let mut failure = failure(case.class);
    failure.advice = case.advice;
    let step = run.after_failure(work, &failure, NOW, case.time, case.fraction);
    assert_eq!(format!("{}; {}", show_after(&step), show_budget(run.budget())), expected);
}

fn retry_after(seconds: &str) -> RetryAdvice {
    RetryAdvice { retry_after: Some(seconds.to_owned()), ..RetryAdvice::default() }
}

fn should_retry(flag: bool) -> RetryAdvice {
    RetryAdvice { should_retry: Some(flag), ..RetryAdvice::default() }
}

use FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};

#[test]
fn each_class_of_failure_has_its_own_consequence() {
    check_failure(after(Capacity), "call again in 500; claims 1 calls 0 reasks 0 crashes 0 waiting 0 s");
    check_failure(after(Transient), "call again in 500; claims 1 calls 1 reasks 0 crashes 0");
    check_failure(after(Account), "hand back account 0; claims 1 calls 0 reasks 0 crashes 0");
    check_failure(after(Rejected), "fail request_rejected; claims 1 calls 1 reasks 0 crashes 0");
    check_failure(after(Refused), "fail refused; claims 1 calls 1 reasks 0 crashes 0");
    check_failure(after(Unclear), "hand back call_failed 0; claims 1 calls 0 reasks 0 crashes 0");
}

#[test]
fn what_was_refused_is_counted_on_the_record_until_it_is_cleared_or_answered() {
    let limits = Limits::default();
    let mut evidence = Evidence::default();
    let mut run = fresh_run(&limits);
    let unclear = || ModelFailure { status: Some(400), ..failure(Unclear) };
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    for times in 1..=5 {
        let judged = run.judged(work, unclear(), &mut evidence, (NOW + times, 0));
        let refusals = Refusals { times: u32::try_from(times).unwrap(), since_ms: NOW + 1 };
        assert_eq!(run.release().record.budget.refusals, Some(refusals));
        let expected = if times < 5 { Unclear } else { Rejected };
        assert_eq!(judged.class, expected, "{times}");
    }
    let rejected = ModelFailure { class: Rejected, ..unclear() };
    let AfterCall::Fail(rejection) = run.after_failure(work, &rejected, NOW, PLENTY, 0.0) else {
        panic!("it is given up");
    };
    assert!(rejection.detail.starts_with(UNSURE_WHOSE_FAULT), "{}", rejection.detail);
    run.after_reply(work, &reply(text("no")));
    assert_eq!(run.budget().refusals, None, "answered");
}

#[test]
fn refusals_of_calls_that_were_on_their_way_beside_the_first_say_no_more_than_it_does() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    for (began_before_the_first_ended, is_everybody) in [(false, true), (true, false)] {
        let mut evidence = Evidence::default();
        let refused = [0, 1_000, 2_000].map(|later_ms| {
            let record = Record { key: InputHash::of_body(&later_ms.to_string()), ..first_claim(&limits) };
            let mut run = JobRun::new(record, &prompt());
            let took_ms = if began_before_the_first_ended { later_ms + 500 } else { 500 };
            let _ = run.judged(work, failure(Account), &mut evidence, (NOW + later_ms, took_ms));
            run.account_is_refused()
        });
        assert_eq!(refused, [false, false, is_everybody], "{began_before_the_first_ended}");
    }
}

#[test]
fn a_wait_that_no_job_may_take_for_capacity_is_for_a_plan_that_is_used_up() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let half_a_day_s = limits.capacity_wait_ms_max / 1_000;
    for (class, wait_s, expected) in [
        (Capacity, half_a_day_s, Capacity),
        (Capacity, half_a_day_s + 1, Account),
        (Capacity, 504_641, Account),
        (Transient, 504_641, Transient),
    ] {
        let failure = ModelFailure { advice: retry_after(&wait_s.to_string()), ..failure(class) };
        let judged = fresh_run(&limits).judged(work, failure, &mut Evidence::default(), (NOW, 0));
        assert_eq!(judged.class, expected, "{class:?} {wait_s} s");
    }
}

#[test]
fn an_account_failure_is_one_call_per_delivery_whatever_the_provider_advises() {
    for (advice, at_least_ms) in [(should_retry(true), 0), (retry_after("7"), 7_000)] {
        check_failure(
            Failed { advice, ..after(Account) },
            &format!("hand back account {at_least_ms}; claims 1 calls 0 reasks 0 crashes 0"),
        );
    }
}

#[test]
fn a_rejection_is_final_unless_the_provider_says_otherwise() {
    for (advice, expected) in [
        (retry_after("7"), "fail request_rejected"),
        (should_retry(false), "fail request_rejected"),
        (should_retry(true), "call again in 500"),
    ] {
        check_failure(
            Failed { advice, ..after(Rejected) },
            &format!("{expected}; claims 1 calls 1 reasks 0 crashes 0"),
        );
    }
}

#[test]
fn the_wait_doubles_and_stops_at_the_calls_of_a_claim() {
    for (failed_before, expected) in [
        (0, "call again in 1000"),
        (1, "call again in 2000"),
        (2, "call again in 4000"),
        (3, "call again in 8000"),
        (4, "hand back capacity 0"),
        (5, "hand back capacity 0"),
    ] {
        check_failure(
            Failed { failed_before, fraction: 1.0, ..after(Capacity) },
            &format!("{expected}; claims 1 calls 0 reasks 0 crashes 0 waiting 0 s"),
        );
    }
}

#[test]
fn transient_failures_spend_the_jobs_paid_calls_and_then_it_fails() {
    for (calls, expected) in [
        (0, "call again in 500; claims 1 calls 1 reasks 0 crashes 0"),
        (3, "call again in 500; claims 1 calls 4 reasks 0 crashes 0"),
        // The last one waits until an outage would have been seen.
        (4, "hand back call_failed 150000; claims 1 calls 5 reasks 0 crashes 0"),
        (5, "fail attempts_exhausted; claims 1 calls 6 reasks 0 crashes 0"),
        (6, "fail attempts_exhausted; claims 1 calls 7 reasks 0 crashes 0"),
    ] {
        check_failure(Failed { used: used(calls, 0), ..after(Transient) }, expected);
    }
    check_failure(
        Failed { used: used(5, 0), ..after(Capacity) },
        "call again in 500; claims 1 calls 5 reasks 0 crashes 0 waiting 0 s",
    );
}

#[test]
fn the_last_call_waits_no_longer_than_hand_backs_may_take_and_no_shorter_than_the_provider_says() {
    for (hand_back_ms_max, advice, expected) in [
        (900_000, None, 150_000),
        (20_000, None, 20_000),
        (900_000, Some("600"), 600_000),
        (20_000, Some("60"), 60_000),
    ] {
        let limits = Limits { hand_back_ms_max, ..Limits::default() };
        let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
        let mut run = run_with(&limits, used(4, 0));
        let mut failure = failure(Transient);
        failure.advice = advice.map_or_else(RetryAdvice::default, retry_after);
        let step = run.after_failure(work(&task, &input, &limits, &revision), &failure, NOW, PLENTY, 0.5);
        let expected = AfterCall::HandBack { cause: HandBackCause::CallFailed, at_least_ms: expected };
        assert_eq!(step, expected, "{hand_back_ms_max} ms, {advice:?}");
    }
}

/// It is in the account's hands meanwhile, and no time in them says anything of capacity.
#[test]
fn a_refusal_for_the_account_ends_the_wait_for_capacity() {
    let waiting = Budget { waiting_since_ms: Some(NOW - 1_000), ..used(0, 0) };
    check_failure(
        Failed { used: waiting, ..after(Account) },
        "hand back account 0; claims 1 calls 0 reasks 0 crashes 0",
    );
}

#[test]
fn the_providers_word_is_a_floor_and_never_shortened() {
    for (advice, fraction, expected) in [
        (retry_after("20"), 0.0, "call again in 20000"),
        (retry_after("20"), 1.0, "call again in 20000"),
        (retry_after("0"), 0.5, "call again in 500"),
        (retry_after("0.1"), 1.0, "call again in 1000"),
        (retry_after("nonsense"), 0.5, "call again in 500"),
        (retry_after("280"), 0.5, "call again in 280000"),
        (retry_after("281"), 0.5, "hand back capacity 281000"),
        (retry_after("86400"), 0.5, "hand back capacity 86400000"),
    ] {
        check_failure(
            Failed { advice, fraction, ..after(Capacity) },
            &format!("{expected}; claims 1 calls 0 reasks 0 crashes 0 waiting 0 s"),
        );
    }
}

#[test]
fn a_wait_that_does_not_fit_is_handed_back_and_not_slept() {
    for (left_ms, usual_call_ms, expected) in [
        (10_500, 10_000, "call again in 500; claims 1 calls 1 reasks 0 crashes 0"),
        (10_499, 10_000, "hand back call_failed 0; claims 1 calls 1 reasks 0 crashes 0"),
        (501, 0, "call again in 500; claims 1 calls 1 reasks 0 crashes 0"),
        (500, 0, "hand back call_failed 0; claims 1 calls 1 reasks 0 crashes 0"),
    ] {
        check_failure(Failed { time: TimeLeft { left_ms, usual_call_ms }, ..after(Transient) }, expected);
    }
}

#[test]
fn should_retry_wins_over_the_status() {
    check_failure(
        Failed { advice: should_retry(false), ..after(Capacity) },
        "hand back capacity 0; claims 1 calls 0 reasks 0 crashes 0 waiting 0 s",
    );
    check_failure(
        Failed { advice: should_retry(false), ..after(Transient) },
        "hand back call_failed 0; claims 1 calls 1 reasks 0 crashes 0",
    );
    check_failure(
        Failed { advice: should_retry(true), ..after(Transient) },
        "call again in 500; claims 1 calls 1 reasks 0 crashes 0",
    );
    check_failure(
        Failed { advice: should_retry(true), failed_before: 4, ..after(Capacity) },
        "hand back capacity 0; claims 1 calls 0 reasks 0 crashes 0 waiting 0 s",
    );
}

#[test]
fn a_job_waits_for_capacity_as_long_as_it_may_and_no_longer() {
    let waiting = |since_ms| Budget { waiting_since_ms: Some(since_ms), claims: 60, ..used(2, 0) };
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    for (waiting_since_ms, sent_at_ms, expected) in [
        (NOW - 12 * HOUR, NOW - DAY, "call again in 500"),
        (NOW - 12 * HOUR - 1, NOW - DAY, "fail capacity_timeout"),
        // What was sent again has not waited before it was sent.
        (NOW - DAY, NOW - HOUR, "call again in 500"),
        (NOW - DAY, NOW - 12 * HOUR - 1, "fail capacity_timeout"),
        // A clock that ran ahead elsewhere is no reason to fail.
        (NOW + HOUR, NOW - DAY, "call again in 500"),
        (NOW - DAY, NOW + HOUR, "call again in 500"),
    ] {
        let mut record = first_claim(&limits);
        record.sent_at_ms = sent_at_ms;
        record.budget = Budget { calls: 3, ..waiting(waiting_since_ms) };
        let mut run = JobRun::new(record, &prompt());
        let step = run.after_failure(work, &failure(Capacity), NOW, PLENTY, 0.5);
        assert_eq!(show_after(&step), expected, "waiting since {waiting_since_ms}, sent {sent_at_ms}");
        assert_eq!(run.budget().calls, 2, "waiting spends no attempt");
        assert_eq!(run.budget().waiting_since_ms, Some(waiting_since_ms), "the wait began then");
    }
    // Nor has what waited through a pause: its wait begins anew when the way is opened.
    for (opened_at_ms, expected) in [
        (NOW - DAY - 1, "fail capacity_timeout"),
        (NOW - 12 * HOUR - 1, "fail capacity_timeout"),
        (NOW - 12 * HOUR, "call again in 500"),
        (NOW, "call again in 500"),
        (NOW + HOUR, "call again in 500"),
    ] {
        let mut record = first_claim(&limits);
        record.sent_at_ms = NOW - DAY;
        record.budget = waiting(NOW - DAY);
        let step = JobRun::new(record, &prompt()).after_failure(
            Work { opened_at_ms, ..work },
            &failure(Capacity),
            NOW,
            PLENTY,
            0.5,
        );
        assert_eq!(show_after(&step), expected, "opened {opened_at_ms}");
    }
    // A job that was hardly ever worked on waited for something else: for money, or for its turn.
    for (claims, advice, expected) in [
        (13, None, "fail capacity_timeout"),
        (12, None, "call again in 500"),
        (1, None, "call again in 500"),
        // Where the provider itself says to stay away for so long, few claims are enough.
        (3, Some("21600"), "fail capacity_timeout"),
        (2, Some("21600"), "hand back capacity 21600000"),
    ] {
        let mut record = first_claim(&limits);
        record.sent_at_ms = NOW - DAY;
        record.budget = Budget { claims, ..waiting(NOW - 12 * HOUR - 1) };
        let mut failure = failure(Capacity);
        failure.advice = advice.map_or_else(RetryAdvice::default, retry_after);
        let step = JobRun::new(record, &prompt()).after_failure(work, &failure, NOW, PLENTY, 0.5);
        assert_eq!(show_after(&step), expected, "{claims} claims, {advice:?}");
    }
    // Any other failure is no answer, so the wait goes on; an answer ends it.
    let mut run = run_with(&limits, waiting(NOW - HOUR));
    run.after_failure(work, &failure(Transient), NOW, PLENTY, 0.5);
    assert_eq!(run.budget().waiting_since_ms, Some(NOW - HOUR));
    run.after_reply(work, &reply(text("no JSON")));
    assert_eq!(run.budget().waiting_since_ms, None);
}

// ---------------------------------------------------------------------------------------------------------------
// After an answer

fn check_reply(task: &Digit, before: Budget, answer: Answer, expected: &str) -> JobRun {
    let limits = Limits::default();
    let (input, revision) = (json!("seven"), deployed());
    let mut run = run_with(&limits, before);
    let step = run.after_reply(work(task, &input, &limits, &revision), &reply(answer));
    assert_eq!(format!("{}; {}", show_after(&step), show_budget(run.budget())), expected);
    run
}

fn refused() -> Answer {
    Answer::Refused { why: "refusal".to_owned(), text: "{\"n\":1}".to_owned() }
}

fn truncated() -> Answer {
    Answer::Truncated { text: "{\"n\":1}".to_owned(), by: TokenLimit::Answer }
}

fn unusable() -> Answer {
    Answer::Unusable { why: "no text".to_owned() }
}

#[test]
fn each_kind_of_answer_has_its_own_consequence() {
    let task = Digit::new(None);
    for (answer, expected) in [
        (text("{\"n\":7}"), "store {\"n\":7}; claims 1 calls 1 reasks 0 crashes 0"),
        (text("Sure: {\"n\":7}"), "store {\"n\":7}; claims 1 calls 1 reasks 0 crashes 0"),
        (text("{\"n\":12}"), "call again in 0; claims 1 calls 1 reasks 1 crashes 0"),
        (text("{\"n\":7"), "call again in 0; claims 1 calls 1 reasks 1 crashes 0"),
        (text(""), "call again in 0; claims 1 calls 1 reasks 1 crashes 0"),
        (unusable(), "call again in 0; claims 1 calls 1 reasks 1 crashes 0"),
        // These hold a valid object, and it is not a result.
        (refused(), "fail refused; claims 1 calls 1 reasks 0 crashes 0"),
        (truncated(), "fail truncated; claims 1 calls 1 reasks 0 crashes 0"),
    ] {
        check_reply(&task, used(0, 0), answer, expected);
    }
}

#[test]
fn an_invalid_answer_is_asked_again_inside_every_budget() {
    let task = Digit::new(None);
    for (calls, reasks, expected) in [
        (0, 0, "call again in 0; claims 1 calls 1 reasks 1 crashes 0"),
        (0, 1, "call again in 0; claims 1 calls 1 reasks 2 crashes 0"),
        (0, 2, "fail invalid_output; claims 1 calls 1 reasks 2 crashes 0"),
        (4, 0, "call again in 0; claims 1 calls 5 reasks 1 crashes 0"),
        (5, 0, "fail invalid_output; claims 1 calls 6 reasks 0 crashes 0"),
    ] {
        for answer in [text("{\"n\":12}"), text("no"), unusable()] {
            check_reply(&task, used(calls, reasks), answer, expected);
        }
    }
    // The calls of this claim count too, those that were told to wait included.
    let limits = Limits::default();
    let (input, revision) = (json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let mut run = fresh_run(&limits);
    for _ in 0..4 {
        run.after_failure(work, &failure(Capacity), NOW, PLENTY, 0.0);
    }
    assert_eq!(show_after(&run.after_reply(work, &reply(text("no")))), "fail invalid_output");
}

#[test]
fn what_is_still_invalid_becomes_the_tasks_fallback_if_that_is_valid() {
    for (fallback, expected) in [
        (Some(json!({"n": 0})), "store {\"n\":0} for review; claims 1 calls 6 reasks 0 crashes 0"),
        (Some(json!({"n": 12})), "fail invalid_output; claims 1 calls 6 reasks 0 crashes 0"),
        (None, "fail invalid_output; claims 1 calls 6 reasks 0 crashes 0"),
    ] {
        check_reply(&Digit::new(fallback), used(5, 0), text("{\"n\":12}"), expected);
    }
    // A refusal or a truncation is no invalid answer: no fallback hides it.
    let task = Digit::new(Some(json!({"n": 0})));
    check_reply(&task, used(5, 0), refused(), "fail refused; claims 1 calls 6 reasks 0 crashes 0");
    check_reply(&task, used(5, 0), truncated(), "fail truncated; claims 1 calls 6 reasks 0 crashes 0");
}

#[test]
fn a_reask_shows_the_answer_and_what_is_wrong_with_it_and_nothing_older() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let mut run = fresh_run(&limits);
    assert_eq!(run.turns(), [Turn::User("seven".to_owned())]);
    let told = "Your answer was not accepted, for these reasons:\n- The member n must be a digit.\n\
                Answer again: the whole JSON object, corrected, and nothing before or after it.";
    for said in ["{\"n\":12}", "{\"n\":13}"] {
        run.after_reply(work, &reply(text(said)));
        assert_eq!(
            run.turns(),
            [Turn::User("seven".to_owned()), Turn::Assistant(said.to_owned()), Turn::User(told.to_owned())]
        );
    }
    // Providers refuse empty turns: what is wrong stands behind the prompt then.
    for empty in [text(""), text(" \n"), unusable()] {
        let mut run = fresh_run(&limits);
        run.after_reply(work, &reply(empty));
        let [Turn::User(asked)] = &run.turns()[..] else { panic!("{:?}", run.turns()) };
        assert!(asked.starts_with("seven\n\nYour answer was not accepted"), "{asked}");
    }
}

#[test]
fn nothing_that_was_answered_is_asked_again_word_for_word() {
    let limits = Limits { reask_limit: 9, paid_call_limit: 20, call_limit: 20, ..Limits::default() };
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let (twelve, thirteen) = (|| text("{\"n\":12}"), || text("{\"n\":13}"));
    for (answers, asked) in [
        // The same silence: asked again once, with what was wrong behind the prompt.
        (vec![unusable(); 3], 2),
        (vec![text(""); 3], 2),
        (vec![unusable(), Answer::Unusable { why: "a list".to_owned() }, unusable()], 3),
        // The same answer: shown to the model once, then only told of.
        (vec![twelve(); 4], 3),
        (vec![twelve(), thirteen(), twelve(), thirteen(), twelve()], 4),
        (vec![twelve(), unusable(), twelve(), unusable()], 4),
    ] {
        let mut run = fresh_run(&limits);
        let mut requests = vec![run.turns()];
        let mut given = answers.iter();
        let rejection = loop {
            let next = given.next().unwrap_or_else(|| panic!("{answers:?}: still asked, after {requests:?}"));
            match run.after_reply(work, &reply(next.clone())) {
                AfterCall::CallAgain { .. } => {
                    // A failure in between is no answer: the same is asked again.
                    run.after_failure(work, &failure(Transient), NOW, PLENTY, 0.0);
                    assert!(!requests.contains(&run.turns()), "{answers:?}: {:?}", run.turns());
                    requests.push(run.turns());
                }
                AfterCall::Fail(rejection) => break rejection,
                other => panic!("{answers:?}: {other:?}"),
            }
        };
        assert_eq!(requests.len(), asked, "{answers:?}");
        let bytes = |turns: &Vec<Turn>| -> usize {
            turns
                .iter()
                .map(|turn| match turn {
                    Turn::User(text) | Turn::Assistant(text) => text.len(),
                })
                .sum()
        };
        assert!(requests.iter().all(|turns| bytes(turns) < 400), "they do not grow: {requests:?}");
        assert_eq!(rejection.reason, FailureReason::InvalidOutput);
        assert!(rejection.detail.contains("asking again would repeat a request"), "{}", rejection.detail);
    }
    // A task with a fallback has it then.
    let careful = Digit::new(Some(json!({"n": 0})));
    let work = Work { task: &careful, ..work };
    let mut run = fresh_run(&limits);
    run.after_reply(work, &reply(unusable()));
    let step = run.after_reply(work, &reply(unusable()));
    assert_eq!(show_after(&step), "store {\"n\":0} for review");
}

#[test]
fn an_answer_that_was_cut_off_says_which_limit_it_met() {
    let (limits, task) = (Limits::default(), Digit::new(None));
    let (input, revision) = (json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let full = "Prompt and answer fill the model's context";
    let limit = "cut off by the task's limit of 64 tokens (OUTPUT_TOKENS_MAX): raise it";
    let either = "the provider does not count its tokens";
    for (by, said, written, expected) in [
        (TokenLimit::Answer, "{", Some(64), limit),
        // Some count what ends the answer, too.
        (TokenLimit::Answer, "{", Some(65), limit),
        // Who says that it was the limit of an answer that is shorter means the other one.
        (TokenLimit::Answer, "{", Some(63), full),
        (TokenLimit::Answer, "{", Some(1), full),
        (TokenLimit::Answer, "", Some(0), full),
        (TokenLimit::Answer, "{", Some(0), either),
        (TokenLimit::Answer, "{", None, either),
        (TokenLimit::Context, "{", Some(64), full),
        (TokenLimit::Context, "{", Some(3), full),
        (TokenLimit::Context, "{", None, full),
    ] {
        let label = format!("{by:?} {said:?} {written:?}");
        let usage = ReportedUsage { input_tokens: Some(100), output_tokens: written };
        let answer = Answer::Truncated { text: said.to_owned(), by };
        let AfterCall::Fail(rejection) =
            fresh_run(&limits).after_reply(work, &ModelReply { usage, ..reply(answer) })
        else {
            panic!("{label}")
        };
        assert_eq!(rejection.reason, FailureReason::Truncated, "{label}");
        assert!(rejection.detail.contains(expected), "{label}: {}", rejection.detail);
        assert_eq!(rejection.detail.contains("raise"), expected != full, "{label}: {}", rejection.detail);
    }
}

#[test]
fn a_request_that_is_too_large_says_by_how_much_as_far_as_that_is_known() {
    let (limits, task) = (Limits::default(), Digit::new(None));
    let (input, revision) = (json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    for (requested, limit, unit, expected) in [
        (Some(1_407), Some(256), SizeUnit::Tokens, "1407 tokens were requested, and the limit is 256."),
        (None, Some(256), SizeUnit::Tokens, "the limit is 256 tokens, and the provider does not say"),
        (Some(9), None, SizeUnit::Characters, "9 characters were requested, and the provider does not name"),
        (None, None, SizeUnit::Tokens, "the provider names neither its size nor the limit."),
    ] {
        let oversize = Some(Oversize { unit, requested, limit });
        let rejected = ModelFailure { oversize, ..failure(Rejected) };
        let AfterCall::Fail(rejection) = fresh_run(&limits).after_failure(work, &rejected, NOW, PLENTY, 0.0)
        else {
            panic!("{expected}")
        };
        assert_eq!(rejection.reason, FailureReason::RequestRejected);
        for part in ["The request is too large: ", expected, "Shorten the input", "Overloaded"] {
            assert!(rejection.detail.contains(part), "{part}: {}", rejection.detail);
        }
    }
}

#[test]
fn every_answer_is_paid_for_whatever_it_says() {
    let task = Digit::new(None);
    for answer in [text("{\"n\":7}"), text("no"), refused(), truncated(), unusable()] {
        let step = match &answer {
            Answer::Text(said) if said == "no" => "call again in 0; claims 1 calls 1 reasks 1 crashes 0",
            Answer::Text(_) => "store {\"n\":7}; claims 1 calls 1 reasks 0 crashes 0",
            Answer::Refused { .. } => "fail refused; claims 1 calls 1 reasks 0 crashes 0",
            Answer::Truncated { .. } => "fail truncated; claims 1 calls 1 reasks 0 crashes 0",
            Answer::Unusable { .. } => "call again in 0; claims 1 calls 1 reasks 1 crashes 0",
        };
        let before = Budget { cost_micro_usd: 100, ..used(0, 0) };
        let run = check_reply(&task, before, answer, step);
        assert_eq!(run.budget().cost_micro_usd, 500);
        assert_eq!(run.wasted_micro_usd(Outcome::NeedsReview), 400);
    }
}

#[test]
fn a_backoff_starts_again_after_an_answer() {
    let limits = Limits::default();
    let (task, input, revision): (_, Value, _) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let mut run = fresh_run(&limits);
    let wait = |run: &mut JobRun| show_after(&run.after_failure(work, &failure(Transient), NOW, PLENTY, 1.0));
    assert_eq!(wait(&mut run), "call again in 1000");
    assert_eq!(wait(&mut run), "call again in 2000");
    run.after_reply(work, &reply(text("no")));
    assert_eq!(wait(&mut run), "call again in 1000");
}
