//! What became of the jobs of a test, in numbers.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;
use crate::cost::usd;
use crate::reconcile::{Fate, SentJob, fate};
use crate::record::{Record, State};

/// Columns of a chart.
const POINTS: u64 = 60;
/// Digits that a histogram keeps: a latency is right within a thousandth.
const DIGITS: u8 = 3;

/// One job of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When SQS took it, in milliseconds since the start; `None`: it did not.
    pub accepted_ms: Option<u64>,
    /// What became of it.
    pub fate: Fate,
    /// When, by the worker's clock, in milliseconds since the start.
    pub settled_ms: Option<u64>,
    /// From its last claim to its end, in milliseconds.
    pub work_ms: Option<u64>,
    /// Calls that were answered or may have been billed.
    pub calls: u32,
    /// Tokens in and out.
    pub tokens: u64,
    /// What they cost.
    pub cost_micro_usd: u64,
}

impl Sample {
    /// A job by its record. `started_ms`: the test's start; `queued`: its queue may still hold it.
    #[must_use]
    pub fn of(
        record: Option<&Record>,
        accepted_ms: Option<u64>,
        started_ms: u64,
        queued: bool,
        now_ms: u64,
    ) -> Self {
        // Its input was never sent before, so whatever stands there is its own.
        let fate = fate(record, SentJob { message_id: "", sent_ms: 0 }, queued, now_ms);
        let ended_ms = record.and_then(|record| match &record.state {
            State::Done(done) => Some(done.finished_at_ms),
            State::Failed(failed) => Some(failed.failed_at_ms),
            State::Claimed { .. } | State::Open | State::Erased => None,
        });
        let budget = record.map(|record| record.budget).unwrap_or_default();
        Self {
            accepted_ms,
            fate,
            settled_ms: ended_ms.map(|ms| ms.saturating_sub(started_ms)),
            work_ms: ended_ms.zip(record).map(|(ms, record)| ms.saturating_sub(record.last_claimed_ms)),
            calls: budget.calls,
            tokens: budget.usage.input_tokens.saturating_add(budget.usage.output_tokens),
            cost_micro_usd: budget.cost_micro_usd,
        }
    }

    /// Whether a queue that may hold it is all that keeps a job of this record from being missing.
    #[must_use]
    pub fn is_untraced(record: Option<&Record>, now_ms: u64) -> bool {
        fate(record, SentJob { message_id: "", sent_ms: 0 }, false, now_ms) == Fate::Missing
    }
}

/// What AWS says of the time of the test; `None`: it could not be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observed {
    /// Calls that the provider refused for its limits.
    pub throttled: Option<f64>,
    /// All calls.
    pub calls: Option<f64>,
    /// Deliveries that were handed back.
    pub handed_back: Option<f64>,
    /// Of them, by cause; empty where that could not be read, too.
    pub causes: BTreeMap<String, f64>,
    /// What is known of the alarms.
    pub alarms: Alarms,
}

/// What is known of the stack's alarms in the time of the test; in a document the names, or null.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Alarms {
    /// Those that were raised during the test and not before it.
    Raised(Vec<String>),
    /// They could not be read.
    #[default]
    Unread,
    /// A simulated fleet has none.
    NotSimulated,
}

/// Share of the calls that the ledger knows of that CloudWatch must have counted to be believed, in percent: it may be
/// minutes behind, and a server that stands in for it may count nothing.
const COUNTED_PERCENT_MIN: f64 = 90.0;

impl Observed {
    /// The same, without the counts where CloudWatch is behind: fewer throttles than there were are no throttles.
    #[must_use]
    pub fn unless_behind(self, measured: &Measured) -> Self {
        let calls = measured.cost.calls as f64;
        if self.calls.is_some_and(|counted| counted < calls * COUNTED_PERCENT_MIN / 100.0) {
            return Self { alarms: self.alarms, ..Self::default() };
        }
        self
    }
}

