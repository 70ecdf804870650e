"""Canonical values for Hypothesis, and what the specification says of them in plainer code."""

from __future__ import annotations

import math
import struct
from typing import Any, TypeAlias

from hypothesis import strategies as st

from engine.model.values import EXACT_INT_MAX, INT64_MAX, INT64_MIN, UNDEFINED, Int64, Value

Place: TypeAlias = Any


def float_of_bits(bits: int) -> float:
    number: float = struct.unpack(">d", bits.to_bytes(8, "big"))[0]
    return number


def bits_of(number: float) -> int:
    return int.from_bytes(struct.pack(">d", number), "big")


def is_canonical_float(number: float) -> bool:
    integral = number.is_integer() and abs(number) <= EXACT_INT_MAX
    return not integral or (number == 0 and math.copysign(1, number) < 0)


TEXT = st.text(max_size=8) | st.text(alphabet="\0\x01ab\xff\u0100\U0001f600", max_size=4)
FIELD_NAME = st.text(
    alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=6
).filter(lambda name: not name.startswith("$"))
EXACT_INT = st.integers(-EXACT_INT_MAX, EXACT_INT_MAX) | st.integers(-3, 3)
FLOAT = (
    st.floats()
    | st.integers(0, 2**64 - 1).map(float_of_bits)
    | st.sampled_from([-0.0, math.inf, -math.inf, math.nan, -math.nan, 5e-324, 2.0**53 + 2])
).filter(is_canonical_float)
INT64 = (
    st.integers(INT64_MIN, INT64_MAX)
    | st.integers(-300, 300)
    | st.sampled_from(
        [edge + by for bit in (7, 15, 31) for edge in (-(1 << bit), 1 << bit) for by in (-1, 0)]
    )
    | st.sampled_from([INT64_MIN, INT64_MAX])
).map(Int64)
BYTES = st.binary(max_size=8) | st.lists(st.sampled_from([0, 1, 255]), max_size=4).map(bytes)
SCALAR: st.SearchStrategy[Value] = (
    st.none() | st.booleans() | EXACT_INT | FLOAT | INT64 | TEXT | BYTES
)


def _containing(inner: st.SearchStrategy[Value]) -> st.SearchStrategy[Value]:
    return st.lists(inner, max_size=4) | st.dictionaries(FIELD_NAME, inner, max_size=4)


VALUE: st.SearchStrategy[Value] = st.recursive(SCALAR, _containing, max_leaves=10)
MAYBE_VALUE: st.SearchStrategy[Value] = VALUE | st.just(UNDEFINED)


def nested(depth: int) -> Value:
    """An array that nests `depth` deep."""
    value: Value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def place(value: Value) -> Place:
    """Where `value` stands among all values, as something that Python itself can order."""
    if value is UNDEFINED:
        return (0,)
    if value is None:
        return (1,)
    match value:
        case Int64():
            return (2, int(value))
        case bool():
            return (4, value)
        case int() | float():
            return (3, *_place_of_number(float(value)))
        case str():
            return (5, value.encode())
        case bytes():
            return (6, value)
        case list():
            return (7, [place(item) for item in value])
        case dict():
            return (8, [(name.encode(), place(value[name])) for name in sorted(value)])
    raise AssertionError(value)


def _place_of_number(number: float) -> tuple[float, float, int]:
    sign = 1 if math.copysign(1, number) > 0 else -1
    if math.isnan(number):
        return sign, 0, sign * bits_of(abs(number))
    return 0, number, sign


def same(a: Value, b: Value) -> bool:
    """Of the same types, bits and order of fields, all the way down."""
    return spelled_out(a) == spelled_out(b)


def spelled_out(value: Value) -> object:
    if type(value) is float:
        return "float", bits_of(value)
    if type(value) is list:
        return [spelled_out(item) for item in value]
    if type(value) is dict:
        return "dict", [(name, spelled_out(item)) for name, item in value.items()]
    return type(value).__name__, value
