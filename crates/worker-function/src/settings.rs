//! The environment, read once into one struct per concern.
//!
//! Every variable that is missing, cannot be read or contradicts another is reported together with the others, by
//! name and with what to set: who fixes a deployment wants one round, not ten.

use nightshift_core::cost::Price;
use nightshift_core::limits::Limits;
use nightshift_models::prices::micro_usd;
use nightshift_models::{RehearsalSpec, StructuredOutput, price_of};
use secrecy::SecretString;
use tracing::level_filters::LevelFilter;

/// Everything that the worker is told from outside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stack's name, the dimension `Stack` of every metric.
    pub stack: String,
    /// The AWS region.
    pub region: String,
    /// The function's published version; 0 for `$LATEST`, which anybody can change at any time.
    pub function_version: u64,
    /// Where the worker's own crates begin to log.
    pub log_level: LevelFilter,
    /// The queues.
    pub queues: QueueSettings,
    /// The name of the ledger's table.
    pub ledger_table: String,
    /// The model.
    pub model: ModelSettings,
    /// All limits; they agree with each other.
    pub limits: Limits,
}

/// The queues that the worker speaks to.
#[derive(Debug, Clone)]
pub struct QueueSettings {
    /// URL of the jobs queue, for the visibility of its messages.
    pub jobs_url: String,
    /// URL of the dead-letters queue.
    pub dead_letters_url: String,
}

/// Which model, where, and what it costs.
#[derive(Debug, Clone)]
pub struct ModelSettings {
    /// The provider, with what only it needs.
    pub provider: ProviderSettings,
    /// The model's id.
    pub id: String,
    /// Where it is called, if not at the provider's own address.
    pub base_url: Option<String>,
    /// How the schema of an answer is sent; `None`: in the way that is usual for the provider and the model.
    pub structured_output: Option<StructuredOutput>,
    /// What it costs.
    pub price: Price,
}

/// Whose model it is.
#[derive(Debug, Clone)]
pub enum ProviderSettings {
    /// Anthropic's Messages API.
    Anthropic(KeySettings),
    /// Amazon Bedrock: with the function's role, or with a key of Bedrock's own.
    Bedrock(Option<KeySettings>),
    /// Chat completions; a server of one's own may need no key.
    OpenAi(Option<KeySettings>),
    /// The model inside the worker, which costs nothing.
    Rehearsal(RehearsalSpec),
}

/// Where the provider's key is.
#[derive(Debug, Clone)]
pub enum KeySettings {
    /// A Secrets Manager secret.
    Secret(String),
    /// An SSM SecureString.
    Parameter(String),
    /// The key itself.
    Given(SecretString),
}

/// What is wrong with the environment; one sentence for each fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the worker does not start, because its environment is not usable: {}", .0.join(" "))]
pub struct SettingsError(pub Vec<String>);

impl Settings {
    /// Reads the settings through `lookup`, which is `std::env::var` in the function and a table in tests.
    ///
    /// # Errors
    /// With every fault at once.
    pub fn from(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let read = Reader { lookup: &lookup, faults: Vec::new() };
        read.settings()
    }
}

/// Collects faults instead of stopping at the first; what could not be read has a stand-in that is never used.
struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
}

