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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use nightshift_core::model::{ModelRequest, Turn};
    use nightshift_core::task::Task;

    use super::*;
    use crate::settings::{Environment, ProviderName};

    struct NoTasks;

    impl Tasks for NoTasks {
        fn find(&self, _: &str) -> Option<&dyn Task> {
            None
        }
        fn names(&self) -> Vec<&'static str> {
            Vec::new()
        }
    }

    /// The path of the first request, which is answered by an error.
    fn path_of_the_first_request(server: &TcpListener) -> String {
        let (mut stream, _) = server.accept().unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4_096]);
        while !text.contains("\r\n") {
            let read = stream.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").unwrap();
        text.split(' ').nth(1).unwrap().to_owned()
    }

    /// A provider that is connected to another one's adapter would be called in another one's language.
    #[tokio::test(flavor = "multi_thread")]
    async fn each_provider_is_called_in_its_own_language() {
        for provider in ProviderName::ALL {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", server.local_addr().unwrap());
            let path = match provider {
                ProviderName::Anthropic => "/v1/messages",
                ProviderName::Bedrock => "/model/any/converse",
                ProviderName::OpenAi => "/chat/completions",
                // It calls nobody.
                ProviderName::Rehearsal => continue,
            };
            let lookup = |name: &str| {
                Some(match name {
                    "NIGHTSHIFT_PROVIDER" => provider.as_str().to_owned(),
                    "NIGHTSHIFT_MODEL" => "any".to_owned(),
                    _ => return None,
                })
            };
            // Over plain HTTP no key may be set: the address is put in afterwards.
            let with_key = |name: &str| match name {
                "NIGHTSHIFT_MODEL_KEY" => Some("k".to_owned()),
                _ => lookup(name),
            };
            let settings = Environment::read(&with_key, ModelSettings::read).unwrap();
            let settings = ModelSettings { base_url: Some(url), ..settings };
            let stack = StackSettings { name: "s".to_owned(), region: "eu-central-1".to_owned() };
            let sdk = SdkConfig::builder().build();
            let (model, _) = connect(settings, &stack, &sdk, NoTasks).unwrap();
            let request = ModelRequest {
                system: "s".to_owned(),
                turns: vec![Turn::User("t".to_owned())],
                schema_name: "x".to_owned(),
                schema: Arc::new(serde_json::json!({"type": "object"})),
                output_tokens_max: 10,
                timeout_ms: 20_000,
            };
            let called = tokio::task::spawn_blocking(move || path_of_the_first_request(&server));
            assert!(model.call(&request).await.is_err());
            assert_eq!(called.await.unwrap(), path, "{provider:?}");
        }
    }
}
