"""A mutation of the past writes the same again, or what it writes now is told."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx
from engine.app.crons import Crons
from engine.app.decorators import mutation
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import FunctionNotFound
from engine.functions.replay import Replayed
from engine.functions.results import Caller
from engine.log.records import Record, decode_record
from engine.model.commits import SessionRequest, Source
from engine.model.identity import Identity
from engine.model.limits import Limits
from engine.node import Node
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node import histories as model
from tests.node.nodes import ADMIN, application, mutate, serving

PATH = "tests/node/test_replay:"
FACTOR = {"n": 1}


@mutation
async def add(ctx: MutationCtx, n: float) -> str:
    drawn = [ctx.random.random(), str(ctx.uuid4()), ctx.now_ms]
    return await ctx.db.insert("things", {"n": n * FACTOR["n"], "drawn": drawn})


@mutation
async def add_in_parts(ctx: MutationCtx, n: float) -> None:
    await ctx.run_mutation(add, n=n)
    with pytest.raises(ZeroDivisionError):
        await ctx.run_mutation(add_and_fail, n=n)
    await ctx.scheduler.run_after(5, add, n=n)


@mutation
async def sign(ctx: MutationCtx) -> None:
    await ctx.db.insert("things", {"by": await ctx.auth.get_user_identity()})


@mutation(record=False)
async def sign_in_secret(ctx: MutationCtx) -> None:
    await ctx.db.insert("things", {"by": await ctx.auth.get_user_identity()})


@mutation
async def add_and_fail(ctx: MutationCtx, n: float) -> None:
    await ctx.db.insert("things", {"n": n / 0})


APP = [add, add_in_parts, add_and_fail, sign, sign_in_secret]


def records(store: MemoryStore) -> list[Record]:
    with store.snapshot() as snapshot:
        return [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]


async def replayed(node: Node, record: Record, before: Record) -> Replayed:
    return await node.functions.replay(record.source, record.writes, ts=record.ts, after=before.ts)


async def all_replayed(node: Node, store: MemoryStore, prefix: str) -> list[Replayed]:
    found = records(store)
    return [
        await replayed(node, record, before)
        for before, record in pairwise(found)
        if record.source.path.startswith(prefix)
    ]


@pytest.mark.parametrize("seed", range(3))
async def test_every_mutation_of_a_history_writes_the_same_again(
    autojump_clock: MockClock, seed: int
) -> None:
    history = model.History(seed)
    store = MemoryStore()
    async with model.opened(store, model.schema, seed) as node:
        for _ in range(30):
            await history.step(node)

        again = await all_replayed(node, store, "t:")

    assert 30 >= len(again) > 20
    assert [[]] * len(again) == [list(each.differences) for each in again]
    assert sum(each.compared for each in again) > 30


@mutation
async def add_next(ctx: MutationCtx) -> None:
    last = await ctx.db.query("things").with_index("by_n").order("desc").first()
    await ctx.db.insert("things", {"n": last["n"] + 1 if last else 0, "drawn": []})


@mutation
async def put(ctx: MutationCtx, n: float, of: Any = None) -> str:
    return await ctx.db.insert("things", {"n": n, "of": of})


@mutation
async def drop(ctx: MutationCtx, thing: Any) -> None:
    await ctx.db.delete(thing)


def _things() -> Table:
    return Table(v.object({"n": v.number(), "of": v.union(v.null(), v.id("things"))}))


@pytest.mark.parametrize("limits", [Limits(), Limits(past_bytes_max=1)], ids=["memory", "annex"])
@pytest.mark.parametrize(
    ("then", "now"),
    [
        (_things().index("by_n", ["n"], unique=True), _things()),
        (_things(), _things().index("by_n", ["n"], unique=True)),
        (_things(), _things().index("by_of", ["of"]).reference("of", on_delete="cascade")),
    ],
    ids=["no longer unique", "unique since", "a reference since"],
)
async def test_a_mutation_runs_again_whatever_rules_came_or_went(
    autojump_clock: MockClock, then: Table, now: Table, limits: Limits
) -> None:
    store = MemoryStore()
    async with serving([put, drop, Schema(things=then)], store=store, limits=limits) as node:
        first = await mutate(node, put, n=1)
        second = await mutate(node, put, n=2, of=first)
        for thing in (second, first, await mutate(node, put, n=3)):
            await mutate(node, drop, thing=thing)
        await node.push(application(put, drop, Schema(things=now)))

        again = await all_replayed(node, store, PATH)

    assert [(None, 1, [])] * 6 == [
        (each.outcome.failure, each.compared, list(each.differences)) for each in again
    ]


@pytest.mark.parametrize("limits", [Limits(), Limits(past_bytes_max=1)], ids=["memory", "annex"])
async def test_indexes_that_were_dropped_since_are_there_again(
    autojump_clock: MockClock, limits: Limits
) -> None:
    store = MemoryStore()
    things = Table(v.object({"n": v.number(), "drawn": v.array(v.any())}))
    unique = Schema(things=things.index("by_n", ["n"], unique=True))
    async with serving([add_next, unique], store=store, limits=limits) as node:
        for _ in range(5):
            await mutate(node, add_next)
        await node.push(application(add_next, Schema(things=things)))

        again = await all_replayed(node, store, PATH)

    assert [(None, 1, [])] * 5 == [
        (each.outcome.failure, each.compared, list(each.differences)) for each in again
    ]


async def test_what_the_engine_writes_beside_a_mutation_is_left_out(
    autojump_clock: MockClock,
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        session = SessionRequest(session_id=bytes(16), request_id=1)
        await node.functions.mutation(PATH + "add", {"n": 1}, caller=ADMIN, request=session)
        await mutate(node, add_in_parts, n=2)
        await trio.sleep(1)

        again = await all_replayed(node, store, PATH)

    paths = [each.outcome.request.path.removeprefix(PATH) for each in again]
    assert ["add", "add_in_parts", "add"] == paths
    assert [(1, []), (2, []), (1, [])] == [(e.compared, list(e.differences)) for e in again]


async def test_the_next_tick_of_a_cron_is_the_engines(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    crons = Crons()
    crons.interval("add", add, hours=2, args={"n": 3})
    async with serving([*APP, crons], store=store) as node:
        await trio.sleep(3_700)

        (again,) = await all_replayed(node, store, PATH)

    assert (1, []) == (again.compared, list(again.differences))


ADA = Identity(
    issuer="https://id", subject="ada", token_identifier="https://id|ada", claims={"age": 36}
)


async def test_it_runs_as_whoever_called(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await node.functions.mutation(PATH + "sign", {}, caller=Caller(identity=ADA))

        (again,) = await all_replayed(node, store, PATH)

    assert (1, []) == (again.compared, list(again.differences))


@pytest.mark.parametrize(("name", "args"), [("add", {"n": 1}), ("sign_in_secret", {})])
async def test_who_called_is_recorded_only_where_it_is_asked_for_and_may_be(
    autojump_clock: MockClock, name: str, args: dict[str, Any]
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await node.functions.mutation(PATH + name, args, caller=Caller(identity=ADA))

    source = records(store)[-1].source
    assert (PATH + name, None) == (source.path, source.identity)


async def test_it_runs_in_its_own_component(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    mounted = replace(application(*APP), mounts={"left": application(add)})
    async with serving(mounted, store=store) as node:
        await node.functions.mutation(PATH + "add", {"n": 1}, caller=ADMIN, component="left")

        (again,) = await all_replayed(node, store, PATH)

    assert "left" == again.outcome.request.component
    assert (1, []) == (again.compared, list(again.differences))


async def test_what_it_writes_otherwise_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await mutate(node, add, n=2)
        monkeypatch.setitem(FACTOR, "n", 10)

        again = await all_replayed(node, store, PATH)

    (difference,) = again[0].differences
    assert difference.then is not None
    assert difference.now is not None
    then: Any = difference.then.after_doc
    now: Any = difference.now.after_doc
    assert (2, 20) == (then["n"], now["n"])
    assert {**then, "n": 20} == now


async def test_what_two_documents_may_not_share_fails_now(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    unique = Schema(things=Table(v.any()).index("by_n", ["n"], unique=True))
    async with serving([*APP, unique], store=store) as node:
        await mutate(node, add, n=1)
        await mutate(node, add, n=2)
        monkeypatch.setitem(FACTOR, "n", 0.5)

        _, again = await all_replayed(node, store, PATH)

    assert again.outcome.failure is not None
    assert "unique index 'by_n'" in again.outcome.failure.message
    assert [(True, None)] == [(each.then is not None, each.now) for each in again.differences]


async def test_nothing_is_written_and_nobody_is_told(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        await mutate(node, add, n=1)
        before = (
            len(records(store)),
            node.published.value,
            list(node.functions.executions.after(0)),
        )

        await all_replayed(node, store, PATH)

        after = (
            len(records(store)),
            node.published.value,
            list(node.functions.executions.after(0)),
        )

    assert before == after


async def test_a_mutation_that_is_gone_is_named(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, add, n=1)
        source = Source("gone:send", args={}, seed=random.Random(1).getrandbits(64))

        with pytest.raises(FunctionNotFound, match="gone:send"):
            await node.functions.replay(source, [], ts=0, after=node.published.value)