/// How many jobs ended how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// With a result.
    pub results: u64,
    /// With a result that a person should look at.
    pub reviews: u64,
    /// As dead letters, by reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Not yet.
    pub waiting: u64,
    /// Without a trace.
    pub missing: u64,
}

impl Outcomes {
    fn add(&mut self, fate: Fate) {
        *match fate {
            Fate::Result => &mut self.results,
            Fate::Review => &mut self.reviews,
            Fate::DeadLetter(reason) => self.dead_letters.entry(reason.to_string()).or_default(),
            Fate::Waiting => &mut self.waiting,
            // Nobody but an operator erases a test's job, and then nothing of it is left to judge.
            Fate::Missing | Fate::Erased => &mut self.missing,
        } += 1;
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.results + self.reviews + self.waiting + self.missing + self.dead_letters.values().sum::<u64>()
    }
}

/// Latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// How many there are of.
    pub count: u64,
    /// The median.
    pub p50_ms: u64,
    /// 90 % are no longer.
    pub p90_ms: u64,
    /// 95 %.
    pub p95_ms: u64,
    /// 99 %.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

impl Percentiles {
    fn of(histogram: Option<&Histogram<u64>>) -> Self {
        let Some(histogram) = histogram.filter(|histogram| !histogram.is_empty()) else {
            return Self::default();
        };
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: histogram.max(),
        }
    }
}

/// Money and calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// What the calls of the jobs cost, in dollars, by the prices that the stack knows.
    pub usd: f64,
    /// How many calls there were.
    pub calls: u64,
    /// Dollars a job, on average over those that ended: what still waits has not cost all that it will.
    pub usd_per_job: f64,
    /// Calls a job, on average over those.
    pub calls_per_job: f64,
    /// Tokens a job, in and out, on average over those.
    pub tokens_per_job: f64,
}

/// One column of the charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Point {
    /// Its beginning, in seconds since the start.
    pub at_s: f64,
    /// Jobs a second that were to be sent.
    pub offered: f64,
    /// Jobs a second that SQS took.
    pub accepted: f64,
    /// Jobs a second that ended.
    pub settled: f64,
    /// The most jobs at one time in it that SQS had taken and that had not ended.
    pub backlog: u64,
    /// Latencies of the jobs that were to be sent in it.
    pub latency: Percentiles,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Jobs that were to be sent until the test ended, the warm-up's included.
    pub offered: u64,
    /// Jobs that SQS took.
    pub accepted: u64,
    /// Whether it was stopped before its end.
    pub stopped_early: bool,
    /// What failed here, in sentences: not the stack, but the sending or the looking.
    pub troubles: Vec<String>,
    /// Jobs whose records could not be read: they count as waiting, and what their calls cost is not known.
    pub unread: u64,
    /// Jobs that count as waiting although nothing shows that they do: no record, nor a queue that surely holds them.
    pub untraced: u64,
    /// What became of all that SQS took.
    pub outcomes: Outcomes,
    /// Share of those after the warm-up that ended with a result, in percent.
    pub success_percent: f64,
    /// From the scheduled send to the end, after the warm-up. What had not ended counts with its age.
    pub latency: Percentiles,
    /// From the scheduled send until SQS had it: the test's own share.
    pub send_delay: Percentiles,
    /// From a job's last claim to its end.
    pub work: Percentiles,
    /// The most jobs that had not ended at one time.
    pub backlog_max: u64,
    /// Jobs an hour that ended, from the first end to the last.
    pub ended_per_hour: f64,
    /// From the last scheduled send to the last end, in seconds; `None`: not all ended.
    pub drain_s: Option<f64>,
    /// Money and calls.
    pub cost: Cost,
    /// The course of the test.
    pub course: Vec<Point>,
}

