"""
Rows of `_scheduled_functions`: one for each job, from when it is scheduled to when it is forgotten.

`due` tells the scheduler where a job stands, so that the index `by_due` is all
it has to read:

    a number    pending; may run from that time on, in milliseconds since 1970
    null        an action that has begun
    absent      ended: `finished` says when, for whoever collects old ones
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.indexes.catalog import SCHEDULED_FUNCTIONS
from engine.model.keys import encode_key, past
from engine.model.values import normalize
from engine.transaction.transaction import Transaction

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"

BEGUN: Final = (encode_key([None]), past(encode_key([None])))
"""The interval of `by_due` that holds the actions that have begun."""


def add_job(
    transaction: Transaction,
    *,
    owner: str,
    component: str,
    path: str,
    args: Mapping[str, Any],
    due_ms: float,
    cron: str | None = None,
) -> str:
    """
    Add a pending job and return its id.

    Args:
        owner: the component whose job it is.
        component: the component whose function runs.
        args: canonical values.
        due_ms: milliseconds since 1970.
        cron: the id of the cron that it is a tick of.
    """
    due = normalize(float(due_ms))
    row: dict[str, Any] = {
        "name": path,
        "component": owner,
        "target": component,
        "args": [dict(args)],
        "scheduledTime": due,
        "state": {"kind": PENDING},
        "due": due,
    }
    if cron is not None:
        row["cron"] = cron
    return transaction.insert_row(transaction.catalog.by_number[SCHEDULED_FUNCTIONS], row)


def request_of(job_id: str) -> str:
    """The id of the request that is the run of a job."""
    return f"job-{job_id}"


def is_pending(job: Mapping[str, Any] | None) -> bool:
    """Whether a job is there and has not begun."""
    return job is not None and job["state"]["kind"] == PENDING


def pending_until(now_ms: float) -> tuple[bytes, bytes]:
    """The interval of `by_due` that holds the pending jobs that are due at `now_ms`."""
    return BEGUN[1], past(encode_key([normalize(float(now_ms))]))
