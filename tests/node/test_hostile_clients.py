"""Clients that send what nobody expects: each is answered, and nobody else notices."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.server.large_text import LARGE_BYTES_MIN
from engine.serving import Served, serving
from tests.node.sockets import (
    SESSION,
    TEXT,
    WebSocket,
    dialled,
    exchange,
    frame,
    opened,
    post,
    posted,
)

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

HALF = "\ud800"
"""Half a surrogate pair: JSON can spell it, UTF-8 cannot."""
FUNCTIONS = [
    f"/api/{name}"
    for name in ("query", "mutation", "action", "function", "query_at_ts", "query_batch", "run/*")
]
"""Where functions are called with a body."""
APP = """
from engine import MutationCtx, QueryCtx, mutation, query

@mutation
async def put(ctx: MutationCtx) -> str:
    return "put"

@query
async def show(ctx: QueryCtx) -> str:
    return "shown"
"""


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[Served]:
    (folder / "hostile_app.py").write_text(APP)
    app = folder / "hostile_app.py"
    async with serving(folder / "data", app=app, bind="127.0.0.1:0", dev=True) as served:
        yield served


@asynccontextmanager
async def connected(served: Served) -> AsyncIterator[WebSocket]:
    async with opened(served.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        yield socket


async def request(served: Served, data: bytes) -> tuple[int, bytes]:
    async with await dialled(served.url) as stream:
        return await exchange(stream, data)


def nested(depth: int, inner: str = "") -> str:
    return "[" * depth + inner + "]" * depth


async def add(socket: WebSocket, path: str, version: int = 0, **fields: Any) -> None:
    added = {"type": "Add", "queryId": version, "udfPath": path, "args": [{}], **fields}
    await socket.say(
        type="ModifyQuerySet",
        baseVersion=version,
        newVersion=version + 1,
        modifications=[added],
    )


@pytest.mark.parametrize(
    "call",
    [
        {"path": HALF, "args": {}},
        {"path": f"hostile_app:{HALF}", "args": {}},
        {"path": "hostile_app:show", "args": {HALF: 1}},
        {"path": "hostile_app:show", "args": {"a": HALF}},
        {"path": "hostile_app:show", "args": {}, "componentPath": HALF},
    ],
    ids=ascii,
)
async def test_a_request_that_cannot_be_spelled_fails_as_any_other(
    call: dict[str, Any], tmp_path: Path
) -> None:
    async with deployed(tmp_path) as served:
        for kind in ("query", "mutation", "action"):
            status, body = await request(served, post(f"/api/{kind}", call))

            assert (200, "error") == (status, json.loads(body)["status"])

        status, page = await request(served, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert (200, True) == (status, b"Headrace is running" in page)


@pytest.mark.parametrize("fields", [{}, {"componentPath": HALF}, {"args": [{HALF: 1}]}], ids=ascii)
@pytest.mark.parametrize("path", [HALF, "hostile_app:put"], ids=ascii)
async def test_a_call_that_cannot_be_spelled_costs_nobody_the_connection(
    path: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    async with deployed(tmp_path) as served, connected(served) as socket:
        for number, kind in enumerate(("Mutation", "Action")):
            call = {"requestId": number, "udfPath": path, "args": [{}], **fields}
            await socket.say(type=kind, **call)
            await socket.hear_until(f"{kind}Response")
        await add(socket, path, 0, **fields)
        await socket.hear_until("Transition")
        await add(socket, "hostile_app:show", 1, journal=HALF)

        await socket.say(type="Mutation", requestId=9, udfPath="hostile_app:put", args=[{}])
        assert "put" == (await socket.hear_until("MutationResponse"))["result"]


async def test_a_long_name_is_not_said_back_at_length(tmp_path: Path) -> None:
    long = "a" * 1_000_000
    async with deployed(tmp_path) as served:
        async with connected(served) as socket:
            calls: list[dict[str, Any]] = [
                {"udfPath": long},
                {"udfPath": f"m:{long}", "componentPath": long},
                {"udfPath": long, "args": 5},
            ]
            for number, call in enumerate(calls):
                await socket.say(type="Mutation", requestId=number, **{"args": [{}], **call})
                answer = await socket.hear_until("MutationResponse")
                assert len(answer["result"]) < 2_000
        async with opened(served.url) as socket:
            await socket.say(type="Connect", sessionId=long, connectionCount=0)
            assert len((await socket.hear_until("FatalError"))["error"]) < 2_000

        executions = served.engine.executions
        assert max(len(record.path) for _, record in executions.after(0)) < 2_000


async def test_a_large_body_nests_no_deeper_than_a_small_one_wherever_it_is_posted(
    tmp_path: Path,
) -> None:
    padding = " " * LARGE_BYTES_MIN
    pairs = [
        (nested(9_000), nested(40_000)),
        (nested(9_000), nested(9_000, padding)),
        (nested(990), nested(990, padding)),
    ]
    async with deployed(tmp_path) as served:
        key = f"Authorization: Convex {served.admin_key}\r\n"
        routes = [one for one in served.engine.server._http._routes if one.method == "POST"]
        for route, field, (small, large) in product(routes, ("args", "queries", "unknown"), pairs):
            path = route.path.replace("*", "hostile_app/show")
            bodies = [f'{{"{field}":{value}}}'.encode() for value in (small, large)]
            said = [await request(served, posted(path, body, key)) for body in bodies]

            assert said[0] == said[1], (path, field)
            assert said[0][0] != 500, (path, field)
            if route.path in FUNCTIONS and small != pairs[-1][0]:
                assert (400, True) == (said[0][0], b"nested too deep" in said[0][1])

        assert set(FUNCTIONS) <= {route.path for route in routes}


@pytest.mark.parametrize(
    "fields",
    [
        {"tokenType": "Admin", "value": f"{HALF}é"},
        {"tokenType": "Admin", "value": f"a|b:{HALF}"},
        {"tokenType": "User", "value": HALF},
        {"tokenType": "User", "value": f"{HALF}.{HALF}.{HALF}"},
    ],
    ids=ascii,
)
async def test_a_token_that_cannot_be_spelled_is_refused(
    fields: dict[str, str], tmp_path: Path
) -> None:
    async with deployed(tmp_path) as served, connected(served) as socket:
        await socket.say(type="Authenticate", baseVersion=0, **fields)

        assert (await socket.hear_until("AuthError"))["authUpdateAttempted"]
        assert (None, 1000) == (await socket.hear(), socket.close_code)


async def test_a_client_that_goes_on_after_it_was_refused_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    event = frame(TEXT, b'{"type":"Event"}')
    async with deployed(tmp_path) as served:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(10):
            async with opened(served.url) as socket:
                await socket.stream.send_all(frame(TEXT, b"no message") + event * 100)
                await socket.hear_until("FatalError")
                await socket.is_over()

        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > before:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_an_administrator_may_act_as_whom_nobody_can_spell(tmp_path: Path) -> None:
    async with deployed(tmp_path) as served, connected(served) as socket:
        await socket.say(
            type="Authenticate",
            baseVersion=0,
            tokenType="Admin",
            value=served.admin_key,
            impersonating={"issuer": HALF, "subject": HALF, HALF: HALF},
        )
        await add(socket, "hostile_app:show")
        heard = await socket.hear_until("Transition")
        while not heard["modifications"]:
            heard = await socket.hear_until("Transition")

        assert "shown" == heard["modifications"][0]["value"]
