"""
Listener: a server's ports, with hypercorn speaking HTTP and WebSocket on them.

    async with running(server, grace_s=10), running(listener, grace_s=15):
        print(listener.urls)

A connection that fails takes nothing else down.  One whose client neither reads
nor acknowledges is dropped by the kernel after `inactivity_s_max`, one that is
silent for as long by us (`watched`); what is left when the listener has drained is
cut off.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import hypercorn.protocol
import trio
from hypercorn.config import Config
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import repr_socket_addr

from engine.kernel.actor import running
from engine.kernel.trace import traceback_of, tracer
from engine.model.limits import Limits
from engine.server.connection import Connection
from engine.server.peer import StrictHandshake
from engine.server.server import SHORTCUT, Server

trace = tracer(__name__)

IDLE_S_MAX: Final = 75.0
"""A connection without a request is closed; longer than browsers and proxies keep one."""
GOODBYE_S: Final = 0.5
"""For clients to read what they were sent last, and to close."""
TICK_S: Final = 5.0
"""How often connections look at the clock."""
QUEUE_LENGTH: Final = 2
"""Messages of one client that nobody has looked at yet; each may be of `message_bytes_max`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """
    Args:
        bind: ``HOST:PORT`` (port 0 is any free one), ``unix:PATH`` or ``fd://N``.
        certfile: PEM, with `keyfile` for TLS and HTTP/2.
        root_path: the prefix that a proxy in front leaves in place.
    """

    bind: tuple[str, ...] = ("127.0.0.1:3210",)
    certfile: str | None = None
    keyfile: str | None = None
    keyfile_password: str | None = None
    root_path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerStatistics:
    connections: int


class Listener:
    """
    Args:
        server: told to drain when this is closed.
    """

    name = "listener"

    def __init__(self, server: Server, config: ListenConfig, limits: Limits) -> None:
        self.urls: tuple[str, ...] = ()
        """Where it listens, once it runs."""
        self._server = server
        self._config = _hypercorn_config(config, limits)
        self._limits = limits
        self._context = WorkerContext(None)
        self._connections: dict[trio.abc.Stream, Connection] = {}
        self._closed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """
        Listen until closed, then wait for connections to end, `drain_s` at most.

        Raises:
            OSError: an address cannot be had.
        """
        listeners = self._listen()
        async with trio.open_nursery() as cutting:
            async with trio.open_nursery() as connections:
                with trio.CancelScope() as accepting:
                    cutting.start_soon(self._cut_off, accepting, connections.cancel_scope)
                    cutting.start_soon(self._tick, cutting)
                    task_status.started()
                    await trio.serve_listeners(self._serve, listeners, handler_nursery=connections)
                await self._context.terminated.set()
            cutting.cancel_scope.cancel()

    def statistics(self) -> ListenerStatistics:
        return ListenerStatistics(connections=len(self._connections))

    def close(self) -> None:
        """Accept nothing more, and let the server say goodbye to those who are here."""
        self._server.drain()
        self._closed.set()

    def _listen(self) -> list[trio.abc.Listener[Any]]:
        try:
            sockets = self._config.create_sockets()
        except OSError as error:
            where = ", ".join(self._config.bind)
            raise OSError(error.errno, f"{error.strerror or error} ({where})") from None
        tls = self._config.create_ssl_context()
        listeners: list[trio.abc.Listener[Any]] = []
        urls = []
        for raw in (*sockets.secure_sockets, *sockets.insecure_sockets):
            raw.listen(self._config.backlog)
            _drop_the_dead(raw, self._limits.inactivity_s_max)
            listener: trio.abc.Listener[Any] = trio.SocketListener(
                trio.socket.from_stdlib_socket(raw)
            )
            is_secure = tls is not None and raw in sockets.secure_sockets
            if tls is not None and is_secure:
                listener = trio.SSLListener(listener, tls, https_compatible=True)
            scheme = "https" if is_secure else "http"
            urls.append(f"{scheme}://{repr_socket_addr(raw.family, raw.getsockname())}")
            listeners.append(listener)
        self.urls = tuple(urls)
        trace.info("listener.started", urls=self.urls)
        return listeners

    async def _serve(self, stream: Any) -> None:
        """Serve one connection; whatever goes wrong with it ends here."""
        if len(self._connections) >= self._limits.connections_max:
            trace.warning("listener.connection_refused", connections=len(self._connections))
            await trio.aclose_forcefully(stream)
            return
        self._connections[stream] = connection = self._connection(stream)
        try:
            await connection
        except Exception as error:
            if _is_of_a_protocol(error):
                trace.info("listener.connection_garbled", error=repr(error))
            else:
                trace.error(
                    "listener.connection_failed", error=repr(error), exception=traceback_of(error)
                )
            await trio.aclose_forcefully(stream)
        finally:
            del self._connections[stream]

    async def _tick(self, cutting: trio.Nursery) -> None:
        """Let every connection look at the clock, and cut off whoever takes too long."""
        limits = self._limits
        pace_s = min(TICK_S, limits.inactivity_s_max / 8, limits.send_s_max / 8)
        while True:
            await trio.sleep(pace_s)
            now = trio.current_time()
            for stream, connection in list(self._connections.items()):
                if connection.tick(now):
                    cutting.start_soon(trio.aclose_forcefully, stream)

    def _connection(self, stream: Any) -> Connection:
        async def app(
            scope: dict[str, Any],
            receive: Callable[[], Awaitable[dict[str, Any]]],
            send: Callable[[dict[str, Any]], Awaitable[None]],
            _sync_spawn: object,
            _call_soon: object,
        ) -> None:
            websocket = getattr(send, "__self__", None)
            if not isinstance(websocket, WSStream):
                await self._server(scope, receive, send)
                return
            websocket.handshake = StrictHandshake(
                scope["headers"], scope["http_version"], self._limits.message_bytes_max
            )
            if connection.shorten(websocket, receive):
                scope["extensions"][SHORTCUT] = connection
            try:
                await self._server(scope, receive, send)
            finally:
                _take_no_more(receive, websocket)

        as_hypercorn_calls_it: Any = app
        connection = Connection(
            as_hypercorn_calls_it, self._config, self._context, stream, self._limits
        )
        return connection

    async def _cut_off(self, accepting: trio.CancelScope, serving: trio.CancelScope) -> None:
        """Stop accepting when closed; end what is left when nobody is answered any more."""
        await self._closed.wait()
        accepting.cancel()
        with trio.move_on_after(self._limits.drain_s):
            await self._server.wait_idle()
            await trio.sleep(GOODBYE_S)
        if self._connections and not self._server.is_idle:
            trace.warning("listener.cut_off", connections=len(self._connections))
        serving.cancel()
        for stream in list(self._connections):
            await trio.aclose_forcefully(stream)


