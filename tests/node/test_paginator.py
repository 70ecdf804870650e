"""Pages by places in an index: any number in a function, and cursors that may be kept."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import InvalidCursor, InvalidValue, NotAllowed
from engine.functions.paginator import paginator
from tests.node.nodes import ask, mutate, serving

SCHEMA = Schema(
    tasks=Table({"n": v.any(), "done": v.optional(v.boolean())}).index("by_n", ["n"]),
    others=Table({"n": v.any()}).index("by_n", ["n"]),
)


@mutation
async def fill(ctx: MutationCtx, numbers: list[Any]) -> None:
    for n in numbers:
        await ctx.db.insert("tasks", {"n": n})


@mutation
async def work(ctx: MutationCtx, size: int) -> list[list[Any]]:
    """Take page after page, and delete what is on it: each begins where the one before was cut."""
    pages: list[list[Any]] = []
    cursor, is_done = None, False
    while not is_done:
        tasks = paginator(ctx.db).query("tasks").with_index("by_n")
        page = await tasks.paginate({"numItems": size, "cursor": cursor})
        for doc in page["page"]:
            await ctx.db.delete(doc["_id"])
        pages.append([doc["n"] for doc in page["page"]])
        cursor, is_done = page["continueCursor"], page["isDone"]
    return pages


@query
async def page_of(
    ctx: QueryCtx,
    size: int,
    cursor: str | None,
    table: str = "tasks",
    index: str = "by_n",
    order: str = "asc",
    above: int = 0,
) -> dict[str, Any]:
    tasks = paginator(ctx.db).query(table)
    chosen = tasks if index != "by_n" else tasks.with_index(index, lambda r: r.gt("n", above))
    ordered = chosen.order("asc" if order == "asc" else "desc")
    filtered = ordered.where(lambda doc: "done" not in doc)
    page = await filtered.paginate({"numItems": size, "cursor": cursor})
    return {**page, "page": [doc["n"] for doc in page["page"]]}


@query
async def two_pages(ctx: QueryCtx, by_place: bool) -> int:
    db = paginator(ctx.db) if by_place else ctx.db
    pages = [await db.query("tasks").paginate({"numItems": 2, "cursor": None}) for _ in range(2)]
    return sum(len(page["page"]) for page in pages)


@query
async def no_database(ctx: QueryCtx) -> None:
    paginator(ctx)  # type: ignore[arg-type]  # what is tried


APP = [SCHEMA, fill, work, page_of, two_pages, no_database]


async def test_a_function_takes_as_many_pages_as_it_likes_and_deletes_what_was_on_them(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, [1, 2, None, "a", 5])

        assert [[None, 1], [2, 5], ["a"]] == await mutate(node, work, 2)
        assert [[]] == await mutate(node, work, 2)


async def test_a_cursor_is_good_for_its_index_and_order_whatever_is_asked_of_them(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, list(range(1, 10)))
        cursor = (await ask(node, page_of, 4, None))["continueCursor"]

        assert [5, 6] == (await ask(node, page_of, 2, cursor))["page"]
        assert [8, 9] == (await ask(node, page_of, 2, cursor, above=7))["page"]
        for other in (
            {"table": "others"},
            {"order": "desc"},
            {"index": "by_creation_time"},
            {"cursor": cursor[:-1] + "A"},
        ):
            with pytest.raises(InvalidCursor):
                await ask(node, page_of, **{"size": 2, "cursor": cursor, **other})


async def test_without_it_a_function_has_one_page(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, fill, [1, 2, 3])

        assert 4 == await ask(node, two_pages, by_place=True)
        with pytest.raises(NotAllowed, match=r"paginator\(ctx.db\)"):
            await ask(node, two_pages, by_place=False)
        with pytest.raises(InvalidValue, match="paginator takes"):
            await ask(node, no_database)
