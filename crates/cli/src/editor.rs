//! A text in a person's own editor: a private copy in a private folder, which is gone afterwards, whatever signal ends the
//! command but a kill. What they wrote in vain they may keep.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nightshift_aws::OsEntropy;
use nightshift_ports::Entropy as _;

use crate::error::Failure;
use crate::files;

/// A folder that only its owner may enter; removed with what is in it, unless it is kept.
struct PrivateFolder {
    path: PathBuf,
    is_kept: bool,
}

impl PrivateFolder {
    fn create() -> Result<Self, Failure> {
        // A name that nobody can know before; what stands there, a link included, makes it fail.
        let path = std::env::temp_dir().join(format!("nightshift-{}", OsEntropy.token()));
        let created = DirBuilder::new().mode(0o700).create(&path);
        created.map_err(|error| Failure::of_path(&path, "created", &error))?;
        Ok(Self { path, is_kept: false })
    }

    fn with(text: &str, name: &str) -> Result<(Self, PathBuf), Failure> {
        let folder = Self::create()?;
        let path = folder.path.join(name);
        let mut file = files::create_private(&path)?;
        file.write_all(text.as_bytes()).map_err(|error| Failure::of_path(&path, "written", &error))?;
        Ok((folder, path))
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A private copy of this text that stays, for whoever wrote it to find.
///
/// # Errors
/// Where there is no place for it.
pub fn keep(text: &str, name: &str) -> Result<PathBuf, Failure> {
    let (mut folder, path) = PrivateFolder::with(text, name)?;
    folder.is_kept = true;
    Ok(path)
}

/// What a person makes of this text in `VISUAL` or `EDITOR`, or in vi. Waits until the editor ends, on this thread.
///
/// # Errors
/// When there is no editor, or it says that it failed: nothing was changed.
pub fn edit(text: &str, name: &str) -> Result<String, Failure> {
    let (_folder, path) = PrivateFolder::with(text, name)?;
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    run(&editor, &path)?;
    std::fs::read_to_string(&path).map_err(|error| Failure::of_path(&path, "read", &error))
}

/// By a shell, as git does it: the variable may hold arguments (`code --wait`). The path is no part of the script. A shell
/// that has no trap of its own ends by a Ctrl-C which the editor took as its own, and would call that editor failed.
fn run(editor: &str, path: &Path) -> Result<(), Failure> {
    let ended = Command::new("sh")
        .arg("-c")
        .arg(format!("trap : INT; {editor} \"$1\""))
        .arg("editor")
        .arg(path)
        .status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Failure::failed(
            "The editor could not be used, and nothing was changed: set EDITOR to one that waits, or give the output with --from.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_copy_is_private_and_gone_afterwards() {
        let (folder, path) = PrivateFolder::with("{}", "output.json").unwrap();
        assert_eq!(std::fs::metadata(&folder.path).unwrap().mode() & 0o777, 0o700);
        assert!(path.exists());
        drop(folder);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }
}
