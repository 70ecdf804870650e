"""
One client's connection as hypercorn serves it, with a shortcut for what it is sent.

    outbox ──send───▶ hypercorn ──▶ wsproto ──▶ stream ──▶ kernel
       └─────begin──────────────────────────────────────────┘

On the long way a message goes through a dozen calls, a lock and two turns of the
scheduler, to a kernel that nearly always has room for it.  So whoever sends asks
the kernel first, and goes the long way when that takes no more.  There is one
order: what is left of a message that the kernel has a part of comes before
whatever hypercorn sends.
"""

from __future__ import annotations

import os
import struct
from typing import Final

import trio
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from wsproto.connection import ConnectionState

from engine.server.watched import WatchedConnection

_TEXT: Final = 0x81
"""The first byte of a text that is in one frame."""


class Connection(WatchedConnection):
    """A watched one, with the shortcut."""

    _websocket: WSStream | None = None
    _rest: bytes = b""
    """Of a frame that the kernel has a part of."""

    async def protocol_send(self, event: Event) -> None:
        if self._rest and isinstance(event, RawData):
            event, self._rest = RawData(self._rest + event.data), b""
        await super().protocol_send(event)

    # The shortcut.

    def shorten(self, websocket: WSStream) -> bool:
        """Whether there is a shortcut for `websocket`: not through TLS, and not in HTTP/2."""
        is_alone = isinstance(self.protocol.protocol, H11Protocol)
        if is_alone and isinstance(self.stream, trio.SocketStream) and hasattr(os, "writev"):
            self._websocket = websocket
        return self._websocket is not None

    def begin(self, message: bytes) -> bool:
        """Have the kernel take of a text what it has room for; whether that was anything."""
        websocket = self._websocket
        if (
            websocket is None
            or websocket.closed
            or websocket.state is not ASGIWebsocketState.CONNECTED
            or websocket.connection.state is not ConnectionState.OPEN
            or self._rest
            or self.send_lock.locked()
        ):
            return False
        head = frame_head(len(message))
        try:
            # The number is asked for each time: when this is closed it may be somebody else's.
            taken = os.writev(self.stream.socket.fileno(), (head, message))
        except OSError:  # no room; or a broken connection, as whoever goes the long way is told
            return False
        if taken < len(head) + len(message):
            self._rest = (head + message)[taken:]
        return True

    @property
    def is_begun(self) -> bool:
        """Whether the kernel has a part of a message, and not the rest."""
        return bool(self._rest)

    async def finish(self) -> None:
        """Send the rest of what was begun."""
        await self.protocol_send(RawData(b""))


def frame_head(length: int) -> bytes:
    """What a server sends before so many bytes of text, to make them a WebSocket frame."""
    if length < 126:
        return bytes((_TEXT, length))
    if length < 1 << 16:
        return struct.pack(">BBH", _TEXT, 126, length)
    return struct.pack(">BBQ", _TEXT, 127, length)
