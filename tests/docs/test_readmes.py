"""Every README does what it says, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, files
from tests.docs.readme import Block, Section, follow, sections

TEMPLATES = ROOT / "engine" / "cli" / "templates"
"""Their READMEs are of projects yet to be made; `tests/clients/browser` does what they say."""
READMES = [
    path for path in files() if path.name == "README.md" and not path.is_relative_to(TEMPLATES)
]


def runnable() -> Iterator[object]:
    for path in READMES:
        for section in sections(path.read_text()):
            name = f"{path.relative_to(ROOT)}:{section.line}"
            if any(block.does_something for block in section.blocks):
                yield pytest.param(section, id=f"{name} {section.title}")


def only_shown() -> Iterator[object]:
    for path in READMES:
        for section in sections(path.read_text()):
            for block in section.blocks:
                if why := block.why_not_run:
                    where = f"{path.relative_to(ROOT)}:{block.line}"
                    reason = f"{where} is not run: {why}"
                    yield pytest.param(block, id=where, marks=pytest.mark.skip(reason=reason))


@pytest.mark.parametrize("section", list(runnable()))
def test_a_section_does_what_it_says(section: Section, tmp_path: Path) -> None:
    follow(section, tmp_path)


@pytest.mark.parametrize("block", list(only_shown()))
def test_a_block_that_is_only_shown_says_why(block: Block) -> None:
    """Never runs: it is there to be counted and listed among what was skipped."""


def test_there_is_a_readme_in_every_folder_a_reader_opens_first() -> None:
    folders = ["engine", "components", "tests", "bench", "ops"]
    opened = [ROOT, *(ROOT / name for name in folders if any(ROOT.glob(f"{name}/**/*.py")))]

    assert [folder.name for folder in opened if folder / "README.md" not in READMES] == []
