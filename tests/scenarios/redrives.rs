//! Dead letters that are sent back: once, twice, by way of `crashed`, and with what others wrote on them.

use nightshift_core::dead_letter::{CONTEXT_ATTRIBUTE, DeadLetter};
use nightshift_core::failure::FailureReason;
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_core::metric::Outcome;
use nightshift_core::model::{Answer, ModelRequest};
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::record::{Record, RecordWrite, State};
use nightshift_core::redrive::{BeforeSending, Received};
use nightshift_ports::Clock;
use nightshift_tests::memory::{LedgerFault, Says, again};
use nightshift_worker::Message;
use std::time::Duration;

use crate::stage::{Stage, by_text, context, ticket};

const REFUSED: Outcome = Outcome::DeadLettered(FailureReason::Refused);

fn refuses(_nth: usize, _request: &ModelRequest) -> Says {
    Says::Answer(Answer::Refused { why: "refusal".to_owned(), text: String::new() })
}

/// A stage on which the ticket has been refused once, a minute ago, and its dead letter.
async fn refused(text: &str) -> (Stage, DeadLetter) {
    let stage = Stage::new(refuses);
    assert_eq!(stage.invoke(vec![stage.message("m-1", text)]).await.outcomes, [REFUSED]);
    let letter = stage.world.letters().remove(0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    (stage, letter)
}

/// The letter, sent back now: a new id and a new time, body and attributes as they were.
fn sent_back(stage: &Stage, letter: &DeadLetter, id: &str) -> Message {
    let (body, attributes, group) = (letter.body.clone(), letter.attributes.clone(), letter.group.clone());
    Message { body, attributes, group, ..stage.message(id, "") }
}

#[tokio::test(start_paused = true)]
async fn a_letter_keeps_its_senders_group_however_often_it_fails() {
    let stage = Stage::new(refuses);
    let group = Some("tenant-1".to_owned());
    let first = Message { group: group.clone(), ..stage.message("m-1", "one") };
    stage.invoke(vec![first]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let letter = stage.world.letters().remove(0);
    assert_eq!(letter.group, group);
    stage.invoke(vec![sent_back(&stage, &letter, "m-2")]).await;
    assert_eq!(stage.world.letters().remove(1).group, group);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_is_sent_back_twice_is_paid_for_once() {
    let (stage, letter) = refused("one").await;
    let first = sent_back(&stage, &letter, "m-2");
    assert_eq!(stage.invoke(vec![first]).await.outcomes, [REFUSED]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Sent long after the second failure, and under an id that nobody has seen.
    for id in ["m-3", "m-4"] {
        let copy = sent_back(&stage, &letter, id);
        assert_eq!(stage.invoke(vec![copy]).await.outcomes, [Outcome::Duplicate]);
    }
    assert_eq!((stage.calls(), stage.world.letters().len()), (2, 2));
    // The second failure's own letter is another matter.
    let second = stage.world.letters().remove(1);
    assert_eq!(context(&second)["redrives"], 1);
    let next = sent_back(&stage, &second, "m-5");
    assert_eq!(stage.invoke(vec![next]).await.outcomes, [REFUSED]);
    assert_eq!((stage.calls(), stage.record("one").history.len()), (3, 2));
}

/// A redrive that could not delete what it sent finds it again as it was: without a version, and older than the failure.
#[tokio::test(start_paused = true)]
async fn a_message_that_comes_back_to_crashed_after_its_job_has_failed_is_settled() {
    let stage = Stage::new(refuses);
    let message = stage.message("m-1", "one");
    let received = Received { sent_at_ms: message.sent_at_ms, redrive_of: None };
    let before = |standing: Option<&Record>| {
        BeforeSending::of(standing, received, "token", stage.world.now_ms(), 1_000)
    };
    assert_eq!(before(None), BeforeSending::Send, "the ledger knows nothing of it");
    stage.world.fail_letters(true);
    let report = stage.invoke(vec![message.clone()]).await;
    assert_eq!(report.failed_message_ids, ["m-1"]);
    assert_eq!(before(Some(&stage.record("one"))), BeforeSending::Send, "its letter is not sent");
    stage.world.fail_letters(false);
    assert_eq!(stage.invoke(vec![again(&message)]).await.outcomes, [REFUSED]);
    assert_eq!(before(Some(&stage.record("one"))), BeforeSending::Settled);
    assert_eq!((stage.calls(), stage.world.letters().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn both_copies_of_a_letter_in_one_batch_make_one_call() {
    let (stage, letter) = refused("one").await;
    let batch = vec![sent_back(&stage, &letter, "m-2"), sent_back(&stage, &letter, "m-3")];
    assert_eq!(stage.invoke(batch).await.outcomes, [REFUSED, Outcome::Duplicate]);
    assert_eq!(stage.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_what_has_succeeded_since_is_acknowledged_whatever_is_deployed() {
    let (stage, letter) = refused("one").await;
    stage.world.on_call(by_text);
    let first = sent_back(&stage, &letter, "m-2");
    assert_eq!(stage.invoke(vec![first]).await.outcomes, [Outcome::Succeeded]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let newer = stage.world.worker_of(
        Box::new(nightshift_tasks::registry()),
        nightshift_core::limits::Limits::default(),
        stage.world.clone(),
        9,
    );
    let copy = sent_back(&stage, &letter, "m-3");
    assert_eq!(crate::stage::invoke(&newer, vec![copy]).await.outcomes, [Outcome::Duplicate]);
    assert_eq!(stage.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_could_not_be_sent_is_sent_by_whoever_comes_back() {
    let (stage, letter) = refused("one").await;
    let first = sent_back(&stage, &letter, "m-2");
    stage.world.fail_letters(true);
    let report = stage.invoke(vec![first.clone()]).await;
    assert_eq!(report.failed_message_ids, ["m-2"], "it failed again, and its letter is not sent");
    stage.world.fail_letters(false);
    // SQS gives up on it, and somebody moves it back from `crashed`: a new id, and the first letter's context. It looks
    // like a copy of that letter; it is the last that can send the second one.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let from_crashed = sent_back(&stage, &letter, "m-3");
    assert_eq!(stage.invoke(vec![from_crashed]).await.outcomes, [REFUSED]);
    assert_eq!((stage.calls(), stage.world.letters().len()), (2, 2));
    // And its own redelivery, should it have been there all the time, sends it once more rather than never.
    assert_eq!(stage.invoke(vec![again(&first)]).await.outcomes, [REFUSED]);
    assert_eq!(stage.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_letter_of_a_release_that_said_no_version_goes_by_its_time_of_sending() {
    let (stage, mut letter) = refused("one").await;
    for (_, attribute) in letter.attributes.iter_mut().filter(|(name, _)| name == CONTEXT_ATTRIBUTE) {
        let AttributeValue::Text(text) = &mut attribute.value else { panic!("no text") };
        let mut said: serde_json::Value = serde_json::from_str(text).unwrap();
        said.as_object_mut().unwrap().remove("record_version").unwrap();
        *text = said.to_string();
    }
    let late = sent_back(&stage, &letter, "m-2");
    let early = Message { sent_at_ms: late.sent_at_ms - 3_600_000, ..sent_back(&stage, &letter, "m-3") };
    assert_eq!(stage.invoke(vec![early]).await.outcomes, [REFUSED]);
    assert_eq!(stage.calls(), 1, "sent before the failure: a duplicate");
    assert_eq!(stage.invoke(vec![late]).await.outcomes, [REFUSED]);
    assert_eq!(stage.calls(), 2, "sent after it: work");
}

#[tokio::test(start_paused = true)]
async fn a_senders_own_context_breaks_nothing() {
    for said in ["{\"record_version\":99}", "{\"record_version\":2}", "{}", "not JSON", "[[[[", ""] {
        let stage = Stage::new(refuses);
        let mut message = stage.message("m-1", "one");
        let value = AttributeValue::Text(said.to_owned());
        message.attributes =
            vec![(CONTEXT_ATTRIBUTE.to_owned(), Attribute { data_type: "String".to_owned(), value })];
        stage.world.fail_letters(true);
        let report = stage.invoke(vec![message.clone()]).await;
        assert_eq!(report.failed_message_ids, ["m-1"], "{said}");
        stage.world.fail_letters(false);
        assert_eq!(stage.invoke(vec![again(&message)]).await.outcomes, [REFUSED], "{said}");
        assert_eq!((stage.calls(), stage.world.letters().len()), (1, 1), "{said}");
        assert_eq!(context(&stage.world.letters()[0])["record_version"], 2, "ours takes its place: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mended_body_with_the_letters_attributes_is_another_job() {
    let (stage, letter) = refused("one").await;
    assert_eq!(stage.invoke(vec![stage.message("m-2", "mended")]).await.outcomes, [REFUSED]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mended = Message { body: ticket("mended"), ..sent_back(&stage, &letter, "m-3") };
    assert_eq!(stage.invoke(vec![mended]).await.outcomes, [REFUSED]);
    assert_eq!(stage.calls(), 3, "the version is of the other input's record and says nothing of this one");
}

/// A job without a task that exists, refused a minute ago, and its letter sent back.
async fn unknown_task() -> (Stage, Message) {
    let stage = Stage::new(by_text);
    let body = ticket("one").replace("categorize_ticket", "no_such_task");
    assert_ne!(body, ticket("one"));
    let first = Message { body, ..stage.message("m-1", "") };
    assert_eq!(stage.invoke(vec![first]).await.outcomes, [UNKNOWN_TASK]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let again = sent_back(&stage, &stage.world.letters().remove(0), "m-2");
    (stage, again)
}

const UNKNOWN_TASK: Outcome = Outcome::DeadLettered(FailureReason::UnknownTask);

fn written(stage: &Stage) -> Vec<State> {
    stage.world.writes().into_iter().map(|write| write.record.state).collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_replaces_a_failure_is_a_change_of_state_for_who_acts_on_the_stream() {
    let (stage, again) = unknown_task().await;
    assert_eq!(stage.invoke(vec![again]).await.outcomes, [UNKNOWN_TASK]);
    // The second is a claim that the standing failure refuses.
    let states = written(&stage);
    assert!(
        matches!(
            states.as_slice(),
            [State::Failed(_), State::Failed(_), State::Claimed { alone: false, .. }, State::Failed(_)]
        ),
        "{states:?}"
    );
    assert_eq!((stage.calls(), stage.world.letters().len()), (0, 2));
    let record = stage.world.writes().pop().unwrap().record;
    assert_eq!((record.budget.calls, record.version, record.redrives), (0, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_claim_over_a_failure_whose_answer_is_lost_is_given_back_and_fails_by_the_next_delivery() {
    let (stage, first) = unknown_task().await;
    let claimed = |write: &RecordWrite| matches!(write.record.state, State::Claimed { .. });
    stage.world.on_write(move |_, write| {
        claimed(write).then_some(LedgerFault::ReplyLost(PortErrorKind::Unavailable))
    });
    let report = stage.invoke(vec![first.clone()]).await;
    assert_eq!(report.failed_message_ids, ["m-2"]);
    // Where the SDK asks again it finds our own claim, and goes on.
    stage.world.on_write(move |_, write| claimed(write).then_some(LedgerFault::RepeatedBySdk));
    assert_eq!(stage.invoke(vec![again(&first)]).await.outcomes, [UNKNOWN_TASK]);
    assert_eq!((stage.calls(), stage.world.letters().len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_claim_over_a_failure_is_given_back_where_the_failure_cannot_be_written() {
    for kind in [PortErrorKind::Unavailable, PortErrorKind::Refused] {
        let lost = LedgerFault::ReplyLost(kind);
        for (fault, stands) in [(LedgerFault::Fails(kind), "open"), (lost, "failed")] {
            let (stage, first) = unknown_task().await;
            stage.world.on_write(move |_, write| {
                let over_claim = write.record.version == 3 && matches!(write.record.state, State::Failed(_));
                over_claim.then_some(fault.clone())
            });
            let report = stage.invoke(vec![first.clone()]).await;
            assert_eq!(report.failed_message_ids, ["m-2"]);
            let key = stage.world.writes().pop().unwrap().record.key;
            let record = stage.world.record(&key).unwrap();
            assert_eq!((record.state.as_str(), record.budget.calls), (stands, 0), "{kind}");
            stage.world.on_write(|_, _| None);
            // Long before the claim's lease would end.
            assert_eq!(stage.invoke(vec![again(&first)]).await.outcomes, [UNKNOWN_TASK], "{kind}");
            assert_eq!((stage.calls(), stage.world.letters().len()), (0, 2));
        }
    }
}
