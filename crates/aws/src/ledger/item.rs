//! A record as a DynamoDB item, and back. Names are for people who look into the table.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use nightshift_core::blame::Refusals;
use nightshift_core::failure::FailureReason;
use nightshift_core::input_hash::InputHash;
use nightshift_core::listing::Unsettled;
use nightshift_core::model::Usage;
use nightshift_core::record::{Budget, Done, Erasure, Failed, Record, Revision, State};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::table::{EXPIRES_AT, FIRST_RECEIVED_MS, ID, UNSETTLED, index_key_of};

/// The version of the record whose dead letter is known to be sent.
pub(super) const LETTER_VERSION: &str = "letter_version";

/// An item of the table.
pub(super) type Item = HashMap<String, AttributeValue>;

/// What in an item is not as we write it; names the attribute and nothing of its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the attribute {attribute} {fault}")]
pub(super) struct Unreadable {
    attribute: String,
    fault: &'static str,
}

/// Every attribute of a record but its key, always in full: `None` is an attribute that must not stand. `index_keys`: over how
/// many keys a word of the index is spread; 0 is one, too.
pub(super) fn attributes(record: &Record, index_keys: u32) -> Vec<(&'static str, Option<AttributeValue>)> {
    let (lease_until_ms, alone) = match &record.state {
        State::Claimed { lease_until_ms, alone } => (Some(*lease_until_ms), Some(*alone)),
        _ => (None, None),
    };
    let done = match &record.state {
        State::Done(done) => Some(&**done),
        _ => None,
    };
    let failed = match &record.state {
        State::Failed(failed) => Some(&**failed),
        _ => None,
    };
    let revision = done.map(|d| &d.revision).or(failed.map(|f| &f.revision));
    let budget = &record.budget;
    vec![
        ("state", Some(text(record.state.as_str()))),
        (
            UNSETTLED,
            Unsettled::of(&record.state).map(|word| text(&index_key_of(word, &record.key, index_keys))),
        ),
        ("task", record.task.as_deref().map(text)),
        ("reference", record.reference.as_deref().map(text)),
        // The result.
        ("output", done.map(|d| json(&d.output))),
        ("needs_review", done.map(|d| flag(d.needs_review))),
        ("reviewed", done.map(|d| flag(d.reviewed))),
        ("model", done.map(|d| text(&d.model))),
        ("finished_at_ms", done.map(|d| number(d.finished_at_ms))),
        // The failure.
        ("reason", failed.map(|f| text(f.reason.as_str()))),
        ("detail", failed.map(|f| text(&f.detail))),
        ("failed_at_ms", failed.map(|f| number(f.failed_at_ms))),
        ("provider_request_id", failed.and_then(|f| f.request_id.as_deref()).map(text)),
        ("excerpt", failed.and_then(|f| f.excerpt.as_deref()).map(text)),
        // What was deployed when it was settled.
        ("revision_hash", revision.map(|r| text(&r.hash))),
        ("revision_built_at_ms", revision.map(|r| number(r.built_at_ms))),
        ("revision_function_version", revision.map(|r| number(r.function_version))),
        // The claim.
        ("version", Some(number(record.version))),
        ("token", Some(text(&record.token))),
        ("lease_until_ms", lease_until_ms.map(number)),
        ("alone", alone.map(flag)),
        ("message_id", Some(text(&record.message_id))),
        ("sent_at_ms", Some(number(record.sent_at_ms))),
        (FIRST_RECEIVED_MS, Some(number(record.first_received_ms))),
        ("last_claimed_ms", Some(number(record.last_claimed_ms))),
        // What was used of its limits.
        ("claims", Some(number(budget.claims))),
        ("calls", Some(number(budget.calls))),
        ("reasks", Some(number(budget.reasks))),
        ("crashes", Some(number(budget.crashes))),
        ("waiting_since_ms", budget.waiting_since_ms.map(number)),
        ("refusals", budget.refusals.map(|refusals| number(refusals.times))),
        ("refused_since_ms", budget.refusals.map(|refusals| number(refusals.since_ms))),
        ("input_tokens", Some(number(budget.usage.input_tokens))),
        ("output_tokens", Some(number(budget.usage.output_tokens))),
        ("cost_micro_usd", Some(number(budget.cost_micro_usd))),
        ("redrives", Some(number(record.redrives))),
        ("previous_result", record.previous.as_deref().map(text)),
        ("history", (!record.history.is_empty()).then(|| json(&record.history))),
        (LETTER_VERSION, record.letter_version.map(number)),
        ("erased_at_ms", record.erased.map(|erasure| number(erasure.at_ms))),
        ("erased_version", record.erased.map(|erasure| number(erasure.version))),
        ("erased_until_ms", record.erased.map(|erasure| number(erasure.until_ms))),
        ("kept_message", record.kept.as_ref().map(json)),
        ("review_decision", record.reviewed.as_ref().map(json)),
        (EXPIRES_AT, Some(number(record.expires_at_ms.div_ceil(1_000)))),
    ]
}

