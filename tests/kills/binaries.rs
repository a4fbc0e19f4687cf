//! The programs under test, as cargo builds them.

use std::path::{Path, PathBuf};
use std::process::Command;

use nightshift_tests::shell::as_in_a_shell;

/// Builds a program of this workspace and says where it is.
///
/// Cargo has no stable way to name another package's binary as a dependency of a test, so the test asks cargo itself;
/// where the program is up to date, that takes a second.
pub fn build(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let output = as_in_a_shell(&mut Command::new(env!("CARGO")))
        .args(["build", "--quiet", "--locked", "--target-dir"])
        .arg(target)
        // With the features of the workspace, as the test itself was built.
        .args(["--workspace", "--bin", "nightshift-worker-function", "--bin", "nightshift-demo"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{package}: {}", String::from_utf8_lossy(&output.stderr));
    target.join("debug").join(package)
}
