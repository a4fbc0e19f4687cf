//! AWS's own errors through the real ledger adapter over HTTP: what it tries again itself, and what it then reports.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nightshift_aws::DynamoLedger;
use nightshift_aws::clients::{ATTEMPTS_MAX, Region, TimeoutConfig, loader};
use nightshift_core::input_hash::InputHash;
use nightshift_core::limits::Limits;
use nightshift_core::message::Delivery;
use nightshift_core::next_step::ClaimAsk;
use nightshift_core::record::{RecordWrite, Revision};
use nightshift_ports::{Ledger as _, PortErrorKind, WriteAnswer};
use nightshift_tests::cases;
use nightshift_tests::http::Server;
use serde_json::{Value, json};

fn claim() -> RecordWrite {
    let (key, limits, revision) = (InputHash::of_body("x"), Limits::default(), Revision::default());
    let delivery = Delivery {
        message_id: "m".to_owned(),
        sent_at_ms: 1,
        receive_count: 1,
        received_at_ms: 1,
        redrive_of: None,
    };
    ClaimAsk {
        key: &key,
        task: None,
        reference: None,
        delivery: &delivery,
        token: "token",
        now_ms: 1,
        lease_until_ms: 2,
        alone: true,
        revision: &revision,
        limits: &limits,
    }
    .first()
}

async fn ledger(url: &str, own_limits: bool) -> DynamoLedger {
    let credentials = aws_credential_types::Credentials::new("id", "secret", None, None, "cases");
    let mut loader =
        loader().endpoint_url(url).region(Region::new("us-east-1")).credentials_provider(credentials);
    if !own_limits {
        // A busy machine may take longer for all of these at once.
        let patient = TimeoutConfig::builder().operation_timeout(Duration::from_secs(60));
        loader = loader.timeout_config(patient.build());
    }
    DynamoLedger::new(&loader.load().await, "table")
}

#[tokio::test]
async fn what_aws_calls_retryable_is_tried_again_and_then_handed_back() {
    let Some(folder) = cases::folder("retry") else { return };
    let cases: Value = serde_json::from_str(&cases::text(&folder, "aws_retryable_codes.json")).unwrap();
    let cases = cases["retryable"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 27);
    let mut running = tokio::task::JoinSet::new();
    for case in cases {
        running.spawn(check(case));
    }
    while let Some(result) = running.join_next().await {
        result.unwrap();
    }
}

async fn check(case: Value) {
    let (status, code) = (case["status"].as_u64(), case["code"].as_str());
    let retryable = case["retry"].as_bool().unwrap();
    let requests = Arc::new(AtomicU32::new(0));
    let counted = requests.clone();
    let server = match (status, code) {
        (Some(status), code) => {
            let body =
                code.map_or_else(|| json!({}), |code| json!({"__type": code, "message": "as the case says"}));
            Server::start(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                let status = u16::try_from(status).unwrap();
                Some((
                    status,
                    vec![("content-type".into(), "application/x-amz-json-1.0".into())],
                    body.to_string(),
                ))
            })
            .await
        }
        (None, Some("read timeout")) => {
            Server::start(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                None
            })
            .await
        }
        (None, Some("connection error")) => Server::closed(),
        other => panic!("{other:?}"),
    };
    let answer = ledger(&server.url(), code == Some("read timeout")).await.write(&claim()).await;
    let requests = requests.load(Ordering::Relaxed);
    let label = format!("{case}: {answer:?} after {requests} requests");
    match answer {
        Ok(WriteAnswer::Written) => assert_eq!(status, Some(200), "{label}"),
        Ok(WriteAnswer::Refused(_)) => panic!("{label}"),
        Err(error) => {
            let again = matches!(error.kind, PortErrorKind::Throttled | PortErrorKind::Unavailable);
            assert_eq!(again, retryable, "{label}");
            let tries = match status {
                // A refused connection is not seen by any server, and the time for all attempts may end in the last.
                None => requests..=ATTEMPTS_MAX,
                Some(_) if retryable => ATTEMPTS_MAX..=ATTEMPTS_MAX,
                Some(_) => 1..=1,
            };
            assert!(tries.contains(&requests), "{label}");
        }
    }
}
