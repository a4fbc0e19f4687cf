//! The folder of real cases, which is not part of the project.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

/// A folder of the cases: below `NIGHTSHIFT_CASES`, by default `../shared/cases` beside the project.
///
/// `None`, said once in one line, where there are no cases at all. A test then returns: what it checks has small
/// tables of its own in the crate that it is about.
///
/// # Panics
/// With `CI=true` when there are none: CI always has them.
#[must_use]
#[allow(clippy::panic)] // A test that cannot run in CI has failed.
pub fn folder(name: &str) -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/cases");
    let all = std::env::var_os("NIGHTSHIFT_CASES").map_or_else(beside, PathBuf::from);
    if all.is_dir() {
        return Some(all.join(name));
    }
    if std::env::var("CI").as_deref() == Ok("true") {
        panic!("CI=true and there is no folder of cases at {}", all.display());
    }
    // Not `println`, which the test harness keeps to itself while a test passes.
    SAID.call_once(|| drop(writeln!(std::io::stderr(), "skipped: no cases folder")));
    None
}

/// The text of one file of the cases.
///
/// # Panics
/// When it cannot be read: where the folder is, everything in it is.
#[must_use]
#[allow(clippy::panic)] // Only tests call this.
pub fn text(folder: &Path, file: &str) -> String {
    let path = folder.join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a folder and what they hold, by name, in order; folders in it are left out.
///
/// # Panics
/// As [`text`].
#[must_use]
#[allow(clippy::panic)] // Only tests call this.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = || -> std::io::Result<Vec<(String, Vec<u8>)>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                files.push((name, std::fs::read(&path)?));
            }
        }
        files.sort();
        Ok(files)
    };
    read().unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
}