impl Reader<'_> {
    fn settings(mut self) -> Result<Settings, SettingsError> {
        // Lambda sets these itself, and its runtime client stops without them.
        for name in [
            "AWS_LAMBDA_RUNTIME_API",
            "AWS_LAMBDA_FUNCTION_NAME",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
            "AWS_LAMBDA_FUNCTION_VERSION",
        ] {
            self.required(
                name,
                "it is set by Lambda, so this program must be started by Lambda or by what stands in for it",
            );
        }
        let stack = self.required("NIGHTSHIFT_STACK", "set the prefix of the stack");
        if stack.len() > 255 || stack.bytes().any(|b| !b.is_ascii_graphic()) {
            self.fault("NIGHTSHIFT_STACK must be 1 to 255 visible ASCII characters, as CloudWatch wants of a dimension.");
        }
        let version = self.optional("AWS_LAMBDA_FUNCTION_VERSION");
        let settings = Settings {
            stack,
            region: self.required("AWS_REGION", "set the region that the stack is in"),
            function_version: version.and_then(|version| version.parse().ok()).unwrap_or(0),
            log_level: self.log_level(),
            queues: QueueSettings {
                jobs_url: self.url("NIGHTSHIFT_JOBS_URL", "set the URL of the jobs queue"),
                dead_letters_url: self
                    .url("NIGHTSHIFT_DEAD_LETTERS_URL", "set the URL of the dead-letters queue"),
            },
            ledger_table: self.required("NIGHTSHIFT_LEDGER_TABLE", "set the name of the ledger's table"),
            model: self.model(),
            limits: self.limits(),
        };
        // A number that was not read would contradict others that are right.
        if self.faults.is_empty() {
            let contradictions = settings.limits.contradictions();
            self.faults.extend(contradictions.into_iter().map(|fault| format!("NIGHTSHIFT_{fault}")));
        }
        if self.faults.is_empty() { Ok(settings) } else { Err(SettingsError(self.faults)) }
    }

    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// An empty variable is an absent one: that is how Terraform and shells leave one out.
    fn optional(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn required(&mut self, name: &str, advice: &str) -> String {
        self.optional(name).unwrap_or_else(|| {
            self.fault(format!("{name} is missing: {advice}."));
            String::new()
        })
    }

    fn url(&mut self, name: &str, advice: &str) -> String {
        let url = self.required(name, advice);
        if !(url.is_empty() || url.starts_with("https://") || url.starts_with("http://")) {
            self.fault(format!("{name} is {url:?}, which is not a URL: {advice}."));
        }
        url
    }

    fn log_level(&mut self) -> LevelFilter {
        match self.optional("NIGHTSHIFT_LOG") {
            None => LevelFilter::INFO,
            Some(level) => level.parse().unwrap_or_else(|_| {
                self.fault(format!(
                    "NIGHTSHIFT_LOG is {level:?}: set error, warn, info, debug, trace or off."
                ));
                LevelFilter::INFO
            }),
        }
    }

    fn model(&mut self) -> ModelSettings {
        let id = self.required("NIGHTSHIFT_MODEL", "set the model's id");
        let base_url = self
            .optional("NIGHTSHIFT_MODEL_BASE_URL")
            .map(|_| self.url("NIGHTSHIFT_MODEL_BASE_URL", "set the address where the model is called"));
        let name = self.required("NIGHTSHIFT_PROVIDER", "set anthropic, bedrock, openai or rehearsal");
        let key = self.key();
        let provider = match name.as_str() {
            "anthropic" => Some(ProviderSettings::Anthropic(self.needed(key, &name))),
            "bedrock" => Some(ProviderSettings::Bedrock(key)),
            "openai" if base_url.is_some() => Some(ProviderSettings::OpenAi(key)),
            "openai" => Some(ProviderSettings::OpenAi(Some(self.needed(key, &name)))),
            "rehearsal" => self.rehearsal(&id).map(ProviderSettings::Rehearsal),
            "" => None,
            other => {
                self.fault(format!(
                    "NIGHTSHIFT_PROVIDER is {other:?}: set anthropic, bedrock, openai or rehearsal."
                ));
                None
            }
        };
        let structured_output = self.structured_output();
        let sends_a_key = match &provider {
            Some(ProviderSettings::Anthropic(_)) => true,
            Some(ProviderSettings::OpenAi(key)) => key.is_some(),
            _ => false,
        };
        if sends_a_key && base_url.as_deref().is_some_and(travels_in_clear) {
            self.fault(
                "NIGHTSHIFT_MODEL_BASE_URL begins with http://, which would send the model key in clear: set https://, or no key where the server asks for none."
                    .to_owned(),
            );
        }
        let price = self.price(provider.is_some() && !id.is_empty(), &name, &id);
        let provider = provider.unwrap_or(ProviderSettings::Bedrock(None));
        ModelSettings { provider, id, base_url, structured_output, price }
    }

    fn structured_output(&mut self) -> Option<StructuredOutput> {
        match self.optional("NIGHTSHIFT_STRUCTURED_OUTPUT")?.as_str() {
            "on" => Some(StructuredOutput::TextFormat),
            "off" => Some(StructuredOutput::None),
            "tool" => Some(StructuredOutput::Tool),
            other => {
                self.fault(format!(
                    "NIGHTSHIFT_STRUCTURED_OUTPUT is {other:?}: set on (the provider's own), tool (a tool that the model must use) or off, \
                     or leave it out for what is usual for the model."
                ));
                None
            }
        }
    }

    fn needed(&mut self, key: Option<KeySettings>, provider: &str) -> KeySettings {
        key.unwrap_or_else(|| {
            self.fault(format!(
                "The key of {provider} is missing: set NIGHTSHIFT_MODEL_KEY_SECRET (the name or ARN of a Secrets Manager secret) \
                 or NIGHTSHIFT_MODEL_KEY_PARAMETER (an SSM SecureString)."
            ));
            KeySettings::Given(SecretString::default())
        })
    }

    fn key(&mut self) -> Option<KeySettings> {
        let secret = self.optional("NIGHTSHIFT_MODEL_KEY_SECRET").map(KeySettings::Secret);
        let parameter = self.optional("NIGHTSHIFT_MODEL_KEY_PARAMETER").map(KeySettings::Parameter);
        let given = self.optional("NIGHTSHIFT_MODEL_KEY").map(|key| KeySettings::Given(key.into()));
        let mut keys: Vec<_> = [secret, parameter, given].into_iter().flatten().collect();
        if keys.len() > 1 {
            self.fault(
                "More than one of NIGHTSHIFT_MODEL_KEY_SECRET, NIGHTSHIFT_MODEL_KEY_PARAMETER and NIGHTSHIFT_MODEL_KEY is set: \
                 which one counts would be a guess, so set one.",
            );
        }
        keys.pop()
    }

    fn rehearsal(&mut self, spec: &str) -> Option<RehearsalSpec> {
        RehearsalSpec::parse(spec).map_err(|error| self.fault(format!("NIGHTSHIFT_MODEL: {error}."))).ok()
    }

    fn price(&mut self, known_model: bool, provider: &str, model: &str) -> Price {
        const NAMES: [&str; 2] =
            ["NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK"];
        let given = NAMES.map(|name| self.optional(name).map(|dollars| self.dollars(name, &dollars)));
        match given {
            [Some(input), Some(output)] => {
                return Price::flat(input, output);
            }
            [None, None] => {}
            _ => self.fault(format!("Only one of {} and {} is set: a price has both.", NAMES[0], NAMES[1])),
        }
        let listed = price_of(provider, model);
        if listed.is_none() && known_model && given == [None, None] {
            self.fault(format!(
                "The price of NIGHTSHIFT_MODEL {model:?} of {provider} is not known: set {} and {}, in dollars per million tokens.",
                NAMES[0], NAMES[1]
            ));
        }
        listed.unwrap_or(Price::flat(0, 0))
    }

    fn dollars(&mut self, name: &str, dollars: &str) -> u64 {
        micro_usd(dollars).unwrap_or_else(|| {
            self.fault(format!("{name} is {dollars:?}: set an amount of dollars such as 0.25 or 15."));
            0
        })
    }

    fn limits(&mut self) -> Limits {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let mut limits = Limits::default();
        let l = &mut limits;
        self.number("CALL_TIMEOUT_MS", &mut l.call_timeout_ms);
        self.number("CALL_LIMIT", &mut l.call_limit);
        self.number("REASK_LIMIT", &mut l.reask_limit);
        self.number("PAID_CALL_LIMIT", &mut l.paid_call_limit);
        self.number("CRASH_LIMIT", &mut l.crash_limit);
        self.number("BACKOFF_BASE_MS", &mut l.backoff_base_ms);
        self.number("BACKOFF_MS_MAX", &mut l.backoff_ms_max);
        self.number("HAND_BACK_BASE_MS", &mut l.hand_back_base_ms);
        self.number("HAND_BACK_MS_MAX", &mut l.hand_back_ms_max);
        self.number("CAPACITY_WAIT_MS_MAX", &mut l.capacity_wait_ms_max);
        self.number("LEASE_MARGIN_MS", &mut l.lease_margin_ms);
        self.number("DEADLINE_MARGIN_MS", &mut l.deadline_margin_ms);
        self.number("BODY_BYTES_MAX", &mut l.body_bytes_max);
        self.number("OUTPUT_BYTES_MAX", &mut l.output_bytes_max);
        self.number("FUNCTION_TIMEOUT_MS", &mut l.function_timeout_ms);
        self.number("VISIBILITY_TIMEOUT_MS", &mut l.visibility_timeout_ms);
        self.number("RETENTION_MS", &mut l.retention_ms);
        self.number("MAX_RECEIVE_COUNT", &mut l.receive_count_max);
        self.number("BATCH_SIZE", &mut l.batch_size);
        self.number("MAXIMUM_CONCURRENCY", &mut l.concurrency_max);
        self.number("REQUESTS_PER_MINUTE", &mut l.requests_per_minute);
        self.number("TOKENS_PER_MINUTE", &mut l.tokens_per_minute);
        for (name, ms) in [
            ("RESULT_EXPIRY_DAYS", &mut l.result_expiry_ms),
            ("FAILURE_EXPIRY_DAYS", &mut l.failure_expiry_ms),
        ] {
            let mut days = *ms / DAY_MS;
            self.number(name, &mut days);
            *ms = days.saturating_mul(DAY_MS);
        }
        const CAP: &str = "NIGHTSHIFT_SPEND_CAP_USD_PER_DAY";
        if let Some(dollars) = self.optional(CAP) {
            l.spend_cap_micro_usd = self.dollars(CAP, &dollars);
        }
        limits
    }

    fn number<T: std::str::FromStr + std::fmt::Display>(&mut self, suffix: &str, number: &mut T) {
        let name = format!("NIGHTSHIFT_{suffix}");
        let Some(text) = self.optional(&name) else { return };
        match text.parse() {
            Ok(read) => *number = read,
            Err(_) => self.fault(format!("{name} is {text:?}: set a whole number; the default is {number}.")),
        }
    }
}

