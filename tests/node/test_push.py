"""Pushes: what they leave behind, and what they make of batches that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from engine import Engine
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.crons import Crons
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import IndexNotFound, PushRefused, StoreFull
from engine.functions.index_upkeep import SLICE_ROWS
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import decode_record
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from engine.transaction.transaction import Transaction
from tests.node.nodes import ADMIN, application, ask, mutate, serving

LARGE = 1_000_000
ROWS = 2 * SLICE_ROWS + 100
"""Three slices of a backfill."""

FIELDS = {"n": v.number(), "text": v.string(), "m": v.optional(v.string())}
plain = Table(FIELDS)
indexed = Schema(items=Table(FIELDS).index("by_n", ["n"]))


@mutation
async def fill(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("items", {"n": n % 7, "text": ""})


@mutation
async def put_large(ctx: MutationCtx) -> None:
    await ctx.db.insert("items", {"n": 0, "text": "x" * LARGE})


@mutation
async def mark(ctx: MutationCtx, m: str) -> str:
    return await ctx.db.insert("items", {"n": 0, "text": "", "m": m})


@query
async def count_of(ctx: QueryCtx, n: int) -> int:
    return len(await ctx.db.query("items").with_index("by_n", n=n).collect())


@query
async def look_at(ctx: QueryCtx) -> int:
    return await ctx.db.count("items")


FUNCTIONS: Sequence[Any] = [fill, put_large, count_of]
CRONS = Crons()
CRONS.interval("fill", fill, hours=2, args={"count": 1})
MORE = Table(FIELDS).index("by_n", ["n"])


class PickyStore(MemoryStore):
    """One that refuses batches by their number, counted from `watch`, or for their size."""

    def __init__(self, *numbers: int) -> None:
        super().__init__()
        self._numbers = numbers
        self._seen: int | None = None

    def watch(self) -> None:
        self._seen = 0

    def make_room(self) -> None:
        self._seen = None

    async def apply(self, batch: bytes) -> None:
        if self._seen is not None:
            self._seen += 1
            if self._seen in self._numbers or len(batch) > LARGE:
                raise StoreFull("no room for this one")
        await super().apply(batch)


# One batch each: what is added, three slices, the switch.
@pytest.mark.parametrize("refused", range(1, 6))
async def test_a_push_goes_on_after_a_batch_that_is_refused(
    refused: int, autojump_clock: trio.testing.MockClock
) -> None:
    store = PickyStore(refused)
    async with serving([*FUNCTIONS, Schema(items=plain)], store=store) as node:
        await mutate(node, fill, ROWS)
        store.watch()

        lines = await node.push(application(*FUNCTIONS, indexed))

        assert ["added index items.by_n"] == lines
        assert ROWS // 7 == await ask(node, count_of, 6)
        *_, findings = verify(store.snapshot)
        assert [] == findings.problems


async def test_a_push_without_room_says_so_and_the_next_one_ends_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PickyStore(3, 4)  # a slice, twice
    async with serving([*FUNCTIONS, Schema(items=plain)], store=store) as node:
        await mutate(node, fill, ROWS)
        store.watch()
        with pytest.raises(StoreFull):
            await node.push(application(*FUNCTIONS, indexed))

        await node.push(application(*FUNCTIONS, indexed))

        assert ROWS // 7 == await ask(node, count_of, 6)
        *_, findings = verify(store.snapshot)
        assert [] == findings.problems


async def test_an_engine_that_is_opened_without_room_serves_what_was_deployed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    app = [*FUNCTIONS, indexed]
    store = PickyStore(*range(1, 20))
    async with serving(app, store=store) as node:
        await mutate(node, fill, 7)
    store.watch()

    async with serving(app, store=store, runtime=VirtualRuntime(2)) as node:
        assert 1 == await ask(node, count_of, 6)
        with pytest.raises(StoreFull):
            await mutate(node, fill, 7)
        store.make_room()
        await mutate(node, fill, 7)
        assert 2 == await ask(node, count_of, 6)


@pytest.mark.parametrize("other", [[*FUNCTIONS, mark, indexed], [*FUNCTIONS, Schema(items=plain)]])
async def test_nothing_new_is_deployed_without_room(
    other: list[Any], autojump_clock: trio.testing.MockClock
) -> None:
    store = PickyStore(*range(1, 20))
    async with serving([*FUNCTIONS, indexed], store=store) as node:
        store.watch()

        with pytest.raises(StoreFull):
            await node.push(application(*other))

        assert 0 == await ask(node, count_of, 6)


def pushes(store: MemoryStore) -> int:
    """How many commits pushes have made."""
    with store.snapshot() as snapshot:
        log = [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]
    return sum(record.source.path == "_system:push" for record in log)


async def test_what_is_deployed_already_is_taken_up_without_a_commit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, app = MemoryStore(), application(*FUNCTIONS, indexed)
    async with serving(app, store=store) as node:
        await mutate(node, fill, 7)
    before = pushes(store)

    async with serving(app, store=store, runtime=VirtualRuntime(2)) as node:
        assert 1 == await ask(node, count_of, 6)
        taken_up = pushes(store)
        await node.push(app)  # functions of the same digest: results of the ones before go

    assert (before, before + 1) == (taken_up, pushes(store))


@pytest.mark.parametrize(
    "change", [{"digest": ""}, {"schema": Schema(items=plain)}, {"crons": CRONS}]
)
async def test_what_differs_in_anything_is_pushed(
    change: dict[str, Any], autojump_clock: trio.testing.MockClock
) -> None:
    store, app = MemoryStore(), application(*FUNCTIONS, indexed)
    async with serving(app, store=store):
        before = pushes(store)

    async with serving(replace(app, **change), store=store, runtime=VirtualRuntime(2)):
        assert before < pushes(store)


async def test_who_was_answered_before_anything_was_deployed_is_answered_anew(
    tmp_path: Path,
) -> None:
    app = application(*FUNCTIONS, indexed)
    async with Engine.open(tmp_path, app=app):
        pass

    async with Engine.open(tmp_path, app=None) as engine:
        path = "tests/node/test_push:count_of"
        first = await engine.node.functions.query(path, {"n": 1}, caller=ADMIN)
        head = engine.node.published.value
        await engine.push(app)  # who follows that answer learns that there is another one

        assert first.failure is not None
        assert head < engine.node.published.value
        assert 0 == await engine.query(count_of, n=1)


async def test_who_looks_serves_code_of_now_and_writes_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = MemoryStore()
    async with serving([*FUNCTIONS, indexed], store=store) as node:
        await mutate(node, fill, 7)
    async with serving([*FUNCTIONS, indexed], store=store, runtime=VirtualRuntime(2)) as node:
        head = node.published.value

        await node.take_up(application(*FUNCTIONS, look_at, indexed))
        looked = await ask(node, look_at)
        with pytest.raises(PushRefused, match=r"would have dropped index items.by_n\. .* push"):
            await node.take_up(application(*FUNCTIONS, Schema(items=plain)))
        with pytest.raises(
            PushRefused, match=r"would have added table more, added index more.by_n"
        ):
            await node.take_up(
                application(*FUNCTIONS, Schema(items=indexed.tables["items"], more=MORE))
            )

        assert (7, head) == (looked, node.published.value)


async def test_the_engines_own_transactions_are_not_refused_for_what_others_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store = PickyStore()
    told = 0

    async def ask_too_much() -> None:
        nonlocal told
        for _ in range(20):
            with pytest.raises(StoreFull):
                await mutate(node, put_large)
            told += 1

    def insert(turn: Transaction) -> str:
        return turn.insert("", "items", {"n": 1, "text": "small"})

    async with serving([*FUNCTIONS, indexed], store=store) as node:
        store.watch()
        inserted = 0
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask_too_much)
            while told < 60:
                await node.functions.turns.write(insert)
                inserted += 1

        assert inserted == await ask(node, count_of, 1)


# What is there already.


async def test_a_unique_index_over_two_documents_that_it_forbids_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    unique = Schema(items=Table(v.any()).index("by_n", ["n", "text"], unique=True))
    store = MemoryStore()
    async with serving([*FUNCTIONS, Schema(items=plain)], store=store) as node:
        await mutate(node, fill, 8)

        with pytest.raises(PushRefused, match=r"both have \{'n': 0, 'text': ''\}, which the uniq"):
            await node.push(application(*FUNCTIONS, unique))

        with pytest.raises(IndexNotFound):
            await ask(node, count_of, 0)
        *_, findings = verify(store.snapshot)
        assert [] == findings.problems


async def test_while_a_unique_index_is_filled_the_push_fails_and_not_who_writes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    unique = Schema(items=Table(v.any()).index("by_m", ["m"], unique=True))
    runtime = VirtualRuntime()
    async with serving([*FUNCTIONS, mark, Schema(items=plain)], runtime=runtime) as node:
        first = await mutate(node, mark, "a")
        hold = runtime.hold("committer.persist", skip=1)
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                with pytest.raises(PushRefused, match=r"both have \{'m': 'a'\}"):
                    await node.push(application(*FUNCTIONS, mark, unique))

            nursery.start_soon(push)
            await hold.wait_reached()
            hold.release()
            second = await mutate(node, mark, "a")

        assert first != second


@pytest.mark.parametrize("staged", [False, True])
async def test_a_unique_index_is_had_where_documents_differ_or_lack_the_field(
    staged: bool, autojump_clock: trio.testing.MockClock
) -> None:
    first = Schema(items=Table(v.any()).index("by_m", ["m"], unique=True, staged=staged))
    unique = Schema(items=Table(v.any()).index("by_m", ["m"], unique=True))
    async with serving([*FUNCTIONS, Schema(items=Table(v.any()))]) as node:
        await mutate(node, fill, ROWS)

        await node.push(application(*FUNCTIONS, first))
        await node.push(application(*FUNCTIONS, unique))

        await mutate(node, fill, 1)  # without `m`, as all of them


async def test_each_change_of_the_schema_is_said(autojump_clock: trio.testing.MockClock) -> None:
    def declared(**tables: Table) -> Any:
        return application(*FUNCTIONS, Schema(**tables))

    number, text = {"n": v.number()}, {"n": v.number(), "text": v.optional(v.string())}
    async with serving(declared(items=Table(number))) as node:
        said = [
            await node.push(declared(items=Table(text).index("by_n", ["n"], staged=True))),
            await node.push(declared(items=Table(text).index("by_n", ["n"]))),
            await node.push(declared(others=Table(number))),
        ]

    assert [
        ["added index items.by_n, staged", "changed table items"],
        ["enabled index items.by_n"],
        [
            "added table others",
            "dropped index items.by_n",
            "removed table items from the schema; its documents stay",
        ],
    ] == said
