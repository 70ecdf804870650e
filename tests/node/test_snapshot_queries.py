"""Queries of a mutation's beginning: without its writes, within its limits, and binding nobody."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.errors import LimitExceeded
from engine.kernel.runtime import VirtualRuntime
from tests.node.nodes import ask, mutate, serving

runs: list[str] = []


@query
async def names(ctx: QueryCtx) -> list[str]:
    return [doc["name"] async for doc in ctx.db.query("things")]


@query
async def names_within(ctx: QueryCtx) -> list[str]:
    return await ctx.run_query(names)


@mutation
async def add(ctx: MutationCtx, name: str) -> list[str]:
    await ctx.db.insert("things", {"name": name})
    return await ctx.run_snapshot_query(names_within)


@mutation
async def look_amid_writes(ctx: MutationCtx) -> list[Any]:
    before = await ctx.db.query("things").first()
    assert before is not None
    await ctx.db.patch(before["_id"], {"name": "changed"})
    within = await ctx.run_mutation(add, "new")
    return [
        await ctx.run_snapshot_query(names),
        within,
        await ctx.run_query(names),
        len(await ctx.run_snapshot_query(names)),
    ]


@mutation
async def look_twice(ctx: MutationCtx, documents: int) -> list[str]:
    few = ctx.transaction_limits(documents_read=documents)
    await few.run_snapshot_query(names)
    metrics = await ctx.meta.get_transaction_metrics()
    assert 2 == metrics["documents_read"]["used"]
    return await few.run_snapshot_query(names)


@mutation
async def look_and_add(ctx: MutationCtx, name: str, of_beginning: bool) -> int:
    runs.append(name)
    if of_beginning:
        seen = await ctx.run_snapshot_query(names)
    else:
        seen = await ctx.run_query(names)
    await ctx.db.insert("things", {"name": name})
    return len(seen)


APP = [names, names_within, add, look_amid_writes, look_twice, look_and_add]


async def test_it_sees_nothing_that_was_written_since_the_outermost_mutation_began(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        assert [] == await mutate(node, add, "old")
        told = await mutate(node, look_amid_writes)
        committed = await ask(node, names)

    assert [["old"], ["old"], ["changed", "new"], 1] == told
    assert ["changed", "new"] == committed


async def test_what_it_reads_counts_against_the_limits_of_its_mutation(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        for name in "ab":
            await mutate(node, add, name)

        assert ["a", "b"] == await mutate(node, look_twice, 2)
        with pytest.raises(LimitExceeded, match="documents_read_max"):
            await mutate(node, look_twice, 1)


async def several(of_beginning: bool) -> list[str]:
    """Look at what the others write, six at a time and beside each other; in which runs."""
    runs.clear()
    runtime = VirtualRuntime(5, interleaves=True)
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, add, "first")
        async with trio.open_nursery() as nursery:
            for name in "abcdef":
                nursery.start_soon(mutate, node, look_and_add, name, of_beginning)
        assert [*"abcdef", "first"] == sorted(await ask(node, names))
    return list(runs)


async def test_what_it_read_may_change_before_its_mutation_commits(
    autojump_clock: MockClock,
) -> None:
    tracked = await several(of_beginning=False)
    stale = await several(of_beginning=True)

    assert len(tracked) > 6, "who depends on what others write runs again"
    assert [*"abcdef"] == sorted(stale)
