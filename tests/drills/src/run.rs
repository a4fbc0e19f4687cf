//! One drill: a world, minute by minute, under the alarms of the plan and every reading of the rules.

use nightshift_alarms::data::{Data, MetricKey};
use nightshift_alarms::decide::State;
use nightshift_alarms::plan::Alarms;
use nightshift_alarms::watch::{Change, Looked, Readings, Watch};
use nightshift_core::limits::Limits;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use crate::world::World;

/// A stack that has run for a while: new alarms would meet a sentinel that was silent until now.
const SETTLED_MINUTES: u64 = 10;

/// Something that is done to the world in a minute.
pub type Act = Box<dyn Fn(&World) + Send + Sync>;

/// What goes wrong, and what must be seen of it.
pub struct Drill {
    /// What goes wrong.
    pub fault: &'static str,
    /// The page of the alarm that it must raise; `None`: a day on which nothing is wrong.
    pub page: Option<&'static str>,
    /// The words of its page behind which it says within how many minutes it is raised.
    pub raised_behind: &'static str,
    /// What may be raised besides.
    pub beside: &'static [&'static str],
    /// How many jobs are sent in a minute.
    pub jobs: fn(u64) -> f64,
    /// When the alarm should be on: from what its page counts from, until what it counts from the other way.
    pub from: u64,
    pub until: u64,
    pub minutes: u64,
    pub acts: Vec<(u64, Act)>,
}

/// What was seen of one drill, over all readings.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The worst of all readings, in minutes; `None`: not under each of them. `raised`: to stay so until the fault ends.
    pub raised: Option<u64>,
    pub over: Option<u64>,
    /// It said that it was over before it was, and when.
    pub let_go: Option<u64>,
    /// Pages of other alarms that told somebody.
    pub others: BTreeSet<String>,
    /// What had data.
    pub metrics: BTreeSet<MetricKey>,
}

/// Runs a drill under the alarms of the stack of this name.
#[must_use]
pub fn run(drill: &Drill, alarms: &Alarms, stack: &str) -> Seen {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(stack, Limits::default());
        let readings = Readings::all(alarms);
        let mut watches: Vec<Watch<'_>> = readings.iter().map(|one| Watch::new(alarms, *one)).collect();
        let mut changes = vec![Vec::new(); watches.len()];
        for minute in 0..drill.minutes {
            pass(&world, drill, minute).await;
            if minute < SETTLED_MINUTES {
                continue;
            }
            let looked = world.read(|data| Looked::at(minute as i64 + 1, alarms, data));
            let mut before: Option<&Watch<'_>> = None;
            for (watch, changes) in watches.iter_mut().zip(&mut changes) {
                let now = watch.evaluate(&looked, before).unwrap();
                changes.extend(now.into_iter().filter(|change| change.acts));
                before = Some(watch);
            }
        }
        let mut seen = judge(drill, stack, &changes);
        seen.metrics = world.read(|data| data.metrics().cloned().collect());
        seen
    })
}

/// What it publishes, under no alarm.
#[must_use]
pub fn data(drill: &Drill, stack: &str) -> Data {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = World::new(stack, Limits::default());
        for minute in 0..drill.minutes {
            pass(&world, drill, minute).await;
        }
        world.read(Data::clone)
    })
}

async fn pass(world: &Arc<World>, drill: &Drill, minute: u64) {
    // Its schedule is not ours: it may have looked just before something happens.
    world.sentinel().await;
    for (_, act) in drill.acts.iter().filter(|(at, _)| *at == minute) {
        act(world);
    }
    world.minute((drill.jobs)(minute)).await;
    world.minute_ends(minute as i64);
}

/// Runs them all, as many at once as there are cores, and tells of each in their order.
pub fn run_all<T: Sync>(drills: &[T], run: impl Fn(&T) -> Seen + Sync, mut tell: impl FnMut(&T, &Seen)) {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let (send, next, run) = (send.clone(), &next, &run);
            scope.spawn(move || {
                while let Some((nth, drill)) =
                    drills.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed))
                {
                    send.send((nth, run(drill))).unwrap();
                }
            });
        }
        drop(send);
        let mut ended = BTreeMap::new();
        for (nth, drill) in drills.iter().enumerate() {
            while !ended.contains_key(&nth) {
                let Ok((other, seen)) = receive.recv() else { return };
                ended.insert(other, seen);
            }
            tell(drill, &ended[&nth]);
        }
    });
}

fn judge(drill: &Drill, stack: &str, readings: &[Vec<Change>]) -> Seen {
    let mut seen = Seen::default();
    let page_of =
        |change: &Change| change.alarm.strip_prefix(&format!("{stack}-")).unwrap_or(&change.alarm).to_owned();
    let mut raised = Vec::new();
    let mut over = Vec::new();
    for changes in readings {
        for change in changes.iter().filter(|change| change.to == State::Alarm) {
            if Some(page_of(change).as_str()) != drill.page {
                seen.others.insert(page_of(change));
            }
        }
        let own: Vec<&Change> = changes
            .iter()
            .filter(|change| Some(page_of(change).as_str()) == drill.page)
            .filter(|change| change.to == State::Alarm || change.from == State::Alarm)
            .collect();
        let minute = |change: &Change| change.minute as u64;
        // It is raised when it stays so: a rate that passes its threshold may do it twice.
        let by_then = |change: &&&Change| minute(change) <= drill.until;
        let raises = || own.iter().filter(|change| change.to == State::Alarm);
        let raise = raises().rfind(by_then).or_else(|| raises().next());
        raised.push(raise.map(|change| minute(change).saturating_sub(drill.from)));
        let early = own.iter().rfind(by_then).filter(|change| change.to != State::Alarm);
        seen.let_go = seen.let_go.or(early.map(|change| minute(change).saturating_sub(drill.from)));
        let last = own.last().filter(|change| change.to != State::Alarm);
        over.push(last.map(|change| minute(change).saturating_sub(drill.until)));
    }
    let worst = |all: Vec<Option<u64>>| {
        all.into_iter().collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max())
    };
    seen.raised = worst(raised);
    seen.over = worst(over);
    seen
}
