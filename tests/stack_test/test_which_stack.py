"""Which stack a deploy or a destroy is about to change, and what it refuses; the AWS CLI is a script that says what a case wants."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NO_QUEUE = "echo 'An error occurred (AWS.SimpleQueueService.NonExistentQueue) when calling GetQueueUrl' >&2; exit 254"
DENIED = "echo 'An error occurred (AccessDenied) when calling GetQueueUrl' >&2; exit 254"


def stack(account="111122223333", region="eu-central-1", prefix="team-a"):
    return [
        {"mode": "data", "type": "aws_region", "values": {"region": "nowhere"}},
        {"mode": "managed", "type": "terraform_data", "values": {}},
        {"mode": "managed", "type": "aws_iam_policy", "values": {"arn": f"arn:aws:iam::{account}:policy/p", "tags_all": {"Stack": prefix}}},
        {"mode": "managed", "type": "aws_sqs_queue", "values": {"arn": f"arn:aws:sqs:{region}:{account}:{prefix}-jobs", "tags_all": {"Stack": prefix}}},
    ]


@pytest.mark.parametrize(
    ("resources", "queue", "refused"),
    [
        ([], NO_QUEUE, None),
        (stack(), "echo https://sqs/team-a-jobs", None),
        ([], "echo https://sqs/team-a-jobs", "This state is empty, but the queue team-a-jobs exists"),
        ([], DENIED, "Could not see whether the queue team-a-jobs exists already"),
        (stack()[:3], NO_QUEUE, None),  # A role is in no region.
        (stack(account="999999999999"), NO_QUEUE, "stands in account 999999999999, region eu-central-1, prefix team-a"),
        (stack(region="us-east-1"), NO_QUEUE, "stands in account 111122223333, region us-east-1, prefix team-a"),
        (stack(prefix="production"), NO_QUEUE, "stands in account 111122223333, region eu-central-1, prefix production"),
    ],
)
def test_another_stack_than_the_states_is_refused(tmp_path, resources, queue, refused):
    for modules in ({"resources": resources}, {"child_modules": [{"resources": resources}]}):
        said = which(tmp_path, modules, f"case $1 in sts) echo 111122223333 ;; sqs) {queue} ;; esac")
        if refused is None:
            assert (said.returncode, said.stdout) == (0, "account 111122223333, region eu-central-1, workspace default, prefix team-a\n"), said.stderr
        else:
            assert said.returncode == 1 and refused in said.stderr, said.stderr


def test_without_credentials_nothing_is_begun(tmp_path):
    said = which(tmp_path, {}, "echo 'Unable to locate credentials' >&2; exit 253")
    assert said.returncode == 1 and "Could not ask AWS whose credentials these are: Unable to locate credentials" in said.stderr


def which(folder, root_module, cli):
    (folder / "state.json").write_text(json.dumps({"values": {"root_module": root_module}}))
    (folder / "aws").write_text(f"#!/bin/sh\n{cli}\n")
    (folder / "aws").chmod(0o755)
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "which_stack.py", folder / "state.json", "team-a", "eu-central-1", "default"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True, text=True,
    )
