//! `simulate`: runs seeds and says which promise broke, for whom, and how to see it again.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use nightshift_simulation::oracle::Promise;
use nightshift_simulation::plan::{DAY, HOUR, MINUTE, Plan, Profile, REMOVABLE};
use nightshift_simulation::run::{Outcome, run};
use nightshift_simulation::shrink::shrink;
use nightshift_simulation::world::Stats;

/// A third of a run was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: scripts/simulate [OPTIONS]

Runs the real worker over an in-memory SQS, Lambda, DynamoDB and model provider on virtual time, and checks the promises.

  --seeds N        run the seeds FIRST .. FIRST+N (default 200; 1 with --jobs)
  --first N        the first of them (default 0)
  --seed N         run one seed
  --jobs N         distinct inputs of each run (default: the seed decides); without a seed or profile, of one faulty run
  --profile NAME   calm, faulty, storm, outages, kills, poison, deploy, redrive, retention, throttled,
                   capped, refusals or watched (default: the seed decides)
  --all-profiles   run the seeds in each profile, and print a line for each: the first broken seed, if there is one
  --without LIST   take kinds of trouble away, separated by commas: windows, sentinel, cap, deploys, redrives, operator,
                   erasures, reviews, kills, ledger-faults, queue-faults, letter-faults, model-faults, duplicates, resends, invalid,
                   unanswerable, guarded, stubborn, poison, panics, forbidden, skew
  --concurrency N, --batch N   of the event source
  --trace N        with --seed: print the history of one input
  --threads N      seeds that run at the same time (default 2)
  --no-shrink      report a failure as it was found
  --quiet          print only the last line
  --mutants        apply each defect of tests/mutants in turn and show which promise catches it
  --load           a load test of a fleet instead, at a million jobs an hour: scripts/simulate --load --help
";

/// What the command line asks for.
#[derive(Debug, Clone)]
struct Options {
    first: u64,
    seeds: Option<u64>,
    jobs: Option<u32>,
    profile: Option<Profile>,
    all_profiles: bool,
    without: Vec<String>,
    concurrency: Option<u32>,
    batch: Option<u32>,
    trace: Option<u32>,
    threads: usize,
    shrink: bool,
    quiet: bool,
}

impl Options {
    fn read(mut arguments: VecDeque<String>) -> Result<Self, String> {
        let mut options = Self {
            first: 0,
            seeds: None,
            jobs: None,
            profile: None,
            all_profiles: false,
            without: Vec::new(),
            concurrency: None,
            batch: None,
            trace: None,
            threads: 2,
            shrink: true,
            quiet: false,
        };
        while let Some(name) = arguments.pop_front() {
            let mut value = || arguments.pop_front().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--seeds" => options.seeds = Some(number(&value()?)?),
                "--first" => options.first = number(&value()?)?,
                "--seed" => (options.first, options.seeds) = (number(&value()?)?, Some(1)),
                "--jobs" => options.jobs = Some(number(&value()?)?),
                "--profile" => {
                    let name = value()?;
                    options.profile = Some(Profile::of_name(&name).ok_or(format!("no profile {name}"))?);
                }
                "--all-profiles" => options.all_profiles = true,
                "--without" => {
                    for what in value()?.split(',') {
                        if !REMOVABLE.contains(&what) {
                            return Err(format!("nothing is called {what}"));
                        }
                        options.without.push(what.to_owned());
                    }
                }
                "--concurrency" => options.concurrency = Some(number(&value()?)?),
                "--batch" => options.batch = Some(number(&value()?)?),
                "--trace" => options.trace = Some(number(&value()?)?),
                "--threads" => options.threads = number(&value()?)?,
                "--no-shrink" => options.shrink = false,
                "--quiet" => options.quiet = true,
                other => return Err(format!("{other} is unknown\n\n{USAGE}")),
            }
        }
        if options.jobs.is_some() && options.seeds.is_none() {
            options.profile.get_or_insert(Profile::Faulty);
        }
        Ok(options)
    }

    fn seeds(&self) -> u64 {
        self.seeds.unwrap_or(if self.jobs.is_some() { 1 } else { 200 })
    }

    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::of_seed(seed, self.profile);
        if let Some(jobs) = self.jobs {
            plan = plan.with_jobs(jobs);
        }
        if let Some(concurrency) = self.concurrency {
            plan.limits.concurrency_max = concurrency;
        }
        if let Some(batch) = self.batch {
            plan.limits.batch_size = batch;
        }
        self.without.iter().fold(plan, |plan, what| plan.without(what))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number that fits"))
}

