//! Other programs that are waited for.

use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use crate::error::Failure;

/// Whether it has ended, and whether somebody pressed Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs it until it ends. It is killed where nobody waits any more.
///
/// # Errors
/// Where the program at `path`, for whoever is told of it, cannot be run.
pub async fn ended(command: &mut Command, path: &Path) -> Result<ExitStatus, Failure> {
    let failed = |error| Failure::of_path(path, "run", &error);
    let mut child = Waited(command.spawn().map_err(failed)?);
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
        let _ = self.0.kill();
    }
}
