//! I: one input, one paid answer, whatever is delivered how often.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{Answer, FailureClass};
use nightshift_core::next_step::RECEIVES_KEPT;
use nightshift_core::record::{Expect, Record, State};
use nightshift_ports::{Clock as _, PortErrorKind};
use nightshift_tests::memory::{LedgerFault, Says, again, message};
use serde_json::json;

use crate::stage::*;

/// The record that a finished job leaves, made by the worker itself.
async fn finished(text: &str) -> (Stage, Record) {
    let stage = Stage::new(by_text);
    let report = stage.invoke(vec![stage.message("m-1", text)]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    let record = stage.record(text);
    stage.world.on_call(by_text);
    (stage, record)
}

/// The record of a job that somebody has begun, and whose lease ends then.
async fn begun(text: &str, lease_s: i64) -> Stage {
    let (stage, mut record) = finished(text).await;
    let until_ms = stage.world.now_ms().saturating_add_signed(lease_s * 1_000);
    record.state = State::Claimed { lease_until_ms: until_ms, alone: false };
    record.token = "another worker's".to_owned();
    stage.world.put(record);
    stage
}

fn cause_of(kind: PortErrorKind) -> HandBackCause {
    match kind {
        PortErrorKind::Unreadable => HandBackCause::Unreadable,
        _ => HandBackCause::Ledger,
    }
}

fn all_kinds() -> [PortErrorKind; 5] {
    [
        PortErrorKind::Throttled,
        PortErrorKind::Unavailable,
        PortErrorKind::Misconfigured,
        PortErrorKind::Unreadable,
        PortErrorKind::Refused,
    ]
}

#[tokio::test(start_paused = true)]
async fn i1_a_claim_outlives_its_invocation_by_the_lease_margin() {
    let lease_margin_ms = 45_000;
    let mut stage = Stage::new(|_, _| good());
    stage.worker = stage.world.worker(Limits { lease_margin_ms, ..Limits::default() });
    let leases_ms = Arc::new(Mutex::new(Vec::new()));
    let log = leases_ms.clone();
    stage.world.on_write(move |_, write| {
        if let State::Claimed { lease_until_ms, .. } = write.record.state {
            log.lock().unwrap().push(lease_until_ms);
        }
        None
    });
    let (began_ms, time_left_ms) = (stage.world.now_ms(), 300_000);
    stage.worker.process_batch("i-1", time_left_ms, vec![stage.message("m-1", "one")]).await;
    assert_eq!(*leases_ms.lock().unwrap(), [began_ms + time_left_ms + lease_margin_ms]);
}

#[tokio::test(start_paused = true)]
async fn i1_one_conditional_write_claims_before_the_call_and_one_completes() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let log = events.clone();
    let stage = Stage::new(move |_, _| {
        log.lock().unwrap().push("call".to_owned());
        good()
    });
    let log = events.clone();
    stage.world.on_write(move |_, write| {
        log.lock().unwrap().push(format!("{} if {:?}", write.record.state.as_str(), write.expect));
        None
    });
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    assert_eq!(*events.lock().unwrap(), ["claimed if Absent", "call", "done if Fence"]);
}

#[tokio::test(start_paused = true)]
async fn i2_a_completed_input_is_acknowledged_without_a_call() {
    let (stage, record) = finished("one").await;
    let first = stage.message("m-1", "one");
    for message in [again(&first), stage.message("m-2", "one")] {
        let report = stage.invoke(vec![message]).await;
        assert_eq!(report.outcomes, [Outcome::Duplicate]);
        assert_eq!(reported(&report), [""; 0]);
    }
    assert_eq!(stage.calls(), 0);
    assert_eq!(stage.record("one"), record, "unchanged");
    assert_eq!(stage.world.duplicates(&key("one")), ["m-2"], "only another message is counted as one more");
}

