//! Where numbers go.

use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::metric::MetricBatch;

/// Where the numbers of an invocation go.
#[async_trait]
pub trait Metrics: Send + Sync {
    /// Publishes once; on failure, or when it is not done within this time, the adapter writes the same numbers to the
    /// log. Never fails its caller.
    async fn publish(&self, batch: &MetricBatch, within: Duration);
}
