"""
A store in memory, with the promises of the one on a disk and faults on demand.

    store = MemoryStore()
    hold = store.hold()                       # the next batch stays in flight
    nursery.start_soon(store.apply, batch)
    await hold.wait_reached()
    crashed = store.durable_copy()            # what a power cut would leave: nothing of it
    hold.release()

    store.fail_next(StoreFull("disk full"))   # the next batch is refused

Each key has its values of the past for as long as a snapshot can see them, so a snapshot is taken
in no time and a batch costs what it changes. A store is one thread's, its snapshots too.
"""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Self, TypeAlias

import trio
from sortedcontainers import SortedDict

from engine.errors import Stopped, StoreFailed, StoreFull
from engine.kernel.pause import Hold
from engine.model.limits import STORE_KEY_BYTES_MAX, STORE_MAP_BYTES
from engine.store.format import HEADER_KEY, new_header, this_version
from engine.store.interface import Tree, decode_batch

Version: TypeAlias = tuple[int, bytes | None]
"""From which state on a key has a value; None for none."""

_CHUNK: Final = 64
"""Keys that a range looks up at a time, since a tree may not change under an iterator."""


class MemoryStore:
    """
    Four trees in memory.

    Args:
        data_bytes_max: bytes of keys and values that it may hold.
        flush: awaited for each batch, uncancelled, as the time that a disk takes.
    """

    def __init__(
        self,
        *,
        data_bytes_max: int = STORE_MAP_BYTES,
        flush: Callable[[], Awaitable[None]] = trio.lowlevel.cancel_shielded_checkpoint,
    ) -> None:
        self._trees = tuple(VersionedTree() for _ in Tree)
        self._state = 0
        self._superseded: deque[tuple[int, Tree, bytes]] = deque()
        self._snapshots: weakref.WeakSet[MemorySnapshot] = weakref.WeakSet()
        self._data_bytes_max = data_bytes_max
        self._flush = flush
        self._hold: Hold | None = None
        self._error: tuple[Exception, bool] | None = None
        self._in_flight: bytes | None = None
        self._failure: str | None = None
        self._is_closed = False
        self._batches = 0
        self._trees[Tree.META].put(0, HEADER_KEY, new_header(this_version()))

    @property
    def folder(self) -> None:
        """As `Store.folder`."""

    def snapshot(self) -> MemorySnapshot:
        """As `Store.snapshot`."""
        self._refuse_if_closed()
        snapshot = MemorySnapshot(self._trees, self._state)
        self._snapshots.add(snapshot)
        return snapshot

    async def apply(self, batch: bytes) -> None:
        """As `Store.apply`; raises what `fail_next` was given."""
        assert self._in_flight is None, "one batch at a time"
        self._refuse_if_closed()
        if self._failure is not None:
            raise StoreFailed(self._failure)
        await trio.lowlevel.checkpoint_if_cancelled()
        self._in_flight = batch
        try:
            with trio.CancelScope(shield=True):
                await self._flush()
                if self._hold is not None:
                    await self._hold()
            self._write_unless_told(batch)
        except StoreFull:
            raise
        except BaseException as error:
            self._failure = f"a batch may or may not have been written: {error}. Open a copy"
            raise
        finally:
            self._in_flight = None

    def hold(self) -> Hold:
        """Keep every batch in flight from the next one on, until the hold says."""
        self._hold = hold = Hold()
        return hold

    def fail_next(self, error: Exception, *, written: bool = False) -> None:
        """
        Raise `error` for the next batch instead of, or if `written` after, writing it.

        Anything but a StoreFull ends the store, as on a disk: `durable_copy` opens it again.
        """
        assert not (written and isinstance(error, StoreFull)), "full means not written"
        self._error = (error, written)

    def durable_copy(
        self, *, in_flight: bool = False, data_bytes_max: int | None = None
    ) -> MemoryStore:
        """
        What a crash at this instant would leave, as a store of its own.

        Args:
            in_flight: the batch that is being written, if there is one, got to the disk.
            data_bytes_max: of the copy, if not the same.
        """
        limit = self._data_bytes_max if data_bytes_max is None else data_bytes_max
        copy = MemoryStore(data_bytes_max=limit, flush=self._flush)
        for mine, its in zip(self._trees, copy._trees, strict=True):
            for key, value in mine.items(self._state):
                its.put(0, key, value)
        if in_flight and self._in_flight is not None:
            copy._write(self._in_flight)
        return copy

    def obstacle(self) -> str | None:
        """As `Store.obstacle`."""
        return self._failure

    def reader_check(self) -> int:
        """As `Store.reader_check`: no other process can hold anything."""
        return 0

    def size_bytes(self, tree: Tree | None = None) -> int:
        """As `Store.size_bytes`: of the keys and values themselves."""
        self._refuse_if_closed()
        trees = self._trees if tree is None else (self._trees[tree],)
        return sum(each.size_bytes for each in trees)

    def describe(self) -> dict[str, object]:
        """Sizes, snapshots and batches so far."""
        return {
            "writer": "memory",
            "data_bytes_max": self._data_bytes_max,
            "size_bytes": self.size_bytes(),
            "snapshots": len(self._snapshots),
            "batches": self._batches,
            "flushes": 0,
        }

    def close(self) -> None:
        """As `Store.close`; `durable_copy` still works."""
        assert self._in_flight is None, "closed while a batch is being written"
        self._is_closed = True
        for snapshot in list(self._snapshots):
            snapshot.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_unless_told(self, batch: bytes) -> None:
        planned, self._error = self._error, None
        if planned is None:
            self._write(batch)
            return
        error, written = planned
        if written:
            self._write(batch)
        raise error

    def _write(self, batch: bytes) -> None:
        changes = decode_batch(batch)
        self._refuse_what_cannot_be(changes)
        self._state += 1
        for tree, (keys, values) in zip(Tree, changes, strict=True):
            for key, value in zip(keys, values, strict=True):
                self._trees[tree].put(self._state, key, value)
                self._superseded.append((self._state, tree, key))
        self._batches += 1
        self._forget()

    def _refuse_what_cannot_be(self, changes: list[tuple[list[bytes], list[bytes | None]]]) -> None:
        grown = 0
        for tree, (keys, values) in zip(self._trees, changes, strict=True):
            for key, value in zip(keys, values, strict=True):
                if value is not None and not 0 < len(key) <= STORE_KEY_BYTES_MAX:
                    raise StoreFull(f"a key of {len(key)} bytes; nothing was written")
                grown += tree.growth_bytes(key, value)
        after = self.size_bytes() + grown
        if grown > 0 and after > self._data_bytes_max:
            raise StoreFull(
                f"{after} bytes would be over the limit of {self._data_bytes_max};"
                " nothing was written"
            )
        self._refuse_log_out_of_order(*changes[Tree.LOG])

    def _refuse_log_out_of_order(self, keys: list[bytes], values: list[bytes | None]) -> None:
        gone = {key for key, value in zip(keys, values, strict=True) if value is None}
        added = [key for key, value in zip(keys, values, strict=True) if value is not None]
        if not added:
            return
        newest = MemorySnapshot(self._trees, self._state).range(Tree.LOG, b"", None, reverse=True)
        last = next((key for key, _ in newest if key not in gone), b"")
        if min(added) <= last:
            raise StoreFailed("a log key that is not above the last one: the log only grows")

    def _forget(self) -> None:
        """Drop the values that no open snapshot can see."""
        oldest = min((snapshot.state for snapshot in self._snapshots), default=self._state)
        while self._superseded and self._superseded[0][0] <= oldest:
            _, tree, key = self._superseded.popleft()
            self._trees[tree].forget(key, oldest)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Stopped("the store was closed")


