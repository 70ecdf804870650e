"""
What a document can hold, and how two such values compare.

A `Value` is `None`, `bool`, `int`, `float`, `Int64`, `str`, `bytes`, `list` or
`dict`, in one canonical form: a float64 is held as a plain `int` if and only if
it is integral, not -0.0 and within 2**53, and otherwise as a `float`; a 64-bit
integer is an `Int64`.  So one number has one spelling, `1` and `1.0` are the
same document, and `Int64(1)` is another.

`normalize` is the door from user data to that form: it copies, and refuses by
name what no document can hold.  Everything else here takes canonical values.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import compress
from math import copysign
from typing import Any, Final, SupportsIndex, TypeAlias, cast

from engine.errors import InvalidValue
from engine.model.limits import (
    ARRAY_ITEMS_MAX,
    FIELD_NAME_BYTES_MAX,
    OBJECT_FIELDS_MAX,
    VALUE_NESTING_MAX,
)
from engine.model.text import brief

Value: TypeAlias = Any
"""None | bool | int | float | Int64 | str | bytes | list[Value] | dict[str, Value], canonical."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
EXACT_INT_MAX: Final = 2**53
"""Every integer up to here is a float64 of its own; beyond, neighbours share one."""


class Undefined(enum.Enum):
    """The type of `UNDEFINED`; an enum, so that `is` narrows for type checkers."""

    UNDEFINED = "undefined"

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = Undefined.UNDEFINED
"""Absent: a field that is not there, an argument that was not sent.  Never part of a document: who
writes a field that is `UNDEFINED` leaves it out, and in a patch takes it away."""


class Int64(int):
    """
    A 64-bit signed integer, which is another type than the float64 that `int` and `float` are.

    Arithmetic with integers stays `Int64`, and raises `OverflowError` where 64
    bits do not suffice; `/` and arithmetic with floats give a `float`.  Hash
    and equality are those of `int`.

    Args:
        value: an integer, an integral float or decimal digits.

    Raises:
        OverflowError: it does not fit in 64 bits.
        ValueError: it is not integral, or not a number.
    """

    __slots__ = ()

    def __new__(cls, value: int | float | str = 0, /) -> Int64:
        if isinstance(value, float) and not value.is_integer():
            raise ValueError(f"Int64 of {value!r}, which is not integral")
        self = super().__new__(cls, value)
        if not INT64_MIN <= self <= INT64_MAX:
            # Python refuses to print integers of thousands of digits.
            bits = int.bit_length(self)
            shown = int(self) if bits <= 128 else f"an integer of {bits} bits"
            raise OverflowError(f"{shown} does not fit in 64 bits")
        return self

    def __repr__(self) -> str:
        return f"Int64({int.__repr__(self)})"

    def __str__(self) -> str:
        return int.__repr__(self)

    # Mixed with floats, int's own methods answer NotImplemented and the float takes over.

    def __add__(self, other: int, /) -> Int64:
        return _closed(int.__add__(self, other))

    def __radd__(self, other: int, /) -> Int64:
        return _closed(int.__radd__(self, other))

    def __sub__(self, other: int, /) -> Int64:
        return _closed(int.__sub__(self, other))

    def __rsub__(self, other: int, /) -> Int64:
        return _closed(int.__rsub__(self, other))

    def __mul__(self, other: int, /) -> Int64:
        return _closed(int.__mul__(self, other))

    def __rmul__(self, other: int, /) -> Int64:
        return _closed(int.__rmul__(self, other))

    def __floordiv__(self, other: int, /) -> Int64:
        return _closed(int.__floordiv__(self, other))

    def __rfloordiv__(self, other: int, /) -> Int64:
        return _closed(int.__rfloordiv__(self, other))

    def __mod__(self, other: int, /) -> Int64:
        return _closed(int.__mod__(self, other))

    def __rmod__(self, other: int, /) -> Int64:
        return _closed(int.__rmod__(self, other))

    def __divmod__(self, other: int, /) -> tuple[Int64, Int64]:
        return _closed_pair(int.__divmod__(self, other))

    def __rdivmod__(self, other: int, /) -> tuple[Int64, Int64]:
        return _closed_pair(int.__rdivmod__(self, other))

    def __pow__(self, other: int, modulus: int | None = None, /) -> Value:
        """`Int64`, or a `float` when `other` is negative."""
        return _closed(int.__pow__(self, other, modulus))

    def __rpow__(self, other: int, modulus: int | None = None, /) -> Value:
        """`Int64`, or a `float` when this number is negative."""
        return _closed(int.__rpow__(self, other, modulus))

    def __lshift__(self, other: int, /) -> Int64:
        return _closed(int.__lshift__(self, other))

    def __rlshift__(self, other: int, /) -> Int64:
        return _closed(int.__rlshift__(self, other))

    def __rshift__(self, other: int, /) -> Int64:
        return _closed(int.__rshift__(self, other))

    def __rrshift__(self, other: int, /) -> Int64:
        return _closed(int.__rrshift__(self, other))

    def __and__(self, other: int, /) -> Int64:
        return _closed(int.__and__(self, other))

    def __rand__(self, other: int, /) -> Int64:
        return _closed(int.__rand__(self, other))

    def __or__(self, other: int, /) -> Int64:
        return _closed(int.__or__(self, other))

    def __ror__(self, other: int, /) -> Int64:
        return _closed(int.__ror__(self, other))

    def __xor__(self, other: int, /) -> Int64:
        return _closed(int.__xor__(self, other))

    def __rxor__(self, other: int, /) -> Int64:
        return _closed(int.__rxor__(self, other))

    def __neg__(self) -> Int64:
        return _closed(int.__neg__(self))

    def __pos__(self) -> Int64:
        return self

    def __abs__(self) -> Int64:
        return _closed(int.__abs__(self))

    def __invert__(self) -> Int64:
        return _closed(int.__invert__(self))

    def __trunc__(self) -> Int64:
        return self

    def __floor__(self) -> Int64:
        return self

    def __ceil__(self) -> Int64:
        return self

    def __round__(self, ndigits: SupportsIndex = 0, /) -> Int64:
        return _closed(int.__round__(self, ndigits))


