"""The tables of a pool: what is to be done, what is under way, and what went wrong."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from engine import Document, Id, Schema, Table


class Payload(Document):
    """A value that is too large for the row that a look at the queue reads."""

    value: Any


class Run(Document):
    """
    A work that is under way, as the job `job`.

    At `check_at` it is looked at whether that still is; a job that was ended from outside tells
    nobody.
    """

    work: str
    job: str
    check_at: float


class Work(Document):
    """
    A call that is to be made, by a function handle: pending until it has a `run`.

    `attempts` are those that have ended; no attempt begins before `due`.  Whoever cancels a work
    that is under way marks it.
    """

    fn: str
    name: str
    kind: Literal["query", "mutation", "action"]
    args: NotRequired[dict[str, Any]]
    args_at: NotRequired[Id[Payload]]
    on_complete: NotRequired[str]
    context: NotRequired[Any]
    context_at: NotRequired[Id[Payload]]
    retry: NotRequired[dict[str, float]]
    attempts: float
    state: Literal["pending", "running"]
    due: float
    run: NotRequired[Id[Run]]
    canceled: NotRequired[bool]


class FailedWork(Document):
    """
    A work whose last attempt has failed, set aside with what it takes to do it again.

    Without `args` those, or the context, were too large to be kept.
    """

    work: str
    fn: str
    name: str
    kind: Literal["query", "mutation", "action"]
    args: NotRequired[dict[str, Any]]
    on_complete: NotRequired[str]
    context: NotRequired[Any]
    retry: NotRequired[dict[str, float]]
    attempts: float
    error: str


class Pool(Document):
    """
    The one row of what the pool is told and has counted.

    `declared` is what the code says, and the others what holds: that may be changed while the pool
    runs, and is as declared again when the code says something else.
    """

    max_parallelism: float
    log_level: str
    declared: dict[str, Any]
    reported_at: float
    succeeded: float
    failed: float
    retries: float
    canceled: float


schema = Schema(
    works=Table(Work).index("by_state_due", ["state", "due"]),
    runs=Table(Run).index("by_check_at", ["check_at"]),
    payloads=Table(Payload),
    failures=Table(FailedWork).index("by_work", ["work"]),
    pools=Table(Pool),
)
