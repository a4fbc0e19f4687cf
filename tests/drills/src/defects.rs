//! Deliberate defects of the alarms: each must fail the drill that it names.

use nightshift_alarms::math::Expr;
use nightshift_alarms::plan::{Alarms, MetricAlarm};

/// A defect, and the drill that must see it, by its page (`none`: a day on which nothing is wrong) and its fault.
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
        defect(
            "an average, of which a living invocation takes its share",
            "worker-failing",
            "half of the invocations die, on a busy stack",
            |alarms| change(alarms, "worker-failing", |alarm| average(alarm, 0)),
        ),
        defect(
            "an average over zeroes",
            "ledger-failing",
            "one in twenty of its requests fails, on a busy stack",
            |alarms| change(alarms, "ledger-failing", |alarm| average(alarm, 0)),
        ),
        defect(
            "what waits for a review is no failure",
            "success-burning-fast",
            "no answer is valid, and each result waits for a review",
            |alarms| {
                for alarm in
                    alarms.metric.iter_mut().filter(|alarm| alarm.name.contains("success-burning-fast"))
                {
                    let all = "(FILL(good, 0) + FILL(dead, 0) + FILL(review, 0))";
                    alarm.expression =
                        Expr::parse(&format!("IF({all} >= 20, 100 * FILL(dead, 0) / {all}, 0)")).ok();
                }
            },
        ),
        defect(
            "the queue of dead letters twice, and that of crashed jobs never",
            "dead-letters-expiring",
            "a crashed job waits for three and a half days",
            |alarms| {
                change(alarms, "dead-letters-expiring", |alarm| {
                    for query in &mut alarm.queries {
                        for queue in
                            query.metric.dimensions.values_mut().filter(|queue| queue.ends_with("-crashed"))
                        {
                            *queue = queue.replace("crashed", "dead-letters");
                        }
                    }
                });
            },
        ),
        defect(
            "a name that no pipe publishes",
            "events-failing",
            "each attempt of the pipe for large results fails",
            |alarms| {
                change(alarms, "events-failing", |alarm| {
                    let large = |pipe: &String| pipe.ends_with("-large");
                    for query in &mut alarm.queries {
                        if query.metric.dimensions.values().any(large) {
                            query.metric.name = "ExecutionsFailed".to_owned();
                        }
                    }
                });
            },
        ),
        defect("one death pages", "none", ACCIDENTS, |alarms| {
            change(alarms, "worker-failing", |alarm| alarm.m = 1);
        }),
        defect("one error pages", "none", ACCIDENTS, |alarms| {
            change(alarms, "ledger-failing", |alarm| alarm.m = 1);
        }),
        defect(
            "one refused invocation is a ticket",
            "none",
            "the same accidents, on a busy stack",
            |alarms| {
                change(alarms, "worker-throttled", |alarm| (alarm.m, alarm.n) = (1, 1));
            },
        ),
        defect("one failed step is a ticket", "none", ACCIDENTS, |alarms| {
            change(alarms, "redrive-failing", |alarm| alarm.m = 1);
        }),
        defect("one run that fails is a ticket", "none", ACCIDENTS, |alarms| {
            change(alarms, "sentinel-failing", |alarm| alarm.m = 1);
        }),
        defect("one minute without the sentinel pages", "none", ACCIDENTS, |alarms| {
            change(alarms, "sentinel-silent", |alarm| alarm.m = 1);
        }),
        defect("one call in five that fails is a ticket", "none", UNRELIABLE, |alarms| {
            change(alarms, "model-failing", |alarm| alarm.threshold /= 10.0);
        }),
        defect("one answer in fifty that is invalid is a ticket", "none", UNRELIABLE, |alarms| {
            change(alarms, "output-rejected", |alarm| alarm.threshold /= 10.0);
        }),
        defect("one call in a hundred that is refused is a ticket", "none", UNRELIABLE, |alarms| {
            change(alarms, "model-throttled", |alarm| alarm.threshold /= 10.0);
        }),
        defect(
            "a run that is missing ends the pause",
            "queue-paused",
            "somebody pauses the stack",
            |alarms| {
                change(alarms, "queue-paused", |alarm| (alarm.m, alarm.n) = (1, 1));
            },
        ),
        defect("the hours of another time zone", "no-jobs", "the sender stops at noon", |alarms| {
            change(alarms, "no-jobs", |alarm| {
                alarm.expression = Expr::parse("IF(HOUR(sent) >= 18, FILL(sent, 0), 1)").ok();
            });
        }),
    ]
}

const ACCIDENTS: &str = "a day with its accidents, a job a minute";
const UNRELIABLE: &str = "a provider that is a little unreliable, on a busy stack";

fn average(alarm: &mut MetricAlarm, query: usize) {
    alarm.queries[query].statistic = nightshift_alarms::data::Statistic::Average;
}

fn change(alarms: &mut Alarms, page: &str, change: impl Fn(&mut MetricAlarm)) {
    let mut own = alarms.metric.iter_mut().filter(|alarm| alarm.name.ends_with(page));
    change(own.next().expect("the plan has it"));
}
