"""One database over several lives of its engine, each of which a power cut ends."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from engine.app.registry import Application
from engine.rehearsal.harness import BlockingHarness, Place, open_place
from engine.store.memory_store import MemoryStore


class Restarts:
    """
    An engine in memory, whose clock goes on over crashes.

    What runs at a crash is not told: it goes on, to nobody's use, and `number` is another by then.
    """

    def __init__(self, application: Application) -> None:
        self.number = 0
        self._application = application
        self._open(MemoryStore())

    @property
    def t(self) -> BlockingHarness:
        """What the present engine is called by."""
        return BlockingHarness(self.place)

    def crash(self) -> None:
        """Cut the power, and open what was durable."""
        now_ns = self.t.now_ns
        left = self._store.durable_copy()
        self.close()
        self._open(left, now_ns)

    def kill_job(self, job_id: str) -> None:
        """End a job from outside, as an operator may."""
        jobs = self.place.stage.node.scheduler.jobs

        async def cancel() -> bool:
            return await jobs.cancel(job_id)

        self.place.wait(cancel)

    def jobs_to_come(self) -> list[dict[str, Any]]:
        """The rows of all jobs that are pending."""
        jobs = self.place.stage.node.scheduler.jobs

        async def look() -> list[dict[str, Any]]:
            return await jobs.rows("pending", 10_000, lambda _: True)

        return self.place.wait(look)

    def close(self) -> None:
        self._opened.__exit__(None, None, None)

    def _open(self, store: MemoryStore, now_ns: int | None = None) -> None:
        self.number += 1
        self._store = store
        self._opened: AbstractContextManager[Place] = open_place(self._application, store=store)
        self.place = self._opened.__enter__()
        if now_ns is not None:
            self.place.stage.go_on_at(now_ns)
            self.t.seed(self.number)
