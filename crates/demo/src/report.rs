//! What a user wants to see of a run: results, dead letters, retries, times, cost, and whether it all adds up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt::{Display, Write as _};
use std::path::Path;

use anyhow::Context;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use nightshift_core::failure::FailureReason;
use nightshift_core::task::Tasks;
use nightshift_local::aws::{AttributeValue, Item, Sample, StoredMessage, item_to_json};
use serde_json::{Value, json};

use crate::run::{Run, counted};
use crate::{Arguments, Provider};

/// Results that are shown in full, per run.
const SHOWN_IN_FULL: usize = 3;
/// Dead letters that are listed; the rest is in `--results`.
const DEAD_LETTERS_LISTED: usize = 40;
/// A detail says what to do before it says what the provider said.
const DETAIL_CHARS_SHOWN: usize = 400;
const JOB_CHARS_SHOWN: usize = 40;

/// Nobody shall take a stub's words for a model's.
const STUB_ANSWERS: &str = "The answers are a stub's, not a model's: written beforehand for the jobs that come with the demo, and put together \
     from words of the input for yours. --provider anthropic asks a real model.\n";

/// What the stub goes by is the schema alone.
const STUB_RULES: &str =
    "The stub knows the schema and no other rule: what it was refused for, a real model may do right.\n";

/// A finished record, read back from the table.
struct Stored {
    id: String,
    task: String,
    reference: Option<String>,
    output: Value,
    needs_review: bool,
}

impl Run {
    fn stored(&self) -> Vec<Stored> {
        self.records.iter().filter_map(stored).collect()
    }

    /// Duplicates of the first pass, without the jobs that were received again after they were settled; and these. `None`: jobs
    /// are missing, or there is more than was sent.
    fn duplicates(&self, results: usize) -> Option<(usize, usize)> {
        let first = self.passes.first()?;
        let duplicates = usize::try_from(first.duplicates).ok()?;
        let handed_back = usize::try_from(self.hand_backs.values().sum::<u64>()).ok()?;
        let again = settled_again(first.sent, results + self.dead_letters.len() + duplicates, handed_back)?;
        Some((duplicates.checked_sub(again)?, again))
    }

    /// What this run promised and did not keep; empty when all is well.
    pub fn broken_promises(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut check = |kept: bool, otherwise: String| {
            if !kept {
                broken.push(otherwise);
            }
        };
        let stored = self.stored();
        if let Some(first) = self.passes.first().filter(|_| !self.interrupted) {
            check(
                self.duplicates(stored.len()).is_some(),
                format!(
                    "{} jobs in, but {} results + {} dead letters + {} duplicates",
                    first.sent,
                    stored.len(),
                    self.dead_letters.len(),
                    first.duplicates
                ),
            );
        }
        let mut sent: HashMap<&str, usize> = HashMap::new();
        for body in &self.bodies {
            *sent.entry(body).or_default() += 1;
        }
        let reasons: HashSet<&str> = FailureReason::ALL.iter().map(|reason| reason.as_str()).collect();
        for letter in &self.dead_letters {
            let left = sent.entry(&letter.body).or_default();
            check(*left > 0, "a dead letter has a body that was not sent".to_owned());
            *left = left.saturating_sub(1);
            let reason = attribute(letter, "FailureReason");
            check(
                reason.as_deref().is_some_and(|reason| reasons.contains(reason)),
                format!("a dead letter has no reason of the list: {reason:?}"),
            );
        }
        let tasks = my_tasks::registry();
        for result in &stored {
            let valid =
                tasks.find(&result.task).is_some_and(|task| task.accept(result.output.clone()).is_ok());
            check(valid, format!("the result {} does not validate", result.id));
        }
        if !self.interrupted {
            check(self.crashed == 0, format!("{} messages in `crashed`", self.crashed));
            if let Some((expected, arrived)) = self.texts {
                check(
                    expected == arrived,
                    format!("{} texts did not reach the model byte for byte", expected - arrived),
                );
            }
        }
        if let Some(second) = self.passes.get(1).filter(|_| !self.interrupted) {
            check(
                second.model_calls.is_none_or(|calls| calls == 0) && second.dead_letters == 0,
                format!(
                    "the second pass made {:?} model calls and {} dead letters for jobs that had a result",
                    second.model_calls, second.dead_letters
                ),
            );
        }
        broken
    }
}

