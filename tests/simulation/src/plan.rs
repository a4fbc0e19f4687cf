//! What one run does: everything that a seed decides, and what the command line changes about it.

use nightshift_core::limits::Limits;
use nightshift_core::load_test;
use nightshift_core::output_validation::REASK_BYTES_MAX;
use nightshift_core::spread::Spread;

use crate::rng::Rng;

/// Milliseconds of a second, a minute, an hour and a day.
pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;
pub const DAY: u64 = 24 * HOUR;

/// Which kind of bad day it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Nothing goes wrong but what jobs themselves do.
    Calm,
    /// Everything at moderate rates.
    Faulty,
    /// Everything at high rates.
    Storm,
    /// The account, the provider, DynamoDB and the dead-letter queue are away for hours and days.
    Outages,
    /// Workers die at any await.
    Kills,
    /// Jobs that kill or panic their worker.
    Poison,
    /// Old and new workers side by side, again and again.
    Deploy,
    /// An operator who moves dead letters back, redrives beside that, and producers who send again.
    Redrive,
    /// So much goes wrong for so long that receives and retention run out.
    Retention,
    /// A fleet at its provider's rate limit.
    Throttled,
    /// A day's money is spent after a few calls, day after day.
    Capped,
    /// A gateway that refuses everybody for a while, and a firewall that refuses single texts, both without a reason.
    Refusals,
    /// What the sentinel pauses for, and what it must not, one after the other; operators beside it, and itself killed.
    Watched,
    /// Deploys that kill, and claims that die beside them because DynamoDB is away or now and then a worker is killed.
    Dying,
}

impl Profile {
    /// All of them, in the order in which consecutive seeds take them.
    pub const ALL: [Self; 14] = [
        Self::Calm,
        Self::Faulty,
        Self::Storm,
        Self::Outages,
        Self::Kills,
        Self::Poison,
        Self::Deploy,
        Self::Redrive,
        Self::Retention,
        Self::Throttled,
        Self::Capped,
        Self::Refusals,
        Self::Watched,
        Self::Dying,
    ];

    /// The word on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Faulty => "faulty",
            Self::Storm => "storm",
            Self::Outages => "outages",
            Self::Kills => "kills",
            Self::Poison => "poison",
            Self::Deploy => "deploy",
            Self::Redrive => "redrive",
            Self::Retention => "retention",
            Self::Throttled => "throttled",
            Self::Capped => "capped",
            Self::Refusals => "refusals",
            Self::Watched => "watched",
            Self::Dying => "dying",
        }
    }

    /// The profile of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }
}

/// Probabilities of what can go wrong, each per opportunity, while faults last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The worker dies before or after a port call takes effect; per call and side.
    pub kill_at_port: f64,
    /// The worker dies at a random moment of an invocation; per invocation.
    pub kill_at_time: f64,
    /// The environment is thrown away after an invocation.
    pub recycle: f64,
    /// Lambda's poller never sees the response.
    pub response_lost: f64,
    /// SQS does not carry out a deletion.
    pub delete_fails: f64,
    /// SQS delivers a message again while it is in flight.
    pub delivered_twice: f64,
    /// `ChangeMessageVisibility` fails.
    pub visibility_fails: f64,
    /// `SendMessage` of a dead letter fails, with or without the message having been sent.
    pub letter_fails: f64,
    /// One attempt of the SDK at DynamoDB is throttled.
    pub ledger_throttled: f64,
    /// One attempt takes effect and its reply is lost.
    pub ledger_reply_lost: f64,
    /// One attempt times out and takes effect later.
    pub ledger_delayed: f64,
    /// The table is slow for seconds.
    pub ledger_slow: f64,
    /// HTTP 500 of the provider.
    pub model_fails: f64,
    /// HTTP 529 of the provider.
    pub model_overloaded: f64,
    /// The answer never comes, with or without the adapter noticing.
    pub model_hangs: f64,
    /// The answer takes up to twice the call's timeout.
    pub model_slow: f64,
    /// The answer was made and billed, and the connection broke.
    pub model_reply_lost: f64,
    /// One answer that fails its schema, or is no JSON, or no text at all.
    pub model_lies: f64,
    /// One answer whose count of tokens is missing or cannot be right.
    pub model_miscounts: f64,
    /// The producer sends a message twice.
    pub sent_twice: f64,
    /// A finished or failed input is sent again later.
    pub sent_again: f64,
    /// An item past its expiry is really deleted when it is looked at; otherwise it still stands there.
    pub expired_deleted: f64,
    /// The sentinel's schedule leaves out a run, or starts two.
    pub run_skipped: f64,
    pub run_twice: f64,
    /// Most that a worker's clock is wrong, in milliseconds.
    pub skew_ms: u64,
}

