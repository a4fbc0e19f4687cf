#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use nightshift_core::control::{Cause, Control, Entry, Stored};
use nightshift_core::listing;
use nightshift_core::metric::MetricBatch;
use nightshift_core::redrive::{Depth, Redrive, Request, Source};
use nightshift_core::sentinel::{ProbeAsk, Switch};
use nightshift_ports::{ControlAnswer, DocumentAnswer, LiveVersion, PortErrorKind};

use super::*;

pub(crate) const DAY_MS: u64 = 86_400_000;
pub(crate) const NOW_MS: u64 = 1_795_500_000_000;

/// A stack of which some operations fail; it notes what is done, in order.
pub(crate) struct World {
    fails: BTreeSet<&'static str>,
    directory: Option<String>,
    done: Mutex<Vec<String>>,
    published: Mutex<Vec<MetricBatch>>,
    /// The records that were read whole.
    read: Mutex<Vec<InputHash>>,
    pub(crate) state: Mutex<State>,
}

/// What changes in it.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) now_ms: u64,
    pub(crate) control: Stored,
    pub(crate) switch: Switch,
    pub(crate) live_version: u64,
    pub(crate) in_flight: u64,
    /// Of each minute, as long as it stands.
    pub(crate) calls: Calls,
    /// Since when they had failed two minutes ago.
    pub(crate) failing_before_ms: Option<u64>,
    pub(crate) failing_before_until_ms: Option<u64>,
    pub(crate) probes: u32,
    /// So many stand in the index for each word, of jobs that were received first when time began.
    pub(crate) entries: u32,
    /// And so many of jobs that were received first a day ago.
    pub(crate) young: u32,
    /// So many claims have died two minutes ago.
    pub(crate) dead_claims: u32,
    pub(crate) answered_at_ms: Option<u64>,
    pub(crate) called_at_ms: Option<u64>,
    /// What the record of the day before says, where it says something else than that of the day.
    pub(crate) yesterday: Option<Spent>,
    /// What a run remembers for the next one.
    pub(crate) remembered: Option<Document>,
    /// What happens at the operation of this number.
    pub(crate) fate: Option<(usize, Fate)>,
    pub(crate) operations: usize,
}

/// What happens at an operation of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The function is killed before it.
    KilledBefore,
    /// And after it.
    KilledAfter,
    /// It takes effect, and its reply is lost.
    ReplyLost,
    /// An operator pauses just before it.
    OperatorPauses,
    /// And resumes.
    OperatorResumes,
}

impl Default for World {
    fn default() -> Self {
        let state = State {
            now_ms: NOW_MS,
            control: Stored::default(),
            switch: Switch::On,
            live_version: 7,
            in_flight: 0,
            calls: Calls::default(),
            failing_before_ms: None,
            failing_before_until_ms: None,
            probes: 0,
            // More than are read whole.
            entries: BEGUN_MAX + 5,
            young: 0,
            dead_claims: 0,
            answered_at_ms: Some(NOW_MS - 1_000),
            called_at_ms: None,
            yesterday: None,
            remembered: Some(remembered(NOW_MS - 60_000)),
            fate: None,
            operations: 0,
        };
        Self {
            fails: BTreeSet::new(),
            directory: None,
            done: Mutex::default(),
            published: Mutex::default(),
            read: Mutex::default(),
            state: Mutex::new(state),
        }
    }
}

/// The key of the entry of this number.
fn key(unsettled: Unsettled, n: u32) -> InputHash {
    InputHash::of_body(&format!("{} {n}", unsettled.as_str()))
}

/// What a run that began then remembers.
fn remembered(now_ms: u64) -> Document {
    let json = Watch::after(None, 7, 310_000, now_ms).to_json();
    Document { key: WATCH_KEY.to_owned(), version: 1, json, expires_at_s: None }
}

impl State {
    pub(crate) fn control(&self) -> Control {
        Control::read(self.control.clone())
    }

    /// As `nightshift pause` and `resume` do it: the record, and then the switch.
    pub(crate) fn operate(&mut self, pauses: bool) {
        let entry = Entry::paused(self.now_ms, "INC-42", "somebody");
        let control = self.control();
        let next = if pauses { control.with(Cause::Operator, entry) } else { control.resumed(self.now_ms) };
        self.control = next.stored();
        self.switch = if pauses { Switch::Off } else { Switch::On };
    }
}

