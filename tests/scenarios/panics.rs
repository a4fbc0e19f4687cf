//! Beside the peers' scenarios: what panics fails alone, and not forever.

use std::sync::Arc;

use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::limits::Limits;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{Prompt, Turn};
use nightshift_core::output_validation::REASK_BYTES_MAX;
use nightshift_core::record::State;
use nightshift_core::spend::CallPrice;
use nightshift_core::task::{Task, Tasks, Violations};
use nightshift_tests::memory::{Says, again, message};
use serde_json::Value;

use crate::stage::*;

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_fails_its_record_alone_and_the_third_is_the_last() {
    let stage = Stage::new(|nth, request| {
        let Some(Turn::User(user)) = request.turns.first() else { panic!("no user turn") };
        if user.contains(FAILS) { Says::Panics } else { by_text(nth, request) }
    });
    let text = format!("one {FAILS}");
    let mut message = stage.message("m-1", &text);
    for crash in 1..=2 {
        let good = format!("good {crash}");
        let report = stage.invoke(vec![message.clone(), stage.message("m-2", &good)]).await;
        assert_eq!(reported(&report), ["m-1"]);
        assert!(stage.is_stored(&good), "the neighbour is well");
        assert_eq!(stage.record(&text).budget.crashes, crash);
        assert_eq!(stage.record(&text).state, State::Open, "released at once");
        message = again(&message);
    }
    let report = stage.invoke(vec![message]).await;
    assert_eq!(report.outcomes, [Outcome::DeadLettered(FailureReason::Internal)]);
    assert_eq!(stage.calls(), 5, "three with a panic");
}

/// A task that panics over every input, or over every answer.
#[derive(Default)]
struct Broken {
    in_accept: bool,
    schema: Arc<Value>,
}

impl Task for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn prompt(&self, _input: &Value) -> Result<Prompt, Violations> {
        assert!(self.in_accept, "as the scenario wants");
        Ok(Prompt { system: String::new(), user: "Break.".to_owned() })
    }
    fn schema(&self) -> &Arc<Value> {
        &self.schema
    }
    fn accept(&self, _answer: Value) -> Result<Value, Violations> {
        panic!("as the scenario wants")
    }
    fn fallback(&self, _input: &Value) -> Option<Value> {
        None
    }
    fn output_tokens_max(&self) -> u32 {
        1
    }
    fn overhead_bytes(&self) -> usize {
        10
    }
    fn fingerprint(&self) -> &str {
        "broken"
    }
}

impl Tasks for Broken {
    fn find(&self, name: &str) -> Option<&dyn Task> {
        (name == "broken").then_some(self)
    }
    fn names(&self) -> Vec<&'static str> {
        vec!["broken"]
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_the_claim_ends_too() {
    let world = world(by_text);
    let worker = world.worker_of(Box::new(Broken::default()), Limits::default(), world.clone(), 0);
    let mut message = message(&world, "m-1", r#"{"task":"broken","input":{}}"#);
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        outcomes.extend(invoke(&worker, vec![message.clone()]).await.outcomes);
        message = again(&message);
    }
    assert_eq!(
        outcomes,
        [
            handed_back(HandBackCause::Panic),
            handed_back(HandBackCause::Panic),
            Outcome::DeadLettered(FailureReason::Internal)
        ]
    );
    assert_eq!(world.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_costs_what_its_call_cost_or_may_have_cost() {
    let body = r#"{"task":"broken","input":{}}"#;
    let most = CallPrice::new(Price::flat(1_000_000, 5_000_000), 10 + body.len() + REASK_BYTES_MAX, 1)
        .most_micro_usd();
    for (place, in_accept, says, micro_usd) in [
        ("before the call", false, Says::Panics, 0),
        ("in the call", true, Says::Panics, most),
        ("over the answer", true, Says::Text("{}".to_owned()), 200),
    ] {
        let world = world(move |_, _| says.clone());
        let tasks = Box::new(Broken { in_accept, ..Broken::default() });
        let worker = world.worker_of(tasks, Limits::default(), world.clone(), 0);
        let report = invoke(&worker, vec![message(&world, "m-1", body)]).await;
        assert_eq!(report.outcomes, [handed_back(HandBackCause::Panic)], "{place}");
        assert_eq!(world.committed_micro_usd(), micro_usd, "{place}");
    }
}
