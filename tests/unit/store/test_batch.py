"""A batch as bytes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue, StoreDamaged
from engine.store.interface import Batch, Tree, decode_batch

changes = st.lists(
    st.tuples(st.sampled_from(Tree), st.binary(max_size=3), st.none() | st.binary(max_size=20))
)


@given(changes)
def test_a_batch_comes_back_with_the_last_change_of_each_key(
    said: list[tuple[Tree, bytes, bytes | None]],
) -> None:
    batch = Batch()
    expected: dict[Tree, dict[bytes, bytes | None]] = {tree: {} for tree in Tree}
    for tree, key, value in said:
        expected[tree][key] = value
        if value is None:
            batch.delete(tree, key)
        else:
            batch.put(tree, key, value)

    decoded = decode_batch(batch.encode())

    found = {
        tree: dict(zip(keys, values, strict=True))
        for tree, (keys, values) in zip(Tree, decoded, strict=True)
    }
    assert expected == found
    assert sum(map(len, expected.values())) == len(batch)


def test_a_batch_may_go_on_after_it_was_encoded() -> None:
    batch = Batch()
    batch.put(Tree.ROWS, b"a", b"1")
    first = batch.encode()
    batch.put(Tree.ROWS, b"b", b"2")

    assert ([b"a"], [b"1"]) == tuple(decode_batch(first)[Tree.ROWS])
    assert ([b"a", b"b"], [b"1", b"2"]) == tuple(decode_batch(batch.encode())[Tree.ROWS])


def test_what_was_merged_counts_as_said_then() -> None:
    batch = Batch()
    batch.put(Tree.ROWS, b"a", b"before")
    batch.merge(Tree.ROWS, {b"a": None, b"b": b"merged"})
    batch.put(Tree.ROWS, b"b", b"after")

    assert ([b"a", b"b"], [None, b"after"]) == tuple(decode_batch(batch.encode())[Tree.ROWS])


@pytest.mark.parametrize("foreign", ["text", 1, object()], ids=["text", "integer", "object"])
def test_only_bytes_make_a_batch(foreign: Any) -> None:
    batch = Batch()
    batch.put(Tree.ROWS, b"a", foreign)

    with pytest.raises(InvalidValue):
        batch.encode()


def test_other_bytes_are_no_batch() -> None:
    with pytest.raises(StoreDamaged):
        decode_batch(b"\xff")
