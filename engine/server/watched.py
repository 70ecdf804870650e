"""
A connection whose client has to say or take something now and then.

    silent for half of `inactivity_s_max` ──▶ asked whether it is there
    silent for all of it ──▶ cut off
    one piece on its way for `send_s_max` ──▶ cut off

Only the clients of WebSockets have to: who waits for a response has nothing to say.
Whatever arrives counts, the answer to a WebSocket's ping too.  Nothing counts as silence
while it is we who do not listen.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import EndData, StreamClosed
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.events import CloseConnection, Ping

from engine.kernel.trace import tracer
from engine.model.limits import Limits
from engine.server.peer import fault_of

trace = tracer(__name__)

LAST_WORDS_S: Final = 0.5
"""For a client to be told what it did wrong, while the rest of that is thrown away."""


class WatchedConnection(TCPServer):
    """
    It ends when its client hangs up, instead of when it would have been idle too long.

    Args:
        app: as hypercorn calls its applications.
    """

    def __init__(
        self, app: Any, config: Config, context: WorkerContext, stream: Any, limits: Limits
    ) -> None:
        super().__init__(app, config, context, ConnectionState({}), stream)
        self._limits = limits
        self._silent_since = math.inf
        self._sending_since = math.inf
        self._is_asked = False

    def tick(self, now: float) -> bool:
        """
        Look at the clock, every now and then; whether the stream is to be cut off.

        Args:
            now: of `trio.current_time`.
        """
        silent_s = now - self._silent_since
        if now - self._sending_since > self._limits.send_s_max:
            trace.info("connection.stuck")
            return True
        if silent_s <= self._limits.inactivity_s_max / 2 or not (sockets := self._websockets()):
            return False
        if silent_s > self._limits.inactivity_s_max:
            trace.info("connection.silent")
            return True
        if not self._is_asked:
            self._is_asked = True
            for socket in sockets:
                self._task_group.spawn(socket._send_wsproto_event, Ping())
        return False

    async def _read_data(self) -> None:
        # What waits to be taken in is let go of when there is nobody left to take it.
        with contextlib.suppress(trio.BrokenResourceError):
            await self._take_in()
        await self.idle_task.stop()

    async def _take_in(self) -> None:
        while (data := await self._heard()) is not None:
            await self._handle(data)
            for websocket in self._websockets(are_open=False):
                if websocket.closed:
                    await self._end_refused(websocket)
            for websocket in self._websockets():
                if (fault := fault_of(websocket)) is not None:
                    await self._refuse(websocket, fault)
            if not data:
                break
        await self.protocol.handle(Closed())

    async def _handle(self, data: bytes) -> None:
        """Have hypercorn make of `data` what it is."""
        await self.protocol.handle(RawData(data))

    async def _heard(self) -> bytes | None:
        """What arrives next: nothing when the client has hung up, `None` when the line is cut."""
        self._silent_since = trio.current_time()
        try:
            return await self._received()
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return None
        finally:
            self._silent_since = math.inf
            self._is_asked = False

    async def _received(self) -> bytes:
        return bytes(await self.stream.receive_some(MAX_RECV))

    async def _refuse(self, websocket: WSStream, fault: CloseConnection) -> None:
        """Tell a client what it did wrong, and hang up."""
        trace.info("connection.refused", code=fault.code, reason=fault.reason)
        if isinstance(self.protocol.protocol, H2Protocol):
            # The others go on, and it may take until this one reads.
            self._task_group.spawn(_tell, websocket, fault)
            return
        await websocket._send_wsproto_event(fault)
        await self._throw_away()
        await websocket.send(StreamClosed(stream_id=websocket.stream_id))

    async def _end_refused(self, websocket: WSStream) -> None:
        """
        End a WebSocket whose handshake was answered with 400.

        hypercorn then leaves it as it is, busy, and its connection has no time limit.
        """
        if not isinstance(self.protocol.protocol, H2Protocol):
            await self._throw_away()
        await websocket.send(StreamClosed(stream_id=websocket.stream_id))

    async def _throw_away(self) -> None:
        """What is not read when a line is cut takes along what was said last."""
        with trio.move_on_after(LAST_WORDS_S):
            while await self._heard():
                pass

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            self._sending_since = trio.current_time()
            try:
                with trio.CancelScope(shield=True):
                    await self.stream.send_all(event.data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                await self.protocol.handle(Closed())
            finally:
                self._sending_since = math.inf

    def _websockets(self, *, are_open: bool = True) -> list[WSStream]:
        """Those that are open, or are not; over HTTP/2 there may be several."""
        protocol = self.protocol.protocol
        streams = (
            protocol.streams.values() if isinstance(protocol, H2Protocol) else [protocol.stream]
        )
        return [
            one
            for one in streams
            if isinstance(one, WSStream) and one.handshake.accepted is are_open
        ]


async def _tell(websocket: WSStream, fault: CloseConnection) -> None:
    await websocket._send_wsproto_event(fault)
    await websocket.send(EndData(stream_id=websocket.stream_id))
    await websocket.send(StreamClosed(stream_id=websocket.stream_id))
