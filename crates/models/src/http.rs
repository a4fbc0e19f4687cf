//! The one HTTP client of the model adapters, and what a failure on the wire means.
//!
//! HTTP/1.1 over rustls with ring and Mozilla's roots compiled in: nothing is read from disk, so the client is ready in
//! well under a millisecond of a cold start. No proxies from the environment, no redirects (a redirected POST would send
//! the key to whoever answered), no compression, no cookies, no retries.
//!
//! **Idle connections.** Lambda freezes a process between invocations, and while it is frozen the provider closes
//! connections that it finds idle. A request written to such a connection is lost without a byte of response, and from
//! here that looks exactly like a request that was read and paid for. So an idle connection is kept for
//! [`IDLE_MS_MAX`] only, which serves the next call of a busy queue and nothing after a pause, and whoever knows that
//! the process was frozen calls [`Http::drop_idle`].
//!
//! **Sent or not.** As long as nobody asked for the request's body, nobody can have been billed for it: whatever fails
//! until then is *capacity*, and also a time limit that ends while the connection is still being made. Anything after
//! that may have been read and billed: it is *transient*. hyper sends a request again, on a fresh connection, only when
//! the pooled one was closed before it took a byte of it.

use std::convert::Infallible;
use std::error::Error as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use nightshift_core::model::{FailureClass, ModelFailure};
use reqwest::header::{HeaderMap, HeaderValue, USER_AGENT};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::time::Instant;

use crate::classify::{advice, no_response, request_id};
use crate::{Provider, headroom};

/// How long a connection may take to stand, TLS included. Three lost SYNs take 7 s on Linux, two take 3 s: a provider
/// that cannot be reached in 5 s is down for us, and is waited for outside of the function.
pub const CONNECT_MS_MAX: u64 = 5_000;
/// How long a connection is trusted while idle; see the module's words on freezes.
pub const IDLE_MS_MAX: u64 = 5_000;
/// The most of an answer that is read: 8 MiB, several times what the largest output token limit can fill.
pub const REPLY_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// The most of an error that is read: they are a few hundred bytes, a proxy's page some tens of thousands.
const ERROR_BYTES_MAX: usize = 64 * 1_024;
/// The most headers of a response. hyper takes 100, and gateways pass on the headers of all whom they asked.
const REPLY_HEADERS_MAX: usize = 1_024;
/// Idle connections per host: as many as an environment may have in flight.
const IDLE_CONNECTIONS_MAX: usize = 128;

/// Why an adapter could not be built: a setting is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The base URL is not an absolute `http` or `https` URL.
    #[error("the model's base URL is not an absolute http or https URL")]
    BaseUrl,
    /// The model id is empty or has characters that no id has.
    #[error("the model id is empty or not printable")]
    ModelId,
    /// The TLS or HTTP client could not be set up.
    #[error("the HTTP client could not be set up: {0}")]
    Client(String),
}

/// A response, whatever its status.
#[derive(Debug)]
pub struct Reply {
    /// As HTTP has it; 2xx alone says nothing of errors within the body.
    pub status: u16,
    /// All of them, however many.
    pub headers: HeaderMap,
    /// The body; of an error, what could be read of it.
    pub body: Vec<u8>,
}

/// The client; clones share its connections.
#[derive(Debug, Clone)]
pub struct Http {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    tls: rustls::ClientConfig,
    client: RwLock<Client>,
}

