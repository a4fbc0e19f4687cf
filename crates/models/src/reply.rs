//! What the adapters share around a call: the key, the time, and reading a body that may be anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use nightshift_core::model::{
    Answer, FailureClass, Headroom, ModelFailure, ModelReply, NOT_A_MODEL, ReportedUsage, TokenLimit,
};
use nightshift_ports::{ModelKey, PortErrorKind};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::classify::{self, no_response};
use crate::error_body::{Envelope, ErrorBody, broke_off, envelope};
use crate::error_words::{ANSWER_REJECTED_NAMES, ANSWER_REJECTED_PHRASES, CUT_OFF_NAMES, CUT_OFF_PHRASES};
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
    pub answer: Answer,
    pub usage: ReportedUsage,
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
    let error = || ErrorBody::read(provider, &reply.headers, &reply.body);
    let failed = |status, body: &ErrorBody| classify::failure(provider, status, &reply.headers, body, key);
    let answered = |parsed: Parsed| ModelReply {
        answer: parsed.answer,
        usage: parsed.usage,
        request_id: classify::request_id(&reply.headers).or(parsed.id),
        headroom: headroom::read(provider, &reply.headers),
    };
    if !(200..300).contains(&reply.status) {
        let error = error();
        return match answer_within(&error) {
            Some(answer) => Ok(answered(Parsed { answer, usage: ReportedUsage::default(), id: None })),
            None => Err(failed(reply.status, &error)),
        };
    }
    match parse(&reply.body) {
        Ok(parsed) => Ok(answered(parsed)),
        // An error under a success: gateways in front of providers do that, with the real status inside, or in prose.
        Err(Unread::Error) => {
            let error = error();
            let status = error.status.unwrap_or_else(|| classify::status_by_words(provider, &error));
            match answer_within(&error) {
                Some(answer) => {
                    Ok(answered(Parsed { answer, usage: ReportedUsage::default(), id: error.request_id }))
                }
                None => {
                    let failure = ModelFailure { status: Some(reply.status), ..failed(status, &error) };
                    let is_paid = failure.class == FailureClass::Capacity && broke_off(&reply.body);
                    let class = if is_paid { FailureClass::Transient } else { failure.class };
                    Err(ModelFailure { class, ..failure })
                }
            }
        }
        // Gateways answer so when the provider behind them did not: nothing was said, and nothing was counted.
        Err(Unread::Empty) => Err(ModelFailure {
            class: FailureClass::Capacity,
            error_type: "empty_reply".to_owned(),
            message: "the response has a place for an answer, and neither an answer nor a token in it"
                .to_owned(),
            ..failed(reply.status, &ErrorBody::default())
        }),
        Err(Unread::BrokeOff { reason }) => Err(ModelFailure {
            class: FailureClass::Transient,
            error_type: "broke_off".to_owned(),
            message: format!("the provider broke off its answer (stop reason {reason})"),
            ..failed(reply.status, &ErrorBody::default())
        }),
        // A page, or what a server says of itself: no model is at this address, or a firewall stands before it.
        Err(Unread::Elsewhere) => Err(ModelFailure {
            class: FailureClass::Unclear,
            error_type: NOT_A_MODEL.to_owned(),
            message: "the response has no place for an answer: look at the base URL, and at what stands before the model"
                .to_owned(),
            ..failed(reply.status, &ErrorBody::default())
        }),
        // The answer lost its end on the way, or something stands in its place. It may have been paid for.
        Err(Unread::NotJson { why }) => Err(ModelFailure {
            class: FailureClass::Transient,
            error_type: "unreadable_reply".to_owned(),
            message: format!("the response is not the provider's: {why}"),
            ..failed(reply.status, &ErrorBody::default())
        }),
    }
}

/// The answer that an error tells of: one that met its token limit, or what the model wrote and the provider's own grammar
/// did not accept, which is judged and asked again like any other. Where the provider keeps that to itself, the answer is
/// unusable.
fn answer_within(error: &ErrorBody) -> Option<Answer> {
    let cut_off = error.says(&CUT_OFF_PHRASES) || error.is_named(&CUT_OFF_NAMES);
    if cut_off || error.generated(&CUT_OFF_PHRASES) {
        return Some(Answer::Truncated { text: String::new(), by: TokenLimit::Answer });
    }
    if !error.is_named(&ANSWER_REJECTED_NAMES) && !error.says(&ANSWER_REJECTED_PHRASES) {
        return None;
    }
    let unusable = || Answer::Unusable { why: "the provider's own grammar did not accept it".to_owned() };
    let said = error.failed_generation.clone().filter(|text| !text.trim().is_empty());
    Some(said.map_or_else(unusable, Answer::Text))
}