/// What is away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Away {
    /// The account at the provider: key, credit, access.
    Account,
    /// A gateway before the provider, which refuses everybody in words that nobody knows.
    Gateway,
    /// The provider: overloaded or not reachable.
    Provider,
    /// What is behind the provider: it fails at once, with a status under which a call may have been paid for.
    Backend,
    /// The provider's answers: it takes calls, and says nothing.
    Answers,
    /// DynamoDB.
    Ledger,
    /// `SendMessage` to the dead-letter queue.
    Letters,
    /// The stack is paused by an operator.
    Paused,
    /// Room within the provider's rate limit, for everybody.
    Limit,
    /// Nine tenths of that limit.
    NineTenths,
    /// A deploy that works: one is live that kills its workers.
    Deploy,
    Sentinel,
}

/// A time in which something is away, in milliseconds of virtual time.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub what: Away,
    pub from_ms: u64,
    pub until_ms: u64,
}

/// Shares of the inputs that are not simply good work, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shares {
    /// Bodies that are no jobs, unknown tasks, inputs that break their rules.
    pub invalid: u64,
    /// The model refuses, is cut off, never obeys the schema, says too much, or rejects the request.
    pub unanswerable: u64,
    /// The model never obeys the schema and the task has a fallback.
    pub guarded: u64,
    /// The first answers are invalid, a later one is not.
    pub stubborn: u64,
    /// Kills its worker in mid-call.
    pub poison: u64,
    /// Makes the task's code panic.
    pub panics: u64,
    /// Is forbidden by a firewall.
    pub forbidden: u64,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where everything comes from.
    pub seed: u64,
    /// The kind of day.
    pub profile: Profile,
    /// Distinct inputs.
    pub jobs: u32,
    /// The worker's limits, the queue's and the function's settings among them.
    pub limits: Limits,
    /// Rates.
    pub faults: Faults,
    /// Outages.
    pub windows: Vec<Window>,
    /// Kinds of inputs.
    pub shares: Shares,
    /// Producers send over this time.
    pub arrival_ms: u64,
    /// Faults stop then; what is left must drain.
    pub faults_end_ms: u64,
    /// When a new revision goes live.
    pub deploys_ms: Vec<u64>,
    /// Every second deploy is a roll-back.
    pub rolls_back: bool,
    /// This revision and newer ones write words that older ones do not know.
    pub newer_words_from: u32,
    /// Revisions before this one do not know what a record says under its own version (letter sent, message kept, review):
    /// they write none of it, and leave what stands there on a record whose state they change.
    pub newer_attributes_from: u32,
    /// Over how many keys a word of the index is spread, where DynamoDB's limits are simulated; 0: it has none.
    pub index_keys: u32,
    /// How a day's money is spread by revisions in turn, whose settings differ,
    pub spreads: [Spread; 2],
    /// from this revision on; those before it take from the day's own record, by transactions.
    pub shards_from: u32,
    /// How often the operator looks at the dead letters; 0: never.
    pub operator_every_ms: u64,
    /// The sentinel runs each minute.
    pub sentinel: bool,
    /// When an operator resumes, besides the ends of pauses.
    pub resumes_ms: Vec<u64>,
    /// An operator also resumes what stands for long and only a person can end.
    pub answers_pages: bool,
    /// How many redrives there are at most; 0: none.
    pub redrives_max: u32,
    /// How many inputs a person erases.
    pub erasures: u32,
    /// How often a person reviews a result.
    pub reviews: u32,
    /// The provider's true limits; 0: none.
    pub requests_per_minute: u64,
    /// Tokens of input and output together; 0: none.
    pub tokens_per_minute: u64,
    /// The provider sends its rate-limit headers.
    pub headers: bool,
    /// Its usual latency, at least and at most.
    pub latency_ms: (u64, u64),
    /// Names of what the command line took away.
    pub without: Vec<String>,
    /// Half of the inputs are sent within a minute of one of so many moments; 0: all of them at random.
    pub bursts: u64,
    /// When each input is sent, instead of at random: a load test's.
    pub schedule: Option<load_test::Plan>,
}

