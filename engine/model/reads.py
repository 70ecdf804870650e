"""
What a function read, as intervals of index keys.

Subscriptions, the query cache and conflict validation ask one question of it:
does a commit touch this read set?  A point is a row key: the interval of that
one key in the table's `by_id`, recorded also when the document was missing.
A range is an interval of entry keys in one index.  A document that a range
scan looked at is covered by the interval, whatever a filter made of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple, Protocol

Interval = tuple[bytes, bytes | None]
"""From a key, inclusive, to a key, exclusive; `None` is past every key."""


class Touched(Protocol):
    """What a commit changed, as a read set sees it."""

    @property
    def ts(self) -> int: ...

    @property
    def rows(self) -> Collection[bytes]:
        """Row keys that were written, in whatever way."""
        ...

    @property
    def indexes(self) -> Collection[bytes]:
        """Prefixes of all indexes of the tables that were written."""
        ...

    def keys(self, index_prefix: bytes) -> Collection[bytes]:
        """Entry keys, old and new, of the written rows in one index."""
        ...

    def slices(self, index_prefix: bytes) -> Iterator[None]:
        """Work out what `keys` gives, and stop after each slice so that others get their turn."""
        ...


class Touch(NamedTuple):
    """A key that was read and then written: an entry of an index, or a row."""

    index_prefix: bytes | None
    """`None` for a row that was read by its id."""
    key: bytes


class ReadSet:
    """Grows while a function runs; afterwards nobody changes it."""

    __slots__ = ("points", "ranges")

    def __init__(self) -> None:
        self.points: set[bytes] = set()
        self.ranges: dict[bytes, list[Interval]] = {}

    def add_point(self, row_key: bytes) -> None:
        self.points.add(row_key)

    def add_range(self, index_prefix: bytes, lower: bytes, upper: bytes | None) -> None:
        """Add an interval; one that continues the interval before it becomes one with it."""
        intervals = self.ranges.setdefault(index_prefix, [])
        if intervals:
            last_lower, last_upper = intervals[-1]
            if last_upper is not None and last_lower <= lower <= last_upper:
                widest = None if upper is None else max(upper, last_upper)
                intervals[-1] = (last_lower, widest)
                return
        intervals.append((lower, upper))

    def is_touched_by(self, commit: Touched) -> bool:
        """Whether an old or new key of `commit` lies in this read set."""
        if not self.points.isdisjoint(commit.rows):
            return True
        return any(
            _holds(intervals, key)
            for prefix, intervals in self.ranges.items()
            if prefix in commit.indexes
            for key in commit.keys(prefix)
        )

    def touch_of(self, commit: Touched) -> Touch | None:
        """Where `commit` lies in this read set: the first such key, if there is one."""
        rows = self.points.intersection(commit.rows)
        if rows:
            return Touch(None, min(rows))
        for prefix, intervals in self.ranges.items():
            if prefix in commit.indexes:
                keys = [key for key in commit.keys(prefix) if _holds(intervals, key)]
                if keys:
                    return Touch(prefix, min(keys))
        return None


def _holds(intervals: list[Interval], key: bytes) -> bool:
    return any(lower <= key and (upper is None or key < upper) for lower, upper in intervals)
