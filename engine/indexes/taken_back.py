"""
Taking back: rows as they were before records of the log, put where somebody reads them.

The oldest before-image of a row among the records after a timestamp is what the row was at it.
So the records are gone through in order, and the first image of each row is kept, one that says
that there was no row too.  The entries of an index follow from the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from operator import itemgetter
from typing import Final, TypeAlias

from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.entries import entry_key, stored
from engine.log.records import decode_record
from engine.model.codec import decode
from engine.model.commits import RowWrite
from engine.store.interface import Tree
from engine.store.scratch import ScratchWriter

GONE: Final = b""
"""The image of a row that was not there: a document takes a byte at least."""
SLICE_BYTES: Final = 16 << 20
"""
Of images that are put at once: a page of the scratch is written for few of them otherwise.  Also of
those that are read at once for their entries.
"""
SLICE_ROWS: Final = 20_000
"""Likewise; in memory they are several times as large."""

Row: TypeAlias = tuple[bytes, bytes]
"""A key and its image."""


@dataclass(slots=True)
class Taken:
    """How far records were taken back, and what they had done."""

    upto: int
    grown: dict[int, int] = field(default_factory=dict)
    """By how many rows each table has grown through them."""
    records: int = 0

    def add(self, ts: int, writes: Sequence[RowWrite]) -> None:
        """The record of `ts`."""
        for write in writes:
            if (write.before is None) is not (write.after is None):
                number, count = write.table_number, 1 if write.before is None else -1
                self.grown[number] = self.grown.get(number, 0) + count
        self.upto = ts
        self.records += 1


def take_back(
    log: Iterable[bytes],
    scratch: ScratchWriter,
    laid: Sequence[IndexInfo],
    taken: Taken,
    *,
    rows_max: int = SLICE_ROWS,
) -> Iterator[None]:
    """
    Put the first image of each row that the records have, and is not there yet.

    Args:
        log: encoded records, in order.
        laid: the indexes whose entries are there, and are to be of these rows too.
        taken: told what was put; whenever it yields it is so.
        rows_max: put at once.

    Raises:
        StoreFull: there is no room.
        StoreDamaged: a record is not what was written.
    """
    images: dict[bytes, bytes] = {}
    size = 0
    for data in log:
        record = decode_record(data)
        for write in record.writes:
            if write.key not in images:
                images[write.key] = GONE if write.before is None else write.before
        taken.add(record.ts, record.writes)
        size += len(data)
        if len(images) >= rows_max or size >= SLICE_BYTES:
            _put(images, scratch, laid)
            images, size = {}, 0
            yield
    _put(images, scratch, laid)
    yield


def lay(scratch: ScratchWriter, index: IndexInfo, *, rows_max: int = SLICE_ROWS) -> Iterator[None]:
    """
    Put the entries of an index, of all rows that are there.

    Raises:
        StoreFull: there is no room.
    """
    for _ in lay_all(lambda *_: iter(()), scratch, index, first_row(index), rows_max=rows_max):
        yield


def first_row(index: IndexInfo) -> bytes:
    """Where the rows of an index's table begin."""
    return index.table_number.to_bytes(4, "big")


def lay_all(
    now: Callable[[bytes, bytes], Iterator[Row]],
    scratch: ScratchWriter,
    index: IndexInfo,
    lower: bytes,
    *,
    rows_max: int = SLICE_ROWS,
) -> Iterator[bytes]:
    """
    Put the entries of an index, of all rows that there were: also of those that are as they were.

    Args:
        now: the rows of an interval as they are after the last record that was taken back.
        lower: the first row that is missing.

    Yields:
        The first row that is missing yet; what went before stays right, whatever is taken back.

    Raises:
        StoreFull: there is no room.
    """
    end = (index.table_number + 1).to_bytes(4, "big")
    while lower < end:
        entries: list[tuple[bytes, bytes]] = []
        rows, size, reached = 0, 0, end
        # A snapshot each: pages that one can see are not used again, and the file would grow.
        with scratch.snapshot() as then:
            for key, image in _then(then.range(Tree.ROWS, lower, end), now(lower, end)):
                if image != GONE:
                    entries.append(_entry(index, key, image))
                rows, size = rows + 1, size + len(image)
                if rows >= rows_max or size >= SLICE_BYTES:
                    reached = key + b"\0"
                    break
        scratch.add((), sorted(entries))
        lower = reached
        yield lower


def _then(taken: Iterator[Row], now: Iterator[Row]) -> Iterator[Row]:
    """All rows, of which those that were taken back hide what they are now."""
    last = b""
    for key, image in merge(taken, now, key=itemgetter(0)):  # of equal ones the first comes first
        if key != last:
            last = key
            yield key, image


def _put(images: dict[bytes, bytes], scratch: ScratchWriter, laid: Sequence[IndexInfo]) -> None:
    # One that is there already is older, and so the right one.
    rows = [(key, images[key]) for key in scratch.fresh(sorted(images))]
    entries = [
        _entry(index, key, image)
        for index in laid
        for key, image in rows
        if image != GONE and key.startswith(index.table_number.to_bytes(4, "big"))
    ]
    scratch.add(rows, sorted(entries))


def _entry(index: IndexInfo, key: bytes, image: bytes) -> tuple[bytes, bytes]:
    internal = key[4:]
    if index.kind is IndexKind.BY_ID:
        return index.prefix + internal, b""
    return stored(index.prefix, entry_key(index, decode(image), internal))
