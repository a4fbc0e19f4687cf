//! Every limit of the worker, its default, and which limits contradict each other.

/// All limits. Units are in the names.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// One model call, connection included.
    pub call_timeout_ms: u64,
    /// Model calls of one claim, retries and re-asks included.
    pub call_limit: u32,
    /// Re-asks of one job after an invalid answer.
    pub reask_limit: u32,
    /// Calls of one job that were answered or may have been billed, over all deliveries.
    pub paid_call_limit: u32,
    /// Deaths of a worker that had only this job.
    pub crash_limit: u32,
    /// First step of the backoff between calls of one claim.
    pub backoff_base_ms: u64,
    /// Last step of that backoff.
    pub backoff_ms_max: u64,
    /// First step of the delay with which a message is handed back.
    pub hand_back_base_ms: u64,
    /// Last step of that delay.
    pub hand_back_ms_max: u64,
    /// How long a job may wait for the provider's capacity before it is a dead letter.
    pub capacity_wait_ms_max: u64,
    /// A lease outlives its invocation by this much, so that skewed clocks do not end it early.
    pub lease_margin_ms: u64,
    /// No call is open later than this much before the function's timeout.
    pub deadline_margin_ms: u64,
    /// A message body. SQS allows 1 MiB in all; the rest is room for our attributes.
    pub body_bytes_max: usize,
    /// A stored output. DynamoDB allows 400 KB for the whole item (Service, account, and table quotas).
    pub output_bytes_max: usize,
    /// How long a result is kept.
    pub result_expiry_ms: u64,
    /// How long a failure or an unfinished record is kept.
    pub failure_expiry_ms: u64,
    /// After which Lambda kills an invocation.
    pub function_timeout_ms: u64,
    /// The jobs queue's visibility timeout.
    pub visibility_timeout_ms: u64,
    /// The jobs queue's retention: SQS deletes a message of this age without a word.
    pub retention_ms: u64,
    /// Receives after which SQS moves a message to `crashed`.
    pub receive_count_max: u32,
    /// Messages of one invocation.
    pub batch_size: u32,
    /// Invocations at one time.
    pub concurrency_max: u32,
    /// The provider's limit of requests per minute; 0: unknown.
    pub requests_per_minute: u64,
    /// The provider's limit of tokens per minute; 0: unknown.
    pub tokens_per_minute: u64,
    /// What all jobs of a UTC day may cost, in millionths of a dollar.
    pub spend_cap_micro_usd: u64,
}

/// Longest visibility that SQS allows, counted from the receive (Amazon SQS visibility timeout).
pub const VISIBILITY_MS_MAX: u64 = 12 * 60 * 60 * 1_000;

impl Default for Limits {
    fn default() -> Self {
        const SECOND: u64 = 1_000;
        const HOUR: u64 = 3_600 * SECOND;
        const DAY: u64 = 24 * HOUR;
        Self {
            call_timeout_ms: 120 * SECOND,
            call_limit: 5,
            reask_limit: 2,
            paid_call_limit: 6,
            crash_limit: 3,
            backoff_base_ms: SECOND,
            backoff_ms_max: 30 * SECOND,
            hand_back_base_ms: 30 * SECOND,
            hand_back_ms_max: 900 * SECOND,
            capacity_wait_ms_max: 12 * HOUR,
            lease_margin_ms: 10 * SECOND,
            deadline_margin_ms: 10 * SECOND,
            body_bytes_max: 900 * 1_024,
            output_bytes_max: 300 * 1_024,
            result_expiry_ms: 90 * DAY,
            failure_expiry_ms: 30 * DAY,
            function_timeout_ms: 300 * SECOND,
            visibility_timeout_ms: 1_800 * SECOND,
            retention_ms: 7 * DAY,
            receive_count_max: 100,
            batch_size: 10,
            concurrency_max: 10,
            requests_per_minute: 0,
            tokens_per_minute: 0,
            spend_cap_micro_usd: 50_000_000,
        }
    }
}

impl Limits {
    /// How often a job that waits for capacity for as long as it may is handed back, when each delay is a whole step.
    /// A delay may be as short as half of it, so that it can be twice as often.
    #[must_use]
    pub fn hand_backs_while_waiting(&self) -> u64 {
        self.capacity_wait_ms_max / self.hand_back_ms_max.max(1)
    }

