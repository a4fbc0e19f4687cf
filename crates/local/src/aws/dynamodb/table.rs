//! A table: items under their keys, and what an index sees of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::value::{Item, Value, item_bytes};

/// The largest item: names and values (Developer Guide, "Quotas": 400 KB).
pub(super) const ITEM_BYTES_MAX: usize = 400 * 1024;

/// The value of a key attribute, ordered as DynamoDB orders sort keys.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeyValue(pub(super) Value);

impl Eq for KeyValue {}

impl PartialOrd for KeyValue {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyValue {
    fn cmp(&self, other: &Self) -> Ordering {
        // All keys of a table have the declared type; the names only make the order total.
        self.0.compare(&other.0).unwrap_or_else(|| self.0.type_name().cmp(other.0.type_name()))
    }
}

/// The primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    partition: KeyValue,
    sort: Option<KeyValue>,
}

/// An attribute that keys are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyAttribute {
    pub(super) name: String,
    /// `S`, `N` or `B`.
    pub(super) kind: String,
}

/// The key of a table or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeySchema {
    pub(super) partition: KeyAttribute,
    pub(super) sort: Option<KeyAttribute>,
}

impl KeySchema {
    pub(super) fn attributes(&self) -> impl Iterator<Item = &KeyAttribute> {
        std::iter::once(&self.partition).chain(&self.sort)
    }
}

/// Which attributes an index holds besides keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum IndexProjection {
    All,
    KeysOnly,
    Include(Vec<String>),
}

/// A global secondary index: it has the items that have its key attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) keys: KeySchema,
    pub(super) projection: IndexProjection,
    /// By partition, in the order of the sort key and then of the table's key.
    positions: BTreeMap<KeyValue, BTreeSet<Position>>,
}

/// Where a row stands under a key of an index, comparable with others.
pub(super) type Position = (Option<KeyValue>, Key);

/// Items with their keys, in an order.
pub(super) type Rows<'table> = Box<dyn DoubleEndedIterator<Item = (&'table Key, &'table Item)> + 'table>;

impl Index {
    pub(super) fn new(keys: KeySchema, projection: IndexProjection) -> Self {
        Index { keys, projection, positions: BTreeMap::new() }
    }

    fn holds(&self, item: &Item) -> bool {
        self.keys.attributes().all(|attribute| item.contains_key(&attribute.name))
    }

    fn partition_of(&self, item: &Item) -> Option<KeyValue> {
        self.holds(item).then(|| item.get(&self.keys.partition.name).cloned().map(KeyValue)).flatten()
    }

    fn position(&self, key: Key, item: &Item) -> Position {
        let sort = self.keys.sort.as_ref().and_then(|sort| item.get(&sort.name));
        (sort.cloned().map(KeyValue), key)
    }

    fn add(&mut self, key: &Key, item: &Item) {
        if let Some(partition) = self.partition_of(item) {
            let position = self.position(key.clone(), item);
            self.positions.entry(partition).or_default().insert(position);
        }
    }

    fn take_out(&mut self, key: &Key, item: &Item) {
        let Some(partition) = self.partition_of(item) else { return };
        let position = self.position(key.clone(), item);
        if let Some(positions) = self.positions.get_mut(&partition) {
            positions.remove(&position);
        }
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) keys: KeySchema,
    pub(super) indexes: BTreeMap<String, Index>,
    pub(super) expiry_attribute: Option<String>,
    pub(super) created_s: i64,
    items: BTreeMap<Key, Item>,
}

impl Table {
    pub(super) fn new(keys: KeySchema, indexes: BTreeMap<String, Index>, created_s: i64) -> Self {
        Table { keys, indexes, expiry_attribute: None, created_s, items: BTreeMap::new() }
    }

    /// The key of an item that may have more attributes.
    pub(super) fn key_of(&self, item: &Item) -> Result<Key, String> {
        let value = |attribute: &KeyAttribute| {
            let value = item.get(&attribute.name).ok_or_else(|| {
                format!(
                    "One or more parameter values were invalid: Missing the key {} in the item",
                    attribute.name
                )
            })?;
            check_key_value(attribute, value)?;
            Ok::<_, String>(KeyValue(value.clone()))
        };
        Ok(Key {
            partition: value(&self.keys.partition)?,
            sort: self.keys.sort.as_ref().map(value).transpose()?,
        })
    }

