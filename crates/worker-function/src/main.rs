//! The worker's cold start.

use std::process::ExitCode;
use std::sync::Arc;

use nightshift_aws::system::log_line;
use nightshift_aws::{
    CloudWatchMetrics, DynamoLedger, OsEntropy, SqsDeadLetters, SqsVisibility, SystemClock,
};
use nightshift_core::ready::dearest_call_micro_usd;
use nightshift_core::spread::Spread;
use nightshift_shell::model::ModelError;
use nightshift_shell::settings::FunctionSettings;
use nightshift_shell::{clients, model, runtime};
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Ports, Worker};
use nightshift_worker_function::config::Config;
use nightshift_worker_function::handler::BatchHandler;

/// The SDK's requests are thousands of small allocations each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    runtime::run(Config::read, start)
}

async fn start(function: FunctionSettings, config: Config) -> Result<BatchHandler, ModelError> {
    let sdk = clients::sdk(&config.stack).await;
    let clock = Arc::new(SystemClock);
    let model_id = config.model.id.clone();
    let (model, http) = model::connect(config.model, &config.stack, &sdk, my_tasks::registry())?;
    let ports = Ports {
        ledger: Arc::new(DynamoLedger::new(&sdk, config.ledger.table)),
        dead_letters: Arc::new(SqsDeadLetters::new(&sdk, config.queues.dead_letters_url)),
        visibility: Arc::new(SqsVisibility::new(&sdk, config.queues.jobs_url)),
        model: PaidModel::new(model),
        metrics: Arc::new(CloudWatchMetrics::new(&sdk, Box::new(log_line))),
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
    };
    let registry = my_tasks::registry();
    let limits = config.limits;
    let dearest_micro_usd = dearest_call_micro_usd(&registry, limits.body_bytes_max, config.price);
    let deployment = Deployment {
        stack: config.stack.name,
        model: model_id,
        price: config.price,
        spread: Spread::over(limits.concurrency_max, limits.spend_cap_micro_usd, dearest_micro_usd),
        limits,
        built_at_ms: nightshift_tasks::BUILT_AT_MS,
        function_version: function.version,
    };
    let worker = Worker::new(ports, Box::new(registry), deployment);
    Ok(BatchHandler::new(worker, clock, http))
}
