#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // a test

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use nightshift_core::control::Control;
use nightshift_core::metric::MetricBatch;
use nightshift_core::redrive::{Depth, Redrive, Request, Source};
use nightshift_ports::{ControlAnswer, Document, DocumentAnswer, PortErrorKind};

use super::*;

/// A stack of which some operations fail; it notes what is done, in order.
#[derive(Default)]
struct World {
    fails: BTreeSet<&'static str>,
    directory: Option<String>,
    done: Mutex<Vec<String>>,
    published: Mutex<Vec<MetricBatch>>,
}

impl World {
    fn does<T>(&self, operation: &'static str, answer: T) -> Result<T, PortError> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).push(operation.to_owned());
        if !self.fails.contains(operation) {
            return Ok(answer);
        }
        let (kind, message) = (PortErrorKind::Unavailable, "down".to_owned());
        Err(PortError { service: "AWS", operation, kind, message })
    }

    fn did(&self) -> Vec<String> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl QueueDepth for World {
    async fn depth(&self) -> Result<Depth, PortError> {
        self.does("depth", Depth { visible: 1, hidden: 0 })
    }
}

#[async_trait]
impl ControlRecord for World {
    async fn control(&self) -> Result<Control, PortError> {
        panic!("the sentinel decides by what stands now")
    }
    async fn control_now(&self) -> Result<Control, PortError> {
        self.does("control", Control::default())
    }
    async fn put_control(&self, _: &Control, _: &Control) -> Result<ControlAnswer, PortError> {
        panic!("the sentinel changes nothing here")
    }
}

#[async_trait]
impl LedgerWatch for World {
    async fn oldest(&self, unsettled: Unsettled, _: u64, limit: u32) -> Result<Vec<Entry>, PortError> {
        let entry = |n: u32| Entry {
            key: InputHash::of_body(&format!("{} {n}", unsettled.as_str())),
            task: None,
            first_received_ms: 1,
            reason: None,
            settled_at_ms: None,
            lease_until_ms: None,
        };
        self.does("oldest", (0..limit).map(entry).collect())
    }
    async fn records(&self, keys: &[InputHash]) -> Result<Vec<Record>, PortError> {
        assert!(keys.len() <= 100, "one request holds 100 keys");
        self.does("records", Vec::new())
    }
    async fn committed_micro_usd(&self, _: UtcDay) -> Result<u64, PortError> {
        self.does("spend", 0)
    }
}

#[async_trait]
impl Documents for World {
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError> {
        let document = |json| Document { key: key.to_owned(), version: 1, json, expires_at_ms: None };
        self.does("directory", self.directory.clone().map(document))
    }
    async fn write(&self, _: &Document, _: Option<u64>) -> Result<DocumentAnswer, PortError> {
        panic!("the sentinel writes no redrive")
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
        1_795_500_000_000
    }
}

async fn run(world: World) -> (Arc<World>, Result<Snapshot, Incomplete>) {
    let world = Arc::new(world);
    let ports = Ports {
        jobs: world.clone(),
        dead_letters: world.clone(),
        crashed: world.clone(),
        control: world.clone(),
        watch: world.clone(),
        documents: world.clone(),
        redrives: world.clone(),
        metrics: world.clone(),
        clock: world.clone(),
    };
    let limits =
        StackLimits { retention_ms: 1_000, letter_retention_ms: 2_000, spend_cap_micro_usd: 1_000_000 };
    let ran = Sentinel::new(ports, Stack { name: "prod".to_owned(), limits }).run().await;
    (world, ran)
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
    assert_eq!(done[published + 1..], ["step", "crashed", "step", "letters"]);
}

#[tokio::test]
async fn one_read_that_fails_costs_its_gauges_and_the_heartbeat_alone() {
    for fails in ["depth", "control", "oldest", "records", "spend", "directory"] {
        let (world, ran) = run(World { fails: BTreeSet::from([fails]), ..World::default() }).await;
        let Incomplete(faults) = ran.unwrap_err();
        assert!(faults.iter().all(|fault| fault.contains(fails)), "{faults:?}");
        assert!(!beats(&world), "{fails}");
        assert!(world.published.lock().unwrap()[0].data.len() >= 6, "{fails} takes nothing else along");
    }
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
