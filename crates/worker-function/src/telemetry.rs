//! The log: JSON lines on standard output, which Lambda carries to CloudWatch Logs.

use std::panic;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The crates whose level may be turned up.
///
/// **Invariant:** no others: at `trace` the Lambda runtime logs whole events, and the AWS SDK logs requests and answers.
const OURS: [&str; 6] = [
    "nightshift_aws",
    "nightshift_core",
    "nightshift_models",
    "nightshift_tasks",
    "nightshift_worker",
    "nightshift_worker_function",
];

/// Starts the log at `level` for our crates and at `warn` for all others. A second start changes nothing.
pub fn start(level: LevelFilter) {
    let ours = OURS.map(|name| (name, level));
    let filter = Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(ours)
        // It repeats what the handler and the panic hook have logged already.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        // The span holds the request id; it is the only one.
        .with_current_span(true)
        .with_span_list(false)
        .with_ansi(false);
    let _ = tracing_subscriber::registry().with(json).with(filter).try_init();
    panic::set_hook(Box::new(|info| {
        // The payload is left out: a message may be made from a customer's text.
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked");
    }));
}
