#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test

use std::sync::Arc;
use std::time::Duration;

use nightshift_core::control::{Cause, Phase};
use nightshift_core::sentinel::Switch;

use super::tests::{DAY_MS, Fate, NOW_MS, State, World, sentinel};

const MINUTE_MS: u64 = 60_000;
/// A run asks for fewer things than this.
const OPERATIONS_MAX: usize = 24;
/// Claims that died two minutes ago began five before that: so many runs look at a version before one of its own counts.
const LOOKS: usize = 8;
const FATES: [Fate; 5] =
    [Fate::KilledBefore, Fate::KilledAfter, Fate::ReplyLost, Fate::OperatorPauses, Fate::OperatorResumes];

type Scenario = fn(&mut State);

fn changed(change: impl FnOnce(&mut State)) -> Arc<World> {
    let world = Arc::new(World::default());
    {
        let mut state = world.state.lock().unwrap();
        state.entries = 10;
        state.remembered = None;
        change(&mut state);
    }
    world
}

fn state(world: &World) -> State {
    world.state.lock().unwrap().clone()
}

/// One run, which is killed where it would wait for ever; then a minute passes.
async fn run(world: &Arc<World>) {
    let _ = tokio::time::timeout(Duration::from_secs(50), sentinel(world).run()).await;
    let mut state = world.state.lock().unwrap();
    state.now_ms += MINUTE_MS;
    state.fate = None;
}

fn phase(world: &World, cause: Cause) -> Option<Phase> {
    state(world).control().entries.get(&cause).map(|entry| entry.phase)
}

fn dying(state: &mut State) {
    state.dead_claims = 10;
    state.answered_at_ms = Some(NOW_MS - 10 * MINUTE_MS);
}

fn flooded(state: &mut State) {
    state.in_flight = 60_001;
}

fn silent(state: &mut State) {
    state.calls.failed = 200;
    state.answered_at_ms = Some(NOW_MS - MINUTE_MS);
}

fn mended(state: &mut State) {
    state.calls = Default::default();
    state.live_version = 8;
    state.in_flight = 0;
}

