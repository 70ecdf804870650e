"""Index keys: bytes in the order of the values."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue
from engine.model.keys import (
    decode_key,
    encode_key,
    encode_value_key,
    end_of_values,
    increment,
    past,
)
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import INT64_MAX, INT64_MIN, UNDEFINED, Int64, Value, compare
from tests.unit.model.canonical import (
    BYTES,
    FLOAT,
    INT64,
    MAYBE_VALUE,
    TEXT,
    Place,
    float_of_bits,
    nested,
    place,
    same,
)

KEY = st.lists(MAYBE_VALUE, max_size=3)


def order(a: Place, b: Place) -> int:
    return int(a > b) - int(a < b)


@given(MAYBE_VALUE, MAYBE_VALUE)
def test_keys_sort_as_their_values_compare(a: Value, b: Value) -> None:
    assert compare(a, b) == order(encode_value_key(a), encode_value_key(b))


@pytest.mark.parametrize(
    "kind", [INT64, FLOAT, TEXT, BYTES], ids=["int64", "float", "str", "bytes"]
)
@given(st.data())
def test_keys_of_one_kind_sort_as_their_values_compare(
    kind: st.SearchStrategy[Value], data: st.DataObject
) -> None:
    a, b = data.draw(kind), data.draw(kind)

    assert compare(a, b) == order(encode_value_key(a), encode_value_key(b))
    assert compare([a], [b]) == order(encode_value_key([a]), encode_value_key([b]))
    assert compare({"": a}, {"": b}) == order(encode_value_key({"": a}), encode_value_key({"": b}))


@given(KEY, KEY)
def test_keys_of_several_values_sort_one_value_after_the_other(
    a: list[Value], b: list[Value]
) -> None:
    expected = order([place(value) for value in a], [place(value) for value in b])

    assert expected == order(encode_key(a), encode_key(b))


@given(KEY)
def test_a_key_gives_its_values_back(values: list[Value]) -> None:
    decoded = decode_key(encode_key(values))

    assert len(values) == len(decoded)
    for value, back in zip(values, decoded, strict=True):
        assert same(in_order_of_names(value), back)


def in_order_of_names(value: Value) -> Value:
    """Index keys hold fields in order of their names."""
    if isinstance(value, dict):
        return {name: in_order_of_names(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [in_order_of_names(item) for item in value]
    return value


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (UNDEFINED, "01"),
        (None, "03"),
        (Int64(INT64_MIN), "04 8000000000000000"),
        (Int64(-(2**31) - 1), "04 ffffffff7fffffff"),
        (Int64(-(2**31)), "05 80000000"),
        (Int64(-(2**15) - 1), "05 ffff7fff"),
        (Int64(-(2**15)), "06 8000"),
        (Int64(-129), "06 ff7f"),
        (Int64(-128), "07 80"),
        (Int64(-1), "07 ff"),
        (Int64(0), "08"),
        (Int64(1), "09 01"),
        (Int64(127), "09 7f"),
        (Int64(128), "0a 0080"),
        (Int64(2**15 - 1), "0a 7fff"),
        (Int64(2**15), "0b 00008000"),
        (Int64(2**31 - 1), "0b 7fffffff"),
        (Int64(2**31), "0c 0000000080000000"),
        (Int64(INT64_MAX), "0c 7fffffffffffffff"),
        (-math.inf, "0d 000fffffffffffff"),
        (-1, "0d 400fffffffffffff"),
        (-0.0, "0d 7fffffffffffffff"),
        (0, "0d 8000000000000000"),
        (1, "0d bff0000000000000"),
        (1.5, "0d bff8000000000000"),
        (2**53, "0d c340000000000000"),
        (math.inf, "0d fff0000000000000"),
        (float_of_bits(0x7FF8000000000000), "0d fff8000000000000"),
        (float_of_bits(0xFFF8000000000000), "0d 0007ffffffffffff"),
        (False, "0e"),
        (True, "0f"),
        ("", "10 00"),
        ("a\0é", "10 61 00ff c3a9 00"),
        (b"", "11 00"),
        (b"\0\xff", "11 00ff ff 00"),
        ([], "12 00"),
        ([None, []], "12 03 1200 00"),
        ({}, "15 00"),
        ({"b": None, "a": 1}, "15 6100 0dbff0000000000000 6200 03 00"),
        ({"": None}, "15 00ff 03 00"),
    ],
)
def test_the_bytes_of_a_key_are_those_of_the_format(value: Value, written: str) -> None:
    assert bytes.fromhex(written) == encode_value_key(value) == encode_key([value])
    assert same([value], decode_key(bytes.fromhex(written))) or isinstance(value, dict)


@given(KEY, KEY, st.binary(max_size=16))
def test_the_keys_that_begin_with_some_values_lie_between_them_and_past_them(
    first: list[Value], key: list[Value], tail: bytes
) -> None:
    start, stop = encode_key(first), past(encode_key(first))

    begins = [place(value) for value in key[: len(first)]] == [place(value) for value in first]

    assert begins == (start <= encode_key(key) < stop)


@given(KEY, KEY, st.binary(max_size=16).filter(lambda tail: tail[:1] != b"\xff"))
def test_the_first_values_of_a_key_end_where_their_own_key_does(
    first: list[Value], rest: list[Value], tail: bytes
) -> None:
    """Whatever follows, if it may begin a value, which ff does not: it would go on with a text."""
    start = encode_key(first)

    assert len(start) == end_of_values(start + encode_key(rest) + tail, len(first))
    assert None is end_of_values(start, len(first) + 1)


@given(TEXT, TEXT)
def test_a_string_that_goes_on_with_a_nul_does_not_begin_with_the_shorter_string(
    text: str, rest: str
) -> None:
    longer = encode_key([f"{text}\0{rest}", 1])

    assert longer.startswith(encode_key([text]))
    assert longer >= past(encode_key([text]))


@given(st.binary(max_size=4) | st.lists(st.sampled_from([0, 254, 255]), max_size=4).map(bytes))
def test_incrementing_gives_the_least_bound_of_what_begins_with_a_prefix(prefix: bytes) -> None:
    bound = increment(prefix)

    if bound is None:
        assert prefix == b"\xff" * len(prefix)
    else:
        assert prefix + b"\xff" * 9 < bound
        assert not bound.startswith(prefix)
        # Nothing lies between the last key with the prefix and the bound.
        assert (
            bound == (int.from_bytes(prefix, "big") + 1).to_bytes(len(prefix), "big")[: len(bound)]
        )


def test_incrementing_by_hand() -> None:
    assert b"\x01" == increment(b"\x00")
    assert b"b" == increment(b"a\xff\xff")
    assert None is increment(b"\xff\xff")
    assert None is increment(b"")


@pytest.mark.parametrize(
    "written",
    [
        "00",  # no such tag
        "02",  # reserved
        "13",
        "14",
        "16",
        "ff",
        "09",  # cut off
        "0a 01",
        "0d 80",
        "10 61",
        "10 61 00ff",
        "11",
        "12",
        "12 03",
        "15",
        "15 6100",
        "15 6100 03",
        "09 00",  # not the narrowest
        "09 80",
        "07 01",
        "0a 0001",
        "06 ff80",
        "0c 0000000000000001",
        "10 ff 00",  # not UTF-8
        "10 eda080 00",
        "12 01 00",  # undefined within
        "15 6100 01 00",
        "15 6200 03 6100 03 00",  # fields out of order
        "15 6100 03 6100 03 00",  # a field twice
        "15 00ff 03 00ff 03 00",
        "15 2400 03 00",  # a field called $
        "15 ff00 03 00",
    ],
)
def test_what_is_no_key_is_refused(written: str) -> None:
    with pytest.raises(InvalidValue):
        decode_key(bytes.fromhex(written))


@given(st.binary(max_size=40) | st.lists(st.integers(0, 22), max_size=12).map(bytes))
def test_any_bytes_are_the_key_of_their_values_or_refused(data: bytes) -> None:
    try:
        values = decode_key(data)
    except InvalidValue:
        return
    assert data == encode_key(values)


@given(KEY, st.data())
def test_a_changed_key_is_another_key_or_refused(values: list[Value], data: st.DataObject) -> None:
    changed = bytearray(encode_key([*values, None]))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    try:
        decoded = decode_key(bytes(changed))
    except InvalidValue:
        return
    assert bytes(changed) == encode_key(decoded)


def test_a_key_nests_as_deep_as_values_do_and_no_deeper() -> None:
    deepest = nested(VALUE_NESTING_MAX)

    assert [deepest] == decode_key(encode_key([deepest]))
    with pytest.raises(InvalidValue, match="nested too deep"):
        decode_key(encode_key([[deepest]]))
    with pytest.raises(InvalidValue, match="nested too deep"):
        decode_key(b"\x12" * 100_000)
