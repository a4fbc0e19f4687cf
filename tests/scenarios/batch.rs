//! B, F and C: the records of a batch, each for itself.

use std::time::Duration;

use nightshift_core::control::Control;
use nightshift_core::failure::FailureReason;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::FailureClass;
use nightshift_core::record::State;
use nightshift_shell::runtime::Handler as _;
use nightshift_tests::memory::{LastStep, START_MS, Says, again, message};
use nightshift_worker_function::handler::{BatchHandler, InvocationError};
use serde_json::json;
use tokio::time::Instant;

use crate::stage::*;

fn failing(text: &str) -> String {
    format!("{text} {FAILS}")
}

#[tokio::test(start_paused = true)]
async fn b1_two_good_records_are_stored_and_none_is_reported() {
    let stage = Stage::new(by_text);
    let report = stage.invoke(vec![stage.message("m-1", "one"), stage.message("m-2", "two")]).await;
    assert_eq!(reported(&report), [""; 0]);
    assert!(stage.is_stored("one") && stage.is_stored("two"));
    assert_eq!(stage.calls(), 2);
}

/// A job whose worker died may have killed it: beside it no other call is open.
#[tokio::test(start_paused = true)]
async fn a_job_whose_worker_died_is_worked_on_when_all_others_have_ended() {
    let takes = Duration::from_secs(20);
    for neighbours in [0, 2] {
        let stage = Stage::new(move |_, _| Says::After(takes, Box::new(good())));
        // Killed in mid-call; SQS delivers it again after its visibility timeout.
        let died = stage.message("m-1", "one");
        let _ = tokio::time::timeout(takes / 2, stage.invoke(vec![died.clone()])).await;
        tokio::time::advance(Duration::from_millis(Limits::default().visibility_timeout_ms)).await;
        let mut batch = vec![again(&died)];
        batch.extend((0..neighbours).map(|n| stage.message(&format!("m-2{n}"), &format!("two {n}"))));
        let began = Instant::now();
        let report = stage.invoke(batch).await;
        assert_eq!(report.outcomes, vec![Outcome::Succeeded; 1 + neighbours]);
        let rounds = if neighbours == 0 { 1 } else { 2 };
        assert_eq!(began.elapsed().as_secs() / takes.as_secs(), rounds, "{neighbours} neighbours");
        let claims = stage.world.writes().into_iter().filter(|write| write.record.key == key("one"));
        let alone = claims.filter(|write| matches!(write.record.state, State::Claimed { alone: true, .. }));
        assert!(alone.count() >= 1, "{neighbours} neighbours");
    }
}

/// The adapter keeps the timeout; the worker cuts off what does not, and not the answer that comes at the last moment.
#[tokio::test(start_paused = true)]
async fn an_answer_at_the_end_of_its_timeout_is_stored() {
    for (later_ms, calls) in [(0, 1), (60_000, 2)] {
        let stage = Stage::new(move |nth, request| {
            let takes_ms = if nth == 0 { request.timeout_ms + later_ms } else { 1 };
            Says::After(Duration::from_millis(takes_ms), Box::new(good()))
        });
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{later_ms} ms later");
        assert_eq!(stage.calls(), calls, "{later_ms} ms later");
    }
}

#[tokio::test(start_paused = true)]
async fn b2_exactly_the_failing_records_are_reported() {
    let stage = Stage::new(by_text);
    let batch = vec![
        stage.message("m-1", &failing("one")),
        stage.message("m-2", "two"),
        stage.message("m-3", &failing("three")),
    ];
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), ["m-1", "m-3"]);
    assert_eq!(stage.world.stored(), [key("two")]);
}

#[tokio::test(start_paused = true)]
async fn b3_when_all_fail_all_are_reported_cold_and_warm_alike() {
    let throttled = |_: usize, _: &_| Says::Fails(FailureClass::Capacity, None);
    let stage = Stage::new(throttled);
    let batch = vec![stage.message("m-1", "one"), stage.message("m-2", "two")];
    let cold = stage.invoke(batch.clone()).await;
    assert_eq!(reported(&cold), ["m-1", "m-2"]);
    let warm = stage.invoke(batch.iter().map(again).collect()).await;
    assert_eq!(warm, cold, "the same both times");
    // Nothing of the first two is left over for others.
    let others = stage.invoke(vec![stage.message("m-3", "three"), stage.message("m-4", "four")]).await;
    assert_eq!(reported(&others), ["m-3", "m-4"]);
    stage.world.on_call(|_, _| good());
    let recovered = stage.invoke(batch.iter().map(again).collect()).await;
    assert_eq!(reported(&recovered), [""; 0]);
    assert!(stage.is_stored("one") && stage.is_stored("two"));
}

