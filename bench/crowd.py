"""
Many WebSockets of one thread, as light as they can be: the load of a bench is not what it measures.

    crowd = Crowd(port)
    sockets = crowd.join(1_000)
    for socket, message in crowd.hear(): ...

Frames are put together and taken apart by hand, and nothing is parsed that
nobody looks at.
"""

from __future__ import annotations

import resource
import select
import socket
import struct
from collections.abc import Iterator
from typing import Final

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 1 << 18
PATIENCE_S: Final = 30.0
"""Whoever has said nothing for so long does not work."""
PING: Final = b'{"type":"Ping"}'
SPARE_DESCRIPTORS: Final = 200
"""For everything that a process has open besides its clients."""

_UPGRADE: Final = (
    b"GET /api/sync HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT: Final = 0x81
_ASKED: Final = b"\x89\x00"
"""A server's ping, which has nothing in it; a client that is silent is cut off."""
_MASKED: Final = 0x80
_MASK: Final = bytes(4)
"""Allowed as any other, and work for the server as any other, and none for us."""
_PONG: Final = bytes((0x8A, _MASKED)) + _MASK


class Socket:
    """One client: says texts, and has what it was told."""

    __slots__ = ("_rest", "raw")

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self._rest = b""

    def say(self, text: str) -> None:
        self.raw.sendall(frame(text.encode()))

    def read(self) -> list[bytes]:
        """The messages that have come, without the pings, which are answered; waits for nothing."""
        try:
            data = self.raw.recv(READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionError("the server hung up")
        messages, self._rest = messages_in(self._rest + data)
        if _ASKED in messages:
            self.raw.sendall(_PONG)
        return [message for message in messages if message not in (PING, _ASKED)]


class Crowd:
    """The clients of one server. Those that joined are listened to, unless they sleep."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._poll = select.epoll()
        self._sockets: dict[int, Socket] = {}

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._sockets.values():
            each.raw.close()
        self._poll.close()

    def join(self, count: int, *, receive_buffer_bytes: int | None = None) -> list[Socket]:
        """So many more clients, each with a WebSocket of its own."""
        joined = [_opened(self._port, receive_buffer_bytes) for _ in range(count)]
        for each in joined:
            self._sockets[each.raw.fileno()] = each
            self._poll.register(each.raw, select.EPOLLIN)
        return joined

    def sleep(self, each: Socket) -> None:
        """Read nothing of this one until it wakes."""
        self._poll.unregister(each.raw)

    def wake(self, each: Socket) -> None:
        self._poll.register(each.raw, select.EPOLLIN)

    def hear(self, patience_s: float = PATIENCE_S) -> Iterator[tuple[Socket, bytes]]:
        """
        What comes next, of whichever client.

        Raises:
            TimeoutError: nothing has come for so long.
        """
        ready = self._poll.poll(patience_s)
        if not ready:
            raise TimeoutError(f"no client was told anything for {patience_s:g} s")
        for descriptor, _ in ready:
            each = self._sockets[descriptor]
            for message in each.read():
                yield each, message


def frame(payload: bytes) -> bytes:
    """A text, as clients send it."""
    length = len(payload)
    if length < 126:
        head = struct.pack(">BB", _TEXT, _MASKED | length)
    else:
        assert length < 1 << 16, "no client of ours says that much"
        head = struct.pack(">BBH", _TEXT, _MASKED | 126, length)
    return head + _MASK + payload


def messages_in(data: bytes) -> tuple[list[bytes], bytes]:
    """Whole messages at the beginning of what a server has sent, and the rest; `_ASKED` is one."""
    messages = []
    at = 0
    while len(data) - at >= 2:
        if data.startswith(_ASKED, at):
            messages.append(_ASKED)
            at += 2
            continue
        assert data[at] == _TEXT, f"a frame that begins with {data[at]:#x}"
        head, length = 2, data[at + 1]
        if length == 126:
            head, length = 4, int.from_bytes(data[at + 2 : at + 4], "big")
        elif length == 127:
            head, length = 10, int.from_bytes(data[at + 2 : at + 10], "big")
        end = at + head + length
        if len(data) < max(end, at + head):
            break
        messages.append(data[at + head : end])
        at = end
    return messages, data[at:]


def descriptors(wanted: int) -> int:
    """How many clients this process and those it starts may have, raised to `wanted` if allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_DESCRIPTORS
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - SPARE_DESCRIPTORS)


def _opened(port: int, receive_buffer_bytes: int | None) -> Socket:
    raw = socket.socket()
    raw.settimeout(PATIENCE_S)
    if receive_buffer_bytes is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    raw.connect((HOST, port))
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.sendall(_UPGRADE)
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        part = raw.recv(4096)
        assert part, f"no WebSocket at {port}: {answer!r}"
        answer += part
    assert answer.startswith(b"HTTP/1.1 101"), answer
    raw.setblocking(False)
    return Socket(raw)
