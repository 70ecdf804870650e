"""Histories in which a transaction runs beside a batch on its way to the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registered import RegisteredFunction, loading
from engine.app.registry import Application, functions_of
from engine.errors import Overloaded, StoreFull
from engine.functions.results import Caller, MutationResult
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.store.interface import decode_batch
from engine.store.memory_store import MemoryStore

ADMIN = Caller(admin=True)
YIELDS_AT_EVERY_CALL = replace(Limits(), slice_rows_max=1)


@dataclass
class World:
    """One engine in memory and a place where handlers can reach its parts."""

    node: Node
    store: MemoryStore

    async def mutate(self, function: str, /, **args: Any) -> MutationResult:
        return await self.node.functions.mutation(f"t:{function}", args, caller=ADMIN)

    async def read(self, function: str, /, **args: Any) -> Any:
        result = await self.node.functions.query(f"t:{function}", args, caller=ADMIN)
        result.live.release()
        assert result.failure is None, result.failure
        return result.value

    async def until_staged(self) -> None:
        while self.node.committer.head.ts == self.node.published.value:
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def world(
    *functions: Callable[..., Any],
    limits: Limits = YIELDS_AT_EVERY_CALL,
    store: MemoryStore | None = None,
) -> AsyncIterator[World]:
    store = store or MemoryStore()
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        async with running_node(
            store, runtime=VirtualRuntime(), limits=limits, watchdog=watchdog
        ) as node:
            await node.push(application(*functions))
            yield World(node, store)
    finally:
        watchdog.close()


def application(*functions: Callable[..., Any]) -> Application:
    registered: dict[str, RegisteredFunction] = {}
    given: list[Any] = [get, put, *functions]
    with loading("t"):
        for one in given:
            made = one if isinstance(one, RegisteredFunction) else mutation(one)
            made.module = "t"
            registered[made.handler.__name__] = made
    return Application(functions=functions_of("t", registered), digest="test")


async def _counter(ctx: Any, name: str) -> Any:
    return await ctx.db.query("counters").filter(lambda q: q.eq(q.field("name"), name)).first()


@query
async def get(ctx: QueryCtx, name: str) -> Any:
    doc = await _counter(ctx, name)
    return None if doc is None else doc["value"]


@mutation
async def put(ctx: MutationCtx, name: str, value: float) -> None:
    doc = await _counter(ctx, name)
    if doc is None:
        await ctx.db.insert("counters", {"name": name, "value": value})
    else:
        await ctx.db.patch(doc["_id"], {"value": value})


async def _yield_often(ctx: MutationCtx) -> None:
    for _ in range(30):
        await _counter(ctx, "nobody")


async def test_a_view_keeps_what_is_published_while_the_handler_yields(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """(a): a staged write leaves the overlay only when nobody pinned an older snapshot."""
    release: list[Callable[[], None]] = []

    async def add_ten(ctx: MutationCtx) -> Any:
        release.pop()()
        await _yield_often(ctx)
        doc = await _counter(ctx, "x")
        await ctx.db.patch(doc["_id"], {"value": doc["value"] + 10})
        return doc["value"]

    async with world(add_ten) as w:
        await w.mutate("put", name="x", value=1)
        hold = w.store.hold()
        release.append(hold.release)
        seen: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, w.mutate("put", name="x", value=2), [])
            await w.until_staged()
            nursery.start_soon(_keep, w.mutate("add_ten"), seen)

        assert 2 == seen[0].value
        assert 12 == await w.read("get", name="x")


async def test_what_ran_on_a_refused_batch_runs_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """(b): M read a staged write that never happened; its answer must not show it."""
    runs: list[Any] = []

    async def add_ten(ctx: MutationCtx) -> Any:
        doc = await _counter(ctx, "x")
        runs.append(doc["value"])
        await _yield_often(ctx)
        await ctx.db.patch(doc["_id"], {"value": doc["value"] + 10})
        return doc["value"]

    store = PickyStore()
    async with world(add_ten, store=store) as w:
        await w.mutate("put", name="x", value=1)
        store.refused = b"poison"
        hold = store.hold()
        first: list[Any] = []
        second: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, _poisoned(w), first)
            await w.until_staged()
            nursery.start_soon(_keep, w.mutate("add_ten"), second)
            while not runs:
                await trio.lowlevel.checkpoint()
            hold.release()

        assert isinstance(first[0], StoreFull)
        assert [5, 1] == runs, "the first run saw the poisoned write, the second did not"
        assert 1 == second[0].value
        assert 11 == await w.read("get", name="x")


async def test_an_error_born_of_a_refused_batch_is_not_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """(c): M raised on what it should never have seen."""
    runs: list[Any] = []

    async def distrust(ctx: MutationCtx) -> Any:
        doc = await _counter(ctx, "x")
        runs.append(doc["value"])
        if doc["value"] != 1:
            raise ValueError("nonsense")
        return doc["value"]

    store = PickyStore()
    async with world(distrust, store=store) as w:
        await w.mutate("put", name="x", value=1)
        store.refused = b"poison"
        hold = store.hold()
        answers: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, _poisoned(w), [])
            await w.until_staged()
            nursery.start_soon(_keep, w.mutate("distrust"), answers)
            while not runs:
                await trio.lowlevel.checkpoint()
            assert [] == answers, "an error waits like any other answer"
            hold.release()

        assert [5, 1] == runs
        assert 1 == answers[0].value


async def test_nothing_is_told_of_a_mutation_before_it_is_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Neither that it ran nor what it said: a crash could still undo it."""
    async with world() as w:
        hold = w.store.hold()
        executions = w.node.functions.executions
        before = len(list(executions.after(0)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, w.mutate("put", name="x", value=1), [])
            await w.until_staged()
            await trio.testing.wait_all_tasks_blocked()
            assert before == len(list(executions.after(0)))
            hold.release()

        assert before + 1 == len(list(executions.after(0)))


async def test_one_oversized_transaction_fails_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PickyStore()
    async with world(store=store) as w:
        store.refused = b"poison"
        hold = store.hold()
        answers: dict[str, list[Any]] = {name: [] for name in ("a", "poison", "b", "c")}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, w.mutate("put", name="first", value=0), [])
            await w.until_staged()
            for name, kept in answers.items():
                nursery.start_soon(_keep, w.mutate("put", name=name, value=1), kept)
            await trio.testing.wait_all_tasks_blocked()
            hold.release()

        assert isinstance(answers.pop("poison")[0], StoreFull)
        assert [None] * 3 == [kept[0].failure for kept in answers.values()]
        assert [1, 1, 1] == [await w.read("get", name=name) for name in answers]
        assert await w.read("get", name="poison") is None


