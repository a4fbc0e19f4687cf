//! `task try`: inputs against a model, and against another one, another build, or what was expected.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials as _;
use clap::{Args, ValueEnum};
use futures_util::StreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use nightshift_aws::clients::SdkConfig;
use nightshift_core::cost::usd;
use nightshift_core::job::{self, Job};
use nightshift_core::ready::ready;
use nightshift_core::trial::{Case, Summary, differing};
use nightshift_models::price_of;
use nightshift_shell::settings::{KeySettings, PRICES, ProviderName, ProviderSettings};
use secrecy::ExposeSecret as _;
use serde::Serialize;
use serde_json::Value;

use crate::commands::key;
use crate::error::{self, Failure};
use crate::jobs_file::Source;
use crate::render::{Cell, Row, say};
use crate::stack::{self, Worker};
use crate::trial::{Trial, Tried};
use crate::{Context, confirm, files, text, times};

/// More lines are a load test; all that was tried is held, so that it can be compared.
const LINES_MAX: usize = 10_000;
/// What a trial without a stack takes.
const WITHOUT_A_STACK: &str = "try without a stack: --provider rehearsal costs nothing, --provider server asks a server of your own, and --provider environment takes NIGHTSHIFT_PROVIDER, NIGHTSHIFT_MODEL and the worker's other variables from here";
/// Whether the other build has ended, and whether somebody pressed Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the model's settings come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Provider {
    /// The worker of the stack: its model, its key, its limits.
    Stack,
    /// The model within Nightshift, which costs nothing; --model is its spec.
    Rehearsal,
    /// A server of your own that takes chat completions and asks for no key; --base-url and --model name them.
    Server,
    /// The worker's variables in this command's own environment (`NIGHTSHIFT_PROVIDER`, ...).
    Environment,
}

/// What is tried, and against what.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Where the model's settings come from.
    #[arg(long, value_enum, default_value_t = Provider::Stack)]
    provider: Provider,
    /// The address of --provider server, with its /v1: http://127.0.0.1:8080/v1.
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Another model of the same provider; of the rehearsal, its spec.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// What --model costs where no list says so: dollars per million tokens read and written; nothing at a server of your
    /// own. Without --model, it is of model:NAME of --against.
    #[arg(long, value_name = "IN/OUT", value_parser = price)]
    price: Option<Price>,
    /// The same for model:NAME of --against, beside --model.
    #[arg(long, value_name = "IN/OUT", value_parser = price)]
    against_price: Option<Price>,
    /// Inputs at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    concurrency: u16,
    /// All calls together cost at most so many dollars; of --against, as many again.
    #[arg(long, value_name = "USD", default_value = "1.00", value_parser = dollars)]
    cap: u64,
    /// Compare: model:NAME of the same provider, build:PATH of another `nightshift`, or file:PATH with an expected output a
    /// line, in the order of the inputs.
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

/// Dollars per million tokens read and written, as they were typed.
type Price = (String, String);

fn price(text: &str) -> Result<Price, String> {
    match text.split_once('/') {
        Some((input, output)) if dollars(input).is_ok() && dollars(output).is_ok() => {
            Ok((input.to_owned(), output.to_owned()))
        }
        _ => Err("write dollars per million tokens read and written, such as 0.8/4".to_owned()),
    }
}

/// The settings of another model: the price that stands there is not its own. What is given by `option` counts where nobody
/// knows better, so that a mistake in it lifts no cap.
fn with_model(
    settings: &HashMap<String, String>,
    model: &str,
    given: Option<&Price>,
    option: &str,
) -> Result<HashMap<String, String>, Failure> {
    let mut settings = settings.clone();
    let former = settings.insert("NIGHTSHIFT_MODEL".to_owned(), model.to_owned());
    let provider = settings.get("NIGHTSHIFT_PROVIDER").cloned().unwrap_or_default();
    let [input, output] = PRICES;
    let is_its_own = former.as_deref() == Some(model) && settings.contains_key(input);
    if !is_its_own {
        settings.retain(|name, _| !PRICES.contains(&name.as_str()));
    }
    let is_known = is_its_own || price_of(&provider, model).is_some();
    match given {
        Some(_) if is_known => say(&format!("{option} is not used: the price of {model:?} is known.")),
        None if is_known => {}
        Some((per_input, per_output)) => {
            settings.insert(input.to_owned(), per_input.clone());
            settings.insert(output.to_owned(), per_output.clone());
        }
        // Of a provider that nobody knows, more is said later.
        None if ProviderName::ALL.iter().any(|name| name.as_str() == provider) => {
            return Err(Failure::usage(format!(
                "No list has the price of {model:?} of {provider}: give {option} IN/OUT, in dollars per million tokens read and written."
            )));
        }
        None => {}
    }
    Ok(settings)
}

