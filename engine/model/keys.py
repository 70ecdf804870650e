"""
Index keys: bytes whose order is the order of the values they encode.

`encode_key(values)` sorts, as bytes, exactly as the values sort one after the
other by `values.compare`; `decode_key` takes a key apart again.  Every encoded
value ends by itself, and the byte after a value is never 0xFF.  So, for
`p = encode_key(v)`, the keys whose first values are `v` are those in
`[p, past(p))`: not those in `[p, increment(p))`, which also has the strings
that continue with a NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from engine.errors import InvalidValue
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import (
    UNDEFINED,
    Int64,
    Refusal,
    Undefined,
    Value,
    canonical_float,
    check_field_name,
)

# Tags, in order of the kinds.  0x02, 0x13 and 0x14 stay reserved.
_UNDEFINED: Final = 0x01
_NULL: Final = 0x03
_INT64_ZERO: Final = 0x08
_NEGATIVE_INT64: Final = {8: b"\x04", 4: b"\x05", 2: b"\x06", 1: b"\x07"}
_POSITIVE_INT64: Final = {1: b"\x09", 2: b"\x0a", 4: b"\x0b", 8: b"\x0c"}
_INT64_WIDTHS: Final = {
    tag[0]: width for tags in (_NEGATIVE_INT64, _POSITIVE_INT64) for width, tag in tags.items()
}
_FLOAT64: Final = 0x0D
_FALSE: Final = 0x0E
_TRUE: Final = 0x0F
_STRING: Final = 0x10
_BYTES: Final = 0x11
_ARRAY: Final = 0x12
_OBJECT: Final = 0x15

_END: Final = b"\x00"
_ESCAPED_NUL: Final = b"\x00\xff"

_pack_float: Final = struct.Struct(">Bd").pack
_unpack_float: Final = struct.Struct(">d").unpack
_INVERTED: Final = bytes(range(255, -1, -1))
_FLOAT64_INVERTED: Final = 0xFF - _FLOAT64
NUMBER_KEY_BYTES: Final = 9
"""Of the key of a float or an integer in its place, whatever its value."""
_FLOAT64_ZERO: Final = bytes([_FLOAT64, 0x80, 0, 0, 0, 0, 0, 0, 0])


def encode_key(values: Sequence[Value | Undefined]) -> bytes:
    """The key of `values`, canonical or `UNDEFINED`, one after the other."""
    return b"".join([_ENCODERS[type(value)](value) for value in values])


def encode_value_key(value: Value | Undefined) -> bytes:
    """The key of one canonical value or `UNDEFINED`."""
    return _ENCODERS[type(value)](value)


def past(key: bytes) -> bytes:
    """
    The bound just after all keys that begin with the values that `key` encodes.

    Holds as long as another value, or nothing, follows those values in the keys.  Where other
    bytes follow, which may begin with 0xFF, the value before them has to be of a fixed width, as
    numbers are, and the bound is `increment(key)`.
    """
    return key + b"\xff"


def increment(prefix: bytes) -> bytes | None:
    """The bound just after all byte strings that begin with `prefix`; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    if not kept:
        return None
    return kept[:-1] + bytes([kept[-1] + 1])


def _encode_number(number: float) -> bytes:
    # A float64 sorts as an unsigned integer once its sign bit is set, if it was positive, or
    # all its bits are inverted.  The negative of a positive number is it with the sign bit set.
    if number > 0:
        return _pack_float(_FLOAT64, -number)
    if number < 0:
        return _pack_float(_FLOAT64_INVERTED, number).translate(_INVERTED)
    return _encode_unordered(number)


def _encode_unordered(number: float) -> bytes:
    """Zeros and NaNs, of either sign."""
    if type(number) is int:
        return _FLOAT64_ZERO
    packed = _pack_float(_FLOAT64, number)
    if packed[1] & 0x80:
        return packed[:1] + packed[1:].translate(_INVERTED)
    return bytes([_FLOAT64, packed[1] | 0x80]) + packed[2:]


def _encode_int64(number: Int64) -> bytes:
    if not number:
        return b"\x08"
    bits = int(number).bit_length() if number > 0 else (-1 - int(number)).bit_length()
    width = 1 if bits < 8 else 2 if bits < 16 else 4 if bits < 32 else 8
    tag = _POSITIVE_INT64[width] if number > 0 else _NEGATIVE_INT64[width]
    return tag + number.to_bytes(width, "big", signed=True)


def _encode_string(text: str) -> bytes:
    if "\0" in text:
        return b"\x10" + text.encode().replace(_END, _ESCAPED_NUL) + _END
    return b"\x10" + text.encode() + _END


