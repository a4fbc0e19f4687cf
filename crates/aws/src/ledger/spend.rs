//! A day's spend: an item for the day and one for each of its shards, changed by plain increments, which do not get in each
//! other's way as transactions do.

use aws_sdk_dynamodb::Config;
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction};
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use nightshift_core::spend::{Shards, SpendAnswer, SpendChange, SpendKey, SpendKind, UtcDay};
use nightshift_ports::{PortError, PortErrorKind};

use super::item::{Item, Reader, Unreadable, number, text};
use super::table::{EXPIRES_AT, ID};
use super::write::{UPDATE, refused_by, request};
use super::{Change, DynamoLedger, SERVICE, unreadable};
use crate::error::{port_error, service_kind};

const GET: &str = "GetItem";
/// What a day's own item has given away or counts as spent.
pub(super) const COMMITTED: &str = "committed_micro_usd";
/// Which shards have taken money from the day.
const SHARDS: &str = "shards";
/// What a shard holds.
pub(super) const LEFT: &str = "left_micro_usd";
/// When a call was last answered.
pub(super) const ANSWERED_AT_MS: &str = "answered_at_ms";
/// When a call was last over.
pub(super) const CALLED_AT_MS: &str = "called_at_ms";
/// When money was last taken.
pub(super) const RESERVED_AT_MS: &str = "reserved_at_ms";

/// How long a day's spend is kept: a quarter, for whoever compares it with a bill.
const SPEND_KEPT_S: u64 = 90 * 24 * 60 * 60;

/// Carries out a change.
pub(super) async fn change(ledger: &DynamoLedger, change: &SpendChange) -> Result<SpendAnswer, PortError> {
    if let SpendKind::Check { cap_micro_usd } = change.kind {
        return check(ledger, &spend_id(change.day, change.key), cap_micro_usd).await;
    }
    let update = request(ledger, &spend_id(change.day, change.key), Change::of_spend(change));
    let repeats = WhereRefused { only: change.kind.gives() };
    let sent = update.customize().config_override(Config::builder().retry_classifier(repeats)).send().await;
    match sent {
        Ok(_) => Ok(SpendAnswer::Counted),
        Err(error) => {
            let standing = refused_by(error)?.unwrap_or_default();
            let left = left_micro_usd(change.kind, &standing);
            let left_micro_usd = left.map_err(|e| unreadable(UPDATE, &e))?;
            Ok(SpendAnswer::NoRoom { left_micro_usd, shards: shards(&standing) })
        }
    }
}

/// Environments that all begin at once ask this, which is why it is a read: one key gives three times as many of them.
async fn check(ledger: &DynamoLedger, id: &str, cap_micro_usd: u64) -> Result<SpendAnswer, PortError> {
    let get = ledger.client.get_item().table_name(&ledger.table).key(ID, text(id)).consistent_read(true);
    let item = get.send().await.map_err(|e| port_error(SERVICE, GET, &e))?.item.unwrap_or_default();
    let taken_micro_usd = micro_usd(&item, COMMITTED).map_err(|e| unreadable(GET, &e))?;
    Ok(if taken_micro_usd > cap_micro_usd {
        SpendAnswer::NoRoom { left_micro_usd: 0, shards: Shards::default() }
    } else {
        SpendAnswer::Counted
    })
}

/// The key of one of a day's records.
pub(super) fn spend_id(day: UtcDay, key: SpendKey) -> String {
    match key {
        SpendKey::Day => format!("spend#{day}"),
        SpendKey::Shard(shard) => format!("spend#{day}#{shard}"),
    }
}

impl Change {
    pub(super) fn of_spend(change: &SpendChange) -> Self {
        let mut update = SpendUpdate::default();
        update.set("#expires_at", EXPIRES_AT, ":expires_at", spend_expires_at_s(change.day));
        if change.kind.takes().is_some() {
            update.set("#reserved_at", RESERVED_AT_MS, ":reserved_at", change.at_ms);
        }
        match change.kind {
            SpendKind::Reserve { micro_usd, cap_micro_usd, shard } => {
                update.reserve(micro_usd, cap_micro_usd, shard);
            }
            // Nothing is written.
            SpendKind::Check { .. } => {}
            SpendKind::Draw { micro_usd } => {
                update.add("#left", LEFT, ":taken", -i128::from(micro_usd));
                update.change.values.insert(":amount".to_owned(), number(micro_usd));
                update.change.condition = "#left >= :amount".to_owned();
            }
            SpendKind::Fund { micro_usd } => update.add("#left", LEFT, ":amount", micro_usd),
            SpendKind::Settle { reserved_micro_usd, spent_micro_usd, answered_at_ms, called_at_ms } => {
                update.settle(change.key, i128::from(reserved_micro_usd), i128::from(spent_micro_usd));
                if let Some(at_ms) = answered_at_ms {
                    update.set("#answered_at", ANSWERED_AT_MS, ":answered_at", at_ms);
                }
                if let Some(at_ms) = called_at_ms {
                    update.set("#called_at", CALLED_AT_MS, ":called_at", at_ms);
                }
            }
        }
        update.into_change()
    }
}

