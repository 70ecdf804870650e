"""
Subscriptions on an engine that runs elsewhere: one WebSocket for all of them.

    results ──add, close──▶ what is wanted ──ModifyQuerySet──▶ server
    results ◀──states────── conversation   ◀──Transition────── server

What is wanted is compared with what the server was told on this connection, so
a new connection needs nothing but the same comparison.  A connection that
breaks is opened again, after a while that grows to some seconds; a server that
refuses what it is told, or whom it is told by, ends all subscriptions with an
error.
"""

from __future__ import annotations

import random
from typing import Any, Final

import trio

from engine.errors import EngineError, ProtocolViolation, Unauthenticated, Unreachable
from engine.interface import Failed, Ok, Results, State, Target
from engine.kernel.trace import tracer
from engine.model.json_values import Json
from engine.remote.conversation import Conversation, Shown
from engine.remote.websocket import WebSocket, open_websocket

trace = tracer(__name__)

SYNC_PATH: Final = "/api/sync"
RETRY_S: Final = 0.2
RETRY_S_MAX: Final = 10.0
SILENCE_S_MAX: Final = 60.0
"""The server says something at least every fifteen seconds."""


class RemoteSubscriptions:
    """
    Args:
        url: of the server, with its prefix.
        nursery: where the connection is kept.
    """

    def __init__(self, url: str, admin_key: str | None, nursery: trio.Nursery) -> None:
        self._url = url.rstrip("/") + SYNC_PATH
        self._admin_key = admin_key
        self._nursery = nursery
        self._wanted: dict[int, RemoteResults] = {}
        self._numbers = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._is_running = False
        self.heard_ts = 0

    def add(self, target: Target) -> RemoteResults:
        """Follow a query, from when there is a connection."""
        results = RemoteResults(self, self._numbers, target)
        self._wanted[results.number] = results
        self._numbers += 1
        self._changed.unpark_all()
        if not self._is_running:
            self._is_running = True
            self._nursery.start_soon(self._run)
        return results

    def remove(self, number: int) -> None:
        self._wanted.pop(number, None)
        self._changed.unpark_all()

    async def _run(self) -> None:
        """Be connected, again and again, until the server will not have it."""
        failures = 0
        try:
            while True:
                conversation = Conversation(self._admin_key, max_observed_ts=self.heard_ts)
                try:
                    async with open_websocket(self._url) as socket:
                        await self._converse(socket, conversation)
                except Unreachable as error:
                    failures = 0 if conversation.has_heard else failures + 1
                    trace.warning("remote.disconnected", url=self._url, error=str(error))
                await trio.sleep(_wait_s(failures))
        except (Unauthenticated, ProtocolViolation) as error:
            self._is_running = False
            for results in self._wanted.values():
                results.fail(error)
            self._wanted.clear()

    async def _converse(self, socket: WebSocket, conversation: Conversation) -> None:
        failed: list[EngineError] = []

        async def speak() -> None:
            for first in conversation.greeting():
                await socket.send(first)
            while True:
                wanted = [(one.number, one.target, one.journal) for one in self._wanted.values()]
                if (text := conversation.modification(wanted)) is not None:
                    await socket.send(text)
                else:
                    await self._changed.park()

        async def listen() -> None:
            while True:
                with trio.move_on_after(SILENCE_S_MAX) as silence:
                    heard = await socket.receive()
                if silence.cancelled_caught:
                    raise Unreachable(f"the server was silent for {SILENCE_S_MAX:g} s")
                self._show(conversation.receive(heard))
                self.heard_ts = max(self.heard_ts, conversation.ts)

        async def part(run: Any) -> None:
            try:
                await run()
            except EngineError as error:
                failed.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(part, speak)
            nursery.start_soon(part, listen)
        raise failed[0]

    def _show(self, shown: list[Shown]) -> None:
        for one in shown:
            if (results := self._wanted.get(one.number)) is not None:
                results.show(one)


def _wait_s(failures: int) -> float:
    return min(RETRY_S_MAX, RETRY_S * float(2 ** min(failures, 10))) * random.uniform(0.5, 1.0)


class RemoteResults(Results[Any]):
    """The results of a subscribed query of an engine elsewhere."""

    def __init__(self, home: RemoteSubscriptions, number: int, target: Target) -> None:
        self.number = number
        self.target = target
        self.journal: str | None = None
        self._home = home
        self._state: State[Any] | None = None
        self._fingerprint: Json = None
        self._ended: EngineError | None = None
        self._more = trio.lowlevel.ParkingLot()

    async def next_state(self) -> State[Any]:
        while self._state is None:
            if self._ended is not None:
                raise self._ended
            await self._more.park()
        state, self._state = self._state, None
        return state

    def show(self, shown: Shown) -> None:
        """Take a result of the server's, unless it is the one that was shown last."""
        self.journal = shown.journal
        if shown.fingerprint == self._fingerprint:
            return
        self._fingerprint = shown.fingerprint
        self._state = Failed(shown.error, shown.ts) if shown.error else Ok(shown.value, shown.ts)
        self._more.unpark_all()

    def fail(self, error: EngineError) -> None:
        """Nothing more will come."""
        self._ended = error
        self._more.unpark_all()

    def close(self) -> None:
        self._home.remove(self.number)
