"""
What a function read, as intervals of index keys.

Subscriptions, the query cache and conflict validation ask one question of it:
does a commit touch this read set?  A point is a row key: the interval of that
one key in the table's `by_id`, recorded also when the document was missing.
A range is an interval of entry keys in one index.  A document that a range
scan looked at is covered by the interval, whatever a filter made of it.
A search is what was looked for: a commit touches it by writing a document that
is found, or was.  Each stands for itself, also beside others in one index.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

Interval = tuple[bytes, bytes | None]
"""From a key, inclusive, to a key, exclusive; `None` is past every key."""


class Sought(Protocol):
    """What was looked for in a text or vector index."""

    @property
    def hooks(self) -> Collection[str] | None:
        """A document that is found has one of these; `None` if it has to be asked about each."""

    def holds(self, content: Any, /) -> bool:
        """Whether a document of which the index has this is found."""


class Ranking(Protocol):
    """What the order of found documents follows from, besides these; whatever changes these too."""

    @property
    def changed_ts(self) -> int:
        """When it was another last."""


class Content(Protocol):
    """What a text or vector index has of a document."""

    @property
    def hooks(self) -> Iterable[str]:
        """By which it may be found; of a long text these are many, and some come again."""


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

    def contents(self, index_prefix: bytes) -> Collection[tuple[bytes, Content]]:
        """
        What a text or vector index has, and had, of the written rows, with their internal ids.

        Left out is a row of which it has what it had.
        """
        ...

    def slices(self, index_prefix: bytes) -> Iterator[None]:
        """Work out what those two give, and stop after each slice so that others get their turn."""
        ...


class Touch(NamedTuple):
    """A key that was read and then written: an entry of an index, a row, or one that is found."""

    index_prefix: bytes | None
    """`None` for a row that was read by its id."""
    key: bytes
    """It ends with the internal id of the document."""


class ReadSet:
    """Grows while a function runs; afterwards nobody changes it."""

    __slots__ = ("points", "ranges", "rankings", "searches")

    def __init__(self) -> None:
        self.points: set[bytes] = set()
        self.ranges: dict[bytes, list[Interval]] = {}
        self.searches: dict[bytes, list[Sought]] = {}
        self.rankings: dict[bytes, Ranking] = {}
        """By the index that was searched.  No part of the question above: how rare a word is
        changes with every document, and who shows what was found is told of those that are found
        alone."""

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

    def add_search(self, index_prefix: bytes, sought: Sought) -> None:
        searches = self.searches.setdefault(index_prefix, [])
        if sought not in searches:
            searches.append(sought)

    def count(self) -> int:
        """How many points, intervals and searches it has."""
        ranges = sum(map(len, self.ranges.values()))
        return len(self.points) + ranges + sum(map(len, self.searches.values()))

    def is_touched_by(self, commit: Touched) -> bool:
        """Whether an old or new key of `commit` lies in this read set."""
        return self.is_met_by(commit) or self.is_found_by(commit)

    def is_met_by(self, commit: Touched) -> bool:
        """The same of points and intervals alone."""
        if not self.points.isdisjoint(commit.rows):
            return True
        return any(
            _holds(intervals, key)
            for prefix, intervals in self.ranges.items()
            if prefix in commit.indexes
            for key in commit.keys(prefix)
        )

    def is_found_by(self, commit: Touched) -> bool:
        """And of searches alone."""
        return any(
            sought.holds(content)
            for prefix, searches in self.searches.items()
            if prefix in commit.indexes
            for _, content in commit.contents(prefix)
            for sought in searches
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
        for prefix, searches in self.searches.items():
            if prefix in commit.indexes:
                contents = commit.contents(prefix)
                keys = [key for key, one in contents if any(s.holds(one) for s in searches)]
                if keys:
                    return Touch(prefix, min(keys))
        return None


def _holds(intervals: list[Interval], key: bytes) -> bool:
    return any(lower <= key and (upper is None or key < upper) for lower, upper in intervals)
