//! The repository, linted as a test: what may depend on what, and what each crate must declare.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    missing_docs
)] // a test

mod circles;
mod code;
mod command;
mod functions;
mod rooms;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use code::{files, packages};
use nightshift_core::control::Cause;
use nightshift_core::failure::FailureReason;
use nightshift_core::metric::{Gauge, HandBackCause, Latency, Metric, NAMESPACE};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Packages with their features, as a build of all targets of such dependencies has them.
fn features(edges: &str) -> BTreeSet<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p} with {f}",
        ])
        .args(["--edges", edges])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn programs_have_the_features_of_others_that_tests_have() {
    let (tests, programs) = (features("normal,build,dev"), features("normal,build"));
    assert!(programs.len() > 200, "cargo tree names {} packages", programs.len());
    let apart: Vec<&String> = programs.difference(&tests).collect();
    assert!(
        apart.is_empty(),
        "only a dev-dependency asks for more of these: name it in [dependencies] of tests/Cargo.toml, \
         or the programs that tests start are built from a second AWS SDK: {apart:#?}"
    );
}

#[test]
fn dependencies_point_down() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("nightshift-core", &[][..]),
        ("nightshift-tasks", &["nightshift-core"][..]),
        // A user's: what they make it depend on is theirs, as long as it is a task's business.
        ("my-tasks", &["nightshift-core", "nightshift-tasks"][..]),
        ("nightshift-load-report", &["nightshift-core"][..]),
        ("nightshift-ports", &["nightshift-core"][..]),
        ("nightshift-worker", &["nightshift-core", "nightshift-ports"][..]),
        ("nightshift-redrive", &["nightshift-core", "nightshift-ports"][..]),
        ("nightshift-sentinel", &["nightshift-core", "nightshift-ports"][..]),
        ("nightshift-models", &["nightshift-core", "nightshift-ports"][..]),
        ("nightshift-aws", &["nightshift-core", "nightshift-ports"][..]),
        (
            "nightshift-shell",
            &["nightshift-core", "nightshift-ports", "nightshift-models", "nightshift-aws"][..],
        ),
        ("nightshift-local", &[][..]),
        ("nightshift-alarms", &[][..]),
        (
            "nightshift-demo",
            &["nightshift-core", "nightshift-aws", "nightshift-models", "nightshift-local", "my-tasks"][..],
        ),
        (
            "nightshift-cli",
            &[
                "nightshift-core",
                "nightshift-tasks",
                "my-tasks",
                "nightshift-ports",
                "nightshift-load-report",
                "nightshift-models",
                "nightshift-aws",
                "nightshift-shell",
            ][..],
        ),
        (
            "nightshift-redrive-function",
            &[
                "nightshift-core",
                "my-tasks",
                "nightshift-ports",
                "nightshift-redrive",
                "nightshift-aws",
                "nightshift-shell",
            ][..],
        ),
        (
            "nightshift-sentinel-function",
            &["nightshift-core", "nightshift-sentinel", "nightshift-aws", "nightshift-shell"][..],
        ),
        (
            "nightshift-worker-function",
            &[
                "nightshift-core",
                "nightshift-tasks",
                "my-tasks",
                "nightshift-ports",
                "nightshift-worker",
                "nightshift-models",
                "nightshift-aws",
                "nightshift-shell",
            ][..],
        ),
    ]);
    for (package, of) in packages() {
        if ["nightshift-tests", "nightshift-simulation", "nightshift-drills", "nightshift-load"]
            .contains(&package.as_str())
        {
            continue; // sees all
        }
        let allowed =
            allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} is not in this test's table"));
        for ours in
            of.dependencies.iter().filter(|name| name.starts_with("nightshift-") || *name == "my-tasks")
        {
            assert!(allowed.contains(&ours.as_str()), "{package} must not depend on {ours}");
        }
    }
}

