//! What waits for a person keeps the message that it was made for, or it does not wait yet.

use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{self, KeptMessage, Part};
use nightshift_core::limits::Limits;
use nightshift_core::listing::{Selection, Unsettled};
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::port_error::PortErrorKind;
use nightshift_core::record::{Record, State};
use nightshift_core::review::{Rejecting, Reviewer};
use nightshift_ports::Clock as _;
use nightshift_tests::memory::{LedgerFault, Says, World, again, message};
use nightshift_worker::{Message, Worker};
use serde_json::{Value, json};
use std::time::Duration;

use crate::stage::*;

/// A model whose answers no report is made of, so that its fallback is stored.
fn useless(_nth: usize, _request: &nightshift_core::model::ModelRequest) -> Says {
    Says::Text("I would rather not say.".to_owned())
}

fn world() -> (std::sync::Arc<World>, Worker) {
    let world = crate::stage::world(useless);
    let worker = world.worker(Limits::default());
    (world, worker)
}

fn input() -> Value {
    json!({"team": "Checkout", "week": "2026-W47", "entries": ["Shipped it."]})
}

fn key() -> InputHash {
    InputHash::of_job("weekly_report", &input())
}

/// A job with more white space than a body needs, and attributes of both kinds.
fn notes(world: &World, id: &str) -> Message {
    let bytes = AttributeValue::Bytes(vec![0, 255]);
    let attributes = vec![
        (
            "tenant".to_owned(),
            Attribute { data_type: "String.id".to_owned(), value: AttributeValue::Text("t-1".to_owned()) },
        ),
        ("raw".to_owned(), Attribute { data_type: "Binary".to_owned(), value: bytes }),
    ];
    let body = format!("{{\"task\" : \"weekly_report\",\n\"input\":{}}}", input());
    Message { attributes, group: Some("t-1".to_owned()), ..message(world, id, body) }
}

fn record(world: &World) -> Record {
    world.record(&key()).unwrap()
}

fn kept_message(world: &World) -> Option<KeptMessage> {
    kept::message(record(world).kept_message()?, world.kept_parts(&key()))
}

#[track_caller]
fn assert_waits_with(world: &World, sent: &Message) {
    let record = record(world);
    assert!(matches!(&record.state, State::Done(done) if done.needs_review && !done.reviewed), "{record:?}");
    assert!(Selection::all(Unsettled::NeedsReview).matches(&record));
    let kept = kept_message(world).unwrap();
    let of_sent = (&sent.body, &sent.message_id, &sent.attributes, &sent.group);
    assert_eq!((&kept.body, &kept.message_id, &kept.attributes, &kept.group), of_sent);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_waits_for_review_has_its_message_beside_it() {
    let (world, worker) = world();
    let sent = notes(&world, "m-1");
    assert_eq!(invoke(&worker, vec![sent.clone()]).await.outcomes, [Outcome::NeedsReview]);
    assert_waits_with(&world, &sent);
    // Another message with that input leaves it as it was.
    let other = notes(&world, "m-2");
    assert_eq!(invoke(&worker, vec![other]).await.outcomes, [Outcome::Duplicate]);
    assert_waits_with(&world, &sent);
}

#[tokio::test(start_paused = true)]
async fn the_largest_body_is_kept_in_parts() {
    let (world, worker) = world();
    let mut sent = notes(&world, "m-1");
    sent.body.push_str(&" ".repeat(Limits::default().body_bytes_max - sent.body.len()));
    assert_eq!(invoke(&worker, vec![sent.clone()]).await.outcomes, [Outcome::NeedsReview]);
    assert_eq!(world.kept_parts(&key()).len(), 3);
    assert_waits_with(&world, &sent);
}

#[tokio::test(start_paused = true)]
async fn without_its_message_no_result_is_stored_and_the_job_comes_back() {
    for (fault, cause) in [
        (LedgerFault::Fails(PortErrorKind::Throttled), HandBackCause::Ledger),
        (LedgerFault::ReplyLost(PortErrorKind::Unavailable), HandBackCause::Ledger),
    ] {
        let (world, worker) = world();
        let sent = notes(&world, "m-1");
        world.parts_meet(Some(fault));
        assert_eq!(invoke(&worker, vec![sent.clone()]).await.outcomes, [handed_back(cause)]);
        assert_eq!(record(&world).state, State::Open, "released");
        assert_eq!(record(&world).kept, None);
        world.parts_meet(None);
        assert_eq!(invoke(&worker, vec![again(&sent)]).await.outcomes, [Outcome::NeedsReview]);
        assert_waits_with(&world, &sent);
    }
    // What the SDK repeats is written once.
    let (world, worker) = world();
    let sent = notes(&world, "m-1");
    world.parts_meet(Some(LedgerFault::RepeatedBySdk));
    assert_eq!(invoke(&worker, vec![sent.clone()]).await.outcomes, [Outcome::NeedsReview]);
    assert_waits_with(&world, &sent);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_lost_its_claim_writes_over_no_later_message() {
    let (world, worker) = world();
    let sent = notes(&world, "m-1");
    let later = Part {
        key: key(),
        index: 0,
        claim_version: 99,
        token: "another worker's".to_owned(),
        bytes: b"theirs".to_vec(),
        expires_at_ms: world.now_ms() + 1_000_000_000,
    };
    world.put_part(later.clone());
    let outcomes = invoke(&worker, vec![sent]).await.outcomes;
    assert_eq!(outcomes, [handed_back(HandBackCause::LostClaim)]);
    assert_eq!(world.kept_parts(&key()), [later]);
    assert!(!matches!(record(&world).state, State::Done(_)));
}

/// What a reviewer wrote who was killed before the dead letter was sent.
fn rejected(world: &World) {
    let reviewer = Reviewer { by: "ann", reason: "Of another team.", token: "ann's", now_ms: world.now_ms() };
    match reviewer.reject(&record(world), None, &Limits::default()).unwrap() {
        Rejecting::Write(write) => world.put(write.record),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_that_was_killed_before_its_letter_is_made_good_by_the_jobs_next_delivery() {
    let rejected_by_a_person = Outcome::DeadLettered(FailureReason::ReviewRejected);
    let (world, worker) = world();
    let sent = notes(&world, "m-1");
    assert_eq!(invoke(&worker, vec![sent.clone()]).await.outcomes, [Outcome::NeedsReview]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    rejected(&world);
    let calls = world.calls().len();
    // The letter cannot be sent either: the message stays where it is.
    world.fail_letters(true);
    assert_eq!(invoke(&worker, vec![again(&sent)]).await.failed_message_ids, ["m-1"]);
    world.fail_letters(false);
    assert_eq!(invoke(&worker, vec![again(&sent)]).await.outcomes, [rejected_by_a_person]);
    let letters = world.letters();
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(
        (reason(letter), &letter.body, &letter.group),
        ("review_rejected".to_owned(), &sent.body, &sent.group)
    );
    assert!(sent.attributes.iter().all(|attribute| letter.attributes.contains(attribute)), "{letter:?}");
    assert!(context(letter)["detail"].as_str().unwrap().starts_with("ann rejected"), "{letter:?}");
    assert_eq!(world.calls().len(), calls, "a person's decision is asked of no model again");
    // Another request with that input, from before the decision, is answered alike.
    let earlier = Message { sent_at_ms: sent.sent_at_ms, ..notes(&world, "m-2") };
    assert_eq!(invoke(&worker, vec![earlier]).await.outcomes, [rejected_by_a_person]);
    assert_eq!(world.calls().len(), calls);
}
