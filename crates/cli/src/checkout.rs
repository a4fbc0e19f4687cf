//! A checkout of Nightshift, whose command is built there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::child;
use crate::error::Failure;
use crate::render::say;

/// What cargo needs of the environment: no credentials that stand in it, and nothing that this command is told. What is built
/// there can still read what whoever asked can read, as any build can.
const KEPT: [&str; 18] = [
    "PATH",
    "CC",
    "ALL_PROXY",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "HOME",
    "TERM",
    "TMPDIR",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// And how variables begin by which cargo is configured.
const KEPT_STARTS: [&str; 6] =
    ["CARGO_HTTP_", "CARGO_NET_", "CARGO_PROFILE_", "CARGO_REGISTRIES_", "CARGO_TARGET_", "PKG_CONFIG_"];

fn is_kept(name: &str) -> bool {
    // A registry's, which nothing that is built needs to know, nor where this command itself is built.
    if name.ends_with("_TOKEN") || name == "CARGO_TARGET_DIR" {
        return false;
    }
    KEPT.contains(&name) || KEPT_STARTS.iter().any(|start| name.starts_with(start))
}

/// # Errors
/// Where the folder is no checkout.
pub fn check(folder: &Path) -> Result<(), Failure> {
    if folder.join("Cargo.lock").is_file() && folder.join("crates/cli/Cargo.toml").is_file() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} is a folder and no checkout of nightshift: it has no Cargo.lock and crates/cli/Cargo.toml. Name the root of one, or the file of another build.",
        folder.display()
    )))
}

/// Says what will be done, before whoever asked agrees to it.
pub fn announce(folder: &Path) {
    say(&format!(
        "Builds nightshift in {} first, into its target folder: for the first time this takes minutes and some gigabytes.",
        folder.display()
    ));
}

/// Builds the command into the checkout's own target folder, while cargo shows on standard error how far it is, and says
/// where it stands.
///
/// # Errors
/// Where there is no cargo, or the checkout does not build.
pub async fn built(folder: &Path) -> Result<PathBuf, Failure> {
    let answered = child::Output::new()?;
    let mut command = Command::new("cargo");
    command.args(["build", "--locked", "-p", "nightshift-cli", "--bin", "nightshift"]);
    // Where it stands depends on the checkout's own configuration, and only cargo knows.
    command.args(["--target-dir", "target", "--message-format", "json-render-diagnostics"]);
    let kept = std::env::vars_os().filter(|(name, _)| is_kept(&name.to_string_lossy()));
    command.current_dir(folder).env_clear().envs(kept);
    command.stdin(Stdio::null()).stdout(answered.stdio()?);
    let status = child::ended(&mut command, Path::new("cargo"))
        .await
        .map_err(|failure| failure.or("name the file of another build, which needs no cargo here"))?;
    if !status.success() {
        return Err(Failure::failed(format!(
            "The checkout {} does not build, and cargo says why above: mend it, or name the file of another build.",
            folder.display()
        )));
    }
    executable(&answered.text()?).ok_or_else(|| {
        Failure::failed(format!(
            "Cargo does not say where it put the command of {}: build it there, and name its file.",
            folder.display()
        ))
    })
}

/// Where the command stands, by the messages of cargo, one a line.
fn executable(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_command = message.pointer("/target/name").is_some_and(|name| name == "nightshift");
        is_command.then(|| message.get("executable").and_then(Value::as_str).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_told_how_to_build_and_no_secret() {
        for (name, kept) in [
            ("PATH", true),
            ("RUSTFLAGS", true),
            ("CARGO_NET_OFFLINE", true),
            ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", true),
            ("CARGO_REGISTRIES_OURS_INDEX", true),
            ("CARGO_REGISTRIES_OURS_TOKEN", false),
            ("CARGO_TARGET_DIR", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("NIGHTSHIFT_MODEL_KEY", false),
        ] {
            assert_eq!(is_kept(name), kept, "{name}");
        }
    }
}
