"""What the TypeScript compiler says of right and wrong front ends of an application."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from engine.app.registry import Application
from engine.codegen import typescript
from engine.functions.loader import load, withdraw
from tests.acceptance.windows import skipped_unless
from tests.architecture.source_tree import ROOT

HERE = Path(__file__).parent / "frontend"
PACKAGES = ROOT / "tests" / "clients" / "node_modules"
COMPILER = PACKAGES / "typescript" / "bin" / "tsc"
MISTAKES = "src/mistakes.tsx"

pytestmark = [
    pytest.mark.slow,
    skipped_unless(
        shutil.which("node") is not None and COMPILER.is_file(),
        "the TypeScript compiler is not here: npm ci --prefix tests/clients",
    ),
]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the compiler says of both, with what was generated for the application."""
    root = tmp_path_factory.mktemp("frontend")
    shutil.copytree(HERE / "src", root / "src")
    shutil.copy(HERE / "tsconfig.json", root)
    (root / "node_modules").symlink_to(PACKAGES)
    application = load(HERE / "backend", name="frontend_backend")
    withdraw(application)
    write(root / "convex" / "_generated", application)
    write(root / "convex" / "open", replace(application, schema=None))
    ended = subprocess.run(
        ["node", str(COMPILER), "--pretty", "false"], cwd=root, capture_output=True, text=True
    )
    return ended.stdout + ended.stderr


def write(folder: Path, application: Application) -> None:
    folder.mkdir(parents=True)
    for name, text in typescript.files_of(application).items():
        (folder / name).write_text(text)


def test_the_compiler_finds_exactly_the_mistakes(said: str) -> None:
    expected: Counter[tuple[str, int, str]] = Counter()
    for number, line in enumerate((HERE / MISTAKES).read_text().splitlines(), 1):
        expected.update((MISTAKES, number + 1, code) for code in re.findall(r"TS\d+", line))

    found = re.findall(r"^(\S+)\((\d+),\d+\): error (TS\d+)", said, re.MULTILINE)

    assert len(expected) > 30, "there are mistakes to be found"
    assert Counter((file, int(line), code) for file, line, code in found) == expected, said
