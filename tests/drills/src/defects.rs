//! Deliberate defects of the alarms: each must fail the drill that it names.

use nightshift_alarms::math::Expr;
use nightshift_alarms::plan::{Alarms, MetricAlarm};

/// A defect, and the drill that must see it, by its page and its fault.
pub struct Defect {
    pub what: &'static str,
    pub page: &'static str,
    pub fault: &'static str,
    pub make: fn(&mut Alarms),
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Defect> {
    let defect = |what, page, fault, make| Defect { what, page, fault, make };
    vec![
        defect("the alarm is removed", "dead-letters-rising", "the model refuses every job", |alarms| {
            alarms.metric.retain(|alarm| !alarm.name.ends_with("dead-letters-rising"));
        }),
        defect("its threshold is tenfold", "dead-letters-rising", "the model refuses every job", |alarms| {
            change(alarms, "dead-letters-rising", |alarm| alarm.threshold *= 10.0);
        }),
        defect("M is N", "ledger-failing", "DynamoDB answers nothing, one job every two hours", |alarms| {
            change(alarms, "ledger-failing", |alarm| alarm.m = alarm.n);
        }),
        defect("the metric has another name", "model-account", "the key is revoked", |alarms| {
            change(alarms, "model-account", |alarm| {
                alarm.queries[0].metric.name = "AccountFailure".to_owned()
            });
        }),
        defect("a dimension too many", "worker-failing", "each invocation dies after a second", |alarms| {
            change(alarms, "worker-failing", |alarm| {
                let resource = ("Resource".to_owned(), "worker:live".to_owned());
                alarm.queries[0].metric.dimensions.extend([resource]);
            });
        }),
        defect(
            "a period that is over before Lambda publishes",
            "worker-near-timeout",
            "the process blocks, on a busy stack",
            |alarms| {
                change(alarms, "worker-near-timeout", |alarm| alarm.period = 2);
            },
        ),
        defect("no FILL", "worker-failing", "the same, ten jobs an hour", |alarms| {
            change(alarms, "worker-failing", |alarm| alarm.expression = Expr::parse("errors + 0").ok());
        }),
        defect(
            "the wait between two tries is forgotten",
            "model-account",
            "the same, ten jobs an hour",
            |alarms| {
                change(alarms, "model-account", |alarm| alarm.period = 1);
            },
        ),
        defect("the wrong statistic", "dead-letters-rising", "the model refuses every job", |alarms| {
            change(alarms, "dead-letters-rising", |alarm| {
                alarm.queries[0].statistic = nightshift_alarms::data::Statistic::Maximum;
            });
        }),
        defect(
            "no hold between the tries of few jobs",
            "model-failing",
            "the same, ten jobs an hour",
            |alarms| {
                change(alarms, "model-failing", |alarm| (alarm.n, alarm.m) = (1, 1));
            },
        ),
        defect(
            "a least volume that ten jobs an hour never reach",
            "model-throttled",
            "the same, ten jobs an hour",
            |alarms| {
                change(alarms, "model-throttled", |alarm| alarm.period = 15);
            },
        ),
    ]
}

fn change(alarms: &mut Alarms, page: &str, change: impl Fn(&mut MetricAlarm)) {
    let mut own = alarms.metric.iter_mut().filter(|alarm| alarm.name.ends_with(page));
    change(own.next().expect("the plan has it"));
}
