"""
Of the past, what memory has no room for is taken back into annexes.

The first tests have these in memory and the others on a disk, by the process that makes them.
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine import Engine
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import OutOfRetention, Overloaded, Stopped, StoreFailed, StoreFull
from engine.functions.past_reads import PastReads
from engine.indexes.annexes import FOLDER
from engine.indexes.annexes import _MemoryAnnex as annexes_in_memory
from engine.indexes.catalog import IndexInfo
from engine.indexes.verify import verify
from engine.model.limits import Limits
from engine.node import Node
from engine.store.lmdb_environment import DATA_FILE
from engine.store.lmdb_store import LmdbStore
from engine.store.memory_store import MemoryStore
from engine.transaction import past
from engine.transaction.past import IndexNotLaid
from engine.transaction.view import NOWHERE, View
from tests.node import histories as model
from tests.node.nodes import application, ask, ask_at, mutate, serving

schema = Schema(items=Table({"n": v.number(), "text": v.string()}).index("by_n", ["n"]))
without_index = Schema(items=Table({"n": v.number(), "text": v.string()}))


@mutation
async def put(ctx: MutationCtx, first: int, count: int, text: str = "") -> None:
    for n in range(first, first + count):
        await ctx.db.insert("items", {"n": n, "text": text})


@mutation
async def touch(ctx: MutationCtx, first: int, count: int, text: str) -> None:
    items = ctx.db.query("items").with_index("by_n", lambda r: r.gte("n", first))
    for item in await items.take(count):
        await ctx.db.patch(item["_id"], {"text": text})


@mutation
async def drop(ctx: MutationCtx, first: int, count: int) -> None:
    items = ctx.db.query("items").with_index("by_n", lambda r: r.gte("n", first))
    for item in await items.take(count):
        await ctx.db.delete(item["_id"])


@query
async def numbers(ctx: QueryCtx, order: str = "asc", above: float = -1) -> list[float]:
    items = ctx.db.query("items").with_index("by_n", lambda r: r.gt("n", above))
    return [item["n"] async for item in (items.order("desc") if order == "desc" else items)]


@query
async def first_ones(ctx: QueryCtx, count: int) -> list[float]:
    return [item["n"] for item in await ctx.db.query("items").order("desc").take(count)]


@query
async def texts(ctx: QueryCtx) -> list[str]:
    return sorted({item["text"] for item in await ctx.db.query("items").collect()})


@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.count("items")


APP = [put, touch, drop, numbers, first_ones, texts, count, schema]
NO_MEMORY = Limits(past_bytes_max=1)
HARDLY_ANY = Limits(past_bytes_max=2 * 8 * 3_000)
"""Of a timestamp three kilobytes: a dozen rows."""


@pytest.fixture(params=[NO_MEMORY, HARDLY_ANY], ids=["no memory", "hardly any"])
def limits(request: pytest.FixtureRequest) -> Limits:
    found: Limits = request.param
    return found


@pytest.fixture
def little_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "HIDDEN_AT_ONCE", 3)
    monkeypatch.setattr(past, "LOOK_EVERY", 2)
    monkeypatch.setattr(past, "SLICE_RECORDS", 1)


# In memory.


@pytest.mark.parametrize("seed", range(6))
async def test_every_state_there_ever_was_is_read_back(
    autojump_clock: MockClock, little_at_once: None, limits: Limits, seed: int
) -> None:
    dice = random.Random(seed)
    history = model.History(seed)
    async with model.opened(MemoryStore(), model.schema, seed, limits) as node:
        for _ in range(12):
            await history.step(node)
            for ts, then in dice.sample(history.states, min(2, len(history.states))):
                await model.check(node, then, ts)
        for ts, then in dice.sample(history.states, len(history.states)):
            await model.check(node, then, ts)


async def test_a_row_is_as_it_was_before_it_was_changed_first(
    autojump_clock: MockClock, limits: Limits
) -> None:
    """Also where that is in an annex already, and what it was later comes behind it."""
    async with serving(APP, limits=limits) as node:
        await mutate(node, put, 0, 30, "old")
        ts = node.published.value
        for text in ("new", "newer", "newest"):
            await mutate(node, touch, 0, 20, text)
            assert ["old"] == await ask_at(node, ts, texts)
        await mutate(node, drop, 0, 20)

        assert ["old"] == await ask_at(node, ts, texts)
        assert 30 == await ask_at(node, ts, count)


async def test_a_row_that_came_and_went_since_was_not_there(
    autojump_clock: MockClock, limits: Limits
) -> None:
    async with serving(APP, limits=limits) as node:
        await mutate(node, put, 0, 3)
        ts = node.published.value
        await mutate(node, put, 3, 40)
        assert [0, 1, 2] == await ask_at(node, ts, numbers)
        await mutate(node, drop, 0, 20)

        assert [0, 1, 2] == await ask_at(node, ts, numbers)
        await mutate(node, drop, 0, 100)
        assert [0, 1, 2] == await ask_at(node, ts, numbers)
        assert [2, 1] == await ask_at(node, ts, first_ones, 2)
        assert [] == await ask(node, numbers)


async def test_each_commit_is_a_boundary(autojump_clock: MockClock, limits: Limits) -> None:
    async with serving(APP, limits=limits) as node:
        await mutate(node, put, 0, 1)
        stamps = [node.published.value]
        for n in range(1, 25):
            await mutate(node, put, n, 1)
            stamps.append(node.published.value)
        for n, ts in enumerate(stamps):
            assert list(range(n + 1)) == await ask_at(node, ts, numbers)
            assert list(range(n)) == await ask_at(node, ts - 1, numbers)
            assert n + 1 == await ask_at(node, ts, count)


async def test_timestamps_near_by_share_what_was_taken_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = trace_of(monkeypatch, PastReads, "_take_back")
    async with serving(APP, limits=HARDLY_ANY) as node:
        stamps = []
        for n in range(8):
            await mutate(node, put, n, 1)
            stamps.append(node.published.value)
        await mutate(node, put, 100, 200)
        order = [4, 0, 7, 3, 5]
        answers = [await ask_at(node, stamps[n], numbers) for n in order]
        counts = [await ask_at(node, stamps[n], count) for n in order]

    assert [list(range(n + 1)) for n in order] == answers
    assert [n + 1 for n in order] == counts
    assert 1 == len(begun)


async def test_one_that_is_far_from_all_others_gets_its_own(autojump_clock: MockClock) -> None:
    async with serving(APP, limits=HARDLY_ANY) as node:
        await mutate(node, put, 0, 1)
        first = node.published.value
        await mutate(node, put, 1, 99)
        second = node.published.value
        await mutate(node, put, 100, 100)

        assert [0] == await ask_at(node, first, numbers)
        assert list(range(100)) == await ask_at(node, second, numbers)
        assert [0] == await ask_at(node, first, numbers)
        assert 2 == len(node.functions._past._annexed)


async def test_more_may_ask_at_once_than_timestamps_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = dataclasses.replace(NO_MEMORY, past_count_max=2)
    asked: list[int] = []
    async with serving(APP, limits=limits) as node:
        stamps = []
        for some in range(5):
            await mutate(node, put, 10 * some, 10)
            stamps.append(node.published.value)
        await mutate(node, put, 100, 10)

        async def ask_one(at: int) -> None:
            assert 10 * (at + 1) == len(await ask_at(node, stamps[at], numbers))
            asked.append(at)

        kept, reads = [], node.functions._past
        follow = reads._follow

        async def counted(*args: Any) -> None:
            kept.append(len({*reads._asked.values(), *reads._used}))
            await follow(*args)

        monkeypatch.setattr(reads, "_follow", counted)

        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                for at in range(len(stamps)):
                    nursery.start_soon(ask_one, at)
                    nursery.start_soon(ask_one, at)
        assert not reads._used
        assert 2 == reads._places.value
    assert [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] == sorted(asked)
    assert 2 == max(kept)


async def test_who_waits_for_the_timestamps_of_others_has_a_patience(
    autojump_clock: MockClock,
) -> None:
    limits = dataclasses.replace(NO_MEMORY, past_count_max=2, past_patience_s=5.0)
    async with serving(APP, limits=limits) as node:
        stamps = []
        for n in range(4):
            await mutate(node, put, n, 1)
            stamps.append(node.published.value)
        began = trio.current_time()
        async with then(node, stamps[0]), then(node, stamps[1]):
            with pytest.raises(Overloaded, match=r"past_count_max.* 5 s; nothing was done"):
                await ask_at(node, stamps[2], numbers)
            assert 5 == trio.current_time() - began
            assert [0, 1] == await ask_at(node, stamps[1], numbers)
        assert [0, 1, 2] == await ask_at(node, stamps[2], numbers)


@pytest.mark.parametrize("is_dropped", [False, True])
async def test_who_reads_by_another_timestamp_that_the_log_has_left_reads_his_own(
    is_dropped: bool, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when he began, and what has to be taken back since is there no more."""
    async with serving(APP, limits=HARDLY_ANY) as node:
        await mutate(node, put, 0, 1)
        first = node.published.value
        await mutate(node, put, 1, 1)
        second = node.published.value
        await mutate(node, put, 100, 200)
        assert [0] == await ask_at(node, first, numbers)
        assert [0, 1] == await ask_at(node, second, numbers)
        refuse_in_place_of(monkeypatch, first, "lay_all" if is_dropped else "take_back")
        if is_dropped:
            await node.push(application(*APP[:-1], without_index))
        else:
            await mutate(node, put, 300, 200)

        assert [0, 1] == await ask_at(node, second, numbers)
        assert [second] == [kept.base.ts for kept in node.functions._past._annexed]


