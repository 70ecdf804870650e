"""
Session requests: a mutation that a client sends twice runs once.

Its record is a row in the same transaction, keyed by session and request, so
either both are durable or neither is.  Failed mutations leave no record and
run again.  A session keeps its newest records, and all that are young.  What is
recorded of one call is never told to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import OutOfRetention, RequestRefused
from engine.indexes.catalog import SESSION_REQUESTS
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction

_PREFIX = SESSION_REQUESTS.to_bytes(4, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the first run of a mutation answered."""

    ts: int
    value: Any
    log_lines: tuple[str, ...]


def request_key(request: SessionRequest) -> bytes:
    return _PREFIX + request.session_id + request.request_id.to_bytes(4, "big")


def find(transaction: Transaction, request: SessionRequest) -> Recorded | None:
    """
    The record of `request`, if it was answered before.

    Raises:
        OutOfRetention: it is so old that its record may have been dropped.
        RequestRefused: what was answered before was another call.
    """
    doc = transaction.get(request_key(request))
    if doc is not None:
        if doc.get("call", b"") != request.call:
            raise RequestRefused(
                422,
                "IdempotencyKeyReused",
                "This idempotency key was given to another call: another function or other "
                "arguments. Nothing was done; a call that is new needs a key that is new",
            )
        ts = int.from_bytes(doc["ts"], "big")
        return Recorded(ts=ts, value=doc["value"], log_lines=tuple(doc["logLines"]))
    floor = transaction.get(_floor_key(request.session_id))
    if floor is not None and request.request_id < floor["request"]:
        raise OutOfRetention(
            f"request {request.request_id} is older than what is remembered of this session"
        )
    return None


def record(
    transaction: Transaction,
    request: SessionRequest,
    *,
    ts: int,
    value: Any,
    log_lines: tuple[str, ...],
    limits: Limits,
) -> None:
    """Remember the answer with the writes; forget the one that falls out of the window."""
    doc = {"ts": ts.to_bytes(8, "big"), "value": value, "logLines": list(log_lines)}
    if request.call:
        doc["call"] = request.call
    transaction.put_row(request_key(request), doc)
    oldest = request.request_id - limits.session_records_max
    if oldest >= 0:
        old = SessionRequest(session_id=request.session_id, request_id=oldest)
        _forget(transaction, old, ts, limits)


def _forget(transaction: Transaction, old: SessionRequest, ts: int, limits: Limits) -> None:
    key = request_key(old)
    doc = transaction.get(key)
    if doc is None:
        return
    age_s = (ts - int.from_bytes(doc["ts"], "big")) / 1e9
    if age_s > limits.session_record_age_s_min:
        transaction.put_row(key, None)
        transaction.put_row(_floor_key(old.session_id), {"request": old.request_id + 1})


def _floor_key(session_id: bytes) -> bytes:
    """Sorts after every request of the session: request ids are below 2**32 - 1."""
    return _PREFIX + session_id + b"\xff\xff\xff\xff"