/// The core knows no runtime, network, randomness or AWS, and what loops over ports none but a runtime's clock and channels.
#[test]
fn who_decides_and_who_loops_over_ports_depend_on_little_of_others() {
    let pure = ["hdrhistogram", "httpdate", "ryu-js", "serde", "serde_json", "sha2", "strum", "thiserror"];
    let looping =
        ["async-trait", "futures-util", "secrecy", "serde", "serde_json", "thiserror", "tokio", "tracing"];
    let packages = packages();
    for (name, known) in [
        ("core", &pure[..]),
        ("ports", &looping),
        ("worker", &looping),
        ("redrive", &looping),
        ("sentinel", &looping),
    ] {
        for dependency in &packages[&format!("nightshift-{name}")].dependencies {
            let is_ours = packages.contains_key(dependency);
            assert!(
                is_ours || known.contains(&dependency.as_str()),
                "nightshift-{name} depends on {dependency}: is that none of an adapter's business?"
            );
        }
    }
}

/// The module's files, each with its text.
fn terraform_files() -> Vec<(PathBuf, String)> {
    let files = std::fs::read_dir(root().join("terraform")).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "tf"));
    files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// A text without lines that are comments.
fn without_comments(text: &str, mark: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(mark));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Aliases included: whoever renames a module names it first.
#[test]
fn who_decides_and_who_loops_over_ports_know_nothing_of_the_machine() {
    const OF_THE_MACHINE: [&str; 5] = ["env", "fs", "net", "process", "thread"];
    for name in ["core", "ports", "worker", "redrive", "sentinel"] {
        for (path, text) in files(&root().join(format!("crates/{name}/src"))) {
            let code = without_comments(&text, "//").split_whitespace().collect::<String>();
            let mut named: BTreeSet<&str> = BTreeSet::new();
            for rest in code.split("std::").skip(1) {
                let imported = if rest.starts_with('{') { rest.split(';').next().unwrap() } else { rest };
                let of = words(imported, |c| c.is_ascii_alphanumeric() || c == '_');
                named.extend(if rest.starts_with('{') {
                    of.collect()
                } else {
                    of.take(1).collect::<Vec<_>>()
                });
            }
            for module in OF_THE_MACHINE {
                assert!(!named.contains(module), "{} knows std::{module}", path.display());
            }
            for call in ["spawn(", "RandomState", "SystemTime::elapsed", "UNIX_EPOCH.elapsed"] {
                let spared = path.ends_with("tests.rs") || path.ends_with("pause_tests.rs");
                assert!(spared || !code.contains(call), "{} has {call}", path.display());
            }
        }
    }
}

/// What else panics, a lint denies.
#[test]
fn what_decides_and_what_loops_over_ports_asserts_nothing() {
    for name in ["core", "ports", "worker", "redrive", "sentinel"] {
        let sources = code::sources(&root().join(format!("crates/{name}/src")));
        assert!(sources.len() > 5, "the scan finds the sources of {name}");
        for source in sources.iter().filter(|source| !source.path.ends_with("pause_tests.rs")) {
            for call in ["assert!(", "assert_eq!(", "assert_ne!("] {
                let shown = source.path.display();
                // One for tests alone (`debug_assert!`) ends no program.
                let asserts = source.code.replace("debug_assert", "").contains(call);
                assert!(!asserts, "{shown} has {call}…): answer with a result instead");
            }
        }
    }
}

/// A file that no `mod` names is compiled by nobody.
#[test]
fn every_source_file_has_its_line() {
    let files = files(&root().join("crates")).into_iter().map(|(path, _)| path);
    for path in files.filter(|path| path.to_string_lossy().contains("/src/")) {
        // A folder's own file stands for the folder.
        let module = if path.ends_with("mod.rs") { path.parent().unwrap() } else { &path };
        let (name, folder) = (module.file_stem().unwrap().to_str().unwrap(), module.parent().unwrap());
        let is_root = ["main", "lib"].contains(&name) || folder.ends_with("bin");
        let parents = [
            folder.join("mod.rs"),
            folder.join("lib.rs"),
            folder.join("main.rs"),
            folder.with_extension("rs"),
        ];
        let line = [format!("mod {name};"), format!("{name},"), format!("/{name}.rs\"")];
        let mut named = parents.iter().filter_map(|parent| std::fs::read_to_string(parent).ok());
        let has_line = named.any(|text| {
            let code = without_comments(&text, "//");
            line.iter().any(|line| code.contains(line))
        });
        assert!(is_root || has_line, "no `mod` names {}", path.display());
    }
}

