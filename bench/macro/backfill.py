"""
How fast is an index filled while mutations go on, and what do these notice of it?

1,000 mutations arrive a second, whatever their answers do; each changes one document of 1,000,000
and one of its index entries.  First they are alone, then a push adds a fourth index to the table.
Filling is timed from slice to slice of the push; a mutation from the moment it was due to its
answer, which comes when it is on the disk.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any, Final

import trio

from bench.harness import Bench, Param, Result, arrivals, percentile, progress
from bench.people import Person, internal_of, load, schema, schema_with
from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.host import Engine
from engine.model.ids import Id, id_of, row_key

DOCUMENTS: Final = 1_000_000
QUICK_DOCUMENTS: Final = 20_000
ARRIVALS_PER_S: Final = 1_000
IN_FLIGHT_MAX: Final = 250
"""
What arrives while so many wait is missed: a machine that is too slow is to say so, and not to
make a queue in which the push waits as well.
"""
ALONE_SHARE: Final = 0.25
"""Of the budget, before the index is added. To fill it takes what it takes."""
INDEX: Final = "by_bio"


@mutation
async def rescore(ctx: MutationCtx, person: Id[Person], score: float) -> None:
    await ctx.db.patch(person, {"score": score})


FEWER: Final = [schema, rescore]
MORE: Final = [schema_with(**{INDEX: ["bio", "name"]}), rescore]


def run(bench: Bench) -> Iterator[Result]:
    """Load, then measure the mutations alone and beside the filling."""
    documents = QUICK_DOCUMENTS if bench.quick else DOCUMENTS
    load(bench.directory / "people", documents)
    results: list[Result] = []
    trio.run(_measure, bench, documents, results)
    yield from results


@dataclass
class Mutations:
    """What became of the mutations of one phase."""

    latencies_s: list[float] = field(default_factory=list)
    in_flight: int = 0
    missed: int = 0


async def _measure(bench: Bench, documents: int, results: list[Result]) -> None:
    async with Engine.open(bench.directory / "people", app=FEWER) as engine:
        number = engine.node.committer.head.catalog.by_name["", "people"].number
        dice = random.Random(bench.seed)

        def change() -> tuple[str, float]:
            person = row_key(number, internal_of(dice.randrange(documents)))
            return id_of(person), dice.random() * documents

        mutate = partial(_mutating, engine, change)
        params: dict[str, Param] = {"documents": documents, "arrivals_per_s": ARRIVALS_PER_S}
        progress("mutations alone")
        seconds = bench.budget_s * ALONE_SHARE
        results += await mutate({**params, "beside": "nothing"}, partial(trio.sleep, seconds))
        progress("mutations beside a backfill")
        slices: list[tuple[float, int]] = []
        filled = partial(_filled, engine, slices)
        results += await mutate({**params, "beside": "a backfill"}, filled)
    (began, first), (ended, last) = slices[0], slices[-1]
    assert last >= documents, f"{last} of {documents} documents were filled"
    results.append(
        Result(
            name="backfill",
            params=params,
            metric="documents_per_s",
            value=(last - first) / (ended - began),
            unit="1/s",
        )
    )


async def _filled(engine: Engine, slices: list[tuple[float, int]]) -> None:
    """Push the fourth index; notes when how many documents had been filled."""

    def note(what: str, done: int, _total: int | None) -> None:
        if what == f"index people.{INDEX}":
            slices.append((perf_counter(), done))

    await engine.push(MORE, progress=note)


async def _mutating(
    engine: Engine,
    change: Callable[[], tuple[str, float]],
    params: dict[str, Param],
    beside: Callable[[], Awaitable[None]],
) -> Iterator[Result]:
    """The mutations' figures for as long as `beside` takes."""
    found = Mutations()
    tell: Callable[..., Awaitable[Any]] = engine.mutation

    async def one(due: float) -> None:
        if found.in_flight == IN_FLIGHT_MAX:
            found.missed += 1
            return
        found.in_flight += 1
        await tell(rescore, *change())
        found.in_flight -= 1
        found.latencies_s.append(trio.current_time() - due)

    began = trio.current_time()
    is_done = False
    async with trio.open_nursery() as nursery:
        arriving = partial(arrivals, ARRIVALS_PER_S, one, is_over=lambda: is_done)
        nursery.start_soon(arriving)
        await beside()
        is_done = True
    return _figures(params, found, trio.current_time() - began)


def _figures(params: dict[str, Param], found: Mutations, seconds: float) -> Iterator[Result]:
    figures = (
        ("mutations_per_s", len(found.latencies_s) / seconds, "1/s"),
        ("missed", found.missed, "mutations"),
        ("p50", percentile(found.latencies_s, 0.5) * 1e3, "ms"),
        ("p99", percentile(found.latencies_s, 0.99) * 1e3, "ms"),
    )
    for metric, value, unit in figures:
        yield Result(name="backfill", params=params, metric=metric, value=value, unit=unit)
