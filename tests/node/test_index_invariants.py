"""What must hold of indexes and of pages through them, however they came to be what they are."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import IndexNotFound
from engine.functions import index_upkeep
from engine.functions.results import QueryResult
from engine.indexes.catalog import IndexInfo, IndexState
from engine.indexes.entries import entry_key
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.model.values import UNDEFINED, Value, compare
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, application, ask, mutate, serving
from tests.unit.model.canonical import MAYBE_VALUE

MODULE = __name__.replace(".", "/")


@mutation
async def change(ctx: MutationCtx, moves: list[Any]) -> None:
    """Of each move: what stands at the first number goes to the second; null is nowhere."""
    for old, new in moves:
        doc = await _at(ctx, old) if old is not None else None
        if doc is None:
            await ctx.db.insert("items", {"n": new})
        elif new is None:
            await ctx.db.delete(doc["_id"])
        else:
            await ctx.db.patch(doc["_id"], {"n": new})


async def _at(ctx: QueryCtx, n: float) -> Any:
    return await ctx.db.query("items").filter(lambda q: q.field("n") == n).first()


@query
async def by_n(ctx: QueryCtx) -> list[float]:
    return [doc["n"] for doc in await ctx.db.query("items").with_index("by_n").collect()]


@query
async def by_hand(ctx: QueryCtx) -> list[float]:
    return sorted([doc["n"] for doc in await ctx.db.query("items").collect()])


@query
async def in_order(ctx: QueryCtx) -> list[Any]:
    """What the index shows, with all that decides its order."""
    docs = await ctx.db.query("items").with_index("by_n").collect()
    return [[doc["n"], doc["_creationTime"], doc["_id"]] for doc in docs]


@query
async def in_no_order(ctx: QueryCtx) -> list[Any]:
    docs = await ctx.db.query("items").with_index("by_id").collect()
    return [[doc["n"], doc["_creationTime"], doc["_id"]] for doc in docs]


@query
async def page(ctx: QueryCtx, opts: Any, order: str = "asc", even: bool = False) -> Any:
    items: Any = ctx.db.query("items").with_index("by_n")
    items = items.order("desc") if order == "desc" else items
    items = items.filter(lambda q: q.eq(q.mod(q.field("n"), 2), 0)) if even else items
    return await items.paginate(opts)


def app(index: str | None = None) -> Application:
    items = Table(v.object({"n": v.number()}))
    if index is not None:
        items = items.index("by_n", ["n"], staged=index == "staged")
    return application(change, by_n, in_order, in_no_order, by_hand, page, Schema(items=items))


def sound(store: MemoryStore) -> None:
    *_, findings = verify(store.snapshot)
    assert [] == findings.problems


async def test_an_index_is_the_sorted_documents_at_every_timestamp(
    autojump_clock: MockClock,
) -> None:
    dice = random.Random(2)
    places: list[float] = []
    states: list[tuple[int, list[float]]] = []

    async def check(ts: int, expected: list[float]) -> None:
        shown = []
        for name in ("in_order", "in_no_order"):
            result = await node.functions.query(f"{MODULE}:{name}", {}, caller=ADMIN, ts=ts)
            result.live.release()
            shown.append(result.value)
        assert expected == [n for n, *_ in shown[0]]
        assert sorted(shown[1]) == shown[0], "of those with the same n the older is first"

    async with serving(app("enabled")) as node:
        for _ in range(40):
            moves = []
            for _ in range(dice.randint(1, 4)):
                old = dice.choice([None, *places])
                new = None if old is not None and dice.random() < 0.4 else dice.randint(0, 5)
                moves.append([old, new])
                if old is not None:
                    places.remove(old)
                places += [] if new is None else [new]  # others may stand there already
            await mutate(node, change, moves)
            states.append((node.published.value, sorted(places)))
            await check(*states[-1])
        for ts, expected in dice.sample(states, 15):
            await check(ts, expected)


async def test_a_backfill_and_the_writes_meanwhile_make_a_full_index_wherever_they_stop(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """After a crash at any slice the next push goes on, or takes the index away again."""
    monkeypatch.setattr(index_upkeep, "SLICE_ROWS", 4)
    dice = random.Random(0)
    places: list[float] = list(range(30))
    crashes: list[MemoryStore] = []

    async def crash() -> None:
        if node is not None:
            crashes.append(store.durable_copy(in_flight=dice.random() < 0.5))
        await trio.sleep(0.01)

    async def write() -> None:
        while True:
            old = dice.choice([None, *places])
            new = None if old is not None and dice.random() < 0.3 else dice.random()
            places[:] = [n for n in [*places, new] if n != old and n is not None]
            await mutate(node, change, [[old, new]])

    node: Any = None
    store = MemoryStore(flush=crash)
    async with serving(app(), store=store) as running:
        await mutate(running, change, [[None, n] for n in places])
        node = running
        async with trio.open_nursery() as writing:
            for _ in range(3):
                writing.start_soon(write)
            await running.push(app("enabled"))
            writing.cancel_scope.cancel()
        assert await ask(running, by_hand) == await ask(running, by_n)
        sound(store)
    node = None

    assert 10 < len(crashes)
    for left in crashes:
        async with serving(app("enabled"), store=left.durable_copy()) as again:
            assert await ask(again, by_hand) == await ask(again, by_n)
        narrow = left.durable_copy()
        async with serving(app(), store=narrow) as without:
            assert 10 < len(await ask(without, by_hand))
            await trio.sleep(10)  # it is swept in the background
            items = without.committer.head.catalog.by_name["", "items"]
            assert ["by_creation_time", "by_id"] == sorted(items.indexes)
        sound(narrow)


async def test_an_index_is_kept_up_from_the_start_and_queried_from_the_switch_on(
    autojump_clock: MockClock,
) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with serving(app(), store=store, runtime=runtime) as node:
        await mutate(node, change, [[None, n] for n in (3, 1)])
        hold = runtime.hold("push.checked")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.push, app("staged"))
            await hold.wait_reached()
            await mutate(node, change, [[None, 2]])
            with pytest.raises(IndexNotFound, match="backfilling"):
                await ask(node, by_n)
            hold.release()

        await mutate(node, change, [[3, 0]])
        with pytest.raises(IndexNotFound, match="staged"):
            await ask(node, by_n)
        sound(store)

        staged = node.committer.head.catalog.by_name["", "items"].indexes["by_n"]
        await node.push(app("enabled"))
        enabled = node.committer.head.catalog.by_name["", "items"].indexes["by_n"]
        assert [0, 1, 2] == await ask(node, by_n)
        assert (staged.index_id, IndexState.ENABLED) == (enabled.index_id, enabled.state)


# Pages.


async def turned(node: Node, journal: str | None = None, **args: Any) -> QueryResult:
    result = await node.functions.query(f"{MODULE}:page", args, caller=ADMIN, journal=journal)
    result.live.release()
    assert result.failure is None, result.failure.message
    return result


async def opened_pages(node: Node, order: str) -> list[tuple[str | None, str]]:
    """The cursors between which the pages of 3 lie that a client would have opened."""
    pages: list[tuple[str | None, str]] = []
    cursor, is_done = None, False
    while not is_done:
        found = (await turned(node, opts={"numItems": 3, "cursor": cursor}, order=order)).value
        pages.append((cursor, found["continueCursor"]))
        cursor, is_done = found["continueCursor"], found["isDone"]
    return pages


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_cover_the_whole_index_once_whatever_is_written_between_them(
    order: str, autojump_clock: MockClock
) -> None:
    dice = random.Random(1)
    places: list[float] = list(range(20))
    async with serving(app("enabled")) as node:
        await mutate(node, change, [[None, n] for n in places])
        pages = await opened_pages(node, order)
        assert 6 < len(pages)
        for _ in range(30):
            seen: list[float] = []
            for cursor, end in pages:
                opts = {"numItems": 3, "cursor": cursor, "endCursor": end}
                found = (await turned(node, opts=opts, order=order)).value
                seen += [doc["n"] for doc in found["page"]]

            assert sorted(places, reverse=order == "desc") == seen

            old = dice.choice([None, *places])
            new = None if old is not None and dice.random() < 0.4 else dice.uniform(-3, 23)
            places = [n for n in [*places, new] if n is not None and n != old]
            await mutate(node, change, [[old, new]])


async def test_a_page_that_is_run_again_with_its_journal_ends_where_it_did_and_may_be_split(
    autojump_clock: MockClock,
) -> None:
    def of(found: QueryResult) -> list[float]:
        return [doc["n"] for doc in found.value["page"]]

    first = {"numItems": 3, "cursor": None}
    async with serving(app("enabled")) as node:
        await mutate(node, change, [[None, n] for n in (1, 2, 3, 4)])
        before = await turned(node, opts=first)
        end = before.value["continueCursor"]

        await mutate(node, change, [[None, n] for n in (0, 2.5, 3.5, 0.5, 0.25)])
        again = await turned(node, before.journal, opts=first)
        assert [1, 2, 3] == of(before)
        assert [0, 0.25, 0.5, 1, 2, 2.5, 3] == of(again)
        assert (end, before.journal) == (again.value["continueCursor"], again.journal)

        split = again.value["splitCursor"]
        halves = [
            of(await turned(node, opts={"numItems": 9, "cursor": low, "endCursor": high}))
            for low, high in ((None, split), (split, end))
        ]
        assert of(again) == [*halves[0], *halves[1]]
        assert all(halves)

        await mutate(node, change, [[n, None] for n in (0, 0.25, 0.5, 1, 2, 3)])
        assert [2.5] == of(await turned(node, before.journal, opts=first))


# Keys.

INDEX = IndexInfo(
    index_id=1, name="by_a_b", table_number=10_001, fields=(("a",), ("b", "c"), ("_creationTime",))
)
DOC = st.tuples(MAYBE_VALUE, MAYBE_VALUE, st.integers(1, 3), st.integers(0, 2**20))


@given(st.lists(DOC, min_size=2, max_size=8, unique_by=lambda doc: doc[3]))
def test_keys_of_an_index_are_in_the_order_of_values_and_no_two_are_equal(docs: Any) -> None:
    in_order = sorted(docs, key=lambda doc: key_of(*doc))

    for one, other in pairwise(in_order):
        assert key_of(*one) < key_of(*other)
        decided = [order for a, b in zip(one, other, strict=True) if (order := compare(a, b))]
        assert -1 == decided[0]


def key_of(a: Value, c: Value, created: int, number: int) -> bytes:
    doc: dict[str, Any] = {"_creationTime": created}
    doc |= {} if a is UNDEFINED else {"a": a}
    doc |= {} if c is UNDEFINED else {"b": {"c": c}}
    return entry_key(INDEX, doc, number.to_bytes(16, "big"))
