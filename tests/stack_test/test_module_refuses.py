"""Mistakes in a copy of the module that the checks of scripts/check-terraform must find."""

import os
import shutil
import subprocess

import pytest

from stack import BUSY, ROOT


@pytest.fixture
def copy(tmp_path):
    """The module, what it reads and what checks it, in a folder in which a test may spoil the module."""
    subprocess.run([ROOT / "scripts" / "tools", "module", tmp_path], check=True)
    for link in ["runbook", "target"]:  # What a test spoils, and what the checks write into.
        (tmp_path / link).unlink()
    shutil.copytree(ROOT / "runbook", tmp_path / "runbook")
    for same in ["scripts", "tests", ".tools"]:
        (tmp_path / same).symlink_to(ROOT / same)
    terraform(tmp_path, "init", "-backend=false")
    return tmp_path


def terraform(copy, *arguments):
    done = subprocess.run(
        [ROOT / "tests" / "fake_provider" / "run", "terraform", f"-chdir={copy / 'terraform'}", *arguments, "-no-color"],
        env={**os.environ, "TF_IN_AUTOMATION": "1", "AWS_REGION": "eu-central-1"}, capture_output=True, text=True, timeout=BUSY * 300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).replace("│", " ").split())


def plan(copy, *arguments):
    return terraform(copy, "plan", "-var=artifacts_dir=tests/artifacts", *arguments)


def check(copy, *checks):
    """scripts/check-terraform itself, so that a check which cannot fail is found too."""
    done = subprocess.run([copy / "scripts" / "check-terraform", *checks], capture_output=True, text=True, timeout=BUSY * 300)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def spoil(copy, file, old, new):
    path = copy / file
    text = path.read_text()
    assert old in text, f"{file} has no {old}"
    path.write_text(text.replace(old, new, 1))


def test_the_copy_as_it_is_passes(copy):
    # And its tests do, as scripts/check-terraform shows; those that fail here say for what.
    assert plan(copy)[0] == 0


def test_a_users_own_files_change_no_check(copy):
    """Each of them breaks Terraform, or the format, where it is loaded."""
    own = copy / "terraform"
    for name in ["terraform.tfvars", "mine.auto.tfvars"]:
        (own / name).write_text('prefix   =   "NOT A PREFIX"\n')
    (own / "terraform.tfvars.json").write_text('{"page_emails": ["nobody"]}')
    (own / "backend.tf").write_text('terraform {\n  backend "s3" {\n    bucket = "mine"\n  }\n}\n')
    (own / "provider.tf").write_text('provider "aws" {\n  allowed_account_ids = ["111122223333"]\n}\n')
    (own / "override.tf").write_text('variable "nobody_reads_this" {}\n')
    (own / "terraform.tfstate").write_text("not a state")
    # All checks read one copy of the module; these are the quick ones.
    code, output = check(copy, "fmt", "validate", "plan", "tflint")
    assert code == 0 and "passed terraform plan" in output, output
    names = [name.name for name in own.iterdir()]
    assert "backend.tf" in names and ".terraform.lock.hcl" not in names, names


def test_git_ignores_a_users_own_files():
    own = ["terraform.tfvars", "mine.auto.tfvars", "a.tfvars.json", "backend.tf", "provider.tf", "override.tf", "mine_override.tf", "terraform.tfstate.d/x", ".terraform/x"]
    done = subprocess.run(["git", "-C", ROOT, "check-ignore", "--no-index", *[f"terraform/{name}" for name in own]], capture_output=True, text=True)
    assert done.stdout.split() == [f"terraform/{name}" for name in own], done.stdout
    kept = subprocess.run(["git", "-C", ROOT, "check-ignore", "--no-index", "terraform/terraform.tfvars.example", "terraform/backend.tf.example"], capture_output=True)
    assert kept.returncode == 1


def test_an_alarm_without_its_page(copy):
    (copy / "runbook" / "crashed-jobs.md").unlink()
    code, output = plan(copy)
    assert code != 0 and "crashed-jobs" in output and "precondition failed" in output


def test_a_page_without_an_alarm(copy):
    (copy / "runbook" / "orphan.md").write_text("# orphan\n")
    code, output = terraform(copy, "test", "-filter=tests/alarms.tftest.hcl")
    assert code != 0 and "These pages have no alarm: orphan" in output


def test_a_visibility_timeout_too_short(copy):
    code, output = plan(copy, "-var=queues={visibility_timeout_s=1000}")
    assert code != 0 and "queues.visibility_timeout_s (1000) must be at least" in output


def test_a_refusal_that_does_not_say_what_to_change(copy):
    spoil(copy, "terraform/queues.tf", "Raise retention_days, or lower one of the other three.", "")
    code, output = check(copy, "validate", "refusals")
    assert code == 1 and "does not say" in output and "Raise retention_days" in output, output


def test_a_wildcard_in_a_policy(copy):
    spoil(copy, "terraform/worker.tf", '"dynamodb:GetItem", "dynamodb:UpdateItem"', '"dynamodb:*"')
    code, output = terraform(copy, "test", "-filter=tests/worker.tftest.hcl")
    assert code != 0 and "An action has a wildcard" in output


def test_an_action_more_than_the_code_calls(copy):
    spoil(copy, "terraform/worker.tf", '"dynamodb:GetItem", "dynamodb:UpdateItem"', '"dynamodb:GetItem", "dynamodb:Scan", "dynamodb:UpdateItem"')
    code, output = terraform(copy, "test", "-filter=tests/worker.tftest.hcl")
    assert code != 0 and "The worker's actions are these, no fewer and no more" in output, output


def test_a_misspelt_argument(copy):
    spoil(copy, "terraform/queues.tf", "visibility_timeout_seconds", "visibility_timeout_second")
    code, output = terraform(copy, "validate")
    assert code != 0 and 'An argument named "visibility_timeout_second" is not expected here' in output


def test_what_the_static_checks_find(copy):
    # That the module as it is passes is shown by scripts/check-terraform itself, and checkov is slow to start.
    spoil(copy, "terraform/worker.tf", "# checkov:skip=CKV_AWS_50:", "#CKV_AWS_50:")
    spoil(copy, "terraform/worker.tf", "  timeout       =", "  timeout =")
    spoil(copy, "terraform/variables.tf", 'variable "tags"', 'variable "nobody_reads_this" {}\n\nvariable "tags"')
    code, output = check(copy, "fmt", "checkov", "tflint")
    assert code == 1, output
    assert "FAILED terraform fmt" in output and "FAILED checkov" in output and "CKV_AWS_50" in output, output
    assert "FAILED tflint" in output and "nobody_reads_this" in output or "skipped tflint" in output, output


def test_a_skipped_check_without_a_reason(copy):
    spoil(copy, "terraform/queues.tf", 'resource "aws_sqs_queue" "jobs" {', 'resource "aws_sqs_queue" "jobs" {\n  # checkov:skip=CKV_AWS_27')
    code, output = check(copy, "checkov")
    assert code == 1 and "a skipped check has no reason" in output, output