/// An update of one of a day's records: what it adds to, and what it sets.
#[derive(Default)]
struct SpendUpdate {
    adds: Vec<String>,
    sets: Vec<String>,
    change: Change,
}

impl SpendUpdate {
    fn named(&mut self, placeholder: &str, name: &str, value: &str, amount: AttributeValue) {
        self.change.names.insert(placeholder.to_owned(), name.to_owned());
        self.change.values.insert(value.to_owned(), amount);
    }

    fn add(&mut self, placeholder: &str, name: &str, value: &str, amount: impl ToString) {
        self.named(placeholder, name, value, number(amount));
        self.adds.push(format!("{placeholder} {value}"));
    }

    fn set(&mut self, placeholder: &str, name: &str, value: &str, amount: impl ToString) {
        self.named(placeholder, name, value, number(amount));
        self.sets.push(format!("{placeholder} = {value}"));
    }

    fn reserve(&mut self, micro_usd: u64, cap_micro_usd: u64, shard: Option<u32>) {
        if let Some(shard) = shard {
            self.named("#shards", SHARDS, ":shard", AttributeValue::Ns(vec![shard.to_string()]));
            self.adds.push("#shards :shard".to_owned());
        }
        let room = i128::from(cap_micro_usd) - i128::from(micro_usd);
        self.add("#reserved", "reserved_micro_usd", ":amount", micro_usd);
        self.add("#committed", COMMITTED, ":amount", micro_usd);
        self.change.values.insert(":room".to_owned(), number(room));
        // What exceeds the cap by itself is refused on a fresh day too: without the attribute nothing holds.
        let condition = if room < 0 {
            "#committed <= :room"
        } else {
            "attribute_not_exists(#committed) OR #committed <= :room"
        };
        self.change.condition = condition.to_owned();
    }

    fn settle(&mut self, key: SpendKey, reserved: i128, spent: i128) {
        self.add("#spent", "spent_micro_usd", ":spent", spent);
        match key {
            SpendKey::Day => {
                self.add("#reserved", "reserved_micro_usd", ":given_back", -reserved);
                self.add("#committed", COMMITTED, ":difference", spent - reserved);
            }
            SpendKey::Shard(_) => self.add("#left", LEFT, ":unspent", reserved - spent),
        }
    }

    fn into_change(mut self) -> Change {
        self.change.update = format!("ADD {} SET {}", self.adds.join(", "), self.sets.join(", "));
        self.change
    }
}

/// For how much there is room, beside what stands.
fn left_micro_usd(kind: SpendKind, standing: &Item) -> Result<u64, Unreadable> {
    match kind {
        SpendKind::Reserve { cap_micro_usd, .. } => {
            Ok(cap_micro_usd.saturating_sub(micro_usd(standing, COMMITTED)?))
        }
        SpendKind::Draw { .. } => micro_usd(standing, LEFT),
        SpendKind::Check { .. } | SpendKind::Fund { .. } | SpendKind::Settle { .. } => Ok(0),
    }
}

/// An amount of one of a day's records. Where a worker of before settled twice, it may be less than nothing.
pub(super) fn micro_usd(item: &Item, name: &'static str) -> Result<u64, Unreadable> {
    let amount = Reader(item).optional(name, Reader::number::<i128>)?.unwrap_or_default();
    Ok(u64::try_from(amount.max(0)).unwrap_or(u64::MAX))
}

/// The shards that have taken money from the day of this item.
pub(super) fn shards(item: &Item) -> Shards {
    let numbers = item.get(SHARDS).and_then(|value| value.as_ns().ok());
    Shards::of(numbers.into_iter().flatten().filter_map(|shard| shard.parse().ok()))
}

