//! Nights by name: what a stack pauses for and what it must not, each with the figures that somebody on call asks for.

use nightshift_core::control::Cause;
use nightshift_core::limits::Limits;
use nightshift_core::spend::UtcDay;
use nightshift_core::spread::Spread;

use crate::plan::{Away, DAY, Faults, HOUR, MINUTE, NO_CAP_MICRO_USD, Plan, Profile, SECOND, Shares, Window};
use crate::run::lived;
use crate::world::{BEGINNING_MS, DaySpend, State};

/// Trouble begins when the stack is in full swing.
const FROM_MS: u64 = 10 * MINUTE;
const FOR_MS: u64 = 2 * HOUR;
/// What is refused at once is refused within so long, tried again and all.
const BURST_MS: u64 = 5 * SECOND;
/// What waits is worked off within so many minutes at the provider's limit.
const DRAIN_MINUTES: u64 = 300;
/// About what a job costs in the simulation.
const JOB_MICRO_USD: u64 = 1_800;
const USED_PERCENT_MIN: f64 = 97.0;
/// A probe that hangs knows of the end two minutes later, and the next one is sent by the next run.
const USED_AFTER_HANGING_PERCENT_MIN: f64 = 95.0;

/// One night.
#[derive(Debug, Clone, Copy)]
pub struct Situation {
    /// What happens.
    pub name: &'static str,
    happens: Happens,
    /// What the stack pauses for, and within which time; `None`: for nothing.
    pauses: Option<(Cause, u64)>,
    /// Jobs whose budgets the trouble itself uses up end as dead letters.
    may_bury: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happens {
    Away(Away),
    CapAtTwoFifths,
    HalfTheCallsFail,
    RefusesAFirstBurst,
    Nothing,
}

/// All of them.
pub const SITUATIONS: [Situation; 10] = [
    Situation {
        name: "the provider is down for two hours",
        happens: Happens::Away(Away::Provider),
        pauses: Some((Cause::Outage, 2 * MINUTE)),
        may_bury: false,
    },
    Situation {
        name: "every call fails at once for two hours",
        happens: Happens::Away(Away::Backend),
        pauses: Some((Cause::Outage, 2 * MINUTE)),
        may_bury: false,
    },
    Situation {
        name: "the provider hangs for two hours",
        happens: Happens::Away(Away::Answers),
        // A call that is not answered is known by its timeout, two minutes.
        pauses: Some((Cause::Outage, 5 * MINUTE)),
        may_bury: false,
    },
    Situation {
        name: "the key is revoked for two hours",
        happens: Happens::Away(Away::Account),
        pauses: Some((Cause::Account, 45 * SECOND)),
        may_bury: false,
    },
    Situation {
        name: "a day's money is spent, day after day",
        happens: Happens::CapAtTwoFifths,
        pauses: Some((Cause::SpendCap, 20 * MINUTE)),
        may_bury: false,
    },
    Situation {
        name: "a deploy kills every claim for two hours",
        happens: Happens::Away(Away::Deploy),
        // Environments of the version before answer for twenty of them. What is in flight then comes back after another half
        // an hour, and whatever dies of it is seen to have died after seven.
        pauses: Some((Cause::Deaths, 65 * MINUTE)),
        may_bury: false,
    },
    Situation {
        name: "half the calls fail for a day",
        happens: Happens::HalfTheCallsFail,
        pauses: None,
        may_bury: true,
    },
    Situation {
        name: "the limit is a tenth for two hours",
        happens: Happens::Away(Away::NineTenths),
        pauses: None,
        may_bury: false,
    },
    Situation {
        name: "a slow provider refuses a first burst",
        happens: Happens::RefusesAFirstBurst,
        pauses: None,
        may_bury: false,
    },
    Situation {
        name: "thirty healthy days with bursts",
        happens: Happens::Nothing,
        pauses: None,
        may_bury: false,
    },
];

/// What came of one.
#[derive(Debug, Clone)]
pub struct Figures {
    /// From the first trouble to the first pause, for whatever it was.
    pub paused_after_ms: Option<u64>,
    /// To the pause for its cause.
    pub held_after_ms: Option<u64>,
    /// Pauses that a machine began.
    pub pauses: u64,
    /// While the trouble lasted.
    pub calls: usize,
    /// While the trouble lasted.
    pub invocations: usize,
    /// Of all time.
    pub letters: u64,
    /// From the end of the trouble to the first job that is settled.
    pub first_after_ms: Option<u64>,
    /// From the end of the trouble to the last one.
    pub drained_after_ms: u64,
    /// Of what the provider, or the cap, would have let through in that time, where that is what held the work up.
    pub used_percent: Option<f64>,
    /// Why this is not what is promised.
    pub faults: Vec<String>,
}

impl Situation {
    fn plan(&self, jobs: u32) -> Plan {
        let mut plan = Plan::of_seed(1, Some(Profile::Watched));
        (plan.windows, plan.resumes_ms) = (Vec::new(), Vec::new());
        plan.faults = Faults::default();
        plan.shares = Shares::default();
        plan.jobs = jobs;
        // As few environments as these have no shards.
        plan.spreads = [Spread::default(); 2];
        plan.answers_pages = false;
        plan.limits = Limits {
            concurrency_max: 50,
            batch_size: 10,
            spend_cap_micro_usd: NO_CAP_MICRO_USD,
            ..Limits::default()
        };
        plan.latency_ms = (1_000, 3_000);
        plan.headers = true;
        plan.requests_per_minute = (u64::from(jobs) / DRAIN_MINUTES).max(1);
        plan.limits.requests_per_minute = plan.requests_per_minute;
        plan.arrival_ms = 10 * SECOND;
        plan.faults_end_ms = FROM_MS + FOR_MS + 10 * MINUTE;
        match self.happens {
            Happens::Away(what) => {
                plan.windows = vec![Window { what, from_ms: FROM_MS, until_ms: FROM_MS + FOR_MS }];
                if what == Away::Backend {
                    // Nobody says a limit, so that all that comes is called for at once.
                    (plan.requests_per_minute, plan.limits.requests_per_minute, plan.headers) = (0, 0, false);
                    plan.arrival_ms = 2 * FROM_MS;
                }
            }
            Happens::CapAtTwoFifths => {
                plan.limits.spend_cap_micro_usd = u64::from(jobs) * JOB_MICRO_USD * 2 / 5;
                plan.faults_end_ms = 2 * DAY;
            }
            Happens::HalfTheCallsFail => {
                plan.faults.model_fails = 0.5;
                (plan.arrival_ms, plan.faults_end_ms) = (DAY - HOUR, DAY);
            }
            Happens::RefusesAFirstBurst => {
                plan.windows = vec![Window { what: Away::Provider, from_ms: 0, until_ms: BURST_MS }];
                plan.latency_ms = (70 * SECOND, 100 * SECOND);
            }
            Happens::Nothing => {
                (plan.arrival_ms, plan.faults_end_ms) = (30 * DAY, 30 * DAY);
                plan.bursts = 60;
            }
        }
        plan
    }

