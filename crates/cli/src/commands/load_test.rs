//! `load-test`: jobs at a multiple of the expected rate, and whether the stack stands it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use nightshift_aws::OsEntropy;
use nightshift_core::cost::usd;
use nightshift_core::input_hash::InputHash;
use nightshift_core::load_test::{
    Finding, Holds, Measured, Observed, Plan, Sample, Thresholds, Verdict, grouped, judge, measure, reference,
};
use nightshift_core::task::Tasks as _;
use nightshift_ports::Entropy as _;
use nightshift_shell::settings::ProviderSettings;
use nightshift_tasks::Registry;
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::Context;
use crate::commands::enqueue;
use crate::confirm;
use crate::error::Failure;
use crate::files;
use crate::jobs_file::Draft;
use crate::ledger;
use crate::letters;
use crate::load_page;
use crate::load_watch::Watch;
use crate::receipt::{self, Entry, Receipt};
use crate::render::{Cell, Row, say};
use crate::sender::{Outgoing, Rate, Sender};
use crate::stack::{Stack, Worker};
use crate::test_jobs;
use crate::times;
use crate::trace;

/// Between two looks at the queue and the alarms.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks at an empty queue, one after the other, that are believed: SQS counts approximately.
const EMPTY_LOOKS: u32 = 2;

/// Sends jobs at a multiple of the expected rate, and says whether the stack stands it.
#[derive(Debug, Args)]
#[command(after_help = "\
Jobs are sent on a schedule that waits for nobody, and a job's latency counts from when it was due. The verdict has its
reasons; the exit code is 3 when it is no. Ctrl-C stops the sending, and the verdict is about what was sent.

It refuses a stack that holds other people's jobs: test one of its own, with the model `rehearsal`, whose faults and
latency are set in Terraform (model.id). With a real provider it wants --budget-usd. What it sends is removed at its end,
and by the next load test where it was killed.

Examples:
  nightshift --prefix load-test load-test --expected-per-hour 5000 --page report.html --yes
  nightshift load-test --expected-per-hour 5000 --factor 3 --minutes 30 --p95-s 20 --output json > report.json
  nightshift load-test --clean-up")]
pub struct Arguments {
    /// Jobs an hour that the stack is built for.
    #[arg(long, value_name = "N", required_unless_present = "clean_up", value_parser = clap::value_parser!(u64).range(1..))]
    expected_per_hour: Option<u64>,
    /// How many times that is sent.
    #[arg(long, value_name = "F", default_value_t = 2.0, value_parser = positive)]
    factor: f64,
    /// How long, after the warm-up.
    #[arg(long, value_name = "M", default_value_t = 10.0, value_parser = positive)]
    minutes: f64,
    /// Seconds at the same rate before that, which count for nothing but the cost and what is lost.
    #[arg(long, value_name = "S", default_value_t = 60)]
    warm_up_s: u64,
    /// Tasks whose examples are sent, in turn; by default all of this build.
    #[arg(long, value_name = "NAME")]
    task: Vec<String>,
    /// What the calls of a real provider may cost, in dollars; more than that is a no, too.
    #[arg(long, value_name = "USD", value_parser = positive)]
    budget_usd: Option<f64>,
    #[command(flatten)]
    thresholds: ThresholdArguments,
    /// Writes the report as one HTML page, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Only removes what a load test that was killed left.
    #[arg(long)]
    clean_up: bool,
    /// Do not ask; without a terminal nothing is sent unless this is given.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct ThresholdArguments {
    /// Share of jobs that must end with a result.
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().success_percent_min)]
    success_percent: f64,
    /// Seconds from its due time within which 95 % of the jobs must end.
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().p95_s_max)]
    p95_s: f64,
    /// The same for 99 %.
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().p99_s_max)]
    p99_s: f64,
    /// Seconds after the last send within which all must have ended; it is not looked at any longer than that.
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().drain_s_max)]
    drain_s: f64,
    /// Share of calls that the provider may refuse for its limits.
    #[arg(long, value_name = "PERCENT", default_value_t = Thresholds::default().throttled_percent_max)]
    throttled_percent: f64,
    /// Alarms that may be raised.
    #[arg(long, value_name = "N", default_value_t = Thresholds::default().alarms_max)]
    alarms: u64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0".to_owned())
}

/// All that a test says.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the stack stands it, and why.
    pub verdict: Verdict,
    /// What was sent, and when.
    pub plan: Plan,
    /// What is good enough.
    pub thresholds: Thresholds,
    /// What was measured.
    pub measured: Measured,
    /// What CloudWatch said.
    pub observed: Observed,
    /// What was tested, and by what.
    pub tested: Tested,
}

