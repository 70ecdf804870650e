"""
Whose read set does this commit touch?

A `ReadIndex` is the question that `ReadSet.is_touched_by` answers for one read
set, asked of all of them at once.  Points stand in a dictionary by row key,
ranges in one interval map for each index of the data, searches by their words:
a commit is looked up by what it wrote, and what nobody reads costs nothing.

An item that is found leaves at once, and what it had read is taken out later, a bit at a time:
ten thousand may have read one range, and each of them many documents besides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from engine.model.reads import Content, ReadSet, Sought, Touched
from engine.subscriptions.intervals import Handle, IntervalMap

T = TypeVar("T", bound=Hashable)

SLICE_HOOKS: Final = 16_384
"""Of a document, looked for before others get their turn: some three milliseconds."""


class ReadIndex(Generic[T]):
    """Read sets, each with the item that stands for it."""

    __slots__ = ("_entries", "_left", "_points", "_ranges", "_searches")

    def __init__(self) -> None:
        self._points: dict[bytes, T | dict[T, None]] = {}
        """The one reader that most rows have, or several in the order in which they came: that of
        a set is the memory's."""
        self._ranges: dict[bytes, IntervalMap[T]] = {}
        self._searches: dict[bytes, _Searches[T]] = {}
        self._entries: dict[T, _Entry[T]] = {}
        self._left: deque[tuple[T, _Entry[T]]] = deque()
        """Of these something may still stand here."""

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

    def add(self, reads: ReadSet, item: T, *, seeks: bool = True) -> None:
        """
        Let `item` be found by commits that touch `reads`, which nobody changes from now on.

        Args:
            seeks: whether by what its searches find as well; else `seek` lets it.
        """
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
        if seeks:
            self.seek(reads, item)
        # As tuples of nothing there is one, and the collector does not look at it.
        self._entries[item] = (reads, tuple(handles))

    def seek(self, reads: ReadSet, item: T) -> None:
        """Let `item` be found by what its searches find, from now on."""
        for prefix, sought in reads.searches.items():
            searches = self._searches.get(prefix)
            if searches is None:
                searches = self._searches[prefix] = _Searches()
            for one in sought:
                searches.add(one, item)

    def remove(self, item: T) -> None:
        """Forget `item`, and whatever only it had read."""
        self._take_out(item, self._entries.pop(item))

    def leave(self, item: T) -> None:
        """Find `item` no more; what it had read is for `clean` to take out."""
        self._left.append((item, self._entries.pop(item)))

    def clean(self) -> Iterator[T]:
        """Forget whatever only those had read that have left; yields each."""
        while self._left:
            item, entry = self._left.popleft()
            self._take_out(item, entry)
            yield item

    def _take_out(self, item: T, entry: _Entry[T]) -> None:
        reads, handles = entry
        for row in reads.points:
            self._take_point(row, item)
        for prefix, handle in handles:
            if (intervals := self._ranges.get(prefix)) is not None:
                intervals.remove(handle)
                if not intervals:
                    del self._ranges[prefix]
        for prefix, sought in reads.searches.items():
            if (searches := self._searches.get(prefix)) is not None:
                searches.remove(sought, item)
                if not searches:
                    del self._searches[prefix]

    def _take_point(self, row: bytes, item: T) -> None:
        readers = self._points.get(row)
        if isinstance(readers, dict):
            readers.pop(item, None)
            if not readers:
                del self._points[row]
        elif readers == item:
            del self._points[row]

    def touched_by(self, commit: Touched) -> Iterator[T]:
        """As `touched_in_slices`, in one."""
        return (item for item in self.touched_in_slices(commit) if item is not None)

    def touched_in_slices(self, commit: Touched) -> Iterator[T | None]:
        """
        Yield the items whose read set `commit` touches, and `None` where others may have a turn.

        The caller may let an item leave as soon as it has it, and then neither a
        commit of many keys nor a later one finds it by each of them.  It may come
        twice all the same, when two of its intervals hold one key.
        """
        for row in commit.rows:
            readers = self._points.get(row)
            if readers is not None:
                yield from self._at_point(row, readers)
        if not self._ranges and not self._searches:
            return
        for prefix in commit.indexes:
            if prefix in self._ranges:
                for key in commit.keys(prefix):
                    yield from self._in_ranges(prefix, key)
            if prefix in self._searches:
                for _, content in commit.contents(prefix):
                    yield from self._searching(prefix, content)

    def _at_point(self, row: bytes, readers: T | dict[T, None]) -> Iterator[T]:
        entries = self._entries
        if not isinstance(readers, dict):
            if readers in entries:
                yield readers
            return
        yield from [item for item in readers if item in entries]
        for item in [item for item in readers if item not in entries]:
            del readers[item]
        if not readers and self._points.get(row) is readers:
            del self._points[row]

    def _in_ranges(self, prefix: bytes, key: bytes) -> Iterator[T]:
        intervals = self._ranges.get(prefix)
        if intervals is None:
            return  # the last one has left meanwhile
        entries = self._entries
        found = intervals.stab(key)
        yield from [item for item in found if item in entries]
        if any(item not in entries for item in found):
            intervals.prune(key, entries.__contains__)

    def _searching(self, prefix: bytes, content: Content) -> Iterator[T | None]:
        searches = self._searches.get(prefix)
        if searches is None:
            return
        entries = self._entries
        for askers in searches.finding(content):
            if askers is None:
                yield None
                continue
            yield from [item for item in askers if item in entries]
            for item in [item for item in askers if item not in entries]:
                del askers[item]


