"""What is scheduled comes to its end, whatever clocks, pauses, pushes and a crowded engine do."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import Any, Final

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Retry
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.errors import StoreFull
from engine.functions import due_jobs
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import Id
from engine.model.limits import Limits
from engine.node import Node
from tests.node.nodes import application, ask, mutate, serving

STEPS: Final = 120
KINDS: Final = 3
DAY_S: Final = 86_400.0
UNFINISHED: Final = ("pending", "inProgress")
LIMITS: Final = Limits(
    mutation_jobs_running_max=3,
    action_jobs_running_max=2,
    jobs_waiting_max=6,
    user_time_s_max=60.0,
    slice_s_max=60.0,
    job_results_s_max=365 * DAY_S,
)
"""So little that everybody is in everybody's way."""


@internal_mutation
async def land(ctx: MutationCtx, token: int) -> None:
    await ctx.db.insert("landed", {"token": token})


@internal_action
async def act(ctx: ActionCtx, token: int) -> None:
    await trio.sleep(token % 7)
    if ctx.random.random() < 0.5:
        raise ValueError("as planned")
    await ctx.run_mutation(put, token)


@mutation
async def plan(ctx: MutationCtx, token: int, seconds: float) -> str:
    delay = timedelta(seconds=seconds)
    match token % KINDS:
        case 0:
            return await ctx.scheduler.run_after(delay, land, token)
        case 1:
            return await ctx.scheduler.run_after(delay, act, token)
        case _:
            retry = Retry(initial_backoff=500, base=3, max_attempts=4)
            return await ctx.scheduler.with_retry(retry).run_after(delay, act, token)


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@query
async def jobs(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@query
async def landed(ctx: QueryCtx) -> list[int]:
    return [row["token"] async for row in ctx.db.query("landed")]


@internal_mutation
async def put(ctx: MutationCtx, token: int) -> None:
    await ctx.db.insert("landed", {"token": token})


@internal_action(name="land")
async def land_by_an_action(ctx: ActionCtx, token: int) -> None:
    await ctx.run_mutation(put, token)


APP: Final = (land, act, plan, cancel, jobs, landed, put)
OTHER_APP: Final = (land_by_an_action, act, plan, cancel, jobs, landed, put)
"""In which what was a mutation is an action."""


class Crowded(VirtualRuntime):
    """Now and then there is no room for a job that was found."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(1)
        self._dice = dice

    async def pause(self, point: str) -> None:
        if point.startswith("jobs.") and self._dice.random() < 0.2:
            await trio.sleep(self._dice.random())
        if point == "jobs.found" and self._dice.random() < 0.1:
            raise StoreFull("as planned")


async def _step(node: Node, runtime: Crowded, dice: random.Random, planned: list[str]) -> None:
    match dice.randrange(10):
        case 0 | 1 | 2 | 3 | 4:
            seconds = dice.choice([0.0, 0.0, dice.random() * 20])
            planned.append(await mutate(node, plan, len(planned), seconds))
        case 5 if planned:
            await mutate(node, cancel, dice.choice(planned))
        case 6:
            runtime.jump(dice.uniform(-1, 1) * dice.choice([1, 100, DAY_S]))
        case 7:
            await node.push(application(*dice.choice((APP, OTHER_APP))))
        case 8:
            await (node.pause() if dice.random() < 0.5 else node.resume())
            await node.resume()
        case _:
            await trio.sleep(dice.random() * 5)


async def _live(seed: int) -> list[str]:
    """What is wrong with what there is in the end."""
    dice = random.Random(seed)
    runtime = Crowded(dice)
    planned: list[str] = []
    async with serving(application(*APP), runtime=runtime, limits=LIMITS) as node:
        for _ in range(STEPS):
            await _step(node, runtime, dice, planned)
        for _ in range(30):
            await trio.sleep(DAY_S)  # whoever was sent into the future by a clock has its time
        rows = {job["_id"]: job for job in await ask(node, jobs)}
        there = Counter(await ask(node, landed))
    states = [rows[job]["state"]["kind"] for job in planned]
    wrong = [f"{n} is {state}" for n, state in enumerate(states) if state in UNFINISHED]
    wrong += [f"{n} has landed {count} times" for n, count in there.items() if count > 1]
    return wrong + [
        f"{n} is {states[n]}, and has landed {there[n]} times"
        for n in range(0, len(planned), KINDS)
        if (there[n] == 1) != (states[n] == "success")
    ]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_forgotten_and_nothing_lands_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_jobs, "LOOK_ROWS_MAX", 4)
    monkeypatch.setattr(due_jobs, "NOTED_ROWS_MAX", (2, 512)[seed % 2])

    assert [] == trio.run(_live, seed, clock=MockClock(autojump_threshold=0))
