"""An application on an engine that lives several times, as its power is cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import trio

from engine.app.registry import Application
from engine.rehearsal.harness import BlockingHarness, open_place
from engine.store.memory_store import MemoryStore


class Lives:
    """`place` is the engine of now, which `t` calls; after `cut` it is another one."""

    def __init__(self, application: Application, stack: ExitStack) -> None:
        self._application = application
        self._stack = stack
        self._number = 0
        self._batches_left = -1
        self._left_behind: MemoryStore | None = None
        self.store = MemoryStore(flush=self._flush)
        self.t = self._open()

    def cut(self, batches: int, *, in_flight: bool = False) -> None:
        """
        Run everything that is scheduled, and cut the power after so many batches of commits.

        What came after them never was.  Where there are fewer, all of it has happened.

        Args:
            in_flight: the batch that was being written then got to the disk.
        """
        self._left_behind, self._batches_left = None, batches
        self._is_in_flight_kept = in_flight
        self.t.finish_all_scheduled_functions()
        self._batches_left = -1
        left_behind = self._left_behind or self.store.durable_copy()
        self._stack.close()
        self.store = left_behind
        self.t = self._open()

    def _open(self) -> BlockingHarness:
        opening = open_place(self._application, store=self.store)
        self.place = self._stack.enter_context(opening)
        t = BlockingHarness(self.place)
        t.seed(self._number)  # no two lives give the same ids
        self._number += 1
        return t

    async def _flush(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._batches_left == 0:
            self._left_behind = self.store.durable_copy(in_flight=self._is_in_flight_kept)
        self._batches_left -= 1


@contextmanager
def lives(application: Application) -> Iterator[Lives]:
    """The first life, in an empty database."""
    with ExitStack() as stack:
        yield Lives(application, stack)
