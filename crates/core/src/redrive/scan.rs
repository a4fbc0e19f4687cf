//! The walk through a queue, and the next bounded step of a redrive.
//!
//! SQS cannot choose: everything is received, and what is not chosen is hidden until the planned end of the scan, so that
//! no scan meets it twice, and returns by itself then. A scan is over when several long polls in a row brought nothing,
//! nothing is visible, and no more is hidden than the scan itself has hidden. What a killed step had received, or
//! somebody else looks at, is hidden too, and waited for.

use super::canary::CanaryRun;
use super::record::{Depth, Ended, Left, Redrive, Scan};
use super::request::Request;
use crate::limits::VISIBILITY_MS_MAX;

/// The most messages of one receive, one send and one delete (Amazon SQS: batches).
pub const PAGE_MAX: u32 = 10;
/// The most messages that a scan hides. SQS delivers nothing beyond about 120,000 in flight, and says nothing of it (Amazon
/// SQS standard queue quotas); the rest is for whoever else looks.
const HIDDEN_MAX: u64 = 100_000;
/// How long it takes to look at one message, in milliseconds: a tenth of a receive, a change of visibility, and a write.
const LOOK_MS: u64 = 20;
/// Driven once a minute, half of the time is spent between steps, and whatever is slower than planned needs room too.
const SLACK: u64 = 3;
/// The shortest plan of a scan, in milliseconds.
const SCAN_MS_MIN: u64 = 5 * 60_000;
/// The longest one: SQS hides a message for 12 hours from its receive, less what a page takes.
const SCAN_MS_MAX: u64 = VISIBILITY_MS_MAX - 10 * 60_000;
/// Empty long polls in a row, after which the queue's counters are asked.
const EMPTY_POLLS: u32 = 3;
/// How long to wait for what somebody else hides, in milliseconds, before it is looked for again.
const LOOK_AGAIN_MS: u64 = 15_000;
/// Scans in a row that end with nothing sent and something hidden, after which a redrive gives up on what others hide.
const IDLE_SCANS_MAX: u32 = 3;
/// A page takes no longer than this at the rate that was asked for, in seconds.
const PAGE_S_MAX: f64 = 10.0;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is over.
    Over,
    /// Note that it is over, for this reason.
    End(Finish),
    /// Ask the queue for its depth, and call [`Redrive::depth_was_read`].
    ReadDepth,
    /// Receive a page of at most so many.
    Receive {
        /// From 1 to [`PAGE_MAX`].
        messages_max: u32,
    },
    /// Read the records of the canary's pending messages, and call [`Redrive::judge_canary`].
    LookAtCanary,
    /// Come back then.
    Rest {
        /// By the wall clock.
        until_ms: u64,
    },
}

/// Why a redrive ends without anything else being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// Somebody stopped it.
    Stopped,
    /// As many were sent as were asked for.
    LimitReached,
}

/// How long a scan is planned to take, in milliseconds, or a sentence with advice.
fn plan(redrive: &Redrive, depth: Depth) -> Result<u64, String> {
    let request = &redrive.request;
    let source = request.source.as_str();
    if request.chooses() && depth.total() > HIDDEN_MAX {
        return Err(format!(
            "{source} holds {} messages, and a choice hides what it does not take: SQS stops at 120,000 hidden ones without a word. Redrive without a filter (with a limit and a canary), or move all of it with SQS's own redrive, which the runbook's page redrive shows.",
            depth.total()
        ));
    }
    let left = redrive.left().min(if redrive.matching > 0 { redrive.matching } else { depth.total() });
    let looking_ms = depth.total().saturating_mul(LOOK_MS);
    let sending_ms = sending_ms(left, request.rate);
    let least_ms = looking_ms.saturating_add(sending_ms);
    if request.chooses() && least_ms > SCAN_MS_MAX {
        return Err(format!(
            "To send {left} messages at {} a second takes {:.1} hours, and SQS hides what is not chosen for 12 hours at most: raise rate, or give a limit of at most {}.",
            request.rate,
            least_ms as f64 / 3_600_000.0,
            (SCAN_MS_MAX.saturating_sub(looking_ms) as f64 / 1_000.0 * request.rate) as u64
        ));
    }
    // The canary's messages are looked for first. While it is waited for, the others come back.
    let first = redrive.open_canary().map_or(u64::MAX, |canary| u64::from(canary.missing()));
    let sending_ms = sending_ms.min(self::sending_ms(first, request.rate));
    let planned_ms = looking_ms.saturating_add(sending_ms).saturating_mul(SLACK);
    Ok(planned_ms.saturating_add(SCAN_MS_MIN).min(SCAN_MS_MAX))
}

