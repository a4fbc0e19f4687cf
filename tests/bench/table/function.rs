//! The real function binary in a process of its own, against the stand-ins for AWS and the model in this one.
//!
//! It is driven through a Runtime API of one environment that does nothing but hand out events: no poller and no queue
//! are between an answer and the next batch.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use nightshift_local::aws::LocalAws;
use nightshift_local::model_stub::{ModelStub, StubSettings};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

const REGION: &str = "eu-central-1";
const LEDGER: &str = "bench-ledger";
/// Whatever hangs is a defect of the bench or of the worker, and ends it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clock ticks of `/proc`, per second: fixed by the kernel's interface (man 5 proc, `USER_HZ`).
const TICKS_PER_S: u64 = 100;
/// A customer's text of an ordinary size, in characters.
const TEXT_CHARS: usize = 1_500;

/// A started function with everything that it speaks to.
pub struct Bench {
    aws: LocalAws,
    model: ModelStub,
    child: Child,
    runtime: Mutex<Runtime>,
    jobs: AtomicU64,
}

/// The connection on which the function asks for events, and is waiting now.
struct Runtime {
    listener: TcpListener,
    connection: BufReader<TcpStream>,
}

/// What the process held.
pub struct Memory {
    /// While all calls were open.
    pub resident_mb: f64,
    /// At most.
    pub peak_mb: f64,
}

/// From the start of the process to its first request for an event.
pub async fn cold_start(function: &Path) -> anyhow::Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    // Nothing is called before the first event, so nobody needs to listen there.
    let mut command = command(function, &listener, "http://127.0.0.1:9", "http://127.0.0.1:9", 10)?;
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut connection = BufReader::new(accept(&listener).await?);
    let target = read_request(&mut connection).await?.context("the function closed its connection")?;
    let took = started.elapsed();
    ensure!(target.ends_with("/invocation/next"), "the first request was {target}");
    child.kill().await?;
    Ok(took)
}

fn command(
    function: &Path,
    api: &TcpListener,
    aws: &str,
    model: &str,
    batch: u32,
) -> anyhow::Result<Command> {
    let own = |value: &str| value.to_owned();
    let mut command = Command::new(function);
    command
        .env_clear()
        .envs([
            ("AWS_LAMBDA_RUNTIME_API", api.local_addr()?.to_string()),
            ("AWS_LAMBDA_FUNCTION_NAME", own("bench-worker")),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", own("256")),
            ("AWS_LAMBDA_FUNCTION_VERSION", own("1")),
            ("AWS_REGION", own(REGION)),
            ("AWS_ACCESS_KEY_ID", own("bench")),
            ("AWS_SECRET_ACCESS_KEY", own("bench")),
            ("AWS_ENDPOINT_URL", own(aws)),
            ("NIGHTSHIFT_STACK", own("bench")),
            ("NIGHTSHIFT_JOBS_URL", format!("{aws}/000000000000/bench-jobs")),
            ("NIGHTSHIFT_DEAD_LETTERS_URL", format!("{aws}/000000000000/bench-dead-letters")),
            ("NIGHTSHIFT_LEDGER_TABLE", own(LEDGER)),
            ("NIGHTSHIFT_PROVIDER", own("anthropic")),
            ("NIGHTSHIFT_MODEL", own("claude-haiku-4-5")),
            ("NIGHTSHIFT_MODEL_BASE_URL", own(model)),
            ("NIGHTSHIFT_MODEL_KEY", own("bench-key")),
            ("NIGHTSHIFT_BATCH_SIZE", batch.to_string()),
            ("NIGHTSHIFT_SPEND_CAP_USD_PER_DAY", own("1000")),
        ])
        .stdin(Stdio::null())
        // Its log goes through a pipe, as on Lambda; an error of its start is shown.
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    Ok(command)
}

impl Bench {
    /// Starts the stand-ins and the function, and waits until it asks for its first event.
    pub async fn start(function: &Path, batch: u32, latency: Duration) -> anyhow::Result<Self> {
        let aws = LocalAws::start(REGION).await?;
        make_table(&aws).await?;
        let latency_ms = u64::try_from(latency.as_millis())?;
        let settings = StubSettings { latency_ms: latency_ms..=latency_ms, ..StubSettings::default() };
        let model = ModelStub::start(settings).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut child =
            command(function, &listener, aws.endpoint_url(), &model.base_url(), batch)?.spawn()?;
        let mut log = child.stdout.take().context("the function has no output")?;
        tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
        let mut connection = BufReader::new(accept(&listener).await?);
        read_request(&mut connection).await?.context("the function closed its connection")?;
        let runtime = Mutex::new(Runtime { listener, connection });
        Ok(Self { aws, model, child, runtime, jobs: AtomicU64::new(0) })
    }

    /// Hands out batches of new jobs, each as soon as the one before was answered; says how long all took.
    pub async fn run(&self, invocations: u64, batch: u64) -> anyhow::Result<Duration> {
        let mut runtime = self.runtime.lock().await;
        let started = Instant::now();
        for _ in 0..invocations {
            let event = self.event(batch);
            let answer = tokio::time::timeout(PATIENCE, runtime.invoke(&event)).await??;
            ensure!(!answer.contains("itemIdentifier"), "a job was handed back: {answer}");
        }
        Ok(started.elapsed())
    }

    /// What AWS was asked for by `invocations` batches.
    pub async fn requests_of(&self, invocations: u64, batch: u64) -> anyhow::Result<BTreeMap<String, f64>> {
        let before = self.aws.requests();
        self.run(invocations, batch).await?;
        let after = self.aws.requests();
        let counts = after.into_iter().map(|(action, count)| {
            let new = count - before.get(&action).copied().unwrap_or_default();
            (action, new as f64)
        });
        Ok(counts.collect())
    }

