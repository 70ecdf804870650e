"""
Pages: cursors that stay where they are while documents come and go.

A cursor names a position in one query: after an entry key, or at its end.  A
page that is read again with its own end cursor covers exactly the same part of
the index, so consecutive pages neither leave a gap nor overlap.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final

from engine.errors import ConvexError, InvalidValue, LimitExceeded, StoreDamaged
from engine.model.codec import decode, encode
from engine.transaction.scan import Plan

PAGE_ITEMS_MAX: Final = 32_000
_FINGERPRINT_BYTES: Final = 8
_SUM_BYTES: Final = 4
SPLIT_ITEMS: Final = 6144
"""Three quarters of the longest array."""


@dataclass(frozen=True, slots=True)
class Position:
    """After an entry key, or, where it is `None`, at the end."""

    key: bytes | None


def encode_cursor(position: Position, fingerprint: bytes) -> str:
    payload = encode([fingerprint[:_FINGERPRINT_BYTES], position.key])
    return urlsafe_b64encode(payload + _sum(payload)).rstrip(b"=").decode()


def decode_cursor(cursor: str, fingerprint: bytes) -> Position:
    """
    Raises:
        ConvexError: it is no cursor of this query; clients begin again when they see its data.
    """
    try:
        data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        payload, checksum = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
        owner, key = decode(payload)
    except (ValueError, TypeError, Base64Error, StoreDamaged):
        raise invalid_cursor("it cannot be read") from None
    if checksum != _sum(payload):
        raise invalid_cursor("it was changed or cut")
    if owner != fingerprint[:_FINGERPRINT_BYTES] or not isinstance(key, bytes | None):
        raise invalid_cursor("it belongs to another query")
    return Position(key)


def _sum(payload: bytes) -> bytes:
    """A mistake in a cursor would page on from somewhere else, without a word."""
    return blake2b(payload, digest_size=_SUM_BYTES).digest()


def invalid_cursor(why: str) -> ConvexError:
    error = ConvexError({"isConvexSystemError": True, "paginationError": "InvalidCursor"})
    error.add_note(f"InvalidCursor: {why}; start again from the first page (cursor null)")
    return error


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Pagination options, checked."""

    items: int
    start: Position | None
    end: Position | None
    rows_max: int | None
    bytes_max: int | None


def read_options(options: Mapping[str, Any], journal: str | None, plan: Plan) -> PageRequest:
    """
    Check pagination options against a query.

    Raises:
        InvalidValue: a field is missing or has no meaning.
        ConvexError: a cursor of another query.
    """
    items = options.get("numItems")
    if not isinstance(items, int | float) or isinstance(items, bool):
        raise InvalidValue("paginate needs numItems, a positive number")
    cursor = options.get("cursor")
    end_cursor = options.get("endCursor") or journal
    if end_cursor is None and (items < 1 or items != int(items)):
        raise InvalidValue(f"numItems is {items}; it must be a positive whole number")
    if items > PAGE_ITEMS_MAX:
        raise LimitExceeded("PAGE_ITEMS_MAX", items, PAGE_ITEMS_MAX, "numItems")
    return PageRequest(
        items=int(items),
        start=decode_cursor(cursor, plan.fingerprint) if cursor is not None else None,
        end=decode_cursor(end_cursor, plan.fingerprint) if end_cursor is not None else None,
        rows_max=_maximum(options, "maximumRowsRead"),
        bytes_max=_maximum(options, "maximumBytesRead"),
    )


def _maximum(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or value < 1:
        raise InvalidValue(f"{name} is {value!r}; it must be a positive number")
    return int(value)


def narrowed(plan: Plan, start: Position | None, end: Position | None) -> Plan:
    """The part of `plan` after `start` and up to `end`, which is in it."""
    if start is not None and start.key is None:
        return replace(plan, index=None)
    lower, upper = plan.lower, plan.upper
    if plan.reverse:
        upper = start.key if start is not None else upper
        lower = end.key if end is not None and end.key is not None else lower
    else:
        lower = start.key + b"\0" if start is not None and start.key is not None else lower
        upper = end.key + b"\0" if end is not None and end.key is not None else upper
    return replace(plan, lower=lower, upper=upper)