impl Http {
    /// Builds the client; opens no connection and reads no file.
    ///
    /// # Errors
    /// When rustls or reqwest refuse their settings.
    pub fn new() -> Result<Self, BuildError> {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| BuildError::Client(e.to_string()))?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let client = client(&tls)?;
        Ok(Self { inner: Arc::new(Inner { tls, client: RwLock::new(client) }) })
    }

    /// Gives up all idle connections. Cheap: the TLS settings and sessions are kept, so that new connections resume.
    pub fn drop_idle(&self) {
        // A client that cannot be rebuilt from settings that it was once built from is kept.
        if let Ok(fresh) = client(&self.inner.tls) {
            let mut current = self.inner.client.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            *current = fresh;
        }
    }

    /// Sends one POST and reads the response, all before `deadline`.
    ///
    /// # Errors
    /// When there is no response, or only the beginning of one that would have been an answer.
    pub async fn post(
        &self,
        provider: Provider,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
        deadline: Instant,
    ) -> Result<Reply, ModelFailure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(no_response(
                FailureClass::Capacity,
                "not_sent",
                "no time was left to send the request",
            ));
        }
        let client = self.inner.client.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let taken = Arc::new(AtomicBool::new(false));
        let body = reqwest::Body::wrap(Watched { rest: Some(Bytes::from(body)), taken: Arc::clone(&taken) });
        let sent = client.post(url).headers(headers).timeout(left).body(body).send().await;
        let mut response = sent.map_err(|error| send_failure(&error, taken.load(Ordering::Acquire), left))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let is_answer = response.status().is_success();
        let bytes_max = if is_answer { REPLY_BYTES_MAX } else { ERROR_BYTES_MAX };
        let mut body = Vec::new();
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= bytes_max => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    break Some(("reply_too_large", format!("the response has more than {bytes_max} bytes")));
                }
                Ok(None) => break None,
                Err(error) if error.is_timeout() => {
                    break Some((
                        "timeout",
                        format!("the response did not end within {:.1} s", left.as_secs_f64()),
                    ));
                }
                Err(error) => break Some(("reset", format!("the response broke off: {}", causes(&error)))),
            }
        };
        match broken {
            // An error has said what it is by its status; the rest of its body would only have said it in words.
            Some((error_type, message)) if is_answer => Err(ModelFailure {
                status: Some(status),
                request_id: request_id(&headers),
                advice: advice(&headers),
                headroom: headroom::read(provider, &headers),
                ..no_response(FailureClass::Transient, error_type, &message)
            }),
            _ => Ok(Reply { status, headers, body }),
        }
    }
}

fn client(tls: &rustls::ClientConfig) -> Result<Client, BuildError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("nightshift/", env!("CARGO_PKG_VERSION"))));
    Client::builder()
        .tls_backend_preconfigured(tls.clone())
        .default_headers(headers)
        .http1_only()
        .http1_max_headers(REPLY_HEADERS_MAX)
        .redirect(Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
        .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .build()
        .map_err(|e| BuildError::Client(causes(&e)))
}

/// A body that knows whether a connection has asked for it.
struct Watched {
    rest: Option<Bytes>,
    taken: Arc<AtomicBool>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.taken.store(true, Ordering::Release);
        Poll::Ready(self.rest.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.rest.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// What it means that sending failed, for which there was so long; see the module's words on what was sent.
fn send_failure(error: &reqwest::Error, was_taken: bool, left: Duration) -> ModelFailure {
    let (class, error_type) = if error.is_builder() {
        (FailureClass::Account, "unsendable")
    } else if !was_taken {
        let error_type = if error.is_dns() {
            "dns"
        } else if error.is_timeout() {
            "connect_timeout"
        } else {
            "connect"
        };
        (FailureClass::Capacity, error_type)
    } else if error.is_timeout() {
        let waited = format!("no answer within {:.1} s", left.as_secs_f64());
        return no_response(FailureClass::Transient, "timeout", &waited);
    } else {
        (FailureClass::Transient, "reset")
    };
    no_response(class, error_type, &causes(error))
}

/// The chain of causes, without reqwest's own first words, which repeat the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    if text.is_empty() { "the request could not be sent".to_owned() } else { text }
}

/// Parses a base URL and appends a path to it.
pub(crate) fn endpoint(base_url: &str, path: &str) -> Result<Url, BuildError> {
    let url = Url::parse(&format!("{}{path}", base_url.trim().trim_end_matches('/')))
        .map_err(|_| BuildError::BaseUrl)?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    if usable { Ok(url) } else { Err(BuildError::BaseUrl) }
}

/// A model id as it may stand in a request.
pub(crate) fn checked_model_id(id: &str) -> Result<String, BuildError> {
    let id = id.trim();
    let fine = !id.is_empty() && id.len() <= 2_048 && id.bytes().all(|b| b.is_ascii_graphic());
    if fine { Ok(id.to_owned()) } else { Err(BuildError::ModelId) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_absolute_and_lose_their_last_slash() {
        for (base, path, url) in [
            ("https://api.anthropic.com", "/v1/messages", Some("https://api.anthropic.com/v1/messages")),
            ("http://127.0.0.1:8080/", "/v1/messages", Some("http://127.0.0.1:8080/v1/messages")),
            (" https://x.example/prefix// ", "/c", Some("https://x.example/prefix/c")),
            ("api.anthropic.com", "/v1/messages", None),
            ("ftp://x.example", "/c", None),
            ("", "/c", None),
        ] {
            assert_eq!(endpoint(base, path).ok().as_ref().map(Url::as_str), url, "{base}");
        }
    }

    #[test]
    fn model_ids_are_printable() {
        assert_eq!(checked_model_id(" claude-sonnet-5\n"), Ok("claude-sonnet-5".to_owned()));
        for bad in ["", "  ", "a b", "modèle"] {
            assert_eq!(checked_model_id(bad), Err(BuildError::ModelId));
        }
    }
}
