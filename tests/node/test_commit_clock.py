"""Timestamps beside a wall clock that goes back, or leaps ahead."""

from __future__ import annotations

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.kernel.runtime import VirtualRuntime
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

SECOND_NS = 10**9
DAY_S = 86_400.0


@mutation
async def write(ctx: MutationCtx) -> None:
    await ctx.db.insert("ticks", {})


@mutation
async def write_some(ctx: MutationCtx) -> None:
    for _ in range(3):
        await ctx.db.insert("ticks", {})


@query
async def times(ctx: QueryCtx) -> list[float]:
    return [tick["_creationTime"] async for tick in ctx.db.query("ticks")]


APP = [write, write_some, times, Schema(ticks=Table({"note": v.optional(v.string())}))]


async def commit_ts(node: Node) -> int:
    await mutate(node, write)
    return node.published.value


async def test_timestamps_rise_while_the_clock_goes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime) as node:
        before = await commit_ts(node)
        runtime.jump(-DAY_S)

        after = [await commit_ts(node) for _ in range(3)]

    assert sorted({before, *after}) == [before, *after]
    assert after[-1] - before < SECOND_NS


async def test_times_of_creation_rise_after_the_clock_went_back_by_a_day(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, write_some)
        runtime.jump(-DAY_S)

        for _ in range(3):
            await mutate(node, write_some)
        created = await ask(node, times)

    assert sorted(set(created)) == created


async def test_timestamps_rise_over_a_restart_although_the_clock_went_back_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        before = await commit_ts(node)
    earlier = VirtualRuntime(start_ns=before - round(DAY_S * 1e9))

    async with serving(APP, store=store.durable_copy(), runtime=earlier) as node:
        after = await commit_ts(node)

    assert before < after < before + SECOND_NS


@pytest.mark.parametrize(
    ("leap_s", "is_believed"), [(3_000.0, True), (DAY_S, False)], ids=["50 minutes", "a day"]
)
async def test_a_leap_of_over_an_hour_is_not_believed(
    leap_s: float, is_believed: bool, autojump_clock: trio.testing.MockClock
) -> None:
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime) as node:
        before = await commit_ts(node)
        runtime.jump(leap_s)

        after = await commit_ts(node)

    followed_s = leap_s if is_believed else 0.0
    assert pytest.approx(followed_s, abs=1) == (after - before) / SECOND_NS


async def test_a_leap_is_confirmed_by_a_restart(autojump_clock: trio.testing.MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        before = await commit_ts(node)
    later = VirtualRuntime(start_ns=before + round(DAY_S * 1e9))

    async with serving(APP, store=store.durable_copy(), runtime=later) as node:
        after = await commit_ts(node)

    assert pytest.approx(DAY_S, abs=1) == (after - before) / SECOND_NS
