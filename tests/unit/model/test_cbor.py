"""What is put together by hand is what the library would have written."""

from __future__ import annotations

import math

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.cbor import bytes_head, encode_small
from engine.model.codec import decode, encode
from engine.model.values import Int64

SCALAR = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64 - 1),
    st.integers(-300, 70_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="ascii"), max_size=300),
    st.binary(max_size=300),
)


@given(SCALAR)
def test_a_scalar_is_spelled_as_the_library_spells_it(value: object) -> None:
    assert cbor2.dumps(value) == encode_small(value)


@given(st.dictionaries(st.text(max_size=80), SCALAR, max_size=40))
def test_an_object_of_scalars_is_spelled_as_the_library_spells_it(value: dict[str, object]) -> None:
    assert cbor2.dumps(value) == encode_small(value)


INNER = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=5), inner, max_size=9)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), INNER, max_size=9))
def test_what_is_in_an_object_is_spelled_so_or_left_to_the_library(
    value: dict[str, object],
) -> None:
    assert encode_small(value) in (None, cbor2.dumps(value))


def test_a_row_with_small_objects_needs_no_library() -> None:
    row = {"name": "a", "args": [{"n": 1, "of": None}], "state": {"kind": "pending"}}

    assert cbor2.dumps(row) == encode_small(row)


@given(
    st.lists(st.floats(-1e300, 1e300), min_size=16, max_size=300),
    st.dictionaries(st.integers(0, 15), st.integers(-(2**60), 2**60), max_size=2),
)
def test_a_vector_is_spelled_as_the_library_spells_it(
    vector: list[float], whole: dict[int, int]
) -> None:
    for at, number in whole.items():
        vector[at] = number
    doc = {"v": vector, "of": "a"}

    assert cbor2.dumps(doc) == encode_small(doc)
    assert doc == decode(encode(doc))


@pytest.mark.parametrize(
    "item",
    [
        True,
        None,
        "a",
        2**64,
        math.inf,
        -math.inf,
        math.nan,
        1.7e308,
        type("Float", (float,), {})(0.5),
    ],
    ids=repr,
)
def test_what_is_no_vector_of_finite_floats_is_left_to_the_library(item: object) -> None:
    assert encode_small({"v": [*[0.5] * 16, item, item]}) is None


@pytest.mark.parametrize("number", [0, 1, -1, 23, 255, 70_000, 2**63 - 1, -(2**63)])
def test_an_int64_has_its_tag(number: int) -> None:
    value = {"a": Int64(number), "b": [Int64(number)]}

    assert cbor2.dumps(cbor2.CBORTag(40_064, number)) == encode_small(Int64(number))
    assert str(value) == str(decode(encode(value)))
    assert encode(value) == encode_small(value)


@pytest.mark.parametrize("count", [0, 23, 24, 255, 256])
def test_objects_of_any_size_are_spelled_so_or_left_to_the_library(count: int) -> None:
    value = {f"field {n}": n for n in range(count)}

    assert (cbor2.dumps(value) if count < 256 else None) == encode_small(value)


@pytest.mark.parametrize("length", [0, 23, 24, 255, 256, 4095, 4096, 65_535, 65_536, 2**32])
def test_bytes_of_any_length_have_their_head(length: int) -> None:
    head = bytes_head(length)

    assert length == 2**32 or cbor2.dumps(bytes(length)) == head + bytes(length)
    assert 2 == head[0] >> 5


@pytest.mark.parametrize(
    "other",
    [
        "\u00e9",
        "a" * 4_096,
        math.nan,
        math.inf,
        2**64,
        b"b" * 4_096,
        [1],
        {"a": [0] * 9},
        {"a": {str(n): n for n in range(9)}},
        {"a": [{"b": [1]}]},
        {"a": [b"b" * 4_096]},
        {"a": math.nan},
        {"a": [math.nan]},
        {"a": "\u00e9"},
        type("Text", (str,), {})("a"),
    ],
    ids=repr,
)
def test_everything_else_is_left_to_the_library(other: object) -> None:
    assert encode_small(other) is None


@pytest.mark.parametrize("names", [{1: 2}, {"\ud800": 1}])
def test_what_is_no_name_of_a_field_is_refused(names: dict[object, object]) -> None:
    with pytest.raises(ValueError, match=r"name of a field|surrogates"):
        encode_small(names)
