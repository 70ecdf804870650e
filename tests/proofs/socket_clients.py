"""
Clients of a served engine over real sockets, who note in a history what they do and are told.

Most speak the sync protocol, as the official clients do: a session survives its connections, and
a mutation whose answer was lost is sent again under its number.  Some of them watch: what they have
asked for stays on their screen, and each state that is shown is an operation of its own.  The
others speak HTTP, where a lost answer stays lost.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

import trio

from tests.node.sockets import WebSocket, dialled, exchange, opened, post
from tests.proofs.histories import History, Operation, Read
from tests.simulation.lists import (
    ACT,
    LOOK,
    Program,
    Programs,
    appends,
    is_meant_to_fail,
    steps_taken,
    undone,
)

STUFFING_COUNT: Final = 12
"""Documents of a transaction for which there is no room."""
LOST: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
"""How a connection ends."""
READS_AT_A_TIME: Final = 50


class Lost(OSError):
    """The other side has closed, or this one has hung up."""


@dataclass(kw_only=True)
class Crowd:
    """What all clients share."""

    dice: Random
    programs: Programs
    history: History = field(default_factory=History)
    problems: list[str] = field(default_factory=list)
    """Failures that nobody had planned."""
    answered: int = 0
    shown: int = 0
    hung_up: int = 0
    sent_again: int = 0
    refused: int = 0
    """Transactions for which there was no room."""

    def begin(self, name: str, program: Program) -> Operation:
        return self.history.begin(name, appends(program), undone(program))

    def done(self, operation: Operation, program: Program, results: Sequence[Any]) -> None:
        self.answered += 1
        self.history.done(operation, steps_taken(program, results))
        self.programs.learn(program, results)

    def failed(self, operation: Operation, program: Program, message: str) -> None:
        self.answered += 1
        self.refused += program[-1][0] == "stuff"
        self.history.aborted(operation)
        if not is_meant_to_fail(program):
            self.problems.append(f"{operation} failed: {message}")

    def change(self) -> Program:
        if self.dice.random() < 0.001:
            return self.programs.stuffing(STUFFING_COUNT)
        return self.programs.change()


@dataclass(kw_only=True)
class _Sent:
    """A mutation that was not answered yet."""

    operation: Operation
    program: Program
    request_id: int


class SyncClient:
    """
    Args:
        watches: keeps on its screen what it has asked for.
    """

    def __init__(self, crowd: Crowd, number: int, *, watches: bool) -> None:
        self._crowd = crowd
        self._number = number
        self._watches = watches
        self._session = 0
        self._connections = 0
        self._requests = 0
        self._sent: _Sent | None = None
        self._version = 0
        self._asked = 0
        self._asking: dict[int, Program] = {}
        self._screen: dict[int, tuple[Program, list[Any]]] = {}

    @property
    def name(self) -> str:
        return f"client {self._number}.{self._session}"

    @asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[WebSocket]:
        """A connection of its session, on which what was lost is sent again."""
        async with opened(url) as socket:
            session_id = str(UUID(int=self._number << 64 | self._session))
            await socket.say(
                type="Connect", sessionId=session_id, connectionCount=self._connections
            )
            self._connections += 1
            self._version, self._asking, self._screen = 0, {}, {}
            if self._sent is not None:
                self._crowd.sent_again += 1
                await self._finish(socket, self._sent)
            yield socket

    def forget(self) -> None:
        """Somebody else goes on in its place, and never learns what became of its mutation."""
        if self._sent is not None:
            self._sent = None
            self._session += 1
            self._requests = 0

    async def step(self, socket: WebSocket) -> None:
        """One transaction, from asking to being told."""
        if self._crowd.dice.random() < 0.25:
            await self._ask(socket)
        else:
            await self._change(socket)

    async def _change(self, socket: WebSocket) -> None:
        program = self._crowd.change()
        operation = self._crowd.begin(self.name, program)
        self._sent = _Sent(operation=operation, program=program, request_id=self._requests)
        self._requests += 1
        await self._finish(socket, self._sent)

    async def _finish(self, socket: WebSocket, sent: _Sent) -> None:
        call = {"requestId": sent.request_id, "udfPath": ACT, "args": [{"steps": sent.program}]}
        await socket.say(type="Mutation", **call)
        if self._crowd.dice.random() < 0.002:
            self._crowd.hung_up += 1
            raise Lost
        answer = await self._hear(socket, "MutationResponse")
        assert answer["requestId"] == sent.request_id, answer
        self._sent = None
        if answer["success"]:
            self._crowd.done(sent.operation, sent.program, answer["result"])
        else:
            self._crowd.failed(sent.operation, sent.program, answer["result"])

    async def _ask(self, socket: WebSocket) -> None:
        """Put one or two queries on the screen instead of what is there: all at one timestamp."""
        programs = [self._crowd.programs.look() for _ in range(self._crowd.dice.randint(1, 2))]
        program = [step for one in programs for step in one]
        operation = self._crowd.begin(self.name, program)
        await self._show(socket, programs)
        while len(self._screen) < len(programs):
            await self._hear(socket, "Transition")
        self._crowd.done(operation, program, self._results())
        if self._watches:
            self._shown()
        else:
            await self._show(socket, [])

    async def _show(self, socket: WebSocket, programs: Sequence[Program]) -> None:
        changes: list[dict[str, Any]] = [
            {"type": "Remove", "queryId": query_id} for query_id in self._asking
        ]
        self._asking = {self._asked + at: program for at, program in enumerate(programs)}
        self._asked += len(programs)
        changes += [
            {"type": "Add", "queryId": query_id, "udfPath": LOOK, "args": [{"steps": program}]}
            for query_id, program in self._asking.items()
        ]
        base, self._version = self._version, self._version + 1
        self._screen = {}
        await socket.say(
            type="ModifyQuerySet", baseVersion=base, newVersion=self._version, modifications=changes
        )

    async def _hear(self, socket: WebSocket, kind: str) -> dict[str, Any]:
        """The next message of a kind; transitions are taken in, whenever they come."""
        while (message := await socket.hear()) is not None:
            if message["type"] == "Transition":
                self._take_in(message)
            if message["type"] == kind:
                return message
        raise Lost

    def _take_in(self, transition: dict[str, Any]) -> None:
        if transition["endVersion"]["querySet"] != self._version:
            return  # of what is no longer on the screen
        before = len(self._screen)
        for change in transition["modifications"]:
            if change["type"] == "QueryFailed":
                self._crowd.problems.append(f"{self.name} was shown {change['errorMessage']}")
            if change["type"] == "QueryUpdated":
                program = self._asking[change["queryId"]]
                self._screen[change["queryId"]] = (program, change["value"])
        if len(self._screen) < len(self._asking):
            self._crowd.problems.append(f"{self.name} was shown a part of what it asked for")
        if before and before == len(self._screen):
            self._shown()

    def _shown(self) -> None:
        """What is on the screen is a state that there was."""
        self._crowd.shown += 1
        program = [step for one, _ in self._screen.values() for step in one]
        self._crowd.history.shown(f"{self.name}'s screen", _reads(program, self._results()))

    def _results(self) -> list[Any]:
        return [result for _, results in self._screen.values() for result in results]


class HttpClient:
    """One that asks by HTTP on a connection that is kept."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._name = f"client {number}"

    @asynccontextmanager
    async def connected(self, url: str) -> AsyncIterator[trio.SocketStream]:
        async with await dialled(url) as stream:
            yield stream

    def forget(self) -> None:
        """What was lost is lost."""

    async def step(self, stream: trio.SocketStream) -> None:
        """One transaction, from asking to being told."""
        if self._crowd.dice.random() < 0.5:
            await self._call(stream, "query", LOOK, self._crowd.programs.look())
        else:
            await self._call(stream, "mutation", ACT, self._crowd.change())

    async def read_all(self, stream: trio.SocketStream) -> None:
        """Of every list, what is there in the end."""
        keys = self._crowd.programs.keys
        for first in range(0, len(keys), READS_AT_A_TIME):
            program: Program = [["read", key] for key in keys[first : first + READS_AT_A_TIME]]
            await self._call(stream, "query", LOOK, program)

    async def _call(
        self, stream: trio.SocketStream, kind: str, path: str, program: Program
    ) -> None:
        operation = self._crowd.begin(self._name, program)
        call = {"path": path, "args": {"steps": program}, "format": "json"}
        status, body = await exchange(stream, post(f"/api/{kind}", call))
        if status == 500:
            raise Lost(body.decode())  # it may or may not be done
        answer = json.loads(body)
        if status == 200 and answer["status"] == "success":
            self._crowd.done(operation, program, answer["value"])
        else:
            self._crowd.failed(operation, program, body.decode())


Client = SyncClient | HttpClient


def _reads(program: Program, results: Sequence[Any]) -> list[Read]:
    return [step for step in steps_taken(program, results) if isinstance(step, Read)]
