"""
The application of the simulations of a whole engine, in versions that are pushed over each other.

Every call has a token of its own, so that the log tells what became of it.  What it all means is
said once more, in plain Python, by `tests.simulation.meaning`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, Protocol

import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx, TriggerCtx
from engine.app.crons import Crons
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.triggers import Change, trigger
from engine.app.validators import v
from engine.errors import ConvexError
from engine.functions.loader import load

MOVES: Final = 1_001
DROPS: Final = 1_002
CANCELS: Final = 1_003
"""Counters of how often that was done."""
PAGE_ITEMS: Final = 3
STUFFING: Final = "x" * 900_000
STUFFING_COUNT: Final = 3


class Outside(Protocol):
    """The world beyond the engine, where what an action does cannot be undone."""

    def begin(self, name: str) -> None: ...

    def end(self, name: str) -> None: ...


class _Nowhere:
    def begin(self, name: str) -> None:
        raise AssertionError(f"{name} runs in no simulation")

    end = begin


outside: Outside = _Nowhere()


# What clients call.


@mutation
async def add(ctx: MutationCtx, token: float, group: float, rank: float) -> int:
    """Put an item in a group; how many there are then."""
    await _insert(ctx, token, group, rank)
    return len(await ctx.db.query("items").with_index("by_group", group=group).collect())


async def _insert(ctx: MutationCtx, token: float, group: float, rank: float) -> None:
    item = {"token": token, "group": group, "rank": rank, "added": ctx.db.vars.commit_ts}
    await ctx.db.insert("items", item)


@mutation
async def bump(ctx: MutationCtx, token: float, key: float, by: float) -> float:
    """Add to a counter; what it says then."""
    row = await ctx.db.query("counters").with_index("by_key", key=key).unique()
    if row is None:
        await ctx.db.insert("counters", {"key": key, "n": by})
        return by
    await ctx.db.patch(row["_id"], {"n": row["n"] + by})
    return float(row["n"] + by)


@mutation
async def move(ctx: MutationCtx, token: float, group: float, to: float) -> float | None:
    """Put the first item of a group in another; which one that was."""
    first = await ctx.db.query("items").with_index("by_group", group=group).first()
    if first is not None:
        await ctx.db.patch(first["_id"], {"group": to})
    await ctx.run_mutation(bump, token=token, key=MOVES, by=1)
    return None if first is None else first["token"]


@mutation
async def drop(ctx: MutationCtx, token: float, group: float) -> float | None:
    """Delete the last item of a group, after something else that fails; which one that was."""
    last = await ctx.db.query("items").with_index("by_group", group=group).order("desc").first()
    if last is not None:
        await ctx.db.delete(last["_id"])
    try:
        await ctx.run_mutation(spoil, token=token, group=group)
    except ConvexError:
        await ctx.run_mutation(bump, token=token, key=DROPS, by=1)
    return None if last is None else last["token"]


@internal_mutation
async def spoil(ctx: MutationCtx, token: float, group: float) -> None:
    """Change a few things and fail."""
    await _insert(ctx, token, group, 0)
    await ctx.run_mutation(bump, token=token, key=DROPS, by=1_000_000)
    await ctx.scheduler.run_after(0, land, token=token)
    raise ConvexError("as planned")


@mutation
async def fail(ctx: MutationCtx, token: float, group: float) -> None:
    """Likewise, from outside."""
    await ctx.run_mutation(spoil, token=token, group=group)


@mutation
async def stuff(ctx: MutationCtx, token: float) -> None:
    """Write more than there is room for."""
    for _ in range(STUFFING_COUNT):
        await ctx.db.insert("stuff", {"filling": STUFFING})


@mutation
async def plan(ctx: MutationCtx, token: float, delay_ms: float, what: str) -> None:
    """Have something done later, under the same token."""
    chosen: Any = {"land": land, "miss": miss, "act": act}[what]
    after = timedelta(milliseconds=delay_ms)
    job = await ctx.scheduler.run_after(after, chosen, token=token)
    await ctx.db.insert("plans", {"token": token, "job": job})


@mutation
async def cancel(ctx: MutationCtx, token: float, which: float) -> bool:
    """Cancel what was planned under a token; whether there was such a plan."""
    planned = await ctx.db.query("plans").with_index("by_token", token=which).unique()
    if planned is not None:
        await ctx.scheduler.cancel(planned["job"])
    await ctx.run_mutation(bump, token=token, key=CANCELS, by=1)
    return planned is not None


# What follows writes.


@trigger("items")
async def tally(ctx: TriggerCtx, change: Change[Any]) -> None:
    """Keep count of each group, an empty one's too."""
    for item, by in ((change.old, -1), (change.new, 1)):
        if item is None:
            continue
        row = await ctx.db.query("tallies").with_index("by_group", group=item["group"]).unique()
        if row is None:
            await ctx.db.insert("tallies", {"group": item["group"], "n": by})
        else:
            await ctx.db.patch(row["_id"], {"n": row["n"] + by})


# What is run by the clock.


@internal_mutation
async def land(ctx: MutationCtx, token: float) -> None:
    await ctx.db.insert("landed", {"token": token})