#[test]
fn every_crate_takes_the_lints_and_the_version_of_the_workspace() {
    let denied = ["unwrap_used", "expect_used", "indexing_slicing", "clippy::panic", "missing_docs"];
    for (path, text) in files(&root().join("crates")) {
        let of_tests = path.to_string_lossy().contains("/tests/") || text.contains("// a test");
        let allowed = text.lines().filter(|line| line.starts_with("#![allow("));
        let allows = allowed.flat_map(|line| denied.iter().filter(|lint| line.contains(**lint))).next();
        assert!(of_tests || allows.is_none(), "{} allows {allows:?}", path.display());
    }
    for entry in std::fs::read_dir(root().join("crates"))
        .unwrap()
        .chain(std::fs::read_dir(root()).unwrap().filter(|e| e.as_ref().unwrap().file_name() == "tests"))
        .chain(std::fs::read_dir(root().join("tests")).unwrap())
    {
        let manifest = entry.unwrap().path().join("Cargo.toml");
        if !manifest.exists() || manifest.ends_with("fuzz/Cargo.toml") {
            continue;
        }
        // A user's own, so that a new version changes nothing in it, its line in Cargo.lock included.
        if manifest.ends_with("my-tasks/Cargo.toml") {
            continue;
        }
        let text = std::fs::read_to_string(&manifest).unwrap();
        for line in ["[lints]\nworkspace = true", "version.workspace = true", "publish.workspace = true"] {
            assert!(text.contains(line), "{} lacks {line:?}", manifest.display());
        }
    }
}

/// As GitHub names them in links.
fn headings(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix('#'));
    let name = |line: &str| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect::<String>()
            .replace(' ', "-")
    };
    lines.map(name).collect()
}

#[test]
fn every_link_in_the_documentation_leads_somewhere() {
    let mut pages =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("tests/README.md")];
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
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let other = if target.is_empty() { page.clone() } else { page.parent().unwrap().join(target) };
            assert!(other.exists(), "{} links to {target}", page.display());
            let leads =
                heading.is_empty() || headings(&std::fs::read_to_string(other).unwrap()).contains(heading);
            assert!(leads, "{} links to {link}: no such heading", page.display());
        }
    }
}

#[test]
fn the_map_names_every_crate_and_every_room_of_the_core() {
    let map = read("ARCHITECTURE.md");
    for (folder, but) in [("crates", &[][..]), ("crates/core/src", &["lib.rs", "snapshots"][..])] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap().flatten() {
            let (name, is_folder) =
                (entry.file_name().into_string().unwrap(), entry.file_type().unwrap().is_dir());
            let named = if folder == "crates" {
                format!("`crates/{name}`")
            } else {
                format!("`{name}{}`", if is_folder { "/" } else { "" })
            };
            assert!(but.contains(&name.as_str()) || map.contains(&named), "ARCHITECTURE.md has no {named}");
        }
    }
}

/// The flags of `scripts/…` that the documentation names, by script.
fn flags_named(text: &str) -> BTreeSet<(String, String)> {
    let mut flags = BTreeSet::new();
    for command in text.split("scripts/").skip(1) {
        let command = command.split(['`', '\n', '|', ';', '"']).next().unwrap();
        let (named, _) = command.split_once(" # ").unwrap_or((command, ""));
        let mut words = named.split_whitespace();
        let script = words.next().unwrap_or_default().to_owned();
        let named = words.map(|word| word.split('=').next().unwrap()).filter(|word| word.starts_with("--"));
        flags.extend(named.map(|flag| (script.clone(), flag.to_owned())));
    }
    flags
}