#[tokio::test(start_paused = true)]
async fn b4_what_is_reported_are_the_ids_of_failed_records_each_once() {
    let stage = Stage::new(by_text);
    let mut batch = vec![
        stage.message("m-1", "one"),
        stage.message("m-2", &failing("two")),
        message(&stage.world, "m-3", "no JSON"),
        stage.message("m-4", "one"),
        stage.message("m-5", &failing("two")),
        message(&stage.world, "m-6", ""),
        message(&stage.world, "m-7", json!({"task": "unknown", "input": {}}).to_string()),
    ];
    // SQS may deliver a message twice in one batch.
    batch.push(batch[1].clone());
    let report = stage.invoke(batch.clone()).await;
    assert_eq!(report.outcomes.len(), batch.len());
    for (message, outcome) in batch.iter().zip(&report.outcomes) {
        let failed = matches!(outcome, Outcome::HandedBack(_));
        assert_eq!(
            failed,
            reported(&report).contains(&message.message_id.as_str()),
            "{message:?} {outcome:?}"
        );
    }
    let mut distinct = report.failed_message_ids.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct, ["m-2", "m-5"]);
    assert_eq!(distinct.len(), report.failed_message_ids.len(), "no id twice");
}

#[tokio::test(start_paused = true)]
async fn b5_what_is_no_batch_is_an_error_and_no_call() {
    let world = world(by_text);
    let handler = BatchHandler::new(world.worker(Limits::default()), world.clone(), None);
    for event in ["[]", "\"Records\"", "{}", "null", "{\"Records\": {}}", "5", "", "[{\"messageId\": \"m\"}]"]
    {
        let answer = handler.handle("request", START_MS + TIMEOUT_MS, event).await;
        assert!(matches!(answer, Err(InvocationError::NotABatch(_))), "{event}: {answer:?}");
    }
    assert_eq!(world.calls().len(), 0);
    assert_eq!(world.writes().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn b6_a_body_that_is_no_job_is_resolved_for_itself() {
    let stage = Stage::new(by_text);
    let bodies = [
        (json!({"task": "categorize_ticket", "input": {"text": 7}}).to_string(), "invalid_input"),
        (
            json!({"task": "categorize_ticket", "input": {"text": "x", "more": 1}}).to_string(),
            "invalid_input",
        ),
        (json!({"task": "categorize_ticket", "input": {}}).to_string(), "invalid_input"),
        (json!({"task": "translate", "input": {"text": "x"}}).to_string(), "unknown_task"),
        (json!({"task": "categorize_ticket", "inputs": {}}).to_string(), "invalid_message"),
        ("Where is my card?".to_owned(), "invalid_message"),
    ];
    let mut batch = vec![stage.message("good-1", "one")];
    for (nth, (body, _)) in bodies.iter().enumerate() {
        batch.push(message(&stage.world, &format!("bad-{nth}"), body.clone()));
    }
    batch.push(stage.message("good-2", "two"));
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), [""; 0]);
    assert_eq!(stage.world.stored().len(), 2);
    assert_eq!(stage.calls(), 2, "no call for what is no job");
    let letters = stage.world.letters();
    assert_eq!(letters.len(), bodies.len());
    for (body, expected) in bodies {
        let letter = letters.iter().find(|letter| letter.body == body).unwrap();
        assert_eq!(reason(letter), expected, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn b7_a_body_of_another_service_is_refused_alone() {
    let stage = Stage::new(by_text);
    let s3 = json!({"Records": [{"eventSource": "aws:s3", "s3": {"object": {"key": "a"}}}]}).to_string();
    let sns = json!({"Type": "Notification", "MessageId": "x", "Message": ticket("inside")}).to_string();
    let report = stage
        .invoke(vec![
            message(&stage.world, "m-s3", s3.clone()),
            stage.message("m-1", "one"),
            message(&stage.world, "m-sns", sns.clone()),
        ])
        .await;
    assert_eq!(reported(&report), [""; 0]);
    assert_eq!(stage.world.stored(), [key("one")]);
    for (letter, body) in stage.world.letters().iter().zip([s3, sns]) {
        assert_eq!(letter.body, body, "byte for byte");
        assert_eq!(reason(letter), "invalid_message");
    }
}

/// F1 to F3 are about FIFO queues: after a failure in a group, its later messages must not be settled. Ours is a
/// standard queue, which has no groups and no order to keep; what holds instead is that each record is settled for
/// itself and exactly the failing ones are reported. A stack on a FIFO queue is not offered: a job that waits for
/// capacity for hours would hold up its whole group.
#[tokio::test(start_paused = true)]
async fn f1_on_a_standard_queue_a_failure_holds_no_later_record_up() {
    let stage = Stage::new(by_text);
    let batch = vec![
        stage.message("m-1", "one"),
        stage.message("m-2", &failing("two")),
        stage.message("m-3", "three"),
    ];
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), ["m-2"], "FIFO would report m-2 and m-3");
    assert!(stage.is_stored("one") && stage.is_stored("three"));
}

#[tokio::test(start_paused = true)]
async fn f2_on_a_standard_queue_there_are_no_groups_to_stop() {
    let stage = Stage::new(by_text);
    let batch = vec![
        stage.message("m-1", "1 a"),
        stage.message("m-2", "1 b"),
        stage.message("m-3", &failing("2 a")),
        stage.message("m-4", "2 b"),
        stage.message("m-5", &failing("3 a")),
    ];
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), ["m-3", "m-5"], "FIFO would report m-4 too");
    assert!(stage.is_stored("1 a") && stage.is_stored("1 b") && stage.is_stored("2 b"));
}

