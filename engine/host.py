"""
The engine for a trio program: open a directory, call functions, follow queries.

    async with Engine.open("data", app="backend") as engine:
        await engine.mutation(send, channel=channel, body="hello")
        async with engine.subscribe(list_page, channel, options) as results:
            async for page in results: ...

`engine.aio` and `engine.blocking` are the same for asyncio and for threads,
`Engine.connect` for an engine in another process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from engine.app.component import App, AuthProvider
from engine.app.registry import Application
from engine.errors import Stopped, StoreLocked, UsageError
from engine.functions.history import ExecutionLog
from engine.functions.index_upkeep import Progress
from engine.functions.loader import Loadable, load, make_live, withdraw
from engine.functions.results import Caller, Failure, QueryResult
from engine.functions.tracebacks import trimmed
from engine.functions.watchdog import Watchdog
from engine.interface import Answer, AsyncInterface, Failed, Ok, Results, State, Target
from engine.kernel.actor import running
from engine.kernel.body import plain_errors
from engine.kernel.interpreter import tuned
from engine.kernel.process import current_pid
from engine.kernel.runtime import Runtime, SystemRuntime
from engine.kernel.trace import tracer
from engine.model.limits import Limits
from engine.model.values import copied
from engine.node import Node, running_node
from engine.server.http import Readiness
from engine.server.listener import ListenConfig, Listener
from engine.server.server import Server, ServerConfig
from engine.store.interface import Store
from engine.store.lmdb_store import LmdbStore
from engine.store.memory_store import MemoryStore

if TYPE_CHECKING:
    from engine.remote import RemoteEngine

trace = tracer(__name__)

MEMORY: Final = ":memory:"
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon a thread that finished its I/O gets the interpreter back from the trio thread."""
GC_THRESHOLDS: Final = (2_500, 1, 300)
"""
Of the garbage collector's generations. What the engine makes in passing goes without a collection,
and what it keeps, caches and histories, is no garbage: with Python's own (700, 10, 10) looking for
some takes a twentieth of a mutation's time, and now and then a tenth of a second at once. What is
kept is looked at twice however many are looked at together, so these are few, for a millisecond;
the third generation, which is all of them, comes when 1,500,000 more are kept.
"""

AppSource: TypeAlias = str | Path | ModuleType | Sequence[Any] | Application


