"""Verify finds what is wrong with a store, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.registered import loading
from engine.app.registry import Application, functions_of
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.functions.results import Caller
from engine.functions.watchdog import Watchdog
from engine.indexes.catalog import USER_INDEX_ID_MIN
from engine.indexes.verify import Findings, verify
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import decode_record, encode_record
from engine.model.codec import decode, encode
from engine.model.limits import USER_TABLE_NUMBER_MIN, Limits
from engine.node import running_node
from engine.store.interface import Batch, Tree
from engine.store.memory_store import MemoryStore

ENTRIES = USER_INDEX_ID_MIN.to_bytes(4, "big")
ROWS = USER_TABLE_NUMBER_MIN.to_bytes(4, "big")

schema = Schema(things=Table(v.object({"n": v.number()})).index("by_n", ["n"]))


@mutation
async def add(ctx: MutationCtx, n: float) -> None:
    await ctx.db.insert("things", {"n": n})


async def written() -> MemoryStore:
    """A store with a table, an index and a few documents."""
    store = MemoryStore()
    watchdog = Watchdog(Limits())
    watchdog.start()
    with loading("t"):
        add.module = "t"
    application = Application(functions=functions_of("t", {"add": add}), schema=schema, digest="1")
    async with running_node(
        store, runtime=VirtualRuntime(), limits=Limits(), watchdog=watchdog
    ) as node:
        await node.push(application)
        for n in range(5):
            await node.functions.mutation("t:add", {"n": n}, caller=Caller())
    watchdog.close()
    return store


def findings(store: MemoryStore) -> Findings:
    with store.snapshot() as snapshot:
        *_, found = verify(snapshot)
    return found


def items(store: MemoryStore, tree: Tree, prefix: bytes = b"") -> list[tuple[bytes, bytes]]:
    with store.snapshot() as snapshot:
        return [(k, x) for k, x in snapshot.range(tree, b"", None) if k.startswith(prefix)]


async def test_a_sound_store_is_sound(autojump_clock: trio.testing.MockClock) -> None:
    found = findings(await written())

    assert [] == found.problems
    assert found.records >= 6
    assert found.entries >= 10


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
