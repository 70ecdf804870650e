"""How ops/test counts: nothing that failed is ever lost, and the last line says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

NO_NODE = "Node 20 or newer was not found: clients did not run."


def run(steps: str, **environment: str) -> tuple[int, list[str]]:
    """What a script of these steps exits with, and the lines it writes."""
    script = f'set -u\n. "{ROOT}/ops/lib/steps"\n{steps}\nsummary\n'
    clean = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=clean)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("said", "status", "counted"),
    [
        ("Success: no issues found", 0, "1 passed, 0 failed"),
        ("it broke", 2, "0 passed, 1 failed"),
        ("5 passed in 0.2s", 0, "5 passed, 0 failed"),
        ("1 failed, 5 passed, 2 skipped, 3 errors in 0.2s", 1, "5 passed, 4 failed"),
        ("1 error in 0.2s", 2, "0 passed, 1 failed"),
        ("12 passed, 0 failed", 0, "12 passed, 0 failed"),
        ("12 passed, 2 failed", 1, "12 passed, 2 failed"),
        ("3 passed, and then it was killed", 137, "3 passed, 1 failed"),
        ("2 passed, 1 failed, and an exit status that hides it", 0, "2 passed, 1 failed"),
        ("0 errors, 0 warnings, 0 informations", 0, "1 passed, 0 failed"),
        ("Found 2 errors in 1 file (checked 9 source files)", 1, "0 passed, 2 failed"),
        ("9 passed in a test of this", 0, "9 passed, 0 failed"),
    ],
)
def test_a_runner_is_counted_by_what_it_says_and_how_it_exits(
    said: str, status: int, counted: str
) -> None:
    exited, lines = run(f"step runner bash -c 'echo \"{said}\"; exit {status}'")

    assert lines[-1] == counted
    assert exited == (0 if counted.endswith(" 0 failed") else 1)


def test_a_runner_that_lacked_something_counts_as_nothing_and_is_said_to_be_skipped() -> None:
    exited, lines = run("step first true; step second bash -c 'echo no browser; exit 77'")

    assert exited == 0
    assert "-- skipped: second" in lines
    assert lines[-1] == "1 passed, 0 failed"


def test_steps_go_on_after_a_failure_and_it_is_named_at_the_end() -> None:
    exited, lines = run("step first false; step second true; step third bash -c 'exit 3'")

    assert exited == 1
    assert lines[-3:] == ["FAILED: first", "FAILED: third", "1 passed, 2 failed"]
    assert any(line.startswith("-- ok: second, ") for line in lines)


def test_without_node_a_line_says_so_and_the_rest_counts(tmp_path: Path) -> None:
    path = only_tools(tmp_path)

    exited, lines = run("node_step clients true; step rest true", PATH=path)

    assert exited == 0
    assert NO_NODE in lines
    assert lines[-1] == "1 passed, 0 failed"


def test_without_node_continuous_integration_fails(tmp_path: Path) -> None:
    path = only_tools(tmp_path)

    exited, lines = run("node_step clients true; step rest true", PATH=path, CI="true")

    assert exited == 1
    assert NO_NODE in lines
    assert lines[-2:] == ["FAILED: clients", "1 passed, 1 failed"]


def test_clients_are_installed_before_the_tests_that_need_them() -> None:
    script = (ROOT / "ops" / "test").read_text()

    before, tests, _ = script.partition('step "pytest"')

    assert tests
    assert "for folder in tests/clients ops/helpdesk; do" in before
    assert "npm ci --prefix" in before


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, "1 skipped"), ({"CI": "true"}, "1 failed")]
)
def test_a_test_without_its_official_client_is_skipped_and_in_continuous_integration_fails(
    environment: dict[str, str], expected: str
) -> None:
    pytest_of_one = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    test = ROOT / "tests" / "acceptance" / "test_kill_and_reconnect.py"

    done = subprocess.run(
        [*pytest_of_one, test],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PATH": str(ROOT / "nothing"), **environment},
    )

    assert expected in done.stdout
    assert ("npm ci --prefix tests/clients" in done.stdout) == (expected == "1 failed")


def only_tools(folder: Path) -> str:
    """A search path with what a script needs, and no Node."""
    for tool in ("bash", "awk", "grep", "tail", "tee", "mktemp", "rm"):
        places = (Path(place) / tool for place in os.environ["PATH"].split(os.pathsep))
        (folder / tool).symlink_to(next(place for place in places if place.exists()))
    return str(folder)