#[test]
fn the_sentinel_may_write_what_it_remembers() {
    let key = nightshift_core::sentinel::WATCH_KEY;
    assert!(read("terraform/sentinel.tf").contains(&format!(r#"= ["control", "{key}"] }}"#)), "{key}");
}

#[test]
fn every_flag_of_a_script_that_the_documentation_names_is_known_to_it() {
    let pages = runbook_pages().into_iter().map(|(_, page)| page);
    let text: String =
        ["README.md", "ARCHITECTURE.md", "tests/README.md"].map(read).into_iter().chain(pages).collect();
    let flags = flags_named(&text);
    assert!(flags.len() > 8, "{flags:?}");
    for (script, flag) in flags {
        // What it passes on is known to the program that it starts.
        let programs = match script.as_str() {
            "demo" => &["crates/demo/src/main.rs"][..],
            "simulate" => &["tests/simulation/src/main.rs", "tests/load/src/main.rs"],
            "load-test" => &["crates/cli/src/commands/load_test.rs"],
            _ => &[],
        };
        let field = format!(" {}:", flag.trim_start_matches('-').replace('-', "_"));
        let known = read(&format!("scripts/{script}")).contains(&flag)
            || programs.iter().any(|program| read(program).contains(&field));
        assert!(known, "scripts/{script} knows no {flag}");
    }
}

#[test]
fn every_folder_of_tests_has_its_line() {
    let page = read("tests/README.md");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(folder, _)| folder.to_owned())
        .collect();
    let folders = std::fs::read_dir(root().join("tests")).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.path().is_dir()).map(|e| e.file_name().into_string().unwrap());
    // Caches of tools.
    let folders: BTreeSet<_> = folders.filter(|name| !name.starts_with(['.', '_'])).collect();
    assert_eq!(listed, folders);
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words of a text that have only these characters, in order.
fn words(text: &str, of: impl Fn(char) -> bool + Copy) -> impl Iterator<Item = &str> {
    text.split(move |c| !of(c)).filter(|word| !word.is_empty())
}

#[test]
fn an_operator_may_read_what_the_ledgers_reader_reads() {
    let called: BTreeSet<_> = code::operations(&read("crates/aws/src/ledger/query.rs"))
        .into_iter()
        .map(|operation| {
            let words = operation.split('_').map(|word| word[..1].to_ascii_uppercase() + &word[1..]);
            format!("\"dynamodb:{}\"", words.collect::<String>())
        })
        .collect();
    assert!(called.len() > 3, "the scan finds the calls: {called:?}");
    let policies = read("terraform/policies.tf");
    let statement = policies.split_once("\"ReadTheLedger\"").unwrap().1.split_once('}').unwrap().0;
    for action in called {
        assert!(statement.contains(&action), "the policy `operator` does not allow {action}");
    }
}

/// The pages of the runbook, with those of `procedures/`, by their path from the root.
fn runbook_pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for folder in ["runbook", "runbook/procedures"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
                pages.push((name.clone(), read(&name)));
            }
        }
    }
    assert!(pages.len() > 25, "{}", pages.len());
    pages
}

/// `aws <service> <verb>` of one line, as the actions that IAM allows it by.
fn actions_of_commands(line: &str) -> Vec<String> {
    let mut actions = Vec::new();
    for command in line.split("aws ").skip(1) {
        let mut words = command.split([' ', '`', '"', ')']);
        let (Some(service), Some(verb)) = (words.next(), words.next()) else { continue };
        let of = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        if !of(service) || !of(verb) {
            continue; // a sentence
        }
        let operation: String =
            verb.split('-').map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
        // The API's name of it is another than IAM's (Service Authorization Reference, AWS Lambda).
        let operation = if operation == "Invoke" { "InvokeFunction".to_owned() } else { operation };
        actions.push(format!("{service}:{operation}"));
        // A move is done in the name of who starts it (SQS Developer Guide, "Configuring queue permissions").
        if operation == "StartMessageMoveTask" {
            actions
                .extend(["ReceiveMessage", "DeleteMessage", "SendMessage"].map(|more| format!("sqs:{more}")));
        }
    }
    actions
}

#[test]
fn an_operator_may_do_what_the_runbook_says() {
    // Their first paragraph says that they need an administrator.
    let by_an_administrator = [
        "customer-key",
        "deploy",
        "destroy-and-recreate",
        "load-test",
        "restore-the-ledger",
        "second-region",
    ]
    .map(|page| format!("runbook/procedures/{page}.md"));
    let policies = read("terraform/policies.tf");
    let operator = policies.split_once("operator = {").unwrap().1;
    let allowed: BTreeSet<&str> = operator.split('"').filter(|text| text.contains(':')).collect();
    let mut commands = 0;
    for (page, text) in runbook_pages() {
        if by_an_administrator.contains(&page) {
            let begin = text.split("\n#").next().unwrap().split("\n```").next().unwrap();
            assert!(begin.contains("administrator"), "{page} does not say at its beginning who can do it");
            continue;
        }
        for line in text.lines().filter(|line| !line.contains("an administrator")) {
            for action in actions_of_commands(line) {
                commands += 1;
                assert!(
                    allowed.contains(action.as_str()),
                    "{page} tells an operator to do what the policy `operator` does not allow, {action}: \
                     allow it in terraform/policies.tf, or say on the same line that it needs an administrator.\n  {line}"
                );
            }
        }
    }
    assert!(commands > 100, "the scan finds the commands: {commands}");
}

