"""
One client's connection as hypercorn serves it, with a shortcut for what is sent each way.

    outbox ──send───▶ hypercorn ──▶ wsproto ──▶ stream ──▶ kernel
       └─────begin──────────────────────────────────────────┘

    kernel ──▶ stream ──▶ wsproto ──▶ hypercorn ──▶ queue ──receive──▶ session
       └────────────────────────────────────┴───────take──────────────────┘

On the long way a message goes through a dozen calls, a lock and two turns of the
scheduler, to a kernel that nearly always has room for it.  So whoever sends asks
the kernel first, and goes the long way when that takes no more.  There is one
order: what is left of a message that the kernel has a part of comes before
whatever hypercorn sends.

What arrives waits in hypercorn's queue for a task that wants it, which are two turns
of the scheduler again.  So once that queue is empty the session takes a text where it
is read; while it does, nothing more is read.  A text that is whole in one frame, as nearly
all are, is taken out of it here; anything else is for wsproto, to which it looks as if it
had come alone.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from hypercorn.events import Event, RawData
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.trio.tcp_server import MAX_RECV
from wsproto.connection import ConnectionState

from engine.server.shortcut import Take
from engine.server.watched import WatchedConnection

_TEXT: Final = 0x81
"""The first byte of a text that is in one frame."""
_MASKED: Final = 0x80
"""In the second byte, beside the length: what clients send has a mask."""
_HEAD_BYTES_MIN: Final = 6

TAKEN_AT_ONCE: Final = 16
"""Texts of one client before others get their turn: less than a millisecond."""


class Connection(WatchedConnection):
    """A watched one, with the shortcut."""

    _websocket: WSStream | None = None
    _rest: bytes = b""
    """Of frames that the kernel has a part of."""
    _queue: trio.MemoryReceiveChannel[Any] | None = None
    """Where hypercorn puts what arrives."""
    _take: Take | None = None
    _put: Callable[[Any], Awaitable[None]] | None = None
    """What hypercorn calls with what arrives, as long as the session takes it."""
    _taken: int = 0

    async def protocol_send(self, event: Event) -> None:
        if self._rest and isinstance(event, RawData):
            event, self._rest = RawData(self._rest + event.data), b""
        await super().protocol_send(event)

    async def _received(self) -> bytes:
        """What arrives next. trio would ask before it waits, when hardly ever there is anything."""
        if self._websocket is None:
            return await super()._received()
        while True:
            if self.stream.socket.fileno() < 0:  # closed by us, to which the client had come first
                raise trio.ClosedResourceError
            await trio.lowlevel.wait_readable(self.stream.socket)
            try:
                return os.read(self.stream.socket.fileno(), MAX_RECV)
            except BlockingIOError:
                continue
            except OSError as error:
                raise trio.BrokenResourceError from error

    # The shortcut.

    def shorten(self, websocket: WSStream, receive: Callable[..., object]) -> bool:
        """Whether there is a shortcut for `websocket`: not through TLS, and not in HTTP/2."""
        is_alone = isinstance(self.protocol.protocol, H11Protocol)
        if is_alone and isinstance(self.stream, trio.SocketStream) and hasattr(os, "writev"):
            self._websocket = websocket
            self._queue = getattr(receive, "__self__", None)
        return self._websocket is not None

    def listen(self, take: Take) -> bool:
        """As `Shortcut` has it; `take` is called by the task that reads the connection."""
        if self._websocket is None or self._queue is None:
            return False
        waiting = self._queue.statistics()
        if waiting.current_buffer_used or waiting.tasks_waiting_send:
            return False
        put = self._websocket.app_put
        assert put is not None, "a WebSocket that was accepted has an application"

        async def hand_over(event: Any) -> None:
            if event["type"] == "websocket.receive":
                await self._hand_over(event["text"])
            else:
                await put(event)

        self._take = take
        self._websocket.app_put = self._put = hand_over
        return True

    async def _hand_over(self, text: str | None) -> None:
        assert self._take is not None, "somebody listens"
        self._taken += 1
        if self._taken % TAKEN_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        await self._take(text)

    async def _handle(self, data: bytes) -> None:
        at, bytes_max = 0, self._limits.message_bytes_max
        while self._is_between_messages() and (found := text_at(data, at, bytes_max)) is not None:
            text, at = found
            await self._hand_over(text)
            if at == len(data):
                return
        await super()._handle(data[at:] if at else data)

    def _is_between_messages(self) -> bool:
        """Whether the session takes texts, and what comes next begins a frame and a message."""
        websocket = self._websocket
        if self._put is None or websocket is None or websocket.app_put is not self._put:
            return False
        connection = websocket.connection
        if websocket.closed or connection.state is not ConnectionState.OPEN:
            return False
        frames, message = connection._proto._frame_decoder, connection._proto._message_decoder
        return frames.header is None and not len(frames.buffer) and message.opcode is None

    def begin(self, *messages: bytes) -> bool:
        """Have the kernel take of some texts what it has room for; whether that was anything."""
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
        pieces: list[bytes] = []
        for message in messages:
            pieces += (frame_head(len(message)), message)
        try:
            # The number is asked for each time: when this is closed it may be somebody else's.
            taken = os.writev(self.stream.socket.fileno(), pieces)
        except OSError:  # no room; or a broken connection, as whoever goes the long way is told
            return False
        if taken < sum(map(len, pieces)):
            self._rest = b"".join(pieces)[taken:]
        return True

    @property
    def is_begun(self) -> bool:
        """Whether the kernel has a part of what was begun, and not the rest."""
        return bool(self._rest)

    async def finish(self) -> None:
        """Send the rest of what was begun."""
        await self.protocol_send(RawData(b""))


def text_at(data: bytes, at: int, bytes_max: int) -> tuple[str, int] | None:
    """
    The text of the frame that begins at `at`, and where it ends.

    `None` if it is not all there, is no text or not all of one, has no mask or another fault, or
    is long, or longer than `bytes_max`: those are few.
    """
    if len(data) - at < _HEAD_BYTES_MIN or data[at] != _TEXT:
        return None
    length, head = data[at + 1] - _MASKED, _HEAD_BYTES_MIN
    if length == 126:
        length, head = int.from_bytes(data[at + 2 : at + 4], "big"), _HEAD_BYTES_MIN + 2
        if length < 126:
            return None
    elif not 0 <= length < 126:
        return None
    begin = at + head
    end = begin + length
    if end > len(data) or length > bytes_max:
        return None
    mask = data[begin - 4 : begin] * (length // 4 + 1)
    masked = int.from_bytes(data[begin:end], "big") ^ int.from_bytes(mask[:length], "big")
    try:
        return masked.to_bytes(length, "big").decode(), end
    except UnicodeDecodeError:
        return None


def frame_head(length: int) -> bytes:
    """What a server sends before so many bytes of text, to make them a WebSocket frame."""
    if length < 126:
        return bytes((_TEXT, length))
    if length < 1 << 16:
        return struct.pack(">BBH", _TEXT, 126, length)
    return struct.pack(">BBQ", _TEXT, 127, length)
