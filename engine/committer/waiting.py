"""Who waits for a timestamp to be durable, in order."""

from __future__ import annotations

from collections import deque
from itertools import takewhile

import outcome
import trio


class DurableWaiters:
    """
    Tasks that wait until everything up to a timestamp is durable and published.

    They come in about the order of their timestamps.  One that does not is
    woken with the one before it, which is later than it could be, never earlier.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, trio.lowlevel.Task]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    async def wait(self, ts: int) -> None:
        """Return when `release` has been called with `ts` or later; raises what `fail` is given."""
        entry = (ts, trio.lowlevel.current_task())
        self._waiting.append(entry)

        def forget(_: object) -> trio.lowlevel.Abort:
            self._waiting.remove(entry)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(forget)

    def release_half(self, upto: int) -> int:
        """Wake the older half of those whom `release` would wake; how many that are."""
        count = sum(1 for _ in takewhile(lambda one: one[0] <= upto, self._waiting)) // 2
        for _ in range(count):
            trio.lowlevel.reschedule(self._waiting.popleft()[1])
        return count

    def release(self, upto: int) -> None:
        while self._waiting and self._waiting[0][0] <= upto:
            trio.lowlevel.reschedule(self._waiting.popleft()[1])

    def fail(self, error: Exception, *, upto: int | None = None) -> None:
        """Wake those waiting for a timestamp up to `upto` (all, if `None`) with `error`."""
        kept: deque[tuple[int, trio.lowlevel.Task]] = deque()
        for ts, task in self._waiting:
            if upto is None or ts <= upto:
                trio.lowlevel.reschedule(task, outcome.Error(error))
            else:
                kept.append((ts, task))
        self._waiting = kept
