"""
Works of a pool that do nothing, 10 and 100 at a time: how many a second, from the first that is
enqueued to the last that has ended, on the disk.

Each is an action, or a mutation; of some every tenth fails once, and is tried again after 10 ms.
Beside it DBOS, on SQLite and on a PostgreSQL of its own: queues with the same bounds, and workflows
that do nothing, or that have one step which fails once and is tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from bench.compare.scheduler import database, what_lacks
from bench.harness import Bench, Param, Result, progress
from components.workpool import Workpool, component
from engine.app.component import App
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Retry
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.host import Engine

PARALLELISM: Final = (10, 100)
WORKS: Final = 2_000
QUICK_WORKS: Final = 200
PEER_WORKS: Final = 400
PEER_S_MAX: Final = 40.0
AT_ONCE: Final = 100
"""Works that one mutation enqueues."""
FAILS: Final = 10
"""Every so manieth fails once."""

app = App()
pool = Workpool(app.use(component, name="pool"))
tried: set[int] = set()


@internal_action
async def act(_: ActionCtx, n: int, fails: bool) -> None:
    if fails and n % FAILS == 0 and n not in tried:
        tried.add(n)
        raise ValueError("for the first time")


@internal_mutation
async def write(_: MutationCtx, n: int, fails: bool) -> None:
    """Nothing."""


@mutation
async def add(ctx: MutationCtx, kind: str, first: int, count: int, fails: bool) -> None:
    works = [{"n": n, "fails": fails} for n in range(first, first + count)]
    if kind == "action":
        retry = Retry(initial_backoff=10, max_attempts=3)
        await pool.enqueue_action_batch(ctx, act, works, retry=retry)
    else:
        await pool.enqueue_mutation_batch(ctx, write, works)


@mutation
async def configure(ctx: MutationCtx, number: int) -> None:
    await pool.configure(ctx, max_parallelism=number)


@query
async def left(ctx: QueryCtx) -> float:
    found = await pool.report(ctx)
    return found["running"] + found["backlog"]


def run(bench: Bench) -> Iterator[Result]:
    works = QUICK_WORKS if bench.quick else WORKS
    results: list[Result] = []
    trio.run(measure, bench.directory / "pool", works, results)
    yield from results
    yield from _theirs(bench.directory, QUICK_WORKS if bench.quick else PEER_WORKS)


async def measure(directory: Path, works: int, results: list[Result]) -> None:
    """The figures of a pool, in a new database."""
    functions = [app, act, write, add, configure, left]
    async with Engine.open(directory, app=functions) as engine:
        for parallelism in PARALLELISM:
            await engine.mutation(configure, parallelism)
            for kind, fails in (("action", False), ("action", True), ("mutation", False)):
                progress(f"{works} works, {kind}, {parallelism} at a time")
                tried.clear()
                began = time.perf_counter()
                for first in range(0, works, AT_ONCE):
                    await engine.mutation(add, kind, first, AT_ONCE, fails)
                async with engine.subscribe(left) as numbers:
                    async for number in numbers:
                        if number == 0:
                            break
                rate = works / (time.perf_counter() - began)
                results.append(_figure(kind, parallelism, fails, works, rate, None))


def _theirs(directory: Path, works: int) -> Iterator[Result]:
    for name in ("SQLite", "PostgreSQL"):
        where = directory / name
        where.mkdir()
        lacks = what_lacks(name)
        if lacks:
            progress(f"DBOS on {name} is left out: {lacks}")
            continue
        for parallelism in PARALLELISM:
            for fails in (False, True):
                progress(f"DBOS on {name}, {works} works, {parallelism} at a time")
                place = where / f"{parallelism}-{fails}"
                place.mkdir()
                rate = _their_rate(name, place, works, parallelism, fails)
                if rate is not None:
                    peer = f"DBOS on {name}"
                    yield _figure("workflow", parallelism, fails, works, rate, peer)


def _their_rate(
    name: str, directory: Path, works: int, parallelism: int, fails: bool
) -> float | None:
    with database(name, directory) as url:
        command = [sys.executable, "-m", "bench.compare._dbos_queue", url]
        command += [str(works), str(parallelism), str(FAILS if fails else 0)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PEER_S_MAX, check=True
            )
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            progress(f"DBOS is left out: {error}")
            return None
    seconds: float = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return works / seconds


def _figure(
    kind: str, parallelism: int, fails: bool, works: int, rate: float, peer: str | None
) -> Result:
    params: dict[str, Param] = {
        "kind": kind,
        "at a time": parallelism,
        "every tenth fails once": fails,
        "works": works,
    }
    return Result(
        name="workpool", params=params, metric="rate", value=rate, unit="works/s", peer=peer
    )
