//! One environment: a process, its Runtime API, and its end.

use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

use super::report::{Ended, LogLine, Stream};
use super::runtime_api::{Offer, Reply, RuntimeApi};
use super::{LambdaEvent, Shared};
use crate::aws::ACCOUNT;
use crate::http::Server;

/// How long a process may take before it asks for its first invocation. In Lambda it is 10 s, after which the process is started
/// once more, with the function's timeout (Developer Guide, "Understanding the Lambda execution environment lifecycle"); here it
/// is started once, on a machine that may be building something.
const INIT_MAX: Duration = Duration::from_secs(120);

/// How long after its end the last lines of a process are waited for.
const OUTPUT_MAX: Duration = Duration::from_secs(1);

/// What the rest of Lambda needs to know of a living environment.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) pid: u32,
    pub(super) busy: bool,
    pub(super) kill: Arc<Notify>,
}

/// How an invocation ended, seen from its environment.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered(Bytes),
    FunctionError(String),
    TimedOut,
    Crashed,
    InitFailed(String),
}

impl Outcome {
    /// Whether the environment can take another invocation.
    pub(super) fn lives_on(&self) -> bool {
        matches!(self, Outcome::Answered(_) | Outcome::FunctionError(_))
    }
}

#[derive(Debug)]
pub(super) struct Environment {
    id: u64,
    pid: u32,
    shared: Arc<Shared>,
    api: Arc<RuntimeApi>,
    kill: Arc<Notify>,
    /// `true` when the process has ended.
    ended: watch::Receiver<bool>,
    /// Kept for its life; the process cannot ask for work without it.
    server: Server,
}

