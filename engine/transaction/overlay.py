"""
Rows and entries laid over a state: what was written since.

A view is a snapshot with more over it.  Whatever is read goes through
that from the top down, and this module is the one place where it is merged.
An overlay keeps row images by key; what they do to an index is worked out when
that index is first scanned, and kept up from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sortedcontainers import SortedDict

from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.entries import entry_key
from engine.indexes.live import LiveIndex, OwnWrites
from engine.model.commits import RowWrite

OverlayEntry = tuple[bytes, bytes | None]
"""Entry key, and the row key it leads to; `None` hides the entry below."""

_NOTHING: Final[tuple[OverlayEntry, ...]] = ()


class Overlay:
    """Row images by key, and the index entries that follow from them."""

    __slots__ = ("_grown", "_indexes", "_journal", "_own", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, RowWrite] = {}
        """The last image of each row: `after` is what a reader sees."""
        self._journal: list[RowWrite] = []
        self._indexes: dict[bytes, _IndexOverlay] = {}
        self._grown: dict[int, int] = {}
        self._own: dict[int, tuple[OwnWrites, int]] = {}
        """For each index that was searched, and how much of the journal it has."""

    def write(self, step: RowWrite) -> None:
        """Lay `step` over what is there; its `before` is what was seen until now."""
        self.rows[step.key] = step
        self._journal.append(step)
        if (step.before is None) is not (step.after is None):
            self._grow(step.table_number, 1 if step.before is None else -1)

    def absorb(self, upper: Overlay) -> None:
        """Take over everything that `upper`, which lies on this one, has."""
        self.rows.update(upper.rows)
        self._journal += upper._journal
        for number, count in upper._grown.items():
            self._grow(number, count)

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[OverlayEntry]:
        """What it adds to and hides from `index` in an interval, in order."""
        if not self._journal:
            return iter(_NOTHING)
        overlay = self._indexes.setdefault(index.prefix, _IndexOverlay(index))
        overlay.follow(self._journal)
        return overlay.scan(lower, upper, reverse)

    def grown(self, table_number: int) -> int:
        """How many more rows a table has with it than without."""
        return self._grown.get(table_number, 0)

    def own(self, index: LiveIndex) -> OwnWrites:
        """All of it, as `index` would have it."""
        prefix = index.info.table_number.to_bytes(4, "big")
        own, followed = self._own.get(index.info.index_id) or (index.own(), 0)
        for step in self._journal[followed:]:
            if step.key.startswith(prefix):
                own.put(step.key[4:], step.after_doc)
        self._own[index.info.index_id] = own, len(self._journal)
        return own

    @property
    def steps(self) -> Sequence[RowWrite]:
        """All that was written, in order."""
        return self._journal

    @property
    def is_empty(self) -> bool:
        return not self._journal

    def _grow(self, table_number: int, count: int) -> None:
        self._grown[table_number] = self._grown.get(table_number, 0) + count


class _IndexOverlay:
    """The entries of one index, as far as a journal of row writes has been followed."""

    __slots__ = ("_entries", "_followed", "_index", "_rows")

    def __init__(self, index: IndexInfo) -> None:
        self._index = index
        self._entries: SortedDict[bytes, bytes | None] = SortedDict()
        self._followed = 0
        self._rows = index.table_number.to_bytes(4, "big")

    def follow(self, journal: list[RowWrite]) -> None:
        for step in journal[self._followed :]:
            if step.key.startswith(self._rows):
                self._apply(step)
        self._followed = len(journal)

    def scan(self, lower: bytes, upper: bytes | None, reverse: bool) -> Iterator[OverlayEntry]:
        entries = self._entries
        for key in entries.irange(lower, upper, inclusive=(True, False), reverse=reverse):
            yield key, entries[key]

    def _apply(self, step: RowWrite) -> None:
        internal = step.key[4:]
        if self._index.kind is IndexKind.BY_ID:
            self._entries[internal] = None if step.after is None else step.key
            return
        if (before := step.before_doc) is not None:
            self._entries[entry_key(self._index, before, internal)] = None
        if (after := step.after_doc) is not None:
            self._entries[entry_key(self._index, after, internal)] = step.key


def merged(
    below: Iterator[tuple[bytes, bytes]], above: Iterator[OverlayEntry], *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Both in one order; where both have a key, `above` decides."""
    low = next(below, None)
    high = next(above, None)
    while low is not None and high is not None:
        if low[0] == high[0]:
            low = next(below, None)
        elif (low[0] < high[0]) is not reverse:
            yield low
            low = next(below, None)
            continue
        if high[1] is not None:
            yield high[0], high[1]
        high = next(above, None)
    while low is not None:
        yield low
        low = next(below, None)
    while high is not None:
        if high[1] is not None:
            yield high[0], high[1]
        high = next(above, None)
