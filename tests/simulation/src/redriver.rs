//! Redrives beside workers, producers and the operator: the real loop over in-memory queues, killed at any await.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::kept::{KeepAnswer, Part};
use nightshift_core::record::{Record, RecordWrite, State as Standing};
use nightshift_core::redrive::{
    Canary, Deployed, Depth, Ended, JobCost, Redrive, Request, STEP_MS_MAX, Source, Stepped,
};
use nightshift_core::sentinel::Calls;
use nightshift_core::spend::{SpendAnswer, SpendChange};
use nightshift_ports::{
    Clock as _, FailedPage, FailedRecords, JobsQueue, Ledger, Letter as Held, PortError, PortErrorKind,
    QueueDepth, SingleRecords, Waiting, WaitingQueue, WriteAnswer,
};
use nightshift_redrive::{Error, Ports, Redriver, Stack};
use tokio::time::sleep;

use crate::oracle::Promise;
use crate::plan::{HOUR, MINUTE, SECOND};
use crate::process::{KILLS, Process, error};
use crate::queue::Place;
use crate::rng::Rng;
use crate::work::Kind;
use crate::world::{Letter, State, World};

/// A redrive that is driven ends within this time: five plans of a scan.
const LASTS_MS_MAX: u64 = 12 * HOUR;

/// How SQS fails one message of a batch: it has taken it and nobody learns that, it has no time for it now, or it never
/// takes it.
const SEND_FAILS: [PortErrorKind; 3] =
    [PortErrorKind::Unavailable, PortErrorKind::Throttled, PortErrorKind::Refused];

/// How often, for each page that is received from `crashed`.
const SENT_AGAIN: f64 = 0.3;

/// One of the two queues that a redrive receives from, as one process sees it.
pub struct SimQueue {
    pub driver: Arc<Process>,
    pub source: Source,
}

/// What the oracle knows of the redrive that runs.
#[derive(Debug, Clone)]
pub struct Running {
    pub id: String,
    pub request: Request,
    pub began_ms: u64,
    /// Sent, as far as SQS knows: the id, the input, the version before, and whether it can say anything of a canary.
    pub sent: Vec<(u32, u32, u64, bool)>,
    /// Inputs that a message of it brought to a result.
    pub succeeded: u32,
    /// Pages of which nobody may know that they were sent.
    pub unknown_pages: u64,
    /// How many messages SQS would not take, each time that it said so.
    pub refused: u64,
    /// When whoever stopped it was told that it will end.
    pub stopped_ms: Option<u64>,
}

impl Process {
    /// Both queues, the ledger, the documents, as this driver sees them.
    fn redriver(self: &Arc<Self>) -> Redriver {
        let queue = |source| Arc::new(SimQueue { driver: Arc::clone(self), source });
        let limits = &self.world.plan.limits;
        let ports = Ports {
            dead_letters: queue(Source::DeadLetters),
            crashed: queue(Source::Crashed),
            jobs: self.clone(),
            ledger: self.clone(),
            records: self.clone(),
            failed: self.clone(),
            documents: self.clone(),
            worker: self.clone(),
            clock: self.clone(),
            entropy: self.clone(),
        };
        let stack = Stack {
            body_bytes_max: limits.body_bytes_max,
            failure_expiry_ms: limits.failure_expiry_ms,
            deployed: Deployed::default(),
            cost: JobCost {
                call_micro_usd_max: 1_000,
                paid_call_limit: limits.paid_call_limit,
                day_micro_usd_max: limits.spend_cap_micro_usd,
            },
        };
        Redriver::new(ports, stack)
    }
}

fn waiting(state: &mut State, source: Source) -> &mut Vec<Letter> {
    match source {
        Source::DeadLetters => &mut state.letters,
        Source::Crashed => &mut state.crashed_letters,
    }
}

/// The letter of a handle, unless it was received again since.
fn of_handle<'a>(state: &'a mut State, source: Source, handle: &str) -> Option<&'a mut Letter> {
    let (place, receive) = handle.split_once('/')?;
    let letter = waiting(state, source).get_mut(place.parse::<usize>().ok()?)?;
    (letter.receives.to_string() == receive && !letter.moved_back).then_some(letter)
}

