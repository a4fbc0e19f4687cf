//! The log: JSON lines on standard output, which Lambda carries to CloudWatch Logs.

use std::panic;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How the crates begin whose level may be turned up.
///
/// **Invariant:** no others: at `trace` the Lambda runtime logs whole events, and the AWS SDK logs requests and answers.
const OURS: &str = "nightshift_";

/// Starts the log at `level` for our crates and at `warn` for all others. A second start changes nothing.
pub(crate) fn start(level: LevelFilter) {
    let json = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        // The span holds the request id; it is the only one.
        .with_current_span(true)
        .with_span_list(false)
        .with_ansi(false);
    let _ = tracing_subscriber::registry().with(json).with(filter(level)).try_init();
    panic::set_hook(Box::new(|info| {
        // The payload is left out: a message may be made from a customer's text.
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked");
    }));
}

fn filter(level: LevelFilter) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_target(OURS, level)
        // It repeats what the handler and the panic hook have logged already.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_level_is_that_of_our_crates_alone() {
        let filter = filter(LevelFilter::TRACE);
        for (target, level, logged) in [
            ("nightshift_worker::process_job", Level::TRACE, true),
            ("nightshift_shell::runtime", Level::TRACE, true),
            ("lambda_runtime", Level::INFO, false),
            ("aws_smithy_runtime", Level::DEBUG, false),
            ("aws_smithy_runtime", Level::WARN, true),
            ("lambda_runtime::layers::panic", Level::ERROR, false),
        ] {
            assert_eq!(filter.would_enable(target, &level), logged, "{target} {level}");
        }
    }
}