#[tokio::test(start_paused = true)]
async fn i3_what_another_worker_has_is_left_to_it() {
    let stage = begun("one", 100).await;
    let record = stage.record("one");
    let report = stage.invoke(vec![again(&stage.message("m-1", "one"))]).await;
    assert_eq!(reported(&report), ["m-1"]);
    assert_eq!(report.outcomes, [handed_back(HandBackCause::HeldByOther)]);
    assert_eq!(stage.calls(), 0);
    assert_eq!(stage.record("one"), record, "untouched");
    let (handle, delay_s) = stage.world.visibility().pop().unwrap();
    assert_eq!(handle, "handle-m-1");
    assert!((100..=130).contains(&delay_s), "back when the lease has ended: {delay_s}");
}

#[tokio::test(start_paused = true)]
async fn i4_what_another_worker_died_of_runs_again_and_completes() {
    for lease_s in [0, -1, -10_000] {
        let stage = begun("one", lease_s).await;
        let report = stage.invoke(vec![again(&stage.message("m-1", "one"))]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{lease_s}");
        assert_eq!(stage.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn i5_two_parallel_invocations_of_one_input_make_one_call() {
    let slow = |_: usize, _: &_| Says::After(Duration::from_secs(5), Box::new(good()));
    let stage = Stage::new(slow);
    let other = stage.world.worker(Limits::default());
    let (first, second) = (stage.message("m-1", "one"), stage.message("m-2", "one"));
    let (a, b) = tokio::join!(stage.invoke(vec![first.clone()]), invoke(&other, vec![second.clone()]));
    assert_eq!(stage.calls(), 1);
    let (loser, message) = if a.outcomes == [Outcome::Succeeded] { (b, second) } else { (a, first) };
    assert_eq!(loser.outcomes, [handed_back(HandBackCause::HeldByOther)]);
    assert_eq!(reported(&loser), [message.message_id.as_str()]);
    assert!(stage.is_stored("one"));
    // Redelivered, it finds the result.
    assert_eq!(invoke(&other, vec![again(&message)]).await.outcomes, [Outcome::Duplicate]);
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn i6_a_transient_failure_releases_the_claim() {
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Transient, None));
    let message = stage.message("m-1", "one");
    let report = stage.invoke(vec![message.clone()]).await;
    assert_eq!(reported(&report), ["m-1"]);
    assert_eq!(stage.record("one").state, State::Open);
    stage.world.on_call(by_text);
    // At once, by another environment: no lease is in the way.
    let other = stage.world.worker(Limits::default());
    assert_eq!(invoke(&other, vec![again(&message)]).await.outcomes, [Outcome::Succeeded]);
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn i7_a_release_that_fails_acknowledges_nothing_and_the_lease_ends_by_itself() {
    for kind in all_kinds() {
        let stage = Stage::new(|_, _| Says::Fails(FailureClass::Capacity, None));
        stage.world.on_write(move |_, write| {
            (write.record.state == State::Open).then_some(LedgerFault::Fails(kind))
        });
        let message = stage.message("m-1", "one");
        let report = stage.invoke(vec![message.clone()]).await;
        assert_eq!(reported(&report), ["m-1"], "{kind}");
        assert_eq!(stage.record("one").state.as_str(), "claimed");
        stage.world.on_call(by_text);
        let report = stage.invoke(vec![again(&message)]).await;
        assert_eq!(report.outcomes, [handed_back(HandBackCause::HeldByOther)], "{kind}");
        tokio::time::sleep(Duration::from_secs(311)).await;
        let report = stage.invoke(vec![again(&again(&message))]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn i8_a_result_that_could_not_be_written_is_reported_and_ends_as_one() {
    let store_fails = |fault: LedgerFault| {
        move |_: usize, write: &nightshift_core::record::RecordWrite| {
            matches!(write.record.state, State::Done(_)).then(|| fault.clone())
        }
    };
    // Throttled, 5xx, and all the others: nothing was written.
    for kind in all_kinds() {
        let stage = Stage::new(by_text);
        stage.world.on_write(store_fails(LedgerFault::Fails(kind)));
        let message = stage.message("m-1", "one");
        let report = stage.invoke(vec![message.clone()]).await;
        assert_eq!(report.outcomes, [handed_back(cause_of(kind))], "{kind}");
        assert_eq!(reported(&report), ["m-1"]);
        stage.world.on_write(|_, _| None);
        tokio::time::sleep(Duration::from_secs(311)).await;
        assert_eq!(stage.invoke(vec![again(&message)]).await.outcomes, [Outcome::Succeeded], "{kind}");
        assert_eq!(stage.world.stored().len(), 1);
    }
    // The write took effect and its reply was lost: the redelivery finds it, and nothing is paid again.
    let stage = Stage::new(by_text);
    stage.world.on_write(store_fails(LedgerFault::ReplyLost(PortErrorKind::Unavailable)));
    let message = stage.message("m-1", "one");
    let report = stage.invoke(vec![message.clone()]).await;
    assert_eq!(reported(&report), ["m-1"]);
    assert_eq!(stage.invoke(vec![again(&message)]).await.outcomes, [Outcome::Duplicate]);
    assert_eq!(stage.calls(), 1);
    // The SDK's own repeat meets our own write: that is success.
    let stage = Stage::new(by_text);
    stage.world.on_write(store_fails(LedgerFault::RepeatedBySdk));
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    // The condition fails because another worker has taken the job over: its record stays as it is.
    let (stage, mut taken_over) = finished("one").await;
    taken_over.token = "another worker's".to_owned();
    taken_over.version = 9;
    let expected = taken_over.clone();
    let stage = Stage { world: world(by_text), ..stage };
    let stage = Stage { worker: stage.world.worker(Limits::default()), world: stage.world };
    stage.world.on_write(store_fails(LedgerFault::FindsInstead(Box::new(taken_over))));
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::LostClaim)]);
    assert_eq!(reported(&report), ["m-1"]);
    assert_eq!(stage.record("one"), expected);
}

#[tokio::test(start_paused = true)]
async fn i8_a_failure_that_could_not_be_written_has_no_dead_letter() {
    let fails = |fault: LedgerFault| {
        move |_: usize, write: &nightshift_core::record::RecordWrite| {
            matches!(write.record.state, State::Failed(_)).then(|| fault.clone())
        }
    };
    let refuses =
        |_: usize, _: &_| Says::Answer(Answer::Refused { why: "refusal".to_owned(), text: String::new() });
    let (_, mut taken_over) = finished("one").await;
    taken_over.token = "another worker's".to_owned();
    taken_over.version = 9;
    let mut faults: Vec<_> =
        all_kinds().into_iter().map(|kind| (LedgerFault::Fails(kind), cause_of(kind))).collect();
    faults.push((LedgerFault::ReplyLost(PortErrorKind::Unavailable), HandBackCause::Ledger));
    faults.push((LedgerFault::FindsInstead(Box::new(taken_over)), HandBackCause::LostClaim));
    faults.push((LedgerFault::Gone, HandBackCause::LostClaim));
    for (fault, cause) in faults {
        let stage = Stage::new(refuses);
        stage.world.on_write(fails(fault.clone()));
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [handed_back(cause)], "{fault:?}");
        assert_eq!(stage.world.letters().len(), 0, "{fault:?}: a letter that nothing in the ledger explains");
    }
    // Once it stands there, the redelivery sends the letter and makes no call.
    let stage = Stage::new(refuses);
    stage.world.on_write(fails(LedgerFault::ReplyLost(PortErrorKind::Unavailable)));
    let message = stage.message("m-1", "one");
    stage.invoke(vec![message.clone()]).await;
    let report = stage.invoke(vec![again(&message)]).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::Refused)]);
    assert_eq!((stage.calls(), stage.world.letters().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn i9_a_claim_that_could_not_be_written_makes_no_call() {
    for kind in all_kinds() {
        let stage = Stage::new(by_text);
        stage.world.on_write(move |_, _| Some(LedgerFault::Fails(kind)));
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [handed_back(cause_of(kind))], "{kind}");
        assert_eq!(reported(&report), ["m-1"]);
        assert_eq!(stage.calls(), 0);
        let take_back = usize::from(kind.may_have_taken_effect());
        assert_eq!(stage.world.writes().len(), 1 + take_back, "{kind}: retries of AWS calls are the SDK's");
    }
}

#[tokio::test(start_paused = true)]
async fn i9_a_claim_whose_reply_was_lost_is_taken_back_or_ends_with_its_lease() {
    // The last of the SDK's attempts may meet a throttle, after one that took effect.
    let kinds = [PortErrorKind::Unavailable, PortErrorKind::Throttled];
    for (replies_lost, kind) in [1, 2, 3].into_iter().flat_map(|lost| kinds.map(|kind| (lost, kind))) {
        let stage = Stage::new(by_text);
        stage.world.on_write(move |nth, _| match nth {
            1 if replies_lost == 3 => Some(LedgerFault::Fails(kind)),
            nth => (nth < replies_lost).then_some(LedgerFault::ReplyLost(kind)),
        });
        let message = stage.message("m-1", "one");
        let report = stage.invoke(vec![message.clone()]).await;
        assert_eq!(reported(&report), ["m-1"]);
        assert_eq!(stage.calls(), 0);
        let taken_back = replies_lost < 3;
        assert_eq!(stage.record("one").budget.calls, u32::from(!taken_back), "{replies_lost} {kind}");
        if !taken_back {
            tokio::time::sleep(Duration::from_secs(311)).await;
        }
        stage.world.on_write(|_, _| None);
        assert_eq!(
            stage.invoke(vec![again(&message)]).await.outcomes,
            [Outcome::Succeeded],
            "{replies_lost} {kind}"
        );
        assert_eq!(stage.calls(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn i10_a_refused_claim_whose_record_cannot_be_read_makes_no_call() {
    // There is no second read that could fail: the refused write itself brings the record, or nothing that parses.
    let (stage, record) = finished("one").await;
    stage.world.on_write(|_, _| Some(LedgerFault::Fails(PortErrorKind::Unreadable)));
    let report = stage.invoke(vec![stage.message("m-2", "one")]).await;
    assert_eq!(reported(&report), ["m-2"]);
    assert_eq!(stage.calls(), 0);
    assert_eq!(stage.record("one"), record);
}

#[tokio::test(start_paused = true)]
async fn i11_a_completed_record_past_its_expiry_is_compared_and_not_believed() {
    let (stage, mut record) = finished("one").await;
    record.expires_at_ms = stage.world.now_ms();
    stage.world.put(record.clone());
    let report = stage.invoke(vec![again(&stage.message("m-1", "one"))]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded], "DynamoDB has not deleted it yet");
    assert_eq!(stage.calls(), 1);
    assert!(stage.record("one").expires_at_ms > record.expires_at_ms);
    // One millisecond earlier it still counts.
    let (stage, mut record) = finished("one").await;
    record.expires_at_ms = stage.world.now_ms() + 1;
    stage.world.put(record);
    assert_eq!(stage.invoke(vec![stage.message("m-2", "one")]).await.outcomes, [Outcome::Duplicate]);
}

#[tokio::test(start_paused = true)]
async fn i12_a_record_that_changes_between_write_and_read_is_asked_again_and_not_forever() {
    // Gone once: claimed after all.
    let stage = Stage::new(by_text);
    stage.world.on_write(|nth, _| (nth == 0).then_some(LedgerFault::Gone));
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    // Gone each time.
    let stage = Stage::new(by_text);
    stage.world.on_write(|_, _| Some(LedgerFault::Gone));
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(reported(&report), ["m-1"]);
    assert_eq!((stage.calls(), stage.world.writes().len()), (0, 4));
    // Another state each time.
    let (stage, mut record) = finished("one").await;
    record.state = State::Open;
    record.token = "another worker's".to_owned();
    stage.world.on_write(move |_, _| {
        record.version += 10;
        Some(LedgerFault::FindsInstead(Box::new(record.clone())))
    });
    let report = stage.invoke(vec![stage.message("m-2", "one")]).await;
    assert_eq!(reported(&report), ["m-2"]);
    assert_eq!((stage.calls(), stage.world.writes().len()), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn i13_changed_content_is_another_key_and_overwrites_nothing() {
    let (stage, record) = finished("one").await;
    let mut changed = stage.message("m-1", "one");
    changed.body = ticket("one, and something else");
    let report = stage.invoke(vec![again(&changed)]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    assert_eq!(stage.record("one"), record);
    assert_eq!(stage.world.stored().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn i14_the_order_of_members_does_not_matter() {
    let stage = Stage::new(by_text);
    let bodies = [
        r#"{"task":"categorize_ticket","input":{"subject":"s","text":"t"}}"#,
        r#"{"input":{"text":"t","subject":"s"},"task":"categorize_ticket"}"#,
        "{ \"input\" : {\"te\\u0078t\":\"t\",\"subject\":\"s\"},\n\"reference\":\"r\", \"task\":\"categorize_ticket\"}",
    ];
    for (nth, body) in bodies.into_iter().enumerate() {
        let report = stage.invoke(vec![message(&stage.world, &format!("m-{nth}"), body)]).await;
        assert_eq!(reported(&report), [""; 0]);
    }
    assert_eq!((stage.calls(), stage.world.record_count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn i15_falsy_inputs_are_refused_each_under_a_key_of_its_own() {
    let stage = Stage::new(by_text);
    let inputs = ["0", "false", "\"\"", "[]", "{}", "null"];
    let batch = inputs
        .iter()
        .enumerate()
        .map(|(nth, input)| {
            let body = format!("{{\"task\":\"categorize_ticket\",\"input\":{input}}}");
            message(&stage.world, &format!("m-{nth}"), body)
        })
        .collect();
    let report = stage.invoke(batch).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::InvalidInput); 6]);
    assert_eq!(stage.world.record_count(), inputs.len());
    assert_eq!(stage.calls(), 0);
    let falsy_text = ["", " ", "0", "false", "null"];
    let keys: std::collections::BTreeSet<_> = falsy_text.iter().map(|text| key(text)).collect();
    assert_eq!(keys.len(), falsy_text.len());
}

#[tokio::test(start_paused = true)]
async fn i16_a_record_that_does_not_parse_is_reported_and_at_last_explained() {
    let (stage, record) = finished("one").await;
    stage.world.on_write(|_, _| Some(LedgerFault::Fails(PortErrorKind::Unreadable)));
    let mut message = stage.message("m-2", "one");
    let last_chance = Limits::default().receive_count_max - RECEIVES_KEPT;
    for receive_count in [1, 2, last_chance - 1] {
        message.receive_count = receive_count;
        let report = stage.invoke(vec![message.clone()]).await;
        assert_eq!(reported(&report), ["m-2"], "receive {receive_count}");
    }
    // Before SQS would move it to `crashed` without a reason, it gets one.
    message.receive_count = last_chance;
    let report = stage.invoke(vec![message]).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::Internal)]);
    assert_eq!(reason(&stage.world.letters()[0]), "internal");
    let said = crate::stage::context(&stage.world.letters()[0]);
    assert!(
        said["detail"].as_str().unwrap().ends_with("deploy that one, then send the job again."),
        "{said}"
    );
    assert_eq!(said.get("record_version"), None, "it tells of no failure that stands");
    let counted = stage
        .world
        .metrics()
        .iter()
        .flat_map(|batch| batch.data.clone())
        .any(|datum| datum.name == "RecordsUnreadable" && datum.dimensions.len() == 1);
    assert!(counted, "a number of its own");
    assert_eq!(stage.calls(), 0);
    assert_eq!(stage.record("one"), record, "nothing is guessed over it");
}

#[tokio::test(start_paused = true)]
async fn i17_the_same_input_twice_in_a_batch_makes_one_call() {
    // Delivered twice by SQS, and sent twice.
    for second_id in ["m-1", "m-2"] {
        let stage = Stage::new(by_text);
        let report = stage.invoke(vec![stage.message("m-1", "one"), stage.message(second_id, "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded, Outcome::Duplicate]);
        assert_eq!(stage.calls(), 1);
    }
    // Where it fails, each message settles for itself.
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Rejected, None));
    let report = stage.invoke(vec![stage.message("m-1", "one"), stage.message("m-2", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::RequestRejected); 2]);
    assert_eq!((stage.calls(), stage.world.letters().len()), (1, 2));
    // Where it is handed back, so are all of them.
    let stage = Stage::new(|_, _| Says::Fails(FailureClass::Account, None));
    let report = stage.invoke(vec![stage.message("m-1", "one"), stage.message("m-2", "one")]).await;
    assert_eq!(reported(&report), ["m-1", "m-2"]);
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn i18_the_key_is_that_of_the_input_as_it_was_sent() {
    let texts = ["one", " spaces stay ", "line\r\nends stay", "e\u{301} is not \u{e9}", "\u{202e}rtl \u{0}"];
    let stage = Stage::new(by_text);
    let batch: Vec<_> =
        texts.iter().enumerate().map(|(n, text)| stage.message(&format!("m-{n}"), text)).collect();
    let bodies: Vec<_> = batch.iter().map(|message| message.body.clone()).collect();
    stage.invoke(batch).await;
    for (text, body) in texts.iter().zip(bodies) {
        let sent: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            stage.record(text).key,
            InputHash::of_job("categorize_ticket", &sent["input"]),
            "{text:?}"
        );
    }
    assert_eq!(stage.world.record_count(), texts.len());
}

#[tokio::test(start_paused = true)]
async fn i19_no_call_is_begun_that_cannot_finish() {
    // 10 s of the time are the deadline's margin, and a call is taken to last 30 s before one was seen.
    for (time_left_ms, calls) in [(0, 0), (1_000, 0), (9_000, 0), (12_000, 0), (39_000, 0), (41_000, 1)] {
        let stage = Stage::new(by_text);
        let report =
            stage.worker.process_batch("request", time_left_ms, vec![stage.message("m-1", "one")]).await;
        assert_eq!(stage.calls(), calls, "{time_left_ms}");
        if calls == 0 {
            assert_eq!(report.outcomes, [handed_back(HandBackCause::Deadline)], "{time_left_ms}");
            assert_eq!(reported(&report), ["m-1"]);
        }
    }
    // What is open when the time ends is cut off and handed back in time.
    let stage = Stage::new(|_, _| Says::Hangs);
    let started = tokio::time::Instant::now();
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(reported(&report), ["m-1"]);
    assert!(started.elapsed() < Duration::from_millis(TIMEOUT_MS), "{:?}", started.elapsed());
    assert_eq!(stage.record("one").state, State::Open, "released");
}

#[tokio::test(start_paused = true)]
async fn i20_two_tasks_with_equal_input_have_two_keys() {
    let stage = Stage::new(by_text);
    let body = |task: &str| json!({"task": task, "input": {"text": "one"}}).to_string();
    let report = stage
        .invoke(vec![
            message(&stage.world, "m-1", body("categorize_ticket")),
            message(&stage.world, "m-2", body("summarize_email")),
        ])
        .await;
    assert_eq!(
        report.outcomes,
        [Outcome::Succeeded, Outcome::DeadLettered(FailureReason::InvalidInput)],
        "an input of the one is none of the other"
    );
    assert_eq!(stage.world.record_count(), 2);
    let summary = InputHash::of_job("summarize_email", &json!({"text": "one"}));
    assert_eq!(failed_with(&stage.world.record(&summary).unwrap()), Some(FailureReason::InvalidInput));
    assert!(stage.is_stored("one"));
}

#[tokio::test(start_paused = true)]
async fn i21_every_write_of_a_run_is_conditional() {
    // Beside the peers' scenarios: no write is ever made without saying what must stand there.
    let stage = Stage::new(|nth, _| match nth {
        0 => Says::Fails(FailureClass::Transient, None),
        1 => Says::Text("no".to_owned()),
        _ => good(),
    });
    stage.invoke(vec![stage.message("m-1", "one")]).await;
    let writes = stage.world.writes();
    assert_eq!(writes[0].expect, Expect::Absent);
    assert!(writes[1..].iter().all(|write| write.expect == Expect::Fence), "{writes:?}");
    let states: Vec<_> = writes.iter().map(|write| write.record.state.as_str()).collect();
    assert_eq!(states, ["claimed", "claimed", "claimed", "done"], "each call is counted before it is made");
}
