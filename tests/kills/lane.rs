//! One process at a time, with a model of its own, so that every open call belongs to a known process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nightshift_core::split_mix::SplitMix64;
use nightshift_local::lambda::{EventSource, Function, InvocationResult, Lambda, LambdaEvent, LambdaStats};
use nightshift_local::model_stub::{Faults, ModelStub, StubSettings};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, sleep, timeout};

use crate::books::{Books, Counts, Seen, add, growth, seen};
use crate::jobs::Jobs;
use crate::stack::{MAX_RECEIVE_COUNT, REGION, Stack, text};

/// The shortest timeout that a call, its deadline margin and the least visibility of six times it leave room for: what a
/// killed process had comes back only after the visibility timeout.
pub const FUNCTION_TIMEOUT_S: u64 = 3;
pub const VISIBILITY_S: u64 = 6 * FUNCTION_TIMEOUT_S;
const CALL_TIMEOUT_MS: u64 = 1_000;
const BATCH: u32 = 5;
/// A slow answer takes twenty times this: longer than a call may take, so that no answer comes at the very timeout.
const LATENCY_MS: std::ops::RangeInclusive<u64> = 60..=120;
/// Kills are random here, so a harmless job may be the only one in several processes that die, and each time its open
/// call may have been billed. With the usual limits (3 deaths, 6 calls) it would rightly become a dead letter, `poison` or
/// `attempts_exhausted`, and the run would no longer show whether it survives. No job can reach these.
const CRASH_LIMIT: u64 = 500;
const PAID_CALL_LIMIT: u64 = 500;
/// How long a killed process may take to be gone, beside a compiler.
const END_MAX: Duration = Duration::from_secs(20);

/// What decides when which process is killed.
pub struct Plan {
    /// Decides faults, answers and times.
    pub seed: u64,
    pub kills: u64,
    /// Kills so far, of all lanes.
    pub killed: AtomicU64,
    /// Set when the queue is empty.
    pub stop: AtomicBool,
}

pub struct Lane {
    lambda: Lambda,
    events: Receiver<LambdaEvent>,
    pub stub: Arc<ModelStub>,
    stack: Stack,
    jobs: Arc<Jobs>,
    books: Arc<Mutex<Books>>,
    /// As the stub stood when the last process ended.
    last: Seen,
}

impl Lane {
    pub async fn start(
        program: &Path,
        stack: &Stack,
        jobs: &Arc<Jobs>,
        books: &Arc<Mutex<Books>>,
        seed: u64,
    ) -> Self {
        let settings =
            StubSettings { seed, faults: Faults::Storm, latency_ms: LATENCY_MS, ..StubSettings::default() };
        let stub = ModelStub::start(settings).await.unwrap();
        let mut function = Function::new("kills-worker", program);
        function.timeout = Duration::from_secs(FUNCTION_TIMEOUT_S);
        let endpoints = &stack.endpoints;
        for (name, value) in [
            ("AWS_ENDPOINT_URL_SQS", endpoints.sqs.clone()),
            ("AWS_ENDPOINT_URL_DYNAMODB", endpoints.dynamodb.clone()),
            ("AWS_ENDPOINT_URL_CLOUDWATCH", endpoints.cloudwatch.clone()),
            ("NIGHTSHIFT_STACK", "kills".to_owned()),
            ("NIGHTSHIFT_JOBS_URL", stack.jobs_url.clone()),
            ("NIGHTSHIFT_DEAD_LETTERS_URL", stack.dead_letters_url.clone()),
            ("NIGHTSHIFT_LEDGER_TABLE", stack.ledger().to_owned()),
            ("NIGHTSHIFT_PROVIDER", "anthropic".to_owned()),
            ("NIGHTSHIFT_MODEL", "claude-sonnet-4-5".to_owned()),
            ("NIGHTSHIFT_MODEL_KEY", "key-of-the-kill-test".to_owned()),
            ("NIGHTSHIFT_MODEL_BASE_URL", stub.base_url()),
            ("NIGHTSHIFT_CALL_TIMEOUT_MS", CALL_TIMEOUT_MS.to_string()),
            ("NIGHTSHIFT_PAID_CALL_LIMIT", PAID_CALL_LIMIT.to_string()),
            ("NIGHTSHIFT_CRASH_LIMIT", CRASH_LIMIT.to_string()),
            ("NIGHTSHIFT_BACKOFF_BASE_MS", "50".to_owned()),
            ("NIGHTSHIFT_BACKOFF_MS_MAX", "500".to_owned()),
            ("NIGHTSHIFT_HAND_BACK_BASE_MS", "1000".to_owned()),
            ("NIGHTSHIFT_HAND_BACK_MS_MAX", "4000".to_owned()),
            ("NIGHTSHIFT_CAPACITY_WAIT_MS_MAX", "180000".to_owned()),
            ("NIGHTSHIFT_DEADLINE_MARGIN_MS", "1000".to_owned()),
            ("NIGHTSHIFT_LEASE_MARGIN_MS", "500".to_owned()),
            ("NIGHTSHIFT_FUNCTION_TIMEOUT_MS", (FUNCTION_TIMEOUT_S * 1_000).to_string()),
            ("NIGHTSHIFT_VISIBILITY_TIMEOUT_MS", (VISIBILITY_S * 1_000).to_string()),
            ("NIGHTSHIFT_MAX_RECEIVE_COUNT", MAX_RECEIVE_COUNT.to_string()),
            ("NIGHTSHIFT_BATCH_SIZE", BATCH.to_string()),
            ("NIGHTSHIFT_SPEND_CAP_USD_PER_DAY", "10000".to_owned()),
        ] {
            function = function.with_variable(name, value);
        }
        let source = EventSource {
            endpoint_url: endpoints.sqs.clone(),
            region: REGION.to_owned(),
            queue_url: stack.jobs_url.clone(),
            batch_size: BATCH,
            window: Duration::ZERO,
            maximum_concurrency: 1,
        };
        let (lambda, events) = Lambda::start(function, source).await.unwrap();
        Self {
            lambda,
            events,
            stub: Arc::new(stub),
            stack: stack.clone(),
            jobs: Arc::clone(jobs),
            books: Arc::clone(books),
            last: Seen::new(),
        }
    }

