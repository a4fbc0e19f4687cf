"""`scripts/test quick`: format, lint, and the tests of what depends on a change, for somebody who edits.

What changed is told by git: everything since the branch left its upstream (or main), not yet committed and untracked
files included. What takes minutes whatever changed is left out and said at the end; `scripts/test` runs all.
"""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Targets of tests that start servers or programs, or build them: minutes, warm.
SLOW = {"contracts", "demo", "kills", "newcomer"}
# The program whose tests read the pages that tell how to use it.
COMMAND = "nightshift"
COMMAND_PACKAGE = "nightshift-cli"
# What decides how everything is built.
BUILD = {"Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "clippy.toml"}


def plan(changed, packages):
    """What to run for these paths.

    `packages`: by name, its folder, the names of ours that it depends on, and its targets of tests with the folder of each.
    Returns the parts of a run: packages with tests to run, single targets, and what else.
    """
    whole, targets, also = set(), set(), set()
    # The deepest folder wins: tests/simulation is a package inside of another one.
    folders = sorted(((package["folder"], name) for name, package in packages.items()), reverse=True)
    for path in changed:
        top = path.split("/")[0]
        if path in BUILD:
            whole |= set(packages)
        owner = next((name for folder, name in folders if path.startswith(folder + "/")), None)
        own_target = next((t for t, folder in packages[owner]["tests"].items() if path.startswith(folder + "/")), None) if owner else None
        if own_target:
            targets.add(own_target)
        elif owner and path.endswith((".rs", ".toml", ".json", ".jsonl", ".snap", ".txt")) and (top != "tests" or "/src/" in path or path.endswith(".toml")):
            whole.add(owner)
        if top in ("terraform", "runbook") or path.startswith("tests/fake_provider/"):
            also.add("terraform")
        if path.startswith(("terraform/alarms", "terraform/dashboard")):
            also.add("drills")
        if path.endswith(".md") or top in ("terraform", "runbook"):
            targets.add("repository")
        if path == "README.md" or top == "runbook":
            targets.add(COMMAND)
        # What pages name is made there.
        if path == "README.md" or top in ("terraform", "runbook"):
            also.add("scripts")
        if top in ("scripts", ".ci") or path.startswith(("tests/stack_test/", "tests/mutants/")):
            also.add("scripts")
    # Whoever depends on a changed package, until there are no more.
    while more := {name for name, package in packages.items() if name not in whole and whole & package["on"]}:
        whole |= more
    if whole:
        also.add("lint")
        targets.add("repository")
    if any(path.endswith(".rs") for path in changed):
        also.add("lint")
    every = {target for name in whole for target in packages[name]["tests"]}
    left_out = (every | targets) & SLOW
    return {"packages": whole, "targets": targets - SLOW, "also": also, "left_out": left_out}


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def changes():
    upstream = git("rev-parse", "--abbrev-ref", "@{upstream}").strip() or "main"
    base = git("merge-base", "HEAD", upstream).strip() or "HEAD"
    since = git("diff", "--name-only", "-z", base)
    untracked = git("ls-files", "-z", "--others", "--exclude-standard")
    return sorted({path for path in (since + untracked).split("\0") if path}), upstream


def workspace():
    """Our packages, from cargo."""
    text = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", "--no-deps", "--offline"], cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True,
    ).stdout
    found = json.loads(text)["packages"]
    ours = {package["name"] for package in found}

    def folder(path):
        return str(pathlib.Path(path).parent.relative_to(ROOT))

    return {
        package["name"]: {
            "folder": folder(package["manifest_path"]),
            "on": {dependency["name"] for dependency in package["dependencies"]} & ours,
            "tests": {target["name"]: folder(target["src_path"]) for target in package["targets"] if "test" in target["kind"] and target["test"]},
        }
        for package in found
    }


def run(*command):
    print("$", *command, flush=True)
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT).returncode
    print(f"  {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    return code == 0


def run_tests(packages, chosen):
    """Builds as `scripts/test crates` does, with the features of the whole workspace, so that what is built is built once."""
    names = {target for name in chosen["packages"] for target in packages[name]["tests"]} | chosen["targets"]
    selected = [part for name in sorted(names - SLOW) for part in ("--bin" if name == COMMAND else "--test", name)]
    # Our unit tests too, in libraries and programs.
    selected += ["--lib", "--bins"] if chosen["packages"] else []
    command = ["cargo", "test", "--workspace", "--locked", "--quiet", *selected]
    print("$", *command, flush=True)
    began = time.monotonic()
    built = subprocess.run([*command, "--no-run", "--message-format", "json-render-diagnostics"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    programs = []
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
            continue
        target, manifest = message["target"]["name"], pathlib.Path(message["manifest_path"])
        owner = next(name for name, package in packages.items() if ROOT / package["folder"] == manifest.parent)
        if owner in chosen["packages"] or target in chosen["targets"]:
            programs.append((owner, target, message["executable"], manifest.parent))

    def test(program):
        owner, target, executable, folder = program
        done = subprocess.run([executable, "--quiet"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            print(f"{done.stdout}\n  FAILED: {owner}, {target}", flush=True)
        return done.returncode == 0

    passed = built.returncode == 0
    if passed:
        # Those of the command wait for most of their time, and are the longest: they begin first, and the others run beside them.
        programs.sort(key=lambda program: program[0] != COMMAND_PACKAGE)
        with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
            passed = all(list(pool.map(test, programs)))
    print(f"  {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    return passed


def main():
    changed, upstream = changes()
    packages = workspace()
    chosen = plan(changed, packages)
    print(f"quick: {len(changed)} files differ from {upstream}; packages: {', '.join(sorted(chosen['packages'])) or 'none'}")
    results = [run("cargo", "fmt", "--all", "--check")]
    if "lint" in chosen["also"]:
        results.append(run("cargo", "clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"))
    if chosen["packages"] or chosen["targets"]:
        results.append(run_tests(packages, chosen))
    if "scripts" in chosen["also"]:
        results.append(run("scripts/test", "scripts"))
    if "terraform" in chosen["also"]:
        results.append(run("scripts/check-terraform", "fmt", "validate", "test"))
    for target in sorted(chosen["left_out"]):
        print(f"left out: {target}, which takes minutes: cargo test --workspace --test {target}")
    if "nightshift-drills" in chosen["packages"] or "drills" in chosen["also"]:
        print("left out: the drills, which take minutes: scripts/drill")
    if "terraform" in chosen["also"]:
        print("left out: plan, refusals, tflint, checkov and the stack: scripts/test terraform stack")
    print(f"quick: {'passed' if all(results) else 'FAILED'}; scripts/test runs everything")
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
