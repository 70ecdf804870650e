"""
Which intervals hold this key?

An `IntervalMap` keeps intervals of byte strings, each with an item of its
owner's, and finds those that hold a key without looking at the others:

    map = IntervalMap[str]()
    handle = map.add(b"a", b"c", "mine")
    map.stab(b"b")                # ["mine"]
    map.remove(handle)

It is a B-tree of spans in order of their lower bound, in which every branch
knows how far up each of its children reaches.  A child that begins above the
key, or reaches no further than it, holds no span with that key in it; and a
child that lies wholly below the key and reaches past it certainly does.  So a
search goes down only where something is found, and once beside it.

Whoever has the same interval shares one span: a thousand queries that read
the whole of an index cost the tree no more than one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

Span = tuple[bytes, bytes]
"""Lower bound and end, the end being an upper bound made comparable with `_END`."""

_FINITE: Final = b"\x00"
"""Goes before an upper bound, and before a key that is compared with one."""
_END: Final = b"\x01"
"""The end of a span without an upper bound: above every key."""
_TOP: Final = b"\x02"
"""Above every end: `(key, _TOP)` comes after all spans that begin at `key` or before it."""

NODE_SPANS_MAX: Final = 32
"""Small enough to look through, large enough that ten thousand spans are three levels."""


class Handle(Generic[T]):
    """One interval in a map, as its owner holds it."""

    __slots__ = ("is_removed", "item", "span")

    def __init__(self, span: Span, item: T) -> None:
        self.span = span
        self.item = item
        self.is_removed = False


class IntervalMap(Generic[T]):
    """Intervals of keys, from a lower bound, inclusive, to an upper one, exclusive."""

    __slots__ = ("_count", "_handles", "_root")

    def __init__(self) -> None:
        self._root: _Node = _Leaf([])
        self._handles: dict[Span, dict[Handle[T], None]] = {}
        """In the order in which they came: that of a set is the memory's."""
        self._count = 0

    def __len__(self) -> int:
        """How many intervals were added and not removed."""
        return self._count

    def add(self, lower: bytes, upper: bytes | None, item: T) -> Handle[T]:
        """
        Add an interval, also one that is there already, and return what removes it.

        `upper` is `None` where there is no bound.  An interval that ends before
        it begins holds no key and is never found.
        """
        span = (lower, _END if upper is None else _FINITE + upper)
        handle = Handle(span, item)
        sharing = self._handles.get(span)
        if sharing is None:
            self._handles[span] = {handle: None}
            self._insert(span)
        else:
            sharing[handle] = None
        self._count += 1
        return handle

    def remove(self, handle: Handle[T]) -> None:
        """Remove what `add` returned `handle` for, once; nothing if it was pruned."""
        assert not handle.is_removed, "an interval is removed once"
        handle.is_removed = True
        sharing = self._handles.get(handle.span)
        if sharing is None or handle not in sharing:
            return
        del sharing[handle]
        self._count -= 1
        if not sharing:
            del self._handles[handle.span]
            self._discard(handle.span)

    def stab(self, key: bytes) -> list[T]:
        """Return the items of all intervals that hold `key`, one for each interval."""
        handles = self._handles
        return [handle.item for span in self._holding(key) for handle in handles[span]]

    def prune(self, key: bytes, keeps: Callable[[T], bool]) -> None:
        """Remove the intervals that hold `key` of all items that `keeps` is not true of."""
        for span in self._holding(key):
            sharing = self._handles[span]
            kept = {handle: None for handle in sharing if keeps(handle.item)}
            self._count -= len(sharing) - len(kept)
            if kept:
                self._handles[span] = kept
            else:
                del self._handles[span]
                self._discard(span)

    def _holding(self, key: bytes) -> list[Span]:
        found: list[Span] = []
        self._root.find((key, _TOP), _FINITE + key, found)
        return found

    def _insert(self, span: Span) -> None:
        if right := self._root.insert(span):
            self._root = _Branch([self._root, right])

    def _discard(self, span: Span) -> None:
        self._root.discard(span)
        while isinstance(self._root, _Branch) and len(self._root.children) <= 1:
            self._root = self._root.children[0] if self._root.children else _Leaf([])


class _Leaf:
    """Up to `NODE_SPANS_MAX` spans in order."""

    __slots__ = ("spans",)

    def __init__(self, spans: list[Span]) -> None:
        self.spans = spans

    def first(self) -> Span:
        return self.spans[0]

    def reach(self) -> bytes:
        return max([end for _, end in self.spans])

    def is_empty(self) -> bool:
        return not self.spans

    def find(self, top: Span, probe: bytes, found: list[Span]) -> None:
        spans = self.spans
        found += [span for span in spans[: bisect_right(spans, top)] if span[1] > probe]

    def insert(self, span: Span) -> _Leaf | None:
        """Insert `span`; return the right half, if this made two of one."""
        spans = self.spans
        insort(spans, span)
        if len(spans) <= NODE_SPANS_MAX:
            return None
        middle = len(spans) // 2
        right = _Leaf(spans[middle:])
        del spans[middle:]
        return right

    def discard(self, span: Span) -> None:
        at = bisect_left(self.spans, span)
        assert self.spans[at] == span
        del self.spans[at]


class _Branch:
    """Up to `NODE_SPANS_MAX` children in order, with each one's first span and its reach."""

    __slots__ = ("children", "firsts", "reaches")

    def __init__(self, children: list[_Node]) -> None:
        self.children = children
        self.firsts = [child.first() for child in children]
        self.reaches = [child.reach() for child in children]

    def first(self) -> Span:
        return self.firsts[0]

    def reach(self) -> bytes:
        return max(self.reaches)

    def is_empty(self) -> bool:
        return not self.children

    def find(self, top: Span, probe: bytes, found: list[Span]) -> None:
        below = self.reaches[: bisect_right(self.firsts, top)]
        for at, reach in enumerate(below):
            if reach > probe:
                self.children[at].find(top, probe, found)

    def insert(self, span: Span) -> _Branch | None:
        """Insert `span`; return the right half, if this made two of one."""
        at = self._child_of(span)
        child = self.children[at]
        right = child.insert(span)
        self.firsts[at] = min(self.firsts[at], span)
        if right is None:
            self.reaches[at] = max(self.reaches[at], span[1])
            return None
        self.reaches[at] = child.reach()
        self.children.insert(at + 1, right)
        self.firsts.insert(at + 1, right.first())
        self.reaches.insert(at + 1, right.reach())
        return self._split() if len(self.children) > NODE_SPANS_MAX else None

    def discard(self, span: Span) -> None:
        """
        Remove `span`, and a child that this leaves empty.

        Children are not merged: there are never more of them than spans, and
        the ranges of live queries come back to where ranges were before.
        """
        at = self._child_of(span)
        child = self.children[at]
        child.discard(span)
        if child.is_empty():
            del self.children[at], self.firsts[at], self.reaches[at]
            return
        self.firsts[at] = child.first()
        if self.reaches[at] == span[1]:
            self.reaches[at] = child.reach()

    def _child_of(self, span: Span) -> int:
        return max(bisect_right(self.firsts, span) - 1, 0)

    def _split(self) -> _Branch:
        middle = len(self.children) // 2
        right = _Branch(self.children[middle:])
        del self.children[middle:], self.firsts[middle:], self.reaches[middle:]
        return right


_Node = _Leaf | _Branch
