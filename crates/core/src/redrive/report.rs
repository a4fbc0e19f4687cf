//! What a redrive would do, before it does it: how many, of what, for how much, and whether anything has changed since.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choose::Letter;
use super::record::{Depth, Redrive};
use super::request::{Request, Source};
use crate::cost::usd;
use crate::failure::FailureReason;
use crate::record::{Failed, Record, State};

/// What is deployed now, as far as it could help what failed before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deployed {
    /// The worker's version that jobs reach; `None`: it could not be read.
    pub live_version: Option<u64>,
    /// The worker's version of the build that knows `revisions`.
    pub built_version: u64,
    /// The hash of prompt, schema and model settings, by task (`Revision::hash`), at `built_version`.
    pub revisions: BTreeMap<String, String>,
    /// When work was last resumed after a pause.
    pub resumed: Resumed,
}

/// When work was last resumed after a pause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resumed {
    /// The control record could not be read, or was not asked.
    #[default]
    Unknown,
    /// Never, as far as the control record says.
    Never,
    /// At this time, in milliseconds since 1970.
    At(u64),
}

/// What a job may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobCost {
    /// The most that one call can cost, with the longest body that is allowed.
    pub call_micro_usd_max: u64,
    /// Paid calls of one job.
    pub paid_call_limit: u32,
    /// What all jobs of a UTC day may cost.
    pub day_micro_usd_max: u64,
}

/// The answer to a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Where the messages are.
    pub source: Source,
    /// How many would be sent: from `dead-letters` as many as the ledger knows, from `crashed` all that the queue holds,
    /// because the ledger may know nothing of them. No more than the limit.
    pub matching: u64,
    /// The same by reason and task; empty for `crashed`.
    pub counts: Vec<Count>,
    /// What the queue holds, by its own approximate counters.
    pub queue: Depth,
    /// What it can cost at most, in dollars: no day costs more than its cap.
    pub cost_usd_max: f64,
    /// What it would probably cost, in dollars: one call a job, at what calls of its task cost before. Nothing where no
    /// call is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd_probable: Option<f64>,
    /// How long sending takes at least, in seconds.
    pub sending_s: u64,
    /// What to think of first, in sentences.
    pub warnings: Vec<String>,
}

/// How many jobs of one task failed for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The word.
    pub reason: String,
    /// The task; nothing where the body was no job.
    pub task: Option<String>,
    /// How many.
    pub messages: u64,
}

/// Counts failed records, one after the other.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(String, Option<String>), u64>,
    /// Calls that cost something, and what they cost, by task.
    paid: BTreeMap<Option<String>, (u64, u64)>,
    unchanged: u64,
    /// Those of which nobody can say whether anything has changed, and the version that is live.
    unknown: u64,
    live_version: Option<u64>,
    resumed: Resumed,
    /// Those that failed at the build that is live, and nobody can say whether work was resumed since.
    resumed_unknown: u64,
}

/// Whether anything that could help a failure has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    Yes,
    No,
    /// A version is live of which this build does not know the revisions, or nobody knows which one is.
    Unknown,
    /// Not the build, and whether work was resumed is not known.
    ResumedUnknown,
}

/// What would have to change before a job that failed so can succeed.
enum Needs {
    /// Time: the provider's capacity and health.
    Weather,
    /// Another prompt, schema or model: the way may have been opened again meanwhile, which the model does not notice.
    Revision,
    /// Another build, other settings, or somebody who resumed work because the cause was mended.
    Build,
}

fn needs(reason: FailureReason) -> Needs {
    match reason {
        FailureReason::CapacityTimeout | FailureReason::AttemptsExhausted => Needs::Weather,
        FailureReason::InvalidMessage
        | FailureReason::UnknownTask
        | FailureReason::InvalidInput
        | FailureReason::Poison
        | FailureReason::Internal => Needs::Build,
        FailureReason::RequestRejected
        | FailureReason::Refused
        | FailureReason::Truncated
        | FailureReason::InvalidOutput
        | FailureReason::ResultTooLarge
        | FailureReason::ReviewRejected => Needs::Revision,
    }
}

