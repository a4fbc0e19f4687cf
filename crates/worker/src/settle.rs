//! How a record leaves its worker, in this order: the ledger, then the queue, then the acknowledgement.
//!
//! **Invariant:** an outcome that is acknowledged is returned only behind a ledger write or a sent dead letter.

use nightshift_core::dead_letter::{DeadLetter, dead_letter, letter_without_record};
use nightshift_core::failure::FailureReason;
use nightshift_core::kept::Part;
use nightshift_core::metric::{HandBackCause, Latency, Outcome};
use nightshift_core::next_step::{
    AfterCall, HandBack, JobRun, Settlement, Work, after_own_part, after_own_write, hand_back,
};
use nightshift_core::record::{Record, RecordWrite, State};

use crate::job::Job;

impl Job<'_> {
    /// Ends the work on a claimed record.
    pub(crate) async fn settle(&self, work: Work<'_>, run: &JobRun, last: AfterCall) -> Outcome {
        let (cause, at_least_ms) = match run.settlement(work, last, self.item.original(), self.now_ms()) {
            Settlement::Store { write, parts, needs_review } => match self.store(&write, &parts).await {
                Ok(()) => {
                    self.measure_stored(run);
                    return if needs_review { Outcome::NeedsReview } else { Outcome::Succeeded };
                }
                Err(cause) => (cause, 0),
            },
            Settlement::Fail(write) => return self.fail(*write).await,
            Settlement::HandBack { cause, at_least_ms } => (cause, at_least_ms),
        };
        match self.decide_return(cause, at_least_ms) {
            HandBack::GiveUp(rejection) => {
                self.fail(run.fail(&rejection, self.now_ms(), work.revision, work.limits)).await
            }
            HandBack::Return { delay_s } => {
                if let Some(release) = run.release_before(cause) {
                    // If it is not written, the lease ends by itself.
                    let _ = self.write(&release).await;
                }
                self.make_visible(delay_s).await;
                Outcome::HandedBack(cause)
            }
        }
    }

    /// Writes a result; of one that waits for review, first what it would be judged by.
    async fn store(&self, write: &RecordWrite, parts: &[Part]) -> Result<(), HandBackCause> {
        for part in parts {
            after_own_part(&self.keep(part).await)?;
        }
        after_own_write(&self.write(write).await)
    }

    /// Writes a failure, then sends its dead letter.
    pub(crate) async fn fail(&self, write: RecordWrite) -> Outcome {
        match after_own_write(&self.write(&write).await) {
            Ok(()) => self.bury(&write.record).await,
            Err(cause) => self.return_unclaimed(cause, 0).await,
        }
    }

    /// Sends the dead letter of a failed record. If that fails, the redelivery finds the failure and sends it again.
    pub(crate) async fn bury(&self, record: &Record) -> Outcome {
        let letter = dead_letter(record, self.item.original());
        let (Some(letter), State::Failed(failed)) = (letter, &record.state) else {
            return self.return_unclaimed(HandBackCause::LostClaim, 0).await;
        };
        let outcome = self.send(&letter, failed.reason, HandBackCause::DeadLetterUnsent).await;
        match outcome {
            Outcome::HandedBack(cause) => {
                // At its last chance SQS will move it to `crashed` by itself; the reason stands in the ledger.
                if let HandBack::Return { delay_s } = self.decide_return(cause, 0) {
                    self.make_visible(delay_s).await;
                }
            }
            _ => self.note_letter(record).await,
        }
        outcome
    }

    /// Hands back a message whose record is not ours, or explains it while that is still possible.
    pub(crate) async fn return_unclaimed(&self, cause: HandBackCause, at_least_ms: u64) -> Outcome {
        match self.decide_return(cause, at_least_ms) {
            HandBack::Return { delay_s } => {
                self.make_visible(delay_s).await;
                Outcome::HandedBack(cause)
            }
            HandBack::GiveUp(rejection) => {
                let now_ms = self.now_ms();
                let ask = self.ask("", now_ms, now_ms, false);
                // Only the message says why: the record belongs to somebody else, or cannot be written.
                let record = ask.refuse(ask.first(), &rejection).record;
                match letter_without_record(&record, self.item.delivery.redrive_of, self.item.original()) {
                    Some(letter) => self.send(&letter, rejection.reason, cause).await,
                    None => Outcome::HandedBack(cause),
                }
            }
        }
    }

    /// The one place from which a dead letter is sent; unsent, its message is handed back for the other cause.
    async fn send(&self, letter: &DeadLetter, reason: FailureReason, otherwise: HandBackCause) -> Outcome {
        match self.ports().dead_letters.send(letter).await {
            Ok(()) => Outcome::DeadLettered(reason),
            Err(error) => {
                tracing::warn!(%error, "the dead letter was not sent");
                Outcome::HandedBack(otherwise)
            }
        }
    }

    /// Without the note, a copy of the message, or of the letter that this job was redriven by, will send the new one once
    /// more, or be paid for again where a redrive moves it back from `crashed`.
    async fn note_letter(&self, record: &Record) {
        if !record.letter_is_sent()
            && let Err(error) = self.ports().ledger.note_letter_sent(&record.key, record.version).await
        {
            self.ledger_error(&error);
        }
    }

    fn decide_return(&self, cause: HandBackCause, at_least_ms: u64) -> HandBack {
        let fraction = self.ports().entropy.fraction();
        hand_back(cause, at_least_ms, &self.item.delivery, self.now_ms(), fraction, self.limits())
    }

    /// If this fails, the message comes back after its visibility timeout: later than meant, and nothing else.
    async fn make_visible(&self, delay_s: u32) {
        if let Err(error) = self.ports().visibility.change(&self.item.message.receipt_handle, delay_s).await {
            tracing::warn!(%error, "the visibility was not changed");
        }
    }

    fn measure_stored(&self, run: &JobRun) {
        let (now_ms, task) = (self.now_ms(), self.item.task);
        self.invocation.numbers(|n| {
            n.sample_ms(task, Latency::JobLatency, now_ms.saturating_sub(run.record().first_received_ms));
            n.sample_ms(task, Latency::EndToEndLatency, now_ms.saturating_sub(self.item.message.sent_at_ms));
        });
    }
}