class Engine(AsyncInterface):
    """One running engine. Made by `Engine.open`."""

    def __init__(self, node: Node, server: Server, home: Home) -> None:
        super().__init__(LocalCallee(node, home))
        self.node = node
        self.server = server
        self._home = home

    @staticmethod
    @asynccontextmanager
    async def open(
        data: str | Path,
        /,
        *,
        app: AppSource | None,
        url: str | None = None,
        server: ServerConfig | None = None,
        limits: Limits | None = None,
        runtime: Runtime | None = None,
        switch_interval_s: float | None = SWITCH_INTERVAL_S,
        gc_thresholds: tuple[int, int, int] | None = GC_THRESHOLDS,
    ) -> AsyncIterator[Engine]:
        """
        Open the database in the directory `data` and deploy `app` on it.

        At the end of the block what was accepted is done, clients are sent away, and the
        directory is free for others.

        Args:
            data: a directory, made if it is not there, or ":memory:".
            app: a folder, a `.py` file, a module or its dotted name, or a list of functions.
                `None` deploys nothing: there are no functions until `push`.
            url: where clients reach `asgi`, if they do; told to whom the directory is refused.
            server: how `asgi` answers: the administrator's key, what clients may know.
            limits: what bounds functions, clients and memory, where it is not to be the default.
            switch_interval_s: the interpreter's, process-wide; `None` leaves it alone.
            gc_thresholds: the garbage collector's, process-wide; `None` leaves them alone. Both are
                what they were once the last engine is closed.

        Raises:
            StoreLocked: another process has it open; names its pid and URL.
            StoreDamaged: it is not what an engine wrote, or is of a newer format.
            DeclarationError: the application cannot be loaded.
            PushRefused: the documents that are there do not fit its schema.
            StoreFull: there is no room to deploy anything but what is deployed already.
            UsageError: this is not trio, or the limits cannot be.
        """
        _refuse_unless_trio()
        limits = limits or Limits()
        limits.check()
        application = Application(functions={}) if app is None else await _loaded(app)
        with tuned(switch_interval_s, gc_thresholds), plain_errors() as body:
            async with (
                _home(data, limits, url, application) as home,
                _node(data, home.store, limits, runtime or SystemRuntime()) as node,
            ):
                if app is not None:
                    with body:
                        await node.push(application)
                    make_live(application)
                asgi = _server(node, server or ServerConfig())
                async with running(asgi, grace_s=limits.drain_s):
                    try:
                        with body:
                            yield Engine(node, asgi, home)
                    finally:
                        home.close()

    @staticmethod
    def connect(
        url: str, /, *, admin_key: str | None = None, app: Loadable | None = None
    ) -> AbstractAsyncContextManager[RemoteEngine]:
        """
        Call an engine that runs elsewhere; the same methods, over the network.

        Args:
            url: of its server, with the prefix it is mounted at, if there is one.
            admin_key: opens internal functions and those of components.
            app: the application that runs there, if its functions are to be given as such and
                not by their paths; it is loaded here for nothing else.

        Raises:
            Unreachable: nobody answers there, or not an engine.
            Unauthenticated: the key is not the right one.
            DeclarationError: `app` cannot be loaded.
        """
        from engine.remote import connect  # an HTTP client, of no use to an engine in here

        return connect(url, admin_key=admin_key, app=app)

    @property
    def executions(self) -> ExecutionLog:
        """
        What ran last, and what each cost.

        `async for number, record in engine.executions.follow()` goes on with what comes.
        """
        return self.node.functions.executions

    @property
    def asgi(self) -> Server:
        """
        The engine's own server, as an ASGI application for a host that runs trio.

        It may be mounted at a prefix.  The JavaScript client keeps the prefix of its URL; the
        Python, Swift and Kotlin clients drop it and need the engine at the root.
        """
        return self.server

    @asynccontextmanager
    async def listen(self, config: ListenConfig | None = None) -> AsyncIterator[tuple[str, ...]]:
        """
        Serve clients at the addresses of `config` inside the block, which is given the URLs.

        At its end clients are sent away, and `asgi` refuses new ones.

        Raises:
            OSError: an address cannot be had.
        """
        limits = self.node.limits
        listener = Listener(self.server, config or ListenConfig(), limits)
        with plain_errors() as body:
            async with running(listener, grace_s=limits.drain_s):
                before = self._home.url
                self._home.set_url(listener.urls[0])
                try:
                    with body:
                        yield listener.urls
                finally:
                    self._home.set_url(before)

    async def push(self, app: AppSource, /, *, progress: Progress | None = None) -> list[str]:
        """
        Deploy another version of the application; it is durable and serves when this returns.

        Args:
            progress: told what is being done, how much of it is done, and of how much.

        Returns:
            What changed in tables and indexes, a line each.

        Raises:
            DeclarationError: it cannot be loaded. The version before serves on.
            PushRefused: the documents do not fit its schema. The version before serves on.
        """
        application = await _loaded(app)
        lines = await self.node.push(application, progress)
        make_live(application)
        self._home.application = application
        return lines

    @property
    def is_paused(self) -> bool:
        """Whether `pause` was called last, and not `resume`; also before the engine was opened."""
        return self.node.functions.is_paused

    async def pause(self) -> bool:
        """
        Refuse new calls of functions, by `Paused`, until `resume`; durable when this returns.

        What runs comes to its end.  Scheduled functions wait, pushes work, and crons skip the times
        that come meanwhile.

        Returns:
            Whether it was not paused before.

        Raises:
            UsageError: nothing was ever deployed.
        """
        return await self.node.pause()

    async def resume(self) -> bool:
        """
        Call functions again; overdue ones run, and crons at the next of their times.

        Returns:
            Whether it was paused before.
        """
        return await self.node.resume()


