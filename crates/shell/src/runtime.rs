//! The life of a function: its settings, its start, and one invocation after the other.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use nightshift_ports::chain;
use serde_json::value::RawValue;
use tracing::Instrument;
use tracing::level_filters::LevelFilter;

use crate::settings::{Environment, FunctionSettings};
use crate::telemetry;

/// What answers invocations, one at a time.
pub trait Handler {
    /// What Lambda is answered.
    type Answer: serde::Serialize;
    /// Why an invocation fails as a whole.
    type Error: Error + Into<Diagnostic>;

    /// Answers one event; `deadline_ms` is when Lambda kills the function, in milliseconds since 1970.
    ///
    /// # Errors
    /// When the invocation fails as a whole.
    fn handle(
        &self,
        request_id: &str,
        deadline_ms: u64,
        event: &str,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;
}

/// Runs a function for the life of its environment: reads its groups of settings, starts it, and serves Lambda.
/// What keeps it from starting is logged and told to Lambda.
pub fn run<C, H: Handler, E: Error + 'static>(
    groups: impl FnOnce(&mut Environment<'_>) -> C,
    start: impl AsyncFnOnce(FunctionSettings, C) -> Result<H, E>,
) -> ExitCode {
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
    runtime.block_on(async {
        let lookup = |name: &str| std::env::var(name).ok();
        let settings = Environment::read(&lookup, |environment| {
            (FunctionSettings::read(environment), groups(environment))
        });
        telemetry::start(settings.as_ref().map_or(LevelFilter::INFO, |(function, _)| function.log_level));
        let (function, config) = match settings {
            Ok(settings) => settings,
            Err(error) => return does_not_start(&error).await,
        };
        match start(function, config).await {
            Ok(handler) => serve(handler).await,
            Err(error) => does_not_start(&error).await,
        }
    })
}

async fn serve(handler: impl Handler) -> ExitCode {
    let handler = Arc::new(handler);
    let served = Runtime::new(service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let handler = Arc::clone(&handler);
        let span = tracing::info_span!("invocation", request_id = event.context.request_id);
        async move {
            let LambdaEvent { payload, context } = event;
            let answer = handler.handle(&context.request_id, context.deadline, payload.get()).await;
            answer.map_err(|error| {
                tracing::error!(%error, "the invocation fails as a whole");
                error.into()
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

async fn does_not_start(error: &dyn Error) -> ExitCode {
    let message = chain(error);
    tracing::error!(error = message, "the function does not start");
    report_init_error(&message).await;
    ExitCode::FAILURE
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
