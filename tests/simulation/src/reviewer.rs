//! A person who decides on results that wait for review while workers, redrives and erasures run, as `nightshift review`
//! does: reads, thinks, and writes over what was read. Some rejections are killed between ledger and queue, and repeated.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nightshift_core::dead_letter::dead_letter;
use nightshift_core::kept::{KeptMessage, message};
use nightshift_core::record::{Record, RecordWrite, State as Standing};
use nightshift_core::review::{Rejecting, Reviewer, edited, waiting};
use nightshift_core::task::Tasks as _;
use serde_json::json;
use tokio::time::{sleep, sleep_until};

use crate::oracle::Promise;
use crate::plan::MINUTE;
use crate::ports::SimPorts;
use crate::rng::Rng;
use crate::work::{TestTasks, check_of, is_right};
use crate::world::{Environment, Letter, State, World};

/// How often a rejection is repeated that was killed before its dead letter was sent.
const REPEATS: u32 = 3;

/// Decides on results at random times.
pub async fn review(world: Arc<World>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "reviewer", 0);
    let environment = Arc::new(Environment::new(u32::MAX, u32::MAX, plan));
    let ports = SimPorts { world: Arc::clone(&world), environment, invocation: AtomicU64::new(u64::MAX) };
    let mut times: Vec<u64> = (0..plan.reviews).map(|_| rng.range(0, plan.faults_end_ms)).collect();
    times.sort_unstable();
    for (nth, at_ms) in times.into_iter().enumerate() {
        if at_ms > world.elapsed_ms() {
            sleep_until(world.instant(at_ms)).await;
        }
        let waiting = world.lock().waiting(world.now_ms());
        if waiting.is_empty() {
            continue;
        }
        let n = rng.pick(&waiting);
        decide(&ports, &mut rng, n, &format!("review-{nth}")).await;
    }
    world.lock().reviewing = false;
    world.progress.notify_one();
}

async fn decide(ports: &SimPorts, rng: &mut Rng, n: u32, token: &str) {
    let world = &ports.world;
    let (record, kept) = world.lock().read(n);
    let Some(record) = record else { return };
    // Others decide, and newer revisions make it again, while somebody thinks.
    let thinks_ms = rng.pick(&[0, MINUTE, 10 * MINUTE]);
    sleep(Duration::from_millis(rng.range(0, thinks_ms))).await;
    let reviewer = Reviewer { by: "a person", reason: "as the plan says", token, now_ms: world.now_ms() };
    match rng.range(0, 2) {
        0 => {
            if let Ok(write) = reviewer.accept(&record, None) {
                world.lock().review_is_written(world.now_ms(), n, write);
            }
        }
        1 => {
            let check = check_of(n.into()) + rng.range(0, 1);
            let tasks = TestTasks::new(world, 1);
            let text = json!({"n": n, "check": check}).to_string();
            let task = tasks.find("guarded").into_iter().next();
            let edited = task.and_then(|task| edited(&text, task, kept.as_ref(), &world.plan.limits).ok());
            if let Some(Ok(write)) = edited.map(|edited| reviewer.edit(&record, None, edited)) {
                world.lock().review_is_written(world.now_ms(), n, write);
            }
        }
        // An older release kept none, and the command rejects nothing that it could make no dead letter of.
        _ if kept.is_none() && world.lock().inputs[n as usize].keeps_no_message => {}
        _ => reject(ports, rng, n, reviewer, record, kept).await,
    }
}

async fn reject(
    ports: &SimPorts,
    rng: &mut Rng,
    n: u32,
    reviewer: Reviewer<'_>,
    mut record: Record,
    mut kept: Option<KeptMessage>,
) {
    let world = &ports.world;
    for repeat in 0..=REPEATS {
        let reviewer = Reviewer { now_ms: world.now_ms(), ..reviewer };
        let failed = match reviewer.reject(&record, None, &world.plan.limits) {
            Ok(Rejecting::Write(write)) => {
                let failed = write.record.clone();
                world.lock().review_is_written(world.now_ms(), n, *write).then_some(failed)
            }
            Ok(Rejecting::Send(record)) => Some(*record),
            Ok(Rejecting::IsSent) | Err(_) => None,
        };
        let Some(failed) = failed else { return };
        let is_killed = repeat < REPEATS && rng.chance(0.5);
        if !is_killed {
            send(ports, n, &failed, kept.as_ref());
            return;
        }
        world.lock().note(world.now_ms(), n, || "the reviewer is killed before the dead letter".to_owned());
        sleep(Duration::from_millis(rng.range(0, 20 * MINUTE))).await;
        let (standing, message) = world.lock().read(n);
        let Some(standing) = standing else { return };
        (record, kept) = (standing, message);
    }
}

/// The dead letter of a rejection arrives, and is noted as sent.
fn send(ports: &SimPorts, n: u32, failed: &Record, kept: Option<&KeptMessage>) {
    let world = &ports.world;
    let now_ms = world.now_ms();
    let letter = kept.and_then(|kept| dead_letter(failed, kept.original()));
    let Some(letter) = letter else {
        let what = "a rejected result has no message to make a dead letter of";
        world.violate(Promise::Reviewable, Some(n), what);
        return;
    };
    let (of, version) = ports.letter_arrives(&letter);
    let mut state = world.lock();
    state.letters.push(Letter::coming(now_ms, now_ms, letter, of, version));
    state.inputs[n as usize].letter_is_noted(failed.version);
}

impl State {
    fn waiting(&self, now_ms: u64) -> Vec<u32> {
        let waits = |record: &Record| waiting(record, None, now_ms).is_ok();
        let inputs = self.inputs.iter().zip(0..);
        inputs.filter(|(input, _)| input.record.as_deref().is_some_and(waits)).map(|(_, n)| n).collect()
    }

    fn read(&self, n: u32) -> (Option<Record>, Option<KeptMessage>) {
        let input = &self.inputs[n as usize];
        let record = input.record.as_deref().cloned();
        let kept = record.as_ref().and_then(Record::kept_message);
        (record, kept.and_then(|kept| message(kept, input.parts.clone())))
    }

    /// A decision reaches the table; says whether it took effect.
    fn review_is_written(&mut self, now_ms: u64, n: u32, write: RecordWrite) -> bool {
        let input = &mut self.inputs[n as usize];
        if !write.allowed(input.record.as_deref()) {
            self.note(now_ms, n, || "the review is refused: something else stands".to_owned());
            return false;
        }
        let decision = write.record.reviewed.as_ref().map(|reviewed| reviewed.decision.clone());
        let (kind, version) = (input.kind, write.record.version);
        match &write.record.state {
            Standing::Done(done) => {
                let right = [true, false].iter().any(|review| is_right(kind, n, &done.output, *review));
                if !right || !done.reviewed {
                    let what = "a person's edit that does not validate was stored";
                    self.violate(now_ms, Promise::OnlyValidated, Some(n), what);
                }
            }
            _ => self.rejected(now_ms, n, version),
        }
        self.stand(n, Some(write.record));
        self.stats.reviews += 1;
        self.note(now_ms, n, || format!("a person reviews it: {decision:?}, v{version}"));
        true
    }

    /// What a later message is judged by.
    fn rejected(&mut self, now_ms: u64, n: u32, version: u64) {
        let input = &mut self.inputs[n as usize];
        input.failures.versions.push(version);
        (input.decided_ms, input.settled_ms) = (now_ms, now_ms);
    }
}
