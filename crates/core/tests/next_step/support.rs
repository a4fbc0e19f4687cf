//! The job, the task and the words of the tables.

use std::sync::Arc;

use nightshift_core::cost::Price;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, Prompt, RetryAdvice, Usage,
};
use nightshift_core::next_step::{AfterCall, BeforeCall, ClaimAsk, HandBack, JobRun, Work};
use nightshift_core::record::{
    Budget, Done, Expect, Failed, PastFailure, Record, RecordWrite, Revision, State,
};
use nightshift_core::spend::CallPrice;
use nightshift_core::task::{Task, Violations};
use serde_json::{Value, json};

/// The worker's clock in all tables: 2026-01-01, 00:00 UTC.
pub const NOW: u64 = 1_767_225_600_000;
pub const SECOND: u64 = 1_000;
pub const HOUR: u64 = 3_600 * SECOND;
pub const DAY: u64 = 24 * HOUR;

/// The token of the claim under test.
pub const OURS: &str = "token-ours";
/// The token of whoever had the record before.
pub const THEIRS: &str = "token-theirs";

/// Two dollars and ten for a million tokens: a call of `reply` costs 2 × 100 + 10 × 20 = 400 millionths.
pub const PRICE: Price = Price::flat(2_000_000, 10_000_000);

/// A task whose output is `{"n": 0…9}`, with a fallback or without.
pub struct Digit {
    pub fallback: Option<Value>,
    pub fingerprint: &'static str,
    pub overhead_bytes: usize,
    schema: Arc<Value>,
}

impl Digit {
    pub fn new(fallback: Option<Value>) -> Self {
        Self {
            fallback,
            fingerprint: "digit-1",
            overhead_bytes: 10,
            schema: Arc::new(json!({"type": "object"})),
        }
    }
}

impl Task for Digit {
    fn name(&self) -> &'static str {
        "digit"
    }
    fn prompt(&self, input: &Value) -> Result<Prompt, Violations> {
        Ok(Prompt { system: "One digit.".to_owned(), user: input.to_string() })
    }
    fn schema(&self) -> &Arc<Value> {
        &self.schema
    }
    fn accept(&self, answer: Value) -> Result<Value, Violations> {
        match answer.get("n").and_then(Value::as_u64) {
            Some(0..=9) => Ok(answer),
            _ => Err(Violations(vec!["The member n must be a digit.".to_owned()])),
        }
    }
    fn fallback(&self, _input: &Value) -> Option<Value> {
        self.fallback.clone()
    }
    fn output_tokens_max(&self) -> u32 {
        64
    }
    fn overhead_bytes(&self) -> usize {
        self.overhead_bytes
    }
    fn fingerprint(&self) -> &str {
        self.fingerprint
    }
}

pub fn key() -> InputHash {
    InputHash::of_job("digit", &json!("seven"))
}

pub fn prompt() -> Prompt {
    Prompt { system: "One digit.".to_owned(), user: "seven".to_owned() }
}

pub fn revision(hash: &str, built_at_ms: u64) -> Revision {
    Revision { hash: hash.to_owned(), built_at_ms, function_version: 1 }
}

/// What is deployed in all tables.
pub fn deployed() -> Revision {
    revision("deployed", 100)
}

/// The message `m-1`, sent 100 s ago, as it stands in `record` too.
pub fn delivery() -> Delivery {
    Delivery {
        message_id: "m-1".to_owned(),
        sent_at_ms: NOW - 100 * SECOND,
        receive_count: 1,
        received_at_ms: NOW,
        redrive_of: None,
    }
}

/// A record of the message `m-1` that somebody else claimed with one call in advance.
pub fn record(state: State) -> Record {
    Record {
        key: key(),
        task: Some("digit".to_owned()),
        reference: Some("first".to_owned()),
        version: 7,
        token: THEIRS.to_owned(),
        state,
        previous: None,
        message_id: "m-1".to_owned(),
        sent_at_ms: NOW - 100 * SECOND,
        first_received_ms: NOW - 90 * SECOND,
        last_claimed_ms: NOW - 60 * SECOND,
        budget: Budget { claims: 2, calls: 3, reasks: 1, ..Budget::default() },
        redrives: 1,
        history: vec![PastFailure {
            reason: "refused".to_owned(),
            failed_at_ms: 5,
            calls: 1,
            message_id: "m-0".to_owned(),
            more: serde_json::Map::new(),
        }],
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        expires_at_ms: NOW + 30 * DAY,
    }
}

/// Finished 50 s ago, by what is deployed.
pub fn done() -> State {
    State::Done(Box::new(Done {
        output: json!({"n": 7}),
        needs_review: false,
        reviewed: false,
        revision: deployed(),
        model: "model-1".to_owned(),
        finished_at_ms: NOW - 50 * SECOND,
    }))
}

