"""What a query may be asked, and what of the engine's own tables it may see."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable
from typing import Any

import pytest
import trio.testing

from engine import (
    UNDEFINED,
    Engine,
    FilterError,
    Id,
    IndexNotFound,
    InvalidCursor,
    InvalidId,
    InvalidRange,
    InvalidValue,
    LimitExceeded,
    MutationCtx,
    NotAllowed,
    QueryCtx,
    Schema,
    Table,
    cron_jobs,
    mutation,
    query,
    v,
)
from engine.app.contexts import DatabaseReader
from engine.app.registry import Application
from engine.app.types import PaginationOptions
from engine.functions.results import failure_of
from engine.model.codec import decode
from engine.model.ids import encode_id
from engine.model.keys import encode_key
from engine.model.limits import OBJECT_FIELDS_MAX, QUERY_FILTERS_MAX
from engine.remote.failures import failure_of as failure_elsewhere
from engine.transaction.pagination import Position, encode_cursor
from tests.node.nodes import application, ask, mutate, serving

schema = Schema(notes=Table(v.any()).index("by_owner", ["owner"]))


@mutation
async def fill(ctx: MutationCtx) -> None:
    for n in range(10):
        await ctx.db.insert("notes", {"owner": "ada" if n < 5 else "bob", "n": n})


@query
async def notes_of(ctx: QueryCtx, owner: str, opts: Any, order: str = "asc") -> Any:
    mine = ctx.db.query("notes").with_index("by_owner", owner=owner)
    found = await mine.order("desc" if order == "desc" else "asc").paginate(opts)
    return {**found, "page": [note["n"] for note in found["page"]]}


# Cursors.


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_cursor_that_was_made_up_shows_nobody_what_the_query_would_not(order: str) -> None:
    async with Engine.open(":memory:", app=[schema, fill, notes_of]) as engine:
        await engine.mutation(fill)
        first = {"numItems": 1, "cursor": None}
        cursor = (await engine.query(notes_of, "ada", first, order))["continueCursor"]
        fingerprint = decode(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))[0]
        before, behind = (
            encode_cursor(Position(key), fingerprint) for key in (b"", encode_key(["zoe"]))
        )

        for start, end in ((before, behind), (behind, before)):
            opts = {"numItems": 100, "cursor": start, "endCursor": end}
            found = await engine.query(notes_of, "ada", opts, order)
            assert set(found["page"]) <= set(range(5))


async def test_a_cursor_is_caught_by_its_class_and_known_to_clients_by_its_data() -> None:
    async with Engine.open(":memory:", app=[schema, fill, notes_of]) as engine:
        await engine.mutation(fill)
        first = await engine.query(notes_of, "ada", {"numItems": 1, "cursor": None})

        with pytest.raises(InvalidCursor, match="belongs to another query") as refused:
            opts = {"numItems": 1, "cursor": first["continueCursor"]}
            await engine.query(notes_of, "bob", opts)

    known = {"isConvexSystemError": True, "paginationError": "InvalidCursor"}
    assert known == failure_of(refused.value).data
    answer = {"errorMessage": "[Request ID: 1] Server Error", "errorData": known}
    assert isinstance(failure_elsewhere("main:notes", answer), InvalidCursor)


async def test_a_cursor_of_an_index_is_none_of_one_with_other_fields(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def page(ctx: QueryCtx, opts: PaginationOptions) -> Any:
        return await ctx.db.query("notes").with_index("by_it").paginate(opts)

    def app(field: str) -> Application:
        return application(Schema(notes=Table(v.any()).index("by_it", [field])), fill, page)

    async with serving(app("owner")) as node:
        await mutate(node, fill)
        first = await ask(node, page, {"numItems": 1, "cursor": None})
        await node.push(app("n"))

        with pytest.raises(InvalidCursor):
            await ask(node, page, {"numItems": 1, "cursor": first["continueCursor"]})


# Tables and indexes.


@pytest.mark.parametrize(
    ("build", "error", "said"),
    [
        (lambda db: db.query("no table"), InvalidValue, "'no table' cannot be the name of a table"),
        (lambda db: db.query(""), InvalidValue, "'' cannot be the name of a table"),
        (lambda db: db.query(5), InvalidValue, "a table is given by its name or by the class"),
        (
            lambda db: db.query("nots").with_index("by_owner", owner="ada"),
            IndexNotFound,
            "there is no table 'nots', so it has no index 'by_owner'",
        ),
        (
            lambda db: db.query("notes").with_index("by_owner", owner="ada").with_index("by_id"),
            InvalidRange,
            "reads the index 'by_owner' already",
        ),
        (
            lambda db: db.query("notes").full_table_scan().with_index("by_owner"),
            InvalidRange,
            "reads the index 'by_creation_time' already",
        ),
        (
            lambda db: db.system.query("_scheduled_functions").with_index("by_due"),
            IndexNotFound,
            "it has by_id, by_creation_time",
        ),
        (
            lambda db: db.query("_tables"),
            NotAllowed,
            "'_tables' is no table that functions have",
        ),
        (
            lambda db: db.query("_scheduled_functions"),
            NotAllowed,
            r"read it with db\.system\.query\('_scheduled_functions'\)",
        ),
        (
            lambda db: filtered(db.query("notes"), QUERY_FILTERS_MAX + 1),
            InvalidRange,
            r"at most 256 filters \(QUERY_FILTERS_MAX\)",
        ),
        (
            lambda db: db.query("notes").filter(lambda q: nested(q, 5_000)),
            FilterError,
            r"nested more than 64 deep \(FILTER_NESTING_MAX\)",
        ),
    ],
    ids=[
        "spaces",
        "empty",
        "number",
        "no-table",
        "twice",
        "scan-and-index",
        "system-index",
        "hidden",
        "system",
        "filters",
        "nested",
    ],
)
async def test_a_query_that_cannot_be_is_refused_by_name(
    build: Callable[[DatabaseReader], Any], error: type[Exception], said: str
) -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        return await build(ctx.db).collect()

    async with Engine.open(":memory:", app=[schema, look]) as engine:
        with pytest.raises(error, match=said):
            await engine.query(look)


def nested(q: Any, count: int) -> Any:
    condition = q.field("n") == 5
    for _ in range(count):
        condition = q.not_(condition)
    return condition


def filtered(notes: Any, count: int) -> Any:
    for n in range(count):
        notes = notes.filter(lambda q: q.field("n") == 5) if n % 2 else notes.where(bool)
    return notes


async def test_as_many_filters_as_a_query_may_have_are_all_asked() -> None:
    @query
    async def look(ctx: QueryCtx) -> list[Any]:
        found = await filtered(ctx.db.query("notes"), QUERY_FILTERS_MAX).collect()
        return [doc["n"] for doc in found]

    async with Engine.open(":memory:", app=[schema, fill, look]) as engine:
        await engine.mutation(fill)
        assert [5] == await engine.query(look)


async def test_a_table_that_nobody_has_written_is_empty() -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        things = ctx.db.query("things")
        by_id = things.with_index("by_id", lambda r: r.gt("_id", ""))
        return [await things.first(), await by_id.collect(), await ctx.db.count("things")]

    async with Engine.open(":memory:", app=[look]) as engine:
        assert [None, [], 0] == await engine.query(look)


# Documents.


async def test_a_document_has_no_more_fields_than_can_be_read_again() -> None:
    @mutation
    async def write(ctx: MutationCtx, count: int, more: int = 0) -> Id[Any]:
        doc_id = await ctx.db.insert("notes", {f"f{n}": n for n in range(count)})
        await ctx.db.patch(doc_id, {f"g{n}": n for n in range(more)})
        return doc_id

    @query
    async def read(ctx: QueryCtx, doc_id: Id[Any]) -> Any:
        return await ctx.db.get(doc_id)

    async with Engine.open(":memory:", app=[write, read]) as engine:
        doc_id = await engine.mutation(write, OBJECT_FIELDS_MAX - 2)
        assert OBJECT_FIELDS_MAX == len(await engine.query(read, doc_id))

        for count, more in ((OBJECT_FIELDS_MAX - 1, 0), (600, 600)):
            with pytest.raises(LimitExceeded, match="OBJECT_FIELDS_MAX"):
                await engine.mutation(write, count, more)


# The engine's own tables.


@mutation
async def later(ctx: MutationCtx, n: float) -> None:
    pass


@mutation
async def schedule(ctx: MutationCtx) -> None:
    for n in range(3):
        await ctx.scheduler.run_after(3_600_000, later, n)


crons = cron_jobs()
crons.interval("tick", later, seconds=3600, args={"n": 0})


async def test_jobs_are_found_as_documents_are_though_others_are_hidden_among_them() -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        jobs = ctx.db.system.query("_scheduled_functions")
        page = await jobs.paginate({"numItems": 2, "cursor": None})
        fields: set[str] = set()

        def look_at(job: Any) -> bool:
            fields.update(job)
            return True

        return {
            "first": await jobs.first(),
            "taken": len(await jobs.take(2)),
            "streamed": len([job async for job in jobs]),
            "page": len(page["page"]),
            "due": await jobs.filter(lambda q: q.neq(q.field("due"), UNDEFINED)).collect(),
            "seen": len(await jobs.where(look_at).collect()),
            "fields": sorted(fields),
        }

    async with Engine.open(":memory:", app=[later, schedule, crons, look]) as engine:
        await engine.mutation(schedule)
        found = await engine.query(look)

    assert [{"n": 0}] == found["first"]["args"]  # the tick of the cron is older, and hidden
    assert (2, 3, 2) == (found["taken"], found["streamed"], found["page"])
    assert [] == found["due"]
    assert sorted(found["first"]) == found["fields"]


JOB, TABLE_ROW = encode_id(517, b"x" * 16), encode_id(513, b"x" * 16)


async def test_ids_of_system_tables_are_known_where_functions_may_read_them() -> None:
    @query
    async def look(ctx: QueryCtx) -> Any:
        db: Any = ctx.db
        return [
            await db.normalize_id("_scheduled_functions", JOB),
            await db.system.normalize_id("_scheduled_functions", JOB),
            await db.normalize_id("_tables", TABLE_ROW),
            await db.system.normalize_id("_tables", TABLE_ROW),
            await db.system.normalize_id("notes", (await db.query("notes").first())["_id"]),
            await db.system.get("_scheduled_functions", JOB),
        ]

    @query
    async def mistake(ctx: QueryCtx) -> Any:
        db: Any = ctx.db
        return await db.system.get("_storage", JOB)

    async with Engine.open(":memory:", app=[schema, fill, look, mistake]) as engine:
        await engine.mutation(fill)

        assert [JOB, JOB, None, None, None, None] == await engine.query(look)
        with pytest.raises(InvalidId, match="of '_scheduled_functions', not of '_storage'"):
            await engine.query(mistake)


@query
async def with_what_awaits(ctx: QueryCtx) -> Any:
    async def is_odd(note: Any) -> bool:
        return bool(note["n"] % 2)

    predicate: Any = is_odd
    return await ctx.db.query("notes").where(predicate).collect()


@query
async def with_a_limit_of_its_own(ctx: QueryCtx, ending: str) -> Any:
    def is_cheap(note: Any) -> bool:
        if note["n"] == 7:
            raise LimitExceeded("cheap", 8, 7, "notes", "Ask for fewer.")
        return True

    notes = ctx.db.query("notes").where(is_cheap)
    if ending == "async for":
        return [note["n"] async for note in notes]
    return [note["n"] for note in await (notes.collect() if ending == "collect" else notes.take(9))]


async def test_a_predicate_that_awaits_is_refused() -> None:
    """What it returns is no answer, and would be taken for a yes."""
    async with serving([fill, with_what_awaits, schema]) as node:
        await mutate(node, fill)
        with pytest.raises(InvalidValue, match=r"where\(\) awaits; it has to answer at once"):
            await ask(node, with_what_awaits)


@pytest.mark.parametrize("ending", ["collect", "take", "async for"])
async def test_a_limit_that_a_predicate_raises_leaves_no_document_out(ending: str) -> None:
    async with serving([fill, with_a_limit_of_its_own, schema]) as node:
        await mutate(node, fill)
        with pytest.raises(LimitExceeded, match="Ask for fewer"):
            await ask(node, with_a_limit_of_its_own, ending)
