//! At which load a stack would fail, and which limit comes first: tried in steps, or computed from what one job took in the
//! test, limit by limit, where nobody asked for steps or they would be dear.

use serde::Serialize;

use super::grouped;
use super::limit::{Limit, Limited, computed};
use super::measure::Measured;
use super::steps::{Ended, Gave, Step};
use crate::limits::Limits;

/// Share of the rate at which jobs came at which they must have ended for a load to be one that the stack held, in percent: what
/// is short by less is the last jobs of ten minutes, and by more may be a backlog that grows.
const HELD_PERCENT: f64 = 97.0;

/// How a limit was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The load was sent, and something gave.
    Tested,
    /// From what one job took.
    Computed,
}

/// The limit that comes first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct First {
    /// How it was found.
    pub how: How,
    /// Which it is.
    #[serde(flatten)]
    pub limit: Limit,
}

/// At which load the stack would fail.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headroom {
    /// The limit that comes first; `None`: none is known.
    pub first: Option<First>,
    /// The loads that were sent: the test's own, and those above it.
    pub steps: Vec<Step>,
    /// Why there are no more of them.
    pub ended: Ended,
    /// What can be computed, the first to be reached first.
    pub limits: Vec<Limit>,
}

impl Headroom {
    /// From the loads that were tried, the test's own first, and from what was measured at that and what the stack is set to.
    #[must_use]
    pub fn of(measured: &Measured, limits: &Limits, steps: Vec<Step>, ended: Ended) -> Self {
        let mut computed = computed(measured, limits);
        if let Some(Step { gave: Some(gave), .. }) = steps.first()
            && matches!(gave.limited, Limited::Provider | Limited::ProviderRequests | Limited::ProviderTokens)
        {
            // What a job took holds its waiting for the provider, and says nothing of how many workers are enough.
            computed.retain(|limit| limit.limited != Limited::Concurrency);
        }
        let held =
            steps.iter().filter(|step| step.gave.is_none()).map(|step| step.per_hour).fold(0.0, f64::max);
        let tested = steps.iter().skip(1).find_map(|step| {
            let Gave { limited, because } = step.gave.clone()?;
            // What was not sent is no limit of the stack.
            (limited != Limited::Sender).then_some(())?;
            Some(First { how: How::Tested, limit: Limit { limited, per_hour: step.per_hour, because } })
        });
        // What was held is no limit, whatever was computed.
        let tried = steps.len() > 1;
        let kept_up = measured.ended_per_hour >= held * HELD_PERCENT / 100.0;
        let left = computed.iter().filter(|limit| {
            let is_enough = match limit.limited {
                // Of the day's money minutes say nothing, and a rehearsal has none of a provider's limits.
                Limited::SpendCap | Limited::ProviderRequests | Limited::ProviderTokens => false,
                Limited::Concurrency => tried || kept_up,
                _ => tried,
            };
            !(is_enough && (tested.is_some() || limit.per_hour <= held))
        });
        let first = left
            .map(|limit| First { how: How::Computed, limit: limit.clone() })
            .chain(tested.clone())
            .min_by(|a, b| a.limit.per_hour.total_cmp(&b.limit.per_hour));
        Self { first, steps, ended, limits: computed }
    }

    /// How it was found and what was found, in sentences.
    #[must_use]
    pub fn words(&self) -> String {
        let found = match &self.first {
            None => "No limit is known.".to_owned(),
            Some(First { how, limit }) => {
                let how = match how {
                    How::Tested => "Tested in steps",
                    How::Computed => "Computed from what a job took",
                };
                format!(
                    "{how}: the first limit is {}, at {} jobs an hour ({}).",
                    limit.limited.as_str(),
                    grouped(limit.per_hour),
                    limit.because.trim_end_matches('.')
                )
            }
        };
        let tried = self.steps_in_words();
        // What gave here and now comes before what may come first elsewhere.
        let gave_at_once = self.steps.first().is_some_and(|tested| tested.gave.is_some());
        let words = if gave_at_once { [tried, found] } else { [found, tried] };
        words.join(" ").trim().to_owned()
    }

