"""
How migrations go on: a batch is a transaction, and schedules the next one.

    start -> step -> step -> ... -> ended -> advance (what comes after it) -> step -> ...

Everything that is to happen is a row before the transaction that decided it has ended, and a job
that is its row's.  So whatever is lost with a process is either both or neither of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Literal, cast

from components.migrations.body import refuse_unless_size, told
from components.migrations.protocol import (
    Batch,
    MigrationStatus,
    PartStatus,
    Plan,
    Skipped,
)
from components.migrations.schema import Failure, Member, Migration, Part, Series
from engine import (
    UNDEFINED,
    ArgumentValidationError,
    ConvexError,
    Id,
    MutationCtx,
    OrderedQuery,
    QueryCtx,
    Undefined,
    internal,
    internal_mutation,
    mutation,
    query,
)

HANDLE: Final = "function://"
AT_ONCE: Final = 100
"""Migrations that one transaction lists, cancels or clears."""
FAILURES_KEPT: Final = 100
"""Of a migration; there may be as many as documents, and what is wrong is mostly one thing."""
FAILURES_SHOWN: Final = 10
READS_KEPT: Final = {"documents_read": 300, "database_queries": 50, "bytes_read": 1_000_000}
"""What a batch leaves for keeping what came of it."""

State = Literal["inProgress", "success", "failed", "canceled", "unknown"]


@mutation
async def start(
    ctx: MutationCtx,
    name: str,
    fn: str,
    next: list[Member],  # noqa: A002 - as everywhere else
    reset: bool = False,
    skip_errors: bool = False,
    one_batch_only: bool = False,
    is_begun: bool = False,
    batch_size: float | None = None,
    cursor: str | Undefined | None = UNDEFINED,
) -> MigrationStatus:
    """
    Start a migration, or go on with it, and with those in `next` after it.

    If one of them is in progress nothing is started now: its status is returned, and the others
    follow it.

    Args:
        one_batch_only: whoever calls this will call again, with `is_begun`, for the next one; what
            has been ended meanwhile stays so.
    """
    members: list[Member] = [{"name": name, "fn": fn}, *next]
    _check(members, batch_size)
    if (busy := await _busy(ctx, members)) is not None:
        left = next if busy["name"] == name else members
        await _queue(ctx, busy["name"], left, reset, skip_errors)
        return await _status(ctx, busy["name"])
    row = await _row(ctx, name)
    if is_begun:
        if row is not None and row["state"] == "inProgress":
            await _go_on(ctx, row, one_batch_only=one_batch_only)
        return await _status(ctx, name)
    is_fresh = row is None or reset or cursor is not UNDEFINED
    if row is not None and row["state"] == "success" and not is_fresh:
        await _queue(ctx, name, next, reset, skip_errors)
        await _advance_all(ctx, name)
        return await _status(ctx, name)
    row = await _begin(ctx, members[0], row, batch_size, skip_errors)
    if is_fresh:
        row = await _divide(ctx, row, None if cursor is UNDEFINED else cursor)
    await _queue(ctx, name, next, reset, skip_errors)
    await _go_on(ctx, row, one_batch_only=one_batch_only)
    return await _status(ctx, name)


@query
async def get_status(
    ctx: QueryCtx, names: list[str] | None = None, limit: int = AT_ONCE
) -> list[MigrationStatus]:
    """Of those that are named, in that order; or of the latest ones, the oldest first."""
    if names is None:
        newest = await ctx.db.query(Migration).order("desc").take(min(limit, AT_ONCE))
        names = [row["name"] for row in reversed(newest)]
    return [await _status(ctx, name) for name in names]


@mutation
async def cancel(ctx: MutationCtx, name: str) -> MigrationStatus:
    """Stop a migration that is in progress, and do not begin what was to come after it."""
    row = await _row(ctx, name)
    if row is None:
        raise ConvexError({"kind": "MigrationNotFound", "name": name})
    if row["state"] == "inProgress":
        await _stop(ctx, row, "canceled", UNDEFINED)
    return await _status(ctx, name)


@mutation
async def cancel_all(ctx: MutationCtx) -> list[MigrationStatus]:
    """Stop those that are in progress; many of them some at a time, and the first are returned."""
    running = ctx.db.query(Migration).with_index("by_state", state="inProgress")
    rows = await running.take(AT_ONCE)
    for row in rows:
        await _stop(ctx, row, "canceled", UNDEFINED)
    if len(rows) == AT_ONCE:
        await ctx.scheduler.run_after(0, internal.functions.cancel_all, {})
    return [await _status(ctx, row["name"]) for row in rows]


@mutation
async def clear_all(ctx: MutationCtx, before: float | None = None) -> None:
    """
    Forget migrations that are not in progress, some at a time: they could be run again.

    Args:
        before: only those that were first started before this; the default is now.
    """
    before = ctx.now_ms if before is None else before
    for state in ("success", "failed", "canceled"):
        rows = await _ended(ctx, state, before).take(AT_ONCE)
        for row in rows:
            await _forget_parts(ctx, row)
            await ctx.db.delete(row["_id"])
        if len(rows) == AT_ONCE:
            await ctx.scheduler.run_after(0, internal.functions.clear_all, {"before": before})
            return


@internal_mutation
async def step(ctx: MutationCtx, part: Id[Part]) -> None:
    """
    Run the next batch of a part.

    There is one such job of a part at most: whoever ends a migration cancels it, and nobody
    begins one that has any.
    """
    found = await ctx.db.get(part)
    if found is None:
        return
    row = await ctx.db.get(found["migration"])
    assert row is not None, "a migration goes with its parts"
    if row["state"] == "inProgress":
        await _batch(ctx, row, found, one_batch_only=False)


@internal_mutation
async def advance(ctx: MutationCtx, series: Id[Series], after: str) -> None:
    """Begin what comes `after` a migration in a series, once none of them is in progress."""
    found = await ctx.db.get(series)
    if found is None or found["waits_for"] != after:  # somebody else has begun it
        return
    left = found["left"]
    if (busy := await _busy(ctx, left)) is not None:
        await ctx.db.patch(series, {"waits_for": busy["name"]})
        return
    while left:
        member, left = left[0], left[1:]
        row = await _row(ctx, member["name"])
        if row is not None and row["state"] == "success" and not found["reset"]:
            continue
        await ctx.db.patch(series, {"waits_for": member["name"], "left": left})
        await _begin_in_turn(ctx, member, row, found)
        return
    await ctx.db.delete(series)


# Beginning.


def _check(members: list[Member], batch_size: float | None) -> None:
    if batch_size is not None:
        refuse_unless_size(batch_size)
    for member in members:
        if not member["fn"].startswith(HANDLE):
            raise ValueError(
                f"{member['fn']!r} is no function handle: start migrations by run_one, "
                "run_serially, a runner or `headrace migrations run`"
            )


async def _busy(ctx: MutationCtx, members: list[Member]) -> Migration | None:
    """The first of them that somebody is at."""
    for member in members:
        row = await _row(ctx, member["name"])
        if row is not None and await _state(ctx, row, await _parts(ctx, row)) == "inProgress":
            return row
    return None


async def _begin(
    ctx: MutationCtx,
    member: Member,
    row: Migration | None,
    batch_size: float | None,
    skip_errors: bool,
) -> Migration:
    state = {
        "fn": member["fn"],
        "state": "inProgress",
        "skip_errors": skip_errors,
        "batch_size": UNDEFINED if batch_size is None else batch_size,
        "error": UNDEFINED,
        "latest_start": ctx.now_ms,
        "latest_end": UNDEFINED,
    }
    if row is None:
        given = {name: value for name, value in state.items() if value is not UNDEFINED}
        id = await ctx.db.insert(Migration, {"name": member["name"], "skipped": 0, **given})  # noqa: A001
    else:
        id = row["_id"]  # noqa: A001
        # Where a batch has failed as a whole, those of other parts may still be to come.
        await _call_off(ctx, row)
        await ctx.db.patch(id, state)
    begun = await ctx.db.get(id)
    assert begun is not None, "it was just written"
    return begun


async def _divide(ctx: MutationCtx, row: Migration, cursor: str | None) -> Migration:
    """Begin at the beginning, or at `cursor`, with parts as they are made now."""
    await _forget_parts(ctx, row)
    plan = await _plan(ctx, {"name": row["name"], "fn": row["fn"]})
    if cursor is not None and len(plan["parts"]) > 1:
        raise ValueError(f"{row['name']} has several ranges: one cursor is no place in them")
    total = UNDEFINED if plan["total"] is None else plan["total"]
    await ctx.db.patch(row["_id"], {"skipped": 0, "total": total})
    for number, bounds in enumerate(plan["parts"]):
        part = {"migration": row["_id"], "number": number, "cursor": cursor, **bounds}
        await ctx.db.insert(Part, {**part, "is_done": False, "processed": 0})
    return {**row, "skipped": 0}


async def _plan(ctx: MutationCtx, member: Member) -> Plan:
    """
    The parts that it would have now; whoever has some is a migration.

    Raises:
        ValueError: it is another function, or has none at the moment.
    """
    try:
        found = await ctx.run_mutation(member["fn"], {"do": {"kind": "plan"}})
    except ArgumentValidationError as error:
        raise ValueError(f"{member['name']} is no migration: {error}") from None
    if not isinstance(found, Mapping) or "parts" not in found:
        raise ValueError(f"{member['name']} is no migration: it returned {found!r}")
    return cast("Plan", found)


async def _go_on(ctx: MutationCtx, row: Migration, *, one_batch_only: bool) -> None:
    """Run a batch of the first part that is not done, and schedule one of each other."""
    left = [part for part in await _parts(ctx, row) if not part["is_done"]]
    if not left:
        await _end_if_done(ctx, row)
        return
    if not one_batch_only:
        for part in left[1:]:
            await _schedule(ctx, part)
    await _batch(ctx, row, left[0], one_batch_only=one_batch_only)


async def _begin_in_turn(
    ctx: MutationCtx, member: Member, row: Migration | None, series: Series
) -> None:
    row = await _begin(ctx, member, row, None, series["skip_errors"])
    try:
        if series["reset"] or not await _parts(ctx, row):
            row = await _divide(ctx, row, None)
    except Exception as error:
        await _stop(ctx, row, "failed", told(error))
        return
    await _go_on(ctx, row, one_batch_only=False)


def _ended(ctx: QueryCtx, state: str, before: float) -> OrderedQuery[Migration]:
    return ctx.db.query(Migration).with_index(
        "by_state", lambda r: r.eq("state", state).lt("_creationTime", before)
    )


async def _forget_parts(ctx: MutationCtx, row: Migration) -> None:
    for part in await _parts(ctx, row):
        await ctx.db.delete(part["_id"])
    async for failure in _failures(ctx, row):
        await ctx.db.delete(failure["_id"])


# Going on.


async def _batch(ctx: MutationCtx, row: Migration, part: Part, *, one_batch_only: bool) -> None:
    """Run a batch as a sub-transaction, and keep what came of it, an error too."""
    asked = {
        "kind": "batch",
        "part": int(part["number"]),
        "bounds": {name: part[name] for name in ("lower", "upper", "custom") if name in part},
        "cursor": part["cursor"],
        **({"size": row["batch_size"]} if "batch_size" in row else {}),
    }
    calls = await _leaving_room(ctx)
    try:
        try:
            found: Batch = await calls.run_mutation(
                row["fn"], {"do": {**asked, "one_by_one": False}}
            )
        except Exception:
            if not row["skip_errors"]:
                raise
            found = await calls.run_mutation(row["fn"], {"do": {**asked, "one_by_one": True}})
    except Exception as error:
        await _stop(ctx, row, "failed", told(error), under_way=part["_id"])
        return
    await _keep(ctx, row, part, found, one_batch_only=one_batch_only)


async def _keep(
    ctx: MutationCtx, row: Migration, part: Part, found: Batch, *, one_batch_only: bool
) -> None:
    state = {
        "cursor": found["continueCursor"],
        "is_done": found["isDone"],
        "processed": part["processed"] + found["processed"],
        "job": UNDEFINED,
    }
    await _keep_skipped(ctx, row, found["skipped"])
    await ctx.db.patch(part["_id"], state)
    if found["isDone"]:
        await _end_if_done(ctx, row)
    elif not one_batch_only:
        await _schedule(ctx, part)


async def _keep_skipped(ctx: MutationCtx, row: Migration, skipped: list[Skipped]) -> None:
    if not skipped:
        return
    room = max(FAILURES_KEPT - int(row["skipped"]), 0)
    for each in skipped[:room]:
        await ctx.db.insert(Failure, {"migration": row["_id"], **each})
    await ctx.db.patch(row["_id"], {"skipped": row["skipped"] + len(skipped)})


async def _schedule(ctx: MutationCtx, part: Part) -> None:
    job = await ctx.scheduler.run_after(0, internal.functions.step, {"part": part["_id"]})
    await ctx.db.patch(part["_id"], {"job": job})


async def _leaving_room(ctx: MutationCtx) -> Any:
    metrics = await ctx.meta.get_transaction_metrics()
    counted = cast("Mapping[str, Mapping[str, int]]", metrics)
    left: Any = {name: max(counted[name]["remaining"] - n, 0) for name, n in READS_KEPT.items()}
    return ctx.transaction_limits(**left)


# Ending.


async def _end_if_done(ctx: MutationCtx, row: Migration) -> None:
    if all(part["is_done"] for part in await _parts(ctx, row)):
        await ctx.db.patch(row["_id"], {"state": "success", "latest_end": ctx.now_ms})
        await _advance_all(ctx, row["name"])


async def _stop(
    ctx: MutationCtx,
    row: Migration,
    state: Literal["failed", "canceled"],
    error: str | Undefined,
    *,
    under_way: Id[Part] | None = None,
) -> None:
    """
    End it before it is done, and the series that wait for it.

    Args:
        under_way: the part whose batch this is, and whose job ends by itself.
    """
    await _call_off(ctx, row, under_way)
    ended = {"state": state, "error": error, "latest_end": ctx.now_ms}
    await ctx.db.patch(row["_id"], ended)
    async for series in _waiting(ctx, row["name"]):
        await ctx.db.delete(series["_id"])


async def _call_off(ctx: MutationCtx, row: Migration, under_way: Id[Part] | None = None) -> None:
    """
    Have no batch of its parts be to come, but for the part whose batch this is.

    A job that failed as a whole is still named in its part, also when its row has been swept.
    """
    for part in await _parts(ctx, row):
        if "job" in part and part["_id"] != under_way:
            job = cast("Id[Any]", part["job"])
            if await ctx.db.system.get(job) is not None:
                await ctx.scheduler.cancel(job)
            await ctx.db.patch(part["_id"], {"job": UNDEFINED})


async def _queue(
    ctx: MutationCtx, waits_for: str, left: list[Member], reset: bool, skip_errors: bool
) -> None:
    """
    Have migrations run after another one; the same ones once, however often that is said.

    Raises:
        ValueError: one of them is none.
    """
    if not left:
        return
    for member in left:
        await _plan(ctx, member)
    wanted = {"waits_for": waits_for, "left": left, "reset": reset, "skip_errors": skip_errors}
    async for series in _waiting(ctx, waits_for):
        if all(series[name] == value for name, value in wanted.items()):
            return
    await ctx.db.insert(Series, wanted)


async def _advance_all(ctx: MutationCtx, name: str) -> None:
    async for series in _waiting(ctx, name):
        args = {"series": series["_id"], "after": name}
        await ctx.scheduler.run_after(0, internal.functions.advance, args)


# Looking.


async def _status(ctx: QueryCtx, name: str) -> MigrationStatus:
    row = await _row(ctx, name)
    if row is None:
        return _unknown(name)
    parts = await _parts(ctx, row)
    state = await _state(ctx, row, parts)
    status: MigrationStatus = {
        "name": name,
        "state": state,
        "isDone": row["state"] == "success",
        "cursor": parts[0]["cursor"] if len(parts) == 1 else None,
        "processed": int(sum(part["processed"] for part in parts)),
        "skipped": int(row["skipped"]),
        "failures": [_shown(each) for each in await _failures(ctx, row).take(FAILURES_SHOWN)],
        "parts": [_part_status(part) for part in parts] if len(parts) > 1 else [],
        "next": [each["name"] async for each in _successors(ctx, name)],
        "latestStart": row["latest_start"],
    }
    for shown, kept in (("error", "error"), ("latestEnd", "latest_end"), ("total", "total")):
        if kept in row:
            status[shown] = row[kept]  # type: ignore[literal-required]
    if "batch_size" in row:
        status["batchSize"] = int(row["batch_size"])
    if state == "failed" and "error" not in row:
        status["error"] = await _error_of_jobs(ctx, parts)
    return status


def _unknown(name: str) -> MigrationStatus:
    return {
        "name": name,
        "state": "unknown",
        "isDone": False,
        "cursor": None,
        "processed": 0,
        "skipped": 0,
        "failures": [],
        "parts": [],
        "next": [],
    }


def _part_status(part: Part) -> PartStatus:
    return {
        "cursor": part["cursor"],
        "processed": int(part["processed"]),
        "isDone": part["is_done"],
    }


def _shown(failure: Failure) -> Skipped:
    return {"document": failure["document"], "error": failure["error"]}


async def _state(ctx: QueryCtx, row: Migration, parts: list[Part]) -> State:
    """
    The state of a migration; of one in progress it is that of its jobs.

    A batch that overran its time has failed as a whole, and could not say so in its row.
    """
    if row["state"] != "inProgress":
        return row["state"]
    states = {job["state"]["kind"] for job in await _jobs(ctx, parts)}
    if "failed" in states:
        return "failed"
    if states & {"pending", "inProgress"}:
        return "inProgress"
    return "canceled" if "canceled" in states else "unknown"


async def _error_of_jobs(ctx: QueryCtx, parts: list[Part]) -> str:
    errors = [job["state"].get("error", "") for job in await _jobs(ctx, parts)]
    return next((error for error in errors if error), "")


async def _jobs(ctx: QueryCtx, parts: list[Part]) -> list[Mapping[str, Any]]:
    ids = [part["job"] for part in parts if "job" in part and not part["is_done"]]
    found = [await ctx.db.system.get(cast("Id[Any]", job)) for job in ids]
    return [job for job in found if job is not None]


async def _row(ctx: QueryCtx, name: str) -> Migration | None:
    return await ctx.db.query(Migration).with_index("by_name", name=name).unique()


async def _parts(ctx: QueryCtx, row: Migration) -> list[Part]:
    parts = ctx.db.query(Part).with_index("by_migration", migration=row["_id"])
    return await parts.collect()


def _failures(ctx: QueryCtx, row: Migration) -> Any:
    return ctx.db.query(Failure).with_index("by_migration", migration=row["_id"])


def _waiting(ctx: QueryCtx, name: str) -> Any:
    return ctx.db.query(Series).with_index("by_waits_for", waits_for=name)


async def _successors(ctx: QueryCtx, name: str) -> AsyncIterator[Member]:
    seen: set[str] = {name}
    async for series in _waiting(ctx, name):
        for member in series["left"]:
            if member["name"] not in seen:
                seen.add(member["name"])
                yield member
