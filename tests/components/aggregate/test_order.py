"""The order of keys is that of the database, whatever they are."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.aggregate.bounds import cuts
from components.aggregate.cursor import read_cursor, write_cursor
from components.aggregate.order import at_item, order_of
from engine.model.values import Int64, compare, normalize, strictly_equal
from tests.components.aggregate.model import BOUNDS, IDS, KEYS, Model, place

ANY_KEYS = KEYS | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def sign(a: Any, b: Any) -> int:
    return int(a > b) - int(a < b)


@given(ANY_KEYS.map(normalize), ANY_KEYS.map(normalize))
def test_keys_are_ordered_as_the_database_orders_them(a: Any, b: Any) -> None:
    assert compare(a, b) == sign(order_of(a), order_of(b))
    assert sign(place(a), place(b)) == sign(order_of(a), order_of(b))


def test_values_that_python_takes_for_equal_are_not() -> None:
    nan, negative = float("nan"), struct.unpack(">d", bytes.fromhex("fff8000000000001"))[0]
    ascending = [negative, -math.inf, -1, -0.0, 0, 1, math.inf, nan, False, True, "", b"", [], {}]

    for a, b in pairwise([None, Int64(0), Int64(1), *ascending]):
        assert order_of(a) < order_of(b)
        assert place(a) < place(b)


@given(KEYS.map(normalize), IDS, BOUNDS)
def test_a_bound_cuts_where_it_says_and_is_at_no_item(key: Any, item_id: str, bounds: Any) -> None:
    model = Model()
    model.put(key, item_id, 0)
    bounds = normalize(bounds)
    lower, upper = cuts(bounds)
    here = at_item(key, item_id)

    assert here not in (lower, upper)
    is_inside = (lower is None or lower < here) and (upper is None or here < upper)
    assert bool(model.within(bounds)) == is_inside


@given(ANY_KEYS.map(normalize), IDS)
def test_a_cursor_keeps_what_it_is_of(key: Any, item_id: str) -> None:
    again, id_again = read_cursor(write_cursor(key, item_id))

    assert strictly_equal(key, normalize(again))
    assert item_id == id_again


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "[1]",
        "{}",
        "null",
        "[1, 2, 3]",
        '[{"bytes": "?"}, ""]',
        '[{"integer": "1.5"}, ""]',
    ],
)
def test_what_is_no_cursor_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cursor of an aggregate"):
        read_cursor(text)


@given(
    st.text(max_size=40) | st.from_regex(r"\[\{\"(bytes|integer|float|object)\":.{0,9}\},\"a\"\]")
)
def test_whatever_comes_as_a_cursor_is_one_or_is_refused(text: str) -> None:
    with suppress(ValueError):
        key, _ = read_cursor(text)
        order_of(key)