_PROTOCOLS: Final = frozenset({"h11", "h2", "wsproto", "binascii"})
"""Modules whose exceptions are about what somebody has sent."""
_ADDRESS: Final = (b":method", b":path")


class _Http2(H2Protocol):
    """A connection of which a request that is refused while it is sent does not end the others."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.streams = _Streams()

    async def _create_stream(self, request: Any) -> None:
        """Begin a request; hypercorn reads an address that is not ASCII to the connection's end."""
        if all(value.isascii() for name, value in request.headers if name in _ADDRESS):
            await super()._create_stream(request)
            return
        self.connection.send_headers(request.stream_id, [(b":status", b"400")], end_stream=True)
        await self._flush()


class _Streams(dict[int, Any]):
    """Requests by number; of one that was answered, what is still sent is taken and forgotten."""

    def __missing__(self, _number: int) -> type[_Answered]:
        return _Answered


class _Answered:
    @staticmethod
    async def handle(_event: object) -> None:
        """The client may stop when it has read its answer, and not be cut off before."""


# There is no setting for the class.
setattr(hypercorn.protocol, "H2Protocol", _Http2)  # noqa: B010 - no name that the module exports


async def serve(
    server: Server,
    config: ListenConfig,
    limits: Limits,
    *,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """
    Serve at the addresses of `config` until cancelled; `server` is running already.

    To stop gracefully run a `Listener` in `running` and leave the block instead.
    """
    listener = Listener(server, config, limits)
    async with running(listener, grace_s=limits.drain_s):
        task_status.started(listener.urls)
        await trio.sleep_forever()


def _hypercorn_config(config: ListenConfig, limits: Limits) -> Config:
    hypercorn = Config()
    hypercorn.bind = list(config.bind)
    hypercorn.certfile = config.certfile
    hypercorn.keyfile = config.keyfile
    hypercorn.keyfile_password = config.keyfile_password
    hypercorn.root_path = config.root_path
    hypercorn.backlog = 1024
    hypercorn.accesslog = None
    hypercorn.errorlog = None
    hypercorn.include_server_header = False
    hypercorn.h11_max_incomplete_size = limits.headers_bytes_max
    hypercorn.keep_alive_timeout = IDLE_S_MAX
    hypercorn.keep_alive_max_requests = 1_000_000
    hypercorn.max_app_queue_size = QUEUE_LENGTH
    hypercorn.websocket_max_message_size = limits.message_bytes_max
    return hypercorn


def _drop_the_dead(listening: socket.socket, silence_s: float) -> None:
    """Accepted connections inherit: give up on a peer that acknowledges nothing for so long."""
    if listening.family == socket.AF_UNIX:
        return
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        milliseconds = int(silence_s * 1000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _is_of_a_protocol(error: BaseException) -> bool:
    """Whether all that went wrong is what a client has sent: hypercorn lets it through."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_of_a_protocol, error.exceptions))
    return type(error).__module__.partition(".")[0] in _PROTOCOLS


def _take_no_more(receive: Callable[..., object], stream: WSStream) -> None:
    """
    Forget what the client still says, now that nobody listens.

    hypercorn would wait for room in its queue, for ever, and keep the connection with it.
    """
    queue = getattr(receive, "__self__", None)
    if queue is not None:
        stream.app_put = _forget
        queue.close()


async def _forget(_event: object) -> None:
    """In place of a queue that nobody reads."""
