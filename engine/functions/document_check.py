"""
Do all documents fit a schema that is to come?  It is found out while others write them.

    walk        every table that is concerned, by id, a slice in a snapshot of its own
    catch up    the rows behind the walk that were written since
    refuse      if there is a document that does not fit

Before each slice what was written up to its snapshot is followed, and rows that the walk has
passed are noted to be looked at again.  So as of that snapshot it is known of every such row
whether it fits, except of the noted ones; and a document counts as it is now, not as it was when
the walk came by.  Who lets nobody write and catches up knows it of all documents.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from engine.errors import PushRefused, SchemaViolation
from engine.functions.deployment import SchemaChecks
from engine.indexes.catalog import TableInfo
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.written import WrittenRows
from engine.model.codec import decode

T = TypeVar("T")

SLICE_ROWS: Final = 500
"""Rows in one snapshot, unless the time of a slice is up before: a few milliseconds."""
CHANGED_ROWS_MAX: Final = 20_000
"""Noted to be looked at again, a megabyte or two; beyond, who writes is faster than we are."""
MISFITS_MAX: Final = 500
"""Documents that do not fit and may yet be repaired; with more than that the push is refused."""


@dataclass(slots=True)
class _Walk:
    """How far a table was walked: its rows in `[lower, end)` are still to come."""

    table: TableInfo
    lower: bytes = b""
    end: bytes | None = None
    """Past what was its last row when the walk began; `None` before that."""
    done: int = 0
    total: int = 0

    def begin(self, snapshot: SharedSnapshot) -> None:
        if self.end is None:
            self.total = snapshot.counts.get(self.table.number, 0)
            last = next(
                snapshot.entries(self.table.indexes["by_id"], b"", None, reverse=True), None
            )
            self.end = last[0] + b"\0" if last else b""

    def rest(self, snapshot: SharedSnapshot) -> Iterator[tuple[bytes, bytes]]:
        index = self.table.indexes["by_id"]
        return snapshot.entries(index, self.lower, self.end, reverse=False)

    def has_passed(self, internal: bytes) -> bool:
        """Whether the walk will not come by this row (any more)."""
        return self.end is not None and not self.lower <= internal < self.end


class DocumentCheck:
    """
    Args:
        tables: whose documents are to be checked.
        checks: the schemas to come.
        written: from now on; nothing of `tables` has been looked at before its timestamp.
        clock: in seconds.
        slice_s_max: a slice ends after this, or after `SLICE_ROWS`.
    """

    def __init__(
        self,
        tables: Iterable[TableInfo],
        checks: SchemaChecks,
        written: WrittenRows,
        *,
        clock: Callable[[], float],
        slice_s_max: float,
    ) -> None:
        self._walks = {table.row_prefix: _Walk(table) for table in tables}
        self._unwalked = deque(self._walks.values())
        self._checks = checks
        self._written = written
        self._clock = clock
        self._slice_s_max = slice_s_max
        self._changed: dict[bytes, None] = {}
        """Rows that were written after the walk had passed them."""
        self._misfits: dict[bytes, str] = {}
        """Rows that do not fit, as of the last slice, and why."""

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """What is being walked, how many of its documents were looked at, and of how many."""
        if not self._unwalked:
            return None
        walk = self._unwalked[0]
        return f"documents of {walk.table.label}", walk.done, walk.total

    @property
    def is_nearly_done(self) -> bool:
        """Whether one slice is enough for the rows that were noted so far."""
        return len(self._changed) <= SLICE_ROWS

    @property
    def is_outrun(self) -> bool:
        """Whether others write faster than it looks."""
        return len(self._changed) > CHANGED_ROWS_MAX or self._written.is_outrun

    def walk(self, snapshot: SharedSnapshot) -> bool:
        """
        Look at the next slice of the tables; return whether there is none any more.

        Raises:
            PushRefused: too many documents do not fit.
        """
        if self._unwalked and self._follow(snapshot):
            self._walk_slice(self._unwalked[0], snapshot)
        return not self._unwalked

    def catch_up(self, snapshot: SharedSnapshot) -> bool:
        """
        Look at a slice of what was written; return whether that was all, as of `snapshot`.

        Raises:
            PushRefused: too many documents do not fit.
        """
        if not self._walks:
            return True
        if not self._follow(snapshot):
            return False
        for key in self._slice(self._take_changed()):
            self._look(key, snapshot)
        return not self._changed

    def refuse_misfits(self) -> None:
        """
        Raises:
            PushRefused: some document does not fit; names it and the rule.
        """
        if self._misfits:
            raise PushRefused(self._misfits[min(self._misfits)])

    def _follow(self, snapshot: SharedSnapshot) -> bool:
        """Note what was written; whether that was everything up to `snapshot`."""
        for key in self._written.next_rows(snapshot):
            walk = self._walks.get(key[:4])
            if walk is not None and walk.has_passed(key[4:]):
                self._changed[key] = None
                self._misfits.pop(key, None)
        return self._written.ts == snapshot.ts

    def _walk_slice(self, walk: _Walk, snapshot: SharedSnapshot) -> None:
        walk.begin(snapshot)
        for internal, key in self._slice(walk.rest(snapshot)):
            walk.lower = internal + b"\0"
            walk.done += 1
            self._look(key, snapshot)
        if next(walk.rest(snapshot), None) is None:
            assert walk.end is not None, "it has begun"
            walk.lower = walk.end
            self._unwalked.popleft()

    def _slice(self, rows: Iterable[T]) -> Iterator[T]:
        """As many of `rows` as may be looked at before others get their turn."""
        until = self._clock() + self._slice_s_max
        for count, row in enumerate(rows, 1):
            yield row
            if count == SLICE_ROWS or self._clock() > until:
                return

    def _take_changed(self) -> Iterator[bytes]:
        while self._changed:
            yield self._changed.popitem()[0]

    def _look(self, key: bytes, snapshot: SharedSnapshot) -> None:
        image = snapshot.row(key)
        if image is None:
            return
        table = self._walks[key[:4]].table
        doc = decode(image)
        try:
            self._checks.check(table.component, table.name, doc)
        except SchemaViolation as error:
            self._misfits[key] = (
                f"the document {doc['_id']} of {table.name!r} does not fit the new schema: "
                f"{error}. Nothing was changed."
            )
            if len(self._misfits) > MISFITS_MAX:
                self.refuse_misfits()
