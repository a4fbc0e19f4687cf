//! What a provider's headers say is left of its limits.

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use nightshift_core::model::{Headroom, Window};
use reqwest::header::HeaderMap;

use crate::Provider;

/// A reset further away than this is not a rate limit but a mistake, or a quota that pacing cannot help: a week, in ms.
const RESET_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;

/// Reads the headers of a response, of an answer as of an error. Absent or unreadable ones leave their place empty.
///
/// Sources: "Rate limits" (Claude API docs), response headers; "Rate limits" (OpenAI API docs), rate limits in headers.
/// Bedrock has none.
#[must_use]
pub fn read(provider: Provider, headers: &HeaderMap) -> Headroom {
    match provider {
        Provider::Anthropic => {
            let window = |what: &str| Window {
                limit: number(headers, &format!("anthropic-ratelimit-{what}-limit")),
                remaining: number(headers, &format!("anthropic-ratelimit-{what}-remaining")),
                reset_ms: text(headers, &format!("anthropic-ratelimit-{what}-reset"))
                    .and_then(|time| until_ms(headers, time)),
            };
            let tokens = [window("tokens"), window("input-tokens"), window("output-tokens")];
            Headroom { requests: window("requests"), tokens: tightest(&tokens) }
        }
        Provider::OpenAi => {
            let window = |what: &str| Window {
                limit: number(headers, &format!("x-ratelimit-limit-{what}")),
                remaining: number(headers, &format!("x-ratelimit-remaining-{what}")),
                reset_ms: text(headers, &format!("x-ratelimit-reset-{what}")).and_then(go_duration_ms),
            };
            Headroom { requests: window("requests"), tokens: window("tokens") }
        }
        Provider::Bedrock => Headroom::default(),
    }
}

/// The window of which the smallest share is left; one that says what is left goes before one that does not.
fn tightest(windows: &[Window]) -> Window {
    // Shares are compared, not counts: 2,000 output tokens can be more room than 10,000 input tokens.
    let share = |window: &Window| match (window.remaining, window.limit) {
        (Some(remaining), Some(limit)) if limit > 0 => remaining.saturating_mul(1_000_000) / limit,
        (Some(0), _) => 0,
        (Some(_), _) => 1_000_000,
        (None, _) => u64::MAX,
    };
    windows.iter().min_by_key(|window| share(window)).copied().unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.parse().ok()
}

/// A duration as Go writes it ("6m0s", "20ms", "1h2m3.5s"), or a bare number of seconds, in milliseconds, rounded up.
fn go_duration_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return bounded_ms(seconds * 1_000.0);
    }
    let mut rest = text;
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(digits)?;
        let number: f64 = number.parse().ok()?;
        let (unit_ms, tail) = [
            ("ms", 1.0),
            ("us", 0.001),
            ("µs", 0.001),
            ("ns", 0.000_001),
            ("h", 3_600_000.0),
            ("m", 60_000.0),
            ("s", 1_000.0),
            ("d", 86_400_000.0),
        ]
        .iter()
        .find_map(|(unit, ms)| tail.strip_prefix(unit).map(|tail| (*ms, tail)))?;
        total_ms += number * unit_ms;
        rest = tail;
    }
    if text.is_empty() { None } else { bounded_ms(total_ms) }
}

fn bounded_ms(ms: f64) -> Option<u64> {
    let ms = ms.ceil();
    // The comparison also refuses what is not a number.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be within 0 and a week"
    )]
    if ms >= 0.0 && ms <= RESET_MS_MAX as f64 { Some(ms as u64) } else { None }
}

/// The time from the moment of the answer, by the provider's own clock, to one in RFC 3339.
fn until_ms(headers: &HeaderMap, time: &str) -> Option<u64> {
    let now = DateTime::from_str(text(headers, "date")?, Format::HttpDate).ok()?;
    let then = DateTime::from_str(time, Format::DateTimeWithOffset).ok()?;
    let ms = then.to_millis().ok()?.saturating_sub(now.to_millis().ok()?);
    // What is past by the second to which the clock is written is now.
    u64::try_from(ms.max(0)).ok().filter(|ms| *ms <= RESET_MS_MAX)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.insert(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        map
    }

    #[test]
    fn durations_as_providers_write_them() {
        for (text, ms) in [
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1s", Some(1_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("7.66s", Some(7_660)),
            ("12", Some(12_000)),
            ("0s", Some(0)),
            ("86400s", Some(86_400_000)),
            ("", None),
            ("soon", None),
            ("5", Some(5_000)),
            ("-3s", None),
            ("3x", None),
            ("1e999", None),
            ("9999999d", None),
        ] {
            assert_eq!(go_duration_ms(text), ms, "{text:?}");
        }
    }

    #[test]
    fn a_reset_is_counted_from_the_answer_by_the_providers_clock() {
        for (date, reset, ms) in [
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T10:20:30Z", Some(30_000)),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T10:20:30.250Z", Some(30_250)),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T11:20:30+01:00", Some(30_000)),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T05:20:30-05:00", Some(30_000)),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T10:19:59Z", Some(0)),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2027-11-09T10:20:00Z", None),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09", None),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "2026-11-09T10:20:30+01:00x", None),
            ("Mon, 09 Nov 2026 10:20:00 GMT", "", None),
            ("today", "2026-11-09T10:20:30Z", None),
        ] {
            assert_eq!(until_ms(&headers(&[("date", date)]), reset), ms, "{date} {reset:?}");
        }
        assert_eq!(until_ms(&HeaderMap::new(), "2026-11-09T10:20:30Z"), None);
    }

    #[test]
    fn anthropic_names_the_tightest_of_its_token_limits() {
        let headroom = read(
            Provider::Anthropic,
            &headers(&[
                ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "1970-01-01T00:00:01Z"),
                ("anthropic-ratelimit-input-tokens-limit", "40000"),
                ("anthropic-ratelimit-input-tokens-remaining", "30000"),
                ("anthropic-ratelimit-output-tokens-limit", "8000"),
                ("anthropic-ratelimit-output-tokens-remaining", "1000"),
                ("anthropic-ratelimit-output-tokens-reset", "1970-01-01T00:00:02Z"),
            ]),
        );
        assert_eq!(headroom.requests, Window { limit: Some(50), remaining: Some(49), reset_ms: Some(1_000) });
        assert_eq!(
            headroom.tokens,
            Window { limit: Some(8_000), remaining: Some(1_000), reset_ms: Some(2_000) }
        );
    }

    #[test]
    fn openai_counts_from_now() {
        let headroom = read(
            Provider::OpenAi,
            &headers(&[
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-tokens", "6m0s"),
                ("x-ratelimit-remaining-requests", "nonsense"),
            ]),
        );
        assert_eq!(headroom.tokens.reset_ms, Some(360_000));
        assert_eq!(headroom.requests, Window::default());
    }

    #[test]
    fn silence_is_no_limit() {
        for provider in [Provider::Anthropic, Provider::OpenAi, Provider::Bedrock] {
            assert_eq!(read(provider, &HeaderMap::new()), Headroom::default());
        }
    }
}
