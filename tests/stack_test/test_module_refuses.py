"""Mistakes in a copy of the module that the checks of scripts/check-terraform must find."""

import os
import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    """The module and what it reads, in a folder that a test may spoil."""
    shutil.copytree(ROOT / "terraform", tmp_path / "terraform", ignore=shutil.ignore_patterns("*.tfstate*", ".terraform*"))
    shutil.copytree(ROOT / "runbook", tmp_path / "runbook")
    prices = pathlib.Path("crates/models/src/prices.json")
    (tmp_path / prices.parent).mkdir(parents=True)
    shutil.copy(ROOT / prices, tmp_path / prices)
    terraform(tmp_path, "init", "-backend=false")
    return tmp_path


def terraform(copy, *arguments):
    done = subprocess.run(
        [ROOT / "tests" / "fake_provider" / "run", "terraform", f"-chdir={copy / 'terraform'}", *arguments, "-no-color"],
        env={**os.environ, "TF_IN_AUTOMATION": "1", "AWS_REGION": "eu-central-1"}, capture_output=True, text=True, timeout=300,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).replace("│", " ").split())


def plan(copy, *arguments):
    return terraform(copy, "plan", "-var=artifacts_dir=tests/artifacts", *arguments)


def spoil(copy, file, old, new):
    path = copy / file
    text = path.read_text()
    assert old in text, f"{file} has no {old}"
    path.write_text(text.replace(old, new, 1))


def test_the_copy_as_it_is_passes(copy):
    assert plan(copy)[0] == 0
    code, output = terraform(copy, "test", "-filter=tests/alarms.tftest.hcl", "-filter=tests/worker.tftest.hcl")
    assert code == 0, output


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


def test_a_wildcard_in_a_policy(copy):
    spoil(copy, "terraform/worker.tf", '"dynamodb:GetItem", "dynamodb:UpdateItem"', '"dynamodb:*"')
    code, output = terraform(copy, "test", "-filter=tests/worker.tftest.hcl")
    assert code != 0 and "An action has a wildcard" in output


def test_an_action_more_than_the_code_calls(copy):
    spoil(copy, "terraform/worker.tf", '"dynamodb:GetItem", "dynamodb:UpdateItem"', '"dynamodb:GetItem", "dynamodb:Scan", "dynamodb:UpdateItem"')
    code, _ = terraform(copy, "test", "-filter=tests/worker.tftest.hcl")
    assert code != 0


def test_a_misspelt_argument(copy):
    spoil(copy, "terraform/queues.tf", "visibility_timeout_seconds", "visibility_timeout_second")
    code, output = terraform(copy, "validate")
    assert code != 0 and 'An argument named "visibility_timeout_second" is not expected here' in output
