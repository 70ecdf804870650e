"""A unique index holds at the end of a transaction, whoever writes beside it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import SchemaViolation
from engine.kernel.runtime import VirtualRuntime
from tests.node.nodes import ask, mutate, serving

people = Table({"name": v.optional(v.nullable(v.string()))}).index("by_name", ["name"], unique=True)


@mutation
async def add(ctx: MutationCtx, docs: list[dict[str, Any]]) -> list[str]:
    return [await ctx.db.insert("people", doc) for doc in docs]


@mutation
async def swap(ctx: MutationCtx, one: Any, other: Any) -> None:
    first, second = await ctx.db.get(one), await ctx.db.get(other)
    assert first is not None
    assert second is not None
    await ctx.db.patch(one, {"name": second["name"]})
    await ctx.db.patch(other, {"name": first["name"]})


@query
async def names(ctx: QueryCtx) -> list[Any]:
    return [doc.get("name", "none") for doc in await ctx.db.query("people").collect()]


APP = (add, swap, names, Schema(people=people))


async def test_values_may_be_swapped_in_one_transaction(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        ada, bob = await mutate(node, add, [{"name": "ada"}, {"name": "bob"}])

        await mutate(node, swap, one=ada, other=bob)

        assert ["bob", "ada"] == await ask(node, names)


async def test_what_has_no_name_is_like_nobody_else_and_two_nulls_are_alike(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, add, [{}, {}, {"name": None}])

        with pytest.raises(SchemaViolation, match="'name': None} in the unique index 'by_name'"):
            await mutate(node, add, [{"name": None}])

        assert ["none", "none", None] == await ask(node, names)


async def test_who_may_not_share_a_value_is_told_which_document_has_it_and_where(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        [ada] = await mutate(node, add, [{"name": "ada"}])

        there = (
            rf"\w+ and {ada} would both have .*'ada'.* of the table 'people'; the second is there"
        )
        with pytest.raises(SchemaViolation, match=rf"{there} already\. Give one of them another"):
            await mutate(node, add, [{"name": "ada"}])
        with pytest.raises(SchemaViolation, match="the second is written here too"):
            await mutate(node, add, [{"name": "bob"}, {"name": "bob"}])


@pytest.mark.parametrize("seed", range(5))
async def test_of_those_who_take_a_name_beside_each_other_one_has_it(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    async def take(name: str) -> None:
        with suppress(SchemaViolation):
            await mutate(node, add, [{"name": name}])

    async with serving(APP, runtime=VirtualRuntime(seed, interleaves=True)) as node:
        async with trio.open_nursery() as beside:
            for _ in range(4):
                beside.start_soon(take, "ada")

        assert ["ada"] == await ask(node, names)
