"""A client's side of HTTP and WebSocket connections, by hand, over real sockets."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

SESSION = "9c621b88-c88c-4d93-be5f-3236005019b1"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


async def dialled(url: str, *, receive_buffer_bytes: int | None = None) -> trio.SocketStream:
    """A TCP connection to the server at `url`."""
    parts = urlsplit(url)
    sock = trio.socket.socket()
    if receive_buffer_bytes is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer_bytes)
    try:
        await sock.connect((parts.hostname, parts.port))
    except OSError:
        sock.close()
        raise
    return trio.SocketStream(sock)


class WebSocket:
    """One that has been opened: whole text messages, in and out."""

    def __init__(self, stream: trio.abc.Stream, head: bytes, rest: bytes) -> None:
        self.stream = stream
        self.head = head
        """The server's response to the handshake."""
        self._buffer = bytearray(rest)
        self.close_code: int | None = None
        self.close_reason = ""
        self.pongs: list[bytes] = []
        self.answers_pings = False

    async def say(self, **message: Any) -> None:
        await self.send(TEXT, json.dumps(message).encode())

    async def send(self, opcode: int, payload: bytes) -> None:
        await self.stream.send_all(frame(opcode, payload))

    async def hear(self) -> dict[str, Any] | None:
        """The next message, pings aside; `None` when the server has closed."""
        while (text := await self.hear_text()) is not None:
            message: dict[str, Any] = json.loads(text)
            if message["type"] != "Ping":
                return message
        return None

    async def hear_text(self) -> str | None:
        """The next message as it was sent; `None` when the server has closed."""
        while True:
            opcode, payload = await self._frame()
            if opcode == CLOSE:
                if payload:
                    [self.close_code] = struct.unpack(">H", payload[:2])
                    self.close_reason = payload[2:].decode()
                return None
            if opcode == TEXT:
                return payload.decode()
            if opcode == PONG:
                self.pongs.append(payload)
            if opcode == PING and self.answers_pings:
                await self.send(PONG, payload)

    async def opcodes(self) -> list[int]:
        """Of all frames until the server hangs up."""
        heard = []
        while (opcode := (await self._frame())[0]) != CLOSE:
            heard.append(opcode)
        return heard

    async def hear_until(self, kind: str) -> dict[str, Any]:
        while (message := await self.hear()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"closed with {self.close_code} before any {kind}")

    async def is_over(self) -> bool:
        """Wait until the server has hung up."""
        try:
            while await self.stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        return True

    async def _frame(self) -> tuple[int, bytes]:
        if not await self._filled(2):
            return CLOSE, b""
        first, length = await self._exactly(2)
        assert not first & 0x70, "compressed, although nobody agreed to that"
        if length == 126:
            [length] = struct.unpack(">H", await self._exactly(2))
        elif length == 127:
            [length] = struct.unpack(">Q", await self._exactly(8))
        return first & 15, await self._exactly(length)

    async def _exactly(self, count: int) -> bytes:
        if not await self._filled(count):
            raise trio.BrokenResourceError("hung up in the middle of a frame")
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def _filled(self, count: int) -> bool:
        """Whether so many bytes come before the server hangs up."""
        while len(self._buffer) < count:
            part = await self.stream.receive_some(1 << 20)
            if not part:
                return False
            self._buffer += part
        return True


def frame(opcode: int, payload: bytes, *, is_last: bool = True, mask: bytes = bytes(4)) -> bytes:
    """A masked frame, as clients send them; more of its message comes if it is not the last."""
    first, length = (0x80 if is_last else 0) | opcode, len(payload)
    if length < 126:
        head = struct.pack(">BB", first, 0x80 | length)
    elif length < 65536:
        head = struct.pack(">BBH", first, 0x80 | 126, length)
    else:
        head = struct.pack(">BBQ", first, 0x80 | 127, length)
    return head + mask + masked(payload, mask)


def masked(payload: bytes, mask: bytes) -> bytes:
    """What a mask makes of a payload, and the payload of that."""
    masks = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(masks, "big")).to_bytes(
        len(payload), "big"
    )


@asynccontextmanager
async def opened(
    url: str,
    *,
    path: str = "/api/1.48.0/sync",
    headers: str = "",
    receive_buffer_bytes: int | None = None,
) -> AsyncIterator[WebSocket]:
    """A WebSocket for the length of the block."""
    async with await dialled(url, receive_buffer_bytes=receive_buffer_bytes) as stream:
        yield await handshake(stream, path, headers)


async def handshake(stream: trio.abc.Stream, path: str, headers: str = "") -> WebSocket:
    """Ask for a WebSocket on a connection."""
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    request = (
        f"GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
    await stream.send_all(request.encode())
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some(65536)
        if not part:
            raise trio.BrokenResourceError(f"hung up after {data!r}")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return WebSocket(stream, head, rest)


async def exchange(stream: trio.abc.Stream, request: bytes) -> tuple[int, bytes]:
    """Send a whole HTTP request; status and body of the response, which has a length."""
    await stream.send_all(request)
    data = b""
    while b"\r\n\r\n" not in data:
        part = await stream.receive_some(65536)
        if not part:
            raise trio.BrokenResourceError(f"hung up after {data!r}")
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().splitlines()
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        part = await stream.receive_some(65536)
        if not part:
            raise trio.BrokenResourceError(f"hung up in the middle of {data!r}")
        body += part
    return int(head.split()[1]), body


def post(path: str, document: object, headers: str = "") -> bytes:
    """The bytes of a POST with a JSON body."""
    return posted(path, json.dumps(document).encode(), headers)


def posted(path: str, body: bytes, headers: str = "") -> bytes:
    """The bytes of a POST with a body that is said to be JSON."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body
