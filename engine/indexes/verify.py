"""
Verify: is what is on disk what was written?

    chain     every record's checksum, that it continues the record before it, from the anchor
              on, and that its state hash follows from its writes
    sum       the rows, hashed again, against the state hash of the last record
    indexes   the entries that the documents should have, against those that are there

A store that is written meanwhile is walked by key, a slice in a snapshot of its
own, so that no page is kept from being used again for longer than a slice takes.
Before each slice the log is followed to the snapshot's end: what its records did
to rows and entries that were walked already is added to their sums.  So a sum is
compared with what it should be as of one ts, and one wrong bit in what was walked
is found, whatever was written since.  What the log says of a row that was walked
is believed until the next check; an index that a push drops meanwhile, or builds,
is left out.  Nothing is changed.

Records that retention removes before they were seen are not missed: the check goes on from the
anchor that it left.  Where they are records of rows that were walked it begins anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from engine.errors import EngineError, StoreDamaged
from engine.indexes.catalog import IN_PART, IndexInfo, IndexKind, TableInfo
from engine.indexes.counts import Counts
from engine.indexes.entries import entry_key, stored
from engine.indexes.recovery import recover
from engine.log.records import decode_record, next_state_hash, row_hash, ts_key
from engine.log.retention import Anchor, read_anchor
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.store.interface import Snapshot, Tree

SLICE_ROWS: Final = 250
"""
Records and what they wrote, rows or entries in one snapshot: a few milliseconds, unless one record
wrote more. A commit waits for several slices on its way, so longer ones cost what is committed
meanwhile as much as they are longer, and this check next to nothing less.
"""
_MASK: Final = (1 << 128) - 1


@dataclass(slots=True)
class Findings:
    """What was looked at, and everything that is wrong with it."""

    ts: int = 0
    records: int = 0
    rows: int = 0
    entries: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify(open_snapshot: Callable[[], Snapshot]) -> Iterator[Findings]:
    """
    Check a store; yields what was found so far after every slice, and at the end.

    Args:
        open_snapshot: gives the newest state, again and again; none is open while it yields.
    """
    check = _Check(open_snapshot, slice_rows=SLICE_ROWS)
    try:
        check.begin()
    except EngineError as error:
        check.found.problems.append(str(error))
        yield check.found
        return
    parts: list[Callable[[Snapshot], bool]] = [
        lambda _: True,
        check.rows,
        *(partial(check.entries, index) for index in check.indexes),
        check.strays,
    ]
    try:
        for part in parts:
            yield from check.walk(part)
    except _Outrun:
        yield from verify(open_snapshot)
    except Exception as error:
        # Damaged bytes can be anything, and break whatever reads them.
        check.found.problems.append(
            f"the store cannot be read to its end ({type(error).__name__}: {error}); "
            "restore a backup"
        )
        yield check.found


class _Outrun(Exception):
    """Records went that would have said what became of rows which were walked."""


@dataclass(slots=True)
class _Sum:
    """A set as the sum of its members' hashes: equal sets have equal sums."""

    total: int = 0
    count: int = 0

    def add(self, hashed: int, times: int = 1) -> None:
        self.total = (self.total + times * hashed) & _MASK
        self.count += times


@dataclass(slots=True)
class _Index:
    """An index with what it should hold, by the rows, and what it does hold."""

    table: TableInfo
    info: IndexInfo
    expected: _Sum = field(default_factory=_Sum)
    there: _Sum = field(default_factory=_Sum)
    walked: bytes = b""
    """Its entries below this key are in `there`."""


