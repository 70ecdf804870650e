"""Queries in the past answer what was so, or say why they cannot."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import (
    FunctionTimeout,
    IndexNotFound,
    NotAllowed,
    OutOfRetention,
    PushRefused,
)
from engine.functions.turns import Turns
from engine.indexes.snapshot import SharedSnapshot
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.node import Node
from engine.serving import imports
from engine.store.memory_store import MemoryStore
from engine.transaction import past
from tests.node.nodes import application, ask, ask_at, mutate, serving

FIELDS = {"n": v.number(), "text": v.string()}
plain = Schema(items=Table(FIELDS))
by_n = Schema(items=Table(FIELDS).index("by_x", ["n"]))
by_text = Schema(items=Table(FIELDS).index("by_x", ["text"]))
staged = Schema(items=Table(FIELDS).index("by_x", ["n"], staged=True))
unique = Schema(items=Table(FIELDS).index("by_x", ["n"], unique=True))
searched = Schema(items=Table(FIELDS).search_index("words", search_field="text"))


@mutation
async def put(ctx: MutationCtx, n: float, text: str = "", table: str = "items") -> str:
    return await ctx.db.insert(table, {"n": n, "text": text})


@mutation
async def put_many(ctx: MutationCtx, count: int) -> None:
    for n in range(count):
        await ctx.db.insert("items", {"n": n, "text": ""})


@mutation
async def change(ctx: MutationCtx, n: float, to: float) -> None:
    async for item in ctx.db.query("items").filter(lambda q: q.field("n") == n):
        await ctx.db.patch(item["_id"], {"n": to})


@mutation
async def drop(ctx: MutationCtx, n: float | None = None, table: str = "items") -> None:
    for item in await ctx.db.query(table).collect():
        if n is None or item["n"] == n:
            await ctx.db.delete(item["_id"])


@mutation
async def later(ctx: MutationCtx, n: float) -> str:
    return await ctx.scheduler.run_after(60_000, put, n=n)


@mutation
async def never(ctx: MutationCtx, job: Any) -> None:
    await ctx.scheduler.cancel(job)


@query
async def numbers(ctx: QueryCtx, table: str = "items") -> list[float]:
    return sorted([item["n"] async for item in ctx.db.query(table)])


@query
async def count(ctx: QueryCtx, table: str = "items") -> int:
    return await ctx.db.count(table)


@query
async def above(ctx: QueryCtx, n: float) -> list[float]:
    found = await ctx.db.query("items").with_index("by_x", lambda r: r.gt("n", n)).collect()
    return [item["n"] for item in found]


@query
async def with_text(ctx: QueryCtx, text: str) -> list[float]:
    return [item["n"] async for item in ctx.db.query("items").with_index("by_x", text=text)]


@query
async def only(ctx: QueryCtx, n: float) -> str | None:
    item = await ctx.db.query("items").with_index("by_x", n=n).unique()
    return None if item is None else item["text"]


@query
async def page(ctx: QueryCtx, opts: Any) -> Any:
    return await ctx.db.query("items").with_index("by_x").paginate(opts)


@query
async def find(ctx: QueryCtx, text: str) -> list[float]:
    words = ctx.db.query("items").with_search_index("words", lambda s: s.search("text", text))
    return [item["n"] for item in await words.collect()]


@query
async def got(ctx: QueryCtx, doc_id: Any, table: str = "items") -> list[Any]:
    doc = await ctx.db.get(table, doc_id)
    return [doc and doc["n"], await ctx.db.normalize_id(table, doc_id)]


@query
async def jobs(ctx: QueryCtx) -> list[str]:
    return [
        job["state"]["kind"] for job in await ctx.db.system.query("_scheduled_functions").collect()
    ]


LIMITS = Limits()
APP = [
    put,
    put_many,
    change,
    drop,
    later,
    never,
    numbers,
    count,
    above,
    with_text,
    only,
    page,
    find,
    got,
    jobs,
]


@asynccontextmanager
async def opened(schema: Schema | None = None, **options: Any) -> AsyncIterator[Node]:
    declared = [] if schema is None else [schema]
    async with serving([*APP, *declared], **{"limits": LIMITS, **options}) as node:
        yield node


@pytest.fixture(params=[Limits(), Limits(past_bytes_max=1)], ids=["in memory", "in an annex"])
def wherever_it_is(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken back."""
    monkeypatch.setattr(sys.modules[__name__], "LIMITS", request.param)


