//! At which load a stack would fail, and which limit comes first. It is computed from what one job took in the test: a
//! test at each of those loads would be dear, and would find the first limit only.

use serde::Serialize;

use super::measure::Measured;
use crate::cost::usd;
use crate::limits::Limits;

/// Write units a second that DynamoDB gives one key ("Best practices for designing and using partition keys effectively in
/// DynamoDB").
const KEY_WRITE_UNITS: f64 = 1_000.0;
/// Write units of one job on the hottest key of the index of what is unsettled: it comes in, and goes out.
const INDEX_UNITS_PER_JOB: f64 = 2.0;
/// Write units of one invocation on the record of the day's spend: a transaction before and one after it, two units each.
const SPEND_UNITS_PER_INVOCATION: f64 = 4.0;

/// What can be the first to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// Batches that are worked on at one time.
    Concurrency,
    /// The provider's requests a minute.
    ProviderRequests,
    /// The provider's tokens a minute.
    ProviderTokens,
    /// Dollars a day.
    SpendCap,
    /// Write units of one key of the ledger.
    Ledger,
}

/// A limit, as a load.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Which.
    pub limited: Limited,
    /// Jobs an hour at which it is reached.
    pub per_hour: f64,
    /// Where that comes from, for a person.
    pub because: String,
}

/// At which load the stack would fail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headroom {
    /// All limits that are known, the first to be reached first.
    pub limits: Vec<Limit>,
}

impl Headroom {
    /// From what was measured, and what the stack is set to.
    #[must_use]
    pub fn of(measured: &Measured, limits: &Limits) -> Self {
        let (batch, environments) = (f64::from(limits.batch_size), f64::from(limits.concurrency_max));
        // A full batch takes as long as its slowest job: of ten, about the 91st percentile; the next one that is kept.
        let batch_s =
            if limits.batch_size == 1 { measured.work.p50_ms } else { measured.work.p95_ms } as f64 / 1_000.0;
        let cost = &measured.cost;
        let usd_per_job = cost.usd / measured.accepted.max(1) as f64;
        let cap_usd = usd(limits.spend_cap_micro_usd);
        let units = INDEX_UNITS_PER_JOB.max(SPEND_UNITS_PER_INVOCATION / batch.max(1.0));
        let mut known = vec![Limit {
            limited: Limited::Ledger,
            per_hour: KEY_WRITE_UNITS / units * 3_600.0,
            because: format!(
                "DynamoDB gives one key {KEY_WRITE_UNITS} write units a second, and a job takes {units:.1} of the hottest"
            ),
        }];
        let mut add = |limited, per_hour: f64, because: String| {
            if per_hour.is_finite() && per_hour > 0.0 {
                known.push(Limit { limited, per_hour, because });
            }
        };
        add(
            Limited::Concurrency,
            batch * environments / batch_s * 3_600.0,
            format!(
                "{environments} batches of {batch} at one time, {batch_s:.1} s each (queues.maximum_concurrency, queues.batch_size)"
            ),
        );
        add(
            Limited::ProviderRequests,
            limits.requests_per_minute as f64 * 60.0 / cost.calls_per_job,
            format!(
                "{} requests a minute, {:.2} a job (model.requests_per_minute)",
                limits.requests_per_minute, cost.calls_per_job
            ),
        );
        add(
            Limited::ProviderTokens,
            limits.tokens_per_minute as f64 * 60.0 / cost.tokens_per_job,
            format!(
                "{} tokens a minute, {:.0} a job (model.tokens_per_minute)",
                limits.tokens_per_minute, cost.tokens_per_job
            ),
        );
        add(
            Limited::SpendCap,
            cap_usd / usd_per_job / 24.0,
            format!(
                "{cap_usd:.2} USD a day, {usd_per_job:.6} USD a job, around the clock (limits.spend_cap_usd_per_day)"
            ),
        );
        known.sort_by(|a, b| a.per_hour.total_cmp(&b.per_hour));
        Self { limits: known }
    }

    /// The limit that comes first.
    #[must_use]
    pub fn first(&self) -> Option<&Limit> {
        self.limits.first()
    }
}

impl Limited {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::ProviderRequests => "the provider's requests a minute",
            Self::ProviderTokens => "the provider's tokens a minute",
            Self::SpendCap => "the spend cap",
            Self::Ledger => "DynamoDB's write units for one key",
        }
    }
}
