"""What components use: a worker with a name, for a queue that is theirs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from engine import (
    ActionCtx,
    Mount,
    MutationCtx,
    MutationReference,
    QueryCtx,
    QueryReference,
    Reference,
    Value,
)

BATCH_SIZE = 64
"""A pass is to be short, so that others come in between."""
MONITOR_LAG_MS = 60_000.0


class Work(TypedDict):
    """
    What `get_batch` returns when there is something to do: anything that says what.

    Where there is `more` than this the next batch comes at once, without `debounce`.
    """

    kind: Literal["work"]
    batch: Any
    more: NotRequired[bool]


class Idle(TypedDict):
    """What it returns when there is nothing, before a time in milliseconds since 1970, if one."""

    kind: Literal["idle"]
    wake_at: NotRequired[float | None]


Found: TypeAlias = Work | Idle


class Status(TypedDict):
    """How a worker is; `failures` of its newest batch in a row, and what the last one was."""

    state: Literal["idle", "running", "stopped"]
    generation: int
    failures: int
    error: str | None


class BatchWorker:
    """
    Args:
        mount: a batch worker that the component uses.
        name: of this worker; each has a loop of its own.
        get_batch: a query that is given `limit` and looks for work: at most so many items.
        run_batch: a mutation that is given the `batch`, does it and takes it from the queue.
        set_aside: a mutation that is given a `batch`, as small as it gets, that has failed again
            and again, and the `error`; it takes it from the queue, so that others go on.
        batch_size: the `limit` of batches.
        debounce: from a ping to the first batch and between batches: milliseconds, or a
            `timedelta`.
        monitor_lag: how long a loop that was ended from outside may be dead.
    """

    def __init__(
        self,
        mount: Mount,
        name: str,
        /,
        *,
        get_batch: QueryReference[..., Any] | Reference,
        run_batch: MutationReference[..., Any] | Reference,
        set_aside: MutationReference[..., Any] | Reference,
        batch_size: int = BATCH_SIZE,
        debounce: float | timedelta = 0,
        monitor_lag: float | timedelta = MONITOR_LAG_MS,
    ) -> None:
        self._mount = mount
        self._name = name
        self._get_batch = get_batch
        self._run_batch = run_batch
        self._set_aside = set_aside
        self._batch_size = batch_size
        self._debounce_ms = _milliseconds(debounce)
        self._monitor_lag_ms = _milliseconds(monitor_lag)

    async def ping(self, ctx: MutationCtx | ActionCtx, /) -> None:
        """Have the loop look at the queue, unless it was stopped; in the transaction that adds."""
        await ctx.run_mutation(self._mount.ping, await self._told(ctx))

    async def start(self, ctx: MutationCtx | ActionCtx, /) -> None:
        """Let a loop that was stopped go on."""
        await ctx.run_mutation(self._mount.start, await self._told(ctx))

    async def stop(self, ctx: MutationCtx | ActionCtx, /) -> None:
        """No further batch, whatever is added, until `start`."""
        await ctx.run_mutation(self._mount.stop, {"name": self._name})

    async def status(self, ctx: QueryCtx | ActionCtx, /) -> Status | None:
        """How it is; None if it was never pinged."""
        found: Status | None = await ctx.run_query(self._mount.status, {"name": self._name})
        return found

    async def _told(self, ctx: MutationCtx | ActionCtx) -> dict[str, Value]:
        return {
            "name": self._name,
            "get_batch": await ctx.create_function_handle(self._get_batch),
            "run_batch": await ctx.create_function_handle(self._run_batch),
            "set_aside": await ctx.create_function_handle(self._set_aside),
            "batch_size": self._batch_size,
            "debounce_ms": self._debounce_ms,
            "monitor_lag_ms": self._monitor_lag_ms,
        }


def _milliseconds(duration: float | timedelta) -> float:
    if isinstance(duration, timedelta):
        return duration / timedelta(milliseconds=1)
    return duration
