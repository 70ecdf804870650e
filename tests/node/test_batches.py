"""What shares a batch on its way to the disk, and what does not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.model.limits import Limits
from engine.store.interface import Tree, decode_batch
from engine.store.memory_store import MemoryStore
from tests.node.nodes import mutate, serving


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
