//! Your tasks. Nightshift ships this crate once and never changes it again, so that no upgrade meets your work.

use nightshift_tasks::Registry;

/// The tasks of this build: those that Nightshift brings along, and yours.
#[must_use]
pub fn registry() -> Registry {
    nightshift_tasks::registry()
}
