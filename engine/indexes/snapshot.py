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
from engine.indexes.catalog import Catalog
from engine.indexes.counts import Counts
from engine.indexes.live import LiveIndexes
from engine.indexes.stored import StoredEntries
from engine.log.records import decode_record
from engine.log.retention import read_anchor
from engine.store.interface import Snapshot, Store, Tree


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
        "entries",
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
        self.entries = StoredEntries(store).entries
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

    def rows(self, lower: bytes, upper: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys of `[lower, upper)` and their images, in order."""
        return self._store.range(Tree.ROWS, lower, upper)

    def log(self, after: int, upto: int) -> Iterator[bytes]:
        """Encoded records with `after < ts <= upto`, in order."""
        lower, upper = (after + 1).to_bytes(8, "big"), (upto + 1).to_bytes(8, "big")
        return (value for _, value in self._store.range(Tree.LOG, lower, upper))

    def log_before(self, upto: int) -> Iterator[bytes]:
        """Encoded records with `ts <= upto`, newest first."""
        upper = (upto + 1).to_bytes(8, "big")
        return (value for _, value in self._store.range(Tree.LOG, b"", upper, reverse=True))


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