class _Searches(Generic[T]):
    """
    Searches of one index, and who has asked them.

    They hang on what a document that they find has in any case, so that only those are asked
    which may find it: a commit costs what it has words, and not what everybody searches.
    """

    __slots__ = ("_anywhere", "_asked", "_by_hook")

    def __init__(self) -> None:
        self._asked: dict[Sought, dict[T, None]] = {}
        self._by_hook: dict[str, dict[Sought, dict[T, None]]] = {}
        """Those who have asked are in one dictionary, here and there."""
        self._anywhere: dict[Sought, dict[T, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._asked)

    def add(self, sought: Sought, item: T) -> None:
        askers = self._asked.get(sought)
        if askers is not None:
            askers[item] = None
            return
        askers = self._asked[sought] = {item: None}
        if sought.hooks is None:
            self._anywhere[sought] = askers
        for hook in sought.hooks or ():
            self._by_hook.setdefault(hook, {})[sought] = askers

    def remove(self, several: Sequence[Sought], item: T) -> None:
        for sought in several:
            askers = self._asked.get(sought)
            if askers is not None:
                askers.pop(item, None)
                if not askers:
                    self._take_down(sought)

    def _take_down(self, sought: Sought) -> None:
        del self._asked[sought]
        self._anywhere.pop(sought, None)
        for hook in dict.fromkeys(sought.hooks or ()):
            hanging = self._by_hook[hook]
            del hanging[sought]
            if not hanging:
                del self._by_hook[hook]

    def finding(self, content: Content) -> Iterator[dict[T, None] | None]:
        """
        Who has asked a search that finds a document of which the index has `content`.

        `None` where others may have a turn, in which searches may come and go.
        """
        yield from self._holding(self._anywhere, content)
        if not self._by_hook:
            return
        looked_at: set[str] = set()
        for count, hook in enumerate(content.hooks, 1):
            hanging = self._by_hook.get(hook)
            if hanging is not None and hook not in looked_at:
                looked_at.add(hook)
                yield from self._holding(hanging, content)
            if count % SLICE_HOOKS == 0:
                yield None

    @staticmethod
    def _holding(hanging: dict[Sought, dict[T, None]], content: Content) -> Iterator[dict[T, None]]:
        # Those who have asked leave as they are found, and of most there is nobody any more.
        for sought, askers in list(hanging.items()):
            if askers and sought.holds(content):
                yield askers


_Entry = tuple[ReadSet, tuple[tuple[bytes, Handle[T]], ...]]
