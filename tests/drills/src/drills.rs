//! What goes wrong, an alarm after the other; and the days on which nothing does.

use crate::run::{Act, Drill};
use crate::world::{Conditions, World};

const HOUR: u64 = 60;
const DAY: u64 = 24 * HOUR;

fn a_minute(_: u64) -> f64 {
    1.0
}

fn ten_an_hour(_: u64) -> f64 {
    1.0 / 6.0
}

fn an_hour(_: u64) -> f64 {
    1.0 / 60.0
}

fn busy(_: u64) -> f64 {
    10.0
}

fn is(change: impl Fn(&mut Conditions) + Send + Sync + 'static) -> Act {
    Box::new(move |world: &World| world.change(&change))
}

fn well() -> Act {
    is(|conditions| *conditions = Conditions::default())
}

/// A fault from `from` until `until`, and `after` more to see it end.
fn fault(
    page: &'static str,
    fault: &'static str,
    jobs: fn(u64) -> f64,
    (from, until, after): (u64, u64, u64),
    begins: Act,
) -> Drill {
    let acts = vec![(from, begins), (until, well())];
    let raised_behind = "Raised within ";
    Drill {
        fault,
        page: Some(page),
        raised_behind,
        beside: &[],
        jobs,
        from,
        until,
        minutes: until + after,
        acts,
    }
}

/// The same fault on a stack with a job a minute, and on one with ten an hour, where it may last as long as `few_until`.
fn at_both_volumes(
    page: &'static str,
    what: &'static str,
    (until, few_until, after): (u64, u64, u64),
    change: fn(&mut Conditions),
) -> [Drill; 2] {
    [
        fault(page, what, a_minute, (30, until, after), is(change)),
        fault(page, "the same, ten jobs an hour", ten_an_hour, (30, few_until, after), is(change)),
    ]
}

impl Drill {
    fn beside(mut self, pages: &'static [&'static str]) -> Self {
        self.beside = pages;
        self
    }

    /// Its page has minutes of their own for this, behind these words.
    fn raised_behind(mut self, words: &'static str) -> Self {
        self.raised_behind = words;
        self
    }

    /// The page counts from this long after the fault.
    fn counted_after(mut self, minutes: u64) -> Self {
        self.from += minutes;
        self
    }

    /// Somebody receives ten dead letters in each of these minutes.
    fn looked_at(mut self, minutes: std::ops::Range<u64>) -> Self {
        self.acts.extend(minutes.map(|minute| (minute, Box::new(World::look_at_letters) as Act)));
        self
    }

    fn then(mut self, minute: u64, act: Act) -> Self {
        self.acts.push((minute, act));
        self
    }
}

#[must_use]
pub fn all() -> Vec<Drill> {
    [model(), results(), function(), queues(), waits(), money(), healthy()].into_iter().flatten().collect()
}

