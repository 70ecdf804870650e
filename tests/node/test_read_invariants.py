"""What must hold of reads: what is remembered of them, who conflicts, what a second run gives."""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import Conflict
from engine.functions.turns import pinned
from engine.kernel.runtime import VirtualRuntime
from engine.model.keys import encode_key
from engine.model.limits import Limits
from engine.node import Node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage
from tests.node.nodes import ADMIN, application, ask, mutate, serving

SCHEMA = Schema(items=Table(v.any()).index("by_n", ["n"]))
log = logging.getLogger(__name__)
NUMBERS = [10, 20, 30, 40, 50]


@mutation
async def put(ctx: MutationCtx, old: Any, new: Any) -> None:
    """Move the item at `old` to `new`; null is nowhere."""
    items = ctx.db.query("items").with_index("by_n", lambda r: r.eq("n", old))
    doc = await items.first() if old is not None else None
    if doc is None:
        await ctx.db.insert("items", {"n": new, "is_even": new % 20 == 0})
    elif new is None:
        await ctx.db.delete(doc["_id"])
    else:
        await ctx.db.patch(doc["_id"], {"n": new})


@mutation
async def touch(ctx: MutationCtx, n: int) -> None:
    """Change an item, and not where it stands."""
    doc = await ctx.db.query("items").with_index("by_n", n=n).unique()
    assert doc is not None
    await ctx.db.patch(doc["_id"], {"touched": await ctx.db.count("items"), "is_even": False})


@mutation
async def open_table(ctx: MutationCtx) -> None:
    await ctx.db.insert("others", {})


APP = [put, touch, open_table, SCHEMA]


@asynccontextmanager
async def filled(*more: Any, **options: Any) -> AsyncIterator[Node]:
    async with serving([*APP, *more], **options) as node:
        for n in NUMBERS:
            await mutate(node, put, None, n)
        yield node


def between(low: Any, high: Any) -> Callable[[QueryCtx], Any]:
    """The items in `[low, high)`."""
    return lambda ctx: ctx.db.query("items").with_index(
        "by_n", lambda r: r.gte("n", low).lt("n", high)
    )


# What is remembered of a read.


@pytest.mark.parametrize(
    ("read", "inside", "outside"),
    [
        (lambda c: between(10, 40)(c).collect(), [(None, 35), (None, 10), (20, 5)], [(None, 40)]),
        (lambda c: between(10, 90)(c).take(2), [(None, 15), (20, 70)], [(None, 21), (30, 31)]),
        (lambda c: between(5, 90)(c).first(), [(10, 70), (None, 7)], [(None, 11), (20, None)]),
        (
            lambda c: between(10, 90)(c).order("desc").take(2),
            [(None, 45), (40, None)],
            [(None, 39), (30, 1)],
        ),
        (lambda c: between(60, 90)(c).first(), [(None, 89), (50, 60)], [(None, 90), (50, 51)]),
        (lambda c: between(21, 29)(c).collect(), [(None, 21), (20, 25)], [(20, None), (None, 30)]),
        (
            lambda c: between(10, 90)(c).filter(lambda q: q.eq(q.field("is_even"), True)).first(),
            [(None, 11), (10, None)],
            [(None, 21), (30, None)],
        ),
        (lambda c: c.db.query("others").first(), ["open"], [(None, 10)]),
        (lambda c: c.db.count("items"), [(None, 99), (10, None)], [(10, 99)]),
        (
            lambda c: between(10, 90)(c).paginate({"numItems": 2, "cursor": None}),
            [(None, 15)],
            [(None, 25)],
        ),
    ],
    ids=["range", "take", "first", "last", "empty", "gap", "filter", "no-table", "count", "page"],
)
async def test_a_read_set_holds_all_that_was_looked_at_and_nothing_beyond(
    read: Callable[[QueryCtx], Any],
    inside: list[Any],
    outside: list[Any],
    autojump_clock: MockClock,
) -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        return await read(ctx)

    for change, is_touched in [*((c, True) for c in inside), *((c, False) for c in outside)]:
        async with filled(look) as node:
            shown = await node.functions.query(look.path or "", {}, caller=ADMIN)
            if change == "open":
                await mutate(node, open_table)
            else:
                await mutate(node, put, *change)
            await node.functions.processed.wait_reached(node.published.value)

            assert is_touched == (shown.live.invalidated_at is not None), change
            shown.live.release()


async def test_a_read_of_a_document_that_is_not_there_is_remembered(
    autojump_clock: MockClock,
) -> None:
    async with filled() as node:
        with reading(node) as reader:
            missing = b"".join([reader.catalog.by_name["", "items"].row_prefix, b"x" * 16])

            assert None is reader.get(missing)
            assert missing in reader.reads.points


