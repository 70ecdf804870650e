"""What a document may be, and what writing one does."""

from __future__ import annotations

from typing import Any

import pytest
import trio.testing

from engine import (
    UNDEFINED,
    DocumentNotFound,
    Engine,
    Int64,
    InvalidId,
    InvalidValue,
    LimitExceeded,
    MutationCtx,
    NotAllowed,
    QueryCtx,
    mutation,
    query,
)
from engine.functions.targets import call_target
from engine.model.ids import encode_id
from engine.model.limits import ARRAY_ITEMS_MAX, DOCUMENT_BYTES_MAX, DOCUMENT_NESTING_MAX
from engine.transaction import transaction
from tests.node.nodes import ADMIN, ask, mutate, serving
from tests.unit.model.canonical import nested

Doc = dict[str, Any]

MISSING = encode_id(10_001, b"x" * 16)
ELSEWHERE = encode_id(20_000, b"x" * 16)
JOB = encode_id(517, b"x" * 16)


@query
async def all_notes(ctx: QueryCtx) -> Any:
    return await ctx.db.query("notes").collect()


async def failure_of(*steps: Any) -> Exception:
    """What a mutation of these steps raises, each an awaitable made of `db`; it writes nothing."""

    @mutation
    async def write(ctx: MutationCtx) -> None:
        made: Any = await ctx.db.insert("notes", {"a": 1})
        for step in steps:
            await step(ctx.db, made)

    async with Engine.open(":memory:", app=[write, all_notes]) as engine:
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await engine.mutation(write)
        assert [] == await engine.query(all_notes)
    assert isinstance(raised.value, Exception)
    return raised.value


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"_x": 1}, InvalidValue, "the field '_x' is the system's"),
        ({"_id": "x"}, InvalidValue, "the field '_id' is the system's"),
        ({"_creationTime": 1}, InvalidValue, "the field '_creationTime' is the system's"),
        ({"$a": 1}, InvalidValue, "starting with '$' are reserved"),
        ({"a": [{"$b": 1}]}, InvalidValue, "a[0]['$b']: field names starting with '$'"),
        ({"é": 1}, InvalidValue, "printable ASCII only"),
        ({"a\n": 1}, InvalidValue, "printable ASCII only"),
        ({"a" * 1025: 1}, InvalidValue, "a field name has 1025 bytes, at most 1024 fit"),
        ({1: 1}, InvalidValue, "field names are str, not int"),
        ({"a": [UNDEFINED]}, InvalidValue, "a[0]: UNDEFINED is the absence of a value"),
        ({"a": 2**53 + 1}, InvalidValue, "write Int64(9007199254740993)"),
        ({"a": [0] * (ARRAY_ITEMS_MAX + 1)}, InvalidValue, "an array of 8193 items"),
        ({"a": nested(DOCUMENT_NESTING_MAX)}, LimitExceeded, "DOCUMENT_NESTING_MAX"),
        ({"a": "x" * DOCUMENT_BYTES_MAX}, LimitExceeded, "DOCUMENT_BYTES_MAX"),
        ([1], InvalidValue, "insert takes a dictionary of fields, not list"),
        (None, InvalidValue, "insert takes a dictionary of fields, not NoneType"),
    ],
    ids=lambda part: f"{part!s:.20}",
)
async def test_what_no_document_can_be_is_refused_by_name(
    fields: Any, error: type[Exception], said: str
) -> None:
    raised = await failure_of(lambda db, _: db.insert("notes", fields))

    assert isinstance(raised, error)
    assert said in str(raised)
    assert len(str(raised)) < 1_000


@pytest.mark.parametrize(
    "fields",
    [
        {"": 1, "a b": 2, "a.b": 3, "a$": 4, "nested": {"_x": 1, "_id": None}},
        {"a" * 1024: Int64(5)},
        {"a": [0] * ARRAY_ITEMS_MAX},
        {"a": nested(DOCUMENT_NESTING_MAX - 1)},
        {"a": "x" * (DOCUMENT_BYTES_MAX - 200)},
    ],
    ids=["names", "long-name", "items", "depth", "size"],
)
async def test_what_a_document_may_just_be_comes_back_as_it_was(fields: Doc) -> None:
    @mutation
    async def write(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", fields)

    async with Engine.open(":memory:", app=[write, all_notes]) as engine:
        await engine.mutation(write)
        [found] = await engine.query(all_notes)

    assert fields == {name: found[name] for name in fields}
    assert {*fields, "_id", "_creationTime"} == set(found)


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (lambda db, i: db.patch(i, {"_id": "x"}), InvalidValue, "'_id' is the system's"),
        (lambda db, i: db.patch(i, {"_id": UNDEFINED}), InvalidValue, "cannot be removed"),
        (lambda db, i: db.patch(i, {"_creationTime": 1}), InvalidValue, "is the system's"),
        (lambda db, i: db.replace(i, {"_creationTime": 1}), InvalidValue, "is the system's"),
        (lambda db, i: db.delete("others", i), InvalidId, "of 'notes', not of 'others'"),
        (lambda db, i: db.get("others", i), InvalidId, "of 'notes', not of 'others'"),
        (lambda db, _: db.get("notes"), InvalidId, "'notes' is no document id"),
        (lambda db, _: db.get(5), InvalidId, "a int is no document id"),
        (lambda db, _: db.get(ELSEWHERE), InvalidId, "no id of a table that is known here"),
        (lambda db, _: db.delete(MISSING), DocumentNotFound, "cannot delete"),
        (lambda db, _: db.patch(MISSING, {}), DocumentNotFound, "cannot patch"),
        (lambda db, _: db.replace(MISSING, {}), DocumentNotFound, "cannot replace"),
        (lambda db, _: db.delete(JOB), InvalidId, "is an id of _scheduled_functions"),
        (lambda db, _: db.insert("_notes", {}), NotAllowed, "that begin with _ are the system's"),
        (
            lambda db, _: db.insert("_scheduled_functions", {}),
            NotAllowed,
            "read it with db.system.query",
        ),
    ],
)
async def test_a_write_that_cannot_be_is_refused_by_name(
    step: Any, error: type[Exception], said: str
) -> None:
    raised = await failure_of(step)

    assert isinstance(raised, error)
    assert said in str(raised)