@internal_mutation
async def miss(ctx: MutationCtx, token: float) -> None:
    await ctx.db.insert("landed", {"token": token})
    raise ConvexError("as planned")


@internal_action
async def act(ctx: ActionCtx, token: float) -> None:
    """Do something that cannot be undone, which takes a while."""
    outside.begin(f"act {token:g}")
    try:
        await trio.sleep(token % 7 * 0.3)
        await ctx.run_mutation(land, token=token)
    finally:
        outside.end(f"act {token:g}")


@internal_mutation
async def tick(ctx: MutationCtx, name: str) -> None:
    await ctx.db.insert("ticks", {"name": name})


@internal_action
async def beat(ctx: ActionCtx) -> None:
    """Take now and then longer than it is until the next beat."""
    outside.begin("beat")
    try:
        await trio.sleep(ctx.random.random() * 4)
        await ctx.run_mutation(tick, name="beat")
    finally:
        outside.end("beat")


# What clients look at.


@query
async def of_group(ctx: QueryCtx, group: float) -> list[list[float]]:
    found = ctx.db.query("items").with_index("by_group", group=group)
    return [[item["token"], item["rank"]] async for item in found]


@query
async def counted(ctx: QueryCtx) -> list[list[float]]:
    rows = await ctx.db.query("counters").with_index("by_key").collect()
    return [[row["key"], row["n"]] for row in rows]


@query
async def tallied(ctx: QueryCtx) -> list[list[float]]:
    rows = await ctx.db.query("tallies").with_index("by_group").collect()
    return [[row["group"], row["n"]] for row in rows if row["n"]]


@query
async def sizes(ctx: QueryCtx) -> list[int]:
    return [await ctx.db.count(table) for table in ("items", "landed", "ticks", "plans")]


@query
async def page_of(ctx: QueryCtx, group: float) -> dict[str, Any]:
    items = ctx.db.query("items").with_index("by_group", group=group)
    page = await items.paginate({"numItems": PAGE_ITEMS, "cursor": None})
    return {"tokens": [item["token"] for item in page["page"]], "isDone": page["isDone"]}


@query
async def jobs(ctx: QueryCtx) -> list[list[Any]]:
    rows = await ctx.db.system.query("_scheduled_functions").collect()
    return [[row["args"][0]["token"], row["state"]["kind"]] for row in rows]


@query
async def ranked(ctx: QueryCtx, rank: float) -> list[float]:
    """Only in one version, with an index that only it has."""
    found = ctx.db.query("items").with_index("by_rank", rank=rank)
    return sorted([item["token"] async for item in found])


@query
async def ranked_then(ctx: QueryCtx, rank: float) -> list[float]:
    """In all versions, for states of the past in which one had the index."""
    found = ctx.db.query("items").with_index("by_rank", rank=rank).order("desc")
    return sorted([item["token"] async for item in found])


FUNCTIONS: Final[tuple[Any, ...]] = (
    add, bump, move, drop, spoil, fail, stuff, plan, cancel, land, miss, act, tick, beat,
    tally, of_group, counted, tallied, sizes, page_of, jobs, ranked_then,
)  # fmt: skip

ITEM: Final = v.object(
    {"token": v.number(), "group": v.number(), "rank": v.number(), "added": v.commit_ts()}
)


def _schema(change: Callable[[Table], Table] = lambda items: items) -> Schema:
    items = (
        Table(ITEM).index("by_group", ["group", "rank"]).index("by_token", ["token"], unique=True)
    )
    return Schema(
        items=change(items),
        counters=Table(v.object({"key": v.number(), "n": v.number()})).index("by_key", ["key"]),
        tallies=Table(v.object({"group": v.number(), "n": v.number()})).index(
            "by_group", ["group"], unique=True
        ),
        plans=Table(v.object({"token": v.number(), "job": v.string()})).index(
            "by_token", ["token"]
        ),
        landed=Table(v.object({"token": v.number()})),
        ticks=Table(v.object({"name": v.string()})),
        stuff=Table(v.object({"filling": v.string()})),
    )


def _crons(beat_s: int, tick_s: int | None = None) -> Crons:
    crons = Crons()
    crons.interval("beat", beat, seconds=beat_s)
    if tick_s is not None:
        crons.interval("tick", tick, seconds=tick_s, args={"name": "tick"})
    return crons


@query
async def strict(ctx: QueryCtx) -> bool:
    """Only in the version in which no two items may have one rank."""
    return True


PLAIN: Final = load([*FUNCTIONS, _schema(), _crons(3, 5)])
RANKED: Final = load(
    [*FUNCTIONS, ranked, _schema(lambda items: items.index("by_rank", ["rank"])), _crons(4, 3)]
)
STRICT: Final = load(
    [
        *FUNCTIONS,
        strict,
        _schema(
            lambda items: items.index("one_of_a_rank", ["rank"], unique=True).index(
                "in_time", ["rank", "token"], staged=True
            )
        ),
        _crons(3),
    ]
)
"""Refused where two items have one rank, which is soon the case."""

VERSIONS: Final[tuple[Application, ...]] = (PLAIN, RANKED, STRICT)
