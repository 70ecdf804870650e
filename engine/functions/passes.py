"""
How much queries compute before all others have their turn.

A commit may wake thousands who show a query, all in one pass of the loop.  So a pass has so much
time for queries, and who comes when that is used up waits in line for a later one: mostly behind
those who have begun, as these hold a snapshot.
"""

from __future__ import annotations

from typing import Final

import trio

WOKEN_MAX: Final = 64
"""So many short queries go on in one pass."""
BEGINNERS: Final = 4
"""One in so many passes is theirs, whoever else waits: what takes long keeps nobody out."""


class Passes:
    """
    Args:
        seconds_max: that queries have in a pass; the last to begin may take longer.
    """

    def __init__(self, seconds_max: float) -> None:
        self._seconds_max = seconds_max
        self._spent_s = 0.0
        """Since the last pass that is known of: whoever comes alone hardly ever waits."""
        self._last_s = seconds_max
        self._beginners = trio.lowlevel.ParkingLot()
        self._begun = trio.lowlevel.ParkingLot()
        self._count = 0
        """Of passes."""
        self._is_led = False
        """Somebody goes on in the next pass, and sees to those in line."""
        self._leader: trio.lowlevel.Task | None = None
        """Who that is, if it was woken from the line."""

    def note(self, seconds: float) -> None:
        """A query has computed for that long."""
        self._spent_s += seconds
        self._last_s = seconds

    async def begin(self) -> None:
        """Wait until a query may begin: not at all, where there is time in this pass."""
        if self._is_led or self._spent_s >= self._seconds_max:
            await self._wait(self._beginners)

    async def go_on(self) -> None:
        """Let others have their turn, those in line as well."""
        await self._wait(self._begun)

    async def _wait(self, line: trio.lowlevel.ParkingLot) -> None:
        if self._is_led:
            await line.park()
            if self._leader is trio.lowlevel.current_task():
                self._lead()
            return
        self._is_led = True
        try:
            await trio.lowlevel.checkpoint()
        finally:
            self._lead()

    def _lead(self) -> None:
        """A pass has begun; as many as it has time for, by the last, go on in the one after it."""
        self._spent_s = 0.0
        count = min(WOKEN_MAX, int(self._seconds_max / max(self._last_s, 1e-6)))
        self._count += 1
        lines = [self._begun, self._beginners]
        line = next(
            filter(None, lines if self._count % BEGINNERS else reversed(lines)), self._begun
        )
        woken = line.unpark(count=max(1, count))
        self._is_led, self._leader = bool(woken), woken[0] if woken else None
