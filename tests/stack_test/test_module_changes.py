"""What becomes of a stack that stands when its settings change: tests/stack_test/account.py says how it is seen."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from account import Account
from stack import BUSY, ROOT


@pytest.fixture
def account(tmp_path):
    return Account(tmp_path)


def under(account, key):
    """What names the key, and so could not be read any more without it."""
    return sorted({entry.split("|")[0] for entry, resource in account.resources().items() if key in json.dumps(resource) and not entry.startswith("aws_kms_")})


def test_nothing_is_left_under_a_customer_key_that_is_left(account):
    account.apply(customer_key=True)
    (key,) = (key["arn"] for key in account.of("aws_kms_key"))
    assert under(account, key) == ["aws_cloudwatch_log_group", "aws_dynamodb_table", "aws_secretsmanager_secret", "aws_sns_topic", "aws_sqs_queue"]

    left = {"customer_key": False, "keep_customer_key": True}
    account.apply(**left)
    # The provider cannot take a secret's key back: that is a command of runbook/procedures/customer-key.md.
    assert under(account, key) == ["aws_secretsmanager_secret"]
    assert list(account.planned(**left)) == ["aws_secretsmanager_secret.model_key[0]"], "each plan says so until it is done"
    account.change("aws_secretsmanager_secret", kms_key_id=None)
    assert under(account, key) == [] and account.planned(**left) == {}

    account.apply(customer_key=False)
    assert account.of("aws_kms_key") == []


def test_protected_nothing_is_gone_whatever_would_have_gone(account):
    account.apply(customer_key=True)
    before = account.resources()
    others = {"customer_key": True, "prefix": "another"}, {"customer_key": True, "region": "us-east-1"}
    attempts = [
        account.destroy(customer_key=True, ok=False),
        account.destroy("-target=aws_sqs_queue.jobs", customer_key=True, ok=False),
        account.terraform("apply", "-auto-approve", "-replace=aws_sqs_queue.jobs", *account.options({"customer_key": True}), ok=False),
        *(account.apply(ok=False, **other) for other in others),
        # The variable alone protects nothing less: what was applied counts.
        account.destroy(customer_key=True, protect_data=False, ok=False),
    ]
    for said in attempts:
        assert "terraform_data.protection" in said and "apply -var protect_data=false" in said, said
    now = account.resources()
    assert {name: now.get(name) for name in before} == before

    account.apply(customer_key=True, protect_data=False)
    account.destroy(customer_key=True, protect_data=False)
    assert account.resources() == {}


def test_protection_holds_up_no_other_change(account):
    account.apply()
    account.apply(customer_key=True, ledger={"stream": True}, page_emails=["oncall@example.com"], model={"provider": "rehearsal", "id": "rehearsal"})
    assert account.planned() != {}
    account.apply()


def test_a_change_of_the_streams_view_replaces_its_pipes_and_the_plan_says_so(account):
    account.apply(ledger={"stream": True})
    (table,) = account.of("aws_dynamodb_table")
    assert "aws_pipes_pipe" not in {key.split("|")[0] for key in account.resources()}
    account.apply(events=True, ledger={"stream": True})
    assert account.planned(events=True, ledger={"stream": True}) == {}
    assert account.planned(events=True) == {}, "events need the stream whether or not somebody else does"
    (both,) = account.of("aws_dynamodb_table")
    assert both["stream_arn"] != table["stream_arn"] and {pipe["source"] for pipe in account.of("aws_pipes_pipe")} == {both["stream_arn"]}

    # Somebody changed the view outside: the plan makes the stream anew, and with it both pipes.
    account.change("aws_dynamodb_table", stream_view_type="NEW_IMAGE")
    replaced = {address: actions for address, actions in account.planned(events=True).items() if "delete" in actions}
    pipes = [f'aws_pipes_pipe.events["{name}"]' for name in ("large", "results")]
    assert replaced == {address: ["delete", "create"] for address in [*pipes, "terraform_data.stream_is_open[0]"]}, "new pipes wait for the new stream"


def test_pipes_wait_for_a_new_stream_alone(account, monkeypatch):
    account.apply(events=True, protect_data=False)
    monkeypatch.setenv("NIGHTSHIFT_STREAM_WAIT_S", "refuse")  # Who waits fails.
    account.apply(events=True, protect_data=False, customer_key=True, page_emails=["oncall@example.com"])
    account.apply(events=False, protect_data=False)
    assert "NIGHTSHIFT_STREAM_WAIT_S" in account.apply(ok=False, events=True, protect_data=False)


def test_what_a_failed_first_apply_made_is_protected(account, monkeypatch):
    monkeypatch.setenv("NIGHTSHIFT_STREAM_WAIT_S", "refuse")
    assert "NIGHTSHIFT_STREAM_WAIT_S" in account.apply(ok=False, events=True)
    assert account.of("aws_pipes_pipe") == [] and len(account.of("aws_sqs_queue")) == 4
    before = account.resources()
    assert "The data of stack nightshift is protected" in account.destroy(ok=False, events=True)
    assert account.resources() == before

    monkeypatch.delenv("NIGHTSHIFT_STREAM_WAIT_S")
    account.apply(events=True)
    whole = account.resources()
    assert len(account.of("aws_pipes_pipe")) == 2
    assert "The data of stack nightshift is protected" in account.destroy(ok=False, events=True)
    assert account.resources() == whole
    account.apply(events=True, protect_data=False)
    account.destroy(events=True, protect_data=False)
    assert account.resources() == {}


def test_a_composite_lets_go_of_its_child_first(account):
    account.apply()
    alarms = account.folder / "terraform" / "alarms.tf"
    text = alarms.read_text()
    assert '"5m" = {' in text
    alarms.write_text(text.replace('"5m" = {', '"10m" = {'))
    account.apply()
    assert {alarm["alarm_name"] for alarm in account.of("aws_cloudwatch_metric_alarm")} >= {"nightshift-success-burning-fast-1h", "nightshift-success-burning-fast-10m"}
    assert any('"nightshift-success-burning-fast-10m"' in alarm["alarm_rule"] for alarm in account.of("aws_cloudwatch_composite_alarm"))
    assert account.planned() == {}


def test_a_policy_that_is_attached_is_not_replaced_for_its_wording(account):
    account.apply()
    policies = account.folder / "terraform" / "policies.tf"
    text = policies.read_text()
    assert "Send jobs to" in text
    policies.write_text(text.replace("Send jobs to", "Sends jobs to"))
    assert account.planned() == {}


def test_credentials_of_another_account_change_nothing(account):
    other = {"allowed_account_ids": ["111122223333"]}
    says = "credentials of account 123456789012, which is not one of allowed_account_ids"
    assert says in account.apply(ok=False, **other)
    assert account.resources() == {}
    account.apply(protect_data=False, allowed_account_ids=["111122223333", "123456789012"])
    before = account.resources()
    assert says in account.destroy(ok=False, protect_data=False, **other)
    assert account.resources() == before


def test_a_deploy_with_a_value_that_is_refused_says_which_stack_and_what_is_wrong(account):
    account.apply()
    cli = account.folder / "aws"
    cli.write_text("#!/bin/sh\ncase $1 in sts) echo 123456789012 ;; --version) echo aws-cli/2.0.0 ;; *) exit 1 ;; esac\n")
    cli.chmod(0o755)
    done = subprocess.run(
        [ROOT / "tests/fake_provider/run", "--directory", account.root, ROOT / "scripts/deploy", "--yes", "--no-build", "--no-job", "--",
         *account.options({"allowed_account_ids": ["111122223333"]})],
        env={**os.environ, "PATH": f"{account.folder}:{os.environ['PATH']}", "NIGHTSHIFT_MODULE": str(account.root), "AWS_REGION": "eu-central-1",
             "FAKE_AWS_STORE": str(account.store), "TF_IN_AUTOMATION": "1"},
        capture_output=True, text=True, timeout=BUSY * 300,
    )
    said = " ".join(re.sub(r"\x1b\[[0-9;]*m|│", " ", done.stdout + done.stderr).split())
    assert done.returncode == 1 and "deploy: account 123456789012, region eu-central-1, workspace default, prefix nightshift" in said, said
    assert "which is not one of allowed_account_ids" in said, said


def test_a_destroy_that_would_stop_half_way_is_not_begun(account):
    account.apply(events=True, protect_data=False)
    before = account.resources()
    cli = account.folder / "aws"
    cli.write_text("""#!/bin/sh
