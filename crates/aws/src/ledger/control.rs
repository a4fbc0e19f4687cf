//! The control record: what the operator, or the sentinel, tells all workers.

use nightshift_core::control::{Control, Pause};
use nightshift_ports::PortError;

use super::item::{Item, Reader, Unreadable, text};
use super::table::ID;
use super::{DynamoLedger, SERVICE, unreadable};
use crate::error::port_error;

const GET: &str = "GetItem";

/// The key of the control record.
const CONTROL_ID: &str = "control";

/// Eventually consistent: half the price, and workers hold the answer for seconds anyway.
pub(super) async fn read(ledger: &DynamoLedger) -> Result<Control, PortError> {
    let got = ledger.client.get_item().table_name(&ledger.table).key(ID, text(CONTROL_ID)).send().await;
    let item = got.map_err(|e| port_error(SERVICE, GET, &e))?.item.unwrap_or_default();
    control(&item).map_err(|e| unreadable(GET, &e))
}

fn control(item: &Item) -> Result<Control, Unreadable> {
    let read = Reader(item);
    let Some(reason) = read.optional("paused_reason", Reader::text)? else { return Ok(Control::default()) };
    // A pause that a person typed in by hand may lack its time; it is a pause all the same.
    let since_ms = read.optional("paused_since_ms", Reader::number)?.unwrap_or_default();
    Ok(Control { paused: Some(Pause { reason, since_ms }) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::item::number;
    use crate::ledger::map;

    #[test]
    fn a_pause_needs_a_reason_and_nothing_else() {
        let paused = |reason: &str, since_ms| {
            Ok(Control { paused: Some(Pause { reason: reason.to_owned(), since_ms }) })
        };
        for (item, expected) in [
            (map([]), Ok(Control::default())),
            (map([("paused_since_ms", number(5))]), Ok(Control::default())),
            (
                map([("paused_reason", text("bad deploy")), ("paused_since_ms", number(5))]),
                paused("bad deploy", 5),
            ),
            (map([("paused_reason", text("by hand"))]), paused("by hand", 0)),
        ] {
            assert_eq!(control(&item), expected);
        }
        let mistyped = control(&map([("paused_reason", number(1))])).unwrap_err();
        assert_eq!(mistyped.to_string(), "the attribute paused_reason is not a string");
    }
}
