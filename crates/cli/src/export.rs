//! What all exports share: where the rows go, and how it ends.

use std::path::{Path, PathBuf};

use crate::Context;
use crate::error::Failure;
use crate::files;
use crate::render::{Row, Rows, say};
use crate::text::{self, counted};

/// What came of it.
pub struct Written {
    /// Rows.
    pub exported: u64,
    /// Records that no build of this release can read.
    pub unreadable: u64,
}

/// Rows for a new file that only its owner can read, or for standard output.
pub fn begin<R: Row>(to: Option<&PathBuf>, context: &Context) -> Result<Rows<R>, Failure> {
    let Some(path) = to else { return Ok(context.out.streamed()) };
    let file = files::create_private(path)?;
    context.interrupt.leaves(incomplete(path));
    Ok(context.out.rows_into(file, path))
}

/// Ends it; `what` is one row.
pub fn end<R: Row>(
    rows: Rows<R>,
    written: Result<Written, Failure>,
    to: Option<&PathBuf>,
    what: &str,
) -> Result<(), Failure> {
    let ended = written.and_then(|written| rows.end().map(|()| written));
    let Written { exported, unreadable } = ended.map_err(|failure| match to {
        Some(path) => failure.after(&incomplete(path)),
        None => failure,
    })?;
    say(&format!("{} exported.", counted(exported, what)));
    match unreadable {
        0 => Ok(()),
        n => Err(Failure::no(format!(
            "{n} records were left out, because a newer release wrote them: export with its build."
        ))),
    }
}

fn incomplete(path: &Path) -> String {
    format!("{} is incomplete, so remove it first", text::shown(&path.display().to_string()))
}
