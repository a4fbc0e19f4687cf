//! Each group, and all of them together.

use std::collections::BTreeMap;

use nightshift_core::cost::Price;
use nightshift_core::limits::Limits;
use nightshift_models::StructuredOutput;
use secrecy::ExposeSecret;
use tracing::level_filters::LevelFilter;

use super::*;

/// All groups.
#[derive(Debug)]
struct Settings {
    function: FunctionSettings,
    stack: StackSettings,
    queues: QueueSettings,
    ledger: LedgerSettings,
    model: ModelSettings,
    price: Price,
    limits: Limits,
}

fn settings(lookup: impl Fn(&str) -> Option<String>) -> Result<Settings, SettingsError> {
    Environment::read(&lookup, |environment| Settings {
        function: FunctionSettings::read(environment),
        stack: StackSettings::read(environment),
        queues: QueueSettings::read(environment),
        ledger: LedgerSettings::read(environment),
        model: ModelSettings::read(environment),
        price: price(environment),
        limits: limits(environment),
    })
}

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
    settings(|name| environment.get(name).map(|value| (*value).to_owned())).map_err(|e| e.0)
}

#[test]
fn the_least_environment_is_enough_and_has_the_defaults() {
    let settings = with(&[]).unwrap();
    assert_eq!(settings.stack.name, "prod");
    assert_eq!(settings.stack.region, "eu-west-1");
    assert_eq!(settings.ledger.table, "prod-ledger");
    assert!(settings.queues.jobs_url.ends_with("/prod-jobs"));
    assert!(settings.queues.dead_letters_url.ends_with("/prod-dead-letters"));
    assert_eq!(settings.function.version, 7);
    assert_eq!(settings.function.log_level, LevelFilter::INFO);
    assert_eq!(settings.limits, Limits::default());
    assert!(settings.price.ordinary.output_micro_usd_per_mtok > 0);
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
    let (read, default) = (format!("{:#?}", settings.limits), format!("{:#?}", Limits::default()));
    for (read, default) in read.lines().zip(default.lines()).filter(|(read, _)| read.contains(": ")) {
        assert_ne!(
            read, default,
            "read it in settings/limits.rs and set it to something else above, or nothing shows that it is read"
        );
    }
    insta::assert_debug_snapshot!(settings.limits);
    assert_eq!(settings.function.log_level, LevelFilter::DEBUG);
}

#[test]
fn the_sentinel_reads_what_a_stack_is_watched_by() {
    let named = ["REDRIVE_FUNCTION", "WORKER_FUNCTION", "WORKER_MAPPING"];
    let numbers = [
        ("RETENTION_MS", "11"),
        ("DEAD_LETTER_RETENTION_MS", "12"),
        ("SPEND_CAP_USD_PER_DAY", "13"),
        ("FUNCTION_TIMEOUT_MS", "14000"),
        ("LEASE_MARGIN_MS", "15"),
        ("BATCH_SIZE", "16"),
        ("MAXIMUM_CONCURRENCY", "17"),
    ];
    let lookup = |name: &str| {
        let name = name.strip_prefix("NIGHTSHIFT_")?;
        let number = numbers.iter().find(|(number, _)| *number == name).map(|(_, value)| (*value).to_owned());
        number.or_else(|| named.contains(&name).then(|| format!("the {name}")))
    };
    let watch = Environment::read(&lookup, WatchSettings::read).unwrap();
    insta::assert_debug_snapshot!(watch);
}

#[test]
fn all_that_is_missing_is_reported_at_once() {
    let faults = settings(|_| None).unwrap_err().0;
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
            "The key of anthropic is missing: set NIGHTSHIFT_MODEL_KEY_SECRET (the name or ARN of a Secrets Manager secret) or NIGHTSHIFT_MODEL_KEY_PARAMETER (an SSM SecureString); on your own machine, NIGHTSHIFT_MODEL_KEY is the key itself.",
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
            vec![
                ("NIGHTSHIFT_PROVIDER", "bedrock"),
                ("NIGHTSHIFT_MODEL", "amazon.nova-micro-v1:0"),
                ("NIGHTSHIFT_MODEL_BASE_URL", "http://models.example.com"),
            ],
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
        with(&all)
    };
    let bedrock = provider(&[("NIGHTSHIFT_PROVIDER", "bedrock"), no_key]).unwrap();
    assert!(matches!(bedrock.model.provider, ProviderSettings::Bedrock(None)));
    assert_eq!(bedrock.price, Price::flat(800_000, 4_000_000));
    let local = provider(&[
        ("NIGHTSHIFT_PROVIDER", "openai"),
        ("NIGHTSHIFT_MODEL_BASE_URL", "http://127.0.0.1:11434/v1"),
        no_key,
    ])
    .unwrap();
    assert!(matches!(local.model.provider, ProviderSettings::OpenAi(None)));
    assert_eq!(local.model.base_url.as_deref(), Some("http://127.0.0.1:11434/v1"));
    assert!(provider(&[("NIGHTSHIFT_PROVIDER", "openai"), no_key]).is_err());
    let parameter = provider(&[("NIGHTSHIFT_MODEL_KEY_PARAMETER", "/prod/key"), no_key]).unwrap();
    assert!(
        matches!(parameter.model.provider, ProviderSettings::Anthropic(KeySettings::Parameter(name)) if name == "/prod/key")
    );
    let given = provider(&[("NIGHTSHIFT_MODEL_KEY", "sk"), no_key]).unwrap();
    assert!(
        matches!(given.model.provider, ProviderSettings::Anthropic(KeySettings::Given(key)) if key.expose_secret() == "sk")
    );
    let rehearsal =
        with(&[("NIGHTSHIFT_PROVIDER", "rehearsal"), ("NIGHTSHIFT_MODEL", "rehearsal"), no_key]).unwrap();
    assert_eq!(rehearsal.price.ordinary.output_micro_usd_per_mtok, 0);
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
    assert_eq!(with(&[("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")]).unwrap().function.version, 0);
}

#[test]
fn a_given_key_is_never_shown() {
    let settings =
        with(&[("NIGHTSHIFT_MODEL_KEY_SECRET", ""), ("NIGHTSHIFT_MODEL_KEY", "sk-secret")]).unwrap();
    assert!(!format!("{settings:?}").contains("sk-secret"));
}

#[test]
fn a_group_is_read_by_itself() {
    let environment = BTreeMap::from([("NIGHTSHIFT_LEDGER_TABLE", "prod-ledger")]);
    let lookup = |name: &str| environment.get(name).map(|value| (*value).to_owned());
    assert_eq!(Environment::read(&lookup, LedgerSettings::read).unwrap().table, "prod-ledger");
    let faults = Environment::read(&lookup, QueueSettings::read).unwrap_err().0;
    assert!(
        faults.iter().all(|fault| fault.starts_with("NIGHTSHIFT_") && fault.contains("queue")),
        "{faults:?}"
    );
}

#[test]
fn a_variable_of_two_groups_is_missing_once() {
    let lookup = |name: &str| (name == "NIGHTSHIFT_PROVIDER").then(|| "bedrock".to_owned());
    let faults =
        Environment::read(&lookup, |environment| (ModelSettings::read(environment), price(environment)));
    assert_eq!(faults.unwrap_err().0, ["NIGHTSHIFT_MODEL is missing: set the model's id."]);
}
