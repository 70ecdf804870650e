"""
Values as JSON and back, in the spellings that clients know.

`to_wire` and `from_wire` are the encoding that every client speaks and that
loses nothing ("convex_encoded_json"); `to_clean` is for people and `curl`
("json"), `to_export` for files of exported documents.  What is returned is
built of what any JSON library takes; every float64 is a Python float there, so
that it is spelled with a fraction, which one of the clients insists on.
"""

from __future__ import annotations

import binascii
import math
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from engine.errors import InvalidValue
from engine.model.limits import ARRAY_ITEMS_MAX, OBJECT_FIELDS_MAX, VALUE_NESTING_MAX
from engine.model.values import (
    FIELD_NAMES,
    INT64_MAX,
    Int64,
    Refusal,
    Value,
    canonical_float,
    check_room,
    check_text,
)

Json: TypeAlias = Any
"""None | bool | int | float | str | list[Json] | dict[str, Json]."""

_pack_float: Final = struct.Struct("<d").pack
_unpack_float: Final = struct.Struct("<d").unpack

_Spellings: TypeAlias = Mapping[type, Callable[[Any], Json]]


def to_wire(value: Value) -> Json:
    """A canonical value in the lossless encoding of the wire; fields keep their order."""
    return _spelled(value, _WIRE)


def to_clean(value: Value) -> Json:
    """
    A canonical value in plain JSON, which loses types.

    Int64 becomes a string of digits, bytes base64, and what JSON has no number
    for "NaN", "Infinity" or "-Infinity".
    """
    return _spelled(value, _CLEAN)


def to_export(value: Value) -> Json:
    """A canonical value as in `to_wire`, but Int64 is a JSON integer and -0.0 a number."""
    return _spelled(value, _EXPORT)


def _spelled(value: Value, spellings: _Spellings) -> Json:
    kind = type(value)
    if kind is dict:
        fields = {}
        for name, item in value.items():
            kind = type(item)
            if kind is str:
                fields[name] = item
            elif kind in spellings:
                fields[name] = spellings[kind](item)
            else:
                fields[name] = _spelled(item, spellings)
        return fields
    if kind is list:
        return [_spelled(item, spellings) for item in value]
    return spellings[kind](value)


def _same(value: Value) -> Json:
    return value


def _wire_float(number: float) -> Json:
    # Zero is canonical as an int; a float that is zero is -0.0.
    if number and math.isfinite(number):
        return number
    return _special_float(number)


def _special_float(number: float) -> Json:
    return {"$float": b64encode(_pack_float(number)).decode()}


def _clean_float(number: float) -> Json:
    if math.isfinite(number):
        return number
    if math.isnan(number):
        return "NaN"
    return "Infinity" if number > 0 else "-Infinity"


def _export_float(number: float) -> Json:
    return number if math.isfinite(number) else _special_float(number)


def _wire_int64(number: Int64) -> Json:
    return {"$integer": b64encode(number.to_bytes(8, "little", signed=True)).decode()}


def _wire_bytes(data: bytes) -> Json:
    return {"$bytes": b64encode(data).decode()}


def _clean_bytes(data: bytes) -> Json:
    return b64encode(data).decode()


_WIRE: Final[_Spellings] = {
    type(None): _same,
    bool: _same,
    str: _same,
    int: float,
    float: _wire_float,
    Int64: _wire_int64,
    bytes: _wire_bytes,
}
_CLEAN: Final[_Spellings] = {**_WIRE, float: _clean_float, Int64: str, bytes: _clean_bytes}
_EXPORT: Final[_Spellings] = {**_WIRE, float: _export_float, Int64: int}


# From a client.


def from_wire(json: Json, *, path: str = "", nesting_max: int = VALUE_NESTING_MAX) -> Value:
    """
    The canonical value that a client spelled as `json`, which a JSON library has parsed.

    Every JSON number is a float64, rounded if need be.  The total size is not
    looked at: see `values.size_of`.

    Args:
        json: what the JSON library made of the text.
        path: how an error calls it, as in ``args``.
        nesting_max: how deep arrays and objects may nest in it.

    Raises:
        InvalidValue: it spells no value; says where and why.
    """
    try:
        return _read(json, nesting_max)
    except Refusal as refusal:
        raise InvalidValue(refusal.told(path)) from None


def read_scalar(json: Json) -> Value:
    """
    The canonical value of what is no array and no object, whoever has read those around it.

    Raises:
        Refusal: it is none.
    """
    return _READERS.get(type(json), _read_foreign)(json, 0)


def read_object(fields: dict[str, Value]) -> Value:
    """
    The canonical value of an object whose fields are canonical values already.

    Raises:
        Refusal: it is none.
    """
    if len(fields) == 1:
        [(name, payload)] = fields.items()
        if name in _SPECIAL:
            return _SPECIAL[name](payload)
    name = ""
    try:
        for name in fields:
            FIELD_NAMES[name]
    except Refusal as refusal:
        refusal.steps.append(name)
        raise
    return fields


