"""
Mistakes that type checkers have to find.

Above each stands what they say of the line: the codes of mypy, and the rules
of pyright.
"""

from engine import (
    ActionCtx,
    Id,
    MutationCtx,
    PaginationOptions,
    QueryCtx,
    internal,
    mutation,
    query,
)
from tests.typing.example.backend.messages import list_page, prune, send, wikipedia
from tests.typing.example.backend.schema import Channel


async def calls(ctx: MutationCtx, channel: Id[Channel], opts: PaginationOptions) -> None:
    # mypy call-overload; pyright reportCallIssue reportCallIssue
    await ctx.run_mutation(send, chanel=channel, body="x")
    # mypy call-overload; pyright reportArgumentType
    await ctx.run_mutation(send, channel="general", body="x")
    # mypy call-overload; pyright reportCallIssue
    await ctx.scheduler.run_after(0, wikipedia, channel=channel)
    # mypy call-overload; pyright reportArgumentType reportCallIssue
    await ctx.run_query(send, channel, "x")
    # mypy call-overload; pyright reportArgumentType reportCallIssue
    await ctx.run_mutation(list_page, channel, opts)
    # mypy call-overload; pyright reportArgumentType reportCallIssue
    await ctx.scheduler.run_after(0, list_page, channel, opts)
    # mypy call-overload; pyright reportArgumentType reportCallIssue
    await ctx.run_mutation(internal.messages.prune, days=3)
    # mypy call-arg; pyright reportCallIssue
    await send(ctx, channel)


async def documents(ctx: QueryCtx, channel: Id[Channel]) -> None:
    doc = await ctx.db.get(channel)
    # mypy index; pyright reportOptionalSubscript
    doc["name"]
    assert doc is not None
    # mypy typeddict-item; pyright reportGeneralTypeIssues
    doc["nmae"]
    # mypy arg-type; pyright reportArgumentType
    ctx.db.query(Channel).order("up")


async def contexts(read: QueryCtx, act: ActionCtx, channel: Id[Channel]) -> None:
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    await read.db.insert(Channel, {"name": "x"})
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    assert read.db.vars
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    await read.run_mutation(prune, 3)
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    assert act.db
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    await read.vector_search(Channel, "by_embedding", vector=[0.5])


# mypy arg-type; pyright reportArgumentType reportCallIssue reportUntypedFunctionDecorator
@query
async def writes(ctx: MutationCtx, n: int) -> int:
    return n


# mypy arg-type; pyright reportArgumentType reportCallIssue reportUntypedFunctionDecorator
@mutation
async def contextless() -> None: ...
