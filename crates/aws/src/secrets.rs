//! The key that opens the model's provider: from Secrets Manager, from a Parameter Store SecureString, or as given.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use nightshift_ports::{Clock as _, ModelKey, PortError, PortErrorKind};
use secrecy::SecretString;

use crate::clients::SdkConfig;
use crate::error::port_error;
use crate::system::SystemClock;

/// How long a key is used before it is read again. A rotated key whose predecessor still works is taken up within this
/// time; one whose predecessor was revoked at once, because the provider's 401 makes the worker forget it.
/// A quarter of an hour makes four reads per environment and hour, a fraction of a cent a month.
pub const KEY_HELD_MS: u64 = 15 * 60 * 1_000;

/// The provider's key, read once and held.
pub struct StoredModelKey {
    source: Source,
    held: Mutex<Option<Held>>,
    /// The jobs of a batch ask at the same time: one reads, the others wait for it.
    reading: tokio::sync::Mutex<()>,
}

enum Source {
    Given(SecretString),
    Secret { client: aws_sdk_secretsmanager::Client, id: String },
    Parameter { client: aws_sdk_ssm::Client, name: String },
}

#[derive(Clone)]
struct Held {
    key: SecretString,
    since_ms: u64,
}

impl fmt::Debug for StoredModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = match &self.source {
            Source::Given(_) => "given",
            Source::Secret { id, .. } => id,
            Source::Parameter { name, .. } => name,
        };
        f.debug_struct("StoredModelKey").field("source", &source).finish_non_exhaustive()
    }
}

impl StoredModelKey {
    /// A key that stands in the environment, for one machine only.
    #[must_use]
    pub fn given(key: SecretString) -> Self {
        Self::from_source(Source::Given(key))
    }

    /// A Secrets Manager secret, by name or ARN; its text is the key, or JSON with a member `api_key`.
    #[must_use]
    pub fn secret(sdk: &SdkConfig, id: impl Into<String>) -> Self {
        Self::from_source(Source::Secret { client: aws_sdk_secretsmanager::Client::new(sdk), id: id.into() })
    }

    /// A Parameter Store SecureString, by name or ARN, with the same content.
    #[must_use]
    pub fn parameter(sdk: &SdkConfig, name: impl Into<String>) -> Self {
        Self::from_source(Source::Parameter { client: aws_sdk_ssm::Client::new(sdk), name: name.into() })
    }

    fn from_source(source: Source) -> Self {
        Self { source, held: Mutex::new(None), reading: tokio::sync::Mutex::new(()) }
    }

    fn held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn read(&self) -> Result<SecretString, PortError> {
        match &self.source {
            Source::Given(key) => Ok(key.clone()),
            Source::Secret { client, id } => {
                const FROM: (&str, &str) = ("Secrets Manager", "GetSecretValue");
                let answer = client.get_secret_value().secret_id(id).send().await;
                let secret = answer.map_err(|e| port_error(FROM.0, FROM.1, &e))?;
                key_in(secret.secret_string()).map_err(|fault| unusable(FROM, id, fault))
            }
            Source::Parameter { client, name } => {
                const FROM: (&str, &str) = ("SSM", "GetParameter");
                let answer = client.get_parameter().name(name).with_decryption(true).send().await;
                let parameter = answer.map_err(|e| port_error(FROM.0, FROM.1, &e))?.parameter;
                key_in(parameter.as_ref().and_then(|p| p.value()))
                    .map_err(|fault| unusable(FROM, name, fault))
            }
        }
    }
}

#[async_trait]
impl ModelKey for StoredModelKey {
    async fn get(&self) -> Result<SecretString, PortError> {
        // By the wall clock: monotonic time stands still while Lambda has frozen the process.
        let fresh = |held: &Held| SystemClock.now_ms().abs_diff(held.since_ms) < KEY_HELD_MS;
        if let Some(held) = self.held().filter(fresh) {
            return Ok(held.key);
        }
        let _reading = self.reading.lock().await;
        let held = self.held();
        if let Some(held) = held.clone().filter(fresh) {
            return Ok(held.key);
        }
        match (self.read().await, held) {
            (Ok(key), _) => {
                let held = Held { key: key.clone(), since_ms: SystemClock.now_ms() };
                *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
                Ok(key)
            }
            // A key that nobody called wrong outlives an outage of its store.
            (Err(error), Some(held)) => {
                tracing::warn!(%error, "the model key was not read again; the one that is held is used");
                Ok(held.key)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn forget(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// The key in what a store holds: its text, or the member `api_key` of a JSON object.
///
/// # Errors
/// What is wrong with it, as the end of a sentence; it never quotes the key.
pub fn key_in(stored: Option<&str>) -> Result<SecretString, &'static str> {
    let text = stored.ok_or("holds no text")?.trim();
    let key = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(members)) => match members.get("api_key") {
            Some(serde_json::Value::String(key)) => key.trim().to_owned(),
            _ => return Err("holds JSON without a string api_key"),
        },
        _ => text.to_owned(),
    };
    if key.is_empty() {
        return Err("is empty: put the provider's key into it");
    }
    Ok(SecretString::from(key))
}

fn unusable((service, operation): (&'static str, &'static str), name: &str, fault: &str) -> PortError {
    PortError { service, operation, kind: PortErrorKind::Misconfigured, message: format!("{name} {fault}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_key_is_plain_text_or_a_member_of_json() {
        for (stored, expected) in [
            (Some("sk-1"), Ok("sk-1")),
            (Some("sk-1\n"), Ok("sk-1")),
            (Some(r#"{"api_key": "sk-2"}"#), Ok("sk-2")),
            (Some(r#"{"key": "sk-2"}"#), Err("holds JSON without a string api_key")),
            (Some(r#"{"api_key": 5}"#), Err("holds JSON without a string api_key")),
            (Some("{sk"), Ok("{sk")),
            (Some("12345"), Ok("12345")),
            (Some(" \n"), Err("is empty: put the provider's key into it")),
            (Some(r#"{"api_key": ""}"#), Err("is empty: put the provider's key into it")),
            (None, Err("holds no text")),
        ] {
            let found = key_in(stored);
            assert_eq!(found.as_ref().map(|key| key.expose_secret()).map_err(|fault| *fault), expected);
        }
    }

    #[tokio::test]
    async fn a_given_key_survives_being_forgotten_and_is_never_shown() {
        let key = StoredModelKey::given("sk-given".into());
        assert_eq!(key.get().await.unwrap().expose_secret(), "sk-given");
        key.forget();
        assert_eq!(key.get().await.unwrap().expose_secret(), "sk-given");
        assert!(!format!("{key:?}").contains("sk-given"));
    }
}
