//! What all scenarios start from: tickets, a worker, and words about how they ended.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Once};

use nightshift_core::dead_letter::{CONTEXT_ATTRIBUTE, DeadLetter, REASON_ATTRIBUTE};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::message::AttributeValue;
use nightshift_core::metric::{HandBackCause, Outcome};
use nightshift_core::model::{FailureClass, ModelRequest, Turn};
use nightshift_core::record::{Record, State};
use nightshift_tests::memory::{Says, World, message};
pub use nightshift_tests::ticket_answer as output;
use nightshift_worker::{BatchReport, Message, Worker};
use serde_json::{Value, json};

/// The function's timeout.
pub const TIMEOUT_MS: u64 = 300_000;

/// A ticket whose text holds this word meets a model that is broken for it.
pub const FAILS: &str = "(the model fails here)";

pub fn good() -> Says {
    Says::Text(output().to_string())
}

/// A model that is well, but for tickets that hold `FAILS`.
pub fn by_text(_nth: usize, request: &ModelRequest) -> Says {
    let Some(Turn::User(user)) = request.turns.first() else { panic!("no user turn") };
    if user.contains(FAILS) { Says::Fails(FailureClass::Transient, None) } else { good() }
}

/// The body of a job.
pub fn ticket(text: &str) -> String {
    json!({"task": "categorize_ticket", "input": {"text": text}}).to_string()
}

pub fn key(text: &str) -> InputHash {
    InputHash::of_job("categorize_ticket", &json!({"text": text}))
}

/// A world and one warm worker in it.
pub struct Stage {
    pub world: Arc<World>,
    pub worker: Worker,
}

impl Stage {
    pub fn new(on_call: impl FnMut(usize, &ModelRequest) -> Says + Send + 'static) -> Self {
        let world = world(on_call);
        let worker = world.worker(Limits::default());
        Self { world, worker }
    }

    /// A message with a ticket, sent now, received for the first time.
    pub fn message(&self, id: &str, text: &str) -> Message {
        message(&self.world, id, ticket(text))
    }

    pub async fn invoke(&self, messages: Vec<Message>) -> BatchReport {
        invoke(&self.worker, messages).await
    }

    pub fn calls(&self) -> usize {
        self.world.calls().len()
    }

    /// The record of a ticket.
    pub fn record(&self, text: &str) -> Record {
        self.world.record(&key(text)).unwrap_or_else(|| panic!("no record of {text:?}"))
    }

    pub fn is_stored(&self, text: &str) -> bool {
        self.world.stored().contains(&key(text))
    }
}

pub async fn invoke(worker: &Worker, messages: Vec<Message>) -> BatchReport {
    worker.process_batch("request", TIMEOUT_MS, messages).await
}

/// The ids that are reported.
pub fn reported(report: &BatchReport) -> Vec<&str> {
    report.failed_message_ids.iter().map(String::as_str).collect()
}

pub fn handed_back(cause: HandBackCause) -> Outcome {
    Outcome::HandedBack(cause)
}

pub fn reason(letter: &DeadLetter) -> String {
    attribute(letter, REASON_ATTRIBUTE)
}

pub fn context(letter: &DeadLetter) -> Value {
    serde_json::from_str(&attribute(letter, CONTEXT_ATTRIBUTE)).unwrap()
}

fn attribute(letter: &DeadLetter, name: &str) -> String {
    let found = letter.attributes.iter().find(|(known, _)| known == name);
    match found.map(|(_, attribute)| &attribute.value) {
        Some(AttributeValue::Text(text)) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The reason with which a ticket failed.
pub fn failed_with(record: &Record) -> Option<FailureReason> {
    match &record.state {
        State::Failed(failed) => Some(failed.reason),
        _ => None,
    }
}

thread_local! {
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The lines that this thread has logged since it was last asked.
pub fn logged() -> Vec<String> {
    String::from_utf8_lossy(&LOGGED.take()).lines().map(str::to_owned).collect()
}

/// Writes to what the thread that logs has logged.
struct ToLogged;

impl Write for ToLogged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.write(bytes))
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The world of a scenario: each is made here, and no worker logs before one is.
///
/// `tracing` asks once for each place that logs whether anybody listens, and may ask the thread that comes there first:
/// a listener of one test's own, or a later one, would miss what another test's thread was the first to log.
pub fn world(on_call: impl FnMut(usize, &ModelRequest) -> Says + Send + 'static) -> Arc<World> {
    static LISTENS: Once = Once::new();
    LISTENS.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| ToLogged).init());
    World::new(on_call)
}
