"""
Who asks for the past is given a view of it, for as long as a query takes.

    ts ──▶ moment ──▶ base: records after it, taken back in slices, in memory
                        │ once these are too many, or an index is read that is no more
                        ▼
                      annex: all of them, by a process of its own, on disk

What is kept of a base serves all who ask for its timestamp, and those who ask for one near by.
One at a time takes back more of it; readers do not wait for one another.  As many timestamps are
read at a time as are kept, and who asks for another waits for one of them, as for the process, in
order.  Whoever gives up half-way has lost nothing: who asks next goes on from there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Final, TypeAlias

import trio

from engine.errors import EngineError, OutOfRetention, Overloaded, Stopped
from engine.indexes.annexes import Annex, Annexes, AnnexFull, Tell
from engine.indexes.catalog import IndexInfo
from engine.indexes.past_process import refuse_if_trimmed
from engine.indexes.snapshot import SharedSnapshot, Snapshots
from engine.indexes.taken_back import Taken
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.model.limits import Limits
from engine.transaction.past import AnnexSheet, Base, Moment, view_then
from engine.transaction.view import View, view_of

trace = tracer(__name__)

PROGRESS_EVERY_S: Final = 5.0
"""Between two lines that say how far somebody is."""


class _TooMuch(Exception):
    """More rows have changed than may be in memory."""


class _TooFar(Exception):
    """The base of another timestamp is not near enough."""


@dataclass(slots=True, eq=False)
class _Kept:
    """What is kept of a base."""

    base: Base
    lock: trio.Lock = field(default_factory=trio.Lock)
    """Held by whoever takes back more."""
    annex: Annex | None = None

    def sheet(self) -> AnnexSheet | None:
        """What the annex has now, to be closed; `None` if it has nothing yet."""
        annex = self.annex
        if annex is None or not annex.taken.records:
            return None
        return AnnexSheet(annex.snapshot(), set(annex.laid))


@dataclass(slots=True, eq=False)
class _Asked:
    """A timestamp that was asked for."""

    moment: Moment
    kept: _Kept


Work: TypeAlias = Callable[[Annex, Tell, int], Awaitable[None]]
"""What an annex is to do, in so many bytes."""


async def _take_back(annex: Annex, tell: Tell, bytes_max: int) -> None:
    await annex.take_back(bytes_max, tell)


async def _lay_all(index: IndexInfo, annex: Annex, tell: Tell, bytes_max: int) -> None:
    await annex.lay_all(index, bytes_max, tell)


class PastReads:
    """
    Views of timestamps before the newest.

    Args:
        annexes: where rows go that memory has no room for.
    """

    def __init__(
        self,
        annexes: Annexes,
        snapshots: Snapshots,
        *,
        published: Watermark,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._annexes = annexes
        self._snapshots = snapshots
        self._published = published
        self._runtime = runtime
        self._limits = limits
        # A timestamp has two sheets in memory: of the newest records, and of what is otherwise
        # than at a base near by.
        self._sheet_bytes_max = limits.past_bytes_max // (2 * limits.past_count_max)
        self._asked: OrderedDict[int, _Asked] = OrderedDict()
        self._used: list[_Asked] = []
        """Once for each who uses it."""
        self._places = trio.Semaphore(limits.past_count_max)
        """Each that is used has one."""
        # In the order in which they came, as all that is gone through: no two runs differ.
        self._annexed: dict[_Kept, Annex] = {}
        self._job = trio.Lock()
        self._scopes: dict[trio.CancelScope, None] = {}
        self._scope_left = trio.lowlevel.ParkingLot()
        self._is_closed = False

    @asynccontextmanager
    async def view(self, ts: int, lease: Callable[[], SharedSnapshot]) -> AsyncIterator[View]:
        """
        A view of `ts`, for the length of the block.

        Args:
            lease: takes the snapshot to begin from, not before `ts`.

        Raises:
            IndexNotLaid: from the block, which then is to be run again, within `laid`.
            OutOfRetention: the log does not go back so far any more, or more was changed since
                than `past_disk_bytes_max`.
            StoreFull: the disk has no room for it.
            SnapshotTooOld: a snapshot may not be held for as long as it takes.
            Overloaded: others have kept it waiting for `past_patience_s`.
            Stopped: the engine was closed.
        """
        snapshot = lease()
        if snapshot.ts == ts:
            try:
                yield view_of(snapshot)
            finally:
                self._snapshots.release(snapshot)
            return
        self._snapshots.release(snapshot)
        until = self._patience_end()
        async with self._found(ts, until) as asked:
            view, let_go = await self._view(asked, lease, until)
            try:
                yield view
            finally:
                let_go()

    @asynccontextmanager
    async def laid(self, ts: int, index: IndexInfo) -> AsyncIterator[None]:
        """
        Have an annex get the entries of an index, which a view of `ts` has missed; as `view`.

        If the index is no more, these are those of all documents, and there is an annex for them.

        What is kept of `ts` stays for the length of the block.  If it has gone since the view,
        there is nothing to lay the index in: a view takes it back, and comes here once more.
        """
        until = self._patience_end()
        async with self._found(ts, until) as asked:
            kept = asked.kept
            async with kept.lock:
                if asked.kept is kept:  # else somebody has found meanwhile that it is too far
                    try:
                        await self._lay(kept, index, until)
                    except OutOfRetention:
                        if kept.base.ts == asked.moment.ts:
                            raise
                        await self._part(asked, kept)  # it is the base that the log has left
            yield

    async def close(self) -> None:
        """Who takes back is refused, and what was kept is removed."""
        self._is_closed = True
        for scope in self._scopes:
            scope.cancel()
        while self._scopes:
            await self._scope_left.park()
        for kept in list(self._annexed):
            await self._remove(kept)
        self._asked.clear()

    # What is kept

    @asynccontextmanager
    async def _found(self, ts: int, until: float) -> AsyncIterator[_Asked]:
        """What is kept of a timestamp, which stays for the length of the block."""
        if not self._is_used(ts):
            await self._wait_for(self._places, until, "the past (past_count_max)")
            if self._is_used(ts):  # by somebody who has waited, too
                self._places.release()
        asked = self._asked.get(ts)
        if asked is None:
            kept = self._near(ts) or _Kept(Base(ts))
            asked = self._asked[ts] = _Asked(Moment(ts, kept.base), kept)
        self._asked.move_to_end(ts)
        self._used.append(asked)
        try:
            await self._forget_oldest()
            yield asked
        finally:
            self._used.remove(asked)
            if asked not in self._used:
                self._places.release()
            await self._remove_if_idle(asked.kept)

    def _is_used(self, ts: int) -> bool:
        """Whether somebody uses what is kept of a timestamp."""
        return self._asked.get(ts) in self._used

    async def _forget_oldest(self) -> None:
        """Keep no more than may be, of which none goes that is used."""
        while len(self._asked) > self._limits.past_count_max:
            oldest = next(ts for ts in self._asked if not self._is_used(ts))
            await self._remove_if_idle(self._asked.pop(oldest).kept)

    def _patience_end(self) -> float:
        return trio.current_time() + self._limits.past_patience_s

    async def _wait_for(self, one: trio.Semaphore | trio.Lock, until: float, what: str) -> None:
        """
        Raises:
            Overloaded: it was not free by then; nothing is taken.
        """
        with suppress(trio.WouldBlock):
            one.acquire_nowait()  # whoever has no patience left, too
            return
        with trio.move_on_at(until) as patience:
            await one.acquire()
        if patience.cancelled_caught:
            raise Overloaded(what, self._limits.past_patience_s)

    def _near(self, ts: int) -> _Kept | None:
        """The nearest base that took long to take back, if there is one."""
        anchor_ts = self._snapshots.current.anchor_ts
        found = [
            kept
            for kept in self._annexed
            if kept.base.ts >= anchor_ts and kept.base.counts is not None and self._is_kept(kept)
        ]
        return min(found, key=lambda kept: abs(kept.base.ts - ts), default=None)

    def _is_kept(self, kept: _Kept) -> bool:
        return any(asked.kept is kept for asked in self._asked.values())

    async def _drop(self, kept: _Kept) -> None:
        """Nobody is to begin with it any more."""
        for ts in [ts for ts, asked in self._asked.items() if asked.kept is kept]:
            del self._asked[ts]
        await self._remove_if_idle(kept)

    async def _remove_if_idle(self, kept: _Kept) -> None:
        """Remove what no timestamp leads to, once nobody uses it."""
        if not self._is_kept(kept) and all(asked.kept is not kept for asked in self._used):
            await self._remove(kept)

    async def _remove(self, kept: _Kept) -> None:
        annex = self._annexed.pop(kept, None)
        if annex is not None:
            await annex.close()

    # Taking back

    async def _view(
        self, asked: _Asked, lease: Callable[[], SharedSnapshot], until: float
    ) -> tuple[View, Callable[[], None]]:
        """The view of what was asked for, and what lets go of it."""
        sheet_bytes_max: float = self._sheet_bytes_max
        while True:
            kept = asked.kept
            async with kept.lock:
                if asked.kept is not kept:
                    continue  # somebody has found meanwhile that it is too far
                if self._published.value < kept.base.taken.upto:
                    # The process reads what is durable, which may be on its way to be published.
                    await self._published.wait_reached(kept.base.taken.upto)
                leased = ExitStack()
                try:
                    snapshot = lease()
                    leased.callback(self._snapshots.release, snapshot)
                    annex = kept.sheet()
                    if annex is not None:
                        leased.callback(annex.close)
                    self._refuse_if_trimmed(asked, snapshot)
                    await self._follow(asked, snapshot, annex, sheet_bytes_max)
                    return view_then(snapshot, asked.moment, annex), leased.close
                except _TooMuch:
                    leased.close()
                    try:
                        await self._take_back(kept, until)
                        sheet_bytes_max = inf  # what came meanwhile, however much others write
                    except OutOfRetention:
                        if kept.base.ts == asked.moment.ts:
                            raise
                        await self._part(asked, kept)  # it is the base that the log has left
                except _TooFar:
                    leased.close()
                    await self._part(asked, kept)
                except BaseException:
                    leased.close()
                    raise

    async def _part(self, asked: _Asked, kept: _Kept) -> None:
        """Have what was asked for taken back by itself, and not by what is kept of another."""
        asked.kept = _Kept(Base(asked.moment.ts))
        asked.moment = Moment(asked.moment.ts, asked.kept.base)
        self._asked.setdefault(asked.moment.ts, asked)
        await self._remove_if_idle(kept)

    def _refuse_if_trimmed(self, asked: _Asked, snapshot: SharedSnapshot) -> None:
        refuse_if_trimmed(snapshot.anchor_ts, asked.moment.ts)
        if asked.kept.base.ts < snapshot.anchor_ts:
            raise _TooFar

    async def _follow(
        self,
        asked: _Asked,
        snapshot: SharedSnapshot,
        annex: AnnexSheet | None,
        bytes_max: float,
    ) -> None:
        """
        Take back what came until the snapshot, in memory.

        Raises:
            _TooMuch: these are rows of over `bytes_max`.
            _TooFar: what is otherwise than at the base is more than a sheet of it.
        """
        moment, base = asked.moment, asked.kept.base
        for _ in base.follow(snapshot, annex):
            if base.recent.size_bytes > bytes_max:
                raise _TooMuch
            await trio.lowlevel.checkpoint()
            snapshot.check_age()
        if moment.ts == base.ts or moment.sheet is not None:
            return
        for is_near in moment.lay(snapshot, self._sheet_bytes_max):
            if is_near is False:
                raise _TooFar
            await trio.lowlevel.checkpoint()
            snapshot.check_age()

    async def _lay(self, kept: _Kept, index: IndexInfo, until: float) -> None:
        if kept.annex is not None and index.prefix in kept.annex.laid:
            return
        if not index.is_of_then:
            if kept.annex is not None:
                await self._do(kept, partial(kept.annex.lay, index), until)
        elif kept.base.knows(index):  # and not another, in whose place this one came
            await self._fill(kept, partial(_lay_all, index), until)

    async def _take_back(self, kept: _Kept, until: float) -> None:
        """Have an annex take back everything."""
        await self._fill(kept, _take_back, until)

    async def _fill(self, kept: _Kept, work: Work, until: float) -> None:
        """Have an annex do something on whose way it takes back; memory is for what comes after."""
        if kept.annex is None:
            kept.annex = self._annexed[kept] = self._annexes.begin(kept.base.ts)
        annex, began = kept.annex, self._runtime.monotonic()
        told_at = began

        def tell(taken: Taken) -> None:
            nonlocal told_at
            now = self._runtime.monotonic()
            if now - told_at >= PROGRESS_EVERY_S:
                told_at = now
                trace.info("past.taking_back", ts=kept.base.ts, records=taken.records)

        try:
            await self._do(kept, partial(work, annex, tell), until)
        finally:
            kept.base.begin_again(annex.taken)
        trace.info(
            "past.taken_back",
            ts=kept.base.ts,
            records=annex.taken.records,
            bytes=annex.size_bytes(),
            seconds=round(self._runtime.monotonic() - began, 1),
        )

    async def _do(self, kept: _Kept, work: Callable[[int], Awaitable[None]], until: float) -> None:
        """Have an annex do something, one at a time; if that fails, nothing is kept of it."""
        await self._wait_for(self._job, until, "taking back, one timestamp at a time,")
        try:
            await self._do_alone(kept, work)
        finally:
            self._job.release()

    async def _do_alone(self, kept: _Kept, work: Callable[[int], Awaitable[None]]) -> None:
        if self._is_closed:
            raise Stopped("the engine was closed while rows were taken back")
        with trio.CancelScope() as scope:
            self._scopes[scope] = None
            try:
                await self._do_with_room(kept, work)
            except EngineError:
                await self._drop(kept)
                raise
            finally:
                del self._scopes[scope]
                self._scope_left.unpark_all()
        if scope.cancelled_caught:
            raise Stopped("the engine was closed while rows were taken back")

    async def _do_with_room(self, kept: _Kept, work: Callable[[int], Awaitable[None]]) -> None:
        while True:
            others = {other: annex for other, annex in self._annexed.items() if other is not kept}
            taken = sum(annex.size_bytes() for annex in others.values())
            try:
                return await work(max(0, self._limits.past_disk_bytes_max - taken))
            except AnnexFull:
                used = {asked.kept for asked in self._used}
                idle = [other for other in others if other not in used]
                for other in idle:
                    await self._drop(other)
                if not idle:
                    raise OutOfRetention(
                        f"what was changed since ts {kept.base.ts}, with the entries of indexes "
                        "that were dropped, takes over "
                        f"{self._limits.past_disk_bytes_max:,} bytes on the disk "
                        "(past_disk_bytes_max); ask for a newer ts, by an index that there is now, "
                        "or raise that limit"
                    ) from None
