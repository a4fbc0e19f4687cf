//! The model's adapter, as the settings name it.

use std::sync::Arc;

use nightshift_aws::clients::SdkConfig;
use nightshift_aws::{StoredModelKey, SystemClock};
use nightshift_core::task::Tasks;
use nightshift_models::{
    Anthropic, AnthropicSettings, Bedrock, BedrockAuth, BedrockSettings, BuildError, Http, OpenAi,
    OpenAiSettings, Rehearsal, StructuredOutput, anthropic, openai,
};
use nightshift_ports::{Model, ModelKey};

use crate::settings::{KeySettings, ModelSettings, ProviderSettings, StackSettings};

/// A model, and the connections that it is called over; `None` where there are none.
pub type Connected = (Arc<dyn Model>, Option<Http>);

/// Why there is no model to call.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The adapter refuses its settings.
    #[error("the model's adapter could not be built from NIGHTSHIFT_MODEL and NIGHTSHIFT_MODEL_BASE_URL")]
    Build(#[from] BuildError),
    /// Bedrock's requests are to be signed, and nothing says by whom.
    #[error(
        "there is no source of AWS credentials, which bedrock needs: give the function a role, or set NIGHTSHIFT_MODEL_KEY_SECRET to a Bedrock API key"
    )]
    NoCredentials,
}

/// Builds the model's adapter. The rehearsal asks `tasks` which outputs are valid.
///
/// # Errors
/// When the adapter refuses its settings, or Bedrock has no credentials.
pub fn connect(
    settings: ModelSettings,
    stack: &StackSettings,
    sdk: &SdkConfig,
    tasks: impl Tasks + 'static,
) -> Result<Connected, ModelError> {
    let ModelSettings { provider, id: model, base_url, structured_output } = settings;
    let or_text_format = structured_output.unwrap_or(StructuredOutput::TextFormat);
    Ok(match provider {
        ProviderSettings::Rehearsal(spec) => {
            // Rules between members are in no schema, so the rehearsal must ask the task.
            let valid = move |task: &str, output: &serde_json::Value| {
                tasks.find(task).is_some_and(|task| task.accept(output.clone()).is_ok())
            };
            (Arc::new(Rehearsal::new(spec).checked_by(valid)), None)
        }
        ProviderSettings::Anthropic(key) => {
            let base_url = base_url.unwrap_or_else(|| anthropic::BASE_URL.to_owned());
            let settings = AnthropicSettings { model, base_url, structured_output: or_text_format };
            let http = Http::new()?;
            (Arc::new(Anthropic::new(&settings, http.clone(), model_key(key, sdk))?), Some(http))
        }
        ProviderSettings::OpenAi(key) => {
            let base_url = base_url.unwrap_or_else(|| openai::BASE_URL.to_owned());
            let settings = OpenAiSettings { model, base_url, structured_output: or_text_format };
            let http = Http::new()?;
            let key = key.map(|key| model_key(key, sdk));
            (Arc::new(OpenAi::new(&settings, http.clone(), key)?), Some(http))
        }
        ProviderSettings::Bedrock(key) => {
            let auth = match key {
                Some(key) => BedrockAuth::Key(model_key(key, sdk)),
                None => BedrockAuth::Credentials {
                    provider: sdk.credentials_provider().ok_or(ModelError::NoCredentials)?,
                    clock: Arc::new(SystemClock),
                },
            };
            let region = stack.region.clone();
            let settings = BedrockSettings { model, region, base_url, structured_output };
            let http = Http::new()?;
            (Arc::new(Bedrock::new(&settings, http.clone(), auth)?), Some(http))
        }
    })
}

fn model_key(key: KeySettings, sdk: &SdkConfig) -> Arc<dyn ModelKey> {
    Arc::new(match key {
        KeySettings::Secret(id) => StoredModelKey::secret(sdk, id),
        KeySettings::Parameter(name) => StoredModelKey::parameter(sdk, name),
        KeySettings::Given(key) => StoredModelKey::given(key),
    })
}
