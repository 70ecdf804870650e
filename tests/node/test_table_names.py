"""Names of tables, in an application that declares none."""

from __future__ import annotations

from typing import Any

import pytest

from engine import Engine, InvalidValue, MutationCtx, mutation


@mutation
async def insert_into(ctx: MutationCtx, table: str) -> Any:
    return await ctx.db.insert(table, {})


@pytest.mark.parametrize("name", ["", "a b", "é", "1st", "a" * 65, "a" * 1_000_000], ids=range(6))
async def test_a_table_that_no_schema_could_name_is_not_made(name: str) -> None:
    async with Engine.open(":memory:", app=[insert_into]) as engine:
        with pytest.raises(InvalidValue, match="letters, digits and underscores, at most 64") as it:
            await engine.mutation(insert_into, table=name)

        assert len(str(it.value)) < 1_000


@pytest.mark.parametrize("name", ["a", "A_1", "a" * 64])
async def test_a_table_is_made_by_the_first_document_in_it(name: str) -> None:
    async with Engine.open(":memory:", app=[insert_into]) as engine:
        assert await engine.mutation(insert_into, table=name)
