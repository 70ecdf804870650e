"""
Keeper: builds text and vector indexes, and keeps those that answer in order.

The life of an index:

    read      from its files, if they are what was written
    build     its documents are walked by key, a slice in a snapshot of its own; what was written
              behind the walk is followed, from the commits in memory or from the log
    answer    when all of them are in it: what is staged meanwhile is taken in, in one step, and
              from then on the committer does so
    fold      what has gathered in memory becomes a segment, and small segments one, in a thread;
              versions that no view can see any more are left out
    go        when a push drops it, or its table

    keep      now and then, and when the engine closes, what is durable of it is written to
              files; an engine that opens reads these and goes on from there in the log

Files that are missing, damaged or of another history are left, and the index is built from the
documents.  Who searches looks at the documents until an index answers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import TypeVar

import trio

from engine.errors import StoreDamaged
from engine.indexes.catalog import SEARCHED, Catalog, IndexInfo, IndexKind, IndexState
from engine.indexes.checkpoints import Checkpoints, Manifest, Place, new_index
from engine.indexes.entries import Applied
from engine.indexes.live import Leisure, LiveIndex, LiveIndexes
from engine.indexes.snapshot import SharedSnapshot, Snapshots
from engine.indexes.written import RecentCommits, WrittenRows
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.kernel.watermark import Watermark
from engine.model.codec import decode
from engine.model.limits import Limits

trace = tracer(__name__)
T = TypeVar("T")

SLICE_DOCS = 64
"""Documents that are taken in at a time: of ordinary texts these are some four milliseconds."""
SLICE_BYTES = 1 << 16
"""Or so many bytes of them, or `slice_s_max`, whichever is over first; one document is the least,
and a long text is taken in by pieces."""


@dataclass(slots=True)
class _Kept:
    """An index, from when it is in the catalog until it is not."""

    info: IndexInfo
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    settled: trio.Event = field(default_factory=trio.Event)
    """It answers, or never will."""
    ended: trio.Event = field(default_factory=trio.Event)
    """It was let go of, and nobody writes its files any more."""
    work: trio.Event = field(default_factory=trio.Event)
    waiting: trio.CancelScope = field(default_factory=trio.CancelScope)
    """Ends when there is leisure, if no work came before."""
    rests_at: float = inf
    unfolded_bytes: int = 0
    """As they were when a commit was looked at last."""
    live: LiveIndex | None = None
    done: int = 0
    """Documents that the build has taken in."""
    checkpoint_ts: int | None = None
    files: trio.Lock = field(default_factory=trio.Lock)
    """Held by whoever writes them."""
    is_replaced: bool = False
    """It answers until another one does, whose files these are now."""
    replaces: _Kept | None = None
    """Which answers until this one does."""

    @property
    def answering(self) -> _Kept:
        """Itself, or what it replaces; of neither there need be an index that answers."""
        return self if self.replaces is None else self.replaces


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """An index as operators see it."""

    index_id: int
    name: str
    """Table and index, with the component's path before them: `users/notes.by_text`."""
    kind: str
    state: str
    answers: bool
    """Otherwise it is being built, and `documents` are those that are in it."""
    documents: int
    parts: int
    size_bytes: int
    unfolded_bytes: int
    checkpoint_ts: int | None
    """Up to there it is in its files."""
    lag_s: float
    """What is not in its files was written within so many seconds."""


