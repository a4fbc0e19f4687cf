"""What scripts say where something that README asks for is missing or too old."""

import os
import pathlib
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def machine(tmp_path):
    """A PATH with the usual commands, and those that a test puts there."""
    for command in ["bash", "basename", "cut", "dirname", "env", "flock", "head", "sed", "sha256sum", "sort"]:
        (tmp_path / command).symlink_to(shutil.which(command))

    def has(command, output):
        (tmp_path / command).write_text(f"#!/usr/bin/env bash\nprintf '%s\\n' {shlex.quote(output)}\n")
        (tmp_path / command).chmod(0o755)

    def need(*what):
        done = subprocess.run(
            ["bash", "-c", 'source "$0/scripts/tools"; tools_need "$@"', ROOT, *what],
            env={"PATH": str(tmp_path), "HOME": str(tmp_path)}, capture_output=True, text=True,
        )
        return done.returncode, done.stderr

    need.has = has
    return need


@pytest.mark.parametrize("what, command, output, said", [
    ("terraform", "terraform", "Terraform v1.5.7\non linux_amd64", "terraform 1.5.7 is too old, 1.9 or newer is needed"),
    ("terraform", "terraform", "Terraform v1.10.0\non linux_amd64", ""),
    ("terraform", "terraform", "Terraform v1.9.0", ""),
    ("terraform", None, None, "terraform 1.9 or newer is missing: https://"),
    ("python", "python3", "3.9.18", "python 3.9.18 is too old, 3.10 or newer is needed"),
    ("python", "python3", "3.11.7", ""),
    ("java", "java", 'openjdk version "11.0.2" 2019-01-15', "java 11.0.2 is too old"),
    ("java", "java", 'openjdk version "21" 2023-09-19', ""),
    ("aws", "aws", "aws-cli/1.45.11 Python/3.11.7 Linux/6.18 botocore/1.43.11", ""),
    ("aws", None, None, "aws is missing: https://"),
    ("rust", None, None, "rust is missing: https://rustup.rs"),
    ("jq", None, None, "jq is missing"),
])
def test_what_is_missing_or_too_old_is_said(machine, what, command, output, said):
    if command:
        machine.has(command, output)
    code, error = machine(what)
    assert (code == 0) == (not said), error
    assert said in error, error


def test_all_of_it_is_said_at_once(machine):
    code, error = machine("rust", "terraform", "aws")
    assert code == 1 and len(error.splitlines()) == 3, error


def stack(home, *arguments):
    environment = {**os.environ, "NIGHTSHIFT_STACK_HOME": str(home)}
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_what_stands_behind_the_environment_of_a_stack_that_is_down_is_not_run(tmp_path):
    code, out, err = stack(tmp_path, "bash", "-c", 'eval "$(scripts/stack env)" && echo "went on"')
    assert code != 0 and "went on" not in out and "is not up: scripts/stack up" in err


# The help of the other two is of the program that they build.
SCRIPTS = sorted(
    file.name for file in (ROOT / "scripts").iterdir()
    if file.is_file() and file.read_text().startswith("#!/usr/bin/env bash") and file.name not in ("demo", "simulate")
)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_a_script_says_what_it_is_for_and_does_nothing(tmp_path, name, word):
    path = os.path.relpath(ROOT / "scripts" / name, tmp_path)
    done = subprocess.run([path, word], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    head = (ROOT / "scripts" / name).read_text().split("\nset -")[0].splitlines()[1:]
    assert done.stdout.splitlines() == [line.removeprefix("#").removeprefix(" ") for line in head if "shellcheck disable" not in line]


# What a drill and a load test do not know is refused by the program that they start, and a stage has words of its own.
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in ("drill", "load-test", "test")])
def test_what_a_script_does_not_know_is_named_before_it_does_anything(name):
    done = subprocess.run([ROOT / "scripts" / name, "--bogus"], capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert (done.returncode, done.stdout, said[0]) == (2, "", f"{name}: not understood: --bogus"), done.stderr
    assert any(f"scripts/{name}" in line for line in said[1:]), done.stderr


@pytest.mark.parametrize("word, arguments", [("--perfix", ["--perfix", "ux"]), ("--prefix", ["--prefix"])])
def test_an_option_that_there_is_not_is_named(tmp_path, word, arguments):
    code, _, err = stack(tmp_path, "scripts/stack", "smoke", *arguments)
    assert code == 2 and err.startswith(f"stack: {word} is no option")


def test_a_model_that_is_there_is_of_no_use_without_the_python_that_runs_its_server(tmp_path):
    """`scripts/servers llama` says to run `scripts/tools model`, where either is gone."""
    (tmp_path / "scripts").mkdir()
    for file in ["tools", "requirements.txt", "requirements-model.txt"]:
        shutil.copy(ROOT / "scripts" / file, tmp_path / "scripts")
    model = tmp_path / ".tools" / "model"
    model.mkdir(parents=True)
    wanted = subprocess.run(["sha256sum"], stdin=open(tmp_path / "scripts/requirements-model.txt"), capture_output=True, text=True)
    (model / "installed").write_text(wanted.stdout)
    asked = subprocess.run(
        ["bash", "-c", 'source scripts/tools; tools_venv() { echo "$@"; }; tools_model'], cwd=tmp_path, capture_output=True, text=True,
    )
    assert (asked.returncode, asked.stdout) == (0, "venv requirements.txt\n"), asked.stderr
