"""What shares a batch on its way to the disk, and what does not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import internal_mutation, mutation, query
from engine.model.limits import Limits
from engine.store.interface import Tree, decode_batch
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ask, mutate, serving


@mutation
async def add(ctx: MutationCtx, count: int) -> None:
    for number in range(count):
        await ctx.db.insert("things", {"number": number})


def changes_of(documents: int) -> int:
    """The record, the rows and their entries in `by_creation_time`."""
    return 1 + 2 * documents


class CountingStore(MemoryStore):
    """Remembers how many records, rows and entries each batch writes."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    async def apply(self, batch: bytes) -> None:
        self.counts.append(sum(len(keys) for keys, _ in decode_batch(batch)[Tree.LOG :]))
        await super().apply(batch)


SMALL: Limits = replace(Limits(), batch_changes_max=20)


async def batches_of(*transactions: int, limits: Limits = SMALL) -> list[int]:
    """Changes of each batch, when so many documents are added while the disk is busy."""
    store = CountingStore()
    async with serving([add], store=store, limits=limits) as node:
        await mutate(node, add, count=1)
        disk = store.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(mutate, node, add, count=1))
            await disk.wait_reached()
            before = len(store.counts)
            for count in transactions:
                staged_ts = node.committer.head.ts
                nursery.start_soon(partial(mutate, node, add, count=count))
                while node.committer.head.ts == staged_ts:
                    await trio.lowlevel.checkpoint()
            disk.release()
        return store.counts[before:]


async def test_a_batch_has_no_more_changes_than_the_writer_makes_in_a_moment(
    autojump_clock: trio.testing.MockClock,
) -> None:
    batches = await batches_of(3, 3, 3, 3, 3)

    assert [2 * changes_of(3), 2 * changes_of(3), changes_of(3)] == batches


async def test_a_transaction_with_more_changes_than_that_goes_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    batches = await batches_of(3, 50, 3)

    assert [changes_of(3), changes_of(50), changes_of(3)] == batches


@pytest.mark.parametrize(
    "limits", [Limits(batch_count_max=2), Limits(batch_bytes_max=1_000)], ids=["count", "bytes"]
)
async def test_a_batch_has_no_more_transactions_or_bytes(
    limits: Limits, autojump_clock: trio.testing.MockClock
) -> None:
    """Records of three documents have about 450 bytes here."""
    batches = await batches_of(3, 3, 3, 3, 3, limits=limits)

    assert [2 * changes_of(3), 2 * changes_of(3), changes_of(3)] == batches


# Series of jobs.


seen: list[int] = []
ended: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen.clear()
    ended.clear()


@internal_mutation
async def take_turns(ctx: MutationCtx, number: int) -> None:
    """With so many calls that others have a turn in between."""
    await ctx.db.insert("done", {"number": number})
    for _ in range(SMALL.slice_rows_max):
        await ctx.db.count("done")


@internal_mutation
async def take_time(ctx: MutationCtx) -> None:
    """Until somebody has seen what was done before, or for half a second."""
    for _ in range(50_000):
        await ctx.db.normalize_id("done", "none")
        if seen:
            break
    ended.append("seen" if seen else "in vain")


@mutation
async def plan(ctx: MutationCtx, jobs: int) -> None:
    for number in range(jobs):
        await ctx.scheduler.run_after(0, take_turns, number)


@mutation
async def plan_a_long_one(ctx: MutationCtx) -> None:
    await ctx.scheduler.run_after(0, take_turns, 0)
    await ctx.scheduler.run_after(0, take_time)


@query
async def count_done(ctx: QueryCtx) -> int:
    return await ctx.db.count("done")


SERIES = [add, take_turns, take_time, plan, plan_a_long_one, count_done]


async def test_a_series_of_jobs_shares_a_batch_whoever_has_turns_between_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = CountingStore()
    async with serving(SERIES, store=store) as node:
        await mutate(node, plan, jobs=20)
        before = len(store.counts)
        await node.scheduler.wait_resting()

        assert 20 == await ask(node, count_done)
        assert 1 == len(store.counts) - before


async def test_who_waits_for_a_commit_waits_for_no_series_of_jobs(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with serving(SERIES) as node:
        await mutate(node, plan, jobs=20)
        while node.committer.head.ts == node.functions.published.value:
            await trio.lowlevel.checkpoint()
        await mutate(node, add, count=1)

        assert 20 > await ask(node, count_done)
        await node.scheduler.wait_resting()


async def test_what_was_done_in_a_series_is_seen_while_the_rest_of_it_takes_long() -> None:
    async with serving(SERIES) as node:
        await mutate(node, plan_a_long_one)
        while not await ask(node, count_done):
            await trio.lowlevel.checkpoint()
        seen.append(1)
        await node.scheduler.wait_resting()

    assert ["seen"] == ended
