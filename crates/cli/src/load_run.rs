//! A load of a test: its jobs, sent when they are due, and what became of each.

use std::path::Path;
use std::time::Duration;

use nightshift_aws::OsEntropy;
use nightshift_core::input_hash::InputHash;
use nightshift_core::load_test::{Measured, Observed, Plan, Sample, measure, reference};
use nightshift_core::task::Tasks as _;
use nightshift_ports::Entropy as _;
use nightshift_tasks::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::Context;
use crate::commands::enqueue;
use crate::error::Failure;
use crate::jobs_file::Draft;
use crate::ledger;
use crate::letters;
use crate::load_watch::Watch;
use crate::receipt::{self, Entry, Receipt};
use crate::render::say;
use crate::sender::{Outgoing, Rate, Sender};
use crate::stack::{Stack, Worker};
use crate::times;

/// Between two looks at the queue and the alarms.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks at an empty queue, one after the other, that are believed: SQS counts approximately.
const EMPTY_LOOKS: u32 = 2;

/// The jobs of a test: the examples of tasks in turn, each with words of its own, since equal inputs are one job.
pub struct Jobs<'a> {
    /// The name of the test, which stands in their references.
    pub run: String,
    examples: Vec<(String, Value)>,
    tasks: &'a Registry,
    worker: &'a Worker,
    /// What a call for the dearest of them costs at most.
    pub most_micro_usd: u64,
}

impl<'a> Jobs<'a> {
    /// One of each task, to see that they can be sent.
    pub fn new(names: &[String], tasks: &'a Registry, worker: &'a Worker) -> Result<Self, Failure> {
        let all: Vec<_> = tasks.names().into_iter().map(str::to_owned).collect();
        let names = if names.is_empty() { all.as_slice() } else { names };
        let mut examples = Vec::new();
        for name in names {
            let described = tasks.describe(name).ok_or_else(|| {
                Failure::usage(format!(
                    "There is no task {}: nightshift task list shows all.",
                    crate::text::shown(name)
                ))
            })?;
            examples.push((name.clone(), described.example_job.get("input").cloned().unwrap_or_default()));
        }
        let run = format!("{}-{}", times::now_ms(), OsEntropy.token().get(..8).unwrap_or_default());
        let mut jobs = Self { run, examples, tasks, worker, most_micro_usd: 0 };
        for job in 0..jobs.examples.len() as u64 {
            let (_, _, most_micro_usd) = jobs.draft(job)?;
            jobs.most_micro_usd = jobs.most_micro_usd.max(most_micro_usd);
        }
        Ok(jobs)
    }

    /// The job of this number, its key, and what a call for it costs at most.
    fn draft(&self, job: u64) -> Result<(Draft, InputHash, u64), Failure> {
        let index = usize::try_from(job).unwrap_or_default() % self.examples.len().max(1);
        let (task, mut input) = self.examples.get(index).cloned().unwrap_or_default();
        if let Some(text) = longest_text(&mut input) {
            text.push_str(&format!(" (load test {}, job {job})", self.run));
        }
        let body = json!({"task": task, "input": input, "reference": reference(&self.run, job)}).to_string();
        enqueue::judge(Ok(Draft { body, group: None }), self.tasks, self.worker).map_err(|(reason, detail)| {
            Failure::usage(format!(
                "The example of {task} cannot be sent with words of its own ({reason}: {detail}): name other tasks with --task."
            ))
        })
    }
}

/// Where the words go that make a job its own.
fn longest_text(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::String(text) => Some(text),
        Value::Array(items) => items.iter_mut().filter_map(longest_text).max_by_key(|text| text.len()),
        Value::Object(members) => members.values_mut().filter_map(longest_text).max_by_key(|text| text.len()),
        _ => None,
    }
}

/// A load that is about to be sent.
pub struct Load<'a> {
    /// To which stack.
    pub stack: &'a Stack,
    /// When what is sent.
    pub plan: &'a Plan,
    /// Of these jobs.
    pub jobs: &'a Jobs<'a>,
    /// The number of the first: what was sent before has another one.
    pub first: u64,
    /// Whether somebody stops it.
    pub context: &'a Context,
    /// How long the end of all is waited for, in seconds after the last send.
    pub drain_s_max: f64,
}

/// What was seen.
pub struct Seen {
    /// When the first job was due, in milliseconds since 1970.
    pub began_ms: u64,
    /// By the ledger.
    pub measured: Measured,
    /// By CloudWatch.
    pub observed: Observed,
}

