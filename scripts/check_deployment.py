"""Checks a stack after a deploy: the new version starts, its key is set, and a job gets through.

    check_deployment.py [--no-job] OUTPUTS_JSON

The job is one model call; its record stays in the ledger for as long as any result.
It is not sent when the stack is paused or a backlog waits before it.

`nightshift` sends and follows jobs too, but starts no worker with an empty batch, and a deploy does not build it: that takes
minutes, and with --no-build, or zips from a bucket, nothing is compiled at all.
"""

import hashlib
import json
import pathlib
import sys
import time

import boto3

# Two long calls and a wait fit into this; the first job of a new version also waits for its start.
JOB_TIMEOUT_S = 300
# A batch or two of other jobs do not hold the check up; more would.
WAITING_MAX = 20


def main():
    arguments = sys.argv[1:]
    send_job = "--no-job" not in arguments
    (path,) = [argument for argument in arguments if argument != "--no-job"]
    outputs = {name: item["value"] for name, item in json.loads(pathlib.Path(path).read_text()).items()}
    client = lambda service: boto3.client(service, region_name=outputs["region"])
    function, functions = outputs["worker_function"], client("lambda")

    alias = functions.get_alias(FunctionName=function, Name="live")
    require(f"live is version {outputs['worker_version']}", alias["FunctionVersion"] == outputs["worker_version"], alias["FunctionVersion"])

    # An empty batch: the process starts, reads its settings and answers, and nothing is called.
    answer = functions.invoke(FunctionName=function, Qualifier="live", Payload=b'{"Records": []}')
    body = answer["Payload"].read().decode()
    require("the worker starts and answers", "FunctionError" not in answer, body[:1000])

    secret = outputs.get("model_key_secret")  # Terraform leaves out what is null.
    if secret and not client("secretsmanager").describe_secret(SecretId=secret).get("VersionIdsToStages"):
        print("skipped: no job is sent, because the model key is not set yet. To set it:")
        print(f"  aws secretsmanager put-secret-value --region {outputs['region']} --secret-id {secret} --secret-string file://KEY")
        return
    state = functions.get_event_source_mapping(UUID=outputs["event_source_mapping"])["State"]
    if state not in ("Enabled", "Enabling", "Updating", "Creating"):
        print(f"skipped: no job is sent, because the event source is {state}: the stack is paused")
        return
    table = client("dynamodb")
    control = table.get_item(TableName=outputs["ledger_table"], Key={"id": {"S": "control"}}, ConsistentRead=True).get("Item", {})
    if "paused_reason" in control:
        print(f"skipped: no job is sent, because the stack is paused: {control['paused_reason'].get('S')}")
        return
    if not send_job:
        print("skipped: no job is sent (--no-job)")
        return
    # SQS keeps no order, but behind a backlog the job's turn may come in hours, and the deploy would seem to have failed.
    attributes = client("sqs").get_queue_attributes(QueueUrl=outputs["jobs_queue_url"], AttributeNames=["ApproximateNumberOfMessages"])["Attributes"]
    waiting = int(attributes["ApproximateNumberOfMessages"])
    if waiting > WAITING_MAX:
        print(f"skipped: no job is sent, because {waiting} jobs wait: whether they are worked on, JobsSucceeded and the alarms say")
        return

    reference = f"deploy-check-{int(time.time())}"
    text = f"Test ticket after the deployment of version {outputs['worker_version']} ({reference}). Nothing to do."
    job = {"task": "categorize_ticket", "input": {"text": text}, "reference": reference}
    client("sqs").send_message(QueueUrl=outputs["jobs_queue_url"], MessageBody=json.dumps(job))
    began = time.monotonic()
    while True:
        record = table.get_item(TableName=outputs["ledger_table"], Key={"id": {"S": input_hash(job)}}, ConsistentRead=True).get("Item")
        state = record and record["state"]["S"]
        if state in ("done", "failed"):
            break
        if time.monotonic() - began > JOB_TIMEOUT_S:
            sys.exit(f"FAILED: the job {reference} is not settled after {JOB_TIMEOUT_S} s ({state or 'no record'}): see the log group {outputs['log_group']}")
        time.sleep(1)
    took = time.monotonic() - began
    require(f"a job gets through ({took:.0f} s)", state == "done", f"it failed with {record.get('reason', {}).get('S')}: {record.get('detail', {}).get('S')}")


def input_hash(job):
    """The key of the job's record: crates/core/src/input_hash.rs.  For text without control characters,
    RFC 8785's canonical form is what json writes with these settings."""
    canonical = json.dumps({"task": job["task"], "input": job["input"]}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(b"nightshift/job/v1\n" + canonical.encode()).hexdigest()


def require(what, condition, seen):
    if not condition:
        sys.exit(f"FAILED: {what}: {seen}")
    print(f"ok: {what}")


if __name__ == "__main__":
    main()