async def push(node: Node, schema: Schema) -> None:
    await node.push(application(*APP, schema))


async def filled(node: Node) -> int:
    """Put 1, 2 and 3, note when, and write over all of it."""
    for n in (1, 2, 3):
        await mutate(node, put, n, "abc"[n - 1])
    ts = node.published.value
    await mutate(node, change, 1, 10)
    await mutate(node, drop, 3)
    await mutate(node, put, 4, "d")
    return ts


# Indexes and tables, which others may have changed since.

wherever = pytest.mark.usefixtures("wherever_it_is")


@wherever
async def test_an_index_that_was_there_then_and_is_now(autojump_clock: MockClock) -> None:
    async with opened(by_n) as node:
        ts = await filled(node)

        assert [2, 3] == await ask_at(node, ts, above, 1)
        assert [1, 2, 3] == await ask_at(node, ts, numbers)
        assert [2, 4, 10] == await ask(node, above, 1)


@wherever
async def test_an_index_that_was_added_since_serves_the_past_too(autojump_clock: MockClock) -> None:
    async with opened(plain) as node:
        ts = await filled(node)
        await push(node, by_n)
        await mutate(node, drop, 2)

        assert [2, 3] == await ask_at(node, ts, above, 1)


@wherever
async def test_an_index_that_was_dropped_since_is_read_as_it_was(
    autojump_clock: MockClock,
) -> None:
    async with opened(by_n) as node:
        await mutate(node, put_many, 200)
        ts = await filled(node)
        await push(node, plain)
        await mutate(node, drop, 50)
        for _ in range(2):
            assert [1, 1, 2, 2, 3, 3, *range(4, 200)] == await ask_at(node, ts, above, 0)
            await mutate(node, drop, 60)
            await mutate(node, put, 70)
        with pytest.raises(IndexNotFound, match=r"no index 'by_x'.*there are now and those"):
            await ask_at(node, node.published.value - 1, above, 1)


@wherever
async def test_an_index_that_was_added_and_dropped_since_is_of_no_state_before(
    autojump_clock: MockClock,
) -> None:
    async with opened(plain) as node:
        ts = await filled(node)
        await push(node, by_n)
        between = node.published.value
        await push(node, plain)

        assert [2, 4, 10] == await ask_at(node, between, above, 1)
        with pytest.raises(IndexNotFound, match="no index 'by_x'"):
            await ask_at(node, ts, above, 1)


@wherever
async def test_the_name_of_an_index_means_what_it_means_now(autojump_clock: MockClock) -> None:
    async with opened(by_n) as node:
        ts = await filled(node)
        await push(node, by_text)
        await mutate(node, drop)

        assert [2] == await ask_at(node, ts, with_text, "b")
        with pytest.raises(Exception, match="'n'"):
            await ask_at(node, ts, above, 1)


@wherever
async def test_an_index_that_is_staged_now_is_read_where_it_was_not(
    autojump_clock: MockClock,
) -> None:
    async with opened(by_n) as node:
        ts = await filled(node)
        await push(node, staged)
        since = node.published.value
        await mutate(node, drop, 4)
        with pytest.raises(IndexNotFound, match="is staged"):
            await ask_at(node, since, above, 1)
        assert [2, 3] == await ask_at(node, ts, above, 1)

        await push(node, by_n)
        assert [2, 3] == await ask_at(node, ts, above, 1)
        assert [2, 4, 10] == await ask_at(node, since, above, 1)


