"""A working day, as the README tells it: its commands, typed in a terminal, and what the stack holds after each.

    day.py [--write]      --write: puts what the commands said into the README

README, "A working day", is the script.  What a command says must be what stands below it there, but for times, names that are made
anew, durations, money and what CloudWatch counts.  Of a long output the README has the beginning and the end (STEPS).
"""

import collections
import csv
import dataclasses
import fcntl
import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from typing import Callable

from model_gate import ModelGate
from runbook import BATCHES, built
from stack import BUSY, ROOT, require, scripts_stack, stack_of, wait_until

# The default prefix, as a reader has it: in a region of its own, beside the stack that is up.
PREFIX, REGION = "nightshift", "eu-west-1"
README = ROOT / "README.md"
HEADING = "### A working day"
# So wide that no sentence is wrapped: where it would be depends on the length of times and sums.
ROWS, COLUMNS = 40, 1_000
COMMAND_S_MAX = BUSY * 120
PROMPT = "Go on? [y/N] "

LINES, BAD, REPORTS, CANARY = 1_000, 50, 4, 10
# What the model of that morning does with texts that say so, until the provider puts the older one back.
REFUSED, IN_PROSE, REPORT_SAYS = "stolen", "exchange rate", "What customers asked most:"


def cases():
    folder = pathlib.Path(os.environ.get("NIGHTSHIFT_CASES", ROOT.parent / "shared" / "cases"))
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            raise SystemExit(f"FAILED: CI=true and there is no folder of cases at {folder}")
        return None
    return folder / "customer_text"


def texts(folder):
    """Real questions of customers from all of the file, which is sorted by topic, and the strings that break things."""
    with open(folder / "banking77_train.csv", newline="") as file:
        questions = [row["text"] for row in csv.DictReader(file)]
    naughty = [json.loads(line)["text"] for line in (folder / "naughty_strings.jsonl").read_text().splitlines()]
    good = LINES - BAD - REPORTS
    kept = [text for text in dict.fromkeys(naughty) if text.strip() and len(text) < 1_000][:20]
    step = len(questions) // good
    return list(dict.fromkeys(questions[::step]))[: good - len(kept)] + kept


def lines_of(folder):
    """The file of the day; each twentieth line is bad, in one of five ways."""
    tickets = [{"task": "categorize_ticket", "input": {"text": text}, "reference": f"ticket-{1000 + n}"} for n, text in enumerate(texts(folder))]
    reports = [
        {"task": "weekly_report", "input": {"team": team, "week": "2026-W47", "entries": [REPORT_SAYS, *(ticket["input"]["text"] for ticket in tickets[n :: 100][:3])]},
         "reference": f"report-{team.lower()}"}
        for n, team in enumerate(["Cards", "Transfers", "Accounts", "Exchange"])
    ]
    good = [json.dumps(job) for job in tickets + reports]
    bad = [
        '{"task": "categorize_ticket", "input": {"text": ""}}',
        '{"task": "categorise_ticket", "input": {"text": "Where is my card?"}}',
        '{"task": "categorize_ticket", "input": {"text": "Where is my card?", "language": "en"}}',
        '{"task": "categorize_ticket", "input": {"text": "Where is my card?"}',
        "Where is my card?",
    ]
    lines = []
    for number in range(BAD):
        lines += good[number * 19 : (number + 1) * 19] + [bad[number % len(bad)]]
    return lines + good[BAD * 19 :]


