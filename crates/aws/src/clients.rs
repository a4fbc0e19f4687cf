//! The configuration of all AWS clients: one HTTP client, one retry policy, one set of timeouts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
pub use aws_config::timeout::TimeoutConfig;
pub use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{
    HttpConnectorSettings, SharedHttpClient, SharedHttpConnector, http_client_fn,
};

/// Attempts of one operation, the first included. The SDK's standard mode decides which errors are tried again.
pub const ATTEMPTS_MAX: u32 = 3;
/// First step of the SDK's backoff. Its default of a second would alone use up `OPERATION_TIMEOUT`.
pub const BACKOFF_BASE: Duration = Duration::from_millis(50);
/// Last step of the SDK's backoff.
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);
/// TCP and TLS. Within one region a connection takes a few milliseconds; a lost SYN is sent again after a second by
/// the kernel, and giving up before that is faster.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
/// One attempt, connection and body included; there is no read timeout beside it, because it could only be longer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1_200);
/// All attempts of one operation with their waits.
/// At the deadline a worker still does three operations in a row (it releases the claim, changes the visibility and
/// publishes the metrics), and they must fit into the deadline margin of 10 s with room to answer Lambda.
pub const OPERATION_TIMEOUT: Duration = Duration::from_millis(2_500);
/// How long a connection may sit idle and still be used.
/// Lambda freezes the process between invocations; what a load balancer or a NAT gateway (350 s) dropped meanwhile is
/// noticed only by a timeout. Longer than most model calls, so that a claim and its result share a connection.
pub const IDLE_MAX: Duration = Duration::from_secs(20);

/// The SDK configuration for all clients of this process, from the environment: `AWS_REGION`, the credentials that
/// Lambda sets (or the rest of the default chain), and `AWS_ENDPOINT_URL` where something stands in for AWS.
///
/// Each of these is read from the environment first, so a function never looks at profiles or the metadata service.
/// The chain is not cut down to the environment, because restored snapshots and containers get their credentials by HTTP.
#[must_use]
pub fn loader() -> ConfigLoader {
    // A later version may change timeouts, retries or the HTTP client; that shall be a change of this line.
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS_MAX)
                .with_initial_backoff(BACKOFF_BASE)
                .with_max_backoff(BACKOFF_MAX),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        )
        // Every request and answer here is small and ends with ATTEMPT_TIMEOUT; watching its throughput costs and adds nothing.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

/// The HTTP client that all clients share: rustls with ring, one pool.
///
/// The SDK's own builder would read the system's certificates once for every client that is made, at cold start; this
/// reads them once. And its idle timeout is monotonic time, which stands still while Lambda has frozen the process, so the
/// pool is also dropped when the wall clock says that nothing has used it for `IDLE_MAX`.
///
/// Its connect timeout is `CONNECT_TIMEOUT`, whatever a client's configuration says.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    let pool = Arc::new(Mutex::new(Pool { connector: connector(), last_used: None }));
    http_client_fn(move |_, components| {
        let now = components.time_source().map(|time| time.now());
        pool.lock().unwrap_or_else(PoisonError::into_inner).connector(now, connector)
    })
}

struct Pool<C> {
    connector: C,
    last_used: Option<SystemTime>,
}

impl<C: Clone> Pool<C> {
    fn connector(&mut self, now: Option<SystemTime>, renew: impl FnOnce() -> C) -> C {
        let idle = now.zip(self.last_used).and_then(|(now, last)| now.duration_since(last).ok());
        if idle.is_some_and(|idle| idle > IDLE_MAX) {
            self.connector = renew();
        }
        self.last_used = now;
        self.connector.clone()
    }
}

fn connector() -> SharedHttpConnector {
    let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT_TIMEOUT).build();
    SharedHttpConnector::new(
        Connector::builder()
            .connector_settings(settings)
            .pool_idle_timeout(IDLE_MAX)
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_dropped_after_a_freeze_and_only_then() {
        let second = |s| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        let mut pool = Pool { connector: 0, last_used: None };
        let mut made = 0;
        for (now, expected) in [
            (second(0), 0),
            (second(20), 0),
            (second(39), 0),
            (second(60), 1),
            (second(61), 1),
            (second(10), 1), // the clock went back
            (second(31), 2),
            (None, 2),
            (second(500), 2),
        ] {
            let connector = pool.connector(now, || {
                made += 1;
                made
            });
            assert_eq!(connector, expected, "{now:?}");
        }
    }

    #[test]
    fn three_operations_end_well_within_the_deadline_margin() {
        let margin = Duration::from_millis(nightshift_core::limits::Limits::default().deadline_margin_ms);
        assert!(OPERATION_TIMEOUT * 3 + Duration::from_secs(2) <= margin);
        assert!(ATTEMPT_TIMEOUT < OPERATION_TIMEOUT);
        assert!(CONNECT_TIMEOUT < ATTEMPT_TIMEOUT);
    }

    #[tokio::test]
    async fn all_attempts_of_an_operation_fit_into_its_time_when_each_is_refused_at_once() {
        let sdk = loader().region(Region::new("eu-west-1")).load().await;
        let retry = sdk.retry_config().unwrap();
        assert_eq!(
            (retry.max_attempts(), retry.initial_backoff(), retry.max_backoff()),
            (ATTEMPTS_MAX, BACKOFF_BASE, BACKOFF_MAX)
        );
        assert!(BACKOFF_MAX * (ATTEMPTS_MAX - 1) < OPERATION_TIMEOUT);
    }
}
