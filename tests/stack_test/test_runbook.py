"""The runbook's harness without a stack: each page has its fault, and what is wrong in a block is seen."""

import itertools
import re
import subprocess

import pytest
import runbook
import runbook_administrator
import runbook_faults
import runbook_pages
from operator_shell import OperatorShell

BEGIN = 'export PREFIX="${PREFIX:-nightshift}" AWS_REGION='


@pytest.fixture(scope="module")
def pages():
    return runbook_pages.read()


PLANS = runbook_faults.PLANNED + runbook_administrator.PLANS + runbook_administrator.ALONE


def test_each_alarms_page_is_run_under_a_fault(pages):
    faulty = {page for fault in runbook_faults.FAULTS for page in fault.pages} | {plan.verified for plan in PLANS}
    missing = set(runbook_pages.alarms(pages)) - faulty
    assert not missing, f"no Fault in tests/stack_test/runbook_faults.py runs {sorted(missing)}"


def test_a_page_that_compares_with_all_calls_is_run_without_those_of_earlier_faults(pages):
    shares = {name for name in runbook_pages.alarms(pages) if "100 *" in pages[name].of("Verification")[-1].text.splitlines()[-1]}
    assert len(shares) > 3
    mixed = shares - {page for fault in runbook_faults.FAULTS if fault.alone for page in fault.pages}
    assert not mixed, f"say alone=True in the Fault of {sorted(mixed)}: their Verification compares with all calls"


def test_each_block_is_run_or_said_not_to_be(pages):
    uncovered = [str(block) for block in runbook.uncovered(pages)]
    assert not uncovered, f"no Fault in tests/stack_test/runbook_faults.py runs {uncovered}, nor is it said there why"


def test_a_new_page_and_a_new_block_want_a_fault(pages):
    new = runbook_pages.parse("quota-gone", "# quota-gone\n\n## Diagnosis\n\n```sh\naws sqs list-queues\n```\n")
    longer = runbook_pages.parse("model-account", pages["model-account"].text + "\n## Aftermath\n\n```sh\ntrue\n```\n")
    already = runbook.uncovered(pages)
    missing = [block for block in runbook.uncovered({**pages, "quota-gone": new, "model-account": longer}) if block not in already]
    assert [str(block) for block in missing] == [str(block) for block in [longer.blocks[-1], new.blocks[0]]]


def test_a_fault_follows_only_what_its_pages_lead_to(pages):
    assert runbook.not_led_to(pages) == []


def test_what_names_a_part_of_a_block_finds_one(pages):
    blocks = [block.text for page in pages.values() for block in page.blocks]
    for text in runbook_faults.OF_ADMINISTRATORS + [text for plan in PLANS for text in plan.only or []]:
        assert sum(text in block for block in blocks) == 1, text


def test_an_alarms_page_answers_in_its_last_block(pages):
    for name in runbook_pages.alarms(pages):
        page = pages[name]
        assert [section for section in page.sections if section in runbook_pages.SECTIONS] == runbook_pages.SECTIONS, name
        last = page.of("Verification")[-1].text.splitlines()[-1]
        assert last.startswith("[ ") and last.endswith('&& echo "It is over."'), f"{name}: {last}"


def test_an_alarms_page_verifies_its_own_alarm(pages):
    for name in runbook_pages.alarms(pages):
        described = [alarm for block in pages[name].of("Verification") for alarm in re.findall(r"--alarm-names (\S+)", block.text)]
        assert described == [f'"$PREFIX-{name}"'], f"{name}: describe this page's alarm in its Verification"


def answers(condition):
    """Whether a condition of a shell holds, for numbers from none to very many in each of its variables."""
    names = sorted(set(re.findall(r"[a-z_]+", re.sub(r" -\w+ ", " ", condition))))
    tries = []
    for numbers in itertools.product([0, 1, 10**12], repeat=len(names)):
        given = "; ".join(f"{name}={number}" for name, number in zip(names, numbers, strict=True))
        tries.append(f"{given}; {condition} && echo yes || echo no")
    return set(subprocess.run(["bash"], input="\n".join(tries), capture_output=True, text=True, check=True).stdout.split())


def test_each_condition_of_a_verification_can_fail(pages):
    judged = 0
    for name, page in pages.items():
        for last in [block.text.splitlines()[-1] for block in page.of("Verification")[-1:]]:
            numeric = [condition for condition in re.findall(r"\[ .*? \]", last) if re.search(" -(eq|ne|lt|le|gt|ge) ", condition)]
            judged += len(numeric)
            for condition in [*numeric, last.split(" && echo ")[0]] if numeric else []:
                assert "no" in answers(condition), f"{name}: {condition} holds for every number: ask what a stack that does nothing would fail"
    assert judged > 30, f"the scan finds the conditions: {judged}"


