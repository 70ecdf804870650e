"""Values: what a document can hold, and how two of them compare."""

from __future__ import annotations

import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import math
import operator
import pathlib
import pickle
import types
import uuid
from collections.abc import Callable
from typing import Any

import convex
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidValue
from engine.model import values
from engine.model.limits import ARRAY_ITEMS_MAX, OBJECT_FIELDS_MAX, VALUE_NESTING_MAX
from engine.model.values import (
    INT64_MAX,
    INT64_MIN,
    UNDEFINED,
    Int64,
    Undefined,
    Value,
    compare,
    copied,
    get_path,
    measure,
    nesting_of,
    normalize,
    size_of,
    strictly_equal,
)
from tests.unit.model.canonical import (
    EXACT_INT,
    FLOAT,
    INT64,
    MAYBE_VALUE,
    VALUE,
    bits_of,
    nested,
    place,
    same,
)


class Color(enum.Enum):
    RED = "red"


class Shade(enum.StrEnum):
    DARK = "dark"


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int


class Foreign:
    """Of a class that the official client might have; `value` is what its integer is."""

    def __init__(self, value: object) -> None:
        self.value = value


Foreign.__name__ = "ConvexInt64"


# normalize


@given(VALUE)
def test_normalizing_changes_nothing_that_is_canonical(value: Value) -> None:
    assert same(value, normalize(value))


@given(st.lists(st.floats() | st.just(2.0), min_size=16, max_size=40), st.none() | VALUE)
def test_an_array_of_many_numbers_becomes_what_each_of_them_does(
    numbers: list[float], other: Value
) -> None:
    given = [*numbers, other]

    assert same([normalize(one) for one in numbers], normalize(numbers))
    assert same([normalize(one) for one in given], normalize(given))
    assert normalize(numbers) is not numbers
    assert 2 + 9 * len(numbers) == size_of(normalize(numbers))
    assert 2 + sum(map(size_of, normalize(given))) == size_of(normalize(given))
    with pytest.raises(InvalidValue, match=rf"\[{len(numbers)}\].*beyond 2\*\*53"):
        normalize([*numbers, 2**60])


@given(VALUE)
def test_the_copy_shares_no_container_with_the_original(value: Value) -> None:
    document = {"list": [value], "object": {"inner": value}}
    before = copy.deepcopy(document)

    normal = normalize(document)
    normal["list"].append(1)
    normal["object"]["inner"] = 2

    assert same(before, document)


