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
    assert!(checked.err.contains("3 of 4 lines would be dead letters at once"), "{checked:?}");

    let mut csv = bare(&["task", "check", "--csv", "--task", "categorize_ticket", "--map", "text=Body", "-"]);
    let good = run_with(&mut csv, b"Id,Body\n1,hello\n2,\"a, b\"\n").ok();
    assert!(good.out.is_empty() && good.err.contains("2 lines, all of them jobs"), "{good:?}");
}
