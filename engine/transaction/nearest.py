"""What a vector search does with numbers: everything of it that needs numpy."""

from __future__ import annotations

from collections.abc import Generator

from engine.indexes.catalog import IndexInfo, TableInfo
from engine.indexes.vectors.asked import VectorSearch
from engine.indexes.vectors.index import entry_of
from engine.indexes.vectors.nearest import Best, Sought, exactly
from engine.indexes.vectors.parts import Tail
from engine.indexes.vectors.rows import unit
from engine.model.codec import decode
from engine.transaction.transaction import Reading, Transaction

SCANNED_ROWS = 256
"""Documents that are scored together."""


def scanned(
    transaction: Transaction,
    table: TableInfo,
    index: IndexInfo,
    wanted: VectorSearch,
    reading: Reading | None,
) -> Generator[None, None, Best]:
    """The best of all documents of a table, each of which is read."""
    row = unit(wanted.vector)
    assert row is not None, "its numbers are finite"
    fields = tuple(index.options["filter_fields"])
    best = Best(
        Sought(row=row, count=wanted.limit, ts=0, condition=wanted.condition, fields=fields)
    )
    tail = Tail(len(row), len(fields), SCANNED_ROWS)
    for read, (internal, image) in enumerate(transaction.images(table), 1):
        entry = entry_of(index, decode(image))
        if entry is not None:
            tail.add(internal, entry, 0)
        if reading is not None:
            reading.read = read
        if read % SCANNED_ROWS == 0:
            yield from exactly([tail.part()], best)
            tail = Tail(len(row), len(fields), SCANNED_ROWS)
    yield from exactly([tail.part()], best)
    return best