/// Adds up the jobs of a test, in their order. `offered`: how many were to be sent until it ended at `ended_ms` after
/// its start.
#[must_use]
pub fn measure(plan: &Plan, samples: &[Sample], offered: u64, ended_ms: u64) -> Measured {
    let mut outcomes = Outcomes::default();
    let (mut latency, mut send_delay, mut work) = (histogram(), histogram(), histogram());
    let (mut succeeded, mut counted) = (0_u64, 0_u64);
    let (mut all, mut of_ended, mut ended) = (Used::default(), Used::default(), 0_u64);
    let mut course = Course::new(ended_ms);
    let mut backlog = Backlog::default();
    for (job, sample) in (0..).zip(samples) {
        let scheduled_ms = plan.scheduled_ms(job);
        course.offered(scheduled_ms);
        let Some(accepted_ms) = sample.accepted_ms else { continue };
        outcomes.add(sample.fate);
        all.add(sample);
        if sample.settled_ms.is_some() {
            of_ended.add(sample);
            ended += 1;
        }
        let took_ms = sample.settled_ms.unwrap_or(ended_ms).saturating_sub(scheduled_ms);
        course.accepted(scheduled_ms, accepted_ms, sample.settled_ms, took_ms);
        backlog.add(accepted_ms, sample.settled_ms);
        if plan.is_warm_up(job) {
            continue;
        }
        counted += 1;
        succeeded += u64::from(matches!(sample.fate, Fate::Result | Fate::Review));
        record(latency.as_mut(), took_ms);
        record(send_delay.as_mut(), accepted_ms.saturating_sub(scheduled_ms));
        if let Some(work_ms) = sample.work_ms {
            record(work.as_mut(), work_ms);
        }
    }
    let accepted = outcomes.all();
    let ends = || samples.iter().filter_map(|sample| sample.settled_ms);
    let last_ms = ends().max().unwrap_or_default();
    let span_ms = last_ms.saturating_sub(ends().min().unwrap_or_default()).max(1);
    let ended_per_hour = ends().count().saturating_sub(1) as f64 * 3_600_000.0 / span_ms as f64;
    let last_scheduled_ms = offered.checked_sub(1).map_or(0, |job| plan.scheduled_ms(job));
    let per_job = |sum: f64| sum / ended.max(1) as f64;
    let backlog_max = backlog.peaks(&mut course);
    let course = course.end();
    Measured {
        offered,
        accepted,
        stopped_early: offered < plan.jobs(),
        troubles: Vec::new(),
        unread: 0,
        untraced: 0,
        success_percent: succeeded as f64 / counted.max(1) as f64 * 100.0,
        latency: Percentiles::of(latency.as_ref()),
        send_delay: Percentiles::of(send_delay.as_ref()),
        work: Percentiles::of(work.as_ref()),
        ended_per_hour,
        backlog_max,
        drain_s: (outcomes.waiting + outcomes.missing == 0)
            .then(|| last_ms.saturating_sub(last_scheduled_ms) as f64 / 1_000.0),
        cost: Cost {
            usd: usd(all.micro_usd),
            calls: all.calls,
            usd_per_job: per_job(usd(of_ended.micro_usd)),
            calls_per_job: per_job(of_ended.calls as f64),
            tokens_per_job: per_job(of_ended.tokens as f64),
        },
        outcomes,
        course,
    }
}

/// What jobs took of the provider.
#[derive(Default)]
struct Used {
    micro_usd: u64,
    calls: u64,
    tokens: u64,
}

impl Used {
    fn add(&mut self, sample: &Sample) {
        self.micro_usd = self.micro_usd.saturating_add(sample.cost_micro_usd);
        self.calls += u64::from(sample.calls);
        self.tokens = self.tokens.saturating_add(sample.tokens);
    }
}

fn histogram() -> Option<Histogram<u64>> {
    // Digits beyond five alone are refused.
    Histogram::new(DIGITS).ok()
}

fn record(histogram: Option<&mut Histogram<u64>>, ms: u64) {
    if let Some(histogram) = histogram {
        // It grows by itself, and refuses nothing that is a time.
        let _ = histogram.record(ms);
    }
}

/// When jobs began to wait, and ended.
#[derive(Default)]
struct Backlog {
    began_ms: Vec<u64>,
    ended_ms: Vec<u64>,
}

