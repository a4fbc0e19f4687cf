"""What must hold on a whole stack, whatever is killed, refused or frozen.

    scenarios.py [NAME...]      default: all of them, in this order

smoke      the demo's jobs, twice: the second time the good ones are duplicates
cli        the AWS CLI, with what `scripts/stack env` prints and nothing else
plan       a second plan has nothing to change
deploy     scripts/deploy and scripts/destroy, as a user runs them
beside     a second stack with another prefix in another region
recreate   destroy and recreate under the same names, twice in a row, timed
faults     at once, on a stack each: the function's processes killed in mid-call; the ledger's writes
           refused for a while; the function frozen until Lambda's timeout kills it.  Nothing is lost.

The stack is up (scripts/stack up), NIGHTSHIFT_STACK_HOME says where.
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from stack import ROOT, Stack, require, wait_until

HOME = pathlib.Path(os.environ.get("NIGHTSHIFT_STACK_HOME", ROOT / ".tools" / "stack"))
REGION = "eu-central-1"
# As scripts/stack sets them, the shortest that the module's arithmetic allows: a killed batch comes
# back after the visibility timeout, which is six times the function's.
FUNCTION_TIMEOUT_S = 30
VISIBILITY_S = 6 * FUNCTION_TIMEOUT_S
# Two returns of a batch and the hand-backs between.
SETTLE_TIMEOUT_S = 3 * VISIBILITY_S


def scripts_stack(*arguments, ok=True):
    began = time.monotonic()
    done = subprocess.run([ROOT / "scripts" / "stack", *arguments], cwd=ROOT, capture_output=True, text=True)
    if ok and done.returncode != 0:
        raise SystemExit(f"FAILED: scripts/stack {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.returncode, time.monotonic() - began, done.stdout


def stack_of(prefix, region=REGION):
    return Stack(HOME / "stacks" / region / prefix / "outputs.json")


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


# Faults ------------------------------------------------------------------------------------------


def faulty(prefix, latency_ms):
    """A stack whose model takes its time inside the worker, and whose waits are short."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as settings:
        json.dump(
            {
                "model": {"provider": "rehearsal", "id": f"latency_ms={latency_ms}"},
                "queues": {"maximum_concurrency": 2},
                "limits": {"hand_back_base_s": 2, "hand_back_s_max": 10, "capacity_wait_s_max": 300},
            },
            settings,
        )
        settings.flush()
        scripts_stack("apply", "--prefix", prefix, "--settings", settings.name)
    return stack_of(prefix)


def jobs(count, prefix):
    return [
        json.dumps({"task": "categorize_ticket", "input": {"text": f"{prefix}: ticket number {number}"}, "reference": f"{number}"})
        for number in range(count)
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


def killed(stack, count=20):
    began = stack.send(jobs(count, stack.prefix))
    processes = in_mid_call(stack)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    records = nothing_lost(stack, count)
    again = sum(1 for record in records if int(record["claims"]) > 1)
    calls = sum(int(record["calls"]) for record in records)
    require(f"{stack.prefix}: the kill hit jobs in mid-call", again > 0, again)
    require(f"{stack.prefix}: at most one repeated call per job that was killed", calls <= count + again, (calls, again))
    return f"killed {len(processes)} processes in mid-call: {again} jobs worked again, {calls} calls for {count} jobs, settled after {time.time() - began:.0f} s"


def refused(stack, count=20, refused_s=20):
    role = stack.client("lambda").get_function_configuration(FunctionName=stack.outputs["worker_function"])["Role"].rsplit("/", 1)[1]
    iam = stack.client("iam")
    deny = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "dynamodb:UpdateItem", "Resource": "*"}]}
    began = stack.send(jobs(count, stack.prefix))
    in_mid_call(stack)
    iam.put_role_policy(RoleName=role, PolicyName="refuse-the-ledger", PolicyDocument=json.dumps(deny))
    time.sleep(1)  # A write that was on its way may still have been allowed.
    done = lambda: sum(record["state"] == "done" for record in stack.records().values())
    before = done()
    time.sleep(refused_s)
    after = done()
    iam.delete_role_policy(RoleName=role, PolicyName="refuse-the-ledger")
    require(f"{stack.prefix}: nothing is stored while the ledger refuses, and work was left", before == after < count, (before, after))
    nothing_lost(stack, count)
    return f"refused the ledger's writes for {refused_s} s ({after} of {count} stored until then): settled after {time.time() - began:.0f} s"


def frozen(stack, count=20):
    began = stack.send(jobs(count, stack.prefix))
    processes = in_mid_call(stack)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    wait_until(
        f"{stack.prefix}: Lambda kills what does not answer",
        lambda: (not (left := set(processes) & set(stack.function_processes())), left), FUNCTION_TIMEOUT_S + 30,
    )
    records = nothing_lost(stack, count)
    again = sum(1 for record in records if int(record["claims"]) > 1)
    require(f"{stack.prefix}: the timeout hit jobs in mid-call", again > 0, again)
    return f"froze {len(processes)} processes until the function's timeout: {again} jobs worked again, settled after {time.time() - began:.0f} s"


def faults():
    scenarios = {"killed": (killed, 3000), "refused": (refused, 3000), "frozen": (frozen, 3000)}
    stacks = {prefix: faulty(prefix, latency) for prefix, (_, latency) in scenarios.items()}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = {prefix: pool.submit(scenarios[prefix][0], stack) for prefix, stack in stacks.items()}
        failures = []
        for prefix, future in running.items():
            try:
                print(f"  {future.result()}")
            except (Exception, SystemExit) as error:
                failures.append(f"{prefix}: {error!r}")
    if failures:
        raise SystemExit("\n".join(failures))
    for prefix in stacks:
        scripts_stack("destroy", "--prefix", prefix)


SCENARIOS = {"smoke": smoke, "cli": cli, "plan": plan, "deploy": deploy, "beside": beside, "recreate": recreate, "faults": faults}


def main():
    names = sys.argv[1:] or list(SCENARIOS)
    if set(names) - set(SCENARIOS):
        raise SystemExit(__doc__)
    for name in names:
        print(f"{name}:", flush=True)
        SCENARIOS[name]()
    print(f"stack_test passed: {', '.join(names)}")


if __name__ == "__main__":
    main()
