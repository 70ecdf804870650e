"""
Rows of `_scheduled_functions`: one for each job, from when it is scheduled to when it is forgotten.

`due` tells where a job stands, so that one index, `by_due`, is all that the scheduler has to read,
and whoever collects old ones:

    null        an action that has begun
    an Int64    ended, at that time
    a number    pending; may run from that time on

Times are milliseconds since 1970.  Kinds of values have an order, so each of the three lies
together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from engine.indexes.catalog import SCHEDULED_FUNCTIONS
from engine.model.keys import encode_key, past
from engine.model.values import INT64_MIN, Int64, normalize
from engine.transaction.transaction import Transaction

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

_REQUEST: Final = "job-"

BEGUN: Final = (encode_key([None]), past(encode_key([None])))
"""The interval of `by_due` that holds the actions that have begun."""
_ENDED: Final = encode_key([Int64(INT64_MIN)])
PENDING_FROM: Final = encode_key([-math.inf])
assert BEGUN[1] <= _ENDED < PENDING_FROM, "the three lie apart"


def add_job(
    transaction: Transaction,
    *,
    owner: str,
    component: str,
    path: str,
    args: Mapping[str, Any],
    due_ms: float,
    cron: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """
    Add a pending job and return its id.

    Args:
        owner: the component whose job it is.
        component: the component whose function runs.
        args: canonical values.
        due_ms: milliseconds since 1970.
        cron: the id of the cron that it is a tick of.
        more: of an action that is tried again, how.
    """
    # What is asked for the past has waited since now, and waits behind what is overdue.
    due = normalize(max(float(due_ms), float(transaction.now_ms)))
    row: dict[str, Any] = {
        "name": path,
        "component": owner,
        "target": component,
        "args": [dict(args)],
        "scheduledTime": normalize(float(due_ms)),
        "state": {"kind": PENDING},
        "due": due,
    }
    if cron is not None:
        row["cron"] = cron
    row.update(more or {})
    return transaction.insert_row(transaction.catalog.by_number[SCHEDULED_FUNCTIONS], row)


def pending_again(job: Mapping[str, Any], due_ms: float) -> dict[str, Any]:
    """The row of a job that has begun, and waits for another time."""
    return {**job, "state": {"kind": PENDING}, "due": normalize(float(due_ms))}


def request_of(job_id: str) -> str:
    """The id of the request that is the run of a job."""
    return f"{_REQUEST}{job_id}"


def job_of(request_id: str) -> str | None:
    """The id of the job whose run a request is, if it is one."""
    return request_id.removeprefix(_REQUEST) if request_id.startswith(_REQUEST) else None


def is_pending(job: Mapping[str, Any] | None) -> bool:
    """Whether a job is there and has not begun."""
    return job is not None and job["state"]["kind"] == PENDING


def is_job_key(key: bytes) -> bool:
    """Whether a row, which may be gone, is one of a job."""
    return int.from_bytes(key[:4], "big") == SCHEDULED_FUNCTIONS


def stood(state: str) -> tuple[bytes, bytes | None]:
    """The interval of `by_due` that holds the jobs of a state, and others that ended."""
    match state:
        case "pending":
            return PENDING_FROM, None
        case "inProgress":
            return BEGUN
    return _ENDED, PENDING_FROM


def pending_until(now_ms: float) -> tuple[bytes, bytes]:
    """The interval of `by_due` that holds the pending jobs that are due at `now_ms`."""
    return PENDING_FROM, past(encode_key([normalize(float(now_ms))]))


def ended_before(ms: float) -> tuple[bytes, bytes]:
    """The interval of `by_due` that holds the jobs that ended before `ms`."""
    return _ENDED, encode_key([Int64(math.floor(ms))])
