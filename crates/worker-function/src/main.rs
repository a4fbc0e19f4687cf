//! The worker's cold start.

use std::process::ExitCode;
use std::sync::Arc;

use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use nightshift_aws::clients::{self, Region, SdkConfig};
use nightshift_aws::system::log_line;
use nightshift_aws::{
    CloudWatchMetrics, DynamoLedger, OsEntropy, SqsDeadLetters, SqsVisibility, StoredModelKey, SystemClock,
};
use nightshift_core::task::Tasks;
use nightshift_models::{
    Anthropic, AnthropicSettings, Bedrock, BedrockAuth, BedrockSettings, BuildError, Http, OpenAi,
    OpenAiSettings, Rehearsal, StructuredOutput, anthropic, openai,
};
use nightshift_ports::{Model, ModelKey};
use nightshift_worker::paid_call::PaidModel;
use nightshift_worker::{Deployment, Ports, Worker};
use nightshift_worker_function::handler::Handler;
use nightshift_worker_function::settings::{KeySettings, ProviderSettings, Settings, SettingsError};
use nightshift_worker_function::telemetry;
use serde_json::value::RawValue;
use tracing::Instrument;
use tracing::level_filters::LevelFilter;

/// Why the worker does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("the model's adapter could not be built from NIGHTSHIFT_MODEL and NIGHTSHIFT_MODEL_BASE_URL")]
    Model(#[from] BuildError),
    #[error(
        "there is no source of AWS credentials, which bedrock needs: give the function a role, or set NIGHTSHIFT_MODEL_KEY_SECRET to a Bedrock API key"
    )]
    NoCredentials,
}

fn main() -> ExitCode {
    // With 256 MB a function has a seventh of a processor: more threads would only take turns, and cost their start.
    // What waits does so on the network, and name resolution has tokio's blocking threads.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            telemetry::start(LevelFilter::INFO);
            tracing::error!(%error, "the runtime could not be built");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(run())
}

async fn run() -> ExitCode {
    let settings = Settings::from(|name| std::env::var(name).ok());
    telemetry::start(settings.as_ref().map_or(LevelFilter::INFO, |settings| settings.log_level));
    let started = match settings {
        Ok(settings) => start(settings).await,
        Err(error) => Err(error.into()),
    };
    let handler = match started {
        Ok(handler) => Arc::new(handler),
        Err(error) => {
            let message = chain(&error);
            tracing::error!(error = message, "the worker does not start");
            report_init_error(&message).await;
            return ExitCode::FAILURE;
        }
    };
    let served = Runtime::new(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let handler = Arc::clone(&handler);
        let span = tracing::info_span!("invocation", request_id = event.context.request_id);
        async move {
            let LambdaEvent { payload, context } = event;
            let answer = handler.handle(&context.request_id, context.deadline, payload.get()).await;
            answer.map_err(|error| {
                tracing::error!(%error, "the invocation fails as a whole");
                Diagnostic::from(error)
            })
        }
        .instrument(span)
    }));
    match served.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&*error), "the Lambda Runtime API cannot be reached any more");
            ExitCode::FAILURE
        }
    }
}

async fn start(settings: Settings) -> Result<Handler, StartError> {
    let sdk = clients::loader().region(Region::new(settings.region.clone())).load().await;
    let clock = Arc::new(SystemClock);
    let (model, http) = model(&settings, &sdk, &clock)?;
    let ports = Ports {
        ledger: Arc::new(DynamoLedger::new(&sdk, settings.ledger_table)),
        dead_letters: Arc::new(SqsDeadLetters::new(&sdk, settings.queues.dead_letters_url)),
        visibility: Arc::new(SqsVisibility::new(&sdk, settings.queues.jobs_url)),
        model: PaidModel::new(model),
        metrics: Arc::new(CloudWatchMetrics::new(&sdk, Box::new(log_line))),
        clock: clock.clone(),
        entropy: Arc::new(OsEntropy),
    };
    let deployment = Deployment {
        stack: settings.stack,
        model: settings.model.id,
        price: settings.model.price,
        limits: settings.limits,
        built_at_ms: nightshift_tasks::BUILT_AT_MS,
        function_version: settings.function_version,
    };
    let worker = Worker::new(ports, Box::new(my_tasks::registry()), deployment);
    Ok(Handler::new(worker, clock, http))
}

