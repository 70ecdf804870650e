"""What every test runs under: Hypothesis without deadlines, which a busy machine would miss."""

from __future__ import annotations

import re

import pytest
from hypothesis import settings

settings.register_profile("all", deadline=None, print_blob=True)  # what ops/test asks for
settings.register_profile("inner loop", settings.get_profile("all"), max_examples=30)
settings.load_profile("inner loop")

collect_ignore = ["contract_app"]
"""An application with tests of its own, which run in its folder."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse names that differ between two processes: such tests cannot be shared out."""
    for item in items:
        if ADDRESS.search(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid}: give this parameter a name, with `ids`")
