"""What clients are told: lines, and errors of every sort."""

from __future__ import annotations

import logging
import sys
from typing import Any

from engine import (
    ActionCtx,
    ConvexError,
    Int64,
    MutationCtx,
    QueryCtx,
    action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

log = logging.getLogger("told")
log.setLevel(logging.DEBUG)
log.propagate = False
log.addHandler(logging.NullHandler())


def speak() -> None:
    print("posting", 'it\'s "so"', 1, 0.5, True, None)
    print({"a": [1, {"b": Int64(2)}], "c d": "x"}, [], {})
    log.debug("a detail")
    log.info("sent %d", 3)
    log.warning("late")
    print("broken\nin two", file=sys.stderr)


@query(name="default")
async def default(ctx: QueryCtx) -> str:
    return "the default"


@query
async def says(ctx: QueryCtx) -> int:
    speak()
    return 1


@mutation
async def says_while_writing(ctx: MutationCtx) -> None:
    speak()


@action
async def says_outside(ctx: ActionCtx) -> None:
    speak()


@query
async def much(ctx: QueryCtx) -> None:
    """More than is kept of a line, and more lines than are kept."""
    print("x" * 40_000)
    for number in range(300):
        print(number)


@query
async def fails(ctx: QueryCtx, data: Any = None, how: str = "error") -> float:
    print("before")
    if how == "data":
        raise ConvexError(data)
    if how == "result":
        return "no number"  # type: ignore[return-value]
    raise ValueError("no")


@mutation
async def fails_while_writing(ctx: MutationCtx) -> None:
    print("before")
    raise ConvexError({"code": 7})


@internal_query
async def innermost(ctx: QueryCtx) -> None:
    raise LookupError("nothing there")


@internal_mutation
async def inner(ctx: MutationCtx) -> None:
    await ctx.run_query(innermost)


@action
async def outer(ctx: ActionCtx) -> None:
    await ctx.run_mutation(inner)
