//! Whose fault a refusal is, by what becomes of other jobs.
//!
//! A provider's words often leave it open, and no list of words is complete. What happens to others tells: where several
//! different jobs in a row get the same kind of refusal and nobody is answered, it is the deployment's (its key, its
//! model, a member or a schema that is sent with every job); where others of the same task are answered, it is the job's.
//! Until either is seen the job is handed back, a few times.
//!
//! The evidence belongs to one environment and outlives its invocations. It is lost with the environment; the count of a
//! job's own refusals stands in its record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::input_hash::InputHash;
use crate::model::{FailureClass, ModelFailure, NOT_A_MODEL, Oversize, SizeUnit};

/// So many different jobs in a row with the same kind of refusal, and no answer among them, are the deployment's fault.
/// Two may be one sender's; of three that are refused alike, nobody else's answer in between, one would be answered if
/// it were theirs. A deployment that is taken for a job's costs a dead letter for each job, a job that is taken for the
/// deployment's costs a wait until the next answer.
pub const JOBS_IN_A_ROW: usize = 3;
/// A job that is refused so often, while others of its task are answered, is itself at fault. One more than a hiccup of
/// the provider's takes, and a minute or so with the default delays.
pub const REFUSALS_BESIDE_ANSWERS: u32 = 3;
/// A job that is refused so often, while nothing is heard of others, is taken for being at fault: four hand-backs, about
/// four to eight minutes with the default delays, in which others would come by if there were any.
pub const REFUSALS_ALONE: u32 = 5;
/// A context of so many tokens has room for a task's instructions and its answer; a smaller one may be at fault itself.
const WIDE_LIMIT_TOKENS: u64 = 32_768;
/// Refusals for the account that are further apart are no row.
const ACCOUNT_ROW_MS: u64 = 10 * 60_000;
/// Refusals in a row that are remembered. Those of a kind count, and a row is cut by each answer.
const ROW_MAX: usize = 64;

/// How often a job was refused in words that leave open whose fault it is, since it was last answered or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusals {
    /// How often.
    pub times: u32,
    /// When for the first time, by that worker's clock.
    pub since_ms: u64,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// Whose its words say: nothing else was asked.
    AsSaid,
    /// The deployment's: different jobs in a row were refused alike, or the limit is less than what was answered before.
    Deployment,
    /// The account's, for all that is known: it is forbidden, or no model was reached, and nobody of the task was answered
    /// since.
    Forbidden,
    /// The job's: others of its task were answered.
    JobBesideAnswers,
    /// The job's, for all that is known: nothing was heard of others.
    JobAlone,
    /// Nobody knows yet.
    Unknown,
}

/// A refused call, and what is known of others like it when the fault is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// What was said.
    pub failure: &'a ModelFailure,
    /// To which job.
    pub key: &'a InputHash,
    /// Of which task.
    pub task: &'a str,
    /// What the job has met before.
    pub before: Option<Refusals>,
    /// By the worker's clock.
    pub now_ms: u64,
}

/// A kind of refusal: the status and the provider's names for it, no free text.
type Kind = (Option<u16>, String);

/// What one environment has seen.
#[derive(Debug, Default)]
pub struct Evidence {
    /// Those that were refused since their task was last answered, the oldest first; each job once for a kind.
    row: VecDeque<(Kind, String, InputHash)>,
    /// What is known of each task that was answered.
    answered: BTreeMap<String, Answered>,
    /// The jobs that were refused for the account since anybody was answered, and when that was first heard.
    account: BTreeSet<InputHash>,
    account_since_ms: u64,
}

/// The answered calls of a task.
#[derive(Debug, Default)]
struct Answered {
    /// When the last of them began.
    began_ms: u64,
    /// The most tokens that one of them gave to read.
    tokens_max: u64,
}

/// Whether a request is refused by a limit that has become less: the model had room for more before it was started anew.
fn shrank(oversize: Oversize, answered: &Answered) -> bool {
    oversize.unit == SizeUnit::Tokens && oversize.limit.is_some_and(|limit| limit < answered.tokens_max)
}

