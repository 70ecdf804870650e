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
from functools import partial
from time import perf_counter
from typing import Final

import trio

from bench.arriving import arriving
from bench.harness import Bench, Param, Result, progress
from bench.people import Person, internal_of, load, schema, schema_with
from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.host import Engine
from engine.model.ids import Id, id_of, row_key

DOCUMENTS: Final = 1_000_000
QUICK_DOCUMENTS: Final = 20_000
ARRIVALS_PER_S: Final = 1_000
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


async def _measure(bench: Bench, documents: int, results: list[Result]) -> None:
    async with Engine.open(bench.directory / "people", app=FEWER) as engine:
        number = engine.node.committer.head.catalog.by_name["", "people"].number
        dice = random.Random(bench.seed)

        def change() -> Awaitable[object]:
            person = row_key(number, internal_of(dice.randrange(documents)))
            tell: Callable[..., Awaitable[object]] = engine.mutation
            return tell(rescore, id_of(person), dice.random() * documents)

        mutating = partial(arriving, ARRIVALS_PER_S, change, name="backfill")
        params: dict[str, Param] = {"documents": documents, "arrivals_per_s": ARRIVALS_PER_S}
        progress("mutations alone")
        seconds = bench.budget_s * ALONE_SHARE
        alone = {**params, "beside": "nothing"}
        results += await mutating(partial(trio.sleep, seconds), params=alone)
        progress("mutations beside a backfill")
        slices: list[tuple[float, int]] = []
        filled = partial(_filled, engine, slices)
        results += await mutating(filled, params={**params, "beside": "a backfill"})
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
