//! Every documented reply of a provider, sent over real HTTP to the real adapter.

use std::path::PathBuf;

use crate::support::{Keys, Server, Step, adapter, request, response};
use nightshift_core::model::FailureClass::{Account, Capacity, Rejected, Transient};
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

fn fits(expected: &str, result: &Result<ModelReply, ModelFailure>) -> bool {
    match result {
        Ok(reply) => match &reply.answer {
            Answer::Refused { .. } => expected == "refusal",
            Answer::Truncated { .. } => expected == "truncated",
            // Asked again, and a dead letter if that does not help.
            Answer::Unusable { .. } => expected == "retry_or_permanent",
            Answer::Text(_) => false,
        },
        Err(failure) => match failure.class {
            Capacity | Transient => matches!(expected, "retry" | "retry_or_permanent"),
            Rejected => matches!(expected, "permanent" | "retry_or_permanent"),
            Account => expected == "permanent_account",
        },
    }
}

#[tokio::test]
async fn every_documented_reply_means_what_its_provider_says() {
    let folder = std::env::var_os("NIGHTSHIFT_CASES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(folder.join("model_errors/documented.json")) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no cases folder at {}", folder.display());
        println!("skipped: no cases folder");
        return;
    };
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 30, "only {} cases", cases.len());
    for case in cases {
        let body =
            case.body.to_string().replace("{{PAYLOAD_TRUNCATED}}", &PAYLOAD_TRUNCATED.replace('"', "\\\""));
        let headers: Vec<(&str, &str)> = case.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let server =
            Server::start(vec![vec![Step::Send(response(case.status, &headers, body.as_bytes()))]]).await;
        let result = adapter(&case.provider, &server.url(), Keys::working()).call(&request(5_000)).await;
        let label = format!("{} {}", case.provider, case.name);
        assert!(fits(&case.expected, &result), "{label}: {result:?} is not {}", case.expected);
        assert_eq!(server.asked().len(), 1, "{label}: one call is one request");
        match &result {
            Ok(reply) => {
                assert!(reply.usage.input_tokens > 0, "{label}");
                if let Answer::Truncated { text } = &reply.answer {
                    assert_eq!(text, PAYLOAD_TRUNCATED, "{label}");
                }
            }
            Err(failure) => {
                assert_eq!(failure.status, Some(case.status), "{label}");
                assert!(!failure.message.contains("sk-"), "{label}: {}", failure.message);
                let waits_ms = advised_wait_ms(&failure.advice, 0).unwrap_or(0);
                assert!(waits_ms >= case.min_wait_ms.unwrap_or(0), "{label}: waits {waits_ms} ms");
            }
        }
    }
}
