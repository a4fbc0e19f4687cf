//! What goes over the wire of an adapter: counted, and cut where a test wants.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use nightshift_aws::clients::{self, ConfigLoader, Region, SdkConfig, TimeoutConfig};

/// The region of every client in these tests.
pub const REGION: &str = "eu-west-1";

/// The function's own configuration of the SDK, against another endpoint.
pub async fn sdk(url: &str) -> SdkConfig {
    sdk_through(url, clients::http_client()).await
}

/// The same, and the wire to look at.
pub async fn sdk_on_wire(url: &str) -> (SdkConfig, Wire) {
    let wire = Wire::default();
    let sdk = sdk_through(url, wire.clone().around(clients::http_client())).await;
    (sdk, wire)
}

/// The same, where nobody has credentials.
pub async fn sdk_without_credentials() -> SdkConfig {
    let none = provide_credentials_fn(async || Err(CredentialsError::not_loaded("there are none")));
    let none = SharedCredentialsProvider::new(none);
    loader("http://127.0.0.1:1", clients::http_client()).credentials_provider(none).load().await
}

async fn sdk_through(url: &str, http: SharedHttpClient) -> SdkConfig {
    let credentials = Credentials::from_keys("test", "test", None);
    loader(url, http).credentials_provider(SharedCredentialsProvider::new(credentials)).load().await
}

fn loader(url: &str, http: SharedHttpClient) -> ConfigLoader {
    clients::loader()
        .http_client(http)
        .endpoint_url(url)
        .region(Region::new(REGION))
        // A JVM that has just started takes its time; the function's own limits have tests of their own.
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build())
}

/// Counts requests, and loses replies.
#[derive(Debug, Clone, Default)]
pub struct Wire {
    sent: Arc<AtomicUsize>,
    replies_to_lose: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    most_open: Arc<AtomicUsize>,
}

impl Wire {
    /// How many requests have gone out since the last time that this was asked.
    pub fn sent(&self) -> usize {
        self.sent.swap(0, Ordering::SeqCst)
    }

    /// How many requests were on their way at once, at most, since the last time that this was asked.
    pub fn most_at_once(&self) -> usize {
        self.most_open.swap(0, Ordering::SeqCst)
    }

    /// The next replies are lost after the server carried the requests out.
    pub fn lose_replies(&self, count: usize) {
        self.replies_to_lose.store(count, Ordering::SeqCst);
    }

    fn around(self, inner: SharedHttpClient) -> SharedHttpClient {
        use aws_smithy_runtime_api::client::http::HttpClient;
        http_client_fn(move |settings, components| {
            SharedHttpConnector::new(Cut {
                wire: self.clone(),
                inner: inner.http_connector(settings, components),
            })
        })
    }
}

#[derive(Debug)]
struct Cut {
    wire: Wire,
    inner: SharedHttpConnector,
}

impl HttpConnector for Cut {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.wire.sent.fetch_add(1, Ordering::SeqCst);
        let reply = self.inner.call(request);
        let Wire { replies_to_lose: to_lose, open, most_open, .. } = self.wire.clone();
        HttpConnectorFuture::new(async move {
            most_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let reply = reply.await;
            open.fetch_sub(1, Ordering::SeqCst);
            let lost =
                to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            if lost { Err(ConnectorError::io("the reply was lost".into())) } else { reply }
        })
    }
}
