"""Writing documents: what each verb does, what it refuses, and that nothing of what fails stays."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import (
    DocumentNotFound,
    InvalidId,
    InvalidValue,
    LimitExceeded,
    NotAllowed,
    NotAwaited,
    PushRefused,
    SchemaViolation,
)
from engine.model.limits import ARRAY_ITEMS_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_NESTING_MAX, Limits
from engine.model.values import UNDEFINED
from engine.node import Node
from tests.node.nodes import application, ask, mutate, serving

Write = Callable[[MutationCtx, str], Awaitable[Any]]

TYPED = Schema(
    notes=Table({"text": v.string(), "stars": v.optional(v.number()), "tags": v.any()}).index(
        "by_stars", ["stars"]
    )
)
NOTE = {"text": "a", "stars": 1, "tags": {"x": 1, "y": 2}}


@mutation
async def add(ctx: MutationCtx) -> str:
    return await ctx.db.insert("notes", NOTE)


@query
async def everything(ctx: QueryCtx) -> list[Any]:
    return await ctx.db.query("notes").collect()


@query
async def user_fields(ctx: QueryCtx) -> list[Any]:
    notes = await ctx.db.query("notes").collect()
    return [{name: note[name] for name in note if name[0] != "_"} for note in notes]


async def after(write: Write, *more: Any, refused: Any = None) -> tuple[list[Any], Any]:
    """The fields of all notes, after one was added and then written; and what the write said."""

    @mutation
    async def change(ctx: MutationCtx, note: Any) -> Any:
        said = write(ctx, note)
        return await said if inspect.isawaitable(said) else said

    async with serving([add, user_fields, change, *more]) as node:
        note = await mutate(node, add)
        await trio.sleep(1)  # what is made now is younger
        if refused is None:
            said = await mutate(node, change, note)
        else:
            with pytest.raises(refused) as told:
                await mutate(node, change, note)
            said = str(told.value)
        return await ask(node, user_fields), said


@pytest.mark.parametrize(
    ("write", "becomes"),
    [
        (lambda db, note: db.patch(note, {"text": "b"}), [{**NOTE, "text": "b"}]),
        (lambda db, note: db.patch(note, {"new": None}), [{**NOTE, "new": None}]),
        (lambda db, note: db.patch(note, {"tags": {"z": 3}}), [{**NOTE, "tags": {"z": 3}}]),
        (
            lambda db, note: db.patch(note, {"stars": UNDEFINED}),
            [{"text": "a", "tags": {"x": 1, "y": 2}}],
        ),
        (lambda db, note: db.patch(note, {}), [NOTE]),
        (lambda db, note: db.patch(note, {"_id": note, "text": "b"}), [{**NOTE, "text": "b"}]),
        (lambda db, note: db.replace(note, {"text": "b"}), [{"text": "b"}]),
        (lambda db, note: db.replace(note, {"_id": note, "text": "b"}), [{"text": "b"}]),
        (lambda db, note: db.replace(note, {"text": "b", "no": UNDEFINED}), [{"text": "b"}]),
        (lambda db, note: db.delete(note), []),
        (lambda db, _: db.insert("notes", {"n": 1, "no": UNDEFINED}), [NOTE, {"n": 1}]),
        (lambda db, note: db.patch("notes", note, {"text": "b"}), [{**NOTE, "text": "b"}]),
        (lambda db, note: db.replace("notes", note, {"text": "b"}), [{"text": "b"}]),
        (lambda db, note: db.delete("notes", note), []),
    ],
    ids=range(14),
)
async def test_a_verb_changes_what_it_says(
    write: Any, becomes: list[Any], autojump_clock: trio.testing.MockClock
) -> None:
    assert becomes == (await after(lambda ctx, note: write(ctx.db, note)))[0]


async def _delete_and(ctx: MutationCtx, note: str, write: Any) -> Any:
    gone = await ctx.db.insert("notes", {})
    await ctx.db.delete(gone)
    return await write(ctx.db, gone)


@pytest.mark.parametrize(
    "write",
    [
        lambda db, gone: db.patch(gone, {}),
        lambda db, gone: db.replace(gone, {}),
        lambda db, gone: db.delete(gone),
    ],
    ids=["patch", "replace", "delete"],
)
async def test_what_is_not_there_cannot_be_changed(
    write: Any, autojump_clock: trio.testing.MockClock
) -> None:
    left, _ = await after(lambda ctx, _: _delete_and(ctx, _, write), refused=DocumentNotFound)

    assert [NOTE] == left


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda db, _: db.insert("_notes", {}), NotAllowed),
        (lambda db, _: db.insert("_scheduled_functions", {}), NotAllowed),
        (lambda db, note: db.insert("notes", {"_id": note}), InvalidValue),
        (lambda db, _: db.insert("notes", {"_creationTime": 1}), InvalidValue),
        (lambda db, _: db.insert("notes", {"_mine": 1}), InvalidValue),
        (lambda db, _: db.insert("notes", {"$x": 1}), InvalidValue),
        (lambda db, _: db.insert("notes", {"x": [UNDEFINED]}), InvalidValue),
        (lambda db, _: db.insert("notes", {"x": "\ud800"}), InvalidValue),
        (lambda db, _: db.insert("notes", {"x": object()}), InvalidValue),
        (lambda db, _: db.insert("notes", {"x": [0] * (ARRAY_ITEMS_MAX + 1)}), InvalidValue),
        (lambda db, _: db.insert("notes", {"x": "a" * DOCUMENT_BYTES_MAX}), LimitExceeded),
        (lambda db, _: db.insert("notes", {"x": _nested(DOCUMENT_NESTING_MAX)}), LimitExceeded),
        (lambda db, note: db.patch(note, {"_creationTime": 1}), InvalidValue),
        (lambda db, note: db.patch(note, {"_id": UNDEFINED}), InvalidValue),
        (lambda db, note: db.patch(note, {"x": "a" * (DOCUMENT_BYTES_MAX - 40)}), LimitExceeded),
        (lambda db, note: db.replace(note, {"_id": "another"}), InvalidValue),
        (lambda db, note: db.patch("others", note, {}), InvalidId),
        (lambda db, _: db.delete("no id"), InvalidId),
    ],
    ids=range(18),
)
async def test_what_no_document_can_be_is_refused_and_leaves_nothing(
    write: Any, error: Any, autojump_clock: trio.testing.MockClock
) -> None:
    left, _ = await after(lambda ctx, note: write(ctx.db, note), refused=error)

    assert [NOTE] == left


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


async def test_system_fields_stay_whatever_becomes_of_a_document(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def rewrite(ctx: MutationCtx, note: Any) -> None:
        await ctx.db.patch(note, {"text": "b"})
        await ctx.db.replace(note, {"text": "c"})

    async with serving([add, rewrite, everything]) as node:
        note = await mutate(node, add)
        (before,) = await ask(node, everything)
        await mutate(node, rewrite, note)
        (then,) = await ask(node, everything)

    assert (note, before["_creationTime"]) == (then["_id"], then["_creationTime"])
    assert "c" == then["text"]


async def test_documents_made_together_have_rising_times(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is the time at which their transaction began, with a fraction that tells them apart."""

    @mutation
    async def fill(ctx: MutationCtx) -> list[Any]:
        ids = [await ctx.db.insert("notes", {}) for _ in range(50)]
        return [ctx.now_ms, *[(await ctx.db.get(one) or {})["_creationTime"] for one in ids]]

    async with serving([fill]) as node:
        now, *times = await mutate(node, fill)

    assert times == sorted(set(times))
    assert now <= times[0] <= times[-1] < now + 1
    assert times[-1] % 1


