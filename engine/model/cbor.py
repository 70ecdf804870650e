"""
CBOR of what is written most, put together by hand: scalars, small objects, heads of bytes.

Byte for byte what the library writes, at half its cost, because there is nothing to look up:
every head is in a table.  What is not that simple is left to `codec`, which asks here first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from struct import Struct
from typing import Any, Final

from engine.model.values import Int64, ints_in_vector

INT64_TAG: Final = 40_064
"""Our tag for a 64-bit integer; the content is a CBOR integer.  Part of the format on disk."""

_SHORT: Final = 4_096
"""Lengths up to here have their heads in a table."""
_SMALL: Final = 1_024
"""Integers up to here stand in a table."""
_NESTING_MAX: Final = 2
_ITEMS_MAX: Final = 8
"""Of an array, or of an object within another: of more the library has the rest done sooner."""
_NAMES_MAX: Final = 65_536
_NAME_LENGTH_MAX: Final = 64

NULL: Final = b"\xf6"

_pack_2: Final = Struct(">BH").pack
_pack_4: Final = Struct(">BI").pack
_pack_8: Final = Struct(">BQ").pack
_pack_float: Final = Struct(">Bd").pack

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _OBJECT, _TAG = range(0, 0xE0, 0x20)
_FLOAT: Final = 0xFB
_FLOAT_BYTES: Final = 9


def _head(kind: int, number: int) -> bytes:
    """The head of an item: its kind, and a number of up to 64 bits in as few bytes as it fits."""
    if number < 24:
        return bytes((kind | number,))
    if number < 0x100:
        return bytes((kind | 24, number))
    if number < 0x1_0000:
        return _pack_2(kind | 25, number)
    return _pack_4(kind | 26, number) if number < 0x1_0000_0000 else _pack_8(kind | 27, number)


_BYTES_HEADS: Final = tuple(_head(_BYTES, length) for length in range(_SHORT))
_TEXT_HEADS: Final = tuple(_head(_TEXT, length) for length in range(_SHORT))
_OBJECT_HEADS: Final = tuple(_head(_OBJECT, count) for count in range(256))
_INT64_HEAD: Final = _head(_TAG, INT64_TAG)
_INTEGERS: Final = tuple(_head(_UNSIGNED, number) for number in range(_SMALL))


def bytes_head(length: int) -> bytes:
    """What comes before `length` bytes."""
    return _head(_BYTES, length)


def encode_name(name: str) -> bytes:
    """Of a text that comes again and again, as names of fields and of functions do."""
    return _NAMES[name]


def array_head(count: int) -> bytes:
    """What comes before the `count` items of an array."""
    return _head(_ARRAY, count)


def add_items(parts: list[bytes], items: Iterable[bytes | None]) -> None:
    """Add each item, bytes or null, with its head, to `parts` of something that is to be joined."""
    heads, short, add = _BYTES_HEADS, _SHORT, parts.append
    for item in items:
        if item is None:
            add(NULL)
        else:
            length = len(item)
            add(heads[length] if length < short else _head(_BYTES, length))
            add(item)


def encode_small(value: object) -> bytes | None:
    """
    CBOR of a canonical scalar, or of an object of scalars and of few arrays and objects of such,
    vectors included; `None` if `value` is something else.

    Raises:
        ValueError: a field's name is no text.
    """
    if type(value) is dict:
        return _encode_object(value, _NESTING_MAX) if len(value) < 256 else None
    encoder = _SCALARS.get(type(value))
    return None if encoder is None else encoder(value)


def _encode_object(value: dict[str, Any], room: int) -> bytes | None:
    """Of an object that holds others, `room` deep."""
    parts = [_OBJECT_HEADS[len(value)]]
    add = parts.append
    for name, item in value.items():
        kind = type(item)
        if kind is str:
            if not item.isascii() or len(item) >= _SHORT:
                return None
            add(_NAMES[name])
            add(_TEXT_HEADS[len(item)])
            add(item.encode())
            continue
        encoder = _SCALARS.get(kind)
        data = _encode_inner(item, room) if encoder is None else encoder(item)
        if data is None:
            return None
        add(_NAMES[name])
        add(data)
    return b"".join(parts)


def _encode_inner(value: object, room: int) -> bytes | None:
    if type(value) is dict and room and len(value) <= _ITEMS_MAX:
        return _encode_object(value, room - 1)
    if type(value) is not list or not room:
        return None
    if len(value) > _ITEMS_MAX:
        return _encode_vector(value)
    parts = [_head(_ARRAY, len(value))]
    for item in value:
        encoder = _SCALARS.get(type(item))
        data = _encode_inner(item, room - 1) if encoder is None else encoder(item)
        if data is None:
            return None
        parts.append(data)
    return b"".join(parts)


def _encode_vector(values: list[Any]) -> bytes | None:
    """Of floats and few ints, in a third of the time: all are packed at once, heads laid over."""
    ints = ints_in_vector(values)
    if ints is None:
        return None
    total = sum(values)
    if total - total != 0:
        return None  # one of them is not finite, or they are so large that one may be
    data = bytearray(_floats(len(values)).pack(*values))
    data[::_FLOAT_BYTES] = bytes((_FLOAT,)) * len(values)
    parts: list[bytes | bytearray] = [_head(_ARRAY, len(values))]
    done = 0
    for at in ints:
        number = _encode_integer(values[at])
        if number is None:
            return None
        parts += [data[done : at * _FLOAT_BYTES], number]
        done = (at + 1) * _FLOAT_BYTES
    return b"".join([*parts, data[done:]])


@lru_cache(maxsize=16)
def _floats(count: int) -> Struct:
    """So many floats, each with room for its head."""
    return Struct(">" + "xd" * count)


def _encode_text(value: str) -> bytes | None:
    if not value.isascii() or len(value) >= _SHORT:
        return None
    return _TEXT_HEADS[len(value)] + value.encode()


def _encode_bytes(value: bytes) -> bytes | None:
    return _BYTES_HEADS[len(value)] + value if len(value) < _SHORT else None


def _encode_integer(value: int) -> bytes | None:
    if 0 <= value < _SMALL:
        return _INTEGERS[value]
    if value >= 0:
        return _head(_UNSIGNED, value) if value < 1 << 64 else None
    return _head(_NEGATIVE, ~value) if value >= -(1 << 64) else None


def _encode_int64(value: Int64) -> bytes | None:
    data = _encode_integer(int(value))
    return None if data is None else _INT64_HEAD + data


def _encode_float(value: float) -> bytes | None:
    # Not the infinities and NaN, whose difference to themselves is not 0.
    return _pack_float(_FLOAT, value) if value - value == 0 else None


_SCALARS: Final[dict[type, Callable[[Any], bytes | None]]] = {
    str: _encode_text,
    bytes: _encode_bytes,
    int: _encode_integer,
    Int64: _encode_int64,
    float: _encode_float,
    bool: lambda value: b"\xf5" if value else b"\xf4",
    type(None): lambda _: NULL,
}


class _Names(dict[str, bytes]):
    """Names of fields, encoded once."""

    def __missing__(self, name: object) -> bytes:
        if type(name) is not str:
            raise ValueError("not the name of a field")
        data = name.encode()
        encoded = _head(_TEXT, len(data)) + data
        if len(name) <= _NAME_LENGTH_MAX:
            if len(self) >= _NAMES_MAX:
                self.clear()
            self[name] = encoded
        return encoded


_NAMES: Final = _Names()
