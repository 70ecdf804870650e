"""Vector indexes on disk: read when an engine opens, gone on from, not believed when damaged."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import trio
from numpy.typing import NDArray
from structlog.testing import capture_logs
from usearch.compiled import ScalarKind

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import VectorHit
from engine.app.validators import v
from engine.host import Engine
from engine.indexes import keeper
from engine.indexes.vectors import check, graph
from engine.indexes.vectors import index as vector_index
from engine.indexes.vectors.asked import value_key
from engine.indexes.vectors.entry import Entry
from engine.indexes.vectors.graph import LEAD_BYTES, Graph
from engine.indexes.vectors.index import VectorIndex
from engine.indexes.vectors.parts import Part

SCHEMA = Schema(
    points=Table(v.any()).vector_index(
        "by_place", vector_field="place", dimensions=8, filter_fields=["color"]
    )
)
COLORS = ["red", "blue"]


def place(number: int) -> list[float]:
    dice = Random(number)
    return [dice.gauss(0, 1) for _ in range(8)]


@mutation
async def add(ctx: MutationCtx, first: int, count: int) -> None:
    for number in range(first, first + count):
        point = {"n": number, "place": place(number), "color": COLORS[number % 2]}
        await ctx.db.insert("points", point)


@mutation
async def move(ctx: MutationCtx, old: int, new: int | None) -> None:
    async for point in ctx.db.query("points"):
        if point["n"] == old and new is None:
            await ctx.db.delete(point["_id"])
        elif point["n"] == old:
            await ctx.db.patch(point["_id"], {"n": new, "place": place(new or 0)})


@query
async def near(ctx: QueryCtx, number: int) -> list[int]:
    hits = await ctx.db.vector_search(
        "points",
        "by_place",
        vector=place(number),
        limit=5,
        filter=lambda q: q.eq("color", COLORS[number % 2]),
    )
    return [point["n"] for hit in hits if (point := await ctx.db.get(hit["_id"]))]


@action
async def nearly(ctx: ActionCtx, number: int) -> list[VectorHit[Any]]:
    return await ctx.vector_search("points", "by_place", vector=place(number), limit=5)


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[tuple[Engine, list[str]]]:
    """An engine, and what became of its index when it opened."""
    with capture_logs() as logs:
        async with Engine.open(data, app=[add, move, near, nearly, SCHEMA]) as engine:
            told = [str(e["event"]) for e in logs]
            events = [e for e in told if e.startswith("indexes.") and e != "indexes.folded"]
            yield engine, events


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs and folds for few documents."""
    monkeypatch.setattr(graph, "ROWS_MIN", 32)
    monkeypatch.setattr(vector_index, "ROWS_MIN", 32)


async def filled(data: Path) -> list[int]:
    """Documents, some of them gone; what is found near one of them."""
    async with opened(data) as (engine, events):
        assert ["indexes.built"] == events
        await engine.mutation(add, 0, 80)
        await engine.mutation(move, 40, None)
        await engine.mutation(move, 7, 90)
        found: list[int] = await engine.query(near, 2)
        assert 2 == found[0]
    return found


async def test_an_engine_that_opens_reads_its_files_and_looks_at_no_document(
    tmp_path: Path,
) -> None:
    found = await filled(tmp_path)

    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        assert found == await engine.query(near, 2)
        assert 7 not in await engine.query(near, 7)
        assert 1.0 - 1e-6 <= (await engine.action(nearly, 90))[0]["_score"]
        await engine.mutation(move, 2, None)
        await engine.mutation(add, 100, 1)
    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        assert found[1:] == (await engine.query(near, 2))[:4]
        assert 100 == (await engine.query(near, 100))[0]


async def test_verify_looks_whether_an_index_has_what_its_documents_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as (engine, _):
        await engine.mutation(add, 300, 3)
        assert [] == await problems_of(engine)
        monkeypatch.setattr(check, "entry_of", lambda *_: None)
        assert 82 == len([p for p in await problems_of(engine) if " 1 times" in p])
        other = Entry(np.ones(8, np.float32), (value_key("red"),))
        monkeypatch.setattr(check, "entry_of", lambda *_: other)
        assert 82 == len([p for p in await problems_of(engine) if "another vector" in p])


