"""What must hold of commits: their order, when they are told, and what a crash or a trim leaves."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.committer.actor import FOLLOWED_BATCHES
from engine.errors import OutcomeUnknown, OutOfRetention, Stopped
from engine.functions.results import MutationResult
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.log import retention
from engine.log.records import decode_record
from engine.log.retention import read_anchor
from engine.model.limits import Limits
from engine.node import Node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, mutate, serving

DAY_S = 86_400.0
NUMBERS = f"{__name__}:numbers".replace(".", "/")


@mutation
async def add(ctx: MutationCtx) -> int:
    """Add the next number: what is there is always 0, 1, 2 and so on, in the order of commits."""
    n = await ctx.db.count("numbers")
    await ctx.db.insert("numbers", {"n": n})
    return n


@mutation
async def rewrite(ctx: MutationCtx, verb: str) -> None:
    """Leave everything as it is, in one of several ways."""
    doc = await ctx.db.query("numbers").first()
    assert doc is not None
    if verb == "patch":
        await ctx.db.patch(doc["_id"], {"n": doc["n"]})
    elif verb == "replace":
        await ctx.db.replace(doc["_id"], {"n": doc["n"]})
    elif verb == "there and back":
        await ctx.db.patch(doc["_id"], {"n": -1})
        await ctx.db.patch(doc["_id"], {"n": doc["n"]})
    elif verb == "come and go":
        await ctx.db.delete(await ctx.db.insert("numbers", {"n": -1}))


@mutation
async def put(ctx: MutationCtx, n: int) -> None:
    """Make `n` of the only number."""
    doc = await ctx.db.query("numbers").first()
    if doc is None:
        await ctx.db.insert("numbers", {"n": n})
    else:
        await ctx.db.patch(doc["_id"], {"n": n})


@mutation
async def nest(ctx: MutationCtx, n: int) -> None:
    await ctx.db.insert("nested", {"nested": [n]})


@query
async def numbers(ctx: QueryCtx) -> list[int]:
    return sorted([doc["n"] for doc in await ctx.db.query("numbers").collect()])


APP = [add, rewrite, put, nest, numbers]


async def call(node: Node, fn: Any, **args: Any) -> MutationResult:
    return await node.functions.mutation(fn.path, args, caller=ADMIN)


async def seen_at(node: Node, ts: int) -> list[int]:
    result = await node.functions.query(NUMBERS, {}, caller=ADMIN, ts=ts)
    result.live.release()
    assert result.failure is None, result.failure.message
    seen: list[int] = result.value
    return seen


async def seen_then(node: Node, ts: int) -> list[int]:
    """As `seen_at`, of a time before the engine was opened."""
    result = await node.functions.query_at(NUMBERS, {}, caller=ADMIN, ts=ts)
    assert result.failure is None, result.failure.message
    seen: list[int] = result.value
    return seen


async def kept_by(store: MemoryStore) -> list[int]:
    """What an engine finds that opens `store`, which is sound."""
    *_, findings = verify(store.snapshot)
    assert [] == findings.problems
    async with serving(APP, store=store) as node:
        found: list[int] = await ask(node, numbers)
        return found


def log_of(store: MemoryStore) -> list[int]:
    with store.snapshot() as snapshot:
        return [decode_record(data).ts for _, data in snapshot.range(Tree.LOG, b"", None)]


async def test_commit_timestamps_strictly_rise_across_restarts_and_clock_jumps(
    autojump_clock: MockClock,
) -> None:
    store, told, started = MemoryStore(), [0], VirtualRuntime().now_ns
    for life_starts_s in (0.0, -DAY_S, 30 * DAY_S, 0.0):
        runtime = VirtualRuntime(start_ns=started() + round(life_starts_s * 1e9))
        async with serving(APP, store=store, runtime=runtime) as node:
            for jump_s in (0.0, -DAY_S, 1_800.0, 2 * DAY_S, -0.000001):
                runtime.jump(jump_s)
                for _ in range(3):
                    told.append((await call(node, add)).ts or 0)
                    assert told[-1] == node.published.value == log_of(store)[-1]
        store = store.durable_copy()

    assert all(before < after for before, after in pairwise(told))
    assert all(before < after for before, after in pairwise(log_of(store)))


async def test_commits_are_published_in_order_and_none_without_those_before_it(
    autojump_clock: MockClock,
) -> None:
    commits: dict[int, int] = {}
    states: list[tuple[int, list[int]]] = []

    async def follow() -> None:
        seen, follower = node.published.value, node.published.follow()
        while upto := await follower.past(seen):
            states.append((upto, await seen_at(node, upto)))
            assert upto > seen
            seen = upto

    async def write() -> None:
        for _ in range(10):
            result = await call(node, add)
            assert result.ts is not None
            commits[result.ts] = result.value

    async def take_a_moment() -> None:
        await trio.sleep(0.01)

    store = MemoryStore(flush=take_a_moment)
    limits = replace(Limits(), batch_count_max=3)
    async with serving(APP, store=store, limits=limits) as node, trio.open_nursery() as watching:
        watching.start_soon(follow)
        async with trio.open_nursery() as writing:
            for _ in range(8):
                writing.start_soon(write)
        watching.cancel_scope.cancel()

    assert list(range(80)) == [commits[ts] for ts in sorted(commits)]
    assert 20 < len(states)
    for upto, seen in states:
        assert [n for ts, n in sorted(commits.items()) if ts <= upto] == seen


@pytest.mark.parametrize("time", range(10))  # which of two tasks comes first is trio's dice
async def test_a_mutation_is_answered_when_its_commit_is_durable_and_published(
    autojump_clock: MockClock, time: int
) -> None:
    store = MemoryStore()
    answers: list[tuple[int, int, MemoryStore]] = []

    async def write() -> None:
        result = await call(node, add)
        assert result.ts is not None
        answers.append((result.ts, node.published.value, store.durable_copy()))

    async with serving(APP, store=store) as node, trio.open_nursery() as nursery:
        disk = store.hold()
        nursery.start_soon(write)
        await disk.wait_reached()
        # They share a batch: half of them are answered before the others.
        for _ in range(5):
            nursery.start_soon(write)
        await wait_all_tasks_blocked()
        assert [] == answers
        disk.release()

    assert 6 == len(answers)
    assert [] == [(ts, published) for ts, published, _ in answers if published < ts]
    for place, (_, _, left) in enumerate(sorted(answers, key=lambda answer: answer[0])):
        assert list(range(place + 1)) == (await kept_by(left))[: place + 1]


async def test_no_query_sees_what_is_pending_or_a_timestamp_that_is_not_published(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    seen: list[list[int]] = []

    async def look_at(node: Node, ts: int) -> None:
        seen.append(await seen_at(node, ts))

    async with serving(APP, store=store) as node, trio.open_nursery() as nursery:
        await mutate(node, add)
        published = node.published.value
        disk = store.hold()
        nursery.start_soon(call, node, add)
        await disk.wait_reached()
        pending = node.committer.head.ts

        await trio.sleep(1)
        nursery.start_soon(look_at, node, pending)
        await wait_all_tasks_blocked()

        assert pending > published == node.published.value
        assert [0] == await ask(node, numbers)
        assert [] == seen, "whoever asks for what is pending waits"

        disk.release()
        await node.published.wait_reached(pending)
        await wait_all_tasks_blocked()
        assert [[0, 1]] == seen
        assert [0] == await seen_at(node, published)


@pytest.mark.parametrize("verb", ["nothing", "patch", "replace", "there and back", "come and go"])
async def test_what_changes_nothing_is_no_commit_and_wakes_and_refuses_nobody(
    verb: str, autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await mutate(node, add)
        shown = await node.functions.query(NUMBERS, {}, caller=ADMIN)
        before, records = node.published.value, log_of(store)

        result = await call(node, rewrite, verb=verb)

        assert (None, before) == (result.failure, result.ts)
        assert records == log_of(store)
        assert before == node.committer.head.ts == node.published.value
        node.committer.validate(shown.live.reads, shown.ts, "test", node.committer.next_ts())
        assert shown.live.invalidated_at is None
        shown.live.release()


async def test_a_crash_at_any_point_leaves_a_prefix_with_all_that_was_acknowledged(
    autojump_clock: MockClock,
) -> None:
    acknowledged: list[int] = []
    crashes: list[tuple[list[int], MemoryStore]] = []

    async def crash() -> None:
        await trio.sleep(0.01)
        if not is_over:  # copies flush in the same way
            told = list(acknowledged)
            crashes.append((told, store.durable_copy()))
            crashes.append((told, store.durable_copy(in_flight=True)))

    async def write() -> None:
        for _ in range(6):
            result = await call(node, add)
            acknowledged.append(result.value)

    is_over = False
    store = MemoryStore(flush=crash)
    limits = replace(Limits(), batch_count_max=3)
    async with serving(APP, store=store, limits=limits) as node:
        crashes.clear()
        async with trio.open_nursery() as writing:
            for _ in range(5):
                writing.start_soon(write)
    crashes.append((acknowledged, store.durable_copy()))
    is_over = True

    for told, left in crashes:
        kept = await kept_by(left)
        assert list(range(len(kept))) == kept
        assert set(told) <= set(kept)
    assert 30 == len(acknowledged)
    assert 20 < len(crashes)


@pytest.mark.parametrize("written", [False, True])
async def test_a_batch_of_unknown_fate_stops_the_engine_and_the_log_says_what_became_of_it(
    written: bool, autojump_clock: MockClock
) -> None:
    store = MemoryStore()
    told: list[BaseException | None] = []

    async def keep(answer: Coroutine[Any, Any, Any]) -> None:
        try:
            await answer
            told.append(None)
        except (OutcomeUnknown, Stopped) as error:
            told.append(error)

    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="on fire"), flatten_subgroups=True):
        async with serving(APP, store=store) as node:
            await mutate(node, add)
            store.fail_next(OSError("disk on fire"), written=written)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep, mutate(node, add))
                await node.published.wait_reached(2**63 - 1)
    await keep(mutate(node, add))

    assert [OutcomeUnknown, Stopped] == [type(error) for error in told]
    assert ([0, 1] if written else [0]) == await kept_by(store.durable_copy())


# What a trim leaves.

KEPT = replace(Limits(), log_age_s_max=DAY_S, log_age_s_min=60.0)


async def test_the_anchor_rises_in_the_batch_that_removes_what_is_before_it(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """So whoever reads finds either the log that it needs or that it is gone, at any instant."""
    monkeypatch.setattr(retention, "SLICE_RECORDS", 3)
    states: list[MemoryStore] = []

    async def look() -> None:
        if not is_over:  # copies flush in the same way
            states.extend(store.durable_copy(in_flight=in_flight) for in_flight in (False, True))

    is_over = False
    store = MemoryStore(flush=look)
    history: dict[int, int] = {}
    async with serving(APP, store=store, limits=KEPT) as node:
        for n in range(12):
            result = await call(node, put, n=n)
            assert result.ts is not None
            history[result.ts] = n
        await trio.sleep(DAY_S + 1)
        states.clear()
        assert 12 < await node.retention.trim()
    is_over = True

    anchors = set()
    for left in states:
        with left.snapshot() as snapshot:
            anchor_ts = read_anchor(snapshot).ts
        anchors.add(anchor_ts)
        *_, findings = verify(left.snapshot)
        assert [] == findings.problems
        async with serving(APP, store=left, limits=KEPT) as node:
            for ts, n in history.items():
                if ts >= anchor_ts:
                    assert [n] == await seen_then(node, ts)
                else:
                    with pytest.raises(OutOfRetention):
                        await seen_then(node, ts)
    assert 4 < len(anchors)


async def test_trimming_takes_no_newest_version_of_a_document_or_an_entry(
    autojump_clock: MockClock,
) -> None:
    def state() -> list[Any]:
        with store.snapshot() as snapshot:
            return [list(snapshot.range(tree, b"", None)) for tree in (Tree.ROWS, Tree.ENTRIES)]

    store = MemoryStore()
    async with serving(APP, store=store, limits=KEPT) as node:
        for _ in range(10):
            await mutate(node, add)
        for n in range(5):
            await mutate(node, put, n=n)
        before, newest = state(), node.published.value
        seen = await ask(node, numbers)

        await trio.sleep(3 * DAY_S)  # an engine trims by itself

        assert log_of(store)[0] > newest
        assert before == state()
        assert seen == await ask(node, numbers)


def _decoded() -> int:
    gc.collect()
    return sum(type(found) is dict and "nested" in found for found in gc.get_objects())


async def test_documents_of_commits_that_were_followed_are_not_kept_decoded() -> None:
    """Their images are, and who asks decodes them again."""
    count = FOLLOWED_BATCHES + 20
    of_others = _decoded()
    async with serving(APP) as node:
        before = node.published.value
        for n in range(count):
            await mutate(node, nest, n)
        decoded = _decoded() - of_others
        commits = node.recent.between(before, node.published.value)
        docs = [write.after_doc for commit in commits for write in commit.writes]

    assert FOLLOWED_BATCHES <= decoded < count
    assert [[n] for n in range(count)] == [doc["nested"] for doc in docs if doc and "nested" in doc]
