"""
Functions that are run so many at a time, tried again, and told of when they have ended.

    pool = Workpool(app.use(component, name="pool"), max_parallelism=5)

    await pool.enqueue_action(ctx, summarize, {"page": page}, retry=True, on_complete=done)

What a mutation enqueues is enqueued when it commits.  README.md says more.
"""

from components.batch_worker import component as batch_worker
from components.workpool.client import (
    Canceled,
    Failed,
    Failure,
    Finished,
    NonRetryable,
    Options,
    Pending,
    Report,
    Result,
    Running,
    Status,
    Success,
    Workpool,
)
from engine import Component

component = Component("workpool")
loop = component.use(batch_worker, name="loop")

__all__ = [
    "Canceled",
    "Failed",
    "Failure",
    "Finished",
    "NonRetryable",
    "Options",
    "Pending",
    "Report",
    "Result",
    "Running",
    "Status",
    "Success",
    "Workpool",
    "component",
    "loop",
]