/// Whether the next call should read the key from its store again: it may have been rotated. An expired or revoked key
/// may come back as a 400 or a 403, too, and in words that nobody knows.
pub fn may_blame_the_key(result: &Result<ModelReply, ModelFailure>) -> bool {
    result.as_ref().is_err_and(|failure| {
        failure.status.is_some() && matches!(failure.class, FailureClass::Account | FailureClass::Unclear)
    })
}

/// Why a body is not an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// The provider reports a fault within the body.
    Error,
    /// It has a place for an answer, and nothing in it.
    Empty,
    /// It is a page, or JSON that has nothing of an answer.
    Elsewhere,
    /// The provider broke down while it answered, and may bill for what was written until then.
    BrokeOff {
        /// What it calls that.
        reason: String,
    },
    /// It is not JSON.
    NotJson {
        /// What the parser met, without the text.
        why: String,
    },
}

/// Reads a body as `T`, or as the unusable answer that one of a foreign shape is.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Result<T, Parsed>, Unread> {
    match serde_json::from_slice::<T>(body) {
        // An error member says more than whatever else is there, and most shapes here accept anything.
        // The bytes are looked for first: answers rarely have them.
        Ok(read) if !body.windows(7).any(|window| window == b"\"error\"") => return Ok(Ok(read)),
        Ok(read) if envelope(body) != Envelope::Error => return Ok(Ok(read)),
        Err(error) if !error.is_data() => {
            if body.trim_ascii_start().starts_with(b"<") {
                return Err(Unread::Elsewhere);
            }
            return Err(Unread::NotJson { why: format!("{:?} at byte {}", error.classify(), body.len()) });
        }
        _ => {}
    }
    let answer = match envelope(body) {
        Envelope::Error => return Err(Unread::Error),
        Envelope::Empty => return Err(Unread::Empty),
        Envelope::Elsewhere => return Err(Unread::Elsewhere),
        Envelope::Blocked => blocked_prompt(),
        Envelope::Foreign => Answer::Unusable {
            why: "the response has a shape that the provider does not document".to_owned(),
        },
    };
    Ok(Err(Parsed { answer, usage: ReportedUsage::default(), id: None }))
}

/// What it means that a response has no answer at all, when its shape is right.
pub fn no_answer(body: &[u8], why: &str) -> Result<Answer, Unread> {
    match envelope(body) {
        Envelope::Empty => Err(Unread::Empty),
        Envelope::Elsewhere => Err(Unread::Elsewhere),
        Envelope::Blocked => Ok(blocked_prompt()),
        Envelope::Error | Envelope::Foreign => Ok(Answer::Unusable { why: why.to_owned() }),
    }
}

fn blocked_prompt() -> Answer {
    Answer::Refused { why: "the prompt was blocked".to_owned(), text: String::new() }
}

/// The counts in a usage block, which may be anything: whatever it is, the answer beside it is as good.
#[derive(Default)]
pub struct Counts<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Counts<'a> {
    /// What of it can be read; nothing of what is no object.
    pub fn of(block: Option<&'a RawValue>) -> Self {
        block.and_then(|block| serde_json::from_str(block.get()).ok()).map(Self).unwrap_or_default()
    }

    /// A count that always belongs there. `None`: it is missing, or no whole number from 0.
    pub fn needed(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.get().parse().ok()
    }

    /// A count that is left out where it is 0. `None`: something else stands there.
    pub fn extra(&self, name: &str) -> Option<u64> {
        if self.has(name) { self.needed(name) } else { Some(0) }
    }

    /// Whether anything stands there.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }

    /// A block within the block.
    pub fn within(&self, name: &str) -> Self {
        Self::of(self.0.get(name).copied())
    }
}

/// The sum of counts, if all are known.
pub fn sum<const N: usize>(counts: [Option<u64>; N]) -> Option<u64> {
    counts.into_iter().try_fold(0_u64, |sum, count| Some(sum.saturating_add(count?)))
}

/// A text that is good to have, such as an id: something else in its place is as if there was nothing.
pub fn optional_text(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
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