class Home:
    """
    The process and the directory that an engine lives in.

    A process that was forked from it has a copy of the engine that leads nowhere.
    """

    def __init__(
        self, data: str | Path, store: Store, url: str | None, application: Application
    ) -> None:
        self.store = store
        self.application = application
        self.pid = current_pid()
        self.url: str | None = None
        self.waiting: set[trio.Event] = set()
        """Of those who follow a query, to be woken when the engine is closed."""
        self._is_closed = False
        self._data = str(data)
        self.set_url(url)

    def set_url(self, url: str | None) -> None:
        """Say where clients reach the engine, to those who find the directory taken."""
        self.url = url
        if isinstance(self.store, LmdbStore):
            self.store.set_url(url)

    def close(self) -> None:
        """Refuse what is called from now on."""
        self._is_closed = True
        for waiting in self.waiting:
            waiting.set()

    def refuse_if_forked(self) -> None:
        """
        Raises:
            StoreLocked: this is another process.
        """
        if current_pid() != self.pid:
            raise StoreLocked(self._data, self.pid, self.url)

    def refuse_unless_open(self) -> None:
        """
        Raises:
            StoreLocked: this is another process.
            Stopped: the engine was closed.
        """
        if current_pid() != self.pid:
            self.refuse_if_forked()
        if self._is_closed:
            raise Stopped("the engine was closed; nothing was done")


class LocalCallee:
    """The engine in this process, called on its own trio thread."""

    def __init__(self, node: Node, home: Home) -> None:
        self._node = node
        self._functions = node.functions
        self._home = home
        self._requests = 0
        self._asked_last: trio.lowlevel.Task | None = None

    @property
    def now_ts(self) -> int:
        return self._node.published.value

    def refuse_if_forked(self) -> None:
        self._home.refuse_if_forked()

    async def query(self, target: Target, ts: int | None) -> Answer:
        caller = self._caller()
        if ts is not None:
            return await self._query_at(target, ts, caller)
        result = await self._functions.query(
            target.path, target.args, caller=caller, component=target.component
        )
        result.live.release()
        await self._let_others_run()
        if result.failure is not None:
            return Answer(error=told(result.failure, target, caller))
        return Answer(copied(result.value))

    async def _let_others_run(self) -> None:
        """
        Whoever asks in a loop lets others have their turns, as a cached result costs no wait.

        Who asks once is answered at once: those who came while it was being run come after it.
        """
        task = trio.lowlevel.current_task()
        if self._asked_last is task:
            await trio.lowlevel.checkpoint()
        else:
            self._asked_last = task
            await trio.lowlevel.checkpoint_if_cancelled()

    async def mutation(self, target: Target) -> Answer:
        caller = self._caller()
        result = await self._functions.mutation(
            target.path, target.args, caller=caller, component=target.component
        )
        if result.failure is not None:
            return Answer(error=told(result.failure, target, caller))
        assert result.ts is not None, "a mutation that succeeded has a timestamp"
        return Answer(result.value, result.ts)

    async def action(self, target: Target) -> Answer:
        caller = self._caller()
        result = await self._functions.action(
            target.path, target.args, caller=caller, component=target.component
        )
        if result.failure is not None:
            return Answer(error=told(result.failure, target, caller))
        return Answer(result.value)

    async def follow(self, target: Target) -> LocalResults:
        return LocalResults(self._node, target, self._caller(), self._home)

    def _caller(self) -> Caller:
        self._home.refuse_unless_open()
        self._requests += 1
        return Caller(None, True, f"engine-{self._requests}")

    async def _query_at(self, target: Target, ts: int, caller: Caller) -> Answer:
        result = await self._functions.query_at(
            target.path, target.args, caller=caller, ts=ts, component=target.component
        )
        if result.failure is not None:
            return Answer(error=told(result.failure, target, caller))
        return Answer(result.value)


