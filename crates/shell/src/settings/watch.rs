//! What the sentinel watches, and by which limits.

use nightshift_core::limits::Limits;

use super::{Environment, spend, worker_function};

/// What the sentinel is told of the stack, beside its queues and its ledger.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    /// How long SQS keeps a job, in milliseconds.
    pub retention_ms: u64,
    /// How long SQS keeps a dead letter, in milliseconds.
    pub letter_retention_ms: u64,
    /// The most that a UTC day may cost, in millionths of a dollar.
    pub spend_cap_micro_usd: u64,
    /// The longest that a worker's lease can last, in milliseconds.
    pub lease_ms_max: u64,
    /// The name of the redrive's function.
    pub redrive_function: String,
    /// The name of the worker's function.
    pub worker_function: String,
    /// The UUID of its event source mapping.
    pub mapping: String,
    /// Environments of the worker, at most.
    pub environments: u32,
    /// Calls that may be open at once in all environments.
    pub full_width: u32,
}

impl WatchSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        let Limits {
            mut retention_ms,
            spend_cap_micro_usd,
            mut batch_size,
            mut concurrency_max,
            mut function_timeout_ms,
            mut lease_margin_ms,
            ..
        } = Limits::default();
        // SQS's longest, and Terraform's default.
        let mut letter_retention_ms = 14 * 24 * 60 * 60 * 1_000;
        environment.number("NIGHTSHIFT_RETENTION_MS", &mut retention_ms);
        environment.number("NIGHTSHIFT_DEAD_LETTER_RETENTION_MS", &mut letter_retention_ms);
        environment.number("NIGHTSHIFT_FUNCTION_TIMEOUT_MS", &mut function_timeout_ms);
        environment.number("NIGHTSHIFT_LEASE_MARGIN_MS", &mut lease_margin_ms);
        environment.number("NIGHTSHIFT_BATCH_SIZE", &mut batch_size);
        environment.number("NIGHTSHIFT_MAXIMUM_CONCURRENCY", &mut concurrency_max);
        Self {
            retention_ms,
            letter_retention_ms,
            spend_cap_micro_usd: spend::cap_micro_usd(environment).unwrap_or(spend_cap_micro_usd),
            lease_ms_max: function_timeout_ms.saturating_add(lease_margin_ms),
            redrive_function: environment
                .required("NIGHTSHIFT_REDRIVE_FUNCTION", "set the name of the redrive's function"),
            worker_function: worker_function(environment),
            mapping: environment
                .required("NIGHTSHIFT_WORKER_MAPPING", "set the UUID of the worker's event source mapping"),
            environments: concurrency_max,
            full_width: batch_size.saturating_mul(concurrency_max),
        }
    }
}
