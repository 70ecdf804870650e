"""
How many rows each table has: a value, as the catalog is, and the fold of the same writes.

The durable snapshot has one edition, the staged head another, and a failed batch
drops the head's.  What readers of it have read is a key of its own in each table,
which a commit touches by adding or removing rows and not by changing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from engine.model.commits import RowWrite

Counts: TypeAlias = Mapping[int, int]
"""Rows by table number; a table that never had one is missing."""

META_PREFIX: Final = b"count"
"""What the store's names of counts begin with; the table's number in 4 bytes follows."""

NO_COUNTS: Final[Counts] = {}


def counts_after(counts: Counts, writes: Iterable[RowWrite]) -> Counts:
    """The counts after `writes`; the very same if no row comes or goes."""
    changed: dict[int, int] | None = None
    for write in writes:
        if (write.before is None) is not (write.after is None):
            if changed is None:
                changed = dict(counts)
            number = write.table_number
            changed[number] = changed.get(number, 0) + (1 if write.before is None else -1)
    return counts if changed is None else changed


def changed_counts(before: Counts, after: Counts) -> Iterable[tuple[bytes, bytes]]:
    """Name and value, as the store has them, of each count that differs."""
    if before is after:
        return
    for number, count in after.items():
        if before.get(number) != count:
            yield META_PREFIX + number.to_bytes(4, "big"), count.to_bytes(8, "big")


def counts_of(stored: Iterable[tuple[bytes, bytes]]) -> Counts:
    """The counts that the store has under their names."""
    cut = len(META_PREFIX)
    return {
        int.from_bytes(name[cut:], "big"): int.from_bytes(count, "big") for name, count in stored
    }
