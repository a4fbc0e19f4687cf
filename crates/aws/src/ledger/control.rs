//! The control record: what the operator, the workers and the sentinel tell all workers.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use nightshift_core::control::{Control, Stored};
use nightshift_core::spread::index_keys;
use nightshift_ports::{ControlAnswer, ControlRecord, PortError};

use super::item::{Item, Reader, Unreadable, number, text};
use super::table::{CONTROL_ID, ID};
use super::write::{self, UPDATE};
use super::{Change, DynamoLedger, SERVICE, unreadable};
use crate::error::port_error;

const GET: &str = "GetItem";

/// Over how many keys each word of the sparse index is spread; absent: one.
const INDEX_KEYS: &str = "index_keys";

#[async_trait]
impl ControlRecord for DynamoLedger {
    /// Eventually consistent: half the price.
    async fn control(&self) -> Result<Control, PortError> {
        read(self, false).await
    }

    async fn control_now(&self) -> Result<Control, PortError> {
        read(self, true).await
    }

    async fn put_control(&self, next: &Control, over: &Control) -> Result<ControlAnswer, PortError> {
        let refused = match write::update(self, CONTROL_ID, Change::of_control(next, over)).await {
            Ok(()) => return Ok(ControlAnswer::Written),
            Err(error) => write::refused_by(error)?,
        };
        let standing = control(&refused.unwrap_or_default()).map_err(|e| unreadable(UPDATE, &e))?;
        Ok(ControlAnswer::Refused(Box::new(standing)))
    }
}

impl DynamoLedger {
    /// Spreads each word of the sparse index over the keys that so many environments need, for all who read and write it from
    /// now on. It is never spread over fewer again: what stands under a key would be seen no more.
    ///
    /// # Errors
    /// When DynamoDB does not carry it out: the index stays as it is.
    pub async fn spread_index(&self, environments: u32) -> Result<(), PortError> {
        let keys = index_keys(environments);
        if self.index_keys().await? >= keys {
            return Ok(());
        }
        match write::update(self, CONTROL_ID, Change::of_index_keys(keys)).await {
            Ok(()) => {
                self.index_keys.store(keys, Ordering::Relaxed);
                Ok(())
            }
            // Somebody spread it further.
            Err(error) => write::refused_by(error).map(drop),
        }
    }

    /// Over how many keys each word of the sparse index is spread.
    pub(super) async fn index_keys(&self) -> Result<u32, PortError> {
        if self.known_index_keys() == 0 {
            read(self, true).await?;
        }
        Ok(self.known_index_keys().max(1))
    }

    /// The same, without asking; 0: nobody has asked yet.
    pub(super) fn known_index_keys(&self) -> u32 {
        self.index_keys.load(Ordering::Relaxed)
    }
}

async fn read(ledger: &DynamoLedger, consistent: bool) -> Result<Control, PortError> {
    let get = ledger.client.get_item().table_name(&ledger.table).key(ID, text(CONTROL_ID));
    let item = get.consistent_read(consistent).send().await.map_err(|e| port_error(SERVICE, GET, &e))?.item;
    let item = item.unwrap_or_default();
    let keys = Reader(&item).optional(INDEX_KEYS, Reader::number::<u32>).map_err(|e| unreadable(GET, &e))?;
    // An old read that comes late must not take keys away.
    ledger.index_keys.fetch_max(keys.unwrap_or(1), Ordering::Relaxed);
    control(&item).map_err(|e| unreadable(GET, &e))
}

fn control(item: &Item) -> Result<Control, Unreadable> {
    let read = Reader(item);
    Ok(Control::read(Stored {
        version: read.optional("version", Reader::number)?,
        entries: read.optional("entries", Reader::text)?,
        paused_reason: read.optional("paused_reason", Reader::text)?,
        paused_since_ms: read.optional("paused_since_ms", Reader::number)?,
        paused_told: read.optional("paused_told", Reader::text)?,
        opened_at_ms: read.optional("opened_at_ms", Reader::number)?,
        waited_since_ms: read.optional("waited_since_ms", Reader::number)?,
    }))
}

impl Change {
    pub(super) fn of_index_keys(keys: u32) -> Self {
        Self {
            update: "SET #keys = :keys".to_owned(),
            condition: "attribute_not_exists(#keys) OR #keys < :keys".to_owned(),
            names: super::map([("#keys", INDEX_KEYS.to_owned())]),
            values: super::map([(":keys", number(keys))]),
        }
    }

    /// Only over what was read: the entries by their version, and the old form, whose writers know no version, by its words.
    pub(super) fn of_control(next: &Control, over: &Control) -> Self {
        let stored = next.stored();
        let mut change = Self {
            update: String::new(),
            condition: String::new(),
            names: super::map([("#version", "version".to_owned()), ("#reason", "paused_reason".to_owned())]),
            values: Item::new(),
        };
        let attributes: [(&str, Option<AttributeValue>); 7] = [
            ("version", stored.version.map(number)),
            ("entries", stored.entries.as_deref().map(text)),
            ("paused_reason", stored.paused_reason.as_deref().map(text)),
            ("paused_since_ms", stored.paused_since_ms.map(number)),
            ("paused_told", stored.paused_told.as_deref().map(text)),
            ("opened_at_ms", stored.opened_at_ms.map(number)),
            ("waited_since_ms", stored.waited_since_ms.map(number)),
        ];
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for (name, value) in attributes {
            match value {
                Some(value) => {
                    set.push(format!("{name} = :{name}"));
                    change.values.insert(format!(":{name}"), value);
                }
                None => remove.push(name),
            }
        }
        change.update = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            change.update = format!("{} REMOVE {}", change.update, remove.join(", "));
        }
        let mut is = |name: &str, value: Option<AttributeValue>| match value {
            None => format!("attribute_not_exists(#{name})"),
            Some(value) => {
                change.values.insert(format!(":old_{name}"), value);
                format!("#{name} = :old_{name}")
            }
        };
        let version = is("version", (over.version > 0).then(|| number(over.version)));
        let reason = is("reason", over.told().map(text));
        change.condition = format!("{version} AND {reason}");
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::map;
    use nightshift_core::control::Cause;

    #[test]
    fn a_pause_that_somebody_typed_in_needs_a_reason_and_nothing_else() {
        for (item, paused) in [
            (map([]), false),
            (map([("paused_since_ms", number(5))]), false),
            (map([("paused_reason", text("bad deploy")), ("paused_since_ms", number(5))]), true),
            (map([("paused_reason", text("by hand"))]), true),
        ] {
            assert_eq!(control(&item).unwrap().entries.contains_key(&Cause::Operator), paused, "{item:?}");
        }
        let mistyped = control(&map([("paused_reason", number(1))])).unwrap_err();
        assert_eq!(mistyped.to_string(), "the attribute paused_reason is not a string");
    }
}
