//! What the test targets share.

use serde_json::Value;

pub mod cases;
pub mod http;
pub mod memory;
pub mod records;
pub mod servers;
pub mod shell;

/// An answer that is good for every ticket. The example word for word would be refused as a copy.
#[must_use]
pub fn ticket_answer() -> Value {
    let task = nightshift_tasks::registry().describe("categorize_ticket");
    let mut output = task.map(|task| task.example_output).unwrap_or_default();
    if let Some(reason) = output.get_mut("reason") {
        *reason = "The customer asks for help.".into();
    }
    output
}
