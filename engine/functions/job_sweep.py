"""
Forgets scheduled functions that ended long ago.

It walks them in the order in which they ended, in slices, each a transaction of its own; none that
is pending or runs is among them.
"""

from __future__ import annotations

from typing import Final

from engine.functions.job_rows import components_of, drop_jobs, standing
from engine.functions.sweeping import Room, keep_sweeping
from engine.functions.turns import Turns
from engine.kernel.runtime import Runtime
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction

SLICE_ROWS: Final = 256


class JobSweep:
    """Runs in the background for as long as the engine does."""

    def __init__(self, turns: Turns, *, runtime: Runtime, limits: Limits) -> None:
        self._turns = turns
        self._runtime = runtime
        self._kept_ms = limits.job_results_s_max * 1000

    async def run(self) -> None:
        await keep_sweeping("jobs", self.sweep, self._runtime)

    async def sweep(self) -> int:
        """Drop all that ended long enough ago; returns how many went."""
        dropped = 0
        while count := await self._turns.write(self._slice):
            dropped += count
        return dropped

    def _slice(self, turn: Transaction) -> int:
        # As timestamps go, which do not follow a clock that leaps: all would be old at once.
        before_ms = self._turns.next_ts() / 1e6 - self._kept_ms
        room = Room(SLICE_ROWS)
        for component in components_of(turn.view):
            old = standing(component).ended_before(before_ms)
            if dropped := drop_jobs(turn, *old, room):
                return dropped
        return 0
