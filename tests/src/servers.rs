//! Servers that others wrote, each started for one test by `scripts/servers` on a free port of this machine.

use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// How often and how long a start is waited for: a minute and a half, for two JVMs beside a compiler on two cores.
const TRIES_MAX: u32 = 900;
const TRY_EVERY: Duration = Duration::from_millis(100);
/// How often an end is waited for, every ten milliseconds, before the server is killed from here.
const ENDS_TRIES_MAX: u32 = 300;
/// What `scripts/servers` ends with where something that it needs is not installed.
const MISSING: i32 = 3;

/// A running server; it is killed when this is dropped, and when this process ends.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    url: String,
}

/// Why there is no server.
#[derive(Debug)]
pub enum NoServer {
    /// It is not installed here; a test says `skipped: ` and this, and passes.
    Missing(String),
    /// It should have started; a test fails.
    Failed(String),
}

impl Server {
    /// Starts `dynamodb-local`, `elasticmq` or `ministack` and waits until it accepts connections.
    ///
    /// # Errors
    /// When it is not installed, or does not start.
    pub fn start(name: &str) -> Result<Self, NoServer> {
        let failed = |what: &dyn std::fmt::Display| NoServer::Failed(format!("{name}: {what}"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|e| failed(&e))?;
        let log = std::env::temp_dir().join(format!("nightshift-{name}-{}.log", address.port()));
        let output = File::create(&log).map_err(|e| failed(&e))?;
        let child = Command::new(root.join("scripts/servers"))
            .args([name, &address.port().to_string()])
            // Closed when this process ends, however it ends; the server then ends itself.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .map_err(|e| failed(&e))?;
        let mut server = Self { child, log, url: format!("http://{address}") };
        for _ in 0..TRIES_MAX {
            if let Ok(Some(status)) = server.child.try_wait() {
                let said = server.last_words();
                return Err(match status.code() {
                    Some(MISSING) => NoServer::Missing(said),
                    _ => failed(&format!("ended with {status}: {said}")),
                });
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            sleep(TRY_EVERY);
        }
        Err(failed(&format!("did not listen in time: {}", server.last_words())))
    }

    /// What `AWS_ENDPOINT_URL` must be.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text));
        read.map_or_else(|e| e.to_string(), |_| text.lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What watches the pipe ends the server, by an id that is still its own until it is waited for.
        drop(self.child.stdin.take());
        for _ in 0..ENDS_TRIES_MAX {
            if let Ok(Some(_)) = self.child.try_wait() {
                break;
            }
            sleep(TRY_EVERY / 10);
        }
        // It may be gone already; there is nobody to tell either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}
