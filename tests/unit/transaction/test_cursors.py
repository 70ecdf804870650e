"""Cursors: a position in one query, and nothing else."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidCursor, InvalidValue
from engine.indexes.catalog import IndexInfo
from engine.transaction.pagination import (
    Position,
    decode_cursor,
    encode_cursor,
    narrowed,
    read_options,
)
from engine.transaction.scan import Plan

MINE, OTHERS = b"mine----", b"others--"
LETTERS = string.ascii_letters + string.digits + "-_"


@given(st.none() | st.binary())
def test_a_cursor_comes_back_as_the_position_it_was(key: bytes | None) -> None:
    assert Position(key) == decode_cursor(encode_cursor(Position(key), MINE), MINE)


@given(st.binary())
def test_a_cursor_of_another_query_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidCursor) as caught:
        decode_cursor(encode_cursor(Position(key), OTHERS), MINE)

    assert "InvalidCursor" == caught.value.data["paginationError"]


@given(st.binary(max_size=40), st.data())
def test_a_cursor_with_another_letter_is_refused(key: bytes, data: st.DataObject) -> None:
    cursor = encode_cursor(Position(key), MINE)
    place = data.draw(st.integers(0, len(cursor) - 2))
    letter = data.draw(st.sampled_from([c for c in LETTERS if c != cursor[place]]))

    with pytest.raises(InvalidCursor):
        decode_cursor(cursor[:place] + letter + cursor[place + 1 :], MINE)


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_an_invalid_one(text: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(text, MINE)


def test_a_cursor_with_something_after_it_is_refused() -> None:
    cursor = encode_cursor(Position(b"key"), MINE)

    with pytest.raises(InvalidCursor):
        decode_cursor(cursor * 2, MINE)


@pytest.mark.parametrize(
    "cursor", ["", "x", 5, b"abc", ["a"], {"a": 1}, "é", "\ud800", "a" * 9_999]
)
def test_whatever_stands_in_the_place_of_a_cursor_is_an_invalid_one(cursor: Any) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor, MINE)


INDEX = IndexInfo(index_id=1001, name="by_a", table_number=10_001, fields=(("a",),))
KEY = st.binary(max_size=3)


POSITION = st.none() | KEY.map(Position)


@given(KEY, st.none() | KEY, st.booleans(), POSITION, POSITION)
def test_no_cursor_leads_out_of_the_range_of_its_query(
    lower: bytes, upper: bytes | None, reverse: bool, after: Position | None, upto: Position | None
) -> None:
    plan = Plan(index=INDEX, lower=lower, upper=upper, reverse=reverse)

    part = narrowed(plan, after, upto)

    assert part.lower >= lower
    assert upper is None or (part.upper is not None and part.upper <= upper)


@pytest.mark.parametrize("name", ["numItems", "maximumRowsRead", "maximumBytesRead"])
@pytest.mark.parametrize("value", [0, -1, 0.5, float("nan"), float("inf"), True, "1", [1]])
def test_how_much_to_read_is_a_positive_whole_number(name: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match=f"{name} is .*; it must be a positive whole number"):
        read_options({"numItems": 1, name: value}, None, MINE)


def test_a_page_that_has_an_end_is_as_long_as_it_is() -> None:
    end = encode_cursor(Position(b"key"), MINE)

    by_option = read_options({"numItems": 0, "endCursor": end}, None, MINE)
    by_journal = read_options({"numItems": 0}, end, MINE)

    assert Position(b"key") == by_option.end == by_journal.end
