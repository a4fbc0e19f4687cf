//! The one place in this crate that reads the machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch.
///
/// The stand-ins hand out timestamps (`SentTimestamp`, deadlines) to other processes, so a clock that a test can pause would not do; everything that decides by time takes it as an argument.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
