//! Which alarms a test answers for.

/// For so long the alarms may go unread, in milliseconds: one that is raised stays so for a minute at least, until it is
/// evaluated again.
const UNREAD_MAX_MS: u64 = 60_000;
/// For so long they are looked at after the last job has ended, in milliseconds: a number is in CloudWatch within a minute
/// or two, and an alarm is evaluated each minute.
pub const ALARMS_AFTER_MS: u64 = 180_000;

/// The alarms of a stack while it is tested.
#[derive(Debug)]
pub struct AlarmLooks {
    /// Raised since before the test; `None`: that could not be read.
    before: Option<Vec<String>>,
    raised: Vec<String>,
    read_ms: u64,
    /// Whether one may have been missed.
    missed: bool,
}

impl AlarmLooks {
    /// Of a test that is about to begin. `raised`: those that are; `None`: they could not be read.
    #[must_use]
    pub fn new(raised: Option<Vec<String>>, now_ms: u64) -> Self {
        Self { before: raised, raised: Vec::new(), read_ms: now_ms, missed: false }
    }

    /// Those that are raised now; `None`: they could not be read. Which of them the test has not answered for yet.
    pub fn look(&mut self, raised: Option<Vec<String>>, now_ms: u64) -> Vec<String> {
        self.missed |= now_ms.saturating_sub(self.read_ms) > UNREAD_MAX_MS;
        let Some(raised) = raised else { return Vec::new() };
        self.read_ms = now_ms;
        if let Some(before) = &mut self.before {
            // What ended is raised anew when it comes back.
            before.retain(|name| raised.contains(name));
        }
        let known = |name: &String| {
            self.before.as_ref().is_some_and(|before| before.contains(name)) || self.raised.contains(name)
        };
        let new: Vec<_> = raised.into_iter().filter(|name| !known(name)).collect();
        self.raised.extend(new.iter().cloned());
        new
    }

    /// Nobody looks on until they have seen what the last jobs did: what is not raised by now may be yet.
    pub fn cut_short(&mut self) {
        self.missed = true;
    }

    /// Those that were raised during the test and not before it, after a last look; `None`: it cannot be known.
    #[must_use]
    pub fn end(mut self, last: Option<Vec<String>>, now_ms: u64) -> (Vec<String>, Option<Vec<String>>) {
        let is_known = self.before.is_some() && last.is_some();
        let new = self.look(last, now_ms);
        let is_known = is_known && !self.missed;
        (new, (is_known || !self.raised.is_empty()).then_some(self.raised))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// After looks ten seconds apart, the first of which comes before the test.
    fn seen(looks: &[Option<Vec<String>>]) -> Option<Vec<String>> {
        let all: Vec<_> = looks.iter().cloned().zip((0..).map(|look| look * 10_000)).collect();
        let mut all = all.into_iter();
        let (before, now_ms) = all.next().unwrap();
        let mut seen = AlarmLooks::new(before, now_ms);
        let (last, now_ms) = all.next_back().unwrap();
        for (raised, now_ms) in all {
            seen.look(raised, now_ms);
        }
        seen.end(last, now_ms).1
    }

    #[test]
    fn a_test_answers_for_what_was_raised_since_it_began_and_anew_for_what_had_ended() {
        let none = || names(&[]);
        for (looks, expected) in [
            (vec![none(), none(), none()], none()),
            (vec![none(), names(&["a"]), none()], names(&["a"])),
            (vec![none(), names(&["a"]), names(&["a", "b"])], names(&["a", "b"])),
            (vec![names(&["a"]), names(&["a"]), names(&["a"])], none()),
            (vec![names(&["a"]), none(), names(&["a"])], names(&["a"])),
            // Nobody knows whether it ended meanwhile.
            (vec![names(&["a"]), None, names(&["a"])], none()),
        ] {
            assert_eq!(seen(&looks), expected, "{looks:?}");
        }
    }

    #[test]
    fn where_nobody_waited_for_them_none_is_known_but_those_that_were_raised() {
        for (raised, expected) in [(names(&[]), None), (names(&["a"]), names(&["a"]))] {
            let mut looks = AlarmLooks::new(names(&[]), 0);
            looks.look(raised.clone(), 10_000);
            looks.cut_short();
            assert_eq!(looks.end(raised, 20_000).1, expected);
        }
    }

    #[test]
    fn what_could_not_be_read_may_have_been_raised() {
        let none = || names(&[]);
        let unread = |looks: usize| [vec![none()], vec![None; looks], vec![none()]].concat();
        for (looks, expected) in [
            (unread(5), none()),
            (unread(6), None),
            (vec![None, none(), none()], None),
            (vec![none(), none(), None], None),
            (vec![none(), names(&["a"]), None], names(&["a"])),
        ] {
            assert_eq!(seen(&looks), expected, "{looks:?}");
        }
    }
}
