"""
Are there two documents that a unique index forbids, from before it was one?

Writes are held to the index since it was added, so once it is complete no such pair comes about,
and each that there is can only be repaired.  So the index is walked while others write, a slice in
a snapshot of its own, and pairs that were found are looked at again when nobody writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from engine.errors import PushRefused
from engine.indexes.catalog import IndexInfo
from engine.indexes.snapshot import SharedSnapshot
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
    """

    def __init__(self, indexes: Iterable[IndexInfo]) -> None:
        self._unwalked = deque(indexes)
        self._lower = b""
        self._last = b""
        """The fields of the last entry."""
        self._done = 0
        self._pairs: dict[tuple[int, bytes], IndexInfo] = {}
        """By index and fields."""

    @property
    def progress(self) -> tuple[str, int] | None:
        """The index that is being walked, and how many of its entries were looked at."""
        return (self._unwalked[0].name, self._done) if self._unwalked else None

    def walk(self, snapshot: SharedSnapshot) -> bool:
        """Look at the next slice of the indexes; return whether that was enough."""
        if self._unwalked:
            self._walk_slice(self._unwalked[0], snapshot)
        return not self._unwalked or len(self._pairs) > PAIRS_MAX

    def refuse_pairs(self, snapshot: SharedSnapshot) -> None:
        """
        Raises:
            PushRefused: two documents have the same values still; names both.
        """
        for (_, fields), index in self._pairs.items():
            entries = snapshot.entries(index, fields, past(fields), reverse=False)
            if len(rows := [row for _, row in islice(entries, 2)]) == 2:
                shared = dict(zip(index.field_names, decode_key(fields), strict=False))
                raise PushRefused(
                    f"the documents {id_of(rows[0])} and {id_of(rows[1])} both have {shared!r}, "
                    f"which the unique index {index.name!r} forbids. Nothing was changed."
                )

    def _walk_slice(self, index: IndexInfo, snapshot: SharedSnapshot) -> None:
        entries = snapshot.entries(index, self._lower, None, reverse=False)
        keys = [key for key, _ in islice(entries, SLICE_ENTRIES)]
        for key in keys:
            fields = key[:-ENTRY_TAIL_BYTES]
            if fields == self._last and UNDEFINED not in decode_key(fields):
                self._pairs[index.index_id, fields] = index
            self._last = fields
        self._done += len(keys)
        if len(keys) == SLICE_ENTRIES:
            self._lower = keys[-1] + b"\0"
        else:
            self._unwalked.popleft()
            self._lower, self._last, self._done = b"", b"", 0
