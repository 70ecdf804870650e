"""
Pages: cursors that stay where they are while documents come and go.

A cursor names a position in one query: after an entry key, or at its end.  A
page that is read again with its own end cursor covers exactly the same part of
the index, so consecutive pages neither leave a gap nor overlap.

What a search finds has no such places, as each write moves the scores of all.
Its cursor has the documents that were given up to there.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from msgspec.structs import replace

from engine.errors import InvalidCursor, InvalidValue, LimitExceeded, StoreDamaged
from engine.model.codec import decode, encode
from engine.model.ids import INTERNAL_BYTES
from engine.model.limits import PAGE_ITEMS_MAX, SEARCH_CANDIDATES_MAX
from engine.transaction.scan import Plan

_FINGERPRINT_BYTES: Final = 8
_SUM_BYTES: Final = 4
SPLIT_ITEMS: Final = 6144
"""Three quarters of the longest array."""


@dataclass(frozen=True, slots=True)
class Position:
    """After an entry key, or, where it is `None`, at the end."""

    key: bytes | None
    """Of a search, the internal ids of what was given."""


def encode_cursor(position: Position, fingerprint: bytes) -> str:
    payload = encode([fingerprint[:_FINGERPRINT_BYTES], position.key])
    return urlsafe_b64encode(payload + _sum(payload)).rstrip(b"=").decode()


def decode_cursor(cursor: Any, fingerprint: bytes) -> Position:
    """
    Raises:
        InvalidCursor: it is no cursor of this query; clients begin again when they see its data.
    """
    owner, key = _read(cursor)
    if owner != fingerprint[:_FINGERPRINT_BYTES] or not isinstance(key, bytes | None):
        raise _invalid("belongs to another query, or to other arguments")
    return Position(key)


def _read(cursor: Any) -> tuple[Any, Any]:
    """Whose a cursor is, and the key in it."""
    try:
        data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        payload, checksum = data[:-_SUM_BYTES], data[-_SUM_BYTES:]
        owner, key = decode(payload)
    except (ValueError, TypeError, Base64Error, StoreDamaged):
        raise _invalid("cannot be read") from None
    if checksum != _sum(payload):
        raise _invalid("was changed or cut")
    return owner, key


def _sum(payload: bytes) -> bytes:
    """A mistake in a cursor would page on from somewhere else, without a word."""
    return blake2b(payload, digest_size=_SUM_BYTES).digest()


def given_before(position: Position | None) -> list[bytes]:
    """
    The internal ids of what the pages of a search have given up to there.

    Raises:
        InvalidCursor: no page of a search has made it.
    """
    key = b"" if position is None or position.key is None else position.key
    if len(key) % INTERNAL_BYTES or len(key) > SEARCH_CANDIDATES_MAX * INTERNAL_BYTES:
        raise _invalid("is none of a search")
    return [key[at : at + INTERNAL_BYTES] for at in range(0, len(key), INTERNAL_BYTES)]


def _invalid(why: str) -> InvalidCursor:
    return InvalidCursor(f"this cursor {why}; begin at the first page, with cursor None")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Pagination options, checked."""

    items: int
    start: Position | None
    end: Position | None
    rows_max: int | None
    """Of a page without an end, as `bytes_max`."""
    bytes_max: int | None


def read_options(options: Any, journal: str | None, fingerprint: bytes) -> PageRequest:
    """
    Check pagination options against a query.

    Args:
        journal: where the page has ended before. It means nothing if the query has become another
            one since, by what the function has read or by who asks.

    Raises:
        InvalidValue: a field is missing or has no meaning.
        LimitExceeded: the page would be too long.
        InvalidCursor: a cursor of another query.
    """
    if not isinstance(options, Mapping):
        raise InvalidValue(
            f"paginate takes {{'numItems': 20, 'cursor': None}}, not {type(options).__name__}"
        )
    cursor, end_cursor = options.get("cursor"), options.get("endCursor")
    if end_cursor is None and journal is not None:
        end_cursor = journal if _read(journal)[0] == fingerprint[:_FINGERPRINT_BYTES] else None
    items: int | None = 0
    rows_max = bytes_max = None
    # A page with an end is as long as it is, whatever was asked for.
    if end_cursor is None:
        items = _positive(options, "numItems")
        rows_max = _positive(options, "maximumRowsRead")
        bytes_max = _positive(options, "maximumBytesRead")
    if items is None:
        raise InvalidValue("paginate needs numItems, a positive whole number")
    if items > PAGE_ITEMS_MAX:
        advice = "Ask for fewer, and for the next ones with continueCursor."
        raise LimitExceeded("PAGE_ITEMS_MAX", items, PAGE_ITEMS_MAX, "numItems", advice)
    return PageRequest(
        items=items,
        start=decode_cursor(cursor, fingerprint) if cursor is not None else None,
        end=decode_cursor(end_cursor, fingerprint) if end_cursor is not None else None,
        rows_max=rows_max,
        bytes_max=bytes_max,
    )


def _positive(options: Mapping[str, Any], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or value < 1:
        raise InvalidValue(f"{name} is {value!r}; it must be a positive whole number")
    return int(value)


def narrowed(plan: Plan, start: Position | None, end: Position | None) -> Plan:
    """
    The part of `plan` after `start` and up to `end`, which is in it.

    Never more than `plan`, wherever the positions are: whoever can spell a cursor may not read
    what the query would not.
    """
    if start is not None and start.key is None:
        return replace(plan, index=None)
    after = start.key if start is not None else None
    upto = end.key if end is not None else None
    lower, upper = plan.lower, plan.upper
    if plan.reverse:
        upper = _nearer(upper, after)
        lower = max(lower, upto or b"")
    else:
        upper = _nearer(upper, upto + b"\0" if upto is not None else None)
        lower = max(lower, after + b"\0" if after is not None else b"")
    return replace(plan, lower=lower, upper=upper)


def _nearer(upper: bytes | None, other: bytes | None) -> bytes | None:
    """The lesser of two upper bounds, of which `None` is no bound."""
    if upper is None or other is None:
        return other if upper is None else upper
    return min(upper, other)
