"""What must hold on a whole stack, whatever is killed, refused or frozen.

    scenarios.py [NAME...]      default: all but those on request, in this order

smoke      the demo's jobs, twice: the second time the good ones are duplicates
cli        the AWS CLI, with what `scripts/stack env` prints and nothing else
plan       a second plan has nothing to change
deploy     scripts/deploy and scripts/destroy, as a user runs them
beside     a second stack with another prefix in another region
recreate   destroy and recreate under the same names, twice in a row, timed
events     a stack that sends events: what the pipes, as they were applied, make of the stream of the real worker's writes.
           MiniStack keeps pipes and delivers to no bus: tests/events/pipe.py stands in.
day        a working day as the README tells it, with the real command in a terminal: day.py.  On request.
runbook    each command of the runbook that an operator may run, with the fault of its page: runbook.py
administrators   and those that need an administrator, on a stack that they make: runbook_administrator.py
redrive_kills   a redrive whose command and function are killed twenty times, at moments that a seed draws: redrive_kills.py.
           On request: ten minutes, most of them spent waiting for what the redrive hides.
load_test  on stacks that are too small, each for another reason, one that is killed, and the next one, whose verdict is about
           its own jobs.  On request.
nights     an outage with the sentinel stopped in its middle, a revoked key, a spent cap, and the way back: nights.py
load_test_page   the page of the load test, on a server of its own
faults     at once, on a stack each: the function's processes killed in mid-call; the ledger's writes
           refused for a while; the function frozen until Lambda's timeout kills it.  Nothing is lost.

The stack is up (scripts/stack up), NIGHTSHIFT_STACK_HOME says where.
"""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import day as day_test
import nights as nights_test
import redrive_kills as redrive_kills_test
import runbook as runbook_test
from stack import HOME, REGION, ROOT, applied, require, scripts_stack, stack_of, wait_until

# As scripts/stack sets them, the shortest that the module's arithmetic allows: a killed batch comes
# back after the visibility timeout, which is six times the function's.
FUNCTION_TIMEOUT_S = 30
VISIBILITY_S = 6 * FUNCTION_TIMEOUT_S
# Two returns of a batch and the hand-backs between.
SETTLE_TIMEOUT_S = 3 * VISIBILITY_S
# So many jobs are in mid-call when something strikes, and so often it is tried.
JOBS_STRUCK = 20
STRIKES_MAX = 5


def smoke():
    for _ in range(2):
        _, _, output = scripts_stack("smoke")
        print(output, end="")


def cli():
    if shutil.which("aws") is None:
        print("skipped: cli (there is no AWS CLI)")
        return
    # Version 1 and version 2 take the region from different variables.
    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        ["bash", "-euc", 'eval "$(scripts/stack env)" && aws --version && aws sqs list-queues --output text'],
        cwd=ROOT, env={**bare, "AWS_CONFIG_FILE": os.devnull}, capture_output=True, text=True,
    )
    require("the AWS CLI finds the stack", done.returncode == 0 and "nightshift-jobs" in done.stdout, done.stdout + done.stderr)


def plan():
    code, _, output = scripts_stack("plan", ok=False)
    require("a second plan has nothing to change", code == 0, output[-3000:])


def beside():
    second = ("--prefix", "second", "--region", "us-east-1")
    scripts_stack("apply", *second)
    print(scripts_stack("smoke", *second)[2], end="")
    require("the first stack's plan is still empty", scripts_stack("plan", ok=False)[0] == 0)
    scripts_stack("destroy", *second)
    require("the first stack outlives the second", scripts_stack("plan", ok=False)[0] == 0)


def recreate():
    for turn in (1, 2):
        _, destroyed_s, _ = scripts_stack("destroy")
        _, applied_s, _ = scripts_stack("apply")
        print(f"  turn {turn}: destroyed in {destroyed_s:.1f} s, recreated in {applied_s:.1f} s")
        require("the new stack works", "smoke passed" in scripts_stack("smoke")[2])