class Terminal:
    """Somebody's terminal: a command is typed, and what it asks is answered with yes."""

    def __init__(self, folder, nightshift):
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
        self.environment = {
            **kept, "HOME": str(folder), "TERM": "dumb", "TZ": "UTC", "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION, "AWS_CONFIG_FILE": os.devnull,
            "PATH": f"{nightshift.parent}:{os.environ['PATH']}",
        }

    def run(self, command):
        """What it says, as it stands on the terminal, and its exit code."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        process = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "-c", command], cwd=self.folder, env=self.environment, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        said, answered, deadline = b"", 0, time.monotonic() + COMMAND_S_MAX
        while True:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    read = os.read(ours, 65536)
                except OSError:
                    read = b""  # Linux says so when nobody has the other end any more.
                if not read:
                    break
                said += read
            if said[answered:].endswith(PROMPT.encode()):
                answered = len(said)
                os.write(ours, b"y\n")
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)  # It leads the session.
                raise SystemExit(f"FAILED: no end within {COMMAND_S_MAX} s: {command}\n{said.decode(errors='replace')}")
        os.close(ours)
        return shown(said.decode(errors="replace")), process.wait()


def shown(said):
    """What a terminal shows in the end: a line that is written over is its last state."""
    lines = [line.rsplit("\r", 1)[-1] for line in said.replace("\r\n", "\n").split("\n")]
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines


# What is said on the way, as often as there is something new.
PROGRESS = re.compile(r"\d+ of \d+ sent")


def trimmed(lines, head, tail):
    kept = []
    for line in lines:
        if kept and PROGRESS.match(line) and PROGRESS.match(kept[-1]):
            kept.pop()
        kept.append(line)
    return kept if len(kept) <= head + tail + 1 else [*kept[:head], "…", *kept[-tail:]]


# What differs from run to run.
VOLATILE = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME"),
    (r"\b\d{4}-\d\d-\d\d-\d{6}-[0-9a-f]+\b", "ID"),
    (r"\b\d+(\.\d+)? (ms|s|min|h)( \d+ (s|min|h))?\b", "LONG"),
    (r"\d+\.\d+ USD", "MONEY USD"),
    (r"[─-╿]+|-{3,}", "─"),
    (r"\d+ of \d+ sent.*", "PROGRESS"),
    (r"\b[0-9a-f]{64}\b", "KEY"),
    (r"\d+ items, \d+ MB, about \d+ read units or \S+ USD|about \d+ messages|VERSION +\d+|(?<=succeeded, )\d+|(?<=needed; )[^.]*", "N"),
    (r"(last hour|spent today|alarms)  .*", r"\1"),
    (r"\s+", " "),
]


def masked(lines):
    masked = []
    for line in lines:
        for pattern, word in VOLATILE:
            line = re.sub(pattern, word, line)
        masked.append(line.strip())
    return masked


# The README ---------------------------------------------------------------------------------------


def section():
    text = README.read_text()
    before, _, after = text.partition(f"{HEADING}\n")
    require("the README has a working day", after)
    end = re.search(r"^##+ ", after, re.MULTILINE).start()
    return before + HEADING + "\n", after[:end], after[end:]


def blocks(text):
    """Each command with the lines below it; a command goes on in the next line after a backslash."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        goes_on = False
        for line in block.splitlines():
            if goes_on:
                found[-1][0] += f"\n{line}"
            elif line.startswith("$ "):
                found.append([line[2:], []])
            else:
                found[-1][1].append(line)
                continue
            goes_on = line.endswith("\\")
    return found


def written(text, said):
    """The section with these outputs in place of its own."""
    said = iter(said)

    def block(found):
        commands = [command for command, _ in blocks(found.group(0))]
        return "```console\n" + "".join(f"$ {command}\n" + "".join(f"{line}\n" for line in next(said)) for command in commands) + "```"

    return re.sub(r"^```console\n.*?^```$", block, text, flags=re.MULTILINE | re.DOTALL)


# The day ------------------------------------------------------------------------------------------


