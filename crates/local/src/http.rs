//! A small HTTP/1 server on the loopback interface, able to fail the way networks do.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The largest body that is read: DynamoDB's largest request (16 MB), the largest of all protocols here.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request with its whole body.
#[derive(Debug)]
pub(crate) struct HttpRequest {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl HttpRequest {
    /// The value of a header, if it is there and is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What a server does about a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A whole response.
    Respond(HttpResponse),
    /// The connection is reset before a byte of the response is written.
    ResetBeforeHeaders,
    /// The connection is reset after the headers and half of the body.
    ResetInBody(HttpResponse),
}

/// A response with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct HttpResponse {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl HttpResponse {
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        HttpResponse { status, headers: vec![("content-type", content_type.to_owned())], body: body.into() }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        HttpResponse::new(status, "application/json", body.to_string())
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<HttpResponse> for Answer {
    fn from(response: HttpResponse) -> Self {
        Answer::Respond(response)
    }
}

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds 127.0.0.1 on `port` (0: a free one) and answers every request with `handler`.
    ///
    /// When a client goes away while its request is being handled, the handler's future is dropped.
    pub(crate) async fn start<H, F>(port: u16, handler: H) -> io::Result<Server>
    where
        H: Fn(HttpRequest) -> F + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(handler), stopped));
        Ok(Server { address, stop, task: Some(task) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, drops the connections, and waits until both are done.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            // The task ends by itself; it can only fail by a panic, which the runtime has already reported.
            let _ = task.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

async fn accept<H, F>(listener: TcpListener, handler: Arc<H>, mut stopped: watch::Receiver<bool>)
where
    H: Fn(HttpRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // Dropping the set aborts the connections, so none outlives its server.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => {
                // An error here concerns one connection (or too many open files, which passes); the server goes on.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve_connection(stream, Arc::clone(&handler)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    connections.shutdown().await;
}

async fn serve_connection<H, F>(stream: TcpStream, handler: Arc<H>)
where
    H: Fn(HttpRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // Answers are small and waited for: no point in waiting for more to send.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let socket = Socket { stream, reset: Arc::clone(&reset) };
    let service = service_fn(move |request| {
        let handler = Arc::clone(&handler);
        let reset = Arc::clone(&reset);
        async move { answer(request, &*handler, &reset).await }
    });
    // An error is a client that went away or a reset that we made: nothing to report.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

type Body = BoxBody<Bytes, io::Error>;

async fn answer<H, F>(
    request: Request<Incoming>,
    handler: &H,
    reset: &AtomicBool,
) -> io::Result<Response<Body>>
where
    H: Fn(HttpRequest) -> F,
    F: Future<Output = Answer>,
{
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return respond(HttpResponse::new(413, "text/plain", "request too large"));
        }
        Err(error) => return Err(io::Error::other(error)),
    };
    let request =
        HttpRequest { method: parts.method, path: parts.uri.path().to_owned(), headers: parts.headers, body };
    match handler(request).await {
        Answer::Respond(response) => respond(response),
        Answer::ResetBeforeHeaders => {
            reset.store(true, Ordering::Relaxed);
            Err(reset_error())
        }
        Answer::ResetInBody(response) => {
            reset.store(true, Ordering::Relaxed);
            let body = HalfThenReset {
                length: response.body.len() as u64,
                half: Some(response.body.slice(..response.body.len() / 2)),
                pause: Box::pin(tokio::time::sleep(RESET_PAUSE)),
            };
            head(&response, body.boxed())
        }
    }
}

fn respond(response: HttpResponse) -> io::Result<Response<Body>> {
    let body = Full::new(response.body.clone()).map_err(|never| match never {});
    head(&response, body.boxed())
}

fn head(response: &HttpResponse, body: Body) -> io::Result<Response<Body>> {
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(response.status).map_err(io::Error::other)?;
    for (name, value) in &response.headers {
        answer
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    Ok(answer)
}

fn reset_error() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "reset on purpose")
}

/// Lets the headers and the first half reach the client before the reset overtakes them.
const RESET_PAUSE: Duration = Duration::from_millis(10);

/// A body that announces its whole length and breaks off in the middle.
#[derive(Debug)]
struct HalfThenReset {
    length: u64,
    half: Option<Bytes>,
    pause: Pin<Box<tokio::time::Sleep>>,
}

impl hyper::body::Body for HalfThenReset {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.half.take() {
            Some(half) => Poll::Ready(Some(Ok(Frame::data(half)))),
            None => {
                std::task::ready!(self.pause.as_mut().poll(context));
                Poll::Ready(Some(Err(reset_error())))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

/// A TCP stream that is closed with a reset instead of an orderly end, if the flag says so.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            // If this fails, the client sees a close instead of a reset; either is a broken answer.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A plain client for tests that speak to a server of this crate.
#[cfg(test)]
pub(crate) fn test_client() -> reqwest::Client {
    // The workspace builds reqwest without a TLS provider of its own; a second installation is refused, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
