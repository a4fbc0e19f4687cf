//! The wall clock, the system's randomness and standard output: the only places where the worker touches them.

use std::io::Write;
use std::time::UNIX_EPOCH;

use nightshift_ports::{Clock, Entropy};

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the worker reads the wall clock")]
    fn now_ms(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The system's randomness.
///
/// Read from the kernel each time: a generator in this process would be copied with a snapshot of it, and two
/// environments would then draw the same claim tokens.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fraction(&self) -> f64 {
        // The 53 bits that a double holds exactly.
        let bits = u64::from_ne_bytes(random_bytes()) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    fn token(&self) -> String {
        nightshift_core::input_hash::hex(&random_bytes::<16>())
    }
}

#[expect(clippy::panic, reason = "a claim token that can be guessed or repeats would open the fence")]
#[expect(clippy::disallowed_methods, reason = "the one place where the worker draws randomness")]
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => bytes,
        Err(error) => panic!("the system has no randomness: {error}"),
    }
}

/// Writes one line to standard output, which Lambda carries to the log. Where that is gone there is nobody to tell.
pub fn log_line(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_fill_their_range_and_tokens_differ() {
        let fractions: Vec<_> = (0..1_000).map(|_| OsEntropy.fraction()).collect();
        assert!(fractions.iter().all(|f| (0.0..1.0).contains(f)));
        assert!(fractions.iter().any(|f| *f < 0.1) && fractions.iter().any(|f| *f > 0.9));
        let tokens: std::collections::BTreeSet<_> = (0..1_000).map(|_| OsEntropy.token()).collect();
        assert_eq!(tokens.len(), 1_000);
        assert!(tokens.iter().all(|t| t.len() == 32 && t.bytes().all(|b| b.is_ascii_hexdigit())));
    }

    #[test]
    fn the_clock_counts_milliseconds_since_1970() {
        let now_ms = SystemClock.now_ms();
        assert!((1_700_000_000_000..4_000_000_000_000).contains(&now_ms), "{now_ms}");
    }
}
