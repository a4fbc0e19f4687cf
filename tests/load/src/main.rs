//! `scripts/simulate --load`: a load that the stack on one machine is too small for.

#![allow(clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use nightshift_core::limits::Limits;
use nightshift_core::load_test::{Holds, Plan, Thresholds};
use nightshift_load::{Load, test};
use nightshift_simulation::println;

/// A run spends most of its time in the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Load-tests a simulated fleet of the real worker on virtual time, with the schedule, the verdict and the report of
/// `nightshift load-test`. The exit status is the verdict: 0 yes, 3 no; 1 if a promise broke.
#[derive(Debug, Parser)]
#[command(name = "scripts/simulate --load")]
struct Options {
    /// Jobs an hour that the fleet is built for.
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    expected_per_hour: u64,
    /// How many times that is sent.
    #[arg(long, value_name = "F", default_value_t = 2.0)]
    factor: f64,
    /// How long.
    #[arg(long, value_name = "M", default_value_t = 60.0)]
    minutes: f64,
    /// Of the event source.
    #[arg(long, value_name = "N", default_value_t = 300)]
    concurrency: u32,
    /// Of latencies and faults.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Writes the report as one HTML page.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Options {
    fn load(&self) -> Result<Load, String> {
        let Self { expected_per_hour, factor, minutes, .. } = *self;
        let plan = Plan { expected_per_hour, factor, minutes, warm_up_s: 60 };
        if let Some(why) = plan.refused() {
            return Err(why);
        }
        // A day's money that such a load takes, or it would fail for that alone.
        let limits = Limits {
            concurrency_max: self.concurrency,
            spend_cap_micro_usd: 1_000_000_000_000,
            ..Limits::default()
        };
        let thresholds = Thresholds::default();
        Ok(Load { plan, limits, thresholds, requests_per_minute: 0, seed: self.seed })
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let load = match options.load() {
        Ok(load) => load,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(&options, &load) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, load: &Load) -> Result<bool, String> {
    let report = test(load)?;
    if let Some(path) = &options.page {
        std::fs::write(path, report.page())
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
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
