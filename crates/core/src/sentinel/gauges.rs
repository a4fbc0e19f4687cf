//! A snapshot of the stack → its gauges.
//!
//! Every reading is of its own: what could not be read leaves its gauges out, and `Heartbeat` with them, so that
//! `sentinel-silent` is raised when an alarm has nothing to read.

use crate::control::{Cause, Control};
use crate::cost::usd;
use crate::listing::Entry;
use crate::metric::{Datum, Gauge, MetricBatch};
use crate::spend::Spent;

use super::snapshot::{Snapshot, StackLimits};

impl Snapshot {
    /// The gauges that follow from what was read, zeroes included.
    #[must_use]
    pub fn gauges(&self, stack: &str, limits: &StackLimits) -> MetricBatch {
        let readings = self.readings(limits);
        // More than one gauge may come of one reading, and none of them is there without it.
        let gauges = Gauge::ALL
            .iter()
            .filter(|gauge| **gauge != Gauge::Heartbeat)
            .all(|gauge| readings.iter().any(|(read, _)| read == gauge));
        // No gauge shows these, and without them nothing pauses or comes back.
        let unshown = [
            self.calls.is_some(),
            self.switch.is_some(),
            self.live_version.is_some(),
            self.watch.is_some(),
            self.counted.is_some(),
        ];
        let seen = unshown.iter().all(|seen| *seen);
        let complete = gauges && seen && self.remembers;
        let mut data: Vec<Datum> =
            readings.into_iter().map(|(gauge, value)| gauge.datum(stack, None, value)).collect();
        let causes = self.control.iter().flat_map(paused_by);
        data.extend(causes.map(|(cause, holds)| {
            Gauge::Paused.datum(stack, Some(("Cause", cause)), f64::from(u8::from(holds)))
        }));
        if complete {
            data.push(Gauge::Heartbeat.datum(stack, None, 1.0));
        }
        MetricBatch { at_ms: self.at_ms, data }
    }

    fn readings(&self, limits: &StackLimits) -> Vec<(Gauge, f64)> {
        let number = |number: u64| number as f64;
        let count = |entries: &Vec<Entry>| entries.len() as f64;
        let committed_micro_usd = self.spent.map(|spent| spent.committed_micro_usd);
        let readings = [
            (Gauge::JobsWaiting, self.jobs.map(|depth| number(depth.visible))),
            (Gauge::JobsInFlight, self.jobs.map(|depth| number(depth.hidden))),
            (Gauge::DeadLettersWaiting, self.dead_letters.map(|depth| number(depth.total()))),
            (Gauge::CrashedWaiting, self.crashed.map(|depth| number(depth.total()))),
            (Gauge::ReviewsWaiting, self.reviews.as_ref().map(count)),
            (Gauge::OldestJobAge, self.oldest_job_ms(limits).map(seconds)),
            (Gauge::OldestDeadLetterAge, self.oldest_letter_ms(limits).map(seconds)),
            (Gauge::DeadClaims, self.claimed.as_ref().map(|claimed| self.ended(claimed).count() as f64)),
            (Gauge::SpendToday, committed_micro_usd.map(usd)),
            (Gauge::SpendLeftPercent, self.spent.map(|spent| left_percent(&spent, limits))),
            (Gauge::Paused, self.control.as_ref().map(|control| f64::from(u8::from(!control.is_open())))),
            (Gauge::RedrivesRunning, self.redrives.as_ref().map(|running| running.len() as f64)),
        ];
        readings.into_iter().filter_map(|(gauge, value)| Some((gauge, value?))).collect()
    }

    /// How long ago the oldest failure was, of those whose letter may wait. Where none waits, all were sent back or deleted.
    fn oldest_letter_ms(&self, limits: &StackLimits) -> Option<u64> {
        if self.dead_letters?.total() == 0 {
            return Some(0);
        }
        let ages = self.failed.as_ref()?.iter().filter_map(|entry| {
            let age_ms = self.at_ms.saturating_sub(entry.settled_at_ms?);
            (age_ms < limits.letter_retention_ms).then_some(age_ms)
        });
        Some(ages.max().unwrap_or(0))
    }
}

