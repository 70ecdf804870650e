"""
BM25 (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009), k1 = 1.2, b = 0.75.

A document's score is the sum, over its words that were looked for, of

    weight * idf * count * (k1 + 1) / (count + k1 * (1 - b + b * length / average))

first of the words that were looked for, then of the longer ones that begin as the last of these,
each in their order; one that is both adds half as each.  So a score that is computed here and one
that is computed with arrays, by the same operations in the same order, are the same number, and
ties are ties in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

K1: Final = 1.2
B: Final = 0.75
PREFIX_WEIGHT: Final = 0.5
"""Of a longer word, for beginning as the last one that was looked for."""


def idf(documents: int, found: int) -> float:
    """How much a word tells that `found` of all `documents` have."""
    return math.log(1 + (documents - found + 0.5) / (found + 0.5))


def idfs(documents: int, several: Iterable[int]) -> list[float]:
    """`idf` of several words; a call for each of hundreds takes three times as long."""
    log = math.log
    return [log(1 + (documents - found + 0.5) / (found + 0.5)) for found in several]


def norm(length: int, average: float) -> float:
    """How much a document of that length has to say."""
    return K1 * (1 - B + B * length / average)


def score(found: Iterable[tuple[float, int]], length: int, average: float) -> float:
    """
    Args:
        found: of each word in order: its weight times its idf, and how often the document has it.
    """
    of_length = norm(length, average)
    total = 0.0
    for weight, count in found:
        total += weight * count * (K1 + 1) / (count + of_length)
    return total
