"""
The order of items: by key, as the database orders values, and then by id.

Keys become tuples that Python compares: the kind of a value comes first, so
that no two kinds ever meet, and `True`, `1` and `Int64(1)` stay three.  Bounds
are cuts between items, which equal none of them.
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeAlias

from engine import Int64, Value

Order: TypeAlias = tuple[Any, ...]
"""Compares with another one as their values do in an index."""
Cut: TypeAlias = tuple[Order, tuple[Any, ...]]
"""A place between two items, or that of one."""

_NULL: Final = (1,)
_ARRAY: Final = 7
_ABOVE_ALL: Final = (9,)
"""Comes after every value."""

_FIRST: Final = (0,)
_LAST: Final = (2,)
"""Before and after all ids of a key; between them are `(1, id, side)`."""


def order_of(value: Value) -> Order:
    """
    What compares as `value` does.

    Args:
        value: canonical, as documents and arguments hold it.
    """
    kind = type(value)
    if kind is int or kind is float:
        return _number(value)
    if kind is str:
        return (5, value)
    if value is None:
        return _NULL
    if kind is list:
        return (_ARRAY, tuple(map(order_of, value)))
    if kind is dict:
        return (8, tuple((name, order_of(value[name])) for name in sorted(value)))
    if kind is Int64:
        return (2, int(value))
    return (4, value) if kind is bool else (6, value)


def _number(number: float) -> Order:
    if number == number and number:
        return (3, 0, number)
    # Zeros and NaNs have a sign; of two NaNs the bits decide.
    bits: int = struct.unpack(">q", struct.pack(">d", number))[0]
    if number == 0:
        return (3, 0, 0, -1 if bits else 0)
    return (3, 1, bits) if bits > 0 else (3, -1, -bits)


def at_item(key: Value, id: str) -> Cut:  # noqa: A002 - an id is called `id`
    """Where the item itself is."""
    return order_of(key), (1, id, 1)


def before(key: Value, id: str | None = None) -> Cut:  # noqa: A002
    """Just before the item with this id, or before all items of the key."""
    return order_of(key), _FIRST if id is None else (1, id, 0)


def after(key: Value, id: str | None = None) -> Cut:  # noqa: A002
    """Just after the item with this id, or after all items of the key."""
    return order_of(key), _LAST if id is None else (1, id, 2)


def before_prefix(parts: list[Value]) -> Cut:
    """Before all keys that are arrays which begin with `parts`."""
    return before(parts)


def after_prefix(parts: list[Value]) -> Cut:
    """After all keys that are arrays which begin with `parts`."""
    return (_ARRAY, (*map(order_of, parts), _ABOVE_ALL)), _FIRST
