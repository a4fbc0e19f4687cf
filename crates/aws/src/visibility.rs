//! The visibility of messages in the jobs queue on SQS.

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use nightshift_ports::{PortError, Visibility};

use crate::clients::SdkConfig;
use crate::error::port_error;

/// Visibility in one SQS queue.
#[derive(Debug, Clone)]
pub struct SqsVisibility {
    client: Client,
    queue_url: String,
}

impl SqsVisibility {
    /// The visibility of messages in this queue.
    #[must_use]
    pub fn new(sdk: &SdkConfig, queue_url: impl Into<String>) -> Self {
        Self { client: Client::new(sdk), queue_url: queue_url.into() }
    }
}

#[async_trait]
impl Visibility for SqsVisibility {
    async fn change(&self, receipt_handle: &str, delay_s: u32) -> Result<(), PortError> {
        self.client
            .change_message_visibility()
            .queue_url(&self.queue_url)
            .receipt_handle(receipt_handle)
            // The service refuses what is too long, and says so.
            .visibility_timeout(i32::try_from(delay_s).unwrap_or(i32::MAX))
            .send()
            .await
            .map(drop)
            .map_err(|e| port_error("SQS", "ChangeMessageVisibility", &e))
    }
}
