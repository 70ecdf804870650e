"""
Staged versions: commits that later mutations already see and readers do not.

    stage ──▶ [ v1 v2 v3 ] ──publish──▶ kept while a view is older ──▶ dropped
                  └── a failed batch: all of them go, and the generation rises

A version is the image of one row at one timestamp.  Those of a row are kept in
order, so a view finds the newest at or before its own timestamp.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, TypeAlias

from engine.indexes.catalog import Catalog, IndexInfo, by_id_prefix
from engine.indexes.counts import NO_COUNTS, Counts
from engine.indexes.entries import Applied, Change, changes
from engine.log.retention import Trim
from engine.model.commits import RowWrite

OverlayEntry = tuple[bytes, bytes | None]
Versions: TypeAlias = list[tuple[int, bytes | None]]
"""What one key has led to, with the timestamps from which it did, oldest first."""

DROPPED_MAX: Final = 64
"""Keys of an index that are in its order and no longer staged, beside as many as are."""


class StagedCommit(Applied, gc=False, eq=False, kw_only=True):
    """One transaction from its decision on; when it is published, followers see it."""

    changes: Sequence[Change]
    record: bytes
    record_hash: bytes
    state_hash: int
    counts: Counts
    trim: Trim | None
    size_bytes: int
    on_publish: Callable[[], None] | None

    @property
    def changes_count(self) -> int:
        """Keys that it writes or removes: records, rows and their entries."""
        trimmed = 0 if self.trim is None else len(self.trim.keys)
        return 1 + len(self.writes) + len(self.changes) + trimmed

    def published(self) -> None:
        """It is durable: what only the disk needed is let go."""
        self.record = b""
        self.counts = NO_COUNTS
        self.trim = None
        if self.on_publish is not None:
            self.on_publish()
            self.on_publish = None

    def followed(self) -> None:
        """Those who follow closely have had it: what they asked it for is let go."""
        self._keys = self._contents = None
        for write in self.writes:
            write.forget_docs()


class Staged:
    """All versions that some view may still need, newest last."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Versions] = {}
        """The images of each row, with the timestamps from which they hold."""
        self._entries: dict[bytes, _Entries] = {}
        self._commits: deque[StagedCommit] = deque()

    def __len__(self) -> int:
        return len(self._commits)

    def add(self, commit: StagedCommit) -> None:
        ts = commit.ts
        rows = self.rows
        for write in commit.writes:
            rows.setdefault(write.key, []).append((ts, write.after))
            if write.before is None or write.after is None:
                self._add_entry(*_by_id_entry(write), ts)
        for prefix, key, row in commit.changes:
            self._add_entry(prefix, key, row, ts)
        self._commits.append(commit)

    def after(self, ts: int) -> Iterator[StagedCommit]:
        """The commits later than `ts` that are kept, oldest first."""
        return (commit for commit in self._commits if commit.ts > ts)

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool, upto: int
    ) -> Iterator[OverlayEntry]:
        """What is staged for an interval of an index, up to a timestamp."""
        entries = self._entries.get(index.prefix)
        if entries is None:
            return
        for key, versions in entries.between(lower, upper, reverse=reverse):
            for ts, row in reversed(versions):
                if ts <= upto:
                    yield key, row
                    break

    def drop_through(self, ts: int) -> None:
        """Forget the versions at or before `ts`: no view is older than that."""
        while self._commits and self._commits[0].ts <= ts:
            commit = self._commits.popleft()
            for write in commit.writes:
                versions = self.rows[write.key]
                if len(versions) == 1:
                    del self.rows[write.key]
                else:
                    del versions[0]
                if write.before is None or write.after is None:
                    prefix, key, _ = _by_id_entry(write)
                    self._entries[prefix].drop_first(key)
            for prefix, key, _ in commit.changes:
                self._entries[prefix].drop_first(key)
            commit.changes = ()

    def clear(self) -> None:
        """Forget everything: a batch has failed."""
        self.rows.clear()
        self._entries.clear()
        self._commits.clear()

    def _add_entry(self, prefix: bytes, key: bytes, row: bytes | None, ts: int) -> None:
        entries = self._entries.get(prefix)
        if entries is None:
            entries = self._entries[prefix] = _Entries()
        entries.add(key, (ts, row))


class _Entries:
    """
    What is staged of one index.

    Most mutations that write an entry ask for no range of entries, so keys are put in order when
    somebody does: those that came since go behind the others, and the sort merges the two.
    """

    __slots__ = ("_added", "_dropped", "_ordered", "_versions")

    def __init__(self) -> None:
        self._versions: dict[bytes, Versions] = {}
        self._ordered: list[bytes] = []
        """Keys, some of them no longer staged, or twice."""
        self._added: list[bytes] = []
        """Those that have no place in the order yet."""
        self._dropped = 0

    def add(self, key: bytes, version: tuple[int, bytes | None]) -> None:
        versions = self._versions.get(key)
        if versions is None:
            self._versions[key] = [version]
            self._added.append(key)
        else:
            versions.append(version)

    def drop_first(self, key: bytes) -> None:
        """Forget the oldest version of `key`."""
        versions = self._versions[key]
        if len(versions) > 1:
            del versions[0]
            return
        del self._versions[key]
        self._dropped += 1
        if self._dropped > len(self._versions) + DROPPED_MAX:
            self._ordered, self._added, self._dropped = [], list(self._versions), 0

    def between(
        self, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, Versions]]:
        """The keys from `lower` on and before `upper`, in order."""
        if self._added:
            self._ordered = sorted(chain(self._ordered, self._added))
            self._added = []
        keys = self._ordered
        begin = bisect_left(keys, lower)
        end = len(keys) if upper is None else bisect_left(keys, upper, begin)
        last = None
        for at in range(end - 1, begin - 1, -1) if reverse else range(begin, end):
            key = keys[at]
            if key != last and (versions := self._versions.get(key)) is not None:
                yield key, versions
            last = key


def _by_id_entry(write: RowWrite) -> tuple[bytes, bytes, bytes | None]:
    prefix = by_id_prefix(write.table_number)
    return prefix, write.key[4:], None if write.after is None else write.key


def changes_of(catalog: Catalog, writes: Sequence[RowWrite]) -> list[Change]:
    """The entry changes of all `writes`, under the catalog that they result in."""
    found: list[Change] = []
    for write in writes:
        table = catalog.by_number.get(write.table_number)
        if table is not None:
            found += changes(table, write)
    return found
