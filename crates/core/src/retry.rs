//! How long to wait before trying again: full jitter between calls, equal jitter between deliveries,
//! and the provider's own word as a floor.

use crate::model::RetryAdvice;

/// A `retry-after` beyond this is not believed: SQS could not hold the job that long anyway.
pub const ADVISED_WAIT_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1_000;

/// Full jitter: uniform in 0 … min(`max_ms`, 2^`failures` × `base_ms`), with `fraction` uniform in [0, 1).
///
/// Source: "Exponential Backoff And Jitter", AWS Architecture Blog.
#[must_use]
pub fn full_jitter_ms(base_ms: u64, max_ms: u64, failures: u32, fraction: f64) -> u64 {
    scale(step_ms(base_ms, max_ms, failures), fraction)
}

/// Equal jitter: uniform in half … all of min(`max_ms`, 2^`returns` × `base_ms`).
/// A message that is handed back must stay away for a while, so its delay has a lower half that full jitter lacks.
#[must_use]
pub fn equal_jitter_ms(base_ms: u64, max_ms: u64, returns: u32, fraction: f64) -> u64 {
    let step = step_ms(base_ms, max_ms, returns);
    step / 2 + scale(step - step / 2, fraction)
}

fn step_ms(base_ms: u64, max_ms: u64, exponent: u32) -> u64 {
    base_ms.saturating_mul(1_u64.checked_shl(exponent).unwrap_or(u64::MAX)).min(max_ms)
}

fn scale(span_ms: u64, fraction: f64) -> u64 {
    // Both fit into the 53 bits of a double: spans are at most days.
    (span_ms as f64 * fraction.clamp(0.0, 1.0)).round() as u64
}

/// The wait that the provider asks for, in milliseconds from `now_ms`; `None` when it says nothing that can be read.
///
/// `retry-after-ms` wins over `retry-after`, which may be seconds or an HTTP date in any form of RFC 9110, section 5.6.7.
#[must_use]
pub fn advised_wait_ms(advice: &RetryAdvice, now_ms: u64) -> Option<u64> {
    let milliseconds = advice.retry_after_ms.as_deref().and_then(decimal).map(|ms| ms.ceil());
    let seconds = || advice.retry_after.as_deref().and_then(decimal).map(|s| (s * 1_000.0).ceil());
    let wait = match milliseconds.or_else(seconds) {
        Some(wait) => wait as u64,
        None => {
            let date = httpdate::parse_http_date(advice.retry_after.as_deref()?.trim()).ok()?;
            let date_ms = date.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
            u64::try_from(date_ms).ok()?.saturating_sub(now_ms)
        }
    };
    (wait <= ADVISED_WAIT_MS_MAX).then_some(wait)
}

/// Plain decimals only: a sign, an exponent, `inf` or a list is not a number of seconds.
fn decimal(text: &str) -> Option<f64> {
    let text = text.trim();
    let plain =
        text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && text.bytes().any(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        for (failures, most) in [
            (0, 1_000),
            (1, 2_000),
            (2, 4_000),
            (3, 8_000),
            (4, 16_000),
            (5, 30_000),
            (63, 30_000),
            (64, 30_000),
            (1_000, 30_000),
        ] {
            assert_eq!(full_jitter_ms(1_000, 30_000, failures, 1.0), most);
            assert_eq!(full_jitter_ms(1_000, 30_000, failures, 0.0), 0);
        }
    }

    proptest! {
        #[test]
        fn jitter_stays_in_its_bounds(base in 1_u64..10_000, max in 1_u64..1_000_000, n in 0_u32..80, fraction in 0.0_f64..1.0) {
            let step = full_jitter_ms(base, max, n, 1.0);
            prop_assert!(step <= max);
            prop_assert!(full_jitter_ms(base, max, n, fraction) <= step);
            let equal = equal_jitter_ms(base, max, n, fraction);
            prop_assert!(step / 2 <= equal && equal <= step);
        }
    }

    #[test]
    fn a_wait_is_read_in_every_form() {
        let now_ms = 1_696_004_797_000;
        for (retry_after_ms, retry_after, expected) in [
            (None, None, None),
            (None, Some("20"), Some(20_000)),
            (None, Some(" 20 "), Some(20_000)),
            (None, Some("1.5"), Some(1_500)),
            (None, Some("0"), Some(0)),
            (None, Some("-10"), None),
            (None, Some("+5"), None),
            (None, Some("1e3"), None),
            (None, Some("inf"), None),
            (None, Some("20, 30"), None),
            (None, Some(""), None),
            (None, Some("99999999999999999999999"), None),
            (None, Some("86400"), Some(86_400_000)),
            (None, Some("604800"), Some(604_800_000)),
            (None, Some("604801"), None),
            (None, Some("Fri, 29 Sep 2023 16:26:57 GMT"), Some(20_000)),
            (None, Some("Friday, 29-Sep-23 16:26:57 GMT"), Some(20_000)),
            (None, Some("Fri Sep 29 16:26:57 2023"), Some(20_000)),
            (None, Some("Fri, 29 Sep 2023 16:26:27 GMT"), Some(0)),
            (None, Some("Zun, 29 Sep 2023 16:26:27 GMT"), None),
            (Some("1500"), None, Some(1_500)),
            (Some("1500.5"), Some("20"), Some(1_501)),
            (Some("abc"), Some("20"), Some(20_000)),
            (Some("-1"), None, None),
        ] {
            let advice = RetryAdvice {
                retry_after_ms: retry_after_ms.map(str::to_owned),
                retry_after: retry_after.map(str::to_owned),
                should_retry: None,
            };
            assert_eq!(advised_wait_ms(&advice, now_ms), expected, "{retry_after_ms:?} {retry_after:?}");
        }
    }
}
