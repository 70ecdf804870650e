"""
A crowd of clients whose mutations run beside each other, yielding by seed at every call.

They move money between accounts and claim names, so a lost update shows in the sum and a phantom
in a name that two have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.registered import loading
from engine.app.registry import Application, functions_of
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.committer import conflicts
from engine.functions.results import Caller
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.model.reads import ReadSet
from engine.node import Node, running_node
from engine.store.memory_store import MemoryStore

ADMIN = Caller(admin=True)
ACCOUNTS = 4
BALANCE = 100

schema = Schema(
    accounts=Table(v.object({"number": v.number(), "balance": v.number()})).index(
        "by_number", ["number"]
    ),
    claims=Table(v.object({"name": v.string(), "owner": v.number()})).index("by_name", ["name"]),
)


async def _account(ctx: Any, number: float) -> Any:
    return await ctx.db.query("accounts").with_index("by_number", number=number).unique()


@mutation
async def opening(ctx: MutationCtx) -> None:
    for number in range(ACCOUNTS):
        await ctx.db.insert("accounts", {"number": number, "balance": BALANCE})


@mutation
async def transfer(ctx: MutationCtx, source: int, target: int) -> None:
    giver, taker = await _account(ctx, source), await _account(ctx, target)
    await ctx.db.patch(giver["_id"], {"balance": giver["balance"] - 1})
    await ctx.db.patch(taker["_id"], {"balance": taker["balance"] + 1})


@mutation
async def claim(ctx: MutationCtx, name: str, owner: int) -> bool:
    """Whoever finds nobody under a name takes it."""
    if await ctx.db.query("claims").with_index("by_name", name=name).first() is not None:
        return False
    await ctx.db.insert("claims", {"name": name, "owner": owner})
    return True


@query
async def state(ctx: QueryCtx) -> Any:
    accounts = await ctx.db.query("accounts").collect()
    claims = await ctx.db.query("claims").collect()
    return [sum(a["balance"] for a in accounts), [c["name"] for c in claims]]


@asynccontextmanager
async def opened(seed: int) -> AsyncIterator[Node]:
    functions: dict[str, Any] = {
        "opening": opening,
        "transfer": transfer,
        "claim": claim,
        "state": state,
    }
    with loading("t"):
        for function in functions.values():
            function.module = "t"
    application = Application(
        functions=functions_of("t", functions), schema=schema, digest="interleaved"
    )
    watchdog = Watchdog(Limits())
    watchdog.start()
    try:
        async with running_node(
            MemoryStore(),
            runtime=VirtualRuntime(seed, interleaves=True),
            limits=Limits(),
            watchdog=watchdog,
        ) as node:
            await node.push(application)
            yield node
    finally:
        watchdog.close()


async def crowd(seed: int) -> tuple[float, list[str], list[Any]]:
    """Eight clients at once; the sum of balances, the names claimed, and who got them."""
    winners: list[Any] = []

    async def client(node: Node, number: int) -> None:
        for step in range(6):
            source = (number + step) % ACCOUNTS
            pair = {"source": source, "target": (source + 1 + number % 3) % ACCOUNTS}
            await call(node, "transfer", pair)
            won = await call(node, "claim", {"name": f"name {step}", "owner": number})
            if won:
                winners.append((step, number))

    async with opened(seed) as node:
        await call(node, "opening", {})
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(client, node, number)
        result = await node.functions.query("t:state", {}, caller=ADMIN)
        result.live.release()
        total, names = result.value
    return total, names, winners


async def call(node: Node, name: str, args: dict[str, Any]) -> Any:
    result = await node.functions.mutation(f"t:{name}", args, caller=ADMIN)
    assert result.failure is None, result.failure.message
    return result.value


def is_serial(outcome: tuple[float, list[str], list[Any]]) -> bool:
    total, names, winners = outcome
    same_pairs = total == ACCOUNTS * BALANCE
    return same_pairs and len(names) == len(set(names)) == 6 and len(winners) == 6


def no_validation(_reads: ReadSet, _begin_ts: int, _commits: Any) -> None:
    """No conflict, whatever was read."""


def without_ranges(reads: ReadSet, begin_ts: int, commits: Any) -> Any:
    points = ReadSet()
    points.points = reads.points
    return conflicts.find_conflict(points, begin_ts, commits)
