//! One run from one plan: the same plan gives the same history, event by event.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Once};

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::fleet::Fleet;
use crate::oracle::{Promise, Violation};
use crate::people;
use crate::plan::Plan;
use crate::world::{SIMULATED_PANIC, Stats, World};

/// What a run showed.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Numbers.
    pub stats: Stats,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// The history of the traced input.
    pub history: Vec<String>,
    /// A hash over all events; equal for equal plans.
    pub digest: u64,
}

/// Runs a plan; `trace` names the input whose history is kept.
#[must_use]
pub fn run(plan: &Plan, trace: Option<u32>) -> Outcome {
    silence_simulated_panics();
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| match runtime() {
        Ok(runtime) => runtime.block_on(simulate(plan.clone(), trace)),
        Err(error) => broken(format!("no runtime: {error}")),
    }));
    caught.unwrap_or_else(|_| broken("the simulation panicked".to_owned()))
}

fn broken(what: String) -> Outcome {
    let violation = Violation { promise: Promise::Isolated, input: None, at_ms: 0, what };
    Outcome { stats: Stats::default(), violation: Some(violation), history: Vec::new(), digest: 0 }
}

async fn simulate(plan: Plan, trace: Option<u32>) -> Outcome {
    let world = World::new(plan, trace);
    live(&world).await;
    let mut state = world.lock();
    Outcome {
        stats: state.stats.clone(),
        violation: state.violation.take(),
        history: std::mem::take(&mut state.history),
        digest: state.digest,
    }
}

/// Lives a plan until all is settled, or for so long, and returns the world as it then is.
///
/// # Errors
/// A promise that broke meanwhile, which is a defect; or that there is no runtime.
pub fn lived(plan: Plan, at_most_ms: Option<u64>) -> Result<Arc<World>, String> {
    let world = runtime().map_err(|error| format!("no runtime: {error}"))?.block_on(async {
        let world = World::new(plan, None);
        match at_most_ms {
            None => live(&world).await,
            Some(ms) => {
                tokio::select! {
                    biased;
                    () = live(&world) => {}
                    () = sleep_until(world.instant(ms)) => {}
                }
            }
        }
        world
    });
    if let Some(Violation { promise, what, .. }) = &world.lock().violation {
        return Err(format!("{promise} is broken: {what}"));
    }
    Ok(world)
}

/// One thread, whose time passes only while everybody waits.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()
}

/// Lets everybody act until all is settled, or a promise breaks.
async fn live(world: &Arc<World>) {
    let fleet = Fleet::new(world);
    let mut actors = JoinSet::new();
    actors.spawn(people::pass_time(Arc::clone(world)));
    for _ in 0..world.plan.limits.concurrency_max {
        actors.spawn(Arc::clone(&fleet).poll());
    }
    actors.spawn(people::produce(Arc::clone(world)));
    if world.plan.operator_every_ms > 0 {
        actors.spawn(people::operate(Arc::clone(world)));
    }
    if world.plan.redrives_max > 0 {
        actors.spawn(crate::redriver::redrive(Arc::clone(world)));
    }
    if world.plan.erasures > 0 {
        actors.spawn(crate::eraser::erase(Arc::clone(world)));
    }
    if world.plan.reviews > 0 {
        actors.spawn(crate::reviewer::review(Arc::clone(world)));
    }
    if world.plan.sentinel {
        actors.spawn(crate::sentinel::watch(Arc::clone(world)));
        actors.spawn(Arc::clone(&fleet).answer_probes());
    }
    actors.spawn(people::pause(Arc::clone(world)));
    actors.spawn(people::deploy(Arc::clone(world), Arc::clone(&fleet)));
    let mut finish = std::pin::pin!(people::finish(Arc::clone(world)));
    loop {
        tokio::select! {
            biased;
            Some(ended) = actors.join_next() => {
                if let Err(error) = ended {
                    world.violate(Promise::Isolated, None, format!("a panic left an invocation: {error}"));
                }
            }
            () = &mut finish => break,
        }
    }
    actors.shutdown().await;
}

/// Panics that are part of the simulation would drown everything else.
fn silence_simulated_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = info.payload().downcast_ref::<&str>().is_some_and(|text| *text == SIMULATED_PANIC)
                || info.payload().downcast_ref::<String>().is_some_and(|text| text == SIMULATED_PANIC);
            if !ours {
                usual(info);
            }
        }));
    });
}
