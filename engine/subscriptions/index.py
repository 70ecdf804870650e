"""
Whose read set does this commit touch?

A `ReadIndex` is the question that `ReadSet.is_touched_by` answers for one read
set, asked of all of them at once.  Points stand in a dictionary by row key,
ranges in one interval map for each index of the data, searches by their words:
a commit is looked up by what it wrote, and what nobody reads costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from engine.model.reads import Content, ReadSet, Sought, Touched
from engine.subscriptions.intervals import Handle, IntervalMap

T = TypeVar("T", bound=Hashable)


class ReadIndex(Generic[T]):
    """Read sets, each with the item that stands for it."""

    __slots__ = ("_entries", "_points", "_ranges", "_searches")

    def __init__(self) -> None:
        self._points: dict[bytes, T | dict[T, None]] = {}
        """The one reader that most rows have, or several in the order in which they came: that of
        a set is the memory's."""
        self._ranges: dict[bytes, IntervalMap[T]] = {}
        self._searches: dict[bytes, _Searches[T]] = {}
        self._entries: dict[T, _Entry[T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: T) -> bool:
        return item in self._entries

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries)

    @property
    def point_count(self) -> int:
        """Rows that somebody reads by their key."""
        return len(self._points)

    @property
    def range_count(self) -> int:
        """Intervals, counted once for each read set they are in."""
        return sum(map(len, self._ranges.values()))

    def has_readers(self, prefix: bytes) -> bool:
        """Whether anybody reads in this index of the data."""
        return prefix in self._ranges or prefix in self._searches

    def add(self, reads: ReadSet, item: T) -> None:
        """Let `item` be found by commits that touch `reads`, which nobody changes from now on."""
        assert item not in self._entries, "an item has one read set"
        for row in reads.points:
            readers = self._points.setdefault(row, item)
            if isinstance(readers, dict):
                readers[item] = None
            elif readers != item:
                self._points[row] = {readers: None, item: None}
        handles: list[tuple[bytes, Handle[T]]] = []
        for prefix, intervals in reads.ranges.items():
            ranges = self._ranges.get(prefix)
            if ranges is None:
                ranges = self._ranges[prefix] = IntervalMap()
            handles += [(prefix, ranges.add(lower, upper, item)) for lower, upper in intervals]
        for prefix, sought in reads.searches.items():
            searches = self._searches.get(prefix)
            if searches is None:
                searches = self._searches[prefix] = _Searches()
            for one in sought:
                searches.add(one, item)
        self._entries[item] = (reads, handles)

    def remove(self, item: T) -> None:
        """Forget `item`, and whatever only it had read."""
        reads, handles = self._entries.pop(item)
        for row in reads.points:
            readers = self._points[row]
            if isinstance(readers, dict) and len(readers) > 1:
                del readers[item]
            else:
                del self._points[row]
        for prefix, handle in handles:
            intervals = self._ranges[prefix]
            intervals.remove(handle)
            if not intervals:
                del self._ranges[prefix]
        for prefix, sought in reads.searches.items():
            searches = self._searches[prefix]
            for one in sought:
                searches.remove(one, item)
            if not searches:
                del self._searches[prefix]

    def touched_by(self, commit: Touched) -> Iterator[T]:
        """
        Yield the items whose read set `commit` touches.

        The caller may remove an item as soon as it has it, and then a commit
        of many keys does not find it by each of them.  It may come twice all
        the same, when two of its intervals hold one key.
        """
        for row in commit.rows:
            readers = self._points.get(row)
            if readers is not None:
                yield from list(readers) if isinstance(readers, dict) else (readers,)
        if not self._ranges and not self._searches:
            return
        for prefix in commit.indexes:
            intervals = self._ranges.get(prefix)
            if intervals is not None:
                for key in commit.keys(prefix):
                    yield from intervals.stab(key)
            searches = self._searches.get(prefix)
            if searches is not None:
                for _, content in commit.contents(prefix):
                    yield from searches.finding(content)


class _Searches(Generic[T]):
    """
    Searches of one index, and who has asked them.

    They hang on what a document that they find has in any case, so that only those are asked
    which may find it: a commit costs what it has words, and not what everybody searches.
    """

    __slots__ = ("_anywhere", "_asked", "_by_hook")

    def __init__(self) -> None:
        self._asked: dict[Sought, dict[T, None]] = {}
        self._by_hook: dict[str, dict[Sought, None]] = {}
        self._anywhere: dict[Sought, None] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def add(self, sought: Sought, item: T) -> None:
        askers = self._asked.get(sought)
        if askers is not None:
            askers[item] = None
            return
        self._asked[sought] = {item: None}
        if sought.hooks is None:
            self._anywhere[sought] = None
        for hook in sought.hooks or ():
            self._by_hook.setdefault(hook, {})[sought] = None

    def remove(self, sought: Sought, item: T) -> None:
        askers = self._asked[sought]
        del askers[item]
        if askers:
            return
        del self._asked[sought]
        self._anywhere.pop(sought, None)
        for hook in dict.fromkeys(sought.hooks or ()):
            hanging = self._by_hook[hook]
            del hanging[sought]
            if not hanging:
                del self._by_hook[hook]

    def finding(self, content: Content) -> Iterator[T]:
        """Who has asked a search that finds a document of which the index has `content`."""
        near = dict(self._anywhere)
        if self._by_hook:
            for hook in content.hooks:
                near.update(self._by_hook.get(hook, {}))
        for sought in near:
            if sought.holds(content):
                yield from list(self._asked.get(sought, ()))


_Entry = tuple[ReadSet, list[tuple[bytes, Handle[T]]]]
