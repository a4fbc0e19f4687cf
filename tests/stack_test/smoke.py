"""Sends the demo's jobs to a stack and checks that each ends as a result or as a dead letter.

    smoke.py OUTPUTS_JSON

Can be run again on the same stack: then the good jobs are duplicates, and the bad ones fail again.
"""

import collections
import json
import sys
import time

from stack import BAD_REASONS, DEMO_JOBS, GOOD_DIFFERENT, GOOD_LINES, Stack, require, wait_until

# A duplicate waits for the lease of the job it met (32 s), a hand-back up to 30 s, some of them more than once.
TIMEOUT_S = 240
# What the worker says of a job that the model could not do; the rest of the reasons would be ours.
MODEL_REASONS = {"refused", "truncated", "invalid_output", "attempts_exhausted", "request_rejected"}


def main():
    stack = Stack(sys.argv[1])
    bodies = DEMO_JOBS.read_text().split("\n")[:-1]
    bad = bodies[GOOD_LINES:]
    require("the demo has the bad jobs that are expected", len(bad) == sum(BAD_REASONS.values()), len(bad))

    stack.take_dead_letters()  # Of an earlier run.
    began = stack.send(bodies)
    print(f"sent {GOOD_LINES} jobs and {len(bad)} bad ones to {stack.outputs['jobs_queue_url']}")

    def settled():
        records = stack.records()
        states = collections.Counter(record["state"] for record in records.values())
        waiting = stack.depth("jobs")
        seen = f"records {dict(states)}, jobs in the queue {waiting}"
        return waiting == 0 and len(records) >= GOOD_DIFFERENT + len(bad) and set(states) <= {"done", "failed"}, seen

    wait_until("all jobs settled", settled, TIMEOUT_S)
    took = time.time() - began
    records = stack.records()
    letters = stack.take_dead_letters()
    # A send whose answer came too late is sent again with the job's next delivery: at least one letter for each job.
    of_jobs = {letter["InputHash"]: letter for letter in letters}
    reasons = collections.Counter(letter["FailureReason"] for letter in of_jobs.values())
    done = [record for record in records.values() if record["state"] == "done"]
    failed = {key: record for key, record in records.items() if record["state"] == "failed"}
    again = f", {len(letters) - len(of_jobs)} sent again" if len(letters) > len(of_jobs) else ""
    print(f"settled in {took:.1f} s: {len(done)} results, dead letters {dict(reasons)}{again}")

    require("each job has one record", len(records) == GOOD_DIFFERENT + len(bad), len(records))
    by_model = {reason: count for reason, count in reasons.items() if reason not in BAD_REASONS}
    require("each bad job is a dead letter with its reason", all(reasons[reason] == count for reason, count in BAD_REASONS.items()), dict(reasons))
    require("no other job failed but by what the model did", set(by_model) <= MODEL_REASONS, by_model)
    require("results and dead letters are all jobs", len(done) + len(of_jobs) == len(records), (len(done), len(of_jobs), len(records)))
    require("each result has an output", all(json.loads(record["output"]) for record in done))
    require("each task has results", {record["task"] for record in done} == {"summarize_email", "categorize_ticket", "weekly_report"})
    bodies_left = collections.Counter(bodies)
    bodies_left.subtract(letter["body"] for letter in of_jobs.values())
    require("each dead letter is its job, byte for byte", min(bodies_left.values()) >= 0)
    require("a letter that was sent again says the same", all(letter["body"] == of_jobs[letter["InputHash"]]["body"] for letter in letters))
    require("each dead letter names its record and says why", all(
        letter["InputHash"] in failed
        and failed[letter["InputHash"]]["reason"] == letter["FailureReason"]
        and json.loads(letter["FailureContext"])["detail"]
        for letter in letters
    ))
    require("nothing crashed", stack.depth("crashed") == 0)
    received = wait_until("metrics", lambda: ((seen := stack.metric("JobsReceived", began)) >= len(bodies), seen), 30)
    require("the metrics count each delivery", received >= len(bodies), received)

    # Asked for here, so that the test does not wait for the schedule; two runs at once do no harm.
    # It gives up what takes longer than 2.5 s, and says so: on a busy machine it is asked again, as its schedule would.
    looks = int(time.time())

    def sees():
        looked = stack.client("lambda").invoke(FunctionName=stack.outputs["sentinel_function"], Payload=b"{}")
        # Its first look has nothing to compare with, and no heartbeat.
        return "FunctionError" not in looked and stack.metric("Heartbeat", looks + 60) >= 1, looked["Payload"].read().decode()

    wait_until("the sentinel sees the whole stack", sees, 60)
    require("it sees the money that was spent", stack.metric("SpendToday", began) > 0)
    print(f"smoke passed: {len(done)} results, {len(of_jobs)} dead letters, in {took:.1f} s")


if __name__ == "__main__":
    main()
