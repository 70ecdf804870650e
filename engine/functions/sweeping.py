"""What is forgotten in the background, every so often, for as long as the engine runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from engine.errors import Overloaded, Stopped, StoreFull
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer

trace = tracer(__name__)

SWEEP_EVERY_S: Final = 3600.0
SWEPT_BYTES_MAX: Final = 1 << 20
"""Of the rows that one transaction drops, all of which it has in memory, and the log has after it.
The last may go beyond: what a session was answered, or a job was given, may have 16 MiB."""


class Room:
    """
    How much more one transaction may drop.

    Args:
        rows: how many, if they are small.
    """

    __slots__ = ("_bytes", "_rows")

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._bytes = SWEPT_BYTES_MAX

    @property
    def is_left(self) -> bool:
        return self._rows > 0 and self._bytes > 0

    def take(self, size_bytes: int) -> None:
        """Use some for a row of that size."""
        self._rows -= 1
        self._bytes -= size_bytes


async def keep_sweeping(what: str, sweep: Callable[[], Awaitable[int]], runtime: Runtime) -> None:
    """
    Call `sweep` every so often; it returns how many rows went.

    Where there is no room for what it writes, its time comes again: a full disk is no reason to
    end an engine that can be read.
    """
    while True:
        await runtime.sleep(SWEEP_EVERY_S)
        try:
            dropped = await sweep()
        except (StoreFull, Overloaded) as error:
            trace.warning("sweep.put_off", what=what, error=str(error))
        except Stopped:
            return
        else:
            if dropped:
                trace.info("sweep.done", what=what, dropped=dropped)
