//! Measures the numbers of DESIGN and prints them in one table, beside what they should be. It asserts nothing: a number
//! depends on the machine, and `scripts/bench` runs where nobody else does, or it is not worth reading.
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)] // a program for a terminal

mod function;
mod rate_limit;
mod sentinel;

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use self::function::{Bench, median};
use self::rate_limit::Fleet;

const COLD_STARTS: usize = 20;

struct Row {
    what: &'static str,
    wanted: &'static str,
    measured: String,
    how: String,
}

fn main() -> anyhow::Result<()> {
    let program = |variable: &str| {
        let path = std::env::var_os(variable).map(PathBuf::from);
        path.with_context(|| {
            format!("scripts/bench runs this: it builds a program and names it in {variable}")
        })
    };
    let function = program("NIGHTSHIFT_BENCH_FUNCTION")?;
    let zips = std::env::var_os("NIGHTSHIFT_BENCH_ZIPS").map(PathBuf::from).unwrap_or_default();
    let mut rows = Vec::new();
    // Two threads: the stand-ins answer on theirs, while the function is a process of its own.
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    servers.block_on(with_servers(&function, &mut rows))?;
    rate_limits(&mut rows)?;
    for situation in sentinel::ALL {
        rows.push(servers.block_on(sentinel_run(situation))?);
    }
    rows.push(command(&program("NIGHTSHIFT_BENCH_COMMAND")?)?);
    rows.push(zip(&zips));
    print(&rows);
    Ok(())
}

async fn with_servers(function: &std::path::Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let mut starts = Vec::new();
    for _ in 0..COLD_STARTS {
        starts.push(function::cold_start(function).await?.as_secs_f64() * 1_000.0);
    }
    rows.push(Row {
        what: "cold start, process start to first poll",
        wanted: "≤ 20 ms",
        measured: format!("{:.1} ms", median(&mut starts)),
        how: format!("median of {COLD_STARTS}, the function binary"),
    });

    // What is done once per process or connection is not a job's: it is warm before it is measured.
    let bench = Bench::start(function, 10, Duration::from_millis(20)).await?;
    bench.run(20, 10).await?;
    let (jobs, before) = (400 * 10, bench.cpu()?);
    bench.run(400, 10).await?;
    rows.push(Row {
        what: "CPU per job, adapters included",
        wanted: "≤ 0.5 ms",
        measured: format!("{:.3} ms", (bench.cpu()? - before).as_secs_f64() * 1_000.0 / f64::from(jobs)),
        how: format!("user and system time of the function's process over {jobs} jobs in batches of 10"),
    });

    // Two sizes of batch give two equations for what a job costs and what an invocation costs.
    let tens = bench.requests_of(20, 10).await?;
    let ones = bench.requests_of(20, 1).await?;
    let mut of_job = Vec::new();
    let mut of_invocation = Vec::new();
    for (action, ten) in &tens {
        let one = ones.get(action).copied().unwrap_or_default();
        let per_job = (ten - one) / (20.0 * 9.0);
        of_job.push((action.clone(), per_job));
        of_invocation.push((action.clone(), one / 20.0 - per_job));
    }
    let list = |counts: &[(String, f64)]| {
        let some = counts.iter().filter(|(_, count)| count.abs() > 0.05);
        let listed: Vec<_> = some.map(|(action, count)| format!("{count:.2} {action}")).collect();
        listed.join(", ")
    };
    let dynamodb: Vec<_> = of_job.into_iter().filter(|(action, _)| action.starts_with("DynamoDB")).collect();
    rows.push(Row {
        what: "DynamoDB requests per job that succeeds at once",
        wanted: "2 writes, 0 reads",
        measured: list(&dynamodb),
        how: format!(
            "besides, per invocation: {}; and the control record is read every 5 s",
            list(&of_invocation)
        ),
    });
    let calls = bench.calls_per_job();
    bench.stop().await;

    let latency = Duration::from_millis(200);
    let bench = Bench::start(function, 10, latency).await?;
    bench.run(2, 10).await?;
    let took = bench.run(50, 10).await?;
    let rate = 500.0 / took.as_secs_f64() / (10.0 / latency.as_secs_f64());
    rows.push(Row {
        what: "jobs per second / (in flight / model latency)",
        wanted: "≥ 0.97",
        measured: format!("{rate:.3}"),
        how: "50 batches of 10 after each other, a model of 200 ms".to_owned(),
    });
    bench.stop().await;

    let bench = Bench::start(function, 100, Duration::from_secs(3)).await?;
    let memory = bench.memory_in_flight(100).await?;
    rows.push(Row {
        what: "memory with 100 calls in flight",
        wanted: "≤ 25 MB",
        measured: format!("{:.1} MB", memory.resident_mb),
        how: format!(
            "RSS of the function with a batch of 100 open; its peak over the batch {:.1} MB",
            memory.peak_mb
        ),
    });
    bench.stop().await;
    if (calls - 1.0).abs() > 1e-9 {
        eprintln!(
            "bench: {calls:.3} model calls per job: some answers were not accepted at once, and the numbers include that"
        );
    }
    Ok(())
}