echo "$*" >>"${0%/*}/asked"
case "$*" in
  sts*) echo 123456789012 ;;
  *list-entities-for-policy*-consumer-*) echo '{"PolicyRoles": [{"RoleName": "billing"}]}' ;;
  *list-entities-for-policy*) echo '{}' ;;
  *"list-rules --event-bus-name nightshift-results"*) echo '{"Rules": [{"Name": "to-billing"}]}' ;;
  *) exit 1 ;;
esac
""")
    cli.chmod(0o755)
    (account.folder / "python3").symlink_to(sys.executable)  # pyenv's would put another `aws` before this one.
    done = subprocess.run(
        [ROOT / "tests/fake_provider/run", "--directory", account.root, ROOT / "scripts/destroy", "--yes", "--", *account.options({"events": True, "protect_data": False})],
        env={**os.environ, "PATH": f"{account.folder}:{os.environ['PATH']}", "NIGHTSHIFT_MODULE": str(account.root), "AWS_REGION": "eu-central-1",
             "FAKE_AWS_STORE": str(account.store), "TF_IN_AUTOMATION": "1"},
        capture_output=True, text=True, timeout=BUSY * 300,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Nothing was changed" in said and account.resources() == before, said
    assert "aws iam detach-role-policy --role-name billing --policy-arn arn:aws:iam::123456789012:policy/nightshift-consumer-eu-central-1" in said, said
    assert "aws events delete-rule --region eu-central-1 --event-bus-name nightshift-results --name to-billing" in said, said
    asked = (account.folder / "asked").read_text()
    assert asked.count("list-entities-for-policy") == 6, asked


def test_a_key_that_exists_takes_the_place_of_the_stacks_own(account):
    account.apply(customer_key=True)
    (own,) = (key["arn"] for key in account.of("aws_kms_key"))
    theirs = "arn:aws:kms:eu-central-1:123456789012:key/0a1b2c3d-0000-4444-8888-123456789012"
    moved = {"customer_key": True, "customer_key_arn": theirs, "keep_customer_key": True}
    account.apply(**moved)
    assert under(account, own) == []
    assert under(account, theirs) == ["aws_cloudwatch_log_group", "aws_dynamodb_table", "aws_secretsmanager_secret", "aws_sns_topic", "aws_sqs_queue"]
    account.apply(**{**moved, "keep_customer_key": False})
    assert account.of("aws_kms_key") == []


def test_the_worker_is_deployed_from_a_bucket(account):
    def put(content):
        zip_file = account.folder / "buckets" / "builds" / "worker.zip"
        zip_file.parent.mkdir(parents=True, exist_ok=True)
        zip_file.write_bytes(content)
        return {"bucket": "builds", "key": "worker.zip", "sha256_base64": base64.b64encode(hashlib.sha256(content).digest()).decode()}

    def live():
        return [alias["function_version"] for alias in account.of("aws_lambda_alias")]

    account.apply(worker_package=put(b"one"))
    assert live() == ["1"]
    assert account.planned(worker_package=put(b"one")) == {}
    assert "aws_lambda_function.worker" in account.planned(worker_package=put(b"two")), "the same key, another zip"
    account.apply(worker_package=put(b"two"))
    assert live() == ["2"]

    # Somebody has put another zip where the third should be.
    third = put(b"three")
    put(b"not three")
    said = account.apply(ok=False, worker_package=third)
    assert "Lambda loaded another zip than worker_package.sha256_base64 says" in said, said
    assert live() == ["2"]
    account.apply(worker_package=put(b"three"))
    assert live() == ["4"]
