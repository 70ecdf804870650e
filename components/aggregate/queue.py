"""
Operations that are applied later, in the order of the commits that have queued them.

    queued ──the loop, or `drain`──▶ applied, and forgotten
       ▲                    └──────▶ refused: a dead letter
       └──────────tried again────────────┘

A row is an operation.  The transaction that applies it takes it out of the
queue, so it is applied once, whatever ends the process; and as rows come in
the order of their commits, that is the order in which they are applied.
"""

from __future__ import annotations

import logging
from typing import Any, Final, TypedDict

from components.aggregate import loop
from components.aggregate.errors import AggregateError, PendingOperations, QueueFull
from components.aggregate.schema import DeadLetter, Operation, PendingOperation, Tally
from components.aggregate.store import Slice
from components.aggregate.trees import WrittenTrees, carry_out, check_summands
from components.batch_worker import BatchWorker
from engine import (
    MutationCtx,
    QueryCtx,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

logger = logging.getLogger("headrace.aggregate")

BATCH_OPERATIONS: Final = 64
"""Of one transaction, some 20 ms, for which other mutations wait."""
DEBOUNCE_MS: Final = 20.0
"""From the first operation to the batch that it is in: a loop that sleeps and wakes for each costs
more than what it does."""
QUEUED_MAX: Final = 1_000_000
"""More are refused, or a queue that nobody takes from would fill the disk."""
LETTERS_KEPT: Final = 1_000
"""The newest: with more, an aggregate is built anew."""


class Pending(TypedDict):
    """How far the aggregate is behind, and what has become of what was queued."""

    queued: float
    oldestAt: float | None
    applied: float
    refused: float
    deadLetters: float


class Letter(TypedDict):
    id: str
    operation: Operation
    kind: str
    error: str
    queuedAt: float


# What the client calls.


@mutation
async def add(ctx: MutationCtx, operations: list[Operation]) -> None:
    """
    Have operations applied after those that are queued.

    Raises:
        QueueFull: too many are.
        ValueError: one of them could never be applied.
    """
    check_summands(operations)
    if await ctx.db.count(PendingOperation) + len(operations) > QUEUED_MAX:
        raise QueueFull(f"{QUEUED_MAX:,} operations are queued; see headrace aggregate queue")
    was_empty = await _first(ctx) is None
    for operation in operations:
        await ctx.db.insert(PendingOperation, {"operation": operation})
    if was_empty and operations:  # whoever has queued the first one has woken the loop
        await worker.ping(ctx)


@mutation
async def drain(ctx: MutationCtx, limit: int = BATCH_OPERATIONS) -> int:
    """
    Apply up to `limit` of what is queued.

    Returns:
        How many operations were taken from the queue; 0 if there is none.

    Raises:
        ValueError: `limit` is not positive.
    """
    if limit < 1:
        raise ValueError(f"limit is {limit}; it must be positive")
    return await _apply(ctx, limit)


@query
async def pending(ctx: QueryCtx) -> Pending:
    """How many operations are queued, since when, and what has become of others."""
    first, tally = await _first(ctx), await ctx.db.query(Tally).first()
    return {
        "queued": await ctx.db.count(PendingOperation),
        "oldestAt": None if first is None else first["_creationTime"],
        "applied": 0 if tally is None else tally["applied"],
        "refused": 0 if tally is None else tally["refused"],
        "deadLetters": await ctx.db.count(DeadLetter),
    }


@query
async def letters(ctx: QueryCtx, limit: int) -> list[Letter]:
    """Operations that could not be applied, the newest first."""
    return [
        {
            "id": one["_id"],
            "operation": one["operation"],
            "kind": one["kind"],
            "error": one["error"],
            "queuedAt": one["queued_at"],
        }
        for one in await ctx.db.query(DeadLetter).order("desc").take(limit)
    ]


@mutation
async def retry(ctx: MutationCtx, letter_id: str) -> bool:
    """Queue a dead letter again, behind all others; false if it is not there."""
    letter = await _letter(ctx, letter_id)
    if letter is None:
        return False
    await ctx.db.delete(letter["_id"])
    await add(ctx, [letter["operation"]])
    return True


@mutation
async def discard(ctx: MutationCtx, letter_id: str) -> bool:
    """Forget a dead letter; false if it is not there."""
    letter = await _letter(ctx, letter_id)
    if letter is None:
        return False
    await ctx.db.delete(letter["_id"])
    return True


async def check_drained(ctx: QueryCtx) -> None:
    """
    Raises:
        PendingOperations: something is queued.
    """
    if await _first(ctx) is not None:
        count = await ctx.db.count(PendingOperation)
        raise PendingOperations(
            f"{count} operations are queued; ask with stale=True for what is applied, or drain "
            "the queue before"
        )


# The loop.


@internal_query
async def get_batch(ctx: QueryCtx, limit: int) -> dict[str, Any]:
    """A batch is a number: what it is of is read where it is applied."""
    queued = await ctx.db.count(PendingOperation)
    if not queued:
        return {"kind": "idle"}
    return {"kind": "work", "batch": limit, "more": queued > limit}


@internal_mutation
async def run_batch(ctx: MutationCtx, batch: int) -> None:
    """Apply so many operations."""
    await _apply(ctx, batch)


@internal_mutation
async def set_aside(ctx: MutationCtx, batch: int, error: str) -> None:
    """Give up operations that failed with the whole batch, however small it was."""
    rows = await ctx.db.query(PendingOperation).take(batch)
    await _take_out(ctx, rows, {row["_id"]: AggregateError(error) for row in rows})


worker = BatchWorker(
    loop,
    "ops",
    get_batch=get_batch,
    run_batch=run_batch,
    set_aside=set_aside,
    batch_size=BATCH_OPERATIONS,
    debounce=DEBOUNCE_MS,
)


async def _apply(ctx: MutationCtx, limit: int) -> int:
    """
    Do the first operations of the queue, and take them from it.

    Returns:
        How many: fewer than `limit` if they read much, or no more were there.
    """
    trees, share = WrittenTrees(ctx), await Slice.of(ctx)
    rows: list[PendingOperation] = []
    refused: dict[str, AggregateError] = {}
    async for row in ctx.db.query(PendingOperation):
        rows.append(row)
        try:
            await carry_out(trees, row["operation"])
        except AggregateError as error:
            refused[row["_id"]] = error
        if len(rows) == limit or await share.is_over():
            break
    await trees.flush()
    await _take_out(ctx, rows, refused)
    return len(rows)


async def _take_out(
    ctx: MutationCtx, rows: list[PendingOperation], refused: dict[str, AggregateError]
) -> None:
    """Of what was in the queue nothing stays but dead letters."""
    if refused:
        first = next(iter(refused.values()))
        logger.warning("%s queued operations cannot be applied, one: %s", len(refused), first)
    for row in rows:
        await ctx.db.delete(row["_id"])
        if row["_id"] in refused:
            await _keep(ctx, row, refused[row["_id"]])
    if rows:
        await _count(ctx, len(rows) - len(refused), len(refused))


async def _keep(ctx: MutationCtx, row: PendingOperation, error: AggregateError) -> None:
    """Set an operation aside, in the place of the oldest one if there are many."""
    letter = {
        "operation": row["operation"],
        "kind": error.kind,
        "error": str(error),
        "queued_at": row["_creationTime"],
    }
    await ctx.db.insert(DeadLetter, letter)
    if await ctx.db.count(DeadLetter) > LETTERS_KEPT:
        oldest = await ctx.db.query(DeadLetter).first()
        assert oldest is not None, "there is one at least"
        await ctx.db.delete(oldest["_id"])


async def _count(ctx: MutationCtx, applied: int, refused: int) -> None:
    tally = await ctx.db.query(Tally).first()
    if tally is None:
        await ctx.db.insert(Tally, {"applied": applied, "refused": refused})
        return
    counts = {"applied": tally["applied"] + applied, "refused": tally["refused"] + refused}
    await ctx.db.patch(tally["_id"], counts)


async def _first(ctx: QueryCtx) -> PendingOperation | None:
    return await ctx.db.query(PendingOperation).first()


async def _letter(ctx: QueryCtx, letter_id: str) -> DeadLetter | None:
    """The dead letter of that id, if it is one of this aggregate."""
    known = await ctx.db.normalize_id(DeadLetter, letter_id)
    if known is None:
        return None
    letter = await ctx.db.get(known)
    return letter  # noqa: RET504 - what `get` is given has its type from here
