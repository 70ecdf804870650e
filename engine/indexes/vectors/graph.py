"""
Graphs: neighbours of a row without a look at all rows, found in about.

A hierarchical navigable small world (Malkov and Yashunin, 2018), by usearch, which enters the
engine here: by what of it is compiled, as the Python around that takes a sixth of a search.
What it finds are places of rows, to be scored exactly: that it keeps them in int8 and may miss
some of the nearest decides which are found, and not in what order they are told.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from usearch.compiled import Index, MetricKind, ScalarKind

from engine.indexes.vectors.rows import Places, Row, Rows

Codes: TypeAlias = NDArray[np.int8]
"""Rows in a byte a number."""

NEIGHBOURS: Final = 16
"""Of each row; as many again make it twice as slow for a recall that `WIDTH` gives more cheaply."""
WIDTH_BUILT: Final = 128
WIDTH: Final = 64
"""Candidates that a search holds: 0.99 of the ten nearest are found, see `bench/README.md`."""
ROWS_MIN: Final = 1_024
"""Fewer are looked at one by one, in the same time."""
CANDIDATE_ROWS: Final = 14
"""A candidate costs about as much as a look at so many rows that lie side by side."""
_CLIPPED_MAX: Final = 1.5
"""How much larger numbers a graph takes than those it was begun with; beyond it is laid anew."""
LEAD_BYTES: Final = 8
"""What stands before the rows of a graph in its bytes: how many there are, and of what size."""
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
            graph._index.add_many(places, some, threads=1)
        return graph

    @staticmethod
    def over(data: NDArray[np.uint8], largest: float, dimensions: int) -> Graph:
        """What `to_bytes` gave, read where it lies; nothing of it is copied."""
        index = _empty(dimensions)
        index.view_index_from_buffer(data.data)
        return Graph(index, largest, data)

    def to_bytes(self) -> bytearray:
        return self._index.save_index_to_buffer()

    def nearest(self, codes: Codes, count: int) -> Places:
        """Places of about the `count` rows that are most like the one of which `codes_of` is."""
        keys, _, counts, _, _ = self._index.search_many(codes, count, threads=1)
        places: Places = keys.view(np.int64)[0]
        return places if counts[0] == count else places[: counts[0]]

    def __len__(self) -> int:
        return len(self._index)

    def places(self) -> Places:
        """The place of each row that it has, in order."""
        return np.sort(self._index.get_keys_in_slice()).astype(np.int64)

    def has(self, places: Places, rows: Rows) -> NDArray[np.bool_]:
        """Of places that it has, where it has these rows."""
        codes = np.array(self._index.get_many(places.astype(np.uint64), ScalarKind.I8), np.int8)
        same: NDArray[np.bool_] = (codes == _codes(rows, self.largest)).all(axis=1)
        return same

    @property
    def size_bytes(self) -> int:
        return self._index.memory_usage if self._source is None else self._source.nbytes


def codes_of(row: Row) -> Codes:
    """What a graph is asked for the sake of a row, in an array of one."""
    # Whatever the row is scaled by, the same rows are nearest; so all of int8 is there for it.
    codes: Codes = np.rint(row * np.float32(127.0 / (_largest(row) or 1.0))).astype(np.int8)
    return codes[np.newaxis]


def _largest(rows: Rows) -> float:
    return float(np.maximum.reduce(np.abs(rows), axis=None, initial=0.0))


def _codes(rows: Rows, largest: float) -> Codes:
    """Rows as a graph has them; what is larger than the largest is cut off."""
    codes = rows * np.float32(127.0 / (largest or 1.0))
    np.rint(codes, out=codes)
    np.maximum(codes, -127.0, out=codes)
    np.minimum(codes, 127.0, out=codes)
    return codes.astype(np.int8)


def _empty(dimensions: int) -> Index:
    return Index(
        ndim=dimensions,
        dtype=ScalarKind.I8,
        metric_kind=MetricKind.IP,
        connectivity=NEIGHBOURS,
        expansion_add=WIDTH_BUILT,
        expansion_search=WIDTH,
    )