fn command_blocks(page: &str) -> Vec<&str> {
    page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn the_runbooks_commands_are_for_any_stack_never_wait_for_a_key_and_show_the_newest() {
    let mut commands = 0;
    for (page, text) in runbook_pages() {
        for block in command_blocks(&text) {
            for line in block.lines().filter(|line| line.starts_with("export PREFIX=")) {
                commands += 1;
                let sets = line.contains(" AWS_REGION=") && line.ends_with(" AWS_PAGER=");
                assert!(sets, "{page}: the AWS CLI opens a pager unless AWS_PAGER is empty:\n  {line}");
            }
            for command in block.replace("\\\n", " ").lines() {
                let named = command.replace("${PREFIX:-nightshift}", "");
                assert!(
                    !named.contains("nightshift-"),
                    "{page}: say $PREFIX instead of a name:\n  {command}"
                );
                let oldest = command.contains("filter-log-events") && command.contains("--max-items");
                assert!(
                    !oldest,
                    "{page}: of log lines --max-items shows the oldest; pipe them into tail:\n  {command}"
                );
                let impatient = command.contains(" wait ");
                assert!(
                    !impatient,
                    "{page}: the CLI's waiters give up after minutes; loop instead:\n  {command}"
                );
                let state = command.contains("terraform ") && command.contains(" output ");
                assert!(!state, "{page}: whoever is woken up has no Terraform state:\n  {command}");
            }
        }
    }
    assert!(commands > 30, "the scan finds the commands: {commands}");
}

/// The metrics of ours that a Terraform file names: `["stack", "X", …]`, and `[for name in … : ["stack", name, …]`.
fn metrics_named_in(terraform: &str) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    for source in ["[\"stack\", ", "[\"reason\", ", "[\"cause\", ", "[\"spend_cap\", "] {
        let mut before = "";
        for part in terraform.split(source) {
            if let Some(quoted) = part.strip_prefix('"') {
                named.insert(quoted.split('"').next().unwrap());
            } else if part.starts_with("name,") {
                let looped_over = before.rsplit_once("[for name").expect("a loop over names").1;
                named.extend(
                    words(looped_over, |c| c.is_ascii_alphanumeric() || c == '_')
                        .filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())),
                );
            } else {
                assert_eq!(before, "", "neither a name nor a loop over names: {part:.60}");
            }
            before = part;
        }
    }
    named
}

fn published() -> BTreeSet<&'static str> {
    let counted = Metric::ALL.iter().map(|metric| metric.name());
    let measured = Latency::ALL.iter().map(|latency| latency.name());
    counted.chain(measured).chain(Gauge::ALL.iter().map(|gauge| gauge.name())).collect()
}

/// With FILL, a misspelt metric is an alarm that is never raised, and a graph that is always empty.
#[test]
fn alarms_dashboard_and_runbook_name_metrics_that_the_worker_publishes() {
    let published = published();
    let mut places = vec![];
    for file in ["terraform/alarms.tf", "terraform/dashboard.tf"] {
        let text = read(file);
        let named: BTreeSet<String> = metrics_named_in(&text).into_iter().map(str::to_owned).collect();
        assert!(named.len() > 8, "{file}: the scan finds the metrics: {named:?}");
        places.push((file.to_owned(), named));
    }
    let command = format!("--namespace {NAMESPACE} --metric-name ");
    for (page, text) in runbook_pages() {
        let named = text.split(&command).skip(1).map(|rest| rest.split(' ').next().unwrap().to_owned());
        places.push((page, named.collect()));
    }
    for (place, named) in places {
        for metric in named {
            assert!(published.contains(metric.as_str()), "{place} reads {metric}, which nothing publishes");
        }
    }
    // No server on one machine checks this condition: another namespace would be refused on AWS alone.
    for role in ["worker", "sentinel"].map(|function| read(&format!("terraform/{function}.tf"))) {
        assert!(role.contains(&format!("\"cloudwatch:namespace\" = \"{NAMESPACE}\"")));
    }
    let alarms = read("terraform/alarms.tf");
    assert!(alarms.contains(&format!("namespace = \"{NAMESPACE}\", dimensions = {{ Stack")));
    for cause in [HandBackCause::SpendCap].map(HandBackCause::as_str) {
        assert!(
            alarms.contains(&format!("Cause = \"{cause}\"")),
            "no alarm on what is handed back for {cause}"
        );
    }
}