/// Whether a job is said to be longer than a limit under which others have room.
fn exceeds_a_wide_limit(oversize: Oversize) -> bool {
    let Oversize { unit: SizeUnit::Tokens, requested: Some(requested), limit: Some(limit) } = oversize else {
        return false;
    };
    requested > limit && limit >= WIDE_LIMIT_TOKENS
}

impl Evidence {
    /// A call of this task was answered, whatever it said. `began_ms`: when it was sent; only what is sent after a refusal
    /// says anything about it. `tokens`: what it gave to read.
    pub fn answered(&mut self, task: &str, began_ms: u64, tokens: u64) {
        self.row.retain(|(_, of, _)| of != task);
        self.account.clear();
        let answered = self.answered.entry(task.to_owned()).or_default();
        answered.began_ms = answered.began_ms.max(began_ms);
        answered.tokens_max = answered.tokens_max.max(tokens);
    }

    /// Whose fault a refusal is, with what is known now.
    pub fn judge(&mut self, refusal: &Refusal<'_>) -> Blame {
        let said = refusal.failure.class;
        if !matches!(said, FailureClass::Unclear | FailureClass::Rejected) {
            return Blame::AsSaid;
        }
        let answered = self.answered.get(refusal.task);
        if said == FailureClass::Rejected {
            let oversize = refusal.failure.oversize;
            if oversize.zip(answered).is_some_and(|(oversize, answered)| shrank(oversize, answered)) {
                return Blame::Deployment;
            }
            // A limit that this deployment keeps to for others, or would.
            if answered.is_some() || oversize.is_some_and(exceeds_a_wide_limit) {
                return Blame::AsSaid;
            }
        }
        let times = refusal.before.map_or(0, |before| before.times).saturating_add(1);
        let beside_answers = answered
            .zip(refusal.before)
            .is_some_and(|(answered, before)| answered.began_ms > before.since_ms);
        if beside_answers {
            return if times >= REFUSALS_BESIDE_ANSWERS { Blame::JobBesideAnswers } else { Blame::Unknown };
        }
        if self.in_a_row(refusal) >= JOBS_IN_A_ROW {
            return Blame::Deployment;
        }
        if said == FailureClass::Rejected {
            return Blame::AsSaid;
        }
        // Forbidden, or a page: a key or an address more often than a text. The first time it may be a firewall's word for
        // one text, while those beside it are on their way.
        let is_shut_out = refusal.failure.status == Some(403) || refusal.failure.error_type == NOT_A_MODEL;
        match (is_shut_out, times) {
            (true, 2..) => Blame::Forbidden,
            (false, REFUSALS_ALONE..) => Blame::JobAlone,
            _ => Blame::Unknown,
        }
    }

    /// A job was refused for the account; whether that says now that everybody is, which it does once for each row. A single
    /// job says it of none: what it asks for may be what is refused. Calls that were on their way beside the first say no more
    /// than it does: the key may have been changed, and is read again after the first refusal.
    pub fn account_refused(&mut self, key: &InputHash, began_ms: u64, now_ms: u64) -> bool {
        if self.account.is_empty() || now_ms.saturating_sub(self.account_since_ms) > ACCOUNT_ROW_MS {
            self.account.clear();
            self.account_since_ms = now_ms;
        } else if began_ms <= self.account_since_ms {
            return false;
        }
        self.account.insert(key.clone());
        let is_everybody = self.account.len() >= JOBS_IN_A_ROW;
        if is_everybody {
            self.account.clear();
        }
        is_everybody
    }

    /// Everybody is told, and what was refused until now says nothing of the way that will be opened.
    pub fn forget_account(&mut self) {
        self.account.clear();
    }

