//! The redrive over ports: what a command, a function and the sentinel ask of it.
//!
//! Everything that is decided stands in `nightshift_core::redrive`; here it is performed. [`Redriver::step`] is the only
//! thing that receives, sends or deletes; read it first, then `page`.

mod page;
mod store;

use std::sync::Arc;
use std::time::Duration;

use nightshift_core::redrive::{
    CanaryOutcome, Deployed, Depth, Entry, Finish, JobCost, Listed, Next, Redrive, Report, Request, Resumed,
    STEP_MS_MAX, Source, Stepped, Stop, Tally, Unreadable,
};
use nightshift_core::spend::UtcDay;
use nightshift_ports::{
    Clock, Documents, Entropy, FailedRecords, JobsQueue, Ledger, LiveVersion, PortError, PortErrorKind,
    SingleRecords, WaitingQueue,
};

use store::{Store, Wrote};

/// The world, as a redrive sees it.
#[derive(Clone)]
#[allow(missing_docs)] // each port is documented where it is defined
pub struct Ports {
    pub dead_letters: Arc<dyn WaitingQueue>,
    pub crashed: Arc<dyn WaitingQueue>,
    pub jobs: Arc<dyn JobsQueue>,
    pub ledger: Arc<dyn Ledger>,
    pub records: Arc<dyn SingleRecords>,
    pub failed: Arc<dyn FailedRecords>,
    pub documents: Arc<dyn Documents>,
    pub worker: Arc<dyn LiveVersion>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

/// What a redrive must know of the stack.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The worker's limit of a body, in bytes: it decides on the key of what is longer.
    pub body_bytes_max: usize,
    /// How long the worker keeps a failed or unfinished record, in milliseconds.
    pub failure_expiry_ms: u64,
    /// What was deployed with this build; what is live and when work was resumed is asked at each dry run.
    pub deployed: Deployed,
    /// What a job may cost.
    pub cost: JobCost,
}

/// The redrives of one stack.
pub struct Redriver {
    ports: Ports,
    store: Store,
    stack: Stack,
}

/// Why something was not done. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request contradicts itself.
    #[error("the request cannot be carried out: {}", .0.join(" "))]
    Invalid(Vec<String>),
    /// SQS could not do it.
    #[error("refused: {0}")]
    Refused(String),
    /// Two redrives of one source would hide each other's messages.
    #[error("the redrive {id} of {} is not over: wait for it, or stop it first", source_queue.as_str())]
    Running {
        /// Its name.
        id: String,
        /// The queue that both take from.
        source_queue: Source,
    },
    /// There is none.
    #[error("there is no redrive {0}: list them to see which there are")]
    NotFound(String),
    /// A newer release wrote it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Others wrote at the same time, again and again.
    #[error("others change the redrives at the same time: try again")]
    Contended,
    /// AWS did not do what it was asked.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl Error {
    /// Whether AWS will refuse the same for as long as nobody changes the roles or the key's policy. A port's message begins
    /// with the service's code.
    #[must_use]
    pub fn is_for_good(&self) -> bool {
        let is_denied =
            |message: &str| message.split(' ').next().is_some_and(|code| code.contains("AccessDenied"));
        matches!(self, Self::Port(error) if is_denied(&error.message))
    }

    /// Whether whoever asked can mend it, and nothing of the stack is at fault.
    #[must_use]
    pub fn is_the_askers(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Refused(_) | Self::Running { .. } | Self::NotFound(_) => true,
            Self::Unreadable(_) | Self::Contended | Self::Port(_) => false,
        }
    }
}

impl Redriver {
    /// The redrives of a stack.
    #[must_use]
    pub fn new(ports: Ports, stack: Stack) -> Self {
        let store = Store { documents: Arc::clone(&ports.documents), clock: Arc::clone(&ports.clock) };
        Self { ports, store, stack }
    }

    /// What a request would do, and what it would cost. Nothing is received, hidden or changed.
    ///
    /// # Errors
    /// When the request contradicts itself, or AWS does not answer.
    pub async fn dry_run(&self, request: &Request) -> Result<Report, Error> {
        let mut unread = Vec::new();
        let mut deployed = self.stack.deployed.clone();
        if request.source == Source::DeadLetters {
            // By the alias: a roll-back moves nothing else.
            let live_version = self.ports.worker.live_version().await;
            deployed.live_version = live_version.map_err(|error| unread.push(error)).ok();
            let control = self.ports.ledger.control().await.map_err(|error| unread.push(error)).ok();
            deployed.resumed = match control {
                Some(control) => control.opened_at_ms.map_or(Resumed::Never, Resumed::At),
                None => Resumed::Unknown,
            };
        }
        let (tally, depth) = self.count(request, &deployed).await?;
        let mut report = tally.report(request, depth, self.stack.cost, self.ports.clock.now_ms());
        // What advice is made of is not to be in the way of a redrive.
        report.warnings.extend(
            unread.iter().map(|error| {
                format!("What may have changed since the failures is not fully known: {error}.")
            }),
        );
        Ok(report)
    }

