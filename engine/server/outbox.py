"""
What is on its way to one client, in order.

    session ──put──▶ [ outbox ] ──▶ socket

What the socket has room for is sent where it is put, without a turn of the
scheduler.  The session never waits to put something, so that a response and the transition
after it are in order by construction; it waits for room before it makes more.
A client that leaves too much unread is given up.  After a while of silence the
outbox says Ping: clients take longer silence for a dead server.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import trio

from engine.errors import Overloaded
from engine.kernel.trace import tracer
from engine.model.limits import Limits
from engine.server.protocol import PING
from engine.server.shortcut import WayOut

Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

trace = tracer(__name__)

BACKLOG_BYTES: Final = 1 << 20
"""With this much unsent, no more is made for the client to read."""

REASON_BYTES_MAX: Final = 123
"""A WebSocket close frame holds no more."""


class Outbox:
    """
    Args:
        limits: how much may pile up, and for how long.
        home: where the sending is a task, once there is something that has to wait.
        on_room: called when another transition is worth its making.
        on_finished: called when the last message has left, or cannot.
        shortcut: where what is put is sent at once, if there is room.
    """

    def __init__(
        self,
        limits: Limits,
        home: trio.Nursery,
        *,
        on_room: Callable[[], None],
        on_finished: Callable[[], None],
        shortcut: WayOut | None = None,
    ) -> None:
        self._limits = limits
        self._home = home
        self._on_room = on_room
        self._on_finished = on_finished
        self._shortcut = shortcut
        self._send: Send | None = None
        self._is_running = False
        self._is_begun = False
        """Whether the kernel has a part of the first message."""
        self._is_holding = False
        self._messages: deque[tuple[bytes, int | None]] = deque()
        """Each with the number of parts of a transition that are still to come after it."""
        self._is_torn = False
        """Whether the client has a part of a transition and not the last one."""
        self._bytes = 0
        self._transitions = 0
        self._ending: tuple[int, str] | None = None
        self._is_quiet = True
        self._quiet_since = trio.current_time()
        """When `tick` found it quiet: to ask the clock for each message would cost more."""
        self._sending_since = math.inf
        self._filled = trio.lowlevel.ParkingLot()
        self._emptied = trio.lowlevel.ParkingLot()
        self.finished = trio.Event()
        """Set when the last message has left, or cannot."""

    def open(self, send: Send) -> None:
        """From now on, what takes no shortcut goes this way."""
        self._send = send

    def put(self, message: bytes) -> None:
        """
        Send `message` after everything before it; nothing is sent after `end`.

        Raises:
            Overloaded: the client leaves too much unread.
        """
        if self._ending is None:
            self._check_room(len(message))
            self._append(message, None)

    def put_transition(self, parts: Sequence[bytes]) -> None:
        """
        Send the message or the parts of one transition, likewise, with nothing in between.

        Raises:
            Overloaded: the client leaves too much unread.
        """
        if self._ending is None:
            self._check_room(sum(map(len, parts)))
            self._transitions += 1
            left = len(parts)
            for part in parts:
                left -= 1
                self._append(part, left)

    def hold(self) -> None:
        """
        Send nothing until `let_go`, which is called in the same step.

        A response and the transition after it then take one call to the kernel, which is most of
        what they cost.
        """
        self._is_holding = self._is_free

    def let_go(self) -> None:
        """Send what was held."""
        if not self._is_holding:
            return
        self._is_holding = False
        if self._messages and not self._is_sent_at_once():
            self._go_on()

    def _is_sent_at_once(self) -> bool:
        """Whether the kernel has taken all that was held; if a part, it is one message from now."""
        messages = [message for message, _ in self._messages]
        if not self._is_begun_with(messages):
            return False
        transitions = sum(left == 0 for _, left in self._messages)
        self._messages.clear()
        if self._is_begun:
            self._messages.append((b"".join(messages), 0 if transitions else None))
            return False
        self._bytes -= sum(map(len, messages))
        self._transitions -= transitions
        return True

    def _check_room(self, size: int) -> None:
        if self._messages and self._bytes + size > self._limits.unsent_bytes_max:
            raise Overloaded("SlowClient: what this client has not read (unsent_bytes_max)", 0)

    def end(self, farewell: bytes | None, code: int, reason: str) -> None:
        """Send what is here and `farewell`, close with `code`, and take nothing more."""
        if self._ending is not None:
            return
        self._is_holding = False
        if self._bytes > self._limits.unsent_bytes_max // 2:
            self._messages.clear()
            self._is_begun = False  # what is left of it goes before whatever comes now
            if self._is_torn:
                farewell = None
        if farewell is not None:
            self._append(farewell, None)
        self._ending = (code, _fitting(reason))
        self._go_on()

    def abandon(self) -> None:
        """The client is gone: nothing more can be sent."""
        self._messages.clear()
        self._filled.unpark_all()
        self._emptied.unpark_all()
        self.finished.set()
        self._on_finished()

    @property
    def has_room_for_transition(self) -> bool:
        """Whether few enough transitions are unsent for another to be worth its making."""
        return self._transitions < self._limits.unsent_transitions_max

    async def wait_room(self) -> None:
        """Wait until the client has read most of what it was sent."""
        while self._bytes >= BACKLOG_BYTES:
            await self._emptied.park()

    def tick(self, now: float) -> None:
        """
        Look at the clock, every second or so: break a silence, or give up a client that is stuck.

        Args:
            now: of `trio.current_time`.
        """
        if now - self._sending_since > self._limits.send_s_max:
            trace.info("session.stuck", unsent_bytes=self._bytes)
            self.abandon()
        elif not self._is_quiet:
            self._is_quiet, self._quiet_since = True, now
        elif not self._messages and now - self._quiet_since >= self._limits.ping_s:
            self.put(PING)

    def _go_on(self) -> None:
        """Wake the one task that sends, or begin it: for most clients there never is one."""
        if self._is_running:
            self._filled.unpark_all()
        elif self._send is not None and not self.finished.is_set():
            self._is_running = True
            self._home.start_soon(self._run, self._send)

    async def _run(self, send: Send) -> None:
        """Send, until the connection is closed or broken."""
        try:
            while not self.finished.is_set():
                if self._messages:
                    await self._send_first(send)
                elif self._ending is not None:
                    code, reason = self._ending
                    await send({"type": "websocket.close", "code": code, "reason": reason})
                    break
                else:
                    await self._filled.park()
        except Exception as error:
            trace.info("session.unsent", error=repr(error))
        finally:
            self.abandon()

    async def _send_first(self, send: Send) -> None:
        message, left = self._messages.popleft()
        self._is_torn = bool(left)
        # A server may shield its sending from cancellation: `tick` looks at the clock.
        self._sending_since = trio.current_time()
        if self._is_begun and self._shortcut is not None:
            self._is_begun = False
            await self._shortcut.finish()
        else:
            await send({"type": "websocket.send", "text": message.decode()})
        self._sending_since = math.inf
        self._is_quiet = False
        self._bytes -= len(message)
        self._emptied.unpark_all()
        if left == 0:
            self._transitions -= 1
            self._on_room()

    def _append(self, message: bytes, left: int | None) -> None:
        if not self._is_holding and self._is_sent(message, left):
            return
        self._messages.append((message, left))
        self._bytes += len(message)
        if not self._is_holding:
            self._go_on()

    def _is_sent(self, message: bytes, left: int | None) -> bool:
        """Whether the kernel has taken all of `message`, which nothing is waiting before."""
        if not self._is_free or not self._is_begun_with([message]):
            return False
        self._is_torn = bool(left)
        if left == 0 and not self._is_begun:
            self._transitions -= 1
        return not self._is_begun

    @property
    def _is_free(self) -> bool:
        """Whether nothing is on its way that has to come before what is put now."""
        if self._shortcut is None or self._messages or self._sending_since < math.inf:
            return False
        return not self.finished.is_set()

    def _is_begun_with(self, messages: Sequence[bytes]) -> bool:
        """Whether the kernel has taken any of `messages`, which nothing is waiting before."""
        shortcut = self._shortcut
        if shortcut is None or not shortcut.begin(*messages):
            return False
        self._is_begun = shortcut.is_begun
        self._is_quiet = False
        return True


def _fitting(reason: str) -> str:
    """As much of `reason` as a close frame holds."""
    return reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
