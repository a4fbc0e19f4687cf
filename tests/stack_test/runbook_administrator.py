"""The pages that need an administrator, on a stack that they themselves make and take away.

Their commands are run in a folder like a clone: the module with a state and variables of its own, everything else linked.
"""

import json
import os
import platform
import subprocess
import time

import boto3

from model_gate import ModelGate
from operator_shell import OperatorShell
from runbook_faults import Plan
from stack import REGION, ROOT, Stack, require, wait_until

PREFIX = "administrator"
PARAMETER = f"/{PREFIX}/model-key"
GAPS = [
    "scripts/build: what scripts/stack up built for this machine stands in for arm64's zips",
    "the administrator is MiniStack's root, and Terraform's provider the fake one",
]
# scripts/build is tried by scripts/stack and by the scenario `deploy`; here it would build for another machine.
BUILD = """#!/usr/bin/env bash
case "$*" in '' | '--arch arm64' | '--arch x86_64') ;; *) exit 2 ;; esac
"""


def clone(folder):
    """What commands find beside them, as in a clone."""
    subprocess.run([ROOT / "scripts" / "tools", "module", folder], check=True)
    for name in (".tools", "rust-toolchain.toml", "tests"):
        (folder / name).symlink_to(ROOT / name)
    scripts = folder / "scripts"
    scripts.mkdir()
    for script in (ROOT / "scripts").iterdir():
        if script.name != "build":
            (scripts / script.name).symlink_to(script)
    (scripts / "build").write_text(BUILD)
    (scripts / "build").chmod(0o755)


