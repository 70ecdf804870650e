"""
What does the past cost, when millions of rows have changed since?

Of a table of people every second one was added since a timestamp, and the others were changed, a
commit each.  Somebody asks for one person as of then, while 200 mutations arrive a second: until
that is answered all commits since are taken back, by a process of its own and into files.  Then
an index is read for the first time, whose entries of then have to be worked out, and the newest
people of then, before whom all have to be passed that came later.  In the end that index is
dropped, so that all of its entries have to be worked out, also of people who are as they were.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import trio

from bench.arriving import arriving
from bench.harness import Bench, Param, Result, percentile, progress
from bench.people import Person, creation_time_of, fields_of, internal_of, load, schema
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.functions.loader import load as load_application
from engine.host import Engine
from engine.indexes import past_process
from engine.indexes.annexes import FOLDER
from engine.indexes.recovery import recover
from engine.log.records import encode_record, ts_key
from engine.model.codec import encode
from engine.model.commits import Kind, RowWrite, Source
from engine.model.ids import Id, id_of, row_key
from engine.model.limits import Limits
from engine.store.interface import Tree
from engine.store.lmdb_environment import open_environment, open_trees
from engine.store.lmdb_snapshot import LmdbSnapshot
from engine.store.lmdb_store import LMDB_FOLDER

CHANGED: Final = 2_000_000
QUICK_CHANGED: Final = 20_000
ARRIVALS_PER_S: Final = 200
ALONE_SHARE: Final = 0.25
"""Of the budget, before anybody asks."""
AGAIN_SHARE: Final = 0.05
"""Of the budget, for each read that is repeated."""
COMMITS_AT_ONCE: Final = 20_000
LIMITS: Final = Limits()
LOOKED_EVERY_S: Final = 0.05
LATER: Final = "Knew a thing or two, and has told them."


@mutation
async def rescore(ctx: MutationCtx, person: Id[Person], score: float) -> None:
    await ctx.db.patch(person, {"score": score})


@query
async def get(ctx: QueryCtx, person: Id[Person]) -> Any:
    return await ctx.db.get(person)


@query
async def ranked(ctx: QueryCtx, score: float) -> int:
    people = ctx.db.query("people").with_index("by_score", lambda r: r.gte("score", score))
    return len(await people.take(100))


@query
async def newest(ctx: QueryCtx) -> int:
    return len(await ctx.db.query("people").order("desc").take(100))


FUNCTIONS: Final = [rescore, get, ranked, newest]
APP: Final = [schema, *FUNCTIONS]
WITHOUT_THE_SCORE: Final = Schema(
    people=Table(Person).index("by_name", ["name"]).index("by_email", ["email"])
)

READS: Final = {"get": get, "range of 100": ranked, "newest 100": newest}


def run(bench: Bench) -> Iterator[Result]:
    """Load, then measure reads of then and of now, and the mutations beside them."""
    changed = QUICK_CHANGED if bench.quick else CHANGED
    directory = bench.directory / "people"
    then = changed_since(directory, changed)
    results: list[Result] = []
    trio.run(_measure, bench, directory, changed, then, results)
    yield from results


def changed_since(directory: Path, changed: int) -> int:
    """
    Make `directory` that of an engine with so many people, of whom every second one came later.

    Returns:
        The ts before which the others were there, and all that the log has of them came after.
    """
    load(directory, changed)
    path = directory / LMDB_FOLDER
    with open_environment(path, readonly=False, sync=False) as env:
        trees = open_trees(env, path, reader="bench")
        with env.begin() as txn:
            found = recover(LmdbSnapshot(txn, trees))
        number = found.catalog.by_name["", "people"].number
        ts, previous = found.ts, found.record_hash
        for first in range(0, changed, COMMITS_AT_ONCE):
            progress(f"commits: {first:,}")
            with env.begin(write=True) as txn:
                for n in range(first, min(first + COMMITS_AT_ONCE, changed)):
                    ts += 1
                    write = _write(number, n, changed)
                    record, previous = encode_record(
                        ts=ts,
                        epoch=found.epoch,
                        kind=Kind.WRITES,
                        writes=[write],
                        source=Source(path="people:add"),
                        state_hash=0,
                        previous=previous,
                    )
                    txn.put(ts_key(ts), record, db=trees[Tree.LOG], append=True)
                    txn.put(write.key, write.after or b"", db=trees[Tree.ROWS])
        env.sync(True)
    return found.ts


def _write(number: int, n: int, count: int) -> RowWrite:
    """What became of a person since: was added, or has another text."""
    key = row_key(number, internal_of(n))
    doc = {**fields_of(n, count), "_id": id_of(key), "_creationTime": creation_time_of(n)}
    if n % 2:
        return RowWrite(key, None, encode(doc))
    return RowWrite(key, encode(doc), encode({**doc, "bio": LATER}))


async def _measure(
    bench: Bench, directory: Path, changed: int, then: int, results: list[Result]
) -> None:
    largest = _Largest()
    async with (
        Engine.open(directory, app=APP, limits=LIMITS) as engine,
        trio.open_nursery() as crowd,
    ):
        crowd.start_soon(largest.follow)
        number = engine.node.committer.head.catalog.by_name["", "people"].number
        dice = random.Random(bench.seed)

        def person() -> str:
            return id_of(row_key(number, internal_of(dice.randrange(0, changed, 2))))

        def change() -> Awaitable[object]:
            tell: Callable[..., Awaitable[object]] = engine.mutation
            return tell(rescore, person(), dice.random() * changed)

        mutating = partial(arriving, ARRIVALS_PER_S, change, name="past")
        params: dict[str, Param] = {"changed": changed, "arrivals_per_s": ARRIVALS_PER_S}
        progress("mutations alone")
        alone = partial(trio.sleep, bench.budget_s * ALONE_SHARE)
        results += await mutating(alone, params={**params, "beside": "nothing"})
        before_mb = _own_mb()
        arguments: list[Callable[[], tuple[Any, ...]]] = [
            lambda: (person(),),
            lambda: (dice.random() * changed * 0.9,),
            lambda: (),
        ]
        reads = {
            name: (fn, args) for (name, fn), args in zip(READS.items(), arguments, strict=True)
        }
        for name, (fn, args) in reads.items():
            progress(f"{name}, as of then, for the first time")
            asked = {**params, "beside": f"the first {name} of then"}
            first = partial(_timed, engine.at(then).query, fn, args, asked, results)
            results += await mutating(first, params=asked)
        for name, (fn, args) in reads.items():
            for moment, ask in (("then", engine.at(then).query), ("now", engine.query)):
                progress(f"{name} of {moment}, again")
                seconds = bench.budget_s * AGAIN_SHARE
                again = {**params, "read": name, "of": moment}
                results += await _again(ask, fn, args, seconds, again)
        growth_mb = _own_mb() - before_mb
        progress("range of 100, as of then, by an index that is no more")
        await engine.node.push(load_application([WITHOUT_THE_SCORE, *FUNCTIONS]))
        fn, args = reads["range of 100"]
        asked = {**params, "beside": "the first range of 100 of then by an index that is no more"}
        first = partial(_timed, engine.at(then).query, fn, args, asked, results)
        results += await mutating(first, params=asked)
        crowd.cancel_scope.cancel()
        for metric, value in (
            ("memory_growth", growth_mb),
            ("process_memory", largest.mb),
            ("files", sum(f.stat().st_size for f in (directory / FOLDER).rglob("*")) / 1e6),
        ):
            results.append(
                Result(name="past", params=params, metric=metric, value=value, unit="MB")
            )


async def _timed(
    ask: Any,
    fn: Any,
    args: Callable[[], tuple[Any, ...]],
    params: dict[str, Param],
    results: list[Result],
) -> None:
    began = perf_counter()
    assert await ask(fn, *args()), "there is somebody"
    results.append(
        Result(
            name="past",
            params=params,
            metric="first_answer",
            value=perf_counter() - began,
            unit="s",
        )
    )


async def _again(
    ask: Any,
    fn: Any,
    args: Callable[[], tuple[Any, ...]],
    seconds: float,
    params: dict[str, Param],
) -> list[Result]:
    """Latencies of one after another, nobody beside."""
    latencies: list[float] = []
    until = perf_counter() + seconds
    while perf_counter() < until:
        began = perf_counter()
        await ask(fn, *args())
        latencies.append(perf_counter() - began)
    return [
        Result(
            name="past",
            params=params,
            metric=metric,
            value=percentile(latencies, part) * 1e3,
            unit="ms",
        )
        for metric, part in (("p50", 0.5), ("p99", 0.99))
    ]


class _Largest:
    """The most memory that a process which takes back had, looked at now and then."""

    mb = 0.0

    async def follow(self) -> None:
        while True:
            await trio.sleep(LOOKED_EVERY_S)
            self.mb = max([self.mb, *_of_processes()])


def _of_processes() -> Iterator[float]:
    """What each process has that takes back now."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError, StopIteration):  # one that ends meanwhile
            for pid in (task / "children").read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if past_process.__name__.encode() in command:
                    yield _own_mb(pid)


def _own_mb(pid: str = "self") -> float:
    """Memory of a process that is no file's."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) / 1e3