def refuse_in_place_of(monkeypatch: pytest.MonkeyPatch, ts: int, verb: str) -> None:
    """As a log does that no longer goes back so far."""
    original = getattr(annexes_in_memory, verb)

    async def refuse(annex: Any, *args: Any) -> None:
        if annex._ts == ts:
            raise OutOfRetention("the log does not go back so far")
        await original(annex, *args)

    monkeypatch.setattr(annexes_in_memory, verb, refuse)


async def test_two_ask_for_one_that_is_far_from_all_others(autojump_clock: MockClock) -> None:
    """One finds that out while the other waits for him."""
    async with serving(APP, limits=HARDLY_ANY) as node:
        await mutate(node, put, 0, 1)
        first = node.published.value
        await mutate(node, put, 1, 99)
        second = node.published.value
        await mutate(node, put, 100, 100)
        assert [0] == await ask_at(node, first, numbers)
        answers: list[Any] = []

        async def reader() -> None:
            answers.append(await ask_at(node, second, numbers))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            nursery.start_soon(reader)

    assert [list(range(100))] * 2 == answers


async def test_who_began_before_others_took_more_back_sees_what_he_saw(
    autojump_clock: MockClock, little_at_once: None
) -> None:
    """What they went through without finding anything, he has to go through himself."""
    async with serving(APP, limits=NO_MEMORY) as node:
        await mutate(node, put, 0, 60)
        ts = node.published.value
        await mutate(node, touch, 0, 1, "new")
        async with then(node, ts) as old:
            before = everything(old, by_n(node))
            for first in range(0, 50, 10):
                await mutate(node, touch, first, 10, "newer")
            async with then(node, ts) as young:
                assert before == everything(young, by_n(node))
                assert before[::-1] == everything(young, by_n(node), reverse=True)
            assert before == everything(old, by_n(node))
            assert before[::-1] == everything(old, by_n(node), reverse=True)
        assert 60 == len(before)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_what_was_gone_through_is_not_gone_through_again(
    autojump_clock: MockClock, order: str
) -> None:
    """A table to which much was added is read from its end as fast as it was then."""
    async with serving(APP, limits=NO_MEMORY) as node:
        await mutate(node, put, 5_000, 5)
        ts = node.published.value
        await mutate(node, put, 0, 5_000)
        await mutate(node, put, 6_000, 5_000)
        async with then(node, ts) as view:
            first = passed(view, by_n(node), reverse=order == "desc")
            assert 5 == len(everything(view, by_n(node), reverse=order == "desc"))
            second = passed(view, by_n(node), reverse=order == "desc")
        assert (5_000 // past.HIDDEN_AT_ONCE) * 2 == first
        assert 0 == second
        assert list(range(5_000, 5_005)) == await ask_at(node, ts, numbers)


async def test_others_have_their_turn_while_a_query_passes_what_was_not_there(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP, limits=Limits(past_bytes_max=1, slice_s_max=0.0)) as node:
        ts = node.published.value
        await mutate(node, put, 0, 8_000)
        await ask_at(node, ts, count)
        turns = 0
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                assert [] == await ask_at(node, ts, first_ones, 1)
                nursery.cancel_scope.cancel()

            nursery.start_soon(reader)
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1
    assert turns > 8_000 // past.HIDDEN_AT_ONCE


# On a disk.


@asynccontextmanager
async def opened(data: Path, limits: Limits = NO_MEMORY) -> AsyncIterator[Engine]:
    async with Engine.open(data, app=APP, limits=limits) as engine:
        yield engine


async def filled(engine: Engine, changed: int = 300) -> int:
    """Put ten, note when, and write over them and more."""
    await engine.mutation(put, 0, 10, "old")
    ts = engine.node.published.value
    await engine.mutation(touch, 0, 5, "new")
    await engine.mutation(drop, 2, 2)
    await engine.mutation(put, 10, changed)
    return ts


def annexes(data: Path) -> list[Path]:
    return sorted((data / FOLDER).glob("*"))


async def test_states_are_read_back_from_files(tmp_path: Path, limits: Limits) -> None:
    async with opened(tmp_path, limits) as engine:
        ts = await filled(engine)
        for _ in range(2):
            then = engine.at(ts)
            assert list(range(10)) == await then.query(numbers)
            assert list(range(9, -1, -1)) == await then.query(numbers, "desc")
            assert ["old"] == await then.query(texts)
            assert 10 == await then.query(count)
            assert [9, 8] == await then.query(first_ones, 2)
            await engine.mutation(drop, 0, 5)
            await engine.mutation(put, 1_000, 300)
        assert 1 == len(annexes(tmp_path))
    assert [] == annexes(tmp_path)


async def test_every_state_there_ever_was_is_read_back_from_files(
    tmp_path: Path, little_at_once: None
) -> None:
    dice = random.Random(1)
    history = model.History(seed := 1)
    with LmdbStore.open(tmp_path, writer="thread", sync=False) as store:
        async with model.opened(store, model.schema, seed, HARDLY_ANY) as node:
            for _ in range(15):
                await history.step(node)
            for ts, then in dice.sample(history.states, 4):
                await model.check(node, then, ts)
            for _ in range(10):
                await history.step(node)
            for ts, then in dice.sample(history.states, 4):
                await model.check(node, then, ts)


async def test_two_who_ask_at_once_are_both_answered(tmp_path: Path) -> None:
    answers: dict[str, Any] = {}
    async with opened(tmp_path) as engine:
        first = await filled(engine)
        await engine.mutation(touch, 0, 100, "later")
        second = engine.node.published.value
        await engine.mutation(drop, 0, 100)

        async def reader(name: str, ts: int, fn: Any) -> None:
            answers[name] = await engine.at(ts).query(fn)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, "first", first, texts)
            nursery.start_soon(reader, "numbers", first, numbers)
            nursery.start_soon(reader, "second", second, texts)

    assert {"first": ["old"], "numbers": list(range(10)), "second": ["", "later"]} == answers


