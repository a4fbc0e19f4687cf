//! Who acts on the stack from outside: producers, the operator, whoever deploys, and time itself.

use std::sync::Arc;
use std::time::Duration;

use nightshift_core::control::{Cause, Control, Entry, Phase};
use nightshift_core::message::{Attribute, AttributeValue};
use tokio::time::{sleep, sleep_until};

use crate::fleet::Fleet;
use crate::oracle::{Promise, Writer};
use crate::plan::{Away, DAY, HOUR, MINUTE, SECOND};
use crate::queue::group_of;
use crate::rng::Rng;
use crate::sentinel::wake_pollers;
use crate::work::Kind;
use crate::world::{Letter, State, World};

/// Sends all inputs over the time of arrival, some of them twice.
pub async fn produce(world: Arc<World>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "producer", 0);
    let mut sends: Vec<(u64, u32)> = Vec::with_capacity(plan.jobs as usize);
    for n in 0..plan.jobs {
        let mut at_random_ms = rng.range(0, plan.arrival_ms);
        if plan.bursts > 0 && n % 2 == 0 {
            let every_ms = plan.arrival_ms / plan.bursts;
            at_random_ms = at_random_ms / every_ms * every_ms + at_random_ms % MINUTE;
        }
        let at_ms =
            plan.schedule.as_ref().map_or(at_random_ms, |schedule| schedule.scheduled_ms(u64::from(n)));
        sends.push((at_ms, n));
        if rng.chance(plan.faults.sent_twice) {
            // Close together, minutes apart, or hours.
            let apart_ms = rng.pick(&[0, 10, SECOND, MINUTE, HOUR]);
            sends.push((at_ms + rng.range(0, apart_ms), n));
        }
        if rng.chance(plan.faults.sent_again) {
            sends.push((rng.range(at_ms, plan.faults_end_ms), n));
        }
    }
    sends.sort_unstable();
    let mut reference = 0;
    for (at_ms, n) in sends {
        if at_ms > world.elapsed_ms() {
            sleep_until(world.instant(at_ms)).await;
        }
        reference += 1;
        let attributes = attributes(&mut rng);
        send(&world, n, reference, attributes);
    }
    world.lock().producing = false;
    world.progress.notify_one();
}

fn attributes(rng: &mut Rng) -> Vec<(String, Attribute)> {
    if !rng.chance(0.05) {
        return Vec::new();
    }
    (0..rng.range(1, 10))
        .map(|i| {
            let value = AttributeValue::Text(format!("value {i}"));
            (format!("sender-{i}"), Attribute { data_type: "String".to_owned(), value })
        })
        .collect()
}

fn send(world: &World, n: u32, reference: u32, attributes: Vec<(String, Attribute)>) {
    world.lock().is_sent(world.now_ms(), n, reference, attributes);
    world.visibility.notify_one();
}

impl State {
    /// SQS takes a message of a producer.
    pub fn is_sent(&mut self, now_ms: u64, n: u32, reference: u32, attributes: Vec<(String, Attribute)>) {
        let id = self.queue.send(n, reference, now_ms, attributes, group_of(n));
        self.stats.messages += 1;
        self.note(now_ms, n, || format!("message {id} sent"));
    }
}

/// The operator gives up on an input after so many redrives.
const REDRIVES_MAX: u32 = 8;

