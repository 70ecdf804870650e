"""What a vector search does with numbers: everything of it that needs numpy."""

from __future__ import annotations

from collections.abc import Collection, Generator
from functools import partial
from typing import cast

from engine.indexes.catalog import IndexInfo, TableInfo
from engine.indexes.vectors.asked import VectorSearch
from engine.indexes.vectors.entry import Entry, Reached, entry_of
from engine.indexes.vectors.index import OwnVectors, VectorIndex
from engine.indexes.vectors.nearest import Best, Found, Sought, exactly, nearly
from engine.indexes.vectors.parts import Tail
from engine.indexes.vectors.rows import score, unit
from engine.model.codec import decode
from engine.model.ids import encode_id
from engine.transaction.transaction import Reading, Transaction
from engine.transaction.view import View

SCANNED_ROWS = 256
"""Documents that are scored together."""
DECODED_ROWS = 8
"""Documents that are decoded before others may have their turn: two milliseconds, at 1,536
numbers each."""


def best_of(
    transaction: Transaction,
    table: TableInfo,
    index: IndexInfo,
    wanted: VectorSearch,
    reading: Reading | None = None,
) -> Generator[None, None, list[Found]]:
    """The best of all documents as a transaction sees them, and a read of what they reach."""
    live = cast("VectorIndex | None", transaction.view.live(index))
    if live is None:
        best = Best(_sought(index, wanted, ts=0))
        yield from _scan(transaction, table, index, best, reading)
    else:
        own = _own(transaction, table, live)
        best = Best(_sought(index, wanted, ts=transaction.view.begin_ts, hidden=own))
        yield from exactly(live.parts(), best)
        best.add(_of_own(own, best.sought))
    sought = best.sought
    read = Reached(
        row=sought.row.tobytes(),
        reach=best.reach,
        condition=sought.condition,
        fields=tuple(sought.fields),
    )
    transaction.reads.add_search(index.prefix, read)
    return best.found


def nearly_best_of(
    view: View, index: IndexInfo, wanted: VectorSearch
) -> Generator[None, None, list[Found] | None]:
    """Nearly the best of all documents of a view; `None` where no index answers for it."""
    live = cast("VectorIndex | None", view.live(index))
    if live is None:
        return None
    best = Best(_sought(index, wanted, ts=view.begin_ts))
    yield from nearly(live.parts(), best)
    return best.found


def _sought(
    index: IndexInfo,
    wanted: VectorSearch,
    *,
    ts: int,
    hidden: Collection[str] = (),
) -> Sought:
    row = unit(wanted.vector)
    assert row is not None, "its numbers are finite"
    fields = tuple(index.options["filter_fields"])
    return Sought(row, wanted.limit, ts, wanted.condition, fields, hidden)


def _own(transaction: Transaction, table: TableInfo, live: VectorIndex) -> dict[str, Entry | None]:
    """What the transaction has written, by id."""
    written: dict[bytes, Entry | None] = {}
    for one in cast("list[OwnVectors]", transaction.own(live)):
        written.update(one.written)
    return {encode_id(table.number, internal): entry for internal, entry in written.items()}


def _of_own(own: dict[str, Entry | None], sought: Sought) -> list[Found]:
    return [
        (score(entry.row, sought.row), doc_id)
        for doc_id, entry in own.items()
        if entry is not None and entry.meets(sought.condition, sought.fields)
    ]


def _scan(
    transaction: Transaction,
    table: TableInfo,
    index: IndexInfo,
    best: Best,
    reading: Reading | None,
) -> Generator[None, None, None]:
    """Offer every document of a table, each of which is read."""
    sought = best.sought
    new = partial(Tail, table.number, len(sought.row), len(sought.fields), SCANNED_ROWS)
    tail = new()
    for read, (internal, image) in enumerate(transaction.images(table), 1):
        entry = entry_of(index, decode(image))
        if entry is not None:
            tail.add(internal, entry, 0)
        if reading is not None:
            reading.read = read
        if read % SCANNED_ROWS == 0:
            yield from exactly(tail.parts(), best)
            yield
            tail = new()
        elif read % DECODED_ROWS == 0:
            yield
    yield from exactly(tail.parts(), best)
