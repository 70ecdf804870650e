"""Messages: "messages:list" and "messages:send" to clients."""

from headrace import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Message


@query(name="list")
async def list_messages(ctx: QueryCtx) -> list[Message]:
    """The newest messages; clients that show them get every change."""
    return await ctx.db.query(Message).order("desc").take(50)


@mutation
async def send(ctx: MutationCtx, author: str, body: str) -> Id[Message]:
    """Add a message; all of it is written, or nothing."""
    print("a message from", author)
    return await ctx.db.insert(Message, {"author": author, "body": body})