/// What the command line may take away, and what it means; the shrinker tries them in this order.
pub const REMOVABLE: [&str; 23] = [
    "windows",
    "sentinel",
    "cap",
    "deploys",
    "redrives",
    "operator",
    "erasures",
    "reviews",
    "kills",
    "ledger-faults",
    "queue-faults",
    "letter-faults",
    "model-faults",
    "duplicates",
    "resends",
    "invalid",
    "unanswerable",
    "guarded",
    "stubborn",
    "poison",
    "panics",
    "forbidden",
    "skew",
];

impl Plan {
    /// The plan of a seed. `profile` overrides the one that the seed names.
    #[must_use]
    pub fn of_seed(seed: u64, profile: Option<Profile>) -> Self {
        let mut rng = Rng::new(seed, "plan", 0);
        let named = Profile::ALL[(seed % Profile::ALL.len() as u64) as usize];
        let profile = profile.unwrap_or(named);
        let limits = limits(&mut rng, profile);
        let strength = rng.pick(&[0.3, 1.0, 1.0, 2.0]);
        let faults = faults(profile, strength);
        let shares = shares(profile);
        // Waiting for days makes each job cost a hundred deliveries.
        let waits = matches!(profile, Profile::Retention | Profile::Outages | Profile::Capped);
        let jobs_max = if waits { 120 } else { 400 };
        let jobs = rng.range(60, jobs_max) as u32;
        let arrival_ms = match profile {
            Profile::Outages => rng.range(2 * HOUR, 2 * DAY),
            // All at once before it, or as a trickle through it.
            Profile::Watched => rng.pick(&[MINUTE, 2 * HOUR, DAY]),
            Profile::Dying => rng.range(30 * MINUTE, 6 * HOUR),
            // At once in full batches, or one by one for days.
            Profile::Capped => rng.pick(&[10 * SECOND, 10 * SECOND, 2 * DAY]),
            Profile::Deploy | Profile::Redrive => rng.range(20 * MINUTE, 12 * HOUR),
            Profile::Retention => rng.range(MINUTE, 6 * HOUR),
            _ => rng.range(MINUTE, 2 * HOUR),
        };
        let mut plan = Self {
            seed,
            profile,
            jobs,
            faults,
            windows: Vec::new(),
            shares,
            arrival_ms,
            faults_end_ms: arrival_ms + rng.range(30 * MINUTE, 4 * HOUR),
            deploys_ms: Vec::new(),
            rolls_back: false,
            newer_words_from: u32::MAX,
            newer_attributes_from: 0,
            index_keys: 0,
            spreads: [Spread::default(); 2],
            shards_from: 0,
            operator_every_ms: 0,
            sentinel: true,
            resumes_ms: Vec::new(),
            answers_pages: true,
            redrives_max: if profile == Profile::Redrive { 12 } else { 0 },
            erasures: if matches!(profile, Profile::Redrive | Profile::Faulty) { 20 } else { 0 },
            reviews: if matches!(profile, Profile::Redrive | Profile::Faulty | Profile::Deploy) {
                20
            } else {
                0
            },
            requests_per_minute: 0,
            tokens_per_minute: 0,
            headers: rng.chance(0.5),
            latency_ms: rng.pick(&[(200, 3_000), (1_000, 8_000), (50, 400)]),
            without: Vec::new(),
            bursts: 0,
            schedule: None,
            limits,
        };
        plan.fill(&mut rng);
        let shards = rng.pick(&[0, 0, 2, 3, 5]);
        let block_micro_usd = rng.pick(&[0, 1, 3, 8]) * CALL_MICRO_USD_MAX;
        plan.spreads = [shards, shards / 2].map(|shards| Spread::in_shards(shards, block_micro_usd));
        if profile == Profile::Capped && rng.chance(0.4) {
            plan.deploys_ms = (0..rng.range(1, 3)).map(|_| rng.range(0, plan.faults_end_ms)).collect();
            plan.deploys_ms.sort_unstable();
            (plan.rolls_back, plan.shards_from) = (rng.chance(0.5), 2);
        }
        plan
    }