fn model() -> Vec<Drill> {
    let account = at_both_volumes("model-account", "the key is revoked", (150, 8 * HOUR, 5 * HOUR), |c| {
        c.model.account = 1.0;
    });
    let failing =
        at_both_volumes("model-failing", "four of five calls end in a 500", (90, 3 * HOUR, 2 * HOUR), |c| {
            c.model.failing = 0.8
        });
    let throttled = at_both_volumes(
        "model-throttled",
        "the provider refuses a third of the calls for rate",
        (90, 4 * HOUR, 2 * HOUR),
        |c| c.model.throttling = 0.33,
    );
    let rejected = at_both_volumes(
        "output-rejected",
        "two of five answers are no JSON",
        (90, 4 * HOUR, 2 * HOUR),
        |c| c.model.invalid = 0.4,
    );
    [
        account.map(|drill| drill.beside(&["queue-paused"])),
        failing.map(|drill| {
            drill.beside(&[
                "dead-letters-present",
                "dead-letters-rising",
                "success-burning-fast",
                "success-burning-slow",
                "oldest-job-too-old",
            ])
        }),
        throttled,
        rejected.map(|drill| drill.beside(&["dead-letters-present", "success-burning-slow"])),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn results() -> Vec<Drill> {
    vec![
        fault(
            "success-burning-fast",
            "the model refuses three of ten jobs",
            a_minute,
            (30, 3 * HOUR, 4 * HOUR),
            is(|c| c.model.refusing = 0.3),
        )
        .beside(&["dead-letters-present", "dead-letters-rising", "success-burning-slow"]),
        fault(
            "success-burning-fast",
            "the same, twenty jobs an hour",
            |_| 1.0 / 3.0,
            (30, 5 * HOUR, 4 * HOUR),
            is(|c| c.model.refusing = 0.5),
        )
        .beside(&["dead-letters-present", "dead-letters-rising", "success-burning-slow"]),
        fault(
            "success-burning-fast",
            "the model refuses every job of ten a minute",
            busy,
            (30, 90, 2 * HOUR),
            is(|c| c.model.refusing = 1.0),
        )
        .raised_behind("one in seven jobs fails, within ")
        .beside(&["dead-letters-present", "dead-letters-rising", "success-burning-slow"]),
        fault(
            "success-burning-fast",
            "no answer is valid, and each result waits for a review",
            a_minute,
            (30, 3 * HOUR, 4 * HOUR),
            is(|c| (c.model.invalid, c.reports) = (1.0, true)),
        )
        .beside(&["output-rejected", "success-burning-slow"]),
        fault(
            "success-burning-slow",
            "the model refuses one of twelve jobs",
            |_| 3.0,
            (30, 5 * HOUR, 7 * HOUR),
            is(|c| c.model.refusing = 0.083),
        )
        .beside(&["dead-letters-present"]),
        fault(
            "dead-letters-present",
            "the model refuses the jobs of one minute",
            a_minute,
            (30, 4 * HOUR, HOUR),
            is(|c| c.model.refusing = 1.0),
        )
        .then(31, well())
        .then(4 * HOUR, Box::new(World::redrive_all)),
        fault(
            "dead-letters-rising",
            "the model refuses every job",
            |_| 2.0,
            (30, 90, 2 * HOUR),
            is(|c| c.model.refusing = 1.0),
        )
        .beside(&["dead-letters-present", "success-burning-fast", "success-burning-slow"]),
    ]
}

fn function() -> Vec<Drill> {
    // After so many deaths in a row the sentinel pauses the stack, and asks again when another version is there.
    let dying = at_both_volumes(
        "worker-failing",
        "each invocation dies after a second",
        // Ten jobs an hour are paused after two hours, and then nothing dies any more.
        (60, 90, 3 * HOUR),
        |c| c.dies_after_ms = Some(1_000),
    );
    let dying = dying.map(|drill| {
        let mended = drill.until;
        drill.then(mended, Box::new(|world: &World| world.deploy(1))).beside(&[
            "no-progress",
            "oldest-job-too-old",
            "queue-paused",
        ])
    });
    let some_die = fault(
        "worker-failing",
        "half of the invocations die, on a busy stack",
        busy,
        (60, 3 * HOUR, 3 * HOUR),
        is(|c| (c.dies_after_ms, c.dying) = (Some(1_000), 0.5)),
    )
    .beside(&[
        "dead-letters-present",
        "dead-letters-rising",
        "oldest-job-too-old",
        "success-burning-fast",
        "success-burning-slow",
    ]);
    let one_batch = fault(
        "worker-failing",
        "the one batch that there is dies, and dies again",
        |minute| if minute == 60 { 5.0 } else { 0.0 },
        (60, 100, 3 * HOUR),
        is(|c| c.dies_after_ms = Some(1_000)),
    )
    .raised_behind("where that is longer); within ")
    .beside(&["oldest-job-too-old", "queue-paused"]);
    let others = vec![
        some_die,
        one_batch,
        fault(
            "worker-near-timeout",
            "the process blocks, on a busy stack",
            busy,
            (30, 90, 2 * HOUR),
            is(|c| c.blocked = true),
        ),
        fault(
            "worker-near-timeout",
            "the same, ten jobs an hour",
            ten_an_hour,
            (30, 3 * HOUR, 2 * HOUR),
            is(|c| c.blocked = true),
        ),
        fault(
            "worker-throttled",
            "Lambda refuses invocations",
            a_minute,
            (30, 80, 2 * HOUR),
            is(|c| c.throttled = true),
        )
        .beside(&["no-progress"]),
        fault(
            "ledger-failing",
            "DynamoDB answers nothing",
            a_minute,
            (30, 120, 2 * HOUR),
            is(|c| c.ledger_fails = 1.0),
        )
        .raised_behind("however few the jobs are: within ")
        .beside(&["sentinel-silent", "oldest-job-too-old"]),
        fault(
            "ledger-failing",
            "one in twenty of its requests fails, on a busy stack",
            busy,
            (30, 120, 2 * HOUR),
            is(|c| c.ledger_fails = 0.05),
        )
        .raised_behind("however few the jobs are: within ")
        .beside(&["sentinel-silent", "oldest-job-too-old"]),
        fault(
            "ledger-failing",
            "a third of its requests fails",
            a_minute,
            (30, 120, 2 * HOUR),
            is(|c| c.ledger_fails = 0.33),
        )
        .raised_behind("however few the jobs are: within ")
        .beside(&["sentinel-silent", "oldest-job-too-old"]),
        fault(
            "ledger-failing",
            "DynamoDB answers nothing, one job every two hours",
            |_| 1.0 / 120.0,
            (121, 8 * HOUR, 2 * HOUR),
            is(|c| c.ledger_fails = 1.0),
        )
        .beside(&["sentinel-silent", "oldest-job-too-old"]),
        fault(
            "redrive-failing",
            "a redrive fails at each step",
            a_minute,
            (30, 90, 2 * HOUR),
            is(|c| c.redrive_fails = true),
        ),
    ];
    dying.into_iter().chain(others).collect()
}

fn queues() -> Vec<Drill> {
    vec![
        fault(
            "events-failing",
            "the pipe may not send, and the queue of what it gave up is emptied in the end",
            a_minute,
            (30, 4 * HOUR, 2 * HOUR),
            is(|c| c.events_refused = true),
        )
        .then(60, well())
        .then(4 * HOUR, Box::new(World::purge_events_failed)),
        fault(
            "events-failing",
            "each attempt of the pipe for large results fails",
            a_minute,
            (30, 90, 2 * HOUR),
            is(|c| c.large_events_fail = true),
        ),
        fault(
            "sentinel-silent",
            "the sentinel does not run",
            a_minute,
            (30, 90, HOUR),
            is(|c| c.sentinel_off = true),
        ),
        fault(
            "sentinel-failing",
            "the sentinel may not invoke the redrive that it drives",
            a_minute,
            (30, 90, HOUR),
            is(|c| c.sentinel_refused = true),
        ),
        fault(
            "oldest-job-too-old",
            "Lambda takes nothing from the queue",
            a_minute,
            (30, 4 * HOUR, 2 * HOUR),
            is(|c| c.polled = false),
        )
        .counted_after(HOUR)
        .beside(&["no-progress"]),
        fault(
            "no-progress",
            "Lambda takes nothing from the queue",
            a_minute,
            (30, 80, HOUR),
            is(|c| c.polled = false),
        ),
        fault(
            "queue-paused",
            "somebody pauses the stack",
            a_minute,
            (30, 4 * HOUR, 2 * HOUR),
            Box::new(World::pause),
        )
        .then(2 * HOUR, is(|c| c.sentinel_off = true))
        .then(2 * HOUR + 1, well())
        .then(4 * HOUR, Box::new(World::resume)),
        fault(
            "queue-paused",
            "the provider answers nobody",
            busy,
            (30, 4 * HOUR, 2 * HOUR),
            is(|c| c.model.failing = 1.0),
        ),
    ]
}

/// What takes days.
fn waits() -> Vec<Drill> {
    let half = 3 * DAY + 12 * HOUR;
    // Received every half an hour, a hundred times.
    let given_up = 33 + 100 * 30;
    vec![
        fault(
            "jobs-expiring",
            "Lambda takes nothing from the queue for days",
            an_hour,
            (60, 4 * DAY, HOUR),
            is(|c| c.polled = false),
        )
        .counted_after(HOUR + half)
        .beside(&["no-progress", "oldest-job-too-old"]),
        fault(
            "jobs-expiring",
            "the key is revoked for days",
            an_hour,
            (60, 4 * DAY, 5 * HOUR),
            is(|c| c.model.account = 1.0),
        )
        .counted_after(HOUR + half)
        .beside(&["model-account", "oldest-job-too-old", "queue-paused"]),
        fault(
            "dead-letters-expiring",
            "a dead letter waits for a week",
            ten_an_hour,
            (60, 7 * DAY + 3 * HOUR, HOUR),
            is(|c| c.model.refusing = 1.0),
        )
        .then(67, well())
        .then(7 * DAY + 3 * HOUR, Box::new(World::redrive_all))
        .counted_after(7 * DAY)
        .beside(&["dead-letters-present"]),
        fault(
            "dead-letters-expiring",
            "a crashed job waits for three and a half days",
            ten_an_hour,
            (given_up, given_up + half + 3 * HOUR, HOUR),
            Box::new(|_| ()),
        )
        .then(33, Box::new(|world: &World| world.send("KILLS")))
        .then(given_up + half + 3 * HOUR, Box::new(World::throw_away_crashed))
        .counted_after(half)
        .beside(&["crashed-jobs", "worker-failing", "oldest-job-too-old"]),
        fault(
            "crashed-jobs",
            "a job kills whoever reads it",
            ten_an_hour,
            (given_up, given_up + 2 * HOUR, 2 * HOUR),
            Box::new(|_| ()),
        )
        .then(33, Box::new(|world: &World| world.send("KILLS")))
        .then(given_up + 2 * HOUR, Box::new(World::throw_away_crashed))
        .beside(&["worker-failing", "oldest-job-too-old"]),
        fault(
            "no-jobs",
            "the sender stops at noon",
            |minute| if minute < 12 * HOUR { 0.1 } else { 0.0 },
            (12 * HOUR, 15 * HOUR, 2 * HOUR),
            well(),
        )
        .then(15 * HOUR, Box::new(|world: &World| world.send("It is back."))),
    ]
}

fn money() -> Vec<Drill> {
    let dear = |page, what, (jobs, times): (fn(u64) -> f64, u64), (from, after)| {
        fault(page, what, jobs, (from, DAY, after), Box::new(|_| ()))
            .then(30, Box::new(move |world: &World| world.deploy(times)))
            .then(DAY, Box::new(|world: &World| world.deploy(1)))
    };
    vec![
        dear(
            "spend-near-cap",
            "each call costs a hundred times as much",
            (|minute| if minute < 80 { 40.0 } else { 1.0 / 6.0 }, 100),
            (80, HOUR),
        )
        .beside(&["spend-cap-reached", "oldest-job-too-old"]),
        dear(
            "spend-cap-reached",
            "each call costs five hundred times as much",
            (|minute| if minute < 90 { 10.0 } else { 1.0 / 6.0 }, 500),
            (80, 4 * HOUR),
        )
        .beside(&["spend-near-cap", "queue-paused"]),
    ]
}

fn healthy() -> Vec<Drill> {
    let day = |fault, minutes, jobs| Drill {
        fault,
        page: None,
        raised_behind: "",
        beside: &[],
        jobs,
        from: 0,
        until: 0,
        minutes,
        acts: Vec::new(),
    };
    vec![
        day("steady, a job a minute", DAY, a_minute),
        day("ten jobs a day, in office hours", DAY, |minute| {
            if (8 * HOUR..18 * HOUR).contains(&(minute % DAY)) { 1.0 / 60.0 } else { 0.0 }
        }),
        day("bursts of a hundred jobs, and a quiet night", DAY, |minute| {
            let open = (8 * HOUR..18 * HOUR).contains(&(minute % DAY));
            if open && minute.is_multiple_of(30) { 100.0 } else { 0.0 }
        }),
        // It takes eleven minutes, as a hundred thousand do with ten times the concurrency.
        day("a nightly bulk of 10,000, in its tenth of the concurrency", 2 * HOUR, |minute| {
            if minute == 30 { 10_000.0 } else { 0.0 }
        }),
        day("a million a day, for ten minutes of it", HOUR, |minute| {
            if (20..30).contains(&minute) { 694.0 } else { 0.0 }
        }),
        day("a weekend with nothing to do", 7 * DAY, |minute| {
            let open = (8 * HOUR..18 * HOUR).contains(&(minute % DAY));
            if open && minute / DAY < 5 { 1.0 / 60.0 } else { 0.0 }
        }),
        accidents(day("a day with its accidents, a job a minute", 10 * HOUR, a_minute)),
        accidents(day("the same accidents, ten jobs an hour", 10 * HOUR, ten_an_hour)),
        accidents(day("the same accidents, on a busy stack", 10 * HOUR, busy)),
        day("a provider that is a little unreliable, on a busy stack", 4 * HOUR, busy)
            .then(0, is(|c| (c.model.invalid, c.model.throttling, c.model.failing) = (0.05, 0.05, 0.1))),
        day("a deploy while jobs are at work", 3 * HOUR, busy)
            .then(HOUR, Box::new(|world: &World| world.deploy(1))),
        day("a pause of a night, on purpose, and ten jobs a minute", DAY, busy)
            .then(HOUR, Box::new(World::pause))
            .then(9 * HOUR, Box::new(World::resume))
            .beside(&["queue-paused"]),
        day("somebody looks through the dead letters", 4 * HOUR, |_| 3.0)
            .then(120, is(|c| c.model.refusing = 1.0))
            .then(121, well())
            .looked_at(130..230)
            .beside(&["dead-letters-present"]),
    ]
}

/// What happens once, and is over by itself: nobody is told of it.
fn accidents(day: Drill) -> Drill {
    type Accident = fn(&mut Conditions);
    let accidents: [Accident; 7] = [
        |c| c.dies_after_ms = Some(1_000),
        |c| c.ledger_fails = 1.0,
        |c| c.throttled = true,
        |c| c.sentinel_off = true,
        |c| c.redrive_fails = true,
        |c| c.model.invalid = 0.4,
        |c| c.model.failing = 0.5,
    ];
    accidents
        .into_iter()
        .zip(1..)
        .fold(day, |day, (accident, hour)| day.then(hour * HOUR, is(accident)).then(hour * HOUR + 1, well()))
}
