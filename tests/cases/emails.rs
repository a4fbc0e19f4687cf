//! Real replies by real mail clients, as HTML and as text, as jobs for `summarize_email`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nightshift_core::input_hash::InputHash;
use nightshift_core::job;
use nightshift_core::task::Tasks as _;
use nightshift_tests::cases;
use serde_json::json;

fn collect(folder: &Path, mails: &mut Vec<(String, Vec<u8>)>) {
    mails.extend(cases::files(folder));
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, mails);
        }
    }
}

#[test]
fn every_mail_is_a_job_of_its_own_and_reaches_the_prompt_whole() {
    let Some(folder) = cases::folder("emails") else { return };
    let mut mails = Vec::new();
    collect(&folder, &mut mails);
    mails.retain(|(name, _)| name != "LICENSE" && name != "SOURCE.txt");
    assert!(mails.len() >= 30, "{}", mails.len());
    let registry = nightshift_tasks::registry();
    let task = registry.find("summarize_email").unwrap();
    let mut keys = HashMap::new();
    let mut bodies = HashSet::new();
    for (name, bytes) in mails {
        // Where a mail is not UTF-8, its sender had to decode it: SQS carries text.
        let mail =
            String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        let body = json!({"task": "summarize_email", "input": {"subject": name, "body": mail}}).to_string();
        let job = job::parse(&body, 900 * 1_024).unwrap_or_else(|r| panic!("{name}: {r}"));
        assert_eq!(job.input["body"].as_str(), Some(mail.as_str()), "{name}");
        let prompt = task.prompt(&job.input).unwrap_or_else(|v| panic!("{name}: {v:?}"));
        assert!(prompt.user.contains(&mail), "{name} is not whole in its prompt");
        assert!(
            mail.trim().is_empty() || !prompt.system.contains(mail.trim()),
            "{name} is in the instructions"
        );
        keys.insert(InputHash::of_job(&job.task, &json!({"body": mail})), name);
        bodies.insert(mail);
    }
    assert_eq!(keys.len(), bodies.len());
}