    /// Lives it with so many jobs.
    ///
    /// # Errors
    /// A promise that broke, or that there is no runtime.
    pub fn live(&self, jobs: u32) -> Result<Figures, String> {
        let world = lived(self.plan(jobs), None)?;
        let state = world.lock();
        Ok(self.figures(&world.plan, &state))
    }

    fn figures(&self, plan: &Plan, state: &State) -> Figures {
        let (from_ms, until_ms) = match self.happens {
            Happens::Away(_) => (FROM_MS, FROM_MS + FOR_MS),
            // From the last job that the first day had money for.
            Happens::CapAtTwoFifths => {
                let of_first_day = state.settlements_ms.iter().take_while(|at_ms| **at_ms < DAY);
                (of_first_day.last().copied().unwrap_or_default(), DAY)
            }
            Happens::HalfTheCallsFail | Happens::RefusesAFirstBurst | Happens::Nothing => {
                (0, plan.faults_end_ms)
            }
        };
        let within = |times: &[u64]| times.iter().filter(|at| (from_ms..until_ms).contains(at)).count();
        let last_ms = state.settlements_ms.last().copied().unwrap_or_default();
        let first = state.settlements_ms.iter().position(|at_ms| *at_ms >= until_ms);
        let left = first.map_or(0, |first| state.settlements_ms.len() - first);
        let drained_after_ms = last_ms.saturating_sub(until_ms);
        let minutes = |ms: u64| ms as f64 / MINUTE as f64;
        let used = match self.happens {
            Happens::Away(Away::Backend)
            | Happens::HalfTheCallsFail
            | Happens::RefusesAFirstBurst
            | Happens::Nothing => None,
            Happens::Away(Away::NineTenths) => {
                let done = within(&state.settlements_ms);
                Some(done as f64 / (plan.requests_per_minute as f64 / 10.0 * minutes(FOR_MS)))
            }
            Happens::CapAtTwoFifths => {
                let spent = state.spend.get(&UtcDay::of(BEGINNING_MS)).map(DaySpend::committed_micro_usd);
                Some(spent.unwrap_or(0) as f64 / plan.limits.spend_cap_micro_usd as f64)
            }
            Happens::Away(_) => {
                Some(left as f64 / (plan.requests_per_minute as f64 * minutes(drained_after_ms)))
            }
        };
        let figures = Figures {
            held_after_ms: self.pauses.and_then(|(cause, _)| {
                let mut its_own = state.held_ms.iter().filter(|(held, _)| *held == cause);
                its_own.find_map(|(_, at_ms)| at_ms.checked_sub(from_ms))
            }),
            paused_after_ms: state.shut_ms.iter().find_map(|at_ms| at_ms.checked_sub(from_ms)),
            pauses: state.stats.pauses.values().sum(),
            calls: within(&state.calls_ms),
            invocations: within(&state.invocations_ms),
            letters: state.stats.letters.values().sum(),
            first_after_ms: first.map(|first| state.settlements_ms[first] - until_ms),
            drained_after_ms,
            used_percent: used.map(|used| 100.0 * used),
            faults: Vec::new(),
        };
        Figures { faults: self.faults(&figures, state), ..figures }
    }