    /// The parts of a plan that depend on its times.
    fn fill(&mut self, rng: &mut Rng) {
        let mut windows = Vec::new();
        let mut add = |what, from_ms: u64, for_ms: u64| {
            windows.push(Window { what, from_ms, until_ms: from_ms + for_ms });
        };
        match self.profile {
            Profile::Faulty | Profile::Storm => {
                for what in [Away::Account, Away::Provider, Away::Ledger, Away::Letters, Away::Paused] {
                    if rng.chance(0.5) {
                        add(what, rng.range(0, self.arrival_ms), rng.range(10 * SECOND, 20 * MINUTE));
                    }
                }
            }
            Profile::Outages => {
                let within_ms = self.arrival_ms;
                add(Away::Account, rng.range(0, within_ms), rng.range(HOUR, 3 * DAY));
                add(Away::Provider, rng.range(0, within_ms), rng.range(10 * MINUTE, 30 * HOUR));
                add(Away::Ledger, rng.range(0, within_ms), rng.range(MINUTE, 10 * HOUR));
                add(Away::Letters, rng.range(0, within_ms), rng.range(MINUTE, 10 * HOUR));
                add(Away::Paused, rng.range(0, within_ms), rng.range(MINUTE, DAY));
            }
            Profile::Retention => {
                // Beyond what receives and retention allow, so that the last chance must be taken.
                let what = rng.pick(&[Away::Account, Away::Provider, Away::Ledger, Away::Paused]);
                let most_ms = self.limits.retention_ms + DAY;
                add(what, 0, rng.range(DAY, most_ms));
                if rng.chance(0.5) {
                    add(Away::Account, rng.range(0, 2 * DAY), rng.range(HOUR, 2 * DAY));
                }
            }
            Profile::Watched => {
                let within_ms = self.arrival_ms.max(20 * MINUTE);
                const KINDS: [Away; 8] = [
                    Away::Account,
                    Away::Gateway,
                    Away::Provider,
                    Away::Limit,
                    Away::Paused,
                    Away::Deploy,
                    Away::Sentinel,
                    Away::Ledger,
                ];
                for _ in 0..rng.range(1, 4) {
                    let longest_ms = rng.pick(&[10 * MINUTE, HOUR, 6 * HOUR]);
                    add(rng.pick(&KINDS), rng.range(0, within_ms), rng.range(MINUTE, longest_ms));
                }
                if rng.chance(0.1) {
                    // Longer than SQS keeps a job.
                    add(Away::Paused, rng.range(0, within_ms), 8 * DAY);
                }
                self.resumes_ms = (0..rng.range(0, 3)).map(|_| rng.range(0, 2 * within_ms)).collect();
            }
            Profile::Dying => {
                const KINDS: [Away; 4] = [Away::Deploy, Away::Deploy, Away::Ledger, Away::Sentinel];
                for _ in 0..rng.range(3, 8) {
                    let (from_ms, for_ms) = (rng.range(0, self.arrival_ms), rng.range(3 * MINUTE, HOUR));
                    add(rng.pick(&KINDS), from_ms, for_ms);
                }
                self.resumes_ms = (0..rng.range(0, 3)).map(|_| rng.range(0, self.arrival_ms)).collect();
            }
            Profile::Refusals => {
                for _ in 0..rng.range(1, 3) {
                    add(Away::Gateway, rng.range(0, self.arrival_ms), rng.range(MINUTE, 6 * HOUR));
                }
            }
            Profile::Deploy | Profile::Redrive if rng.chance(0.4) => {
                add(Away::Provider, rng.range(0, self.arrival_ms), rng.range(MINUTE, 2 * HOUR));
            }
            _ => {}
        }
        if let Some(last_ms) = windows.iter().map(|window| window.until_ms).max() {
            self.faults_end_ms = self.faults_end_ms.max(last_ms + 10 * MINUTE);
        }
        self.windows = windows;
        if matches!(self.profile, Profile::Deploy | Profile::Faulty | Profile::Storm) {
            let deploys = if self.profile == Profile::Deploy { rng.range(2, 6) } else { 1 };
            self.deploys_ms = (0..deploys).map(|_| rng.range(0, self.faults_end_ms)).collect();
            self.deploys_ms.sort_unstable();
            if self.profile == Profile::Deploy {
                (self.rolls_back, self.newer_words_from, self.shards_from) = (rng.chance(0.6), 2, 2);
                self.newer_attributes_from = 2;
            }
        }
        if matches!(
            self.profile,
            Profile::Redrive
                | Profile::Faulty
                | Profile::Storm
                | Profile::Poison
                | Profile::Deploy
                | Profile::Refusals
        ) {
            self.operator_every_ms = rng.pick(&[MINUTE, 10 * MINUTE, HOUR]);
            if self.profile == Profile::Redrive && rng.chance(0.5) {
                self.deploys_ms = (0..rng.range(2, 4)).map(|_| rng.range(0, self.faults_end_ms)).collect();
                self.deploys_ms.sort_unstable();
                (self.rolls_back, self.newer_attributes_from) = (true, 2);
            }
            if self.profile == Profile::Redrive && rng.chance(0.3) {
                // Long enough for results and failures to expire in between.
                self.limits.result_expiry_ms = self.limits.retention_ms + HOUR;
                self.limits.failure_expiry_ms = self.limits.retention_ms + HOUR;
                self.operator_every_ms = 2 * DAY;
                self.faults_end_ms = 10 * DAY;
            }
        }
        if self.profile == Profile::Throttled {
            self.requests_per_minute = rng.pick(&[30, 120, 600]);
            self.tokens_per_minute = if rng.chance(0.5) { self.requests_per_minute * 700 } else { 0 };
            self.jobs = self.jobs.max(300);
            // At once, or over some minutes.
            self.arrival_ms = if rng.chance(0.5) { 10 * SECOND } else { rng.range(MINUTE, 10 * MINUTE) };
            if rng.chance(0.7) {
                self.limits.requests_per_minute = self.requests_per_minute;
                self.limits.tokens_per_minute = self.tokens_per_minute;
            }
            let minutes = u64::from(self.jobs) * 3 / self.requests_per_minute + 30;
            self.faults_end_ms = self.arrival_ms + minutes * MINUTE;
        }
    }