impl Deployed {
    /// Whether anything that could help a failure has changed since.
    fn has_changed(&self, task: Option<&str>, failed: &Failed) -> Changed {
        let is_resumed = matches!(self.resumed, Resumed::At(resumed_ms) if resumed_ms > failed.failed_at_ms);
        let same = |is_same| if is_same { Changed::No } else { Changed::Yes };
        match (needs(failed.reason), self.live_version) {
            (Needs::Weather, _) => Changed::Yes,
            (Needs::Build, _) if is_resumed => Changed::Yes,
            (_, None) => Changed::Unknown,
            (Needs::Build, Some(live)) if live != failed.revision.function_version => Changed::Yes,
            (Needs::Build, Some(_)) if self.resumed == Resumed::Unknown => Changed::ResumedUnknown,
            (Needs::Build, Some(_)) => Changed::No,
            (Needs::Revision, Some(live)) if live == self.built_version => same(
                task.and_then(|task| self.revisions.get(task))
                    .is_some_and(|hash| *hash == failed.revision.hash),
            ),
            (Needs::Revision, Some(live)) if live == failed.revision.function_version => Changed::No,
            (Needs::Revision, Some(_)) => Changed::Unknown,
        }
    }
}

impl Tally {
    /// Counts a record, if it is one of a failure that is asked for.
    pub fn add(&mut self, request: &Request, record: &Record, deployed: &Deployed) {
        let State::Failed(failed) = &record.state else { return };
        if !Letter::of_record(record).is_some_and(|letter| request.matches(&letter)) {
            return;
        }
        *self.counts.entry((failed.reason.to_string(), record.task.clone())).or_default() += 1;
        self.live_version = deployed.live_version;
        self.resumed = deployed.resumed;
        match deployed.has_changed(record.task.as_deref(), failed) {
            Changed::Yes => {}
            Changed::No => self.unchanged += 1,
            Changed::Unknown => self.unknown += 1,
            Changed::ResumedUnknown => self.resumed_unknown += 1,
        }
        let budget = &record.budget;
        if budget.cost_micro_usd > 0 {
            let paid = self.paid.entry(record.task.clone()).or_default();
            paid.0 = paid.0.saturating_add(u64::from(budget.calls.max(1)));
            paid.1 = paid.1.saturating_add(budget.cost_micro_usd);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn matching(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many a redrive of this request finds: what the ledger knows of, and without a filter all that is there, since a
    /// letter may be in the queue whose failure could not be written, or has expired.
    #[must_use]
    pub fn counted(&self, request: &Request, depth: Depth) -> u64 {
        match request.source {
            Source::Crashed => depth.total(),
            Source::DeadLetters if request.chooses() => self.matching(),
            Source::DeadLetters => self.matching().max(depth.total()),
        }
    }

    /// One call for each, at what calls of its task cost, or of all tasks where that one has none.
    fn probable_micro_usd(&self) -> Option<f64> {
        let mean = |(calls, micro_usd): &(u64, u64)| *micro_usd as f64 / (*calls).max(1) as f64;
        let all = self.paid.values().fold((0, 0), |sum, paid| (sum.0 + paid.0, sum.1 + paid.1));
        if all.0 == 0 {
            return None;
        }
        let of = |task: &Option<String>| self.paid.get(task).map_or(mean(&all), mean);
        // An empty sum of floats is -0.0, and would be shown so.
        Some(self.counts.iter().fold(0.0, |sum, ((_, task), messages)| sum + *messages as f64 * of(task)))
    }

    /// What the redrive of a request would come to.
    #[must_use]
    pub fn report(&self, request: &Request, depth: Depth, cost: JobCost, now_ms: u64) -> Report {
        let counted = self.counted(request, depth);
        let matching = counted.min(request.limit.unwrap_or(u64::MAX));
        let sending_ms = request.sending_ms(matching);
        // The days that it touches, and the one into which the last jobs may wait.
        let days = sending_ms / 86_400_000 + 3;
        let job_micro_usd = cost.call_micro_usd_max.saturating_mul(u64::from(cost.paid_call_limit));
        let most_micro_usd =
            matching.saturating_mul(job_micro_usd).min(cost.day_micro_usd_max.saturating_mul(days));
        let share = if counted > 0 { matching as f64 / counted as f64 } else { 0.0 };
        let probable = match request.source {
            Source::DeadLetters => self.probable_micro_usd(),
            Source::Crashed => None,
        };
        let mut warnings = self.warnings(request, depth, counted, now_ms);
        if probable.is_some_and(|micro_usd| micro_usd * share > cost.day_micro_usd_max as f64) {
            warnings.push(format!(
                "That is probably more than a day may cost, {:.2} USD: at the cap its jobs wait for the next UTC day, and all others with them.",
                usd(cost.day_micro_usd_max)
            ));
        }
        let mut counts: Vec<Count> = self
            .counts
            .iter()
            .map(|((reason, task), messages)| Count {
                reason: reason.clone(),
                task: task.clone(),
                messages: *messages,
            })
            .collect();
        counts.sort_by_key(|count| std::cmp::Reverse(count.messages));
        Report {
            source: request.source,
            matching,
            counts: if request.source == Source::Crashed { Vec::new() } else { counts },
            queue: depth,
            cost_usd_max: usd(most_micro_usd),
            cost_usd_probable: probable.map(|micro_usd| micro_usd * share / 1e6),
            sending_s: sending_ms.div_ceil(1_000),
            warnings,
        }
    }

    /// What is known of what has changed since these failed.
    fn of_change(&self, counted: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.unchanged > 0 {
            let build = if self.resumed == Resumed::Unknown {
                ""
            } else {
                " (or, where that is at fault, the same build, and no work was resumed since)"
            };
            warnings.push(format!(
                "{} of {counted} would meet what they failed at: the same revision of their task and the same model{build}. The same failure is paid for again: mend the cause first.",
                self.unchanged
            ));
        }
        if self.resumed_unknown > 0 {
            warnings.push(format!(
                "{} of {counted} failed at the build that is live, and whether work was resumed since is not known, so nobody can say whether they would meet the same: ask again when the control record can be read.",
                self.resumed_unknown
            ));
        }
        if self.unknown > 0 {
            let why = match self.live_version {
                Some(version) => {
                    format!(
                        "version {version} of the worker is live, which this redrive was not deployed with"
                    )
                }
                None => "which version of the worker is live could not be read".to_owned(),
            };
            warnings.push(format!(
                "{} of {counted} need another prompt, schema, model or build, and nobody can say whether they would meet one: {why}.",
                self.unknown
            ));
        }
        warnings
    }

    fn warnings(&self, request: &Request, depth: Depth, counted: u64, now_ms: u64) -> Vec<String> {
        let source = request.source.as_str();
        let mut warnings = Vec::new();
        if let Err(advice) = Redrive::begin(
            String::new(),
            Request { dry_run: false, ..request.clone() },
            counted,
            depth,
            now_ms,
        ) {
            warnings.push(format!("It would be refused. {advice}"));
        }
        match request.source {
            Source::DeadLetters if counted == 0 => warnings.push(format!(
                "No failed record matches, so nothing would be sent; {source} holds {} messages in all, and without a filter each is sent.",
                depth.total()
            )),
            Source::DeadLetters => {
                warnings.extend(self.of_change(counted));
                let unknown = counted.saturating_sub(self.matching());
                if unknown > 0 {
                    warnings.push(format!(
                        "{unknown} of {counted} are unknown to the ledger: their failures could not be written, or have expired, and nobody can say why they failed."
                    ));
                }
                if depth.total() < counted {
                    warnings.push(format!(
                        "Of these {counted}, which the ledger knows to have failed, {source} holds {} by SQS's own count, which lags: what was deleted, sent back by hand, or is older than the queue keeps is not sent.",
                        depth.total()
                    ));
                }
            }
            Source::Crashed if counted == 0 => {
                warnings.push(format!("{source} is empty, so nothing would be sent."));
            }
            Source::Crashed => {
                warnings.push(format!("The ledger may know nothing of what is in {source}, so everything in it is counted, whatever the filter, and nobody can say why it failed: look for what ended the workers first."));
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Revision;
    use crate::redrive::reset::tests::{done, failed};

    const COST: JobCost =
        JobCost { call_micro_usd_max: 100_000, paid_call_limit: 6, day_micro_usd_max: 5_000_000 };

    fn deployed() -> Deployed {
        let revisions =
            [("a", "hash-a"), ("b", "hash-b")].map(|(task, hash)| (task.to_owned(), hash.to_owned()));
        Deployed {
            live_version: Some(7),
            built_version: 7,
            revisions: revisions.into(),
            resumed: Resumed::Never,
        }
    }

    /// A failure at 2,000, under the revision `hash` of version 7, after `calls` calls of 500 millionths each.
    fn of(reason: FailureReason, task: &str, hash: &str, calls: u32) -> Record {
        let mut record = failed(reason);
        record.task = (!task.is_empty()).then(|| task.to_owned());
        record.budget.calls = calls;
        record.budget.cost_micro_usd = u64::from(calls) * 500;
        if let State::Failed(failed) = &mut record.state {
            failed.revision = Revision { hash: hash.to_owned(), built_at_ms: 1, function_version: 7 };
        }
        record
    }

    fn all() -> Request {
        Request::all(Source::DeadLetters, "r", "c")
    }

    fn report(request: &Request, records: &[Record], depth: Depth) -> Report {
        let mut tally = Tally::default();
        for record in records {
            tally.add(request, record, &deployed());
        }
        tally.report(request, depth, COST, 1)
    }

    #[test]
    fn a_dry_run_counts_by_reason_and_task_and_says_what_it_would_cost() {
        let records = [
            of(FailureReason::Refused, "a", "old", 2),
            of(FailureReason::Refused, "a", "old", 4),
            of(FailureReason::CapacityTimeout, "b", "hash-b", 0),
            of(FailureReason::InvalidMessage, "", "", 0),
            done(),
        ];
        let found = report(&all(), &records, Depth { visible: 3, hidden: 1 });
        let counts: Vec<_> =
            found.counts.iter().map(|c| (c.reason.as_str(), c.task.as_deref(), c.messages)).collect();
        assert_eq!(
            counts,
            [("refused", Some("a"), 2), ("capacity_timeout", Some("b"), 1), ("invalid_message", None, 1)]
        );
        assert_eq!(found.matching, 4);
        // Six calls of at most 0.1 dollars each; one call each of 0.0005 on average.
        assert_eq!((found.cost_usd_max, found.cost_usd_probable), (2.4, Some(0.002)));
        for (rate, sending_s) in [(0.5, 8), (1.0, 4), (3.0, 2), (50.0, 1)] {
            let found = report(&Request { rate, ..all() }, &records, Depth { visible: 3, hidden: 1 });
            assert_eq!(found.sending_s, sending_s, "{rate} a second");
        }
        assert_eq!(found.sending_s, 1);
        // The invalid message alone would meet the same build.
        assert_eq!(found.warnings.len(), 1, "{:?}", found.warnings);
        assert!(
            found.warnings[0].starts_with("1 of 4 would meet what they failed at"),
            "{:?}",
            found.warnings
        );
    }

    #[test]
    fn a_filter_and_a_limit_hold_for_what_it_would_cost() {
        let mut request = all();
        request.tasks = vec!["a".to_owned()];
        request.limit = Some(5);
        let mut records = vec![of(FailureReason::Refused, "a", "old", 1); 10];
        records.push(of(FailureReason::Refused, "b", "old", 1));
        let found = report(&request, &records, Depth { visible: 11, hidden: 0 });
        assert_eq!((found.matching, found.counts.len(), found.counts[0].messages), (5, 1, 10));
        assert_eq!((found.cost_usd_max, found.cost_usd_probable), (3.0, Some(0.0025)));
        // No day costs more than its cap.
        request.limit = None;
        let found = report(&request, &vec![records[0].clone(); 1_000], Depth { visible: 1_000, hidden: 0 });
        assert_eq!(found.cost_usd_max, 15.0);
    }

    #[test]
    fn it_warns_when_nothing_that_could_help_has_changed() {
        let resumed = |at_ms| Deployed { resumed: Resumed::At(at_ms), ..deployed() };
        let newer = || Deployed { live_version: Some(8), built_version: 8, ..deployed() };
        // Version 8 was deployed with this build, and the alias put back.
        let put_back = || Deployed { built_version: 8, ..deployed() };
        let elsewhere = || Deployed { live_version: Some(6), built_version: 8, ..deployed() };
        for (reason, hash, now, same) in [
            (FailureReason::InvalidOutput, "hash-a", deployed(), true),
            (FailureReason::InvalidOutput, "hash-a", newer(), true),
            (FailureReason::InvalidOutput, "older", deployed(), false),
            (FailureReason::InvalidOutput, "hash-a", resumed(2_001), true),
            (FailureReason::Poison, "hash-a", resumed(2_001), false),
            (FailureReason::Poison, "hash-a", resumed(2_000), true),
            (FailureReason::Poison, "hash-a", deployed(), true),
            (FailureReason::Poison, "hash-a", newer(), false),
            (FailureReason::Poison, "hash-a", put_back(), true),
            (FailureReason::InvalidOutput, "of version 7", put_back(), true),
            (FailureReason::InvalidOutput, "hash-a", elsewhere(), false),
            (FailureReason::CapacityTimeout, "hash-a", deployed(), false),
            (FailureReason::AttemptsExhausted, "hash-a", deployed(), false),
        ] {
            let mut tally = Tally::default();
            tally.add(&all(), &of(reason, "a", hash, 1), &now);
            let found = tally.report(&all(), Depth { visible: 1, hidden: 0 }, COST, 1);
            let warned = found.warnings.iter().any(|w| w.contains("mend the cause first"));
            assert_eq!(warned, same, "{reason} {hash} {now:?}");
        }
        let unread = || Deployed { live_version: None, ..deployed() };
        for (reason, now, why) in [
            (FailureReason::Refused, elsewhere(), "version 6 of the worker is live"),
            (FailureReason::Refused, unread(), "which version of the worker is live could not be read"),
            (FailureReason::Poison, unread(), "which version of the worker is live could not be read"),
        ] {
            let mut tally = Tally::default();
            tally.add(&all(), &of(reason, "a", "hash-a", 1), &now);
            let found = tally.report(&all(), Depth { visible: 1, hidden: 0 }, COST, 1);
            assert!(found.warnings[0].contains(why), "{:?}", found.warnings);
        }
        // Whether work was resumed says something of the same build alone.
        let no_control = |now: Deployed| Deployed { resumed: Resumed::Unknown, ..now };
        for (reason, now, unchanged, resumed_unknown) in [
            (FailureReason::Poison, no_control(deployed()), 0, 1),
            (FailureReason::Poison, no_control(newer()), 0, 0),
            (FailureReason::InvalidOutput, no_control(deployed()), 1, 0),
        ] {
            let mut tally = Tally::default();
            tally.add(&all(), &of(reason, "a", "hash-a", 1), &now);
            assert_eq!(
                (tally.unchanged, tally.resumed_unknown),
                (unchanged, resumed_unknown),
                "{reason} {now:?}"
            );
            let found = tally.report(&all(), Depth { visible: 1, hidden: 0 }, COST, 1);
            let warned =
                found.warnings.iter().any(|w| w.contains("whether work was resumed since is not known"));
            assert_eq!(warned, resumed_unknown > 0, "{:?}", found.warnings);
            let claims = found.warnings.iter().any(|w| w.contains("no work was resumed since"));
            assert!(!claims, "{:?}", found.warnings);
        }
        // What is deployed for a task that nobody knows says nothing.
        let mut tally = Tally::default();
        tally.add(&all(), &of(FailureReason::Refused, "gone", "hash-a", 1), &deployed());
        assert_eq!(tally.unchanged, 0);
    }

    #[test]
    fn it_says_when_it_would_send_nothing_or_be_refused() {
        let warns = |request: &Request, records: &[Record], visible| {
            report(request, records, Depth { visible, hidden: 0 }).warnings.join(" ")
        };
        let mut choosing = all();
        choosing.tasks = vec!["a".to_owned()];
        assert!(warns(&choosing, &[], 9).contains("nothing would be sent; dead-letters holds 9 messages"));
        assert!(warns(&all(), &[], 0).contains("nothing would be sent; dead-letters holds 0 messages"));
        let unknown =
            report(&all(), &[of(FailureReason::Refused, "a", "old", 1)], Depth { visible: 9, hidden: 0 });
        assert_eq!(unknown.matching, 9);
        assert!(unknown.warnings.join(" ").contains("8 of 9 are unknown to the ledger"), "{unknown:?}");
        let few = warns(&all(), &vec![of(FailureReason::Refused, "a", "old", 1); 3], 2);
        assert!(
            few.contains("Of these 3, which the ledger knows to have failed, dead-letters holds 2 by"),
            "{few}"
        );
        let dear = vec![of(FailureReason::Refused, "a", "old", 100_000); 20_000];
        assert!(warns(&all(), &dear[..10_001], 20_000).contains("more than a day may cost, 5.00 USD"));
        assert!(!warns(&all(), &dear[..10_000], 10_000).contains("more than a day may cost"));
        let few = Request { limit: Some(10), ..all() };
        assert!(
            !warns(&few, &dear[..10_001], 20_000).contains("more than a day may cost"),
            "only ten are sent"
        );
        let large = warns(&choosing, &[of(FailureReason::Refused, "a", "old", 1)], 200_000);
        assert!(large.contains("It would be refused. dead-letters holds 200000 messages"), "{large}");
    }

    #[test]
    fn from_crashed_the_queue_is_counted() {
        let mut request = all();
        request.source = Source::Crashed;
        let records = [of(FailureReason::Refused, "a", "old", 1)];
        let found = report(&request, &records, Depth { visible: 40, hidden: 2 });
        assert_eq!((found.matching, found.counts.len(), found.cost_usd_probable), (42, 0, None));
        assert!(found.warnings[0].contains("everything in it is counted"), "{:?}", found.warnings);
        let none = report(&request, &records, Depth::default());
        assert!(none.warnings[0].contains("crashed is empty"), "{:?}", none.warnings);
    }
}