#[tokio::test(start_paused = true)]
async fn what_fails_once_a_minute_has_lasted_since_it_was_told_of_first() {
    // A provider that says when to come back is met by all jobs at once, each minute anew.
    for (before_ms, expected) in [(None, None), (Some(NOW_MS - 100_000), Some(Phase::Paused))] {
        let world = changed(|state| {
            silent(state);
            state.calls.failing_since_ms = Some(NOW_MS - 40_000);
            state.failing_before_ms = before_ms;
        });
        run(&world).await;
        assert_eq!(phase(&world, Cause::Outage), expected, "{before_ms:?}");
    }
    // What failed two minutes ago is not counted, but where all were told to come back later than now.
    for (until_ms, expected) in [(NOW_MS, None), (NOW_MS + 200_000, Some(Phase::Paused))] {
        let world = changed(|state| {
            silent(state);
            state.calls = Default::default();
            state.failing_before_ms = Some(NOW_MS - 100_000);
            state.failing_before_until_ms = Some(until_ms);
        });
        run(&world).await;
        assert_eq!(phase(&world, Cause::Outage), expected, "{until_ms}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deploy_that_kills_shuts_the_switch_and_another_version_opens_it_by_one_job() {
    let world = changed(dying);
    for _ in 0..LOOKS {
        run(&world).await;
        assert_eq!((phase(&world, Cause::Deaths), state(&world).switch), (None, Switch::On));
    }
    run(&world).await;
    assert_eq!((phase(&world, Cause::Deaths), state(&world).switch), (Some(Phase::Paused), Switch::Off));
    for _ in 0..30 {
        run(&world).await;
    }
    assert_eq!(state(&world).switch, Switch::Off, "only another version may be better");
    mended(&mut world.state.lock().unwrap());
    let mut widths = Vec::new();
    for _ in 0..60 {
        run(&world).await;
        if let Some(Phase::Reopening { width }) = phase(&world, Cause::Deaths) {
            widths.push(width);
        }
        let mut state = world.state.lock().unwrap();
        state.answered_at_ms = Some(state.now_ms - 1);
    }
    assert_eq!(widths, [1, 2, 4, 8, 16, 32, 64]);
    assert_eq!((phase(&world, Cause::Deaths), state(&world).switch), (None, Switch::On));
}

#[tokio::test(start_paused = true)]
async fn an_outage_shuts_the_switch_and_is_probed_at_most_each_minute_until_it_is_over() {
    let world = changed(silent);
    run(&world).await;
    assert_eq!((phase(&world, Cause::Outage), state(&world).switch), (Some(Phase::Paused), Switch::Off));
    for _ in 0..60 {
        run(&world).await;
        assert_eq!(state(&world).switch, Switch::Off);
    }
    let probes = state(&world).probes;
    assert!((25..=60).contains(&probes), "{probes} probes in an hour");
    opens(&world, "the outage is over").await;
    assert!(state(&world).probes <= probes + 1);
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_cannot_be_turned_keeps_no_probe_from_being_asked_for() {
    let world = Arc::new(World::where_fails("turn"));
    silent(&mut world.state.lock().unwrap());
    for _ in 0..4 {
        run(&world).await;
        world.state.lock().unwrap().switch = Switch::On;
    }
    assert!((1..=3).contains(&state(&world).probes), "{} probes", state(&world).probes);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_stack_is_left_alone() {
    let world = changed(|_| {});
    for _ in 0..30 {
        run(&world).await;
        let mut state = world.state.lock().unwrap();
        assert_eq!((state.control.version, state.switch), (None, Switch::On));
        assert!(state.operations < OPERATIONS_MAX, "{}", state.operations);
        state.operations = 0;
        state.answered_at_ms = Some(state.now_ms);
    }
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_is_being_turned_is_left_to_the_next_run() {
    let world = changed(|state| {
        flooded(state);
        state.switch = Switch::Turning;
    });
    run(&world).await;
    assert_eq!(state(&world).switch, Switch::Turning);
    world.state.lock().unwrap().switch = Switch::On;
    run(&world).await;
    assert_eq!(state(&world).switch, Switch::Off);
}

#[tokio::test(start_paused = true)]
async fn an_operators_pause_of_eight_days_is_the_operators_and_lets_workers_see_what_sqs_would_delete() {
    let world = changed(|state| state.operate(true));
    let paused = state(&world).control().entries[&Cause::Operator].clone();
    let mut on_after_ms = None;
    // Every tenth minute: what an operator wrote is remembered by the record alone.
    for minute in (0..8 * 24 * 60).step_by(10) {
        world.state.lock().unwrap().now_ms = NOW_MS + minute * MINUTE_MS;
        run(&world).await;
        assert_eq!(state(&world).control().entries.get(&Cause::Operator), Some(&paused));
        if state(&world).switch == Switch::On {
            on_after_ms.get_or_insert(minute * MINUTE_MS);
        } else {
            assert_eq!(on_after_ms, None, "once it leads jobs to workers again, it stays so");
        }
    }
    // Jobs of which nobody knows the age may be half of the retention old when it begins.
    assert_eq!(on_after_ms, Some(5 * DAY_MS / 2));
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_in_between_the_next_runs_put_it_right() {
    let scenarios: [(&str, Scenario); 4] = [
        ("silent", silent),
        ("dying", dying),
        ("flooded", flooded),
        ("mended", |state| {
            flooded(state);
            state.control = state
                .control()
                .with(
                    Cause::InFlight,
                    nightshift_core::control::Entry::paused(NOW_MS, "many", "the sentinel"),
                )
                .stored();
            state.switch = Switch::Off;
            mended(state);
        }),
    ];
    for (name, scenario) in scenarios {
        for at in 0..OPERATIONS_MAX {
            for fate in FATES {
                let world = changed(scenario);
                let looks = if name == "dying" { LOOKS } else { 0 };
                for _ in 0..looks {
                    run(&world).await;
                }
                let at = at + state(&world).operations;
                world.state.lock().unwrap().fate = Some((at, fate));
                run(&world).await;
                let operated = matches!(fate, Fate::OperatorPauses) && at < state(&world).operations;
                // A run that was killed is a gap, and an operator's resume a new beginning.
                for _ in 0..looks + 2 {
                    run(&world).await;
                }
                let (label, now) = (format!("{name}: {fate:?} at {at}"), state(&world));
                let control = now.control();
                assert_eq!(control.entries.contains_key(&Cause::Operator), operated, "{label}");
                let shut = control.is_shut();
                assert_eq!(now.switch, if shut { Switch::Off } else { Switch::On }, "{label}: {control:?}");
                assert_eq!(
                    shut,
                    operated || now.in_flight + now.calls.failed + u64::from(now.dead_claims) > 0,
                    "{label}: {control:?}"
                );
                opens(&world, &label).await;
            }
        }
    }
}

/// With every cause mended, and the operator's resume where one paused, it works again.
async fn opens(world: &Arc<World>, label: &str) {
    {
        let mut state = world.state.lock().unwrap();
        mended(&mut state);
        state.dead_claims = 0;
        if state.control().entries.contains_key(&Cause::Operator) {
            state.operate(false);
        }
    }
    for _ in 0..25 {
        run(world).await;
        let mut state = world.state.lock().unwrap();
        state.answered_at_ms = Some(state.now_ms - 1);
    }
    let now = state(world);
    assert!(now.control().is_open() && now.switch == Switch::On, "{label}: {now:?}");
}

#[tokio::test(start_paused = true)]
async fn two_runs_at_once_do_what_one_does() {
    for (scenario, looks) in [(dying as Scenario, LOOKS), (flooded, 0), (silent, 0)] {
        let world = changed(scenario);
        for _ in 0..looks {
            run(&world).await;
        }
        let (one, other) = (sentinel(&world), sentinel(&world));
        let (one, other) = tokio::join!(one.run(), other.run());
        assert!(one.is_ok() && other.is_ok());
        let now = state(&world);
        let switch = if now.control().is_shut() { Switch::Off } else { Switch::On };
        assert_eq!((now.control().version, now.switch), (1, switch), "{:?}", now.control());
        assert_eq!(now.remembered.unwrap().version, looks as u64 + 1);
        opens(&world, "two at once").await;
    }
}