class MemorySnapshot:
    """One state of a `MemoryStore`; see `Snapshot`."""

    __slots__ = ("__weakref__", "_is_closed", "_trees", "state")

    def __init__(self, trees: tuple[VersionedTree, ...], state: int) -> None:
        self._trees = trees
        self.state = state
        self._is_closed = False

    def get(self, tree: Tree, key: bytes) -> bytes | None:
        """As `Snapshot.get`."""
        self._refuse_if_closed()
        return self._trees[tree].get(key, self.state)

    def range(
        self, tree: Tree, lower: bytes, upper: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `Snapshot.range`."""
        self._refuse_if_closed()
        return self._walk(self._trees[tree], lower, upper, reverse=reverse)

    def last(self, tree: Tree) -> tuple[bytes, bytes] | None:
        """As `Snapshot.last`."""
        return next(self.range(tree, b"", None, reverse=True), None)

    def close(self) -> None:
        """As `Snapshot.close`."""
        self._is_closed = True
        self.state = NEVER

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _walk(
        self, tree: VersionedTree, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        self._refuse_if_closed()
        state = self.state
        while keys := tree.keys(lower, upper, reverse=reverse):
            for key in keys:
                value = tree.get(key, state)
                if value is not None:
                    yield key, value
                    self._refuse_if_closed()
            if reverse:
                upper = keys[-1]
            else:
                lower = keys[-1] + b"\0"

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise Stopped("the snapshot was closed")


NEVER: Final = 1 << 62
"""The state of a snapshot that is closed: it keeps nothing."""


class VersionedTree:
    """
    Keys in order, each with the values that it has had, oldest first; see `MemorySnapshot`.
    """

    def __init__(self) -> None:
        self._versions: SortedDict = SortedDict()
        self.size_bytes = 0

    def get(self, key: bytes, state: int) -> bytes | None:
        versions: list[Version] = self._versions.get(key, [])
        at = bisect_right(versions, state, key=_state_of) - 1
        return versions[at][1] if at >= 0 else None

    def put(self, state: int, key: bytes, value: bytes | None) -> None:
        self.size_bytes += self.growth_bytes(key, value)
        versions: list[Version] = self._versions.setdefault(key, [])
        versions.append((state, value))

    def growth_bytes(self, key: bytes, value: bytes | None) -> int:
        """By how much the newest state grows with `value` at `key`."""
        before = self.get(key, NEVER)
        return _bytes_of(key, value) - _bytes_of(key, before)

    def forget(self, key: bytes, oldest: int) -> None:
        """Drop what no state from `oldest` on sees of `key`."""
        versions: list[Version] = self._versions.get(key, [])
        seen_from = bisect_right(versions, oldest, key=_state_of) - 1
        if seen_from > 0:
            del versions[:seen_from]
        if len(versions) == 1 and versions[0][1] is None and versions[0][0] <= oldest:
            del self._versions[key]

    def keys(self, lower: bytes, upper: bytes | None, *, reverse: bool) -> list[bytes]:
        """The next few keys of a range, also of those that only other states have."""
        found = self._versions.irange(lower, upper, inclusive=(True, False), reverse=reverse)
        return [key for key, _ in zip(found, range(_CHUNK), strict=False)]

    def items(self, state: int) -> Iterator[tuple[bytes, bytes]]:
        """What there is at `state`."""
        for key in self._versions:
            value = self.get(key, state)
            if value is not None:
                yield key, value


def _state_of(version: Version) -> int:
    return version[0]


def _bytes_of(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value)