#[async_trait]
impl QueueDepth for SimQueue {
    async fn depth(&self) -> Result<Depth, PortError> {
        let source = self.source;
        self.driver
            .does("GetQueueAttributes", 0.0, |state, now_ms| {
                let there = waiting(state, source).iter().filter(|letter| !letter.moved_back);
                let (visible, hidden): (Vec<_>, Vec<_>) = there.partition(|l| l.visible_at_ms <= now_ms);
                Depth { visible: visible.len() as u64, hidden: hidden.len() as u64 }
            })
            .await
    }
}

#[async_trait]
impl WaitingQueue for SimQueue {
    async fn receive(&self, most: u32, wait_s: u32, hidden_s: u32) -> Result<Vec<Waiting>, PortError> {
        let (driver, source) = (&self.driver, self.source);
        let start = driver.draw(Rng::bits) as usize;
        // Somebody does not wait for the redrive of what SQS gave up on, and sends the job anew.
        let is_sent_again = source == Source::Crashed && driver.draw(|rng| rng.chance(SENT_AGAIN));
        let received = driver
            .does("ReceiveMessage", 0.0, |state, now_ms| {
                state.two_at_work(now_ms, driver.id);
                let letters = waiting(state, source);
                let count = letters.len();
                let (mut received, mut taken) = (Vec::new(), Vec::new());
                for place in (0..count).map(|step| (start % count + step) % count) {
                    let letter = &mut letters[place];
                    if letter.moved_back || letter.visible_at_ms > now_ms || received.len() >= most as usize {
                        continue;
                    }
                    taken.push(place);
                    letter.receives += 1;
                    letter.received_ms = now_ms;
                    letter.visible_at_ms = now_ms + u64::from(hidden_s) * SECOND;
                    received.push(Waiting {
                        receipt_handle: format!("{place}/{}", letter.receives),
                        sent_at_ms: letter.sent_at_ms,
                        letter: Held {
                            body: letter.letter.body.clone(),
                            attributes: letter.letter.attributes.clone(),
                            group: letter.letter.group.clone(),
                        },
                    });
                }
                for place in taken {
                    if let Some((n, reference)) = waiting(state, source)[place].of {
                        state.note(now_ms, n, || format!("driver {} receives it", driver.id));
                        if is_sent_again {
                            state.is_sent(now_ms, n, reference, Vec::new());
                        }
                    }
                }
                received
            })
            .await?;
        if is_sent_again {
            driver.world.visibility.notify_one();
        }
        if received.is_empty() {
            sleep(Duration::from_secs(u64::from(wait_s))).await;
        }
        Ok(received)
    }

    async fn hide(&self, handles: &[(String, u32)]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let (driver, source) = (&self.driver, self.source);
        let fails = driver.world.faults().visibility_fails;
        let failed: Vec<bool> = handles.iter().map(|_| driver.draw(|rng| rng.chance(fails))).collect();
        driver
            .does("ChangeMessageVisibilityBatch", 0.0, |state, now_ms| {
                let changed = handles.iter().zip(failed).map(|((handle, hide_s), fails)| {
                    let letter = of_handle(state, source, handle).filter(|_| !fails);
                    let letter =
                        letter.ok_or(error("ChangeMessageVisibilityBatch", PortErrorKind::Refused))?;
                    letter.visible_at_ms = now_ms + u64::from(*hide_s) * SECOND;
                    if let Some((n, _)) = letter.of {
                        state.note(now_ms, n, || format!("driver {} hides it for {hide_s} s", driver.id));
                    }
                    Ok(())
                });
                changed.collect()
            })
            .await
    }

    async fn delete(&self, handles: &[String]) -> Result<Vec<Result<(), PortError>>, PortError> {
        let (driver, source) = (&self.driver, self.source);
        let fails = driver.world.faults().delete_fails * KILLS;
        let failed: Vec<bool> = handles.iter().map(|_| driver.draw(|rng| rng.chance(fails))).collect();
        driver
            .does("DeleteMessageBatch", 0.0, |state, now_ms| {
                let deleted = handles.iter().zip(failed).map(|(handle, fails)| {
                    if fails {
                        return Err(error("DeleteMessageBatch", PortErrorKind::Unavailable));
                    }
                    let Some(letter) = of_handle(state, source, handle) else { return Ok(()) };
                    letter.moved_back = true;
                    let letter = letter.clone();
                    state.letter_was_deleted(now_ms, source, &letter, &driver.world.plan);
                    Ok(())
                });
                deleted.collect()
            })
            .await
    }
}

