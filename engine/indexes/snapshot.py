"""
One state of the database, shared by all who read at its timestamp.

    publish ──opens──▶ [ current ] ◀──leases── queries, mutations, sessions
                           │ replaced by the next publish
                           ▼ closed when its last lease ends

On the trio thread only `Snapshots.publish` opens store snapshots, so two reads
at one timestamp always see the same thing.  A snapshot held for longer than
`age_s_max` refuses to be read, because LMDB never gives back the pages that it
had to keep for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from engine.errors import SnapshotTooOld
from engine.indexes.buckets import Buckets
from engine.indexes.catalog import Catalog, IndexInfo, IndexKind
from engine.indexes.counts import Counts
from engine.indexes.entries import bucket_of, bucketed_fields, is_bucketed, stored_fields
from engine.indexes.live import LiveIndexes
from engine.log.records import decode_record
from engine.log.retention import read_anchor
from engine.model.keys import increment
from engine.model.limits import ENTRY_HEAD_BYTES
from engine.store.interface import Snapshot, Store, Tree

Entry = tuple[bytes, bytes]
"""Entry key and row key."""


class SharedSnapshot:
    """A store snapshot, its timestamp, its catalog and its counts."""

    __slots__ = (
        "_age_s_max",
        "_clock",
        "_leases",
        "_retired",
        "_store",
        "catalog",
        "counts",
        "live",
        "row",
        "ts",
    )

    row: Callable[[bytes], bytes | None]
    """The encoded document of a row key, or `None`."""

    def __init__(
        self,
        store: Snapshot,
        ts: int,
        catalog: Catalog,
        counts: Counts,
        live: LiveIndexes,
        clock: Callable[[], float],
        age_s_max: float,
    ) -> None:
        self._store = store
        self.row = partial(store.get, Tree.ROWS)
        self._clock = clock
        self._retired: float | None = None
        self._age_s_max = age_s_max
        self._leases = 0
        self.ts = ts
        self.catalog = catalog
        self.counts = counts
        self.live = live

    def lease(self) -> None:
        self._leases += 1

    def release(self) -> None:
        self._leases -= 1
        if self._leases == 0:
            self._store.close()

    @property
    def is_idle(self) -> bool:
        return self._leases == 0

    def retire(self) -> None:
        """A newer snapshot has been published; from now on this one costs space."""
        self._retired = self._clock()

    def check_age(self) -> None:
        """
        Raises:
            SnapshotTooOld: it was read for too long after a newer one was there.
        """
        if self._retired is not None and self._clock() - self._retired > self._age_s_max:
            raise SnapshotTooOld(
                f"a snapshot was read for {self._age_s_max:g} s after a newer one was there; "
                "run the function again"
            )

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None = None,
    ) -> Iterator[Entry]:
        """
        Entries of `index` from `lower` to `upper`, exclusive, in order; none if these are crossed.

        Args:
            buckets: those that the reader has walked already.
        """
        if upper is not None and lower >= upper:
            return iter(())
        if index.kind is IndexKind.BY_ID:
            return self._rows(index.table_number, lower, upper, reverse)
        fields = bucketed_fields(index, lower, upper)
        if fields is not None and upper is not None:
            return self._entries_with(index, fields, lower, upper, reverse)
        return self._entries(index, lower, upper, reverse, buckets)

    @property
    def anchor_ts(self) -> int:
        """Up to here the log was trimmed: no state before it can be had."""
        return read_anchor(self._store).ts

    def record_hash(self, ts: int) -> bytes | None:
        """The hash of the record of `ts`; `None` if the log has none, or no longer."""
        anchor = read_anchor(self._store)
        if ts == anchor.ts:
            return anchor.record_hash
        for data in self.log(ts - 1, ts):
            return decode_record(data).hash
        return None

    def log(self, after: int, upto: int) -> Iterator[bytes]:
        """Encoded records with `after < ts <= upto`, in order."""
        lower, upper = (after + 1).to_bytes(8, "big"), (upto + 1).to_bytes(8, "big")
        return (value for _, value in self._store.range(Tree.LOG, lower, upper))

    def log_before(self, upto: int) -> Iterator[bytes]:
        """Encoded records with `ts <= upto`, newest first."""
        upper = (upto + 1).to_bytes(8, "big")
        return (value for _, value in self._store.range(Tree.LOG, b"", upper, reverse=True))

    def _rows(
        self, table_number: int, lower: bytes, upper: bytes | None, reverse: bool
    ) -> Iterator[Entry]:
        prefix = table_number.to_bytes(4, "big")
        end = (table_number + 1).to_bytes(4, "big") if upper is None else prefix + upper
        for key, _ in self._store.range(Tree.ROWS, prefix + lower, end, reverse=reverse):
            yield key[4:], key

    def _entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        buckets: Buckets | None,
    ) -> Iterator[Entry]:
        row_prefix = index.table_number.to_bytes(4, "big")
        start, end = _stored_interval(index.prefix, lower, upper)
        is_exact = max(len(lower), len(upper or b"")) <= ENTRY_HEAD_BYTES
        while True:
            for key, _ in self._store.range(Tree.ENTRIES, start, end, reverse=reverse):
                if is_bucketed(key):
                    break
                entry = key[4:]
                if is_exact or (entry >= lower and (upper is None or entry < upper)):
                    yield entry, row_prefix + key[-16:]
            else:
                return
            buckets = buckets or Buckets(None)
            for entry in buckets.entries(self._store, key, lower, upper, reverse=reverse):
                yield entry, row_prefix + entry[-16:]
            head = bucket_of(key)
            start, end = (start, head) if reverse else (_after(head), end)

    def _entries_with(
        self, index: IndexInfo, fields: bytes, lower: bytes, upper: bytes, reverse: bool
    ) -> Iterator[Entry]:
        """Entries of an interval in which all have these bucketed fields: they lie together."""
        row_prefix = index.table_number.to_bytes(4, "big")
        begin = stored_fields(index.prefix, fields)
        start, end = begin + lower[len(fields) :], begin + upper[len(fields) :]
        for key, _ in self._store.range(Tree.ENTRIES, start, end, reverse=reverse):
            yield fields + key[len(begin) :], row_prefix + key[-16:]


def _stored_interval(prefix: bytes, lower: bytes, upper: bytes | None) -> tuple[bytes, bytes]:
    """Where everything of an interval is stored; more of a bucket at its edge may be, too."""
    start = prefix + lower[:ENTRY_HEAD_BYTES]
    if upper is None:
        return start, _after(prefix)
    end = prefix + upper[:ENTRY_HEAD_BYTES]
    return start, end if len(upper) <= ENTRY_HEAD_BYTES else _after(end)


def _after(prefix: bytes) -> bytes:
    bound = increment(prefix)
    assert bound is not None, "no index has an id of 0xff only"
    return bound


class Snapshots:
    """The snapshot of the newest published timestamp, and older ones still leased."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        *,
        live: LiveIndexes,
        age_s_max: float,
        fresh_s_max: float,
    ) -> None:
        self._store = store
        self._live = live
        self._clock = clock
        self._age_s_max = age_s_max
        self._current: SharedSnapshot | None = None
        self._leased: dict[int, SharedSnapshot] = {}
        self._fresh_s_max = fresh_s_max
        self._were_newest: deque[tuple[float, int]] = deque()
        """When each timestamp became the newest, in the last `fresh_s_max` and once before."""

    @property
    def current(self) -> SharedSnapshot:
        assert self._current is not None, "nothing was published yet"
        return self._current

    def publish(self, ts: int, catalog: Catalog, counts: Counts) -> None:
        """
        Open the snapshot that readers use from now on.

        Its timestamp is read inside it, so a label never runs ahead of the state.
        """
        opened = self._store.snapshot()
        last = opened.last(Tree.LOG)
        newest = int.from_bytes(last[0], "big") if last else 0
        assert newest == ts, f"the store is at {newest}, but {ts} was to be published"
        previous = self._current
        self._current = SharedSnapshot(
            opened, ts, catalog, counts, self._live, self._clock, self._age_s_max
        )
        self._current.lease()
        self._leased[ts] = self._current
        self._were_newest.append((self._clock(), ts))
        self._forget_those_before()
        if previous is not None:
            previous.retire()
            self.release(previous)

    @property
    def floor_ts(self) -> int:
        """The oldest timestamp of which somebody has a view, or may get one as a fresh one."""
        return min(self.oldest_fresh_ts, *self._leased)

    @property
    def oldest_fresh_ts(self) -> int:
        """
        What was the newest timestamp `fresh_s_max` ago, and is therefore the oldest fresh one.

        Told by the monotonic clock: a timestamp is as old as its commit, which may be the newest
        for days, and the wall clock jumps.  What is older than the engine's start is not fresh.
        """
        self._forget_those_before()
        return self._were_newest[0][1]

    def _forget_those_before(self) -> None:
        """Of what was the newest before, only that is kept which still was at that time."""
        since = self._clock() - self._fresh_s_max
        while len(self._were_newest) > 1 and self._were_newest[1][0] <= since:
            self._were_newest.popleft()

    def acquire(self, ts: int | None = None) -> SharedSnapshot:
        """Lease the snapshot of `ts`, if somebody still has it, else the current one."""
        found = self._leased.get(ts) if ts is not None else None
        snapshot = found or self.current
        snapshot.lease()
        return snapshot

    def release(self, snapshot: SharedSnapshot) -> None:
        snapshot.release()
        if snapshot.is_idle:
            self._leased.pop(snapshot.ts, None)

    def close(self) -> None:
        if self._current is not None:
            self.release(self._current)
            self._current = None
