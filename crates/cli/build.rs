//! Tells the command how old its source is, also where `scripts/build` does not: `cargo install` knows no time.
//!
//! As there, the time is that of the last commit that changed what is built. Without git's history nothing is told.

use std::path::Path;
use std::process::Command;

const ROOT: &str = "../..";
/// What is built, as in `scripts/build`.
const SOURCES: [&str; 4] = ["crates", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=NIGHTSHIFT_BUILT_AT_MS");
    if std::env::var_os("NIGHTSHIFT_BUILT_AT_MS").is_some() {
        return;
    }
    // Each commit is a line in it. A file that is not there would count as changed in every build.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]).map(|log| Path::new(ROOT).join(log));
    match log.filter(|log| log.is_file()) {
        Some(log) => println!("cargo::rerun-if-changed={}", log.display()),
        None => SOURCES.iter().for_each(|source| println!("cargo::rerun-if-changed={ROOT}/{source}")),
    }
    let committed = git(&[&["log", "-1", "--format=%ct", "--"], &SOURCES[..]].concat());
    if let Some(seconds) = committed.and_then(|seconds| seconds.parse::<u64>().ok()) {
        println!("cargo::rustc-env=NIGHTSHIFT_BUILT_AT_MS={}", seconds * 1_000);
    }
}

fn git(args: &[&str]) -> Option<String> {
    let said = Command::new("git").arg("-C").arg(ROOT).args(args).output().ok()?;
    said.status.success().then(|| String::from_utf8_lossy(&said.stdout).trim().to_owned())
}
