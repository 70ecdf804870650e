"""Indexed values that are longer than the keys of the store, as functions meet them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import PaginationOptions
from engine.app.validators import v
from engine.errors import LimitExceeded, SchemaViolation
from engine.model.limits import Limits
from engine.node import Node
from tests.node.nodes import ask, mutate, serving

LIMITS = replace(Limits(), documents_read_max=1_000)
PATH = "https://example.org/" + "long/" * 120

schema = Schema(
    visits=Table({"url": v.string()}).index("by_url", ["url"]),
    links=Table({"url": v.string()}).index("by_url", ["url"], unique=True),
)


@mutation
async def visit(ctx: MutationCtx, first: int, count: int) -> None:
    for n in range(first, first + count):
        await ctx.db.insert("visits", {"url": f"{PATH}{n:05}"})


@mutation
async def link(ctx: MutationCtx, first: int, count: int) -> None:
    for n in range(first, first + count):
        await ctx.db.insert("links", {"url": f"{PATH}{n:05}"})


@query
async def visits_of(ctx: QueryCtx, url: str) -> int:
    return len(await ctx.db.query("visits").with_index("by_url", url=url).collect())


@query
async def first_visit(ctx: QueryCtx) -> Any:
    return await ctx.db.query("visits").with_index("by_url").first()


@query
async def all_visits(ctx: QueryCtx) -> list[str]:
    return [doc["url"] for doc in await ctx.db.query("visits").with_index("by_url").collect()]


@query
async def page(ctx: QueryCtx, opts: PaginationOptions) -> Any:
    return await ctx.db.query("visits").with_index("by_url").paginate(opts)


APP = [schema, visit, link, visits_of, first_visit, all_visits, page]


async def fill(node: Node, fn: Any, count: int) -> None:
    for first in range(0, count, 500):
        await mutate(node, fn, first, min(500, count - first))
    await trio.testing.wait_all_tasks_blocked()


async def test_one_value_is_found_among_more_than_may_be_read_and_the_first_is_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill(node, visit, 1_200)

        assert 1 == await ask(node, visits_of, f"{PATH}00777")
        with pytest.raises(LimitExceeded, match="begin alike for 450 bytes"):
            await ask(node, first_visit)


async def test_a_bucket_as_large_as_may_be_read_is_read_slice_by_slice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill(node, visit, 1_000)

        assert [f"{PATH}{n:05}" for n in range(1_000)] == await ask(node, all_visits)


async def test_pages_of_a_bucket_follow_one_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill(node, visit, 900)
        seen: list[str] = []
        cursor, is_done = None, False
        while not is_done:
            found = await ask(node, page, {"numItems": 400, "cursor": cursor})
            seen += [doc["url"] for doc in found["page"]]
            cursor, is_done = found["continueCursor"], found["isDone"]

        assert [f"{PATH}{n:05}" for n in range(900)] == seen


async def test_a_unique_index_of_long_values_looks_at_no_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill(node, link, 1_200)

        with pytest.raises(SchemaViolation, match="unique index 'by_url'"):
            await mutate(node, link, 777, 1)
        await mutate(node, link, 1_200, 1)
