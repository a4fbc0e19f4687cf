//! Messages: their limits, their size and their digests.

use std::collections::BTreeMap;

use md5::{Digest, Md5};

use super::SqsError;

/// A message with its attributes (Developer Guide, "Amazon SQS message quotas").
pub(super) const MESSAGE_BYTES_MAX: usize = 1_048_576;

const ATTRIBUTES_MAX: usize = 10;

/// A message attribute as the sender gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageAttribute {
    /// `String`, `Number` or `Binary`, with an optional suffix after a dot.
    pub data_type: String,
    /// Text or bytes, as the type says.
    pub value: AttributeValue,
}

/// The value of a message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// For the types `String` and `Number`.
    Text(String),
    /// For the type `Binary`.
    Binary(Vec<u8>),
}

/// The attributes of a message, by name.
pub type MessageAttributes = BTreeMap<String, MessageAttribute>;

/// A message to send, already checked.
#[derive(Debug, Clone)]
pub(in crate::aws) struct Outgoing {
    pub(in crate::aws) body: String,
    pub(in crate::aws) delay_s: Option<u32>,
    pub(in crate::aws) attributes: MessageAttributes,
}

pub(super) fn check_message(outgoing: &Outgoing, bytes_max: usize) -> Result<(), SqsError> {
    if outgoing.body.is_empty() {
        return Err(SqsError::new("MissingParameter", "The request must contain the parameter MessageBody."));
    }
    if outgoing.delay_s.is_some_and(|delay_s| delay_s > 900) {
        return Err(SqsError::invalid(
            "Value for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900.",
        ));
    }
    if outgoing.attributes.len() > ATTRIBUTES_MAX {
        return Err(SqsError::invalid(format!(
            "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
            outgoing.attributes.len()
        )));
    }
    let texts = outgoing
        .attributes
        .values()
        .filter_map(|attribute| match &attribute.value {
            AttributeValue::Text(text) => Some(text.as_str()),
            AttributeValue::Binary(_) => None,
        })
        .chain([outgoing.body.as_str()]);
    if let Some(refused) = texts.flat_map(str::chars).find(|c| !is_allowed(*c)) {
        return Err(SqsError::new(
            "InvalidMessageContents",
            format!("Invalid binary character '#x{:X}' was found in the message.", u32::from(refused)),
        ));
    }
    for (name, attribute) in &outgoing.attributes {
        check_attribute(name, attribute)?;
    }
    if message_bytes(outgoing) > bytes_max {
        return Err(SqsError::invalid(format!(
            "One or more parameters are invalid. Reason: Message must be shorter than {bytes_max} bytes."
        )));
    }
    Ok(())
}

/// The characters that a message may hold (API Reference, "SendMessage").
fn is_allowed(c: char) -> bool {
    matches!(c, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}')
}

fn check_attribute(name: &str, attribute: &MessageAttribute) -> Result<(), SqsError> {
    let name_valid = (1..=256).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !name_valid {
        return Err(SqsError::invalid(format!("Message attribute name '{name}' is invalid.")));
    }
    let kind = attribute.data_type.split('.').next().unwrap_or_default();
    let valid = match (kind, &attribute.value) {
        ("String", AttributeValue::Text(text)) => !text.is_empty(),
        ("Number", AttributeValue::Text(text)) => text.parse::<f64>().is_ok(),
        ("Binary", AttributeValue::Binary(bytes)) => !bytes.is_empty(),
        _ => false,
    };
    if valid {
        Ok(())
    } else {
        Err(SqsError::invalid(format!(
            "The message attribute '{name}' must contain a non-empty value that fits its type '{}'.",
            attribute.data_type
        )))
    }
}

/// The size that SQS counts: the body, and each attribute's name, type and value.
pub(in crate::aws) fn message_bytes(outgoing: &Outgoing) -> usize {
    let attributes = outgoing.attributes.iter().map(|(name, attribute)| {
        let value = match &attribute.value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Binary(bytes) => bytes.len(),
        };
        name.len() + attribute.data_type.len() + value
    });
    outgoing.body.len() + attributes.sum::<usize>()
}

/// The digest of message attributes (Developer Guide, "Calculating the MD5 message digest for message attributes").
pub(in crate::aws) fn attributes_md5(attributes: &MessageAttributes) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut digest = Md5::new();
    let part = |digest: &mut Md5, bytes: &[u8]| {
        digest.update(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        digest.update(bytes);
    };
    // A map in the order of its names, which is the order that the digest wants.
    for (name, attribute) in attributes {
        part(&mut digest, name.as_bytes());
        part(&mut digest, attribute.data_type.as_bytes());
        match &attribute.value {
            AttributeValue::Text(text) => {
                digest.update([1]);
                part(&mut digest, text.as_bytes());
            }
            AttributeValue::Binary(bytes) => {
                digest.update([2]);
                part(&mut digest, bytes);
            }
        }
    }
    Some(hex(&digest.finalize()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
