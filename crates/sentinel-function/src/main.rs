//! The sentinel's cold start.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use nightshift_aws::system::log_line;
use nightshift_aws::{CloudWatchMetrics, DynamoLedger, LiveWorker, RedriveFunction, SqsQueue, SystemClock};
use nightshift_core::sentinel::StackLimits;
use nightshift_sentinel::{Ports, Sentinel, Stack};
use nightshift_sentinel_function::config::Config;
use nightshift_sentinel_function::handler::RunHandler;
use nightshift_shell::settings::FunctionSettings;
use nightshift_shell::{clients, runtime};

fn main() -> ExitCode {
    runtime::run(Config::read, start)
}

async fn start(_: FunctionSettings, config: Config) -> Result<RunHandler, Infallible> {
    let sdk = clients::sdk(&config.stack).await;
    let ledger = Arc::new(DynamoLedger::new(&sdk, config.ledger.table));
    // What is not spread today, the next environment will spread; until then the index takes what one key can.
    if let Err(error) = ledger.spread_index(config.watch.environments).await {
        tracing::warn!(%error, "the index of the ledger could not be spread");
    }
    let queue = |url: &str| Arc::new(SqsQueue::new(&sdk, url));
    let ports = Ports {
        jobs: queue(&config.queues.jobs_url),
        dead_letters: queue(&config.queues.dead_letters_url),
        crashed: queue(&config.crashed_url),
        control: ledger.clone(),
        watch: ledger.clone(),
        documents: ledger,
        redrives: Arc::new(RedriveFunction::new(&sdk, config.watch.redrive_function)),
        worker: Arc::new(LiveWorker::new(&sdk, config.watch.worker_function, config.watch.mapping)),
        metrics: Arc::new(CloudWatchMetrics::new(&sdk, Box::new(log_line))),
        clock: Arc::new(SystemClock),
    };
    let limits = StackLimits {
        retention_ms: config.watch.retention_ms,
        letter_retention_ms: config.watch.letter_retention_ms,
        spend_cap_micro_usd: config.watch.spend_cap_micro_usd,
        lease_ms_max: config.watch.lease_ms_max,
    };
    let stack = Stack { name: config.stack.name, limits, full_width: config.watch.full_width };
    Ok(RunHandler::new(Sentinel::new(ports, stack)))
}
