"""`ops/prove components`: that histories of limits, migrations and aggregates see what is wrong."""

from __future__ import annotations

import pytest

from tests.proofs.components import PLANTED
from tests.proofs.machines import first_problem

SEED = 7
ROUNDS = 60


@pytest.mark.parametrize(
    "bug",
    [
        "a refusal that is kept",
        "a reservation that has no end",
        "a window that begins a millisecond early",
        "shards that each hold all",
        "a crash after which a batch runs twice",
        "a cancel that is not heeded",
        "a document that fails and is done",
        "a dry run that writes",
        "a total of before",
        "a page that begins with the last of the one before",
        "the last that was queued is the first",
    ],
)
def test_a_planted_bug_is_seen(bug: str) -> None:
    machine, planted = PLANTED[bug]

    with planted.planted():
        assert first_problem(machine, ROUNDS, SEED)
