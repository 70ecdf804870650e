"""Values as JSON: what the wire's tables say, and what clients make of it."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import convex
import msgspec
import pytest
from convex.values import json_to_convex, strict_convex_to_json
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue
from engine.model.json_values import (
    Json,
    decode_ts,
    encode_ts,
    from_wire,
    to_clean,
    to_export,
    to_wire,
)
from engine.model.limits import ARRAY_ITEMS_MAX, OBJECT_FIELDS_MAX, VALUE_NESTING_MAX
from engine.model.values import INT64_MAX, INT64_MIN, Int64, Value, normalize
from tests.unit.model.canonical import VALUE, float_of_bits, nested, same

WIRE_TABLE = [
    (None, None),
    (True, True),
    (False, False),
    (Int64(0), {"$integer": "AAAAAAAAAAA="}),
    (Int64(1), {"$integer": "AQAAAAAAAAA="}),
    (Int64(5), {"$integer": "BQAAAAAAAAA="}),
    (Int64(-1), {"$integer": "//////////8="}),
    (Int64(INT64_MAX), {"$integer": "/////////38="}),
    (Int64(INT64_MIN), {"$integer": "AAAAAAAAAIA="}),
    (float_of_bits(0x7FF8000000000000), {"$float": "AAAAAAAA+H8="}),
    (math.inf, {"$float": "AAAAAAAA8H8="}),
    (-math.inf, {"$float": "AAAAAAAA8P8="}),
    (-0.0, {"$float": "AAAAAAAAAIA="}),
    (b"\x01\x02\x03", {"$bytes": "AQID"}),
    (b"", {"$bytes": ""}),
    (5, 5.0),
    (0, 0.0),
    (2**53, 9007199254740992.0),
    (1.5, 1.5),
    ("é", "é"),
    ([], []),
    ([1, [None]], [1.0, [None]]),
    ({"b": 1, "": Int64(0)}, {"b": 1.0, "": {"$integer": "AAAAAAAAAAA="}}),
]


@pytest.mark.parametrize(("value", "on_the_wire"), WIRE_TABLE)
def test_the_table_of_the_wire(value: Value, on_the_wire: Json) -> None:
    assert same(on_the_wire, to_wire(value))
    assert same(value, from_wire(on_the_wire))


@given(VALUE)
def test_the_wire_loses_nothing_through_any_json_library(value: Value) -> None:
    on_the_wire = to_wire(value)

    assert same(value, from_wire(on_the_wire))
    assert same(value, from_wire(json.loads(json.dumps(on_the_wire, allow_nan=False))))
    assert same(value, from_wire(msgspec.json.decode(msgspec.json.encode(on_the_wire))))


@given(VALUE)
def test_every_number_is_spelled_with_a_fraction_or_exponent(value: Value) -> None:
    for text in (json.dumps(to_wire(value)), msgspec.json.encode(to_wire(value)).decode()):
        assert [] == integers_in(text)


def integers_in(text: str) -> list[str]:
    """The numbers in this JSON that a reader would take for integers."""
    found: list[str] = []
    json.loads(text, parse_int=found.append)
    return found


def as_convex_has_it(value: Value) -> Any:
    """`value` as the official client holds it."""
    match value:
        case Int64():
            return convex.ConvexInt64(int(value))
        case bool():
            return value
        case int():
            return float(value)
        case list():
            return [as_convex_has_it(item) for item in value]
        case dict():
            return {name: as_convex_has_it(item) for name, item in value.items()}
    return value


@given(VALUE)
def test_the_official_client_reads_what_we_write_and_writes_what_we_read(value: Value) -> None:
    text = msgspec.json.encode(to_wire(value))

    theirs = json_to_convex(json.loads(text))

    assert same(value, normalize(theirs))
    assert same(value, from_wire(strict_convex_to_json(as_convex_has_it(value))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1.0", 1),
        ("1e2", 100),
        ("-0.0", -0.0),
        ("9007199254740993", 2**53),
        ("9007199254740995", 2**53 + 4.0),
        ("123456789012345678901234567890", 1.2345678901234568e29),
        ('{"$float":"AAAAAAAAAAA="}', 0),
        ('{"_x":1," ~":2}', {"_x": 1, " ~": 2}),
    ],
)
def test_every_json_number_is_a_float64(text: str, expected: Value) -> None:
    assert same(expected, from_wire(json.loads(text)))


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"$integer": 5}, "$integer is a string of base64, not a int"),
        ({"$integer": "AAAA"}, "$integer of 3 bytes instead of 8"),
        ({"$integer": "AAAAAAAAAAA"}, "$integer is not base64"),
        ({"$integer": "AAAAAAAAAAB="}, "$integer is not base64 as it is usually written"),
        ({"$integer": " AAAAAAAAAAA="}, "$integer is not base64"),
        ({"$integer": "AAAAAAAAAAA=\n"}, "$integer is not base64"),
        ({"$integer": "__________8="}, "$integer is not base64"),
        ({"$integer": "AAAAAAAAAAAAAAAA"}, "$integer of 12 bytes instead of 8"),
        ({"$integer": "ÄAAAAAAAAAA="}, "$integer is not base64"),
        ({"$integer": "\ud800AAAAAAAAAA="}, "$integer is not base64"),
        ({"$integer": None}, "$integer is a string of base64"),
        ({"$float": "AAAAAAAA8D8="}, '"$float" of 1.0, which is an ordinary JSON number'),
        ({"$float": "AQAAAAAAAAA="}, '"$float" of 5e-324'),
        ({"$float": 1.5}, "$float is a string of base64, not a float"),
        ({"$bytes": "AQI"}, "$bytes is not base64"),
        ({"$bytes": "AR=="}, "$bytes is not base64 as it is usually written"),
        ({"$bytes": [1]}, "$bytes is a string of base64, not a list"),
        ({"$set": []}, "sets and maps are no values any more"),
        ({"$map": []}, "sets and maps are no values any more"),
        ({"$commitTs": None}, "the commit timestamp cannot be sent by a client"),
        ({"$undefined": None}, "field names starting with '$' are reserved"),
        ({"$integer": "AAAAAAAAAAA=", "a": 1}, "field names starting with '$' are reserved"),
        ({"$x": 1}, "field names starting with '$' are reserved"),
        ({"é": 1}, "printable ASCII"),
        ({"\t": 1}, "printable ASCII"),
        ({"a" * 1025: 1}, "at most 1024 fit"),
        ({5: 1}, "field names are str, not int"),
        (math.nan, 'nan is no JSON number; write {"$float": ...}'),
        (math.inf, "inf is no JSON number"),
        (10**400, "a number too large for a float64"),
        ("\ud800", "a lone surrogate"),
        (b"ab", "a bytes is nothing that JSON has"),
        ((1, 2), "a tuple is nothing that JSON has"),
        ([None] * (ARRAY_ITEMS_MAX + 1), "an array of 8193 items, at most 8192 fit"),
        (
            {f"f{n}": None for n in range(OBJECT_FIELDS_MAX + 1)},
            "an object of 1025 fields, at most 1024 fit",
        ),
    ],
    ids=lambda parameter: ascii(parameter)[:40],
)
def test_what_spells_no_value_is_refused_with_its_place(refused: Json, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        from_wire({"a": [0, {"b c": refused}]}, path="args")

    assert str(caught.value).startswith("args.a[1]['b c']")
    assert message in str(caught.value)


def test_values_nest_64_deep_unless_the_caller_says_less() -> None:
    deepest = nested(VALUE_NESTING_MAX)

    assert deepest == from_wire(deepest)
    with pytest.raises(InvalidValue, match="nested too deep"):
        from_wire([deepest])
    with pytest.raises(InvalidValue, match="nested too deep"):
        from_wire(deepest, nesting_max=VALUE_NESTING_MAX - 1)


def test_an_integer_counts_for_nothing_in_the_nesting() -> None:
    assert [Int64(1)] == from_wire([{"$integer": "AQAAAAAAAAA="}], nesting_max=1)


KEY_TEXT = st.text(max_size=3) | st.sampled_from(["$integer", "$float", "$bytes", "$set", "a"])
PARSED_JSON: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.text(alphabet="A/+=", max_size=14)
    | st.binary(min_size=7, max_size=9).map(lambda raw: base64.b64encode(raw).decode()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEY_TEXT, inner, max_size=2),
    max_leaves=8,
)


@given(PARSED_JSON)
def test_any_json_is_a_canonical_value_or_refused(parsed: Json) -> None:
    try:
        value = from_wire(parsed)
    except InvalidValue:
        return
    assert same(value, normalize(value))
    assert same(value, from_wire(to_wire(value)))


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (Int64(5), "5"),
        (Int64(INT64_MIN), "-9223372036854775808"),
        (b"\x01\x02\x03", "AQID"),
        (math.nan, "NaN"),
        (-math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (-0.0, -0.0),
        (5, 5.0),
        (1.5, 1.5),
        ([None, True, "a", {"b": Int64(1)}], [None, True, "a", {"b": "1"}]),
    ],
)
def test_clean_json_is_for_people(value: Value, clean: Json) -> None:
    assert same(clean, to_clean(value))


@pytest.mark.parametrize(
    ("value", "exported"),
    [
        (Int64(5), "5"),
        (Int64(INT64_MAX), "9223372036854775807"),
        (5, "5.0"),
        (-0.0, "-0.0"),
        (1.5, "1.5"),
        (math.inf, '{"$float":"AAAAAAAA8H8="}'),
        (b"\x01\x02\x03", '{"$bytes":"AQID"}'),
        ({"b": [Int64(1), None], "a": "x"}, '{"b":[1,null],"a":"x"}'),
    ],
)
def test_exported_json_keeps_integers_and_floats_apart(value: Value, exported: str) -> None:
    assert exported == msgspec.json.encode(to_export(value)).decode()
    assert exported == json.dumps(to_export(value), separators=(",", ":"))


# Timestamps


@pytest.mark.parametrize(("ts", "text"), [(0, "AAAAAAAAAAA="), (1, "AQAAAAAAAAA=")])
def test_timestamps_as_the_specification_spells_them(ts: int, text: str) -> None:
    assert text == encode_ts(ts)
    assert ts == decode_ts(text)


@given(st.integers(0, 2**63 - 1))
def test_a_timestamp_comes_back(ts: int) -> None:
    assert ts == decode_ts(encode_ts(ts))


@pytest.mark.parametrize(
    "text", [None, 5, "", "AAAA", "AAAAAAAAAAA", "AAAAAAAAAAB=", "AAAAAAAAAIA=", "//////////8="]
)
def test_what_is_no_timestamp_is_refused(text: Json) -> None:
    with pytest.raises(InvalidValue, match="a timestamp"):
        decode_ts(text)


@given(st.text() | st.binary(max_size=10).map(lambda raw: base64.b64encode(raw).decode()))
def test_any_text_is_a_timestamp_in_its_one_spelling_or_refused(text: str) -> None:
    try:
        ts = decode_ts(text)
    except InvalidValue:
        return
    assert text == encode_ts(ts)
