from datetime import timedelta
from typing import Any

from engine import (
    UNDEFINED,
    ActionCtx,
    Change,
    ConvexError,
    Id,
    MutationCtx,
    Page,
    PaginationOptions,
    QueryCtx,
    Secret,
    TriggerCtx,
    Undefined,
    UserIdentity,
    action,
    internal,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
    trigger,
    v,
)

from ..limiter import Limiter, TokenBucket
from .app import limits
from .schema import Channel, Message

limiter = Limiter(limits, send=TokenBucket(rate=10, period=timedelta(minutes=1), capacity=3))


async def viewer(ctx: QueryCtx) -> UserIdentity:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        raise ConvexError({"code": "SIGN_IN"})
    return identity


@query(name="list")
async def list_page(ctx: QueryCtx, channel: Id[Channel], opts: PaginationOptions) -> Page[Message]:
    found = ctx.db.query(Message).with_index("by_channel", channel=channel)
    return await found.order("desc").paginate(opts)


@query
async def since(
    ctx: QueryCtx, channel: Id[Channel], after: float, author: str | None = None
) -> list[Message]:
    found = ctx.db.query(Message).with_index(
        "by_channel", lambda r: r.eq("channel", channel).gt("_creationTime", after)
    )
    return [m async for m in found.where(lambda m: author is None or m["author"] == author)]


@query
async def search(ctx: QueryCtx, channel: Id[Channel], text: str) -> list[Message]:
    found = ctx.db.query(Message).with_search_index(
        "search_body", lambda s: s.search("body", text).eq("channel", channel)
    )
    return await found.take(20)


@query
async def liked(ctx: QueryCtx, channel: Id[Channel]) -> Message | None:
    found = ctx.db.query(Message).filter(
        lambda q: (q.field("likes") > 3) & q.eq(q.field("channel"), channel)
    )
    return await found.first()


@query
def version(ctx: QueryCtx) -> str:
    return f"1.0 at {ctx.now:%Y}"


@internal_query(args={"table": v.string()}, returns=v.number())
async def count(ctx: QueryCtx, table: str) -> int:
    return len(await ctx.db.query(table).collect())


@mutation
async def send(ctx: MutationCtx, channel: Id[Channel], body: str) -> Id[Message]:
    who = await viewer(ctx)
    await limiter.limit(ctx, "send", key=who["subject"])
    message = await ctx.run_mutation(
        post, channel=channel, author=who["tokenIdentifier"], body=body
    )
    if body.startswith("/wiki "):
        await ctx.scheduler.run_after(
            0, wikipedia, channel=channel, topic=body.removeprefix("/wiki ")
        )
    return message


@mutation(record=False)
async def edit(
    ctx: MutationCtx,
    message: Id[Message],
    body: Secret[str],
    likes: int | Undefined | None = UNDEFINED,
) -> None:
    doc = await ctx.db.get(message)
    if doc is None or doc["author"] != (await viewer(ctx))["tokenIdentifier"]:
        raise ConvexError({"code": "NOT_YOURS"})
    if likes is not UNDEFINED:
        await ctx.db.patch(message, {"likes": likes or 0})
    await ctx.db.patch(Message, message, {"body": body, "edited": ctx.now_ms})


@internal_mutation
async def post(ctx: MutationCtx, channel: Id[Channel], author: str, body: str) -> Id[Message]:
    doc = {"channel": channel, "author": author, "body": body, "likes": 0}
    return await ctx.db.insert(Message, doc)


@internal_action
async def wikipedia(ctx: ActionCtx, channel: Id[Channel], topic: str) -> None:
    text = topic.title()
    await ctx.run_mutation(post, channel=channel, author="Wikipedia", body=text)
    committed = await ctx.commit(send, channel, text)
    assert committed.ts > 0


@action(loop="asyncio")
async def anything(ctx: ActionCtx, /, **args: Any) -> Any:
    page = await ctx.run_query(since, args["channel"], 0.0)
    await ctx.scheduler.run_at(ctx.now + timedelta(hours=1), "messages:prune", {"days": 1})
    return [page, await ctx.run_query("messages:version"), await ctx.run_action(wait, 5)]


@action
def wait(ctx: ActionCtx, seconds: float) -> str:
    return f"waited {seconds}"


@internal_mutation
async def prune(ctx: MutationCtx, days: int = 30) -> None:
    cutoff = ctx.now_ms - days * 86_400_000
    found = ctx.db.query(Message).with_index(
        "by_creation_time", lambda r: r.lt("_creationTime", cutoff)
    )
    old = await found.take(500)
    for doc in old:
        await ctx.db.delete(doc["_id"])
    if len(old) == 500:
        later = timedelta(seconds=1)
        await ctx.scheduler.run_after(later, internal.messages.prune, {"days": days})


@trigger(Message)
async def note(ctx: TriggerCtx, change: Change[Message]) -> None:
    if change.new is not None and change.operation == "insert":
        await ctx.raw_db.patch(change.id, {"body": change.new["body"].strip()})