def deploy():
    """With a copy of the module, and so with a state of its own."""
    architecture = {"aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([ROOT / "scripts" / "tools", "module", f"{folder}/copy"], check=True)
        module = f"{folder}/copy/terraform"
        variables = pathlib.Path(folder) / "deploy.tfvars.json"

        def write(protected):
            variables.write_text(json.dumps({
                "prefix": "deployed", "region": REGION, "protect_data": protected,
                "worker": {"architecture": architecture}, "model": {"provider": "rehearsal", "id": "latency_ms=20"},
            }))

        def run(script, ok=True, answer=""):
            environment = {**os.environ, "NIGHTSHIFT_MODULE": module, "TF_IN_AUTOMATION": "1"}
            done = subprocess.run(
                [ROOT / "tests/fake_provider/run", "--backend", "ministack", "--directory", module, *script, "--", f"-var-file={variables}"],
                cwd=ROOT, env=environment, input=answer, capture_output=True, text=True,
            )
            if (done.returncode == 0) != ok:
                raise SystemExit(f"FAILED: {script}: status {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
            return done.stdout + done.stderr

        write(protected=True)
        # The zip that `scripts/stack up` built; the one deploy that builds finds it up to date.
        require("an answer other than yes changes nothing", "nothing was changed" in run(["scripts/deploy", "--no-build"], ok=False, answer="y\n"))
        output = run(["scripts/deploy"], answer="yes\n")
        require("a deploy says where", f"account 123456789012, region {REGION}, workspace default, prefix deployed" in output, output[-2000:])
        require("a deploy ends with a job that got through", "ok: a job gets through" in output, output[-2000:])
        output = run(["scripts/deploy", "--yes", "--no-build", "--no-job"])
        require("a second deploy has nothing to change", "nothing to change" in output, output[-2000:])
        output = run(["scripts/destroy", "--yes"], ok=False)
        require("protected data is not destroyed", "is protected" in output, output[-2000:])
        write(protected=False)
        run(["scripts/deploy", "--yes", "--no-build", "--no-job"])
        output = run(["scripts/destroy"], ok=False, answer="nightshift\n")
        require("another prefix than the stack's destroys nothing", "nothing was changed" in output, output[-2000:])
        run(["scripts/destroy"], answer="deployed\n")
        output = run(["scripts/destroy", "--yes"], ok=False)
        require("after a destroy there is no stack", "no stack in this state" in output, output[-2000:])


def events():
    sys.path.insert(0, str(ROOT / "tests" / "events"))
    import pipe

    with tempfile.NamedTemporaryFile("w", suffix=".json") as settings:
        json.dump({"events": True, "model": {"provider": "rehearsal", "id": "seed=1,latency_ms=20"}}, settings)
        settings.flush()
        arguments = ("--prefix", "events", "--settings", settings.name)
        scripts_stack("apply", *arguments)
        require("a second plan has nothing to change", scripts_stack("plan", *arguments[:2], ok=False)[0] == 0)
    stack = stack_of("events")
    bodies = jobs(30, "events")
    stack.send([*bodies, *bodies[:5], "no job at all", '{"task": "categorize_ticket", "input": {"texts": 1}, "reference": "bad"}'])
    settled = lambda: (stack.depth("jobs") == 0 and len(seen := stack.records()) == 32 and {r["state"] for r in seen.values()} <= {"done", "failed"}, "")
    wait_until("events: all jobs settled", settled, SETTLE_TIMEOUT_S)
    records = stack.records()

    # From the state: MiniStack forgets what a pipe does for its target.
    state = json.loads((HOME / "stacks" / REGION / "events" / "terraform.tfstate").read_text())
    pipes = [pipe.Pipe(one["attributes"]) for resource in state["resources"] if resource["type"] == "aws_pipes_pipe" for one in resource["instances"]]
    require("both pipes are there", sorted(stack.client("pipes").describe_pipe(Name=one.name)["Name"] for one in pipes) == ["events-results", "events-results-large"])
    stream = stack.outputs["ledger_stream_arn"]
    streams = stack.client("dynamodbstreams")
    changes = []
    for shard in streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]:
        at = streams.get_shard_iterator(StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        while at and (page := streams.get_records(ShardIterator=at))["Records"]:
            changes += page["Records"]
            at = page.get("NextShardIterator")
    changes = json.loads(json.dumps(changes, default=lambda time: time.timestamp()))
    messages = [message for change in changes for one in pipes for message in one.events(change)]
    faults = [fault for of_one in pipe.faults(messages) for fault in of_one]
    require("each event is as its schema says", not faults, faults[:5])
    sent = [messages[at] for at in range(0, len(messages), len(pipe.ABSENT))]
    last = {message["key"]: message for message in sorted(sent, key=lambda message: int(message["version"]))}
    require("each result and each dead letter is an event, and what is in the ledger is its last", {k: m["state"] for k, m in last.items()} == {k: r["state"] for k, r in records.items()}, (len(last), len(records)))
    require("duplicates, claims and releases are none", len(sent) == len(records) < len(changes), (len(sent), len(records), len(changes)))
    require("an event has the output and the reference", all(m["output"]["S"] == records[k]["output"] and m["reference"]["S"] == records[k]["reference"] for k, m in last.items() if m["state"] == "done"))
    reasons = {message.get("reason") for message in last.values() if message["state"] == "failed"}
    require("a dead letter's event says why", reasons == {"invalid_message", "invalid_input"}, reasons)
    print(f"  {len(changes)} changes, {len(sent)} events, by a stand-in of the pipe: MiniStack delivers to no bus")
    scripts_stack("destroy", "--prefix", "events")


# Faults ------------------------------------------------------------------------------------------


def faulty(prefix, latency_ms, batch_size=10, **more):
    """A stack whose model takes its time inside the worker, and whose waits are short."""
    settings = {
        "model": {"provider": "rehearsal", "id": f"latency_ms={latency_ms}"},
        "queues": {"maximum_concurrency": 2, "batch_size": batch_size},
        "limits": {"hand_back_base_s": 2, "hand_back_s_max": 10, "capacity_wait_s_max": 300},
        "worker": {},
    }
    applied(prefix, {name: {**value, **more.get(name, {})} for name, value in settings.items()})
    return stack_of(prefix)


def jobs(count, prefix, first=0):
    return [
        json.dumps({"task": "categorize_ticket", "input": {"text": f"{prefix}: ticket number {number}"}, "reference": f"{number}"})
        for number in range(first, first + count)
    ]


def in_mid_call(stack):
    """Waits until jobs are claimed and their processes run; returns the processes."""

    def seen():
        claimed = [record for record in stack.records().values() if record["state"] == "claimed"]
        processes = stack.function_processes()
        return bool(claimed and processes), (len(claimed), processes)

    return wait_until(f"{stack.prefix}: jobs in mid-call", seen, 60, every_s=0.1)[1]


def nothing_lost(stack, count):
    def settled():
        states = sorted(record["state"] for record in stack.records().values())
        seen = {state: states.count(state) for state in set(states)}
        return seen.get("done") == count and len(states) == count and stack.depth("jobs") == 0, seen

    wait_until(f"{stack.prefix}: {count} results", settled, SETTLE_TIMEOUT_S)
    records = stack.records().values()
    require(f"{stack.prefix}: nothing is lost: {count} results", len(records) == count)
    require(f"{stack.prefix}: no dead letter, nothing crashed", stack.depth("dead_letters") == 0 and stack.depth("crashed") == 0)
    return records


def struck(stack, strike):
    """Strikes while jobs are in mid-call: again, with new jobs, where they were settled before it hit, as on a slow machine."""
    began = time.time()
    for tried in range(STRIKES_MAX):
        stack.send(jobs(JOBS_STRUCK, stack.prefix, tried * JOBS_STRUCK))
        count = (tried + 1) * JOBS_STRUCK
        said = strike(in_mid_call(stack), count)
        records = nothing_lost(stack, count)
        again = sum(1 for record in records if int(record["claims"]) > 1)
        if again:
            break
    require(f"{stack.prefix}: it hit jobs in mid-call", again > 0, again)
    calls = sum(int(record["calls"]) for record in records)
    return f"{said}: {again} jobs worked again, {calls} calls for {count} jobs, settled after {time.time() - began:.0f} s", again, calls, count


def killed(stack):
    def strike(processes, _count):
        for process in processes:
            os.kill(process, signal.SIGKILL)
        return f"killed {len(processes)} processes in mid-call"

    said, again, calls, count = struck(stack, strike)
    require(f"{stack.prefix}: at most one repeated call per job that was killed", calls <= count + again, (calls, again))
    return said


def refused(stack, refused_s=20):
    role = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs["worker_function"])["Role"].rsplit("/", 1)[1]
    iam = stack.client("iam")
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "dynamodb:UpdateItem", "Resource": "*"}]}
    done = lambda: sum(record["state"] == "done" for record in stack.records().values())

    def strike(_processes, count):
        iam.put_role_policy(RoleName=role, PolicyName="refuse-the-ledger", PolicyDocument=json.dumps(deny))
        # A write that was on its way may still have been allowed.
        before = -1
        while before != (before := done()):
            time.sleep(10)
        time.sleep(refused_s)
        after = done()
        iam.delete_role_policy(RoleName=role, PolicyName="refuse-the-ledger")
        require(f"{stack.prefix}: nothing is stored while the ledger refuses", before == after, (before, after))
        return f"refused the ledger's writes for {refused_s} s ({after} of {count} stored until then)"

    return struck(stack, strike)[0]