    /// The same plan for another number of inputs; many inputs come faster, as from a backlog.
    #[must_use]
    pub fn with_jobs(mut self, jobs: u32) -> Self {
        self.jobs = jobs;
        if jobs > 5_000 {
            self.limits.concurrency_max = 100;
            self.limits.batch_size = 10;
            if self.profile == Profile::Capped {
                // As many days as a hundred inputs take.
                self.limits.spend_cap_micro_usd *= u64::from(jobs / 100);
            }
            self.arrival_ms = self.arrival_ms.max(u64::from(jobs) * 20);
            self.faults_end_ms = self.faults_end_ms.max(self.arrival_ms + HOUR);
        }
        self
    }

    /// The same plan without one kind of trouble of [`REMOVABLE`].
    #[must_use]
    pub fn without(mut self, what: &str) -> Self {
        let faults = &mut self.faults;
        match what {
            "windows" => self.windows.clear(),
            "sentinel" => self.sentinel = false,
            "cap" => self.limits.spend_cap_micro_usd = NO_CAP_MICRO_USD,
            "deploys" => self.deploys_ms.clear(),
            "redrives" => self.redrives_max = 0,
            "erasures" => self.erasures = 0,
            "reviews" => self.reviews = 0,
            "operator" => (self.operator_every_ms, self.redrives_max) = (0, 0),
            "kills" => {
                (faults.kill_at_port, faults.kill_at_time) = (0.0, 0.0);
            }
            "ledger-faults" => {
                (faults.ledger_throttled, faults.ledger_reply_lost) = (0.0, 0.0);
                (faults.ledger_delayed, faults.ledger_slow) = (0.0, 0.0);
            }
            "queue-faults" => {
                (faults.response_lost, faults.delete_fails) = (0.0, 0.0);
                (faults.delivered_twice, faults.visibility_fails) = (0.0, 0.0);
            }
            "letter-faults" => faults.letter_fails = 0.0,
            "model-faults" => {
                (faults.model_fails, faults.model_overloaded, faults.model_hangs) = (0.0, 0.0, 0.0);
                (faults.model_slow, faults.model_reply_lost, faults.model_lies) = (0.0, 0.0, 0.0);
                faults.model_miscounts = 0.0;
            }
            "duplicates" => faults.sent_twice = 0.0,
            "resends" => faults.sent_again = 0.0,
            "invalid" => self.shares.invalid = 0,
            "unanswerable" => self.shares.unanswerable = 0,
            "guarded" => self.shares.guarded = 0,
            "stubborn" => self.shares.stubborn = 0,
            "poison" => self.shares.poison = 0,
            "panics" => self.shares.panics = 0,
            "forbidden" => self.shares.forbidden = 0,
            "skew" => faults.skew_ms = 0,
            _ => return self,
        }
        self.without.push(what.to_owned());
        self
    }

