//! Which stack is meant, and what is deployed there: the worker function's own configuration says it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_lambda::operation::get_function_configuration::GetFunctionConfigurationOutput;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use nightshift_aws::StoredModelKey;
use nightshift_core::cost::Price;
use nightshift_core::limits::Limits;
use nightshift_ports::ModelKey as _;
use nightshift_shell::settings::{Environment, KeySettings, ModelSettings, SettingsError, limits, price};
use secrecy::SecretString;

use crate::error::{self, Failure};
use crate::text;

/// From somewhere in the world to any region: a connection may take several round trips of 300 ms.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One attempt; a page of a query is a megabyte.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);
/// A person waits for this.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(60);
/// With the SDK's own backoff, a few seconds of throttling are ridden out.
const ATTEMPTS_MAX: u32 = 5;

/// Which stack.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Start of every name of the stack, as Terraform has it.
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        env = "NIGHTSHIFT_PREFIX",
        default_value = "nightshift",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub prefix: String,
    /// Region of the stack; by default what AWS_REGION or the profile says.
    #[arg(long, global = true, help_heading = "Everywhere", value_parser = NonEmptyStringValueParser::new())]
    pub region: Option<String>,
}

/// One deployed stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Start of every name.
    pub prefix: String,
    /// Where.
    pub region: String,
    /// For every client.
    pub sdk: SdkConfig,
    /// The version of the worker that works, by its alias.
    pub worker_version: String,
    /// URL of the jobs queue.
    pub jobs_url: String,
    /// URL of the dead-letters queue.
    pub dead_letters_url: String,
    /// Name of the ledger's table.
    pub ledger_table: String,
    /// The worker's environment: all settings.
    pub environment: HashMap<String, String>,
}

/// What the worker is told.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Who the stack asks, as its function is told it.
    pub model: ModelSettings,
    /// What it costs.
    pub price: Price,
    /// All limits.
    pub limits: Limits,
}

impl Worker {
    /// From these variables, as the worker itself reads them.
    pub fn read(variables: &HashMap<String, String>) -> Result<Self, SettingsError> {
        Self::of_which(variables).0
    }

    /// The same, and the names of those variables that are not among what is read, sorted.
    pub fn of_which(variables: &HashMap<String, String>) -> (Result<Self, SettingsError>, BTreeSet<String>) {
        let unread = RefCell::new(variables.keys().cloned().collect::<BTreeSet<_>>());
        let lookup = |name: &str| {
            unread.borrow_mut().remove(name);
            variables.get(name).cloned()
        };
        let read = Environment::read(&lookup, |environment| Self {
            model: ModelSettings::read(environment),
            price: price(environment),
            limits: limits(environment),
        });
        (read, unread.into_inner())
    }
}

impl Stack {
    /// Asks the worker's function what is deployed.
    ///
    /// # Errors
    /// Without credentials, permission, region or such a stack.
    pub async fn find(place: &Place) -> Result<Self, Failure> {
        let sdk = sdk(place.region.clone()).await?;
        let region = region(&sdk)?;
        let name = format!("{}-worker", place.prefix);
        let client = aws_sdk_lambda::Client::new(&sdk);
        let asked = client.get_function_configuration().function_name(&name).qualifier("live").send().await;
        let function = asked.map_err(|error| {
            let missing = error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception());
            if missing {
                no_such_stack(&place.prefix, &region)
            } else {
                error::of_aws("lambda:GetFunctionConfiguration", &error)
            }
        })?;
        Self::of(place.prefix.clone(), region, sdk, function)
    }

    fn of(
        prefix: String,
        region: String,
        sdk: SdkConfig,
        function: GetFunctionConfigurationOutput,
    ) -> Result<Self, Failure> {
        let worker_version = function.version.unwrap_or_default();
        let environment = function
            .environment
            .unwrap_or_else(|| aws_sdk_lambda::types::EnvironmentResponse::builder().build());
        if let Some(fault) = environment.error {
            return Err(Failure::not_allowed(format!(
                "These credentials may not read the worker's settings, which are under a key of yours: ask for kms:Decrypt (AWS says: {}).",
                text::shown(fault.message.as_deref().unwrap_or("no message"))
            )));
        }
        let environment = environment.variables.unwrap_or_default();
        let setting = |name: &str| {
            environment.get(name).filter(|value| !value.is_empty()).cloned().ok_or_else(|| {
                Failure::failed(format!(
                    "The function {prefix}-worker lacks {name}, so it is no worker of Nightshift or a much older one: check --prefix, or deploy."
                ))
            })
        };
        Ok(Self {
            jobs_url: setting("NIGHTSHIFT_JOBS_URL")?,
            dead_letters_url: setting("NIGHTSHIFT_DEAD_LETTERS_URL")?,
            ledger_table: setting("NIGHTSHIFT_LEDGER_TABLE")?,
            worker_version,
            environment,
            prefix,
            region,
            sdk,
        })
    }

    /// The worker's settings, read as the worker itself reads them.
    ///
    /// # Errors
    /// Where this build cannot read what the deployed one is told.
    pub fn worker(&self) -> Result<Worker, Failure> {
        Worker::read(&self.environment).map_err(|fault| {
            Failure::failed(format!(
                "The settings of {} cannot be read by this build, so it is older or newer than what is deployed: {fault}",
                self.worker_function()
            ))
        })
    }

    /// Whether AWS itself is asked. What stands in for it on one machine speaks plain HTTP, counts exactly, and is never
    /// behind.
    pub fn is_aws(&self) -> bool {
        self.jobs_url.starts_with("https://")
    }

    /// Where requests go, for whoever is about to send a secret.
    pub fn endpoint(&self) -> &str {
        self.sdk.endpoint_url().unwrap_or("AWS's own endpoint")
    }

    /// Name of the worker's function.
    pub fn worker_function(&self) -> String {
        format!("{}-worker", self.prefix)
    }

    /// URL of the queue of what SQS gave up on: beside the jobs queue, by its name in `queues.tf`.
    pub fn crashed_url(&self) -> String {
        let beside = self.jobs_url.rsplit_once('/').map_or("", |(beside, _)| beside);
        format!("{beside}/{}-crashed", self.prefix)
    }

    /// Name of the jobs queue.
    pub fn jobs_queue(&self) -> &str {
        self.jobs_url.rsplit('/').next().unwrap_or_default()
    }

    /// What a person is told before a change.
    pub fn named(&self) -> String {
        format!("stack {} in {}", self.prefix, self.region)
    }
}