#[tokio::test(start_paused = true)]
async fn f3_on_a_standard_queue_every_good_record_is_stored() {
    let stage = Stage::new(by_text);
    let batch = vec![
        stage.message("m-1", &failing("1 a")),
        stage.message("m-2", "1 b"),
        stage.message("m-3", &failing("2 a")),
        stage.message("m-4", "2 b"),
        stage.message("m-5", "3 a"),
    ];
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), ["m-1", "m-3"], "FIFO would report m-2 and m-4 too");
    assert!(stage.is_stored("1 b") && stage.is_stored("2 b") && stage.is_stored("3 a"));
}

#[tokio::test(start_paused = true)]
async fn c1_the_order_in_which_calls_end_does_not_change_the_answer() {
    let mut reports = Vec::new();
    // All a second; each slower than the one before; each faster than the one before.
    for delay_s in [|_: u64| 1, |nth: u64| 1 + nth, |nth: u64| 10 - nth] {
        let stage = Stage::new(move |nth, request| {
            let says = match by_text(nth, request) {
                Says::Fails(..) => Says::Answer(nightshift_core::model::Answer::Refused {
                    why: "refusal".to_owned(),
                    text: String::new(),
                }),
                says => says,
            };
            Says::After(Duration::from_secs(delay_s(nth as u64)), Box::new(says))
        });
        let text =
            |nth: usize| if nth.is_multiple_of(3) { failing(&nth.to_string()) } else { nth.to_string() };
        let batch: Vec<_> = (0..10).map(|nth| stage.message(&format!("m-{nth}"), &text(nth))).collect();
        let started = Instant::now();
        let report = stage.invoke(batch).await;
        assert!(started.elapsed() <= Duration::from_secs(11), "side by side: {:?}", started.elapsed());
        for nth in 0..10 {
            assert_eq!(stage.is_stored(&text(nth)), !nth.is_multiple_of(3));
        }
        reports.push(report);
    }
    assert_eq!(reports[0], reports[1]);
    assert_eq!(reports[0], reports[2]);
    assert_eq!(reports[0].outcomes[0], Outcome::DeadLettered(FailureReason::Refused));
    assert_eq!(reports[0].outcomes[1], Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_an_environment_waits_for_or_believes_ages_while_it_is_frozen() {
    // Beside the peers' scenarios. Lambda freezes the process between invocations, and monotonic time with it.
    let stage = Stage::new(|nth, _| match nth {
        0 => Says::Fails(FailureClass::Capacity, Some(600)),
        _ => good(),
    });
    let message = stage.message("m-1", "one");
    let report = stage.invoke(vec![message.clone()]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::Capacity)]);
    stage.world.freeze(Duration::from_secs(300));
    let report = stage.invoke(vec![again(&message)]).await;
    assert_eq!((report.outcomes, stage.calls()), (vec![handed_back(HandBackCause::Capacity)], 1));
    stage.world.freeze(Duration::from_secs(301));
    let report = stage.invoke(vec![again(&again(&message))]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    stage.world.set_control(&Control::paused_by_operator(START_MS, "by hand", "somebody"));
    stage.world.freeze(Duration::from_secs(6));
    let report = stage.invoke(vec![stage.message("m-2", "two")]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::Paused)]);
}

#[tokio::test(start_paused = true)]
async fn b8_a_record_that_waits_for_capacity_leaves_its_neighbours_their_answers() {
    // Beside the peers' scenarios: the neighbours wait with it and are stored in the same invocation.
    let stage = Stage::new(|nth, _| match nth {
        0 => Says::Fails(FailureClass::Capacity, Some(20)),
        _ => good(),
    });
    let batch: Vec<_> = (0..4).map(|nth| stage.message(&format!("m-{nth}"), &nth.to_string())).collect();
    let started = Instant::now();
    let report = stage.invoke(batch).await;
    assert_eq!(reported(&report), [""; 0]);
    assert_eq!(stage.calls(), 5);
    assert!(started.elapsed() >= Duration::from_secs(20));
    assert!(!report.outcomes.contains(&handed_back(HandBackCause::Capacity)));
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_at_the_end_costs_the_records_no_answer() {
    for hangs in [LastStep::Publication, LastStep::Settlement] {
        let stage = Stage::new(|_, _| good());
        stage.world.hang(hangs);
        // The answer has a way to go before Lambda has it.
        let kill = Duration::from_millis(TIMEOUT_MS - 250);
        let answered = tokio::time::timeout(kill, stage.invoke(vec![stage.message("m-1", "one")])).await;
        let report = answered.unwrap_or_else(|_| panic!("{hangs:?}: Lambda kills it first"));
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{hangs:?}");
        assert!(stage.is_stored("one"), "{hangs:?}");
    }
}
