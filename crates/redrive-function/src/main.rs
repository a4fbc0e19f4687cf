//! The redrive's cold start.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::Arc;

use nightshift_aws::{DynamoLedger, OsEntropy, SqsQueue, SystemClock, WorkerAlias};
use nightshift_core::redrive::{Deployed, JobCost};
use nightshift_core::spend::CallPrice;
use nightshift_core::task::{Tasks, revision_hash};
use nightshift_redrive::{Ports, Redriver, Stack};
use nightshift_redrive_function::config::Config;
use nightshift_redrive_function::handler::AskHandler;
use nightshift_shell::settings::FunctionSettings;
use nightshift_shell::{clients, runtime};

fn main() -> ExitCode {
    runtime::run(Config::read, start)
}

async fn start(_: FunctionSettings, config: Config) -> Result<AskHandler, Infallible> {
    let sdk = clients::sdk(&config.stack).await;
    let clock = Arc::new(SystemClock);
    let ledger = Arc::new(DynamoLedger::new(&sdk, config.ledger.table.clone()));
    let queue = |url: &str| Arc::new(SqsQueue::new(&sdk, url));
    let ports = Ports {
        dead_letters: queue(&config.queues.dead_letters_url),
        crashed: queue(&config.crashed_url),
        jobs: queue(&config.queues.jobs_url),
        ledger: ledger.clone(),
        records: ledger.clone(),
        failed: ledger.clone(),
        documents: ledger,
        worker: Arc::new(WorkerAlias::new(&sdk, config.worker_function.clone())),
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
    };
    let redriver = Redriver::new(ports, stack(&config, &my_tasks::registry()));
    Ok(AskHandler::new(redriver, clock))
}

/// What was deployed beside this function, from the same build and the same settings.
fn stack(config: &Config, tasks: &dyn Tasks) -> Stack {
    let job = &config.job;
    let all = || tasks.names().into_iter().filter_map(|name| tasks.find(name));
    let revisions = all().map(|task| (task.name().to_owned(), revision_hash(task, &job.model))).collect();
    // Nothing in a prompt is longer than its input, but for the escaping of each byte.
    let call_micro_usd_max = all()
        .map(|task| {
            let prompt_bytes = task.overhead_bytes().saturating_add(job.body_bytes_max.saturating_mul(6));
            CallPrice::new(config.price, prompt_bytes, task.output_tokens_max()).most_micro_usd()
        })
        .max();
    Stack {
        body_bytes_max: job.body_bytes_max,
        failure_expiry_ms: job.failure_expiry_ms,
        deployed: Deployed { built_version: job.worker_version, revisions, ..Deployed::default() },
        cost: JobCost {
            call_micro_usd_max: call_micro_usd_max.unwrap_or(0),
            paid_call_limit: job.paid_call_limit,
            day_micro_usd_max: job.spend_cap_micro_usd,
        },
    }
}
