//! One run of the sentinel over a large ledger: the loop as it is deployed, the adapters of `crates/aws` and the AWS SDK, against
//! our stand-ins for DynamoDB, SQS and CloudWatch, which answer from this process. Lambda is answered for at once.
//!
//! A million records are not written by a million requests: a few are, and the table is filled with copies of these under other
//! keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use aws_credential_types::Credentials;
use nightshift_aws::clients::{Region, SdkConfig, loader};
use nightshift_aws::ledger::table;
use nightshift_aws::{CloudWatchMetrics, DynamoLedger, SqsQueue, SystemClock};
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Unsettled;
use nightshift_core::record::{Budget, Done, Expect, Failed, Record, RecordWrite, Revision, State};
use nightshift_core::sentinel::{ProbeAsk, StackLimits, Switch};
use nightshift_core::spread::index_keys;
use nightshift_local::aws::{Item, LocalAws, Value};
use nightshift_ports::{
    Clock as _, Ledger as _, LiveVersion, PortError, RedriveSteps, WorkerFunction, WriteAnswer,
};
use nightshift_sentinel::{Ports, Sentinel, Stack};
use serde_json::json;
use tokio::time::Instant;

const REGION: &str = "eu-central-1";
const LEDGER: &str = "bench-ledger";
const RECORDS: u32 = 1_000_000;
/// Of each kind, beside the million.
const FEW: u32 = 20;
const RUNS: usize = 9;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What stands in the ledger.
pub struct Situation {
    /// Its row in the table.
    pub what: &'static str,
    environments: u32,
    many: fn(u64) -> State,
    /// The word under which these stand in the index.
    many_are: Option<Unsettled>,
}

/// The usual night of a stack as it is deployed, and what is worst for a run: full pages under each key of the widest index.
pub const ALL: &[Situation] = &[
    Situation {
        what: "the sentinel's run, 1,000,000 results in the ledger",
        environments: 50,
        many: done,
        many_are: None,
    },
    Situation {
        what: "the same, 1,000,000 failed, a stack of 1,000 environments",
        environments: 1_000,
        many: failed,
        many_are: Some(Unsettled::Failed),
    },
    Situation {
        what: "the same, 1,000,000 claims that died",
        environments: 1_000,
        many: claimed,
        many_are: Some(Unsettled::Claimed),
    },
];

impl Situation {
    /// Over how many keys each word of the index is spread.
    pub fn index_keys(&self) -> u32 {
        index_keys(self.environments)
    }
}

/// What runs took and asked for.
pub struct Measured {
    /// Of each run, in milliseconds.
    pub ms: Vec<f64>,
    /// Of one run, to all of AWS but Lambda.
    pub requests: u64,
    /// Of these, pages of the index: each query is answered with one.
    pub pages: u64,
}

fn done(at_ms: u64) -> State {
    State::Done(Box::new(Done {
        output: json!({"category": "delivery", "priority": "normal", "reason": "A parcel is late."}),
        needs_review: false,
        reviewed: false,
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
        model: "claude-haiku-4-5".to_owned(),
        finished_at_ms: at_ms,
    }))
}

fn failed(at_ms: u64) -> State {
    State::Failed(Box::new(Failed {
        reason: FailureReason::InvalidOutput,
        detail: "category: one of billing, delivery, other".to_owned(),
        failed_at_ms: at_ms,
        request_id: Some("req_1".to_owned()),
        excerpt: Some("an answer of the model".to_owned()),
        revision: Revision { hash: "abc".to_owned(), ..Revision::default() },
    }))
}

fn claimed(at_ms: u64) -> State {
    State::Claimed { lease_until_ms: at_ms + 300_000, alone: false }
}

fn open(_: u64) -> State {
    State::Open
}

fn record(name: &str, first_received_ms: u64, state: State) -> Record {
    Record {
        key: InputHash::of_job("categorize_ticket", &json!({ "text": name })),
        task: Some("categorize_ticket".to_owned()),
        reference: Some(name.to_owned()),
        version: 1,
        token: "t".to_owned(),
        state,
        previous: None,
        message_id: "m".to_owned(),
        sent_at_ms: first_received_ms - 1_000,
        first_received_ms,
        last_claimed_ms: first_received_ms,
        budget: Budget { claims: 1, calls: 1, cost_micro_usd: 800, ..Budget::default() },
        redrives: 0,
        history: Vec::new(),
        letter_version: None,
        erased: None,
        kept: None,
        reviewed: None,
        expires_at_ms: first_received_ms + 90 * DAY_MS,
    }
}

/// The worker's function and its event source: nothing to turn, nothing to probe.
struct Lambda;

#[async_trait]
impl LiveVersion for Lambda {
    async fn live_version(&self) -> Result<u64, PortError> {
        Ok(1)
    }
}

#[async_trait]
impl WorkerFunction for Lambda {
    async fn switch(&self) -> Result<Switch, PortError> {
        Ok(Switch::On)
    }

    async fn turn(&self, _: bool) -> Result<(), PortError> {
        Ok(())
    }

