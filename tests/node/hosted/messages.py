"""Queries and mutations: what can be called, followed and made to fail."""

from __future__ import annotations

from typing import Any

from engine import ConvexError, MutationCtx, QueryCtx, internal_query, mutation, query


@mutation
async def send(ctx: MutationCtx, body: str) -> str:
    return await ctx.db.insert("messages", {"body": body})


@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [message["body"] async for message in ctx.db.query("messages")]


@query
async def documents(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.query("messages").collect()


@query
async def longest(ctx: QueryCtx) -> int:
    return max([len(message["body"]) async for message in ctx.db.query("messages")], default=0)


@query
async def no_bombs(ctx: QueryCtx) -> int:
    """How many messages there are, as long as none is a bomb."""
    found = await ctx.db.query("messages").collect()
    if any(message["body"] == "bomb" for message in found):
        raise LookupError("a bomb")
    return len(found)


@mutation
async def clear(ctx: MutationCtx) -> None:
    async for message in ctx.db.query("messages"):
        await ctx.db.delete(message["_id"])


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@mutation
async def fail(ctx: MutationCtx) -> None:
    await ctx.db.insert("messages", {"body": "never"})
    _explode()


def _explode() -> None:
    raise LookupError("no such thing")


@mutation
async def refuse(ctx: MutationCtx, data: Any) -> None:
    raise ConvexError(data)


@query
async def spin(ctx: QueryCtx, turns: int) -> int:
    total = 0
    for turn in range(turns):
        total += turn
    return total


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "secret"
