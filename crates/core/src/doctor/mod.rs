//! What is wrong with a stack, judged from what AWS says of it: findings, each with what to do.
//!
//! What was not looked at is `None`, and gives no finding here: whoever looked says why.

use serde::Serialize;

use crate::limits::Limits;

/// Clocks differ by the time of a request, and by seconds where nothing keeps them. From five minutes on AWS refuses
/// what is signed ("Signature Version 4", "RequestTimeTooSkewed").
const CLOCK_SKEW_MS_MAX: u64 = 60_000;
/// Beside the worker, the redrive's function and the sentinel need one execution each.
const OTHER_EXECUTIONS: u32 = 2;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Jobs are not worked on, are worked on wrongly, or nobody would be told.
    Fault,
    /// It works, and something is not as this build would have it.
    Warning,
}

impl Severity {
    /// The word that people and programs read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// A word for programs, which stays the same.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub what: String,
    /// What to do, in one sentence.
    pub remedy: String,
}

impl Finding {
    /// It stops work, or hides that work has stopped.
    pub fn fault(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Fault, code, what: what.into(), remedy: remedy.into() }
    }

    /// It works all the same.
    pub fn warning(code: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, what: what.into(), remedy: remedy.into() }
    }
}

/// What AWS says of a stack.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The stack's prefix.
    pub stack: String,
    /// When the build that looks was made, in milliseconds since 1970; 0: it does not know.
    pub built_at_ms: u64,
    /// The clock here, less AWS's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// The worker's limits, as it is told them; or why this build cannot read what it is told.
    pub limits: Option<Result<Limits, String>>,
    /// As Lambda tells its live version; none where it could not be read.
    pub worker: Option<Function>,
    /// What runs beside it may take of the account.
    pub executions: Option<Executions>,
    /// What takes messages from the jobs queue.
    pub sources: Option<Vec<EventSource>>,
    /// Why the stack is paused; `Some(None)`: it is not.
    pub paused: Option<Option<String>>,
    /// The jobs queue.
    pub queue: Option<Queue>,
    /// Where the model key is to be, and whether it is; `None` also where there need not be one.
    pub key: Option<Key>,
    /// How often the provider refused the account within the last hour.
    pub account_failures: Option<u64>,
    /// What the provider said to one call, where one was made and refused.
    pub refusal: Option<String>,
    /// The stack's alarms, without the parts of composite ones.
    pub alarms: Option<Vec<Alarm>>,
    /// Those whom the alarms' topics tell.
    pub topics: Option<Vec<Topic>>,
    /// What became of the test alarm, where one was raised.
    pub page: Option<Page>,
}

/// What is deployed.
#[derive(Debug, Clone, Default)]
pub struct Function {
    /// The version that works.
    pub live: u64,
    /// The newest version that there is.
    pub newest: u64,
    /// When the one that works was deployed, in milliseconds since 1970.
    pub deployed_at_ms: u64,
    /// After this time Lambda stops it.
    pub timeout_ms: u64,
    /// The stack that it says it is of.
    pub says_stack: String,
    /// The ledger that it writes to.
    pub ledger: String,
    /// The executions that are kept for it.
    pub reserved: Option<u32>,
}

/// How much may run at once.
#[derive(Debug, Clone, Copy)]
pub struct Executions {
    /// In the whole account.
    pub all: u32,
    /// Of that, what no function has kept for itself.
    pub unreserved: u32,
}

/// Something that takes messages from the jobs queue.
#[derive(Debug, Clone, Default)]
pub struct EventSource {
    /// The function, by its ARN.
    pub function: String,
    /// `Enabled`, `Disabled`, or on the way.
    pub state: String,
    /// Messages in an invocation.
    pub batch_size: u32,
    /// Invocations at once; 0: as many as Lambda likes.
    pub concurrency_max: u32,
    /// Whether single records may fail.
    pub reports_failures: bool,
    /// What Lambda says of its last try, where that is a problem.
    pub problem: Option<String>,
}

/// The jobs queue's own settings.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// How long a received message stays hidden.
    pub visibility_ms: u64,
    /// How long SQS keeps a message.
    pub retention_ms: u64,
    /// After so many receives it goes to `gives_up_to`.
    pub receive_count_max: u32,
    /// The name of that queue; empty: none, and SQS deletes what it gives up on.
    pub gives_up_to: String,
}

/// Where the model key is.
#[derive(Debug, Clone)]
pub struct Key {
    /// `secret NAME` or `parameter NAME`.
    pub place: String,
    /// Whether a value stands there.
    pub is_set: bool,
}

