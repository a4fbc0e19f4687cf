//! `task try`: inputs against a model, and against another one, another build, or what was expected.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use nightshift_aws::clients::SdkConfig;
use nightshift_core::cost::usd;
use nightshift_core::job::{self, Job};
use nightshift_core::ready::ready;
use nightshift_core::trial::{Case, Difference, Summary, differing, in_short};
use nightshift_models::prices::{self, Typed};
use nightshift_shell::settings::ProviderSettings;
use serde::Serialize;
use serde_json::Value;

use crate::error::Failure;
use crate::jobs_file::Source;
use crate::other_build::{self, OtherBuild};
use crate::render::{Cell, Row, progress, say};
use crate::stack::stored_key;
use crate::trial::{Trial, Tried};
use crate::trial_model::{ModelArguments, Settings, dollars};
use crate::{Context, confirm, files, text, times};

/// More lines are a load test; all that was tried is held, so that it can be compared.
const LINES_MAX: usize = 10_000;

/// What is tried, and against what.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    model: ModelArguments,
    /// The same for model:NAME of --against, beside --model.
    #[arg(long, value_name = "IN/OUT", value_parser = prices::typed)]
    against_price: Option<Typed>,
    /// Inputs at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    concurrency: u16,
    /// All calls together cost at most so many dollars; of --against, as many again.
    #[arg(long, value_name = "USD", default_value = "1.00", value_parser = dollars)]
    cap: u64,
    /// Compare: model:NAME of the same provider, build:PATH of another `nightshift` or of a checkout, which is built first, or
    /// file:PATH with an expected output a line, in the order of the inputs.
    #[arg(long, value_name = "WHAT", value_parser = against)]
    against: Option<Against>,
    /// The exit code is 3 where fewer pass; without this, where none does.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    least: Option<f64>,
    /// Show the prompts too, where it is not JSON, which has them.
    #[arg(long)]
    prompts: bool,
    /// Do not ask; without a terminal no call is made unless this is given.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Against {
    Model(String),
    Build(PathBuf),
    File(PathBuf),
}

fn against(text: &str) -> Result<Against, String> {
    match text.split_once(':') {
        Some(("model", name)) if !name.is_empty() => Ok(Against::Model(name.to_owned())),
        Some(("build", path)) if !path.is_empty() => Ok(Against::Build(path.into())),
        Some(("file", path)) if !path.is_empty() => Ok(Against::File(path.into())),
        _ => Err("write model:NAME, build:PATH or file:PATH".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let share =
        text.trim_end_matches('%').trim().parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share));
    share.ok_or_else(|| "write a share such as 95%".to_owned())
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    tried: Tried,
    /// Where it is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<Vec<Difference>>,
    #[serde(skip)]
    with_prompt: bool,
}

impl Row for Shown {
    const COLUMNS: &'static [&'static str] = &[
        "LINE",
        "OUTCOME",
        "CALLS",
        "TOKENS IN",
        "TOKENS OUT",
        "COST USD",
        "TOOK",
        "DIFFERENCES",
        "ANSWER",
        "VIOLATIONS",
        "DETAIL",
        "PROMPT",
    ];

    fn cells(&self) -> Vec<Cell> {
        let Self { tried, differences, with_prompt } = self;
        let differences = differences.as_ref().filter(|differences| !differences.is_empty());
        vec![
            Cell::ours(tried.line),
            Cell::ours(&tried.outcome),
            Cell::ours(tried.calls),
            Cell::ours(tried.input_tokens),
            Cell::ours(tried.output_tokens),
            Cell::ours(format!("{:.6}", tried.cost_usd)),
            Cell::ours(times::length(tried.took_ms)),
            Cell::maybe_said(differences.map(|differences| in_short(differences)).as_deref()),
            Cell::maybe_said(tried.answers.last().map(String::as_str)),
            Cell::maybe_said(violations(&tried.violations).as_deref()),
            Cell::maybe_said(tried.detail.as_deref()),
            Cell::maybe_said(with_prompt.then_some(tried.prompt.as_str())),
        ]
    }
}

