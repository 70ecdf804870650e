from headrace import (
    Id,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    internal_mutation,
    mutation,
    query,
)

from .schema import Channel, Message


@query(name="list")
async def list_messages(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    return await ctx.db.query(Message).with_index("by_channel", channel=channel).collect()


@query
async def paged(ctx: QueryCtx, channel: Id[Channel], opts: PaginationOptions) -> Page[Message]:
    found = ctx.db.query(Message).with_index("by_channel", channel=channel)
    return await found.order("desc").paginate(opts)


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.count(Message)


@mutation
async def send(
    ctx: MutationCtx, channel: Id[Channel], body: str, tags: list[str] | None = None
) -> Id[Message]:
    return await ctx.db.insert(
        Message,
        {
            "channel": channel,
            "author": {"name": "ada"},
            "body": body,
            "likes": 0,
            "tags": tags or [],
        },
    )


@internal_mutation
async def prune(ctx: MutationCtx) -> None: ...