/// What CloudWatch says of one of the stack's alarms.
#[derive(Debug, Clone, Default)]
pub struct Alarm {
    /// With the stack's prefix, as CloudWatch has it.
    pub name: String,
    /// It is raised now.
    pub raised: bool,
    /// Its actions are on.
    pub actions_on: bool,
    /// What it does when it is raised.
    pub actions: Vec<String>,
    /// What it does when it is over.
    pub actions_after: Vec<String>,
}

/// One topic that alarms tell.
#[derive(Debug, Clone, Default)]
pub struct Topic {
    /// Whom the alarms' actions name.
    pub arn: String,
    /// Subscribers who confirmed.
    pub confirmed: u32,
    /// Subscribers who have not, by their address.
    pub pending: Vec<String>,
}

/// A test alarm, and what SNS counts of it.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The topic's name.
    pub topic: String,
    /// Subscribers that it was to reach.
    pub expected: u32,
    /// Deliveries that SNS counts since.
    pub delivered: u32,
}

/// All that is wrong, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found =
        [here(facts), deployed(facts), intake(facts), queue(facts), model(facts), alarms(facts)].concat();
    found.sort_by_key(|finding| finding.severity);
    found
}

/// Keeps a finding where it is true.
fn when(is_so: bool, finding: impl FnOnce() -> Finding) -> Option<Finding> {
    is_so.then(finding)
}

fn limits(facts: &Facts) -> Option<&Limits> {
    facts.limits.as_ref().and_then(|limits| limits.as_ref().ok())
}

fn here(facts: &Facts) -> Vec<Finding> {
    let ahead_ms = facts.clock_ahead_ms.unwrap_or_default();
    let skew = when(ahead_ms.unsigned_abs() > CLOCK_SKEW_MS_MAX, || {
        let way = if ahead_ms > 0 { "ahead of" } else { "behind" };
        Finding::warning(
            "clock_skew",
            format!(
                "This machine's clock is {} s {way} AWS's, so times such as 2h mean others.",
                ahead_ms.unsigned_abs() / 1_000
            ),
            "Set the clock, for instance by NTP: from five minutes on AWS refuses every request.",
        )
    });
    let unreadable = match &facts.limits {
        Some(Err(fault)) => Some(Finding::fault(
            "settings_unreadable",
            format!("This build cannot read what the worker is told: {fault}"),
            "Use the nightshift of the release that is deployed, or deploy this one.",
        )),
        _ => None,
    };
    skew.into_iter().chain(unreadable).collect()
}