    /// The key of a request that may have nothing but key attributes.
    pub(super) fn exact_key(&self, key: &Item) -> Result<Key, String> {
        if key.len() != self.keys.attributes().count() {
            return Err("The provided key element does not match the schema".to_owned());
        }
        self.key_of(key).map_err(|_| "The provided key element does not match the schema".to_owned())
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Item> {
        self.items.get(key)
    }

    /// Refuses an item that DynamoDB would not store: too large, or with a wrong type where an index has its key.
    pub(super) fn check(&self, item: &Item) -> Result<(), String> {
        if item_bytes(item) > ITEM_BYTES_MAX {
            return Err("Item size has exceeded the maximum allowed size".to_owned());
        }
        for index in self.indexes.values() {
            for attribute in index.keys.attributes() {
                if let Some(value) = item.get(&attribute.name) {
                    check_key_value(attribute, value)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, key: Key, item: Item) {
        self.remove(&key);
        for index in self.indexes.values_mut() {
            index.add(&key, &item);
        }
        self.items.insert(key, item);
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(old) = self.items.remove(key) else { return };
        for index in self.indexes.values_mut() {
            index.take_out(key, &old);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.items.values()
    }

    /// All items with their keys, in the order of the keys.
    pub(super) fn rows(&self) -> Rows<'_> {
        Box::new(self.items.iter())
    }

    /// Those from this key on, whether it stands there or not.
    pub(super) fn rows_from(&self, start: &Key) -> Rows<'_> {
        Box::new(self.items.range(start..))
    }

    /// The items of a partition in the order of the sort key, for the table itself.
    pub(super) fn partition(&self, value: &Value) -> Rows<'_> {
        let first = Key { partition: KeyValue(value.clone()), sort: None };
        let here = self.items.range(&first..).take_while(|(key, _)| key.partition.0 == *value);
        Box::new(here.collect::<Vec<_>>().into_iter())
    }

    /// The items that an index holds, in the order of its sort key and then of the table's key.
    pub(super) fn indexed<'table>(
        &'table self,
        index: &'table Index,
        partition: Option<&Value>,
    ) -> Rows<'table> {
        let row = |(_, key): &'table Position| self.items.get_key_value(key);
        match partition {
            Some(value) => {
                let here = index.positions.get(&KeyValue(value.clone()));
                Box::new(here.into_iter().flatten().filter_map(row))
            }
            None => {
                let all: BTreeSet<_> = index.positions.values().flatten().collect();
                Box::new(all.into_iter().filter_map(row))
            }
        }
    }

    /// Where a row stands in an index, comparable with others.
    pub(super) fn index_position(&self, index: &Index, item: &Item) -> Result<Position, String> {
        Ok(index.position(self.key_of(item)?, item))
    }

    /// What an index shows of an item.
    pub(super) fn project(&self, index: &Index, item: &Item) -> Item {
        let included: &[String] = match &index.projection {
            IndexProjection::All => return item.clone(),
            IndexProjection::KeysOnly => &[],
            IndexProjection::Include(names) => names,
        };
        let keys = self.keys.attributes().chain(index.keys.attributes()).map(|attribute| &attribute.name);
        keys.chain(included)
            .filter_map(|name| item.get_key_value(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

fn check_key_value(attribute: &KeyAttribute, value: &Value) -> Result<(), String> {
    if value.type_name() != attribute.kind {
        return Err(format!(
            "One or more parameter values were invalid: Type mismatch for key {} expected: {} actual: {}",
            attribute.name,
            attribute.kind,
            value.type_name()
        ));
    }
    let empty = match value {
        Value::S(text) => text.is_empty(),
        Value::B(bytes) => bytes.is_empty(),
        _ => false,
    };
    if empty {
        return Err(format!(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty value. Key: {}",
            attribute.name
        ));
    }
    Ok(())
}
