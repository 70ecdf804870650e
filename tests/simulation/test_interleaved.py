"""
Mutations that run beside each other: nothing but the validation of what they read keeps them apart.

So here it does the work: without it some seed loses an update or lets a phantom through.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

from engine.committer import actor as committer_actor
from tests.simulation.crowd import crowd, is_serial, no_validation, without_ranges

SEEDS = range(12)


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_update_is_lost_and_no_phantom_passes(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert is_serial(await crowd(seed))


@pytest.mark.parametrize("planted", [no_validation, without_ranges])
async def test_without_validation_some_seed_shows_it(
    planted: Any,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
) -> None:
    monkeypatch.setattr(committer_actor, "find_conflict", planted)
    broken = [seed for seed in SEEDS if not is_serial(await crowd(seed))]

    assert broken
