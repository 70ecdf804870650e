"""An application with pools, whose functions do what their arguments say and keep a ledger."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import trio

from components.workpool import NonRetryable, Result, Workpool, component
from engine import (
    ActionCtx,
    App,
    MutationCtx,
    QueryCtx,
    Retry,
    action,
    internal_action,
    internal_mutation,
    internal_query,
    mutation,
    query,
)
from engine.functions.loader import load

LARGE = 600_000
"""More bytes than the row of a job keeps of what it returned."""
RETRY = Retry(initial_backoff=250.5, base=1.5, max_attempts=3)

app = App()
mount = app.use(component, name="pool")
pool = Workpool(mount, max_parallelism=3, default_retry=RETRY)
other = Workpool(app.use(component, name="other"), max_parallelism=1)


@dataclass
class Attempt:
    """One run of an action, by the clock in milliseconds; one that a crash ended has no end."""

    begun: float
    ended: float | None = None


@dataclass
class Ledger:
    """What actions did in the world, where nothing is rolled back."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    succeeded: set[str] = field(default_factory=set)
    running: set[str] = field(default_factory=set)
    most: int = 0


ledger = Ledger()


def new_ledger(*, keeps: bool) -> None:
    """Begin another; of what ran at a crash nothing more is heard."""
    global ledger
    ledger = Ledger(deepcopy(ledger.attempts), set(ledger.succeeded)) if keeps else Ledger()


@internal_action
async def act(ctx: ActionCtx, label: str, ms: float, fails: int, final: bool) -> str:
    mine, this = ledger, Attempt(ctx.now_ms)
    attempts = mine.attempts.setdefault(label, [])
    attempts.append(this)
    number = len(attempts)
    mine.running.add(label)
    mine.most = max(mine.most, len(mine.running))
    try:
        await trio.sleep(ms / 1000)
    finally:
        mine.running.discard(label)
    this.ended = ctx.now_ms
    if number <= fails:
        raise NonRetryable("for good") if final else ValueError(f"attempt {number}")
    mine.succeeded.add(label)
    return f"{label} is done" + "!" * LARGE * (label == "large")


@internal_mutation
async def write(ctx: MutationCtx, label: str, ms: float, fails: int, final: bool) -> str:
    await ctx.db.insert("written", {"label": label})
    if fails:
        raise NonRetryable("for good") if final else ValueError("attempt 1")
    return f"{label} is done"


@internal_query
async def look(ctx: QueryCtx, label: str, ms: float, fails: int, final: bool) -> str:
    if fails:
        raise ValueError("attempt 1")
    return f"{label} is done"


@internal_mutation
async def done(ctx: MutationCtx, work_id: str, context: str, result: Result) -> None:
    await ctx.db.insert("told", {"work": work_id, "label": context, "result": result})


@internal_mutation
async def refuse(ctx: MutationCtx, work_id: str, context: Any, result: Any) -> None:
    raise LookupError("this callback has a bug")


FUNCTIONS = {"action": act, "mutation": write, "query": look}
POOLS = {"pool": pool, "other": other}


@mutation
async def enqueue(
    ctx: MutationCtx, kind: str, args: list[Any], options: dict[str, Any], where: str = "pool"
) -> list[str]:
    """One batch, of which everything is told."""
    this = POOLS[where]
    method = {
        "action": this.enqueue_action_batch,
        "mutation": this.enqueue_mutation_batch,
        "query": this.enqueue_query_batch,
    }[kind]
    fn: Any = FUNCTIONS[kind]
    options = {"on_complete": done, **options}
    if isinstance(options.get("retry"), dict):
        options["retry"] = Retry(**options["retry"])
    return [(await method(ctx, fn, [one], context=one["label"], **options))[0] for one in args]


@action
async def enqueue_from_outside(ctx: ActionCtx, args: list[Any], context: str) -> list[str]:
    """One batch of mutations; whoever is told of them is not interested."""
    options: dict[str, Any] = {"on_complete": refuse, "context": context}
    return await pool.enqueue_mutation_batch(ctx, write, args, **options)


@mutation
async def tell(ctx: MutationCtx, method: str, args: list[Any], more: dict[str, Any]) -> Any:
    return await getattr(pool, method)(ctx, *args, **more)


@query
async def ask(ctx: QueryCtx, method: str, args: list[Any]) -> Any:
    return await getattr(pool, method)(ctx, *args)


@query
async def rows(ctx: QueryCtx, table: str) -> list[Any]:
    return await ctx.db.query(table).collect()


FEWER: list[Any] = [app, act, write, look, refuse, enqueue, enqueue_from_outside, tell, ask, rows]
APPLICATION = load([*FEWER, done])
WITHOUT_DONE = load(FEWER)


def plan(label: str, ms: float = 0, fails: int = 0, *, final: bool = False) -> dict[str, Any]:
    """
    Arguments of a work.

    Args:
        ms: how long its action takes.
        fails: so many attempts.
        final: they say that trying again is of no use.
    """
    return {"label": label, "ms": ms, "fails": fails, "final": final}
