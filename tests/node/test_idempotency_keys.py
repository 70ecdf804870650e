"""Mutations that a program sends again over HTTP, with the key that it gave them first."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from engine.functions.results import Caller as Nobody
from engine.model.limits import IDEMPOTENCY_KEY_CHARS_MAX
from engine.remote.failures import without_request
from engine.server.idempotency import session_request
from engine.serving import Served, serving
from tests.node.sockets import opened

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

APP = """
import time

from engine import (
    ActionCtx, MutationCtx, QueryCtx, Secret, action, internal_mutation, mutation, query
)

@mutation
async def add(ctx: MutationCtx, number: float = 0.0, other: str = "", fails: bool = False) -> int:
    await ctx.db.insert("things", {"number": number})
    if fails:
        raise ValueError("no")
    return await ctx.db.count("things")

@mutation
async def log_in(ctx: MutationCtx, password: Secret[str]) -> None:
    pass

@internal_mutation
async def hidden(ctx: MutationCtx) -> int:
    await ctx.db.insert("things", {"number": 1.0})
    return await ctx.db.count("things")

@query
async def count(ctx: QueryCtx) -> int:
    return await ctx.db.count("things")

@action
async def act(ctx: ActionCtx) -> None:
    raise AssertionError("it ran")
"""


class Caller:
    """Whoever sends requests to a server; an administrator, or acting as a user."""

    def __init__(self, served: Served, as_user: str | None = None) -> None:
        self._url = served.url
        self._headers = {}
        if as_user is not None:
            user = json.dumps({"issuer": "https://i.example", "subject": as_user})
            encoded = f":{base64.b64encode(user.encode()).decode()}" if as_user else ""
            self._headers = {"Authorization": f"Convex {served.admin_key}{encoded}"}

    async def post(self, where: str, key: str | None, **document: Any) -> httpx.Response:
        headers = self._headers if key is None else {**self._headers, "Idempotency-Key": key}
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.post(f"{self._url}/api/{where}", json=document, headers=headers)

    async def add(self, key: str | None, **args: Any) -> Any:
        response = await self.post("mutation", key, path="shop:add", args=args)
        assert response.status_code == 200, response.text
        return response.json().get("value")

    async def count(self) -> Any:
        return (await self.post("query", None, path="shop:count", args={})).json()["value"]


@asynccontextmanager
async def shop(folder: Path) -> AsyncIterator[Served]:
    app = folder / "shop.py"
    app.write_text(APP)
    async with serving(folder / "data", app=app, bind="127.0.0.1:0", dev=True) as served:
        yield served


async def test_a_mutation_that_is_sent_again_with_its_key_runs_once(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        ada = Caller(served)
        call = {"path": "shop:add", "args": {"number": 1, "other": "x"}, "wantsTs": True}
        other_spelling = {"path": "shop.js:add", "args": [{"other": "x", "number": 1.0}]}
        first = await ada.post("mutation", "k", **call)
        await ada.add(None)
        again = await ada.post("mutation", "k", **call)
        spelled = await ada.post("mutation", "k", **other_spelling)

        assert first.json()["value"] == 1
        assert first.json()["ts"]
        assert again.content == first.content
        assert spelled.json()["value"] == 1
        assert await ada.count() == 2


async def test_it_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        first = await Caller(served).add("k")
    async with shop(tmp_path) as served:
        await Caller(served).add("another")

        assert first == await Caller(served).add("k")
        assert await Caller(served).count() == 2


async def test_those_that_come_while_it_runs_wait_for_its_answer(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        answers: list[Any] = []

        async def send() -> None:
            answers.append(await Caller(served).add("k"))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send)

        assert answers == [1] * 20


@pytest.mark.parametrize(
    ("path", "args"),
    [("shop:add", {"number": 2}), ("shop:log_in", {"password": "x"})],
)
async def test_a_key_that_was_given_to_another_call_is_refused(
    path: str, args: Any, tmp_path: Path
) -> None:
    async with shop(tmp_path) as served:
        ada = Caller(served)
        await ada.add("k", number=1)
        refused = await ada.post("mutation", "k", path=path, args=args)

        assert (refused.status_code, refused.json()["code"]) == (409, "IdempotencyKeyReused")
        assert await ada.count() == 1
        assert await ada.add("k", number=1) == 1


@pytest.mark.parametrize("path", ["shop:nothing", "shop:hidden", "shop:count", "shop:act"])
async def test_of_what_cannot_be_called_a_used_key_says_nothing(path: str, tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        ada = Caller(served)
        await ada.add("k")
        with_key, without = [
            (await ada.post("mutation", key, path=path, args={})).json()["errorMessage"]
            for key in ("k", None)
        ]

        assert without_request(with_key) == without_request(without)


async def test_two_callers_may_have_the_same_key(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        callers = [Caller(served, as_user) for as_user in (None, "", "ada", "bob")]
        first = [await caller.add("k") for caller in callers]
        again = [await caller.add("k") for caller in callers]

        assert first == again == [1, 2, 3, 4]


async def test_one_that_failed_is_not_remembered(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        assert await Caller(served).add("k", fails=True) is None
        assert await Caller(served).add("k") == 1


async def test_whatever_runs_a_mutation_takes_a_key(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        ada, administrator = Caller(served), Caller(served, "")
        for _ in range(2):
            run = await ada.post("run/shop/add", "k", args={"number": 5})
            hidden = await administrator.post("function", "k", path="shop:hidden", args={})
            assert (run.json()["value"], hidden.json()["value"]) == (1, 2)
        elsewhere = await ada.add("k", number=5)
        asked = await ada.post("run/shop/count", "k", args={})

        assert (elsewhere, asked.json()["value"]) == (1, 2)


@pytest.mark.parametrize("where", ["action", "run/shop/act"])
async def test_an_action_takes_no_key_and_does_not_run(where: str, tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        refused = await Caller(served).post(where, "k", path="shop:act", args={})

        no_values = await Caller(served).post(where, "k", path="shop:act", args=[1])

        assert no_values.status_code == 400
        assert (refused.status_code, refused.json()["code"]) == (400, "BadIdempotencyKey")
        assert "schedules the action" in refused.json()["message"]


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("", 400),
        ("x" * (IDEMPOTENCY_KEY_CHARS_MAX + 1), 400),
        ("x" * IDEMPOTENCY_KEY_CHARS_MAX, 200),
        ('"8e03978e-40d5-43dd-bc93-6894a57f9324"', 200),
    ],
)
async def test_a_key_is_of_a_bounded_length(key: str, status: int, tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        answer = await Caller(served).post("mutation", key, path="shop:add", args={})

        assert answer.status_code == status


async def test_neither_a_key_nor_a_secret_argument_is_kept_in_clear(tmp_path: Path) -> None:
    async with shop(tmp_path) as served:
        call = {"path": "shop:log_in", "args": {"password": "canary-of-the-secret"}}
        await Caller(served).post("mutation", "canary-of-the-key", **call)
        await Caller(served).add(None, other="no canary")
    kept = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*") if file.is_file())

    assert b"no canary" in kept
    assert b"canary-of-the-key" not in kept
    assert b"canary-of-the-secret" not in kept


async def test_a_session_with_the_digest_of_a_key_has_nothing_to_do_with_it(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as served:
        assert await Caller(served).add("before") == 1
        assert await _add_in_the_session_of("before", served) == 2
        assert await _add_in_the_session_of("after", served) == 3
        assert await Caller(served).add("after") == 4
        again = [await Caller(served).add(key) for key in ("before", "after")]

        assert again == [1, 4]


async def _add_in_the_session_of(key: str, served: Served) -> Any:
    """What a client is answered that names its session by what the key is kept under."""
    kept = session_request(key, "shop:add", {}, "", Nobody())
    async with opened(served.url) as socket:
        await socket.say(type="Connect", sessionId=kept.session_id.hex(), connectionCount=0)
        await socket.say(type="Mutation", requestId=0, udfPath="shop:add", args=[{}])
        return (await socket.hear_until("MutationResponse"))["result"]
