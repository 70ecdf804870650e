"""
The network between one client and a server: a proxy that does what networks do.

Each connection is given a fate by the dice: how long it works, how slow it is, whether the
client's mutations come through twice, and how it ends.

    cut       both sides are reset, and what was on its way is lost
    closed    both sides are closed, in the middle of whatever was said
    deaf      what the client says vanishes, and neither side is told for a while
    dumb      what the server says vanishes, likewise
    late      the client is cut off; what it had said last arrives when it has said it again on
              its next connection, while the first one still lives

TCP delivers each byte once, so what a network doubles is what a client repeats: by `late`, beside
its own repetition. Besides, a mutation is sent twice on one connection, as a relay may that is not
sure of the first time; what is numbered by connection is not, for that would break the protocol.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Final

import trio

from tests.node.sockets import TEXT, dialled

ENDINGS: Final = ("cut", "closed", "deaf", "dumb", "late")
LIFE_S: Final = 2.0
"""Of a connection, on average."""
VANISHING_S_MAX: Final = 4.0
HELD_S: Final = 0.1
"""What a client says in the end, before it is cut off, is heard later."""
REPEATED_S_MAX: Final = 3.0
LATE_S_MAX: Final = 1.0
"""How long the old connection lives on beside the new one."""
DOWN_S_MAX: Final = 0.5
"""In which nobody gets through, after some connections."""
LATENCY_S_MAX: Final = 0.03
FRAMES_UP_TO_A_MUTATION: Final = 3
"""A client that is back says Connect, then what it shows, then what was not answered."""

BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""How a connection ends."""


class Line:
    """
    The way of one client to the server.

    Args:
        target: the server's URL.
        counts: what was done to connections, by name; shared by all lines.
        is_patient: what the server says vanishes until the client takes it for dead.
    """

    def __init__(
        self, target: str, dice: Random, counts: Counter[str], *, is_patient: bool = False
    ) -> None:
        self.url = ""
        self.dice = dice
        self.counts = counts
        self.dumb_s_max = float("inf") if is_patient else VANISHING_S_MAX
        self.healed = trio.Event()
        self.repeated = trio.Event()
        """Set when a connection has come as far as what its client repeats."""
        self._target = target
        self._is_down = False

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Let the client connect to `url`, until cancelled."""
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._connect, [listener])

    def heal(self) -> None:
        """End what is going wrong, and do no more to anybody."""
        self.healed.set()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the line is healed."""
        with trio.move_on_after(seconds):
            await self.healed.wait()

    async def _connect(self, client: trio.SocketStream) -> None:
        if self._is_down:
            self.counts["refused"] += 1
            _reset(client)
            return
        with suppress(*BROKEN):
            async with client, await dialled(self._target) as server:
                await _Connection(self, client, server).run()
        if self.dice.random() < 0.3 and not self._is_down:
            self._is_down = True
            await self.pause(self.dice.random() * DOWN_S_MAX)
            self._is_down = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fate:
    """What becomes of one connection."""

    ending: str
    life_s: float
    latency_s: float
    doubling: float
    """The chance of each mutation to come through twice."""

    @staticmethod
    def by(dice: Random) -> _Fate:
        return _Fate(
            ending=dice.choice(ENDINGS),
            life_s=dice.expovariate(1 / LIFE_S),
            latency_s=dice.choice((0, dice.random() * LATENCY_S_MAX)),
            doubling=dice.choice((0, 0.2)),
        )


