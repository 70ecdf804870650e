"""
The engine for a trio program: open a directory, call functions, follow queries.

    async with Engine.open("data", app="backend") as engine:
        await engine.mutation(send, channel=channel, body="hello")
        async with engine.subscribe(list_page, channel, options) as results:
            async for page in results: ...

`engine.aio` and `engine.blocking` are the same for asyncio and for threads.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

import trio

from engine.app.registry import Application
from engine.functions.context import call_target
from engine.functions.loader import load
from engine.functions.results import Caller, Failure, QueryResult
from engine.functions.watchdog import Watchdog
from engine.kernel.runtime import Runtime, SystemRuntime
from engine.kernel.trace import tracer
from engine.model.identity import Identity
from engine.model.limits import Limits
from engine.model.values import normalize
from engine.node import Node, running_node
from engine.store.interface import Store
from engine.store.lmdb_store import LmdbStore
from engine.store.memory_store import MemoryStore

trace = tracer(__name__)

MEMORY: Final = ":memory:"
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon a thread that finished its I/O gets the interpreter back from the trio thread."""

AppSource: TypeAlias = str | Path | ModuleType | Sequence[Any] | Application


@dataclass(frozen=True, slots=True)
class Committed:
    """What a mutation returned, and the timestamp of its commit in nanoseconds."""

    value: Any
    ts: int


@dataclass(frozen=True, slots=True)
class Ok:
    """A result of a subscription, and the timestamp at which it holds."""

    value: Any
    ts: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A run of a subscribed query that failed; the next one may not."""

    error: BaseException
    ts: int


class Engine:
    """One running engine. Made by `Engine.open`."""

    def __init__(self, node: Node, *, request_prefix: str = "engine") -> None:
        self.node = node
        self._requests = 0
        self._request_prefix = request_prefix

    @staticmethod
    @asynccontextmanager
    async def open(
        data: str | Path,
        /,
        *,
        app: AppSource,
        limits: Limits | None = None,
        runtime: Runtime | None = None,
        switch_interval_s: float | None = SWITCH_INTERVAL_S,
    ) -> AsyncIterator[Engine]:
        """
        Open the database in the directory `data` and deploy `app` on it.

        Args:
            data: a directory, made if it is not there, or ":memory:".
            app: a folder, a `.py` file, a module or its dotted name, or a list of functions.
            switch_interval_s: the interpreter's, process-wide; `None` leaves it alone.

        Raises:
            StoreLocked: another process has it open.
            StoreDamaged: it is not what an engine wrote, or is of a newer format.
            DeclarationError: the application cannot be loaded.
            PushRefused: the documents that are there do not fit its schema.
        """
        limits = limits or Limits()
        if switch_interval_s is not None:
            sys.setswitchinterval(switch_interval_s)
        application = await load_application(app)
        store = open_store(data, limits)
        watchdog = Watchdog(limits)
        watchdog.start()
        try:
            async with running_node(
                store, runtime=runtime or SystemRuntime(), limits=limits, watchdog=watchdog
            ) as node:
                await node.push(application)
                yield Engine(node)
        finally:
            watchdog.close()
            store.close()

    @property
    def now_ts(self) -> int:
        """The newest timestamp that queries read, in nanoseconds."""
        return self.node.published.value

    async def query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a query at the newest timestamp; internal ones too.

        Raises:
            What the function raised, with a note that names it.
        """
        component, path, raw = call_target(fn, args, kwargs, "")
        caller = self._caller()
        result = await self.node.functions.query(
            path, normalize(dict(raw)), caller=caller, component=component
        )
        result.live.release()
        return self._value(result.value, result.failure, path, caller)

    async def mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation; what it wrote is durable when this returns."""
        return (await self.commit(fn, *args, **kwargs)).value

    async def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed:
        """As `mutation`, and tell the timestamp of its commit."""
        component, path, raw = call_target(fn, args, kwargs, "")
        caller = self._caller()
        result = await self.node.functions.mutation(
            path, normalize(dict(raw)), caller=caller, component=component
        )
        value = self._value(result.value, result.failure, path, caller)
        assert result.ts is not None, "a mutation that succeeded has a timestamp"
        return Committed(value, result.ts)

    async def action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action, once."""
        component, path, raw = call_target(fn, args, kwargs, "")
        caller = self._caller()
        result = await self.node.functions.action(
            path, normalize(dict(raw)), caller=caller, component=component
        )
        return self._value(result.value, result.failure, path, caller)

    def subscribe(
        self, fn: Any, /, *args: Any, **kwargs: Any
    ) -> AbstractAsyncContextManager[Results]:
        """
        Follow a query: `async for value in results` gives each new result.

        A result is given when it has changed; those in between may be skipped.
        """
        component, path, raw = call_target(fn, args, kwargs, "")
        return self._subscribe(component, path, normalize(dict(raw)))

    async def push(self, app: AppSource) -> list[str]:
        """Deploy another version of the application; a failed push changes nothing."""
        return await self.node.push(await load_application(app))

    @asynccontextmanager
    async def _subscribe(
        self, component: str, path: str, args: Mapping[str, Any]
    ) -> AsyncIterator[Results]:
        results = Results(self.node, component, path, args, self._caller())
        try:
            yield results
        finally:
            results.close()

    def _caller(self, identity: Identity | None = None) -> Caller:
        self._requests += 1
        request_id = f"{self._request_prefix}-{self._requests}"
        return Caller(identity=identity, admin=True, request_id=request_id)

    @staticmethod
    def _value(value: Any, failure: Failure | None, path: str, caller: Caller) -> Any:
        if failure is None:
            return value
        failure.error.add_note(f"in {path}, request {caller.request_id}")
        raise failure.error