async def test_what_commits_later_has_later_times_though_the_clock_stands(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def fill(ctx: MutationCtx, count: int) -> list[Any]:
        ids = [await ctx.db.insert("notes", {}) for _ in range(count)]
        return [(await ctx.db.get(one) or {})["_creationTime"] for one in ids]

    times: list[float] = []
    async with serving([fill]) as node:
        for count in (3, 0, 50, 1, 1, 2):
            times += await mutate(node, fill, count)

    assert times == sorted(set(times))


async def test_a_mutation_reads_its_own_writes_in_every_index(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen: list[list[int]] = []

    @mutation
    async def write(ctx: MutationCtx) -> None:
        ids = [await ctx.db.insert("notes", {"text": "", "stars": n, "tags": 0}) for n in (3, 1, 2)]
        seen.append([d["stars"] for d in await _starred(ctx)])
        await ctx.db.patch(ids[1], {"stars": 4})
        seen.append([d["stars"] for d in await _starred(ctx)])
        await ctx.db.delete(ids[0])
        seen.append([d["stars"] for d in await _starred(ctx)])

    async with serving([write, TYPED]) as node:
        await mutate(node, write)

    assert [[2, 3], [2, 3, 4], [2, 4]] == seen


def _starred(ctx: MutationCtx) -> Any:
    return ctx.db.query("notes").with_index("by_stars", lambda r: r.gt("stars", 1)).collect()


async def test_a_mutation_that_raises_writes_nothing_and_schedules_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def fail(ctx: MutationCtx, note: Any) -> None:
        await ctx.db.delete(note)
        await ctx.db.insert("notes", {})
        await ctx.scheduler.run_after(0, add)
        raise ZeroDivisionError

    async with serving([add, fail, user_fields]) as node:
        note = await mutate(node, add)
        with pytest.raises(ZeroDivisionError):
            await mutate(node, fail, note)
        await trio.sleep(10)

        assert [NOTE] == await ask(node, user_fields)


@pytest.mark.parametrize(
    "write",
    [
        lambda db, _: db.insert("notes", {}),
        lambda db, note: db.patch(note, {"text": "b"}),
        lambda db, note: db.replace(note, {}),
        lambda db, note: db.delete(note),
    ],
    ids=["insert", "patch", "replace", "delete"],
)
async def test_a_write_that_nobody_awaits_fails_its_mutation_and_names_the_line(
    write: Any, autojump_clock: trio.testing.MockClock
) -> None:
    def forget(ctx: MutationCtx, note: Any) -> None:
        write(ctx.db, note)  # as people do

    left, said = await after(forget, refused=NotAwaited)  # type: ignore[arg-type]

    assert [NOTE] == left
    assert "test_writing.py" in said


async def test_many_documents_are_written_in_a_loop_in_one_transaction(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def fill(ctx: MutationCtx) -> None:
        for _ in range(2_000):
            await ctx.db.insert("notes", {})

    async with serving([fill, user_fields]) as node:
        before = node.committer.stats["commits"]
        await mutate(node, fill)

        assert 1 == node.committer.stats["commits"] - before
        assert 2_000 == len(await ask(node, user_fields))


async def test_a_document_that_is_written_again_counts_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def rewrite(ctx: MutationCtx, note: Any, often: int) -> None:
        for n in range(often):
            await ctx.db.patch(note, {"n": n})

    async with serving([add, rewrite], limits=replace(Limits(), documents_written_max=3)) as node:
        note = await mutate(node, add)
        await mutate(node, rewrite, note, 3)
        with pytest.raises(LimitExceeded, match="documents_written_max"):
            await mutate(node, rewrite, note, 4)


# What a schema says of it.


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda db, _: db.insert("notes", {"text": 5, "tags": 0}), "text"),
        (lambda db, _: db.insert("notes", {"text": "a"}), "tags"),
        (lambda db, _: db.insert("notes", {"text": "a", "tags": 0, "more": 1}), "more"),
        (lambda db, note: db.patch(note, {"stars": None}), "stars"),
        (lambda db, note: db.patch(note, {"text": UNDEFINED}), "text"),
        (lambda db, note: db.replace(note, {"text": "a"}), "tags"),
    ],
    ids=range(6),
)
async def test_a_document_that_does_not_fit_is_refused_at_the_call(
    write: Any, said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async def caught(ctx: MutationCtx, note: Any) -> str:
        with pytest.raises(SchemaViolation) as told:
            await write(ctx.db, note)
        return str(told.value)

    left, told = await after(caught, TYPED)

    assert [NOTE] == left
    assert said in told


async def test_tables_that_a_schema_does_not_name_take_anything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    left, other = await after(lambda ctx, _: ctx.db.insert("others", {"text": 5}), TYPED)

    assert [NOTE] == left
    assert isinstance(other, str)


async def test_without_validation_a_schema_has_its_indexes_and_no_rules(
    autojump_clock: trio.testing.MockClock,
) -> None:
    lenient = Schema.of(
        {"notes": Table({"text": v.id("users")}).index("by_text", ["text"])},
        schema_validation=False,
    )

    async def write(ctx: MutationCtx, note: Any) -> list[Any]:
        await ctx.db.insert("notes", {"text": 5, "more": 1})
        fives = await ctx.db.query("notes").with_index("by_text", text=5).collect()
        return [doc["more"] for doc in fives]

    left, fives = await after(write, lenient)

    assert [NOTE, {"text": 5, "more": 1}] == left
    assert [1] == fives


async def test_an_id_in_a_document_is_of_its_table_and_may_lead_nowhere(
    autojump_clock: trio.testing.MockClock,
) -> None:
    owned = Schema(pets=Table({"owner": v.id("people")}), people=Table({}))

    @mutation
    async def person(ctx: MutationCtx) -> str:
        one = await ctx.db.insert("people", {})
        await ctx.db.delete(one)
        return one

    @mutation
    async def pet(ctx: MutationCtx, owner: str) -> str:
        return await ctx.db.insert("pets", {"owner": owner})

    async with serving([person, pet, owned]) as node:
        gone = await mutate(node, person)
        dog = await mutate(node, pet, gone)

        for owner in (dog, "nobody"):
            with pytest.raises(SchemaViolation, match="people"):
                await mutate(node, pet, owner)


async def narrowed(node: Node, table: Any, functions: list[Any]) -> None:
    await node.push(application(*functions, Schema(notes=table)))


async def test_a_schema_changes_in_steps_that_its_documents_fit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Wider, then the documents, then narrower; what they do not fit is refused at each step."""

    @mutation
    async def fill(ctx: MutationCtx) -> None:
        for note in await ctx.db.query("notes").collect():
            await ctx.db.patch(note["_id"], {"text": 5, "stars": UNDEFINED})

    functions = [add, fill, user_fields]
    old = {"text": v.string(), "stars": v.number(), "tags": v.any()}
    both = {**old, "text": v.union(v.string(), v.number()), "stars": v.optional(v.number())}
    new = {"text": v.number(), "tags": v.any()}
    async with serving([*functions, Schema(notes=Table(old))]) as node:
        await mutate(node, add)
        with pytest.raises(PushRefused, match="text"):
            await narrowed(node, Table(new), functions)
        await narrowed(node, Table(both), functions)
        with pytest.raises(PushRefused, match="text"):
            await narrowed(node, Table(new), functions)
        await mutate(node, fill)
        await narrowed(node, Table(new), functions)

        assert [{"text": 5, "tags": NOTE["tags"]}] == await ask(node, user_fields)
        with pytest.raises(SchemaViolation):
            await mutate(node, add)
