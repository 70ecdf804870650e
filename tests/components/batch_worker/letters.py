"""An application with a queue that a batch worker empties."""

from __future__ import annotations

from typing import Any

from components.batch_worker import BatchWorker, Found, component
from engine import (
    App,
    Id,
    MutationCtx,
    QueryCtx,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.functions.loader import load

LAG_MS = 30_000
REST_MS = 1_000

app = App()
mount = app.use(component, name="loop")


@internal_query
async def get_batch(ctx: QueryCtx, limit: int) -> Found:
    due = await ctx.db.query("items").where(lambda item: item["due"] <= ctx.now_ms).take(limit)
    if due:
        return {"kind": "work", "batch": [item["_id"] for item in due]}
    later = [item["due"] async for item in ctx.db.query("items")]
    return {"kind": "idle", "wake_at": min(later, default=None)}


@internal_mutation
async def run_batch(ctx: MutationCtx, batch: list[Id[Any]]) -> None:
    assert len(batch) <= 8
    items = [await ctx.db.get(item_id) for item_id in batch]
    await ctx.db.insert("batches", {"numbers": [item["n"] for item in items if item]})
    for item in items:
        assert item is not None
        await ctx.db.insert("done", {"n": item["n"], "at": ctx.now_ms})
        await ctx.db.delete(item["_id"])
        if item["poison"]:
            raise ValueError(f"number {item['n']} is poison")


@internal_mutation
async def set_aside(ctx: MutationCtx, batch: list[Id[Any]], error: str) -> None:
    for item_id in batch:
        item = await ctx.db.get(item_id)
        if item is not None:
            await ctx.db.insert("aside", {"n": item["n"], "error": error})
            await ctx.db.delete(item_id)


worker = BatchWorker(
    mount,
    "main",
    get_batch=get_batch,
    run_batch=run_batch,
    set_aside=set_aside,
    batch_size=8,
    monitor_lag=LAG_MS,
)


@internal_query
async def get_batch_of_more(ctx: QueryCtx, limit: int) -> Found:
    """The same, of a queue that knows whether there is more than this."""
    found = await get_batch(ctx, limit)
    if found["kind"] == "work":
        found["more"] = len(found["batch"]) == limit
    return found


resting = {
    name: BatchWorker(
        mount,
        name,
        get_batch=looks,
        run_batch=run_batch,
        set_aside=set_aside,
        batch_size=8,
        debounce=REST_MS,
    )
    for name, looks in {"rests": get_batch, "rests when done": get_batch_of_more}.items()
}


@mutation
async def add_to(ctx: MutationCtx, name: str, first: int, count: int) -> None:
    """Items for a worker that takes a rest."""
    for n in range(first, first + count):
        await ctx.db.insert("items", {"n": n, "poison": False, "due": ctx.now_ms})
    await resting[name].ping(ctx)


@mutation
async def add(ctx: MutationCtx, first: int, count: int, poison: bool, wait_ms: float) -> float:
    """Items that are due together, of which the first may be one that nobody can do."""
    due_ms = ctx.now_ms + wait_ms
    for n in range(first, first + count):
        await ctx.db.insert("items", {"n": n, "poison": poison and n == first, "due": due_ms})
    await worker.ping(ctx)
    return due_ms


@mutation
async def ping(ctx: MutationCtx) -> None:
    await worker.ping(ctx)


@mutation
async def start(ctx: MutationCtx) -> None:
    await worker.start(ctx)


@mutation
async def stop(ctx: MutationCtx) -> None:
    await worker.stop(ctx)


@query
async def status(ctx: QueryCtx) -> Any:
    return await worker.status(ctx)


@query
async def numbers(ctx: QueryCtx, table: str) -> list[int]:
    return [row["n"] async for row in ctx.db.query(table)]


@query
async def times(ctx: QueryCtx) -> dict[str, float]:
    """When each was done, in the order in which they were."""
    return {str(row["n"]): row["at"] async for row in ctx.db.query("done")}


@query
async def batches(ctx: QueryCtx) -> list[list[int]]:
    return [row["numbers"] async for row in ctx.db.query("batches")]


APPLICATION = load(
    [
        app,
        get_batch,
        get_batch_of_more,
        run_batch,
        set_aside,
        add,
        add_to,
        ping,
        start,
        stop,
        status,
        numbers,
        times,
        batches,
    ]
)