def _read(json: Json, room: int) -> Value:
    return _READERS.get(type(json), _read_foreign)(json, room)


def _read_foreign(json: object, _room: int) -> Value:
    raise Refusal(f"a {type(json).__name__} is nothing that JSON has")


def _read_same(json: Json, _room: int) -> Value:
    return json


def _read_str(text: str, _room: int) -> Value:
    if not text.isascii():
        check_text(text)
    return text


def _read_int(number: int, _room: int) -> Value:
    try:
        return canonical_float(float(number))
    except OverflowError:
        raise Refusal("a number too large for a float64") from None


def _read_float(number: float, _room: int) -> Value:
    if not math.isfinite(number):
        raise Refusal(f'{number} is no JSON number; write {{"$float": ...}}')
    return canonical_float(number)


def _read_array(items: list[Json], room: int) -> Value:
    check_room(room)
    if len(items) > ARRAY_ITEMS_MAX:
        raise Refusal(f"an array of {len(items)} items, at most {ARRAY_ITEMS_MAX} fit")
    room -= 1
    values: list[Value] = []  # whose length says which item was refused
    try:
        for item in items:
            values.append(_read(item, room))  # noqa: PERF401
    except Refusal as refusal:
        refusal.steps.append(len(values))
        raise
    return values


def _read_object(fields: dict[str, Json], room: int) -> Value:
    if len(fields) == 1:
        [(name, payload)] = fields.items()
        if name in _SPECIAL:
            return _SPECIAL[name](payload)
    check_room(room)
    if len(fields) > OBJECT_FIELDS_MAX:
        raise Refusal(f"an object of {len(fields)} fields, at most {OBJECT_FIELDS_MAX} fit")
    room -= 1
    values: dict[str, Value] = {}
    name = ""
    try:
        for name, item in fields.items():
            values[FIELD_NAMES[name]] = _READERS.get(type(item), _read_foreign)(item, room)
    except Refusal as refusal:
        refusal.steps.append(name)
        raise
    return values


_READERS: Final[dict[type, Callable[[Any, int], Value]]] = {
    type(None): _read_same,
    bool: _read_same,
    str: _read_str,
    int: _read_int,
    float: _read_float,
    list: _read_array,
    dict: _read_object,
}


def _read_integer(payload: Json) -> Value:
    return Int64(int.from_bytes(_eight_bytes("$integer", payload), "little", signed=True))


def _read_special_float(payload: Json) -> Value:
    number: float = _unpack_float(_eight_bytes("$float", payload))[0]
    if math.isfinite(number) and number != 0:
        raise Refusal(f'"$float" of {number}, which is an ordinary JSON number')
    return canonical_float(number)


def _read_bytes(payload: Json) -> Value:
    return _base64("$bytes", payload)


def _read_retired(_payload: Json) -> Value:
    raise Refusal("sets and maps are no values any more; write an array or object")


def _read_commit_ts(_payload: Json) -> Value:
    raise Refusal("the commit timestamp cannot be sent by a client")


_SPECIAL: Final[Mapping[str, Callable[[Json], Value]]] = {
    "$integer": _read_integer,
    "$float": _read_special_float,
    "$bytes": _read_bytes,
    "$set": _read_retired,
    "$map": _read_retired,
    "$commitTs": _read_commit_ts,
}


def _eight_bytes(what: str, payload: Json) -> bytes:
    data = _base64(what, payload)
    if len(data) != 8:
        raise Refusal(f"{what} of {len(data)} bytes instead of 8")
    return data


def _base64(what: str, payload: Json) -> bytes:
    """Standard base64 with padding, in its one spelling."""
    if not isinstance(payload, str):
        raise Refusal(f"{what} is a string of base64, not a {type(payload).__name__}")
    try:
        data = binascii.a2b_base64(payload)
    except ValueError as error:
        raise Refusal(f"{what} is not base64: {error}") from None
    # The decoder passes over letters of no meaning and bits of no use; there is one spelling.
    if b64encode(data).decode() != payload:
        raise Refusal(f"{what} is not base64 as it is usually written")
    return data


# Timestamps.


@lru_cache(maxsize=64)  # a commit's is told to everybody who shows what it touched
def encode_ts(ts: int) -> str:
    """A timestamp, in nanoseconds, as the sync protocol spells it."""
    return b64encode(ts.to_bytes(8, "little")).decode()


def decode_ts(text: Json) -> int:
    """
    The timestamp, in nanoseconds, that a client sent.

    Raises:
        InvalidValue: it is no base64 of 8 bytes, or beyond 2**63 - 1.
    """
    try:
        ts = int.from_bytes(_eight_bytes("a timestamp", text), "little")
    except Refusal as refusal:
        raise InvalidValue(refusal.why) from None
    if ts > INT64_MAX:
        raise InvalidValue(f"a timestamp of {ts} is beyond 2**63 - 1")
    return ts
