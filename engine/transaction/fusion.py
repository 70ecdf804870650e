"""
Reciprocal rank fusion: one order out of several.

A document scores the sum of 1 / (60 + rank) over the orders that it is in, the first of each having
rank 1 (Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion Outperforms Condorcet and Individual
Rank Learning Methods", 2009).  So orders are put together whose scores have nothing in common.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import fsum
from typing import Final

K: Final = 60
CANDIDATES: Final = 100
"""Of each order, or as many as are wanted: later ones would add less than a first rank is worth."""


def fused(orders: Iterable[Sequence[str]], count: int) -> list[tuple[str, float]]:
    """
    The best ids of several orders with their scores; of equal ones the later id comes first.

    The score is the same whichever order comes first.
    """
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for order in orders:
        for rank, one in enumerate(order, 1):
            shares[one].append(1 / (K + rank))
    scored = sorted(((fsum(found), one) for one, found in shares.items()), reverse=True)
    return [(one, score) for score, one in scored[:count]]