class _Connection:
    """One connection of a client, and ours to the server in its place."""

    def __init__(self, line: Line, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._line = line
        self._client = client
        self._server = server
        self._fate = _Fate.by(line.dice)
        self._frames_up = 0
        self._is_ending = False
        self._is_deaf = False
        self._is_dumb = False
        self._held: bytearray | None = None

    async def run(self) -> None:
        """Carry what is said until somebody leaves, or the connection has met its fate."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, self._carry_up, nursery.cancel_scope)
            nursery.start_soon(self._carry, self._carry_down, nursery.cancel_scope)
            await self._line.pause(self._fate.life_s)
            if not self._line.healed.is_set():
                await self._end()
                nursery.cancel_scope.cancel()

    # What is said.

    async def _carry(self, carry: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        """One direction; that somebody leaves while the connection ends is not passed on."""
        with suppress(*BROKEN):
            await carry()
        if not self._is_ending:
            scope.cancel()

    async def _carry_up(self) -> None:
        frames = Frames()
        while data := await self._client.receive_some(65_536):
            for frame in frames.fed(data):
                if self._is_deaf:
                    continue
                if self._held is not None:
                    self._held += frame
                    continue
                await self._pass_up(frame)

    async def _pass_up(self, frame: bytes) -> None:
        dice = self._line.dice
        await self._delay()
        await self._send(self._server, frame)
        self._frames_up += 1
        if self._frames_up > FRAMES_UP_TO_A_MUTATION:  # the request to upgrade is the first
            self._line.repeated.set()
        if is_mutation(frame) and dice.random() < self._fate.doubling:
            self._line.counts["twice"] += 1
            await self._send(self._server, frame)

    async def _carry_down(self) -> None:
        while data := await self._server.receive_some(65_536):
            await self._delay()
            if not self._is_dumb:
                await self._send(self._client, data)

    async def _delay(self) -> None:
        await trio.sleep(self._fate.latency_s * self._line.dice.random())

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        """In two pieces now and then: a connection may end between them."""
        at = self._line.dice.randrange(len(data)) if self._line.dice.random() < 0.1 else 0
        if at:
            await stream.send_all(data[:at])
            await self._delay()
        await stream.send_all(data[at:])

    # How it ends.

    async def _end(self) -> None:
        self._is_ending = True
        self._line.counts[self._fate.ending] += 1
        match self._fate.ending:
            case "closed":
                return
            case "deaf":
                self._is_deaf = True
                await self._line.pause(VANISHING_S_MAX * self._line.dice.random())
            case "dumb":
                self._is_dumb = True
                await self._line.pause(self._line.dumb_s_max * (1 - self._line.dice.random()))
            case "late":
                await self._come_late()
        _reset(self._client)
        _reset(self._server)

    async def _come_late(self) -> None:
        self._held = held = bytearray()
        self._is_dumb = True
        await self._line.pause(HELD_S)
        _reset(self._client)
        self._line.repeated = trio.Event()
        with trio.move_on_after(REPEATED_S_MAX):
            await self._line.repeated.wait()
        with suppress(*BROKEN):
            await self._server.send_all(bytes(held))
        await self._line.pause(self._line.dice.random() * LATE_S_MAX)


class Frames:
    """Cuts what a client says into its request to upgrade, and frames; the rest is as is."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._is_upgraded: bool | None = None

    def fed(self, data: bytes) -> Iterator[bytes]:
        """What is whole now."""
        self._data += data
        while (length := self._length()) and len(self._data) >= length:
            if self._is_upgraded is None:
                self._is_upgraded = b"websocket" in self._data[:length].lower()
            frame = bytes(self._data[:length])
            del self._data[:length]
            yield frame

    def _length(self) -> int | None:
        """Of what comes first, once that can be known."""
        data = self._data
        if self._is_upgraded is None:
            end = data.find(b"\r\n\r\n")
            return end + 4 if end >= 0 else None
        if not self._is_upgraded:
            return len(data)
        if len(data) < 2:
            return None
        match data[1] & 127:
            case 126:
                return 8 + int(struct.unpack(">H", data[2:4])[0]) if len(data) >= 4 else None
            case 127:
                return 14 + int(struct.unpack(">Q", data[2:10])[0]) if len(data) >= 10 else None
            case length:
                return 6 + length


def is_mutation(frame: bytes) -> bool:
    """Whether a client says by this frame that something is to be changed."""
    if frame[0] != 0x80 | TEXT or frame[1] & 127 == 127:
        return False  # none of ours is as large
    at = 8 if frame[1] & 127 == 126 else 6
    mask = frame[at - 4 : at]
    start = bytes(byte ^ mask[number % 4] for number, byte in enumerate(frame[at : at + 20]))
    return b'"Mutation"' in start


def _reset(stream: trio.SocketStream) -> None:
    """Hang up at once; the other side learns of it by a reset."""
    linger = struct.pack("ii", 1, 0)
    with suppress(OSError):
        stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
    stream.socket.close()
