"""Who waits for the disk: woken in order, half of them first if the disk has nothing to do."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.committer.waiting import DurableWaiters
from tests.node.nodes import mutate, serving


class Crowd:
    """Tasks that wait for a timestamp each, and note when they are woken."""

    def __init__(self) -> None:
        self.waiters = DurableWaiters()
        self.woken: list[int] = []

    async def come(self, nursery: trio.Nursery, *stamps: int) -> None:
        for ts in stamps:
            nursery.start_soon(self._wait, ts)
            await wait_all_tasks_blocked()

    async def _wait(self, ts: int) -> None:
        await self.waiters.wait(ts)
        self.woken.append(ts)


async def test_half_of_those_who_are_due_are_woken_the_oldest_first(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await crowd.come(nursery, 1, 2, 3, 4, 5, 9)

        count = crowd.waiters.release_half(5)
        await wait_all_tasks_blocked()
        first = sorted(crowd.woken)
        crowd.waiters.release(5)
        await wait_all_tasks_blocked()
        then = sorted(crowd.woken)
        crowd.waiters.release(9)

    assert (2, [1, 2]) == (count, first)
    assert [1, 2, 3, 4, 5] == then


async def test_one_that_is_due_is_nobodys_half(autojump_clock: MockClock) -> None:
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await crowd.come(nursery, 1)

        count = crowd.waiters.release_half(1)
        crowd.waiters.release(1)

    assert (0, [1]) == (count, crowd.woken)


async def test_nobody_is_woken_early_who_came_before_one_that_is_due(
    autojump_clock: MockClock,
) -> None:
    crowd = Crowd()
    async with trio.open_nursery() as nursery:
        await crowd.come(nursery, 9, 1, 2, 3)

        count = crowd.waiters.release_half(3)
        crowd.waiters.release(3)
        await wait_all_tasks_blocked()
        early = list(crowd.woken)
        crowd.waiters.release(9)

    assert (0, []) == (count, early)


@mutation
async def note(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {})


@pytest.mark.parametrize("callers", [8, 50])
async def test_callers_who_wait_for_one_batch_do_not_all_wait_for_the_next_one(
    autojump_clock: MockClock, callers: int
) -> None:
    rounds = 4
    async with serving([note]) as node:
        await mutate(node, note)
        stats = node.committer.stats
        before = stats["batches"]

        async def caller() -> None:
            for _ in range(rounds):
                await mutate(node, note)

        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(caller)
        batches = stats["batches"] - before

    assert batches > rounds + 1
