"""What a test sees of a running stack: its queues, its ledger, its functions and their processes."""

import json
import os
import pathlib
import subprocess
import tempfile
import time

import boto3
from botocore.config import Config

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = pathlib.Path(os.environ.get("NIGHTSHIFT_STACK_HOME", ROOT / ".tools" / "stack"))
REGION = "eu-central-1"
# No test may fail because the machine does other things: so many times as long, where the time only ends a vain wait.
BUSY = 5
DAY_S = 86_400
# 50 jobs of all tasks, of which 45 are different, then bad ones; what each is, the tests of the tasks pin.
DEMO_JOBS = ROOT / "crates" / "demo" / "jobs.jsonl"
GOOD_LINES = 50
GOOD_DIFFERENT = 45
BAD_REASONS = {"invalid_input": 9, "invalid_message": 8, "unknown_task": 1}


class Stack:
    def __init__(self, outputs_path):
        outputs = json.loads(pathlib.Path(outputs_path).read_text())
        self.outputs = {name: item["value"] for name, item in outputs.items()}
        self.region = self.outputs["region"]
        self.prefix = self.outputs["prefix"]

    def client(self, service):
        # Several tests run while the server is stopped or refuses: it is asked again, not for long.
        return boto3.client(service, region_name=self.region, config=Config(retries={"mode": "standard", "total_max_attempts": 5}, read_timeout=BUSY * 30))

    # Jobs

    def send(self, bodies):
        """Sends the bodies as they are, ten in a request; returns the time before the first."""
        sqs = self.client("sqs")
        began = time.time()
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(i), "MessageBody": body} for i, body in enumerate(bodies[start : start + 10])]
            answer = sqs.send_message_batch(QueueUrl=self.outputs["jobs_queue_url"], Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"not sent: {answer['Failed']}")
        return began

    def records(self):
        """The job records of the ledger by their key."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=self.outputs["ledger_table"], ConsistentRead=True)
        found = {}
        for page in pages:
            for item in page["Items"]:
                if len(item["id"]["S"]) == 64:
                    found[item["id"]["S"]] = {name: next(iter(value.values())) for name, value in item.items()}
        return found

    def control_entries(self):
        """What the control record says, by cause."""
        item = self.client("dynamodb").get_item(TableName=self.outputs["ledger_table"], Key={"id": {"S": "control"}}, ConsistentRead=True).get("Item", {})
        return json.loads(item.get("entries", {"S": "{}"})["S"])

    def set_record(self, key, **attributes):
        values = {f":{name}": {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in attributes.items()}
        self.client("dynamodb").update_item(
            TableName=self.outputs["ledger_table"], Key={"id": {"S": key}},
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in attributes), ExpressionAttributeValues=values,
        )

    def has_spent(self, micro_usd, *days):
        """On these days: 0 is today, in UTC, and 1 tomorrow."""
        for day in days:
            date = time.strftime("%Y-%m-%d", time.gmtime(time.time() + day * DAY_S))
            self.set_record(f"spend#{date}", committed_micro_usd=micro_usd)

    def depth(self, queue):
        """Visible and not visible: looking at a message hides it."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.client("sqs").get_queue_attributes(QueueUrl=self.outputs[f"{queue}_queue_url"], AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    def take_dead_letters(self, raw=False):
        """Receives and deletes all dead letters that are visible; raw: as SQS has them."""
        sqs = self.client("sqs")
        url = self.outputs["dead_letters_queue_url"]
        taken = []
        while True:
            messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=0, MessageAttributeNames=["All"]).get("Messages", [])
            if not messages:
                return taken
            for message in messages:
                taken.append(message if raw else {
                    "body": message["Body"],
                    **{name: value["StringValue"] for name, value in message.get("MessageAttributes", {}).items()},
                })
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def metric(self, name, since):
        """The sum of one of our metrics since a time, over all tasks."""
        points = self.client("cloudwatch").get_metric_statistics(
            Namespace="Nightshift", MetricName=name, Dimensions=[{"Name": "Stack", "Value": self.prefix}],
            StartTime=since - 60, EndTime=time.time() + 60, Period=60, Statistics=["Sum"],
        )["Datapoints"]
        return sum(point["Sum"] for point in points)

    def switch(self):
        """The state of the worker's event source."""
        mappings = self.client("lambda").list_event_source_mappings(FunctionName=f"{self.outputs['worker_function']}:live")
        return mappings["EventSourceMappings"][0]["State"]

    # Processes

    def function_processes(self, function=None):
        """The processes in which a function runs, the worker by default, by what their environment says."""
        found = []
        mine = os.environ["AWS_ENDPOINT_URL"]
        for directory in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                environment = dict(part.split("=", 1) for part in (directory / "environ").read_text().split("\0") if "=" in part)
            except (OSError, UnicodeDecodeError):
                continue
            if (
                environment.get("AWS_LAMBDA_FUNCTION_NAME") == (function or self.outputs["worker_function"])
                and environment.get("AWS_REGION") == self.region
                and environment.get("AWS_ENDPOINT_URL") == mine
                and environment.get("AWS_LAMBDA_RUNTIME_API")
            ):
                found.append(int(directory.name))
        return sorted(found)


def scripts_stack(*arguments, ok=True):
    began = time.monotonic()
    done = subprocess.run([ROOT / "scripts" / "stack", *arguments], cwd=ROOT, capture_output=True, text=True)
    if ok and done.returncode != 0:
        raise SystemExit(f"FAILED: scripts/stack {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.returncode, time.monotonic() - began, done.stdout + (done.stderr if done.returncode else "")


def applied(prefix, settings, ok=True):
    """An apply with these variables, merged over the stack's own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(settings, file)
        file.flush()
        return scripts_stack("apply", "--prefix", prefix, "--settings", file.name, ok=ok)


def stack_of(prefix, region=REGION):
    return Stack(HOME / "stacks" / region / prefix / "outputs.json")


def wait_until(what, check, timeout_s, every_s=0.5):
    """Waits for a true answer and returns it; says what was last seen when it does not come.

    The time is what it takes at most on a machine with nothing else to do.
    """
    timeout_s *= BUSY
    deadline = time.monotonic() + timeout_s
    while True:
        done, seen = check()
        if done:
            return seen
        if time.monotonic() > deadline:
            raise SystemExit(f"FAILED: not within {timeout_s} s: {what}; last seen: {seen}")
        time.sleep(every_s)


def require(what, condition, seen=""):
    if not condition:
        raise SystemExit(f"FAILED: {what}{f': {seen}' if seen != '' else ''}")
    print(f"  ok  {what}")
