"""
An insertion, a count between two bounds and the item at a place, among 10,000 and 1,000,000 items.

Each is one call of the engine; an insertion is answered when it is on the disk.  Beside it SQLite
with an index on the key, in WAL mode with synchronous=FULL: `count(*)` of the same range, the row
at an offset, and `row_number()` over the table; an insertion is a transaction.  Insertions are also
made by 50 callers, at once and by way of the queue: how many a second are answered, and applied.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import trio

from bench.harness import Bench, Param, Result, percentile, progress
from components.aggregate import DirectAggregate, between, component, excl, incl
from engine.app.component import App
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.host import Engine

SIZES: Final = (10_000, 1_000_000)
QUICK_SIZES: Final = (1_000, 10_000)
LOADED: Final = 1_000
"""Items of one mutation, in the order of their keys, while the table is made."""
ROUNDS_MAX: Final = 400
OPERATIONS: Final = ("insert", "count", "at")
CALLERS: Final = 50
SQLITE: Final = f"SQLite {sqlite3.sqlite_version}"

app = App()
numbers = DirectAggregate(app.use(component, name="numbers"))


@mutation
async def load(ctx: MutationCtx, first: int, count: int) -> None:
    keys = range(first, first + count)
    await numbers.insert_batch(ctx, [{"key": key, "id": "", "sumValue": 1} for key in keys])


@mutation
async def insert(ctx: MutationCtx, key: float, queued: bool = False) -> None:
    await numbers.insert(ctx, key=key, id="", sum_value=1, queued=queued)


@query
async def queued(ctx: QueryCtx) -> float:
    return (await numbers.pending(ctx))["queued"]


@query
async def count(ctx: QueryCtx, low: float, high: float) -> int:
    return await numbers.count(ctx, bounds=between(incl(low), excl(high)))


@query
async def at(ctx: QueryCtx, offset: int) -> Any:
    return (await numbers.at(ctx, offset))["key"]


def run(bench: Bench) -> Iterator[Result]:
    sizes = QUICK_SIZES if bench.quick else SIZES
    seconds = bench.budget_s / (len(sizes) * (len(OPERATIONS) * 2 + 3))
    for size in sizes:
        results: list[Result] = []
        trio.run(_ours, bench, size, seconds, results)
        yield from results
        yield from _theirs(bench, size, seconds)


async def _ours(bench: Bench, size: int, seconds: float, results: list[Result]) -> None:
    functions = [app, load, insert, queued, count, at]
    async with Engine.open(bench.directory / f"{size}", app=functions) as e:
        progress(f"{size:,} items")
        began = time.perf_counter()
        for first in range(0, size, LOADED):
            await e.mutation(load, first, LOADED)
        rate = size / (time.perf_counter() - began)
        params: dict[str, Param] = {"items": size, "in a mutation": LOADED}
        results.append(
            Result(name="aggregate load", params=params, metric="rate", value=rate, unit="items/s")
        )
        dice = random.Random(bench.seed)
        for operation in OPERATIONS:
            ends, taken_s = time.perf_counter() + seconds, list[float]()
            while (began := time.perf_counter()) < ends and len(taken_s) < ROUNDS_MAX:
                low, high = sorted(dice.sample(range(size), 2))
                if operation == "insert":
                    await e.mutation(insert, low + dice.random())
                elif operation == "count":
                    assert await e.query(count, low, high) >= high - low
                else:
                    place = dice.randrange(size)
                    assert await e.query(at, place) <= place
                taken_s.append(time.perf_counter() - began)
            results += _figures(operation, size, taken_s, None)
        for is_queued in (False, True):
            results += await _crowd(e, size, seconds, dice, is_queued=is_queued)


async def _crowd(
    engine: Engine, size: int, seconds: float, dice: random.Random, *, is_queued: bool
) -> list[Result]:
    """Insertions by many callers, and how many had been applied when the last one was."""
    done, began = 0, time.perf_counter()

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < began + seconds:
            await engine.mutation(insert, dice.random() * size, is_queued)
            done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
    rates = {"answered": done / (time.perf_counter() - began)}
    async with engine.subscribe(queued) as numbers_left:
        async for left in numbers_left:
            if not left:
                break
    rates["applied"] = done / (time.perf_counter() - began)
    params: dict[str, Param] = {"items": size, "callers": CALLERS, "queued": is_queued}
    return [
        Result(name="aggregate insert", params=params, metric=metric, value=rate, unit="1/s")
        for metric, rate in rates.items()
    ]


def _theirs(bench: Bench, size: int, seconds: float) -> Iterator[Result]:
    progress(f"{size:,} items in SQLite")
    with _table(bench.directory / f"{size}.sqlite", size) as table:
        dice = random.Random(bench.seed)

        def add() -> None:
            table.execute("INSERT INTO items VALUES (?, '')", (dice.random() * size,))

        def between_two() -> None:
            ends = sorted(dice.sample(range(size), 2))
            table.execute("SELECT count(*) FROM items WHERE key >= ? AND key < ?", ends).fetchone()

        def at_offset() -> None:
            place = (dice.randrange(size),)
            table.execute("SELECT key FROM items ORDER BY key LIMIT 1 OFFSET ?", place).fetchone()

        def at_row_number() -> None:
            numbered = "SELECT key, row_number() OVER (ORDER BY key) AS n FROM items"
            place = (1 + dice.randrange(size),)
            table.execute(f"SELECT key FROM ({numbered}) WHERE n = ?", place).fetchone()

        cases = {"insert": add, "count": between_two, "at": at_offset}
        for operation, work in cases.items():
            yield from _figures(operation, size, _timed(work, seconds), SQLITE)
        taken_s = _timed(at_row_number, seconds)
        yield from _figures("at", size, taken_s, f"{SQLITE}, row_number()")


def _table(path: Path, size: int) -> sqlite3.Connection:
    table = sqlite3.connect(path, isolation_level=None)
    table.execute("PRAGMA journal_mode=WAL")
    table.execute("PRAGMA synchronous=FULL")
    table.execute("CREATE TABLE items (key REAL, id TEXT)")
    table.execute("CREATE INDEX by_key ON items (key)")
    table.execute("BEGIN")
    table.executemany("INSERT INTO items VALUES (?, '')", ((key,) for key in range(size)))
    table.execute("COMMIT")
    return table


def _timed(work: Callable[[], None], seconds: float) -> list[float]:
    ends, taken_s = time.perf_counter() + seconds, list[float]()
    while (began := time.perf_counter()) < ends and len(taken_s) < ROUNDS_MAX:
        work()
        taken_s.append(time.perf_counter() - began)
    return taken_s


def _figures(operation: str, size: int, taken_s: list[float], peer: str | None) -> Iterator[Result]:
    for metric, part in (("p50", 0.5), ("p99", 0.99)):
        yield Result(
            name=f"aggregate {operation}",
            params={"items": size},
            metric=metric,
            value=percentile(taken_s, part) * 1e3,
            unit="ms",
            peer=peer,
        )
