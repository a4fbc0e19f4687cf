//! How a claimed job leaves its worker, and what keeps a batch from being worked on.

use nightshift_core::control::{Admits, Cause, Control, Entry, Phase};
use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::kept::KeepAnswer;
use nightshift_core::limits::Limits;
use nightshift_core::message::Original;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::FailureClass;
use nightshift_core::next_step::{AfterCall, Settlement, admits_work, after_own_part, after_own_write};
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::record::WriteAnswer;
use serde_json::json;

use crate::support::*;

fn hand_back(cause: HandBackCause, at_least_ms: u64) -> AfterCall {
    AfterCall::HandBack { cause, at_least_ms }
}

#[test]
fn each_last_step_leaves_in_its_own_way() {
    let limits = Limits { output_bytes_max: 20, ..Limits::default() };
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let run = fresh_run(&limits);
    let store = |output, needs_review| AfterCall::Store { output, needs_review };
    for (last, expected) in [
        (store(json!({"n": 7}), false), "done v2 if Fence: claims 1 calls 0 reasks 0 crashes 0"),
        (store(json!({"n": 7}), true), "done for review v2 if Fence: claims 1 calls 0 reasks 0 crashes 0"),
        (
            store(json!({"n": "a long text, too long"}), false),
            "failed result_too_large v2 if Fence: claims 1 calls 0 reasks 0 crashes 0",
        ),
        (
            AfterCall::Fail(Rejection::new(FailureReason::Refused, "no")),
            "failed refused v2 if Fence: claims 1 calls 0 reasks 0 crashes 0",
        ),
        (hand_back(HandBackCause::Capacity, 9), "hand back capacity 9"),
        (AfterCall::CallAgain { delay_ms: 5 }, "hand back call_failed 5"),
    ] {
        let original = Original { body: "b", message_id: "m-1", attributes: &[], group: None };
        let shown = match run.settlement(work(&task, &input, &limits, &revision), last, original, NOW) {
            Settlement::Store { write, parts, needs_review } => {
                // The message of what waits for review, and of nothing else.
                assert_eq!(
                    (parts.len(), write.record.kept_message().is_some()),
                    (usize::from(needs_review), needs_review)
                );
                show_write(&write)
            }
            Settlement::Fail(write) => show_write(&write),
            Settlement::HandBack { cause, at_least_ms } => {
                format!("hand back {} {at_least_ms}", cause.as_str())
            }
        };
        assert_eq!(shown, expected);
    }
}

#[test]
fn a_claim_is_given_back_unless_it_is_not_ours_any_more() {
    let run = fresh_run(&Limits::default());
    for (cause, is_released) in [
        (HandBackCause::Capacity, true),
        (HandBackCause::Deadline, true),
        (HandBackCause::Ledger, true),
        (HandBackCause::LostClaim, false),
        (HandBackCause::Unreadable, false),
    ] {
        assert_eq!(run.release_before(cause).is_some(), is_released, "{cause:?}");
    }
}

#[test]
fn an_own_write_says_whether_the_claim_still_stands() {
    for (answer, expected) in [
        (Ok(WriteAnswer::Written), Ok(())),
        (Ok(WriteAnswer::Refused(None)), Err(HandBackCause::LostClaim)),
        (Ok(WriteAnswer::Refused(Some(Box::new(record(failed()))))), Err(HandBackCause::LostClaim)),
        (Err(PortErrorKind::Unreadable), Err(HandBackCause::Unreadable)),
        (Err(PortErrorKind::Throttled), Err(HandBackCause::Ledger)),
        (Err(PortErrorKind::Unavailable), Err(HandBackCause::Ledger)),
        (Err(PortErrorKind::Misconfigured), Err(HandBackCause::Ledger)),
        (Err(PortErrorKind::Refused), Err(HandBackCause::Ledger)),
    ] {
        assert_eq!(after_own_write(&answer), expected, "{answer:?}");
    }
}

#[test]
fn a_part_of_a_kept_message_says_whether_the_claim_still_stands() {
    for (answer, expected) in [
        (Ok(KeepAnswer::Kept), Ok(())),
        (Ok(KeepAnswer::Refused), Err(HandBackCause::LostClaim)),
        (Err(PortErrorKind::Unreadable), Err(HandBackCause::Unreadable)),
        (Err(PortErrorKind::Throttled), Err(HandBackCause::Ledger)),
    ] {
        assert_eq!(after_own_part(&answer), expected, "{answer:?}");
    }
}

#[test]
fn an_output_is_rejected_where_the_task_did_not_accept_it_and_by_nothing_else() {
    let fail = |reason| AfterCall::Fail(Rejection::new(reason, "no"));
    for (last, is_rejected) in [
        (AfterCall::Store { output: json!({"n": 7}), needs_review: false }, false),
        (AfterCall::Store { output: json!({"n": 7}), needs_review: true }, true),
        (AfterCall::CallAgain { delay_ms: 0 }, true),
        (hand_back(HandBackCause::Deadline, 0), false),
        (fail(FailureReason::InvalidOutput), true),
        (fail(FailureReason::Refused), false),
        (fail(FailureReason::Truncated), false),
    ] {
        assert_eq!(last.rejects_output(), is_rejected, "{last:?}");
    }
}