/// What was wrong, each once: a model that is asked again may break the same rule.
fn violations(all: &[String]) -> Option<String> {
    let mut each: Vec<&str> = Vec::new();
    for one in all {
        if !each.contains(&one.as_str()) {
            each.push(one);
        }
    }
    (!each.is_empty()).then(|| each.join(" "))
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    arguments.check()?;
    let inputs = inputs(arguments)?;
    let expected = match &arguments.against {
        Some(Against::File(path)) => Some(expected(path, &inputs)?),
        _ => None,
    };
    let build = arguments.build()?;
    let Sides { first, second, told, sdk } = Sides::of(arguments, context, build.as_ref()).await?;
    let at_most = agreed(arguments, &inputs, &first, second.as_ref()).await?;
    let build = match build {
        Some(build) => {
            context.interrupt.leaves("nothing was paid for, and a checkout may be built in part");
            Some(build.made().await?)
        }
        None => None,
    };
    context.interrupt.handle("calls may have been paid for, and nothing is stored");
    if let Some(place) = first.worker.model.provider.key() {
        // Apart from the calls: without it, each of them would say so.
        stored_key(&sdk, place).await?;
    }
    if let (Some(build), true) = (&build, at_most > 0) {
        // It may know no price of the model, or not the model, and what was paid for until then would be paid in vain.
        let asked = build.tries(inputs.len(), &told, 0, context).await;
        asked.map_err(|failure| failure.after("nothing was paid for yet"))?;
    }
    let mut ours = all(&inputs, &first, arguments, context).await?;
    let theirs = match (&build, &second) {
        (Some(build), _) => {
            Some(("the other build", build.tries(inputs.len(), &told, arguments.cap, context).await))
        }
        (_, Some(second)) => {
            Some((second.worker.model.id.as_str(), all(&inputs, second, arguments, context).await))
        }
        _ => None,
    };
    // What was paid for is shown, whatever became of the other side.
    let (theirs, failed) = match theirs {
        Some((name, Ok(theirs))) => (Some((name, self::cases(&theirs))), None),
        Some((_, Err(failure))) => (None, Some(failure)),
        None => (None, None),
    };
    let compared = expected.as_ref().or(theirs.as_ref().map(|(_, cases)| cases));
    let differing = compared.map(|theirs| differing(&self::cases(&ours), theirs));
    if let (Some(_), Some(differing)) = (&expected, &differing) {
        for tried in &mut ours {
            if tried.outcome == "passed" && differing.contains_key(&tried.line) {
                tried.outcome = "differs".to_owned();
            }
        }
    }
    let none_was_answered = ours.iter().all(|tried| tried.outcome == "handed_back");
    let cases = cases(&ours);
    let shown = ours.into_iter().map(|tried| Shown {
        differences: differing.as_ref().map(|all| all.get(&tried.line).cloned().unwrap_or_default()),
        tried,
        with_prompt: arguments.prompts,
    });
    context.out.before_verdict().all(shown)?;
    let summary = Summary::of(&cases);
    tell(&first.worker.model.id, &summary);
    if let Some(failure) = failed {
        return Err(failure);
    }
    if let (Some((name, theirs)), Some(differing)) = (&theirs, &differing) {
        tell(name, &Summary::of(theirs));
        let lines: Vec<_> = differing.keys().map(u64::to_string).collect();
        let lines = if lines.is_empty() { "none".to_owned() } else { lines.join(", ") };
        say(&format!("Lines whose outputs differ: {lines}."));
    }
    verdict(arguments, &summary, none_was_answered)
}

fn verdict(arguments: &Arguments, summary: &Summary, none_was_answered: bool) -> Result<(), Failure> {
    match arguments.least {
        Some(least) if !summary.reaches(least) => Err(Failure::no(format!(
            "{:.1} % passed, and at least {least} % were asked for: read the violations above.",
            summary.pass_percent()
        ))),
        // Where nothing may be paid for, nothing passes.
        None if none_was_answered => Err(Failure::failed(
            "Nobody answered: nothing is known of the inputs, and what is said of them above is why.",
        )),
        None if summary.passed == 0 && arguments.cap > 0 => {
            Err(Failure::no("None passed: read what is said of them above."))
        }
        _ => Ok(()),
    }
}

