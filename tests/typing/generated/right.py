"""What an application may write beside its generated types: no checker has anything to say."""

from typing import Any, Literal, assert_type, get_args

from backend._generated.api import api, internal
from backend._generated.data_model import (
    MessageField,
    MessageIndex,
    NewAnything,
    NewMessage,
    NewPets,
    NewVectors,
    PatchMessage,
    TableName,
)
from backend.schema import Channel, Dog, Message

from headrace import (
    UNDEFINED,
    ActionCtx,
    Crons,
    Engine,
    Id,
    Int64,
    MutationCtx,
    Page,
    QueryCtx,
    get_function_name,
    mutation,
)

crons = Crons()
crons.interval("prune", internal.messages.prune, minutes=5)


async def calls(ctx: MutationCtx, channel: Id[Channel]) -> None:
    listed = await ctx.run_query(api.messages.list, {"channel": channel})
    assert_type(listed, list[Message])
    opened = await ctx.run_query(
        api.messages.paged, {"channel": channel, "paginationOpts": {"numItems": 1, "cursor": None}}
    )
    assert_type(opened, Page[Message])
    assert_type(await ctx.run_query(api.messages.count), int)
    sent = await ctx.run_mutation(api.messages.send, {"channel": channel, "body": "x"})
    assert_type(sent, Id[Message])
    await ctx.run_mutation(api.messages.send, {"channel": channel, "body": "x", "tags": None})
    await ctx.run_mutation(internal.messages.prune)
    await ctx.scheduler.run_after(0, internal.messages.prune)
    await ctx.scheduler.run_at(ctx.now, api.messages.send, {"channel": channel, "body": "later"})
    await ctx.scheduler.run_after(5, api.kinds.work, {"channel": channel, "seconds": 2})
    few = ctx.transaction_limits(documents_read=10)
    assert_type(await few.run_query(api.messages.count), int)


async def kinds(ctx: ActionCtx, channel: Id[Channel]) -> None:
    big = await ctx.run_query(api.kinds.numbers, {"n": 1, "x": 2.5, "big": Int64(3), "few": 4})
    assert_type(big, Int64)
    assert_type(await ctx.run_query(api.kinds.data, {"blob": b"x"}), bytes)
    colour = await ctx.run_query(api.kinds.choice, {"one": "a", "colour": "red"})
    assert_type(colour, Literal["red", "blue"] | None)
    nested = await ctx.run_query(
        api.kinds.nested, {"points": [{"x": 1, "y": 2, "label": "a"}], "by_name": {"a": []}}
    )
    assert_type(nested["x"], float)
    await ctx.run_query(api.kinds.records, {"scores": {channel: 1}})
    odd = await ctx.run_query(api.kinds.odd_names)
    assert_type(odd["not-a-name"], str)
    pet = await ctx.run_query(api.kinds.pet)
    if pet is not None and pet["kind"] == "dog":
        assert_type(pet, Dog)
    await ctx.run_query(api.kinds.odd, {"some": 1.5})
    assert_type(await ctx.run_action(api.kinds.work, {"channel": channel}), str)
    await ctx.run_action(api.kinds.anything, {"of": ["any", "kind"]})
    await ctx.run_action(api.kinds.anything)
    assert_type(await ctx.run_query(api["2fa"].needed), bool)
    assert_type(await ctx.run_query(api.teams.members, {"team": "a"}), list[str])
    await ctx.run_mutation(api.teams.members.addOne, {"name": "a"})
    await ctx.commit(api.teams.members.addOne, {"name": "a"})


async def hosts(engine: Engine, channel: Id[Channel]) -> None:
    assert_type(await engine.query(api.messages.list, {"channel": channel}), list[Message])
    assert_type(await engine.at(5).query(api.messages.count), int)
    async with engine.subscribe(api.messages.count) as results:
        async for count in results:
            assert_type(count, int)
    assert_type(await engine.query("messages:count"), Any)
    assert get_function_name(api.messages.count) == "messages:count"


@mutation
async def write(ctx: MutationCtx, new: NewMessage, changes: PatchMessage) -> Id[Message]:
    message = await ctx.db.insert(Message, new)
    await ctx.db.patch(message, changes)
    removed: PatchMessage = {"edited": UNDEFINED}
    await ctx.db.patch(Message, message, {**removed, "likes": 3})
    pet: NewPets = {"kind": "dog", "tricks": ["sit"]}
    await ctx.db.insert("pets", pet)
    vector: NewVectors = {"embedding": [1, 2.5, 3]}
    await ctx.db.insert("vectors", vector)
    anything: NewAnything = {"of": "any kind"}
    await ctx.db.insert("anything", anything)
    return message


async def names(ctx: QueryCtx, channel: Id[Channel]) -> list[str]:
    index: MessageIndex = "by_channel"
    field: MessageField = "author.name"
    table: TableName = "messages"
    found = ctx.db.query(Message).with_index(
        index, lambda r: r.eq("channel", channel).eq(field, "a")
    )
    assert await ctx.db.count(table)
    assert "by_likes" not in get_args(MessageIndex)
    return [message["body"] for message in await found.collect()]
