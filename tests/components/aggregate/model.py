"""What an aggregate is, in the shortest way: a sorted list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from engine import Int64
from engine.model.keys import encode_key
from engine.model.values import strictly_equal

Item = dict[str, Any]
Position = tuple[bytes, str]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([0.5, -0.0, float("inf"), float("-inf"), float("nan"), 2.0**60]),
    st.integers(-300, 300).map(Int64),
    st.sampled_from(["", "a", "a\0", "b", "é", "\U0001f600", "\uff5a"]),
    st.sampled_from([b"", b"\0", b"a"]),
)
KEYS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["", "a", "b"]), inner, max_size=2)
    ),
    max_leaves=5,
)
"""Few enough that equal ones meet, and of every kind that comes in an order."""
IDS = st.sampled_from(["", "a", "b", "c"])
SUMMANDS = st.integers(-(2**40), 2**40) | st.integers(-5, 5).map(Int64)


def ends() -> st.SearchStrategy[Any]:
    bound = st.fixed_dictionaries({"key": KEYS, "inclusive": st.booleans()}, optional={"id": IDS})
    return st.fixed_dictionaries({}, optional={"lower": bound, "upper": bound})


BOUNDS = st.one_of(
    st.just({}),
    ends(),
    KEYS.map(lambda key: {"eq": key}),
    st.lists(SCALARS, max_size=2).map(lambda parts: {"prefix": parts}),
)


def place(key: Any) -> bytes:
    """Where the database has a key."""
    return encode_key([key])


@dataclass
class Model:
    """The items of one namespace."""

    items: dict[Position, Item] = field(default_factory=dict)

    def has(self, key: Any, item_id: str) -> bool:
        return (place(key), item_id) in self.items

    def put(self, key: Any, item_id: str, summand: Any) -> None:
        self.items[place(key), item_id] = {"key": key, "id": item_id, "sumValue": summand}

    def take(self, key: Any, item_id: str) -> None:
        del self.items[place(key), item_id]

    def within(self, bounds: Any = None) -> list[Item]:
        return [self.items[at] for at in sorted(self.items) if is_within(at, self.items, bounds)]

    def count(self, bounds: Any = None) -> int:
        return len(self.within(bounds))

    def sum(self, bounds: Any = None) -> int:
        return sum(int(item["sumValue"]) for item in self.within(bounds))

    def index_of(self, key: Any, item_id: str | None, order: str, bounds: Any = None) -> int:
        there = place(key)
        if order == "asc":
            before = [at for at in self.items if at < (there, item_id or "")]
            return len([at for at in before if is_above(at, (bounds or {}).get("lower"))])
        behind = [
            at
            for at in self.items
            if at[0] > there or (item_id is not None and at[0] == there and at[1] > item_id)
        ]
        return len([at for at in behind if is_below(at, (bounds or {}).get("upper"))])


def is_within(at: Position, items: dict[Position, Item], bounds: Any) -> bool:
    if not bounds:
        return True
    key = items[at]["key"]
    if "eq" in bounds:
        return at[0] == place(bounds["eq"])
    if "prefix" in bounds:
        parts = bounds["prefix"]
        return isinstance(key, list) and strictly_equal(key[: len(parts)], parts)
    return is_above(at, bounds.get("lower")) and is_below(at, bounds.get("upper"))


def is_above(at: Position, bound: Any) -> bool:
    if bound is None:
        return True
    there = place(bound["key"])
    if "id" not in bound:
        return at[0] >= there if bound["inclusive"] else at[0] > there
    edge = (there, bound["id"])
    return at >= edge if bound["inclusive"] else at > edge


def is_below(at: Position, bound: Any) -> bool:
    if bound is None:
        return True
    there = place(bound["key"])
    if "id" not in bound:
        return at[0] <= there if bound["inclusive"] else at[0] < there
    edge = (there, bound["id"])
    return at <= edge if bound["inclusive"] else at < edge