fn down(operation: &'static str) -> PortError {
    let (kind, message) = (PortErrorKind::Unavailable, "down".to_owned());
    PortError { service: "AWS", operation, kind, message }
}

impl World {
    pub fn where_fails(operation: &'static str) -> Self {
        Self { fails: [operation].into(), ..Self::default() }
    }

    fn does<T>(&self, operation: &'static str, answer: T) -> Result<T, PortError> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(operation.to_owned());
        if self.fails.contains(operation) { Err(down(operation)) } else { Ok(answer) }
    }

    /// An operation on the state, which others may reach before it, and its fate.
    async fn on<T>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut State) -> T,
    ) -> Result<T, PortError> {
        tokio::task::yield_now().await;
        let (answer, fate) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let number = state.operations;
            state.operations += 1;
            let fate = state.fate.filter(|(at, _)| *at == number).map(|(_, fate)| fate);
            match fate {
                Some(Fate::OperatorPauses) => state.operate(true),
                Some(Fate::OperatorResumes) => state.operate(false),
                _ => {}
            }
            ((fate != Some(Fate::KilledBefore)).then(|| change(&mut state)), fate)
        };
        match (answer, fate) {
            (None, _) | (_, Some(Fate::KilledAfter)) => std::future::pending().await,
            (_, Some(Fate::ReplyLost)) => Err(down(operation)),
            (Some(answer), _) => self.does(operation, answer),
        }
    }

    fn did(&self) -> Vec<String> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl QueueDepth for World {
    async fn depth(&self) -> Result<Depth, PortError> {
        self.on("depth", |state| Depth { visible: 1, hidden: state.in_flight }).await
    }
}

#[async_trait]
impl ControlRecord for World {
    async fn control(&self) -> Result<Control, PortError> {
        panic!("the sentinel decides by what stands now")
    }
    async fn control_now(&self) -> Result<Control, PortError> {
        self.on("control", |state| state.control()).await
    }
    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        self.on("put_control", |state| {
            let standing = state.control();
            if (standing.version, standing.told()) != (over.version, over.told()) {
                return ControlAnswer::Refused(Box::new(standing));
            }
            state.control = next.stored();
            ControlAnswer::Written
        })
        .await
    }
}

#[async_trait]
impl LedgerWatch for World {
    async fn oldest(
        &self,
        unsettled: Unsettled,
        since_ms: u64,
        limit: u32,
    ) -> Result<Vec<listing::Entry>, PortError> {
        self.on("oldest", |state| {
            let entry = |n: u32| listing::Entry {
                key: key(unsettled, n),
                task: None,
                first_received_ms: if n < state.entries { 1 } else { NOW_MS - DAY_MS },
                reason: None,
                settled_at_ms: None,
                lease_until_ms: (unsettled == Unsettled::Claimed && n < state.dead_claims)
                    .then_some(state.now_ms - 120_000 - u64::from(n)),
            };
            let all = (0..state.entries + state.young).map(entry);
            all.filter(|entry| entry.first_received_ms >= since_ms || entry.lease_until_ms.is_some())
                .take(limit as usize)
                .collect()
        })
        .await
    }
    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        assert!(keys.len() <= 100, "one request holds 100 keys");
        self.read.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(keys);
        self.does("records", Vec::new())
    }
    async fn calls(&self, minute: u64) -> Result<Calls, PortError> {
        self.on("calls", |state| match state.now_ms / 60_000 - minute {
            0 => state.calls,
            2 => Calls {
                failed: 500,
                failing_since_ms: state.failing_before_ms,
                failing_until_ms: state.failing_before_until_ms,
                ..Calls::default()
            },
            _ => Calls::default(),
        })
        .await
    }
    async fn spent(&self, day: UtcDay) -> Result<Spent, PortError> {
        self.on("spend", |state| {
            let State { answered_at_ms, called_at_ms, .. } = *state;
            let today = Spent { answered_at_ms, called_at_ms, ..Spent::default() };
            if day == UtcDay::of(state.now_ms) { today } else { state.yesterday.unwrap_or(today) }
        })
        .await
    }
}

#[async_trait]
impl LiveVersion for World {
    async fn live_version(&self) -> Result<u64, PortError> {
        self.on("version", |state| state.live_version).await
    }
}