impl Backlog {
    fn add(&mut self, accepted_ms: u64, settled_ms: Option<u64>) {
        self.began_ms.push(accepted_ms);
        // It cannot have ended before it was taken, whatever the clocks say.
        self.ended_ms.extend(settled_ms.map(|settled_ms| settled_ms.max(accepted_ms)));
    }

    /// The most that waited at one time, in each column and in all.
    fn peaks(mut self, course: &mut Course) -> u64 {
        self.began_ms.sort_unstable();
        self.ended_ms.sort_unstable();
        let (mut ended, mut most) = (self.ended_ms.iter().peekable(), 0);
        let mut waiting = 0_u64;
        for began_ms in &self.began_ms {
            while let Some(ended_ms) = ended.next_if(|ended_ms| *ended_ms < began_ms) {
                waiting = waiting.saturating_sub(1);
                course.waits(*ended_ms, waiting);
            }
            waiting += 1;
            most = most.max(waiting);
            course.waits(*began_ms, waiting);
        }
        for ended_ms in ended {
            waiting = waiting.saturating_sub(1);
            course.waits(*ended_ms, waiting);
        }
        most
    }
}

#[derive(Default)]
struct Column {
    offered: u64,
    accepted: u64,
    settled: u64,
    /// The most that waited in it at one time, and what waited when something last changed in it.
    waiting: Option<(u64, u64)>,
    latency: Option<Histogram<u64>>,
}

struct Course {
    width_ms: u64,
    columns: Vec<Column>,
}

impl Course {
    fn new(ended_ms: u64) -> Self {
        let width_ms = (ended_ms / POINTS).max(1_000);
        let columns = ended_ms / width_ms + 1;
        Self { width_ms, columns: (0..columns).map(|_| Column::default()).collect() }
    }

    fn column(&mut self, ms: u64) -> Option<&mut Column> {
        // A worker's clock may be ahead of the test's.
        let last = self.columns.len().saturating_sub(1);
        let index = usize::try_from(ms / self.width_ms).unwrap_or(last).min(last);
        self.columns.get_mut(index)
    }

    fn offered(&mut self, scheduled_ms: u64) {
        self.column(scheduled_ms).map(|column| column.offered += 1).unwrap_or_default();
    }

    fn accepted(&mut self, scheduled_ms: u64, accepted_ms: u64, settled_ms: Option<u64>, took_ms: u64) {
        self.column(accepted_ms).map(|column| column.accepted += 1).unwrap_or_default();
        if let Some(settled_ms) = settled_ms {
            self.column(settled_ms.max(accepted_ms)).map(|column| column.settled += 1).unwrap_or_default();
        }
        if let Some(column) = self.column(scheduled_ms) {
            column.latency = column.latency.take().or_else(histogram);
            record(column.latency.as_mut(), took_ms);
        }
    }

    /// So many wait since then.
    fn waits(&mut self, ms: u64, waiting: u64) {
        if let Some(column) = self.column(ms) {
            let most = column.waiting.map_or(waiting, |(most, _)| most.max(waiting));
            column.waiting = Some((most, waiting));
        }
    }

