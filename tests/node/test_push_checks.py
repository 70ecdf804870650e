"""Pushes of a changed schema: documents are checked while others write them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypedDict

import pytest
import trio
from annotated_types import Le

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registry import Application
from engine.app.schema import Schema, Table, define_schema
from engine.app.validators import Object, v
from engine.errors import DocumentNotFound, PushRefused, SchemaViolation
from engine.functions import document_check, unique_check
from engine.functions.targets import call_target
from engine.indexes.catalog import IndexState
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import TABLE_INDEXES_MAX, Limits
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, application, ask, mutate, serving

SLICE_ROWS = document_check.SLICE_ROWS
Rule = Any

ANYTHING = v.object({"n": v.any()})
NUMBERS = v.object({"n": v.number()})


@mutation
async def add(ctx: MutationCtx, values: list[Any]) -> list[Any]:
    return [await ctx.db.insert("things", {"n": value}) for value in values]


@mutation
async def put(ctx: MutationCtx, thing: Any, value: Any) -> None:
    await ctx.db.patch(thing, {"n": value})


@mutation
async def drop(ctx: MutationCtx, thing: Any) -> None:
    await ctx.db.delete(thing)


@query
async def values(ctx: QueryCtx) -> list[Any]:
    return [doc["n"] for doc in await ctx.db.query("things").collect()]


@query
async def by_n(ctx: QueryCtx, n: Any) -> int:
    return len(await ctx.db.query("things").with_index("by_n", n=n).collect())


def app(rule: Rule | None, *, validates: bool = True, **indexes: list[str]) -> Application:
    """The functions above, with a schema of `things` unless its rule is `None`."""
    functions = (add, put, drop, values, by_n)
    if rule is None:
        return application(*functions)
    things = Table(rule)
    for name, fields in indexes.items():
        things = things.index(name, fields)
    return application(*functions, Schema.of({"things": things}, schema_validation=validates))


@dataclass
class World:
    """A node with a table of anything, and the clock that it runs on."""

    node: Node
    store: MemoryStore
    runtime: VirtualRuntime
    ids: list[str]

    async def swept(self) -> None:
        """What was dropped is gone."""
        with trio.fail_after(60):
            while self.node.upkeep.indexes(IndexState.DROPPING):
                await self.node.published.wait_reached(self.node.published.value + 1)

    async def documents(self) -> list[Any]:
        found: list[Any] = await ask(self.node, values)
        return found


@asynccontextmanager
async def world(count: int, *, limits: Limits | None = None) -> AsyncIterator[World]:
    """Things that are numbered from 0, under a schema that allows anything."""
    store, runtime = MemoryStore(), VirtualRuntime()
    async with serving(app(ANYTHING), store=store, runtime=runtime, limits=limits) as node:
        ids: list[str] = []
        for first in range(0, count, 5_000):
            ids += await mutate(node, add, values=list(range(first, min(first + 5_000, count))))
        yield World(node, store, runtime, sorted(ids))


@asynccontextmanager
async def pushing(
    node: Node, pushed: Application, *, refused: str | None = None
) -> AsyncIterator[None]:
    """Push beside the block; at its end the push has done, or was refused with that text."""

    async def push() -> None:
        if refused is None:
            await node.push(pushed)
            return
        with pytest.raises(PushRefused, match=refused):
            await node.push(pushed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(push)
        yield


async def test_mutations_are_answered_while_documents_are_checked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answered = 0
    answered_at: list[int] = []

    async def go_on(node: Node, doc_id: str) -> None:
        nonlocal answered
        while True:
            await mutate(node, put, thing=doc_id, value=answered)
            answered += 1

    async with world(20_000) as w, trio.open_nursery() as writers:
        for doc_id in w.ids[:5]:
            writers.start_soon(go_on, w.node, doc_id)
        await w.node.push(
            app(NUMBERS), progress=lambda _what, _done, _total: answered_at.append(answered)
        )
        writers.cancel_scope.cancel()

    slices = 20_000 // SLICE_ROWS
    assert slices - 1 <= len(answered_at)
    assert answered_at[-1] - answered_at[0] >= slices


async def test_a_document_spoiled_behind_the_walk_fails_the_push_and_not_the_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(5 * SLICE_ROWS) as w:
        hold = w.runtime.hold("push.checked", skip=2)
        first = w.ids[0]
        async with pushing(w.node, app(NUMBERS), refused=f"(?s){first}.*number"):
            await hold.wait_reached()
            await mutate(w.node, put, thing=first, value="no number")
            hold.release()

        assert "no number" in await w.documents()


async def test_a_document_added_during_the_walk_is_checked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(5 * SLICE_ROWS) as w:
        hold = w.runtime.hold("push.checked", skip=2)
        async with pushing(w.node, app(NUMBERS), refused="does not fit the new schema"):
            await hold.wait_reached()
            await trio.sleep(1)  # ids begin with the time, so this one comes after all others
            await mutate(w.node, add, values=["no number"])
            hold.release()


@pytest.mark.parametrize("repair", ["put", "drop"])
async def test_a_document_repaired_during_the_walk_lets_the_push_pass(
    repair: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(5 * SLICE_ROWS) as w:
        await mutate(w.node, put, thing=w.ids[0], value="no number")
        hold = w.runtime.hold("push.checked", skip=2)
        async with pushing(w.node, app(NUMBERS)):
            await hold.wait_reached()
            if repair == "put":
                await mutate(w.node, put, thing=w.ids[0], value=0)
            else:
                await mutate(w.node, drop, thing=w.ids[0])
            hold.release()

        with pytest.raises(SchemaViolation):
            await mutate(w.node, put, thing=w.ids[1], value="no number")


async def test_what_is_on_its_way_to_the_disk_at_the_switch_is_checked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(10) as w, trio.open_nursery() as nursery:
        hold = w.runtime.hold("push.switch")
        async with pushing(w.node, app(NUMBERS), refused="does not fit the new schema"):
            await hold.wait_reached()
            disk = w.store.hold()
            nursery.start_soon(lambda: mutate(w.node, put, thing=w.ids[0], value="no number"))
            await disk.wait_reached()
            hold.release()
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            disk.release()


async def test_a_push_that_has_forgotten_the_newest_commits_reads_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    forgetful = replace(Limits(), history_count_max=2)
    async with world(5 * SLICE_ROWS, limits=forgetful) as w:
        hold = w.runtime.hold("push.checked", skip=2)
        async with pushing(w.node, app(NUMBERS), refused="does not fit the new schema"):
            await hold.wait_reached()
            await mutate(w.node, put, thing=w.ids[0], value="no number")
            for number in range(300):
                await mutate(w.node, put, thing=w.ids[1], value=number)
            hold.release()


async def test_who_writes_faster_than_documents_are_checked_waits_for_the_rest(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(document_check, "SLICE_ROWS", 1)
    monkeypatch.setattr(document_check, "CHANGED_ROWS_MAX", 3)

    async def go_on(node: Node, doc_id: str) -> None:
        number = 0
        while True:
            number += 1
            await mutate(node, put, thing=doc_id, value=number)

    async with world(50) as w, trio.open_nursery() as writers:
        for doc_id in w.ids:
            writers.start_soon(go_on, w.node, doc_id)
        await w.node.push(app(NUMBERS))
        writers.cancel_scope.cancel()


async def test_a_push_with_more_misfits_than_anybody_repairs_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(document_check, "MISFITS_MAX", 10)
    seen: list[int] = []
    async with world(5 * SLICE_ROWS) as w:
        with pytest.raises(PushRefused, match="does not fit"):
            await w.node.push(
                app(v.object({"n": v.string()})), progress=lambda _w, done, _t: seen.append(done)
            )

    assert [] == seen


async def test_a_push_that_fails_leaves_everything(autojump_clock: trio.testing.MockClock) -> None:
    wide = Schema.of(
        {
            "things": Table(NUMBERS).index("by_n", ["n"]),
            "others": Table(ANYTHING).index("by_n", ["n"]),
        }
    )
    async with world(2 * SLICE_ROWS) as w:
        await mutate(w.node, put, thing=w.ids[-1], value="no number")
        before = state_of(w)

        with pytest.raises(PushRefused, match=f"document {w.ids[-1]} of 'things'"):
            await w.node.push(application(values, wide))
        await w.swept()

        assert before == state_of(w)
        await mutate(w.node, put, thing=w.ids[0], value="anything, as before")
        assert "anything, as before" in await w.documents()
        *_, found = verify(w.store.snapshot)
        assert [] == found.problems


async def test_a_push_that_breaks_takes_back_what_it_prepared(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def breaks(what: str, done: int, total: int | None) -> None:
        raise OSError(f"nobody is told of {what}")

    async with world(2 * SLICE_ROWS) as w:
        before = state_of(w)

        with pytest.raises(OSError, match="nobody is told of"):
            await w.node.push(app(ANYTHING, by_n=["n"]), progress=breaks)
        await w.swept()

        assert before == state_of(w)


def state_of(w: World) -> Any:
    """What a function could notice of a deployment."""
    deployment, catalog = w.node.functions.deployment, w.node.committer.head.catalog
    tables = {
        (table.component, table.name): [
            (name, index.index_id, index.state) for name, index in table.indexes.items()
        ]
        for table in catalog.by_number.values()
    }
    return deployment, tables


async def test_an_index_of_a_table_that_others_fill_meanwhile_is_complete(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(0) as w:
        hold = w.runtime.hold("push.checked")
        async with pushing(w.node, app(NUMBERS, by_n=["n"])):
            await hold.wait_reached()
            await mutate(w.node, add, values=[1, 1, 2])
            hold.release()

        assert 2 == await ask(w.node, by_n, n=1)
        table = w.node.committer.head.catalog.table("", "things")
        assert table is not None
        assert IndexState.ENABLED is table.indexes["by_n"].state


@pytest.mark.parametrize("lenient", [None, ANYTHING], ids=["no schema", "no validation"])
async def test_documents_are_checked_again_after_a_time_without_rules(
    lenient: Rule | None, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(app(NUMBERS)) as node:
        await node.push(app(None) if lenient is None else app(NUMBERS, validates=False))
        await mutate(node, add, values=["no number"])

        with pytest.raises(PushRefused, match="does not fit the new schema"):
            await node.push(app(NUMBERS))


async def test_pushes_come_one_after_another(autojump_clock: trio.testing.MockClock) -> None:
    async with world(3 * SLICE_ROWS) as w:
        hold = w.runtime.hold("push.checked")
        async with pushing(w.node, app(NUMBERS)):
            await hold.wait_reached()
            async with pushing(w.node, app(ANYTHING)):
                for _ in range(50):
                    await trio.lowlevel.checkpoint()
                assert 1 == hold.passed
                hold.release()

        await mutate(w.node, put, thing=w.ids[0], value="no number")


async def test_whatever_is_written_meanwhile_documents_fit_after_a_push(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(document_check, "SLICE_ROWS", 3)

    passed = {seed: await push_amid_writes(random.Random(seed), monkeypatch) for seed in range(60)}

    assert {True, False} == set(passed.values()), "both are seen, or it is no test"


async def push_amid_writes(dice: random.Random, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the push passed; if so, there is no document that does not fit."""
    monkeypatch.setattr(document_check, "CHANGED_ROWS_MAX", dice.choice([5, 100]))
    limits = replace(Limits(), history_count_max=dice.choice([2, 1_000]))
    async with world(40, limits=limits) as w:
        async with trio.open_nursery() as writers:
            for _ in range(3):
                writers.start_soon(write_at_random, w, dice)
            is_refused = False
            try:
                await w.node.push(app(NUMBERS))
            except PushRefused:
                is_refused = True
            writers.cancel_scope.cancel()
        assert is_refused or not any(isinstance(value, str) for value in await w.documents())
        return not is_refused


