"""`take(n)`: how many documents, as people have that number."""

from __future__ import annotations

import pytest

from engine import Engine, InvalidValue, MutationCtx, QueryCtx, mutation, query
from engine.functions.results import Caller

ADMIN = Caller(admin=True)
PATH = "tests/node/test_take:first"


@mutation
async def add(ctx: MutationCtx) -> None:
    for n in range(3):
        await ctx.db.insert("notes", {"n": n})


@query
async def first(ctx: QueryCtx, count: float) -> int:
    return len(await ctx.db.query("notes").take(count))  # type: ignore[arg-type]  # as users do


async def test_a_whole_number_that_came_through_a_float_annotation_is_taken() -> None:
    async with Engine.open(":memory:", app=[add, first]) as engine:
        await engine.mutation(add)

        assert [0, 2, 3] == [await engine.query(first, count=n) for n in (0, 2, 9)]


async def test_no_document_is_read_that_is_not_taken() -> None:
    async with Engine.open(":memory:", app=[add, first]) as engine:
        await engine.mutation(add)

        outcome, _ = await engine.node.functions.explain(PATH, {"count": 2}, caller=ADMIN)

    assert outcome.usage is not None
    assert 2 == outcome.usage.documents_read


@pytest.mark.parametrize("count", [0.5, -1, float("inf")])
async def test_any_other_number_is_refused(count: float) -> None:
    async with Engine.open(":memory:", app=[add, first]) as engine:
        with pytest.raises(InvalidValue, match="take needs a whole number"):
            await engine.query(first, count=count)
