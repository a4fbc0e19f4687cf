//! What the worker does with a job, for those who are not the worker.

use nightshift_core::limits::Limits;

use super::{Environment, spend};

/// Limits of one job, and what is deployed to work on it.
#[derive(Debug, Clone)]
pub struct JobSettings {
    /// The model's id.
    pub model: String,
    /// When it was built, in milliseconds since 1970: what a newer one finished is not worked on again.
    pub worker_version: u64,
    /// A message body, in bytes.
    pub body_bytes_max: usize,
    /// Calls of one job that are paid for.
    pub paid_call_limit: u32,
    /// How long a failed or unfinished record is kept, in milliseconds.
    pub failure_expiry_ms: u64,
    /// What all jobs of a UTC day may cost, in millionths of a dollar.
    pub spend_cap_micro_usd: u64,
}

impl JobSettings {
    /// Reads them; what is not set has the core's default.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let mut limits = Limits::default();
        let (mut worker_version, mut days) = (0, limits.failure_expiry_ms / DAY_MS);
        environment.number("NIGHTSHIFT_WORKER_VERSION", &mut worker_version);
        environment.number("NIGHTSHIFT_BODY_BYTES_MAX", &mut limits.body_bytes_max);
        environment.number("NIGHTSHIFT_PAID_CALL_LIMIT", &mut limits.paid_call_limit);
        environment.number("NIGHTSHIFT_FAILURE_EXPIRY_DAYS", &mut days);
        Self {
            model: environment.required("NIGHTSHIFT_MODEL", "set the model's id"),
            worker_version,
            body_bytes_max: limits.body_bytes_max,
            paid_call_limit: limits.paid_call_limit,
            failure_expiry_ms: days.saturating_mul(DAY_MS),
            spend_cap_micro_usd: spend::cap_micro_usd(environment).unwrap_or(limits.spend_cap_micro_usd),
        }
    }
}