impl Left {
    /// How a redrive ends whose last scan met everything, and what to do about what it left.
    fn ending(self, sent: u64) -> (Ended, String) {
        let Self { unreadable, refused } = self;
        if self.total() == 0 {
            return (Ended::Finished, format!("{sent} sent; nothing that matches is left."));
        }
        let unreadable = (unreadable > 0).then(|| {
            format!("{unreadable} whose records are in words of a newer release: let that one redrive them")
        });
        let refused = (refused > 0).then(|| {
            format!(
                "{refused} that SQS would not take back as they are: enqueue their jobs anew, or delete them"
            )
        });
        let left = match self.total() {
            1 => "1 that matches is left where it was".to_owned(),
            total => format!("{total} that match are left where they were"),
        };
        let why: Vec<_> = unreadable.into_iter().chain(refused).collect();
        (Ended::Incomplete, format!("{sent} sent; {left}: {}.", why.join("; and ")))
    }
}

fn sending_ms(messages: u64, rate: f64) -> u64 {
    // Rates are at least `RATE_MIN`; a product beyond what u64 holds saturates.
    (messages as f64 * 1_000.0 / rate.max(super::request::RATE_MIN)) as u64
}

impl Request {
    /// How many messages one page may send, so that it takes no longer than it is held.
    fn page(&self) -> u32 {
        (self.rate * PAGE_S_MAX).clamp(1.0, f64::from(PAGE_MAX)) as u32
    }

    /// How long it takes at least to send so many, in milliseconds.
    #[must_use]
    pub fn sending_ms(&self, messages: u64) -> u64 {
        sending_ms(messages, self.rate)
    }
}

impl Redrive {
    /// A redrive that begins now.
    ///
    /// # Errors
    /// A sentence with advice where the queue is too large to choose from, or where it would take too long.
    pub fn begin(
        id: String,
        request: Request,
        matching: u64,
        depth: Depth,
        now_ms: u64,
    ) -> Result<Self, String> {
        let began = format!("{} began it: {}", request.caller, request.reason);
        let canary = request.canary.as_ref().map(|asked| {
            // The ledger remembers failures for longer than the queue keeps their letters.
            let there = if depth.total() > 0 { matching.min(depth.total()) } else { matching };
            let most = request.limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
            CanaryRun { count: asked.count(there).min(most), ..CanaryRun::default() }
        });
        let mut redrive = Self::new(id, request, matching, now_ms);
        redrive.canary = canary;
        plan(&redrive, depth)?;
        redrive.note(now_ms, began);
        Ok(redrive)
    }

    /// How many may still be sent, or be found settled: whoever asks for a few would not have the others deleted.
    fn left(&self) -> u64 {
        let done = self.progress.sent.saturating_add(self.progress.settled);
        self.request.limit.map_or(u64::MAX, |limit| limit.saturating_sub(done))
    }

    /// The canary, until it has passed.
    fn open_canary(&self) -> Option<&CanaryRun> {
        self.canary.as_ref().filter(|canary| !canary.passed)
    }

    /// How many of the next page may be sent.
    #[must_use]
    pub fn allowance(&self) -> u32 {
        let left = u32::try_from(self.left()).unwrap_or(u32::MAX);
        let canary = self.open_canary().map_or(u32::MAX, CanaryRun::missing);
        self.request.page().min(left).min(canary)
    }

    /// The next bounded step.
    #[must_use]
    pub fn next(&self, now_ms: u64) -> Next {
        if self.end.is_some() {
            return Next::Over;
        }
        if self.stop.is_some() {
            return Next::End(Finish::Stopped);
        }
        if let Some(canary) = self.open_canary()
            && (canary.missing() == 0 || (self.left() == 0 && !canary.pending.is_empty()))
        {
            let look_at_ms = canary.look_at_ms;
            return if look_at_ms > now_ms {
                Next::Rest { until_ms: look_at_ms }
            } else {
                Next::LookAtCanary
            };
        }
        if self.left() == 0 {
            return Next::End(Finish::LimitReached);
        }
        let Some(scan) = self.scan.as_ref().filter(|scan| scan.ends_ms > now_ms) else {
            return Next::ReadDepth;
        };
        let rest_until_ms = scan.rest_until_ms.max(self.next_send_ms);
        if rest_until_ms > now_ms {
            return Next::Rest { until_ms: rest_until_ms };
        }
        if scan.empty_polls >= EMPTY_POLLS {
            return Next::ReadDepth;
        }
        let messages_max = if self.request.chooses() { PAGE_MAX } else { self.allowance() };
        Next::Receive { messages_max: messages_max.clamp(1, PAGE_MAX) }
    }

