"""`ops/prove pools`: that histories of pools and batch workers see what is wrong with one."""

from __future__ import annotations

import pytest

from tests.proofs.machines import first_problem
from tests.proofs.pools import PLANTED

SEED = 7
ROUNDS = 60


@pytest.mark.parametrize(
    "bug",
    [
        "a wake that keeps the old generation",
        "one more than there is room for",
        "a report of another attempt counts",
        "a mutation that was lost between claim and run",
        "no backoff",
        "one attempt too many",
        "a time that loses its fraction",
        "an end that wakes nobody whose time is yet to come",
    ],
)
def test_a_planted_bug_is_seen(bug: str) -> None:
    machine, planted = PLANTED[bug]

    with planted.planted():
        assert first_problem(machine, ROUNDS, SEED)