class LocalResults(Results[Any]):
    """The results of a subscribed query of this process's engine."""

    def __init__(self, node: Node, target: Target, caller: Caller, home: Home) -> None:
        self._node = node
        self._target = target
        self._caller = caller
        self._home = home
        self._shown: QueryResult | None = None
        self._is_closed = False

    async def next_state(self) -> State[Any]:
        result = await self._next()
        if result.failure is not None:
            return Failed(told(result.failure, self._target, self._caller), result.ts)
        return Ok(copied(result.value), result.ts)

    def close(self) -> None:
        self._is_closed = True
        if self._shown is not None:
            self._shown.live.release()
            self._shown = None

    async def _next(self) -> QueryResult:
        """The next result that differs from the one that is shown, which it replaces."""
        while True:
            before = self._shown
            if before is not None:
                await self._touched(before)
            self._home.refuse_unless_open()
            result = await self._node.functions.query(
                self._target.path,
                self._target.args,
                caller=self._caller,
                component=self._target.component,
                journal=before.journal if before else None,
            )
            if self._is_closed or before is not self._shown:
                result.live.release()
                raise UsageError("results are for one task, and for as long as they are open")
            self._shown = result
            if before is not None:
                before.live.release()
            if before is None or before.digest != result.digest:
                return result

    async def _touched(self, shown: QueryResult) -> None:
        """Wait until what was read has changed, or the engine is closed."""
        touched = trio.Event()
        shown.live.watch(touched.set)
        self._home.waiting.add(touched)
        try:
            await touched.wait()
        finally:
            self._home.waiting.discard(touched)
            shown.live.unwatch(touched.set)


def told(failure: Failure, target: Target, caller: Caller) -> Exception:
    """The error that a function raised, as its caller is to see it."""
    error = failure.error
    assert isinstance(error, Exception), "what is none comes as FunctionAborted"
    where = f" of {target.component}" if target.component else ""
    note = f"in {target.path}{where}, request {caller.request_id}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return trimmed(error)


# Opening.


async def _loaded(app: AppSource) -> Application:
    """The application; whoever embeds the engine is told by a trace what is odd about it."""
    application = await load_application(app)
    if application is not app:
        for warning in application.warnings:
            trace.warning("application.doubtful", warning=warning)
    return application


async def load_application(app: AppSource) -> Application:
    """Load an application in a thread; its modules may take a while to import."""
    if isinstance(app, Application):
        return app
    try:
        return await trio.to_thread.run_sync(load, app)
    except Exception as error:
        # What is on the way from there to here says nothing of what is wrong with it.
        raise trimmed(error) from error.__cause__


def open_store(data: str | Path, limits: Limits) -> Store:
    """The store in a directory, or one in memory."""
    if data == MEMORY:
        return MemoryStore()
    return LmdbStore.open(Path(data), data_bytes_max=limits.data_bytes_max)


def _refuse_unless_trio() -> None:
    if not trio.lowlevel.in_trio_task():
        raise UsageError(
            "Engine.open is for trio; use engine.aio under asyncio, engine.blocking in threads"
        )


@asynccontextmanager
async def _home(
    data: str | Path, limits: Limits, url: str | None, application: Application
) -> AsyncIterator[Home]:
    """The open directory; at the end it is closed, and the application no longer importable."""
    home: Home | None = None
    try:
        store = await trio.to_thread.run_sync(open_store, data, limits)
        home = Home(data, store, url, application)
        try:
            yield home
        finally:
            store.close()
    finally:
        withdraw(home.application if home else application)


@asynccontextmanager
async def _node(
    data: str | Path, store: Store, limits: Limits, runtime: Runtime
) -> AsyncIterator[Node]:
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        async with running_node(
            store,
            runtime=runtime,
            limits=limits,
            watchdog=watchdog,
            data=None if data == MEMORY else Path(data),
        ) as node:
            yield node
    finally:
        watchdog.close()


def _server(node: Node, config: ServerConfig) -> Server:
    def providers() -> Sequence[AuthProvider]:
        app = node.functions.deployment.application.app
        return app.auth if isinstance(app, App) else ()

    server = Server(
        node.functions,
        runtime=node.runtime,
        limits=node.limits,
        config=config,
        providers=providers,
        readiness=partial(readiness, node),
        application=lambda: node.functions.deployment.application,
    )
    node.counters.watch("sessions", lambda: {(): server.statistics().sessions})
    return server


async def readiness(node: Node) -> Readiness:
    """Whether a mutation could be committed now, and if not, why."""
    obstacle = node.store.obstacle() or await node.functions.turns.obstacle()
    said: dict[str, object] = {"reason": obstacle} if obstacle else {}
    if node.functions.is_paused:
        said["paused"] = True
    return Readiness(is_ready=obstacle is None, progress=said)