#[async_trait]
impl JobsQueue for Process {
    async fn send(&self, letters: &[&Held]) -> Result<Vec<Result<String, PortError>>, PortError> {
        let fails = self.world.faults().letter_fails * 0.3;
        let fates: Vec<(bool, PortErrorKind)> =
            letters.iter().map(|_| self.draw(|rng| (rng.chance(fails), rng.pick(&SEND_FAILS)))).collect();
        let sent: Result<Vec<Result<String, PortError>>, PortError> = self
            .does("SendMessageBatch", fails * 0.3, |state, now_ms| {
                if let Some(running) = &mut state.redrive {
                    running.unknown_pages += 1;
                }
                let answers = letters.iter().zip(fates).map(|(letter, (fails, kind))| {
                    let is_taken = !fails || kind == PortErrorKind::Unavailable;
                    let id =
                        is_taken.then(|| state.letter_was_sent(now_ms, letter, &self.world.plan).to_string());
                    if let Some(running) = &mut state.redrive {
                        running.refused += u64::from(fails && kind == PortErrorKind::Refused);
                    }
                    id.filter(|_| !fails).ok_or(error("SendMessageBatch", kind))
                });
                answers.collect()
            })
            .await;
        // What failed may have been sent all the same, and nobody will ever know.
        if sent.as_ref().is_ok_and(|answers| answers.iter().all(Result::is_ok)) {
            self.unnoted.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }
}

#[async_trait]
impl SingleRecords for Process {
    async fn read(&self, key: &InputHash) -> Result<Option<Record>, PortError> {
        self.does("GetItem", self.world.faults().ledger_throttled * 0.1, |state, _| {
            let n = state.by_key.get(key)?;
            state.inputs[*n as usize].record.as_deref().cloned()
        })
        .await
    }
}

#[async_trait]
impl FailedRecords for Process {
    async fn page(&self, after: Option<String>) -> Result<FailedPage, PortError> {
        let from: usize = after.and_then(|after| after.parse().ok()).unwrap_or(0);
        self.does("Query", 0.0, |state, _| {
            let until = state.inputs.len().min(from + 50);
            let records = state.inputs[from..until].iter().filter_map(|input| input.record.as_deref());
            let failed = records.filter(|record| matches!(record.state, Standing::Failed(_)));
            FailedPage {
                records: failed.cloned().collect(),
                unreadable: 0,
                next: (until < state.inputs.len()).then(|| until.to_string()),
            }
        })
        .await
    }
}

#[async_trait]
impl Ledger for Process {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        let apply = |state: &mut State, now_ms| state.record_is_reset(now_ms, write);
        if self.draw(|rng| rng.chance(self.world.faults().ledger_reply_lost * KILLS)) {
            self.does("UpdateItem", 0.0, apply).await?;
        }
        self.does("UpdateItem", self.world.faults().ledger_throttled * 0.1, apply).await
    }

    async fn keep(&self, _: &Part, _: u64) -> Result<KeepAnswer, PortError> {
        unreachable!("a redrive keeps no message")
    }

    async fn count_duplicate(&self, _: &InputHash, _: &str) -> Result<(), PortError> {
        unreachable!("a redrive counts no duplicates")
    }

    async fn note_letter_sent(&self, _: &InputHash, _: u64) -> Result<(), PortError> {
        unreachable!("a redrive notes no letters")
    }

    async fn tell_calls(&self, _: u64, _: &Calls) -> Result<(), PortError> {
        unreachable!("a redrive makes no calls")
    }

    async fn spend(&self, _: &SpendChange) -> Result<SpendAnswer, PortError> {
        unreachable!("a redrive spends nothing")
    }
}

