//! `load-test`: jobs at a multiple of the expected rate, and whether the stack stands it.

use std::path::PathBuf;

use clap::Args;
use nightshift_aws::OsEntropy;
use nightshift_core::cost::usd;
use nightshift_core::load_test::{
    Above, Ended, Finding, Holds, JOBS_MAX, Plan, Step, Thresholds, grouped, judge, next,
};
use nightshift_load_report::{Report, Tested, settings};
use nightshift_models::RehearsalSpec;
use nightshift_ports::{ControlRecord as _, Entropy as _};
use nightshift_shell::settings::ProviderSettings;
use nightshift_tasks::Registry;

use crate::Context;
use crate::budget::Budget;
use crate::clock::Clock;
use crate::confirm;
use crate::control;
use crate::error::{self, Failure};
use crate::examine;
use crate::files::Promised;
use crate::ledger;
use crate::letters;
use crate::load_run::{self, Jobs, Load, Seen};
use crate::mapping::Mapping;
use crate::render::{Cell, Row, say};
use crate::stack::{Stack, Worker};
use crate::test_jobs::{self, Removed};
use crate::test_lease::{self, Lease};
use crate::times;
use crate::trace::{self, Trace};

/// What a Ctrl-C leaves that nobody waits for.
fn left_words(stack: &Stack) -> String {
    format!("{} removes what is left of it, and {}", test_jobs::clean_up_command(stack), letters::LEFT)
}

/// Sends jobs at a multiple of the expected rate, and says whether the stack stands it.
#[derive(Debug, Args)]
#[command(after_help = "\
Jobs are sent on a schedule that waits for nobody, and a job's latency counts from when it was due. The verdict has its \
reasons; the exit code is 3 when it is no. Ctrl-C stops the sending, and the verdict is about what was sent.

It refuses a stack that holds other people's jobs: test one of its own. In the repository, `scripts/load-test` with the \
same flags makes one, tests it and takes it away, Ctrl-C included: on AWS, or with --local on this machine. Its model is \
`rehearsal`, which costs nothing; --model says how that behaves and fails. With a real provider it wants --budget-usd. What \
is sent is removed at the end, and by the next load test where this one was killed.

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
    /// What all calls may cost, in dollars: needed for a real provider; no more is sent once the ledger says that it is spent.
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
    /// Only says what of this cannot be, and asks no stack.
    #[arg(long, hide = true, conflicts_with = "clean_up")]
    check: bool,
    /// How the rehearsal of the stack that is to be made behaves, for --check.
    #[arg(long, hide = true, requires = "check", value_parser = rehearsal)]
    check_model: Option<String>,
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
    /// Seconds after the last send within which all must have ended. It is looked at no longer, unless the queues look empty:
    /// two minutes of that are sure.
    #[arg(long, value_name = "S", default_value_t = Thresholds::default().drain_s_max)]
    drain_s: f64,
    /// Seconds from its due time within which SQS must have taken 99 % of the jobs, or the load was a lower one; by default a
    /// twentieth of the test, from 1 to 30.
    #[arg(long, value_name = "S")]
    send_delay_s: Option<f64>,
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
    if arguments.check {
        return check(arguments, &tasks);
    }
    let stack = context.stack().await.map_err(or_make_one)?;
    let told = stack.worker()?;
    let worker = Worker { limits: examine::limits(&stack, &told.limits).await?, ..told.clone() };
    if worker.limits != told.limits {
        say(
            "The queue, its event source or the account is not set as the worker is told: `nightshift doctor` says what differs, and what to do.",
        );
    }
    let jobs = Jobs::new(&arguments.task, &tasks, &worker)?;
    within_budget(&plan, &jobs, &worker, arguments.budget_usd)?;
    let clock = Clock::of_aws(&stack).await?;
    let left = test_lease::left_behind(&stack, clock).await?;
    refuse_held_back(&stack).await?;
    let known = test_lease::is_known(left.as_ref());
    if !known {
        test_jobs::refuse_others(&stack).await?;
    }
    confirm::ask(arguments.yes, &intent(&plan, &stack, &worker, known)).await?;
    context.interrupt.leaves(left_words(&stack));
    let lease = Lease::take(&stack, clock, &jobs.run, left, true).await?;
    let why = format!("a load test of {} jobs an hour", grouped(plan.per_hour()));
    let (lease, trace) = traced(&stack, lease, known, "load-test", &why).await?;
    let (plan, jobs, stack, worker) = (&plan, &jobs, &stack, &worker);
    let test = Test { arguments, plan, jobs, stack, worker, context, lease: &lease, clock };
    let (told, removed) = test.all(known).await;
    let removed = match removed {
        Ok(()) => lease.end().await,
        left => left,
    };
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

