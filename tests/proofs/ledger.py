"""
The application of proofs that count: a ledger, totals of it, and large documents that come and go.

Each worker credits the numbers from 0 on, one after the other, so whoever knows what was
acknowledged knows what has to be there.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.functions.results import Caller
from engine.functions.targets import call_target
from engine.indexes.recovery import recover
from engine.model.codec import decode
from engine.model.commits import SessionRequest
from engine.node import Node
from engine.store.interface import Store, Tree
from tests.proofs.crash_subject import session_of

SCRATCH_EVERY = 5
SCRATCH_LENGTH_MAX = 30_000
"""More than a page holds, so that pages of their own are taken and given back."""
BULK_DOCUMENTS = 8
BULK_TEXT_LENGTH = 1_000_000
BULK_BYTES = 2 * BULK_DOCUMENTS * BULK_TEXT_LENGTH
"""On disk: as rows, and in the log."""

schema = Schema(
    ledger=Table(
        {"worker": v.number(), "number": v.number(), "padding": v.string()},
    ).index("by_worker", ["worker", "number"]),
    totals=Table({"worker": v.number(), "count": v.number()}).index("by_worker", ["worker"]),
    scratch=Table({"worker": v.number(), "text": v.string()}).index("by_worker", ["worker"]),
)


@mutation
async def credit(ctx: MutationCtx, worker: int, number: int) -> None:
    """Add a line to the ledger and to the worker's total; now and then replace what is large."""
    line = {"worker": worker, "number": number, "padding": "x" * (number * 37 % 300)}
    await ctx.db.insert("ledger", line)
    of_worker = ctx.db.query("totals").with_index("by_worker", lambda r: r.eq("worker", worker))
    total = await of_worker.unique()
    if total is None:
        await ctx.db.insert("totals", {"worker": worker, "count": 1})
    else:
        await ctx.db.patch(total["_id"], {"count": total["count"] + 1})
    if number % SCRATCH_EVERY == 0:
        await _replace_scratch(ctx, worker, number)


async def _replace_scratch(ctx: MutationCtx, worker: int, number: int) -> None:
    of_worker = ctx.db.query("scratch").with_index("by_worker", lambda r: r.eq("worker", worker))
    for old in await of_worker.collect():
        await ctx.db.delete(old["_id"])
    text = "y" * (number * 7919 % SCRATCH_LENGTH_MAX)
    await ctx.db.insert("scratch", {"worker": worker, "text": text})


@mutation
async def bulk(ctx: MutationCtx) -> None:
    """Write as much as one transaction may, or nearly."""
    for _ in range(BULK_DOCUMENTS):
        await ctx.db.insert("scratch", {"worker": -1, "text": "z" * BULK_TEXT_LENGTH})


@mutation
async def nudge(ctx: MutationCtx) -> None:
    """Write as little as one transaction can."""
    row = (
        await ctx.db.query("scratch").with_index("by_worker", lambda r: r.eq("worker", -2)).first()
    )
    if row is None:
        await ctx.db.insert("scratch", {"worker": -2, "text": ""})
    else:
        await ctx.db.patch(row["_id"], {"text": "" if row["text"] else "n"})


@query
async def totals(ctx: QueryCtx) -> list[Any]:
    return [[d["worker"], d["count"]] for d in await ctx.db.query("totals").collect()]


APP: list[Any] = [schema, credit, bulk, nudge, totals]


async def credit_once(node: Node, worker: int, number: int) -> None:
    """
    Send the mutation as a client does, under a number by which it is known again.

    Raises:
        EngineError: as `Functions.mutation`.
    """
    _, path, arguments = call_target(credit, (), {"worker": worker, "number": number}, "")
    result = await node.functions.mutation(
        path,
        arguments,
        caller=Caller(admin=True),
        request=SessionRequest(session_id=session_of(worker), request_id=number),
    )
    if result.failure is not None:
        raise result.failure.error


def read_ledger(store: Store) -> tuple[Counter[tuple[int, int]], dict[int, int]]:
    """How often each worker's number is in the ledger, and the totals; from the rows alone."""
    with store.snapshot() as snapshot:
        catalog = recover(snapshot).catalog

        def rows(name: str) -> list[Any]:
            table = catalog.table("", name)
            if table is None:
                return []  # the application was never deployed
            upper = (table.number + 1).to_bytes(4, "big")
            found = snapshot.range(Tree.ROWS, table.row_prefix, upper)
            return [decode(image) for _, image in found]

        lines = Counter((int(d["worker"]), int(d["number"])) for d in rows("ledger"))
        return lines, {int(d["worker"]): int(d["count"]) for d in rows("totals")}
