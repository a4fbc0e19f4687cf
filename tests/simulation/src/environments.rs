//! Many environments against what DynamoDB lets through of one key: the hottest one, what is handed back for it, and how much of
//! what they could do is done.

use nightshift_core::limits::Limits;
use nightshift_core::metric::HandBackCause;
use nightshift_core::spend::SpendKey;
use nightshift_core::spread::{Spread, index_keys};

use crate::plan::{CALL_MICRO_USD_MAX, Faults, MINUTE, Plan, Profile, SECOND, Shares};
use crate::run::lived;
use crate::units::Hot;

const BATCH: u32 = 10;
/// What each call takes.
const CALL_MS: u64 = SECOND;
/// For which there is work.
const SECONDS: u32 = 30;
/// Less than this share of what they could do is a fault.
const USED_PERCENT_MIN: f64 = 97.0;
/// Invocations of which one at most is handed back for DynamoDB.
const INVOCATIONS: u64 = 10_000;

/// What came of it.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Over how many keys the index and the day's money were spread.
    pub keys: (u32, usize),
    /// Jobs that were settled.
    pub jobs: usize,
    pub invocations: u64,
    /// The most units that one key of the index, of the day's money, and of what environments tell was asked for in a second.
    pub hottest: [u32; 3],
    /// Requests that DynamoDB refused.
    pub refused: u64,
    /// Messages that came back for it.
    pub handed_back: u64,
    /// Of what they could do, were there nothing but the calls, from the fifth second to the last but five.
    pub used_percent: f64,
    /// Why this is not what is promised.
    pub faults: Vec<String>,
}

/// Lets so many environments work off a queue with nothing that holds them back but DynamoDB; `spread`: as it is deployed, or
/// over one key each, as before.
///
/// # Errors
/// A promise that broke, or that there is no runtime.
pub fn live(environments: u32, spread: bool) -> Result<Figures, String> {
    let mut plan = Plan::of_seed(1, Some(Profile::Watched));
    (plan.windows, plan.resumes_ms) = (Vec::new(), Vec::new());
    (plan.faults, plan.shares) = (Faults::default(), Shares::default());
    plan.answers_pages = false;
    plan.latency_ms = (CALL_MS, CALL_MS);
    let per_second = environments * BATCH / (CALL_MS / SECOND) as u32;
    plan.jobs = per_second * SECONDS;
    (plan.arrival_ms, plan.faults_end_ms) = (SECOND, SECOND);
    plan.limits = Limits {
        concurrency_max: environments,
        batch_size: BATCH,
        spend_cap_micro_usd: u64::from(plan.jobs) * CALL_MICRO_USD_MAX,
        ..Limits::default()
    };
    let deployed = Spread::over(environments, plan.limits.spend_cap_micro_usd, CALL_MICRO_USD_MAX);
    plan.spreads = [if spread { deployed } else { Spread::default() }; 2];
    plan.index_keys = if spread { index_keys(environments) } else { 1 };
    // Where DynamoDB refuses most of it, that takes for ever.
    let world = lived(plan, Some(5 * MINUTE))?;
    let state = world.lock();
    let plan = &world.plan;
    let hottest = |is: fn(&Hot) -> bool| {
        state
            .units
            .hottest
            .iter()
            .filter(|(key, _)| is(key))
            .map(|(_, units)| *units)
            .max()
            .unwrap_or_default()
    };
    let last_ms = state.settlements_ms.last().copied().unwrap_or_default();
    let (from_ms, until_ms) = (5 * SECOND, last_ms.saturating_sub(5 * SECOND));
    let done = state.settlements_ms.iter().filter(|at| (from_ms..until_ms).contains(at)).count();
    let could = f64::from(per_second) * until_ms.saturating_sub(from_ms) as f64 / SECOND as f64;
    let keys_of_money = match state
        .units
        .hottest
        .keys()
        .filter(|key| matches!(key, Hot::Spend(SpendKey::Shard(_))))
        .count()
    {
        0 => 1,
        shards => shards,
    };
    let mut figures = Figures {
        keys: (plan.index_keys, keys_of_money),
        jobs: state.settlements_ms.len(),
        invocations: state.stats.invocations,
        hottest: [
            hottest(|key| matches!(key, Hot::Index(..))),
            hottest(|key| matches!(key, Hot::Spend(_))),
            hottest(|key| matches!(key, Hot::Calls)),
        ],
        refused: state.units.refused,
        handed_back: state.stats.handed_back.get(&HandBackCause::Ledger).copied().unwrap_or_default(),
        used_percent: 100.0 * done as f64 / could,
        faults: Vec::new(),
    };
    for (bad, what) in [
        (
            state.units.hottest.iter().any(|(key, units)| *units > key.limit() / 2),
            "a key takes more than half of what it can",
        ),
        (
            figures.handed_back * INVOCATIONS > figures.invocations,
            "more than one invocation in 10,000 meets DynamoDB's limit",
        ),
        (
            figures.used_percent.is_nan() || figures.used_percent < USED_PERCENT_MIN,
            "less than 97 % of what they could do is done",
        ),
    ] {
        if bad {
            figures.faults.push(what.to_owned());
        }
    }
    Ok(figures)
}