async def test_who_waits_for_the_annex_of_another_has_a_patience(tmp_path: Path) -> None:
    limits = dataclasses.replace(NO_MEMORY, past_patience_s=0.1)
    async with opened(tmp_path, limits) as engine:
        first = await filled(engine)
        second = await filled(engine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks(engine, first))
            child = stop(await a_child())
            with trio.fail_after(20), pytest.raises(Overloaded, match="one timestamp at a time"):
                await engine.at(second).query(count)
            os.kill(child, signal.SIGCONT)
        assert 318 == await engine.at(second).query(count)


async def test_who_gives_up_has_lost_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks(engine, ts))
            child = stop(await a_child())
            nursery.cancel_scope.cancel()
        await ended(child)

        assert list(range(10)) == await engine.at(ts).query(numbers)


async def test_an_engine_closes_while_somebody_takes_back(tmp_path: Path) -> None:
    outcomes: list[BaseException] = []
    async with trio.open_nursery() as nursery, opened(tmp_path) as engine:
        ts = await filled(engine)

        async def reader() -> None:
            with pytest.raises(Stopped) as caught:
                await engine.at(ts).query(numbers)
            outcomes.append(caught.value)

        nursery.start_soon(reader)
        child = await a_child()
        os.kill(child, signal.SIGSTOP)
    await ended(child)

    assert "closed" in str(outcomes[0])
    assert [] == annexes(tmp_path)
    async with opened(tmp_path) as engine:
        assert list(range(10)) == await engine.at(ts).query(numbers)