/// The whole report; also writes `--results`.
pub fn report(run: &Run, arguments: &Arguments) -> anyhow::Result<String> {
    let stored = run.stored();
    if let Some(path) = &arguments.results {
        write_results(path, &stored, run)?;
    }
    let mut out = String::new();
    results(&mut out, &stored, arguments);
    dead_letters(&mut out, run, arguments);
    retries(&mut out, run);
    times(&mut out, run);
    let mut words = String::new();
    cost(&mut words, run, arguments);
    sum(&mut words, run, stored.len());
    prose(&mut out, &words);
    Ok(out)
}

fn results(out: &mut String, stored: &[Stored], arguments: &Arguments) {
    section(out, "Results");
    if arguments.provider == Provider::Stub {
        prose(out, STUB_ANSWERS);
    }
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for result in stored {
        let (results, reviews) = counts.entry(&result.task).or_default();
        (*results, *reviews) = (*results + 1, *reviews + usize::from(result.needs_review));
    }
    table(
        out,
        &["task", "results", "of them wait for review"],
        counts.iter().map(|(task, (results, reviews))| {
            vec![(*task).to_owned(), results.to_string(), reviews.to_string()]
        }),
    );
    let mut shown = BTreeSet::new();
    for result in stored.iter().filter(|result| shown.insert(result.task.clone())).take(SHOWN_IN_FULL) {
        let reference = result.reference.as_deref().unwrap_or("no reference");
        let _ = writeln!(out, "\n{} ({reference})\n{:#}", result.task, result.output);
    }
}

fn dead_letters(out: &mut String, run: &Run, arguments: &Arguments) {
    section(out, "Dead letters");
    let rows = lines_of(run).into_iter().take(DEAD_LETTERS_LISTED).map(|(line, letter)| {
        let context = context(letter);
        let detail = context.get("detail").and_then(Value::as_str).unwrap_or_default();
        let job: Value = serde_json::from_str(&letter.body).unwrap_or_default();
        let job = job.get("reference").and_then(Value::as_str).unwrap_or(&letter.body);
        vec![
            line.map_or("-".to_owned(), |line| line.to_string()),
            attribute(letter, "FailureReason").unwrap_or_default(),
            model_calls(&context).to_string(),
            beginning(&job.replace(char::is_control, " "), JOB_CHARS_SHOWN),
            beginning(detail, DETAIL_CHARS_SHOWN),
        ]
    });
    table(out, &["line", "reason", "calls", "job", "detail"], rows);
    let unlisted = run.dead_letters.len().saturating_sub(DEAD_LETTERS_LISTED);
    if unlisted > 0 {
        let _ = writeln!(out, "and {unlisted} more; --results FILE has them all");
    }
    let invalid = FailureReason::InvalidOutput.as_str();
    if arguments.provider == Provider::Stub
        && run
            .dead_letters
            .iter()
            .any(|letter| attribute(letter, "FailureReason").as_deref() == Some(invalid))
    {
        prose(out, STUB_RULES);
    }
}

/// The dead letters by the lines of the file; of several lines that say the same, the first ones.
fn lines_of(run: &Run) -> Vec<(Option<usize>, &StoredMessage)> {
    let mut lines: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (body, line) in run.bodies.iter().zip(&run.lines) {
        lines.entry(body).or_default().push_back(*line);
    }
    let mut letters: Vec<_> = run
        .dead_letters
        .iter()
        .map(|letter| (lines.get_mut(letter.body.as_str()).and_then(VecDeque::pop_front), letter))
        .collect();
    letters.sort_by_key(|(line, _)| *line);
    letters
}

/// As many words as fit, and whether there are more.
fn beginning(text: &str, chars_max: usize) -> String {
    let Some((end, _)) = text.char_indices().nth(chars_max) else { return text.to_owned() };
    let (fits, _) = text.split_at(end);
    let words = fits.rsplit_once(' ').map_or(fits, |(words, _)| words);
    format!("{}…", words.trim_end())
}

fn retries(out: &mut String, run: &Run) {
    section(out, "What was retried, and why");
    let again =
        run.retries.iter().map(|(why, n)| vec!["called again".to_owned(), why.clone(), n.to_string()]);
    let back =
        run.hand_backs.iter().map(|(why, n)| vec!["handed back".to_owned(), why.clone(), n.to_string()]);
    table(out, &["what", "why", "times"], again.chain(back));
}