#[test]
fn somebody_is_shown_every_metric() {
    let of_terraform = read("terraform/alarms.tf") + &read("terraform/dashboard.tf");
    let mut shown = without_comments(&of_terraform, "#");
    shown.extend(runbook_pages().into_iter().map(|(_, text)| without_comments(&text, "<!--")));
    let shown: BTreeSet<&str> = words(&shown, |c| c.is_ascii_alphanumeric()).collect();
    let unseen: Vec<_> = published().into_iter().filter(|metric| !shown.contains(metric)).collect();
    assert!(unseen.is_empty(), "no alarm, no graph and no page of the runbook reads {unseen:?}");
}

/// Every name and path of the crates' code, without tests and without these files.
fn names_in_code(but: &[&str]) -> BTreeSet<String> {
    let is_product =
        |path: &Path| !path.iter().any(|part| part == "tests") && !but.iter().any(|but| path.ends_with(but));
    let product = files(&root().join("crates")).into_iter().filter(|(path, _)| is_product(path));
    let code: String =
        product.map(|(_, text)| without_comments(text.split("#[cfg(test)]").next().unwrap(), "//")).collect();
    // Of a path in full, its last two parts.
    let paths = words(&code, |c| c.is_ascii_alphanumeric() || c == ':' || c == '_');
    let last = |path: &str| {
        let parts: Vec<&str> = path.split("::").collect();
        parts[parts.len().saturating_sub(2)..].join("::")
    };
    paths.map(last).collect()
}

/// In the tables of `metric.rs` a metric is `Self::`; where it is counted it is named in full.
#[test]
fn every_metric_is_counted_somewhere() {
    let code = names_in_code(&[]);
    let is_counted = |kind: &str, name: &str| code.contains(&format!("{kind}::{name}"));
    for metric in Metric::ALL {
        assert!(is_counted("Metric", metric.name()), "nothing counts {}", metric.name());
    }
    for latency in Latency::ALL {
        assert!(is_counted("Latency", latency.name()), "nothing samples {}", latency.name());
    }
    for gauge in Gauge::ALL {
        assert!(is_counted("Gauge", gauge.name()), "nothing reads {}", gauge.name());
    }
}

/// A number that is wrong in every invocation would else be wrong in all of them unseen.
#[test]
fn the_simulation_judges_every_metric() {
    let judge = read("tests/simulation/src/oracle/numbers.rs");
    let judged: BTreeSet<&str> = judge.split('"').skip(1).step_by(2).collect();
    let counted = Metric::ALL.iter().map(|metric| metric.name());
    let unjudged: Vec<_> = counted
        .chain(Latency::ALL.iter().map(|latency| latency.name()))
        .filter(|name| !judged.contains(name))
        .collect();
    assert!(unjudged.is_empty(), "tests/simulation/src/oracle/numbers.rs judges no {unjudged:?}");
}

/// The files left out name each of them, whether it is given or not.
#[test]
fn every_reason_and_every_cause_of_a_hand_back_is_given_somewhere() {
    let code = names_in_code(&["core/src/redrive/report.rs", "core/src/next_step/hand_back.rs"]);
    let reasons = FailureReason::ALL.iter().map(|reason| format!("FailureReason::{reason:?}"));
    let causes = HandBackCause::ALL.iter().map(|cause| format!("HandBackCause::{cause:?}"));
    let never: Vec<_> = reasons.chain(causes).filter(|name| !code.contains(name)).collect();
    assert!(never.is_empty(), "nothing gives {never:?}");
}

/// Says which words a place lacks, has twice, or invents.
fn assert_lists<'a>(place: &str, listed: impl IntoIterator<Item = &'a str>, all: &BTreeSet<&str>) {
    let mut known = BTreeSet::new();
    for word in listed {
        assert!(all.contains(word), "{place} lists {word:?}, which is none");
        assert!(known.insert(word), "{place} lists {word:?} twice");
    }
    let missing: Vec<_> = all.difference(&known).collect();
    assert!(missing.is_empty(), "{place} does not list {missing:?}");
}