/// Looks at the dead letters now and then, mends the cause of some, and moves them back as SQS's own redrive does:
/// a new id, a new time, the same body and the attributes still on it.
pub async fn operate(world: Arc<World>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "operator", 0);
    let mut seen = 0;
    let mut copies: Vec<(u64, Letter)> = Vec::new();
    while world.elapsed_ms() < plan.faults_end_ms + HOUR {
        sleep(Duration::from_millis(rng.range(plan.operator_every_ms / 2, plan.operator_every_ms * 2))).await;
        copies.retain(|(at_ms, letter)| {
            let due = *at_ms <= world.elapsed_ms();
            if due {
                move_copy(&world, letter);
            }
            !due
        });
        let count = world.lock().letters.len();
        let first = if rng.chance(0.3) { 0 } else { seen };
        seen = count;
        for place in first..count {
            let (mends, moves, reviews) = (rng.chance(0.4), rng.chance(0.5), rng.chance(0.02));
            // Its deletion failed, or somebody stopped in between; it is found again at once or much later.
            let twice_ms = rng.chance(0.3).then(|| {
                let apart_ms = rng.pick(&[0, MINUTE, HOUR, 2 * plan.operator_every_ms]);
                rng.range(0, apart_ms)
            });
            let mut state = world.lock();
            let state = &mut *state;
            let letter = &mut state.letters[place];
            let Some((n, reference)) = letter.of else { continue };
            let redrives = &mut state.inputs[n as usize].redrives;
            // SQS moves what is visible; what somebody looks at is not.
            let hidden = letter.visible_at_ms > world.now_ms();
            if !moves || letter.moved_back || hidden || *redrives >= REDRIVES_MAX {
                if reviews && !letter.moved_back && !hidden {
                    letter.receives += 1;
                    letter.visible_at_ms = world.now_ms() + MINUTE;
                    // From now on it is hidden by who looks at it.
                    letter.received_ms = 0;
                }
                continue;
            }
            *redrives += 1;
            letter.moved_back = true;
            if let Some(apart_ms) = twice_ms {
                copies.push((world.elapsed_ms() + apart_ms, letter.clone()));
            }
            let (sent, version) = (letter.letter.clone(), letter.version);
            let input = &mut state.inputs[n as usize];
            // Nobody can mend a body without changing it.
            let mendable =
                !matches!(input.kind, Kind::NoJob | Kind::Oversized | Kind::InvalidInput | Kind::UnknownTask);
            if mends && mendable {
                input.fixed = true;
            }
            input.letters -= 1;
            let fixed = input.fixed;
            let now_ms = world.now_ms();
            let id = state.queue.send(n, reference, now_ms, sent.attributes, sent.group);
            state.queue.messages[id as usize].redrive_of = version;
            state.stats.redrives += 1;
            state.note(now_ms, n, || {
                format!("the operator moves a dead letter back as message {id}, mended: {fixed}")
            });
            world.visibility.notify_one();
            if reviews {
                review(state, n);
            }
        }
    }
    for (_, letter) in copies {
        move_copy(&world, &letter);
    }
    world.lock().operating = false;
    world.progress.notify_one();
}

/// Moves a letter back that was moved back before.
fn move_copy(world: &World, letter: &Letter) {
    let Some((n, reference)) = letter.of else { return };
    let mut state = world.lock();
    let (now_ms, sent) = (world.now_ms(), letter.letter.clone());
    let id = state.queue.send(n, reference, now_ms, sent.attributes, sent.group);
    state.queue.messages[id as usize].redrive_of = letter.version;
    state.stats.redrives += 1;
    state.stats.copies += 1;
    state.note(now_ms, n, || format!("the operator moves the same dead letter back again, as message {id}"));
    drop(state);
    world.visibility.notify_one();
}

/// A person has looked at a result; nothing of ours may overwrite it.
fn review(state: &mut State, n: u32) {
    if let Some(record) = &mut state.inputs[n as usize].record
        && let nightshift_core::record::State::Done(done) = &mut record.state
    {
        done.reviewed = true;
    }
}

/// Pauses and resumes the stack when the plan says so, as `nightshift pause` and `resume` do: the record, and then the switch.
pub async fn pause(world: Arc<World>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "pauses", 0);
    let windows = plan.windows.iter().filter(|window| window.what == Away::Paused);
    let mut edges: Vec<u64> = windows.flat_map(|window| [window.from_ms, window.until_ms]).collect();
    edges.extend(&plan.resumes_ms);
    edges.sort_unstable();
    for at_ms in edges {
        if at_ms > world.elapsed_ms() {
            sleep_until(world.instant(at_ms)).await;
        }
        operates(&world, plan.away(Away::Paused, world.elapsed_ms()), &mut rng).await;
    }
    if !plan.answers_pages {
        return;
    }
    // `queue-paused` calls somebody: what only a person can end, or only a sentinel that there is none of.
    loop {
        sleep(Duration::from_millis(rng.range(10 * MINUTE, HOUR))).await;
        let long_ms = world.now_ms() - 30 * MINUTE;
        let control = Control::read(world.lock().control.clone());
        let waits = control.holding().any(|(cause, entry)| {
            let is_asked_for = match cause {
                Cause::Operator => false,
                Cause::Deaths => entry.phase == Phase::Paused,
                _ => !plan.sentinel,
            };
            is_asked_for && entry.phase_since_ms < long_ms
        });
        if waits {
            operates(&world, false, &mut rng).await;
        }
    }
}