class _Check:
    def __init__(self, open_snapshot: Callable[[], Snapshot], *, slice_rows: int) -> None:
        self._open = open_snapshot
        self._slice_rows = slice_rows
        self._previous: bytes | None = None
        self._state_hash: int | None = None
        self._rows = _Sum()
        self._counts: Counter[int] = Counter()
        self._rows_walked: bytes | None = b""
        """The rows below this key are in the sums; `None` is all of them."""
        self._by_table: dict[bytes, list[_Index]] = {}
        self._strays_from = b""
        self.found = Findings()

    def begin(self) -> None:
        """
        See what there is to check.

        Raises:
            StoreDamaged: the end of the history cannot be read.
        """
        with self._open() as snapshot:
            self._begin_at(read_anchor(snapshot))
            for table in recover(snapshot).catalog.by_number.values():
                self._by_table[table.row_prefix] = [
                    _Index(table, index, walked=index.prefix)
                    for index, _, _ in table.maintained
                    if index.state not in IN_PART
                ]

    @property
    def indexes(self) -> list[_Index]:
        return [index for indexes in self._by_table.values() for index in indexes]

    def walk(self, part: Callable[[Snapshot], bool]) -> Iterator[Findings]:
        """Run `part` until it says that it is done, each time at the end of the log."""
        is_done = False
        while not is_done:
            with self._open() as snapshot:
                is_done = self._follow(snapshot) and part(snapshot)
            self.found.rows = self._rows.count
            self.found.entries = sum(index.there.count for index in self.indexes)
            yield self.found

    def _follow(self, snapshot: Snapshot) -> bool:
        """Check a slice of the records not seen yet, by what they wrote; whether these were all."""
        found = self.found
        seen = 0
        anchor = read_anchor(snapshot)
        if anchor.ts > found.ts:
            self._begin_at(anchor)
        lower = ts_key(found.ts + 1)
        for key, data in snapshot.range(Tree.LOG, lower, None):
            if seen >= self._slice_rows:
                return False
            seen += 1
            found.ts = int.from_bytes(key, "big")
            try:
                seen += self._check_record(found.ts, data)
            except StoreDamaged as error:
                found.problems.append(f"record {found.ts}: {error}")
                self._previous = self._state_hash = None
        return True

    def _begin_at(self, anchor: Anchor) -> None:
        """
        Follow the log from there on.

        Raises:
            _Outrun: it was followed up to an earlier record, for the sake of rows.
        """
        if self._rows_walked != b"":
            raise _Outrun
        self.found.ts = anchor.ts
        self._previous, self._state_hash = anchor.record_hash, anchor.state_hash

    def _check_record(self, ts: int, data: bytes) -> int:
        """Check a record and take in its writes; how many these are."""
        problems = self.found.problems
        record = decode_record(data)
        if self._previous is not None and record.previous != self._previous:
            problems.append(f"record {record.ts} does not continue the record before it")
        if self._state_hash is not None and record.state_hash != next_state_hash(
            self._state_hash, record.writes
        ):
            problems.append(f"record {record.ts} has a state hash that its writes do not give")
        if record.ts != ts:
            problems.append(f"record {record.ts} is filed under another timestamp")
        self._previous, self._state_hash = record.hash, record.state_hash
        self.found.records += 1
        for write in record.writes:
            self._fold(write)
        return len(record.writes)

    def _fold(self, write: RowWrite) -> None:
        """Take a write into the sums of what was walked before it."""
        for image, times in ((write.before, -1), (write.after, 1)):
            if image is None:
                continue
            if self._rows_walked is None or write.key < self._rows_walked:
                self._add_row(write.key, image, times)
            self._add_entries(write.key, image, times)

    def _add_row(self, key: bytes, image: bytes, times: int = 1) -> None:
        self._rows.add(row_hash(key, image), times)
        self._counts[int.from_bytes(key[:4], "big")] += times
        indexes = self._by_table.get(key[:4])
        if indexes:
            try:
                doc = decode(image)
            except StoreDamaged as error:
                self.found.problems.append(f"the row {key.hex()} cannot be decoded: {error}")
                return
            for index in indexes:
                index.expected.add(_hash(*_entry(index.info, doc, key)), times)

    def _add_entries(self, key: bytes, image: bytes, times: int) -> None:
        for index in self._by_table.get(key[:4], ()):
            if index.walked != index.info.prefix:
                entry, value = _entry(index.info, decode(image), key)
                if entry < index.walked:
                    index.there.add(_hash(entry, value), times)

    def rows(self, snapshot: Snapshot) -> bool:
        """A slice of the rows; at their end, whether they are those of the log."""
        assert self._rows_walked is not None, "they are walked once"
        seen = 0
        rest = snapshot.range(Tree.ROWS, self._rows_walked, None)
        for key, image in islice(rest, self._slice_rows):
            seen += 1
            self._add_row(key, image)
            self._rows_walked = key + b"\0"
        if seen == self._slice_rows:
            return False
        self._rows_walked = None
        if self._state_hash is not None and self._rows.total != self._state_hash:
            self.found.problems.append(
                "the rows are not those that the log's state hash stands for"
            )
        self._check_counts(recover(snapshot).counts)
        return True

    def _check_counts(self, stored: Counts) -> None:
        for number in sorted({*stored, *self._counts}):
            said, found = stored.get(number, 0), self._counts[number]
            if said != found:
                self.found.problems.append(
                    f"table {number} is said to have {said} rows, and {found} are there"
                )

    def entries(self, index: _Index, snapshot: Snapshot) -> bool:
        """A slice of an index; at its end, whether its entries are those of the documents."""
        seen = 0
        rest = snapshot.range(Tree.ENTRIES, index.walked, _after(index.info.prefix))
        for key, value in islice(rest, self._slice_rows):
            seen += 1
            index.there.add(_hash(key, value))
            index.walked = key + b"\0"
        if seen == self._slice_rows:
            return False
        if index.there != index.expected and _is_maintained(index, snapshot):
            self.found.problems.append(
                f"the index {index.table.label}.{index.info.name} has {index.there.count} entries "
                f"for {index.expected.count} documents, or other ones than they should have"
            )
        index.walked = _after(index.info.prefix)
        return True

    def strays(self, snapshot: Snapshot) -> bool:
        """Whether every entry is of an index that the catalog knows."""
        tables = recover(snapshot).catalog.by_number.values()
        known = {index.prefix for table in tables for index in table.indexes.values()}
        for _ in range(self._slice_rows):
            first = next(snapshot.range(Tree.ENTRIES, self._strays_from, None), None)
            if first is None:
                return True
            prefix = first[0][:4]
            if prefix not in known:
                self.found.problems.append(
                    f"there are entries of an index {prefix.hex()} that is unknown"
                )
            self._strays_from = _after(prefix)
        return False


def _is_maintained(index: _Index, snapshot: Snapshot) -> bool:
    """Whether no push has begun to drop it since."""
    table = recover(snapshot).catalog.by_number.get(index.table.number)
    return table is not None and any(p == index.info.prefix for _, p, _ in table.maintained)


def _after(prefix: bytes) -> bytes:
    return (int.from_bytes(prefix, "big") + 1).to_bytes(4, "big")


def _entry(index: IndexInfo, doc: dict[str, Any], row: bytes) -> tuple[bytes, bytes]:
    assert index.kind is IndexKind.RANGE, "only these have entries"
    return stored(index.prefix, entry_key(index, doc, row[4:]))


def _hash(key: bytes, value: bytes) -> int:
    digest = blake2b(key + value, digest_size=16).digest()
    return int.from_bytes(digest, "big")
