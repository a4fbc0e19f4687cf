//! Files with bodies, answers or what was sent: private, and nothing is written through a link.

use std::fs::{File, OpenOptions};
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
