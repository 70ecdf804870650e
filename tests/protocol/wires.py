"""A client's end of an ASGI connection, in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import trio

from engine.app.component import AuthProvider
from engine.kernel.actor import running
from engine.kernel.runtime import VirtualRuntime
from engine.model.limits import Limits
from engine.server.server import Server, ServerConfig
from tests.protocol.cells import Cells
from tests.protocol.talk import SESSION

ADMIN_KEY = "test|0123456789"


class Wire:
    """One WebSocket connection; the server reads and writes it as ASGI events."""

    def __init__(self) -> None:
        self._to_server, self._from_client = trio.open_memory_channel[dict[str, Any]](1000)
        self._to_client, self._from_server = trio.open_memory_channel[dict[str, Any]](1000)
        self.is_read = trio.Event()
        self.is_read.set()
        """While it is not set, the client takes nothing it is sent."""
        self.broken: Exception | None = None
        """Raised by the host to whoever sends."""
        self.closed: tuple[int, str] | None = None
        self.query_set = 0

    # The server's end.

    async def receive(self) -> dict[str, Any]:
        return await self._from_client.receive()

    async def send(self, event: dict[str, Any]) -> None:
        await self.is_read.wait()
        if self.broken is not None:
            raise self.broken
        await self._to_client.send(event)

    # The client's end.

    @property
    def unread_count(self) -> int:
        """Messages that the server has not taken."""
        return self._to_server.statistics().current_buffer_used

    @property
    def unheard_count(self) -> int:
        """Messages that the client has not heard."""
        return self._to_client.statistics().current_buffer_used

    async def say(self, **message: Any) -> None:
        await self.say_text(json.dumps(message))

    async def say_text(self, text: str) -> None:
        await self._to_server.send({"type": "websocket.receive", "text": text})

    async def say_event(self, **event: Any) -> None:
        await self._to_server.send(event)

    async def hang_up(self) -> None:
        await self._to_server.send({"type": "websocket.disconnect", "code": 1006})

    async def connect(self, **fields: Any) -> None:
        await self.say(**{"type": "Connect", "sessionId": SESSION, "connectionCount": 0, **fields})

    async def act_as(self, name: str) -> None:
        """Be an administrator who acts as this user."""
        await self.say(
            type="Authenticate",
            baseVersion=0,
            tokenType="Admin",
            value=f"prod:{ADMIN_KEY}",
            impersonating={"tokenIdentifier": f"i|{name}", "issuer": "i", "subject": name},
        )

    async def add(self, query_id: int, path: str, args: Any = None, **fields: Any) -> None:
        await self.modify(
            {"type": "Add", "queryId": query_id, "udfPath": path, "args": [args or {}], **fields}
        )

    async def modify(self, *modifications: dict[str, Any]) -> None:
        base, self.query_set = self.query_set, self.query_set + 1
        await self.say(
            type="ModifyQuerySet",
            baseVersion=base,
            newVersion=self.query_set,
            modifications=modifications,
        )

    async def mutate(self, number: int, path: str, **args: Any) -> None:
        await self.say(type="Mutation", requestId=number, udfPath=path, args=[args])

    async def act(self, number: int, path: str, **args: Any) -> None:
        await self.say(type="Action", requestId=number, udfPath=path, args=[args])

    async def hear(self) -> dict[str, Any]:
        """The server's next message; closing is one of type "closed"."""
        event = await self._from_server.receive()
        if event["type"] == "websocket.accept":
            return await self.hear()
        if event["type"] == "websocket.close":
            self.closed = (event["code"], event.get("reason", ""))
            await self.hang_up()
            return {"type": "closed", "code": event["code"], "reason": event.get("reason", "")}
        message: dict[str, Any] = json.loads(event["text"])
        return message

    async def hear_until(self, kind: str) -> dict[str, Any]:
        with trio.fail_after(600):
            while (message := await self.hear())["type"] != kind:
                pass
        return message

    async def hear_all(self) -> list[dict[str, Any]]:
        """Everything that is said until there is silence for a second, pings aside."""
        heard = []
        with trio.move_on_after(1):
            while True:
                message = await self.hear()
                if message["type"] != "Ping":
                    heard.append(message)
        return heard


class Turns:
    """How often somebody who does nothing else had his turn."""

    def __init__(self) -> None:
        self.count = 0

    async def take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


class House:
    """A running server on a backend in memory."""

    def __init__(self, server: Server, cells: Cells, nursery: trio.Nursery) -> None:
        self.server = server
        self.cells = cells
        self.nursery = nursery

    def open(
        self,
        path: str = "/api/1.48.0/sync",
        root_path: str = "",
        *,
        extensions: Mapping[str, object] = MappingProxyType({}),
    ) -> Wire:
        """Connect a WebSocket, by a host that has these `extensions`."""
        wire = Wire()
        scope = {
            "type": "websocket",
            "path": path,
            "root_path": root_path,
            "headers": [],
            "extensions": extensions,
        }
        wire._to_server.send_nowait({"type": "websocket.connect"})
        self.nursery.start_soon(self.server, scope, wire.receive, wire.send)
        return wire

    async def dial(self, **fields: Any) -> Wire:
        """Connect a WebSocket, and say so."""
        wire = self.open()
        await wire.connect(**fields)
        return wire

    async def http(
        self,
        method: str,
        path: str,
        body: bytes | str | dict[str, Any] | None = None,
        *,
        headers: dict[str, str] | None = None,
        root_path: str = "",
    ) -> Reply:
        """Make a request; a dict is sent as JSON."""
        sent = {"content-type": "application/json"} if isinstance(body, dict) else {}
        sent |= headers or {}
        data = json.dumps(body) if isinstance(body, dict) else body or b""
        return await self.request(method, path, data, sent, root_path)

    async def request(
        self, method: str, path: str, body: bytes | str, headers: dict[str, str], root_path: str
    ) -> Reply:
        raw = body.encode() if isinstance(body, str) else body
        where, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": where,
            "root_path": root_path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        parts = [raw[at : at + 1000] for at in range(0, len(raw), 1000)] or [b""]
        events: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": True} for part in parts
        ]
        events[-1]["more_body"] = False
        reply = Reply()

        async def receive() -> dict[str, Any]:
            if events:
                return events.pop(0)
            await trio.sleep_forever()
            raise AssertionError

        await self.server(scope, receive, reply.take)
        return reply


class Reply:
    """What a request was answered."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def take(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = {name.decode(): value.decode() for name, value in event["headers"]}
        else:
            self.body += event["body"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@asynccontextmanager
async def serving(
    cells: Cells,
    *,
    limits: Limits | None = None,
    config: ServerConfig | None = None,
    providers: Sequence[AuthProvider] = (),
    **options: Any,
) -> AsyncIterator[House]:
    """A server for the length of the block."""
    server = Server(
        cells,
        runtime=VirtualRuntime(seed=7),
        limits=limits or Limits(),
        config=config or ServerConfig(admin_key=ADMIN_KEY),
        providers=lambda: providers,
        **options,
    )
    async with trio.open_nursery() as nursery, running(server, grace_s=5):
        yield House(server, cells, nursery)
        nursery.cancel_scope.cancel()
