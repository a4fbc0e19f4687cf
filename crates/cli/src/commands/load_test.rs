//! `load-test`: jobs at a multiple of the expected rate, and whether the stack stands it.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use nightshift_core::cost::usd;
use nightshift_core::load_test::{Ended, Finding, Holds, JOBS_MAX, Plan, Step, Thresholds, judge, next};
use nightshift_load_report::{Report, Tested, settings};
use nightshift_shell::settings::ProviderSettings;

use crate::Context;
use crate::confirm;
use crate::error::Failure;
use crate::examine;
use crate::files;
use crate::load_run::{Jobs, Load, Seen};
use crate::render::{Cell, Row, say};
use crate::stack::{Stack, Worker};
use crate::test_jobs;
use crate::times;
use crate::trace;

/// What a Ctrl-C leaves that nobody waits for.
fn left_words(stack: &Stack) -> String {
    format!("{} removes what is left of it", test_jobs::clean_up_command(stack))
}

/// Sends jobs at a multiple of the expected rate, and says whether the stack stands it.
#[derive(Debug, Args)]
#[command(after_help = "\
Jobs are sent on a schedule that waits for nobody, and a job's latency counts from when it was due. The verdict has its \
reasons; the exit code is 3 when it is no. Ctrl-C stops the sending, and the verdict is about what was sent.

It refuses a stack that holds other people's jobs: test one of its own, with the model `rehearsal`, whose faults and \
latency are set in Terraform (model.id). With a real provider it wants --budget-usd. What it sends is removed at its end, \
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
    /// After a test that went well, raises the rate by half, for so long each, until something gives; else the headroom is
    /// computed.
    #[arg(long, value_name = "M", value_parser = positive)]
    step_minutes: Option<f64>,
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
    let tasks = my_tasks::registry();
    let stack = context.stack().await?;
    let told = stack.worker()?;
    let worker = Worker { limits: examine::limits(&stack, &told.limits).await?, ..told.clone() };
    if worker.limits != told.limits {
        say(
            "The queue or its event source is not set as the worker is told: nightshift doctor says what differs, and what to do.",
        );
    }
    let jobs = Jobs::new(&arguments.task, &tasks, &worker)?;
    let jobs_max = within_budget(&plan, &jobs, &worker, arguments.budget_usd)?;
    let left = test_jobs::left_behind(&stack).await?;
    if left.is_none() {
        test_jobs::refuse_others(&stack).await?;
    }
    confirm::ask(arguments.yes, &intent(&plan, &stack, &worker, left.is_some())).await?;
    context.interrupt.leaves(left_words(&stack));
    if left.is_some() {
        say("Removes what a load test that was killed left.");
        test_jobs::remove(&stack).await?;
        test_jobs::refuse_others(&stack).await?;
    }
    // Before anything is sent, so that a test of an hour does not end without its page; and after what refuses one, which would
    // leave an empty page in the way of the next.
    let page = arguments.page.as_deref().map(files::create_private).transpose()?;
    let trace =
        trace::begin(&stack, "load-test", &format!("a load test of {:.0} jobs an hour", plan.per_hour()))
            .await?;
    test_jobs::note(&stack, &jobs.run, false).await?;
    context.interrupt.handle(left_words(&stack));
    let test =
        Test { arguments, plan: &plan, jobs: &jobs, jobs_max, stack: &stack, worker: &worker, context };
    let ended = test.run().await;
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
    )
    .await?;
    context.interrupt.leaves(left_words(&stack));
    let trace = trace::begin(&stack, "load-test --clean-up", "what a load test left").await?;
    let removed = test_jobs::remove(&stack).await;
    trace.end(&removed.clone().map(|()| "removed".to_owned())).await;
    removed
}

