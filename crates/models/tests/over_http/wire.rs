//! The adapters over real HTTP: what they send, and what they make of everything that can happen to it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{
    FixedClock, KEY, Keys, PROVIDERS, Server, Step, adapter, adapter_over, head, request, response, success,
};
use nightshift_core::model::FailureClass::{self, Account, Capacity, Transient, Unclear};
use nightshift_core::model::{Answer, ReportedUsage, Usage};
use nightshift_models::{Bedrock, BedrockAuth, BedrockSettings, Http};
use nightshift_ports::{Model as _, PortErrorKind};
use serde_json::json;

const ANSWER: &str = r#"{"summary": "hi"}"#;

fn ok(provider: &str) -> Vec<Step> {
    vec![Step::Send(response(
        200,
        &[("content-type", "application/json")],
        success(provider, ANSWER).to_string().as_bytes(),
    ))]
}

#[tokio::test]
async fn an_answer_comes_with_its_usage_id_and_headroom() {
    for provider in PROVIDERS {
        let headers = [
            ("request-id", "req_1"),
            ("anthropic-ratelimit-requests-remaining", "7"),
            ("x-ratelimit-remaining-requests", "7"),
            ("x-ratelimit-reset-requests", "20ms"),
        ];
        let body = success(provider, ANSWER).to_string();
        let server = Server::start(vec![vec![Step::Send(response(200, &headers, body.as_bytes()))]]).await;
        let reply = adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await.unwrap();
        assert_eq!(reply.answer, Answer::Text(ANSWER.to_owned()), "{provider}");
        assert_eq!(reply.usage, Usage { input_tokens: 11, output_tokens: 7 }.into(), "{provider}");
        assert_eq!(reply.request_id.as_deref(), Some("req_1"), "{provider}");
        let remaining = (provider != "bedrock").then_some(7);
        assert_eq!(reply.headroom.requests.remaining, remaining, "{provider}");
        if provider == "openai" {
            assert_eq!(reply.headroom.requests.reset_ms, Some(20));
        }
    }
}