fn no_such_stack(prefix: &str, region: &str) -> Failure {
    Failure::not_found(format!(
        "There is no stack {} in {region} in this account: check --prefix, --region and AWS_PROFILE.",
        text::shown(prefix)
    ))
}

/// The region that is meant.
///
/// # Errors
/// Where nobody says which, or what is said is none.
pub fn region(sdk: &SdkConfig) -> Result<String, Failure> {
    let Some(region) = sdk.region().map(ToString::to_string).filter(|region| !region.is_empty()) else {
        return Err(Failure::usage(
            "The region is not known: add --region, or set AWS_REGION or one in the profile.",
        ));
    };
    if !region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Err(Failure::usage(format!(
            "{region:?} is no region of AWS: give one such as eu-central-1."
        )));
    }
    Ok(region)
}

/// The model key that stands there.
///
/// # Errors
/// Where it is missing, or may not be read.
pub async fn stored_key(sdk: &SdkConfig, place: &KeySettings) -> Result<SecretString, Failure> {
    let stored = match place {
        KeySettings::Secret(id) => StoredModelKey::secret(sdk, id),
        KeySettings::Parameter(name) => StoredModelKey::parameter(sdk, name),
        KeySettings::Given(key) => StoredModelKey::given(key.clone()),
    };
    stored.get().await.map_err(|e| error::of_port(&e))
}

/// What all clients share: the SDK's own sources of credentials, and its own proxies and certificates.
pub async fn sdk(region: Option<String>) -> Result<SdkConfig, Failure> {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client()?)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        );
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    Ok(loader.load().await)
}

/// With the system's certificates, or with those of `AWS_CA_BUNDLE` alone, as the AWS CLI has it: the Rust SDK does not
/// read that variable by itself, and the stack on one machine makes its own certificate.
fn http_client() -> Result<SharedHttpClient, Failure> {
    let builder = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring));
    let Some(bundle) = std::env::var_os("AWS_CA_BUNDLE").filter(|bundle| !bundle.is_empty()) else {
        return Ok(builder.build_https());
    };
    let bundle = PathBuf::from(bundle);
    let pem = std::fs::read(&bundle).map_err(|error| Failure::of_path(&bundle, "read", &error))?;
    // What holds none would be found out in the middle of the first connection.
    if !pem.windows(PEM_BEGINS.len()).any(|part| part == PEM_BEGINS) {
        return Err(Failure::usage(format!(
            "{} holds no certificate: name a PEM file in AWS_CA_BUNDLE, or unset it.",
            bundle.display()
        )));
    }
    let trusted =
        TlsContext::builder().with_trust_store(TrustStore::empty().with_pem_certificate(pem)).build();
    let trusted = trusted.map_err(|error| {
        Failure::usage(format!("The certificates of {} cannot be used: {error}.", bundle.display()))
    })?;
    Ok(builder.tls_context(trusted).build_https())
}

/// How a certificate begins in a PEM file (RFC 7468).
const PEM_BEGINS: &[u8] = b"-----BEGIN CERTIFICATE-----";