class Results:
    """The results of a subscribed query, as they change."""

    def __init__(
        self, node: Node, component: str, path: str, args: Mapping[str, Any], caller: Caller
    ) -> None:
        self._node = node
        self._component = component
        self._path = path
        self._args = args
        self._caller = caller
        self._shown: QueryResult | None = None
        self._journal: str | None = None
        self._touched = trio.Event()

    def __aiter__(self) -> Results:
        return self

    async def __anext__(self) -> Any:
        result = await self._next()
        return Engine._value(result.value, result.failure, self._path, self._caller)

    async def states(self) -> AsyncIterator[Ok | Failed]:
        """Each new result or failure with its timestamp; a failure does not end it."""
        while True:
            result = await self._next()
            if result.failure is None:
                yield Ok(result.value, result.ts)
            else:
                yield Failed(result.failure.error, result.ts)

    def close(self) -> None:
        if self._shown is not None:
            self._shown.live.release()
            self._shown = None

    async def _next(self) -> QueryResult:
        while True:
            before = self._shown
            if before is not None:
                await self._wait_touched(before)
            result = await self._node.functions.query(
                self._path,
                self._args,
                caller=self._caller,
                component=self._component,
                journal=self._journal,
            )
            self._shown, self._journal = result, result.journal
            if before is None or before.digest != result.digest:
                if before is not None:
                    before.live.release()
                return result
            before.live.release()

    async def _wait_touched(self, shown: QueryResult) -> None:
        touched = trio.Event()
        unwatch = shown.live.watch(touched.set)
        try:
            await touched.wait()
        finally:
            unwatch()


async def load_application(app: AppSource) -> Application:
    """Load an application in a thread; its modules may take a while to import."""
    if isinstance(app, Application):
        return app
    return await trio.to_thread.run_sync(load, app)


def open_store(data: str | Path, limits: Limits) -> Store:
    """The store in a directory, or one in memory."""
    if data == MEMORY:
        return MemoryStore()
    return LmdbStore.open(Path(data), data_bytes_max=limits.data_bytes_max)
