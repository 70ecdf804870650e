"""What each execution leaves behind: what it cost, what it met, and how others learn of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import action, mutation, query
from engine.cli.calls import header, lines_of, lines_with_costs
from engine.errors import Overloaded, StoreFull
from engine.functions.history import (
    ExecutionLog,
    ExecutionRecord,
    Retry,
    as_json,
    of_json,
)
from engine.functions.logs import print_line
from engine.functions.results import Caller
from engine.kernel.runtime import VirtualRuntime
from engine.model.ids import Id
from engine.model.limits import Limits
from engine.model.values import size_of
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, application, ask, mutate, serving

MODULE = __name__.replace(".", "/")


@mutation
async def add(ctx: MutationCtx, name: str) -> str:
    await ctx.scheduler.run_after(0, nothing)
    return await ctx.db.insert("things", {"name": name})


@mutation
async def nothing(ctx: MutationCtx) -> None:
    """Reads and writes nothing."""


@mutation
async def chatter(ctx: MutationCtx, number: int) -> None:
    for _ in range(5):
        print_line(f"{number}: {'x' * 4_000}")


@query
async def names(ctx: QueryCtx) -> list[str]:
    return [thing["name"] async for thing in ctx.db.query("things")]


@query
async def first_name(ctx: QueryCtx) -> Any:
    return await ctx.db.query("things").first()


@action
async def nap(ctx: ActionCtx, seconds: float) -> None:
    await trio.sleep(seconds)
    await ctx.run_query(first_name)


APP = [add, nothing, names, first_name, nap]


def executions(node: Node, *paths: str) -> list[ExecutionRecord]:
    """Those of functions of this module, oldest first."""
    found = [record for _, record in node.functions.executions.after(0)]
    wanted = [f"{MODULE}:{path}" for path in paths]
    return [record for record in found if record.path in wanted]


async def test_a_mutation_leaves_what_it_cost_and_where_it_is_committed(
    autojump_clock: MockClock,
) -> None:
    caller = Caller(admin=True, request_id="r1", origin="http")
    async with serving(APP) as node:
        result = await node.functions.mutation(f"{MODULE}:add", {"name": "x"}, caller=caller)
        (record,) = executions(node, "add")
        await ask(node, names)
        (read,) = executions(node, "names")

    assert ("mutation", "r1", "http", None) == (
        record.kind,
        record.request_id,
        record.origin,
        record.error,
    )
    assert result.ts == record.commit_ts
    assert size_of({"name": "x"}) == record.args_bytes
    assert size_of(result.value) == record.result_bytes
    assert (1, size_of({})) == (record.functions_scheduled, record.scheduled_args_bytes)
    assert 0 < record.user_ms < 1000
    assert 0 < record.engine_ms < 1000
    assert (0, 0.0, (), 0) == (record.queued, record.queue_ms, record.retries, record.cached)
    assert (1, 1, 0) == (read.documents_read, read.ranges_read, read.documents_written)


async def test_who_waits_for_the_lane_says_how_long_and_behind_how_many(
    autojump_clock: MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime, limits=Limits(staged_count_max=1)) as node:
        disk = runtime.hold("committer.persist")
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(mutate, node, add, name)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(2)
            disk.release()
        found = sorted(executions(node, "add"), key=lambda record: (record.queue_ms, record.queued))

    assert [(0, 0), (0, 2000), (1, 2000)] == [
        (record.queued, round(record.queue_ms)) for record in found
    ]
    assert 2000 == round(found[0].commit_ms)


async def test_an_action_that_waits_for_a_place_says_so(autojump_clock: MockClock) -> None:
    async with serving(APP, limits=Limits(concurrent_actions_max=1)) as node:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(act, node, nap, 2)
                await trio.testing.wait_all_tasks_blocked()
        found = executions(node, "nap")

    assert [(0, 0), (0, 2000), (1, 4000)] == [
        (record.queued, round(record.queue_ms)) for record in found
    ]
    assert {2000} == {round(record.duration_ms) for record in found}


async def test_a_run_on_a_batch_that_was_refused_is_told_of_as_a_retry(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        store.fail_next(StoreFull("for once"))
        await mutate(node, nothing_but_a_row)
        (record,) = executions(node, "nothing_but_a_row")

    assert (Retry("batch refused"),) == record.retries
    assert record.error is None


@mutation
async def nothing_but_a_row(ctx: MutationCtx) -> None:
    await ctx.db.insert("things", {"name": "row"})


APP.append(nothing_but_a_row)


async def test_where_a_call_comes_from_is_told(autojump_clock: MockClock) -> None:
    crons = Crons()
    crons.interval("beat", nothing_but_a_row, seconds=30)
    async with serving(application(crons, *APP)) as node:
        await mutate(node, add, "x")
        await act(node, nap, 60)
        await trio.testing.wait_all_tasks_blocked()
        origins = {
            name: {record.origin for record in executions(node, name)}
            for name in ("add", "nothing", "nothing_but_a_row", "nap", "first_name")
        }

    assert {
        "add": {"program"},
        "nothing": {"job"},
        "nothing_but_a_row": {"cron"},
        "nap": {"program"},
        "first_name": {"action"},
    } == origins


async def test_answers_from_the_cache_are_counted_for_each_function(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        for _ in range(4):
            await ask(node, names)
        await ask(node, first_name)
        once = [record.cached for record in executions(node, "names", "first_name")]
        for _ in range(2):
            await ask(node, first_name)
        again = [(r.path[-5:], r.cached) for r in executions(node, "names", "first_name")]

    assert [0, 0, 3] == once
    assert [("names", 0), ("_name", 0), ("names", 3), ("_name", 2)] == again


async def test_who_found_no_room_has_left_that(autojump_clock: MockClock) -> None:
    runtime = VirtualRuntime()
    limits = Limits(staged_count_max=1, mutation_patience_s=3, concurrent_actions_max=1)
    async with serving(APP, runtime=runtime, limits=limits) as node:
        disk = runtime.hold("committer.persist")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mutate, node, add, "in")
            nursery.start_soon(act, node, nap, 20)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded):
                await mutate(node, add, "out")
            disk.release()
            with pytest.raises(Overloaded):
                await act(node, nap, 1)
        out, _ = sorted(executions(node, "add"), key=lambda one: one.error is None)
        awake, _ = sorted(executions(node, "nap"), key=lambda one: one.error is None)

    assert 3000 == round(out.queue_ms)
    assert 10_000 == round(awake.queue_ms)
    for one in (out, awake):
        assert one.error is not None
        assert one.error.startswith("Uncaught Overloaded: the ")


# Conflicts, which there are only where mutations run beside each other.


class Story:
    """Has the runs of a mutation disturbed, each when it has read."""

    def __init__(self, disturbed: int) -> None:
        self.disturbed = disturbed
        self.seen: list[float] = []
        self.has_read = [trio.Event() for _ in range(disturbed)]
        self.disturbances = 0


story: Story


class Sleeper(VirtualRuntime):
    """Remembers how long it was slept."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, interleaves=True)
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)


