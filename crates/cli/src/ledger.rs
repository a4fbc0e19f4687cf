//! The ledger, as the commands read it.

use nightshift_aws::DynamoLedger;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::{Entry, Lookup, Order, Position, Selection, TableSize};
use nightshift_core::record::Record;
use nightshift_ports::LedgerReader;

use crate::Context;
use crate::error::{self, Failure};
use crate::render::{Row, say};
use crate::stack::Stack;

/// Records that are read at a time: of 400 KB at most each, some 10 MB.
const RECORDS_AT_A_TIME: usize = 25;
/// Entries of the index that are read at a time.
const ENTRIES_AT_A_TIME: u32 = 1_000;

pub fn of(stack: &Stack) -> DynamoLedger {
    DynamoLedger::new(&stack.sdk, &stack.ledger_table)
}

/// Goes through all entries of a selection, a page at a time.
pub struct Entries<'a> {
    reader: &'a dyn LedgerReader,
    selection: Selection,
    order: Order,
    /// `None` once there is no further page.
    next: Option<Option<Position>>,
}

impl<'a> Entries<'a> {
    /// From the beginning.
    pub fn new(reader: &'a dyn LedgerReader, selection: Selection, order: Order) -> Self {
        Self { reader, selection, order, next: Some(None) }
    }

    /// The next page; `None`: there are no more.
    pub async fn page(&mut self) -> Result<Option<Vec<Entry>>, Failure> {
        let Some(after) = self.next.take() else { return Ok(None) };
        let page = self.reader.list(&self.selection, self.order, after.as_ref(), ENTRIES_AT_A_TIME).await;
        let page = page.map_err(|e| error::of_port(&e))?;
        self.next = page.next.map(Some);
        Ok(Some(page.entries))
    }

    /// Shows a row for each, `limit` at most; `narrower`: how else to see fewer.
    pub async fn show<R: Row + From<Entry>>(
        mut self,
        limit: u64,
        narrower: &str,
        context: &Context,
    ) -> Result<(), Failure> {
        let (mut rows, mut left) = (context.out.rows::<R>(), limit);
        while let Some(page) = self.page().await? {
            for entry in page {
                if left == 0 {
                    rows.end()?;
                    say(&format!("There are more than {limit}: add --limit, or {narrower}."));
                    return Ok(());
                }
                left -= 1;
                rows.write(&entry.into())?;
            }
        }
        rows.end()
    }
}

/// The record of this key, which has to be there.
pub async fn record(reader: &dyn LedgerReader, stack: &Stack, key: &InputHash) -> Result<Record, Failure> {
    match reader.get(key).await.map_err(|e| error::of_port(&e))? {
        Lookup::Found(standing) => Ok(standing.record),
        Lookup::Absent => {
            Err(Failure::not_found(format!("There is no record {key} in {}.", stack.ledger_table)))
        }
        Lookup::Unreadable(why) => Err(unreadable(&why)),
    }
}

/// What a newer build wrote.
pub fn unreadable(why: &str) -> Failure {
    Failure::failed(format!("The record cannot be read by this build, so a newer one wrote it: {why}."))
}

/// Reads what stands under each key, a few at a time, and hands it on in order.
pub async fn read_each(
    reader: &dyn LedgerReader,
    keys: &[InputHash],
    mut each: impl FnMut(&InputHash, Lookup) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for keys in keys.chunks(RECORDS_AT_A_TIME) {
        let found = reader.get_many(keys).await.map_err(|e| error::of_port(&e))?;
        for (key, lookup) in keys.iter().zip(found) {
            each(key, lookup)?;
        }
    }
    Ok(())
}

/// Dollars for a million read units, on demand (README, "What it costs": "Pricing for On-Demand Capacity").
const USD_PER_MILLION_READ_UNITS: f64 = 0.125;

/// What looking through the whole table costs, for whoever is about to.
pub fn scan_cost(size: &TableSize) -> String {
    let units = size.scan_read_units();
    format!(
        "Looks through the whole ledger: {} items, {} MB, about {units} read units or {:.4} USD.",
        size.items,
        size.bytes / 1_000_000,
        units as f64 / 1e6 * USD_PER_MILLION_READ_UNITS
    )
}

/// A key as somebody typed it.
pub fn key(text: &str) -> Result<InputHash, String> {
    let text = text.trim().to_lowercase();
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(InputHash::from_stored(text))
    } else {
        Err("a key is the 64 hexadecimal characters of an input hash; jobs show --reference TEXT finds it by a reference"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_64_hexadecimal_characters() {
        assert_eq!(key(&"AB".repeat(32)).as_ref().map(InputHash::as_str), Ok("ab".repeat(32).as_str()));
        assert!(key(&"zz".repeat(32)).is_err());
        assert!(key("ticket-4711").is_err_and(|said| said.contains("jobs show --reference")));
    }
}
