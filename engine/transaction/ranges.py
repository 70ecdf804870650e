"""
Index ranges: from `eq`, `gt`, `gte`, `lt`, `lte` to an interval of entry keys.

The equalities, in the order of the index's fields, followed by the one field
with bounds, must be a prefix of [fields..., `_creationTime`, `_id`].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from engine.errors import InvalidId, InvalidRange
from engine.indexes.catalog import IndexInfo
from engine.model.ids import decode_id, encode_id
from engine.model.keys import encode_key, encode_value_key, increment, past
from engine.model.text import brief
from engine.model.values import UNDEFINED, normalize

_PAST_EVERY_ID: Final = b"\xff" * 17


@dataclass(slots=True)
class Bounds:
    """What a range expression asks for, before it is held against an index."""

    equal: dict[str, Any] = field(default_factory=dict)
    lower: tuple[str, Any, bool] | None = None
    """Field, value, and whether the value itself is in."""
    upper: tuple[str, Any, bool] | None = None

    @property
    def fields(self) -> list[str]:
        """What an index that it fits is on: the equal ones as given, then the one with bounds."""
        named = dict.fromkeys([*self.equal, *(b[0] for b in (self.lower, self.upper) if b)])
        return [name for name in named if name not in ("_creationTime", "_id")]

    @property
    def text(self) -> str:
        """As people write it: `channel = "x", 5 < n <= 9`; empty for all of an index."""
        parts = [f"{name} = {shown(value)}" for name, value in self.equal.items()]
        bounded = self.lower or self.upper
        if bounded is not None:
            low = f"{shown(self.lower[1])} {_less(self.lower[2])} " if self.lower else ""
            high = f" {_less(self.upper[2])} {shown(self.upper[1])}" if self.upper else ""
            parts.append(f"{low}{bounded[0]}{high}")
        return ", ".join(parts)

    @property
    def spelled(self) -> list[Any]:
        """As something that can be encoded, and is the same for the same bounds."""
        equal = [[name, encode_value_key(self.equal[name])] for name in sorted(self.equal)]
        sides = [b and [b[0], encode_value_key(b[1]), b[2]] for b in (self.lower, self.upper)]
        return [equal, *sides]

    def add_equal(self, name: str, value: Any) -> None:
        if name in self.equal:
            raise InvalidRange(f"eq({name!r}, ...) is given twice; one value at a time")
        self.equal[name] = _canonical(value)
        self._check_bounds()

    def add_lower(self, name: str, value: Any, *, inclusive: bool) -> None:
        if self.lower is not None:
            raise InvalidRange(
                f"a lower bound is set already, on {self.lower[0]!r}; a range has one gt or gte"
            )
        self.lower = (name, _canonical(value), inclusive)
        self._check_bounds()

    def add_upper(self, name: str, value: Any, *, inclusive: bool) -> None:
        if self.upper is not None:
            raise InvalidRange(
                f"an upper bound is set already, on {self.upper[0]!r}; a range has one lt or lte"
            )
        self.upper = (name, _canonical(value), inclusive)
        self._check_bounds()

    def _check_bounds(self) -> None:
        if self.lower and self.upper and self.lower[0] != self.upper[0]:
            raise InvalidRange(
                f"bounds are on two fields, {self.lower[0]!r} and {self.upper[0]!r}; only one "
                "field of a range may have them: compare the others with eq, or in a filter"
            )
        bounded = self.lower or self.upper
        if bounded and bounded[0] in self.equal:
            raise InvalidRange(f"{bounded[0]!r} has both an eq and a bound; leave one of them out")


EVERYTHING: Final = Bounds()
"""Asks for nothing in particular; not to be added to."""


def _less(inclusive: bool) -> str:
    return "<=" if inclusive else "<"


def shown(value: Any) -> str:
    return brief(repr(value))


def _canonical(value: Any) -> Any:
    return UNDEFINED if value is UNDEFINED else normalize(value)


def interval_of(index: IndexInfo, bounds: Bounds) -> tuple[bytes, bytes | None]:
    """
    The interval of entry keys of `index` that `bounds` describe.

    Raises:
        InvalidRange: the bounded fields are no prefix of the index.
    """
    fields = index.field_names if index.name == "by_id" else [*index.field_names, "_id"]
    used = _equality_prefix(index, fields, bounds)
    if used and fields[used - 1] == "_id":
        exact = _prefix(fields[: used - 1], bounds)
        inside, is_exact = _id_position(index, bounds.equal["_id"])
        key = exact + inside
        return key, key + b"\0" if is_exact else key
    prefix = _prefix(fields[:used], bounds)
    bounded = bounds.lower or bounds.upper
    if bounded is None:
        return prefix, _end_of(index, used, prefix)
    _check_next(index, fields, used, bounded[0])
    if bounded[0] == "_id":
        return _id_interval(index, prefix, bounds)
    return _value_interval(index, used, prefix, bounds)


def _equality_prefix(index: IndexInfo, fields: Sequence[str], bounds: Bounds) -> int:
    used = 0
    while used < len(fields) and fields[used] in bounds.equal:
        used += 1
    if used < len(bounds.equal):
        stray = sorted(set(bounds.equal) - set(fields[:used]), key=str)
        raise InvalidRange(_not_a_prefix(index, fields, used, stray))
    return used


def _check_next(index: IndexInfo, fields: Sequence[str], used: int, name: str) -> None:
    if used >= len(fields) or fields[used] != name:
        raise InvalidRange(_not_a_prefix(index, fields, used, [name]))


def _not_a_prefix(index: IndexInfo, fields: Sequence[str], used: int, stray: Sequence[str]) -> str:
    of = f"the index {index.name!r} is on {list(fields)}, in this order"
    unknown = [name for name in stray if name not in fields]
    if unknown:
        return (
            f"{of}, and not on {', '.join(map(repr, unknown))}: use an index that begins with "
            "what is compared, or compare it in a filter"
        )
    return (
        f"{of}; {', '.join(map(repr, stray))} can only be used after an eq on every field "
        f"before it, and {fields[used]!r} has none: add one, or use another index"
    )


def _prefix(fields: Sequence[str], bounds: Bounds) -> bytes:
    return encode_key([bounds.equal[name] for name in fields])


def _end_of(index: IndexInfo, used: int, prefix: bytes) -> bytes | None:
    """
    The bound after all keys that begin with the first `used` values, encoded in `prefix`.

    After the last field, `_creationTime`, the raw id follows; before it another value does.
    """
    if not prefix:
        return None
    return increment(prefix) if used == len(index.fields) else past(prefix)


def _value_interval(
    index: IndexInfo, used: int, prefix: bytes, bounds: Bounds
) -> tuple[bytes, bytes | None]:
    lower: bytes | None = prefix
    upper = _end_of(index, used, prefix)
    if bounds.lower is not None:
        start = prefix + encode_value_key(bounds.lower[1])
        lower = start if bounds.lower[2] else _end_of(index, used + 1, start)
    if bounds.upper is not None:
        end = prefix + encode_value_key(bounds.upper[1])
        upper = _end_of(index, used + 1, end) if bounds.upper[2] else end
    assert lower is not None, "an encoded value never is all 0xff"
    return lower, upper


def _id_interval(index: IndexInfo, prefix: bytes, bounds: Bounds) -> tuple[bytes, bytes | None]:
    lower = prefix
    upper = _end_of(index, len(index.fields), prefix)
    if bounds.lower is not None:
        position, is_exact = _id_position(index, bounds.lower[1])
        lower = prefix + position + (b"\0" if is_exact and not bounds.lower[2] else b"")
    if bounds.upper is not None:
        position, is_exact = _id_position(index, bounds.upper[1])
        upper = prefix + position + (b"\0" if is_exact and bounds.upper[2] else b"")
    return lower, upper


def _id_position(index: IndexInfo, value: Any) -> tuple[bytes, bool]:
    """Where `value` stands among the ids of the table, and whether it is one of them."""
    if not isinstance(value, str):
        before = encode_value_key(value) < encode_value_key("")
        return (b"" if before else _PAST_EVERY_ID), False
    try:
        number, internal = decode_id(value)
    except InvalidId:
        pass
    else:
        if number == index.table_number:
            return internal, True
    return _first_id_after(index.table_number, value), False


def _first_id_after(table_number: int, text: str) -> bytes:
    """The smallest internal id whose spelling is greater than `text`: spellings keep the order."""
    low, high = 0, 1 << 128
    while low < high:
        middle = (low + high) // 2
        if encode_id(table_number, middle.to_bytes(16, "big")) > text:
            high = middle
        else:
            low = middle + 1
    return low.to_bytes(16, "big") if low < 1 << 128 else _PAST_EVERY_ID