fn rate_limits(rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let fleet = |workers: u32, requests_per_minute: u64| Fleet {
        workers,
        concurrency_max: workers,
        requests_per_minute,
        tokens_per_minute: 0,
        call_ms_min: 1_000,
        call_ms_mean: 5_000,
        headers: true,
        told: true,
        minutes: 35,
        seed: 1,
    };
    let tokens = Fleet { tokens_per_minute: 400_000, ..fleet(50, 4_000) };
    for (what, wanted, fleet) in [
        ("use of a rate limit, 1 worker at 30 a minute", "≥ 99 %, ≤ 1 % refused", fleet(1, 30)),
        ("use of a rate limit, 10 workers at 300", "≥ 99 %, ≤ 1 % refused", fleet(10, 300)),
        ("use of a rate limit, 50 workers at 1,000", "≥ 99 %, ≤ 1 % refused", fleet(50, 1_000)),
        ("the same, 400,000 tokens a minute", "≥ 99 %, ≤ 1 % refused", tokens),
        ("the same 50 without the provider's headers", "", Fleet { headers: false, ..fleet(50, 1_000) }),
        (
            "the same 50 with neither headers nor a configured limit",
            "",
            Fleet { headers: false, told: false, ..fleet(50, 1_000) },
        ),
        ("10 workers at 300 in a stack that allows 50", "", Fleet { concurrency_max: 50, ..fleet(10, 300) }),
    ] {
        let virtual_time =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let used = virtual_time.block_on(rate_limit::run(fleet));
        rows.push(Row {
            what,
            wanted,
            measured: format!("{:.1} %, {:.2} % refused", used.share * 100.0, used.refused * 100.0),
            how: format!(
                "simulated, {} virtual minutes, {} calls of 5 s on average",
                fleet.minutes, used.calls
            ),
        });
    }
    Ok(())
}

async fn sentinel_run(situation: &sentinel::Situation) -> anyhow::Result<Row> {
    let mut run = sentinel::measured(situation).await?;
    let longest_ms = run.ms.iter().copied().fold(0.0, f64::max);
    Ok(Row {
        what: situation.what,
        wanted: "≤ 2 s",
        measured: format!("{:.0} ms", median(&mut run.ms)),
        how: format!(
            "median of {}, the longest {longest_ms:.0} ms; an index of {} for a word; {} requests, of which {} read a page of the index each",
            run.ms.len(),
            if situation.index_keys() == 1 {
                "one key".to_owned()
            } else {
                format!("{} keys", situation.index_keys())
            },
            run.requests,
            run.pages,
        ),
    })
}

/// The operator's command, from its start to the first byte that it says.
fn command(command: &std::path::Path) -> anyhow::Result<Row> {
    let mut starts = Vec::new();
    for _ in 0..COLD_STARTS {
        let began = Instant::now();
        let mut child = Command::new(command).arg("--help").stdout(Stdio::piped()).spawn()?;
        let mut said = child.stdout.take().context("a pipe")?;
        said.read_exact(&mut [0])?;
        starts.push(began.elapsed().as_secs_f64() * 1_000.0);
        std::io::copy(&mut said, &mut std::io::sink())?;
        child.wait()?;
    }
    Ok(Row {
        what: "`nightshift --help`, start to first byte",
        wanted: "≤ 20 ms",
        measured: format!("{:.1} ms", median(&mut starts)),
        how: format!("median of {COLD_STARTS}, the command as scripts/build --command makes it"),
    })
}

/// The zip that would be deployed, where `scripts/build` has made one.
fn zip(zips: &std::path::Path) -> Row {
    let found = ["arm64", "x86_64"].into_iter().find_map(|architecture| {
        let bytes = std::fs::metadata(zips.join(architecture).join("worker.zip")).ok()?.len();
        Some((architecture, bytes as f64 / 1e6))
    });
    let (measured, how) = match found {
        Some((architecture, mb)) => {
            (format!("{mb:.1} MB"), format!("the last scripts/build, {architecture}"))
        }
        None => ("not built".to_owned(), "scripts/build makes it".to_owned()),
    };
    Row { what: "worker zip", wanted: "≤ 6 MB", measured, how }
}

fn print(rows: &[Row]) {
    println!("| what | number to reach | measured | how |");
    println!("| --- | --- | --- | --- |");
    for Row { what, wanted, measured, how } in rows {
        println!("| {what} | {wanted} | {measured} | {how} |");
    }
}
