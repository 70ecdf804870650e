"""
The engine for an asyncio program: the same methods as under trio.

    async with aio.open("data", app="backend") as engine:
        await engine.mutation(send, channel=channel, body="hello")
        web.mount("/convex", engine.asgi)          # FastAPI, Starlette: under uvicorn

    engine = await aio.open(":memory:", app=[send, list_page])     # in a notebook
    ...
    await engine.close()

The engine runs on trio in a thread of its own, not in guest mode on the host's
loop.  There, every request handler that computes, and every library that
blocks for a moment, would hold up commits and all clients, and a long function
would hold up the host; here each has a loop of its own, and a call costs two
switches between threads.

A task that is cancelled while it waits for a call cancels the call, and goes
on when that has ended.  A mutation that was cancelled may have been committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    MutableMapping,
)
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

from engine import host, remote
from engine.errors import OutcomeUnknown, Stopped, UsageError
from engine.functions.loader import Loadable
from engine.host import AppSource
from engine.interface import Answer, AsyncInterface, Callee, Results, State, Target
from engine.kernel.asyncio_loop import run_on_asyncio
from engine.kernel.errands import Errands, WhenDrained
from engine.kernel.trace import tracer
from engine.model.limits import Limits
from engine.server.listener import ListenConfig
from engine.server.requests import error_response
from engine.server.server import Server, ServerConfig
from engine.trio_thread import Feed, Held, TrioThread

__all__ = ["Engine", "Opening", "RemoteEngine", "connect", "open"]

trace = tracer(__name__)

T = TypeVar("T")
E = TypeVar("E", bound="_Threaded")

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]


def open(  # noqa: A001 - as in `aio.open`
    data: str | Path,
    /,
    *,
    app: AppSource | None,
    url: str | None = None,
    server: ServerConfig | None = None,
    limits: Limits | None = None,
) -> Opening[Engine]:
    """
    Open the database in the directory `data` and deploy `app` on it.

    To be used in `async with`, or awaited and closed by `Engine.close`.

    Args:
        data: a directory, made if it is not there, or ":memory:".
        app: a folder, a `.py` file, a module or its dotted name, or a list of functions.
            `None` deploys nothing: there are no functions until `push`.
        url: where clients reach `asgi`, if they do; told to whom the directory is refused.
        server: how `asgi` answers: the administrator's key, what clients may know.

    Raises:
        StoreLocked: another process has it open; names its pid and URL.
        StoreDamaged: it is not what an engine wrote, or is of a newer format.
        DeclarationError: the application cannot be loaded.
        PushRefused: the documents that are there do not fit its schema.
    """
    opening = partial(host.Engine.open, data, app=app, url=url, server=server, limits=limits)
    return Opening(TrioThread(opening), Engine)


def connect(
    url: str, /, *, admin_key: str | None = None, app: Loadable | None = None
) -> Opening[RemoteEngine]:
    """
    Call an engine that runs elsewhere; see `engine.Engine.connect`.

    Raises:
        Unreachable: nobody answers there, or not an engine.
        Unauthenticated: the key is not the right one.
        DeclarationError: `app` cannot be loaded.
    """
    opening = partial(remote.connect, url, admin_key=admin_key, app=app)
    return Opening(TrioThread(opening), RemoteEngine)


class Opening(AbstractAsyncContextManager[E], Generic[E]):
    """An engine that is about to be opened: for `async with`, or to be awaited."""

    def __init__(self, thread: TrioThread[Any], make: Callable[[TrioThread[Any]], E]) -> None:
        self._thread = thread
        self._make = make
        self._engine: E | None = None

    def __await__(self) -> Generator[Any, Any, E]:
        return self._open().__await__()

    async def __aenter__(self) -> E:
        return await self._open()

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        assert self._engine is not None, "it was entered"
        await self._engine.close()

    async def _open(self) -> E:
        if self._engine is not None:
            raise UsageError("this was opened before; call aio.open or aio.connect again")
        self._thread.start()
        try:
            await _settled(self._thread.opened, give_up=self._thread.stop)
        except asyncio.CancelledError:
            self._thread.stop()
            await _settled(self._thread.ended)
            raise
        self._engine = self._make(self._thread)
        return self._engine


class _Threaded(AsyncInterface):
    """An engine on a trio thread, for the asyncio loop that opened it."""

    def __init__(self, thread: TrioThread[Any]) -> None:
        engine, self._errands = thread.opened.result()
        super().__init__(AsyncioCallee(engine.callee, self._errands))
        self._thread = thread

    async def close(self) -> None:
        """
        Close it: calls that are under way finish, subscriptions end, and nothing new is taken.

        Raises:
            Exception: what had made the engine fail while it ran, if anything had.
        """
        self._thread.stop()
        await _settled(self._thread.ended)
        self._thread.ended.result()


class Engine(_Threaded):
    """One running engine. Made by `aio.open`."""

    def __init__(self, thread: TrioThread[host.Engine]) -> None:
        super().__init__(thread)
        self._engine, _ = thread.opened.result()

    @property
    def asgi(self) -> Asgi:
        """
        The engine's own server, as an ASGI application for a host that runs asyncio.

        It may be mounted at a prefix.  The JavaScript client keeps the prefix of its URL; the
        Python, Swift and Kotlin clients drop it and need the engine at the root.
        """
        return Asgi(self._engine.asgi, self._errands)

    @asynccontextmanager
    async def listen(self, config: ListenConfig | None = None) -> AsyncIterator[tuple[str, ...]]:
        """
        As `engine.Engine.listen`: serve clients inside the block, which is given the URLs.

        For a program or a notebook that has no server of its own to mount `asgi` in.

        Raises:
            OSError: an address cannot be had.
        """
        holding = Held(self._errands, partial(self._engine.listen, config))
        try:
            await _settled(holding.entered, give_up=holding.cancel)
            yield holding.entered.result()
        except BaseException:
            holding.cancel()
            raise
        finally:
            holding.leave()
            await _settled(holding.ended)

    async def push(self, app: AppSource, /) -> list[str]:
        """As `engine.Engine.push`."""
        return await self._errands.run_from_asyncio(partial(self._engine.push, app))


class RemoteEngine(_Threaded):
    """An engine that runs elsewhere. Made by `aio.connect`."""


class AsyncioCallee:
    """Takes calls from an asyncio loop to the engine on its trio thread."""

    def __init__(self, callee: Callee, errands: Errands) -> None:
        self._callee = callee
        self._errands = errands

    @property
    def now_ts(self) -> int:
        return self._callee.now_ts

    def refuse_if_forked(self) -> None:
        self._callee.refuse_if_forked()

    async def query(self, target: Target, ts: int | None) -> Answer:
        return await self._run(partial(self._callee.query, target, ts))

    async def mutation(self, target: Target) -> Answer:
        return await self._run(partial(self._callee.mutation, target))

    async def action(self, target: Target) -> Answer:
        return await self._run(partial(self._callee.action, target))

    async def follow(self, target: Target) -> AsyncioResults:
        results = await self._run(partial(self._callee.follow, target))
        return AsyncioResults(results, self._errands)

    async def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        self.refuse_if_forked()
        return await self._errands.run_from_asyncio(work)


class AsyncioResults(Results[Any]):
    """The results of a subscribed query, for an asyncio loop."""

    def __init__(self, results: Results[Any], errands: Errands) -> None:
        self._feed = Feed(results, errands)
        self._errands = errands

    async def next_state(self) -> State[Any]:
        try:
            await self._errands.run_from_asyncio(self._feed.wait, WhenDrained.CANCEL)
        except OutcomeUnknown:
            raise Stopped("the engine was closed") from None
        return self._feed.take()

    def close(self) -> None:
        self._feed.close()


class Asgi:
    """
    An ASGI application on trio, as one for a host that runs asyncio.

    Each connection is a task of trio; what it receives and sends goes through
    the host's `receive` and `send` on the host's loop.
    """

    def __init__(self, server: Server, errands: Errands) -> None:
        self._server = server
        self._errands = errands

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(scope, receive, send)
        work = partial(self._server, dict(scope), connection.receive, connection.send)
        try:
            await self._errands.run_from_asyncio(work, WhenDrained.GO_ON)
        except Stopped as error:
            for event in _refusal(scope, error):
                await send(event)
        except OutcomeUnknown:
            trace.warning("asgi.cut_off", path=scope.get("path"))
        finally:
            connection.is_over = True


def _refusal(scope: Scope, error: Stopped) -> Iterator[Event]:
    """What a client is told that comes when the engine has been closed."""
    if scope["type"] == "websocket":
        yield {"type": "websocket.close", "code": 1013}
    elif scope["type"] == "http":
        response = error_response(503, error.code, str(error))
        headers = [(b"content-type", response.content_type.encode())]
        yield {"type": "http.response.start", "status": response.status, "headers": headers}
        yield {"type": "http.response.body", "body": response.body}


class _Connection:
    """
    The two functions of a connection, to be called on trio.

    A host that is done with a connection, or with itself, looks like a client that has left.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._kind = "websocket" if scope["type"] == "websocket" else "http"
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self.is_over = False

    async def receive(self) -> dict[str, Any]:
        """The next event; that the client has left, if it has or the host says nothing more."""
        if not self.is_over:
            try:
                return await run_on_asyncio(self._loop, self._received)
            except Exception as error:
                trace.debug("asgi.unreceived", error=repr(error))
        return {"type": f"{self._kind}.disconnect", "code": 1006}

    async def send(self, event: Event) -> None:
        """
        Raises:
            ConnectionError: the client, or the host, is gone.
        """
        if self.is_over:
            raise ConnectionAbortedError("the host has ended this connection")
        try:
            await run_on_asyncio(self._loop, partial(self._sent, event))
        except Exception as error:
            raise ConnectionAbortedError(f"the host did not send it: {error!r}") from error

    async def _received(self) -> dict[str, Any]:
        return dict(await self._receive())

    async def _sent(self, event: Event) -> None:
        await self._send(event)


async def _settled(future: Future[Any], *, give_up: Callable[[], None] | None = None) -> None:
    """
    Wait for another thread's future, whatever it comes to.

    Args:
        give_up: called when the waiting is cancelled; what follows is waited for as well, and
            then the cancellation goes on.
    """
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[None] = loop.create_future()

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settled.set_result, None)

    future.add_done_callback(tell)
    cancelled: asyncio.CancelledError | None = None
    while not settled.done():
        try:
            await asyncio.wait([settled])
        except asyncio.CancelledError as error:
            cancelled = error
            if give_up is not None:
                give_up()
    if cancelled is not None:
        raise cancelled
