"""
How many vector searches a second, of what recall, and how long does one take while others write?

Glosses of WordNet as a model sees them (`bench/embeddings.py` makes them once): 20,000 of 384
numbers, 10,000 of 1,536, and 500 others that are looked for.  Each search is given a list of floats
and returns ten ids with scores: ours are calls of an action (`nearly`) and of queries (`exact`),
none of which comes from the cache; beside them libraries alone, in the same run, and in turns with
the one that is in ours: just after the index was filled, after a pause, at rest, and in moments in
which writes stop.  Vectors are replaced beside 100 searches a second, and the engine is opened
again.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, TypeAlias, cast
from unittest.mock import patch

import numpy as np
import trio

from bench.embeddings import embeddings
from bench.harness import Bench, Param, Result, arrivals, percentile, progress
from bench.macro._vector_peers import FIELDS, WANTED, Floats, Peer, filled, usearch_alone
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx, VectorFilter
from engine.app.decorators import action, mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import VectorHit
from engine.app.validators import v
from engine.errors import Overloaded
from engine.host import Engine
from engine.indexes.vectors import nearest
from engine.indexes.vectors.graph import WIDTH
from engine.indexes.vectors.index import VectorIndex

CASES: Final = ((384, 20_000), (1_536, 10_000))
QUICK_CASES: Final = ((384, 5_000),)
MADE: Final = 21_000
QUESTIONS: Final = 500
ONE_IN: Final = (1, 10, 100, 1_000)
WIDTHS: Final = (16, 32, 64, 128, 256)
QUICK_WIDTHS: Final = (16, 64)
WRITTEN_PER_S: Final = (0, 50, 200, 500)
ASKED_PER_S: Final = 100
ADDED_BYTES: Final = 600_000
AMID_ROUNDS: Final = 8
QUICK_AMID_ROUNDS: Final = 2
AMID_QUESTIONS: Final = 25
RESTED: Final = "rested"

Seconds: TypeAlias = list[float]
_Found: TypeAlias = list[tuple[float, list[int]]]
"""Of each search how long it took, and the numbers of what it found."""


def schema_of(dimensions: int) -> Schema:
    return Schema(
        rows=Table(v.any())
        .index("by_number", ["number"])
        .vector_index(
            "by_row", vector_field="row", dimensions=dimensions, filter_fields=[*FIELDS.values()]
        )
    )


@mutation
async def add(ctx: MutationCtx, first: int, rows: Any) -> list[Any]:
    ids = []
    for number, row in enumerate(rows, first):
        places = {name: number % one_in for one_in, name in FIELDS.items()}
        ids.append(await ctx.db.insert("rows", {"number": number, "row": row, **places}))
    return ids


@mutation
async def change(ctx: MutationCtx, number: int, row: Any) -> None:
    doc = await ctx.db.query("rows").with_index("by_number", number=number).unique()
    if doc is not None:
        await ctx.db.patch(doc["_id"], {"row": row})


@query
async def exact(ctx: QueryCtx, row: Any, one_in: int) -> list[VectorHit[Any]]:
    return await ctx.db.vector_search("rows", "by_row", vector=row, filter=_filter(one_in))


asked: list[tuple[list[float], int]] = []
"""What the action is to look for, and how long each took it, with what it found."""
answered: list[tuple[float, list[VectorHit[Any]]]] = []


@action
async def nearly(ctx: ActionCtx) -> None:
    for row, one_in in asked:
        began = time.perf_counter()
        found = await ctx.vector_search("rows", "by_row", vector=row, filter=_filter(one_in))
        answered.append((time.perf_counter() - began, found))


def _filter(one_in: int) -> Callable[[VectorFilter], Any] | None:
    return None if one_in == 1 else lambda q: q.eq(FIELDS[one_in], 0)


def run(bench: Bench) -> Iterator[Result]:
    """Measure ours, then the peers, for each number of dimensions."""
    widths = QUICK_WIDTHS if bench.quick else WIDTHS
    for dimensions, documents in QUICK_CASES if bench.quick else CASES:
        made = embeddings(MADE, dimensions)
        data = _Data(made[:documents], made[-QUESTIONS:], bench.budget_s / 60)
        results: list[Result] = []
        alone = usearch_alone(data.rows)
        trio.run(_measure_ours, bench, data, alone, results)
        yield from results
        yield from _filled(data, alone)
        progress(f"peers, {dimensions} dimensions")
        for peer in filled(data.rows):
            yield from _filled(data, peer)
            for one_in in ONE_IN if peer.filters else ONE_IN[:1]:
                search = partial(_timed, peer.search, one_in)
                yield from data.figures([data.asked(search)], one_in, peer.name)
            for width in widths if peer.set_width else ():
                assert peer.set_width is not None, "it has one"
                peer.set_width(width)
                search = partial(_timed, peer.search, 1)
                yield from data.figures([data.asked(search)], 1, peer.name, width=width)


def _filled(data: _Data, peer: Peer) -> Iterator[Result]:
    params = data.params()
    yield _result("fill", params, "rate", data.per_s(peer.seconds), "1/s", peer.name)
    yield _result("fill", params, "memory", peer.size_mb, "MB", peer.name)


def _timed(
    search: Callable[[list[float], int], list[dict[str, Any]]], one_in: int, row: list[float]
) -> tuple[float, list[Any]]:
    began = time.perf_counter()
    found = search(row, one_in)
    return time.perf_counter() - began, [hit["_id"] for hit in found]


class _Data:
    """The rows, what is looked for, and what is nearest to it."""

    def __init__(self, rows: Floats, questions: Floats, seconds: float) -> None:
        self.rows = np.ascontiguousarray(rows)
        self.questions = [row.tolist() for row in questions]
        self.seconds = seconds
        """For one figure."""
        places = np.arange(len(rows))
        scores = questions @ self.rows.T
        self.truth = {
            one_in: [
                set(chosen[np.argsort(-scores[at, chosen])[:WANTED]].tolist())
                for at in range(len(questions))
            ]
            for one_in in ONE_IN
            if (chosen := np.flatnonzero(places % one_in == 0)).size
        }

    def params(self, **more: Param) -> dict[str, Param]:
        return {"dimensions": self.rows.shape[1], "documents": len(self.rows), **more}

    def per_s(self, seconds: float) -> float:
        return len(self.rows) / seconds if seconds else 0.0

    def asked(
        self, search: Callable[[list[float]], tuple[float, list[int]]]
    ) -> list[tuple[float, list[int]]]:
        """Look for one after another, until the time is over."""
        end = time.perf_counter() + self.seconds
        found = []
        for row in self.questions:
            found.append(search(row))
            if time.perf_counter() > end:
                break
        return found

    def figures(
        self,
        rounds: Sequence[Sequence[tuple[float, list[int]]]],
        one_in: int,
        peer: str | None,
        *,
        way: str = "nearly",
        width: int = WIDTH,
        state: str = RESTED,
    ) -> Iterator[Result]:
        taken = [seconds for found in rounds for seconds, _ in found]
        shares = [
            len(truth.intersection(ids)) / len(truth)
            for found in rounds
            for (_, ids), truth in zip(found, self.truth[one_in], strict=False)
        ]
        params = self.params(way="alone" if peer else way, width=width, of_one_in=one_in)
        name = "searches" if state == RESTED else f"searches {state}"
        rate = len(taken) / sum(taken)
        yield _result(name, params, "rate", rate, "1/s", peer)
        yield _result(name, params, "recall", sum(shares) / len(shares), "of 1", peer)
        yield _result(name, params, "p99", percentile(taken, 0.99) * 1e3, "ms", peer)


class _Ours:
    """
    An engine with the rows in it.

    Args:
        numbers: the rows' numbers by their ids, once they are there.
    """

    def __init__(self, engine: Engine, data: _Data, numbers: dict[str, int]) -> None:
        self.engine = engine
        self.data = data
        self.numbers = numbers

    @property
    def index(self) -> VectorIndex:
        node = self.engine.node
        table = node.committer.head.catalog.table("", "rows")
        assert table is not None, "it was pushed"
        live = node.functions._snapshots.current.live
        found = live.find(table.indexes["by_row"].index_id)
        assert found is not None, "it answers"
        return cast("VectorIndex", found)

    def set_width(self, width: int) -> None:
        for part in self.index.folded:
            if part.graph is not None:
                part.graph._index.expansion_search = width

    async def fill(self) -> float:
        """Write all rows, and wait until what there is to fold is folded; the seconds of both."""
        rows = self.data.rows
        at_once = ADDED_BYTES // (8 * rows.shape[1])
        began = time.perf_counter()
        for first in range(0, len(rows), at_once):
            some = [row.tolist() for row in rows[first : first + at_once]]
            ids = await self.engine.mutation(add, first=first, rows=some)
            self.numbers.update(zip(ids, count(first), strict=False))
        while self.index.is_due:  # noqa: ASYNC110 - nobody tells when a fold is in its place
            await trio.sleep(0.05)
        return time.perf_counter() - began

    async def pause(self) -> float:
        """Wait until the index has done what it does when nobody writes; the seconds of it."""
        began = time.perf_counter()
        while self.index.is_loose or self.index.is_due:  # noqa: ASYNC110 - as above
            await trio.sleep(0.05)
        return time.perf_counter() - began

    async def rest(self) -> None:
        """Build the index anew, as `headrace index rebuild` does: all rows become one part."""
        keeper = self.engine.node.keeper
        (index,) = keeper.statuses()
        await keeper.rebuild(index.index_id)
        while len(self.index.folded) > 1 or self.index.tail.count:  # noqa: ASYNC110 - as above
            await trio.sleep(0.05)

    async def nearly(self, one_in: int) -> list[tuple[float, list[int]]]:
        asked[:] = [(row, one_in) for row in self.data.questions]
        answered.clear()
        with trio.move_on_after(self.data.seconds):
            await self.engine.action(nearly)
        return [(s, [self.numbers[hit["_id"]] for hit in hits]) for s, hits in answered]

    async def exactly(self, one_in: int) -> list[tuple[float, list[int]]]:
        found = []
        end = time.perf_counter() + self.data.seconds
        for row in self.data.questions:
            began = time.perf_counter()
            hits = await self.engine.query(exact, row=row, one_in=one_in)
            seconds = time.perf_counter() - began
            found.append((seconds, [self.numbers[hit["_id"]] for hit in hits]))
            if time.perf_counter() > end:
                break
        return found


async def _measure_ours(bench: Bench, data: _Data, alone: Peer, results: list[Result]) -> None:
    dimensions = data.rows.shape[1]
    app = [add, change, exact, nearly, search_one, schema_of(dimensions)]
    directory = bench.directory / f"ours-{dimensions}"
    numbers: dict[str, int] = {}
    async with Engine.open(directory, app=app) as engine:
        progress(f"filling, {dimensions} dimensions")
        ours = _Ours(engine, data, numbers)
        took = await ours.fill()
        results.append(_result("fill", data.params(), "rate", data.per_s(took), "1/s"))
        results += await _in_turns(ours, alone, state="just filled")
        took = await ours.pause()
        results.append(_result("pause", data.params(), "time", took, "s"))
        results += await _in_turns(ours, alone, state="after a pause")
    began = time.perf_counter()
    async with Engine.open(directory, app=app) as engine:
        await engine.query(exact, row=data.questions[0], one_in=1)
        took = time.perf_counter() - began
        results.append(_result("reopen", data.params(), "time", took * 1e3, "ms"))
        await _measure_searches(bench, _Ours(engine, data, numbers), alone, results)


async def _measure_searches(bench: Bench, ours: _Ours, alone: Peer, results: list[Result]) -> None:
    """Alone, all rows being in one graph, then beside writes."""
    data = ours.data
    await ours.rest()
    memory = ours.index.size_bytes / 1e6
    results.append(_result("fill", data.params(), "memory", memory, "MB"))
    progress("searches")
    results += await _in_turns(ours, alone)
    for one_in in ONE_IN:
        if one_in > 1:
            results += data.figures([await ours.nearly(one_in)], one_in, None)
        found = await ours.exactly(one_in)
        results += data.figures([found], one_in, None, way="exact", width=0)
    for width in QUICK_WIDTHS if bench.quick else WIDTHS:
        with patch.object(nearest, "WIDTH", width):
            results += await _in_turns(ours, alone, width)
    assert alone.set_width is not None, "it has one"
    ours.set_width(WIDTH)
    alone.set_width(WIDTH)
    for written in WRITTEN_PER_S[:2] if bench.quick else WRITTEN_PER_S:
        progress(f"searches while {written} vectors a second are replaced")
        results += await _beside_writes(ours, written)
        if written:
            rounds = QUICK_AMID_ROUNDS if bench.quick else AMID_ROUNDS
            results += await _amid_writes(ours, alone, written, rounds)


async def _in_turns(
    ours: _Ours, alone: Peer, width: int = WIDTH, state: str = RESTED
) -> list[Result]:
    """
    Ours and the library alone, in turns of all questions each.

    So both have the machine as it was at the time, and neither has what was to be collected before.

    Args:
        state: what the index is in.
    """
    assert alone.set_width is not None, "it has one"
    ours.set_width(width)
    alone.set_width(width)
    data = ours.data
    own: list[_Found] = []
    theirs: list[_Found] = []
    gc.collect()
    end = time.perf_counter() + 2 * data.seconds
    while not own or time.perf_counter() < end:
        own.append(await ours.nearly(1))
        theirs.append(data.asked(partial(_timed, alone.search, 1)))
    results = list(data.figures(own, 1, None, width=width, state=state))
    results += data.figures(theirs, 1, alone.name, width=width, state=state)
    rates = [one.value for one in results if one.metric == "rate"]
    params = data.params(width=width, state=state)
    return [
        *results,
        _result("vectors-goal", params, "speed by theirs", rates[0] / rates[1], "times"),
    ]


async def _amid_writes(ours: _Ours, alone: Peer, written_per_s: int, rounds: int) -> list[Result]:
    """
    Searches in moments in which writes stop, shorter than the index would take for a pause.

    So nothing changes between what was found nearly and what is found exactly.
    """
    data, numbered = ours.data, count()
    rates: list[Seconds] = [[], []]
    shares: list[float] = []
    for _ in range(rounds):
        end = trio.current_time() + 1.0

        async def write(_due: float) -> None:
            with suppress(Overloaded):  # as more arrive than there is time for
                await _replace(ours, next(numbered))

        await arrivals(written_per_s, write, is_over=partial(_is_past, end))
        rates[0] += [seconds for seconds, _ in await ours.nearly(1)]
        near = [hits for _, hits in answered]
        rates[1] += [s for s, _ in data.asked(partial(_timed, alone.search, 1))]
        for row, hits in zip(data.questions[:AMID_QUESTIONS], near, strict=False):
            found = await ours.engine.query(exact, row=row, one_in=1)
            # By scores, as rows that replace others are in the table twice.
            shares.append(sum(hit["_score"] >= found[-1]["_score"] for hit in hits) / len(found))
    own, theirs = (len(taken) / sum(taken) for taken in rates)
    params = data.params(written_per_s=written_per_s)
    return [
        _result("amid_writes", params, "rate", own, "1/s"),
        _result("amid_writes", params, "rate", theirs, "1/s", alone.name),
        _result("amid_writes", params, "recall", sum(shares) / len(shares), "of 1"),
        _result("vectors-goal", params, "speed by theirs", own / theirs, "times"),
    ]


def _is_past(end: float) -> bool:
    return trio.current_time() > end


async def _replace(ours: _Ours, number: int) -> None:
    """Let a row be another one's."""
    rows = ours.data.rows
    row = rows[(number * 4_999 + 1) % len(rows)].tolist()
    await ours.engine.mutation(change, number=number * 7_919 % len(rows), row=row)


