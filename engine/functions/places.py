"""Places for actions: so many run at a time, and whoever comes later waits for one, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import trio

from engine.errors import Overloaded
from engine.functions.history import Way
from engine.model.limits import Limits


class Places:
    """The places of one engine."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = trio.Semaphore(limits.concurrent_actions_max)

    @asynccontextmanager
    async def place(self, way: Way) -> AsyncIterator[None]:
        """
        Have a place for the length of the block.

        Args:
            way: told how long that was waited for.

        Raises:
            Overloaded: none came free within `action_patience_s`; the block was not begun.
        """
        await self._take(way)
        try:
            yield
        finally:
            self._free.release()

    async def _take(self, way: Way) -> None:
        count, patience_s = self._limits.concurrent_actions_max, self._limits.action_patience_s
        await trio.lowlevel.checkpoint_if_cancelled()
        with suppress(trio.WouldBlock):
            self._free.acquire_nowait()  # whoever has no patience either
            return
        way.queued = self._free.statistics().tasks_waiting
        began = trio.current_time()
        with trio.move_on_after(patience_s) as patience:
            await self._free.acquire()
        way.queue_ms = (trio.current_time() - began) * 1000
        if patience.cancelled_caught:
            raise Overloaded(f"the {count} places for actions (concurrent_actions_max)", patience_s)
