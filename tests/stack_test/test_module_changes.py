"""What becomes of a stack that stands when its settings change: the module in the real Terraform, over a made-up account.

The account is the file of tests/fake_provider's memory backend, so that a test sees what is there and not what a plan says.
"""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Account:
    """A copy of the module with a state of its own, and what it has made."""

    def __init__(self, folder):
        self.folder = folder
        self.store = folder / "account.json"
        subprocess.run([ROOT / "scripts" / "tools", "module", folder], check=True)
        self.terraform("init", "-backend=false")

    def terraform(self, *arguments, ok=True):
        done = subprocess.run(
            [ROOT / "tests" / "fake_provider" / "run", "terraform", f"-chdir={self.folder / 'terraform'}", *arguments, "-no-color"],
            env={**os.environ, "TF_IN_AUTOMATION": "1", "AWS_REGION": "eu-central-1", "FAKE_AWS_STORE": str(self.store)},
            capture_output=True, text=True, timeout=300,
        )
        said = " ".join((done.stdout + done.stderr).replace("│", " ").split())
        if ok is not None:
            assert (done.returncode == 0) == ok, said
        return said

    def apply(self, ok=True, **variables):
        return self.terraform("apply", "-auto-approve", "-input=false", *options(variables), ok=ok)

    def planned(self, **variables):
        """The changes that a plan would make: address to actions."""
        self.terraform("plan", "-input=false", "-out=changes.tfplan", *options(variables))
        shown = subprocess.run(
            [ROOT / "tests" / "fake_provider" / "run", "terraform", f"-chdir={self.folder / 'terraform'}", "show", "-json", "changes.tfplan"],
            env={**os.environ, "AWS_REGION": "eu-central-1"}, capture_output=True, text=True, check=True, timeout=300,
        )
        return {
            change["address"]: change["change"]["actions"] for change in json.loads(shown.stdout)["resource_changes"]
            if change["mode"] == "managed" and change["change"]["actions"] != ["no-op"]
        }

    def resources(self):
        return json.loads(self.store.read_text())

    def of(self, type_name):
        return [resource for key, resource in self.resources().items() if key.startswith(type_name + "|")]

    def change(self, type_name, **values):
        """What somebody does outside of Terraform."""
        resources = self.resources()
        for key in resources:
            if key.startswith(type_name + "|"):
                resources[key].update(values)
        self.store.write_text(json.dumps(resources))


def options(variables):
    variables = {"artifacts_dir": "tests/artifacts", **variables}
    return [f"-var={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in variables.items()]


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
        account.terraform("destroy", "-auto-approve", *options({"customer_key": True}), ok=False),
        account.terraform("destroy", "-auto-approve", "-target=aws_sqs_queue.jobs", *options({"customer_key": True}), ok=False),
        account.terraform("apply", "-auto-approve", "-replace=aws_sqs_queue.jobs", *options({"customer_key": True}), ok=False),
        *(account.apply(ok=False, **other) for other in others),
        # The variable alone protects nothing less: what was applied counts.
        account.terraform("destroy", "-auto-approve", *options({"customer_key": True, "protect_data": False}), ok=False),
    ]
    for said in attempts:
        assert "terraform_data.protection" in said and "apply -var protect_data=false" in said, said
    now = account.resources()
    assert {name: now.get(name) for name in before} == before

    account.apply(customer_key=True, protect_data=False)
    account.terraform("destroy", "-auto-approve", *options({"customer_key": True, "protect_data": False}))
    assert account.resources() == {}


def test_protection_holds_up_no_other_change(account):
    account.apply()
    account.apply(customer_key=True, ledger={"stream": True}, page_emails=["oncall@example.com"], model={"provider": "rehearsal", "id": "rehearsal"})
    assert account.planned() != {}
    account.apply()


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


def test_credentials_of_another_account_change_nothing(account):
    assert "AWS account ID not allowed: 123456789012" in account.apply(ok=False, allowed_account_ids=["111122223333"])
    assert not account.store.exists()
    account.planned(allowed_account_ids=["111122223333", "123456789012"])
