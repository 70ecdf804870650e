"""`async for` over a query: others have their turn meanwhile, and it may be cancelled half way."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.functions.targets import call_target
from engine.model.limits import Limits
from tests.node.nodes import ADMIN, ask, mutate, serving

ROWS = 2_000


@mutation
async def fill(ctx: MutationCtx) -> None:
    for number in range(ROWS):
        await ctx.db.insert("rows", {"number": number})


@query
async def streamed(ctx: QueryCtx) -> float:
    return len([row async for row in ctx.db.query("rows")])


@query
async def searched(ctx: QueryCtx) -> float:
    """For what is not there, so that much is read before anything is handed out."""
    rows = ctx.db.query("rows").filter(lambda q: q.field("number") == -1)
    return len([row async for row in rows])


async def _through_a_generator(rows: Any) -> AsyncIterator[Any]:
    yield await rows.collect()


@query
async def generated(ctx: QueryCtx) -> float:
    """By a generator of the application's own."""
    [rows] = [found async for found in _through_a_generator(ctx.db.query("rows"))]
    return len(rows)


@pytest.mark.parametrize("seen", [1, 2, 5, 100])
async def test_a_loop_that_is_left_early_has_read_less_than_twice_what_it_has_seen(
    seen: int, autojump_clock: MockClock
) -> None:
    @mutation
    async def change(ctx: MutationCtx, after: int) -> None:
        for row in (await ctx.db.query("rows").collect())[after:]:
            await ctx.db.patch(row["_id"], {"changed": True})

    @query
    async def some(ctx: QueryCtx) -> Any:
        found = []
        async for row in ctx.db.query("rows"):
            found.append(row["number"])
            if len(found) == seen:
                break
        return found

    async with serving([fill, change, some]) as node:
        await mutate(node, fill)
        component, path, args = call_target(some, (), {}, "")
        shown = await node.functions.query(path, args, caller=ADMIN, component=component)
        assert list(range(seen)) == shown.value

        await mutate(node, change, 2 * seen - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert None is shown.live.invalidated_at
        await mutate(node, change, seen - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert shown.live.invalidated_at is not None
        shown.live.release()


async def test_a_long_stream_lets_others_run(autojump_clock: MockClock) -> None:
    turns = 0
    limits = Limits(slice_s_max=0.0)
    async with serving([fill, streamed], limits=limits) as node, trio.open_nursery() as nursery:
        await mutate(node, fill)

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before = turns
        count = await ask(node, streamed)
        nursery.cancel_scope.cancel()

    assert count == ROWS
    assert turns - before >= ROWS // node.limits.slice_rows_max


# That generator of the application's is trio's to warn of.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize(
    "fn", [streamed, searched, generated], ids=["rows", "none", "own generator"]
)
async def test_who_is_cancelled_in_a_stream_leaves_the_engine_as_it_was(
    fn: Any, autojump_clock: MockClock
) -> None:
    limits = Limits(slice_s_max=0.0)
    async with serving([fill, streamed, searched, generated], limits=limits) as node:
        await mutate(node, fill)
        for turns in range(8):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, node, fn)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            gc.collect()
            await trio.lowlevel.checkpoint()

        count = await ask(node, streamed)

    assert count == ROWS
