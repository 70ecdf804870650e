"""The timestamp of the commit, as a mutation writes it: one, exact, and never behind a reader."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx, QueryCtx, TriggerCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.triggers import Change, trigger
from engine.app.types import Document
from engine.app.validators import v
from engine.errors import NotAllowed, StoreFull
from engine.functions.history import ExecutionRecord
from engine.functions.results import MutationResult
from engine.functions.targets import call_target
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import Record, decode_record
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.model.values import Int64
from engine.node import Node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, ask_at, mutate, serving

DAY_S = 86_400.0
SECOND_NS = 10**9
CALLERS, EACH = 6, 8


class Letter(Document):
    n: int
    at: Int64


SCHEMA = Schema(
    letters=Table(Letter).index("by_at", ["at"]),
    seen=Table({"at": v.commit_ts()}),
)


@mutation
async def send(ctx: MutationCtx, n: int) -> Int64:
    await ctx.db.insert(Letter, {"n": n, "at": ctx.db.vars.commit_ts})
    return ctx.db.vars.commit_ts


@mutation
async def send_many(ctx: MutationCtx, count: int) -> Int64:
    for n in range(count):
        await send(ctx, n)
    return ctx.db.vars.commit_ts


@mutation
async def send_first(ctx: MutationCtx, count: int) -> Int64:
    """Ask when everything is written but the last document."""
    for n in range(count - 1):
        await ctx.db.insert(Letter, {"n": n, "at": Int64(0)})
    return await send(ctx, count - 1)


@mutation
async def send_whatever_happens(ctx: MutationCtx, count: int) -> int:
    for n in range(count):
        with suppress(Exception):
            await send(ctx, n)
    return len(await ctx.run_query(sent))


@mutation
async def only_ask(ctx: MutationCtx) -> Int64:
    return ctx.db.vars.commit_ts


@mutation
async def ask_and_fail(ctx: MutationCtx) -> None:
    await send(ctx, -1)
    raise LookupError(str(ctx.db.vars.commit_ts))


@mutation
async def ask_within(ctx: MutationCtx) -> list[Any]:
    """What a function is told whose part has asked before, and was undone."""
    with pytest.raises(LookupError) as undone:
        await ctx.run_mutation(ask_and_fail)
    within = await ctx.run_mutation(send, 1)
    return [Int64(str(undone.value)), within, ctx.db.vars.commit_ts, await ctx.run_query(sent)]


@mutation
async def spread(ctx: MutationCtx) -> Int64:
    """Everywhere where a value may be."""
    at = ctx.db.vars.commit_ts
    letter = await ctx.db.insert("anything", {"deep": [{"er": at}], "first": Int64(0)})
    await ctx.db.patch(letter, {"first": at, "by_query": await ctx.run_query(echo, at)})
    note = await ctx.db.insert("anything", {})
    await ctx.db.replace(note, {"given": at})
    await ctx.scheduler.run_after(0, take, at)
    return at


@mutation
async def take(ctx: MutationCtx, given: Int64) -> None:
    await ctx.db.insert("anything", {"given": given, "own": ctx.db.vars.commit_ts})


@mutation
async def send_and_look(ctx: MutationCtx, n: int) -> list[int]:
    await send(ctx, n)
    return await ctx.run_query(sent)


@mutation
async def send_and_stay(ctx: MutationCtx, n: int) -> None:
    """Ask early, and yield by the dice until something else has been read."""
    at = ctx.db.vars.commit_ts
    for _ in range(3):
        await ctx.db.count("others")
    await ctx.db.insert(Letter, {"n": n, "at": at})


@mutation
async def write_something_else(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("more", {"n": n})


@query
async def sent(ctx: QueryCtx) -> list[int]:
    return [letter["n"] async for letter in ctx.db.query(Letter).with_index("by_at")]


@query
async def sent_after(ctx: QueryCtx, cursor: Int64) -> list[list[Any]]:
    later = ctx.db.query(Letter).with_index("by_at", lambda r: r.gt("at", cursor))
    return [[letter["n"], letter["at"]] async for letter in later]


@query
async def everything(ctx: QueryCtx) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in doc.items() if not name.startswith("_")}
        async for doc in ctx.db.query("anything")
    ]


@query
async def echo(ctx: QueryCtx, given: Int64) -> Int64:
    return given


kept: list[Any] = []


@mutation
async def keep(ctx: MutationCtx) -> None:
    kept.append(ctx.db.vars)


@mutation
async def use_kept(ctx: MutationCtx) -> None:
    kept[0].commit_ts  # noqa: B018 - it is asked for


APP = [
    SCHEMA,
    send,
    send_many,
    send_first,
    send_whatever_happens,
    only_ask,
    ask_and_fail,
    ask_within,
    spread,
    take,
    send_and_look,
    send_and_stay,
    write_something_else,
    sent,
    sent_after,
    everything,
    echo,
    keep,
    use_kept,
]


async def call(
    node: Node, fn: Any, *args: Any, session: SessionRequest | None = None
) -> MutationResult:
    component, path, raw = call_target(fn, args, {}, "")
    result = await node.functions.mutation(
        path, raw, caller=ADMIN, component=component, request=session
    )
    assert result.failure is None, result.failure.error
    return result


def records(store: MemoryStore) -> list[Record]:
    with store.snapshot() as snapshot:
        return [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]


def letters_of(store: MemoryStore) -> list[tuple[int, list[int]]]:
    """Of each record that brought letters its timestamp, and theirs."""
    found = []
    for record in records(store):
        docs = [write.after_doc or {} for write in record.writes if write.before is None]
        stamped = [doc["at"] for doc in docs if isinstance(doc.get("at"), Int64)]
        if stamped:
            found.append((record.ts, stamped))
    return found


def created(store: MemoryStore) -> list[float]:
    """The times of all letters, in the order in which they were created."""
    docs = [write.after_doc for record in records(store) for write in record.writes]
    return [doc["_creationTime"] for doc in docs if doc is not None and "n" in doc]


def newest(node: Node) -> ExecutionRecord:
    return list(node.functions.executions._records)[-1][1]


# What it is.


@pytest.mark.parametrize("fn", [send, send_many, send_first])
@pytest.mark.parametrize("request_id", [None, 7], ids=["alone", "in a session"])
async def test_it_is_the_ts_that_the_caller_is_told_and_that_of_the_record(
    fn: Any, request_id: int | None, autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    session = (
        None if request_id is None else SessionRequest(session_id=bytes(16), request_id=request_id)
    )
    async with serving(APP, store=store) as node:
        result = await call(node, fn, 5, session=session)

        assert result.ts == result.value == node.published.value == records(store)[-1].ts
        assert type(result.value) is Int64


async def test_it_is_the_same_wherever_it_is_written(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        at = (await call(node, spread)).value
        await node.scheduler.wait_resting()
        first, second, third = await ask(node, everything)

        assert {"deep": [{"er": at}], "first": at, "by_query": at} == first
        assert {"given": at} == second
        assert at == third["given"]
        assert at < third["own"]


async def test_a_part_that_is_undone_has_asked_for_all(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        result = await call(node, ask_within)

    undone, within, outside, there = result.value
    assert undone == within == outside == result.ts
    assert [1] == there
    assert [(result.ts, [result.ts])] == letters_of(store)


async def test_who_asks_commits_also_without_a_write(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        results = [await call(node, only_ask) for _ in range(3)]
        results.append(await call(node, send, 1))

        assert [result.ts for result in results] == [result.value for result in results]
        assert [result.ts for result in results] == [record.ts for record in records(store)[-4:]]


async def test_one_that_fails_takes_it_along(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        before = node.published.value
        with pytest.raises(LookupError) as failed:
            await mutate(node, ask_and_fail)

        assert before == node.published.value
        result = await call(node, send, 1)
        assert result.ts == result.value >= int(str(failed.value))


async def test_a_mutation_meets_what_it_writes_behind_all_others(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        for n in (3, 1, 2):
            last = await mutate(node, send_and_look, n)

        assert [3, 1, 2] == last == await ask(node, sent)


async def test_a_context_that_is_kept_tells_none(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, keep)
        with pytest.raises(NotAllowed, match="has ended"):
            await mutate(node, use_kept)
        kept.clear()


async def test_the_past_has_it(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        first = await mutate(node, send, 1)
        await mutate(node, send, 2)

        assert [1] == await ask_at(node, first, sent)
        assert [] == await ask_at(node, first - 1, sent)


async def test_a_trigger_has_that_of_its_mutation(autojump_clock: MockClock) -> None:
    @trigger(Letter)
    async def note(ctx: TriggerCtx, change: Change[Letter]) -> None:
        assert change.new is not None
        assert change.new["at"] == ctx.db.vars.commit_ts == ctx.raw_db.vars.commit_ts
        await ctx.db.insert("anything", {"at": ctx.db.vars.commit_ts})

    async with serving([*APP, note]) as node:
        result = await call(node, send, 1)

        assert [{"at": result.ts}] == await ask(node, everything)


async def test_it_is_the_same_again_when_it_is_replayed(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        for fn, count in ((send, 1), (send_many, 300), (spread, None)):
            await call(node, fn, *[] if count is None else [count])
        await node.scheduler.wait_resting()
        found = [
            await node.functions.replay(record.source, record.writes, ts=record.ts, after=before.ts)
            for before, record in pairwise(records(store))
            if record.source.path.startswith(__name__.replace(".", "/"))
        ]

    assert [1, 300, 3, 1] == [one.compared for one in found]
    assert [[]] * 4 == [list(one.differences) for one in found]


# In which order.


async def test_it_rises_with_the_commits_whoever_calls_and_whatever_is_refused(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[int, int]] = []

    async def send_all(caller: int) -> None:
        for n in range(caller * EACH, (caller + 1) * EACH):
            result = None
            while result is None:
                with suppress(StoreFull):  # of a batch that it had to itself
                    result = await call(node, send, n)
            assert result.ts == result.value
            told.append((result.value, n))

    async def take_a_moment() -> None:
        await trio.sleep(0.01)

    store = MemoryStore(flush=take_a_moment)
    async with serving(APP, store=store) as node:
        async with trio.open_nursery() as callers:
            for caller in range(CALLERS):
                callers.start_soon(send_all, caller)
            for _ in range(4):
                await trio.sleep(0.015)
                store.fail_next(StoreFull("no room, as planned"))
        refused = node.committer.stats["batches_refused"]
        again = [one for _, one in node.functions.executions._records if one.retries]
        found = await ask(node, sent)

    stamped = letters_of(store)
    assert refused
    assert again
    assert [(ts, [ts]) for ts, _ in sorted(told)] == stamped
    assert [n for _, n in sorted(told)] == found
    assert CALLERS * EACH == len({ts for ts, _ in told})


async def test_each_run_after_a_refused_batch_has_another(autojump_clock: MockClock) -> None:
    asked: list[int] = []

    @mutation
    async def remember(ctx: MutationCtx) -> Int64:
        await ctx.db.insert("anything", {"at": ctx.db.vars.commit_ts})
        asked.append(ctx.db.vars.commit_ts)
        return ctx.db.vars.commit_ts

    store = MemoryStore()
    runtime = VirtualRuntime()
    async with serving([*APP, remember], store=store, runtime=runtime) as node:
        store.fail_next(StoreFull("no room, as planned"))
        hold = runtime.hold("committer.persist")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mutate, node, remember)
            await hold.wait_reached()
            await trio.sleep(5)
            hold.release()
        at = asked[-1]

    assert 2 == len(asked)
    assert asked[0] + SECOND_NS < at
    assert at == records(store)[-1].ts


@pytest.mark.parametrize("jump_s", [-DAY_S, -1.0, 3_000.0, DAY_S])
async def test_clocks_may_jump(jump_s: float, autojump_clock: MockClock) -> None:
    store, runtime = MemoryStore(), VirtualRuntime()
    async with serving(APP, store=store, runtime=runtime) as node:
        told = [(await call(node, send_many, 3)).value]
        runtime.jump(jump_s)
        told += [(await call(node, send_many, count)).value for count in (3, 400, 3)]
        times = created(store)

    assert sorted(set(told)) == told == [ts for ts, _ in letters_of(store)]
    # Of a leap that is not believed, documents have the time all the same.
    assert jump_s == DAY_S or sorted(set(times)) == times
    assert told[-1] - told[0] < (abs(jump_s) if abs(jump_s) < DAY_S else 0) * 1e9 + SECOND_NS


async def test_it_rises_over_a_restart_with_a_clock_that_went_back(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        before = await mutate(node, send, 1)
    earlier = VirtualRuntime(start_ns=before - round(DAY_S * 1e9))
    async with serving(APP, store=store.durable_copy(), runtime=earlier) as node:
        after = await mutate(node, send, 2)

        assert before < after < before + SECOND_NS
        assert [1, 2] == await ask(node, sent)


# And the times of creation.


@pytest.mark.parametrize("count", [0, 200, 260, 15_999])
async def test_a_commit_is_later_than_its_documents_and_those_after_it_than_that(
    count: int, autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    limits = Limits(user_time_s_max=60.0, system_time_s_max=60.0)
    async with serving(APP, store=store, limits=limits) as node:
        result = await call(node, send_many, count)
        retries = [retry.reason for retry in newest(node).retries]
        after = await call(node, send, -1)
        times = created(store)

    assert result.ts == result.value
    assert sorted(set(times)) == times
    assert all(time * 1e6 < result.value for time in times[:-1])
    assert times[-1] * 1e6 < after.value
    assert ["timestamp too early"] * (count > 250) == retries


async def test_who_asks_in_the_end_runs_once_however_much_it_writes(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        result = await call(node, send_first, 2_000)
        times = created(store)

        assert () == newest(node).retries
        assert times[-1] * 1e6 < result.value == result.ts


async def test_a_mutation_runs_again_also_where_it_catches_everything(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        assert 300 == await mutate(node, send_whatever_happens, 300)


async def test_a_job_that_writes_much_runs_again_as_any_mutation_does(
    autojump_clock: MockClock,
) -> None:
    @mutation
    async def later(ctx: MutationCtx) -> None:
        await ctx.scheduler.run_after(0, send_many, 300)

    store = MemoryStore()
    async with serving([*APP, later], store=store) as node:
        await mutate(node, later)
        await node.scheduler.wait_resting()

    [(ts, stamped)] = letters_of(store)
    assert [ts] * 300 == stamped


async def test_those_who_ask_do_not_drive_timestamps_ahead_of_the_clock(
    autojump_clock: MockClock,
) -> None:
    """A clock that stands still while they run is the worst there is."""
    runtime = VirtualRuntime()
    async with serving(APP, runtime=runtime) as node:
        for n in range(100):
            last = await mutate(node, send, n)

        assert last - runtime.now_ns() < 100 * 70_000


# Beside each other.


async def sent_beside_others(
    seed: int, calls: Sequence[tuple[float, bool]]
) -> tuple[list[int], list[int], list[str], MemoryStore]:
    """
    Let mutations run beside each other, and somebody follow an index of their timestamps.

    Args:
        calls: when each is made, and whether it asks.

    Returns:
        What the reader met, going on from its cursor; what there is; why some ran again.
    """
    met: list[int] = []

    async def follow() -> None:
        cursor, seen = Int64(0), 0
        follower = node.published.follow()
        while seen_now := await follower.past(seen):
            seen = seen_now
            for n, at in await ask(node, sent_after, cursor):
                assert at > cursor
                cursor = at
                met.append(n)

    async def send_at(n: int, after_s: float, asks: bool) -> None:
        await trio.sleep(after_s)
        await mutate(node, send_and_stay if asks else write_something_else, n)

    store = MemoryStore()
    runtime = VirtualRuntime(seed, interleaves=True)
    limits = replace(Limits(), retry_backoff_s=0.002, retry_backoff_s_max=0.01)
    async with serving(APP, store=store, runtime=runtime, limits=limits) as node:
        async with trio.open_nursery() as reading:
            reading.start_soon(follow)
            async with trio.open_nursery() as writing:
                for n, (after_s, asks) in enumerate(calls):
                    writing.start_soon(send_at, n, after_s, asks)
            await trio.sleep(1)
            reading.cancel_scope.cancel()
        there: list[int] = await ask(node, sent)
        executions = [one for _, one in node.functions.executions._records]
    reasons: list[str] = [retry.reason for one in executions for retry in one.retries]
    return met, there, reasons, store


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_commits_behind_a_reader_whoever_runs_beside_each_other(
    seed: int, autojump_clock: MockClock
) -> None:
    dice = Random(seed)
    calls = [(dice.choice([0.0, 0.001, 0.002]), dice.random() < 0.6) for _ in range(40)]

    met, there, reasons, store = await sent_beside_others(seed, calls)

    assert [n for n, (_, asks) in enumerate(calls) if asks] == sorted(met)
    assert there == met
    assert all([ts] == stamped for ts, stamped in letters_of(store))
    assert {"conflict"} == set(reasons)
