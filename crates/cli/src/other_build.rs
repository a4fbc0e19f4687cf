//! Another build of `nightshift`, or one of a checkout, which tries the same file: told the same settings, handed the model
//! key, and without AWS credentials.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nightshift_aws::clients::SdkConfig;
use nightshift_core::cost::usd;
use nightshift_shell::settings::{KeySettings, ProviderSettings};
use secrecy::ExposeSecret as _;

use crate::error::Failure;
use crate::jobs_file::Source;
use crate::stack::stored_key;
use crate::text;
use crate::trial::{Trial, Tried};
use crate::trial_model::Settings;
use crate::{Context, checkout, child};

/// Another build, and what it is told.
pub struct OtherBuild<'a> {
    path: PathBuf,
    source: &'a Source,
    /// How many at a time.
    concurrency: u16,
}

/// # Errors
/// What can be told of a build before it is built, and before the inputs are read.
pub fn check(path: &Path, source: &Source) -> Result<(), Failure> {
    if source.is_stdin() {
        return Err(Failure::usage("Another build reads the inputs again, so they must be in a file."));
    }
    if path.is_dir() { checkout::check(path) } else { Ok(()) }
}

impl<'a> OtherBuild<'a> {
    /// The build at this path, which may be a checkout.
    ///
    /// # Errors
    /// Where it is no `nightshift`.
    pub fn at(path: &Path, source: &'a Source, concurrency: u16) -> Result<Self, Failure> {
        // A bare name would be looked for among the programs of PATH.
        let path = std::path::absolute(path).map_err(|e| Failure::of_path(path, "run", &e))?;
        let build = Self { path, source, concurrency };
        if build.path.is_dir() {
            checkout::announce(&build.path);
        } else {
            build.is_nightshift()?;
        }
        Ok(build)
    }

    /// Builds the checkout, where it is one. After whoever asked has agreed, since it runs what stands there; before anything
    /// is paid for.
    ///
    /// # Errors
    /// Where it does not build, or is no `nightshift`.
    pub async fn made(self) -> Result<Self, Failure> {
        if !self.path.is_dir() {
            return Ok(self);
        }
        let build = Self { path: checkout::built(&self.path).await?, ..self };
        build.is_nightshift()?;
        Ok(build)
    }

    fn is_nightshift(&self) -> Result<(), Failure> {
        let mut command = Command::new(&self.path);
        command.arg("--version").stdin(Stdio::null());
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        let said = command.output().map_err(|e| Failure::of_path(&self.path, "run", &e))?;
        if said.status.success() && said.stdout.starts_with(b"nightshift ") {
            return Ok(());
        }
        Err(Failure::usage(format!(
            "{} does not say at --version that it is nightshift: name the file of another build.",
            self.path.display()
        )))
    }

    /// What it is told: the settings, with the key itself. It can read no secret, and an argument others could read.
    ///
    /// # Errors
    /// Where the model is called with AWS credentials, or its key cannot be read.
    pub async fn settings(
        &self,
        settings: &Settings,
        trial: &Trial,
        sdk: &SdkConfig,
    ) -> Result<Settings, Failure> {
        let provider = &trial.worker.model.provider;
        if matches!(provider, ProviderSettings::Bedrock(None)) {
            return Err(Failure::usage(
                "Another build is handed no AWS credentials, and this model is called with them: compare outputs by --against file:PATH.",
            ));
        }
        let mut told = settings.clone();
        if let Some(place) = provider.key()
            && !matches!(place, KeySettings::Given(_))
        {
            let key = stored_key(sdk, place).await?;
            told.retain(|name, _| !name.starts_with("NIGHTSHIFT_MODEL_KEY"));
            told.insert("NIGHTSHIFT_MODEL_KEY".to_owned(), key.expose_secret().to_owned());
        }
        if let Some(region) = sdk.region() {
            told.insert("AWS_REGION".to_owned(), region.to_string());
        }
        Ok(told)
    }

    /// Lets it try them, as many as they are. A cap of 0, in millionths of a dollar, lets it read all and pay for nothing.
    ///
    /// # Errors
    /// Where it fails, or answers in another form.
    pub async fn tries(
        &self,
        inputs: usize,
        told: &Settings,
        cap: u64,
        context: &Context,
    ) -> Result<Vec<Tried>, Failure> {
        let mut command = Command::new(&self.path);
        // What it passes is judged here.
        command.args([
            "task",
            "try",
            "--provider",
            "environment",
            "--output",
            "json",
            "--yes",
            "--least",
            "0",
        ]);
        command.arg("--concurrency").arg(self.concurrency.to_string());
        command.arg("--cap").arg(format!("{:.6}", usd(cap)));
        command.args(self.source.arguments());
        command.env_clear().envs(told.iter()).stdin(Stdio::null());
        // Not HOME, where credentials may be.
        for kept in ["PATH", "SSL_CERT_FILE", "HTTPS_PROXY"] {
            command.envs(std::env::var_os(kept).map(|value| (kept, value)));
        }
        let (answered, said) = (child::Output::new()?, child::Output::new()?);
        command.stdout(answered.stdio()?).stderr(said.stdio()?);
        let status = tokio::select! {
            status = child::ended(&mut command, &self.path) => status?,
            () = context.interrupt.asked() => return Err(Failure::interrupted(
                "Interrupted while the other build tried its share: up to its cap was spent, and nothing is stored.",
            )),
        };
        if !status.success() {
            let said = said.text()?;
            let last = text::shown(said.lines().last().unwrap_or("it said nothing"));
            return Err(Failure::failed(format!("The other build failed: {last}")));
        }
        let tried: Vec<Tried> =
            answered.text()?.lines().map(serde_json::from_str).collect::<Result<_, _>>().map_err(
                |error| Failure::failed(format!("The other build answers in another form: {error}.")),
            )?;
        if tried.len() != inputs {
            return Err(Failure::failed(format!(
                "The other build tried {} of {}: name the file of another build.",
                tried.len(),
                text::counted(inputs as u64, "input")
            )));
        }
        Ok(tried)
    }
}