    /// Begins a redrive: from then on it has a record and can be stepped, shown and stopped. Nothing is sent yet.
    ///
    /// # Errors
    /// When the request contradicts itself, SQS could not do it, or another of the same source is not over.
    pub async fn start(&self, request: Request) -> Result<Redrive, Error> {
        let (tally, depth) = self.count(&request, &self.stack.deployed).await?;
        let source = request.source;
        let matching = tally.counted(&request, depth);
        let now_ms = self.ports.clock.now_ms();
        let id = self.name(now_ms);
        let mut redrive = Redrive::begin(id, request, matching, depth, now_ms).map_err(Error::Refused)?;
        let directory = self.store.refuse_beside_another(source).await?;
        if let Some(last) = directory.last(source)
            && let Some(earlier) = self.store.read(last).await?
        {
            redrive.comes_after(&earlier, now_ms);
        }
        // Its record first: what the directory names is there.
        self.store.create(&redrive).await?;
        self.store.enter(&redrive).await?;
        Ok(redrive)
    }

    /// Does what can be done within so many milliseconds (at most [`STEP_MS_MAX`]), and says when to come back.
    ///
    /// Dropping the future is the same as being killed: nothing is lost, and another step goes on when the lock ends.
    ///
    /// # Errors
    /// When AWS does not do what it is asked; what was done until then stands in the record.
    pub async fn step(&self, id: &str, within_ms: u64) -> Result<Stepped, Error> {
        let began_ms = self.ports.clock.now_ms();
        let mut redrive = self.show(id).await?;
        if redrive.end.is_some() {
            self.store.strike_out(&redrive).await?;
            return Ok(Stepped::Over(Box::new(redrive)));
        }
        let token = self.ports.entropy.token();
        if let Err(until_ms) = redrive.take_lock(&token, began_ms) {
            return Ok(Stepped::Busy { until_ms });
        }
        if let Wrote::Others { until_ms } = self.store.write(&mut redrive, &token).await? {
            return Ok(Stepped::Busy { until_ms });
        }
        let until_ms = began_ms.saturating_add(within_ms.min(STEP_MS_MAX));
        let worked = self.work(&mut redrive, &token, until_ms).await;
        let at_ms = match worked {
            Ok(Worked::Until { at_ms }) => at_ms,
            Ok(Worked::Others { until_ms }) => return Ok(Stepped::Busy { until_ms }),
            Err(error) => {
                // What was done stands there, and why no more was; the next step need not wait for the lease.
                redrive.step_failed(&error.to_string(), self.ports.clock.now_ms());
                redrive.lock = None;
                let _ = self.store.write(&mut redrive, &token).await;
                return Err(error);
            }
        };
        redrive.lock = None;
        if let Wrote::Others { until_ms } = self.store.write(&mut redrive, &token).await? {
            return Ok(Stepped::Busy { until_ms });
        }
        if redrive.end.is_some() {
            self.store.strike_out(&redrive).await?;
            return Ok(Stepped::Over(Box::new(redrive)));
        }
        Ok(Stepped::Again { at_ms, redrive: Box::new(redrive) })
    }

    /// One bounded piece of work after the other, each written before the next begins.
    async fn work(&self, redrive: &mut Redrive, token: &str, until_ms: u64) -> Result<Worked, Error> {
        loop {
            let now_ms = self.ports.clock.now_ms();
            let next = redrive.next(now_ms);
            if now_ms >= until_ms && !matches!(next, Next::Over | Next::End(_)) {
                return Ok(Worked::Until { at_ms: now_ms });
            }
            match next {
                Next::Over => return Ok(Worked::Until { at_ms: now_ms }),
                Next::End(why) => redrive.finish(why, now_ms),
                Next::ReadDepth => {
                    let depth = self.source(redrive.request.source).depth().await?;
                    redrive.depth_was_read(depth, self.ports.clock.now_ms());
                }
                Next::Receive { messages_max } => self.page(redrive, token, messages_max).await?,
                Next::LookAtCanary => self.look_at_canary(redrive).await?,
                Next::Rest { until_ms: rest_ms } if rest_ms >= until_ms => {
                    return Ok(Worked::Until { at_ms: rest_ms });
                }
                Next::Rest { until_ms: rest_ms } => {
                    tokio::time::sleep(Duration::from_millis(rest_ms - now_ms)).await;
                    continue;
                }
            }
            redrive.keep_lock(self.ports.clock.now_ms());
            if let Wrote::Others { until_ms } = self.store.write(redrive, token).await? {
                return Ok(Worked::Others { until_ms });
            }
        }
    }