/// The model's adapter, and the connections that it uses.
fn model(
    settings: &Settings,
    sdk: &SdkConfig,
    clock: &Arc<SystemClock>,
) -> Result<(Arc<dyn Model>, Option<Http>), StartError> {
    let model = settings.model.id.clone();
    let base_url = settings.model.base_url.clone();
    let structured_output = settings.model.structured_output;
    let or_text_format = structured_output.unwrap_or(StructuredOutput::TextFormat);
    let http = match settings.model.provider {
        ProviderSettings::Rehearsal(_) => None,
        _ => Some(Http::new()?),
    };
    let adapter: Arc<dyn Model> = match (&settings.model.provider, &http) {
        (ProviderSettings::Rehearsal(spec), _) => {
            let tasks = my_tasks::registry();
            // Rules between members are in no schema, so the rehearsal must ask the task.
            let valid = move |task: &str, output: &serde_json::Value| {
                tasks.find(task).is_some_and(|task| task.accept(output.clone()).is_ok())
            };
            Arc::new(Rehearsal::new(spec.clone()).checked_by(valid))
        }
        (_, None) => return Err(BuildError::Client("none was built".to_owned()).into()),
        (ProviderSettings::Anthropic(key), Some(http)) => {
            let base_url = base_url.unwrap_or_else(|| anthropic::BASE_URL.to_owned());
            Arc::new(Anthropic::new(
                &AnthropicSettings { model, base_url, structured_output: or_text_format },
                http.clone(),
                model_key(key, sdk),
            )?)
        }
        (ProviderSettings::OpenAi(key), Some(http)) => {
            let base_url = base_url.unwrap_or_else(|| openai::BASE_URL.to_owned());
            let settings = OpenAiSettings { model, base_url, structured_output: or_text_format };
            Arc::new(OpenAi::new(&settings, http.clone(), key.as_ref().map(|key| model_key(key, sdk)))?)
        }
        (ProviderSettings::Bedrock(key), Some(http)) => {
            let auth = match key {
                Some(key) => BedrockAuth::Key(model_key(key, sdk)),
                None => BedrockAuth::Credentials {
                    provider: sdk.credentials_provider().ok_or(StartError::NoCredentials)?,
                    clock: clock.clone(),
                },
            };
            let region = settings.region.clone();
            let settings = BedrockSettings { model, region, base_url, structured_output };
            Arc::new(Bedrock::new(&settings, http.clone(), auth)?)
        }
    };
    Ok((adapter, http))
}

fn model_key(key: &KeySettings, sdk: &SdkConfig) -> Arc<dyn ModelKey> {
    Arc::new(match key {
        KeySettings::Secret(id) => StoredModelKey::secret(sdk, id),
        KeySettings::Parameter(name) => StoredModelKey::parameter(sdk, name),
        KeySettings::Given(key) => StoredModelKey::given(key.clone()),
    })
}

/// Tells Lambda why there will be no first invocation; it then shows the message instead of an exit code.
async fn report_init_error(message: &str) {
    // The client panics where there is no such address to report to.
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return;
    }
    let body =
        serde_json::json!({"errorType": "Runtime.InitError", "errorMessage": message, "stackTrace": []});
    let request = lambda_runtime_api_client::build_request()
        .method(http::Method::POST)
        .uri("/2018-06-01/runtime/init/error")
        .header("lambda-runtime-function-error-type", "Runtime.InitError")
        .body(lambda_runtime_api_client::body::Body::from(body.to_string()));
    let Ok(request) = request else { return };
    let client = lambda_runtime_api_client::PooledClient::builder().build();
    if let Err(error) = client.call(request).await {
        tracing::error!(error = chain(&*error), "the failed start could not be reported to Lambda");
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