    fn faults(&self, figures: &Figures, state: &State) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |bad: bool, what: String| {
            if bad {
                faults.push(what);
            }
        };
        match self.pauses {
            None => check(figures.pauses > 0, format!("pauses: {:?}", state.stats.pauses)),
            Some((cause, within_ms)) => {
                // What a bad deploy leaves in flight is too much where much waits.
                let may_be = |other: &str| {
                    other == cause.as_str() || (cause == Cause::Deaths && other == Cause::InFlight.as_str())
                };
                let others = state.stats.pauses.keys().any(|other| !may_be(other));
                check(others, format!("pauses for something else: {:?}", state.stats.pauses));
                let pauses = state.stats.pauses.get(cause.as_str()).copied().unwrap_or_default();
                check(!(1..=3).contains(&pauses), format!("pauses {pauses} times for it"));
                check(
                    figures.held_after_ms.is_none_or(|after_ms| after_ms > within_ms),
                    format!("no pause for it within {} s: {:?}", within_ms / SECOND, figures.held_after_ms),
                );
            }
        }
        let jobs = state.inputs.len();
        let is_shut = matches!(self.happens, Happens::Away(Away::Provider | Away::Answers | Away::Account));
        check(
            is_shut && figures.invocations > jobs / 100 + 100,
            "jobs are received in vain while nobody may call".to_owned(),
        );
        check(!self.may_bury && figures.letters > 0, format!("dead letters: {:?}", state.stats.letters));
        let least = match self.happens {
            Happens::Away(Away::Answers) => USED_AFTER_HANGING_PERCENT_MIN,
            _ => USED_PERCENT_MIN,
        };
        check(
            figures.used_percent.is_some_and(|percent| percent.is_nan() || percent < least),
            format!("less than {least} % of the limit is used"),
        );
        faults
    }
}