fn times(out: &mut String, run: &Run) {
    section(out, "Times (ms)");
    let rows = [
        ("one model call", "ModelLatency"),
        ("claimed to stored", "JobLatency"),
        ("sent to stored", "EndToEndLatency"),
        ("sent to received", "QueueWait"),
    ]
    .into_iter()
    .map(|(what, metric)| {
        let samples = samples(&run.metrics, metric);
        let at =
            |percent: usize| percentile(&samples, percent).map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        vec![what.to_owned(), samples.len().to_string(), at(50), at(95), at(99), at(100)]
    });
    table(out, &["what", "samples", "p50", "p95", "p99", "max"], rows);
}

fn cost(out: &mut String, run: &Run, arguments: &Arguments) {
    section(out, "Tokens and cost");
    let dollars = |name: &str| total(&run.metrics, name);
    // A server of one's own has no price.
    let cost = match arguments.base_url {
        Some(_) => "$0 at a server of your own".to_owned(),
        None => format!(
            "${:.4} at the price of {}, ${:.4} of it for answers that were not stored",
            dollars("CostUsd"),
            arguments.model,
            dollars("WastedCostUsd")
        ),
    };
    let _ = writeln!(
        out,
        "{} input tokens, {} output tokens, {cost}",
        counted(&run.metrics, "InputTokens"),
        counted(&run.metrics, "OutputTokens"),
    );
    let _ = writeln!(
        out,
        "{} in {}; ledger: {} UpdateItem, {} GetItem",
        so_many(run.lambda.invocations, "invocation"),
        so_many(run.lambda.environments, "process"),
        requests(run, "DynamoDB.UpdateItem"),
        requests(run, "DynamoDB.GetItem"),
    );
}

/// Of so many settlements of so many jobs, those of a job that was settled before: none without a message that was handed back.
fn settled_again(sent: usize, settled: usize, handed_back: usize) -> Option<usize> {
    settled.checked_sub(sent).filter(|again| *again <= handed_back)
}

fn sum(out: &mut String, run: &Run, results: usize) {
    section(out, "Does it add up?");
    for (index, pass) in run.passes.iter().enumerate() {
        let _ = writeln!(
            out,
            "pass {}: {}{} in {:.1} s; {}, {}{}",
            index + 1,
            so_many(pass.sent, "job"),
            match (index, pass.sent) {
                (0, _) => "",
                (_, 1) => " that has a result",
                _ => " that have a result",
            },
            pass.took.as_secs_f64(),
            so_many(pass.dead_letters, "dead letter"),
            so_many(pass.duplicates, "duplicate"),
            pass.model_calls.map_or(String::new(), |calls| format!(", {}", so_many(calls, "model call"))),
        );
    }
    if let Some((expected, arrived)) = run.texts {
        let _ = writeln!(
            out,
            "{arrived} of {} reached the model byte for byte",
            so_many(expected, "distinct prompt")
        );
    }
    if !run.bad_lines.is_empty() {
        let were = if run.bad_lines.len() == 1 { "was" } else { "were" };
        let _ = writeln!(out, "{} of the file {were} not sent", so_many(run.bad_lines.len(), "line"));
    }
    let broken = run.broken_promises();
    if run.interrupted {
        let _ = writeln!(out, "stopped early: what was not settled is still on the queue, which is gone now");
    } else if broken.is_empty() {
        let (duplicates, again) = run.duplicates(results).unwrap_or_default();
        if again > 0 {
            let _ = writeln!(
                out,
                "{} received again after being settled, without a call: an answer of the ledger came too late",
                so_many(again, "job")
            );
        }
        let _ = writeln!(
            out,
            "{} = {} + {} + {}: nothing lost, nothing invalid stored",
            so_many(run.bodies.len(), "job"),
            so_many(results, "result"),
            so_many(run.dead_letters.len(), "dead letter"),
            so_many(duplicates, "duplicate"),
        );
    }
    for promise in &broken {
        let _ = writeln!(out, "BROKEN: {promise}");
    }
}

