"""
How many jobs a second are scheduled and run, how late does each begin, and what do queries notice?

Jobs are mutations that do nothing but end durably.  They are scheduled for later in
mutations of 100, beside few and beside many that wait; then 100,000 that are due at
once are run, with queries beside them that arrive on time.  Meanwhile it is counted
how many have begun and are not durable, and at the end that each ran once.  How
late a mutation and an action begin is measured beside actions that run and wait.  In the
same run DBOS enqueues and runs workflows that do nothing, and such that add a row
each, beside jobs that add a document; on SQLite and on a PostgreSQL of its own.
What is not installed is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count, product
from pathlib import Path
from typing import Any, Final

import trio

from bench.compare._postgres import binaries, cluster
from bench.harness import HERE, Bench, Param, Result, arrivals, percentile, progress, resident_mb
from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.host import Engine
from engine.model.limits import Limits

OUTSTANDING: Final = (10_000, 1_000_000)
QUICK_OUTSTANDING: Final = (1_000, 4_000)
DRAINED: Final = 100_000
QUICK_DRAINED: Final = 3_000
QUEUED: Final = 20_000
QUICK_QUEUED: Final = 1_000
"""Jobs that are scheduled and run, of each of two sorts, right before those of others."""
NOTHING, ROW = "nothing", "row"
"""What each does, or adds."""
READ_AT_ONCE: Final = 1_000
IN_A_MUTATION: Final = 100
LOADED_AT_ONCE: Final = 1_000
"""In a mutation that is not measured."""
CALLERS: Final = 4
LATER_MS: Final = 30 * 86_400_000.0
RUNNING: Final = (0, 10, 100, 1_000)
"""Actions, while others are to begin."""
EVERY_MS: Final = 20.0
"""A job is due, where it is measured how late it begins."""
AHEAD_MS: Final = 500.0
"""They are scheduled before the first is due."""
QUERIES_PER_S: Final = 100
PEOPLE: Final = 1_000
"""Of whom each query looks for one by an index."""
MEMORY_S: Final = 0.05
PEERS: Final = (("SQLite", 1), ("PostgreSQL", 8))
"""With the number of threads that enqueue, with which each is quickest."""
PEER_JOBS: Final = 2_000
"""Of 600 on PostgreSQL a third of the time is until the first begins."""
QUICK_PEER_JOBS: Final = 40
PEER_S_MAX: Final = 120.0

ENQUEUE_GOALS: Final = (10_000, 3_000)
DRAIN_GOAL: Final = 5_000
MEMORY_GOAL_MB: Final = 256
"""More than before, while 100,000 jobs run; most of it is commits that followers may still need."""
START_GOAL_MS: Final = 20
QUERY_GOAL: Final = 3
PEER_GOAL: Final = 20


@dataclass
class Tally:
    """What the jobs of this process have done."""

    ran: Counter[int] = field(default_factory=Counter)
    begun: int = 0
    late_ms: list[float] = field(default_factory=list)
    durable: Any = int
    """How many ends of jobs are durable."""
    most: int = 0
    """Of jobs that had begun and were not durable."""
    expected: int = 0
    arrived: trio.Event = field(default_factory=trio.Event)
    """So many are under way, or have been."""
    proceed: trio.Event = field(default_factory=trio.Event)

    def arrive(self) -> None:
        self.expected -= 1
        if not self.expected:
            self.arrived.set()


tally = Tally()


@internal_mutation
async def nothing(_ctx: MutationCtx, number: int) -> None:
    tally.ran[number] += 1
    tally.begun += 1
    tally.most = max(tally.most, tally.begun - tally.durable())


@internal_mutation
async def add(ctx: MutationCtx, number: int) -> None:
    await ctx.db.insert("rows", {"number": number})


@internal_mutation
async def be_late(_ctx: MutationCtx, due_ms: float) -> None:
    tally.late_ms.append(time.time() * 1000 - due_ms)
    tally.arrive()


@internal_action
async def begin_late(_ctx: ActionCtx, due_ms: float) -> None:
    tally.late_ms.append(time.time() * 1000 - due_ms)
    tally.arrive()


@internal_action
async def wait(_ctx: ActionCtx) -> None:
    tally.arrive()
    await tally.proceed.wait()


@mutation
async def schedule(ctx: MutationCtx, first: int, count: int, delay_ms: float) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(delay_ms, nothing, number)


@mutation
async def schedule_rows(ctx: MutationCtx, first: int, count: int, delay_ms: float) -> None:
    for number in range(first, first + count):
        await ctx.scheduler.run_after(delay_ms, add, number)


@mutation
async def schedule_late(ctx: MutationCtx, kind: str, count: int) -> None:
    for number in range(count):
        due_ms = ctx.now_ms + AHEAD_MS + number * EVERY_MS
        late = be_late if kind == "mutation" else begin_late
        await ctx.scheduler.run_at(due_ms, late, due_ms)


@mutation
async def schedule_waits(ctx: MutationCtx, count: int) -> None:
    for _ in range(count):
        await ctx.scheduler.run_after(0, wait)


@mutation
async def add_people(ctx: MutationCtx) -> None:
    for number in range(PEOPLE):
        await ctx.db.insert("people", {"number": number, "name": f"person {number}"})


@query
async def person(ctx: QueryCtx, asked: int) -> Any:
    people = ctx.db.query("people")
    return await people.with_index("by_number", lambda r: r.eq("number", asked % PEOPLE)).unique()


@query
async def rows(ctx: QueryCtx, after: str) -> list[Any]:
    return (
        await ctx.db.query("rows")
        .with_index("by_id", lambda r: r.gt("_id", after))
        .take(READ_AT_ONCE)
    )


SCHEMA: Final = Schema(
    people=Table(v.any()).index("by_number", ["number"]),
    rows=Table(v.any()),
)
APP: Final = [
    *(SCHEMA, nothing, add, be_late, begin_late, wait, add_people, person, rows),
    *(schedule, schedule_rows, schedule_late, schedule_waits),
]


def run(bench: Bench) -> Iterator[Result]:
    """Measure all cases, ours and the others', and say what came of the goals."""
    results: list[Result] = []
    for measure in (_enqueue, _drain, _start):
        found: list[Result] = []
        trio.run(measure, bench, found)
        yield from found
        results += found
    yield from _goals(results)
    for each, (name, enqueuers) in product((NOTHING, ROW), PEERS):
        yield from _beside(bench, each, name, enqueuers)