impl Arguments {
    fn check(&self) -> Result<(), Failure> {
        let has_second = matches!(self.against, Some(Against::Model(_)));
        let is_of_another = self.model.model.is_some() || (has_second && self.against_price.is_none());
        if self.model.price.is_some() && !is_of_another {
            return Err(Failure::usage(
                "--price is of another model: name it with --model or --against model:NAME.",
            ));
        }
        if self.against_price.is_some() && !has_second {
            return Err(Failure::usage(
                "--against-price is of another model: name it with --against model:NAME.",
            ));
        }
        if let Some(Against::Build(path)) = &self.against {
            other_build::check(path, &self.source)?;
        }
        self.model.check()
    }

    fn build(&self) -> Result<Option<OtherBuild<'_>>, Failure> {
        let Some(Against::Build(path)) = &self.against else { return Ok(None) };
        OtherBuild::at(path, &self.source, self.concurrency).map(Some)
    }
}

/// What is tried, and what it is compared with.
struct Sides {
    first: Trial,
    second: Option<Trial>,
    /// What another build is told.
    told: Settings,
    sdk: SdkConfig,
}

impl Sides {
    async fn of(
        arguments: &Arguments,
        context: &Context,
        build: Option<&OtherBuild<'_>>,
    ) -> Result<Self, Failure> {
        let ModelArguments { model, price, .. } = &arguments.model;
        let found = arguments.model.found(context).await?;
        let settings = match model {
            Some(model) => found.with_model(model, price.as_ref(), "--price")?,
            None => found.settings.clone(),
        };
        let (region, sdk) = found.aws(&settings, context).await?;
        let first = Trial::new(&settings, &region, &sdk, arguments.cap)?;
        let second = match &arguments.against {
            Some(Against::Model(name)) => {
                let (price, option) = match (&arguments.against_price, model) {
                    (None, None) => (price.as_ref(), "--price"),
                    (price, _) => (price.as_ref(), "--against-price"),
                };
                let settings = found.with_model(name, price, option)?;
                Some(Trial::new(&settings, &region, &sdk, arguments.cap)?)
            }
            _ => None,
        };
        let told = match build {
            Some(build) => build.settings(&settings, &first, &sdk).await?,
            None => Settings::new(),
        };
        Ok(Self { first, second, told, sdk })
    }
}

/// Says what it costs at most, in millionths of a dollar, and asks.
async fn agreed(
    arguments: &Arguments,
    inputs: &[Input],
    first: &Trial,
    second: Option<&Trial>,
) -> Result<u64, Failure> {
    let cap = arguments.cap;
    let at_most = most(inputs, first)?.min(cap);
    let also = match (&arguments.against, second) {
        (_, Some(second)) => Some(most(inputs, second)?.min(cap)),
        // Nobody knows what another build asks.
        (Some(Against::Build(_)), _) => Some(cap),
        _ => None,
    };
    let model = &first.worker.model;
    // A model that costs nothing is told the key and the texts all the same.
    let leaves = !matches!(model.provider, ProviderSettings::Rehearsal(_));
    if leaves || second.is_some() {
        let also = also.map_or_else(String::new, |also| {
            format!(", and what it is compared with at most {:.4} USD more", usd(also))
        });
        let what = format!(
            "Tries {} on {} at {}: at most {:.4} USD{also}. Nothing is stored.",
            text::counted(inputs.len() as u64, "input"),
            model.id,
            model.base_url.as_deref().unwrap_or("its provider's own address"),
            usd(at_most)
        );
        confirm::ask(arguments.yes, &what).await?;
    }
    Ok(at_most)
}

fn tell(name: &str, summary: &Summary) {
    say(&format!(
        "{name}: {} of {} passed ({:.1} %), {:.6} USD, median {}.",
        summary.passed,
        summary.cases,
        summary.pass_percent(),
        usd(summary.cost_micro_usd),
        times::length(summary.median_ms)
    ));
}

type Input = (u64, Job, usize);

