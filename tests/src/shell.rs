//! Commands as a shell runs them, and not a test.

use std::process::Command;

/// Without what cargo tells a test of its package. The build script of `ring` looks at it: all that is above it would be built
/// anew, and once more by whoever builds next, under the feet of those who still use it.
pub fn as_in_a_shell(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let of_package = ["CARGO_MANIFEST_", "CARGO_PKG_"];
        if of_package.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
}