/// Tries again what DynamoDB says that it has not carried out: the SDK leaves out what met a transaction, as workers of before
/// make them.
#[derive(Debug)]
struct WhereRefused {
    /// And nothing else.
    only: bool,
}

impl ClassifyRetry for WhereRefused {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(|e| e.as_operation_error());
        let error = error.and_then(|e| e.downcast_ref::<UpdateItemError>());
        match error.and_then(ProvideErrorMetadata::code).map(|code| service_kind(code, 400)) {
            Some(PortErrorKind::Throttled) => RetryAction::throttling_error(),
            _ if self.only => RetryAction::RetryForbidden,
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "where it was refused"
    }
}

/// Seconds since 1970 at the day's midnight and `SPEND_KEPT_S` more.
fn spend_expires_at_s(day: UtcDay) -> u64 {
    day.begins_ms() / 1_000 + SPEND_KEPT_S
}

#[cfg(test)]
mod tests {
    use super::super::map;
    use super::*;

    const DAY_MS: u64 = 1_795_478_400_000;

    fn change(key: SpendKey, kind: SpendKind) -> Change {
        Change::of_spend(&SpendChange { day: UtcDay::of(DAY_MS), key, kind, at_ms: DAY_MS })
    }

    #[test]
    fn spend_never_asks_for_what_the_cap_cannot_hold() {
        let reserve = |micro_usd, cap_micro_usd| {
            change(SpendKey::Day, SpendKind::Reserve { micro_usd, cap_micro_usd, shard: None })
        };
        assert_eq!(reserve(11, 10).condition, "#committed <= :room");
        assert_eq!(reserve(10, 10).values[":room"], number(0));
        let settle = SpendKind::Settle {
            reserved_micro_usd: u64::MAX,
            spent_micro_usd: 0,
            answered_at_ms: None,
            called_at_ms: None,
        };
        assert_eq!(change(SpendKey::Day, settle).values[":difference"], number(-i128::from(u64::MAX)));
        assert_eq!(change(SpendKey::Shard(3), settle).values[":unspent"], number(u64::MAX));
    }

    #[test]
    fn the_day_keeps_the_key_that_workers_of_before_know() {
        let day = UtcDay::of(DAY_MS);
        assert_eq!(spend_id(day, SpendKey::Day), "spend#2026-11-24");
        assert_eq!(spend_id(day, SpendKey::Shard(19)), "spend#2026-11-24#19");
    }

    /// The whole record as workers of before the shards wrote it, by transactions; they stood within a cap of 100.
    #[test]
    fn a_day_as_workers_of_before_wrote_it_is_read_and_goes_on() {
        let standing = map([
            (ID, text("spend#2026-11-24")),
            (COMMITTED, number(70)),
            ("reserved_micro_usd", number(40)),
            ("spent_micro_usd", number(30)),
            (EXPIRES_AT, number(spend_expires_at_s(UtcDay::of(DAY_MS)))),
        ]);
        let reserve =
            |micro_usd, cap_micro_usd| SpendKind::Reserve { micro_usd, cap_micro_usd, shard: Some(2) };
        for (cap_micro_usd, left) in [(100, 30), (70, 0), (60, 0)] {
            assert_eq!(
                left_micro_usd(reserve(31, cap_micro_usd), &standing).unwrap(),
                left,
                "{cap_micro_usd}"
            );
        }
        assert_eq!(shards(&standing), Shards::default());
        // What is written next counts under the names that they read.
        let next = change(SpendKey::Day, reserve(30, 100));
        assert_eq!((next.names["#committed"].as_str(), &next.values[":room"]), (COMMITTED, &number(70)));
        assert!(next.update.starts_with("ADD #shards :shard, #reserved :amount, #committed :amount"));
    }

    #[test]
    fn a_days_spend_is_kept_for_ninety_days() {
        assert_eq!(spend_expires_at_s(UtcDay::of(86_400_000)), 91 * 86_400);
        assert_eq!(spend_expires_at_s(UtcDay::of(DAY_MS)), 1_795_478_400 + 90 * 86_400);
    }

    #[test]
    fn less_than_nothing_is_nothing() {
        for (amount, expected) in [(-5, 0), (0, 0), (7, 7)] {
            assert_eq!(micro_usd(&map([(LEFT, number(amount))]), LEFT).unwrap(), expected);
        }
    }
}
