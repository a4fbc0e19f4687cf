//! Each failure that a user meets: one clear sentence, the right exit code.

use crate::support::{Ran, Stand, bare, run, run_with};

#[track_caller]
fn fails(ran: &Ran, code: i32, sentence: &str) {
    assert_eq!(ran.code, code, "{ran:#?}");
    assert!(ran.err.contains(sentence), "{ran:#?}");
    assert_eq!(ran.err.trim_end().lines().count(), 1, "one sentence: {ran:#?}");
    assert!(ran.out.is_empty(), "nothing else on standard output: {ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_one_sentence_and_its_exit_code() {
    let stand = Stand::start().await;
    let pause = ["pause", "--reason", "x", "--yes"];

    let mut command = stand.command(&pause);
    command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    fails(&run(&mut command), 4, "There are no AWS credentials: set AWS_PROFILE");
    command.env("AWS_PROFILE", "prodd");
    fails(
        &run(&mut command),
        4,
        "There are no AWS credentials under the profile \"prodd\", which AWS_PROFILE names: mend its name",
    );

    let mut command = stand.command(&pause);
    command.env_remove("AWS_REGION");
    fails(&run(&mut command), 2, "The region is not known: add --region");
    command.args(["--region", "eu west"]);
    fails(&run(&mut command), 2, "\"eu west\" is no region of AWS: give one such as eu-central-1");

    fails(
        &stand.run(&["--prefix", "other", "pause", "--reason", "x", "--yes"]),
        5,
        "There is no stack other in eu-central-1",
    );
    fails(
        &stand.run(&["--region", "eu-west-1", "--prefix", "other", "resume", "--reason", "x"]),
        5,
        "There is no stack other in eu-west-1",
    );

    for (bundle, code, sentence) in [
        ("/nonexistent/ca.pem", 5, "There is no /nonexistent/ca.pem"),
        ("/dev/null", 2, "/dev/null holds no certificate"),
    ] {
        fails(&run(stand.command(&pause).env("AWS_CA_BUNDLE", bundle)), code, sentence);
    }

    let mut command = stand.command(&pause);
    command.env("AWS_ENDPOINT_URL_LAMBDA", "http://127.0.0.1:1");
    fails(
        &run(&mut command),
        1,
        "AWS cannot be reached for lambda:GetFunctionConfiguration: check the network",
    );

    for (code, exit_code, sentence) in [
        ("ExpiredTokenException", 4, "The AWS credentials have expired: sign in again"),
        ("UnrecognizedClientException", 4, "AWS does not accept these credentials"),
        ("AccessDeniedException", 4, "These credentials may not lambda:GetFunctionConfiguration"),
    ] {
        stand.refuse("lambda:GetFunctionConfiguration", code);
        fails(&stand.run(&pause), exit_code, sentence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_arguments_fail_as_clearly() {
    fails(
        &run(&mut bare(&["task", "check", "/nonexistent/jobs.jsonl"])),
        5,
        "There is no /nonexistent/jobs.jsonl: check the path.",
    );
    fails(&run(&mut bare(&["task", "check", "/tmp"])), 2, "/tmp is a folder: name a file.");
    fails(&run(&mut bare(&["task", "check", "--task", "nope", "/dev/null"])), 5, "There is no task \"nope\"");
    for more in [&[][..], &["--task", "categorize_ticket"], &["--map", "text=Body"]] {
        let mut piped = bare(&[&["task", "check", "-"], more].concat());
        fails(&run_with(&mut piped, b"Id,Body\n1,hello\n"), 2, "give --csv");
    }
    assert_eq!(run(&mut bare(&["task", "chekc"])).code, 2);
    assert_eq!(run(&mut bare(&[])).code, 2);
    assert_eq!(run(&mut bare(&["pause"])).code, 2, "a change needs a reason");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_a_reader_that_leaves_is_no_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = run(bare(&["task", "schema", "categorize_ticket"]).stdout(full));
    fails(&ran, 1, "The disk is full, so standard output is incomplete");
    let folder = tempfile::tempdir().unwrap();
    // More than a writer holds back.
    let jobs = crate::support::write(folder.path(), "jobs.jsonl", &"no job\n".repeat(1_000));
    for form in ["columns", "json", "csv"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = run(bare(&["task", "check", &jobs, "--output", form]).stdout(full));
        fails(&ran, 1, "The disk is full, so standard output is incomplete");
    }

    let mut child = bare(&["task", "schema", "categorize_ticket"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");

    // But a verdict is one whether its reasons are read or not.
    for form in ["columns", "json", "csv", "table"] {
        let mut child = bare(&["task", "check", &jobs, "--output", form])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
        assert_eq!(output.status.code(), Some(3), "{form}: {output:?}");
    }
}