# Ours


async def _enqueue(bench: Bench, results: list[Result]) -> None:
    """Jobs for later, beside as many that wait."""
    async with Engine.open(bench.directory / "enqueue", app=APP) as engine:
        numbers = count(step=IN_A_MUTATION)
        there = 0
        for outstanding in QUICK_OUTSTANDING if bench.quick else OUTSTANDING:
            progress(f"{outstanding:,} jobs are scheduled for later")
            while there < outstanding:
                await engine.mutation(schedule, there, LOADED_AT_ONCE, LATER_MS)
                there += LOADED_AT_ONCE
            end = trio.current_time() + bench.budget_s * 0.1
            before, began = there, time.perf_counter()

            async def caller(end: float = end) -> None:
                nonlocal there
                while trio.current_time() < end:
                    await engine.mutation(schedule, next(numbers), IN_A_MUTATION, LATER_MS)
                    there += IN_A_MUTATION

            async with trio.open_nursery() as nursery:
                for _ in range(CALLERS):
                    nursery.start_soon(caller)
            rate = (there - before) / (time.perf_counter() - began)
            params: dict[str, Param] = {
                "outstanding": outstanding,
                "in a mutation": IN_A_MUTATION,
                "callers": CALLERS,
            }
            results.append(_figure("enqueue", params, "jobs_per_s", rate, "1/s"))


