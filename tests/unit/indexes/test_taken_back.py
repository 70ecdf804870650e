"""Rows of the past: what is read at once to lay an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from engine.indexes.catalog import IndexInfo
from engine.indexes.taken_back import SLICE_BYTES, first_row, lay_all
from engine.model.codec import encode
from engine.store.interface import Tree
from engine.store.memory_scratch import MemoryScratch

INDEX: Final = IndexInfo(index_id=1 << 29, name="by_n", table_number=70, fields=(("n",),))
TEXT_BYTES: Final = SLICE_BYTES // 4
ROWS: Final = 10


def test_large_rows_are_read_a_few_at_a_time() -> None:
    scratch = MemoryScratch()
    read = 0

    def now(lower: bytes, _upper: bytes) -> Iterator[tuple[bytes, bytes]]:
        nonlocal read
        for n in range(ROWS):
            key = INDEX.table_number.to_bytes(4, "big") + n.to_bytes(16, "big")
            if key >= lower:
                read += 1
                yield key, encode({"n": float(n), "text": "x" * TEXT_BYTES})

    at_once = []
    for _ in lay_all(now, scratch, INDEX, first_row(INDEX)):
        at_once.append(read)
        read = 0

    assert max(at_once) <= SLICE_BYTES // TEXT_BYTES
    assert ROWS == sum(at_once)
    with scratch.snapshot() as snapshot:
        assert ROWS == len(list(snapshot.range(Tree.ENTRIES, INDEX.prefix, None)))
