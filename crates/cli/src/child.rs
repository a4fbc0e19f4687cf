//! Other programs that are waited for.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::Failure;

/// Whether it has ended, and whether somebody pressed Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs it until it ends. It is killed where nobody waits any more, with all that it has started.
///
/// # Errors
/// Where the program at `path`, for whoever is told of it, cannot be run.
pub async fn ended(command: &mut Command, path: &Path) -> Result<ExitStatus, Failure> {
    let failed = |error| Failure::of_path(path, "run", &error);
    let mut child = Waited(command.process_group(0).spawn().map_err(failed)?);
    loop {
        if let Some(status) = child.0.try_wait().map_err(failed)? {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What a program writes, in a file that has no name: however much it is, nobody need read it meanwhile.
pub struct Output(File);

impl Output {
    /// # Errors
    /// Where there is no place for the file.
    pub fn new() -> Result<Self, Failure> {
        tempfile::tempfile().map(Self).map_err(|error| of_file("written", &error))
    }

    /// Where the program writes to.
    ///
    /// # Errors
    /// Where no more files may be open.
    pub fn stdio(&self) -> Result<Stdio, Failure> {
        self.0.try_clone().map(Stdio::from).map_err(|error| of_file("written", &error))
    }

    /// All that was written.
    ///
    /// # Errors
    /// Where it cannot be read, or is no UTF-8.
    pub fn text(mut self) -> Result<String, Failure> {
        let text = self.0.rewind().and_then(|()| io::read_to_string(self.0));
        text.map_err(|error| of_file("read", &error))
    }
}

fn of_file(what: &str, error: &io::Error) -> Failure {
    Failure::of_path(&std::env::temp_dir(), what, error)
}

struct Waited(Child);

impl Drop for Waited {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}
