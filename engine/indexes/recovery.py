"""
Recovery: from a store to the end of its history.

The log and the state are written in one store transaction, so there is nothing
to redo: the last record says where the history ends, and the rows of `_tables`
and `_index` say what the catalog is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine.errors import StoreDamaged
from engine.indexes.catalog import INDEXES, TABLES, Catalog
from engine.indexes.counts import META_PREFIX, Counts, counts_of
from engine.log.records import GENESIS, decode_record
from engine.store.interface import Snapshot, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """The end of a durable history."""

    ts: int
    record_hash: bytes
    state_hash: int
    epoch: int
    catalog: Catalog
    counts: Counts


def recover(snapshot: Snapshot) -> Recovered:
    """
    Read where a store's history ends.

    Raises:
        StoreDamaged: the last record, or a row of a table or index, is not what was written.
    """
    last = snapshot.last(Tree.LOG)
    catalog = _catalog_of([*_rows_of(snapshot, TABLES), *_rows_of(snapshot, INDEXES)])
    names = snapshot.range(Tree.META, META_PREFIX, META_PREFIX + b"\xff" * 5)
    counts = counts_of(names)
    if last is None:
        return Recovered(
            ts=0, record_hash=GENESIS, state_hash=0, epoch=1, catalog=catalog, counts=counts
        )
    record = decode_record(last[1])
    if record.ts != int.from_bytes(last[0], "big"):
        raise StoreDamaged(f"the last log record says {record.ts} and is filed elsewhere")
    return Recovered(
        ts=record.ts,
        record_hash=record.hash,
        state_hash=record.state_hash,
        epoch=record.epoch,
        catalog=catalog,
        counts=counts,
    )


def _catalog_of(rows: Iterable[tuple[bytes, bytes]]) -> Catalog:
    try:
        return Catalog.of_rows(rows)
    except _MISSHAPEN as error:
        raise StoreDamaged(
            f"the rows of _tables and _index are not what was written ({error!r}); restore a backup"
        ) from error


_MISSHAPEN: Final = (
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    AssertionError,
)
"""What reading a row raises that has other fields, or other types, than were written."""


def _rows_of(snapshot: Snapshot, table_number: int) -> list[tuple[bytes, bytes]]:
    lower, upper = table_number.to_bytes(4, "big"), (table_number + 1).to_bytes(4, "big")
    return list(snapshot.range(Tree.ROWS, lower, upper))
