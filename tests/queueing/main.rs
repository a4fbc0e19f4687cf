//! Fleets of real workers against model servers of one's own, on virtual time: how much of what a server can do they
//! use, and what becomes of jobs beside so many others.
//!
//! Such a server queues without a word: it has slots, calls wait for one in the order of their arrival, and the only
//! sign of too many is that calls take long, or time out ("llama-server", `--parallel`; "OLLAMA_NUM_PARALLEL", Ollama
//! FAQ). Beside them stand providers that are slow and healthy, which must not be taken for full.
//!
//! The queue of jobs never runs dry; what is handed back comes again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

#[path = "../bench/table/rate_limit.rs"]
mod rate_limit;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::dead_letter::REASON_ATTRIBUTE;
use nightshift_core::limits::Limits;
use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, ModelRequest, RetryAdvice, TIMEOUT, Usage,
};
use nightshift_core::split_mix::SplitMix64;
use nightshift_ports::Model;
use nightshift_tests::memory::{Says, World, again, message};
use nightshift_worker::Message;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
/// The function's timeout by default.
const TIME_LEFT_MS: u64 = 300_000;
/// What a run needs to find its number of calls is not held against its use of the server; what it loses is.
const WARM_UP: Duration = Duration::from_secs(20 * 60);

/// How long the n-th call takes once it has a slot, at this time of the run.
type Takes = fn(u64, Duration) -> Duration;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    /// 0: as many as are asked for.
    slots: usize,
    takes: Takes,
    /// What nobody waits for any more is not worked on. Behind some proxies it is.
    cancels: bool,
    environments: u32,
    minutes: u32,
    /// What must be used of the slots.
    share_min: f64,
}

fn between(n: u64, low_s: f64, high_s: f64) -> Duration {
    Duration::from_secs_f64(low_s + SplitMix64::nth(n).fraction() * (high_s - low_s))
}

/// The server, seen by all environments.
struct Server {
    case: Case,
    began: Instant,
    slots: Arc<Semaphore>,
    output: String,
    calls: AtomicU64,
    answered: AtomicU64,
    timeouts: AtomicU64,
    /// Work whose answer was heard.
    useful_ms: AtomicU64,
    open: Vec<AtomicUsize>,
    /// Per environment: the most calls that were open at once since this was last emptied.
    open_max: Vec<AtomicUsize>,
}

/// The server as one environment sees it.
struct Seen {
    server: Arc<Server>,
    environment: usize,
}

#[async_trait]
impl Model for Seen {
    async fn call(&self, request: &ModelRequest) -> Result<ModelReply, ModelFailure> {
        let (server, environment) = (&self.server, self.environment);
        let open = server.open[environment].fetch_add(1, Ordering::Relaxed) + 1;
        server.open_max[environment].fetch_max(open, Ordering::Relaxed);
        let n = server.calls.fetch_add(1, Ordering::Relaxed);
        let takes = (server.case.takes)(n, server.began.elapsed());
        let slots = Arc::clone(&server.slots);
        let work = async move {
            let _slot = slots.acquire_owned().await;
            tokio::time::sleep(takes).await;
        };
        let limit = Duration::from_millis(request.timeout_ms);
        let in_time = if server.case.cancels {
            tokio::time::timeout(limit, work).await.is_ok()
        } else {
            tokio::time::timeout(limit, tokio::spawn(work)).await.is_ok()
        };
        server.open[environment].fetch_sub(1, Ordering::Relaxed);
        if !in_time {
            server.timeouts.fetch_add(1, Ordering::Relaxed);
            return Err(ModelFailure {
                class: FailureClass::Transient,
                status: None,
                error_type: TIMEOUT.to_owned(),
                message: String::new(),
                request_id: None,
                advice: RetryAdvice::default(),
                headroom: Headroom::default(),
                oversize: None,
            });
        }
        server.answered.fetch_add(1, Ordering::Relaxed);
        server.useful_ms.fetch_add(takes.as_millis() as u64, Ordering::Relaxed);
        Ok(ModelReply {
            answer: Answer::Text(server.output.clone()),
            usage: Usage { input_tokens: 900, output_tokens: 200 }.into(),
            request_id: None,
            headroom: Headroom::default(),
        })
    }
}

/// Jobs without end: what was handed back, when its time has come, and else a new one.
struct Jobs {
    world: Arc<World>,
    sent: u64,
    back: BTreeMap<(Instant, u64), Message>,
    received_max: u32,
}