#[test]
fn only_a_claim_that_may_stand_is_taken_back() {
    let (key, delivery, deployed, limits) = (key(), delivery(), deployed(), Limits::default());
    let ask = ask(&key, &delivery, &deployed, &limits);
    let rejection = Rejection::new(FailureReason::InvalidInput, "no");
    let over_claim = || ask.over_own(ask.before_refusal(ask.first()).record);
    let take_back = "open v2 if Fence: claims 1 calls 0 reasks 0 crashes 0";
    for (write, kind, expected) in [
        (ask.first(), PortErrorKind::Unavailable, Some(take_back)),
        (ask.first(), PortErrorKind::Throttled, Some(take_back)),
        (ask.first(), PortErrorKind::Misconfigured, None),
        (ask.first(), PortErrorKind::Unreadable, None),
        (ask.first(), PortErrorKind::Refused, None),
        (ask.refuse(ask.first(), &rejection), PortErrorKind::Unavailable, None),
        // Over a failure, where the claim comes first and announces no call.
        (ask.before_refusal(ask.first()), PortErrorKind::Unavailable, Some(take_back)),
        (ask.refuse(over_claim(), &rejection), PortErrorKind::Unavailable, Some(take_back)),
        (ask.refuse(over_claim(), &rejection), PortErrorKind::Refused, Some(take_back)),
    ] {
        let shown = ask.after_error(write, kind).map(|write| show_write(&write));
        assert_eq!(shown.as_deref(), expected, "{kind}");
    }
}

#[test]
fn our_own_write_whose_reply_was_lost_is_no_refusal() {
    let run = fresh_run(&Limits::default());
    let release = run.release();
    let answer = |standing| release.answered(WriteAnswer::Refused(standing));
    assert!(matches!(answer(Some(Box::new(release.record.clone()))), WriteAnswer::Written));
    assert!(matches!(answer(Some(Box::new(run.record().clone()))), WriteAnswer::Refused(Some(_))));
    assert!(matches!(answer(None), WriteAnswer::Refused(None)));
    assert!(matches!(release.answered(WriteAnswer::Written), WriteAnswer::Written));
}

#[test]
fn a_pause_or_words_that_may_be_one_hold_a_batch_back() {
    let paused = Control::paused_by_operator(NOW, "a deploy", "somebody");
    let open = Control::default();
    let reopening = Entry::paused(NOW, "r", "w").in_phase(Phase::Reopening { width: 4 }, NOW);
    let narrow = open.with(Cause::Outage, reopening);
    for (control, expected) in [
        (Ok(&open), Admits::All),
        (Ok(&narrow), Admits::Width(4, HandBackCause::Outage)),
        (Ok(&paused), Admits::Nothing(HandBackCause::Paused)),
        (Err(PortErrorKind::Unreadable), Admits::Nothing(HandBackCause::Unreadable)),
        (Err(PortErrorKind::Unavailable), Admits::All),
        (Err(PortErrorKind::Misconfigured), Admits::All),
    ] {
        assert_eq!(admits_work(control), expected, "{control:?}");
    }
}

#[test]
fn the_neighbours_of_a_failed_call_wait_as_its_job_does_or_as_the_provider_asked() {
    let mut asked = failure(FailureClass::Capacity);
    asked.advice.retry_after = Some("20".to_owned());
    let refused = AfterCall::Fail(Rejection::new(FailureReason::Refused, "no"));
    for (after, expected_ms) in [
        (AfterCall::CallAgain { delay_ms: 5 }, 5),
        (hand_back(HandBackCause::Capacity, 7), 7),
        (refused.clone(), 20 * SECOND),
    ] {
        assert_eq!(after.others_wait_ms(&asked, NOW), expected_ms, "{after:?}");
    }
    assert_eq!(refused.others_wait_ms(&failure(FailureClass::Refused), NOW), 0);
}

#[test]
fn only_the_call_whose_answer_is_the_result_is_not_wasted() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let mut run = fresh_run(&limits);
    run.after_reply(work(&task, &input, &limits, &revision), &reply(text("no digit")));
    run.after_reply(work(&task, &input, &limits, &revision), &reply(text("{\"n\": 7}")));
    assert_eq!(run.wasted_micro_usd(Outcome::Succeeded), 400);
    assert_eq!(run.wasted_micro_usd(Outcome::NeedsReview), 800);
    assert_eq!(run.wasted_micro_usd(Outcome::HandedBack(HandBackCause::LostClaim)), 800);
}
