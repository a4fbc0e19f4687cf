//! `scripts/simulate --load`: a load that the stack on one machine is too small for.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use nightshift_core::limits::Limits;
use nightshift_core::load_test::{Holds, Plan, Thresholds};
use nightshift_load::{Load, test};

/// A run spends most of its time in the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: scripts/simulate --load [OPTIONS]

Load-tests a simulated fleet of the real worker on virtual time, with the schedule, the verdict and the report of
`nightshift load-test`. The exit status is the verdict: 0 yes, 3 no; 1 if a promise broke.

  --expected-per-hour N   jobs an hour that the fleet is built for (default 500000)
  --factor F              how many times that is sent (default 2)
  --minutes M             how long (default 60)
  --concurrency N         of the event source (default 300)
  --seed N                of latencies and faults (default 1)
  --page FILE             writes the report as one HTML page
  --json                  prints the report as JSON
";

struct Options {
    load: Load,
    page: Option<String>,
    json: bool,
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let plan = Plan { expected_per_hour: 500_000, factor: 2.0, minutes: 60.0, warm_up_s: 60 };
    // A day's money that such a load takes, or it would fail for that alone.
    let limits = Limits { concurrency_max: 300, spend_cap_micro_usd: 1_000_000_000_000, ..Limits::default() };
    let thresholds = Thresholds::default();
    let load = Load { plan, limits, thresholds, requests_per_minute: 0, seed: 1 };
    let mut options = Options { load, page: None, json: false };
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
        let load = &mut options.load;
        match name.as_str() {
            "--expected-per-hour" => load.plan.expected_per_hour = number(&value()?)?,
            "--factor" => load.plan.factor = number(&value()?)?,
            "--minutes" => load.plan.minutes = number(&value()?)?,
            "--concurrency" => load.limits.concurrency_max = number(&value()?)?,
            "--seed" => load.seed = number(&value()?)?,
            "--page" => options.page = Some(value()?),
            "--json" => options.json = true,
            other => return Err(format!("{other} is unknown\n\n{USAGE}")),
        }
    }
    options.load.plan.refused().map_or(Ok(options), Err)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number that fits"))
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let report = test(&options.load)?;
    if let Some(path) = &options.page {
        std::fs::write(path, report.page()).map_err(|error| format!("{path} cannot be written: {error}"))?;
    }
    if options.json {
        let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
        println!("{json}");
        return Ok(report.verdict.passed);
    }
    for finding in &report.verdict.findings {
        let holds = match finding.holds {
            Holds::Yes => "yes",
            Holds::No => "NO",
            Holds::Unknown => "unknown",
        };
        println!("{:<14} {holds:<8} {}", finding.what, finding.words);
    }
    Ok(report.verdict.passed)
}
