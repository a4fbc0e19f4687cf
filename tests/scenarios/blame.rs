//! Whose fault a refusal is: the deployment's, which refuses everybody, or one job's, which is refused alone.

use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::Turn;
use nightshift_core::next_step::UNSURE_WHOSE_FAULT;
use nightshift_ports::Clock as _;
use nightshift_tests::memory::{Says, again};
use nightshift_worker::Message;

use crate::stage::{FAILS, Stage, context, good, handed_back, reason};

/// A stack whose model refuses every ticket that holds this word.
fn refusing(word: &'static str, status: u16) -> Stage {
    Stage::new(move |_, request| {
        let Some(Turn::User(user)) = request.turns.first() else { panic!("no user turn") };
        if user.contains(word) { Says::Refuses(status) } else { good() }
    })
}

fn tickets(stage: &Stage, round: usize, count: usize) -> Vec<Message> {
    (0..count).map(|n| stage.message(&format!("m-{round}-{n}"), &format!("ticket {round} {n}"))).collect()
}

/// The sum of a metric of the whole stack, over all invocations.
fn sum(stage: &Stage, name: &str) -> f64 {
    let data = stage.world.metrics().into_iter().flat_map(|batch| batch.data);
    data.filter(|datum| datum.name == name && datum.dimensions.len() == 1)
        .flat_map(|datum| datum.values.into_iter().zip(datum.counts))
        .map(|(value, count)| value * count)
        .sum()
}

#[tokio::test(start_paused = true)]
async fn what_refuses_everybody_is_the_deployment_and_buries_nobody() {
    for status in [400, 422, 403] {
        let stage = refusing("ticket", status);
        let mut messages = tickets(&stage, 0, 10);
        let mut pauses = 0;
        for delivery in 1..=30_u32 {
            let report = stage.invoke(messages.clone()).await;
            assert_eq!(report.failed_message_ids.len(), 10, "{status}, delivery {delivery}");
            if delivery > 1 {
                // One call each, and an alarm.
                assert_eq!(report.outcomes, vec![handed_back(HandBackCause::Account); 10], "{status}");
            }
            messages = messages.iter().map(again).collect();
            // It pauses the stack, and somebody lets it try again.
            let control = stage.world.control_record();
            pauses += u32::from(control.is_shut());
            stage.world.set_control(&control.resumed(stage.world.now_ms()));
            tokio::time::advance(std::time::Duration::from_secs(10)).await;
        }
        assert_eq!(stage.calls(), 300);
        assert_eq!(pauses, 15, "{status}: by every second batch");
        assert!(sum(&stage, "AccountFailures") >= 298.0, "all but the first two");
        assert!(stage.world.letters().is_empty(), "{status}");
        stage.world.on_call(|_, _| good());
        assert_eq!(stage.invoke(messages).await.outcomes, vec![Outcome::Succeeded; 10], "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_beside_answers_is_the_jobs_soon_and_pages_nobody() {
    for status in [400, 403, 422] {
        let stage = refusing(FAILS, status);
        let mut bad = stage.message("m-bad", FAILS);
        for round in 1..=3 {
            let mut messages = tickets(&stage, round, 4);
            messages.push(bad.clone());
            let report = stage.invoke(messages).await;
            assert_eq!(report.outcomes[..4], [Outcome::Succeeded; 4]);
            let ended = matches!(report.outcomes[4], Outcome::DeadLettered(_));
            assert_eq!(ended, round == 3, "{status}, round {round}: {:?}", report.outcomes);
            bad = again(&bad);
            tokio::time::sleep(std::time::Duration::from_secs(30)).await;
        }
        let letter = stage.world.letters().remove(0);
        assert_eq!(reason(&letter), "request_rejected");
        let detail = context(&letter)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("while other jobs of its task were answered"), "{detail}");
        assert_eq!(sum(&stage, "AccountFailures"), 0.0, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_job_in_a_quiet_stack_ends_after_five_calls_whoever_makes_them() {
    for fresh_environments in [false, true] {
        let mut stage = refusing("ticket", 400);
        let mut message = stage.message("m-1", "ticket");
        for delivery in 1..=5 {
            if fresh_environments {
                stage.worker = stage.world.worker(Limits::default());
            }
            let outcome = stage.invoke(vec![message.clone()]).await.outcomes[0];
            let expected = handed_back(HandBackCause::CallFailed);
            assert_eq!(outcome == expected, delivery < 5, "{delivery}: {outcome:?}");
            message = again(&message);
        }
        assert_eq!(stage.calls(), 5);
        let letter = stage.world.letters().remove(0);
        assert_eq!(reason(&letter), "request_rejected");
        // Whoever mends a deployment finds those that it buried.
        let detail = context(&letter)["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(UNSURE_WHOSE_FAULT), "{detail}");
        assert_eq!(sum(&stage, "AccountFailures"), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forbidden_where_nobody_is_answered_waits_with_an_alarm() {
    let stage = refusing("ticket", 403);
    let mut message = stage.message("m-1", "ticket");
    for delivery in 1..=20 {
        let outcome = stage.invoke(vec![message.clone()]).await.outcomes[0];
        let cause = if delivery == 1 { HandBackCause::CallFailed } else { HandBackCause::Account };
        assert_eq!(outcome, handed_back(cause), "{delivery}");
        message = again(&message);
    }
    assert_eq!(sum(&stage, "AccountFailures"), 19.0);
    assert!(stage.world.letters().is_empty());
    // As soon as somebody is answered, it is this text.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let neighbour = stage.message("m-2", "another");
    assert_eq!(stage.invoke(vec![neighbour]).await.outcomes, [Outcome::Succeeded]);
    stage.invoke(vec![message]).await;
    assert_eq!(reason(&stage.world.letters()[0]), "request_rejected");
    assert_eq!(sum(&stage, "AccountFailures"), 19.0);
}

#[tokio::test(start_paused = true)]
async fn a_redrive_of_what_was_given_up_starts_to_count_afresh() {
    let stage = refusing("ticket", 400);
    let mut message = stage.message("m-1", "ticket");
    for _ in 0..5 {
        stage.invoke(vec![message.clone()]).await;
        message = again(&message);
    }
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let redriven = stage.message("m-2", "ticket");
    let outcome = stage.invoke(vec![redriven.clone()]).await.outcomes[0];
    assert_eq!(outcome, handed_back(HandBackCause::CallFailed));
    stage.world.on_call(|_, _| good());
    assert_eq!(stage.invoke(vec![again(&redriven)]).await.outcomes, [Outcome::Succeeded]);
}
