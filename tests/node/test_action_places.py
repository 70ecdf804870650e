"""So many actions run at a time; who comes later waits, in order, and not for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx
from engine.app.decorators import action, internal_action, mutation
from engine.app.registry import Application
from engine.errors import Overloaded
from engine.functions.gather import gather
from engine.functions.history import Way
from engine.functions.places import Places
from engine.model.limits import Limits
from engine.node import Node
from tests.node.nodes import ADMIN, application, mutate, serving

LIMITS = Limits(concurrent_actions_max=2, action_patience_s=10, action_jobs_running_max=1)

began: list[str] = []
ended: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    began.clear()
    ended.clear()


@action
async def work(ctx: ActionCtx, name: str, seconds: float) -> str:
    began.append(name)
    await trio.sleep(seconds)
    ended.append(name)
    return name


@action
async def call_two(ctx: ActionCtx, name: str) -> list[str]:
    names = [f"{name}.{number}" for number in range(2)]
    return list(await gather(*(ctx.run_action(call_one, name) for name in names)))


@internal_action
async def call_one(ctx: ActionCtx, name: str) -> str:
    return await ctx.run_action(work, name, 1)


@mutation
async def schedule(ctx: MutationCtx, name: str, seconds: float) -> None:
    await ctx.scheduler.run_after(0, work, name, seconds)


def app() -> Application:
    return application(work, call_two, call_one, schedule)


async def act(node: Node, fn: Any, **args: Any) -> Any:
    result = await node.functions.action(str(fn.path), args, caller=ADMIN)
    if result.failure is not None:
        raise result.failure.error
    return result.value


async def do(node: Node, name: str, seconds: float) -> None:
    await act(node, work, name=name, seconds=seconds)


@asynccontextmanager
async def busy(*works: tuple[str, float]) -> AsyncIterator[Node]:
    """A node that has been asked for these, in this order."""
    async with serving(app(), limits=LIMITS) as node, trio.open_nursery() as nursery:
        for name, seconds in works:
            nursery.start_soon(do, node, name, seconds)
            await wait_all_tasks_blocked()
        yield node


async def test_those_who_find_no_place_are_served_in_the_order_in_which_they_came(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with busy(("a", 3), ("b", 4), ("c", 4), ("d", 4), ("e", 1)):
        at_once = list(began)
        await trio.sleep(3.5)
        later = list(began)

    assert ["a", "b"] == at_once
    assert ["a", "b", "c"] == later
    assert ["a", "b", "c", "d", "e"] == began
    assert sorted(began) == sorted(ended)


async def test_whoever_has_waited_its_patience_is_told_why_and_nothing_was_done(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with busy(("a", 11), ("b", 11)) as node:
        asked_s = trio.current_time()
        with pytest.raises(Overloaded, match=r"concurrent_actions_max.*10 s; nothing was done"):
            await do(node, "c", 1)
        waited_s = trio.current_time() - asked_s
        await do(node, "d", 1)

    assert 10 == waited_s
    assert ["a", "b", "d"] == began


async def test_who_gives_up_waiting_leaves_its_turn_to_the_next(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with busy(("a", 5), ("b", 5)) as node:
        with trio.move_on_after(1):
            await do(node, "c", 1)
        await do(node, "d", 1)
        await do(node, "e", 1)

    assert ["a", "b", "d", "e"] == began


async def test_an_action_that_fails_gives_its_place_back(autojump_clock: trio.abc.Clock) -> None:
    async with busy() as node:
        for _ in range(3):
            with pytest.raises(ValueError, match="must be non-negative"):
                await do(node, "a", -1)
        await do(node, "b", 1)

    assert ["a", "a", "a", "b"] == began
    assert ["b"] == ended


async def test_actions_that_others_call_need_no_place_of_their_own(
    autojump_clock: trio.abc.Clock,
) -> None:
    answers: list[list[str]] = []

    async def ask(node: Node, name: str) -> None:
        answers.append(await act(node, call_two, name=name))

    async with busy() as node, trio.open_nursery() as nursery:
        for name in "ab":
            nursery.start_soon(ask, node, name)

    assert [["a.0", "a.1"], ["b.0", "b.1"]] == sorted(answers)


async def test_scheduled_actions_and_those_that_clients_ask_for_do_not_wait_for_each_other(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with busy(("a", 100), ("b", 100)) as node:
        for name in ("cron", "next cron"):
            await mutate(node, schedule, name, 60)
        await trio.sleep(1)
        at_once = list(began)
        await trio.sleep(101)
        await do(node, "c", 1)
        await node.scheduler.wait_resting()

    assert ["a", "b", "cron"] == at_once
    assert ["a", "b", "cron", "next cron", "c"] == began


async def test_a_place_that_is_free_takes_no_patience(autojump_clock: MockClock) -> None:
    places = Places(Limits(concurrent_actions_max=1, action_patience_s=0.0))

    async with places.place(Way()):
        with pytest.raises(Overloaded):
            async with places.place(Way()):
                pass
    async with places.place(Way()):
        pass
