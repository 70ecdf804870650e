"""A deployment that is paused: what is refused, what waits, what goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.errors import Paused, UsageError
from engine.functions.loader import load
from engine.functions.results import Caller
from engine.kernel.runtime import VirtualRuntime
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving

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

        assert ["late", "tick", "tick"] == sorted(await ask(node, texts))


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
