"""Type checkers accept the example, and find in the mistakes exactly what is to be found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.acceptance.windows import needs_node

ROOT = Path(__file__).parents[2]
EXAMPLE = "tests/typing/example"
MISTAKES = Path("tests/typing/mistakes.py")

Found = Counter[tuple[int, str]]
"""How often a line has an error of a kind."""

pytestmark = pytest.mark.slow


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )


def mypy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("mypy", "--strict", "--no-error-summary", "--hide-error-context", *arguments)


def expected(checker: str) -> Found:
    """What stands above the mistakes, by the lines of the mistakes themselves."""
    found: Found = Counter()
    for number, line in enumerate((ROOT / MISTAKES).read_text().splitlines(), 1):
        if said := re.match(rf" *# .*\b{checker} ([\w -]+)", line):
            found.update((number + 1, kind) for kind in said[1].split())
    assert found, "there are mistakes to be found"
    return found


def test_mypy_has_nothing_to_say_about_the_example() -> None:
    report = mypy(EXAMPLE)

    assert report.stdout == ""
    assert report.returncode == 0, report.stderr


@needs_node
def test_pyright_has_nothing_to_say_about_the_example() -> None:
    report = run("pyright", EXAMPLE)

    assert report.stdout.strip() == "0 errors, 0 warnings, 0 informations"


def test_mypy_finds_exactly_the_mistakes() -> None:
    report = mypy(str(MISTAKES))
    found = re.findall(r":(\d+): error: .*\[([\w-]+)\]$", report.stdout, re.MULTILINE)

    assert Counter((int(line), code) for line, code in found) == expected("mypy"), report.stdout


@needs_node
def test_pyright_finds_exactly_the_mistakes(tmp_path: Path) -> None:
    # The project's own configuration leaves the mistakes out, so here is another.
    config = {
        "typeCheckingMode": "strict",
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
    }
    shutil.copy(ROOT / MISTAKES, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))

    report = run(
        "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(tmp_path)
    )

    errors = json.loads(report.stdout)["generalDiagnostics"]
    found = Counter((one["range"]["start"]["line"] + 1, one["rule"]) for one in errors)
    assert found == expected("pyright"), report.stdout
