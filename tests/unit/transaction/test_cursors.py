"""Cursors: a position in one query, and nothing else."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConvexError
from engine.transaction.pagination import Position, decode_cursor, encode_cursor

MINE, OTHERS = b"mine----", b"others--"
LETTERS = string.ascii_letters + string.digits + "-_"


@given(st.none() | st.binary())
def test_a_cursor_comes_back_as_the_position_it_was(key: bytes | None) -> None:
    assert Position(key) == decode_cursor(encode_cursor(Position(key), MINE), MINE)


@given(st.binary())
def test_a_cursor_of_another_query_is_refused(key: bytes) -> None:
    with pytest.raises(ConvexError) as caught:
        decode_cursor(encode_cursor(Position(key), OTHERS), MINE)

    assert "InvalidCursor" == caught.value.data["paginationError"]


@given(st.binary(max_size=40), st.data())
def test_a_cursor_with_another_letter_is_refused(key: bytes, data: st.DataObject) -> None:
    cursor = encode_cursor(Position(key), MINE)
    place = data.draw(st.integers(0, len(cursor) - 2))
    letter = data.draw(st.sampled_from([c for c in LETTERS if c != cursor[place]]))

    with pytest.raises(ConvexError):
        decode_cursor(cursor[:place] + letter + cursor[place + 1 :], MINE)


@given(st.text(max_size=60))
def test_any_text_is_a_cursor_or_an_invalid_one(text: str) -> None:
    with pytest.raises(ConvexError):
        decode_cursor(text, MINE)


def test_a_cursor_with_something_after_it_is_refused() -> None:
    cursor = encode_cursor(Position(b"key"), MINE)

    with pytest.raises(ConvexError):
        decode_cursor(cursor * 2, MINE)
