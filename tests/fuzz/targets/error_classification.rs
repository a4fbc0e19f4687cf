//! Any response that is no answer: a class, bounded texts, and no trace of the key.
//!
//! An input is written like a response: a line with the provider and the status, headers, an empty line, the body.
//! `KEY` in it stands for the key that was sent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nightshift_core::model::{FailureClass, ModelFailure};
use nightshift_core::retry::{ADVISED_WAIT_MS_MAX, advised_wait_ms};
use nightshift_models::Provider;
use nightshift_models::classify::classify;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

const KEY: &str = "sk-ant-api03-Kq8vZ2xT5nLw9cRb";
/// A key of a server of one's own, which follows no pattern.
const PLAIN_KEY: &str = "opensesame!42";
/// 2026-11-24.
const NOW_MS: u64 = 1_795_478_400_000;

fuzz_target!(|input: &[u8]| {
    let Some((provider, status, headers, body)) = response(input) else { return };
    for key in [KEY, PLAIN_KEY] {
        let filled = |bytes: &[u8]| replace(bytes, b"KEY", key.as_bytes());
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(&filled(value)))
            {
                map.append(name, value);
            }
        }
        let body = filled(&body);
        let failure = classify(provider, status, &map, &body, Some(key));
        assert_eq!(failure, classify(provider, status, &map, &body, Some(key)));
        check(provider, status, &failure, key);
    }
});

fn check(provider: Provider, status: u16, failure: &ModelFailure, key: &str) {
    assert_eq!(failure.status, Some(status));
    assert!(failure.message.chars().count() <= 300);
    assert!(!failure.message.chars().any(char::is_control), "{:?}", failure.message);
    assert!(!failure.error_type.is_empty() && failure.error_type.len() <= 80);
    assert!(failure.error_type.is_ascii() && !failure.error_type.contains(char::is_whitespace));
    // Everything that is logged or stored of a failure. The advice is only read.
    for said in [&failure.message, &failure.error_type, failure.request_id.as_ref().unwrap_or(&String::new())]
    {
        assert!(!said.contains(key), "{provider:?} {said}");
    }
    assert!(failure.request_id.as_ref().is_none_or(|id| !id.is_empty() && id.chars().count() <= 200));
    // A bad key empties no queue into dead letters, whatever the body claims.
    if matches!(status, 401 | 402) {
        assert_eq!(failure.class, FailureClass::Account);
    }
    if status == 403 {
        assert!(failure.class != FailureClass::Rejected);
    }
    if let Some(wait_ms) = advised_wait_ms(&failure.advice, NOW_MS) {
        assert!(wait_ms <= ADVISED_WAIT_MS_MAX);
    }
}

type Header = (Vec<u8>, Vec<u8>);

fn response(input: &[u8]) -> Option<(Provider, u16, Vec<Header>, Vec<u8>)> {
    let mut rest = input;
    let mut line = || {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let (line, tail) = rest.split_at(end);
        rest = &tail[1..];
        Some(line)
    };
    let first = std::str::from_utf8(line()?).ok()?;
    let (provider, status) = first.split_once(' ')?;
    let provider = match provider {
        "anthropic" => Provider::Anthropic,
        "bedrock" => Provider::Bedrock,
        "openai" => Provider::OpenAi,
        _ => return None,
    };
    let status = status.parse().ok().filter(|status| (100..=999).contains(status))?;
    let mut headers = Vec::new();
    while let Some(header) = line().filter(|header| !header.is_empty()) {
        if let Some(colon) = header.iter().position(|byte| *byte == b':') {
            headers.push((header[..colon].to_vec(), header[colon + 1..].trim_ascii().to_vec()));
        }
    }
    Some((provider, status, headers, rest.to_vec()))
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(byte) = rest.first() {
        if let Some(tail) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = tail;
        } else {
            out.push(*byte);
            rest = &rest[1..];
        }
    }
    out
}