    /// What in these limits cannot all be true; empty when they agree. Each entry says what to change.
    #[must_use]
    pub fn contradictions(&self) -> Vec<String> {
        let deadline_ms = self.function_timeout_ms.saturating_sub(self.deadline_margin_ms);
        let worst_wait_ms = u64::from(self.receive_count_max)
            .saturating_mul(self.visibility_timeout_ms)
            .saturating_add(self.capacity_wait_ms_max);
        [
            (self.call_limit == 0 || self.paid_call_limit == 0, "CALL_LIMIT and PAID_CALL_LIMIT must be at least 1: with 0 no job could ever succeed.".to_owned()),
            (self.crash_limit == 0, "CRASH_LIMIT must be at least 1: with 0 every job would be poison.".to_owned()),
            (self.batch_size == 0 || self.concurrency_max == 0, "BATCH_SIZE and MAXIMUM_CONCURRENCY must be at least 1.".to_owned()),
            (
                self.paid_call_limit <= self.reask_limit,
                format!("PAID_CALL_LIMIT ({}) must exceed REASK_LIMIT ({}): raise the first or lower the second.", self.paid_call_limit, self.reask_limit),
            ),
            (self.call_timeout_ms < 1_000, "CALL_TIMEOUT_MS must be at least 1000: no model answers faster.".to_owned()),
            (
                self.call_timeout_ms > deadline_ms,
                format!("CALL_TIMEOUT_MS ({}) does not fit into FUNCTION_TIMEOUT_MS less DEADLINE_MARGIN_MS ({deadline_ms}): raise the function's timeout or lower the call's.", self.call_timeout_ms),
            ),
            (
                self.visibility_timeout_ms < self.function_timeout_ms.saturating_mul(6),
                format!("VISIBILITY_TIMEOUT_MS ({}) must be at least 6 × FUNCTION_TIMEOUT_MS ({}): AWS's advice for Lambda on SQS.", self.visibility_timeout_ms, self.function_timeout_ms),
            ),
            (self.visibility_timeout_ms > VISIBILITY_MS_MAX, "VISIBILITY_TIMEOUT_MS must not exceed 43200000: SQS allows 12 hours.".to_owned()),
            (
                worst_wait_ms > self.retention_ms,
                format!("MAX_RECEIVE_COUNT × VISIBILITY_TIMEOUT_MS + CAPACITY_WAIT_MS_MAX ({worst_wait_ms}) must fit into RETENTION_MS ({}): otherwise SQS deletes jobs unannounced.", self.retention_ms),
            ),
            (
                self.hand_back_base_ms == 0 || self.hand_back_base_ms > self.hand_back_ms_max,
                "HAND_BACK_BASE_MS must be from 1 to HAND_BACK_MS_MAX.".to_owned(),
            ),
            (
                u64::from(self.receive_count_max) <= 2 * self.hand_backs_while_waiting(),
                format!("MAX_RECEIVE_COUNT ({}) must be more than twice the hand-backs that CAPACITY_WAIT_MS_MAX allows: raise it, or raise HAND_BACK_MS_MAX.", self.receive_count_max),
            ),
            (
                self.backoff_base_ms == 0 || self.backoff_base_ms > self.backoff_ms_max,
                "BACKOFF_BASE_MS must be from 1 to BACKOFF_MS_MAX: without backoff a fleet hammers the provider.".to_owned(),
            ),
            (
                self.result_expiry_ms <= self.retention_ms || self.failure_expiry_ms <= self.retention_ms,
                "RESULT_EXPIRY_DAYS and FAILURE_EXPIRY_DAYS must exceed RETENTION_MS: otherwise a late duplicate is paid for again.".to_owned(),
            ),
            (
                self.lease_margin_ms == 0 || self.deadline_margin_ms == 0,
                "LEASE_MARGIN_MS and DEADLINE_MARGIN_MS must be at least 1: 10000 is right for most.".to_owned(),
            ),
            (self.output_bytes_max > 350 * 1_024, "OUTPUT_BYTES_MAX must not exceed 358400: a DynamoDB item holds 400 KB in all.".to_owned()),
            (self.body_bytes_max > 900 * 1_024, "BODY_BYTES_MAX must not exceed 921600: SQS holds 1 MiB, our attributes included.".to_owned()),
        ]
        .into_iter()
        .filter_map(|(contradicted, message)| contradicted.then_some(message))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        assert_eq!(Limits::default().contradictions(), Vec::<String>::new());
    }