def _encode_bytes(data: bytes) -> bytes:
    return b"\x11" + data.replace(_END, _ESCAPED_NUL) + _END


def _encode_array(items: list[Value]) -> bytes:
    return b"\x12" + encode_key(items) + _END


def _encode_object(fields: dict[str, Value]) -> bytes:
    parts = [b"\x15"]
    for name in sorted(fields):
        # The empty name must not look like the end of the object.
        parts.append(name.encode() + _END if name else _ESCAPED_NUL)
        parts.append(encode_value_key(fields[name]))
    parts.append(_END)
    return b"".join(parts)


_ENCODERS: Final[dict[type, Callable[[Any], bytes]]] = {
    Undefined: lambda _: b"\x01",
    type(None): lambda _: b"\x03",
    Int64: _encode_int64,
    int: _encode_number,
    float: _encode_number,
    bool: lambda truth: b"\x0f" if truth else b"\x0e",
    str: _encode_string,
    bytes: _encode_bytes,
    list: _encode_array,
    dict: _encode_object,
}


# The way back.


def decode_key(key: bytes) -> list[Value | Undefined]:
    """
    The values that `key` encodes.

    Raises:
        InvalidValue: `encode_key` makes no such key.
    """
    values: list[Value | Undefined] = []
    at = 0
    try:
        while at < len(key):
            value, at = _decode_at(key, at, VALUE_NESTING_MAX)
            values.append(value)
    except (Refusal, IndexError, ValueError) as error:
        raise InvalidValue(f"no index key at byte {at}: {error}") from None
    # Whatever spelling is not the canonical one comes out differently.
    if encode_key(values) != key:
        raise InvalidValue("no index key: it is not spelled as index keys are")
    return values


def end_of_values(key: bytes, count: int) -> int | None:
    """Where the first `count` values of `key` end; None if it does not hold that many."""
    at = 0
    try:
        for _ in range(count):
            _, at = _decode_at(key, at, VALUE_NESTING_MAX)
    except (Refusal, IndexError, ValueError):
        return None
    return at


def _decode_at(key: bytes, at: int, room: int) -> tuple[Value | Undefined, int]:
    """The value at `at`, and where the next one begins."""
    tag = key[at]
    at += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], at
    if tag == _FLOAT64:
        return _decode_number(key[at : at + 8]), at + 8
    if tag == _STRING:
        raw, at = _decode_escaped(key, at)
        return raw.decode(), at
    if tag == _BYTES:
        return _decode_escaped(key, at)
    if tag in _INT64_WIDTHS:
        width = _INT64_WIDTHS[tag]
        raw = key[at : at + width]
        if len(raw) < width:
            raise Refusal("it ends within an integer")
        return Int64(int.from_bytes(raw, "big", signed=True)), at + width
    if room <= 0:
        raise Refusal("its values are nested too deep")
    if tag == _ARRAY:
        return _decode_array(key, at, room - 1)
    if tag == _OBJECT:
        return _decode_object(key, at, room - 1)
    raise Refusal(f"no value has the tag {tag:#04x}")


_CONSTANTS: Final[dict[int, Value | Undefined]] = {
    _UNDEFINED: UNDEFINED,
    _NULL: None,
    _INT64_ZERO: Int64(0),
    _FALSE: False,
    _TRUE: True,
}


def _decode_number(raw: bytes) -> int | float:
    if len(raw) < 8:
        raise Refusal("it ends within a number")
    positive = raw[0] & 0x80
    raw = bytes([raw[0] & 0x7F]) + raw[1:] if positive else raw.translate(_INVERTED)
    number: float = _unpack_float(raw)[0]
    return canonical_float(number)


def _decode_escaped(key: bytes, at: int) -> tuple[bytes, int]:
    start = at
    while True:
        end = key.index(_END, at)
        if key[end + 1 : end + 2] != b"\xff":
            return key[start:end].replace(_ESCAPED_NUL, _END), end + 1
        at = end + 2


def _decode_array(key: bytes, at: int, room: int) -> tuple[Value, int]:
    items = []
    while key[at]:
        item, at = _decode_at(key, at, room)
        if item is UNDEFINED:
            raise Refusal("an array holds UNDEFINED")
        items.append(item)
    return items, at + 1


def _decode_object(key: bytes, at: int, room: int) -> tuple[Value, int]:
    fields = {}
    while key[at] or key[at : at + 2] == _ESCAPED_NUL:
        if key[at]:
            end = key.index(_END, at)
            name = check_field_name(key[at:end].decode())
            at = end + 1
        else:
            name = ""
            at += 2
        fields[name], at = _decode_at(key, at, room)
        if fields[name] is UNDEFINED:
            raise Refusal("an object holds UNDEFINED")
    return fields, at + 1
