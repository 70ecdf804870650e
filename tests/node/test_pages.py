"""Pages that end before they are full: limits of the function, and those that a client gives."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any, Literal

import pytest
import trio
import trio.testing

from engine import Engine
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import PaginationOptions
from engine.app.validators import v
from engine.errors import InvalidCursor, InvalidValue, LimitExceeded
from engine.model.limits import Limits
from engine.node import Node
from tests.node.nodes import ADMIN, ask, mutate, serving

MODULE = "tests/node/test_pages"
LIMITS = replace(Limits(), documents_read_max=1_000, bytes_read_max=1 << 20)


@mutation
async def fill(ctx: MutationCtx, count: int, size: int, first: int = 0) -> None:
    for n in range(first, first + count):
        await ctx.db.insert("items", {"n": n, "text": "x" * size})


@query
async def page(ctx: QueryCtx, opts: PaginationOptions, modulo: int = 1) -> Any:
    items = ctx.db.query("items").filter(lambda q: q.field("n") % modulo == 0)
    return await items.paginate(opts)


@query
async def everything(ctx: QueryCtx) -> Any:
    return await ctx.db.query("items").collect()


@mutation
async def disturb(ctx: MutationCtx, seed: int) -> None:
    """Insert some, move some and delete some."""
    dice = Random(seed)
    for item in await ctx.db.query("items").collect():
        match dice.randrange(6):
            case 0:
                await ctx.db.delete(item["_id"])
            case 1:
                await ctx.db.patch(item["_id"], {"n": dice.randrange(5)})
    for _ in range(dice.randrange(8)):
        await ctx.db.insert("items", {"n": dice.randrange(5)})


@query
async def part(ctx: QueryCtx, opts: PaginationOptions, order: Literal["asc", "desc"]) -> Any:
    return await ctx.db.query("items").with_index("by_n").order(order).paginate(opts)


@query
async def ordered(ctx: QueryCtx, order: Literal["asc", "desc"]) -> Any:
    return await ctx.db.query("items").with_index("by_n").order(order).collect()


SCHEMA = Schema(items=Table(v.any()).index("by_n", ["n"]))
APP = [SCHEMA, fill, page, everything, disturb, part, ordered]


async def fill_with_more_than_may_be_read(node: Node) -> None:
    for first in (0, 7, 14):
        await mutate(node, fill, 7, 100_000, first)
        await trio.sleep(1)


async def numbers(node: Node, *, modulo: int = 1, **options: Any) -> tuple[list[int], str | None]:
    """The numbers on the first page, and what is said of it."""
    found = await ask(node, page, {"numItems": 500, "cursor": None, **options}, modulo)
    return [doc["n"] for doc in found["page"]], found["pageStatus"]


async def walked(node: Node, **options: Any) -> list[int]:
    """The numbers of all pages, one after the other."""
    seen: list[int] = []
    cursor, is_done = None, False
    while not is_done:
        found = await ask(node, page, {"numItems": 500, "cursor": cursor, **options})
        seen += [doc["n"] for doc in found["page"]]
        cursor, is_done = found["continueCursor"], found["isDone"]
    return seen


async def test_a_page_of_large_documents_ends_where_the_function_may_read_no_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill_with_more_than_may_be_read(node)

        assert (list(range(10)), "SplitRequired") == await numbers(node)
        assert list(range(21)) == await walked(node)


async def test_what_is_no_page_still_fails_at_the_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP, limits=LIMITS) as node:
        await fill_with_more_than_may_be_read(node)

        with pytest.raises(LimitExceeded, match="bytes read"):
            await ask(node, everything)


@pytest.mark.parametrize("modulo", [1, 3])
async def test_a_page_reads_no_more_rows_than_it_was_told(
    modulo: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, 20, 1)

        found = await numbers(node, modulo=modulo, maximumRowsRead=7)

        assert ([n for n in range(7) if n % modulo == 0], "SplitRequired") == found
        assert list(range(20)) == await walked(node, maximumRowsRead=7)


async def test_a_page_reads_no_more_bytes_than_it_was_told_and_at_least_a_document(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, 5, 1_000)

        assert ([0, 1, 2], "SplitRequired") == await numbers(node, maximumBytesRead=2_500)
        assert ([0], "SplitRequired") == await numbers(node, maximumBytesRead=1)
        assert list(range(5)) == await walked(node, maximumBytesRead=1)


async def test_a_page_that_comes_near_a_maximum_is_recommended_to_be_split(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, 8, 1)

        assert "SplitRecommended" == (await numbers(node, maximumRowsRead=10))[1]
        assert None is (await numbers(node, maximumRowsRead=11))[1]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("seed", range(3))
async def test_pages_hold_everything_once_however_rows_come_and_go_and_pages_are_split(
    seed: int, order: str, autojump_clock: trio.testing.MockClock
) -> None:
    dice = Random(seed)
    async with serving(APP) as node:
        await mutate(node, fill, 20, 1)
        edges: list[str | None] = [None]
        is_done = False
        while not is_done:
            opts = {"numItems": dice.randint(1, 6), "cursor": edges[-1]}
            found = await ask(node, part, opts, order)
            edges.append(found["continueCursor"])
            is_done = found["isDone"]

        for step in range(8):
            await mutate(node, disturb, 100 * seed + step)
            seen, edges_before, edges = [], edges, [None]
            for start, end in pairwise(edges_before):
                opts = {"numItems": 1, "cursor": start, "endCursor": end}
                found = await ask(node, part, opts, order)
                seen += found["page"]
                assert end == found["continueCursor"]
                if found["splitCursor"] is not None and dice.randrange(2):
                    edges.append(found["splitCursor"])
                edges.append(end)
            assert seen == await ask(node, ordered, order)


@query
async def by_number(ctx: QueryCtx, opts: Any) -> Any:
    return await ctx.db.query("items").paginate(opts)


async def test_what_are_no_options_of_a_page_is_told_what_to_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([by_number]) as node:
        with pytest.raises(InvalidValue, match=r"paginate takes .*'numItems': 20.*, not int"):
            await ask(node, by_number, 5)


async def test_a_page_longer_than_any_is_refused_with_what_to_do(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        assert ([], None) == await numbers(node, numItems=32_000)
        with pytest.raises(LimitExceeded, match=r"\(PAGE_ITEMS_MAX\)\. Ask for fewer"):
            await numbers(node, numItems=32_001)


async def test_a_page_with_an_end_goes_there_whatever_maxima_it_is_given(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, 6, 10)
        end = (await ask(node, page, {"numItems": 5, "cursor": None}))["continueCursor"]
        maxima = {"maximumRowsRead": 2, "maximumBytesRead": 1}

        assert ([0, 1, 2, 3, 4], None) == await numbers(node, endCursor=end, **maxima)


@mutation
async def grow(ctx: MutationCtx, size: int) -> None:
    for item in await ctx.db.query("items").take(20):
        await ctx.db.patch(item["_id"], {"text": "x" * size})


async def test_a_page_that_outgrows_what_may_be_read_keeps_its_end_and_leaves_no_gap() -> None:
    async with serving([fill, page, grow], limits=LIMITS) as node:
        await mutate(node, fill, 40, 10)
        first = await ask(node, page, {"numItems": 20, "cursor": None})
        end = first["continueCursor"]

        await mutate(node, grow, 70_000)
        pinned = {"numItems": 20, "cursor": None, "endCursor": end}
        shown = await ask(node, page, pinned)
        halves = [
            await ask(node, page, {"numItems": 20, "cursor": cursor, "endCursor": upto})
            for cursor, upto in ((None, shown["splitCursor"]), (shown["splitCursor"], end))
        ]
        rest = await ask(node, page, {"numItems": 20, "cursor": end})

        assert "SplitRequired" == shown["pageStatus"]
        assert (end, False) == (shown["continueCursor"], shown["isDone"])
        assert list(range(40)) == [item["n"] for one in (*halves, rest) for item in one["page"]]


async def test_a_journal_of_a_page_that_outgrew_what_may_be_read_is_the_one_it_had() -> None:
    async with serving([fill, page, grow], limits=LIMITS) as node:
        await mutate(node, fill, 40, 10)
        options = {"paginationOpts": {"numItems": 20, "cursor": None}}
        call = ("tests/node/test_pages:page", options)
        first = await node.functions.query(*call, caller=ADMIN)
        await mutate(node, grow, 70_000)
        large = await node.functions.query(*call, caller=ADMIN, journal=first.journal)
        for result in (first, large):
            result.live.release()

        assert "SplitRequired" == large.value["pageStatus"]
        assert first.journal == large.journal == large.value["continueCursor"]


@mutation
async def show(ctx: MutationCtx, group: int) -> None:
    shown = await ctx.db.query("shown").first()
    if shown is None:
        await ctx.db.insert("shown", {"group": group})
    else:
        await ctx.db.patch(shown["_id"], {"group": group})


@query
async def of_shown(ctx: QueryCtx, opts: PaginationOptions) -> Any:
    """A page of another query whenever another group is shown."""
    shown = await ctx.db.query("shown").unique()
    assert shown is not None
    group = shown["group"]
    items = ctx.db.query("items").with_index(
        "by_n", lambda r: r.gte("n", group * 10).lt("n", group * 10 + 10)
    )
    return [item["n"] for item in (await items.paginate(opts))["page"]]


GROUPS = Schema(
    items=Table({"n": v.number(), "text": v.string()}).index("by_n", ["n"]),
    shown=Table({"group": v.number()}),
)


async def test_a_live_page_goes_on_when_what_it_pages_through_becomes_another_query() -> None:
    """Where it had ended means nothing there; it ends anew, and keeps that end."""
    async with Engine.open(":memory:", app=[fill, show, of_shown, GROUPS]) as engine:
        await engine.mutation(fill, 20, 1)
        await engine.mutation(show, 0)
        opts: PaginationOptions = {"numItems": 3, "cursor": None}
        async with engine.subscribe(of_shown, opts) as pages:
            seen = [await anext(pages)]
            for change in (
                partial(engine.mutation, show, 1),
                partial(engine.mutation, fill, 1, 1, 11),
            ):
                await change()
                with trio.fail_after(5):
                    seen.append(await anext(pages))

    assert [[0, 1, 2], [10, 11, 12], [10, 11, 11, 12]] == seen


async def test_a_journal_of_another_query_is_none() -> None:
    async with serving([fill, show, of_shown, GROUPS]) as node:
        await mutate(node, fill, 20, 1)
        await mutate(node, show, 0)
        call = (f"{MODULE}:of_shown", {"paginationOpts": {"numItems": 3, "cursor": None}})
        first = await node.functions.query(*call, caller=ADMIN)
        await mutate(node, show, 1)
        second = await node.functions.query(*call, caller=ADMIN, journal=first.journal)
        for result in (first, second):
            result.live.release()

        assert ([0, 1, 2], [10, 11, 12]) == (first.value, second.value)
        assert second.failure is None
        assert first.journal != second.journal


@query
async def with_the_cursor_of_another(ctx: QueryCtx, opts: PaginationOptions) -> Any:
    return await ctx.db.query("items").with_index("by_n").paginate(opts)


async def test_a_cursor_of_another_query_is_refused_where_a_caller_gives_it() -> None:
    async with serving([fill, page, with_the_cursor_of_another, GROUPS]) as node:
        await mutate(node, fill, 20, 1)
        end = (await ask(node, page, {"numItems": 3, "cursor": None}))["continueCursor"]

        for opts in ({"cursor": end}, {"cursor": None, "endCursor": end}):
            with pytest.raises(InvalidCursor, match="belongs to another query"):
                await ask(node, with_the_cursor_of_another, {"numItems": 3, **opts})
