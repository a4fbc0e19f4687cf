//! Redrives beside workers, producers and the operator: the real loop over in-memory queues, killed at any await.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::record::{Record, RecordWrite, State as Standing};
use nightshift_core::redrive::{
    Canary, Deployed, Depth, Ended, JobCost, Redrive, Request, STEP_MS_MAX, Source, Stepped,
};
use nightshift_core::spend::{SpendAnswer, SpendChange};
use nightshift_ports::{
    Clock, ControlAnswer, ControlRecord, Document, DocumentAnswer, Documents, Entropy, FailedPage,
    FailedRecords, JobsQueue, Ledger, Letter as Held, PortError, PortErrorKind, QueueDepth, SingleRecords,
    Waiting, WaitingQueue, WriteAnswer,
};
use nightshift_redrive::{Error, Ports, Redriver, Stack};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::oracle::Promise;
use crate::plan::{HOUR, MINUTE, SECOND};
use crate::queue::Place;
use crate::rng::Rng;
use crate::work::Kind;
use crate::world::{Letter, State, World};

/// How often a driver is killed at a port, as a multiple of what a worker is.
const KILLS: f64 = 8.0;
/// A redrive that is driven ends within this time: five plans of a scan.
const LASTS_MS_MAX: u64 = 12 * HOUR;

/// One process that steps a redrive.
pub struct Driver {
    world: Arc<World>,
    id: u64,
    skew_ms: i64,
    dead: AtomicBool,
    killed: Notify,
    rng: Mutex<Rng>,
    /// Pages that it knows to be sent, and has not noted in the record.
    unnoted: AtomicU64,
}

/// One of the two queues that a redrive receives from, as one driver sees it.
struct SimQueue {
    driver: Arc<Driver>,
    source: Source,
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
}

fn error(operation: &'static str, kind: PortErrorKind) -> PortError {
    PortError { service: "simulated", operation, kind, message: "simulated".to_owned() }
}

impl Driver {
    fn new(world: &Arc<World>, id: u64) -> Arc<Self> {
        let mut rng = Rng::new(world.plan.seed, "driver", id);
        let skew_ms = world.plan.faults.skew_ms;
        let skew_ms = rng.range(0, 2 * skew_ms) as i64 - skew_ms as i64;
        Arc::new(Self {
            world: Arc::clone(world),
            id,
            skew_ms,
            dead: AtomicBool::new(false),
            killed: Notify::new(),
            rng: Mutex::new(rng),
            unnoted: AtomicU64::new(0),
        })
    }

    fn draw<T>(&self, from: impl FnOnce(&mut Rng) -> T) -> T {
        from(&mut self.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn die(&self) {
        if !self.dead.swap(true, Ordering::Relaxed) {
            self.killed.notify_one();
        }
    }

    /// A dead driver gets no further, and a living one may die here.
    async fn gate(&self) {
        if self.draw(|rng| rng.chance(self.world.faults().kill_at_port * KILLS)) {
            self.die();
        }
        if self.dead.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
    }

    /// The way there, the effect, and the way back; with this probability it fails, before the effect or after it.
    async fn does<T>(
        &self,
        operation: &'static str,
        fails: f64,
        effect: impl FnOnce(&mut State, u64) -> T,
    ) -> Result<T, PortError> {
        self.gate().await;
        sleep(Duration::from_millis(self.draw(|rng| rng.range(3, 20)))).await;
        let (fails, after) = self.draw(|rng| (rng.chance(fails), rng.chance(0.5)));
        if fails && !after {
            self.gate().await;
            return Err(error(operation, PortErrorKind::Throttled));
        }
        let done = effect(&mut self.world.lock(), self.world.now_ms());
        self.world.visibility.notify_one();
        self.gate().await;
        if fails { Err(error(operation, PortErrorKind::Unavailable)) } else { Ok(done) }
    }

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
                    if let Some((n, _)) = waiting(state, source)[place].of {
                        state.note(now_ms, n, || format!("driver {} receives it", driver.id));
                    }
                }
                received
            })
            .await?;
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
                    state.letter_was_deleted(now_ms, source, &letter);
                    Ok(())
                });
                deleted.collect()
            })
            .await
    }
}

