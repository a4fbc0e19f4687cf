//! Items of the ledger that are one JSON document under a version: the redrives and their directory.

use async_trait::async_trait;

use crate::PortError;

/// A text under a key, changed by whoever names the version that it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// With the kind's prefix, such as `redrive#`.
    pub key: String,
    /// Grows with every write.
    pub version: u64,
    /// The document; whoever reads it knows what it holds.
    pub json: String,
    /// When it counts as gone, in seconds since 1970, as the table keeps it: what was written is read as it was. Never, where
    /// there is none.
    pub expires_at_s: Option<u64>,
}

/// The answer to a write of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentAnswer {
    /// It took effect.
    Written,
    /// Another version stands, or none: read by the refused write itself. It may be the write's own, whose reply was lost.
    Refused(Option<Document>),
}

/// Where documents are kept.
#[async_trait]
pub trait Documents: Send + Sync {
    /// Reads one, strongly consistently.
    async fn read(&self, key: &str) -> Result<Option<Document>, PortError>;
    /// Writes one, only over the version `expect`; `None`: only where nothing stands.
    async fn write(&self, document: &Document, expect: Option<u64>) -> Result<DocumentAnswer, PortError>;
}
