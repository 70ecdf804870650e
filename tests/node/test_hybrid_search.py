"""Hybrid search: one order out of what texts and what vectors say."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import VectorHit
from engine.app.validators import v
from engine.errors import IndexNotFound, InvalidRange, InvalidValue, NotAllowed
from engine.functions.targets import call_target
from tests.node.nodes import ADMIN, ask, mutate, serving

SCHEMA = Schema(
    notes=Table(v.any())
    .search_index("by_text", search_field="text", filter_fields=["channel"])
    .vector_index("by_place", vector_field="place", dimensions=2, filter_fields=["channel"])
)
NOTES: dict[str, dict[str, Any]] = {
    "word and place": {"text": "a fox", "place": [1, 0.2], "channel": "a"},
    "word": {"text": "fox fox", "place": [-1, 0], "channel": "a"},
    "place": {"text": "bread", "place": [1, 0.1], "channel": "a"},
    "elsewhere": {"text": "fox", "place": [1, 0.1], "channel": "b"},
    "no place": {"text": "fox den", "channel": "a"},
    "neither": {"text": "butter"},
}


@mutation
async def add(ctx: MutationCtx, names: list[str]) -> list[str]:
    for name in names:
        await ctx.db.insert("notes", {"name": name, **NOTES[name]})
    return await found(ctx, 10)


@query
async def look(ctx: QueryCtx, limit: int) -> list[str]:
    return await found(ctx, limit)


async def found(ctx: QueryCtx, limit: int) -> list[str]:
    hits = await ctx.db.hybrid_search(
        "notes",
        search_index="by_text",
        search=lambda s: s.search("text", "fox").eq("channel", "a"),
        vector_index="by_place",
        vector=[1, 0],
        filter=lambda q: q.eq("channel", "a"),
        limit=limit,
    )
    return [note["name"] for hit in hits if (note := await ctx.db.get(hit["_id"]))]


async def test_what_both_searches_find_comes_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, look, SCHEMA]) as node:
        own = await mutate(node, add, list(NOTES))

        assert ["word", "word and place"] == sorted(own[:2]), "each is first in one of them"
        assert {"word", "word and place", "place", "no place"} == set(own)
        assert own == await ask(node, look, 10)
        assert own[:1] == await ask(node, look, 1)


@pytest.mark.parametrize(
    ("name", "wakes"),
    [("word", True), ("no place", True), ("place", True), ("elsewhere", False), ("neither", False)],
)
async def test_it_is_asked_again_when_either_search_would_be(
    name: str, wakes: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([add, look, SCHEMA]) as node:
        await mutate(node, add, ["word and place"])
        path = call_target(look, (3,), {}, "")[1]
        shown = await node.functions.query(path, {"limit": 3}, caller=ADMIN)

        await mutate(node, add, [name])
        await node.functions.processed.wait_reached(node.published.value)

        assert wakes == (shown.live.invalidated_at is not None)
        shown.live.release()


def nested(q: Any) -> Any:
    condition = q.eq("color", "red")
    for _ in range(5_000):
        condition = q.or_(condition)
    return condition


async def test_what_cannot_be_is_refused_as_by_the_searches(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def searching(**options: Any) -> Any:
        asked: dict[str, Any] = {
            "search_index": "by_text",
            "search": lambda s: s.search("text", "fox"),
            "vector_index": "by_place",
            "vector": [1, 0],
        }

        @query(name="refused")
        async def refused(ctx: QueryCtx) -> list[VectorHit[Any]]:
            db = ctx.db.system if options.get("system") else ctx.db
            given = asked | {k: v for k, v in options.items() if k != "system"}
            return await db.hybrid_search("notes", **given)

        return refused

    for options, error in (
        ({"search_index": "by_words"}, IndexNotFound),
        ({"vector_index": "by_color"}, IndexNotFound),
        ({"vector": [1]}, InvalidValue),
        ({"limit": 0}, InvalidValue),
        ({"filter": nested}, InvalidRange),
        ({"search": "fox"}, InvalidRange),
        ({"system": True}, NotAllowed),
    ):
        refused = searching(**options)
        async with serving([add, refused, SCHEMA]) as node:
            await mutate(node, add, ["word"])
            with pytest.raises(error):
                await ask(node, refused)
