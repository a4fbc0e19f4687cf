//! What a load test says, of a stack or of a simulated fleet: a document for programs, and a page for people.

mod page;

use nightshift_core::cost::usd;
use nightshift_core::limits::Limits;
use nightshift_core::load_test::{Measured, Observed, Plan, Thresholds, Verdict, grouped, grouped_to};
use serde::Serialize;

/// All that a test says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the stack stands it, and why.
    pub verdict: Verdict,
    /// What was sent, and when.
    pub plan: Plan,
    /// What is good enough.
    pub thresholds: Thresholds,
    /// What was measured.
    pub measured: Measured,
    /// What CloudWatch said.
    pub observed: Observed,
    /// What was tested, and by what.
    pub tested: Tested,
}

impl Report {
    /// The report as one HTML page: no script, no font, no picture, no request.
    #[must_use]
    pub fn page(&self) -> String {
        page::of(self)
    }
}

/// What was tested, and by what.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// The name of this test, which stands in the references of its jobs.
    pub run: String,
    /// The start of the stack's names.
    pub stack: String,
    /// Where it is.
    pub region: String,
    /// When the first job was due, RFC 3339.
    pub began_at: String,
    /// As the live function was told it when it was deployed.
    pub worker_version: String,
    /// The version of what tested it.
    pub command_version: &'static str,
    /// The model's id; of the rehearsal, its latency and faults.
    pub model: String,
    /// The worker's settings that bear on load, by their names for people.
    pub settings: Vec<(&'static str, String)>,
}

/// The settings of a worker that bear on load.
#[must_use]
pub fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let seconds = |ms: u64| format!("{} s", grouped(ms / 1_000));
    vec![
        ("maximum concurrency", grouped(limits.concurrency_max)),
        ("batch size", limits.batch_size.to_string()),
        ("function timeout", seconds(limits.function_timeout_ms)),
        ("visibility timeout", seconds(limits.visibility_timeout_ms)),
        ("requests per minute", grouped(limits.requests_per_minute)),
        ("tokens per minute", grouped(limits.tokens_per_minute)),
        ("spend cap per day", format!("{} USD", grouped_to(usd(limits.spend_cap_micro_usd), 2))),
        ("calls per claim, paid calls per job", format!("{}, {}", limits.call_limit, limits.paid_call_limit)),
    ]
}