async def _drain(bench: Bench, results: list[Result]) -> None:
    """Many that are due at once, and queries beside them."""
    global tally
    jobs = QUICK_DRAINED if bench.quick else DRAINED
    async with Engine.open(bench.directory / "drain", app=APP) as engine:
        node = engine.node
        node.scheduler.pause()
        await engine.mutation(add_people)
        await _schedule_all(engine, schedule, jobs)
        beside: dict[str, list[float]] = {"nothing": [], "jobs": []}
        end = trio.current_time() + bench.budget_s * 0.1
        await _ask(engine, beside["nothing"], lambda: trio.current_time() > end)

        before = node.committer.stats["commits"]
        tally = Tally(durable=lambda: node.committer.stats["commits"] - before)
        memory = resident_mb()
        sizes = [memory]
        is_over = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_ask, engine, beside["jobs"], lambda: is_over)
            nursery.start_soon(_watch, sizes, lambda: is_over)
            node.scheduler.resume()
            began, cpu = time.perf_counter(), time.process_time()
            await node.scheduler.wait_resting()
            took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
            is_over = True
        assert tally.ran == Counter(range(jobs)), "each ran once"
        ended = {labels: n for name, labels, n in node.counters.read() if name == "jobs.ended"}
        assert [jobs] == list(ended.values()), f"all ended well: {ended}"
        limit = node.limits.mutation_jobs_running_max
        params: dict[str, Param] = {"jobs": jobs, "running at most": limit}
        results += [
            _figure("drain", params, "jobs_per_s", jobs / took_s, "1/s"),
            _figure("drain", params, "of the trio thread", cpu_s / jobs * 1e6, "us"),
            _figure("drain", params, "begun and not durable, most", tally.most, "jobs"),
            _figure("drain", params, "memory beside before", max(sizes) - memory, "MB"),
        ]
        for what, late_s in beside.items():
            params = {"beside": what, "arrive per s": QUERIES_PER_S}
            results += _percentiles("queries", params, [s * 1e3 for s in late_s])


async def _schedule_all(engine: Engine, scheduling: Any, jobs: int) -> None:
    firsts = iter(range(0, jobs, IN_A_MUTATION))

    async def caller() -> None:
        for first in firsts:
            await engine.mutation(scheduling, first, IN_A_MUTATION, 0)

    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)


async def _ask(engine: Engine, late_s: list[float], is_over: Any) -> None:
    numbers = count()

    async def one(due: float) -> None:
        await engine.query(person, next(numbers))
        late_s.append(trio.current_time() - due)

    await arrivals(QUERIES_PER_S, one, is_over=is_over)


async def _watch(sizes_mb: list[float], is_over: Any) -> None:
    while not is_over():
        sizes_mb.append(resident_mb())
        await trio.sleep(MEMORY_S)


async def _start(bench: Bench, results: list[Result]) -> None:
    """One mutation or action after another, beside actions that run."""
    global tally
    jobs = int(bench.budget_s * 0.1 / EVERY_MS * 1e3)
    for kind, running in product(("mutation", "action"), RUNNING[: 2 if bench.quick else None]):
        tally = Tally(expected=running)
        limits = Limits(action_jobs_running_max=max(RUNNING) + 100)
        directory = bench.directory / f"start-{kind}-{running}"
        async with Engine.open(directory, app=APP, limits=limits) as engine:
            if running:
                await engine.mutation(schedule_waits, running)
                await tally.arrived.wait()
            tally.expected, tally.arrived = jobs, trio.Event()
            await engine.mutation(schedule_late, kind, jobs)
            await tally.arrived.wait()
            tally.proceed.set()
            await engine.node.scheduler.wait_resting()
        params: dict[str, Param] = {"of": kind, "running": running, "every ms": EVERY_MS}
        results += _percentiles("start", params, tally.late_ms)


# Beside others


def _beside(bench: Bench, each: str, name: str, enqueuers: int) -> Iterator[Result]:
    """Jobs that are scheduled and run, by us and right after that by others."""
    directory = bench.directory / f"{name}-{each}"
    directory.mkdir()
    jobs = QUICK_QUEUED if bench.quick else QUEUED
    rate = jobs / trio.run(_queue, directory / "ours", each, jobs)
    params: dict[str, Param] = {
        "jobs": jobs,
        "each": each,
        "before": name,
        "in a mutation": IN_A_MUTATION,
        "callers": CALLERS,
    }
    yield _figure("queued-and-run", params, "jobs_per_s", rate, "1/s")
    for theirs in _peer(bench.quick, directory / "theirs", name, enqueuers, each):
        yield theirs
        beside = {what: theirs.params[what] for what in ("each", "database")}
        yield _goal("speed by theirs", rate / theirs.value, at_least=PEER_GOAL, **beside)


async def _queue(directory: Path, each: str, jobs: int) -> float:
    """How long it takes, in seconds, until all have run, once each."""
    global tally
    tally = Tally()
    async with Engine.open(directory, app=APP) as engine:
        began = time.perf_counter()
        await _schedule_all(engine, schedule if each == NOTHING else schedule_rows, jobs)
        await engine.node.scheduler.wait_resting()
        took_s = time.perf_counter() - began
        found = list(tally.ran.elements()) if each == NOTHING else await _numbers(engine)
    assert sorted(found) == list(range(jobs)), "each ran once"
    return took_s


