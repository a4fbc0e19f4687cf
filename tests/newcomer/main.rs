//! The README's path for somebody new, followed to the letter on a clone: the demo, jobs and a task of one's own, an
//! upgrade, and a model server of one's own. The commands and the code are read from the README, so that what it says is what works.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a test

mod model_server;

use std::path::{Path, PathBuf};
use std::process::Command;

use nightshift_tests::shell::as_in_a_shell;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// What `command` prints; anything but success is shown with its output.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Git without anybody's settings.
fn git(folder: &Path, arguments: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=Somebody New", "-c", "user.email=new@example.com"])
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null");
    git
}

/// Where the product comes from: this tree as it is, not yet committed files included, as a repository of one commit.
fn upstream(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let files = output(&mut git(root(), &list));
    for file in files.split_terminator('\0') {
        let (from, to) = (root().join(file), folder.join(file));
        // Deleted, and not yet committed.
        if !from.exists() {
            continue;
        }
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Copies the permissions too; scripts are run.
        std::fs::copy(from, to).unwrap();
    }
    // Of another version than this tree: cargo would take the one's crates for the other's in the folder that they share.
    set_version(folder, "0.", "6.");
    output(&mut git(folder, &["init", "--quiet", "--initial-branch", "main"]));
    commit(folder, "The version that is cloned");
}

fn commit(folder: &Path, message: &str) {
    output(&mut git(folder, &["add", "--all"]));
    output(&mut git(folder, &["commit", "--quiet", "--message", message]));
}

/// A command of the README, in bash, in the clone.
#[track_caller]
fn run(clone: &Path, commands: &str) -> String {
    // Where cargo puts what nobody runs: libraries of others need not be built again for the clone.
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().unwrap();
    output(
        as_in_a_shell(&mut Command::new("bash"))
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(clone)
            .env("CARGO_BUILD_BUILD_DIR", test.ancestors().nth(3).unwrap())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_COMMITTER_NAME", "Somebody New")
            .env("GIT_COMMITTER_EMAIL", "new@example.com")
            .env("GIT_AUTHOR_NAME", "Somebody New")
            .env("GIT_AUTHOR_EMAIL", "new@example.com")
            .env_remove("CARGO_TARGET_DIR")
            // A newcomer's machine is no CI, and has no folder of cases.
            .env_remove("CI")
            .env_remove("NIGHTSHIFT_CASES")
            .env_remove("ANTHROPIC_API_KEY")
            .env_remove("OPENAI_API_KEY"),
    )
}

fn section<'t>(readme: &'t str, heading: &str) -> &'t str {
    let after = readme.split_once(&format!("\n## {heading}\n")).expect(heading).1;
    after.split("\n## ").next().unwrap()
}

/// The blocks of code in this language, in order.
fn blocks<'t>(section: &'t str, language: &str) -> Vec<&'t str> {
    let fence = format!("\n```{language}\n");
    let starts = section.split(&fence).skip(1);
    starts.map(|rest| rest.split_once("\n```").expect("the end of a block").0).collect()
}

fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let before = std::fs::read_to_string(file).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after, "nothing to change in {}", file.display());
    std::fs::write(file, after).unwrap();
}

/// Puts the lines of `shown` that `file` lacks where they stand in `shown`, as a reader does.
fn add_lines(file: &Path, shown: &str) {
    edit(file, |text| {
        let mut lines: Vec<&str> = text.lines().collect();
        let mut at = lines.iter().position(|line| line.starts_with("use ")).unwrap();
        for line in shown.lines().filter(|line| !line.is_empty()) {
            match lines.iter().position(|known| *known == line) {
                Some(known) => at = known + 1,
                None => {
                    lines.insert(at, line);
                    at += 1;
                }
            }
        }
        lines.join("\n") + "\n"
    });
}

/// The version of all crates, from one that begins so to one that begins otherwise.
fn set_version(folder: &Path, from: &str, to: &str) {
    let changed = |text: &str| text.replacen(&format!("version = \"{from}"), &format!("version = \"{to}"), 1);
    edit(&folder.join("Cargo.toml"), |text| changed(&text));
    edit(&folder.join("Cargo.lock"), |text| {
        let packages = text.split("\n\n").map(|package| {
            if package.contains("name = \"nightshift-") { changed(package) } else { package.to_owned() }
        });
        packages.collect::<Vec<_>>().join("\n\n")
    });
}

/// What the next version may bring: another number, a further task of its own, other words in the README.
fn release(upstream: &Path) {
    let (tasks, snapshots) =
        (upstream.join("crates/tasks/src"), upstream.join("crates/tasks/tests/tasks/snapshots"));
    set_version(upstream, "6.", "7.");
    let report = std::fs::read_to_string(tasks.join("weekly_report.rs")).unwrap();
    std::fs::write(tasks.join("daily_report.rs"), report.replace("\"weekly_report\"", "\"daily_report\""))
        .unwrap();
    edit(&tasks.join("lib.rs"), |text| {
        text.replace("pub mod weekly_report;", "pub mod daily_report;\npub mod weekly_report;").replace(
            "        .with::<weekly_report::WeeklyReport>()",
            "        .with::<weekly_report::WeeklyReport>()\n        .with::<daily_report::WeeklyReport>()",
        )
    });
    for kind in ["input", "output", "prompt"] {
        let of = |task: &str| snapshots.join(format!("tasks__snapshots__{task}_{kind}.snap"));
        std::fs::copy(of("weekly_report"), of("daily_report")).unwrap();
    }
    edit(&upstream.join("README.md"), |text| text.replace("## Add a task\n", "## Add a task of your own\n"));
    commit(upstream, "The next version");
}