@pytest.mark.parametrize(
    ("given_value", "expected"),
    [
        (1.0, 1),
        (-7.0, -7),
        (0.0, 0),
        (-0.0, -0.0),
        (2.0**53, 2**53),
        (-(2.0**53), -(2**53)),
        (2.0**53 + 2, 2.0**53 + 2),
        (math.inf, math.inf),
        (1.5, 1.5),
        (True, True),
        (Int64(5), Int64(5)),
        ((1, (2.0,)), [1, [2]]),
        (collections.OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (types.MappingProxyType({"a": 1.0}), {"a": 1}),
        (Color.RED, "red"),
        (Shade.DARK, "dark"),
        (Level.HIGH, 3),
        ({Shade.DARK: Shade.DARK}, {"dark": "dark"}),
        (Name("x"), "x"),
        ({Name("x"): Name("é")}, {"x": "é"}),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (convex.ConvexInt64(-5), Int64(-5)),
        ([convex.ConvexInt64(INT64_MAX)], [Int64(INT64_MAX)]),
    ],
)
def test_what_is_accepted_takes_its_canonical_form(given_value: object, expected: Value) -> None:
    assert same(expected, normalize(given_value))


def test_field_names_come_out_as_plain_strings() -> None:
    normal = normalize({Shade.DARK: 1, Name("other"): 2})

    assert [str, str] == [type(name) for name in normal]


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({1, 2}, "a set is not a value; write sorted(x)"),
        (frozenset(), "a frozenset is not a value; write sorted(x)"),
        (datetime.datetime(2025, 1, 1), "a datetime is not a value; write x.timestamp() * 1000"),
        (datetime.date(2025, 1, 1), "a date is not a value; write x.isoformat()"),
        (datetime.timedelta(1), "a timedelta is not a value; write x.total_seconds() * 1000"),
        (decimal.Decimal(1), "a Decimal is not a value; write str(x)"),
        (uuid.UUID(int=1), "a UUID is not a value; write str(x)"),
        (pathlib.Path(), "Path is not a value; write str(x)"),
        (1j, "a complex is not a value; write [x.real, x.imag]"),
        (Point(1), "a Point is not a value; write dataclasses.asdict(x)"),
        (range(3), "a range is not a value; write list(x)"),
        (collections.deque([1]), "a deque is not a value; write list(x)"),
        (object(), "a object is not a value; write None, bool, int"),
        ([UNDEFINED], "leave the item out"),
        ("a\ud800", "a lone surrogate ('\\ud800' at 1)"),
        (Name("\udfff"), "a lone surrogate"),
        (2**53 + 1, "write Int64(9007199254740993)"),
        (-(2**53) - 1, "write Int64(-9007199254740993)"),
        (2**63, "an integer of 64 bits fits no number type; write a str"),
        (1 << 9_999, "an integer of 10000 bits fits no number type"),
        ({1: 2}, "field names are str, not int"),
        ({"$a": 2}, "field names starting with '$' are reserved"),
        ({"é": 2}, "field names hold printable ASCII only"),
        ({"a\n": 2}, "field names hold printable ASCII only"),
        ({"a\x7f": 2}, "field names hold printable ASCII only"),
        ({"a" * 1025: 2}, "a field name has 1025 bytes, at most 1024 fit"),
        (Foreign(2**63), "a ConvexInt64 without an integer of 64 bits"),
        (Foreign("x"), "a ConvexInt64 without an integer of 64 bits"),
    ],
)
def test_a_refusal_says_where_what_and_what_to_write_instead(refused: object, message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        normalize({"a": [None, {"b c": refused}]}, path="args")

    assert "args.a[1]['b c']" in str(caught.value)
    assert message in str(caught.value)


def test_a_field_that_is_undefined_is_left_out() -> None:
    nested: object = 1
    for _ in range(40):
        nested = {"a": nested, "b": UNDEFINED, "c": 2}

    plain: object = 1
    for _ in range(40):
        plain = {"a": plain, "c": 2}
    assert plain == normalize(nested)
    assert {} == normalize({"a": UNDEFINED})
    for refused in (UNDEFINED, [UNDEFINED], {"a": UNDEFINED, "b": UNDEFINED, "c": [UNDEFINED]}):
        with pytest.raises(InvalidValue, match="UNDEFINED is the absence of a value"):
            normalize(refused)


def test_a_coroutine_is_to_be_awaited() -> None:
    async def answer() -> int:
        return 1

    coroutine = answer()

    with pytest.raises(InvalidValue, match="the value: a coroutine is not a value; await it first"):
        normalize(coroutine)
    coroutine.close()


@pytest.mark.parametrize("name", ["", " ", "a b", "a.b", "~", "_x", "a$", "a" * 1024])
def test_field_names_are_any_printable_ascii(name: str) -> None:
    assert {name: 1} == normalize({name: 1})


def test_values_nest_64_deep_and_no_deeper() -> None:
    deepest = nested(VALUE_NESTING_MAX)

    assert deepest == normalize(deepest)
    with pytest.raises(InvalidValue, match="nested too deep"):
        normalize([deepest])
    with pytest.raises(InvalidValue, match=r"a(\[0\]){15}\.\.\.: nested too deep"):
        normalize({"a": deepest})


def test_a_value_within_itself_is_refused() -> None:
    value: list[object] = []
    value.append({"again": value})

    with pytest.raises(InvalidValue, match="within itself"):
        normalize(value)


def test_arrays_and_objects_have_their_limits() -> None:
    items = [None] * ARRAY_ITEMS_MAX
    fields = {f"f{n}": None for n in range(OBJECT_FIELDS_MAX)}

    assert items == normalize(items)
    assert fields == normalize(fields)
    with pytest.raises(InvalidValue, match="an array of 8193 items, at most 8192 fit"):
        normalize([*items, None])
    with pytest.raises(InvalidValue, match="an object of 1025 fields, at most 1024 fit"):
        normalize({**fields, "more": None})


def test_names_once_seen_are_remembered_within_bounds() -> None:
    for n in range(values.FIELD_NAMES.names_max + 10):
        normalize({f"name{n}": None})

    assert len(values.FIELD_NAMES) <= values.FIELD_NAMES.names_max


def test_long_names_are_not_remembered() -> None:
    long = "n" * (values.FIELD_NAMES.length_max + 1)

    normalize({long: None})

    assert long not in values.FIELD_NAMES


# Int64

OPERATORS: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.mod,
    operator.and_,
    operator.or_,
    operator.xor,
]
SHIFTS_AND_POWERS: list[Callable[[Any, Any], Any]] = [
    operator.lshift,
    operator.rshift,
    operator.pow,
]
UNARY: list[Callable[[Any], Any]] = [
    operator.neg,
    operator.pos,
    operator.abs,
    operator.invert,
    round,
    math.floor,
    math.ceil,
    math.trunc,
    lambda x: round(x, -1),
]