async def _numbers(engine: Engine) -> list[int]:
    """Those in the documents that were added."""
    found: list[int] = []
    after = ""
    while some := await engine.query(rows, after):
        found += [row["number"] for row in some]
        after = some[-1]["_id"]
    return found


def _peer(quick: bool, directory: Path, name: str, enqueuers: int, each: str) -> Iterator[Result]:
    lacks = what_lacks(name)
    if lacks:
        progress(f"DBOS on {name} is left out: {lacks}")
        return
    jobs = QUICK_PEER_JOBS if quick else PEER_JOBS
    directory.mkdir()
    with database(name, directory) as url:
        module = "bench.compare._dbos"
        command = [sys.executable, "-m", module, url, str(jobs), str(enqueuers), each]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=PEER_S_MAX, cwd=HERE.parent
            )
        except subprocess.TimeoutExpired:
            progress(f"DBOS on {name} is left out: {jobs} jobs took over {PEER_S_MAX:g} s")
            return
    if done.returncode:
        progress(f"DBOS on {name} is left out: {done.stderr.strip().splitlines()[-1:]}")
        return
    took = json.loads(done.stdout)
    params: dict[str, Param] = {
        "jobs": jobs,
        "each": each,
        "database": name,
        "threads that enqueue": enqueuers,
        "durability": "each transaction is flushed",
    }
    rate = jobs / (took["enqueue_s"] + took["run_s"])
    yield _figure("queued-and-run", params, "jobs_per_s", rate, "1/s", peer="DBOS")


def what_lacks(name: str) -> str:
    if find_spec("dbos") is None:
        return "there is no dbos here (the dependency group `compare`)"
    return "there is no PostgreSQL here" if name == "PostgreSQL" and binaries() is None else ""


@contextmanager
def database(name: str, directory: Path) -> Iterator[str]:
    folder = binaries()
    if name == "PostgreSQL" and folder is not None:
        with cluster(folder, directory) as url:
            yield url
    else:
        yield f"sqlite:///{directory}/dbos.sqlite"


# What came of it


def _goals(results: Sequence[Result]) -> Iterator[Result]:
    """Each goal as one figure: what there is by what there should be."""

    def of(name: str, metric: str, /, **params: Param) -> float:
        (value,) = (
            one.value
            for one in results
            if (one.name, one.metric, one.peer) == (f"scheduler-{name}", metric, None)
            and params.items() <= one.params.items()
        )
        return value

    sizes = [one.params["outstanding"] for one in results if one.name == "scheduler-enqueue"]
    for size, goal in zip(sizes, ENQUEUE_GOALS, strict=True):
        rate = of("enqueue", "jobs_per_s", outstanding=size)
        yield _goal("enqueue", rate / goal, at_least=1, outstanding=size, per_s=goal)
    yield _goal("drain", of("drain", "jobs_per_s") / DRAIN_GOAL, at_least=1, per_s=DRAIN_GOAL)
    most = of("drain", "begun and not durable, most")
    (limit,) = (r.params["running at most"] for r in results if r.metric.endswith("most"))
    yield _goal("running by limit", most / float(limit), at_most=1)
    memory = of("drain", "memory beside before") / MEMORY_GOAL_MB
    yield _goal("memory", memory, at_most=1, mb=MEMORY_GOAL_MB)
    for kind in ("mutation", "action"):
        start = of("start", "p99", of=kind, running=0) / START_GOAL_MS
        yield _goal("start when idle, p99", start, at_most=1, ms=START_GOAL_MS, of=kind)
    queries = of("queries", "p99", beside="jobs") / of("queries", "p99", beside="nothing")
    yield _goal("queries, p99: beside jobs by without", queries, at_most=QUERY_GOAL)


def _goal(what: str, value: float, **params: Param) -> Result:
    return _figure("goal", {"what": what, **params}, "ratio", value, "times")


def _figure(
    name: str,
    params: dict[str, Param],
    metric: str,
    value: float,
    unit: str,
    peer: str | None = None,
) -> Result:
    return Result(
        name=f"scheduler-{name}", params=params, metric=metric, value=value, unit=unit, peer=peer
    )


def _percentiles(name: str, params: dict[str, Param], samples_ms: Sequence[float]) -> list[Result]:
    return [
        _figure(name, params, label, percentile(samples_ms, share), "ms")
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]