/// The record that stands in an item.
pub(super) fn record(item: &Item) -> Result<Record, Unreadable> {
    let read = Reader(item);
    let revision = || {
        Ok(Revision {
            hash: read.text("revision_hash")?,
            built_at_ms: read.number("revision_built_at_ms")?,
            function_version: read.number("revision_function_version")?,
        })
    };
    let state = match read.text("state")?.as_str() {
        "open" => State::Open,
        "erased" => State::Erased,
        "claimed" => {
            State::Claimed { lease_until_ms: read.number("lease_until_ms")?, alone: read.flag("alone")? }
        }
        "done" => State::Done(Box::new(Done {
            output: read.json::<Value>("output")?,
            needs_review: read.flag("needs_review")?,
            reviewed: read.flag("reviewed")?,
            revision: revision()?,
            model: read.text("model")?,
            finished_at_ms: read.number("finished_at_ms")?,
        })),
        "failed" => State::Failed(Box::new(Failed {
            reason: reason(&read.text("reason")?)?,
            detail: read.text("detail")?,
            failed_at_ms: read.number("failed_at_ms")?,
            request_id: read.optional("provider_request_id", Reader::text)?,
            excerpt: read.optional("excerpt", Reader::text)?,
            revision: revision()?,
        })),
        _ => return Err(unreadable("state", "is not a state that this worker knows")),
    };
    Ok(Record {
        key: InputHash::from_stored(read.text(ID)?),
        task: read.optional("task", Reader::text)?,
        reference: read.optional("reference", Reader::text)?,
        version: read.number("version")?,
        token: read.text("token")?,
        state,
        previous: read.optional("previous_result", Reader::text)?,
        message_id: read.text("message_id")?,
        sent_at_ms: read.number("sent_at_ms")?,
        first_received_ms: read.number(FIRST_RECEIVED_MS)?,
        last_claimed_ms: read.number("last_claimed_ms")?,
        budget: Budget {
            claims: read.number("claims")?,
            calls: read.number("calls")?,
            reasks: read.number("reasks")?,
            crashes: read.number("crashes")?,
            waiting_since_ms: read.optional("waiting_since_ms", Reader::number)?,
            refusals: read
                .optional("refusals", Reader::number)?
                .zip(read.optional("refused_since_ms", Reader::number)?)
                .map(|(times, since_ms)| Refusals { times, since_ms }),
            usage: Usage {
                input_tokens: read.number("input_tokens")?,
                output_tokens: read.number("output_tokens")?,
            },
            cost_micro_usd: read.number("cost_micro_usd")?,
        },
        redrives: read.number("redrives")?,
        history: read.optional("history", Reader::json)?.unwrap_or_default(),
        letter_version: read.optional(LETTER_VERSION, Reader::number)?,
        erased: erasure(&read)?,
        kept: read.optional("kept_message", Reader::json)?,
        reviewed: read.optional("review_decision", Reader::json)?,
        expires_at_ms: read.number::<u64>(EXPIRES_AT)?.saturating_mul(1_000),
    })
}

fn erasure(read: &Reader<'_>) -> Result<Option<Erasure>, Unreadable> {
    // All three stand or none does: an erasure that is read in part would be taken for none, and undone.
    const NAMES: [&str; 3] = ["erased_at_ms", "erased_version", "erased_until_ms"];
    if !NAMES.iter().any(|name| read.0.contains_key(*name)) {
        return Ok(None);
    }
    let [at_ms, version, until_ms] = NAMES;
    Ok(Some(Erasure {
        at_ms: read.number(at_ms)?,
        version: read.number(version)?,
        until_ms: read.number(until_ms)?,
    }))
}

