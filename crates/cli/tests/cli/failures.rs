//! Each failure that a user meets: one clear sentence, the right exit code.

use crate::support::{Ran, Stand, bare, run, write};

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

    let mut command = stand.command(&pause);
    command.env_remove("AWS_REGION");
    fails(&run(&mut command), 2, "The region is not known: add --region");

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
    assert_eq!(run(&mut bare(&["task", "chekc"])).code, 2);
    assert_eq!(run(&mut bare(&[])).code, 2);
    assert_eq!(run(&mut bare(&["pause"])).code, 2, "a change needs a reason");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_a_reader_that_leaves_is_no_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let ran = run(bare(&["task", "schema", "categorize_ticket"]).stdout(full));
    fails(&ran, 1, "The disk is full, so standard output is incomplete");

    let mut child = bare(&["task", "schema", "categorize_ticket"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_command_that_waits() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let stand = Stand::start().await;
    let child = stand
        .command(&["pause", "--reason", "x", "--yes"])
        .env("AWS_ENDPOINT_URL_LAMBDA", silent)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::block_in_place(|| {
        // It has asked, and waits for the answer.
        let _asked = listener.accept().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        child.wait_with_output().unwrap()
    });
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "nightshift: Interrupted.\n");
}

/// Every command that asks AWS, with arguments that would do.
fn commands(file: &str, receipt: &str) -> Vec<Vec<String>> {
    let key = "0".repeat(64);
    let of = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    vec![
        of(&["enqueue", file, "--yes"]),
        of(&["reconcile", receipt]),
        of(&["status"]),
        of(&["jobs", "show", &key]),
        of(&["jobs", "logs", &key]),
        of(&["results", "get", &key]),
        of(&["results", "export"]),
        of(&["dead-letters", "list"]),
        of(&["dead-letters", "show", &key]),
        of(&["dead-letters", "export"]),
        of(&["dead-letters", "audit", "--yes"]),
        of(&["redrive", "--reason", "x", "--yes"]),
        of(&["redrive", "list"]),
        of(&["pause", "--reason", "x", "--yes"]),
        of(&["resume", "--reason", "x", "--yes"]),
        of(&["key", "set", "--reason", "x", "--yes"]),
        of(&["key", "check", "--yes"]),
        of(&["doctor"]),
        of(&["task", "try", file, "--yes"]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_fails_alike_where_the_stack_or_the_credentials_are_missing() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let job = "{\"task\":\"categorize_ticket\",\"input\":{\"text\":\"a\"}}\n";
    let file = write(folder.path(), "jobs.jsonl", job);
    stand.run(&["enqueue", &file, "--yes"]).ok();
    let receipt = format!("{file}.receipt");
    let commands = commands(&file, &receipt);
    for args in &commands {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = stand.command(&args);
        command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        fails(&run(&mut command), 4, "There are no AWS credentials");
        fails(
            &stand.run(&[&["--prefix", "other"], &args[..]].concat()),
            5,
            "There is no stack other in eu-central-1",
        );
    }
    stand.refuse("lambda:GetFunctionConfiguration", "ExpiredTokenException");
    for args in &commands {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(&stand.run(&args), 4, "The AWS credentials have expired");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_named_as_iam_names_it() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file =
        write(folder.path(), "jobs.jsonl", "{\"task\":\"categorize_ticket\",\"input\":{\"text\":\"a\"}}\n");
    let key = "0".repeat(64);
    for (args, service, action) in [
        (&["enqueue", &file, "--yes"][..], "AmazonSQS:SendMessageBatch", "sqs:SendMessage"),
        (&["dead-letters", "audit", "--yes"], "AmazonSQS:GetQueueAttributes", "sqs:GetQueueAttributes"),
        (&["dead-letters", "list"], "DynamoDB_20120810:Query", "dynamodb:Query"),
        (&["jobs", "show", &key], "DynamoDB_20120810:BatchGetItem", "dynamodb:BatchGetItem"),
        (&["results", "export"], "DynamoDB_20120810:DescribeTable", "dynamodb:DescribeTable"),
        (&["pause", "--reason", "x", "--yes"], "DynamoDB_20120810:PutItem", "dynamodb:PutItem"),
    ] {
        stand.refuse(service, "AccessDeniedException");
        let mut command = stand.command(args);
        command
            .env("AWS_ENDPOINT_URL_SQS", stand.rest_url())
            .env("AWS_ENDPOINT_URL_DYNAMODB", stand.rest_url());
        let ran = run(&mut command);
        assert_eq!(ran.code, 4, "{args:?}: {ran:#?}");
        assert!(ran.err.contains(&format!("These credentials may not {action}")), "{args:?}: {ran:#?}");
    }
    assert!(stand.is_on(), "what cannot be traced is not done");
}
