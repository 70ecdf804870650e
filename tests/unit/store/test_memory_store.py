"""The faults that a store in memory has on demand."""

from __future__ import annotations

import gc

import pytest
import trio
from trio.testing import MockClock

from engine.errors import StoreFailed, StoreFull
from engine.store.interface import Batch, Tree
from engine.store.memory_store import MemoryStore


def put(key: bytes, value: bytes = b"v") -> bytes:
    batch = Batch()
    batch.put(Tree.ROWS, key, value)
    return batch.encode()


def rows(store: MemoryStore) -> list[bytes]:
    with store.snapshot() as snapshot:
        return [key for key, _ in snapshot.range(Tree.ROWS, b"", None)]


async def test_a_batch_that_is_held_is_in_flight_until_it_is_released(
    nursery: trio.Nursery,
) -> None:
    store = MemoryStore()
    hold = store.hold()
    nursery.start_soon(store.apply, put(b"held"))
    await hold.wait_reached()
    before = rows(store)
    hold.release()
    await trio.testing.wait_all_tasks_blocked()

    assert [] == before
    assert [b"held"] == rows(store)


async def test_a_held_batch_does_not_notice_that_it_is_cancelled() -> None:
    store = MemoryStore()
    hold = store.hold()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.apply, put(b"held"))
        await hold.wait_reached()
        nursery.cancel_scope.cancel()
        hold.release()

    assert [b"held"] == rows(store)


async def test_a_crash_leaves_what_was_applied_and_may_leave_what_is_in_flight(
    nursery: trio.Nursery,
) -> None:
    store = MemoryStore()
    await store.apply(put(b"durable"))
    hold = store.hold()
    nursery.start_soon(store.apply, put(b"held"))
    await hold.wait_reached()
    without, with_it = store.durable_copy(), store.durable_copy(in_flight=True)
    hold.release()
    await trio.testing.wait_all_tasks_blocked()

    assert [b"durable"] == rows(without)
    assert [b"durable", b"held"] == rows(with_it)
    await without.apply(put(b"later"))
    assert [b"durable", b"later"] == rows(without)
    assert [b"durable", b"held"] == rows(store)


async def test_a_full_disk_refuses_one_batch_and_goes_on() -> None:
    store = MemoryStore()
    store.fail_next(StoreFull("disk full"))

    with pytest.raises(StoreFull, match="disk full"):
        await store.apply(put(b"refused"))
    await store.apply(put(b"taken"))

    assert [b"taken"] == rows(store)


@pytest.mark.parametrize(("written", "left"), [(False, []), (True, [b"unknown"])])
async def test_a_failed_disk_ends_the_store_and_a_copy_goes_on(
    written: bool, left: list[bytes]
) -> None:
    store = MemoryStore()
    store.fail_next(StoreFailed("disk on fire"), written=written)

    with pytest.raises(StoreFailed, match="on fire"):
        await store.apply(put(b"unknown"))
    with pytest.raises(StoreFailed, match="may or may not"):
        await store.apply(put(b"refused"))

    again = store.durable_copy()
    assert left == rows(again)
    await again.apply(put(b"zulu"))
    assert [*left, b"zulu"] == rows(again)


async def test_a_batch_takes_as_long_as_its_flush(autojump_clock: MockClock) -> None:
    async def flush() -> None:
        await trio.sleep(3)

    store = MemoryStore(flush=flush)
    with trio.move_on_after(1):
        await store.apply(put(b"slow"))

    assert 3 == trio.current_time()
    assert [b"slow"] == rows(store)


async def test_values_that_nobody_can_see_are_forgotten() -> None:
    store = MemoryStore()
    with store.snapshot():
        for n in range(50):
            await store.apply(put(b"%d" % (n % 5), b"%d" % n))
        batch = Batch()
        batch.merge(Tree.ROWS, {b"%d" % n: None for n in range(5)})
        await store.apply(batch.encode())
        kept = versions(store)
    await store.apply(put(b"last"))

    assert 55 == kept
    assert 1 == versions(store)


async def test_a_snapshot_that_nobody_has_keeps_nothing() -> None:
    store = MemoryStore()
    store.snapshot()
    gc.collect()
    for n in range(50):
        await store.apply(put(b"same", b"%d" % n))

    assert 1 == versions(store)


def versions(store: MemoryStore) -> int:
    return sum(map(len, store._trees[Tree.ROWS]._versions.values()))