    /// Begins a scan, or ends the one that found nothing more.
    pub fn depth_was_read(&mut self, depth: Depth, now_ms: u64) {
        match &mut self.scan {
            Some(scan) if scan.ends_ms > now_ms => {
                if depth.visible == 0 && depth.hidden <= scan.hidden {
                    if let Some(canary) = self.canary.as_mut().filter(|run| !run.passed && run.tells()) {
                        canary.is_all();
                        return;
                    }
                    let (how, detail) = scan.left.ending(self.progress.sent);
                    self.end(how, detail, now_ms);
                } else {
                    scan.empty_polls = EMPTY_POLLS - 1;
                    scan.rest_until_ms = scan.ends_ms.min(now_ms.saturating_add(LOOK_AGAIN_MS));
                }
            }
            before => {
                let before = before.take().unwrap_or_default();
                // An earlier redrive gives back what it hid: that is no reason to give up.
                let idle = before.number > 0 && before.sent == 0 && before.ends_ms > self.earlier_until_ms;
                let idle = if idle { before.idle_before + 1 } else { 0 };
                if idle >= IDLE_SCANS_MAX {
                    let source = self.request.source.as_str();
                    let detail = format!(
                        "{} sent; others kept what is left in {source} hidden all the time: when nobody receives from it any more, redrive again.",
                        self.progress.sent
                    );
                    self.end(Ended::GaveUp, detail, now_ms);
                    return;
                }
                match plan(self, depth) {
                    Err(advice) => self.end(Ended::TooLarge, advice, now_ms),
                    Ok(planned_ms) => {
                        self.scan = Some(Scan {
                            number: before.number + 1,
                            ends_ms: now_ms.saturating_add(planned_ms),
                            idle_before: idle,
                            ..Scan::default()
                        });
                    }
                }
            }
        }
    }

    /// A page was received, perhaps an empty one.
    pub fn page_was_received(&mut self, messages: u32) {
        self.progress.looked_at += u64::from(messages);
        if let Some(scan) = &mut self.scan {
            scan.empty_polls = if messages == 0 { scan.empty_polls + 1 } else { 0 };
        }
    }

    /// How long what is not chosen is hidden, in seconds: until the planned end of the scan.
    #[must_use]
    pub fn hide_s(&self, now_ms: u64) -> u32 {
        let ends_ms = self.scan.as_ref().map_or(now_ms, |scan| scan.ends_ms);
        let left_ms = ends_ms.saturating_sub(now_ms).min(SCAN_MS_MAX);
        u32::try_from(left_ms.div_ceil(1_000)).unwrap_or(0)
    }

    /// The longest that anything is hidden, in seconds.
    #[must_use]
    pub fn hide_s_max(&self) -> u32 {
        u32::try_from(SCAN_MS_MAX / 1_000).unwrap_or(u32::MAX)
    }

    /// So many were hidden until the planned end of the scan.
    pub fn were_hidden(&mut self, messages: u64) {
        if let Some(scan) = &mut self.scan {
            scan.hidden += messages;
        }
    }

    /// So many that match were hidden until then, too, because they cannot be sent.
    pub fn were_left(&mut self, left: Left) {
        self.were_hidden(left.total());
        if let Some(scan) = &mut self.scan {
            scan.left.unreadable += left.unreadable;
            scan.left.refused += left.refused;
        }
    }

    /// So many were sent; at the rate that was asked for, the next follow later.
    pub fn were_sent(&mut self, messages: u64, now_ms: u64) {
        self.progress.sent += messages;
        if let Some(scan) = &mut self.scan {
            scan.sent += messages;
        }
        let pause_ms = sending_ms(messages, self.request.rate);
        self.next_send_ms = self.next_send_ms.max(now_ms).saturating_add(pause_ms);
    }

    /// Whether what is sent belongs to a canary that has not passed.
    #[must_use]
    pub fn canary_is_open(&self) -> bool {
        self.open_canary().is_some()
    }

    /// A message was sent while the canary is open; `None`: it says nothing of this redrive.
    pub fn canary_was_sent(&mut self, sent: Option<super::CanarySent>, now_ms: u64) {
        if let Some(run) = self.canary.as_mut().filter(|run| !run.passed) {
            run.pending.extend(sent);
            run.last_sent_ms = now_ms;
        }
    }