async def write_at_random(w: World, dice: random.Random) -> None:
    """For a while; a document that was spoiled is repaired at once, mostly."""
    for _ in range(dice.randrange(20)):
        doc_id = dice.choice(w.ids)
        with suppress(DocumentNotFound, SchemaViolation):
            await mutate(w.node, put, thing=doc_id, value="no number")
            if dice.random() < 0.9:
                await mutate(w.node, put, thing=doc_id, value=1)
            elif dice.random() < 0.5:
                await mutate(w.node, drop, thing=doc_id)
        if dice.random() < 0.3:
            await mutate(w.node, add, values=[2])


def with_unique_n() -> Application:
    return application(
        put, values, Schema(things=Table(ANYTHING).index("by_n", ["n"], unique=True))
    )


async def test_two_documents_with_one_unique_key_may_be_told_apart_before_the_switch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(5) as w:
        await mutate(w.node, put, thing=w.ids[0], value=99)
        await mutate(w.node, put, thing=w.ids[1], value=99)
        hold = w.runtime.hold("push.switch")
        async with pushing(w.node, with_unique_n()):
            await hold.wait_reached()
            await mutate(w.node, put, thing=w.ids[1], value=98)
            hold.release()

        with pytest.raises(SchemaViolation, match="by_n"):
            await mutate(w.node, put, thing=w.ids[1], value=99)