fn main() -> ExitCode {
    let arguments: VecDeque<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::read(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if options.all_profiles {
        return run_profiles(&options);
    }
    let (done, failed) = run_all(&options);
    if !options.quiet {
        print_summary(&done);
    }
    let Some((seed, outcome)) = failed else {
        let promises = Promise::ALL.len();
        println!("{} runs, {promises} promises, none broken", done.len());
        return ExitCode::SUCCESS;
    };
    report(&options, seed, &outcome);
    ExitCode::FAILURE
}

/// The same seeds in each profile, one after the other; a broken one does not keep the others from being run.
fn run_profiles(options: &Options) -> ExitCode {
    let mut broken = 0;
    for profile in Profile::ALL {
        let options = Options { profile: Some(profile), ..options.clone() };
        let (done, failed) = run_all(&options);
        let mut sum = (0, 0, Stats::default());
        for (_, jobs, stats) in done.values() {
            add(&mut sum, *jobs, stats);
        }
        let (runs, jobs, stats) = sum;
        let counts =
            format!("{:<10} {runs:>6} runs, {jobs:>9} jobs, {:>9} calls", profile.name(), stats.calls);
        match failed {
            None => println!("{counts}: none broken"),
            Some((seed, outcome)) => {
                broken += 1;
                let promise =
                    outcome.violation.map_or(String::new(), |violation| violation.promise.to_string());
                println!("{counts}: BROKEN: {promise}; again: {}", command(&options.plan(seed)));
            }
        }
    }
    println!("{} profiles, {} promises, {broken} profiles broken", Profile::ALL.len(), Promise::ALL.len());
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

type Done = BTreeMap<u64, (Profile, u32, Stats)>;

/// Runs the seeds on threads; stops at the first failure of the smallest seed.
fn run_all(options: &Options) -> (Done, Option<(u64, Outcome)>) {
    let next = Mutex::new(options.first);
    let done = Mutex::new(Done::new());
    let failed: Mutex<Option<(u64, Outcome)>> = Mutex::new(None);
    let terminal = std::io::stderr().is_terminal() && !options.quiet;
    let last = options.first + options.seeds();
    let lock = |failed: &Mutex<Option<(u64, Outcome)>>| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(seed, _)| *seed)
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = {
                        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
                        let seed = *next;
                        *next += 1;
                        seed
                    };
                    // A smaller seed than the one that failed is still run, so that the first failure is always the same.
                    if seed >= last || lock(&failed).is_some_and(|failed| failed < seed) {
                        return;
                    }
                    let plan = options.plan(seed);
                    let outcome = run(&plan, options.trace);
                    if options.trace.is_some() {
                        println!("{}", outcome.history.join("\n"));
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(seed, (plan.profile, plan.jobs, outcome.stats.clone()));
                    if terminal {
                        eprint!("\r{} of {} runs ", done.len(), options.seeds());
                        let _ = std::io::stderr().flush();
                    }
                    drop(done);
                    if outcome.violation.is_some() {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *failed = Some((seed, outcome));
                        }
                    }
                }
            });
        }
    });
    if terminal {
        eprint!("\r                          \r");
    }
    (
        done.into_inner().unwrap_or_else(PoisonError::into_inner),
        failed.into_inner().unwrap_or_else(PoisonError::into_inner),
    )
}

fn print_summary(done: &Done) {
    println!(
        "{:<10} {:>5} {:>9} {:>9} {:>11} {:>8} {:>9} {:>8} {:>8} {:>8} {:>12} {:>10}",
        "profile",
        "runs",
        "jobs",
        "messages",
        "invocations",
        "kills",
        "calls",
        "results",
        "letters",
        "redrives",
        "virtual time",
        "checks"
    );
    let mut letters: BTreeMap<String, u64> = BTreeMap::new();
    let mut total = (0, 0, Stats::default());
    for profile in Profile::ALL {
        let mut sum = (0, 0, Stats::default());
        for (_, jobs, stats) in done.values().filter(|(of, _, _)| *of == profile) {
            add(&mut sum, *jobs, stats);
            add(&mut total, *jobs, stats);
            for (reason, count) in &stats.letters {
                *letters.entry(reason.clone()).or_default() += count;
            }
        }
        if sum.0 > 0 {
            print_row(profile.name(), &sum);
        }
    }
    print_row("all", &total);
    let words: Vec<_> = letters.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    println!("dead letters: {}", if words.is_empty() { "none".to_owned() } else { words.join(", ") });
    let stats = &total.2;
    let ends: Vec<_> = stats.redrives_ended.iter().map(|(how, count)| format!("{how} {count}")).collect();
    println!(
        "redrives: {} of {} messages, {} steps killed; ended: {}",
        stats.redrives_begun,
        stats.redriven,
        stats.redrive_kills,
        if ends.is_empty() { "none".to_owned() } else { ends.join(", ") }
    );
    let pauses: Vec<_> = stats.pauses.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    println!(
        "pauses begun: {}; runs of the sentinel: {}, {} killed; probes: {}",
        if pauses.is_empty() { "none".to_owned() } else { pauses.join(", ") },
        stats.sentinel_runs,
        stats.sentinel_kills,
        stats.probes
    );
    println!(
        "in crashed, forced by faults: {}; acknowledged while a second delivery remade it: {}; letters moved back twice: {}; inputs erased: {}; reviews: {}; calls refused by a rate limit: {}; hand-backs for the spend cap: {}; days with a bill: {}; ledger writes: {}, attempts met by a fault: {}",
        stats.crashed,
        stats.remade_unfinished,
        stats.copies,
        stats.erasures,
        stats.reviews,
        stats.throttled,
        stats.capped,
        stats.days_billed,
        stats.ledger_writes,
        stats.ledger_faults
    );
}

