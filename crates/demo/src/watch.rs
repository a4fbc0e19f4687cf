//! Watches the function while it works: progress, its log, and what it says about retries.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use nightshift_core::model::NOT_A_MODEL;
use nightshift_local::aws::LocalAws;
use nightshift_local::lambda::LambdaEvent;
use tokio::time::Instant;

use crate::refused::Refused;

/// A server that loads its model or is full fails a few calls; so many look like a wrong address or a server that is gone.
const FAILED_IN_A_ROW_SAID: u32 = 20;
/// A model that is busy answers within seconds; then it is said that it does not, and again after twice the time.
const SILENT_SAID: Duration = Duration::from_secs(5);

/// Somebody real, whom the demo asks: a refusal of the key would not go away by waiting.
#[derive(Clone, Copy)]
pub struct Real {
    /// The variable that holds its key.
    pub key: &'static str,
    /// The longest that a call takes.
    pub call_timeout: Duration,
}

/// Watches the function: progress, its log, and what it says about retries.
pub struct Watch {
    verbose: bool,
    /// `None`: the stub is asked.
    real: Option<Real>,
    /// When something was last heard of a call.
    heard: Instant,
    /// How long nothing may be heard before that is said.
    silent_said: Duration,
    /// Calls of somebody real that failed since the last job ended.
    failed_in_a_row: u32,
    bar: ProgressBar,
    /// Why calls were repeated, with how often.
    pub retries: BTreeMap<String, u64>,
    /// Why messages were handed back, with how often.
    pub hand_backs: BTreeMap<String, u64>,
}

impl Watch {
    /// Nothing has begun.
    pub fn new(verbose: bool, real: Option<Real>) -> Self {
        Self {
            verbose,
            real,
            heard: Instant::now(),
            silent_said: SILENT_SAID,
            failed_in_a_row: 0,
            bar: ProgressBar::hidden(),
            retries: BTreeMap::new(),
            hand_backs: BTreeMap::new(),
        }
    }

    /// A pass over so many jobs begins.
    pub fn begin(&mut self, pass: usize, jobs: usize) {
        self.heard = Instant::now();
        self.silent_said = SILENT_SAID;
        // Whether a person watches: only then is there a progress bar.
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{prefix} [{wide_bar}] {pos}/{len} settled, {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = ProgressBar::new(u64::try_from(jobs).unwrap_or(u64::MAX)).with_style(style);
            self.bar.set_prefix(format!("pass {pass}"));
        }
    }

    /// The pass is over.
    pub fn end(&mut self) {
        self.bar.finish_and_clear();
    }