@pytest.mark.parametrize("slice_entries", [1, 2, 500])
async def test_two_documents_with_one_unique_key_are_found_wherever_slices_end(
    slice_entries: int, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(unique_check, "SLICE_ENTRIES", slice_entries)
    async with world(6) as w:
        await mutate(w.node, put, thing=w.ids[3], value=77)
        await mutate(w.node, put, thing=w.ids[4], value=77)
        hold = w.runtime.hold("push.checked")
        async with pushing(w.node, with_unique_n(), refused="'n': 77"):
            await hold.wait_reached()
            await mutate(w.node, put, thing=w.ids[0], value=55)  # nobody waits meanwhile
            hold.release()


@pytest.mark.parametrize("pause", ["push.checked", "push.switch"])
async def test_a_pair_that_comes_about_behind_the_walk_fails_the_push_and_not_the_write(
    pause: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with world(5) as w:
        await mutate(w.node, put, thing=w.ids[0], value=99)
        hold = w.runtime.hold(pause)
        async with pushing(
            w.node, with_unique_n(), refused="of the table 'things' both have {'n': 99}"
        ):
            await hold.wait_reached()
            await mutate(w.node, put, thing=w.ids[1], value=99)
            hold.release()

        await mutate(w.node, put, thing=w.ids[2], value=99)


async def test_without_validation_indexes_are_built_and_nothing_is_checked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(3) as w:
        await mutate(w.node, put, thing=w.ids[0], value="no number")

        await w.node.push(app(NUMBERS, validates=False, by_n=["n"]))
        await mutate(w.node, put, thing=w.ids[1], value="no number")

        assert 2 == await ask(w.node, by_n, n="no number")
        with pytest.raises(PushRefused, match="does not fit the new schema"):
            await w.node.push(app(NUMBERS, by_n=["n"]))
        assert 2 == await ask(w.node, by_n, n="no number")


def others_only(**options: Any) -> Application:
    others = {"others": Table(NUMBERS), "thongs": Table(NUMBERS)}
    return application(add, put, drop, values, define_schema(others, **options))


@pytest.mark.parametrize("strict_types", [True, False])
async def test_tables_that_the_schema_does_not_mention_are_written_unchecked(
    strict_types: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving(others_only(strict_table_name_types=strict_types)) as node:
        await mutate(node, add, values=["anything", 1])

        assert ["anything", 1] == await ask(node, values)


async def test_a_strict_schema_lets_no_other_table_be_written(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(2) as w:
        await w.node.push(others_only(strict_tables=True))

        with pytest.raises(SchemaViolation, match=r"no table 'things'.* Did you mean `thongs`\?"):
            await mutate(w.node, add, values=[1])
        with pytest.raises(SchemaViolation, match="no table 'things'"):
            await mutate(w.node, put, thing=w.ids[0], value=1)
        await mutate(w.node, drop, thing=w.ids[0])
        assert 1 == len(await w.documents())

        await w.node.push(others_only(strict_tables=True, schema_validation=False))
        await mutate(w.node, add, values=[1])


def walked(progress: list[str]) -> bool:
    return "documents of things" in progress


@pytest.mark.parametrize(
    "rule",
    [
        ANYTHING,
        v.any(),
        ANYTHING.extend({"m": v.optional(v.string())}),
        ANYTHING.partial(),
        v.union(NUMBERS, ANYTHING),
    ],
    ids=str,
)
async def test_documents_of_which_the_old_rule_says_enough_are_not_looked_at(
    rule: Rule, autojump_clock: trio.testing.MockClock
) -> None:
    told: list[str] = []
    async with world(3 * SLICE_ROWS) as w:
        await w.node.push(app(rule), progress=lambda what, _done, _total: told.append(what))
        assert not walked(told)

        await w.node.push(app(NUMBERS), progress=lambda what, _done, _total: told.append(what))
        assert walked(told)


async def test_an_old_rule_that_was_not_enforced_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with world(1) as w:
        await w.node.push(app(NUMBERS, validates=False))
        await mutate(w.node, put, thing=w.ids[0], value="no number")

        with pytest.raises(PushRefused):
            await w.node.push(app(v.object({"n": v.union(v.number(), v.null())})))


class Whole(TypedDict):
    n: int


class Small(TypedDict):
    n: Annotated[float, Le(5)]


@pytest.mark.parametrize("rule", [Whole, Small, v.object({"n": v.literal(True)})])
async def test_a_rule_that_clients_cannot_tell_from_the_old_one_is_checked(
    rule: Rule, autojump_clock: trio.testing.MockClock
) -> None:
    before = v.object({"n": v.literal(1)}) if isinstance(rule, Object) else NUMBERS
    async with serving(app(before)) as node:
        await mutate(node, add, values=[1 if isinstance(rule, Object) else 5.5])

        with pytest.raises(PushRefused, match="does not fit the new schema"):
            await node.push(app(rule))


async def test_how_many_documents_there_are_to_look_at_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    told: list[tuple[str, int, int | None]] = []
    count = 2 * SLICE_ROWS + 1
    indexed = Table(NUMBERS).index("by_n", ["n"], unique=True)
    async with world(count) as w:
        await w.node.push(
            application(values, Schema(things=indexed)), progress=lambda *now: told.append(now)
        )

    assert {"index things.by_n", "unique index by_n", "documents of things"} == {
        what for what, _, _ in told
    }
    assert {count} == {total for _, _, total in told}
    assert ("index things.by_n", count, count) in told


async def test_documents_of_a_component_are_checked_and_named_by_its_place(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def mounted(rule: Rule) -> Application:
        return replace(application(values), mounts={"left": app(rule, by_n=["n"])})

    store = MemoryStore()
    async with serving(mounted(ANYTHING), store=store) as node:
        _, path, args = call_target(add, (), {"values": ["no number"]}, "left")
        added = await node.functions.mutation(path, args, caller=ADMIN, component="left")

        with pytest.raises(PushRefused, match=f"document {added.value[0]} of 'left/things'"):
            await node.push(mounted(NUMBERS))

        said = await node.push(replace(application(values), mounts={"left": app(ANYTHING)}))
    assert ["dropped index left/things.by_n"] == said
    *_, found = verify(store.snapshot)
    assert [] == found.problems


async def test_as_many_indexes_as_a_table_may_have_are_replaced_by_as_many(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def indexed(by: str) -> Application:
        things = Table(v.any())
        for n in range(TABLE_INDEXES_MAX):
            things.index(f"by_{n}", ["n", f"{by}{n}"])
        return application(values, Schema(things=things))

    async with world(3) as w:
        await w.node.push(indexed("a"))

        said = await w.node.push(indexed("b"))

        assert [f"replaced index things.by_{n}" for n in range(TABLE_INDEXES_MAX)] == said
        table = w.node.committer.head.catalog.table("", "things")
        assert table is not None
        enabled = [i for i in table.indexes.values() if i.row and i.state is IndexState.ENABLED]
        assert TABLE_INDEXES_MAX == len(enabled)
