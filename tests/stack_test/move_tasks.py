"""Message move tasks, which MiniStack does not have: ElasticMQ does them, over a copy of the dead letters.

The AWS CLI's three commands about moves go there (operator_shell.py); what was moved is then carried to MiniStack's jobs queue.
"""

import os
import socket
import subprocess

import boto3

from stack import REGION, ROOT, wait_until

ACCOUNT = "123456789012"


def available():
    """Whether ElasticMQ can be had here: it needs Java, and Maven Central once."""
    return subprocess.run([ROOT / "scripts" / "servers", "fetch"], capture_output=True).returncode == 0


class MoveTasks:
    def __init__(self, stack):
        self.stack = stack
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # It ends when its standard input is closed.
        self.server = subprocess.Popen(
            [ROOT / "scripts" / "servers", "elasticmq", str(port)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "JAVA_TOOL_OPTIONS": f"-Daws.region={REGION} -Daws.accountId={ACCOUNT}"},
        )
        self.sqs = boto3.client("sqs", region_name=REGION, endpoint_url=self.url)
        self.queues = {}

    def copy(self):
        """The dead letters as they are, into queues of the same names."""
        for queue in ("jobs", "dead-letters"):
            name = f"{self.stack.prefix}-{queue}"
            self.queues[queue] = wait_until("ElasticMQ", lambda: self._create(name), 120)
        for letter in self.stack.take_dead_letters(raw=True):
            attributes = {name: {k: v for k, v in of.items() if k in ("DataType", "StringValue")} for name, of in letter["MessageAttributes"].items()}
            self.sqs.send_message(QueueUrl=self.queues["dead-letters"], MessageBody=letter["Body"], MessageAttributes=attributes)

    def _create(self, name):
        if self.server.poll() is not None:
            raise SystemExit("FAILED: ElasticMQ did not start: scripts/servers fetch")
        try:
            return True, self.sqs.create_queue(QueueName=name)["QueueUrl"]
        except Exception as error:  # Until it listens.
            return False, error

    def carry(self, count):
        """What SQS itself would have put into the jobs queue."""

        def moved():
            got = self.sqs.receive_message(QueueUrl=self.queues["jobs"], MaxNumberOfMessages=10, MessageAttributeNames=["All"]).get("Messages", [])
            for message in got:
                attributes = {n: {k: v for k, v in of.items() if k in ("DataType", "StringValue")} for n, of in message["MessageAttributes"].items()}
                self.stack.client("sqs").send_message(
                    QueueUrl=self.stack.outputs["jobs_queue_url"], MessageBody=message["Body"], MessageAttributes=attributes
                )
                self.sqs.delete_message(QueueUrl=self.queues["jobs"], ReceiptHandle=message["ReceiptHandle"])
                carried.append(message)
            return len(carried) >= count, len(carried)

        carried = []
        wait_until(f"{count} messages moved", moved, 120)

    def close(self):
        self.server.stdin.close()
        self.server.wait()
