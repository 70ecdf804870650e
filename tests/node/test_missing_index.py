"""A query over an index that is not there is told the line that would make it work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine import Engine, IndexNotFound, MutationCtx, QueryCtx, mutation, query
from engine.app.contexts import Range


def as_it_is(range_: Range) -> Range:
    return range_


@mutation
async def add(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"channel": "general", "stars": 3})


@pytest.mark.parametrize(
    ("given", "equal", "line"),
    [
        (as_it_is, {"channel": "a"}, ".index('by_it', ['channel'])"),
        (as_it_is, {"channel": "a", "stars": 1}, ".index('by_it', ['channel', 'stars'])"),
        (
            lambda r: r.eq("channel", "a").gt("stars", 1).lte("stars", 4),
            {},
            ".index('by_it', ['channel', 'stars'])",
        ),
        (lambda r: r.lt("author.name", "m"), {}, ".index('by_it', ['author.name'])"),
        (
            lambda r: r.eq("channel", "a").gt("_creationTime", 0),
            {},
            ".index('by_it', ['channel'])",
        ),
        (as_it_is, {}, ".index('by_it', ['...'])"),
    ],
    ids=["one", "two", "bounds", "nested", "system-field", "nothing"],
)
async def test_a_missing_index_is_answered_with_the_line_to_add(
    given: Callable[[Range], Range], equal: dict[str, Any], line: str
) -> None:
    @query
    async def ask(ctx: QueryCtx) -> list[Any]:
        return await ctx.db.query("notes").with_index("by_it", given, **equal).collect()

    async with Engine.open(":memory:", app=[add, ask]) as engine:
        await engine.mutation(add)
        with pytest.raises(IndexNotFound) as refused:
            await engine.query(ask)

    assert f"To add it: Table(...){line} in the schema." in str(refused.value)
