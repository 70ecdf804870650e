"""An application on an engine in memory that lives several times, as its power is cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Self

import trio

from engine.app.registry import Application
from engine.errors import EngineError, StoreFailed
from engine.rehearsal.harness import BlockingHarness, Place, open_place
from engine.store.memory_store import MemoryStore


class Lives:
    """
    `t` is the engine of now, and after `crash` or `cut` another one, whose clock goes on.

    Args:
        application: what every life has.
        at_end: called when the power is cut: what still runs then goes on, to nobody's use.
    """

    def __init__(self, application: Application, at_end: Callable[[], None] = lambda: None) -> None:
        self._application = application
        self._at_end = at_end
        self.number = 0
        self._batches_left: int | None = None
        self._left_behind: MemoryStore | None = None
        self._open(MemoryStore(flush=self._flush))

    @property
    def t(self) -> BlockingHarness:
        """What the present engine is called by."""
        return BlockingHarness(self.place)

    def crash(self) -> None:
        """Cut the power while nothing is on its way to the disk."""
        self._left_behind, self._now_ns = self.store.durable_copy(), self.t.now_ns
        self._at_end()
        self._begin_anew()

    def cut(self, batches: int, *, in_flight: bool = False, ms: float | None = None) -> None:
        """
        Let time pass, and cut the power while a batch of commits is on its way to the disk.

        Where no batch is left to be the one, all of it has happened before.

        Args:
            batches: so many get there before it.
            in_flight: and that one as well.
            ms: how much time passes; until nothing is scheduled any more unless it is given.
        """
        self._left_behind = None
        self._batches_left, self._is_in_flight_kept = batches, in_flight
        with suppress(EngineError):
            if ms is None:
                self.t.finish_all_scheduled_functions()
            else:
                self.t.advance(ms)
        self._batches_left = None
        if self._left_behind is None:
            self.crash()
        else:
            self._begin_anew()

    def kill_job(self, job_id: str) -> None:
        """End a job from outside, as an operator may."""
        jobs = self.place.stage.node.scheduler.jobs

        async def cancel() -> bool:
            return await jobs.cancel(job_id)

        self.place.wait(cancel)

    def jobs(self, state: str = "pending") -> list[dict[str, Any]]:
        """The rows of all jobs of a state."""
        jobs = self.place.stage.node.scheduler.jobs

        async def look() -> list[dict[str, Any]]:
            return await jobs.rows(state, 10_000, lambda _: True)

        return self.place.wait(look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)

    def _begin_anew(self) -> None:
        left_behind, self._left_behind = self._left_behind, None
        assert left_behind is not None
        with suppress(StoreFailed, BaseExceptionGroup):
            self._opened.__exit__(None, None, None)
        self._open(left_behind)
        self.place.wait(partial(self.place.stage.go_on_at, self._now_ns))
        self.t.seed(self.number)  # no two lives give the same ids

    def _open(self, store: MemoryStore) -> None:
        self.number += 1
        self.store = store
        self._opened: AbstractContextManager[Place] = open_place(self._application, store=store)
        self.place = self._opened.__enter__()

    async def _flush(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._batches_left is None:
            return
        if self._batches_left == 0:
            self._left_behind = self.store.durable_copy(in_flight=self._is_in_flight_kept)
            self._now_ns = await self.place.stage.now_ns()
            self._at_end()
            raise StoreFailed("the power was cut")
        self._batches_left -= 1
