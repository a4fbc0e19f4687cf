//! `simulate`: runs seeds and says which promise broke, for whom, and how to see it again.

#![allow(clippy::print_stderr)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use nightshift_simulation::environments::live;
use nightshift_simulation::oracle::Promise;
use nightshift_simulation::plan::{DAY, HOUR, MINUTE, Plan, Profile, REMOVABLE};
use nightshift_simulation::println;
use nightshift_simulation::run::{Outcome, run};
use nightshift_simulation::shrink::shrink;
use nightshift_simulation::situations::SITUATIONS;
use nightshift_simulation::world::Stats;

/// A third of a run was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs the real worker over an in-memory SQS, Lambda, DynamoDB and model provider on virtual time, and checks the promises.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "scripts/simulate",
    after_help = "scripts/simulate --mutants [NAME..]  applies each defect of tests/mutants in turn and shows which promise catches it\n\
                  scripts/simulate --load ..           a load test of a fleet, at a million jobs an hour: --load --help says more"
)]
struct Options {
    /// So many seeds: 200, or 1 with --jobs.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// This one alone, told in full where it breaks a promise.
    #[arg(long, value_name = "N", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Distinct inputs of each run, instead of as many as the seed says; without a seed or a profile, of one faulty run.
    #[arg(long, value_name = "N")]
    jobs: Option<u32>,
    /// The kind of day, instead of the one that the seed says.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Profile::ALL.map(Profile::name)).try_map(of_name))]
    profile: Option<Profile>,
    /// The seeds in each profile, with a line for each: the first broken seed, if there is one.
    #[arg(long, conflicts_with = "profile")]
    all_profiles: bool,
    /// Kinds of trouble to take away, separated by commas.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = REMOVABLE)]
    without: Vec<String>,
    /// Invocations that the event source begins at once.
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Messages that the event source gives to one invocation.
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// With --seed: prints the history of one input.
    #[arg(long, value_name = "INPUT")]
    trace: Option<u32>,
    /// Seeds that run at the same time.
    #[arg(long, value_name = "N", default_value_t = 2)]
    threads: usize,
    /// Reports a failure as it was found.
    #[arg(long)]
    no_shrink: bool,
    /// Prints only the last line.
    #[arg(long)]
    quiet: bool,
    /// Nights by name instead, each with 300,000 jobs, or --jobs, that wait: what the stack pauses for, what the night
    /// costs, and how work comes back.
    #[arg(long)]
    situations: bool,
    /// Half a minute of so many environments instead, at a second a call, against what DynamoDB lets through of one key.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(21..=1_000), conflicts_with_all = ["situations", "all_profiles", "seeds", "seed", "jobs"])]
    environments: Option<u32>,
    /// Those whose names hold these words.
    #[arg(requires = "situations", value_name = "WORD")]
    words: Vec<String>,
}

fn of_name(name: String) -> Result<Profile, String> {
    Profile::of_name(&name).ok_or_else(|| format!("no profile {name}"))
}

impl Options {
    /// What follows from what was asked for.
    fn read() -> Self {
        let mut options = Self::parse();
        if let Some(seed) = options.seed {
            (options.first, options.seeds) = (seed, Some(1));
        }
        if options.jobs.is_some() && options.seeds.is_none() {
            options.profile.get_or_insert(Profile::Faulty);
        }
        options
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

fn main() -> ExitCode {
    let options = Options::read();
    if options.situations {
        return live_situations(&options.words, options.jobs.unwrap_or(300_000));
    }
    if let Some(environments) = options.environments {
        return live_environments(environments);
    }
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

/// A line for each night, and why it is not what is promised.
fn live_situations(words: &[String], jobs: u32) -> ExitCode {
    let chosen =
        SITUATIONS.iter().filter(|night| words.iter().all(|word| night.name.contains(word.as_str())));
    if chosen.clone().count() == 0 {
        eprintln!("no night is called so; there are: {}", SITUATIONS.map(|night| night.name).join("; "));
        return ExitCode::from(2);
    }
    println!(
        "{jobs} jobs, which a limit of {} calls a minute lets through in five hours, where there is one",
        jobs / 300
    );
    println!(
        "{:<42} {:>12} {:>7} {:>8} {:>12} {:>8} {:>12} {:>10} {:>8}",
        "", "paused after", "pauses", "calls", "invocations", "letters", "first job", "drained", "of limit"
    );
    let mut is_good = true;
    for night in chosen {
        let figures = match night.live(jobs) {
            Ok(figures) => figures,
            Err(why) => {
                println!("{:<42} BROKEN: {why}", night.name);
                is_good = false;
                continue;
            }
        };
        println!(
            "{:<42} {:>12} {:>7} {:>8} {:>12} {:>8} {:>12} {:>10} {:>8}",
            night.name,
            figures.paused_after_ms.map_or("never".to_owned(), seconds),
            figures.pauses,
            figures.calls,
            figures.invocations,
            figures.letters,
            figures.first_after_ms.map_or("-".to_owned(), seconds),
            span(figures.drained_after_ms),
            figures.used_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %"))
        );
        for fault in &figures.faults {
            println!("  NOT AS PROMISED: {fault}");
            is_good = false;
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A line for what is deployed, which must be as promised, and one for a single key each, as it was before.
fn live_environments(environments: u32) -> ExitCode {
    println!("{environments} environments with batches of ten, a second a call, and work for half a minute");
    println!(
        "{:>10} {:>10} {:>9} {:>11} {:>13} {:>13} {:>12} {:>9} {:>11} {:>8}",
        "index keys",
        "spend keys",
        "jobs",
        "invocations",
        "index units/s",
        "spend units/s",
        "told units/s",
        "refused",
        "handed back",
        "of could"
    );
    let mut is_good = true;
    for spread in [true, false] {
        println!(
            "{}",
            if spread {
                "as it is deployed:"
            } else {
                "with one key each, as it was, which must show why it is not:"
            }
        );
        let figures = match live(environments, spread) {
            Ok(figures) => figures,
            Err(why) => {
                println!("BROKEN: {why}");
                is_good &= !spread;
                continue;
            }
        };
        let (index_keys, spend_keys) = figures.keys;
        let [index, spend, told] = figures.hottest;
        println!(
            "{index_keys:>10} {spend_keys:>10} {:>9} {:>11} {index:>13} {spend:>13} {told:>12} {:>9} {:>11} {:>8}",
            figures.jobs,
            figures.invocations,
            figures.refused,
            figures.handed_back,
            format!("{:.1} %", figures.used_percent)
        );
        for fault in &figures.faults {
            println!("  {}{fault}", if spread { "NOT AS PROMISED: " } else { "" });
        }
        is_good &= figures.faults.is_empty() == spread;
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1_000.0)
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
        "in crashed, forced by faults: {}; acknowledged while a second delivery remade it: {}; letters moved back twice: {}; inputs erased: {}; reviews: {}; calls refused by a rate limit: {}; hand-backs for the spend cap: {}; changes of a day's money that met a transaction: {}; days with a bill: {}; ledger writes: {}, attempts met by a fault: {}",
        stats.crashed,
        stats.remade_unfinished,
        stats.copies,
        stats.erasures,
        stats.reviews,
        stats.throttled,
        stats.capped,
        stats.conflicts,
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
    s.conflicts += stats.conflicts;
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
    let (plan, outcome) = if !options.no_shrink { shrink(&plan, outcome) } else { (plan, outcome.clone()) };
    let Some(violation) = outcome.violation else { return };
    if !options.no_shrink {
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