def outcome_of(compute: Callable[[], Any]) -> object:
    """What `compute` gives or raises, and of what type."""
    try:
        result = compute()
    except (ZeroDivisionError, OverflowError, ValueError) as error:
        return type(error)
    return type(result), result


def outcome_in_64_bits(compute: Callable[[], Any]) -> object:
    """The same of plain integers, if they had 64 bits."""
    match outcome_of(compute):
        case (kind, int(result)) if kind is int:
            return (Int64, result) if INT64_MIN <= result <= INT64_MAX else OverflowError
        case other:
            return other


@pytest.mark.parametrize("apply", OPERATORS)
@given(INT64, INT64 | st.integers(-(2**63), 2**63 - 1))
def test_arithmetic_is_that_of_integers_until_64_bits_do_not_suffice(
    apply: Callable[[Any, Any], Any], a: Int64, b: int
) -> None:
    expected = outcome_in_64_bits(lambda: apply(int(a), int(b)))
    expected_reflected = outcome_in_64_bits(lambda: apply(int(b), int(a)))

    assert expected == outcome_of(lambda: apply(a, b))
    assert expected_reflected == outcome_of(lambda: apply(b, a))


@pytest.mark.parametrize("apply", SHIFTS_AND_POWERS)
@given(INT64, st.integers(-3, 70))
def test_shifts_and_powers_stay_within_64_bits(
    apply: Callable[[Any, Any], Any], a: Int64, b: int
) -> None:
    assert outcome_in_64_bits(lambda: apply(int(a), b)) == outcome_of(lambda: apply(a, b))
    assert outcome_in_64_bits(lambda: apply(b, int(a) % 9)) == outcome_of(
        lambda: apply(b, Int64(int(a) % 9))
    )


@pytest.mark.parametrize("apply", UNARY)
@given(INT64)
def test_one_sided_operators_stay_int64(apply: Callable[[Any], Any], a: Int64) -> None:
    assert outcome_in_64_bits(lambda: apply(int(a))) == outcome_of(lambda: apply(a))


@given(INT64, INT64.filter(bool))
def test_divmod_gives_two_int64(a: Int64, b: Int64) -> None:
    quotient, remainder = divmod(int(a), int(b))

    if INT64_MIN <= quotient <= INT64_MAX:
        assert (quotient, remainder) == divmod(a, b) == divmod(int(a), b)
        assert [Int64, Int64] == [type(part) for part in divmod(a, b)]
    else:
        with pytest.raises(OverflowError):
            divmod(a, b)