async def test_one_that_runs_again_is_not_told_of_a_batch_that_another_one_spoils(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PickyStore()
    answers: list[MutationResult] = []

    async def put(name: str) -> None:
        answers.extend([await w.mutate("put", name=name, value=value) for value in range(20)])

    async def spoil() -> None:
        for _ in range(20):
            with pytest.raises(StoreFull):
                await w.mutate("put", name="poison", value=1)

    async with world(store=store, limits=Limits()) as w:
        store.refused = b"poison"
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(spoil)
            for number in range(20):
                nursery.start_soon(put, f"n{number}")

    assert [None] * 400 == [answer.failure for answer in answers]


async def test_who_runs_alone_is_not_refused_for_what_others_stage_meanwhile(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PickyStore()
    async with world(store=store, limits=replace(Limits(), staged_count_max=2)) as w:
        store.refused = b"poison"
        hold = store.hold()
        answers: dict[str, list[Any]] = {name: [] for name in ("a", "b", "poison")}
        async with trio.open_nursery() as nursery:
            for name, kept in answers.items():
                nursery.start_soon(_keep, w.mutate("put", name=name, value=1), kept)
                await trio.testing.wait_all_tasks_blocked()
            # The first two are to run again, alone; the third has waited for room and goes first.
            store.fail_next(StoreFull("for once"))
            hold.release()

        assert isinstance(answers.pop("poison")[0], StoreFull)
        assert [MutationResult] * 2 == [type(kept[0]) for kept in answers.values()]


async def test_staging_is_bounded_and_says_overloaded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = replace(Limits(), staged_count_max=4, mutation_patience_s=3)
    async with world(limits=limits) as w:
        hold = w.store.hold()
        answers: list[list[Any]] = [[] for _ in range(6)]
        async with trio.open_nursery() as nursery:
            for number, kept in enumerate(answers):
                nursery.start_soon(_keep, w.mutate("put", name=f"n{number}", value=1), kept)
            await trio.sleep(4)
            refused = [kept[0] for kept in answers if kept]
            hold.release()

        assert [Overloaded, Overloaded] == [type(answer) for answer in refused]
        assert 4 == sum(isinstance(kept[0], MutationResult) for kept in answers)


async def test_a_table_born_in_a_staged_write_is_there_for_mutations_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def create(ctx: MutationCtx) -> Any:
        return await ctx.db.insert("fresh", {"name": "one"})

    async def look(ctx: MutationCtx) -> Any:
        return len(await ctx.db.query("fresh").collect())

    async with world(create, look) as w:
        hold = w.store.hold()
        seen: list[Any] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, w.mutate("create"), [])
            await w.until_staged()
            assert w.node.committer.head.catalog.table("", "fresh") is not None
            with w.node.functions.pin():
                assert w.node.table_number("", "fresh") is not None
                current = w.node.functions._snapshots.current.catalog
                assert current.table("", "fresh") is None, "queries see only what is durable"
            nursery.start_soon(_keep, w.mutate("look"), seen)
            await trio.testing.wait_all_tasks_blocked()
            assert [] == seen
            hold.release()

        assert 1 == seen[0].value


async def test_a_refused_batch_takes_its_table_away_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def create(ctx: MutationCtx) -> Any:
        return await ctx.db.insert("fresh", {"name": "poison"})

    store = PickyStore()
    async with world(create, store=store) as w:
        store.refused = b"poison"
        with pytest.raises(StoreFull):
            await w.mutate("create")

        assert w.node.committer.head.catalog.table("", "fresh") is None


async def test_only_what_was_in_the_batch_is_published(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Transactions staged while a batch is written are not published with it."""
    async with world() as w:
        hold = w.store.hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep, w.mutate("put", name="a", value=1), [])
            await w.until_staged()
            await trio.testing.wait_all_tasks_blocked()
            first = w.node.committer.head.ts
            nursery.start_soon(_keep, w.mutate("put", name="b", value=1), [])
            while w.node.committer.head.ts == first:
                await trio.lowlevel.checkpoint()
            follower = w.node.published.follow()
            hold.release()
            assert first == await follower.past(first - 1)


async def test_a_snapshot_is_labelled_with_the_timestamp_it_holds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as w:
        await w.mutate("put", name="a", value=1)
        with w.node.functions.pin() as ts:
            await w.mutate("put", name="a", value=2)
            old = await w.node.functions.query("t:get", {"name": "a"}, caller=ADMIN, ts=ts)
            new = await w.node.functions.query("t:get", {"name": "a"}, caller=ADMIN)

        assert (1, ts) == (old.value, old.ts)
        assert 2 == new.value
        assert new.ts > ts


async def test_the_past_is_read_back_when_nobody_kept_its_snapshot(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world() as w:
        await w.mutate("put", name="a", value=1)
        then = w.node.published.value
        for value in range(2, 6):
            await w.mutate("put", name="a", value=value)
        old = await w.node.functions.query("t:get", {"name": "a"}, caller=ADMIN, ts=then)

        assert (1, then) == (old.value, old.ts)


class PickyStore(MemoryStore):
    """Refuses every batch in which certain bytes occur, as a disk does what does not fit."""

    refused: bytes | None = None

    async def apply(self, batch: bytes) -> None:
        if self.refused is not None and self._in_flight is None and self._has_refused(batch):
            if self._hold is not None:
                await self._hold()
            raise StoreFull("no room for this batch; nothing of it was written")
        await super().apply(batch)

    def _has_refused(self, batch: bytes) -> bool:
        assert self.refused is not None
        for keys, values in decode_batch(batch):
            if any(self.refused in (value or b"") for value in (*keys, *values)):
                return True
        return False


def _poisoned(w: World) -> Coroutine[Any, Any, Any]:
    """Set x to 5 in a transaction that the store refuses: its record holds the word."""
    return w.node.functions.mutation(
        "t:put", {"name": "x", "value": 5}, caller=Caller(admin=True, request_id="poison")
    )


async def _keep(answer: Coroutine[Any, Any, Any], kept: list[Any]) -> None:
    try:
        kept.append(await answer)
    except (StoreFull, Overloaded) as error:
        kept.append(error)