/// Starts one redrive after the other, and sees each to its end.
pub async fn redrive(world: Arc<World>) {
    let mut rng = Rng::new(world.plan.seed, "redriver", 0);
    let mut drivers = 0;
    for _ in 0..world.plan.redrives_max {
        if world.elapsed_ms() > world.plan.faults_end_ms + HOUR {
            break;
        }
        let every_ms = world.plan.operator_every_ms;
        sleep(Duration::from_millis(rng.range(every_ms / 2, every_ms * 2))).await;
        crash_some(&world, &mut rng);
        mend_some(&world, &mut rng);
        drivers += 1;
        let request = request(&mut rng);
        let limit_ms = world.elapsed_ms() + LASTS_MS_MAX;
        let Some(redrive) = start(&world, request, drivers).await else { continue };
        let stops = rng.chance(0.1).then(|| rng.range(0, 5 * MINUTE));
        // A command and the sentinel, or one of them.
        let beside = rng.chance(0.5);
        let mut over: Option<Redrive> = None;
        while over.is_none() && world.lock().violation.is_none() {
            drivers += 3;
            let one = drive(&world, &redrive.id, drivers, rng.clone());
            let other = drive(&world, &redrive.id, drivers + 1, Rng::new(rng.bits(), "beside", 0));
            let stop = async {
                match stops {
                    Some(after_ms) => {
                        sleep(Duration::from_millis(after_ms)).await;
                        let driver = Process::new(&world, drivers + 2);
                        let redriver = driver.redriver();
                        let stopped = redriver.stop(&redrive.id, "boss", "enough");
                        let stopped = tokio::time::timeout(Duration::from_secs(60), stopped).await;
                        let is_stopped =
                            stopped.is_ok_and(|stopped| stopped.is_ok_and(|it| it.stop.is_some()));
                        if let (true, Some(running)) = (is_stopped, &mut world.lock().redrive) {
                            running.stopped_ms = Some(world.now_ms());
                        }
                    }
                    None => pending().await,
                }
                pending().await
            };
            over = if beside {
                tokio::select! { biased; over = one => over, over = other => over, () = stop => None }
            } else {
                tokio::select! { biased; over = one => over, () = stop => None }
            };
            world.lock().at_work.clear();
            if world.elapsed_ms() > limit_ms {
                world.violate(Promise::Progress, None, format!("the redrive {} does not end", redrive.id));
            }
        }
        if let Some(over) = over {
            world.lock().redrive_is_over(world.now_ms(), &over, &world.plan);
        }
        world.lock().redrive = None;
    }
    world.lock().redriving = false;
    world.progress.notify_one();
}

/// Something outside of the worker kills it with these messages, again and again, until SQS gives up on them.
fn crash_some(world: &World, rng: &mut Rng) {
    let mut state = world.lock();
    let state = &mut *state;
    let now_ms = world.now_ms();
    for _ in 0..rng.range(0, 4) {
        if world.elapsed_ms() > world.plan.faults_end_ms {
            return;
        }
        // What waits, or was handed back; of many, the last.
        let waits =
            |id: &u32| state.queue.messages[*id as usize].place == Place::InQueue && !state.in_flight(*id);
        let waiting: Vec<u32> = (0..state.queue.messages.len() as u32).rev().filter(waits).take(20).collect();
        if !waiting.is_empty() {
            let id = rng.pick(&waiting);
            let message = &mut state.queue.messages[id as usize];
            message.place = Place::Crashed;
            message.prevented = 2;
            state.queue.live -= 1;
            state.crashed(now_ms, id);
        }
    }
}

/// The cause of some failures is mended before they are sent back, of all, or of none.
fn mend_some(world: &World, rng: &mut Rng) {
    let share = rng.pick(&[0.0, 0.5, 1.0]);
    for input in &mut world.lock().inputs {
        // Nobody can mend a body without changing it.
        let mendable =
            !matches!(input.kind, Kind::NoJob | Kind::Oversized | Kind::InvalidInput | Kind::UnknownTask);
        if input.letters + input.crashed > 0 && mendable && rng.chance(share) {
            input.fixed = true;
        }
    }
}

