//! Which table.

use super::Environment;

/// `NIGHTSHIFT_LEDGER_…`, the same for each function and the command.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// The name of its table.
    pub table: String,
}

impl LedgerSettings {
    /// Reads them.
    pub fn read(environment: &mut Environment<'_>) -> Self {
        Self { table: environment.required("NIGHTSHIFT_LEDGER_TABLE", "set the name of the ledger's table") }
    }
}