/// What was tested, and by what.
#[derive(Debug, Serialize)]
pub struct Tested {
    /// The name of this test, which stands in the references of its jobs.
    pub run: String,
    /// The start of the stack's names.
    pub stack: String,
    /// Where it is.
    pub region: String,
    /// When the first job was due, RFC 3339.
    pub began_at: String,
    /// The worker's version.
    pub worker_version: String,
    /// The version of this command.
    pub command_version: &'static str,
    /// The model's id; of the rehearsal, its latency and faults.
    pub model: String,
    /// The worker's settings that bear on load, by their names in its environment.
    pub settings: Vec<(&'static str, String)>,
}

impl Row for Finding {
    const COLUMNS: &'static [&'static str] = &["WHAT", "HOLDS", "WHY"];

    fn cells(&self) -> Vec<Cell> {
        let holds = match self.holds {
            Holds::Yes => "yes",
            Holds::No => "NO",
            Holds::Unknown => "unknown",
        };
        vec![Cell::ours(self.what), Cell::ours(holds), Cell::ours(&self.words)]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let Some(expected_per_hour) = arguments.expected_per_hour.filter(|_| !arguments.clean_up) else {
        return clean_up(arguments, context).await;
    };
    let Arguments { factor, minutes, warm_up_s, .. } = *arguments;
    let plan = Plan { expected_per_hour, factor, minutes, warm_up_s };
    if let Some(why) = plan.refused() {
        return Err(Failure::usage(why));
    }
    // Before anything is sent, so that a test of an hour does not end without its page.
    let page = arguments.page.as_deref().map(files::create_private).transpose()?;
    let tasks = my_tasks::registry();
    let stack = context.stack().await?;
    let worker = stack.worker()?;
    let jobs = Jobs::new(&arguments.task, &tasks, &worker)?;
    within_budget(&plan, &jobs, &worker, arguments.budget_usd)?;
    let left = test_jobs::left_behind(&stack).await?;
    if left.is_none() {
        test_jobs::refuse_others(&stack).await?;
    }
    confirm::ask(arguments.yes, &intent(&plan, &stack, &worker, left.is_some()))?;
    if left.is_some() {
        say("Removes what a load test that was killed left.");
        test_jobs::remove(&stack).await?;
        test_jobs::refuse_others(&stack).await?;
    }
    let trace =
        trace::begin(&stack, "load-test", &format!("a load test of {:.0} jobs an hour", plan.per_hour()))
            .await?;
    test_jobs::note(&stack, &jobs.run, false).await?;
    context.interrupt.handle();
    let test =
        Test { stack: &stack, plan: &plan, jobs: &jobs, context, drain_s_max: arguments.thresholds.drain_s };
    let ended = test.run().await;
    let ended = ended.map(|test| report(arguments, plan.clone(), test, &jobs, &stack, &worker));
    // Whatever became of the test, nothing of it stays.
    let removed = test_jobs::remove(&stack).await;
    let told = ended.and_then(|report| tell(&report, page, context));
    trace
        .end(
            &told
                .as_ref()
                .map(|passed| format!("the verdict is {}", yes_or_no(*passed)))
                .map_err(Clone::clone),
        )
        .await;
    let passed = told?;
    removed?;
    if passed { Ok(()) } else { Err(Failure::no("The verdict is no: the lines with NO say why.")) }
}

fn yes_or_no(passed: bool) -> &'static str {
    if passed { "yes" } else { "no" }
}

async fn clean_up(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    if test_jobs::left_behind(&stack).await?.is_none() {
        say("No load test left anything.");
        return Ok(());
    }
    confirm::ask(
        arguments.yes,
        &format!("Removes the messages and records of a load test from {}.", stack.named()),
    )?;
    let trace = trace::begin(&stack, "load-test --clean-up", "what a load test left").await?;
    let removed = test_jobs::remove(&stack).await;
    trace.end(&removed.clone().map(|()| "removed".to_owned())).await;
    removed
}

fn within_budget(
    plan: &Plan,
    jobs: &Jobs<'_>,
    worker: &Worker,
    budget_usd: Option<f64>,
) -> Result<(), Failure> {
    if matches!(worker.model.provider, ProviderSettings::Rehearsal(_)) {
        return Ok(());
    }
    let most_usd = usd(jobs.most_micro_usd.saturating_mul(plan.jobs()));
    match budget_usd {
        Some(budget_usd) if most_usd <= budget_usd => Ok(()),
        Some(budget_usd) => Err(Failure::usage(format!(
            "A call for each of {} jobs may cost {most_usd:.2} USD, which is more than --budget-usd {budget_usd}: send fewer, or raise it.",
            plan.jobs()
        ))),
        None => Err(Failure::usage(format!(
            "The stack calls a real model, {}: name what its {} calls may cost with --budget-usd (at most {most_usd:.2} USD if each job takes one), or test a stack with the model rehearsal.",
            crate::text::shown(&worker.model.id),
            plan.jobs()
        ))),
    }
}