def _closed(result: object) -> Int64:
    """An int as `Int64`; NotImplemented, which int's methods also answer, as it is."""
    return Int64(result) if isinstance(result, int) else cast(Int64, result)


def _closed_pair(result: object) -> tuple[Int64, Int64]:
    if isinstance(result, tuple):
        quotient, remainder = result
        return Int64(quotient), Int64(remainder)
    return cast(tuple[Int64, Int64], result)


# User data to canonical values.


def normalize(value: object, *, path: str = "") -> Value:
    """
    Copy `value` into the form that documents hold.

    Tuples become lists, mappings dicts, enum members their values, subclasses
    of `str` plain strings, `bytearray` and `memoryview` bytes, the official
    client's `ConvexInt64` an `Int64`.  A field that is `UNDEFINED` is left out.
    The total size is not looked at: see `size_of`.

    Args:
        value: anything at all.
        path: how an error calls `value`, as in ``args.message``.

    Raises:
        InvalidValue: no document can hold it; says where, what, and what to write instead.
    """
    try:
        return _NORMAL.get(type(value), _normal_other)(value, VALUE_NESTING_MAX)
    except Refusal as refusal:
        raise InvalidValue(refusal.told(path)) from None


class Refusal(Exception):
    """A refusal on its way up; each container that it passes appends one step of the path."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.steps: list[object] = []

    def told(self, path: str) -> str:
        """The whole message, where `path` is what its outermost value is called."""
        outermost_first = self.steps[::-1]
        for step in outermost_first[:_STEPS_TOLD_MAX]:
            path = _stepped(path, step)
        if len(outermost_first) > _STEPS_TOLD_MAX:
            path += "..."
        return f"{path or 'the value'}: {self.why}"


_STEPS_TOLD_MAX: Final = 16


def _stepped(path: str, step: object) -> str:
    if isinstance(step, str):
        step = brief(step)
        if step.isidentifier():
            return f"{path}.{step}" if path else step
    return f"{path}[{step!r}]"


class _FieldNames(dict[str, str]):
    """Field names found valid, so that each is looked at once; a name maps to its plain `str`."""

    names_max: Final = 65_536
    length_max: Final = 64

    def __missing__(self, name: object) -> str:
        plain = check_field_name(name)
        if len(plain) <= self.length_max:
            if len(self) >= self.names_max:
                self.clear()
            self[plain] = plain
        return plain


def check_field_name(name: object) -> str:
    """
    `name` as a plain `str`, if an object may have a field of that name.

    Raises:
        Refusal: it may not.
    """
    if not isinstance(name, str):
        raise Refusal(f"field names are str, not {type(name).__name__}; write str(name)")
    plain = str.__str__(name)
    if plain.startswith("$"):
        raise Refusal("field names starting with '$' are reserved; rename the field")
    if not (plain.isascii() and plain.isprintable()):
        raise Refusal("field names hold printable ASCII only; keep the text in a value instead")
    if len(plain) > FIELD_NAME_BYTES_MAX:
        raise Refusal(f"a field name has {len(plain)} bytes, at most {FIELD_NAME_BYTES_MAX} fit")
    return plain


FIELD_NAMES: Final = _FieldNames()
"""`FIELD_NAMES[name]` is `check_field_name(name)`, remembered."""


def _normal(value: object, room: int) -> Value:
    """`value` in canonical form, nesting at most `room` deep."""
    return _NORMAL.get(type(value), _normal_other)(value, room)


def _normal_same(value: Value, _room: int) -> Value:
    return value


def _normal_str(value: str, _room: int) -> Value:
    if not value.isascii():
        check_text(value)
    return value


def check_text(value: str) -> None:
    """
    Make sure that `value` is Unicode text.

    Raises:
        Refusal: it holds half of a surrogate pair.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Refusal(
            f"a str with a lone surrogate ({value[error.start]!a} at {error.start}) is no Unicode"
            " text; write bytes, or replace it"
        ) from None