    /// Calls that may be open at once, in all environments together.
    #[must_use]
    pub fn full_width(&self) -> u32 {
        self.limits.concurrency_max * self.limits.batch_size
    }

    /// When the last of these windows ended that have begun, at this virtual time; `None`: one lasts.
    #[must_use]
    pub fn last_ended_ms(&self, at_ms: u64, of: &dyn Fn(Away) -> bool) -> Option<u64> {
        let begun = self.windows.iter().filter(|window| of(window.what) && window.from_ms <= at_ms);
        let last_ms = begun.map(|window| window.until_ms).max().unwrap_or(0);
        (last_ms <= at_ms).then_some(last_ms)
    }

    /// Whether something is away at this virtual time.
    #[must_use]
    pub fn away(&self, what: Away, at_ms: u64) -> bool {
        self.windows.iter().any(|w| w.what == what && w.from_ms <= at_ms && at_ms < w.until_ms)
    }
}

/// A spend cap that no run reaches.
pub const NO_CAP_MICRO_USD: u64 = 1_000_000_000_000;
/// What a worker reserves for one call, in round figures.
pub const CALL_MICRO_USD_MAX: u64 = 4_100 + REASK_BYTES_MAX as u64;

fn limits(rng: &mut Rng, profile: Profile) -> Limits {
    let mut limits = Limits {
        batch_size: rng.pick(&[1, 3, 10, 10]) as u32,
        concurrency_max: rng.pick(&[2, 5, 10, 20]) as u32,
        // The cap has a profile of its own, `capped`; elsewhere it must not get into the way.
        spend_cap_micro_usd: NO_CAP_MICRO_USD,
        body_bytes_max: 8 * 1_024,
        output_bytes_max: 2 * 1_024,
        ..Limits::default()
    };
    if rng.chance(0.4) {
        limits.function_timeout_ms = 60 * SECOND;
        limits.call_timeout_ms = 20 * SECOND;
        limits.visibility_timeout_ms = 6 * MINUTE;
    }
    if rng.chance(0.3) {
        limits.paid_call_limit = 3;
        limits.call_limit = 3;
    }
    if profile == Profile::Retention {
        limits.function_timeout_ms = 60 * SECOND;
        limits.call_timeout_ms = 20 * SECOND;
        limits.visibility_timeout_ms = 6 * MINUTE;
        limits.retention_ms = rng.pick(&[DAY, 2 * DAY, 4 * DAY]);
    }
    if profile == Profile::Capped {
        limits.spend_cap_micro_usd = rng.pick(&[2, 10, 25]) * CALL_MICRO_USD_MAX;
    }
    assert_eq!(limits.contradictions(), Vec::<String>::new(), "a plan is deployable");
    limits
}

fn shares(profile: Profile) -> Shares {
    let some = Shares {
        invalid: 20,
        unanswerable: 40,
        guarded: 20,
        stubborn: 40,
        poison: 0,
        panics: 0,
        forbidden: 0,
    };
    match profile {
        Profile::Poison => Shares { poison: 60, panics: 40, ..some },
        Profile::Faulty => Shares { poison: 4, panics: 4, ..some },
        Profile::Storm => Shares { poison: 10, panics: 10, stubborn: 100, ..some },
        Profile::Redrive => Shares { invalid: 60, unanswerable: 150, ..some },
        Profile::Throttled => Shares { invalid: 5, unanswerable: 5, stubborn: 10, ..some },
        Profile::Refusals => Shares { forbidden: 40, ..some },
        Profile::Watched | Profile::Dying => Shares { forbidden: 10, ..some },
        // Further calls, and dear ones.
        Profile::Capped => Shares { unanswerable: 80, stubborn: 200, panics: 10, ..some },
        _ => some,
    }
}

