//! Times as people write them, and as they are shown: UTC, as everything else that is logged.

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp, ZonedDateTime};

/// Milliseconds since 1970 of what a person wrote.
///
/// `2h` or `3d 4h` is that long ago; `today` and `yesterday` begin at midnight; a date or a time without an offset is
/// meant in this machine's time zone (`TZ`), as is midnight.
///
/// # Errors
/// What can be written, as a sentence.
pub fn parse(text: &str, now: &ZonedDateTime) -> Result<u64, String> {
    let meant = text.trim();
    let time = match meant {
        "now" => Some(now.timestamp()),
        "today" => midnight(now.date(), now),
        "yesterday" => now.date().yesterday().ok().and_then(|date| midnight(date, now)),
        _ => meant
            .parse::<Timestamp>()
            .ok()
            .or_else(|| {
                meant.parse::<Date>().ok().filter(|_| meant.len() == 10).and_then(|date| midnight(date, now))
            })
            .or_else(|| {
                meant
                    .parse::<DateTime>()
                    .ok()
                    .and_then(|at| Some(at.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp()))
            })
            .or_else(|| ago(meant, now)),
    };
    time.and_then(|time| u64::try_from(time.as_millisecond()).ok()).ok_or_else(|| {
        format!("{text:?} is no time: write 2h or 3d (ago), today, yesterday, 2026-11-26, or 2026-11-26T22:00:00Z.")
    })
}

/// For clap: a time, with the clock of this machine.
pub fn argument(text: &str) -> Result<u64, String> {
    parse(text, &ZonedDateTime::now())
}

/// Milliseconds since 1970, by the clock of this machine.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
}

/// `2026-11-26T22:00:00Z`; what no calendar has is shown as its number.
pub fn shown(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).ok().and_then(|s| Timestamp::from_second(s).ok());
    seconds.map_or_else(|| ms.to_string(), |time| time.to_string())
}

/// How long, in at most two units: `45 s`, `3 min`, `2 h 5 min`, `4 d 3 h`.
pub fn length(ms: u64) -> String {
    let seconds = ms / 1_000;
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn midnight(date: Date, now: &ZonedDateTime) -> Option<Timestamp> {
    Some(date.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp())
}

fn ago(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let span: Span = text.parse().ok()?;
    // `-2h` and `2h ago` are the past already.
    let back = if span.is_negative() { span } else { span.negate() };
    (span.is_zero() || back.is_negative())
        .then(|| now.checked_add(back).ok())
        .flatten()
        .map(|at| at.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_times_in_many_ways() {
        let now: ZonedDateTime = "2026-11-26T22:30:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("now", "2026-11-26T21:30:00Z"),
            ("2h", "2026-11-26T19:30:00Z"),
            ("2h ago", "2026-11-26T19:30:00Z"),
            ("90m", "2026-11-26T20:00:00Z"),
            ("1h 30m", "2026-11-26T20:00:00Z"),
            ("3d", "2026-11-23T21:30:00Z"),
            ("2 weeks", "2026-11-12T21:30:00Z"),
            ("today", "2026-11-25T23:00:00Z"),
            ("yesterday", "2026-11-24T23:00:00Z"),
            ("2026-11-01", "2026-10-31T23:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-11-26T10:00", "2026-11-26T09:00:00Z"),
            ("2026-11-26T10:00:00Z", "2026-11-26T10:00:00Z"),
            ("2026-11-26T10:00:00+05:30", "2026-11-26T04:30:00Z"),
            (" 1h ", "2026-11-26T20:30:00Z"),
        ] {
            assert_eq!(parse(text, &now).map(shown), Ok(expected.to_owned()), "{text}");
        }
        for text in ["", "soon", "26.11.2026", "2026-13-01", "h", "1969-01-01", "5"] {
            let refused = parse(text, &now);
            assert!(refused.as_ref().is_err_and(|why| why.contains("write 2h")), "{text}: {refused:?}");
        }
    }

    #[test]
    fn lengths_have_at_most_two_units() {
        for (ms, expected) in [
            (999, "0 s"),
            (59_000, "59 s"),
            (61_000, "1 min"),
            (3_600_000, "1 h"),
            (7_500_000, "2 h 5 min"),
            (356_400_000, "4 d 3 h"),
        ] {
            assert_eq!(length(ms), expected);
        }
    }
}
