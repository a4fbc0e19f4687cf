//! Every documented and every reported reply of a provider, sent over real HTTP to the real adapter.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use crate::support::{Keys, Server, Step, adapter, request, response};
use nightshift_core::model::FailureClass::{Account, Capacity, Refused, Rejected, Transient, Unclear};
use nightshift_core::model::{Answer, ModelFailure, ModelReply};
use nightshift_core::retry::advised_wait_ms;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    provider: String,
    name: String,
    status: u16,
    headers: std::collections::BTreeMap<String, String>,
    body: Value,
    expected: String,
    #[serde(default)]
    min_wait_ms: Option<u64>,
}

/// Half of a value that would be valid if it were whole.
const PAYLOAD_TRUNCATED: &str = r#"{"summary": "Two jobs fa"#;

fn fits(case: &Case, result: &Result<ModelReply, ModelFailure>) -> bool {
    let expected = |words: &[&str]| words.contains(&case.expected.as_str());
    match result {
        Ok(reply) => match &reply.answer {
            Answer::Refused { .. } => expected(&["refusal"]),
            Answer::Truncated { .. } => expected(&["truncated"]),
            // Asked again, and a dead letter if that does not help.
            Answer::Unusable { .. } => expected(&["retry_or_permanent"]),
            // What the provider's own grammar did not accept is an answer, and asked again like any other.
            Answer::Text(text) => {
                expected(&["retry"]) && case.body["error"]["failed_generation"] == text.as_str()
            }
        },
        Err(failure) => match failure.class {
            Capacity | Transient => expected(&["retry", "retry_or_permanent"]),
            Rejected => expected(&["permanent", "retry_or_permanent"]),
            Account => expected(&["permanent_account"]),
            Refused => expected(&["refusal"]),
            // Whose fault it is, what becomes of other jobs says.
            Unclear => expected(&["permanent_or_refusal"]),
        },
    }
}

fn cases(file: &str) -> Option<Vec<Case>> {
    let folder = std::env::var_os("NIGHTSHIFT_CASES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("model_errors").join(file)) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no cases folder at {}", folder.display());
        println!("skipped: no cases folder");
        return None;
    };
    Some(serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn every_documented_reply_means_what_its_provider_says() {
    let Some(cases) = cases("documented.json") else { return };
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    for case in cases {
        check(case).await;
    }
}

#[tokio::test]
async fn every_reported_reply_means_what_it_meant_for_those_who_met_it() {
    let Some(cases) = cases("reported.json") else { return };
    assert!(cases.len() >= 28, "only {} cases", cases.len());
    for case in cases {
        check(case).await;
    }
}

async fn check(case: Case) {
    let body = case.body.as_str().map_or_else(|| case.body.to_string(), str::to_owned);
    let body = body.replace("{{PAYLOAD_TRUNCATED}}", &PAYLOAD_TRUNCATED.replace('"', "\\\""));
    let headers: Vec<(&str, &str)> = case.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let server =
        Server::start(vec![vec![Step::Send(response(case.status, &headers, body.as_bytes()))]]).await;
    let keys = Keys::working();
    let result = adapter(&case.provider, &server.url(), keys.clone()).call(&request(5_000)).await;
    let label = format!("{} {}", case.provider, case.name);
    assert!(fits(&case, &result), "{label}: {result:?} is not {}", case.expected);
    assert_eq!(server.asked().len(), 1, "{label}: one call is one request");
    // A key may be what is wrong: the next call reads the store again.
    let forgotten = keys.forgotten.load(Ordering::SeqCst);
    assert_eq!(
        forgotten > 0,
        case.expected == "permanent_account" || case.name.contains("firewall"),
        "{label}"
    );
    match &result {
        Ok(reply) => {
            assert!(
                case.status != 200 || reply.usage.input_tokens.is_some_and(|tokens| tokens > 0),
                "{label}"
            );
            if let Answer::Truncated { text, .. } = &reply.answer {
                assert_eq!(text, PAYLOAD_TRUNCATED, "{label}");
            }
        }
        Err(failure) => {
            assert_eq!(failure.status, Some(case.status), "{label}");
            assert!(!failure.message.contains("sk-"), "{label}: {}", failure.message);
            assert!(case.status != 200 || !failure.may_be_billed(), "{label}");
            let waits_ms = advised_wait_ms(&failure.advice, 0).unwrap_or(0);
            assert!(waits_ms >= case.min_wait_ms.unwrap_or(0), "{label}: waits {waits_ms} ms");
        }
    }
}
