//! What is run, from which queue, and what Lambda would refuse of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::QueueAttributeName;

/// Batch size without a window, and with one (Developer Guide, "Creating and configuring an Amazon SQS event source mapping").
const BATCH_WITHOUT_WINDOW_MAX: u32 = 10;
const BATCH_MAX: u32 = 10_000;
const WINDOW_MAX: Duration = Duration::from_secs(300);
/// `ScalingConfig.MaximumConcurrency`; Lambda's least is 2, here a single environment is allowed too, for tests that need one.
const CONCURRENCY_MAX: usize = 1000;
const TIMEOUT_MAX: Duration = Duration::from_secs(900);

/// The function: what to run, and how.
#[derive(Debug, Clone)]
pub struct Function {
    /// The binary, as it would be the `bootstrap` of the zip.
    pub program: PathBuf,
    /// Arguments of the binary; Lambda gives none.
    pub arguments: Vec<OsString>,
    /// The function's name.
    pub name: String,
    /// What the function is told about its memory, in MB; not enforced.
    pub memory_mb: u32,
    /// An invocation that takes longer is killed; at most 900 s.
    pub timeout: Duration,
    /// The function's environment variables; they win over what this stand-in sets.
    ///
    /// The process inherits nothing but `PATH`: what is not in here, it would not have in Lambda either.
    pub environment: BTreeMap<String, String>,
    /// Whether an idle process is stopped until its next invocation, as Lambda freezes environments.
    pub freeze: bool,
}

impl Function {
    /// A function with Lambda-like settings: 256 MB, 300 s, not frozen.
    pub fn new(name: &str, program: impl Into<PathBuf>) -> Self {
        Function {
            program: program.into(),
            arguments: Vec::new(),
            name: name.to_owned(),
            memory_mb: 256,
            timeout: Duration::from_secs(300),
            environment: BTreeMap::new(),
            freeze: false,
        }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }
}

/// The event source mapping: which queue, and how it is polled.
#[derive(Debug, Clone)]
pub struct EventSource {
    /// The SQS server.
    pub endpoint_url: String,
    /// The region that requests are signed for and that the function is told.
    pub region: String,
    /// Which queue is polled.
    pub queue_url: String,
    /// Most messages of one invocation.
    pub batch_size: u32,
    /// How long to wait for a full batch, counted from its first message; whole seconds, as in Lambda.
    pub window: Duration,
    /// Most environments at work at one time.
    pub maximum_concurrency: usize,
}

/// Why Lambda did not start.
#[derive(Debug, thiserror::Error)]
pub enum LambdaError {
    /// A batch over ten without a window.
    #[error(
        "a batch size of {batch_size} needs a batching window of at least 1 s; without one, at most {BATCH_WITHOUT_WINDOW_MAX}"
    )]
    BatchNeedsWindow {
        /// The batch size that was asked for.
        batch_size: u32,
    },
    /// A setting out of its range.
    #[error("{setting} must be between {least} and {most}, not {given}")]
    OutOfRange {
        /// Which setting.
        setting: &'static str,
        /// The least allowed value.
        least: u64,
        /// The greatest allowed value.
        most: u64,
        /// The value that was given.
        given: u64,
    },
    /// Lambda refuses a mapping whose messages would come back while they are still being worked on.
    #[error(
        "queue visibility timeout: {visibility_s} seconds is less than function timeout: {timeout_s} seconds"
    )]
    VisibilityTooShort {
        /// Of the queue.
        visibility_s: u64,
        /// Of the function.
        timeout_s: u64,
    },
    /// The program is not there.
    #[error("there is no program {}", .0.display())]
    NoProgram(PathBuf),
    /// The queue cannot be read.
    #[error("cannot read the attributes of the queue {queue_url}: {reason}")]
    Queue {
        /// The queue that was asked for.
        queue_url: String,
        /// What SQS or the connection said.
        reason: String,
    },
}

pub(super) fn check(function: &Function, source: &EventSource) -> Result<(), LambdaError> {
    let range = |setting, least: u64, most: u64, given: u64| {
        if (least..=most).contains(&given) {
            return Ok(());
        }
        Err(LambdaError::OutOfRange { setting, least, most, given })
    };
    range("batch size", 1, BATCH_MAX.into(), source.batch_size.into())?;
    range("batching window in seconds", 0, WINDOW_MAX.as_secs(), source.window.as_secs())?;
    range("maximum concurrency", 1, CONCURRENCY_MAX as u64, source.maximum_concurrency as u64)?;
    range("function timeout in seconds", 1, TIMEOUT_MAX.as_secs(), function.timeout.as_secs())?;
    if source.batch_size > BATCH_WITHOUT_WINDOW_MAX && source.window < Duration::from_secs(1) {
        return Err(LambdaError::BatchNeedsWindow { batch_size: source.batch_size });
    }
    if !function.program.is_file() {
        return Err(LambdaError::NoProgram(function.program.clone()));
    }
    Ok(())
}

pub(super) fn sqs_client(source: &EventSource) -> aws_sdk_sqs::Client {
    use aws_sdk_sqs::config::{BehaviorVersion, Config, Credentials, Region};
    // Plain HTTP to this machine; the credentials only make the requests signed.
    aws_sdk_sqs::Client::from_conf(
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(source.region.clone()))
            .credentials_provider(Credentials::new("local", "local", None, None, "local"))
            .endpoint_url(&source.endpoint_url)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    )
}

pub(super) async fn check_queue(
    sqs: &aws_sdk_sqs::Client,
    function: &Function,
    source: &EventSource,
) -> Result<String, LambdaError> {
    let failed = |reason: String| LambdaError::Queue { queue_url: source.queue_url.clone(), reason };
    let answer = sqs
        .get_queue_attributes()
        .queue_url(&source.queue_url)
        .attribute_names(QueueAttributeName::All)
        .send()
        .await
        .map_err(|error| failed(DisplayErrorContext(error).to_string()))?;
    let attribute = |name: QueueAttributeName| {
        answer
            .attributes()
            .and_then(|attributes| attributes.get(&name))
            .ok_or_else(|| failed(format!("the answer has no {name}")))
    };
    let visibility_s: u64 = attribute(QueueAttributeName::VisibilityTimeout)?
        .parse()
        .map_err(|_| failed("the visibility timeout is not a number".to_owned()))?;
    let timeout_s = function.timeout.as_secs();
    if visibility_s < timeout_s {
        return Err(LambdaError::VisibilityTooShort { visibility_s, timeout_s });
    }
    attribute(QueueAttributeName::QueueArn).cloned()
}
