"""
Reads in the past: the present with everything that came since taken back.

The oldest before-image of a row among the records after `ts` is what the row was at `ts`.  Rows
that no record has are as they are now.  So a state of the past is a snapshot under sheets, each of
which hides the rows that it has and shows them as they were:

    sheet     rows as they are at a `ts` near by, where the others are of that one
    sheet     in memory: of the newest records
    sheet     in an annex: of those before, once they were too many for memory
    snapshot  whichever is newest

What a row was does not change, so sheets only grow, whichever snapshot they lie on; and one that
has more rows than it needs says the same of them as the snapshot does.

The documents are those of then, found by the indexes of now: an index that is kept up has an entry
for every document there is, and a sheet works out those of its own.  So one that was added since
can be used.  One that was dropped since is of then: an annex has the entries of all its documents.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeAlias

from sortedcontainers import SortedDict

from engine.errors import SnapshotTooOld
from engine.indexes.buckets import Buckets
from engine.indexes.catalog import (
    INDEXES,
    OF_THEN,
    TABLES,
    Catalog,
    IndexInfo,
    IndexKind,
    IndexState,
    Path,
    TableInfo,
)
from engine.indexes.counts import Counts
from engine.indexes.entries import entry_key
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.stored import Entry, StoredEntries
from engine.indexes.taken_back import GONE, Taken
from engine.log.records import decode_record
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.model.keys import increment
from engine.store.interface import Snapshot, Tree
from engine.transaction.overlay import merged
from engine.transaction.view import NOWHERE, View

SLICE_RECORDS: Final = 128
"""Records read between two chances to yield."""
SLICE_BYTES: Final = 256 << 10
"""Of records, likewise."""
ROW_BYTES: Final = 200
"""About what a row takes up besides its image."""
NEAR_RECORDS: Final = 4_096
"""Between two timestamps, of which one is read by what was taken back for the other."""
HIDDEN_AT_ONCE: Final = 512
"""Entries of rows that were otherwise, passed in a row before others get their turn."""
LOOK_EVERY: Final = 64
"""Such entries, and it is asked whether somebody has gone through them before."""

_END: Final = b"\xff" * 64
"""Above all entry keys."""
_COMPLETE: Final = frozenset({IndexState.ENABLED, IndexState.STAGED})
"""States of an index that has entries of all documents."""
_SYSTEM_ROWS: Final = (TABLES.to_bytes(4, "big"), INDEXES.to_bytes(4, "big"))


class IndexNotLaid(SnapshotTooOld):
    """An annex has no entries of an index that is read: it gets them, and the query runs again."""

    def __init__(self, index: IndexInfo) -> None:
        super().__init__(f"the entries of {index.name!r} as they were are not worked out yet")
        self.index = index


class Sheet(Protocol):
    """Rows as they were."""

    def find(self, key: bytes, /) -> bytes | None:
        """The image of a row, or `GONE`; `None` if the sheet does not have it."""

    def prepare(self, index: IndexInfo, rows_max: int) -> bool:
        """
        Work out some of what `entries` need; whether that was all of it.

        Raises:
            IndexNotLaid: that is not for here.
        """

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[Entry]:
        """The entries of its rows in an interval of an index, in order."""

    def keys(self, prefix: bytes) -> Collection[bytes]:
        """The keys of its rows in a table of the catalog."""


class MemorySheet:
    """Rows in memory; what they are in an index is worked out when that is first read."""

    __slots__ = ("_indexes", "_system_keys", "find", "rows", "size_bytes")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.find: Callable[[bytes], bytes | None] = self.rows.get
        self.size_bytes = 0
        self._system_keys: list[bytes] = []
        self._indexes: dict[bytes, _SheetIndex] = {}

    def add(self, key: bytes, image: bytes | None) -> None:
        """A row that it does not have yet."""
        self.rows[key] = image or GONE
        self.size_bytes += len(image or GONE) + ROW_BYTES
        if key.startswith(_SYSTEM_ROWS):
            self._system_keys.append(key)

    def prepare(self, index: IndexInfo, rows_max: int) -> bool:
        """As `Sheet.prepare`."""
        return self._index(index).follow(rows_max)

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[Entry]:
        """As `Sheet.entries`."""
        found = self._index(index)
        found.follow(len(self.rows))
        return found.scan(lower, upper, reverse=reverse)

    def keys(self, prefix: bytes) -> Collection[bytes]:
        """As `Sheet.keys`."""
        return [key for key in self._system_keys if key.startswith(prefix)]

    def _index(self, index: IndexInfo) -> _SheetIndex:
        found = self._indexes.get(index.prefix)
        if found is None:
            found = self._indexes[index.prefix] = _SheetIndex(index, self.rows)
        return found


class _SheetIndex:
    """The entries of one index, of the first so many rows of a sheet that may grow."""

    __slots__ = ("_entries", "_followed", "_index", "_keys", "_prefix", "_rows")

    def __init__(self, index: IndexInfo, rows: dict[bytes, bytes]) -> None:
        self._index = index
        self._prefix = index.table_number.to_bytes(4, "big")
        self._rows = rows
        self._keys: list[bytes] = []
        self._followed = 0
        self._entries: SortedDict[bytes, bytes] = SortedDict()

    def follow(self, rows_max: int) -> bool:
        if len(self._keys) < len(self._rows):
            self._keys = list(self._rows)  # in the order in which they came
        end = min(self._followed + rows_max, len(self._keys))
        for key in self._keys[self._followed : end]:
            if key.startswith(self._prefix) and (image := self._rows[key]) != GONE:
                self._entries[self._key(key[4:], image)] = key
        self._followed = end
        return end == len(self._rows)

    def scan(self, lower: bytes, upper: bytes | None, *, reverse: bool) -> Iterator[Entry]:
        entries = self._entries
        for key in entries.irange(lower, upper, inclusive=(True, False), reverse=reverse):
            yield key, entries[key]

    def _key(self, internal: bytes, image: bytes) -> bytes:
        if self._index.kind is IndexKind.BY_ID:
            return internal
        return entry_key(self._index, decode(image), internal)


class AnnexSheet:
    """
    Rows in a state of an annex.

    Args:
        laid: prefixes of the indexes whose entries it has.
    """

    __slots__ = ("_buckets", "_laid", "_snapshot", "_stored")

    def __init__(self, snapshot: Snapshot, laid: Collection[bytes]) -> None:
        self._snapshot = snapshot
        self._laid = laid
        self._stored = StoredEntries(snapshot)
        self._buckets = Buckets(None)

    def find(self, key: bytes) -> bytes | None:
        """As `Sheet.find`."""
        return self._snapshot.get(Tree.ROWS, key)

    def prepare(self, index: IndexInfo, rows_max: int) -> bool:  # noqa: ARG002 - none are left
        """As `Sheet.prepare`."""
        self._refuse_if_not_laid(index)
        return True

    def entries(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[Entry]:
        """As `Sheet.entries`; raises as `prepare` does."""
        self._refuse_if_not_laid(index)
        if index.kind is IndexKind.BY_ID:
            return self._by_id(index, lower, upper, reverse=reverse)
        return self._stored.entries(index, lower, upper, reverse=reverse, buckets=self._buckets)

    def keys(self, prefix: bytes) -> Collection[bytes]:
        """As `Sheet.keys`."""
        return [key for key, _ in self._snapshot.range(Tree.ROWS, prefix, increment(prefix))]

    def close(self) -> None:
        """Let go of the state."""
        self._snapshot.close()

    def _refuse_if_not_laid(self, index: IndexInfo) -> None:
        if index.prefix not in self._laid:
            raise IndexNotLaid(index)

    def _by_id(
        self, index: IndexInfo, lower: bytes, upper: bytes | None, *, reverse: bool
    ) -> Iterator[Entry]:
        """Here it has entries: among the rows are those that were not there."""
        prefix, row_prefix = index.prefix, index.table_number.to_bytes(4, "big")
        end = increment(prefix) if upper is None else prefix + upper
        for key, _ in self._snapshot.range(Tree.ENTRIES, prefix + lower, end, reverse=reverse):
            yield key[4:], row_prefix + key[4:]


Extent: TypeAlias = tuple[int, int]
"""How much was taken back: the edition of a base, and the newest record that it surely has."""


class _Runs:
    """
    Intervals of an index without a row that is as it was, so that nobody goes through them again.

    What comes into one later was written since, and is as it was in a sheet only; but somebody with
    fewer records taken back may find a row there that was as it is.
    """

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: SortedDict[bytes, tuple[bytes, Extent]] = SortedDict()
        """End, exclusive, and what was taken back, by the beginning."""

    def add(self, begin: bytes, end: bytes, extent: Extent) -> None:
        """An interval that was gone through by somebody who has taken back so much."""
        runs = self._runs
        at = runs.bisect_right(begin) - 1
        if at >= 0 and runs.peekitem(at)[1][0] >= begin:
            begin = runs.peekitem(at)[0]
        while (at := runs.bisect_left(begin)) < len(runs) and runs.peekitem(at)[0] <= end:
            _, (other_end, other_extent) = runs.popitem(at)
            end, extent = max(end, other_end), max(extent, other_extent)
        runs[begin] = end, extent

    def around(self, key: bytes, extent: Extent) -> tuple[bytes, bytes] | None:
        """The run that `key` lies in, for somebody who has taken back as much, if there is one."""
        at = self._runs.bisect_right(key) - 1
        if at < 0:
            return None
        begin, (end, other_extent) = self._runs.peekitem(at)
        return (begin, end) if key < end and other_extent <= extent else None


class Base:
    """
    A state of the past, as far as it was taken back: what is kept of it for all who read it.

    Rows that were changed up to a record are in an annex, and those up to a later one in memory.
    """

    def __init__(self, ts: int) -> None:
        self.ts = ts
        self.taken = Taken(ts)
        self.recent = MemorySheet()
        self.edition = 0
        """How often memory was begun again."""
        self.counts: Counts | None = None
        """Rows of each table at `ts`, once all was taken back."""
        self._runs: dict[bytes, _Runs] = {}
        self._of_then: dict[tuple[int, tuple[Path, ...]], int] = {}

    def of_then(self, index: IndexInfo) -> IndexInfo:
        """An index that is no more, as an annex of this base has it; of the same fields as one."""
        what = index.table_number, index.fields
        index_id = self._of_then.setdefault(what, OF_THEN | len(self._of_then))
        return replace(index, index_id=index_id, is_of_then=True)

    def knows(self, index: IndexInfo) -> bool:
        """Whether `of_then` has said so of this one."""
        return self._of_then.get((index.table_number, index.fields)) == index.index_id

    def begin_again(self, taken: Taken) -> None:
        """An annex has everything up to here, so memory need not; views keep what they have."""
        self.taken = Taken(taken.upto, dict(taken.grown), taken.records)
        self.recent = MemorySheet()
        self.edition += 1

    def follow(self, snapshot: SharedSnapshot, annex: Sheet | None) -> Iterator[None]:
        """
        Take back what is not yet of all that came until the snapshot, in slices.

        One at a time. Afterwards the base may lie on this snapshot, and on older ones.
        """
        assert self.counts is not None or self.taken.upto <= snapshot.ts, "else none can be counted"
        rows, add = self.recent.rows, self.recent.add
        for records in _slices(snapshot.log(self.taken.upto, snapshot.ts)):
            for ts, writes in records:
                self.taken.add(ts, writes)
                for write in writes:
                    # Where it is known already what the row was, that is older.
                    if write.key not in rows and (annex is None or annex.find(write.key) is None):
                        add(write.key, write.before)
            yield
        self.taken.upto = max(self.taken.upto, snapshot.ts)
        if self.counts is None:
            self.counts = _counts_before(snapshot.counts, self.taken.grown)

    def runs(self, index: IndexInfo) -> _Runs:
        return self._runs.setdefault(index.prefix, _Runs())


@dataclass(slots=True)
class Moment:
    """
    A timestamp that was asked for: that of a base, or one near by.

    What is otherwise near by, before or after, are the rows that the records in between have.
    """

    ts: int
    base: Base
    sheet: MemorySheet | None = None
    counts: Counts = field(default_factory=dict)
    catalogs: tuple[Catalog, Catalog] | None = None
    """That of a snapshot, and what it comes to then."""

    def lay(self, snapshot: SharedSnapshot, bytes_max: int) -> Iterator[bool]:
        """
        Work out what is otherwise than at the base, which was followed, in slices.

        Yields whether that is little enough: in few records, and in rows of so many bytes.
        """
        assert self.base.counts is not None, "the base was followed"
        images: dict[bytes, bytes | None] = {}
        size, taken = 0, Taken(self.ts)
        first, last = sorted((self.ts, self.base.ts))
        is_later = self.base.ts < self.ts
        for records in _slices(snapshot.log(first, last)):
            for ts, writes in records:
                taken.add(ts, writes)
                for write in writes:
                    if is_later:
                        images[write.key] = write.after
                    else:
                        images.setdefault(write.key, write.before)
                    size += len(write.before or b"") + len(write.after or b"") + ROW_BYTES
            yield taken.records <= NEAR_RECORDS and size <= bytes_max
        grown = {number: -count for number, count in taken.grown.items()}
        self.counts = _counts_before(self.base.counts, grown if is_later else taken.grown)
        sheet = MemorySheet()
        for key, image in images.items():
            sheet.add(key, image)
        self.sheet = sheet


class Then:
    """
    What a view of the past lays over its snapshot.

    Args:
        base: what has everything that came until the snapshot.
        annex: what the base has there.
        upper: what is otherwise than at the base.
    """

    __slots__ = (
        "_annex",
        "_base_rows",
        "_edition",
        "_lower",
        "_sheets",
        "_snapshot",
        "_taken",
        "_upper",
        "base",
    )

    def __init__(
        self, snapshot: SharedSnapshot, base: Base, annex: Sheet | None, upper: Sheet | None
    ) -> None:
        self._snapshot = snapshot
        self.base = base
        self._annex = annex
        self._edition, self._taken = base.edition, base.taken
        self._upper = upper
        self._base_rows = base.recent.rows
        self._lower: list[Sheet] = [base.recent] if annex is None else [base.recent, annex]
        self._sheets = self._lower if upper is None else [upper, *self._lower]

    def row(self, key: bytes) -> bytes | None:
        """The image of a row then."""
        for sheet in self._sheets:
            image = sheet.find(key)
            if image is not None:
                return image or None
        return self._snapshot.row(key)

    def prepare(self, index: IndexInfo, rows_max: int) -> bool:
        """As `Sheet.prepare`, of all of them that have a part in it."""
        if not index.is_of_then:
            return all(sheet.prepare(index, rows_max) for sheet in reversed(self._sheets))
        is_ready = self._annex_of_then(index).prepare(index, rows_max)
        return is_ready and (self._upper is None or self._upper.prepare(index, rows_max))

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None,
    ) -> Iterator[Entry]:
        """
        The entries of an interval then, in order.

        Among them are some that lead to `NOWHERE`, where many rows were passed.

        Raises:
            IndexNotLaid: who has not asked `prepare` is told here.
        """
        if index.is_of_then:
            found = self._annex_of_then(index).entries(index, lower, upper, reverse=reverse)
        else:
            found = self._unchanged(index, lower, upper, reverse=reverse, buckets=buckets)
            for sheet in self._lower:
                then = sheet.entries(index, lower, upper, reverse=reverse)
                found = merged(found, then, reverse=reverse)
        if (sheet_above := self._upper) is not None:
            found = (entry for entry in found if sheet_above.find(entry[1]) is None)
            then = sheet_above.entries(index, lower, upper, reverse=reverse)
            found = merged(found, then, reverse=reverse)
        return found

    def keys(self, prefix: bytes) -> list[bytes]:
        """The keys of all rows of a table of the catalog, in order, of now and of then."""
        by_id = self._snapshot.catalog.by_number[int.from_bytes(prefix, "big")].indexes["by_id"]
        found = {key for _, key in self._snapshot.entries(by_id, b"", None, reverse=False)}
        return sorted(found.union(*(sheet.keys(prefix) for sheet in self._sheets)))

    @property
    def has_other_catalog(self) -> bool:
        """Whether tables or indexes have changed since."""
        return any(sheet.keys(prefix) for sheet in self._sheets for prefix in _SYSTEM_ROWS)

    def _annex_of_then(self, index: IndexInfo) -> Sheet:
        if self._annex is None:
            raise IndexNotLaid(index)
        return self._annex

    @property
    def _extent(self) -> Extent:
        return self._edition, self._taken.upto

    def _unchanged(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None,
    ) -> Iterator[Entry]:
        """Entries of the snapshot whose rows no sheet of the base has."""
        runs, hides = self.base.runs(index), self._hides
        edge = (upper or _END) if reverse else lower  # from here to where we are all are hidden
        is_jumping = True
        while is_jumping:
            is_jumping = False
            hidden = 0
            entries = self._snapshot.entries(index, lower, upper, reverse=reverse, buckets=buckets)
            for key, row in entries:
                if not hides(row):
                    yield key, row
                    hidden = 0
                    edge = key if reverse else key + b"\0"
                    continue
                hidden += 1
                if hidden % LOOK_EVERY == 1 and (run := runs.around(key, self._extent)):
                    edge = run[1] if reverse else run[0]
                    lower, upper = (lower, run[0]) if reverse else (run[1], upper)
                    is_jumping = True
                    break
                if hidden == HIDDEN_AT_ONCE:
                    begin, end = (key, edge) if reverse else (edge, key + b"\0")
                    runs.add(begin, end, self._extent)
                    yield key, NOWHERE
                    hidden = 0
                    edge = key if reverse else key + b"\0"

    @property
    def _hides(self) -> Callable[[bytes], bool]:
        """Whether a row is in a sheet of the base; it is asked of every entry."""
        recent = self._base_rows
        if len(self._lower) == 1:
            return recent.__contains__
        in_annex = self._lower[1].find
        return lambda row: row in recent or in_annex(row) is not None


def view_then(snapshot: SharedSnapshot, moment: Moment, annex: Sheet | None) -> View:
    """
    A view of a moment, whose base was followed to the snapshot or further, and which was laid.

    Args:
        annex: what the base has there.
    """
    base = moment.base
    then = Then(snapshot, base, annex, moment.sheet)
    now = snapshot.catalog
    if moment.catalogs is None or moment.catalogs[0] is not now:
        moment.catalogs = now, _catalog_of(now, then)
    counts = base.counts if moment.sheet is None else moment.counts
    assert counts is not None, "the base was followed"
    return View(snapshot, begin_ts=moment.ts, catalog=moment.catalogs[1], counts=counts, past=then)


def with_its_catalog(view: View) -> View:
    """
    The view with the tables and indexes that there were then, for who writes.

    Under other names there are those of now, too: the code is of now, and may want them.
    """
    then = view.past
    if not isinstance(then, Then):
        return view
    now = view.snapshot.catalog.by_number
    catalog = Catalog.of_rows(_rows_of(then))
    tables = [
        _with_indexes(table, _kept_up(table, now.get(table.number)), then)
        for table in catalog.by_number.values()
    ]
    return view.with_catalog(_with_tables(catalog, tables))


def _kept_up(table: TableInfo, now: TableInfo | None) -> dict[str, IndexInfo]:
    """Indexes of a table of then that still have all entries, and those that came since."""
    if now is None or now.row != table.row:
        return {}
    complete = {i.row for i in now.indexes.values() if i.state in _COMPLETE}
    kept = {name: index for name, index in table.indexes.items() if index.row in complete}
    since = {
        name: index
        for name, index in now.indexes.items()
        if name not in table.indexes and index.state is IndexState.ENABLED
    }
    return {**since, **kept}


def _slices(log: Iterator[bytes]) -> Iterator[list[tuple[int, Sequence[RowWrite]]]]:
    """Records, as many at a time as are gone through at once."""
    found: list[tuple[int, Sequence[RowWrite]]] = []
    size = 0
    for data in log:
        record = decode_record(data)
        found.append((record.ts, record.writes))
        size += len(data)
        if len(found) == SLICE_RECORDS or size >= SLICE_BYTES:
            yield found
            found, size = [], 0
    if found:
        yield found


def _counts_before(counts: Counts, grown: Mapping[int, int]) -> Counts:
    """The counts before tables had grown so far."""
    return {**counts, **{number: counts.get(number, 0) - by for number, by in grown.items()}}


def _catalog_of(now: Catalog, then: Then) -> Catalog:
    """
    The tables of then by their numbers and names of then, with the indexes of now.

    Those that came later are there too, and are empty, unless they took a place that was taken.
    """
    if not then.has_other_catalog:
        return now
    tables_then = {
        number: _with_indexes_of(now, table, then)
        for number, table in Catalog.of_rows(_rows_of(then)).by_number.items()
    }
    later = [table for number, table in now.by_number.items() if number not in tables_then]
    return _with_tables(now, [*later, *tables_then.values()])


def _with_tables(catalog: Catalog, tables: Sequence[TableInfo]) -> Catalog:
    return replace(
        catalog,
        by_number={table.number: table for table in tables},
        by_name={(t.component, t.name): t for t in tables if not t.is_dropping},
    )


def _with_indexes_of(now: Catalog, table: TableInfo, then: Then) -> TableInfo:
    """The table of then, to be read with what there is now, and with what else there was."""
    same = now.by_number.get(table.number)
    if same is None or same.row != table.row:  # its rows are all in a sheet
        same = replace(
            table, indexes={n: one for n, one in table.indexes.items() if one.row is None}
        )
    kept = {
        name: index for name, index in same.indexes.items() if index.state is IndexState.ENABLED
    }
    found = _with_indexes(table, kept, then)
    return replace(found, indexes={**same.indexes, **found.indexes})


def _with_indexes(table: TableInfo, kept: Mapping[str, IndexInfo], then: Then) -> TableInfo:
    """
    A table of then with the indexes that are kept up, and what it had besides as it was.

    Args:
        kept: by name, which means these and no others of then.
    """
    of_then = {
        name: then.base.of_then(index)
        for name, index in table.indexes.items()
        if name not in kept and index.kind is IndexKind.RANGE and index.state is IndexState.ENABLED
    }
    every = {name: one for name, one in table.indexes.items() if one.row is None}
    return replace(table, indexes={**every, **kept, **of_then})


def _rows_of(then: Then) -> Iterator[tuple[bytes, bytes]]:
    """What a catalog is made of: the rows of tables, then those of indexes."""
    for prefix in _SYSTEM_ROWS:
        for key in then.keys(prefix):
            image = then.row(key)
            if image is not None:
                yield key, image
