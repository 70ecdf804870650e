"""
Graphs: neighbours of a row without a look at all rows, found in about.

A hierarchical navigable small world (Malkov and Yashunin, 2018), by usearch, which enters the
engine here.  What it finds are places of rows, to be scored exactly: that it keeps them in int8
and may miss some of the nearest decides which are found, and not in what order they are told.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from engine.indexes.vectors.rows import Places, Row, Rows

NEIGHBOURS: Final = 16
"""Of each row; as many again make it twice as slow for a recall that `WIDTH` gives more cheaply."""
WIDTH_BUILT: Final = 128
WIDTH: Final = 64
"""Candidates that a search holds: 0.99 of the ten nearest are found, see `bench/README.md`."""
ROWS_MIN: Final = 4_096
"""Fewer are looked at one by one, in the same time."""
CANDIDATE_ROWS: Final = 32
"""A candidate costs about as much as a look at so many rows that lie side by side."""
_CLIPPED_MAX: Final = 1.5
"""How much larger numbers a graph takes than those it was begun with; beyond it is laid anew."""
_ROWS_AT_ONCE: Final = 512
"""What is handed over at a time: a process that ends waits for no more, some 200 ms."""


class Graph:
    """
    The neighbourhoods of the rows of a part, which are known by their places.

    Args:
        largest: the largest number of its rows, which is 127 to it.
        source: what `index` reads, where it is a view; it lives for as long.
    """

    __slots__ = ("_index", "_source", "largest")

    def __init__(
        self, index: Index, largest: float, source: NDArray[np.uint8] | None = None
    ) -> None:
        self._index = index
        self._source = source
        self.largest = largest

    @staticmethod
    def of(rows: Rows, known: Graph | None = None) -> Graph:
        """
        The graph of `rows`: 2,000 a second, by a thread that lets others run meanwhile.

        Args:
            known: that of the first of them, which stays as it is.
        """
        if known is None or _largest(rows[len(known) :]) > known.largest * _CLIPPED_MAX:
            graph = Graph(_empty(rows.shape[1]), _largest(rows))
        else:
            graph = Graph(known._index.copy(), known.largest)
        for start in range(len(graph), len(rows), _ROWS_AT_ONCE):
            some = _codes(rows[start : start + _ROWS_AT_ONCE], graph.largest)
            places = np.arange(start, start + len(some), dtype=np.uint64)
            graph._index.add(places, some, threads=1)
        return graph

    @staticmethod
    def over(data: NDArray[np.uint8], largest: float, dimensions: int) -> Graph:
        """What `to_bytes` gave, read where it lies; nothing of it is copied."""
        index = _empty(dimensions)
        index.view(data.data)
        return Graph(index, largest, data)

    def to_bytes(self) -> bytes:
        data = self._index.save()
        assert data is not None, "no path was given"
        return data

    def nearest(self, row: Row, count: int) -> Places:
        """Places of about the `count` rows that are most like `row`."""
        # Whatever the row is scaled by, the same rows are nearest; so all of int8 is there for it.
        codes = _codes(row, _largest(row))
        return self._index.search(codes, count, threads=1).keys.view(np.int64)

    def __len__(self) -> int:
        return len(self._index)

    def places(self) -> Places:
        """The place of each row that it has, in order."""
        return np.sort(self._index.keys[:]).astype(np.int64)

    def has(self, places: Places, rows: Rows) -> NDArray[np.bool_]:
        """Of places that it has, where it has these rows."""
        codes = np.array(self._index.get(places.astype(np.uint64)), np.int8)
        same: NDArray[np.bool_] = (codes == _codes(rows, self.largest)).all(axis=1)
        return same

    @property
    def size_bytes(self) -> int:
        return self._index.memory_usage if self._source is None else self._source.nbytes


def _largest(rows: Rows) -> float:
    return float(np.abs(rows).max(initial=0.0))


def _codes(rows: Rows, largest: float) -> NDArray[np.int8]:
    """Rows as a graph has them; what is larger than the largest is cut off."""
    codes = rows * np.float32(127.0 / (largest or 1.0))
    np.rint(codes, out=codes)
    np.maximum(codes, -127.0, out=codes)
    np.minimum(codes, 127.0, out=codes)
    return codes.astype(np.int8)


def _empty(dimensions: int) -> Index:
    return Index(
        ndim=dimensions,
        metric="ip",
        dtype="i8",
        connectivity=NEIGHBOURS,
        expansion_add=WIDTH_BUILT,
        expansion_search=WIDTH,
    )