async def test_the_log_is_trimmed_while_somebody_takes_back(tmp_path: Path) -> None:
    limits = Limits(past_bytes_max=1, log_bytes_max=1, log_age_s_min=0.0)
    async with opened(tmp_path, limits) as engine:
        ts = await filled(engine)
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                with pytest.raises(OutOfRetention, match="further back than the log is kept"):
                    await engine.at(ts).query(numbers)

            nursery.start_soon(reader)
            child = stop(await a_child())
            await engine.node.retention.trim()
            os.kill(child, signal.SIGCONT)

        assert [] == annexes(tmp_path)
        now = engine.node.published.value
        await engine.mutation(drop, 0, 400)
        assert 308 == await engine.at(now).query(count)


async def test_a_full_disk_refuses_the_past_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        with files_of_at_most(64 << 10), pytest.raises(StoreFull, match=r"Make room.*newer ts"):
            await engine.at(ts).query(numbers)

        assert [] == annexes(tmp_path)
        await engine.mutation(put, 2_000, 1)
        assert list(range(10)) == await engine.at(ts).query(numbers)


@pytest.mark.parametrize("obstacle", ["a file", "a link to nowhere"])
async def test_what_is_in_the_way_of_the_past_is_told_and_left_alone(
    tmp_path: Path, obstacle: str
) -> None:
    place = tmp_path / FOLDER
    if obstacle == "a file":
        place.write_text("somebody's")
    else:
        place.symlink_to(tmp_path / "nowhere")
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        with pytest.raises(StoreFailed, match=f"{place} has to be a folder, or a link to one"):
            await engine.at(ts).query(numbers)
        assert 308 == await engine.query(count)
        aside = place.rename(tmp_path / "aside")

        assert list(range(10)) == await engine.at(ts).query(numbers)
    assert aside.is_file() or aside.is_symlink()