class Administrator:
    def __init__(self, built, is_gone=False):
        self.built = built
        self.gate = ModelGate(built / "model-stub")
        self.since = int(time.time())
        self.sent = 0
        # Destroyed, or not yet made.
        self.is_gone = is_gone
        self.moves = None
        names = ["AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
        environment = {name: os.environ[name] for name in names} | {
            "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "PREFIX": PREFIX, "HOME": os.environ["HOME"], "TF_IN_AUTOMATION": "1",
        }
        self.shell = OperatorShell(environment, built / "nightshift")
        clone(self.shell.work)
        self.module = self.shell.work / "terraform"
        self.shell.within = [ROOT / "tests/fake_provider/run", "--backend", "ministack", "--directory", self.module]
        self.settings = {}
        self.set(model={"base_url": self.gate.url, "key_parameter": PARAMETER}, protect_data=True, events=True)

    def set(self, **settings):
        """What somebody writes into terraform.tfvars."""
        architecture = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
        self.settings = {
            "prefix": PREFIX, "region": REGION, "worker": {"architecture": architecture, "timeout_s": 30},
            # Short waits, as scripts/stack has them.
            "queues": {"visibility_timeout_s": 180, "maximum_concurrency": 2},
            "limits": {"call_timeout_s": 10, "backoff_ms_max": 3000, "deadline_margin_s": 4, "lease_margin_s": 2, "hand_back_base_s": 2, "hand_back_s_max": 10, "capacity_wait_s_max": 300},
            **self.settings, **settings,
        }
        (self.module / "terraform.tfvars.json").write_text(json.dumps({name: value for name, value in self.settings.items() if value is not None}))

    def terraform(self, *arguments):
        done = subprocess.run(
            [*self.shell.within, "terraform", f"-chdir={self.module}", *arguments], env={**os.environ, "TF_IN_AUTOMATION": "1"}, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"FAILED: terraform {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def apply(self, *arguments):
        self.terraform("apply", "-auto-approve", "-input=false", *arguments)

    @property
    def stack(self):
        outputs = self.shell.folder / "outputs.json"
        outputs.write_text(self.terraform("output", "-json"))
        return Stack(outputs)

    def put_secret(self):
        stack = self.stack
        stack.client("secretsmanager").put_secret_value(SecretId=stack.outputs["model_key_secret"], SecretString="a-key-that-only-the-stub-takes")

    def put_parameter(self, key, region=REGION):
        boto3.client("ssm", region_name=region).put_parameter(Name=PARAMETER, Type="SecureString", Value=key, Overwrite=True)

    def look(self):
        """A run of the sentinel now, in place of the next minute's."""
        if self.is_gone:
            return
        stack = self.stack
        stack.client("lambda").invoke(FunctionName=stack.outputs["sentinel_function"], Payload=b"{}")

    def send(self, count, wait=True):
        self.sent += count
        stack = self.stack
        stack.send([
            json.dumps({"task": "categorize_ticket", "input": {"text": f"Ticket {number}: where is my order?"}})
            for number in range(self.sent - count, self.sent)
        ])
        if wait:
            wait_until("the jobs are done", lambda: ((depth := stack.depth("jobs")) == 0, depth), 300)

    def begins(self):
        self.since = int(time.time())

    def client(self, service):
        return self.stack.client(service)

    def close(self):
        self.gate.close()
        self.shell.close()


# What must be there first, and what is true then ---------------------------------------------------


def parameter_is_there(world):
    world.put_parameter("the-key-of-yesterday")


def parameter_is_there_too(world):
    world.put_parameter("the-key-of-yesterday", "us-east-1")


def little_is_expected(world):
    """Few enough jobs that the verdict says nothing of how busy this machine is."""
    world.shell.environment |= {"EXPECTED_PER_HOUR": "600", "MINUTES": "0.5"}


def first_stack_is_as_it_was(world):
    world.terraform("plan", "-input=false", "-detailed-exitcode")
    world.send(1)


def nothing_is_left(world):
    world.is_gone = True


def works_again(world):
    world.is_gone = False
    world.put_secret()
    world.send(1)


def job_succeeds(world):
    world.send(1)


def key_is_revoked(world):
    world.gate.revoked_keys.add("the-key-of-yesterday")
    world.send(1, wait=False)
    wait_until("calls are refused", lambda: ((refused := world.stack.metric("AccountFailures", world.since + 60)) > 0, refused), 120)


def pipe_stopped(world):
    """As AWS leaves it: stopped after it failed for long, with a batch given up."""
    world.client("pipes").stop_pipe(Name=f"{PREFIX}-results")
    queue = world.client("sqs").get_queue_url(QueueName=f"{PREFIX}-events-failed")["QueueUrl"]
    world.client("sqs").send_message(QueueUrl=queue, MessageBody=json.dumps({"context": {"condition": "RetryAttemptsExhausted"}}))
    world.client("cloudwatch").put_metric_data(Namespace="AWS/EventBridge/Pipes", MetricData=[{
        "MetricName": "ExecutionFailed", "Value": 3, "Dimensions": [{"Name": "PipeName", "Value": f"{PREFIX}-results"}],
    }])


def key_was_switched_off(world):
    world.set(model={"base_url": world.gate.url}, events=False, customer_key=True)
    world.apply()
    world.put_secret()
    world.send(1)
    (world.key,) = {queue_key(world, queue) for queue in ("jobs", "dead_letters", "crashed")}
    require("the queues are under the stack's key", world.key)
    world.set(customer_key=False, keep_customer_key=True)
    world.apply()


def queue_key(world, queue):
    attributes = world.client("sqs").get_queue_attributes(QueueUrl=world.stack.outputs[f"{queue}_queue_url"], AttributeNames=["KmsMasterKeyId"])
    return attributes.get("Attributes", {}).get("KmsMasterKeyId")


def key_goes(world):
    world.set(keep_customer_key=False)
    world.apply()
    require("the key's deletion is scheduled", key_state(world) == "PendingDeletion")


def key_is_kept(world):
    world.set(keep_customer_key=True)
    world.apply()
    require("it is the same key", key_state(world) == "Enabled")
    world.send(1)


def key_state(world):
    return world.client("kms").describe_key(KeyId=world.key)["KeyMetadata"]["KeyState"]


def ledger_is_to_be_another(world):
    world.set(ledger={"table_name": f"{PREFIX}-ledger-2"}, keep_customer_key=None)


def other_ledger_is_used(world):
    before = len(world.stack.records())
    world.send(1)
    require("a new result stands in the restored table, beside the earlier ones", len(world.stack.records()) == before + 1 > 1)


PLANS = [
    Plan("procedures/deploy", [""], parameter_is_there, job_succeeds, verified="procedures/deploy"),
    Plan(
        "procedures/second-region", [""], parameter_is_there_too, first_stack_is_as_it_was, verified="procedures/second-region",
        gaps=["the key of the second region is there before its stack, so that its check needs no second deploy"],
    ),
    Plan(
        "procedures/rotate-the-key", [""], key_is_revoked, only=["read -rs key", "aws ssm put-parameter"], verified="procedures/rotate-the-key",
        says="the key, a parameter, is revoked",
    ),
    Plan(
        "events-failing", ["Diagnosis", "Mitigation"], pipe_stopped, verified="events-failing", says="a pipe was stopped, and gave up",
        gaps=["MiniStack's pipes deliver nothing: what AWS leaves of a pipe that fails was put by the test"],
    ),
    Plan("procedures/customer-key", ["Switch it off"], key_was_switched_off),
    Plan(
        "procedures/customer-key", ["Bring it back"], key_goes, key_is_kept, verified="procedures/customer-key",
        gaps=["MiniStack encrypts nothing: what is under a key that goes can still be read there"],
    ),
    Plan("procedures/destroy-and-recreate", ["Before", "Destroy"], job_succeeds, nothing_is_left, verified="procedures/destroy-and-recreate"),
    Plan("procedures/destroy-and-recreate", ["Recreate"], after=works_again),
    Plan(
        "procedures/restore-the-ledger", [("procedures/pause-and-resume", "Pause"), "", ("procedures/pause-and-resume", "Resume")],
        ledger_is_to_be_another, other_ledger_is_used, verified="procedures/restore-the-ledger",
        gaps=["MiniStack restores a table as it is now, whatever the time"],
    ),
]

# Beside other stacks, MiniStack raises an alarm of the load test's, and the verdict is no.
ALONE = [
    Plan("procedures/load-test", ["Make the stack", "Test it", "Drill an alarm"], little_is_expected),
    # Its verification says no while the stack stands, though the verdict was yes.
    Plan("procedures/load-test", ["Take it away"], verified="procedures/load-test"),
]