fn deployed(facts: &Facts) -> Vec<Finding> {
    let Some(worker) = &facts.worker else { return Vec::new() };
    let stack = &facts.stack;
    let own_ledger = format!("{stack}-ledger");
    let timeout = limits(facts).map_or(worker.timeout_ms, |limits| limits.function_timeout_ms);
    let needed = limits(facts).map_or(0, |limits| limits.concurrency_max);
    [
        when(facts.built_at_ms > worker.deployed_at_ms, || {
            Finding::warning(
                "older_build",
                "What is deployed is older than this build: it was deployed before the last change of this one's source.",
                "Deploy (scripts/deploy), or use the nightshift of the release that is deployed.",
            )
        }),
        when(worker.live < worker.newest, || {
            Finding::warning(
                "rolled_back",
                format!("Version {} works, and {} is the newest.", worker.live, worker.newest),
                "Deploy when the cause is mended; runbook/procedures/roll-back.md says what a roll-back leaves behind.",
            )
        }),
        when(worker.timeout_ms != timeout, || {
            Finding::fault(
                "timeout_differs",
                format!("Lambda stops the worker after {} s, and the worker is told {} s.", worker.timeout_ms / 1_000, timeout / 1_000),
                "Somebody changed the function by hand: deploy, which sets both.",
            )
        }),
        when(worker.says_stack != *stack, || {
            Finding::fault(
                "stack_differs",
                format!("The worker of {stack} counts itself to the stack {:?}, and the alarms of {stack} see nothing of it.", worker.says_stack),
                "Deploy, which sets NIGHTSHIFT_STACK; another stack's state may have been applied over this one.",
            )
        }),
        when(worker.ledger != own_ledger, || {
            Finding::warning(
                "ledger_differs",
                format!("The worker writes to the ledger {}, not to {own_ledger}.", worker.ledger),
                "After a restore this is meant (runbook/procedures/restore-the-ledger.md); otherwise two stacks share one ledger: deploy each with its own prefix and state.",
            )
        }),
        facts.executions.and_then(|executions| {
            let there = worker.reserved.unwrap_or_else(|| executions.unreserved.saturating_sub(OTHER_EXECUTIONS));
            let (who, remedy) = match worker.reserved {
                Some(_) => ("its own reserved concurrency", "Deploy, which undoes what was set by hand; otherwise raise worker.reserved_concurrency, or lower queues.maximum_concurrency."),
                None => ("the account", "Lower queues.maximum_concurrency, or ask for a higher quota of Lambda's concurrent executions (Service Quotas, L-B99A9384)."),
            };
            when(there < needed, || {
                Finding::fault(
                    "quota_too_low",
                    format!("The worker may run {needed} times at once, and {who} lets it run {there} times ({} in all in the account).", executions.all),
                    remedy,
                )
            })
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn intake(facts: &Facts) -> Vec<Finding> {
    let Some(sources) = &facts.sources else { return Vec::new() };
    let own = format!(":function:{}-worker:live", facts.stack);
    let (ours, others): (Vec<_>, Vec<_>) = sources.iter().partition(|source| source.function.ends_with(&own));
    let mut found: Vec<Finding> = others
        .iter()
        .map(|other| {
            Finding::fault(
                "two_stacks_on_one_queue",
                format!(
                    "{} takes jobs from this queue too, so jobs of this stack are lost to it.",
                    other.function
                ),
                "Delete that event source mapping, and give each stack a prefix and a state of its own.",
            )
        })
        .collect();
    let Some(source) = ours.first() else {
        found.push(Finding::fault(
            "no_event_source",
            "Nothing leads from the jobs queue to the worker.",
            "Deploy, which makes the event source mapping anew.",
        ));
        return found;
    };
    found.extend(of_source(facts, source));
    found
}

fn of_source(facts: &Facts, source: &EventSource) -> impl Iterator<Item = Finding> {
    let off = matches!(source.state.as_str(), "Disabled" | "Disabling");
    let paused = facts.paused.clone().flatten();
    let limits = limits(facts);
    let batch = limits.map_or(source.batch_size, |limits| limits.batch_size);
    let wide = limits.map_or(source.concurrency_max, |limits| limits.concurrency_max);
    let differs = |what: &str, is: u32, told: u32| {
        Finding::warning(
            "event_source_differs",
            format!("The event source has a {what} of {is}, and the worker is told {told}."),
            "Somebody changed it by hand: deploy, which sets both.",
        )
    };
    [
        match &paused {
            Some(why) => Some(Finding::warning(
                "paused",
                format!("The stack is paused: {why}."),
                "When the cause is mended: `nightshift resume --reason '...'`.",
            )),
            None => when(off, || {
                Finding::fault(
                    "event_source_off",
                    "The event source is off, and nobody wrote why: no job is worked on.",
                    "Ask who turned it off; then `nightshift resume --reason '...'`.",
                )
            }),
        },
        when(!source.reports_failures, || {
            Finding::fault(
                "no_partial_failures",
                "The event source does not report single failures (ReportBatchItemFailures), so what the worker hands back is deleted.",
                "Pause at once (`nightshift pause`), deploy, which sets it, and resume.",
            )
        }),
        when(source.batch_size != batch, || differs("batch size", source.batch_size, batch)),
        when(source.concurrency_max != wide, || differs("maximum concurrency", source.concurrency_max, wide)),
        source.problem.as_ref().map(|problem| {
            Finding::fault(
                "event_source_problem",
                format!("Lambda cannot take jobs from the queue: {problem}."),
                "Deploy, which sets the role's permissions; with a key of your own, look at its policy too.",
            )
        }),
    ]
    .into_iter()
    .flatten()
}

fn queue(facts: &Facts) -> Vec<Finding> {
    let Some(queue) = &facts.queue else { return Vec::new() };
    let own = format!("{}-crashed", facts.stack);
    let gives_up_nowhere = queue.gives_up_to.is_empty();
    let gives_up = if gives_up_nowhere {
        Some(Finding::fault(
            "no_crashed_queue",
            "What SQS gives up on goes nowhere, and is deleted when its retention ends.",
            "Deploy, which sets the redrive policy of the jobs queue.",
        ))
    } else {
        when(queue.gives_up_to != own, || {
            Finding::fault(
                "crashed_queue_differs",
                format!(
                    "What SQS gives up on goes to {}, where no alarm of this stack looks.",
                    queue.gives_up_to
                ),
                "Deploy each stack with its own prefix and state, which sets the redrive policy.",
            )
        })
    };
    let told = limits(facts).into_iter().flat_map(|limits| {
        // Without a redrive policy there is no count to compare.
        let receives = if gives_up_nowhere { limits.receive_count_max } else { queue.receive_count_max };
        [
            ("visibility timeout of {} s", queue.visibility_ms / 1_000, limits.visibility_timeout_ms / 1_000),
            ("retention of {} s", queue.retention_ms / 1_000, limits.retention_ms / 1_000),
            ("maxReceiveCount of {}", receives.into(), limits.receive_count_max.into()),
        ]
    });
    let differs = told.filter(|(_, is, told)| is != told).map(|(what, is, told)| {
        Finding::fault(
            "queue_differs",
            format!(
                "The jobs queue has a {}, and the worker is told {told}.",
                what.replace("{}", &is.to_string())
            ),
            "Somebody changed the queue by hand: deploy, which sets both.",
        )
    });
    gives_up.into_iter().chain(differs).collect()
}

fn model(facts: &Facts) -> Vec<Finding> {
    let absent = facts.key.as_ref().filter(|key| !key.is_set).map(|key| {
        Finding::fault(
            "key_absent",
            format!("The {} has no value, so no model can be called.", key.place),
            "Write it: `nightshift key set --reason '...'`.",
        )
    });
    let refused = match (&facts.refusal, facts.account_failures) {
        (Some(said), _) => Some(format!("The provider refuses this account: {said}.")),
        (None, Some(times @ 1..)) => {
            Some(format!("The provider refused this account {times} times within the last hour."))
        }
        (None, _) => None,
    };
    let refused = refused.map(|what| {
        Finding::fault(
            "account_refused",
            what,
            "runbook/model-account.md: a good key (`nightshift key set`), credit, or access to the model, by what `nightshift key check` says.",
        )
    });
    absent.into_iter().chain(refused).collect()
}

fn alarms(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(alarms) = &facts.alarms else { return found };
    if alarms.is_empty() {
        found.push(Finding::fault(
            "no_alarms",
            format!("There is no alarm {}-...: whatever stops work, nobody is told.", facts.stack),
            "Deploy, which makes them.",
        ));
    }
    let paused = matches!(facts.paused, Some(Some(_)));
    for Alarm { name, raised, actions_on, actions, .. } in alarms {
        let page = name.strip_prefix(&format!("{}-", facts.stack)).unwrap_or(name);
        // A pause keeps two of them quiet, and says so.
        found.extend(when(!actions_on && !paused, || {
            Finding::fault(
                "alarm_silent",
                format!("The actions of {name} are off: it calls nobody."),
                format!("aws cloudwatch enable-alarm-actions --alarm-names {name}"),
            )
        }));
        found.extend(when(actions.is_empty(), || {
            Finding::fault(
                "alarm_without_action",
                format!("{name} tells nobody."),
                "Deploy, which sets its topic.",
            )
        }));
        found.extend(when(*raised, || {
            Finding::warning(
                "alarm_raised",
                format!("{name} is raised."),
                format!("Follow runbook/{page}.md."),
            )
        }));
    }
    for topic in facts.topics.iter().flatten() {
        let name = topic.arn.rsplit(':').next().unwrap_or(&topic.arn);
        found.extend(when(topic.confirmed == 0, || {
            Finding::fault(
                "nobody_is_told",
                format!("The topic {name} has no confirmed subscriber."),
                "Confirm the mail that AWS sent, or add page_emails, ticket_emails or notify and deploy.",
            )
        }));
        found.extend(topic.pending.iter().map(|address| {
            Finding::warning(
                "subscriber_unconfirmed",
                format!("{address} has not confirmed its subscription to {name}."),
                "Confirm the mail that AWS sent; after three days AWS forgets it, and a deploy sends another.",
            )
        }));
    }
    found.extend(facts.page.as_ref().filter(|page| page.delivered < page.expected).map(|page| {
        Finding::fault(
            "page_not_delivered",
            format!("Of {} subscribers of {}, SNS counts {} as reached.", page.expected, page.topic, page.delivered),
            "Look at the endpoints, and at the topic's policy and key: SNS counts a delivery within five minutes, so ask again after that before you change anything.",
        )
    }));
    found
}

#[cfg(test)]
mod tests;
