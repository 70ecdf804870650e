"""
One mutation that does anything to a few items, and a query of each kind.

A query takes a nonce that it makes no use of: with another one no cache can answer it.
"""

from __future__ import annotations

import random
from typing import Any

from engine import MutationCtx, Page, PaginationOptions, QueryCtx, mutation, query

from .app import shelf
from .schema import Item

GROUPS = 6
OWNERS = ("ada", "bob", "eve")
WORDS = ("amber", "birch", "cedar", "dune")
"""None begins like another, or a search for one would find both."""


@mutation
async def write(ctx: MutationCtx, seed: float) -> None:
    """Insert, move, change or delete an item, or two; now and then something on the shelf."""
    dice = random.Random(int(seed))
    for _ in range(dice.randint(1, 2)):
        group = dice.randrange(GROUPS)
        found = await ctx.db.query(Item).with_index("by_group", group=group).take(3)
        verb = dice.choice(["insert", "move", "change", "delete"])
        fields: Any = {
            "group": dice.randrange(GROUPS),
            "n": dice.randrange(20),
            "owner": dice.choice(OWNERS),
            "text": " ".join(dice.choices(WORDS, k=2)),
        }
        if verb == "insert" or not found:
            await ctx.db.insert(Item, fields)
        elif verb == "delete":
            await ctx.db.delete(dice.choice(found)["_id"])
        else:
            some = fields if verb == "move" else {"n": fields["n"], "text": fields["text"]}
            await ctx.db.patch(dice.choice(found)["_id"], some)
    if dice.random() < 0.3:
        await ctx.run_mutation(shelf.functions.shift, {"seed": dice.getrandbits(32)})


@query
async def of_group(ctx: QueryCtx, group: float, nonce: float = 0) -> list[list[Any]]:
    found = ctx.db.query(Item).with_index("by_group", group=group)
    return [[item["_id"], item["n"]] async for item in found]


@query
async def between(ctx: QueryCtx, low: float, high: float, nonce: float = 0) -> list[list[Any]]:
    found = ctx.db.query(Item).with_index("by_n", lambda q: q.gte("n", low).lt("n", high))
    return [[item["_id"], item["n"], item["text"]] async for item in found]


@query
async def highest(ctx: QueryCtx, count: float, nonce: float = 0) -> list[list[Any]]:
    found = await ctx.db.query(Item).with_index("by_n").order("desc").take(int(count))
    return [[item["group"], item["n"]] for item in found]


@query
async def total(ctx: QueryCtx, nonce: float = 0) -> int:
    return await ctx.db.count(Item)


@query
async def filtered(ctx: QueryCtx, least: float, nonce: float = 0) -> list[list[Any]]:
    found = ctx.db.query(Item).filter(lambda q: q.gte(q.field("n"), least))
    return [[item["_id"], item["n"]] async for item in found]


@query
async def page(
    ctx: QueryCtx, group: float, opts: PaginationOptions, nonce: float = 0
) -> Page[Item]:
    return await ctx.db.query(Item).with_index("by_group", group=group).paginate(opts)


@query
async def search(ctx: QueryCtx, word: str, nonce: float = 0) -> list[str]:
    found = ctx.db.query(Item).with_search_index("by_text", lambda s: s.search("text", word))
    return sorted([item["_id"] for item in await found.take(1_000)])


@query
async def containing(ctx: QueryCtx, word: str, nonce: float = 0) -> list[str]:
    """What `search` finds, by looking: the index shows the newest state alone."""
    return sorted([item["_id"] async for item in ctx.db.query(Item) if word in item["text"]])


@query
async def mine(ctx: QueryCtx, nonce: float = 0) -> list[list[Any]] | None:
    identity = await ctx.auth.get_user_identity()
    if identity is None:
        return None
    found = ctx.db.query(Item).with_index("by_owner", owner=identity["subject"])
    return [[item["_id"], item["n"]] async for item in found]


@query
async def shelved(ctx: QueryCtx, nonce: float = 0) -> Any:
    return await ctx.run_query(shelf.functions.found)
