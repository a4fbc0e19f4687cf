//! A load test of a simulated fleet: the real worker, the simulation's queue, table and provider, the schedule, the verdict
//! and the report of `nightshift load-test`.
//!
//! For loads that a stack on one machine is too small for, and for stacks that are too small on purpose. What it does not
//! have: Lambda's own scaling, DynamoDB's limits, network, and CloudWatch.

use std::collections::BTreeMap;
use std::sync::Arc;

use nightshift_core::limits::Limits;
use nightshift_core::load_test::{
    Above, Alarms, Observed, Plan, Sample, Thresholds, grouped, judge, measure,
};
use nightshift_core::spread::Spread;
use nightshift_load_report::{Report, Tested, settings};
use nightshift_simulation::plan::{Faults, Plan as Run, Profile, Shares};
use nightshift_simulation::run::lived;
use nightshift_simulation::world::{BEGINNING_MS, World};

/// A fleet, and what is sent to it.
#[derive(Debug, Clone)]
pub struct Load {
    /// When what is sent.
    pub plan: Plan,
    /// What the stack is set to.
    pub limits: Limits,
    /// What is good enough.
    pub thresholds: Thresholds,
    /// The provider's true requests a minute, told in no header; 0: none.
    pub requests_per_minute: u64,
    /// Where latencies and faults come from.
    pub seed: u64,
}

/// What the provider does, as the load test's own stack has it by default: seconds of latency, and a call of fifty that fails.
const LATENCY_MS: (u64, u64) = (500, 4_000);

fn faults() -> Faults {
    Faults {
        ledger_throttled: 0.001,
        ledger_reply_lost: 0.001,
        model_fails: 0.02,
        model_overloaded: 0.01,
        model_lies: 0.02,
        ..Faults::default()
    }
}

/// Sends it, for as long as `nightshift load-test` would look, and judges it.
///
/// # Errors
/// A promise that broke meanwhile, which is a defect and no matter of load; or that there is no runtime.
pub fn test(load: &Load) -> Result<Report, String> {
    let looks_ms = load.plan.duration_ms() + (load.thresholds.drain_s_max.max(0.0) * 1_000.0) as u64;
    let world = lived(run_of(load), Some(looks_ms))?;
    Ok(report(load, &world))
}

fn run_of(load: &Load) -> Run {
    let mut run = Run::of_seed(load.seed, Some(Profile::Faulty));
    run.jobs = u32::try_from(load.plan.jobs()).unwrap_or(u32::MAX);
    run.limits = load.limits.clone();
    run.faults = faults();
    run.shares = Shares::default();
    run.windows = Vec::new();
    (run.erasures, run.reviews) = (0, 0);
    // What it may spend is no limit here.
    run.spreads = [Spread::default(); 2];
    run.arrival_ms = load.plan.duration_ms();
    run.faults_end_ms = run.arrival_ms;
    run.requests_per_minute = load.requests_per_minute;
    run.headers = false;
    run.latency_ms = LATENCY_MS;
    run.schedule = Some(load.plan.clone());
    // What is measured is the stack's own limits, and no pause.
    run.sentinel = false;
    run
}

fn report(load: &Load, world: &Arc<World>) -> Report {
    let state = world.lock();
    let mut accepted_ms = BTreeMap::new();
    for message in &state.queue.messages {
        accepted_ms.entry(message.input).or_insert(message.sent_at_ms - BEGINNING_MS);
    }
    let queued = state.queue.live > 0;
    let samples: Vec<_> = (0_u32..)
        .zip(&state.inputs)
        .map(|(n, input)| {
            let accepted_ms = accepted_ms.get(&n).copied();
            Sample::of(input.record.as_deref(), accepted_ms, BEGINNING_MS, queued, world.now_ms())
        })
        .collect();
    let last_ms = samples.iter().filter_map(|sample| sample.settled_ms).max().unwrap_or_default();
    let ended_ms = if queued { world.elapsed_ms() } else { last_ms };
    let measured = measure(&load.plan, &samples, load.plan.jobs(), ended_ms);
    let handed_back: BTreeMap<_, _> = state
        .stats
        .handed_back
        .iter()
        .map(|(cause, count)| (cause.as_str().to_owned(), *count as f64))
        .collect();
    let observed = Observed {
        throttled: Some(state.stats.throttled as f64),
        calls: Some(state.stats.calls as f64),
        handed_back: Some(handed_back.values().fold(0.0, |sum, count| sum + count)),
        causes: handed_back,
        alarms: Alarms::NotSimulated,
    };
    let Load { plan, limits, thresholds, .. } = load.clone();
    let faults = faults();
    Report {
        verdict: judge(&plan, &measured, &observed, &limits, &thresholds, Above::not_asked()),
        plan,
        thresholds,
        measured,
        observed,
        tested: Tested {
            run: format!("seed {}", load.seed),
            stack: "a simulated fleet".to_owned(),
            region: "virtual time".to_owned(),
            began_at: "at any time".to_owned(),
            worker_version: "of this source".to_owned(),
            command_version: env!("CARGO_PKG_VERSION"),
            model: format!(
                "simulated: {} to {} ms, {} % of the calls fail, {} % are refused for capacity, {} % of the answers are invalid",
                grouped(LATENCY_MS.0),
                grouped(LATENCY_MS.1),
                faults.model_fails * 100.0,
                faults.model_overloaded * 100.0,
                faults.model_lies * 100.0
            ),
            settings: settings(&limits),
        },
    }
}
