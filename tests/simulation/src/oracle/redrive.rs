//! What a redrive sends, deletes, hides and leaves, compared with what was asked for.

use std::cmp::Reverse;

use nightshift_core::message::AttributeValue;
use nightshift_core::record::{Budget, Record, RecordWrite, State as Standing};
use nightshift_core::redrive::{Ended, HOLD_S, Redrive, Request, Source};
use nightshift_ports::{Letter as Held, WriteAnswer};

use super::history::Epoch;
use super::records::with_one_more;
use super::{Promise, tolerance_ms};
use crate::plan::{MINUTE, Plan, SECOND};
use crate::redriver::ended;
use crate::world::{Input, Letter, State};

/// What is sent at once.
const PAGE: u64 = 10;
/// How long a page that is under way may still take, at most.
const PAGE_MS_MAX: u64 = MINUTE;

/// What a letter says of itself, read without any code of the redrive.
fn is_asked_for(request: &Request, letter: &Letter) -> bool {
    let reason = letter.letter.attributes.iter().find_map(|(name, attribute)| match &attribute.value {
        AttributeValue::Text(text) if name == "FailureReason" => Some(text.clone()),
        AttributeValue::Text(text) if name == "FailureContext" => {
            let said: serde_json::Value = serde_json::from_str(text).ok()?;
            Some(said.get("reason")?.as_str()?.to_owned())
        }
        _ => None,
    });
    let body: Option<serde_json::Value> = serde_json::from_str(&letter.letter.body).ok();
    // What is longer than the worker reads is no job.
    let body = body.filter(|_| letter.letter.body.len() <= 8 * 1_024);
    let task = body.as_ref().and_then(|body| body.get("task")).and_then(|task| task.as_str());
    let reasons: Vec<_> = request.reasons.iter().map(|reason| reason.as_str()).collect();
    (reasons.is_empty() || reason.is_some_and(|reason| reasons.contains(&reason.as_str())))
        && (request.tasks.is_empty() || task.is_some_and(|task| request.tasks.iter().any(|one| one == task)))
}

impl Input {
    /// The letter of this failure, if it stands, is noted as sent.
    pub fn letter_is_noted(&mut self, version: u64) -> bool {
        let Some(record) = self.record.as_deref_mut().filter(|record| record.version == version) else {
            return false;
        };
        record.letter_version = Some(version);
        if let Standing::Failed(failed) = &record.state {
            self.failed_for_good = Some((version, failed.failed_at_ms));
        }
        true
    }
}

/// What the reset of a record leaves out: its budgets are new, the crash is remembered, and all else stands as it did.
fn wrong_reset(old: &Record, new: &Record) -> Option<String> {
    let expected = Record {
        version: old.version + 1,
        token: new.token.clone(),
        state: Standing::Open,
        budget: Budget::default(),
        redrives: old.redrives + 1,
        history: with_one_more(old, "crashed", old.last_claimed_ms),
        expires_at_ms: new.expires_at_ms.max(old.expires_at_ms),
        ..old.clone()
    };
    (*new != expected).then(|| format!("a record was reset to {new:?}, and should be {expected:?}"))
}

impl State {
    fn waiting_letters(&mut self, source: Source) -> &mut Vec<Letter> {
        match source {
            Source::DeadLetters => &mut self.letters,
            Source::Crashed => &mut self.crashed_letters,
        }
    }

    /// A driver receives: no other may be at work.
    pub fn two_at_work(&mut self, now_ms: u64, driver: u64) {
        self.at_work.insert(driver);
        if self.at_work.len() > 1 {
            self.violate(now_ms, Promise::Redriven, None, "two steps of one redrive work at the same time");
        }
    }