/// Plain HTTP to another machine than this one.
fn travels_in_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let here =
        host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
    !here || authority.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::collections::BTreeMap;

    /// What Lambda and Terraform set at least.
    const LEAST: [(&str, &str); 12] = [
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
        ("AWS_LAMBDA_FUNCTION_NAME", "prod-worker"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "7"),
        ("AWS_REGION", "eu-west-1"),
        ("NIGHTSHIFT_STACK", "prod"),
        ("NIGHTSHIFT_JOBS_URL", "https://sqs.eu-west-1.amazonaws.com/1/prod-jobs"),
        ("NIGHTSHIFT_DEAD_LETTERS_URL", "https://sqs.eu-west-1.amazonaws.com/1/prod-dead-letters"),
        ("NIGHTSHIFT_LEDGER_TABLE", "prod-ledger"),
        ("NIGHTSHIFT_PROVIDER", "anthropic"),
        ("NIGHTSHIFT_MODEL", "claude-haiku-5-5"),
        ("NIGHTSHIFT_MODEL_KEY_SECRET", "prod/model-key"),
    ];

    fn with(changes: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
        let mut environment: BTreeMap<_, _> = LEAST.into_iter().collect();
        environment.extend(changes.iter().copied());
        Settings::from(|name| environment.get(name).map(|value| (*value).to_owned())).map_err(|e| e.0)
    }

    #[test]
    fn the_least_environment_is_enough_and_has_the_defaults() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.stack, "prod");
        assert_eq!(settings.region, "eu-west-1");
        assert_eq!(settings.function_version, 7);
        assert_eq!(settings.log_level, LevelFilter::INFO);
        assert_eq!(settings.limits, Limits::default());
        assert!(settings.model.price.ordinary.output_micro_usd_per_mtok > 0);
        assert!(
            matches!(&settings.model.provider, ProviderSettings::Anthropic(KeySettings::Secret(id)) if id == "prod/model-key")
        );
    }

    #[test]
    fn every_number_is_read_into_its_own_limit() {
        let settings = with(&[
            ("NIGHTSHIFT_CALL_TIMEOUT_MS", "100001"),
            ("NIGHTSHIFT_CALL_LIMIT", "4"),
            ("NIGHTSHIFT_REASK_LIMIT", "1"),
            ("NIGHTSHIFT_PAID_CALL_LIMIT", "7"),
            ("NIGHTSHIFT_CRASH_LIMIT", "2"),
            ("NIGHTSHIFT_BACKOFF_BASE_MS", "1001"),
            ("NIGHTSHIFT_BACKOFF_MS_MAX", "30001"),
            ("NIGHTSHIFT_HAND_BACK_BASE_MS", "30002"),
            ("NIGHTSHIFT_HAND_BACK_MS_MAX", "900003"),
            ("NIGHTSHIFT_CAPACITY_WAIT_MS_MAX", "43200004"),
            ("NIGHTSHIFT_LEASE_MARGIN_MS", "10005"),
            ("NIGHTSHIFT_DEADLINE_MARGIN_MS", "10006"),
            ("NIGHTSHIFT_BODY_BYTES_MAX", "900007"),
            ("NIGHTSHIFT_OUTPUT_BYTES_MAX", "300008"),
            ("NIGHTSHIFT_RESULT_EXPIRY_DAYS", "91"),
            ("NIGHTSHIFT_FAILURE_EXPIRY_DAYS", "31"),
            ("NIGHTSHIFT_FUNCTION_TIMEOUT_MS", "300009"),
            ("NIGHTSHIFT_VISIBILITY_TIMEOUT_MS", "1800060"),
            ("NIGHTSHIFT_RETENTION_MS", "604800011"),
            ("NIGHTSHIFT_MAX_RECEIVE_COUNT", "101"),
            ("NIGHTSHIFT_BATCH_SIZE", "9"),
            ("NIGHTSHIFT_MAXIMUM_CONCURRENCY", "11"),
            ("NIGHTSHIFT_REQUESTS_PER_MINUTE", "4000"),
            ("NIGHTSHIFT_TOKENS_PER_MINUTE", "400000"),
            ("NIGHTSHIFT_SPEND_CAP_USD_PER_DAY", "12.5"),
            ("NIGHTSHIFT_LOG", "debug"),
        ])
        .unwrap();
        insta::assert_debug_snapshot!(settings.limits);
        assert_eq!(settings.log_level, LevelFilter::DEBUG);
    }

    #[test]
    fn all_that_is_missing_is_reported_at_once() {
        let faults = Settings::from(|_| None).unwrap_err().0;
        for (name, _) in LEAST.iter().take(11) {
            assert!(faults.iter().any(|fault| fault.starts_with(&format!("{name} is missing: "))), "{name}");
        }
        assert_eq!(faults.len(), 11, "{faults:#?}");
    }

    #[test]
    fn each_fault_names_its_variable_and_says_what_to_set() {
        for (changes, expected) in [
            (
                vec![("NIGHTSHIFT_CALL_LIMIT", "five")],
                "NIGHTSHIFT_CALL_LIMIT is \"five\": set a whole number; the default is 5.",
            ),
            (
                vec![("NIGHTSHIFT_CALL_LIMIT", "-1")],
                "NIGHTSHIFT_CALL_LIMIT is \"-1\": set a whole number; the default is 5.",
            ),
            (
                vec![("NIGHTSHIFT_CALL_TIMEOUT_MS", "295000")],
                "NIGHTSHIFT_CALL_TIMEOUT_MS (295000) does not fit into FUNCTION_TIMEOUT_MS less DEADLINE_MARGIN_MS (290000): raise the function's timeout or lower the call's.",
            ),
            (
                vec![("NIGHTSHIFT_PROVIDER", "mock")],
                "NIGHTSHIFT_PROVIDER is \"mock\": set anthropic, bedrock, openai or rehearsal.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL", "claude-unheard-of")],
                "The price of NIGHTSHIFT_MODEL \"claude-unheard-of\" of anthropic is not known: set NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK and NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK, in dollars per million tokens.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "1")],
                "Only one of NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK and NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK is set: a price has both.",
            ),
            (
                vec![
                    ("NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "cheap"),
                    ("NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK", "1"),
                ],
                "NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK is \"cheap\": set an amount of dollars such as 0.25 or 15.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_KEY_SECRET", " ")],
                "The key of anthropic is missing: set NIGHTSHIFT_MODEL_KEY_SECRET (the name or ARN of a Secrets Manager secret) or NIGHTSHIFT_MODEL_KEY_PARAMETER (an SSM SecureString).",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_KEY", "k")],
                "More than one of NIGHTSHIFT_MODEL_KEY_SECRET, NIGHTSHIFT_MODEL_KEY_PARAMETER and NIGHTSHIFT_MODEL_KEY is set: which one counts would be a guess, so set one.",
            ),
            (
                vec![("NIGHTSHIFT_JOBS_URL", "prod-jobs")],
                "NIGHTSHIFT_JOBS_URL is \"prod-jobs\", which is not a URL: set the URL of the jobs queue.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_BASE_URL", "localhost:8080")],
                "NIGHTSHIFT_MODEL_BASE_URL is \"localhost:8080\", which is not a URL: set the address where the model is called.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_BASE_URL", "HTTP://models.example.com/v1")],
                "NIGHTSHIFT_MODEL_BASE_URL is \"HTTP://models.example.com/v1\", which is not a URL: set the address where the model is called.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_BASE_URL", "http://models.example.com/v1")],
                "NIGHTSHIFT_MODEL_BASE_URL begins with http://, which would send the model key in clear: set https://, or no key where the server asks for none.",
            ),
            (
                vec![("NIGHTSHIFT_MODEL_BASE_URL", "http://127.0.0.1@example.com")],
                "NIGHTSHIFT_MODEL_BASE_URL begins with http://, which would send the model key in clear: set https://, or no key where the server asks for none.",
            ),
            (
                vec![("NIGHTSHIFT_LOG", "loud")],
                "NIGHTSHIFT_LOG is \"loud\": set error, warn, info, debug, trace or off.",
            ),
            (
                vec![("NIGHTSHIFT_STACK", "prod ü")],
                "NIGHTSHIFT_STACK must be 1 to 255 visible ASCII characters, as CloudWatch wants of a dimension.",
            ),
            (
                vec![("NIGHTSHIFT_SPEND_CAP_USD_PER_DAY", "$50")],
                "NIGHTSHIFT_SPEND_CAP_USD_PER_DAY is \"$50\": set an amount of dollars such as 0.25 or 15.",
            ),
            (
                vec![("NIGHTSHIFT_PROVIDER", "rehearsal"), ("NIGHTSHIFT_MODEL", "latency=5")],
                "NIGHTSHIFT_MODEL: the rehearsal's spec: latency is not one of its members.",
            ),
        ] {
            assert_eq!(with(&changes).unwrap_err(), [expected], "{changes:?}");
        }
    }

    #[test]
    fn a_contradiction_is_not_reported_beside_a_number_that_was_not_read() {
        let faults =
            with(&[("NIGHTSHIFT_CALL_TIMEOUT_MS", "295000"), ("NIGHTSHIFT_FUNCTION_TIMEOUT_MS", "10min")])
                .unwrap_err();
        assert_eq!(
            faults,
            ["NIGHTSHIFT_FUNCTION_TIMEOUT_MS is \"10min\": set a whole number; the default is 300000."]
        );
    }

    #[test]
    fn each_provider_takes_the_key_that_it_needs() {
        let no_key = ("NIGHTSHIFT_MODEL_KEY_SECRET", "");
        let price =
            [("NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "0.8"), ("NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK", "4")];
        let provider = |changes: &[(&str, &str)]| {
            let all: Vec<_> = changes.iter().chain(&price).copied().collect();
            with(&all).map(|settings| settings.model)
        };
        let bedrock = provider(&[("NIGHTSHIFT_PROVIDER", "bedrock"), no_key]).unwrap();
        assert!(matches!(bedrock.provider, ProviderSettings::Bedrock(None)));
        assert_eq!(bedrock.price, Price::flat(800_000, 4_000_000));
        let local = provider(&[
            ("NIGHTSHIFT_PROVIDER", "openai"),
            ("NIGHTSHIFT_MODEL_BASE_URL", "http://127.0.0.1:11434/v1"),
            no_key,
        ])
        .unwrap();
        assert!(matches!(local.provider, ProviderSettings::OpenAi(None)));
        assert_eq!(local.base_url.as_deref(), Some("http://127.0.0.1:11434/v1"));
        assert!(provider(&[("NIGHTSHIFT_PROVIDER", "openai"), no_key]).is_err());
        let parameter = provider(&[("NIGHTSHIFT_MODEL_KEY_PARAMETER", "/prod/key"), no_key]).unwrap();
        assert!(
            matches!(parameter.provider, ProviderSettings::Anthropic(KeySettings::Parameter(name)) if name == "/prod/key")
        );
        let given = provider(&[("NIGHTSHIFT_MODEL_KEY", "sk"), no_key]).unwrap();
        assert!(
            matches!(given.provider, ProviderSettings::Anthropic(KeySettings::Given(key)) if key.expose_secret() == "sk")
        );
        let rehearsal =
            with(&[("NIGHTSHIFT_PROVIDER", "rehearsal"), ("NIGHTSHIFT_MODEL", "rehearsal"), no_key]).unwrap();
        assert_eq!(rehearsal.model.price.ordinary.output_micro_usd_per_mtok, 0);
    }

    #[test]
    fn structured_output_is_on_off_or_a_tool() {
        for (word, expected) in [
            ("", None),
            ("on", Some(StructuredOutput::TextFormat)),
            ("off", Some(StructuredOutput::None)),
            ("tool", Some(StructuredOutput::Tool)),
        ] {
            let settings = with(&[("NIGHTSHIFT_STRUCTURED_OUTPUT", word)]).unwrap();
            assert_eq!(settings.model.structured_output, expected, "{word}");
        }
        let faults = with(&[("NIGHTSHIFT_STRUCTURED_OUTPUT", "yes")]).unwrap_err();
        assert!(faults[0].contains("set on"), "{faults:?}");
    }

    #[test]
    fn latest_has_no_version() {
        assert_eq!(with(&[("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")]).unwrap().function_version, 0);
    }

    #[test]
    fn a_given_key_is_never_shown() {
        let settings =
            with(&[("NIGHTSHIFT_MODEL_KEY_SECRET", ""), ("NIGHTSHIFT_MODEL_KEY", "sk-secret")]).unwrap();
        assert!(!format!("{settings:?}").contains("sk-secret"));
    }
}
