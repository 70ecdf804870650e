"""A deployment that is paused: what is refused, what waits, what goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.errors import Paused, UsageError
from engine.functions.crons import SKIPPED_SLICE_ROWS
from engine.functions.loader import load
from engine.functions.results import Caller
from engine.kernel.runtime import VirtualRuntime
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

HOUR_S = 3600.0
CLIENT = Caller(admin=True, origin="http")
proceed: list[trio.Event] = []


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return [note["text"] async for note in ctx.db.query("notes")]


@mutation
async def add(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@internal_mutation
async def tick(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "tick"})


@mutation
async def later(ctx: MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(timedelta(seconds=1), add, text)


@action
async def work(ctx: ActionCtx) -> list[str]:
    await ctx.run_mutation(add, "begun")
    await proceed[-1].wait()
    await ctx.run_mutation(add, "done")
    return await ctx.run_query(texts)


def app(*more: Any) -> Application:
    return load([texts, add, tick, later, work, *more])


def numbers(node: Node, name: str) -> dict[str, float]:
    """By the name of the function."""
    return {
        labels[0][1].rpartition(":")[2]: value
        for found, labels, value in node.counters.read()
        if found == name
    }


async def looked(node: Node) -> Any:
    """As an operator does, who may look at what is paused."""
    operator = Caller(admin=True, origin="operator")
    result = await node.functions.query("tests/node/test_pause:texts", {}, caller=operator)
    result.live.release()
    assert result.failure is None
    return result.value


async def test_what_is_called_anew_is_refused_and_looks_at_nothing() -> None:
    async with serving(app()) as node:
        await mutate(node, add, "before")
        assert ["before"] == await ask(node, texts)

        assert await node.pause()

        for call in (
            node.functions.query("tests/node/test_pause:texts", {}, caller=CLIENT),
            node.functions.mutation("tests/node/test_pause:add", {"text": "no"}, caller=CLIENT),
            node.functions.action("tests/node/test_pause:work", {}, caller=CLIENT),
        ):
            result = await call
            assert result.failure is not None
            assert isinstance(result.failure.error, Paused)
            assert "headrace resume" in result.failure.message
        assert not await node.pause()
        assert await node.resume()
        assert not await node.resume()
        assert ["before"] == await ask(node, texts)


async def test_a_query_that_is_shown_is_told_of_both() -> None:
    async with serving(app()) as node:
        call: tuple[str, dict[str, Any]] = ("tests/node/test_pause:texts", {})
        shown = await node.functions.query(*call, caller=CLIENT)
        woken: list[str] = []
        shown.live.watch(lambda: woken.append("paused"))

        await node.pause()
        await node.functions.processed.wait_reached(node.published.value)
        assert ["paused"] == woken
        refused = await node.functions.query(*call, caller=CLIENT)
        assert refused.failure is not None
        refused.live.watch(lambda: woken.append("resumed"))
        await node.resume()
        await node.functions.processed.wait_reached(node.published.value)

        assert ["paused", "resumed"] == woken
        assert [] == await ask(node, texts)
        for result in (shown, refused):
            result.live.release()


async def test_what_has_begun_comes_to_its_end_and_sees_what_it_wrote() -> None:
    proceed.append(trio.Event())
    ended: list[Any] = []

    async def act(node: Node) -> None:
        ended.append(await node.functions.action("tests/node/test_pause:work", {}, caller=CLIENT))

    async with serving(app()) as node, trio.open_nursery() as nursery:
        nursery.start_soon(act, node)
        await wait_all_tasks_blocked()
        await node.pause()
        refused = await node.functions.query("tests/node/test_pause:texts", {}, caller=CLIENT)
        refused.live.release()
        proceed[-1].set()
        await wait_all_tasks_blocked()

        (result,) = ended
        assert ["begun", "done"] == result.value
        again = await node.functions.query("tests/node/test_pause:texts", {}, caller=CLIENT)
        again.live.release()
        assert again.failure is not None, "what the action was told is nobody else's answer"


async def test_jobs_wait_and_crons_skip_over_a_restart(autojump_clock: trio.abc.Clock) -> None:
    crons = Crons()
    crons.interval("tick", tick, seconds=10)
    store, runtime = MemoryStore(), VirtualRuntime(1)
    async with serving(app(crons), store=store, runtime=runtime) as node:
        await trio.sleep(1)
        await mutate(node, later, "late")
        await node.pause()
        await trio.sleep(100)

    async with serving(app(crons), store=store, runtime=runtime) as node:
        assert node.functions.is_paused
        await trio.sleep(100)
        assert ["tick"] == await looked(node)
        await node.resume()
        await node.scheduler.wait_resting()

        assert ["late", "tick"] == sorted(await ask(node, texts))
        await trio.sleep(10)
        assert ["late", "tick", "tick"] == sorted(await ask(node, texts))


@mutation
async def register(ctx: MutationCtx, name: str, seconds: float) -> None:
    await ctx.crons.register(name, add, {"text": name}, seconds=seconds)


@mutation
async def register_many(ctx: MutationCtx, count: float) -> None:
    for number in range(int(count)):
        await ctx.crons.register(f"{number:03}", add, {"text": f"{number:03}"}, hours=1)


async def crons_of(node: Node, began_s: float) -> dict[str, tuple[float, int]]:
    """Of each by its name when it is next due, in hours, and how many times it has skipped."""
    return {
        row["cron"]: (round((row["nextTime"] / 1000 - began_s) / HOUR_S, 3), row["skipped"])
        for row in await node.scheduler.jobs.crons()
    }


async def test_times_that_come_in_a_pause_are_skipped_and_counted_at_its_end(
    autojump_clock: trio.abc.Clock,
) -> None:
    crons = Crons()
    crons.daily("nightly", tick, hour=3, minute=0)
    crons.cron("at eight and nine", tick, "0 8,9 * * *")
    midnight_s = datetime(2026, 1, 2, tzinfo=UTC).timestamp()
    runtime = VirtualRuntime(1, start_ns=int(midnight_s) * 10**9)
    async with serving(app(crons, register), runtime=runtime) as node:
        await mutate(node, register, "hourly", HOUR_S)
        await trio.sleep(2 * HOUR_S - 60)
        await mutate(node, later, "late")
        await node.pause()
        await trio.sleep(6 * HOUR_S)
        await node.resume()
        await node.scheduler.wait_resting()

        assert ["hourly", "hourly", "late"] == sorted(await ask(node, texts))
        assert {
            "nightly": (27, 1),
            "at eight and nine": (8, 0),
            "hourly": (8, 6),
        } == await crons_of(node, midnight_s)
        assert {"tick": 1, "add": 6} == numbers(node, "crons.skipped")
        (hourly,) = [row for row in await node.scheduler.jobs.crons() if row["cron"] == "hourly"]
        assert [0, 6] == [run["skipped"] for run in hourly["runs"]], "after the last run before it"
        await trio.sleep(60 + 1)
        assert ["hourly"] * 3 + ["late", "tick"] == sorted(await ask(node, texts))


async def test_an_end_of_a_pause_that_was_cut_off_loses_no_cron_and_runs_no_backlog(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime(1)
    began_s = runtime.now_ns() / 1e9
    async with serving(app(register_many), store=store, runtime=runtime) as node:
        await mutate(node, register_many, SKIPPED_SLICE_ROWS + 8)
        await node.scheduler.wait_resting()
        await node.pause()
        await trio.sleep(2.5 * HOUR_S)
        await node.scheduler.jobs.skip_missed(b"", runtime.now_ns() / 1e6)
        copy = store.durable_copy()

    async with serving(app(register_many), store=copy, runtime=runtime) as node:
        assert node.functions.is_paused
        assert {(3, 2), (1, 0)} == set((await crons_of(node, began_s)).values())
        await trio.sleep(HOUR_S)
        await node.resume()
        await node.scheduler.wait_resting()

        names = [f"{number:03}" for number in range(SKIPPED_SLICE_ROWS + 8)]
        assert names == sorted(await ask(node, texts))
        assert dict.fromkeys(names, (4, 3)) == await crons_of(node, began_s)
        await trio.sleep(HOUR_S)
        assert sorted(names * 2) == sorted(await ask(node, texts))


async def test_a_run_that_outlives_a_pause_counts_what_it_skips_itself(
    autojump_clock: trio.abc.Clock,
) -> None:
    proceed.append(trio.Event())
    crons = Crons()
    crons.interval("work", work, seconds=36)
    runtime = VirtualRuntime(1)
    began_s = runtime.now_ns() / 1e9
    async with serving(app(crons), runtime=runtime) as node:
        await trio.sleep(1)
        await node.pause()
        await trio.sleep(0.025 * HOUR_S)
        await node.resume()
        assert {"work": (0, 0)} == await crons_of(node, began_s)
        await trio.sleep(0.01 * HOUR_S)
        proceed[-1].set()
        await node.scheduler.wait_resting()

        assert (["begun", "done"], {"work": (0.04, 3)}) == (
            await ask(node, texts),
            await crons_of(node, began_s),
        )


async def test_who_resumes_what_is_not_paused_skips_nothing(
    autojump_clock: trio.abc.Clock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime(1)
    crons = Crons()
    crons.interval("tick", tick, hours=1)
    async with serving(app(crons), store=store, runtime=runtime) as node:
        await node.scheduler.wait_resting()

    runtime.jump(1.5 * HOUR_S)
    async with serving(None, store=store, runtime=runtime) as node:
        await node.resume()
        await node.push(app(crons))
        await node.scheduler.wait_resting()

        assert ["tick", "tick"] == await ask(node, texts)


async def test_a_push_works_and_changes_nothing_about_it() -> None:
    @query
    async def more(ctx: QueryCtx) -> int:
        return 1

    store = MemoryStore()
    async with serving(app(), store=store) as node:
        await node.pause()
        await node.push(app(more))
        assert node.functions.is_paused
        assert "more" in " ".join(node.functions.deployment.application.functions)

    async with serving(None, store=store) as node:
        assert node.functions.is_paused


async def test_where_nothing_is_deployed_there_is_nothing_to_pause() -> None:
    async with serving(None) as node:
        with pytest.raises(UsageError, match="nothing is deployed"):
            await node.pause()
