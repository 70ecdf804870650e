"""`db.count`: exact wherever a function stands, and no walk over the table."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.errors import NotAllowed
from engine.kernel.runtime import VirtualRuntime
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, ask_at, mutate, serving


@mutation
async def add(ctx: MutationCtx, table: str = "things", count: int = 1) -> int:
    for n in range(count):
        await ctx.db.insert(table, {"n": n})
    return await ctx.db.count(table)


@mutation
async def add_and_fail(ctx: MutationCtx) -> None:
    await ctx.db.insert("things", {})
    raise ValueError("after all not")


@mutation
async def try_to_add(ctx: MutationCtx) -> list[int]:
    before = await ctx.db.count("things")
    with pytest.raises(ValueError, match="after all not"):
        await ctx.run_mutation(add_and_fail)
    return [before, await ctx.db.count("things")]


@mutation
async def patch_all(ctx: MutationCtx) -> None:
    for doc in await ctx.db.query("things").collect():
        await ctx.db.patch(doc["_id"], {"n": doc["n"] + 1})


@mutation
async def remove(ctx: MutationCtx) -> int:
    first = await ctx.db.query("things").first()
    assert first is not None
    await ctx.db.delete(first["_id"])
    return await ctx.db.count("things")


@query
async def count(ctx: QueryCtx, table: str = "things") -> int:
    return await ctx.db.count(table)


PATH = "tests/node/test_count:count"
APP = [add, add_and_fail, try_to_add, patch_all, remove, count]


async def test_a_table_that_nobody_has_written_has_no_documents(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        assert 0 == await ask(node, count)
        assert 1 == await mutate(node, add)
        assert [1, 0] == [await ask(node, count), await ask(node, count, table="others")]


async def test_a_mutation_counts_what_is_staged_before_it_is_durable(
    autojump_clock: MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, add, count=3)
        disk = runtime.hold("committer.persist")
        counted: list[Any] = []

        async def one_more() -> None:
            counted.append(await mutate(node, add))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_more)
            await disk.wait_reached()
            nursery.start_soon(one_more)
            await trio.testing.wait_all_tasks_blocked()
            seen = await ask(node, count)
            disk.release()

    assert 3 == seen
    assert [4, 5] == sorted(counted)


async def test_what_a_failed_child_added_is_not_counted(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, add, count=2)

        counted = await mutate(node, try_to_add)

    assert [2, 2] == counted


async def test_a_count_survives_a_restart_and_is_known_for_the_past(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await mutate(node, add, count=3)
        then = node.published.value
        await mutate(node, remove)

    async with serving(APP, store=store.durable_copy(), runtime=VirtualRuntime(1)) as node:
        now = await ask(node, count)
        before = await ask_at(node, then, count)
        after = await mutate(node, remove)

    assert (2, 3, 1) == (now, before, after)


async def test_a_count_is_asked_again_when_rows_come_or_go_and_not_when_they_change(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, add, count=2)
        result = await node.functions.query(PATH, {}, caller=ADMIN)

        await mutate(node, patch_all)
        await node.functions.processed.wait_reached(node.published.value)
        after_patches = result.live.invalidated_at
        await mutate(node, remove)
        await node.functions.processed.wait_reached(node.published.value)
        after_removal = result.live.invalidated_at
        result.live.release()

    assert after_patches is None
    assert after_removal is not None


@query
async def count_system(ctx: QueryCtx) -> int:
    return await ctx.db.count("_tables")


async def test_system_tables_are_not_counted(autojump_clock: MockClock) -> None:
    async with serving([count_system]) as node:
        with pytest.raises(NotAllowed, match="no table that functions have"):
            await ask(node, count_system)
