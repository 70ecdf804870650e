"""Verify finds what is wrong with a store, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from unittest import mock

import pytest
import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import Stopped
from engine.indexes.catalog import USER_INDEX_ID_MIN
from engine.indexes.counts import META_PREFIX
from engine.indexes.verify import Findings, verify
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import decode_record, encode_record
from engine.model.codec import decode, encode
from engine.model.limits import USER_TABLE_NUMBER_MIN
from engine.node import Node
from engine.store.interface import Batch, Snapshot, Tree
from engine.store.memory_store import MemoryStore
from tests.node.nodes import mutate, serving

STEPS_DISTURBED = 25
"""Slices with a write behind them; so many that it is still walking when it is left alone."""
ENTRIES = USER_INDEX_ID_MIN.to_bytes(4, "big")
ROWS = USER_TABLE_NUMBER_MIN.to_bytes(4, "big")

schema = Schema(things=Table(v.object({"n": v.number()})).index("by_n", ["n"]))


@mutation
async def add(ctx: MutationCtx, n: float) -> None:
    await ctx.db.insert("things", {"n": n})


@mutation
async def change(ctx: MutationCtx, seed: float) -> None:
    """Insert, patch or delete anything but what tests damage: what comes first by n or by id."""
    dice = Random(int(seed))
    found = await ctx.db.query("things").collect()
    first = min(doc["_id"] for doc in found)
    docs = [doc for doc in found if doc["n"] > 0 and doc["_id"] != first]
    for doc in dice.sample(docs, min(3, len(docs))):
        if dice.random() < 0.4:
            await ctx.db.delete(doc["_id"])
        else:
            await ctx.db.patch(doc["_id"], {"n": dice.randrange(1, 50)})
    for _ in range(dice.randrange(3)):
        await ctx.db.insert("things", {"n": dice.randrange(1, 50)})


@mutation
async def add_many(ctx: MutationCtx, count: float) -> None:
    for n in range(int(count)):
        await ctx.db.insert("things", {"n": n})


@asynccontextmanager
async def running(store: MemoryStore, *, dice: int = 0) -> AsyncIterator[Node]:
    """A node on `store`; with other dice than before, or it gives the same ids again."""
    runtime = VirtualRuntime(dice)
    async with serving([add, add_many, change, schema], store=store, runtime=runtime) as node:
        yield node


async def written(count: int = 5) -> MemoryStore:
    """A store with a table, an index and a few documents."""
    store = MemoryStore()
    async with running(store) as node:
        for n in range(count):
            await mutate(node, add, n=n)
    return store


async def test_a_count_that_is_not_that_of_the_rows_is_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = await written()
    name = META_PREFIX + ROWS
    batch = Batch()
    batch.put(Tree.META, name, (6).to_bytes(8, "big"))
    await store.apply(batch.encode())

    *_, findings = verify(store.snapshot)

    table = USER_TABLE_NUMBER_MIN
    assert [f"table {table} is said to have 6 rows, and 5 are there"] == findings.problems


async def findings_meanwhile(store: MemoryStore, *, slice_rows: int, seed: int) -> Findings:
    """What is found while somebody writes between every two slices."""
    taken: list[Snapshot] = []

    def take() -> Snapshot:
        taken.append(store.snapshot())
        return taken[-1]

    found = Findings()
    async with running(store, dice=seed + 1) as node:
        with mock.patch("engine.indexes.verify.SLICE_ROWS", slice_rows):
            for step, found in enumerate(verify(take)):  # noqa: B007 - the last is returned
                with pytest.raises(Stopped):
                    taken[-1].last(Tree.LOG)
                if step < STEPS_DISTURBED:
                    await mutate(node, change, seed=seed * 1_000 + step)
    assert len(taken) > STEPS_DISTURBED
    return found


def findings(store: MemoryStore) -> Findings:
    *_, found = verify(store.snapshot)
    return found


def items(store: MemoryStore, tree: Tree, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    with store.snapshot() as snapshot:
        return [(k, x) for k, x in snapshot.range(tree, b"", None) if k.startswith(prefix)]


async def test_a_sound_store_is_sound(autojump_clock: trio.testing.MockClock) -> None:
    found = findings(await written())

    assert [] == found.problems
    assert found.records >= 6
    assert found.entries >= 10


@pytest.mark.parametrize("seed", range(8))
async def test_a_store_that_is_written_meanwhile_is_sound(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    store = await written(30)

    found = await findings_meanwhile(store, slice_rows=2 + seed, seed=seed)

    assert [] == found.problems
    assert len(items(store, Tree.ROWS)) == found.rows
    assert len(items(store, Tree.ENTRIES)) == found.entries


async def test_a_slice_takes_few_records_that_wrote_much(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = await written()
    async with running(store, dice=1) as node:
        for _ in range(5):
            await mutate(node, add_many, count=20)

    with mock.patch("engine.indexes.verify.SLICE_ROWS", 20):
        seen = [found.records for found in verify(store.snapshot)]

    total = seen[-1]
    assert set(range(total - 4, total + 1)) <= set(seen)


def lose_the_first_record(store: MemoryStore, batch: Batch) -> None:
    batch.delete(Tree.LOG, items(store, Tree.LOG)[0][0])


def lose_a_record_in_between(store: MemoryStore, batch: Batch) -> None:
    batch.delete(Tree.LOG, items(store, Tree.LOG)[2][0])


def damage_a_record(store: MemoryStore, batch: Batch) -> None:
    _rewrite(store, batch, 2, lambda data: data[:-1] + bytes([data[-1] ^ 1]))


def claim_another_state(store: MemoryStore, batch: Batch) -> None:
    """A record whose checksum is right and whose state hash is not."""

    def forged(data: bytes) -> bytes:
        record = decode_record(data)
        return encode_record(
            ts=record.ts,
            epoch=record.epoch,
            kind=record.kind,
            writes=record.writes,
            covered=record.covered,
            source=record.source,
            state_hash=record.state_hash + 1,
            previous=record.previous,
        )[0]

    _rewrite(store, batch, -2, forged)


def change_a_row(store: MemoryStore, batch: Batch) -> None:
    key, image = items(store, Tree.ROWS, ROWS)[0]
    batch.put(Tree.ROWS, key, encode({**decode(image), "n": 99}))


def spoil_a_row(store: MemoryStore, batch: Batch) -> None:
    """Bytes that are no document any more."""
    key, _ = items(store, Tree.ROWS, ROWS)[0]
    batch.put(Tree.ROWS, key, b"\xff\x00damaged")


def spoil_a_row_into_something_else(store: MemoryStore, batch: Batch) -> None:
    key, _ = items(store, Tree.ROWS, ROWS)[1]
    batch.put(Tree.ROWS, key, encode([1, 2, 3]))


def lose_a_row(store: MemoryStore, batch: Batch) -> None:
    batch.delete(Tree.ROWS, items(store, Tree.ROWS, ROWS)[0][0])


def lose_an_entry(store: MemoryStore, batch: Batch) -> None:
    batch.delete(Tree.ENTRIES, items(store, Tree.ENTRIES, ENTRIES)[0][0])


def move_an_entry(store: MemoryStore, batch: Batch) -> None:
    key, _ = items(store, Tree.ENTRIES, ENTRIES)[0]
    batch.delete(Tree.ENTRIES, key)
    batch.put(Tree.ENTRIES, key[:-1] + bytes([key[-1] ^ 1]), b"")


def leave_a_stray_entry(store: MemoryStore, batch: Batch) -> None:
    batch.put(Tree.ENTRIES, (USER_INDEX_ID_MIN + 77).to_bytes(4, "big") + b"x" * 20, b"")


def _rewrite(
    store: MemoryStore, batch: Batch, position: int, change: Callable[[bytes], bytes]
) -> None:
    """Put another record in place of one: the log only grows, so its tail is written anew."""
    records = items(store, Tree.LOG)
    key, data = records[position]
    batch.delete(Tree.LOG, key)
    store._trees[Tree.LOG].put(store._state, key, change(data))
    batch.put(Tree.META, b"touched", b"1")
    batch._changes[Tree.LOG].clear()


@pytest.mark.parametrize(
    "damage",
    [
        lose_the_first_record,
        lose_a_record_in_between,
        damage_a_record,
        claim_another_state,
        change_a_row,
        spoil_a_row,
        spoil_a_row_into_something_else,
        lose_a_row,
        lose_an_entry,
        move_an_entry,
        leave_a_stray_entry,
    ],
)
async def test_damage_is_found(
    damage: Callable[[MemoryStore, Batch], None], autojump_clock: trio.testing.MockClock
) -> None:
    store = await written()
    batch = Batch()
    damage(store, batch)
    await store.apply(batch.encode())

    assert findings(store).problems


@pytest.mark.parametrize("damage", [change_a_row, lose_an_entry, move_an_entry])
async def test_damage_is_found_in_a_store_that_is_written_meanwhile(
    damage: Callable[[MemoryStore, Batch], None], autojump_clock: trio.testing.MockClock
) -> None:
    store = await written(30)
    batch = Batch()
    damage(store, batch)
    await store.apply(batch.encode())

    found = await findings_meanwhile(store, slice_rows=4, seed=1)

    assert found.problems