    /// Kills by the plan until the queue is empty; returns Lambda's counts and leaves no process.
    pub async fn run(mut self, plan: Arc<Plan>, mut dice: SplitMix64) -> LambdaStats {
        loop {
            // Sometimes at once, so that a fresh process is hit too; sometimes long enough for whole batches.
            let pause = Duration::from_millis(dice.bits() % 1_800);
            if !self.work_for(pause, &plan).await {
                break;
            }
            if plan.killed.load(Ordering::SeqCst) >= plan.kills || !self.wait_for_open_call(&plan).await {
                continue;
            }
            // Anywhere in a call, and in the writes behind it.
            sleep(Duration::from_millis(dice.bits() % *LATENCY_MS.end())).await;
            self.kill(&plan).await;
        }
        let stats = self.lambda.stop().await;
        while let Ok(event) = self.events.try_recv() {
            if let LambdaEvent::Log(line) = event {
                self.books.lock().unwrap().log(&line.line);
            }
        }
        stats
    }

    /// Lets the process work, and keeps its log; `false` when all is done.
    async fn work_for(&mut self, pause: Duration, plan: &Plan) -> bool {
        let until = Instant::now() + pause;
        loop {
            if plan.stop.load(Ordering::SeqCst) {
                return false;
            }
            // Short steps, so that the end is seen soon.
            let step = (until - Instant::now()).min(Duration::from_millis(50));
            if let Ok(event) = timeout(step, self.events.recv()).await {
                let before = self.last.clone();
                self.event(event.unwrap(), &before, false).await;
            }
            if Instant::now() >= until {
                return true;
            }
        }
    }

    async fn wait_for_open_call(&mut self, plan: &Plan) -> bool {
        while !plan.stop.load(Ordering::SeqCst) {
            if self.stub.stats().open > 0 {
                return true;
            }
            if let Ok(event) = timeout(Duration::from_millis(5), self.events.recv()).await {
                let before = self.last.clone();
                self.event(event.unwrap(), &before, false).await;
            }
        }
        false
    }

    /// Kills the process if it has a call open at this moment.
    async fn kill(&mut self, plan: &Plan) {
        let before = seen(self.stub.requests());
        let Some(busy) = self.lambda.environments().into_iter().find(|environment| environment.busy) else {
            return;
        };
        if before.values().all(|request| request.open == 0) || !self.lambda.kill(busy.environment) {
            return;
        }
        // When lanes are equally fast at the end, there may be one or two more than planned.
        plan.killed.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + END_MAX;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            let event = event.expect("the killed process did not end").unwrap();
            if self.event(event, &before, true).await == Some(busy.environment) {
                return;
            }
        }
    }

    /// Keeps the books; says which environment ended, if one did.
    async fn event(&mut self, event: LambdaEvent, before: &Seen, by_plan: bool) -> Option<u64> {
        match event {
            LambdaEvent::Log(line) => self.books.lock().unwrap().log(&line.line),
            LambdaEvent::Ended { environment, .. } => {
                self.account(before, by_plan).await;
                return Some(environment);
            }
            LambdaEvent::Invocation(report) => match report.result {
                InvocationResult::InitFailed(why) => panic!("the function did not start: {why}"),
                InvocationResult::FunctionError(why) | InvocationResult::InvalidAnswer(why) => {
                    panic!("the invocation failed as a whole: {why}")
                }
                InvocationResult::Answered { .. }
                | InvocationResult::TimedOut
                | InvocationResult::Crashed => {}
            },
            LambdaEvent::Trouble(what) => panic!("{what}"),
            LambdaEvent::Started { .. } => {}
        }
        None
    }

    /// A process has ended: what it had open, and what it had been told but not stored.
    async fn account(&mut self, before: &Seen, by_plan: bool) {
        // The stub learns of closed connections a moment later, and nobody else calls for these inputs before their leases end.
        let mut now = seen(self.stub.requests());
        let cut = now.values().filter(|request| request.open > 0).map(|request| request.text.clone());
        let cut: Vec<String> = cut.collect();
        let deadline = Instant::now() + END_MAX;
        while cut.iter().any(|prompt| now[prompt].open > 0) && Instant::now() < deadline {
            sleep(Duration::from_millis(2)).await;
            now = seen(self.stub.requests());
        }
        let cut_off = growth(before, &now, |request| request.abandoned);
        let answered = growth(&self.last, &now, |request| request.valid_answers);
        let mut lost = Counts::new();
        for (prompt, answers) in answered {
            let key = self.jobs.key_by_prompt.get(&prompt).expect("a prompt that no job makes");
            let record = self.stack.record(key).await;
            if record.is_none_or(|record| text(&record, "state") != "done") {
                lost.insert(prompt, answers);
            }
        }
        self.last = now;
        let mut books = self.books.lock().unwrap();
        if by_plan {
            books.kills += 1;
        } else {
            books.timeouts += 1;
        }
        for (prompt, calls) in cut_off {
            assert!(!by_plan || calls == 1, "one process had {calls} calls open for one input");
            add(&mut books.open_at_kills, prompt, calls);
        }
        for (prompt, answers) in lost {
            add(&mut books.lost_answers, prompt, answers);
        }
    }
}