def frozen(stack):
    def strike(processes, _count):
        for process in processes:
            os.kill(process, signal.SIGSTOP)

        def are_gone():
            left = set(processes) & set(stack.function_processes())
            # It hit when all was settled: nobody invokes them, and so nobody kills them.
            if stack.depth("jobs") == 0:
                for process in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
            return not left, left

        wait_until(f"{stack.prefix}: Lambda kills what does not answer", are_gone, FUNCTION_TIMEOUT_S + 30)
        return f"froze {len(processes)} processes until the function's timeout"

    return struck(stack, strike)[0]


def faults():
    scenarios = {"killed": killed, "refused": refused, "frozen": frozen}
    stacks = {prefix: faulty(prefix, 6000) for prefix in scenarios}
    for says in at_once({prefix: lambda prefix=prefix: scenarios[prefix](stacks[prefix]) for prefix in scenarios}):
        print(f"  {says}")
    for prefix in stacks:
        scripts_stack("destroy", "--prefix", prefix)


def load_test():
    # Under a spend cap a message was once left hidden for its visibility timeout, which the clean-up waits for: half an hour by
    # default.
    short = {"worker": {"timeout_s": 60}, "queues": {"visibility_timeout_s": 360}}
    hurried = {"call_timeout_s": 10}
    stack = faulty("too-small", 3000, batch_size=1, **short, limits=hurried)

    def command(minutes, *more, p95_s="5"):
        flags = ["--yes", "--expected-per-hour", "3600", "--warm-up-s", "0", "--minutes", minutes, "--p95-s", p95_s, *more]
        return [runbook_test.built() / "nightshift", "--prefix", stack.prefix, "--output", "json", "load-test", *flags]

    killed = subprocess.Popen(command("5"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    in_mid_call(stack)
    killed.kill()
    killed.wait()
    # In place of two minutes without a sign of life.
    stack.client("dynamodb").update_item(
        TableName=stack.outputs["ledger_table"], Key={"id": {"S": "load-test"}},
        UpdateExpression="SET alive_ms = :long_ago", ExpressionAttributeValues={":long_ago": {"N": "0"}},
    )
    done = subprocess.run(command("0.2"), capture_output=True, text=True)
    require("load_test: the verdict is no", done.returncode == 3, done.stderr[-2000:])
    report = json.loads(done.stdout)
    headroom = report["verdict"]["headroom"]
    require("load_test: two jobs at a time are too few", headroom["steps"][0]["gave"]["limited"] == "concurrency", headroom)
    # 7,200 an hour for twelve seconds.
    require("load_test: no job of the killed test is in it", report["measured"]["accepted"] == 24, report["measured"])
    nothing_is_left(stack)
    # 120 calls a minute: what they want is what the stack has not.
    money = {"model": {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10}, "limits": {"spend_cap_usd_per_day": 0.25}}
    for says, settings, p95_s, limited in [
        ("a provider's limit", {"model": {"requests_per_minute": 30}}, "5", "provider_requests"),
        ("a spend cap", money, "5", "spend_cap"),
        ("an impossible threshold", {}, "0.001", "job"),
    ]:
        faulty(stack.prefix, 100, **short, model=settings.get("model", {}), limits={**hurried, **settings.get("limits", {})})
        done = subprocess.run(command("0.5", "--drain-s", "20", p95_s=p95_s), capture_output=True, text=True)
        require(f"load_test: under {says} the verdict is no", done.returncode == 3, done.stderr[-2000:])
        gave = json.loads(done.stdout)["verdict"]["headroom"]["steps"][0]["gave"]
        require(f"load_test: under {says} it says which gave", gave["limited"] == limited, gave)
        nothing_is_left(stack)
    status, _, said = applied(stack.prefix, {"queues": {"visibility_timeout_s": 60}, "worker": {"timeout_s": 30}}, ok=False)
    require("load_test: a visibility timeout that is too short makes no stack", status != 0 and "must be at least 6 ×" in re.sub(r"[\s│]+", " ", said), said[-2000:])
    scripts_stack("destroy", "--prefix", stack.prefix)


def nothing_is_left(stack):
    left = [stack.depth(queue) for queue in ("jobs", "dead_letters", "crashed")], stack.records()
    require("load_test: nothing of it is left", left == ([0, 0, 0], {}), left)


def day():
    day_test.run()


def redrive_kills():
    redrive_kills_test.run()


def runbook():
    runbook_test.run()


def administrators():
    runbook_test.administrators()


def nights():
    at_once(nights_test.NIGHTS)


def load_test_page():
    # MiniStack judges an alarm by the values of all stacks: beside one with faults, the verdict would be no.
    home = f"{HOME}-alone"
    environment = {**os.environ, "NIGHTSHIFT_STACK_HOME": home}

    def run(what, *command):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"FAILED: {what}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    up, down = [(f"scripts/stack {word}", ROOT / "scripts" / "stack", word) for word in ("up", "down")]
    try:
        run(*up, "--no-build")
        alone = "source \"$NIGHTSHIFT_STACK_HOME/env\" && exec \"$@\""
        said = run(
            "the load test's page, on a server of its own",
            "bash", "-c", alone, "bash", sys.executable, "-B", ROOT / "tests" / "stack_test" / "runbook.py", "--alone",
        )
    except BaseException as error:
        # Why it failed is worth more than what is then left.
        subprocess.run(down[1:], cwd=ROOT, env=environment, capture_output=True)
        raise error
    run(*down)
    print(said, end="")


SCENARIOS = {
    "smoke": smoke, "cli": cli, "plan": plan, "deploy": deploy, "beside": beside, "recreate": recreate, "events": events,
    "load_test_page": load_test_page, "day": day, "runbook": runbook, "administrators": administrators,
    "nights": nights, "redrive_kills": redrive_kills, "load_test": load_test, "faults": faults,
}

# On stacks of their own, and waiting for most of the time: at once.
WAITING = ("load_test_page", "day", "runbook", "administrators", "nights", "redrive_kills", "load_test", "faults")

ON_REQUEST = ("redrive_kills", "day", "load_test")


def at_once(called):
    """What each gave; or all that failed, each with its reason."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = {name: pool.submit(call) for name, call in called.items()}
        failures = {name: future.exception() for name, future in running.items() if future.exception()}
    if failures:
        raise SystemExit("\n".join(f"{name}: {error if isinstance(error, SystemExit) else repr(error)}" for name, error in failures.items()))
    return [future.result() for future in running.values()]


def main():
    names = sys.argv[1:] or [name for name in SCENARIOS if name not in ON_REQUEST]
    if set(names) - set(SCENARIOS):
        raise SystemExit(__doc__)
    for name in names:
        if name not in WAITING:
            print(f"{name}:", flush=True)
            SCENARIOS[name]()
    beside = [name for name in names if name in WAITING]
    if beside:
        print(f"{', beside '.join(beside)}:", flush=True)
        at_once({name: SCENARIOS[name] for name in beside})
    print(f"stack_test passed: {', '.join(names)}")


if __name__ == "__main__":
    main()
