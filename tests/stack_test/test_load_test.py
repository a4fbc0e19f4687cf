"""What scripts/load-test leaves behind, however it ends; the stack, the deploy and the test itself are scripts that say what they did."""

import json
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = r"""
echo "stack $1" >>log
case $1 in
  up) mkdir -p "$NIGHTSHIFT_STACK_HOME"; : >"$NIGHTSHIFT_STACK_HOME/env" ;;
  down)
    if [[ -e stuck ]]; then rm stuck && exit 1; fi
    rm -rf "$NIGHTSHIFT_STACK_HOME"
    ;;
esac"""
# As Terraform does, into the folder of a workspace that is none of the script's.
DEPLOY = """echo deploy >>log
state=.tools/load-test${TF_WORKSPACE:+/module/terraform/terraform.tfstate.d/$TF_WORKSPACE}
mkdir -p "$state"
echo '{"mode": "managed"}' | sed 's/{/{ /' >"$state"/terraform.tfstate"""
# With `slow`, one that takes as long as that is there. It says first which stack it is, as scripts/destroy does.
DESTROY = """set -e
trap 'echo interrupted >>log; exit 1' INT TERM
echo "destroy: this stack"
echo destroying >>log
while [[ -e slow ]]; do sleep 0.05; done
echo destroy >>log"""
# With `hang`, a test that goes on until it is stopped, with a verdict on what there was.
TEST = """if [[ ${!#} == --check ]]; then if [[ $* == *--bogus* || -e report.html ]]; then exit 2; fi; exit; fi
echo $$ >pid
if [[ -e hang ]]; then trap '' PIPE; trap 'echo stopped >>log; exit 3' INT TERM; fi
echo "test $*" >>log
if [[ -e hang ]]; then while :; do sleep 0.05; done; fi
exit "$(cat verdict 2>/dev/null || echo 0)\""""