class IndexKeeper:
    """
    Args:
        live: where indexes stand that answer.
        published: the newest commit that readers may see.
        recent: the commits up to there.
        staged_after: the commits later than a timestamp that are staged.
        durable: the last record that is durable.
        checkpoints: where files are kept; without, all is in memory.
    """

    name = "indexes"

    def __init__(
        self,
        live: LiveIndexes,
        snapshots: Snapshots,
        *,
        published: Watermark,
        recent: RecentCommits,
        staged_after: Callable[[int], Iterable[Applied]],
        durable: Callable[[], Place],
        checkpoints: Checkpoints | None,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._live = live
        self._snapshots = snapshots
        self._published = published
        self._tail = published.follow()
        self._recent = recent
        self._staged_after = staged_after
        self._durable = durable
        self._checkpoints = checkpoints
        self._runtime = runtime
        self._slice_s_max = limits.slice_s_max
        self._unfolded_bytes_max = limits.index_unfolded_bytes_max // 2
        self._catalog: Catalog | None = None
        self._kept: dict[int, _Kept] = {}
        self._damage: list[str] = []
        """What was wrong with files when they were read; none of it has been believed."""
        self._nursery: trio.Nursery | None = None

    # The actor

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._reconcile()
            if self._checkpoints is not None:
                await self._away(partial(self._checkpoints.remove_others, list(self._kept)))
            with trio.move_on_after(OPEN_S_MAX):
                for kept in list(self._kept.values()):
                    await kept.settled.wait()
            task_status.started()
            seen = 0
            while upto := await self._tail.past(seen):
                seen = upto
                self._reconcile()
                self.wake()
            self._nursery = None
            for kept in self._kept.values():
                kept.answering.scope.cancel()
                kept.scope.cancel()
        await self._keep_all()

    def close(self) -> None:
        self._tail.close()

    def wake(self) -> None:
        """Fold what is due, and what would have writers wait before it is."""
        for kept in [one.answering for one in self._kept.values()]:
            if kept.live is None:
                continue
            unfolded = kept.live.unfolded_bytes
            if not kept.live.is_due and unfolded > self._unfolded_bytes_max:
                kept.live.freeze()
            if kept.live.is_due:
                kept.work.set()
            elif unfolded != kept.unfolded_bytes and kept.live.is_loose:
                kept.waiting.deadline = min(kept.rests_at, trio.current_time() + PAUSE_S)
            kept.unfolded_bytes = unfolded

    async def wait_settled(self, index_id: int, progress: Callable[[int], None]) -> None:
        """
        Wait until an index that is durable in the catalog answers, never will, or is dropped.

        Args:
            progress: told how many documents are in it, now and then.
        """
        self._reconcile()
        # It is another one after a rebuild.
        while (kept := self._kept.get(index_id)) is not None and not kept.settled.is_set():
            progress(kept.done)
            with trio.move_on_after(PROGRESS_EVERY_S):
                await kept.settled.wait()

    @property
    def building(self) -> list[str]:
        """Names of those that are being built, or read."""
        return [self._name(one.info) for one in self._kept.values() if not one.settled.is_set()]

    def statuses(self) -> list[IndexStatus]:
        """All indexes that are kept here, or are being built."""
        tables = self._snapshots.current.catalog.by_number
        kept = [one for one in self._kept.values() if one.info.table_number in tables]
        return [self._status(one) for one in kept]

    def _name(self, info: IndexInfo) -> str:
        """As `IndexStatus.name`."""
        table = self._snapshots.current.catalog.by_number.get(info.table_number)
        return info.name if table is None else f"{table.label}.{info.name}"

    def _status(self, kept: _Kept) -> IndexStatus:
        live, info = kept.answering.live, kept.info
        newest = self._published.value
        return IndexStatus(
            index_id=info.index_id,
            name=self._name(info),
            kind=info.kind.value,
            state=info.state.value,
            answers=live is not None,
            documents=kept.done if live is None else live.count(),
            parts=0 if live is None else live.parts_count(),
            size_bytes=0 if live is None else live.size_bytes,
            unfolded_bytes=0 if live is None else live.unfolded_bytes,
            checkpoint_ts=kept.checkpoint_ts,
            lag_s=0.0 if kept.checkpoint_ts is None else (newest - kept.checkpoint_ts) / 1e9,
        )

    async def rebuild(self, index_id: int) -> None:
        """
        Forget the files of an index, and build it from the documents.

        What there is answers until that is done, and is then replaced; when this returns.
        """
        before = self._kept.get(index_id)
        if before is not None and self._nursery is not None:
            kept = self._kept[index_id] = _Kept(before.info)
            if before.live is None:
                kept.replaces = before.replaces
                before.scope.cancel()
            else:
                kept.replaces = before
                before.is_replaced = True
            self._nursery.start_soon(self._keep, kept, before)
        await self.wait_settled(index_id, lambda _: None)

    async def problems(self) -> AsyncGenerator[str | None, None]:
        """What is wrong with indexes that answer, and was with their files; `None` now and then."""
        for damage in self._damage:
            yield damage
        for kept in list(self._kept.values()):
            live = kept.answering.live
            if live is not None:
                snapshot = self._snapshots.acquire()
                until = 0.0
                try:
                    for problem in _problems(live, snapshot):
                        is_over = self._runtime.is_virtual or self._runtime.monotonic() >= until
                        if problem is not None or is_over:
                            yield problem
                            await trio.lowlevel.checkpoint()
                            until = self._runtime.monotonic() + self._slice_s_max
                finally:
                    self._snapshots.release(snapshot)

    def _reconcile(self) -> None:
        """Begin with indexes that came, and let go of those that went."""
        catalog = self._snapshots.current.catalog
        if catalog is self._catalog or self._nursery is None:
            return
        self._catalog = catalog
        wanted = {index.index_id: index for index in _searched(catalog)}
        for index_id in [one for one in self._kept if one not in wanted]:
            self._drop(index_id)
        for index_id, info in wanted.items():
            if index_id in self._kept:
                self._kept[index_id].info = info  # its state is another now
            else:
                kept = self._kept[index_id] = _Kept(info)
                self._nursery.start_soon(self._keep, kept)

    def _drop(self, index_id: int) -> None:
        kept = self._kept.pop(index_id)
        kept.scope.cancel()
        kept.answering.scope.cancel()
        kept.settled.set()
        if kept.answering.live is not None:
            self._live.remove(index_id)
        assert self._nursery is not None, "who drops it runs"
        self._nursery.start_soon(self._remove_dropped, kept)

    async def _remove_dropped(self, kept: _Kept) -> None:
        await kept.ended.wait()
        await self._remove_files(kept.info)

    async def _keep(self, kept: _Kept, before: _Kept | None = None) -> None:
        """
        Keep an index until it is let go of.

        Args:
            before: who kept it and writes no files from now on, whose files are not to be read.
        """
        try:
            with kept.scope:
                if before is not None:
                    with trio.CancelScope(shield=True):
                        if not before.is_replaced:
                            await before.ended.wait()
                        async with before.files:  # what is being written of it is written
                            pass
                    await self._remove_files(kept.info)
                await self._bring_up(kept)
        finally:
            kept.ended.set()

    async def _bring_up(self, kept: _Kept) -> None:
        index, ts = await self._read(kept.info)
        await trio.lowlevel.checkpoint()  # it may have been let go of while a thread was reading
        is_read = index is not None
        index = index or new_index(kept.info, self._snapshots.current.ts)
        if index is None:
            advice = ADVICE[kept.info.kind]
            trace.warning("indexes.not_built", index=self._name(kept.info), advice=advice)
            kept.settled.set()
            return
        await self._build(kept, index, ts)
        event = "indexes.read" if is_read else "indexes.built"
        trace.info(event, index=self._name(kept.info), documents=index.count())
        await self._look_after(kept, index)

    async def _look_after(self, kept: _Kept, index: LiveIndex) -> None:
        while True:
            await self._fold(index)
            await self._checkpoint(kept, index)
            await self._wait_for_work(kept, index)
            kept.work = trio.Event()

    async def _wait_for_work(self, kept: _Kept, index: LiveIndex) -> None:
        """Until something is due, or there is leisure: writers pause, or little came for long."""
        now = trio.current_time()
        kept.rests_at = inf if self._checkpoints is None else now + CHECKPOINT_EVERY_S
        first = now + PAUSE_S if index.is_loose else kept.rests_at
        with trio.CancelScope(deadline=first) as kept.waiting:
            await kept.work.wait()
        if not kept.work.is_set():
            is_resting = trio.current_time() >= kept.rests_at
            index.freeze(Leisure.REST if is_resting else Leisure.PAUSE)

    # Files

    async def _read(self, info: IndexInfo) -> tuple[LiveIndex | None, int | None]:
        """An index as it is in its files, and up to where, if these are what was written."""
        if self._checkpoints is None:
            return None, None
        try:
            manifest = await self._away(partial(self._checkpoints.find, info))
            if manifest is None or not self._goes_on(manifest):
                await self._remove_files(info)
                return None, None
            index = await self._away(partial(self._checkpoints.read, info, manifest))
        except (StoreDamaged, OSError) as error:
            self._damage.append(
                f"the files of the index {self._name(info)} were not what was written when this "
                f"engine opened: {error}; it is built from the documents"
            )
            trace.warning(
                "indexes.damaged",
                index=self._name(info),
                error=str(error),
                advice="it is built from the documents; the disk may have done more of this",
            )
            await self._remove_files(info)
            return None, None
        return index, None if index is None else manifest.ts

    async def _remove_files(self, info: IndexInfo) -> None:
        if self._checkpoints is not None:
            await self._away(partial(self._checkpoints.remove, info))

    def _goes_on(self, manifest: Manifest) -> bool:
        """Whether it is of this history, and the log has all that came since."""
        snapshot = self._snapshots.current
        durable = manifest.durable
        is_known = snapshot.record_hash(durable.ts) == durable.record_hash
        return is_known and manifest.ts >= snapshot.anchor_ts

    async def _checkpoint(self, kept: _Kept, index: LiveIndex) -> None:
        """Write what is durable of an index to its files."""
        if self._checkpoints is None:
            return
        async with kept.files:
            if kept.is_replaced:
                return
            durable = self._durable()
            checkpoint = index.checkpoint(durable.ts)
            write = partial(self._checkpoints.write, index.info, checkpoint, durable)
            try:
                install = await self._away(write)
            except OSError as error:
                trace.warning("indexes.not_kept", index=self._name(index.info), error=str(error))
                return
            install()
            kept.checkpoint_ts = checkpoint.ts
        await self._runtime.pause("index.kept")

    async def _keep_all(self) -> None:
        """Let nothing be looked at again when the engine opens the next time."""
        for kept in list(self._kept.values()) if self._checkpoints is not None else ():
            if kept.live is not None:
                kept.live.freeze()
                await self._fold(kept.live)
                await self._checkpoint(kept, kept.live)

    # Build

    async def _build(self, kept: _Kept, index: LiveIndex, ts: int | None) -> None:
        """
        Take in all documents, as they are in the end; the index answers when this returns.

        Args:
            ts: up to there it has them already; `None` is not at all.
        """
        turn = _Turn(self._runtime, self._slice_s_max)
        begin_ts = self._snapshots.current.ts if ts is None else ts
        walk = _Walk(kept, index, self._recent, begin_ts, turn)
        if ts is not None:
            walk.has_walked = True
        at_once, behind = 1, OUTRUN_SLICES_MIN
        while True:
            snapshot = self._snapshots.acquire()
            try:
                for count, is_done in enumerate(walk.steps(snapshot), 1):
                    if is_done and snapshot is self._snapshots.current:
                        self._answer(kept, index, snapshot.ts, is_built=ts is None)
                        return
                    if count % at_once == 0:
                        await self._breathe(index, can_fold=not walk.is_amid)
                    turn.restart()
            finally:
                self._snapshots.release(snapshot)
            # Who writes as much in each turn as is taken in between two would never be caught up
            # with, so then it is twice as much from here on.
            is_outrun = walk.has_walked or walk.slices_behind > behind
            at_once = min(2 * at_once, SLICES_MAX) if is_outrun else max(at_once // 2, 1)
            behind = max(walk.slices_behind, OUTRUN_SLICES_MIN)

    async def _breathe(self, index: LiveIndex, *, can_fold: bool) -> None:
        await trio.lowlevel.checkpoint()
        await self._runtime.pause("index.walked")
        if can_fold and index.is_due:
            await self._fold(index)

    def _answer(self, kept: _Kept, index: LiveIndex, ts: int, *, is_built: bool) -> None:
        """Let it answer for the snapshot of `ts`, which it has, and for all that is staged."""
        index.forget(ts)
        # What the walk took in was written at any time before: it is folded before a checkpoint
        # is written, because that says from when on the log is to be read again.
        index.freeze(Leisure.REST if is_built else Leisure.NONE)
        for commit in self._staged_after(ts):
            for write in commit.writes:
                if write.table_number == index.info.table_number:
                    index.stage(commit.ts, write)
        if kept.replaces is not None:
            self._live.remove(index.info.index_id)
            kept.replaces.scope.cancel()
            kept.replaces = None
        self._live.add(index)
        kept.live = index
        kept.settled.set()

    # Fold

    async def _fold(self, index: LiveIndex) -> None:
        """Do what there is to do, as long as there is some."""
        while True:
            index.forget(self._floor_ts(index))
            work = index.fold(self._published.value)
            if work is None:
                return
            began = self._runtime.monotonic()
            install = await self._away(work)
            install()
            took_ms = round((self._runtime.monotonic() - began) * 1e3, 1)
            trace.debug("indexes.folded", index=self._name(index.info), took_ms=took_ms)
            await self._runtime.pause("index.folded")

    def _floor_ts(self, index: LiveIndex) -> int:
        """No view is older; of one that does not answer yet there is none at all."""
        is_live = self._live.find(index.info.index_id) is index
        return self._snapshots.floor_ts if is_live else self._published.value

    async def _away(self, work: Callable[[], T]) -> T:
        """Run what takes long in a thread; where time is virtual, here."""
        if self._runtime.is_virtual:
            await trio.lowlevel.checkpoint()
            return work()
        return await trio.to_thread.run_sync(work)


OUTRUN_SLICES_MIN = 4
"""A build that is fewer behind what is written is not outrun by it."""
SLICES_MAX = 1 << 16
"""Taken in before others have their turn: more than can be written in one."""
PROGRESS_EVERY_S = 0.5
OPEN_S_MAX = 2.0
"""An engine that opens waits for its indexes, but no longer: what is not ready is done without."""
PAUSE_S = 2.0
"""Writers pause when nothing came to an index for so long."""
CHECKPOINT_EVERY_S = 600.0
"""So little of the log is read when the engine is opened after a crash."""
ADVICE = {
    IndexKind.SEARCH: "searches read the whole table: text indexes need numpy, which "
    "pip install 'headrace[search]' brings",
    IndexKind.VECTOR: "searches are refused: vector indexes need numpy and usearch, which "
    "pip install 'headrace[vectors]' brings",
}


class _Turn:
    """How much of the documents is taken in before others have their turn."""

    def __init__(self, runtime: Runtime, seconds_max: float) -> None:
        self._clock = runtime.monotonic
        self._seconds_max = seconds_max
        self.restart()

    def restart(self) -> None:
        """Others had theirs."""
        self._docs, self._bytes = SLICE_DOCS, SLICE_BYTES
        self._until = self._clock() + self._seconds_max

    def is_over(self, size_bytes: int) -> bool:
        """After a document of that size."""
        self._docs -= 1
        self._bytes -= size_bytes
        return self._docs <= 0 or self._bytes <= 0 or self._clock() >= self._until


class _Walk:
    """
    The documents of an index's table by key, and what is written behind the walk.

    Args:
        ts: where the walk begins.
        turn: restarted by whoever lets others have theirs.
    """

    def __init__(
        self, kept: _Kept, index: LiveIndex, recent: RecentCommits, ts: int, turn: _Turn
    ) -> None:
        self._kept = kept
        self._turn = turn
        self._index = index
        self._written = WrittenRows(recent, ts)
        self._rows = kept.info.table_number.to_bytes(4, "big")
        self._from = b""
        """Internal ids below are in the index."""
        self._end: bytes | None = None
        """Those from here on came since it began, and are followed: ids rise with time, so a walk
        to the last of them would chase whoever writes."""
        self.has_walked = False
        """All of them are."""
        self.is_amid = False
        """A part of a document is in the index, of which nothing can be folded now."""
        self.slices_behind = 0
        """Of what was written behind the walk, in the newest snapshot."""

    def steps(self, snapshot: SharedSnapshot) -> Iterator[bool]:
        """
        Take in some of what the snapshot has; yields after each part whether that is all.

        Nothing is published between the last part and what the caller does then.
        """
        if self._end is None:
            last = next(self._rows_of(snapshot, None, reverse=True), None)
            self._end = b"" if last is None else last[0] + b"\0"
        self.slices_behind = 0
        for _ in self._follow(snapshot):
            self.slices_behind += 1
            yield False
        if not self.has_walked:
            yield from self._walk(snapshot)
        yield self.has_walked

    def _follow(self, snapshot: SharedSnapshot) -> Iterator[bool]:
        while self._written.ts < snapshot.ts:
            is_outrun = self._written.is_outrun
            for key in dict.fromkeys(self._written.next_rows(snapshot)):
                if self._is_behind(key) and (yield from self._put(snapshot, key)):
                    yield False
            if is_outrun:
                yield False

    def _is_behind(self, key: bytes) -> bool:
        if not key.startswith(self._rows):
            return False
        return self.has_walked or not self._from <= key[4:] < (self._end or b"")

    def _walk(self, snapshot: SharedSnapshot) -> Iterator[bool]:
        for internal, key in self._rows_of(snapshot, self._end):
            is_over = yield from self._put(snapshot, key)
            self._kept.done += 1
            self._from = internal + b"\0"
            if is_over:
                return
        self.has_walked = True

    def _rows_of(
        self, snapshot: SharedSnapshot, end: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        by_id = snapshot.catalog.by_number[self._kept.info.table_number].indexes["by_id"]
        return snapshot.entries(by_id, self._from, end, reverse=reverse)

    def _put(self, snapshot: SharedSnapshot, key: bytes) -> Generator[bool, None, bool]:
        """Take in a document; whether others are to have their turn after it."""
        image = snapshot.row(key)
        doc = None if image is None else decode(image)
        self.is_amid = True
        for _ in self._index.put_in_steps(snapshot.ts, key[4:], doc):
            yield False
        self.is_amid = False
        return self._turn.is_over(len(image or b""))


def _problems(index: LiveIndex, snapshot: SharedSnapshot) -> Iterator[str | None]:
    by_id = snapshot.catalog.by_number[index.info.table_number].indexes["by_id"]
    rows = snapshot.entries(by_id, b"", None, reverse=False)
    documents = ((internal, decode(snapshot.row(key) or b"")) for internal, key in rows)
    if index.info.kind is IndexKind.VECTOR:
        from engine.indexes.vectors.check import problems as problems_of_vectors
        from engine.indexes.vectors.index import VectorIndex

        assert isinstance(index, VectorIndex), "it is of that kind"
        return problems_of_vectors(index, snapshot.ts, documents)
    from engine.indexes.text.check import problems
    from engine.indexes.text.index import TextIndex

    assert isinstance(index, TextIndex), "it is of that kind"
    return problems(index, snapshot.ts, documents)


def _searched(catalog: Catalog) -> Iterator[IndexInfo]:
    """The indexes that are kept here."""
    for table in catalog.by_number.values():
        for index in table.indexes.values():
            is_kept = index.kind in SEARCHED and index.state is not IndexState.DROPPING
            if is_kept and not table.is_dropping:
                yield index
