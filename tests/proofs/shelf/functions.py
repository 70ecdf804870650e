"""Put a jar on the shelf, or take one away, and look."""

from __future__ import annotations

import random
from typing import Any

from engine import MutationCtx, QueryCtx, mutation, query

from .schema import Jar


@mutation
async def shift(ctx: MutationCtx, seed: float) -> None:
    dice = random.Random(int(seed))
    label = dice.randrange(10)
    found = await ctx.db.query(Jar).with_index("by_label", label=label).first()
    if found is None:
        await ctx.db.insert(Jar, {"label": label})
    else:
        await ctx.db.delete(found["_id"])


@query
async def found(ctx: QueryCtx, nonce: float = 0) -> list[list[Any]]:
    return [[jar["_id"], jar["label"]] async for jar in ctx.db.query(Jar).with_index("by_label")]
