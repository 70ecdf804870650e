"""Reading: every way to begin, to narrow and to end a query, and what none of them takes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio.testing

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.errors import FilterError, InvalidId, InvalidRange, InvalidValue, NotAllowed, UsageError
from engine.model.values import UNDEFINED, Int64
from tests.node.nodes import ask, mutate, serving

Read = Callable[[QueryCtx], Awaitable[Any]]

SCHEMA = Schema(
    notes=Table(v.any()).index("by_channel_stars", ["channel", "stars"]).index("by_x", ["x"])
)
NOTES = [
    {"n": 0, "channel": "a", "stars": 3},
    {"n": 1, "channel": "b", "stars": 1},
    {"n": 2, "channel": "a", "stars": 1},
    {"n": 3, "channel": "a", "stars": 2},
    {"n": 4, "channel": "a", "stars": 2},
]


@mutation
async def add(ctx: MutationCtx, docs: list[Any], table: str = "notes") -> list[str]:
    return [await ctx.db.insert(table, doc) for doc in docs]


async def found(read: Read, docs: list[Any] | None = None, *, refused: Any = None) -> Any:
    """What a query of these documents finds; or what it is told, if `refused` says how."""

    @query
    async def look(ctx: QueryCtx) -> Any:
        return await read(ctx)

    async with serving([add, look, SCHEMA]) as node:
        await mutate(node, add, NOTES if docs is None else docs)
        if refused is None:
            return await ask(node, look)
        with pytest.raises(refused) as told:
            await ask(node, look)
        return str(told.value)


def numbers(docs: list[Any]) -> list[int]:
    return [doc["n"] for doc in docs]


# One document.


async def test_get_gives_a_document_or_none_and_refuses_what_is_no_id(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @mutation
    async def remove(ctx: MutationCtx, one: Any) -> None:
        await ctx.db.delete(one)

    @query
    async def get(ctx: QueryCtx, one: Any, table: Any = None) -> Any:
        return await (ctx.db.get(one) if table is None else ctx.db.get(table, one))

    async with serving([add, remove, get]) as node:
        kept, gone = await mutate(node, add, [{"n": 0}, {"n": 1}])
        await mutate(node, remove, gone)

        assert 0 == (await ask(node, get, kept))["n"] == (await ask(node, get, kept, "notes"))["n"]
        assert None is await ask(node, get, gone)
        for one, table in [(None, None), (7, None), ("", None), (kept, "others")]:
            with pytest.raises(InvalidId):
                await ask(node, get, one, table)


async def test_normalize_id_tells_whose_id_it_is_and_not_whether_it_is_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    @query
    async def normalized(ctx: QueryCtx, one: str) -> list[Any]:
        return [await ctx.db.normalize_id(table, one) for table in ("notes", "others", "nowhere")]

    @mutation
    async def remove(ctx: MutationCtx, one: Any) -> None:
        await ctx.db.delete(one)

    async with serving([add, remove, normalized]) as node:
        (note,) = await mutate(node, add, [{}])
        (other,) = await mutate(node, add, [{}], "others")
        await mutate(node, remove, note)

        assert [note, None, None] == await ask(node, normalized, note)
        assert [None, other, None] == await ask(node, normalized, other)
        assert [None, None, None] == await ask(node, normalized, "no id")


async def test_an_id_names_its_table_and_is_fit_for_a_url(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add]) as node:
        ids = await mutate(node, add, [{} for _ in range(100)])

    assert 100 == len(set(ids))
    assert all(one.isascii() and one.isalnum() and one == one.lower() for one in ids)
    assert {True} == {31 <= len(one) <= 37 for one in ids}


# Ends of a query.


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda notes: notes.collect(), [0, 1, 2, 3, 4]),
        (lambda notes: notes.order("desc").collect(), [4, 3, 2, 1, 0]),
        (lambda notes: notes.take(2), [0, 1]),
        (lambda notes: notes.take(0), []),
        (lambda notes: notes.take(9), [0, 1, 2, 3, 4]),
        (lambda notes: notes.filter(lambda q: q.field("n") > 1).order("desc").take(2), [4, 3]),
        (lambda notes: notes.full_table_scan().take(1), [0]),
        (lambda notes: notes.where(lambda doc: doc["n"] % 2 == 1).collect(), [1, 3]),
        (
            lambda notes: (
                notes.filter(lambda q: q.field("n") > 0)
                .filter(lambda q: q.field("n") < 3)
                .collect()
            ),
            [1, 2],
        ),
    ],
    ids=range(9),
)
async def test_a_query_begins_narrows_and_ends(
    read: Any, expected: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    assert expected == numbers(await found(lambda ctx: read(ctx.db.query("notes"))))


async def test_first_and_unique_give_a_document_or_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read(ctx: QueryCtx) -> list[Any]:
        of = [ctx.db.query("notes").with_index("by_channel_stars", channel=c) for c in "abc"]
        return [
            await of[0].first(),
            await of[2].first(),
            await of[1].unique(),
            await of[2].unique(),
        ]

    first, no_first, only, no_only = await found(read)

    assert (2, None, 1, None) == (first["n"], no_first, only["n"], no_only)


async def test_unique_refuses_two_and_names_them(autojump_clock: trio.testing.MockClock) -> None:
    said = await found(lambda ctx: ctx.db.query("notes").unique(), refused=InvalidValue)

    first, second = said.partition("from table 'notes': ")[2].split(", ")[:2]
    assert said.startswith("unique() query returned more than one result")
    assert first != second
    assert 32 == len(first) == len(second)


async def test_a_loop_over_a_query_reads_no_further_than_it_goes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read(ctx: QueryCtx) -> list[int]:
        seen = []
        async for note in ctx.db.query("notes").order("desc"):
            seen.append(note["n"])
            if len(seen) == 3:
                break
        return seen

    assert [4, 3, 2] == await found(read)


async def test_a_table_that_nobody_has_written_is_empty(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read(ctx: QueryCtx) -> list[Any]:
        nothing = ctx.db.query("no" + "where")
        page = await nothing.paginate({"numItems": 3, "cursor": None})
        return [await nothing.collect(), await nothing.first(), page["page"], page["isDone"]]

    assert [[], None, [], True] == await found(read)


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda notes: notes.order("up"), "'asc' or 'desc'"),
        (lambda notes: notes.order("asc").order("desc"), "already set"),
        (lambda notes: notes, "is not awaited itself"),
    ],
    ids=["order", "twice", "no-end"],
)
async def test_a_query_that_cannot_be_says_why(
    read: Any, said: str, autojump_clock: trio.testing.MockClock
) -> None:
    told = await found(lambda ctx: _awaited(read(ctx.db.query("notes"))), refused=UsageError)

    assert said in told


async def _awaited(one: Any) -> Any:
    return await one


async def test_tables_of_the_engine_are_read_through_system_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def read(ctx: QueryCtx) -> Any:
        return ctx.db.query("_scheduled_functions").collect()

    assert "db.system.query" in await found(read, refused=NotAllowed)


# Ranges of an index.


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (lambda r: r, [2, 3, 4, 0, 1]),
        (lambda r: r.eq("channel", "a"), [2, 3, 4, 0]),
        (lambda r: r.eq("channel", "a").eq("stars", 2), [3, 4]),
        (lambda r: r.eq("channel", "a").gt("stars", 1), [3, 4, 0]),
        (lambda r: r.eq("channel", "a").gte("stars", 2).lt("stars", 3), [3, 4]),
        (lambda r: r.eq("channel", "a").lte("stars", 1), [2]),
        (lambda r: r.gt("channel", "a"), [1]),
        (lambda r: r.eq("channel", "a").eq("stars", 2).gt("_creationTime", 0), [3, 4]),
        (lambda r: r.eq("channel", "a").gt("stars", 3).lt("stars", 1), []),
        (lambda r: r.eq("channel", "z"), []),
    ],
    ids=range(10),
)
async def test_a_range_is_equal_fields_and_then_bounds_on_one(
    bounds: Any, expected: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    def read(ctx: QueryCtx) -> Any:
        return ctx.db.query("notes").with_index("by_channel_stars", bounds).collect()

    assert expected == numbers(await found(read))


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (lambda r: r.eq("stars", 1), "only be used after an eq on every field before it"),
        (lambda r: r.gt("_creationTime", 0), "only be used after an eq on every field before it"),
        (lambda r: r.eq("channel", "a").gt("_creationTime", 0), "'_creationTime' can only be used"),
        (lambda r: r.gt("channel", "a").eq("stars", 1), "after an eq on every field before it"),
        (lambda r: r.eq("channel", "a").eq("channel", "b"), "given twice"),
        (lambda r: r.gt("channel", "a").gte("channel", "b"), "a lower bound is set already"),
        (lambda r: r.lt("channel", "a").lte("channel", "b"), "an upper bound is set already"),
        (lambda r: r.gt("channel", "a").lt("stars", 3), "bounds are on two fields"),
        (lambda r: r.eq("n", 1), "the index 'by_channel_stars' is on"),
    ],
    ids=range(9),
)
async def test_a_range_that_is_no_part_of_the_index_is_refused(
    bounds: Any, said: str, autojump_clock: trio.testing.MockClock
) -> None:
    def read(ctx: QueryCtx) -> Any:
        return ctx.db.query("notes").with_index("by_channel_stars", bounds).collect()

    assert said in await found(read, refused=InvalidRange)


KINDS: list[Any] = [
    {},
    {"x": None},
    {"x": Int64(7)},
    {"x": -0.5},
    {"x": 3},
    {"x": False},
    {"x": "s"},
    {"x": b"b"},
    {"x": []},
    {"x": {}},
]
"""One of each kind, in the order of kinds."""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (UNDEFINED, UNDEFINED, [0]),
        (None, None, [1]),
        (None, {"z": 1}, list(range(1, 10))),
        (UNDEFINED, 0, [0, 1, 2, 3]),
        (False, b"\xff", [5, 6, 7]),
    ],
    ids=range(5),
)
async def test_filters_and_ranges_know_one_order_of_all_kinds(
    low: Any, high: Any, expected: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    async def read(ctx: QueryCtx) -> list[Any]:
        notes = ctx.db.query("notes")
        ranged = notes.with_index("by_x", lambda r: r.gte("x", low).lte("x", high))
        filtered = notes.filter(lambda q: (q.field("x") >= low) & (q.field("x") <= high))
        return [numbers(await ranged.collect()), numbers(await filtered.collect())]

    docs = [{"n": n, **doc} for n, doc in reversed(list(enumerate(KINDS)))]
    by_range, by_filter = await found(read, docs)

    assert expected == by_range
    assert expected == by_filter[::-1]


async def test_a_missing_field_equals_undefined_and_not_null(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read(ctx: QueryCtx) -> list[Any]:
        notes = ctx.db.query("notes")
        missing = notes.with_index("by_x", lambda r: r.eq("x", UNDEFINED))
        has = notes.with_index("by_x", lambda r: r.gte("x", None))
        filtered = notes.filter(lambda q: q.eq(q.field("x"), UNDEFINED))
        below = notes.with_index("by_x", lambda r: r.lt("x", 1))
        ends = (missing, has, filtered, below)
        return [numbers(await one.collect()) for one in ends]

    docs = [{"n": 0}, {"n": 1, "y": 1}, {"n": 2, "x": None}, {"n": 3, "x": 1}]

    assert [[0, 1], [2, 3], [0, 1], [0, 1, 2]] == await found(read, docs)


async def test_equal_keys_are_in_the_order_of_creation(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def read(ctx: QueryCtx) -> list[Any]:
        same = ctx.db.query("notes").with_index("by_x", x=1)
        return [numbers(await same.collect()), numbers(await same.order("desc").collect())]

    docs = [{"n": n, "x": 1} for n in range(20)]

    assert [list(range(20)), list(range(19, -1, -1))] == await found(read, docs)


# Filters.

Expression = Callable[[Any], Any]


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        (lambda q: q.eq(q.field("a"), 5), True),
        (lambda q: q.eq(q.field("a"), Int64(5)), False),
        (lambda q: q.eq(q.field("o.deep"), "x"), True),
        (lambda q: q.eq(q.field("a.deep"), UNDEFINED), True),
        (lambda q: q.neq(q.field("a"), "5"), True),
        (lambda q: q.lt(q.field("a"), q.field("s")), True),
        (lambda q: q.eq(q.add(q.field("a"), 2), 7), True),
        (lambda q: q.eq(q.sub(q.mul(q.field("a"), 3), 1), 14), True),
        (lambda q: q.eq(q.mod(q.neg(q.field("a")), 3), -2), True),
        (lambda q: q.eq(q.div(q.field("a"), 0), math.inf), True),
        (lambda q: q.eq(q.div(q.neg(q.field("a")), 0), -math.inf), True),
        (lambda q: q.gt(q.mod(q.field("a"), 0), math.inf), True),  # not a number: the last of all
        (lambda q: q.eq(q.div(q.field("i"), Int64(2)), Int64(-3)), True),
        (lambda q: q.eq(q.mod(q.field("i"), Int64(2)), Int64(-1)), True),
        (lambda q: q.and_(True, q.field("t"), q.eq(1, 1)), True),
        (lambda q: q.or_(False, q.not_(q.field("t"))), False),
        (lambda q: q.or_(q.field("t"), q.field("a")), True),  # the second is not looked at
        (lambda q: q.and_(), True),
        (lambda q: q.or_(), False),
        (lambda q: ~(q.field("a") != 5) & (q.field("a") - 1 < 5), True),
    ],
    ids=range(20),
)
async def test_a_filter_computes_as_the_clients_language_does(
    expression: Expression, holds: bool, autojump_clock: trio.testing.MockClock
) -> None:
    docs = [{"n": 0, "a": 5, "s": "x", "o": {"deep": "x"}, "t": True, "i": Int64(-7)}]

    kept = await found(lambda ctx: ctx.db.query("notes").filter(expression).collect(), docs)

    assert ([0] if holds else []) == numbers(kept)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (lambda q: q.add(q.field("a"), Int64(1)), "add takes two numbers or two Int64"),
        (lambda q: q.lt(q.add(q.field("s"), 1), 2), "add takes two numbers or two Int64"),
        (lambda q: q.div(q.field("i"), Int64(0)), "div of -7 by zero"),
        (lambda q: q.mul(Int64(2**62), Int64(2)), "does not fit in 64 bits"),
        (lambda q: q.field("a"), "a filter needs true or false"),
        (lambda q: q.and_(q.field("missing")), "a filter needs true or false"),
        (lambda q: q.eq(1, 1) and q.eq(2, 2), "write & | ~ instead of and, or, not"),
        (lambda q: q["a"] == 1, "write q.field('a')"),
    ],
    ids=range(8),
)
async def test_a_filter_that_makes_no_sense_is_refused(
    expression: Expression, said: str, autojump_clock: trio.testing.MockClock
) -> None:
    docs = [{"a": 5, "s": "x", "i": Int64(-7)}]

    def read(ctx: QueryCtx) -> Any:
        return ctx.db.query("notes").filter(expression).collect()

    assert said in await found(read, docs, refused=FilterError)