@wherever
async def test_an_index_that_was_being_filled_then(autojump_clock: MockClock) -> None:
    runtime = VirtualRuntime()
    async with opened(plain, runtime=runtime) as node:
        await filled(node)
        before_switch = runtime.hold("push.switch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(push, node, by_n)
            await before_switch.wait_reached()
            await mutate(node, put, 5)
            ts = node.published.value
            await mutate(node, drop, 2)
            with pytest.raises(IndexNotFound, match="no index 'by_x'"):
                await ask_at(node, ts, above, 1)
            before_switch.release()

        assert [2, 4, 5, 10] == await ask_at(node, ts, above, 1)


@wherever
async def test_a_unique_index(autojump_clock: MockClock) -> None:
    async with opened(unique) as node:
        ts = await filled(node)
        await mutate(node, put, 1, "another")

        assert "a" == await ask_at(node, ts, only, 1)
        assert "c" == await ask_at(node, ts, only, 3)
        assert await ask_at(node, ts, only, 10) is None


@wherever
async def test_a_table_that_came_later_is_empty(autojump_clock: MockClock) -> None:
    async with opened() as node:
        ts = await filled(node)
        doc_id = await mutate(node, put, 1, table="others")

        assert [] == await ask_at(node, ts, numbers, table="others")
        assert 0 == await ask_at(node, ts, count, table="others")
        assert [None, doc_id] == await ask_at(node, ts, got, doc_id, "others")
        assert [] == await ask_at(node, ts, numbers, table="nobodys")


@wherever
async def test_a_table_of_which_all_is_deleted(autojump_clock: MockClock) -> None:
    async with opened(by_n) as node:
        ts = await filled(node)
        first = (await ask(node, page, {"numItems": 1, "cursor": None}))["page"][0]["_id"]
        await mutate(node, drop)

        assert 0 == await ask(node, count)
        assert 3 == await ask_at(node, ts, count)
        assert [1, 2, 3] == await ask_at(node, ts, numbers)
        assert [2, first] == await ask_at(node, ts, got, first)


@wherever
async def test_a_table_that_is_no_more(autojump_clock: MockClock) -> None:
    """A push adds it, somebody uses it, the push is refused, and another takes its number."""
    store, runtime = MemoryStore(), VirtualRuntime()
    wrong = Schema(items=Table({"n": v.string()}), others=Table(v.any()))
    async with opened(plain, store=store, runtime=runtime) as node:
        await mutate(node, put, 1)
        before_switch = runtime.hold("push.switch")
        async with trio.open_nursery() as nursery:

            async def refused() -> None:
                with pytest.raises(PushRefused):
                    await push(node, wrong)

            nursery.start_soon(refused)
            await before_switch.wait_reached()
            old = await mutate(node, put, 7, table="others")
            ts = node.published.value
            await mutate(node, drop, table="others")
            before_switch.release()
    async with opened(plain, store=store.durable_copy(), runtime=VirtualRuntime(1)) as node:
        await mutate(node, put, 8, table="new")

        assert [8] == await ask(node, numbers, table="new")
        assert [7] == await ask_at(node, ts, numbers, table="others")
        assert [7, old] == await ask_at(node, ts, got, old, "others")
        assert [] == await ask_at(node, ts, numbers, table="new")
        assert [0, 1] == [await ask_at(node, ts, count, table=t) for t in ("new", "others")]


@wherever
async def test_a_table_whose_number_is_another_since(autojump_clock: MockClock) -> None:
    async with opened() as here, opened(runtime=VirtualRuntime(9)) as there:
        await mutate(there, put, 1, table="first")
        doc_id = await mutate(there, put, 5)
        await mutate(here, put, 1)
        ts = here.published.value
        await mutate(here, drop)
        read = [imports.read({"_id": doc_id, "n": 5, "text": ""})]
        turns: Turns = here.functions.turns
        await turns.write(lambda turn: imports.place_table(turn, "", "items", read))
        await mutate(here, put, 6)

        assert [6] == await ask(here, numbers)
        assert [1] == await ask_at(here, ts, numbers)
        assert 1 == await ask_at(here, ts, count)


@wherever
async def test_jobs_as_they_were(autojump_clock: MockClock) -> None:
    async with opened() as node:
        job = await mutate(node, later, 1)
        ts = node.published.value
        await mutate(node, never, job)
        await mutate(node, later, 2)

        assert ["pending"] == await ask_at(node, ts, jobs)
        assert ["canceled", "pending"] == await ask(node, jobs)


@wherever
async def test_text_is_not_searched_in_the_past(autojump_clock: MockClock) -> None:
    async with opened(searched) as node:
        ts = await filled(node)

        for at in (ts, node.published.value):
            with pytest.raises(NotAllowed, match="newest state only; read a range"):
                await ask_at(node, at, find, "a")
        assert [10] == await ask(node, find, "a")


# Pages.


@wherever
async def test_pages_of_one_ts_while_others_write(autojump_clock: MockClock) -> None:
    async with opened(by_n) as node:
        await mutate(node, put_many, 20)
        ts = node.published.value
        found: list[float] = []
        cursor: str | None = None
        is_done = False
        while not is_done:
            await mutate(node, change, len(found) + 1, -1)
            await mutate(node, drop, len(found) + 4)
            shown = await ask_at(node, ts, page, {"numItems": 3, "cursor": cursor})
            found += [item["n"] for item in shown["page"]]
            cursor, is_done = shown["continueCursor"], shown["isDone"]

    assert list(range(20)) == found


# How far back, and at what cost.

DAY_S = 86_400.0
KEPT = Limits(log_age_s_max=DAY_S, log_age_s_min=60.0)


async def test_the_anchor_is_the_oldest_that_can_be_read(autojump_clock: MockClock) -> None:
    async with opened(by_n, limits=KEPT) as node:
        ts = await filled(node)
        await ask_at(node, ts, numbers)
        newest = node.published.value
        await trio.sleep(2 * DAY_S)
        await mutate(node, put, 5)

        await node.retention.trim()

        with node.functions.pin():
            anchor = node.functions._snapshots.current.anchor_ts
        assert ts < newest <= anchor
        assert [2, 4, 10] == await ask_at(node, anchor, numbers)
        for far in (anchor - 1, ts, 0):
            with pytest.raises(OutOfRetention, match=f"the oldest is {anchor}"):
                await ask_at(node, far, numbers)


async def test_the_log_is_trimmed_under_a_reader(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_RECORDS", 1)
    has_begun = trio.Event()
    log = SharedSnapshot.log

    def noted(snapshot: SharedSnapshot, after: int, upto: int) -> Any:
        has_begun.set()
        return log(snapshot, after, upto)

    monkeypatch.setattr(SharedSnapshot, "log", noted)
    async with opened(by_n, limits=Limits(log_bytes_max=1, log_age_s_min=60.0)) as node:
        ts = await filled(node)
        await trio.sleep(61)
        answers: list[Any] = []

        async def reader() -> None:
            answers.append(await ask_at(node, ts, above, 1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await has_begun.wait()
            await node.retention.trim()
        with pytest.raises(OutOfRetention):
            await ask_at(node, ts, above, 1)

    assert [[2, 3]] == answers


async def test_the_future_is_refused_and_the_present_is_not(autojump_clock: MockClock) -> None:
    async with opened() as node:
        await filled(node)
        now_ns = node.runtime.now_ns()

        with pytest.raises(OutOfRetention, match="in the future"):
            await ask_at(node, max(now_ns, node.published.value) + 10**9, numbers)
        assert [2, 4, 10] == await ask_at(node, node.published.value, numbers)


async def test_commits_and_other_readers_go_on_meanwhile(autojump_clock: MockClock) -> None:
    async with opened(by_n, limits=Limits(slice_s_max=0.0)) as node:
        await mutate(node, put_many, 3_000)
        ts = node.published.value
        for n in range(400):
            await mutate(node, put, n + 3_000)
        await mutate(node, drop)
        turns = 0
        answers: list[Any] = []

        async def reader(scope: trio.CancelScope) -> None:
            answers.append(await ask_at(node, ts, above, 2_990))
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader, nursery.cancel_scope)
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

    assert [list(range(2_991, 3_000))] == answers
    # 4 while it goes through the records, 13 for the index.
    assert turns > 16


async def test_what_was_taken_back_is_kept(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    log = SharedSnapshot.log

    def counted(snapshot: SharedSnapshot, after: int, upto: int) -> Any:
        for data in log(snapshot, after, upto):
            read.append(after)
            yield data

    monkeypatch.setattr(SharedSnapshot, "log", counted)
    async with opened(by_n) as node:
        ts = await filled(node)
        first = await ask_at(node, ts, numbers), len(read)
        second = await ask_at(node, ts, above, 1), len(read)
        await mutate(node, put, 5)
        third = await ask_at(node, ts, numbers), len(read)

    assert (([1, 2, 3], 3), ([2, 3], 3), ([1, 2, 3], 4)) == (first, second, third)


async def test_so_many_timestamps_are_kept_and_the_oldest_are_taken_back_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[int] = []
    log = SharedSnapshot.log

    def counted(snapshot: SharedSnapshot, after: int, upto: int) -> Any:
        followed.append(after)
        return log(snapshot, after, upto)

    monkeypatch.setattr(SharedSnapshot, "log", counted)
    async with opened(by_n, limits=Limits(past_count_max=2)) as node:
        stamps: list[int] = []
        for n in (1, 2, 3, 4):
            await mutate(node, put, n)
            stamps.append(node.published.value)
        first, second, third, _ = stamps
        for ts in (first, second, third, third, second, first):
            await ask_at(node, ts, numbers)

    assert [first, second, third, first] == [ts for ts in followed if ts in stamps[:3]]


async def test_more_than_can_be_taken_back_in_time_is_refused_and_goes_on_when_asked_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_RECORDS", 1)
    limits = Limits(snapshot_age_s_max=-1.0)  # a snapshot is too old once there is another
    async with opened(by_n, limits=limits) as node:
        ts = await filled(node)
        for n in range(40):
            await mutate(node, put, n + 100)

        async def writer() -> None:
            while True:
                await mutate(node, change, 4, 4)
                await mutate(node, put, 5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            with pytest.raises(FunctionTimeout, match=r"too much was committed since ts .* again"):
                await ask_at(node, ts, above, 1)
            nursery.cancel_scope.cancel()

        assert [2, 3] == await ask_at(node, ts, above, 1)


async def test_more_than_may_be_kept_is_refused(autojump_clock: MockClock) -> None:
    limits = Limits(past_bytes_max=1, past_disk_bytes_max=20_000)
    async with opened(limits=limits) as node:
        ts = await filled(node)
        assert [1, 2, 3] == await ask_at(node, ts, numbers)
        await mutate(node, put_many, 100)

        with pytest.raises(OutOfRetention, match=r"20,000 bytes.*past_disk_bytes_max.*newer"):
            await ask_at(node, ts, numbers)
        assert [1, 2, 3, 4] != await ask_at(node, node.published.value, numbers)


# The newest state has nothing to do with it.


@wherever
async def test_answers_of_the_past_are_no_answers_of_now(autojump_clock: MockClock) -> None:
    async with opened(by_n) as node:
        ts = await filled(node)
        for _ in range(2):
            assert [2, 3] == await ask_at(node, ts, above, 1)
            assert [2, 4, 10] == await ask(node, above, 1)
        newest = node.published.value
        assert [2, 4, 10] == await ask_at(node, newest, above, 1)
        await mutate(node, drop)

        assert [] == await ask(node, above, 1)
        assert [2, 4, 10] == await ask_at(node, newest, above, 1)
        assert [2, 3] == await ask_at(node, ts, above, 1)


@wherever
async def test_who_asks_for_now_does_not_wait_for_who_asks_for_then(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "SLICE_RECORDS", 1)
    async with opened(by_n) as node:
        ts = await filled(node)
        for n in range(100):
            await mutate(node, put, n + 100)
        order: list[str] = []

        async def then() -> None:
            await ask_at(node, ts, above, 1)
            order.append("then")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(then)
            await trio.lowlevel.checkpoint()
            await ask(node, above, 1)
            order.append("now")

    assert ["now", "then"] == order


@wherever
async def test_that_somebody_holds_the_snapshot_of_then_does_not_show(
    autojump_clock: MockClock,
) -> None:
    async with opened(plain) as node:
        for n in (1, 2, 3):
            await mutate(node, put, n)
        with node.functions.pin() as ts:
            await push(node, by_n)
            held = await ask_at(node, ts, above, 1)
        assert [2, 3] == held == await ask_at(node, ts, above, 1)
