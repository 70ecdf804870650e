"""The log is kept for a time and up to a size; what is left of it is whole."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.committer.actor import RunAgain
from engine.errors import OutOfRetention, StoreDamaged, StoreFull
from engine.indexes import verify as verification
from engine.indexes.verify import verify
from engine.log import retention
from engine.log.records import Record, decode_record
from engine.log.retention import BEGINNING, read_anchor
from engine.model.limits import Limits
from engine.node import Node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node import histories as model

DAY_S = 86_400.0
KEPT = Limits(log_age_s_max=DAY_S, log_age_s_min=60.0)


def records(store: MemoryStore) -> list[Record]:
    with store.snapshot() as snapshot:
        return [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]


def problems(store: MemoryStore) -> list[str]:
    *_, findings = verify(store.snapshot)
    return findings.problems


async def steps(node: Node, history: model.History, count: int) -> None:
    for _ in range(count):
        await history.step(node)


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_too_old_goes_and_the_rest_is_sound_and_can_be_read(
    autojump_clock: MockClock, seed: int
) -> None:
    history = model.History(seed)
    store = MemoryStore()
    async with model.opened(store, model.schema, seed, KEPT) as node:
        await steps(node, history, 20)
        old = list(history.states)
        await trio.sleep(DAY_S / 2)
        await steps(node, history, 20)
        young = history.states[len(old) :]
        await trio.sleep(DAY_S / 2 + 100)

        await node.retention.trim()

        left = records(store)
        assert left[0].ts > old[-1][0]
        assert left[-1].source.path == "_system:trim"
        assert [] == problems(store)
        await model.check(node, history.model)
        for ts, then in (old[-1], *young[::5]):
            await model.check(node, then, ts)
        with pytest.raises(OutOfRetention, match="log_age_s_max"):
            await model.read(node, "count", ts=old[0][0])

    async with model.opened(store.durable_copy(), model.schema, seed + 100, KEPT) as node:
        await steps(node, history, 5)
        await model.check(node, history.model)
        await model.check(node, young[3][1], young[3][0])


async def test_what_is_too_much_goes_and_what_was_written_lately_stays(
    autojump_clock: MockClock,
) -> None:
    history = model.History(1)
    store = MemoryStore()
    limits = Limits(log_bytes_max=5_000, log_age_s_min=60.0)
    async with model.opened(store, model.schema, 1, limits) as node:
        await steps(node, history, 30)
        at_once = await node.retention.trim()
        before = store.size_bytes(Tree.LOG)
        await trio.sleep(61)

        removed = await node.retention.trim()

        assert 0 == at_once
        assert before > 5_000 >= store.size_bytes(Tree.LOG) - 1_000
        assert removed > 10
        assert [] == problems(store)
        await model.check(node, history.model)


async def test_a_reader_of_the_past_has_its_log_while_it_is_trimmed(
    autojump_clock: MockClock,
) -> None:
    history = model.History(2)
    store = MemoryStore()
    async with model.opened(store, model.schema, 2, KEPT) as node:
        await steps(node, history, 10)
        ts, then = history.states[2]
        with store.snapshot() as reader:
            whole = list(reader.range(Tree.LOG, b"", None))
            with node.functions.pin():
                await trio.sleep(2 * DAY_S)
                await node.retention.trim()

            assert whole == list(reader.range(Tree.LOG, b"", None))
            assert BEGINNING == read_anchor(reader)
        assert ts < read_anchor(store.snapshot()).ts
        assert then is not None


async def test_a_trim_that_the_disk_refuses_has_removed_nothing(autojump_clock: MockClock) -> None:
    history = model.History(3)
    store = MemoryStore()
    async with model.opened(store, model.schema, 3, KEPT) as node:
        await steps(node, history, 10)
        await trio.sleep(DAY_S + 10)
        before = records(store)
        store.fail_next(StoreFull("no room"))

        with pytest.raises(RunAgain):
            await node.retention.trim()

        refused = [record.ts for record in records(store)]
        assert [record.ts for record in before] == refused
        assert len(before) == await node.retention.trim()
        assert [] == problems(store)


async def test_an_engine_trims_by_itself(autojump_clock: MockClock) -> None:
    history = model.History(4)
    store = MemoryStore()
    async with model.opened(store, model.schema, 4, KEPT) as node:
        await steps(node, history, 10)

        await trio.sleep(DAY_S + 3_600)

        paths: list[Any] = [record.source.path for record in records(store)]
        assert {"_system:trim"} == set(paths)
        await model.check(node, history.model)


@pytest.mark.parametrize("rows_walked", [0, 5])
async def test_a_check_that_is_under_way_while_records_go_finds_nothing_wrong(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, rows_walked: int
) -> None:
    monkeypatch.setattr(verification, "SLICE_ROWS", 5)
    history = model.History(5)
    store = MemoryStore()
    async with model.opened(store, model.schema, 5, KEPT) as node:
        await steps(node, history, 40)
        check = verify(store.snapshot)
        next(found for found in check if found.rows >= rows_walked)
        await steps(node, history, 20)
        await trio.sleep(DAY_S + 100)
        assert await node.retention.trim() > 50
        await steps(node, history, 10)

        *_, findings = check

    assert [] == findings.problems
    assert findings.rows > 5


async def test_a_clock_that_leaps_makes_no_record_old(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = model.History(6)
    store = MemoryStore()
    async with model.opened(store, model.schema, 6, KEPT) as node:
        await steps(node, history, 10)
        leapt_ns = node.runtime.now_ns() + int(400 * DAY_S * 1e9)
        monkeypatch.setattr(node.runtime, "now_ns", lambda: leapt_ns)

        with trio.fail_after(60):
            assert 0 == await node.retention.trim()


async def test_what_trimming_writes_is_for_the_next_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = model.History(7)
    store = MemoryStore()
    nothing = Limits(log_bytes_max=0, log_age_s_min=0.0)
    async with model.opened(store, model.schema, 7, nothing) as node:
        await steps(node, history, 10)
        clock = itertools.count(node.committer.head.ts + 1, 1_000_000)
        monkeypatch.setattr(node.runtime, "now_ns", lambda: next(clock))

        with trio.fail_after(60):
            assert await node.retention.trim() > 10

        assert ["_system:trim"] == [record.source.path for record in records(store)]


async def test_an_engine_goes_on_although_an_old_record_cannot_be_read(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(_data: bytes) -> Record:
        raise StoreDamaged("a record is not what was written")

    history = model.History(8)
    store = MemoryStore()
    async with model.opened(store, model.schema, 8, KEPT) as node:
        await steps(node, history, 10)
        before = len(records(store))
        monkeypatch.setattr(retention, "decode_record", damaged)

        await trio.sleep(DAY_S + 3_600)

        await steps(node, history, 1)
        await model.check(node, history.model)
        assert before + 1 <= len(records(store))


async def test_large_records_go_a_few_at_a_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SLICE_BYTES", 1)
    history = model.History(9)
    store = MemoryStore()
    async with model.opened(store, model.schema, 9, KEPT) as node:
        await steps(node, history, 10)
        await trio.sleep(DAY_S + 10)
        before = len(records(store))

        removed = await node.retention.trim()

    assert before == removed
    assert before == len(records(store)), "each went in a commit of its own"
    assert [] == problems(store)