/// How many jobs may be sent in all.
fn within_budget(
    plan: &Plan,
    jobs: &Jobs<'_>,
    worker: &Worker,
    budget_usd: Option<f64>,
) -> Result<u64, Failure> {
    if matches!(worker.model.provider, ProviderSettings::Rehearsal(_)) {
        return Ok(JOBS_MAX);
    }
    let most_usd = usd(jobs.most_micro_usd.saturating_mul(plan.jobs()));
    match budget_usd {
        Some(budget_usd) if most_usd <= budget_usd => {
            Ok((budget_usd / usd(jobs.most_micro_usd)).min(JOBS_MAX as f64) as u64)
        }
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

/// A test that is about to run.
struct Test<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan,
    jobs: &'a Jobs<'a>,
    jobs_max: u64,
    stack: &'a Stack,
    worker: &'a Worker,
    context: &'a Context,
}

impl Test<'_> {
    async fn run(&self) -> Result<Report, Failure> {
        let seen = self.load(self.plan, 0).await?;
        let above = self.raise(&seen).await?;
        Ok(self.report(seen, above))
    }

    async fn load(&self, plan: &Plan, first: u64) -> Result<Seen, Failure> {
        let Self { jobs, stack, context, .. } = *self;
        Load { stack, plan, jobs, first, context, drain_s_max: self.arguments.thresholds.drain_s }.run().await
    }

    fn step(&self, plan: &Plan, seen: &Seen) -> Step {
        Step::of(plan, &seen.measured, &seen.observed, &self.worker.limits, &self.thresholds())
    }

    /// Loads above the one of the test, until something gives.
    async fn raise(&self, seen: &Seen) -> Result<(Vec<Step>, Ended), Failure> {
        let Some(minutes) = self.arguments.step_minutes else { return Ok((Vec::new(), Ended::NotAsked)) };
        let mut steps = vec![self.step(self.plan, seen)];
        let mut sent = self.plan.jobs();
        let ended = loop {
            if self.context.interrupt.is_asked() {
                break Ended::Stopped;
            }
            let plan = match next(self.plan, minutes, &steps, self.jobs_max.saturating_sub(sent)) {
                Ok(plan) => plan,
                Err(ended) => break ended,
            };
            say(&format!("Raises the load to {:.0} jobs an hour.", plan.per_hour()));
            let seen = self.load(&plan, sent).await?;
            sent += plan.jobs();
            // What was stopped says nothing of its load.
            if !seen.measured.stopped_early {
                steps.push(self.step(&plan, &seen));
            }
        };
        Ok((steps.split_off(1), ended))
    }

    fn thresholds(&self) -> Thresholds {
        let given = &self.arguments.thresholds;
        Thresholds {
            success_percent_min: given.success_percent,
            p95_s_max: given.p95_s,
            p99_s_max: given.p99_s,
            drain_s_max: given.drain_s,
            throttled_percent_max: given.throttled_percent,
            alarms_max: given.alarms,
            cost_usd_max: self.arguments.budget_usd,
        }
    }

    fn report(&self, seen: Seen, above: (Vec<Step>, Ended)) -> Report {
        let (stack, limits, thresholds) = (self.stack, &self.worker.limits, self.thresholds());
        Report {
            verdict: judge(self.plan, &seen.measured, &seen.observed, limits, &thresholds, above),
            plan: self.plan.clone(),
            thresholds,
            measured: seen.measured,
            observed: seen.observed,
            tested: Tested {
                run: self.jobs.run.clone(),
                stack: stack.prefix.clone(),
                region: stack.region.clone(),
                began_at: times::shown(seen.began_ms),
                worker_version: stack.worker_version.clone(),
                command_version: env!("CARGO_PKG_VERSION"),
                model: self.worker.model.id.clone(),
                settings: settings(limits),
            },
        }
    }
}

/// Writes the page and the answer; whether the verdict is yes.
fn tell(report: &Report, page: Option<File>, context: &Context) -> Result<bool, Failure> {
    if let Some(mut page) = page {
        page.write_all(report.page().as_bytes())
            .map_err(|error| Failure::failed(format!("The page cannot be written: {error}.")))?;
    }
    if context.out.is_json() {
        context.out.document(report)?;
    } else {
        context.out.all(report.verdict.findings.iter().cloned())?;
    }
    Ok(report.verdict.passed)
}
