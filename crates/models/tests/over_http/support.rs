//! A server that says what a test tells it, byte by byte, and remembers what it was asked; and the adapters before it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use nightshift_core::model::{FailureClass, ModelRequest, Turn};
use nightshift_models::{
    Anthropic, AnthropicSettings, Bedrock, BedrockAuth, BedrockSettings, Http, OpenAi, OpenAiSettings,
    StructuredOutput,
};
use nightshift_ports::{Clock, Model, ModelKey, PortError, PortErrorKind};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the server does, one after the other, once it has read a request.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    Wait(u64),
    /// Closes so that the other side meets a reset.
    Reset,
    /// Closes as one should.
    Close,
    Hang,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Starts a server that answers the first request with the first script, and so on; the last one again and again.
    pub async fn start(scripts: Vec<Vec<Step>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let scripts = Arc::new(Mutex::new(VecDeque::from(scripts)));
        let task = tokio::spawn({
            let (asked, connections) = (Arc::clone(&asked), Arc::clone(&connections));
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&scripts), Arc::clone(&asked)));
                }
            }
        });
        Self { address, asked, connections, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    scripts: Arc<Mutex<VecDeque<Vec<Step>>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    while let Some(request) = read_request(&mut stream).await {
        asked.lock().unwrap().push(request);
        let script = {
            let mut scripts = scripts.lock().unwrap();
            if scripts.len() > 1 { scripts.pop_front().unwrap() } else { scripts.front().unwrap().clone() }
        };
        for step in script {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                    let _ = stream.flush().await;
                }
                Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Step::Reset => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
                Step::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
                Step::Hang => std::future::pending().await,
            }
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = bytes[head_end + 4..].to_vec();
    while body.len() < length {
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => body.extend_from_slice(&buffer[..read]),
        }
    }
    Some(Asked { line, headers, body })
}

/// A whole response.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = head(status, headers, body.len());
    out.extend_from_slice(body);
    out
}

/// The head of a response that promises a body of this length.
pub fn head(status: u16, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    out.into_bytes()
}

/// What each provider says when all is well, around this text.
pub fn success(provider: &str, text: &str) -> Value {
    match provider {
        "anthropic" => json!({
            "id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn", "usage": {"input_tokens": 11, "output_tokens": 7}
        }),
        "openai" => json!({
            "id": "chatcmpl-1", "choices": [{"index": 0, "message": {"role": "assistant", "content": text,
            "refusal": null}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 11, "completion_tokens": 7}
        }),
        "bedrock" => json!({
            "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
            "usage": {"inputTokens": 11, "outputTokens": 7, "totalTokens": 18}, "metrics": {"latencyMs": 1}
        }),
        other => panic!("no provider {other}"),
    }
}

pub const PROVIDERS: [&str; 3] = ["anthropic", "openai", "bedrock"];
pub const KEY: &str = "sk-test-0123456789abcdef";

/// A key that changes whenever it is read again, or a failure to read one.
pub struct Keys {
    pub failing: Option<PortErrorKind>,
    pub reads: AtomicUsize,
    pub forgotten: AtomicUsize,
}

impl Keys {
    pub fn working() -> Arc<Self> {
        Arc::new(Self { failing: None, reads: AtomicUsize::new(0), forgotten: AtomicUsize::new(0) })
    }

    pub fn failing(kind: PortErrorKind) -> Arc<Self> {
        Arc::new(Self { failing: Some(kind), reads: AtomicUsize::new(0), forgotten: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl ModelKey for Keys {
    async fn get(&self) -> Result<SecretString, PortError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        match self.failing {
            Some(kind) => Err(PortError {
                service: "Secrets Manager",
                operation: "GetSecretValue",
                kind,
                message: "no such secret".to_owned(),
            }),
            // With the newline that a console leaves behind.
            None => Ok(SecretString::from(format!("{KEY}-{}\n", self.forgotten.load(Ordering::SeqCst)))),
        }
    }

    fn forget(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
    }
}

pub struct FixedClock(pub u64);

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        self.0
    }
}

/// The adapter of a provider, with a key, before this base URL.
pub fn adapter(provider: &str, base_url: &str, keys: Arc<Keys>) -> Arc<dyn Model> {
    adapter_over(&Http::new().unwrap(), provider, base_url, keys)
}

pub fn adapter_over(http: &Http, provider: &str, base_url: &str, keys: Arc<Keys>) -> Arc<dyn Model> {
    let http = http.clone();
    let base_url = base_url.to_owned();
    match provider {
        "anthropic" => {
            let settings = AnthropicSettings {
                model: "claude-haiku-4-5".to_owned(),
                base_url,
                structured_output: StructuredOutput::TextFormat,
            };
            Arc::new(Anthropic::new(&settings, http, keys).unwrap())
        }
        "openai" => {
            let settings = OpenAiSettings {
                model: "gpt-4.1-mini".to_owned(),
                base_url,
                structured_output: StructuredOutput::TextFormat,
            };
            Arc::new(OpenAi::new(&settings, http, Some(keys)).unwrap())
        }
        "bedrock" => {
            let settings = BedrockSettings {
                model: "us.anthropic.claude-haiku-4-5-20251001-v1:0".to_owned(),
                region: "us-east-1".to_owned(),
                base_url: Some(base_url),
                structured_output: None,
            };
            Arc::new(Bedrock::new(&settings, http, BedrockAuth::Key(keys)).unwrap())
        }
        other => panic!("no provider {other}"),
    }
}

pub fn request(timeout_ms: u64) -> ModelRequest {
    ModelRequest {
        system: "Summarize.".to_owned(),
        turns: vec![Turn::User("<text>\u{202e}مرحبا \u{0}😀 \"\\</text>".to_owned())],
        schema_name: "summary".to_owned(),
        schema: Arc::new(
            json!({"type": "object", "properties": {"summary": {"type": "string", "maxLength": 9}},
            "required": ["summary"]}),
        ),
        output_tokens_max: 64,
        timeout_ms,
    }
}

/// A class in one word.
pub fn word(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Capacity => "capacity",
        FailureClass::Transient => "transient",
        FailureClass::Account => "account",
        FailureClass::Rejected => "rejected",
        FailureClass::Refused => "refused",
        FailureClass::Unclear => "unclear",
    }
}
