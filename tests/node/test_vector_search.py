"""Vector search: what is nearest, in queries, mutations and every host of actions."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import pytest
import trio
import trio.testing

from engine.app.blocking import BlockingActionCtx
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import VectorHit
from engine.app.validators import v
from engine.errors import (
    IndexNotFound,
    InvalidRange,
    InvalidValue,
    NotAllowed,
    StoreFull,
    UsageError,
)
from engine.functions.targets import call_target
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import FILTER_NESTING_MAX
from engine.model.values import UNDEFINED, Int64
from engine.node import Node
from engine.store.memory_store import MemoryStore
from engine.transaction import vector_search
from tests.node.nodes import ADMIN, application, ask, ask_at, mutate, serving

SCHEMA = Schema(
    foods=Table(v.any()).vector_index(
        "by_taste", vector_field="taste", dimensions=2, filter_fields=["cuisine", "is.new"]
    )
)
FOODS: dict[str, dict[str, Any]] = {
    "north": {"taste": [0, 2], "cuisine": "French"},
    "north east": {"taste": [3, 3], "cuisine": "Thai", "is": {"new": True}},
    "east": {"taste": [1, 0], "cuisine": "French", "is": {"new": True}},
    "south": {"taste": [0.0, -0.5]},
    "too long": {"taste": [1, 2, 3], "cuisine": "French"},
    "no numbers": {"taste": ["a", "b"]},
    "no list": {"taste": "sweet"},
    "nothing": {},
}
NORTH = [0.0, 1.0]
DIAGONAL = math.sqrt(0.5)


@mutation
async def add(ctx: MutationCtx, names: list[str]) -> list[VectorHit[Any]]:
    for name in names:
        await ctx.db.insert("foods", {"name": name, **FOODS[name]})
    return await ctx.db.vector_search("foods", "by_taste", vector=NORTH)


@query
async def walk(ctx: QueryCtx) -> Any:
    return await ctx.db.query("foods").with_index("by_taste").collect()


@query
async def names_of(ctx: QueryCtx, hits: Any) -> list[Any]:
    foods = [await ctx.db.get(hit["_id"]) for hit in hits]
    return [[food["name"], hit["_score"]] for food, hit in zip(foods, hits, strict=True) if food]


def look(**options: Any) -> Any:
    """A query that searches to the north, unless it is told otherwise."""

    @query(name="look")
    async def look(ctx: QueryCtx) -> list[VectorHit[Any]]:
        return await ctx.db.vector_search("foods", "by_taste", **{"vector": NORTH, **options})

    return look


def path_of(fn: Any) -> str:
    return call_target(fn, (), {}, "")[1]


async def found(node: Node, **options: Any) -> list[list[Any]]:
    """Names and rounded scores of what a search finds."""
    searching = look(**options)
    await node.push(application(add, names_of, searching, SCHEMA))
    named = await ask(node, names_of, await ask(node, searching))
    return [[name, round(score, 6)] for name, score in named]


async def test_what_lies_in_about_the_same_direction_is_found_best_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, names_of, SCHEMA]) as node:
        own = await mutate(node, add, list(FOODS))
        expected = [["north", 1.0], ["north east", 0.707107], ["east", 0.0], ["south", -1.0]]

        assert expected == await found(node)
        assert expected == [[n, round(s, 6)] for n, s in await ask(node, names_of, own)]
        assert expected[:2] == await found(node, limit=2)
        assert [["east", 1.0]] == await found(node, vector=[1e300, 0], limit=1)
        assert [0.0] * 4 == [score for _, score in await found(node, vector=[0, 0])]


@mutation
async def shuffle(ctx: MutationCtx) -> list[Any]:
    """Replace, delete and add, and say after each what is found."""
    ids = {food["name"]: food["_id"] async for food in ctx.db.query("foods")}
    await ctx.db.patch(ids["north"], {"taste": [0, -1]})
    found = [await names_found(ctx, 2)]
    await ctx.db.delete(ids["north east"])
    await ctx.db.patch(ids["north"], {"taste": [0, 1]})
    await ctx.db.insert("foods", {"name": "new", "taste": [0.1, 1]})
    return [*found, await names_found(ctx, 3)]


async def names_found(ctx: QueryCtx, limit: int) -> list[str]:
    hits = await ctx.db.vector_search("foods", "by_taste", vector=NORTH, limit=limit)
    return [food["name"] for hit in hits if (food := await ctx.db.get(hit["_id"]))]


async def test_a_mutation_finds_what_it_has_written_in_the_place_of_what_was_there(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, shuffle, SCHEMA]) as node:
        await mutate(node, add, list(FOODS))

        assert [["north east", "east"], ["north", "new", "east"]] == await mutate(node, shuffle)


async def test_of_equal_scores_the_later_id_comes_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    searching = look(limit=3)
    async with serving([add, names_of, searching, SCHEMA]) as node:
        hits = await mutate(node, add, ["north", "east", "north", "north", "north"])
        ids = [hit["_id"] for hit in hits][:4]

        assert sorted(ids, reverse=True) == ids
        assert ids[:3] == [hit["_id"] for hit in await ask(node, searching)]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        (lambda q: q.eq("cuisine", "French"), ["north", "east"]),
        (lambda q: q.or_(q.eq("cuisine", "Thai"), q.eq("is.new", True)), ["north east", "east"]),
        (lambda q: q.or_(q.eq("cuisine", "Thai"), q.eq("cuisine", "French")), None),
        (lambda q: q.and_(q.eq("cuisine", "French"), q.eq("is.new", True)), ["east"]),
        (lambda q: q.eq("cuisine", "French") & q.eq("is.new", UNDEFINED), ["north"]),
        (lambda q: q.eq("cuisine", UNDEFINED), ["south"]),
        (lambda q: q.eq("cuisine", None), []),
    ],
    ids=range(7),
)
async def test_a_filter_lets_through_what_it_says(
    condition: Callable[[Any], Any],
    names: list[str] | None,
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, names_of, SCHEMA]) as node:
        await mutate(node, add, list(FOODS))

        passed = [name for name, _ in await found(node, filter=condition)]

        assert passed == (["north", "north east", "east"] if names is None else names)


@mutation
async def cook(ctx: MutationCtx, cuisine: Any) -> None:
    """Give all foods a cuisine; they are otherwise as they were."""
    async for food in ctx.db.query("foods"):
        await ctx.db.patch(food["_id"], {"cuisine": cuisine["is"] if cuisine else UNDEFINED})


async def test_a_filter_field_that_becomes_null_or_goes_is_another_value(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, names_of, cook, SCHEMA]) as node:
        await mutate(node, add, ["south"])

        for cuisine, value, other in (({"is": None}, None, UNDEFINED), (None, UNDEFINED, None)):
            await node.push(application(add, names_of, cook, SCHEMA))
            await mutate(node, cook, cuisine)
            assert [["south", -1.0]] == await found(
                node, filter=lambda q, v=value: q.eq("cuisine", v)
            )
            assert [] == await found(node, filter=lambda q, v=other: q.eq("cuisine", v))


def nested(q: Any, count: int) -> Any:
    """A condition within so many others."""
    condition = q.eq("cuisine", "French")
    for n in range(count):
        condition = (q.and_ if n % 2 else q.or_)(condition)
    return condition


async def test_conditions_nest_64_deep(autojump_clock: trio.testing.MockClock) -> None:
    async with serving([add, names_of, SCHEMA]) as node:
        await mutate(node, add, list(FOODS))

        french = await found(node, filter=lambda q: nested(q, FILTER_NESTING_MAX))
        either = await found(
            node, filter=lambda q: reduce(or_, [q.eq("cuisine", n) for n in [*range(63), "Thai"]])
        )

        assert [["north", 1.0], ["east", 0.0]] == french
        assert [["north east", 0.707107]] == either


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"vector": [1.0]}, InvalidValue, "has 1 numbers, and the index 'by_taste' is of 2"),
        ({"vector": []}, InvalidValue, "list of finite numbers"),
        ({"vector": "ab"}, InvalidValue, "list of finite numbers"),
        ({"vector": [1.0, math.nan]}, InvalidValue, "list of finite numbers"),
        ({"vector": [1e308, 1e308, "1"]}, InvalidValue, "list of finite numbers"),
        ({"vector": [1e308, 10**400]}, InvalidValue, "list of finite numbers"),
        ({"limit": 0}, InvalidValue, "1 to 256"),
        ({"limit": 257}, InvalidValue, "1 to 256"),
        ({"limit": 1.5}, InvalidValue, "1 to 256"),
        ({"limit": math.nan}, InvalidValue, "1 to 256"),
        ({"limit": True}, InvalidValue, "1 to 256"),
        ({"filter": lambda q: q.eq("name", "north")}, InvalidRange, "no filter field"),
        (
            {"filter": lambda q: q.or_(*[q.eq("cuisine", n) for n in range(65)])},
            InvalidRange,
            "at most 64 filter values",
        ),
        (
            {"filter": lambda q: reduce(or_, [q.eq("cuisine", n) for n in range(5_000)])},
            InvalidRange,
            "at most 64 filter values",
        ),
        ({"filter": lambda q: nested(q, 5_000)}, InvalidRange, r"64 deep \(FILTER_NESTING_MAX"),
        ({"filter": lambda q: q.neq("cuisine", "x")}, InvalidRange, "q.eq, q.or_ and q.and_; look"),
        ({"filter": lambda q: q.lt("cuisine", "x")}, InvalidRange, "q.eq, q.or_ and q.and_; look"),
        ({"filter": {"cuisine": "x"}}, InvalidRange, "is a function, as in lambda q"),
        ({"vector": [1j, 0]}, InvalidValue, "list of finite numbers"),
        ({"vector": {1.0, 0.0}}, InvalidValue, "in their order"),
        ({"vector": bytearray(2)}, InvalidValue, "list of finite numbers"),
        ({"vector": [True, False]}, InvalidValue, "numbers, int or float"),
        ({"vector": [1.0, Int64(1)]}, InvalidValue, "numbers, int or float"),
    ],
    ids=range(23),
)
async def test_a_search_that_cannot_be_is_refused(
    options: Any, error: type[Exception], said: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with serving([add, names_of, SCHEMA]) as node:
        await mutate(node, add, list(FOODS))

        with pytest.raises(error, match=said):
            await found(node, **options)


async def test_an_index_that_is_not_there_is_refused_with_the_line_to_add(
    autojump_clock: trio.testing.MockClock,
) -> None:
    searching = look()
    async with serving([add, searching]) as node:
        assert [] == await ask(node, searching), "a table that is not there has nothing"

        with pytest.raises(IndexNotFound, match=r"\.vector_index\('by_taste', vector_field="):
            await mutate(node, add, ["north"])


async def test_who_walks_a_vector_index_is_told_how_it_is_searched(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving([add, walk, SCHEMA]) as node:
        await mutate(node, add, ["north"])
        with pytest.raises(IndexNotFound, match=r"a vector index; use ctx\.db\.vector_search"):
            await ask(node, walk)


async def test_a_search_of_the_past_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    searching = look()
    async with serving([add, searching, SCHEMA]) as node:
        await mutate(node, add, ["north"])

        with pytest.raises(NotAllowed, match="as of a ts"):
            await ask_at(node, node.published.value - 1, searching)


async def test_contexts_say_where_a_search_is(autojump_clock: trio.testing.MockClock) -> None:
    @query
    async def on_ctx(ctx: QueryCtx) -> Any:
        return await ctx.vector_search("foods", "by_taste", vector=NORTH)  # type: ignore[attr-defined]

    @query
    async def of_system(ctx: QueryCtx) -> Any:
        return await ctx.db.system.vector_search("foods", "by_taste", vector=NORTH)

    async with serving([on_ctx, of_system, SCHEMA]) as node:
        with pytest.raises(NotAllowed, match=r"ctx\.db\.vector_search"):
            await ask(node, on_ctx)
        with pytest.raises(NotAllowed, match="system tables have none"):
            await ask(node, of_system)


# Actions.


@action
async def on_trio(ctx: ActionCtx, limit: int = 10) -> list[VectorHit[Any]]:
    return await ctx.vector_search("foods", "by_taste", vector=NORTH, limit=limit)


@action(loop="asyncio")
async def on_asyncio(ctx: ActionCtx, limit: int = 10) -> list[VectorHit[Any]]:
    return await ctx.vector_search("foods", "by_taste", vector=NORTH, limit=limit)


@action
def in_a_thread(ctx: BlockingActionCtx, limit: int = 10) -> list[VectorHit[Any]]:
    return ctx.vector_search("foods", "by_taste", vector=NORTH, limit=limit)


@pytest.mark.parametrize("act", [on_trio, on_asyncio, in_a_thread])
async def test_every_host_of_actions_finds_what_a_query_finds(act: Any) -> None:
    searching = look()
    app = [add, names_of, on_trio, on_asyncio, in_a_thread, searching, SCHEMA]
    async with serving(app) as node:
        await mutate(node, add, list(FOODS))

        done = await node.functions.action(path_of(act), {}, caller=ADMIN)
        refused = await node.functions.action(path_of(act), {"limit": 257}, caller=ADMIN)

        assert await ask(node, searching) == done.value
        assert refused.failure is not None
        assert "1 to 256" in refused.failure.message


async def test_without_numpy_a_search_names_the_extra_and_the_rest_works(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    vector_search._numeric.cache_clear()
    monkeypatch.delattr("engine.transaction.nearest", raising=False)
    monkeypatch.setitem(sys.modules, "engine.transaction.nearest", None)

    searching = look()
    async with serving([add, searching, SCHEMA]) as node:
        with pytest.raises(UsageError, match=r"headrace\[vectors\]"):
            await mutate(node, add, ["north"])


# What a search has read.


@mutation
async def rewrite(ctx: MutationCtx, name: str, fields: dict[str, Any] | None) -> None:
    async for food in ctx.db.query("foods"):
        if food["name"] == name and fields is None:
            await ctx.db.delete(food["_id"])
        elif food["name"] == name and fields is not None:
            await ctx.db.patch(food["_id"], fields)


@query
async def nearest_french(ctx: QueryCtx) -> list[VectorHit[Any]]:
    return await ctx.db.vector_search(
        "foods", "by_taste", vector=NORTH, limit=2, filter=lambda q: q.eq("cuisine", "French")
    )


@pytest.mark.parametrize(
    ("name", "fields", "wakes"),
    [
        ("new", {"taste": [0, 1], "cuisine": "French"}, True),
        ("new", {"taste": [-1, 0.2], "cuisine": "French"}, True),
        ("new", {"taste": [-1, 0], "cuisine": "French"}, True),
        ("new", {"taste": [-1, -0.1], "cuisine": "French"}, False),
        ("new", {"taste": [0, 1], "cuisine": "Thai"}, False),
        ("new", {"taste": [0, 1, 0], "cuisine": "French"}, False),
        ("north", None, True),
        ("north", {"taste": [0, 9]}, False),
        ("north", {"taste": [9, 0]}, True),
        ("north", {"cuisine": "Thai"}, True),
        ("north", {"note": "hot"}, False),
        ("north east", {"cuisine": "French"}, True),
        ("north east", None, False),
        ("nothing", {"taste": [1, 1], "cuisine": "French"}, True),
    ],
)
async def test_a_search_is_asked_again_when_what_it_finds_may_have_changed(
    name: str, fields: dict[str, Any] | None, wakes: bool, autojump_clock: trio.testing.MockClock
) -> None:
    @mutation
    async def put(ctx: MutationCtx, fields: dict[str, Any]) -> None:
        await ctx.db.insert("foods", {"name": "new", **fields})

    async with serving([add, put, rewrite, nearest_french, SCHEMA]) as node:
        await mutate(node, add, list(FOODS))
        shown = await node.functions.query(path_of(nearest_french), {}, caller=ADMIN)

        if name == "new":
            await mutate(node, put, fields)
        else:
            await mutate(node, rewrite, name, fields)
        await node.functions.processed.wait_reached(node.published.value)

        assert wakes == (shown.live.invalidated_at is not None)
        shown.live.release()


async def test_a_search_that_has_found_fewer_than_it_may_waits_for_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    searching = look(limit=3)
    async with serving([add, searching, SCHEMA]) as node:
        await mutate(node, add, ["north"])
        shown = await node.functions.query(path_of(searching), {}, caller=ADMIN)

        await mutate(node, add, ["south"])
        await node.functions.processed.wait_reached(node.published.value)

        assert shown.live.invalidated_at is not None
        shown.live.release()


@mutation
async def take_nearest(ctx: MutationCtx, by: str) -> str:
    """Add a food that lies where the nearest was, unless somebody has it."""
    hits = await ctx.db.vector_search("foods", "by_taste", vector=NORTH, limit=1)
    nearest = await ctx.db.get(hits[0]["_id"]) if hits else None
    if nearest is not None and nearest["taste"] == [0, 1]:
        return str(nearest["name"])
    await ctx.db.insert("foods", {"name": by, "taste": [0, 1]})
    return by


@pytest.mark.parametrize("seed", range(8))
async def test_of_two_that_would_both_find_nothing_one_finds_what_the_other_wrote(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    runtime = VirtualRuntime(seed, interleaves=True)
    async with serving([add, take_nearest, SCHEMA], runtime=runtime) as node:
        await mutate(node, add, ["north east"])
        told: set[str] = set()

        async def one(name: str) -> None:
            told.add(await mutate(node, take_nearest, name))

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(one, name)

        assert 1 == len(told), "all were told of the same one"


async def test_what_a_refused_batch_had_staged_is_not_found(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, searching = MemoryStore(), look()
    async with serving([add, names_of, searching, SCHEMA], store=store) as node:
        await mutate(node, add, ["east"])
        store.fail_next(StoreFull("as planned"))

        await mutate(node, add, ["north"])

        found = await ask(node, names_of, await ask(node, searching))
        assert ["north", "east"] == [name for name, _ in found], "each of them once"


async def test_an_index_answers_again_after_a_restart(
    autojump_clock: trio.testing.MockClock,
) -> None:
    store, searching = MemoryStore(), look()
    app = [add, names_of, searching, SCHEMA]
    async with serving(app, store=store) as node:
        await mutate(node, add, list(FOODS))
        before = await ask(node, searching)
        assert answering(node)

    async with serving(app, store=store) as node:
        await node.runtime.sleep(1)

        assert answering(node)
        assert before == await ask(node, searching)


def answering(node: Node) -> bool:
    """Whether the index answers, and nobody has to look at all documents."""
    table = node.committer.head.catalog.table("", "foods")
    assert table is not None
    return (
        node.functions._snapshots.current.live.find(table.indexes["by_taste"].index_id) is not None
    )