#[async_trait]
impl WorkerFunction for World {
    async fn switch(&self) -> Result<Switch, PortError> {
        self.on("switch", |state| state.switch).await
    }
    async fn turn(&self, on: bool) -> Result<(), PortError> {
        self.on("turn", |state| state.switch = if on { Switch::On } else { Switch::Off }).await
    }
    async fn ask_for_probe(&self, ask: &ProbeAsk) -> Result<(), PortError> {
        self.on("probe", |state| {
            // The worker answers at once.
            let control = state.control();
            if let Some(entry) = control.entries.get(&ask.probe) {
                state.probes += 1;
                let probed = entry.probed(state.calls.failed == 0, state.now_ms);
                state.control = control.with(ask.probe, probed).stored();
            }
        })
        .await
    }
}

#[async_trait]
impl Documents for World {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        if key == WATCH_KEY {
            return self.on("watch", |state| state.remembered.clone()).await;
        }
        let document = |json| Document { key: key.to_owned(), version: 1, json, expires_at_s: None };
        self.does("directory", self.directory.clone().map(document))
    }
    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError> {
        assert_eq!(document.key, WATCH_KEY, "the sentinel writes no redrive");
        self.on("remember", |state| {
            if state.remembered.as_ref().map(|standing| standing.version) != expect {
                return DocumentAnswer::Refused(state.remembered.clone());
            }
            state.remembered = Some(document.clone());
            DocumentAnswer::Written
        })
        .await
    }
}

#[async_trait]
impl RedriveSteps for World {
    async fn ask_for_step(&self, id: &str) -> Result<(), PortError> {
        self.does("step", ())?;
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(id.to_owned());
        Ok(())
    }
}

#[async_trait]
impl Metrics for World {
    async fn publish(&self, batch: &MetricBatch, _: Duration) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
        let _ = self.does("publish", ());
    }
}

impl Clock for World {
    fn now_ms(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).now_ms
    }
}

async fn run(world: World) -> (Arc<World>, Result<Snapshot, Incomplete>) {
    let world = Arc::new(world);
    let ran = sentinel(&world).run().await;
    (world, ran)
}

pub(crate) fn sentinel(world: &Arc<World>) -> Sentinel {
    let ports = Ports {
        jobs: world.clone(),
        dead_letters: world.clone(),
        crashed: world.clone(),
        control: world.clone(),
        watch: world.clone(),
        documents: world.clone(),
        redrives: world.clone(),
        worker: world.clone(),
        metrics: world.clone(),
        clock: world.clone(),
    };
    let limits = StackLimits {
        retention_ms: 7 * DAY_MS,
        letter_retention_ms: 14 * DAY_MS,
        spend_cap_micro_usd: 1_000_000,
        lease_ms_max: 310_000,
    };
    Sentinel::new(ports, Stack { name: "prod".to_owned(), limits, full_width: 100 })
}

fn directory(ids: &[(&str, Source)]) -> String {
    let mut directory = Directory::default();
    for (id, source) in ids {
        let request = Request::all(*source, "r", "c");
        directory.add(&Redrive::begin((*id).to_owned(), request, 1, Depth::default(), 1).unwrap());
    }
    directory.is_over("over");
    directory.to_json()
}

fn beats(world: &World) -> bool {
    let published = world.published.lock().unwrap();
    assert_eq!(published.len(), 1, "one PutMetricData");
    published[0].data.iter().any(|datum| datum.name == "Heartbeat")
}

#[tokio::test]
async fn a_run_publishes_before_it_drives_and_drives_what_is_not_over() {
    let redrives =
        [("over", Source::DeadLetters), ("letters", Source::DeadLetters), ("crashed", Source::Crashed)];
    let (world, ran) = run(World { directory: Some(directory(&redrives)), ..World::default() }).await;
    assert_eq!(ran.unwrap().redrives.unwrap(), ["crashed", "letters"]);
    assert!(beats(&world));
    let done = world.did();
    let published = done.iter().position(|what| what == "publish").unwrap();
    assert_eq!(done[published + 1..], ["remember", "control", "step", "crashed", "step", "letters"]);
}

#[tokio::test]
async fn one_read_that_fails_costs_its_gauges_and_the_heartbeat_alone() {
    for fails in
        ["depth", "control", "oldest", "records", "spend", "directory", "switch", "version", "calls", "watch"]
    {
        let (world, ran) = run(World { fails: BTreeSet::from([fails]), ..World::default() }).await;
        let Incomplete(faults) = ran.unwrap_err();
        assert!(faults.iter().all(|fault| fault.contains(fails)), "{faults:?}");
        assert!(!beats(&world), "{fails}");
        assert!(world.published.lock().unwrap()[0].data.len() >= 6, "{fails} takes nothing else along");
    }
}