fn add(sum: &mut (u64, u64, Stats), jobs: u32, stats: &Stats) {
    sum.0 += 1;
    sum.1 += u64::from(jobs);
    let s = &mut sum.2;
    s.messages += stats.messages;
    s.invocations += stats.invocations;
    s.kills += stats.kills;
    s.calls += stats.calls;
    s.throttled += stats.throttled;
    s.results += stats.results;
    s.crashed += stats.crashed;
    s.capped += stats.capped;
    s.days_billed += stats.days_billed;
    s.redrives += stats.redrives;
    s.copies += stats.copies;
    s.erasures += stats.erasures;
    s.reviews += stats.reviews;
    s.sentinel_runs += stats.sentinel_runs;
    s.sentinel_kills += stats.sentinel_kills;
    s.probes += stats.probes;
    for (cause, count) in &stats.pauses {
        *s.pauses.entry(cause.clone()).or_default() += count;
    }
    s.redrives_begun += stats.redrives_begun;
    s.redriven += stats.redriven;
    s.redrive_kills += stats.redrive_kills;
    for (how, count) in &stats.redrives_ended {
        *s.redrives_ended.entry(how.clone()).or_default() += count;
    }
    s.remade_unfinished += stats.remade_unfinished;
    s.ledger_writes += stats.ledger_writes;
    s.ledger_faults += stats.ledger_faults;
    s.checks += stats.checks;
    s.virtual_ms += stats.virtual_ms;
    for (reason, count) in &stats.letters {
        *s.letters.entry(reason.clone()).or_default() += count;
    }
}

fn print_row(name: &str, (runs, jobs, stats): &(u64, u64, Stats)) {
    println!(
        "{:<10} {:>5} {:>9} {:>9} {:>11} {:>8} {:>9} {:>8} {:>8} {:>8} {:>12} {:>10}",
        name,
        runs,
        jobs,
        stats.messages,
        stats.invocations,
        stats.kills,
        stats.calls,
        stats.results,
        stats.letters.values().sum::<u64>(),
        stats.redrives,
        span(stats.virtual_ms),
        stats.checks
    );
}

fn span(ms: u64) -> String {
    let (days, hours, minutes) = (ms / DAY, ms % DAY / HOUR, ms % HOUR / MINUTE);
    if days > 0 { format!("{days} d {hours} h") } else { format!("{hours} h {minutes} min") }
}

fn report(options: &Options, seed: u64, outcome: &Outcome) {
    let Some(violation) = &outcome.violation else { return };
    println!();
    println!("BROKEN: {} (seed {seed}, after {})", violation.promise, span(violation.at_ms));
    println!("  {}", violation.what);
    let plan = options.plan(seed);
    let (plan, outcome) = if options.shrink { shrink(&plan, outcome) } else { (plan, outcome.clone()) };
    let Some(violation) = outcome.violation else { return };
    if options.shrink {
        println!("Shortest history found: {} jobs, {} messages", plan.jobs, outcome.stats.messages);
        println!("  {}: {}", violation.promise, violation.what);
    }
    if let Some(input) = violation.input {
        let traced = run(&plan, Some(input));
        println!("History of input {input}:");
        let skipped = traced.history.len().saturating_sub(60);
        if skipped > 0 {
            println!("  ({skipped} earlier events)");
        }
        for line in traced.history.iter().skip(skipped) {
            println!("{line}");
        }
    }
    println!("Again: {}", command(&plan));
}

/// The one command that repeats a plan.
fn command(plan: &Plan) -> String {
    let mut command = format!(
        "scripts/simulate --seed {} --profile {} --jobs {} --concurrency {} --batch {}",
        plan.seed,
        plan.profile.name(),
        plan.jobs,
        plan.limits.concurrency_max,
        plan.limits.batch_size
    );
    if !plan.without.is_empty() {
        command.push_str(&format!(" --without {}", plan.without.join(",")));
    }
    command
}