fn or_make_one(failure: Failure) -> Failure {
    if !failure.is_not_found() {
        return failure;
    }
    failure.or("have `scripts/load-test` in the repository make one, test it and take it away")
}

fn rehearsal(spec: &str) -> Result<String, String> {
    RehearsalSpec::parse(spec).map(|_| spec.to_owned()).map_err(|error| error.to_string())
}

fn check(arguments: &Arguments, tasks: &Registry) -> Result<(), Failure> {
    load_run::examples(&arguments.task, tasks)?;
    arguments.page.as_deref().map(Promised::create).transpose().map(|_| ())
}

/// Begins a trace under the lease, which ends where that fails. `known`: another test left something, and the lease still says
/// so.
async fn traced(
    stack: &Stack,
    lease: Lease,
    known: bool,
    what: &str,
    why: &str,
) -> Result<(Lease, Trace), Failure> {
    match trace::begin(stack, what, why).await {
        Ok(trace) => Ok((lease, trace)),
        Err(failure) => {
            if !known {
                lease.end().await?;
            }
            Err(failure)
        }
    }
}

/// Removes all tests' jobs, while the lease is ours. `known`: a test is known to have left some.
async fn remove(stack: &Stack, lease: &Lease, known: bool) -> Result<Removed, Failure> {
    tokio::select! {
        biased;
        failure = lease.lost() => Err(failure),
        removed = test_jobs::remove(stack, lease, known) => removed,
    }
}

/// Refuses a stack that is paused or comes back from a pause: the test would measure that.
async fn refuse_held_back(stack: &Stack) -> Result<(), Failure> {
    let ledger = ledger::of(stack);
    let (control, mapping) = tokio::join!(ledger.control_now(), Mapping::find(stack));
    let control = control.map_err(|e| error::of_port(&e))?;
    let held = match control::pauses(&control).first() {
        Some(pause) => crate::text::shown(&pause.line()),
        None if !mapping?.is_on() => "its event source mapping is off".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::failed(format!(
        "{} holds work back, and a load test would measure that: {held}. `nightshift --prefix {} resume` lets it go on; then test it.",
        stack.named(),
        stack.prefix
    )))
}

fn yes_or_no(passed: bool) -> &'static str {
    if passed { "yes" } else { "no" }
}

async fn clean_up(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let stack = context.stack().await?;
    let clock = Clock::of_aws(&stack).await?;
    // Also where no lease stands: what it stood for may have come back since.
    let left = test_lease::left_behind(&stack, clock).await?;
    confirm::ask(
        arguments.yes,
        &format!("Removes the messages and records of a load test from {}.", stack.named()),
    )
    .await?;
    context.interrupt.leaves(left_words(&stack));
    let known = test_lease::is_known(left.as_ref());
    let run = format!("clean-up-{}", OsEntropy.token());
    let lease = Lease::take(&stack, clock, &run, left, false).await?;
    let (lease, trace) =
        traced(&stack, lease, known, "load-test --clean-up", "what a load test left").await?;
    let removed = remove(&stack, &lease, known).await;
    trace.end(&removed.clone().map(|_| "removed".to_owned())).await;
    say(&removed?.words());
    lease.end().await
}

