"""The import contracts of pyproject.toml hold, and would not if somebody broke them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT

DOWN = "Imports point down, toward the log"
CYCLES = "No cycles among siblings, at any depth"
WRITES = "Only functions reach the write path, put together by the node"
LOG = "The log is for those who write, fold or follow it"
PURE = "The pure core: no tasks, no disk, no clock, no dice"


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the `engine` in `tree` against the contracts of its pyproject.toml."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=tree, capture_output=True, text=True
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the engine to plant something in."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "engine", tmp_path / "engine")
    return tmp_path


def test_the_contracts_hold() -> None:
    report = lint_imports(ROOT)

    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(
    ("module", "planted", "contract"),
    [
        ("model/limits.py", "import engine.store", DOWN),
        ("server/planted.py", "import engine.scheduler", DOWN),
        ("planted.py", "", DOWN),
        ("kernel/trace.py", "import engine.kernel.actor", CYCLES),
        ("server/planted.py", "from engine.transaction import overlay", WRITES),
        ("functions/planted.py", "from engine.log import records", LOG),
        ("model/planted.py", "import random", PURE),
        ("app/planted.py", "import trio", PURE),
    ],
)
def test_a_planted_import_breaks_its_contract(
    tree: Path, module: str, planted: str, contract: str
) -> None:
    path = tree / "engine" / module
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(f"\n{planted}\n")
    report = lint_imports(tree)

    assert report.returncode == 1
    assert f"{contract} BROKEN" in report.stdout
