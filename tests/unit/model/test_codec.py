"""The codec: values and records as bytes, and what becomes of bytes that are not."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import math
import uuid

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue, StoreDamaged
from engine.model.cbor import INT64_TAG
from engine.model.codec import decode, decode_all, encode
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import INT64_MAX, INT64_MIN, Int64, Value, size_of
from tests.unit.model.canonical import VALUE, bits_of, float_of_bits, nested, same


@given(VALUE)
def test_what_is_encoded_comes_back_the_same_to_the_bit_and_in_order(value: Value) -> None:
    assert same(value, decode(encode(value)))
    assert same(value, decode(memoryview(encode(value))))


@given(VALUE)
def test_a_value_takes_between_a_ninth_and_twice_the_bytes_that_limits_count(value: Value) -> None:
    assert size_of(value) / 9 <= len(encode(value)) <= 2 * size_of(value)


@given(st.lists(VALUE))
def test_many_are_decoded_as_each_of_them_is(values: list[Value]) -> None:
    images = [encode(value) for value in values]

    decoded = decode_all(images)

    assert len(values) == len(decoded)
    assert all(map(same, values, decoded))


@given(st.integers(0, 2**64 - 1))
def test_every_float_keeps_its_bits(bits: int) -> None:
    number = float_of_bits(bits)

    assert bits == bits_of(decode(encode(number)))
    assert bits == bits_of(decode(encode({"a": [number, Int64(1)]}))["a"][0])


@given(st.integers(1, 2**52 - 1), st.booleans())
def test_every_nan_keeps_its_sign_and_payload(payload: int, negative: bool) -> None:
    bits = negative << 63 | 0x7FF << 52 | payload

    assert bits == bits_of(decode(encode(float_of_bits(bits))))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "f6"),
        (True, "f5"),
        (0, "00"),
        (-1, "20"),
        (2**53, "1b0020000000000000"),
        (-0.0, "fb8000000000000000"),
        (1.5, "fb3ff8000000000000"),
        (math.inf, "f97c00"),
        (math.nan, "fb7ff8000000000000"),
        (Int64(5), "d99c8005"),
        (Int64(INT64_MIN), "d99c803b7fffffffffffffff"),
        (Int64(INT64_MAX), "d99c801b7fffffffffffffff"),
        ("é", "62c3a9"),
        (b"ab", "426162"),
        ([1, [Int64(0)]], "820181d99c8000"),
        ({"b": 1, "a": {}}, "a2616201" + "6161a0"),
    ],
)
def test_the_format_on_disk_stays_as_it_is(value: Value, written: str) -> None:
    assert written == encode(value).hex()
    assert same(value, decode(bytes.fromhex(written)))


def test_records_of_tuples_and_bytes_and_large_integers_are_encoded_too() -> None:
    record = (1_763_665_912_345_678_901, [(b"key", b"value"), (b"gone", None)], {"seed": 2**63})

    assert [record[0], [[b"key", b"value"], [b"gone", None]], {"seed": 2**63}] == decode(
        encode(record)
    )


def test_values_as_deep_as_allowed_fit_into_a_record() -> None:
    record = {"writes": [[nested(VALUE_NESTING_MAX)]]}

    assert record == decode(encode(record))


def test_an_int64_does_not_change_how_deep_a_record_may_nest() -> None:
    deepest = nested(VALUE_NESTING_MAX + 15)

    assert [Int64(1), deepest] == decode(encode([Int64(1), deepest]))
    with pytest.raises(InvalidValue, match="nested more than 80 deep"):
        encode([Int64(1), [deepest]])


@pytest.mark.parametrize("depth", [2_500, 100_000])
def test_what_nests_deeper_than_can_be_decoded_is_refused(depth: int) -> None:
    with pytest.raises(InvalidValue, match="nested more than 80 deep"):
        encode(nested(depth))
    with pytest.raises(InvalidValue, match="nested more than 80 deep"):
        encode([Int64(1), nested(depth)])


@pytest.mark.parametrize(
    "foreign",
    [
        datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
        datetime.date(2025, 1, 1),
        decimal.Decimal("1.5"),
        fractions.Fraction(1, 2),
        uuid.UUID(int=1),
        object(),
        "\ud800",
        [Int64(1), {1, 2}],
        [Int64(1), frozenset()],
        [Int64(1), 1j],
    ],
    ids=lambda foreign: type(foreign).__name__,
)
def test_what_is_no_value_is_not_written(foreign: object) -> None:
    with pytest.raises(InvalidValue):
        encode(foreign)
    with pytest.raises(InvalidValue):
        encode({"a": [foreign, math.nan]})


@given(VALUE, st.data())
def test_what_was_cut_off_is_damaged(value: Value, data: st.DataObject) -> None:
    written = encode(value)
    kept = data.draw(st.integers(0, len(written) - 1))

    with pytest.raises(StoreDamaged, match=f"^{kept} bytes are no value"):
        decode(written[:kept])


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_damaged(data: bytes) -> None:
    with contextlib.suppress(StoreDamaged):
        decode(data)


@given(VALUE, st.data())
def test_a_flipped_bit_gives_a_value_or_is_damaged(value: Value, data: st.DataObject) -> None:
    written = bytearray(encode(value))
    at = data.draw(st.integers(0, 8 * len(written) - 1))
    written[at // 8] ^= 1 << at % 8

    with contextlib.suppress(StoreDamaged):
        decode(bytes(written))


TAGS_CBOR2_KNOWS = [
    *(0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100),
    *(256, 258, 260, 261, 1004, 43_000, 55_799),
]


@pytest.mark.parametrize("tag", [*TAGS_CBOR2_KNOWS, *range(6, 25), 999, 2**40])
@pytest.mark.parametrize("content", [0, "2025-01-01", b"\x01", [1, 2], {"a": 1}])
def test_tags_that_are_not_ours_are_damage(tag: int, content: object) -> None:
    written = cbor2.dumps(cbor2.CBORTag(tag, content))

    with pytest.raises(StoreDamaged):
        decode(written)


@pytest.mark.parametrize("content", ["5", b"5", 1.5, None, True, [5], 2**63, -(2**63) - 1])
def test_the_tag_of_int64_holds_an_integer_of_64_bits(content: object) -> None:
    with pytest.raises(StoreDamaged):
        decode(cbor2.dumps(cbor2.CBORTag(INT64_TAG, content)))


@pytest.mark.parametrize(
    "written",
    [
        "",  # nothing
        "ff",  # an end without a beginning
        "62c328",  # not UTF-8
        "63eda080",  # a lone surrogate
        "9bffffffffffffffff",  # an array of 2**64 - 1 items
        "5bffffffffffffffff",  # as many bytes
        "bbffffffffffffffff",  # as many fields
        "a10102",  # a field called 1
        "a1f601",  # a field called None
        "a1818001",  # a field called [[]]
        "1c",  # a reserved length
    ],
)
def test_malformed_bytes_are_damaged(written: str) -> None:
    with pytest.raises(StoreDamaged):
        decode(bytes.fromhex(written))


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x60", b"\x9f", b"\xbf\x60", b"\xd9\x9c\x80"])
def test_a_bomb_of_nesting_is_damaged(opening: bytes) -> None:
    with pytest.raises(StoreDamaged):
        decode(opening * 100_000)
