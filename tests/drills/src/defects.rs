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
            "each quarter of an hour has to have its calls",
            "model-failing",
            "the same, ten jobs an hour",
            |alarms| {
                change(alarms, "model-failing", |alarm| alarm.m = alarm.n);
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
        defect(
            "FILL of a series that has no point in an outage",
            "no-progress",
            "Lambda takes nothing from the queue",
            |alarms| {
                change(alarms, "no-progress", |alarm| {
                    let filled = "IF(waiting > 0 AND FILL(paused, 0) == 0 AND FILL(settled, 0) == 0, 1, 0)";
                    alarm.expression = Expr::parse(filled).ok();
                });
            },
        ),
        defect(
            "SQS's age alone, which leaves out what was received three times",
            "jobs-expiring",
            "the key is revoked for days",
            |alarms| {
                change(alarms, "jobs-expiring", |alarm| {
                    alarm.expression = Expr::parse("FILL(waiting_s, 0)").ok();
                });
            },
        ),
        defect("a cause that nobody writes", "queue-paused", "somebody pauses the stack", |alarms| {
            change(alarms, "queue-paused", |alarm| {
                let cause = ("Cause".to_owned(), "pause".to_owned());
                alarm.queries[0].metric.dimensions.extend([cause]);
            });
        }),
        defect("a pause that pages twice", "queue-paused", "somebody pauses the stack", |alarms| {
            change(alarms, "oldest-job-too-old", |alarm| {
                alarm.expression = Expr::parse("MAX([FILL(begun_s, 0), FILL(waiting_s, 0)])").ok();
            });
        }),
        defect(
            "two percent instead of twenty",
            "spend-near-cap",
            "each call costs a hundred times as much",
            |alarms| change(alarms, "spend-near-cap", |alarm| alarm.threshold /= 10.0),
        ),
        defect(
            "an hour in which each run has to see it",
            "crashed-jobs",
            "a job kills whoever reads it",
            |alarms| {
                change(alarms, "crashed-jobs", |alarm| {
                    alarm.queries[0].statistic = nightshift_alarms::data::Statistic::Minimum;
                    alarm.period = 60;
                });
            },
        ),
        defect("the hours of another time zone", "no-jobs", "the sender stops at noon", |alarms| {
            change(alarms, "no-jobs", |alarm| {
                alarm.expression = Expr::parse("IF(HOUR(sent) >= 18, FILL(sent, 0), 1)").ok();
            });
        }),
    ]
}

fn change(alarms: &mut Alarms, page: &str, change: impl Fn(&mut MetricAlarm)) {
    let mut own = alarms.metric.iter_mut().filter(|alarm| alarm.name.ends_with(page));
    change(own.next().expect("the plan has it"));
}
