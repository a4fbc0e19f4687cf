"""Nights that the sentinel ends by itself, on a stack each and at once: nobody does more than mend the cause.

outage   the provider answers nothing but 529; in the pause the sentinel is stopped for a while, and the provider comes back
key      the key is revoked, and set again by the command
cap      the day's money is spent, and its cap raised by an apply

The sentinel is run by its own schedule, each minute. In each night the pause stands in the control record, the event source is
off, the alarm is raised (a silent sentinel's cannot be here: MiniStack judges an alarm by what arrives), next to nothing is paid for, and afterwards each job has a result.
"""

import json
import subprocess
import time

from model_gate import ModelGate
from runbook import built
from stack import DAY_S, applied, require, scripts_stack, stack_of, wait_until

JOBS = 60
# Twenty failed calls that go on for a minute, and the next two runs.
TO_PAUSE_S = 300
# A probe, a step a minute from one call to all twenty, and what was handed back meanwhile.
TO_SETTLE_S = 900
MINUTE_S = 60


class Night:
    def __init__(self, name, **settings):
        self.name = name
        self.prefix = f"night-{name}"
        self.gate = ModelGate(built() / "model-stub")
        self.settings = {
            "model": {"base_url": self.gate.url},
            "queues": {"maximum_concurrency": 2},
            "limits": {"hand_back_base_s": 2, "hand_back_s_max": 60, "capacity_wait_s_max": 2400},
        }
        try:
            self.apply(**settings)
        except BaseException:
            self.gate.close()
            raise
        self.stack = stack_of(self.prefix)
        self.client = self.stack.client
        self.set_key("sk-first")

    def apply(self, **settings):
        for name, value in settings.items():
            self.settings[name] = {**self.settings.get(name, {}), **value}
        applied(self.prefix, self.settings)

    def close(self):
        self.gate.close()
        scripts_stack("destroy", "--prefix", self.prefix)

    def set_key(self, key):
        self.client("secretsmanager").put_secret_value(SecretId=self.stack.outputs["model_key_secret"], SecretString=key)

    def send(self, count=JOBS):
        self.stack.send([
            json.dumps({"task": "categorize_ticket", "input": {"text": f"{self.name}, ticket {number}"}, "reference": str(number)})
            for number in range(count)
        ])

    def nightshift(self, *arguments, said=None):
        return subprocess.run([built() / "nightshift", "--prefix", self.prefix, *arguments], input=said, capture_output=True, text=True)

    def entry(self, cause):
        """What the control record says of a cause; nothing where it does not hold."""
        return self.stack.control_entries().get(cause, {})

    def seen_at_ms(self):
        """When the sentinel last looked."""
        item = self.client("dynamodb").get_item(TableName=self.stack.outputs["ledger_table"], Key={"id": {"S": "sentinel#watch"}}, ConsistentRead=True)
        return json.loads(item["Item"]["document"]["S"])["seen_at_ms"]

    def last_look_ms(self):
        """Waits for a look, and its probe, that were under way when the schedule was stopped: Lambda ends one after 50 s."""

        def is_over():
            before = self.seen_at_ms()
            time.sleep(MINUTE_S)
            return self.seen_at_ms() == before, before

        return wait_until(f"{self.prefix}: the last look is over", is_over, 2 * MINUTE_S)

    def results(self):
        return sum(record["state"] == "done" for record in self.stack.records().values())

    def is_paused(self, cause, within_s=TO_PAUSE_S):
        began = time.monotonic()
        wait_until(
            f"{self.prefix}: the sentinel turns the event source off for {cause}",
            lambda: ((seen := (self.entry(cause).get("phase"), self.stack.switch()))[0] in ("paused", "probing") and seen[1] == "Disabled", seen),
            within_s,
        )
        took = time.monotonic() - began
        said = self.nightshift("status")
        state = next((line for line in said.stdout.splitlines() if line.startswith("state\t")), "")
        require(f"{self.prefix}: paused for {cause} after {took:.0f} s, and status says so", f": {cause} (" in state, said.stdout + said.stderr)
        # MiniStack judges an alarm where a metric arrives, by all stacks' values of it, so that it shows that one is raised and
        # not that it ends: tests/drills does.
        name = f"{self.prefix}-queue-paused"
        alarm = lambda: self.client("cloudwatch").describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]
        wait_until(f"{name} is raised", lambda: ((state := alarm()) == "ALARM", state), 2 * MINUTE_S)

    def stands(self, cause, for_s, calls_max):
        """A pause goes on, and costs no more than so many calls."""
        began, under_way = time.monotonic(), self.gate.asked

        def is_quiet():
            before = self.gate.asked
            time.sleep(20)
            return self.gate.asked == before, self.gate.asked - under_way

        wait_until(f"{self.prefix}: what was under way hears of the pause", is_quiet, 2 * MINUTE_S)
        under_way, quiet_s = self.gate.asked - under_way, time.monotonic() - began - 20
        asked, results = self.gate.asked, self.results()
        time.sleep(for_s)
        seen = self.entry(cause).get("phase"), self.gate.asked - asked, self.results() - results
        require(f"{self.prefix}: {for_s} s of the pause cost {seen[1]} calls, after {under_way} that were under way for {quiet_s:.0f} s", seen[0] in ("paused", "probing") and seen[1] <= calls_max and seen[2] == 0, seen)

    def ends(self, cause):
        began = time.monotonic()
        wait_until(
            f"{self.prefix}: each job has its result",
            lambda: ((seen := (self.results(), self.stack.depth("jobs"), self.entry(cause).get("phase"), self.stack.switch()))[:2] == (JOBS, 0), seen),
            TO_SETTLE_S,
        )
        took = time.monotonic() - began
        left = self.stack.depth("dead_letters"), self.stack.depth("crashed"), len(self.stack.records())
        require(f"{self.prefix}: {JOBS} results {took:.0f} s after the cause was mended, and no dead letter", left == (0, 0, JOBS), left)
        wait_until(f"{self.prefix}: all may work again", lambda: ((seen := (self.entry(cause).get("phase"), self.stack.switch())) in ((None, "Enabled"), ("open", "Enabled")), seen), TO_SETTLE_S)
        wasted = sum(count - 1 for count in self.gate.answered.values())
        require(f"{self.prefix}: no answer was asked for twice", wasted == 0, wasted)


