//! Other programs that are waited for.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
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

struct Waited(Child);

impl Drop for Waited {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }
}