fn faults(profile: Profile, strength: f64) -> Faults {
    let moderate = Faults {
        kill_at_port: 0.001,
        kill_at_time: 0.02,
        recycle: 0.02,
        response_lost: 0.01,
        delete_fails: 0.005,
        delivered_twice: 0.01,
        visibility_fails: 0.02,
        letter_fails: 0.1,
        ledger_throttled: 0.02,
        ledger_reply_lost: 0.01,
        ledger_delayed: 0.005,
        ledger_slow: 0.005,
        model_fails: 0.02,
        model_overloaded: 0.02,
        model_hangs: 0.003,
        model_slow: 0.005,
        model_reply_lost: 0.003,
        model_lies: 0.03,
        model_miscounts: 0.02,
        sent_twice: 0.03,
        sent_again: 0.03,
        expired_deleted: 0.5,
        run_skipped: 0.05,
        run_twice: 0.05,
        skew_ms: 2_000,
    };
    let mut faults = match profile {
        Profile::Calm => Faults { skew_ms: 2_000, sent_twice: 0.03, sent_again: 0.03, ..Faults::default() },
        Profile::Storm => scaled(moderate, 4.0 * strength),
        Profile::Outages | Profile::Retention | Profile::Refusals | Profile::Watched => {
            scaled(moderate, 0.3 * strength)
        }
        Profile::Dying => Faults { kill_at_time: 0.3, model_slow: 0.1, ..scaled(moderate, 0.3 * strength) },
        Profile::Kills => Faults { kill_at_port: 0.004, kill_at_time: 0.1, ..scaled(moderate, 0.5) },
        Profile::Poison => Faults {
            skew_ms: 2_000,
            sent_twice: 0.05,
            letter_fails: 0.1,
            visibility_fails: 0.05,
            ..Faults::default()
        },
        Profile::Throttled => Faults { model_lies: 0.01, skew_ms: 2_000, recycle: 0.01, ..Faults::default() },
        Profile::Deploy => Faults { sent_again: 0.3, recycle: 0.1, ..scaled(moderate, strength) },
        Profile::Redrive => Faults { sent_again: 0.1, sent_twice: 0.1, ..scaled(moderate, strength) },
        Profile::Faulty => scaled(moderate, strength),
        Profile::Capped => Faults {
            model_hangs: 0.02,
            model_reply_lost: 0.05,
            model_miscounts: 0.05,
            ..scaled(moderate, strength)
        },
    };
    faults.expired_deleted = 0.5;
    faults
}

fn scaled(faults: Faults, by: f64) -> Faults {
    let s = |rate: f64| (rate * by).min(0.4);
    Faults {
        kill_at_port: s(faults.kill_at_port),
        kill_at_time: s(faults.kill_at_time),
        recycle: s(faults.recycle),
        response_lost: s(faults.response_lost),
        delete_fails: s(faults.delete_fails),
        delivered_twice: s(faults.delivered_twice),
        visibility_fails: s(faults.visibility_fails),
        letter_fails: s(faults.letter_fails),
        ledger_throttled: s(faults.ledger_throttled),
        ledger_reply_lost: s(faults.ledger_reply_lost),
        ledger_delayed: s(faults.ledger_delayed),
        ledger_slow: s(faults.ledger_slow),
        model_fails: s(faults.model_fails),
        model_overloaded: s(faults.model_overloaded),
        model_hangs: s(faults.model_hangs),
        model_slow: s(faults.model_slow),
        model_reply_lost: s(faults.model_reply_lost),
        model_lies: s(faults.model_lies),
        model_miscounts: s(faults.model_miscounts),
        sent_twice: s(faults.sent_twice),
        sent_again: s(faults.sent_again),
        run_skipped: s(faults.run_skipped),
        run_twice: s(faults.run_twice),
        ..faults
    }
}
