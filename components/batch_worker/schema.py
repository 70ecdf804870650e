"""The tables: what pings read of a worker, and what only its loop and its monitor write."""

from __future__ import annotations

from typing import Literal, NotRequired

from engine import Document, Id, Schema, Table


class Worker(Document):
    """
    A worker, as a ping sees it; the row changes when it falls asleep, wakes up or is stopped.

    `get_batch`, `run_batch` and `set_aside` are function handles.
    """

    name: str
    get_batch: str
    run_batch: str
    set_aside: str
    batch_size: float
    debounce_ms: float
    monitor_lag_ms: float
    status: Literal["idle", "running", "stopped"]


class State(Document):
    """
    How far the loop of a worker is.

    Only passes of this `generation` do anything.  `next_pass` and `monitor` are the jobs that
    are to come; `limit` is the size of the next batch, which `failures` in a row have shrunk, the
    last one of the batch `failed`, if that is known.
    """

    worker: Id[Worker]
    generation: float
    limit: float
    failures: float
    error: NotRequired[str]
    failed: NotRequired[str]
    next_pass: NotRequired[str]
    monitor: NotRequired[str]


schema = Schema(
    workers=Table(Worker).index("by_name", ["name"], unique=True),
    states=Table(State).index("by_worker", ["worker"], unique=True).reference("worker"),
)
