//! A tiny HTTP/1.1 server on a free port of 127.0.0.1 that answers as it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// One request, read whole.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path and the query.
    pub target: String,
    /// Decoded as UTF-8, what is none replaced.
    pub body: String,
}

/// Status, headers and body of one answer.
pub type Answer = (u16, Vec<(String, String)>, String);

/// Runs until it is dropped.
pub struct Server {
    address: SocketAddr,
    running: Option<JoinHandle<()>>,
    /// Bound, and listens to nobody.
    _closed: Option<TcpSocket>,
}

impl Server {
    /// Answers each request as `answer` says; `None` never answers it.
    ///
    /// # Panics
    /// When no port of 127.0.0.1 is free.
    #[allow(clippy::expect_used)] // Only tests call this.
    pub async fn start(answer: impl Fn(Request) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound port has an address");
        let answer = Arc::new(answer);
        let running = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                connections.spawn(async move { drop(serve(stream, answer.as_ref()).await) });
            }
        });
        Self { address, running: Some(running), _closed: None }
    }

    /// A port at which nobody listens, as long as this lives.
    ///
    /// # Panics
    /// As [`Server::start`].
    #[allow(clippy::expect_used)] // Only tests call this.
    #[must_use]
    pub fn closed() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        let address = socket.local_addr().expect("a bound port has an address");
        Self { address, running: None, _closed: Some(socket) }
    }

    /// Without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    answer: &(impl Fn(Request) -> Option<Answer> + Send + Sync),
) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        let Some(request) = next_request(&mut stream, &mut read).await? else { return Ok(()) };
        let Some((status, headers, body)) = answer(request) else {
            return std::future::pending().await;
        };
        let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            if !name.eq_ignore_ascii_case("content-length") {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    }
}

/// The next request of a connection; `None` when it was closed in between.
async fn next_request(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<Option<Request>> {
    loop {
        if let Some(head_end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(read.get(..head_end).unwrap_or_default()).into_owned();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse::<usize>().ok())
                .unwrap_or(0);
            let end = head_end + 4 + length;
            if read.len() >= end {
                let body =
                    String::from_utf8_lossy(read.get(head_end + 4..end).unwrap_or_default()).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                read.drain(..end);
                return Ok(Some(Request { target, body }));
            }
        }
        let mut chunk = [0; 16 * 1_024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Ok(None);
        }
        read.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}