@mutation
async def set_up(ctx: MutationCtx) -> str:
    return await ctx.db.insert("counters", {"value": 0, "name": "it"})


@mutation
async def bump(ctx: MutationCtx, by: float = 100) -> None:
    counter = await ctx.db.query("counters").first()
    assert counter is not None
    await ctx.db.patch(counter["_id"], {"value": counter["value"] + by})


@mutation
async def add_one(ctx: MutationCtx, counter: Id[Any], how: str) -> None:
    run = len(story.seen)
    if how == "get":
        found: Any = await ctx.db.get(counter)
    else:
        found = await ctx.db.query("counters").first()
    story.seen.append(found["value"])
    if run < story.disturbed:
        story.has_read[run].set()
        while story.disturbances <= run:
            await ctx.db.normalize_id("others", counter)
    if how == "get":
        await ctx.db.patch(counter, {"value": found["value"] + 1})
    else:
        await ctx.db.insert("others", {"seen": found["value"]})


@mutation
async def count_and_add(ctx: MutationCtx) -> None:
    run = len(story.seen)
    story.seen.append(await ctx.db.count("counters"))
    if run < story.disturbed:
        story.has_read[run].set()
        while story.disturbances <= run:
            await ctx.db.normalize_id("others", "x")
    await ctx.db.insert("others", {})


