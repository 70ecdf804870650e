"""Scheduled functions: when they run, how often, and what is left of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Retry
from engine.app.decorators import action, internal_action, internal_mutation, mutation, query
from engine.app.registered import Kind
from engine.app.registry import Application
from engine.errors import ConvexError, InvalidValue, NotAllowed, Overloaded, StoreFull
from engine.functions.context import due_after, due_at
from engine.functions.due_jobs import as_job
from engine.functions.job_rows import add_job, forget_jobs, pending_again
from engine.functions.job_sweep import JobSweep
from engine.functions.session_sweep import SessionSweep
from engine.functions.sweeping import SWEPT_BYTES_MAX
from engine.kernel.runtime import VirtualRuntime
from engine.model.commits import RowWrite
from engine.model.ids import Id
from engine.model.keys import encode_key
from engine.model.limits import Limits
from engine.store.memory_store import MemoryStore
from engine.transaction.transaction import Transaction
from tests.node.nodes import ADMIN, application, ask, mutate, serving

began: list[str] = []
proceed: dict[str, trio.Event] = {}


@pytest.fixture(autouse=True)
def _forget() -> None:
    began.clear()
    proceed.clear()


@query
async def jobs(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_scheduled_functions").collect()


@query
async def notes(ctx: QueryCtx) -> list[str]:
    found = await ctx.db.query("notes").collect()
    return [doc["text"] for doc in sorted(found, key=lambda doc: int(doc["place"]))]


@internal_mutation
async def note(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": text, "place": await ctx.db.count("notes")})


@internal_mutation
async def fail(ctx: MutationCtx) -> None:
    await ctx.db.insert("notes", {"text": "never"})
    raise ConvexError("no")


@internal_mutation
async def write_too_much(ctx: MutationCtx) -> None:
    for number in range(10):
        await ctx.db.insert("notes", {"text": str(number), "place": number})


@internal_action
async def slow(ctx: ActionCtx, name: str) -> None:
    began.append(name)
    await proceed[name].wait()
    await ctx.run_mutation(note, name)


@action
async def raises(ctx: ActionCtx) -> None:
    raise ValueError("boom")


@mutation
async def later(ctx: MutationCtx, seconds: float, text: str) -> str:
    return await ctx.scheduler.run_after(timedelta(seconds=seconds), note, text)


@mutation
async def run(ctx: MutationCtx, what: str, args: dict[str, Any] | None = None) -> str:
    return await ctx.scheduler.run_after(0, what, args or {})


@mutation
async def schedule_and_fail(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, note, "never")
    raise ConvexError("no")


@mutation
async def add(ctx: MutationCtx) -> str:
    return await ctx.db.insert("notes", {"text": "added"})


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@internal_action
async def parent(ctx: ActionCtx) -> None:
    """Schedule something by itself and by a mutation, before it goes on and after."""
    for when in ("before", "after"):
        began.append(when)
        await ctx.scheduler.run_after(0, note, f"{when}, itself")
        await ctx.run_mutation(later, seconds=0, text=f"{when}, by a mutation")
        await proceed["parent"].wait()


@mutation
async def at(ctx: MutationCtx, when: Any) -> str:
    return await ctx.scheduler.run_at(when, note, "some time")


@mutation
async def after(ctx: MutationCtx, delay: Any) -> str:
    return await ctx.scheduler.run_after(delay, note, "some time")


@internal_mutation
async def sink(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("notes", {"text": str(len(text)), "place": 0})


@internal_mutation
async def sink_and_fail(ctx: MutationCtx, text: str) -> None:
    raise ConvexError("no")


def app() -> Application:
    return application(
        sink, sink_and_fail,
        jobs, notes, note, fail, write_too_much, slow, raises, later, run, parent, at, after,
        schedule_and_fail, cancel, add,
    )  # fmt: skip


def path(fn: Any) -> str:
    return str(fn.path)


async def states(node: Any) -> list[str]:
    return [job["state"]["kind"] for job in await ask(node, jobs)]


async def test_a_job_runs_when_it_is_due_and_not_before(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app()) as node:
        await mutate(node, later, 10, "hello")
        await trio.sleep(9.9)
        assert ([], ["pending"]) == (await ask(node, notes), await states(node))

        await trio.sleep(0.2)

        assert (["hello"], ["success"]) == (await ask(node, notes), await states(node))


async def test_the_row_of_a_job_says_what_the_documentation_says() -> None:
    async with serving(app()) as node:
        job = await mutate(node, later, 0, "hello")
        await node.scheduler.wait_resting()

        (row,) = await ask(node, jobs)

        assert {"_id", "_creationTime", "name", "args", "scheduledTime", "state",
                "completedTime"} == set(row)  # fmt: skip
        assert (job, path(note), [{"text": "hello"}]) == (row["_id"], row["name"], row["args"])


async def test_a_mutation_that_fails_schedules_nothing() -> None:
    async with serving(app()) as node:
        with pytest.raises(ConvexError):
            await mutate(node, schedule_and_fail)

        assert [] == await ask(node, jobs)


async def test_overdue_jobs_run_in_the_order_of_their_due_times(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore()
    async with serving(app(), store=store) as node:
        for seconds in (30, 10, 20):
            await mutate(node, later, seconds, str(seconds))
    runtime = VirtualRuntime()
    runtime.jump(3600)

    # Those who wait for the lane together may pass in any order: nobody else is to have it, nor is
    # a machine that is slow to have one of them yield.
    patient = Limits(slice_s_max=60.0)
    async with serving(app(), store=store, runtime=runtime, limits=patient) as node:
        node.scheduler.pause()
        await wait_all_tasks_blocked()
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert ["10", "20", "30"] == await ask(node, notes)


async def test_a_wall_clock_that_is_set_forward_makes_jobs_due(
    autojump_clock: trio.abc.Clock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(app(), runtime=runtime) as node:
        await mutate(node, later, 100_000, "hello")
        await trio.sleep(1)
        runtime.jump(100_000)

        await trio.sleep(61)

        assert ["hello"] == await ask(node, notes)


async def test_a_job_that_fails_leaves_no_writes_and_its_error() -> None:
    async with serving(app()) as node:
        await mutate(node, run, path(fail))
        await node.scheduler.wait_resting()

        (row,) = await ask(node, jobs)
        assert "failed" == row["state"]["kind"]
        assert row["state"]["error"].startswith("Uncaught ConvexError: no")
        assert [] == await ask(node, notes)


@query(name="note")
async def note_that_reads(ctx: QueryCtx, text: str) -> None: ...


@internal_mutation(name="note")
async def note_of_numbers(ctx: MutationCtx, text: float) -> None: ...


@pytest.mark.parametrize(
    ("pushed", "error"),
    [
        ([], "Could not find public function for 'tests/node/test_jobs:note'"),
        ([note_of_numbers], "ArgumentValidationError"),
        ([note_that_reads], "as Mutation, but it is defined as Query"),
    ],
    ids=["missing", "other arguments", "a query"],
)
async def test_a_job_that_cannot_be_run_has_failed(
    pushed: list[Any], error: str, autojump_clock: trio.abc.Clock
) -> None:
    async with serving(app()) as node:
        await mutate(node, later, 10, "hello")
        await mutate(node, run, path(slow), {"name": "a"})
        await node.push(application(jobs, later, *pushed))
        await trio.sleep(20)

        rows = {row["name"]: row["state"] for row in await ask(node, jobs)}

        assert "failed" == rows[path(note)]["kind"]
        assert error in rows[path(note)]["error"]


@action
async def act_run(ctx: ActionCtx, what: str) -> str:
    return await ctx.scheduler.run_after(0, what, {})


@mutation
async def told_by(ctx: MutationCtx, what: str) -> str:
    scheduler = ctx.scheduler.with_retry(Retry(), on_complete=what)
    return await scheduler.run_after(0, raises)


@mutation
async def register(ctx: MutationCtx, what: str) -> None:
    await ctx.crons.register("again", what, {}, hours=1)


@pytest.mark.parametrize("fn", [run, act_run, told_by, register])
@pytest.mark.parametrize("what", ["nowhere:nothing", "tests/node/test_jobs:notes"])
async def test_what_nobody_could_run_is_refused_to_whoever_schedules_it(fn: Any, what: str) -> None:
    async with serving([run, act_run, told_by, register, raises, jobs, notes]) as node:
        call = node.functions.action if fn is act_run else node.functions.mutation
        result = await call(path(fn), {"what": what}, caller=ADMIN)

        assert result.failure is not None
        expected = "Could not find" if what.startswith("nowhere") else "query"
        assert expected in result.failure.message
        assert "notes" in result.failure.message or "nothing" in result.failure.message
        assert ([], []) == (await ask(node, jobs), await node.scheduler.jobs.crons())


async def test_a_job_that_uses_up_its_writes_succeeds_or_fails_but_ends() -> None:
    for allowed in range(8, 13):
        limits = Limits(documents_written_max=allowed)
        async with serving(app(), limits=limits) as node:
            await mutate(node, run, path(write_too_much))
            await node.scheduler.wait_resting()

            ended = await states(node)
            count = len(await ask(node, notes))
            assert (ended, count) in ((["success"], 10), (["failed"], 0))


async def test_a_canceled_job_does_not_run(autojump_clock: trio.abc.Clock) -> None:
    async with serving(app()) as node:
        job = await mutate(node, later, 10, "hello")
        await mutate(node, cancel, job)
        await trio.sleep(20)

        assert ([], ["canceled"]) == (await ask(node, notes), await states(node))


@pytest.mark.parametrize("is_caught", [False, True])
async def test_a_job_cannot_cancel_itself_while_it_runs(
    is_caught: bool, autojump_clock: trio.abc.Clock
) -> None:
    @internal_mutation
    async def cancel_itself(ctx: MutationCtx) -> None:
        (job,) = await ctx.db.system.query("_scheduled_functions").collect()
        await ctx.db.insert("notes", {"text": "tried", "place": 0})
        try:
            await ctx.scheduler.cancel(job["_id"])
        except NotAllowed:
            if not is_caught:
                raise

    @mutation
    async def start(ctx: MutationCtx) -> None:
        await ctx.scheduler.run_after(0, cancel_itself)

    async with serving([cancel_itself, start, jobs, notes]) as node:
        await mutate(node, start)
        await node.scheduler.wait_resting()

        expected = (["success"], ["tried"]) if is_caught else (["failed"], [])
        assert expected == (await states(node), await ask(node, notes))


async def test_what_is_no_job_cannot_be_canceled() -> None:
    async with serving(app()) as node:
        document = await mutate(node, add)

        with pytest.raises(InvalidValue, match="not the id of a scheduled function"):
            await mutate(node, cancel, document)


async def test_an_action_is_marked_before_it_begins() -> None:
    proceed["a"] = trio.Event()
    async with serving(app()) as node:
        await mutate(node, run, path(slow), {"name": "a"})
        await wait_all_tasks_blocked()
        assert (["a"], ["inProgress"]) == (began, await states(node))
        proceed["a"].set()
        await node.scheduler.wait_resting()
        assert (["success"], ["a"]) == (await states(node), await ask(node, notes))


async def test_an_action_that_raises_has_failed_and_is_not_repeated() -> None:
    async with serving(app()) as node:
        await mutate(node, run, path(raises))
        await node.scheduler.wait_resting()

        (row,) = await ask(node, jobs)
        assert "failed" == row["state"]["kind"]
        assert "ValueError: boom" in row["state"]["error"]


async def test_an_action_that_was_under_way_at_a_crash_has_failed() -> None:
    store = MemoryStore()
    proceed["a"] = trio.Event()
    with trio.CancelScope() as crash:
        async with serving(app(), store=store) as node:
            await mutate(node, run, path(slow), {"name": "a"})
            await wait_all_tasks_blocked()
            copy = store.durable_copy()
            crash.cancel()
            await trio.sleep_forever()

    async with serving(app(), store=copy) as node:
        await node.scheduler.wait_resting()

        (row,) = await ask(node, jobs)
        assert "failed" == row["state"]["kind"]
        assert "the engine stopped while this action ran" in row["state"]["error"]
        assert ["a"] == began


@pytest.mark.parametrize("point", ["jobs.begun", "jobs.acted"])
async def test_an_action_has_failed_when_the_engine_has_while_it_ran(point: str) -> None:
    runtime = VirtualRuntime()
    async with serving(app(), runtime=runtime) as node:
        hold = runtime.hold(point)
        await mutate(node, run, path(raises))
        await hold.wait_reached()
        hold.fail(MemoryError("no room for a frame"))
        await node.scheduler.wait_resting()

        (row,) = await ask(node, jobs)
        assert "failed" == row["state"]["kind"]
        assert "the engine failed while this action ran" in row["state"]["error"]


async def test_an_action_that_is_canceled_stays_canceled_when_it_ends() -> None:
    proceed["a"] = trio.Event()
    async with serving(app()) as node:
        job = await mutate(node, run, path(slow), {"name": "a"})
        await wait_all_tasks_blocked()
        assert ["a"] == began
        await mutate(node, cancel, job)
        proceed["a"].set()
        await node.scheduler.wait_resting()

        assert ["canceled"] == await states(node)


async def test_what_a_canceled_action_schedules_is_canceled() -> None:
    proceed["parent"] = trio.Event()
    async with serving(app()) as node:
        job = await mutate(node, run, path(parent))
        await wait_all_tasks_blocked()
        await mutate(node, cancel, job)
        proceed["parent"].set()
        await node.scheduler.wait_resting()

        assert ["before", "after"] == began
        assert {"before, itself", "before, by a mutation"} == set(await ask(node, notes))
        states_of = {
            row["args"][0].get("text"): row["state"]["kind"] for row in await ask(node, jobs)
        }
        assert "canceled" == states_of["after, itself"] == states_of["after, by a mutation"]


YEARS_MS = 366 * 86_400_000.0


@pytest.mark.parametrize(
    ("how", "value"),
    [
        (after, -1.0),
        (after, "soon"),
        (after, True),
        (after, float("nan")),
        (after, 5.1 * YEARS_MS),
        (after, float("inf")),
        (at, "tomorrow"),
        (at, True),
        (at, float("nan")),
        (at, 1_800_000_000.0),
        (at, 3e12),
    ],
)
async def test_a_time_that_is_none_or_years_away_is_refused(how: Any, value: Any) -> None:
    async with serving(app()) as node:
        with pytest.raises(InvalidValue, match=r"milliseconds"):
            await mutate(node, how, value)

        assert [] == await ask(node, jobs)


@pytest.mark.parametrize("created_ms", [1_767_225_600_000, 1_767_225_600_000.25])
def test_the_place_of_a_job_tells_when_it_was_scheduled(created_ms: float) -> None:
    row = {"name": "m:f", "target": "", "component": "a", "due": 1_767_225_700_000}
    place = encode_key(["a", row["due"], created_ms]) + bytes(16)

    assert created_ms == as_job(b"", row, Kind.MUTATION, place).created_ms


@pytest.mark.parametrize("number", [1e300, 10**400, -(10**400), 10**5000], ids=type)
@pytest.mark.parametrize("due", [due_after, due_at])
def test_a_number_of_any_size_is_refused_in_a_few_words(
    due: Callable[[float, float], float], number: float
) -> None:
    with pytest.raises(InvalidValue, match=r"SCHEDULE_S_MAX|not negative") as refused:
        due(1_767_225_600_000, number)

    assert len(str(refused.value)) < 250


async def test_what_is_asked_for_the_past_waits_behind_what_is_overdue(
    autojump_clock: trio.abc.Clock,
) -> None:
    runtime = VirtualRuntime(1)
    async with serving(app(), runtime=runtime) as node:
        node.scheduler.pause()
        await mutate(node, later, seconds=1, text="overdue")
        await trio.sleep(5)
        past_ms = runtime.now_ns() / 1e6 - 60_000
        await mutate(node, at, past_ms)
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert ["overdue", "some time"] == await ask(node, notes)
        assert past_ms in [row["scheduledTime"] for row in await ask(node, jobs)]


async def test_what_has_ended_is_kept_a_week_and_what_waits_for_ever(
    autojump_clock: trio.abc.Clock,
) -> None:
    day_s = 86_400
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        for _ in range(300):
            await mutate(node, later, seconds=0, text="soon")
        await mutate(node, run, path(fail))
        await mutate(node, later, seconds=30 * day_s, text="in a month")
        await node.scheduler.wait_resting()
        await trio.sleep(7 * day_s - 60)
        assert 302 == len(await ask(node, jobs))

        await trio.sleep(2 * 3600)

        assert ["pending"] == await states(node)
        assert 301 == len(await ask(node, notes)) + 1


async def test_no_transaction_forgets_more_than_a_few_large_jobs(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[int] = []

    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        stage = node.functions.turns.stage

        def staged(transaction: Transaction, *args: Any) -> None:
            dropped.append(sum(write.after is None for write in transaction.finish()))
            stage(transaction, *args)

        for _ in range(10):
            await mutate(node, later, seconds=0, text="x" * (SWEPT_BYTES_MAX // 3))
        await node.scheduler.wait_resting()
        monkeypatch.setattr(node.functions.turns, "stage", staged)
        await trio.sleep(7 * 86_400 + 2 * 3600)

    assert [3, 3, 3, 1] == [count for count in dropped if count]


async def test_actions_that_are_slow_do_not_hold_up_mutations() -> None:
    limits = Limits(action_jobs_running_max=2)
    async with serving(app(), limits=limits) as node:
        for name in "abc":
            proceed[name] = trio.Event()
            await mutate(node, run, path(slow), {"name": name})
        await wait_all_tasks_blocked()
        assert 2 == len(began)

        await mutate(node, later, 0, "quick")
        await wait_all_tasks_blocked()

        assert (["quick"], ["a", "b"]) == (await ask(node, notes), sorted(began))
        for event in proceed.values():
            event.set()
        await node.scheduler.wait_resting()
        assert ["a", "b", "c"] == sorted(began)


async def test_closing_lets_what_has_begun_come_to_its_end() -> None:
    store = MemoryStore()
    proceed["a"] = trio.Event()
    async with trio.open_nursery() as nursery, serving(app(), store=store) as node:
        await mutate(node, run, path(slow), {"name": "a"})
        await wait_all_tasks_blocked()
        nursery.start_soon(_set_soon, proceed["a"])

    async with serving(app(), store=store) as node:
        assert (["success"], ["a"]) == (await states(node), await ask(node, notes))


async def _set_soon(event: trio.Event) -> None:
    await trio.sleep(0.05)
    event.set()


async def test_a_job_that_the_engine_has_no_room_for_is_tried_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore()
    async with serving(app(), store=store) as node:
        await mutate(node, later, 1, "hello")
        store.fail_next(StoreFull("disk full"))
        await trio.sleep(1.01)

        await trio.sleep(20)

        assert (["hello"], ["success"]) == (await ask(node, notes), await states(node))


async def test_a_component_with_many_jobs_does_not_hold_up_another() -> None:
    noisy = Application(functions={}, path="noisy")
    async with serving(replace(app(), mounts={"noisy": noisy})) as node:
        node.scheduler.pause()

        def flood(turn: Transaction) -> None:
            for _ in range(1_500):
                add_job(
                    turn, owner="noisy", component="noisy", path="m:f", args={}, due_ms=turn.now_ms
                )

        await node.functions.turns.write(flood)
        await mutate(node, later, seconds=0, text="mine")
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        ran = [record.path for _, record in node.functions.executions.after(0)]
        found = await node.scheduler.jobs.rows("failed", 10_000, bool)
        ended = [job["state"]["kind"] for job in found]
        assert 1_500 == len(ended)
        assert ["mine"] == await ask(node, notes)
        assert path(note) not in ran, "it was one of the first, of which no record is left"


async def test_a_job_whose_arguments_are_nearly_all_that_may_be_read_runs() -> None:
    async with serving(app()) as node:
        await mutate(node, run, path(sink), {"text": "x" * (15 << 20)})
        await mutate(node, run, path(sink_and_fail), {"text": "x" * (15 << 20)})
        await node.scheduler.wait_resting()

        for state in ("success", "failed"):
            assert 1 == len(await node.scheduler.jobs.rows(state, 9, bool))
        assert [str(15 << 20)] == await ask(node, notes)


async def test_a_look_at_what_is_due_reads_so_many_bytes_and_keeps_no_arguments() -> None:
    async with serving(app(), limits=Limits(jobs_look_bytes_max=3 << 20)) as node:
        node.scheduler.pause()
        for _ in range(30):
            await mutate(node, run, path(sink), {"text": "x" * (1 << 20)})
        due = node.scheduler.jobs.due
        known = []
        tracemalloc.start()
        try:
            while due.look(node.scheduler.wake):
                known.append(due.waiting(Kind.MUTATION))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert [*range(3, 31, 3)] == known
        assert peak < 8 << 20
        node.scheduler.resume()
        await node.scheduler.wait_resting()


async def test_many_jobs_with_large_arguments_hold_nobody_up() -> None:
    async with serving(app()) as node:
        node.scheduler.pause()
        for _ in range(40):
            await mutate(node, run, path(sink_and_fail), {"text": "x" * (4 << 20)})
        looks: list[int] = []
        look, waiting = node.scheduler.jobs.due.look, node.scheduler.jobs.due.waiting

        def counted(changed: Any) -> bool:
            before = waiting(Kind.MUTATION)
            is_behind = look(changed)
            looks.append(waiting(Kind.MUTATION) - before)
            return is_behind

        node.scheduler.jobs.due.look = counted  # type: ignore[method-assign]
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert 40 == sum(looks)
        assert 1 == max(looks)


async def test_what_is_put_off_does_not_hold_up_what_is_due_behind_it(
    autojump_clock: trio.abc.Clock,
) -> None:
    store = MemoryStore()
    few = Limits(jobs_waiting_max=4, jobs_look_bytes_max=1, job_backoff_s=100.0)
    async with serving(app(), store=store, limits=few) as node:
        node.scheduler.pause()
        for number in range(20):
            await mutate(node, later, number / 1000, str(number))
        await trio.sleep(1)
        refused = 10

        async def refuse(key: bytes, way: Any, view: Any) -> Any:
            nonlocal refused
            if refused:
                refused -= 1
                raise StoreFull("no room for it")
            return await attempt(key, way, view)

        mutations = node.functions._mutations
        attempt = mutations._attempt_job
        mutations._attempt_job = refuse  # type: ignore[method-assign]
        node.scheduler.resume()
        await trio.sleep(50)
        assert [str(number) for number in range(10, 20)] == await ask(node, notes)
        await node.scheduler.wait_resting()

        assert 20 == len(await ask(node, notes))


async def test_a_job_that_was_left_alone_and_is_still_there_is_looked_at_again() -> None:
    async with serving(app()) as node:
        executor = node.functions._mutations._executor
        with pytest.MonkeyPatch.context() as patch:
            # As when a push makes an action of it after it was taken.
            turned = iter([Kind.ACTION])
            patch.setattr(executor, "kind_of", lambda *_: next(turned, Kind.MUTATION))
            await mutate(node, later, 0, "hello")
            await node.scheduler.wait_resting()

        assert (["hello"], ["success"]) == (await ask(node, notes), await states(node))


async def test_an_attempt_that_is_due_before_the_last_is_told_is_made() -> None:
    """The next one is read while the scheduler takes the job still for one that runs."""
    async with serving(app()) as node:
        node.scheduler.pause()
        await mutate(node, run, path(note), {"text": "hello"})
        due = node.scheduler.jobs.due
        while due.look(node.scheduler.wake):
            pass
        job = due.take(Kind.MUTATION)
        assert job is not None

        def wait_again(turn: Transaction) -> None:
            row = turn.get(job.key)
            assert row is not None
            turn.put_row(job.key, pending_again(row, job.due_ms + 0.5))

        await node.functions.turns.write(wait_again)
        assert due.look(node.scheduler.wake)
        assert 0 == due.waiting(Kind.MUTATION)
        due.ended(job)
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert (["hello"], ["success"]) == (await ask(node, notes), await states(node))


async def test_while_too_many_are_put_off_no_others_of_their_kind_begin(
    autojump_clock: trio.abc.Clock,
) -> None:
    limits = Limits(jobs_put_off_max=3, job_backoff_s=100.0, mutation_jobs_running_max=1)
    async with serving(app(), limits=limits) as node:
        node.scheduler.pause()
        for number in range(9):
            await mutate(node, later, 0, str(number))
        proceed["a"] = trio.Event()
        await mutate(node, run, path(slow), {"name": "a"})
        tried: list[bytes] = []

        async def refuse(key: bytes, way: Any, view: Any) -> Any:
            tried.append(key)
            raise StoreFull("no room for it")

        mutations = node.functions._mutations
        attempt, mutations._attempt_job = mutations._attempt_job, refuse  # type: ignore[method-assign]
        node.scheduler.resume()
        await trio.sleep(50)
        assert (3, ["a"]) == (len(tried), began)
        proceed["a"].set()
        mutations._attempt_job = attempt  # type: ignore[method-assign]
        await node.scheduler.wait_resting()

        assert 9 + 1 == len(await ask(node, notes))


async def test_neither_mutations_nor_actions_wait_behind_many_of_the_other() -> None:
    limits = Limits(jobs_waiting_max=2, jobs_look_bytes_max=1, action_jobs_running_max=1)
    proceed["a"] = trio.Event()
    async with serving(app(), limits=limits) as node:
        node.scheduler.pause()
        for _ in range(9):
            await mutate(node, run, path(slow), {"name": "a"})
        await mutate(node, later, 0, "behind actions")
        node.scheduler.resume()
        await wait_all_tasks_blocked()
        assert ["behind actions"] == await ask(node, notes)

        node.scheduler.pause()
        proceed["a"].set()
        proceed["b"] = trio.Event()
        proceed["b"].set()
        for number in range(9):
            await mutate(node, later, 0, str(number))
        await mutate(node, run, path(slow), {"name": "b"})
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert [*"a" * 9, "b"] == began
        assert 1 + 9 + 9 + 1 == len(await ask(node, notes))


@internal_action(name="note")
async def note_by_an_action(ctx: ActionCtx, text: str) -> None:
    began.append(text)


async def test_what_a_push_makes_an_action_is_found_where_it_was_passed_over_as_a_mutation() -> (
    None
):
    async with serving(app(), limits=Limits(jobs_waiting_max=2)) as node:
        node.scheduler.pause()
        for _ in range(2):
            await mutate(node, run, path(fail))
        for text in "abc":
            await mutate(node, later, 0, text)
        due = node.scheduler.jobs.due
        while due.look(node.scheduler.wake):
            pass
        await node.push(application(fail, later, run, jobs, note_by_an_action))
        node.scheduler.resume()
        await node.scheduler.wait_resting()

        assert 2 * ["failed"] + 3 * ["success"] == await states(node)
        assert ["a", "b", "c"] == sorted(began)


async def test_who_asks_for_jobs_of_a_function_is_found_them_behind_many_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.functions.jobs.LISTED_SLICE_ROWS", 3)
    async with serving(app()) as node:
        node.scheduler.pause()
        for number in range(8):
            await mutate(node, later, 0, str(number))
            if number % 3 == 0:
                await mutate(node, run, path(sink), {"text": str(number)})

        def is_sink(job: dict[str, Any]) -> bool:
            return bool(job["name"] == path(sink))

        found = await node.scheduler.jobs.rows("pending", 2, is_sink)
        assert ["0", "3"] == [job["args"][0]["text"] for job in found]
        found = await node.scheduler.jobs.rows("pending", 9, is_sink)
        assert ["0", "3", "6"] == [job["args"][0]["text"] for job in found]


@pytest.mark.parametrize("sweep", [JobSweep, SessionSweep])
@pytest.mark.parametrize("error", [StoreFull("no room"), Overloaded("the lane", 20.0)])
async def test_a_sweep_for_which_there_is_no_room_comes_again_and_ends_nothing(
    sweep: Any, error: Exception, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    async def refused(_sweep: Any) -> int:
        calls.append(1)
        raise error

    monkeypatch.setattr(sweep, "sweep", refused)
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        await trio.sleep(2.5 * 3600)

        assert 2 == len(calls)
        assert [] == await ask(node, notes)


async def test_many_jobs_each_run_once() -> None:
    async with serving(app()) as node:
        for number in range(300):
            await mutate(node, later, 0, str(number))
        await node.scheduler.wait_resting()

        found = await ask(node, notes)
        assert sorted(map(str, range(300))) == sorted(found)


async def test_a_job_runs_once_whether_a_crash_comes_before_or_after_it_is_durable() -> None:
    store = MemoryStore()
    with trio.CancelScope() as crash:
        async with serving(app(), store=store) as node:
            node.scheduler.pause()
            await mutate(node, later, 0, "hello")
            hold = store.hold()
            node.scheduler.resume()
            await hold.wait_reached()
            before = store.durable_copy()
            assert (["pending"], []) == (await states(node), await ask(node, notes))
            hold.release()
            await node.scheduler.wait_resting()
            after = store.durable_copy()
            crash.cancel()
            await trio.lowlevel.checkpoint()

    for copy in (before, after):
        runtime = VirtualRuntime()
        runtime.jump(60)
        async with serving(app(), store=copy, runtime=runtime) as node:
            await node.scheduler.wait_resting()
            assert (["hello"], ["success"]) == (await ask(node, notes), await states(node))


@internal_action
async def fails_once(ctx: ActionCtx) -> None:
    began.append("attempt")
    if began == ["attempt"]:
        raise ValueError("not yet")


@mutation
async def retried(ctx: MutationCtx) -> str:
    return await ctx.scheduler.with_retry(Retry(initial_backoff=0, max_attempts=5)).run_after(
        0, fails_once
    )


async def test_an_attempt_that_is_due_when_the_last_one_was_is_made(
    autojump_clock: trio.abc.Clock,
) -> None:
    """As where no time has passed: it is told while the last one still counts as running."""
    runtime = VirtualRuntime(1)
    async with serving(application(retried, fails_once, run, note), runtime=runtime) as node:
        hold = runtime.hold("jobs.ended")
        job = await mutate(node, retried)
        await hold.wait_reached()
        await mutate(node, run, path(note), {"text": "another commit, for the scheduler to look"})
        await wait_all_tasks_blocked()
        hold.release()
        await node.scheduler.wait_resting()
        row = node.scheduler.jobs.row(job)

    assert row is not None
    assert (["attempt"] * 2, "success") == (began, row["state"]["kind"])


class Full:
    """A search index that has no room for what it would be told."""

    unfolded_bytes = 1 << 40
    info = SimpleNamespace(name="by_text")


async def test_jobs_wait_for_an_index_that_is_behind_and_do_not_run_in_vain(
    autojump_clock: trio.abc.Clock,
) -> None:
    runs = 0
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        index: Any = Full()

        def behind(writes: Sequence[RowWrite]) -> Any:
            nonlocal runs
            is_note = any("text" in (write.after_doc or {}) for write in writes)
            runs += is_note
            return index if is_note and index.unfolded_bytes else None

        node.scheduler.pause()
        for _ in range(100):
            await mutate(node, later, seconds=0, text="soon")
        node.committer.index_behind = behind  # type: ignore[method-assign]
        node.scheduler.resume()
        await trio.sleep(30)
        in_vain = runs
        index.unfolded_bytes = 0
        await node.scheduler.wait_resting()

        assert in_vain < 100
        assert 100 == len(await ask(node, notes))


async def test_jobs_of_a_component_go_a_few_large_ones_at_a_time() -> None:
    async with serving(app(), runtime=VirtualRuntime(1)) as node:
        node.scheduler.pause()
        for _ in range(4):
            await mutate(node, later, seconds=0, text="x" * (SWEPT_BYTES_MAX // 2))
        counts = [await node.functions.turns.write(lambda turn: forget_jobs(turn, [""]))]
        while counts[-1]:
            counts.append(await node.functions.turns.write(lambda turn: forget_jobs(turn, [""])))

    assert [2, 2, 0] == counts