def _normal_int(value: int, _room: int) -> Value:
    if -EXACT_INT_MAX <= value <= EXACT_INT_MAX:
        return value
    if INT64_MIN <= value <= INT64_MAX:
        raise Refusal(
            f"{value} is beyond 2**53, where float64 skips integers; write Int64({value})"
        )
    raise Refusal(f"an integer of {value.bit_length()} bits fits no number type; write a str")


def canonical_float(value: float) -> int | float:
    """The canonical form of a float64."""
    if value.is_integer() and -EXACT_INT_MAX <= value <= EXACT_INT_MAX:
        number = int(value)
        if number or copysign(1.0, value) > 0:
            return number
    return value


def _normal_float(value: float, _room: int) -> Value:
    if value.is_integer() and (value or copysign(1.0, value) > 0):
        return int(value) if -EXACT_INT_MAX <= value <= EXACT_INT_MAX else value
    return value


def _normal_object(value: Mapping[str, object], room: int) -> Value:
    if room <= 0:
        check_room(room)
    if len(value) > OBJECT_FIELDS_MAX:
        raise Refusal(f"an object of {len(value)} fields, at most {OBJECT_FIELDS_MAX} fit")
    room -= 1
    normal: dict[str, Value] = {}
    name = item = None
    items = iter(value.items())
    while True:
        try:
            for name, item in items:
                normal[FIELD_NAMES[name]] = _NORMAL.get(type(item), _normal_other)(item, room)
        except Refusal as refusal:
            if item is not UNDEFINED:  # which is no field, and the others are still to come
                refusal.steps.append(name)
                raise
        else:
            return normal


