"""
Server: clients' sessions and HTTP requests, as one ASGI application and one actor.

    async with running(server, grace_s=10):      # keeps what outlives a connection
        await serve(server, ListenConfig())      # or mount `server` under another framework

It needs nothing of its host but ASGI's `receive` and `send` under trio, and takes
`root_path` for the prefix that it is mounted at.  To stop, it refuses what is new,
lets what runs be answered, and then tells clients to come back later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from math import inf
from typing import Any, Final, TypeVar

import trio

from engine.app.component import AuthProvider
from engine.app.registry import Application
from engine.errors import Stopped
from engine.kernel.reply import Reply
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.limits import Limits
from engine.server.backend import Backend
from engine.server.description import Description
from engine.server.fanout import Fanout
from engine.server.function_api import FunctionApi
from engine.server.http import ALIVE, AskReadiness, HttpApi, Operations, Page, Readiness
from engine.server.identity import Verifier
from engine.server.outbox import Send
from engine.server.parts import takes_parts
from engine.server.requests import Receive, Request, Response, Route, path_of
from engine.server.session import Session
from engine.server.spelling import Spelling

trace = tracer(__name__)

T = TypeVar("T")

DISCONNECT_S_MAX = 30.0
"""For a client to close its side, once we have closed ours."""

REFUSED_S_MAX: Final = 1.0
"""For the body of a request that nobody is going to look at."""

TICK_S: Final = 1.0
"""How often sessions look at the clock, for silence and for clients that are stuck."""

TICKED_AT_ONCE: Final = 512
"""Of them: half a millisecond."""

OPERATORS_PREFIX: Final = "/api/headrace/"
"""What the command line asks; also answered while there is nothing to serve yet."""

SHORTCUT: Final = "headrace.shortcut"
"""The extension of a scope with the `shortcut.Shortcut` of a host that has one."""

_DISCONNECTS: Final = ("websocket.disconnect", "http.disconnect")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """
    Args:
        redact: production: clients learn that a function failed, and its request id.
        admin_key: ``NAME|SECRET``; `None` lets nobody be administrator.
        instance_name: what ``/instance_name`` says.
    """

    redact: bool = False
    admin_key: str | None = field(default=None, repr=False)
    instance_name: str = "headrace"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    sessions: int


async def _always_ready() -> Readiness:
    return Readiness(is_ready=True)


def _no_providers() -> Sequence[AuthProvider]:
    return ()


def _no_application() -> Application:
    return Application(functions={})


class Server:
    """
    Args:
        providers: the application's identity providers, asked anew for each token.
        readiness: whether a mutation could be committed now.
        application: what is deployed now, for the description.
        page: what developers see at ``/``.
        routes: more of the HTTP API; they come before the built-in ones.
    """

    name = "server"

    def __init__(
        self,
        backend: Backend,
        *,
        runtime: Runtime,
        limits: Limits,
        config: ServerConfig,
        providers: Callable[[], Sequence[AuthProvider]] = _no_providers,
        readiness: AskReadiness = _always_ready,
        application: Callable[[], Application] = _no_application,
        page: Page | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        self._backend = backend
        self._application = application
        self._runtime = runtime
        self._limits = limits
        self._spelling = Spelling(redact=config.redact)
        self.verifier = Verifier(providers, runtime=runtime, admin_key=config.admin_key)
        functions = FunctionApi(
            backend,
            self.verifier,
            self._spelling,
            limits=limits,
            runtime=runtime,
            detach=self._detach,
        )
        self._functions = functions
        self._config = config
        self._http = self._http_api(readiness, page, routes)
        self.is_holding = False
        """While set, clients are sent away to come back later, and operators are answered."""
        self._fanout = Fanout(backend, runtime, limits)
        self._home: trio.Nursery | None = None
        self._sessions: dict[Session, None] = {}
        """In the order in which they came."""
        self._responding = 0
        self._is_draining = False
        self._left = trio.lowlevel.ParkingLot()
        self._closed = trio.Event()

    def install(
        self,
        *,
        readiness: AskReadiness = _always_ready,
        page: Page | None = None,
        routes: Sequence[Route] = (),
    ) -> None:
        """Answer readiness, page and more of the HTTP API with these; before there are clients."""
        self._http = self._http_api(readiness, page, routes)

    def _http_api(
        self, readiness: AskReadiness, page: Page | None, routes: Sequence[Route]
    ) -> HttpApi:
        operations = Operations(
            instance_name=self._config.instance_name,
            version=installed_version(),
            readiness=readiness,
            page=page,
        )
        all_routes = [*routes, *self._functions.routes(), *operations.routes()]
        description = Description(
            self.verifier,
            self._application,
            all_routes,
            title=self._config.instance_name,
            version=installed_version(),
        )
        all_routes.append(description.route())
        return HttpApi(self.verifier, all_routes, limits=self._limits, runtime=self._runtime)

    # The actor.

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep what outlives connections; return when it is done after `close`."""
        async with trio.open_nursery() as self._home, trio.open_nursery() as background:
            background.start_soon(self._fanout.run)
            background.start_soon(self._tick)
            task_status.started()
            try:
                await self._closed.wait()
                while self._sessions:
                    await self._left.park()
            finally:
                self._home = None
                for session in list(self._sessions):  # whom nobody serves any more
                    session.abandon()
            background.cancel_scope.cancel()

    async def _tick(self) -> None:
        """Let every session look at the clock, some of them at a time."""
        pace_s = min(TICK_S, self._limits.ping_s / 4)
        while True:
            await self._runtime.sleep(pace_s)
            for count, session in enumerate(list(self._sessions), start=1):
                session.tick(trio.current_time())
                if count % TICKED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    @property
    def is_idle(self) -> bool:
        """Whether nobody is being answered."""
        return not self._responding and not self._sessions

    async def wait_idle(self) -> None:
        """Wait until nobody is being answered."""
        while not self.is_idle:
            await self._left.park()

    def drain(self) -> None:
        """Refuse what is new; answer what runs, and send clients away."""
        self._is_draining = True
        for session in list(self._sessions):
            session.close()

    def close(self) -> None:
        self.drain()
        self._closed.set()

    def statistics(self) -> ServerStatistics:
        return ServerStatistics(sessions=len(self._sessions))

    # The ASGI application.

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                self._responding += 1
                try:
                    body_s_max = self._limits.http_body_s_max
                    request = Request.of_asgi(scope, receive, body_s_max=body_s_max)
                    await self._respond(request, send)
                finally:
                    self._responding -= 1
                    self._left.unpark_all()
            case "websocket":
                await self._converse(scope, receive, send)
            case "lifespan":
                await _lifespan(receive, send)

    async def _respond(self, request: Request, send: Send) -> None:
        if (reason := self._reason_to_refuse(request)) is not None:
            response = self._http.refuse(request, Stopped(reason))
            patience_s = REFUSED_S_MAX
        else:
            response = await self._http.handle(request)
            patience_s = inf
        # What is left of the body has to go somewhere for the host to come to its end.
        if not request.incoming.is_over:
            with trio.move_on_after(patience_s):
                await request.skip(self._limits.http_body_bytes_max)
        if not request.incoming.is_over and self._home is not None and not self._closed.is_set():
            self._home.start_soon(_read_to_end, request.incoming.next)
        if self._is_draining and request.can_close:
            # A client that keeps its connection busy would otherwise be waited for.
            response = replace(response, headers=(*response.headers, ("connection", "close")))
        await _send_response(response, send)

    def _reason_to_refuse(self, request: Request) -> str | None:
        if self._home is None or (self._is_draining and request.path != ALIVE):
            return "The server is not running"
        if self.is_holding and _is_of_clients(request.path):
            return "The first push is not done yet; /readyz says"
        return None

    async def _converse(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        path = path_of(scope)
        if not is_sync_path(path):
            await send({"type": "websocket.close", "code": 1000})
            return
        if self._home is None or not self._has_room():
            trace.warning("server.session_refused", sessions=len(self._sessions))
            await send({"type": "websocket.close", "code": 1013})
            return
        await send({"type": "websocket.accept"})
        session = Session(
            self._backend,
            self.verifier,
            self._spelling,
            limits=self._limits,
            runtime=self._runtime,
            home=self._home,
            fanout=self._fanout,
            takes_parts=takes_parts(path),
            shortcut=scope.get("extensions", {}).get(SHORTCUT),
        )
        self._sessions[session] = None
        try:
            await session.run(receive, send)
            if self._home is not None and not session.is_client_gone:
                self._home.start_soon(_read_to_end, receive)
        finally:
            self._sessions.pop(session, None)
            self._left.unpark_all()

    def _has_room(self) -> bool:
        is_closed = self._is_draining or self.is_holding
        return not is_closed and len(self._sessions) < self._limits.sessions_max

    async def _detach(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` to its end even if whoever awaits this is cancelled."""
        reply: Reply[T] = Reply()

        async def run() -> None:
            try:
                value = await work()
            except Exception as error:
                reply.fail(error)
            except BaseException:
                reply.fail(Stopped("the server stopped while this ran"))
                raise
            else:
                reply.set(value)

        if self._home is None:
            raise Stopped("the server is not running")
        self._home.start_soon(run)
        return await reply.wait()


def is_sync_path(path: str) -> bool:
    """Whether the sync protocol is spoken at `path`: with the client's version in it or without."""
    parts = path.strip("/").split("/")
    return parts[0] == "api" and parts[-1] == "sync" and len(parts) in (2, 3)


def _is_of_clients(path: str) -> bool:
    return path.startswith("/api/") and not path.startswith(OPERATORS_PREFIX)


def installed_version() -> str:
    try:
        return version("headrace")
    except PackageNotFoundError:
        return "0.0.0"


async def _read_to_end(receive: Receive) -> None:
    """Take what a client still sends until it is gone, so that its connection can end."""
    with trio.move_on_after(DISCONNECT_S_MAX):
        try:
            while (await receive())["type"] not in _DISCONNECTS:
                pass
        except Exception as error:
            trace.info("server.connection_lost", error=repr(error))


async def _send_response(response: Response, send: Send) -> None:
    body = response.body
    headers = [("content-type", response.content_type), *response.headers]
    if isinstance(body, bytes):
        headers.append(("content-length", str(len(body))))
    await send(
        {
            "type": "http.response.start",
            "status": response.status,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
        }
    )
    if isinstance(body, bytes):
        await send({"type": "http.response.body", "body": body})
        return
    async with aclosing(body) as parts:
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Tell a host that we start and stop with somebody else."""
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return
