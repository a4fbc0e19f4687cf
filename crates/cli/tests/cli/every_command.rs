//! Each command in each failure that a user meets: one sentence, the right exit code, and nothing half done without saying so.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt as _, stream};
use nightshift_core::failure::FailureReason;
use nightshift_core::record::Record;
use serde_json::{Value, json};

use crate::reading::{failed, record};
use crate::support::{CALLER, LEDGER, Ran, Stand, bare, run, run_with, write};
use crate::terminal::on_a_terminal;

/// Each command that speaks to AWS, with arguments that do; what stands in braces is there, and --yes where it asks.
const COMMANDS: [(&str, &str); 28] = [
    ("enqueue", "{jobs} --yes"),
    ("reconcile", "{receipt}"),
    ("status", ""),
    ("jobs show", "{failed}"),
    ("jobs logs", "{failed}"),
    ("results get", "{waits}"),
    ("results export", ""),
    ("results delete", "{failed} --reason x --yes"),
    ("dead-letters list", ""),
    ("dead-letters show", "{failed} --body --yes"),
    ("dead-letters export", ""),
    ("dead-letters audit", "--yes"),
    ("redrive", "--reason x --yes"),
    ("redrive list", ""),
    ("redrive show", "r-1"),
    ("redrive watch", "r-1"),
    ("redrive stop", "r-1 --reason x --yes"),
    ("review list", ""),
    ("review show", "{waits}"),
    ("review accept", "{waits} --reason x --yes"),
    ("review edit", "{waits} --from {report} --reason x --yes"),
    ("review reject", "{waits} --reason x --yes"),
    ("pause", "--reason x --yes"),
    ("resume", "--reason x --yes"),
    ("key set", "--reason x --yes"),
    ("key check", "--yes"),
    ("task try", "{jobs} --yes"),
    ("doctor", ""),
];
/// Those that need no stack.
const WITHOUT_AWS: [&str; 4] = ["task list", "task schema", "task check", "completions"];
/// A load test of a minute is no row of a table: `load_test.rs` has its failures.
const ELSEWHERE: &str = "load-test";

/// A stack on which each of them has something to do, and the files that they name.
struct Set {
    stand: Stand,
    folder: tempfile::TempDir,
    failed: String,
    waits: String,
}