    /// Only whoever adds a limit knows what it can contradict.
    #[test]
    fn every_limit_has_its_rule_or_needs_none() {
        const NEED_NONE: [&str; 3] = ["requests_per_minute", "tokens_per_minute", "spend_cap_micro_usd"];
        let source = include_str!("limits.rs").split("#[cfg(test)]").next().unwrap();
        let rules = source.split("pub fn contradictions").nth(1).unwrap();
        let ruled: Vec<&str> = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        let shown = format!("{:#?}", Limits::default());
        for (limit, _) in shown.lines().filter_map(|line| line.trim().split_once(": ")) {
            assert!(
                ruled.contains(&limit) != NEED_NONE.contains(&limit),
                "{limit}: say in contradictions() which values cannot be (0, or beside another limit), or name it in NEED_NONE"
            );
        }
    }

    #[test]
    fn each_contradiction_says_what_to_change() {
        type Change = fn(&mut Limits);
        let cases: Vec<(Change, &str)> = vec![
            (|l| l.call_limit = 0, "CALL_LIMIT and PAID_CALL_LIMIT must be"),
            (|l| l.paid_call_limit = 0, "CALL_LIMIT and PAID_CALL_LIMIT must be"),
            (|l| l.crash_limit = 0, "CRASH_LIMIT"),
            (|l| l.batch_size = 0, "BATCH_SIZE"),
            (|l| l.concurrency_max = 0, "MAXIMUM_CONCURRENCY"),
            (|l| l.reask_limit = 6, "PAID_CALL_LIMIT (6) must exceed REASK_LIMIT (6)"),
            (|l| l.call_timeout_ms = 999, "CALL_TIMEOUT_MS must be"),
            (|l| l.call_timeout_ms = 290_001, "CALL_TIMEOUT_MS (290001) does not fit"),
            (|l| l.visibility_timeout_ms = 300_000, "VISIBILITY_TIMEOUT_MS (300000)"),
            (|l| l.visibility_timeout_ms = 43_200_001, "must not exceed 43200000"),
            (|l| l.retention_ms = 223_199_999, "(223200000) must fit into RETENTION_MS"),
            (|l| l.hand_back_base_ms = 0, "HAND_BACK_BASE_MS"),
            (|l| l.hand_back_base_ms = 900_001, "HAND_BACK_BASE_MS"),
            (|l| l.receive_count_max = 96, "MAX_RECEIVE_COUNT (96)"),
            (|l| l.backoff_base_ms = 0, "BACKOFF_BASE_MS"),
            (|l| l.backoff_base_ms = 30_001, "BACKOFF_BASE_MS"),
            (|l| l.failure_expiry_ms = l.retention_ms, "FAILURE_EXPIRY_DAYS"),
            (|l| l.result_expiry_ms = l.retention_ms, "RESULT_EXPIRY_DAYS"),
            (|l| l.lease_margin_ms = 0, "LEASE_MARGIN_MS"),
            (|l| l.deadline_margin_ms = 0, "DEADLINE_MARGIN_MS"),
            (|l| l.output_bytes_max = 358_401, "OUTPUT_BYTES_MAX"),
            (|l| l.body_bytes_max = 921_601, "BODY_BYTES_MAX"),
        ];
        for (change, expected) in cases {
            let mut limits = Limits::default();
            change(&mut limits);
            let found = limits.contradictions();
            assert!(found.iter().any(|message| message.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn what_just_fits_is_no_contradiction() {
        const DAY_MS: u64 = 86_400_000;
        let changes: [fn(&mut Limits); 11] = [
            |l| (l.call_limit, l.crash_limit, l.batch_size, l.concurrency_max) = (1, 1, 1, 1),
            |l| (l.paid_call_limit, l.reask_limit) = (1, 0),
            |l| l.call_timeout_ms = 1_000,
            |l| l.call_timeout_ms = 290_000,
            // 97 times 12 hours, and the wait for capacity.
            |l| {
                (l.visibility_timeout_ms, l.receive_count_max, l.retention_ms) =
                    (43_200_000, 97, 49 * DAY_MS);
                (l.result_expiry_ms, l.failure_expiry_ms) = (50 * DAY_MS, 50 * DAY_MS);
            },
            |l| l.retention_ms = 223_200_000,
            |l| (l.hand_back_base_ms, l.hand_back_ms_max) = (900_000, 900_000),
            |l| (l.backoff_base_ms, l.backoff_ms_max) = (1, 1),
            |l| (l.result_expiry_ms, l.failure_expiry_ms) = (l.retention_ms + 1, l.retention_ms + 1),
            |l| (l.lease_margin_ms, l.deadline_margin_ms) = (1, 1),
            |l| (l.output_bytes_max, l.body_bytes_max) = (358_400, 921_600),
        ];
        for change in changes {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(limits.contradictions(), Vec::<String>::new(), "{limits:?}");
        }
    }
}