/// Whether a call for each job may be paid. What jobs take above one is seen while they run, and ends the test.
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
            grouped(plan.jobs())
        ))),
        None => Err(Failure::usage(format!(
            "The stack calls a real model, {}: name what its {} calls may cost with --budget-usd (at most {most_usd:.2} USD if each job takes one), or test a stack with the model rehearsal.",
            crate::text::shown(&worker.model.id),
            grouped(plan.jobs())
        ))),
    }
}

fn intent(plan: &Plan, stack: &Stack, worker: &Worker, left: bool) -> String {
    format!(
        "{}Sends {} jobs to {} in {}, {} an hour ({} × {}), the first {} s to warm up. The model is {}. What was sent is removed at the end.",
        if left { "Removes first what a load test that was killed left. " } else { "" },
        grouped(plan.jobs()),
        stack.named(),
        times::length(plan.duration_ms()),
        grouped(plan.per_hour()),
        plan.factor,
        grouped(plan.expected_per_hour),
        plan.warm_up_s,
        crate::text::shown(&worker.model.id),
    )
}

/// A test that is about to run.
struct Test<'a> {
    arguments: &'a Arguments,
    plan: &'a Plan,
    jobs: &'a Jobs<'a>,
    stack: &'a Stack,
    worker: &'a Worker,
    context: &'a Context,
    lease: &'a Lease,
    clock: Clock,
}

