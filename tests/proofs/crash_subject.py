"""
The process that the crash proof kills: it opens a database, says what is in it, and writes.

    python -m tests.proofs.crash_subject DIRECTORY PLANT FIRST...

Lines on standard output, each written at once: `state JSON` after opening, then
`ack WORKER NUMBER` for every mutation that was answered.  FIRST has, for each
worker, the first number that was never acknowledged: it may or may not be done.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.committer.actor import Committer
from engine.functions import idempotence
from engine.functions.results import Caller
from engine.host import Engine
from engine.indexes.verify import verify
from engine.kernel.trace import trace_to_stderr
from engine.model.commits import SessionRequest
from engine.store.lmdb_store import LmdbStore

PADDING = "x" * 200


@mutation
async def credit(ctx: MutationCtx, worker: int, number: int) -> None:
    """Add a line to the ledger and to the worker's total, in one transaction."""
    await ctx.db.insert("ledger", {"worker": worker, "number": number, "padding": PADDING})
    total = await ctx.db.query("totals").filter(lambda q: q.field("worker") == worker).first()
    if total is None:
        await ctx.db.insert("totals", {"worker": worker, "count": 1})
    else:
        await ctx.db.patch(total["_id"], {"count": total["count"] + 1})


@query
async def ledger(ctx: QueryCtx, after: str) -> list[Any]:
    """A part of the ledger: worker, number and id of up to 4,000 lines."""
    lines = ctx.db.query("ledger").with_index("by_id", lambda r: r.gt("_id", after))
    return [[d["worker"], d["number"], d["_id"]] for d in await lines.take(4_000)]


@query
async def totals(ctx: QueryCtx) -> list[Any]:
    return [[d["worker"], d["count"]] for d in await ctx.db.query("totals").collect()]


@mutation
async def begin(ctx: MutationCtx) -> None:
    """One batch, of whose flushes the state speaks."""
    await ctx.db.insert("openings", {})


def session_of(worker: int) -> bytes:
    return blake2b(b"worker %d" % worker, digest_size=16).digest()


async def main(directory: Path, plant: str, first: list[int]) -> None:
    if plant == "no-sync":
        setattr(LmdbStore, "open", partial(LmdbStore.open, sync=False))  # noqa: B010 - a method
    async with Engine.open(directory, app=[credit, ledger, totals, begin]) as engine:
        await engine.mutation(begin)
        _say(f"state {json.dumps(await _state(engine))}")
        _plant(plant)
        async with trio.open_nursery() as nursery:
            for worker, number in enumerate(first):
                nursery.start_soon(_work, engine, worker, number)


async def _state(engine: Engine) -> dict[str, Any]:
    *_, findings = verify(engine.node.store.snapshot)
    lines: list[Any] = []
    while part := await engine.query(ledger, after=lines[-1][2] if lines else ""):
        lines += part
    return {
        "pid": os.getpid(),
        "ledger": [[int(worker), int(number)] for worker, number, _ in lines],
        "totals": await engine.query(totals),
        "problems": findings.problems,
        "store": engine.node.store.describe(),
    }


async def _work(engine: Engine, worker: int, number: int) -> None:
    caller = Caller(admin=True)
    while True:
        result = await engine.node.functions.mutation(
            "main:credit",
            {"worker": worker, "number": number},
            caller=caller,
            request=SessionRequest(session_id=session_of(worker), request_id=number),
        )
        assert result.failure is None, result.failure
        _say(f"ack {worker} {number}")
        number += 1


def _say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


def _plant(bug: str) -> None:
    """Break the engine in one known way."""
    if bug == "answer-before-flush":
        setattr(Committer, "settled", _settled_at_once)  # noqa: B010 - a method is not assigned to
    elif bug == "forget-requests":
        setattr(idempotence, "find", _never_found)  # noqa: B010
    else:
        assert bug in ("none", "no-sync"), f"no such bug: {bug}"


async def _settled_at_once(_committer: Committer, _ts: int, _generation: int) -> None:
    await trio.lowlevel.checkpoint()


def _never_found(_transaction: object, _request: object) -> None:
    """No request was ever seen before."""


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    trio.run(main, Path(sys.argv[1]), sys.argv[2], [int(number) for number in sys.argv[3:]])
