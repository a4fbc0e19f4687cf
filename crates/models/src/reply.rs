//! What the adapters share around a call: the key, the time, and reading a body that may be anything.

use std::sync::Arc;

use nightshift_core::model::{Answer, FailureClass, Headroom, ModelFailure, ModelReply, Usage};
use nightshift_worker::ports::{ModelKey, PortErrorKind};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::Instant;

use crate::classify::{self, no_response};
use crate::http::Reply;
use crate::mask;
use crate::{Provider, headroom};

/// The key, before `deadline`.
///
/// A store that cannot be reached is waited for like a provider that cannot; a store that refuses is nobody's job's
/// fault, and is raised like a bad key.
pub async fn key(keys: &Arc<dyn ModelKey>, deadline: Instant) -> Result<SecretString, ModelFailure> {
    let unavailable = |class, message: &str| no_response(class, "model_key_unavailable", message);
    match tokio::time::timeout_at(deadline, keys.get()).await {
        Ok(Ok(key)) if key.expose_secret().trim().is_empty() => {
            Err(unavailable(FailureClass::Account, "the model key is empty"))
        }
        Ok(Ok(key)) => Ok(key),
        Ok(Err(error)) => {
            let class = match error.kind {
                PortErrorKind::Throttled | PortErrorKind::Unavailable => FailureClass::Capacity,
                PortErrorKind::Misconfigured | PortErrorKind::Unreadable | PortErrorKind::Refused => {
                    FailureClass::Account
                }
            };
            Err(unavailable(class, &error.to_string()))
        }
        Err(_elapsed) => Err(unavailable(FailureClass::Capacity, "the model key could not be read in time")),
    }
}

/// A header with a key in it, which is never printed.
pub fn secret_header(prefix: &str, key: &SecretString) -> Result<reqwest::header::HeaderValue, ModelFailure> {
    // A secret typed into a console often ends with a newline.
    let mut value =
        reqwest::header::HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret().trim())).map_err(
            |_| {
                no_response(
                    FailureClass::Account,
                    "model_key_malformed",
                    "the model key has characters that no key has",
                )
            },
        )?;
    value.set_sensitive(true);
    Ok(value)
}

/// What an adapter makes of a body that is an answer.
pub struct Parsed {
    /// The answer.
    pub answer: Answer,
    /// Its usage.
    pub usage: Usage,
    /// The id in the body.
    pub id: Option<String>,
}

/// Turns a response into what the port returns.
pub fn conclude(
    provider: Provider,
    reply: &Reply,
    key: Option<&str>,
    parse: impl FnOnce(&[u8]) -> Result<Parsed, Unread>,
) -> Result<ModelReply, ModelFailure> {
    let failed = |status| classify::classify(provider, status, &reply.headers, &reply.body, key);
    if !(200..300).contains(&reply.status) {
        return Err(failed(reply.status));
    }
    match parse(&reply.body) {
        Ok(parsed) => Ok(ModelReply {
            answer: parsed.answer,
            usage: parsed.usage,
            request_id: classify::request_id(&reply.headers).or(parsed.id),
            headroom: headroom::read(provider, &reply.headers),
        }),
        // An error under a success: routers in front of providers do that, with the real status inside.
        Err(Unread::Error { status }) => {
            let status = status.filter(|s| (400..600).contains(s)).unwrap_or(500);
            Err(ModelFailure { status: Some(reply.status), ..failed(status) })
        }
        // Something answered in the provider's place, or the answer lost its end on the way. It may have been paid for.
        Err(Unread::NotJson { why }) => Err(ModelFailure {
            class: FailureClass::Transient,
            error_type: "unreadable_reply".to_owned(),
            message: format!("the response is not the provider's: {why}"),
            ..failed(reply.status)
        }),
    }
}

/// Why a body is not an answer.
#[derive(Debug)]
pub enum Unread {
    /// It is an error, with the status that it names.
    Error {
        /// The status in the body.
        status: Option<u16>,
    },
    /// It is not JSON.
    NotJson {
        /// What the parser met, without the text.
        why: String,
    },
}

/// Reads a body as `T`, or as the unusable answer that JSON of a foreign shape is.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Result<T, Parsed>, Unread> {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(default)]
        error: Option<serde_json::Value>,
        #[serde(rename = "type", default)]
        kind: Option<serde_json::Value>,
    }
    match serde_json::from_slice::<T>(body) {
        // An error member says more than whatever else is there, and most shapes here accept anything.
        Ok(read) if !body_has_error(body) => Ok(Ok(read)),
        Err(error) if !error.is_data() => {
            Err(Unread::NotJson { why: format!("{:?} at byte {}", error.classify(), body.len()) })
        }
        _ => match serde_json::from_slice::<Shape>(body) {
            Ok(Shape { error: Some(error), .. }) if !error.is_null() => {
                let status =
                    error.get("code").and_then(serde_json::Value::as_u64).and_then(|s| u16::try_from(s).ok());
                Err(Unread::Error { status })
            }
            Ok(Shape { kind: Some(kind), .. }) if kind == "error" => Err(Unread::Error { status: None }),
            _ => Ok(Err(Parsed {
                answer: Answer::Unusable {
                    why: "the response has a shape that the provider does not document".to_owned(),
                },
                usage: Usage::default(),
                id: None,
            })),
        },
    }
}

/// Whether the top of a JSON object has an `error` that is not null. Looks for the bytes first: answers rarely have them.
fn body_has_error(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct OnlyError {
        #[serde(default)]
        error: Option<serde::de::IgnoredAny>,
    }
    body.windows(7).any(|window| window == b"\"error\"")
        && serde_json::from_slice::<OnlyError>(body).is_ok_and(|only| only.error.is_some())
}

/// The answer that text is, if there is any.
pub fn text_answer(text: String, stop_reason: &str) -> Answer {
    if text.trim().is_empty() {
        Answer::Unusable {
            why: format!("no text in the answer (stop reason {})", mask::name(stop_reason, None)),
        }
    } else {
        Answer::Text(text)
    }
}

/// A failure that our own request is the cause of.
pub fn unsendable(message: &str) -> ModelFailure {
    ModelFailure {
        headroom: Headroom::default(),
        ..no_response(FailureClass::Rejected, "unsendable", message)
    }
}
