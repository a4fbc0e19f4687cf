//! Which model a trial asks: the stack's, the rehearsal, a server of one's own, or what the environment says; and at which
//! price.
//!
//! **Invariant:** a price that somebody gives counts only where nobody knows better, so that a mistake in it lifts no cap.

use std::collections::HashMap;

use aws_credential_types::provider::ProvideCredentials as _;
use clap::{Args, ValueEnum};
use nightshift_aws::clients::{BehaviorVersion, SdkConfig};
use nightshift_models::price_of;
use nightshift_models::prices::{self, Typed};
use nightshift_shell::settings::{KeySettings, PRICES, ProviderName, ProviderSettings};

use crate::Context;
use crate::error::{self, Failure};
use crate::render::say;
use crate::stack::{self, Worker};

/// What a trial without a stack takes.
const WITHOUT_A_STACK: &str = "try without a stack: --provider rehearsal costs nothing, --provider server asks a server of your own, and --provider environment takes NIGHTSHIFT_PROVIDER, NIGHTSHIFT_MODEL and the worker's other variables from here";

/// Where the model's settings come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// The worker of the stack: its model, its key, its limits.
    Stack,
    /// The model within Nightshift, which costs nothing; --model is its spec.
    Rehearsal,
    /// A server of your own that takes chat completions and asks for no key; --base-url and --model name them.
    Server,
    /// The worker's variables in this command's own environment (`NIGHTSHIFT_PROVIDER`, ...).
    Environment,
}

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Where the model's settings come from.
    #[arg(long, value_enum, default_value_t = Provider::Stack)]
    provider: Provider,
    /// The address of --provider server, with its /v1: http://127.0.0.1:8080/v1.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Another model of the same provider; of the rehearsal, its spec.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// What --model costs where no list says so: dollars per million tokens read and written; nothing at a server of your
    /// own. Without --model, it is of model:NAME of --against.
    #[arg(long, value_name = "IN/OUT", value_parser = prices::typed)]
    pub price: Option<Typed>,
    /// How the model is sent the schema, instead of as it is there: by the provider's own way, as a tool that it must use, or
    /// in the prompt alone.
    #[arg(long, value_name = "HOW", value_parser = ["on", "tool", "off"])]
    structured_output: Option<String>,
}

/// Reads dollars, in millionths of one.
pub fn dollars(text: &str) -> Result<u64, String> {
    prices::micro_usd(text).ok_or_else(|| "write dollars, such as 0.25".to_owned())
}

/// The worker's variables, by which a model is connected to.
pub type Settings = HashMap<String, String>;

impl ModelArguments {
    /// # Errors
    /// Where a server of one's own is named in part.
    pub fn check(&self) -> Result<(), Failure> {
        let is_server = self.provider == Provider::Server;
        let sentence = match &self.base_url {
            Some(_) if !is_server => {
                "--base-url is for a server of your own: --provider server --base-url URL --model NAME."
            }
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                "--base-url must begin with http:// or https://, as in http://127.0.0.1:8080/v1."
            }
            url if is_server && (url.is_none() || self.model.is_none()) => {
                "A server of your own takes three: --provider server --base-url URL --model NAME."
            }
            _ => return Ok(()),
        };
        Err(Failure::usage(sentence))
    }

    /// What stands where the model's settings come from, and what else is asked of there.
    ///
    /// # Errors
    /// Where there is no such stack, or it cannot be asked.
    pub async fn found(&self, context: &Context) -> Result<Found, Failure> {
        let (mut settings, of_stack) = match self.provider {
            Provider::Stack => {
                let stack = context.stack().await.map_err(|failure| failure.or(WITHOUT_A_STACK))?;
                (stack.environment, Some((stack.region, stack.sdk)))
            }
            Provider::Rehearsal => (of_model(ProviderName::Rehearsal, "rehearsal"), None),
            Provider::Server => (of_model(ProviderName::OpenAi, ""), None),
            Provider::Environment => {
                let ours: Settings =
                    std::env::vars().filter(|(name, _)| name.starts_with("NIGHTSHIFT_")).collect();
                let (_, unread) = Worker::of_which(&ours);
                let unread: Vec<_> = unread.into_iter().filter(|name| name != "NIGHTSHIFT_PREFIX").collect();
                if !unread.is_empty() {
                    say(&format!("Of no effect on a model, or misspelt: {}.", unread.join(", ")));
                }
                (ours, None)
            }
        };
        let how = self.structured_output.clone().map(|how| ("NIGHTSHIFT_STRUCTURED_OUTPUT".to_owned(), how));
        settings.extend(how);
        Ok(Found { settings, of_stack, base_url: self.base_url.clone() })
    }
}