async def test_verify_looks_whether_a_document_is_told_by_its_own_id(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as (engine, _):
        part = only_part(engine)
        part.ids = part.ids.copy()
        part.ids[[3, 4]] = part.ids[[4, 3]]

        problems = await problems_of(engine)

    assert 2 == len([p for p in problems if "filter value or id" in p])


async def test_files_of_before_that_have_no_ids_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = Part.arrays
    with monkeypatch.context() as before:
        before.setattr(
            Part, "arrays", lambda part: {n: a for n, a in arrays(part).items() if n != "ids"}
        )
        before.setattr(Part, "use", lambda *_: None)
        found = await filled(tmp_path)

    async with opened(tmp_path) as (engine, events):
        assert ["indexes.read"] == events
        assert found == await engine.query(near, 2)
        assert [] == await problems_of(engine)


def codes_of(graph: Graph, places: list[int]) -> NDArray[np.int8]:
    return np.array(graph._index.get_many(np.array(places, np.uint64), ScalarKind.I8))


def lose_two(graph: Graph) -> None:
    graph._index.remove_many([7, 9], compact=False, threads=1)


def have_one_twice(graph: Graph) -> None:
    graph._index.add_many(np.array([4 << 20], np.uint64), codes_of(graph, [3]), threads=1)


def exchange_two(graph: Graph) -> None:
    codes = codes_of(graph, [3, 5])
    graph._index.remove_many([3, 5], compact=False, threads=1)
    graph._index.add_many(np.array([5, 3], np.uint64), codes, threads=1)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lose_two, ["lacks 2 of 81 rows"]),
        (have_one_twice, ["has 1 rows twice, or of nothing"]),
        (exchange_two, ["has 2 rows otherwise than they are"]),
        (lambda _: None, []),
    ],
    ids=["lost", "twice", "exchanged", "whole"],
)
async def test_verify_looks_whether_a_graph_has_the_rows_that_it_stands_for(
    tmp_path: Path, damage: Callable[[Graph], object], said: list[str]
) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as (engine, _):
        part = only_part(engine)
        part.graph = Graph.of(part.rows)
        damage(part.graph)

        problems = await problems_of(engine)

    assert [f"a graph of the index 'by_place' {one}; rebuild it" for one in said] == problems


async def test_verify_looks_whether_a_graph_leads_to_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as (engine, _):
        monkeypatch.setattr(Graph, "nearest", lambda *_: np.array([1, 2]))

        (problem,) = await problems_of(engine)

    assert "does not lead to 79 of 81 rows that were looked for" in problem


def only_part(engine: Engine) -> Part:
    (kept,) = engine.node.keeper._kept.values()
    assert isinstance(kept.live, VectorIndex)
    (part,) = kept.live.folded
    return part


async def test_a_graph_is_read_where_it_lies_and_outlives_its_file(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as (engine, _):
        graph = only_part(engine).graph
        assert graph is not None
        assert graph._source is not None
        assert 0 == (graph._source.ctypes.data + LEAD_BYTES) % 64
        before = [hit["_id"] for hit in await engine.action(nearly, 90)]
        while engine.node.keeper.statuses()[0].checkpoint_ts is None:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)

        shutil.rmtree(tmp_path / "indexes")

        assert before == [hit["_id"] for hit in await engine.action(nearly, 90)]
        await engine.mutation(add, 100, 40)
        assert 1.0 - 1e-6 <= (await engine.action(nearly, 120))[0]["_score"]


async def test_when_writers_pause_an_index_becomes_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSE_S", 60.0)
    defaults = cast("dict[str, Any]", VectorIndex.__init__.__kwdefaults__)
    monkeypatch.setitem(defaults, "tail_rows_max", 20)
    async with opened(tmp_path) as (engine, _):
        await engine.mutation(add, 0, 70)
        (index,) = engine.node.keeper.statuses()
        await engine.node.keeper.rebuild(index.index_id)  # 64 and 6
        await until(engine, parts=2, unfolded_bytes=0)
        assert 70 == len(only_part(engine))
        monkeypatch.setattr(keeper, "PAUSE_S", 0.05)
        await trio.sleep(0.2)  # it waits for work

        await engine.mutation(add, 80, 5)
        await until(engine, parts=2, unfolded_bytes=0)
        assert 75 == len(only_part(engine))

        await engine.mutation(add, 100, 1)
        await trio.sleep(0.2)
        assert 75 == len(only_part(engine))  # it is not copied for the sake of one


async def until(engine: Engine, **expected: int) -> None:
    """Until the only index is said to be so."""
    with trio.fail_after(10):
        while True:
            (status,) = engine.node.keeper.statuses()
            if expected.items() <= asdict(status).items():
                return
            await trio.sleep(0.01)


async def problems_of(engine: Engine) -> list[str]:
    return [problem async for problem in engine.node.keeper.problems() if problem is not None]


async def test_after_a_crash_the_log_has_what_the_files_do_not(tmp_path: Path) -> None:
    before, crashed = tmp_path / "before", tmp_path / "crashed"
    found = await filled(before)
    async with opened(before) as (engine, _):
        await engine.mutation(move, found[1], None)
        await engine.mutation(add, 200, 30)
        expected = await engine.query(near, 2)
        shutil.copytree(before, crashed)  # nothing is written meanwhile

    async with opened(crashed) as (engine, events):
        assert ["indexes.read"] == events
        assert expected == await engine.query(near, 2)
        assert 205 == (await engine.query(near, 205))[0]


def flip(at: Callable[[int], int]) -> Callable[[Path], None]:
    def flipped(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at(len(data))] ^= 4
        path.write_bytes(data)

    return flipped


@pytest.mark.parametrize("name", ["manifest", "*.arrays"])
@pytest.mark.parametrize(
    "damage", [flip(lambda n: n // 2), flip(lambda n: n - 70)], ids=["middle", "end"]
)
async def test_files_that_are_damaged_are_not_believed(
    tmp_path: Path, name: str, damage: Callable[[Path], Any]
) -> None:
    found = await filled(tmp_path)
    (path,) = (tmp_path / "indexes").glob(f"*/{name}")
    damage(path)

    async with opened(tmp_path) as (engine, events):
        assert ["indexes.damaged", "indexes.built"] == events
        assert found == await engine.query(near, 2)
