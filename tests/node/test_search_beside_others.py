"""Mutations that search, beside others that write what they would have found."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import trio
import trio.testing

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.kernel.runtime import VirtualRuntime
from engine.model.reads import ReadSet
from tests.node.nodes import mutate, serving

SCHEMA = Schema(
    notes=Table(v.any()).search_index("by_text", search_field="text", filter_fields=["room"])
)


@mutation
async def claim(ctx: MutationCtx, room: str, who: str) -> bool:
    """Take the room, unless a search finds that somebody has."""

    notes = ctx.db.query("notes")
    found = notes.with_search_index("by_text", lambda s: s.search("text", "taken").eq("room", room))
    if await found.take(1):
        return False
    await ctx.db.insert("notes", {"text": f"{who} has taken it", "room": room})
    return True


@mutation
async def leave(ctx: MutationCtx, room: str) -> bool:
    """The reverse, if it is taken."""
    notes = ctx.db.query("notes")
    found = notes.with_search_index("by_text", lambda s: s.search("text", "take").eq("room", room))
    doc = await found.first()
    if doc is None:
        return False
    await ctx.db.patch(doc["_id"], {"text": "free again"})
    return True


async def claims(seed: int) -> list[bool]:
    """Six mutations beside each other that want one room, and six that want another."""
    taken: list[bool] = []

    async def one(room: str, who: str) -> None:
        taken.append(await mutate(node, claim, room, who))

    runtime = VirtualRuntime(seed, interleaves=True)
    async with (
        serving([claim, leave, SCHEMA], runtime=runtime) as node,
        trio.open_nursery() as nursery,
    ):
        for number in range(12):
            nursery.start_soon(one, "ab"[number % 2], f"w{number}")
    return taken


@pytest.mark.parametrize("seed", range(5))
async def test_of_mutations_that_search_for_what_the_others_write_one_is_the_first(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    assert 2 == sum(await claims(seed)), "one for each room"


@pytest.mark.parametrize("seed", range(5))
async def test_what_a_search_found_and_another_took_away_is_found_by_one(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    left: list[bool] = []

    async def one() -> None:
        left.append(await mutate(node, leave, "a"))

    runtime = VirtualRuntime(seed, interleaves=True)
    async with serving([claim, leave, SCHEMA], runtime=runtime) as node:
        assert await mutate(node, claim, "a", "ada")
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(one)

    assert 1 == sum(left)


async def test_without_what_a_search_read_several_would_be(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with patch.object(ReadSet, "add_search", lambda *_: None):
        taken = [sum(await claims(seed)) for seed in range(5)]

    assert max(taken) > 2
