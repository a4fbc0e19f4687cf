//! Files with bodies, answers or what was sent: private, and nothing is written through a link.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::Failure;

/// A new file that only its owner may read (0600). What exists under that name, a link included, is left alone.
pub fn create_private(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::of_path(path, "created", &error))
}

/// A new private file that is filled at the end of the work: what ends before that leaves none, which would be in the way of
/// the next attempt.
pub struct Promised<'a> {
    path: &'a Path,
    file: File,
    is_kept: bool,
}

impl<'a> Promised<'a> {
    /// Creates it, to see that it can be.
    pub fn create(path: &'a Path) -> Result<Self, Failure> {
        Ok(Self { path, file: create_private(path)?, is_kept: false })
    }

    /// Fills it.
    pub fn write(mut self, content: &str) -> Result<(), Failure> {
        let written = self.file.write_all(content.as_bytes());
        self.is_kept = written.is_ok();
        written.map_err(|error| Failure::of_path(self.path, "written", &error))
    }
}

impl Drop for Promised<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            // Where that fails, it says less than why the work ended.
            let _ = std::fs::remove_file(self.path);
        }
    }
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File, Failure> {
    let file = File::open(path).map_err(|error| Failure::of_path(path, "read", &error))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::usage(format!("{} is a folder: name a file.", path.display())));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_promised_file_is_there_once_it_is_filled_and_never_empty_or_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        let promised = Promised::create(&path).unwrap();
        assert!(path.exists() && Promised::create(&path).is_err() && path.exists());
        drop(promised);
        assert!(!path.exists());
        // It cannot be written.
        std::fs::write(&path, "").unwrap();
        let promised = Promised { path: &path, file: File::open(&path).unwrap(), is_kept: false };
        assert!(promised.write("x").is_err() && !path.exists());
        Promised::create(&path).unwrap().write("x").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "x");
    }

    #[test]
    fn a_new_file_is_private_and_nothing_is_overwritten() {
        let folder = std::env::temp_dir().join(format!("nightshift-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("results.jsonl");
        let file = create_private(&path).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(create_private(&path).unwrap_err().exit_code(), 1);
        let (target, link) = (folder.join("target"), folder.join("link"));
        symlink(&target, &link).unwrap();
        assert!(create_private(&link).is_err());
        assert!(!target.exists(), "nothing was made through the link");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
