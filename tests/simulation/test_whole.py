"""
A whole engine while everything goes wrong, by seed; `ops/prove simulation` goes on for longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.simulation.cases import Case, cases
from tests.simulation.planted_in_whole import PLANTED
from tests.simulation.whole import Tale, simulated

SEEDS = range(2)
ROOT = Path(__file__).parents[2]
CAUGHT_AT_ONCE = "a session record that is not written"
"""By the first seed; all of them are `ops/prove simulation --planted`."""
OTHER_HASH_SEED = "2718"

simulated_once = cache(simulated)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_engine_keeps_its_promises_whatever_goes_wrong(seed: int) -> None:
    assert [] == simulated_once(seed).problems


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case.seed))
def test_a_seed_that_failed_once_fails_no_more(case: Case) -> None:
    assert [] == simulated(case.seed).problems, case.was


@pytest.mark.parametrize("case", cases(), ids=lambda case: str(case.seed))
def test_a_seed_that_is_kept_still_finds_what_it_found(case: Case) -> None:
    with PLANTED[case.planted]():
        tale = simulated(case.seed)

    assert tale.problems, f"its history is another by now: keep one in which {case.was}"


def test_a_planted_bug_is_caught() -> None:
    with PLANTED[CAUGHT_AT_ONCE]():
        tale = simulated(1)

    assert tale.problems


def test_a_choice_without_a_seed_is_another_schedule() -> None:
    with PLANTED["a choice without a seed"]():
        tale = simulated(SEEDS[0])

    assert simulated_once(SEEDS[0]).schedule.parts_from(tale.schedule) is not None


def test_a_seed_has_one_schedule_in_every_process() -> None:
    script = f"from {simulated.__module__} import simulated; print(simulated(0).schedule.hash)"

    elsewhere = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": OTHER_HASH_SEED},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert simulated_once(0).schedule.hash == elsewhere.split()[-1]


def test_much_goes_wrong_in_a_run() -> None:
    counts = sum((simulated_once(seed).counts for seed in SEEDS), start=Tale().counts)

    for name in ("power cuts", "refused batches", "clock jumps", "connections lost", "pushes"):
        assert counts[name] > len(SEEDS), name
    assert counts["values shown"] > 100 * len(SEEDS)
