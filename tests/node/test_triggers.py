"""Triggers: what follows from a write is a part of it, whoever writes and in whichever way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import trio

from engine.app.contexts import MutationCtx, QueryCtx, TriggerCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.triggers import Change, trigger
from engine.app.validators import v
from engine.errors import FunctionTimeout, LimitExceeded, NotAwaited, SchemaViolation
from engine.functions.gather import gather
from engine.functions.results import Caller, MutationResult
from engine.functions.targets import call_target
from engine.indexes.verify import verify
from engine.log.records import decode_record
from engine.model.identity import Identity
from engine.model.limits import Limits
from engine.model.values import UNDEFINED
from engine.node import Node
from engine.serving import imports
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, mutate, serving

PATH = "tests/node/test_triggers:"
schema = Schema(
    teams=Table({"name": v.string()}),
    people=Table({"name": v.string(), "team": v.nullable(v.id("teams"))})
    .index("by_team", ["team"])
    .reference("team", on_delete="cascade"),
    tasks=Table({"person": v.nullable(v.id("people"))})
    .index("by_person", ["person"])
    .reference("person", on_delete="set_null"),
    notes=Table(v.any()),
)


@mutation
async def insert(ctx: MutationCtx, table: str, doc: dict[str, Any]) -> str:
    return await ctx.db.insert(table, doc)


@mutation
async def patch(ctx: MutationCtx, one: Any, doc: dict[str, Any]) -> None:
    await ctx.db.patch(one, doc)


@mutation
async def put(ctx: MutationCtx, one: Any, doc: dict[str, Any]) -> None:
    await ctx.db.replace(one, doc)


@mutation
async def delete(ctx: MutationCtx, one: Any) -> None:
    await ctx.db.delete(one)


@mutation
async def insert_or_say(ctx: MutationCtx, table: str, doc: dict[str, Any]) -> str:
    try:
        return await ctx.db.insert(table, doc)
    except (SchemaViolation, LimitExceeded, LookupError) as error:
        return str(error)


@mutation
async def insert_within(ctx: MutationCtx, table: str, doc: dict[str, Any]) -> str:
    return await ctx.run_mutation(insert, table, doc)


@mutation
async def insert_later(ctx: MutationCtx, table: str, doc: dict[str, Any]) -> None:
    await ctx.scheduler.run_after(1000, insert, table, doc)


@query
async def notes(ctx: QueryCtx) -> list[Any]:
    return [doc["note"] async for doc in ctx.db.query("notes")]


@query
async def count(ctx: QueryCtx, table: str) -> int:
    return await ctx.db.count(table)


FUNCTIONS = [schema, insert, patch, put, delete, insert_or_say, insert_within, insert_later]
APP = [*FUNCTIONS, notes, count]


@trigger("teams")
async def note_team(ctx: TriggerCtx, change: Change[Any]) -> None:
    await note(ctx, change)


@trigger("people")
async def note_person(ctx: TriggerCtx, change: Change[Any]) -> None:
    await note(ctx, change)


@trigger("tasks")
async def note_task(ctx: TriggerCtx, change: Change[Any]) -> None:
    await note(ctx, change)


async def note(ctx: TriggerCtx, change: Change[Any]) -> None:
    doc = change.new or change.old
    assert doc is not None
    assert change.id == doc["_id"]
    seen = [change.operation, shown(change.old), shown(change.new)]
    await ctx.db.insert("notes", {"note": seen})


def shown(doc: dict[str, Any] | None) -> dict[str, Any] | None:
    return doc and {name: value for name, value in doc.items() if not name.startswith("_")}


# Which writes they follow.


async def test_a_trigger_is_told_of_each_insert_change_and_delete() -> None:
    async with serving([*APP, note_team]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, patch, team, {"name": "b"})
        await mutate(node, put, team, {"name": "c"})
        await mutate(node, delete, team)

        expected = [
            ["insert", None, {"name": "a"}],
            ["update", {"name": "a"}, {"name": "b"}],
            ["update", {"name": "b"}, {"name": "c"}],
            ["delete", {"name": "c"}, None],
        ]
        assert expected == await ask(node, notes)


async def test_a_write_that_changes_nothing_is_followed_by_nothing() -> None:
    async with serving([*APP, note_person]) as node:
        ada = await mutate(node, insert, "people", {"name": "ada", "team": None})
        await mutate(node, patch, ada, {"name": "ada"})
        await mutate(node, patch, ada, {})
        await mutate(node, put, ada, {"team": None, "name": "ada"})

        assert [["insert", None, {"name": "ada", "team": None}]] == await ask(node, notes)


async def test_what_a_delete_takes_along_is_followed_when_all_of_it_is_done() -> None:
    @trigger("people")
    async def look(ctx: TriggerCtx, change: Change[Any]) -> None:
        left = [await ctx.db.count("teams"), await ctx.db.count("people")]
        tasks = [doc["person"] async for doc in ctx.db.query("tasks")]
        await ctx.raw_db.insert("notes", {"note": [change.operation, *left, *tasks]})

    async with serving([*APP, look, note_task]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        ada = await mutate(node, insert, "people", {"name": "ada", "team": team})
        await mutate(node, insert, "people", {"name": "bob", "team": team})
        await mutate(node, insert, "tasks", {"person": ada})
        before = await ask(node, notes)
        await mutate(node, delete, team)

        expected = [
            ["update", {"person": ada}, {"person": None}],
            ["delete", 0, 0, None],
            ["delete", 0, 0, None],
        ]
        assert expected == (await ask(node, notes))[len(before) :]


async def test_a_trigger_cannot_refer_to_what_the_delete_takes_along() -> None:
    @trigger("people")
    async def keep(ctx: TriggerCtx, change: Change[Any]) -> None:
        if change.old and not change.new:
            await ctx.db.insert("people", {"name": "again", "team": change.old["team"]})

    store = MemoryStore()
    async with serving([*APP, keep], store=store) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, insert, "people", {"name": "ada", "team": team})
        with pytest.raises(SchemaViolation, match="of 'teams', which is not there"):
            await mutate(node, delete, team)

        assert [1, 1] == [await ask(node, count, "teams"), await ask(node, count, "people")]
    *_, findings = verify(store.snapshot)
    assert [] == findings.problems


async def test_nested_and_scheduled_mutations_write_as_others_do(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([*APP, note_team]) as node:
        await mutate(node, insert_within, "teams", {"name": "within"})
        await mutate(node, insert_later, "teams", {"name": "later"})
        await trio.sleep(2)
        await node.scheduler.wait_resting()

        assert ["within", "later"] == [note[2]["name"] for note in await ask(node, notes)]


async def test_an_import_is_followed_by_nothing() -> None:
    async with serving([*APP, note_team]) as node:
        read = [imports.read({"name": "a"})]
        write = node.functions.turns.write
        await write(lambda turn: imports.place_table(turn, "", "teams", read))
        await write(lambda turn: [imports.insert(turn, "", "teams", one) for one in read])

        assert [1, []] == [await ask(node, count, "teams"), await ask(node, notes)]


# When they run, and what they may do.


async def test_triggers_of_a_table_run_as_they_are_declared_each_with_documents_of_its_own() -> (
    None
):
    @trigger("teams")
    def spoil(_: TriggerCtx, change: Change[Any]) -> None:
        assert change.new is not None
        change.new["name"] = "spoilt"

    @trigger("teams")
    async def look(ctx: TriggerCtx, change: Change[Any]) -> None:
        found = await ctx.db.get(change.id)
        assert found is not None
        await ctx.db.insert("notes", {"note": [found == change.new, found["name"]]})

    async with serving([*APP, spoil, look, note_team]) as node:
        await mutate(node, insert, "teams", {"name": "a"})

        expected = [[True, "a"], ["insert", None, {"name": "a"}]]
        assert expected == await ask(node, notes)


@mutation
async def write_in_passing(ctx: MutationCtx) -> list[int]:
    """Each write has been followed for what is called after it, awaited or not."""
    fields = {"name": "a"}
    first = ctx.db.insert("teams", fields)
    fields["name"] = "changed since"
    seen = [await ctx.db.count("notes")]
    team, other = await gather(first, ctx.db.insert("teams", {"name": "b"}))
    await gather(ctx.db.patch(team, {"name": "c"}), ctx.db.delete(other))
    return [*seen, await ctx.db.count("notes")]


async def test_a_write_is_followed_before_the_next_call_also_in_gather() -> None:
    async with serving([*APP, note_team, write_in_passing]) as node:
        assert [1, 4] == await mutate(node, write_in_passing)

        expected = [
            ["insert", None, {"name": "a"}],
            ["insert", None, {"name": "b"}],
            ["update", {"name": "a"}, {"name": "c"}],
            ["delete", {"name": "b"}, None],
        ]
        assert expected == await ask(node, notes)


@mutation
async def take_away(ctx: MutationCtx, one: Any) -> None:
    await ctx.db.patch("notes", one, {"note": UNDEFINED, "left": 1})


async def test_a_field_is_taken_away_from_a_table_with_triggers() -> None:
    told = []

    @trigger("notes")
    def tell(_: TriggerCtx, change: Change[Any]) -> None:
        told.append((shown(change.old), shown(change.new)))

    async with serving([*APP, take_away, tell]) as node:
        one = await mutate(node, insert, "notes", {"note": 1})
        await mutate(node, take_away, one)

    assert [(None, {"note": 1}), ({"note": 1}, {"left": 1})] == told


async def test_what_a_trigger_writes_is_followed_and_what_it_writes_raw_is_not() -> None:
    @trigger("teams")
    async def found(ctx: TriggerCtx, change: Change[Any]) -> None:
        assert change.new is not None
        await ctx.db.insert("people", {"name": "followed", "team": change.id})
        raw = await ctx.raw_db.insert("people", {"name": "raw", "team": change.id})
        await ctx.raw_db.patch(raw, {"name": "raw again"})
        await ctx.raw_db.patch(change.id, {"name": change.new["name"].upper()})

    async with serving([*APP, found, note_person]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        inserted = await ask(node, notes)

        assert [["insert", None, {"name": "followed", "team": team}]] == inserted
        assert 2 == await ask(node, count, "people")


async def test_a_raw_delete_takes_others_along_and_nothing_follows() -> None:
    @trigger("notes")
    async def drop(ctx: TriggerCtx, change: Change[Any]) -> None:
        if change.new and "drop" in change.new:
            await ctx.raw_db.delete(change.new["drop"])

    async with serving([*APP, drop, note_person]) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        await mutate(node, insert, "people", {"name": "ada", "team": team})
        await mutate(node, insert, "notes", {"drop": team, "note": "dropped"})

        assert 0 == await ask(node, count, "people")
        assert "dropped" == (await ask(node, notes))[-1]
        assert 2 == await ask(node, count, "notes")


@trigger("teams")
async def ping(ctx: TriggerCtx, change: Change[Any]) -> None:
    await ctx.db.insert("people", {"name": "pong", "team": None})


@trigger("people")
async def pong(ctx: TriggerCtx, change: Change[Any]) -> None:
    await ctx.db.insert("teams", {"name": "ping"})


async def test_two_that_fire_each_other_end_and_the_chain_is_named() -> None:
    async with serving([*APP, ping, pong]) as node:
        with pytest.raises(LimitExceeded, match="call_depth_max") as refused:
            await mutate(node, insert, "teams", {"name": "a"})
        said = await mutate(node, insert_or_say, "teams", {"name": "a"})

        chain = f"{PATH}insert > {PATH}ping > {PATH}pong > {PATH}ping > {PATH}pong"
        assert chain in str(refused.value)
        assert f"in the trigger {PATH}pong of 'people', at the insert of" in notes_of(refused)
        assert "9 is over the limit of 8 (call_depth_max)" in said
        assert [0, 0] == [await ask(node, count, "teams"), await ask(node, count, "people")]


def notes_of(caught: pytest.ExceptionInfo[BaseException]) -> str:
    return "\n".join(getattr(caught.value, "__notes__", ()))


@trigger("teams")
async def welcome(ctx: TriggerCtx, change: Change[Any]) -> None:
    """Does all that a mutation can."""
    identity = await ctx.auth.get_user_identity()
    teams = await ctx.run_query(count, "teams")
    await ctx.run_mutation(insert, "notes", {"note": [identity and identity["subject"], teams]})
    await ctx.scheduler.run_after(1000, insert, "notes", {"note": "later"})


async def test_a_trigger_calls_schedules_and_knows_who_calls(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ada = Identity(issuer="https://example.com", subject="ada", token_identifier="ada")
    async with serving([*APP, welcome]) as node:
        args = {"table": "teams", "doc": {"name": "a"}}
        await node.functions.mutation(f"{PATH}insert", args, caller=Caller(identity=ada))
        await trio.sleep(2)
        await node.scheduler.wait_resting()

        assert [["ada", 1], "later"] == await ask(node, notes)


# What fails.


@trigger("teams")
def refuse(_: TriggerCtx, change: Change[Any]) -> None:
    if change.new is None or change.new["name"] == "bad":
        raise LookupError("this is refused")


async def test_a_trigger_that_fails_fails_the_write_and_leaves_nothing_of_it() -> None:
    async with serving([*APP, note_team, welcome, refuse]) as node:
        team = await mutate(node, insert, "teams", {"name": "good"})
        before = await ask(node, notes)
        failed = await told(node, insert, "teams", {"name": "bad"})
        said = await mutate(node, insert_or_say, "teams", {"name": "bad"})
        with pytest.raises(LookupError):
            await mutate(node, delete, team)

        assert "this is refused" == said
        assert [1, before] == [await ask(node, count, "teams"), await ask(node, notes)]
        assert "Uncaught Error: LookupError: this is refused\nin the trigger" in failed
        assert f"{PATH}refuse of 'teams', at the insert of" in failed
        assert "at refuse (test_triggers.py:" in failed
        assert 'raise LookupError("this is refused")' in failed
        assert "at insert (test_triggers.py:" in failed


async def told(node: Node, fn: Any, /, *args: Any) -> str:
    _, path, raw = call_target(fn, args, {}, "")
    result: MutationResult = await node.functions.mutation(path, raw, caller=ADMIN)
    assert result.failure is not None
    return result.failure.message


@mutation
async def insert_two(ctx: MutationCtx) -> list[Any]:
    """Of calls that fail, each is told by its own await."""
    bad = ctx.db.insert("teams", {"name": "bad"})
    wrong = ctx.db.insert("teams", {"name": object()})
    good = await ctx.db.insert("teams", {"name": "good"})
    said = []
    for call in (bad, wrong):
        try:
            await call
        except Exception as error:
            said.append(type(error).__name__)
    return [*said, (await ctx.db.get("teams", good)) is not None, await ctx.db.count("teams")]


async def test_a_write_that_failed_says_so_where_it_is_awaited() -> None:
    async with serving([*APP, refuse, insert_two]) as node:
        assert ["LookupError", "InvalidValue", True, 1] == await mutate(node, insert_two)


async def test_triggers_share_the_limits_of_who_wrote() -> None:
    @trigger("teams")
    async def many(ctx: TriggerCtx, change: Change[Any]) -> None:
        for n in range(20):
            await ctx.db.insert("notes", {"note": n})

    limits = replace(Limits(), documents_written_max=20)
    async with serving([*APP, many], limits=limits) as node:
        with pytest.raises(LimitExceeded, match="documents_written_max"):
            await mutate(node, insert, "teams", {"name": "a"})

        assert 0 == await ask(node, count, "notes")


@trigger("teams")
def never_ends(_: TriggerCtx, change: Change[Any]) -> None:
    while True:
        pass


async def test_a_trigger_is_in_the_time_of_who_wrote() -> None:
    limits = replace(Limits(), user_time_s_max=0.1)
    async with serving([*APP, never_ends], limits=limits) as node:
        with pytest.raises(FunctionTimeout, match=r"test_triggers.py:\d+ in never_ends"):
            await mutate(node, insert, "teams", {"name": "a"})

        assert 0 == await ask(node, count, "teams")


async def test_a_trigger_awaits_what_it_calls() -> None:
    @trigger("teams")
    async def forget(ctx: TriggerCtx, change: Change[Any]) -> None:
        ctx.db.insert("notes", {"note": "forgotten"})  # type: ignore[unused-coroutine]

    async with serving([*APP, forget]) as node:
        with pytest.raises(NotAwaited, match=f"{PATH}forget made a call that was never awaited"):
            await mutate(node, insert, "teams", {"name": "a"})


# A history.


async def test_a_mutation_with_triggers_writes_the_same_again() -> None:
    store = MemoryStore()
    async with serving([*APP, note_team, note_person, note_task, welcome], store=store) as node:
        team = await mutate(node, insert, "teams", {"name": "a"})
        ada = await mutate(node, insert, "people", {"name": "ada", "team": team})
        await mutate(node, insert, "tasks", {"person": ada})
        await mutate(node, delete, team)
        with store.snapshot() as snapshot:
            records = [decode_record(data) for _, data in snapshot.range(Tree.LOG, b"", None)]
        again = [
            await node.functions.replay(record.source, record.writes, ts=record.ts, after=before.ts)
            for before, record in pairwise(records)
            if record.source.path.startswith(PATH)
        ]

    assert 4 == len(again)
    assert all(one.differences == [] for one in again)
    *_, findings = verify(store.snapshot)
    assert [] == findings.problems
