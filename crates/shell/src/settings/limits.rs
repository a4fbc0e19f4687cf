//! All limits, and whether they agree with each other.

use nightshift_core::limits::Limits;

use super::{Environment, spend};

/// Reads the limits; what is not set has the core's default.
pub fn limits(environment: &mut Environment<'_>) -> Limits {
    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    let mut limits = Limits::default();
    let l = &mut limits;
    environment.number("NIGHTSHIFT_CALL_TIMEOUT_MS", &mut l.call_timeout_ms);
    environment.number("NIGHTSHIFT_CALL_LIMIT", &mut l.call_limit);
    environment.number("NIGHTSHIFT_REASK_LIMIT", &mut l.reask_limit);
    environment.number("NIGHTSHIFT_PAID_CALL_LIMIT", &mut l.paid_call_limit);
    environment.number("NIGHTSHIFT_CRASH_LIMIT", &mut l.crash_limit);
    environment.number("NIGHTSHIFT_BACKOFF_BASE_MS", &mut l.backoff_base_ms);
    environment.number("NIGHTSHIFT_BACKOFF_MS_MAX", &mut l.backoff_ms_max);
    environment.number("NIGHTSHIFT_HAND_BACK_BASE_MS", &mut l.hand_back_base_ms);
    environment.number("NIGHTSHIFT_HAND_BACK_MS_MAX", &mut l.hand_back_ms_max);
    environment.number("NIGHTSHIFT_CAPACITY_WAIT_MS_MAX", &mut l.capacity_wait_ms_max);
    environment.number("NIGHTSHIFT_LEASE_MARGIN_MS", &mut l.lease_margin_ms);
    environment.number("NIGHTSHIFT_DEADLINE_MARGIN_MS", &mut l.deadline_margin_ms);
    environment.number("NIGHTSHIFT_BODY_BYTES_MAX", &mut l.body_bytes_max);
    environment.number("NIGHTSHIFT_OUTPUT_BYTES_MAX", &mut l.output_bytes_max);
    environment.number("NIGHTSHIFT_FUNCTION_TIMEOUT_MS", &mut l.function_timeout_ms);
    environment.number("NIGHTSHIFT_VISIBILITY_TIMEOUT_MS", &mut l.visibility_timeout_ms);
    environment.number("NIGHTSHIFT_RETENTION_MS", &mut l.retention_ms);
    environment.number("NIGHTSHIFT_MAX_RECEIVE_COUNT", &mut l.receive_count_max);
    environment.number("NIGHTSHIFT_BATCH_SIZE", &mut l.batch_size);
    environment.number("NIGHTSHIFT_MAXIMUM_CONCURRENCY", &mut l.concurrency_max);
    environment.number("NIGHTSHIFT_REQUESTS_PER_MINUTE", &mut l.requests_per_minute);
    environment.number("NIGHTSHIFT_TOKENS_PER_MINUTE", &mut l.tokens_per_minute);
    for (name, ms) in [
        ("NIGHTSHIFT_RESULT_EXPIRY_DAYS", &mut l.result_expiry_ms),
        ("NIGHTSHIFT_FAILURE_EXPIRY_DAYS", &mut l.failure_expiry_ms),
    ] {
        let mut days = *ms / DAY_MS;
        environment.number(name, &mut days);
        *ms = days.saturating_mul(DAY_MS);
    }
    if let Some(cap) = spend::cap_micro_usd(environment) {
        l.spend_cap_micro_usd = cap;
    }
    let contradictions = limits.contradictions();
    environment.contradictions.extend(contradictions.into_iter().map(|fault| format!("NIGHTSHIFT_{fault}")));
    limits
}