    /// A redrive sends a message: SQS takes it and gives it an id.
    pub fn letter_was_sent(&mut self, now_ms: u64, sent: &Held, plan: &Plan) -> u32 {
        self.stats.checks += 1;
        let Some(running) = self.redrive.clone() else {
            self.violate(now_ms, Promise::Redriven, None, "something was sent, and no redrive runs");
            return 0;
        };
        let source = running.request.source;
        let same_body = |letter: &&mut Letter| letter.letter.body == sent.body && !letter.moved_back;
        let as_it_was = |letter: &Letter| {
            letter.letter.attributes == sent.attributes
                && letter.letter.group == sent.group
                && letter.receives > 0
        };
        let letters = self.waiting_letters(source);
        // Of equal ones, one of the last page, and there one that was not sent yet, the oldest.
        let equal = letters.iter_mut().filter(same_body).filter(|letter| as_it_was(letter));
        let found =
            equal.max_by_key(|letter| (letter.received_ms, Reverse(letter.sent), Reverse(letter.sent_at_ms)));
        let Some(letter) = found else {
            let n = letters.iter().find(|letter| letter.letter.body == sent.body).and_then(|l| l.of);
            let what = "what was sent is not what was received: body, attributes or group differ";
            self.violate(now_ms, Promise::Redriven, n.map(|(n, _)| n), what);
            return 0;
        };
        letter.sent += 1;
        let letter = letter.clone();
        let (n, reference) = letter.of.unwrap_or_default();
        if !is_asked_for(&running.request, &letter) {
            let what = format!("a message was sent that was not asked for: {:?}", running.request);
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        // Or a redrive would never end that sends what fails again.
        if letter.sent_at_ms > running.began_ms + MINUTE + tolerance_ms(plan) {
            let what = "a message was sent that came after the redrive began";
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        // A page ago, by any clock.
        let skew_ms = tolerance_ms(plan);
        let input = &self.inputs[n as usize];
        let failed = input.failed_for_good.filter(|(version, at_ms)| {
            input.record.as_deref().is_some_and(|record| record.version == *version)
                && at_ms + PAGE_MS_MAX + skew_ms < now_ms
                && letter.version.map_or(letter.sent_at_ms + skew_ms <= *at_ms, |of| of < *version)
        });
        if source == Source::Crashed && failed.is_some() {
            let what = "a copy was sent of what has failed and has its letter, and will be paid for again";
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        let id = self.queue.send(n, reference, now_ms, sent.attributes.clone(), sent.group.clone());
        self.queue.messages[id as usize].redrive_of = letter.version;
        self.stats.redrives += 1;
        self.stats.redriven += 1;
        self.note(now_ms, n, || format!("a redrive from {} sends it as message {id}", source.as_str()));
        let standing = self.inputs[n as usize].record.as_deref();
        let version = standing.map_or(0, |record| record.version);
        let tells = source == Source::DeadLetters
            && letter.version == Some(version)
            && standing.is_some_and(|record| matches!(record.state, Standing::Failed(_)));
        if let Some(running) = &mut self.redrive {
            running.sent.push((id, n, version, tells));
        }
        self.judge_sent(now_ms, n, plan);
        id
    }

    /// No more than the limit, and no more than the canary before it has succeeded; a page of which nobody learned that it
    /// was sent is beyond what a redrive can know.
    fn judge_sent(&mut self, now_ms: u64, n: u32, plan: &Plan) {
        let Some(running) = self.redrive.clone() else { return };
        let unknown = running.unknown_pages.saturating_mul(PAGE);
        let lasted_ms = now_ms.saturating_sub(running.began_ms) + tolerance_ms(plan) + SECOND;
        // Up to ten at a time, and so many that a page takes ten seconds.
        let page = (running.request.rate * 10.0).clamp(1.0, PAGE as f64) as u64;
        let paced = (running.request.rate * lasted_ms as f64 / 1_000.0) as u64 + page;
        if running.sent.len() as u64 > paced + running.unknown_pages.saturating_mul(page) {
            let what = format!(
                "{} messages were sent within {} s, at a rate of {}",
                running.sent.len(),
                lasted_ms / SECOND,
                running.request.rate
            );
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        if let Some(stopped_ms) = running.stopped_ms.filter(|at_ms| now_ms > at_ms + PAGE_MS_MAX) {
            let what = format!(
                "a message was sent {} s after the redrive was stopped",
                (now_ms - stopped_ms) / SECOND
            );
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        if let Some(limit) = running.request.limit
            && running.sent.len() as u64 > limit + unknown
        {
            let what = format!("{} messages were sent, and {limit} asked for", running.sent.len());
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        let Some(canary) = &running.request.canary else { return };
        let count = canary.messages.unwrap_or_default();
        let needed = (count * canary.success_percent).div_ceil(100);
        if running.succeeded >= needed {
            return;
        }
        let others = running.sent.iter().filter(|sent| self.is_of_another(sent)).count() as u64;
        let telling = running.sent.iter().filter(|(_, _, _, tells)| *tells).count() as u64;
        if telling > u64::from(count) + others + unknown {
            let what = format!(
                "{telling} were sent before {needed} of a canary of {count} succeeded: {}",
                running.succeeded
            );
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
    }

    /// Whether a record has moved on by the work of another message.
    fn is_of_another(&self, (id, n, version, _): &(u32, u32, u64, bool)) -> bool {
        self.inputs[*n as usize]
            .record
            .as_deref()
            .is_none_or(|record| record.version > *version && record.message_id != id.to_string())
    }

    /// A message of the redrive that runs brought its input to a result.
    pub fn redriven_succeeded(&mut self, message_id: &str) {
        if let Some(running) = &mut self.redrive
            && running.sent.iter().any(|(id, _, _, _)| id.to_string() == message_id)
        {
            running.succeeded += 1;
        }
    }

    /// A redrive deletes a message from its queue.
    pub fn letter_was_deleted(&mut self, now_ms: u64, source: Source, letter: &Letter, plan: &Plan) {
        self.stats.checks += 1;
        let Some((n, _)) = letter.of else { return };
        self.note(now_ms, n, || format!("a redrive deletes its message from {}", source.as_str()));
        let input = &mut self.inputs[n as usize];
        let is_before = |(version, at_ms): (u64, u64)| {
            letter.version.map_or(letter.sent_at_ms <= at_ms + tolerance_ms(plan), |of| of < version)
        };
        let is_over = input.done.is_some_and(is_before) || input.failed_for_good.is_some_and(is_before);
        // An earlier message of what was erased is settled, too: no worker works on it.
        let is_erased = input.erased.is_some_and(|(at_ms, _)| letter.sent_at_ms <= at_ms);
        match source {
            Source::DeadLetters => input.letters -= 1,
            Source::Crashed => input.crashed -= 1,
        }
        // Of equal ones, nobody can tell which one was sent.
        let equal =
            |other: &&mut Letter| other.letter == letter.letter && !other.moved_back && other.sent > 0;
        let sent = letter.sent > 0
            || self.waiting_letters(source).iter_mut().find(equal).map(|other| other.sent -= 1).is_some();
        if !(sent || source == Source::Crashed && (is_over || is_erased)) {
            self.violate(
                now_ms,
                Promise::NothingLost,
                Some(n),
                "a redrive deleted a message that was not sent and is not settled",
            );
        }
    }

    /// A redrive lets the budgets of a record start afresh.
    pub fn record_is_reset(&mut self, now_ms: u64, write: &RecordWrite) -> WriteAnswer {
        self.stats.checks += 1;
        let Some(&n) = self.by_key.get(&write.record.key) else { return WriteAnswer::Refused(None) };
        let standing = self.inputs[n as usize].record.clone();
        if !write.allowed(standing.as_deref()) {
            return WriteAnswer::Refused(standing);
        }
        let holder = self.inputs[n as usize].holder;
        let claimed = standing.as_deref().is_some_and(|r| matches!(r.state, Standing::Claimed { .. }));
        if claimed && self.invocations.contains_key(&holder) {
            let what = format!("the claim of invocation {holder}, which still runs, was reset");
            self.violate(now_ms, Promise::Fenced, Some(n), what);
        }
        if let Some(what) = standing.as_deref().and_then(|standing| wrong_reset(standing, &write.record)) {
            self.violate(now_ms, Promise::Redriven, Some(n), what);
        }
        self.note(now_ms, n, || format!("its budgets start afresh at v{}", write.record.version));
        let input = &mut self.inputs[n as usize];
        let first_received_ms = input.epoch.first_received_ms;
        input.epoch = Epoch { first_received_ms, ..Epoch::default() };
        self.stand(n, Some(write.record.clone()));
        WriteAnswer::Written
    }

    /// What a redrive leaves behind.
    pub fn redrive_is_over(&mut self, now_ms: u64, redrive: &Redrive, plan: &Plan) {
        let Some(running) = self.redrive.take() else { return };
        let how = ended(redrive).cloned();
        *self
            .stats
            .redrives_ended
            .entry(how.as_ref().map_or("not".to_owned(), |how| format!("{how:?}")))
            .or_default() += 1;
        let source = running.request.source;
        if running.stopped_ms.is_some() && redrive.stop.is_none() {
            let what = format!("who stopped it was told so, and it went on: {redrive:?}");
            self.violate(now_ms, Promise::Redriven, None, what);
        }
        if redrive.progress.refused > running.refused {
            let what = format!(
                "{} messages are called refused, and SQS refused {}: {redrive:?}",
                redrive.progress.refused, running.refused
            );
            self.violate(now_ms, Promise::Redriven, None, what);
        }
        let skew_ms = tolerance_ms(plan) + SECOND;
        let ends_ms = redrive.scan.as_ref().map_or(0, |scan| scan.ends_ms);
        // What a worker still seems to hold is hidden until its lease has ended for sure.
        let limits = &plan.limits;
        let lease_ms = limits.function_timeout_ms + limits.lease_margin_ms + 10 * SECOND;
        let latest_ms = ends_ms.max(now_ms + lease_ms.max(u64::from(HOLD_S) * SECOND)) + skew_ms;
        // A plan is as long as what there is to look at and to send asks for.
        let (count, began_ms) = (self.waiting_letters(source).len() as f64, running.began_ms);
        let planned_ms = 3.0 * (count * 20.0 + count * 1_000.0 / running.request.rate) + 6.0 * MINUTE as f64;
        let planned_ms = planned_ms as u64;
        let letters = self.waiting_letters(source).clone();
        let left = letters.iter().filter(|letter| !letter.moved_back && letter.received_ms >= began_ms);
        for letter in left.clone() {
            let until_ms = letter.visible_at_ms;
            if until_ms > latest_ms || until_ms > letter.received_ms + planned_ms + skew_ms {
                let what = format!(
                    "a message that was left behind stays hidden for {} s: {redrive:?}",
                    until_ms.saturating_sub(now_ms) / SECOND
                );
                self.violate(now_ms, Promise::Redriven, letter.of.map(|(n, _)| n), what);
            }
        }
        // What was not there from the beginning, or was looked at by somebody else, nobody promised.
        let before_ms = began_ms.saturating_sub(skew_ms);
        let forgotten: Vec<_> = letters
            .iter()
            .filter(|l| !l.moved_back && l.sent_at_ms < before_ms && l.came_ms < before_ms)
            .filter(|letter| is_asked_for(&running.request, letter))
            .collect();
        let by_earlier =
            forgotten.iter().find(|letter| letter.received_ms < began_ms && letter.visible_at_ms > now_ms);
        if how == Some(Ended::GaveUp)
            && let Some(letter) = by_earlier
        {
            let n = letter.of.map(|(n, _)| n);
            let what = "it gave up on what an earlier redrive still keeps hidden";
            self.violate(now_ms, Promise::Redriven, n, what);
        }
        if how == Some(Ended::Finished) && !forgotten.is_empty() {
            let n = forgotten.first().and_then(|letter| letter.of).map(|(n, _)| n);
            let what = format!("{} messages that were asked for were left behind", forgotten.len());
            self.violate(now_ms, Promise::Redriven, n, what);
        }
        let left = redrive.progress.unreadable + redrive.progress.refused;
        if how == Some(Ended::Incomplete) && left == 0 {
            let what = "it says that it had to leave messages, and left none";
            self.violate(now_ms, Promise::Redriven, None, what);
        }
    }
}