@pytest.mark.parametrize("condition", ['[ "$n" -ge 0 ]', '[ "$n" -gt -1 ]', '[ "$n" -ne -1 ]', '[ "$n" -le "$n" ]', "[ $((0 * n)) -lt $((1 + n)) ]"])
def test_a_condition_that_holds_for_every_number_is_seen(condition):
    assert answers(condition) == {"yes"}


def test_the_verification_of_a_plan_answers_in_its_last_block(pages):
    for name in {plan.verified for plan in PLANS if plan.verified}:
        last = pages[name].of("Verification")[-1].text.splitlines()[-1]
        assert last.startswith("[ ") and "&& echo " in last, f"{name}: {last}"


def test_each_section_can_be_pasted_into_a_new_shell(pages):
    for name, page in pages.items():
        for section in page.sections:
            for first in page.of(section)[:1]:
                if "$PREFIX" in first.text:
                    assert first.text.startswith(BEGIN), first


def test_no_block_is_longer_than_a_screen(pages):
    for page in pages.values():
        for block in page.blocks:
            assert len(block.text.splitlines()) <= 24, block


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """An AWS CLI that knows one queue and one option, and a command whose answer is no."""
    aws, nightshift = tmp_path / "aws", tmp_path / "nightshift"
    aws.write_text('#!/bin/bash\n[ "$3 $4 $5" = "sqs list-queues --output" ] && echo one-queue\n')
    nightshift.write_text("#!/bin/bash\nexit 3\n")
    for program in aws, nightshift:
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{__import__('os').environ['PATH']}")
    shell = OperatorShell({"AWS_ENDPOINT_URL": "https://127.0.0.1:1"}, nightshift)
    yield shell
    shell.close()


def block(text, section="Diagnosis"):
    return runbook_pages.Block("page", section, 1, text)


GOOD = "aws sqs list-queues --output text\n"
DEFECTS = {
    "a wrong verb": "aws sqs list-queue --output text\n",
    "a wrong option": "aws sqs list-queues --out text\n",
    "hidden by a pipe": "aws sqs list-queue --output text | tail -n 1\n",
    "hidden in a substitution": 'echo "$(aws sqs list-queue --output text)"\n',
    "hidden by what follows": "aws sqs list-queue --output text\ntrue\n",
    "another program's, hidden by what follows": "false\ntrue\n",
    "a command that is not there": "awz sqs list-queues\n",
    "no end of a quote": "echo 'aws\n",
}


def test_a_block_that_works_is_seen_to_work(shell):
    ran = shell.run([block(GOOD), block("x=$(aws sqs list-queues --output text)\n"), block('[ "$x" = one-queue ]\n')])
    assert [one.status for one in ran] == [0, 0, 0]
    assert not any(one.failed_calls for one in ran)
    assert "one-queue" in ran[0].output


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_in_a_block_is_seen(shell, defect):
    (ran,) = shell.run([block(DEFECTS[defect])])
    assert ran.status or ran.failed_calls


def test_what_doctor_finds_is_an_answer(shell):
    (ran,) = shell.run([block('nightshift --prefix "$PREFIX" doctor\n' + GOOD)])
    assert (ran.status, ran.failed_calls) == (0, [])
    (ran,) = shell.run([block("nightshift results doctor-7\n" + GOOD)])
    assert [call.status for call in ran.failed_calls] == [3, 3]


def test_blocks_in_the_wrong_order_are_seen(shell):
    uses, sets = block('[ "$queue" = one-queue ]\n'), block("queue=$(aws sqs list-queues --output text)\n")
    assert [one.status for one in shell.run([sets, uses])] == [0, 0]
    assert [one.status for one in shell.run([uses, sets])] == [1, 0]


def test_a_question_is_answered_on_the_terminal(shell):
    asks = block("printf 'Go on? [y/N] '; read -r answer; [ \"$answer\" = y ]\n")
    assert [one.status for one in shell.run([asks])] == [0]


# As `nightshift key set` asks: the prompt, then no echo, and what was typed in between is thrown away.
HIDES = """
import sys, termios, time
print("Model key: ", end="", flush=True)
time.sleep(0.5)
mode = termios.tcgetattr(0)
mode[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSAFLUSH, mode)
sys.exit(sys.stdin.readline() != "k\\n")
"""


def test_a_key_is_typed_once_it_is_hidden(shell):
    asks = block(f"python3 -c '{HIDES}'\n")
    assert [one.status for one in shell.run([asks], answers={"Model key: ": "k"})] == [0]
