"""By the id that a client is told, operators find what happened."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.functions.history import ExecutionRecord
from engine.serving import Served, serving
from tests.node.sockets import SESSION, WebSocket, dialled, exchange, opened, post

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")

APP = """
from engine import ActionCtx, MutationCtx, QueryCtx, action, internal_mutation, internal_query
from engine import query

@internal_query
async def innermost(ctx: QueryCtx) -> None:
    raise LookupError("nothing there")

@internal_mutation
async def inner(ctx: MutationCtx) -> None:
    await ctx.run_query(innermost)

@internal_mutation
async def later(ctx: MutationCtx) -> None:
    pass

@action
async def outer(ctx: ActionCtx) -> None:
    await ctx.scheduler.run_after(0, later)
    await ctx.run_mutation(inner)

@query
async def fail(ctx: QueryCtx) -> None:
    raise LookupError("nothing there")
"""


@asynccontextmanager
async def production(folder: Path) -> AsyncIterator[tuple[Served, WebSocket]]:
    (folder / "ids_app.py").write_text(APP)
    place = folder / "data"
    async with (
        serving(place, app=folder / "ids_app.py", bind="127.0.0.1:0", dev=False) as served,
        opened(served.url) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        yield served, socket


def id_in(message: str) -> str:
    """The id in what a client is told in production, which is nothing else."""
    found = re.fullmatch(r"\[Request ID: ([0-9a-f]{16})\] Server Error", message)
    assert found, message
    return found[1]


def records_of(served: Served, request_id: str) -> list[ExecutionRecord]:
    every = served.engine.executions.after(0)
    return [record for _, record in every if record.request_id == request_id]


async def test_all_that_a_request_runs_is_found_by_its_id_and_jobs_have_their_own(
    tmp_path: Path,
) -> None:
    async with production(tmp_path) as (served, socket):
        await socket.say(type="Action", requestId=1, udfPath="ids_app:outer", args=[{}])
        failed = await socket.hear_until("ActionResponse")
        found = records_of(served, id_in(failed["result"]))
        with trio.fail_after(5):
            while not (jobs := _of(served, "ids_app:later")):  # noqa: ASYNC110 - nobody says
                await trio.sleep(0.01)

        assert ["ids_app:inner", "ids_app:outer"] == [record.path for record in found]
        assert all("LookupError: nothing there" in (record.error or "") for record in found)
        assert jobs[0].request_id not in ("", found[0].request_id)


def _of(served: Served, path: str) -> list[ExecutionRecord]:
    return [record for _, record in served.engine.executions.after(0) if record.path == path]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"udfPath": "ids_app:fail"}, "LookupError: nothing there"),
        ({"udfPath": "ids_app:nope"}, "Could not find public function for 'ids_app:nope'."),
        ({"udfPath": "ids_app:fail", "args": 5}, "Invalid arguments for ids_app:fail: "),
        ({"udfPath": "ids_app:fail", "args": [{"$": 1}]}, "Invalid arguments for ids_app:fail: "),
        (
            {"udfPath": "ids_app:fail", "componentPath": "x"},
            "Could not find public function for 'ids_app:fail' in 'x'.",
        ),
    ],
    ids=["fails", "is not there", "has no arguments", "has no values", "is of a component"],
)
async def test_what_a_client_in_production_is_not_told_is_found_by_the_id_that_it_is_told(
    call: dict[str, Any], says: str, tmp_path: Path
) -> None:
    async with production(tmp_path) as (served, socket):
        ids = [
            await _asked_live(socket, call),
            await _asked(socket, "Mutation", call),
            await _asked(socket, "Action", call),
            await _asked_over_http(served, call),
        ]

        for request_id in ids:
            [record] = records_of(served, request_id)
            is_of_another_kind = "Trying to execute" in (record.error or "")
            assert says in (record.error or "") or is_of_another_kind
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("path", "kinds"),
    [("fail", ["query"]), ("outer", ["action"]), ("inner", ["query"]), ("nope", ["query"])],
    ids=["a query", "an action", "what is internal", "nothing"],
)
async def test_a_function_of_any_kind_is_called_and_recorded_once(
    path: str, kinds: list[str], tmp_path: Path
) -> None:
    async with production(tmp_path) as (served, _), await dialled(served.url) as stream:
        _, answer = await exchange(stream, post(f"/api/run/ids_app/{path}", {"args": {}}))
        found = records_of(served, id_in(json.loads(answer)["errorMessage"]))

        assert [each.kind for each in found if each.path == f"ids_app:{path}"] == kinds


async def _asked_live(socket: WebSocket, call: dict[str, Any]) -> str:
    add = {"type": "Add", "queryId": 0, **call}
    await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
    [change] = (await socket.hear_until("Transition"))["modifications"]
    return id_in(change["errorMessage"])


async def _asked(socket: WebSocket, kind: str, call: dict[str, Any]) -> str:
    await socket.say(type=kind, requestId=len(kind), **call)
    return id_in((await socket.hear_until(f"{kind}Response"))["result"])


async def _asked_over_http(served: Served, call: dict[str, Any]) -> str:
    names = {"udfPath": "path", "componentPath": "componentPath", "args": "args"}
    body = {names[name]: value for name, value in call.items()}
    async with await dialled(served.url) as stream:
        _, answer = await exchange(stream, post("/api/query", body))
    return id_in(json.loads(answer)["errorMessage"])


async def test_an_administrator_is_told_everything_and_no_longer_when_he_signs_out(
    tmp_path: Path,
) -> None:
    async with production(tmp_path) as (served, socket):
        first = await _asked_live(socket, {"udfPath": "ids_app:fail"})
        key = served.admin_key
        await socket.say(type="Authenticate", baseVersion=0, tokenType="Admin", value=key)
        [told] = (await socket.hear_until("Transition"))["modifications"]
        await socket.say(type="Authenticate", baseVersion=1, tokenType="None")
        [again] = (await socket.hear_until("Transition"))["modifications"]

        assert "LookupError: nothing there" in told["errorMessage"]
        assert id_in(again["errorMessage"]) != first