    fn end(self) -> Vec<Point> {
        let mut before = 0_u64;
        let per_second = |count: u64| count as f64 * 1_000.0 / self.width_ms as f64;
        let points = (0_u64..).zip(&self.columns).map(|(index, column)| {
            let (most, last) = column.waiting.unwrap_or((before, before));
            let backlog = most.max(before);
            before = last;
            Point {
                at_s: (index * self.width_ms) as f64 / 1_000.0,
                offered: per_second(column.offered),
                accepted: per_second(column.accepted),
                settled: per_second(column.settled),
                backlog,
                latency: Percentiles::of(column.latency.as_ref()),
            }
        });
        points.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::FailureReason;

    fn plan() -> Plan {
        Plan { expected_per_hour: 3_600, factor: 1.0, minutes: 1.0, warm_up_s: 10 }
    }

    fn sample(job: u64, took_ms: u64, fate: Fate) -> Sample {
        let scheduled_ms = plan().scheduled_ms(job);
        Sample {
            accepted_ms: Some(scheduled_ms + 20),
            fate,
            settled_ms: fate.is_settled().then_some(scheduled_ms + took_ms),
            work_ms: fate.is_settled().then_some(took_ms / 2),
            calls: 2,
            tokens: 100,
            cost_micro_usd: 1_000,
        }
    }

    #[test]
    fn the_warm_up_is_left_out_of_latency_and_success_and_nothing_else() {
        let mut samples: Vec<_> = (0..70).map(|job| sample(job, 1_000, Fate::Result)).collect();
        for (job, sample_) in (0..10).zip(&mut samples) {
            *sample_ = sample(job, 50_000, Fate::DeadLetter(FailureReason::Refused));
        }
        let measured = measure(&plan(), &samples, 70, 70_000);
        assert_eq!((measured.accepted, measured.outcomes.results), (70, 60));
        assert_eq!(measured.outcomes.dead_letters, BTreeMap::from([("refused".to_owned(), 10)]));
        assert_eq!(
            (measured.latency.count, measured.latency.max_ms, measured.success_percent),
            (60, 1_000, 100.0)
        );
        assert_eq!((measured.cost.usd, measured.cost.calls_per_job), (0.07, 2.0));
        assert_eq!((measured.drain_s, measured.stopped_early), (Some(1.0), false));
    }

    #[test]
    fn what_waits_counts_with_its_age_and_the_backlog_shows_it() {
        let mut samples: Vec<_> = (0..70).map(|job| sample(job, 100, Fate::Result)).collect();
        for (job, slot) in (60..70).zip(samples.iter_mut().skip(60)) {
            *slot = sample(job, 0, Fate::Waiting);
        }
        let measured = measure(&plan(), &samples, 70, 100_000);
        assert_eq!((measured.outcomes.waiting, measured.drain_s, measured.backlog_max), (10, None, 10));
        assert!(measured.latency.max_ms >= 40_000, "{:?}", measured.latency);
        assert_eq!(measured.course.last().map(|point| point.backlog), Some(10));
    }

    #[test]
    fn what_a_job_takes_is_known_of_those_that_ended() {
        let mut samples: Vec<_> = (0..70).map(|job| sample(job, 100, Fate::Result)).collect();
        // Two have been called for and handed back; the others were never begun.
        for (job, slot) in (7..70).zip(samples.iter_mut().skip(7)) {
            let begun = sample(job, 0, Fate::Waiting);
            *slot = if job < 9 { begun } else { Sample { calls: 0, tokens: 0, cost_micro_usd: 0, ..begun } };
        }
        let cost = measure(&plan(), &samples, 70, 100_000).cost;
        assert_eq!(
            cost,
            Cost { usd: 0.009, calls: 18, usd_per_job: 0.001, calls_per_job: 2.0, tokens_per_job: 100.0 }
        );
        samples.iter_mut().for_each(|sample| sample.settled_ms = None);
        let cost = measure(&plan(), &samples, 70, 100_000).cost;
        assert_eq!(cost, Cost { usd: 0.009, calls: 18, ..Cost::default() });
    }

    #[test]
    fn counts_of_a_cloudwatch_that_is_behind_are_not_known() {
        // Two calls each.
        let samples: Vec<_> = (0..70).map(|job| sample(job, 1_000, Fate::Result)).collect();
        let measured = measure(&plan(), &samples, 70, 70_000);
        for (calls, known) in [(140.0, true), (150.0, true), (126.0, true), (125.0, false), (0.0, false)] {
            let alarms = Alarms::Raised(vec!["nightshift-no-progress".to_owned()]);
            let observed =
                Observed { calls: Some(calls), throttled: Some(0.0), alarms, ..Observed::default() };
            let seen = observed.clone().unless_behind(&measured);
            assert_eq!((seen.calls.is_some(), seen.throttled.is_some()), (known, known), "{calls}");
            assert_eq!(seen.alarms, observed.alarms);
        }
    }

    #[test]
    fn a_stall_of_the_test_itself_is_in_the_latency() {
        let mut samples: Vec<_> = (0..70).map(|job| sample(job, 9_000, Fate::Result)).collect();
        samples.iter_mut().for_each(|sample| sample.accepted_ms = sample.accepted_ms.map(|ms| ms + 8_000));
        let measured = measure(&plan(), &samples, 70, 80_000);
        let near = |ms: u64, about: u64| ms.abs_diff(about) <= about / 500;
        assert!(
            near(measured.latency.p50_ms, 9_000) && near(measured.send_delay.p50_ms, 8_020),
            "{measured:?}"
        );
    }

    #[test]
    fn what_sqs_did_not_take_is_offered_and_not_accepted() {
        let mut samples: Vec<_> = (0..20).map(|job| sample(job, 100, Fate::Result)).collect();
        samples.iter_mut().skip(15).for_each(|sample| sample.accepted_ms = None);
        let measured = measure(&plan(), &samples, 20, 30_000);
        assert_eq!((measured.offered, measured.accepted, measured.stopped_early), (20, 15, true));
        let offered: f64 = measured.course.iter().map(|point| point.offered).sum();
        let accepted: f64 = measured.course.iter().map(|point| point.accepted).sum();
        assert_eq!((offered.round(), accepted.round()), (20.0, 15.0));
    }

    #[test]
    fn a_sample_is_what_its_record_says_and_a_review_is_a_success() {
        let mut failed =
            crate::erase::tombstone(&crate::input_hash::InputHash::of_body("x"), None, "t", 1).record;
        failed.erased = None;
        failed.state = State::Failed(Box::new(crate::record::Failed {
            reason: FailureReason::Refused,
            detail: String::new(),
            failed_at_ms: 9_000,
            request_id: None,
            excerpt: None,
            revision: Default::default(),
        }));
        failed.budget.usage = crate::model::Usage { input_tokens: 30, output_tokens: 4 };
        (failed.first_received_ms, failed.last_claimed_ms, failed.expires_at_ms) = (1_000, 7_000, u64::MAX);
        let found = Sample::of(Some(&failed), Some(5), 500, false, 10_000);
        assert_eq!((found.settled_ms, found.work_ms, found.tokens), (Some(8_500), Some(2_000), 34));
        let reviews: Vec<_> = (0..70).map(|job| sample(job, 100, Fate::Review)).collect();
        let found = measure(&plan(), &reviews, 70, 70_000);
        assert_eq!((found.accepted, found.success_percent), (70, 100.0));
        let early: Vec<_> = (0..70)
            .map(|job| Sample { settled_ms: Some(plan().scheduled_ms(job)), ..sample(job, 0, Fate::Result) })
            .collect();
        assert_eq!(measure(&plan(), &early, 70, 70_000).backlog_max, 1);
    }

    #[test]
    fn a_stall_that_recovers_within_a_minute_is_seen() {
        // An hour at one job a second, each of which ends after a second; those of 50 seconds end together.
        let plan = Plan { expected_per_hour: 3_600, factor: 1.0, minutes: 60.0, warm_up_s: 0 };
        let samples: Vec<_> = (0..3_600)
            .map(|job| {
                let at_ms = plan.scheduled_ms(job);
                let settled_ms = if (1_805..1_855).contains(&job) { 1_856_000 } else { at_ms + 1_000 };
                let fate = sample(job, 0, Fate::Result);
                Sample { accepted_ms: Some(at_ms), settled_ms: Some(settled_ms), ..fate }
            })
            .collect();
        let found = measure(&plan, &samples, 3_600, 3_600_000);
        assert!((50..=53).contains(&found.backlog_max), "{}", found.backlog_max);
        let stalled: Vec<_> = found.course.iter().filter(|point| point.backlog > 2).collect();
        assert_eq!(stalled.len(), 1, "{stalled:?}");
        assert_eq!(stalled[0].backlog, found.backlog_max);
    }

    #[test]
    fn the_charts_columns_say_what_was_sent_and_taken_and_ended_in_them() {
        // Two minutes are 60 columns of two seconds, and what comes at the very end.
        let samples: Vec<_> = (0..70).map(|job| sample(job, 5_000, Fate::Result)).collect();
        let found = measure(&plan(), &samples, 70, 120_000);
        assert_eq!((found.course.len(), found.ended_per_hour), (61, 3_600.0));
        for (column, at_s, offered, accepted, settled, backlog, of) in [
            (0, 0.0, 1.0, 1.0, 0.0, 2, 2),
            (2, 4.0, 1.0, 1.0, 0.5, 5, 2),
            (3, 6.0, 1.0, 1.0, 1.0, 5, 2),
            (34, 68.0, 1.0, 1.0, 1.0, 5, 2),
            (35, 70.0, 0.0, 0.0, 1.0, 5, 0),
            (37, 74.0, 0.0, 0.0, 0.5, 1, 0),
            (60, 120.0, 0.0, 0.0, 0.0, 0, 0),
        ] {
            let point = &found.course[column];
            assert_eq!((point.at_s, point.offered, point.accepted), (at_s, offered, accepted), "{point:?}");
            assert_eq!(
                (point.settled, point.backlog, point.latency.count),
                (settled, backlog, of),
                "{point:?}"
            );
        }
    }

    #[test]
    fn what_ended_before_it_was_taken_by_another_clock_waits_no_longer() {
        let at = |ms, ended_ms| Sample {
            accepted_ms: Some(ms),
            settled_ms: Some(ended_ms),
            ..sample(0, 0, Fate::Result)
        };
        let found = measure(&plan(), &[at(500, 400), at(500, 500), at(5_000, 6_000)], 3, 10_000);
        let backlogs: Vec<_> = found.course.iter().map(|point| point.backlog).collect();
        assert_eq!((found.backlog_max, backlogs), (2, vec![2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0]));
    }

    #[test]
    fn only_a_queue_may_hold_what_has_no_record_or_one_that_nobody_works_on() {
        let standing = |state| Record {
            state,
            erased: None,
            ..crate::erase::tombstone(&crate::input_hash::InputHash::of_body("x"), None, "t", 1).record
        };
        let claimed = |lease_until_ms| standing(State::Claimed { lease_until_ms, alone: false });
        for (record, is_untraced) in [
            (None, true),
            (Some(standing(State::Open)), true),
            (Some(claimed(1_000)), true),
            (Some(claimed(1_001)), false),
        ] {
            assert_eq!(Sample::is_untraced(record.as_ref(), 1_000), is_untraced, "{record:?}");
        }
    }

    #[test]
    fn each_job_counts_once_by_what_became_of_it() {
        let letter = Fate::DeadLetter;
        let fates = [
            (30, Fate::Result),
            (15, Fate::Review),
            (7, letter(FailureReason::Refused)),
            (4, letter(FailureReason::Poison)),
            // As many as are missing.
            (7, Fate::Waiting),
            (6, Fate::Missing),
            (1, Fate::Erased),
        ];
        let fates = fates.into_iter().flat_map(|(jobs, fate)| vec![fate; jobs]);
        let samples: Vec<_> = (0..).zip(fates).map(|(job, fate)| sample(job, 100, fate)).collect();
        let found = measure(&Plan { warm_up_s: 0, ..plan() }, &samples, 70, 100_000);
        let outcomes = Outcomes {
            results: 30,
            reviews: 15,
            dead_letters: BTreeMap::from([("refused".to_owned(), 7), ("poison".to_owned(), 4)]),
            waiting: 7,
            missing: 7,
        };
        assert_eq!((found.outcomes, found.accepted, found.drain_s), (outcomes, 70, None));
        assert_eq!((found.success_percent * 70.0).round(), 4_500.0);
    }
}
