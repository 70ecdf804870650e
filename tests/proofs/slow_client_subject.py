"""
The process that the slow-client proof looks at: a served engine.

    python -m tests.proofs.slow_client_subject DIRECTORY PLANT

It says `url URL` on a line and serves until it is killed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.model.limits import Limits
from engine.server.listener import ListenConfig
from engine.server.outbox import Outbox

PADDING = "x" * 100_000
"""So that what the kernel holds for a client is full after a few transitions."""

HISTORY_COUNT = 64
"""Commits that the engine keeps for its followers are no part of what a client costs."""
UNSENT_MAX = Limits().unsent_transitions_max


@mutation
async def count(ctx: MutationCtx) -> float:
    """Add one to the counter."""
    row = await ctx.db.query("counters").first()
    if row is None:
        await ctx.db.insert("counters", {"value": 1})
        return 1
    await ctx.db.patch(row["_id"], {"value": row["value"] + 1})
    return float(row["value"] + 1)


@query
async def large(ctx: QueryCtx) -> dict[str, Any]:
    """The counter, with much that does not change."""
    row = await ctx.db.query("counters").first()
    return {"value": row["value"] if row else 0, "padding": PADDING}


@query
async def small(ctx: QueryCtx) -> float:
    """The counter alone."""
    row = await ctx.db.query("counters").first()
    return row["value"] if row else 0


async def main(directory: str, plant: str) -> None:
    limits = Limits(history_count_max=HISTORY_COUNT)
    if plant != "none":
        limits = replace(limits, unsent_transitions_max=1_000_000, unsent_bytes_max=1 << 30)
    _plant(plant)
    async with (
        Engine.open(directory, app=[count, large, small], limits=limits) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        os.write(1, f"url {urls[0]}\n".encode())
        await trio.sleep_forever()


def _plant(bug: str) -> None:
    """Break the outbox in one known way."""
    if bug == "drop-newest":
        setattr(Outbox, "put_transition", _put_unless_full)  # noqa: B010 - a method is not assigned to
    else:
        assert bug in ("none", "unbounded"), f"no such bug: {bug}"


_put_transition = Outbox.put_transition


def _put_unless_full(outbox: Outbox, parts: Sequence[bytes]) -> None:
    """Forget a transition for which there is no room."""
    if outbox._transitions < UNSENT_MAX:
        _put_transition(outbox, parts)


if __name__ == "__main__":
    trace_to_stderr(level="critical")  # its stdout is read
    trio.run(main, sys.argv[1], sys.argv[2])