async def test_a_process_that_was_killed_is_told_and_the_next_one_goes_on(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                with pytest.raises(StoreFailed, match=r"exit code -9.*ask again"):
                    await engine.at(ts).query(numbers)

            nursery.start_soon(reader)
            os.kill(await a_child(), signal.SIGKILL)
        assert list(range(10)) == await engine.at(ts).query(numbers)


async def test_whatever_becomes_of_who_lays_an_index_that_is_no_more_the_next_one_does(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        await engine.node.push(application(*APP[:-1], without_index))
        assert 10 == await engine.at(ts).query(count)

        async def reader() -> None:
            with pytest.raises(StoreFailed, match=r"exit code -9.*ask again"):
                await engine.at(ts).query(numbers)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            os.kill(await a_child(), signal.SIGKILL)
        assert [] == annexes(tmp_path)
        assert 10 == await engine.at(ts).query(count)
        size = annexes(tmp_path)[0].joinpath(DATA_FILE).stat().st_size
        await engine.mutation(put, 2_000, 1_000)
        with files_of_at_most(size), pytest.raises(StoreFull, match=r"Make room.*newer ts"):
            await engine.at(ts).query(numbers)

        assert list(range(10)) == await engine.at(ts).query(numbers)
        assert list(range(9, -1, -1)) == await engine.at(ts).query(numbers, "desc")


async def test_what_is_sent_to_all_processes_is_for_the_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                answers.append(await engine.at(ts).query(numbers))

            nursery.start_soon(reader)
            child = stop(await a_child())
            # Whoever began all this may ignore some of them already.
            while ignored(child) & TOLD_TO_ALL != TOLD_TO_ALL:
                os.kill(child, signal.SIGCONT)
                await trio.sleep(0.002)
                assert is_running(stop(child)), "it ended before it ignored anything"
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
                os.kill(child, number)
    assert [list(range(10))] == answers


async def test_so_much_disk_is_taken_and_idle_ones_go_first(tmp_path: Path) -> None:
    limits = Limits(past_bytes_max=1, past_disk_bytes_max=300_000)
    async with opened(tmp_path, limits) as engine:
        await engine.mutation(put, 0, 1)
        first = engine.node.published.value
        await engine.mutation(put, 1, 1_000, "x" * 100)
        second = engine.node.published.value
        await engine.mutation(touch, 0, 2_000, "y" * 100)

        for _ in range(2):
            assert 1 == await engine.at(first).query(count)
            assert 1_001 == await engine.at(second).query(count)
            assert 1 == len(annexes(tmp_path))
        await engine.mutation(put, 5_000, 2_000)
        await engine.mutation(touch, 0, 3_500, "z" * 200)
        third = engine.node.published.value
        await engine.mutation(drop, 0, 4_000)
        with pytest.raises(OutOfRetention, match=r"300,000 bytes on the disk.*newer ts"):
            await engine.at(third).query(count)
        assert [] == annexes(tmp_path)


async def test_what_could_not_be_removed_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    async with opened(tmp_path) as engine:
        first = await filled(engine)
        second = await filled(engine)
        assert list(range(10)) == await engine.at(first).query(numbers)
        then = sorted(await engine.at(second).query(numbers))
    assert annexes(tmp_path)
    async with opened(tmp_path) as engine:
        assert then == sorted(await engine.at(second).query(numbers))
        assert list(range(10)) == await engine.at(first).query(numbers)


async def test_what_a_killed_engine_leaves_is_removed_by_the_next(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
    with running(take_back_and_stay, tmp_path, ts) as (process, told):
        assert "there" == await trio.to_thread.run_sync(told)
        process.kill()
    assert 1 == len(annexes(tmp_path))

    with LmdbStore.open(tmp_path) as store:
        *_, findings = verify(store.snapshot)
        assert [] == findings.problems
    async with opened(tmp_path) as engine:
        assert [] == annexes(tmp_path)
        assert list(range(10)) == await engine.at(ts).query(numbers)


async def test_a_process_ends_with_its_engine(tmp_path: Path) -> None:
    async with opened(tmp_path) as engine:
        ts = await filled(engine)
    with running(stop_who_takes_back_and_stay, tmp_path, ts) as (process, told):
        child = int(await trio.to_thread.run_sync(told))
        process.kill()
    os.kill(child, signal.SIGCONT)

    await ended(child)


# Within.


def trace_of(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """The arguments of each call of a method."""
    calls: list[Any] = []
    whole = getattr(owner, name)

    async def traced(*args: Any) -> Any:
        calls.append(args)
        return await whole(*args)

    monkeypatch.setattr(owner, name, traced)
    return calls


def by_n(node: Node) -> IndexInfo:
    table = node.committer.head.catalog.table("", "items")
    assert table is not None
    return table.indexes["by_n"]


@asynccontextmanager
async def then(node: Node, ts: int) -> AsyncIterator[View]:
    """A view of the past, whose index can be read."""
    reads, lease = node.functions._past, node.functions._snapshots.acquire
    async with reads.view(ts, lease) as view:
        try:
            view.prepare(by_n(node))
        except IndexNotLaid as missing:
            async with reads.laid(ts, missing.index):
                pass
    async with reads.view(ts, lease) as view:
        yield view


def everything(view: View, index: IndexInfo, *, reverse: bool = False) -> list[bytes | None]:
    while not view.prepare(index):
        pass
    entries = view.entries(index, b"", None, reverse=reverse)
    return [view.row(row) for _, row in entries if row != NOWHERE]


def passed(view: View, index: IndexInfo, *, reverse: bool) -> int:
    """How often others had their turn while nothing was found."""
    while not view.prepare(index):
        pass
    return sum(row == NOWHERE for _, row in view.entries(index, b"", None, reverse=reverse))


def asks(engine: Engine, ts: int) -> Any:
    return partial(engine.at(ts).query, numbers)


async def take_back_and_stay(data: Path, ts: int) -> None:
    async with opened(data) as engine:
        await engine.at(ts).query(numbers)
        tell("there")
        await trio.sleep_forever()


async def stop_who_takes_back_and_stay(data: Path, ts: int) -> None:
    async with opened(data) as engine, trio.open_nursery() as nursery:
        nursery.start_soon(asks(engine, ts))
        tell(stop(await a_child()))
        await trio.sleep_forever()


def tell(what: object) -> None:
    sys.stdout.write(f"told: {what}\n")
    sys.stdout.flush()


@contextmanager
def running(
    act: Callable[[Path, int], Awaitable[None]], data: Path, ts: int
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """A process that does this, and what waits for what it tells."""
    script = (
        "import pathlib, sys, trio\n"
        f"from {__name__} import {act.__name__} as act\n"
        "trio.run(act, pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(data), str(ts)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout
        yield process, lambda: next(x for x in output if x.startswith("told: "))[6:].strip()


def children() -> set[int]:
    """Processes of this one that take back."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            if b"past_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(int(pid))
    return found


async def a_child() -> int:
    while True:
        for pid in children():
            return pid
        await trio.sleep(0.001)


def stop(pid: int) -> int:
    os.kill(pid, signal.SIGSTOP)
    return pid


async def ended(pid: int) -> None:
    """Wait until a process is no more."""
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, "it goes on"
        await trio.sleep(0.01)


TOLD_TO_ALL = sum(1 << (one - 1) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


def ignored(pid: int) -> int:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("SigIgn:")[1].split()[0], 16)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Processes that are begun inside can write no larger ones."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
