//! What waited through an outage is not starved by what comes after it, while the way back is narrow.

use nightshift_core::limits::Limits;
use nightshift_core::record::State as Standing;
use nightshift_simulation::plan::{
    Away, Faults, HOUR, MINUTE, NO_CAP_MICRO_USD, Plan, Profile, SECOND, Shares, Window,
};
use nightshift_simulation::run::lived;
use nightshift_simulation::world::BEGINNING_MS;

/// The provider is down from then on,
const FROM_MS: u64 = 10 * MINUTE;
/// until then.
const UNTIL_MS: u64 = 50 * MINUTE;
/// What a call takes.
const CALL_MS: u64 = 10 * SECOND;

/// What the provider lets through, far more than any width here takes.
const PER_MINUTE: u64 = 6_000;

/// A steady stream before, in and long after an outage.
fn plan(concurrency_max: u32, batch_size: u32, jobs_per_minute: u64) -> Plan {
    let mut plan = Plan::of_seed(1, Some(Profile::Watched));
    plan.windows = vec![Window { what: Away::Provider, from_ms: FROM_MS, until_ms: UNTIL_MS }];
    (plan.resumes_ms, plan.answers_pages) = (Vec::new(), false);
    (plan.faults, plan.shares) = (Faults::default(), Shares::default());
    plan.latency_ms = (CALL_MS, CALL_MS);
    plan.limits =
        Limits { concurrency_max, batch_size, spend_cap_micro_usd: NO_CAP_MICRO_USD, ..Limits::default() };
    // The width is what holds the work up, and no pace that an environment has learned.
    (plan.requests_per_minute, plan.limits.requests_per_minute) = (PER_MINUTE, PER_MINUTE);
    (plan.arrival_ms, plan.faults_end_ms) = (4 * HOUR, 4 * HOUR);
    plan.jobs = (jobs_per_minute * plan.arrival_ms / MINUTE) as u32;
    plan
}

/// Whatever comes meanwhile: where newer messages went first, these would wait for the end of the stream, three hours later,
/// since it leaves them no more than a sixth of the full width.
#[test]
fn what_waited_ends_within_a_bound_that_follows_from_the_width() {
    for (concurrency_max, batch_size, jobs_per_minute) in [(1, 1, 5), (2, 1, 10), (4, 1, 20), (10, 10, 40)] {
        let plan = plan(concurrency_max, batch_size, jobs_per_minute);
        let (full_width, stream_ends_ms) = (plan.full_width(), plan.arrival_ms - UNTIL_MS);
        // Who is received in vain by an invocation comes back after the longest step.
        let in_vain_ms = plan.limits.function_timeout_ms + plan.limits.hand_back_ms_max;
        let world = lived(plan, None).unwrap();
        let state = world.lock();
        // How long after the outage each job ended that was sent before its end.
        let waited_ms = state.inputs.iter().filter_map(|input| {
            let record = input.record.as_deref().unwrap();
            let Standing::Done(done) = &record.state else { panic!("{record:?}") };
            let waited = record.sent_at_ms < BEGINNING_MS + UNTIL_MS;
            done.finished_at_ms.checked_sub(BEGINNING_MS + UNTIL_MS).filter(|_| waited)
        });
        let waited_ms: Vec<u64> = waited_ms.collect();
        let last_ms = *waited_ms.iter().max().unwrap();
        // A probe of the next run, and a minute for each width that is doubled; then one after the other, and as many more
        // as the queue may draw before the last of them, one of the first 64 at a time.
        let narrow_ms = (2 + u64::from(full_width.ilog2())) * MINUTE;
        let waited = waited_ms.len() as f64;
        let drawn_before = 64.0 * (waited.ln() + 3.0);
        let work_ms = (waited + drawn_before) * CALL_MS as f64 / f64::from(full_width);
        let bound_ms = narrow_ms + work_ms as u64 + in_vain_ms;
        assert!(bound_ms < stream_ends_ms, "the bound says nothing: {bound_ms} of {stream_ends_ms} ms");
        assert!(
            last_ms <= bound_ms,
            "full width {full_width}: the last of {waited} after {last_ms} of {bound_ms} ms"
        );
    }
}