    /// How many different jobs in a row were refused like this one, itself included.
    fn in_a_row(&mut self, refusal: &Refusal<'_>) -> usize {
        let kind = (refusal.failure.status, refusal.failure.error_type.clone());
        let known = self.row.iter().any(|(of, _, job)| *of == kind && job == refusal.key);
        if !known {
            if self.row.len() >= ROW_MAX {
                self.row.pop_front();
            }
            self.row.push_back((kind.clone(), refusal.task.to_owned(), refusal.key.clone()));
        }
        self.row.iter().filter(|(of, _, _)| *of == kind).count()
    }
}

impl Refusal<'_> {
    /// What the refusal means to its job, and what the job's record is to say of it.
    #[must_use]
    pub fn settled(&self, blame: Blame) -> (FailureClass, Option<Refusals>) {
        let before = self.before;
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        let counted =
            Some(Refusals { times, since_ms: before.map_or(self.now_ms, |before| before.since_ms) });
        match blame {
            Blame::AsSaid => (self.failure.class, before),
            // Blameless: what it met until now counts no more.
            Blame::Deployment => (FailureClass::Account, None),
            Blame::Forbidden => (FailureClass::Account, counted),
            Blame::JobBesideAnswers | Blame::JobAlone => (FailureClass::Rejected, counted),
            Blame::Unknown => (FailureClass::Unclear, counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Headroom, RetryAdvice};

    /// The jobs of one task, and an environment that sees what becomes of them.
    #[derive(Default)]
    struct Seen {
        evidence: Evidence,
        jobs: BTreeMap<&'static str, Refusals>,
        now_ms: u64,
    }

    fn failure(class: FailureClass, status: u16, error_type: &str) -> ModelFailure {
        ModelFailure {
            class,
            status: Some(status),
            error_type: error_type.to_owned(),
            message: "free text is no kind".to_owned(),
            request_id: None,
            advice: RetryAdvice::default(),
            headroom: Headroom::default(),
            oversize: None,
        }
    }

    impl Seen {
        /// `"A"`: job A is refused; `"A@other"`: of another task; `"+"`: a call that was sent just now is answered;
        /// `"-"`: one is answered that was sent before all of them; `"+@other"`: one of another task.
        fn see(&mut self, event: &'static str, failure: &ModelFailure) -> Option<(Blame, FailureClass)> {
            self.now_ms += 60_000;
            let (who, task) = event.split_once('@').unwrap_or((event, "task"));
            if who == "+" || who == "-" {
                self.evidence.answered(task, if who == "+" { self.now_ms - 1 } else { 1 }, 1_000);
                return None;
            }
            let key = InputHash::of_body(who);
            let before = self.jobs.get(who).copied();
            let refusal = Refusal { failure, key: &key, task, before, now_ms: self.now_ms };
            let blame = self.evidence.judge(&refusal);
            let (class, after) = refusal.settled(blame);
            self.jobs.remove(who);
            if let Some(after) = after {
                self.jobs.insert(who, after);
            }
            Some((blame, class))
        }
    }

    /// The blames of what is refused, in order.
    fn blames(events: &str, failure: &ModelFailure) -> Vec<Blame> {
        let mut seen = Seen::default();
        let events: &'static str = events.to_owned().leak();
        events.split(' ').filter_map(|event| seen.see(event, failure)).map(|(blame, _)| blame).collect()
    }

    #[test]
    fn what_becomes_of_others_tells_whose_fault_it_is() {
        use Blame::{Deployment, JobAlone, JobBesideAnswers, Unknown};
        let unclear = failure(FailureClass::Unclear, 400, "x");
        for (events, expected) in [
            ("A", vec![Unknown]),
            // Alone in a quiet stack: five calls.
            ("A A A A A", vec![Unknown, Unknown, Unknown, Unknown, JobAlone]),
            // Others are answered.
            ("A + A + A", vec![Unknown, Unknown, JobBesideAnswers]),
            ("A A + A", vec![Unknown, Unknown, JobBesideAnswers]),
            ("A B + A B A B", vec![Unknown, Unknown, Unknown, Unknown, JobBesideAnswers, JobBesideAnswers]),
            // Different jobs in a row; then nothing counts against any of them.
            ("A B C", vec![Unknown, Unknown, Deployment]),
            ("A A B B C A", vec![Unknown, Unknown, Unknown, Unknown, Deployment, Deployment]),
            ("A B C A A A A A A", vec![Unknown, Unknown].into_iter().chain([Deployment; 7]).collect()),
            // An answer cuts the row, and what was refused before and after it is no part of the next.
            ("A B + C D", vec![Unknown; 4]),
            ("A B + A B C", vec![Unknown; 5]),
            ("A B + C D E", vec![Unknown, Unknown, Unknown, Unknown, Deployment]),
            ("A B C + A", vec![Unknown, Unknown, Deployment, Unknown]),
            // What was sent before the refusal says nothing about it.
            ("A - A - A", vec![Unknown, Unknown, Unknown]),
            // Another task's answer says nothing about this one's schema; its refusals say something about the key.
            ("A +@other A +@other A", vec![Unknown, Unknown, Unknown]),
            ("A +@other B +@other C", vec![Unknown, Unknown, Deployment]),
            ("A B@other C@third", vec![Unknown, Unknown, Deployment]),
            ("A B@other +@other C", vec![Unknown, Unknown, Unknown]),
        ] {
            assert_eq!(blames(events, &unclear), expected, "{events}");
        }
    }

    #[test]
    fn what_is_forbidden_is_the_accounts_until_others_are_answered() {
        use Blame::{Deployment, Forbidden, JobBesideAnswers, Unknown};
        let forbidden = failure(FailureClass::Unclear, 403, "http_403");
        let page = failure(FailureClass::Unclear, 200, NOT_A_MODEL);
        for (events, expected) in [
            ("A A A A A A", vec![Unknown, Forbidden, Forbidden, Forbidden, Forbidden, Forbidden]),
            ("A + A + A", vec![Unknown, Unknown, JobBesideAnswers]),
            ("A A A A A + A", vec![Unknown, Forbidden, Forbidden, Forbidden, Forbidden, JobBesideAnswers]),
            ("A B C A", vec![Unknown, Unknown, Deployment, Deployment]),
        ] {
            assert_eq!(blames(events, &forbidden), expected, "{events}");
            assert_eq!(blames(events, &page), expected, "{events}");
        }
    }

    #[test]
    fn a_limit_that_is_less_than_what_was_answered_is_the_deployments() {
        use Blame::{AsSaid, Deployment};
        // What is answered here has 1,000 tokens.
        for (unit, limit, events, expected) in [
            (SizeUnit::Tokens, Some(999), "+ A B", vec![Deployment; 2]),
            (SizeUnit::Tokens, Some(1_000), "+ A B", vec![AsSaid; 2]),
            (SizeUnit::Tokens, None, "+ A B", vec![AsSaid; 2]),
            (SizeUnit::Characters, Some(999), "+ A B", vec![AsSaid; 2]),
            (SizeUnit::Tokens, Some(999), "A B", vec![AsSaid; 2]),
            (SizeUnit::Tokens, Some(999), "+@other A B", vec![AsSaid; 2]),
        ] {
            let oversize = Some(Oversize { unit, requested: Some(1_407), limit });
            let too_long = ModelFailure {
                oversize,
                ..failure(FailureClass::Rejected, 400, "exceed_context_size_error")
            };
            assert_eq!(blames(events, &too_long), expected, "{limit:?} {unit:?} {events}");
        }
    }

    #[test]
    fn words_that_say_whose_fault_it_is_are_believed_as_long_as_they_can_be_true() {
        use Blame::{AsSaid, Deployment};
        let too_long = failure(FailureClass::Rejected, 400, "context_length_exceeded");
        for (events, expected) in [
            ("A", vec![AsSaid]),
            // A limit that nobody keeps to is no job's.
            ("A B C D", vec![AsSaid, AsSaid, Deployment, Deployment]),
            ("+ A B C D", vec![AsSaid; 4]),
            ("A B C + A", vec![AsSaid, AsSaid, Deployment, AsSaid]),
        ] {
            assert_eq!(blames(events, &too_long), expected, "{events}");
        }
        for (unit, requested, limit, expected) in [
            (SizeUnit::Tokens, Some(210_001), Some(200_000), AsSaid),
            (SizeUnit::Tokens, Some(32_769), Some(32_768), AsSaid),
            // It may be too small for anything, or not what was exceeded, or not known.
            (SizeUnit::Tokens, Some(32_768), Some(32_767), Deployment),
            (SizeUnit::Tokens, Some(200_000), Some(200_000), Deployment),
            (SizeUnit::Tokens, None, Some(200_000), Deployment),
            (SizeUnit::Tokens, Some(210_001), None, Deployment),
            (SizeUnit::Characters, Some(210_001), Some(200_000), Deployment),
        ] {
            let oversize = Some(Oversize { unit, requested, limit });
            let too_long = ModelFailure { oversize, ..too_long.clone() };
            assert_eq!(
                blames("A B C", &too_long).last(),
                Some(&expected),
                "{requested:?} of {limit:?} {unit:?}"
            );
        }
        for class in
            [FailureClass::Account, FailureClass::Capacity, FailureClass::Transient, FailureClass::Refused]
        {
            let said = failure(class, 400, "x");
            assert_eq!(blames("A B C D + A A A A A A", &said), vec![AsSaid; 10], "{class:?}");
        }
    }

    #[test]
    fn different_jobs_in_a_row_that_are_refused_for_the_account_say_it_of_everybody_once() {
        // A call each minute that takes a second; `A~`: it was sent a minute and a half ago.
        for (events, expected) in [
            ("A A A A", vec![]),
            ("A B", vec![]),
            ("A B C", vec![2]),
            ("A B A C", vec![3]),
            // Whoever is answered has the same account, whatever the task.
            ("A B + C D + E F", vec![]),
            ("A B +@other C D", vec![]),
            // Asked for again after the next three.
            ("A B C D E F G", vec![2, 5]),
            // Sent beside the first, and before the key was read again.
            ("A B~ C D", vec![3]),
            ("A B A~ C~", vec![3]),
            // Too far apart.
            ("A B . . . . . . . . . C", vec![]),
            ("A B . . . . . . . . C", vec![10]),
            ("A B ! C D", vec![]),
        ] {
            let mut evidence = Evidence::default();
            let mut said = Vec::new();
            for (index, event) in events.split(' ').enumerate() {
                let now_ms = index as u64 * 60_000 + 100_000;
                let took_ms = if event.ends_with('~') { 90_000 } else { 1_000 };
                let event = event.trim_end_matches('~');
                match event.split_once('@').unwrap_or((event, "task")) {
                    (".", _) => {}
                    ("!", _) => evidence.forget_account(),
                    ("+", task) => evidence.answered(task, 1, 1),
                    (who, _) => {
                        let key = InputHash::of_body(who);
                        if evidence.account_refused(&key, now_ms - took_ms, now_ms) {
                            said.push(index);
                        }
                    }
                }
            }
            assert_eq!(said, expected, "{events}");
        }
    }

    #[test]
    fn different_kinds_are_no_row() {
        let mut seen = Seen::default();
        for (who, status, error_type) in
            [("A", 400, "x"), ("B", 422, "x"), ("C", 400, "x:tools"), ("D", 400, "x"), ("E", 422, "x")]
        {
            let said = failure(FailureClass::Unclear, status, error_type);
            assert_eq!(seen.see(who, &said), Some((Blame::Unknown, FailureClass::Unclear)), "{who}");
        }
        let said = failure(FailureClass::Unclear, 400, "x");
        assert_eq!(seen.see("F", &said), Some((Blame::Deployment, FailureClass::Account)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut evidence = Evidence::default();
        for n in 0..1_000 {
            let said = failure(FailureClass::Unclear, 400, &format!("kind {n}"));
            let key = InputHash::of_body(&n.to_string());
            evidence.judge(&Refusal { failure: &said, key: &key, task: "t", before: None, now_ms: n });
        }
        assert_eq!(evidence.row.len(), ROW_MAX);
    }
}
