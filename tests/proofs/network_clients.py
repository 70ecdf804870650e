"""
Clients of the counters who keep at it whatever their network does, and note what contradicts it.

A `Counting` speaks the sync protocol as the official clients do: what was not completed is said
again on the next connection, under its number. It writes and shows at once. A `Following` shows
through the engine's own client of servers elsewhere, and does not write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

import trio

from engine.errors import EngineError, Unreachable
from engine.host import Engine
from engine.interface import Failed, State
from engine.model.json_values import decode_ts, encode_ts
from tests.node.sockets import WebSocket, opened
from tests.proofs.network_lines import BROKEN

PACE_S: Final = 0.05
"""Between two mutations, on average."""
UNANSWERED_MAX: Final = 20
SILENCE_S_MAX: Final = 3.0
"""The server says something every second."""
OPENING_S_MAX: Final = 3.0
RETRY_S_MAX: Final = 0.2
LOOK_S: Final = 0.01
TOTAL, COUNTERS, NEWEST = range(3)


@dataclass(kw_only=True)
class Account:
    """What one client did and was told, and what contradicts it."""

    who: str
    acknowledged: dict[int, list[float]] = field(default_factory=dict)
    """By number, the answer to each mutation."""
    shown: int = 0
    """States on its screen."""
    repeated: int = 0
    connections: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        self.problems.append(f"{self.who}: {problem}")


@dataclass(kw_only=True)
class _Sent:
    """A mutation that is not completed yet."""

    number: int
    connection: int
    """The first on which it was said."""
    ts: int | None = None
    """Of its commit, once it is answered: it is completed by the transition that covers it."""


class Counting:
    """
    Args:
        dice: its session, and its pace.
    """

    def __init__(self, who: str, dice: Random) -> None:
        self.account = Account(who=who)
        self._dice = dice
        self._session = str(UUID(int=dice.getrandbits(128), version=4))
        self._number = 0
        self._unfinished: dict[int, _Sent] = {}
        self._screen: dict[int, Any] = {}
        self._ts = 0
        self._version: Any = None
        self._is_done = False

    async def count(self, url: str) -> None:
        """Connect, write and show, and connect again, until cancelled."""
        while True:
            with suppress(*BROKEN, trio.TooSlowError):
                with trio.fail_after(OPENING_S_MAX) as opening:
                    async with opened(url) as socket:
                        opening.deadline = float("inf")
                        await self._converse(socket)
            await trio.sleep(self._dice.random() * RETRY_S_MAX)

    async def finish(self) -> None:
        """Begin nothing more, and wait until all of it is completed."""
        self._is_done = True
        while self._unfinished:  # noqa: ASYNC110 - the client has nobody to tell
            await trio.sleep(LOOK_S)

    @property
    def unfinished_count(self) -> int:
        return len(self._unfinished)

    def shows(self, total: float) -> bool:
        return bool(self._screen.get(TOTAL) == total)

    async def _converse(self, socket: WebSocket) -> None:
        self._version = None
        await self._greet(socket)
        for number, sent in self._unfinished.items():
            self.account.repeated += 1
            sent.ts = None
            await self._say(socket, number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, socket)
            with suppress(*BROKEN):
                await self._listen(socket)
            nursery.cancel_scope.cancel()

    async def _greet(self, socket: WebSocket) -> None:
        observed = {"maxObservedTimestamp": encode_ts(self._ts)} if self._ts else {}
        number, self.account.connections = self.account.connections, self.account.connections + 1
        await socket.say(
            type="Connect", sessionId=self._session, connectionCount=number, **observed
        )
        shown = [("total", {}), ("counters", {}), ("newest", {"who": self.account.who})]
        adds = [
            {"type": "Add", "queryId": query, "udfPath": f"main:{path}", "args": [args]}
            for query, (path, args) in enumerate(shown)
        ]
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=adds)

    async def _write(self, socket: WebSocket) -> None:
        with suppress(*BROKEN):
            while not self._is_done:
                await trio.sleep(self._dice.expovariate(1 / PACE_S))
                if len(self._unfinished) < UNANSWERED_MAX and not self._is_done:
                    number, self._number = self._number, self._number + 1
                    sent = _Sent(number=number, connection=self.account.connections)
                    self._unfinished[number] = sent
                    await self._say(socket, number)

    async def _say(self, socket: WebSocket, number: int) -> None:
        args = {"who": self.account.who, "number": number}
        await socket.say(type="Mutation", requestId=number, udfPath="main:add", args=[args])

    # What it hears.

    async def _listen(self, socket: WebSocket) -> None:
        while True:
            with trio.move_on_after(SILENCE_S_MAX) as silence:
                text = await socket.hear_text()
            if silence.cancelled_caught or text is None:
                return
            message = json.loads(text)
            match message["type"]:
                case "Transition":
                    self._transition(message)
                case "MutationResponse":
                    self._answered(message)
                case "Ping":
                    pass
                case _:
                    self.account.note(f"heard {message}")

    def _answered(self, response: Mapping[str, Any]) -> None:
        sent = self._unfinished.get(response["requestId"])
        if sent is None or sent.ts is not None:
            return  # it came through twice
        if not response["success"]:
            self.account.note(f"failed: {response['result']}")
            return
        sent.ts = decode_ts(response["ts"])
        before = self.account.acknowledged.setdefault(sent.number, response["result"])
        if before != response["result"]:
            self.account.note(f"{sent.number} was {before} and then {response['result']}")
        is_first = sent.connection == self.account.connections
        if is_first and self._version is not None and decode_ts(self._version["ts"]) >= sent.ts:
            self.account.note(f"{sent.number} was answered after the transition that shows it")

    def _transition(self, message: Mapping[str, Any]) -> None:
        start, end = message["startVersion"], message["endVersion"]
        zero = {"querySet": 0, "identity": 0, "ts": encode_ts(0)}
        if start != (self._version or zero):
            self.account.note(f"a transition from {start}, at {self._version}")
        if decode_ts(end["ts"]) < self._ts:
            self.account.note(f"went back from {self._ts} to {decode_ts(end['ts'])}")
        self._version, self._ts = end, decode_ts(end["ts"])
        for change in message["modifications"]:
            if change["type"] == "QueryUpdated":
                self._screen[change["queryId"]] = change["value"]
            else:
                self.account.note(f"was shown {change}")
        self._complete()
        if end["querySet"]:
            self._look()

    def _complete(self) -> None:
        for number, sent in list(self._unfinished.items()):
            if sent.ts is not None and sent.ts <= self._ts:
                del self._unfinished[number]

    def _look(self) -> None:
        """Everything on the screen is of one state, and shows what was acknowledged."""
        self.account.shown += 1
        counters = self._screen[COUNTERS]
        own = counters.get(self.account.who, 0)
        newest = [own - 1 - back for back in range(len(self._screen[NEWEST]))]
        if self._screen[TOTAL] != sum(counters.values()):
            self.account.note(f"saw {self._screen[TOTAL]} and its parts {counters}")
        if self._screen[NEWEST] != newest:
            self.account.note(f"saw {self._screen[NEWEST]} as the newest of {own}")
        if own < len(self.account.acknowledged) - len(self._unfinished):
            self.account.note(f"completed {len(self.account.acknowledged)} and saw {own}")


class Following:
    """One that shows the total and the counters, and does not write."""

    def __init__(self, who: str) -> None:
        self.account = Account(who=who)
        self._last: dict[str, State[Any]] = {}

    async def follow(self, url: str) -> None:
        """Show until cancelled."""
        while True:
            with suppress(Unreachable):
                async with Engine.connect(url) as far, trio.open_nursery() as nursery:
                    nursery.start_soon(self._follow, far, "main:total")
                    nursery.start_soon(self._follow, far, "main:counters")
            await trio.sleep(RETRY_S_MAX)

    async def _follow(self, far: Any, path: str) -> None:
        try:
            async with far.subscribe(path) as results:
                async for state in results.states():
                    self._take(path, state)
        except EngineError as error:
            self.account.note(f"{path} ended: {error}")

    def _take(self, path: str, state: State[Any]) -> None:
        if isinstance(state, Failed):
            self.account.note(f"{path} failed: {state.error}")
            return
        before = self._last.get(path)
        if before is not None and state.ts < before.ts:
            self.account.note(f"{path} went back from {before.ts} to {state.ts}")
        self._last[path] = state
        self.account.shown += 1
        total, counters = self._last.get("main:total"), self._last.get("main:counters")
        if total is None or counters is None or total.ts != counters.ts:
            return
        if _value(total) != sum(_value(counters).values()):
            self.account.note(f"saw {_value(total)} and its parts {_value(counters)}")

    def shows(self, total: float) -> bool:
        found, parts = self._last.get("main:total"), self._last.get("main:counters")
        if found is None or parts is None:
            return False
        return bool(_value(found) == total == sum(_value(parts).values()))


def _value(state: State[Any]) -> Any:
    assert not isinstance(state, Failed)
    return state.value
