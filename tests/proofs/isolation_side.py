"""What each side of the proof of isolation has: the application and every component the same."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

from engine import (
    ActionCtx,
    Change,
    Id,
    Mount,
    MutationCtx,
    QueryCtx,
    Schema,
    Table,
    TriggerCtx,
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    paginator,
    query,
    trigger,
    v,
)
from tests.proofs.isolation_attempts import Attempt, attempts

TRIED: dict[str, Attempt] = {attempt.name: attempt for attempt in attempts()}
NEVER = "0 0 29 2 *"
"""Of a cron whose next tick is not to come while the proof runs."""


def schema() -> Schema:
    return Schema(
        items=Table(
            {
                "word": v.string(),
                "n": v.optional(v.number()),
                "vector": v.optional(v.array(v.float64())),
            }
        )
        .index("by_n", ["n"])
        .search_index("by_word", search_field="word")
        .vector_index("by_vector", vector_field="vector", dimensions=2),
        links=Table({"item": v.id("items")}),
    )


def make(  # noqa: C901 - a function each, and none of them is complex
    path: str, mounts: Mapping[str, Mount]
) -> SimpleNamespace:
    """Functions of the module that calls this, whose component is at `path` and has `mounts`."""
    words: list[str] = []

    @internal_mutation
    async def secret(ctx: MutationCtx) -> str:
        await ctx.db.insert("stolen", {})
        return "a secret"

    @internal_query
    async def peek(ctx: QueryCtx) -> int:
        return 1 + len(await ctx.db.query("items").collect())

    @internal_action
    async def act(ctx: ActionCtx) -> str:
        return "a secret"

    @query
    async def item(ctx: QueryCtx, item: Id[Literal["items"]]) -> str:
        return str(await ctx.db.get(item))

    @query
    async def kept(ctx: QueryCtx) -> list[str]:
        return list(words)

    @internal_query
    async def first_found(ctx: QueryCtx) -> str:
        items = ctx.db.query("items")
        found = items.with_search_index("by_word", lambda q: q.search("word", "word"))
        return (await found.paginate({"numItems": 1, "cursor": None}))["continueCursor"]

    @internal_query
    async def first_job(ctx: QueryCtx) -> str:
        jobs = ctx.db.system.query("_scheduled_functions")
        return (await jobs.paginate({"numItems": 1, "cursor": None}))["continueCursor"]

    @trigger("items")
    async def follow(ctx: TriggerCtx, change: Change[Any]) -> None:
        await ctx.raw_db.insert("followed", {"id": change.id})

    @mutation
    async def fill(ctx: MutationCtx) -> dict[str, Any]:
        """Put into each place what others are not to reach, and say what there is to know of it."""
        word = f"word {path or 'application'}"
        words.append(word)
        ids = [
            await ctx.db.insert("items", {"word": word, "n": n, "vector": [0.6, 0.8]})
            for n in range(3)
        ]
        hidden = f"of_{path.replace('/', '_') or 'application'}"
        await ctx.db.insert(hidden, {"word": word})
        cron = f"cron of {path}"
        await ctx.crons.register(cron, secret, cron=NEVER)
        options = {"numItems": 1, "cursor": None}
        items = ctx.db.query("items").with_index("by_n")
        places = paginator(ctx.db).query("items").with_index("by_n")
        return {
            "path": path,
            "word": word,
            "id": ids[0],
            "hidden": hidden,
            "job": await ctx.scheduler.run_after(1_000_000_000, secret),
            "cron": cron,
            "cursor": (await items.paginate(options))["continueCursor"],  # type: ignore[arg-type]
            "place": (await places.paginate(options))["continueCursor"],  # type: ignore[arg-type]
            "handle": await ctx.create_function_handle(secret),
            "given": await ctx.create_function_handle(kept),
        }

    @mutation
    async def attempt(ctx: MutationCtx, name: str, loot: dict[str, Any], way: list[str]) -> Any:
        if way:
            args = {"name": name, "loot": loot, "way": way[1:]}
            return await ctx.run_mutation(mounts[way[0]].attempt, args)
        return await TRIED[name].run(ctx, loot)

    @action
    async def attempt_in_action(
        ctx: ActionCtx, name: str, loot: dict[str, Any], way: list[str]
    ) -> Any:
        if way:
            args = {"name": name, "loot": loot, "way": way[1:]}
            return await ctx.run_action(mounts[way[0]].attempt_in_action, args)
        return await TRIED[name].run(ctx, loot)

    return SimpleNamespace(**{n: one for n, one in locals().items() if n not in ("path", "mounts")})
