use std::io::Write;
use std::process::{Command, Stdio};

use nightshift_core::input_hash::hex;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Stand, run, run_with, write};

fn jobs(from: usize, to: usize) -> String {
    (from..=to)
        .map(|n| json!({"task": "categorize_ticket", "input": {"text": format!("Ticket {n}")}, "reference": format!("t-{n}")}).to_string() + "\n")
        .collect()
}

/// The texts that lie in the queue.
fn texts(stand: &Stand) -> Vec<String> {
    let bodies = stand.aws.messages("nightshift-jobs").into_iter().map(|message| message.body);
    bodies
        .map(|body| {
            serde_json::from_str::<Value>(&body).unwrap()["input"]["text"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_sent_once_bad_lines_are_told_and_a_second_run_sends_nothing() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = jobs(1, 12) + "nonsense\n" + &jobs(13, 25) + "{\"task\":\"categorize_ticket\",\"input\":{}}\n";
    let file = write(folder.path(), "jobs.jsonl", &text);

    let unasked = stand.run(&["enqueue", &file]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(
        unasked.err.contains("Sends 25 jobs of") && unasked.err.contains("the cap of a day is 50.00 USD"),
        "{unasked:?}"
    );
    assert!(
        texts(&stand).is_empty() && !folder.path().join("jobs.jsonl.receipt").exists(),
        "nothing was done"
    );

    let sent = stand.run(&["enqueue", &file, "--yes", "--output", "json"]);
    assert_eq!(sent.code, 3, "lines were left out: {sent:?}");
    let summary: Value = serde_json::from_str(&sent.out).unwrap();
    assert_eq!([&summary["sent"], &summary["left_out"], &summary["sent_before"]], [25, 2, 0]);
    assert!(
        sent.err.contains("line 13: invalid_message: ") && sent.err.contains("line 27: invalid_input: "),
        "{sent:?}"
    );
    let mut texts_sent = texts(&stand);
    texts_sent.sort_unstable();
    texts_sent.dedup();
    assert_eq!(texts_sent.len(), 25);
    assert_eq!(stand.aws.requests()["SQS.SendMessageBatch"], 3);

    let again = stand.run(&["enqueue", &file, "--yes"]);
    assert_eq!(again.code, 3, "{again:?}");
    assert!(again.err.contains("Nothing to send: of 27 lines 25 were sent before"), "{again:?}");
    assert_eq!(texts(&stand).len(), 25);

    write(folder.path(), "jobs.jsonl", &jobs(1, 3));
    let changed = stand.run(&["enqueue", &file, "--yes"]);
    assert_eq!(changed.code, 2);
    for says in [
        "is the receipt of another file, or of this one before it was changed",
        "enqueue the lines that were mended or added as a file of their own",
        "a second copy costs no call where its result stands, and is worked on again where its job has failed since",
    ] {
        assert!(changed.err.contains(says), "{says}: {changed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_of_the_file_as_it_was_read() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "texts.jsonl", "{\"text\":\"one\"}\n{\"text\":\"two\"}\n");
    let as_task =
        |task, more: &[&str]| stand.run(&[&["enqueue", &file, "--yes", "--task", task][..], more].concat());
    as_task("categorize_ticket", &[]).ok();
    let other = as_task("weekly_report", &[]);
    assert_eq!(other.code, 2, "{other:?}");
    assert!(
        other.err.contains("is the receipt of this file read with --task categorize_ticket")
            && other.err.contains("name another --receipt"),
        "{other:?}"
    );
    let grouped = as_task("categorize_ticket", &["--group", "text"]);
    assert_eq!(grouped.code, 2, "{grouped:?}");
    assert_eq!(texts(&stand).len(), 2, "nothing was sent in place of anything");
    let receipt = write(folder.path(), "other.receipt", "");
    as_task("categorize_ticket", &["--group", "text", "--receipt", &receipt]).ok();
    assert_eq!(texts(&stand).len(), 4);
    assert!(as_task("categorize_ticket", &[]).ok().err.contains("Nothing to send: of 2 lines 2"));
    // One of a release that did not say how it was read.
    let path = folder.path().join("texts.jsonl.receipt");
    let old = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = old.split_once('\n').unwrap();
    let mut head: Value = serde_json::from_str(head).unwrap();
    head.as_object_mut().unwrap().remove("read_as").unwrap();
    std::fs::write(&path, format!("{head}\n{rest}")).unwrap();
    assert!(as_task("weekly_report", &[]).ok().err.contains("Nothing to send: of 2 lines 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_options_and_a_default_that_is_given_are_no_other_reading() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "reports.csv", "Team,Week,Notes\nCards,2026-W47,\"[\"\"a\"\"]\"\n");
    let maps = ["--map", "team=Team", "--map", "week=Week", "--map", "entries=Notes"];
    let turned = ["--map", "entries=Notes", "--map", "week=Week", "--map", "team=Team", "--delimiter", ","];
    let sends = |options: &[&str]| {
        stand.run(&[&["enqueue", &file, "--yes", "--task", "weekly_report"][..], options].concat())
    };
    sends(&maps).ok();
    let again = sends(&turned).ok();
    assert!(again.err.contains("Nothing to send: of 1 line 1 was sent before"), "{again:?}");
    // One of a release that wrote them as they were given.
    let path = folder.path().join("reports.csv.receipt");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once('\n').unwrap();
    let mut head: Value = serde_json::from_str(head).unwrap();
    head["read_as"] =
        json!([&["--csv", "--delimiter", ",", "--task", "weekly_report"][..], &turned[..6]].concat());
    std::fs::write(&path, format!("{head}\n{rest}")).unwrap();
    assert!(sends(&maps).ok().err.contains("Nothing to send"));
    for other in [&maps[..4], &[&maps[..], &["--delimiter", ";"]].concat()] {
        let other = sends(other);
        assert!(other.code == 2 && other.err.contains("is the receipt of this file read with"), "{other:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_rest_is_sent_and_what_may_have_been_sent_is_said() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 25));
    stand.run(&["enqueue", &file, "--yes"]).ok();
    // As if it had been killed after the first answer: the rest of the receipt was never written.
    let receipt = folder.path().join("jobs.jsonl.receipt");
    let whole = std::fs::read_to_string(&receipt).unwrap();
    let first_answer = whole.find("{\"line\":").unwrap();
    let kept: String = whole[first_answer..].lines().take(10).map(|line| line.to_owned() + "\n").collect();
    std::fs::write(&receipt, whole[..first_answer].to_owned() + &kept + "{\"line\":1").unwrap();

    let resumed = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
    let summary: Value = serde_json::from_str(&resumed.out).unwrap();
    assert_eq!(
        [&summary["sent"], &summary["sent_before"], &summary["perhaps_sent_twice"]],
        [15, 10, 15],
        "{summary}"
    );
    assert!(
        resumed.err.contains("10 were sent before and are not sent again")
            && resumed.err.contains("15 may have been sent when the command was stopped, and are sent again: a second copy costs no call where its result stands, and is worked on again where its job has failed since"),
        "{resumed:?}"
    );
    assert_eq!(texts(&stand).len(), 40);
    assert!(stand.run(&["enqueue", &file, "--yes"]).ok().err.contains("Nothing to send"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_release_began_is_gone_on_with_though_its_first_line_reads_like_a_header() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!("oops, broken\n{}", jobs(2, 4));
    let file = write(folder.path(), "jobs.jsonl", &text);
    let refused = stand.run(&["enqueue", &file, "--yes"]);
    assert!(refused.code == 2 && refused.err.contains("reads like the header of CSV"), "{refused:?}");
    let head = json!({"receipt": 1, "queue_url": stand.aws.queue_url("nightshift-jobs"),
        "source_sha256": hex(&Sha256::digest(&text)), "lines": 4, "began_ms": 1});
    let entries = [
        json!({"line": 1, "not_sent": "invalid_message"}),
        json!({"sending": [2]}),
        json!({"line": 2, "key": "k", "message_id": "m", "sent_ms": 2}),
    ];
    let begun = entries.iter().fold(format!("{head}\n"), |begun, entry| format!("{begun}{entry}\n"));
    write(folder.path(), "jobs.jsonl.receipt", &begun);
    let resumed = stand.run(&["enqueue", &file, "--yes", "--output", "json"]);
    assert_eq!(resumed.code, 3, "the first line is left out: {resumed:?}");
    let summary: Value = serde_json::from_str(&resumed.out).unwrap();
    assert_eq!([&summary["sent"], &summary["sent_before"], &summary["left_out"]], [2, 1, 1]);
    assert_eq!(texts(&stand), ["Ticket 3", "Ticket 4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_was_cut_off_in_its_head_is_begun_again() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 3));
    let receipt = write(folder.path(), "jobs.jsonl.receipt", "");
    let none = stand.run(&["reconcile", &receipt]);
    assert_eq!(none.code, 3, "{none:?}");
    assert!(
        none.err.contains("before anything was sent: run the same `nightshift enqueue` again"),
        "{none:?}"
    );
    let sent = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&sent.out).unwrap()["sent"], 3);
    assert!(stand.run(&["enqueue", &file, "--yes"]).ok().err.contains("Nothing to send: of 3 lines 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_again_because_nothing_was_heard_of_it_is_counted() {
    // Answered 503, or 403 as what was not carried out; and then taken without an answer.
    for (code, is_lost, perhaps_sent_twice) in [
        (Some("ServiceUnavailable"), false, 3),
        (Some("InternalFailure"), false, 0),
        (None, true, 3),
        (Some("ServiceUnavailable"), true, 3),
        (Some("InternalFailure"), true, 3),
    ] {
        let stand = Stand::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "jobs.jsonl", &jobs(1, 3));
        let action = "AmazonSQS:SendMessageBatch";
        code.inspect(|code| stand.refuse(action, code));
        if is_lost {
            stand.lose(action);
        }
        let mut command = stand.command(&["enqueue", &file, "--yes", "--output", "json"]);
        let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let is_asked = || stand.asked().iter().any(|(asked, _)| asked == action);
        let output = tokio::task::block_in_place(|| {
            while !is_asked() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            stand.allow(action);
            child.wait_with_output().unwrap()
        });
        let told = format!("{code:?} {is_lost}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{told}");
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!([&summary["sent"], &summary["perhaps_sent_twice"]], [3, perhaps_sent_twice], "{told}");
        assert_eq!(texts(&stand).len(), if is_lost { 6 } else { 3 }, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_of_which_nothing_was_heard_in_two_runs_is_counted_once() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 1));
    stand.run(&["enqueue", &file, "--yes"]).ok();
    // As if it had been killed before the answer.
    let receipt = folder.path().join("jobs.jsonl.receipt");
    let whole = std::fs::read_to_string(&receipt).unwrap();
    std::fs::write(&receipt, &whole[..whole.find("{\"line\":").unwrap()]).unwrap();
    stand.lose("AmazonSQS:SendMessageBatch");
    let again = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
    let summary: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!([&summary["sent"], &summary["perhaps_sent_twice"]], [1, 1], "{again:?}");
}

/// The files of this command are full at so many KiB.
fn on_a_disk_of(kib: usize, plain: &Command) -> Command {
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\""));
    command.arg(plain.get_program()).args(plain.get_args()).env_clear().stdin(Stdio::null());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_before_a_full_disk_is_told_apart_by_what_the_receipt_says_of_it() {
    for kib in 1..=5 {
        let stand = Stand::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "jobs.jsonl", &jobs(1, 60));
        let full = run(&mut on_a_disk_of(kib, &stand.command(&["enqueue", &file, "--yes"])));
        let receipt = std::fs::read_to_string(folder.path().join("jobs.jsonl.receipt")).unwrap();
        let noted = receipt.lines().filter(|line| line.contains("message_id") && line.ends_with('}')).count();
        let sent = texts(&stand).len();
        assert_eq!(full.code, 1, "{kib} KiB: {full:?}");
        assert!(full.err.contains(&format!("{noted} of 60 jobs were sent, and ")), "{kib} KiB: {full:?}");
        let unnoted = format!("that {} more may have been, all of which SQS took", sent - noted);
        assert_eq!(full.err.contains(&unnoted), sent > noted, "{kib} KiB, {sent} sent: {full:?}");
        let resumed = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
        let summary: Value = serde_json::from_str(&resumed.out).unwrap();
        assert_eq!(
            [&summary["sent_before"], &summary["sent"]],
            [noted, 60 - noted],
            "{kib} KiB: {resumed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_lets_what_is_open_come_back_and_the_rest_is_sent_later() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 200));
    // Slow enough that the signal comes long before the end.
    let child = stand
        .command(&["enqueue", &file, "--yes", "--rate", "0.5"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = tokio::task::block_in_place(|| {
        while stand.aws.messages("nightshift-jobs").is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        child.wait_with_output().unwrap()
    });
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(
        said.contains("Interrupted: 10 of 200 jobs were sent") && said.contains("run the same command again"),
        "{said}"
    );
    let resumed = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
    let summary: Value = serde_json::from_str(&resumed.out).unwrap();
    assert_eq!([&summary["sent"], &summary["sent_before"], &summary["perhaps_sent_twice"]], [190, 10, 0]);
    let mut sent = texts(&stand);
    assert_eq!(sent.len(), 200, "no line twice");
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_saved_while_it_is_sent_sends_no_job_that_was_not_agreed_to() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Of more than a block, so that a part of it is still to be read.
    let padded = |from, to| jobs(from, to).replace("\"Ticket", &format!("\"{} Ticket", "x".repeat(40_000)));
    let agreed = padded(1, 60);
    for (name, saved) in [("front", padded(1_001, 1_030) + &agreed), ("cut", String::new())] {
        let file = write(folder.path(), &format!("{name}.jsonl"), &agreed);
        // Slow enough that it is saved long before the end.
        let mut command = stand.command(&["enqueue", &file, "--yes", "--rate", "2"]);
        let child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = tokio::task::block_in_place(|| {
            while stand.aws.messages("nightshift-jobs").is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            std::fs::write(&file, saved).unwrap();
            child.wait_with_output().unwrap()
        });
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        let mut sent = texts(&stand);
        assert!(
            said.contains("it was changed after it was looked at")
                && said.contains(&format!("{} of 60 jobs were sent, and ", sent.len()))
                && said.contains("put the file back as it was and run the same command again"),
            "{name}: {said}"
        );
        assert!(sent.iter().all(|text| agreed.contains(&format!("{text}\""))), "{name}");
        write(folder.path(), &format!("{name}.jsonl"), &agreed);
        let resumed = stand.run(&["enqueue", &file, "--yes"]).ok();
        sent = texts(&stand);
        sent.sort_unstable();
        sent.dedup();
        assert!(sent.len() == 60 && texts(&stand).len() == 60, "{name}: {resumed:?}");
        stand.empty("nightshift-jobs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_from_standard_input_is_mapped_grouped_and_receipted() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let receipt = folder.path().join("tickets.receipt");
    let args = |receipt: &str| {
        let args = [
            "enqueue",
            "-",
            "--csv",
            "--task",
            "categorize_ticket",
            "--map",
            "text=Body",
            "--reference",
            "Id",
            "--group",
            "Customer",
            "--yes",
        ];
        let mut args: Vec<String> = args.map(str::to_owned).to_vec();
        args.extend(["--receipt".to_owned(), receipt.to_owned()]);
        args
    };
    let args = args(receipt.to_str().unwrap());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let csv = "Id,Customer,Body\n1,acme,\"Hello,\nworld\"\n2,globex,Bye\n";
    run_with(&mut stand.command(&args), csv.as_bytes()).ok();
    let bodies: Vec<_> = stand.aws.messages("nightshift-jobs").into_iter().map(|m| m.body).collect();
    assert_eq!(bodies[0], r#"{"task":"categorize_ticket","input":{"text":"Hello,\nworld"},"reference":"1"}"#);
    let again = run_with(&mut stand.command(&args), csv.as_bytes()).ok();
    assert!(again.err.contains("Nothing to send"), "{again:?}");

    let unnamed = run_with(&mut stand.command(&["enqueue", "-", "--yes"]), b"{}\n");
    assert_eq!(unnamed.code, 2);
    assert!(unnamed.err.contains("name one with --receipt"), "{unnamed:?}");
    let other = folder.path().join("other.receipt");
    let args = ["enqueue", "-", "--yes", "--receipt", other.to_str().unwrap()];
    let unsaid = run_with(&mut stand.command(&args), csv.as_bytes());
    assert_eq!(unsaid.code, 2, "{unsaid:?}");
    assert!(
        unsaid.err.contains("reads like the header of CSV") && unsaid.err.lines().count() == 1,
        "{unsaid:?}"
    );
    assert!(!other.exists(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sqs_took_of_a_batch_is_noted_though_it_did_not_take_the_rest_a_fifth_time() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 4));
    let failed = |id: &str| json!({"Id": id, "SenderFault": false, "Code": "InternalError"});
    let took = |id: &str| json!({"Id": id, "MessageId": format!("m{id}"), "MD5OfMessageBody": "x"});
    let none = json!({"Successful": [], "Failed": (["0", "1", "2", "3"].map(failed))});
    let last = json!({"Successful": (["1", "3"].map(took)), "Failed": (["0", "2"].map(failed))});
    stand.say(
        "AmazonSQS:SendMessageBatch",
        json!([none, none, none, none, last, {"Successful": (["0", "1"].map(took)), "Failed": []}]),
    );
    let ended = stand.run(&["enqueue", &file, "--yes"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        ended.err.contains("SQS did not take line 1: 2 of 4 jobs were sent")
            && ended.err.contains("run the same command again"),
        "{ended:?}"
    );
    let resumed = stand.run(&["enqueue", &file, "--yes", "--output", "json"]).ok();
    let summary: Value = serde_json::from_str(&resumed.out).unwrap();
    assert_eq!([&summary["sent"], &summary["sent_before"], &summary["perhaps_sent_twice"]], [2, 2, 2]);
    let asked = stand.asked();
    let (_, asked) = asked.iter().rfind(|(action, _)| action.ends_with("SendMessageBatch")).unwrap();
    let again: Vec<_> =
        asked["Entries"].as_array().unwrap().iter().map(|e| e["MessageBody"].as_str().unwrap()).collect();
    assert!(
        again.len() == 2 && again[0].contains("Ticket 1\"") && again[1].contains("Ticket 3\""),
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_sqs_refuses_for_what_it_is_is_no_job() {
    let took = json!({"Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": "x"}], "Failed": []});
    for (code, sender_fault, code_of_exit, sent, told) in [
        ("RequestThrottled", true, 0, 1, ""),
        ("KmsThrottled", true, 0, 1, ""),
        ("InternalError", false, 0, 1, ""),
        ("InvalidMessageContents", true, 3, 0, "1 line was left out"),
        ("KmsAccessDenied", true, 4, 0, "These credentials may not sqs:SendMessage"),
    ] {
        let stand = Stand::start().await;
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), "jobs.jsonl", &jobs(1, 1));
        let failed = json!({"Id": "0", "SenderFault": sender_fault, "Code": code});
        stand.say("AmazonSQS:SendMessageBatch", json!([{"Successful": [], "Failed": [failed]}, took]));
        let ended = stand.run(&["enqueue", &file, "--yes"]);
        assert_eq!(ended.code, code_of_exit, "{code}: {ended:?}");
        assert!(ended.err.contains(told), "{code}: {ended:?}");
        let receipt = std::fs::read_to_string(folder.path().join("jobs.jsonl.receipt")).unwrap();
        assert_eq!(receipt.matches("message_id").count(), sent, "{code}");
        assert_eq!(receipt.contains("not_sent"), code_of_exit == 3, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_job_sends_nothing_and_leaves_no_receipt() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("empty.jsonl", ""),
        ("empty.csv", ""),
        ("blank.jsonl", "\n\r\n"),
        ("header.csv", "subject,text\r\n"),
    ] {
        let file = write(folder.path(), name, text);
        let task = if name.ends_with(".csv") { &["--task", "categorize_ticket"][..] } else { &[] };
        let sent = stand.run(&[&["enqueue", &file, "--yes"], task].concat()).ok();
        assert_eq!(sent.err, format!("Nothing to send: there is no line in {file}.\n"), "{name}");
        let checked = stand.run(&[&["task", "check", &file], task].concat()).ok();
        assert!(checked.err.contains("There is no line in it"), "{checked:?}");
        assert!(!folder.path().join(format!("{name}.receipt")).exists());
    }
    let file = write(folder.path(), "bad.jsonl", "nonsense\n{}\n");
    let bad = stand.run(&["enqueue", &file, "--yes"]);
    assert_eq!(bad.code, 3, "{bad:?}");
    assert!(
        bad.err.contains("Nothing to send: no worker could work on any of 2 lines.")
            && bad.err.contains("2 lines were left out"),
        "{bad:?}"
    );
    let file = write(folder.path(), "empty.csv", "");
    let mapped = ["enqueue", &file, "--task", "categorize_ticket", "--map", "text=Body", "--yes"];
    let mapped = stand.run(&mapped);
    assert_eq!(mapped.code, 2, "{mapped:?}");
    assert!(mapped.err.contains("begin the file with the names of its columns"), "{mapped:?}");
    assert!(texts(&stand).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_quote_sends_no_text_of_several_customers() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = "id,text\r\n6,first\r\n7,\"open quote\r\n8,second customer\r\n9,third\r\n";
    let file = write(folder.path(), "tickets.csv", text);
    let sent = stand.run(&["enqueue", &file, "--task", "categorize_ticket", "--reference", "id", "--yes"]);
    assert_eq!(sent.code, 2, "{sent:?}");
    assert!(
        sent.err.contains("The quote that opens in line 3 is never closed, and takes in the rest"),
        "{sent:?}"
    );
    assert!(texts(&stand).is_empty(), "not even those before it: nothing tells how much is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_gone_and_a_full_disk_end_it_with_what_was_done() {
    let stand = Stand::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "jobs.jsonl", &jobs(1, 12));
    stand.set("NIGHTSHIFT_JOBS_URL", &stand.aws.queue_url("gone"));
    let gone = stand.run(&["enqueue", &file, "--yes"]);
    assert_eq!(gone.code, 1, "{gone:?}");
    assert!(
        gone.err.contains("0 of 12 jobs were sent") && gone.err.contains("run the same command again"),
        "{gone:?}"
    );

    let full = stand.run(&["enqueue", &file, "--yes", "--receipt", "/dev/full"]);
    assert_ne!(full.code, 0);
    assert!(stand.aws.messages("nightshift-jobs").is_empty(), "nothing is sent that no receipt can say");
    let _ = std::io::stdout().flush();
    let _ = run;
}
