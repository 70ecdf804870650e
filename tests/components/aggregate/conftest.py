"""What tests of aggregates are given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.rehearsal.harness import open_place
from tests.components.aggregate.counted import APPLICATION, Numbers


@pytest.fixture
def numbers() -> Iterator[Numbers]:
    """The aggregate of an engine of its own."""
    with open_place(APPLICATION) as place:
        yield Numbers(place)