class Day:
    def __init__(self, folder, cases):
        self.gate = ModelGate(built() / "model-stub")
        self.gate.fault_of = {REFUSED: "refusal", IN_PROSE: "prose", REPORT_SAYS: "prose"}
        with tempfile.NamedTemporaryFile("w", suffix=".json") as settings:
            limits = {"hand_back_base_s": 2, "hand_back_s_max": 10, "capacity_wait_s_max": 300}
            json.dump({"model": {"base_url": self.gate.url}, "queues": {"maximum_concurrency": 4}, "limits": limits}, settings)
            settings.flush()
            scripts_stack("apply", "--prefix", PREFIX, "--region", REGION, "--settings", settings.name)
        self.stack = stack_of(PREFIX, REGION)
        # MiniStack has names of its own for the actions of batches.
        role = self.stack.client("lambda").get_function_configuration(FunctionName=f"{PREFIX}-redrive")["Role"].rsplit("/", 1)[1]
        allow = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": BATCHES, "Resource": "*"}]}
        self.role = {"RoleName": role, "PolicyName": "gaps"}
        self.stack.client("iam").put_role_policy(**self.role, PolicyDocument=json.dumps(allow))
        self.lines = lines_of(cases)
        (folder / "day.jsonl").write_text("".join(f"{line}\n" for line in self.lines))
        self.jobs = {}
        for line in self.lines:
            try:
                job = json.loads(line)
            except ValueError:
                continue
            if "reference" in job:
                self.jobs[job["reference"]] = job
        (folder / "report.json").write_text(json.dumps({
            "headline": "Two transfers were booked twice.", "highlights": ["Both were paid back within the week."], "risks": [], "next_steps": [],
            "nothing_to_report": False,
        }))
        self.folder = folder
        self.terminal = Terminal(folder, built() / "nightshift")

    def close(self):
        self.gate.close()
        self.stack.client("iam").delete_role_policy(**self.role)
        scripts_stack("destroy", "--prefix", PREFIX, "--region", REGION)

    def json(self, *arguments):
        """What a command answers to a program, and its exit code."""
        done = subprocess.run(
            ["nightshift", "--output", "json", *arguments], cwd=self.folder, env=self.terminal.environment, capture_output=True, text=True
        )
        return [json.loads(line) for line in done.stdout.splitlines() if line], done.returncode

    def watch(self):
        """Until `reconcile` says of no line that it waits."""

        def waits():
            lines, _ = self.json("reconcile", "day.jsonl.receipt")
            waiting = [line for line in lines if line["fate"] in ("waiting", "missing")]
            return not waiting, len(waiting)

        wait_until("no line waits", waits, 300)
        wait_until("the jobs queue is empty", lambda: ((depth := self.stack.depth("jobs")) == 0, depth), 300)

    def by_reference(self):
        return {record["reference"]: record for record in self.stack.records().values() if "reference" in record}

    def those(self, *words):
        return {reference for reference, job in self.jobs.items() if any(word in json.dumps(job["input"]) for word in words)}

    def peek(self):
        """The dead letters by their key, looked at and given back: body, attributes."""
        sqs, url = self.stack.client("sqs"), self.stack.outputs["dead_letters_queue_url"]
        found = []
        while got := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=BUSY * 60, MessageAttributeNames=["All"]).get("Messages"):
            found += got
        for message in found:
            sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
        letters = {}
        for message in found:
            attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
            if attributes["InputHash"] in letters:
                raise SystemExit(f"FAILED: two dead letters of one job: {attributes}")
            letters[attributes["InputHash"]] = (message["Body"], attributes)
        return letters


# Each command of the README: how it begins, its exit code, what happens before it, and what the stack holds after it.


def not_across_an_hour(day):
    """Dead letters are listed by the hour, and the README has one row for each reason."""
    left_s = 3600 - time.time() % 3600
    if left_s < 120:
        time.sleep(left_s)


def enqueued(day):
    require("the receipt has each good line", day.stack.depth("jobs") + len(day.stack.records()) > 0)
    day.watch()
    records = day.by_reference()
    day.failing = day.those(REFUSED, IN_PROSE) - day.those(REPORT_SAYS)
    failed = {reference: record["reason"] for reference, record in records.items() if record["state"] == "failed"}
    require("each good line has its record, and no bad line has one", set(records) == set(day.jobs), (len(records), len(day.jobs)))
    require("what the model does not do is a dead letter, and nothing else is", set(failed) == day.failing, len(failed))
    require("by its reason", all(reason == ("refused" if REFUSED in json.dumps(day.jobs[r]) else "invalid_output") for r, reason in failed.items()))
    require("each has its message", day.stack.depth("dead_letters") == len(failed), day.stack.depth("dead_letters"))
    day.letters = day.peek()


def nothing_changed(day):
    require("a dry run takes nothing", day.stack.depth("dead_letters") == len(day.failing) and day.asked == day.gate.asked)


def canary_failed(day):
    day.watch()
    require("all of them are dead letters again", {r for r, record in day.by_reference().items() if record["state"] == "failed"} == day.failing)
    letters = day.peek()
    tried = [key for key in letters if letters[key] != day.letters.get(key)]
    require("each has one message, with its body and its reason", {key: (body, of["FailureReason"]) for key, (body, of) in letters.items()} == {
        key: (body, of["FailureReason"]) for key, (body, of) in day.letters.items()
    })
    require("ten of them were tried, and of the others nothing has changed", len(tried) == CANARY, len(tried))


def mended(day):
    day.gate.fault_of = {}


def went_on(day):
    day.watch()
    states = {record["state"] for record in day.by_reference().values()}
    require("all have a result", states == {"done"} and day.stack.depth("dead_letters") == 0, (states, day.stack.depth("dead_letters")))
    # A slow machine's calls may time out, and then each stands in the ledger.
    repeated = sum(count - 1 for count in day.gate.answered.values())
    counted = sum(int(record["calls"]) - 1 for record in day.by_reference().values() if record["task"] == "categorize_ticket")
    require("no question was answered twice", repeated <= counted, (repeated, counted))
    print(f"  {repeated} answers for the same question, {counted} calls more than jobs")