    /// Until a queue of so many messages holds none.
    ///
    /// # Errors
    /// When no job can succeed, or the function does not start.
    pub async fn until_empty(
        &mut self,
        aws: &LocalAws,
        queue: &str,
        events: &mut tokio::sync::mpsc::Receiver<LambdaEvent>,
        sent: usize,
    ) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event)?,
                    None => bail!("the stand-in for Lambda stopped by itself"),
                },
                _ = tick.tick() => {
                    let depth = aws.depth(queue).unwrap_or_default();
                    let waiting = depth.total();
                    self.bar.set_position(u64::try_from(sent.saturating_sub(waiting)).unwrap_or(0));
                    if waiting == 0 {
                        return Ok(());
                    }
                    if let Some(words) = self.silence(depth.in_flight, self.heard.elapsed()) {
                        self.show(&words);
                    }
                }
            }
        }
    }

    /// Hears what is left to be heard.
    pub fn drain(&mut self, events: &mut tokio::sync::mpsc::Receiver<LambdaEvent>) {
        while let Ok(event) = events.try_recv() {
            // The run is over: a late failure of a process has nothing left to break.
            let _ = self.event(event);
        }
    }

    /// What is said of a model that has answered nothing for so long, while so many jobs wait for it.
    fn silence(&mut self, jobs: usize, silent_for: Duration) -> Option<String> {
        let real = self.real.filter(|_| jobs > 0 && silent_for >= self.silent_said)?;
        self.silent_said = silent_for.max(self.silent_said) * 2;
        let wait = if jobs == 1 { "1 job was".to_owned() } else { format!("{jobs} jobs were") };
        Some(format!(
            "no answer from the model for {} s: {wait} received and not settled; a call is given up after {} s, and Ctrl-C stops",
            silent_for.as_secs(),
            real.call_timeout.as_secs()
        ))
    }

    fn event(&mut self, event: LambdaEvent) -> anyhow::Result<()> {
        match event {
            LambdaEvent::Log(line) => self.log(&line.line)?,
            LambdaEvent::Invocation(report) => {
                if let nightshift_local::lambda::InvocationResult::InitFailed(why) = report.result {
                    bail!("the function did not start: {why}");
                }
            }
            LambdaEvent::Trouble(what) => self.show(&format!("lambda: {what}")),
            LambdaEvent::Started { .. } | LambdaEvent::Ended { .. } => {}
        }
        Ok(())
    }

    fn log(&mut self, line: &str) -> anyhow::Result<()> {
        if self.verbose {
            self.show(line);
        }
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else { return Ok(()) };
        let fields = entry.get("fields").unwrap_or(&entry);
        let text =
            |name: &str| fields.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let message = text("message");
        if ["model call failed", "calling again"].contains(&message.as_str()) {
            self.heard = Instant::now();
        }
        match (message.as_str(), self.real) {
            ("model call failed", Some(real)) if text("class") == "Account" => {
                let status = fields.get("status").and_then(serde_json::Value::as_u64);
                bail!(refusal(real.key, &text("error_type"), status));
            }
            ("model call failed", Some(_)) => {
                self.failed_in_a_row += 1;
                if self.failed_in_a_row == FAILED_IN_A_ROW_SAID {
                    self.show(&format!(
                        "{FAILED_IN_A_ROW_SAID} calls in a row failed ({}): a job is given up after six of them, or after three minutes where there is no room for it. Check that the server still runs, and --base-url: https:// where it speaks http:// is never answered",
                        text("error_type")
                    ));
                }
            }
            ("calling again", _) => *self.retries.entry(text("why")).or_default() += 1,
            ("record ended", _) => {
                if let Some(cause) =
                    text("outcome").strip_prefix("HandedBack(").and_then(|o| o.strip_suffix(')'))
                {
                    *self.hand_backs.entry(cause.to_owned()).or_default() += 1;
                } else {
                    self.failed_in_a_row = 0;
                    self.heard = Instant::now();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Above the progress bar, never through it.
    fn show(&self, line: &str) {
        if self.bar.is_hidden() { say(line) } else { self.bar.println(line) }
    }
}

/// What is said of a provider that refuses everybody.
fn refusal(key: &str, error_type: &str, status: Option<u64>) -> Refused {
    let of = status.map(|status| format!(" (HTTP {status})")).unwrap_or_default();
    let said = |what: &str, check: &str| {
        format!("the provider {what}: {error_type}{of}. No job can succeed, so the demo stops: check {check}")
    };
    if error_type == NOT_A_MODEL || matches!(status, Some(300..=399 | 404 | 405 | 501)) {
        let check = "--base-url, which ends in /v1 for openai, and the model's name";
        return Refused::NotFound(said("knows no such address or model", check));
    }
    Refused::NotAllowed(said(
        "refuses the account",
        &format!("the key in {key}, the credit and the model's name"),
    ))
}

/// Progress and remarks go to standard error; standard output has the report alone.
pub fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_is_silent_is_named_after_seconds_and_then_ever_more_rarely() {
        let real = Real { key: "OPENAI_API_KEY", call_timeout: Duration::from_secs(120) };
        let mut watch = Watch::new(false, Some(real));
        for (jobs, seconds, said) in [
            (3, 4, None),
            (0, 5, None),
            (
                3,
                5,
                Some(
                    "no answer from the model for 5 s: 3 jobs were received and not settled; a call is given up after 120 s",
                ),
            ),
            (3, 9, None),
            (1, 10, Some("no answer from the model for 10 s: 1 job was received")),
            // It was heard meanwhile, and is silent again.
            (3, 10, None),
            (3, 60, Some("for 60 s")),
            (3, 119, None),
            (3, 120, Some("for 120 s")),
        ] {
            let words = watch.silence(jobs, Duration::from_secs(seconds));
            assert_eq!(words.is_some(), said.is_some(), "{jobs} jobs, {seconds} s: {words:?}");
            assert!(words.unwrap_or_default().contains(said.unwrap_or_default()), "{jobs} jobs, {seconds} s");
        }
        assert_eq!(
            Watch::new(false, None).silence(3, Duration::from_secs(60)),
            None,
            "the stub hangs on purpose"
        );
    }

    #[test]
    fn a_refusal_names_what_to_mend_and_has_the_commands_exit_code() {
        for (status, error_type, code, part) in [
            (401, "some_error", 4, "check the key in OPENAI_API_KEY"),
            (402, "some_error", 4, "(HTTP 402)"),
            (404, "some_error", 5, "check --base-url"),
            (301, "http_301", 5, "check --base-url"),
            (405, "http_405", 5, "check --base-url"),
            (501, "http_501", 5, "check --base-url"),
            (200, NOT_A_MODEL, 5, "check --base-url"),
        ] {
            let refused = refusal("OPENAI_API_KEY", error_type, Some(status));
            assert!(refused.exit_code() == code && refused.to_string().contains(part), "{refused}");
        }
    }
}