async fn operates(world: &Arc<World>, pauses: bool, rng: &mut Rng) {
    let now_ms = world.now_ms();
    {
        let mut state = world.lock();
        let standing = Control::read(state.control.clone());
        let next = if pauses {
            standing.with(Cause::Operator, Entry::paused(now_ms, "by the plan", "the operator"))
        } else {
            standing.resumed(now_ms)
        };
        state.control_write(now_ms, &next, &standing, Writer::Operator, &world.plan);
    }
    // A terminal is closed in between, now and then.
    if rng.chance(0.8) {
        sleep(Duration::from_millis(rng.range(100, 3 * SECOND))).await;
        let for_ms = rng.range(SECOND, 90 * SECOND);
        let _ = world.lock().mapping.turn(world.now_ms(), !pauses, for_ms);
        wake_pollers(world, for_ms);
    }
}

/// Deploys when the plan says so; a bad deploy is rolled back, or another one follows.
pub async fn deploy(world: Arc<World>, fleet: Arc<Fleet>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "deploys", 0);
    let deploys = plan.deploys_ms.iter().enumerate();
    let mut edges: Vec<(u64, bool, bool)> =
        deploys.map(|(nth, at_ms)| (*at_ms, plan.rolls_back && nth % 2 == 1, false)).collect();
    for window in plan.windows.iter().filter(|window| window.what == Away::Deploy) {
        edges.extend([(window.from_ms, false, true), (window.until_ms, rng.chance(0.5), false)]);
    }
    edges.sort_unstable();
    for (at_ms, back, is_deadly) in edges {
        sleep_until(world.instant(at_ms)).await;
        fleet.deploy(back);
        if is_deadly {
            let mut state = world.lock();
            let revision = state.revision;
            state.deadly.insert(revision);
        }
    }
}

/// Wakes a poller when a message becomes visible, and lets SQS delete what is too old.
pub async fn pass_time(world: Arc<World>) {
    loop {
        let next_ms = {
            let mut state = world.lock();
            let now_ms = world.now_ms();
            for message in state.queue.expire(now_ms, world.plan.limits.retention_ms) {
                if !state.in_flight(message) {
                    state.expired(now_ms, message);
                    world.progress.notify_one();
                }
            }
            if state.queue.has_ready(now_ms) {
                world.work.notify_one();
            }
            state.queue.next_visible_ms()
        };
        let until_ms = next_ms.unwrap_or(u64::MAX).min(world.now_ms() + HOUR);
        let wait = Duration::from_millis(until_ms.saturating_sub(world.now_ms()).max(1));
        tokio::select! {
            biased;
            () = world.visibility.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Waits until everything is over, or for longer than anything may take.
pub async fn finish(world: Arc<World>) {
    let plan = &world.plan;
    // After the last fault: a visibility timeout, a lease, suspects one by one, hand-backs that were stretched over what
    // retention leaves, and the work itself.
    let work_ms = u64::from(plan.jobs) * 30 * SECOND / u64::from(plan.limits.concurrency_max);
    let last_ms = plan.faults_end_ms + plan.limits.retention_ms + DAY + work_ms;
    loop {
        {
            let mut state = world.lock();
            let now_ms = world.now_ms();
            let over = !state.producing
                && !state.operating
                && !state.redriving
                && !state.erasing
                && !state.reviewing
                && state.queue.live == 0
                && state.invocations.is_empty();
            if state.violation.is_some() || over {
                state.stats.virtual_ms = world.elapsed_ms();
                if over {
                    state.judge_the_end(now_ms, plan);
                }
                return;
            }
            if world.elapsed_ms() > last_ms {
                let live = state.queue.live;
                let left = state.queue.messages.iter().position(|m| m.place == crate::queue::Place::InQueue);
                let input = left.map(|message| state.queue.messages[message].input);
                state.violate(
                    now_ms,
                    Promise::Progress,
                    input,
                    format!("{live} messages are left long after the last fault"),
                );
            }
        }
        tokio::select! {
            biased;
            () = world.progress.notified() => {}
            () = sleep(Duration::from_millis(6 * HOUR)) => {}
        }
    }
}