def test_mixing_with_floats_gives_floats() -> None:
    results = [
        Int64(3) + 0.5,
        0.5 + Int64(3),
        Int64(3) * 1.0,
        Int64(3) / Int64(2),
        Int64(3) / 2,
        7.0 // Int64(2),
        divmod(7.0, Int64(2))[0],
        2.0 ** Int64(3),
        Int64(2) ** -1,
    ]

    assert [3.5, 3.5, 3.0, 1.5, 1.5, 3.0, 3.0, 8.0, 0.5] == results
    assert {float} == {type(result) for result in results}


def test_modular_powers_and_sums_stay_int64() -> None:
    results = [pow(Int64(7), 100, 13), sum([Int64(1), Int64(2)]), abs(Int64(-3)), max(Int64(4), 2)]

    assert [9, 3, 3, 4] == results
    assert {Int64} == {type(result) for result in results}


def test_an_overflow_names_the_number() -> None:
    with pytest.raises(OverflowError, match="9223372036854775808 does not fit in 64 bits"):
        Int64(INT64_MAX) + 1
    with pytest.raises(OverflowError, match="an integer of 100000 bits does not fit in 64 bits"):
        Int64(1) << 99_999


@pytest.mark.parametrize(
    ("made_of", "expected"), [("5", 5), (5.0, 5), (True, 1), (INT64_MIN, INT64_MIN)]
)
def test_int64_of_what_is_an_integer(made_of: Value, expected: int) -> None:
    assert expected == Int64(made_of)
    assert Int64 is type(Int64(made_of))


