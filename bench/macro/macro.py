"""
What do a get, a range, a page, an insert and a patch cost as a table grows to 10,000,000 documents?

The documents have three indexes besides the time of their creation, and each of the three has them
in an order of its own.  Every table is loaded as commits would have left it, read once so that
nothing comes from the disk any more, then asked by one caller.  No call is made twice, so that no
result is in the cache.  "A call" is `engine.query` or `engine.mutation` with all that belongs to
it; "inside" is one of many in one call, which leaves the call itself out.

LMDB and cbor2 alone do the same to a copy of the file, in turns of a fraction of a second: the same
trees, keys and encoded documents, and as many gets, puts and deletes, one transaction where there
is a call.  They check nothing, keep no log, and are given the keys of what they insert.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypedDict

import trio

from bench.harness import Bench, Result, percentile, progress
from bench.macro._bare import BarePages, BarePeople, Newcomer
from bench.people import BIO, Person, data_file, internal_of, load, schema
from engine.app.contexts import MutationCtx, Query, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.types import Page, PaginationOptions
from engine.host import Engine
from engine.model.ids import Id, id_of, row_key
from engine.store.interface import Tree

SIZES: Final = (10_000, 1_000_000, 10_000_000)
QUICK_SIZES: Final = (1_000, 30_000)
TURNS: Final = 5
"""Of ours and of the others', one after the other, for each figure."""
DOCUMENTS: Final = 100
"""Of a range, of a page, and of a batch of inserts."""
RANGES: Final = 10
"""Inside one call."""
PAGES: Final = 10
"""One after the other, before another place is begun at."""
OURS: Final = "ours"
PEER: Final = "LMDB + cbor2"
FLAT: Final = 1.5
GROWTH: Final = 1.2
SPEED: Final = 0.5


class Fields(TypedDict):
    name: str
    email: str
    score: float
    bio: str


@query
async def get(ctx: QueryCtx, call: float, person: Id[Person]) -> Person | None:
    return await ctx.db.get(person)


@query
async def gets(ctx: QueryCtx, call: float, people: list[Id[Person]]) -> int:
    return sum([await ctx.db.get(person) is not None for person in people])


@query
async def range_of(ctx: QueryCtx, call: float, name: str) -> list[Person]:
    return await _from(ctx, name).take(DOCUMENTS)


@query
async def ranges_of(ctx: QueryCtx, call: float, names: list[str]) -> int:
    return sum([len(await _from(ctx, name).take(DOCUMENTS)) for name in names])


@query
async def page_of(
    ctx: QueryCtx, call: float, name: str, options: PaginationOptions
) -> Page[Person]:
    return await _from(ctx, name).paginate(options)


@mutation
async def insert(ctx: MutationCtx, people: list[Fields]) -> None:
    for person in people:
        await ctx.db.insert(Person, person)


@mutation
async def rescore(ctx: MutationCtx, person: Id[Person], score: float) -> None:
    await ctx.db.patch(person, {"score": score})


def _from(ctx: QueryCtx, name: str) -> Query[Person]:
    return ctx.db.query(Person).with_index("by_name", lambda r: r.gte("name", name))


