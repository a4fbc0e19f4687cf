//! What a panic leaves to do, before the claim and after it.

use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::next_step::{AfterPanic, ClaimAsk, ClaimStep, PanicStep, Panicked};
use nightshift_core::record::{Record, State};

use crate::support::*;

/// The token under which the panic is counted.
const OWN: &str = "token-of-the-count";

fn decide(standing: Option<Record>, change: impl FnOnce(&mut Record)) -> String {
    let (key, delivery, deployed, limits) = (key(), delivery(), deployed(), Limits::default());
    let mut ask = ask(&key, &delivery, &deployed, &limits);
    ask.token = OWN;
    let panicked = Panicked { ask, claim_token: OURS };
    let standing = standing.map(|mut standing| {
        change(&mut standing);
        standing
    });
    show(&panicked.refused_by(standing.as_ref()))
}

fn show(step: &PanicStep) -> String {
    match step {
        PanicStep::Count(write) => format!("count as {}", show_write(write)),
        PanicStep::Then(after) => show_after_panic(after),
    }
}

fn show_after_panic(after: &AfterPanic) -> String {
    match after {
        AfterPanic::Bury(_) => "bury".to_owned(),
        AfterPanic::AlreadySettled => "already settled".to_owned(),
        AfterPanic::HandBack { cause, at_least_ms } => format!("hand back {} {at_least_ms}", cause.as_str()),
    }
}

fn ours(standing: &mut Record) {
    standing.token = OURS.to_owned();
}

#[test]
fn a_panic_under_our_claim_is_counted_and_the_third_ends_the_job() {
    for (crashes, expected) in [
        (0, "count as open v8 if Fence: claims 2 calls 3 reasks 1 crashes 1"),
        (1, "count as open v8 if Fence: claims 2 calls 3 reasks 1 crashes 2"),
        (2, "count as failed internal v8 if Fence: claims 2 calls 3 reasks 1 crashes 3"),
        (7, "count as failed internal v8 if Fence: claims 2 calls 3 reasks 1 crashes 8"),
    ] {
        let standing = record(claimed(NOW + SECOND, false));
        let step = decide(Some(standing), |standing| {
            ours(standing);
            standing.budget.crashes = crashes;
        });
        assert_eq!(step, expected);
    }
}

#[test]
fn what_was_written_under_our_claim_before_the_panic_stands() {
    for (state, expected) in
        [(failed(), "bury"), (State::Open, "hand back panic 0"), (done(), "hand back panic 0")]
    {
        assert_eq!(decide(Some(record(state.clone())), ours), expected, "{state:?}");
    }
}

#[test]
fn a_panic_before_the_claim_is_counted_too_and_announces_no_call() {
    let (key, delivery, deployed, limits) = (key(), delivery(), deployed(), Limits::default());
    let panicked = Panicked { ask: ask(&key, &delivery, &deployed, &limits), claim_token: "" };
    assert_eq!(show_write(&panicked.first()), "open v1 if Absent: claims 1 calls 0 reasks 0 crashes 1");
    for (state, crashes, expected) in [
        (
            State::Open,
            0,
            "count as open v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 1",
        ),
        (
            State::Open,
            2,
            "count as failed internal v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 3",
        ),
        // The claim itself would have ended it.
        (
            State::Open,
            3,
            "count as failed poison v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 3",
        ),
    ] {
        let step = decide(Some(record(state)), |standing| standing.budget.crashes = crashes);
        assert_eq!(step, expected);
    }
}

#[test]
fn a_panic_over_a_failure_that_is_asked_for_again_is_no_failure_over_a_failure() {
    let (key, deployed) = (key(), deployed());
    let limits = Limits { crash_limit: 1, ..Limits::default() };
    let (again, standing) =
        (Delivery { message_id: "m-9".to_owned(), sent_at_ms: NOW, ..delivery() }, failed());
    let panicked = Panicked { ask: ask(&key, &again, &deployed, &limits), claim_token: "" };
    let step = panicked.refused_by(Some(&record(standing)));
    assert_eq!(
        show(&step),
        "count as open v8 if exactly v7 of token-theirs: claims 1 calls 0 reasks 0 crashes 1"
    );
    // The next delivery gives it up.
    let PanicStep::Count(write) = step else { panic!("not counted") };
    let ask = ClaimAsk { token: THEIRS, ..ask(&key, &again, &deployed, &limits) };
    let ClaimStep::Fail(given_up) = ask.refused_by(&write.record) else { panic!("not given up") };
    assert!(matches!(given_up.record.state, State::Failed(_)));
}

#[test]
fn a_panic_over_what_others_hold_or_settled_goes_by_what_stands() {
    for (state, expected) in [
        (done(), "already settled"),
        (failed(), "bury"),
        (claimed(NOW + 20 * SECOND, false), "hand back held_by_other 20000"),
    ] {
        assert_eq!(decide(Some(record(state.clone())), |_| ()), expected, "{state:?}");
    }
    assert_eq!(decide(None, |_| ()), "hand back panic 0", "it is gone");
}

#[test]
fn what_is_counted_is_handed_back_and_what_is_given_up_is_buried() {
    assert_eq!(show_after_panic(&AfterPanic::counted(record(State::Open))), "hand back panic 0");
    assert_eq!(show_after_panic(&AfterPanic::counted(record(failed()))), "bury");
}
