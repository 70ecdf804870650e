"""
One node: some items in order, the subtrees around them, and what those come to.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from components.aggregate.order import Cut, at_item
from engine import Int64, Value

Item: TypeAlias = list[Any]
"""Key, id and summand, as a node holds them."""
Number: TypeAlias = int | float

EXACT_INT_MAX: Final = 2**53


class Total(NamedTuple):
    """What a part of the tree comes to."""

    size: int
    """How many items."""
    sum: Number


NOTHING: Final = Total(0, 0)


class Node:
    """
    Up to `size_max` items in order, and the subtrees before, between and after them.

    `totals` are those of the subtrees; None in a lazy root that has some.
    """

    __slots__ = ("id", "items", "subtrees", "totals")

    def __init__(
        self, node_id: str, items: list[Item], subtrees: list[str], totals: list[Total] | None
    ) -> None:
        self.id = node_id
        self.items = items
        self.subtrees = subtrees
        self.totals = totals

    def total(self) -> Total:
        """Of all that is in it and below; not for a lazy root."""
        assert self.totals is not None, "a lazy root does not know its total"
        return combined(self.totals, self.items)


def position_of(item: Item) -> Cut:
    return at_item(item[0], item[1])


def size_of(value: Value) -> int:
    """How many bytes a document takes for a value, or a little more."""
    if isinstance(value, str):
        return 2 + len(value.encode())
    if isinstance(value, bytes):
        return 2 + len(value)
    if isinstance(value, dict):
        return 2 + sum(2 + size_of(name) + size_of(item) for name, item in value.items())
    return 2 + sum(map(size_of, value)) if isinstance(value, list) else 9


def combined(totals: Sequence[Total], items: Sequence[Item]) -> Total:
    """What subtrees and items come to together."""
    size = len(items) + sum([total.size for total in totals])
    return Total(size, added([total.sum for total in totals] + [item[2] for item in items]))


def added(numbers: Sequence[Number]) -> Number:
    """
    The sum: exact if all numbers are integers, otherwise rounded once.

    A node's sum is worked out anew from what it has, so that no rounding outlives its numbers.
    """
    if all(isinstance(number, int) for number in numbers):
        return sum(map(int, numbers))  # `Int64` would refuse what a later summand takes back
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return sum(map(float, numbers))  # infinite, as floats say it


def storable(number: Number) -> Value:
    """
    A sum as documents hold it.

    Raises:
        OverflowError: it is an integer of more than 64 bits.
    """
    if isinstance(number, int) and not -EXACT_INT_MAX <= number <= EXACT_INT_MAX:
        return Int64(number)
    return number


class Part(NamedTuple):
    """A subtree as far as it is between two bounds."""

    i: int
    lower: Cut | None
    upper: Cut | None

    @property
    def is_whole(self) -> bool:
        return self.lower is None and self.upper is None


def pieces(
    node: Node, lower: Cut | None, upper: Cut | None, *, is_reverse: bool
) -> Iterator[Part | Item]:
    """What a node has between two bounds; only its first and last subtree may be cut."""
    first = 0 if lower is None else index(node, lower)
    last = len(node.items) if upper is None else index(node, upper)
    for i in range(last, first - 1, -1) if is_reverse else range(first, last + 1):
        if is_reverse and i < last:
            yield node.items[i]
        if node.subtrees:
            yield Part(i, lower if i == first else None, upper if i == last else None)
        if not is_reverse and i < last:
            yield node.items[i]


def index(node: Node, at: Cut) -> int:
    """How many items are before."""
    return bisect_left(node.items, at, key=position_of)


def is_at(node: Node, i: int, at: Cut) -> bool:
    return i < len(node.items) and position_of(node.items[i]) == at
