//! Beside the peers' scenarios: what an invocation publishes, and what it books in the day's spend.

use std::collections::BTreeMap;

use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::FailureClass;
use nightshift_tests::memory::{Says, again, message};

use crate::stage::*;

/// What the last invocation published under no dimension but the stack's, zeroes and times left out, dollars in
/// millionths.
fn sums(stage: &Stage) -> BTreeMap<String, f64> {
    let batch = stage.world.metrics().pop().expect("an invocation publishes");
    let stack =
        batch.data.into_iter().filter(|datum| datum.dimensions.len() == 1 && datum.unit != "Milliseconds");
    let sums = stack.map(|datum| {
        let sum: f64 = datum.values.iter().zip(&datum.counts).map(|(value, count)| value * count).sum();
        let sum = if datum.name.ends_with("Usd") { (sum * 1e6).round() } else { sum };
        (datum.name, sum)
    });
    sums.filter(|(_, sum)| *sum != 0.0).collect()
}

fn expected<const N: usize>(sums: [(&str, f64); N]) -> BTreeMap<String, f64> {
    sums.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect()
}

#[tokio::test(start_paused = true)]
async fn every_rejected_answer_is_counted_and_what_it_cost_is_wasted() {
    for (reask_limit, reasks) in [(2, 2.0), (0, 0.0)] {
        let mut stage = Stage::new(|_, _| Says::Text("{}".to_owned()));
        stage.worker = stage.world.worker(Limits { reask_limit, ..Limits::default() });
        stage.invoke(vec![stage.message("m-1", "one")]).await;
        let calls = reasks + 1.0;
        assert_eq!(
            sums(&stage),
            expected([
                ("JobsReceived", 1.0),
                ("DeadLetters", 1.0),
                ("ModelCalls", calls),
                ("OutputRejections", calls),
                ("InputTokens", calls * 100.0),
                ("OutputTokens", calls * 20.0),
                ("CostUsd", calls * 200.0),
                ("WastedCostUsd", calls * 200.0),
            ]),
            "{reask_limit} re-asks"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_record_is_counted_as_what_became_of_it() {
    let stage = Stage::new(|nth, request| match nth {
        0 => Says::Text("no JSON".to_owned()),
        _ => by_text(nth, request),
    });
    stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(sums(&stage)["OutputRejections"], 1.0);
    assert_eq!(sums(&stage)["WastedCostUsd"], 200.0, "of two answers one is stored");
    let batch = vec![
        stage.message("m-2", "one"),
        stage.message("m-3", "two"),
        stage.message("m-4", &format!("three {FAILS}")),
        message(&stage.world, "m-5", "no JSON"),
    ];
    stage.invoke(batch).await;
    let counts: BTreeMap<_, _> =
        sums(&stage).into_iter().filter(|(name, _)| !name.ends_with("Usd")).collect();
    assert_eq!(
        counts,
        expected([
            ("JobsReceived", 4.0),
            ("JobsSucceeded", 1.0),
            ("JobsDuplicate", 1.0),
            ("JobsHandedBack", 1.0),
            ("DeadLetters", 1.0),
            ("ModelCalls", 6.0),
            ("ModelErrors", 5.0),
            ("ModelRetries", 4.0),
            ("InputTokens", 100.0),
            ("OutputTokens", 20.0),
        ])
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_spent_stands_instead_of_what_was_reserved() {
    let stage = Stage::new(|_, _| good());
    stage.invoke(vec![stage.message("m-1", "one"), stage.message("m-2", "two")]).await;
    assert_eq!(stage.world.committed_micro_usd(), 400);
    // A call that was refused costs nothing.
    stage.world.on_call(|_, _| Says::Fails(FailureClass::Account, None));
    stage.invoke(vec![stage.message("m-3", "three")]).await;
    assert_eq!(stage.world.committed_micro_usd(), 400);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_fails_leaves_the_reservation_and_is_counted_in_the_next_numbers() {
    let stage = Stage::new(|_, _| good());
    stage.world.fail_settlements(true);
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded], "the job is not held back for it");
    assert!(stage.world.committed_micro_usd() > 200);
    assert_eq!(sums(&stage).get("LedgerErrors"), None);
    stage.world.fail_settlements(false);
    for errors in [Some(&1.0), None] {
        stage.invoke(vec![stage.message("m-2", "one")]).await;
        assert_eq!(sums(&stage).get("LedgerErrors"), errors);
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_without_room_hands_back_without_a_call() {
    let mut stage = Stage::new(|_, _| good());
    let message = stage.message("m-1", "one");
    stage.worker = stage.world.worker(Limits { spend_cap_micro_usd: 1_000, ..Limits::default() });
    let report = stage.invoke(vec![message.clone()]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::SpendCap)]);
    assert_eq!((stage.calls(), stage.world.committed_micro_usd()), (0, 0));
    // The next day, or a raised cap.
    stage.worker = stage.world.worker(Limits::default());
    let report = stage.invoke(vec![again(&message)]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
}