    /// Takes note of what the canary's pending messages came to, in their order.
    pub fn judge_canary(&mut self, outcomes: &[super::CanaryOutcome], now_ms: u64) {
        let is_all = self.left() == 0;
        let (Some(asked), Some(run)) = (&self.request.canary, &mut self.canary) else { return };
        if is_all {
            run.is_all();
        }
        match run.judge(asked, outcomes, now_ms) {
            super::Verdict::Passed => {
                let what = format!("The canary passed: {} of {} succeeded.", run.succeeded, run.count);
                self.note(now_ms, what);
            }
            super::Verdict::Failed(detail) => self.end(Ended::CanaryFailed, detail, now_ms),
            super::Verdict::More | super::Verdict::Wait => {}
        }
    }

    /// Ends it.
    pub fn finish(&mut self, why: Finish, now_ms: u64) {
        let sent = self.progress.sent;
        match why {
            Finish::Stopped => {
                let detail = format!("Stopped; {sent} sent. The rest is where it was.");
                self.end(Ended::Stopped, detail, now_ms);
            }
            Finish::LimitReached => {
                let detail = format!("{sent} sent, as many as were asked for.");
                self.end(Ended::LimitReached, detail, now_ms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redrive::{Canary, CanaryOutcome, CanarySent, Source, Stop};
    use crate::{failure::FailureReason, input_hash::InputHash};
    use proptest::prelude::*;

    const NOW: u64 = 1_000_000;

    fn choosing() -> Request {
        let mut request = Request::all(Source::DeadLetters, "r", "c");
        request.reasons = vec![FailureReason::Refused];
        request
    }

    fn depth(visible: u64, hidden: u64) -> Depth {
        Depth { visible, hidden }
    }

    fn begin(request: Request, matching: u64) -> Redrive {
        Redrive::begin("r-1".to_owned(), request, matching, depth(matching, 0), NOW).unwrap()
    }

    fn scanning(request: Request) -> Redrive {
        let mut redrive = begin(request, 100);
        redrive.depth_was_read(depth(100, 0), NOW);
        redrive
    }

    #[test]
    fn a_redrive_begins_by_asking_how_much_there_is_and_then_looks_at_it() {
        let mut redrive = begin(choosing(), 100);
        assert_eq!(redrive.next(NOW), Next::ReadDepth);
        redrive.depth_was_read(depth(100, 0), NOW);
        assert_eq!(redrive.next(NOW), Next::Receive { messages_max: PAGE_MAX });
        redrive.page_was_received(10);
        redrive.were_sent(10, NOW);
        // Ten at five a second.
        assert_eq!(redrive.next(NOW), Next::Rest { until_ms: NOW + 2_000 });
        assert_eq!(redrive.next(NOW + 2_000), Next::Receive { messages_max: PAGE_MAX });
        assert_eq!((redrive.progress.looked_at, redrive.progress.sent), (10, 10));
    }

    #[test]
    fn a_page_is_no_larger_than_rate_limit_and_canary_allow() {
        let canary = |messages| {
            Some(Canary { messages: Some(messages), percent: None, success_percent: 90, wait_s: 60 })
        };
        for (rate, limit, messages, allowance) in [
            (5.0, None, None, 10),
            (0.5, None, None, 5),
            (0.1, None, None, 1),
            (500.0, Some(3), None, 3),
            (500.0, None, Some(4), 4),
            (500.0, Some(2), Some(4), 2),
        ] {
            let mut request = Request::all(Source::DeadLetters, "r", "c");
            (request.rate, request.limit) = (rate, limit);
            request.canary = messages.and_then(canary);
            let redrive = scanning(request);
            assert_eq!(redrive.allowance(), allowance, "{rate} {limit:?} {messages:?}");
            assert_eq!(redrive.next(NOW), Next::Receive { messages_max: allowance });
        }
        // Of crashed, what is settled is deleted instead of sent, and nobody asked for the others.
        let mut redrive = scanning(Request { limit: Some(3), ..Request::all(Source::Crashed, "r", "c") });
        (redrive.progress.sent, redrive.progress.settled) = (1, 1);
        assert_eq!(redrive.allowance(), 1);
    }

    #[test]
    fn a_scan_is_over_when_nothing_comes_and_all_that_is_hidden_is_its_own() {
        for (found, over) in [
            (depth(0, 7), true),
            (depth(0, 0), true),
            (depth(0, 6), true),
            (depth(1, 7), false),
            // A killed step, or somebody who looks, has one.
            (depth(0, 8), false),
        ] {
            let mut redrive = scanning(choosing());
            redrive.page_was_received(7);
            redrive.were_hidden(7);
            for _ in 0..EMPTY_POLLS {
                assert!(matches!(redrive.next(NOW), Next::Receive { .. }));
                redrive.page_was_received(0);
            }
            assert_eq!(redrive.next(NOW), Next::ReadDepth);
            redrive.depth_was_read(found, NOW);
            assert_eq!(
                redrive.end.as_ref().map(|end| &end.how),
                over.then_some(&Ended::Finished),
                "{found:?}"
            );
            if !over {
                assert_eq!(redrive.next(NOW), Next::Rest { until_ms: NOW + LOOK_AGAIN_MS });
                let later_ms = NOW + LOOK_AGAIN_MS;
                assert!(matches!(redrive.next(later_ms), Next::Receive { .. }), "one more poll");
                redrive.page_was_received(0);
                assert_eq!(redrive.next(later_ms), Next::ReadDepth);
            }
        }
    }

    #[test]
    fn a_redrive_that_had_to_leave_messages_says_so_and_is_not_finished() {
        for (unreadable, refused, how, said) in [
            (0, 0, Ended::Finished, vec!["5 sent; nothing that matches is left."]),
            (3, 0, Ended::Incomplete, vec!["5 sent; 3 that match are left", "3 whose records"]),
            (0, 1, Ended::Incomplete, vec!["5 sent; 1 that matches is left", "1 that SQS would not take"]),
            (3, 1, Ended::Incomplete, vec!["5 sent; 4 that match are left", "3 whose records", "1 that SQS"]),
        ] {
            let mut redrive = scanning(choosing());
            redrive.were_sent(5, NOW);
            redrive.were_left(Left { unreadable, refused });
            redrive.depth_was_read(depth(0, 4), NOW);
            // What is left was hidden, too.
            assert_eq!(redrive.end.is_some(), unreadable + refused == 4, "{unreadable} {refused}");
            redrive.depth_was_read(depth(0, unreadable + refused), NOW);
            let end = redrive.end.unwrap();
            assert_eq!(end.how, how);
            assert!(said.iter().all(|said| end.detail.contains(said)), "{}", end.detail);
        }
    }

    #[test]
    fn what_an_earlier_scan_had_to_leave_is_looked_at_again() {
        let mut redrive = scanning(choosing());
        redrive.were_left(Left { unreadable: 3, refused: 1 });
        let ends_ms = redrive.scan.as_ref().unwrap().ends_ms;
        redrive.depth_was_read(depth(4, 0), ends_ms);
        redrive.were_sent(4, ends_ms);
        redrive.depth_was_read(depth(0, 0), ends_ms);
        assert_eq!(redrive.end.map(|end| end.how), Some(Ended::Finished));
    }

    #[test]
    fn a_message_between_empty_polls_begins_the_count_anew() {
        let mut redrive = scanning(choosing());
        redrive.page_was_received(0);
        redrive.page_was_received(0);
        redrive.page_was_received(1);
        redrive.page_was_received(0);
        assert!(matches!(redrive.next(NOW), Next::Receive { .. }));
    }

    #[test]
    fn a_scan_that_did_not_get_through_is_followed_by_another_until_none_sends_anything() {
        let mut redrive = scanning(choosing());
        redrive.were_sent(5, NOW);
        let mut numbers = Vec::new();
        while redrive.end.is_none() {
            let scan = redrive.scan.clone().unwrap();
            numbers.push(scan.number);
            assert_eq!(redrive.next(scan.ends_ms), Next::ReadDepth);
            redrive.depth_was_read(depth(0, 3), scan.ends_ms);
        }
        assert_eq!(numbers, [1, 2, 3, 4]);
        let end = redrive.end.unwrap();
        assert_eq!(end.how, Ended::GaveUp);
        assert!(
            end.detail.contains("when nobody receives from it any more, redrive again"),
            "{}",
            end.detail
        );
    }

    #[test]
    fn what_an_earlier_redrive_hides_is_waited_for() {
        let mut earlier = scanning(choosing());
        earlier.scan.as_mut().unwrap().ends_ms = NOW + 3_600_000;
        let mut redrive = scanning(choosing());
        redrive.comes_after(&earlier, NOW);
        let mut scans = 0;
        while redrive.end.is_none() {
            scans += 1;
            let ends_ms = redrive.scan.as_ref().unwrap().ends_ms;
            redrive.depth_was_read(depth(0, 3), ends_ms);
            assert!(redrive.end.is_none() || ends_ms > NOW + 3_600_000);
        }
        assert!(scans > 9, "{scans} scans");
        assert!(redrive.history[1].what.contains("for 3600 more seconds"), "{:?}", redrive.history);
        // Nor does it say anything where there is nothing to wait for.
        let mut later = scanning(choosing());
        later.comes_after(&earlier, NOW + 3_600_000);
        assert_eq!((later.earlier_until_ms, later.history.len()), (0, 1));
    }

    #[test]
    fn what_is_not_chosen_is_hidden_until_the_planned_end_and_no_longer() {
        let redrive = scanning(choosing());
        let ends_ms = redrive.scan.as_ref().unwrap().ends_ms;
        // 100 looks, 100 messages at five a second, three times, and five minutes.
        assert_eq!(ends_ms, NOW + 3 * (2_000 + 20_000) + 300_000);
        assert_eq!(redrive.hide_s(NOW), 366);
        assert_eq!(redrive.hide_s(ends_ms - 1_500), 2);
        assert_eq!(redrive.hide_s(ends_ms + 5), 0);
    }

    #[test]
    fn what_sqs_cannot_hide_is_refused_with_advice() {
        let begin = |change: fn(&mut Request), matching, found| {
            let mut request = choosing();
            change(&mut request);
            Redrive::begin("r-1".to_owned(), request, matching, found, NOW).map(|_| ())
        };
        let advice = begin(|_| (), 10, depth(60_000, 40_001)).unwrap_err();
        assert!(advice.contains("holds 100001 messages") && advice.contains("without a filter"), "{advice}");
        assert_eq!(begin(|_| (), 10, depth(60_000, 40_000)), Ok(()));
        assert_eq!(begin(|r| r.reasons.clear(), 10, depth(900_000, 0)), Ok(()), "nothing is hidden");
        let advice = begin(|r| r.rate = 0.1, 90_000, depth(90_000, 0)).unwrap_err();
        assert!(advice.contains("takes 250.5 hours"), "{advice}");
        assert!(advice.contains("a limit of at most 4080"), "{advice}");
        assert_eq!(begin(|r| (r.rate, r.limit) = (0.1, Some(4_080)), 90_000, depth(90_000, 0)), Ok(()));
        // It grew meanwhile.
        let mut redrive = super::tests::begin(choosing(), 10);
        redrive.depth_was_read(depth(200_000, 0), NOW);
        assert_eq!(redrive.end.map(|end| end.how), Some(Ended::TooLarge));
    }

    #[test]
    fn a_canary_is_sent_then_waited_for_and_the_rest_follows_only_when_it_passed() {
        let mut request = choosing();
        request.canary = Some(Canary { messages: Some(2), percent: None, success_percent: 100, wait_s: 60 });
        let sent = |n: u32| CanarySent {
            key: InputHash::of_body("x"),
            message_id: format!("m-{n}"),
            version_before: 2,
        };
        let mut redrive = scanning(request);
        let run = redrive.canary.as_mut().unwrap();
        run.pending = vec![sent(1), sent(2)];
        run.last_sent_ms = NOW;
        assert_eq!(redrive.next(NOW), Next::LookAtCanary);
        redrive.judge_canary(&[CanaryOutcome::Succeeded, CanaryOutcome::Pending], NOW);
        assert_eq!(redrive.next(NOW), Next::Rest { until_ms: NOW + 10_000 });
        let mut failed = redrive.clone();
        failed.judge_canary(&[CanaryOutcome::Failed("refused".to_owned())], NOW);
        assert_eq!(failed.end.as_ref().map(|end| &end.how), Some(&Ended::CanaryFailed));
        assert_eq!(failed.next(NOW), Next::Over);
        redrive.judge_canary(&[CanaryOutcome::Succeeded], NOW);
        assert!(matches!(redrive.next(NOW), Next::Receive { messages_max: 10 }));
        assert_eq!(redrive.history.last().unwrap().what, "The canary passed: 2 of 2 succeeded.");
        // Another sender took one over: one more is sent in its place.
        let mut replaced = scanning(redrive.request.clone());
        replaced.canary =
            Some(CanaryRun { count: 2, pending: vec![sent(1), sent(2)], ..CanaryRun::default() });
        replaced.judge_canary(&[CanaryOutcome::LeftOut, CanaryOutcome::Pending], NOW);
        assert_eq!((replaced.allowance(), replaced.next(NOW)), (1, Next::Receive { messages_max: 10 }));
    }

    /// A redrive of all, with a canary of so many, which has sent so many and waits for them.
    fn with_canary(messages: u32, limit: Option<u64>, sent: u32) -> Redrive {
        let mut request = Request::all(Source::DeadLetters, "r", "c");
        request.limit = limit;
        request.canary =
            Some(Canary { messages: Some(messages), percent: None, success_percent: 100, wait_s: 60 });
        let mut redrive = scanning(request);
        for n in 0..sent {
            let sent =
                CanarySent { key: InputHash::of_body("x"), message_id: format!("m-{n}"), version_before: 2 };
            redrive.canary_was_sent(Some(sent), NOW);
        }
        redrive.were_sent(u64::from(sent), NOW);
        redrive
    }

    #[test]
    fn a_canary_of_more_than_there_is_judges_what_was_sent() {
        let refused = || CanaryOutcome::Failed("refused".to_owned());
        for (outcome, how) in [(CanaryOutcome::Succeeded, Ended::Finished), (refused(), Ended::CanaryFailed)]
        {
            // Ten are asked for, and five are there.
            let mut redrive = with_canary(10, None, 5);
            redrive.depth_was_read(depth(0, 0), NOW);
            assert_eq!((redrive.end.as_ref(), redrive.next(NOW)), (None, Next::LookAtCanary));
            redrive.judge_canary(&vec![outcome; 5], NOW);
            if redrive.end.is_none() {
                redrive.depth_was_read(depth(0, 0), NOW);
            }
            assert_eq!(redrive.end.map(|end| end.how), Some(how));
        }
    }

    #[test]
    fn a_canary_in_whose_place_nothing_is_left_to_send_is_judged_by_those_that_tell() {
        for (succeeded, ends) in [(2, Some(Ended::CanaryFailed)), (3, Some(Ended::Finished)), (0, None)] {
            let mut redrive = with_canary(10, None, 10);
            redrive.request.canary.as_mut().unwrap().success_percent = 50;
            let mut outcomes = vec![CanaryOutcome::Succeeded; succeeded];
            if ends.is_some() {
                outcomes.resize(6, CanaryOutcome::Failed("refused".to_owned()));
            }
            outcomes.resize(10, CanaryOutcome::LeftOut);
            redrive.judge_canary(&outcomes, NOW);
            assert_eq!(redrive.end, None, "others would be sent in place of those that say nothing");
            redrive.depth_was_read(depth(0, 0), NOW);
            // Of none at all there is nothing to judge.
            let Some(ends) = ends else {
                assert_eq!(redrive.end.map(|end| end.how), Some(Ended::Finished));
                continue;
            };
            let Next::Rest { until_ms } = redrive.next(NOW) else { panic!("{:?}", redrive.next(NOW)) };
            assert_eq!(redrive.next(until_ms), Next::LookAtCanary);
            redrive.judge_canary(&[], until_ms);
            if redrive.end.is_none() {
                redrive.depth_was_read(depth(0, 0), until_ms);
            }
            assert_eq!(redrive.end.map(|end| end.how), Some(ends), "{succeeded}");
        }
    }

    #[test]
    fn a_limit_below_the_canary_ends_it_when_what_was_sent_is_judged() {
        for (limit, taken_over, last, ends) in [
            (5, 0, CanaryOutcome::Succeeded, Next::End(Finish::LimitReached)),
            (5, 0, CanaryOutcome::Failed("refused".to_owned()), Next::Over),
            // Another sender worked on one of them: none can be sent in its place.
            (5, 1, CanaryOutcome::Succeeded, Next::End(Finish::LimitReached)),
            (5, 1, CanaryOutcome::Failed("refused".to_owned()), Next::Over),
        ] {
            let mut redrive = with_canary(10, Some(limit), 5);
            assert_eq!(redrive.next(NOW), Next::LookAtCanary, "{limit}");
            let mut outcomes = vec![CanaryOutcome::LeftOut; taken_over];
            outcomes.resize(4, CanaryOutcome::Succeeded);
            outcomes.push(last.clone());
            redrive.judge_canary(&outcomes, NOW);
            assert_eq!(redrive.next(NOW), ends, "{taken_over} taken over, {last:?}");
        }
    }

    #[test]
    fn a_share_is_one_of_what_the_queue_still_holds() {
        let mut request = choosing();
        request.canary = Some(Canary { messages: None, percent: Some(5), success_percent: 100, wait_s: 60 });
        let of = |matching, found| {
            Redrive::begin("r-1".to_owned(), request.clone(), matching, found, NOW)
                .unwrap()
                .canary
                .unwrap()
                .count
        };
        assert_eq!(of(4_000, depth(4_000, 0)), 200);
        assert_eq!(of(4_000, depth(100, 50)), 8);
        // The queue's counters are late.
        assert_eq!(of(4_000, depth(0, 0)), 200);
    }

    #[test]
    fn a_stop_and_a_limit_end_it_before_anything_else() {
        let mut redrive = scanning(choosing());
        redrive.request.limit = Some(5);
        redrive.were_sent(5, NOW);
        assert_eq!(redrive.next(NOW), Next::End(Finish::LimitReached));
        redrive.ask_to_stop(Stop { caller: "c".to_owned(), reason: "r".to_owned(), at_ms: NOW });
        assert_eq!(redrive.next(NOW), Next::End(Finish::Stopped));
        redrive.finish(Finish::Stopped, NOW);
        assert_eq!(redrive.next(NOW), Next::Over);
        assert_eq!(redrive.end.unwrap().detail, "Stopped; 5 sent. The rest is where it was.");
    }

    #[test]
    fn an_end_names_only_what_was_left() {
        for (unreadable, refused, unsaid) in [(3, 0, "SQS would not"), (0, 1, "newer release")] {
            let (_, detail) = Left { unreadable, refused }.ending(5);
            assert!(!detail.contains(unsaid), "{detail}");
        }
    }

    /// At the slowest rate, where the whole queue would take days.
    #[test]
    fn a_plan_is_for_what_matches_and_for_the_whole_queue_where_the_ledger_knows_of_none() {
        let begins = |matching| {
            let request = Request { rate: 0.1, ..choosing() };
            Redrive::begin("r-1".to_owned(), request, matching, depth(90_000, 0), NOW).is_ok()
        };
        assert!(begins(10));
        assert!(!begins(0));
    }

    #[test]
    fn nothing_is_hidden_for_longer_than_sqs_allows_less_what_a_page_takes() {
        assert_eq!(scanning(choosing()).hide_s_max(), 12 * 3_600 - 600);
    }

    #[test]
    fn a_canary_is_open_from_the_beginning_until_it_has_passed() {
        assert!(!scanning(choosing()).canary_is_open());
        let mut redrive = with_canary(2, None, 2);
        redrive.judge_canary(&[CanaryOutcome::Succeeded, CanaryOutcome::Pending], NOW);
        assert!(redrive.canary_is_open());
        redrive.judge_canary(&[CanaryOutcome::Succeeded], NOW);
        assert!(!redrive.canary_is_open());
    }

    /// Of five one says nothing, none can be sent in its place, and three of four are not eight tenths.
    #[test]
    fn a_canary_that_fails_by_those_that_tell_is_not_told_as_a_limit_that_was_reached() {
        let mut redrive = with_canary(10, Some(5), 5);
        redrive.request.canary.as_mut().unwrap().success_percent = 80;
        redrive.judge_canary(&[CanaryOutcome::LeftOut], NOW);
        let Next::Rest { until_ms } = redrive.next(NOW) else { panic!("{:?}", redrive.next(NOW)) };
        let mut outcomes = vec![CanaryOutcome::Succeeded; 3];
        outcomes.push(CanaryOutcome::Failed("refused".to_owned()));
        redrive.judge_canary(&outcomes, until_ms);
        assert_eq!(redrive.end.map(|end| end.how), Some(Ended::CanaryFailed));
    }

    proptest! {
        /// No rate, limit or depth makes a plan that SQS cannot hide for, or a page that it does not know.
        #[test]
        fn a_plan_fits_into_what_sqs_allows(
            rate in 0.1f64..=500.0, limit in prop::option::of(1u64..), matching: u64, visible: u64, hidden: u64,
            chooses: bool,
        ) {
            let mut request = Request::all(Source::DeadLetters, "r", "c");
            (request.rate, request.limit) = (rate, limit);
            if chooses {
                request.tasks = vec!["t".to_owned()];
            }
            let found = depth(visible, hidden);
            if let Ok(mut redrive) = Redrive::begin("r".to_owned(), request, matching, found, NOW) {
                redrive.depth_was_read(found, NOW);
                prop_assert!(redrive.end.is_none());
                let hide_s = redrive.hide_s(NOW);
                prop_assert!((300..=43_200 - 600).contains(&hide_s), "{hide_s}");
                let page = matches!(redrive.next(NOW), Next::Receive { messages_max: 1..=PAGE_MAX });
                prop_assert!(page);
                if chooses {
                    prop_assert!(found.total() <= HIDDEN_MAX);
                }
            }
        }
    }
}