/// The jobs of the file: a bad line is a mistake of whoever wrote it, and nothing is paid for before it is mended.
fn inputs(arguments: &Arguments) -> Result<Vec<Input>, Failure> {
    let tasks = my_tasks::registry();
    let mut lines = arguments.source.lines(arguments.source.open()?, &tasks)?;
    let mut inputs = Vec::new();
    while let Some((line, draft)) = lines.next()? {
        let body = draft.map_err(|detail| bad_line(line, &detail))?.body;
        let job = job::parse(&body, nightshift_core::limits::Limits::default().body_bytes_max)
            .map_err(|rejection| bad_line(line, &rejection.detail))?;
        inputs.push((line, job, body.len()));
        if inputs.len() > LINES_MAX {
            return Err(Failure::usage(format!("The file has more than {LINES_MAX} lines: try fewer.")));
        }
    }
    if inputs.is_empty() {
        return Err(Failure::usage("The file has no inputs: give at least one line."));
    }
    Ok(inputs)
}

fn bad_line(line: u64, detail: &str) -> Failure {
    Failure::usage(format!(
        "Line {line}: {detail} Nothing was tried; `nightshift task check` lists all such lines."
    ))
}

/// As if somebody else's answers to the inputs were these.
fn expected(path: &Path, inputs: &[Input]) -> Result<Vec<Case>, Failure> {
    let text = std::io::read_to_string(files::open(path)?).map_err(|e| Failure::of_path(path, "read", &e))?;
    let outputs: Result<Vec<Value>, _> =
        text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect();
    let outputs = outputs.map_err(|error| {
        Failure::usage(format!("{} is not a JSON output a line: {error}.", path.display()))
    })?;
    if outputs.len() != inputs.len() {
        return Err(Failure::usage(format!(
            "{} has {} outputs for {} inputs: give one for each.",
            path.display(),
            outputs.len(),
            inputs.len()
        )));
    }
    let case = |((line, ..), output): (&Input, Value)| Case {
        line: *line,
        passed: true,
        output: Some(output),
        cost_micro_usd: 0,
        took_ms: 0,
    };
    Ok(inputs.iter().zip(outputs).map(case).collect())
}

/// The most that all of them can cost; a job that could not be worked on is told before anything is paid for.
fn most(inputs: &[Input], trial: &Trial) -> Result<u64, Failure> {
    let tasks = my_tasks::registry();
    inputs.iter().try_fold(0_u64, |sum, (line, job, bytes)| {
        let ready = ready(job, *bytes, &tasks, trial.worker.price, u64::MAX)
            .map_err(|rejection| bad_line(*line, &rejection.detail))?;
        Ok(sum.saturating_add(trial.most_micro_usd(&ready)))
    })
}

async fn all(
    inputs: &[Input],
    trial: &Trial,
    arguments: &Arguments,
    context: &Context,
) -> Result<Vec<Tried>, Failure> {
    let tasks = my_tasks::registry();
    let bar = progress(inputs.len() as u64, "{bar:30} {pos} of {len} tried, {elapsed}");
    bar.enable_steady_tick(Duration::from_secs(1));
    let tell = &|message: &str| bar.suspend(|| say(message));
    let runs = inputs.iter().filter_map(|(line, job, bytes)| {
        let ready = ready(job, *bytes, &tasks, trial.worker.price, u64::MAX).ok()?;
        Some(async move { trial.run(*line, job, &ready, tell).await })
    });
    let mut runs = futures_util::stream::iter(runs).buffered(arguments.concurrency.into());
    let mut tried = Vec::new();
    loop {
        tokio::select! {
            next = runs.next() => match next {
                Some(one) => {
                    tried.push(one);
                    bar.inc(1);
                }
                None => {
                    bar.finish_and_clear();
                    return Ok(tried);
                }
            },
            () = context.interrupt.asked() => {
                bar.finish_and_clear();
                return Err(Failure::interrupted(format!(
                    "Interrupted after {} of {} inputs: up to {:.6} USD were spent, and nothing is stored.",
                    tried.len(), inputs.len(), trial.spent_usd()
                )));
            }
        }
    }
}

fn cases(tried: &[Tried]) -> Vec<Case> {
    let case = |tried: &Tried| Case {
        line: tried.line,
        passed: tried.outcome == "passed",
        output: tried.output.clone(),
        cost_micro_usd: (tried.cost_usd * 1e6).round() as u64,
        took_ms: tried.took_ms,
    };
    tried.iter().map(case).collect()
}
