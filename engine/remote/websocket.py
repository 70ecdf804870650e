"""A WebSocket on trio, for a client that speaks JSON texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import httpx
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from engine.errors import Unreachable

OPENING_S_MAX: Final = 15.0
RECEIVE_BYTES: Final = 1 << 16
CLOSING_S_MAX: Final = 1.0

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class WebSocket:
    """An open connection. Made by `open_websocket`; one task sends, one receives."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []
        self._sending = trio.Lock()

    async def send(self, text: str) -> None:
        """
        Send a message.

        Raises:
            Unreachable: the connection is gone; the message may or may not have arrived.
        """
        await self._write(TextMessage(data=text))

    async def receive(self) -> str:
        """
        Wait for the next message.

        Raises:
            Unreachable: the connection is gone; says why, if the server did.
        """
        parts: list[str] = []
        while True:
            match await self._next_event():
                case TextMessage(data=data, message_finished=is_last):
                    parts.append(data)
                    if is_last:
                        return "".join(parts)
                case Ping() as ping:
                    await self._write(ping.response())
                case CloseConnection(code=code, reason=reason):
                    raise Unreachable(f"the server closed: {reason or 'code'} {code}")
                case _:
                    pass

    async def greet(self, host: str, target: str) -> None:
        """
        Ask for the protocol to be changed to WebSocket.

        Raises:
            Unreachable: the server does not.
        """
        await self._write(Request(host=host, target=target))
        match await self._next_event():
            case AcceptConnection():
                return
            case RejectConnection(status_code=status):
                raise Unreachable(f"no WebSocket at {target}: status {status}")
            case other:
                raise Unreachable(f"no WebSocket at {target}: {other!r}")

    async def close(self) -> None:
        """Say goodbye, if that is possible at once."""
        with suppress(Unreachable), trio.move_on_after(CLOSING_S_MAX) as scope:
            scope.shield = True
            await self._write(CloseConnection(code=1000))

    async def _next_event(self) -> Event:
        while not self._events:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
                self._protocol.receive_data(bytes(data) or None)
                self._events = list(self._protocol.events())
            except (*_BROKEN, RemoteProtocolError) as error:
                raise Unreachable(f"the connection broke: {error!r}") from error
            if not data and not self._events:
                raise Unreachable("the server hung up")
        return self._events.pop(0)

    async def _write(self, event: Event) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(self._protocol.send(event))
            except (*_BROKEN, LocalProtocolError) as error:
                raise Unreachable(f"the connection broke: {error!r}") from error


@asynccontextmanager
async def open_websocket(url: str) -> AsyncIterator[WebSocket]:
    """
    Connect to `url`, http or https, for the length of the block.

    Raises:
        Unreachable: nobody answers there, or not with a WebSocket.
    """
    parts = urlsplit(url)
    with trio.move_on_after(OPENING_S_MAX) as opening:
        socket = await _connected(parts.scheme == "https", parts.hostname or "", parts.port)
        try:
            await socket.greet(parts.netloc.rpartition("@")[2], parts.path)
        except BaseException:
            await trio.aclose_forcefully(socket._stream)
            raise
    if opening.cancelled_caught:
        raise Unreachable(f"{url} did not answer within {OPENING_S_MAX:g} s")
    try:
        yield socket
    finally:
        await socket.close()
        await trio.aclose_forcefully(socket._stream)


async def _connected(is_secure: bool, host: str, port: int | None) -> WebSocket:
    try:
        if is_secure:
            context = httpx.create_ssl_context()
            return WebSocket(
                await trio.open_ssl_over_tcp_stream(
                    host, port or 443, ssl_context=context, https_compatible=True
                )
            )
        return WebSocket(await trio.open_tcp_stream(host, port or 80))
    except OSError as error:
        raise Unreachable(f"{host}:{port} does not answer: {error!r}") from error
