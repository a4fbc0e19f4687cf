//! What a claim means, for every record that may already stand.

use nightshift_core::erase::tombstone;
use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::next_step::{ClaimAsk, ClaimStep, JobRun};
use nightshift_core::record::{
    Budget, Expect, HISTORY_MAX, PastFailure, Record, RecordWrite, Revision, State,
};
use serde_json::json;

use crate::support::*;

/// One row: the record that stands, the message that asks, and everything else that decides.
struct Case {
    standing: Record,
    delivery: Delivery,
    revision: Revision,
    limits: Limits,
    now_ms: u64,
    alone: bool,
    token: &'static str,
}

fn decide(state: State, change: impl FnOnce(&mut Case)) -> ClaimStep {
    let mut case = Case {
        standing: record(state),
        delivery: delivery(),
        revision: deployed(),
        limits: Limits::default(),
        now_ms: NOW,
        alone: true,
        token: OURS,
    };
    change(&mut case);
    let key = key();
    let mut ask = ask(&key, &case.delivery, &case.revision, &case.limits);
    (ask.now_ms, ask.alone, ask.token) = (case.now_ms, case.alone, case.token);
    let step = ask.refused_by(&case.standing);
    if let ClaimStep::TakeOver(write) | ClaimStep::Fail(write) = &step {
        assert_eq!(write.expect, Expect::exactly(&case.standing), "a takeover names what it read");
        assert_eq!(write.record.token, case.token, "a takeover is fenced by the new token");
        assert_eq!(write.record.version, case.standing.version + 1);
        assert_eq!(write.record.message_id, case.delivery.message_id);
    }
    step
}

fn show(step: &ClaimStep) -> String {
    match step {
        ClaimStep::Held(_) => "held".to_owned(),
        ClaimStep::TakeOver(write) => format!(
            "take over {}, redrives {} history {}",
            show_budget(&write.record.budget),
            write.record.redrives,
            write.record.history.len()
        ),
        ClaimStep::Fail(write) => show_write(write),
        ClaimStep::RunAlone => "run alone".to_owned(),
        ClaimStep::AlreadyDone { another_message: false } => "already done".to_owned(),
        ClaimStep::AlreadyDone { another_message: true } => "already done, count it".to_owned(),
        ClaimStep::AlreadyFailed(_) => "already failed".to_owned(),
        ClaimStep::AlreadyErased => "already erased".to_owned(),
        ClaimStep::AlreadyRedriven => "already redriven".to_owned(),
        ClaimStep::HeldByOther { until_ms } => format!("held until {} s", (until_ms - NOW) / SECOND),
    }
}

fn check(state: State, change: impl FnOnce(&mut Case), expected: &str) {
    assert_eq!(show(&decide(state, change)), expected);
}

/// A claim whose worker died: SQS has kept its message for the whole visibility timeout.
fn died(alone: bool) -> State {
    claimed(NOW - 1_500 * SECOND, alone)
}

/// A redelivery, a duplicate that was sent before the settlement, and a message that was sent after it.
fn redelivered(case: &mut Case) {
    case.delivery.receive_count = 2;
}
fn duplicate_before(case: &mut Case) {
    case.delivery.message_id = "m-2".to_owned();
    case.delivery.sent_at_ms = NOW - 51 * SECOND;
}
fn duplicate_at_once(case: &mut Case) {
    case.delivery.message_id = "m-2".to_owned();
    case.delivery.sent_at_ms = NOW - 50 * SECOND;
}
fn sent_after(case: &mut Case) {
    case.delivery.message_id = "m-2".to_owned();
    case.delivery.sent_at_ms = NOW - 49 * SECOND;
}
/// The clock of SQS runs ahead of the worker that settled: the same message seems to be sent after it.
fn same_message_by_a_fast_clock(case: &mut Case) {
    case.delivery.sent_at_ms = NOW - 49 * SECOND;
}

fn finished_by(revision: Revision) -> State {
    let State::Done(mut done) = done() else { unreachable!() };
    done.revision = revision;
    State::Done(done)
}

fn reviewed(state: State) -> State {
    let State::Done(mut done) = state else { unreachable!() };
    done.reviewed = true;
    State::Done(done)
}

const AFRESH: &str = "take over claims 1 calls 1 reasks 0 crashes 0, redrives 1 history 1";

