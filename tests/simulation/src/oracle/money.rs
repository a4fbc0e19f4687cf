//! What the calls of a day cost, against its record and its cap.

use super::Promise;
use crate::plan::{CALL_MICRO_USD_MAX, Plan, SECOND};
use crate::world::{DaySpend, Invocation, State};
use nightshift_core::spend::{SpendKey, Spent, UtcDay};
use nightshift_core::spread::FULL_FOR_MS;

impl State {
    /// The provider has decided what comes of a call, and charges for it whether or not anybody will hear of it.
    /// `told_micro_usd`: what its worker can make of the answer, if it hears it.
    pub fn call_is_billed(
        &mut self,
        now_ms: u64,
        n: u32,
        id: u32,
        (micro_usd, told_micro_usd): (u64, u64),
        lied: bool,
        plan: &Plan,
    ) {
        let calls = &mut self.inputs[n as usize].epoch_of_call(id).calls;
        let Some(call) = calls.iter_mut().find(|call| call.id == id) else { return };
        (call.lied, call.told_micro_usd) = (lied, told_micro_usd);
        let Some(running) = self.invocations.get(&call.invocation).filter(|_| micro_usd > 0) else { return };
        let Some(day) = running.day else { return };
        let spend = self.spend.entry(day).or_default();
        self.stats.days_billed += u64::from(spend.billed_micro_usd == 0);
        spend.billed_micro_usd += micro_usd;
        self.judge_day(now_ms, Some(n), day, plan);
    }

    /// The same of a probe, which is no job's.
    pub fn probe_is_billed(&mut self, now_ms: u64, invocation: u64, micro_usd: u64, plan: &Plan) {
        let Some(running) = self.invocations.get_mut(&invocation) else { return };
        running.calls_micro_usd = CALL_MICRO_USD_MAX;
        let Some(day) = running.day else { return };
        self.spend.entry(day).or_default().billed_micro_usd += micro_usd;
        self.judge_day(now_ms, None, day, plan);
    }

    /// The dearest call that some record of a day can pay.
    pub fn room_micro_usd(&self, day: UtcDay, plan: &Plan) -> u64 {
        let spent = self.spend.get(&day).map_or_else(Spent::default, DaySpend::spent);
        spent.room_micro_usd(plan.limits.spend_cap_micro_usd)
    }

    /// The dearest call that some record could pay, as far as an invocation can know which was handed back for the cap: by what
    /// each had left when it was asked. Refused by all of them twice, it met others who reserve, and may leave the room to them;
    /// and its environment believes for some seconds that a day is full.
    pub fn room_as_known_to(&self, running: &Invocation, plan: &Plan) -> u64 {
        let Some(day) = running.day else { return 0 };
        let cap_micro_usd = plan.limits.spend_cap_micro_usd;
        let unspent = DaySpend::default();
        let spend = self.spend.get(&day).unwrap_or(&unspent);
        let shards = spend.shards_micro_usd.iter().map(|(shard, held)| (SpendKey::Shard(*shard), *held));
        let own = (SpendKey::Day, i128::from(cap_micro_usd) - spend.taken_micro_usd);
        let records: Vec<_> = shards.chain([own]).collect();
        let refused = |times: u32| {
            records.iter().all(|(key, _)| running.no_room.get(key).is_some_and(|(n, _)| *n >= times))
        };
        let believed_ms = self.full_ms.get(&running.environment).map(|at_ms| at_ms + FULL_FOR_MS + SECOND);
        let believes_it = believed_ms.is_some_and(|until_ms| until_ms > running.began_ms);
        if refused(2) || believes_it {
            return 0;
        }
        let known = records.iter().map(|(key, left)| {
            let left = u64::try_from(*left).unwrap_or_default();
            running.no_room.get(key).map_or(left, |(_, known)| *known)
        });
        known.max().unwrap_or_default()
    }

    /// The calls of the invocations that began on a day cost no more than its record holds, nor than the cap: not
    /// almost, but at every moment, whatever was killed or lost, because no call costs more than was reserved for it.
    /// Between two midnights more may be billed, by what began before the first and ends within a function's timeout.
    pub fn judge_day(&mut self, now_ms: u64, n: Option<u32>, day: UtcDay, plan: &Plan) {
        self.stats.checks += 1;
        let Some(spend) = self.spend.get(&day) else { return };
        let (billed, committed) = (spend.billed_micro_usd, spend.committed_micro_usd());
        let cap = plan.limits.spend_cap_micro_usd;
        if billed > cap {
            let what =
                format!("the calls of {day} cost {billed} millionths of a dollar, and the cap is {cap}");
            self.violate(now_ms, Promise::Budgets, n, what);
        } else if i128::from(billed) > committed {
            let what = format!(
                "the calls of {day} cost {billed} millionths of a dollar, and its record holds {committed}"
            );
            self.violate(now_ms, Promise::Budgets, n, what);
        }
    }
}
