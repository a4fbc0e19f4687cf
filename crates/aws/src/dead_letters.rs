//! The `dead-letters` queue on SQS.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::MessageAttributeValue;
use nightshift_core::dead_letter::DeadLetter;
use nightshift_core::message::{Attribute, AttributeValue};
use nightshift_ports::{DeadLetters, PortError, PortErrorKind};

use crate::clients::SdkConfig;
use crate::error::port_error;

const SERVICE: &str = "SQS";
const SEND: &str = "SendMessage";

/// The queue of what the worker gave up, with the failure in message attributes.
#[derive(Debug, Clone)]
pub struct SqsDeadLetters {
    client: Client,
    queue_url: String,
}

impl SqsDeadLetters {
    /// The dead letters in this queue.
    #[must_use]
    pub fn new(sdk: &SdkConfig, queue_url: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), queue_url: queue_url.into() }
    }
}

#[async_trait]
impl DeadLetters for SqsDeadLetters {
    async fn send(&self, letter: &DeadLetter) -> Result<(), PortError> {
        let mut request = self
            .client
            .send_message()
            .queue_url(&self.queue_url)
            .message_body(&letter.body)
            .set_message_group_id(letter.group.clone());
        for (name, attribute) in &letter.attributes {
            let value = sqs_attribute(attribute).map_err(|e| PortError {
                service: SERVICE,
                operation: SEND,
                kind: PortErrorKind::Refused,
                message: e.to_string(),
            })?;
            request = request.message_attributes(name, value);
        }
        request.send().await.map(drop).map_err(|e| port_error(SERVICE, SEND, &e))
    }
}

pub(crate) fn sqs_attribute(attribute: &Attribute) -> Result<MessageAttributeValue, BuildError> {
    let value = MessageAttributeValue::builder().data_type(&attribute.data_type);
    match &attribute.value {
        AttributeValue::Text(text) => value.string_value(text),
        AttributeValue::Bytes(bytes) => value.binary_value(Blob::new(bytes.clone())),
    }
    .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_keeps_its_type_label_and_value() {
        for (data_type, value, string, binary) in [
            ("String", AttributeValue::Text("ü".to_owned()), Some("ü"), None),
            ("Number", AttributeValue::Text("1.50".to_owned()), Some("1.50"), None),
            ("String.json", AttributeValue::Text("{}".to_owned()), Some("{}"), None),
            ("Binary.png", AttributeValue::Bytes(vec![0, 255]), None, Some(vec![0, 255])),
        ] {
            let sent = sqs_attribute(&Attribute { data_type: data_type.to_owned(), value }).unwrap();
            assert_eq!(sent.data_type(), data_type);
            assert_eq!(sent.string_value(), string);
            assert_eq!(sent.binary_value().map(|blob| blob.as_ref().to_vec()), binary);
        }
    }
}