impl Set {
    async fn up() -> Self {
        let stand = Stand::start().await;
        let folder = tempfile::tempdir().unwrap();
        let job = |text: &str| json!({"task": "categorize_ticket", "input": {"text": text}}).to_string();
        write(folder.path(), "jobs.jsonl", &job("new"));
        write(folder.path(), "report.json", crate::reviewing::REPORT);
        let now_ms = 3_900_000_000_000;
        let failed = stand
            .put(Record { reference: None, ..record("a", failed(FailureReason::Refused, now_ms)) })
            .await;
        let sqs = aws_sdk_sqs::Client::new(&stand.sdk());
        let letters = stand.aws.queue_url("nightshift-dead-letters");
        sqs.send_message().queue_url(letters).message_body(job("a")).send().await.unwrap();
        let waits = stand.waits("notes").await;
        stand.set("NIGHTSHIFT_MODEL_BASE_URL", stand.rest_url());
        stand
            .say("Logs_20140328:FilterLogEvents", json!({"events": [{"timestamp": 1, "message": "a line"}]}));
        stand.say("cloudwatch:GetMetricData", json!({"MetricDataResults": []}));
        stand.say("cloudwatch:DescribeAlarms", json!({"MetricAlarms": [], "CompositeAlarms": []}));
        stand.say(
            "lambda:GetFunction",
            json!({"Configuration": {"Timeout": 300, "LastModified": "2099-11-26T10:00:00.000+0000"}}),
        );
        stand.say("lambda:ListVersionsByFunction", json!({"Versions": [{"Version": "7"}]}));
        stand.say(
            "lambda:GetAccountSettings",
            json!({"AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}}),
        );
        stand.say("secretsmanager:DescribeSecret", json!({"VersionIdsToStages": {"v1": ["AWSCURRENT"]}}));
        Self { stand, folder, failed, waits }
    }

    /// The arguments of a row, and what the functions answer to it.
    async fn arguments(&self, (name, more): (&str, &str)) -> Vec<String> {
        let redrive = |end: Value| {
            json!({
                "id": "r-1", "version": 1, "began_ms": 1_795_500_000_000_u64, "matching": 1, "progress": {"sent": 1},
                "request": {"source": "dead-letters", "reason": "x", "caller": CALLER}, "end": end,
            })
        };
        let over =
            redrive(json!({"at_ms": 1_795_500_060_000_u64, "how": "finished", "detail": "All was sent."}));
        let stepped = json!({"stepped": {"over": over}});
        self.stand.answer(match name {
            "redrive" => vec![crate::redrive::report(1), json!({"redrive": redrive(Value::Null)}), stepped],
            "redrive list" => {
                vec![json!({"redrives": [{"id": "r-1", "source": "dead-letters", "redrive": over}]})]
            }
            "redrive watch" => vec![stepped],
            _ => vec![json!({"redrive": over})],
        });
        if name == "reconcile" {
            let file = self.folder.path().join("jobs.jsonl");
            self.stand.run(&["enqueue", file.to_str().unwrap(), "--yes"]).ok();
        }
        if name == "resume" {
            self.stand.run(&["pause", "--reason", "x", "--yes"]).ok();
        }
        let path = |file: &str| self.folder.path().join(file).to_str().unwrap().to_owned();
        let more = more
            .replace("{jobs}", &path("jobs.jsonl"))
            .replace("{receipt}", &path("jobs.jsonl.receipt"))
            .replace("{report}", &path("report.json"))
            .replace("{failed}", &self.failed)
            .replace("{waits}", &self.waits);
        name.split_whitespace().chain(more.split_whitespace()).map(str::to_owned).collect()
    }

    async fn command(&self, row: (&str, &str)) -> Command {
        let arguments = self.arguments(row).await;
        self.stand.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What was asked since then, as IAM calls it.
    fn actions_since(&self, asked: usize) -> BTreeSet<String> {
        self.stand.asked().into_iter().skip(asked).map(|(action, _)| action).collect()
    }
}

/// Runs a check for each of these, some at a time: what is started waits for most of the time.
async fn each<T: Send + 'static, F: Future<Output = ()> + Send + 'static>(all: Vec<T>, check: fn(T) -> F) {
    let checks = stream::iter(all).map(|one| tokio::spawn(check(one)));
    checks.buffer_unordered(4).for_each(|ended| async { ended.unwrap() }).await;
}

/// Each row with each action that its command asks for.
async fn rows_and_actions() -> Vec<((&'static str, &'static str), String)> {
    let mut asked = Vec::new();
    for row in COMMANDS {
        let set = Set::up().await;
        let mut command = set.command(row).await;
        let before = set.stand.asked().len();
        let ran = go(&mut command);
        assert!([0, 3].contains(&ran.code), "{row:?}: {ran:#?}");
        asked.extend(set.actions_since(before).into_iter().map(|action| (row, action)));
    }
    asked
}

/// With a key on standard input, for the one command that reads it.
fn go(command: &mut Command) -> Ran {
    run_with(command, b"sk-new")
}

/// What IAM calls it (Service Authorization Reference: a batch needs the permission of the single action).
fn iam(action: &str) -> String {
    let (service, operation) = action.split_once(':').unwrap();
    let service = match service {
        "AmazonSQS" => "sqs",
        "DynamoDB_20120810" => "dynamodb",
        "Logs_20140328" => "logs",
        other => other,
    };
    let single = if service == "sqs" { operation.trim_end_matches("Batch") } else { operation };
    format!("{service}:{single}")
}

/// What whoever was asked must have done, or may have.
fn changes(action: &str) -> bool {
    let operation = action.split_once(':').unwrap().1;
    let reads = ["Get", "List", "Describe", "Query", "Scan", "BatchGet", "Filter", "Receive"];
    !reads.iter().any(|word| operation.starts_with(word)) && operation != "ChangeMessageVisibilityBatch"
}

/// The one sentence in which it says how it ended.
#[track_caller]
fn sentence(ran: &Ran, row: (&str, &str)) -> String {
    let sentences: Vec<_> = ran.err.lines().filter_map(|line| line.strip_prefix("nightshift: ")).collect();
    assert_eq!(sentences.len(), 1, "{row:?}: {ran:#?}");
    sentences[0].to_owned()
}

#[track_caller]
fn ends(ran: &Ran, row: (&str, &str), code: i32, says: &str) {
    assert_eq!(ran.code, code, "{row:?}: {ran:#?}");
    let said = sentence(ran, row);
    assert!(said.contains(says), "{row:?}: {ran:#?}");
}

/// The names of commands below this one, by its own help.
fn names(of: &[&str]) -> Vec<String> {
    let help = run(&mut bare(&[of, &["--help"]].concat())).ok().out;
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let listed = commands.lines().take_while(|line| line.starts_with("  "));
    let named =
        listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let named: Vec<String> = named.filter(|name| *name != "help").map(str::to_owned).collect();
    let mut all: Vec<String> = Vec::new();
    // A group is no command by itself, but for the one that can do without a further word.
    if named.is_empty() || of == ["redrive"] {
        all.push(of.join(" "));
    }
    for name in named {
        all.extend(names(&[of, &[name.as_str()]].concat()));
    }
    all
}

#[test]
fn the_table_has_every_command() {
    let there: BTreeSet<String> = names(&[]).into_iter().collect();
    let known = COMMANDS.iter().map(|(name, _)| *name).chain(WITHOUT_AWS).chain([ELSEWHERE]);
    assert_eq!(there, known.map(str::to_owned).collect());
}

/// Its table leaves out the group of all but the first of a row.
#[test]
fn the_readme_has_every_command() {
    let readme = std::fs::read_to_string(in_repository("README.md")).unwrap();
    let table = readme.split_once("## Operate it").unwrap().1.split_once("| command | what |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut listed = BTreeSet::new();
    for row in rows {
        let mut group = None;
        for named in row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2) {
            let words: Vec<&str> =
                named.split(' ').filter(|word| !word.starts_with(|c: char| c.is_uppercase())).collect();
            let name = match (words.as_slice(), group) {
                ([alone], Some(group)) => format!("{group} {alone}"),
                _ => words.join(" "),
            };
            group = name.split_once(' ').map(|(group, _)| group.to_owned());
            listed.insert(name);
        }
    }
    let there: BTreeSet<String> = names(&[]).into_iter().collect();
    assert_eq!(listed, there, "README.md, \"Operate it\", and what there is");
}

#[test]
fn the_help_of_every_command_or_of_its_group_has_examples() {
    for name in names(&[]) {
        let of: Vec<&str> = name.split(' ').collect();
        let help = |of: &[&str]| run(&mut bare(&[of, &["--help"]].concat())).ok().out;
        assert!([&of[..], &of[..1]].iter().any(|of| help(of).contains("\nExamples:\n")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_or_the_right_place_nothing_is_begun() {
    each(COMMANDS.to_vec(), |row| async move {
        let set = Set::up().await;
        let arguments = set.arguments(row).await;
        let at = |more: &[&str]| {
            let arguments = arguments.iter().map(String::as_str);
            set.stand.command(&more.iter().copied().chain(arguments).collect::<Vec<_>>())
        };
        let mut without = at(&[]);
        without.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        ends(&go(&mut without), row, 4, "There are no AWS credentials: set AWS_PROFILE");
        ends(&go(&mut at(&["--prefix", "other"])), row, 5, "There is no stack other in eu-central-1");
        ends(&go(&mut at(&["--region", "eu-west-1"])), row, 5, "There is no stack nightshift in eu-west-1");
        ends(&go(at(&[]).env_remove("AWS_REGION")), row, 2, "The region is not known: add --region");
        set.stand.refuse("lambda:GetFunctionConfiguration", "ExpiredTokenException");
        ends(&go(&mut at(&[])), row, 4, "The AWS credentials have expired: sign in again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_may_not_do_it_names_as_iam_does() {
    let asked = rows_and_actions().await;
    each(asked, |(row, action)| async move {
        if action == "model:Call" {
            return;
        }
        let set = Set::up().await;
        let mut command = set.command(row).await;
        set.stand.refuse(&action, "AccessDeniedException");
        let ran = go(&mut command);
        if row.0 == "doctor" && ran.code == 3 {
            // What it may not look at is one of its findings.
            assert!(ran.out.contains(&format!("may not {}", iam(&action))), "{action}: {ran:#?}");
        } else if ran.code == 0 {
            // It is done, and who did it stands in its trace.
            let says = "The trace of this change does not say how it ended: These credentials may not";
            assert!(ran.err.contains(&format!("{says} {}", iam(&action))), "{action}: {ran:#?}");
        } else {
            ends(&ran, row, 4, &format!("These credentials may not {}", iam(&action)));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named_by_its_exit_code() {
    let nothing = "0".repeat(64);
    for (name, more, says) in [
        ("enqueue", "/nonexistent/x --yes", "There is no /nonexistent/x: check the path."),
        ("reconcile", "/nonexistent/x", "There is no /nonexistent/x: check the path."),
        ("jobs show", "--job /nonexistent/x", "There is no /nonexistent/x: check the path."),
        ("jobs show", "--receipt /nonexistent/x --line 1", "There is no /nonexistent/x: check the path."),
        ("results delete", "--job /nonexistent/x --reason x", "There is no /nonexistent/x: check the path."),
        ("results export", "--to /nonexistent/x", "There is no /nonexistent/x: check the path."),
        ("dead-letters export", "--to /nonexistent/x", "There is no /nonexistent/x: check the path."),
        (
            "review edit",
            "{waits} --from /nonexistent/x --reason x",
            "There is no /nonexistent/x: check the path.",
        ),
        ("task try", "/nonexistent/x", "There is no /nonexistent/x: check the path."),
        ("jobs show", &nothing, "The ledger knows nothing of 0000"),
        ("jobs show", "--reference nobody's --yes", "No record has this reference"),
        ("jobs logs", &nothing, "ask with an earlier --since"),
        ("results get", &nothing, "There is no result under 0000"),
        ("results delete", "--reference nobody's --reason x", "No record has this reference"),
        ("dead-letters show", &nothing, "There is no record 0000"),
        ("review show", &nothing, "There is no record 0000"),
        ("review accept", &format!("{nothing} --reason x"), "There is no record 0000"),
        ("review edit", &format!("{nothing} --reason x"), "There is no record 0000"),
        ("review reject", &format!("{nothing} --reason x"), "There is no record 0000"),
        ("redrive show", "r-2", "there is no redrive r-2"),
        ("redrive watch", "r-2", "there is no redrive r-2"),
        ("redrive stop", "r-2 --reason x --yes", "there is no redrive r-2"),
    ] {
        let set = Set::up().await;
        let mut command = set.command((name, more)).await;
        if name.starts_with("redrive") {
            set.stand
                .answer([json!({"not_found": "there is no redrive r-2: list them to see which there are"})]);
        }
        if name == "jobs logs" {
            set.stand.say("Logs_20140328:FilterLogEvents", json!({"events": []}));
        }
        ends(&go(&mut command), (name, more), 5, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nobody_is_asked_and_nothing_is_changed() {
    let mut asking = 0;
    for row in COMMANDS.iter().filter(|(_, more)| more.contains("--yes")) {
        asking += 1;
        let set = Set::up().await;
        let mut command = set.command((row.0, &row.1.replace("--yes", ""))).await;
        let before = set.stand.asked().len();
        ends(
            &go(&mut command),
            *row,
            2,
            "There is no terminal to ask on, and nothing was changed: add --yes",
        );
        let asked = set.actions_since(before);
        // A dry run of the function is no change.
        let changed: Vec<_> =
            asked.iter().filter(|action| changes(action) && *action != "lambda:InvokeFunction").collect();
        assert!(changed.is_empty(), "{row:?}: {changed:?}");
    }
    assert!(asking > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_what_was_changed_stands_and_is_said() {
    each(COMMANDS.to_vec(), |row| async move {
        let set = Set::up().await;
        let mut command = set.command(row).await;
        if go(&mut command).out.is_empty() {
            return;
        }
        let set = Set::up().await;
        let mut command = set.command(row).await;
        let before = set.stand.asked().len();
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"sk-new");
        let ran = tokio::task::block_in_place(|| Ran::of(child.wait_with_output().unwrap()));
        ends(&ran, row, 1, "The disk is full, so standard output is incomplete: ");
        let asked = set.actions_since(before);
        // A call that was tried, and a message that was looked at, are nobody's change.
        let changed = asked.iter().any(|action| changes(action) && action != "model:Call")
            && !["redrive list", "redrive show"].contains(&row.0);
        assert_eq!(!ran.err.contains("run the command again"), changed, "{row:?}: {ran:#?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_failure() {
    each(COMMANDS.to_vec(), |row| async move {
        let set = Set::up().await;
        let mut command = set.command(row).await;
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let _ = child.stdin.take().unwrap().write_all(b"sk-new");
        let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
        let said = String::from_utf8(output.stderr).unwrap();
        // Where it writes nothing, it ends as always.
        assert!([0, 3].contains(&output.status.code().unwrap()), "{row:?}: {said}");
        assert!(output.status.code() == Some(3) || !said.contains("nightshift: "), "{row:?}: {said}");
    })
    .await;
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
}

/// Presses Ctrl-C, again where the command goes on, and says how it ended.
fn stopped(mut child: Child) -> Ran {
    while child.try_wait().unwrap().is_none() {
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(200));
    }
    Ran::of(child.wait_with_output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_wherever_it_waits_and_what_may_be_half_done_is_said() {
    let asked = rows_and_actions().await;
    each(asked, |(row, action)| async move {
        let set = Set::up().await;
        let mut command = set.command(row).await;
        let before = set.stand.asked().len();
        set.stand.hang(Some(&action));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"sk-new");
        let ran = tokio::task::block_in_place(|| {
            // It has asked, and waits for the answer.
            while !set.actions_since(before).contains(&action) {
                std::thread::sleep(Duration::from_millis(20));
            }
            stopped(child)
        });
        let said = sentence(&ran, row);
        assert!(ran.code == 130 && said.starts_with("Interrupted"), "{row:?} at {action}: {ran:#?}");
        let asked = set.actions_since(before);
        let changed = asked.iter().filter(|action| changes(action) && *action != "model:Call").count();
        // The function is asked first what it would do.
        let looks = match row.0 {
            "redrive" | "redrive list" | "redrive show" => 1,
            _ => 0,
        };
        assert!(
            changed <= looks || said != "Interrupted; nothing was changed.",
            "{row:?} at {action}: {ran:#?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_fits_into_sixty_columns() {
    let shows = COMMANDS.into_iter().filter(|(name, _)| *name != "key set");
    each(shows.collect(), |row| async move {
        let set = Set::up().await;
        let mut command = set.command(row).await;
        command.stderr(Stdio::null()).env("NO_COLOR", "1");
        let (shown, code) = tokio::task::block_in_place(|| on_a_terminal(60, &mut command));
        assert!([0, 3].contains(&code), "{row:?}: {code} {shown}");
        let widest = shown.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or_default();
        assert!(widest <= 60, "{row:?}: {widest} columns\n{shown}");
    })
    .await;
}

/// A note of a load test that was killed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_load_test_left_is_said_to_be_left_where_its_removal_is_interrupted() {
    let set = Set::up().await;
    let note = aws_sdk_dynamodb::Client::new(&set.stand.sdk()).put_item().table_name(LEDGER);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let note = note
        .item("id", text("load-test"))
        .item("run", text("r"))
        .item("alive_ms", AttributeValue::N("0".to_owned()));
    note.send().await.unwrap();
    set.stand.hang(Some("AmazonSQS:ReceiveMessage"));
    let mut command = set.stand.command(&["load-test", "--clean-up", "--yes"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let ran = tokio::task::block_in_place(|| {
        while !set.actions_since(0).contains("AmazonSQS:ReceiveMessage") {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopped(child)
    });
    ends(
        &ran,
        ("load-test", "--clean-up"),
        130,
        "`nightshift --prefix nightshift load-test --clean-up` removes what is left of it",
    );
}

fn in_repository(path: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The text of all files below a folder.
fn texts(folder: &std::path::Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: std::path::PathBuf| {
        if path.is_dir() { texts(&path) } else { std::fs::read_to_string(path).unwrap_or_default() }
    };
    entries.map(text).collect()
}

/// What a managed policy allows.
fn allowed(role: &str) -> BTreeSet<String> {
    let policies = std::fs::read_to_string(in_repository("terraform/policies.tf")).unwrap();
    let statements =
        policies.split_once(&format!("\n    {role} = {{")).unwrap().1.split("\n    }\n").next().unwrap();
    let is_action = |text: &&str| {
        let (service, operation) = text.split_once(':').unwrap_or_default();
        !service.is_empty()
            && service.bytes().all(|b| b.is_ascii_lowercase())
            && operation.starts_with(|c: char| c.is_ascii_uppercase())
            // The key of a condition looks like an action.
            && operation != "LeadingKeys"
    };
    let mut actions: BTreeSet<String> = statements.split('"').filter(is_action).map(str::to_owned).collect();
    if statements.contains("local.find_the_stack") {
        actions.insert("lambda:GetFunctionConfiguration".to_owned());
    }
    actions
}

/// Whose commands are whose. Who operates does all, but for what the others decide.
const ROLES: [(&str, &[&str]); 3] = [
    ("producer", &["enqueue"]),
    (
        "reader",
        &[
            "reconcile",
            "jobs show",
            "results get",
            "results export",
            "dead-letters list",
            "dead-letters export",
            "review list",
            "review show",
        ],
    ),
    ("reviewer", &["review list", "review show", "review accept", "review edit", "review reject"]),
];

/// What no command asks, and why it is allowed.
const BESIDE: [(&str, &str, &str); 8] = [
    ("producer", "sqs:GetQueueUrl", "whoever sends without the command finds the queue by its name"),
    ("producer", "sqs:GetQueueAttributes", "and sees how much waits in it"),
    (
        "operator",
        "cloudwatch:DescribeAlarmHistory",
        "the console's page of an alarm, where each mail's link leads",
    ),
    ("operator", "cloudwatch:GetDashboard", "the dashboard"),
    ("operator", "cloudwatch:ListMetrics", "the console's graphs"),
    ("operator", "logs:DescribeLogStreams", "the console's page of a log group"),
    ("operator", "logs:GetLogEvents", "and of a stream"),
    ("operator", "sqs:ListDeadLetterSourceQueues", "the console's redrive of a dead-letter queue"),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_policy_allows_what_its_commands_ask_and_nothing_else() {
    let asked = rows_and_actions().await;
    let asked_by = |names: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        let of_them = asked.iter().filter(|((name, _), action)| names(name) && action != "model:Call");
        // Anybody may ask who they are (AWS STS API Reference, GetCallerIdentity).
        of_them.map(|(_, action)| iam(action)).filter(|action| action != "sts:GetCallerIdentity").collect()
    };
    for (role, names) in ROLES {
        let mut may: BTreeSet<String> = allowed(role);
        for (_, action, _) in BESIDE.iter().filter(|(of, _, _)| *of == role) {
            assert!(may.remove(*action), "{role} may not {action} any longer: take it out of BESIDE");
        }
        assert_eq!(asked_by(&|name| names.contains(&name)), may, "asked, and allowed by the policy {role}");
    }
    let (operator, eraser) = (allowed("operator"), allowed("eraser"));
    // Whoever checks a key or tries a task reads the key, which no policy of the stack gives.
    let reads_the_key = "secretsmanager:GetSecretValue";
    let missing: Vec<_> = asked_by(&|name| name != "results delete")
        .into_iter()
        .filter(|action| !operator.contains(action) && action != reads_the_key)
        .collect();
    assert!(missing.is_empty(), "asked by commands, and allowed to no operator: {missing:?}");
    let of_delete = asked_by(&|name| name == "results delete");
    assert!(
        of_delete.iter().all(|action| operator.contains(action) || eraser.contains(action)),
        "{of_delete:?}"
    );
    assert!(eraser.is_subset(&of_delete), "{eraser:?}");
    // What the table's rows do not come by is asked by an option of a command, or by a page of the runbook.
    let (source, pages) = (texts(&in_repository("crates/cli/src")), texts(&in_repository("runbook")));
    let all = asked_by(&|_| true);
    let kebab = |operation: &str| -> String {
        let parts = operation
            .chars()
            .map(|c| if c.is_uppercase() { format!("-{}", c.to_lowercase()) } else { c.to_string() });
        parts.collect::<String>().trim_start_matches('-').to_owned()
    };
    let more: Vec<_> = operator
        .iter()
        .filter(|action| {
            let (service, operation) = action.split_once(':').unwrap();
            !all.contains(*action)
                && !BESIDE.iter().any(|(of, beside, _)| (*of, *beside) == ("operator", action.as_str()))
                && !source.contains(&format!("\"{action}\""))
                && !pages.contains(&format!("aws {service} {}", kebab(operation)))
        })
        .collect();
    assert!(more.is_empty(), "allowed to operators, and asked by no command and no page: {more:?}");
}
