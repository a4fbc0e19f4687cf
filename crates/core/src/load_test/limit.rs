//! The limits of a stack as loads, as far as they can be computed from what one job took in a test.

use serde::Serialize;

use super::measure::Measured;
use super::{grouped, grouped_to};
use crate::cost::usd;
use crate::limits::Limits;
use crate::spread::index_keys;

/// Write units a second that DynamoDB gives one key ("Best practices for designing and using partition keys effectively in
/// DynamoDB").
const KEY_WRITE_UNITS: f64 = 1_000.0;
/// Write units of one job in the index of what is unsettled: it comes in, and goes out.
const INDEX_UNITS_PER_JOB: f64 = 2.0;
/// Write units of one invocation in the day's spend, before its calls and after them. Whether that is spread over shards
/// follows from the dearest call, of which nothing is known here.
const SPEND_UNITS_PER_INVOCATION: f64 = 2.0;

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
    /// The provider, by a limit that the stack was not told.
    Provider,
    /// Dollars a day.
    SpendCap,
    /// Write units of one key of the ledger.
    Ledger,
    /// The time that a job takes in the worker, whatever it waited before.
    Job,
    /// The machine that sends, or its network: the stack saw a lower load.
    Sender,
    /// What an alarm watches that nothing else shows.
    Alarm,
    /// How old jobs become, with no limit that is known to be reached.
    QueueAge,
    /// Nothing tells.
    Unexplained,
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

impl Limited {
    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::ProviderRequests => "the provider's requests a minute",
            Self::ProviderTokens => "the provider's tokens a minute",
            Self::Provider => "the provider's capacity",
            Self::SpendCap => "the spend cap",
            Self::Ledger => "DynamoDB",
            Self::Job => "the time that one job takes",
            Self::Sender => "the machine that sends",
            Self::Alarm => "what an alarm watches",
            Self::QueueAge => "the age of what waits",
            Self::Unexplained => "something that no number names",
        }
    }
}

/// All limits that are known, the first to be reached first.
pub(super) fn computed(measured: &Measured, limits: &Limits) -> Vec<Limit> {
    let (batch, environments) = (f64::from(limits.batch_size), f64::from(limits.concurrency_max));
    // A full batch takes as long as its slowest job: of ten, about the 91st percentile; the next one that is kept.
    let batch_s =
        if limits.batch_size == 1 { measured.work.p50_ms } else { measured.work.p95_ms } as f64 / 1_000.0;
    let cost = &measured.cost;
    let usd_per_job = cost.usd_per_job;
    let cap_usd = usd(limits.spend_cap_micro_usd);
    let index_units = INDEX_UNITS_PER_JOB / f64::from(index_keys(limits.concurrency_max));
    let units = index_units.max(SPEND_UNITS_PER_INVOCATION / batch.max(1.0));
    let mut known = vec![Limit {
        limited: Limited::Ledger,
        per_hour: KEY_WRITE_UNITS / units * 3_600.0,
        because: format!(
            "DynamoDB gives one key {} write units a second, and a job takes {units:.2} of the hottest",
            grouped(KEY_WRITE_UNITS)
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
            "{} batches of {batch} at one time, {batch_s:.1} s each (queues.maximum_concurrency or what the account has left, queues.batch_size)",
            grouped(environments)
        ),
    );
    add(
        Limited::ProviderRequests,
        limits.requests_per_minute as f64 * 60.0 / cost.calls_per_job,
        format!(
            "{} requests a minute, {:.2} a job (model.requests_per_minute)",
            grouped(limits.requests_per_minute),
            cost.calls_per_job
        ),
    );
    add(
        Limited::ProviderTokens,
        limits.tokens_per_minute as f64 * 60.0 / cost.tokens_per_job,
        format!(
            "{} tokens a minute, {} a job (model.tokens_per_minute)",
            grouped(limits.tokens_per_minute),
            grouped(cost.tokens_per_job)
        ),
    );
    add(
        Limited::SpendCap,
        cap_usd / usd_per_job / 24.0,
        format!(
            "{} USD a day, {usd_per_job:.6} USD a job, around the clock (limits.spend_cap_usd_per_day)",
            grouped_to(cap_usd, 2)
        ),
    );
    known.sort_by(|a, b| a.per_hour.total_cmp(&b.per_hour));
    known
}
