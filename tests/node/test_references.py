"""References: no document refers to one that is not there, whatever is deleted and by whom."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import (
    DocumentNotFound,
    LimitExceeded,
    PushRefused,
    SchemaViolation,
)
from engine.functions.gather import gather
from engine.indexes.verify import verify
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.store.memory_store import MemoryStore
from tests.node.nodes import application, ask, mutate, serving


def tables() -> Schema:
    return Schema(
        teams=Table({"name": v.string(), "lead": v.optional(v.id("people"))})
        .index("by_lead", ["lead"])
        .reference("lead", on_delete="set_null"),
        people=Table({"team": v.nullable(v.id("teams")), "boss": v.optional(v.id("people"))})
        .index("by_team", ["team", "boss"])
        .index("by_boss", ["boss"])
        .reference("team", on_delete="cascade")
        .reference("boss"),
        tasks=Table({"who": v.object({"person": v.nullable(v.id("people"))}), "after": v.any()})
        .index("by_person", ["who.person"])
        .reference("who.person", on_delete="set_null")
        .check("finished", lambda doc: doc["after"] != "finished" or doc["who"]["person"]),
    )


@mutation
async def insert(ctx: MutationCtx, table: str, doc: dict[str, Any]) -> str:
    return await ctx.db.insert(table, doc)


@mutation
async def join(ctx: MutationCtx, doc: dict[str, Any]) -> None:
    """Takes its time after it has joined."""
    await ctx.db.insert("people", doc)
    for _ in range(60):
        await ctx.db.count("tasks")


@mutation
async def patch(ctx: MutationCtx, one: Any, doc: dict[str, Any]) -> None:
    await ctx.db.patch(one, doc)


@mutation
async def delete(ctx: MutationCtx, one: Any) -> None:
    await ctx.db.delete(one)


@mutation
async def delete_and_look(ctx: MutationCtx, one: Any, table: str) -> int:
    await ctx.db.delete(one)
    return await ctx.db.count(table)


@mutation
async def delete_in_passing(ctx: MutationCtx, one: Any, other: Any) -> list[int]:
    """Each delete has taken effect for what is called after it, awaited or not."""
    first = ctx.db.delete(one)
    left = [await ctx.db.count("people")]
    await gather(first, ctx.db.delete(other))
    return [*left, await ctx.db.count("people")]


@mutation
async def try_to_delete(ctx: MutationCtx, one: Any) -> str:
    try:
        await ctx.db.delete(one)
    except (SchemaViolation, LimitExceeded) as error:
        return str(error)
    return "deleted"


@mutation
async def fill(ctx: MutationCtx, team: str, count: int) -> None:
    for _ in range(count):
        await ctx.db.insert("people", {"team": team})


@mutation
async def chain(ctx: MutationCtx, count: int) -> str:
    first = last = await ctx.db.insert("links", {"to": None})
    for _ in range(count):
        last = await ctx.db.insert("links", {"to": last})
    await ctx.db.patch(first, {"to": last})
    return first


@query
async def whole(ctx: QueryCtx, table: str) -> list[Any]:
    return await ctx.db.query(table).collect()


@query
async def count(ctx: QueryCtx, table: str) -> int:
    return await ctx.db.count(table)


FUNCTIONS = (
    insert,
    join,
    patch,
    delete,
    delete_and_look,
    delete_in_passing,
    try_to_delete,
    fill,
    chain,
    whole,
    count,
)


async def test_who_refers_to_nobody_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        gone = await mutate(node, insert, "teams", {"name": "gone"})
        team = await mutate(node, insert, "teams", {"name": "there"})
        await mutate(node, delete, gone)
        person = await mutate(node, insert, "people", {"team": team})

        with pytest.raises(SchemaViolation, match=f"a document of 'people' .*`team` to {gone} of"):
            await mutate(node, insert, "people", {"team": gone})
        with pytest.raises(SchemaViolation, match=f"document {person} of .* which is not there"):
            await mutate(node, patch, person, {"team": gone})

        assert [team] == [one["team"] for one in await ask(node, whole, "people")]


async def test_restrict_names_who_is_in_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        other = await mutate(node, insert, "teams", {"name": "b"})
        boss = await mutate(node, insert, "people", {"team": team})
        person = await mutate(node, insert, "people", {"team": other, "boss": boss})

        with pytest.raises(SchemaViolation) as direct:
            await mutate(node, delete, boss)
        through = await mutate(node, try_to_delete, team)

        assert (
            f"cannot delete {boss} of 'people': the document {person} of 'people' refers to it "
            "with `boss`, on_delete='restrict'"
        ) == str(direct.value)
        assert f"cannot delete {boss} of 'people' (it goes with {team}): " in through
        assert 2 == await ask(node, count, "people")
        assert 2 == await ask(node, count, "teams")


async def test_who_goes_too_is_not_in_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        boss = await mutate(node, insert, "people", {"team": team})
        await mutate(node, patch, boss, {"boss": boss})
        person = await mutate(node, insert, "people", {"team": team, "boss": boss})
        await mutate(node, patch, team, {"lead": person})

        assert 0 == await mutate(node, delete_and_look, team, "people")
        assert [] == await ask(node, whole, "teams")


async def test_set_null_makes_null_or_absent(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        lead = await mutate(node, insert, "people", {"team": None})
        await mutate(node, insert, "teams", {"name": "a", "lead": lead})
        await mutate(node, insert, "tasks", {"who": {"person": lead}, "after": None})

        await mutate(node, delete, lead)

        assert [{"name": "a"}] == own_fields(await ask(node, whole, "teams"))
        left = [{"who": {"person": None}, "after": None}]
        assert left == own_fields(await ask(node, whole, "tasks"))


def own_fields(docs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{n: x for n, x in doc.items() if not n.startswith("_")} for doc in docs]


async def test_set_null_meets_the_schema(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        person = await mutate(node, insert, "people", {"team": None})
        finished = {"who": {"person": person}, "after": "finished"}
        task = await mutate(node, insert, "tasks", finished)

        with pytest.raises(SchemaViolation) as refused:
            await mutate(node, delete, person)

        assert f"deleting {person} of 'people' would take `who.person` from {task}" in str(
            refused.value
        )
        assert "the check 'finished' does not hold" in str(refused.value)
        assert 1 == await ask(node, count, "people")


async def test_a_delete_that_is_caught_has_done_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = replace(Limits(), documents_written_max=60)
    store = MemoryStore()
    async with serving([*FUNCTIONS, tables()], limits=limits, store=store) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        for _ in range(2):
            await mutate(node, fill, team, 40)

        said = await mutate(node, try_to_delete, team)

        assert "documents_written_max" in said
        assert (1, 80) == (await ask(node, count, "teams"), await ask(node, count, "people"))
        *_, found = verify(store.snapshot)
        assert [] == found.problems


async def test_reading_who_refers_counts(autojump_clock: trio.testing.MockClock) -> None:
    limits = replace(Limits(), documents_read_max=50)
    async with serving([*FUNCTIONS, tables()], limits=limits) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        for _ in range(2):
            await mutate(node, fill, team, 40)

        with pytest.raises(LimitExceeded, match="documents_read_max"):
            await mutate(node, delete, team)

        assert 80 == await ask(node, count, "people")


async def test_one_in_the_way_is_found_among_more_than_may_be_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limits = replace(Limits(), documents_read_max=50)
    async with serving([*FUNCTIONS, tables()], limits=limits) as node:
        boss = await mutate(node, insert, "people", {"team": None})
        for _ in range(80):
            await mutate(node, insert, "people", {"team": None, "boss": boss})

        with pytest.raises(SchemaViolation, match="cannot delete"):
            await mutate(node, delete, boss)


async def test_a_ring_of_thousands_goes_at_once(autojump_clock: trio.testing.MockClock) -> None:
    links = Table({"to": v.nullable(v.id("links"))}).index("by_to", ["to"])
    schema = Schema(links=links.reference("to", on_delete="cascade"))
    store = MemoryStore()
    async with serving([*FUNCTIONS, schema], store=store) as node:
        first = await mutate(node, chain, 3_000)

        assert 0 == await mutate(node, delete_and_look, first, "links")

        *_, found = verify(store.snapshot)
        assert [] == found.problems


async def test_others_run_while_many_go(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[int] = []

    async with serving([*FUNCTIONS, tables()]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, fill, team, 2_000)

        async def look() -> None:
            while not is_deleted:
                seen.append(await ask(node, count, "people"))
                await trio.lowlevel.checkpoint()

        is_deleted = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            await mutate(node, delete, team)
            is_deleted = True

    assert 20 < seen.count(2_000), "a turn for each slice of rows"
    assert {2_000, 0} >= set(seen)


async def test_a_delete_takes_effect_when_it_is_called(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        one, other = [await mutate(node, insert, "teams", {"name": name}) for name in "ab"]
        await mutate(node, fill, one, 3)
        await mutate(node, fill, other, 4)

        assert [4, 0] == await mutate(node, delete_in_passing, one=one, other=other)


async def test_a_document_may_be_deleted_once(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([*FUNCTIONS, tables()]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, delete, team)

        with pytest.raises(DocumentNotFound):
            await mutate(node, delete, team)


async def test_without_validation_nobody_refers(autojump_clock: trio.testing.MockClock) -> None:
    schema = Schema.of(tables().tables, schema_validation=False)
    async with serving([*FUNCTIONS, schema]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, insert, "people", {"team": team})

        await mutate(node, delete, team)

        assert 1 == await ask(node, count, "people")
        with pytest.raises(PushRefused, match="refers with `team` to"):
            await node.push(application(*FUNCTIONS, tables()))


# Beside each other.


@pytest.mark.parametrize("field", ["team", "boss"])
@pytest.mark.parametrize("seed", range(8))
async def test_nobody_is_left_who_refers_to_what_was_deleted_meanwhile(
    field: str, seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    runtime = VirtualRuntime(seed, interleaves=True)
    async with serving([*FUNCTIONS, tables()], runtime=runtime) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        boss = await mutate(node, insert, "people", {"team": None})
        docs = {"team": {"team": team}, "boss": {"team": None, "boss": boss}}

        async def enter() -> None:
            with suppress(SchemaViolation):
                await mutate(node, join, docs[field])

        async def leave() -> None:
            with suppress(SchemaViolation):
                await mutate(node, delete, {"team": team, "boss": boss}[field])

        async with trio.open_nursery() as beside:
            for go in (enter, enter, leave):
                beside.start_soon(go)

        people = await ask(node, whole, "people")
        there = {one["_id"] for one in [*people, *await ask(node, whole, "teams")]} | {None}
        assert {one.get(field) for one in people} <= there


# A push.

OLD = Schema(
    teams=Table({"name": v.string()}),
    people=Table({"team": v.id("teams")}),
)
NEW = Schema(
    teams=Table({"name": v.string()}),
    people=Table({"team": v.id("teams")})
    .index("by_team", ["team"])
    .reference("team", on_delete="cascade"),
)


async def test_a_push_of_a_reference_names_the_document_that_refers_to_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([*FUNCTIONS, OLD]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        person = await mutate(node, insert, "people", {"team": team})
        await mutate(node, delete, team)

        with pytest.raises(PushRefused) as refused:
            await node.push(application(*FUNCTIONS, NEW))

        assert (
            f"the document {person} of 'people' refers with `team` to {team} of 'teams', which "
            "is not there. Nothing was changed."
        ) == str(refused.value)
        await mutate(node, delete, person)
        await node.push(application(*FUNCTIONS, NEW))


async def test_an_index_that_was_staged_is_enough_for_a_reference(
    autojump_clock: trio.testing.MockClock,
) -> None:
    staged = Schema(
        teams=Table({"name": v.string()}),
        people=Table({"team": v.id("teams")}).index("by_team", ["team"], staged=True),
    )
    async with serving([*FUNCTIONS, staged]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, insert, "people", {"team": team})

        await node.push(application(*FUNCTIONS, NEW))

        assert 0 == await mutate(node, delete_and_look, team, "people")


@pytest.mark.parametrize("pause", ["push.checked", "push.switch"])
async def test_who_is_left_behind_the_walk_fails_the_push_and_not_the_delete(
    pause: str, autojump_clock: trio.testing.MockClock
) -> None:
    runtime = VirtualRuntime()
    async with serving([*FUNCTIONS, OLD], runtime=runtime) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        person = await mutate(node, insert, "people", {"team": team})
        hold = runtime.hold(pause)
        async with trio.open_nursery() as nursery:

            async def push() -> None:
                with pytest.raises(PushRefused, match=f"{person} of 'people' refers with `team`"):
                    await node.push(application(*FUNCTIONS, NEW))

            nursery.start_soon(push)
            await hold.wait_reached()
            await mutate(node, delete, team)
            hold.release()

        assert 1 == await ask(node, count, "people")


@pytest.mark.parametrize("turns", range(8))
async def test_who_began_before_the_switch_meets_what_holds_after_it(
    turns: int, autojump_clock: trio.testing.MockClock
) -> None:
    runtime = VirtualRuntime(turns, interleaves=True)
    async with serving([*FUNCTIONS, OLD], runtime=runtime) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, delete, team)
        hold = runtime.hold("push.switch")

        async def enter() -> None:
            with suppress(SchemaViolation):
                await mutate(node, join, {"team": team})

        async with trio.open_nursery() as beside:
            beside.start_soon(node.push, application(*FUNCTIONS, NEW))
            await hold.wait_reached()
            beside.start_soon(enter)
            for _ in range(turns):
                await trio.lowlevel.checkpoint()
            hold.release()

        assert 0 == await ask(node, count, "people")


async def test_who_is_left_behind_and_repaired_lets_the_push_pass(
    autojump_clock: trio.testing.MockClock,
) -> None:
    runtime = VirtualRuntime()
    async with serving([*FUNCTIONS, OLD], runtime=runtime) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        other = await mutate(node, insert, "teams", {"name": "b"})
        person = await mutate(node, insert, "people", {"team": team})
        hold = runtime.hold("push.switch")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.push, application(*FUNCTIONS, NEW))
            await hold.wait_reached()
            await mutate(node, delete, team)
            await mutate(node, patch, person, {"team": other})
            hold.release()

        await mutate(node, delete, other)
        assert 0 == await ask(node, count, "people")
