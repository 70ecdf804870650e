"""
Scheduling: jobs are rows, written in the transaction that schedules, cancels or ends them.

    pending ──▶ success | failed      a mutation: its writes and its end are one transaction
       │
       ├──▶ inProgress ──▶ success | failed      an action: begun once, whatever becomes of it
       │         │
       └─────────┴──▶ canceled

A job that is the tick of a cron is replaced by the next tick when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import DocumentNotFound, InvalidValue
from engine.functions.crons import is_tick, tick_ended
from engine.functions.job_rows import CANCELED, IN_PROGRESS, PENDING, add_job, is_job_key, job_of
from engine.functions.retries import (
    Retrying,
    is_tried_again,
    tell,
    told_fields,
    try_again,
)
from engine.model.ids import row_key_of
from engine.model.values import UNDEFINED, Int64, normalize, size_of
from engine.transaction.transaction import Transaction


def schedule(
    transaction: Transaction,
    owner: str,
    component: str,
    path: str,
    args: Mapping[str, Any],
    *,
    due_ms: float,
    request_id: str,
    retrying: Retrying | None = None,
) -> str:
    """
    Add a job and return its id; it runs if and when this transaction commits.

    What a job schedules that was canceled meanwhile is canceled, too.

    Args:
        owner: the component whose job it is.
        component: the component whose function runs.
        due_ms: milliseconds since 1970; in the past is now.
        request_id: of whoever schedules it.
        retrying: how it is tried again, if it is.
    """
    plain = normalize(dict(args))
    transaction.usage.count_scheduled(size_of(plain))
    job_id = add_job(
        transaction,
        owner=owner,
        component=component,
        path=path,
        args=plain,
        due_ms=due_ms,
        more=None if retrying is None else retrying.fields(),
    )
    if _is_canceled(transaction, request_id):
        key = row_key_of(job_id)
        finish_job(transaction, key, transaction.own_row(key) or {}, {"kind": CANCELED})
    return job_id


def _is_canceled(transaction: Transaction, request_id: str) -> bool:
    """Whether a request is the run of a job that is canceled."""
    job_id = job_of(request_id)
    job = transaction.own_row(row_key_of(job_id)) if job_id else None
    return job is not None and job["state"]["kind"] == CANCELED


def cancel_job(transaction: Transaction, owner: str, job_id: str) -> None:
    """
    Cancel a job that waits; one that has ended is left as it is.

    Raises:
        DocumentNotFound: it is no job of this component.
        InvalidValue: not an id of a job at all.
    """
    key = row_key_of(job_id)
    if not is_job_key(key):
        raise InvalidValue(f"{job_id!r} is not the id of a scheduled function")
    job = transaction.own_row(key)
    if job is None or job["component"] != owner or is_tick(job):
        raise DocumentNotFound(f"there is no scheduled function {job_id}")
    if job["state"]["kind"] in (PENDING, IN_PROGRESS):
        finish_job(transaction, key, job, {"kind": CANCELED})


def begin_job(transaction: Transaction, key: bytes, job: dict[str, Any]) -> None:
    """Mark an action as begun; from here on it is never begun again."""
    begun: dict[str, Any] = {"state": {"kind": IN_PROGRESS}, "due": None}
    if "retry" in job:
        begun["attempts"] = job["attempts"] + 1
    if is_tick(job):
        begun["startedTime"] = normalize(float(transaction.now_ms))
    transaction.put_row(key, {**job, **begun}, job)


def end_action(
    transaction: Transaction,
    key: bytes,
    job: dict[str, Any],
    state: dict[str, Any],
    returned: Any = UNDEFINED,
) -> str:
    """End an attempt of an action, for good or until the next one; returns its state then."""
    if is_tried_again(job, state):
        try_again(transaction, key, job, state["error"])
        return PENDING
    finish_job(transaction, key, job, state, returned)
    return str(state["kind"])


def finish_job(
    transaction: Transaction,
    key: bytes,
    job: dict[str, Any],
    state: dict[str, Any],
    returned: Any = UNDEFINED,
) -> None:
    """Put a job in a state in which it never runs again, and have told who wants to know."""
    now = normalize(float(transaction.now_ms))
    if is_tick(job):
        tick_ended(transaction, key, job, {"state": state, "completedTime": now})
        return
    ended = {"state": state, "completedTime": now, "due": Int64(now)}
    if "retry" in job:
        ended.update(told_fields(returned))
    transaction.put_row(key, {**job, **ended}, job)
    tell(transaction, job, state, returned)