CONFLICTING = [set_up, bump, add_one, count_and_add]


async def disturb(node: Node, fn: Any) -> None:
    for has_read in story.has_read:
        await has_read.wait()
        await mutate(node, fn)
        story.disturbances += 1


async def disturbed(
    times: int, fn: Any, by: Any, *args: str, seed: int = 0
) -> tuple[str, ExecutionRecord, Sleeper]:
    """Run `fn` while `by` commits between its reads and its writes, in so many runs."""
    global story
    story = Story(times)
    runtime = Sleeper(seed)
    async with serving(CONFLICTING, runtime=runtime) as node:
        counter = await mutate(node, set_up)
        runtime.slept.clear()
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(disturb, node, by)
                await mutate(node, fn, *([counter, *args] if args else []))
        *_, record = executions(node, fn.handler.__name__)
    return counter, record, runtime


@pytest.mark.parametrize(("how", "index"), [("get", "by_id"), ("query", "by_creation_time")])
async def test_a_conflict_names_document_index_and_who_wrote(
    how: str, index: str, autojump_clock: MockClock
) -> None:
    counter, record, _ = await disturbed(1, add_one, bump, how)

    (retry,) = record.retries
    assert ("conflict", "counters", counter, index, f"{MODULE}:bump") == retry[:5]
    assert retry.commit_ts is not None
    assert record.commit_ts is not None
    assert retry.commit_ts < record.commit_ts
    assert [0, 100] == story.seen, "the second run has read what the conflict was about"


async def test_a_conflict_about_a_number_of_documents_is_about_one_that_came(
    autojump_clock: MockClock,
) -> None:
    _, record, _ = await disturbed(1, count_and_add, set_up)

    (retry,) = record.retries
    assert ("counters", "count") == (retry.table, retry.index_name)
    assert [1, 2] == story.seen


async def test_a_mutation_is_tried_again_after_longer_and_longer_and_then_runs_alone(
    autojump_clock: MockClock,
) -> None:
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6]
    waits = []
    for seed in range(8):
        _, record, runtime = await disturbed(5, add_one, bump, "get", seed=seed)
        waits.append(runtime.slept)

        assert ["conflict"] * 5 == [retry.reason for retry in record.retries]
        assert [0, 100, 200, 300, 400, 500] == story.seen
        assert record.error is None

    for bound, slept in zip(bounds, zip(*waits, strict=True), strict=True):
        assert 0 <= min(slept) < bound / 2 < max(slept) < bound, "full jitter"
    assert len({tuple(slept) for slept in waits}) == len(waits)


# The log of executions.


def record(**values: Any) -> ExecutionRecord:
    plain = ExecutionRecord(
        kind="mutation",
        path="notes:add",
        component="",
        request_id="r1",
        origin="http",
        ended_ns=1_767_225_600_123_456_789,
        duration_ms=1.25,
        error=None,
        log_lines=(),
    )
    return plain._replace(**values)


FULL = record(
    component="notes",
    error="Uncaught Error: no\n    at add (notes.py:3)",
    log_lines=("[LOG] 'one'",),
    user_ms=0.5,
    engine_ms=0.75,
    queued=3,
    queue_ms=4.5,
    commit_ms=2.5,
    commit_ts=1_767_225_600_123_456_788,
    retries=(Retry("batch refused"), Retry("conflict", "notes", "j57", "by_id", "notes:add", 7)),
    documents_read=10,
    bytes_read=1_000,
    ranges_read=2,
    documents_written=1,
    bytes_written=100,
    functions_scheduled=1,
    scheduled_args_bytes=2,
    args_bytes=3,
    result_bytes=4,
    cached=5,
)


@pytest.mark.parametrize("one", [record(), FULL], ids=["plain", "full"])
def test_a_record_travels_as_json(one: ExecutionRecord) -> None:
    sent = json.loads(json.dumps(as_json(one)))

    assert one == of_json(sent)
    assert 1 == sent["version"]
    assert str(one.ended_ns) == sent["endedNs"]


