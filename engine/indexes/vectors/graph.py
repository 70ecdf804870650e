"""
Graphs: neighbours of a row without a look at all rows, found in about.

A hierarchical navigable small world (Malkov and Yashunin, 2018), by usearch, which enters the
engine here.  What it finds are places of rows, to be scored exactly: that it keeps them in float16
and may miss some of the nearest decides which are found, and not in what order they are told.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from engine.indexes.vectors.rows import Row, Rows

NEIGHBOURS: Final = 16
"""Of each row; as many again make it twice as slow for a recall that `WIDTH` gives more cheaply."""
WIDTH_BUILT: Final = 128
WIDTH: Final = 64
"""Candidates that a search holds: 0.99 of the ten nearest are found, see `bench/README.md`."""
ROWS_MIN: Final = 4_096
"""Fewer are looked at one by one, in the same time."""
CANDIDATE_ROWS: Final = 32
"""A candidate costs about as much as a look at so many rows that lie side by side."""
_ROWS_AT_ONCE: Final = 512
"""What is handed over at a time: a process that ends waits for no more, some 200 ms."""


class Graph:
    """The neighbourhoods of the rows of a part, which are known by their places."""

    __slots__ = ("_index",)

    def __init__(self, index: Index) -> None:
        self._index = index

    @staticmethod
    def of(rows: Rows, known: Graph | None = None) -> Graph:
        """
        The graph of `rows`: 2,000 a second, by a thread that lets others run meanwhile.

        Args:
            known: that of the first of them, which stays as it is.
        """
        index = _empty(rows.shape[1]) if known is None else known._index.copy()
        for start in range(len(index), len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            index.add(np.arange(start, start + len(some), dtype=np.uint64), some, threads=1)
        return Graph(index)

    @staticmethod
    def of_bytes(data: bytes, dimensions: int) -> Graph:
        """What `to_bytes` gave."""
        index = _empty(dimensions)
        index.load(data)
        return Graph(index)

    def to_bytes(self) -> bytes:
        data = self._index.save()
        assert data is not None, "no path was given"
        return bytes(data)

    def nearest(self, row: Row, count: int) -> NDArray[np.int64]:
        """Places of about the `count` rows that are most like `row`."""
        return self._index.search(row, count, threads=1).keys.astype(np.int64)

    @property
    def size_bytes(self) -> int:
        return int(self._index.memory_usage)


def _empty(dimensions: int) -> Index:
    return Index(
        ndim=dimensions,
        metric="ip",
        dtype="f16",
        connectivity=NEIGHBOURS,
        expansion_add=WIDTH_BUILT,
        expansion_search=WIDTH,
    )
