"""What type checkers say of an application beside the types that were written for it."""

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
from tests.architecture.source_tree import ROOT
from tests.node.command_line import headrace
from tests.typing.test_typing import Found

HERE = Path(__file__).parent
MISTAKES = "mistakes.py"
CHECKED = ["right.py", MISTAKES, "backend/_generated"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application with its types, and what is written with them."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(HERE / "frontend" / "backend", root / "backend")
    for file in (HERE / "generated").glob("*.py"):
        shutil.copy(file, root)
    assert headrace(root, "codegen", "backend").code == 0
    config = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (root / "pyrightconfig.json").write_text(json.dumps({**config, "include": CHECKED}))
    return root


def expected(checker: str) -> Found:
    """What stands above the mistakes, by the lines of the mistakes themselves."""
    found: Found = Counter()
    for number, line in enumerate((HERE / "generated" / MISTAKES).read_text().splitlines(), 1):
        if said := re.match(rf" *# .*\b{checker} ([\w -]+)", line):
            found.update((number + 1, kind) for kind in said[1].split())
    assert len(found) > 25, "there are mistakes to be found"
    return found


def run(project: Path, *command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=project, capture_output=True, text=True
    ).stdout


def test_mypy_finds_exactly_the_mistakes(project: Path) -> None:
    report = run(
        project, "mypy", "--strict", "--no-error-summary", "--hide-error-context", *CHECKED
    )

    found = re.findall(r"^(\S+):(\d+): error: .*\[([\w-]+)\]$", report, re.MULTILINE)
    assert {MISTAKES} == {file for file, _, _ in found}, report
    assert expected("mypy") == Counter((int(line), code) for _, line, code in found), report


@needs_node
def test_pyright_finds_exactly_the_mistakes(project: Path) -> None:
    report = run(project, "pyright", "--outputjson", "--pythonpath", sys.executable)

    errors = json.loads(report)["generalDiagnostics"]
    assert {str(project / MISTAKES)} == {one["file"] for one in errors}, report
    found = Counter((one["range"]["start"]["line"] + 1, one["rule"]) for one in errors)
    assert expected("pyright") == found, report
