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

from engine.errors import InvalidValue, PushRefused
from engine.functions.deployment import SchemaChecks
from engine.functions.guard import Guard
from engine.indexes.catalog import Catalog, IndexInfo, IndexState, TableInfo
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.written import WrittenRows
from engine.model.codec import decode
from engine.model.ids import id_of, row_key_of
from engine.model.keys import encode_key, past
from engine.model.relations import Relation, named

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
        guard: around predicates of the application.
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
        guard: Guard,
        clock: Callable[[], float],
        slice_s_max: float,
    ) -> None:
        self._walks = {table.row_prefix: _Walk(table) for table in tables}
        self._unwalked = deque(self._walks.values())
        self._checks = checks
        self._guard = guard
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
            self._note(key)
            if self._checks.referring:
                for referring in self._left_behind(key, snapshot):
                    self._note(referring)
        return self._written.ts == snapshot.ts

    def _note(self, key: bytes) -> None:
        walk = self._walks.get(key[:4])
        if walk is not None and walk.has_passed(key[4:]):
            self._changed[key] = None
            self._misfits.pop(key, None)

    def _left_behind(self, key: bytes, snapshot: SharedSnapshot) -> Iterator[bytes]:
        """The rows that refer to one which is gone, if it is."""
        catalog = snapshot.catalog
        table = catalog.by_number.get(int.from_bytes(key[:4], "big"))
        if table is None or snapshot.row(key) is not None:
            return
        for relation in self._checks.referring.get((table.component, table.name), ()):
            index = _index_of(catalog, table.component, relation)
            lower = encode_key([id_of(key)])
            for _, row in snapshot.entries(index, lower, past(lower), reverse=False):
                yield row

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
        self._guard.document = (table.name, key)
        try:
            self._checks.validate(table.component, table.name, doc, self._guard)
        except InvalidValue as error:
            what = named(table.label, doc)
            self._note_misfit(key, f"{what} does not fit the new schema: {error}")
            return
        for relation in self._checks.relations.get((table.component, table.name), ()):
            target = relation.id_in(doc)
            if target is not None and snapshot.row(row_key_of(target)) is None:
                self._note_misfit(key, relation.dangles(doc, target))

    def _note_misfit(self, key: bytes, why: str) -> None:
        self._misfits[key] = f"{why}. Nothing was changed."
        if len(self._misfits) > MISFITS_MAX:
            self.refuse_misfits()


def _index_of(catalog: Catalog, component: str, relation: Relation) -> IndexInfo:
    """The index by which is found who refers: one that is read, or was filled for the push."""
    table = catalog.table(component, relation.table)
    assert table is not None, "prepared"
    path = tuple(relation.field.split("."))
    states = [IndexState.ENABLED, IndexState.STAGED, IndexState.BACKFILLING, IndexState.STAGING]
    found = [
        index
        for index in table.indexes.values()
        if index.name == relation.index and index.fields[0] == path and index.state in states
    ]
    return min(found, key=lambda index: states.index(index.state))