    /// Model calls over jobs, since the start.
    pub fn calls_per_job(&self) -> f64 {
        self.model.stats().calls as f64 / self.jobs.load(Ordering::Relaxed).max(1) as f64
    }

    /// User and system time of the function's process.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The second field is the command in parentheses and may hold anything (man 5 proc_pid_stat).
        let (_, fields) = stat.rsplit_once(')').context("no command in /proc/pid/stat")?;
        let ticks: u64 =
            fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_S))
    }

    /// The memory of the process while this many calls are open at the model.
    pub async fn memory_in_flight(&self, calls: u64) -> anyhow::Result<Memory> {
        let run = self.run(1, calls);
        let watch = async {
            let patience = Instant::now() + PATIENCE;
            while self.model.stats().open < calls {
                if Instant::now() > patience {
                    bail!("only {} calls were open at once", self.model.stats().open_max);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            self.status_mb("VmRSS:")
        };
        let (ran, resident) = tokio::join!(run, watch);
        ran?;
        Ok(Memory { resident_mb: resident?, peak_mb: self.status_mb("VmHWM:")? })
    }

    fn status_mb(&self, name: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1_024.0 / 1e6)
    }

    fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("the function has ended")
    }

    /// Ends the function and the stand-ins.
    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
        self.aws.stop().await;
        self.model.stop().await;
    }

    /// An event as Lambda's poller makes it ("Using Lambda with Amazon SQS", example event).
    fn event(&self, batch: u64) -> String {
        let records = (0..batch).map(|_| {
            let number = self.jobs.fetch_add(1, Ordering::Relaxed);
            let text = format!("Ticket {number}: my card has not arrived and I need it for a journey. ")
                .repeat(TEXT_CHARS / 70);
            let body = json!({"task": "summarize_email", "input": {"subject": "My card", "body": text}});
            json!({
                "messageId": format!("00000000-0000-4000-8000-{number:012x}"),
                "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
                "body": body.to_string(),
                "attributes": {
                    "ApproximateReceiveCount": "1", "SentTimestamp": "1795478400000",
                    "SenderId": "AIDAIENQZJOLO23YVJ4VO", "ApproximateFirstReceiveTimestamp": "1795478400001"
                },
                "messageAttributes": {},
                "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:bench-jobs",
                "awsRegion": REGION
            })
        });
        json!({"Records": records.collect::<Vec<_>>()}).to_string()
    }
}

impl Runtime {
    /// Answers the pending request for an event, and reads what the function makes of it and its next request.
    async fn invoke(&mut self, event: &str) -> anyhow::Result<String> {
        let deadline_ms = std::time::UNIX_EPOCH.elapsed()?.as_millis() + 300_000;
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             lambda-runtime-aws-request-id: {:032x}\r\nlambda-runtime-deadline-ms: {deadline_ms}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-central-1:000000000000:function:bench-worker\r\n\r\n",
            event.len(),
            deadline_ms
        );
        self.connection.write_all(format!("{head}{event}").as_bytes()).await?;
        let mut answer = String::new();
        loop {
            let (target, body) = self.next_request().await?;
            if target.ends_with("/invocation/next") {
                return Ok(answer);
            }
            ensure!(target.ends_with("/response"), "the invocation failed: {target} {body}");
            answer = body;
            self.connection.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await?;
        }
    }

    /// The client may use a new connection for each request.
    async fn next_request(&mut self) -> anyhow::Result<(String, String)> {
        loop {
            tokio::select! {
                request = read_whole(&mut self.connection) => {
                    if let Some(request) = request? {
                        return Ok(request);
                    }
                    self.connection = BufReader::new(accept(&self.listener).await?);
                }
                accepted = self.listener.accept() => self.connection = BufReader::new(accepted?.0),
            }
        }
    }
}

async fn accept(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
    let (stream, _) = accepted.context("the function did not ask for an event: see its log")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn read_request(connection: &mut BufReader<TcpStream>) -> anyhow::Result<Option<String>> {
    Ok(read_whole(connection).await?.map(|(target, _)| target))
}

/// Target and body of one HTTP/1.1 request with a `content-length` or chunks; `None` at the end of the connection.
async fn read_whole(connection: &mut BufReader<TcpStream>) -> anyhow::Result<Option<(String, String)>> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).context("no request line")?.to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse()?,
            Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    while chunked {
        line.clear();
        connection.read_line(&mut line).await?;
        let mut chunk = vec![0; usize::from_str_radix(line.trim(), 16)? + 2];
        connection.read_exact(&mut chunk).await?;
        chunk.truncate(chunk.len() - 2);
        chunked = !chunk.is_empty();
        body.extend(chunk);
    }
    Ok(Some((target, String::from_utf8(body)?)))
}

/// Makes the ledger's table, by hand: a client of the SDK would take longer to compile than all of this.
async fn make_table(aws: &LocalAws) -> anyhow::Result<()> {
    let body = json!({
        "TableName": LEDGER,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]
    })
    .to_string();
    let host = aws.endpoint_url().trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).await?;
    // The stand-in wants a signature and does not verify it.
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {host}\r\nx-amz-target: DynamoDB_20120810.CreateTable\r\n\
         content-type: application/x-amz-json-1.0\r\nauthorization: AWS4-HMAC-SHA256 none\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "the table was not made: {answer}");
    Ok(())
}

/// The middle of some numbers.
pub fn median(numbers: &mut [f64]) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
