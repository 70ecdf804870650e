"""
The other end of a WebSocket, as a library understands it, with what a client may not do.

hypercorn counts the characters of a message, and hangs up without a word on who sends what is
no WebSocket's.  Here its bytes are counted, and a fault is kept for whoever hangs up, so that the
client is told by the code of the closing: its text is no UTF-8 (1007), a message is too large
(1009), a frame is none (1002).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any

from hypercorn.protocol.ws_stream import Handshake, WSStream
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Message
from wsproto.frame_protocol import CloseReason


class Peer(Connection):
    """
    Args:
        message_bytes_max: of what a client says at a time, in however many frames.
    """

    def __init__(self, message_bytes_max: int) -> None:
        super().__init__(ConnectionType.SERVER)
        self.fault: CloseConnection | None = None
        """What to close with, when the client did something wrong: nothing after it counts."""
        self._message_bytes_max = message_bytes_max
        self._message_bytes = 0

    def events(self) -> Generator[Event, None, None]:
        for event in super().events():
            if isinstance(event, Message) and self._is_too_large_with(event):
                self.fault = CloseConnection(code=CloseReason.MESSAGE_TOO_BIG)
            elif isinstance(event, CloseConnection) and self.state is ConnectionState.OPEN:
                self.fault = event  # the library's, as the client has not said it
            if self.fault is not None:
                return
            yield event

    def _is_too_large_with(self, part: Message[Any]) -> bool:
        is_in_bytes = isinstance(part.data, bytes) or part.data.isascii()
        self._message_bytes += len(part.data if is_in_bytes else part.data.encode())
        is_too_large = self._message_bytes > self._message_bytes_max
        if part.message_finished:
            self._message_bytes = 0
        return is_too_large


def fault_of(websocket: WSStream) -> CloseConnection | None:
    """What to close `websocket` with, if its client did something wrong and was not told."""
    connection = websocket.connection
    if not isinstance(connection, Peer) or connection.state is not ConnectionState.OPEN:
        return None
    return connection.fault


class StrictHandshake(Handshake):
    """
    It leads to a `Peer`, and to no compression, which hypercorn has no setting for.

    Compressing each transition for each client anew would cost more than sending
    it, and 300 kB of memory a client.
    """

    def __init__(
        self, headers: list[tuple[bytes, bytes]], http_version: str, message_bytes_max: int
    ) -> None:
        super().__init__(headers, http_version)
        self.extensions = None
        self._message_bytes_max = message_bytes_max

    def accept(
        self, subprotocol: str | None, additional_headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[int, list[tuple[bytes, bytes]], Connection]:
        status, headers, _ = super().accept(subprotocol, additional_headers)
        return status, headers, Peer(self._message_bytes_max)
