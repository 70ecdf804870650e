from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.functions.watchdog import Watchdog
from tests.unit.functions.running import watching


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    with watching() as started:
        yield started
