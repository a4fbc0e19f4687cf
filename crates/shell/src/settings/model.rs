//! Which model, where, and with which key.

use std::net::IpAddr;

use nightshift_models::{RehearsalSpec, StructuredOutput};
use secrecy::SecretString;
use strum::{IntoStaticStr, VariantArray};

use super::Environment;

/// Which model, and where.
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

impl ProviderSettings {
    /// Where its key is; `None`: it needs none.
    #[must_use]
    pub fn key(&self) -> Option<&KeySettings> {
        match self {
            Self::Anthropic(key) => Some(key),
            Self::Bedrock(key) | Self::OpenAi(key) => key.as_ref(),
            Self::Rehearsal(_) => None,
        }
    }
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

/// The providers, by their words in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ProviderName {
    /// Anthropic's Messages API.
    Anthropic,
    /// Amazon Bedrock's Converse API.
    Bedrock,
    /// Chat completions.
    OpenAi,
    /// The model inside the worker.
    Rehearsal,
}

impl ProviderName {
    /// All of them.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Reads the word. `None`: it is a fault.
    pub(super) fn read(environment: &mut Environment<'_>) -> Option<Self> {
        const NAME: &str = "NIGHTSHIFT_PROVIDER";
        let words: Vec<&str> = Self::ALL.iter().map(|provider| provider.as_str()).collect();
        let advice = match words.split_last() {
            Some((last, others)) => format!("set {} or {last}", others.join(", ")),
            None => String::new(),
        };
        let word = environment.required(NAME, &advice);
        let provider = Self::ALL.iter().copied().find(|provider| provider.as_str() == word);
        if provider.is_none() && !word.is_empty() {
            environment.fault(format!("{NAME} is {word:?}: {advice}."));
        }
        provider
    }
}

impl ModelSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        let id = environment.required("NIGHTSHIFT_MODEL", "set the model's id");
        let base_url = environment.optional("NIGHTSHIFT_MODEL_BASE_URL").map(|_| {
            environment.url("NIGHTSHIFT_MODEL_BASE_URL", "set the address where the model is called")
        });
        let provider = provider(environment, &id, base_url.is_some());
        let structured_output = structured_output(environment);
        if provider.key().is_some() && base_url.as_deref().is_some_and(travels_in_clear) {
            environment.fault(
                "NIGHTSHIFT_MODEL_BASE_URL begins with http://, which would send the model key in clear: set https://, or no key where the server asks for none.",
            );
        }
        Self { provider, id, base_url, structured_output }
    }
}

fn provider(environment: &mut Environment<'_>, model: &str, elsewhere: bool) -> ProviderSettings {
    let named = ProviderName::read(environment);
    let key = key(environment);
    match named {
        Some(named @ ProviderName::Anthropic) => {
            return ProviderSettings::Anthropic(needed(environment, key, named));
        }
        Some(ProviderName::Bedrock) => return ProviderSettings::Bedrock(key),
        Some(ProviderName::OpenAi) if elsewhere => return ProviderSettings::OpenAi(key),
        Some(named @ ProviderName::OpenAi) => {
            return ProviderSettings::OpenAi(Some(needed(environment, key, named)));
        }
        Some(ProviderName::Rehearsal) => match RehearsalSpec::parse(model) {
            Ok(spec) => return ProviderSettings::Rehearsal(spec),
            Err(error) => environment.fault(format!("NIGHTSHIFT_MODEL: {error}.")),
        },
        None => {}
    }
    ProviderSettings::Bedrock(None)
}

fn structured_output(environment: &mut Environment<'_>) -> Option<StructuredOutput> {
    match environment.optional("NIGHTSHIFT_STRUCTURED_OUTPUT")?.as_str() {
        "on" => Some(StructuredOutput::TextFormat),
        "off" => Some(StructuredOutput::None),
        "tool" => Some(StructuredOutput::Tool),
        other => {
            environment.fault(format!(
                "NIGHTSHIFT_STRUCTURED_OUTPUT is {other:?}: set on (the provider's own), tool (a tool that the model must use) or off, \
                 or leave it out for what is usual for the model."
            ));
            None
        }
    }
}

fn needed(
    environment: &mut Environment<'_>,
    key: Option<KeySettings>,
    provider: ProviderName,
) -> KeySettings {
    key.unwrap_or_else(|| {
        environment.fault(format!(
            "The key of {} is missing: set NIGHTSHIFT_MODEL_KEY_SECRET (the name or ARN of a Secrets Manager secret) \
             or NIGHTSHIFT_MODEL_KEY_PARAMETER (an SSM SecureString); on your own machine, NIGHTSHIFT_MODEL_KEY is the key itself.",
            provider.as_str()
        ));
        KeySettings::Given(SecretString::default())
    })
}

fn key(environment: &mut Environment<'_>) -> Option<KeySettings> {
    let secret = environment.optional("NIGHTSHIFT_MODEL_KEY_SECRET").map(KeySettings::Secret);
    let parameter = environment.optional("NIGHTSHIFT_MODEL_KEY_PARAMETER").map(KeySettings::Parameter);
    let given = environment.optional("NIGHTSHIFT_MODEL_KEY").map(|key| KeySettings::Given(key.into()));
    let mut keys: Vec<_> = [secret, parameter, given].into_iter().flatten().collect();
    if keys.len() > 1 {
        environment.fault(
            "More than one of NIGHTSHIFT_MODEL_KEY_SECRET, NIGHTSHIFT_MODEL_KEY_PARAMETER and NIGHTSHIFT_MODEL_KEY is set: \
             which one counts would be a guess, so set one.",
        );
    }
    keys.pop()
}

/// Plain HTTP to another machine than this one.
fn travels_in_clear(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let host = match authority.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or(address),
        None => authority.split(':').next().unwrap_or(authority),
    };
    let here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    !here || authority.contains('@')
}
