"""The example application, as whoever wrote it uses it: in its own folder, by commands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.windows import needs_node

EXAMPLE = Path(__file__).parents[1] / "contract_app"
MISTAKES = {5, 6, 7, 10}
"""Lines of mistakes.py: a misspelt argument, a string for an id, one missing, a misspelt field."""

pytestmark = pytest.mark.slow


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=EXAMPLE, capture_output=True, text=True
    )


def test_its_tests_pass() -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider")

    assert (0, "1 passed") == (done.returncode, done.stdout.splitlines()[-1][:8]), done.stdout


@pytest.mark.parametrize("options", [["-p", "no:trio"], ["-o", "trio_mode=true"]], ids=str)
def test_its_tests_pass_whoever_runs_them(options: list[str]) -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider", *options)

    assert 0 == done.returncode, done.stdout


def test_mypy_has_nothing_to_say_about_it(tmp_path: Path) -> None:
    done = run("mypy", "--strict", "--cache-dir", str(tmp_path), "backend", "tests", "main.py")

    assert 0 == done.returncode, done.stdout


@needs_node
def test_pyright_has_nothing_to_say_about_it() -> None:
    done = run("pyright", "--pythonpath", sys.executable)

    assert "0 errors, 0 warnings, 0 informations" == done.stdout.strip()


def test_mypy_finds_exactly_the_mistakes(tmp_path: Path) -> None:
    done = run("mypy", "--strict", "--cache-dir", str(tmp_path), "mistakes.py")

    assert MISTAKES == {int(n) for n in re.findall(r":(\d+): error:", done.stdout)}, done.stdout


@needs_node
def test_pyright_finds_exactly_the_mistakes() -> None:
    done = run("pyright", "--outputjson", "--pythonpath", sys.executable, "mistakes.py")

    errors = json.loads(done.stdout)["generalDiagnostics"]
    found = {
        error["range"]["start"]["line"] + 1 for error in errors if error["severity"] == "error"
    }
    assert MISTAKES == found
