"""The tables of the READMEs name what is there, and all of it."""

from __future__ import annotations

import re

from bench.harness import entries
from tests.architecture.source_tree import ROOT


def first_cells(readme: str) -> list[str]:
    """What stands in backquotes at the beginning of the rows."""
    text = (ROOT / readme).read_text()
    return re.findall(r"(?m)^\| `([^`]+)` +\|", text)


def test_every_folder_of_tests_is_in_the_table() -> None:
    folders = {
        f"{path.name}/" for path in ROOT.joinpath("tests").iterdir() if any(path.glob("**/*.py"))
    }

    assert folders == {cell for cell in first_cells("tests/README.md") if cell.endswith("/")}


def test_every_file_that_tries_a_promise_is_there() -> None:
    text = (ROOT / "tests/README.md").read_text()

    named = re.findall(r"`((?:acceptance|node)/[\w.]+)`", text)

    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    assert named


def test_every_bench_is_in_the_table() -> None:
    assert sorted(entries()) == sorted(first_cells("bench/README.md"))
