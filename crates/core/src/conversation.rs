//! What a model is asked for one job, and what it is asked after an answer that was not accepted.
//!
//! **Invariant:** no request that was answered is made again word for word in one claim. It would most likely be
//! answered the same, and it is paid for.

use crate::model::{Prompt, Turn};

/// What stands between the prompt and what is said behind it.
pub const SEPARATOR: &str = "\n\n";

/// The requests of one claim, the present one last. Their number is bounded by `reask_limit`, and each is as long as the
/// prompt, an answer and a re-ask at most.
#[derive(Debug, Clone)]
pub struct Conversation {
    prompt: String,
    asked: Vec<Ask>,
}

/// What a request says beside the prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ask {
    /// Nothing: it is the first.
    Plain,
    /// The answer that was not accepted, and what is wrong with it.
    Corrects { said: String, told: String },
    /// What is wrong, behind the prompt: there is no answer to show, or the model has been shown it before.
    Reminds { told: String },
}

/// Whether there was anything left to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedAgain {
    /// The present request is a new one.
    Differently,
    /// Each way to ask was answered before; the present request is as it was.
    NothingNew,
}

impl Conversation {
    /// The first request: the prompt alone.
    #[must_use]
    pub fn new(prompt: &Prompt) -> Self {
        Self { prompt: prompt.user.clone(), asked: vec![Ask::Plain] }
    }

    /// The turns of the present request.
    #[must_use]
    pub fn turns(&self) -> Vec<Turn> {
        let prompt = self.prompt.as_str();
        match self.asked.last() {
            None | Some(Ask::Plain) => vec![Turn::User(prompt.to_owned())],
            Some(Ask::Corrects { said, told }) => {
                vec![Turn::User(prompt.to_owned()), Turn::Assistant(said.clone()), Turn::User(told.clone())]
            }
            Some(Ask::Reminds { told }) => vec![Turn::User(format!("{prompt}{SEPARATOR}{told}"))],
        }
    }

    /// Asks again after the present request was answered with `said` and that was not accepted; `told` says why.
    pub fn ask_again(&mut self, said: &str, told: &str) -> AskedAgain {
        let told = told.to_owned();
        // A provider refuses a turn with nothing in it, and there is nothing to correct in an answer that said nothing.
        let corrects =
            (!said.trim().is_empty()).then(|| Ask::Corrects { said: said.to_owned(), told: told.clone() });
        let ways = corrects.into_iter().chain([Ask::Reminds { told }]);
        match ways.into_iter().find(|way| !self.asked.contains(way)) {
            Some(way) => {
                self.asked.push(way);
                AskedAgain::Differently
            }
            None => AskedAgain::NothingNew,
        }
    }
}
