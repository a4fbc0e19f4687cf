//! The model stub as a server of its own: prints its base URL on one line and serves until Ctrl-C.

use std::io::Write as _;
use std::time::Duration;

use clap::Parser;
use nightshift_local::model_stub::{Faults, ModelStub, StubSettings};

/// A stand-in for Anthropic's Messages API on this machine, with faults that a seed decides.
#[derive(Debug, Parser)]
#[command(name = "model-stub", version)]
struct Arguments {
    /// Port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Decides faults, latencies and answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many calls fail: none, some or storm.
    #[arg(long, default_value = "none")]
    faults: Faults,
    /// Shortest answer time in milliseconds.
    #[arg(long, default_value_t = 20)]
    latency_ms_min: u64,
    /// Longest answer time in milliseconds.
    #[arg(long, default_value_t = 60)]
    latency_ms_max: u64,
    /// How long a hanging call hangs, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    hang_ms: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(
        arguments.latency_ms_min <= arguments.latency_ms_max,
        "--latency-ms-min must not be greater than --latency-ms-max"
    );
    let stub = ModelStub::start(StubSettings {
        seed: arguments.seed,
        faults: arguments.faults,
        latency_ms: arguments.latency_ms_min..=arguments.latency_ms_max,
        hang: Duration::from_millis(arguments.hang_ms),
        port: arguments.port,
        ..StubSettings::default()
    })
    .await?;
    writeln!(std::io::stdout(), "{}", stub.base_url())?;
    tokio::signal::ctrl_c().await?;
    stub.stop().await;
    Ok(())
}