#[test]
fn a_new_input_is_claimed_with_its_first_call_counted() {
    let (key, delivery, revision, limits) = (key(), delivery(), deployed(), Limits::default());
    let write = ask(&key, &delivery, &revision, &limits).first();
    assert_eq!(show_write(&write), "claimed v1 if Absent: claims 1 calls 1 reasks 0 crashes 0");
    assert_eq!(write.record.state, claimed(NOW + 310 * SECOND, true));
    assert_eq!(write.record.reference.as_deref(), Some("ours"));
    assert_eq!(write.record.expires_at_ms, NOW + 30 * DAY);
    assert!(write.allowed(None));
    assert!(!write.allowed(Some(&record(State::Open))));
}

#[test]
fn a_finished_job_is_done_again_only_for_a_later_message_and_an_older_revision() {
    let old = || revision("old", 50);
    let newer = || revision("newer", 150);
    let same = deployed;
    let same_age = || revision("other", 100);
    type Change = fn(&mut Case);
    let counted = "already done, count it";
    let messages: [(Change, bool, &str); 5] = [
        (redelivered, false, "already done"),
        (duplicate_before, false, counted),
        (duplicate_at_once, false, counted),
        (same_message_by_a_fast_clock, false, "already done"),
        (sent_after, true, counted),
    ];
    for (message, later, settled) in messages {
        for (made_by, older) in [(old(), true), (same(), false), (newer(), false), (same_age(), true)] {
            for by_a_person in [false, true] {
                let state = finished_by(made_by.clone());
                let state = if by_a_person { reviewed(state) } else { state };
                let again = later && older && !by_a_person;
                check(state, message, if again { AFRESH } else { settled });
            }
        }
    }
}

#[test]
fn a_result_stands_while_it_is_made_again() {
    let result = |record: &Record| {
        let done: serde_json::Value = serde_json::from_str(record.previous.as_deref()?).ok()?;
        done.get("output").cloned()
    };
    let old = finished_by(revision("old", 50));
    let ClaimStep::TakeOver(again) = decide(old, sent_after) else { panic!("not taken over") };
    assert_eq!(result(&again.record), Some(json!({"n": 7})));
    // Its worker dies, and the next one goes on.
    let with_it = |case: &mut Case| case.standing.previous = again.record.previous.clone();
    let ClaimStep::TakeOver(next) = decide(died(true), with_it) else { panic!("not taken over") };
    assert_eq!(result(&next.record), Some(json!({"n": 7})));
    // A failure does not take it away, and a redrive after it neither.
    let redrive = |case: &mut Case| {
        sent_after(case);
        with_it(case);
    };
    let ClaimStep::TakeOver(redriven) = decide(failed(), redrive) else { panic!("not taken over") };
    assert_eq!(result(&redriven.record), Some(json!({"n": 7})));
    // The new result replaces it.
    let run = JobRun::new(redriven.record, &prompt());
    let (task, input, limits, revision) = (Digit::new(None), json!({}), Limits::default(), deployed());
    let stored = run.store(work(&task, &input, &limits, &revision), json!({"n": 8}), false, NOW).unwrap();
    assert_eq!(stored.record.previous, None);
    assert_eq!(run.release().record.previous, again.record.previous);
}

#[test]
fn a_failed_job_starts_afresh_only_for_a_later_message() {
    check(failed(), redelivered, "already failed");
    check(failed(), duplicate_before, "already failed");
    check(failed(), duplicate_at_once, "already failed");
    check(failed(), same_message_by_a_fast_clock, "already failed");
    check(failed(), sent_after, "take over claims 1 calls 1 reasks 0 crashes 0, redrives 2 history 2");
}