@pytest.mark.parametrize(
    ("made_of", "error"),
    [
        (2**63, OverflowError),
        (-(2**63) - 1, OverflowError),
        (1e30, OverflowError),
        (2.5, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("x", ValueError),
        (None, TypeError),
    ],
)
def test_int64_of_anything_else_is_refused(made_of: Value, error: type[Exception]) -> None:
    with pytest.raises(error):
        Int64(made_of)


def test_int64_is_an_int_to_everything_but_the_value_model() -> None:
    five = Int64(5)

    assert "Int64(5)" == repr(five)
    assert "5 5 00005" == f"{five!s} {five} {five:05d}"
    assert {5: "x"}[five] == "x"
    assert five == 5
    assert int is type(int(five))
    assert [0, 1, 2, 3, 4] == list(range(five))


def test_int64_survives_pickling_and_copying() -> None:
    five = Int64(5)

    for again in (pickle.loads(pickle.dumps(five)), copy.copy(five), copy.deepcopy([five])[0]):
        assert (Int64, 5) == (type(again), again)


def test_undefined_is_one_false_member_that_survives_copying() -> None:
    assert UNDEFINED is pickle.loads(pickle.dumps(UNDEFINED))
    assert UNDEFINED is copy.deepcopy(UNDEFINED)
    assert [UNDEFINED] == list(Undefined)
    assert not UNDEFINED
    assert "UNDEFINED" == repr(UNDEFINED)


# Sizes


def told_size(value: Value) -> int:
    """The rule as it is told, leaving nothing to speed."""
    match value:
        case None | bool():
            return 1
        case int() | float():
            return 9
        case str():
            return 2 + len(value.encode())
        case bytes():
            return 2 + len(value)
        case list():
            return 2 + sum(map(told_size, value))
        case dict():
            return 2 + sum(len(name) + 1 + told_size(item) for name, item in value.items())
    raise AssertionError(value)


def told_nesting(value: Value) -> int:
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    return 0 if inner is None else 1 + max(map(told_nesting, inner), default=0)


@given(VALUE)
def test_sizes_and_nesting_are_counted_as_the_limits_are_written(value: Value) -> None:
    assert (told_size(value), told_nesting(value)) == measure(value)
    assert told_size(value) == size_of(value)
    assert told_nesting(value) == nesting_of(value)


def test_a_document_is_counted_by_hand() -> None:
    document = {"_id": "x" * 32, "_creationTime": 1.5, "tags": ["é", b"ab"], "on": True, "n": None}

    expected = (
        2 + (4 + 34) + (14 + 9) + (5 + 2 + (2 + 2) + (2 + 2)) + (3 + 1) + (2 + 1),
        2,
    )

    assert expected == measure(document)


# Order and equality


@given(MAYBE_VALUE, MAYBE_VALUE)
def test_values_compare_as_their_places_do(a: Value, b: Value) -> None:
    expected = (place(a) > place(b)) - (place(a) < place(b))

    assert expected == compare(a, b)
    assert -expected == compare(b, a)
    assert (expected == 0) == strictly_equal(a, b)


@given(VALUE)
def test_a_copy_is_strictly_equal_and_compares_as_equal(value: Value) -> None:
    again = copy.deepcopy(value)

    assert strictly_equal(value, again)
    assert 0 == compare(value, again)


@given(FLOAT | EXACT_INT, FLOAT | EXACT_INT)
def test_numbers_compare_by_the_total_order_of_ieee_754(a: float, b: float) -> None:
    expected = (place(a) > place(b)) - (place(a) < place(b))

    assert expected == compare(a, b)


def test_kinds_and_special_numbers_are_in_the_order_of_the_specification() -> None:
    ascending: list[Value] = [
        UNDEFINED,
        None,
        Int64(INT64_MIN),
        Int64(0),
        Int64(INT64_MAX),
        -math.nan,
        -math.inf,
        -1,
        -0.5,
        -5e-324,
        -0.0,
        0,
        5e-324,
        0.5,
        1,
        math.inf,
        math.nan,
        False,
        True,
        "",
        "\0",
        "a",
        "a\0",
        "b",
        "\uffff",
        "\U00010000",
        b"",
        b"\0",
        b"\xff",
        [],
        [None],
        [None, None],
        [1],
        {},
        {"": 5},
        {"a": 1},
        {"a": 1, "b": 0},
        {"a": 2},
        {"b": 0},
    ]

    for i, a in enumerate(ascending):
        for j, b in enumerate(ascending):
            assert (i > j) - (i < j) == compare(a, b), (a, b)
            assert (i == j) == strictly_equal(a, b), (a, b)


def test_fields_in_another_order_are_the_same_object() -> None:
    assert strictly_equal({"a": 1, "b": [2]}, {"b": [2], "a": 1})
    assert not strictly_equal({"a": 1, "b": 2}, {"a": 1, "c": 2})
    assert not strictly_equal({"a": UNDEFINED}, {"b": 1})


def test_objects_compare_by_their_fields_in_order_of_names() -> None:
    assert 0 == compare({"b": 1, "a": 2}, {"a": 2, "b": 1})
    assert -1 == compare({"b": 1, "a": 2}, {"a": 3, "b": 0})
    assert 1 == compare({"b": 0, "a": {"d": 2, "c": 5}}, {"a": {"c": 4, "d": 3}, "b": 1})


def test_nans_are_equal_by_their_bits() -> None:
    odd = math.nan, -math.nan

    assert strictly_equal([odd[0]], [float("nan")])
    assert not strictly_equal([odd[0]], [odd[1]])
    assert bits_of(odd[0]) != bits_of(odd[1])


# Paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a", 1),
        ("b", {"c": {"d": None}, "": 2}),
        ("b.c.d", None),
        ("b.c.d.e", UNDEFINED),
        ("b.", 2),
        ("a.b", UNDEFINED),
        ("list.0", UNDEFINED),
        ("missing", UNDEFINED),
        ("missing.deeper", UNDEFINED),
    ],
)
def test_a_path_descends_through_objects_only(path: str, expected: Value) -> None:
    document = {"a": 1, "b": {"c": {"d": None}, "": 2}, "list": [5]}

    assert expected == get_path(document, path)


def test_a_path_into_a_scalar_leads_nowhere() -> None:
    assert UNDEFINED is get_path("text", "a")


def test_a_copy_is_equal_and_shares_no_array_and_no_object() -> None:
    value: Any = {"a": [[1], {"b": [0.5] * 20}], "c": {"d": "e"}}

    again: Any = copied(value)

    assert value == again
    again["a"][0].append(2)
    again["a"][1]["b"][3] = 0.25
    again["c"]["d"] = "f"
    assert {"a": [[1], {"b": [0.5] * 20}], "c": {"d": "e"}} == value
