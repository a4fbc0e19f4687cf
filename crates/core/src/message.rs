//! A message, as SQS has it.

/// Message attributes that SQS allows on one message (Amazon SQS message metadata).
pub const ATTRIBUTES_MAX: usize = 10;
/// Bytes of body and attributes together that SQS allows (Amazon SQS message quotas: 1 MiB).
pub const MESSAGE_BYTES_MAX: usize = 1_048_576;

/// What SQS says of one delivery of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// SQS's id of the message; a redrive gives a new one, a redelivery does not.
    pub message_id: String,
    /// `SentTimestamp`, by SQS's clock.
    pub sent_at_ms: u64,
    /// `ApproximateReceiveCount`, from 1.
    pub receive_count: u32,
    /// When this delivery was received, by the worker's clock.
    pub received_at_ms: u64,
    /// The version of the failed record whose dead letter this message was (`dead_letter::redrive_of`).
    pub redrive_of: Option<u64>,
}

/// A message attribute as SQS carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, with an optional label after a dot.
    pub data_type: String,
    /// Text or bytes, as the type says.
    pub value: AttributeValue,
}

/// The value of a message attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// For `String` and `Number`.
    Text(String),
    /// For `Binary`.
    Bytes(Vec<u8>),
}

impl Attribute {
    pub(crate) fn text(value: String) -> Self {
        Self { data_type: "String".to_owned(), value: AttributeValue::Text(value) }
    }

    /// What SQS counts: name, type and value.
    #[must_use]
    pub fn bytes(&self, name: &str) -> usize {
        let value = match &self.value {
            AttributeValue::Text(text) => text.len(),
            AttributeValue::Bytes(bytes) => bytes.len(),
        };
        name.len() + self.data_type.len() + value
    }
}

/// The message that a dead letter is made of.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// As the sender wrote it; the letter's body is the same, byte for byte.
    pub body: &'a str,
    /// SQS's id of it.
    pub message_id: &'a str,
    /// Its attributes; where it was a dead letter before, ours among them.
    pub attributes: &'a [(String, Attribute)],
    /// Its `MessageGroupId`.
    pub group: Option<&'a str>,
}
