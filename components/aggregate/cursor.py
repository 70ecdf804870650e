"""
Cursors: a key and an id as text, so that they travel like any other cursor.

JSON says most of a key; what it has no words for is an object of one field.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from math import isfinite
from typing import Any

from engine import Int64, Value


def write_cursor(key: Value, id: str) -> str:  # noqa: A002 - an id is called `id`
    """The cursor of the item with this key and id."""
    return json.dumps([_plain(key), id], separators=(",", ":"))


def read_cursor(cursor: str) -> tuple[Value, str]:
    """
    Key and id of the item that a cursor is of.

    Raises:
        ValueError: it is no cursor.
    """
    try:
        key, item_id = json.loads(cursor)
        return _value(key), str(item_id)
    except (ValueError, TypeError, KeyError, struct.error, OverflowError, RecursionError):
        raise ValueError(f"{cursor[:80]!r} is not a cursor of an aggregate") from None


def _plain(value: Value) -> Any:
    kind = type(value)
    if kind is list:
        return [_plain(item) for item in value]
    if kind is dict:
        return {"object": [[name, _plain(item)] for name, item in value.items()]}
    if kind is bytes:
        return {"bytes": b64encode(value).decode()}
    if kind is Int64:
        return {"integer": str(value)}
    if kind is float and not (isfinite(value) and value):
        return {"float": struct.pack(">d", value).hex()}
    return value


def _value(plain: Any) -> Value:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    (kind, told), *others = plain.items()
    if others:
        raise ValueError(kind)
    if kind == "object":
        return {name: _value(item) for name, item in told}
    if kind == "bytes":
        return b64decode(told, validate=True)
    if kind == "integer":
        return Int64(told)
    if kind == "float":
        number: float = struct.unpack(">d", bytes.fromhex(told))[0]
        return number
    raise ValueError(kind)