impl Test<'_> {
    /// All that is done under the lease. `left`: first what another test left is removed. Whether the verdict is yes, and
    /// whether nothing is left.
    async fn all(&self, left: bool) -> (Result<bool, Failure>, Result<(), Failure>) {
        let Self { stack, lease, context, .. } = *self;
        if left {
            say("Removes what a load test that was killed left.");
            if let Err(failure) = remove(stack, lease, true).await {
                return (Err(failure.clone()), Err(failure));
            }
        }
        let (page, budget) = match self.begin().await {
            Ok(begun) => begun,
            Err(failure) => return (Err(failure), Ok(())),
        };
        context.interrupt.handle(left_words(stack));
        // The report first: removing may take minutes, and somebody may end it.
        let told = self.run(budget).await.and_then(|report| tell(&report, page, context));
        context.interrupt.leaves(left_words(stack));
        // Whatever became of the test, nothing of it stays.
        (told, remove(stack, lease, true).await.map(|_| ()))
    }

    /// What is asked and made before anything is sent: the page's file, so that a test of an hour does not end without it.
    async fn begin(&self) -> Result<(Option<Promised<'_>>, Option<Budget>), Failure> {
        test_jobs::refuse_others(self.stack).await?;
        let budget = match self.arguments.budget_usd {
            Some(budget_usd) => Some(Budget::begin(self.stack, budget_usd, self.clock.now_ms()).await?),
            None => None,
        };
        let page = self.arguments.page.as_deref().map(Promised::create).transpose()?;
        Ok((page, budget))
    }

    async fn run(&self, budget: Option<Budget>) -> Result<Report, Failure> {
        let seen = self.load(self.plan, 0, budget).await?;
        let above = self.raise(&seen, budget).await;
        Ok(self.report(seen, above))
    }

    async fn load(&self, plan: &Plan, first: u64, budget: Option<Budget>) -> Result<Seen, Failure> {
        let Self { jobs, stack, context, lease, clock, .. } = *self;
        let drain_s_max = self.arguments.thresholds.drain_s;
        Load { stack, plan, jobs, first, context, lease, clock, budget, drain_s_max }.run().await
    }

    fn step(&self, plan: &Plan, seen: &Seen) -> Step {
        Step::of(plan, &seen.measured, &seen.observed, &self.worker.limits, &self.thresholds())
    }

    /// How many jobs may still be sent after these steps, if each takes as many calls as one of the last did, at the price of
    /// the dearest.
    fn jobs_left(&self, steps: &[Step], calls_per_job: f64) -> u64 {
        let sent: u64 = steps.iter().map(|step| step.jobs).sum();
        let left = JOBS_MAX.saturating_sub(sent);
        let Some(budget_usd) = self.arguments.budget_usd else { return left };
        let spent_usd: f64 = steps.iter().map(|step| step.cost_usd).sum();
        let each_usd = usd(self.jobs.most_micro_usd) * calls_per_job.max(1.0);
        // A call that costs nothing is no matter, and no number is above all.
        left.min(((budget_usd - spent_usd).max(0.0) / each_usd) as u64)
    }

    /// Loads above the one of the test, until something gives.
    async fn raise(&self, seen: &Seen, budget: Option<Budget>) -> Above {
        let Some(minutes) = self.arguments.step_minutes else { return Above::not_asked() };
        let mut cut_usd = Some(0.0);
        let mut why = None;
        // What stands in for AWS may count nothing at all.
        let unknown =
            |step: &Step, seen: &Seen| step.why_unknown(&seen.observed).filter(|_| self.stack.is_aws());
        let mut steps = vec![self.step(self.plan, seen)];
        let mut calls_per_job = seen.measured.cost.calls_per_job;
        let mut sent = self.plan.jobs();
        let ended = loop {
            if self.context.interrupt.is_asked() {
                break Ended::Stopped;
            }
            if let [tested] = steps.as_slice()
                && let Some(not_counted) = unknown(tested, seen)
            {
                why = Some(not_counted);
                break Ended::NotCounted;
            }
            let plan = match next(self.plan, minutes, &steps, self.jobs_left(&steps, calls_per_job)) {
                Ok(plan) => plan,
                Err(ended) => break ended,
            };
            say(&format!("Raises the load to {} jobs an hour.", grouped(plan.per_hour())));
            // Whatever becomes of a step, the test itself was seen.
            let seen = match self.load(&plan, sent, budget).await {
                Ok(seen) => seen,
                Err(failure) => {
                    say(failure.sentence().unwrap_or_default());
                    (cut_usd, why) = (None, failure.sentence().map(str::to_owned));
                    break Ended::Failed;
                }
            };
            sent += plan.jobs();
            calls_per_job = seen.measured.cost.calls_per_job;
            // What was stopped says nothing of its load, and is paid for all the same.
            if seen.measured.stopped_early || seen.measured.unread > 0 {
                cut_usd = (seen.measured.unread == 0).then_some(seen.measured.cost.usd);
                break if self.context.interrupt.is_asked() { Ended::Stopped } else { Ended::Failed };
            }
            let step = self.step(&plan, &seen);
            if let Some(not_counted) = unknown(&step, &seen) {
                say(&not_counted);
                (cut_usd, why) = (Some(seen.measured.cost.usd), Some(not_counted));
                break if self.context.interrupt.is_asked() { Ended::Stopped } else { Ended::Failed };
            }
            steps.push(step);
        };
        Above { steps: steps.split_off(1), ended, cut_usd, why }
    }

    fn thresholds(&self) -> Thresholds {
        let given = &self.arguments.thresholds;
        Thresholds {
            success_percent_min: given.success_percent,
            p95_s_max: given.p95_s,
            p99_s_max: given.p99_s,
            drain_s_max: given.drain_s,
            send_delay_s_max: given.send_delay_s,
            throttled_percent_max: given.throttled_percent,
            alarms_max: given.alarms,
            cost_usd_max: self.arguments.budget_usd,
        }
    }

    fn report(&self, seen: Seen, above: Above) -> Report {
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

/// Writes the answer, and then the page: neither is missing where the other fails. Whether the verdict is yes.
fn tell(report: &Report, page: Option<Promised<'_>>, context: &Context) -> Result<bool, Failure> {
    let told = if context.out.is_json() {
        context.out.before_verdict().document(report)
    } else {
        let plan = &report.plan;
        say(&format!(
            "Does it stand {} jobs an hour, {} times the expected {}, for {} minutes? {}.",
            grouped(plan.per_hour()),
            plan.factor,
            grouped(plan.expected_per_hour),
            plan.minutes,
            if report.verdict.passed { "Yes" } else { "No" }
        ));
        context.out.before_verdict().all(report.verdict.findings.iter().cloned())
    };
    let written = page.map_or(Ok(()), |page| page.write(&report.page()));
    told.and(written).map(|()| report.verdict.passed)
}