fn reason(word: &str) -> Result<FailureReason, Unreadable> {
    FailureReason::ALL
        .iter()
        .copied()
        .find(|reason| reason.as_str() == word)
        .ok_or_else(|| unreadable("reason", "is not a reason that this worker knows"))
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(super) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn flag(flag: bool) -> AttributeValue {
    AttributeValue::Bool(flag)
}

fn json(value: &impl serde::Serialize) -> AttributeValue {
    // Values and plain structs with string keys always serialise.
    AttributeValue::S(serde_json::to_string(value).unwrap_or_default())
}

fn unreadable(attribute: &str, fault: &'static str) -> Unreadable {
    Unreadable { attribute: attribute.to_owned(), fault }
}

/// Reads typed attributes out of an item.
pub(super) struct Reader<'a>(pub(crate) &'a Item);

impl Reader<'_> {
    fn attribute(&self, name: &str) -> Result<&AttributeValue, Unreadable> {
        self.0.get(name).ok_or_else(|| unreadable(name, "is missing"))
    }

    pub(super) fn text(&self, name: &str) -> Result<String, Unreadable> {
        self.attribute(name)?.as_s().cloned().map_err(|_| unreadable(name, "is not a string"))
    }

    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, Unreadable> {
        let digits = self.attribute(name)?.as_n().map_err(|_| unreadable(name, "is not a number"))?;
        digits.parse().map_err(|_| unreadable(name, "is not a whole number in its range"))
    }

    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>, Unreadable> {
        let bytes = self.attribute(name)?.as_b().map_err(|_| unreadable(name, "is not binary"))?;
        Ok(bytes.as_ref().to_vec())
    }

    fn flag(&self, name: &str) -> Result<bool, Unreadable> {
        self.attribute(name)?.as_bool().copied().map_err(|_| unreadable(name, "is not a boolean"))
    }

    fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, Unreadable> {
        serde_json::from_str(&self.text(name)?)
            .map_err(|_| unreadable(name, "is not the JSON that it should be"))
    }

    pub(super) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, Unreadable> {
        if self.0.contains_key(name) { read(self, name).map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use nightshift_core::record::Kept;
    use nightshift_core::record::{PastFailure, Reviewed};
    use proptest::prelude::*;
    use serde_json::json;

    /// The item that stands after a record was written.
    fn item(record: &Record) -> Item {
        let set =
            attributes(record, 1).into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        set.chain([(ID.to_owned(), text(record.key.as_str()))]).collect()
    }

    fn revisions() -> impl Strategy<Value = Revision> {
        ("[0-9a-f]{0,64}", any::<u64>(), any::<u64>()).prop_map(|(hash, built_at_ms, function_version)| {
            Revision { hash, built_at_ms, function_version }
        })
    }

    fn outputs() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn dones() -> impl Strategy<Value = Done> {
        (outputs(), any::<(bool, bool, u64)>(), revisions(), any::<String>()).prop_map(
            |(output, (needs_review, reviewed, finished_at_ms), revision, model)| Done {
                output,
                needs_review,
                reviewed,
                revision,
                model,
                finished_at_ms,
            },
        )
    }

    fn states() -> impl Strategy<Value = State> {
        let done = dones().prop_map(|done| State::Done(Box::new(done)));
        let failed = (
            prop::sample::select(FailureReason::ALL.to_vec()),
            any::<(String, u64, Option<String>, Option<String>)>(),
            revisions(),
        )
            .prop_map(|(reason, (detail, failed_at_ms, request_id, excerpt), revision)| {
                State::Failed(Box::new(Failed {
                    reason,
                    detail,
                    failed_at_ms,
                    request_id,
                    excerpt,
                    revision,
                }))
            });
        prop_oneof![
            Just(State::Open),
            Just(State::Erased),
            any::<(u64, bool)>().prop_map(|(lease_until_ms, alone)| State::Claimed { lease_until_ms, alone }),
            done,
            failed,
        ]
    }

    fn records() -> impl Strategy<Value = Record> {
        let budget = any::<(u32, u32, u32, u32, Option<u64>, Option<(u32, u64)>, u64, u64, u64)>().prop_map(
            |(
                claims,
                calls,
                reasks,
                crashes,
                waiting_since_ms,
                refusals,
                input_tokens,
                output_tokens,
                cost_micro_usd,
            )| {
                Budget {
                    claims,
                    calls,
                    reasks,
                    crashes,
                    waiting_since_ms,
                    refusals: refusals.map(|(times, since_ms)| Refusals { times, since_ms }),
                    usage: Usage { input_tokens, output_tokens },
                    cost_micro_usd,
                }
            },
        );
        let history = prop::collection::vec(
            (any::<String>(), any::<(u64, u32, String)>()).prop_map(
                |(reason, (failed_at_ms, calls, message_id))| PastFailure {
                    reason,
                    failed_at_ms,
                    calls,
                    message_id,
                    more: serde_json::Map::from_iter([("more".to_owned(), json!([calls]))]),
                },
            ),
            0..4,
        );
        (
            "[0-9a-f]{64}",
            any::<(Option<String>, Option<String>, u64, String, String)>(),
            (
                any::<(u64, u64, u64, u32, Option<u64>)>(),
                any::<Option<(u64, u64, u64)>>(),
                any::<Option<(u64, u64, u32)>>(),
                any::<Option<(u64, String, u64, String, String)>>(),
            ),
            // Whole seconds: finer expiry is rounded up, which the test beside shows.
            0_u64..4_000_000_000,
            (states(), prop::option::of(dones())),
            budget,
            history,
        )
            .prop_map(
                |(
                    key,
                    texts,
                    (times, erased, kept, reviewed),
                    expires_at_s,
                    (state, previous),
                    budget,
                    history,
                )| Record {
                    key: InputHash::from_stored(key),
                    task: texts.0,
                    reference: texts.1,
                    version: texts.2,
                    token: texts.3,
                    state,
                    previous: previous.map(|done| done.to_json()),
                    message_id: texts.4,
                    sent_at_ms: times.0,
                    first_received_ms: times.1,
                    last_claimed_ms: times.2,
                    budget,
                    redrives: times.3,
                    history,
                    letter_version: times.4,
                    erased: erased.map(|(at_ms, version, until_ms)| Erasure { at_ms, version, until_ms }),
                    kept: kept.map(|(version, claim_version, parts)| Kept { version, claim_version, parts }),
                    reviewed: reviewed.map(|(version, by, at_ms, decision, reason)| Reviewed {
                        version,
                        by,
                        at_ms,
                        decision,
                        reason,
                    }),
                    expires_at_ms: expires_at_s * 1_000,
                },
            )
    }

    proptest! {
        #[test]
        fn every_record_is_read_back_as_it_was_written(written in records()) {
            prop_assert_eq!(record(&item(&written)), Ok(written));
        }

        #[test]
        fn every_state_accounts_for_the_same_attributes(a in records(), b in records()) {
            let names = |r: &Record| attributes(r, 1).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
            prop_assert_eq!(names(&a), names(&b));
        }

        #[test]
        fn no_missing_or_mistyped_attribute_is_taken_for_a_record(written in records(), which in any::<prop::sample::Index>()) {
            let whole = item(&written);
            let name = which.get(&whole.keys().cloned().collect::<Vec<_>>()).clone();
            let mut mistyped = whole.clone();
            mistyped.insert(name.clone(), AttributeValue::Null(true));
            let read_at_all = !matches!(name.as_str(), UNSETTLED);
            prop_assert_eq!(record(&mistyped).is_err(), read_at_all, "{} mistyped", name);
            let mut missing = whole;
            missing.remove(&name);
            let optional = ["task", "reference", "waiting_since_ms", "refusals", "refused_since_ms", "provider_request_id", "excerpt", "history", "previous_result", "kept_message", "review_decision", LETTER_VERSION, UNSETTLED];
            prop_assert_eq!(record(&missing).is_err(), !optional.contains(&name.as_str()), "{} missing", name);
        }
    }

    pub(in crate::ledger) fn open() -> Record {
        Record {
            key: InputHash::of_job("t", &json!(1)),
            task: Some("t".to_owned()),
            reference: None,
            version: 1,
            token: "mine".to_owned(),
            state: State::Open,
            previous: None,
            message_id: "m-1".to_owned(),
            sent_at_ms: 1,
            first_received_ms: 2,
            last_claimed_ms: 3,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: 1_000,
        }
    }

    /// A record as a release wrote it (`aws dynamodb get-item` prints items like this).
    fn written(text: &str) -> Item {
        let attributes: HashMap<String, HashMap<String, Value>> = serde_json::from_str(text).unwrap();
        let value = |typed: HashMap<String, Value>| match typed.into_iter().next().unwrap() {
            (kind, Value::String(text)) if kind == "S" => AttributeValue::S(text),
            (kind, Value::String(text)) if kind == "N" => AttributeValue::N(text),
            (kind, Value::Bool(flag)) if kind == "BOOL" => AttributeValue::Bool(flag),
            other => panic!("{other:?}"),
        };
        attributes.into_iter().map(|(name, typed)| (name, value(typed))).collect()
    }

    #[test]
    fn the_records_of_every_release_are_read_in_full() {
        let releases = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records")).unwrap();
        let mut read = 0;
        for file in releases.flat_map(|release| std::fs::read_dir(release.unwrap().path()).unwrap()) {
            let path = file.unwrap().path();
            let mut standing = written(&std::fs::read_to_string(&path).unwrap());
            let record = record(&standing).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // What other writes put there is no part of the record.
            standing.retain(|name, _| !name.contains("duplicate"));
            let mut again = item(&record);
            // The first release left out of the index what a person should look at.
            if path.ends_with("v1/done-needs-review.json") {
                assert_eq!(again.remove(UNSETTLED), Some(text("needs_review")));
            }
            assert_eq!(again, standing, "{}", path.display());
            read += 1;
        }
        assert!(read >= 30, "{read} records");
    }

    #[test]
    fn a_word_that_is_not_known_is_told_and_not_guessed() {
        let mut failed = written(include_str!("../../tests/records/v1/failed-refused.json"));
        failed.insert("reason".to_owned(), text("review_expired"));
        assert_eq!(
            record(&failed).unwrap_err().to_string(),
            "the attribute reason is not a reason that this worker knows"
        );
        let mut open = written(include_str!("../../tests/records/v1/open.json"));
        open.insert("state".to_owned(), text("in_review"));
        assert_eq!(
            record(&open).unwrap_err().to_string(),
            "the attribute state is not a state that this worker knows"
        );
    }

    #[test]
    fn what_is_only_carried_on_may_be_in_any_words() {
        let history =
            r#"[{"reason":"review_rejected","failed_at_ms":1,"calls":2,"message_id":"m","by":"ann"}]"#;
        let previous = r#"{"output":{"a":1.50},"model":"m","tier":"flex"}"#;
        let mut open = written(include_str!("../../tests/records/v1/open.json"));
        open.insert("history".to_owned(), text(history));
        open.insert("previous_result".to_owned(), text(previous));
        let carried = item(&record(&open).unwrap());
        assert_eq!((&carried["history"], &carried["previous_result"]), (&text(history), &text(previous)));
    }

    #[test]
    fn an_expiry_is_never_earlier_than_meant() {
        for (expires_at_ms, stored, read_back) in
            [(1_000, "1", 1_000), (1_001, "2", 2_000), (1_999, "2", 2_000)]
        {
            let stored_item = item(&Record { expires_at_ms, ..open() });
            assert_eq!(stored_item[EXPIRES_AT], AttributeValue::N(stored.to_owned()));
            assert_eq!(record(&stored_item).unwrap().expires_at_ms, read_back);
        }
    }

    #[test]
    fn a_fault_names_its_attribute_and_not_its_value() {
        let mut broken = item(&open());
        broken.insert("version".to_owned(), text("secret"));
        assert_eq!(record(&broken).unwrap_err().to_string(), "the attribute version is not a number");
        broken.insert("version".to_owned(), AttributeValue::N("1.5".to_owned()));
        assert_eq!(
            record(&broken).unwrap_err().to_string(),
            "the attribute version is not a whole number in its range"
        );
    }
}
