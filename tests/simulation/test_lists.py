"""
Mutations on lists through power cuts and refused batches: some serial order explains what was told.

In the lane, and beside each other, where nothing but the validation of what they read keeps them
apart.  `ops/prove serializability` does the same for as long as one likes.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from tests.proofs.anomalies import anomalies
from tests.simulation.lives import Tale, simulated
from tests.simulation.planted import PLANTED

SEEDS = range(4)
PLANTED_SEEDS = range(40)

simulated_once = cache(simulated)


def story(tale: Tale) -> list[Any]:
    return [(str(one), one.begun, one.ended) for one in tale.history.operations]


@pytest.mark.parametrize("interleaves", [False, True], ids=["in the lane", "beside each other"])
@pytest.mark.parametrize("seed", SEEDS)
def test_some_serial_order_explains_what_was_told(seed: int, interleaves: bool) -> None:
    tale = simulated_once(seed, interleaves=interleaves)

    assert [] == anomalies(tale.history.operations)
    assert [] == tale.problems


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_leaves_what_no_order_explains(name: str) -> None:
    def is_caught(seed: int) -> bool:
        with PLANTED[name]():
            tale = simulated(seed, interleaves=True)
        return bool(anomalies(tale.history.operations))

    assert any(is_caught(seed) for seed in PLANTED_SEEDS)


def test_a_seed_repeats_its_run() -> None:
    again = simulated(SEEDS[0], interleaves=True)

    assert story(simulated_once(SEEDS[0], interleaves=True)) == story(again)


def test_a_run_has_power_cuts_and_refused_batches() -> None:
    tales = [simulated_once(seed, interleaves=True) for seed in SEEDS]

    assert sum(tale.crashes for tale in tales) >= len(SEEDS)
    assert sum(tale.refused_batches for tale in tales) >= len(SEEDS)
