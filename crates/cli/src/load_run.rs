//! A load of a test: its jobs, sent when they are due, and what became of each.

use std::path::Path;
use std::time::Duration;

use nightshift_aws::{DynamoLedger, OsEntropy};
use nightshift_core::input_hash::InputHash;
use nightshift_core::load_test::{Empty, EmptyLooks, Measured, Observed, Plan, Sample, measure, reference};
use nightshift_core::task::Tasks as _;
use nightshift_ports::Entropy as _;
use nightshift_tasks::Registry;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::Context;
use crate::again::again;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::commands::enqueue;
use crate::error::Failure;
use crate::jobs_file::Draft;
use crate::ledger;
use crate::letters;
use crate::load_watch::Watch;
use crate::receipt::{self, Entry, Receipt};
use crate::render::say;
use crate::sender::{Outgoing, Rate, Sender, Tried};
use crate::stack::{Stack, Worker};
use crate::test_lease::{HELD_FOR, Lease};
use crate::times;

/// Between two looks at the queues when all is sent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two readings of the ledger meanwhile.
const READ_EVERY: Duration = Duration::from_secs(10);

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
    /// One of each task, to see that they can be sent, and that two of them are two jobs.
    pub fn new(names: &[String], tasks: &'a Registry, worker: &'a Worker) -> Result<Self, Failure> {
        let examples = examples(names, tasks)?;
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

/// The examples of these tasks, by their names. Of all tasks, those are left out whose examples cannot be made different.
///
/// # Errors
/// When there is no such task, or its jobs would be one.
pub fn examples(names: &[String], tasks: &Registry) -> Result<Vec<(String, Value)>, Failure> {
    let all: Vec<_> = tasks.names().into_iter().map(str::to_owned).collect();
    let (names, chosen) = if names.is_empty() { (all.as_slice(), false) } else { (names, true) };
    let (mut examples, mut alike) = (Vec::new(), Vec::new());
    for name in names {
        let described = tasks.describe(name).ok_or_else(|| {
            Failure::usage(format!(
                "There is no task {}: `nightshift task list` shows all.",
                crate::text::shown(name)
            ))
        })?;
        let mut input = described.example_job.get("input").cloned().unwrap_or_default();
        if longest_text(&mut input).is_none() {
            alike.push(name.as_str());
            continue;
        }
        examples.push((name.clone(), input));
    }
    if let Some(why) = (!alike.is_empty()).then(|| alike.join(", ")) {
        let why = format!(
            "The example of {why} has no text that words of its own could be added to, so all such jobs would be one"
        );
        if chosen || examples.is_empty() {
            return Err(Failure::usage(format!("{why}: name other tasks with --task.")));
        }
        say(&format!("{why}: left out."));
    }
    Ok(examples)
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
    /// While it is ours.
    pub lease: &'a Lease,
    /// What times are told by.
    pub clock: Clock,
    /// What the calls may cost.
    pub budget: Option<Budget>,
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
    ///
    /// # Errors
    /// Also when another test took the stack over: nothing that is seen then is this one's.
    pub async fn run(&self) -> Result<Seen, Failure> {
        tokio::select! {
            biased;
            failure = self.lease.lost() => Err(failure),
            seen = self.send_and_see() => seen,
        }
    }

    async fn send_and_see(&self) -> Result<Seen, Failure> {
        let Self { stack, plan, jobs, context, clock, budget, .. } = *self;
        let folder = TempDir::new()
            .map_err(|error| Failure::failed(format!("There is no room for a receipt: {error}.")))?;
        let path = folder.path().join("receipt");
        let mut watch = Watch::new(stack, plan, clock, budget, &context.interrupt, self.first > 0).await;
        let began_ms = watch.began_ms();
        let head = receipt::head(&stack.jobs_url, jobs.run.clone(), began_ms);
        let (mut receipt, _) = Receipt::open(&path, &head)?;
        let sent = tokio::select! {
            sent = self.send(&mut receipt) => sent,
            never = watch.keep_looking() => match never {},
        };
        let stopped = context.interrupt.is_asked();
        let mut troubles = Vec::new();
        let cut = sent.is_err();
        let offered = match sent {
            Ok(()) => plan.jobs(),
            Err(failure) => {
                if !stopped {
                    let why = failure.sentence().unwrap_or_default().to_owned();
                    say(&format!("No more can be sent. {why}"));
                    troubles.push(why);
                }
                plan.due(watch.after_ms())
            }
        };
        if stopped || cut {
            say("Stopped: waits for the jobs that were sent (Ctrl-C again ends it without a verdict).");
        }
        let mut jobs = tokio::select! {
            jobs = self.sent(&path, offered, began_ms) => jobs?,
            never = watch.keep_looking() => match never {},
        };
        let held = self.drain(&mut watch, &mut jobs, &mut troubles).await;
        let ended_ms = watch.after_ms();
        // A load above the test's that was not looked after is none of which it is said that the stack held it.
        let looked_after = watch.look_after().await || self.first > 0;
        if !looked_after {
            troubles.push(
                "It was stopped before the alarms had seen what its last jobs did, so one may be raised yet."
                    .to_owned(),
            );
        }
        let (unread, untraced) = (jobs.unread, jobs.untraced.saturating_sub(held));
        let measured = measure(plan, &jobs.samples, offered, ended_ms);
        let stopped_early = measured.stopped_early || cut || !looked_after;
        let measured = Measured { stopped_early, troubles, unread, untraced, ..measured };
        let observed = watch.observed(&measured).await;
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
            // By then the lease is lost, which says more.
            out_of_reach_max: HELD_FOR,
            now_ms: &|| self.clock.now_ms(),
            interrupt: &self.context.interrupt,
            may_send: &|| self.lease.held(),
        };
        let mut job = 0;
        let next = |_: &mut Receipt| {
            if job == self.plan.jobs() {
                return Ok(None);
            }
            let (draft, key, _) = self.jobs.draft(self.first + job)?;
            job += 1;
            // Lines count from 1.
            Ok(Some(Outgoing { line: job, key: key.to_string(), draft, tried: Tried::default() }))
        };
        sender.send(next, |_| {}).await.1
    }

    /// Waits until every job has ended, or no queue holds one, or for as long as a good stack would take, and then for as long
    /// as the queues look empty and may not be. How many messages they held at last.
    async fn drain(&self, watch: &mut Watch<'_>, jobs: &mut SentJobs, troubles: &mut Vec<String>) -> u64 {
        let until = Instant::now() + Duration::from_secs_f64(self.drain_s_max.clamp(0.0, 86_400.0));
        let mut looks = EmptyLooks::new(!self.stack.is_aws());
        let mut read_at = None;
        let (mut unseen, mut held) = (None, 0);
        let mut found = Empty::No;
        let queued = loop {
            if Instant::now() >= until && found != Empty::Perhaps {
                break true;
            }
            watch.look().await;
            let queued = self.queued().await;
            unseen = queued.as_ref().err().and_then(Failure::sentence).map(str::to_owned);
            held = *queued.as_ref().unwrap_or(&held);
            found = looks.look(queued.ok(), self.clock.now_ms());
            match found {
                Empty::Surely => break false,
                // What has ended is in the ledger, and then no count is needed.
                Empty::Perhaps if read_at.is_none_or(|at: Instant| at.elapsed() >= READ_EVERY) => {
                    // What could not be read is read again at the end.
                    let _ = jobs.read(watch, true, self.clock).await;
                    if jobs.have_ended() {
                        return held;
                    }
                    read_at = Some(Instant::now());
                }
                Empty::Perhaps | Empty::No => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        troubles.extend(unseen.map(|why| format!("What the queues hold could not be seen at last. {why}")));
        if let Err(failure) = jobs.read(watch, queued, self.clock).await {
            troubles.extend(failure.sentence().map(str::to_owned));
        }
        held
    }

    /// How many messages the queues hold that a job may be in: first the one from which it may go to the other.
    async fn queued(&self) -> Result<u64, Failure> {
        let waiting = letters::look(self.stack, &self.stack.jobs_url).await?.messages;
        Ok(waiting + letters::look(self.stack, &self.stack.crashed_url()).await?.messages)
    }

    /// Each job that was due, in a test that began then.
    async fn sent(&self, path: &Path, offered: u64, began_ms: u64) -> Result<SentJobs, Failure> {
        let mut accepted = vec![None; usize::try_from(offered).unwrap_or_default()];
        let mut entries = receipt::read(path)?;
        let mut read = 0;
        while let Some(entry) = entries.next()? {
            read += 1;
            let_others_go_on(read).await;
            let Entry::Sent { line, sent_ms, .. } = entry else { continue };
            let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
            // What was taken after the stop was not due, and is removed like the others.
            if let Some(accepted) = accepted.get_mut(index) {
                *accepted = Some(sent_ms.saturating_sub(began_ms));
            }
        }
        let keys = of_each(offered, |job| self.jobs.draft(self.first + job).map(|(_, key, _)| key)).await?;
        let samples =
            accepted.into_iter().map(|accepted| Sample::of(None, accepted, began_ms, true, 0)).collect();
        Ok(SentJobs { ledger: ledger::of(self.stack), began_ms, keys, samples, unread: offered, untraced: 0 })
    }
}

/// What `make` makes of each of so many jobs.
async fn of_each<T>(jobs: u64, mut make: impl FnMut(u64) -> Result<T, Failure>) -> Result<Vec<T>, Failure> {
    let mut all = Vec::with_capacity(usize::try_from(jobs).unwrap_or_default());
    for job in 0..jobs {
        let_others_go_on(job).await;
        all.push(make(job)?);
    }
    Ok(all)
}

/// Asked after each of many things that wait for nothing: the lease is renewed on the same thread.
async fn let_others_go_on(done: u64) {
    const AT_A_TIME: u64 = 1_000;
    if done.is_multiple_of(AT_A_TIME) {
        tokio::task::yield_now().await;
    }
}

/// The jobs that were due, and what became of each as far as it was read.
struct SentJobs {
    ledger: DynamoLedger,
    began_ms: u64,
    keys: Vec<InputHash>,
    samples: Vec<Sample>,
    /// Jobs whose records could not be read.
    unread: u64,
    /// Jobs that are nowhere but, perhaps, in a queue.
    untraced: u64,
}

impl SentJobs {
    /// Reads what became of those that had not ended, while the watch goes on. `queued`: the queues may still hold some.
    async fn read(&mut self, watch: &mut Watch<'_>, queued: bool, clock: Clock) -> Result<(), Failure> {
        let open = |sample: &Sample| !sample.fate.is_settled();
        let open: Vec<_> =
            (0..).zip(&self.samples).filter(|(_, sample)| open(sample)).map(|(i, _)| i).collect();
        let keys: Vec<_> = open.iter().filter_map(|index: &usize| self.keys.get(*index).cloned()).collect();
        let (began_ms, now_ms) = (self.began_ms, clock.now_ms());
        let (mut read, mut untraced) = (0, 0);
        let ended = {
            let reading = again(async || {
                let left = keys.get(read..).unwrap_or_default();
                ledger::read_each(&self.ledger, left, |_, found| {
                    let sample = open.get(read).and_then(|index| self.samples.get_mut(*index));
                    if let Some(sample) = sample {
                        let is_untraced = queued && Sample::is_untraced(found.record(), now_ms);
                        untraced += u64::from(is_untraced && sample.accepted_ms.is_some());
                        *sample = Sample::of(found.record(), sample.accepted_ms, began_ms, queued, now_ms);
                    }
                    read += 1;
                    Ok(())
                })
                .await
            });
            tokio::select! {
                ended = reading => ended,
                never = watch.keep_looking() => match never {},
            }
        };
        self.unread = keys.len().saturating_sub(read) as u64;
        self.untraced = untraced;
        ended
    }

    /// Whether nothing more will happen to any of those that SQS took.
    fn have_ended(&self) -> bool {
        self.unread == 0
            && self.samples.iter().all(|sample| sample.accepted_ms.is_none() || sample.fate.is_settled())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_due_on_the_same_thread_is_done_while_the_keys_of_many_jobs_are_made() {
        let ticks = Arc::new(AtomicU32::new(0));
        let ticker = tokio::spawn({
            let ticks = Arc::clone(&ticks);
            async move {
                loop {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    ticks.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        // Each thousand takes longer than the ticker sleeps.
        let key = |job| {
            std::thread::sleep(Duration::from_micros(2));
            Ok(job)
        };
        let keys = of_each(10_000, key).await.unwrap();
        ticker.abort();
        assert_eq!(keys.len(), 10_000);
        assert!(ticks.load(Ordering::Relaxed) >= 3, "{ticks:?}");
    }

    #[test]
    fn a_job_gets_words_of_its_own_in_its_longest_text_if_it_has_one() {
        for (input, expected) in [
            (json!({"a": "xy", "b": ["x", "xyz"], "n": 1}), Some("xyz")),
            (json!("x"), Some("x")),
            (json!({"n": 1, "yes": true, "of": [1, null]}), None),
            (json!(1), None),
        ] {
            assert_eq!(longest_text(&mut input.clone()).map(|text| text.as_str()), expected, "{input}");
        }
    }
}
