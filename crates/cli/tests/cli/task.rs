use crate::support::{bare, run, run_with, write};

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_and_described_without_a_stack() {
    let listed = run(&mut bare(&["task", "list"])).ok();
    assert!(
        listed.out.starts_with("TASK\tOUTPUT TOKENS MAX\tFINGERPRINT\ncategorize_ticket\t"),
        "{listed:?}"
    );
    assert!(listed.err.is_empty());
    let schema = run(&mut bare(&["task", "schema", "categorize_ticket"])).ok();
    let schema: serde_json::Value = serde_json::from_str(&schema.out).unwrap();
    assert_eq!(schema["example_job"]["task"], "categorize_ticket");
    let unknown = run(&mut bare(&["task", "schema", "nope"]));
    assert_eq!(unknown.code, 5);
    assert!(unknown.err.contains("there are: categorize_ticket"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_the_worker_would_say_by_line_number() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = write(
        folder.path(),
        "jobs.jsonl",
        "{\"task\":\"categorize_ticket\",\"input\":{\"text\":\"Where is my invoice?\"}}\n\n{\"task\":\"nope\",\"input\":{}}\nhello\n{\"task\":\"categorize_ticket\",\"input\":{}}\n",
    );
    let checked = run(&mut bare(&["task", "check", &jobs]));
    assert_eq!(checked.code, 3, "{checked:?}");
    let lines: Vec<Vec<&str>> = checked.out.lines().map(|line| line.split('\t').take(2).collect()).collect();
    assert_eq!(
        lines,
        [["LINE", "REASON"], ["3", "unknown_task"], ["4", "invalid_message"], ["5", "invalid_input"]]
    );

    let mut csv = bare(&["task", "check", "--csv", "--task", "categorize_ticket", "--map", "text=Body", "-"]);
    let good = run_with(&mut csv, b"Id,Body\n1,hello\n2,\"a, b\"\n").ok();
    assert!(good.out.is_empty() && good.err.contains("2 lines, all of them jobs"), "{good:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_counts_dead_letters_and_what_is_never_sent_apart() {
    const GOOD: &str = "{\"task\":\"categorize_ticket\",\"input\":{\"text\":\"one\"}}";
    const UNKNOWN: &str = "{\"task\":\"nope\",\"input\":{}}";
    for (jobs, code, said) in [
        (format!("{GOOD}\n{GOOD}\n"), 0, "2 lines, all of them jobs that a worker would work on."),
        (format!("{GOOD}\n{UNKNOWN}\nhello\n"), 3, "Of 3 lines 2 would be dead letters at once."),
        (format!("{UNKNOWN}\n"), 3, "Of 1 line 1 would be a dead letter at once."),
        (format!("{GOOD}\n{LATIN1}\n"), 3, "Of 2 lines 1 holds no job that could be sent."),
        (
            format!("{UNKNOWN}\n{LATIN1}\n{GOOD}\n{LATIN1}\n"),
            3,
            "Of 4 lines 1 would be a dead letter at once, and 2 hold no job that could be sent.",
        ),
    ] {
        // `LATIN1` stands for a line in another encoding.
        let bytes: Vec<u8> = jobs.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let checked = run_with(&mut bare(&["task", "check", "-"]), &bytes);
        assert_eq!(checked.code, code, "{checked:?}");
        assert!(checked.err.ends_with(&format!("{said}\n")), "{checked:?}");
        assert_eq!(
            checked.out.matches("\tunreadable\t").count(),
            jobs.matches(LATIN1).count(),
            "{checked:?}"
        );
    }
}

/// A line that is not UTF-8 where each of its characters is one byte.
const LATIN1: &str = "Größe";

fn inputs(folder: &std::path::Path) -> String {
    let jobs: String = (1..=4).map(|n| format!("{{\"text\":\"ticket {n}\"}}\n")).collect();
    write(folder, "inputs.jsonl", &jobs)
}

const TRY: [&str; 6] = ["task", "try", "--provider", "rehearsal", "--task", "categorize_ticket"];

#[tokio::test(flavor = "multi_thread")]
async fn inputs_are_tried_on_the_rehearsal_without_a_stack_and_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let model = ["--model", "latency_ms=1"];
    let tried =
        run(&mut bare(&[&TRY[..], &model, &["--output", "json", "--least", "100%", &file]].concat())).ok();
    let rows: Vec<serde_json::Value> =
        tried.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines: Vec<_> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 2, 3, 4], "in the order of the file");
    assert_eq!(
        [&rows[1]["outcome"], &rows[1]["calls"]],
        [&serde_json::json!("passed"), &serde_json::json!(1)]
    );
    assert!(rows[1]["prompt"].as_str().unwrap().contains("ticket 2"), "{tried:#?}");
    assert!(rows[1]["output"]["category"].is_string(), "{tried:#?}");
    assert!(tried.err.contains("latency_ms=1: 4 of 4 passed (100.0 %), 0.000000 USD"), "{tried:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_accepted_is_asked_again_and_shown_and_the_threshold_sets_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let never = ["--model", "latency_ms=1,invalid=1"];
    let tried = run(&mut bare(&[&TRY[..], &never, &["--output", "json", "--least", "95%", &file]].concat()));
    assert_eq!(tried.code, 3, "{tried:#?}");
    let row: serde_json::Value = serde_json::from_str(tried.out.lines().next().unwrap()).unwrap();
    assert_eq!(row["answers"].as_array().unwrap().len(), row["calls"].as_u64().unwrap() as usize, "{row}");
    assert!(row["calls"].as_u64().unwrap() > 1 && !row["violations"].as_array().unwrap().is_empty(), "{row}");
    assert!(tried.err.contains("0.0 % passed, and at least 95 % were asked for"), "{tried:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_compared_with_expected_outputs_a_model_and_a_build() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let model = ["--model", "latency_ms=1"];
    let tries =
        |more: &[&str]| run(&mut bare(&[&TRY[..], &model, &["--output", "json", &file], more].concat()));
    let first = tries(&[]).ok();
    let outputs: Vec<String> = first
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["output"].to_string())
        .collect();
    let expected = write(folder.path(), "expected.jsonl", &outputs.join("\n"));
    tries(&["--against", &format!("file:{expected}"), "--least", "100%"]).ok();
    let other = write(folder.path(), "other.jsonl", &format!("{{}}\n{}", outputs[1..].join("\n")));
    let differs = tries(&["--against", &format!("file:{other}"), "--least", "100%"]);
    assert_eq!(differs.code, 3, "{differs:#?}");
    let row: serde_json::Value = serde_json::from_str(differs.out.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&row["outcome"], &row["differences"][0]["member"]),
        (&"differs".into(), &"category".into()),
        "{row}"
    );
    assert_eq!(row["differences"][0]["ours"], row["output"]["category"], "{row}");

    let refused = tries(&["--against", "model:latency_ms=1,refused=1", "--yes"]).ok();
    assert!(
        refused.err.contains("0 of 4 passed") && refused.err.contains("differ: 1, 2, 3, 4."),
        "{refused:#?}"
    );

    let same = tries(&["--against", &format!("build:{}", env!("CARGO_BIN_EXE_nightshift")), "--yes"]).ok();
    assert!(
        same.err.contains("the other build: 4 of 4 passed") && same.err.contains("differ: none."),
        "{same:#?}"
    );
    assert!(same.out.contains("\"differences\":[]"), "{same:#?}");
    // Where a model is called with AWS credentials, it has none.
    let mut command = bare(&[
        "task",
        "try",
        "--provider",
        "environment",
        "--task",
        "categorize_ticket",
        "--yes",
        &file,
        "--against",
        &format!("build:{}", env!("CARGO_BIN_EXE_nightshift")),
    ]);
    let variables = [
        ("NIGHTSHIFT_PROVIDER", "bedrock"),
        ("NIGHTSHIFT_MODEL", "anthropic.claude-haiku-4-5-20251001-v1:0"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let refused = run(command.envs(variables));
    assert!(refused.code == 2 && refused.err.contains("is handed no AWS credentials"), "{refused:#?}");
    // It is told the settings and nothing of AWS.
    let spy = write(
        folder.path(),
        "spy",
        "#!/bin/sh\nenv >> \"$(dirname \"$0\")/env\"\n[ \"$1\" = --version ] && echo nightshift 0\n",
    );
    std::fs::set_permissions(&spy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut command =
        bare(&[&TRY[..], &model, &["--against", &format!("build:{spy}"), "--yes", &file]].concat());
    let spied = run(command.env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_PROFILE", "admin"));
    assert_eq!(spied.code, 1, "{spied:#?}");
    let seen = std::fs::read_to_string(folder.path().join("env")).unwrap();
    assert!(seen.contains("NIGHTSHIFT_PROVIDER=rehearsal") && !seen.contains("AWS_"), "{seen}");
    assert!(!seen.contains("HOME="), "credentials may be there: {seen}");
}

/// A build of its own that answers every input with this category.
const OTHER: &str = r##"
fn main() {
    let asked: Vec<String> = std::env::args().collect();
    if asked[1] == "--version" {
        println!("nightshift 0");
        return;
    }
    assert!(std::env::vars().all(|(name, _)| !name.starts_with("AWS_")));
    for line in 1..=4 {
        println!(r#"{{"line":{line},"outcome":"passed","detail":null,"output":{{"category":"\u001b[31mother"}},"prompt":"","answers":[],"violations":[],"calls":1,"input_tokens":1,"output_tokens":1,"cost_usd":0.0,"took_ms":1}}"#);
    }
}
"##;

fn checkout(folder: &std::path::Path, main: &str) -> String {
    let cli = folder.join("crates/cli");
    std::fs::create_dir_all(cli.join("src")).unwrap();
    write(folder, "Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/cli\"]\n");
    write(
        folder,
        "Cargo.lock",
        "version = 4\n\n[[package]]\nname = \"nightshift-cli\"\nversion = \"0.0.0\"\n",
    );
    write(
        &cli,
        "Cargo.toml",
        "[package]\nname = \"nightshift-cli\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[[bin]]\nname = \"nightshift\"\npath = \"src/main.rs\"\n",
    );
    write(&cli, "src/main.rs", main);
    folder.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_is_built_where_it_is_and_compared_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let toolchain = std::path::Path::new(env!("CARGO")).parent().unwrap().display().to_string();
    let tries = |checkout: &str, more: &[&str]| {
        let against = format!("build:{checkout}");
        let mut command = bare(
            &[&TRY[..], &["--model", "latency_ms=1", "--yes", "--against", &against, &file], more].concat(),
        );
        command.env("PATH", format!("{toolchain}:/usr/bin:/bin")).env("AWS_PROFILE", "admin");
        command.env("CARGO_HOME", folder.path().join("cargo"));
        // Not where this test itself is built.
        run(command.env("CARGO_TARGET_DIR", folder.path().join("elsewhere")))
    };
    let [good, bad, none] = ["good", "bad", "none"].map(|name| folder.path().join(name));
    std::fs::create_dir(&none).unwrap();
    let good = checkout(&good, OTHER);

    let told = tries(&good, &["--output", "json"]).ok();
    assert!(told.err.starts_with(&format!("Builds nightshift in {good} first")), "{told:#?}");
    assert!(told.err.contains("Compiling nightshift-cli"), "cargo shows how far it is: {told:#?}");
    assert!(std::path::Path::new(&good).join("target/debug/nightshift").is_file());
    assert!(told.err.contains("differ: 1, 2, 3, 4."), "{told:#?}");
    let row: serde_json::Value = serde_json::from_str(told.out.lines().next().unwrap()).unwrap();
    assert_eq!(row["differences"][0]["member"], "category");
    assert_eq!(row["differences"][0]["ours"], row["output"]["category"]);
    assert_eq!(row["differences"][0]["theirs"], "\u{1b}[31mother");

    let columns = tries(&good, &[]).ok();
    let category = row["output"]["category"].as_str().unwrap();
    let told = format!("category: {category} → \\u{{1b}}[31mother");
    assert!(columns.out.contains(&told) && !columns.out.contains('\u{1b}'), "{columns:#?}");

    let broken = tries(&checkout(&bad, "fn main() { no_such_thing() }"), &[]);
    assert_eq!(broken.code, 1, "{broken:#?}");
    for says in ["cannot find function `no_such_thing`", "does not build, and cargo says why above"] {
        assert!(broken.err.contains(says), "{broken:#?}");
    }
    let empty = tries(&none.display().to_string(), &[]);
    assert!(empty.code == 2 && empty.err.contains("is a folder and no checkout of nightshift"), "{empty:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_stack_is_told_how_to_try_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let ran = run(&mut bare(&["task", "try", "--task", "categorize_ticket", &file]));
    assert_eq!(ran.code, 2, "{ran:?}");
    for says in ["add --region", "or try without a stack: --provider rehearsal", "--provider environment"] {
        assert!(ran.err.contains(says), "{says}: {ran:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_said_before_anything_is_paid_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    let is_none = write(folder.path(), "is-none", "#!/bin/sh\nexit 2\n");
    std::fs::set_permissions(&is_none, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let gone = folder.path().join("gone").display().to_string();
    // An older build without the price of the model.
    let script = "#!/bin/sh\n[ \"$1\" = --version ] && echo nightshift 0 && exit 0\necho 'nightshift: It knows no price.' >&2\nexit 2\n";
    let older = write(folder.path(), "older", script);
    std::fs::set_permissions(&older, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for (build, input, code, says) in [
        (gone.as_str(), file.as_str(), 5, "There is no "),
        (is_none.as_str(), file.as_str(), 2, "does not say at --version that it is nightshift"),
        ("/bin/true", file.as_str(), 2, "does not say at --version that it is nightshift"),
        (older.as_str(), file.as_str(), 1, "It knows no price: nothing was paid for yet."),
        (env!("CARGO_BIN_EXE_nightshift"), "-", 2, "must be in a file"),
    ] {
        let against = format!("build:{build}");
        let ran =
            stand.run(&["task", "try", "--task", "categorize_ticket", "--against", &against, "--yes", input]);
        assert!(ran.code == code && ran.err.contains(says), "{build}: {ran:#?}");
    }
    assert!(!stand.asked().iter().any(|(action, _)| action == "model:Call"), "nothing is paid for");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_is_tried_at_its_own_price() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    for name in ["NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK"] {
        stand.set(name, "0.000001");
    }
    let tries = |more: &[&str]| {
        stand
            .run(&[&["task", "try", "--task", "categorize_ticket", "--cap", "100", &file][..], more].concat())
    };
    let at_most = |more: &[&str]| {
        let ran = tries(more);
        assert_eq!(ran.code, 2, "nobody was asked: {ran:#?}");
        let (_, rest) = ran.err.split_once("at most ").unwrap_or_else(|| panic!("{ran:#?}"));
        rest.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(at_most(&[]) < 0.001);
    assert!(at_most(&["--model", "claude-haiku-4-5"]) < 0.001, "the one that is deployed keeps its price");
    assert!(at_most(&["--model", "claude-opus-4-5"]) > 0.01);
    for other in [&["--model", "claude-unheard-of"][..], &["--against", "model:claude-unheard-of"]] {
        let unknown = tries(other);
        assert!(unknown.code == 2 && unknown.err.contains("give --price IN/OUT"), "{unknown:#?}");
    }
    assert!(at_most(&["--model", "claude-unheard-of", "--price", "1000/1000"]) > 1.0);
    assert!(tries(&["--price", "1"]).err.contains("such as 0.8/4"));
    let cheap = "0.000001/0.000001";
    let listed = ["--model", "claude-opus-4-5", "--price", cheap];
    assert!(at_most(&listed) > 0.01, "what a list says counts");
    assert!(tries(&listed).err.contains("--price is not used: the price of \"claude-opus-4-5\" is known"));
    let deployed = ["--model", "claude-haiku-4-5", "--price", "1000/1000"];
    assert!(at_most(&deployed) < 0.001, "and so does what the stack says of its own model");

    // Each of two models has its own price.
    let second_at_most = |more: &[&str]| {
        let ran = tries(more);
        let (_, rest) = ran.err.split_once("compared with at most ").unwrap_or_else(|| panic!("{ran:#?}"));
        rest.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (unheard, opus) = (["--model", "claude-unheard-of", "--price", cheap], "model:claude-opus-4-5");
    let both = [&unheard[..], &["--against", opus]].concat();
    assert!(at_most(&both) < 0.001 && second_at_most(&both) > 0.01);
    let unlisted = [&unheard[..], &["--against", "model:claude-unknown"]].concat();
    let refused = tries(&unlisted);
    assert!(
        refused.code == 2 && refused.err.contains("\"claude-unknown\" of anthropic: give --against-price"),
        "{refused:#?}"
    );
    let priced = [&unlisted[..], &["--against-price", "1000/1000"]].concat();
    assert!(at_most(&priced) < 0.001 && second_at_most(&priced) > 1.0);
    assert!(second_at_most(&["--against", "model:claude-unknown", "--price", "1000/1000"]) > 1.0);
    let own = ["--model", "claude-opus-4-5", "--against", "model:claude-haiku-4-5"];
    assert!(second_at_most(&own) < 0.001, "the deployed one keeps its price as the second, too");
    for stray in [&["--against-price", cheap][..], &["--price", cheap]] {
        let stray = tries(stray);
        assert!(stray.code == 2 && stray.err.contains("is of another model: name it"), "{stray:#?}");
    }
    assert!(!stand.asked().iter().any(|(action, _)| action == "model:Call"), "nothing is paid for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_costs_nothing_is_called_only_when_somebody_agreed() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    for name in ["NIGHTSHIFT_MODEL_INPUT_USD_PER_MTOK", "NIGHTSHIFT_MODEL_OUTPUT_USD_PER_MTOK"] {
        stand.set(name, "0");
    }
    let unasked = stand.run(&["task", "try", "--task", "categorize_ticket", &file]);
    assert_eq!(unasked.code, 2, "{unasked:#?}");
    assert!(unasked.err.contains("at http://127.0.0.1"), "{unasked:#?}");
    assert!(!stand.asked().iter().any(|(action, _)| action == "model:Call"), "no key was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_says_what_it_costs_at_most_and_never_spends_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
    let paid = ["task", "try", "--task", "categorize_ticket", &file];
    let unasked = stand.run(&paid);
    assert_eq!(unasked.code, 2, "{unasked:#?}");
    assert!(unasked.err.contains("Tries 4 inputs on claude-haiku-4-5 at http://127.0.0.1"), "{unasked:#?}");
    assert!(
        unasked.err.contains("at most 0.") && unasked.err.contains(" USD. Nothing is stored."),
        "{unasked:#?}"
    );
    let calls = || stand.asked().iter().filter(|(action, _)| action == "model:Call").count();
    assert_eq!(calls(), 0);
    let over = stand.run(&[&paid[..], &["--cap", "0.000001", "--yes"]].concat());
    assert!(over.out.contains("over_cap") && over.err.contains("0 of 4 passed"), "{over:#?}");
    assert!(over.code == 3 && over.err.contains("None passed"), "{over:#?}");
    assert_eq!(calls(), 0, "no call that could cost more than the cap is made");
    let tried = stand.run(&[&paid[..], &["--yes", "--output", "json"]].concat());
    assert!(calls() >= 4 && !format!("{tried:?}").contains("sk-stored"), "{tried:#?}");
    assert!(stand.items("").is_empty(), "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_environment_is_read_where_it_is_stored_and_a_misspelt_variable_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    let args = ["task", "try", "--provider", "environment", "--task", "categorize_ticket", "--yes", &file];
    let variables = [
        ("NIGHTSHIFT_PROVIDER", "anthropic"),
        ("NIGHTSHIFT_MODEL", "claude-haiku-4-5"),
        ("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url()),
        ("NIGHTSHIFT_MODEL_KEY_SECRET", "nightshift/anthropic"),
        ("NIGHTSHIFT_MODEL_BASEURL", "http://127.0.0.1:1"),
        ("NIGHTSHIFT_PREFIX", "nightshift"),
    ];
    let tried = run(stand.command(&args).envs(variables));
    let calls = stand.asked().iter().filter(|(action, _)| action == "model:Call").count();
    assert!(calls >= 4, "{tried:#?}");
    assert!(
        tried.err.starts_with("Of no effect on a model, or misspelt: NIGHTSHIFT_MODEL_BASEURL.\n"),
        "{tried:#?}"
    );
    // A model that is named here alone has its key read too.
    let named = [&args[..], &["--model", "claude-haiku-4-5"]].concat();
    let elsewhere = run(stand.command(&named).envs(variables).env_remove("NIGHTSHIFT_MODEL"));
    assert!(elsewhere.code == 3 && elsewhere.err.contains("0 of 4 passed"), "{elsewhere:#?}");
    for (without, code, says) in
        [("AWS_REGION", 2, "The region is not known"), ("AWS_SECRET_ACCESS_KEY", 4, "credentials")]
    {
        let refused = run(stand.command(&args).envs(variables).env_remove(without));
        assert!(refused.code == code && refused.err.contains(says), "{without}: {refused:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_ones_own_is_tried_for_nothing_and_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = inputs(folder.path());
    let stand = crate::support::Stand::start().await;
    let url = format!("{}/v1", stand.rest_url());
    let server = ["task", "try", "--provider", "server", "--task", "categorize_ticket", &file];
    for incomplete in [&["--base-url", &url][..], &["--model", "own"], &[]] {
        let refused = run(&mut bare(&[&server[..], incomplete].concat()));
        assert!(refused.code == 2 && refused.err.contains("takes three"), "{refused:#?}");
    }
    let elsewhere = run(&mut bare(&[&TRY[..], &["--base-url", &url, "--model", "own", &file]].concat()));
    assert!(elsewhere.code == 2 && elsewhere.err.contains("--base-url is for a server"), "{elsewhere:#?}");
    let bare_host =
        run(&mut bare(&[&server[..], &["--base-url", "127.0.0.1:8080", "--model", "own"]].concat()));
    assert!(bare_host.code == 2 && bare_host.err.contains("must begin with http://"), "{bare_host:#?}");
    let named = [&server[..], &["--base-url", &url, "--model", "own"]].concat();
    let unasked = run(&mut bare(&named));
    assert!(
        unasked.err.contains(&format!("Tries 4 inputs on own at {url}: at most 0.0000 USD.")),
        "{unasked:#?}"
    );
    let priced = run(&mut bare(&[&named[..], &["--price", "1000/1000", "--cap", "100"]].concat()));
    assert!(!priced.err.contains("at most 0.0000 USD"), "{priced:#?}");
    assert!(!stand.asked().iter().any(|(action, _)| action == "model:Call"), "nobody was asked");
    for (how, has_format, has_tool) in [
        (None, true, false),
        (Some("on"), true, false),
        (Some("tool"), false, true),
        (Some("off"), false, false),
    ] {
        let before = stand.asked().len();
        let flag: Vec<&str> = how.map_or(vec![], |how| vec!["--structured-output", how]);
        run(&mut bare(&[&named[..], &["--yes"], &flag].concat()));
        let asked = stand.asked().split_off(before);
        assert!(asked.len() >= 4 && asked.iter().all(|(action, _)| action == "model:Call"), "{asked:#?}");
        for (_, body) in asked {
            let sent = (!body["response_format"].is_null(), !body["tools"].is_null());
            assert_eq!(sent, (has_format, has_tool), "{how:?}: {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_of_a_trial_names_what_lists_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "inputs.jsonl", "{\"text\":\"a\"}\n{\"txt\":\"b\"}\n");
    let refused = run(&mut bare(&[&TRY[..], &["--model", "latency_ms=1", &file]].concat()));
    assert_eq!(refused.code, 2, "{refused:#?}");
    assert!(
        refused.err.starts_with("nightshift: Line 2: ")
            && refused.err.ends_with("Nothing was tried; `nightshift task check` lists all such lines.\n"),
        "{refused:#?}"
    );
}
