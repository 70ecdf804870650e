"""
The loop of a worker: passes that follow one another as scheduled mutations.

    idle ──ping──▶ running ──nothing to do──▶ idle, perhaps until a time
      ▲               │  ▲
      │             stop └── a pass found work
      └──start── stopped

There is one pass to come at most that counts: those of older generations do
nothing.  Falling asleep is decided by a read that counts, in the transaction
that notes it, so what is added meanwhile comes before, or wakes it up.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from hashlib import blake2b
from typing import Any, TypedDict, Unpack

from components.batch_worker.schema import State, Worker
from engine import (
    UNDEFINED,
    Id,
    MutationCtx,
    NotAllowed,
    QueryCtx,
    Value,
    internal_mutation,
    mutation,
    query,
)

logger = logging.getLogger("headrace.batch_worker")

FAILURES_MAX = 5
"""In a row, with a batch that gets smaller each time; then it is set aside."""
SHRINKING = 4
BACKOFF_MS = 100.0
"""After the first failure, twice as long after each further one."""


class Told(TypedDict):
    """Of a worker, as its component declares it."""

    get_batch: str
    run_batch: str
    set_aside: str
    batch_size: int
    debounce_ms: float
    monitor_lag_ms: float


class StatusShown(TypedDict):
    state: str
    generation: float
    failures: float
    error: str | None


@mutation
async def ping(ctx: MutationCtx, name: str, **told: Unpack[Told]) -> None:
    """Wake a worker that is idle; one that runs is only looked at."""
    worker = await _named(ctx, name)
    if worker is None:
        worker = await _added(ctx, name, told)
    else:
        await _keep(ctx, worker, told)
    if worker["status"] == "idle":
        await _wake(ctx, worker, await _state(ctx, worker))


@mutation
async def start(ctx: MutationCtx, name: str, **told: Unpack[Told]) -> None:
    """Wake a worker, also one that was stopped."""
    worker = await _named(ctx, name) or await _added(ctx, name, told)
    if worker["status"] != "running":
        await _keep(ctx, worker, told)
        await _wake(ctx, worker, await _state(ctx, worker))


@mutation
async def stop(ctx: MutationCtx, name: str) -> None:
    """End the loop of a worker, and leave it so."""
    worker = await _named(ctx, name)
    if worker is None or worker["status"] == "stopped":
        return
    state = await _state(ctx, worker)
    await _cancel(ctx, state, "next_pass", "monitor")
    await ctx.db.patch(state["_id"], {"generation": state["generation"] + 1})
    await ctx.db.patch(worker["_id"], {"status": "stopped"})


@query
async def status(ctx: QueryCtx, name: str) -> StatusShown | None:
    worker = await _named(ctx, name)
    if worker is None:
        return None
    state = await _state(ctx, worker)
    return {
        "state": worker["status"],
        "generation": state["generation"],
        "failures": state["failures"],
        "error": state.get("error"),
    }


@internal_mutation
async def run_pass(ctx: MutationCtx, worker_id: Id[Worker], generation: float) -> None:
    """Do one batch, and see to the next pass; or fall asleep."""
    found = await _current(ctx, worker_id, generation)
    if found is None:
        return
    worker, state = found
    asked = {"limit": state["limit"]}
    looked = await ctx.run_snapshot_query(worker["get_batch"], asked)
    if looked["kind"] == "idle":
        looked = await ctx.run_query(worker["get_batch"], asked)
    if looked["kind"] == "idle":
        await _sleep(ctx, worker, state, looked.get("wake_at"))
        return
    if worker["status"] == "idle":
        await _run_on(ctx, worker, state)
    rest_ms = 0 if looked.get("more") else worker["debounce_ms"]
    changes, delay_ms = await _do(ctx, worker, state, looked["batch"], rest_ms)
    next_pass = await ctx.scheduler.run_after(delay_ms, run_pass, worker_id, generation)
    await ctx.db.patch(state["_id"], {**changes, "next_pass": next_pass})


@internal_mutation
async def watch(ctx: MutationCtx, worker_id: Id[Worker], generation: float) -> None:
    """Begin a loop anew whose next pass is not to come, for whatever reason."""
    found = await _current(ctx, worker_id, generation)
    if found is None:
        return
    worker, state = found
    if not await _is_to_come(ctx, state.get("next_pass")):
        error = "a pass was canceled, or failed as a whole"
        changes = {**_shrunk(state), "error": error}
        if await _has_failed(ctx, state.get("next_pass")):
            changes["failed"] = UNDEFINED  # it could not say which batch that was
        await ctx.db.patch(state["_id"], changes)
        await _wake(ctx, worker, state)
        return
    await _watch_at(ctx, worker, state, generation, ctx.now_ms + worker["monitor_lag_ms"])


@internal_mutation
async def repair(ctx: MutationCtx) -> None:
    """Wake workers whose pass and whose monitor both were ended from outside."""
    async for worker in ctx.db.query(Worker):
        state = await _state(ctx, worker)
        jobs = [state.get("next_pass"), state.get("monitor")]
        if worker["status"] == "stopped" or jobs == [None, None]:
            continue
        if not any([await _is_to_come(ctx, job) for job in jobs]):
            await _wake(ctx, worker, state)


# One pass.


async def _do(
    ctx: MutationCtx, worker: Worker, state: State, batch: Value, rest_ms: float
) -> tuple[dict[str, Value], float]:
    """What is to be noted after a batch, and how long until the next: `rest_ms` if it is done."""
    this = _known_by(batch)
    # What has become due since the last failure may come before what failed, and has not.
    is_given_up = state["failures"] >= FAILURES_MAX and state.get("failed", this) == this
    try:
        if is_given_up:
            told = {"batch": batch, "error": state.get("error", "")}
            await ctx.run_mutation(worker["set_aside"], told)
        else:
            await ctx.run_mutation(worker["run_batch"], {"batch": batch})
    except Exception as error:
        shrunk = _shrunk(state)
        logger.warning("a batch of %r failed: %r", worker["name"], error)
        wait_ms = BACKOFF_MS * 2 ** min(state["failures"], FAILURES_MAX)
        failed = {"failed": this, "error": f"{type(error).__name__}: {error}"}
        return {**shrunk, **failed}, wait_ms
    over = {"failures": 0, "failed": UNDEFINED}
    if is_given_up:
        return over, rest_ms
    grown = min(worker["batch_size"], state["limit"] * SHRINKING)
    return {**over, "limit": grown}, rest_ms


def _known_by(batch: Value) -> str:
    """A short text that tells one batch from another."""
    return blake2b(repr(batch).encode(), digest_size=8).hexdigest()


def _shrunk(state: State) -> dict[str, Any]:
    limit = max(1, state["limit"] // SHRINKING)
    return {"failures": state["failures"] + 1, "limit": limit}


# Waking and sleeping.


async def _wake(ctx: MutationCtx, worker: Worker, state: State) -> None:
    """Begin a loop; whatever of an earlier one is still to come does nothing."""
    await _cancel(ctx, state, "next_pass", "monitor")
    generation = state["generation"] + 1
    await ctx.db.patch(worker["_id"], {"status": "running"})
    next_pass = await ctx.scheduler.run_after(
        worker["debounce_ms"], run_pass, worker["_id"], generation
    )
    await ctx.db.patch(state["_id"], {"generation": generation, "next_pass": next_pass})
    await _watch_at(ctx, worker, state, generation, ctx.now_ms + worker["monitor_lag_ms"])


async def _run_on(ctx: MutationCtx, worker: Worker, state: State) -> None:
    """A loop that slept until a time has work: it is awake again."""
    await ctx.db.patch(worker["_id"], {"status": "running"})
    await _cancel(ctx, state, "monitor")
    due_ms = ctx.now_ms + worker["monitor_lag_ms"]
    await _watch_at(ctx, worker, state, state["generation"], due_ms)


async def _sleep(ctx: MutationCtx, worker: Worker, state: State, wake_at: float | None) -> None:
    """Have nothing to come, or a pass at a time, and a monitor after it."""
    await _cancel(ctx, state, "monitor")
    await ctx.db.patch(worker["_id"], {"status": "idle"})
    generation = state["generation"] + 1
    if wake_at is None:
        nothing = {"next_pass": UNDEFINED, "monitor": UNDEFINED}
        await ctx.db.patch(state["_id"], {"generation": generation, **nothing})
        return
    # What comes with a fraction of a millisecond is still to come by the clock of a query, and
    # whoever asks for a time that has passed would be asked again at once, and again.
    wake_ms = max(math.ceil(wake_at), ctx.now_ms + 1)
    next_pass = await ctx.scheduler.run_at(wake_ms, run_pass, worker["_id"], generation)
    await ctx.db.patch(state["_id"], {"generation": generation, "next_pass": next_pass})
    due_ms = wake_ms + worker["monitor_lag_ms"]
    await _watch_at(ctx, worker, state, generation, due_ms)


async def _watch_at(
    ctx: MutationCtx, worker: Worker, state: State, generation: float, due_ms: float
) -> None:
    monitor = await ctx.scheduler.run_at(due_ms, watch, worker["_id"], generation)
    await ctx.db.patch(state["_id"], {"monitor": monitor})


async def _cancel(ctx: MutationCtx, state: State, *names: str) -> None:
    """Cancel jobs that are still to come."""
    for name in names:
        job_id: Any = state.get(name)
        if await _is_to_come(ctx, job_id):
            with suppress(NotAllowed):  # it is the one that runs
                await ctx.scheduler.cancel(job_id)


# Rows.


async def _current(
    ctx: MutationCtx, worker_id: Id[Worker], generation: float
) -> tuple[Worker, State] | None:
    """The rows of a worker, unless another loop has taken over, or it was stopped."""
    worker = await ctx.db.get(worker_id)
    if worker is None:
        return None
    state = await _state(ctx, worker)
    return (worker, state) if state["generation"] == generation else None


async def _named(ctx: QueryCtx, name: str) -> Worker | None:
    return await ctx.db.query(Worker).with_index("by_name", name=name).first()


async def _state(ctx: QueryCtx, worker: Worker) -> State:
    found = await ctx.db.query(State).with_index("by_worker", worker=worker["_id"]).first()
    assert found is not None, "a worker has a state"
    return found


async def _added(ctx: MutationCtx, name: str, told: Told) -> Worker:
    worker_id = await ctx.db.insert(Worker, {"name": name, "status": "idle", **told})
    state = {"worker": worker_id, "generation": 0, "failures": 0}
    await ctx.db.insert(State, {**state, "limit": told["batch_size"]})
    worker = await ctx.db.get(worker_id)
    assert worker is not None, "inserted just now"
    return worker


async def _keep(ctx: MutationCtx, worker: Worker, told: Told) -> None:
    """Write what is declared otherwise by now, if it is."""
    changed = {name: value for name, value in told.items() if worker[name] != value}  # type: ignore[literal-required]
    if changed:
        await ctx.db.patch(worker["_id"], changed)


async def _is_to_come(ctx: MutationCtx, job_id: Any) -> bool:
    return await _kind(ctx, job_id) in ("pending", "inProgress")


async def _has_failed(ctx: MutationCtx, job_id: Any) -> bool:
    return await _kind(ctx, job_id) in (None, "failed")


async def _kind(ctx: MutationCtx, job_id: Any) -> str | None:
    """The state of a job; None if its row is gone."""
    job = None if job_id is None else await ctx.db.system.get(job_id)
    return None if job is None else job["state"]["kind"]
