"""Scheduled functions beside what happens meanwhile: cancels, callers that fail, clocks, pushes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import action, internal_action, internal_mutation, mutation, query
from engine.app.types import Page, PaginationOptions
from engine.errors import ConvexError, StoreFull
from engine.functions import due_jobs
from engine.functions.job_sweep import JobSweep
from engine.host import Engine
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import Id
from engine.model.limits import Limits
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, application, ask, mutate, serving

DAY_S = 86_400
HERE = "tests/node/test_job_stories"
proceed: list[trio.Event] = []
tries: list[float] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    proceed.clear()
    tries.clear()


@query
async def states(ctx: QueryCtx) -> list[str]:
    found = await ctx.db.system.query("_scheduled_functions").collect()
    return [job["state"]["kind"] for job in found]


@query
async def page(ctx: QueryCtx, options: PaginationOptions) -> Page[Any]:
    return await ctx.db.system.query("_scheduled_functions").paginate(options)


@query
async def notes(ctx: QueryCtx) -> list[str]:
    return [doc["text"] async for doc in ctx.db.query("notes")]


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@mutation
async def later(ctx: MutationCtx, seconds: float, text: str) -> str:
    return await ctx.scheduler.run_after(timedelta(seconds=seconds), note, text)


@internal_action
async def waits(ctx: ActionCtx) -> None:
    await proceed[-1].wait()


@mutation
async def plan_waits(ctx: MutationCtx) -> str:
    return await ctx.scheduler.run_after(0, waits)


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@mutation
async def cancel_and_fail(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)
    raise ConvexError("no")


@action
async def schedule_and_fail(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, note, "scheduled")
    await proceed[-1].wait()
    raise ConvexError("no")


@internal_action
async def child(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, note, "by what it called")


@internal_action
async def parent(ctx: ActionCtx) -> None:
    await proceed[-1].wait()
    await ctx.run_action(child)


@mutation
async def plan_parent(ctx: MutationCtx) -> str:
    return await ctx.scheduler.run_after(0, parent)


APP = [
    *(states, page, notes, note, later, waits, plan_waits, cancel, cancel_and_fail),
    *(schedule_and_fail, child, parent, plan_parent),
]


@internal_action(name="note")
async def note_by_an_action(ctx: ActionCtx, text: str) -> None:
    await ctx.run_mutation(add, f"{text}, by an action")


@internal_mutation
async def add(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text})


@pytest.mark.parametrize("is_action_first", [False, True])
async def test_what_a_push_makes_of_a_function_runs_also_when_its_job_was_found(
    is_action_first: bool,
) -> None:
    versions: list[list[Any]] = [[*APP, add], [notes, states, add, later, note_by_an_action]]
    before, after = versions[is_action_first], versions[not is_action_first]
    runtime = VirtualRuntime(1)
    async with serving(before, runtime=runtime) as node:
        hold = runtime.hold("jobs.found")
        await mutate(node, later, 0, "hello")
        await hold.wait_reached()
        await node.push(application(*after))
        hold.release()
        await node.scheduler.wait_resting()

        expected = "hello" if is_action_first else "hello, by an action"
        assert ([expected], ["success"]) == (await ask(node, notes), await ask(node, states))


async def test_who_shows_the_table_of_jobs_sees_each_state() -> None:
    proceed.append(trio.Event())
    seen: list[list[str]] = []
    async with (
        Engine.open(":memory:", app=APP) as engine,
        engine.subscribe(states) as results,
    ):
        engine.node.scheduler.pause()
        await engine.mutation(plan_waits)
        async for found in results:
            seen.append(found)
            match found:
                case ["pending"]:
                    engine.node.scheduler.resume()
                case ["inProgress"]:
                    proceed[-1].set()
                case ["success"]:
                    break

    assert [["pending"], ["inProgress"], ["success"]] == [found for found in seen if found]


async def test_the_table_of_jobs_is_read_in_pages_while_they_run(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with serving(APP, runtime=VirtualRuntime(1)) as node:
        planned = [await mutate(node, later, seconds, "x") for seconds in range(10)]
        read: list[str] = []
        cursor: str | None = None
        is_done = False
        while not is_done:
            await trio.sleep(2)
            found = await ask(node, page, {"numItems": 3, "cursor": cursor})
            read += [job["_id"] for job in found["page"]]
            cursor, is_done = found["continueCursor"], found["isDone"]

        assert planned == read


async def test_what_an_action_schedules_stays_scheduled_when_it_fails() -> None:
    proceed.append(trio.Event())
    results: list[Any] = []
    async with serving(APP) as node, trio.open_nursery() as nursery:

        async def act() -> None:
            results.append(
                await node.functions.action(f"{HERE}:schedule_and_fail", {}, caller=ADMIN)
            )

        nursery.start_soon(act)
        await wait_all_tasks_blocked()
        await node.scheduler.wait_resting()
        assert (["scheduled"], []) == (await ask(node, notes), results), "it runs still"
        proceed[-1].set()
        await wait_all_tasks_blocked()

        assert results[0].failure is not None
        assert ["success"] == await ask(node, states)


async def test_a_cancel_is_a_part_of_its_mutation(autojump_clock: trio.abc.Clock) -> None:
    async with serving(APP, runtime=VirtualRuntime(1)) as node:
        job = await mutate(node, later, 10, "hello")
        with pytest.raises(ConvexError):
            await mutate(node, cancel_and_fail, job)
        await trio.sleep(20)

        assert (["hello"], ["success"]) == (await ask(node, notes), await ask(node, states))


async def test_a_cancel_of_what_has_ended_changes_nothing() -> None:
    async with serving(APP) as node:
        job = await mutate(node, later, 0, "hello")
        await node.scheduler.wait_resting()
        await mutate(node, cancel, job)

        assert ["success"] == await ask(node, states)


async def test_what_an_action_of_a_canceled_one_schedules_is_canceled() -> None:
    proceed.append(trio.Event())
    async with serving(APP) as node:
        job = await mutate(node, plan_parent)
        await wait_all_tasks_blocked()
        await mutate(node, cancel, job)
        proceed[-1].set()
        await node.scheduler.wait_resting()

        assert (["canceled", "canceled"], []) == (await ask(node, states), await ask(node, notes))


async def test_overdue_jobs_run_in_order_over_many_looks(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_jobs, "LOOK_ROWS_MAX", 7)
    store = MemoryStore()
    order = [(7 * number) % 50 for number in range(50)]
    async with serving(APP, store=store, runtime=VirtualRuntime(1)) as node:
        for seconds in order:
            await mutate(node, later, 100 + seconds, f"{seconds:02}")
    runtime = VirtualRuntime(2)
    runtime.jump(90 * DAY_S)

    limits = Limits(mutation_jobs_running_max=1)
    async with serving(APP, store=store, runtime=runtime, limits=limits) as node:
        await node.scheduler.wait_resting()

        assert [f"{seconds:02}" for seconds in range(50)] == await ask(node, notes)


async def test_what_was_scheduled_in_a_pause_is_read_a_slice_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(due_jobs, "NOTED_ROWS_MAX", 8)
    noted = [0]
    look, note_one = due_jobs.DueJobs.look, due_jobs.DueJobs._note

    def begin(due: due_jobs.DueJobs, changed: Callable[[], None]) -> bool:
        noted.append(0)
        return look(due, changed)

    def count(due: due_jobs.DueJobs, key: bytes, job: dict[str, Any] | None) -> None:
        noted[-1] += 1
        note_one(due, key, job)

    monkeypatch.setattr(due_jobs.DueJobs, "look", begin)
    monkeypatch.setattr(due_jobs.DueJobs, "_note", count)
    async with serving(APP) as node:
        await mutate(node, later, 0, "before")
        await node.scheduler.wait_resting()
        node.scheduler.pause()
        for number in range(50):
            await mutate(node, later, 0, f"{number:02}")
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        expected = ["before", *(f"{number:02}" for number in range(50))]
        assert expected == await ask(node, notes)
        assert max(noted) <= 8, "rows of commits that one look went through"


async def test_what_the_engine_could_not_run_is_tried_again_later_and_later(
    autojump_clock: trio.abc.Clock,
) -> None:
    runtime = VirtualRuntime(1)
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, later, 0, "stuck")

        async def refuse() -> None:
            tries.append(runtime.monotonic())
            if len(tries) < 7:
                raise StoreFull("as planned")

        runtime.points["jobs.found"] = refuse
        await trio.sleep(40)

        waits_s = [round(after - before, 1) for before, after in pairwise(tries)]
        assert [0.5, 1, 2, 4, 8, 16] == waits_s
        assert ["stuck"] == await ask(node, notes)


async def test_a_full_disk_is_opened_also_with_actions_that_a_crash_interrupted(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    proceed.append(trio.Event())
    store = MemoryStore()
    with trio.CancelScope() as crash:
        async with serving(APP, store=store) as node:
            await mutate(node, plan_waits)
            await mutate(node, later, 0, "before")
            await wait_all_tasks_blocked()
            copy = store.durable_copy()
            crash.cancel()
            await trio.sleep_forever()
    apply = copy.apply
    has_room = False

    async def apply_if_there_is_room(batch: bytes) -> None:
        if not has_room:
            copy.fail_next(StoreFull("no room"))
        await apply(batch)

    monkeypatch.setattr(copy, "apply", apply_if_there_is_room)
    async with serving(APP, store=copy) as node:
        assert (["before"], ["inProgress", "success"]) == (
            await ask(node, notes), await ask(node, states)
        )  # fmt: skip
        has_room = True
        await trio.sleep(1)

        assert ["failed", "success"] == await ask(node, states)
        await mutate(node, later, 0, "after")
        await node.scheduler.wait_resting()
        assert ["before", "after"] == await ask(node, notes)


async def test_a_job_that_is_put_off_holds_up_no_other(autojump_clock: trio.abc.Clock) -> None:
    runtime = VirtualRuntime(1)
    limits = Limits(mutation_jobs_running_max=1)
    async with serving(APP, runtime=runtime, limits=limits) as node:
        runtime.hold("jobs.found").fail(StoreFull("as planned"))
        await mutate(node, later, 0, "stuck")
        await trio.sleep(0.1)
        del runtime.points["jobs.found"]
        await mutate(node, later, 0, "not stuck")
        await trio.sleep(10)

        assert ["not stuck", "stuck"] == await ask(node, notes)


@pytest.mark.parametrize("jump_s", [-3 * DAY_S, 3 * DAY_S])
async def test_a_clock_that_is_set_loses_no_job_and_runs_none_twice(
    jump_s: float, autojump_clock: trio.abc.Clock
) -> None:
    runtime = VirtualRuntime(1)
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, later, 60, "soon")
        await mutate(node, later, 5 * DAY_S, "in five days")
        await trio.sleep(120)
        runtime.jump(jump_s)
        before = await ask(node, notes)
        await trio.sleep(5 * DAY_S - jump_s - 600)
        assert (["soon"], ["soon"]) == (before, await ask(node, notes)), "not early"
        await trio.sleep(1_200)

        assert ["soon", "in five days"] == await ask(node, notes)


def polled(every: Callable[[Crons], None]) -> list[Any]:
    crons = Crons()
    every(crons)
    return [*APP, crons]


async def test_a_clock_that_is_set_back_runs_no_tick_twice(
    autojump_clock: trio.abc.Clock,
) -> None:
    runtime = VirtualRuntime(1)
    app = polled(lambda crons: crons.hourly("poll", note, minute=30, args={"text": "tick"}))
    async with serving(app, runtime=runtime) as node:
        await trio.sleep(3_600)
        assert ["tick"] == await ask(node, notes)
        runtime.jump(-1_800)
        await trio.sleep(3_600)
        assert ["tick"] == await ask(node, notes), "half past comes again, and was had"

        await trio.sleep(3_600)

        assert ["tick", "tick"] == await ask(node, notes)


async def test_a_clock_that_is_set_forward_skips_ticks_and_says_so(
    autojump_clock: trio.abc.Clock,
) -> None:
    runtime = VirtualRuntime(1)
    app = polled(lambda crons: crons.hourly("poll", note, minute=30, args={"text": "tick"}))
    with capture_logs() as traces:
        async with serving(app, runtime=runtime) as node:
            runtime.jump(DAY_S)
            await trio.sleep(600)

            (cron,) = await node.scheduler.jobs.crons()
            assert (["tick"], 23) == (await ask(node, notes), cron["skipped"])

    assert [("poll", 23)] == [
        (trace["cron"], trace["times"]) for trace in traces if trace["event"] == "cron.skipped"
    ]


async def test_a_clock_that_leaps_makes_no_result_old(autojump_clock: trio.abc.Clock) -> None:
    runtime = VirtualRuntime(1)
    async with serving(APP, runtime=runtime) as node:
        await mutate(node, later, 0, "hello")
        await node.scheduler.wait_resting()
        runtime.jump(366 * DAY_S)
        sweep = JobSweep(node.functions.turns, runtime=runtime, limits=node.limits)

        assert 0 == await sweep.sweep()
        assert ["success"] == await ask(node, states)


async def test_a_cron_whose_function_is_gone_fails_until_it_is_back(
    autojump_clock: trio.abc.Clock,
) -> None:
    @mutation
    async def register(ctx: MutationCtx) -> None:
        await ctx.crons.register("poll", note, {"text": "tick"}, hours=1)

    async with serving([*APP, register], runtime=VirtualRuntime(1)) as node:
        await mutate(node, register)
        await trio.sleep(1_800)
        await node.push(application(notes, states))
        await trio.sleep(2 * 3_600)
        (cron,) = await node.scheduler.jobs.crons()
        assert ["success", "failed", "failed"] == [run["state"]["kind"] for run in cron["runs"]]
        await node.push(application(*APP, register))
        await trio.sleep(3_600)

        assert ["tick", "tick"] == await ask(node, notes)