def _normal_array(value: list[object] | tuple[object, ...], room: int) -> Value:
    check_room(room)
    if len(value) > ARRAY_ITEMS_MAX:
        raise Refusal(f"an array of {len(value)} items, at most {ARRAY_ITEMS_MAX} fit")
    if (ints := ints_in_vector(value)) is not None:
        with suppress(Refusal):  # as below
            return _normal_vector(value, ints)
    if _are_numbers(value):
        with suppress(Refusal):  # the loop below says which it was
            return _normal_numbers(value)
    room -= 1
    normal: list[Value] = []  # whose length says which item was refused
    try:
        for item in value:
            normal.append(_NORMAL.get(type(item), _normal_other)(item, room))  # noqa: PERF401
    except Refusal as refusal:
        refusal.steps.append(len(normal))
        raise
    return normal


def ints_in_vector(values: Sequence[Any]) -> list[int] | None:
    """
    Where the ints are in a vector, which is of floats but for a few of its numbers.

    Returns:
        `None` if it is something else.
    """
    if len(values) < _VECTOR_MIN or type(values[0]) not in _NUMBERS:
        return None
    types = list(map(type, values))
    count = len(types) - types.count(float)
    if count and (count > len(types) // _FEW_PART or types.count(int) != count):
        return None
    places: list[int] = []
    for _ in range(count):
        places.append(types.index(int, places[-1] + 1 if places else 0))
    return places


def _normal_vector(values: Sequence[Any], ints: Sequence[int]) -> Value:
    """What each of them becomes, most of them being what they are."""
    normal = list(values)
    for at in ints:
        normal[at] = 0.5  # which is not whole, for now
    for at in list(compress(range(len(normal)), map(float.is_integer, normal))):
        normal[at] = _normal_float(normal[at], 0)
    for at in ints:
        normal[at] = _normal_int(values[at], 0)
    return normal


def _are_numbers(values: Sequence[Any]) -> bool:
    """Whether this may be a vector: those are worth a way of their own, as each item takes time."""
    return (
        len(values) >= _VECTOR_MIN
        and type(values[0]) in _NUMBERS
        and _NUMBERS.issuperset(map(type, values))
    )


def _normal_numbers(values: Sequence[Any]) -> Value:
    """What each of them becomes, in two thirds of the time."""
    return [
        value if type(value) is float and not value.is_integer() else _NORMAL[type(value)](value, 0)
        for value in values
    ]


_NUMBERS: Final = frozenset({int, float})
_VECTOR_MIN: Final = 16
"""Items of an array that is looked at as a whole before it is item by item."""
_FEW_PART: Final = 8
"""Where no more than one in so many is an int, each of these is looked for."""


def check_room(room: int) -> None:
    """
    Make sure that one more array or object may open.

    Raises:
        Refusal: there are too many around it, or it contains itself.
    """
    if room <= 0:
        raise Refusal(
            f"nested too deep, or within itself; values nest at most {VALUE_NESTING_MAX} deep"
        )


_NORMAL: Final[dict[type, Callable[[Any, int], Value]]] = {
    type(None): _normal_same,
    bool: _normal_same,
    Int64: _normal_same,
    bytes: _normal_same,
    int: _normal_int,
    float: _normal_float,
    str: _normal_str,
    dict: _normal_object,
    list: _normal_array,
    tuple: _normal_array,
}


def _normal_other(value: object, room: int) -> Value:
    """What is accepted besides the exact builtin types."""
    match value:
        case Undefined():
            raise Refusal("UNDEFINED is the absence of a value; leave the item out, or write None")
        case enum.Enum():
            return _normal(value.value, room)
        case Mapping():
            return _normal_object(value, room)
        case list() | tuple():
            return _normal_array(value, room)
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case str():
            return _normal_str(str.__str__(value), room)
        case int() | float():
            return _normal_number(value, room)
    if type(value).__name__ == "ConvexInt64":  # of the official client, which is not imported
        return _normal_foreign_int64(value)
    raise Refusal(f"a {type(value).__name__} is not a value; {_advice(value)}")


def _normal_number(value: float, room: int) -> Value:
    """A number of a subclass of some number type."""
    if isinstance(value, Int64):
        return Int64(value)
    if isinstance(value, int):
        return _normal_int(int(value), room)
    return canonical_float(float(value))


def _normal_foreign_int64(value: object) -> Value:
    try:
        return Int64(cast(Any, value).value)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise Refusal(f"a ConvexInt64 without an integer of 64 bits: {error}") from None


def _advice(value: object) -> str:
    """What to write instead of `value`."""
    for base in type(value).__mro__:
        advice = _INSTEAD.get(f"{base.__module__}.{base.__qualname__}")
        if advice is not None:
            return f"write {advice}"
    if hasattr(value, "__dataclass_fields__"):
        return "write dataclasses.asdict(x)"
    if hasattr(value, "model_dump"):
        return "write x.model_dump()"
    if hasattr(value, "__await__"):
        return "await it first"
    if hasattr(value, "tolist"):
        return "write x.tolist()"
    if hasattr(value, "__iter__"):
        return "write list(x)"
    return "write None, bool, int, float, Int64, str, bytes, or a list or dict of them"


_INSTEAD: Final = {
    "builtins.set": "sorted(x), or a dict with the members as field names",
    "builtins.frozenset": "sorted(x), or a dict with the members as field names",
    "builtins.complex": "[x.real, x.imag]",
    "datetime.datetime": "x.timestamp() * 1000, milliseconds since 1970",
    "datetime.date": "x.isoformat()",
    "datetime.time": "x.isoformat()",
    "datetime.timedelta": "x.total_seconds() * 1000, milliseconds",
    "decimal.Decimal": "str(x), which keeps all digits, or float(x)",
    "fractions.Fraction": "[Int64(x.numerator), Int64(x.denominator)], or float(x)",
    "uuid.UUID": "str(x)",
    "pathlib.PurePath": "str(x)",
    "array.array": "x.tolist()",
    "msgspec.Struct": "msgspec.to_builtins(x)",
}


def copied(value: Value) -> Value:
    """A canonical value again, which shares no array and no object with the first."""
    kind = type(value)
    if kind is dict:
        return {
            name: copied(item) if type(item) in _CONTAINERS else item
            for name, item in value.items()
        }
    if kind is list:
        if _CONTAINERS.isdisjoint(map(type, value)):
            return value[:]
        return [copied(item) if type(item) in _CONTAINERS else item for item in value]
    return value


_CONTAINERS: Final = frozenset((dict, list))


# Sizes.


def measure(value: Value) -> tuple[int, int]:
    """
    Bytes and nesting depth of a canonical value, as every limit counts them.

    Null and booleans take 1 byte, numbers 9, strings (in UTF-8) and bytes
    their length + 2, arrays 2, objects 2 and each field its name + 1.  Scalars
    nest 0 deep, an array or object one deeper than the deepest thing in it.
    """
    kind = type(value)
    if kind is dict:
        # Field names are ASCII.
        size = 2 + len(value) + len("".join(value))
        items = value.values()
    elif kind is list:
        if _are_numbers(value):
            return 2 + 9 * len(value), 1
        size = 2
        items = value
    else:
        return _scalar_size(value), 0
    nesting = 0
    for item in items:
        kind = type(item)
        if kind is str:
            size += 2 + (len(item) if item.isascii() else len(item.encode()))
        elif kind in _FIXED_SIZES:
            size += _FIXED_SIZES[kind]
        else:
            inner_size, inner_nesting = measure(item)
            size += inner_size
            if inner_nesting > nesting:
                nesting = inner_nesting
    return size, nesting + 1


def size_of(value: Value) -> int:
    """Bytes of a canonical value, as every limit counts them; see `measure`."""
    return measure(value)[0]


def nesting_of(value: Value) -> int:
    """How deep arrays and objects nest in a canonical value; 0 for a scalar."""
    return measure(value)[1]


_FIXED_SIZES: Final[dict[type, int]] = {type(None): 1, bool: 1, int: 9, float: 9, Int64: 9}


def _scalar_size(value: Value) -> int:
    kind = type(value)
    if kind is str:
        return 2 + len(value.encode())
    if kind is bytes:
        return 2 + len(value)
    return _FIXED_SIZES[kind]


# Order and equality.


_RANKS: Final[dict[type, int]] = {
    Undefined: 0,
    type(None): 1,
    Int64: 2,
    int: 3,
    float: 3,
    bool: 4,
    str: 5,
    bytes: 6,
    list: 7,
    dict: 8,
}


def compare(a: Value, b: Value, /) -> int:
    """
    Order of two canonical values, or `UNDEFINED`: -1, 0 or 1.

    Kinds first: undefined, null, Int64, float64, boolean, string, bytes,
    array, object.  Then float64 by the total order of IEEE 754 (-NaN < -inf <
    -0.0 < 0 < inf < NaN), strings by code point, arrays item by item, objects
    as their fields in order of names.  It is the order of `keys.encode_key`.
    """
    rank = _RANKS[type(a)]
    other = _RANKS[type(b)]
    if rank != other:
        return -1 if rank < other else 1
    if rank <= 1:
        return 0
    if rank == 3:
        return _compare_numbers(a, b)
    if rank == 7:
        return _compare_arrays(a, b)
    if rank == 8:
        return _compare_arrays(_in_order(a), _in_order(b))
    return -1 if a < b else int(a > b)


def _compare_numbers(a: float, b: float) -> int:
    if a < b:
        return -1
    if a > b:
        return 1
    if a == b and a:
        return 0
    # Both are zero, or one is a NaN.
    left, right = _total_order(a), _total_order(b)
    return (left > right) - (left < right)


def _total_order(number: float) -> int:
    """An integer that orders float64 as IEEE 754's totalOrder does."""
    bits: int = struct.unpack(">q", struct.pack(">d", number))[0]
    return bits if bits >= 0 else ~(bits & INT64_MAX)


def _compare_arrays(a: list[Value], b: list[Value]) -> int:
    for left, right in zip(a, b, strict=False):
        order = compare(left, right)
        if order:
            return order
    return (len(a) > len(b)) - (len(a) < len(b))


def _in_order(fields: dict[str, Value]) -> list[Value]:
    """Names and values alternating, so that they compare as an array does."""
    return [part for name in sorted(fields) for part in (name, fields[name])]


def strictly_equal(a: Value, b: Value, /) -> bool:
    """
    Whether two canonical values are the same document content.

    Unlike `==`: True is not 1, Int64(1) is not 1, -0.0 is not 0, and a NaN is
    one of the same bits.  The order of fields does not matter.
    """
    if a is b:
        return True
    kind = type(a)
    if kind is not type(b):
        return _RANKS[kind] == _RANKS[type(b)] and _compare_numbers(a, b) == 0
    if kind is dict:
        return len(a) == len(b) and _has_same_fields(a, b)
    if kind is list:
        return len(a) == len(b) and all(map(strictly_equal, a, b))
    if kind is float:
        return _compare_numbers(a, b) == 0
    return bool(a == b)


def _has_same_fields(a: dict[str, Value], b: dict[str, Value]) -> bool:
    for name, value in a.items():
        if name not in b or not strictly_equal(value, b[name]):
            return False
    return True


def get_path(doc: Value, path: str) -> Value | Undefined:
    """What the dotted field path leads to through objects, or `UNDEFINED`."""
    for name in path.split("."):
        if type(doc) is not dict:
            return UNDEFINED
        doc = doc.get(name, UNDEFINED)
    return doc
