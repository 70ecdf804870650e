"""Indexes that are filled and swept: cut off anywhere, staged, and wanted no more."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count, pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import IndexNotFound, PushRefused, StoreFull
from engine.functions import index_upkeep
from engine.indexes.catalog import IndexState
from engine.indexes.recovery import recover
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import Record, decode_record
from engine.model.commits import Kind
from engine.model.limits import Limits
from engine.node import Node
from engine.serving.administration import Administration
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node.nodes import application, ask, mutate, serving

ROWS = 25
SLICES = 3
"""Of ten rows each, as these tests have it."""


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_upkeep, "SLICE_ROWS", 10)


@mutation
async def fill(ctx: MutationCtx, count: int) -> list[Any]:
    return [await ctx.db.insert("items", {"n": n}) for n in range(count)]


@mutation
async def put(ctx: MutationCtx, item: Any, n: Any) -> None:
    await ctx.db.patch(item, {"n": n})


@mutation
async def empty(ctx: MutationCtx) -> None:
    for item in await ctx.db.query("items").collect():
        await ctx.db.delete(item["_id"])


@query
async def numbers(ctx: QueryCtx) -> list[Any]:
    return [item["n"] for item in await ctx.db.query("items").with_index("by_n").collect()]


def app(table: Table | None = None, **others: Table) -> Application:
    """The functions above, and a schema with this table of items."""
    tables = {"items": table or Table(v.any()), **others}
    return application(fill, put, empty, numbers, Schema.of(tables))


def indexed(*, staged: bool = False, unique: bool = False) -> Table:
    return Table(v.any()).index("by_n", ["n"], staged=staged, unique=unique)


@asynccontextmanager
async def filled(
    store: MemoryStore, runtime: VirtualRuntime | None = None
) -> AsyncIterator[tuple[Node, list[Any]]]:
    """A node with items that no index is over, and their ids by their numbers."""
    async with serving(app(), store=store, runtime=runtime) as node:
        yield node, await mutate(node, fill, ROWS)


async def store_cut_off(pushed: Application, *, point: str, skip: int) -> MemoryStore:
    """What is left of a push that a crash cut off at a pause point."""
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _), trio.open_nursery() as nursery:
        hold = runtime.hold(point, skip=skip)
        nursery.start_soon(node.push, pushed)
        await hold.wait_reached()
        left = store.durable_copy()
        nursery.cancel_scope.cancel()
    return left


def records(store: MemoryStore, kind: Kind) -> list[Record]:
    with store.snapshot() as snapshot:
        found = [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]
    return [record for record in found if record.kind is kind]


def states(store: MemoryStore) -> dict[str, str]:
    """The indexes that were declared, by `table.name`, and the tables."""
    with store.snapshot() as snapshot:
        catalog = recover(snapshot).catalog
    found = {t.name: "table" for t in catalog.by_number.values() if not t.is_system}
    for table in catalog.by_number.values():
        for index in table.indexes.values():
            if index.row is not None:
                found[f"{table.name}.{index.name}"] = index.state.value
    return found


def is_sound(store: MemoryStore) -> bool:
    """Whether each index has the entries of the documents, and there are no others."""
    *_, findings = verify(store.snapshot)
    return findings.problems == []


async def until_none(node: Node, state: IndexState) -> None:
    """Until no index is in this state, durably."""
    with trio.fail_after(60):
        while node.upkeep.indexes(state):
            await node.published.wait_reached(node.published.value + 1)
        await node.published.wait_reached(node.committer.head.ts)


# Cut off.


@pytest.mark.parametrize("skip", range(SLICES))
async def test_a_backfill_goes_on_after_the_last_slice_that_is_durable(
    skip: int, autojump_clock: trio.testing.MockClock
) -> None:
    left = await store_cut_off(app(indexed()), point="index.filled", skip=skip)
    assert skip + 1 == len(records(left, Kind.BACKFILL))

    async with serving(app(indexed()), store=left, runtime=VirtualRuntime(2)) as node:
        assert list(range(ROWS)) == await ask(node, numbers)

    covered = [record.covered[1:] for record in records(left, Kind.BACKFILL)]
    assert SLICES == len(covered)
    assert all(upto < after for (_, upto), (after, _) in pairwise(covered))
    assert is_sound(left)


async def test_what_is_written_before_a_backfill_goes_on_is_in_the_index(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left = await store_cut_off(app(indexed()), point="index.filled", skip=0)
    async with serving(app(indexed()), store=left, runtime=VirtualRuntime(2)) as node:
        first, last = await mutate(node, fill, 2)
        await mutate(node, put, first, -1)
        await mutate(node, put, last, 99)

        assert [-1, *range(ROWS), 99] == await ask(node, numbers)
    assert is_sound(left)


@pytest.mark.parametrize("point", ["index.filled", "push.checked", "push.switch"])
async def test_of_a_push_that_was_cut_off_another_one_leaves_nothing(
    point: str, autojump_clock: trio.testing.MockClock
) -> None:
    numbered = Table({"n": v.number()}).index("by_n", ["n"], unique=True)
    pushed = app(numbered, others=Table({"n": v.number()}).index("by_n", ["n"]))
    left = await store_cut_off(pushed, point=point, skip=0)
    assert {
        "items": "table",
        "others": "table",
        "items.by_n": "backfilling",
        "others.by_n": "backfilling",
    } == states(left)
    filled_before = len(records(left, Kind.BACKFILL))

    async with serving(app(), store=left, runtime=VirtualRuntime(2)) as node:
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(left)
    assert filled_before == len(records(left, Kind.BACKFILL))
    assert is_sound(left)


async def test_an_application_without_a_schema_takes_back_what_was_prepared(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left = await store_cut_off(app(indexed()), point="index.filled", skip=0)

    async with serving([numbers], store=left, runtime=VirtualRuntime(2)) as node:
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(left)
    assert is_sound(left)


async def test_a_table_that_was_prepared_and_has_documents_stays(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    with_items = app(indexed())
    async with serving([fill, numbers], store=store, runtime=runtime) as node:
        hold = runtime.hold("push.checked")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.push, with_items)
            await hold.wait_reached()
            await mutate(node, fill, 1)
            runtime.points.clear()
            nursery.cancel_scope.cancel()

        await node.push(application(fill, numbers))

        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(store)
    assert is_sound(store)


@pytest.mark.parametrize("skip", range(SLICES))
async def test_a_sweep_goes_on_where_it_was_cut_off(
    skip: int, autojump_clock: trio.testing.MockClock
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        await node.push(app(indexed()))
        hold = runtime.hold("index.swept", skip=skip)
        await node.push(app())
        await hold.wait_reached()
        left = store.durable_copy()
    assert "dropping" == states(left)["items.by_n"]

    async with serving(app(), store=left, runtime=VirtualRuntime(2)) as node:
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(left)
    assert SLICES == len(records(left, Kind.DROP))
    assert is_sound(left)


async def test_a_push_does_not_wait_until_a_dropped_index_is_swept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, ids):
        await node.push(app(indexed()))
        hold = runtime.hold("index.swept")

        assert ["dropped index items.by_n"] == await node.push(app())
        await hold.wait_reached()
        await mutate(node, put, ids[0], 7)
        assert ["added index items.by_n"] == await node.push(app(indexed()))
        assert sorted([7, *range(1, ROWS)]) == await ask(node, numbers)

        hold.release()
        await until_none(node, IndexState.DROPPING)
    assert {"items": "table", "items.by_n": "enabled"} == states(store)
    assert is_sound(store)


# Staged.


async def test_a_staged_index_is_built_behind_the_push_and_then_there_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")

        assert ["added index items.by_n, staged"] == await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        with pytest.raises(IndexNotFound, match=r"'by_n' of 'items' is staged.* staged=True"):
            await ask(node, numbers)
        hold.release()
        await until_none(node, IndexState.STAGING)
        with pytest.raises(IndexNotFound, match="is staged"):
            await ask(node, numbers)
        slices = len(records(store, Kind.BACKFILL))

        assert ["enabled index items.by_n"] == await node.push(app(indexed()))

        assert list(range(ROWS)) == await ask(node, numbers)
        assert SLICES == slices == len(records(store, Kind.BACKFILL))
    assert is_sound(store)


async def test_who_wants_a_staged_index_that_is_not_complete_waits_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    told: list[tuple[str, int, int | None]] = []
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                await node.push(app(indexed()), progress=lambda *what: told.append(what))
                assert list(range(ROWS)) == await ask(node, numbers)

            nursery.start_soon(push)
            await trio.sleep(1)
            assert {"items": "table", "items.by_n": "staging"} == states(store)
            hold.release()

        assert SLICES == len(records(store, Kind.BACKFILL))
    assert {("index items.by_n", ROWS)} == {(what, total) for what, _, total in told}
    assert is_sound(store)


async def test_a_staged_index_is_filled_on_after_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        left = store.durable_copy()

    async with serving(app(indexed(staged=True)), store=left, runtime=VirtualRuntime(2)) as node:
        await until_none(node, IndexState.STAGING)

    assert SLICES == len(records(left, Kind.BACKFILL))
    assert "staged" == states(left)["items.by_n"]
    assert is_sound(left)


async def test_an_index_is_staged_in_its_place_and_enabled_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with filled(store) as (node, ids):
        await node.push(app(indexed()))
        built = len(records(store, Kind.BACKFILL))

        said = await node.push(app(indexed(staged=True)))
        with pytest.raises(IndexNotFound, match="is staged"):
            await ask(node, numbers)
        await mutate(node, put, ids[0], 99)
        said += await node.push(app(indexed()))

        assert 99 == (await ask(node, numbers))[-1]
    assert ["staged index items.by_n", "enabled index items.by_n"] == said
    assert built == len(records(store, Kind.BACKFILL))


@pytest.mark.parametrize("is_complete", [True, False])
async def test_a_push_that_is_refused_leaves_a_staged_index_as_it_was(
    is_complete: bool, autojump_clock: trio.testing.MockClock
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    texts = Table({"n": v.string()}).index("by_n", ["n"])
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        if is_complete:
            hold.release()
            await until_none(node, IndexState.STAGING)
        else:
            runtime.points.clear()

        with pytest.raises(PushRefused):
            await node.push(app(texts))

        assert "staged" == states(store)["items.by_n"]
        hold.release()
    assert SLICES == len(records(store, Kind.BACKFILL))
    assert is_sound(store)


async def test_a_staged_index_may_be_given_up_before_it_is_complete(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()

        await node.push(app())
        hold.release()
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(store)
    assert 1 == len(records(store, Kind.BACKFILL))
    assert is_sound(store)


async def test_what_the_disk_has_no_room_for_is_tried_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        for _ in range(2):
            store.fail_next(StoreFull("no room"))
            hold.release()
            await trio.sleep(1)

        await until_none(node, IndexState.STAGING)

    assert SLICES == len(records(store, Kind.BACKFILL))


async def test_two_documents_that_a_unique_index_forbids_are_told_when_it_is_wanted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with filled(store) as (node, ids):
        await mutate(node, put, ids[0], 7)

        await node.push(app(indexed(staged=True, unique=True)))
        await until_none(node, IndexState.STAGING)
        with pytest.raises(PushRefused, match=r"both have \{'n': 7\}"):
            await node.push(app(indexed(unique=True)))
        await mutate(node, put, ids[0], 0)
        await node.push(app(indexed(unique=True)))

        assert list(range(ROWS)) == await ask(node, numbers)


# Whoever else is there.


async def test_a_backfill_ends_however_fast_others_insert(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        inserted = 0

        async def insert_more() -> None:
            nonlocal inserted
            await trio.sleep(1)  # ids begin with the time, so these come after all that was there
            inserted += len(await mutate(node, fill, 20))

        runtime.points["index.filled"] = insert_more
        with trio.fail_after(60):
            await node.push(app(indexed()))

        assert ROWS + inserted == len(await ask(node, numbers))
    assert SLICES == len(records(store, Kind.BACKFILL))
    assert is_sound(store)


async def test_a_slice_ends_when_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    store = MemoryStore()
    async with filled(store) as (node, _):
        ticks = count(step=0.001)  # a millisecond a look
        late = SimpleNamespace(monotonic=lambda: next(ticks), pause=node.runtime.pause)
        monkeypatch.setattr(node.upkeep, "_runtime", late)

        await node.push(app(indexed()))

        assert list(range(ROWS)) == await ask(node, numbers)
    rows = node.limits.slice_s_max / 2 / 0.001 + 1
    assert ROWS / rows <= len(records(store, Kind.BACKFILL)) <= ROWS


async def test_what_the_disk_had_no_room_for_is_taken_back_when_another_application_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, ids):

        async def fill_the_disk() -> None:
            store._data_bytes_max = store.size_bytes()

        runtime.points["index.filled"] = fill_the_disk
        with pytest.raises(StoreFull):
            await node.push(app(indexed(), others=Table(v.any())))
        assert "backfilling" == states(store)["items.by_n"]
        runtime.points.clear()
        store._data_bytes_max = 1 << 40

        await mutate(node, put, ids[0], 99)
        assert [] == await node.push(app())
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(store)
    assert is_sound(store)


@pytest.mark.parametrize("point", ["index.filled", "push.checked", "push.switch"])
async def test_a_push_that_is_given_up_changes_nothing_and_another_one_takes_it_back(
    point: str, autojump_clock: trio.testing.MockClock
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    stricter = Table({"n": v.number()}).index("by_n", ["n"], unique=True)
    async with filled(store, runtime) as (node, ids):
        before = node.functions.deployment
        hold = runtime.hold(point)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.push, app(stricter))
            await hold.wait_reached()
            runtime.points.clear()
            nursery.cancel_scope.cancel()

        assert before is node.functions.deployment
        await mutate(node, put, ids[0], "no number")
        await mutate(node, put, ids[1], "no number")
        with pytest.raises(IndexNotFound):
            await ask(node, numbers)
        assert [] == await node.push(app())
        await until_none(node, IndexState.DROPPING)

    assert {"items": "table"} == states(store)
    assert is_sound(store)


async def test_how_far_a_staged_index_is_can_be_seen(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with filled(store, runtime) as (node, _):
        administration = Administration(node, cast(Any, None), allow_shell=False)
        hold = runtime.hold("index.filled")
        await node.push(app(indexed(staged=True)))
        await hold.wait_reached()
        shown = [administration.tables()[0]["indexes"]]
        hold.release()
        await until_none(node, IndexState.STAGING)
        shown += [administration.tables()[0]["indexes"]]

    assert [
        ["by_n (n, _creationTime) staging, 10 filled"],
        ["by_n (n, _creationTime) staged"],
    ] == shown


# By seed.

POINTS = ("index.filled", "index.swept", "push.checked", "push.switch", "committer.persist")
VARIANTS: list[tuple[Application, dict[str, str]]] = [
    (app(), {"items": "table"}),
    (app(indexed()), {"items": "table", "items.by_n": "enabled"}),
    (app(indexed(staged=True)), {"items": "table", "items.by_n": "staged"}),
    (
        app(Table(v.any()).index("by_n", ["m", "n"]).index("by_m", ["m"], staged=True)),
        {"items": "table", "items.by_n": "enabled", "items.by_m": "staged"},
    ),
    (app(Table(v.any()).index("by_m", ["m"])), {"items": "table", "items.by_m": "enabled"}),
]


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_is_pushed_and_cut_off_indexes_are_those_of_the_last_push(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    dice = random.Random(seed)
    store = MemoryStore()
    async with serving(app(), store=store) as node:
        await mutate(node, fill, ROWS)
    for life in range(6):
        store = await life_that_is_cut_off(store, dice, VirtualRuntime(life))

    last, expected = dice.choice(VARIANTS)
    async with serving(last, store=store, runtime=VirtualRuntime(seed)) as node:
        await until_none(node, IndexState.DROPPING)
        await until_none(node, IndexState.STAGING)

    assert expected == states(store)
    assert is_sound(store)


async def life_that_is_cut_off(
    store: MemoryStore, dice: random.Random, runtime: VirtualRuntime
) -> MemoryStore:
    """Pushes amid writes until a crash, somewhere; returns what that leaves."""
    async with serving(app(), store=store, runtime=runtime) as node, trio.open_nursery() as nursery:

        async def write() -> None:
            while True:
                (item,) = await mutate(node, fill, 1)
                await mutate(node, put, item, dice.randrange(5))
                await trio.sleep(dice.random() / 1000)

        async def push() -> None:
            while True:
                await node.push(dice.choice(VARIANTS)[0])

        hold = runtime.hold(dice.choice(POINTS), skip=dice.randrange(8))
        nursery.start_soon(write)
        nursery.start_soon(push)
        with trio.move_on_after(1):
            await hold.wait_reached()
        left = store.durable_copy(in_flight=dice.random() < 0.5)
        nursery.cancel_scope.cancel()
        hold.release()
    return left


# Rebuilt.


async def test_whoever_waits_for_an_index_waits_for_the_one_that_is_built_in_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runtime = VirtualRuntime()
    searched = app(Table(v.any()).search_index("by_text", search_field="text"))
    async with serving(app(), runtime=runtime) as node:
        await mutate(node, fill, 100)
        hold = runtime.hold("index.walked")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.push, searched)
                await hold.wait_reached()
                (status,) = node.keeper.statuses()
                for _ in range(3):
                    nursery.start_soon(node.keeper.rebuild, status.index_id)
                    await trio.lowlevel.checkpoint()
                hold.release()

        (status,) = node.keeper.statuses()
        assert (True, "enabled") == (status.answers, status.state)


async def test_an_index_answers_until_the_one_that_is_built_in_its_place_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def count(ctx: QueryCtx) -> int:
        found = ctx.db.query("items").with_search_index("by_text", lambda s: s.search("text", "a"))
        return len(await found.take(1))

    @mutation
    async def say(ctx: MutationCtx, text: str) -> None:
        await ctx.db.insert("items", {"text": text})

    runtime = VirtualRuntime()
    searched = Table(v.any()).search_index("by_text", search_field="text")
    app = application(count, fill, say, Schema(items=searched))
    async with serving(app, runtime=runtime, limits=Limits(documents_read_max=150)) as node:
        for _ in range(2):
            await mutate(node, fill, 100)
        (status,) = node.keeper.statuses()
        hold = runtime.hold("index.walked")
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(2):
                    nursery.start_soon(node.keeper.rebuild, status.index_id)
                    await hold.wait_reached()
                assert ["items.by_text"] == node.keeper.building
                before = await ask(node, count)
                await mutate(node, say, "a")
                meanwhile = await ask(node, count)
                hold.release()

        assert [0, 1, 1] == [before, meanwhile, await ask(node, count)]
        assert [] == node.keeper.building


async def test_an_index_that_is_being_swept_is_not_among_those_that_there_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        found = ctx.db.query("items").with_search_index("by_text", lambda s: s.search("text", "a"))
        return await found.collect()

    runtime = VirtualRuntime()
    searched = indexed().search_index("by_text", search_field="text")
    async with serving(application(fill, look, Schema(items=searched)), runtime=runtime) as node:
        await mutate(node, fill, 1)
        hold = runtime.hold("index.swept")
        await node.push(application(fill, look, Schema(items=Table(v.any()))))
        with trio.fail_after(60):
            await hold.wait_reached()
        with pytest.raises(IndexNotFound, match="no search index 'by_text'; it has none"):
            await ask(node, look)
        hold.release()
