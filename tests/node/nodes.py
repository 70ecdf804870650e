"""A whole node in memory on a virtual clock, to be called by function object."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from engine.app.registry import Application
from engine.functions.loader import load
from engine.functions.results import Caller, MutationResult
from engine.functions.targets import call_target
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.store.memory_store import MemoryStore

ADMIN = Caller(admin=True)


def application(*declared: Any) -> Application:
    """An application of these functions, and of a schema, crons and so on among them."""
    return load(declared)


@asynccontextmanager
async def serving(
    app: Application | Sequence[Any] | None,
    *,
    store: MemoryStore | None = None,
    runtime: VirtualRuntime | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Node]:
    """A node with `app` deployed, unless it is `None`; a `store` that is given outlives it."""
    limits = limits or Limits()
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        async with running_node(
            store or MemoryStore(),
            runtime=runtime or VirtualRuntime(),
            limits=limits,
            watchdog=watchdog,
        ) as node:
            if app is not None:
                await node.push(app if isinstance(app, Application) else application(*app))
            yield node
    finally:
        watchdog.close()


async def mutate(node: Node, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a mutation; raise what it raised."""
    component, path, raw = call_target(fn, args, kwargs, "")
    result: MutationResult = await node.functions.mutation(
        path, raw, caller=ADMIN, component=component
    )
    if result.failure is not None:
        raise result.failure.error
    return result.value


async def ask(node: Node, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a query; raise what it raised."""
    component, path, raw = call_target(fn, args, kwargs, "")
    result = await node.functions.query(path, raw, caller=ADMIN, component=component)
    result.live.release()
    if result.failure is not None:
        raise result.failure.error
    return result.value


async def ask_at(node: Node, ts: int, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a query as of `ts`; raise what it raised."""
    component, path, raw = call_target(fn, args, kwargs, "")
    result = await node.functions.query_at(path, raw, caller=ADMIN, ts=ts, component=component)
    if result.failure is not None:
        raise result.failure.error
    return result.value