FUNCTIONS: Final = [schema, get, gets, range_of, ranges_of, page_of, insert, rescore]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    One thing that is done by both.

    draw: what is given to both, not timed. pieces: how many there are in one call.
    calls_max: a write that is done too often makes another table of it.
    """

    name: str
    draw: Callable[[], Any]
    ours: Callable[[Any], Awaitable[object]]
    bare: Callable[[Any], object]
    pieces: int = 1
    calls_max: int | None = None


def run(bench: Bench) -> Iterator[Result]:
    """Measure every case at every size, then say what came of the goals."""
    sizes = QUICK_SIZES if bench.quick else SIZES
    medians: dict[tuple[str, int, str], float] = {}
    for size in sizes:
        directory = bench.directory / str(size)
        ours, bare = directory / "ours", directory / "bare.mdb"
        load(ours, size)
        copy_durably(data_file(ours), bare)
        results: list[Result] = []
        trio.run(_measure, bench, size, bench.budget_s / len(sizes), results)
        for result in results:
            if result.metric == "p50":
                medians[str(result.params["what"]), size, result.peer or OURS] = result.value
            yield result
        shutil.rmtree(directory)
    yield from _goals(medians, sizes)


def copy_durably(file: Path, copy: Path) -> None:
    """So that nothing is left to be written while something is measured."""
    shutil.copyfile(file, copy)
    with copy.open("rb+") as written:
        os.fsync(written)


async def _measure(bench: Bench, size: int, seconds: float, results: list[Result]) -> None:
    directory = bench.directory / str(size)
    dice = random.Random(bench.seed)
    for kind in (Reads, Writes):  # each with an engine of its own: what is cached is watched
        async with Engine.open(directory / "ours", app=FUNCTIONS) as engine:
            table = engine.node.committer.head.catalog.by_name["", "people"]
            with BarePeople(directory / "bare.mdb", table) as bare:
                progress(f"{size:,} documents: going through both files once")
                bare.read_all()
                _read_all(engine)
                for case in kind(engine, bare, size, dice).cases():
                    progress(f"{size:,} documents: {case.name}")
                    ours, others = await _in_turns(case, seconds / CASES / 2)
                    results += _figures(case, size, ours, None)
                    results += _figures(case, size, others, PEER)


def _read_all(engine: Engine) -> None:
    with engine.node.store.snapshot() as snapshot:
        for tree in (Tree.ROWS, Tree.ENTRIES):
            deque(snapshot.range(tree, b"", None), maxlen=0)


async def _in_turns(case: Case, seconds: float) -> tuple[list[float], list[float]]:
    """Seconds of each call of ours and of the others'."""
    ours: list[float] = []
    others: list[float] = []
    for turn in range(1, TURNS + 1):
        most = case.calls_max and case.calls_max * turn // TURNS
        until = perf_counter() + seconds / TURNS
        while perf_counter() < until and (most is None or len(ours) < most):
            given = case.draw()
            began = perf_counter()
            await case.ours(given)
            ours.append(perf_counter() - began)
        until = perf_counter() + seconds / TURNS
        while perf_counter() < until and (most is None or len(others) < most):
            given = case.draw()
            began = perf_counter()
            case.bare(given)
            others.append(perf_counter() - began)
    return ours, others


def _figures(case: Case, size: int, spent: list[float], peer: str | None) -> Iterator[Result]:
    for metric, share in (("p50", 0.5), ("p99", 0.99)):
        yield Result(
            name="macro",
            params={"documents": size, "what": case.name},
            metric=metric,
            value=percentile(spent, share) / case.pieces * 1e6,
            unit="us",
            peer=peer,
        )


GET, GET_INSIDE = "get, a call", "get, inside"
RANGE, RANGE_INSIDE = f"range of {DOCUMENTS}, a call", f"range of {DOCUMENTS}, inside"
PAGE = f"page of {DOCUMENTS}, a call"
INSERT, INSERT_INSIDE = "insert, a call", "insert, inside"
PATCH = "patch of an indexed field, a call"


CASES: Final = 8


class Subject:
    """One table at both."""

    def __init__(self, engine: Engine, bare: BarePeople, size: int, dice: random.Random) -> None:
        self._engine = engine
        self._bare = bare
        self._size = size
        self._dice = dice
        self._calls = count()

    def _person(self) -> str:
        n = self._dice.randrange(self._size)
        return id_of(row_key(self._bare.table.number, internal_of(n)))


class Reads(Subject):
    """What is asked of it."""

    def cases(self) -> list[Case]:
        people, names, bare = self._person, self._name, self._bare
        return [
            Case(name=GET, draw=_some(people, 1), ours=self._get, bare=bare.gets),
            Case(
                name=GET_INSIDE,
                draw=_some(people, DOCUMENTS),
                ours=partial(self._ask, gets),
                bare=bare.gets,
                pieces=DOCUMENTS,
            ),
            Case(name=RANGE, draw=_some(names, 1), ours=self._range, bare=self._bare_ranges),
            Case(
                name=RANGE_INSIDE,
                draw=_some(names, RANGES),
                ours=partial(self._ask, ranges_of),
                bare=self._bare_ranges,
                pieces=RANGES,
            ),
            Case(
                name=PAGE,
                draw=names,
                ours=OurPages(self._ask).next,
                bare=BarePages(bare, DOCUMENTS, PAGES).next,
            ),
        ]

    def _name(self) -> str:
        return f"name {self._dice.randrange(self._size):08}"

    def _ask(self, function: Any, given: Any, **more: Any) -> Awaitable[Any]:
        """Call a query as it was never called before."""
        return self._engine.query(function, next(self._calls), given, **more)

    def _get(self, people: list[str]) -> Awaitable[object]:
        return self._ask(get, people[0])

    def _range(self, names: list[str]) -> Awaitable[object]:
        return self._ask(range_of, names[0])

    def _bare_ranges(self, names: list[str]) -> None:
        for name in names:
            self._bare.range(self._bare.place(name), DOCUMENTS)