    async fn ask_for_probe(&self, _: &ProbeAsk) -> Result<(), PortError> {
        Ok(())
    }
}

#[async_trait]
impl RedriveSteps for Lambda {
    async fn ask_for_step(&self, _: &str) -> Result<(), PortError> {
        Ok(())
    }
}

/// Runs the sentinel again and again over this ledger; the first run, which also connects, is left out.
///
/// # Errors
/// When the stand-ins cannot be started or filled, or a run is not complete.
pub async fn measured(situation: &Situation) -> anyhow::Result<Measured> {
    let aws = LocalAws::start(REGION).await?;
    let sdk = loader()
        .endpoint_url(aws.endpoint_url())
        .region(Region::new(REGION))
        .credentials_provider(Credentials::from_keys("local", "local", None))
        .load()
        .await;
    table::create(&aws_sdk_dynamodb::Client::new(&sdk), LEDGER).await?;
    let ledger = Arc::new(DynamoLedger::new(&sdk, LEDGER));
    ledger.spread_index(situation.environments).await?;
    fill(&aws, &ledger, situation).await?;
    let sentinel = sentinel(&sdk, ledger, situation).await?;
    let run = async || sentinel.run().await.context("a run of the sentinel");
    run().await?;
    let before = aws.requests();
    let looked = run().await?;
    ensure!(looked.failed.is_some_and(|failed| !failed.is_empty()), "it has not seen what failed");
    let requests = asked_since(&before, &aws.requests());
    let mut ms = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        run().await?;
        ms.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    let pages = requests.get("DynamoDB.Query").copied().unwrap_or_default();
    aws.stop().await;
    Ok(Measured { ms, requests: requests.values().sum(), pages })
}

fn asked_since(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let new = |action: &String| after[action] - before.get(action).copied().unwrap_or_default();
    after.keys().map(|action| (action.clone(), new(action))).collect()
}

async fn sentinel(
    sdk: &SdkConfig,
    ledger: Arc<DynamoLedger>,
    situation: &Situation,
) -> anyhow::Result<Sentinel> {
    let sqs = aws_sdk_sqs::Client::new(sdk);
    let queue = async |name: &str| {
        let made = sqs.create_queue().queue_name(name).send().await?;
        anyhow::Ok(Arc::new(SqsQueue::new(sdk, made.queue_url().context("a URL")?)))
    };
    let ports = Ports {
        jobs: queue("bench-jobs").await?,
        dead_letters: queue("bench-dead-letters").await?,
        crashed: queue("bench-crashed").await?,
        control: ledger.clone(),
        watch: ledger.clone(),
        documents: ledger,
        redrives: Arc::new(Lambda),
        worker: Arc::new(Lambda),
        metrics: Arc::new(CloudWatchMetrics::new(sdk, Box::new(|_| ()))),
        clock: Arc::new(SystemClock),
    };
    let limits = StackLimits {
        retention_ms: 14 * DAY_MS,
        letter_retention_ms: 14 * DAY_MS,
        spend_cap_micro_usd: 50_000_000,
        lease_ms_max: 900_000,
    };
    let stack = Stack { name: "bench".to_owned(), limits, full_width: situation.environments * 10 };
    Ok(Sentinel::new(ports, stack))
}

/// The state of a record that was first received then, in milliseconds since 1970.
type Kind = fn(u64) -> State;

/// Some of each kind by requests, and then the many as copies of what such a request has stored.
async fn fill(aws: &LocalAws, ledger: &DynamoLedger, situation: &Situation) -> anyhow::Result<()> {
    let now_ms = SystemClock.now_ms();
    let kinds: [(&str, Kind); 4] =
        [("open", open), ("failed", failed), ("claimed", claimed), ("many", situation.many)];
    for (kind, state) in kinds {
        for n in 0..FEW {
            let first_received_ms = now_ms - u64::from(n + 1) * 3_600_000;
            let record = record(&format!("{kind} {n}"), first_received_ms, state(first_received_ms));
            let answer = ledger.write(&RecordWrite { record, expect: Expect::Absent }).await?;
            ensure!(matches!(answer, WriteAnswer::Written), "a record was not written");
        }
    }
    let reference = |item: &Item| item.get("reference").and_then(Value::as_text).map(str::to_owned);
    let many = |item: &Item| reference(item).is_some_and(|reference| reference.starts_with("many"));
    let samples: Vec<Item> = aws.items(LEDGER).into_iter().filter(many).collect();
    let copies = (0..RECORDS).zip(samples.iter().cycle()).map(|(n, sample)| {
        let mut copy = sample.clone();
        copy.insert(table::ID.to_owned(), Value::S(format!("{n:064x}")));
        if let Some(word) = situation.many_are {
            let key = table::index_key(word, n % situation.index_keys());
            copy.insert(table::UNSETTLED.to_owned(), Value::S(key));
        }
        copy
    });
    aws.put(LEDGER, copies).map_err(anyhow::Error::msg)
}
