"""Actions that are tried again when they fail, and who is told what came of them."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Retry, later_ms
from engine.app.decorators import action, internal_action, internal_mutation, mutation, query
from engine.app.registry import Application
from engine.errors import UsageError
from engine.functions.loader import load
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import Id
from engine.model.limits import BACKOFF_S_MAX
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, mutate, serving

SOON = Retry(initial_backoff=1, max_attempts=2)
tried: list[float] = []
proceed: list[trio.Event] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    tried.clear()
    proceed.clear()


@query
async def outcomes(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.query("outcomes").collect()


@query
async def job_row(ctx: QueryCtx, job: Id[Any]) -> dict[str, Any] | None:
    return await ctx.db.system.get(job)


@query
async def job_count(ctx: QueryCtx) -> int:
    return len(await ctx.db.system.query("_scheduled_functions").collect())


@internal_mutation
async def told(ctx: MutationCtx, job: str, result: dict[str, Any], context: Any) -> None:
    await ctx.db.insert("outcomes", {"job": job, "result": result, "context": context})


@internal_action
async def fragile(ctx: ActionCtx, works_at: int) -> list[int]:
    """Fail until it was tried so often."""
    tried.append(ctx.now_ms)
    if len(tried) < works_at:
        raise ValueError(f"attempt {len(tried)}")
    return [len(tried)]


@internal_action
async def waits(ctx: ActionCtx) -> None:
    tried.append(ctx.now_ms)
    await proceed[-1].wait()


@internal_action
async def large(ctx: ActionCtx) -> str:
    return "x" * 600_000


@internal_action
async def huge(ctx: ActionCtx) -> str:
    return "x" * (12 << 20)


@mutation
async def begin(ctx: MutationCtx, what: str, args: dict[str, Any], attempts: int) -> str:
    retry = Retry(initial_backoff=1_000, base=2, max_attempts=attempts)
    scheduler = ctx.scheduler.with_retry(retry, on_complete=told, context={"of": what})
    return await scheduler.run_after(0, f"tests/node/test_retries:{what}", args)


@mutation
async def begin_ten(ctx: MutationCtx) -> None:
    scheduler = ctx.scheduler.with_retry(Retry(initial_backoff=timedelta(seconds=BACKOFF_S_MAX)))
    for _ in range(10):
        await scheduler.run_after(0, fragile, works_at=99)


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@action
async def begin_in_action(ctx: ActionCtx) -> str:
    return await ctx.scheduler.with_retry(Retry(initial_backoff=1, max_attempts=2)).run_after(
        0, fragile, works_at=2
    )


@action
def begin_in_thread(ctx: Any) -> str:
    tried_again = ctx.scheduler.with_retry(
        Retry(initial_backoff=1, max_attempts=2), on_complete=told
    )
    return str(tried_again.run_after(0, fragile, works_at=2))


@mutation
async def wrong(ctx: MutationCtx, how: str) -> None:
    match how:
        case "a mutation":
            await ctx.scheduler.with_retry(Retry()).run_after(0, told, "", {}, None)
        case "told by an action":
            ctx.scheduler.with_retry(Retry(), on_complete=fragile)  # type: ignore[arg-type]
        case "no value":
            ctx.scheduler.with_retry(Retry(), context=object())
        case "a huge context":
            ctx.scheduler.with_retry(Retry(), context="x" * (2 << 20))
        case "an argument":
            await ctx.scheduler.run_after(0, fragile, works_at=1, retry=Retry())  # type: ignore[call-overload]
        case "an argument of what is named":
            named: Any = ctx.scheduler.run_after
            await named(0, "tests/node/test_retries:fragile", {"works_at": 1}, retry=Retry())
        case _:
            ctx.scheduler.with_retry(3)  # type: ignore[arg-type]


def app_functions() -> list[Any]:
    return [
        *(outcomes, job_row, job_count, told, fragile, waits, large, huge, begin, cancel),
        begin_ten,
        *(begin_in_action, begin_in_thread, wrong),
    ]


def app() -> Application:
    return load(app_functions())


async def test_an_action_is_tried_again_later_and_later_until_it_works(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        job = await mutate(node, begin, "fragile", {"works_at": 4}, 5)
        await trio.sleep(60)

        waits_ms = [after - before for before, after in pairwise(tried)]
        assert [True] * 3 == [
            0.5 * mean <= wait <= 1.5 * mean + 1
            for wait, mean in zip(waits_ms, (1_000, 2_000, 4_000), strict=True)
        ]
        row = await ask(node, job_row, job)
        assert ({"kind": "success"}, 4, [4]) == (row["state"], row["attempts"], row["returned"])
        assert "ValueError: attempt 3" in row["lastError"]
        (outcome,) = await ask(node, outcomes)
        assert (job, {"kind": "success", "value": [4]}, {"of": "fragile"}) == (
            outcome["job"],
            outcome["result"],
            outcome["context"],
        )


async def test_an_attempt_that_is_due_before_the_last_one_is_told_holds_up_nobody(
    autojump_clock: trio.abc.Clock,
) -> None:
    @internal_mutation
    async def note(ctx: MutationCtx) -> None:
        await ctx.db.insert("outcomes", {"job": "another"})

    @mutation
    async def later(ctx: MutationCtx) -> None:
        await ctx.scheduler.run_after(0, note)

    runtime = VirtualRuntime(1)
    async with serving([*app_functions(), note, later], runtime=runtime) as node:
        hold = runtime.hold("jobs.ended")
        await mutate(node, begin, "fragile", {"works_at": 2}, 2)
        await hold.wait_reached()
        del runtime.points["jobs.ended"]
        await trio.sleep(10)
        await mutate(node, later)
        await trio.sleep(10)
        assert (1, ["another"]) == (len(tried), [row["job"] for row in await ask(node, outcomes)])
        hold.release()
        await trio.sleep(10)

        assert (2, 2) == (len(tried), len(await ask(node, outcomes)))


async def test_after_the_last_attempt_it_has_failed(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        job = await mutate(node, begin, "fragile", {"works_at": 9}, 3)
        await trio.sleep(60)

        row = await ask(node, job_row, job)
        (outcome,) = await ask(node, outcomes)
        assert (3, 3, "failed") == (len(tried), row["attempts"], row["state"]["kind"])
        assert "ValueError: attempt 3" in outcome["result"]["error"] == row["state"]["error"]
        assert 2 == await ask(node, job_count), "the job, and what was told of it"


async def test_an_attempt_that_a_crash_ended_is_one_that_failed(
    autojump_clock: trio.abc.Clock,
) -> None:
    proceed.append(trio.Event())
    store, runtime = MemoryStore(), VirtualRuntime(1)
    async with serving(app(), store=store, runtime=runtime) as node:
        job = await mutate(node, begin, "waits", {}, 2)
        await wait_all_tasks_blocked()
        crashed = store.durable_copy()
        proceed[-1].set()

    async with serving(app(), store=crashed, runtime=runtime) as node:
        await trio.sleep(60)

        row = await ask(node, job_row, job)
        assert ({"kind": "success"}, 2) == (row["state"], row["attempts"])
        assert "the engine stopped while this action ran" in row["lastError"]
        assert 1 == len(await ask(node, outcomes))


async def test_what_is_canceled_is_tried_no_more_and_that_is_told(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        job = await mutate(node, begin, "fragile", {"works_at": 9}, 9)
        await trio.sleep(0.1)
        await mutate(node, cancel, job)
        await mutate(node, cancel, job)
        await trio.sleep(3_600)

        (outcome,) = await ask(node, outcomes)
        assert (1, {"kind": "canceled"}) == (len(tried), outcome["result"])


async def test_an_attempt_that_is_canceled_on_its_way_is_the_last() -> None:
    proceed.append(trio.Event())
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        job = await mutate(node, begin, "waits", {}, 9)
        await wait_all_tasks_blocked()
        await mutate(node, cancel, job)
        proceed[-1].set()
        await node.scheduler.wait_resting()

        (outcome,) = await ask(node, outcomes)
        assert (1, {"kind": "canceled"}) == (len(tried), outcome["result"])


async def test_a_large_result_is_told_and_not_kept() -> None:
    async with serving(app()) as node:
        job = await mutate(node, begin, "large", {}, 2)
        await node.scheduler.wait_resting()

        (outcome,) = await ask(node, outcomes)
        row = await ask(node, job_row, job)
        assert 600_000 == len(outcome["result"]["value"])
        assert ("success", False) == (row["state"]["kind"], "returned" in row)


@pytest.mark.parametrize("fn", [begin_in_action, begin_in_thread])
async def test_actions_schedule_such_actions_too(fn: Any) -> None:
    async with serving(app()) as node:
        result = await node.functions.action(str(fn.path), {}, caller=ADMIN)
        assert result.failure is None, result.failure.message
        await trio.sleep(0.1)
        await node.scheduler.wait_resting()

        row = await ask(node, job_row, result.value)
        assert ("success", 2) == (row["state"]["kind"], row["attempts"])


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("a mutation", "runs exactly once"),
        ("told by an action", "on_complete is a mutation"),
        ("no value", "context"),
        ("an argument", r"write ctx.scheduler.with_retry\(Retry"),
        ("an argument of what is named", r"write ctx.scheduler.with_retry\(Retry"),
        ("no retry", "takes a Retry, not 3"),
        ("a huge context", r"CONTEXT_BYTES_MAX"),
    ],
)
async def test_what_cannot_be_tried_again_is_refused(how: str, why: str) -> None:
    async with serving(app()) as node:
        with pytest.raises(UsageError, match=why):
            await mutate(node, wrong, how)


async def test_of_a_huge_result_the_size_is_told() -> None:
    async with serving(app()) as node:
        await mutate(node, begin, "huge", {}, 2)
        await node.scheduler.wait_resting()

        (outcome,) = await ask(node, outcomes)
        assert ("success", (12 << 20) + 2) == (
            outcome["result"]["kind"],
            outcome["result"]["valueBytes"],
        )


async def test_the_longest_wait_is_spread_below_itself() -> None:
    async with serving(app()) as node:
        await mutate(node, begin_ten)
        await node.scheduler.wait_resting()

        jobs = await node.scheduler.jobs.rows("pending", 20, lambda _: True)
        waits_s = [job["due"] / 1000 - node.runtime.now_ns() / 1e9 for job in jobs]
        assert (10, True) == (len(waits_s), min(waits_s) < BACKOFF_S_MAX)
        assert max(waits_s) <= BACKOFF_S_MAX


@pytest.mark.parametrize(
    ("first_ms", "base", "attempts", "wait_ms"),
    [
        (0.0, 2.0, 5_000, 0.0),
        (1.0, 1e200, 3, BACKOFF_S_MAX * 1000),
        (1.0, 2.0, 5_000, BACKOFF_S_MAX * 1000),
        (1e300, 1.0, 1, BACKOFF_S_MAX * 1000),
        (250.0, 2.0, 3, 1000.0),
        (5e-324, 2.0, 4, 4e-323),
    ],
)
def test_waits_are_bounded_however_often_it_was_tried(
    first_ms: float, base: float, attempts: int, wait_ms: float
) -> None:
    assert wait_ms == later_ms(first_ms, base, attempts)