#[tokio::test]
async fn a_usage_block_of_any_shape_leaves_the_answer_as_it_is() {
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    let no_counts =
        ["null", "-1", "1.5", "1e30", "1e999", "18446744073709551616", "\"12\"", "true", "{}", "[11]", &deep];
    for provider in PROVIDERS {
        let (input, output) = match provider {
            "anthropic" => ("input_tokens", "output_tokens"),
            "openai" => ("prompt_tokens", "completion_tokens"),
            _ => ("inputTokens", "outputTokens"),
        };
        let mut cases = vec![
            (format!(r#"{{"{input}": 11, "{output}": 7, "more": {deep}}}"#), (Some(11), Some(7))),
            (format!(r#"{{"{input}": 11}}"#), (Some(11), None)),
            (format!(r#"{{"{output}": 7}}"#), (None, Some(7))),
            ("[11, 7]".to_owned(), (None, None)),
            ("7".to_owned(), (None, None)),
            ("{\"usage\": {}}".to_owned(), (None, None)),
        ];
        for no_count in no_counts {
            cases.push((no_count.to_owned(), (None, None)));
            cases.push((format!(r#"{{"{input}": {no_count}, "{output}": 7}}"#), (None, Some(7))));
            cases.push((format!(r#"{{"{input}": 11, "{output}": {no_count}}}"#), (Some(11), None)));
        }
        for (usage, (input_tokens, output_tokens)) in cases {
            let mut body = success(provider, ANSWER);
            body["usage"] = json!("THE USAGE");
            let body = body.to_string().replace("\"THE USAGE\"", &usage);
            let server = Server::start(vec![vec![Step::Send(response(200, &[], body.as_bytes()))]]).await;
            let reply = adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await;
            let reply = reply.unwrap_or_else(|failure| panic!("{provider}: {usage}: {failure:?}"));
            assert_eq!(reply.answer, Answer::Text(ANSWER.to_owned()), "{provider}: {usage}");
            assert_eq!(reply.usage, ReportedUsage { input_tokens, output_tokens }, "{provider}: {usage}");
        }
        let mut body = success(provider, ANSWER);
        body.as_object_mut().unwrap().remove("usage");
        let body = body.to_string();
        let server = Server::start(vec![vec![Step::Send(response(200, &[], body.as_bytes()))]]).await;
        let reply = adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await.unwrap();
        assert_eq!((reply.answer, reply.usage), (Answer::Text(ANSWER.to_owned()), ReportedUsage::default()));
    }
}

#[tokio::test]
async fn the_text_arrives_byte_for_byte_with_the_key_where_it_belongs() {
    for (provider, path, key_header, key) in [
        ("anthropic", "/v1/messages", "x-api-key", format!("{KEY}-0")),
        ("openai", "/chat/completions", "authorization", format!("Bearer {KEY}-0")),
        (
            "bedrock",
            "/model/us.anthropic.claude-haiku-4-5-20251001-v1%3A0/converse",
            "authorization",
            format!("Bearer {KEY}-0"),
        ),
    ] {
        let server = Server::start(vec![ok(provider)]).await;
        adapter(provider, &server.url(), Keys::working()).call(&request(5_000)).await.unwrap();
        let asked = server.asked();
        let asked = asked.first().unwrap();
        assert_eq!(asked.line, format!("POST {path} HTTP/1.1"));
        assert_eq!(asked.header(key_header), Some(key.as_str()), "{provider}");
        assert_eq!(asked.header("content-type"), Some("application/json"), "{provider}");
        assert!(asked.header("user-agent").unwrap().starts_with("nightshift/"), "{provider}");
        assert_eq!(asked.header("accept-encoding"), None, "{provider}");
        let body = asked.json();
        let text = match provider {
            "anthropic" => &body["messages"][0]["content"],
            "openai" => &body["messages"][1]["content"],
            _ => &body["messages"][0]["content"][0]["text"],
        };
        assert_eq!(text, "<text>\u{202e}مرحبا \u{0}😀 \"\\</text>", "{provider}");
        // A server of one's own takes the bound itself, the others the words for it.
        let bound = if provider == "openai" { "\"maxLength\":9" } else { "At most 9 characters" };
        assert!(body.to_string().contains(bound), "{provider}: the schema is not there");
    }
}

/// What a server does, and what it means.
struct Fault {
    name: &'static str,
    script: Vec<Step>,
    class: FailureClass,
    status: Option<u16>,
    error_type: &'static str,
}

fn faults() -> Vec<Fault> {
    let fault = |name, script, class, status, error_type| Fault { name, script, class, status, error_type };
    let huge = vec![b'x'; 9 * 1_024 * 1_024];
    let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    chunked.extend_from_slice(b"5\r\n{\"id\"\r\n");
    vec![
        fault("closed without a word", vec![Step::Close], Transient, None, "reset"),
        fault("reset without a word", vec![Step::Reset], Transient, None, "reset"),
        fault("silence", vec![Step::Hang], Transient, None, "timeout"),
        fault(
            "garbage",
            vec![Step::Send(b"\x16\x03\x01 what\r\n\r\n".to_vec()), Step::Close],
            Transient,
            None,
            "reset",
        ),
        fault(
            "reset after the head",
            vec![Step::Send(head(200, &[], 50)), Step::Wait(30), Step::Reset],
            Transient,
            Some(200),
            "reset",
        ),
        fault(
            "half a body",
            vec![Step::Send(head(200, &[], 50)), Step::Send(b"{\"id\":".to_vec()), Step::Close],
            Transient,
            Some(200),
            "reset",
        ),
        fault("half a chunked body", vec![Step::Send(chunked), Step::Close], Transient, Some(200), "reset"),
        fault(
            "a body that never ends",
            vec![Step::Send(head(200, &[], 50)), Step::Send(b"{".to_vec()), Step::Hang],
            Transient,
            Some(200),
            "timeout",
        ),
        fault(
            "a body beyond all bounds",
            vec![Step::Send(head(200, &[], huge.len())), Step::Send(huge.clone())],
            Transient,
            Some(200),
            "reply_too_large",
        ),
        fault(
            "a page of a proxy",
            vec![Step::Send(response(200, &[("content-type", "text/html")], b"<html>Log in</html>"))],
            Unclear,
            Some(200),
            "not_a_model",
        ),
        fault(
            "nothing at all",
            vec![Step::Send(response(200, &[], b""))],
            Transient,
            Some(200),
            "unreadable_reply",
        ),
        fault(
            "a redirect",
            vec![Step::Send(response(302, &[("location", "http://127.0.0.1:1/")], b""))],
            Account,
            Some(302),
            "http_302",
        ),
        // The status has said it; what happens to the body changes nothing.
        fault(
            "429 and a reset",
            vec![Step::Send(head(429, &[], 50)), Step::Wait(30), Step::Reset],
            Capacity,
            Some(429),
            "http_429",
        ),
        fault(
            "401 and silence",
            vec![Step::Send(head(401, &[], 50)), Step::Hang],
            Account,
            Some(401),
            "http_401",
        ),
        fault(
            "500 and a flood",
            vec![Step::Send(head(500, &[], huge.len())), Step::Send(huge)],
            Transient,
            Some(500),
            "http_500",
        ),
        fault(
            "503 as a page",
            vec![Step::Send(response(503, &[("content-type", "text/html")], b"<html>"))],
            Capacity,
            Some(503),
            "http_503",
        ),
    ]
}

#[tokio::test]
async fn faults_of_the_wire_are_told_apart() {
    for provider in PROVIDERS {
        for Fault { name, script, class, status, error_type } in faults() {
            // Only what does not end by itself ends with the limit.
            let hangs = script.iter().any(|step| matches!(step, Step::Hang));
            let limit_ms = if hangs { 1_000 } else { 60_000 };
            let server = Server::start(vec![script]).await;
            let (adapter, request) = (adapter(provider, &server.url(), Keys::working()), request(limit_ms));
            let call = tokio::time::timeout(Duration::from_secs(30), adapter.call(&request)).await;
            let failure =
                call.unwrap_or_else(|_| panic!("{provider}: {name}: goes on after its limit")).unwrap_err();
            let label = format!("{provider}: {name}: {failure:?}");
            assert_eq!(
                (failure.class, failure.status, failure.error_type.as_str()),
                (class, status, error_type),
                "{label}"
            );
            // Somebody who waited for it is told how long that was.
            assert!(error_type != "timeout" || failure.message.contains(" within 1."), "{label}");
            assert_eq!(server.asked().len(), 1, "{label}: one call is one request");
            assert!(!format!("{failure:?}").contains("127.0.0.1"), "{label}: names an address");
        }
    }
}

#[tokio::test]
async fn what_was_never_sent_cost_nothing() {
    // Bound, so that nobody else is there, and listens to nobody.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let refused = format!("http://{}", nobody.local_addr().unwrap());
    // Accepts, and never says a word of TLS: the time limit ends before there is a connection.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("https://{}", silent.local_addr().unwrap());
    let not_tls = Server::start(vec![vec![Step::Hang]]).await;
    let not_tls_url = format!("https://{}", not_tls.address);
    for provider in PROVIDERS {
        for (url, limit_ms, error_type) in
            [(&refused, 60_000, "connect"), (&silent_url, 300, "connect_timeout")]
        {
            let failure = adapter(provider, url, Keys::working()).call(&request(limit_ms)).await.unwrap_err();
            assert_eq!(
                (failure.class, failure.error_type.as_str()),
                (Capacity, error_type),
                "{provider} {url}: {failure:?}"
            );
        }
        let failure = adapter(provider, &not_tls_url, Keys::working()).call(&request(300)).await.unwrap_err();
        assert_eq!(failure.class, Capacity, "{provider}: {failure:?}");
        let no_time = adapter(provider, &refused, Keys::working()).call(&request(0)).await.unwrap_err();
        assert_eq!(no_time.class, Capacity, "{provider}: {no_time:?}");
    }
}

#[tokio::test]
async fn an_error_under_200_is_the_error_that_it_names() {
    for (body, class) in [
        (json!({"error": {"code": 429, "message": "Rate limit exceeded"}}), Capacity),
        (json!({"error": {"code": 402, "message": "Insufficient credits"}}), Account),
        (json!({"error": {"message": "upstream"}}), Transient),
        (json!({"error": {"code": 400, "message": "bad"}}), Unclear),
    ] {
        let server =
            Server::start(vec![vec![Step::Send(response(200, &[], body.to_string().as_bytes()))]]).await;
        let failure =
            adapter("openai", &server.url(), Keys::working()).call(&request(5_000)).await.unwrap_err();
        assert_eq!((failure.class, failure.status), (class, Some(200)), "{body}");
    }
}

#[tokio::test]
async fn after_a_401_the_key_is_read_again_by_the_next_call() {
    for provider in PROVIDERS {
        let said = format!("no such key {KEY}-0 here");
        let refusal =
            vec![Step::Send(response(401, &[], json!({"error": {"message": said}}).to_string().as_bytes()))];
        let server = Server::start(vec![refusal, ok(provider)]).await;
        let keys = Keys::working();
        let model = adapter(provider, &server.url(), keys.clone());
        let failure = model.call(&request(5_000)).await.unwrap_err();
        assert_eq!(failure.class, Account, "{provider}");
        assert!(!format!("{failure:?}").contains("0123456789abcdef"), "{provider}: {failure:?}");
        assert_eq!((server.asked().len(), keys.forgotten.load(Ordering::SeqCst)), (1, 1), "{provider}");
        model.call(&request(5_000)).await.unwrap();
        assert_eq!(keys.forgotten.load(Ordering::SeqCst), 1, "{provider}");
        let asked = server.asked();
        let header = if provider == "anthropic" { "x-api-key" } else { "authorization" };
        assert!(asked[1].header(header).unwrap().ends_with(&format!("{KEY}-1")), "{provider}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_nobodys_job() {
    for provider in PROVIDERS {
        for (kind, class) in [
            (PortErrorKind::Throttled, Capacity),
            (PortErrorKind::Unavailable, Capacity),
            (PortErrorKind::Misconfigured, Account),
            (PortErrorKind::Unreadable, Account),
            (PortErrorKind::Refused, Account),
        ] {
            let server = Server::start(vec![ok(provider)]).await;
            let failure = adapter(provider, &server.url(), Keys::failing(kind))
                .call(&request(5_000))
                .await
                .unwrap_err();
            assert_eq!(
                (failure.class, failure.error_type.as_str()),
                (class, "model_key_unavailable"),
                "{provider} {kind}"
            );
            assert_eq!(server.connections(), 0, "{provider} {kind}");
        }
    }
}

#[tokio::test]
async fn connections_serve_the_next_call_and_are_given_up_after_a_freeze() {
    let server = Server::start(vec![ok("anthropic")]).await;
    let http = Http::new().unwrap();
    let model = adapter_over(&http, "anthropic", &server.url(), Keys::working());
    for _ in 0..3 {
        model.call(&request(5_000)).await.unwrap();
        // The connection goes back to the pool a moment after its last byte was read.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.connections(), 1);
    http.drop_idle();
    model.call(&request(5_000)).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_call() {
    let mut closing = ok("anthropic");
    closing.push(Step::Close);
    let server = Server::start(vec![closing]).await;
    let model = adapter("anthropic", &server.url(), Keys::working());
    for _ in 0..5 {
        model.call(&request(5_000)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test]
async fn bedrock_requests_carry_a_signature_that_aws_would_compute() {
    let server = Server::start(vec![ok("bedrock")]).await;
    let credentials = aws_credential_types::Credentials::new(
        "AKIDEXAMPLE",
        "secret",
        Some("token".to_owned()),
        None,
        "test",
    );
    let settings = BedrockSettings {
        model: "us.anthropic.claude-haiku-4-5-20251001-v1:0".to_owned(),
        region: "eu-west-1".to_owned(),
        base_url: Some(server.url()),
        structured_output: None,
    };
    let auth = BedrockAuth::Credentials {
        provider: aws_credential_types::provider::SharedCredentialsProvider::new(credentials),
        clock: std::sync::Arc::new(FixedClock(1_794_219_630_000)),
    };
    let bedrock = Bedrock::new(&settings, Http::new().unwrap(), auth).unwrap();
    bedrock.call(&request(5_000)).await.unwrap();
    let asked = server.asked();
    let asked = asked.first().unwrap();
    assert_eq!(asked.header("x-amz-date"), Some("20261109T102030Z"));
    assert_eq!(asked.header("x-amz-security-token"), Some("token"));
    // From "Create a signed AWS API request" (AWS Identity and Access Management User Guide): the path is encoded
    // twice, and what is signed is what arrived.
    let canonical = format!(
        "POST\n/model/us.anthropic.claude-haiku-4-5-20251001-v1%253A0/converse\n\ncontent-type:application/json\nhost:{}\n\
         x-amz-date:20261109T102030Z\nx-amz-security-token:token\n\ncontent-type;host;x-amz-date;x-amz-security-token\n{}",
        asked.header("host").unwrap(),
        sigv4::hex(&sigv4::sha256(&asked.body)),
    );
    let scope = "20261109/eu-west-1/bedrock/aws4_request";
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n20261109T102030Z\n{scope}\n{}",
        sigv4::hex(&sigv4::sha256(canonical.as_bytes()))
    );
    let mut key = b"AWS4secret".to_vec();
    for part in scope.split('/') {
        key = sigv4::hmac(&key, part.as_bytes());
    }
    let signature = sigv4::hex(&sigv4::hmac(&key, to_sign.as_bytes()));
    assert_eq!(
        asked.header("authorization").unwrap(),
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature={signature}"
        )
    );
}

/// The primitives of the signature, apart from the library that is tested.
mod sigv4 {
    use sha2::{Digest as _, Sha256};

    pub fn sha256(bytes: &[u8]) -> Vec<u8> {
        Sha256::digest(bytes).to_vec()
    }

    pub fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
        assert!(key.len() <= 64);
        let pad =
            |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
        let inner = sha256(&[pad(0x36), message.to_vec()].concat());
        sha256(&[pad(0x5c), inner].concat())
    }

    pub fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