class Writes(Subject):
    """What is done to it."""

    def cases(self) -> list[Case]:
        bare, most = self._bare, self._size // 2
        return [
            Case(
                name=INSERT,
                draw=_some(self._newcomer, 1),
                ours=self._insert,
                bare=bare.insert,
                calls_max=most,
            ),
            Case(
                name=INSERT_INSIDE,
                draw=_some(self._newcomer, DOCUMENTS),
                ours=self._insert,
                bare=bare.insert,
                pieces=DOCUMENTS,
                calls_max=most // DOCUMENTS,
            ),
            Case(name=PATCH, draw=self._change, ours=self._rescore, bare=bare.rescore),
        ]

    def _newcomer(self) -> Newcomer:
        place, email = self._dice.randrange(self._size), self._dice.randrange(self._size)
        fields: Fields = {
            "name": f"name {place:08} {next(self._calls)}",
            "email": f"{email:08}.{next(self._calls)}@example.org",
            "score": self._dice.random() * self._size,
            "bio": BIO,
        }
        return self._bare.newcomer(dict(fields), self._dice.randbytes(8))

    def _change(self) -> tuple[str, float]:
        return self._person(), self._dice.random() * self._size

    def _insert(self, newcomers: list[Newcomer]) -> Awaitable[object]:
        return self._tell(insert, [one.fields for one in newcomers])

    def _rescore(self, change: tuple[str, float]) -> Awaitable[object]:
        return self._tell(rescore, *change)

    def _tell(self, function: Any, *given: Any) -> Awaitable[object]:
        tell: Callable[..., Awaitable[object]] = self._engine.mutation
        return tell(function, *given)


def _some(draw: Callable[[], Any], number: int) -> Callable[[], list[Any]]:
    return lambda: [draw() for _ in range(number)]


class OurPages:
    """Pages one after the other, a few from each place that is begun at."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self._ask = ask
        self._left = 0
        self._name = ""
        self._cursor: str | None = None

    async def next(self, name: str) -> None:
        if not self._left:
            self._name, self._cursor, self._left = name, None, PAGES
        options = {"numItems": DOCUMENTS, "cursor": self._cursor}
        page = await self._ask(page_of, self._name, options=options)
        self._cursor = page["continueCursor"]
        self._left = 0 if page["isDone"] else self._left - 1


# What comes of it


def _goals(medians: Mapping[tuple[str, int, str], float], sizes: Sequence[int]) -> Iterator[Result]:
    """Each goal as one figure, beside what it should be at least or at most."""
    for what in (GET, GET_INSIDE, RANGE, RANGE_INSIDE, PAGE):
        by_size = [medians[what, size, OURS] for size in sizes]
        yield _goal(f"{what}: slowest size by quickest", max(by_size) / min(by_size), at_most=FLAT)
    for size in sizes:
        speed = medians[RANGE_INSIDE, size, PEER] / medians[RANGE_INSIDE, size, OURS]
        yield _goal(f"{RANGE_INSIDE}: speed by theirs", speed, documents=size, at_least=SPEED)
    for what in (INSERT, INSERT_INSIDE):
        for size in sizes[1:]:
            ours = medians[what, size, OURS] / medians[what, sizes[0], OURS]
            theirs = medians[what, size, PEER] / medians[what, sizes[0], PEER]
            yield _goal(f"{what}: growth by theirs", ours / theirs, documents=size, at_most=GROWTH)


def _goal(what: str, value: float, **params: float) -> Result:
    return Result(
        name="macro-goal",
        params={"what": what, **params},
        metric="ratio",
        value=value,
        unit="times",
    )