def test_a_record_of_another_release_is_read_as_far_as_it_is_known() -> None:
    sent = as_json(FULL)
    newer = {**sent, "moonPhase": 0.5}
    newer["retries"] = [{**each, "moonPhase": 0.5} for each in newer["retries"]]
    older = {name: value for name, value in sent.items() if name not in ("retries", "cached")}

    assert FULL == of_json(newer)
    assert FULL._replace(retries=(), cached=0) == of_json(older)


def test_the_last_thousand_are_kept() -> None:
    kept_max = Limits().executions_kept_max
    log = ExecutionLog(kept_max, 1 << 20)
    for number in range(kept_max + 5):
        log.add(record(request_id=str(number)))

    kept = list(log.after(0))

    assert 1_000 == kept_max == len(kept)
    assert [(6, "5"), (kept_max + 5, str(kept_max + 4))] == [
        (number, one.request_id) for number, one in (kept[0], kept[-1])
    ]


async def test_as_many_executions_are_kept_as_are_wanted(autojump_clock: MockClock) -> None:
    async with serving(APP, limits=Limits(executions_kept_max=2)) as node:
        for _ in range(3):
            await mutate(node, add, name="ada")

        assert 2 == len(list(node.functions.executions.after(0)))


def test_of_executions_that_print_much_fewer_are_kept() -> None:
    log = ExecutionLog(100, 10_000)
    text = "x" * 900
    for number in range(20):
        log.add(record(request_id=str(number), log_lines=(text, text), error=text))
    kept = [one.request_id for _, one in log.after(0)]
    log.add(record(request_id="huge", log_lines=("x" * 20_000,)))
    huge = [one.request_id for _, one in log.after(0)]
    for number in range(20):
        log.add(record(request_id=str(number)))

    assert ["17", "18", "19"] == kept
    assert ["huge"] == huge
    assert [str(number) for number in range(20)] == [one.request_id for _, one in log.after(0)]


async def test_an_engine_keeps_no_more_of_what_was_printed_than_its_limit(
    autojump_clock: MockClock,
) -> None:
    async with serving([chatter], limits=Limits(executions_bytes_max=100_000)) as node:
        for number in range(10):
            await mutate(node, chatter, number)
        kept = [one for _, one in node.functions.executions.after(0)]

    assert 80_000 < sum(len(line) for one in kept for line in one.log_lines) <= 100_000
    assert ["6", "7", "8", "9"] == [one.log_lines[-1].partition(":")[0][-1] for one in kept]


async def test_executions_can_be_followed(autojump_clock: MockClock) -> None:
    log = ExecutionLog(9, 1 << 20)
    log.add(record(path="a"))
    found: list[str] = []

    async def follow() -> None:
        async for _, one in log.follow():
            found.append(one.path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await trio.testing.wait_all_tasks_blocked()
        log.add(record(path="b"))
        log.add(record(path="c"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert ["a", "b", "c"] == found


# As lines.


def test_costs_stand_in_columns() -> None:
    wide = record(bytes_read=16_777_216, documents_read=32_000, duration_ms=1000.5, cached=0)

    shown = [header(), next(lines_with_costs(wide)), next(lines_with_costs(record(cached=7)))]

    at = shown[0].index("function")
    assert ["function", "mutation notes:add", "mutation notes:add"] == [line[at:] for line in shown]
    for name, cells in (("ran ms", ["1000.5", "1.2"]), ("bytes", ["16777216", "0"])):
        end = shown[0].index(name) + len(name)
        assert cells == [line[:end].split()[-1] for line in shown[1:]]
    assert "cached x7" in shown[2]


def test_why_it_was_run_again_and_what_it_said_stand_below() -> None:
    below = list(lines_with_costs(FULL._replace(cached=0)))[1:]

    assert [
        "    run again: batch refused",
        "    run again: notes:add wrote j57 of notes (by_id)",
        "    [LOG] 'one'",
        "    [Request ID: r1]",
        "    Uncaught Error: no",
        "        at add (notes.py:3)",
    ] == below


def test_whoever_looks_on_without_costs_is_not_told_of_the_cache() -> None:
    assert [] == list(lines_of(record(cached=3)))


async def act(node: Node, fn: Any, *args: Any) -> None:
    await node.functions.action(
        f"{MODULE}:{fn.handler.__name__}", {"seconds": args[0]}, caller=ADMIN
    )
