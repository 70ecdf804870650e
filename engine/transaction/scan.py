"""
Scans: documents of one index interval, in order, a slice at a time.

A scan reads no further than it is asked to, and the read set covers exactly
what it looked at.  Between two slices the function may yield, and write: the
next slice starts after the last key and sees what is there by then.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import maxsize
from typing import Any

from msgspec import Struct

from engine.indexes.catalog import IndexInfo
from engine.transaction.transaction import Reading, Transaction

Doc = dict[str, Any]
Predicate = Callable[[Doc], bool]


class Plan(Struct, frozen=True, kw_only=True):
    """One query, ready to read: an interval, an order and what must hold."""

    index: IndexInfo | None
    """`None` for a table that does not exist."""
    lower: bytes = b""
    upper: bytes | None = None
    reverse: bool = False
    predicates: tuple[Predicate, ...] = ()
    reading: Reading | None = None
    """Where it is noted what was read, if somebody wants to know."""

    def accepts(self, doc: Doc) -> bool:
        return all(predicate(doc) for predicate in self.predicates)


class Scan:
    """
    Args:
        slice_rows_max: documents read between two chances to yield.
        slice_bytes_max: or, of large ones, about so many bytes.
    """

    def __init__(
        self,
        transaction: Transaction,
        plan: Plan,
        slice_rows_max: int,
        slice_bytes_max: int = maxsize,
    ) -> None:
        self._transaction = transaction
        self._plan = plan
        self._lower, self._upper = plan.lower, plan.upper
        self._slice_rows_max = slice_rows_max
        self._slice_bytes_max = slice_bytes_max
        self.is_exhausted = plan.index is None or _is_empty(plan.lower, plan.upper)
        self.keys: list[bytes] = []
        """Entry keys of the documents that were read, also of those a filter refused."""
        if plan.index is not None:
            transaction.usage.count_range()

    def read(self, count: int | None, rows_max: int | None = None) -> list[Doc]:
        """
        The next documents: at most `count` that the filters accept, of at most a slice.

        Args:
            rows_max: read no more than these, accepted or not.
        """
        if self.is_exhausted or self._plan.index is None:
            return []
        read = self._transaction.read_slice(
            self._plan.index,
            self._lower,
            self._upper,
            reverse=self._plan.reverse,
            rows_max=min(self._slice_rows_max, rows_max or self._slice_rows_max),
            bytes_max=self._slice_bytes_max,
            count=count,
            accepts=self._plan.accepts if self._plan.predicates else None,
        )
        if self._plan.reading is not None:
            self._plan.reading.read += len(read.keys)
            self._plan.reading.returned += len(read.docs)
        self.is_exhausted = read.is_exhausted
        self.keys += read.keys
        if (end := read.end) is not None:
            self._advance(end)
        return read.docs

    def _advance(self, key: bytes) -> None:
        if self._plan.reverse:
            self._upper = key
        else:
            self._lower = key + b"\0"


def _is_empty(lower: bytes, upper: bytes | None) -> bool:
    return upper is not None and lower >= upper
