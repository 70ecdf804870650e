"""What operators ask of a server about its log: also wrongly, and of records that are large."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.app.types import Secret
from engine.errors import EngineError, OutOfRetention, RequestRefused, SnapshotTooOld
from engine.model.limits import Limits
from engine.node import Node
from engine.server.requests import Incoming, Request
from engine.serving import administration
from engine.serving.administration import Administration
from tests.node.nodes import mutate, serving


@mutation
async def add(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("things", {"text": text})


@mutation
async def sign_in(ctx: MutationCtx, name: str, password: Secret[str] = "") -> None:
    await ctx.db.insert("things", {"name": name, "length": len(password)})


@mutation(record=False)
async def whisper(ctx: MutationCtx, text: str) -> None:
    await ctx.db.insert("things", {})


APP = [add, sign_in, whisper]


async def asked(
    node: Node, name: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
) -> Any:
    """The answer of a route under /api/headrace/."""
    deployer: Any = SimpleNamespace(application=node.functions.deployment.application)
    routes = Administration(node, deployer, allow_shell=False).routes()
    (route,) = [each for each in routes if each.path.endswith("/" + name)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    request = Request(
        method=route.method,
        path=route.path,
        query=query or {},
        headers={"content-type": "application/json"},
        incoming=Incoming(receive, is_over=body is None),
    )
    response: Any = await route.handler(request)
    return json.loads(response.body)


async def last(node: Node) -> dict[str, Any]:
    (record,) = (await asked(node, "log", {"last": "1"}))["records"]
    return record  # type: ignore[no-any-return]


HUGE = ["9" * 19, "9" * 20, str(1 << 64), "9" * 400, "9" * 5_000]


@pytest.mark.parametrize("number", HUGE)
async def test_numbers_that_no_record_has_are_refused_or_find_nothing(
    autojump_clock: MockClock, number: str
) -> None:
    async with serving(APP) as node:
        with pytest.raises(RequestRefused) as of_record:
            await asked(node, "record", {"ts": number})
        with pytest.raises(RequestRefused) as of_replay:
            await asked(node, "replay", body={"ts": number})
        if len(number) == 19:
            assert {"records": []} == await asked(node, "log", {"after": number})
        else:
            with pytest.raises(RequestRefused):
                await asked(node, "log", {"after": number})

    assert {of_record.value.status, of_replay.value.status} <= {400, 404}


async def test_a_mutation_whose_secrets_were_not_recorded_is_not_run_without_them(
    autojump_clock: MockClock,
) -> None:
    async with serving(APP) as node:
        await mutate(node, sign_in, name="ada", password="hunter2")
        record = await last(node)

        shown = await asked(node, "record", {"ts": record["ts"]})
        with pytest.raises(RequestRefused, match=r"not recorded \(password\)"):
            await asked(node, "replay", body={"ts": record["ts"]})

    assert "hunter2" not in json.dumps(shown)


async def test_a_mutation_that_is_not_recorded_is_not_run_again(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, whisper, text="hunter2")
        record = await last(node)

        shown = await asked(node, "record", {"ts": record["ts"]})
        with pytest.raises(RequestRefused, match="record=False"):
            await asked(node, "replay", body={"ts": record["ts"]})

    assert "hunter2" not in json.dumps(shown)


async def test_others_have_their_turn_while_large_records_are_listed(
    autojump_clock: MockClock,
) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with serving(APP) as node:
        for _ in range(40):
            await mutate(node, add, text="x" * 500_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await trio.lowlevel.checkpoint()
            before = turns
            newest = await asked(node, "log", {"last": "1000"})
            oldest = await asked(node, "log", {"limit": "1000"})
            between = turns - before
            nursery.cancel_scope.cancel()

    assert newest == oldest
    assert len(newest["records"]) > 40
    assert between >= 8


async def test_the_oldest_record_that_is_left_can_be_run_again(autojump_clock: MockClock) -> None:
    limits = Limits(log_age_s_max=100.0, log_age_s_min=0.0)
    async with serving(APP, limits=limits) as node:
        await mutate(node, add, text="gone")
        await trio.sleep(200)
        await mutate(node, add, text="left")
        ts = (await last(node))["ts"]
        await node.retention.trim()

        oldest = (await asked(node, "log", {"limit": "1"}))["records"][0]
        replayed = await asked(node, "replay", body={"ts": ts})

    assert ts == oldest["ts"]
    assert (1, []) == (replayed["compared"], replayed["differences"])


async def test_the_last_none_are_none(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        await mutate(node, add, text="a")

        assert {"records": []} == await asked(node, "log", {"last": "0"})


async def test_a_path_of_half_a_character_is_refused(autojump_clock: MockClock) -> None:
    async with serving(APP) as node:
        for body, why in (
            ({"path": "\ud800"}, "Could not find"),
            ({"path": "a:b", "component": "\ud800"}, "no component is mounted"),
        ):
            found = await asked(node, "explain", body=body)

            assert why in found["error"]


@pytest.mark.parametrize("body", [{}, {"path": 1}, {"path": "a:b", "component": None}])
async def test_what_is_no_path_is_refused(autojump_clock: MockClock, body: dict[str, Any]) -> None:
    async with serving(APP) as node:
        with pytest.raises(RequestRefused, match="has to be the path of a") as told:
            await asked(node, "explain", body=body)

    assert 400 == told.value.status


@pytest.mark.parametrize("error", [OutOfRetention("it went"), SnapshotTooOld("it took too long")])
async def test_why_a_mutation_cannot_be_run_again_is_told(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, error: EngineError
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise error

    async with serving(APP) as node:
        await mutate(node, add, text="a")
        ts = (await last(node))["ts"]
        monkeypatch.setattr(node.functions, "replay", refused)

        with pytest.raises(RequestRefused, match=str(error)) as told:
            await asked(node, "replay", body={"ts": ts})

    assert 409 == told.value.status


async def test_no_more_is_shown_at_a_time_than_fits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def shown(name: str, **query: str) -> int:
        return len((await asked(node, name, query))[name.replace("log", "records")])

    async with serving(APP) as node:
        for _ in range(5):
            await mutate(node, add, text="x" * 100)
        everything = await shown("documents", table="things")
        monkeypatch.setattr(administration, "DOCUMENTS_SHOWN_MAX", 3)
        few = await shown("documents", table="things", limit="9")
        monkeypatch.setattr(administration, "DOCUMENTS_SHOWN_BYTES_MAX", 150)
        fewer = await shown("documents", table="things", limit="9")
        monkeypatch.setattr(administration, "RECORDS_SHOWN_MAX", 4)
        oldest, newest = await shown("log", limit="9"), await shown("log", last="9")

    assert (5, 3, 1, 4, 4) == (everything, few, fewer, oldest, newest)
