"""A terminal in which somebody pastes blocks of commands, one after the other, and answers what they ask."""

import dataclasses
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import tempfile
import termios
import time

import warm_aws
from stack import BUSY

# What a command writes when it waits for an answer, and the answer.
PROMPTS = {"Go on? [y/N] ": "y", "Enter a value: ": "yes", "(yes) ": "yes"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# A slow machine may take long; what stands still is no page for somebody who was woken up.
SECTION_S_MAX = BUSY * 420

# Counts each call with its exit code, wherever in a block it stands: a pipe and $(...) hide it from the shell.  What a script
# calls is the script's own affair.
RECORDER = """#!/usr/bin/env bash
endpoint=$AWS_ENDPOINT_URL
[[ "$*" != "sqs "*-message-move-task* ]] || endpoint=${{RUNBOOK_MOVES:-$endpoint}}
"$RUNBOOK_{name}" {more} "$@"
status=$?
[[ $(tr '\\0' ' ' <"/proc/$PPID/cmdline") == "bash --norc "* ]] || exit "$status"
printf '%s\\0' {name} "$status" "$@" >"$RUNBOOK_CALLS/$EPOCHREALTIME-$$"
exit "$status"
"""


# A block's exit code is that of its last command, as `echo $?` shows it; what fails before that is told of the calls.
PASTE = r"""
set -E
for __block in "$@"; do
  export RUNBOOK_CALLS="${__block%.sh}.calls"
  trap 'printf "%s\0" shell "$?" "$BASH_COMMAND" >"$RUNBOOK_CALLS/$EPOCHREALTIME-$BASHPID"' ERR
  . "$__block"
  echo $? >"${__block%.sh}.status"
  printf '\036'
done
"""


# Of `nightshift doctor`: it has found something, and an alarm that is raised is a finding.
FINDINGS = 3


@dataclasses.dataclass
class Call:
    program: str
    status: int
    arguments: list

    @property
    def failed(self):
        """The shell tells of the same exit code, with the command as it was typed."""
        words = " ".join(self.arguments).split()
        found = self.status == FINDINGS and "doctor" in words and (self.program == "nightshift" or words[0] == "nightshift")
        return self.status != 0 and not found

    def __str__(self):
        return f"{self.program} {' '.join(self.arguments)} (exit code {self.status})"


@dataclasses.dataclass
class Ran:
    block: object
    status: int
    output: str
    calls: list

    @property
    def failed_calls(self):
        return [call for call in self.calls if call.failed]


class OperatorShell:
    def __init__(self, environment, nightshift):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="runbook-"))
        # What the shell is run by.
        self.within = []
        self.server, aws = warm_aws.start(self.folder)
        programs = {"aws": (aws, '--endpoint-url "$endpoint"'), "nightshift": (nightshift, "")}
        (self.folder / "bin").mkdir()
        self.work = self.folder / "work"
        self.work.mkdir()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "NIGHTSHIFT_"))},
            "HOME": str(self.folder), "AWS_CONFIG_FILE": os.devnull, "TERM": "dumb", **environment,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        for name, (program, more) in programs.items():
            recorder = self.folder / "bin" / name
            recorder.write_text(RECORDER.format(name=name, more=more))
            recorder.chmod(0o755)
            self.environment[f"RUNBOOK_{name}"] = str(program)

    def close(self):
        if self.server:
            self.server.kill()
            self.server.wait()
        shutil.rmtree(self.folder)

    def run(self, blocks, environment=None, answers=None):
        """Runs blocks in one shell, as they would be pasted into it; ends with what each did."""
        answers = {**PROMPTS, **(answers or {})}
        scripts, ran = [], []
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            for number, block in enumerate(blocks):
                script = pathlib.Path(folder) / f"{number}.sh"
                script.write_text(block.text)
                scripts.append(script)
                (script.parent / f"{number}.calls").mkdir()
            text = self._on_a_terminal([*self.within, "bash", "--norc", "-c", PASTE, "bash", *map(str, scripts)], environment or {}, answers)
            outputs = text.split("\x1e")
            for number, (block, script) in enumerate(zip(blocks, scripts)):
                status = script.with_suffix(".status")
                ran.append(Ran(
                    block, int(status.read_text()) if status.exists() else -1, outputs[number] if number < len(outputs) else "",
                    [self._call(path) for path in sorted(script.with_suffix(".calls").iterdir())],
                ))
        return ran

    @staticmethod
    def _call(path):
        program, status, *arguments = path.read_text().split("\0")[:-1]
        return Call(program, int(status), arguments)

    def _on_a_terminal(self, command, environment, answers):
        ours, theirs = pty.openpty()
        # A terminal of its own, which is also what a question about a password is asked on.
        process = subprocess.Popen(
            ["setsid", "--ctty", *command], cwd=self.work, env={**self.environment, **environment},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )
        os.close(theirs)
        text, answered, deadline = "", 0, time.monotonic() + SECTION_S_MAX
        while True:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    read = os.read(ours, 65536).decode(errors="replace")
                except OSError:
                    read = ""  # Linux says so when nobody has the other end any more.
                if not read:
                    break
                text = COLOURS.sub("", text + read.replace("\r\n", "\n"))
            for prompt, answer in answers.items():
                # Whoever hides what is typed throws away what was typed before that.
                hides = prompt.startswith("Model key")
                if text[answered:].endswith(prompt) and not (hides and termios.tcgetattr(ours)[3] & termios.ECHO):
                    answered = len(text)
                    os.write(ours, f"{answer}\n".encode())
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)  # It leads the session.
                text += f"\n(stopped: no end within {SECTION_S_MAX} s)\n"
                break
        os.close(ours)
        process.wait()
        return text