#[test]
fn a_redriven_letter_is_worked_on_only_while_its_own_failure_stands() {
    // The record stands at version 7. Clocks say nothing: each row holds whenever the message was sent.
    let again = "take over claims 1 calls 1 reasks 0 crashes 0, redrives 2 history 2";
    type Change = fn(&mut Case);
    for sent in [duplicate_before as Change, duplicate_at_once, sent_after] {
        let redriven = |of: u64, letter_version: Option<u64>| {
            move |case: &mut Case| {
                sent(case);
                case.delivery.redrive_of = Some(of);
                case.standing.letter_version = letter_version;
            }
        };
        check(failed(), redriven(7, None), again);
        check(failed(), redriven(7, Some(7)), again);
        for other in [0, 1, 6] {
            check(failed(), redriven(other, Some(7)), "already redriven");
        }
        // Of a letter that is newer than the record, a ledger that was restored knows nothing.
        for other in [8, u64::MAX] {
            check(failed(), redriven(other, Some(7)), "already failed");
        }
        for other in [0, 1, 6, 8, u64::MAX] {
            // Nobody knows that the letter is sent, so this message sends it; what was noted of another version is no
            // knowledge of this one.
            check(failed(), redriven(other, None), "already failed");
            check(failed(), redriven(other, Some(6)), "already failed");
        }
        // A result is an end, whatever is deployed since.
        check(finished_by(revision("old", 50)), redriven(7, None), "already done, count it");
        check(finished_by(revision("old", 50)), redriven(3, None), "already done, count it");
        // What was begun goes on with its budget, whoever brings it: the first copy may be in `crashed`.
        let goes_on = "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1";
        check(State::Open, redriven(3, None), goes_on);
        check(claimed(NOW + 30 * SECOND, false), redriven(3, None), "held until 30 s");
        let expired = move |case: &mut Case| {
            redriven(3, Some(7))(case);
            case.standing.expires_at_ms = NOW;
        };
        check(failed(), expired, "take over claims 1 calls 1 reasks 0 crashes 0, redrives 0 history 0");
    }
}

#[test]
fn a_redriven_message_that_failed_sends_its_own_letter_again() {
    for (of, letter_version) in [(3, None), (3, Some(7)), (7, None)] {
        let redelivered_redrive = |case: &mut Case| {
            redelivered(case);
            case.delivery.redrive_of = Some(of);
            case.standing.letter_version = letter_version;
        };
        check(failed(), redelivered_redrive, "already failed");
    }
}

#[test]
fn what_a_fresh_start_forgets_is_in_the_history() {
    let ClaimStep::TakeOver(write) = decide(failed(), sent_after) else { panic!("not taken over") };
    assert_eq!(
        write.record.history.last(),
        Some(&PastFailure {
            reason: "invalid_output".to_owned(),
            failed_at_ms: NOW - 50 * SECOND,
            calls: 3,
            message_id: "m-1".to_owned(),
            more: serde_json::Map::new(),
        })
    );
    assert_eq!(write.record.first_received_ms, NOW, "latencies count from the message that is worked on");
}

#[test]
fn the_history_keeps_the_newest_failures() {
    let full: Vec<_> = (0..HISTORY_MAX as u64)
        .map(|n| PastFailure {
            reason: "a word of a newer release".to_owned(),
            failed_at_ms: n,
            calls: 1,
            message_id: format!("m-{n}"),
            more: serde_json::Map::from_iter([("tier".to_owned(), json!("flex"))]),
        })
        .collect();
    let step = decide(failed(), |case| {
        case.standing.history = full;
        sent_after(case);
    });
    let ClaimStep::TakeOver(write) = step else { panic!("not taken over") };
    assert_eq!(write.record.history[0].more["tier"], "flex", "what another release said is carried on");
    let times: Vec<_> = write.record.history.iter().map(|past| past.failed_at_ms).collect();
    assert_eq!(times, [1, 2, 3, 4, 5, 6, 7, 8, 9, NOW - 50 * SECOND]);
}

#[test]
fn an_open_job_goes_on_with_its_budget() {
    check(State::Open, redelivered, "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1");
    check(State::Open, sent_after, "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1");
    check(
        State::Open,
        duplicate_before,
        "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1",
    );
    check(
        State::Open,
        |c| c.alone = false,
        "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1",
    );
    check(
        State::Open,
        |c| c.standing.budget.waiting_since_ms = Some(NOW - HOUR),
        "take over claims 3 calls 4 reasks 1 crashes 0 waiting 3600 s, redrives 1 history 1",
    );
}

#[test]
fn what_goes_on_keeps_who_asked_first() {
    let ClaimStep::TakeOver(write) = decide(State::Open, sent_after) else { panic!("not taken over") };
    assert_eq!(write.record.reference.as_deref(), Some("first"));
    assert_eq!(write.record.first_received_ms, NOW - 90 * SECOND);
    assert_eq!(write.record.sent_at_ms, NOW - 49 * SECOND);
    assert_eq!(write.record.state, claimed(NOW + 310 * SECOND, true));
}

#[test]
fn a_running_lease_is_left_alone_whoever_asks() {
    let lease = |until_ms, alone| move || claimed(until_ms, alone);
    for state in [lease(NOW + 30 * SECOND, false), lease(NOW + 30 * SECOND, true)] {
        check(state(), redelivered, "held until 30 s");
        check(state(), sent_after, "held until 30 s");
        check(state(), |c| c.alone = false, "held until 30 s");
        check(state(), |c| c.standing.budget.crashes = 99, "held until 30 s");
        check(state(), |c| c.standing.budget.calls = 99, "held until 30 s");
    }
    check(claimed(NOW + 1, false), |c| c.alone = true, "held until 0 s");
}

