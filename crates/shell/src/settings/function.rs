//! What Lambda itself says about the function, and how much of its work is logged.

use tracing::level_filters::LevelFilter;

use super::Environment;

/// What every function is told, whatever it does.
#[derive(Debug, Clone)]
pub struct FunctionSettings {
    /// The function's published version; 0 for `$LATEST`, which anybody can change at any time.
    pub version: u64,
    /// Where our own crates begin to log.
    pub log_level: LevelFilter,
}

impl FunctionSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        // Lambda sets these itself, and its runtime client stops without them.
        for name in [
            "AWS_LAMBDA_RUNTIME_API",
            "AWS_LAMBDA_FUNCTION_NAME",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
            "AWS_LAMBDA_FUNCTION_VERSION",
        ] {
            environment.required(
                name,
                "it is set by Lambda, so this program must be started by Lambda or by what stands in for it",
            );
        }
        let version = environment.optional("AWS_LAMBDA_FUNCTION_VERSION");
        Self {
            version: version.and_then(|version| version.parse().ok()).unwrap_or(0),
            log_level: log_level(environment),
        }
    }
}

fn log_level(environment: &mut Environment<'_>) -> LevelFilter {
    match environment.optional("NIGHTSHIFT_LOG") {
        None => LevelFilter::INFO,
        Some(level) => level.parse().unwrap_or_else(|_| {
            environment
                .fault(format!("NIGHTSHIFT_LOG is {level:?}: set error, warn, info, debug, trace or off."));
            LevelFilter::INFO
        }),
    }
}
