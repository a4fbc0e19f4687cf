//! The records that a run writes, whole.

use nightshift_core::failure::{FailureReason, Rejection};
use nightshift_core::limits::Limits;
use nightshift_core::model::FailureClass;
use nightshift_core::next_step::{JobRun, TimeLeft};
use nightshift_core::record::{Budget, Erasure, Expect, Record};
use serde_json::json;

use crate::support::*;

const PLENTY: TimeLeft = TimeLeft { left_ms: 290_000, usual_call_ms: 10_000 };

/// A claim after one transient failure, one wait, and one answer that was not accepted.
fn eventful_run(limits: &Limits) -> JobRun {
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, limits, &revision);
    let mut run = fresh_run(limits);
    run.after_failure(work, &failure(FailureClass::Transient), NOW, PLENTY, 0.5);
    run.after_reply(work, &reply(text("I think it is {\"n\": 12}")));
    run.after_failure(work, &failure(FailureClass::Capacity), NOW + SECOND, PLENTY, 0.5);
    run
}

#[test]
fn a_result_is_written_whole() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let mut run = eventful_run(&limits);
    let work = work(&task, &input, &limits, &revision);
    run.after_reply(work, &reply(text("{\"n\":7}")));
    let write = run.store(work, json!({"n": 7}), false, NOW + 3 * SECOND).unwrap();
    insta::assert_debug_snapshot!(write);
}

#[test]
fn a_result_of_what_was_erased_before_remembers_it_for_as_long_as_a_message_from_before_may_come() {
    let limits = Limits { result_expiry_ms: DAY, ..Limits::default() };
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    for (until_ms, expires_at_ms) in [(None, NOW + DAY), (Some(NOW + 29 * DAY), NOW + 29 * DAY)] {
        let erased = until_ms.map(|until_ms| Erasure { at_ms: NOW - DAY, version: 5, until_ms });
        let run = JobRun::new(Record { erased, ..record(claimed(NOW + SECOND, false)) }, &prompt());
        let write = run.store(work(&task, &input, &limits, &revision), json!({"n": 7}), false, NOW).unwrap();
        assert_eq!((write.record.erased, write.record.expires_at_ms), (erased, expires_at_ms));
    }
}

#[test]
fn a_failure_is_written_whole() {
    let limits = Limits::default();
    let rejection = Rejection::new(FailureReason::CapacityTimeout, "No capacity for 12 hours.");
    insta::assert_debug_snapshot!(eventful_run(&limits).fail(
        &rejection,
        NOW + 3 * SECOND,
        &deployed(),
        &limits
    ));
}

#[test]
fn a_release_is_written_whole() {
    insta::assert_debug_snapshot!(eventful_run(&Limits::default()).release());
}

#[test]
fn an_output_is_stored_up_to_its_limit_and_fails_beyond() {
    let limits = Limits { output_bytes_max: 7, ..Limits::default() };
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let work = work(&task, &input, &limits, &revision);
    let run = fresh_run(&limits);
    for (output, fits) in
        [(json!({"n": 7}), true), (json!({"n": 77}), false), (json!("ü"), true), (json!("üüü"), false)]
    {
        match run.store(work, output.clone(), true, NOW) {
            Ok(write) => {
                assert!(fits, "{output}");
                assert_eq!(
                    show_write(&write),
                    "done for review v2 if Fence: claims 1 calls 0 reasks 0 crashes 0"
                );
            }
            Err(rejection) => {
                assert!(!fits, "{output}");
                assert_eq!(rejection.reason, FailureReason::ResultTooLarge);
            }
        }
    }
}

#[test]
fn a_failure_keeps_a_bounded_piece_of_what_was_said() {
    let limits = Limits::default();
    let (task, input, revision) = (Digit::new(None), json!("seven"), deployed());
    let mut run = fresh_run(&limits);
    run.after_reply(work(&task, &input, &limits, &revision), &reply(text(&"ß".repeat(10_000))));
    let rejection = Rejection::new(FailureReason::InvalidOutput, "ß".repeat(10_000));
    let write = run.fail(&rejection, NOW, &deployed(), &limits);
    let nightshift_core::record::State::Failed(failed) = write.record.state else { panic!("not failed") };
    assert_eq!(failed.excerpt.unwrap().chars().count(), 2_000, "with the mark of the cut");
    assert_eq!(failed.detail.chars().count(), 2_000);
    assert_eq!(failed.request_id.as_deref(), Some("req-1"));
}

#[test]
fn the_conditions_of_a_write_admit_its_owner_and_nobody_else() {
    let limits = Limits::default();
    let run = JobRun::new(record(claimed(NOW + SECOND, true)), &prompt());
    let release = run.release();
    assert_eq!(release.expect, Expect::Fence);
    let standing = record(claimed(NOW + SECOND, true));
    assert!(release.allowed(Some(&standing)));
    assert!(!release.allowed(None), "a record that is gone is not brought back");
    let mut taken_over = standing.clone();
    taken_over.token = OURS.to_owned();
    taken_over.version += 1;
    assert!(!release.allowed(Some(&taken_over)), "a worker that lost its claim");
    assert!(!release.took_effect(&taken_over));
    assert!(!release.allowed(Some(&release.record)), "a repeat finds what it wrote itself");
    assert!(release.took_effect(&release.record));
    let mut later = release.record.clone();
    later.version += 1;
    assert!(release.took_effect(&later), "and what followed from it");
    assert!(!release.took_effect(&standing));
    let (key, delivery, deployed) = (key(), delivery(), deployed());
    let first = ask(&key, &delivery, &deployed, &limits).first();
    assert!(first.took_effect(&first.record) && !first.allowed(Some(&first.record)));
}

#[test]
fn a_release_shows_the_budget_as_it_was_used() {
    let limits = Limits::default();
    let before = Budget { claims: 4, calls: 2, reasks: 1, crashes: 1, ..Budget::default() };
    let run = run_with(&limits, before);
    assert_eq!(show_write(&run.release()), "open v2 if Fence: claims 4 calls 2 reasks 1 crashes 1");
}
