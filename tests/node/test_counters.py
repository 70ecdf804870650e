"""The numbers that operators read: what they count, by function, and what they leave apart."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons, Retry
from engine.app.decorators import action, internal_action, internal_mutation, mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import StoreFull
from engine.functions import history
from engine.host import Engine
from engine.kernel.counters import WITHIN_S, Durations
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import Id
from engine.model.limits import Limits
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.architecture.source_tree import ROOT
from tests.node.nodes import ADMIN, ask, mutate, serving

HERE = "tests/node/test_counters"
proceed: list[trio.Event] = []


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [doc["text"] async for doc in ctx.db.query("notes")]


@internal_action
async def fragile(ctx: ActionCtx) -> None:
    raise ValueError("as always")


@internal_action
async def waits(ctx: ActionCtx) -> None:
    await proceed[-1].wait()


@mutation
async def plan(ctx: MutationCtx, text: str) -> None:
    await ctx.scheduler.run_after(0, note, text)


@mutation
async def plan_fragile(ctx: MutationCtx) -> None:
    retry = Retry(initial_backoff=1_000, max_attempts=3)
    await ctx.scheduler.with_retry(retry).run_after(0, fragile)


@mutation
async def plan_waits(ctx: MutationCtx) -> str:
    return await ctx.scheduler.run_after(0, waits)


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


SEARCHED = Schema(
    places=Table(v.any())
    .search_index("by_text", search_field="text")
    .vector_index("by_place", vector_field="place", dimensions=2)
)


@mutation
async def insert(ctx: MutationCtx) -> None:
    await ctx.db.insert("places", {"text": "north", "place": [0, 1]})


@query
async def search_both(ctx: QueryCtx) -> list[Any]:
    texts = ctx.db.query("places").with_search_index("by_text", lambda s: s.search("text", "north"))
    return [await texts.take(1), await ctx.db.vector_search("places", "by_place", vector=[0, 1])]


@action
async def nearest(ctx: ActionCtx) -> list[Any]:
    return [*await ctx.vector_search("places", "by_place", vector=[0, 1])]


APP = [note, notes, fragile, waits, plan, plan_fragile, plan_waits, cancel]


def numbers(node: Node, name: str) -> dict[str, float]:
    """By what their labels say, without the place of the functions."""
    return {
        " ".join(value for _, value in labels).replace(f"{HERE}:", ""): value
        for found, labels, value in node.counters.read()
        if found == name
    }


async def test_an_action_that_is_tried_again_ends_once(autojump_clock: trio.abc.Clock) -> None:
    async with serving(APP, runtime=VirtualRuntime(1)) as node:
        await mutate(node, plan_fragile)
        await trio.sleep(60)

        assert {"fragile": 2} == numbers(node, "jobs.tried_again")
        assert {"fragile failed": 1} == numbers(node, "jobs.ended")
        assert {"fragile action failed": 3, "plan_fragile mutation success": 1} == numbers(
            node, "executions"
        )


async def test_an_action_that_was_canceled_has_not_succeeded() -> None:
    proceed.append(trio.Event())
    async with serving(APP) as node:
        job = await mutate(node, plan_waits)
        await wait_all_tasks_blocked()
        assert {"waits": 1} == numbers(node, "jobs.running")
        await mutate(node, cancel, job)
        proceed[-1].set()
        await node.scheduler.wait_resting()

        assert {"waits canceled": 1} == numbers(node, "jobs.ended")
        assert {} == numbers(node, "jobs.running")


async def test_what_a_crash_interrupted_is_counted_as_failed(
    autojump_clock: trio.abc.Clock,
) -> None:
    proceed.append(trio.Event())
    crons = Crons()
    crons.interval("waits", waits, seconds=60)
    store = MemoryStore()
    with trio.CancelScope() as crash:
        async with serving([*APP, crons], store=store, runtime=VirtualRuntime(1)) as node:
            await mutate(node, plan_waits)
            await trio.sleep(1)
            copy = store.durable_copy()
            crash.cancel()
            await trio.sleep_forever()
    runtime = VirtualRuntime(1)
    runtime.jump(150)

    async with serving([*APP, crons], store=copy, runtime=runtime) as node:
        assert {"waits failed": 1} == numbers(node, "jobs.ended") == numbers(node, "crons.ended")
        assert {"waits": 2} == numbers(node, "crons.skipped")


async def test_what_waits_is_counted_by_function_with_how_late_it_is(
    autojump_clock: trio.abc.Clock,
) -> None:
    proceed.append(trio.Event())
    limits = Limits(action_jobs_running_max=1)
    async with serving(APP, runtime=VirtualRuntime(1), limits=limits) as node:
        for _ in range(3):
            await mutate(node, plan_waits)
        await trio.sleep(10)

        assert {"waits": 1} == numbers(node, "jobs.running")
        assert {"waits": 2} == numbers(node, "jobs.queued")
        assert [10, 10] == [
            round(value)
            for name in ("jobs.lag_s", "scheduler.lag_s")
            for value in numbers(node, name).values()
        ]
        proceed[-1].set()
        await node.scheduler.wait_resting()
        assert {"": 0} == numbers(node, "scheduler.lag_s")
        assert {"waits success": 3} == numbers(node, "jobs.ended")


async def test_what_was_put_off_waits_and_is_late(autojump_clock: trio.abc.Clock) -> None:
    runtime, limits = VirtualRuntime(1), Limits(job_backoff_s=30)
    async with serving(APP, runtime=runtime, limits=limits) as node:
        runtime.hold("jobs.found").fail(StoreFull("disk full"))
        await mutate(node, plan, "hello")
        await trio.sleep(20)
        del runtime.points["jobs.found"]

        assert {"note": 1} == numbers(node, "jobs.put_off")
        assert {"note": 1} == numbers(node, "jobs.queued")
        assert 20 == round(numbers(node, "scheduler.lag_s")[""])
        await trio.sleep(20)
        assert {"note success": 1} == numbers(node, "jobs.ended")


async def test_in_a_pause_what_is_due_gets_late(autojump_clock: trio.abc.Clock) -> None:
    @mutation
    async def plan_soon(ctx: MutationCtx) -> None:
        await ctx.scheduler.run_after(5_000, note, "soon")

    async with serving([*APP, plan_soon], runtime=VirtualRuntime(1)) as node:
        await mutate(node, plan_soon)
        await trio.sleep(1)
        await node.pause()
        await trio.sleep(34)

        assert ({"": 1}, 30) == (
            numbers(node, "scheduler.paused"),
            round(numbers(node, "scheduler.lag_s")[""]),
        )


async def test_ticks_of_crons_are_no_jobs(autojump_clock: trio.abc.Clock) -> None:
    proceed.append(trio.Event())
    crons = Crons()
    crons.interval("waits", waits, seconds=60)
    crons.interval("note", note, seconds=60, args={"text": "tick"})
    async with serving([*APP, crons], runtime=VirtualRuntime(1)) as node:
        await trio.sleep(150)
        assert {"waits": 1} == numbers(node, "crons.running")
        assert {"note success": 3} == numbers(node, "crons.ended")
        proceed[-1].set()
        await trio.sleep(1)

        assert {"note success": 3, "waits success": 1} == numbers(node, "crons.ended")
        assert {"waits": 2} == numbers(node, "crons.skipped")
        assert {} == numbers(node, "jobs.ended")


async def test_commits_batches_answers_and_what_is_shown_are_counted() -> None:
    async with serving(APP) as node:
        before = numbers(node, "committer.commits")[""]
        for text in "ab":
            await mutate(node, note, text)
            for _ in range(3):
                await ask(node, notes)
        shown = await node.functions.query(f"{HERE}:notes", {}, caller=ADMIN)

        assert 2 == numbers(node, "committer.commits")[""] - before
        assert 0 < numbers(node, "committer.batches")[""]
        executions = {"note mutation success": 2, "notes query success": 2, "notes query cached": 5}
        assert executions == numbers(node, "executions")
        assert {"": 1} == numbers(node, "cache.entries")
        assert 1 <= numbers(node, "subscriptions")[""]
        shown.live.release()


COUNTED = {
    *("jobs.ended", "jobs.tried_again", "jobs.put_off"),
    *("crons.ended", "crons.put_off", "crons.skipped"),
}
"""Numbers that are there from when something has happened."""


async def test_searches_are_counted_by_how_long_they_took() -> None:
    app = [insert, search_both, nearest, SEARCHED]
    async with serving(app, runtime=VirtualRuntime(1)) as node:
        assert {} == numbers(node, "searches")
        await mutate(node, insert)
        live = node.functions._snapshots.current.live
        seconds = count()
        live.clock = lambda: next(seconds) * 0.0015  # each search looks twice

        await ask(node, search_both)
        for _ in range(2):
            await node.functions.action(f"{HERE}:nearest", {}, caller=ADMIN)

        assert [0, 1] == [numbers(node, "searches")[f"search {s}"] for s in ("0.0010", "0.0020")]
        assert [0, 3] == [numbers(node, "searches")[f"vector {s}"] for s in ("0.0010", "0.0020")]
        assert 3 == numbers(node, "searches")["vector inf"]


def test_durations_are_in_order_as_they_are_read() -> None:
    durations = Durations("a", "b")
    for seconds in (0.0, 0.0002, 0.0003, 5.0):
        durations.add("a", seconds)

    found = [(labels[1][1], count) for labels, count in sorted(durations.read().items())]

    assert [("0.0002", 2), ("0.0005", 3)] == found[:2]
    assert [("1.0000", 3), ("inf", 4)] == found[-2:]
    assert len(WITHIN_S) + 1 == len(found)


async def test_every_number_is_in_the_table() -> None:
    text = (ROOT / "engine/README.md").read_text().split("\n## What is counted\n")[1]
    cells = re.findall(r"(?m)^\| (`.+?`) \|", text.split("\n## ")[0])
    named = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}

    async with Engine.open(":memory:", app=APP) as engine:
        watched = set(engine.node.counters._watched)

    assert watched | COUNTED == named


async def test_names_that_callers_make_up_are_counted_together() -> None:
    async with serving(APP) as node:
        for number in range(20):
            await node.functions.mutation(f"no:such{number}", {}, caller=ADMIN)
        await mutate(node, note, "hello")

        counted = numbers(node, "executions")
        assert 20 == counted.pop("(others) mutation failed")
        assert [1] == list(counted.values())


async def test_so_many_functions_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "COUNTED_MAX", 0)
    async with serving(APP) as node:
        await mutate(node, note, "hello")

        assert {"(others) mutation success": 1} == numbers(node, "executions")
