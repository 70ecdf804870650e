"""Mistakes that the generated types let type checkers find; above each what they say of it."""

from backend._generated.api import api, internal
from backend._generated.data_model import (
    MessageField,
    MessageIndex,
    NewMessage,
    NewPets,
    PatchMessage,
    TableName,
)
from backend.schema import Channel, Message

from headrace import UNDEFINED, ActionCtx, Crons, Id, Int64, MutationCtx

crons = Crons()
# mypy arg-type; pyright reportArgumentType
crons.interval("list", api.messages.list, minutes=5)


async def calls(ctx: MutationCtx, channel: Id[Channel], message: Id[Message]) -> None:
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.messages.list, {"chanel": channel})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.messages.list, {"channel": message})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.messages.list, {"channel": "general"})
    # mypy call-overload; pyright reportCallIssue reportCallIssue
    await ctx.run_query(api.messages.list)
    # mypy call-overload; pyright reportCallIssue
    await ctx.run_query(api.messages.list, channel=channel)
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.messages.send, {"channel": channel, "body": "x"})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_mutation(api.messages.list, {"channel": channel})
    # mypy call-overload; pyright reportCallIssue reportCallIssue
    await ctx.run_mutation(internal.messages.prune, {"days": 3})
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    assert api.messages.prune
    # mypy attr-defined; pyright reportAttributeAccessIssue reportUnknownMemberType
    assert api.messages.lst
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.scheduler.run_after(0, api.messages.list, {"channel": channel})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.scheduler.run_after(0, api.messages.send, {"channel": channel})
    # mypy call-overload; pyright reportAssignmentType
    count: str = await ctx.run_query(api.messages.count)
    assert count


async def kinds(ctx: ActionCtx) -> None:
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.kinds.numbers, {"n": 1.5, "x": 1, "big": Int64(1), "few": 1})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.kinds.numbers, {"n": 1, "x": 1, "big": 1, "few": 1})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.kinds.choice, {"one": "b", "colour": "red"})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.kinds.nested, {"points": [{"x": 1}], "by_name": {}})
    # mypy call-overload; pyright reportCallIssue reportArgumentType
    await ctx.run_query(api.kinds.odd, {"some": "one"})
    # mypy misc; pyright reportGeneralTypeIssues
    (await ctx.run_query(api.kinds.odd_names))["no-name"]


def tables(channel: Id[Channel]) -> None:
    # mypy typeddict-item; pyright reportAssignmentType
    new: NewMessage = {"channel": channel, "body": "x"}
    # mypy typeddict-item; pyright reportAssignmentType
    patch: PatchMessage = {"likes": "many"}
    # mypy typeddict-item; pyright reportAssignmentType
    removed: PatchMessage = {"body": UNDEFINED}
    # mypy typeddict-unknown-key; pyright reportAssignmentType
    unknown: PatchMessage = {"bdy": "x"}
    # mypy typeddict-item; pyright reportAssignmentType
    pet: NewPets = {"kind": "cat", "tricks": []}
    # mypy assignment; pyright reportAssignmentType
    table: TableName = "mesages"
    # mypy assignment; pyright reportAssignmentType
    index: MessageIndex = "by_likes"
    # mypy assignment; pyright reportAssignmentType
    field: MessageField = "author.nme"
    str((new, patch, removed, unknown, pet, table, index, field))