impl Jobs {
    fn batch(&mut self, size: u32) -> VecDeque<Message> {
        let mut batch = VecDeque::new();
        while batch.len() < size as usize {
            let message = match self.back.first_entry() {
                Some(first) if first.key().0 <= Instant::now() => again(&first.remove()),
                _ => {
                    self.sent += 1;
                    let text = format!("Ticket {}: I was charged twice.", self.sent);
                    let body = json!({"task": "categorize_ticket", "input": {"text": text}});
                    message(&self.world, &self.sent.to_string(), body.to_string())
                }
            };
            self.received_max = self.received_max.max(message.receive_count);
            batch.push_back(message);
        }
        batch
    }

    fn hand_back(&mut self, message: Message, delay: Duration) {
        let id = message.message_id.parse().unwrap();
        self.back.insert((Instant::now() + delay, id), message);
    }
}

struct Outcome {
    /// Of what the slots could do after the warm-up, what was done and heard.
    share: f64,
    answered: u64,
    timeouts: u64,
    /// Reasons of dead letters, with how many.
    lost: BTreeMap<String, usize>,
    received_max: u32,
    /// What one environment had open at once, at the most, on average over environments: in the last ten minutes.
    open_at_end: f64,
}

async fn run(case: Case) -> Outcome {
    let server = Arc::new(Server {
        case,
        began: Instant::now(),
        slots: Arc::new(Semaphore::new(if case.slots == 0 { Semaphore::MAX_PERMITS } else { case.slots })),
        output: nightshift_tests::ticket_answer().to_string(),
        calls: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        timeouts: AtomicU64::new(0),
        useful_ms: AtomicU64::new(0),
        open: (0..case.environments).map(|_| AtomicUsize::new(0)).collect(),
        open_max: (0..case.environments).map(|_| AtomicUsize::new(0)).collect(),
    });
    let world = World::new(|_, _| Says::Text(String::new()));
    let limits =
        Limits { concurrency_max: case.environments, spend_cap_micro_usd: u64::MAX / 4, ..Limits::default() };
    let jobs = Arc::new(Mutex::new(Jobs {
        world: Arc::clone(&world),
        sent: 0,
        back: BTreeMap::new(),
        received_max: 0,
    }));
    let environments = (0..case.environments as usize).map(|environment| {
        let seen = Arc::new(Seen { server: Arc::clone(&server), environment });
        let (worker, world, jobs) =
            (world.worker_with(limits.clone(), seen), Arc::clone(&world), Arc::clone(&jobs));
        let size = limits.batch_size;
        async move {
            for invocation in 0_u64.. {
                let batch: Vec<_> = jobs.lock().unwrap().batch(size).into();
                let id = format!("{environment}-{invocation}");
                let report = worker.process_batch(&id, TIME_LEFT_MS, batch.clone()).await;
                let delays = world.take_visibility();
                for message in batch {
                    if report.failed_message_ids.contains(&message.message_id) {
                        let delay = delays.iter().rfind(|(handle, _)| *handle == message.receipt_handle);
                        let delay_s = delay.map_or(1_800, |(_, delay_s)| *delay_s);
                        jobs.lock().unwrap().hand_back(message, Duration::from_secs(delay_s.into()));
                    }
                }
                // What the world remembers for scenarios would fill the memory here.
                world.on_write(|_, _| None);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let all = futures_util::future::join_all(environments);
    tokio::pin!(all);
    let end = server.began + MINUTE * case.minutes;
    let _ = tokio::time::timeout_at(server.began + WARM_UP, &mut all).await;
    let useful_before = server.useful_ms.load(Ordering::Relaxed);
    let _ = tokio::time::timeout_at(end - 10 * MINUTE, &mut all).await;
    for (open, max) in server.open.iter().zip(&server.open_max) {
        max.store(open.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    let _ = tokio::time::timeout_at(end, &mut all).await;
    let measured_ms = (end - server.began - WARM_UP).as_millis() as f64 * case.slots.max(1) as f64;
    let useful_ms = server.useful_ms.load(Ordering::Relaxed) - useful_before;
    let mut lost = BTreeMap::new();
    for letter in world.letters() {
        let reason = letter.attributes.iter().find(|(name, _)| name == REASON_ATTRIBUTE).unwrap();
        *lost.entry(format!("{:?}", reason.1.value)).or_default() += 1;
    }
    let received_max = jobs.lock().unwrap().received_max;
    let open: usize = server.open_max.iter().map(|max| max.load(Ordering::Relaxed)).sum();
    Outcome {
        share: useful_ms as f64 / measured_ms,
        answered: server.answered.load(Ordering::Relaxed),
        timeouts: server.timeouts.load(Ordering::Relaxed),
        lost,
        received_max,
        open_at_end: open as f64 / f64::from(case.environments),
    }
}

#[test]
fn servers_that_queue_are_used_and_no_job_is_lost_to_its_neighbours() {
    let queueing = |name, slots, takes| Case {
        name,
        slots,
        takes,
        cancels: true,
        environments: 10,
        minutes: 80,
        share_min: 0.95,
    };
    let healthy = |name, takes| Case { environments: 3, minutes: 100, ..queueing(name, 0, takes) };
    let quick: Takes = |n, _| between(n, 2.0, 8.0);
    let slow: Takes = |n, _| between(n, 20.0, 40.0);
    let cases = [
        queueing("1 slot, calls of 2 to 8 s", 1, quick),
        queueing("4 slots, calls of 2 to 8 s", 4, quick),
        queueing("32 slots, calls of 2 to 8 s", 32, quick),
        Case { environments: 3, ..queueing("1 slot, calls of 20 to 40 s, 3 environments", 1, slow) },
        queueing("4 slots, calls of 20 to 40 s", 4, slow),
        Case { cancels: false, ..queueing("1 slot that works on when nobody waits, 2 to 8 s", 1, quick) },
        Case {
            cancels: false,
            share_min: 0.85,
            ..queueing("4 slots that work on when nobody waits, 20 to 40 s", 4, slow)
        },
        // Ten environments are too many: what waits for the others is out of time when its turn comes.
        Case { share_min: 0.5, ..queueing("1 slot, calls of 20 to 40 s", 1, slow) },
        Case {
            share_min: 0.5,
            ..queueing("4 slots, one in ten takes 60 s instead of 3", 4, |n, _| {
                Duration::from_secs(if n % 10 == 0 { 60 } else { 3 })
            })
        },
        healthy("one in five takes 60 to 110 s instead of 15", |n, _| {
            if n % 5 == 0 { between(n, 60.0, 110.0) } else { between(n, 10.0, 20.0) }
        }),
        healthy("ten minutes of 15 s, ten of 60 to 110 s", |n, at| {
            if at.as_secs() / 600 % 2 == 0 { between(n, 10.0, 20.0) } else { between(n, 60.0, 110.0) }
        }),
        healthy("15 s, and for an hour 80 to 115 s", |n, at| {
            if (10..70).contains(&(at.as_secs() / 60)) {
                between(n, 80.0, 115.0)
            } else {
                between(n, 10.0, 20.0)
            }
        }),
        healthy("15 s, and for half an hour no answer in time", |n, at| {
            if (10..40).contains(&(at.as_secs() / 60)) { 10 * MINUTE } else { between(n, 10.0, 20.0) }
        }),
        healthy("40 to 110 s, one in fifty takes too long", |n, _| {
            if n % 50 == 0 { 10 * MINUTE } else { between(n, 40.0, 110.0) }
        }),
    ];
    let mut table = String::from(
        "| server | used of its slots | answered | timed out | lost | most receives | open at once per environment at the end |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut wrong = Vec::new();
    for case in cases {
        let virtual_time =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = virtual_time.block_on(run(case));
        let share = match case.slots {
            0 => "no limit".to_owned(),
            _ => format!("{:.1} %", outcome.share * 100.0),
        };
        writeln!(
            table,
            "| {} | {share} | {} | {} | {:?} | {} | {:.1} of 10 |",
            case.name,
            outcome.answered,
            outcome.timeouts,
            outcome.lost,
            outcome.received_max,
            outcome.open_at_end
        )
        .unwrap();
        if !outcome.lost.is_empty() {
            wrong.push(format!("{}: lost {:?}", case.name, outcome.lost));
        }
        if case.slots > 0 && outcome.share < case.share_min {
            wrong.push(format!("{}: used {share}", case.name));
        }
        if case.slots == 0 && outcome.open_at_end < 5.0 {
            wrong.push(format!("{}: {:.1} open at the end", case.name, outcome.open_at_end));
        }
    }
    println!("{table}");
    assert_eq!(wrong, Vec::<String>::new(), "{table}");
}

#[test]
fn providers_that_refuse_are_used_as_before() {
    let fleet = rate_limit::Fleet {
        workers: 10,
        concurrency_max: 10,
        requests_per_minute: 300,
        tokens_per_minute: 0,
        call_ms_min: 1_000,
        call_ms_mean: 5_000,
        headers: true,
        told: true,
        minutes: 20,
        seed: 1,
    };
    for (name, fleet, refused_max) in [
        ("with headers", fleet, 0.01),
        ("without headers", rate_limit::Fleet { headers: false, ..fleet }, 0.03),
        (
            "with neither headers nor a configured limit",
            rate_limit::Fleet { headers: false, told: false, ..fleet },
            0.06,
        ),
    ] {
        let virtual_time =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let used = virtual_time.block_on(rate_limit::run(fleet));
        println!(
            "{name}: {:.1} % used, {:.2} % of {} calls refused",
            used.share * 100.0,
            used.refused * 100.0,
            used.calls
        );
        assert!(used.share >= 0.99 && used.refused <= refused_max, "{name}: {used:?}");
    }
}
