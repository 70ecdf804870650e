"""
One loop that takes from a queue in batches, for components that have a queue.

    loop = component.use(batch_worker, name="loop")
    worker = BatchWorker(loop, "main", get_batch=..., run_batch=..., set_aside=...)

    await worker.ping(ctx)     # in the mutation that adds to the queue

It runs while there is something to do, one batch a transaction, and sleeps
without a job of its own when there is not.  README.md says more.
"""

from components.batch_worker.client import BatchWorker, Found, Idle, Status, Work
from engine import Component

component = Component("batch_worker")

__all__ = ["BatchWorker", "Found", "Idle", "Status", "Work", "component"]