#[async_trait]
impl JobsQueue for Driver {
    async fn send(&self, letters: &[&Held]) -> Result<Vec<Result<String, PortError>>, PortError> {
        let fails = self.world.faults().letter_fails * 0.3;
        let fates: Vec<(bool, bool)> =
            letters.iter().map(|_| self.draw(|rng| (rng.chance(fails), rng.chance(0.5)))).collect();
        let sent: Result<Vec<Result<String, PortError>>, PortError> = self
            .does("SendMessageBatch", fails * 0.3, |state, now_ms| {
                if let Some(running) = &mut state.redrive {
                    running.unknown_pages += 1;
                }
                let answers = letters.iter().zip(fates).map(|(letter, (fails, sent_all_the_same))| {
                    let id = (!fails || sent_all_the_same)
                        .then(|| state.letter_was_sent(now_ms, letter).to_string());
                    id.filter(|_| !fails).ok_or(error("SendMessageBatch", PortErrorKind::Unavailable))
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
impl Documents for Driver {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        self.does("GetItem", 0.0, |state, _| state.documents.get(key).cloned()).await
    }

    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
        let apply = |state: &mut State, _| {
            let standing = state.documents.get(&document.key);
            if standing.map(|standing| standing.version) == expect {
                state.documents.insert(document.key.clone(), document.clone());
                if let Some(running) = &mut state.redrive {
                    running.unknown_pages -= self.unnoted.swap(0, Ordering::Relaxed);
                }
                return DocumentAnswer::Written;
            }
            DocumentAnswer::Refused(standing.cloned())
        };
        // The SDK repeats what lost its reply.
        if self.draw(|rng| rng.chance(self.world.faults().ledger_reply_lost * KILLS)) {
            self.does("UpdateItem", 0.0, apply).await?;
        }
        self.does("UpdateItem", self.world.faults().ledger_throttled * 0.1, apply).await
    }
}

#[async_trait]
impl SingleRecords for Driver {
    async fn read(&self, key: &InputHash) -> Result<Option<Record>, PortError> {
        self.does("GetItem", self.world.faults().ledger_throttled * 0.1, |state, _| {
            let n = state.by_key.get(key)?;
            state.inputs[*n as usize].record.as_deref().cloned()
        })
        .await
    }
}

#[async_trait]
impl FailedRecords for Driver {
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
impl ControlRecord for Driver {
    async fn control(&self) -> Result<Control, PortError> {
        unreachable!("a redrive reads no control record")
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        unreachable!("a redrive reads no control record")
    }

    async fn put_control(&self, _: &Control, _: &Control) -> Result<ControlAnswer, PortError> {
        unreachable!("a redrive writes no control record")
    }
}

#[async_trait]
impl Ledger for Driver {
    async fn put(&self, write: &RecordWrite) -> Result<WriteAnswer, PortError> {
        let apply = |state: &mut State, now_ms| state.record_is_reset(now_ms, write);
        if self.draw(|rng| rng.chance(self.world.faults().ledger_reply_lost * KILLS)) {
            self.does("UpdateItem", 0.0, apply).await?;
        }
        self.does("UpdateItem", self.world.faults().ledger_throttled * 0.1, apply).await
    }

    async fn count_duplicate(&self, _: &InputHash, _: &str) -> Result<(), PortError> {
        unreachable!("a redrive counts no duplicates")
    }

    async fn note_letter_sent(&self, _: &InputHash, _: u64) -> Result<(), PortError> {
        unreachable!("a redrive notes no letters")
    }

    async fn spend(&self, _: &SpendChange) -> Result<SpendAnswer, PortError> {
        unreachable!("a redrive spends nothing")
    }
}

impl Clock for Driver {
    fn now_ms(&self) -> u64 {
        self.world.now_ms().saturating_add_signed(self.skew_ms)
    }
}

impl Entropy for Driver {
    fn fraction(&self) -> f64 {
        self.draw(Rng::fraction)
    }

    fn token(&self) -> String {
        self.draw(|rng| format!("{:016x}{:016x}", rng.bits(), rng.bits()))
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
                        let driver = Driver::new(&world, drivers + 2);
                        let redriver = driver.redriver();
                        let stopped = redriver.stop(&redrive.id, "boss", "enough");
                        let stopped = tokio::time::timeout(Duration::from_secs(60), stopped).await;
                        drop(stopped);
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
    let driver = Driver::new(world, id);
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
            });
            world.lock().stats.redrives_begun += 1;
            Some(redrive)
        }
        Err(Error::Port(_)) => None,
        // Its start was killed after it was made known: somebody stops it.
        Err(Error::Running { id, .. }) => {
            let stopper = Driver::new(world, driver.id + 1).redriver();
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
        let driver = Driver::new(world, first * 1_000_000 + nth);
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
