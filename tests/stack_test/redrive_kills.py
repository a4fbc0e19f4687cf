"""A redrive that is killed twenty times, the command and its function, at moments that a seed draws.

    redrive_kills.py [SEED]

Afterwards each message is settled as promised: in no case in neither queue and without an outcome, the sender's attributes, body and
group as they were, and nothing paid for twice.
"""

import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

from model_gate import ModelGate
from runbook import BATCHES, built
from stack import BUSY, REGION, ROOT, applied, require, scripts_stack, stack_of, wait_until

PREFIX = "redriven"
KILLS, JOBS, SENT_A_SECOND = 20, 200, 3
# Each tenth job is refused again, so that its message can be looked at when all is over.
AGAIN = "refused again"
# From the start of the command to the kill.
KILL_AFTER_S = (0.1, 4.0)


def body(number):
    text = f"Ticket {number}{f', {AGAIN}' if number % 10 == 0 else ''}"
    return json.dumps({"task": "categorize_ticket", "input": {"text": text}, "reference": str(number)})


class Redriven:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.gate = ModelGate(built() / "model-stub")
        self.gate.fault = "refusal"
        applied(PREFIX, {"model": {"base_url": self.gate.url}, "queues": {"maximum_concurrency": 2}})
        self.stack = stack_of(PREFIX)
        role = self.stack.client("lambda").get_function_configuration(FunctionName=f"{PREFIX}-redrive")["Role"].rsplit("/", 1)[1]
        allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": BATCHES, "Resource": "*"}]}
        # MiniStack has names of its own for the actions of batches.
        self.role = {"RoleName": role, "PolicyName": "gaps"}
        self.stack.client("iam").put_role_policy(**self.role, PolicyDocument=json.dumps(allow))

    def close(self):
        self.gate.close()
        self.stack.client("iam").delete_role_policy(**self.role)
        scripts_stack("destroy", "--prefix", PREFIX)

    def send(self):
        sqs = self.stack.client("sqs")
        for start in range(0, JOBS, 10):
            entries = [
                {
                    "Id": str(number), "MessageBody": body(number), "MessageGroupId": f"customer-{number % 7}",
                    "MessageAttributes": {"Sender": {"DataType": "String", "StringValue": f"shop {number} é"}, "Turn": {"DataType": "Number", "StringValue": str(number)}},
                }
                for number in range(start, start + 10)
            ]
            answer = sqs.send_message_batch(QueueUrl=self.stack.outputs["jobs_queue_url"], Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"not sent: {answer['Failed']}")

    def states(self):
        return collections.Counter(record["state"] for record in self.stack.records().values())

    def letters(self):
        """The dead letters by their key, taken: what the sender wrote, and how many of each there are."""
        sqs, url = self.stack.client("sqs"), self.stack.outputs["dead_letters_queue_url"]
        found = collections.defaultdict(list)
        while got := sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=BUSY * 120, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages"):
            for message in got:
                attributes = {name: (of["DataType"], of["StringValue"]) for name, of in message["MessageAttributes"].items()}
                senders = {name: attributes.get(name) for name in ("Sender", "Turn")}
                key = attributes["InputHash"][1]
                found[key].append((message["Body"], senders, message["Attributes"].get("MessageGroupId"), message["ReceiptHandle"]))
        for message in (message for of_one in found.values() for message in of_one):
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message[3], VisibilityTimeout=0)
        return {key: [message[:3] for message in of_one] for key, of_one in found.items()}

    def hidden(self):
        name = "ApproximateNumberOfMessagesNotVisible"
        url = self.stack.outputs["dead_letters_queue_url"]
        return int(self.stack.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    def nightshift(self, *arguments):
        return subprocess.Popen(
            [built() / "nightshift", "--prefix", PREFIX, "--region", REGION, "--output", "json", "redrive", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "AWS_CONFIG_FILE": os.devnull},
        )

    def listed(self):
        said, _ = self.nightshift("list", "--all").communicate()
        return [json.loads(line) for line in said.splitlines()]

    def kill(self, command):
        """The command, the function or both, as the seed has it; which of them were hit."""
        time.sleep(self.random.uniform(*KILL_AFTER_S))
        which = self.random.choice(["command", "function", "both"])
        hit = []
        if which != "command":
            for process in self.stack.function_processes(f"{PREFIX}-redrive"):
                os.kill(process, signal.SIGKILL)
                hit.append("function")
        if which != "function" and command.poll() is None:
            hit.append("command")
            command.kill()
        return hit

    def record(self, id_):
        key = {"id": {"S": f"redrive#{id_}"}}
        item = self.stack.client("dynamodb").get_item(TableName=self.stack.outputs["ledger_table"], Key=key, ConsistentRead=True)["Item"]
        return json.loads(item["document"]["S"])

    def lock_ends(self, id_):
        """In place of the two minutes after which the lock of a step that died is anybody's."""
        document = self.record(id_)
        if document.get("lock"):
            document["lock"]["until_ms"] = 0
            self.stack.client("dynamodb").update_item(
                TableName=self.stack.outputs["ledger_table"], Key={"id": {"S": f"redrive#{id_}"}}, UpdateExpression="SET #document = :document",
                ExpressionAttributeNames={"#document": "document"}, ExpressionAttributeValues={":document": {"S": json.dumps(document)}},
            )


def run(seed=None):
    seed = int(time.time()) if seed is None else seed
    print(f"  seed {seed}: {pathlib.Path(__file__).relative_to(ROOT)} {seed}", flush=True)
    world = Redriven(seed)
    try:
        killed(world)
    finally:
        world.close()


def killed(world):
    stack = world.stack
    world.send()
    settled = lambda: ((states := world.states()) == {"failed": JOBS} and stack.depth("jobs") == 0, states)
    wait_until(f"redrive_kills: {JOBS} dead letters", settled, 300)
    before = world.letters()
    world.gate.fault, world.gate.fault_of = None, {AGAIN: "refusal"}
    hits, id_ = collections.Counter(), None
    for number in range(KILLS):
        command = world.nightshift(*(["watch", id_] if id_ else ["--rate", str(SENT_A_SECOND), "--yes", "--reason", "the refusals are over"]))
        hit = world.kill(command)
        hits.update(hit)
        # One that lost its function has an error to tell; what is not killed would watch to the end.
        command.kill()
        command.communicate()
        if id_ is None:
            listed = world.listed()
            id_ = listed[0]["id"] if listed else None
        if id_ and "function" in hit:
            world.lock_ends(id_)
        document = world.record(id_) if id_ else {}
        if document.get("end"):
            raise SystemExit(f"FAILED: the redrive is over after {number + 1} kills of {KILLS}: {document['end']}")
    require(f"redrive_kills: {KILLS} kills hit {dict(hits)}, with {document['progress']['sent']} of {JOBS} sent", min(hits["function"], hits["command"]) > 0, hits)

    def ends():
        said, why = world.nightshift("watch", id_).communicate(timeout=BUSY * 400)
        return bool(said) and json.loads(said)["state"] == "finished", (said, why)

    wait_until("redrive_kills: the redrive comes to its end", ends, 400)
    again = sorted(key for key, of_one in before.items() if AGAIN in of_one[0][0])

    def over():
        states = world.states()
        return states == {"done": JOBS - len(again), "failed": len(again)} and stack.depth("jobs") == 0, (states, stack.depth("jobs"))

    wait_until("redrive_kills: all are settled", over, 600)
    # What failed again while the redrive went through the queue was looked at, and is hidden until the planned end of that.
    wait_until("redrive_kills: nothing is hidden", lambda: ((hidden := world.hidden()) == 0, hidden), 400)
    after = world.letters()
    failed = sorted(key for key, record in stack.records().items() if record["state"] == "failed")
    require("redrive_kills: what failed again, and nothing else, is a dead letter", sorted(after) == failed == again, (len(after), len(failed), len(again)))
    require("redrive_kills: one for each, with the sender's body, attributes and group", after == {key: before[key] for key in again} and all(
        len(of_one) == 1 for of_one in after.values()
    ), [(key, after.get(key), before[key]) for key in again if after.get(key) != before[key]][:3])
    require("redrive_kills: nothing crashed", stack.depth("crashed") == 0)
    # A slow machine's calls may time out, and then each stands in the ledger: a copy that is worked on would begin at one again.
    calls, most = sum(world.gate.asked_for.values()), 2 * JOBS + sum(int(record["calls"]) - 1 for record in stack.records().values())
    require("redrive_kills: one call for each job before the redrive, and one after it", 2 * JOBS <= calls <= most, (calls, most))
    print(f"  {calls} calls for {JOBS} jobs, each of them once before the redrive and once after it")


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