#[test]
fn a_job_whose_worker_died_runs_alone_and_only_a_death_while_alone_counts() {
    let not_alone = |c: &mut Case| c.alone = false;
    check(died(false), not_alone, "run alone");
    check(died(false), redelivered, "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1");
    check(died(true), not_alone, "run alone");
    check(died(true), redelivered, "take over claims 3 calls 4 reasks 1 crashes 1, redrives 1 history 1");
    check(
        State::Open,
        |c| {
            c.standing.budget.crashes = 1;
            c.alone = false;
        },
        "run alone",
    );
    check(
        State::Open,
        |c| c.standing.budget.crashes = 1,
        "take over claims 3 calls 4 reasks 1 crashes 1, redrives 1 history 1",
    );
}

#[test]
fn too_many_deaths_are_poison() {
    for (alone_before, crashes, expected) in [
        (true, 1, "take over claims 3 calls 4 reasks 1 crashes 2, redrives 1 history 1"),
        (true, 2, "failed poison v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 3"),
        (true, 9, "failed poison v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 10"),
        (false, 2, "take over claims 3 calls 4 reasks 1 crashes 2, redrives 1 history 1"),
        (false, 3, "failed poison v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 3"),
    ] {
        check(died(alone_before), |c| c.standing.budget.crashes = crashes, expected);
        // Whoever notices may write the failure: it makes no call, so it need not be alone.
        if expected.starts_with("failed") {
            check(
                died(alone_before),
                |c| {
                    c.standing.budget.crashes = crashes;
                    c.alone = false;
                },
                expected,
            );
        }
    }
}

#[test]
fn a_job_whose_paid_calls_are_spent_is_not_called_again() {
    for state in [State::Open, died(false), died(true)] {
        let crashes = u32::from(state == died(true));
        for (calls, fails) in [(5, false), (6, true), (7, true)] {
            let step = decide(state.clone(), |c| c.standing.budget.calls = calls);
            if fails {
                assert_eq!(
                    show(&step),
                    format!(
                        "failed attempts_exhausted v8 if exactly v7 of token-theirs: claims 3 calls {calls} reasks 1 crashes {crashes}"
                    )
                );
            } else {
                assert!(matches!(step, ClaimStep::TakeOver(_)), "{}", show(&step));
            }
        }
    }
    // Poison says more than the calls that it cost.
    check(
        died(true),
        |c| c.standing.budget = Budget { calls: 6, crashes: 2, ..Budget::default() },
        "failed poison v8 if exactly v7 of token-theirs: claims 1 calls 6 reasks 0 crashes 3",
    );
}

#[test]
fn a_message_that_is_back_before_sqs_returns_it_by_itself_was_handed_back() {
    // The lease began 310 s before its end; SQS keeps a dead worker's message for 1,800 s, of which Lambda may have
    // spent 600 s before it started the function.
    let crash_beside_others = |c: &mut Case| c.alone = false;
    let handed_back = "take over claims 3 calls 4 reasks 1 crashes 0, redrives 1 history 1";
    for alone_before in [true, false] {
        for since_end_s in [0, 1, 889] {
            check(claimed(NOW - since_end_s * SECOND, alone_before), crash_beside_others, handed_back);
        }
        check(claimed(NOW - 890 * SECOND, alone_before), crash_beside_others, "run alone");
        // Another message says nothing about when the first one came back.
        check(
            claimed(NOW, alone_before),
            |c| {
                duplicate_before(c);
                c.alone = false;
            },
            "run alone",
        );
    }
}

#[test]
fn our_own_write_whose_reply_was_lost_is_success() {
    for state in [State::Open, claimed(NOW + 1, true), claimed(NOW - 1, false), done(), failed()] {
        check(state, |c| c.token = THEIRS, "held");
    }
}