    fn steps_in_words(&self) -> String {
        let held = self.steps.iter().rfind(|step| step.gave.is_none()).map(|step| grouped(step.per_hour));
        let gave = self.steps.iter().find_map(|step| Some((grouped(step.per_hour), step.gave.as_ref()?)));
        match (held, gave, self.ended) {
            (None, Some((_, gave)), _) => {
                format!("{} {}", gave.at_once(), gave.because)
            }
            // Whether it held its own load is not known, or nobody asked for another one.
            (None, None, _) | (_, _, Ended::NotAsked | Ended::NotCounted) => String::new(),
            (Some(held), Some((at, gave)), _) if gave.limited == Limited::Sender => {
                format!("It held {held} an hour; {at} could not be sent from here, so no more is known.")
            }
            (Some(held), Some((at, gave)), _) => {
                format!("It held {held} an hour, and at {at} {} gave.", gave.limited.as_str())
            }
            (Some(held), None, Ended::Dear) => {
                format!("It held {held} an hour; the next step would be too many jobs, or too dear.")
            }
            (Some(held), None, Ended::Stopped) => format!("It held {held} an hour when it was stopped."),
            (Some(held), None, Ended::Failed) => {
                format!("It held {held} an hour; the next step could not be carried out from here.")
            }
            (Some(held), None, Ended::Gave | Ended::Held) => {
                format!("It held {held} an hour, and no more is tried.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load_test::{Cost, Percentiles, Plan, measure};

    fn step(per_hour: f64, gave: Option<Limited>) -> Step {
        let gave = gave.map(|limited| Gave { limited, because: "It shows.".to_owned() });
        Step { per_hour, jobs: 100, p95_ms: 1_000, backlog_max: 5, cost_usd: 0.0, gave }
    }

    /// Of jobs that take two seconds and cost a cent.
    fn measured() -> Measured {
        let plan = Plan { expected_per_hour: 3_600, factor: 1.0, minutes: 1.0, warm_up_s: 0 };
        let work = Percentiles { count: 60, p50_ms: 2_000, p95_ms: 2_000, ..Percentiles::default() };
        let cost =
            Cost { usd: 0.6, calls: 60, usd_per_job: 0.01, calls_per_job: 1.0, tokens_per_job: 1_000.0 };
        Measured { accepted: 60, work, cost, ..measure(&plan, &[], 60, 60_000) }
    }

    #[test]
    fn the_first_limit_is_the_one_that_gave_or_the_lowest_that_was_not_disproved() {
        // Ten of two seconds at a time: 18,000 an hour. At a cent, 2,400 dollars a day are 10,000 an hour.
        let limits = |usd: u64| Limits {
            concurrency_max: 1,
            spend_cap_micro_usd: usd * 1_000_000,
            ..Limits::default()
        };
        let (rich, poor) = (limits(1_000_000), limits(2_400));
        let held = |per_hour| step(per_hour, None);
        let gave = step(12_000.0, Some(Limited::Provider));
        use How::{Computed, Tested};
        for (limits, steps, ended, how, limited, per_hour, words) in [
            (
                &rich,
                vec![held(8_000.0)],
                Ended::NotAsked,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "Computed",
            ),
            (
                &rich,
                vec![held(8_000.0), gave.clone()],
                Ended::Gave,
                Tested,
                Limited::Provider,
                12_000.0,
                "It held 8,000 an hour, and at 12,000 the provider's capacity gave.",
            ),
            // A day's money is not tried in minutes, whatever was held meanwhile.
            (
                &poor,
                vec![held(8_000.0), gave.clone()],
                Ended::Gave,
                Computed,
                Limited::SpendCap,
                10_000.0,
                "around the clock",
            ),
            (
                &poor,
                vec![held(8_000.0), held(12_000.0)],
                Ended::Stopped,
                Computed,
                Limited::SpendCap,
                10_000.0,
                "when it was stopped",
            ),
            // Whether this one was held is not known.
            (
                &rich,
                vec![held(8_000.0)],
                Ended::NotCounted,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "Computed",
            ),
            // What was held is no limit.
            (
                &rich,
                vec![held(8_000.0), held(27_000.0)],
                Ended::Held,
                Computed,
                Limited::Ledger,
                1_800_000.0,
                "It held 27,000",
            ),
            (
                &rich,
                vec![held(8_000.0), held(12_000.0)],
                Ended::Dear,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "too dear",
            ),
            // What could not be sent is no limit of the stack.
            (
                &rich,
                vec![held(8_000.0), step(12_000.0, Some(Limited::Sender))],
                Ended::Gave,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "It held 8,000 an hour; 12,000 could not be sent from here",
            ),
            (
                &rich,
                vec![step(8_000.0, Some(Limited::Sender))],
                Ended::Gave,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "The stack saw a lower load than this one",
            ),
            // The test's own load was too much: nothing above it is tried, and what gave is said.
            // What a job took held its waiting for the provider.
            (
                &rich,
                vec![step(8_000.0, Some(Limited::Provider))],
                Ended::Gave,
                Computed,
                Limited::Ledger,
                1_800_000.0,
                "too much for the provider's capacity",
            ),
            (
                &rich,
                vec![step(8_000.0, Some(Limited::QueueAge))],
                Ended::Gave,
                Computed,
                Limited::Concurrency,
                18_000.0,
                "This load was too much for the age of what waits. It shows.",
            ),
        ] {
            let headroom = Headroom::of(&measured(), limits, steps, ended);
            let first = headroom
                .first
                .as_ref()
                .map(|first| (first.how, first.limit.limited, first.limit.per_hour.round()));
            assert_eq!(first, Some((how, limited, per_hour)), "{headroom:?}");
            assert!(headroom.words().contains(words), "{}", headroom.words());
            assert!(ended != Ended::NotCounted || !headroom.words().contains("It held"));
        }
    }

    #[test]
    fn the_hottest_key_of_the_ledger_is_one_of_the_index_or_of_the_days_money() {
        for (batch_size, concurrency_max, per_hour) in
            [(10, 20, 1_800_000.0), (10, 21, 3_600_000.0), (10, 1_000, 18_000_000.0), (1, 1_000, 1_800_000.0)]
        {
            let limits = Limits { batch_size, concurrency_max, ..Limits::default() };
            let known = computed(&measured(), &limits);
            let ledger = known.iter().find(|limit| limit.limited == Limited::Ledger);
            assert_eq!(
                ledger.map(|limit| limit.per_hour.round()),
                Some(per_hour),
                "{batch_size} {concurrency_max}"
            );
        }
    }

    #[test]
    fn a_batch_of_several_takes_as_long_as_its_slow_jobs() {
        // Half of the jobs take two seconds, and one in twenty four.
        let measured = measured();
        let measured = Measured { work: Percentiles { p95_ms: 4_000, ..measured.work }, ..measured };
        for (batch_size, per_hour) in [(1, 1_800.0), (10, 9_000.0)] {
            let limits = Limits { batch_size, concurrency_max: 1, ..Limits::default() };
            let known = computed(&measured, &limits);
            let workers = known.iter().find(|limit| limit.limited == Limited::Concurrency);
            assert_eq!(workers.map(|limit| limit.per_hour), Some(per_hour), "{batch_size}");
        }
    }

    #[test]
    fn what_a_job_takes_of_the_provider_and_of_the_money_divides_their_limits() {
        let of = |calls_per_job, tokens_per_job, usd_per_job| {
            let measured = measured();
            let cost = Cost { calls_per_job, tokens_per_job, usd_per_job, ..measured.cost };
            let limits = Limits {
                requests_per_minute: 100,
                tokens_per_minute: 50_000,
                spend_cap_micro_usd: 24_000_000,
                ..Limits::default()
            };
            let known = computed(&Measured { cost, ..measured }, &limits);
            [Limited::ProviderRequests, Limited::ProviderTokens, Limited::SpendCap].map(|limited| {
                known.iter().find(|limit| limit.limited == limited).map(|limit| limit.per_hour.round())
            })
        };
        assert_eq!(of(2.0, 500.0, 0.02), [Some(3_000.0), Some(6_000.0), Some(50.0)]);
        assert_eq!(of(1.25, 2_000.0, 0.5), [Some(4_800.0), Some(1_500.0), Some(2.0)]);
        // Of what no job took anything, nothing is known.
        assert_eq!(of(0.0, 0.0, 0.0), [None, None, None]);
    }
}
