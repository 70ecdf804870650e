"""
JSON Schema (2020-12) of what validators accept, for programs that are no clients of ours.

`taken` is of arguments, as requests spell them; `given` is of results in the format
"json".  A schema says less than the validator: not how many items and fields a value
may have, not that an id is of this table, and of bounds only the words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Final

from engine.app.bounds import Bounded
from engine.app.validators import (
    AnyValue,
    Array,
    BigInt,
    Boolean,
    Bytes,
    IdOf,
    Integral,
    Literal,
    Null,
    Number,
    Object,
    Optional,
    Record,
    String,
    Union,
    Validator,
)
from engine.model.json_values import Json, to_clean, to_wire
from engine.model.limits import FIELD_NAME_BYTES_MAX
from engine.model.values import EXACT_INT_MAX, Value

_ID: Final = {"type": "string", "pattern": "^[0-9a-hjkmnp-tv-z]{31,37}$"}
FIELD_NAME: Final = {"pattern": "^([ -#%-~][ -~]*)?$", "maxLength": FIELD_NAME_BYTES_MAX}
_BASE64: Final = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"
"""In its one spelling: bits of no use are 0."""
_EIGHT_BYTES: Final = "[A-Za-z0-9+/]{10}[AEIMQUYcgkosw048]="


def taken(validator: Validator) -> Json:
    """Of an argument, in the encoding that requests are read in."""
    return _schema(validator, _TAKEN)


def given(validator: Validator) -> Json:
    """Of a result in the format "json"."""
    return _schema(validator, _GIVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Direction:
    any: Json
    number: Json
    int64: Json
    bytes: Json
    spell: Callable[[Value], Json]


def _wrapped(name: str, pattern: str, description: str) -> Json:
    """Of a value that requests spell as an object with one field."""
    payload = {"type": "string", "pattern": f"^{pattern}$", "description": description}
    return {
        "type": "object",
        "properties": {name: payload},
        "required": [name],
        "additionalProperties": False,
    }


_TAKEN: Final = _Direction(
    any={"$ref": "#/components/schemas/Value"},
    number={"anyOf": [{"type": "number"}, {"$ref": "#/components/schemas/SpecialNumber"}]},
    int64=_wrapped("$integer", _EIGHT_BYTES, "base64 of 8 bytes, little endian"),
    bytes=_wrapped("$bytes", _BASE64, "base64"),
    spell=to_wire,
)
_GIVEN: Final = _Direction(
    any={},
    number={"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]},
    int64={"type": "string", "pattern": "^-?[0-9]{1,19}$", "description": "a 64-bit integer"},
    bytes={"type": "string", "contentEncoding": "base64"},
    spell=to_clean,
)

VALUE: Final = {
    "description": "any value; what JSON has no word for is an object with one field",
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        {"type": "array", "items": _TAKEN.any},
        {
            "type": "object",
            "propertyNames": FIELD_NAME,
            "additionalProperties": _TAKEN.any,
        },
        _TAKEN.int64,
        _TAKEN.bytes,
        {"$ref": "#/components/schemas/SpecialNumber"},
    ],
}
"""What `taken` refers to as ``#/components/schemas/Value``."""
SPECIAL_NUMBER: Final = {
    "description": "NaN, Infinity, -Infinity and -0, in this order",
    "enum": [to_wire(number) for number in (nan, inf, -inf, -0.0)],
}
"""What it refers to as ``#/components/schemas/SpecialNumber``."""


def _schema(validator: Validator, way: _Direction) -> Json:  # noqa: C901 - a table
    match validator:
        case AnyValue():
            return way.any
        case Null():
            return {"type": "null"}
        case Boolean():
            return {"type": "boolean"}
        case Integral():
            return {"type": "integer", "minimum": -EXACT_INT_MAX, "maximum": EXACT_INT_MAX}
        case Number():
            return way.number
        case BigInt():
            return way.int64
        case Bytes():
            return way.bytes
        case String():
            return {"type": "string"}
        case IdOf():
            return _id(validator)
        case Literal():
            return {"const": way.spell(validator.value)}
        case Optional():
            return _schema(validator.inner, way)
        case Bounded():
            return _bounded(validator, way)
        case Array():
            return {"type": "array", "items": _schema(validator.element, way)}
        case Record():
            return _record(validator, way)
        case Object():
            return _object(validator, way)
        case Union():
            return _union(validator, way)
    raise AssertionError(f"{validator!r} is of no kind that is known")


def _id(validator: IdOf) -> Json:
    table = validator.to_json().get("tableName")
    if table is None:  # of documents that are in no schema
        return {"type": "string"}
    return {**_ID, "description": f"the id of a document of {table}"}


def _bounded(validator: Bounded, way: _Direction) -> Json:
    bounds = " and ".join(bound.text for bound in validator.bounds)
    inner = _schema(validator.inner, way)
    if isinstance(validator.inner, Number) and not isinstance(validator.inner, Integral):
        inner = {"type": "number"}  # what has bounds is mostly none of the special ones
    return {**inner, "description": f"has to be {bounds}"}


def _record(validator: Record, way: _Direction) -> Json:
    keys = _schema(validator.keys, way)
    return {
        "type": "object",
        "propertyNames": FIELD_NAME if keys == {"type": "string"} else {**FIELD_NAME, **keys},
        "additionalProperties": _schema(validator.values, way),
    }


def _object(validator: Object, way: _Direction) -> Json:
    fields: Mapping[str, Validator] = validator.fields
    unchecked = dict.fromkeys(sorted(validator.system), True)
    return {
        "type": "object",
        "properties": {**unchecked, **{name: _schema(one, way) for name, one in fields.items()}},
        "required": [name for name, one in fields.items() if not one.is_optional],
        "additionalProperties": False,
    }


def _union(validator: Union, way: _Direction) -> Json:
    members = [_schema(member, way) for member in validator.members]
    return {"anyOf": members} if members else {"not": {}}