/// The settings of a server of one's own, where nothing is paid unless somebody says so.
fn of_server(url: &str, model: &str, price: Option<&Price>) -> HashMap<String, String> {
    let (per_input, per_output) = price.map_or(("0", "0"), |(input, output)| (input, output));
    let [input, output] = PRICES;
    let settings = [
        ("NIGHTSHIFT_PROVIDER", ProviderName::OpenAi.as_str()),
        ("NIGHTSHIFT_MODEL", model),
        ("NIGHTSHIFT_MODEL_BASE_URL", url),
        (input, per_input),
        (output, per_output),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn dollars(text: &str) -> Result<u64, String> {
    nightshift_models::prices::micro_usd(text).ok_or_else(|| "write dollars, such as 0.25".to_owned())
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
        "ANSWER",
        "VIOLATIONS",
        "DETAIL",
        "PROMPT",
    ];

    fn cells(&self) -> Vec<Cell> {
        let Self { tried, with_prompt } = self;
        vec![
            Cell::ours(tried.line),
            Cell::ours(&tried.outcome),
            Cell::ours(tried.calls),
            Cell::ours(tried.input_tokens),
            Cell::ours(tried.output_tokens),
            Cell::ours(format!("{:.6}", tried.cost_usd)),
            Cell::ours(times::length(tried.took_ms)),
            Cell::maybe_said(tried.answers.last().map(String::as_str)),
            Cell::maybe_said((!tried.violations.is_empty()).then(|| tried.violations.join(" ")).as_deref()),
            Cell::maybe_said(tried.detail.as_deref()),
            Cell::maybe_said(with_prompt.then_some(tried.prompt.as_str())),
        ]
    }
}

pub async fn run(arguments: &Arguments, context: &Context) -> Result<(), Failure> {
    let has_second = matches!(arguments.against, Some(Against::Model(_)));
    let is_of_another = arguments.model.is_some() || (has_second && arguments.against_price.is_none());
    if arguments.price.is_some() && !is_of_another {
        return Err(Failure::usage(
            "--price is of another model: name it with --model or --against model:NAME.",
        ));
    }
    if arguments.against_price.is_some() && !has_second {
        return Err(Failure::usage(
            "--against-price is of another model: name it with --against model:NAME.",
        ));
    }
    if (arguments.provider == Provider::Server) != arguments.base_url.is_some()
        || (arguments.base_url.is_some() && arguments.model.is_none())
    {
        return Err(Failure::usage(
            "A server of your own takes three: --provider server --base-url URL --model NAME.",
        ));
    }
    if let Some(Against::Build(path)) = &arguments.against {
        can_be_asked(path, arguments)?;
    }
    let inputs = inputs(arguments)?;
    let expected = match &arguments.against {
        Some(Against::File(path)) => Some(expected(path, inputs.len())?),
        _ => None,
    };
    let (deployed, region, sdk) = settings(arguments, context).await?;
    let with_model = |model: &str, price: Option<&Price>, option| match &arguments.base_url {
        Some(url) => Ok(of_server(url, model, price)),
        None => with_model(&deployed, model, price, option),
    };
    let mut settings = match &arguments.model {
        Some(model) => with_model(model, arguments.price.as_ref(), "--price")?,
        None => deployed.clone(),
    };
    let trial = Trial::new(&settings, &region, &sdk, arguments.cap)?;
    let second = match &arguments.against {
        Some(Against::Model(model)) => {
            let (price, option) = match (&arguments.against_price, &arguments.model) {
                (None, None) => (arguments.price.as_ref(), "--price"),
                (price, _) => (price.as_ref(), "--against-price"),
            };
            let settings = with_model(model, price, option)?;
            Some(Trial::new(&settings, &region, &sdk, arguments.cap)?)
        }
        _ => None,
    };
    let cap = arguments.cap;
    let at_most = most(&inputs, &trial)?.min(cap);
    let also = match (&arguments.against, &second) {
        (_, Some(second)) => Some(most(&inputs, second)?.min(cap)),
        // Nobody knows what another build asks.
        (Some(Against::Build(_)), _) => Some(cap),
        _ => None,
    };
    // A model that costs nothing is told the key and the texts all the same.
    let leaves = !matches!(trial.worker.model.provider, ProviderSettings::Rehearsal(_));
    if leaves || second.is_some() {
        let at_most = usd(at_most);
        let also = also.map_or_else(String::new, |also| {
            format!(", and what it is compared with at most {:.4} USD more", usd(also))
        });
        confirm::ask(
            arguments.yes,
            &format!(
                "Tries {} on {} at {}: at most {at_most:.4} USD{also}. Nothing is stored.",
                text::counted(inputs.len() as u64, "input"),
                trial.worker.model.id,
                trial.worker.model.base_url.as_deref().unwrap_or("its provider's own address"),
            ),
        )
        .await?;
    }
    context.interrupt.handle("calls may have been paid for, and nothing is stored");
    if let Some(place) = trial.worker.model.provider.key() {
        // Apart from the calls: without it, each of them would say so.
        key::stored(&sdk, place).await?;
    }
    if let Some(Against::Build(path)) = &arguments.against
        && at_most > 0
    {
        // It may know no price of the model, or not the model, and what was paid for until then would be paid in vain.
        let asked = by_build(path, arguments, 0, &mut settings, &trial, &sdk, context).await;
        asked.map_err(|failure| failure.after("nothing was paid for yet"))?;
    }
    let mut ours = all(&inputs, &trial, arguments, context).await?;
    for (tried, expected) in ours.iter_mut().zip(expected.iter().flatten()) {
        if tried.outcome == "passed" && tried.output.as_ref() != Some(expected) {
            tried.outcome = "differs".to_owned();
            tried.detail = Some(format!("Expected was {expected}"));
        }
    }
    let cases = cases(&ours);
    context
        .out
        .before_verdict()
        .all(ours.into_iter().map(|tried| Shown { tried, with_prompt: arguments.prompts }))?;
    let summary = Summary::of(&cases);
    tell(&trial.worker.model.id, &summary);
    let theirs = match (&arguments.against, &second) {
        (Some(Against::Build(path)), _) => Some((
            "the other build",
            by_build(path, arguments, cap, &mut settings, &trial, &sdk, context).await?,
        )),
        (_, Some(second)) => {
            Some((second.worker.model.id.as_str(), all(&inputs, second, arguments, context).await?))
        }
        _ => None,
    };
    if let Some((name, theirs)) = theirs {
        let theirs = self::cases(&theirs);
        tell(name, &Summary::of(&theirs));
        let lines: Vec<_> = differing(&cases, &theirs).iter().map(u64::to_string).collect();
        let lines = if lines.is_empty() { "none".to_owned() } else { lines.join(", ") };
        say(&format!("Lines whose outputs differ: {lines}."));
    }
    match arguments.least {
        Some(least) if !summary.reaches(least) => Err(Failure::no(format!(
            "{:.1} % passed, and at least {least} % were asked for: read the violations above.",
            summary.pass_percent()
        ))),
        None if summary.passed == 0 => Err(Failure::no("None passed: read what is said of them above.")),
        _ => Ok(()),
    }
}

fn progress(inputs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} tried, {elapsed}");
    // The template is ours and right; without it the bar is plainer.
    let bar = ProgressBar::new(inputs).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
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

fn expected(path: &Path, lines: usize) -> Result<Vec<Value>, Failure> {
    let text = std::io::read_to_string(files::open(path)?).map_err(|e| Failure::of_path(path, "read", &e))?;
    let outputs: Result<Vec<Value>, _> =
        text.lines().filter(|line| !line.trim().is_empty()).map(serde_json::from_str).collect();
    let outputs = outputs.map_err(|error| {
        Failure::usage(format!("{} is not a JSON output a line: {error}.", path.display()))
    })?;
    if outputs.len() != lines {
        return Err(Failure::usage(format!(
            "{} has {} outputs for {lines} inputs: give one for each.",
            path.display(),
            outputs.len()
        )));
    }
    Ok(outputs)
}

async fn settings(
    arguments: &Arguments,
    context: &Context,
) -> Result<(HashMap<String, String>, String, SdkConfig), Failure> {
    // For a model that asks nothing of AWS.
    let none = || SdkConfig::builder().build();
    Ok(match arguments.provider {
        Provider::Stack => {
            let stack = context.stack().await.map_err(|failure| failure.or(WITHOUT_A_STACK))?;
            (stack.environment.clone(), stack.region.clone(), stack.sdk)
        }
        Provider::Rehearsal => {
            let settings = [("NIGHTSHIFT_PROVIDER", "rehearsal"), ("NIGHTSHIFT_MODEL", "rehearsal")];
            (settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(), String::new(), none())
        }
        Provider::Server => {
            let (url, model) = (arguments.base_url.as_deref(), arguments.model.as_deref());
            (
                of_server(url.unwrap_or_default(), model.unwrap_or_default(), arguments.price.as_ref()),
                String::new(),
                none(),
            )
        }
        Provider::Environment => {
            let ours: HashMap<_, _> =
                std::env::vars().filter(|(name, _)| name.starts_with("NIGHTSHIFT_")).collect();
            let (worker, unread) = Worker::of_which(&ours);
            let unread: Vec<_> = unread.into_iter().filter(|name| name != "NIGHTSHIFT_PREFIX").collect();
            if !unread.is_empty() {
                say(&format!("Of no effect on a model, or misspelt: {}.", unread.join(", ")));
            }
            match worker.map(|worker| worker.model.provider) {
                Ok(provider) if asks_aws(&provider) => {
                    let sdk = stack::sdk(context.place.region.clone()).await?;
                    let region = stack::region(&sdk)?;
                    if let (
                        None | Some(KeySettings::Secret(_) | KeySettings::Parameter(_)),
                        Some(credentials),
                    ) = (provider.key(), sdk.credentials_provider())
                    {
                        credentials.provide_credentials().await.map_err(|e| error::of_credentials(&e))?;
                    }
                    (ours, region, sdk)
                }
                _ => (ours, String::new(), none()),
            }
        }
    })
}

/// For its key, or as the provider.
fn asks_aws(provider: &ProviderSettings) -> bool {
    let is_stored = provider.key().is_some_and(|place| !matches!(place, KeySettings::Given(_)));
    is_stored || matches!(provider, ProviderSettings::Bedrock(_))
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
    let runs = inputs.iter().filter_map(|(line, job, bytes)| {
        let ready = ready(job, *bytes, &tasks, trial.worker.price, u64::MAX).ok()?;
        Some(async move { trial.run(*line, job, &ready).await })
    });
    let mut runs = futures_util::stream::iter(runs).buffered(arguments.concurrency.into());
    let mut tried = Vec::new();
    // Hidden where nobody looks.
    let bar = progress(inputs.len() as u64);
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

/// Before anything is paid for.
fn can_be_asked(build: &Path, arguments: &Arguments) -> Result<(), Failure> {
    if arguments.source.is_stdin() {
        return Err(Failure::usage("Another build reads the inputs again, so they must be in a file."));
    }
    let mut command = std::process::Command::new(build);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let status = command.status().map_err(|e| Failure::of_path(build, "run", &e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{} does not know --version, so it is no nightshift: name the file of another build.",
        build.display()
    )))
}

/// Another build tries the same file, told the same settings, and without AWS credentials in its environment. A cap of 0, in
/// millionths of a dollar, lets it read all and pay for nothing.
async fn by_build(
    path: &Path,
    arguments: &Arguments,
    cap: u64,
    settings: &mut HashMap<String, String>,
    trial: &Trial,
    sdk: &SdkConfig,
    context: &Context,
) -> Result<Vec<Tried>, Failure> {
    // It can read no secret, so it is handed the key; never as an argument, which others could read.
    if let Some(place) = trial.worker.model.provider.key()
        && !matches!(place, KeySettings::Given(_))
    {
        let key = key::stored(sdk, place).await?;
        settings.retain(|name, _| !name.starts_with("NIGHTSHIFT_MODEL_KEY"));
        settings.insert("NIGHTSHIFT_MODEL_KEY".to_owned(), key.expose_secret().to_owned());
    }
    let mut command = std::process::Command::new(path);
    // What it passes is judged here.
    command.args(["task", "try", "--provider", "environment", "--output", "json", "--yes", "--least", "0"]);
    command.arg("--concurrency").arg(arguments.concurrency.to_string());
    command.arg("--cap").arg(format!("{:.6}", usd(cap)));
    command.args(arguments.source.arguments());
    command.env_clear().envs(settings.iter()).stdin(Stdio::null());
    command.envs(sdk.region().map(|region| ("AWS_REGION", region.as_ref())));
    for kept in ["PATH", "HOME", "SSL_CERT_FILE", "HTTPS_PROXY"] {
        command.envs(std::env::var_os(kept).map(|value| (kept, value)));
    }
    let here = std::env::temp_dir();
    let file = || tempfile::tempfile().map_err(|e| Failure::of_path(&here, "written", &e));
    let (mut answered, mut told) = (file()?, file()?);
    let into = |file: &File| file.try_clone().map_err(|e| Failure::of_path(&here, "written", &e));
    command.stdout(into(&answered)?).stderr(into(&told)?);
    let mut child = command.spawn().map_err(|e| Failure::of_path(path, "run", &e))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| Failure::of_path(path, "run", &e))? {
            break status;
        }
        if context.interrupt.is_asked() {
            let _ = child.kill();
            return Err(Failure::interrupted(
                "Interrupted while the other build tried its share: up to its cap was spent, and nothing is stored.",
            ));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let read = |file: &mut File| {
        let text = file.rewind().and_then(|()| std::io::read_to_string(file));
        text.map_err(|e| Failure::of_path(&here, "read", &e))
    };
    if !status.success() {
        let said = read(&mut told)?;
        let last = text::shown(said.lines().last().unwrap_or("it said nothing"));
        return Err(Failure::failed(format!("The other build failed: {last}")));
    }
    read(&mut answered)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::failed(format!("The other build answers in another form: {error}.")))
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
