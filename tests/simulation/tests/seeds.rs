//! A handful of seeds in each test run; `scripts/simulate` runs many.

use nightshift_core::spread::Spread;
use nightshift_simulation::plan::{CALL_MICRO_USD_MAX, DAY, HOUR, Plan, Profile};
use nightshift_simulation::run::run;

/// Small enough for a build without optimisation.
const JOBS: u32 = 30;

#[test]
fn no_promise_breaks_in_any_profile() {
    for (seed, profile) in (1_000..).zip(Profile::ALL) {
        let plan = Plan::of_seed(seed, Some(profile)).with_jobs(JOBS);
        let outcome = run(&plan, None);
        let again = format!("scripts/simulate --seed {seed} --profile {} --jobs {JOBS}", profile.name());
        assert!(outcome.violation.is_none(), "{:?}\nagain: {again}", outcome.violation);
        assert!(outcome.stats.results > 0 || profile == Profile::Retention, "nothing was done: {again}");
    }
}

/// Seeds that once broke a promise, of all jobs that they have.
#[test]
fn what_broke_once_stays_whole() {
    for (profile, seed) in [(Profile::Storm, 345), (Profile::Retention, 2012)] {
        let outcome = run(&Plan::of_seed(seed, Some(profile)), None);
        assert!(outcome.violation.is_none(), "{} {seed}: {:?}", profile.name(), outcome.violation);
    }
}

#[test]
fn the_spend_cap_is_reached_and_the_next_day_goes_on() {
    let mut plan = Plan::of_seed(3, Some(Profile::Capped)).with_jobs(JOBS);
    plan.limits.spend_cap_micro_usd = 2 * CALL_MICRO_USD_MAX;
    let outcome = run(&plan, None);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    let stats = outcome.stats;
    assert!(stats.capped > 0, "the cap never held anything back");
    assert!(stats.days_billed >= 3, "calls on {} days", stats.days_billed);
    assert!(stats.results > u64::from(JOBS) / 2, "{} results", stats.results);
}

/// Workers of before the shards take from the day's own record by transactions, which keep those beside them from it for a
/// moment. The oracle holds each day to its cap.
#[test]
fn a_days_cap_holds_while_workers_of_before_the_shards_spend_beside_those_that_have_them() {
    let mut plan = Plan::of_seed(5, Some(Profile::Capped)).with_jobs(2 * JOBS);
    plan.limits.spend_cap_micro_usd = 8 * CALL_MICRO_USD_MAX;
    plan.spreads = [Spread::in_shards(3, 2 * CALL_MICRO_USD_MAX); 2];
    // Each third hour a deploy or a roll-back, and environments of both for twenty minutes after it.
    plan.deploys_ms = (1..24).map(|nth| nth * 3 * HOUR).collect();
    (plan.rolls_back, plan.shards_from) = (true, 2);
    (plan.arrival_ms, plan.faults_end_ms) = (3 * DAY, 3 * DAY);
    let outcome = run(&plan, None);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
    let stats = outcome.stats;
    assert!(stats.conflicts > 0, "no transaction met another change");
    assert!(stats.capped > 0, "the cap never held anything back");
    assert!(stats.results > u64::from(JOBS), "{} results", stats.results);
}

#[test]
fn a_seed_repeats_its_run_event_by_event() {
    for profile in [Profile::Storm, Profile::Deploy] {
        let plan = Plan::of_seed(7, Some(profile)).with_jobs(JOBS);
        let (first, second) = (run(&plan, None), run(&plan, None));
        assert_eq!(first.digest, second.digest, "{}", profile.name());
        assert_eq!(first.stats, second.stats, "{}", profile.name());
        let other = run(&Plan { seed: 8, ..plan }, None);
        assert_ne!(first.digest, other.digest, "the seed decides nothing");
    }
}
