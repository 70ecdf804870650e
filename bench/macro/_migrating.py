"""
A migration that changes each of 100,000 documents, while 500 mutations arrive a second.

Each mutation changes one document and an index entry, and is timed from when it was due.  First
they are alone, then beside the migration: batches of 100, in one range and in four.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, Final

import trio

from bench.arriving import arriving
from bench.harness import Bench, Param, Result, progress
from bench.people import Person, internal_of, load, schema
from components.migrations import Migrations, component
from engine.app.component import App
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.host import Engine
from engine.model.ids import Id, id_of, row_key

DOCUMENTS: Final = 100_000
QUICK_DOCUMENTS: Final = 4_000
ARRIVALS_PER_S: Final = 500
ALONE_SHARE: Final = 0.2
"""Of the budget; the migrations take what they take."""
RANGES: Final = (1, 4)
LOOK_S: Final = 0.05

app = App()
migrations = Migrations(app.use(component, name="migrations"))


def application_of(ranges: int) -> tuple[list[Any], Any, Any]:
    """What is served, what begins its migration, in so many ranges, and how that stands."""

    @migrations.define(Person, ranges=ranges)
    async def shout(_: MutationCtx, person: Person) -> dict[str, Any]:
        return {"bio": person["bio"].swapcase()}

    @mutation
    async def begin(ctx: MutationCtx) -> None:
        await migrations.run_one(ctx, shout, reset=True)

    @query
    async def status(ctx: QueryCtx) -> Any:
        return (await migrations.get_status(ctx, migrations=[shout]))[0]

    return [schema, app, rescore, shout, begin, status], begin, status


@mutation
async def rescore(ctx: MutationCtx, person: Id[Person], score: float) -> None:
    await ctx.db.patch(person, {"score": score})


def run(bench: Bench) -> Iterator[Result]:
    documents = QUICK_DOCUMENTS if bench.quick else DOCUMENTS
    load(bench.directory / "people", documents)
    results: list[Result] = []
    for ranges in RANGES:
        trio.run(_measure, bench, documents, ranges, results)
    yield from results


async def _measure(bench: Bench, documents: int, ranges: int, results: list[Result]) -> None:
    application, begin, status = application_of(ranges)
    async with Engine.open(bench.directory / "people", app=application) as engine:
        number = engine.node.committer.head.catalog.by_name["", "people"].number
        dice = random.Random(bench.seed)

        def change() -> Awaitable[object]:
            person = row_key(number, internal_of(dice.randrange(documents)))
            tell: Callable[..., Awaitable[object]] = engine.mutation
            return tell(rescore, id_of(person), dice.random() * documents)

        mutating = partial(arriving, ARRIVALS_PER_S, change, name="migration")
        params: dict[str, Param] = {"documents": documents, "arrivals_per_s": ARRIVALS_PER_S}
        if ranges == RANGES[0]:
            progress("mutations alone")
            alone = partial(trio.sleep, bench.budget_s * ALONE_SHARE)
            results += await mutating(alone, params={**params, "beside": "nothing"})
        progress(f"mutations beside a migration in {ranges} ranges")
        beside = {**params, "beside": "a migration", "ranges": ranges}
        seconds = list[float]()
        results += await mutating(
            partial(_migrate, engine, begin, status, documents, seconds), params=beside
        )
        rate = documents / seconds[0]
        results.append(
            Result(
                name="migration", params=beside, metric="documents_per_s", value=rate, unit="1/s"
            )
        )


async def _migrate(
    engine: Engine, begin: Any, status: Any, documents: int, seconds: list[float]
) -> None:
    began = perf_counter()
    await engine.mutation(begin)
    while True:
        found = await engine.query(status)
        if found["state"] != "inProgress":
            break
        await trio.sleep(LOOK_S)
    seconds.append(perf_counter() - began)
    assert ("success", documents) == (found["state"], found["processed"]), found
