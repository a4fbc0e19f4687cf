//! The main job on one machine.
//!
//! The real function binary runs in processes of its own, started by a stand-in for Lambda and fed from a stand-in for
//! SQS; its SDK clients speak to a stand-in for DynamoDB, and its model adapter to a model stub with seeded faults, or
//! to the real provider.

mod jobs;
mod refused;
mod report;
mod run;
mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use nightshift_local::model_stub;
use nightshift_models::{price_of, prices};
use secrecy::SecretString;

use refused::Refused;

/// The model where nobody names one, here as in a deployment.
const ANTHROPICS: &str = "claude-haiku-5-5";

/// Puts jobs on a queue, runs the real worker until it is empty, and shows what became of each.
#[derive(Debug, Parser)]
#[command(name = "scripts/demo", override_usage = "scripts/demo [OPTIONS]", max_term_width = 100)]
pub struct Arguments {
    /// Your own jobs, one a line: {"task": "...", "input": {...}, "reference": "..."}.
    #[arg(long, value_name = "FILE")]
    pub jobs: Option<PathBuf>,
    /// Writes every result and every dead letter here, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Decides every fault and every answer of the model stub.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How often the model stub fails; `some` by default.
    #[arg(long, value_name = "none|some|storm")]
    pub faults: Option<model_stub::Faults>,
    /// Who answers. `anthropic` and `openai` need the key in ANTHROPIC_API_KEY or OPENAI_API_KEY and cost money, except
    /// at a server of your own (`--base-url`).
    #[arg(long, value_enum, default_value_t = Provider::Stub)]
    pub provider: Provider,
    /// A server of your own that speaks the provider's protocol: for `openai` with its /v1, for `anthropic` without. It
    /// costs nothing, and needs no key.
    #[arg(long, value_name = "URL", requires = "provider")]
    pub base_url: Option<String>,
    /// The model's id; `openai` needs one.
    #[arg(long, default_value = ANTHROPICS)]
    pub model: String,
    /// What the model costs where no list says so: dollars per million tokens read and written; nothing at a server of
    /// your own.
    #[arg(long, value_name = "IN/OUT", value_parser = prices::typed)]
    pub price: Option<prices::Typed>,
    /// How the answer's schema is sent: the provider's own way, not at all, or as a tool that the model must use.
    #[arg(long, value_enum, requires = "provider")]
    pub structured_output: Option<StructuredOutput>,
    /// Calls that are open at once, at most; by default ten for each function process.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub in_flight: Option<u32>,
    /// Puts the jobs that have a result on the queue a second time, to show that nothing is called twice.
    #[arg(long)]
    pub twice: bool,
    /// Function processes at one time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub concurrency: u32,
    /// Shows the function's log.
    #[arg(long)]
    pub verbose: bool,
    /// The function's binary; `scripts/demo` builds and names it.
    #[arg(long, value_name = "FILE", hide = true)]
    pub function: PathBuf,
    /// Sent to Anthropic alone; without one, `--provider anthropic` ends before a call.
    #[arg(long, env = "ANTHROPIC_API_KEY", hide = true, hide_env_values = true)]
    pub anthropic_api_key: Option<SecretString>,
    /// Sent to OpenAI alone; without one, `--provider openai` ends before a call.
    #[arg(long, env = "OPENAI_API_KEY", hide = true, hide_env_values = true)]
    pub openai_api_key: Option<SecretString>,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// A server on this machine that speaks Anthropic's protocol.
    Stub,
    /// Anthropic's Messages API, or what speaks it.
    Anthropic,
    /// Chat completions: OpenAI, or Ollama, llama.cpp, vLLM, LM Studio and others by `--base-url`.
    Openai,
}

impl Provider {
    /// The word that the worker knows; the stub speaks Anthropic's protocol.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stub | Self::Anthropic => "anthropic",
            Self::Openai => "openai",
        }
    }
}

/// How the answer's schema is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StructuredOutput {
    /// The provider's own structured output.
    On,
    /// Only described in the prompt.
    Off,
    /// A tool that the model must use.
    Tool,
}

impl StructuredOutput {
    /// The word that the worker knows.
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Tool => "tool",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.check() {
        return told(&error);
    }
    let outcome = run::run(&arguments).await.and_then(|run| {
        let text = report::report(&run, &arguments)?;
        let mut out = std::io::stdout().lock();
        // A reader that has seen enough (`| head`) is no failure.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        Ok(run)
    });
    match outcome {
        Ok(run) if run.interrupted => ExitCode::from(130),
        Ok(run) if run.broken_promises().is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => told(&error),
    }
}

fn told(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "demo: {error:#}");
    error.downcast_ref::<Refused>().map_or(ExitCode::FAILURE, |refused| ExitCode::from(refused.exit_code()))
}

impl Arguments {
    /// Refuses what would be for nothing.
    fn check(&self) -> anyhow::Result<()> {
        let why = if self.replaces_its_jobs() {
            "--results is the file of --jobs, and would replace the jobs: name another one"
        } else if self.provider != Provider::Stub && self.faults.is_some() {
            "--faults are those of the model stub, and a provider has its own: leave one out"
        } else if self.provider == Provider::Openai && self.model == ANTHROPICS {
            "--provider openai asks a model that you name: add --model NAME, and --base-url for a server of your own"
        } else {
            self.check_price()?;
            let Some(path) = &self.results else { return Ok(()) };
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
            return opened.map(drop).map_err(|error| unwritable(path, &error));
        };
        Err(Refused::Usage(why.to_owned()).into())
    }

    /// The spend cap is as true as the price, so that a list's own counts where there is one.
    fn check_price(&self) -> Result<(), Refused> {
        let (model, provider) = (&self.model, self.provider.word());
        let is_known = self.base_url.is_none() && price_of(provider, model).is_some();
        match (&self.price, is_known) {
            (Some(_), true) => {
                Err(Refused::Usage(format!("the price of {model:?} is known: leave --price out")))
            }
            (None, false) if self.base_url.is_none() => Err(Refused::Usage(format!(
                "no list has the price of {model:?} of {provider}: add --price IN/OUT, in dollars per million tokens read and written"
            ))),
            _ => Ok(()),
        }
    }

    fn replaces_its_jobs(&self) -> bool {
        let same = |path: &Path| path.canonicalize().ok();
        let jobs = self.jobs.as_deref().and_then(same);
        jobs.is_some() && jobs == self.results.as_deref().and_then(same)
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> anyhow::Error {
    let words = format!("--results {} cannot be written ({error}): name another file", path.display());
    match error.kind() {
        std::io::ErrorKind::NotFound => Refused::NotFound(words).into(),
        _ => anyhow::anyhow!(words),
    }
}
