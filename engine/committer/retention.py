"""
Retention: the oldest records of the log go when they are too old or too many.

They go in slices that are records themselves, of kind TRIM, through the lane and the one writer,
so that a reader's snapshot has a whole log or a whole shorter one.  What was written lately stays,
for those who follow.
"""

from __future__ import annotations

from typing import Final

from engine.committer.actor import Committer, RunAgain
from engine.errors import Overloaded, Stopped, StoreDamaged
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.log.retention import Trim, next_trim
from engine.model.commits import Kind, Source
from engine.model.limits import Limits
from engine.store.interface import Store, Tree

trace = tracer(__name__)

EVERY_S: Final = 600.0
SOURCE: Final = Source(path="_system:trim")


class Retention:
    """Runs in the background for as long as the engine does."""

    def __init__(
        self, committer: Committer, store: Store, *, runtime: Runtime, limits: Limits
    ) -> None:
        self._committer = committer
        self._store = store
        self._runtime = runtime
        self._limits = limits

    async def run(self) -> None:
        while True:
            await self._runtime.sleep(EVERY_S)
            try:
                await self.trim()
            except (RunAgain, Overloaded, Stopped) as error:
                trace.warning("retention.put_off", error=str(error))
            except StoreDamaged as error:
                # It has been there for as long as records are kept, and nobody has to read it now.
                trace.error("retention.damaged", error=str(error), advice="headrace verify")

    async def trim(self) -> int:
        """
        Remove what is too old or too much; how many records that were.

        Raises:
            RunAgain: a batch was refused; what went before is gone.
            StoreDamaged: the record that would be the anchor cannot be read.
        """
        removed, upto = 0, 0
        newest = self._committer.head.ts  # those that it writes itself are for the next time
        while (trim := self._next(newest)) and trim.anchor.ts > upto:
            await self._remove(trim)
            removed, upto = removed + len(trim.keys), trim.anchor.ts
        if removed:
            trace.info("retention.trimmed", records=removed)
        return removed

    def _next(self, newest: int) -> Trim | None:
        # As timestamps go, which do not follow a clock that leaps: all would be old at once.
        limits, now_ns = self._limits, self._committer.next_ts()
        floor_ts = max(0, now_ns - int(limits.log_age_s_min * 1e9))
        with self._store.snapshot() as snapshot:
            return next_trim(
                snapshot,
                before_ts=now_ns - int(limits.log_age_s_max * 1e9),
                excess_bytes=self._store.size_bytes(Tree.LOG) - limits.log_bytes_max,
                floor_ts=min(floor_ts, newest + 1),
            )

    async def _remove(self, trim: Trim) -> None:
        committer = self._committer
        await self._runtime.pause("retention.chosen")
        await committer.lane.enter(self._limits.lane_deadline_s)
        try:
            generation = committer.generation
            ts = committer.stage(
                [], SOURCE, kind=Kind.TRIM, covered=trim.anchor.fields(), trim=trim
            )
        finally:
            committer.lane.leave()
        await committer.settled(ts, generation)
