"""
Jobs: rows of `_scheduled_functions`, written in the transaction that schedules them.

`due` is the time at which a pending job may run, and absent otherwise, so that
the index `by_due` holds exactly the jobs that wait.  `finished` likewise holds
those whose results can be collected one day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from engine.errors import DocumentNotFound, InvalidValue
from engine.indexes.catalog import SCHEDULED_FUNCTIONS
from engine.model.codec import encode
from engine.model.ids import row_key_of
from engine.model.values import normalize
from engine.transaction.transaction import Transaction

PENDING: Final = "pending"
IN_PROGRESS: Final = "inProgress"
SUCCESS: Final = "success"
FAILED: Final = "failed"
CANCELED: Final = "canceled"


def schedule(
    transaction: Transaction,
    owner: str,
    component: str,
    path: str,
    args: Mapping[str, Any],
    *,
    due_ms: float,
) -> str:
    """
    Add a job and return its id; it runs if and when this transaction commits.

    Args:
        owner: the component whose job it is.
        component: the component whose function runs.
        due_ms: milliseconds since 1970; in the past is now.
    """
    plain = normalize(dict(args))
    transaction.usage.count_scheduled(len(encode(plain)))
    table = transaction.catalog.by_number[SCHEDULED_FUNCTIONS]
    due = normalize(float(due_ms))
    return transaction.insert_row(
        table,
        {
            "name": path,
            "component": owner,
            "target": component,
            "args": [plain],
            "scheduledTime": due,
            "state": {"kind": PENDING},
            "due": due,
        },
    )


def cancel_job(transaction: Transaction, owner: str, job_id: str) -> None:
    """
    Cancel a job that waits; one that has ended is left as it is.

    Raises:
        DocumentNotFound: it is no job of this component.
        InvalidValue: not an id of a job at all.
    """
    key = row_key_of(job_id)
    if int.from_bytes(key[:4], "big") != SCHEDULED_FUNCTIONS:
        raise InvalidValue(f"{job_id!r} is not the id of a scheduled function")
    job = transaction.get(key)
    if job is None or job["component"] != owner:
        raise DocumentNotFound(f"there is no scheduled function {job_id}")
    if job["state"]["kind"] in (PENDING, IN_PROGRESS):
        finish_job(transaction, key, job, {"kind": CANCELED})


def finish_job(
    transaction: Transaction, key: bytes, job: dict[str, Any], state: dict[str, Any]
) -> None:
    """Put a job in a state in which it never runs again."""
    done = {name: value for name, value in job.items() if name != "due"}
    now = normalize(float(transaction.now_ms))
    transaction.put_row(key, {**done, "state": state, "completedTime": now, "finished": now})