def reviewed(reference, how):
    def check(day):
        record = day.by_reference()[reference]
        decision = json.loads(record["review_decision"])
        require(f"{reference} is {how}", record["state"] == "done" and record["reviewed"] is True and decision["decision"] == how, record)

    return check


def rejected(day):
    record = day.by_reference()["report-accounts"]
    require("the rejected one is a dead letter", (record["state"], record["reason"]) == ("failed", "review_rejected"), record)
    (letter,) = day.peek().values()
    require("with the body that was sent", json.loads(letter[0]) == day.jobs["report-accounts"], letter)


def exported(day):
    path = day.folder / "results.csv"
    require("only its owner may read it", path.stat().st_mode & 0o777 == 0o600)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    tickets = {reference for reference in day.jobs if reference.startswith("ticket-")}
    require("the file has each result of the task once", len(rows) == len(tickets) and {row["REFERENCE"] for row in rows} == tickets, (len(rows), rows[:1]))


def erased(day):
    states = [record["state"] for record in day.stack.records().values()]
    require("one record is a tombstone", states.count("erased") == 1)
    require("and nothing else is gone", len(states) == len(day.jobs) and "ticket-1500" not in day.by_reference())


def adds_up(day):
    lines, code = day.json("reconcile", "day.jsonl.receipt", "--all")
    fates = collections.Counter(line["fate"] for line in lines)
    require("each line is accounted for, and nothing is missing", sum(fates.values()) == LINES and code == 3, fates)
    print(f"  {dict(fates)}")


@dataclasses.dataclass
class Step:
    """A command of the README: how it begins, its exit code, how many lines of a long output the README has of its beginning and of
    its end, what the stack holds after it, and what happens before it."""

    begins: str
    status: int
    head: int
    tail: int
    after: Callable = lambda day: None
    before: Callable = lambda day: None


STEPS = [
    Step("nightshift enqueue", 3, 1, 10, enqueued, not_across_an_hour),
    Step("nightshift status", 0, 10, 1),
    Step("nightshift dead-letters list", 0, 4, 4),
    Step("nightshift redrive --failure refused --failure invalid_output --dry-run", 0, 4, 4, nothing_changed),
    Step("nightshift redrive", 3, 4, 4, canary_failed),
    Step("nightshift redrive", 0, 4, 4, went_on, mended),
    Step("nightshift review list", 0, 6, 4),
    Step("nightshift review accept", 0, 1, 3, reviewed("report-cards", "accepted")),
    Step("nightshift review edit", 0, 1, 3, reviewed("report-transfers", "edited")),
    Step("nightshift review reject", 0, 1, 3, rejected),
    Step("nightshift results export", 0, 4, 4, exported),
    Step("nightshift results delete", 0, 4, 4, erased),
    Step("nightshift reconcile", 3, 2, 4, adds_up),
]


def run(write=False):
    folder_of_cases = cases()
    if folder_of_cases is None:
        print("skipped: a working day (no cases folder)")
        return
    before, told, after = section()
    script = blocks(told)
    require("each command of the README's day has its step", len(script) == len(STEPS) and all(
        command.startswith(step.begins) for (command, _), step in zip(script, STEPS)
    ), [command for command, _ in script])
    folder = pathlib.Path(tempfile.mkdtemp(prefix="day-"))
    said, differing = [], []
    day = Day(folder, folder_of_cases)
    try:
        for (command, expected), step in zip(script, STEPS):
            step.before(day)
            day.asked = day.gate.asked
            lines, code = day.terminal.run(command)
            require(f"{step.begins}: exit code {step.status}", code == step.status, "\n".join([str(code), *lines]))
            step.after(day)
            said.append(trimmed(lines, step.head, step.tail))
            if masked(said[-1]) != masked(expected):
                differing.append("\n".join([f"$ {command}", *said[-1], "  and the README has", *expected]))
    finally:
        day.close()
        shutil.rmtree(folder)
        if write and said:
            README.write_text(before + written(told, said + [expected for _, expected in script[len(said) :]]) + after)
    if not write:
        require("each command says what the README has", not differing, "\n\n".join(differing))


if __name__ == "__main__":
    run(write="--write" in sys.argv[1:])
