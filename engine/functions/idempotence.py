"""
Session requests: a mutation that a client sends twice runs once.

Its record is a row in the same transaction, keyed by session and request, so
either both are durable or neither is.  Failed mutations leave no record and
run again.  A session keeps its newest records, and all that are young; the others
are swept (`session_sweep`).  What is recorded of one call is never told to another.

Requests that came with a key have a table of their own: a client names its session as
it likes, also by the digest of a key and of a caller that it guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import OutOfRetention, RequestRefused
from engine.indexes.catalog import KEYED_REQUESTS, SESSION_REQUESTS
from engine.model.commits import SessionRequest
from engine.model.ids import row_key
from engine.transaction.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the first run of a mutation answered."""

    ts: int
    value: Any
    log_lines: tuple[str, ...]


def request_key(request: SessionRequest) -> bytes:
    table = KEYED_REQUESTS if request.call else SESSION_REQUESTS
    return row_key(table, request.session_id) + request.request_id.to_bytes(4, "big")


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
                409,
                "IdempotencyKeyReused",
                "This idempotency key was given to another call: another function or other "
                "arguments. Nothing was done; a call that is new needs a key that is new",
            )
        ts = int.from_bytes(doc["ts"], "big")
        return Recorded(ts=ts, value=doc["value"], log_lines=tuple(doc["logLines"]))
    if request.call:  # and not of a session that goes on, whose old requests are forgotten
        return None
    floor = transaction.get(_floor_key(request.session_id))
    if floor is not None and request.request_id < floor["request"]:
        raise OutOfRetention(
            f"request {request.request_id} is older than what is remembered of this session, so "
            "whether it was done before is not known; nothing was done now"
        )
    return None


def record(
    transaction: Transaction,
    request: SessionRequest,
    *,
    ts: int,
    value: Any,
    log_lines: tuple[str, ...],
) -> None:
    """Remember the answer with the writes."""
    doc = {"ts": ts.to_bytes(8, "big"), "value": value, "logLines": list(log_lines)}
    if request.call:
        doc["call"] = request.call
    transaction.put_row(request_key(request), doc)


def forget_below(transaction: Transaction, session_id: bytes, request_id: int) -> None:
    """From here on a replay of a request below `request_id` is refused: its record may be gone."""
    transaction.put_row(_floor_key(session_id), {"request": request_id})


def _floor_key(session_id: bytes) -> bytes:
    """Sorts after every request of the session: on the wire their numbers are below 2**32 - 1."""
    return row_key(SESSION_REQUESTS, session_id) + b"\xff\xff\xff\xff"
