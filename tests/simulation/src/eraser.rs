//! A person who erases inputs while workers, duplicates and redrives run, as `nightshift results delete` does.

use std::sync::Arc;
use std::time::Duration;

use nightshift_core::erase::tombstone;
use nightshift_core::kept::erased_parts;
use nightshift_core::record::{Erasure, Record, State as Standing};
use tokio::time::{sleep, sleep_until};

use crate::oracle::{Epoch, Promise};
use crate::plan::MINUTE;
use crate::rng::Rng;
use crate::world::{Letter, State, World};

/// Erases inputs at random times, each with its dead letters and crashed messages.
pub async fn erase(world: Arc<World>) {
    let plan = &world.plan;
    let mut rng = Rng::new(plan.seed, "eraser", 0);
    let mut times: Vec<u64> = (0..plan.erasures).map(|_| rng.range(0, plan.faults_end_ms)).collect();
    times.sort_unstable();
    for (nth, at_ms) in times.into_iter().enumerate() {
        if at_ms > world.elapsed_ms() {
            sleep_until(world.instant(at_ms)).await;
        }
        // What is worked on just now is what can go wrong.
        let n = {
            let state = world.lock();
            let open: Vec<u32> =
                state.invocations.values().flat_map(|running| running.claimed.iter().copied()).collect();
            if open.is_empty() || rng.chance(0.3) {
                rng.range(0, u64::from(plan.jobs) - 1) as u32
            } else {
                rng.pick(&open)
            }
        };
        world.lock().put_tombstone(world.now_ms(), n, &format!("erasure-{nth}"));
        // A worker that has just failed it may still send its letter, and a redrive may hide one.
        let last_ms = world.elapsed_ms() + plan.limits.function_timeout_ms + MINUTE;
        let world = Arc::clone(&world);
        loop {
            let hidden = world.lock().take_letters(world.now_ms(), n);
            if !hidden && world.elapsed_ms() > last_ms {
                break;
            }
            sleep(Duration::from_millis(MINUTE)).await;
        }
    }
    world.lock().erasing = false;
    world.progress.notify_one();
}

impl State {
    fn put_tombstone(&mut self, now_ms: u64, n: u32, token: &str) {
        let input = &mut self.inputs[n as usize];
        let write = tombstone(&input.key, input.record.as_deref(), token, now_ms);
        if !write.allowed(input.record.as_deref()) {
            self.violate(now_ms, Promise::Erased, Some(n), "the tombstone was refused over what stands");
            return;
        }
        let version = write.record.version;
        let parts = erased_parts(&write.record);
        if matches!(input.record.as_deref(), Some(Record { state: Standing::Claimed { .. }, .. })) {
            let next = Epoch { ledger_faults: input.epoch.ledger_faults, ..Epoch::default() };
            input.ended.push((input.holder, std::mem::replace(&mut input.epoch, next)));
        }
        (input.erased, input.duplicates) = (Some((now_ms, version)), (0, None));
        self.stand(n, Some(write.record));
        for part in &parts {
            self.part_is_written(now_ms, part, now_ms);
        }
        self.stats.erasures += 1;
        self.note(now_ms, n, || format!("a person erases it: tombstone v{version}"));
    }

    /// Takes the visible letters from before the erasure out of both queues; says whether there are hidden ones.
    fn take_letters(&mut self, now_ms: u64, n: u32) -> bool {
        let Some((at_ms, version)) = self.inputs[n as usize].erased else { return false };
        let erasure = Erasure { at_ms, version, until_ms: u64::MAX };
        let of_before = |letter: &Letter| {
            letter.of.is_some_and(|(of, _)| of == n)
                && erasure.covers_letter(letter.version, letter.sent_at_ms)
        };
        let (mut hidden, mut taken) = (false, [0, 0]);
        for (letters, taken) in [&mut self.letters, &mut self.crashed_letters].into_iter().zip(&mut taken) {
            for letter in letters.iter_mut().filter(|letter| !letter.moved_back && of_before(letter)) {
                if letter.visible_at_ms > now_ms {
                    hidden = true;
                } else {
                    letter.moved_back = true;
                    *taken += 1;
                }
            }
        }
        let input = &mut self.inputs[n as usize];
        (input.letters, input.crashed) = (input.letters - taken[0], input.crashed - taken[1]);
        hidden
    }
}
