"""Functions that do a little of everything that a client can ask for."""

from __future__ import annotations

from typing import Any

from engine import (
    ActionCtx,
    ConvexError,
    Id,
    Int64,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    UserIdentity,
    action,
    internal_query,
    mutation,
    query,
)

from .schema import Counter, Message


@query(name="list")
async def list_messages(ctx: QueryCtx, channel: str) -> list[Message]:
    return await ctx.db.query(Message).with_index("by_channel", channel=channel).collect()


@query
async def count(ctx: QueryCtx) -> int:
    return len(await ctx.db.query(Message).collect())


@query
async def paged(ctx: QueryCtx, channel: str, opts: PaginationOptions) -> Page[Message]:
    return await ctx.db.query(Message).with_index("by_n", channel=channel).paginate(opts)


@query
async def search(ctx: QueryCtx, channel: str, text: str) -> list[Message]:
    found = ctx.db.query(Message).with_search_index(
        "by_body", lambda s: s.search("body", text).eq("channel", channel)
    )
    return await found.take(10)


@query
async def searched(
    ctx: QueryCtx, channel: str, text: str, opts: PaginationOptions
) -> Page[Message]:
    found = ctx.db.query(Message).with_search_index(
        "by_body", lambda s: s.search("body", text).eq("channel", channel)
    )
    return await found.paginate(opts)


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def whoami(ctx: QueryCtx) -> UserIdentity | None:
    return await ctx.auth.get_user_identity()


@query
async def fails(ctx: QueryCtx, kind: str) -> str:
    match kind:
        case "error":
            raise ValueError("an ordinary error")
        case "convex_error":
            detail = {"n": 1, "big": Int64(7), "items": [1, 2, 3]}
            raise ConvexError({"code": "CONFORMANCE", "detail": detail})
        case "convex_string":
            raise ConvexError("just a string")
        case "convex_null":
            raise ConvexError(None)
    return "ok"


@mutation
async def send(ctx: MutationCtx, channel: str, body: str, n: float = 0) -> Id[Message]:
    return await ctx.db.insert(Message, {"channel": channel, "body": body, "n": n})


@mutation
async def edit(ctx: MutationCtx, message: Id[Message], body: str | None) -> None:
    if body is None:
        await ctx.db.delete(message)
    else:
        await ctx.db.patch(message, {"body": body})


@mutation
async def clear(ctx: MutationCtx, channel: str) -> None:
    for message in await ctx.db.query(Message).with_index("by_channel", channel=channel).collect():
        await ctx.db.delete(message["_id"])


@mutation
async def slow_incr(ctx: MutationCtx, name: str) -> float:
    counter = await ctx.db.query(Counter).with_index("by_name", name=name).unique()
    sum(range(20_000))  # a part of a millisecond, for others to come in between
    if counter is None:
        await ctx.db.insert(Counter, {"name": name, "value": 1})
        return 1
    value = counter["value"] + 1
    await ctx.db.patch(counter["_id"], {"value": value})
    return value


@mutation
async def fail_after_write(ctx: MutationCtx, channel: str) -> None:
    await ctx.db.insert(Message, {"channel": channel, "body": "never", "n": 0})
    raise ConvexError({"code": "ROLLED_BACK"})


@action
async def add(ctx: ActionCtx, a: float, b: float) -> float:
    return a + b


@action
async def send_via_action(ctx: ActionCtx, channel: str, body: str) -> Id[Message]:
    return await ctx.run_mutation(send, channel=channel, body=body)


@internal_query
async def secret(ctx: QueryCtx) -> str:
    return "secret"