def outage():
    night = Night("outage")
    schedule = night.client("scheduler")
    try:
        night.gate.fault = "overloaded"
        night.send()
        night.is_paused("outage")
        # A probe a minute, and one that was on its way.
        night.stands("outage", 2 * MINUTE_S, calls_max=3)
        name = night.stack.outputs["sentinel_function"]
        of = {key: value for key, value in schedule.get_schedule(Name=name).items() if key in ("Name", "ScheduleExpression", "FlexibleTimeWindow", "Target")}
        schedule.update_schedule(**of, State="DISABLED")
        seen_at_ms = night.last_look_ms()
        night.gate.fault = None
        night.stands("outage", 2 * MINUTE_S, calls_max=0)
        require("night-outage: the sentinel did not run meanwhile", night.seen_at_ms() == seen_at_ms, seen_at_ms)
        schedule.update_schedule(**of, State="ENABLED")
        night.ends("outage")
    finally:
        night.close()


def key():
    night = Night("key")
    try:
        night.gate.revoked_keys.add("sk-first")
        night.send()
        night.is_paused("account")
        night.stands("account", 2 * MINUTE_S, calls_max=3)
        done = night.nightshift("key", "set", "--reason", "it was revoked", "--yes", said="sk-second\n")
        require("night-key: the key is set", done.returncode == 0, done.stderr)
        night.ends("account")
    finally:
        night.close()


def cap():
    # At midnight, in UTC, the money of a day is there again, and this night is over.
    left_s = DAY_S - time.time() % DAY_S
    if left_s < 20 * MINUTE_S:
        time.sleep(left_s)
    night = Night("cap", limits={"spend_cap_usd_per_day": 0.005})
    try:
        night.send()
        # What others have reserved is waited for: ten quiet minutes.
        night.is_paused("spend_cap", within_s=900)
        results = night.results()
        require("night-cap: a part of the jobs was paid for", 0 < results < JOBS - 20, results)
        night.stands("spend_cap", 40, calls_max=0)
        night.apply(limits={"spend_cap_usd_per_day": 10})
        night.ends("spend_cap")
    finally:
        night.close()


NIGHTS = {"outage": outage, "key": key, "cap": cap}