/// What was purged or went to `crashed` stands in the index for weeks, and before everything that is still in the queue.
#[tokio::test]
async fn jobs_whose_message_sqs_can_still_have_are_seen_behind_any_number_of_older_ones() {
    for older in [0, BEGUN_MAX, ENTRIES_MAX] {
        let world = World::default();
        {
            let mut state = world.state.lock().unwrap();
            (state.entries, state.young) = (older, 1);
        }
        let (world, _) = run(world).await;
        let read = world.read.lock().unwrap();
        for unsettled in [Unsettled::Open, Unsettled::Claimed] {
            assert!(read.contains(&key(unsettled, older)), "{} behind {older}", unsettled.as_str());
            // It may have been sent again since.
            assert!(read.contains(&key(unsettled, 0)), "{} behind {older}", unsettled.as_str());
        }
    }
}

#[tokio::test]
async fn a_look_is_remembered_that_saw_all_that_a_version_is_judged_by() {
    let look_of = |world: &World| {
        let state = world.state.lock().unwrap();
        Watch::from_json(&state.remembered.as_ref().unwrap().json).unwrap().seen_at_ms
    };
    let (world, _) = run(World::default()).await;
    assert_eq!(look_of(&world), NOW_MS);
    for fails in ["control", "oldest", "records", "spend", "version", "watch"] {
        let (world, _) = run(World { fails: BTreeSet::from([fails]), ..World::default() }).await;
        assert_eq!(look_of(&world), NOW_MS - 60_000, "{fails}");
    }
}

/// What died while nothing was answered is told from a deploy that kills by the last call, on whichever day that was.
#[tokio::test]
async fn after_midnight_the_last_call_and_its_answer_are_those_of_the_day_before() {
    let yesterday = (Some(1), Some(2));
    for (today, expected) in [
        ((None, None), yesterday),
        ((None, Some(4)), (Some(1), Some(4))),
        ((Some(3), Some(4)), (Some(3), Some(4))),
    ] {
        let world = World::default();
        {
            let mut state = world.state.lock().unwrap();
            (state.answered_at_ms, state.called_at_ms) = today;
            let (answered_at_ms, called_at_ms) = yesterday;
            // Its money is no longer asked for.
            state.yesterday =
                Some(Spent { answered_at_ms, called_at_ms, committed_micro_usd: 9, ..Spent::default() });
        }
        let spent = run(world).await.1.unwrap().spent.unwrap();
        assert_eq!((spent.answered_at_ms, spent.called_at_ms), expected, "{today:?}");
        assert_eq!(spent.committed_micro_usd, 0, "{today:?}");
    }
}

#[tokio::test]
async fn where_a_look_cannot_be_remembered_there_is_no_heartbeat() {
    for (remembered_at_ms, expected) in
        [(Some(NOW_MS - 300_000), true), (Some(NOW_MS - 300_001), false), (None, false)]
    {
        let world = World::default();
        world.state.lock().unwrap().remembered = remembered_at_ms.map(remembered);
        let (world, ran) = run(world).await;
        assert!(ran.is_ok());
        assert_eq!(beats(&world), expected, "{remembered_at_ms:?}");
    }
    let (_, ran) = run(World { fails: BTreeSet::from(["remember"]), ..World::default() }).await;
    assert!(ran.unwrap_err().to_string().contains("remember"));
}

#[tokio::test]
async fn a_directory_of_a_newer_release_is_told_and_no_redrive_is_driven() {
    let (world, ran) = run(World { directory: Some("[]".to_owned()), ..World::default() }).await;
    assert!(ran.unwrap_err().to_string().contains("directory of the redrives"));
    assert!(!beats(&world) && !world.did().iter().any(|what| what == "step"));
}

#[tokio::test]
async fn a_step_that_cannot_be_asked_for_keeps_no_other_from_it() {
    let redrives = [("letters", Source::DeadLetters), ("crashed", Source::Crashed)];
    let directory = Some(directory(&redrives));
    let (world, ran) = run(World { directory, fails: BTreeSet::from(["step"]), ..World::default() }).await;
    assert_eq!(ran.unwrap_err().0.len(), 2);
    assert!(beats(&world), "the gauges are complete");
}