/// Where the settings come from.
pub struct Found {
    /// As they stand there.
    pub settings: Settings,
    of_stack: Option<(String, SdkConfig)>,
    base_url: Option<String>,
}

impl Found {
    /// The settings of another model: the price that stands there is not its own. `given` is what was typed for `option`.
    ///
    /// # Errors
    /// Where nobody knows its price.
    pub fn with_model(&self, model: &str, given: Option<&Typed>, option: &str) -> Result<Settings, Failure> {
        let mut settings = self.settings.clone();
        let former = settings.insert("NIGHTSHIFT_MODEL".to_owned(), model.to_owned());
        let [input, output] = PRICES;
        if let Some(url) = &self.base_url {
            let (per_input, per_output) = given.map_or(("0", "0"), |(input, output)| (input, output));
            settings.extend(
                [("NIGHTSHIFT_MODEL_BASE_URL", url.as_str()), (input, per_input), (output, per_output)]
                    .map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            return Ok(settings);
        }
        let provider = settings.get("NIGHTSHIFT_PROVIDER").cloned().unwrap_or_default();
        let is_its_own = former.as_deref() == Some(model) && settings.contains_key(input);
        if !is_its_own {
            settings.retain(|name, _| !PRICES.contains(&name.as_str()));
        }
        let is_known = is_its_own || price_of(&provider, model).is_some();
        match given {
            Some(_) if is_known => say(&format!("{option} is not used: the price of {model:?} is known.")),
            None if is_known => {}
            Some((per_input, per_output)) => {
                settings.insert(input.to_owned(), per_input.clone());
                settings.insert(output.to_owned(), per_output.clone());
            }
            // Of a provider that nobody knows, more is said later.
            None if ProviderName::ALL.iter().any(|name| name.as_str() == provider) => {
                return Err(Failure::usage(format!(
                    "No list has the price of {model:?} of {provider}: give {option} IN/OUT, in dollars per million tokens read and written."
                )));
            }
            None => {}
        }
        Ok(settings)
    }

    /// The region, and what AWS is asked by: for the model's key, or for the model. Where it is asked for neither, no
    /// credentials and no region are looked for.
    ///
    /// # Errors
    /// Where it is asked, and nobody says which region, or there are no credentials.
    pub async fn aws(&self, settings: &Settings, context: &Context) -> Result<(String, SdkConfig), Failure> {
        if let Some(of_stack) = &self.of_stack {
            return Ok(of_stack.clone());
        }
        let asked = Worker::read(settings).ok().map(|worker| worker.model.provider).filter(asks_aws);
        let Some(provider) = asked else {
            let none = SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12());
            return Ok((String::new(), none.build()));
        };
        let sdk = stack::sdk(context.place.region.clone()).await?;
        let region = stack::region(&sdk)?;
        if !matches!(provider.key(), Some(KeySettings::Given(_)))
            && let Some(credentials) = sdk.credentials_provider()
        {
            credentials.provide_credentials().await.map_err(|fault| error::of_credentials(&fault))?;
        }
        Ok((region, sdk))
    }
}

fn of_model(provider: ProviderName, model: &str) -> Settings {
    [("NIGHTSHIFT_PROVIDER", provider.as_str()), ("NIGHTSHIFT_MODEL", model)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// For its key, or as the provider.
fn asks_aws(provider: &ProviderSettings) -> bool {
    let is_stored = provider.key().is_some_and(|place| !matches!(place, KeySettings::Given(_)));
    is_stored || matches!(provider, ProviderSettings::Bedrock(_))
}