fn request(rng: &mut Rng) -> Request {
    let source = rng.pick(&[Source::DeadLetters, Source::DeadLetters, Source::DeadLetters, Source::Crashed]);
    let mut request = Request::all(source, "the cause is gone", "the operator");
    if source == Source::DeadLetters && rng.chance(0.4) {
        let count = rng.range(1, 3);
        request.reasons = (0..count).map(|_| rng.pick(FailureReason::ALL)).collect();
    }
    if rng.chance(0.3) {
        request.tasks = vec![rng.pick(&["plain", "guarded", "nobody"]).to_owned()];
    }
    request.limit = rng.chance(0.3).then(|| rng.range(1, 30));
    request.rate = rng.pick(&[0.2, 1.0, 5.0, 50.0]);
    request.canary = rng.chance(0.4).then(|| Canary {
        messages: Some(rng.range(1, 6) as u32),
        percent: None,
        success_percent: rng.pick(&[50, 80, 100]),
        wait_s: rng.pick(&[60, 600, 1_800]),
    });
    request
}

/// Starts a redrive, however often that is killed.
async fn start(world: &Arc<World>, request: Request, id: u64) -> Option<Redrive> {
    let driver = Process::new(world, id);
    let redriver = driver.redriver();
    let began_ms = world.now_ms();
    let started = tokio::select! {
        biased;
        () = driver.killed.notified() => return None,
        started = redriver.start(request) => started,
    };
    match started {
        Ok(redrive) => {
            world.lock().redrive = Some(Running {
                id: redrive.id.clone(),
                request: redrive.request.clone(),
                began_ms,
                sent: Vec::new(),
                succeeded: 0,
                unknown_pages: 0,
                refused: 0,
                stopped_ms: None,
            });
            world.lock().stats.redrives_begun += 1;
            Some(redrive)
        }
        Err(Error::Port(_)) => None,
        // Its start was killed after it was made known: somebody stops it.
        Err(Error::Running { id, .. }) => {
            let stopper = Process::new(world, driver.id + 1).redriver();
            let stopped = stopper.stop(&id, "the operator", "nobody drives it");
            let _ = tokio::time::timeout(Duration::from_secs(60), stopped).await;
            None
        }
        Err(error) => {
            world.violate(Promise::Redriven, None, format!("a redrive cannot be started: {error}"));
            None
        }
    }
}

/// Steps a redrive until it is over, with a new process for each that is killed.
async fn drive(world: &Arc<World>, id: &str, first: u64, mut rng: Rng) -> Option<Redrive> {
    for nth in 0.. {
        if world.lock().violation.is_some() {
            return None;
        }
        let driver = Process::new(world, first * 1_000_000 + nth);
        let redriver = driver.redriver();
        let dies = rng.chance((world.faults().kill_at_time * KILLS).min(0.3));
        let dies_after =
            Duration::from_millis(if dies { rng.range(0, STEP_MS_MAX) } else { u64::from(u32::MAX) });
        let stepped = tokio::select! {
            biased;
            () = driver.killed.notified() => None,
            stepped = redriver.step(id, STEP_MS_MAX) => Some(stepped),
            () = sleep(dies_after) => None,
        };
        world.lock().at_work.remove(&driver.id);
        let wait_ms = match stepped {
            Some(Ok(Stepped::Over(redrive))) => return Some(*redrive),
            Some(Ok(Stepped::Again { at_ms, .. })) => at_ms.saturating_sub(driver.now_ms()).min(HOUR),
            Some(Ok(Stepped::Busy { .. })) => 20 * SECOND,
            Some(Err(Error::Port(_))) => 20 * SECOND,
            Some(Err(error)) => {
                world.violate(Promise::Redriven, None, format!("a step cannot be made: {error}"));
                return None;
            }
            None => {
                driver.die();
                world.lock().stats.redrive_kills += 1;
                rng.range(SECOND, MINUTE)
            }
        };
        sleep(Duration::from_millis(wait_ms + 1)).await;
    }
    None
}

/// How a redrive that is over ended, for the oracle.
pub fn ended(redrive: &Redrive) -> Option<&Ended> {
    redrive.end.as_ref().map(|end| &end.how)
}