# Who conflicts with whom.


@contextmanager
def reading(node: Node) -> Iterator[Transaction]:
    """A transaction outside the lane, as of now."""
    view = pinned(node.committer, is_validated=True)
    try:
        yield Transaction(
            view,
            usage=Usage(node.limits),
            now_ns=node.runtime.now_ns(),
            dice=node.runtime.random,
            schema=None,
        )
    finally:
        node.committer.unpin(view.snapshot)


def read_range(reader: Transaction, low: int, high: int) -> None:
    index = reader.catalog.by_name["", "items"].indexes["by_n"]
    read = reader.read_slice(
        index, encode_key([low]), encode_key([high]), reverse=False, rows_max=1_000
    )
    assert read.is_exhausted


def conflicts(node: Node, reader: Transaction) -> bool:
    try:
        node.committer.validate(
            reader.reads, reader.view.begin_ts, "test", node.committer.next_ts()
        )
    except Conflict:
        return True
    return False


@pytest.mark.parametrize("is_durable", [True, False], ids=["published", "pending"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ((None, 25), True),
        ((20, None), True),
        ((20, 90), True),
        ((50, 25), True),
        ((20, 25), True),
        ((None, 40), False),
        ((50, None), False),
        ((50, 60), False),
        ("touch 20", True),
        ("touch 40", False),
    ],
    ids=range(10),
)
async def test_a_commit_since_the_beginning_conflicts_by_its_old_and_its_new_keys(
    change: Any, expected: bool, is_durable: bool, autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    async with filled(store=store) as node, trio.open_nursery() as nursery:
        await mutate(node, put, 30, 31)  # before the beginning: no matter
        with reading(node) as reader:
            read_range(reader, 15, 40)
            assert not conflicts(node, reader)
            disk = store.hold()
            if isinstance(change, str):
                nursery.start_soon(mutate, node, touch, int(change.split()[1]))
            else:
                nursery.start_soon(mutate, node, put, *change)
            await disk.wait_reached()
            if is_durable:
                disk.release()
                await node.published.wait_reached(node.committer.head.ts)

            found = conflicts(node, reader)
            disk.release()  # before anything fails, or nobody would ever close

        assert expected == found


@pytest.mark.parametrize("seed", range(5))
async def test_nothing_conflicts_that_does_not_overlap(
    seed: int, autojump_clock: MockClock
) -> None:
    dice = random.Random(seed)
    told = {True: 0, False: 0}
    async with filled() as node:
        places = list(NUMBERS)
        for _ in range(60):
            with reading(node) as reader:
                ranges = [(low, low + dice.randint(1, 8)) for low in dice.choices(range(90), k=2)]
                for low, high in ranges:
                    read_range(reader, low, high)
                keys: list[int] = []
                for _ in range(dice.randint(0, 3)):
                    old = dice.choice([None, *places])
                    new = dice.choice([n for n in range(100) if n not in places])
                    await mutate(node, put, old, new)
                    places = [n for n in places if n != old] + [new]
                    keys += [new] if old is None else [old, new]

                expected = any(low <= key < high for low, high in ranges for key in keys)
                assert expected == conflicts(node, reader)
                told[expected] += 1
    assert min(told.values()) > 3


async def test_who_began_before_what_is_remembered_runs_again_and_never_passes(
    autojump_clock: MockClock,
) -> None:
    forgetful = replace(Limits(), history_count_max=2)
    async with filled(limits=forgetful) as node:
        with reading(node) as early, reading(node) as later:
            for reader in (early, later):
                read_range(reader, 15, 40)
            await mutate(node, put, 20, 21)
            for n in (50, 51, 52):
                await mutate(node, put, n, n + 1)

            with pytest.raises(Conflict, match="run it again"):
                node.committer.validate(
                    early.reads, early.view.begin_ts, "test", node.committer.next_ts()
                )
        with reading(node) as fresh:
            read_range(fresh, 15, 40)
            assert not conflicts(node, fresh)


# Transactions within transactions.


async def test_a_child_that_fails_leaves_none_of_its_writes_and_all_of_its_reads(
    autojump_clock: MockClock,
) -> None:
    @mutation
    async def child(ctx: MutationCtx) -> None:
        await between(10, 40)(ctx).collect()
        await ctx.db.insert("items", {"n": 1})
        await ctx.db.insert("fresh", {"n": 1})
        await ctx.scheduler.run_after(0, put, old=None, new=99)
        raise ValueError("after all not")

    @mutation
    async def parent(ctx: MutationCtx) -> list[Any]:
        await ctx.db.insert("items", {"n": 2})
        with pytest.raises(ValueError, match="after all not"):
            await ctx.run_mutation(child)
        inside = await ctx.db.query("items").with_index("by_n", lambda r: r.lt("n", 10)).collect()
        seen = [doc["n"] for doc in inside] + await ctx.db.query("fresh").collect()
        await ctx.db.insert("fresh", {"n": 3})  # whose table the child had made
        return seen

    @query
    async def everything(ctx: QueryCtx) -> list[Any]:
        docs = await ctx.db.query("items").with_index("by_n").collect()
        return [doc["n"] for doc in [*docs, *await ctx.db.query("fresh").collect()]]

    async with filled(child, parent, everything) as node:
        assert [2] == await mutate(node, parent)
        await trio.sleep(1)
        assert [2, *NUMBERS, 3] == await ask(node, everything)

        with reading(node) as reader:
            reader.begin_child()
            read_range(reader, 15, 40)
            reader.drop_child()
            await mutate(node, put, 20, 21)
            assert conflicts(node, reader)


# A second run.


@mutation
async def draw(ctx: MutationCtx, count: int) -> list[Any]:
    drawn: list[Any] = [ctx.now_ms, str(ctx.uuid4())]
    for _ in range(count):
        drawn.append(ctx.random.random())
        drawn.append(await ctx.db.insert("items", {"n": drawn[-1], "of": sorted({"a", "b"})}))
        log.warning(drawn[-1])
    await ctx.scheduler.run_after(60_000, put, old=None, new=1)
    return drawn


@query
async def draw_again(ctx: QueryCtx, count: int) -> list[Any]:
    drawn: list[Any] = [ctx.now_ms, str(ctx.uuid4())]
    for _ in range(count):
        drawn.append(ctx.random.random())
        drawn.append(await ctx.db.query("items").collect())
        log.warning(drawn[-2])
    return drawn


async def test_a_run_on_the_same_state_with_the_same_seed_and_time_is_the_same_to_the_byte(
    autojump_clock: MockClock,
) -> None:
    async def run(seed: int) -> tuple[Any, ...]:
        runtime = VirtualRuntime(seed)
        copy = store.durable_copy()
        async with serving(app, store=copy, runtime=runtime) as node:
            looked = await node.functions.query(draw_again.path or "", {"count": 3}, caller=ADMIN)
            looked.live.release()
            result = await node.functions.mutation(draw.path or "", {"count": 3}, caller=ADMIN)
            with copy.snapshot() as snapshot:
                *_, (_, record) = snapshot.range(Tree.LOG, b"", None)
        assert result.failure is looked.failure is None
        return looked.value, looked.log_lines, result.value, result.log_lines, record

    app = application(draw, draw_again, *APP)
    store = MemoryStore()
    async with serving(app, store=store) as node:
        await mutate(node, put, None, 10)

    first, again, other = await run(1), await run(1), await run(2)

    assert first == again
    assert all(mine != its for mine, its in zip(first, other, strict=True))


async def test_a_run_after_a_conflict_has_new_dice_and_nothing_of_the_first_gets_out(
    autojump_clock: MockClock,
) -> None:
    runs: list[tuple[str, float, str]] = []

    @mutation
    async def raise_all(ctx: MutationCtx, name: str) -> str:
        docs = await ctx.db.query("items").collect()
        new = await ctx.db.insert("made", {"by": name})
        await ctx.scheduler.run_after(0, made_later, name)
        runs.append((name, ctx.random.random(), new))
        log.warning(new)
        for doc in docs:
            await ctx.db.patch(doc["_id"], {"raised": doc.get("raised", 0) + 1})
        return new

    @mutation
    async def made_later(ctx: MutationCtx, by: str) -> None:
        await ctx.db.insert("made", {"by": f"job of {by}"})

    @query
    async def made(ctx: QueryCtx) -> list[Any]:
        docs = await ctx.db.query("made").collect()
        raised = {doc.get("raised") for doc in await ctx.db.query("items").collect()}
        return [sorted([doc["by"] for doc in docs]), sorted([doc["_id"] for doc in docs]), *raised]

    names = ["a", "b", "c", "d"]
    answers: list[Any] = []

    async def call(name: str) -> None:
        answers.append(
            await node.functions.mutation(raise_all.path or "", {"name": name}, caller=ADMIN)
        )

    runtime = VirtualRuntime(7, interleaves=True)
    async with filled(raise_all, made_later, made, runtime=runtime) as node:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(call, name)
        await trio.sleep(1)
        by, ids, raised = await ask(node, made)

    assert len(runs) > len(names), "some have run again"
    assert len(runs) == len({dice for _, dice, _ in runs}) == len({new for *_, new in runs})
    assert sorted([*names, *(f"job of {name}" for name in names)]) == by
    assert len(names) == raised
    assert {answer.value for answer in answers} <= set(ids)
    assert [1] * 4 == [len(answer.log_lines) for answer in answers]