/// Failed 50 s ago.
pub fn failed() -> State {
    State::Failed(Box::new(Failed {
        reason: FailureReason::InvalidOutput,
        detail: "The last of 3 answers was not accepted.".to_owned(),
        failed_at_ms: NOW - 50 * SECOND,
        request_id: Some("req-theirs".to_owned()),
        excerpt: Some("{\"n\": 12}".to_owned()),
        revision: deployed(),
    }))
}

pub fn claimed(lease_until_ms: u64, alone: bool) -> State {
    State::Claimed { lease_until_ms, alone }
}

/// A claim of `m-1` under `OURS`, with nothing else open.
pub fn ask<'a>(
    key: &'a InputHash,
    delivery: &'a Delivery,
    revision: &'a Revision,
    limits: &'a Limits,
) -> ClaimAsk<'a> {
    ClaimAsk {
        key,
        task: Some("digit"),
        reference: Some("ours"),
        delivery,
        token: OURS,
        now_ms: NOW,
        lease_until_ms: NOW + 310 * SECOND,
        alone: true,
        revision,
        limits,
    }
}

/// The first claim of a fresh input, granted.
pub fn first_claim(limits: &Limits) -> Record {
    ask(&key(), &delivery(), &deployed(), limits).first().record
}

pub fn work<'a>(task: &'a Digit, input: &'a Value, limits: &'a Limits, revision: &'a Revision) -> Work<'a> {
    let price = CallPrice::new(PRICE, 1_000, task.output_tokens_max());
    Work { task, input, limits, price, model: "model-1", revision, opened_at_ms: 0 }
}

/// A run of the first claim.
pub fn fresh_run(limits: &Limits) -> JobRun {
    JobRun::new(first_claim(limits), &prompt())
}

/// A run of a claim whose job already used this.
pub fn run_with(limits: &Limits, used: Budget) -> JobRun {
    let mut record = first_claim(limits);
    record.budget = Budget { calls: used.calls + 1, ..used };
    JobRun::new(record, &prompt())
}

pub fn failure(class: FailureClass) -> ModelFailure {
    ModelFailure {
        class,
        status: Some(529),
        error_type: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
        request_id: Some("req-1".to_owned()),
        advice: RetryAdvice::default(),
        headroom: Headroom::default(),
        oversize: None,
    }
}

pub fn reply(answer: Answer) -> ModelReply {
    ModelReply {
        answer,
        usage: Usage { input_tokens: 100, output_tokens: 20 }.into(),
        request_id: Some("req-1".to_owned()),
        headroom: Headroom::default(),
    }
}

pub fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

/// A budget in one line.
pub fn show_budget(budget: &Budget) -> String {
    let refused = match budget.refusals {
        None => String::new(),
        Some(refusals) => format!(" refused {}", refusals.times),
    };
    let waiting = match budget.waiting_since_ms {
        None => String::new(),
        Some(since_ms) => format!(" waiting {} s", (NOW.saturating_sub(since_ms)) / SECOND),
    };
    format!(
        "claims {} calls {} reasks {} crashes {}{waiting}{refused}",
        budget.claims, budget.calls, budget.reasks, budget.crashes
    )
}

/// A write in one line: where the job stands then, under which version and condition, and what it has used.
pub fn show_write(write: &RecordWrite) -> String {
    let state = match &write.record.state {
        State::Failed(failed) => format!("failed {}", failed.reason),
        State::Done(done) if done.needs_review => "done for review".to_owned(),
        state => state.as_str().to_owned(),
    };
    let condition = match &write.expect {
        Expect::Exactly { version, token } => format!("exactly v{version} of {token}"),
        other => format!("{other:?}"),
    };
    format!("{state} v{} if {condition}: {}", write.record.version, show_budget(&write.record.budget))
}

pub fn show_after(after: &AfterCall) -> String {
    match after {
        AfterCall::Store { output, needs_review: false } => format!("store {output}"),
        AfterCall::Store { output, needs_review: true } => format!("store {output} for review"),
        AfterCall::CallAgain { delay_ms } => format!("call again in {delay_ms}"),
        AfterCall::HandBack { cause, at_least_ms } => format!("hand back {} {at_least_ms}", cause.as_str()),
        AfterCall::Fail(rejection) => format!("fail {}", rejection.reason),
    }
}

pub fn show_before(before: &BeforeCall) -> String {
    match before {
        BeforeCall::Call { timeout_ms, count_first: None } => format!("call within {timeout_ms}"),
        BeforeCall::Call { timeout_ms, count_first: Some(write) } => {
            format!("write {}, call within {timeout_ms}", show_write(write))
        }
        BeforeCall::HandBack { cause, at_least_ms } => format!("hand back {} {at_least_ms}", cause.as_str()),
        BeforeCall::Fail(rejection) => format!("fail {}", rejection.reason),
    }
}

pub fn show_hand_back(hand_back: &HandBack) -> String {
    match hand_back {
        HandBack::Return { delay_s } => format!("return in {delay_s} s"),
        HandBack::GiveUp(rejection) => format!("give up {}", rejection.reason),
    }
}