async def _beside_writes(ours: _Ours, written_per_s: int) -> list[Result]:
    """Searches that arrive whatever becomes of those before, and writes likewise."""
    data, numbered = ours.data, count()
    seconds = max(3.0, 2 * data.seconds)
    late: Seconds = []
    written = refused = 0
    end = trio.current_time() + seconds

    async def ask(due: float) -> None:
        row = data.questions[next(numbered) % QUESTIONS]
        await ours.engine.action(search_one, row=row)
        late.append(trio.current_time() - due)

    async def write(_due: float) -> None:
        nonlocal written, refused
        try:
            await _replace(ours, next(numbered))
            written += 1
        except Overloaded:  # as more arrive than there is time for
            refused += 1

    def is_over() -> bool:
        return trio.current_time() > end

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(arrivals, ASKED_PER_S, ask, is_over=is_over))
        if written_per_s:
            nursery.start_soon(partial(arrivals, written_per_s, write, is_over=is_over))
    params = data.params(asked_per_s=ASKED_PER_S, written_per_s=written_per_s)
    return [
        _result("beside_writes", params, "written", written / seconds, "1/s"),
        _result("beside_writes", params, "refused", refused, "writes"),
        _result("beside_writes", params, "p50", percentile(late, 0.5) * 1e3, "ms"),
        _result("beside_writes", params, "p99", percentile(late, 0.99) * 1e3, "ms"),
    ]


@action
async def search_one(ctx: ActionCtx, row: Any) -> list[VectorHit[Any]]:
    return await ctx.vector_search("rows", "by_row", vector=row)


def _result(
    name: str,
    params: dict[str, Param],
    metric: str,
    value: float,
    unit: str,
    peer: str | None = None,
) -> Result:
    return Result(name=name, params=params, metric=metric, value=value, unit=unit, peer=peer)