impl Environment {
    /// Starts a process with a Runtime API of its own.
    pub(super) async fn start(shared: Arc<Shared>) -> io::Result<Environment> {
        let id = {
            let mut stats = shared.stats();
            stats.environments += 1;
            stats.environments
        };
        let arn = format!(
            "arn:aws:lambda:{}:{ACCOUNT}:function:{}:live",
            shared.source.region, shared.function.name
        );
        let api = RuntimeApi::new(arn);
        let handler = Arc::clone(&api);
        let server = Server::start(0, move |request| {
            let api = Arc::clone(&handler);
            async move { api.handle(request).await }
        })
        .await?;
        let mut child = command(&shared, &server).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the process has no id"))?;
        let kill = Arc::new(Notify::new());
        let handle = Handle { pid, busy: false, kill: Arc::clone(&kill) };
        shared.living().insert(id, handle);
        shared.tell(LambdaEvent::Started { environment: id, pid });
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(forward(Arc::clone(&shared), id, Stream::Stdout, stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(forward(Arc::clone(&shared), id, Stream::Stderr, stderr));
        }
        let (end, ended) = watch::channel(false);
        tokio::spawn(supervise(Arc::clone(&shared), id, pid, child, output, Arc::clone(&kill), end));
        if shared.function.freeze {
            tokio::spawn(freeze(Arc::clone(&api), pid, ended.clone()));
        }
        Ok(Environment { id, pid, shared, api, kill, ended, server })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn is_alive(&self) -> bool {
        !*self.ended.borrow()
    }

    /// Gives the process an invocation and waits for its end: an answer, the timeout, or the process's own end.
    pub(super) async fn invoke(&self, request_id: &str, payload: Bytes) -> Outcome {
        self.set_busy(true);
        let outcome = self.invoke_alone(request_id, payload).await;
        self.set_busy(false);
        outcome
    }

    async fn invoke_alone(&self, request_id: &str, payload: Bytes) -> Outcome {
        let timeout = self.shared.function.timeout;
        let (taken, is_taken) = oneshot::channel();
        let (reply, replied) = oneshot::channel();
        let mut ended = self.ended.clone();
        self.api.offer(Offer { request_id: request_id.to_owned(), payload, timeout, taken, reply });
        if self.shared.function.freeze {
            signal(self.pid, Signal::CONT, &self.ended);
        }
        tokio::select! {
            biased;
            _ = is_taken => {}
            _ = ended.wait_for(|ended| *ended) => return self.init_failed("the process ended"),
            () = tokio::time::sleep(INIT_MAX) => return self.init_failed("the process did not ask for work in time"),
        }
        tokio::select! {
            // An answer that arrived counts, whatever happened to the process after it.
            biased;
            Ok(reply) = replied => match reply {
                Reply::Response(body) => Outcome::Answered(body),
                Reply::Error(error) => Outcome::FunctionError(error),
            },
            () = tokio::time::sleep(timeout) => Outcome::TimedOut,
            _ = ended.wait_for(|ended| *ended) => Outcome::Crashed,
        }
    }

    fn init_failed(&self, reason: &str) -> Outcome {
        Outcome::InitFailed(self.api.init_error().unwrap_or_else(|| reason.to_owned()))
    }

    fn set_busy(&self, busy: bool) {
        if let Some(handle) = self.shared.living().get_mut(&self.id) {
            handle.busy = busy;
        }
    }

    /// Kills the process if it still lives, and waits for its end.
    pub(super) async fn shut_down(mut self) {
        self.kill.notify_one();
        // The sender is gone only after the end.
        let _ = self.ended.wait_for(|ended| *ended).await;
        self.server.stop().await;
    }
}

fn command(shared: &Shared, server: &Server) -> Command {
    let function = &shared.function;
    let mut command = Command::new(&function.program);
    command
        .args(&function.arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("AWS_LAMBDA_RUNTIME_API", server.address().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", &function.name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", function.memory_mb.to_string())
        .env("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", function.name))
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "local")
        .env("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand")
        .env("AWS_REGION", &shared.source.region)
        .env("AWS_DEFAULT_REGION", &shared.source.region)
        .env("AWS_ENDPOINT_URL", &shared.source.endpoint_url)
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .env("AWS_SESSION_TOKEN", "local")
        .env("TZ", ":UTC")
        .envs(&function.environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: Ctrl-C at the terminal is for us, who then end the processes in order.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// Waits for the end of a process, or kills it when told to.
async fn supervise(
    shared: Arc<Shared>,
    id: u64,
    pid: u32,
    mut child: Child,
    mut output: JoinSet<()>,
    kill: Arc<Notify>,
    end: watch::Sender<bool>,
) {
    let cause = tokio::select! {
        status = child.wait() => Ended::ByItself(status.ok()),
        () = kill.notified() => {
            // Fails only when the process has ended already.
            let _ = child.kill().await;
            Ended::Killed
        }
    };
    shared.living().remove(&id);
    // The last lines come before the news of the end, unless something else still holds the pipe open.
    let rest = async { while output.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(OUTPUT_MAX, rest).await;
    end.send_replace(true);
    shared.tell(LambdaEvent::Ended { environment: id, pid, cause });
}

/// Stops the process whenever it asks for work that is not there; the next invocation lets it go on.
async fn freeze(api: Arc<RuntimeApi>, pid: u32, mut ended: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = api.waiting.notified() => {}
            _ = ended.wait_for(|ended| *ended) => return,
        }
        // Under the lock of the offers: an offer comes before this, and there is no stop, or after it, and lets the process go on.
        api.if_idle(|| signal(pid, Signal::STOP, &ended));
    }
}

/// Sends a signal unless the process is known to have ended, when its number may already be another's.
fn signal(pid: u32, signal: Signal, ended: &watch::Receiver<bool>) {
    if *ended.borrow() {
        return;
    }
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails only when the process has just ended, which its invocation notices by itself.
        let _ = kill_process(pid, signal);
    }
}

/// Passes on lines until the process closes the stream.
async fn forward(shared: Arc<Shared>, id: u64, stream: Stream, from: impl AsyncRead + Unpin) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    // An error is the end of the pipe in another form.
    while from.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        let text = String::from_utf8_lossy(&line);
        shared.tell(LambdaEvent::Log(LogLine {
            environment: id,
            stream,
            line: text.trim_end_matches(['\r', '\n']).to_owned(),
        }));
        line.clear();
    }
}
