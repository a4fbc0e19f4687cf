//! The repository, linted as a test: what may depend on what, and what each crate must declare.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Each of our packages with its normal dependencies.
fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|d| d["kind"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned());
            (package["name"].as_str().unwrap().to_owned(), normal.collect())
        })
        .collect()
}

#[test]
fn dependencies_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("nightshift-core", &[][..]),
        ("nightshift-tasks", &["nightshift-core"][..]),
        ("nightshift-worker", &["nightshift-core"][..]),
        ("nightshift-models", &["nightshift-core", "nightshift-worker"][..]),
        ("nightshift-aws", &["nightshift-core", "nightshift-worker"][..]),
        ("nightshift-local", &["nightshift-core", "nightshift-tasks"][..]),
        (
            "nightshift-worker-function",
            &["nightshift-core", "nightshift-tasks", "nightshift-worker", "nightshift-models", "nightshift-aws"][..],
        ),
    ]);
    for (package, dependencies) in packages() {
        if package == "nightshift-tests" {
            continue; // sees all
        }
        let allowed = allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} is not in this test's table"));
        for ours in dependencies.iter().filter(|name| name.starts_with("nightshift-")) {
            assert!(allowed.contains(&ours.as_str()), "{package} must not depend on {ours}");
        }
    }
}

#[test]
fn the_core_knows_no_runtime_network_randomness_or_aws() {
    let core = &packages()["nightshift-core"];
    let pure = ["httpdate", "ryu-js", "serde", "serde_json", "sha2", "thiserror"];
    for dependency in core {
        assert!(pure.contains(&dependency.as_str()), "nightshift-core depends on {dependency}: is that pure?");
    }
}

#[test]
fn every_crate_takes_the_lints_and_the_version_of_the_workspace() {
    for entry in std::fs::read_dir(root().join("crates")).unwrap().chain(std::fs::read_dir(root()).unwrap().filter(|e| {
        e.as_ref().unwrap().file_name() == "tests"
    })) {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        for line in ["[lints]\nworkspace = true", "version.workspace = true", "publish.workspace = true"] {
            assert!(text.contains(line), "{} lacks {line:?}", manifest.display());
        }
    }
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    let mut folders = vec![root().join("runbook"), root().join("terraform")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".terraform") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            assert!(page.parent().unwrap().join(target).exists(), "{} links to {target}", page.display());
        }
    }
}