async def test_a_document_is_deleted_once() -> None:
    async def delete(db: Any, made: str) -> None:
        await db.delete(made)
        assert await db.get(made) is None

    assert isinstance(await failure_of(delete, delete), DocumentNotFound)


@mutation
async def change(ctx: MutationCtx, how: str) -> Any:
    [note, *_] = [*await ctx.db.query("notes").take(1), None]
    if note is None:
        return await ctx.db.insert("notes", {"a": 1, "b": {"c": [1.5]}})
    match how:
        case "same":
            await ctx.db.patch(note["_id"], {"a": 1.0, "b": {"c": [1.5]}})
            await ctx.db.replace(note["_id"], note)
            await ctx.db.patch(note["_id"], {"_id": note["_id"], "z": UNDEFINED})
        case "there and back":
            await ctx.db.patch(note["_id"], {"a": 2})
            await ctx.db.patch(note["_id"], {"a": 1})
        case "come and gone":
            await ctx.db.delete(await ctx.db.insert("notes", {}))
        case "removed":
            await ctx.db.patch(note["_id"], {"b": UNDEFINED})
    return await ctx.db.get(note["_id"])


@pytest.mark.parametrize("how", ["same", "there and back", "come and gone"])
async def test_what_changes_nothing_is_no_commit(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([change, all_notes]) as node:
        await mutate(node, change, how)
        before = node.published.value
        shown = await ask(node, all_notes)
        component, path, args = call_target(change, (how,), {}, "")
        result = await node.functions.mutation(path, args, caller=ADMIN, component=component)

        assert result.failure is None
        assert (before, before) == (result.ts, node.published.value)
        assert shown == await ask(node, all_notes)


async def test_a_patch_takes_away_what_is_undefined_and_keeps_what_is_the_systems() -> None:
    async with Engine.open(":memory:", app=[change, all_notes]) as engine:
        await engine.mutation(change, "")
        [made] = await engine.query(all_notes)
        changed = await engine.mutation(change, "removed")

    assert {name: made[name] for name in ("_id", "_creationTime", "a")} == changed


async def test_creation_times_rise_within_a_transaction_also_over_what_is_taken_back() -> None:
    @mutation
    async def failing(ctx: MutationCtx) -> None:
        await ctx.db.insert("notes", {})
        raise LookupError

    @mutation
    async def write(ctx: MutationCtx) -> None:
        for _ in range(50):
            await ctx.db.insert("notes", {})
            with pytest.raises(LookupError):
                await ctx.run_mutation(failing)

    async with Engine.open(":memory:", app=[write, failing, all_notes]) as engine:
        await engine.mutation(write)
        times = [note["_creationTime"] for note in await engine.query(all_notes)]

    assert 50 == len(set(times))
    assert sorted(times) == times


async def test_an_application_has_as_many_tables_as_the_limit_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    @mutation
    async def write(ctx: MutationCtx, count: int) -> None:
        for n in range(count):
            await ctx.db.insert(f"table{n}", {})

    monkeypatch.setattr(transaction, "TABLES_MAX", 20)
    async with Engine.open(":memory:", app=[write]) as engine:
        await engine.mutation(write, 20)
        with pytest.raises(LimitExceeded, match="TABLES_MAX"):
            await engine.mutation(write, 21)


async def test_a_document_that_is_refused_leaves_no_table_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def add(ctx: MutationCtx) -> None:
        with pytest.raises(LimitExceeded):
            await ctx.db.insert("letters", {"a": "x" * DOCUMENT_BYTES_MAX})
        await ctx.db.insert("notes", {"a": 1})

    async with serving([add]) as node:
        await mutate(node, add)
        catalog = node.committer.head.catalog

        assert catalog.table("", "letters") is None
        assert catalog.table("", "notes") is not None
