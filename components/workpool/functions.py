"""
What runs within a pool.

    pending ──the loop──▶ running ──▶ done: told to on_complete, and forgotten
       ▲                     │
       └────tried again──────┘

The loop begins what is due, as far as there is room.  An action runs in
`perform`, a job of which the engine tells exactly once how it ended, crashes
included; a mutation runs in `carry_out`, in one transaction with its end.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

from components.batch_worker import BatchWorker
from components.workpool import loop, rules
from components.workpool.rules import Ended, Level, Outcome
from components.workpool.schema import FailedWork, Payload, Pool, Run, Work
from engine import (
    UNDEFINED,
    ActionCtx,
    FunctionNotFound,
    Id,
    InvalidValue,
    MutationCtx,
    QueryCtx,
    Retry,
    TransactionLimits,
    UnmountedComponent,
    Value,
    WrongFunctionKind,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

logger = logging.getLogger("headrace.workpool")

CHECK_MS = 60_000.0
"""How long a job may be gone before that is noticed; those of actions tell at once."""
TOLD_MS = 3_600_000.0
"""After which whoever was to tell what an action returned is taken for lost."""
CHECKED = 32
"""Of one pass."""
FAILURES_KEPT = 1_000
REPORT_MS = 60_000.0
RESERVE: TransactionLimits = {
    "bytes_read": 1 << 20,
    "bytes_written": 3 << 20,
    "database_queries": 64,
    "documents_read": 200,
    "documents_written": 100,
    "functions_scheduled": 10,
    "scheduled_function_args_bytes": 3 << 20,
}
"""What is left for the end of a work when a mutation of the application has used up the rest."""


class Call(TypedDict):
    """One call to be made; `fn` and `on_complete` are function handles."""

    fn: str
    name: str
    kind: Literal["query", "mutation", "action"]
    args: dict[str, Any]
    due: NotRequired[float]
    on_complete: NotRequired[str]
    context: NotRequired[Any]
    retry: NotRequired[dict[str, float]]


class Settings(TypedDict, total=False):
    """Of a pool; both as the code declares them, or what is to change."""

    max_parallelism: float
    log_level: Level


class Batch(TypedDict):
    """Works that can begin, and runs that are to be looked at."""

    begin: list[Id[Work]]
    check: list[Id[Run]]


class Asked(TypedDict):
    """What an attempt of an action is given."""

    fn: str
    args: dict[str, Any]


class Told(TypedDict):
    """Which attempt a job was, as its end is told with."""

    work: Id[Work]
    attempt: float


# What the client calls.


@mutation
async def enqueue(ctx: MutationCtx, calls: list[Call], declared: Settings) -> list[str]:
    """Add works, and return their ids in order."""
    pool = await _declared(ctx, declared)
    ids: list[str] = [await _add(ctx, pool, call) for call in calls]
    if ids:
        await worker.ping(ctx)
    return ids


@mutation
async def cancel(ctx: MutationCtx, work_id: str) -> None:
    """Do not begin a work again; what has ended, or is no work, is left alone."""
    work = await _work(ctx, work_id)
    if work is not None:
        await _cancel(ctx, work)


@mutation
async def cancel_all(ctx: MutationCtx, page_size: int, before: float | None = None) -> None:
    """Cancel all works that there are now, the newest first, a page in a transaction."""
    until = ctx.now_ms + 1 if before is None else before
    works = ctx.db.query(Work).with_index(
        "by_creation_time", lambda r: r.lt("_creationTime", until)
    )
    page = await works.order("desc").take(page_size)
    for work in page:
        await _cancel(ctx, work)
    if len(page) == page_size:
        # Times of creation are all different, and what comes meanwhile is above.
        await ctx.scheduler.run_after(0, cancel_all, page_size, page[-1]["_creationTime"])


@mutation
async def configure(ctx: MutationCtx, declared: Settings, changes: Settings) -> None:
    """Change the pool from now on; what is under way goes on."""
    await _declared(ctx, declared)
    await reconfigure(ctx, changes)


@mutation
async def reconfigure(ctx: MutationCtx, changes: Settings) -> None:
    """The same for an operator, who does not know what the code says."""
    if "max_parallelism" in changes:
        rules.check_parallelism(changes["max_parallelism"])
    pool = await _pool(ctx)
    if pool is None:
        raise ValueError("nothing was enqueued in this pool yet; its code says how it begins")
    await ctx.db.patch(pool["_id"], changes)
    await worker.ping(ctx)


@mutation
async def retry_failure(ctx: MutationCtx, work_id: str) -> str | None:
    """Enqueue a work that was set aside as it was; its new id, or None if there is none."""
    failure = await ctx.db.query(FailedWork).with_index("by_work", work=work_id).first()
    if failure is None:
        return None
    if "args" not in failure:
        raise ValueError(f"the arguments and context of {work_id} were too large to be kept")
    await ctx.db.delete(failure["_id"])
    again = await _add(ctx, await _there(ctx), _call_of(failure))
    await worker.ping(ctx)
    return again


@query
async def statuses(ctx: QueryCtx, work_ids: list[str]) -> list[dict[str, Any]]:
    """How works are, in order; what is not there has finished, or never was."""
    found: list[dict[str, Any]] = []
    for work_id in work_ids:
        work = await _work(ctx, work_id)
        if work is None:
            found.append({"state": "finished"})
        else:
            found.append({"state": work["state"], "previousAttempts": work["attempts"]})
    return found


@query
async def report(ctx: QueryCtx) -> dict[str, Any]:
    """How the pool is: what has ended since the last report, what runs and what waits."""
    pool = await _pool(ctx)
    if pool is None:
        return {}
    counted = await _report(ctx, pool)
    return {"maxParallelism": pool["max_parallelism"], **counted}


@query
async def failures(ctx: QueryCtx, limit: int) -> list[dict[str, Any]]:
    """Works that have failed for good, the newest first."""
    found = await ctx.db.query(FailedWork).order("desc").take(limit)
    return [
        {
            "workId": one["work"],
            "name": one["name"],
            "attempts": one["attempts"],
            "error": one["error"],
            "at": one["_creationTime"],
        }
        for one in found
    ]


# The loop.


@internal_query
async def get_batch(ctx: QueryCtx, limit: int) -> dict[str, Any]:
    """What can begin now, what is to be looked at, or when there is something."""
    pool = await _pool(ctx)
    if pool is None:
        return {"kind": "idle"}
    free = int(pool["max_parallelism"]) - await ctx.db.count(Run)
    pending = ctx.db.query(Work)
    begin: list[Work] = []
    wake_at: list[float] = []
    if free > 0:
        begin = await pending.with_index(
            "by_state_due", lambda r: r.eq("state", "pending").lte("due", ctx.now_ms)
        ).take(min(free, limit))
        later = await pending.with_index(
            "by_state_due", lambda r: r.eq("state", "pending").gt("due", ctx.now_ms)
        ).first()
        wake_at += [] if later is None else [later["due"]]
    first = await ctx.db.query(Run).with_index("by_check_at").take(CHECKED)
    check = [run for run in first if run["check_at"] <= ctx.now_ms]
    if begin or check:
        batch = {"begin": [work["_id"] for work in begin], "check": [run["_id"] for run in check]}
        return {"kind": "work", "batch": batch}
    wake_at += [run["check_at"] for run in first[:1]]
    return {"kind": "idle", "wake_at": min(wake_at, default=None)}


@internal_mutation
async def run_batch(ctx: MutationCtx, batch: Batch) -> None:
    """Look at runs that have taken long, and begin works as far as there is room."""
    pool = await _there(ctx)
    for run_id in batch["check"]:
        await _check(ctx, run_id)
    free = int(pool["max_parallelism"]) - await ctx.db.count(Run)
    for work_id in batch["begin"][: max(free, 0)]:
        work = await ctx.db.get(work_id)
        if work is not None and work["state"] == "pending" and work["due"] <= ctx.now_ms:
            await _begin(ctx, pool, work)
    await _say_how_it_goes(ctx, pool)


@internal_mutation
async def set_aside(ctx: MutationCtx, batch: Batch, error: str) -> None:
    """End what cannot even be begun."""
    for work_id in batch["begin"]:
        work = await ctx.db.get(work_id)
        if work is not None and work["state"] == "pending":
            await _finish(ctx, work, Outcome("failed", error=error), "failed")
    for run_id in batch["check"]:
        run = await ctx.db.get(run_id)
        if run is not None:
            await ctx.db.patch(run_id, {"check_at": ctx.now_ms + CHECK_MS})


worker = BatchWorker(loop, "main", get_batch=get_batch, run_batch=run_batch, set_aside=set_aside)


async def _begin(ctx: MutationCtx, pool: Pool, work: Work) -> None:
    told: Told = {"work": work["_id"], "attempt": work["attempts"]}
    if work["kind"] == "action":
        watched = ctx.scheduler.with_retry(ONCE, on_complete=ended, context=told)
        job = await watched.run_after(0, perform, work["_id"])
    else:
        job = await ctx.scheduler.run_after(0, carry_out, told)
    run = await ctx.db.insert(
        Run, {"work": work["_id"], "job": job, "check_at": ctx.now_ms + CHECK_MS}
    )
    await ctx.db.patch(work["_id"], {"state": "running", "run": run})
    _say(pool, "INFO", "started", workId=work["_id"], name=work["name"], job=job)


ONCE = Retry(max_attempts=1)
"""The engine tells how an action ended; trying again is up to the pool."""


async def _check(ctx: MutationCtx, run_id: Id[Run]) -> None:
    """See whether the job of a run is still there; if not, nobody else ends the run."""
    run = await ctx.db.get(run_id)
    if run is None:
        return
    work = await _work(ctx, run["work"])
    if work is None or work.get("run") != run_id:
        await ctx.db.delete(run_id)
        return
    job_id: Any = run["job"]
    job = await ctx.db.system.get(job_id)
    kind = "missing" if job is None else job["state"]["kind"]
    if kind == "missing":
        await _end(ctx, work, Outcome("failed", error="its scheduled job is gone"))
    elif kind == "canceled":
        await _end(ctx, work, Outcome("failed", error="its scheduled job was canceled"))
    elif kind == "failed" and job is not None:
        await _end(ctx, work, Outcome("failed", error=job["state"].get("error", "")))
    elif kind == "success" and job is not None and "returned" in job:
        # Whoever was to tell of it is late, or was canceled; who comes second finds it done.
        await _end(ctx, work, _outcome({"kind": "success", "value": job["returned"]}))
    elif kind == "success" and job is not None and job["completedTime"] < ctx.now_ms - TOLD_MS:
        error = "its result, too large to be kept, was never told: that was canceled"
        await _end(ctx, work, Outcome("failed", error=error, is_final=True))
    else:
        await ctx.db.patch(run_id, {"check_at": ctx.now_ms + CHECK_MS})


# Works that run.


@internal_query
async def asked(ctx: QueryCtx, work_id: Id[Work]) -> Asked | None:
    """What a work calls; None if it was canceled before that."""
    work = await ctx.db.get(work_id)
    if work is None or work.get("canceled"):
        return None
    return {"fn": work["fn"], "args": await _args(ctx, work)}


@internal_action
async def perform(ctx: ActionCtx, work_id: Id[Work]) -> dict[str, Any]:
    """Run the action of a work; its error is a result, so that its data are still there."""
    call = await ctx.run_query(asked, work_id)
    if call is None:
        return {"kind": "canceled"}
    try:
        return {"kind": "success", "value": await ctx.run_action(call["fn"], call["args"])}
    except Exception as error:
        return _failure(error)


@internal_mutation
async def ended(
    ctx: MutationCtx,
    job: str,  # noqa: ARG001 - the engine says which; the attempt says as much
    result: dict[str, Any],
    context: Told,
) -> None:
    """The engine tells how the job of an action ended."""
    work = await _under_way(ctx, context)
    if work is not None:
        await _end(ctx, work, _outcome(result))


@internal_mutation
async def carry_out(ctx: MutationCtx, told: Told) -> None:
    """Run the mutation or query of a work, and end it, in one transaction."""
    work = await _under_way(ctx, told)
    if work is not None:
        is_canceled = work.get("canceled", False)
        await _end(ctx, work, Outcome("canceled") if is_canceled else await _run(ctx, work))


async def _under_way(ctx: QueryCtx, told: Told) -> Work | None:
    """The work of an attempt that is under way; None if that has ended, however it was noticed."""
    work = await ctx.db.get(told["work"])
    is_it = work is not None and work["state"] == "running" and work["attempts"] == told["attempt"]
    return work if is_it else None


async def _run(ctx: MutationCtx, work: Work) -> Outcome:
    args = await _args(ctx, work)
    metrics = await ctx.meta.get_transaction_metrics()
    room: Any = {
        name: max(0, metrics[name]["remaining"] - kept)  # type: ignore[literal-required]
        for name, kept in RESERVE.items()
    }
    calls = ctx.transaction_limits(**room)
    run = calls.run_query if work["kind"] == "query" else calls.run_mutation
    try:
        return Outcome("success", value=await run(work["fn"], args))
    except Exception as error:
        return _outcome(_failure(error))._replace(is_final=True)


def _failure(error: Exception) -> dict[str, Any]:
    """An error as a result; whoever raised `NonRetryable` has said that it is the last."""
    data = getattr(error, "data", None)
    if isinstance(data, dict) and data.get("kind") == "NonRetryable":
        return {"kind": "failed", "error": rules.told(str(data.get("message"))), "final": True}
    return {"kind": "failed", "error": rules.told(f"{type(error).__name__}: {error}")}


def _outcome(result: dict[str, Any]) -> Outcome:
    """What the engine tells of a job, or `perform` of a call."""
    if result["kind"] == "success" and isinstance(result.get("value"), dict):
        result = result["value"]
        if result["kind"] == "success":
            return Outcome("success", value=result["value"])
    elif result["kind"] == "success":
        size = result.get("valueBytes", 0)
        error = f"its result of {size:,.0f} bytes is too large to be handed on"
        return Outcome("failed", error=error, is_final=True)
    if result["kind"] == "canceled":
        return Outcome("failed", error="its scheduled job was canceled")
    return Outcome("failed", error=result["error"], is_final=result.get("final", False))


# Ends.


async def _end(ctx: MutationCtx, work: Work, outcome: Outcome) -> None:
    """An attempt has ended: there is room for another, of this work or of one that waits."""
    await ctx.db.delete(work["run"])
    attempts = int(work["attempts"]) + 1
    retry = work.get("retry")
    ended_as = rules.verdict(
        outcome,
        attempts=attempts,
        max_attempts=1 if retry is None else int(retry["max_attempts"]),
        is_canceled=work.get("canceled", False),
    )
    if ended_as == "retries" and retry is not None:
        wait_ms = rules.wait_ms(retry, attempts, ctx.random.random())
        again = {"state": "pending", "attempts": attempts, "due": math.ceil(ctx.now_ms + wait_ms)}
        await ctx.db.patch(work["_id"], {**again, "run": UNDEFINED})
        await _count(ctx, "retries", work, attempts)
    else:
        await _finish(ctx, {**work, "attempts": attempts}, outcome, ended_as)
    if ended_as == "retries" or await _is_room_for_who_waits(ctx):
        await worker.ping(ctx)


async def _is_room_for_who_waits(ctx: QueryCtx) -> bool:
    """
    Whether a pool that was full before this end has room, and a work for it, due now or later.

    The loop of a full pool sleeps until no time of a work: it is told here to look at those again.
    """
    pool = await _there(ctx)
    if await ctx.db.count(Run) != int(pool["max_parallelism"]) - 1:
        return False
    pending = ctx.db.query(Work).with_index("by_state_due", state="pending")
    return await pending.first() is not None


async def _cancel(ctx: MutationCtx, work: Work) -> None:
    if work["state"] == "pending":
        await _finish(ctx, work, Outcome("canceled"), "canceled")
    elif not work.get("canceled"):
        await ctx.db.patch(work["_id"], {"canceled": True})


async def _finish(ctx: MutationCtx, work: Work, outcome: Outcome, ended_as: Ended) -> None:
    """Forget a work, and have whoever wants to know told how it ended."""
    await ctx.db.delete(work["_id"])
    ended_as, error = await _told(ctx, work, outcome, ended_as)
    if error is not None:
        await _keep_failure(ctx, work, error)
    for name in ("args_at", "context_at"):
        if name in work:
            await ctx.db.delete(work[name])
    await _count(ctx, ended_as, work, int(work["attempts"]))


async def _told(
    ctx: MutationCtx, work: Work, outcome: Outcome, ended_as: Ended
) -> tuple[Ended, str | None]:
    """
    Have `on_complete` told how a work has ended.

    Returns:
        How it has ended then, and why it is to be set aside, if it is.
    """
    error = outcome.error if ended_as == "failed" else None
    if "on_complete" not in work:
        return ended_as, error
    result, context = _result(outcome, ended_as), await _context(ctx, work)
    told = {"work_id": work["_id"], "context": context, "result": result}
    try:
        await ctx.scheduler.run_after(0, work["on_complete"], told)
    except InvalidValue as refused:
        if work["kind"] != "action" or ended_as != "succeeded":
            raise  # what a mutation has written goes with it
        outcome = Outcome("failed", error=f"its result cannot be handed on: {refused}")
        return await _told(ctx, work, outcome, "failed")
    except (FunctionNotFound, UnmountedComponent, WrongFunctionKind) as gone:
        # A push took it away.  The work has ended all the same: others wait for its place.
        return ended_as, f"{error or ended_as}; nobody was told: {gone}"
    return ended_as, error


def _result(outcome: Outcome, ended_as: Ended) -> dict[str, Value]:
    if ended_as == "succeeded":
        return {"kind": "success", "returnValue": outcome.value}
    if ended_as == "canceled":
        return {"kind": "canceled"}
    return {"kind": "failed", "error": outcome.error}


async def _keep_failure(ctx: MutationCtx, work: Work, error: str) -> None:
    """Set a work aside that has failed, in the place of the oldest one if there are many."""
    values = {"args": await _args(ctx, work), "context": await _context(ctx, work)}
    failure: dict[str, Value] = {
        **_told_by(work),
        "work": work["_id"],
        "attempts": work["attempts"],
        "error": rules.told(error),
    }
    if rules.size_of(values) <= rules.FAILURE_BYTES_MAX:
        failure |= values
    await ctx.db.insert(FailedWork, failure)
    if await ctx.db.count(FailedWork) > FAILURES_KEPT:
        oldest = await ctx.db.query(FailedWork).first()
        assert oldest is not None, "there is one at least"
        await ctx.db.delete(oldest["_id"])


# Rows.


async def _add(ctx: MutationCtx, pool: Pool, call: Call) -> Id[Work]:
    fields = _told_by(call)
    args, context = call["args"], call.get("context")
    sizes = rules.size_of(args), rules.size_of(context)
    for what, size in zip(("arguments", "context"), sizes, strict=True):
        if size > rules.VALUE_BYTES_MAX:
            raise ValueError(
                f"{call['name']}: {what} of {size:,} bytes; at most {rules.VALUE_BYTES_MAX:,} fit "
                "(insert a document, and give its id)"
            )
    if sizes[0] < rules.INLINE_BYTES_MAX:
        fields["args"] = args
    else:
        fields["args_at"] = await ctx.db.insert(Payload, {"value": args})
    if sum(sizes) < rules.INLINE_BYTES_MAX or sizes[1] < rules.INLINE_BYTES_MAX / 2:
        fields["context"] = context
    else:
        fields["context_at"] = await ctx.db.insert(Payload, {"value": context})
    due = max(math.ceil(call.get("due", 0)), ctx.now_ms)  # the clock that is asked has no fractions
    work = await ctx.db.insert(Work, {**fields, "state": "pending", "attempts": 0, "due": due})
    _say(pool, "INFO", "enqueued", workId=work, name=call["name"], runAt=due)
    return work


def _told_by(call: Mapping[str, Any]) -> dict[str, Value]:
    """What every row of a call has of it, whatever has become of that."""
    names = ("fn", "name", "kind", "on_complete", "retry")
    return {name: call[name] for name in names if name in call}


def _call_of(failure: FailedWork) -> Call:
    call: Any = {**_told_by(failure), "args": failure["args"], "context": failure.get("context")}
    again: Call = call
    return again


async def _work(ctx: QueryCtx, work_id: str) -> Work | None:
    """The work of that id, if it is one of this pool and has not ended."""
    known = await ctx.db.normalize_id(Work, work_id)
    if known is None:
        return None
    work = await ctx.db.get(known)
    return work  # noqa: RET504 - what `get` is given has its type from here


async def _args(ctx: QueryCtx, work: Work) -> dict[str, Any]:
    if "args_at" not in work:
        return work.get("args", {})
    args: dict[str, Any] = await _payload(ctx, work["args_at"])
    return args


async def _context(ctx: QueryCtx, work: Work) -> Any:
    return await _payload(ctx, work["context_at"]) if "context_at" in work else work.get("context")


async def _payload(ctx: QueryCtx, payload_id: Id[Payload]) -> Any:
    payload = await ctx.db.get(payload_id)
    assert payload is not None, "it goes with its work"
    return payload["value"]


async def _pool(ctx: QueryCtx) -> Pool | None:
    return await ctx.db.query(Pool).first()


async def _declared(ctx: MutationCtx, declared: Settings) -> Pool:
    """The row of the pool, which follows the code where that has changed."""
    pool = await _pool(ctx)
    if pool is None:
        row = {**NOTHING_COUNTED, **declared, "declared": declared, "reported_at": ctx.now_ms}
        await ctx.db.insert(Pool, row)
    elif pool["declared"] != declared:
        await ctx.db.patch(pool["_id"], {**declared, "declared": declared})
    else:
        return pool
    return await _there(ctx)


async def _there(ctx: QueryCtx) -> Pool:
    """The row of a pool that was used."""
    pool = await _pool(ctx)
    assert pool is not None, "a pool that was used has a row"
    return pool


NOTHING_COUNTED: dict[str, Value] = dict.fromkeys(("succeeded", "failed", "retries", "canceled"), 0)


# What operators read.


async def _count(ctx: MutationCtx, ended_as: Ended, work: Work, attempts: int) -> None:
    pool = await _there(ctx)
    await ctx.db.patch(pool["_id"], {ended_as: pool[ended_as] + 1})
    _say(
        pool, "INFO", "completed", workId=work["_id"], name=work["name"], attempts=attempts,
        status=ended_as,
    )  # fmt: skip


async def _say_how_it_goes(ctx: MutationCtx, pool: Pool) -> None:
    """A report a minute, while there is something to do."""
    if ctx.now_ms - pool["reported_at"] < REPORT_MS:
        return
    now = await _there(ctx)
    _say(now, "REPORT", "report", **await _report(ctx, now))
    await ctx.db.patch(now["_id"], {**NOTHING_COUNTED, "reported_at": ctx.now_ms})


async def _report(ctx: QueryCtx, pool: Pool) -> dict[str, float]:
    running = await ctx.db.count(Run)
    return rules.report_of(pool, running=running, waiting=await ctx.db.count(Work) - running)


def _say(pool: Pool, level: str, event: str, **fields: Value) -> None:
    if rules.LEVELS.index(level) >= rules.LEVELS.index(pool["log_level"]):
        logger.info("%s %s", event, json.dumps(fields))