class Clone:
    def __init__(self, folder):
        self.folder = folder
        self.home = folder / ".tools" / "load-test"
        (folder / "scripts").mkdir()
        (folder / "terraform").mkdir()
        (folder / ".tools").mkdir()
        (folder / ".tools" / "venv").symlink_to(ROOT / ".tools" / "venv")
        for script in ["load-test", "tools", "requirements.txt"]:
            shutil.copy(ROOT / "scripts" / script, folder / "scripts" / script)
        for script, does in [("scripts/stack", STACK), ("scripts/deploy", DEPLOY), ("scripts/destroy", DESTROY), ("nightshift", TEST)]:
            (folder / script).write_text(f"#!/usr/bin/env bash\n{does}\n")
            (folder / script).chmod(0o755)
        self.hang = folder / "hang"
        self.environment = {}

    def begin(self, *arguments, **streams):
        environment = {**os.environ, "NIGHTSHIFT": str(self.folder / "nightshift"), **self.environment}
        self.begun = subprocess.Popen(
            [self.folder / "scripts" / "load-test", *arguments], env=environment, cwd=self.folder, text=True,
            start_new_session=True, **(streams or {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}),
            # What a shell starts in the background ignores it, and so would all that is started from there.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self.begun

    def run(self, *arguments):
        process = self.begin(*arguments)
        said = process.communicate()
        return process.returncode, "".join(said)

    def made(self):
        return json.loads((self.home / "variables.tfvars.json").read_text())

    def log(self):
        log = self.folder / "log"
        return [line for line in log.read_text().splitlines() if line != "destroying"] if log.exists() else []

    def wait_for(self, line):
        log = self.folder / "log"
        while True:
            ended = self.begun.poll() is not None
            if log.exists() and line in log.read_text():
                return
            assert not ended, f"it ended before it said: {line}"
            time.sleep(0.05)

    def left(self):
        kept = {"lock", "variables.tfvars.json", "module"}
        return [path.name for path in self.home.iterdir() if path.name not in kept]


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


@pytest.mark.parametrize("where, up, down", [(["--local"], "stack up", "stack down"), ([], "deploy", "destroy")])
def test_the_verdict_is_the_exit_code_and_the_stack_goes(clone, where, up, down):
    for verdict in [0, 3]:
        (clone.folder / "verdict").write_text(str(verdict))
        assert clone.run(*where, "--expected-per-hour", "60")[0] == verdict
        assert clone.log()[-3:] == [up, "test --prefix load-test load-test --yes --expected-per-hour 60", down]
        assert clone.left() == []


def test_the_state_is_the_scripts_own_whatever_workspace_somebody_works_in(clone):
    clone.environment = {"TF_WORKSPACE": "production", "TF_DATA_DIR": str(clone.folder / "data")}
    with open(clone.folder / "scripts" / "deploy", "a") as deploy:
        deploy.write('echo "$TF_DATA_DIR" >>log\n')
    assert clone.run("--expected-per-hour", "60")[0] == 0
    assert clone.log()[1] == str(clone.home / "data")
    assert clone.log()[-1] == "destroy"


def test_its_own_flags_may_stand_anywhere(clone):
    (clone.folder / "settings.json").write_text("{}")
    for own in [["--local", "--no-build"], ["--settings", "settings.json", "--local"], ["--settings=settings.json", "--local"]]:
        assert clone.run("--expected-per-hour", "60", *own)[0] == 0
        assert clone.log()[-3:] == ["stack up", "test --prefix load-test load-test --yes --expected-per-hour 60", "stack down"]
    (clone.folder / "log").unlink()
    assert clone.run("--expected-per-hour", "60", "--clean-up")[0] == 0
    assert clone.log() == []


def test_what_cannot_be_is_said_before_there_is_a_stack(clone):
    (clone.folder / "report.html").touch()
    # From where the caller stands.
    assert clone.run("--local", "--page", "report.html")[0] == 2
    (clone.folder / "report.html").unlink()
    assert clone.run("--local", "--bogus")[0] == 2
    assert clone.log() == []


@pytest.mark.parametrize("where, up, down", [(["--local"], "stack up", "stack down"), ([], "deploy", "destroy")])
def test_what_a_run_that_was_killed_left_goes_before_anything_else(clone, where, up, down):
    for again in [[*where, "--expected-per-hour", "60"], ["--clean-up"]]:
        (clone.folder / "log").unlink(missing_ok=True)
        clone.hang.touch()
        killed = clone.begin(*where, "--expected-per-hour", "60")
        clone.wait_for("test")
        os.killpg(killed.pid, signal.SIGKILL)
        os.killpg(os.getpgid(int((clone.folder / "pid").read_text())), signal.SIGKILL)
        killed.communicate()
        assert clone.log()[0] == up and down not in clone.log()
        assert clone.left() != []

        clone.hang.unlink()
        code, said = clone.run(*again)
        assert code == 0, said
        assert clone.log()[2] == down, "the first one's, before a stack is made"
        assert clone.log()[3:] == ([] if again == ["--clean-up"] else [up, clone.log()[1], down])
        assert clone.left() == []


def test_a_server_that_answers_no_more_is_no_reason_to_leave_its_folder(clone):
    (clone.folder / "stuck").touch()
    code, said = clone.run("--local", "--expected-per-hour", "60")
    assert code == 0, said
    assert clone.log()[-2:] == ["stack down", "stack down"]
    assert clone.left() == []


@pytest.mark.parametrize("stop", [lambda pid: os.killpg(pid, signal.SIGINT), lambda pid: os.kill(pid, signal.SIGTERM)])
def test_ctrl_c_gives_the_tests_verdict_and_takes_the_stack_away_and_so_does_a_term_that_only_the_script_gets(clone, stop):
    clone.hang.touch()
    stopped = clone.begin("--local", "--expected-per-hour", "60")
    clone.wait_for("test")
    stop(stopped.pid)
    stopped.communicate()
    assert stopped.returncode == 3
    assert clone.log()[-2:] == ["stopped", "stack down"]
    assert clone.left() == []


@pytest.mark.parametrize("when", ["test", "destroying"])
def test_a_terminal_that_goes_away_leaves_no_stack_and_what_was_said_is_in_a_file(clone, when):
    (clone.hang if when == "test" else clone.folder / "slow").touch()
    ours, its = pty.openpty()
    left = clone.begin("--expected-per-hour", "60", stdin=its, stdout=its, stderr=its)
    os.close(its)
    clone.wait_for(when)
    # Its reader is gone, so that whatever writes to it is refused, and whoever had it as its terminal is told.
    os.close(ours)
    left.send_signal(signal.SIGHUP)
    (clone.folder / "slow").unlink(missing_ok=True)
    left.wait()
    assert clone.log()[-1] == "destroy"
    assert clone.left() == ["said"]
    said = (clone.home / "said").read_text()
    assert ("destroy: this stack" in said) == (when == "test") and "the stack is gone" in said
    # Whoever comes back is told.
    assert "the stack is gone" in clone.run("--clean-up")[1]
    assert clone.left() == []


def test_whoever_reads_what_it_says_may_end_first(clone):
    clone.hang.touch()
    reader, writer = os.pipe()
    piped = clone.begin("--expected-per-hour", "60", stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    clone.wait_for("test")
    os.close(reader)
    os.killpg(piped.pid, signal.SIGINT)
    assert piped.wait() == 3
    assert clone.log()[-1] == "destroy"
    assert clone.left() == ["said"]


def test_no_ctrl_c_stops_the_taking_away(clone):
    (clone.folder / "slow").touch()
    stopped = clone.begin("--expected-per-hour", "60")
    clone.wait_for("destroying")
    for signalled in [signal.SIGINT, signal.SIGINT, signal.SIGTERM]:
        os.killpg(stopped.pid, signalled)
    (clone.folder / "slow").unlink()
    stopped.communicate()
    assert clone.log()[-1] == "destroy" and "interrupted" not in clone.log()
    assert clone.left() == []


def test_two_at_a_time_are_refused(clone):
    clone.hang.touch()
    first = clone.begin("--local", "--expected-per-hour", "60")
    clone.wait_for("test")
    code, said = clone.run("--local", "--expected-per-hour", "60")
    assert code == 1 and "another one is running" in said
    assert "stack down" not in clone.log()
    os.killpg(first.pid, signal.SIGINT)
    first.communicate()


def test_the_stack_keeps_its_name(clone):
    (clone.folder / "settings.json").write_text('{"prefix": "nightshift"}')
    code, said = clone.run("--local", "--settings", "settings.json", "--expected-per-hour", "60")
    assert code != 0 and "leave `prefix` out" in said
    assert clone.log() == []


def test_how_the_model_behaves_is_a_flag_which_counts_beside_settings(clone):
    (clone.folder / "settings.json").write_text('{"model": {"input_usd_per_mtok": 1, "id": "claude", "base_url": "https://a.example", "needs_key": false}, "limits": {"batch_size": 3}}')
    for flags, model in [
        ([], "seed=1,latency_ms=500..4000,error=0.01"), (["--model", "error=0.02"], "error=0.02"), (["--model=invalid=1"], "invalid=1"),
    ]:
        assert clone.run(*flags, "--expected-per-hour", "60")[0] == 0
        assert clone.made()["model"] == {"provider": "rehearsal", "id": model}
    assert clone.run("--model", "error=0.02", "--settings", "settings.json", "--expected-per-hour", "60")[0] == 0
    assert clone.made()["model"] == {"input_usd_per_mtok": 1, "provider": "rehearsal", "id": "error=0.02"}
    tests = [line for line in clone.log() if line.startswith("test ")]
    assert tests == ["test --prefix load-test load-test --yes --expected-per-hour 60"] * 4
    # What the rehearsal does not know is told before there is a stack.
    assert clone.run("--model", "--bogus", "--expected-per-hour", "60")[0] == 2
    assert len([line for line in clone.log() if line == "deploy"]) == 4


def test_settings_of_the_stack_that_works_neither_protect_the_stack_nor_wake_anybody_nor_use_its_table(clone):
    settings = {
        "protect_data": True, "page_emails": ["a@b.example"], "ticket_emails": ["a@b.example"], "notify": {"page": {"actions": ["arn:aws:sns"]}},
        "jobs_expected": {"from_hour": 8, "to_hour": 18}, "ledger": {"table_name": "restored", "result_expiry_days": 3}, "limits": {"batch_size": 3},
    }
    (clone.folder / "settings.json").write_text(json.dumps(settings))
    code, said = clone.run("--settings", "settings.json", "--expected-per-hour", "60")
    assert code == 0, said
    made = clone.made()
    assert made == {
        "prefix": "load-test", "protect_data": False, "page_emails": [], "ticket_emails": [], "notify": {}, "jobs_expected": None,
        "ledger": {"result_expiry_days": 3}, "limits": {"batch_size": 3}, "model": made["model"],
    }
    assert "left out of the settings: jobs_expected, ledger.table_name, notify, page_emails, protect_data, ticket_emails" in said
    (clone.folder / "settings.json").write_text('{"limits": {}, "protect_data": false}')
    assert "left out" not in clone.run("--settings", "settings.json", "--expected-per-hour", "60")[1]


@pytest.mark.parametrize("flag", [["--prefix", "nightshift"], ["--prefix=nightshift"], ["--region", "eu-west-1"], ["--region=eu-west-1"]])
def test_no_other_stack_is_tested_than_the_one_it_makes(clone, flag):
    code, said = clone.run("--local", "--expected-per-hour", "60", *flag)
    assert code == 2 and f"leave {flag[0].split('=')[0]} out" in said
    assert clone.log() == []


def test_destroy_names_the_module_whose_data_is_protected(tmp_path):
    state = {"values": {"root_module": {"resources": [
        {"mode": "managed", "type": "aws_dynamodb_table", "values": {"name": "load-test-ledger", "deletion_protection_enabled": True}},
    ]}}}
    (tmp_path / "terraform").write_text(f"#!/usr/bin/env bash\n[[ $2 == init ]] || echo '{json.dumps(state)}'\n")
    (tmp_path / "terraform").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "NIGHTSHIFT_MODULE": "a copy/terraform"}
    done = subprocess.run([ROOT / "scripts" / "destroy", "--yes"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "terraform -chdir='a copy/terraform' apply -var protect_data=false" in done.stderr
