from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from engine.functions.modules import Modules
from engine.functions.sources import read_file
from engine.functions.watchdog import Watchdog
from tests.unit.functions.running import watching


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with watching() as started:
        yield started


@pytest.fixture
def execute(tmp_path: Path) -> Callable[[str], ModuleType]:
    """Executes a text as a module of an application."""

    def execute(text: str) -> ModuleType:
        file = tmp_path / "of_an_application.py"
        file.write_text(textwrap.dedent(text))
        return Modules(read_file(file, file.stem)).load(file.stem)

    return execute
