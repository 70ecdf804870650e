"""
Rows: what a vector index has of a document's numbers, and how alike two of them are.

A row is the vector in float32, scaled to length 1, so that the cosine of two is their product.
Products of float32 are exact in float64, and each row is summed up by itself in the same order:
a score depends on nothing but the two rows, wherever they lie and whatever lies beside them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Row: TypeAlias = NDArray[np.float32]
"""Of length 1, or all zero: that of nothing, which is like nothing."""
Rows: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.float64]
Places: TypeAlias = NDArray[np.int64]
"""Where rows are in a part."""

_NUMBERS = frozenset({int, float})


def row_of(value: Any, dimensions: int) -> Row | None:
    """
    The row of a field's value.

    Returns:
        `None` unless the value is a list of exactly `dimensions` numbers, all of them finite.
    """
    if (
        type(value) is not list
        or len(value) != dimensions
        or not _NUMBERS.issuperset(map(type, value))
    ):
        return None
    return unit(array("d", struct.pack(f"{dimensions}d", *value)))  # in half of numpy's time


def unit(numbers: Sequence[float]) -> Row | None:
    """Numbers scaled to length 1; `None` if one is not finite."""
    row = np.array(numbers, dtype=np.float64)
    largest = np.maximum.reduce(np.abs(row))
    if not isfinite(largest):
        return None
    if largest > 0.0:
        row /= largest  # squares of what is very large or very small are no numbers any more
        row /= sqrt(np.add.reduce(row * row))
    return row.astype(np.float32)


def scores(rows: Rows, row: Row) -> Scores:
    """The cosine of each row with `row`, from -1 to 1."""
    products = rows.astype(np.float64)
    products *= row.astype(np.float64)
    exact: Scores = np.add.reduce(products, axis=1)
    np.maximum(exact, -1.0, out=exact)
    return np.minimum(exact, 1.0, out=exact)


def score(a: Row, b: Row) -> float:
    """The cosine of two rows."""
    return float(scores(a[np.newaxis], b)[0])


def about(rows: Rows, row: Row) -> Rows:
    """
    The cosine of each row with `row`, off by no more than `slack`; in a tenth of the time.

    A row at a time: for a product of the whole matrix a BLAS wakes threads of its own, which takes
    longer than the product, and ten times as long where the cores have something to do.
    """
    near: Rows = np.vecdot(rows, row)
    return near


def slack(dimensions: int) -> float:
    """
    How far `about` may be off: each of the products and sums is rounded to 24 bits.

    Higham, "Accuracy and Stability of Numerical Algorithms", 2002, section 3.1.
    """
    return dimensions * 2.0**-23
