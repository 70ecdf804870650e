"""The batch worker under any history: pings, failures, stops, killed jobs, power cuts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from components.batch_worker import BatchWorker, Found, component
from engine import (
    App,
    Id,
    MutationCtx,
    QueryCtx,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.functions.loader import load
from engine.interface import target_of
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.restarts import Restarts

LAG_MS = 30_000
REPAIR_MS = 3_600_000

app = App()
mount = app.use(component, name="loop")


@internal_query
async def get_batch(ctx: QueryCtx, limit: int) -> Found:
    due = await ctx.db.query("items").where(lambda item: item["due"] <= ctx.now_ms).take(limit)
    if due:
        return {"kind": "work", "batch": [item["_id"] for item in due]}
    later = [item["due"] async for item in ctx.db.query("items")]
    return {"kind": "idle", "wake_at": min(later, default=None)}


@internal_mutation
async def run_batch(ctx: MutationCtx, batch: list[Id[Any]]) -> None:
    assert len(batch) <= 8
    items = [await ctx.db.get(item_id) for item_id in batch]
    await ctx.db.insert("batches", {"numbers": [item["n"] for item in items if item]})
    for item in items:
        assert item is not None
        await ctx.db.insert("done", {"n": item["n"], "at": ctx.now_ms})
        await ctx.db.delete(item["_id"])
        if item["poison"]:
            raise ValueError(f"number {item['n']} is poison")


@internal_mutation
async def set_aside(ctx: MutationCtx, batch: list[Id[Any]], error: str) -> None:
    for item_id in batch:
        item = await ctx.db.get(item_id)
        if item is not None:
            await ctx.db.insert("aside", {"n": item["n"], "error": error})
            await ctx.db.delete(item_id)


worker = BatchWorker(
    mount,
    "main",
    get_batch=get_batch,
    run_batch=run_batch,
    set_aside=set_aside,
    batch_size=8,
    monitor_lag=LAG_MS,
)


@mutation
async def add(ctx: MutationCtx, first: int, count: int, poison: bool, wait_ms: float) -> None:
    for n in range(first, first + count):
        item = {"n": n, "poison": poison and n == first, "due": ctx.now_ms + wait_ms}
        await ctx.db.insert("items", item)
    await worker.ping(ctx)


@mutation
async def ping(ctx: MutationCtx) -> None:
    await worker.ping(ctx)


@mutation
async def start(ctx: MutationCtx) -> None:
    await worker.start(ctx)


@mutation
async def stop(ctx: MutationCtx) -> None:
    await worker.stop(ctx)


@query
async def status(ctx: QueryCtx) -> Any:
    return await worker.status(ctx)


@query
async def numbers(ctx: QueryCtx, table: str) -> list[int]:
    return [row["n"] async for row in ctx.db.query(table)]


@query
async def batches(ctx: QueryCtx) -> list[list[int]]:
    return [row["numbers"] async for row in ctx.db.query("batches")]


APPLICATION = load(
    [app, get_batch, run_batch, set_aside, add, ping, start, stop, status, numbers, batches]
)


@pytest.fixture
def t() -> Iterator[BlockingHarness]:
    with open_place(APPLICATION) as place:
        yield BlockingHarness(place)


@pytest.fixture
def lives() -> Iterator[Restarts]:
    lives = Restarts(APPLICATION)
    yield lives
    lives.close()


def test_what_is_added_is_done_in_batches_and_in_order(t: BlockingHarness) -> None:
    t.mutation(add, 0, 20, False, 0)
    t.finish_all_scheduled_functions()

    assert list(range(20)) == t.query(numbers, "done")
    assert [8, 8, 4] == [len(batch) for batch in t.query(batches)]


def test_an_idle_worker_has_no_job_to_come(lives: Restarts) -> None:
    lives.t.mutation(add, 0, 3, False, 0)
    lives.t.finish_in_progress_scheduled_functions()

    assert "idle" == lives.t.query(status)["state"]
    assert [] == lives.jobs_to_come()


def test_it_wakes_up_when_it_was_asked_to_and_not_earlier(lives: Restarts) -> None:
    lives.t.mutation(add, 0, 3, False, 60_000)
    lives.t.advance(59_999)
    assert [] == lives.t.query(numbers, "done")

    lives.t.advance(1)

    assert [0, 1, 2] == lives.t.query(numbers, "done")


def test_what_is_due_earlier_is_not_held_up_by_what_is_due_later(t: BlockingHarness) -> None:
    t.mutation(add, 0, 1, False, 60_000)
    t.advance(1_000)
    t.mutation(add, 1, 1, False, 1_000)
    t.advance(1_000)

    assert [1] == t.query(numbers, "done")


def test_one_that_is_poison_is_set_aside_alone_and_the_others_go_on(t: BlockingHarness) -> None:
    t.mutation(add, 0, 8, True, 0)
    t.mutation(add, 8, 8, False, 0)
    t.finish_all_scheduled_functions()

    assert [0] == t.query(numbers, "aside")
    assert list(range(1, 16)) == t.query(numbers, "done")


def test_a_ping_of_a_worker_that_runs_writes_nothing(lives: Restarts) -> None:
    lives.t.mutation(add, 0, 1, False, 0)
    before = lives.place.wait(lambda: commit_of(lives))

    assert before == lives.place.wait(lambda: commit_of(lives))


async def commit_of(lives: Restarts) -> int:
    """The timestamp of a ping: of the state that it found, if it writes nothing."""
    await lives.place.stage.callee(None).mutation(target_of(ping, (), {}))
    return lives.place.stage.callee(None).now_ts


def test_stopped_it_does_nothing_and_started_it_goes_on_with_nothing_lost(
    t: BlockingHarness,
) -> None:
    t.mutation(add, 0, 3, False, 0)
    t.mutation(stop)
    t.mutation(add, 3, 3, False, 0)
    t.finish_all_scheduled_functions()
    assert [] == t.query(numbers, "done")

    t.mutation(start)
    t.finish_all_scheduled_functions()

    assert list(range(6)) == t.query(numbers, "done")


class History(RuleBasedStateMachine):
    """Whatever happens, everything is done once and in order, or set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 0
        self.poison: set[int] = set()
        self.generation = 0
        self.is_watched = True

    @initialize()
    def open(self) -> None:
        self.lives = Restarts(APPLICATION)

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        try:
            self.lives.t.mutation(start)
            self.lives.t.advance(20 * LAG_MS)
            if not self.is_watched:
                self.lives.t.advance(REPAIR_MS)
            self.everything_is_somewhere()
            done = self.lives.t.query(numbers, "done")
            aside = self.lives.t.query(numbers, "aside")
            assert set(range(self.next)) == set(done) | set(aside)
            assert self.poison == set(aside)
            assert [] == self.lives.jobs_to_come()
            assert "idle" == self.lives.t.query(status)["state"]
        finally:
            self.lives.close()

    @rule(
        count=st.integers(1, 20),
        poison=st.booleans(),
        wait_ms=st.sampled_from([0, 0, 0, 5, 1_000, 50_000]),
    )
    def add(self, count: int, poison: bool, wait_ms: float) -> None:
        if poison:
            self.poison.add(self.next)
        self.lives.t.mutation(add, self.next, count, poison, wait_ms)
        self.next += count

    @rule()
    def ping(self) -> None:
        self.lives.t.mutation(ping)

    @rule(ms=st.sampled_from([0, 1, 100, 3_000, LAG_MS + 1_000]))
    def advance(self, ms: float) -> None:
        self.lives.t.advance(ms)

    @rule(stopped=st.booleans())
    def stop_or_start(self, stopped: bool) -> None:
        self.lives.t.mutation(stop if stopped else start)

    @rule()
    def crash(self) -> None:
        self.lives.crash()

    @rule(which=st.integers(0, 9))
    def kill_a_job(self, which: int) -> None:
        jobs = self.lives.jobs_to_come()
        if jobs:
            job = jobs[which % len(jobs)]
            self.is_watched = self.is_watched and job["name"].endswith("run_pass")
            self.lives.kill_job(job["_id"])

    @rule()
    def a_kill_is_noticed_in_time(self) -> None:
        """Whatever was killed, what is due is done within the lag of the monitor."""
        found = self.lives.t.query(status)
        if found is None or found["state"] == "stopped" or self.poison or not self.is_watched:
            return
        self.lives.t.advance(2 * LAG_MS + 1_000)
        assert [] == [n for n in self.lives.t.query(numbers, "items") if n < self.next - 20]

    @invariant()
    def everything_is_somewhere(self) -> None:
        if not hasattr(self, "lives"):
            return
        t = self.lives.t
        everywhere = [n for table in ("items", "done", "aside") for n in t.query(numbers, table)]
        assert list(range(self.next)) == sorted(everywhere)
        assert not self.poison & set(t.query(numbers, "done"))

    @invariant()
    def at_most_one_pass_of_this_generation_is_to_come(self) -> None:
        if not hasattr(self, "lives"):
            return
        found = self.lives.t.query(status)
        if found is None:
            return
        assert self.generation <= found["generation"]
        self.generation = found["generation"]
        passes = [job for job in self.lives.jobs_to_come() if job["name"].endswith("run_pass")]
        current = [job for job in passes if job["args"][0]["generation"] == self.generation]
        assert len(current) <= (found["state"] != "stopped")


History.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