impl Load<'_> {
    /// Sends all of it, waits for its end, and says what became of each job.
    pub async fn run(&self) -> Result<Seen, Failure> {
        let folder = TempDir::new()
            .map_err(|error| Failure::failed(format!("There is no room for a receipt: {error}.")))?;
        let path = folder.path().join("receipt");
        let mut watch = Watch::new(self.stack).await;
        let began_ms = times::now_ms();
        let head = receipt::head(&self.stack.jobs_url, self.jobs.run.clone(), began_ms);
        let (mut receipt, _) = Receipt::open(&path, &head)?;
        let sent = {
            let sending = self.send(&mut receipt);
            tokio::pin!(sending);
            loop {
                tokio::select! {
                    sent = &mut sending => break sent,
                    () = tokio::time::sleep(LOOK_EVERY) => watch.look(self.stack, self.plan, &self.jobs.run, began_ms).await,
                }
            }
        };
        let stopped = self.context.interrupt.is_asked();
        let offered = match sent {
            Ok(()) => self.plan.jobs(),
            Err(_) if stopped => self.plan.due(times::now_ms().saturating_sub(began_ms)),
            Err(failure) => return Err(failure),
        };
        if stopped {
            say("Stopped: waits for the jobs that were sent (Ctrl-C again ends it without a verdict).");
        }
        let queued = self.drain(&mut watch, began_ms).await?;
        let ended_ms = times::now_ms();
        let samples = self.samples(&path, offered, began_ms, queued).await?;
        let measured = measure(self.plan, &samples, offered, ended_ms.saturating_sub(began_ms));
        let observed = watch.observed(self.stack, began_ms, ended_ms).await.unless_behind(&measured);
        Ok(Seen { began_ms, measured, observed })
    }

    async fn send(&self, receipt: &mut Receipt) -> Result<(), Failure> {
        let client = aws_sdk_sqs::Client::new(&self.stack.sdk);
        let together = usize::try_from(self.plan.group()).unwrap_or(1);
        let mut sender = Sender {
            client: &client,
            queue_url: &self.stack.jobs_url,
            receipt,
            rate: Rate::Open { per_second: self.plan.per_second(), together },
            interrupt: &self.context.interrupt,
        };
        let mut job = 0;
        let next = |_: &mut Receipt| {
            if job == self.plan.jobs() {
                return Ok(None);
            }
            let (draft, key, _) = self.jobs.draft(self.first + job)?;
            job += 1;
            // Lines count from 1.
            Ok(Some(Outgoing { line: job, key: key.to_string(), draft, attempts: 0 }))
        };
        sender.send(next, |_| {}).await.1
    }

    /// Waits until the queue is empty, or for as long as a good stack would take. Whether anything may still be queued.
    async fn drain(&self, watch: &mut Watch, began_ms: u64) -> Result<bool, Failure> {
        let until = Instant::now() + Duration::from_secs_f64(self.drain_s_max.clamp(0.0, 86_400.0));
        let mut empty = 0;
        while empty < EMPTY_LOOKS {
            if Instant::now() >= until {
                return Ok(true);
            }
            watch.look(self.stack, self.plan, &self.jobs.run, began_ms).await;
            let crashed = letters::look(self.stack, &self.stack.crashed_url()).await?.messages;
            let left = letters::look(self.stack, &self.stack.jobs_url).await?.messages + crashed;
            empty = if left == 0 { empty + 1 } else { 0 };
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(false)
    }

    /// What became of each job that was due.
    async fn samples(
        &self,
        path: &Path,
        offered: u64,
        began_ms: u64,
        queued: bool,
    ) -> Result<Vec<Sample>, Failure> {
        let mut accepted = vec![None; usize::try_from(offered).unwrap_or_default()];
        let mut entries = receipt::read(path)?;
        while let Some(entry) = entries.next()? {
            let Entry::Sent { line, sent_ms, .. } = entry else { continue };
            let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            // What was taken after the stop was not due, and is removed like the others.
            if let Some(accepted) = accepted.get_mut(index) {
                *accepted = Some(sent_ms.saturating_sub(began_ms));
            }
        }
        let keys: Vec<_> = (0..offered)
            .map(|job| self.jobs.draft(self.first + job).map(|(_, key, _)| key))
            .collect::<Result<_, _>>()?;
        let mut samples = Vec::with_capacity(keys.len());
        let mut accepted = accepted.into_iter();
        let now_ms = times::now_ms();
        ledger::read_each(&ledger::of(self.stack), &keys, |_, found| {
            samples.push(Sample::of(found.record(), accepted.next().flatten(), began_ms, queued, now_ms));
            Ok(())
        })
        .await?;
        Ok(samples)
    }
}