/// Each cause of a pause, and whether it holds work back. CloudWatch charges a metric for each hour in which it has data, so
/// that only the operator's is published while it has no entry.
fn paused_by(control: &Control) -> Vec<(&'static str, bool)> {
    let holds = |cause: Cause| control.holding().any(|(holding, _)| holding == cause);
    let told = |cause: &Cause| *cause == Cause::Operator || control.entries.contains_key(cause);
    Cause::ALL.iter().copied().filter(told).map(|cause| (cause.as_str(), holds(cause))).collect()
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn left_percent(spent: &Spent, limits: &StackLimits) -> f64 {
    let left = spent.left_micro_usd(limits.spend_cap_micro_usd);
    // A cap of nothing leaves nothing.
    100.0 * left as f64 / limits.spend_cap_micro_usd.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Entry as Held, Phase};
    use crate::input_hash::InputHash;
    use crate::record::{Budget, Record, State};
    use crate::redrive::Depth;
    use crate::sentinel::deaths::INDEX_LAG_MS;
    use crate::sentinel::{Calls, DeadClaims, ENTRIES_MAX, Switch, Watch};
    use crate::spend::Spent;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
    const NOW_MS: u64 = 100 * DAY_MS;
    const LIMITS: StackLimits = StackLimits {
        retention_ms: 7 * DAY_MS,
        letter_retention_ms: 14 * DAY_MS,
        spend_cap_micro_usd: 50_000_000,
        lease_ms_max: 310_000,
    };

    fn quiet() -> Snapshot {
        Snapshot {
            at_ms: NOW_MS,
            jobs: Some(Depth::default()),
            dead_letters: Some(Depth::default()),
            crashed: Some(Depth::default()),
            control: Some(Control::default()),
            spent: Some(Spent::default()),
            calls: Some(Calls::default()),
            switch: Some(Switch::On),
            live_version: Some(1),
            redrives: Some(Vec::new()),
            claimed: Some(Vec::new()),
            watch: Some(Watch::after(None, 1, LIMITS.lease_ms_max, NOW_MS)),
            remembers: true,
            counted: Some(Vec::new()),
            reviews: Some(Vec::new()),
            begun: Some(Vec::new()),
            failed: Some(Vec::new()),
        }
    }

    fn entry(settled_at_ms: Option<u64>, lease_until_ms: Option<u64>) -> Entry {
        Entry {
            key: InputHash::of_body("x"),
            task: None,
            first_received_ms: 1,
            reason: None,
            settled_at_ms,
            lease_until_ms,
        }
    }

    fn record(sent_at_ms: u64, state: State) -> Record {
        Record {
            key: InputHash::of_body("x"),
            task: Some("a".to_owned()),
            reference: None,
            version: 1,
            token: String::new(),
            state,
            previous: None,
            message_id: "m".to_owned(),
            sent_at_ms,
            first_received_ms: 1,
            last_claimed_ms: 1,
            budget: Budget::default(),
            redrives: 0,
            history: Vec::new(),
            letter_version: None,
            erased: None,
            kept: None,
            reviewed: None,
            expires_at_ms: NOW_MS + DAY_MS,
        }
    }

    fn value(batch: &MetricBatch, gauge: Gauge, cause: Option<&str>) -> Option<f64> {
        let wanted: Vec<_> = std::iter::once(("Stack", "prod"))
            .chain(cause.map(|cause| ("Cause", cause)))
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        let datum = batch.data.iter().find(|d| d.name == gauge.name() && d.dimensions == wanted)?;
        Some(datum.values[0])
    }

    fn read(snapshot: &Snapshot, gauge: Gauge) -> Option<f64> {
        value(&snapshot.gauges("prod", &LIMITS), gauge, None)
    }

    #[test]
    fn a_quiet_stack_publishes_every_gauge() {
        let batch = quiet().gauges("prod", &LIMITS);
        for gauge in Gauge::ALL {
            let expected = match gauge {
                Gauge::Heartbeat => 1.0,
                Gauge::SpendLeftPercent => 100.0,
                _ => 0.0,
            };
            assert_eq!(value(&batch, *gauge, None), Some(expected), "{gauge:?}");
        }
        assert_eq!(value(&batch, Gauge::Paused, Some("operator")), Some(0.0));
        assert_eq!(batch.at_ms, NOW_MS);
    }

    #[test]
    fn what_could_not_be_read_is_left_out_and_the_heartbeat_with_it() {
        type Forget = fn(&mut Snapshot);
        let cases: [(Forget, &[Gauge]); 15] = [
            (|s| s.jobs = None, &[Gauge::JobsWaiting, Gauge::JobsInFlight]),
            (|s| s.dead_letters = None, &[Gauge::DeadLettersWaiting, Gauge::OldestDeadLetterAge]),
            (|s| s.crashed = None, &[Gauge::CrashedWaiting]),
            (|s| s.control = None, &[Gauge::Paused]),
            (|s| s.spent = None, &[Gauge::SpendToday, Gauge::SpendLeftPercent]),
            (|s| s.calls = None, &[]),
            (|s| s.switch = None, &[]),
            (|s| s.live_version = None, &[]),
            (|s| s.redrives = None, &[Gauge::RedrivesRunning]),
            (|s| s.claimed = None, &[Gauge::DeadClaims]),
            (|s| s.watch = None, &[]),
            (|s| s.remembers = false, &[]),
            (|s| s.counted = None, &[]),
            (|s| s.reviews = None, &[Gauge::ReviewsWaiting]),
            (|s| s.begun = None, &[Gauge::OldestJobAge]),
        ];
        for (forget, lost) in cases {
            let mut snapshot = quiet();
            forget(&mut snapshot);
            for gauge in Gauge::ALL {
                let gone = lost.contains(gauge) || *gauge == Gauge::Heartbeat;
                assert_eq!(
                    read(&snapshot, *gauge).is_none(),
                    gone,
                    "{gauge:?} without what {lost:?} is read from"
                );
            }
        }
    }

    #[test]
    fn a_depth_is_what_can_be_received_and_what_somebody_looks_at() {
        let depth = Some(Depth { visible: 5, hidden: 2 });
        let snapshot = Snapshot {
            jobs: depth,
            dead_letters: depth,
            crashed: depth,
            failed: Some(Vec::new()),
            ..quiet()
        };
        for (gauge, expected) in [
            (Gauge::JobsWaiting, 5.0),
            (Gauge::JobsInFlight, 2.0),
            (Gauge::DeadLettersWaiting, 7.0),
            (Gauge::CrashedWaiting, 7.0),
        ] {
            assert_eq!(read(&snapshot, gauge), Some(expected), "{gauge:?}");
        }
    }

    #[test]
    fn the_oldest_job_is_that_whose_message_was_sent_first_and_still_exists() {
        let claimed = || State::Claimed { lease_until_ms: NOW_MS + 1, alone: false };
        let expired = Record { expires_at_ms: NOW_MS, ..record(NOW_MS - 5 * DAY_MS, State::Open) };
        for (records, expected_s) in [
            (vec![record(NOW_MS - 9_000, State::Open), record(NOW_MS - 5_000, claimed())], 9.0),
            (vec![record(NOW_MS - 5_000, State::Open), record(NOW_MS - 9_000, claimed())], 9.0),
            // SQS has deleted its message.
            (vec![record(NOW_MS - 7 * DAY_MS, State::Open), record(NOW_MS - 1_000, State::Open)], 1.0),
            // DynamoDB deletes late.
            (vec![expired], 0.0),
            // Clocks differ.
            (vec![record(NOW_MS + 3_000, State::Open)], 0.0),
        ] {
            let label = format!("{records:?}");
            let snapshot = Snapshot { begun: Some(records), ..quiet() };
            assert_eq!(read(&snapshot, Gauge::OldestJobAge), Some(expected_s), "{label}");
        }
    }

    #[test]
    fn the_oldest_dead_letter_is_the_oldest_failure_while_letters_wait() {
        let waits = Some(Depth { visible: 0, hidden: 1 });
        let at = |age_ms: u64| entry(Some(NOW_MS - age_ms), None);
        for (depth, failed, expected_s) in [
            (waits, vec![at(2_000), at(9_000)], 9.0),
            (waits, vec![at(14 * DAY_MS), at(2_000)], 2.0),
            (waits, vec![], 0.0),
            (Some(Depth::default()), vec![at(9_000)], 0.0),
        ] {
            let label = format!("{depth:?} {failed:?}");
            let snapshot = Snapshot { dead_letters: depth, failed: Some(failed), ..quiet() };
            assert_eq!(read(&snapshot, Gauge::OldestDeadLetterAge), Some(expected_s), "{label}");
        }
    }

    #[test]
    fn a_claim_is_dead_when_its_lease_has_ended_and_the_index_had_time_to_say_otherwise() {
        let until = |lease_until_ms| entry(None, Some(lease_until_ms));
        let claimed = vec![
            until(NOW_MS + 1),
            until(NOW_MS - 60_000),
            // One batch.
            until(NOW_MS - 60_001),
            until(NOW_MS - 60_001),
            until(1),
            entry(None, None),
        ];
        let snapshot = Snapshot { claimed: Some(claimed), ..quiet() };
        assert_eq!(read(&snapshot, Gauge::DeadClaims), Some(3.0));
        let (oldest, one) = (snapshot.claimed.clone().unwrap_or_default(), until(NOW_MS - 70_000));
        let other = Entry { key: InputHash::of_body("y"), ..one };
        // Of those that are read twice, one counts.
        let counted = Some(vec![oldest[2].clone(), other]);
        let snapshot = Snapshot { counted, ..snapshot };
        let ended_ms = vec![NOW_MS - 60_001, NOW_MS - 60_001, 1, NOW_MS - 70_000];
        let lease_ms_max = LIMITS.lease_ms_max;
        let dead = Some(DeadClaims { ended_ms, since_ms: 0, lease_ms_max, are_all: true });
        let signs = snapshot.signs(&LIMITS, 1);
        assert_eq!((signs.dead, signs.many_are_dead), (dead, Some(false)));
        let many = (0..10).map(|n| until(NOW_MS - 70_000 - n % 3)).collect();
        let many = Snapshot { claimed: Some(many), ..snapshot.clone() };
        assert_eq!(many.signs(&LIMITS, 1).many_are_dead, Some(true));
        let full = Snapshot { claimed: Some(vec![until(1); ENTRIES_MAX as usize]), ..snapshot.clone() };
        assert!(!full.signs(&LIMITS, 1).dead.is_some_and(|dead| dead.are_all));
        let calls = Some(Calls { failed: 20, ..Calls::default() });
        let heard = Snapshot { calls, ..snapshot };
        assert_eq!(heard.signs(&LIMITS, 1).calls, calls);
        let unheard = Snapshot { spent: None, ..heard }.signs(&LIMITS, 1);
        assert_eq!((unheard.dead, unheard.calls), (None, None), "nobody knows whether others were answered");
    }

    #[test]
    fn claims_are_read_to_be_counted_once_one_of_them_can_have_died() {
        let seen_dead_ms = LIMITS.lease_ms_max + INDEX_LAG_MS;
        for (answered_ago_ms, expected) in [(seen_dead_ms, false), (seen_dead_ms + 1, true)] {
            let answered_at_ms = Some(NOW_MS - answered_ago_ms);
            let snapshot = Snapshot {
                spent: Some(Spent { answered_at_ms, ..Spent::default() }),
                watch: Some(Watch { since_ms: 1, ..Watch::after(None, 1, LIMITS.lease_ms_max, NOW_MS) }),
                ..quiet()
            };
            let since_ms = snapshot.claims_to_count_since_ms(&LIMITS);
            assert_eq!(since_ms, answered_at_ms.filter(|_| expected), "{answered_ago_ms}");
            for unread in [
                Snapshot { spent: None, ..snapshot.clone() },
                Snapshot { watch: None, ..snapshot.clone() },
                Snapshot { control: None, ..snapshot.clone() },
            ] {
                assert_eq!(unread.claims_to_count_since_ms(&LIMITS), None);
            }
        }
    }

    #[test]
    fn what_is_decided_by_is_what_was_read() {
        let spent = Spent {
            committed_micro_usd: 49_000_000,
            in_shards_micro_usd: 500_000,
            in_one_shard_micro_usd: 300_000,
            called_at_ms: Some(7),
            reserved_at_ms: Some(8),
            ..Spent::default()
        };
        let calls = Some(Calls { refused_micro_usd: Some(9), ..Calls::default() });
        let signs =
            Snapshot { spent: Some(spent), calls, jobs: Some(Depth { visible: 3, hidden: 4 }), ..quiet() }
                .signs(&LIMITS, 1);
        let money = signs.money.map(|m| (m.room_micro_usd, m.refused_micro_usd));
        assert_eq!(
            (signs.called_at_ms, signs.reserved_at_ms, signs.waiting, signs.in_flight, money),
            (Some(7), Some(8), Some(3), Some(4), Some((500_000, Some(9))))
        );
    }

    #[test]
    fn money_is_what_counts_against_the_cap() {
        for (committed_micro_usd, cap, today, left) in [
            (12_500_000, 50_000_000, 12.5, 75.0),
            (50_000_000, 50_000_000, 50.0, 0.0),
            // The cap was lowered.
            (60_000_000, 50_000_000, 60.0, 0.0),
            (0, 0, 0.0, 0.0),
        ] {
            let limits = StackLimits { spend_cap_micro_usd: cap, ..LIMITS };
            let spent = Some(Spent { committed_micro_usd, ..Spent::default() });
            let snapshot = Snapshot { spent, ..quiet() };
            let batch = snapshot.gauges("prod", &limits);
            assert_eq!(value(&batch, Gauge::SpendToday, None), Some(today));
            assert_eq!(value(&batch, Gauge::SpendLeftPercent, None), Some(left));
        }
    }

    #[test]
    fn a_pause_is_told_with_its_cause() {
        let mended = Held::paused(1, "r", "w").in_phase(Phase::Open, 2);
        let paused = Control::paused_by_operator(1, "r", "w").with(Cause::Outage, mended);
        let batch = Snapshot { control: Some(paused), ..quiet() }.gauges("prod", &LIMITS);
        assert_eq!(value(&batch, Gauge::Paused, None), Some(1.0));
        assert_eq!(value(&batch, Gauge::Paused, Some("operator")), Some(1.0));
        assert_eq!(value(&batch, Gauge::Paused, Some("outage")), Some(0.0), "it is over, and still watched");
        assert_eq!(
            value(&batch, Gauge::Paused, Some("account")),
            None,
            "it costs nothing while there is none"
        );
    }
}
