"""
Entries as a store has them: of the store of an engine, and of what is written beside it.

Rows are their own `by_id`; other indexes have entries, of which long ones are put in order.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.indexes.buckets import Buckets
from engine.indexes.catalog import IndexInfo, IndexKind
from engine.indexes.entries import bucket_of, bucketed_fields, is_bucketed, stored_fields
from engine.model.keys import increment
from engine.model.limits import ENTRY_HEAD_BYTES
from engine.store.interface import Snapshot, Tree

Entry = tuple[bytes, bytes]
"""Entry key and row key."""


class StoredEntries:
    """The entries of all indexes, in one state of a store."""

    __slots__ = ("_store",)

    def __init__(self, store: Snapshot) -> None:
        self._store = store

    def entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
        buckets: Buckets | None = None,
    ) -> Iterator[Entry]:
        """
        Entries of `index` from `lower` to `upper`, exclusive, in order; none if these are crossed.

        Args:
            buckets: those that the reader has walked already.
        """
        if upper is not None and lower >= upper:
            return iter(())
        if index.kind is IndexKind.BY_ID:
            return self._rows(index.table_number, lower, upper, reverse)
        fields = bucketed_fields(index, lower, upper)
        if fields is not None and upper is not None:
            return self._entries_with(index, fields, lower, upper, reverse)
        return self._entries(index, lower, upper, reverse, buckets)

    def _rows(
        self, table_number: int, lower: bytes, upper: bytes | None, reverse: bool
    ) -> Iterator[Entry]:
        prefix = table_number.to_bytes(4, "big")
        end = (table_number + 1).to_bytes(4, "big") if upper is None else prefix + upper
        for key, _ in self._store.range(Tree.ROWS, prefix + lower, end, reverse=reverse):
            yield key[4:], key

    def _entries(
        self,
        index: IndexInfo,
        lower: bytes,
        upper: bytes | None,
        reverse: bool,
        buckets: Buckets | None,
    ) -> Iterator[Entry]:
        row_prefix = index.table_number.to_bytes(4, "big")
        start, end = _stored_interval(index.prefix, lower, upper)
        is_exact = max(len(lower), len(upper or b"")) <= ENTRY_HEAD_BYTES
        while True:
            for key, _ in self._store.range(Tree.ENTRIES, start, end, reverse=reverse):
                if is_bucketed(key):
                    break
                entry = key[4:]
                if is_exact or (entry >= lower and (upper is None or entry < upper)):
                    yield entry, row_prefix + key[-16:]
            else:
                return
            buckets = buckets or Buckets(None)
            for entry in buckets.entries(self._store, key, lower, upper, reverse=reverse):
                yield entry, row_prefix + entry[-16:]
            head = bucket_of(key)
            start, end = (start, head) if reverse else (_after(head), end)

    def _entries_with(
        self, index: IndexInfo, fields: bytes, lower: bytes, upper: bytes, reverse: bool
    ) -> Iterator[Entry]:
        """Entries of an interval in which all have these bucketed fields: they lie together."""
        row_prefix = index.table_number.to_bytes(4, "big")
        begin = stored_fields(index.prefix, fields)
        start, end = begin + lower[len(fields) :], begin + upper[len(fields) :]
        for key, _ in self._store.range(Tree.ENTRIES, start, end, reverse=reverse):
            yield fields + key[len(begin) :], row_prefix + key[-16:]


def _stored_interval(prefix: bytes, lower: bytes, upper: bytes | None) -> tuple[bytes, bytes]:
    """Where everything of an interval is stored; more of a bucket at its edge may be, too."""
    start = prefix + lower[:ENTRY_HEAD_BYTES]
    if upper is None:
        return start, _after(prefix)
    end = prefix + upper[:ENTRY_HEAD_BYTES]
    return start, end if len(upper) <= ENTRY_HEAD_BYTES else _after(end)


def _after(prefix: bytes) -> bytes:
    bound = increment(prefix)
    assert bound is not None, "no index has an id of 0xff only"
    return bound
