//! One invocation: read what is asked, do one bounded thing, answer.

use lambda_runtime::Diagnostic;
use nightshift_core::redrive::{Answer, Ask, DENIED};
use nightshift_ports::Clock;
use nightshift_redrive::{Error, Redriver};
use nightshift_shell::runtime::Handler;
use std::sync::Arc;

/// Before Lambda kills the function, so long is kept for the piece of work that is under way: a page with all timeouts of
/// its requests is rarely longer, and when it is, nothing is lost.
const DEADLINE_MARGIN_MS: u64 = 20_000;

/// Why an invocation fails, so that somebody is told.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct InvocationError(Error);

impl From<InvocationError> for Diagnostic {
    fn from(error: InvocationError) -> Self {
        let error_type = match &error.0 {
            denied if denied.is_for_good() => DENIED,
            Error::Port(_) => "Aws",
            Error::Unreadable(_) => "Unreadable",
            _ => "Redrive",
        };
        Self { error_type: error_type.to_owned(), error_message: error.to_string() }
    }
}

/// Answers one event at a time.
pub struct AskHandler {
    redriver: Redriver,
    clock: Arc<dyn Clock>,
}

impl AskHandler {
    /// A handler around the redrives of a stack.
    #[must_use]
    pub fn new(redriver: Redriver, clock: Arc<dyn Clock>) -> Self {
        Self { redriver, clock }
    }

    async fn answer(&self, ask: Ask, deadline_ms: u64) -> Result<Answer, Error> {
        let redriver = &self.redriver;
        Ok(match ask {
            Ask::Start(request) if request.dry_run => {
                Answer::Report(Box::new(redriver.dry_run(&request).await?))
            }
            Ask::Start(request) => Answer::Redrive(Box::new(redriver.start(*request).await?)),
            Ask::Step { id } => {
                let left_ms = deadline_ms.saturating_sub(self.clock.now_ms());
                Answer::Stepped(redriver.step(&id, left_ms.saturating_sub(DEADLINE_MARGIN_MS)).await?)
            }
            Ask::Stop { id, caller, reason } => {
                Answer::Redrive(Box::new(redriver.stop(&id, &caller, &reason).await?))
            }
            Ask::Show { id } => Answer::Redrive(Box::new(redriver.show(&id).await?)),
            Ask::List { all } => Answer::Redrives(redriver.list(all).await?),
        })
    }
}

impl Handler for AskHandler {
    type Answer = Answer;
    type Error = InvocationError;

    async fn handle(&self, _: &str, deadline_ms: u64, event: &str) -> Result<Answer, InvocationError> {
        let ask = match Ask::read(event) {
            Ok(ask) => ask,
            Err(refused) => return Ok(Answer::Refused(refused)),
        };
        match self.answer(ask, deadline_ms).await {
            Ok(answer) => Ok(answer),
            Err(error @ Error::NotFound(_)) => Ok(Answer::NotFound(error.to_string())),
            Err(error) if error.is_the_askers() => Ok(Answer::Refused(error.to_string())),
            Err(error) => Err(InvocationError(error)),
        }
    }
}