fn intent(plan: &Plan, stack: &Stack, worker: &Worker, left: bool) -> String {
    format!(
        "{}Sends {} jobs to {} in {}, {:.0} an hour ({} × {}), the first {} s to warm up. The model is {}. What was sent is removed at the end.",
        if left { "Removes first what a load test that was killed left. " } else { "" },
        plan.jobs(),
        stack.named(),
        times::length(plan.duration_ms()),
        plan.per_hour(),
        plan.factor,
        plan.expected_per_hour,
        plan.warm_up_s,
        crate::text::shown(&worker.model.id),
    )
}

/// The jobs of a test: the examples of tasks in turn, each with words of its own, since equal inputs are one job.
struct Jobs<'a> {
    run: String,
    examples: Vec<(String, Value)>,
    tasks: &'a Registry,
    worker: &'a Worker,
    /// What a call for the dearest of them costs at most.
    most_micro_usd: u64,
}

impl<'a> Jobs<'a> {
    fn new(names: &[String], tasks: &'a Registry, worker: &'a Worker) -> Result<Self, Failure> {
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

/// A test that is about to run.
struct Test<'a> {
    stack: &'a Stack,
    plan: &'a Plan,
    jobs: &'a Jobs<'a>,
    context: &'a Context,
    drain_s_max: f64,
}

/// What a test saw.
struct Ended {
    began_ms: u64,
    measured: Measured,
    observed: Observed,
}

impl Test<'_> {
    async fn run(&self) -> Result<Ended, Failure> {
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
        let observed = watch.observed(self.stack, began_ms, ended_ms).await;
        Ok(Ended { began_ms, measured, observed })
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
            let (draft, key, _) = self.jobs.draft(job)?;
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
        path: &std::path::Path,
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
        let keys: Vec<_> =
            (0..offered).map(|job| self.jobs.draft(job).map(|(_, key, _)| key)).collect::<Result<_, _>>()?;
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

fn report(
    arguments: &Arguments,
    plan: Plan,
    test: Ended,
    jobs: &Jobs<'_>,
    stack: &Stack,
    worker: &Worker,
) -> Report {
    let given = &arguments.thresholds;
    let thresholds = Thresholds {
        success_percent_min: given.success_percent,
        p95_s_max: given.p95_s,
        p99_s_max: given.p99_s,
        drain_s_max: given.drain_s,
        throttled_percent_max: given.throttled_percent,
        alarms_max: given.alarms,
        cost_usd_max: arguments.budget_usd,
    };
    let limits = &worker.limits;
    let settings = vec![
        ("maximum concurrency", limits.concurrency_max.to_string()),
        ("batch size", limits.batch_size.to_string()),
        ("function timeout", times::length(limits.function_timeout_ms)),
        ("visibility timeout", times::length(limits.visibility_timeout_ms)),
        ("requests per minute", limits.requests_per_minute.to_string()),
        ("tokens per minute", limits.tokens_per_minute.to_string()),
        ("spend cap per day", format!("{:.2} USD", usd(limits.spend_cap_micro_usd))),
        ("calls per claim, paid calls per job", format!("{}, {}", limits.call_limit, limits.paid_call_limit)),
    ];
    Report {
        verdict: judge(&plan, &test.measured, &test.observed, limits, &thresholds),
        plan,
        thresholds,
        measured: test.measured,
        observed: test.observed,
        tested: Tested {
            run: jobs.run.clone(),
            stack: stack.prefix.clone(),
            region: stack.region.clone(),
            began_at: times::shown(test.began_ms),
            worker_version: stack.worker_version.clone(),
            command_version: env!("CARGO_PKG_VERSION"),
            model: worker.model.id.clone(),
            settings,
        },
    }
}

/// Writes the page and the answer; whether the verdict is yes.
fn tell(report: &Report, page: Option<File>, context: &Context) -> Result<bool, Failure> {
    if let Some(mut page) = page {
        page.write_all(load_page::of(report).as_bytes())
            .map_err(|error| Failure::failed(format!("The page cannot be written: {error}.")))?;
    }
    if context.out.is_json() {
        context.out.document(report)?;
    } else {
        context.out.all(report.verdict.findings.iter().cloned())?;
    }
    let reached = report.verdict.headroom.first();
    if let Some(first) = reached {
        say(&format!("Headroom: {} jobs an hour, by {}.", grouped(first.per_hour), first.limited.as_str()));
    }
    Ok(report.verdict.passed)
}