#[test]
fn an_expired_record_counts_as_gone_whatever_it_says() {
    let afresh = "take over claims 1 calls 1 reasks 0 crashes 0, redrives 0 history 0";
    for state in
        [State::Open, claimed(NOW + 1, true), claimed(NOW - 1, false), done(), reviewed(done()), failed()]
    {
        check(state.clone(), |c| c.standing.expires_at_ms = NOW, afresh);
        check(state.clone(), |c| c.standing.expires_at_ms = NOW - 1, afresh);
        let step = decide(state, |c| c.standing.expires_at_ms = NOW + 1);
        assert_ne!(show(&step), afresh, "one millisecond before, it stands");
    }
    // Even then a lost reply is recognised first: a claim does not expire under its owner.
    check(
        claimed(NOW + 1, true),
        |c| {
            c.standing.expires_at_ms = NOW;
            c.token = THEIRS;
        },
        "held",
    );
}

#[test]
fn a_job_that_is_refused_before_any_work_fails_in_the_write_that_would_have_claimed_it() {
    let (key, delivery, revision, limits) = (key(), delivery(), deployed(), Limits::default());
    let ask = ask(&key, &delivery, &revision, &limits);
    let rejection = Rejection::new(FailureReason::UnknownTask, "No task of this name is deployed.");
    let write = ask.refuse(ask.first(), &rejection);
    assert_eq!(show_write(&write), "failed unknown_task v1 if Absent: claims 1 calls 0 reasks 0 crashes 0");
    let ClaimStep::TakeOver(takeover) = ask.refused_by(&record(State::Open)) else {
        panic!("not taken over")
    };
    let write = ask.refuse(*takeover, &rejection);
    assert_eq!(
        show_write(&write),
        "failed unknown_task v8 if exactly v7 of token-theirs: claims 3 calls 3 reasks 1 crashes 0"
    );
}

/// A tombstone of a minute ago over the record of `m-1`.
fn erased() -> Record {
    tombstone(&key(), Some(&record(State::Open)), "token-erases", NOW - 60 * SECOND).record
}

#[test]
fn no_message_from_before_an_erasure_is_worked_on() {
    let after = NOW - 10 * SECOND;
    let message = |id: &str, sent_at_ms, redrive_of| Delivery {
        message_id: id.to_owned(),
        sent_at_ms,
        redrive_of,
        ..delivery()
    };
    for (what, delivery, begins) in [
        ("a redelivery", delivery(), false),
        ("the same message, by a clock that is ahead", message("m-1", after, None), false),
        ("a duplicate from before", message("m-2", NOW - 61 * SECOND, None), false),
        ("a letter from before, sent back since", message("m-3", after, Some(7)), false),
        ("a new request", message("m-4", after, None), true),
    ] {
        let (key, limits, deployed, standing) = (key(), Limits::default(), deployed(), erased());
        let ask = ask(&key, &delivery, &deployed, &limits);
        match ask.refused_by(&standing) {
            ClaimStep::AlreadyErased => assert!(!begins, "{what}"),
            ClaimStep::TakeOver(write) => {
                assert!(begins, "{what}");
                assert_eq!(write.expect, Expect::exactly(&standing));
                assert_eq!(write.record.erased, standing.erased, "{what}");
                assert!(write.record.expires_at_ms >= standing.expires_at_ms);
                // Whatever the new request came to, what was sent before stays unworked.
                let message = message("m-2", NOW - 61 * SECOND, None);
                for state in [State::Open, done(), failed()] {
                    let standing = Record { state, token: THEIRS.to_owned(), ..write.record.clone() };
                    let ask = ClaimAsk { delivery: &message, ..ask.clone() };
                    assert_eq!(ask.refused_by(&standing), ClaimStep::AlreadyErased, "{standing:?}");
                }
            }
            step => panic!("{what}: {step:?}"),
        }
    }
}

#[test]
fn a_tombstone_leaves_nothing_to_those_who_had_the_record() {
    for standing in [record(State::Open), record(done()), record(failed())] {
        let write = tombstone(&key(), Some(&standing), "token-erases", NOW);
        assert_eq!(write.expect, Expect::exactly(&standing));
        assert!(write.record.version > standing.version && write.record.token != standing.token);
        let owners = RecordWrite {
            record: Record { version: standing.version + 5, ..standing.clone() },
            expect: Expect::Fence,
        };
        let late = RecordWrite { expect: Expect::exactly(&standing), ..owners.clone() };
        for write_of_before in [owners, late] {
            assert!(!write_of_before.allowed(Some(&write.record)));
            assert!(!write_of_before.took_effect(&write.record));
        }
        assert_eq!((&write.record.reference, write.record.history.len()), (&None, 0));
    }
    assert_eq!(tombstone(&key(), None, "token-erases", NOW).expect, Expect::Absent);
}
