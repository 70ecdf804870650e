"""
Are there two documents that a unique index is to forbid?

    walk        the index, in its order, a slice in a snapshot of its own, while others write
    catch up    what the rows have that were written meanwhile: writes are not held to it yet
    refuse      pairs that were found are looked at again when nobody writes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from engine.errors import PushRefused
from engine.indexes.catalog import IndexInfo
from engine.indexes.entries import entry_key
from engine.indexes.snapshot import SharedSnapshot
from engine.indexes.written import WrittenRows
from engine.model.codec import decode
from engine.model.ids import id_of
from engine.model.keys import decode_key, past
from engine.model.limits import ENTRY_TAIL_BYTES
from engine.model.values import UNDEFINED

SLICE_ENTRIES: Final = 500
"""In one snapshot: a millisecond or two."""
PAIRS_MAX: Final = 500
"""Found and to be looked at again; with more of them the walk ends, and they are."""


class UniqueCheck:
    """
    Args:
        indexes: complete, and kept up.
        written: from now on.
    """

    def __init__(self, indexes: Iterable[IndexInfo], written: WrittenRows) -> None:
        self._indexes = tuple(indexes)
        self._written = written
        self._unwalked = deque(self._indexes)
        self._lower = b""
        self._last = b""
        """The fields of the last entry."""
        self._done = 0
        self._total = 0
        self._changed: dict[bytes, None] = {}
        """Rows that were written and not looked at since."""
        self._pairs: dict[tuple[int, bytes], IndexInfo] = {}
        """By index and fields."""

    @property
    def progress(self) -> tuple[str, int, int] | None:
        """What is being walked, how many of its entries were looked at, and of how many."""
        if not self._unwalked:
            return None
        return f"unique index {self._unwalked[0].name}", self._done, self._total

    def walk(self, snapshot: SharedSnapshot) -> bool:
        """Look at the next slice of the indexes; return whether that was enough."""
        if self._unwalked and self.catch_up(snapshot):
            self._walk_slice(self._unwalked[0], snapshot)
        return not self._unwalked or len(self._pairs) > PAIRS_MAX

    def catch_up(self, snapshot: SharedSnapshot) -> bool:
        """Look at a slice of what was written; return whether that was all, as of `snapshot`."""
        if not self._indexes:
            return True
        self._changed.update(dict.fromkeys(self._written.next_rows(snapshot)))
        for _ in range(min(SLICE_ENTRIES, len(self._changed))):
            key, _ = self._changed.popitem()
            for index in self._indexes:
                if key.startswith(index.table_number.to_bytes(4, "big")):
                    self._look(index, key, snapshot)
        return not self._changed and self._written.ts == snapshot.ts

    def refuse_pairs(self, snapshot: SharedSnapshot) -> None:
        """
        Raises:
            PushRefused: two documents have the same values still; names both.
        """
        for (_, fields), index in self._pairs.items():
            if len(rows := _first_two(index, fields, snapshot)) == 2:
                shared = dict(zip(index.field_names, decode_key(fields), strict=False))
                table = snapshot.catalog.by_number[index.table_number].name
                raise PushRefused(
                    f"the documents {id_of(rows[0])} and {id_of(rows[1])} of the table {table!r} "
                    f"both have {shared!r}, which the unique index {index.name!r} forbids. Change "
                    "or delete one of them, then push again. Nothing was changed."
                )

    def _walk_slice(self, index: IndexInfo, snapshot: SharedSnapshot) -> None:
        self._total = snapshot.counts.get(index.table_number, 0)
        entries = snapshot.entries(index, self._lower, None, reverse=False)
        keys = [key for key, _ in islice(entries, SLICE_ENTRIES)]
        for key in keys:
            fields = key[:-ENTRY_TAIL_BYTES]
            if fields == self._last:
                self._note(index, fields)
            self._last = fields
        self._done += len(keys)
        if len(keys) == SLICE_ENTRIES:
            self._lower = keys[-1] + b"\0"
        else:
            self._unwalked.popleft()
            self._lower, self._last, self._done = b"", b"", 0

    def _look(self, index: IndexInfo, key: bytes, snapshot: SharedSnapshot) -> None:
        image = snapshot.row(key)
        if image is not None:
            fields = entry_key(index, decode(image), key[4:])[:-ENTRY_TAIL_BYTES]
            if len(_first_two(index, fields, snapshot)) == 2:
                self._note(index, fields)

    def _note(self, index: IndexInfo, fields: bytes) -> None:
        if UNDEFINED not in decode_key(fields):
            self._pairs[index.index_id, fields] = index


def _first_two(index: IndexInfo, fields: bytes, snapshot: SharedSnapshot) -> list[bytes]:
    """The first rows that have these fields."""
    entries = snapshot.entries(index, fields, past(fields), reverse=False)
    return [row for _, row in islice(entries, 2)]
