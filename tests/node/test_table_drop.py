"""Tables that are dropped: hidden at once, removed in slices, and not while the schema has them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import InvalidId, UsageError
from engine.functions import index_upkeep
from engine.indexes.recovery import recover
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.node import Node
from engine.serving import imports
from engine.store.memory_store import MemoryStore
from engine.transaction.transaction import Transaction
from tests.node.nodes import application, ask, ask_at, mutate, serving

ROWS = 25
SLICES = 3


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_upkeep, "DROPPED_ROWS", 10)
    monkeypatch.setattr(index_upkeep, "SLICE_ROWS", 10)


@mutation
async def add(ctx: MutationCtx, count: int) -> list[Any]:
    return [await ctx.db.insert("old", {"n": n}) for n in range(count)]


@mutation
async def put(ctx: MutationCtx, doc: Any) -> None:
    await ctx.db.patch(doc, {"n": -1})


@query
async def numbers(ctx: QueryCtx) -> list[Any]:
    return [doc["n"] for doc in await ctx.db.query("old").collect()]


@query
async def one(ctx: QueryCtx, doc: Any) -> Any:
    return await ctx.db.get(doc)


def app(**tables: Table) -> Application:
    return application(add, put, numbers, one, Schema(**tables))


def tables_of(store: MemoryStore) -> list[tuple[str, bool, int]]:
    """Each with whether it is being dropped, and how many documents it has."""
    with store.snapshot() as snapshot:
        end = recover(snapshot)
    return [
        (table.name, table.is_dropping, end.counts.get(table.number, 0))
        for table in sorted(end.catalog.by_number.values(), key=lambda each: each.number)
        if not table.is_system
    ]


def import_with_id(table: str, doc_id: str, turn: Transaction) -> None:
    imports.place_table(turn, "", table, [imports.read({"_id": doc_id, "n": 1})])


async def until_swept(node: Node) -> None:
    with trio.fail_after(60):
        while any(t.is_dropping for t in node.committer.head.catalog.by_number.values()):
            await node.published.wait_reached(node.published.value + 1)
        await node.published.wait_reached(node.committer.head.ts)


def is_sound(store: MemoryStore) -> bool:
    *_, findings = verify(store.snapshot)
    return findings.problems == []


async def test_a_dropped_table_is_hidden_at_once_and_then_removed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with serving(app(), store=store, runtime=runtime) as node:
        first, *_ = await mutate(node, add, ROWS)
        hold = runtime.hold("table.swept")
        assert list(range(ROWS)) == await ask(node, numbers)  # and kept in the cache

        assert ROWS == await node.drop_table("", "old")

        assert [] == await ask(node, numbers)
        for call, fn in ((ask, one), (mutate, put)):
            with pytest.raises(InvalidId):
                await call(node, fn, first)
        await hold.wait_reached()
        await mutate(node, add, 2)
        assert [("old", True, ROWS - 10), ("old", False, 2)] == tables_of(store)
        assert [0, 1] == await ask(node, numbers)
        assert is_sound(store)
        with pytest.raises(InvalidId, match="'old', which is being dropped"):
            await node.functions.turns.write(partial(import_with_id, "elsewhere", first))
        hold.release()
        await until_swept(node)

        assert [("old", False, 2)] == tables_of(store)
        assert is_sound(store)


async def test_nobody_gets_the_number_of_a_table_that_is_gone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with serving(app(), store=store) as node:
        doc, *_ = await mutate(node, add, 1)
        await node.drop_table("", "old")
        await until_swept(node)

    async with serving(app(), store=store, runtime=VirtualRuntime(2)) as node:
        await mutate(node, add, 1)

        with pytest.raises(InvalidId):
            await ask(node, one, doc)


@pytest.mark.parametrize("skip", range(SLICES))
async def test_a_table_that_was_being_dropped_is_after_a_restart_too(
    skip: int, autojump_clock: trio.testing.MockClock
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with serving(app(old=Table(v.any()).index("by_n", ["n"])), store=store) as node:
        await mutate(node, add, ROWS)
    async with serving(application(numbers), store=store, runtime=runtime) as node:
        hold = runtime.hold("table.swept", skip=skip)
        await node.drop_table("", "old")
        await hold.wait_reached()
        left = store.durable_copy()

    async with serving(app(), store=left, runtime=VirtualRuntime(2)) as node:
        assert [] == await ask(node, numbers)
        await until_swept(node)

    assert [] == tables_of(left)
    assert is_sound(left)


async def test_what_a_push_dropped_of_it_is_swept_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    old = Table(v.any()).index("by_n", ["n"])
    both = app(old=old, other=Table(v.any()).index("by_n", ["n"]))
    async with serving(both, store=store, runtime=runtime) as node:
        await mutate(node, add, ROWS)
        hold = runtime.hold("index.swept")
        await node.push(app(old=old.index("by_m", ["m"])))
        await node.push(app(old=old))
        await hold.wait_reached()
        await node.push(app())
        await node.drop_table("", "old")
        hold.release()
        await until_swept(node)

    assert [("other", False, 0)] == tables_of(store)
    assert is_sound(store)


@pytest.mark.parametrize("past_bytes_max", [1, 1 << 20], ids=["in an annex", "in memory"])
async def test_in_the_past_a_table_is_there_until_it_was_dropped(
    autojump_clock: trio.testing.MockClock, past_bytes_max: int
) -> None:
    runtime, limits = VirtualRuntime(), Limits(past_bytes_max=past_bytes_max)
    async with serving(app(), runtime=runtime, limits=limits) as node:
        first, *_ = await mutate(node, add, ROWS)
        whole_ts = node.published.value
        hold = runtime.hold("table.swept", skip=1)
        await node.drop_table("", "old")
        hidden_ts = node.published.value
        await hold.wait_reached()

        async def look() -> list[Any]:
            return [
                await ask_at(node, whole_ts, numbers),
                (await ask_at(node, whole_ts, one, first))["n"],
                await ask_at(node, hidden_ts, numbers),
            ]

        expected = [list(range(ROWS)), 0, []]
        assert expected == await look()
        hold.release()
        await until_swept(node)
        assert expected == await look()


@pytest.mark.parametrize(
    ("tables", "why"),
    [
        ({"old": Table(v.any())}, "the schema has the table 'old'"),
        ({"new": Table({"at": v.array(v.id("old"))})}, "documents of 'new' have ids of 'old'"),
    ],
)
async def test_a_table_that_the_schema_knows_is_not_dropped(
    tables: dict[str, Table], why: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(app()) as node:
        await mutate(node, add, 3)
        await node.push(app(**tables))

        with pytest.raises(UsageError, match=why):
            await node.drop_table("", "old")
        with pytest.raises(UsageError, match="no table 'odl'"):
            await node.drop_table("", "odl")

        assert [0, 1, 2] == await ask(node, numbers)