fn stored(item: &Item) -> Option<Stored> {
    let raw = item_to_json(item);
    let text = |name: &str| {
        raw.get(name).and_then(|value| value.get("S")).and_then(Value::as_str).map(str::to_owned)
    };
    (text("state").as_deref() == Some("done")).then_some(())?;
    Some(Stored {
        id: text("id")?,
        task: text("task")?,
        reference: text("reference"),
        output: serde_json::from_str(&text("output")?).ok()?,
        needs_review: raw.pointer("/needs_review/BOOL").and_then(Value::as_bool).unwrap_or(false),
    })
}

fn write_results(path: &Path, stored: &[Stored], run: &Run) -> anyhow::Result<()> {
    let results = stored.iter().map(|result| {
        json!({
            "result": result.output, "task": result.task, "reference": result.reference, "input_hash": result.id,
            "needs_review": result.needs_review,
        })
    });
    let letters = lines_of(run).into_iter().map(|(line, letter)| {
        json!({
            "line": line, "dead_letter": attribute(letter, "FailureReason"), "input_hash": attribute(letter, "InputHash"),
            "context": context(letter), "body": letter.body,
        })
    });
    let lines: String = results.chain(letters).map(|line| format!("{line}\n")).collect();
    std::fs::write(path, lines).with_context(|| format!("cannot write {}", path.display()))
}

fn attribute(letter: &StoredMessage, name: &str) -> Option<String> {
    letter.attributes.get(name).and_then(|attribute| match &attribute.value {
        AttributeValue::Text(text) => Some(text.clone()),
        AttributeValue::Binary(_) => None,
    })
}

/// The failure context of a dead letter.
fn context(letter: &StoredMessage) -> Value {
    attribute(letter, "FailureContext")
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null)
}

fn model_calls(context: &Value) -> u64 {
    context.get("model_calls").and_then(Value::as_u64).unwrap_or(0)
}

fn requests(run: &Run, action: &str) -> u64 {
    run.requests.get(action).copied().unwrap_or(0)
}

fn total(metrics: &[Sample], name: &str) -> f64 {
    let stack_only = |sample: &&Sample| sample.name == name && sample.dimensions.len() == 1;
    let values = metrics.iter().filter(stack_only).map(|sample| sample.value * sample.count);
    // An empty sum of floats is -0.0, and would be shown so.
    values.fold(0.0, |sum, value| sum + value)
}

/// All measured values of a metric, sorted.
fn samples(metrics: &[Sample], name: &str) -> Vec<f64> {
    let mut values: Vec<f64> = metrics
        .iter()
        .filter(|sample| sample.name == name && sample.dimensions.len() == 1)
        .flat_map(|sample| std::iter::repeat_n(sample.value, sample.count.max(0.0) as usize))
        .collect();
    values.sort_by(f64::total_cmp);
    values
}

/// Nearest rank.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Words that end where the terminal does; whole lines where nobody looks.
fn prose(out: &mut String, text: &str) {
    match Table::new().width() {
        Some(width) => out.push_str(&textwrap::fill(text, usize::from(width))),
        None => out.push_str(text),
    }
}

fn so_many(count: impl Display + PartialEq + From<u8>, one: &str) -> String {
    let plural = match (count == 1.into(), one.ends_with('s')) {
        (true, _) => "",
        (false, false) => "s",
        (false, true) => "es",
    };
    format!("{count} {one}{plural}")
}

fn section(out: &mut String, title: &str) {
    let _ = writeln!(out, "\n== {title}");
}

/// Columns of a table, where the terminal is no narrower.
const WIDTH_MAX: u16 = 96;

fn table(out: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let mut table = Table::new();
    let width = table.width().map_or(WIDTH_MAX, |width| width.min(WIDTH_MAX));
    table
        .load_style(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header(header.to_vec());
    table.add_rows(rows);
    if table.row_count() == 0 {
        let _ = writeln!(out, "none");
    } else {
        let _ = writeln!(out, "{table}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_may_be_settled_again_where_one_was_handed_back_and_none_may_be_missing() {
        for (sent, settled, handed_back, expected) in [
            (68, 68, 0, Some(0)),
            (68, 68, 13, Some(0)),
            (68, 70, 13, Some(2)),
            (68, 70, 2, Some(2)),
            (68, 70, 1, None),
            (68, 69, 0, None),
            (68, 67, 13, None),
        ] {
            let found = settled_again(sent, settled, handed_back);
            assert_eq!(found, expected, "{sent} sent, {settled} settled, {handed_back} handed back");
        }
    }
}