#[test]
fn every_place_lists_every_failure_reason() {
    let all: BTreeSet<&str> = FailureReason::ALL.iter().map(|reason| reason.as_str()).collect();
    let dashboard = read("terraform/dashboard.tf");
    let listed = dashboard.split_once("failure_reasons = [").unwrap().1.split_once(']').unwrap().0;
    assert_lists("terraform/dashboard.tf, failure_reasons,", listed.split('"').skip(1).step_by(2), &all);
    let readme = read("README.md");
    let row = readme.split_once("| `FailureReason` | one of ").unwrap().1.split_once('\n').unwrap().0;
    assert_lists("README.md, FailureReason,", row.split('`').skip(1).step_by(2), &all);
    let page = read("runbook/dead-letters-present.md");
    let table = page.split_once("| reason | ").unwrap().1.split_once("\n\n").unwrap().0;
    let first_column = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" |"));
    let reasons =
        first_column.flat_map(|(reasons, _)| reasons.split(['`', ',', ' '])).filter(|w| !w.is_empty());
    assert_lists("runbook/dead-letters-present.md", reasons, &all);
    let page = read("runbook/dead-letters-rising.md");
    let diagnosis = page.split_once("## Diagnosis").unwrap().1.split_once("\n## ").unwrap().0;
    // A person rejects one result after the other.
    let untold: Vec<_> = all
        .iter()
        .filter(|reason| **reason != "review_rejected" && !diagnosis.contains(&format!("`{reason}`")))
        .collect();
    assert!(
        untold.is_empty(),
        "runbook/dead-letters-rising.md, Diagnosis, does not say what it means when {untold:?} rises"
    );
}

#[test]
fn the_dashboard_shows_every_cause_of_a_pause() {
    let all: BTreeSet<&str> = Cause::ALL.iter().map(|cause| cause.as_str()).collect();
    let dashboard = read("terraform/dashboard.tf");
    let listed = dashboard.split_once("pause_causes = [").unwrap().1.split_once(']').unwrap().0;
    assert_lists("terraform/dashboard.tf, pause_causes,", listed.split('"').skip(1).step_by(2), &all);
}

#[test]
fn the_runbook_says_what_each_cause_of_a_hand_back_means() {
    let all: Vec<String> = HandBackCause::ALL.iter().map(|cause| format!("{cause:?}")).collect();
    let page = read("runbook/oldest-job-too-old.md");
    let lines = page.lines().filter_map(|line| line.strip_prefix("- `HandedBack(")?.split_once(": "));
    let causes = lines.flat_map(|(causes, _)| words(causes, |c| c.is_ascii_alphanumeric()));
    let all = all.iter().map(String::as_str).collect();
    assert_lists("runbook/oldest-job-too-old.md", causes, &all);
}

const NUMBERS: [&str; 26] = [
    "no",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
    "twenty-one",
    "twenty-two",
    "twenty-three",
    "twenty-four",
    "twenty-five",
];

fn in_words(number: usize) -> &'static str {
    NUMBERS.get(number).unwrap_or_else(|| panic!("NUMBERS of this test ends before {number}"))
}

/// What CloudWatch charges for is counted there.
#[test]
fn the_readme_counts_the_metrics_that_it_prices() {
    let readme = read("README.md");
    // All but `RecordsUnreadable`, which it says apart.
    let of_a_stack = published().len() - 1 - Gauge::ALL.len();
    // Three tasks, and the reasons and causes that a healthy stack meets.
    let paid = of_a_stack + 3 * 17 + 4 + 3;
    let usd_a_month = paid as f64 * 0.30;
    for expected in [
        format!("{of_a_stack} per stack, about 17 for each of three tasks"),
        format!("four of the {} reasons", in_words(FailureReason::ALL.len())),
        format!("three of the {} causes of hand-backs", in_words(HandBackCause::ALL.len())),
        format!("(`JobsHandedBack` by `Cause`): {paid}."),
        format!(
            "| custom metrics: {paid} × 0.30, for the share of hours with jobs | 0 | {:.2} | {usd_a_month:.2} |",
            usd_a_month * 200.0 / 730.0
        ),
        format!("{} gauges", Gauge::ALL.len()),
        // `Paused` is published for one cause, too.
        format!("| the sentinel: {} metrics × 0.30, ", Gauge::ALL.len() + 1),
    ] {
        assert!(readme.contains(&expected), "README.md, \"What it costs\", does not say {expected:?}");
    }
}

