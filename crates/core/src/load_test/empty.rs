//! When queues are empty, by counts that are approximate.

/// For so long all looks must find nothing, in milliseconds. The counts "may not achieve consistency until at least 1 minute
/// after the producers stop sending messages" (SQS API Reference, GetQueueAttributes), and a queue is empty when they "are 0
/// for several minutes" (SQS Developer Guide, "Confirming that a queue is empty").
const EMPTY_FOR_MS: u64 = 120_000;

/// What looks at queues say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// They hold something, or that could not be seen.
    No,
    /// The last look found nothing.
    Perhaps,
    /// They hold nothing.
    Surely,
}

/// Looks at queues, one after the other, while nobody sends.
#[derive(Debug, Clone, Copy)]
pub struct EmptyLooks {
    exact: bool,
    since_ms: Option<u64>,
}

impl EmptyLooks {
    /// Before the first look. `exact`: the counts are no approximation.
    #[must_use]
    pub fn new(exact: bool) -> Self {
        Self { exact, since_ms: None }
    }

    /// A look that found so many messages; `None`: it failed, which says nothing of those before it.
    pub fn look(&mut self, messages: Option<u64>, now_ms: u64) -> Empty {
        match messages {
            None => Empty::No,
            Some(0) => {
                let since_ms = *self.since_ms.get_or_insert(now_ms);
                let is_sure = self.exact || now_ms.saturating_sub(since_ms) >= EMPTY_FOR_MS;
                if is_sure { Empty::Surely } else { Empty::Perhaps }
            }
            Some(_) => {
                self.since_ms = None;
                Empty::No
            }
        }
    }
}

/// Whether messages that a clean-up could not look at, however long it waited, may be a test's. `known`: one is known to have
/// left something; `others`: messages of others came meanwhile; `open`: a record of a test's job says that it has not ended.
#[must_use]
pub fn may_be_of_a_test(known: bool, others: bool, open: bool) -> bool {
    // What was hidden at first was seen since, and so what is hidden now is like what comes.
    known && (open || !others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_is_other_peoples_where_no_test_was_or_none_has_an_open_job_among_theirs() {
        for (known, others, open, expected) in [
            (false, false, false, false),
            (false, true, false, false),
            (true, false, false, true),
            (true, true, false, false),
            (true, true, true, true),
        ] {
            assert_eq!(may_be_of_a_test(known, others, open), expected, "{known} {others} {open}");
        }
    }

    #[test]
    fn a_queue_is_empty_when_all_looks_of_two_minutes_found_nothing() {
        let mut looks = EmptyLooks::new(false);
        for (messages, now_s, found) in [
            (Some(3), 0, Empty::No),
            (Some(0), 5, Empty::Perhaps),
            (Some(0), 100, Empty::Perhaps),
            // A server that was behind.
            (Some(1), 110, Empty::No),
            (Some(0), 120, Empty::Perhaps),
            (None, 200, Empty::No),
            (Some(0), 239, Empty::Perhaps),
            (None, 240, Empty::No),
            (Some(0), 241, Empty::Surely),
        ] {
            assert_eq!(looks.look(messages, now_s * 1_000), found, "at {now_s} s");
        }
    }

    #[test]
    fn an_exact_count_is_believed_at_once() {
        let mut looks = EmptyLooks::new(true);
        assert_eq!([Some(1), None, Some(0)].map(|n| looks.look(n, 0)), [Empty::No, Empty::No, Empty::Surely]);
    }
}
