//! Beside the peers' scenarios: what an invocation publishes, and what it books in the day's spend.

use std::collections::BTreeMap;
use std::time::Duration;

use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{FailureClass, ReportedUsage};
use nightshift_core::spend::UtcDay;
use nightshift_core::spread::{FULL_FOR_MS, WITHIN_CAP_FOR_MS};
use nightshift_ports::{Clock, LedgerWatch};
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
        (datum.name.to_owned(), sum)
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

/// CloudWatch puts a number into the minute that its timestamp says, and alarms look at minutes.
#[tokio::test(start_paused = true)]
async fn numbers_are_of_the_time_at_which_an_invocation_ends() {
    let slow = || Says::After(Duration::from_secs(90), Box::new(Says::Text("{}".to_owned())));
    let stage = Stage::new(move |_, _| slow());
    let began_ms = stage.world.now_ms();
    stage.invoke(vec![stage.message("m-1", "one")]).await;
    let batch = stage.world.metrics().pop().unwrap();
    assert!(batch.at_ms >= began_ms + 90_000, "{} after the begin", batch.at_ms.saturating_sub(began_ms));
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
async fn where_nothing_was_reserved_nothing_is_settled() {
    let stage = Stage::new(|_, _| good());
    // A settlement that was tried would be counted in the numbers of the next invocation.
    stage.world.fail_settlements(true);
    for id in ["m-1", "m-2"] {
        stage.invoke(vec![message(&stage.world, id, "no JSON")]).await;
    }
    assert_eq!(sums(&stage).get("LedgerErrors"), None);
}

#[tokio::test(start_paused = true)]
async fn without_a_reservation_there_is_no_call() {
    // None for the first call, or none for a further one.
    for (reservations, calls, committed_micro_usd) in [(0, 0, 0), (1, 1, 200)] {
        let stage = Stage::new(|_, _| Says::Text("{}".to_owned()));
        stage.world.fail_reservations_after(Some(reservations));
        let one = stage.message("m-1", "one");
        let report = stage.invoke(vec![one.clone()]).await;
        assert_eq!(report.outcomes, [handed_back(HandBackCause::Ledger)], "{reservations} reservations");
        assert_eq!((stage.calls(), stage.world.committed_micro_usd()), (calls, committed_micro_usd));
        assert!(sums(&stage)["LedgerErrors"] >= 1.0);
        // What needs no call is settled all the same, and the others when the ledger is back.
        let report = stage.invoke(vec![message(&stage.world, "m-3", "no JSON")]).await;
        assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::InvalidMessage)]);
        stage.world.fail_reservations_after(None);
        stage.world.on_call(|_, _| good());
        let report = stage.invoke(vec![again(&one)]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "released at once: {reservations} reservations");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cheap_calls_leave_of_their_reservations_pays_further_calls_of_the_invocation() {
    let stage = Stage::new(|nth, _| if nth < 3 { Says::Text("{}".to_owned()) } else { good() });
    // One write reserves three calls, which leave more than two.
    stage.world.fail_reservations_after(Some(1));
    let batch: Vec<_> = (0..3).map(|n| stage.message(&format!("m-{n}"), &n.to_string())).collect();
    let report = stage.invoke(batch).await;
    let stored = report.outcomes.iter().filter(|outcome| **outcome == Outcome::Succeeded).count();
    assert_eq!((stored, stage.calls()), (2, 5), "{:?}", report.outcomes);
    assert_eq!(stage.world.committed_micro_usd(), 5 * 200);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_provider_counts_the_answer_is_stored_and_the_day_pays_what_can_be() {
    let one_call = call_cost_max("one").await;
    let reported = |input_tokens, output_tokens| ReportedUsage { input_tokens, output_tokens };
    let (none, some) = (None, Some);
    for (usage, committed_micro_usd) in [
        (reported(some(100), some(20)), Some(200)),
        (reported(none, none), Some(one_call)),
        (reported(some(0), some(0)), Some(one_call)),
        (reported(some(u64::MAX), some(u64::MAX)), Some(one_call)),
        // Of one count the most that it can be, of the other what it is.
        (reported(none, some(20)), None),
        (reported(some(100), none), None),
        // More than was reserved, and still what a provider can count: it is billed, and counts.
        (reported(some(100), some(100_000)), Some(500_100)),
    ] {
        let stage = Stage::new(move |_, _| Says::Counted(output().to_string(), usage));
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{usage:?}");
        let committed = stage.world.committed_micro_usd();
        match committed_micro_usd {
            Some(expected) => assert_eq!(committed, expected, "{usage:?}"),
            None => assert!(200 < committed && committed < one_call, "{usage:?}: {committed}"),
        }
        assert_eq!(stage.record("one").budget.cost_micro_usd, committed, "{usage:?}");
        assert_eq!(sums(&stage)["CostUsd"], committed as f64, "{usage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_that_is_odd_is_logged_and_no_other() {
    // A million tokens that are read cost a dollar, and those that are written nothing, so that the most is a whole number.
    let most = {
        let stage = Stage::new(|_, _| good());
        stage.world.set_price(Price::flat(1_000_000, 0));
        stage.world.fail_settlements(true);
        invoke(&stage.world.worker(Limits::default()), vec![stage.message("m-1", "one")]).await;
        stage.world.committed_micro_usd()
    };
    let (missing, more) = ("is missing or cannot be right", "more than a call can take");
    let few = "it may have read only a part";
    for (input_tokens, said) in [
        (Some(1), Some(few)),
        (Some(500), None),
        (Some(most), None),
        (Some(most + 1), Some(more)),
        (None, Some(missing)),
    ] {
        let usage = ReportedUsage { input_tokens, output_tokens: Some(20) };
        let stage = Stage::new(move |_, _| Says::Counted(output().to_string(), usage));
        stage.world.set_price(Price::flat(1_000_000, 0));
        let worker = stage.world.worker(Limits::default());
        logged();
        let report = invoke(&worker, vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded], "{usage:?}");
        let lines = logged();
        let odd: Vec<_> = lines.iter().filter(|line| line.contains("provider")).collect();
        match said {
            Some(words) => assert!(odd.len() == 1 && odd[0].contains(words), "{usage:?}: {odd:?}"),
            None => assert!(odd.is_empty(), "{usage:?}: {odd:?}"),
        }
    }
}

/// A worker whose day has room for this much, in millionths of a dollar.
fn with_cap(stage: &mut Stage, spend_cap_micro_usd: u64) {
    stage.worker = stage.world.worker(Limits { spend_cap_micro_usd, ..Limits::default() });
}

/// What one call for a ticket of this text can cost at most.
async fn call_cost_max(text: &str) -> u64 {
    let stage = Stage::new(|_, _| good());
    stage.world.fail_settlements(true);
    stage.invoke(vec![stage.message("m-1", text)]).await;
    stage.world.committed_micro_usd()
}

#[tokio::test(start_paused = true)]
async fn a_day_without_room_hands_back_without_a_call() {
    let one_call = call_cost_max("one").await;
    let mut stage = Stage::new(|_, _| good());
    with_cap(&mut stage, one_call + 199);
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    let second = stage.message("m-2", "two");
    let report = stage.invoke(vec![second.clone(), stage.message("m-3", "one")]).await;
    assert_eq!(
        report.outcomes,
        [handed_back(HandBackCause::SpendCap); 2],
        "a duplicate is not known to be one yet"
    );
    assert_eq!((stage.calls(), stage.world.committed_micro_usd()), (1, 200));
    // Whatever needs no call is settled all the same.
    let report = stage.invoke(vec![again(&second), message(&stage.world, "m-4", "no JSON")]).await;
    assert_eq!(
        report.outcomes,
        [handed_back(HandBackCause::SpendCap), Outcome::DeadLettered(FailureReason::InvalidMessage)]
    );
    // The next day, or a raised cap.
    with_cap(&mut stage, 50_000_000);
    let report = stage.invoke(vec![again(&again(&second))]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
}

#[tokio::test(start_paused = true)]
async fn as_many_records_are_worked_on_as_the_day_has_room_for() {
    let one_call = call_cost_max("0").await;
    let mut stage = Stage::new(|_, _| good());
    with_cap(&mut stage, 2 * one_call);
    let batch: Vec<_> = (0..4).map(|n| stage.message(&format!("m-{n}"), &n.to_string())).collect();
    let report = stage.invoke(batch.clone()).await;
    assert_eq!(reported(&report), ["m-2", "m-3"]);
    assert_eq!(stage.calls(), 2);
    // What the first two really cost leaves room for one more.
    let report = stage.invoke(batch[2..].iter().map(again).collect()).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded, handed_back(HandBackCause::SpendCap)]);
}

#[tokio::test(start_paused = true)]
async fn the_last_call_that_the_day_can_pay_is_made_whichever_shard_holds_its_money() {
    let one_call = call_cost_max("100").await;
    let spend_cap_micro_usd = 100 * one_call + 1;
    let limits = Limits { spend_cap_micro_usd, concurrency_max: 250, ..Limits::default() };
    let mut stage = Stage::new(|_, _| good());
    // Each call costs what was reserved for it.
    stage.world.fail_settlements(true);
    for n in 100..201 {
        // An environment of its own for each.
        stage.worker = stage.world.worker(limits.clone());
        let report = stage.invoke(vec![stage.message(&format!("m-{n}"), &n.to_string())]).await;
        let outcome = if n < 200 { Outcome::Succeeded } else { handed_back(HandBackCause::SpendCap) };
        assert_eq!(report.outcomes, [outcome], "{n}");
    }
    let spent = stage.world.spent(UtcDay::of(stage.world.now_ms())).await.unwrap();
    assert_eq!((spent.committed_micro_usd, spent.in_shards_micro_usd), (100 * one_call, 0));
    // Asked again, it would now be the ledger that hands back.
    stage.world.fail_reservations_after(Some(0));
    for (later, cause) in [(FULL_FOR_MS - 1, HandBackCause::SpendCap), (1, HandBackCause::Ledger)] {
        tokio::time::advance(Duration::from_millis(later)).await;
        let report = stage.invoke(vec![stage.message("m-201", "201")]).await;
        assert_eq!(report.outcomes, [handed_back(cause)], "{later} ms later");
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_that_was_within_its_cap_is_asked_again_after_a_minute_or_on_the_next_day() {
    let day_ms = 24 * 60 * 60 * 1_000;
    for (later_ms, asks) in [(0, 1), (WITHIN_CAP_FOR_MS - 1, 1), (WITHIN_CAP_FOR_MS, 2), (day_ms, 3)] {
        let mut stage = Stage::new(|_, _| good());
        stage.worker = stage.world.worker(Limits { concurrency_max: 250, ..Limits::default() });
        stage.invoke(vec![stage.message("m-1", "100")]).await;
        tokio::time::advance(Duration::from_millis(later_ms)).await;
        // Its shard of the same day has money; that of the next one is empty, and the day itself is asked for some.
        for (reservations, outcome) in
            [(asks - 1, handed_back(HandBackCause::Ledger)), (asks, Outcome::Succeeded)]
        {
            stage.world.fail_reservations_after(Some(reservations));
            let report = stage.invoke(vec![stage.message("m-2", "200")]).await;
            assert_eq!(report.outcomes, [outcome], "{later_ms} ms later, {reservations} reservations");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_for_which_some_room_is_left_is_not_told_as_refused() {
    let one_call = call_cost_max("1").await;
    let mut stage = Stage::new(|_, _| good());
    stage.world.fail_settlements(true);
    with_cap(&mut stage, 2 * one_call);
    stage.invoke(vec![stage.message("m-1", "1")]).await;
    let report = stage.invoke(vec![stage.message("m-2", "2"), stage.message("m-3", "3")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded, handed_back(HandBackCause::SpendCap)]);
    assert_eq!(stage.world.told().refused_micro_usd, None, "what is left pays the cheapest call");
}

#[tokio::test(start_paused = true)]
async fn a_cap_that_is_lowered_within_the_day_stops_what_shards_hold() {
    let one_call = call_cost_max("100").await;
    let limits =
        |calls| Limits { spend_cap_micro_usd: calls * one_call, concurrency_max: 250, ..Limits::default() };
    let mut stage = Stage::new(|_, _| good());
    stage.world.fail_settlements(true);
    stage.worker = stage.world.worker(limits(1_000));
    let report = stage.invoke(vec![stage.message("m-1", "100")]).await;
    assert_eq!(report.outcomes, [Outcome::Succeeded]);
    let held = || async {
        let spent = stage.world.spent(UtcDay::of(stage.world.now_ms())).await.unwrap();
        (spent.committed_micro_usd / one_call, spent.in_shards_micro_usd / one_call)
    };
    assert_eq!(held().await, (1, 9));
    // One call is spent, and ten were taken from the day.
    for (calls, outcome) in [(9, handed_back(HandBackCause::SpendCap)), (10, Outcome::Succeeded)] {
        stage.worker = stage.world.worker(limits(calls));
        let report = stage.invoke(vec![stage.message(&format!("m-{calls}"), "200")]).await;
        assert_eq!(report.outcomes, [outcome], "{calls}");
    }
    assert_eq!(held().await, (2, 8));
}

#[tokio::test(start_paused = true)]
async fn an_input_that_no_day_could_pay_is_a_dead_letter_that_says_so() {
    let text = "long ".repeat(500);
    let mut stage = Stage::new(|_, _| good());
    with_cap(&mut stage, call_cost_max(&text).await - 1);
    let report = stage.invoke(vec![stage.message("m-1", &text), stage.message("m-2", "short")]).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::InvalidInput), Outcome::Succeeded]);
    let detail = context(&stage.world.letters()[0])["detail"].to_string();
    assert!(detail.contains("the cap of a day is"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_further_call_is_reserved_before_it_is_made() {
    let one_call = call_cost_max("one").await;
    // One answer that is not accepted, and no room for the second call.
    let mut stage = Stage::new(|_, _| Says::Text("{}".to_owned()));
    with_cap(&mut stage, 2 * one_call - 1);
    let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
    assert_eq!(report.outcomes, [handed_back(HandBackCause::SpendCap)]);
    assert_eq!((stage.calls(), stage.world.committed_micro_usd()), (1, 200));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_been_billed_counts_as_the_most_that_it_can_cost() {
    let one_call = call_cost_max("one").await;
    // Not answered at all, and failed with a status.
    for says in [Says::Hangs, Says::Fails(FailureClass::Transient, None)] {
        let stage = Stage::new(move |nth, _| match nth {
            0 => says.clone(),
            1 => Says::Fails(FailureClass::Capacity, None),
            _ => good(),
        });
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded]);
        assert_eq!(stage.world.committed_micro_usd(), one_call + 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_gives_back_what_it_gave_and_one_without_money_holds_no_job_back() {
    let one_call = call_cost_max("one").await;
    for (funded, in_shards, ledger_errors) in
        [(true, 10 * one_call - 200, None), (false, one_call - 200, Some(&1.0))]
    {
        let mut stage = Stage::new(|_, _| good());
        stage.worker = stage.world.worker(Limits { concurrency_max: 250, ..Limits::default() });
        if !funded {
            stage.world.fund_no_shards();
        }
        let report = stage.invoke(vec![stage.message("m-1", "one")]).await;
        assert_eq!(report.outcomes, [Outcome::Succeeded]);
        let spent = stage.world.spent(UtcDay::of(stage.world.now_ms())).await.unwrap();
        assert_eq!(spent.in_shards_micro_usd, in_shards, "{funded}");
        assert_eq!(sums(&stage).get("LedgerErrors"), ledger_errors);
    }
}