#[test]
fn what_a_stack_costs_is_the_sum_of_its_rows() {
    let readme = read("README.md");
    let table = readme.split_once("| alarms: ").unwrap().1.split_once("\n| the model").unwrap().0;
    let columns = |row: &str| -> Vec<f64> {
        let cells = row.split('|').map(|cell| cell.trim_matches([' ', '*']));
        cells.filter_map(|cell| cell.parse().ok()).collect()
    };
    let (rows, sum) = table.rsplit_once('\n').unwrap();
    let mut added = [0.0; 3];
    for row in rows.lines() {
        for (column, usd) in added.iter_mut().zip(columns(row)) {
            *column += usd;
        }
    }
    let dollars = |columns: &[f64]| columns.iter().map(|usd| format!("{usd:.2}")).collect::<Vec<_>>();
    assert_eq!(dollars(&added), dollars(&columns(sum)), "README.md: its rows added up, and its row for AWS");
}

/// An entry of `alarms` in Terraform.
struct Alarm {
    page: String,
    entry: String,
}

impl Alarm {
    fn all() -> Vec<Self> {
        let terraform = read("terraform/alarms.tf");
        let entries = terraform.split_once("\n  alarms = {\n").unwrap().1.split_once("\n  }\n").unwrap().0;
        let entries = entries.split("\n    }\n").filter_map(|entry| entry.split_once(" = {\n"));
        let all = entries.map(|(page, entry)| Self { page: page.trim().to_owned(), entry: entry.to_owned() });
        all.collect()
    }

    fn says(&self, argument: &str) -> &str {
        let value = self.entry.split_once(&format!("      {argument} ")).unwrap().1;
        value.split('"').nth(1).unwrap()
    }

    /// What CloudWatch charges for, the windows of a burn rate included.
    fn metrics(&self) -> usize {
        let shared = [("local.job_ages", 2), ("local.job_outcomes", 3)];
        let shared = shared.map(|(local, holds)| self.entry.matches(local).count() * holds);
        self.entry.matches("= [\"").count() + shared.iter().sum::<usize>()
    }
}

#[test]
fn every_alarm_is_told_of_in_the_runbook_and_in_the_readme() {
    let alarms = Alarm::all();
    let rows: Vec<String> = alarms
        .iter()
        .map(|alarm| {
            let page = &alarm.page;
            format!("| [{page}]({page}.md) | {} | {} |", alarm.says("severity"), alarm.says("summary"))
        })
        .collect();
    let runbook = read("runbook/README.md");
    let table = runbook.split_once("| page | severity |").unwrap().1.lines().skip(2);
    let told = table.take_while(|line| line.starts_with('|'));
    assert_lists("runbook/README.md", told, &rows.iter().map(String::as_str).collect());

    let readme = read("README.md");
    let fired = readme.split_once("## What was seen to fire").unwrap().1.split_once("\n## ").unwrap().0;
    let (by_choice, always): (Vec<_>, Vec<_>) =
        alarms.iter().partition(|alarm| alarm.entry.contains("\n      enabled "));
    for Alarm { page, .. } in &alarms {
        assert!(
            fired.contains(&format!("\n| `{page}` | ")),
            "README.md, \"What was seen to fire\", has no {page}"
        );
    }
    let more = readme.split_once(" more: ").unwrap().1.split_once(')').unwrap().0;
    for Alarm { page, .. } in &by_choice {
        assert!(more.contains(&format!("`{page}` ")), "README.md does not say when there is {page}");
    }
    let composite = always.iter().filter(|alarm| alarm.entry.contains("children = {")).count();
    let metrics: usize = always.iter().map(|alarm| alarm.metrics()).sum();
    for expected in [
        format!("{} alarms ({} more: ", in_words(always.len()), in_words(by_choice.len())),
        format!(
            "alarms: {metrics} metrics × 0.10, {composite} composites × 0.50 | {:.2} |",
            metrics as f64 * 0.10 + composite as f64 * 0.50
        ),
    ] {
        assert!(readme.contains(&expected), "README.md does not say {expected:?}");
    }
}
