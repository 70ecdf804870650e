"""A process that runs tests for minutes does not keep the trees of all sources until its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.architecture import source_tree


@pytest.fixture(scope="module", autouse=True)
def _trees() -> Iterator[None]:
    """They are a quarter of a gigabyte, and millions of objects for the garbage collector."""
    yield
    source_tree.read.cache_clear()
