"""What `scripts/test quick` runs after a change."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import quick  # noqa: E402


@pytest.fixture(scope="module")
def packages():
    return quick.workspace()


@pytest.mark.parametrize("changed, whole, targets, also, left_out", [
    # Everything of ours depends on the core, but the stand-ins, which know protocols and nothing of ours.
    (["crates/core/src/retry.rs"], {"nightshift-core", "nightshift-worker", "nightshift-tasks", "nightshift-simulation", "nightshift-tests", "my-tasks"},
     {"repository"}, {"lint"}, quick.SLOW),
    (["crates/my-tasks/src/detect_churn.rs"], {"my-tasks", "nightshift-tasks", "nightshift-worker-function", "nightshift-demo"}, {"repository"}, {"lint"}, quick.SLOW),
    (["terraform/queues.tf"], set(), {"repository"}, {"terraform", "scripts"}, set()),
    (["terraform/alarms.tf"], set(), {"repository"}, {"terraform", "scripts", "drills"}, set()),
    (["runbook/no-progress.md"], set(), {"repository", quick.COMMAND}, {"terraform", "scripts"}, set()),
    (["README.md"], set(), {"repository", quick.COMMAND}, {"scripts"}, set()),
    (["scripts/build"], set(), set(), {"scripts"}, set()),
    (["tests/scenarios/batch.rs"], set(), {"scenarios"}, {"lint"}, set()),
    (["tests/kills/lane.rs"], set(), set(), {"lint"}, {"kills"}),
    (["tests/src/memory.rs"], {"nightshift-tests"}, {"repository"}, {"lint"}, quick.SLOW),
    (["tests/simulation/src/world.rs"], {"nightshift-simulation", "nightshift-tests"}, {"repository"}, {"lint"}, quick.SLOW),
    ([], set(), set(), set(), set()),
])
def test_what_depends_on_a_change_is_run(packages, changed, whole, targets, also, left_out):
    chosen = quick.plan(changed, packages)
    assert whole <= chosen["packages"], chosen
    assert bool(whole) == bool(chosen["packages"]), chosen
    assert chosen["targets"] == targets and chosen["also"] == also and chosen["left_out"] == left_out, chosen


def test_what_cargo_test_does_not_run_by_itself_is_not_run_without_its_arguments(packages):
    assert all("drill" not in package["tests"] for package in packages.values())


def test_a_change_of_the_core_does_not_concern_the_stand_ins(packages):
    assert "nightshift-local" not in quick.plan(["crates/core/src/retry.rs"], packages)["packages"]


def test_what_decides_how_all_is_built_concerns_all(packages):
    assert quick.plan(["Cargo.lock"], packages)["packages"] == set(packages)
