"""
Values and records as bytes, and back: the one door to CBOR.

Numbers are CBOR integers and floats, so that what is decoded is canonical as
it stands and no document has to be walked when it is read.  An `Int64` travels
under `INT64_TAG`.  Floats keep every bit, the sign of zero and the payload of a
NaN included.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import marshal
import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import cbor2

from engine.errors import InvalidValue, StoreDamaged
from engine.model.cbor import INT64_TAG, array_head, encode_small
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import Int64, Value

_DEPTH_MAX: Final = VALUE_NESTING_MAX + 16
"""Records wrap values in containers of their own."""

_CBOR_NAN: Final = b"\xf9\x7e\x00"
"""All that cbor2 leaves of a NaN, whatever its sign and payload."""


def encode(value: Value) -> bytes:
    """
    CBOR of a canonical value, or of lists, tuples and str-keyed dicts of such (a record).

    Tuples come back as lists.  A record may hold plain integers of 64 bits and
    nest 16 deeper than values may.

    Raises:
        InvalidValue: it holds something that `normalize` would have refused.
    """
    try:
        if (data := encode_small(value)) is not None:
            return data
        # The quickest way to learn that all of it is of exact builtin types: marshal refuses
        # subclasses.  cbor2 would write an Int64 as a plain integer, unless given encoders,
        # and those take longer for every item.
        marshal.dumps(value, 2)
    except ValueError:
        return _encode_carefully(value)
    try:
        data = cbor2.dumps(value)
    except (cbor2.CBOREncodeError, UnicodeError, RecursionError) as error:
        raise InvalidValue(f"cannot be encoded: {error}") from error
    if 0xF9 in data and _CBOR_NAN in data:
        return _encode_carefully(value)
    return data


def _encode_carefully(value: Value) -> bytes:
    if _is_too_deep(value):
        raise InvalidValue(f"cannot be encoded: nested more than {_DEPTH_MAX} deep")
    try:
        return cbor2.dumps(value, encoders=_ENCODERS)
    except (cbor2.CBOREncodeError, UnicodeError, RecursionError) as error:
        raise InvalidValue(f"cannot be encoded: {error}") from error


def _is_too_deep(value: Value) -> bool:
    """Whether `value` nests deeper than can be decoded; cbor2 would overrun the stack of C."""
    level = [value]
    for _ in range(_DEPTH_MAX + 1):
        containers = [item for item in level if isinstance(item, (dict, list, tuple))]
        level = []
        if not containers:
            return False
        for container in containers:
            level += container.values() if isinstance(container, dict) else container
    return True


def _encode_int64(encoder: cbor2.CBOREncoder, value: Int64) -> None:
    encoder.encode_semantic(INT64_TAG, int(value))


def _encode_float(encoder: cbor2.CBOREncoder, value: float) -> None:
    if value == value:
        encoder.encode_float(value)
    else:
        encoder.write(b"\xfb" + struct.pack(">d", value))


def _refuse(_encoder: cbor2.CBOREncoder, value: object) -> NoReturn:
    raise InvalidValue(f"a {type(value).__name__} is no value and cannot be encoded")


_ENCODERS: Final[Mapping[type, Callable[[cbor2.CBOREncoder, Any], Any]]] = {
    Int64: _encode_int64,
    float: _encode_float,
    **dict.fromkeys(
        (
            datetime.datetime,
            datetime.date,
            decimal.Decimal,
            fractions.Fraction,
            uuid.UUID,
            set,
            frozenset,
            complex,
        ),
        _refuse,
    ),
}


def decode(data: bytes | memoryview) -> Value:
    """
    The value that `encode` made `data` of.

    Other bytes either raise or give something built of builtin types that need
    not be canonical, and what follows the first item is not looked at: whoever
    cannot trust where bytes come from keeps a checksum and a length beside them.

    Raises:
        StoreDamaged: `data` is nothing that `encode` writes.
    """
    try:
        return cbor2.loads(
            data,
            semantic_decoders=_DECODERS,
            tag_hook=_refuse_tag,
            max_depth=_DEPTH_MAX,
            strict_hashable_types=True,
        )
    except (cbor2.CBORDecodeError, OverflowError, MemoryError, RecursionError) as error:
        raise StoreDamaged(f"{len(data)} bytes are no value: {error}") from error


def decode_all(images: Sequence[bytes]) -> list[Value]:
    """
    What `decode` gives of each, in four fifths of the time: to begin takes longer than a field.

    Each has to be what `encode` made, or the next ones may be misread as well.

    Raises:
        StoreDamaged: one of them is nothing that `encode` writes.
    """
    if len(images) == 1:
        return [decode(images[0])]
    return decode(array_head(len(images)) + b"".join(images))  # type: ignore[no-any-return]  # it is an array


def _decode_int64(content: object, _immutable: bool) -> Int64:
    if type(content) is not int:
        raise StoreDamaged(f"a {type(content).__name__} under the tag of Int64")
    return Int64(content)


def _refuse_tag(tag: object, _immutable: bool) -> NoReturn:
    raise StoreDamaged(f"an unknown tag: {tag!r}")


def _refuse_known_tag(_content: object, _immutable: bool) -> NoReturn:
    raise StoreDamaged("a tag that values do not use")


# fmt: off
_FOREIGN_TAGS: Final = (
    0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100,
    256, 258, 260, 261, 1004, 43_000, 55_799,
)
# fmt: on
"""What cbor2 would turn into dates, decimals, sets, shared references and the like."""

_DECODERS: Final[Mapping[int, Callable[[Any, bool], Any]]] = {
    **dict.fromkeys(_FOREIGN_TAGS, _refuse_known_tag),
    INT64_TAG: _decode_int64,
}