    async fn look_at_canary(&self, redrive: &mut Redrive) -> Result<(), Error> {
        let pending = redrive.canary.as_ref().map(|run| run.pending.clone()).unwrap_or_default();
        let mut outcomes = Vec::with_capacity(pending.len());
        for sent in &pending {
            outcomes.push(match self.ports.records.read(&sent.key).await {
                Ok(record) => sent.outcome(record.as_ref()),
                // In words of a newer release: it will be known, or it was not known in time.
                Err(error) if error.kind == PortErrorKind::Unreadable => CanaryOutcome::Pending,
                Err(error) => return Err(error.into()),
            });
        }
        redrive.judge_canary(&outcomes, self.ports.clock.now_ms());
        Ok(())
    }

    /// Stops a redrive. What is under way ends with its page; what was not sent stays where it is.
    ///
    /// # Errors
    /// When there is none, or AWS does not answer.
    pub async fn stop(&self, id: &str, caller: &str, reason: &str) -> Result<Redrive, Error> {
        let token = self.ports.entropy.token();
        for _ in 0..TRIES_MAX {
            let now_ms = self.ports.clock.now_ms();
            let mut redrive = self.show(id).await?;
            if redrive.end.is_some() {
                return Ok(redrive);
            }
            redrive.ask_to_stop(Stop { caller: caller.to_owned(), reason: reason.to_owned(), at_ms: now_ms });
            // Where nobody works on it, nobody else need come for its end.
            if redrive.take_lock(&token, now_ms).is_ok() {
                redrive.finish(Finish::Stopped, now_ms);
                redrive.lock = None;
            }
            if let Wrote::Ours = self.store.write(&mut redrive, &token).await? {
                if redrive.end.is_some() {
                    self.store.strike_out(&redrive).await?;
                }
                return Ok(redrive);
            }
        }
        Err(Error::Contended)
    }

    /// The record of a redrive.
    ///
    /// # Errors
    /// When there is none, when a newer release wrote it, or when AWS does not answer.
    pub async fn show(&self, id: &str) -> Result<Redrive, Error> {
        self.store.read(id).await?.ok_or_else(|| Error::NotFound(id.to_owned()))
    }

    /// All redrives that are remembered, the newest first. Of those that are known to be over, the record is read only
    /// where `all` asks for it.
    ///
    /// # Errors
    /// When AWS does not answer.
    pub async fn list(&self, all: bool) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for Listed { id, source, over, .. } in self.store.directory().await?.redrives {
            if over && !all {
                continue;
            }
            let redrive = match self.store.read(&id).await {
                Ok(None) => continue,
                Ok(redrive) => redrive,
                Err(Error::Unreadable(_)) => None,
                Err(error) => return Err(error),
            };
            entries.push(Entry { id, source, redrive });
        }
        Ok(entries)
    }

    async fn count(&self, request: &Request, deployed: &Deployed) -> Result<(Tally, Depth), Error> {
        let faults = request.faults();
        if !faults.is_empty() {
            return Err(Error::Invalid(faults));
        }
        let depth = self.source(request.source).depth().await?;
        let mut tally = Tally::default();
        // The ledger may know nothing of what is in `crashed`.
        if request.source == Source::DeadLetters {
            let mut after = None;
            loop {
                let page = self.ports.failed.page(after).await?;
                for record in &page.records {
                    tally.add(request, record, deployed);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok((tally, depth))
    }

    fn source(&self, source: Source) -> &dyn WaitingQueue {
        match source {
            Source::DeadLetters => &*self.ports.dead_letters,
            Source::Crashed => &*self.ports.crashed,
        }
    }

    /// When it began, so that names sort by time, and something random.
    fn name(&self, now_ms: u64) -> String {
        let day = UtcDay::of(now_ms);
        let s = now_ms / 1_000 % 86_400;
        let token = self.ports.entropy.token();
        let random = token.get(..6).unwrap_or(&token);
        format!("{day}-{:02}{:02}{:02}-{random}", s / 3_600, s / 60 % 60, s % 60)
    }
}

/// How often something is tried that others change at the same time.
const TRIES_MAX: u32 = 5;

/// How a step's work ended.
enum Worked {
    /// There is nothing more to do in this step, and something at this time.
    Until { at_ms: u64 },
    /// Another step has the lock.
    Others { until_ms: u64 },
}
