"""
The process of a crowd that the jobs proof kills: it opens a database and has things done later.

    python -m tests.proofs.jobs_crowd_subject DIRECTORY PLANT POINT VISIT FIRST

It kills itself when it comes to POINT for the VISIT-th time, if that is a point.  Lines on standard
output, each written at once: `plan TOKEN KIND DUE_MS JOB` for what is planned and durable, `cancel
TOKEN` before one is canceled and `canceled TOKEN` after.  With FIRST -1 it plans nothing, waits
until nothing is to be done any more and says `state JSON`.  What actions do to the world outside is
a line in the file `outside` of the directory.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import trio

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.crons import Crons, Retry
from engine.app.decorators import internal_action, internal_mutation, mutation, query
from engine.host import Engine
from engine.indexes.verify import verify
from engine.kernel.runtime import SystemRuntime
from engine.kernel.trace import trace_to_stderr
from engine.model.ids import Id
from tests.proofs.jobs_planted import plant

KINDS: Final = ("land", "act", "fragile")
ATTEMPTS: Final = 3
TICK_S: Final = 1
PLANNERS: Final = 4
REST_S_MAX: Final = 60.0
NOWHERE: Final = "nowhere"
DELAY_MS_MAX: Final = 400.0

outside: int = -1
"""A file that stands for the world: nothing that is written to it is taken back."""


def done_outside(what: str) -> None:
    os.write(outside, f"{what}\n".encode())


@mutation
async def plan(ctx: MutationCtx, token: int, kind: str, delay_ms: float) -> list[Any]:
    """Have something done later; when it is due, and the job."""
    scheduler = ctx.scheduler
    if kind == "fragile":
        retry = Retry(initial_backoff=50, base=1, max_attempts=ATTEMPTS)
        scheduler = scheduler.with_retry(retry, on_complete=told, context=token)
    chosen: Any = {"land": land, "act": act, "fragile": fragile}[kind]
    job = await scheduler.run_after(delay_ms, chosen, token)
    await ctx.db.insert("plans", {"token": token, "kind": kind, "job": job})
    return [ctx.now_ms + delay_ms, job]


@mutation
async def cancel(ctx: MutationCtx, job: Id[Any]) -> None:
    await ctx.scheduler.cancel(job)


@internal_mutation
async def land(ctx: MutationCtx, token: int) -> None:
    await ctx.db.insert("landed", {"token": token, "at": ctx.now_ms})


@internal_action
async def act(ctx: ActionCtx, token: int) -> None:
    done_outside(f"began {token} {ctx.now_ms}")
    await trio.sleep(token % 5 * 0.01)
    await ctx.run_mutation(land, token)


@internal_action
async def fragile(ctx: ActionCtx, token: int) -> int:
    """Fail now and then, some always."""
    done_outside(f"began {token} {ctx.now_ms}")
    await trio.sleep(token % 3 * 0.01)
    if token % 4 == 0 or ctx.random.random() < 0.3:
        raise ValueError("as planned")
    return token


@internal_mutation
async def told(ctx: MutationCtx, job: str, result: dict[str, Any], context: int) -> None:
    await ctx.db.insert("told", {"token": context, "kind": result["kind"]})


@internal_mutation
async def tick(ctx: MutationCtx) -> None:
    await ctx.db.insert("ticks", {"at": ctx.now_ms, "life": os.getpid()})


@query
async def rows(ctx: QueryCtx, table: str) -> list[dict[str, Any]]:
    return await ctx.db.query(table).collect()


@query
async def unfinished(ctx: QueryCtx) -> int:
    jobs_there = await ctx.db.system.query("_scheduled_functions").collect()
    return sum(job["state"]["kind"] in ("pending", "inProgress") for job in jobs_there)


@query
async def job_rows_of(ctx: QueryCtx) -> list[dict[str, Any]]:
    return await ctx.db.system.query("_scheduled_functions").collect()


def app() -> list[Any]:
    crons = Crons()
    crons.interval("tick", tick, seconds=TICK_S)
    return [plan, cancel, land, act, fragile, told, tick, rows, unfinished, job_rows_of, crons]


class Doomed(SystemRuntime):
    """Ends the process when somebody has come to a point so often."""

    def __init__(self, point: str, visit: int) -> None:
        super().__init__()
        self._point, self._visit = point, visit
        self._visits: Counter[str] = Counter()

    async def pause(self, point: str) -> None:
        self._visits[point] += 1
        if point == self._point and self._visits[point] == self._visit:
            os.kill(os.getpid(), signal.SIGKILL)


async def main(directory: Path, bug: str, point: str, visit: int, first: int) -> None:
    global outside
    outside = os.open(directory / "outside", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    plant(bug)
    runtime = Doomed(point, visit)
    async with Engine.open(directory / "data", app=app(), runtime=runtime) as engine:
        if first >= 0:
            async with trio.open_nursery() as nursery:
                for planner in range(PLANNERS):
                    nursery.start_soon(_plan, engine, first + planner)
        began = trio.current_time()
        await trio.sleep(1.5 * TICK_S)
        await _come_to_rest(engine)
        seconds = trio.current_time() - began
        told_now = {**await _state(engine), "life": os.getpid(), "seconds": seconds}
        _say(f"state {json.dumps(told_now)}")


async def _plan(engine: Engine, token: int) -> None:
    dice = random.Random(token)
    while True:
        kind, delay_ms = dice.choice(KINDS), dice.choice([0.0, dice.random() * DELAY_MS_MAX])
        due_ms, job = await engine.mutation(plan, token, kind, delay_ms)
        _say(f"plan {token} {kind} {due_ms} {job}")
        if dice.random() < 0.3:
            # Around when it is due, when it may be on its way already.
            await trio.sleep(max(0.0, delay_ms / 1000 + dice.uniform(-0.01, 0.003)))
            _say(f"cancel {token}")
            await engine.mutation(cancel, job)
            _say(f"canceled {token}")
        token += PLANNERS


async def _come_to_rest(engine: Engine) -> None:
    """Wait until everything that was planned has come to its end."""
    with trio.fail_after(REST_S_MAX):
        async with engine.subscribe(unfinished) as counts:
            async for count in counts:
                if not count:
                    return


async def _state(engine: Engine) -> dict[str, Any]:
    *_, findings = verify(engine.node.store.snapshot)
    tables = {name: await engine.query(rows, name) for name in ("plans", "landed", "told", "ticks")}
    jobs_by_id = {job["_id"]: job for job in await engine.query(job_rows_of)}
    return {"problems": findings.problems, "jobs": jobs_by_id, **tables}


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    where, planted, at, often, begin = sys.argv[1:]
    trio.run(main, Path(where), planted, at, int(often), int(begin))
