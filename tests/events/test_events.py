"""Which records of the table's stream become events, and what they look like: the planned pipes, over what DynamoDB Local's stream says
when the records of each release follow each other.  A stand-in evaluates the pipes: see pipe.py."""

import json
import os
import socket
import subprocess
import time

import boto3
import pytest
from botocore.config import Config

import pipe
from pipe import ROOT

RECORDS = ROOT / "crates" / "aws" / "tests" / "records"


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    work = tmp_path_factory.mktemp("plan")
    script = 'source scripts/tools; tools_module "$0/module"; terraform -chdir="$0/module/terraform" init -backend=false -input=false; tools_plan "$0" -var events=true'
    environment = {**os.environ, "AWS_REGION": "eu-central-1", "TF_IN_AUTOMATION": "1", "TF_DATA_DIR": str(work / "data")}
    done = subprocess.run([ROOT / "tests/fake_provider/run", "bash", "-euc", script, work], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = pipe.pipes_of_plan(json.loads((work / "plan.json").read_text()))
    assert len(found) == 2
    return found


class Table:
    """A table with the planned view, on a server of Amazon's."""

    def __init__(self, port):
        there = dict(endpoint_url=f"http://127.0.0.1:{port}", region_name="eu-central-1", aws_access_key_id="local", aws_secret_access_key="local")
        self.dynamodb = boto3.client("dynamodb", **there, config=Config(retries={"mode": "standard", "total_max_attempts": 20}))
        self.streams = boto3.client("dynamodbstreams", **there)
        self.names = 0

    def stream_of(self, *items):
        """What the stream of a new table says when the items are written after each other; None deletes the one before."""
        self.names += 1
        name = f"ledger-{self.names}"
        made = self.dynamodb.create_table(
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )["TableDescription"]
        before = None
        for item in items:
            if item is None:
                self.dynamodb.delete_item(TableName=name, Key={"id": before["id"]})
            else:
                self.dynamodb.put_item(TableName=name, Item=item)
            before = item
        records = []
        for shard in self.streams.describe_stream(StreamArn=made["LatestStreamArn"])["StreamDescription"]["Shards"]:
            at = self.streams.get_shard_iterator(StreamArn=made["LatestStreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
            # Records are there at once; an empty page is the end.
            while page := self.streams.get_records(ShardIterator=at)["Records"] if at else []:
                records += page
                at = self.streams.get_shard_iterator(
                    StreamArn=made["LatestStreamArn"], ShardId=shard["ShardId"], ShardIteratorType="AFTER_SEQUENCE_NUMBER", SequenceNumber=page[-1]["dynamodb"]["SequenceNumber"],
                )["ShardIterator"]
        assert len(records) == len(items), "an item that is written as it stands has no record: change something"
        # As a pipe sees them: JSON.
        return json.loads(json.dumps(records, default=lambda time: time.timestamp()))


@pytest.fixture(scope="module")
def table():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([ROOT / "scripts/servers", "dynamodb-local", str(port)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while True:
            if server.poll() == 3:
                pytest.skip("DynamoDB Local cannot be had here (scripts/servers says why)")
            assert server.poll() is None and time.monotonic() < deadline, "DynamoDB Local did not start"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Table(port)
    finally:
        server.stdin.close()
        server.wait(timeout=60)


def item(name, release="v1", **changed):
    found = json.loads((RECORDS / release / f"{name}.json").read_text())
    return {**found, "id": {"S": "0f" * 32}, **{attribute: {"S": value} if isinstance(value, str) else value for attribute, value in changed.items()}}


def of_stream(pipes, records):
    """For each record, the events of all pipes: in each reading one, or none."""
    found = []
    for record in records:
        by_pipe = [events for events in (one.events(record) for one in pipes) if events]
        assert len(by_pipe) <= 1, "two pipes send the same"
        found.append(by_pipe[0] if by_pipe else [])
    return found


DONE, CLAIMED, OPEN = item("done"), item("claimed"), item("claimed", state="open")
REVIEW, REVIEWED = item("done-needs-review"), item("done-reviewed")
FAILED, FAILED_AGAIN = item("failed-invalid_output"), item("failed-redriven")
ERASED = item("done", state="erased")

# Records that follow each other, and which of them are events: by state, and what is said of a review.
SEQUENCES = {
    "a result": ([CLAIMED, DONE], [None, ("done", False, False)]),
    "a result after hand-backs": ([CLAIMED, OPEN, CLAIMED, DONE], [None, None, None, ("done", False, False)]),
    "duplicates that are counted": ([CLAIMED, DONE, item("done-with-duplicates"), DONE], [None, ("done", False, False), None, None]),
    "a result that waits for a person, and is reviewed": ([CLAIMED, REVIEW, REVIEWED, item("done-reviewed", version={"N": "99"})], [None, ("done", True, False), ("done", True, True), None]),
    "a review that is rejected": ([CLAIMED, REVIEW, FAILED], [None, ("done", True, False), ("failed", None, None)]),
    "a job that fails at once": ([item("failed-unparsed-invalid_message")], [("failed", None, None)]),
    "a dead letter that is noted as sent": ([CLAIMED, FAILED, {**FAILED, "letter_version": FAILED["version"]}], [None, ("failed", None, None), None]),
    "a redrive that fails again": ([CLAIMED, FAILED, CLAIMED, FAILED_AGAIN], [None, ("failed", None, None), None, ("failed", None, None)]),
    # The worker claims what it is about to refuse, where a failure stands.
    "a redrive that is refused again": ([item("failed-unparsed-invalid_message"), CLAIMED, item("failed-unparsed-invalid_message", version={"N": "3"})], [("failed", None, None), None, ("failed", None, None)]),
    "a redrive that succeeds": ([FAILED, CLAIMED, DONE], [("failed", None, None), None, ("done", False, False)]),
    "a result that is made again": ([DONE, item("claimed-remade-lease-ended"), DONE], [("done", False, False), None, ("done", False, False)]),
    "a result that is erased": ([CLAIMED, DONE, ERASED, None], [None, ("done", False, False), None, None]),
    "a result that expires": ([CLAIMED, DONE, None], [None, ("done", False, False), None]),
    "what is no record of a job": ([{"id": {"S": "control"}, "version": {"N": "1"}}, {"id": {"S": "control"}, "version": {"N": "2"}, "entries": {"S": "[]"}}], [None, None]),
}


def test_only_a_change_of_state_is_an_event(pipes, table):
    seen, messages = {}, []
    for name, (items, _) in SEQUENCES.items():
        found = of_stream(pipes, table.stream_of(*items))
        seen[name] = [(events[0]["state"], events[0].get("needs_review"), events[0].get("reviewed")) if events else None for events in found]
        messages += [message for events in found for message in events]
    assert seen == {name: expected for name, (_, expected) in SEQUENCES.items()}
    assert pipe.faults(messages) == [[] for _ in messages]


def test_the_records_of_every_release_have_an_event(pipes, table):
    settled = [(release.name, file.stem) for release in sorted(RECORDS.iterdir()) for file in sorted(release.glob("*.json")) if file.stem.startswith(("done", "failed"))]
    assert len(settled) >= 20
    records = [record for release, name in settled for record in table.stream_of(item(name, release))]
    events = of_stream(pipes, records)
    assert all(events), [name for (_, name), found in zip(settled, events, strict=True) if not found]
    messages = [message for found in events for message in found]
    assert pipe.faults(messages) == [[] for _ in messages]


def test_an_event_says_what_became_of_which_job(pipes, table):
    (_, record) = table.stream_of(CLAIMED, DONE)
    assert of_stream(pipes, [record])[0][0] == {
        "key": "0f" * 32, "version": DONE["version"]["N"], "state": "done", "task": DONE["task"], "reference": DONE["reference"],
        "needs_review": False, "reviewed": False, "model": DONE["model"]["S"], "cost_micro_usd": DONE["cost_micro_usd"]["N"],
        "finished_at_ms": DONE["finished_at_ms"]["N"], "output": DONE["output"], "output_left_out": False,
    }


@pytest.mark.parametrize(("length", "left_out"), [(1, False), (100_000, False), (150_000, True), (350 * 1024, True)])
def test_an_event_whose_output_does_not_fit_comes_without_it(pipes, table, length, left_out):
    # Each character of such an output is two in JSON.
    large = item("done", output='"' * length, history="")
    (record,) = table.stream_of(large)
    # The server counts as DynamoDB documents it: names and values of the images, and the keys.
    assert record["dynamodb"]["SizeBytes"] > length
    (events,) = of_stream(pipes, [record])
    assert [event["output_left_out"] for event in events] == [left_out] * len(events)
    assert ("output" in events[0]) == (not left_out)
    assert all(one.entry_bytes(event) <= pipe.ENTRY_BYTES_MAX for event in events for one in pipes)


def test_the_schema_knows_each_member_and_refuses_what_is_none(pipes):
    known = set(json.loads(pipe.SCHEMA.read_text())["properties"])
    assert {name for one in pipes for name in json.loads(pipe._VARIABLE.sub("0", one.template))} == known
    good = {"key": "0f" * 32, "version": "2", "state": "done", "output_left_out": False}
    bad = [{**good, "more": 1}, {**good, "state": "claimed"}, {**good, "output": "text"}, {**good, "version": 2}, {**good, "key": "0f"}]
    assert pipe.faults([good]) == [[]] and all(pipe.faults(bad)), "each of the bad ones has a fault"


def test_what_the_stand_in_does_not_know_is_an_error():
    for pattern in ({"a": [{"wildcard": "x*"}]}, {"a": [{"anything-but": {"prefix": "x"}}]}, {"$or": [{"a": ["x"]}]}, {"a": [{"exists": True}]}):
        with pytest.raises(ValueError):
            pipe.matches(pattern, {"a": {} if "exists" in json.dumps(pattern) else "x"})
    for template in ('{"a": <aws.pipes.pipe-arn>}', '{"a": "<$.a>"}', '{"a": <$.a[0]>}'):
        with pytest.raises(ValueError):
            pipe.render(template, {"a": "x"}, None)


@pytest.mark.parametrize(("pattern", "event", "matched"), [
    ({"a": ["x"]}, {"a": "x"}, True), ({"a": ["x"]}, {"a": "y"}, False), ({"a": ["x"]}, {}, False), ({"a": [1]}, {"a": "1"}, False), ({"a": [True]}, {"a": 1}, False),
    ({"a": {"b": [{"exists": False}]}}, {}, True), ({"a": {"b": [{"exists": False}]}}, {"a": {"b": "x"}}, False),
    ({"a": [{"anything-but": ["x"]}]}, {"a": "y"}, True), ({"a": [{"anything-but": ["x"]}]}, {"a": "x"}, False), ({"a": [{"anything-but": ["x"]}]}, {}, False),
    ({"a": [{"numeric": [">", 1, "<=", 3]}]}, {"a": 3}, True), ({"a": [{"numeric": [">", 1]}]}, {"a": "3"}, False),
])
def test_patterns_as_eventbridge_documents_them(pattern, event, matched):
    assert pipe.matches(pattern, event) == matched
