//! What a person has erased stays erased, whatever is in flight or still to come: messages of before are settled without a
//! call, and nothing of them is stored or sent on.

use std::time::Duration;

use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{Answer, FailureClass};
use nightshift_core::record::{Record, State};
use nightshift_ports::PortErrorKind;
use nightshift_tests::memory::{LedgerFault, Says, World, again, message};
use nightshift_worker::{Message, Worker};
use serde_json::json;

use crate::stage::*;

/// As `nightshift results delete` does it; what stands then.
async fn erase(world: &World, key: &InputHash) -> Record {
    nightshift_ports::erase(world, key, world, world).await.unwrap();
    world.record(key).unwrap()
}

fn refuses() -> Says {
    Says::Answer(Answer::Refused { why: "refusal".to_owned(), text: String::new() })
}

fn fails() -> Says {
    Says::Fails(FailureClass::Transient, None)
}

async fn minute() {
    tokio::time::sleep(Duration::from_secs(60)).await;
}

async fn assert_is_settled(worker: &Worker, sent: &Message, what: &str) {
    let report = invoke(worker, vec![sent.clone()]).await;
    assert_eq!(report.outcomes, [Outcome::Duplicate], "{what}");
    assert_eq!(reported(&report), [""; 0], "{what}");
}

#[track_caller]
fn assert_only_the_tombstone_is_left(world: &World, tombstone: &Record, what: &str) {
    assert_eq!(world.record(&tombstone.key).as_ref(), Some(tombstone), "{what}");
    assert_eq!(world.letters(), [], "{what}");
    assert!(world.kept_parts(&tombstone.key).iter().all(|part| part.bytes.is_empty()), "{what}");
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_while_its_call_is_in_flight_is_not_stored_and_its_message_is_settled() {
    let ticket = (ticket("one"), key("one"));
    let input = json!({"team": "Checkout", "week": "2026-W47", "entries": ["Shipped it."]});
    let notes = json!({"task": "weekly_report", "input": input}).to_string();
    let notes = (notes, InputHash::of_job("weekly_report", &input));
    let prose = Says::Text("I would rather not say.".to_owned());
    for (what, (body, key), says) in [
        ("a result", &ticket, good()),
        ("a refusal, which makes a letter", &ticket, refuses()),
        ("an invalid answer, which makes a letter", &ticket, prose.clone()),
        ("a failure, which is tried again", &ticket, fails()),
        ("a fallback, whose message is kept for review", &notes, prose),
    ] {
        let world = world(move |_, _| Says::After(Duration::from_secs(5), Box::new(says.clone())));
        let worker = world.worker(Limits { reask_limit: 0, ..Limits::default() });
        let sent = message(&world, "m-1", body.clone());
        let erases = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(world.record(key).unwrap().state.as_str(), "claimed", "{what}");
            erase(&world, key).await
        };
        let (report, erased) = tokio::join!(invoke(&worker, vec![sent.clone()]), erases);
        assert_eq!(report.outcomes, [handed_back(HandBackCause::LostClaim)], "{what}");
        assert_eq!(reported(&report), ["m-1"], "{what}");
        assert_only_the_tombstone_is_left(&world, &erased, what);
        assert_is_settled(&worker, &again(&sent), what).await;
        assert_only_the_tombstone_is_left(&world, &erased, what);
        assert_eq!(world.calls().len(), 1, "{what}: the one that was in flight");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_erased_between_a_hand_back_and_the_redelivery_is_not_called_for_again() {
    // Where the eraser's clock is behind SQS's, what the tombstone was put over is known by its id.
    for ahead_ms in [0, 3_600_000] {
        let stage = Stage::new(|_, _| fails());
        let now = stage.message("m-1", "one");
        let sent = Message { sent_at_ms: now.sent_at_ms + ahead_ms, ..now };
        assert_eq!(reported(&stage.invoke(vec![sent.clone()]).await), ["m-1"]);
        assert_eq!(stage.record("one").state, State::Open);
        minute().await;
        let erased = erase(&stage.world, &key("one")).await;
        stage.world.on_call(by_text);
        assert_is_settled(&stage.worker, &again(&sent), "redelivered").await;
        assert_eq!(stage.calls(), 0);
        assert_only_the_tombstone_is_left(&stage.world, &erased, "redelivered");
    }
}

#[tokio::test(start_paused = true)]
async fn an_earlier_message_of_what_was_erased_is_settled_without_a_call() {
    for begun in [Some(good()), Some(fails()), None] {
        let what = format!("erased after {begun:?}");
        let stage = Stage::new(by_text);
        let earlier = stage.message("m-2", "one");
        if let Some(says) = begun {
            stage.world.on_call(move |_, _| says.clone());
            stage.invoke(vec![stage.message("m-1", "one")]).await;
        }
        minute().await;
        let erased = erase(&stage.world, &key("one")).await;
        stage.world.on_call(by_text);
        assert_is_settled(&stage.worker, &earlier, &what).await;
        assert_eq!(stage.calls(), 0, "{what}");
        assert_only_the_tombstone_is_left(&stage.world, &erased, &what);
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_of_before_an_erasure_is_settled_without_a_call_whenever_it_is_sent_back() {
    let stage = Stage::new(|_, _| refuses());
    stage.invoke(vec![stage.message("m-1", "one")]).await;
    let letter = stage.world.letters().remove(0);
    minute().await;
    let erased = erase(&stage.world, &key("one")).await;
    minute().await;
    stage.world.on_call(by_text);
    let sent_back = Message { attributes: letter.attributes.clone(), ..stage.message("m-2", "one") };
    assert_is_settled(&stage.worker, &sent_back, "sent back").await;
    assert_eq!(stage.calls(), 0);
    assert_eq!(stage.record("one"), erased);
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_is_cut_short_leaves_what_the_next_one_finds_and_erases_whole() {
    let input = json!({"team": "Checkout", "week": "2026-W47", "entries": ["Shipped it."]});
    let notes = json!({"task": "weekly_report", "input": input, "reference": "customer 7"}).to_string();
    let key = InputHash::of_job("weekly_report", &input);
    let world = world(|_, _| Says::Text("I would rather not say.".to_owned()));
    let worker = world.worker(Limits { reask_limit: 0, ..Limits::default() });
    invoke(&worker, vec![message(&world, "m-1", notes)]).await;
    assert!(world.kept_parts(&key).iter().any(|part| !part.bytes.is_empty()), "it waits for review");
    for fault in
        [LedgerFault::Fails(PortErrorKind::Throttled), LedgerFault::ReplyLost(PortErrorKind::Unavailable)]
    {
        world.parts_meet(Some(fault.clone()));
        assert!(nightshift_ports::erase(&*world, &key, &*world, &*world).await.is_err(), "{fault:?}");
        let standing = world.record(&key).unwrap();
        let found = (standing.state.as_str(), standing.reference.as_deref());
        assert_eq!(found, ("done", Some("customer 7")), "{fault:?}: by reference it is found again");
    }
    world.parts_meet(None);
    let erased = erase(&world, &key).await;
    assert_eq!(erased.state, State::Erased);
    assert_only_the_tombstone_is_left(&world, &erased, "erased again");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_a_redrive_sent_while_it_was_erased_is_settled_once_the_erasure_is_repeated() {
    // It received a crashed message before the erasure, and sent it as a new one after that.
    for state in ["that waits", "that was worked on"] {
        let stage = Stage::new(by_text);
        let first = erase(&stage.world, &key("one")).await;
        minute().await;
        let copy = stage.message("m-2", "one");
        if state == "that was worked on" {
            stage.invoke(vec![copy.clone()]).await;
            assert!(stage.is_stored("one"));
        }
        let erased = erase(&stage.world, &key("one")).await;
        assert!(erased.erased.unwrap().at_ms > first.erased.unwrap().at_ms, "{state}");
        let calls = stage.calls();
        assert_is_settled(&stage.worker, &again(&copy), state).await;
        assert_eq!(stage.calls(), calls, "{state}");
        assert_only_the_tombstone_is_left(&stage.world, &erased, state);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_message_is_a_new_request_and_those_of_before_the_erasure_stay_settled_beside_it() {
    let stage = Stage::new(|_, _| fails());
    let earlier = stage.message("m-1", "one");
    stage.invoke(vec![stage.message("m-2", "one")]).await;
    minute().await;
    let erased = erase(&stage.world, &key("one")).await;
    minute().await;
    let later = stage.message("m-3", "one");
    assert_eq!(reported(&stage.invoke(vec![later.clone()]).await), ["m-3"]);
    let open = stage.record("one");
    assert_eq!((&open.state, open.erased, open.history.len()), (&State::Open, erased.erased, 0));
    stage.world.on_call(by_text);
    assert_is_settled(&stage.worker, &earlier, "while the new request is open").await;
    assert_eq!((stage.calls(), stage.record("one")), (0, open));
    assert_eq!(stage.invoke(vec![again(&later)]).await.outcomes, [Outcome::Succeeded]);
    assert!(stage.is_stored("one"));
    assert_is_settled(&stage.worker, &again(&earlier), "beside the new result").await;
    assert_eq!(stage.calls(), 1);
}