/// Ends when all that was sent has a result.
#[track_caller]
fn assert_results(report: &str, jobs: usize) {
    let s = if jobs == 1 { "" } else { "s" };
    assert!(
        report.contains(&format!("{jobs} job{s} = {jobs} result{s} + 0 dead letters + 0 duplicates")),
        "{report}"
    );
}

#[test]
fn clone_demo_own_jobs_own_tasks_an_upgrade_and_a_model_server() {
    let place = root().join("target/newcomer");
    let _ = std::fs::remove_dir_all(&place);
    let (product, clone): (PathBuf, PathBuf) = (place.join("product"), place.join("clone"));
    upstream(&product);
    output(&mut git(&place, &["clone", "--quiet", "product", "clone"]));
    let readme = std::fs::read_to_string(clone.join("README.md")).unwrap();

    // "Quick start: one machine, no account"
    let demo = blocks(section(&readme, "Quick start: one machine, no account"), "sh")[0];
    assert_eq!(demo, "scripts/demo");
    let report = run(&clone, demo);
    assert!(report.contains("nothing lost, nothing invalid stored"), "{report}");
    // A job as "A job, a result, a dead letter" shows it.
    let job = blocks(section(&readme, "A job, a result, a dead letter"), "json")[0];
    std::fs::write(clone.join("jobs.jsonl"), format!("{job}\n")).unwrap();
    assert_results(&run(&clone, "scripts/demo --faults none --jobs jobs.jsonl"), 1);

    // "Add a task"
    let chapter = section(&readme, "Add a task");
    let [task, registry] = blocks(chapter, "rust")[..] else {
        panic!("the file of a task, and its registration")
    };
    let named = |part: &str| chapter.split('`').find(|word| word.ends_with(part)).unwrap().to_owned();
    std::fs::write(clone.join(named("detect_churn.rs")), format!("{task}\n")).unwrap();
    let library = clone.join(named("src/lib.rs"));
    add_lines(&library, registry);
    let [check] = blocks(chapter, "sh")[..] else { panic!("how to check it") };
    let report = run(&clone, check);
    assert!(report.contains("every_task_of_this_build_keeps_the_rules ... ok"), "{report}");
    assert!(report.contains("detect_churn") && report.contains("1 job = "), "{report}");

    // A second one, with a dependency that the first has not.
    let second = task.replace("DetectChurn", "DetectDates").replace("detect_churn", "detect_dates").replace(
        "#[validate(length(min = 1, max = 300))]",
        "#[validate(length(min = 1, max = 300), custom(function = no_http_date))]",
    ) + "\n\nfn no_http_date(reason: &str) -> Result<(), validator::ValidationError> {
    match httpdate::parse_http_date(reason) {
        Ok(_) => Err(validator::ValidationError::new(\"date\")),
        Err(_) => Ok(()),
    }
}
";
    std::fs::write(library.with_file_name("detect_dates.rs"), second).unwrap();
    add_lines(
        &library,
        &registry.replace("detect_churn", "detect_dates").replace("DetectChurn", "DetectDates"),
    );
    edit(&clone.join("crates/my-tasks/Cargo.toml"), |text| {
        text.replacen("[dependencies]\n", "[dependencies]\nhttpdate.workspace = true\n", 1)
    });
    let own = ["detect_churn", "detect_dates"]
        .map(|task| format!("{{\"task\": \"{task}\", \"input\": {{\"text\": \"Where is my card?\"}}}}\n"));
    std::fs::write(clone.join("own.jsonl"), own.concat()).unwrap();
    run(&clone, "cargo test --offline -p nightshift-tasks");
    commit(&clone, "Our tasks");

    // "Upgrade and roll back"
    release(&product);
    let upgrade = section(&readme, "Upgrade and roll back");
    let pull = upgrade.split('`').find(|word| word.starts_with("git pull")).unwrap();
    run(&clone, pull);
    let version = std::fs::read_to_string(clone.join("Cargo.toml")).unwrap();
    assert!(version.contains("version = \"7."), "the new version has come: {version}");
    assert_eq!(output(&mut git(&clone, &["status", "--porcelain"])), "", "nothing is left to merge");
    let report = run(&clone, "cargo test --locked -p nightshift-tasks");
    assert!(report.contains("every_task_of_this_build_keeps_the_rules ... ok"), "{report}");
    assert_results(&run(&clone, "scripts/demo --faults none --jobs own.jsonl"), 2);
    let theirs = output(&mut git(&product, &["log", "--format=%s", "--", "crates/my-tasks"]));
    assert_eq!(theirs, "The version that is cloned\n", "a release leaves a user's crate alone");

    // "To try a server of your own", on one that listens elsewhere.
    let quick = section(&readme, "Quick start: one machine, no account");
    let asks = quick.split('`').find(|words| words.starts_with("scripts/demo --provider openai --base-url"));
    let asks = asks.unwrap().replace(":8080/", &format!(":{}/", model_server::start()));
    let report = run(&clone, &asks);
    assert!(report.contains("nothing lost, nothing invalid stored"), "{report}");
    assert!(report.contains("$0 at a server of your own") && !report.contains("a stub's"), "{report}");
    assert!(report.contains("Said by a server of one's own."), "{report}");
    assert_results(&run(&clone, &format!("{asks} --jobs own.jsonl")), 2);
    let _ = std::fs::remove_dir_all(&place);
}
