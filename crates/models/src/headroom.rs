//! What a provider's headers say is left of its limits.

use nightshift_core::model::{Headroom, Reset, Window};
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
                reset: text(headers, &format!("anthropic-ratelimit-{what}-reset"))
                    .and_then(rfc3339_ms)
                    .map(Reset::At),
            };
            let tokens = [window("tokens"), window("input-tokens"), window("output-tokens")];
            Headroom { requests: window("requests"), tokens: tightest(&tokens) }
        }
        Provider::OpenAi => {
            let window = |what: &str| Window {
                limit: number(headers, &format!("x-ratelimit-limit-{what}")),
                remaining: number(headers, &format!("x-ratelimit-remaining-{what}")),
                reset: text(headers, &format!("x-ratelimit-reset-{what}"))
                    .and_then(go_duration_ms)
                    .map(Reset::In),
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

/// A time as RFC 3339 writes it, in milliseconds since 1970.
fn rfc3339_ms(text: &str) -> Option<u64> {
    let field = |from: usize, to: usize| {
        text.get(from..to).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?.parse::<i64>().ok()
    };
    let mark = |at: usize, marks: &[u8]| text.as_bytes().get(at).is_some_and(|b| marks.contains(b));
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let marked = mark(4, b"-") && mark(7, b"-") && mark(10, b"Tt ") && mark(13, b":") && mark(16, b":");
    if !marked
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let (digits, tail) = fraction.split_at_checked(digits)?;
        millis = format!("{digits:0<3}").get(..3)?.parse::<i64>().ok()?;
        rest = tail;
    }
    let offset_minutes = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = if rest.starts_with('-') { -1 } else { rest.starts_with('+').then_some(1)? };
            let hours: i64 = rest.get(1..3)?.parse().ok()?;
            let minutes: i64 = rest.get(4..6)?.parse().ok()?;
            if rest.len() != 6 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    let seconds =
        days_since_1970(year, month, day) * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
    u64::try_from(seconds * 1_000 + millis).ok()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; the year is taken to begin in March, so that the leap day
/// is its last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
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
    fn times_as_rfc_3339_writes_them() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199_000)),
            ("2026-11-09T10:20:30.250Z", Some(1_794_219_630_250)),
            ("2026-11-09T11:20:30+01:00", Some(1_794_219_630_000)),
            ("2026-11-09T05:20:30-05:00", Some(1_794_219_630_000)),
            ("2026-11-09 10:20:30z", Some(1_794_219_630_000)),
            ("2026-11-09", None),
            ("2026-13-09T10:20:30Z", None),
            ("2026-11-09T10:20:30", None),
            ("2026-11-09T10:20:30+01:00x", None),
            ("", None),
            ("1960-01-01T00:00:00Z", None),
        ] {
            assert_eq!(rfc3339_ms(text), ms, "{text:?}");
        }
    }

    #[test]
    fn anthropic_names_the_tightest_of_its_token_limits() {
        let headroom = read(
            Provider::Anthropic,
            &headers(&[
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
        assert_eq!(
            headroom.requests,
            Window { limit: Some(50), remaining: Some(49), reset: Some(Reset::At(1_000)) }
        );
        assert_eq!(
            headroom.tokens,
            Window { limit: Some(8_000), remaining: Some(1_000), reset: Some(Reset::At(2_000)) }
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
        assert_eq!(headroom.tokens.reset, Some(Reset::In(360_000)));
        assert_eq!(headroom.requests, Window::default());
    }

    #[test]
    fn silence_is_no_limit() {
        for provider in [Provider::Anthropic, Provider::OpenAi, Provider::Bedrock] {
            assert_eq!(read(provider, &HeaderMap::new()), Headroom::default());
        }
    }
}
